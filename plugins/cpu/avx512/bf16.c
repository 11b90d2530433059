/*
 * Activations of bf16, or of f16 as exact sums of two bf16: products of bf16 pairs, sums in f32.
 *
 * Tile         ROWS (m) x 16 * TILES (n), columns two by two.
 * Instruction  vdpbf16ps, a pair of x broadcast from memory; 4-bit codes become pairs of bf16 by
 *              a shift and vpermw.
 * Numerics     x and the codes are exact in bf16, the codes also less the type's bias, which the
 *              lookup takes away where there are no zero points. f16 has 11 bits, so what is left
 *              of it after rounding to the 8 of bf16 is a bf16, too: both parts are multiplied, and
 *              products are as exact as those of f32. vdpbf16ps rounds to nearest even and takes
 *              denormals of bf16, which no part of an f16 is, for zero.
 * Chosen       for x of bf16 and f16, 4-bit weights. Two parts cost as many products as f32 does,
 *              but half the unpacking, which is what counts while weights are read once.
 */
#include "block.h"

/* What each code stands for: itself, or less the type's bias where no zero points come with it. A
 * table of sixteen bf16, held twice since vpermw reads five bits of a lane. */
INLINE __m512i values_of(const struct runs *runs) {
    __m512 codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    if (runs->zeros == NULL)
        codes = _mm512_sub_ps(codes, _mm512_set1_ps(runs->bias));
    /* bf16 are the upper halves of floats. */
    __m512i bits = _mm512_srli_epi32(_mm512_castps_si512(codes), 16);
    return _mm512_broadcast_i64x4(_mm512_cvtepi32_epi16(bits));
}

/* Fields j and j + 4 of sixteen words as bf16, in the halves of each. */
INLINE __m512i pairs_of(__m512i word, const int j, __m512i values) {
    return _mm512_permutexvar_epi16(_mm512_srli_epi16(word, (shift_count)(4 * j)), values);
}

INLINE void columns(const struct runs *runs, __m512i values, const uint8_t *codes, int64_t ahead,
                    const uint32_t *x, __m512 *sum, const int ROWS, const int TILES,
                    const int PARTS) {
    __m512i word[8];
    UNROLL for (int t = 0; t < TILES; t++) {
        const uint8_t *at = codes + codes_to(runs, t, 64);
        fetch_ahead(at + ahead, TILES);
        word[t] = _mm512_loadu_si512(at);
    }
    UNROLL for (int j = 0; j < OCTET / 2; j++) UNROLL for (int t = 0; t < TILES; t++) {
        __m512i w = pairs_of(word[t], j, values);
        UNROLL for (int part = 0; part < PARTS; part++) UNROLL for (int r = 0; r < ROWS;
                                                                    r++) sum[t * ROWS + r] =
            _mm512_dpbf16_ps(sum[t * ROWS + r], (__m512bh)w,
                             (__m512bh)_mm512_set1_epi32((int)x[(j * PARTS + part) * ROWS + r]));
    }
}

INLINE void block(const struct tiled_work *work, int64_t tile, const int ROWS, const int TILES,
                  const int PARTS) {
    const struct tiled_bound *bound = work->bound;
    const uint32_t *x = work->chunk.x;
    const float *sums = work->chunk.sums;
    const struct runs runs = runs_of(work, tile);
    const __m512i values = values_of(&runs);
    const uint8_t *codes = runs.codes;
    __m512 total[16];
    UNROLL for (int i = 0; i < ROWS * TILES; i++) total[i] = _mm512_setzero_ps();
    for (int64_t i = 0; i < bound->segment_count; i++, sums += ROWS) {
        const struct tiled_segment *segment = &bound->segments[i];
        int64_t ahead = reach(&runs, segment->octet_begin, bound->shape.octets, TILES);
        fetch_groups(&runs, segment->group, TILES);
        __m512 sum[16];
        UNROLL for (int a = 0; a < ROWS * TILES; a++) sum[a] = _mm512_setzero_ps();
        for (int32_t o = 0; o < segment->octet_count; o++, codes += runs.octet_step) {
            columns(&runs, values, codes, ahead, x, sum, ROWS, TILES, PARTS);
            x += OCTET / 2 * PARTS * ROWS;
        }
        if (runs.zeros != NULL)
            ADD_SEGMENT(sum[t * ROWS + r]);
        else
            ADD_CENTRED(sum[t * ROWS + r]);
    }
    UNROLL for (int t = 0; t < TILES; t++) UNROLL for (int r = 0; r < ROWS; r++)
        finish(work, tile + t, r, total[t * ROWS + r]);
}

INLINE void whole(const struct tiled_work *work, int64_t tile, const int ROWS, const int TILES) {
    block(work, tile, ROWS, TILES, 1);
}
INLINE void split(const struct tiled_work *work, int64_t tile, const int ROWS, const int TILES) {
    block(work, tile, ROWS, TILES, 2);
}
BLOCK_VARIANTS(whole)
/* A sum waits for both products of a pair: of one row four sums would be too few. */
BLOCK_VARIANT(split, 1, 8)
BLOCK_VARIANTS_AND(split, BLOCK_ENTRY(split, 1, 8))

static void compute_whole(const struct tiled_work *work, int64_t tile_begin, int64_t tile_end) {
    run_block(whole_variants, work, tile_begin, tile_end);
}
static void compute_split(const struct tiled_work *work, int64_t tile_begin, int64_t tile_end) {
    run_block(split_variants, work, tile_begin, tile_end);
}

const struct tiled_class avx512_bf16 = {.x_octet_bytes = OCTET * 2,
                                        .read_row = read_row,
                                        .pack_row = tiled_pack_bf16,
                                        .compute = compute_whole};

const struct tiled_class avx512_bf16x2 = {.x_octet_bytes = OCTET * 4,
                                          .read_row = read_row,
                                          .pack_row = tiled_pack_bf16x2,
                                          .compute = compute_split};
