/*
 * Memory of the device that layers are applied on: the host's where the device shares it, as a CPU
 * does, else that of the platform's plugin.
 */
#ifndef KERNELRY_TOOLS_DEVICE_MEMORY_H
#define KERNELRY_TOOLS_DEVICE_MEMORY_H

#include <kernelry/kernelry.h>
#include <kernelry/plugin.h>

#include <stdbool.h>

struct device_memory {
    const kry_device *device;     /* borrowed */
    const kry_platform *platform; /* its operations; NULL: the host's memory */
    const kry_plugin *plugin;     /* whose they are */
};

/**
 * Find the operations of a device's platform, of the plugins that offer them those of the first
 * whose kernels are asked for it. (The core may choose another's; they serve the same memory.)
 *
 * Errors     KRY_E_UNSUPPORTED: no plugin offers memory and copies.
 */
kry_status device_memory_open(const kry_registry *registry, const kry_device *device,
                              struct device_memory *out);

/** Whether the host can follow the device's pointers. */
bool device_memory_is_shared(const struct device_memory *memory);

/** Memory aligned to KRY_ALIGNMENT, ended by device_memory_release. NULL when there is none;
 *  never NULL for 0 bytes otherwise. */
void *device_memory_get(const struct device_memory *memory, uint64_t bytes);
void device_memory_release(const struct device_memory *memory, void *block, uint64_t bytes);

/* Copies and clearing take place at once: they are waited for. Errors: the platform's. */
kry_status device_memory_send(const struct device_memory *memory, void *to, const void *from,
                              uint64_t bytes);
kry_status device_memory_fetch(const struct device_memory *memory, void *to, const void *from,
                               uint64_t bytes);
kry_status device_memory_copy(const struct device_memory *memory, void *to, const void *from,
                              uint64_t bytes);
kry_status device_memory_clear(const struct device_memory *memory, void *block, uint64_t bytes);

/** Wait until a stream (NULL: the default one) has passed everything. */
kry_status device_memory_wait(const struct device_memory *memory, void *stream);

/** A buffer that host and device see: one block where they share memory, else two that are alike
 *  after twin_send and twin_fetch. All zero: none. */
struct twin {
    unsigned char *host;
    void *device;
    uint64_t bytes;
};

/** Ownership: *out is ended by twin_release, also after an error. Errors: KRY_E_MEMORY. */
kry_status twin_get(const struct device_memory *memory, uint64_t bytes, struct twin *out);
void twin_release(const struct device_memory *memory, struct twin *twin);
kry_status twin_send(const struct device_memory *memory, const struct twin *twin);
kry_status twin_fetch(const struct device_memory *memory, const struct twin *twin);

#endif
