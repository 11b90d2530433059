/*
 * NVIDIA's GPUs through NVML, which initialises no GPU runtime: it is opened, asked and closed
 * again once a process. CUDA's variables are read at each call, since CUDA reads them late.
 */
#include "devices.h"
#include "driver.h"
#include "message.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * 1024)

/* Technical specifications by compute capability: CUDA programming guide, "Compute capabilities";
 * the chips: their whitepapers. */
static const struct gpu_chip chips[] = {
    {75, 40, 32, 64 * KIB, 4 * MIB},      /* T4 */
    {80, 108, 32, 163 * KIB, 40 * MIB},   /* A100 */
    {86, 84, 32, 99 * KIB, 6 * MIB},      /* A40 */
    {87, 16, 32, 163 * KIB, 4 * MIB},     /* Orin */
    {89, 142, 32, 99 * KIB, 96 * MIB},    /* L40S */
    {90, 132, 32, 227 * KIB, 50 * MIB},   /* H100, H200 */
    {100, 148, 32, 227 * KIB, 126 * MIB}, /* B200 */
    {103, 148, 32, 227 * KIB, 126 * MIB}, /* B300 */
    {110, 20, 32, 227 * KIB, 32 * MIB},   /* Thor */
    {120, 188, 32, 99 * KIB, 128 * MIB},  /* RTX PRO 6000 */
    {121, 48, 32, 99 * KIB, 24 * MIB},    /* GB10 */
};
enum { CHIPS = sizeof chips / sizeof chips[0] };

const struct gpu_chip *gpu_cuda_chip(uint32_t arch_number) {
    const struct gpu_chip *out = NULL;
    for (size_t i = 0; i < CHIPS && chips[i].arch_number <= arch_number; i++)
        out = &chips[i];
    return out;
}

kry_status gpu_cuda_describe(kry_device *device) {
    if (strncmp(device->arch, "sm_", 3) != 0 || device->arch_number == 0)
        return gpu_fail(KRY_E_ARGUMENT, "'%.31s' is no architecture of CUDA, such as sm_80",
                        device->arch);
    const struct gpu_chip *chip = gpu_cuda_chip(device->arch_number);
    device->warp_size = 32;
    if (chip != NULL) {
        device->multiprocessors = chip->multiprocessors;
        device->shared_memory_bytes = chip->shared_memory_bytes;
        device->l2_bytes = chip->l2_bytes;
    }
    return KRY_OK;
}

/* ---- NVML --------------------------------------------------------------------------------- */

/* From nvml.h. */
enum { NVML_SUCCESS = 0, CLOCK_SM = 1, NVML_MESSAGE_BYTES = 160 };
struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml {
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int error);
    int (*count)(unsigned *count);
    int (*handle)(unsigned index, void **device);
    int (*uuid)(void *device, char *uuid, unsigned bytes);
    int (*name)(void *device, char *name, unsigned bytes);
    int (*capability)(void *device, int *major, int *minor);
    int (*memory)(void *device, struct nvml_memory *memory);
    int (*clock)(void *device, unsigned type, unsigned *mhz);
    int (*cores)(void *device, unsigned *count);
};

#define SYMBOL(name, field)                                                                        \
    { name, offsetof(struct nvml, field) }
static const struct gpu_symbol symbols[] = {
    SYMBOL("nvmlInit_v2", init),
    SYMBOL("nvmlShutdown", shutdown),
    SYMBOL("nvmlErrorString", error_string),
    SYMBOL("nvmlDeviceGetCount_v2", count),
    SYMBOL("nvmlDeviceGetHandleByIndex_v2", handle),
    SYMBOL("nvmlDeviceGetUUID", uuid),
    SYMBOL("nvmlDeviceGetName", name),
    SYMBOL("nvmlDeviceGetCudaComputeCapability", capability),
    SYMBOL("nvmlDeviceGetMemoryInfo", memory),
    SYMBOL("nvmlDeviceGetMaxClockInfo", clock),
    SYMBOL("nvmlDeviceGetNumGpuCores", cores),
};

static struct gpu_list list; /* written once */

/* False: a GPU that NVML cannot tell of, such as one that this process may not use. */
static bool read_gpu(const struct nvml *nvml, unsigned index, struct gpu_found *out) {
    void *handle;
    int major, minor;
    unsigned mhz = 1, cores = 0;
    struct nvml_memory memory = {0};
    kry_device *device = &out->device;
    *out = (struct gpu_found){.device = {.struct_size = sizeof *device, .platform = "cuda"}};
    if (nvml->handle(index, &handle) != NVML_SUCCESS ||
        nvml->uuid(handle, out->id, sizeof out->id) != NVML_SUCCESS ||
        nvml->capability(handle, &major, &minor) != NVML_SUCCESS)
        return false;
    nvml->name(handle, device->name, sizeof device->name);
    if (nvml->memory(handle, &memory) == NVML_SUCCESS)
        device->memory_bytes = memory.total;
    nvml->clock(handle, CLOCK_SM, &mhz);
    nvml->cores(handle, &cores);
    snprintf(device->arch, sizeof device->arch, "sm_%d%d", major, minor);
    device->arch_number = (uint32_t)(major * 10 + minor);
    gpu_cuda_describe(device);
    if (cores > 0) {
        uint32_t multiprocessors = cores / (device->arch_number <= 80 ? 64 : 128);
        /* Another chip of the architecture: its cache is not known. */
        if (multiprocessors != device->multiprocessors)
            device->l2_bytes = 0;
        device->multiprocessors = multiprocessors;
    }
    out->speed = (uint64_t)device->multiprocessors * mhz;
    return true;
}

static void read_list(void) {
    struct nvml nvml;
    unsigned count = 0;
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        snprintf(list.reason, sizeof list.reason, "no driver: %.300s", dlerror());
        return;
    }
    const char *missing =
        gpu_symbols_read(library, symbols, sizeof symbols / sizeof symbols[0], &nvml);
    if (missing != NULL) {
        snprintf(list.reason, sizeof list.reason, "driver too old: libnvidia-ml.so.1 without %s",
                 missing);
    } else {
        int error = nvml.init();
        if (error == NVML_SUCCESS) {
            error = nvml.count(&count);
            for (unsigned i = 0; i < count && list.count < GPU_DEVICES_MAX; i++)
                list.count += read_gpu(&nvml, i, &list.found[list.count]);
            nvml.shutdown();
        }
        if (error != NVML_SUCCESS)
            snprintf(list.reason, sizeof list.reason, "no driver: NVML says '%.200s' (%d)",
                     nvml.error_string(error), error);
    }
    dlclose(library);
}

/* ---- the platform's ------------------------------------------------------------------------- */

kry_status gpu_cuda_device(size_t index, kry_device *out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    size_t places[GPU_DEVICES_MAX];
    pthread_once(&once, read_list);
    if (list.count == 0)
        return gpu_fail(KRY_E_NOT_FOUND, "%s",
                        list.reason[0] != '\0' ? list.reason : "the driver has no GPU");
    /* As CUDA reads them, raised privileges or not: its numbers must be ours. */
    const char *order = getenv("CUDA_DEVICE_ORDER"), *visible = getenv("CUDA_VISIBLE_DEVICES");
    gpu_cuda_order(&list, order != NULL && strcmp(order, "PCI_BUS_ID") == 0, places);
    size_t count = gpu_choose(&list, visible, list.count, places);
    if (index >= count)
        return gpu_fail(KRY_E_NOT_FOUND, "%zu of %zu GPUs visible%s%.100s", count, list.count,
                        visible != NULL ? ", CUDA_VISIBLE_DEVICES is " : "",
                        visible != NULL ? visible : "");
    if (gpu_driver_cuda.available() != KRY_OK)
        return KRY_E_NOT_FOUND; /* the message tells why */
    *out = list.found[places[index]].device;
    out->ordinal = (int32_t)index;
    return KRY_OK;
}
