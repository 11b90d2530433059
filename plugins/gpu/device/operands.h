/*
 * What the kernels share: where a block's scale lies, how x is read, how y is written, and the sum
 * over the blocks of a split along K.
 */
#ifndef KERNELRY_GPU_OPERANDS_H
#define KERNELRY_GPU_OPERANDS_H

#include "../params.h"
#include "target.h"

GPU_DEVICE uint32_t gpu_divide(uint32_t value, gpu_divider by) {
    return gpu_multiply_high(value, by.magic) + (value & by.mask);
}

GPU_DEVICE uint32_t gpu_group(const gpu_apply_params &p, uint32_t block) {
    if (p.block_group != nullptr)
        return p.block_group[block];
    uint32_t group = gpu_divide(block + p.first_offset, p.divider);
    uint32_t last = static_cast<uint32_t>(p.groups) - 1;
    return group < last ? group : last;
}

/** Where the scales of a tile of 16 features lie for a group, in elements; zero points alike. */
GPU_DEVICE uint64_t gpu_scales_at(const gpu_apply_params &p, int64_t n_tile, uint64_t group) {
    uint64_t panel = static_cast<uint64_t>(n_tile) / GPU_PANEL_TILES;
    return (panel * static_cast<uint64_t>(p.groups) + group) * GPU_PANEL_N +
           static_cast<uint64_t>(n_tile) % GPU_PANEL_TILES * GPU_TILE_N;
}

/** k tiles that hold columns. */
GPU_DEVICE int32_t gpu_used_tiles(const gpu_apply_params &p) {
    return p.header != nullptr ? static_cast<int32_t>(p.header[0]) : p.k_tiles;
}

/** A chunk of 8 columns of x that the row's end cuts: `left` of them exist. */
GPU_DEVICE void gpu_copy_rest(const uint16_t *x, int32_t left, unsigned char *to) {
#pragma unroll 1
    for (int32_t i = 0; i < 8; i++)
        reinterpret_cast<uint16_t *>(to)[i] = i < left ? x[i] : uint16_t{0};
}

GPU_DEVICE float gpu_widen(const void *from, int64_t index, uint32_t type) {
    if (type == KRY_TYPE_F32)
        return static_cast<const float *>(from)[index];
    uint16_t bits = static_cast<const uint16_t *>(from)[index];
    return type == KRY_TYPE_F16 ? gpu_f16_widen(bits) : gpu_bf16_widen(bits);
}

GPU_DEVICE uint16_t gpu_round(float value, uint32_t type) {
    return type == KRY_TYPE_F16 ? gpu_f16_round(value) : gpu_bf16_round(value);
}

/** Store y[row][column] = value + bias, if it exists. */
GPU_DEVICE void gpu_store_y(const gpu_apply_params &p, int64_t row, int32_t column, float value) {
    if (row >= p.m || column >= p.n)
        return;
    if (p.bias != nullptr)
        value += gpu_widen(p.bias, column, p.y_type);
    int64_t at = row * p.y_stride + column;
    if (p.y_type == KRY_TYPE_F32)
        static_cast<float *>(p.y)[at] = value;
    else
        static_cast<uint16_t *>(p.y)[at] = gpu_round(value, p.y_type);
}

/**
 * Tell the blocks of a split apart after each has written its partial sums: true for the last one
 * to come, which sees those of all, and has put the semaphore back to zero.
 * `flag` is a word of shared memory that nobody else uses.
 */
GPU_DEVICE bool gpu_last_of_split(const gpu_apply_params &p, uint32_t output_tile, uint32_t *flag) {
    gpu_fence();
    gpu_barrier();
    if (gpu_thread() == 0) {
        uint32_t before = gpu_atomic_add(p.semaphores + output_tile, 1);
        *flag = before + 1 == static_cast<uint32_t>(p.splits);
        if (*flag)
            p.semaphores[output_tile] = 0;
    }
    gpu_barrier();
    bool last = *flag != 0;
    gpu_fence();
    return last;
}

#endif
