/*
 * A plugin for Kernelry with one kernel, in plain C: right, slow, and a place to begin.
 *
 * Takes        4-bit weights without zero points, bf16 everywhere; any K, any N, any groups,
 *              partitions that start inside a group.
 * Layout       "my_plugin.rows" 1: the weights' words, [N][ceil(K / 8)], lowest bits first; behind
 *              them the scales, bf16 [N][G].
 * Numerics     products and sums in f32, in the order of k; one rounding at the store.
 * Workspace    none.
 */
#include <kernelry/plugin.h>

#include <string.h>

/* ---- numbers --------------------------------------------------------------------------- */

static float float_of_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* To nearest, ties to even; NaN stays NaN. */
static uint16_t bf16_of_float(float value) {
    uint32_t wide;
    memcpy(&wide, &value, sizeof wide);
    if (value != value)
        return (uint16_t)(wide >> 16 | 0x40);
    wide += 0x7fff + (wide >> 16 & 1);
    return (uint16_t)(wide >> 16);
}

/* ---- what it takes --------------------------------------------------------------------- */

/* Whatever is not right is refused: with a code, what was found, and what would do. */
static int64_t can_implement(const kry_device *device, const kry_linear *linear,
                             kry_refusal *refusal) {
    const int64_t bf16_bit = 1 << KRY_TYPE_BF16;
    (void)device; /* plain C: any processor does */
    if (linear->weight_type != KRY_WEIGHT_U4B8)
        return kry_refuse(refusal, KRY_REFUSAL_WEIGHT_TYPE, linear->weight_type,
                          1 << KRY_WEIGHT_U4B8, NULL);
    if (linear->x_type != KRY_TYPE_BF16)
        return kry_refuse(refusal, KRY_REFUSAL_X_TYPE, linear->x_type, bf16_bit, NULL);
    if (linear->y_type != KRY_TYPE_BF16)
        return kry_refuse(refusal, KRY_REFUSAL_Y_TYPE, linear->y_type, bf16_bit, NULL);
    if (linear->scale_type != KRY_TYPE_BF16)
        return kry_refuse(refusal, KRY_REFUSAL_SCALE_TYPE, linear->scale_type, bf16_bit, NULL);
    if (linear->act_order != 0)
        return kry_refuse(refusal, KRY_REFUSAL_ACT_ORDER, 1, 0, NULL);
    if (linear->activation_quantization != KRY_ACTIVATION_NONE)
        return kry_refuse(refusal, KRY_REFUSAL_ACTIVATION_QUANTIZATION,
                          linear->activation_quantization, 1 << KRY_ACTIVATION_NONE, NULL);
    return KRY_ACCEPTED;
}

/* ---- the layout ------------------------------------------------------------------------ */

/* Words of a row: eight weights each. */
static uint64_t row_words(const kry_linear *linear) {
    return ((uint64_t)linear->in_features + 7) / 8;
}

static uint64_t weights_bytes(const kry_linear *linear) {
    return (uint64_t)linear->out_features * row_words(linear) * sizeof(uint32_t);
}

static uint64_t scales_bytes(const kry_linear *linear) {
    return (uint64_t)linear->out_features * (uint64_t)kry_linear_groups(linear) * sizeof(uint16_t);
}

static kry_status sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    (void)device;
    out->prepared_bytes = weights_bytes(linear) + scales_bytes(linear);
    out->prepare_scratch_bytes = 0;
    out->bound_bytes = 0;
    out->prepare_multiple = 1;
    return KRY_OK;
}

/* Rows n_begin to n_end; the buffer is the whole layer's. */
static kry_status prepare_weights(const kry_prepare_call *call) {
    const kry_canonical *from = call->weights;
    const uint64_t words = row_words(call->linear);
    const uint64_t groups = (uint64_t)kry_linear_groups(call->linear);
    uint32_t *to = call->prepared;
    uint16_t *scales = (uint16_t *)((uint8_t *)call->prepared + weights_bytes(call->linear));
    for (int64_t n = from->n_begin; n < from->n_end; n++) {
        const int64_t row = n - from->n_begin;
        memcpy(to + (uint64_t)n * words, from->qweight + row * from->qweight_stride,
               words * sizeof *to);
        memcpy(scales + (uint64_t)n * groups,
               (const uint16_t *)from->scales + row * from->scale_stride, groups * sizeof *scales);
    }
    return KRY_OK;
}

/* ---- the product ----------------------------------------------------------------------- */

enum { ROWS_PER_TASK = 16 };

struct work {
    const kry_binding *binding;
    const kry_apply_args *args;
};

/* One element of y, without the bias: a row of x times the weights of output feature n. */
static float product(const kry_linear *linear, const void *prepared, int64_t n, const uint16_t *x) {
    const uint32_t *words = (const uint32_t *)prepared + (uint64_t)n * row_words(linear);
    const uint16_t *scales = (const uint16_t *)((const uint8_t *)prepared + weights_bytes(linear)) +
                             (uint64_t)n * (uint64_t)kry_linear_groups(linear);
    const int64_t size = linear->group_size > 0 ? linear->group_size : linear->in_features;
    /* The first group is a part of one where the partition starts inside. */
    int64_t end = linear->group_size > 0 ? size - linear->k_offset % size : size;
    float sum = 0;
    for (int64_t k = 0; k < linear->in_features; end += size) {
        float scale = float_of_bf16(*scales++);
        for (; k < end && k < linear->in_features; k++) {
            int32_t code = (int32_t)(words[k / 8] >> (k % 8 * 4) & 15);
            sum += float_of_bf16(x[k]) * ((float)(code - 8) * scale);
        }
    }
    return sum;
}

/* The index-th block of output features, for all rows of x. */
static void apply_block(void *argument, int64_t index) {
    const struct work *work = argument;
    const kry_linear *linear = work->binding->linear;
    const kry_apply_args *args = work->args;
    const uint16_t *x = args->x, *bias = args->bias;
    uint16_t *y = args->y;
    int64_t end = (index + 1) * ROWS_PER_TASK;
    if (end > linear->out_features)
        end = linear->out_features;
    for (int64_t n = index * ROWS_PER_TASK; n < end; n++)
        for (int64_t m = 0; m < args->m; m++) {
            float value = product(linear, work->binding->prepared, n, x + m * args->x_stride);
            if (bias != NULL)
                value += float_of_bf16(bias[n]);
            y[m * args->y_stride + n] = bf16_of_float(value);
        }
}

/* On the host's threads, where it brings some. */
static kry_status apply(const kry_binding *binding, const kry_apply_args *args) {
    struct work work = {.binding = binding, .args = args};
    int64_t blocks = (binding->linear->out_features + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
    kry_parallel_for(args->host, blocks, apply_block, &work);
    return KRY_OK;
}

/* ---- the tables ------------------------------------------------------------------------ */

static const kry_linear_kernel linear = {
    .struct_size = sizeof(kry_linear_kernel),
    .can_implement = can_implement,
    .sizes = sizes,
    .prepare_weights = prepare_weights,
    .apply = apply,
};

static const kry_kernel kernel = {
    .struct_size = sizeof(kry_kernel),
    .name = "my_plugin",
    .summary = "4-bit weights and bf16, in plain C",
    .platform = "cpu",
    .operation = KRY_OPERATION_LINEAR,
    .layout_name = "my_plugin.rows",
    .layout_version = 1,
    .flags = KRY_KERNEL_DETERMINISTIC | KRY_KERNEL_BATCH_INVARIANT,
    .linear = &linear,
};

static const kry_kernel *const kernels[] = {&kernel};

static const kry_plugin plugin = {
    .struct_size = sizeof(kry_plugin),
    .name = "my_plugin",
    .kernels = kernels,
    .kernel_count = 1,
};

/* The priority says who is asked first: built-in kernels have 100, 300 and 600. At 50 this one is
 * asked after all but the fallback. */
KRY_PLUGIN(my_plugin, "0.1.0", &plugin, 0, KRY_PLATFORM("cpu", 50));
