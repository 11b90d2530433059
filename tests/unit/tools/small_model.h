/*
 * Checkpoints with headers and no contents, for tests that read headers only.
 */
#ifndef KERNELRY_TESTS_SMALL_MODEL_H
#define KERNELRY_TESTS_SMALL_MODEL_H

#include <stddef.h>
#include <stdint.h>

/** A layer of 4-bit symmetric weights. */
struct small_layer {
    const char *name;
    int64_t in_features;
    int64_t out_features;
};

/**
 * Make a compressed-tensors checkpoint in a new folder: model.safetensors (a sparse file) and
 * config.json. Fails the test when it cannot. Returns the folder, to be passed to
 * small_model_remove.
 */
char *small_model_make(const struct small_layer *layers, size_t count, int64_t group_size);
void small_model_remove(char *folder);

#endif
