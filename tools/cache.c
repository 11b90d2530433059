/*
 * A folder of prepared weights. A file is never changed where it lies: layers that are not good are
 * saved into a new one beside it, which is given the good ones and then takes its place.
 */
#include "cache.h"

#include "command.h"
#include "folder.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_BYTES = 128 /* of a model's name, in that of its file */ };

/** A layer's place. */
struct entry {
    char *name; /* NULL: it has none */
    uint64_t offset;
    uint64_t bytes;
    bool saved; /* into the new file */
};

struct cache_file {
    char path[PATH_MAX];
    char temporary[PATH_MAX]; /* the new file; empty: none was begun */
    int descriptor;           /* its */
    uint64_t bytes;           /* of all layers */
    struct entry *entries;
    size_t count;
};

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

/* ---- places -------------------------------------------------------------------------- */

/** A layer's size, and the hash of the file's name with what it is. */
static kry_status measure(const kry_layer *layer, uint64_t *bytes, uint64_t *hash) {
    kry_kernel_info kernel = KRY_INIT(kry_kernel_info);
    kry_sizes sizes = KRY_INIT(kry_sizes);
    kry_status status = kry_layer_kernel(layer, &kernel);
    if (status == KRY_OK)
        status = kry_layer_sizes(layer, &sizes);
    if (status != KRY_OK)
        return status;
    const kry_linear *linear = kry_layer_linear(layer, 1);
    *hash = kry_hash64(&kernel.layout_version, sizeof kernel.layout_version, *hash);
    *hash = kry_hash64(kernel.layout_name, strlen(kernel.layout_name), *hash);
    *hash = kry_hash64(linear, sizeof *linear, *hash);
    *bytes = KRY_SAVED_HEADER + sizes.prepared_bytes;
    return KRY_OK;
}

static uint64_t round_up(uint64_t bytes) {
    return (bytes + KRY_SAVED_HEADER - 1) / KRY_SAVED_HEADER * KRY_SAVED_HEADER;
}

/** Give a layer of the checkpoint the place at *end, unless no kernel runs it. */
static kry_status place(kry_registry *registry, const kry_layer_args *given,
                        const kry_checkpoint *checkpoint, size_t index, struct entry *out,
                        uint64_t *end, uint64_t *hash) {
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
    *hash = kry_hash64(stored.name, strlen(stored.name), *hash);
    status = measure(layer, &out->bytes, hash);
    kry_layer_destroy(&layer);
    if (status != KRY_OK)
        return status;
    out->offset = *end;
    *end += round_up(out->bytes);
    out->name = strdup(stored.name);
    return out->name != NULL ? KRY_OK : kry_error_set(KRY_E_MEMORY, "no memory for names");
}

/** The last name of a model's path, with what is good in a name of a file. */
static void clean_name(const char *model, char out[NAME_BYTES]) {
    char path[PATH_MAX];
    const char *name = realpath(model, path) != NULL ? path : model;
    const char *slash = strrchr(name, '/');
    if (slash != NULL)
        name = slash + 1;
    size_t length = 0;
    for (; name[length] != '\0' && length < NAME_BYTES - 1; length++)
        out[length] = isalnum((unsigned char)name[length]) || strchr("._-", name[length]) != NULL
                          ? name[length]
                          : '_';
    out[length] = '\0';
}

kry_status cache_open(struct cache *cache, kry_registry *registry, const kry_device *device,
                      const char *kernel, const kry_checkpoint *checkpoint, const char *model) {
    if (cache->folder == NULL)
        return KRY_OK;
    size_t count = kry_checkpoint_layer_count(checkpoint);
    struct cache_file *file = cache->file = calloc(1, sizeof *file);
    if (file == NULL || (file->entries = calloc(count + 1, sizeof *file->entries)) == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory for a cache of %zu layers", count);
    file->count = count;
    file->descriptor = -1;
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = device;
    args.kernel = kernel;
    uint64_t hash = 0;
    kry_status status = KRY_OK;
    for (size_t i = 0; i < count && status == KRY_OK; i++)
        status = place(registry, &args, checkpoint, i, &file->entries[i], &file->bytes, &hash);
    char clean[NAME_BYTES], name[NAME_BYTES + 32];
    clean_name(model, clean);
    snprintf(name, sizeof name, "%s.%016" PRIx64 ".kry", clean, hash);
    return status == KRY_OK ? join_path(file->path, cache->folder, name) : status;
}

static struct entry *find(const struct cache_file *file, const char *name) {
    for (size_t i = 0; i < file->count; i++)
        if (file->entries[i].name != NULL && strcmp(file->entries[i].name, name) == 0)
            return &file->entries[i];
    return NULL;
}

/* ---- a layer ------------------------------------------------------------------------- */

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

/** Begin the new file, unless it was. */
static kry_status begin(struct cache_file *file) {
    if (file->temporary[0] != '\0')
        return KRY_OK;
    int length = snprintf(file->temporary, sizeof file->temporary, "%s.XXXXXX.tmp", file->path);
    if ((size_t)length >= sizeof file->temporary)
        errno = ENAMETOOLONG;
    else
        file->descriptor = mkostemps(file->temporary, 4, O_CLOEXEC);
    /* Zeros, until something is saved there. */
    if (file->descriptor >= 0 && ftruncate(file->descriptor, (off_t)file->bytes) == 0)
        return KRY_OK;
    if (file->descriptor < 0)
        file->temporary[0] = '\0';
    return kry_error_set(KRY_E_IO, "%s: cannot be written: %s", file->path, strerror(errno));
}

static kry_status save(struct cache_file *file, struct entry *entry, const kry_layer *layer,
                       const char *content) {
    kry_status status = begin(file);
    if (status != KRY_OK)
        return status;
    kry_save_args args = KRY_INIT(kry_save_args);
    args.path = file->temporary;
    args.content = content;
    args.offset = entry->offset;
    args.flags = KRY_SAVE_INTO;
    status = kry_layer_save(layer, &args);
    entry->saved = status == KRY_OK;
    return status;
}

kry_status cache_prepare(const struct cache *cache, kry_layer *layer, const char *name,
                         const char *content, weights_maker make, void *context,
                         enum cache_outcome *out) {
    *out = CACHE_UNUSED;
    struct entry *entry = cache->file != NULL ? find(cache->file, name) : NULL;
    if (entry == NULL)
        return prepare(layer, make, context);
    kry_map_args map = KRY_INIT(kry_map_args);
    map.path = cache->file->path;
    map.content = content;
    map.flags = cache->flags;
    map.offset = entry->offset;
    map.bytes = entry->bytes;
    kry_status status = kry_layer_map(layer, &map);
    *out = outcome_of(status);
    if (*out == CACHE_MAPPED || *out == CACHE_UNUSED)
        return status;
    if (*out != CACHE_MISSING)
        warn("%s; layer '%s' is prepared anew", kry_error_message(), name);
    status = prepare(layer, make, context);
    return status == KRY_OK ? save(cache->file, entry, layer, content) : status;
}

/* ---- the whole file ------------------------------------------------------------------ */

/** Copy [offset, offset + bytes), as far as the old file goes. */
static int copy_part(int to, int from, uint64_t offset, uint64_t bytes) {
    off_t at = (off_t)offset;
    if (lseek(to, at, SEEK_SET) < 0)
        return -1;
    while (bytes > 0) {
        ssize_t count = sendfile(to, from, &at, bytes);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return (int)count;
        bytes -= (uint64_t)count;
    }
    return 0;
}

/** Give the new file those layers that were not saved into it: they keep their headers, so what is
 *  wrong with one shows when it is mapped. */
static int copy_others(const struct cache_file *file) {
    int old = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), result = 0;
    struct stat info;
    if (old >= 0 && fstat(old, &info) == 0 && S_ISREG(info.st_mode))
        for (size_t i = 0; i < file->count && result == 0; i++) {
            const struct entry *entry = &file->entries[i];
            if (entry->name != NULL && !entry->saved)
                result = copy_part(file->descriptor, old, entry->offset, entry->bytes);
        }
    if (old >= 0)
        close(old);
    return result;
}

static kry_status finish(struct cache_file *file) {
    /* For its owner alone to write, whatever the mask: mapping trusts no other. Some file systems
     * tell of a full disk only at the end. */
    if (copy_others(file) == 0 && fchmod(file->descriptor, 0644) == 0 &&
        fsync(file->descriptor) == 0 && rename(file->temporary, file->path) == 0)
        return KRY_OK;
    return kry_error_set(KRY_E_IO, "%s: cannot be written: %s", file->path, strerror(errno));
}

kry_status cache_close(struct cache *cache, kry_status status) {
    struct cache_file *file = cache->file;
    if (file == NULL)
        return status;
    if (file->temporary[0] != '\0') {
        if (status == KRY_OK)
            status = finish(file);
        if (status != KRY_OK)
            unlink(file->temporary);
        close(file->descriptor);
    }
    for (size_t i = 0; i < file->count && file->entries != NULL; i++)
        free(file->entries[i].name);
    free(file->entries);
    free(file);
    cache->file = NULL;
    return status;
}
