/*
 * Copies of one layer's prepared weights, so many that no cache holds them, applied in turn: the
 * time of an apply whose weights come from memory, as in a model with many layers.
 */
#ifndef KERNELRY_TOOLS_ROTATION_H
#define KERNELRY_TOOLS_ROTATION_H

#include "device_memory.h"
#include "stream_clock.h"
#include "synthetic.h"

enum { ROTATION_MOST = 512 }; /* copies */

/** What the copies are made of. Borrowed while they are made; registry and host for as long as
 *  they live. */
struct rotation_args {
    kry_registry *registry;
    const kry_device *device;
    const struct synthetic *synthetic;
    const char *kernel;   /* NULL: the decision's */
    const kry_host *host; /* NULL: the registry's */
    uint64_t fill;        /* bytes that the copies fill; 0: what rotation_copies says */
};

struct rotation {
    struct device_memory memory;
    kry_layer *layers[ROTATION_MOST];
    size_t count;
    size_t next; /* the copy that is applied next */
    kry_kernel_info kernel;
    uint64_t prepared_bytes; /* of each */
    int64_t prepare_nanoseconds;
};

/**
 * How many copies of so many bytes push each other out of the device's caches: together four times
 * the last one, in memory of a device's own at least 300 MB. fill: as many bytes instead; 0: not.
 */
size_t rotation_copies(const kry_device *device, uint64_t bytes, uint64_t fill);

/** Errors: as kry_layer_create and _prepare. */
kry_status rotation_create(const struct rotation_args *args, struct rotation *out);
void rotation_release(struct rotation *rotation);

/** Apply the next copy and wait for it; its time goes to *nanoseconds. */
kry_status rotation_apply(struct rotation *rotation, const kry_apply_args *args,
                          int64_t *nanoseconds);

/** x, y and workspace of applies. */
struct rotation_operands {
    kry_apply_args args; /* points to them, where the device sees them */
    struct twin x, y, bias, scratch, zeroed;
};

/**
 * Allocate them for m rows; the zeroed part is cleared, x (dense) and the bias are the caller's to
 * fill and to send. `bias`: whether there is one.
 *
 * Ownership  *out's memory is ended by rotation_operands_release, also after an error.
 */
kry_status rotation_operands(const struct rotation *rotation, const kry_linear *linear, int64_t m,
                             bool bias, struct rotation_operands *out);
void rotation_operands_release(const struct rotation *rotation, struct rotation_operands *operands);

/** Applies of a rotation as a stream's work; both are borrowed. */
struct rotation_turns {
    struct rotation *rotation;
    const kry_apply_args *args;
};
struct stream_work rotation_work(struct rotation_turns *turns);

#endif
