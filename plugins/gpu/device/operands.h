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
        return gpu_load_early(p.block_group + block);
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
    return p.header != nullptr ? static_cast<int32_t>(gpu_load_early(p.header)) : p.k_tiles;
}

/** Where a block is whose share of an output tile is a range of places. */
struct gpu_block_place {
    int64_t row;    /* first row of x */
    int32_t n_tile; /* first tile of features */
    int32_t begin;  /* tiles of places */
    int32_t end;
    uint32_t output_tile;
    int32_t split;
};

/** The place of a block of M rows and N_TILES tiles of features. Output tiles go down the rows of x
 * first, so that blocks at work together share weights. */
template <int M, int N_TILES>
GPU_DEVICE gpu_block_place gpu_block_place_of(const gpu_apply_params &p) {
    gpu_block_place at;
    uint32_t tiles = static_cast<uint32_t>(p.m_blocks * p.n_blocks);
    at.output_tile = gpu_block() % tiles;
    at.split = static_cast<int32_t>(gpu_block() / tiles);
    at.row = static_cast<int64_t>(at.output_tile % p.m_blocks) * M;
    at.n_tile = static_cast<int32_t>(at.output_tile / p.m_blocks) * N_TILES;
    int32_t used = gpu_used_tiles(p);
    at.begin = at.split * p.split_tiles;
    at.end = at.begin + p.split_tiles < used ? at.begin + p.split_tiles : used;
    return at;
}

#if GPU_HAS_MMA
/** A thread's chunks of x: 8 columns each, of rows at equal distances. */
struct gpu_x_source {
    const uint16_t *x; /* of the first row, at the chunk's column */
    int32_t rows;      /* rows that exist from the first one on, which are not all the thread's */
    int32_t k;         /* column of the chunk */
    uint32_t at;       /* where the first one goes, bytes */
};

/** The chunks at place `place` of a thread whose first row is `row`. */
GPU_DEVICE gpu_x_source gpu_x_source_of(const gpu_apply_params &p, int64_t row, int64_t row_end,
                                        int32_t place, uint32_t at) {
    gpu_x_source from;
    from.k = place - p.front;
    from.x = static_cast<const uint16_t *>(p.x) + row * p.x_stride + from.k;
    from.rows = static_cast<int32_t>((row_end < p.m ? row_end : p.m) - row);
    from.at = at;
    gpu_keep(from.x);
    gpu_keep(from.rows);
    gpu_keep(from.at);
    return from;
}

/**
 * Start copying COUNT chunks, ROWS rows of 128 bytes apart, to shared memory at `to`; FLIP is the
 * bit of the place that ROWS changes by the swizzle. What does not exist is zero and is not read.
 */
template <int COUNT, int ROWS, uint32_t FLIP>
GPU_DEVICE void gpu_copy_x(const gpu_apply_params &p, const gpu_x_source &from, unsigned char *to) {
    int32_t left = p.k - from.k;
    bool inside = from.k >= 0 && left >= 8;
    if (from.k >= 0 && left > 0 && left < 8) { /* cut by the end of the row */
#pragma unroll 1
        for (int32_t i = 0; i < COUNT * 8; i++) {
            uint32_t place = from.at ^ (static_cast<uint32_t>(i) / 8 % 2 * FLIP);
            uint16_t *value = reinterpret_cast<uint16_t *>(to + i / 8 * (ROWS * 128) + place);
            bool exists = i / 8 * ROWS < from.rows && i % 8 < left;
            value[i % 8] = exists ? from.x[i / 8 * ROWS * p.x_stride + i % 8] : uint16_t{0};
        }
        return;
    }
    const uint16_t *x = from.x;
#pragma unroll
    for (int i = 0; i < COUNT; i++, x += p.x_stride * ROWS)
        gpu_copy_async16_if(to + i * (ROWS * 128) + (from.at ^ (i % 2 * FLIP)), x,
                            inside && i * ROWS < from.rows);
}
#endif

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

/** Store `rows` rows of COLUMNS sums, which lie in shared memory, as y from a place on. */
template <uint32_t COLUMNS>
GPU_DEVICE void gpu_store_tile(const gpu_apply_params &p, const float *sums, int64_t row,
                               int32_t column, uint32_t rows) {
#pragma unroll 1
    for (uint32_t i = gpu_thread(); i < COLUMNS * rows; i += gpu_threads())
        gpu_store_y(p, row + i / COLUMNS, column + static_cast<int32_t>(i % COLUMNS), sums[i]);
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

/** Add up the COUNT sums of each thread over the blocks of a split, in order; false where another
 *  block does that. `shared` is any word of shared memory. */
template <int COUNT>
GPU_DEVICE bool gpu_join_split(const gpu_apply_params &p, uint32_t output_tile, int32_t split,
                               unsigned char *shared, float *c) {
    int64_t step = gpu_threads();
    float *partials = p.partials + static_cast<int64_t>(output_tile) * p.splits * COUNT * step;
    float *mine = partials + split * COUNT * step + gpu_thread();
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        mine[i * step] = c[i];
    if (!gpu_last_of_split(p, output_tile, reinterpret_cast<uint32_t *>(shared)))
        return false;
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        c[i] = 0;
    for (int32_t s = 0; s < p.splits; s++) {
        const float *from = partials + s * COUNT * step + gpu_thread();
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            c[i] += from[i * step];
    }
    return true;
}

#endif
