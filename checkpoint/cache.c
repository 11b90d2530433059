/*
 * The file of a model's prepared weights. It is never changed where it lies: layers that are not
 * good are saved into a new one beside it, which is given the good ones and then takes its place.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_BYTES = 128 /* of a model's name, in that of its file */ };

/* A layer's place. */
struct entry {
    char *name;
    uint64_t offset;
    uint64_t bytes;
    bool renewed; /* saved into the new file */
};

struct kry_checkpoint_cache {
    char path[PATH_MAX];      /* of the file, with the hash of the layers that were added so far */
    size_t stem;              /* how much of the path is before that hash */
    uint64_t hash;            /* of names, layouts and descriptions */
    char temporary[PATH_MAX]; /* the new file; empty: none was begun */
    int descriptor;           /* its */
    uint64_t bytes;           /* of all layers */
    struct entry *entries;
    size_t count, capacity;
};

static kry_status cannot(const kry_checkpoint_cache *cache, const char *what) {
    return kry_error_set(KRY_E_IO, "%s: cannot be %s: %s", cache->path, what, strerror(errno));
}

/* ---- the name ------------------------------------------------------------------------ */

/* The last name of a model's path, with what is good in a name of a file. */
static void clean_name(const char *model, char out[NAME_BYTES]) {
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    char path[PATH_MAX];
    const char *name = realpath(model, path) != NULL ? path : model;
    const char *slash = strrchr(name, '/');
    if (slash != NULL)
        name = slash + 1;
    size_t length = 0;
    for (; name[length] != '\0' && length < NAME_BYTES - 1; length++)
        out[length] = strchr(good, name[length]) != NULL ? name[length] : '_';
    out[length] = '\0';
}

/* Returns false when that is longer than a path may be. */
static bool set_path(kry_checkpoint_cache *cache) {
    size_t room = sizeof cache->path - cache->stem;
    int length = snprintf(cache->path + cache->stem, room, ".%016" PRIx64 ".kry", cache->hash);
    return (size_t)length < room;
}

kry_status kry_checkpoint_cache_open(const char *folder, const char *model,
                                     kry_checkpoint_cache **out) {
    if (folder == NULL || model == NULL || out == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_checkpoint_cache_open: %s is NULL",
                             folder == NULL  ? "folder"
                             : model == NULL ? "model"
                                             : "out");
    kry_checkpoint_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: no memory for a cache", folder);
    char name[NAME_BYTES];
    clean_name(model, name);
    cache->descriptor = -1;
    int length = snprintf(cache->path, sizeof cache->path, "%s/%s", folder, name);
    cache->stem = (size_t)length;
    if (cache->stem >= sizeof cache->path || !set_path(cache)) {
        free(cache);
        return kry_error_set(KRY_E_ARGUMENT,
                             "%s: a path of a cache's file there has more than %d bytes", folder,
                             PATH_MAX - 1);
    }
    *out = cache;
    return KRY_OK;
}

/* ---- places -------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t bytes) {
    return (bytes + KRY_SAVED_HEADER - 1) / KRY_SAVED_HEADER * KRY_SAVED_HEADER;
}

static struct entry *find(const kry_checkpoint_cache *cache, const char *name) {
    for (size_t i = 0; i < cache->count; i++)
        if (strcmp(cache->entries[i].name, name) == 0)
            return &cache->entries[i];
    return NULL;
}

static kry_status find_well(const kry_checkpoint_cache *cache, const char *name,
                            const char *function, struct entry **out) {
    if (cache == NULL || name == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "%s: %s is NULL", function,
                             cache == NULL ? "cache" : "name");
    *out = find(cache, name);
    return *out != NULL
               ? KRY_OK
               : kry_error_set(KRY_E_NOT_FOUND, "%s: no layer '%s' was added", cache->path, name);
}

static kry_status too_small(bool is_null, const char *type) {
    if (is_null)
        return kry_error_set(KRY_E_ARGUMENT, "%s: found NULL, expected a struct to fill", type);
    return kry_error_set(KRY_E_ABI,
                         "%s: struct_size is less than that of ABI 0.3; set it before "
                         "the call",
                         type);
}

/* Room for one more. */
static bool reserve(kry_checkpoint_cache *cache) {
    if (cache->count < cache->capacity)
        return true;
    size_t capacity = cache->capacity * 2 + 16;
    struct entry *entries = realloc(cache->entries, capacity * sizeof *entries);
    if (entries == NULL)
        return false;
    cache->entries = entries;
    cache->capacity = capacity;
    return true;
}

kry_status kry_checkpoint_cache_add(kry_checkpoint_cache *cache, const char *name,
                                    const kry_layer *layer) {
    if (cache == NULL || name == NULL || layer == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_checkpoint_cache_add: %s is NULL",
                             cache == NULL  ? "cache"
                             : name == NULL ? "name"
                                            : "layer");
    if (find(cache, name) != NULL)
        return kry_error_set(KRY_E_ARGUMENT, "%s: layer '%s' was added already", cache->path, name);
    if (cache->temporary[0] != '\0')
        return kry_error_set(KRY_E_STATE, "%s: layer '%s' is added after one was renewed",
                             cache->path, name);
    kry_kernel_info kernel = KRY_INIT(kry_kernel_info);
    kry_sizes sizes = KRY_INIT(kry_sizes);
    kry_status status = kry_layer_kernel(layer, &kernel);
    if (status == KRY_OK)
        status = kry_layer_sizes(layer, &sizes);
    if (status != KRY_OK)
        return status;
    char *copy = reserve(cache) ? strdup(name) : NULL;
    if (copy == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: no memory for layer '%s'", cache->path, name);
    const kry_linear *linear = kry_layer_linear(layer, 1);
    uint64_t hash = kry_hash64(name, strlen(name), cache->hash);
    hash = kry_hash64(&kernel.layout_version, sizeof kernel.layout_version, hash);
    hash = kry_hash64(kernel.layout_name, strlen(kernel.layout_name), hash);
    cache->hash = kry_hash64(linear, sizeof *linear, hash);
    set_path(cache); /* as long as it was */
    uint64_t bytes = KRY_SAVED_HEADER + sizes.prepared_bytes;
    cache->entries[cache->count++] =
        (struct entry){.name = copy, .offset = cache->bytes, .bytes = bytes};
    cache->bytes += round_up(bytes);
    return KRY_OK;
}

kry_status kry_checkpoint_cache_find(const kry_checkpoint_cache *cache, const char *name,
                                     kry_map_args *out) {
    struct entry *entry;
    kry_status status = find_well(cache, name, "kry_checkpoint_cache_find", &entry);
    if (status != KRY_OK)
        return status;
    if (out == NULL || !KRY_HAS_FIELD(out, kry_map_args, bytes))
        return too_small(out == NULL, "kry_map_args");
    out->path = cache->path;
    out->offset = entry->offset;
    out->bytes = entry->bytes;
    return KRY_OK;
}

/* ---- the new file -------------------------------------------------------------------- */

/* Begin it, unless it was. */
static kry_status begin(kry_checkpoint_cache *cache) {
    if (cache->temporary[0] != '\0')
        return KRY_OK;
    int length = snprintf(cache->temporary, sizeof cache->temporary, "%s.XXXXXX.tmp", cache->path);
    if ((size_t)length >= sizeof cache->temporary)
        errno = ENAMETOOLONG;
    else
        cache->descriptor = mkostemps(cache->temporary, 4, O_CLOEXEC);
    if (cache->descriptor < 0) {
        cache->temporary[0] = '\0';
        return cannot(cache, "written");
    }
    /* Zeros, until something is saved there. */
    return ftruncate(cache->descriptor, (off_t)cache->bytes) == 0 ? KRY_OK
                                                                  : cannot(cache, "written");
}

/* Be done with it. */
static void end(kry_checkpoint_cache *cache, bool in_place) {
    if (cache->temporary[0] == '\0')
        return;
    if (!in_place)
        unlink(cache->temporary);
    close(cache->descriptor);
    cache->temporary[0] = '\0';
    cache->descriptor = -1;
    for (size_t i = 0; i < cache->count; i++)
        cache->entries[i].renewed = false;
}

kry_status kry_checkpoint_cache_renew(kry_checkpoint_cache *cache, const char *name,
                                      kry_save_args *out) {
    struct entry *entry;
    kry_status status = find_well(cache, name, "kry_checkpoint_cache_renew", &entry);
    if (status != KRY_OK)
        return status;
    if (out == NULL || !KRY_HAS_FIELD(out, kry_save_args, flags))
        return too_small(out == NULL, "kry_save_args");
    status = begin(cache);
    if (status != KRY_OK) {
        end(cache, false);
        return status;
    }
    entry->renewed = true;
    out->path = cache->temporary;
    out->offset = entry->offset;
    out->flags |= KRY_SAVE_INTO;
    return KRY_OK;
}

/* Copy [offset, offset + bytes), as far as the old file goes. */
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

/* Give the new file those layers that were not saved into it: they keep their headers, so what is
 * wrong with one shows when it is mapped. */
static int copy_others(const kry_checkpoint_cache *cache) {
    int old = open(cache->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), result = 0;
    struct stat info;
    if (old >= 0 && fstat(old, &info) == 0 && S_ISREG(info.st_mode))
        for (size_t i = 0; i < cache->count && result == 0; i++) {
            const struct entry *entry = &cache->entries[i];
            if (!entry->renewed)
                result = copy_part(cache->descriptor, old, entry->offset, entry->bytes);
        }
    if (old >= 0)
        close(old);
    return result;
}

kry_status kry_checkpoint_cache_commit(kry_checkpoint_cache *cache) {
    if (cache == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_checkpoint_cache_commit: cache is NULL");
    if (cache->temporary[0] == '\0')
        return KRY_OK;
    kry_status status = KRY_OK;
    /* For its owner alone to write, whatever the mask: mapping trusts no other. Some file systems
     * tell of a full disk only at the end. */
    if (copy_others(cache) != 0 || fchmod(cache->descriptor, 0644) != 0 ||
        fsync(cache->descriptor) != 0 || rename(cache->temporary, cache->path) != 0)
        status = cannot(cache, "written");
    end(cache, status == KRY_OK);
    return status;
}

void kry_checkpoint_cache_close(kry_checkpoint_cache **cache) {
    if (cache == NULL || *cache == NULL)
        return;
    end(*cache, false);
    for (size_t i = 0; i < (*cache)->count; i++)
        free((*cache)->entries[i].name);
    free((*cache)->entries);
    free(*cache);
    *cache = NULL;
}
