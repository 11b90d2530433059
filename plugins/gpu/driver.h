/*
 * A GPU's driver as this plugin uses it: a table of functions for each platform, filled by
 * dlopen when a GPU is first touched. Nothing links against a driver, and a process that never
 * touches a GPU never maps one.
 *
 * Contexts   A call works in what is current on its thread where that belongs to the device;
 *            else, between enter and leave, in the device's primary context (CUDA), which stays
 *            retained, or with the device set (HIP).
 * Errors     KRY_E_DEPENDENCY: no driver, or too old a one; KRY_E_MEMORY; KRY_E_DEVICE with the
 *            driver's words. The sentence is gpu_error_message().
 * Threads    safe.
 */
#ifndef KERNELRY_GPU_DRIVER_H
#define KERNELRY_GPU_DRIVER_H

#include <kernelry/plugin.h>
#include <stdbool.h>

#include "plan.h"

/** What leave has to undo. */
struct gpu_scope {
    bool changed;
    int32_t before; /* HIP: the device that was set */
};

struct gpu_driver {
    const char *platform;
    /** Whether the library is here and new enough, without initialising it. */
    kry_status (*available)(void);

    /** Make the device current, where it is not; all that follows works on it. */
    kry_status (*enter)(const kry_device *device, struct gpu_scope *out);
    void (*leave)(const struct gpu_scope *scope);

    /** Load a code object (it stays where it is and lives forever) on the entered device. */
    kry_status (*load)(const kry_device *device, const void *code, void **module);
    void (*unload)(void *module);
    /** Find an entry, ready to be launched with up to so much dynamic shared memory. */
    kry_status (*find)(void *module, const char *entry, uint32_t shared_bytes, void **function);
    /** Enqueue one; `parameters` is the struct that the entry takes by value. */
    kry_status (*launch)(void *function, const struct gpu_launch *launch, void *parameters,
                         void *stream);
    /** How many clusters of launch->cluster blocks run at a time. NULL, like the next, where a
     *  platform has none. */
    kry_status (*clusters)(void *function, const struct gpu_launch *launch, uint32_t *out);
    /** Describe rows of 16-bit elements for the copy engine, in boxes of 64 columns, which are
     *  swizzled, or of 8; x and, for more than one row, the stride are multiples of 16 bytes. */
    kry_status (*map_rows)(struct gpu_tensor_map *out, const struct gpu_rows *rows);

    kry_status (*allocate)(uint64_t bytes, void **out);
    kry_status (*release)(void *memory);
    /** Enqueue; waits for the stream where host memory takes part. */
    kry_status (*copy)(void *to, uint32_t to_memory, const void *from, uint32_t from_memory,
                       uint64_t bytes, void *stream);
    kry_status (*clear)(void *memory, uint64_t bytes, void *stream);
    kry_status (*synchronize)(void *stream);
};

extern const struct gpu_driver gpu_driver_cuda;
extern const struct gpu_driver gpu_driver_hip;

/** The driver of a device's platform; "cuda" or "rocm". */
const struct gpu_driver *gpu_driver_of(const kry_device *device);

/** A function of a library, for gpu_symbols_read. */
struct gpu_symbol {
    const char *name;
    size_t offset; /* of the function pointer in the table */
};

/** Fill a table; the name of the first function that the library lacks, or NULL. */
const char *gpu_symbols_read(void *library, const struct gpu_symbol *symbols, size_t count,
                             void *table);

#endif
