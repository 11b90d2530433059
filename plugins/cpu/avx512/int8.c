/*
 * Dynamic int8 activations: products of bytes, sums in i32, scaled in f32.
 *
 * Tile         ROWS (m) x 16 * TILES (n), columns four by four.
 * Instruction  vpdpbusd, codes unsigned, four bytes of x broadcast from memory.
 * Numerics     a segment's sum is exact: 512 * 255 * 128 < 2^24, so its float is, too. Without
 *              zero points the codes' bias is taken away before, in i32.
 * Chosen       where the model wants int8 activations or the caller allows them.
 */
#include "block.h"

INLINE void columns(const struct runs *runs, const uint8_t *codes, int64_t ahead, const int32_t *x,
                    __m512i *sum, const int ROWS, const int TILES, const int BITS) {
    const __m512i mask = _mm512_set1_epi8(15);
    UNROLL for (int half = 0; half < 2; half++) UNROLL for (int t = 0; t < TILES; t++) {
        const uint8_t *at = codes + codes_to(runs, t, 16 * BITS) + (BITS == 8 ? half * 64 : 0);
        __m512i w = _mm512_loadu_si512(at);
        /* Of one row so little is done that the processor looks far enough ahead by itself. */
        if (ROWS > 1 && (BITS == 8 || half == 0))
            fetch_ahead(at + ahead, TILES);
        if (BITS == 4)
            w = _mm512_and_si512(half ? _mm512_srli_epi32(w, 4) : w, mask);
        UNROLL for (int r = 0; r < ROWS; r++) sum[t * ROWS + r] =
            _mm512_dpbusd_epi32(sum[t * ROWS + r], w, _mm512_set1_epi32(x[half * ROWS + r]));
    }
}

INLINE void block(const struct tiled_work *work, int64_t tile, const int ROWS, const int TILES,
                  const int BITS) {
    const struct tiled_bound *bound = work->bound;
    const int32_t *x = work->chunk.x;
    const float *sums = work->chunk.sums;
    const struct runs runs = runs_of(work, tile);
    const uint8_t *codes = runs.codes;
    __m512 total[16];
    UNROLL for (int i = 0; i < ROWS * TILES; i++) total[i] = _mm512_setzero_ps();
    for (int64_t i = 0; i < bound->segment_count; i++, sums += ROWS) {
        const struct tiled_segment *segment = &bound->segments[i];
        int64_t ahead = reach(&runs, segment->octet_begin, bound->shape.octets, TILES);
        fetch_groups(&runs, segment->group, TILES);
        __m512i sum[16];
        UNROLL for (int a = 0; a < ROWS * TILES; a++) sum[a] = _mm512_setzero_si512();
        for (int32_t o = 0; o < segment->octet_count; o++, x += 2 * ROWS, codes += runs.octet_step)
            columns(&runs, codes, ahead, x, sum, ROWS, TILES, BITS);
        if (runs.zeros != NULL)
            ADD_SEGMENT(_mm512_cvtepi32_ps(sum[t * ROWS + r]));
        else /* i32 in the sums' place, see tiled_pack_int8_bias */
            ADD_CENTRED(_mm512_cvtepi32_ps(
                _mm512_add_epi32(sum[t * ROWS + r], _mm512_castps_si512(_mm512_set1_ps(sums[r])))));
    }
    UNROLL for (int t = 0; t < TILES; t++) UNROLL for (int r = 0; r < ROWS; r++)
        finish(work, tile + t, r,
               _mm512_mul_ps(total[t * ROWS + r], _mm512_set1_ps(work->chunk.scales[r])));
}

TILED_COMPUTE_BY_BITS(block)

const struct tiled_class avx512_int8 = {.x_octet_bytes = OCTET,
                                        .read_row = read_row,
                                        .pack_row = tiled_pack_int8_bias,
                                        .compute = compute};
