/*
 * What the plugins with tiled kernels say alike: what a kernel takes, and its table.
 */
#ifndef KERNELRY_TILED_PLUGIN_H
#define KERNELRY_TILED_PLUGIN_H

#include "tiled.h"

#include <stdbool.h>

/* Refuse a device that lacks a feature. */
static inline int64_t tiled_needs(const kry_device *device, uint64_t needed, kry_refusal *refusal) {
    if ((device->cpu_features & needed) == needed)
        return KRY_ACCEPTED;
    return kry_refuse(refusal, KRY_REFUSAL_CPU_FEATURE, (int64_t)(device->cpu_features & needed),
                      (int64_t)needed, NULL);
}

/* What a kernel takes that leaves activations as they are. */
static inline int64_t tiled_float_can_implement(const kry_device *device, const kry_linear *linear,
                                                uint64_t needed, kry_refusal *refusal) {
    if (tiled_needs(device, needed, refusal) != KRY_ACCEPTED)
        return KRY_REFUSED;
    if (linear->activation_quantization != KRY_ACTIVATION_NONE)
        return kry_refuse(
            refusal, KRY_REFUSAL_ACTIVATION_QUANTIZATION, linear->activation_quantization,
            1 << KRY_ACTIVATION_NONE,
            "the model wants quantized activations, this kernel keeps them as they are");
    return tiled_can_implement(linear, refusal);
}

/* What a kernel takes that multiplies one type of x. */
static inline int64_t tiled_typed_can_implement(const kry_device *device, const kry_linear *linear,
                                                uint64_t needed, uint32_t x_type,
                                                kry_refusal *refusal) {
    int64_t answer = tiled_float_can_implement(device, linear, needed, refusal);
    if (answer != KRY_REFUSED && linear->x_type != x_type)
        return kry_refuse(refusal, KRY_REFUSAL_X_TYPE, linear->x_type, INT64_C(1) << x_type, NULL);
    return answer;
}

/* What a kernel takes that multiplies 4-bit weights and one type of x in bf16 dot products. */
static inline int64_t tiled_dot_can_implement(const kry_device *device, const kry_linear *linear,
                                              uint64_t needed, uint32_t x_type,
                                              kry_refusal *refusal) {
    int64_t answer = tiled_typed_can_implement(device, linear, needed, x_type, refusal);
    if (answer != KRY_REFUSED && kry_weight_bits(linear->weight_type) != 4)
        return kry_refuse(refusal, KRY_REFUSAL_WEIGHT_TYPE, linear->weight_type,
                          1 << KRY_WEIGHT_U4B8 | 1 << KRY_WEIGHT_U4, NULL);
    return answer;
}

/* What a kernel takes that quantizes activations to int8. */
static inline int64_t tiled_int8_can_implement(const kry_device *device, const kry_linear *linear,
                                               uint64_t needed, kry_refusal *refusal) {
    if (tiled_needs(device, needed, refusal) != KRY_ACCEPTED)
        return KRY_REFUSED;
    bool wanted = linear->activation_quantization == KRY_ACTIVATION_INT8_TOKEN;
    bool allowed = linear->activation_quantization == KRY_ACTIVATION_NONE &&
                   (linear->allowed & KRY_ALLOW_INT8_ACTIVATIONS);
    if (!wanted && !allowed)
        return kry_refuse(refusal, KRY_REFUSAL_ACTIVATION_QUANTIZATION,
                          linear->activation_quantization, 1 << KRY_ACTIVATION_INT8_TOKEN,
                          "int8 activations are neither what the model wants nor allowed");
    return tiled_can_implement(linear, refusal);
}

/* A plugin whose kernels must ask the system before they run defines it before this header. */
#ifndef TILED_OPEN_DEVICE
#define TILED_OPEN_DEVICE NULL
#endif

/**
 * Define NAME_kernel, the table of a kernel.
 *
 * name           as in decisions; its numeric class bears it, too; NAME_can_implement exists
 * kernel_flags   KRY_KERNEL_* beyond those that every tiled kernel has
 * sentence       the summary
 */
#define TILED_KERNEL(NAME, kernel_flags, sentence)                                                 \
    static kry_status NAME##_workspace(const kry_device *device, const kry_linear *linear,         \
                                       int64_t m, kry_workspace *out) {                            \
        (void)device;                                                                              \
        out->scratch_bytes = tiled_scratch(&(NAME), linear, m);                                    \
        out->zeroed_bytes = 0;                                                                     \
        return KRY_OK;                                                                             \
    }                                                                                              \
    static kry_status NAME##_apply(const kry_binding *binding, const kry_apply_args *args) {       \
        return tiled_apply(&(NAME), binding, args);                                                \
    }                                                                                              \
    static const kry_linear_kernel NAME##_functions = {.struct_size = sizeof(kry_linear_kernel),   \
                                                       .can_implement = NAME##_can_implement,      \
                                                       .sizes = tiled_sizes,                       \
                                                       .workspace = NAME##_workspace,              \
                                                       .prepare_weights = tiled_prepare,           \
                                                       .open_device = TILED_OPEN_DEVICE,           \
                                                       .bind = tiled_bind,                         \
                                                       .apply = NAME##_apply};                     \
    static const kry_kernel NAME##_kernel = {.struct_size = sizeof(kry_kernel),                    \
                                             .name = #NAME,                                        \
                                             .summary = (sentence),                                \
                                             .platform = "cpu",                                    \
                                             .operation = KRY_OPERATION_LINEAR,                    \
                                             .layout_name = TILED_LAYOUT_NAME,                     \
                                             .layout_version = TILED_LAYOUT_VERSION,               \
                                             .flags = KRY_KERNEL_DETERMINISTIC |                   \
                                                      KRY_KERNEL_BATCH_INVARIANT | (kernel_flags), \
                                             .linear = &NAME##_functions}

#endif
