/*
 * What the harnesses share. Each reads one kind of file that strangers write, through the code
 * that production reads it with, and defines LLVMFuzzerTestOneInput: the replay driver, libFuzzer
 * and AFL++ all call that.
 */
#ifndef KERNELRY_TESTS_FUZZ_H
#define KERNELRY_TESTS_FUZZ_H

#include <kernelry/kernelry.h>

#include <stddef.h>
#include <stdint.h>

/** Read one input. 0 always; what must not be ends the process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** An invariant of the reader; whatever the input, it holds. */
#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #condition))
_Noreturn void fuzz_fail(const char *file, int line, const char *condition);

/** Clear the error, so that one from before is not taken for the next call's. */
void fuzz_forget_error(void);
/** A refusal is one of the allowed statuses (ended by KRY_OK) and has a sentence. */
void fuzz_check_refusal(kry_status status, const kry_status *allowed);

/** A file in memory alone; this process can open it by its path. */
typedef struct fuzz_file {
    int descriptor; /* -1: not made yet */
    char path[32];
} fuzz_file;
/** Make the file hold these bytes and no others. */
void fuzz_file_write(fuzz_file *file, const void *bytes, size_t size);

/** A folder of this process's own, gone when it ends. */
const char *fuzz_folder(void);

/** Read every byte, so that a sanitizer sees which of them are not there. */
void fuzz_touch(const void *bytes, size_t size);

#endif
