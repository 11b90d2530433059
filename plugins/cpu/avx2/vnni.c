/*
 * Dynamic int8 activations where the processor has AVX-VNNI: products of bytes, sums in i32,
 * scaled in f32.
 *
 * Tile         ROWS (m) x 16 * TILES (n), columns four by four.
 * Instruction  vpdpbusd, codes unsigned, four bytes of x broadcast from memory.
 * Numerics     a segment's sum is exact, as in int8.c, whose y it gives to the bit.
 * Chosen       before avx2_int8.
 */
#include "batch.h"

enum { UNPACKED_BYTES = 2 * WORD_BYTES /* an octet and tile */ };

INLINE __m256i load_word(const uint8_t *codes) { return _mm256_load_si256((const void *)codes); }

/* Half of an octet's codes as bytes. */
INLINE __m256i half_of(const uint8_t *codes, const int HALF, const int BITS) {
    __m256i word = load_word(codes + (BITS == 8 ? HALF * WORD_BYTES : 0));
    if (BITS == 8)
        return word;
    return _mm256_and_si256(HALF ? _mm256_srli_epi16(word, 4) : word, _mm256_set1_epi8(15));
}

INLINE void unpack_octet(const uint8_t *codes, uint8_t *unpacked, const int BITS) {
    UNROLL for (int half = 0; half < 2; half++) UNROLL for (int h = 0; h < HALVES; h++)
        _mm256_store_si256((void *)(unpacked + half * WORD_BYTES + h * 32),
                           half_of(codes + h * 32, half, BITS));
}

INLINE void columns(const uint8_t *codes, const uint8_t *unpacked, const int32_t *x, __m256i *sum,
                    const int ROWS, const int TILES, const int BITS, const enum codes_from FROM) {
    UNROLL for (int half = 0; half < 2; half++) UNROLL for (int t = 0; t < TILES; t++) {
        __m256i w[HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) w[h] =
            FROM == PACKED ? half_of(codes + t * octet_bytes(BITS) + h * 32, half, BITS)
                           : load_word(unpacked + half * WORD_BYTES + h * 32);
        UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int h = 0; h < HALVES; h++) {
            __m256i *to = &sum[(t * ROWS + r) * HALVES + h];
            *to = _mm256_dpbusd_epi32(*to, w[h], _mm256_set1_epi32(x[half * ROWS + r]));
        }
    }
}

INLINE const void *segment(const struct step *step, const struct step_rows *rows, const int ROWS,
                           const int TILES, const int BITS, const enum codes_from FROM) {
    const uint8_t *codes = step->codes;
    const uint8_t *unpacked = step->unpacked;
    const int32_t *x = rows->x;
    __m256i sum[SUMS_MAX];
    UNROLL for (int i = 0; i < TILES * ROWS * HALVES; i++) sum[i] = _mm256_setzero_si256();
    for (int32_t o = 0; o < step->octets; o++) {
        if (FROM == PACKED)
            prefetch(step, codes, TILES, BITS);
        if (FROM == PACKED && BITS == 8)
            prefetch(step, codes + WORD_BYTES, TILES, BITS);
        columns(codes, unpacked, x, sum, ROWS, TILES, BITS, FROM);
        codes += step->octet_step;
        unpacked += UNPACKED_BYTES;
        x += 2 * ROWS;
    }
    add_integers(step, rows, sum, ROWS, TILES);
    return x;
}

STEPS_OF_BITS(4, UNPACKED_BYTES)
STEPS_OF_BITS(8, UNPACKED_BYTES)
STEP_FUNCTIONS_5(u4, OCTET, UNPACKED_BYTES)
STEP_FUNCTIONS_5(u8, OCTET, UNPACKED_BYTES)

static float pack_row(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                      int32_t row, int32_t rows, void *packed, float *sums) {
    return pack_in_step(&u4_functions, tiled_pack_int8, bound, x, linear, row, rows, packed, sums);
}

static void compute(const struct tiled_work *work, const struct tiled_chunk *chunks, int32_t count,
                    int64_t tile_begin, int64_t tile_end) {
    run_block(kry_weight_bits(work->linear->weight_type) == 4 ? &u4_functions : &u8_functions, work,
              chunks, count, tile_begin, tile_end);
}

const struct tiled_class avx2_vnni = {
    .x_octet_bytes = OCTET, .read_row = read_row, .pack_row = pack_row, .compute_all = compute};
