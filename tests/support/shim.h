/*
 * libc as the core sees it in tests that link the static library through this shim
 * (kernelry_shim in tests/loader/CMakeLists.txt wraps each function below at link time). Until a
 * test says otherwise everything goes through to libc. One thread at a time.
 *
 * What it can do: fail the k-th allocation or the k-th system call, count what of them is left
 * over, play a process with raised privileges, and act just before or after a dlopen.
 */
#ifndef KERNELRY_TESTS_SHIM_H
#define KERNELRY_TESTS_SHIM_H

#include <stdbool.h>
#include <stddef.h>

/** Begin to watch, with the k-th allocation (0: none) failing for lack of memory, or the k-th
 *  system call with that error number. */
void shim_fail_allocation(unsigned k);
void shim_fail_call(unsigned k, int error_number);
/** End it: nothing fails any more, allocations are still followed until they are released. */
void shim_stop(void);

/** Since watching began: the name of the function that failed, NULL when none was reached. */
const char *shim_failed(void);
unsigned shim_allocations(void);
unsigned shim_calls(void);

/** While watching: reads of files give a byte at a time, every other one is interrupted first. */
void shim_read_in_pieces(bool pieces);

/** Blocks, and mappings of files, that were made while watching and are not released yet. */
size_t shim_live(void);
/** Descriptors that the process has open. */
int shim_descriptors(void);

/** Whether secure_getenv answers NULL, as in a set-user-ID program. */
void shim_raise_privileges(bool raised);

/** Called around each dlopen of the core; NULL: nothing. */
extern void (*shim_before_dlopen)(const char *path);
extern void (*shim_after_dlopen)(const char *path);
/** Opens, so that a test can see that a path was not even opened. */
unsigned shim_opens_of(const char *path);

#endif
