/*
 * Which GPUs are here, told without a GPU runtime, and what an architecture is like.
 */
#ifndef KERNELRY_GPU_DEVICES_H
#define KERNELRY_GPU_DEVICES_H

#include <kernelry/plugin.h>
#include <stdbool.h>

enum { GPU_DEVICES_MAX = 64, GPU_ID_BYTES = 96 };

/** A GPU of the machine, before the environment chooses among them. */
struct gpu_found {
    char id[GPU_ID_BYTES]; /* "GPU-..." */
    uint64_t speed;        /* to put GPUs in order; units of no meaning */
    kry_device device;     /* its ordinal is yet to be told */
};

/** All GPUs of a platform, in the order of their places on the bus. */
struct gpu_list {
    size_t count;
    char reason[320]; /* why there is none */
    struct gpu_found found[GPU_DEVICES_MAX];
};

/** What a chip of an architecture has; of several chips that with the most. */
struct gpu_chip {
    uint32_t arch_number;
    uint32_t multiprocessors;
    uint32_t warp_size;
    uint32_t shared_memory_bytes;
    uint64_t l2_bytes;
};

/** The chip of an architecture; where it is newer than this table, the last one before it of its
 *  own kind; NULL when it is older than all. */
const struct gpu_chip *gpu_cuda_chip(uint32_t arch_number);
const struct gpu_chip *gpu_rocm_chip(uint32_t arch_number);

/** For kry_platform.describe_device. */
kry_status gpu_cuda_describe(kry_device *device);
kry_status gpu_rocm_describe(kry_device *device);

/** For kry_platform.device. */
kry_status gpu_cuda_device(size_t index, kry_device *out);
kry_status gpu_rocm_device(size_t index, kry_device *out);

/** Read the GPUs that KFD tells of in a folder such as /sys/class/kfd/kfd/topology/nodes. */
void gpu_rocm_list(const char *folder, struct gpu_list *out);

/**
 * Choose from `places` (places in the list, of `count` GPUs) those that a variable such as
 * CUDA_VISIBLE_DEVICES names: numbers are places in `places`, ids may be shortened while they are
 * unique. As in CUDA, a word that names nothing ends the list, and a GPU named twice empties it.
 * NULL: all. Returns how many are left.
 */
size_t gpu_choose(const struct gpu_list *list, const char *visible, size_t count, size_t *places);

/** The places of a list in CUDA's order: by the bus, or the fastest first. */
void gpu_cuda_order(const struct gpu_list *list, bool by_bus, size_t *places);

#endif
