/*
 * wide.h: what is multiplied. Weights become operand A in registers, x is operand B.
 *
 * Many rows   wgmma m64nNk16 of a warpgroup: while a tile's 64 places multiply, the next 64 are
 *             dequantized into the other half of `left`.
 * Few rows    mma m16n8k16 of a wave, which waits for nobody. Scales are applied to the sums of a
 *             tile of places where EXACT.
 */
#ifndef KERNELRY_GPU_WIDE_SUM_H
#define KERNELRY_GPU_WIDE_SUM_H

#include "wide_x.h"

/** A lane's places in a stage. */
template <class S> struct gpu_wide_lane {
    uint32_t codes;  /* of its warpgroup's first panel */
    uint32_t scales; /* of its two rows */
    uint32_t zeros;
};

template <class S> GPU_DEVICE gpu_wide_lane<S> gpu_wide_lane_of() {
    gpu_wide_lane<S> mine;
    uint32_t panel = gpu_thread() % S::TEAM / 128 * S::PANELS;
    uint32_t lane = gpu_lane(), tile = gpu_wave() % 4;
    uint32_t row = tile * 16 + lane / 4 * 2;
    mine.codes =
        S::CODES_AT + panel * (S::TILES * S::PANEL_BYTES) + tile * (128 * S::BITS) + lane * 16;
    mine.scales = S::SCALES_AT + panel * (S::SLOTS * GPU_PANEL_N * 2) + row * 2;
    mine.zeros = S::ZEROS_AT + panel * (S::SLOTS * GPU_PANEL_N) + row;
    gpu_keep(mine.codes);
    gpu_keep(mine.scales);
    gpu_keep(mine.zeros);
    return mine;
}

/** The scale in slot `slot` of one of a lane's panels, and its zero point. */
template <class S>
GPU_DEVICE gpu_block_scale gpu_wide_scale(const gpu_apply_params &p, const gpu_wide_lane<S> &mine,
                                          const unsigned char *stage, int panel, uint32_t slot) {
    uint32_t zeros = S::BITS == 4 ? 0x0808 : 0x8080;
    uint32_t at = static_cast<uint32_t>(panel) * S::SLOTS + slot;
    if (p.zeros != nullptr)
        zeros = *reinterpret_cast<const uint16_t *>(stage + mine.zeros + at * GPU_PANEL_N);
    return gpu_scale_of<S::BITS, S::BF16>(
        *reinterpret_cast<const uint32_t *>(stage + mine.scales + at * (GPU_PANEL_N * 2)), zeros);
}

/** Which of a stage's scales block j of tile i has: by the pattern, or as the table says. */
template <class S>
GPU_DEVICE uint32_t gpu_wide_slot(const gpu_apply_params &p, const unsigned char *table, int i,
                                  int j) {
    uint32_t block = static_cast<uint32_t>(i * GPU_TILE_BLOCKS + j);
    return p.slots == 0 ? table[block] : block * static_cast<uint32_t>(p.slots) / S::BLOCKS;
}

/** A lane's codes of a panel's tile i. */
template <class S>
GPU_DEVICE void gpu_wide_take_codes(const gpu_wide_lane<S> &mine, const unsigned char *stage,
                                    int panel, int i, gpu_u32x4 out[S::BITS / 4]) {
    const unsigned char *codes = stage + mine.codes + (panel * S::TILES + i) * S::PANEL_BYTES;
#pragma unroll
    for (int load = 0; load < S::BITS / 4; load++)
        out[load] = *reinterpret_cast<const gpu_u32x4 *>(codes + load * 512);
}

/* ---- many rows: warpgroups ----------------------------------------------------------------- */

/** Make a warpgroup's panels of tile `i` of a stage operand A. */
template <class S>
GPU_DEVICE void gpu_wide_dequantize(const gpu_apply_params &p, const gpu_wide_lane<S> &mine,
                                    const unsigned char *stage, const unsigned char *table, int i,
                                    gpu_block_scale scales[S::PANELS],
                                    uint32_t left[S::PANELS][GPU_TILE_BLOCKS][4]) {
#pragma unroll
    for (int panel = 0; panel < S::PANELS; panel++) {
        gpu_u32x4 v[S::BITS / 4];
        gpu_wide_take_codes<S>(mine, stage, panel, i, v);
        gpu_block_scale &scale = scales[panel];
        if (!S::ANY && (i == 0 || p.slots == 2))
            scale = gpu_wide_scale<S>(p, mine, stage, panel, static_cast<uint32_t>(i));
#pragma unroll
        for (int j = 0; j < GPU_TILE_BLOCKS; j++) {
            if (S::ANY)
                scale = gpu_wide_scale<S>(p, mine, stage, panel, gpu_wide_slot<S>(p, table, i, j));
            uint32_t words[2];
            gpu_fragment_words<S::BITS>(v, j, words);
            gpu_dequantize<S::BITS, S::BF16>(words, scale, left[panel][j]);
        }
    }
}

template <class S>
GPU_DEVICE void gpu_wide_multiply(const unsigned char *x,
                                  const uint32_t left[S::PANELS][GPU_TILE_BLOCKS][4],
                                  float c[S::PANELS][S::N / 2]) {
    gpu_wgmma_fence();
#pragma unroll
    for (int j = 0; j < GPU_TILE_BLOCKS; j++)
#pragma unroll
        for (int panel = 0; panel < S::PANELS; panel++)
            gpu_wgmma<S::N, S::BF16>(c[panel], left[panel][j], x, static_cast<uint32_t>(j));
    gpu_wgmma_commit();
}

/** Clear sums. */
template <class S> GPU_DEVICE void gpu_wide_zero(float c[S::PANELS][S::N / 2]) {
#pragma unroll
    for (int i = 0; i < S::PANELS * S::N / 2; i++)
        c[i / (S::N / 2)][i % (S::N / 2)] = 0;
}

/** Until all batches are over; what follows reads their sums. */
template <class S> GPU_DEVICE void gpu_wide_finish(float c[S::PANELS][S::N / 2]) {
    gpu_wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < S::PANELS * S::N / 2; i++)
        gpu_keep(c[i / (S::N / 2)][i % (S::N / 2)]);
}

/** The sums of this block's places. */
template <class S>
GPU_DEVICE void gpu_wide_sum(const gpu_apply_params &p, const gpu_wide_lane<S> &mine,
                             gpu_wide_progress &at, unsigned char *shared,
                             float c[S::PANELS][S::N / 2]) {
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    uint32_t left[S::TILES][S::PANELS][GPU_TILE_BLOCKS][4];
    gpu_mbarrier *used = nullptr; /* of the stage whose batch is under way */
    for (int32_t tile = at.begin; tile < at.end; tile += S::TILES) {
        const unsigned char *stage = shared + at.stage * S::STAGE_BYTES;
        const unsigned char *table = shared + S::TABLES_AT + at.stage * S::BLOCKS;
        gpu_block_scale scales[S::PANELS];
        gpu_mbarrier_wait(&barriers->full[at.stage], at.phase);
#pragma unroll
        for (int i = 0; i < S::TILES; i++) {
            gpu_wide_dequantize<S>(p, mine, stage, table, i, scales, left[i]);
            gpu_wide_multiply<S>(stage + i * (S::N * 128), left[i], c);
            gpu_wgmma_wait<1>();
            if (i == 0 && used != nullptr)
                gpu_mbarrier_arrive(used);
        }
        used = &barriers->empty[at.stage];
        gpu_wide_next_stage<S>(at);
    }
    gpu_wide_finish<S>(c);
    if (used != nullptr)
        gpu_mbarrier_arrive(used);
}

/* ---- few rows: waves ------------------------------------------------------------------------ */

/** A wave's products of tile `i` of a stage, added to c. */
template <class S>
GPU_DEVICE void gpu_wide_add_few(const gpu_apply_params &p, const gpu_wide_lane<S> &mine,
                                 const unsigned char *stage, const unsigned char *table, int i,
                                 uint32_t x_at, gpu_block_scale scales[S::PANELS],
                                 float c[S::PANELS][S::N / 2]) {
    uint32_t x[S::N / 8][2][4]; /* block j of rows 8 r on: x[r][j / 2] + j % 2 * 2 */
#pragma unroll
    for (int r = 0; r < S::N / 8 * 2; r++)
        gpu_load_matrix_x4(x[r / 2][r % 2], stage + (i * S::N + r / 2 * 8) * 128 +
                                                (x_at ^ static_cast<uint32_t>(r % 2 * 64)));
#pragma unroll
    for (int panel = 0; panel < S::PANELS; panel++) {
        gpu_u32x4 codes[S::BITS / 4];
        float part[S::N / 2] = {}; /* of q - z, where EXACT */
        gpu_block_scale &scale = scales[panel];
        gpu_wide_take_codes<S>(mine, stage, panel, i, codes);
        if (!S::ANY && (i == 0 || p.slots == 2))
            scale = gpu_wide_scale<S>(p, mine, stage, panel, static_cast<uint32_t>(i));
#pragma unroll
        for (int j = 0; j < GPU_TILE_BLOCKS; j++) {
            uint32_t words[2], left[4];
            gpu_fragment_words<S::BITS>(codes, j, words);
            if (S::ANY)
                scale = gpu_wide_scale<S>(p, mine, stage, panel, gpu_wide_slot<S>(p, table, i, j));
            if (S::EXACT)
                gpu_differences<S::BITS, S::BF16>(words, scale, left);
            else
                gpu_dequantize<S::BITS, S::BF16>(words, scale, left);
#pragma unroll
            for (int r = 0; r < S::N / 8; r++)
                gpu_mma<S::BF16>((S::EXACT ? part : c[panel]) + r * 4, left,
                                 x[r][j / 2] + j % 2 * 2);
        }
#pragma unroll
        for (int r = 0; S::EXACT && r < S::N / 2; r++)
            c[panel][r] += gpu_low_float<S::BF16>(scale.scale[r / 2 % 2]) * part[r];
    }
}

/** The sums of a wave over the stages that are its team's turn. */
template <class S>
GPU_DEVICE void gpu_wide_sum_few(const gpu_apply_params &p, const gpu_wide_lane<S> &mine,
                                 gpu_wide_progress &at, unsigned char *shared,
                                 float c[S::PANELS][S::N / 2]) {
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    uint32_t lane = gpu_lane(), turn = gpu_uniform_wave() / (S::TEAM / GPU_WAVE);
    uint32_t x_at = lane % 8 * 128 + (lane / 8 ^ lane % 8) * 16;
    gpu_keep(x_at);
#pragma unroll 1
    for (int32_t tile = at.begin; tile < at.end; tile += S::TILES) {
        if (S::TURNS == 1 || at.stage % S::TURNS == turn) {
            const unsigned char *stage = shared + at.stage * S::STAGE_BYTES;
            const unsigned char *table = shared + S::TABLES_AT + at.stage * S::BLOCKS;
            gpu_block_scale scales[S::PANELS];
            gpu_mbarrier_wait(&barriers->full[at.stage], at.phase);
            if constexpr (S::LATE) {
                unsigned char *moving = shared + at.stage * S::STAGE_BYTES;
                gpu_wide_move_x<S>(p, moving);
                gpu_mbarrier_wait(gpu_wide_moved<S>(moving), at.phase);
            }
#pragma unroll
            for (int i = 0; i < S::TILES; i++)
                gpu_wide_add_few<S>(p, mine, stage, table, i, x_at, scales, c);
            gpu_mbarrier_arrive(&barriers->empty[at.stage]);
        }
        gpu_wide_next_stage<S>(at);
    }
}

#endif
