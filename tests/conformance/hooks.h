/*
 * Sees the allocations of a plugin: its own calls of malloc, mmap and the like, whether or not
 * they come back in pairs.
 */
#ifndef KERNELRY_CONFORMANCE_HOOKS_H
#define KERNELRY_CONFORMANCE_HOOKS_H

#include <stdbool.h>

/**
 * Redirect the imports of the shared object that holds an address, for good. False where that
 * cannot be done; then nothing is ever seen. What other libraries do on the plugin's behalf
 * is not seen either.
 */
bool hooks_install(const void *address);

/** Begin to watch. */
void hooks_begin(void);

/** End; returns the name of a function that was called since, or NULL. */
const char *hooks_end(void);

#endif
