/*
 * Sees what a plugin calls that it must not: allocations (its own calls of malloc, mmap and the
 * like, whether or not they come back in pairs) and calls that wait.
 */
#ifndef KERNELRY_CONFORMANCE_HOOKS_H
#define KERNELRY_CONFORMANCE_HOOKS_H

#include <stdbool.h>
#include <stdint.h>

/** What is watched for. */
enum hooks_kind { HOOKS_ALLOCATION = 1, HOOKS_WAIT = 2 };

/**
 * Redirect the imports of the shared object that holds an address, for good. False where that
 * cannot be done; then nothing is ever seen. What other libraries do on the plugin's behalf
 * is not seen either.
 */
bool hooks_install(const void *address);

/** From now on watch for calls of a kind, between hooks_enter and hooks_leave. */
void hooks_begin(enum hooks_kind kind);

/** End; returns the name of a function that was called since, or NULL. */
const char *hooks_end(void);

/** Count, from now on, what the plugin allocates by malloc and the like, less what it frees. */
void hooks_count_begin(void);
int64_t hooks_count_end(void);

/** A kernel's function runs, or has ended. What the suite does before and after it, with the help
 *  of the same plugin's platform, is not watched. */
void hooks_enter(void);
void hooks_leave(void);

#endif
