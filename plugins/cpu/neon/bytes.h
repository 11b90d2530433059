/*
 * Dynamic int8 activations: products of bytes, sums in i32, scaled in f32. The source that includes
 * this brings the instruction:
 *
 * columns   adds an octet's products to the sums; low and high [QUADS] hold the codes of columns
 *           0-3 and 4-7 of four output features each, x the packed rows
 * sum_of    the sums of quad q and row r
 * taken_off what columns subtracts from each code, so that it fits the instruction
 *
 * Numerics  a segment's sum is exact, and so is its float: 512 * 255 * 128 < 2^24. So is
 *           sum - z * sum of x; hence every instruction gives the same bits.
 * Chosen    where the model wants int8 activations or the caller allows them.
 */
#ifndef KERNELRY_NEON_BYTES_H
#define KERNELRY_NEON_BYTES_H

#include "block.h"

INLINE void columns(const uint8x16_t *low, const uint8x16_t *high, const uint32_t *x,
                    int32x4_t *sum, const int ROWS, const int QUADS, const int BITS);
INLINE int32x4_t sum_of(const int32x4_t *sum, int q, int r, const int ROWS);
INLINE float taken_off(const int BITS);

INLINE void octet(const uint8_t *codes, const uint32_t *x, int32x4_t *sum, const int ROWS,
                  const int QUADS, const int BITS) {
    uint8x16_t low[8], high[8];
    UNROLL for (int q = 0; q < QUADS; q++) {
        uint8x16_t first = codes_at(codes, q, BITS);
        low[q] = BITS == 4 ? vandq_u8(first, vdupq_n_u8(15)) : first;
        high[q] = BITS == 4 ? vshrq_n_u8(first, 4) : codes_at(codes + 64, q, BITS);
    }
    columns(low, high, x, sum, ROWS, QUADS, BITS);
}

INLINE void block(const struct tiled_work *work, int64_t quad, const int ROWS, const int QUADS,
                  const int BITS) {
    const struct tiled_bound *bound = work->bound;
    const uint32_t *x = work->chunk.x;
    const float *sums = work->chunk.sums;
    const struct codes_run run = codes_of(work, quad);
    const uint8_t *codes = run.begin;
    float32x4_t total[SUMS_MAX];
    UNROLL for (int i = 0; i < ROWS * QUADS; i++) total[i] = vdupq_n_f32(0);
    for (int64_t i = 0; i < bound->segment_count; i++, sums += ROWS) {
        const struct tiled_segment *segment = &bound->segments[i];
        int32x4_t sum[SUMS_MAX];
        float32x4_t floats[SUMS_MAX];
        UNROLL for (int a = 0; a < ROWS * QUADS; a++) sum[a] = vdupq_n_s32(0);
        for (int32_t o = 0; o < segment->octet_count; o++, x += 2 * ROWS, codes += run.octet_step)
            octet(codes, x, sum, ROWS, QUADS, BITS);
        UNROLL for (int q = 0; q < QUADS; q++) UNROLL for (int r = 0; r < ROWS; r++)
            floats[q * ROWS + r] = vcvtq_f32_s32(sum_of(sum, q, r, ROWS));
        add_segment(work, quad, QUADS, segment->group, sums, taken_off(BITS), floats, total);
    }
    for (int i = 0; i < ROWS * QUADS; i++)
        finish(work, quad + i / ROWS, i % ROWS,
               vmulq_n_f32(total[i], work->chunk.scales[i % ROWS]));
}

TILED_COMPUTE_BY_BITS(block)

#endif
