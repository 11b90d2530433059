/*
 * The prepared layout of the tuned CPU kernels, "tiled16" version 2.
 *
 * Output features come in tiles of 16, columns in octets of 8. Four tiles are a bundle: their
 * octets lie in turn, so that a micro-kernel that computes them at once reads one stream, which
 * the processor fetches ahead, and not four of equal distance, which share a set of the cache. The
 * last bundle has as many tiles as are left. A group's columns lie in its own
 * octets, the last one filled up with columns that are no one's: their x is packed as zero. A
 * group of more than 64 octets is worked off in segments of 64, which bounds the rounding error
 * of an f32 sum; segments of a group share its scale.
 *
 * buffer      shape                    type        stored as
 * counts      [G]                      i32         columns of each group; act-order only
 * order       [octets * 8]             i32         column of x at each place, -1: none; act-order
 * scales      [bundles, G, 4, 16]      scale_type  0 beyond out_features
 * zeros       [bundles, G, 4, 16]      u8          types with zero points only
 * codes       [bundles, octets, 4, 16 * 8]  u4 or u8  see tiled_code_place
 *
 * Each starts at a multiple of 64 bytes. A word of 32 bits belongs to one output feature, so a
 * register of sixteen words holds sixteen features. Of an octet k0 to k7, 4-bit codes lie in one
 * word whose byte b holds k(b) in its low and k(b + 4) in its high half; 8-bit codes lie in two
 * words, k0 to k3 and k4 to k7, 64 bytes apart. Both are what the byte dot products (VNNI,
 * dotprod) read after one mask, and what shifts of a word turn into lanes of floats.
 */
#ifndef KERNELRY_TILED_LAYOUT_H
#define KERNELRY_TILED_LAYOUT_H

#include <kernelry/plugin.h>

#define TILED_LAYOUT_NAME "tiled16"
enum { TILED_LAYOUT_VERSION = 2, TILE_N = 16, BUNDLE = 4, OCTET = 8, SEGMENT_OCTETS = 64 };

/** The column of an octet behind 4-bit field j (bits 4j to 4j + 3) of a word. */
static const uint8_t tiled_field_column[OCTET] = {0, 4, 1, 5, 2, 6, 3, 7};

/** Shapes and places of a description's buffers, in bytes from the start of the prepared
 *  weights. */
struct tiled_shape {
    int64_t tiles;
    int64_t groups;
    int64_t octets;      /* of a tile; with act-order the most that there can be */
    int64_t tile_bytes;  /* all codes of a tile */
    int32_t octet_bytes; /* 64 or 128 */
    int32_t scale_bytes; /* of one scale */
    uint64_t counts_at;
    uint64_t order_at;
    uint64_t scales_at;
    uint64_t zeros_at;
    uint64_t codes_at;
    uint64_t bytes;
};

/** A run of octets with one scale. */
struct tiled_segment {
    int32_t group;
    int32_t octet_begin;
    int32_t octet_count;
    int32_t column_begin; /* of x; with act-order `order` tells columns */
    int32_t column_count; /* at most 8 * octet_count */
};

/** Walks the segments of a description in order. */
struct tiled_walk {
    const kry_linear *linear;
    const int32_t *counts; /* NULL without act-order */
    int64_t group;
    int64_t group_left; /* columns of the group that are still to come */
    int64_t column;
    int64_t octet;
};

/** Columns of a group, without act-order. */
static inline int64_t tiled_group_columns(const kry_linear *linear, int64_t group) {
    if (linear->group_size < 0)
        return linear->in_features;
    int64_t lead = linear->k_offset % linear->group_size;
    int64_t begin = group * linear->group_size - lead;
    int64_t end = begin + linear->group_size;
    return (end < linear->in_features ? end : linear->in_features) - (begin > 0 ? begin : 0);
}

static inline void tiled_walk_begin(struct tiled_walk *walk, const kry_linear *linear,
                                    const int32_t *counts) {
    *walk = (struct tiled_walk){.linear = linear, .counts = counts, .group = -1};
}

/** Write the next segment; 0 after the last. */
static inline int tiled_walk_next(struct tiled_walk *walk, struct tiled_segment *out) {
    while (walk->group_left == 0) {
        if (++walk->group >= kry_linear_groups(walk->linear))
            return 0;
        walk->group_left = walk->counts != NULL ? walk->counts[walk->group]
                                                : tiled_group_columns(walk->linear, walk->group);
    }
    int64_t columns = walk->group_left;
    if (columns > SEGMENT_OCTETS * OCTET)
        columns = SEGMENT_OCTETS * OCTET;
    int64_t octets = (columns + OCTET - 1) / OCTET;
    *out = (struct tiled_segment){(int32_t)walk->group, (int32_t)walk->octet, (int32_t)octets,
                                  (int32_t)walk->column, (int32_t)columns};
    walk->group_left -= columns;
    walk->column += columns;
    walk->octet += octets;
    return 1;
}

/** Octets when each group fills its last `unit` of columns up (a multiple of 8, no more than a
 *  segment's); with act-order the most that there can be. */
static inline int64_t tiled_octets_in(const kry_linear *linear, int64_t unit) {
    int64_t groups = kry_linear_groups(linear);
    if (linear->act_order)
        return (linear->in_features + (unit - 1) * groups) / unit * (unit / OCTET);
    /* First and last group may be short; all between are alike. */
    int64_t units = (tiled_group_columns(linear, 0) + unit - 1) / unit;
    if (groups > 1)
        units += (tiled_group_columns(linear, groups - 1) + unit - 1) / unit;
    if (groups > 2)
        units += (groups - 2) * ((linear->group_size + unit - 1) / unit);
    return units * (unit / OCTET);
}

static inline int64_t tiled_octets(const kry_linear *linear) {
    return tiled_octets_in(linear, OCTET);
}

/** The most segments that a description can have. */
static inline int64_t tiled_segments_max(const kry_linear *linear) {
    return kry_linear_groups(linear) + tiled_octets(linear) / SEGMENT_OCTETS;
}

static inline uint64_t tiled_align(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

static inline struct tiled_shape tiled_shape_of(const kry_linear *linear) {
    struct tiled_shape s = {.tiles = (linear->out_features + TILE_N - 1) / TILE_N,
                            .groups = kry_linear_groups(linear),
                            .octets = tiled_octets(linear),
                            .octet_bytes = 16 * kry_weight_bits(linear->weight_type),
                            .scale_bytes = (int32_t)kry_type_bytes(linear->scale_type)};
    uint64_t scales = (uint64_t)s.tiles * (uint64_t)s.groups * TILE_N;
    s.tile_bytes = s.octets * s.octet_bytes;
    if (linear->act_order) {
        s.order_at = tiled_align((uint64_t)s.groups * 4);
        s.scales_at = s.order_at + tiled_align((uint64_t)s.octets * OCTET * 4);
    }
    s.zeros_at = s.scales_at + tiled_align(scales * (uint64_t)s.scale_bytes);
    s.codes_at = s.zeros_at;
    if (kry_weight_has_zero_points(linear->weight_type))
        s.codes_at += tiled_align(scales);
    s.bytes = s.codes_at + (uint64_t)s.tiles * (uint64_t)s.tile_bytes;
    return s;
}

/** Where a tile's parts begin and how far apart they lie; the next tile of its bundle lies
 *  `octet_bytes` and TILE_N places farther. */
struct tiled_run {
    uint64_t codes;     /* byte of the first octet */
    int64_t octet_step; /* bytes from octet to octet */
    uint64_t groups;    /* place of the first group's scales and zero points */
    int64_t group_step; /* places from group to group */
};

static inline struct tiled_run tiled_run_of(const struct tiled_shape *s, int64_t tile) {
    int64_t first = tile / BUNDLE * BUNDLE, beside = tile - first;
    int64_t width = s->tiles - first < BUNDLE ? s->tiles - first : BUNDLE;
    return (struct tiled_run){
        s->codes_at + (uint64_t)(first * s->tile_bytes + beside * s->octet_bytes),
        width * s->octet_bytes, (uint64_t)((first * s->groups + beside) * TILE_N), width * TILE_N};
}

/** A place of the codes buffer: byte, and the bits of the byte. */
struct tiled_place {
    uint64_t byte;
    uint32_t shift;
};

/** Where the code of output feature n at place `column` (0 to 7) of an octet lies. */
static inline struct tiled_place tiled_code_place(const struct tiled_shape *s, int64_t n,
                                                  int64_t octet, int32_t column) {
    struct tiled_run run = tiled_run_of(s, n / TILE_N);
    uint64_t byte = run.codes + (uint64_t)(octet * run.octet_step + n % TILE_N * 4 + column % 4);
    if (s->octet_bytes == 64)
        return (struct tiled_place){byte, column < 4 ? 0u : 4u};
    return (struct tiled_place){byte + (column < 4 ? 0 : 64), 0};
}

/** Where the scale (times scale_bytes) or zero point of (n, group) lies in its buffer. */
static inline uint64_t tiled_group_place(const struct tiled_shape *s, int64_t n, int64_t group) {
    struct tiled_run run = tiled_run_of(s, n / TILE_N);
    return run.groups + (uint64_t)(group * run.group_step + n % TILE_N);
}

#endif
