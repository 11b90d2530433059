/* A HIP runtime for tests: a shared object called libamdhip64.so.6, see fake_cuda.h. */
#ifndef KERNELRY_TEST_FAKE_HIP_H
#define KERNELRY_TEST_FAKE_HIP_H

#include <stdint.h>

struct fake_hip {
    int init_error, device_count;
    const char *failing; /* a function that returns `error`, by name */
    int error;
    int inits, loads, launches, synchronized;
    int set[16], set_count; /* devices that were set, in turn */
    char launched[64];      /* the last entry */
    unsigned grid, block, shared_bytes;

    /** Run a launch; NULL, or what went wrong with it. NULL: nothing is run. */
    const char *(*execute)(const char *entry, uint32_t grid, uint32_t block, uint32_t shared_bytes,
                           const void *parameters);
};

extern struct fake_hip fake_hip;

#endif
