/* NVML for tests: a shared object called libnvidia-ml.so.1, see fake_cuda.h. It tells of what
 * fake_nvml holds; at first of one H200, or of FAKE_NVML_COUNT of them. */
#ifndef KERNELRY_TEST_FAKE_NVML_H
#define KERNELRY_TEST_FAKE_NVML_H

enum { FAKE_GPUS_MAX = 8 };

struct fake_gpu {
    const char *uuid, *name;
    int major, minor;
    unsigned cores, mhz;
    unsigned long long memory_bytes;
    int error; /* of every question about it */
};

struct fake_nvml {
    unsigned count;
    int init_error;
    int inits, shutdowns;
    struct fake_gpu gpus[FAKE_GPUS_MAX];
};

extern struct fake_nvml fake_nvml;

#endif
