/*
 * wide.h: products of many rows. Weights become operand A in registers, x is operand B of wgmma
 * m64nNk16: while a tile's 64 places multiply, the next 64 are dequantized into the other half of
 * `left`. What wide_few.h needs as well comes first.
 */
#ifndef KERNELRY_GPU_WIDE_SUM_H
#define KERNELRY_GPU_WIDE_SUM_H

#include "wide_shape.h"

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

/** The stages of an output tile that are left to a team: every TURNS-th. */
template <class S> struct gpu_wide_turn {
    int32_t left; /* from `stage` on, those of the others too */
    uint32_t stage;
    uint32_t phase;
};

template <class S> GPU_DEVICE void gpu_wide_skip(gpu_wide_turn<S> &own, uint32_t stages) {
    own.left -= static_cast<int32_t>(stages);
    own.stage += stages;
    if (own.stage >= S::STAGES) {
        own.stage -= S::STAGES;
        own.phase ^= 1;
    }
}

/** A team's turns in an output tile; `at` goes on to the next. */
template <class S> GPU_DEVICE gpu_wide_turn<S> gpu_wide_turn_of(gpu_wide_progress &at) {
    gpu_wide_turn<S> own = {(at.end - at.begin) / S::TILES, at.stage, at.phase};
    uint32_t passed = at.stage + static_cast<uint32_t>(own.left);
    if (S::TURNS > 1) {
        uint32_t turn = gpu_uniform_wave() / (S::TEAM / GPU_WAVE);
        gpu_wide_skip<S>(own, (turn + S::TURNS - at.stage % S::TURNS) % S::TURNS);
    }
    at.phase ^= passed / S::STAGES % 2;
    at.stage = passed % S::STAGES;
    return own;
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

/* ---- many rows ------------------------------------------------------------------------------- */

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

/** The sums of a team's places. A stage is freed when the next one has come. */
template <class S>
GPU_DEVICE void gpu_wide_sum(const gpu_apply_params &p, const gpu_wide_lane<S> &mine,
                             gpu_wide_progress &at, unsigned char *shared,
                             float c[S::PANELS][S::N / 2]) {
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    uint32_t left[S::TILES][S::PANELS][GPU_TILE_BLOCKS][4];
    gpu_mbarrier *used = nullptr; /* of the stage whose batch is under way */
    gpu_wide_turn<S> own = gpu_wide_turn_of<S>(at);
    for (; own.left > 0; gpu_wide_skip<S>(own, S::TURNS)) {
        const unsigned char *stage = shared + own.stage * S::STAGE_BYTES;
        const unsigned char *table = shared + S::TABLES_AT + own.stage * S::BLOCKS;
        gpu_block_scale scales[S::PANELS];
        gpu_mbarrier_wait(&barriers->full[own.stage], own.phase);
#pragma unroll
        for (int i = 0; i < S::TILES; i++) {
            gpu_wide_dequantize<S>(p, mine, stage, table, i, scales, left[i]);
            gpu_wide_multiply<S>(stage + i * (S::N * 128), left[i], c);
            gpu_wgmma_wait<1>();
            if (i == 0 && used != nullptr)
                gpu_mbarrier_arrive(used);
        }
        used = &barriers->empty[own.stage];
    }
    gpu_wide_finish<S>(c);
    if (used != nullptr)
        gpu_mbarrier_arrive(used);
}

#endif
