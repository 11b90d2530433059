/*
 * NumPy's .npy files: arrays of f16 or f32, C order, little-endian.
 */
#ifndef KERNELRY_TOOLS_NPY_H
#define KERNELRY_TOOLS_NPY_H

#include <kernelry/kernelry.h>

#define NPY_RANK_MAX 8

/** An array; `data` is malloc'd and belongs to whoever holds the struct. */
struct npy {
    uint32_t type; /* KRY_TYPE_F16 or KRY_TYPE_F32 */
    uint32_t rank;
    int64_t shape[NPY_RANK_MAX];
    uint64_t bytes;
    void *data;
};

/**
 * Read a file of format version 1, 2 or 3.
 *
 * Errors     KRY_E_IO; KRY_E_MEMORY; KRY_E_FORMAT: no .npy file, or one that is damaged;
 *            KRY_E_UNSUPPORTED: Fortran order, big-endian, another element type. The message
 *            names the file.
 */
kry_status npy_read(const char *path, struct npy *out);

/**
 * Write a file of format version 1: all of it or, on any error, nothing. What was at `path`
 * before is replaced at the end in one step (a device or a pipe is written to directly).
 *
 * Errors     KRY_E_IO, a full disk among others.
 */
kry_status npy_write(const char *path, const struct npy *array);

/** Release `data`. */
void npy_free(struct npy *array);

#endif
