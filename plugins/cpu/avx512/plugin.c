/*
 * The AVX-512 plugin: float activations in f32 or, for bf16 and f16 activations where the processor
 * has the instructions, in exact bf16 dot products; int8 activations where they are wanted or
 * allowed.
 */
#include "../tiled/plugin.h"
#include "kernels.h"

static int64_t avx512_f32_can_implement(const kry_device *device, const kry_linear *linear,
                                        kry_refusal *refusal) {
    return tiled_float_can_implement(device, linear, KRY_CPU_AVX512, refusal);
}

static int64_t avx512_bf16_can_implement(const kry_device *device, const kry_linear *linear,
                                         kry_refusal *refusal) {
    return tiled_dot_can_implement(device, linear, KRY_CPU_AVX512 | KRY_CPU_AVX512_BF16,
                                   KRY_TYPE_BF16, refusal);
}

static int64_t avx512_bf16x2_can_implement(const kry_device *device, const kry_linear *linear,
                                           kry_refusal *refusal) {
    return tiled_dot_can_implement(device, linear, KRY_CPU_AVX512 | KRY_CPU_AVX512_BF16,
                                   KRY_TYPE_F16, refusal);
}

static int64_t avx512_int8_can_implement(const kry_device *device, const kry_linear *linear,
                                         kry_refusal *refusal) {
    return tiled_int8_can_implement(device, linear, KRY_CPU_AVX512 | KRY_CPU_AVX512_VNNI, refusal);
}

TILED_KERNEL(avx512_int8, KRY_KERNEL_INT8_ACTIVATIONS, "int8 activations a token, VNNI, any shape");
TILED_KERNEL(avx512_bf16, 0, "bf16 activations in bf16 dot products, 4-bit weights, any shape");
TILED_KERNEL(avx512_bf16x2, 0, "f16 activations as exact pairs of bf16, 4-bit weights, any shape");
TILED_KERNEL(avx512_f32, 0, "float activations, products and sums in f32, any shape");

static const kry_kernel *const kernels[] = {&avx512_int8_kernel, &avx512_bf16_kernel,
                                            &avx512_bf16x2_kernel, &avx512_f32_kernel};

static const kry_plugin plugin = {.struct_size = sizeof(kry_plugin),
                                  .name = "cpu_avx512",
                                  .kernels = kernels,
                                  .kernel_count = sizeof kernels / sizeof kernels[0]};

KRY_PLUGIN(cpu_avx512, KERNELRY_VERSION, &plugin, KRY_CPU_AVX512, KRY_PLATFORM("cpu", 300));
