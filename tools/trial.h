/*
 * A trial: one layer made, prepared, applied on random activations, and compared with the
 * oracle. It measures time and memory on the way.
 */
#ifndef KERNELRY_TOOLS_TRIAL_H
#define KERNELRY_TOOLS_TRIAL_H

#include "cache.h"
#include "oracle.h"

#include <kernelry/kernelry.h>

#include <stdbool.h>

/** What is alike in all trials of a run. Borrowed. */
struct trial_setting {
    kry_registry *registry;
    const kry_device *device;
    const char *kernel; /* NULL: the decision's */
    const int64_t *m;
    size_t m_count;
    uint64_t seed;
    int32_t threads;     /* of the oracle */
    struct cache *cache; /* of prepared weights; its folder may be none */
};

/** A layer to try. Borrowed. */
struct trial_subject {
    const char *name; /* also tells which activations are drawn */
    const kry_linear *linear;
    const kry_weights *weights;
    const void *bias;    /* [out_features] of y_type, or NULL */
    const char *content; /* the weights' content key; NULL: not to be cached */
    struct oracle *oracle;
};

/** Applies with one m. */
struct trial_apply {
    int64_t m;
    double error;        /* relative, see oracle_error; INFINITY when an element is missing */
    int64_t nanoseconds; /* the median of some applies */
    bool good;
};

/** What a trial found. Texts that are not NULL are freed by trial_free. */
struct trial {
    kry_status status; /* of the first call that failed, or KRY_OK */
    char *complaint;   /* why the trial is not good: names kernel and what went wrong; or NULL */
    bool has_kernel;   /* `kernel` is filled */
    kry_kernel_info kernel;
    int64_t group_size; /* as the kernel takes it: other than asked after a rewrite */
    uint64_t prepared_bytes;
    int64_t prepare_nanoseconds;
    enum cache_outcome cache;
    double bound; /* of the relative error */
    struct trial_apply *applies;
    size_t apply_count; /* applies that were made */
};

/**
 * Try a layer. Whatever goes wrong is in *out; only then is out->complaint set.
 *
 * Checks, for each m: the relative error against the bound; that rows of y are written whole,
 * and nothing between them; that a NaN right behind each row of x does no harm; that the
 * zeroed part of the workspace is left cleared. And once, where m is free to choose: that x
 * with a single 1 (at both ends, at the edges of groups and tiles) gives back that column of
 * W, to one unit in the last place.
 */
void trial_run(const struct trial_setting *setting, const struct trial_subject *subject,
               struct trial *out);
void trial_free(struct trial *trial);

/** Memory for workspace and operands: aligned to KRY_ALIGNMENT, ended by free(). NULL when
 *  there is none; never NULL for 0 bytes otherwise. */
void *trial_allocate(uint64_t bytes);

#endif
