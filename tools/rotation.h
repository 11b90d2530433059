/*
 * Copies of one layer's prepared weights, so many that no cache holds them, applied in turn: the
 * time of an apply whose weights come from memory, as in a model with many layers.
 */
#ifndef KERNELRY_TOOLS_ROTATION_H
#define KERNELRY_TOOLS_ROTATION_H

#include "synthetic.h"

enum { ROTATION_MOST = 64 }; /* copies */

/** What the copies are made of. Borrowed while they are made; registry and host for as long as
 *  they live. */
struct rotation_args {
    kry_registry *registry;
    const kry_device *device;
    const struct synthetic *synthetic;
    const char *kernel;   /* NULL: the decision's */
    const kry_host *host; /* NULL: the registry's */
};

struct rotation {
    kry_layer *layers[ROTATION_MOST];
    size_t count;
    size_t next; /* the copy that is applied next */
    kry_kernel_info kernel;
    uint64_t prepared_bytes; /* of each */
    int64_t prepare_nanoseconds;
};

/**
 * How many copies of so many bytes push each other out of the caches.
 */
size_t rotation_copies(uint64_t bytes);

/** Errors: as kry_layer_create and _prepare. */
kry_status rotation_create(const struct rotation_args *args, struct rotation *out);
void rotation_release(struct rotation *rotation);

/** Apply the next copy; its time goes to *nanoseconds. */
kry_status rotation_apply(struct rotation *rotation, const kry_apply_args *args,
                          int64_t *nanoseconds);

/**
 * Allocate x, y and workspace of applies of m rows; the zeroed part is cleared, x is the caller's
 * to fill (dense). Sets m, the pointers and their sizes in *out.
 *
 * Ownership  *out's memory is ended by rotation_operands_release, also after an error.
 */
kry_status rotation_operands(const struct rotation *rotation, const kry_linear *linear, int64_t m,
                             kry_apply_args *out);
void rotation_operands_release(kry_apply_args *operands);

#endif
