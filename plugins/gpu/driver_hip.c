/*
 * HIP's runtime, of ROCm 5, 6 or 7: what is used of it has stayed the same. There are no
 * contexts: a thread has a device set, which is set back afterwards.
 */
#include "driver.h"
#include "message.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

/* From hip_runtime_api.h. */
enum { HIP_SUCCESS = 0, HIP_ERROR_OUT_OF_MEMORY = 2 };
enum { COPY_UP = 1, COPY_DOWN = 2, COPY_ACROSS = 3 };

static struct {
    int (*init)(unsigned flags);
    const char *(*error_string)(int error);
    int (*device_get)(int *device);
    int (*device_set)(int device);
    int (*module_load)(void **module, const void *code);
    int (*module_unload)(void *module);
    int (*module_function)(void **function, void *module, const char *name);
    int (*launch)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                  unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                  void *stream, void **parameters, void **extra);
    int (*allocate)(void **memory, size_t bytes);
    int (*release)(void *memory);
    int (*copy)(void *to, const void *from, size_t bytes, int kind, void *stream);
    int (*set_bytes)(void *memory, int value, size_t bytes, void *stream);
    int (*stream_synchronize)(void *stream);
} hip;

#define SYMBOL(name, field)                                                                        \
    { name, offsetof(__typeof__(hip), field) }
static const struct gpu_symbol symbols[] = {
    SYMBOL("hipInit", init),
    SYMBOL("hipGetErrorString", error_string),
    SYMBOL("hipGetDevice", device_get),
    SYMBOL("hipSetDevice", device_set),
    SYMBOL("hipModuleLoadData", module_load),
    SYMBOL("hipModuleUnload", module_unload),
    SYMBOL("hipModuleGetFunction", module_function),
    SYMBOL("hipModuleLaunchKernel", launch),
    SYMBOL("hipMalloc", allocate),
    SYMBOL("hipFree", release),
    SYMBOL("hipMemcpyAsync", copy),
    SYMBOL("hipMemsetAsync", set_bytes),
    SYMBOL("hipStreamSynchronize", stream_synchronize),
};

/* Why the runtime cannot be used; "" when it can. Written once. */
static char unavailable[320], uninitialised[320];

/* The one that the process has already, of whichever version, else the newest. */
static void *find_library(const char **name) {
    static const char *const names[] = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"};
    enum { NAMES = sizeof names / sizeof names[0] };
    void *library = NULL;
    for (size_t i = 0; i < 2 * NAMES && library == NULL; i++) {
        *name = names[i % NAMES];
        library = dlopen(*name, RTLD_NOW | RTLD_LOCAL | (i < NAMES ? RTLD_NOLOAD : 0));
    }
    return library;
}

static void open_library(void) {
    const char *name;
    void *library = find_library(&name);
    if (library == NULL) {
        snprintf(unavailable, sizeof unavailable,
                 "no HIP runtime: none of libamdhip64.so.7, .6 and .5 can be loaded (%.200s)",
                 dlerror());
        return;
    }
    const char *missing =
        gpu_symbols_read(library, symbols, sizeof symbols / sizeof symbols[0], &hip);
    if (missing != NULL)
        snprintf(unavailable, sizeof unavailable, "HIP runtime too old: %s without %s", name,
                 missing);
}

static kry_status available(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_library);
    return unavailable[0] == '\0' ? KRY_OK : gpu_fail(KRY_E_DEPENDENCY, "%s", unavailable);
}

/* KRY_OK, or the status of an error, worded. */
static kry_status check(int error, const char *function) {
    if (error == HIP_SUCCESS)
        return KRY_OK;
    const char *words = hip.error_string(error);
    return gpu_fail(error == HIP_ERROR_OUT_OF_MEMORY ? KRY_E_MEMORY : KRY_E_DEVICE, "%s: %s (%d)",
                    function, words != NULL ? words : "?", error);
}

static void initialise(void) {
    if (check(hip.init(0), "hipInit") != KRY_OK)
        snprintf(uninitialised, sizeof uninitialised, "%.300s", gpu_error_message());
}

static kry_status enter(const kry_device *device, struct gpu_scope *out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int before;
    *out = (struct gpu_scope){0};
    kry_status status = available();
    if (status != KRY_OK)
        return status;
    pthread_once(&once, initialise);
    if (uninitialised[0] != '\0')
        return gpu_fail(KRY_E_DEVICE, "%s", uninitialised);
    if (device->ordinal < 0)
        return gpu_fail(KRY_E_DEVICE, "device rocm:%s is not here", device->arch);
    status = check(hip.device_get(&before), "hipGetDevice");
    if (status != KRY_OK || before == device->ordinal)
        return status;
    status = check(hip.device_set(device->ordinal), "hipSetDevice");
    *out = (struct gpu_scope){.changed = status == KRY_OK, .before = before};
    return status;
}

static void leave(const struct gpu_scope *scope) {
    if (scope->changed)
        hip.device_set(scope->before);
}

static kry_status load(const kry_device *device, const void *code, void **module) {
    (void)device; /* code for another architecture is refused by the runtime itself */
    return check(hip.module_load(module, code), "hipModuleLoadData");
}

static void unload(void *module) { hip.module_unload(module); }

static kry_status find(void *module, const char *entry, uint32_t shared_bytes, void **function) {
    (void)shared_bytes; /* a block may use all that there is */
    return check(hip.module_function(function, module, entry), entry);
}

static kry_status launch(void *function, const struct gpu_launch *launch, void *parameters,
                         void *stream) {
    void *list[] = {parameters};
    return check(hip.launch(function, launch->grid, 1, 1, launch->block, 1, 1, launch->shared_bytes,
                            stream, list, NULL),
                 "hipModuleLaunchKernel");
}

/* ---- memory ------------------------------------------------------------------------------- */

static kry_status allocate(uint64_t bytes, void **out) {
    return check(hip.allocate(out, bytes > 0 ? bytes : 1), "hipMalloc");
}

static kry_status release(void *memory) { return check(hip.release(memory), "hipFree"); }

static kry_status synchronize(void *stream) {
    return check(hip.stream_synchronize(stream), "hipStreamSynchronize");
}

static kry_status copy(void *to, uint32_t to_memory, const void *from, uint32_t from_memory,
                       uint64_t bytes, void *stream) {
    bool across = to_memory == KRY_MEMORY_DEVICE && from_memory == KRY_MEMORY_DEVICE;
    int one_way = to_memory == KRY_MEMORY_DEVICE ? COPY_UP : COPY_DOWN;
    kry_status status =
        check(hip.copy(to, from, bytes, across ? COPY_ACROSS : one_way, stream), "hipMemcpyAsync");
    /* With pinned memory the call returns before the copy has begun. */
    return status == KRY_OK && !across ? synchronize(stream) : status;
}

static kry_status clear(void *memory, uint64_t bytes, void *stream) {
    return check(hip.set_bytes(memory, 0, bytes, stream), "hipMemsetAsync");
}

const struct gpu_driver gpu_driver_hip = {.platform = "rocm",
                                          .available = available,
                                          .enter = enter,
                                          .leave = leave,
                                          .load = load,
                                          .unload = unload,
                                          .find = find,
                                          .launch = launch,
                                          .allocate = allocate,
                                          .release = release,
                                          .copy = copy,
                                          .clear = clear,
                                          .synchronize = synchronize};
