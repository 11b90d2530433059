/*
 * A safetensors file: its header, and the tensors that it makes of the file's bytes.
 *
 * Each input is read twice. As it is; and as a fuzzer means it, which cannot count: the header's
 * length is told anew, up to the last brace, and the eight bytes in its place tell how many bytes
 * of data follow.
 */
#include "fuzz.h"
#include "internal.h"

#include <stdlib.h>

enum { PREFIX_BYTES = 8, DATA_BYTES_MAX = 65536 };

static const kry_status refusals[] = {KRY_E_FORMAT, KRY_OK};

static void check_tensor(const kry_tensor *tensor, const uint8_t *file, size_t size) {
    FUZZ_CHECK(tensor->name != NULL && tensor->file != NULL);
    FUZZ_CHECK(tensor->rank <= KRY_TENSOR_RANK_MAX);
    const uint8_t *begin = tensor->data;
    FUZZ_CHECK(begin >= file + PREFIX_BYTES && begin <= file + size);
    FUZZ_CHECK(tensor->bytes <= (uint64_t)(file + size - begin));
    fuzz_touch(begin, (size_t)tensor->bytes);
    uint64_t elements = 1;
    bool empty = false;
    for (uint32_t i = 0; i < tensor->rank; i++) {
        FUZZ_CHECK(tensor->shape[i] >= 0);
        empty |= tensor->shape[i] == 0;
    }
    for (uint32_t i = 0; i < tensor->rank && !empty; i++)
        FUZZ_CHECK(!__builtin_mul_overflow(elements, (uint64_t)tensor->shape[i], &elements));
    if (empty)
        FUZZ_CHECK(tensor->bytes == 0);
    else if (tensor->dtype != 0)
        FUZZ_CHECK(tensor->bytes == elements * kry_dtype_bytes(tensor->dtype));
    char text[64];
    FUZZ_CHECK(strlen(ckpt_tensor_format(tensor, text, sizeof text)) < sizeof text);
}

/* Each byte behind the header belongs to one tensor, each tensor is found by its name. */
static void check_accepted(const kry_checkpoint *checkpoint) {
    const map *map = &checkpoint->shards[0].map;
    uint64_t header;
    memcpy(&header, map->data, sizeof header);
    FUZZ_CHECK(header <= map->size - PREFIX_BYTES);
    size_t data_bytes = map->size - PREFIX_BYTES - (size_t)header;
    const uint8_t *data = map->data + PREFIX_BYTES + header;
    uint8_t *owners = calloc(data_bytes + 1, 1);
    FUZZ_CHECK(owners != NULL);
    for (size_t i = 0; i < checkpoint->tensor_count; i++) {
        const kry_tensor *tensor = &checkpoint->tensors[i];
        check_tensor(tensor, map->data, map->size);
        for (uint64_t at = 0; at < tensor->bytes; at++)
            FUZZ_CHECK(owners[(size_t)((const uint8_t *)tensor->data - data) + at]++ == 0);
        FUZZ_CHECK(ckpt_tensor_find(checkpoint, tensor->name, "") == tensor);
    }
    FUZZ_CHECK(memchr(owners, 0, data_bytes) == NULL);
    free(owners);
}

static void read_file(const uint8_t *bytes, size_t size) {
    static fuzz_file file = {.descriptor = -1};
    fuzz_file_write(&file, bytes, size);
    fuzz_forget_error();
    kry_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    FUZZ_CHECK(checkpoint != NULL);
    checkpoint->shards = calloc(1, sizeof(shard));
    FUZZ_CHECK(checkpoint->shards != NULL);
    kry_status status = ckpt_shard_open(checkpoint, file.path, NULL);
    if (status == KRY_OK)
        status = ckpt_tensors_sort(checkpoint);
    if (status == KRY_OK)
        check_accepted(checkpoint);
    else
        fuzz_check_refusal(status, refusals);
    kry_checkpoint_close(&checkpoint);
}

static void read_repaired(const uint8_t *bytes, size_t size) {
    size_t end = size;
    while (end > PREFIX_BYTES && bytes[end - 1] != '}')
        end--;
    if (end <= PREFIX_BYTES)
        return;
    uint64_t wanted, header = end - PREFIX_BYTES;
    memcpy(&wanted, bytes, sizeof wanted);
    if (wanted > DATA_BYTES_MAX)
        return;
    uint8_t *repaired = calloc(1, end + (size_t)wanted);
    FUZZ_CHECK(repaired != NULL);
    memcpy(repaired, &header, sizeof header);
    memcpy(repaired + PREFIX_BYTES, bytes + PREFIX_BYTES, (size_t)header);
    read_file(repaired, end + (size_t)wanted);
    free(repaired);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_object_seed(1); /* tables of one order in each run */
    read_file(data, size);
    read_repaired(data, size);
    return 0;
}
