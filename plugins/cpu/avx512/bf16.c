/*
 * Activations of bf16: products of bf16 pairs, sums in f32.
 *
 * Tile         ROWS (m) x 16 * TILES (n), columns two by two.
 * Instruction  vdpbf16ps, a pair of x broadcast from memory; 4-bit codes become pairs of bf16 by
 *              vpermw in a table of sixteen, held twice since vpermw reads five bits of a lane.
 * Numerics     x and the codes 0 to 15 are exact in bf16. vdpbf16ps rounds to nearest even and
 *              takes denormals of bf16 for zero.
 * Chosen       for x of bf16 and 4-bit weights.
 */
#include "block.h"

enum { AHEAD = 2048 /* bytes of codes that are fetched ahead */ };

INLINE __m512i bf16_values(void) {
    /* 0 to 15 in bf16, the upper halves of their floats. */
    const __m512 floats = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m256i once = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(floats), 16));
    return _mm512_broadcast_i64x4(once);
}

INLINE void columns(const uint8_t *codes, int64_t stride, const uint32_t *x, __m512 *sum,
                    const int ROWS, const int TILES) {
    const __m512i values = bf16_values();
    __m512i word[4];
    UNROLL for (int t = 0; t < TILES; t++) {
        _mm_prefetch((const char *)codes + t * stride + AHEAD, _MM_HINT_T0);
        word[t] = _mm512_loadu_si512(codes + t * stride);
    }
    UNROLL for (int j = 0; j < OCTET / 2; j++) UNROLL for (int t = 0; t < TILES; t++) {
        __m512i w =
            _mm512_permutexvar_epi16(_mm512_srli_epi16(word[t], (shift_count)(4 * j)), values);
        UNROLL for (int r = 0; r < ROWS; r++) sum[t * ROWS + r] = _mm512_dpbf16_ps(
            sum[t * ROWS + r], (__m512bh)w, (__m512bh)_mm512_set1_epi32((int)x[j * ROWS + r]));
    }
}

INLINE void u4(const struct tiled_work *work, int64_t tile, const int ROWS, const int TILES) {
    const struct tiled_bound *bound = work->bound;
    const uint32_t *x = work->chunk.x;
    const float *sums = work->chunk.sums;
    const uint8_t *codes = codes_of(work, tile);
    __m512 total[16];
    UNROLL for (int i = 0; i < ROWS * TILES; i++) total[i] = _mm512_setzero_ps();
    for (int64_t i = 0; i < bound->segment_count; i++, sums += ROWS) {
        const struct tiled_segment *segment = &bound->segments[i];
        __m512 sum[16];
        UNROLL for (int a = 0; a < ROWS * TILES; a++) sum[a] = _mm512_setzero_ps();
        for (int32_t o = 0; o < segment->octet_count; o++, x += OCTET / 2 * ROWS, codes += 64)
            columns(codes, bound->shape.tile_bytes, x, sum, ROWS, TILES);
        ADD_SEGMENT(sum[t * ROWS + r]);
    }
    UNROLL for (int t = 0; t < TILES; t++) UNROLL for (int r = 0; r < ROWS; r++)
        finish(work, tile + t, r, total[t * ROWS + r]);
}
BLOCK_VARIANTS(u4)

static void compute(const struct tiled_work *work, int64_t tile_begin, int64_t tile_end) {
    run_block(u4_variants, work, tile_begin, tile_end);
}

const struct tiled_class avx512_bf16 = {.x_octet_bytes = OCTET * 2,
                                        .read_row = read_row,
                                        .pack_row = tiled_pack_bf16,
                                        .compute = compute};
