/*
 * Activations of bf16: products of bf16 pairs, sums in f32.
 *
 * Tile         ROWS (m) x 4 * QUADS (n), columns two by two or four by four.
 * Instruction  bfmmla for pairs of rows: 2 output features x 2 rows x 4 columns; else bfdot by a
 *              lane of x. 4-bit codes become bf16 by tbl in a table of sixteen low and one of
 *              sixteen high bytes.
 * Numerics     x and the codes 0 to 15 are exact in bf16. Both instructions take denormals for
 *              zero, round the sum of two products, then its sum with the accumulator, to odd;
 *              bfmmla is defined as two bfdot, one after the other, so rows paired and rows alone
 *              get the same bits.
 * Chosen       for x of bf16 and 4-bit weights.
 *
 * Sums of pairs of rows lie as in i8mm.c.
 */
#include "block.h"

static const uint8_t low_bytes[16] = {0, 0x80, 0,    0x40, 0x80, 0xa0, 0xc0, 0xe0,
                                      0, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70};
static const uint8_t high_bytes[16] = {0,    0x3f, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40,
                                       0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41};

/* Of a quad's codes the pairs of columns in fields `half` and `half` + 2 of packed x: columns 0, 2
 * and 1, 3, or 4, 6 and 5, 7. */
INLINE void pairs_of(uint8x16_t codes, int half, uint8x16_t *w) {
    uint8x16_t code = half ? vshrq_n_u8(codes, 4) : vandq_u8(codes, vdupq_n_u8(15));
    uint8x16_t low = vqtbl1q_u8(vld1q_u8(low_bytes), code);
    uint8x16_t high = vqtbl1q_u8(vld1q_u8(high_bytes), code);
    w[0] = vtrn1q_u8(low, high);
    w[1] = vtrn2q_u8(low, high);
}

INLINE void columns_by_two(const uint8x16_t *w, const uint32_t *x, float32x4_t *sum,
                           const int ROWS) {
    UNROLL for (int i = 0; i < 2; i++) {
        uint32x4_t rows[ROWS_MAX / 4];
        load_rows(x + 2 * i * ROWS, rows, ROWS);
        UNROLL for (int r = 0; r < ROWS; r++) sum[r] =
            BY_LANE(vbfdotq_laneq_f32, sum[r], vreinterpretq_bf16_u8(w[i]),
                    vreinterpretq_bf16_u32(rows[r / 4]), r);
    }
}

INLINE void columns_by_four(const uint8x16_t *w, const uint32_t *x, float32x4_t *sum,
                            const int ROWS) {
    uint32x4_t a = vreinterpretq_u32_u8(w[0]), b = vreinterpretq_u32_u8(w[1]);
    bfloat16x8_t first = vreinterpretq_bf16_u32(vzip1q_u32(a, b)); /* of f0 and f1 */
    bfloat16x8_t second = vreinterpretq_bf16_u32(vzip2q_u32(a, b));
    UNROLL for (int r = 0; r < ROWS; r += 2) {
        bfloat16x8_t rows = vreinterpretq_bf16_u32(load_pair(x + r, x + 2 * ROWS + r));
        sum[r] = vbfmmlaq_f32(sum[r], first, rows);
        sum[r + 1] = vbfmmlaq_f32(sum[r + 1], second, rows);
    }
}

INLINE void octet(const uint8_t *codes, const uint32_t *x, float32x4_t *sum, const int ROWS,
                  const int QUADS) {
    UNROLL for (int q = 0; q < QUADS; q++) {
        uint8x16_t quad = codes_at(codes, q, 4);
        UNROLL for (int half = 0; half < 2; half++) {
            uint8x16_t w[2];
            pairs_of(quad, half, w);
            if (in_pairs(ROWS))
                columns_by_four(w, x + half * ROWS, sum + q * ROWS, ROWS);
            else
                columns_by_two(w, x + half * ROWS, sum + q * ROWS, ROWS);
        }
    }
}

/* The sums of row r of a quad. */
INLINE float32x4_t sum_of(const float32x4_t *sum, int r, const int ROWS) {
    if (!in_pairs(ROWS))
        return sum[r];
    const float32x4_t *pair = &sum[r / 2 * 2];
    return r % 2 == 0 ? vuzp1q_f32(pair[0], pair[1]) : vuzp2q_f32(pair[0], pair[1]);
}

INLINE void u4(const struct tiled_work *work, int64_t quad, const int ROWS, const int QUADS) {
    const struct tiled_bound *bound = work->bound;
    const uint32_t *x = work->chunk.x;
    const float *sums = work->chunk.sums;
    const struct codes_run run = codes_of(work, quad);
    const uint8_t *codes = run.begin;
    float32x4_t total[SUMS_MAX];
    UNROLL for (int i = 0; i < ROWS * QUADS; i++) total[i] = vdupq_n_f32(0);
    for (int64_t i = 0; i < bound->segment_count; i++, sums += ROWS) {
        const struct tiled_segment *segment = &bound->segments[i];
        float32x4_t sum[SUMS_MAX], by_row[SUMS_MAX];
        UNROLL for (int a = 0; a < ROWS * QUADS; a++) sum[a] = vdupq_n_f32(0);
        for (int32_t o = 0; o < segment->octet_count;
             o++, x += OCTET / 2 * ROWS, codes += run.octet_step)
            octet(codes, x, sum, ROWS, QUADS);
        UNROLL for (int q = 0; q < QUADS; q++) UNROLL for (int r = 0; r < ROWS; r++)
            by_row[q * ROWS + r] = sum_of(sum + q * ROWS, r, ROWS);
        add_segment(work, quad, QUADS, segment->group, sums, 0, by_row, total);
    }
    for (int i = 0; i < ROWS * QUADS; i++)
        finish(work, quad + i / ROWS, i % ROWS, total[i]);
}
BLOCK_VARIANTS(u4)

static void compute(const struct tiled_work *work, int64_t tile_begin, int64_t tile_end) {
    run_block(u4_variants, work, tile_begin, tile_end);
}

const struct tiled_class neon_bf16 = {.x_octet_bytes = OCTET * 2,
                                      .read_row = read_row,
                                      .pack_row = tiled_pack_bf16,
                                      .compute = compute};
