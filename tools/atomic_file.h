/*
 * A file that appears whole or not at all: written beside its place, then moved there.
 */
#ifndef KERNELRY_TOOLS_ATOMIC_FILE_H
#define KERNELRY_TOOLS_ATOMIC_FILE_H

#include <kernelry/kernelry.h>

#include <limits.h>
#include <stdbool.h>

/** Filled by atomic_file_open, ended by atomic_file_close. */
struct atomic_file {
    int descriptor;
    char path[PATH_MAX];      /* where it is to appear */
    char temporary[PATH_MAX]; /* "" when written to directly: a device or a pipe */
};

/** Errors: KRY_E_IO, naming the path; then nothing is open. */
kry_status atomic_file_open(struct atomic_file *file, const char *path);

/** Append. Errors: KRY_E_IO, a full disk among others. */
kry_status atomic_file_write(struct atomic_file *file, const void *data, uint64_t bytes);

/**
 * With KRY_OK: make the file durable and move it into place. With an earlier error: remove
 * what was written and return that error.
 */
kry_status atomic_file_close(struct atomic_file *file, kry_status status);

/** Write all of `bytes` to a descriptor. Errors: KRY_E_IO, naming `path`. */
kry_status write_fully(int descriptor, const char *path, const void *data, uint64_t bytes);

#endif
