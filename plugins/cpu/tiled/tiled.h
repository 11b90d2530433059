/*
 * What the tuned CPU kernels share: preparing, binding, packing x, and the way through an apply.
 * An instruction set brings a struct tiled_class for each numeric class; the rest is portable.
 *
 * An apply works on up to 256 rows of x at a time, in chunks of at most 16 that are alike but
 * for the last. First each chunk is packed: rows side by side, columns in the order in which
 * codes are unpacked, zeros where an octet has no column. Then tasks take blocks of tiles, and
 * for each chunk a micro-kernel computes tiles x rows.
 *
 * Numerics   A segment's sum runs over its columns in one fixed order for each (row, output
 *            feature), then (sum - z * sum of x) * scale is added to the total, segment after
 *            segment; a class that takes z from the codes adds sum * scale. Neither m, nor the
 *            chunk, nor threads change that order, so results are deterministic and
 *            batch-invariant.
 */
#ifndef KERNELRY_TILED_H
#define KERNELRY_TILED_H

#include "layout.h"

#include <stdbool.h>

enum {
    CHUNK_ROWS = 16, /* most rows of a micro-kernel */
    PASS_ROWS = 256  /* most rows that are packed at once */
};

/** What bind fills: the description's places and its segments. */
struct tiled_bound {
    struct tiled_shape shape;
    const uint8_t *prepared;
    const int32_t *order; /* NULL without act-order */
    int64_t segment_count;
    struct tiled_segment segments[];
};

/** A packed chunk of x. */
struct tiled_chunk {
    const void *x;       /* [octets][fields][rows], see the class */
    const float *sums;   /* [segments][rows]: sum of x over the segment, or as its pack_row says */
    const float *scales; /* [rows]: of x, where it is quantized; else NULL */
    int64_t row;         /* the chunk's first row in this apply */
    int32_t rows;        /* as packed: a count that has a micro-kernel */
    int32_t used;        /* rows that exist */
};

/** A micro-kernel's work: all of one chunk for a few tiles. */
struct tiled_work {
    const struct tiled_bound *bound;
    const kry_linear *linear;
    const kry_apply_args *args;
    struct tiled_chunk chunk;
};

/** Pack a row that is converted to f32 into a chunk at place `row` of `rows`; returns the row's
 *  scale (1 where x is not quantized). May overwrite x. */
typedef float tiled_pack_row(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                             int32_t row, int32_t rows, void *packed, float *sums);

/** A numeric class of an instruction set. */
struct tiled_class {
    int32_t x_octet_bytes; /* packed x of one row and octet */
    /** Octets that are packed and multiplied as one step, the last step of a segment filled up with
     *  zeros: a power of two, at most SEGMENT_OCTETS; 0 as 1. See tiled_step. */
    int32_t step_octets;
    /** Another class that gives the same bits, for applies of up to so many rows to weights of
     * these types (bits 1 << KRY_WEIGHT_*); or NULL. */
    const struct tiled_class *few;
    int64_t few_rows;
    uint32_t few_types;
    /** Convert a row of x to f32. */
    void (*read_row)(const void *x, uint32_t type, int64_t count, float *out);
    tiled_pack_row *pack_row;
    /** Compute tiles [begin, end) of the work and store them in y. */
    void (*compute)(const struct tiled_work *work, int64_t tile_begin, int64_t tile_end);
    /** Or the same for all chunks of a pass, which have equally many rows. */
    void (*compute_all)(const struct tiled_work *work, const struct tiled_chunk *chunks,
                        int32_t count, int64_t tile_begin, int64_t tile_end);
};

/** Octets of a step: those of the class, or as few as hold a group. */
static inline int32_t tiled_step(int32_t step_octets, const kry_linear *linear) {
    int32_t step = step_octets > 0 ? step_octets : 1;
    while (step > 1 && !linear->act_order && linear->group_size > 0 &&
           step / 2 * OCTET >= linear->group_size)
        step /= 2;
    return step;
}

kry_status tiled_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out);
kry_status tiled_prepare(const kry_prepare_call *call);
kry_status tiled_bind(const kry_binding *binding);
uint64_t tiled_scratch(const struct tiled_class *class, const kry_linear *linear, int64_t m);
kry_status tiled_apply(const struct tiled_class *class, const kry_binding *binding,
                       const kry_apply_args *args);

/** The least row count with a micro-kernel that is not below `rows` (1 to 16). */
int32_t tiled_rows_up(int32_t rows);

/** What every tiled kernel refuses; KRY_ACCEPTED or bytes of padding otherwise. */
int64_t tiled_can_implement(const kry_linear *linear, kry_refusal *refusal);

/** Quantize a row as types.h says of KRY_ACTIVATION_INT8_TOKEN, in f32; returns its scale. A row
 *  with a NaN or an infinity has no quantized values: its scale is NaN, and so is its y. */
float tiled_quantize_row(float *x, int64_t in_features);

/** x as f32: [octets][8 fields][rows] of f32. */
tiled_pack_row tiled_pack_f32;
/** The same over 2^f for a code that lies f bits up in its word and is not the word's last, so that
 *  codes can be multiplied where they lie. */
tiled_pack_row tiled_pack_f32_in_place;
/** As bf16 pairs: [octets][4][rows] of u32, field i in the low half, i + 4 in the high one. */
tiled_pack_row tiled_pack_bf16;
/** As exact sums of two bf16 (x came from f16): [octets][4][2 parts][rows] of u32. */
tiled_pack_row tiled_pack_bf16x2;
/** As int8 a token: [octets][2][rows] of 4 bytes, columns 0-3 and 4-7. */
tiled_pack_row tiled_pack_int8;
/** The same, but where the weight type has no zero points `sums` holds i32: what the codes' bias
 *  adds to a sum of products, negated. */
tiled_pack_row tiled_pack_int8_bias;
/** As pairs of i16: [octets][4][rows] of 4 bytes, columns 0 and 2, 1 and 3, 4 and 6, 5 and 7. */
tiled_pack_row tiled_pack_int16;

/**
 * Define the function compute of a class whose micro-kernels are the inline function BLOCK(work,
 * first tile or quad, ROWS, how many of them, BITS). INLINE, BLOCK_VARIANTS and run_block are those
 * of the instruction set.
 */
#define TILED_COMPUTE_BY_BITS(BLOCK)                                                               \
    INLINE void u4(const struct tiled_work *work, int64_t at, const int ROWS, const int WIDTH) {   \
        BLOCK(work, at, ROWS, WIDTH, 4);                                                           \
    }                                                                                              \
    INLINE void u8(const struct tiled_work *work, int64_t at, const int ROWS, const int WIDTH) {   \
        BLOCK(work, at, ROWS, WIDTH, 8);                                                           \
    }                                                                                              \
    BLOCK_VARIANTS(u4)                                                                             \
    BLOCK_VARIANTS(u8)                                                                             \
    static void compute(const struct tiled_work *work, int64_t tile_begin, int64_t tile_end) {     \
        bool four = kry_weight_bits(work->linear->weight_type) == 4;                               \
        run_block(four ? u4_variants : u8_variants, work, tile_begin, tile_end);                   \
    }

#endif
