/*
 * Prepared weights in tensors of PyTorch's, and the layers that run on them.
 *
 * The operator is told the tensor, not the layer: so a compiled graph holds no number that means
 * something in this process alone, blocks of a model that look alike share one graph, and weights
 * that were freed or moved are noticed.
 */
#ifndef KERNELRY_PYTHON_BOUND_H
#define KERNELRY_PYTHON_BOUND_H

#include <kernelry/kernelry.h>

#include <stdbool.h>

/** How a tensor of prepared weights begins; they follow at KRY_ALIGNMENT. */
struct bound_head {
    char magic[8]; /* BOUND_MAGIC, without its end */
    uint64_t token;
};
#define BOUND_MAGIC "kernelry"

/** What the operator needs of a layer. */
struct bound {
    const void *tensor; /* where its tensor of prepared weights begins */
    uint64_t token;     /* in that tensor's head; of this layer alone, in this process alone */
    const kry_layer *layer;
    int64_t in_features, out_features;
    uint32_t type; /* KRY_TYPE_*: of x and y */
};

/** Find by address. Returns false where no layer is prepared there. Threads: safe. */
bool bound_find(const void *tensor, struct bound *out);

/** Find by what a copy of the tensor begins with, which takes longer. Threads: safe. */
bool bound_find_copy(const struct bound_head *head, struct bound *out);

/** One of the zeroed blocks of BOUND_ZEROED_BYTES on a device that belongs to a stream; NULL when
 *  there is none left. Threads: safe. */
enum { BOUND_ZEROED_BYTES = 32768, BOUND_STREAMS_MAX = 64 };
void *bound_zeroed(int32_t device, const void *stream);

#endif
