/*
 * The kernel that needs no matrix instruction and no particular width of a wave: for targets whose
 * matrix instructions have no kernel here yet. Right everywhere, fast nowhere.
 *
 * Block tile    16 (n) x 8 (m), all of k; 256 threads: feature thread % 16, and of each tile of
 *               places the four that start at 4 (thread / 16).
 *
 * shared memory   shape       type   bytes
 * sums            [256][8]    f32    8192
 *
 * Numerics   products and sums in f32, a thread's places first, then the 16 threads of a feature.
 */
#ifndef KERNELRY_GPU_PLAIN_H
#define KERNELRY_GPU_PLAIN_H

#include "operands.h"

template <bool BF16> GPU_DEVICE float gpu_plain_widen(uint16_t bits) {
    return BF16 ? gpu_bf16_widen(bits) : gpu_f16_widen(bits);
}

/** The four codes of a thread in a tile of places, less their zero point, times their scale:
 *  places 4 slice to 4 slice + 3, of block slice / 4. */
template <int BITS, bool BF16>
GPU_DEVICE void gpu_plain_weights(const gpu_apply_params &p, int64_t n_tile, int32_t k_tile,
                                  uint32_t feature, uint32_t slice, float weights[4]) {
    uint32_t fragment = slice / 4;
    const unsigned char *codes = p.codes + gpu_tile_at(p.k_tiles, 128 * BITS, n_tile, k_tile);
    uint64_t group = gpu_group(p, static_cast<uint32_t>(k_tile) * GPU_TILE_BLOCKS + fragment);
    uint64_t at = gpu_scales_at(p, n_tile, group) + feature;
    float scale = gpu_plain_widen<BF16>(reinterpret_cast<const uint16_t *>(p.scales)[at]);
    int32_t zero = p.zeros != nullptr ? p.zeros[at] : 1 << (BITS - 1);
    for (uint32_t c = 0; c < 4; c++) {
        uint32_t in_block = slice % 4 * 4 + c, reg = feature % 2 + in_block / 8 * 2, code;
        uint32_t lane = feature / 2 * 4 + in_block % 8 / 2;
        if (BITS == 4)
            code = *reinterpret_cast<const uint32_t *>(codes + lane * 16 + fragment * 4) >>
                       (reg * 4 + c % 2 * 16) &
                   15u;
        else
            code = codes[fragment / 2 * 512 + lane * 16 + fragment % 2 * 8 + reg * 2 + c % 2];
        weights[c] = static_cast<float>(static_cast<int32_t>(code) - zero) * scale;
    }
}

template <int BITS, bool BF16> GPU_DEVICE void gpu_plain(const gpu_apply_params &p) {
    constexpr uint32_t ROWS = 8;
    GPU_SHARED(shared);
    float *sums = reinterpret_cast<float *>(shared);
    uint32_t feature = gpu_thread() % 16, slice = gpu_thread() / 16;
    int64_t row = static_cast<int64_t>(gpu_block() % static_cast<uint32_t>(p.m_blocks)) * ROWS;
    int64_t n_tile = gpu_block() / static_cast<uint32_t>(p.m_blocks);
    int32_t used = gpu_used_tiles(p);
    float mine[ROWS] = {};
    for (int32_t tile = 0; tile < used; tile++) {
        float weights[4];
        gpu_plain_weights<BITS, BF16>(p, n_tile, tile, feature, slice, weights);
        int32_t k = tile * GPU_TILE_K + static_cast<int32_t>(slice) * 4 - p.front;
        for (uint32_t r = 0; r < ROWS; r++) {
            int64_t here = row + r < p.m ? row + r : p.m - 1;
            const uint16_t *x = static_cast<const uint16_t *>(p.x) + here * p.x_stride;
            for (int32_t c = 0; c < 4; c++)
                if (k + c >= 0 && k + c < p.k)
                    mine[r] += weights[c] * gpu_plain_widen<BF16>(x[k + c]);
        }
    }
    for (uint32_t r = 0; r < ROWS; r++)
        sums[gpu_thread() * ROWS + r] = mine[r];
    gpu_barrier();
    if (gpu_thread() >= 16 * ROWS)
        return;
    float total = 0;
    for (uint32_t other = 0; other < 16; other++)
        total += sums[(other * 16 + feature) * ROWS + slice];
    gpu_store_y(p, row + slice, static_cast<int32_t>(n_tile) * 16 + static_cast<int32_t>(feature),
                total);
}

#endif
