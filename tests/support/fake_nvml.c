#include "fake_nvml.h"

#include <stdio.h>
#include <stdlib.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, INSUFFICIENT_SIZE = 7 };

#define H200(id)                                                                                   \
    { "GPU-" id, "NVIDIA H200", 9, 0, 132 * 128, 1980, 150754820096ULL, 0 }

struct fake_nvml fake_nvml = {.count = 1,
                              .gpus = {H200("00000000-0000-0000-0000-000000000000"),
                                       H200("11111111-1111-1111-1111-111111111111"),
                                       H200("22222222-2222-2222-2222-222222222222")}};

__attribute__((constructor)) static void begin(void) {
    const char *count = getenv("FAKE_NVML_COUNT");
    if (count != NULL)
        fake_nvml.count = (unsigned)atoi(count);
    /* As the fake driver says; with few multiprocessors, so that a CPU that plays them is done
     * soon. */
    const char *capability = getenv("FAKE_CUDA_CAPABILITY");
    for (size_t i = 0; i < sizeof fake_nvml.gpus / sizeof fake_nvml.gpus[0] && capability; i++) {
        fake_nvml.gpus[i].major = atoi(capability) / 10;
        fake_nvml.gpus[i].minor = atoi(capability) % 10;
        fake_nvml.gpus[i].cores = 8 * 128;
    }
}

int nvmlInit_v2(void);
int nvmlInit_v2(void) {
    fake_nvml.inits++;
    return fake_nvml.init_error;
}

int nvmlShutdown(void);
int nvmlShutdown(void) {
    fake_nvml.shutdowns++;
    return SUCCESS;
}

const char *nvmlErrorString(int error);
const char *nvmlErrorString(int error) {
    return error == 9 ? "Driver Not Loaded" : "Another error";
}

int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = fake_nvml.count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &fake_nvml.gpus[index];
    return index < fake_nvml.count ? fake_nvml.gpus[index].error : INVALID_ARGUMENT;
}

static int tell(const char *text, char *out, unsigned bytes) {
    return snprintf(out, bytes, "%s", text) < (int)bytes ? SUCCESS : INSUFFICIENT_SIZE;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned bytes);
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned bytes) {
    return tell(((struct fake_gpu *)device)->uuid, uuid, bytes);
}

int nvmlDeviceGetName(void *device, char *name, unsigned bytes);
int nvmlDeviceGetName(void *device, char *name, unsigned bytes) {
    return tell(((struct fake_gpu *)device)->name, name, bytes);
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor);
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    *major = ((struct fake_gpu *)device)->major;
    *minor = ((struct fake_gpu *)device)->minor;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long memory[3]);
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long memory[3]) {
    memory[0] = ((struct fake_gpu *)device)->memory_bytes;
    memory[1] = memory[2] = memory[0] / 2;
    return SUCCESS;
}

int nvmlDeviceGetMaxClockInfo(void *device, unsigned type, unsigned *mhz);
int nvmlDeviceGetMaxClockInfo(void *device, unsigned type, unsigned *mhz) {
    *mhz = ((struct fake_gpu *)device)->mhz;
    return type == 1 ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetNumGpuCores(void *device, unsigned *count);
int nvmlDeviceGetNumGpuCores(void *device, unsigned *count) {
    *count = ((struct fake_gpu *)device)->cores;
    return SUCCESS;
}
