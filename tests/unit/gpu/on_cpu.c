/*
 * The GPU plugin's kernel as a plugin of the platform "cpu": for the conformance suite, which lends
 * kernels memory of the host, as the fake drivers do. Every call is passed on for a GPU of few
 * multiprocessors, which keeps grids small.
 */
#include "kernel.h"
#include "message.h"

static const kry_device gpu = {.struct_size = sizeof(kry_device),
                               .platform = ON_CPU_PLATFORM,
                               .arch = ON_CPU_ARCH,
                               .arch_number = ON_CPU_ARCH_NUMBER,
                               .multiprocessors = 4,
                               .warp_size = ON_CPU_WAVE,
                               .shared_memory_bytes = ON_CPU_SHARED};

static int64_t can_implement(const kry_device *device, const kry_linear *linear,
                             kry_refusal *refusal) {
    (void)device;
    return gpu_linear_kernel.can_implement(&gpu, linear, refusal);
}

static kry_status sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    (void)device;
    return gpu_linear_kernel.sizes(&gpu, linear, out);
}

static kry_status workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                            kry_workspace *out) {
    (void)device;
    return gpu_linear_kernel.workspace(&gpu, linear, m, out);
}

static kry_status prepare_weights(const kry_prepare_call *call) {
    kry_prepare_call passed = *call;
    passed.device = &gpu;
    return gpu_linear_kernel.prepare_weights(&passed);
}

static kry_status open_device(const kry_device *device, const kry_host *host, void **state) {
    (void)device;
    return gpu_linear_kernel.open_device(&gpu, host, state);
}

static kry_status bind(const kry_binding *binding) {
    kry_binding passed = *binding;
    passed.device = &gpu;
    return gpu_linear_kernel.bind(&passed);
}

static kry_status apply(const kry_binding *binding, const kry_apply_args *args) {
    kry_binding passed = *binding;
    passed.device = &gpu;
    return gpu_linear_kernel.apply(&passed, args);
}

static const kry_linear_kernel functions = {.struct_size = sizeof(kry_linear_kernel),
                                            .can_implement = can_implement,
                                            .sizes = sizes,
                                            .workspace = workspace,
                                            .prepare_weights = prepare_weights,
                                            .open_device = open_device,
                                            .bind = bind,
                                            .apply = apply};

static const kry_kernel kernel = {.struct_size = sizeof(kry_kernel),
                                  .name = "on_cpu",
                                  .summary = "the GPU kernel on a CPU, for tests",
                                  .platform = "cpu",
                                  .operation = KRY_OPERATION_LINEAR,
                                  .layout_name = GPU_LAYOUT_NAME,
                                  .layout_version = GPU_LAYOUT_VERSION,
                                  .flags = KRY_KERNEL_DETERMINISTIC,
                                  .linear = &functions};
static const kry_kernel *const kernels[] = {&kernel};
static const kry_plugin plugin = {.struct_size = sizeof(kry_plugin),
                                  .name = "gpu_on_cpu",
                                  .kernels = kernels,
                                  .kernel_count = 1,
                                  .error_message = gpu_error_message};

KRY_PLUGIN(gpu_on_cpu, "0", &plugin, 0, KRY_PLATFORM("cpu", 100));
