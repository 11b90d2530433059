/*
 * Kernelry for embedders: quantized layers out of a checkpoint (safetensors and the
 * quantization config beside it) as descriptions and weights views.
 *
 * Files are mapped; views point into the mapping, nothing is copied that need not be. It is
 * a library of its own (kernelry-checkpoint) on top of kernelry.h; errors are reported in the
 * same way, through kry_error_message().
 */
#ifndef KERNELRY_CHECKPOINT_H
#define KERNELRY_CHECKPOINT_H

#include <kernelry/kernelry.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A checkpoint: mapped tensors and the quantized layers among them. */
typedef struct kry_checkpoint kry_checkpoint;

/** Options of kry_checkpoint_open; all zero is the default. */
typedef struct kry_checkpoint_options {
    size_t struct_size;
    /** Warnings, such as zero points on which writers' rules disagree. NULL: none. */
    void (*log)(void *context, int32_t level, const char *message);
    void *context; /* the first argument of log */
} kry_checkpoint_options;

/**
 * Open a model folder (config.json, quantize_config.json; model.safetensors, or
 * model.safetensors.index.json and its shards, or any one *.safetensors) or a .safetensors
 * file with the configs beside it. Reads headers only; no tensor's bytes are touched.
 *
 * Errors     KRY_E_IO, KRY_E_MEMORY; KRY_E_FORMAT: damaged or contradictory (a header beyond
 *            the file, overlapping tensors, JSON that is none, a shape that disagrees with
 *            the config, a missing tensor or shard); KRY_E_UNSUPPORTED: an unknown
 *            quant_method. The message names file, tensor or layer, found, expected.
 * Threads    safe. An open checkpoint is immutable and may be read from any thread.
 */
KRY_API kry_status kry_checkpoint_open(const char *path, const kry_checkpoint_options *options,
                                       kry_checkpoint **out);

/** Unmap. No view or tensor of the checkpoint may be used afterwards. */
KRY_API void kry_checkpoint_close(kry_checkpoint **checkpoint);

/* ---- tensors ------------------------------------------------------------------------- */

/** Element types of stored tensors. */
enum {
    KRY_DTYPE_BOOL = 1,
    KRY_DTYPE_U8,
    KRY_DTYPE_I8,
    KRY_DTYPE_F8_E4M3,
    KRY_DTYPE_F8_E5M2,
    KRY_DTYPE_I16,
    KRY_DTYPE_U16,
    KRY_DTYPE_F16,
    KRY_DTYPE_BF16,
    KRY_DTYPE_I32,
    KRY_DTYPE_U32,
    KRY_DTYPE_F32,
    KRY_DTYPE_I64,
    KRY_DTYPE_U64,
    KRY_DTYPE_F64
};

#define KRY_TENSOR_RANK_MAX 8

/** A stored tensor, row-major. Ownership: all pointers live as long as the checkpoint. */
typedef struct kry_tensor {
    size_t struct_size;
    const char *name;                   /* as it is stored */
    const char *file;                   /* the path of the file that holds it */
    const void *data;                   /* little-endian, any alignment */
    uint64_t bytes;                     /* of its data */
    int64_t shape[KRY_TENSOR_RANK_MAX]; /* from the outermost axis on */
    uint32_t rank;                      /* of shape */
    uint32_t dtype;                     /* KRY_DTYPE_* */
} kry_tensor;

/** Tensors of all files, in the order of their names. */
KRY_API size_t kry_checkpoint_tensor_count(const kry_checkpoint *checkpoint);
/** Errors: KRY_E_NOT_FOUND past the last. */
KRY_API kry_status kry_checkpoint_tensor(const kry_checkpoint *checkpoint, size_t index,
                                         kry_tensor *out);
/** Errors: KRY_E_NOT_FOUND. */
KRY_API kry_status kry_checkpoint_find_tensor(const kry_checkpoint *checkpoint, const char *name,
                                              kry_tensor *out);

/** "F16", as safetensors spells it. */
KRY_API const char *kry_dtype_string(uint32_t dtype);
/** Bytes of an element. */
KRY_API size_t kry_dtype_bytes(uint32_t dtype);

/* ---- layers -------------------------------------------------------------------------- */

/** How a layer's weights are stored. */
enum { KRY_METHOD_COMPRESSED_TENSORS = 1, KRY_METHOD_GPTQ = 2, KRY_METHOD_AWQ = 3 };

/**
 * A quantized linear layer as it is stored, read from headers and config.
 *
 * Ownership  strings live as long as the checkpoint.
 */
typedef struct kry_checkpoint_layer {
    size_t struct_size;
    const char *name;         /* the module, such as "model.layers.0.mlp.down_proj" */
    const char *reason;       /* why the layer cannot be described, or "" */
    kry_status status;        /* KRY_OK, or KRY_E_UNSUPPORTED: a scheme outside this library */
    uint32_t method;          /* KRY_METHOD_* */
    uint32_t has_bias;        /* 0 or 1 */
    uint32_t reserved;        /* 0 */
    const kry_linear *linear; /* complete; x_type, y_type: the model's dtype. NULL without KRY_OK */
} kry_checkpoint_layer;

/** Quantized layers, in the order of their names with numbers compared as numbers. */
KRY_API size_t kry_checkpoint_layer_count(const kry_checkpoint *checkpoint);
/** Errors: KRY_E_NOT_FOUND past the last. */
KRY_API kry_status kry_checkpoint_layer_at(const kry_checkpoint *checkpoint, size_t index,
                                           kry_checkpoint_layer *out);
/** Tell the index of a layer. Errors: KRY_E_NOT_FOUND, naming near misses. */
KRY_API kry_status kry_checkpoint_find_layer(const kry_checkpoint *checkpoint, const char *name,
                                             size_t *index);

/** A partition of a layer: rows (output features) and columns (input features). */
typedef struct kry_slice {
    size_t struct_size;
    int64_t n_begin; /* the first output feature */
    int64_t n_end;   /* 0: to the end */
    int64_t k_begin; /* the first column */
    int64_t k_end;   /* 0: to the end */
} kry_slice;

/** The description of a partition, from the headers alone. NULL: the whole layer. */
KRY_API kry_status kry_checkpoint_slice(const kry_checkpoint *checkpoint, size_t index,
                                        const kry_slice *slice, kry_linear *out);

/**
 * A partition's description and weights, ready for kry_layer_prepare.
 *
 * Ownership  everything it points to belongs to it or to the checkpoint, and lives until it
 *            is destroyed.
 */
typedef struct kry_checkpoint_weights {
    size_t struct_size;
    const kry_linear *linear;   /* the description */
    const kry_weights *weights; /* in host memory */
    const void *bias;           /* [out_features], or NULL */
    uint32_t bias_dtype;        /* KRY_DTYPE_*; not always the description's y_type */
    uint32_t reserved;          /* 0 */
} kry_checkpoint_weights;

/**
 * Make the views of a partition. Reads scales and zero points once to warn of NaN, infinity
 * and contradictions, and g_idx to tell a real act-order from a trivial one (the description
 * says act_order 0 then).
 *
 * Errors     KRY_E_ARGUMENT: an empty slice or one outside the layer; KRY_E_FORMAT: g_idx
 *            names a group that is not there; KRY_E_MEMORY; KRY_E_UNSUPPORTED as the layer's.
 * Threads    safe.
 */
KRY_API kry_status kry_checkpoint_weights_create(const kry_checkpoint *checkpoint, size_t index,
                                                 const kry_slice *slice,
                                                 kry_checkpoint_weights **out);
KRY_API void kry_checkpoint_weights_destroy(kry_checkpoint_weights **weights);

/** What a content key is made of. */
enum {
    KRY_CONTENT_FILES = 0, /* the files' sizes, inodes and times, and where the tensors lie in them:
                              reads no tensor; a copy of the files has another key */
    KRY_CONTENT_BYTES = 1 /* a hash of the layer's tensors: reads them all, stays true for copies */
};

/**
 * The content key of a partition, for kry_layer_save and kry_layer_map, and its description as
 * kry_checkpoint_weights_create tells it: all that a second start needs before it maps. The key
 * covers the tensors, how they are read, and the slice.
 *
 * slice      NULL: the whole layer
 * how        KRY_CONTENT_*
 * linear     NULL: not wanted; else filled, struct_size set before
 * content    room for KRY_CONTENT_MAX + 1 bytes, `size` of them
 * Errors     KRY_E_ARGUMENT, KRY_E_FORMAT, KRY_E_UNSUPPORTED as kry_checkpoint_weights_create.
 * Threads    safe.
 */
KRY_API kry_status kry_checkpoint_content(const kry_checkpoint *checkpoint, size_t index,
                                          const kry_slice *slice, uint32_t how, kry_linear *linear,
                                          char *content, size_t size);

/* ---- a cache of prepared weights ------------------------------------------------------- */

/**
 * The file of one model's prepared weights in a folder (docs/prepared.md): layers are mapped from
 * it while they are good; those that are not are saved into a new file beside it, which takes its
 * place as a whole. A start does, for each layer that was added:
 *
 *     kry_checkpoint_cache_find(cache, name, &map) || kry_layer_map(layer, &map)
 *     // KRY_E_NOT_FOUND, _FORMAT, _FOREIGN, _STALE: prepare, then
 *     kry_checkpoint_cache_renew(cache, name, &save) || kry_layer_save(layer, &save)
 *
 * and at the end kry_checkpoint_cache_commit. `content` of both is the caller's to set.
 *
 * Threads    one call at a time on a cache; finds may go on beside each other, and maps and saves,
 *            which do not touch it, beside anything but its commit.
 */
typedef struct kry_checkpoint_cache kry_checkpoint_cache;

/**
 * Begin; no file is touched.
 *
 * folder     must be there when a layer is renewed
 * model      its path, after whose last name the file is named; it need not exist
 * Ownership  copies both.
 * Errors     KRY_E_ARGUMENT: a path that is too long, among others; KRY_E_MEMORY.
 */
KRY_API kry_status kry_checkpoint_cache_open(const char *folder, const char *model,
                                             kry_checkpoint_cache **out);

/**
 * Give a layer its place, behind those that were added before. The names, layouts and descriptions
 * of all name the file: add every layer, in an order that is the same at each start (the
 * checkpoint's), before any is found. Its weights are not looked at.
 *
 * Ownership  copies the name; the layer may be destroyed, and made again to be mapped.
 * Errors     KRY_E_ARGUMENT: a name that was added before, among others; KRY_E_STATE: after a
 *            renewal; KRY_E_MEMORY. The cache is as it was.
 */
KRY_API kry_status kry_checkpoint_cache_add(kry_checkpoint_cache *cache, const char *name,
                                            const kry_layer *layer);

/**
 * Tell where a layer is to be mapped: sets path, offset and bytes, whether or not there is
 * anything. Other fields are the caller's.
 *
 * Ownership  the path lives as long as the cache.
 * Errors     KRY_E_NOT_FOUND: no such layer was added; KRY_E_ARGUMENT; KRY_E_ABI: a struct that
 *            lacks these fields. *out is as it was.
 */
KRY_API kry_status kry_checkpoint_cache_find(const kry_checkpoint_cache *cache, const char *name,
                                             kry_map_args *out);

/**
 * Tell where a layer is to be saved instead: sets path and offset, and KRY_SAVE_INTO in flags.
 * The first one makes the new file. After a save that failed, close without a commit.
 *
 * Ownership  the path lives until the commit.
 * Errors     as kry_checkpoint_cache_find; KRY_E_IO: the folder cannot be written to.
 */
KRY_API kry_status kry_checkpoint_cache_renew(kry_checkpoint_cache *cache, const char *name,
                                              kry_save_args *out);

/**
 * Give the new file, if one was made, the layers of the old that were not renewed, make it durable
 * and put it in place. Mappings of the old file stay as they are. Of several that commit to one
 * file, also from other processes, the last wins.
 *
 * Errors     KRY_E_IO, a full disk among others: the new file is gone, the old is as it was.
 */
KRY_API kry_status kry_checkpoint_cache_commit(kry_checkpoint_cache *cache);

/** End; what was renewed and not committed is removed. */
KRY_API void kry_checkpoint_cache_close(kry_checkpoint_cache **cache);

#ifdef __cplusplus
}
#endif
#endif
