/*
 * The AVX-512 plugin: float activations in f32 or, for bf16 activations where the processor has
 * the instructions, in bf16 dot products; int8 activations where they are wanted or allowed.
 */
#include "kernels.h"

#include <stdbool.h>

static int64_t has_features(const kry_device *device, uint64_t needed, kry_refusal *refusal) {
    if ((device->cpu_features & needed) == needed)
        return KRY_ACCEPTED;
    return kry_refuse(refusal, KRY_REFUSAL_CPU_FEATURE, (int64_t)(device->cpu_features & needed),
                      (int64_t)needed, NULL);
}

static int64_t refuse_quantized(const kry_linear *linear, kry_refusal *refusal) {
    return kry_refuse(refusal, KRY_REFUSAL_ACTIVATION_QUANTIZATION, linear->activation_quantization,
                      1 << KRY_ACTIVATION_NONE,
                      "the model wants quantized activations, this kernel keeps them as they are");
}

static int64_t f32_can_implement(const kry_device *device, const kry_linear *linear,
                                 kry_refusal *refusal) {
    if (has_features(device, KRY_CPU_AVX512, refusal) != KRY_ACCEPTED)
        return KRY_REFUSED;
    if (linear->activation_quantization != KRY_ACTIVATION_NONE)
        return refuse_quantized(linear, refusal);
    return tiled_can_implement(linear, refusal);
}

static int64_t bf16_can_implement(const kry_device *device, const kry_linear *linear,
                                  kry_refusal *refusal) {
    if (has_features(device, KRY_CPU_AVX512 | KRY_CPU_AVX512_BF16, refusal) != KRY_ACCEPTED)
        return KRY_REFUSED;
    if (linear->activation_quantization != KRY_ACTIVATION_NONE)
        return refuse_quantized(linear, refusal);
    if (linear->x_type != KRY_TYPE_BF16)
        return kry_refuse(refusal, KRY_REFUSAL_X_TYPE, linear->x_type, 1 << KRY_TYPE_BF16, NULL);
    if (kry_weight_bits(linear->weight_type) != 4)
        return kry_refuse(refusal, KRY_REFUSAL_WEIGHT_TYPE, linear->weight_type,
                          1 << KRY_WEIGHT_U4B8 | 1 << KRY_WEIGHT_U4, NULL);
    return tiled_can_implement(linear, refusal);
}

static int64_t int8_can_implement(const kry_device *device, const kry_linear *linear,
                                  kry_refusal *refusal) {
    if (has_features(device, KRY_CPU_AVX512 | KRY_CPU_AVX512_VNNI, refusal) != KRY_ACCEPTED)
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

#define WORKSPACE_AND_APPLY(CLASS)                                                                 \
    static kry_status CLASS##_workspace(const kry_device *device, const kry_linear *linear,        \
                                        int64_t m, kry_workspace *out) {                           \
        (void)device;                                                                              \
        out->scratch_bytes = tiled_scratch(&avx512_##CLASS, linear, m);                            \
        out->zeroed_bytes = 0;                                                                     \
        return KRY_OK;                                                                             \
    }                                                                                              \
    static kry_status CLASS##_apply(const kry_binding *binding, const kry_apply_args *args) {      \
        return tiled_apply(&avx512_##CLASS, binding, args);                                        \
    }                                                                                              \
    static const kry_linear_kernel CLASS##_functions = {.struct_size = sizeof(kry_linear_kernel),  \
                                                        .can_implement = CLASS##_can_implement,    \
                                                        .sizes = tiled_sizes,                      \
                                                        .workspace = CLASS##_workspace,            \
                                                        .prepare_weights = tiled_prepare,          \
                                                        .bind = tiled_bind,                        \
                                                        .apply = CLASS##_apply};

WORKSPACE_AND_APPLY(f32)
WORKSPACE_AND_APPLY(bf16)
WORKSPACE_AND_APPLY(int8)

static const kry_kernel int8_kernel = {
    .struct_size = sizeof(kry_kernel),
    .name = "avx512_int8",
    .summary = "int8 activations a token, VNNI, any shape",
    .platform = "cpu",
    .operation = KRY_OPERATION_LINEAR,
    .layout_name = TILED_LAYOUT_NAME,
    .layout_version = TILED_LAYOUT_VERSION,
    .flags = KRY_KERNEL_DETERMINISTIC | KRY_KERNEL_BATCH_INVARIANT | KRY_KERNEL_INT8_ACTIVATIONS,
    .linear = &int8_functions};

static const kry_kernel bf16_kernel = {
    .struct_size = sizeof(kry_kernel),
    .name = "avx512_bf16",
    .summary = "bf16 activations in bf16 dot products, 4-bit weights, any shape",
    .platform = "cpu",
    .operation = KRY_OPERATION_LINEAR,
    .layout_name = TILED_LAYOUT_NAME,
    .layout_version = TILED_LAYOUT_VERSION,
    .flags = KRY_KERNEL_DETERMINISTIC | KRY_KERNEL_BATCH_INVARIANT,
    .linear = &bf16_functions};

static const kry_kernel f32_kernel = {
    .struct_size = sizeof(kry_kernel),
    .name = "avx512_f32",
    .summary = "float activations, products and sums in f32, any shape",
    .platform = "cpu",
    .operation = KRY_OPERATION_LINEAR,
    .layout_name = TILED_LAYOUT_NAME,
    .layout_version = TILED_LAYOUT_VERSION,
    .flags = KRY_KERNEL_DETERMINISTIC | KRY_KERNEL_BATCH_INVARIANT,
    .linear = &f32_functions};

static const kry_kernel *const kernels[] = {&int8_kernel, &bf16_kernel, &f32_kernel};

static const kry_plugin plugin = {.struct_size = sizeof(kry_plugin),
                                  .name = "cpu_avx512",
                                  .kernels = kernels,
                                  .kernel_count = sizeof kernels / sizeof kernels[0]};

KRY_PLUGIN(cpu_avx512, KERNELRY_VERSION, &plugin, KRY_CPU_AVX512, KRY_PLATFORM("cpu", 300));
