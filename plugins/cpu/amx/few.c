/*
 * One row of bf16 or f16 and 4-bit codes with the bias 8, as tiles compute it, by vectors in f32:
 * one row needs each weight once, and bringing it through a panel takes longer than the products.
 *
 * Tile         1 row x 16 * TILES (n), columns one by one.
 * Instruction  vfmadd231ps, x broadcast from memory.
 * Numerics     In the order of tdpbf16ps and with its rounding, see bf16.c: of a step's octets
 *              first columns 0, 4, 1, 5 in one sum and 2, 6, 3, 7 in another, then both added to
 *              the sum of the piece; the two parts of an f16 one after the other. Products of bf16
 *              are exact before they are added, in both.
 * Chosen       for m = 1.
 */
#include "block.h"

/* Field j of sixteen words, less 8, as floats. A lookup reads the low four bits of a lane; or a
 * code where it lies becomes the mantissa's end of a float, from which the rest is taken away. Two
 * ports share the work. */
INLINE __m512 centred_field(__m512i half, const int p) {
    enum { AND_OR = 0xea /* (a & b) | c, for vpternlogd */ };
    const __m512 values = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    if (p < 2)
        return _mm512_permutexvar_ps(p == 0 ? half : _mm512_srli_epi32(half, 4), values);
    const __m512i one = _mm512_set1_epi32((127 + 23 - 4 * p) << 23);
    const __m512 rest = _mm512_add_ps(_mm512_castsi512_ps(one), _mm512_set1_ps(8));
    __m512i bits = _mm512_ternarylogic_epi32(half, _mm512_set1_epi32(15 << 4 * p), one, AND_OR);
    return _mm512_sub_ps(_mm512_castsi512_ps(bits), rest);
}

/* Sums of even and odd columns, of each part of x and tile. */
struct step_sums {
    __m512 of[2][2][BUNDLE];
};

INLINE void add_octet(const struct runs *runs, const uint8_t *codes, int64_t ahead, const float *x,
                      struct step_sums *sums, const int TILES, const int PARTS) {
    __m512i half[2][BUNDLE];
    UNROLL for (int t = 0; t < TILES; t++) {
        const uint8_t *at = codes + codes_to(runs, t, 64);
        _mm_prefetch((const char *)at + ahead, _MM_HINT_T0);
        half[0][t] = _mm512_loadu_si512(at);
        half[1][t] = _mm512_srli_epi32(half[0][t], 16);
    }
    UNROLL for (int p = 0; p < 4; p++) UNROLL for (int odd = 0; odd < 2; odd++)
        UNROLL for (int t = 0; t < TILES; t++) {
        const __m512 w = centred_field(half[odd][t], p);
        UNROLL for (int part = 0; part < PARTS; part++) sums->of[part][odd][t] = _mm512_fmadd_ps(
            w, _mm512_set1_ps(x[OCTET * part + 4 * odd + p]), sums->of[part][odd][t]);
    }
}

/* The octets [begin, end) of a step, added to the sum of the piece part after part. */
INLINE void add_step(const struct runs *runs, const uint8_t *codes, int64_t ahead, const float *x,
                     int32_t octets, __m512 *sum, const int TILES, const int PARTS) {
    struct step_sums sums;
    UNROLL for (int i = 0; i < PARTS * 2; i++) UNROLL for (int t = 0; t < TILES; t++)
        sums.of[i / 2][i % 2][t] = _mm512_setzero_ps();
    for (int32_t o = 0; o < octets; o++, x += OCTET * PARTS, codes += runs->octet_step)
        add_octet(runs, codes, ahead, x, &sums, TILES, PARTS);
    UNROLL for (int part = 0; part < PARTS; part++) UNROLL for (int t = 0; t < TILES; t++) sum[t] =
        _mm512_add_ps(sum[t], _mm512_add_ps(sums.of[part][0][t], sums.of[part][1][t]));
}

INLINE void block(const struct tiled_work *work, int64_t tile, const int TILES, const int PARTS) {
    const struct tiled_bound *bound = work->bound;
    const float *x = work->chunk.x;
    const struct runs runs = runs_of(work, tile);
    const uint8_t *codes = runs.codes;
    const int32_t step = tiled_step(BF16_STEP, work->linear);
    __m512 total[BUNDLE];
    UNROLL for (int t = 0; t < TILES; t++) total[t] = _mm512_setzero_ps();
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *segment = &bound->segments[i];
        const int64_t ahead = reach(&runs, segment->octet_begin, bound->shape.octets, TILES);
        int32_t left = segment->octet_count;
        fetch_groups(&runs, segment->group, TILES);
        while (left > 0) { /* a piece */
            __m512 sum[BUNDLE];
            UNROLL for (int t = 0; t < TILES; t++) sum[t] = _mm512_setzero_ps();
            for (int32_t s = 0; s < PANEL_STEPS && left > 0; s++, left -= step) {
                const int32_t octets = left < step ? left : step;
                add_step(&runs, codes, ahead, x, octets, sum, TILES, PARTS);
                x += octets * OCTET * PARTS;
                codes += octets * runs.octet_step;
            }
            UNROLL for (int t = 0; t < TILES; t++) total[t] =
                _mm512_fmadd_ps(sum[t], scales_of(&runs, t, segment->group), total[t]);
        }
    }
    UNROLL for (int t = 0; t < TILES; t++) finish(work, tile + t, 0, total[t]);
}

#define VARIANT(NAME, TILES, PARTS)                                                                \
    static void NAME##_##TILES(const struct tiled_work *work, int64_t tile) {                      \
        block(work, tile, TILES, PARTS);                                                           \
    }
VARIANT(whole, 4, 1)
VARIANT(whole, 2, 1)
VARIANT(whole, 1, 1)
VARIANT(split, 2, 2)
VARIANT(split, 1, 2)

static void compute(const struct block_variant *variants, const struct tiled_work *work,
                    int64_t begin, int64_t end) {
    const unsigned mode = flush_denormals();
    run_block(variants, work, begin, end);
    _mm_setcsr(mode);
}

static void compute_bf16(const struct tiled_work *work, int64_t begin, int64_t end) {
    static const struct block_variant variants[] = {
        {1, 4, whole_4}, {1, 2, whole_2}, {1, 1, whole_1}};
    compute(variants, work, begin, end);
}

static void compute_f16(const struct tiled_work *work, int64_t begin, int64_t end) {
    static const struct block_variant variants[] = {{1, 2, split_2}, {1, 1, split_1}};
    compute(variants, work, begin, end);
}

const struct tiled_class amx_row_of_bf16 = {.x_octet_bytes = OCTET * 4,
                                            .read_row = read_row,
                                            .pack_row = tiled_pack_f32,
                                            .compute = compute_bf16};

const struct tiled_class amx_row_of_f16 = {.x_octet_bytes = OCTET * 4 * 2,
                                           .read_row = read_row,
                                           .pack_row = amx_pack_f32x2,
                                           .compute = compute_f16};
