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
#include "batch.h"

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

enum { UNPACKED_U4 = 2 * WORD_BYTES, UNPACKED_U8 = 4 * WORD_BYTES /* bytes an octet and tile */ };

/* Half of an octet's 4-bit codes as bytes. */
INLINE __m256i half_u4(const uint8_t *codes, const int UPPER) {
    __m256i word = load_word(codes);
    return _mm256_and_si256(UPPER ? _mm256_srli_epi16(word, 4) : word, _mm256_set1_epi8(15));
}

/* Every other of a word's 8-bit codes as i16. */
INLINE __m256i half_u8(const uint8_t *codes, const int ODD) {
    __m256i word = load_word(codes);
    return ODD ? _mm256_srli_epi16(word, 8) : _mm256_and_si256(word, _mm256_set1_epi16(255));
}

/* Of an octet, half after half. */
INLINE void unpack_octet(const uint8_t *codes, uint8_t *unpacked, const int BITS) {
    UNROLL for (int word = 0; word < BITS / 4; word++) UNROLL for (int half = 0; half < 2; half++)
        UNROLL for (int h = 0; h < HALVES; h++) {
        const uint8_t *at = codes + word * WORD_BYTES + h * 32;
        uint8_t *to = unpacked + (2 * word + half) * WORD_BYTES + h * 32;
        _mm256_store_si256((void *)to, BITS == 4 ? half_u4(at, half) : half_u8(at, half));
    }
}

INLINE void octet_u4(const struct step *step, const uint8_t *codes, const uint8_t *unpacked,
                     const int32_t *x, __m256i *pairs, const int ROWS, const int TILES,
                     const enum codes_from FROM) {
    if (FROM == PACKED)
        prefetch(step, codes, TILES, 4);
    UNROLL for (int upper = 0; upper < 2; upper++) UNROLL for (int t = 0; t < TILES; t++) {
        __m256i w[HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) w[h] =
            FROM == PACKED ? half_u4(codes + t * octet_bytes(4) + h * 32, upper)
                           : load_word(unpacked + upper * WORD_BYTES + h * 32);
        UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int h = 0; h < HALVES; h++) {
            __m256i *to = &pairs[(t * ROWS + r) * HALVES + h];
            __m256i broadcast = _mm256_set1_epi32(x[upper * ROWS + r]);
            *to = add_16(*to, _mm256_maddubs_epi16(w[h], broadcast));
        }
    }
}

INLINE void add_pairs(const __m256i *pairs, __m256i *sum, const int COUNT) {
    const __m256i ones = _mm256_set1_epi16(1);
    UNROLL for (int i = 0; i < COUNT; i++) sum[i] =
        _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs[i], ones));
}

INLINE void columns_u8(const uint8_t *codes, const uint8_t *unpacked, const int32_t *x,
                       __m256i *sum, const int ROWS, const int TILES, const enum codes_from FROM) {
    UNROLL for (int odd = 0; odd < 2; odd++) UNROLL for (int t = 0; t < TILES; t++) {
        __m256i w[HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) w[h] =
            FROM == PACKED ? half_u8(codes + t * octet_bytes(8) + h * 32, odd)
                           : load_word(unpacked + odd * WORD_BYTES + h * 32);
        UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int h = 0; h < HALVES; h++) {
            __m256i *to = &sum[(t * ROWS + r) * HALVES + h];
            __m256i broadcast = _mm256_set1_epi32(x[odd * ROWS + r]);
            *to = add_32(*to, _mm256_madd_epi16(w[h], broadcast));
        }
    }
}

INLINE void segment_u4(const struct step *step, const struct step_rows *rows, const int32_t **x,
                       __m256i *sum, const int ROWS, const int TILES, const enum codes_from FROM) {
    const int SUMS = TILES * ROWS * HALVES;
    const uint8_t *codes = step->codes;
    const uint8_t *unpacked = step->unpacked;
    const int32_t *at = rows->x;
    __m256i pairs[SUMS_MAX];
    int32_t left = step->octets;
    NO_UNROLL for (; left >= RUN_OCTETS; left -= RUN_OCTETS) {
        UNROLL for (int i = 0; i < SUMS; i++) pairs[i] = _mm256_setzero_si256();
        UNROLL for (int o = 0; o < RUN_OCTETS; o++) {
            octet_u4(step, codes, unpacked, at, pairs, ROWS, TILES, FROM);
            codes += step->octet_step;
            unpacked += UNPACKED_U4;
            at += 2 * ROWS;
        }
        add_pairs(pairs, sum, SUMS);
    }
    if (left > 0) {
        UNROLL for (int i = 0; i < SUMS; i++) pairs[i] = _mm256_setzero_si256();
        NO_UNROLL for (; left > 0; left--) {
            octet_u4(step, codes, unpacked, at, pairs, ROWS, TILES, FROM);
            codes += step->octet_step;
            unpacked += UNPACKED_U4;
            at += 2 * ROWS;
        }
        add_pairs(pairs, sum, SUMS);
    }
    *x = at;
}

INLINE void segment_u8(const struct step *step, const struct step_rows *rows, const int32_t **x,
                       __m256i *sum, const int ROWS, const int TILES, const enum codes_from FROM) {
    const uint8_t *codes = step->codes;
    const uint8_t *unpacked = step->unpacked;
    const int32_t *at = rows->x;
    for (int32_t o = 0; o < step->octets; o++, codes += step->octet_step)
        UNROLL for (int word = 0; word < 2; word++) {
            if (FROM == PACKED)
                prefetch(step, codes + word * WORD_BYTES, TILES, 8);
            columns_u8(codes + word * WORD_BYTES, unpacked, at, sum, ROWS, TILES, FROM);
            unpacked += UNPACKED_U8 / 2;
            at += 2 * ROWS;
        }
    *x = at;
}

INLINE const void *segment(const struct step *step, const struct step_rows *rows, const int ROWS,
                           const int TILES, const int BITS, const enum codes_from FROM) {
    const int32_t *x;
    __m256i sum[SUMS_MAX];
    UNROLL for (int i = 0; i < TILES * ROWS * HALVES; i++) sum[i] = _mm256_setzero_si256();
    (BITS == 4 ? segment_u4 : segment_u8)(step, rows, &x, sum, ROWS, TILES, FROM);
    add_integers(step, rows, sum, ROWS, TILES);
    return x;
}

STEPS_OF_BITS(4, UNPACKED_U4)
STEPS_OF_BITS(8, UNPACKED_U8)
STEP_FUNCTIONS_5(u4, OCTET, UNPACKED_U4)
STEP_FUNCTIONS_6(u8, OCTET * 2, UNPACKED_U8)

static float pack_row(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                      int32_t row, int32_t rows, void *packed, float *sums) {
    if (bound->shape.octet_bytes == WORD_BYTES)
        return pack_in_step(&u4_functions, tiled_pack_int8, bound, x, linear, row, rows, packed,
                            sums);
    return pack_in_step(&u8_functions, tiled_pack_int16, bound, x, linear, row, rows, packed, sums);
}

static void compute(const struct tiled_work *work, const struct tiled_chunk *chunks, int32_t count,
                    int64_t tile_begin, int64_t tile_end) {
    run_block(kry_weight_bits(work->linear->weight_type) == 4 ? &u4_functions : &u8_functions, work,
              chunks, count, tile_begin, tile_end);
}

const struct tiled_class avx2_int8 = {.x_octet_bytes = OCTET * 2, /* 8-bit weights' */
                                      .read_row = read_row,
                                      .pack_row = pack_row,
                                      .compute_all = compute};
