/*
 * Kernelry: the words that embedders, plugins and the core share.
 *
 * ABI 0.x, the rules
 *   - Every struct that crosses the boundary starts with `struct_size`, the sizeof that its
 *     writer was compiled with. A struct only ever grows at its end; a field never moves,
 *     shrinks or changes its meaning.
 *   - A reader touches a field only when struct_size covers it (KRY_HAS_FIELD). The core
 *     fills what an older writer lacks with zeros, and refuses (KRY_E_ABI) a newer writer
 *     whose additional bytes are not all zero: it would have meant something by them.
 *   - Members are fixed-width integers, pointers and char arrays; no enum, bool, long or
 *     bit-field; no implicit padding.
 *   - KRY_ABI_MINOR rises when something is added (a field, a function of a table, a
 *     constant). A core of the same major takes a plugin of any minor: what one side lacks
 *     is not used.
 *   - KRY_ABI_MAJOR rises when something that exists changes. Majors never mix.
 *   - A meaning that a kernel must understand in order to be right is a bit of
 *     `required_features`, never a silent new field.
 *   - While the major is 0, it may rise with any release; CHANGELOG.md tells why.
 */
#ifndef KERNELRY_TYPES_H
#define KERNELRY_TYPES_H

#include <stddef.h>
#include <stdint.h>

#if UINTPTR_MAX != UINT64_MAX
#error "Kernelry needs a 64-bit platform"
#endif

#define KRY_ABI_MAJOR 0
#define KRY_ABI_MINOR 3
#define KRY_ABI_VERSION (KRY_ABI_MAJOR << 16 | KRY_ABI_MINOR)

#if defined(__GNUC__)
#define KRY_API __attribute__((visibility("default")))
#define KRY_PRINTF(format_index, first) __attribute__((format(printf, format_index, first)))
#else
#define KRY_API
#define KRY_PRINTF(format_index, first)
#endif

/** Whether the writer of *pointer knew the field `member` of `type`. */
#define KRY_HAS_FIELD(pointer, type, member)                                                       \
    ((pointer)->struct_size >= offsetof(type, member) + sizeof((pointer)->member))

/** A zeroed struct with its size set: `kry_linear linear = KRY_INIT(kry_linear);` */
#ifdef __cplusplus
template <class T> inline T kry_init_struct() {
    T value{};
    value.struct_size = sizeof(T);
    return value;
}
#define KRY_INIT(type) kry_init_struct<type>()
extern "C" {
#else
#define KRY_INIT(type) ((type){.struct_size = sizeof(type)})
#endif

/** How a call ended; the sentence behind it is kry_error_message(). */
typedef int32_t kry_status;
enum {
    KRY_OK = 0,
    KRY_E_ARGUMENT = 1,     /* the caller's argument is wrong */
    KRY_E_MEMORY = 2,       /* an allocation failed */
    KRY_E_IO = 3,           /* the system refused to open, read, map or write */
    KRY_E_FORMAT = 4,       /* a file is damaged or not what it says */
    KRY_E_ABI = 5,          /* the two sides were built for different ABIs */
    KRY_E_TRUST = 6,        /* somebody else could have changed the file */
    KRY_E_DEPENDENCY = 7,   /* a library, driver or symbol is missing */
    KRY_E_NO_KERNEL = 8,    /* no kernel can implement the description */
    KRY_E_DEVICE = 9,       /* the device is not here, or a launch failed */
    KRY_E_WORKSPACE = 10,   /* scratch or zeroed part is missing or too small */
    KRY_E_PLUGIN = 11,      /* a plugin broke one of its duties */
    KRY_E_UNSUPPORTED = 12, /* understood, but not offered here */
    KRY_E_NOT_FOUND = 13,   /* no plugin, kernel, device, layer or tensor of that name */
    KRY_E_STATE = 14,       /* called out of order, such as apply before prepare */
    KRY_E_FOREIGN = 15,     /* a file of prepared weights is of another layout or description */
    KRY_E_STALE = 16        /* a file of prepared weights is of other weights */
};

/** Element types of x, y, scales and bias. */
enum { KRY_TYPE_F16 = 1, KRY_TYPE_BF16 = 2, KRY_TYPE_F32 = 3 };

/**
 * Weight types: the code q of each weight is stored unsigned; dequant(q) = (q - z) * s.
 * `u4b8` and `u8b128` have no zero points, z is their bias (8, 128); `u4` and `u8` have a
 * zero point for each output feature and group. Signed types become biased when read.
 */
enum { KRY_WEIGHT_U4B8 = 1, KRY_WEIGHT_U4 = 2, KRY_WEIGHT_U8B128 = 3, KRY_WEIGHT_U8 = 4 };

/**
 * How the model wants x quantized before the product, a token (row of x) at a time.
 *
 * Numerics   int8: s = max|x| / 127 (1 where that is 0), q = clamp(rint(x / s), -128, 127);
 *            fp8 e4m3: s = max|x| / 448 (1 where that is 0), q = e4m3(x / s), nearest even,
 *            saturated to +-448. In both, s, x / s and the rounding are computed in f32, and
 *            y = s * (q * dequant(W)^T).
 */
enum { KRY_ACTIVATION_NONE = 0, KRY_ACTIVATION_INT8_TOKEN = 1, KRY_ACTIVATION_FP8_E4M3_TOKEN = 2 };

/** Bits of what the caller allows beyond what the model wants (kry_linear.allowed). */
enum { KRY_ALLOW_INT8_ACTIVATIONS = 1 };

/** Where a pointer points. */
enum { KRY_MEMORY_HOST = 1, KRY_MEMORY_DEVICE = 2 };

/** Every buffer that Kernelry sizes (prepared, bound, scratch, zeroed) starts at a multiple. */
#define KRY_ALIGNMENT 256

/**
 * A linear description: shapes, types, groups and flags of y = x * dequant(W)^T + bias; it
 * says nothing of values.
 *
 * Shapes     x [m, in_features] (K), y [m, out_features] (N), W [N, K]; all of this
 *            partition. The full layer's follow; 0 there means "as the partition's".
 * Groups     column k of this partition belongs to local group
 *            (k + k_offset) / group_size - k_offset / group_size, so the first group may be
 *            short as well as the last (kry_linear_groups counts them). group_size -1 is one
 *            group a channel. With act_order, g_idx names each column's group and a partition
 *            keeps every group of the full layer.
 * Defaults   full_* 0: the partition's; scale_type and y_type 0: x_type. A kernel always
 *            sees them filled in.
 */
typedef struct kry_linear {
    size_t struct_size;
    int64_t in_features;       /* K of this partition */
    int64_t out_features;      /* N of this partition */
    int64_t full_in_features;  /* K of the whole layer; 0: this partition's */
    int64_t full_out_features; /* N of the whole layer; 0: this partition's */
    int64_t k_offset;          /* where a row-parallel partition starts in full_in_features */
    int64_t group_size;        /* columns of a group; -1: all */
    uint32_t weight_type;      /* KRY_WEIGHT_* */
    uint32_t scale_type;       /* KRY_TYPE_* */
    uint32_t x_type;           /* KRY_TYPE_* */
    uint32_t y_type;           /* KRY_TYPE_*; bias has it too */
    uint32_t activation_quantization; /* KRY_ACTIVATION_*: what the model wants */
    uint32_t allowed;                 /* KRY_ALLOW_*: what the caller allows beyond that */
    uint32_t act_order;               /* 0 or 1: g_idx is given */
    uint32_t reserved;                /* 0 */
    uint64_t required_features;       /* KRY_FEATURE_*: meanings a kernel must understand */
} kry_linear;

/**
 * Bits of kry_linear.required_features. None is assigned yet; bits 48 to 63 are for
 * private use between an embedder and a plugin that know each other.
 */
#define KRY_FEATURES_NONE UINT64_C(0)

/** CPU features, bits of kry_device.cpu_features and of a plugin's needs. */
#define KRY_CPU_AVX2 (UINT64_C(1) << 0)   /* with FMA and F16C */
#define KRY_CPU_AVX512 (UINT64_C(1) << 1) /* F, BW, DQ, VL and CD */
#define KRY_CPU_AVX512_VNNI (UINT64_C(1) << 2)
#define KRY_CPU_AVX512_BF16 (UINT64_C(1) << 3)
#define KRY_CPU_AVX512_FP16 (UINT64_C(1) << 4)
#define KRY_CPU_AVX512_VBMI (UINT64_C(1) << 5)
#define KRY_CPU_AVX_VNNI (UINT64_C(1) << 6)
#define KRY_CPU_AMX_INT8 (UINT64_C(1) << 7)
#define KRY_CPU_AMX_BF16 (UINT64_C(1) << 8)
#define KRY_CPU_NEON (UINT64_C(1) << 32)
#define KRY_CPU_NEON_FP16 (UINT64_C(1) << 33)
#define KRY_CPU_NEON_DOTPROD (UINT64_C(1) << 34)
#define KRY_CPU_NEON_I8MM (UINT64_C(1) << 35)
#define KRY_CPU_NEON_BF16 (UINT64_C(1) << 36)
#define KRY_CPU_SVE (UINT64_C(1) << 37)
#define KRY_CPU_NONE (UINT64_C(1) << 63) /* as a mask: no feature, where 0 stands for all */

/** Bits of kry_device.flags. */
enum { KRY_DEVICE_HYPOTHETICAL = 1 /* named by its architecture, not known to be here */ };

/**
 * A device: a platform, an ordinal, an architecture and what a kernel asks of it.
 *
 * Units      0 or "" wherever a property is not known, as for a hypothetical device whose
 *            platform no plugin describes.
 */
typedef struct kry_device {
    size_t struct_size;
    char platform[32];            /* "cpu", "cuda", "rocm", or any that a plugin brings */
    char arch[32];                /* "x86_64", "aarch64", "sm_90", "gfx942" */
    char name[64];                /* for people */
    int32_t ordinal;              /* -1 for a hypothetical device */
    uint32_t flags;               /* KRY_DEVICE_* */
    uint32_t arch_number;         /* 90 for sm_90, 0x942 for gfx942, else 0 */
    uint32_t multiprocessors;     /* on a CPU: the hardware threads this process may use */
    uint32_t warp_size;           /* threads that run in step */
    uint32_t shared_memory_bytes; /* most that one block may ask for */
    uint64_t l2_bytes;            /* of the last cache */
    uint64_t memory_bytes;        /* of all its memory */
    uint64_t cpu_features;        /* KRY_CPU_*; a CPU's only */
} kry_device;

/** The axis along which a word packs several elements. */
enum { KRY_AXIS_K = 1, KRY_AXIS_N = 2 };

/** In which order the fields of a packed word hold consecutive elements. */
enum {
    KRY_ORDER_SEQUENTIAL = 0, /* lowest bits first */
    KRY_ORDER_AWQ = 1         /* from the lowest bits: elements 0 2 4 6 1 3 5 7 */
};

/** How a stored zero point field f tells the true zero point z (b bits wide). */
enum {
    KRY_ZERO_TRUE = 0,          /* z = f */
    KRY_ZERO_SIGNED = 1,        /* z = f + 2^(b-1), f a signed byte */
    KRY_ZERO_MINUS_ONE = 2,     /* z = (f + 1) mod 2^b, field by field (AutoGPTQ) */
    KRY_ZERO_MINUS_ONE_WORD = 3 /* 1 added in every field to the whole word, carries kept
                                   (GPTQModel) */
};

/**
 * A stored tensor seen as a matrix [N, K] (weights) or [N, G] (scales, zero points) of
 * element_bits each, wherever it lies and whatever packs it. Nothing is copied to make one.
 *
 * Shapes     element (n, j) of the layer is element (n + n_begin, j + j_begin) of the tensor.
 *            Packed along K (the j axis): word ((n+n_begin)*n_stride + (j+j_begin)/p*j_stride),
 *            field (j+j_begin)%p, p = word_bits / element_bits; along N likewise with the
 *            axes exchanged. Not packed: word_bits == element_bits.
 * Units      strides in words of word_bits; bytes is what may be read from data on.
 * Ownership  borrowed. Any alignment of data is allowed.
 */
typedef struct kry_view {
    size_t struct_size;
    const void *data;      /* the tensor's first word */
    uint64_t bytes;        /* that may be read from data on */
    int64_t n_stride;      /* words from row to row */
    int64_t j_stride;      /* words from column to column */
    int64_t n_begin;       /* the tensor's row of the layer's first */
    int64_t j_begin;       /* the tensor's column of the layer's first */
    uint32_t element_bits; /* those of the weight type, of the scale type; zero points: or 8 */
    uint32_t word_bits;    /* 8, 16 or 32 */
    uint32_t pack_axis;    /* KRY_AXIS_*; not read when not packed */
    uint32_t order;        /* KRY_ORDER_* */
    uint32_t zero;         /* KRY_ZERO_*; zero points only */
    uint32_t reserved;     /* 0 */
} kry_view;

/**
 * The weights of one layer as the embedder holds them.
 *
 * Ownership  borrowed until the call returns; with memory DEVICE, until the stream has
 *            passed the call.
 */
typedef struct kry_weights {
    size_t struct_size;
    const kry_view *qweight;     /* [N, K] */
    const kry_view *scales;      /* [N, G] of scale_type */
    const kry_view *zero_points; /* [N, G]; NULL for u4b8 and u8b128 */
    const int32_t *g_idx;        /* [K] local group numbers; NULL without act_order */
    uint32_t memory;             /* KRY_MEMORY_*: of all four */
    uint32_t reserved;           /* 0 */
} kry_weights;

/** Why a kernel (or the core on its behalf) says no. */
enum {
    KRY_REFUSAL_NONE = 0,
    KRY_REFUSAL_PLATFORM = 1,
    KRY_REFUSAL_CAPABILITY = 2,   /* found arch_number, needed the least one */
    KRY_REFUSAL_CPU_FEATURE = 3,  /* found and needed: KRY_CPU_* bits */
    KRY_REFUSAL_WEIGHT_TYPE = 4,  /* found KRY_WEIGHT_*, needed: bits 1 << KRY_WEIGHT_* */
    KRY_REFUSAL_X_TYPE = 5,       /* found KRY_TYPE_*, needed: bits 1 << KRY_TYPE_* */
    KRY_REFUSAL_Y_TYPE = 6,       /* likewise */
    KRY_REFUSAL_SCALE_TYPE = 7,   /* likewise */
    KRY_REFUSAL_GROUP_SIZE = 8,   /* found group_size, needed: one that would do, or 0 */
    KRY_REFUSAL_K_ALIGNMENT = 9,  /* found in_features, needed: the multiple */
    KRY_REFUSAL_N_ALIGNMENT = 10, /* found out_features, needed: the multiple */
    KRY_REFUSAL_ZERO_POINTS = 11, /* found 0 or 1, needed 0 or 1 */
    KRY_REFUSAL_ACT_ORDER = 12,   /* found 0 or 1, needed 0 or 1 */
    KRY_REFUSAL_PARTITION = 13,   /* found k_offset % group_size, needed 0 */
    KRY_REFUSAL_SHORT_GROUP = 14, /* found columns of the last group, needed group_size */
    KRY_REFUSAL_ACTIVATION_QUANTIZATION = 15, /* found KRY_ACTIVATION_*, needed: bits */
    KRY_REFUSAL_DEPENDENCY = 16,              /* something outside the kernel is missing */
    KRY_REFUSAL_FEATURE = 17,                 /* found: required bits that are unknown, needed 0 */
    KRY_REFUSAL_SIZE = 18,                    /* found and needed: a count that is out of range */
    KRY_REFUSAL_OTHER = 19                    /* the sentence tells */
};

/**
 * A refusal: machine-readable, cheap to write, complete.
 *
 * Ownership  `sentence` has static storage (a string literal of the plugin); it may be NULL,
 *            then the core words one from the code and the values. It is as the plugin wrote it:
 *            kry_refusal_format makes one line of it, without control characters (KRY-C24).
 */
typedef struct kry_refusal {
    size_t struct_size;
    uint32_t code;        /* KRY_REFUSAL_* */
    uint32_t reserved;    /* 0 */
    int64_t found;        /* what the description or the device has */
    int64_t needed;       /* what would do */
    const char *sentence; /* a literal, or NULL */
} kry_refusal;

/** Bits of kry_kernel.flags, kry_kernel_info.flags and kry_candidate.flags. */
enum {
    KRY_KERNEL_DETERMINISTIC = 1,   /* same inputs, same bits, however many threads */
    KRY_KERNEL_BATCH_INVARIANT = 2, /* a row of y depends neither on other rows nor on m */
    KRY_KERNEL_INT8_ACTIVATIONS = 4 /* quantizes x to int8 inside, allowed or wanted */
};

/** Severity of a log line. */
enum { KRY_LOG_ERROR = 1, KRY_LOG_WARNING = 2, KRY_LOG_INFO = 3, KRY_LOG_DEBUG = 4 };

/**
 * Services of the host: come with each call and are never kept by a plugin. Any function
 * may be NULL: then nothing is logged, malloc allocates, and work runs on the calling thread.
 *
 * Threads    every function may be called from any thread, and at once from several.
 */
typedef struct kry_host {
    size_t struct_size;
    void *context; /* the first argument of each function */
    void (*log)(void *context, int32_t level, const char *message);   /* KRY_LOG_* */
    void *(*allocate)(void *context, size_t bytes, size_t alignment); /* NULL when out of it */
    void (*release)(void *context, void *memory, size_t bytes);       /* undoes allocate */
    /** Call task(argument, i) for every i in [0, count), in any order, on any threads, and
     *  return when all have returned. */
    void (*parallel_for)(void *context, int64_t count, void (*task)(void *argument, int64_t i),
                         void *argument);
    int32_t (*parallelism)(void *context); /* how many tasks run at once, at least 1 */
    int32_t reserved;                      /* 0 */
    int32_t reserved_2;                    /* 0 */
} kry_host;

/** The most that kry_sizes.prepare_multiple may be. */
#define KRY_PREPARE_MULTIPLE_MAX 65536

/** What a kernel needs to hold a layer: the same for any m. Units: bytes. */
typedef struct kry_sizes {
    size_t struct_size;
    uint64_t prepared_bytes;        /* the kernel's own layout of the weights */
    uint64_t prepare_scratch_bytes; /* for preparing any range of one call */
    uint64_t bound_bytes;           /* host state that bind fills */
    int64_t prepare_multiple;       /* ranges start at multiples of it (in output features) */
} kry_sizes;

/** What one apply needs besides its operands. Units: bytes. */
typedef struct kry_workspace {
    size_t struct_size;
    uint64_t scratch_bytes; /* any contents */
    uint64_t zeroed_bytes;  /* cleared once by the caller, left cleared by each apply */
} kry_workspace;

/**
 * The operands of one apply: y = x * dequant(W)^T + bias.
 *
 * Shapes     x [m, in_features] of x_type, y [m, out_features] and bias [out_features] of
 *            y_type. Row strides in elements; 0 means dense.
 * Ownership  borrows everything until the stream has passed the call.
 */
typedef struct kry_apply_args {
    size_t struct_size;
    int64_t m;              /* rows of x and y; 0: nothing is done */
    const void *x;          /* [m, in_features] of x_type */
    void *y;                /* [m, out_features] of y_type */
    const void *bias;       /* NULL: none */
    int64_t x_stride;       /* elements from row to row; 0: in_features */
    int64_t y_stride;       /* elements from row to row; 0: out_features */
    void *stream;           /* the platform's (CUstream, hipStream_t); not read on a CPU */
    void *scratch;          /* of any contents */
    void *zeroed;           /* cleared once by the caller, left cleared */
    uint64_t scratch_bytes; /* at least what was told for m */
    uint64_t zeroed_bytes;  /* at least what was told for m */
    const kry_host *host;   /* NULL: the registry's */
} kry_apply_args;

/** in_features and out_features, full ones too, are at most this, so products cannot overflow. */
#define KRY_FEATURES_MAX (INT64_C(1) << 31)

/** Bits of a weight: 4 or 8. */
static inline int32_t kry_weight_bits(uint32_t weight_type) {
    return weight_type == KRY_WEIGHT_U4B8 || weight_type == KRY_WEIGHT_U4 ? 4 : 8;
}

/** Whether weights of this type come with zero points. */
static inline int kry_weight_has_zero_points(uint32_t weight_type) {
    return weight_type == KRY_WEIGHT_U4 || weight_type == KRY_WEIGHT_U8;
}

/** Bytes of an element. */
static inline size_t kry_type_bytes(uint32_t type) { return type == KRY_TYPE_F32 ? 4 : 2; }

/** G: the groups that a (complete) description touches. */
static inline int64_t kry_linear_groups(const kry_linear *linear) {
    if (linear->group_size < 0)
        return 1;
    if (linear->act_order)
        return (linear->full_in_features + linear->group_size - 1) / linear->group_size;
    return (linear->k_offset + linear->in_features - 1) / linear->group_size -
           linear->k_offset / linear->group_size + 1;
}

/** The local group of column k where there is no act-order. */
static inline int64_t kry_linear_group_of(const kry_linear *linear, int64_t k) {
    if (linear->group_size < 0)
        return 0;
    return (k + linear->k_offset) / linear->group_size - linear->k_offset / linear->group_size;
}

#ifdef __cplusplus
}
#endif
#endif
