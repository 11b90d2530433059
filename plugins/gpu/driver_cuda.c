/*
 * CUDA's driver. Code is loaded as a library (cuLibraryLoadData, CUDA 12.0), whose kernels
 * belong to no context: they run in whichever the stream or the thread has.
 */
#include "driver.h"
#include "message.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

/* The driver that the embedded code needs, as cuDriverGetVersion counts: that of its toolkit's
 * major version. */
#ifndef KERNELRY_CUDA_DRIVER
#define KERNELRY_CUDA_DRIVER 12000
#endif

/* From cuda.h of the CUDA toolkit; all of them stable since they appeared. */
enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    ATTRIBUTE_MAJOR = 75,
    ATTRIBUTE_MINOR = 76,
    KERNEL_MAX_DYNAMIC_SHARED = 8,
    LAUNCH_CLUSTER_DIMENSION = 4,
    LAUNCH_PROGRAMMATIC_SERIALIZATION = 6,
    TENSOR_MAP_UINT16 = 1,
    TENSOR_MAP_NO_INTERLEAVE = 0,
    TENSOR_MAP_SWIZZLE_128B = 3,
    TENSOR_MAP_PROMOTE_L2_128B = 2,
    TENSOR_MAP_ZEROS_OUTSIDE = 0
};
enum { DEVICES_MAX = 256, SHARED_UNASKED = 48 * 1024, BOX_COLUMNS = 64 };

/* CUlaunchAttribute and CUlaunchConfig of cuda.h. */
struct launch_attribute {
    int id;
    char pad[4];
    union {
        char bytes[64];
        unsigned cluster[3];
        int allowed;
    } value;
};
struct launch_config {
    unsigned grid[3];
    unsigned block[3];
    unsigned shared_bytes;
    void *stream;
    struct launch_attribute *attributes;
    unsigned attribute_count;
};

static struct {
    int (*get_version)(int *version);
    int (*init)(unsigned flags);
    int (*error_name)(int error, const char **name);
    int (*error_string)(int error, const char **sentence);
    int (*device_get)(int *device, int ordinal);
    int (*device_attribute)(int *value, int attribute, int device);
    int (*primary_retain)(void **context, int device);
    int (*context_current)(void **context);
    int (*context_device)(int *device);
    int (*context_push)(void *context);
    int (*context_pop)(void **context);
    int (*library_load)(void **library, const void *code, void *jit, void *jit_values,
                        unsigned jit_count, void *options, void *values, unsigned count);
    int (*library_unload)(void *library);
    int (*library_kernel)(void **kernel, void *library, const char *name);
    int (*kernel_function)(void **function, void *kernel);
    int (*kernel_set)(int attribute, int value, void *kernel, int device);
    int (*launch)(const struct launch_config *config, void *function, void **parameters,
                  void **extra);
    int (*max_clusters)(int *clusters, void *function, const struct launch_config *config);
    int (*encode_tiled)(void *map, int type, uint32_t rank, void *address, const uint64_t *sizes,
                        const uint64_t *strides, const uint32_t *box, const uint32_t *steps,
                        int interleave, int swizzle, int promotion, int fill);
    int (*allocate)(uint64_t *memory, size_t bytes);
    int (*release)(uint64_t memory);
    int (*copy_up)(uint64_t to, const void *from, size_t bytes, void *stream);
    int (*copy_down)(void *to, uint64_t from, size_t bytes, void *stream);
    int (*copy_across)(uint64_t to, uint64_t from, size_t bytes, void *stream);
    int (*set_bytes)(uint64_t memory, unsigned char value, size_t bytes, void *stream);
    int (*stream_synchronize)(void *stream);
} cuda;

#define SYMBOL(name, field)                                                                        \
    { name, offsetof(__typeof__(cuda), field) }
static const struct gpu_symbol symbols[] = {
    /* First, so that a driver that lacks a later one can say its version. */
    SYMBOL("cuDriverGetVersion", get_version),
    SYMBOL("cuInit", init),
    SYMBOL("cuGetErrorName", error_name),
    SYMBOL("cuGetErrorString", error_string),
    SYMBOL("cuDeviceGet", device_get),
    SYMBOL("cuDeviceGetAttribute", device_attribute),
    SYMBOL("cuDevicePrimaryCtxRetain", primary_retain),
    SYMBOL("cuCtxGetCurrent", context_current),
    SYMBOL("cuCtxGetDevice", context_device),
    SYMBOL("cuCtxPushCurrent_v2", context_push),
    SYMBOL("cuCtxPopCurrent_v2", context_pop),
    SYMBOL("cuLibraryLoadData", library_load),
    SYMBOL("cuLibraryUnload", library_unload),
    SYMBOL("cuLibraryGetKernel", library_kernel),
    SYMBOL("cuKernelGetFunction", kernel_function),
    SYMBOL("cuKernelSetAttribute", kernel_set),
    SYMBOL("cuLaunchKernelEx", launch),
    SYMBOL("cuOccupancyMaxActiveClusters", max_clusters),
    SYMBOL("cuTensorMapEncodeTiled", encode_tiled),
    SYMBOL("cuMemAlloc_v2", allocate),
    SYMBOL("cuMemFree_v2", release),
    SYMBOL("cuMemcpyHtoDAsync_v2", copy_up),
    SYMBOL("cuMemcpyDtoHAsync_v2", copy_down),
    SYMBOL("cuMemcpyDtoDAsync_v2", copy_across),
    SYMBOL("cuMemsetD8Async", set_bytes),
    SYMBOL("cuStreamSynchronize", stream_synchronize),
};

/* Why the driver cannot be used; "" when it can. Written once. */
static char unavailable[320], uninitialised[320];

static void open_library(void) {
    int version = 0;
    /* A library that the process already has by this name is the same one. */
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        snprintf(unavailable, sizeof unavailable, "no driver: %s", dlerror());
        return;
    }
    const char *missing =
        gpu_symbols_read(library, symbols, sizeof symbols / sizeof symbols[0], &cuda);
    if (cuda.get_version == NULL || cuda.get_version(&version) != CUDA_SUCCESS)
        snprintf(unavailable, sizeof unavailable,
                 "no driver: libcuda.so.1 does not tell its version");
    else if (version < KERNELRY_CUDA_DRIVER)
        snprintf(unavailable, sizeof unavailable,
                 "driver too old: has CUDA %d.%d, needs %d.%d (a build with an older CUDA "
                 "toolkit needs less)",
                 version / 1000, version % 1000 / 10, KERNELRY_CUDA_DRIVER / 1000,
                 KERNELRY_CUDA_DRIVER % 1000 / 10);
    else if (missing != NULL)
        snprintf(unavailable, sizeof unavailable, "driver too old: CUDA %d.%d without %s",
                 version / 1000, version % 1000 / 10, missing);
}

static kry_status available(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_library);
    return unavailable[0] == '\0' ? KRY_OK : gpu_fail(KRY_E_DEPENDENCY, "%s", unavailable);
}

static const char *words(int error, const char *const *name) {
    return error == CUDA_SUCCESS && *name != NULL ? *name : "?";
}

/* KRY_OK, or the status of a driver's error, worded. */
static kry_status check(int error, const char *function) {
    if (error == CUDA_SUCCESS)
        return KRY_OK;
    const char *name = NULL, *sentence = NULL;
    int named = cuda.error_name(error, &name), told = cuda.error_string(error, &sentence);
    return gpu_fail(error == CUDA_ERROR_OUT_OF_MEMORY ? KRY_E_MEMORY : KRY_E_DEVICE,
                    "%s: %s (%d, %s)", function, words(named, &name), error,
                    words(told, &sentence));
}

static void initialise(void) {
    if (check(cuda.init(0), "cuInit") != KRY_OK)
        snprintf(uninitialised, sizeof uninitialised, "%.300s", gpu_error_message());
}

/* Primary contexts that were retained, never to be released. */
static _Atomic(void *) primary[DEVICES_MAX];

static kry_status find_primary(int ordinal, int device, void **out) {
    *out = atomic_load(&primary[ordinal]);
    if (*out != NULL)
        return KRY_OK;
    kry_status status = check(cuda.primary_retain(out, device), "cuDevicePrimaryCtxRetain");
    if (status == KRY_OK)
        atomic_store(&primary[ordinal], *out); /* two threads store the same */
    return status;
}

static kry_status enter(const kry_device *device, struct gpu_scope *out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    *out = (struct gpu_scope){0};
    kry_status status = available();
    if (status != KRY_OK)
        return status;
    pthread_once(&once, initialise);
    if (uninitialised[0] != '\0')
        return gpu_fail(KRY_E_DEVICE, "%s", uninitialised);
    if (device->ordinal < 0 || device->ordinal >= DEVICES_MAX)
        return gpu_fail(KRY_E_DEVICE, "device cuda:%s is not here", device->arch);
    int wanted, found;
    void *context = NULL;
    status = check(cuda.device_get(&wanted, device->ordinal), "cuDeviceGet");
    if (status != KRY_OK)
        return status;
    if (cuda.context_current(&context) == CUDA_SUCCESS && context != NULL &&
        cuda.context_device(&found) == CUDA_SUCCESS && found == wanted)
        return KRY_OK;
    status = find_primary(device->ordinal, wanted, &context);
    if (status == KRY_OK)
        status = check(cuda.context_push(context), "cuCtxPushCurrent");
    out->changed = status == KRY_OK;
    return status;
}

static void leave(const struct gpu_scope *scope) {
    void *context;
    if (scope->changed)
        cuda.context_pop(&context);
}

/* The order in which CUDA counts devices is its own where they differ: see devices_cuda.c. */
static kry_status check_identity(const kry_device *device) {
    int current, major, minor;
    kry_status status = check(cuda.context_device(&current), "cuCtxGetDevice");
    if (status == KRY_OK)
        status =
            check(cuda.device_attribute(&major, ATTRIBUTE_MAJOR, current), "cuDeviceGetAttribute");
    if (status == KRY_OK)
        status =
            check(cuda.device_attribute(&minor, ATTRIBUTE_MINOR, current), "cuDeviceGetAttribute");
    if (status == KRY_OK && (uint32_t)(major * 10 + minor) != device->arch_number)
        return gpu_fail(KRY_E_DEVICE,
                        "cuda:%d is sm_%d%d, expected %s: the driver counts devices in another "
                        "order; set CUDA_DEVICE_ORDER=PCI_BUS_ID",
                        device->ordinal, major, minor, device->arch);
    return status;
}

static kry_status load(const kry_device *device, const void *code, void **module) {
    kry_status status = check_identity(device);
    return status == KRY_OK ? check(cuda.library_load(module, code, NULL, NULL, 0, NULL, NULL, 0),
                                    "cuLibraryLoadData")
                            : status;
}

static void unload(void *module) { cuda.library_unload(module); }

static kry_status find(void *module, const char *entry, uint32_t shared_bytes, void **function) {
    int device;
    void *loaded;
    kry_status status = check(cuda.library_kernel(function, module, entry), entry);
    if (status == KRY_OK && shared_bytes > SHARED_UNASKED) {
        status = check(cuda.context_device(&device), "cuCtxGetDevice");
        if (status == KRY_OK)
            status = check(
                cuda.kernel_set(KERNEL_MAX_DYNAMIC_SHARED, (int)shared_bytes, *function, device),
                "cuKernelSetAttribute");
    }
    /* Its code is loaded now: lazily, at the first launch, could be inside a capture. */
    return status == KRY_OK ? check(cuda.kernel_function(&loaded, *function), entry) : status;
}

static struct launch_config config_of(const struct gpu_launch *launch, void *stream,
                                      struct launch_attribute attributes[2]) {
    struct launch_config config = {.grid = {launch->grid, 1, 1},
                                   .block = {launch->block, 1, 1},
                                   .shared_bytes = launch->shared_bytes,
                                   .stream = stream,
                                   .attributes = attributes};
    if (launch->cluster > 1)
        attributes[config.attribute_count++] = (struct launch_attribute){
            .id = LAUNCH_CLUSTER_DIMENSION, .value.cluster = {launch->cluster, 1, 1}};
    if (launch->early)
        attributes[config.attribute_count++] =
            (struct launch_attribute){.id = LAUNCH_PROGRAMMATIC_SERIALIZATION, .value.allowed = 1};
    return config;
}

static kry_status launch(void *function, const struct gpu_launch *launch, void *parameters,
                         void *stream) {
    void *list[] = {parameters};
    struct launch_attribute attributes[2];
    struct launch_config config = config_of(launch, stream, attributes);
    return check(cuda.launch(&config, function, list, NULL), "cuLaunchKernelEx");
}

static kry_status clusters(void *function, const struct gpu_launch *launch, uint32_t *out) {
    struct launch_attribute attributes[2];
    struct launch_config config = config_of(launch, NULL, attributes);
    int found = 0;
    kry_status status =
        check(cuda.max_clusters(&found, function, &config), "cuOccupancyMaxActiveClusters");
    *out = found < 0 ? 0 : (uint32_t)found;
    return status;
}

static kry_status map_rows(struct gpu_tensor_map *out, const struct gpu_rows *rows) {
    /* The stride of a single row is asked for, and not used. */
    int64_t row_bytes = rows->rows > 1 ? rows->stride * 2 : (rows->columns + 7) / 8 * 16;
    const uint64_t sizes[2] = {(uint64_t)rows->columns, (uint64_t)rows->rows};
    const uint64_t strides[1] = {(uint64_t)row_bytes};
    const uint32_t box[2] = {(uint32_t)rows->box_columns, (uint32_t)rows->box_rows};
    const uint32_t steps[2] = {1, 1};
    int swizzle = rows->box_columns == BOX_COLUMNS ? TENSOR_MAP_SWIZZLE_128B : 0;
    return check(cuda.encode_tiled(out, TENSOR_MAP_UINT16, 2, (void *)(uintptr_t)rows->x, sizes,
                                   strides, box, steps, TENSOR_MAP_NO_INTERLEAVE, swizzle,
                                   TENSOR_MAP_PROMOTE_L2_128B, TENSOR_MAP_ZEROS_OUTSIDE),
                 "cuTensorMapEncodeTiled");
}

/* ---- memory ------------------------------------------------------------------------------- */

static kry_status allocate(uint64_t bytes, void **out) {
    uint64_t memory;
    kry_status status = check(cuda.allocate(&memory, bytes > 0 ? bytes : 1), "cuMemAlloc");
    if (status == KRY_OK)
        *out = (void *)(uintptr_t)memory;
    return status;
}

static kry_status release(void *memory) {
    return check(cuda.release((uint64_t)(uintptr_t)memory), "cuMemFree");
}

static kry_status synchronize(void *stream) {
    return check(cuda.stream_synchronize(stream), "cuStreamSynchronize");
}

static kry_status copy(void *to, uint32_t to_memory, const void *from, uint32_t from_memory,
                       uint64_t bytes, void *stream) {
    uint64_t to_device = (uint64_t)(uintptr_t)to, from_device = (uint64_t)(uintptr_t)from;
    if (to_memory == KRY_MEMORY_DEVICE && from_memory == KRY_MEMORY_DEVICE)
        return check(cuda.copy_across(to_device, from_device, bytes, stream), "cuMemcpyDtoDAsync");
    kry_status status =
        to_memory == KRY_MEMORY_DEVICE
            ? check(cuda.copy_up(to_device, from, bytes, stream), "cuMemcpyHtoDAsync")
            : check(cuda.copy_down(to, from_device, bytes, stream), "cuMemcpyDtoHAsync");
    /* From pinned memory the call returns before the copy has begun. */
    return status == KRY_OK ? synchronize(stream) : status;
}

static kry_status clear(void *memory, uint64_t bytes, void *stream) {
    return check(cuda.set_bytes((uint64_t)(uintptr_t)memory, 0, bytes, stream), "cuMemsetD8Async");
}

const struct gpu_driver gpu_driver_cuda = {.platform = "cuda",
                                           .available = available,
                                           .enter = enter,
                                           .leave = leave,
                                           .load = load,
                                           .unload = unload,
                                           .find = find,
                                           .launch = launch,
                                           .clusters = clusters,
                                           .map_rows = map_rows,
                                           .allocate = allocate,
                                           .release = release,
                                           .copy = copy,
                                           .clear = clear,
                                           .synchronize = synchronize};
