/*
 * The steps of `kernelry quantize`: a plan of what becomes of each tensor, then the writing.
 */
#ifndef KERNELRY_TOOLS_QUANTIZE_H
#define KERNELRY_TOOLS_QUANTIZE_H

#include "rtn.h"
#include "safetensors_write.h"

#include <jansson.h>

/** What to do. Borrowed strings. */
struct quantize_job {
    const char *in;
    const char *out;
    const char *format;       /* "compressed-tensors", the only one so far */
    struct rtn_scheme scheme; /* its scale_type is each tensor's own */
    const char **ignore;      /* module patterns */
    size_t ignore_count;
};

/** A tensor, and where it goes. */
struct quantize_item {
    kry_tensor tensor;
    char *module; /* the name without ".weight" when it is to be quantized, else NULL */
    struct safetensors_writer *writer;
    size_t copied; /* places in the writer: of a dense tensor, */
    size_t packed; /* or of the parts of a quantized one */
    size_t scale;
    size_t zero_point;
    size_t shape;
    uint64_t bytes_after;   /* of all its parts */
    struct rtn_error error; /* of a quantized one */
};

/** A file of the checkpoint that is made. */
struct quantize_file {
    const char *in; /* the path of the file whose tensors it takes */
    const char *name;
    struct safetensors_writer *writer;
};

/** What becomes of a checkpoint. */
struct quantize_plan {
    struct rtn_scheme scheme;
    kry_checkpoint *checkpoint;
    json_t *config; /* config.json of the result */
    struct quantize_item *items;
    size_t item_count;
    struct quantize_file *files;
    size_t file_count;
    json_t *weight_map; /* tensor name -> file, for the index */
    size_t layer_count; /* items to be quantized */
    size_t short_count; /* of those, with a short last group */
    size_t stacked;     /* 3-D weights, such as fused experts, which stay dense */
    uint64_t bytes_before;
    uint64_t bytes_after;
};

/**
 * Decide what becomes of each tensor, and compose the new config.json; reads no weights.
 *
 * Errors     as kry_checkpoint_open; KRY_E_UNSUPPORTED: quantized already, or a model that
 *            stores its weights transposed; KRY_E_ARGUMENT: nothing to quantize, a group size
 *            beyond every layer, a wrong pattern.
 */
kry_status quantize_plan_create(const struct quantize_job *job, struct quantize_plan **out);
void quantize_plan_destroy(struct quantize_plan **plan);

/**
 * Write all files into `folder`, which exists and is empty. Fills in each layer's error.
 * `advance` is called with the bytes of each tensor that was read, and ends the work with
 * KRY_E_STATE when it returns false.
 *
 * Errors     KRY_E_IO; KRY_E_MEMORY; KRY_E_FORMAT: a weight that is not finite.
 */
kry_status quantize_write(struct quantize_plan *plan, const char *folder,
                          bool (*advance)(void *context, uint64_t bytes, const char *name),
                          void *context);

#endif
