/*
 * Kernelry for embedders: open a registry of kernels, let it decide, hold layers, apply them.
 *
 * Handles are opaque, made by ..._open or ..._create and ended by ..._close or ..._destroy,
 * which take the handle's address and clear it (a NULL handle is fine). Out parameters are
 * written on success only. Errors are status codes; the sentence behind the last one of this
 * thread is kry_error_message(). The library never exits, aborts or prints, unless the
 * environment's KERNELRY_LOG asks for log lines on standard error.
 */
#ifndef KERNELRY_KERNELRY_H
#define KERNELRY_KERNELRY_H

#include <kernelry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The release, such as "0.1.0"; apart from the ABI version. */
KRY_API const char *kry_version(void);

/** The ABI of the library at run time, to compare with the KRY_ABI_VERSION of these headers:
 * another major is incompatible, an older minor lacks what was added since. */
KRY_API uint32_t kry_abi_version(void);

/** A status in words, such as "no kernel". */
KRY_API const char *kry_status_string(kry_status status);

/** The sentence of the last failed call on this thread: what, where, found, expected. Valid
 *  until the next failing call on this thread; "" if none failed. */
KRY_API const char *kry_error_message(void);

/** Set that sentence and return status: for libraries built on top of this one. */
KRY_API kry_status kry_error_set(kry_status status, const char *format, ...) KRY_PRINTF(2, 3);

/* ---- registry ------------------------------------------------------------------------ */

/** The registry: an immutable snapshot of the plugins found and the kernels in their order. */
typedef struct kry_registry kry_registry;

/** Bits of kry_registry_options.flags. */
enum {
    KRY_REGISTRY_NO_DEFAULT_DIR = 1, /* leave out the install's own plugin directory */
    KRY_REGISTRY_NO_ENVIRONMENT = 2, /* read no KERNELRY_* variable */
    KRY_REGISTRY_RELAX_TRUST = 4,    /* load files that others could have written; warns */
    KRY_REGISTRY_PROBE = 8           /* try each plugin in a process of its own first */
};

/**
 * Options of kry_registry_open; all zero is the default.
 *
 * plugin_paths   directories and files, searched in this order before KERNELRY_PLUGIN_PATH
 *                and the install's own directory. A file named here that cannot be used makes
 *                the open succeed all the same; its state tells (kry_registry_plugin).
 * disable        names of plugins and kernels to leave out (also KERNELRY_DISABLE)
 * prefer         names of plugins and kernels to put first, in this order (KERNELRY_PREFER)
 * priority       "name=value", for plugins and kernels (KERNELRY_PRIORITY)
 * cpu_mask       CPU features that may be used; 0: all that the processor has; KRY_CPU_NONE
 *                (KERNELRY_CPU_MASK, a list of names such as "avx2,avx512", or "none")
 * host           services, NULL for the platform's; *host is copied, its context borrowed
 *                until every layer and the registry are gone
 * probe_milliseconds   with KRY_REGISTRY_PROBE: how long one plugin's trial may take; 0: 10 000
 *
 * A trial (KRY_REGISTRY_PROBE) loads a plugin that passed all other checks in a process of its own,
 * calls its entry, and asks each kernel about a plain description. One that crashes, hangs or ends
 * that process is refused (KRY_E_PLUGIN) with the signal and the step it was at, and nothing of it
 * runs here. It costs a process a plugin; it is no sandbox. docs/trust.md tells how it is done.
 *
 * A name matches a plugin, a kernel, or a kernel of one plugin as "plugin/kernel". The
 * environment's overrides are applied after the code's, and win. One that names nothing is
 * logged as a warning.
 */
typedef struct kry_registry_options {
    size_t struct_size;
    const char *const *plugin_paths; /* directories and files */
    size_t plugin_path_count;        /* of plugin_paths */
    const char *const *disable;      /* names */
    size_t disable_count;            /* of disable */
    const char *const *prefer;       /* names, the first one first */
    size_t prefer_count;             /* of prefer */
    const char *const *priority;     /* "name=value" */
    size_t priority_count;           /* of priority */
    uint64_t cpu_mask;               /* KRY_CPU_* that may be used */
    const kry_host *host;            /* NULL: the platform's */
    uint32_t flags;                  /* KRY_REGISTRY_* */
    uint32_t reserved;               /* 0 */
    uint32_t probe_milliseconds;     /* of a trial; since ABI 0.3 */
    uint32_t reserved_2;             /* 0 */
} kry_registry_options;

/**
 * Find, check, load and order the plugins. A bad plugin is recorded and left out.
 *
 * Errors     KRY_E_ARGUMENT, KRY_E_MEMORY. Finding no plugin at all is no error. With
 *            KRY_REGISTRY_PROBE: KRY_E_IO, KRY_E_TRUST: the helper kernelry-probe is not beside
 *            the library, or somebody else could have written it.
 * Threads    safe. Initialises no GPU runtime: the process may still fork.
 */
KRY_API kry_status kry_registry_open(const kry_registry_options *options, kry_registry **out);

/** Drop the caller's reference; layers keep what they need. Plugins stay loaded. */
KRY_API void kry_registry_close(kry_registry **registry);

/** What became of a file that could have been a plugin. */
enum {
    KRY_PLUGIN_LOADED = 1,
    KRY_PLUGIN_REFUSED = 2,     /* status and reason tell why */
    KRY_PLUGIN_SHADOWED = 3,    /* another of that name was found first */
    KRY_PLUGIN_DISABLED = 4,    /* by an override; nothing of it ran */
    KRY_PLUGIN_NOT_A_PLUGIN = 5 /* a shared object without our note, in a directory */
};

/** A platform that a plugin serves, as its note says (kry_kernel_info has what overrides made). It
 *  is an element of an array and never grows. */
typedef struct kry_plugin_platform {
    char name[32];     /* "cpu", "cuda", ... */
    int32_t priority;  /* as declared */
    uint32_t fallback; /* 0 or 1 */
} kry_plugin_platform;

/**
 * A file that was found. Ownership: strings live as long as the registry.
 */
typedef struct kry_plugin_info {
    size_t struct_size;
    const char *path;                 /* real path where that could be told */
    const char *name;                 /* "" when no note was read */
    const char *version;              /* as its note tells */
    const char *reason;               /* "" when loaded */
    uint32_t state;                   /* KRY_PLUGIN_* */
    kry_status status;                /* KRY_OK when loaded, shadowed, disabled or not a plugin */
    uint32_t abi_major;               /* of its note */
    uint32_t abi_minor;               /* of its note */
    uint32_t named_outright;          /* 1: given as a file, not found in a directory */
    uint32_t kernel_count;            /* of its kernels */
    uint32_t platform_count;          /* of platforms */
    uint32_t reserved;                /* 0 */
    uint64_t cpu_features;            /* that it needs */
    kry_plugin_platform platforms[8]; /* that it serves */
} kry_plugin_info;

KRY_API size_t kry_registry_plugin_count(const kry_registry *registry);
/** The index-th file in the order of finding. Errors: KRY_E_NOT_FOUND past the last. */
KRY_API kry_status kry_registry_plugin(const kry_registry *registry, size_t index,
                                       kry_plugin_info *out);

/** Where plugins are looked for: the directories in order, one a call, NULL past the last. */
KRY_API const char *kry_registry_search_path(const kry_registry *registry, size_t index);

/** A kernel as registered. Ownership: strings live as long as the process. */
typedef struct kry_kernel_info {
    size_t struct_size;
    const char *kernel;      /* its name */
    const char *plugin;      /* whose it is */
    const char *platform;    /* that it runs on */
    const char *summary;     /* one sentence */
    const char *layout_name; /* of prepared weights */
    uint32_t layout_version; /* of prepared weights */
    uint32_t flags;          /* KRY_KERNEL_* */
    int32_t priority;        /* after overrides */
    uint32_t fallback;       /* 0 or 1 */
} kry_kernel_info;

/** Kernels of a platform (NULL: of all, platform by platform), in the order they are asked. */
KRY_API size_t kry_registry_kernel_count(const kry_registry *registry, const char *platform);
KRY_API kry_status kry_registry_kernel(const kry_registry *registry, const char *platform,
                                       size_t index, kry_kernel_info *out);

/* ---- devices ------------------------------------------------------------------------- */

/** Devices that are here: this CPU first, then what each platform's plugin finds. Asks the
 *  system each time, without initialising a GPU runtime. */
KRY_API size_t kry_registry_device_count(const kry_registry *registry);
/** Errors: KRY_E_NOT_FOUND past the last. */
KRY_API kry_status kry_registry_device(const kry_registry *registry, size_t index, kry_device *out);

/**
 * Find a device by its name: "cpu", "cuda" (the first), "cuda:1" (an ordinal), "cuda:sm_80"
 * (an architecture, hypothetical). "cpu:NAMES" is a hypothetical CPU of this architecture
 * with just those features ("cpu:avx2,avx512"; "cpu:none").
 *
 * Errors     KRY_E_ARGUMENT malformed; KRY_E_NOT_FOUND no such device here.
 */
KRY_API kry_status kry_registry_find_device(const kry_registry *registry, const char *name,
                                            kry_device *out);

/** Names of KRY_CPU_* bits, "avx2,avx512"; "none" for 0. Returns the length, as snprintf does. */
KRY_API size_t kry_cpu_features_format(uint64_t features, char *out, size_t size);

/* ---- decisions ----------------------------------------------------------------------- */

/** A decision: the chosen kernel and, for each other candidate, why not. */
typedef struct kry_decision kry_decision;

/** An exact equivalent of a description that the core tries when nobody takes it as it is. */
enum {
    KRY_REWRITE_NONE = 0,
    KRY_REWRITE_SPLIT_GROUPS = 1 /* group_size -> gcd(group_size, k_offset, in_features) */
};

/** What a candidate answered. */
enum {
    KRY_VERDICT_CHOSEN = 1,
    KRY_VERDICT_ACCEPTS = 2, /* but ranks after the chosen one */
    KRY_VERDICT_REFUSES = 3
};

/**
 * A candidate: a kernel of the device's platform, in order.
 *
 * Ownership  strings live as long as the process, refusals as long as the decision.
 */
typedef struct kry_candidate {
    size_t struct_size;
    const char *kernel;                   /* its name */
    const char *plugin;                   /* whose it is */
    const kry_refusal *refusal;           /* of the description as it stands; NULL when accepted */
    const kry_refusal *rewritten_refusal; /* of the rewrite; NULL when accepted or not asked */
    int64_t padding_bytes;                /* more than without padding; 0 when refused */
    int32_t priority;                     /* after overrides */
    uint32_t fallback;                    /* 0 or 1 */
    uint32_t verdict;                     /* KRY_VERDICT_* */
    uint32_t flags;                       /* KRY_KERNEL_* */
} kry_candidate;

/**
 * What was decided. `chosen` is an index among the candidates, -1 when none accepts.
 *
 * Ownership  descriptions live as long as the decision.
 */
typedef struct kry_decision_info {
    size_t struct_size;
    int64_t chosen;            /* a candidate's index; -1: none */
    uint64_t candidate_count;  /* of those that were asked */
    uint32_t rewrite;          /* KRY_REWRITE_* */
    uint32_t reserved;         /* 0 */
    uint64_t rewrite_bytes;    /* more scales and zero points than without the rewrite */
    const kry_linear *asked;   /* complete */
    const kry_linear *decided; /* as the chosen kernel takes it */
} kry_decision_info;

/** Fill in a description's defaults and check it. Errors: KRY_E_ARGUMENT names the field. */
KRY_API kry_status kry_linear_complete(const kry_linear *linear, kry_linear *out);

/**
 * Ask each kernel of the device's platform, in order; the first that can implement the
 * description wins. When none can, its rewrite is tried likewise. A fallback that wins is
 * logged as a warning, once a shape and registry.
 *
 * Errors     KRY_E_ARGUMENT; KRY_E_MEMORY. That no kernel accepts is a decision, not an
 *            error here: kry_layer_create makes one of it.
 * Threads    safe; takes no lock.
 */
KRY_API kry_status kry_decide(const kry_registry *registry, const kry_device *device,
                              const kry_linear *linear, kry_decision **out);
KRY_API void kry_decision_destroy(kry_decision **decision);
KRY_API kry_status kry_decision_describe(const kry_decision *decision, kry_decision_info *out);
KRY_API kry_status kry_decision_candidate(const kry_decision *decision, size_t index,
                                          kry_candidate *out);

/** A refusal in words: "in_features 2112 is not a multiple of 128". As snprintf. */
KRY_API size_t kry_refusal_format(const kry_refusal *refusal, char *out, size_t size);

/** A refusal's code in words, for machines: "k_alignment". */
KRY_API const char *kry_refusal_code_string(uint32_t code);

/* ---- layers -------------------------------------------------------------------------- */

/** A layer: a kernel bound to prepared weights. */
typedef struct kry_layer kry_layer;

/** The arguments of kry_layer_create. */
typedef struct kry_layer_args {
    size_t struct_size;
    const kry_device *device; /* copied */
    const kry_linear *linear; /* copied */
    const char *kernel; /* NULL: the decision's; else "kernel" or "plugin/kernel", or an error */
} kry_layer_args;

/**
 * Decide, open the device for the chosen kernel and make a layer, as yet without weights.
 *
 * Ownership  the layer keeps what it needs of the registry alive.
 * Errors     KRY_E_NO_KERNEL: the message lists every candidate with its reason;
 *            KRY_E_DEVICE: the device is not here (a hypothetical one can be prepared for,
 *            in host memory, never applied on).
 * Threads    safe.
 */
KRY_API kry_status kry_layer_create(kry_registry *registry, const kry_layer_args *args,
                                    kry_layer **out);

/** No apply or prepare of the layer may be running, nor work of it be left on a stream. */
KRY_API void kry_layer_destroy(kry_layer **layer);

/** The kernel that a layer runs on. */
KRY_API kry_status kry_layer_kernel(const kry_layer *layer, kry_kernel_info *out);

/** The description as asked (0) or as the kernel takes it (1). Lives as long as the layer. */
KRY_API const kry_linear *kry_layer_linear(const kry_layer *layer, int as_decided);

/** Bytes of prepared weights and of preparing (all that prepare uses, the core's part too). */
KRY_API kry_status kry_layer_sizes(const kry_layer *layer, kry_sizes *out);

/** The workspace for applies of up to m rows; never less for a larger m. */
KRY_API kry_status kry_layer_workspace(const kry_layer *layer, int64_t m, kry_workspace *out);

/** The arguments of kry_layer_prepare. */
typedef struct kry_prepare_args {
    size_t struct_size;
    const kry_weights *weights; /* as the embedder holds them */
    void *prepared;          /* KRY_ALIGNMENT-aligned, the caller's, and lives as long as the layer;
                                NULL: the platform's memory at first, the same place again later */
    uint64_t prepared_bytes; /* of that memory */
    uint32_t prepared_memory; /* KRY_MEMORY_*; 0 with NULL */
    uint32_t reserved;        /* 0 */
    void *scratch;            /* NULL: the host's allocator */
    uint64_t scratch_bytes;   /* of that memory */
    void *stream;             /* the platform's */
    const kry_host *host;     /* NULL: the registry's */
} kry_prepare_args;

/**
 * Turn weights into the kernel's layout and bind them; again: reload them in place.
 *
 * Errors     KRY_E_ARGUMENT: a view that does not fit the description or reaches beyond its
 *            bytes, g_idx out of range; nothing was written. KRY_E_MEMORY likewise.
 *            Afterwards, on any other error, the prepared weights are unspecified and apply
 *            answers KRY_E_STATE until a prepare succeeds.
 * Threads    one prepare of a layer at a time, and no apply at once with it, except as
 *            ordered by the stream on platforms that have streams.
 */
KRY_API kry_status kry_layer_prepare(kry_layer *layer, const kry_prepare_args *args);

/**
 * Enqueue y = x * dequant(W)^T + bias (on a CPU: compute it).
 *
 * Shapes     see kry_apply_args.
 * Numerics   sums in f32 or better, one rounding at the store, unless the kernel's flags say
 *            that activations are quantized inside.
 * Ownership  borrows everything; buffers may be reused once the stream has passed.
 * Errors     KRY_E_ARGUMENT, KRY_E_WORKSPACE, KRY_E_STATE: nothing enqueued, y untouched.
 *            Others come from the kernel: y is unspecified.
 * Threads    safe, unless two calls in flight share a workspace or overlap in y.
 */
KRY_API kry_status kry_layer_apply(const kry_layer *layer, const kry_apply_args *args);

/* ---- prepared weights in files --------------------------------------------------------- */

/** The longest content key, in bytes without its end. */
#define KRY_CONTENT_MAX 255

/** What a saved layer has before its prepared weights, so it takes that and prepared_bytes; the
 *  places of layers that share a file are multiples of it. */
#define KRY_SAVED_HEADER 4096

/** Bits of kry_save_args.flags. */
enum {
    KRY_SAVE_INTO = 1 /* at `offset` of the file that is there, which no layer maps: written in
                         place, neither made durable nor renamed; that is the caller's then */
};

/** The arguments of kry_layer_save. */
typedef struct kry_save_args {
    size_t struct_size;
    const char *path;     /* replaced as a whole; the folder must be there */
    const char *content;  /* names the values: printable ASCII, 1 to KRY_CONTENT_MAX bytes */
    void *stream;         /* what the device has done so far; not read on a CPU */
    const kry_host *host; /* NULL: the registry's */
    uint64_t offset;      /* of the layer in its file: 0, or with KRY_SAVE_INTO a multiple of
                             KRY_SAVED_HEADER */
    uint32_t flags;       /* KRY_SAVE_* */
    uint32_t reserved;    /* 0 */
} kry_save_args;

/**
 * Write a layer's prepared weights to a file, to be mapped by layers of the same key: layout name,
 * layout version, description (as the kernel takes it) and content. The content is the caller's
 * word for the values, such as a hash of the checkpoint's tensors (kry_checkpoint_content makes
 * one); the name of the model would let yesterday's weights pass for today's.
 *
 * The file appears whole or not at all: it is written beside its place, as PATH.PID.N.tmp, made
 * durable and renamed. Mappings of a file that it replaces stay as they are. docs/prepared.md
 * has the format, and how the layers of a model share one file (KRY_SAVE_INTO).
 *
 * Errors     KRY_E_ARGUMENT; KRY_E_STATE: the layer has no prepared weights; KRY_E_IO, a full disk
 *            among others; KRY_E_MEMORY; KRY_E_UNSUPPORTED: the device's memory cannot be read.
 *            Nothing is left behind, and a file that was there is as it was; with KRY_SAVE_INTO
 *            the layer's part of it holds anything.
 * Threads    safe beside applies, not beside a prepare or map of the layer. Of several that save
 *            to one path, also from other processes, the last wins.
 */
KRY_API kry_status kry_layer_save(const kry_layer *layer, const kry_save_args *args);

/** Bits of kry_map_args.flags. */
enum {
    KRY_MAP_COPY = 1,       /* on a CPU: read the weights into memory of the layer's own */
    KRY_MAP_UNVERIFIED = 2, /* do not compare the weights with their hash, which reads them all */
    KRY_MAP_RELAX_TRUST = 4 /* take a file that others could have written */
};

/** The arguments of kry_layer_map. */
typedef struct kry_map_args {
    size_t struct_size;
    const char *path;    /* of the file */
    const char *content; /* as it was saved */
    void *prepared;      /* read into this buffer, as in kry_prepare_args. NULL: on a CPU apply from
                            the mapping itself; on a device as kry_layer_prepare does */
    uint64_t prepared_bytes;  /* of that memory */
    uint32_t prepared_memory; /* KRY_MEMORY_*; 0 with NULL */
    uint32_t flags;           /* KRY_MAP_* */
    void *stream;             /* the platform's */
    const kry_host *host;     /* NULL: the registry's */
    uint64_t offset; /* where the layer begins in a file of several: as it was saved there */
    uint64_t bytes;  /* of the layer in the file, its header too; 0: to the file's end */
} kry_map_args;

/**
 * Take a layer's prepared weights from a file that kry_layer_save wrote, and bind them: instead of
 * kry_layer_prepare. On a CPU the file is mapped, read-only and shared, so processes that map one
 * file share its memory. A later kry_layer_prepare of a mapped layer moves to fresh memory.
 *
 * What is checked: that nobody else could have written the file (as of plugins, KRY-C04, since
 * kernels trust prepared weights); its size, its header's hash and the whole key, always; the
 * hash of the weights, unless KRY_MAP_UNVERIFIED. HAZARD: if somebody shortens the file in place
 * while it is mapped, reading it raises SIGBUS, as with every mapping; kry_layer_save never does.
 *
 * Errors     KRY_E_NOT_FOUND: no such file, or zeros at the layer's place; KRY_E_FORMAT:
 *            damaged; KRY_E_FOREIGN: of another layout, description, byte order or format;
 *            KRY_E_STALE: of other content; KRY_E_TRUST. In all of these prepare and save again.
 *            KRY_E_ARGUMENT, KRY_E_IO, KRY_E_MEMORY, KRY_E_UNSUPPORTED. The layer is as it was
 *            before. On an error of the device or of the kernel's bind apply answers KRY_E_STATE
 *            until a map or prepare succeeds.
 * Threads    as kry_layer_prepare.
 */
KRY_API kry_status kry_layer_map(kry_layer *layer, const kry_map_args *args);

/**
 * XXH64 of a range of bytes, a fast hash to make content keys of: tells changes, stops no forger.
 * `seed` may be the hash of what came before. Source: the specification of xxHash, version 0.1.1.
 */
KRY_API uint64_t kry_hash64(const void *data, uint64_t bytes, uint64_t seed);

#ifdef __cplusplus
}
#endif
#endif
