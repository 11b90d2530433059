/*
 * Tests on a GPU, through the core and the plugin as an embedder uses them. They need nothing but
 * this binary, the plugin's file and a driver, so that they can be carried to a machine with a GPU.
 * Each test is a process of its own, so that one which spoils a context spoils no other.
 */
#ifndef KERNELRY_TEST_GPU_GPU_H
#define KERNELRY_TEST_GPU_GPU_H

#include "../unit/gpu/in_child.h"
#include "../unit/gpu/weights.h"
#include "driver.h"

#include <kernelry/kernelry.h>

struct gpu {
    kry_registry *registry;
    kry_device device; /* the first, or the one that a test asks for */
    const struct gpu_driver *driver;
    struct gpu_scope scope;
};

/** Open the plugin and enter a device; ends the process with 77 where there is none. */
void gpu_begin(struct gpu *out, const char *device);

/** End the process with the core's sentence unless a call succeeded. */
void gpu_expect_ok(kry_status status, const char *what);

/** A function of the driver beyond those that the plugin uses; NULL: a driver of a test. */
void *gpu_driver_function(const char *name);

/** Memory of the device, holding a copy of `from`, or bytes of `fill`; it is never released. */
void *gpu_copy_of(const struct gpu *gpu, const void *from, uint64_t bytes);
void *gpu_filled(const struct gpu *gpu, int fill, uint64_t bytes);
/** A copy on the host, to be freed; waits for all that was enqueued on the stream. */
void *gpu_fetch(const struct gpu *gpu, const void *from, uint64_t bytes, void *stream);

/** A layer on the device; ends the process with its sentence where there is none. */
kry_layer *gpu_layer(const struct gpu *gpu, const kry_linear *linear);

/** How a checkpoint stores weights. */
enum gpu_packing {
    PACKED_CANONICAL,  /* along K, a row a feature; zero points a byte each */
    PACKED_COMPRESSED, /* compressed-tensors: the same, zero points packed along N */
    PACKED_GPTQ,       /* along K, a row for each word of K; zero points less one, along N */
    PACKED_AWQ         /* along N in AWQ's order; zero points alike */
};
enum { PACKINGS = 4 };

/** Weights as a checkpoint would hold them, in either memory. */
struct gpu_stored {
    kry_weights weights;
    kry_view qweight, scales, zero_points;
};

/** Store; N and K are multiples of a word's codes where the packing packs them. The views stay
 *  where they are. */
void gpu_store(const struct gpu *gpu, const struct weights *weights, enum gpu_packing packing,
               uint32_t memory, struct gpu_stored *out);

/** Prepare, or end the process with the sentence. */
void gpu_prepare_layer(kry_layer *layer, const struct gpu_stored *stored, void *stream);

/** The operands of an apply, on the device. */
struct gpu_operands {
    kry_apply_args args;
    double *x, *bias; /* their values: [m, K], [N] */
    uint64_t y_bytes;
};

/** How operands lie. */
struct gpu_style {
    int64_t x_gap, y_gap; /* elements between rows; NaN, and bytes that stay */
    int64_t shift;        /* elements from alignment to x, y and bias */
    bool bias;
};

void gpu_operands_make(const struct gpu *gpu, const kry_layer *layer, int64_t m,
                       const struct gpu_style *style, uint64_t seed, struct gpu_operands *out);
/** Apply, or end the process with the sentence. */
void gpu_apply(const kry_layer *layer, const struct gpu_operands *operands);
/** End the process unless y is as its values, between its rows is what was there, and the zeroed
 *  part is clear. */
void gpu_check(const struct gpu *gpu, const struct weights *weights,
               const struct gpu_operands *operands);

#endif
