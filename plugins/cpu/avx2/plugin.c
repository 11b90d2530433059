/*
 * The AVX2 plugin: float activations in f32; int8 activations where they are wanted or allowed,
 * in byte dot products where the processor has them.
 */
#include "../tiled/plugin.h"
#include "kernels.h"

static int64_t avx2_f32_can_implement(const kry_device *device, const kry_linear *linear,
                                      kry_refusal *refusal) {
    return tiled_float_can_implement(device, linear, KRY_CPU_AVX2, refusal);
}

static int64_t avx2_int8_can_implement(const kry_device *device, const kry_linear *linear,
                                       kry_refusal *refusal) {
    return tiled_int8_can_implement(device, linear, KRY_CPU_AVX2, refusal);
}

static int64_t avx2_vnni_can_implement(const kry_device *device, const kry_linear *linear,
                                       kry_refusal *refusal) {
    return tiled_int8_can_implement(device, linear, KRY_CPU_AVX2 | KRY_CPU_AVX_VNNI, refusal);
}

TILED_KERNEL(avx2_f32, 0, "float activations, products and sums in f32, any shape");
TILED_KERNEL(avx2_int8, KRY_KERNEL_INT8_ACTIVATIONS, "int8 activations a token, any shape");
TILED_KERNEL(avx2_vnni, KRY_KERNEL_INT8_ACTIVATIONS,
             "int8 activations a token, AVX-VNNI, any shape");

static const kry_kernel *const kernels[] = {&avx2_vnni_kernel, &avx2_int8_kernel, &avx2_f32_kernel};

static const kry_plugin plugin = {.struct_size = sizeof(kry_plugin),
                                  .name = "cpu_avx2",
                                  .kernels = kernels,
                                  .kernel_count = sizeof kernels / sizeof kernels[0]};

/* Below cpu_avx512's 300: where a processor has both, twice the registers of twice the width come
 * first. */
KRY_PLUGIN(cpu_avx2, KERNELRY_VERSION, &plugin, KRY_CPU_AVX2, KRY_PLATFORM("cpu", 200));
