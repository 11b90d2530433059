/*
 * The device's code, and its start. A thread computes one element of y at a time, alone: right, and
 * many times slower than what shares work in shared memory and uses matrix instructions.
 *
 * Numerics   products and sums in f32, in the order of k; one rounding at the store.
 */
#include <cuda_runtime.h>

#include "device.h"

enum { THREADS = 128, ROWS_MOST = 65535 };

/* ---- numbers --------------------------------------------------------------------------- */

static __device__ float float_of_bf16(uint16_t bits) {
    return __uint_as_float((uint32_t)bits << 16);
}

/* To nearest, ties to even; NaN stays NaN. */
static __device__ uint16_t bf16_of_float(float value) {
    uint32_t wide = __float_as_uint(value);
    if (value != value)
        return (uint16_t)(wide >> 16 | 0x40);
    wide += 0x7fff + (wide >> 16 & 1);
    return (uint16_t)(wide >> 16);
}

/* ---- kernels --------------------------------------------------------------------------- */

static __global__ void prepare(struct shape shape, kry_canonical from, void *prepared) {
    int64_t n = from.n_begin + (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (n < from.n_end)
        prepare_feature(&shape, &from, n, prepared);
}

static __global__ void product(struct shape shape, const void *prepared, kry_apply_args args) {
    const int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const uint32_t *words = (const uint32_t *)prepared;
    const uint16_t *scales = scales_of(&shape, prepared), *bias = (const uint16_t *)args.bias;
    if (n >= shape.n)
        return;
    for (int64_t m = blockIdx.y; m < args.m; m += gridDim.y) {
        const uint16_t *x = (const uint16_t *)args.x + m * args.x_stride;
        float sum = 0;
        for (int64_t k = 0; k < shape.k; k++) {
            uint32_t word = words[word_place(&shape, n, k / 8)];
            int32_t code = (int32_t)(word >> (k % 8 * 4) & 15);
            float scale = float_of_bf16(scales[scale_place(&shape, n, group_of(&shape, k))]);
            sum += float_of_bf16(x[k]) * ((float)(code - 8) * scale);
        }
        if (bias != nullptr)
            sum += float_of_bf16(bias[n]);
        ((uint16_t *)args.y)[m * args.y_stride + n] = bf16_of_float(sum);
    }
}

/* ---- their start ----------------------------------------------------------------------- */

static thread_local const char *why = "";

const char *device_error() { return why; }

static kry_status status_of(cudaError_t error) {
    if (error == cudaSuccess)
        return KRY_OK;
    why = cudaGetErrorString(error);
    return KRY_E_DEVICE;
}

/* Makes a device current, and the caller's own again at the end. */
struct on_device {
    int before = 0;
    cudaError_t error;
    explicit on_device(int32_t ordinal) {
        error = cudaGetDevice(&before);
        if (error == cudaSuccess && before != ordinal)
            error = cudaSetDevice(ordinal);
    }
    ~on_device() { (void)cudaSetDevice(before); }
};

static unsigned blocks_of(int64_t features) {
    return (unsigned)((features + THREADS - 1) / THREADS);
}

/* Code is loaded when it is first asked for, which a graph's capture would not allow. */
kry_status device_open(int32_t ordinal) {
    on_device here(ordinal);
    cudaFuncAttributes attributes;
    if (here.error == cudaSuccess)
        here.error = cudaFuncGetAttributes(&attributes, (const void *)prepare);
    if (here.error == cudaSuccess)
        here.error = cudaFuncGetAttributes(&attributes, (const void *)product);
    return status_of(here.error);
}

kry_status device_prepare(int32_t ordinal, const struct shape *shape, const kry_canonical *from,
                          void *prepared, void *stream) {
    on_device here(ordinal);
    if (here.error != cudaSuccess)
        return status_of(here.error);
    prepare<<<blocks_of(from->n_end - from->n_begin), THREADS, 0, (cudaStream_t)stream>>>(
        *shape, *from, prepared);
    return status_of(cudaGetLastError());
}

kry_status device_apply(int32_t ordinal, const struct shape *shape, const void *prepared,
                        const kry_apply_args *args) {
    on_device here(ordinal);
    if (here.error != cudaSuccess)
        return status_of(here.error);
    dim3 grid(blocks_of(shape->n), (unsigned)(args->m < ROWS_MOST ? args->m : (int64_t)ROWS_MOST));
    product<<<grid, THREADS, 0, (cudaStream_t)args->stream>>>(*shape, prepared, *args);
    return status_of(cudaGetLastError());
}
