/*
 * The golden checkpoints of tests/data/golden and what is expected of their layers.
 */
#ifndef KERNELRY_TESTS_GOLDEN_H
#define KERNELRY_TESTS_GOLDEN_H

#include <kernelry/checkpoint.h>

/** Every case, so that a folder that is not there fails. */
extern const char *const golden_cases[];
extern const size_t golden_case_count;

/** A case: the model, and beside it the expected tensors. */
struct golden {
    const char *name;
    char *path; /* of the model's folder */
    kry_checkpoint *model;
    kry_checkpoint *expected;
};

/** What is expected of one layer. Ownership: points into the case. */
struct golden_layer {
    char name[128];
    int64_t n;
    int64_t k;
    int64_t m;
    const float *weight; /* [n, k], exact */
    const double *y;     /* [m, n] */
    const void *x;       /* [m, k] */
    uint32_t x_type;     /* KRY_TYPE_*, the model's */
};

/** Open or fail the running test. */
void golden_open(const char *name, struct golden *out);
void golden_close(struct golden *golden);

/** The index-th layer that is expected; false past the last. */
int golden_layer_at(const struct golden *golden, size_t index, struct golden_layer *out);

#endif
