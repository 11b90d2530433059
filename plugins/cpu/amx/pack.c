/*
 * Rows of x, converted to f32, become rows of tiles.
 */
#include "../tiled/octets.h"
#include "kernels.h"

#include <immintrin.h>

typedef uint16_t u16x8 __attribute__((vector_size(16)));

/* Where a row's bytes of a step lie. */
struct rows {
    uint8_t *to;
    int64_t next; /* to the step behind it, or to the next part of this one */
};

static struct rows rows_of(void *packed, int32_t row, int32_t rows, int64_t step_bytes) {
    return (struct rows){(uint8_t *)packed + row * step_bytes, rows * step_bytes};
}

/* Octets of a segment in whole steps of full length that lie in x as they are packed. */
static int32_t whole_octets(const struct tiled_bound *bound, const struct tiled_segment *s,
                            int32_t step, int32_t full) {
    return bound->order != NULL || step != full ? 0 : s->column_count / (step * OCTET) * step;
}

/* bf16 that the upper halves of floats are, columns in the order 0 2, 4 6, 1 3, 5 7. */
static void put_pairs(const u32x8 *octet, uint8_t *to) {
    u16x8 halves = __builtin_convertvector(*octet >> 16, u16x8);
    halves = __builtin_shufflevector(halves, halves, 0, 2, 4, 6, 1, 3, 5, 7);
    memcpy(to, &halves, sizeof halves);
}

/* The same for the four octets of a step. */
INLINE void put_step(__m512i first, __m512i second, uint8_t *to) {
    const __m512i odd =
        _mm512_set_epi16(63, 59, 55, 51, 61, 57, 53, 49, 47, 43, 39, 35, 45, 41, 37, 33, 31, 27, 23,
                         19, 29, 25, 21, 17, 15, 11, 7, 3, 13, 9, 5, 1);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(first, odd, second));
}

INLINE float pack_bf16(const struct tiled_bound *bound, const float *x, const kry_linear *linear,
                       int32_t row, int32_t rows, void *packed, const int PARTS) {
    enum { BYTES = OCTET * 2 };
    const int32_t step = tiled_step(BF16_STEP, linear);
    struct rows at = rows_of(packed, row, rows, step * BYTES);
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *s = &bound->segments[i];
        int32_t begin = 0;
        for (const int32_t end = PARTS == 1 ? whole_octets(bound, s, step, BF16_STEP) : 0;
             begin < end; begin += step, at.to += at.next) {
            const float *columns = x + s->column_begin + begin * OCTET;
            put_step(_mm512_loadu_si512(columns), _mm512_loadu_si512(columns + TILE_N), at.to);
        }
        for (; begin < s->octet_count; begin += step, at.to += PARTS * at.next)
            for (int32_t o = 0; o < step; o++) {
                f32x8 octet = {0};
                u32x8 first, second = {0};
                if (begin + o < s->octet_count)
                    gather(bound, s, begin + o, x, &octet);
                if (PARTS == 2)
                    split_octet(&octet, &first, &second);
                else
                    first = (u32x8)octet;
                put_pairs(&first, at.to + o * BYTES);
                if (PARTS == 2)
                    put_pairs(&second, at.to + at.next + o * BYTES);
            }
    }
    return 1.0f;
}

float amx_pack_bf16(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                    int32_t row, int32_t rows, void *packed, float *sums) {
    (void)sums; /* zero points are taken from the codes */
    return pack_bf16(bound, x, linear, row, rows, packed, 1);
}

float amx_pack_bf16x2(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                      int32_t row, int32_t rows, void *packed, float *sums) {
    (void)sums;
    return pack_bf16(bound, x, linear, row, rows, packed, 2);
}

float amx_pack_f32x2(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                     int32_t row, int32_t rows, void *packed, float *sums) {
    (void)linear, (void)row, (void)rows, (void)sums;
    u32x8 *to = packed;
    for (int64_t i = 0; i < bound->segment_count; i++)
        for (int32_t o = 0; o < bound->segments[i].octet_count; o++, to += 2) {
            f32x8 octet;
            gather(bound, &bound->segments[i], o, x, &octet);
            octet = __builtin_shufflevector(octet, octet, 0, 4, 1, 5, 2, 6, 3, 7);
            split_octet(&octet, &to[0], &to[1]);
        }
    return 1.0f;
}

float amx_pack_int8(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                    int32_t row, int32_t rows, void *packed, float *sums) {
    const int32_t step = tiled_step(INT8_STEP, linear);
    const float scale = tiled_quantize_row(x, linear->in_features);
    struct rows at = rows_of(packed, row, rows, step * OCTET);
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *s = &bound->segments[i];
        i32x8 sum = {0};
        int32_t begin = 0;
        __m512i vector = _mm512_setzero_si512();
        for (const int32_t end = whole_octets(bound, s, step, INT8_STEP); begin < end;
             begin += step, at.to += at.next)
            for (int32_t k = 0; k < TILE_BYTES; k += TILE_N) {
                __m512i q =
                    _mm512_cvtps_epi32(_mm512_loadu_ps(x + s->column_begin + begin * OCTET + k));
                vector = _mm512_add_epi32(vector, q);
                _mm_storeu_si128((__m128i_u *)(at.to + k), _mm512_cvtepi32_epi8(q));
            }
        for (; begin < s->octet_count; begin += step, at.to += at.next)
            for (int32_t o = 0; o < step; o++) {
                f32x8 octet = {0};
                if (begin + o < s->octet_count)
                    gather(bound, s, begin + o, x, &octet);
                i32x8 q = __builtin_convertvector(octet, i32x8);
                sum += q;
                i8x8 bytes = __builtin_convertvector(q, i8x8);
                memcpy(at.to + o * OCTET, &bytes, sizeof bytes);
            }
        int32_t total = _mm512_reduce_add_epi32(vector);
        for (int32_t k = 0; k < OCTET; k++)
            total += sum[k];
        sums[i * rows + row] = (float)total;
    }
    return scale;
}
