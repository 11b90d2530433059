/*
 * A plugin for Kernelry with one kernel in CUDA: right, slow, and a place to begin.
 *
 * Takes        4-bit weights without zero points, bf16 everywhere; any K, any N, any groups,
 *              partitions that start inside a group.
 * Layout       device.h
 * Numerics     device.cu
 * Workspace    none.
 *
 * Here is what the host does. What can_implement, sizes and prepare_weights of host memory call
 * needs no device: they answer and prepare for one that is not here.
 */
#include "device.h"

#include <string.h>

static struct shape shape_of(const kry_linear *linear) {
    int64_t group_size = linear->group_size > 0 ? linear->group_size : linear->in_features;
    return (struct shape){.k = linear->in_features,
                          .n = linear->out_features,
                          .words = (linear->in_features + 7) / 8,
                          .groups = kry_linear_groups(linear),
                          .group_size = group_size,
                          .before = linear->group_size > 0 ? linear->k_offset % group_size : 0};
}

/* ---- what it takes --------------------------------------------------------------------- */

/* @cuda */
/* Code of one architecture, and for later ones PTX, which the driver compiles. */
static int64_t has_code_for(const kry_device *device, kry_refusal *refusal) {
    if (device->arch_number < ARCHITECTURE)
        return kry_refuse(refusal, KRY_REFUSAL_CAPABILITY, device->arch_number, ARCHITECTURE, NULL);
    return KRY_ACCEPTED;
}
/* @hip */
/* Code of these architectures and no others: AMD's do not run each other's. */
static int64_t has_code_for(const kry_device *device, kry_refusal *refusal) {
    size_t length = strlen(device->arch);
    for (const char *at = ARCHITECTURES; (at = strstr(at, device->arch)) != NULL; at += length)
        if (length > 0 && (at[length] == ';' || at[length] == '\0'))
            return KRY_ACCEPTED;
    return kry_refuse(refusal, KRY_REFUSAL_DEPENDENCY, 0, 1, "built for " ARCHITECTURES);
}
/* @both */

/* Whatever is not right is refused: with a code, what was found, and what would do. */
static int64_t can_implement(const kry_device *device, const kry_linear *linear,
                             kry_refusal *refusal) {
    const int64_t bf16_bit = 1 << KRY_TYPE_BF16;
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
    return has_code_for(device, refusal);
}

/* ---- weights --------------------------------------------------------------------------- */

static kry_status sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    struct shape shape = shape_of(linear);
    (void)device;
    out->prepared_bytes = (uint64_t)shape.n * ((uint64_t)shape.words * sizeof(uint32_t) +
                                               (uint64_t)shape.groups * sizeof(uint16_t));
    out->prepare_scratch_bytes = 0;
    out->bound_bytes = 0;
    out->prepare_multiple = 1;
    return KRY_OK;
}

/* All of it lies on the host, or all of it on the device. */
static kry_status prepare_weights(const kry_prepare_call *call) {
    const kry_canonical *from = call->weights;
    struct shape shape = shape_of(call->linear);
    if (from->memory == KRY_MEMORY_DEVICE)
        return device_prepare(call->device->ordinal, &shape, from, call->prepared, call->stream);
    for (int64_t n = from->n_begin; n < from->n_end; n++)
        prepare_feature(&shape, from, n, call->prepared);
    return KRY_OK;
}

/* ---- the device ------------------------------------------------------------------------ */

static kry_status open_device(const kry_device *device, const kry_host *host, void **state) {
    (void)host;
    *state = NULL; /* code is all that this kernel needs there */
    return device_open(device->ordinal);
}

static kry_status apply(const kry_binding *binding, const kry_apply_args *args) {
    struct shape shape = shape_of(binding->linear);
    return device_apply(binding->device->ordinal, &shape, binding->prepared, args);
}

/* ---- the tables ------------------------------------------------------------------------ */

static const kry_linear_kernel linear = {
    .struct_size = sizeof(kry_linear_kernel),
    .can_implement = can_implement,
    .sizes = sizes,
    .prepare_weights = prepare_weights,
    .open_device = open_device,
    .apply = apply,
};

static const kry_kernel kernel = {
    .struct_size = sizeof(kry_kernel),
    .name = "my_plugin",
    .summary = "4-bit weights and bf16, an element of y a thread",
    .platform = "cuda",
    .operation = KRY_OPERATION_LINEAR,
    .layout_name = "my_plugin.columns",
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
    .error_message = device_error,
};

/* The priority says who is asked first: built-in kernels have 100, 300 and 600. At 50 this one is
 * asked after all but the fallback. */
KRY_PLUGIN(my_plugin, "0.1.0", &plugin, 0, KRY_PLATFORM("cuda", 50));
