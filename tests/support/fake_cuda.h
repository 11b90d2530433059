/*
 * A CUDA driver for tests, on a machine without one: a shared object called libcuda.so.1, which
 * a test links against and whatever it tests finds by dlopen. Device memory is the host's, streams
 * run at once. Launches are written down; fake_cuda.execute, where it is set, runs them.
 *
 * The environment sets what a process that no test has written starts with: FAKE_CUDA_VERSION
 * (13000), FAKE_CUDA_CAPABILITY (90), FAKE_CUDA_DEVICES (1), FAKE_CUDA_FAILS (a function's name).
 */
#ifndef KERNELRY_TEST_FAKE_CUDA_H
#define KERNELRY_TEST_FAKE_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FAKE_DEVICES_MAX = 8, FAKE_LAUNCHES_MAX = 256, FAKE_PARAMETERS_MAX = 512 };

struct fake_launch {
    char entry[64];
    uint32_t grid, block, shared_bytes;
    uint32_t cluster; /* 0: launched without that attribute */
    bool early;       /* with programmatic stream serialization */
    void *stream;
    size_t parameter_bytes;                                     /* as the entry's name tells */
    _Alignas(64) unsigned char parameters[FAKE_PARAMETERS_MAX]; /* a tensor map may be among them */
    int device; /* of the context that was current */
};

struct fake_cuda {
    int version;
    int devices;
    int capability[FAKE_DEVICES_MAX]; /* 90 for sm_90 */
    const char *failing;              /* a function that returns `error`, by name; or an entry */
    int error;
    const char *lacking; /* an entry that the loaded code has not got */

    int inits, retained[FAKE_DEVICES_MAX], pushes, pops, loads, unloads, synchronized;
    int graph_launches;
    int64_t live_blocks;
    size_t launch_count;
    struct fake_launch launches[FAKE_LAUNCHES_MAX];
    uint32_t shared_allowed; /* the most that any entry was allowed */
    size_t map_count;        /* tensor maps made */
    int active_clusters;     /* what cuOccupancyMaxActiveClusters tells of one block a cluster */

    /** Run a launch; NULL, or what went wrong with it. NULL: nothing is run. */
    const char *(*execute)(const struct fake_launch *launch);
};

extern struct fake_cuda fake_cuda;

/** A kernel that does nothing that a test could see. */
#define FAKE_READS "kernelry_read"

/** Run a launch. Returns an error of the driver. */
int fake_cuda_run(const struct fake_launch *launch);

/** Whether a stream captures; what needs its work done is refused then. */
bool fake_cuda_is_capturing(void *stream);
/** Keep a launch where its stream captures. Returns false where it does not. */
bool fake_cuda_capture(const struct fake_launch *launch);
/** Call a function with a copy of its argument in the order of the stream: now, or when the graph
 *  that is being captured is launched. */
void fake_cuda_enqueue(void *stream, void (*run)(const void *argument), const void *argument,
                       size_t bytes);

/* Those of the driver's functions that tests call. */
int cuInit(unsigned flags);
int cuCtxGetCurrent(void **context);
int cuCtxPushCurrent_v2(void *context);
int cuCtxPopCurrent_v2(void **context);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuMemAlloc_v2(uint64_t *memory, size_t bytes);
int cuMemFree_v2(uint64_t memory);

#endif
