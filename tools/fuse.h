/*
 * Layers as serving stacks run them: some fused into one, all split over ranks. Pure
 * functions of names and descriptions.
 *
 * What is fused and how a layer is split is the stack's business; this follows what stacks do
 * with the names that models use. A name that is not known is split along N.
 */
#ifndef KERNELRY_FUSE_H
#define KERNELRY_FUSE_H

#include <kernelry/kernelry.h>

#include <stdbool.h>

/** How a layer is split over ranks. */
enum parallel {
    PARALLEL_COLUMN,    /* out_features, each fused part for itself */
    PARALLEL_ROW,       /* in_features: partitions start at k_offset */
    PARALLEL_REPLICATED /* every rank holds all of it */
};

enum { PARTS_MOST = 3, RANKS_MOST = 1024 };

/** A layer to decide on: one stored layer, or several fused along N. */
struct unit {
    char *name;
    kry_linear linear;  /* whole; complete. Only with status KRY_OK */
    const char *reason; /* borrowed; why it cannot be described, "" with KRY_OK */
    kry_status status;
    enum parallel parallel;
    size_t part_count;
    int64_t parts[PARTS_MOST]; /* out_features of each */
};

struct units {
    struct unit *items;
    size_t count;
};

/** Add one stored layer. Errors: KRY_E_MEMORY. */
kry_status units_add(struct units *units, const char *name, kry_status layer_status,
                     const char *reason, const kry_linear *linear);
void units_free(struct units *units);

/**
 * Fuse siblings whose descriptions agree in all but out_features; the others stay as they
 * are. The result is in the order of the first part of each.
 *
 * Ownership  *out borrows the reasons of `stored`. Errors: KRY_E_MEMORY, *out is untouched.
 */
kry_status units_fuse(const struct units *stored, struct units *out);

/**
 * The description of one rank's partition.
 *
 * Errors     KRY_E_UNSUPPORTED: the features do not divide by the number of ranks.
 */
kry_status unit_partition(const struct unit *unit, int64_t ranks, int64_t rank, kry_linear *out);

/** Whether two partitions differ at most in where they start, and start alike within a group. */
bool same_but_place(const kry_linear *a, const kry_linear *b);

/** "column", "row", "replicated". */
const char *parallel_word(enum parallel parallel);

/** The name with each component that is a number replaced by "*"; to be freed. NULL when
 *  memory runs out. */
char *name_pattern(const char *name);

#endif
