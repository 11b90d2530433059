/*
 * A file of prepared weights, as kry_layer_map takes it for a layer.
 *
 * An input is what to change in a good file, so that it needs no zeros in thousands: a byte of
 * flags, two bytes that the file's size is (0: as it was), then changes, each two bytes of place,
 * a byte of length and as many bytes. With the flag, the hashes are made to fit what was changed,
 * as whoever means harm would.
 */
#include "core.h"
#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WEIGHT_BYTES = 512, GOOD_BYTES = CORE_FILE_DATA_AT + WEIGHT_BYTES, FLAG_HASHES = 1 };

static const char content[] = "of the harness";
static const kry_status refusals[] = {KRY_E_FORMAT, KRY_E_FOREIGN, KRY_E_STALE, KRY_OK};

/* A layer of a kernel that is never called. */
static struct kry_registry registry;
static const kry_plugin table = {.struct_size = sizeof table, .name = "harness"};
static const struct plugin plugin = {.table = &table};
static const struct ranked_kernel kernel = {
    .kernel = {.struct_size = sizeof kernel.kernel,
               .name = "kernel",
               .layout_name = "harness-layout",
               .layout_version = 3},
    .plugin = &plugin,
};

static struct kry_layer make_layer(void) {
    struct kry_layer layer = {.registry = &registry, .kernel = &kernel};
    layer.device = KRY_INIT(kry_device);
    strcpy(layer.device.platform, "cpu");
    layer.linear = KRY_INIT(kry_linear);
    layer.linear.in_features = 64;
    layer.linear.out_features = 16;
    layer.linear.group_size = 32;
    layer.linear.weight_type = KRY_WEIGHT_U4B8;
    layer.linear.x_type = KRY_TYPE_F16;
    FUZZ_CHECK(kry_linear_complete(&layer.linear, &layer.linear) == KRY_OK);
    layer.stored = layer.linear;
    layer.sizes = KRY_INIT(kry_sizes);
    layer.sizes.prepared_bytes = WEIGHT_BYTES;
    return layer;
}

static uint64_t hash_weights(const uint8_t *weights, uint64_t bytes) {
    uint64_t hash = kry_hash64(weights, bytes, 0); /* of the one block */
    return kry_hash64(&hash, sizeof hash, 0);
}

static void make_good(const struct kry_layer *layer, uint8_t file[static GOOD_BYTES]) {
    struct file_header header;
    for (int i = 0; i < WEIGHT_BYTES; i++)
        file[CORE_FILE_DATA_AT + i] = (uint8_t)(i * 37 + 11);
    uint64_t hash = hash_weights(file + CORE_FILE_DATA_AT, WEIGHT_BYTES);
    FUZZ_CHECK(core_file_describe(layer, content, hash, &header) == KRY_OK);
    memcpy(file, &header, sizeof header);
}

static void repair_hashes(uint8_t *file, size_t size) {
    struct file_header header;
    if (size <= sizeof header)
        return;
    memcpy(&header, file, sizeof header);
    header.data_hash = hash_weights(file + CORE_FILE_DATA_AT, size - CORE_FILE_DATA_AT);
    header.header_hash = 0;
    header.header_hash = kry_hash64(&header, sizeof header, 0);
    memcpy(file, &header, sizeof header);
}

/* The good file with the input's changes; its size, at most UINT16_MAX. */
static size_t change(const uint8_t *data, size_t size, uint8_t *file) {
    uint16_t place, bytes = 0;
    if (size < 3)
        return GOOD_BYTES;
    bool repair = data[0] & FLAG_HASHES;
    memcpy(&bytes, data + 1, sizeof bytes);
    for (size_t at = 3; size - at >= 3;) {
        memcpy(&place, data + at, sizeof place);
        size_t length = data[at + 2];
        at += 3;
        if (length > size - at)
            length = size - at;
        if (length > UINT16_MAX - (size_t)place)
            length = UINT16_MAX - (size_t)place;
        memcpy(file + place, data + at, length);
        at += length;
    }
    size_t file_bytes = bytes == 0 ? GOOD_BYTES : bytes;
    if (repair)
        repair_hashes(file, file_bytes);
    return file_bytes;
}

static const char *write_file(const uint8_t *bytes, size_t size) {
    static char path[128];
    static int file = -1;
    if (file < 0) {
        snprintf(path, sizeof path, "%s/weights", fuzz_folder());
        file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        FUZZ_CHECK(file >= 0);
    }
    FUZZ_CHECK(ftruncate(file, (off_t)size) == 0);
    FUZZ_CHECK(pwrite(file, bytes, size, 0) == (ssize_t)size);
    return path;
}

/* What is mapped is what the file holds, and the file says that it is what the layer needs. */
static void check_mapped(const struct kry_layer *layer, const uint8_t *file, size_t size) {
    static uint8_t good[GOOD_BYTES];
    FUZZ_CHECK(layer->filled && layer->ready && layer->mapping != NULL);
    FUZZ_CHECK(size == GOOD_BYTES);
    FUZZ_CHECK(memcmp(layer->prepared, file + CORE_FILE_DATA_AT, WEIGHT_BYTES) == 0);
    make_good(layer, good);
    struct file_header found, needed;
    memcpy(&found, file, sizeof found);
    memcpy(&needed, good, sizeof needed);
    FUZZ_CHECK(memcmp(found.linear, needed.linear, sizeof found.linear) == 0);
    FUZZ_CHECK(memcmp(found.content, needed.content, sizeof found.content) == 0);
    FUZZ_CHECK(memcmp(found.layout_name, needed.layout_name, sizeof found.layout_name) == 0);
    FUZZ_CHECK(found.layout_version == needed.layout_version);
    FUZZ_CHECK(found.prepared_bytes == needed.prepared_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (registry.services.offered.context == NULL)
        core_host_init(&registry.services, NULL, false);
    struct kry_layer layer = make_layer();
    uint8_t *file = calloc(1, UINT16_MAX);
    FUZZ_CHECK(file != NULL);
    make_good(&layer, file);
    size_t bytes = change(data, size, file);
    kry_map_args args = KRY_INIT(kry_map_args);
    args.path = write_file(file, bytes);
    args.content = content;
    fuzz_forget_error();
    kry_status status = kry_layer_map(&layer, &args);
    if (status == KRY_OK) {
        check_mapped(&layer, file, bytes);
    } else {
        fuzz_check_refusal(status, refusals);
        FUZZ_CHECK(layer.prepared == NULL && layer.mapping == NULL && !layer.filled);
    }
    core_release_prepared(&layer);
    free(file);
    return 0;
}
