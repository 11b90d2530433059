/*
 * Writes a safetensors file: all tensors are declared first, then filled in any order.
 */
#ifndef KERNELRY_TOOLS_SAFETENSORS_WRITE_H
#define KERNELRY_TOOLS_SAFETENSORS_WRITE_H

#include <kernelry/checkpoint.h>

#include <stdbool.h>

/** A file that is being written. */
struct safetensors_writer;

/** Begin; nothing is on disk until safetensors_writer_open. */
kry_status safetensors_writer_create(struct safetensors_writer **out);

/** Declare a tensor; *index names it from then on. The name is copied. Errors: KRY_E_ARGUMENT:
 *  a shape beyond 2^62 bytes; KRY_E_MEMORY. */
kry_status safetensors_writer_declare(struct safetensors_writer *writer, const char *name,
                                      uint32_t dtype, const int64_t *shape, uint32_t rank,
                                      size_t *index);

/**
 * Place the declared tensors, widest elements first so that each is aligned, make the file,
 * which must not exist yet, at its full length, and write its header.
 *
 * Errors     KRY_E_ARGUMENT: two tensors of one name; KRY_E_MEMORY; KRY_E_IO.
 */
kry_status safetensors_writer_open(struct safetensors_writer *writer, const char *path);

/** Fill a tensor with all its bytes (the size was declared). Errors: KRY_E_IO. */
kry_status safetensors_writer_fill(struct safetensors_writer *writer, size_t index,
                                   const void *data);

/** Bytes of a declared tensor, and of all of them. */
uint64_t safetensors_writer_bytes(const struct safetensors_writer *writer, size_t index);
uint64_t safetensors_writer_total(const struct safetensors_writer *writer);

/** Make the file durable and check that every tensor was filled (unless `sparse`: the others
 *  are holes, which read as zeros). Errors: KRY_E_IO; KRY_E_STATE names a missing tensor. */
kry_status safetensors_writer_finish(struct safetensors_writer *writer, bool sparse);

/** Release everything; a file that was not finished stays as it is. */
void safetensors_writer_destroy(struct safetensors_writer **writer);

#endif
