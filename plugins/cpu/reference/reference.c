/*
 * The reference plugin: the oracle that other kernels are held against, and the CPU's fallback.
 * It takes every description that types.h allows, as long as its buffer can be addressed.
 * Here is the table, with preparing; apply.c computes.
 */
#include "reference.h"
#include "layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[200];

static const char *error_message(void) { return message; }

static int64_t can_implement(const kry_device *device, const kry_linear *linear,
                             kry_refusal *refusal) {
    (void)device;
    struct reference_layout layout;
    if (!reference_layout_of(linear, &layout))
        return kry_refuse(refusal, KRY_REFUSAL_SIZE, linear->out_features, 0,
                          "the weights would take more bytes than can be addressed");
    return KRY_ACCEPTED;
}

/* Lay out a description, or tell why not. */
static kry_status lay_out(const kry_linear *linear, struct reference_layout *out) {
    if (reference_layout_of(linear, out))
        return KRY_OK;
    snprintf(message, sizeof(message),
             "weights of %" PRId64 " x %" PRId64 " in groups of %" PRId64
             " take more bytes than can be addressed",
             linear->in_features, linear->out_features, linear->group_size);
    return KRY_E_ARGUMENT;
}

static kry_status sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    (void)device;
    struct reference_layout layout;
    kry_status status = lay_out(linear, &layout);
    if (status != KRY_OK)
        return status;
    out->prepared_bytes = layout.bytes;
    out->prepare_scratch_bytes = 0;
    out->bound_bytes = 0;
    out->prepare_multiple = 1;
    return KRY_OK;
}

/* Copy row number `from` of the range to its place. */
static void prepare_row(const struct reference_layout *layout, const kry_linear *linear,
                        const kry_canonical *weights, int64_t from, unsigned char *row) {
    memcpy(row, weights->qweight + from * weights->qweight_stride, layout->scales_at);
    uint32_t used = (uint32_t)((uint64_t)linear->in_features % layout->per_word) * layout->bits;
    if (used != 0) { /* bits past K may hold anything: clear them */
        unsigned char *last_at = row + layout->scales_at - sizeof(uint32_t);
        uint32_t last;
        memcpy(&last, last_at, sizeof(last));
        last &= (UINT32_C(1) << used) - 1;
        memcpy(last_at, &last, sizeof(last));
    }

    int64_t scale_bytes = (int64_t)kry_type_bytes(linear->scale_type);
    const unsigned char *scales = weights->scales;
    memcpy(row + layout->scales_at, scales + from * weights->scale_stride * scale_bytes,
           layout->zero_points_at - layout->scales_at);

    uint64_t end = layout->zero_points_at;
    if (kry_weight_has_zero_points(linear->weight_type)) {
        memcpy(row + end, weights->zero_points + from * weights->zero_stride, layout->groups);
        end += layout->groups;
    }
    memset(row + end, 0, layout->row_bytes - end);
}

static kry_status prepare_weights(const kry_prepare_call *call) {
    const kry_linear *linear = call->linear;
    const kry_canonical *weights = call->weights;
    struct reference_layout layout;
    kry_status status = lay_out(linear, &layout);
    if (status != KRY_OK)
        return status;
    if (weights->n_begin < 0 || weights->n_begin > weights->n_end ||
        weights->n_end > linear->out_features) {
        snprintf(message, sizeof(message),
                 "weights of output features %" PRId64 " to %" PRId64 ", expected a part of 0 to "
                 "%" PRId64,
                 weights->n_begin, weights->n_end, linear->out_features);
        return KRY_E_ARGUMENT;
    }

    unsigned char *prepared = call->prepared;
    /* Group numbers belong to all rows: the range with the first row brings them. */
    if (linear->act_order && weights->n_begin == 0)
        memcpy(prepared, weights->g_idx, layout.rows_at);
    for (int64_t n = weights->n_begin; n < weights->n_end; n++)
        prepare_row(&layout, linear, weights, n - weights->n_begin,
                    prepared + reference_row_at(&layout, n));
    return KRY_OK;
}

static const kry_linear_kernel linear_kernel = {
    .struct_size = sizeof(kry_linear_kernel),
    .can_implement = can_implement,
    .sizes = sizes,
    .workspace = reference_workspace,
    .prepare_weights = prepare_weights,
    .apply = reference_apply,
};

static const kry_kernel kernel = {
    .struct_size = sizeof(kry_kernel),
    .name = "reference",
    .summary = "plain C for every description: rows dequantized once, sums in double",
    .platform = "cpu",
    .operation = KRY_OPERATION_LINEAR,
    .layout_name = REFERENCE_LAYOUT_NAME,
    .layout_version = REFERENCE_LAYOUT_VERSION,
    .flags = KRY_KERNEL_DETERMINISTIC | KRY_KERNEL_BATCH_INVARIANT,
    .features = KRY_FEATURES_NONE,
    .linear = &linear_kernel,
};

static const kry_kernel *const kernels[] = {&kernel};

static const kry_plugin plugin = {
    .struct_size = sizeof(kry_plugin),
    .name = "cpu_reference",
    .kernels = kernels,
    .kernel_count = 1,
    .error_message = error_message,
};

KRY_PLUGIN(cpu_reference, KERNELRY_VERSION, &plugin, 0, KRY_PLATFORM_FALLBACK("cpu", 100));
