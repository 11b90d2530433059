/*
 * wide.h: products of many rows. Weights become operand A in registers, x is operand B of wgmma
 * m64nNk16: while a tile's 64 places multiply, the next 64 are dequantized into the other half of
 * `left`. What wide_few.h needs as well comes first.
 *
 * Latency  One or two warps of each of a multiprocessor's four parts dequantize, and little hides
 *          what they wait for: so both tiles of a stage are loaded at once where registers do, and
 *          the number of scales is known when compiled.
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
    gpu_wide_step<S>(own.stage, own.phase, stages);
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

/** What is multiplied: the blocks of a tile have SCALES scales, and ZEROS: zero points, or for many
 *  rows with 4 scales maybe. */
template <class S_, int SCALES_, bool ZEROS_> struct gpu_wide_factors {
    typedef S_ S;
    static constexpr int SCALES = SCALES_;
    static constexpr bool ZEROS = ZEROS_;
    static constexpr bool MAYBE = ZEROS && SCALES == 4 && !S::FEW;
    static constexpr int BLOCKS = GPU_TILE_BLOCKS / SCALES; /* that have the same scale */
};

template <class F> GPU_DEVICE bool gpu_wide_has_zeros(const gpu_apply_params &p) {
    return F::ZEROS && (!F::MAYBE || p.zeros != nullptr);
}

/** Which of a stage's scales the blocks of its tiles have, a byte each: by the pattern. */
template <class F>
GPU_DEVICE void gpu_wide_pattern(const gpu_apply_params &p, uint32_t slots[F::S::TILES]) {
    static_assert(F::S::TILES == 2 && GPU_TILE_BLOCKS == 4);
    /* One scale a tile: the stage's only one, or for the second tile its second. */
    slots[0] = F::SCALES == 4 ? 0x03020100u : 0;
    slots[1] = F::SCALES == 4 ? 0x07060504u : static_cast<uint32_t>(p.slots - 1);
}

/** The same of stage `stage` where there is no pattern: its table says it. */
template <class F>
GPU_DEVICE void gpu_wide_look_up(const gpu_apply_params &p, const unsigned char *shared,
                                 uint32_t stage, uint32_t slots[F::S::TILES]) {
    if (F::SCALES != 4 || p.slots != 0)
        return;
    const uint32_t *table =
        reinterpret_cast<const uint32_t *>(shared + F::S::TABLES_AT + stage * F::S::BLOCKS);
    slots[0] = table[0];
    slots[1] = table[1];
}

/** A lane's share of the weights of a tile of places. */
template <class F> struct gpu_wide_weights {
    typedef typename F::S S;
    gpu_u32x4 codes[S::PANELS][S::BITS / 4];
    uint32_t scales[S::PANELS][F::SCALES]; /* of the lane's two rows */
    uint32_t zeros[S::PANELS][F::SCALES];
};

/** Load those of tile `i` of a stage. */
template <class F>
GPU_DEVICE void gpu_wide_load(const gpu_wide_lane<typename F::S> &mine, const unsigned char *stage,
                              bool zeros, uint32_t slots, int i, gpu_wide_weights<F> &weights) {
    typedef typename F::S S;
#pragma unroll
    for (int panel = 0; panel < S::PANELS; panel++) {
        const unsigned char *codes = stage + mine.codes + (panel * S::TILES + i) * S::PANEL_BYTES;
#pragma unroll
        for (int load = 0; load < S::BITS / 4; load++)
            weights.codes[panel][load] = *reinterpret_cast<const gpu_u32x4 *>(codes + load * 512);
    }
#pragma unroll
    for (int j = 0; j < F::SCALES; j++) {
        uint32_t slot = F::SCALES == 2 ? static_cast<uint32_t>(i * 2 + j) : slots >> (8 * j) & 0xff;
#pragma unroll
        for (int panel = 0; panel < S::PANELS; panel++) {
            uint32_t at = static_cast<uint32_t>(panel) * S::SLOTS + slot;
            weights.scales[panel][j] =
                *reinterpret_cast<const uint32_t *>(stage + mine.scales + at * (GPU_PANEL_N * 2));
            weights.zeros[panel][j] = S::BITS == 4 ? 0x0808 : 0x8080;
            if (zeros)
                weights.zeros[panel][j] =
                    *reinterpret_cast<const uint16_t *>(stage + mine.zeros + at * GPU_PANEL_N);
        }
    }
}

/** Scale j of one of a lane's panels, with its zero point. */
template <class F>
GPU_DEVICE gpu_block_scale gpu_wide_scale(const gpu_wide_weights<F> &weights, int panel, int j) {
    return gpu_scale_of<F::S::BITS, F::S::BF16>(weights.scales[panel][j], weights.zeros[panel][j]);
}

/* ---- many rows ------------------------------------------------------------------------------- */

/** Make a warpgroup's panels of a tile operand A. */
template <class F>
GPU_DEVICE void gpu_wide_dequantize(const gpu_wide_weights<F> &weights,
                                    uint32_t left[F::S::PANELS][GPU_TILE_BLOCKS][4]) {
    typedef typename F::S S;
#pragma unroll
    for (int panel = 0; panel < S::PANELS; panel++) {
#pragma unroll
        for (int j = 0; j < GPU_TILE_BLOCKS; j++) {
            gpu_block_scale scale = gpu_wide_scale<F>(weights, panel, j / F::BLOCKS);
            uint32_t words[2];
            gpu_fragment_words<S::BITS>(weights.codes[panel], j, words);
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

/** The sums of a team over its stages. A stage is freed when the next one has come. */
template <class F>
GPU_DEVICE void gpu_wide_sum_many(const gpu_apply_params &p,
                                  const gpu_wide_lane<typename F::S> &mine,
                                  gpu_wide_turn<typename F::S> own, unsigned char *shared,
                                  float c[F::S::PANELS][F::S::N / 2]) {
    typedef typename F::S S;
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    uint32_t left[S::TILES][S::PANELS][GPU_TILE_BLOCKS][4];
    uint32_t slots[S::TILES];
    bool zeros = gpu_wide_has_zeros<F>(p);
    bool under_way = false; /* a batch of stage `before` */
    uint32_t before = 0;
    gpu_wide_pattern<F>(p, slots);
#pragma unroll 1
    for (; own.left > 0; gpu_wide_skip<S>(own, S::TURNS)) {
        const unsigned char *stage = shared + own.stage * S::STAGE_BYTES;
        gpu_wide_weights<F> weights[S::TILES];
        gpu_mbarrier_wait(&barriers->full[own.stage], own.phase);
        gpu_wide_look_up<F>(p, shared, own.stage, slots);
#pragma unroll
        for (int i = 0; i < (S::AHEAD ? S::TILES : 1); i++)
            gpu_wide_load<F>(mine, stage, zeros, slots[i], i, weights[i]);
#pragma unroll
        for (int i = 0; i < S::TILES; i++) {
            if (!S::AHEAD && i > 0)
                gpu_wide_load<F>(mine, stage, zeros, slots[i], i, weights[i]);
            gpu_wide_dequantize<F>(weights[i], left[i]);
            gpu_wide_multiply<S>(stage + i * (S::N * 128), left[i], c);
            gpu_wgmma_wait<1>();
            if (i == 0 && under_way)
                gpu_mbarrier_arrive(&barriers->empty[before]);
        }
        under_way = true;
        before = own.stage;
    }
    gpu_wide_finish<S>(c);
    if (under_way)
        gpu_mbarrier_arrive(&barriers->empty[before]);
}

#endif
