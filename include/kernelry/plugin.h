/*
 * Kernelry for authors of kernels: what a plugin, a shared object with kernels, must bring.
 * It links against nothing of Kernelry; this header and types.h are all that it needs.
 *
 * A plugin is one source with
 *
 *     static const kry_plugin plugin = { ...its kernels... };
 *     KRY_PLUGIN(my_plugin, "1.0.0", &plugin, 0, KRY_PLATFORM("cpu", 700));
 *
 * compiled as a shared object with hidden visibility. Three verbs make a kernel:
 * can_implement says for which descriptions it is right, prepare_weights turns canonical
 * weights into its own layout, apply computes. The duties behind them (KRY-P..) are listed
 * in docs/contract.md; the core's promises are KRY-C...
 *
 * Everything a function is given is borrowed for the call. Every function may be called from
 * any thread, and at once from several, and leaves the thread as it found it (KRY-P25).
 */
#ifndef KERNELRY_PLUGIN_H
#define KERNELRY_PLUGIN_H

#include <kernelry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- kernels ------------------------------------------------------------------------- */

/** The answers of can_implement; a positive number is a yes that costs so many bytes more. */
#define KRY_ACCEPTED INT64_C(0)
#define KRY_REFUSED INT64_C(-1)

/**
 * A range of output features of a layer's weights in the canonical layout.
 *
 * Shapes     qweight [rows][ceil(K / (32 / b))], b bits a weight packed along K, lowest bits
 *            first (bits past K are unspecified); scales [rows][G] of scale_type; zero_points
 *            [rows][G], true values; g_idx [K], every entry in [0, G). rows = n_end - n_begin;
 *            row 0 is output feature n_begin.
 * Numerics   dequant(q)[n][k] = (q - z[n][g(k)]) * s[n][g(k)], z the type's bias where there
 *            are no zero points.
 */
typedef struct kry_canonical {
    size_t struct_size;
    int64_t n_begin;            /* the first output feature */
    int64_t n_end;              /* behind the last */
    const uint32_t *qweight;    /* [rows][words] */
    const void *scales;         /* [rows][G] of scale_type */
    const uint8_t *zero_points; /* NULL for u4b8 and u8b128 */
    const int32_t *g_idx;       /* NULL without act_order */
    int64_t qweight_stride;     /* words from row to row */
    int64_t scale_stride;       /* elements from row to row */
    int64_t zero_stride;        /* bytes from row to row */
    uint32_t memory;            /* KRY_MEMORY_*: of all, and of the prepared buffer too */
    uint32_t reserved;          /* 0 */
} kry_canonical;

/** The arguments of prepare_weights. */
typedef struct kry_prepare_call {
    size_t struct_size;
    const kry_device *device; /* may be one that is not here */
    const kry_linear *linear; /* as can_implement accepted it */
    void *device_state; /* of open_device; NULL when preparing for a device that is not here */
    const kry_canonical *weights; /* the range to prepare */
    void *prepared;               /* the start of the whole layer's buffer, not of the range */
    void *scratch;                /* prepare_scratch_bytes, in the same memory */
    void *stream;                 /* the platform's; not read on a CPU */
    const kry_host *host;         /* never NULL */
} kry_prepare_call;

/** A layer as its kernel sees it: what bind fills and every apply gets. */
typedef struct kry_binding {
    size_t struct_size;
    const kry_device *device; /* that it is applied on */
    const kry_linear *linear; /* as can_implement accepted it */
    void *device_state;       /* of open_device */
    const void *prepared;     /* in the device's memory */
    void *bound;              /* host memory, bound_bytes */
    const kry_host *host;     /* never NULL; an apply may bring another */
} kry_binding;

/**
 * The operation `linear`: y = x * dequant(W)^T + bias.
 */
typedef struct kry_linear_kernel {
    size_t struct_size;

    /**
     * Say whether apply is correct for this description on this device, for every m >= 0.
     *
     * Returns KRY_ACCEPTED, a positive number (yes, with so many bytes of padding), or
     * KRY_REFUSED with *refusal filled (KRY-P02). A pure function of its arguments: touches
     * no device, allocates nothing, and answers for a device that is not here (KRY-P01). It
     * says what is correct, never what is fast (KRY-P03). The description is complete and
     * valid; its platform is the kernel's; features it does not understand were refused.
     */
    int64_t (*can_implement)(const kry_device *device, const kry_linear *linear,
                             kry_refusal *refusal);

    /** Tell the sizes for a description that can_implement accepted; pure as well (KRY-P04). */
    kry_status (*sizes)(const kry_device *device, const kry_linear *linear, kry_sizes *out);

    /**
     * Tell the workspace that an apply of up to m rows needs; pure, never less for a larger m
     * (KRY-P05). NULL: none for any m.
     */
    kry_status (*workspace)(const kry_device *device, const kry_linear *linear, int64_t m,
                            kry_workspace *out);

    /**
     * Turn the range weights->n_begin .. n_end into this kernel's layout (KRY-P06).
     *
     * Ranges start at multiples of prepare_multiple and end at one or at out_features; they
     * come in any order, each byte of the buffer that apply reads is written by one of them.
     * Host memory to host memory always works, without a device; device to device where the
     * platform's plugin offers device memory. The layout holds no pointers: it may be saved,
     * moved and mapped under (layout_name, layout_version, description) (KRY-P07).
     * Preparing again into the same buffer is a reload, ordered by the stream.
     */
    kry_status (*prepare_weights)(const kry_prepare_call *call);

    /** Load what apply needs on a device, before any graph capture. NULL: nothing. */
    kry_status (*open_device)(const kry_device *device, const kry_host *host, void **state);
    /** Undo open_device; no apply is running. NULL: nothing. */
    void (*close_device)(void *state, const kry_host *host);

    /** Fill binding->bound, such as a tensor map; after every load or move. NULL: nothing. */
    kry_status (*bind)(const kry_binding *binding);

    /**
     * Enqueue y = x * dequant(W)^T + bias.
     *
     * The core has checked pointers and workspace sizes and filled in strides and host; m > 0.
     * Allocates nothing, never synchronises, can be captured in a graph, writes nothing but y
     * and workspace, reads no column of x beyond in_features, and leaves `zeroed` cleared
     * (KRY-P08 to KRY-P11).
     */
    kry_status (*apply)(const kry_binding *binding, const kry_apply_args *args);
} kry_linear_kernel;

/** A kernel: what it is, and the functions of the operation that it implements. */
typedef struct kry_kernel {
    size_t struct_size;
    const char *name;        /* unique in plugin and platform: letters, digits, '_-.' */
    const char *summary;     /* one sentence for people */
    const char *platform;    /* one that the plugin's note names */
    const char *operation;   /* KRY_OPERATION_LINEAR; others are passed over, by name */
    const char *layout_name; /* of prepared weights; names and versions tell saved ones apart, */
    uint32_t layout_version; /* so no two layouts of anybody's may share both */
    uint32_t flags;          /* KRY_KERNEL_* */
    uint64_t features;       /* the required_features that it understands */
    const kry_linear_kernel *linear; /* for KRY_OPERATION_LINEAR */
} kry_kernel;

#define KRY_OPERATION_LINEAR "linear"

/* ---- platforms ----------------------------------------------------------------------- */

/** The arguments of kry_platform.canonicalise: stored weights on a device, put in order. */
typedef struct kry_canonicalise_call {
    size_t struct_size;
    const kry_device *device;   /* that all is on */
    const kry_linear *stored;   /* as the view describes them */
    const kry_linear *linear;   /* as the kernel takes them: after a rewrite, its groups differ */
    const kry_weights *weights; /* as stored, in device memory */
    int64_t n_begin;            /* the first output feature */
    int64_t n_end;              /* behind the last */
    uint32_t *qweight;          /* dense rows, see kry_canonical; all in device memory */
    void *scales;               /* of the description's scale_type */
    uint8_t *zero_points;       /* NULL where there are none */
    int32_t *g_idx;             /* NULL without act_order */
    void *stream;               /* the platform's */
} kry_canonicalise_call;

/**
 * Operations of a platform; the first plugin in order that offers them serves all kernels of
 * the platform. Kernels never depend on them. Any function but `name` may be NULL.
 */
typedef struct kry_platform {
    size_t struct_size;
    const char *name; /* "cuda" */
    /** The index-th device that is here, without initialising a GPU runtime; KRY_E_NOT_FOUND
     *  past the last, and error_message then tells why there is none, such as no driver. */
    kry_status (*device)(size_t index, kry_device *out);
    /** Fill in what the architecture of a hypothetical device tells. */
    kry_status (*describe_device)(kry_device *device);
    /** Memory of the device, aligned to KRY_ALIGNMENT. */
    kry_status (*allocate)(const kry_device *device, uint64_t bytes, void **out);
    /** Undo allocate. */
    void (*release)(const kry_device *device, void *memory, uint64_t bytes);
    /** Copy in the order of the stream; host memory may be reused on return. */
    kry_status (*copy)(const kry_device *device, void *to, uint32_t to_memory, const void *from,
                       uint32_t from_memory, uint64_t bytes, void *stream);
    /** Set bytes to zero in the order of the stream. */
    kry_status (*clear)(const kry_device *device, void *memory, uint64_t bytes, void *stream);
    /** Wait until the stream has passed everything. */
    kry_status (*synchronize)(const kry_device *device, void *stream);
    /** Put a range of stored weights, in device memory, into the canonical layout. */
    kry_status (*canonicalise)(const kry_canonicalise_call *call);
    /** Services for embedders that bring none (threads, memory); used as they are. */
    const kry_host *host;
} kry_platform;

/* ---- the plugin ---------------------------------------------------------------------- */

/** The table that the entry function returns; it and all it points to live forever. */
typedef struct kry_plugin {
    size_t struct_size;
    const char *name;                     /* as in the note */
    const kry_kernel *const *kernels;     /* in the order in which they are to be asked */
    uint64_t kernel_count;                /* of kernels */
    const kry_platform *const *platforms; /* operations that it offers */
    uint64_t platform_count;              /* of platforms; 0: none */
    /** Why the last call on this thread failed; NULL or "" when there is nothing to say. */
    const char *(*error_message)(void);
} kry_plugin;

/** Bits of kry_note_platform.flags. */
enum { KRY_NOTE_FALLBACK = 1 /* registers after everybody else, whatever its priority */ };

/** A platform that a plugin serves, as its note tells it. */
typedef struct kry_note_platform {
    char name[32];    /* "cpu", "cuda", ... */
    int32_t priority; /* higher is asked first; built in: 100 generic, 300 tuned, 600 special */
    uint32_t flags;   /* KRY_NOTE_* */
} kry_note_platform;

#define KRY_NOTE_OWNER "Kernelry"
#define KRY_NOTE_TYPE 1
#define KRY_NOTE_PLATFORMS_MAX 8

/** The descriptor of the ELF note: read, bounds-checked, before any code of the file runs. */
typedef struct kry_note {
    uint32_t note_size;         /* sizeof(kry_note) of the writer */
    uint32_t abi_major;         /* KRY_ABI_MAJOR of the writer */
    uint32_t abi_minor;         /* KRY_ABI_MINOR of the writer */
    uint32_t flags;             /* what a core must understand to load it: 0 as yet */
    uint32_t cpu_features_low;  /* KRY_CPU_* without which no code of the plugin may run */
    uint32_t cpu_features_high; /* its upper half */
    char name[64];              /* letters, digits and '_' */
    char version[32];           /* for people: printable ASCII */
    char entry[96];             /* the one exported symbol: const kry_plugin *(void) */
    kry_note_platform platforms[KRY_NOTE_PLATFORMS_MAX]; /* "" ends the list */
} kry_note;

/** The ELF note, whole: owner, type and descriptor. */
typedef struct kry_elf_note {
    uint32_t owner_size; /* with its zero */
    uint32_t note_size;  /* sizeof(kry_note) */
    uint32_t type;       /* KRY_NOTE_TYPE */
    char owner[12];      /* KRY_NOTE_OWNER, padded to a multiple of 4 */
    kry_note note;       /* what follows the owner */
} kry_elf_note;

typedef const kry_plugin *(*kry_plugin_entry)(void);

/** A platform that a plugin serves, for KRY_PLUGIN. */
#define KRY_PLATFORM(platform, priority)                                                           \
    { platform, priority, 0 }
/** A platform whose fallback the plugin is: asked last, whatever its priority. */
#define KRY_PLATFORM_FALLBACK(platform, priority)                                                  \
    { platform, priority, KRY_NOTE_FALLBACK }

/**
 * Make this shared object a plugin: writes its ELF note and defines its one exported symbol.
 *
 * name          an identifier, the plugin's name (unquoted)
 * version       a string literal
 * table         the address of the kry_plugin
 * cpu_features  KRY_CPU_* that the processor must have before any code may run, or 0
 * ...           one to eight of KRY_PLATFORM and KRY_PLATFORM_FALLBACK
 */
#define KRY_PLUGIN(name, version, table, cpu_features, ...)                                        \
    __attribute__((section(".note.kernelry"), used,                                                \
                   aligned(4))) static const kry_elf_note kry_note_of_##name = {                   \
        sizeof(KRY_NOTE_OWNER),                                                                    \
        sizeof(kry_note),                                                                          \
        KRY_NOTE_TYPE,                                                                             \
        KRY_NOTE_OWNER,                                                                            \
        {sizeof(kry_note),                                                                         \
         KRY_ABI_MAJOR,                                                                            \
         KRY_ABI_MINOR,                                                                            \
         0,                                                                                        \
         (uint32_t)((uint64_t)(cpu_features)&UINT64_C(0xffffffff)),                                \
         (uint32_t)((uint64_t)(cpu_features) >> 32),                                               \
         #name,                                                                                    \
         version,                                                                                  \
         "kry_plugin_" #name,                                                                      \
         {__VA_ARGS__}}};                                                                          \
    KRY_PLUGIN_LINKAGE KRY_API const kry_plugin *kry_plugin_##name(void);                          \
    const kry_plugin *kry_plugin_##name(void) { return (table); }                                  \
    KRY_PLUGIN_LINKAGE KRY_API const kry_plugin *kry_plugin_##name(void)

#ifdef __cplusplus
#define KRY_PLUGIN_LINKAGE extern "C"
#else
#define KRY_PLUGIN_LINKAGE extern
#endif

/* ---- conveniences -------------------------------------------------------------------- */

/** Fill *refusal and return KRY_REFUSED; the sentence is a string literal or NULL. */
static inline int64_t kry_refuse(kry_refusal *refusal, uint32_t code, int64_t found, int64_t needed,
                                 const char *sentence) {
    refusal->code = code;
    refusal->found = found;
    refusal->needed = needed;
    refusal->sentence = sentence;
    return KRY_REFUSED;
}

/** The host's parallel-for, or a loop where it brings none. */
static inline void kry_parallel_for(const kry_host *host, int64_t count,
                                    void (*task)(void *argument, int64_t i), void *argument) {
    if (host != NULL && host->parallel_for != NULL && count > 1) {
        host->parallel_for(host->context, count, task, argument);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        task(argument, i);
}

#ifdef __cplusplus
}
#endif
#endif
