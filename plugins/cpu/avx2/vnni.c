/*
 * Dynamic int8 activations where the processor has AVX-VNNI: products of bytes, sums in i32,
 * scaled in f32.
 *
 * Tile         ROWS (m) x 16 * TILES (n), columns four by four.
 * Instruction  vpdpbusd, codes unsigned, four bytes of x broadcast from memory.
 * Numerics     a segment's sum is exact, as in int8.c, whose y it gives to the bit.
 * Chosen       before avx2_int8.
 */
#include "block.h"

enum { KEPT_BYTES = 2 * WORD_BYTES /* an octet and tile */ };

/* Half of an octet's codes as bytes. */
INLINE __m256i unpack(const uint8_t *codes, const int HALF, const int BITS) {
    __m256i word = _mm256_load_si256((const void *)(codes + (BITS == 8 ? HALF * WORD_BYTES : 0)));
    if (BITS == 8)
        return word;
    return _mm256_and_si256(HALF ? _mm256_srli_epi16(word, 4) : word, _mm256_set1_epi8(15));
}

INLINE void columns(const uint8_t *codes, uint8_t *kept, const int32_t *x, __m256i *sum,
                    const int ROWS, const int TILES, const int BITS, const enum codes_from FROM) {
    UNROLL for (int half = 0; half < 2; half++) UNROLL for (int t = 0; t < TILES; t++) {
        __m256i w[HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) {
            uint8_t *place = kept + half * WORD_BYTES + h * 32;
            w[h] = FROM == KEPT ? _mm256_load_si256((const void *)place)
                                : unpack(codes + t * octet_bytes(BITS) + h * 32, half, BITS);
            if (FROM == UNPACKED_AND_KEPT)
                _mm256_store_si256((void *)place, w[h]);
        }
        UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int h = 0; h < HALVES; h++) {
            __m256i *to = &sum[(t * ROWS + r) * HALVES + h];
            *to = _mm256_dpbusd_epi32(*to, w[h], _mm256_set1_epi32(x[half * ROWS + r]));
        }
    }
}

INLINE void segment(const struct step *step, const int ROWS, const int TILES, const int BITS,
                    const enum codes_from FROM) {
    const uint8_t *codes = step->codes;
    const int32_t *x = step->x;
    uint8_t *kept = step->kept;
    __m256i sum[SUMS_MAX];
    UNROLL for (int i = 0; i < TILES * ROWS * HALVES; i++) sum[i] = _mm256_setzero_si256();
    for (int32_t o = 0; o < step->octets; o++) {
        if (FROM != KEPT)
            prefetch(step, codes, TILES, BITS);
        if (FROM != KEPT && BITS == 8)
            prefetch(step, codes + WORD_BYTES, TILES, BITS);
        columns(codes, kept, x, sum, ROWS, TILES, BITS, FROM);
        codes += step->octet_step;
        kept += KEPT_BYTES;
        x += 2 * ROWS;
    }
    UNROLL for (int i = 0; i < TILES * ROWS * HALVES; i++) add_segment(
        step, i / HALVES / ROWS, i / HALVES % ROWS, i % HALVES, _mm256_cvtepi32_ps(sum[i]));
}

STEPS_OF_SEGMENT
STEP_FUNCTIONS_5(u4, OCTET)
STEP_FUNCTIONS_5(u8, OCTET)

static float pack_row(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                      int32_t row, int32_t rows, void *packed, float *sums) {
    return pack_in_step(&u4_functions, tiled_pack_int8, bound, x, linear, row, rows, packed, sums);
}

static void compute(const struct tiled_work *work, int64_t tile_begin, int64_t tile_end) {
    run_block(kry_weight_bits(work->linear->weight_type) == 4 ? &u4_functions : &u8_functions, work,
              tile_begin, tile_end);
}

const struct tiled_class avx2_vnni = {
    .x_octet_bytes = OCTET, .read_row = read_row, .pack_row = pack_row, .compute = compute};
