/*
 * Rows of x, converted to f32, become packed rows beside each other.
 */
#include "tiled.h"

#include <math.h>
#include <string.h>

/* The eight columns of octet o of a segment, zero where there is none. */
static void gather(const struct tiled_bound *bound, const struct tiled_segment *s, int32_t o,
                   const float *x, float out[OCTET]) {
    int32_t left = s->column_count - o * OCTET;
    if (bound->order != NULL) {
        const int32_t *order = bound->order + (int64_t)(s->octet_begin + o) * OCTET;
        for (int32_t i = 0; i < OCTET; i++)
            out[i] = order[i] >= 0 ? x[order[i]] : 0.0f;
    } else if (left >= OCTET) {
        memcpy(out, x + s->column_begin + o * OCTET, OCTET * sizeof out[0]);
    } else {
        for (int32_t i = 0; i < OCTET; i++)
            out[i] = i < left ? x[s->column_begin + o * OCTET + i] : 0.0f;
    }
}

float tiled_pack_f32(const struct tiled_bound *bound, float *x, int64_t in_features, int32_t row,
                     int32_t rows, void *packed, float *sums) {
    (void)in_features;
    float *to = (float *)packed + row;
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *s = &bound->segments[i];
        double sum = 0;
        for (int32_t o = 0; o < s->octet_count; o++) {
            float octet[OCTET];
            gather(bound, s, o, x, octet);
            for (int32_t j = 0; j < OCTET; j++, to += rows) {
                *to = octet[tiled_field_column[j]];
                sum += (double)*to;
            }
        }
        sums[i * rows + row] = (float)sum;
    }
    return 1.0f;
}

/* x came from bf16: its upper half is exact. */
static uint32_t bf16_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 16;
}

float tiled_pack_bf16(const struct tiled_bound *bound, float *x, int64_t in_features, int32_t row,
                      int32_t rows, void *packed, float *sums) {
    (void)in_features;
    uint32_t *to = (uint32_t *)packed + row;
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *s = &bound->segments[i];
        double sum = 0;
        for (int32_t o = 0; o < s->octet_count; o++) {
            float octet[OCTET];
            gather(bound, s, o, x, octet);
            for (int32_t j = 0; j < OCTET / 2; j++, to += rows) {
                float low = octet[tiled_field_column[j]];
                float high = octet[tiled_field_column[j + OCTET / 2]];
                *to = bf16_bits(low) | bf16_bits(high) << 16;
                sum += (double)low + (double)high;
            }
        }
        sums[i * rows + row] = (float)sum;
    }
    return 1.0f;
}

/* Quantize a row as types.h says of KRY_ACTIVATION_INT8_TOKEN, in f32; returns its scale. A row
 * with a NaN or an infinity has no quantized values: its scale is NaN, and so is its y. */
static float quantize_row(float *x, int64_t in_features) {
    float most = 0, spoilt = 0;
    for (int64_t k = 0; k < in_features; k++) {
        most = fabsf(x[k]) > most ? fabsf(x[k]) : most;
        spoilt += x[k] * 0.0f;
    }
    if (spoilt != 0) {
        memset(x, 0, (size_t)in_features * sizeof x[0]);
        return NAN;
    }
    float scale = most / 127.0f;
    scale = scale > 0 ? scale : 1.0f;
    for (int64_t k = 0; k < in_features; k++) {
        float q = rintf(x[k] / scale);
        x[k] = q > 127.0f ? 127.0f : q < -128.0f ? -128.0f : q;
    }
    return scale;
}

float tiled_pack_int8(const struct tiled_bound *bound, float *x, int64_t in_features, int32_t row,
                      int32_t rows, void *packed, float *sums) {
    float scale = quantize_row(x, in_features);
    int8_t *to = (int8_t *)packed + row * 4;
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *s = &bound->segments[i];
        int32_t sum = 0;
        for (int32_t o = 0; o < s->octet_count; o++) {
            float octet[OCTET];
            gather(bound, s, o, x, octet);
            for (int32_t j = 0; j < OCTET; j++) {
                int8_t q = (int8_t)octet[j];
                to[j % 4] = q;
                sum += q;
                if (j % 4 == 3)
                    to += rows * 4;
            }
        }
        sums[i * rows + row] = (float)sum;
    }
    return scale;
}

float tiled_pack_int16(const struct tiled_bound *bound, float *x, int64_t in_features, int32_t row,
                       int32_t rows, void *packed, float *sums) {
    static const uint8_t order[OCTET] = {0, 2, 1, 3, 4, 6, 5, 7};
    float scale = quantize_row(x, in_features);
    int16_t *to = (int16_t *)packed + row * 2;
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *s = &bound->segments[i];
        int32_t sum = 0;
        for (int32_t o = 0; o < s->octet_count; o++) {
            float octet[OCTET];
            gather(bound, s, o, x, octet);
            for (int32_t j = 0; j < OCTET; j += 2, to += rows * 2) {
                to[0] = (int16_t)octet[order[j]];
                to[1] = (int16_t)octet[order[j + 1]];
                sum += to[0] + to[1];
            }
        }
        sums[i * rows + row] = (float)sum;
    }
    return scale;
}
