/*
 * Shapes files: linear descriptions with names, in JSON (tests/data/shapes.json).
 */
#ifndef KERNELRY_SHAPES_H
#define KERNELRY_SHAPES_H

#include <kernelry/kernelry.h>

#include <stdbool.h>

/** A named description. */
struct shape {
    char *name;
    char *why;         /* "" when the file says nothing */
    kry_linear linear; /* complete */
    bool bias;
};

struct shapes {
    struct shape *items;
    size_t count;
};

/**
 * Read a shapes file; with `only`, that entry alone.
 *
 * Fields of an entry: name, in_features, out_features, weight_type and activation_type are
 * required; full_in_features (in_features), full_out_features (out_features), k_offset (0),
 * group_size (-1), scale_type, y_type (activation_type), zero_points (must agree with the
 * weight type), act_order (false), activation_quantization ("none"), bias (false), why,
 * source may be left out. Any other field is an error.
 *
 * Ownership  *out is freed by shapes_free.
 * Errors     KRY_E_IO, KRY_E_MEMORY; KRY_E_FORMAT names file, entry, field, found, expected;
 *            KRY_E_NOT_FOUND: no entry is called `only`. Nothing is written then.
 */
kry_status shapes_read(const char *path, const char *only, struct shapes *out);
void shapes_free(struct shapes *shapes);

#endif
