#include "weights.h"

#include <stdbool.h>
#include <stdlib.h>

/* Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014: SplitMix64. */
uint64_t weights_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

kry_linear weights_linear(int64_t in_features, int64_t out_features, int64_t group_size,
                          uint32_t weight_type) {
    return (kry_linear){.struct_size = sizeof(kry_linear),
                        .in_features = in_features,
                        .out_features = out_features,
                        .full_in_features = in_features,
                        .full_out_features = out_features,
                        .group_size = group_size,
                        .weight_type = weight_type,
                        .scale_type = KRY_TYPE_F16,
                        .x_type = KRY_TYPE_F16,
                        .y_type = KRY_TYPE_F16};
}

static void *get(int64_t bytes) {
    void *memory = malloc((size_t)bytes);
    if (memory == NULL)
        abort();
    return memory;
}

static void draw_codes(struct weights *out, uint32_t *words, uint64_t *seed) {
    const kry_linear *linear = &out->linear;
    int32_t bits = kry_weight_bits(linear->weight_type);
    int64_t per_word = 32 / bits;
    for (int64_t i = 0; i < linear->out_features * out->rows.qweight_stride; i++)
        words[i] = (uint32_t)weights_random(seed); /* the bits behind K, too */
    out->codes = get(linear->out_features * linear->in_features);
    for (int64_t n = 0; n < linear->out_features; n++)
        for (int64_t k = 0; k < linear->in_features; k++)
            out->codes[n * linear->in_features + k] =
                (uint8_t)(words[n * out->rows.qweight_stride + k / per_word] >>
                              (uint32_t)(k % per_word * bits) &
                          ((1u << bits) - 1));
}

void weights_make(struct weights *out, const kry_linear *linear, int64_t gap, uint64_t seed) {
    int64_t groups = kry_linear_groups(linear), rows = linear->out_features;
    int64_t per_word = 32 / kry_weight_bits(linear->weight_type);
    *out = (struct weights){
        .linear = *linear,
        .rows = {.struct_size = sizeof out->rows,
                 .n_end = rows,
                 .qweight_stride = (linear->in_features + per_word - 1) / per_word + gap,
                 .scale_stride = groups + gap,
                 .zero_stride = groups + gap,
                 .memory = KRY_MEMORY_HOST}};
    uint32_t *words = get(rows * out->rows.qweight_stride * 4);
    uint16_t *scales = get(rows * out->rows.scale_stride * 2);
    draw_codes(out, words, &seed);
    bool bf16 = linear->scale_type == KRY_TYPE_BF16;
    for (int64_t i = 0; i < rows * out->rows.scale_stride; i++) /* 0.25 to 1 */
        scales[i] = (uint16_t)(bf16 ? 0x3e80 + weights_random(&seed) % 0x100
                                    : 0x3400 + weights_random(&seed) % 0x800);
    out->rows.qweight = words;
    out->rows.scales = scales;
    if (kry_weight_has_zero_points(linear->weight_type)) {
        uint8_t *zeros = get(rows * out->rows.zero_stride);
        for (int64_t i = 0; i < rows * out->rows.zero_stride; i++)
            zeros[i] = (uint8_t)(weights_random(&seed) % (per_word == 8 ? 16 : 256));
        out->rows.zero_points = zeros;
    }
    if (linear->act_order) {
        int32_t *g_idx = get(linear->in_features * 4);
        for (int64_t k = 0; k < linear->in_features; k++)
            g_idx[k] = (int32_t)(weights_random(&seed) % (uint64_t)groups);
        out->rows.g_idx = g_idx;
    }
}

void weights_free(struct weights *weights) {
    free(weights->codes);
    free((void *)(uintptr_t)weights->rows.qweight);
    free((void *)(uintptr_t)weights->rows.scales);
    free((void *)(uintptr_t)weights->rows.zero_points);
    free((void *)(uintptr_t)weights->rows.g_idx);
}

kry_canonical weights_range(const struct weights *weights, int64_t n_begin, int64_t n_end) {
    kry_canonical out = weights->rows;
    out.n_begin = n_begin;
    out.n_end = n_end;
    out.qweight += n_begin * out.qweight_stride;
    out.scales = (const uint16_t *)out.scales + n_begin * out.scale_stride;
    if (out.zero_points != NULL)
        out.zero_points += n_begin * out.zero_stride;
    return out;
}
