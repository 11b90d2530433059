/*
 * The parameters of the device entries, passed by value; C17 and device C++ alike. Every entry
 * takes exactly one of these structs. Pointers are device addresses.
 */
#ifndef KERNELRY_GPU_PARAMS_H
#define KERNELRY_GPU_PARAMS_H

#include "layout.h"

/** How a block's group is found without a division, see gpu_divider_of. */
struct gpu_divider {
    uint32_t magic; /* quotient = high32(value * magic) + (value & mask) */
    uint32_t mask;
};

/**
 * gpu_stream_*, gpu_tile_*, gpu_plain_*: y = x * dequant(W)^T + bias for `m` rows of x.
 *
 * x holds columns of places [front, front + k): place p is x[row * x_stride + p - front], and
 * what is outside counts as zero and is never read. x and its rows start at multiples of 16 bytes,
 * and front is a multiple of 8.
 */
struct gpu_apply_params {
    const void *x;
    void *y;
    const void *bias;            /* of y_type; NULL: none */
    const unsigned char *codes;  /* and the following: in the prepared weights */
    const unsigned char *scales; /* of x's type */
    const unsigned char *zeros;  /* NULL: the bias of the weight type */
    const uint32_t *block_group; /* NULL: by divider */
    const uint32_t *header;      /* NULL: k_tiles are all in use */
    float *partials;             /* [output tile][split][accumulators]; NULL when splits is 1 */
    uint32_t *semaphores;        /* [output tile], zero before and after */
    int64_t x_stride;            /* elements */
    int64_t y_stride;
    int32_t m;
    int32_t n; /* out_features */
    int32_t k; /* columns of x */
    int32_t front;
    int32_t n_tiles;
    int32_t k_tiles;
    int32_t groups;
    int32_t splits;        /* blocks that share an output tile along K */
    int32_t split_tiles;   /* k tiles of a split */
    int32_t m_blocks;      /* output tiles along m */
    int32_t n_blocks;      /* output tiles along n */
    uint32_t first_offset; /* group = divide(block + first_offset) */
    struct gpu_divider divider;
    uint32_t y_type; /* KRY_TYPE_* */
    int32_t waves_n; /* gpu_stream_*: waves of a block side by side along n */
    int32_t slots;   /* gpu_wide_*: groups of two tiles of places: 1, 2, 4 or 8; 0: no pattern */
    int32_t late;    /* gpu_late_*: half of x that is late, 1 or 2 */
};

/** Rows of x as the device's copy engine finds them (CUtensorMap), made by the driver. */
struct gpu_tensor_map {
#ifdef __cplusplus
    alignas(64) uint64_t words[16];
#else
    _Alignas(64) uint64_t words[16];
#endif
};

/** gpu_wide_*: the same product; x's rows are read through the map, whose boxes are 64 columns wide
 *  and have the entry's rows. `splits` blocks, a cluster, share an output tile along K. front may
 * be a multiple of 8: the copy engine does not start between chunks of 16 bytes. partials,
 *  semaphores, split_tiles and waves_n are not used. */
struct gpu_wide_params {
    struct gpu_tensor_map x;
    struct gpu_apply_params apply;
};

/**
 * gpu_late_*: the same where x's rows lie at multiples of 8 bytes, and every second one of 16;
 * front is 0. The first half of the entry's rows are even ones and the second half odd ones, boxes
 * of wide.x and of more[0]. One of the halves is late: mapped from 4 columns before its rows'
 * begin; more[1], the tail, is the same map in boxes of 8 columns.
 */
struct gpu_late_params {
    struct gpu_wide_params wide;
    struct gpu_tensor_map more[2];
};

/* Rows that gpu_late_params has maps of. */
enum { GPU_MAP_ROWS, GPU_MAP_ODD_ROWS, GPU_MAP_TAIL, GPU_MAPS };

/** gpu_arrange: copy rows of x into the order of places, zeros where there is no column. */
struct gpu_arrange_params {
    const uint16_t *x;
    uint16_t *to;          /* [m][places], dense */
    const int32_t *source; /* column of a place, -1: none; NULL: place - front */
    int64_t x_stride;
    int64_t m;
    int32_t k;
    int32_t front;
    int32_t places;    /* a multiple of 64 */
    int32_t parts;     /* blocks that share rows; the grid is a multiple */
    int32_t unit;      /* bytes: x, its rows and place 0 lie at multiples of 16, 8, 4 or 2 */
    int32_t in_shared; /* 1: there is shared memory for a row */
    int32_t reserved;
};

/** gpu_sort: from g_idx the tables of act-order; one block. source and block_group are filled up
 *  to layout.k_tiles. */
struct gpu_sort_params {
    struct gpu_layout layout;
    const int32_t *g_idx;
    uint32_t *header;
    int32_t *source;
    uint32_t *block_group;
    uint32_t *cursor; /* [groups], any contents */
};

/** gpu_fill_source: the tables of a gathered layout without act-order. */
struct gpu_fill_source_params {
    struct gpu_layout layout;
    uint32_t *header;
    int32_t *source;
};

/* arrange.h: rows that a block puts in order at a time, where columns keep theirs. */
enum { GPU_ARRANGE_ROWS = 4 };

/* tile_amd.h: waves of a block, and bytes of a row of x in shared memory. */
enum { GPU_AMD_WAVES = 4, GPU_AMD_PITCH = GPU_TILE_K * 2 + 16 };

/* Block tiles of those that put weights in order, see transpose.h and repack.h. */
enum {
    GPU_PREPARE_THREADS = 256, /* of a block */
    GPU_REPACK_WORDS = 32, /* of the 64 rows of a panel; with rows and pitch as in shared memory */
    GPU_REPACK_PITCH = GPU_REPACK_WORDS + 4,
    GPU_TRANSPOSE_CODE_ROWS = 128, /* codes: words of 32 bits */
    GPU_TRANSPOSE_CODE_WORDS = 16,
    GPU_TRANSPOSE_ROWS = 64, /* scales and zero points */
    GPU_TRANSPOSE_GROUPS = 32
};

/**
 * gpu_repack_codes, gpu_repack_scales: canonical rows [n_begin, n_end) into the prepared layout;
 * n_begin a multiple of 64, n_end one or out_features.
 */
struct gpu_repack_params {
    struct gpu_layout layout;
    const uint32_t *qweight; /* canonical; row 0 is n_begin */
    const void *scales;
    const uint8_t *zero_points;
    const int32_t *source;   /* act-order: of this preparation; otherwise NULL */
    unsigned char *prepared; /* the whole layer's */
    int64_t qweight_stride;
    int64_t scale_stride;
    int64_t zero_stride;
    int64_t n_begin;
    int64_t n_end;
    uint32_t scale_bytes;
    uint32_t reserved;
};

/** A stored tensor as a device entry sees it, see kry_view. */
struct gpu_view {
    const unsigned char *data;
    int64_t n_stride;
    int64_t j_stride;
    int64_t n_begin;
    int64_t j_begin;
    uint32_t element_bits;
    uint32_t word_bits;
    uint32_t pack_axis;
    uint32_t order;
    uint32_t zero;
    uint32_t reserved;
};

/** gpu_canonicalise_codes: rows of stored weights into dense canonical words. */
struct gpu_canonicalise_codes_params {
    struct gpu_view from;
    uint32_t *to; /* [n_end - n_begin][words] */
    int64_t n_begin;
    int64_t n_end;
    int64_t columns; /* in_features */
    int64_t words;   /* of a row */
    uint32_t bits;
    uint32_t reserved;
};

/**
 * gpu_canonicalise_scales, gpu_canonicalise_zeros: [rows][to_groups], where group j of the result
 * is the stored group of column first_column(j): after a rewrite groups are finer than stored.
 */
struct gpu_canonicalise_groups_params {
    struct gpu_view from;
    void *to; /* scales: of element_bits / 8 bytes; zeros: u8 */
    int64_t n_begin;
    int64_t n_end;
    int64_t to_groups;
    int64_t to_size; /* group sizes; one group: 1 << 40 */
    int64_t from_size;
    int64_t k_offset;
    uint32_t zero_bits; /* of the weight type */
    uint32_t identity;  /* 1: group j is stored group j (act-order, no rewrite) */
};

#endif
