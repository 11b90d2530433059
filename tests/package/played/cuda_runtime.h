/*
 * As much of CUDA's runtime as the project of `kernelry new-plugin --cuda` uses, played on a CPU:
 * blocks and threads one after another. A launch is written play(grid, threads, [&] {
 * kernel(arguments); }).
 */
#pragma once

#include <stdint.h>
#include <string.h>

#define __CUDACC__
#define __host__
#define __device__
#define __global__

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

static thread_local dim3 blockIdx(0), threadIdx(0), gridDim(1);

template <class Kernel> static void play(dim3 grid, unsigned threads, Kernel kernel) {
    gridDim = grid;
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++)
            for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
                kernel();
}

static inline float __uint_as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t __float_as_uint(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

typedef void *cudaStream_t;
typedef int cudaError_t;
enum { cudaSuccess = 0 };
struct cudaFuncAttributes {};

static inline cudaError_t cudaGetDevice(int *device) { return *device = 0; }
static inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
static inline cudaError_t cudaGetLastError() { return cudaSuccess; }
static inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *, const void *) {
    return cudaSuccess;
}
static inline const char *cudaGetErrorString(cudaError_t) { return ""; }
