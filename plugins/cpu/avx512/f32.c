/*
 * Float activations: products and sums in f32.
 *
 * Tile         ROWS (m) x 16 * TILES (n), columns one by one.
 * Instruction  vfmadd231ps, x broadcast from memory; a 4-bit code becomes a float as field_of
 *              says, an 8-bit one by a shift, a mask and vcvtdq2ps.
 * Chosen       for activations that are not to be quantized.
 */
#include "block.h"

enum { AND_OR = 0xea /* (a & b) | c, for vpternlogd */ };

/* Field j of sixteen words as floats, exactly. Where the code lies at bits 4p, a mantissa's
 * exponent is set so that a bit counts as much as it does in the code, and the leading one, 2^(23 -
 * 4p), is taken away again; or a shift brings it to bits 0, and a lookup reads the low four bits of
 * a lane. The two wait for different ports: half of each is faster than either (Zen 4). */
INLINE __m512 field_of(__m512i word, __m512i upper, const int j) {
    const __m512 values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i half = j < 4 ? word : upper;
    const int p = j % 4;
    if (p < 2)
        return _mm512_permutexvar_ps(p == 0 ? half : _mm512_srli_epi32(half, 4), values);
    const __m512i one = _mm512_set1_epi32((127 + 23 - 4 * p) << 23);
    __m512i bits = _mm512_ternarylogic_epi32(half, _mm512_set1_epi32(15 << 4 * p), one, AND_OR);
    return _mm512_sub_ps(_mm512_castsi512_ps(bits), _mm512_castsi512_ps(one));
}

INLINE void columns_u4(const struct runs *runs, const uint8_t *codes, int64_t ahead, const float *x,
                       __m512 *sum, const int ROWS, const int TILES) {
    __m512i word[8], upper[8];
    UNROLL for (int t = 0; t < TILES; t++) {
        const uint8_t *at = codes + codes_to(runs, t, 64);
        fetch_ahead(at + ahead, TILES);
        word[t] = _mm512_loadu_si512(at);
        upper[t] = _mm512_srli_epi32(word[t], 16);
    }
    UNROLL for (int j = 0; j < OCTET; j++) UNROLL for (int t = 0; t < TILES; t++) {
        __m512 w = field_of(word[t], upper[t], j);
        UNROLL for (int r = 0; r < ROWS; r++) sum[t * ROWS + r] =
            _mm512_fmadd_ps(w, _mm512_set1_ps(x[j * ROWS + r]), sum[t * ROWS + r]);
    }
}

INLINE void columns_u8(const struct runs *runs, const uint8_t *codes, int64_t ahead, const float *x,
                       __m512 *sum, const int ROWS, const int TILES) {
    const __m512i mask = _mm512_set1_epi32(255);
    __m512i word[8];
    UNROLL for (int half = 0; half < 2; half++) {
        UNROLL for (int t = 0; t < TILES; t++) {
            const uint8_t *at = codes + codes_to(runs, t, 128) + half * 64;
            fetch_ahead(at + ahead, TILES);
            word[t] = _mm512_loadu_si512(at);
        }
        UNROLL for (int b = 0; b < 4; b++) {
            /* x is packed in the order of 4-bit fields: column k(b + 4 * half) is field 2b + half.
             */
            const float *column = x + (2 * b + half) * ROWS;
            UNROLL for (int t = 0; t < TILES; t++) {
                __m512 w = _mm512_cvtepi32_ps(
                    _mm512_and_si512(_mm512_srli_epi32(word[t], 8u * (uint32_t)b), mask));
                UNROLL for (int r = 0; r < ROWS; r++) sum[t * ROWS + r] =
                    _mm512_fmadd_ps(w, _mm512_set1_ps(column[r]), sum[t * ROWS + r]);
            }
        }
    }
}

INLINE void block(const struct tiled_work *work, int64_t tile, const int ROWS, const int TILES,
                  const int BITS) {
    const struct tiled_bound *bound = work->bound;
    const float *x = work->chunk.x, *sums = work->chunk.sums;
    const struct runs runs = runs_of(work, tile);
    const uint8_t *codes = runs.codes;
    __m512 total[16];
    UNROLL for (int i = 0; i < ROWS * TILES; i++) total[i] = _mm512_setzero_ps();
    for (int64_t i = 0; i < bound->segment_count; i++, sums += ROWS) {
        const struct tiled_segment *segment = &bound->segments[i];
        int64_t ahead = reach(&runs, segment->octet_begin, bound->shape.octets, TILES);
        fetch_groups(&runs, segment->group, TILES);
        __m512 sum[16];
        UNROLL for (int a = 0; a < ROWS * TILES; a++) sum[a] = _mm512_setzero_ps();
        for (int32_t o = 0; o < segment->octet_count; o++, x += OCTET * ROWS) {
            if (BITS == 4)
                columns_u4(&runs, codes, ahead, x, sum, ROWS, TILES);
            else
                columns_u8(&runs, codes, ahead, x, sum, ROWS, TILES);
            codes += runs.octet_step;
        }
        ADD_SEGMENT(sum[t * ROWS + r]);
    }
    UNROLL for (int t = 0; t < TILES; t++) UNROLL for (int r = 0; r < ROWS; r++)
        finish(work, tile + t, r, total[t * ROWS + r]);
}

TILED_COMPUTE_BY_BITS(block)

const struct tiled_class avx512_f32 = {.x_octet_bytes = OCTET * 4,
                                       .read_row = read_row,
                                       .pack_row = tiled_pack_f32,
                                       .compute = compute};
