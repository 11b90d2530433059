/* Canonical weights of a description, drawn at random, for tests of the GPU plugin. */
#ifndef KERNELRY_TEST_GPU_WEIGHTS_H
#define KERNELRY_TEST_GPU_WEIGHTS_H

#include <kernelry/plugin.h>

struct weights {
    kry_linear linear;  /* complete */
    kry_canonical rows; /* all of them */
    uint8_t *codes;     /* [N, K], the same codes one by one */
};

uint64_t weights_random(uint64_t *state);

/** A complete description from its parts; the rest is at its plainest. */
kry_linear weights_linear(int64_t in_features, int64_t out_features, int64_t group_size,
                          uint32_t weight_type);

/** Draw weights; rows are `gap` words, scales and zero points `gap` elements apart from dense. */
void weights_make(struct weights *out, const kry_linear *linear, int64_t gap, uint64_t seed);
void weights_free(struct weights *weights);

/** The part of the rows from n_begin to n_end. */
kry_canonical weights_range(const struct weights *weights, int64_t n_begin, int64_t n_end);

#endif
