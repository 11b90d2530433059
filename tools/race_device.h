/*
 * What a race on a device with memory of its own needs beyond one on a CPU: a clock for streams,
 * the device's limits, and cuBLAS.
 */
#ifndef KERNELRY_TOOLS_RACE_DEVICE_H
#define KERNELRY_TOOLS_RACE_DEVICE_H

#include "cublas.h"
#include "stream_clock.h"

struct race_device;

/**
 * fill: how many bytes are read, or rotated, before anything is read again; 0: what
 * rotation_copies says of the device.
 *
 * Ownership  borrows the registry and the device until race_device_destroy.
 * Errors     KRY_E_UNSUPPORTED, KRY_E_MEMORY. That there is no driver for graphs, or no cuBLAS, is
 *            none: those parts have trouble.
 */
kry_status race_device_create(const kry_registry *registry, const kry_device *device, uint64_t fill,
                              struct race_device **out);
void race_device_destroy(struct race_device **device);

const struct device_memory *race_device_memory(const struct race_device *device);
struct stream_clock *race_device_clock(const struct race_device *device);
/** How many copies of so many bytes are used in turn. */
size_t race_device_copies(const struct race_device *device, uint64_t bytes);

/** cuBLAS, or NULL and why not. */
struct cublas *race_device_cublas(const struct race_device *device, const char **trouble);

/*
 * Loops of the device's limits; one of each kind may live at a time.
 * Errors     KRY_E_DEPENDENCY: nothing that is known here reaches the limit; KRY_E_MEMORY; others.
 */

/** Read so many bytes, others each turn, by a kernel that does nothing else; 0: all that there are
 *  to read. Sets what a turn reads. */
kry_status race_device_read(struct race_device *device, uint64_t bytes, struct stream_loop **out,
                            double *work);
/** Multiply large matrices of f16 by cuBLAS. Sets the operations of a turn. */
kry_status race_device_dense(struct race_device *device, struct stream_loop **out, double *work);

#endif
