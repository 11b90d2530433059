/*
 * A folder for a test's files, and the models of make_model in it.
 */
#ifndef KERNELRY_TESTS_SCRATCH_H
#define KERNELRY_TESTS_SCRATCH_H

#include <stddef.h>

/** Setup and teardown: make the folder; remove it and all in it. */
int scratch_begin(void **state);
int scratch_end(void **state);

/** The path of a name in the folder; good until the eighth call after. */
const char *scratch_at(const char *name);

/** Make a model of a kind (see make_model.c) under a name. Fails the test when it cannot. */
void scratch_model(const char *kind, const char *name);

/** Setup: the folder with a tiny model, "dense", and what `kernelry quantize` with one more option
 *  (NULL: none) makes of it, "model". */
int scratch_quantized(void **state, const char *option);

/** Write a file, or read one with a '\0' behind it, to be freed; *bytes may be NULL. Fail the
 *  test when they cannot. */
void scratch_write(const char *name, const void *data, size_t bytes);
char *scratch_read(const char *name, size_t *bytes);

/** How many names are in a folder of it; "" is the folder itself. */
size_t scratch_count(const char *name);

#endif
