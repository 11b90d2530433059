/*
 * Activations of bf16, or of f16 as exact sums of two bf16: products of bf16, sums in f32.
 *
 * Instruction  tdpbf16ps; codes become bf16, less their zero points, by a shift and vpermw.
 * Numerics     Codes less zero points are integers of at most 8 bits, exact in bf16, and so are x
 *              and the two parts of an f16. A step's even and odd columns are summed on their own
 *              (fused, to nearest even), then both are added; denormals of bf16, which no part of
 *              an f16 is, count as zero. A row's sums do not depend on how many rows a tile has.
 * Chosen       for x of bf16 and f16. A row that comes alone has the same order of sums, in tiles
 *              or in the vectors of few.c, so a batch changes no row.
 */
#include "block.h"

enum { whole_STEP = BF16_STEP, split_STEP = BF16_STEP, ROWS_BYTES = OCTET / 2 * TILE_BYTES };

INLINE void add(const struct product *p, const struct place *at, const float *sums, __m512 *total,
                const int ROWS) {
    const __m512 scale = _mm512_load_ps(p->panel->scales[at->tile][at->piece]);
    UNROLL for (int r = 0; r < ROWS; r++) total[r] =
        _mm512_fmadd_ps(_mm512_load_ps(sums + r * TILE_N), scale, total[r]);
}

MULTIPLY_ALL(whole, _tile_dpbf16ps, 1, add)
MULTIPLY_ALL(split, _tile_dpbf16ps, 2, add)

/* A table of 32 bf16, those of the integers from 0 to 15 and from `upper` on. */
INLINE __m512i integers(float upper) {
    const __m512 count = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 high = _mm512_add_ps(count, _mm512_set1_ps(upper));
    __m256i first = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(count), 16));
    __m256i second = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(high), 16));
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}

/* Bits 0 to 4 of each half of a lane, a signed number, as bf16. */
INLINE __m512i bf16_of_5_bits(__m512i numbers) {
    return _mm512_permutexvar_epi16(numbers, integers(-16));
}

INLINE void octet_u4(const uint8_t *codes, __m512i zero, uint8_t *to) {
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i word = _mm512_loadu_si512(codes);
    __m512i low = _mm512_sub_epi8(_mm512_and_si512(word, mask), zero);
    __m512i high = _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(word, 4), mask), zero);
    _mm512_store_si512(to, bf16_of_5_bits(low));
    _mm512_store_si512(to + 64, bf16_of_5_bits(high));
    _mm512_store_si512(to + 128, bf16_of_5_bits(_mm512_srli_epi16(low, 8)));
    _mm512_store_si512(to + 192, bf16_of_5_bits(_mm512_srli_epi16(high, 8)));
}

/* The zero point 8 is in the table, which vpermw reads by five bits of which the last is any. */
INLINE void octet_u4b8(const uint8_t *codes, __m512i zero, uint8_t *to) {
    (void)zero;
    const __m512 count = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    const __m512i table = _mm512_broadcast_i64x4(
        _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(count), 16)));
    __m512i word = _mm512_loadu_si512(codes);
    UNROLL for (int j = 0; j < OCTET / 2; j++) _mm512_store_si512(
        to + 64 * j,
        _mm512_permutexvar_epi16(_mm512_srli_epi16(word, (shift_count)(4 * j)), table));
}

/* Signed 16-bit numbers as bf16, exactly where they have no more than 8 bits. */
INLINE __m512i bf16_of_16_bits(__m512i numbers) {
    __m512i low = _mm512_srai_epi32(_mm512_slli_epi32(numbers, 16), 16);
    __m512i first = _mm512_castps_si512(_mm512_cvtepi32_ps(low));
    __m512i second = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_srai_epi32(numbers, 16)));
    return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(first, 16), second);
}

INLINE void octet_u8(const uint8_t *codes, __m512i zero, uint8_t *to) {
    const __m512i mask = _mm512_set1_epi16(255);
    zero = _mm512_and_si512(zero, mask);
    UNROLL for (int half = 0; half < 2; half++) {
        __m512i word = _mm512_loadu_si512(codes + 64 * half);
        __m512i even = _mm512_sub_epi16(_mm512_and_si512(word, mask), zero);
        __m512i odd = _mm512_sub_epi16(_mm512_srli_epi16(word, 8), zero);
        _mm512_store_si512(to + 64 * half, bf16_of_16_bits(even));
        _mm512_store_si512(to + 128 + 64 * half, bf16_of_16_bits(odd));
    }
}

static void unpack(const struct tiled_work *work, const struct runs *runs, struct panel *panel) {
    if (kry_weight_bits(work->linear->weight_type) == 8)
        unpack_panel(work, runs, panel, octet_u8, 128, ROWS_BYTES);
    else if (runs->zeros != NULL)
        unpack_panel(work, runs, panel, octet_u4, 64, ROWS_BYTES);
    else
        unpack_panel(work, runs, panel, octet_u4b8, 64, ROWS_BYTES);
}

static const struct amx_class of_bf16 = {.step = BF16_STEP,
                                         .octet_bytes = OCTET * 2,
                                         .parts = 1,
                                         .piece_steps = PANEL_STEPS,
                                         .unpack = unpack,
                                         .multiply = MULTIPLY_VARIANTS(whole)};
static const struct amx_class of_f16 = {.step = BF16_STEP,
                                        .octet_bytes = OCTET * 2,
                                        .parts = 2,
                                        .piece_steps = PANEL_STEPS,
                                        .unpack = unpack,
                                        .multiply = MULTIPLY_VARIANTS(split)};

static void compute_bf16(const struct tiled_work *work, const struct tiled_chunk *chunks,
                         int32_t count, int64_t begin, int64_t end) {
    const unsigned mode = flush_denormals();
    amx_compute(&of_bf16, work, chunks, count, begin, end);
    _mm_setcsr(mode);
}

static void compute_f16(const struct tiled_work *work, const struct tiled_chunk *chunks,
                        int32_t count, int64_t begin, int64_t end) {
    const unsigned mode = flush_denormals();
    amx_compute(&of_f16, work, chunks, count, begin, end);
    _mm_setcsr(mode);
}

const struct tiled_class amx_bf16 = {.x_octet_bytes = OCTET * 2,
                                     .step_octets = BF16_STEP,
                                     .few = &amx_row_of_bf16,
                                     .few_rows = 1,
                                     .few_types = 1 << KRY_WEIGHT_U4B8,
                                     .read_row = read_row,
                                     .pack_row = amx_pack_bf16,
                                     .compute_all = compute_bf16};

const struct tiled_class amx_bf16x2 = {.x_octet_bytes = OCTET * 4,
                                       .step_octets = BF16_STEP,
                                       .few = &amx_row_of_f16,
                                       .few_rows = 1,
                                       .few_types = 1 << KRY_WEIGHT_U4B8,
                                       .read_row = read_row,
                                       .pack_row = amx_pack_bf16x2,
                                       .compute_all = compute_f16};
