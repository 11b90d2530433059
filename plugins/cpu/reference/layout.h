/*
 * The layout "reference", version 1: what prepare_weights writes and apply reads.
 *
 * part           at                            shape    type        present
 * group numbers  0                             [K]      i32         with act-order
 * row n          rows_at + n * row_bytes
 *   codes        + 0                           [words]  u32         always
 *   scales       + scales_at                   [G]      scale_type  always
 *   zero points  + zero_points_at              [G]      u8          for u4 and u8
 *   zeros        up to a multiple of 4 bytes
 *
 * Codes are packed along K as in the canonical layout, lowest bits first; bits past K are 0.
 * Every byte has one value for given weights, so prepared buffers can be compared and saved.
 */
#ifndef KERNELRY_CPU_REFERENCE_LAYOUT_H
#define KERNELRY_CPU_REFERENCE_LAYOUT_H

#include <kernelry/types.h>
#include <stdbool.h>

#define REFERENCE_LAYOUT_NAME "reference"
#define REFERENCE_LAYOUT_VERSION 1

/* Counts and offsets of one description. Units: bytes where the name does not tell. */
struct reference_layout {
    uint32_t bits;     /* of a code */
    uint32_t per_word; /* codes */
    uint64_t words;    /* of a row */
    uint64_t groups;
    uint64_t rows_at;
    uint64_t scales_at;      /* within a row */
    uint64_t zero_points_at; /* within a row; its end where there are none */
    uint64_t row_bytes;
    uint64_t bytes;
};

/* Where a code lies: byte `at` of the buffer starts its u32, `shift` tells its lowest bit. */
struct reference_place {
    uint64_t at;
    uint32_t shift;
};

/* Lay out a description; false when the buffer would pass INT64_MAX bytes. */
static inline bool reference_layout_of(const kry_linear *linear, struct reference_layout *out) {
    /* in_features and groups are at most KRY_FEATURES_MAX, so a row cannot overflow. */
    uint64_t in_features = (uint64_t)linear->in_features;
    struct reference_layout layout = {.bits = (uint32_t)kry_weight_bits(linear->weight_type)};
    layout.per_word = 32 / layout.bits;
    layout.words = (in_features + layout.per_word - 1) / layout.per_word;
    layout.groups = (uint64_t)kry_linear_groups(linear);
    layout.rows_at = linear->act_order ? in_features * sizeof(int32_t) : 0;
    layout.scales_at = layout.words * sizeof(uint32_t);
    layout.zero_points_at = layout.scales_at + layout.groups * kry_type_bytes(linear->scale_type);
    uint64_t end = layout.zero_points_at;
    if (kry_weight_has_zero_points(linear->weight_type))
        end += layout.groups;
    layout.row_bytes = (end + 3) / 4 * 4;

    if (__builtin_mul_overflow(layout.row_bytes, (uint64_t)linear->out_features, &layout.bytes) ||
        __builtin_add_overflow(layout.bytes, layout.rows_at, &layout.bytes) ||
        layout.bytes > INT64_MAX)
        return false;
    *out = layout;
    return true;
}

/* The byte at which row n starts. */
static inline uint64_t reference_row_at(const struct reference_layout *layout, int64_t n) {
    return layout->rows_at + (uint64_t)n * layout->row_bytes;
}

/* The place of the code of weight (n, k). */
static inline struct reference_place reference_place_of(const struct reference_layout *layout,
                                                        int64_t n, int64_t k) {
    uint64_t word = (uint64_t)k / layout->per_word;
    uint32_t field = (uint32_t)((uint64_t)k % layout->per_word);
    return (struct reference_place){.at = reference_row_at(layout, n) + word * sizeof(uint32_t),
                                    .shift = field * layout->bits};
}

#endif
