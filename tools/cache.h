/*
 * A folder of prepared weights: a file a layer, mapped while it is good, made anew when it is not.
 */
#ifndef KERNELRY_TOOLS_CACHE_H
#define KERNELRY_TOOLS_CACHE_H

#include <kernelry/checkpoint.h>

#include <jansson.h>

/** The folder and how it is used. All zero: no cache. */
struct cache {
    const char *folder; /* NULL: none */
    uint32_t content;   /* KRY_CONTENT_* */
    uint32_t flags;     /* KRY_MAP_* */
};

/** What became of a layer's file. All but the first two: the layer was prepared and saved. */
enum cache_outcome {
    CACHE_UNUSED,
    CACHE_MAPPED,
    CACHE_MISSING,
    CACHE_DAMAGED,
    CACHE_FOREIGN,
    CACHE_STALE,
    CACHE_OUTCOMES
};

/** "mapped", as people and JSON read it. */
const char *cache_word(enum cache_outcome outcome);

/** Make the folder unless it is there. Errors: KRY_E_IO. */
kry_status cache_make_folder(const char *folder);

/** Makes weights when they turn out to be needed. Ownership: the callee's, until the layer is
 *  prepared. */
typedef kry_status (*weights_maker)(void *context, const kry_weights **out);

/**
 * Map a layer's prepared weights, or prepare and save them; without a cache prepare them. A file
 * that is there and no good is warned of.
 *
 * name       the layer's in its model; the file is named after it
 * content    its content key; not read without a cache
 */
kry_status cache_prepare(const struct cache *cache, kry_layer *layer, const char *name,
                         const char *content, weights_maker make, void *context,
                         enum cache_outcome *out);

#endif
