/*
 * Kernels that compute in f32 and are wrong in one way each, for the tests of `kernelry run`:
 * what a trial does not notice, nobody will. "honest" is right.
 *
 * Layout: the weights, dequantized, f32 [N][K].
 */
#include <kernelry/plugin.h>

#include <math.h>
#include <stddef.h>

enum { ZEROED_BYTES = 64 };

static int64_t can_implement(const kry_device *device, const kry_linear *linear,
                             kry_refusal *refusal) {
    (void)device;
    if (linear->x_type != KRY_TYPE_F32 || linear->scale_type != KRY_TYPE_F32 || linear->act_order)
        return kry_refuse(refusal, KRY_REFUSAL_OTHER, 0, 0, "takes f32 alone");
    return KRY_ACCEPTED;
}

static kry_status tell_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    (void)device;
    out->prepared_bytes = (uint64_t)linear->out_features * (uint64_t)linear->in_features * 4;
    out->prepare_multiple = 1;
    return KRY_OK;
}

static kry_status tell_workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                                 kry_workspace *out) {
    (void)device;
    (void)linear;
    (void)m;
    out->zeroed_bytes = ZEROED_BYTES;
    return KRY_OK;
}

static kry_status prepare(const kry_prepare_call *call) {
    const kry_linear *linear = call->linear;
    const kry_canonical *weights = call->weights;
    int bits = kry_weight_bits(linear->weight_type), per_word = 32 / bits;
    float *prepared = call->prepared;
    for (int64_t n = weights->n_begin; n < weights->n_end; n++)
        for (int64_t k = 0; k < linear->in_features; k++) {
            int64_t row = n - weights->n_begin, g = kry_linear_group_of(linear, k);
            uint32_t word = weights->qweight[row * weights->qweight_stride + k / per_word];
            int code = (int)(word >> (k % per_word * bits) & ((1u << bits) - 1));
            int zero = weights->zero_points != NULL
                           ? weights->zero_points[row * weights->zero_stride + g]
                           : 1 << (bits - 1);
            float scale = ((const float *)weights->scales)[row * weights->scale_stride + g];
            prepared[n * linear->in_features + k] = (float)(code - zero) * scale;
        }
    return KRY_OK;
}

/* ---- honest, but for the columns and rows that a lie leaves out ----------------------- */

static kry_status multiply(const kry_binding *binding, const kry_apply_args *args, int64_t k_begin,
                           int64_t k_end, int64_t m) {
    const kry_linear *linear = binding->linear;
    const float *weights = binding->prepared, *x = args->x, *bias = args->bias;
    float *y = args->y;
    for (int64_t row = 0; row < m; row++)
        for (int64_t n = 0; n < linear->out_features; n++) {
            double sum = bias != NULL ? (double)bias[n] : 0;
            for (int64_t k = k_begin; k < k_end; k++)
                sum += (double)x[row * args->x_stride + k] *
                       (double)weights[n * linear->in_features + k];
            y[row * args->y_stride + n] = (float)sum;
        }
    return KRY_OK;
}

static kry_status honest(const kry_binding *binding, const kry_apply_args *args) {
    return multiply(binding, args, 0, binding->linear->in_features, args->m);
}

static kry_status loses_first_column(const kry_binding *binding, const kry_apply_args *args) {
    return multiply(binding, args, 1, binding->linear->in_features, args->m);
}

static kry_status loses_last_column(const kry_binding *binding, const kry_apply_args *args) {
    return multiply(binding, args, 0, binding->linear->in_features - 1, args->m);
}

static kry_status loses_last_row(const kry_binding *binding, const kry_apply_args *args) {
    return multiply(binding, args, 0, binding->linear->in_features, args->m - 1);
}

/* Multiplies what lies behind a row of x by 0: harmless, unless it is NaN. */
static kry_status reads_behind(const kry_binding *binding, const kry_apply_args *args) {
    kry_status status = honest(binding, args);
    const float *x = args->x;
    if (args->x_stride > binding->linear->in_features)
        *(float *)args->y += 0 * x[binding->linear->in_features];
    return status;
}

static kry_status writes_behind(const kry_binding *binding, const kry_apply_args *args) {
    kry_status status = honest(binding, args);
    if (args->y_stride > binding->linear->out_features)
        ((float *)args->y)[binding->linear->out_features] = 0;
    return status;
}

static kry_status leaves_dirt(const kry_binding *binding, const kry_apply_args *args) {
    ((unsigned char *)args->zeroed)[ZEROED_BYTES - 1] = 1;
    return honest(binding, args);
}

/* One output of many, off by a little: no norm shows it. */
static kry_status bends_a_weight(const kry_binding *binding, const kry_apply_args *args) {
    kry_status status = honest(binding, args);
    const float *x = args->x;
    float *y = args->y;
    int64_t n = binding->linear->out_features - 1;
    for (int64_t row = 0; row < args->m; row++)
        y[row * args->y_stride + n] +=
            x[row * args->x_stride] * ((const float *)binding->prepared)[0] * 1e-6f;
    return status;
}

static kry_status turns_nan(const kry_binding *binding, const kry_apply_args *args) {
    kry_status status = honest(binding, args);
    ((float *)args->y)[0] = NAN;
    return status;
}

/* Says yes, and fails. */
static kry_status fails(const kry_binding *binding, const kry_apply_args *args) {
    (void)binding;
    (void)args;
    return KRY_E_DEVICE;
}

#define KERNEL(function)                                                                           \
    static const kry_linear_kernel function##_functions = {.struct_size =                          \
                                                               sizeof(kry_linear_kernel),          \
                                                           .can_implement = can_implement,         \
                                                           .sizes = tell_sizes,                    \
                                                           .workspace = tell_workspace,            \
                                                           .prepare_weights = prepare,             \
                                                           .apply = (function)};                   \
    static const kry_kernel function##_kernel = {.struct_size = sizeof(kry_kernel),                \
                                                 .name = #function,                                \
                                                 .summary = "for tests",                           \
                                                 .platform = "cpu",                                \
                                                 .operation = KRY_OPERATION_LINEAR,                \
                                                 .layout_name = "dequantized",                     \
                                                 .layout_version = 1,                              \
                                                 .linear = &function##_functions}

KERNEL(honest);
KERNEL(loses_first_column);
KERNEL(loses_last_column);
KERNEL(loses_last_row);
KERNEL(reads_behind);
KERNEL(writes_behind);
KERNEL(leaves_dirt);
KERNEL(bends_a_weight);
KERNEL(turns_nan);
KERNEL(fails);

static const kry_kernel *const kernels[] = {
    &honest_kernel,         &loses_first_column_kernel, &loses_last_column_kernel,
    &loses_last_row_kernel, &reads_behind_kernel,       &writes_behind_kernel,
    &leaves_dirt_kernel,    &bends_a_weight_kernel,     &turns_nan_kernel,
    &fails_kernel,
};

static const kry_plugin plugin = {.struct_size = sizeof(kry_plugin),
                                  .name = "lying",
                                  .kernels = kernels,
                                  .kernel_count = sizeof kernels / sizeof kernels[0]};

KRY_PLUGIN(lying, "1", &plugin, 0, KRY_PLATFORM("cpu", 500));
