/*
 * int8 activations by dot products of four bytes.
 *
 * Tile         ROWS (m) x 4 * QUADS (n), columns four by four.
 * Instruction  sdot by a lane of x. Both its operands are signed: 4-bit codes are as they are,
 *              8-bit ones lose 128.
 */
#include "bytes.h"

INLINE float taken_off(const int BITS) { return BITS == 8 ? 128.0f : 0.0f; }

INLINE int32x4_t sum_of(const int32x4_t *sum, int q, int r, const int ROWS) {
    return sum[q * ROWS + r];
}

INLINE void columns(const uint8x16_t *low, const uint8x16_t *high, const uint32_t *x,
                    int32x4_t *sum, const int ROWS, const int QUADS, const int BITS) {
    UNROLL for (int half = 0; half < 2; half++) {
        uint32x4_t rows[ROWS_MAX / 4];
        load_rows(x + half * ROWS, rows, ROWS);
        UNROLL for (int q = 0; q < QUADS; q++) {
            uint8x16_t codes = half ? high[q] : low[q];
            if (BITS == 8)
                codes = veorq_u8(codes, vdupq_n_u8(0x80));
            int8x16_t w = vreinterpretq_s8_u8(codes);
            UNROLL for (int r = 0; r < ROWS; r++) {
                int8x16_t row = vreinterpretq_s8_u32(rows[r / 4]);
                sum[q * ROWS + r] = BY_LANE(vdotq_laneq_s32, sum[q * ROWS + r], w, row, r);
            }
        }
    }
}

const struct tiled_class neon_int8 = {
    .x_octet_bytes = OCTET, .read_row = read_row, .pack_row = tiled_pack_int8, .compute = compute};
