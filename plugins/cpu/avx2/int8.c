/*
 * Dynamic int8 activations: products of bytes, sums in i32, scaled in f32.
 *
 * Tile         ROWS (m) x 16 * TILES (n), columns four by four.
 * Instruction  4-bit: vpmaddubsw of codes and four bytes of x broadcast from memory, into sums of
 *              i16; these go to sums of i32 by vpmaddwd once in four octets. 8-bit, whose pairs of
 *              products do not fit i16: vpmaddwd of codes widened to i16 and pairs of i16 of x.
 * Numerics     all exact. i16: four octets are eight pairs of products, 8 * 2 * 15 * 127 < 2^15.
 *              i32: a segment's sum is below 512 * 255 * 127 < 2^24, so its float is exact, too.
 * Chosen       where the model wants int8 activations or the caller allows them.
 */
#include "block.h"

enum { RUN_OCTETS = 4 /* whose products fit sums of i16 */ };

INLINE __m256i load_word(const uint8_t *codes) { return _mm256_load_si256((const void *)codes); }

/* Sums stay in registers, each added to in its place: gcc 12 would rather add products first and
 * keep dozens of them in memory. */
INLINE __m256i add_16(__m256i sum, __m256i product) {
    sum = _mm256_add_epi16(sum, product);
    __asm__("" : "+x"(sum));
    return sum;
}

INLINE __m256i add_32(__m256i sum, __m256i product) {
    sum = _mm256_add_epi32(sum, product);
    __asm__("" : "+x"(sum));
    return sum;
}

/* The sums of `octets`, at most RUN_OCTETS, added to sum. */
INLINE void run_u4(const struct step *step, const uint8_t *codes, const int32_t *x, int32_t octets,
                   __m256i *sum, const int ROWS, const int TILES) {
    const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256i pairs[SUMS_MAX];
    UNROLL for (int i = 0; i < TILES * ROWS * HALVES; i++) pairs[i] = _mm256_setzero_si256();
    NO_UNROLL for (int32_t o = 0; o < octets; o++, codes += step->octet_step, x += 2 * ROWS) {
        prefetch(step, codes, TILES);
        UNROLL for (int upper = 0; upper < 2; upper++) UNROLL for (int t = 0; t < TILES; t++) {
            __m256i w[HALVES];
            UNROLL for (int h = 0; h < HALVES; h++) {
                w[h] = load_word(codes + t * step->octet_bytes + h * 32);
                w[h] = _mm256_and_si256(upper ? _mm256_srli_epi16(w[h], 4) : w[h], mask);
            }
            UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int h = 0; h < HALVES; h++) {
                __m256i *to = &pairs[(t * ROWS + r) * HALVES + h];
                __m256i broadcast = _mm256_set1_epi32(x[upper * ROWS + r]);
                *to = add_16(*to, _mm256_maddubs_epi16(w[h], broadcast));
            }
        }
    }
    UNROLL for (int i = 0; i < TILES * ROWS * HALVES; i++) sum[i] =
        _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs[i], ones));
}

INLINE void columns_u8(const uint8_t *codes, int64_t octet_bytes, const int32_t *x, __m256i *sum,
                       const int ROWS, const int TILES) {
    const __m256i mask = _mm256_set1_epi16(255);
    UNROLL for (int odd = 0; odd < 2; odd++) UNROLL for (int t = 0; t < TILES; t++) {
        __m256i w[HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) {
            w[h] = load_word(codes + t * octet_bytes + h * 32);
            w[h] = odd ? _mm256_srli_epi16(w[h], 8) : _mm256_and_si256(w[h], mask);
        }
        UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int h = 0; h < HALVES; h++) {
            __m256i *to = &sum[(t * ROWS + r) * HALVES + h];
            __m256i broadcast = _mm256_set1_epi32(x[odd * ROWS + r]);
            *to = add_32(*to, _mm256_madd_epi16(w[h], broadcast));
        }
    }
}

INLINE void add_sums(const struct step *step, const __m256i *sum, const int ROWS, const int TILES) {
    UNROLL for (int i = 0; i < TILES * ROWS * HALVES; i++) add_segment(
        step, i / HALVES / ROWS, i / HALVES % ROWS, i % HALVES, _mm256_cvtepi32_ps(sum[i]));
}

INLINE void u4(const struct step *step, const int ROWS, const int TILES) {
    const uint8_t *codes = step->codes;
    const int32_t *x = step->x;
    __m256i sum[SUMS_MAX];
    UNROLL for (int i = 0; i < TILES * ROWS * HALVES; i++) sum[i] = _mm256_setzero_si256();
    int32_t left = step->octets;
    for (; left >= RUN_OCTETS; left -= RUN_OCTETS) {
        run_u4(step, codes, x, RUN_OCTETS, sum, ROWS, TILES);
        codes += RUN_OCTETS * step->octet_step;
        x += RUN_OCTETS * 2 * ROWS;
    }
    if (left > 0)
        run_u4(step, codes, x, left, sum, ROWS, TILES);
    add_sums(step, sum, ROWS, TILES);
}

INLINE void u8(const struct step *step, const int ROWS, const int TILES) {
    const uint8_t *codes = step->codes;
    const int32_t *x = step->x;
    __m256i sum[SUMS_MAX];
    UNROLL for (int i = 0; i < TILES * ROWS * HALVES; i++) sum[i] = _mm256_setzero_si256();
    for (int32_t o = 0; o < step->octets; o++, codes += step->octet_step)
        UNROLL for (int word = 0; word < 2; word++, x += 2 * ROWS) {
            const uint8_t *at = codes + word * WORD_BYTES;
            prefetch(step, at, TILES);
            columns_u8(at, step->octet_bytes, x, sum, ROWS, TILES);
        }
    add_sums(step, sum, ROWS, TILES);
}
STEP_FUNCTIONS_5(u4, OCTET)
STEP_FUNCTIONS_6(u8, OCTET * 2)

static float pack_row(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                      int32_t row, int32_t rows, void *packed, float *sums) {
    if (bound->shape.octet_bytes == WORD_BYTES)
        return pack_in_step(&u4_functions, tiled_pack_int8, bound, x, linear, row, rows, packed,
                            sums);
    return pack_in_step(&u8_functions, tiled_pack_int16, bound, x, linear, row, rows, packed, sums);
}

static void compute(const struct tiled_work *work, int64_t tile_begin, int64_t tile_end) {
    run_block(kry_weight_bits(work->linear->weight_type) == 4 ? &u4_functions : &u8_functions, work,
              tile_begin, tile_end);
}

const struct tiled_class avx2_int8 = {.x_octet_bytes = OCTET * 2, /* 8-bit weights' */
                                      .read_row = read_row,
                                      .pack_row = pack_row,
                                      .compute = compute};
