/*
 * A third party's plugin: one kernel, for one shape, ranked above all that come with Kernelry.
 *
 * The shape is Gemma's down_proj: K = 2112, N = 2816, 4-bit symmetric weights in groups of 32,
 * bf16 everywhere. Everything else is refused, each time with the code and the numbers that
 * let Kernelry word the reason, and goes to the kernels that rank below.
 *
 * Layout       "gemma_down.rows" 1: one signed byte a weight, [N][K], the bias of 8 taken off;
 *              behind them the scales as f32, [N][G].
 * Numerics     products and sums in f32, 16 partial sums a group, one rounding at the store.
 * Workspace    x as f32, [m][K].
 */
#include <kernelry/plugin.h>

#include <string.h>

enum { K = 2112, N = 2816, GROUP = 32, G = K / GROUP, LANES = 16, ROWS_PER_TASK = 64 };

static inline size_t weight_place(int64_t n, int64_t k) { return (size_t)(n * K + k); }

static inline size_t scale_place(int64_t n, int64_t g) {
    return (size_t)N * K + (size_t)(n * G + g) * sizeof(float);
}

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

static int64_t can_implement(const kry_device *device, const kry_linear *linear,
                             kry_refusal *refusal) {
    const int64_t bf16_bit = 1 << KRY_TYPE_BF16;
    (void)device; /* plain C: any processor does */
    if (linear->in_features != K)
        return kry_refuse(refusal, KRY_REFUSAL_SIZE, linear->in_features, K,
                          "gemma_down serves in_features 2112 alone");
    if (linear->out_features != N)
        return kry_refuse(refusal, KRY_REFUSAL_SIZE, linear->out_features, N,
                          "gemma_down serves out_features 2816 alone");
    if (linear->weight_type != KRY_WEIGHT_U4B8)
        return kry_refuse(refusal, KRY_REFUSAL_WEIGHT_TYPE, linear->weight_type,
                          1 << KRY_WEIGHT_U4B8, NULL);
    if (linear->group_size != GROUP)
        return kry_refuse(refusal, KRY_REFUSAL_GROUP_SIZE, linear->group_size, GROUP, NULL);
    if (linear->k_offset % GROUP != 0)
        return kry_refuse(refusal, KRY_REFUSAL_PARTITION, linear->k_offset % GROUP, 0, NULL);
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

static kry_status sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    (void)device;
    (void)linear;
    out->prepared_bytes = scale_place(N, 0);
    out->prepare_scratch_bytes = 0;
    out->bound_bytes = 0;
    out->prepare_multiple = 1;
    return KRY_OK;
}

static kry_status workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                            kry_workspace *out) {
    uint64_t bytes;
    (void)device;
    (void)linear;
    if (__builtin_mul_overflow(m, K * (int64_t)sizeof(float), &bytes))
        return KRY_E_ARGUMENT;
    out->scratch_bytes = bytes;
    out->zeroed_bytes = 0;
    return KRY_OK;
}

static kry_status prepare_weights(const kry_prepare_call *call) {
    const kry_canonical *weights = call->weights;
    const uint16_t *scales = weights->scales;
    uint8_t *prepared = call->prepared;
    for (int64_t n = weights->n_begin; n < weights->n_end; n++) {
        const int64_t row = n - weights->n_begin;
        const uint32_t *words = weights->qweight + row * weights->qweight_stride;
        for (int64_t k = 0; k < K; k++) {
            uint32_t code = words[k / 8] >> (k % 8 * 4) & 15;
            prepared[weight_place(n, k)] = (uint8_t)(code - 8);
        }
        for (int64_t g = 0; g < G; g++) {
            float scale = float_of_bf16(scales[row * weights->scale_stride + g]);
            memcpy(prepared + scale_place(n, g), &scale, sizeof scale);
        }
    }
    return KRY_OK;
}

/* One element of y. Partial sums side by side let a compiler use vectors without being allowed
 * to reorder sums, so the result is the same for every compiler, thread count and m. */
static float product(const uint8_t *prepared, int64_t n, const float *x) {
    const int8_t *weights = (const int8_t *)prepared + weight_place(n, 0);
    float total = 0;
    for (int64_t g = 0; g < G; g++) {
        float lanes[LANES] = {0};
        float scale;
        float sum = 0;
        for (int64_t k = g * GROUP; k < (g + 1) * GROUP; k += LANES)
            for (int64_t lane = 0; lane < LANES; lane++)
                lanes[lane] += (float)weights[k + lane] * x[k + lane];
        for (int64_t lane = 0; lane < LANES; lane++)
            sum += lanes[lane];
        memcpy(&scale, prepared + scale_place(n, g), sizeof scale);
        total += scale * sum;
    }
    return total;
}

struct work {
    const uint8_t *prepared;
    const kry_apply_args *args;
    const float *x;
};

/* The index-th block of output features, for all rows of x. */
static void apply_block(void *argument, int64_t index) {
    const struct work *work = argument;
    uint16_t *y = work->args->y;
    const uint16_t *bias = work->args->bias;
    for (int64_t n = index * ROWS_PER_TASK; n < (index + 1) * ROWS_PER_TASK; n++)
        for (int64_t m = 0; m < work->args->m; m++) {
            float value = product(work->prepared, n, work->x + m * K);
            if (bias != NULL)
                value += float_of_bf16(bias[n]);
            y[m * work->args->y_stride + n] = bf16_of_float(value);
        }
}

static kry_status apply(const kry_binding *binding, const kry_apply_args *args) {
    const uint16_t *from = args->x;
    float *x = args->scratch;
    struct work work = {.prepared = binding->prepared, .args = args, .x = x};
    for (int64_t m = 0; m < args->m; m++)
        for (int64_t k = 0; k < K; k++)
            x[m * K + k] = float_of_bf16(from[m * args->x_stride + k]);
    kry_parallel_for(args->host, N / ROWS_PER_TASK, apply_block, &work);
    return KRY_OK;
}

_Static_assert(N % ROWS_PER_TASK == 0, "the last block would reach beyond y");
_Static_assert(GROUP % LANES == 0, "lanes would straddle groups");

static const kry_linear_kernel linear = {
    .struct_size = sizeof(kry_linear_kernel),
    .can_implement = can_implement,
    .sizes = sizes,
    .workspace = workspace,
    .prepare_weights = prepare_weights,
    .apply = apply,
};

static const kry_kernel kernel = {
    .struct_size = sizeof(kry_kernel),
    .name = "gemma_down",
    .summary = "Gemma's down_proj at 4 bits, groups of 32, bf16, in plain C",
    .platform = "cpu",
    .operation = KRY_OPERATION_LINEAR,
    .layout_name = "gemma_down.rows",
    .layout_version = 1,
    .flags = KRY_KERNEL_DETERMINISTIC | KRY_KERNEL_BATCH_INVARIANT,
    .linear = &linear,
};

static const kry_kernel *const kernels[] = {&kernel};

static const kry_plugin plugin = {
    .struct_size = sizeof(kry_plugin),
    .name = "gemma_down",
    .kernels = kernels,
    .kernel_count = 1,
};

KRY_PLUGIN(gemma_down, "1.0.0", &plugin, 0, KRY_PLATFORM("cpu", 700));
