/*
 * A layer of a race as cuBLAS multiplies it.
 */
#ifndef KERNELRY_TOOLS_RACE_DENSE_H
#define KERNELRY_TOOLS_RACE_DENSE_H

#include "crew.h"
#include "race_device.h"
#include "synthetic.h"

/** A layer whose weights lie there dense, in f16 or bf16, so many times that no cache holds all. */
struct race_dense;

/** compute: "f16" or "bf16". Errors: KRY_E_MEMORY; as race_device_cublas. */
kry_status race_dense_create(struct race_device *device, struct crew *crew,
                             const struct synthetic *synthetic, const char *compute,
                             struct race_dense **out);
void race_dense_destroy(struct race_dense **dense);

/**
 * Multiply x [m, K] once, and take down the products as a loop.
 *
 * Ownership  *y [m, N] is freed by the caller; the loop must be gone before the next call.
 */
kry_status race_dense_ready(struct race_dense *dense, const float *x, int64_t m, float **y,
                            struct stream_loop **out);

#endif
