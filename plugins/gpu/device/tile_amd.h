/*
 * The matrix kernel for AMD: MFMA of CDNA (waves of 64 lanes), WMMA of RDNA3 and RDNA4 (of 32).
 *
 * Block tile    16 WAVES FEATURES (n) x 16 ROWS (m) x 64 (places); a wave owns 16 FEATURES x
 *               16 ROWS of it.
 * Instruction   16 x 16 x 16, one a block of places: W is operand A, x operand B. A lane holds of
 *               one row of either the pairs of places t, t + 1, ... t + PAIRS - 1 of both halves of
 *               the block, see gpu_matrix_pair; the codes of a pair t of rows 2 r and 2 r + 1 lie
 *               together, in the bytes that layout.h gives to lane 4 r + t. Over places the
 *               instruction only sums, so their order does not matter while A and B agree.
 * Pipeline      two stages of x in shared memory; x and codes of the next tile of places are on
 *               their way to registers while this one's are multiplied. Codes and scales go to
 *               registers only, since no other wave reads them.
 * Split         as in stream.h, with the accumulators as they lie in the threads.
 *
 * shared memory   shape                     type      stored as                       bytes
 * x               [2][16 ROWS, 64]          16 bits   rows of 144 bytes: 16 rows      4608 ROWS
 *                                                     meet all banks evenly
 * sums            [16 ROWS, 64 FEATURES]    f32       over x, when it has been read   4096 each
 *
 * Numerics   weights are rounded to x's type once, after their scale; sums in f32 over all places
 * of the block, then over splits in fixed order. gfx90a takes subnormal operands as zeros. Chosen
 * on AMD, except where y would show the rounding of weights, see plan.c.
 */
#ifndef KERNELRY_GPU_TILE_AMD_H
#define KERNELRY_GPU_TILE_AMD_H

#include "operands.h"

template <int BITS_, bool BF16_, int FEATURES_, int ROWS_> struct gpu_amd_shape {
    static constexpr int BITS = BITS_, FEATURES = FEATURES_, ROWS = ROWS_, LOADS = BITS / 4;
    static constexpr bool BF16 = BF16_;
    static constexpr int PAIRS = GPU_MATRIX_PAIRS, SUMS = GPU_MATRIX_SUMS;
    static constexpr int THREADS = GPU_AMD_WAVES * static_cast<int>(GPU_WAVE);
    static constexpr int N_TILES = GPU_AMD_WAVES * FEATURES, M = ROWS * 16;
    static constexpr int CHUNKS = (M * 8 + THREADS - 1) / THREADS; /* of x, a thread */
    static constexpr int PITCH = GPU_AMD_PITCH, STAGE_BYTES = M * PITCH;
};

/** What a lane needs of W's next tile of places: for each block a word (4 bits) or two (8 bits) of
 *  each pair, and its row's scale and zero point. */
template <class S> struct gpu_amd_weights {
    gpu_u32x4 codes[S::FEATURES][S::PAIRS][S::LOADS];
    uint16_t scales[S::FEATURES][GPU_TILE_BLOCKS];
    uint8_t zeros[S::FEATURES][GPU_TILE_BLOCKS];
};

template <class S>
GPU_DEVICE void gpu_amd_load(const gpu_apply_params &p, const gpu_block_place &at, int32_t k_tile,
                             gpu_amd_weights<S> &w) {
    uint32_t row = gpu_lane() % 16, from = row / 2 * 4 + gpu_matrix_pair();
    int32_t first = at.n_tile + static_cast<int32_t>(gpu_wave()) * S::FEATURES;
#pragma unroll
    for (int f = 0; f < S::FEATURES; f++) { /* tiles that do not exist repeat the last one */
        int32_t n_tile = first + f < p.n_tiles ? first + f : p.n_tiles - 1;
        const unsigned char *codes =
            p.codes + gpu_tile_at(p.k_tiles, 128 * S::BITS, n_tile, k_tile) + from * 16;
#pragma unroll
        for (int i = 0; i < S::PAIRS * S::LOADS; i++)
            w.codes[f][i / S::LOADS][i % S::LOADS] =
                gpu_load_stream(codes + i / S::LOADS * 16 + i % S::LOADS * 512);
#pragma unroll
        for (int j = 0; j < GPU_TILE_BLOCKS; j++) {
            uint32_t block = static_cast<uint32_t>(k_tile * GPU_TILE_BLOCKS + j);
            uint64_t scale = gpu_scales_at(p, n_tile, gpu_group(p, block)) + row;
            w.scales[f][j] = reinterpret_cast<const uint16_t *>(p.scales)[scale];
            w.zeros[f][j] =
                p.zeros != nullptr ? p.zeros[scale] : static_cast<uint8_t>(1 << (S::BITS - 1));
        }
    }
}

/** A thread's chunks of x of a tile of places. Rows beyond m repeat the last one. */
template <class S>
GPU_DEVICE void gpu_amd_load_x(const gpu_apply_params &p, const gpu_block_place &at, int32_t k_tile,
                               gpu_u32x4 x[S::CHUNKS]) {
#pragma unroll
    for (int i = 0; i < S::CHUNKS; i++) {
        uint32_t chunk = static_cast<uint32_t>(i * S::THREADS) + gpu_thread();
        int64_t row = at.row + chunk / 8 % S::M;
        int32_t k = k_tile * GPU_TILE_K + static_cast<int32_t>(chunk % 8) * 8 - p.front;
        const uint16_t *from =
            static_cast<const uint16_t *>(p.x) + (row < p.m ? row : p.m - 1) * p.x_stride + k;
        int32_t left = k < 0 ? 0 : p.k - k; /* columns from there on */
        uint32_t words[4] = {0, 0, 0, 0};
        if (left >= 8) {
            x[i] = gpu_load_cached(from);
            continue;
        }
        for (int32_t c = 0; c < 8; c++)
            if (c < left)
                words[c / 2] |= static_cast<uint32_t>(from[c]) << (c % 2 * 16);
        x[i] = {words[0], words[1], words[2], words[3]};
    }
}

template <class S> GPU_DEVICE void gpu_amd_store_x(unsigned char *stage, const gpu_u32x4 *x) {
#pragma unroll
    for (int i = 0; i < S::CHUNKS; i++) {
        uint32_t chunk = static_cast<uint32_t>(i * S::THREADS) + gpu_thread();
        if (chunk < S::M * 8)
            *reinterpret_cast<gpu_u32x4 *>(stage + chunk / 8 * S::PITCH + chunk % 8 * 16) = x[i];
    }
}

/** A word of a 16-byte load. */
GPU_DEVICE uint32_t gpu_amd_word(const gpu_u32x4 &v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/** The codes of a pair of places of row `row` of two, in the low bits of each half: `upper` half of
 *  block j. */
template <int BITS>
GPU_DEVICE uint32_t gpu_amd_codes(const gpu_u32x4 *loads, int j, int upper, uint32_t row) {
    if (BITS == 4)
        return gpu_amd_word(loads[0], j) >> (row * 4 + static_cast<uint32_t>(upper) * 8) &
               0x000f000fu;
    uint32_t word = gpu_amd_word(loads[j / 2], j % 2 * 2 + upper) >> (row * 16);
    return gpu_permute(word, 0, 0x4140);
}

/** (q - z) s, rounded once: q - z is exact in f16, and their product in f32. */
template <bool BF16>
GPU_DEVICE uint32_t gpu_amd_dequantize(uint32_t codes, uint16_t scale, uint8_t zero) {
    if (BF16) {
        float by = gpu_bf16_widen(scale), less = static_cast<float>(zero);
        return gpu_bf16x2_pack((static_cast<float>(codes & 0xff) - less) * by,
                               (static_cast<float>(codes >> 16 & 0xff) - less) * by);
    }
    uint32_t less = zero * 0x10001u | 0x64006400u; /* 1024 + z */
    return gpu_f16x2_mul(gpu_f16x2_sub(codes | 0x64006400u, less), scale * 0x10001u);
}

template <class S>
GPU_DEVICE void gpu_amd_multiply(const gpu_amd_weights<S> &w, const unsigned char *stage,
                                 float c[S::FEATURES][S::ROWS][S::SUMS]) {
    uint32_t lane_row = gpu_lane() % 16;
#pragma unroll
    for (int j = 0; j < GPU_TILE_BLOCKS; j++) {
        uint32_t left[S::FEATURES][2 * S::PAIRS];
#pragma unroll
        for (int i = 0; i < S::FEATURES * 2 * S::PAIRS; i++) {
            int f = i / (2 * S::PAIRS), pair = i % S::PAIRS, upper = i / S::PAIRS % 2;
            left[f][i % (2 * S::PAIRS)] = gpu_amd_dequantize<S::BF16>(
                gpu_amd_codes<S::BITS>(w.codes[f][pair], j, upper, lane_row % 2), w.scales[f][j],
                w.zeros[f][j]);
        }
#pragma unroll
        for (int r = 0; r < S::ROWS; r++) {
            uint32_t right[2 * S::PAIRS];
            const uint32_t *x = reinterpret_cast<const uint32_t *>(
                stage + (r * 16 + lane_row) * S::PITCH + j * 32 + gpu_matrix_pair() * 4);
#pragma unroll
            for (int i = 0; i < 2 * S::PAIRS; i++)
                right[i] = x[i / S::PAIRS * 4 + i % S::PAIRS];
#pragma unroll
            for (int f = 0; f < S::FEATURES; f++) {
                if (S::BF16)
                    gpu_matrix_bf16(c[f][r], left[f], right);
                else
                    gpu_matrix_f16(c[f][r], left[f], right);
            }
        }
#pragma unroll
        for (int i = 0; i < S::FEATURES * S::ROWS; i++) /* or all of x is loaded at once */
            gpu_keep_order(c[i / S::ROWS][i % S::ROWS][0]);
    }
}

/** All tiles of places of the block. Behind the barrier of a tile its x has been read by all, and
 *  that of the next tile is here. */
template <class S>
GPU_DEVICE void gpu_amd_sum(const gpu_apply_params &p, const gpu_block_place &at,
                            unsigned char *shared, float c[S::FEATURES][S::ROWS][S::SUMS]) {
    gpu_amd_weights<S> next;
    gpu_u32x4 x[S::CHUNKS];
    if (at.begin < at.end) {
        gpu_amd_load_x<S>(p, at, at.begin, x);
        gpu_amd_load<S>(p, at, at.begin, next);
        gpu_amd_store_x<S>(shared, x);
    }
    gpu_barrier();
    for (int32_t tile = at.begin; tile < at.end; tile++) {
        uint32_t stage = static_cast<uint32_t>(tile - at.begin) % 2 * S::STAGE_BYTES;
        gpu_amd_weights<S> w = next;
        if (tile + 1 < at.end) {
            gpu_amd_load_x<S>(p, at, tile + 1, x);
            gpu_amd_load<S>(p, at, tile + 1, next);
        }
        gpu_amd_multiply<S>(w, shared + stage, c);
        if (tile + 1 < at.end)
            gpu_amd_store_x<S>(shared + (S::STAGE_BYTES - stage), x);
        gpu_barrier();
    }
}

template <class S> GPU_DEVICE void gpu_amd_tile(const gpu_apply_params &p) {
    GPU_SHARED(shared);
    gpu_block_place at = gpu_block_place_of<S::M, S::N_TILES>(p);
    float c[S::FEATURES][S::ROWS][S::SUMS] = {};
    gpu_amd_sum<S>(p, at, shared, c);
    if (p.splits > 1 && !gpu_join_split<S::FEATURES * S::ROWS * S::SUMS>(
                            p, at.output_tile, at.split, shared, &c[0][0][0]))
        return;
    /* By way of shared memory, which nobody reads any more: neighbours store neighbours. */
    constexpr uint32_t COLUMNS = S::N_TILES * GPU_TILE_N;
    float *sums = reinterpret_cast<float *>(shared);
    gpu_barrier();
#pragma unroll
    for (int i = 0; i < S::FEATURES * S::ROWS * S::SUMS; i++) {
        uint32_t f = i / (S::ROWS * S::SUMS), r = i / S::SUMS % S::ROWS;
        uint32_t tile = gpu_wave() * S::FEATURES + f;
        sums[(r * 16 + gpu_lane() % 16) * COLUMNS + tile * GPU_TILE_N +
             gpu_matrix_row(i % S::SUMS)] = c[f][r][i % S::SUMS];
    }
    gpu_barrier();
    gpu_store_tile<COLUMNS>(p, sums, at.row, at.n_tile * GPU_TILE_N, S::M);
}

#endif
