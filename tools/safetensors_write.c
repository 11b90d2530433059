/*
 * Writes a safetensors file. Format: the header's length (u64, little-endian), a JSON object
 * of name -> {dtype, shape, data_offsets}, the tensors' bytes without a gap.
 */
#include "safetensors_write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct entry {
    char *name;
    uint64_t bytes;
    uint64_t begin; /* in the file */
    int64_t shape[KRY_TENSOR_RANK_MAX];
    uint32_t rank;
    uint32_t dtype;
    bool filled;
};

struct safetensors_writer {
    char *path; /* NULL until the file is opened */
    struct entry *entries;
    size_t count;
    size_t capacity;
    uint64_t total;
    int descriptor;
};

static kry_status out_of_memory(void) { return kry_error_set(KRY_E_MEMORY, "out of memory"); }

kry_status safetensors_writer_create(struct safetensors_writer **out) {
    struct safetensors_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return out_of_memory();
    writer->descriptor = -1;
    *out = writer;
    return KRY_OK;
}

void safetensors_writer_destroy(struct safetensors_writer **writer) {
    struct safetensors_writer *gone = *writer;
    if (gone == NULL)
        return;
    for (size_t i = 0; i < gone->count; i++)
        free(gone->entries[i].name);
    free(gone->entries);
    free(gone->path);
    if (gone->descriptor >= 0)
        close(gone->descriptor);
    free(gone);
    *writer = NULL;
}

kry_status safetensors_writer_declare(struct safetensors_writer *writer, const char *name,
                                      uint32_t dtype, const int64_t *shape, uint32_t rank,
                                      size_t *index) {
    if (rank > KRY_TENSOR_RANK_MAX)
        return kry_error_set(KRY_E_ARGUMENT, "%s has %" PRIu32 " dimensions; at most %d", name,
                             rank, KRY_TENSOR_RANK_MAX);
    struct entry entry = {.bytes = kry_dtype_bytes(dtype), .rank = rank, .dtype = dtype};
    for (uint32_t i = 0; i < rank; i++) {
        entry.shape[i] = shape[i];
        if (shape[i] < 0 || __builtin_mul_overflow(entry.bytes, (uint64_t)shape[i], &entry.bytes))
            return kry_error_set(KRY_E_ARGUMENT, "the shape of %s is out of range", name);
    }
    uint64_t total;
    if (__builtin_add_overflow(writer->total, entry.bytes, &total) || total > INT64_MAX / 2)
        return kry_error_set(KRY_E_ARGUMENT, "%s: the tensors count more than 2^62 bytes", name);
    if (writer->count == writer->capacity) {
        size_t capacity = writer->capacity * 2 + 16;
        struct entry *grown = realloc(writer->entries, capacity * sizeof *grown);
        if (grown == NULL)
            return out_of_memory();
        writer->entries = grown;
        writer->capacity = capacity;
    }
    entry.name = strdup(name);
    if (entry.name == NULL)
        return out_of_memory();
    writer->total = total;
    *index = writer->count;
    writer->entries[writer->count++] = entry;
    return KRY_OK;
}

uint64_t safetensors_writer_bytes(const struct safetensors_writer *writer, size_t index) {
    return writer->entries[index].bytes;
}

uint64_t safetensors_writer_total(const struct safetensors_writer *writer) { return writer->total; }

/** An entry, to be put in order. */
struct place {
    struct entry *entry;
};

/** Widest elements first, then by name: the order of the format's own library. */
static int compare_places(const void *left, const void *right) {
    const struct entry *a = ((const struct place *)left)->entry;
    const struct entry *b = ((const struct place *)right)->entry;
    size_t a_width = kry_dtype_bytes(a->dtype), b_width = kry_dtype_bytes(b->dtype);
    if (a_width != b_width)
        return a_width > b_width ? -1 : 1;
    return strcmp(a->name, b->name);
}

/** Put an entry into the header's object. */
static bool describe(json_t *header, const struct entry *entry, uint64_t begin) {
    json_t *shape = json_array();
    bool good = shape != NULL;
    for (uint32_t i = 0; i < entry->rank; i++)
        good = good && json_array_append_new(shape, json_integer(entry->shape[i])) == 0;
    json_t *value =
        json_pack("{s:s, s:o, s:[I,I]}", "dtype", kry_dtype_string(entry->dtype), "shape", shape,
                  "data_offsets", (json_int_t)begin, (json_int_t)begin + (json_int_t)entry->bytes);
    return json_object_set_new(header, entry->name, value) == 0 && good;
}

/** Compose the header in place order, and tell each entry where it begins. */
static kry_status compose(struct safetensors_writer *writer, char **out) {
    struct place *places = calloc(writer->count + 1, sizeof *places);
    json_t *header = json_object();
    char *text = NULL;
    kry_status status = KRY_OK;
    if (places == NULL || header == NULL) {
        status = out_of_memory();
        goto out;
    }
    for (size_t i = 0; i < writer->count; i++)
        places[i].entry = &writer->entries[i];
    qsort(places, writer->count, sizeof *places, compare_places);

    bool good =
        json_object_set_new(header, "__metadata__", json_pack("{s:s}", "format", "pt")) == 0;
    uint64_t begin = 0;
    for (size_t i = 0; i < writer->count && good; i++) {
        struct entry *entry = places[i].entry;
        if (json_object_get(header, entry->name) != NULL) {
            status = kry_error_set(KRY_E_ARGUMENT, "%s: two tensors are called %s", writer->path,
                                   entry->name);
            goto out;
        }
        good = describe(header, entry, begin);
        entry->begin = begin;
        begin += entry->bytes;
    }
    text = good ? json_dumps(header, JSON_COMPACT) : NULL;
    if (text == NULL)
        status = out_of_memory();
out:
    json_decref(header);
    free(places);
    if (status == KRY_OK)
        *out = text;
    return status;
}

static kry_status write_at(const struct safetensors_writer *writer, const void *data,
                           uint64_t bytes, uint64_t offset) {
    const char *from = data;
    while (bytes > 0) {
        ssize_t count = pwrite(writer->descriptor, from, bytes, (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return kry_error_set(KRY_E_IO, "%s: cannot be written: %s", writer->path,
                                 strerror(errno));
        from += count;
        offset += (uint64_t)count;
        bytes -= (uint64_t)count;
    }
    return KRY_OK;
}

kry_status safetensors_writer_open(struct safetensors_writer *writer, const char *path) {
    writer->path = strdup(path);
    if (writer->path == NULL)
        return out_of_memory();
    char *header = NULL;
    kry_status status = compose(writer, &header);
    if (status != KRY_OK)
        return status;
    /* Blanks after the JSON bring the first tensor to a multiple of 8. */
    size_t length = strlen(header), padded = (length + 7) / 8 * 8;
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char)((uint64_t)padded >> (8 * i));
    for (size_t i = 0; i < writer->count; i++)
        writer->entries[i].begin += sizeof prefix + padded;

    writer->descriptor = open(writer->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (writer->descriptor < 0 ||
        ftruncate(writer->descriptor, (off_t)(sizeof prefix + padded + writer->total)) != 0)
        status = kry_error_set(KRY_E_IO, "%s: cannot be made: %s", writer->path, strerror(errno));
    if (status == KRY_OK)
        status = write_at(writer, prefix, sizeof prefix, 0);
    if (status == KRY_OK)
        status = write_at(writer, header, length, sizeof prefix);
    if (status == KRY_OK)
        status = write_at(writer, "       ", padded - length, sizeof prefix + length);
    free(header);
    return status;
}

kry_status safetensors_writer_fill(struct safetensors_writer *writer, size_t index,
                                   const void *data) {
    struct entry *entry = &writer->entries[index];
    kry_status status = write_at(writer, data, entry->bytes, entry->begin);
    entry->filled = status == KRY_OK;
    return status;
}

kry_status safetensors_writer_finish(struct safetensors_writer *writer, bool sparse) {
    for (size_t i = 0; i < writer->count && !sparse; i++)
        if (!writer->entries[i].filled)
            return kry_error_set(KRY_E_STATE, "%s: nothing was written as %s", writer->path,
                                 writer->entries[i].name);
    int descriptor = writer->descriptor;
    writer->descriptor = -1;
    /* A full disk may show only here. */
    bool durable = fsync(descriptor) == 0;
    int error = errno;
    if (close(descriptor) != 0 && durable) {
        durable = false;
        error = errno;
    }
    if (!durable)
        return kry_error_set(KRY_E_IO, "%s: cannot be written: %s", writer->path, strerror(error));
    return KRY_OK;
}
