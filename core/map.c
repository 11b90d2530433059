/*
 * A file of prepared weights becomes a layer's: opened, trusted, checked against the key, mapped,
 * compared with its hash; then applied from where it is mapped, or read into other memory. Up to
 * there nothing of the layer changes.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    PIECE_BLOCKS = 8,       /* of a file, hashed at once */
    AHEAD_BYTES = 64 << 20, /* that the disk is asked for before they are read */
    ADVICE_BYTES = 1 << 20  /* asked for at once: the system takes no more of a larger piece */
};

/* A file being mapped. */
struct mapping {
    kry_layer *layer;
    const kry_map_args *args;
    const kry_host *host;
    char *label; /* of the layer's place, for messages */
    int file;
    unsigned char *base; /* NULL: not mapped */
    uint64_t base_bytes; /* of the mapping, which begins with a page */
    uint64_t bytes;      /* of the layer in the file */
    unsigned char *weights;
    struct file_header header;
};

static kry_status cannot(const char *path, const char *what) {
    kry_status status = errno == ENOENT   ? KRY_E_NOT_FOUND
                        : errno == ENOMEM ? KRY_E_MEMORY
                                          : KRY_E_IO;
    return kry_error_set(status, "%s: cannot be %s: %s", path, what, strerror(errno));
}

/* ---- the file -------------------------------------------------------------------------- */

static kry_status check_trust(const struct mapping *m, const char *real_path,
                              const struct stat *entry) {
    bool relaxed = m->args->flags & KRY_MAP_RELAX_TRUST;
    uid_t owner;
    kry_status status = core_library_owner(&owner);
    if (status == KRY_OK)
        status = core_trust(real_path, entry, owner, relaxed ? &m->layer->registry->services : NULL,
                            "mapped");
    return status == KRY_E_TRUST
               ? kry_error_set(KRY_E_TRUST, "%s %s", real_path, kry_error_message())
               : status;
}

/* By its real path, whose folders are checked; no link may have taken its place since. */
static kry_status open_file(struct mapping *m) {
    const char *path = m->args->path;
    char *real_path = realpath(path, NULL);
    if (real_path == NULL)
        return cannot(path, "opened");
    /* O_NONBLOCK: a FIFO must not make a server wait. */
    m->file = open(real_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    struct stat entry;
    kry_status status = KRY_OK;
    if (m->file < 0 || fstat(m->file, &entry) != 0)
        status = cannot(path, "opened");
    else if (!S_ISREG(entry.st_mode))
        status = kry_error_set(KRY_E_FORMAT, "%s is no regular file (KRY-C21)", path);
    else
        status = check_trust(m, real_path, &entry);
    if (status == KRY_OK) {
        uint64_t all = (uint64_t)entry.st_size, begin = m->args->offset;
        m->bytes = all > begin ? all - begin : 0;
        if (m->args->bytes != 0 && m->args->bytes < m->bytes)
            m->bytes = m->args->bytes;
    }
    free(real_path);
    return status;
}

/* The path, and where in the file where that holds more than the layer. */
static kry_status make_label(struct mapping *m) {
    const kry_map_args *args = m->args;
    m->label = args->offset != 0 || args->bytes != 0
                   ? core_format("%s at %" PRIu64, args->path, args->offset)
                   : core_format("%s", args->path);
    return m->label != NULL
               ? KRY_OK
               : kry_error_set(KRY_E_MEMORY, "%s: out of memory to map in", args->path);
}

static kry_status read_header(struct mapping *m) {
    unsigned char *to = (unsigned char *)&m->header;
    size_t got = 0, wanted = sizeof m->header;
    while (got < wanted) {
        ssize_t count = pread(m->file, to + got, wanted - got, (off_t)(m->args->offset + got));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return cannot(m->args->path, "read");
        if (count == 0)
            break; /* shorter than a header: the check tells */
        got += (size_t)count;
    }
    if (got < wanted)
        m->bytes = got;
    return core_file_check(m->label, &m->header, m->bytes, m->layer, m->args->content);
}

static kry_status map_file(struct mapping *m) {
    uint64_t lead = m->args->offset % (uint64_t)sysconf(_SC_PAGESIZE);
    void *base = mmap(NULL, lead + m->bytes, PROT_READ, MAP_SHARED, m->file,
                      (off_t)(m->args->offset - lead));
    if (base == MAP_FAILED)
        return cannot(m->args->path, "mapped");
    m->base = base;
    m->base_bytes = lead + m->bytes;
    m->weights = m->base + lead + CORE_FILE_DATA_AT;
    return KRY_OK;
}

/* Let the disk read in long runs what will be read in short ones. Of a file of several layers, each
 * asks for as much as it has, AHEAD_BYTES further on, and the first for what lies before that. */
static void read_ahead(const struct mapping *m) {
    uint64_t begin = m->args->offset, end = begin + m->bytes + AHEAD_BYTES;
    for (uint64_t at = begin == 0 ? 0 : begin + AHEAD_BYTES; at < end; at += ADVICE_BYTES)
        (void)posix_fadvise(m->file, (off_t)at, ADVICE_BYTES, POSIX_FADV_WILLNEED);
}

static kry_status verify(const struct mapping *m) {
    uint64_t bytes = m->header.prepared_bytes, blocks = core_hash_block_count(bytes);
    uint64_t *hashes = calloc(blocks + 1, sizeof *hashes);
    if (hashes == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory to verify in", m->args->path);
    /* Piece by piece, so that threads read side by side and the system reads ahead of them. */
    for (uint64_t at = 0; at < bytes; at += PIECE_BLOCKS * CORE_HASH_BLOCK) {
        uint64_t left = bytes - at, piece = PIECE_BLOCKS * CORE_HASH_BLOCK;
        uint64_t first = at / CORE_HASH_BLOCK;
        core_hash_blocks(m->weights + at, left < piece ? left : piece, first, hashes + first,
                         m->host);
    }
    uint64_t hash = kry_hash64(hashes, blocks * sizeof *hashes, 0);
    free(hashes);
    if (hash == m->header.data_hash)
        return KRY_OK;
    return kry_error_set(KRY_E_FORMAT,
                         "%s is damaged: the hash of its weights is %016" PRIx64
                         ", expected %016" PRIx64 " (KRY-C21)",
                         m->label, hash, m->header.data_hash);
}

/* ---- the layer ------------------------------------------------------------------------- */

/* Apply from the mapping itself. */
static void adopt_mapping(struct mapping *m) {
    kry_layer *layer = m->layer;
    core_adopt(layer, &(struct target){m->weights, KRY_MEMORY_HOST, false});
    layer->mapping = m->base;
    layer->mapping_bytes = m->base_bytes;
    m->base = NULL;
}

struct copying {
    unsigned char *to;
    const unsigned char *from;
    uint64_t bytes;
};

static void copy_block(void *argument, int64_t i) {
    const struct copying *c = argument;
    uint64_t begin, bytes = core_hash_block(c->bytes, i, &begin);
    memcpy(c->to + begin, c->from + begin, bytes);
}

static kry_status copy_into(const struct mapping *m) {
    const kry_layer *layer = m->layer;
    uint64_t bytes = layer->sizes.prepared_bytes;
    if (layer->memory == KRY_MEMORY_HOST) {
        struct copying copying = {layer->prepared, m->weights, bytes};
        kry_parallel_for(m->host, (int64_t)core_hash_block_count(bytes), copy_block, &copying);
        return KRY_OK;
    }
    kry_status status = layer->platform->copy(&layer->device, layer->prepared, KRY_MEMORY_DEVICE,
                                              m->weights, KRY_MEMORY_HOST, bytes, m->args->stream);
    return status == KRY_OK ? KRY_OK
                            : core_platform_failed(
                                  layer, status, "copying %" PRIu64 " bytes to the device", bytes);
}

/* Read into the caller's buffer or into memory of the layer's own. */
static kry_status adopt_copy(const struct mapping *m, struct target *target) {
    kry_layer *layer = m->layer;
    const kry_platform *platform = layer->platform;
    if (target->memory == KRY_MEMORY_DEVICE &&
        (platform == NULL || platform->allocate == NULL || platform->release == NULL ||
         platform->copy == NULL))
        return kry_error_set(KRY_E_UNSUPPORTED,
                             "no plugin offers what device memory of platform %s needs",
                             layer->device.platform);
    if (target->prepared == NULL)
        target->prepared = core_allocate(layer, &layer->registry->services.offered, target->memory,
                                         layer->sizes.prepared_bytes);
    if (target->prepared == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory for %" PRIu64 " bytes", m->args->path,
                             layer->sizes.prepared_bytes);
    core_adopt(layer, target);
    return copy_into(m);
}

static kry_status map(struct mapping *m) {
    const kry_map_args *args = m->args;
    kry_layer *layer = m->layer;
    struct target target;
    kry_status status = core_choose_target(layer, args->prepared, args->prepared_bytes,
                                           args->prepared_memory, &target);
    if (status == KRY_OK)
        status = make_label(m);
    if (status == KRY_OK)
        status = open_file(m);
    if (status == KRY_OK)
        status = read_header(m);
    if (status == KRY_OK)
        status = map_file(m);
    if (status == KRY_OK)
        read_ahead(m);
    if (status == KRY_OK && !(args->flags & KRY_MAP_UNVERIFIED))
        status = verify(m);
    if (status == KRY_OK) {
        bool in_place = args->prepared == NULL && !(args->flags & KRY_MAP_COPY) &&
                        core_device_memory(&layer->device) == KRY_MEMORY_HOST;
        if (in_place)
            adopt_mapping(m);
        else
            status = adopt_copy(m, &target);
        if (status == KRY_OK)
            status = core_bind(layer);
    }
    if (m->base != NULL)
        munmap(m->base, m->base_bytes);
    if (m->file >= 0)
        close(m->file);
    free(m->label);
    return status;
}

kry_status kry_layer_map(kry_layer *layer, const kry_map_args *args) {
    const uint32_t known = KRY_MAP_COPY | KRY_MAP_UNVERIFIED | KRY_MAP_RELAX_TRUST;
    kry_map_args given;
    kry_host host;
    if (layer == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_layer_map: layer is NULL");
    kry_status status = COPY_IN_SINCE(&given, args, kry_map_args, offset);
    if (status == KRY_OK && (given.path == NULL || given.path[0] == '\0'))
        status = kry_error_set(KRY_E_ARGUMENT, "kry_map_args: path is NULL or empty");
    if (status == KRY_OK && (given.flags & ~known) != 0)
        status = kry_error_set(KRY_E_ARGUMENT, "kry_map_args: flags %#x are unknown", given.flags);
    if (status == KRY_OK)
        status = core_file_check_offset(given.offset);
    if (status == KRY_OK && given.host != NULL)
        status = core_host_copy(&host, given.host);
    if (status == KRY_OK)
        status = core_file_check_content(given.content);
    if (status != KRY_OK)
        return status;
    struct mapping mapping = {.layer = layer,
                              .args = &given,
                              .host =
                                  given.host != NULL ? &host : &layer->registry->services.offered,
                              .file = -1};
    return map(&mapping);
}
