/*
 * Dynamic int8 activations: products of signed bytes, sums in i32, scaled in f32.
 *
 * Instruction  tdpbssd; 4-bit codes less their zero points are bytes, of 8-bit codes 128 is taken
 *              and the rest of a zero point, times the sum of x, from the sum.
 * Numerics     A segment is one piece, and its sum is exact: 512 * 255 * 127 < 2^24. So results
 *              are those of avx512_int8 and of avx2_int8 to the bit.
 * Chosen       where the model wants int8 activations or the caller allows them; a few rows are
 *              left to the vectors of avx512_int8, which need no panel.
 */
#include "block.h"

enum { bytes_STEP = INT8_STEP, zeros_STEP = INT8_STEP, ROWS_BYTES = OCTET / 4 * TILE_BYTES };

INLINE __m512 sum_of(const float *sums, int r) {
    return _mm512_cvtepi32_ps(_mm512_load_si512(sums + r * TILE_N));
}

INLINE void add(const struct product *p, const struct place *at, const float *sums, __m512 *total,
                const int ROWS) {
    const __m512 scale = _mm512_load_ps(p->panel->scales[at->tile][at->piece]);
    UNROLL for (int r = 0; r < ROWS; r++) total[r] =
        _mm512_fmadd_ps(sum_of(sums, r), scale, total[r]);
}

/* Sums of x beyond the chunk's rows are those of other segments, or scales, which lie behind them;
 * what they give is not stored. */
INLINE void add_zeros(const struct product *p, const struct place *at, const float *sums,
                      __m512 *total, const int ROWS) {
    const struct tiled_chunk *chunk = &p->chunks[at->chunk];
    const __m512 scale = _mm512_load_ps(p->panel->scales[at->tile][at->piece]);
    const __m512 zero =
        _mm512_sub_ps(_mm512_load_ps(p->panel->zeros[at->tile][at->piece]), _mm512_set1_ps(128));
    const float *x = chunk->sums + (int64_t)p->panel->pieces[at->piece].segment * chunk->rows;
    UNROLL for (int r = 0; r < ROWS; r++) {
        __m512 centred = _mm512_fnmadd_ps(zero, _mm512_set1_ps(x[r]), sum_of(sums, r));
        total[r] = _mm512_fmadd_ps(centred, scale, total[r]);
    }
}

MULTIPLY_ALL(bytes, _tile_dpbssd, 1, add)
MULTIPLY_ALL(zeros, _tile_dpbssd, 1, add_zeros)

INLINE void octet_u4(const uint8_t *codes, __m512i zero, uint8_t *to) {
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i word = _mm512_loadu_si512(codes);
    __m512i high = _mm512_and_si512(_mm512_srli_epi16(word, 4), mask);
    _mm512_store_si512(to, _mm512_sub_epi8(_mm512_and_si512(word, mask), zero));
    _mm512_store_si512(to + 64, _mm512_sub_epi8(high, zero));
}

INLINE void octet_u8(const uint8_t *codes, __m512i zero, uint8_t *to) {
    (void)zero;
    const __m512i sign = _mm512_set1_epi8((char)-128);
    UNROLL for (int half = 0; half < 2; half++) _mm512_store_si512(
        to + 64 * half, _mm512_xor_si512(_mm512_loadu_si512(codes + 64 * half), sign));
}

static void unpack(const struct tiled_work *work, const struct runs *runs, struct panel *panel) {
    if (kry_weight_bits(work->linear->weight_type) == 8)
        unpack_panel(work, runs, panel, octet_u8, 128, ROWS_BYTES);
    else
        unpack_panel(work, runs, panel, octet_u4, 64, ROWS_BYTES);
}

static const struct amx_class of_bytes = {.step = INT8_STEP,
                                          .octet_bytes = OCTET,
                                          .parts = 1,
                                          .piece_steps = PIECE_STEPS,
                                          .scaled = true,
                                          .unpack = unpack,
                                          .multiply = MULTIPLY_VARIANTS(bytes)};
static const struct amx_class of_zeros = {.step = INT8_STEP,
                                          .octet_bytes = OCTET,
                                          .parts = 1,
                                          .piece_steps = PIECE_STEPS,
                                          .scaled = true,
                                          .unpack = unpack,
                                          .multiply = MULTIPLY_VARIANTS(zeros)};

static void compute(const struct tiled_work *work, const struct tiled_chunk *chunks, int32_t count,
                    int64_t begin, int64_t end) {
    bool left = work->linear->weight_type == KRY_WEIGHT_U8;
    amx_compute(left ? &of_zeros : &of_bytes, work, chunks, count, begin, end);
}

const struct tiled_class amx_int8 = {.x_octet_bytes = OCTET,
                                     .step_octets = INT8_STEP,
                                     .few = &avx512_int8,
                                     .few_rows = 6,
                                     .few_types = UINT32_MAX,
                                     .read_row = read_row,
                                     .pack_row = amx_pack_int8,
                                     .compute_all = compute};
