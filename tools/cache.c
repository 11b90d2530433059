/*
 * A folder of prepared weights: which layers have a place, and what becomes of each.
 */
#include "cache.h"

#include "command.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

const char *cache_word(enum cache_outcome outcome) {
    static const char *const words[CACHE_OUTCOMES] = {"unused",  "mapped",  "missing",
                                                      "damaged", "foreign", "stale"};
    return words[outcome];
}

kry_status cache_make_folder(const char *folder) {
    struct stat info;
    if (mkdir(folder, 0755) == 0 ||
        (errno == EEXIST && stat(folder, &info) == 0 && S_ISDIR(info.st_mode)))
        return KRY_OK;
    return kry_error_set(KRY_E_IO, "%s: cannot be made: %s", folder, strerror(errno));
}

/** Give a layer of the checkpoint its place, unless no kernel runs it. */
static kry_status place(const struct cache *cache, kry_registry *registry,
                        const kry_layer_args *given, const kry_checkpoint *checkpoint,
                        size_t index) {
    kry_checkpoint_layer stored = KRY_INIT(kry_checkpoint_layer);
    kry_linear linear = KRY_INIT(kry_linear);
    char content[KRY_CONTENT_MAX + 1];
    kry_layer_args args = *given;
    kry_layer *layer = NULL;
    kry_status status = kry_checkpoint_layer_at(checkpoint, index, &stored);
    /* The description that comes with the key; the key itself is the caller's to choose. */
    if (status == KRY_OK && stored.status == KRY_OK)
        status = kry_checkpoint_content(checkpoint, index, NULL, KRY_CONTENT_FILES, &linear,
                                        content, sizeof content);
    if (status != KRY_OK || stored.status != KRY_OK)
        return status;
    args.linear = &linear;
    if (kry_layer_create(registry, &args, &layer) != KRY_OK)
        return KRY_OK; /* whoever makes it next tells why */
    status = kry_checkpoint_cache_add(cache->file, stored.name, layer);
    kry_layer_destroy(&layer);
    return status;
}

kry_status cache_open(struct cache *cache, kry_registry *registry, const kry_device *device,
                      const char *kernel, const kry_checkpoint *checkpoint, const char *model) {
    if (cache->folder == NULL)
        return KRY_OK;
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = device;
    args.kernel = kernel;
    kry_status status = kry_checkpoint_cache_open(cache->folder, model, &cache->file);
    size_t count = kry_checkpoint_layer_count(checkpoint);
    for (size_t i = 0; i < count && status == KRY_OK; i++)
        status = place(cache, registry, &args, checkpoint, i);
    return status;
}

static enum cache_outcome outcome_of(kry_status status) {
    switch (status) {
    case KRY_OK:
        return CACHE_MAPPED;
    case KRY_E_NOT_FOUND:
        return CACHE_MISSING;
    case KRY_E_FORMAT:
        return CACHE_DAMAGED;
    case KRY_E_FOREIGN:
        return CACHE_FOREIGN;
    case KRY_E_STALE:
        return CACHE_STALE;
    default:
        return CACHE_UNUSED; /* nothing that preparing anew would mend */
    }
}

static kry_status prepare(kry_layer *layer, weights_maker make, void *context) {
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    kry_status status = make(context, &args.weights);
    return status == KRY_OK ? kry_layer_prepare(layer, &args) : status;
}

static kry_status save(kry_checkpoint_cache *file, const char *name, const kry_layer *layer,
                       const char *content) {
    kry_save_args args = KRY_INIT(kry_save_args);
    args.content = content;
    kry_status status = kry_checkpoint_cache_renew(file, name, &args);
    return status == KRY_OK ? kry_layer_save(layer, &args) : status;
}

kry_status cache_prepare(const struct cache *cache, kry_layer *layer, const char *name,
                         const char *content, weights_maker make, void *context,
                         enum cache_outcome *out) {
    *out = CACHE_UNUSED;
    kry_map_args map = KRY_INIT(kry_map_args);
    map.content = content;
    map.flags = cache->flags;
    if (cache->file == NULL || kry_checkpoint_cache_find(cache->file, name, &map) != KRY_OK)
        return prepare(layer, make, context);
    kry_status status = kry_layer_map(layer, &map);
    *out = outcome_of(status);
    if (*out == CACHE_MAPPED || *out == CACHE_UNUSED)
        return status;
    if (*out != CACHE_MISSING)
        warn("%s; layer '%s' is prepared anew", kry_error_message(), name);
    status = prepare(layer, make, context);
    return status == KRY_OK ? save(cache->file, name, layer, content) : status;
}

kry_status cache_close(struct cache *cache, kry_status status) {
    if (cache->file != NULL && status == KRY_OK)
        status = kry_checkpoint_cache_commit(cache->file);
    kry_checkpoint_cache_close(&cache->file);
    return status;
}
