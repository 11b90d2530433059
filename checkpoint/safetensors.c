/*
 * One safetensors file: u64 length of the header, the header (JSON: name -> dtype, shape,
 * data_offsets; __metadata__), then the tensors' bytes without a gap.
 *
 * Everything here is untrusted: every number is checked before it is used.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

/* What the format allows; keeps a damaged length from asking for a parse of the whole file. */
enum { HEADER_BYTES_MAX = 100 * 1000 * 1000, PREFIX_BYTES = 8 };

/* A tensor's place, for finding gaps and overlaps. */
typedef struct extent {
    uint64_t begin, end;
    const char *name;
} extent;

typedef struct reader {
    kry_checkpoint *checkpoint;
    const shard *shard;
    const json_t *weight_map; /* NULL: none */
    const uint8_t *data;      /* where offsets count from */
    uint64_t data_bytes;
    extent *extents;
    size_t extent_count;
} reader;

static kry_status complain(const reader *reader, const char *name, const char *what) {
    return kry_error_set(KRY_E_FORMAT, "%s: tensor '%s': %s", reader->shard->path, name, what);
}

static kry_status read_offsets(const reader *reader, const char *name, const json_t *entry,
                               extent *out) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return complain(reader, name, "data_offsets are not an array of two integers");
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > reader->data_bytes)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: tensor '%s': data_offsets [%lld, %lld] do not lie in order "
                             "within the %llu bytes of data that the file has",
                             reader->shard->path, name, (long long)begin, (long long)end,
                             (unsigned long long)reader->data_bytes);
    *out = (extent){(uint64_t)begin, (uint64_t)end, name};
    return KRY_OK;
}

/* The shape, and the bits that it comes to. */
static kry_status read_shape(const reader *reader, const char *name, const json_t *entry,
                             unsigned element_bits, kry_tensor *tensor, uint64_t *bits) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return complain(reader, name, "shape is not an array");
    size_t rank = json_array_size(shape);
    if (rank > KRY_TENSOR_RANK_MAX)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: tensor '%s': found %zu dimensions, expected at most "
                             "%d",
                             reader->shard->path, name, rank, KRY_TENSOR_RANK_MAX);
    uint64_t product = element_bits;
    bool overflows = false, empty = false;
    for (size_t i = 0; i < rank; i++) {
        const json_t *item = json_array_get(shape, i);
        json_int_t size = json_integer_value(item);
        if (!json_is_integer(item) || size < 0)
            return complain(reader, name, "shape holds something other than sizes");
        tensor->shape[i] = size;
        overflows |= __builtin_mul_overflow(product, (uint64_t)size, &product);
        empty |= size == 0;
    }
    if (overflows && !empty)
        return complain(reader, name, "the product of its shape overflows 64 bits");
    tensor->rank = (uint32_t)rank;
    *bits = empty ? 0 : product;
    return KRY_OK;
}

static kry_status read_tensor(reader *reader, const char *name, const json_t *entry) {
    if (!json_is_object(entry))
        return complain(reader, name, "its entry in the header is not an object");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (dtype == NULL)
        return complain(reader, name, "dtype is not a string");
    kry_tensor tensor = KRY_INIT(kry_tensor);
    unsigned element_bits = ckpt_dtype_parse(dtype, &tensor.dtype);
    if (element_bits == 0)
        return kry_error_set(KRY_E_FORMAT, "%s: tensor '%s': dtype '%s' is not one of safetensors'",
                             reader->shard->path, name, dtype);
    uint64_t bits = 0;
    extent place = {0};
    kry_status status = read_shape(reader, name, entry, element_bits, &tensor, &bits);
    if (status == KRY_OK)
        status = read_offsets(reader, name, entry, &place);
    if (status != KRY_OK)
        return status;
    unsigned long long bytes = bits / 8 + (bits % 8 != 0);
    if (bits % 8 != 0 || bytes != place.end - place.begin)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: tensor '%s': dtype and shape come to %llu bytes, but its "
                             "data_offsets hold %llu",
                             reader->shard->path, name, bytes,
                             (unsigned long long)(place.end - place.begin));
    reader->extents[reader->extent_count++] = place;
    tensor.name = name;
    tensor.file = reader->shard->path;
    tensor.data = reader->data + place.begin;
    tensor.bytes = place.end - place.begin;

    const char *owner = json_string_value(json_object_get(reader->weight_map, name));
    const char *file = strrchr(reader->shard->path, '/');
    if (owner != NULL && strcmp(owner, file == NULL ? reader->shard->path : file + 1) != 0) {
        ckpt_warn(reader->checkpoint, "%s: tensor '%s' is not read, the index says it is in '%s'",
                  reader->shard->path, name, owner);
        return KRY_OK;
    }
    return ckpt_tensor_add(reader->checkpoint, &tensor);
}

static int compare_extents(const void *left, const void *right) {
    const extent *a = left, *b = right;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}

/* Every byte of data belongs to one tensor: a gap or an overlap is a damaged or crafted file. */
static kry_status check_extents(reader *reader) {
    if (reader->extent_count > 1)
        qsort(reader->extents, reader->extent_count, sizeof(extent), compare_extents);
    uint64_t end = 0;
    const char *before = NULL;
    for (size_t i = 0; i < reader->extent_count; i++) {
        const extent *place = &reader->extents[i];
        if (place->begin < end)
            return kry_error_set(KRY_E_FORMAT,
                                 "%s: tensor '%s' begins at byte %llu of the data and overlaps "
                                 "'%s', which ends at %llu",
                                 reader->shard->path, place->name, (unsigned long long)place->begin,
                                 before, (unsigned long long)end);
        if (place->begin > end)
            return kry_error_set(KRY_E_FORMAT,
                                 "%s: no tensor holds the bytes [%llu, %llu) of the data, before "
                                 "tensor '%s'",
                                 reader->shard->path, (unsigned long long)end,
                                 (unsigned long long)place->begin, place->name);
        end = place->end;
        before = place->name;
    }
    if (end != reader->data_bytes)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: the tensors end at byte %llu of the data, but the file has %llu: "
                             "it is damaged or was cut off",
                             reader->shard->path, (unsigned long long)end,
                             (unsigned long long)reader->data_bytes);
    return KRY_OK;
}

static kry_status read_header(shard *shard, uint64_t *header_bytes) {
    if (shard->map.size < PREFIX_BYTES)
        return kry_error_set(KRY_E_FORMAT, "%s: found %zu bytes, too few for a safetensors header",
                             shard->path, shard->map.size);
    uint64_t size;
    memcpy(&size, shard->map.data, sizeof size);
    uint64_t room = shard->map.size - PREFIX_BYTES;
    if (size > room || size > HEADER_BYTES_MAX)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: its header claims %llu bytes; the file has room for %llu and the "
                             "format allows %d",
                             shard->path, (unsigned long long)size, (unsigned long long)room,
                             HEADER_BYTES_MAX);
    *header_bytes = size;
    return ckpt_json_parse((const char *)shard->map.data + PREFIX_BYTES, (size_t)size, shard->path,
                           &shard->header);
}

static kry_status read_tensors(kry_checkpoint *checkpoint, shard *shard, const json_t *weight_map) {
    uint64_t header_bytes = 0;
    kry_status status = read_header(shard, &header_bytes);
    if (status != KRY_OK)
        return status;
    reader reader = {.checkpoint = checkpoint, .shard = shard, .weight_map = weight_map};
    reader.data = shard->map.data + PREFIX_BYTES + header_bytes;
    reader.data_bytes = shard->map.size - PREFIX_BYTES - header_bytes;
    reader.extents = calloc(json_object_size(shard->header) + 1, sizeof(extent));
    if (reader.extents == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", shard->path);
    const char *name;
    json_t *entry;
    json_object_foreach(shard->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        status = read_tensor(&reader, name, entry);
        if (status != KRY_OK)
            break;
    }
    if (status == KRY_OK)
        status = check_extents(&reader);
    free(reader.extents);
    return status;
}

kry_status ckpt_shard_open(kry_checkpoint *checkpoint, const char *path, const json_t *weight_map) {
    /* The caller has made room for it; what is opened here is closed with the checkpoint. */
    shard *shard = &checkpoint->shards[checkpoint->shard_count];
    *shard = (struct shard){.path = strdup(path)};
    if (shard->path == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", path);
    checkpoint->shard_count++;
    kry_status status = ckpt_map_open(path, &shard->map);
    return status == KRY_OK ? read_tensors(checkpoint, shard, weight_map) : status;
}
