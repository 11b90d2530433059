/*
 * The GPU plugin: one kernel for whatever no tuned kernel takes, on CUDA the fallback, on ROCm an
 * ordinary plugin; and the operations of both platforms.
 */
#include "kernel.h"
#include "message.h"

#define KERNEL_OF(platform_name)                                                                   \
    {                                                                                              \
        .struct_size = sizeof(kry_kernel), .name = "portable",                                     \
        .summary = "any shape, any groups, act-order; f16 and bf16 activations as they are",       \
        .platform = (platform_name), .operation = KRY_OPERATION_LINEAR,                            \
        .layout_name = GPU_LAYOUT_NAME, .layout_version = GPU_LAYOUT_VERSION,                      \
        .flags = KRY_KERNEL_DETERMINISTIC, .features = KRY_FEATURES_NONE,                          \
        .linear = &gpu_linear_kernel                                                               \
    }

static const kry_kernel cuda_kernel = KERNEL_OF("cuda");
static const kry_kernel rocm_kernel = KERNEL_OF("rocm");
static const kry_kernel *const kernels[] = {&cuda_kernel, &rocm_kernel};
static const kry_platform *const platforms[] = {&gpu_platform_cuda, &gpu_platform_rocm};

static const kry_plugin plugin = {.struct_size = sizeof(kry_plugin),
                                  .name = "gpu",
                                  .kernels = kernels,
                                  .kernel_count = sizeof kernels / sizeof kernels[0],
                                  .platforms = platforms,
                                  .platform_count = sizeof platforms / sizeof platforms[0],
                                  .error_message = gpu_error_message};

KRY_PLUGIN(gpu, KERNELRY_VERSION, &plugin, 0, KRY_PLATFORM_FALLBACK("cuda", 100),
           KRY_PLATFORM("rocm", 100));
