/*
 * wide.h: products of few rows. Weights become operand A in registers, x is operand B of mma
 * m16n8k16 of a wave, which waits for nobody.
 *
 * Latency
 *   A decode step ends when the last stage has been multiplied, and what is there before x comes
 *   waits for nothing else. So a wave loads all that it multiplies of a stage before it uses any of
 *   it, and sums of different scales are independent of each other.
 * Numerics
 *   q - z, or RAW q, times x, summed in f32 over the blocks that have one scale; then times that
 *   scale, added in f32. RAW sums begin with -z times the sum of x: an infinite x makes its row
 *   of y NaN, where otherwise it may be infinite. For bf16, with 128 + q in place of q, sums are
 *   some 17 times as large before they cancel.
 */
#ifndef KERNELRY_GPU_WIDE_FEW_H
#define KERNELRY_GPU_WIDE_FEW_H

#include "wide_sum.h"
#include "wide_x.h"

/** Sums of x take a matrix instruction a block, for all panels, and save four instructions a block
 *  and panel: worth it for two panels, where registers are left. Bytes have to be converted for
 * bf16 anyhow. */
template <class F> struct gpu_wide_few_shape : F {
    static constexpr bool RAW =
        F::SCALES == 1 && F::S::N == 8 && F::S::PANELS == 2 && !(F::S::BITS == 8 && F::S::BF16);
};

/** What a wave multiplies of a tile of places. */
template <class F> struct gpu_wide_few {
    typedef typename F::S S;
    uint32_t x[S::N / 8][2][4]; /* block j of rows 8 r on: x[r][j / 2] + j % 2 * 2 */
    gpu_wide_weights<F> weights;
};

/** Load tile `i` of a stage. */
template <class F>
GPU_DEVICE void gpu_wide_load_few(const gpu_wide_lane<typename F::S> &mine,
                                  const unsigned char *stage, bool zeros, uint32_t slots, int i,
                                  uint32_t x_at, gpu_wide_few<F> &few) {
    typedef typename F::S S;
#pragma unroll
    for (int r = 0; r < S::N / 8 * 2; r++)
        gpu_load_matrix_x4(few.x[r / 2][r % 2], stage + (i * S::N + r / 2 * 8) * 128 +
                                                    (x_at ^ static_cast<uint32_t>(r % 2 * 64)));
    gpu_wide_load<F>(mine, stage, zeros, slots, i, few.weights);
}

/** The sums of x over the blocks of places that scale `j` is for, one for each of a lane's sums. */
template <class F>
GPU_DEVICE void gpu_wide_sum_x(const gpu_wide_few<F> &few, int j, float sums[F::S::N / 2]) {
    constexpr uint32_t ONE = F::S::BF16 ? 0x3f803f80u : 0x3c003c00u;
    const uint32_t ones[4] = {ONE, ONE, ONE, ONE};
#pragma unroll
    for (int block = j * F::BLOCKS; block < (j + 1) * F::BLOCKS; block++)
#pragma unroll
        for (int r = 0; r < F::S::N / 8; r++)
            gpu_mma<F::S::BF16>(sums + r * 4, ones, few.x[r][block / 2] + block % 2 * 2);
}

/** What RAW sums of row 2 r or 2 r + 1 begin with, for each 1 that x sums up to. */
template <class F> GPU_DEVICE float gpu_wide_first(uint32_t zeros, int row) {
    typedef typename F::S S;
    uint32_t byte = row == 0 ? zeros & 0xff : zeros >> 8;
    return (gpu_float_of_byte(byte) + gpu_code_offset<S::BITS, S::BF16>()) *
           (-1 / gpu_code_unit<S::BITS, S::BF16>(row));
}

/** Add a wave's products of a tile to c. */
template <class F>
GPU_DEVICE void gpu_wide_add_few(const gpu_wide_few<F> &few, float c[F::S::PANELS][F::S::N / 2]) {
    typedef typename F::S S;
#pragma unroll
    for (int j = 0; j < F::SCALES; j++) {
        float x_sums[S::N / 2] = {};
        if (F::RAW)
            gpu_wide_sum_x<F>(few, j, x_sums);
#pragma unroll
        for (int panel = 0; panel < S::PANELS; panel++) {
            uint32_t scales = few.weights.scales[panel][j], zeros = few.weights.zeros[panel][j];
            gpu_block_scale scale = gpu_wide_scale<F>(few.weights, panel, j);
            float part[S::N / 2];
#pragma unroll
            for (int r = 0; r < S::N / 2; r++)
                part[r] = F::RAW ? x_sums[r] * gpu_wide_first<F>(zeros, r / 2 % 2) : 0;
#pragma unroll
            for (int block = j * F::BLOCKS; block < (j + 1) * F::BLOCKS; block++) {
                uint32_t words[2], left[4];
                gpu_fragment_words<S::BITS>(few.weights.codes[panel], block, words);
                if (F::RAW)
                    gpu_raw_codes<S::BITS, S::BF16>(words, left);
                else
                    gpu_differences<S::BITS, S::BF16>(words, scale, left);
#pragma unroll
                for (int r = 0; r < S::N / 8; r++)
                    gpu_mma<S::BF16>(part + r * 4, left, few.x[r][block / 2] + block % 2 * 2);
            }
#pragma unroll
            for (int r = 0; r < S::N / 2; r++) {
                int row = r / 2 % 2;
                float factor =
                    row == 0 ? gpu_low_float<S::BF16>(scales) : gpu_high_float<S::BF16>(scales);
                if (F::RAW)
                    factor *= gpu_code_unit<S::BITS, S::BF16>(row);
                c[panel][r] += factor * part[r];
            }
        }
    }
}

/** The sums of a wave over its team's stages. */
template <class Factors>
GPU_DEVICE void gpu_wide_sum_few(const gpu_apply_params &p,
                                 const gpu_wide_lane<typename Factors::S> &mine,
                                 gpu_wide_turn<typename Factors::S> own, unsigned char *shared,
                                 float c[Factors::S::PANELS][Factors::S::N / 2]) {
    typedef gpu_wide_few_shape<Factors> F;
    typedef typename F::S S;
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    uint32_t lane = gpu_lane(), x_at = lane % 8 * 128 + (lane / 8 ^ lane % 8) * 16;
    uint32_t slots[S::TILES];
    bool zeros = gpu_wide_has_zeros<F>(p);
    gpu_wide_pattern<F>(p, slots);
    gpu_keep(x_at);
#pragma unroll 1
    for (; own.left > 0; gpu_wide_skip<S>(own, S::TURNS)) {
        unsigned char *stage = shared + own.stage * S::STAGE_BYTES;
        gpu_mbarrier_wait(&barriers->full[own.stage], own.phase);
        if constexpr (S::LATE) {
            gpu_wide_move_x<S>(p, stage);
            gpu_mbarrier_wait(gpu_wide_moved<S>(stage), own.phase);
        }
        gpu_wide_look_up<F>(p, shared, own.stage, slots);
        gpu_wide_few<F> few[S::TILES];
#pragma unroll
        for (int i = 0; i < S::TILES; i++)
            gpu_wide_load_few<F>(mine, stage, zeros, slots[i], i, x_at, few[i]);
        gpu_mbarrier_arrive(&barriers->empty[own.stage]);
#pragma unroll
        for (int i = 0; i < S::TILES; i++)
            gpu_wide_add_few<F>(few[i], c);
    }
}

#endif
