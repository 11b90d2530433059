/*
 * What the files of the core share, in the order of its three streams: a file becomes a
 * plugin (find, note, trust, load, order), a description becomes a decision (linear, rewrite,
 * decide), weights become a layer (weights, layer). Nothing here is public.
 */
#ifndef KERNELRY_CORE_H
#define KERNELRY_CORE_H

#include <kernelry/kernelry.h>
#include <kernelry/plugin.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/* ---- abi.c: structs that cross the boundary ------------------------------------------- */

/** Copy a caller's struct into ours, zero-filling what an older caller lacks. `least` is its
 *  size in the first ABI. KRY_E_ABI: smaller than that, or larger with meanings unknown here. */
kry_status core_copy_in(void *to, size_t to_size, const void *from, size_t least, const char *type);

/** Copy our struct out to a caller's, as much of it as the caller knows; keeps struct_size. */
kry_status core_copy_out(void *to, const void *from, size_t from_size, const char *type);

#define COPY_IN(to, from, type) core_copy_in((to), sizeof(type), (from), sizeof(type), #type)
/** Likewise for a struct that has grown; `first_new` is the first field that it lacked at first. */
#define COPY_IN_SINCE(to, from, type, first_new)                                                   \
    core_copy_in((to), sizeof(type), (from), offsetof(type, first_new), #type)
#define COPY_OUT(to, from, type) core_copy_out((to), (from), sizeof(type), #type)

/** A printf into fresh memory; NULL when out of it. */
char *core_format(const char *format, ...) KRY_PRINTF(1, 2);

/* ---- error.c --------------------------------------------------------------------------- */

/** Make a text fit for one line of a log or a terminal, in place, whoever wrote it: control
 *  characters, C1's too, and bytes that are no UTF-8 become '?', line feeds and tabs spaces. */
void core_clean(char *text);

/* ---- host.c: services, ours or the embedder's ------------------------------------------ */

/** The services that a registry gives to kernels: the embedder's, then the platform's, then
 *  our own. */
struct host_services {
    kry_host offered;  /* what kernels get; its context is this struct */
    kry_host embedder; /* zeroed when there is none */
    const kry_host *platform;
    int32_t stderr_level; /* of KERNELRY_LOG; 0: silent */
};

void core_host_init(struct host_services *services, const kry_host *embedder,
                    bool read_environment);
/** Copy an embedder's services; KRY_E_ARGUMENT: allocate without release, or the other way. */
/** Warn of a KERNELRY_THREADS that the CPU platform's plugin, which has no log, cannot follow. */
void core_host_check_threads(const struct host_services *services);
kry_status core_host_copy(kry_host *to, const kry_host *from);
void core_log(const struct host_services *services, int32_t level, const char *format, ...)
    KRY_PRINTF(3, 4);

/* ---- device.c -------------------------------------------------------------------------- */

/** Features of this processor. */
uint64_t core_cpu_features(void);
/** Drop what cannot be used without a feature that is missing, as AVX-512 without AVX2. */
uint64_t core_cpu_features_close(uint64_t features);
/** Parse "avx2,avx512" or "none". KRY_E_ARGUMENT names the word that is unknown. */
kry_status core_cpu_features_parse(const char *text, uint64_t *out);
/** Describe this CPU as seen through a mask of features. */
void core_cpu_describe(uint64_t features, kry_device *out);

/* ---- find.c: where plugins may be ------------------------------------------------------ */

struct found_file {
    char *path;          /* real path, or as given when it cannot be resolved */
    bool named_outright; /* not from a directory */
    kry_status status;   /* not KRY_OK: it cannot even be looked at */
    char *reason;
};

struct found {
    struct found_file *files;
    size_t count;
    char **directories; /* searched, in order */
    size_t directory_count;
};

kry_status core_find(const kry_registry_options *options, const struct host_services *log,
                     struct found *out);
void core_found_free(struct found *found);

/** The path of the file whose code or data is mapped at the address, as the system tells it now:
 *  another than it was loaded by when it was renamed since, with " (deleted)" behind it when it is
 *  no more. *out is NULL when the system does not tell. KRY_E_MEMORY is the only error. */
kry_status core_mapped_path(const void *address, char **out);
/** Of the file that this code was loaded from. */
kry_status core_own_path(char **out);
/** A part of the install, kernelry/NAME beside the library; for a program with the static library
 *  inside, in the lib directory beside its own. As core_mapped_path. */
kry_status core_beside(const char *name, char **out);

/* ---- note.c: what a file says of itself, before anything of it runs -------------------- */

/** Read the note of an open shared object of `size` bytes. *present is false where there is
 *  none of ours. KRY_E_FORMAT, KRY_E_ABI, KRY_E_IO: the sentence is set, without the path. */
kry_status core_note_read(int file, uint64_t size, kry_note *out, bool *present);

/** Whether the image that the loader mapped at the address carries this very note. */
bool core_note_is_loaded(const void *address_inside, const kry_note *note);

/** Whether the text of a name is one to three dozen letters, digits, '_', '-', '.'. */
bool core_name_is_valid(const char *name, size_t capacity);

static inline uint64_t note_cpu_features(const kry_note *note) {
    return (uint64_t)note->cpu_features_high << 32 | note->cpu_features_low;
}

/* ---- trust.c --------------------------------------------------------------------------- */

/** KRY_E_TRUST: somebody other than root, this user or the owner of this library could have
 *  written the file or swapped it through a directory above. Where trust is relaxed, `relaxed` is
 *  warned instead, with what is `done` to the file all the same; else it is NULL. */
kry_status core_trust(const char *real_path, const struct stat *file, uid_t library_owner,
                      const struct host_services *relaxed, const char *done);
/** Root where it cannot be told. KRY_E_MEMORY is the only error. */
kry_status core_library_owner(uid_t *out);

/* ---- override.c: the operator's word ---------------------------------------------------- */

struct override {
    char *name;       /* a plugin, a kernel or "plugin/kernel" */
    int32_t value;    /* of a priority */
    bool environment; /* it wins over code */
    bool used;
};

struct override_list {
    struct override *items;
    size_t count;
};

struct overrides {
    struct override_list disable, prefer, priority; /* the environment's, then the code's */
};

kry_status core_overrides_read(const kry_registry_options *options, const struct host_services *log,
                               struct overrides *out);
void core_overrides_free(struct overrides *overrides);
/** The first entry that matches, all marked as used; kernel NULL asks for the plugin as a whole. */
struct override *core_override_find(struct override_list *list, const char *plugin,
                                    const char *kernel);
void core_overrides_warn_unused(const struct overrides *overrides, const struct host_services *log);

/* ---- load.c ---------------------------------------------------------------------------- */

struct plugin {
    char *path;
    char *reason; /* NULL when there is none */
    uint32_t state;
    kry_status status;
    bool named_outright;
    bool has_note;
    dev_t device;
    ino_t inode;
    kry_note note;
    const kry_plugin *table; /* only when loaded */
};

/** What loading needs to know of the registry that is being opened. */
struct load_context {
    const struct host_services *log;
    struct overrides *overrides;
    uint64_t cpu_features;
    uid_t library_owner;
    bool relax_trust;
    const char *probe_helper; /* NULL: plugins are loaded without a trial */
    uint32_t probe_milliseconds;
    void (*step)(const char *what); /* in a trial: told what the plugin does next. NULL: nobody */
    struct plugin *plugins;         /* those before this one */
    size_t count;
    size_t *by_inode; /* hashed, open addressing: the place of a plugin, from 1; 0 is free */
    size_t slots;     /* a power of two, more than there are files */
};

/** Check and load one file; whatever is wrong with it is recorded in *out. KRY_E_MEMORY is the
 *  only error. *skip: it is a plugin that was seen already, by another path. */
kry_status core_load(struct load_context *context, const struct found_file *file,
                     struct plugin *out, bool *skip);
void core_plugin_free(struct plugin *plugin);

/* ---- probe.c: a trial in a process of its own --------------------------------------------- */

/** The helper that tries plugins, for free. KRY_E_IO, KRY_E_TRUST: it is not there, or somebody
 *  else could have written it. */
kry_status core_probe_find(const struct load_context *context, char **out);
/** Let a plugin that is about to be loaded run in a process of its own. KRY_OK: it came through;
 *  KRY_E_PLUGIN: it crashed, hung or ended that process; KRY_E_IO: there was no trial; or what
 *  loading it here would answer. */
kry_status core_probe(const struct load_context *context, const struct plugin *plugin);

/* ---- order.c --------------------------------------------------------------------------- */

/** A registered kernel: our own copies of its tables, zero-filled to the size we know. */
struct ranked_kernel {
    kry_kernel kernel;
    kry_linear_kernel linear;
    const struct plugin *plugin;
    int32_t priority;
    int32_t preference; /* place in the list of preferences, INT32_MAX: not in it */
    uint32_t table_index;
    bool fallback;
};

struct ranked_kernels {
    struct ranked_kernel *items;
    size_t count;
};

/** Collect the kernels of the loaded plugins and sort them: by platform, preference, fallback
 *  last, priority, plugin's name, place in its table. */
kry_status core_order(struct plugin *plugins, size_t count, struct overrides *overrides,
                      const struct host_services *log, struct ranked_kernels *out);

/** The platform's operations from the first plugin in order that offers them, or NULL. */
const kry_platform *core_order_platform(const struct plugin *plugins, size_t count,
                                        const char *platform);

/* ---- registry.c ------------------------------------------------------------------------ */

enum { WARNED_SLOTS = 4096 };

/** A kernel's state on a device, shared by all layers of the registry. */
struct opened_device {
    struct opened_device *next;
    const struct ranked_kernel *kernel;
    kry_device device;
    void *state;
    bool opening; /* by one thread; others that want it wait */
};

struct kry_registry {
    atomic_size_t references; /* the embedder's, and one a layer */
    struct host_services services;
    struct plugin *plugins;
    size_t plugin_count;
    char **directories;
    size_t directory_count;
    struct ranked_kernels kernels;
    uint64_t cpu_features;
    pthread_mutex_t opening; /* guards `opened` alone, and is held for no call of a plugin */
    pthread_cond_t opened_one;
    struct opened_device *opened;
    _Atomic uint64_t warned[WARNED_SLOTS]; /* hashes of shapes; 0 is a free slot */
};

void core_registry_retain(kry_registry *registry);
/** The platform's kernels, contiguous in the order they are asked. */
const struct ranked_kernel *core_registry_kernels(const kry_registry *registry,
                                                  const char *platform, size_t *count);
const kry_platform *core_registry_platform(const kry_registry *registry, const char *platform);
/** What the plugin behind a platform's operations says of the one that just failed on this thread;
 *  "" when it says nothing, or operations are NULL. */
const char *core_platform_sentence(const kry_registry *registry, const kry_platform *operations);
kry_status core_kernel_describe(const struct ranked_kernel *kernel, kry_kernel_info *out);

/* ---- linear.c, rewrite.c, refusal.c, decide.c ------------------------------------------ */

/** A description in words: "2112x2816 g32 u4b8, bf16". As snprintf. */
size_t core_linear_format(const kry_linear *linear, char *out, size_t size);

/** The exact equivalent whose groups do not straddle the partition's edges; false where the
 *  description has none. *bytes: more scales and zero points. */
bool core_rewrite_split_groups(const kry_linear *linear, kry_linear *out, uint64_t *bytes);

/** What an embedder could do about a refusal, or NULL. */
const char *core_refusal_help(uint32_t code);

struct answer {
    int64_t accepted; /* can_implement's, or KRY_REFUSED */
    kry_refusal refusal;
};

/** Ask one kernel: refuses on its behalf what it cannot understand, and a refusal without a
 *  reason gets one. */
void core_ask(const struct ranked_kernel *kernel, const kry_device *device,
              const kry_linear *linear, struct answer *out);

/** Decide without warning, among all kernels of the platform or about `only` one. */
kry_status core_decide(const kry_registry *registry, const kry_device *device,
                       const kry_linear *linear, const struct ranked_kernel *only,
                       kry_decision **out);
/** The chosen kernel, or NULL. */
const struct ranked_kernel *core_decision_kernel(const kry_decision *decision);
const kry_decision_info *core_decision_info(const kry_decision *decision);
/** Every candidate with its reason, for error messages; returns the length, as snprintf. */
size_t core_decision_format(const kry_decision *decision, char *out, size_t size);

/* ---- view.c, weights.c ----------------------------------------------------------------- */

/** Check that views fit a description and stay inside their bytes; values of g_idx too. */
kry_status core_weights_check(const kry_linear *linear, const kry_weights *weights);

/** A word of a checked view; the bits of an element; a true zero point of b-bit weights. */
uint32_t core_view_word(const kry_view *view, int64_t word);
uint32_t core_view_element(const kry_view *view, int64_t n, int64_t j);
uint32_t core_view_zero(const kry_view *view, int32_t bits, int64_t n, int64_t g);

/** Dense rows for a range of output features. */
struct canonical_buffers {
    uint32_t *qweight;
    void *scales;
    uint8_t *zero_points;
};

/** Bytes of the three buffers for `rows` rows, each aligned. */
uint64_t core_canonical_bytes(const kry_linear *linear, int64_t rows);
void core_canonical_place(const kry_linear *linear, int64_t rows, void *memory,
                          struct canonical_buffers *out);

/** Put rows n_begin..n_end of checked host weights into the canonical layout of `linear`,
 *  `stored` being the description of the views (its groups differ after a rewrite). With
 *  pass_through, a member that is canonical where it lies is not copied. */
void core_canonicalise(const kry_linear *stored, const kry_linear *linear,
                       const kry_weights *weights, int64_t n_begin, int64_t n_end,
                       const struct canonical_buffers *buffers, const kry_host *host,
                       bool pass_through, kry_canonical *out);

/* ---- layer.c, prepare.c ---------------------------------------------------------------- */

struct kry_layer {
    kry_registry *registry;
    const struct ranked_kernel *kernel;
    const kry_platform *platform; /* or NULL */
    kry_device device;
    kry_linear stored; /* as asked, complete: what views are described by */
    kry_linear linear; /* as the kernel takes it */
    kry_sizes sizes;   /* the kernel's */
    kry_binding binding;
    void *prepared;
    uint32_t memory; /* KRY_MEMORY_* of prepared */
    bool owns_prepared;
    bool filled;   /* prepared holds weights */
    bool ready;    /* to be applied, unless the device is hypothetical */
    void *mapping; /* of a file that prepared lies in, or NULL */
    uint64_t mapping_bytes;
};

/** Set the error for a kernel's function that failed, with what the plugin says of it. */
kry_status core_kernel_failed(const struct ranked_kernel *kernel, const char *function,
                              kry_status status);
/** All the scratch of a prepare: the kernel's and the canonical rows'. */
uint64_t core_prepare_scratch(const struct kry_layer *layer);

/* ---- place.c: where prepared weights lie ------------------------------------------------ */

/** Memory for prepared weights. */
struct target {
    void *prepared; /* NULL: yet to be allocated */
    uint32_t memory;
    bool owned; /* by the layer */
};

/** KRY_MEMORY_* that kernels of the device apply from. */
uint32_t core_device_memory(const kry_device *device);
/** Where prepared weights go: the caller's buffer, the place of before, or fresh memory.
 *  KRY_E_ARGUMENT: the buffer is too small, not aligned or in memory of no use. */
kry_status core_choose_target(const struct kry_layer *layer, void *prepared, uint64_t bytes,
                              uint32_t memory, struct target *out);
/** Let the layer's prepared weights lie there from now on; it has none until they are bound. */
void core_adopt(struct kry_layer *layer, const struct target *target);
/** Let the kernel bind what is prepared; then the layer has weights. */
kry_status core_bind(struct kry_layer *layer);
void core_release_prepared(struct kry_layer *layer);

/** Memory for a layer from the host (NULL functions: the registry's) or its device; NULL when out
 *  of it. */
void *core_allocate(const struct kry_layer *layer, const kry_host *host, uint32_t memory,
                    uint64_t bytes);
void core_release(const struct kry_layer *layer, const kry_host *host, uint32_t memory, void *block,
                  uint64_t bytes);
/** Set the error for a platform's operation that just failed: what failed, and what its plugin
 *  says of it. */
kry_status core_platform_failed(const struct kry_layer *layer, kry_status status,
                                const char *format, ...) KRY_PRINTF(3, 4);

/* ---- hash.c, file.c, save.c, map.c: prepared weights in files --------------------------- */

/** Bytes that are hashed, copied or cleared as one task. */
#define CORE_HASH_BLOCK (UINT64_C(1) << 20)

static inline uint64_t core_hash_block_count(uint64_t bytes) {
    return bytes / CORE_HASH_BLOCK + (bytes % CORE_HASH_BLOCK != 0);
}

/** Where block i of so many bytes begins, and its size. */
static inline uint64_t core_hash_block(uint64_t bytes, int64_t i, uint64_t *begin) {
    *begin = (uint64_t)i * CORE_HASH_BLOCK;
    uint64_t left = bytes - *begin;
    return left < CORE_HASH_BLOCK ? left : CORE_HASH_BLOCK;
}

/** Hash the blocks of `data`, the first being number `first` of the whole, on the host's threads.
 */
void core_hash_blocks(const void *data, uint64_t bytes, uint64_t first, uint64_t *hashes,
                      const kry_host *host);

/** Where the weights begin in a file: aligned as kernels want, behind the header. */
#define CORE_FILE_DATA_AT KRY_SAVED_HEADER

/** The header of a file of prepared weights, in this machine's byte order. */
struct file_header {
    char magic[8];
    uint32_t byte_order;
    uint32_t format;
    uint64_t header_hash; /* of all CORE_FILE_DATA_AT bytes, this field being 0 */
    uint64_t data_hash;   /* of the hashes of the weights' blocks */
    uint64_t prepared_bytes;
    uint32_t layout_version;
    uint32_t reserved;     /* 0 */
    char layout_name[128]; /* zeros behind it, as behind content */
    char content[KRY_CONTENT_MAX + 1];
    unsigned char linear[256]; /* the kernel's kry_linear, struct_size 0, zeros behind it */
    unsigned char zeros[CORE_FILE_DATA_AT - 48 - 128 - (KRY_CONTENT_MAX + 1) - 256];
};
_Static_assert(sizeof(struct file_header) == CORE_FILE_DATA_AT, "the header fills its place");
_Static_assert(sizeof(kry_linear) <= 256, "a description fits the header");

/** KRY_E_ARGUMENT: no content, or one that is too long or not printable. */
kry_status core_file_check_content(const char *content);
/** KRY_E_ARGUMENT: no place where a layer may begin in a file. */
kry_status core_file_check_offset(uint64_t offset);
/** The header of what a layer's prepared weights are saved with. KRY_E_UNSUPPORTED: the layout's
 *  name is too long. */
kry_status core_file_describe(const struct kry_layer *layer, const char *content,
                              uint64_t data_hash, struct file_header *out);
/** Compare what a layer's `file_bytes` in a file begin with with what the layer needs.
 *  KRY_E_NOT_FOUND, KRY_E_FORMAT, KRY_E_FOREIGN, KRY_E_STALE: the sentence begins with the path. */
kry_status core_file_check(const char *path, const struct file_header *found, uint64_t file_bytes,
                           const struct kry_layer *layer, const char *content);

static inline uint64_t core_align(uint64_t bytes) {
    return (bytes + KRY_ALIGNMENT - 1) / KRY_ALIGNMENT * KRY_ALIGNMENT;
}

#endif
