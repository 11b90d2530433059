/*
 * What the files of the checkpoint library share, in the order in which a checkpoint is read:
 * files become tensors (map, safetensors, index, tensors), configs become rules (json, config,
 * pattern), rules and tensors become layers (layer; compressed_tensors, gptq, awq), and a slice
 * of a layer becomes views (slice, zero_points, weights) and gets a key (content); layers that were
 * prepared from them share a file (cache). Nothing here is public.
 */
#ifndef KERNELRY_CHECKPOINT_INTERNAL_H
#define KERNELRY_CHECKPOINT_INTERNAL_H

#include <kernelry/checkpoint.h>

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "views point into little-endian files"
#endif

/* ---- structs that cross the boundary (abi.c) ------------------------------------------ */

/** Copy a caller's struct into ours; what an older caller lacks becomes zero. */
kry_status ckpt_copy_in(void *to, size_t to_size, const void *from, const char *type);
/** Copy our struct out, as much of it as the caller knows; keeps the caller's struct_size. */
kry_status ckpt_copy_out(void *to, const void *from, size_t from_size, const char *type);

/* ---- files (map.c) --------------------------------------------------------------------- */

/** A whole file, mapped for reading. HAZARD: if somebody truncates the file meanwhile, reading
 *  beyond the new end raises SIGBUS, as with every mapping. */
typedef struct map {
    const uint8_t *data;
    size_t size;
    uint64_t identity; /* changes whenever somebody writes to the file or puts another there */
} map;

/** KRY_E_NOT_FOUND when there is no such file; the message names the path either way. */
kry_status ckpt_map_open(const char *path, map *out);
/** Tell how it will be read: by a few bytes here and there, or at length. Where a system reads
 *  megabytes ahead, the first kind would otherwise read most of the file. */
void ckpt_map_expect(const map *file, bool scattered);
void ckpt_map_close(map *file);

/* ---- JSON (json.c) --------------------------------------------------------------------- */

/** Parse text. Refuses what is no JSON, nests too deep, repeats a key or is no object. */
kry_status ckpt_json_parse(const char *text, size_t size, const char *where, json_t **out);
/** Read a file of JSON; bare NaN and Infinity, which Python writes into configs, are read as
 *  null. KRY_E_NOT_FOUND when there is no such file. */
kry_status ckpt_json_read(const char *path, json_t **out);

/* Values of an object by key; null counts as missing. KRY_E_FORMAT when of another type. */
kry_status ckpt_json_integer(const json_t *object, const char *key, const char *where,
                             int64_t missing, int64_t *out);
kry_status ckpt_json_boolean(const json_t *object, const char *key, const char *where, bool missing,
                             bool *out);
kry_status ckpt_json_string(const json_t *object, const char *key, const char *where,
                            const char *missing, const char **out);
/** The type of a value in words, for messages. */
const char *ckpt_json_type(const json_t *value);
/** The value, or NULL when missing or null. */
const json_t *ckpt_json_get(const json_t *object, const char *key);

/* ---- tensors (safetensors.c, index.c, tensors.c) --------------------------------------- */

/** A safetensors file. Names of tensors live in its parsed header. */
typedef struct shard {
    char *path;
    map map;
    json_t *header;
} shard;

/** What the checkpoint says of a layer's quantization, whatever the method. */
typedef struct scheme {
    uint32_t method; /* KRY_METHOD_* */
    uint32_t activation;
    int64_t bits;
    int64_t group_size; /* -1: one group a channel */
    bool symmetric;     /* no zero points needed */
    bool act_order;     /* as the config says; g_idx tells in the end */
    uint32_t zero;      /* KRY_ZERO_* of the stored zero points */
    char reason[160];   /* why it is outside this library, or "" */
} scheme;

/** Warnings that are given once a layer: bits of layer.warned. */
enum {
    WARNED_SCALES = 1,
    WARNED_ZERO_RULES = 2,
    WARNED_SYMMETRIC = 4,
    WARNED_ACT_ORDER = 8,
};

typedef struct layer {
    char *name;
    scheme scheme;     /* with a reason the rest is unset */
    kry_linear linear; /* of the whole layer */
    const kry_tensor *weight;
    const kry_tensor *scales;
    const kry_tensor *zeros; /* NULL when absent or of no use */
    const kry_tensor *g_idx; /* NULL when absent or without groups */
    const kry_tensor *bias;
    _Atomic uint32_t warned;
} layer;

struct kry_checkpoint {
    void (*log)(void *context, int32_t level, const char *message);
    void *log_context;
    shard *shards;
    size_t shard_count;
    kry_tensor *tensors; /* by name */
    size_t tensor_count;
    size_t tensor_capacity;
    layer *layers; /* by name, numbers as numbers */
    size_t layer_count;
    size_t layer_capacity;
    uint32_t model_type; /* KRY_TYPE_* of the model's dtype; 0: not told */
};

void ckpt_warn(const kry_checkpoint *checkpoint, const char *format, ...) KRY_PRINTF(2, 3);

/** Map one file and add its tensors. weight_map (may be NULL) tells which file owns a tensor
 *  that several hold. */
kry_status ckpt_shard_open(kry_checkpoint *checkpoint, const char *path, const json_t *weight_map);
/** Find and open the files behind a folder or file; *folder gets where the configs are. */
kry_status ckpt_files_open(kry_checkpoint *checkpoint, const char *path, char **folder);
kry_status ckpt_tensor_add(kry_checkpoint *checkpoint, const kry_tensor *tensor);
/** Sort by name. KRY_E_FORMAT: two of one name. */
kry_status ckpt_tensors_sort(kry_checkpoint *checkpoint);
/** The tensor named prefix followed by suffix, or NULL. */
const kry_tensor *ckpt_tensor_find(const kry_checkpoint *checkpoint, const char *prefix,
                                   const char *suffix);
/** Bits of an element of dtype as spelled in a file; 0 when safetensors knows none such.
 *  *dtype is 0 for one that kernelry/checkpoint.h has no name for. */
unsigned ckpt_dtype_parse(const char *text, uint32_t *dtype);
/** "I32 [4, 5]" of a tensor, for messages. */
const char *ckpt_tensor_format(const kry_tensor *tensor, char *out, size_t size);

/** A path in a folder, in fresh memory; NULL when out of it. */
char *ckpt_path_join(const char *folder, const char *name);

/* ---- names (names.c) ------------------------------------------------------------------- */

/** Order of names with numbers compared as numbers. */
int ckpt_names_compare(const char *a, const char *b);
/** Write up to three layers' names that resemble name, as "'a', 'b'"; "" when none does. */
void ckpt_names_near(const kry_checkpoint *checkpoint, const char *name, char *out, size_t size);

/* ---- patterns (pattern.c) -------------------------------------------------------------- */

/** A name of a config that is matched with modules: exact, or a regular expression. */
typedef struct pattern pattern;

/** Compile a Python regular expression; `where` is for messages. */
kry_status ckpt_pattern_create(const char *expression, const char *where, pattern **out);
void ckpt_pattern_destroy(pattern *expression);
/** As Python's re.match: anchored at the start only. KRY_E_FORMAT: it takes too long. */
kry_status ckpt_pattern_match(const pattern *expression, const char *name, bool *out);

/* ---- configs (config.c) ---------------------------------------------------------------- */

/** The quantization config of a folder and the model's dtype. */
typedef struct config {
    json_t *quantization; /* NULL: none */
    char *where;          /* the file it is of, for messages */
    uint32_t model_type;  /* KRY_TYPE_*; 0: not told */
    uint32_t method;      /* KRY_METHOD_* */
} config;

kry_status ckpt_config_read(const kry_checkpoint *checkpoint, const char *folder, config *out);
void ckpt_config_free(config *config);

/* ---- layers (layer.c and one file a method) -------------------------------------------- */

kry_status ckpt_compressed_tensors_layers(kry_checkpoint *checkpoint, const config *config);
kry_status ckpt_gptq_layers(kry_checkpoint *checkpoint, const config *config);
kry_status ckpt_awq_layers(kry_checkpoint *checkpoint, const config *config);

/** Called for each module that has a tensor of one of the suffixes. */
typedef kry_status (*module_visitor)(kry_checkpoint *checkpoint, const char *module,
                                     const void *context);
kry_status ckpt_modules_visit(kry_checkpoint *checkpoint, const char *const *suffixes,
                              size_t suffix_count, module_visitor visit, const void *context);

/** Add a layer of that module and scheme. */
kry_status ckpt_layer_add(kry_checkpoint *checkpoint, const char *module, const scheme *scheme,
                          layer **out);
/** Say why a scheme is outside this library; the first reason stays. */
void ckpt_scheme_refuse(scheme *scheme, const char *format, ...) KRY_PRINTF(2, 3);
/** Check a group_size of a config: -1 or at least 1. */
kry_status ckpt_group_size_check(int64_t group_size, const char *where);
/** Find the packed weight and the scales by their suffixes; checks that they are there, that
 *  the weight is an I32 matrix without a side of zero, and that scales are floats. */
kry_status ckpt_layer_find(const kry_checkpoint *checkpoint, layer *layer, const char *weight,
                           const char *scales);
/** Find one more tensor. KRY_E_FORMAT when it is missing. */
kry_status ckpt_layer_need(const kry_checkpoint *checkpoint, const layer *layer, const char *suffix,
                           const char *why, const kry_tensor **out);
/** Fill in the description; checks that the sizes are in bounds. */
kry_status ckpt_layer_describe(const kry_checkpoint *checkpoint, layer *layer, int64_t in_features,
                               int64_t out_features);
/** Check dtype and shape of a matrix, or of a vector (columns 0), against what the description
 *  asks for. */
kry_status ckpt_layer_check(const layer *layer, const kry_tensor *tensor, uint32_t dtype,
                            int64_t rows, int64_t columns);
/** Find g_idx (by its suffix; NULL: the method has none) and the bias, where the layer has them,
 *  and check them. */
kry_status ckpt_layer_extras(const kry_checkpoint *checkpoint, layer *layer, const char *g_idx);

/** KRY_TYPE_* of a KRY_DTYPE_*, 0 for what scales and biases are never. */
uint32_t ckpt_type_of_dtype(uint32_t dtype);

static inline int64_t divide_up(int64_t value, int64_t by) {
    return value / by + (value % by != 0);
}

/* ---- slices and views (slice.c, zero_points.c) ----------------------------------------- */

/** The slice with its ends filled in. KRY_E_ARGUMENT: empty or outside the layer. */
kry_status ckpt_slice_resolve(const layer *layer, const kry_slice *slice, kry_slice *out);
/** The description of that partition. */
kry_linear ckpt_slice_describe(const layer *layer, const kry_slice *slice);
/** The layer at index, if it can be described. */
kry_status ckpt_layer_get(const kry_checkpoint *checkpoint, size_t index, const layer **out);

/** How the zero points of a layer are stored, from that output feature and group on. */
kry_view ckpt_zero_points_view(const layer *layer, int64_t n_begin, int64_t j_begin);
/** Warn of zero points on which writers disagree, and of those of a symmetric layer that are not
 *  its bias. KRY_E_FORMAT: one that the weight type cannot have. `linear` is the partition. */
kry_status ckpt_zero_points_check(const kry_checkpoint *checkpoint, const layer *layer,
                                  const kry_view *view, const kry_linear *linear);
/** Check a layer's g_idx, and tell whether it says nothing that group_size does not say. */
kry_status ckpt_g_idx_read(const layer *layer, bool *trivial);
/** Whether this is the first warning of its kind for the layer. */
bool ckpt_layer_warns(const layer *layer, uint32_t kind);

#endif
