/*
 * int8 activations by products of codes, unsigned, and x, signed.
 *
 * Tile         ROWS (m) x 4 * QUADS (n), columns four by four or eight by eight.
 * Instruction  usmmla for pairs of rows: 2 output features x 2 rows x 8 columns; else usdot by a
 *              lane of x.
 * Chosen       before neon_int8, whose y it gives to the bit.
 *
 * Sums of a quad and a pair of rows (f output feature, r row), in two registers:
 * f0 r0, f0 r1, f1 r0, f1 r1 and f2 r0, f2 r1, f3 r0, f3 r1
 */
#include "bytes.h"

INLINE float taken_off(const int BITS) {
    (void)BITS;
    return 0.0f;
}

INLINE int32x4_t sum_of(const int32x4_t *sum, int q, int r, const int ROWS) {
    if (!in_pairs(ROWS))
        return sum[q * ROWS + r];
    const int32x4_t *pair = &sum[q * ROWS + r / 2 * 2];
    return r % 2 == 0 ? vuzp1q_s32(pair[0], pair[1]) : vuzp2q_s32(pair[0], pair[1]);
}

INLINE void columns_by_four(const uint8x16_t *codes, const uint32_t *x, int32x4_t *sum,
                            const int ROWS, const int QUADS) {
    uint32x4_t rows[ROWS_MAX / 4];
    load_rows(x, rows, ROWS);
    UNROLL for (int q = 0; q < QUADS; q++) UNROLL for (int r = 0; r < ROWS; r++) {
        int8x16_t row = vreinterpretq_s8_u32(rows[r / 4]);
        sum[q * ROWS + r] = BY_LANE(vusdotq_laneq_s32, sum[q * ROWS + r], codes[q], row, r);
    }
}

INLINE void columns_by_eight(const uint8x16_t *low, const uint8x16_t *high, const uint32_t *x,
                             int32x4_t *sum, const int ROWS, const int QUADS) {
    uint8x16_t first[4], second[4]; /* all columns of f0 and f1, of f2 and f3 */
    UNROLL for (int q = 0; q < QUADS; q++) {
        uint32x4_t a = vreinterpretq_u32_u8(low[q]), b = vreinterpretq_u32_u8(high[q]);
        first[q] = vreinterpretq_u8_u32(vzip1q_u32(a, b));
        second[q] = vreinterpretq_u8_u32(vzip2q_u32(a, b));
    }
    UNROLL for (int r = 0; r < ROWS; r += 2) {
        int8x16_t rows = vreinterpretq_s8_u32(load_pair(x + r, x + ROWS + r));
        UNROLL for (int q = 0; q < QUADS; q++) {
            int32x4_t *pair = &sum[q * ROWS + r];
            pair[0] = vusmmlaq_s32(pair[0], first[q], rows);
            pair[1] = vusmmlaq_s32(pair[1], second[q], rows);
        }
    }
}

INLINE void columns(const uint8x16_t *low, const uint8x16_t *high, const uint32_t *x,
                    int32x4_t *sum, const int ROWS, const int QUADS, const int BITS) {
    (void)BITS;
    if (in_pairs(ROWS)) {
        columns_by_eight(low, high, x, sum, ROWS, QUADS);
    } else {
        columns_by_four(low, x, sum, ROWS, QUADS);
        columns_by_four(high, x + ROWS, sum, ROWS, QUADS);
    }
}

const struct tiled_class neon_i8mm = {
    .x_octet_bytes = OCTET, .read_row = read_row, .pack_row = tiled_pack_int8, .compute = compute};
