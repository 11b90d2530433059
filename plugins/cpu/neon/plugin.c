/*
 * The NEON plugin: float activations in f32 or, for bf16 activations where the processor has the
 * instructions, in bf16 dot products; int8 activations where they are wanted or allowed and the
 * processor has byte dot products.
 */
#include "../tiled/plugin.h"
#include "kernels.h"

static int64_t neon_f32_can_implement(const kry_device *device, const kry_linear *linear,
                                      kry_refusal *refusal) {
    return tiled_float_can_implement(device, linear, KRY_CPU_NEON, refusal);
}

static int64_t neon_bf16_can_implement(const kry_device *device, const kry_linear *linear,
                                       kry_refusal *refusal) {
    return tiled_dot_can_implement(device, linear, KRY_CPU_NEON | KRY_CPU_NEON_BF16, KRY_TYPE_BF16,
                                   refusal);
}

static int64_t neon_int8_can_implement(const kry_device *device, const kry_linear *linear,
                                       kry_refusal *refusal) {
    return tiled_int8_can_implement(device, linear, KRY_CPU_NEON | KRY_CPU_NEON_DOTPROD, refusal);
}

static int64_t neon_i8mm_can_implement(const kry_device *device, const kry_linear *linear,
                                       kry_refusal *refusal) {
    return tiled_int8_can_implement(device, linear, KRY_CPU_NEON | KRY_CPU_NEON_I8MM, refusal);
}

TILED_KERNEL(neon_f32, 0, "float activations, products and sums in f32, any shape");
TILED_KERNEL(neon_bf16, 0, "bf16 activations in bf16 dot products, 4-bit weights, any shape");
TILED_KERNEL(neon_int8, KRY_KERNEL_INT8_ACTIVATIONS,
             "int8 activations a token, dot products, any shape");
TILED_KERNEL(neon_i8mm, KRY_KERNEL_INT8_ACTIVATIONS,
             "int8 activations a token, matrix products, any shape");

static const kry_kernel *const kernels[] = {&neon_i8mm_kernel, &neon_int8_kernel, &neon_bf16_kernel,
                                            &neon_f32_kernel};

static const kry_plugin plugin = {.struct_size = sizeof(kry_plugin),
                                  .name = "cpu_neon",
                                  .kernels = kernels,
                                  .kernel_count = sizeof kernels / sizeof kernels[0]};

KRY_PLUGIN(cpu_neon, KERNELRY_VERSION, &plugin, KRY_CPU_NEON, KRY_PLATFORM("cpu", 300));
