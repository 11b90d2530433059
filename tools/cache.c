/*
 * A folder of prepared weights.
 */
#include "cache.h"

#include "command.h"
#include "folder.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { NAME_BYTES = 128 /* of a layer's name, in that of its file */ };

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

/** What is good in a name of a file; the hash behind it tells names apart that this makes alike. */
static void clean_name(const char *name, char out[NAME_BYTES]) {
    size_t length = 0;
    for (; name[length] != '\0' && length < NAME_BYTES - 1; length++)
        out[length] = isalnum((unsigned char)name[length]) || strchr("._-", name[length]) != NULL
                          ? name[length]
                          : '_';
    out[length] = '\0';
}

/** The file of a layer in a layout; files of one layer for two kernels do not push each other out.
 */
static kry_status name_file(const struct cache *cache, const kry_layer *layer, const char *name,
                            char out[PATH_MAX]) {
    kry_kernel_info kernel = KRY_INIT(kry_kernel_info);
    kry_status status = kry_layer_kernel(layer, &kernel);
    if (status != KRY_OK)
        return status;
    kry_linear linear = *kry_layer_linear(layer, 1);
    uint64_t hash = kry_hash64(name, strlen(name), kernel.layout_version);
    hash = kry_hash64(kernel.layout_name, strlen(kernel.layout_name), hash);
    hash = kry_hash64(&linear, sizeof linear, hash);
    char clean[NAME_BYTES], file[NAME_BYTES + 32];
    clean_name(name, clean);
    snprintf(file, sizeof file, "%s.%016" PRIx64 ".kry", clean, hash);
    return join_path(out, cache->folder, file);
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

kry_status cache_prepare(const struct cache *cache, kry_layer *layer, const char *name,
                         const char *content, weights_maker make, void *context,
                         enum cache_outcome *out) {
    *out = CACHE_UNUSED;
    if (cache->folder == NULL)
        return prepare(layer, make, context);
    char path[PATH_MAX];
    kry_status status = name_file(cache, layer, name, path);
    if (status != KRY_OK)
        return status;
    kry_map_args map = KRY_INIT(kry_map_args);
    map.path = path;
    map.content = content;
    map.flags = cache->flags;
    status = kry_layer_map(layer, &map);
    *out = outcome_of(status);
    if (*out == CACHE_MAPPED || *out == CACHE_UNUSED)
        return status;
    if (*out != CACHE_MISSING)
        warn("%s; prepared anew", kry_error_message());
    kry_save_args save = KRY_INIT(kry_save_args);
    save.path = path;
    save.content = content;
    status = prepare(layer, make, context);
    return status == KRY_OK ? kry_layer_save(layer, &save) : status;
}
