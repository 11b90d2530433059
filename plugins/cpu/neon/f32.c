/*
 * Float activations: products and sums in f32.
 *
 * Tile         ROWS (m) x 4 * QUADS (n), columns one by one.
 * Instruction  fmla by a lane of x; a code becomes a float where it lies in its word, by a mask
 *              and ucvtf, which divides by the power of two that its place is worth.
 * Chosen       for activations that are not to be quantized.
 */
#include "block.h"

/* 4-bit field j of each word, where mask keeps just it. */
INLINE float32x4_t field_4(uint32x4_t word, uint32x4_t mask, int j) {
    uint32x4_t code = vandq_u32(word, mask);
    switch (j) {
    case 0:
        return vcvtq_f32_u32(code);
    case 1:
        return vcvtq_n_f32_u32(code, 4);
    case 2:
        return vcvtq_n_f32_u32(code, 8);
    case 3:
        return vcvtq_n_f32_u32(code, 12);
    case 4:
        return vcvtq_n_f32_u32(code, 16);
    case 5:
        return vcvtq_n_f32_u32(code, 20);
    case 6:
        return vcvtq_n_f32_u32(code, 24);
    default:
        return vcvtq_n_f32_u32(code, 28);
    }
}

/* Byte b of each word, likewise. */
INLINE float32x4_t field_8(uint32x4_t word, uint32x4_t mask, int b) {
    uint32x4_t code = vandq_u32(word, mask);
    switch (b) {
    case 0:
        return vcvtq_f32_u32(code);
    case 1:
        return vcvtq_n_f32_u32(code, 8);
    case 2:
        return vcvtq_n_f32_u32(code, 16);
    default:
        return vcvtq_n_f32_u32(code, 24);
    }
}

INLINE void column(const float *x, const uint32x4_t *word, int field, float32x4_t *sum,
                   const int ROWS, const int QUADS, const int BITS) {
    uint32x4_t rows[ROWS_MAX / 4];
    load_rows(x, rows, ROWS);
    uint32x4_t mask =
        keep_register(vdupq_n_u32(BITS == 4 ? 15u << (4 * field) : 255u << (8 * field)));
    UNROLL for (int q = 0; q < QUADS; q++) {
        float32x4_t w = BITS == 4 ? field_4(word[q], mask, field) : field_8(word[q], mask, field);
        UNROLL for (int r = 0; r < ROWS; r++) {
            float32x4_t *to = &sum[q * ROWS + r];
            *to = BY_LANE(vfmaq_laneq_f32, *to, w, vreinterpretq_f32_u32(rows[r / 4]), r);
        }
    }
}

INLINE void columns(const uint8_t *codes, const float *x, float32x4_t *sum, const int ROWS,
                    const int QUADS, const int BITS) {
    uint32x4_t word[8];
    UNROLL for (int half = 0; half < BITS / 4; half++) { /* 8-bit codes fill two words */
        UNROLL for (int q = 0; q < QUADS; q++) word[q] =
            vreinterpretq_u32_u8(codes_at(codes + half * 64, q, BITS));
        if (BITS == 4) {
            UNROLL for (int j = 0; j < OCTET; j++)
                column(x + j * ROWS, word, j, sum, ROWS, QUADS, 4);
        } else {
            /* x is packed in the order of 4-bit fields: column b + 4 * half is field 2b + half. */
            UNROLL for (int b = 0; b < 4; b++)
                column(x + (2 * b + half) * ROWS, word, b, sum, ROWS, QUADS, 8);
        }
    }
}

INLINE void block(const struct tiled_work *work, int64_t quad, const int ROWS, const int QUADS,
                  const int BITS) {
    const struct tiled_bound *bound = work->bound;
    const float *x = work->chunk.x, *sums = work->chunk.sums;
    const struct codes_run run = codes_of(work, quad);
    const uint8_t *codes = run.begin;
    float32x4_t total[SUMS_MAX];
    UNROLL for (int i = 0; i < ROWS * QUADS; i++) total[i] = vdupq_n_f32(0);
    for (int64_t i = 0; i < bound->segment_count; i++, sums += ROWS) {
        const struct tiled_segment *segment = &bound->segments[i];
        float32x4_t sum[SUMS_MAX];
        UNROLL for (int a = 0; a < ROWS * QUADS; a++) sum[a] = vdupq_n_f32(0);
        for (int32_t o = 0; o < segment->octet_count;
             o++, x += OCTET * ROWS, codes += run.octet_step)
            columns(codes, x, sum, ROWS, QUADS, BITS);
        add_segment(work, quad, QUADS, segment->group, sums, 0, sum, total);
    }
    for (int i = 0; i < ROWS * QUADS; i++)
        finish(work, quad + i / ROWS, i % ROWS, total[i]);
}

TILED_COMPUTE_BY_BITS(block)

const struct tiled_class neon_f32 = {.x_octet_bytes = OCTET * 4,
                                     .read_row = read_row,
                                     .pack_row = tiled_pack_f32,
                                     .compute = compute};
