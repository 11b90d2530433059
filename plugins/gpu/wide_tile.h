/*
 * The block tiles of device/wide.h, for the device source that has an entry for each and for the
 * host that chooses among them.
 */
#ifndef KERNELRY_GPU_WIDE_TILE_H
#define KERNELRY_GPU_WIDE_TILE_H

#include "layout.h"

/**
 * X(n, m, warpgroups, panels, turns, chunk, resident, ...) for each: n features x m rows; a
 * warpgroup owns so many panels, which `turns` warpgroups share; sums are handed over in chunks of
 * 16 bytes a thread; so many blocks share a multiprocessor.
 */
#define GPU_WIDE_TILES(X, ...)                                                                     \
    X(64, 8, 2, 1, 2, 1, 2, __VA_ARGS__)                                                           \
    X(128, 8, 2, 2, 2, 2, 2, __VA_ARGS__)                                                          \
    X(256, 8, 2, 2, 1, 2, 2, __VA_ARGS__)                                                          \
    X(64, 16, 2, 1, 2, 2, 2, __VA_ARGS__)                                                          \
    X(128, 16, 2, 2, 2, 4, 2, __VA_ARGS__)                                                         \
    X(64, 32, 2, 1, 2, 4, 2, __VA_ARGS__)                                                          \
    X(128, 32, 2, 1, 1, 2, 2, __VA_ARGS__)                                                         \
    X(64, 64, 1, 1, 1, 8, 2, __VA_ARGS__)                                                          \
    X(64, 128, 1, 1, 1, 16, 1, __VA_ARGS__)                                                        \
    X(128, 64, 2, 1, 1, 4, 2, __VA_ARGS__)                                                         \
    X(128, 128, 2, 1, 1, 16, 1, __VA_ARGS__)                                                       \
    X(128, 192, 2, 1, 1, 0, 1, __VA_ARGS__)                                                        \
    X(256, 128, 2, 2, 1, 4, 1, __VA_ARGS__)                                                        \
    X(128, 256, 2, 1, 1, 0, 1, __VA_ARGS__)

/** Those of them that have an entry gpu_late_*, too: of few rows, where a launch that puts x in
 * order is a good part of the time. What late rows need besides has room at the end of a stage. */
#define GPU_LATE_TILES(X, ...)                                                                     \
    X(64, 8, 2, 1, 2, 1, 2, __VA_ARGS__)                                                           \
    X(128, 8, 2, 2, 2, 2, 2, __VA_ARGS__)                                                          \
    X(64, 16, 2, 1, 2, 2, 2, __VA_ARGS__)                                                          \
    X(128, 16, 2, 2, 2, 4, 2, __VA_ARGS__)

enum {
    GPU_WIDE_TILES_K = 2,                                 /* tiles of places, a stage */
    GPU_WIDE_BLOCKS = GPU_WIDE_TILES_K * GPU_TILE_BLOCKS, /* blocks of places, a stage */
    GPU_WIDE_STAGES_MOST = 16,
    GPU_WIDE_SHARED_MOST = 227 << 10 /* bytes of all blocks of a multiprocessor, and 1024 each */
};

#ifdef __cplusplus
#define GPU_CONSTANT constexpr
#else
#define GPU_CONSTANT
#endif

/** Groups of a stage that there is room for, where a tile of places has one group or any. */
GPU_LAYOUT_FN GPU_CONSTANT int32_t gpu_wide_slots(int32_t any) {
    return any ? GPU_WIDE_BLOCKS : GPU_WIDE_TILES_K;
}

/** Bytes of a stage for what late rows of x lack, see gpu_late_params. */
GPU_LAYOUT_FN GPU_CONSTANT int32_t gpu_wide_tail_bytes(int32_t m) { return m / 2 * 16; }

/** Bytes of a stage: x, codes, scales and zero points, and the tail of x. */
GPU_LAYOUT_FN GPU_CONSTANT int32_t gpu_wide_stage_bytes(int32_t n, int32_t m, int32_t bits,
                                                        int32_t any) {
    int32_t x = GPU_WIDE_TILES_K * m * GPU_TILE_K * 2, codes = GPU_WIDE_TILES_K * n * 8 * bits;
    return (x + codes + gpu_wide_slots(any) * n * 3 + 1023) / 1024 * 1024;
}

/** Threads of a block: those that multiply, and a wave that copies, or a warpgroup of which one
 * does where the others give their registers away. */
GPU_LAYOUT_FN GPU_CONSTANT int32_t gpu_wide_threads(int32_t warpgroups, int32_t resident) {
    return warpgroups * 128 + (resident == 1 ? 128 : 32);
}

/** Bytes of sums. */
GPU_LAYOUT_FN GPU_CONSTANT int32_t gpu_wide_sum_bytes(int32_t warpgroups, int32_t turns,
                                                      int32_t chunk) {
    return chunk == 0 ? 0 : (warpgroups * 128 / turns * chunk + 8) * turns * 16;
}

/** Bytes of a block's shared memory: stages with their two mbarriers and table, sums, two
 *  mbarriers. */
GPU_LAYOUT_FN GPU_CONSTANT int32_t gpu_wide_shared_bytes(int32_t stage_bytes, int32_t sum_bytes,
                                                         int32_t stages) {
    return stages * (stage_bytes + 16 + GPU_WIDE_BLOCKS) + sum_bytes + 16;
}

/** Stages that fit: a multiple of `turns`. */
GPU_LAYOUT_FN GPU_CONSTANT int32_t gpu_wide_stages(int32_t stage_bytes, int32_t sum_bytes,
                                                   int32_t turns, int32_t resident) {
    int32_t stages = turns, most = (GPU_WIDE_SHARED_MOST + 1024) / resident - 1024;
    while (stages + turns <= GPU_WIDE_STAGES_MOST &&
           gpu_wide_shared_bytes(stage_bytes, sum_bytes, stages + turns) <= most)
        stages += turns;
    return stages;
}

#endif
