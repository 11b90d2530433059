/*
 * A folder of prepared weights: a file a model, whose layers are mapped while they are good and
 * made anew when they are not.
 */
#ifndef KERNELRY_TOOLS_CACHE_H
#define KERNELRY_TOOLS_CACHE_H

#include <kernelry/checkpoint.h>

/** The folder and how it is used. All zero: no cache. */
struct cache {
    const char *folder;         /* NULL: none */
    uint32_t content;           /* KRY_CONTENT_* */
    uint32_t flags;             /* KRY_MAP_* */
    kry_checkpoint_cache *file; /* between cache_open and cache_close */
};

/** What became of a layer in its file. All but the first two: it was prepared and saved. */
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

/**
 * Give each layer of a model its place in the model's file, in the checkpoint's order.
 * Layers that no kernel runs have no place. Without a folder nothing is done.
 *
 * model      its path
 * kernel     as in kry_layer_args
 * Ownership  ended by cache_close, after an error too
 */
kry_status cache_open(struct cache *cache, kry_registry *registry, const kry_device *device,
                      const char *kernel, const kry_checkpoint *checkpoint, const char *model);

/** Makes weights when they turn out to be needed. Ownership: the callee's, until the layer is
 *  prepared. */
typedef kry_status (*weights_maker)(void *context, const kry_weights **out);

/**
 * Map a layer's prepared weights, or prepare and save them; without a cache prepare them. What is
 * there and no good is warned of.
 *
 * name       the layer's in its model
 * content    its content key; not read without a cache
 */
kry_status cache_prepare(const struct cache *cache, kry_layer *layer, const char *name,
                         const char *content, weights_maker make, void *context,
                         enum cache_outcome *out);

/** Put what was saved in place, as a whole, beside the layers that were good. Nothing is when
 *  `status`, how the work ended, is an error. Returns that, or KRY_E_IO. */
kry_status cache_close(struct cache *cache, kry_status status);

#endif
