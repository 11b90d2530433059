/*
 * Prepared weights become a file: written beside its place, hashed on the way, made durable, then
 * renamed, so that it appears whole or not at all.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    STEP_BLOCKS = 16, /* hashed and written at once; a device's bytes are staged for it */
    NAMES = 100       /* that are tried for the file beside its place */
};

/* A save under way. */
struct saving {
    const kry_layer *layer;
    const char *path;
    uint64_t offset; /* of the layer in the file */
    bool into;       /* a file that is there */
    char *temporary;
    int file;
    const kry_host *host;
    void *stream;
    unsigned char *staging; /* of a device's bytes */
    uint64_t *hashes;       /* of the weights' blocks */
};

static kry_status cannot(const struct saving *s, const char *what) {
    return kry_error_set(KRY_E_IO, "%s: cannot be %s: %s", s->path, what, strerror(errno));
}

/* A new file beside the path. Its name is not drawn: two processes differ by their numbers, two
 * saves by the count, and what a dead process of our number left is passed over. */
static kry_status create(struct saving *s) {
    static atomic_uint count;
    if (s->into) {
        s->file = open(s->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        return s->file >= 0 ? KRY_OK : cannot(s, "written");
    }
    for (int i = 0; i < NAMES; i++) {
        free(s->temporary);
        s->temporary = core_format("%s.%ld.%u.tmp", s->path, (long)getpid(),
                                   atomic_fetch_add_explicit(&count, 1, memory_order_relaxed));
        if (s->temporary == NULL)
            return kry_error_set(KRY_E_MEMORY, "%s: out of memory", s->path);
        /* For its owner alone to write, whatever the mask: mapping trusts no other. */
        s->file = open(s->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (s->file >= 0 || errno != EEXIST)
            break;
    }
    return s->file >= 0 ? KRY_OK : cannot(s, "written");
}

static kry_status write_at(const struct saving *s, const void *data, uint64_t bytes, uint64_t at) {
    const unsigned char *from = data;
    while (bytes > 0) {
        ssize_t count = pwrite(s->file, from, bytes, (off_t)at);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return cannot(s, "written");
        from += count;
        at += (uint64_t)count;
        bytes -= (uint64_t)count;
    }
    return KRY_OK;
}

/* Bytes [begin, begin + bytes) of the prepared weights where the host can read them. */
static kry_status fetch(const struct saving *s, uint64_t begin, uint64_t bytes, const void **out) {
    const kry_layer *layer = s->layer;
    const unsigned char *from = (const unsigned char *)layer->prepared + begin;
    *out = s->staging != NULL ? s->staging : from;
    if (s->staging == NULL)
        return KRY_OK;
    kry_status status = layer->platform->copy(&layer->device, s->staging, KRY_MEMORY_HOST, from,
                                              KRY_MEMORY_DEVICE, bytes, s->stream);
    if (status != KRY_OK)
        return core_platform_failed(layer, status, "copying %" PRIu64 " bytes from the device",
                                    bytes);
    status = layer->platform->synchronize != NULL
                 ? layer->platform->synchronize(&layer->device, s->stream)
                 : KRY_OK;
    return status == KRY_OK ? KRY_OK
                            : core_platform_failed(layer, status, "waiting for the stream");
}

static kry_status write_weights(const struct saving *s) {
    uint64_t all = s->layer->sizes.prepared_bytes, step = STEP_BLOCKS * CORE_HASH_BLOCK;
    for (uint64_t at = 0; at < all; at += step) {
        uint64_t bytes = all - at < step ? all - at : step, first = at / CORE_HASH_BLOCK;
        const void *data;
        kry_status status = fetch(s, at, bytes, &data);
        if (status != KRY_OK)
            return status;
        core_hash_blocks(data, bytes, first, s->hashes + first, s->host);
        status = write_at(s, data, bytes, s->offset + CORE_FILE_DATA_AT + at);
        if (status != KRY_OK)
            return status;
    }
    return KRY_OK;
}

static kry_status finish(struct saving *s, const struct file_header *header) {
    kry_status status = write_at(s, header, sizeof *header, s->offset);
    if (status == KRY_OK && !s->into && fsync(s->file) != 0) /* some tell of a full disk here */
        status = cannot(s, "written");
    int file = s->file;
    s->file = -1;
    if (close(file) != 0 && status == KRY_OK)
        status = cannot(s, "written");
    if (status == KRY_OK && !s->into && rename(s->temporary, s->path) != 0)
        status = cannot(s, "replaced");
    return status;
}

static kry_status check_memory(const kry_layer *layer) {
    if (!layer->filled)
        return kry_error_set(KRY_E_STATE, "kry_layer_save: the layer has no prepared weights");
    if (layer->memory == KRY_MEMORY_DEVICE &&
        (layer->platform == NULL || layer->platform->copy == NULL))
        return kry_error_set(KRY_E_UNSUPPORTED,
                             "no plugin offers to copy from memory of platform %s",
                             layer->device.platform);
    return KRY_OK;
}

static kry_status allocate(struct saving *s) {
    uint64_t blocks = core_hash_block_count(s->layer->sizes.prepared_bytes);
    s->hashes = calloc(blocks + 1, sizeof *s->hashes);
    bool stages = s->layer->memory == KRY_MEMORY_DEVICE;
    if (stages)
        s->staging =
            core_allocate(s->layer, s->host, KRY_MEMORY_HOST, STEP_BLOCKS * CORE_HASH_BLOCK);
    if (s->hashes == NULL || (stages && s->staging == NULL))
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory to save in", s->path);
    return KRY_OK;
}

static kry_status save(struct saving *s, const char *content) {
    const kry_layer *layer = s->layer;
    struct file_header header;
    kry_status status = allocate(s);
    if (status == KRY_OK)
        status = create(s);
    if (status == KRY_OK)
        status = write_weights(s);
    if (status == KRY_OK) {
        uint64_t blocks = core_hash_block_count(layer->sizes.prepared_bytes);
        uint64_t hash = kry_hash64(s->hashes, blocks * sizeof *s->hashes, 0);
        status = core_file_describe(layer, content, hash, &header);
    }
    bool created = s->file >= 0 && !s->into;
    if (status == KRY_OK)
        status = finish(s, &header);
    if (s->file >= 0)
        close(s->file);
    if (created && status != KRY_OK)
        unlink(s->temporary);
    free(s->temporary);
    free(s->hashes);
    core_release(layer, s->host, KRY_MEMORY_HOST, s->staging, STEP_BLOCKS * CORE_HASH_BLOCK);
    return status;
}

static kry_status check_place(const kry_save_args *given) {
    if (given->path == NULL || given->path[0] == '\0')
        return kry_error_set(KRY_E_ARGUMENT, "kry_save_args: path is NULL or empty");
    if ((given->flags & ~(uint32_t)KRY_SAVE_INTO) != 0 || given->reserved != 0)
        return kry_error_set(KRY_E_ARGUMENT, "kry_save_args: flags %#x are unknown", given->flags);
    if (given->offset != 0 && !(given->flags & KRY_SAVE_INTO))
        return kry_error_set(KRY_E_ARGUMENT,
                             "kry_save_args: offset is %" PRIu64 ", which goes with KRY_SAVE_INTO",
                             given->offset);
    return core_file_check_offset(given->offset);
}

kry_status kry_layer_save(const kry_layer *layer, const kry_save_args *args) {
    kry_save_args given;
    kry_host host;
    if (layer == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_layer_save: layer is NULL");
    kry_status status = COPY_IN_SINCE(&given, args, kry_save_args, offset);
    if (status == KRY_OK)
        status = check_place(&given);
    if (status == KRY_OK && given.host != NULL)
        status = core_host_copy(&host, given.host);
    if (status == KRY_OK)
        status = core_file_check_content(given.content);
    if (status == KRY_OK)
        status = check_memory(layer);
    if (status != KRY_OK)
        return status;
    struct saving saving = {.layer = layer,
                            .path = given.path,
                            .offset = given.offset,
                            .into = (given.flags & KRY_SAVE_INTO) != 0,
                            .file = -1,
                            .host = given.host != NULL ? &host : &layer->registry->services.offered,
                            .stream = given.stream};
    return save(&saving, given.content);
}
