/*
 * Rows of x, converted to f32, become packed rows beside each other.
 */
#include "octets.h"

#include <math.h>
#include <string.h>

/* Sums lie beside each other, one a column of an octet, so that no addition waits for the one
 * before. */
static float sum_up(const f64x8 *sum) {
    const f64x8 s = *sum;
    return (float)(((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])));
}

/* Put `count` words of 32 bits `stride` words apart. */
static void put_words(const void *words, int32_t count, int32_t stride, uint32_t *to) {
    const uint8_t *from = words;
    if (stride == 1) {
        memcpy(to, from, (size_t)count * sizeof *to);
        return;
    }
    for (int32_t i = 0; i < count; i++)
        memcpy(to + i * stride, from + i * 4, sizeof *to);
}

/* Write an octet of a row into a chunk of `rows`. */
typedef void put_floats(const f32x8 *octet, int32_t rows, uint32_t *to);

/* Pack a row of floats, `words` to an octet; `put` is known where this is inlined. */
INLINE float pack_floats(const struct tiled_bound *bound, const float *x, int32_t row, int32_t rows,
                         void *packed, float *sums, int32_t words, put_floats *put) {
    uint32_t *to = (uint32_t *)packed + row;
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *s = &bound->segments[i];
        f64x8 sum = {0};
        for (int32_t o = 0; o < s->octet_count; o++, to += words * rows) {
            f32x8 octet;
            gather(bound, s, o, x, &octet);
            sum += __builtin_convertvector(octet, f64x8);
            put(&octet, rows, to);
        }
        sums[i * rows + row] = sum_up(&sum);
    }
    return 1.0f;
}

/* Columns in the order of their codes' fields. */
INLINE f32x8 fields_of(const f32x8 *octet) {
    return __builtin_shufflevector(*octet, *octet, 0, 4, 1, 5, 2, 6, 3, 7);
}

INLINE void put_f32(const f32x8 *octet, int32_t rows, uint32_t *to) {
    f32x8 fields = fields_of(octet);
    put_words(&fields, OCTET, rows, to);
}

float tiled_pack_f32(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                     int32_t row, int32_t rows, void *packed, float *sums) {
    (void)linear;
    return pack_floats(bound, x, row, rows, packed, sums, OCTET, put_f32);
}

/* Fields lie 4 bits apart, or columns of a word 8 bits; the last of a word is shifted down. */
INLINE void put_in_place_u4(const f32x8 *octet, int32_t rows, uint32_t *to) {
    const f32x8 down = {1, 0x1p-4f, 0x1p-8f, 0x1p-12f, 0x1p-16f, 0x1p-20f, 0x1p-24f, 1};
    f32x8 fields = fields_of(octet) * down;
    put_words(&fields, OCTET, rows, to);
}

INLINE void put_in_place_u8(const f32x8 *octet, int32_t rows, uint32_t *to) {
    const f32x8 down = {1, 1, 0x1p-8f, 0x1p-8f, 0x1p-16f, 0x1p-16f, 1, 1};
    f32x8 fields = fields_of(octet) * down;
    put_words(&fields, OCTET, rows, to);
}

float tiled_pack_f32_in_place(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                              int32_t row, int32_t rows, void *packed, float *sums) {
    if (kry_weight_bits(linear->weight_type) == 4)
        return pack_floats(bound, x, row, rows, packed, sums, OCTET, put_in_place_u4);
    return pack_floats(bound, x, row, rows, packed, sums, OCTET, put_in_place_u8);
}

/* Pairs of bf16 from floats that bf16 holds exactly: columns 0 and 2, 4 and 6, 1 and 3, 5 and 7. */
static void put_pairs(const u32x8 *octet, int32_t stride, uint32_t *to) {
    u32x4 low = __builtin_shufflevector(*octet, *octet, 0, 4, 1, 5);
    u32x4 high = __builtin_shufflevector(*octet, *octet, 2, 6, 3, 7);
    u32x4 pairs = low >> 16 | (high & 0xffff0000);
    put_words(&pairs, 4, stride, to);
}

INLINE void put_bf16(const f32x8 *octet, int32_t rows, uint32_t *to) {
    u32x8 bits = (u32x8)*octet;
    put_pairs(&bits, rows, to);
}

float tiled_pack_bf16(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                      int32_t row, int32_t rows, void *packed, float *sums) {
    (void)linear;
    return pack_floats(bound, x, row, rows, packed, sums, OCTET / 2, put_bf16);
}

INLINE void put_bf16x2(const f32x8 *octet, int32_t rows, uint32_t *to) {
    u32x8 first, second;
    split_octet(octet, &first, &second);
    put_pairs(&first, 2 * rows, to);
    put_pairs(&second, 2 * rows, to + rows);
}

float tiled_pack_bf16x2(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                        int32_t row, int32_t rows, void *packed, float *sums) {
    (void)linear;
    return pack_floats(bound, x, row, rows, packed, sums, OCTET, put_bf16x2);
}

/* The largest magnitude of a row, as bits: in the order of floats, infinities and NaNs last. */
static uint32_t largest_bits(const float *x, int64_t count) {
    uint32_t most = 0;
    for (int64_t k = 0; k < count; k++) {
        uint32_t bits;
        memcpy(&bits, x + k, sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return most;
}

/* The nearest of -128 to 127, of two the even one. */
static inline float int8_of(float quotient) {
    /* Adding and subtracting it rounds a small float to an integer. */
    const float whole = 1.5f * (1 << 23);
    float q = (quotient + whole) - whole;
    q = q > 127.0f ? 127.0f : q;
    return q < -128.0f ? -128.0f : q;
}

float tiled_quantize_row(float *x, int64_t in_features) {
    uint32_t bits = largest_bits(x, in_features);
    if (bits >= 0x7f800000) {
        memset(x, 0, (size_t)in_features * sizeof x[0]);
        return NAN;
    }
    float most;
    memcpy(&most, &bits, sizeof most);
    float scale = most / 127.0f;
    scale = scale > 0 ? scale : 1.0f;
    if (scale < 0x1p-100f) { /* whose reciprocal might overflow */
        for (int64_t k = 0; k < in_features; k++)
            x[k] = int8_of(x[k] / scale);
        return scale;
    }
    /* Divisions would take longer than all the rest of packing. Adding what a first quotient leaves
     * over rounds it as a division does. */
    const float reciprocal = 1 / scale;
    for (int64_t k = 0; k < in_features; k++) {
        float quotient = x[k] * reciprocal;
        float left = __builtin_fmaf(-quotient, scale, x[k]);
        x[k] = int8_of(__builtin_fmaf(left, reciprocal, quotient));
    }
    return scale;
}

static float add_up(const i32x8 *sum) {
    int32_t total = 0;
    for (int32_t i = 0; i < OCTET; i++)
        total += (*sum)[i];
    return (float)total;
}

typedef void put_integers(const i32x8 *octet, int32_t rows, uint32_t *to);

/* The same for a row that is quantized first; returns its scale. */
INLINE float pack_integers(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                           int32_t row, int32_t rows, void *packed, float *sums, int32_t words,
                           put_integers *put) {
    float scale = tiled_quantize_row(x, linear->in_features);
    uint32_t *to = (uint32_t *)packed + row;
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *s = &bound->segments[i];
        i32x8 sum = {0};
        for (int32_t o = 0; o < s->octet_count; o++, to += words * rows) {
            f32x8 octet;
            gather(bound, s, o, x, &octet);
            i32x8 q = __builtin_convertvector(octet, i32x8);
            sum += q;
            put(&q, rows, to);
        }
        sums[i * rows + row] = add_up(&sum);
    }
    return scale;
}

INLINE void put_int8(const i32x8 *octet, int32_t rows, uint32_t *to) {
    i8x8 bytes = __builtin_convertvector(*octet, i8x8);
    put_words(&bytes, 2, rows, to);
}

float tiled_pack_int8(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                      int32_t row, int32_t rows, void *packed, float *sums) {
    return pack_integers(bound, x, linear, row, rows, packed, sums, 2, put_int8);
}

float tiled_pack_int8_bias(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                           int32_t row, int32_t rows, void *packed, float *sums) {
    float scale = tiled_pack_int8(bound, x, linear, row, rows, packed, sums);
    if (kry_weight_has_zero_points(linear->weight_type))
        return scale;
    int32_t bias = linear->weight_type == KRY_WEIGHT_U4B8 ? 8 : 128;
    for (int64_t i = 0; i < bound->segment_count; i++) {
        int32_t less = -bias * (int32_t)sums[i * rows + row];
        memcpy(&sums[i * rows + row], &less, sizeof less);
    }
    return scale;
}

INLINE void put_int16(const i32x8 *octet, int32_t rows, uint32_t *to) {
    i16x8 pairs = __builtin_convertvector(
        __builtin_shufflevector(*octet, *octet, 0, 2, 1, 3, 4, 6, 5, 7), i16x8);
    put_words(&pairs, 4, rows, to);
}

float tiled_pack_int16(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                       int32_t row, int32_t rows, void *packed, float *sums) {
    return pack_integers(bound, x, linear, row, rows, packed, sums, OCTET / 2, put_int16);
}
