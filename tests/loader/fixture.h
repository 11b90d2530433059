/*
 * What the loader's tests share: scratch folders, damaged copies of files, registries over
 * chosen mocks with their log kept, descriptions and the product that apply is compared with.
 */
#ifndef KERNELRY_TESTS_FIXTURE_H
#define KERNELRY_TESTS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <kernelry/kernelry.h>

#include <pthread.h>
#include <stdbool.h>

/* ---- files ------------------------------------------------------------------------------ */

enum { FIXTURE_PATH = 1024 };

/** A file's whole content. */
typedef struct content {
    unsigned char *bytes;
    size_t size;
} content;

/** The path of a mock, such as "seed" or "good.so"; valid until the eighth call after it. */
const char *mock_path(const char *name);
/** The minor of the headers that the mocks are compiled against; ours, unless the environment's
 *  LOADER_MOCKS names a folder of others. */
uint32_t mocks_minor(void);
/** A path inside a folder; as mock_path. */
const char *path_in(const char *folder, const char *name);
/** A new empty folder that nobody else may write; gone when the process ends. */
const char *scratch_folder(void);

content read_file(const char *path);
void write_file(const char *path, const void *bytes, size_t size);
void copy_file(const char *from, const char *to);
/** Where our note's descriptor begins in a shared object. */
size_t find_note(const content *file);

/* ---- registries -------------------------------------------------------------------------- */

/** What a registry logged, line by line with its level in front ("2 text\n"). */
typedef struct log_lines {
    pthread_mutex_t lock;
    char text[65536];
    size_t length;
    int warnings;
} log_lines;

void log_init(log_lines *log);
void log_line(void *context, int32_t level, const char *message);

/** Options that see neither the environment nor the install's own plugins. */
kry_registry_options closed_options(const char *const *paths, size_t count);
/** Open; a test fails when that fails. `log` may be NULL. */
kry_registry *open_options(kry_registry_options options, log_lines *log);
/** Open over the given mocks alone (names as for mock_path), ended by NULL. */
kry_registry *open_mocks(log_lines *log, ...);

/** The plugin found at a path or called by a name; false where there is none. */
bool find_plugin(const kry_registry *registry, const char *name_or_path, kry_plugin_info *out);
/** Open a registry over one file, named outright, and tell what became of it. The strings of
 *  *out live until the next call. */
void examine_file(const char *path, kry_plugin_info *out);
/** Kernels of a platform in order, "a b c"; as mock_path. */
const char *kernel_order(const kry_registry *registry, const char *platform);

kry_device find_device(const kry_registry *registry, const char *name);

/* ---- descriptions, weights, products ------------------------------------------------------ */

/** K x N, groups, weight type and one type for all else. */
kry_linear describe(int64_t in_features, int64_t out_features, int64_t group_size,
                    uint32_t weight_type, uint32_t type);

kry_decision *decide(const kry_registry *registry, const char *device, const kry_linear *linear);
/** The chosen kernel's name, or "none". */
const char *chosen(const kry_decision *decision);
/** The candidate of that kernel. */
kry_candidate candidate_of(const kry_decision *decision, const char *kernel);

/** The next number of one fixed sequence, so that a failure repeats itself. */
uint32_t draw(void);
/** A float in [-1, 1). */
float draw_float(void);

/** Weights drawn at random for a description, true values in plain arrays. */
typedef struct plain_weights {
    kry_linear linear; /* complete */
    int64_t groups;
    uint8_t *codes; /* [N][K] */
    uint8_t *zeros; /* [N][G]; the bias where the type has no zero points */
    float *scales;  /* [N][G], exact in the description's scale type */
    int32_t *g_idx; /* [K], always: each column's group */
} plain_weights;

plain_weights draw_weights(const kry_linear *linear);
void free_weights(plain_weights *weights);

/** How to store plain weights as a stack would: packing, order, zero points, placement. */
typedef struct storage {
    uint32_t weight_axis; /* KRY_AXIS_*, 0: a byte each */
    uint32_t weight_order;
    uint32_t word_bits; /* of packed weights; 0: 32 */
    uint32_t zero_axis; /* 0: a byte each */
    uint32_t zero_order;
    uint32_t zero_encoding;
    int64_t n_begin, k_begin, g_begin; /* of larger tensors than the layer */
    bool transposed;                   /* [K, N] and [G, N], as GPTQ and AWQ hold them */
    int64_t misaligned;                /* bytes by which data is off its alignment */
} storage;

/** Views over freshly packed tensors. */
typedef struct stored_weights {
    kry_weights weights;
    kry_view qweight, scales, zero_points;
    unsigned char *memory[3];
} stored_weights;

void store_weights(const plain_weights *plain, const storage *how, stored_weights *out);
void free_stored(stored_weights *stored);

/** y[n] = sum over k of x[k] * dequant(W)[n][k], one row, in double. */
void product(const plain_weights *weights, const float *x, double *y);

/** A layer with its weights, and operands to apply it to. */
typedef struct applied_layer {
    kry_layer *layer;
    plain_weights plain;
    stored_weights stored;
    kry_apply_args args; /* complete for m rows, in host memory; y holds NaN */
    float *x, *y, *bias;
    void *scratch, *zeroed;
} applied_layer;

/** Create a layer on a device of the registry, store weights for it, make operands for m rows.
 *  Nothing is prepared yet. */
void make_layer(kry_registry *registry, const char *device, const kry_linear *linear, int64_t m,
                applied_layer *out);
void free_layer(applied_layer *layer);
/** Prepare from the stored weights into memory of the layer's own. */
kry_status prepare_layer(applied_layer *layer);
kry_status apply_layer(applied_layer *layer);
/** That apply fails in this way, with a message, and leaves y alone. */
void assert_apply_refused(applied_layer *layer, kry_status expected);
/** Overwrite y with NaN. */
void poison(applied_layer *layer);
/** Whether y still is what poison left. */
bool untouched(const applied_layer *layer);
/** The worst relative error of a row of y; infinite where an element is NaN. */
double error_of(const applied_layer *layer);

/** Room for so many bytes, at KRY_ALIGNMENT and filled with what nobody wrote; for free. */
void *make_room(uint64_t bytes);

/* ---- one registry, for tests that need no other ------------------------------------------ */

extern kry_registry *registry;
/** Setups that open it over dense.so, or over a toy's platform and kernel; and their teardown. */
int open_dense(void **state);
int open_toy(void **state);
int close_registry(void **state);

/** A small layer of dense.so, and the same in f32 with its weights prepared, for m rows. */
kry_linear small_layer(void);
void make_small(int64_t m, applied_layer *out);
void make_prepared(int64_t m, applied_layer *out);

/** The second half of a layer that starts inside a group. */
kry_linear toy_shard(void);
/** A layer of two rows on a toy whose operands are the toy's: host memory seen through the device's
 *  eyes. */
void make_on_toy(const kry_linear *linear, applied_layer *out);

#endif
