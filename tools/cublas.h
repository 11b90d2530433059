/*
 * cuBLAS, found by dlopen: products of dense matrices, to measure beside.
 */
#ifndef KERNELRY_TOOLS_CUBLAS_H
#define KERNELRY_TOOLS_CUBLAS_H

#include "cuda.h"
#include "device_memory.h"

struct cublas;

/**
 * Ownership  borrows what it is given until cublas_close.
 * Errors     KRY_E_DEPENDENCY: it is not here; KRY_E_DEVICE, KRY_E_MEMORY.
 */
kry_status cublas_open(const struct cuda *cuda, const struct device_memory *memory,
                       struct cublas **out);
void cublas_close(struct cublas **cublas);

/** "13.0.0" */
const char *cublas_version(const struct cublas *cublas);

/** y [m, N] = x [m, K] * W^T, W [N, K]; all of one type, f16 or bf16, rows dense; sums in f32. */
struct cublas_product {
    int64_t m, in_features, out_features;
    uint32_t type; /* KRY_TYPE_* */
    const void *weights, *x;
    void *y;
};

/** Enqueue on CUDA's stream. Can be captured. Errors: KRY_E_DEVICE, KRY_E_ARGUMENT. */
kry_status cublas_enqueue(const struct cublas *cublas, const struct cublas_product *product);

#endif
