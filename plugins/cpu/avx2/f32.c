/*
 * Float activations: products and sums in f32.
 *
 * Tile         ROWS (m) x 16 * TILES (n), columns one by one.
 * Instruction  vfmadd231ps, x broadcast from memory. A code q that lies f bits up in its word
 *              becomes a float by a mask and vcvtdq2ps, without a shift: q * 2^f exactly. x is
 *              packed as x * 2^-f for the column, so the product is q * x all the same. Only the
 *              highest code of a word, whose upper bit would be a sign, is shifted down.
 * Numerics     x * 2^-f, f at most 24, is exact unless x is below 2^-102; then the least of its
 *              bits are lost. To the bit the same as avx512_f32 otherwise.
 * Chosen       for activations that are not to be quantized.
 */
#include "batch.h"

enum { X_OCTET_BYTES = OCTET * 4 };

/* sum += w * x. As an instruction, because gcc 12 lets the intrinsic overwrite w or x instead and
 * moves the sum back, some of them through memory. */
INLINE __m256 multiply_add(__m256 w, __m256 x, __m256 sum) {
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));
    return sum;
}

static const uint32_t masks_4[] = {0xf, 0xf0, 0xf00, 0xf000, 0xf0000, 0xf00000, 0xf000000, 0};
static const uint32_t masks_8[] = {0xff, 0xff00, 0xff0000, 0};

/* The code f bits up in each word as a float. */
INLINE __m256 unpack(const uint8_t *codes, const int f, __m256i mask, const int BITS) {
    __m256i word = _mm256_load_si256((const void *)codes);
    return _mm256_cvtepi32_ps(f + BITS < 32 ? _mm256_and_si256(word, mask)
                                            : _mm256_srli_epi32(word, f));
}

/* Of an octet, column after column in the order of x. */
INLINE void unpack_octet(const uint8_t *codes, uint8_t *unpacked, const int BITS) {
    const uint32_t *masks = BITS == 4 ? masks_4 : masks_8;
    const int WORDS = BITS / 4;
    float *to = (float *)unpacked;
    UNROLL for (int word = 0; word < WORDS; word++) UNROLL for (int f = 0; f < 32; f += BITS) {
        const __m256i mask = _mm256_set1_epi32((int)masks[f / BITS]);
        UNROLL for (int h = 0; h < HALVES; h++) {
            __m256 w = unpack(codes + word * WORD_BYTES + h * 32, f, mask, BITS);
            _mm256_store_ps(to + (f / BITS * WORDS + word) * TILE_N + h * LANES, w);
        }
    }
}

/* The columns whose codes lie in a word of each output feature, STRIDE floats of x apart. */
INLINE void columns(const uint8_t *codes, const float *x, const int STRIDE, __m256 *sum,
                    const int ROWS, const int TILES, const int BITS) {
    const uint32_t *masks = BITS == 4 ? masks_4 : masks_8;
    UNROLL for (int f = 0; f < 32; f += BITS) {
        /* Words are read again for each column, and masks where sums take the registers. */
        __asm__("" : "+r"(codes));
        if (ROWS * TILES >= 4)
            __asm__("" : "+r"(masks));
        const int field = f / BITS;
        const __m256i mask = _mm256_set1_epi32((int)masks[field]);
        UNROLL for (int t = 0; t < TILES; t++) {
            __m256 w[HALVES];
            UNROLL for (int h = 0; h < HALVES; h++) w[h] =
                unpack(codes + t * octet_bytes(BITS) + h * 32, f, mask, BITS);
            if (ROWS * TILES > 4) /* likewise x for each tile */
                __asm__("" : "+r"(x));
            UNROLL for (int r = 0; r < ROWS; r++) {
                __m256 broadcast = _mm256_broadcast_ss(x + field * STRIDE * ROWS + r);
                __m256 *to = sum + (t * ROWS + r) * HALVES;
                UNROLL for (int h = 0; h < HALVES; h++) to[h] =
                    multiply_add(w[h], broadcast, to[h]);
            }
        }
    }
}

/* The columns of an unpacked octet, in the order in which `columns` takes them. */
INLINE void unpacked_columns(const float *unpacked, const float *x, __m256 *sum, const int ROWS,
                             const int BITS) {
    const int WORDS = BITS / 4;
    UNROLL for (int i = 0; i < OCTET; i++) {
        const int k = i % (OCTET / WORDS) * WORDS + i / (OCTET / WORDS);
        __m256 w[HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) w[h] =
            _mm256_load_ps(unpacked + k * TILE_N + h * LANES);
        UNROLL for (int r = 0; r < ROWS; r++) {
            __m256 broadcast = _mm256_broadcast_ss(x + k * ROWS + r);
            UNROLL for (int h = 0; h < HALVES; h++) sum[r * HALVES + h] =
                multiply_add(w[h], broadcast, sum[r * HALVES + h]);
        }
    }
}

INLINE const void *segment(const struct step *step, const struct step_rows *rows, const int ROWS,
                           const int TILES, const int BITS, const enum codes_from FROM) {
    const int WORDS = BITS / 4;
    const uint8_t *codes = step->codes;
    const float *x = rows->x;
    const float *unpacked = (const float *)step->unpacked;
    const float *ahead = rows->x_next;
    __m256 sum[SUMS_MAX];
    UNROLL for (int i = 0; i < TILES * ROWS * HALVES; i++) sum[i] = _mm256_setzero_ps();
    for (int32_t o = 0; o < step->octets; o++, x += OCTET * ROWS) {
        if (FROM == UNPACKED) {
            UNROLL for (int line = 0; line < OCTET * ROWS * 4; line += 64)
                _mm_prefetch((const char *)ahead + line, _MM_HINT_T0);
            ahead += OCTET * ROWS;
            unpacked_columns(unpacked, x, sum, ROWS, BITS);
            unpacked += OCTET * TILE_N;
            continue;
        }
        UNROLL for (int word = 0; word < WORDS; word++) {
            const uint8_t *at = codes + word * WORD_BYTES;
            prefetch(step, at, TILES, BITS);
            /* x lies in the order of 4-bit fields: byte b of 8-bit word w is field 2b + w. */
            columns(at, x + word * ROWS, WORDS, sum, ROWS, TILES, BITS);
        }
        codes += step->octet_step;
    }
    UNROLL for (int t = 0; t < TILES; t++)
        add_segment(step, rows, t, sum + t * ROWS * HALVES, ROWS);
    return x;
}

STEPS_OF_BITS(4, UNPACKED_OCTET_BYTES)
STEPS_OF_BITS(8, UNPACKED_OCTET_BYTES)
STEP_FUNCTIONS_6(u4, X_OCTET_BYTES, UNPACKED_OCTET_BYTES)
STEP_FUNCTIONS_6(u8, X_OCTET_BYTES, UNPACKED_OCTET_BYTES)

static float pack_row(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                      int32_t row, int32_t rows, void *packed, float *sums) {
    return pack_in_step(&u4_functions, tiled_pack_f32_in_place, bound, x, linear, row, rows, packed,
                        sums);
}

static void compute(const struct tiled_work *work, const struct tiled_chunk *chunks, int32_t count,
                    int64_t tile_begin, int64_t tile_end) {
    run_block(kry_weight_bits(work->linear->weight_type) == 4 ? &u4_functions : &u8_functions, work,
              chunks, count, tile_begin, tile_end);
}

const struct tiled_class avx2_f32 = {.x_octet_bytes = X_OCTET_BYTES,
                                     .read_row = read_row,
                                     .pack_row = pack_row,
                                     .compute_all = compute};
