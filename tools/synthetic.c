/*
 * Weights and activations drawn for a linear description.
 */
#include "synthetic.h"

#include "floats.h"
#include "random.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/** What each stream of a seed is for. */
enum { STREAM_CODES = 1, STREAM_SCALES, STREAM_ZERO_POINTS, STREAM_ORDER, STREAM_BIAS };

/* ---- weights ------------------------------------------------------------------------- */

static int64_t words_of_row(const kry_linear *linear) {
    int64_t per_word = 32 / kry_weight_bits(linear->weight_type);
    return (linear->in_features + per_word - 1) / per_word;
}

/* Features are at most 2^31, so none of these products overflows 64 bits. */

static uint64_t qweight_bytes(const kry_linear *linear) {
    return (uint64_t)linear->out_features * (uint64_t)words_of_row(linear) * 4;
}

static uint64_t scales_bytes(const kry_linear *linear) {
    return (uint64_t)linear->out_features * (uint64_t)kry_linear_groups(linear) *
           kry_type_bytes(linear->scale_type);
}

static uint64_t zero_points_bytes(const kry_linear *linear) {
    return kry_weight_has_zero_points(linear->weight_type)
               ? (uint64_t)linear->out_features * (uint64_t)kry_linear_groups(linear)
               : 0;
}

uint64_t synthetic_bytes(const struct synthetic *synthetic) {
    const kry_linear *linear = &synthetic->linear;
    uint64_t bytes = qweight_bytes(linear) + scales_bytes(linear) + zero_points_bytes(linear);
    if (synthetic->g_idx != NULL)
        bytes += (uint64_t)linear->in_features * sizeof *synthetic->g_idx;
    if (synthetic->bias != NULL)
        bytes += (uint64_t)linear->out_features * kry_type_bytes(linear->y_type);
    return bytes;
}

static void draw_codes(struct synthetic *synthetic, uint64_t seed) {
    const kry_linear *linear = &synthetic->linear;
    struct random random = random_seeded(seed, STREAM_CODES);
    int64_t words = words_of_row(linear);
    int32_t bits = kry_weight_bits(linear->weight_type), per_word = 32 / bits;
    for (int64_t n = 0; n < linear->out_features; n++)
        for (int64_t word = 0; word < words; word++) {
            uint32_t drawn = (uint32_t)(random_next(&random) >> 32);
            synthetic->qweight[n * words + word] = drawn;
            uint8_t *codes = synthetic->codes + n * linear->in_features;
            int64_t begin = word * per_word, left = linear->in_features - begin;
            for (int64_t i = 0; i < per_word && i < left; i++, drawn >>= bits)
                codes[begin + i] = (uint8_t)(drawn & ((1u << bits) - 1));
        }
}

/** Store a drawn value, and tell what it is once it is rounded. */
static float store_drawn(void *stored, int64_t index, uint32_t type, double value) {
    float_store(stored, index, type, value);
    return (float)float_load(stored, index, type);
}

static void draw_scales(struct synthetic *synthetic, uint64_t seed) {
    const kry_linear *linear = &synthetic->linear;
    struct random random = random_seeded(seed, STREAM_SCALES);
    /* The standard deviation of a uniform code is 2^b / sqrt(12). */
    double codes = (double)(1 << kry_weight_bits(linear->weight_type)) / sqrt(12.0);
    double usual = 1.0 / (codes * sqrt((double)linear->in_features));
    int64_t groups = kry_linear_groups(linear);
    for (int64_t n = 0; n < linear->out_features; n++) {
        double row = random_below(&random, 29) == 0 ? 8 * usual : usual;
        for (int64_t g = 0; g < groups; g++)
            synthetic->plain_scales[n * groups + g] =
                store_drawn(synthetic->scales, n * groups + g, linear->scale_type,
                            row * (0.5 + random_uniform(&random)));
    }
}

static void draw_zero_points(struct synthetic *synthetic, uint64_t seed) {
    struct random random = random_seeded(seed, STREAM_ZERO_POINTS);
    uint64_t levels = UINT64_C(1) << kry_weight_bits(synthetic->linear.weight_type);
    uint64_t count = zero_points_bytes(&synthetic->linear);
    for (uint64_t i = 0; i < count; i++)
        synthetic->zero_points[i] = (uint8_t)random_below(&random, levels);
}

/** Shuffle the columns of the full layer over its groups, and keep this partition's part. */
static kry_status draw_order(struct synthetic *synthetic, uint64_t seed) {
    const kry_linear *linear = &synthetic->linear;
    struct random random = random_seeded(seed, STREAM_ORDER);
    int64_t full = linear->full_in_features;
    int32_t *groups = malloc((size_t)full * sizeof *groups);
    if (groups == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory to order %" PRId64 " columns", full);
    for (int64_t k = 0; k < full; k++)
        groups[k] = linear->group_size < 0 ? 0 : (int32_t)(k / linear->group_size);
    for (int64_t k = full - 1; k > 0; k--) {
        int64_t other = (int64_t)random_below(&random, (uint64_t)k + 1);
        int32_t kept = groups[k];
        groups[k] = groups[other];
        groups[other] = kept;
    }
    memcpy(synthetic->g_idx, groups + linear->k_offset,
           (size_t)linear->in_features * sizeof *groups);
    free(groups);
    return KRY_OK;
}

static void draw_bias(struct synthetic *synthetic, uint64_t seed) {
    struct random random = random_seeded(seed, STREAM_BIAS);
    for (int64_t n = 0; n < synthetic->linear.out_features; n++)
        synthetic->plain_bias[n] = store_drawn(synthetic->bias, n, synthetic->linear.y_type,
                                               (double)random_normal(&random));
}

/** Allocate; NULL for 0 bytes. Remembers in *enough when memory ran out. */
static void *grab(uint64_t bytes, bool *enough) {
    void *memory = bytes > 0 ? malloc(bytes) : NULL;
    *enough = *enough && (bytes == 0 || memory != NULL);
    return memory;
}

static kry_status allocate(struct synthetic *synthetic, bool bias) {
    const kry_linear *linear = &synthetic->linear;
    uint64_t rows = (uint64_t)linear->out_features, columns = (uint64_t)linear->in_features;
    uint64_t groups = (uint64_t)kry_linear_groups(linear);
    bool enough = true;
    synthetic->codes = grab(rows * columns, &enough);
    synthetic->qweight = grab(qweight_bytes(linear), &enough);
    synthetic->plain_scales = grab(rows * groups * sizeof(float), &enough);
    synthetic->scales = grab(scales_bytes(linear), &enough);
    synthetic->zero_points = grab(zero_points_bytes(linear), &enough);
    synthetic->g_idx = grab(linear->act_order ? columns * sizeof(int32_t) : 0, &enough);
    synthetic->plain_bias = grab(bias ? rows * sizeof(float) : 0, &enough);
    synthetic->bias = grab(bias ? rows * kry_type_bytes(linear->y_type) : 0, &enough);
    if (!enough)
        return kry_error_set(KRY_E_MEMORY,
                             "no memory for the weights of %" PRId64 "x%" PRId64 " (%" PRIu64
                             " bytes unpacked)",
                             linear->in_features, linear->out_features, rows * columns);
    return KRY_OK;
}

/** Describe a dense matrix of n rows. */
static kry_view view_of(const void *data, uint64_t bytes, int64_t stride, uint32_t element_bits,
                        uint32_t word_bits) {
    return (kry_view){.struct_size = sizeof(kry_view),
                      .data = data,
                      .bytes = bytes,
                      .n_stride = stride,
                      .j_stride = 1,
                      .element_bits = element_bits,
                      .word_bits = word_bits,
                      .pack_axis = KRY_AXIS_K};
}

static void make_views(struct synthetic *synthetic) {
    const kry_linear *linear = &synthetic->linear;
    int64_t groups = kry_linear_groups(linear);
    synthetic->qweight_view =
        view_of(synthetic->qweight, qweight_bytes(linear), words_of_row(linear),
                (uint32_t)kry_weight_bits(linear->weight_type), 32);
    uint32_t scale_bits = (uint32_t)kry_type_bytes(linear->scale_type) * 8;
    synthetic->scales_view =
        view_of(synthetic->scales, scales_bytes(linear), groups, scale_bits, scale_bits);
    synthetic->zero_points_view =
        view_of(synthetic->zero_points, zero_points_bytes(linear), groups, 8, 8);
    synthetic->weights = (kry_weights){
        .struct_size = sizeof(kry_weights),
        .qweight = &synthetic->qweight_view,
        .scales = &synthetic->scales_view,
        .zero_points = synthetic->zero_points != NULL ? &synthetic->zero_points_view : NULL,
        .g_idx = synthetic->g_idx,
        .memory = KRY_MEMORY_HOST};
}

kry_status synthetic_create(const kry_linear *linear, bool bias, uint64_t seed,
                            struct synthetic **out) {
    kry_linear complete = {.struct_size = sizeof complete};
    kry_status status = kry_linear_complete(linear, &complete);
    if (status != KRY_OK)
        return status;
    struct synthetic *synthetic = calloc(1, sizeof *synthetic);
    if (synthetic == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    synthetic->linear = complete;
    status = allocate(synthetic, bias);
    if (status == KRY_OK && complete.act_order)
        status = draw_order(synthetic, seed);
    if (status != KRY_OK) {
        synthetic_destroy(&synthetic);
        return status;
    }
    draw_codes(synthetic, seed);
    draw_scales(synthetic, seed);
    draw_zero_points(synthetic, seed);
    if (bias)
        draw_bias(synthetic, seed);
    make_views(synthetic);
    *out = synthetic;
    return KRY_OK;
}

void synthetic_destroy(struct synthetic **synthetic) {
    struct synthetic *gone = *synthetic;
    if (gone == NULL)
        return;
    free(gone->codes);
    free(gone->plain_scales);
    free(gone->zero_points);
    free(gone->g_idx);
    free(gone->plain_bias);
    free(gone->qweight);
    free(gone->scales);
    free(gone->bias);
    free(gone);
    *synthetic = NULL;
}

struct oracle_drawn synthetic_drawn(const struct synthetic *synthetic) {
    const kry_linear *linear = &synthetic->linear;
    return (struct oracle_drawn){.out_features = linear->out_features,
                                 .in_features = linear->in_features,
                                 .groups = kry_linear_groups(linear),
                                 .group_size = linear->group_size,
                                 .k_offset = linear->k_offset,
                                 .bits = (uint32_t)kry_weight_bits(linear->weight_type),
                                 .activation = linear->activation_quantization,
                                 .codes = synthetic->codes,
                                 .scales = synthetic->plain_scales,
                                 .zero_points = synthetic->zero_points,
                                 .g_idx = synthetic->g_idx,
                                 .bias = synthetic->plain_bias};
}

/* ---- activations --------------------------------------------------------------------- */

void synthetic_activations(void *x, uint32_t type, int64_t m, int64_t in_features, int64_t stride,
                           uint64_t seed, uint64_t stream) {
    /* Which columns are outliers depends on the stream alone: the same ones in every row. */
    struct random columns = random_seeded(seed, ~stream);
    struct random random = random_seeded(seed, stream);
    uint64_t first = random_below(&columns, 64), period = 49 + random_below(&columns, 31);
    for (int64_t row = 0; row < m; row++) {
        for (int64_t k = 0; k < in_features; k++) {
            bool outlier = ((uint64_t)k + first) % period == 0;
            double value = (double)random_normal(&random);
            float_store(x, row * stride + k, type, outlier ? 20 * value : value);
        }
        for (int64_t k = in_features; k < stride; k++)
            float_store(x, row * stride + k, type, (double)NAN);
    }
}

/* ---- smaller twins ------------------------------------------------------------------- */

static int64_t greatest_common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static int64_t scale_size(int64_t size, int64_t unit, int64_t divisor) {
    int64_t units = size / unit;
    int64_t kept = units / divisor;
    if (kept == 0 && units > 0)
        kept = 1;
    return kept * unit + size % unit;
}

kry_linear synthetic_scale_down(const kry_linear *linear, int64_t divisor) {
    enum { TILE = 128, UNIT_MAX = 4096 };
    int64_t unit = TILE;
    if (linear->group_size > 0) {
        unit = linear->group_size / greatest_common_divisor(linear->group_size, TILE) * TILE;
        if (unit > UNIT_MAX)
            unit = linear->group_size;
    }
    kry_linear twin = *linear;
    /* The parts before, of and after the partition, each by itself, so that they still add up. */
    int64_t after = linear->full_in_features - linear->k_offset - linear->in_features;
    twin.k_offset = scale_size(linear->k_offset, unit, divisor);
    twin.in_features = scale_size(linear->in_features, unit, divisor);
    twin.full_in_features = twin.k_offset + twin.in_features + scale_size(after, unit, divisor);
    twin.out_features = scale_size(linear->out_features, TILE, divisor);
    twin.full_out_features =
        linear->full_out_features == linear->out_features
            ? twin.out_features
            : twin.out_features +
                  scale_size(linear->full_out_features - linear->out_features, TILE, divisor);
    return twin;
}
