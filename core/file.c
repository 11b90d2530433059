/*
 * What a file of prepared weights says of itself: the key that it was saved under, and hashes of
 * the weights and of the header. docs/prepared.md has the format in words.
 */
#include "core.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { FORMAT = 1 };
static const char magic[8] = "KRYPREP"; /* its end is part of it */
static const uint32_t byte_order = 0x01020304;

kry_status core_file_check_content(const char *content) {
    if (content == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "content: found NULL, expected a key of the weights' "
                                             "values");
    size_t length = strnlen(content, KRY_CONTENT_MAX + 1);
    if (length < 1 || length > KRY_CONTENT_MAX)
        return kry_error_set(KRY_E_ARGUMENT, "content: has %s bytes, expected 1 to %d",
                             length < 1 ? "0" : "more", KRY_CONTENT_MAX);
    for (size_t i = 0; i < length; i++)
        if (content[i] < ' ' || content[i] > '~')
            return kry_error_set(KRY_E_ARGUMENT,
                                 "content: byte %zu is %#x, expected printable ASCII", i,
                                 (unsigned)(unsigned char)content[i]);
    return KRY_OK;
}

kry_status core_file_check_offset(uint64_t offset) {
    if (offset % CORE_FILE_DATA_AT == 0 && offset <= INT64_MAX / 2)
        return KRY_OK;
    return kry_error_set(KRY_E_ARGUMENT, "offset is %" PRIu64 ", expected a multiple of %d", offset,
                         CORE_FILE_DATA_AT);
}

static uint64_t hash_header(const struct file_header *header) {
    struct file_header without = *header;
    without.header_hash = 0;
    return kry_hash64(&without, sizeof without, 0);
}

kry_status core_file_describe(const kry_layer *layer, const char *content, uint64_t data_hash,
                              struct file_header *out) {
    const kry_kernel *kernel = &layer->kernel->kernel;
    kry_linear linear = layer->linear;
    linear.struct_size = 0; /* so that a description that grew by zeros is the same */
    *out = (struct file_header){.byte_order = byte_order,
                                .format = FORMAT,
                                .data_hash = data_hash,
                                .prepared_bytes = layer->sizes.prepared_bytes,
                                .layout_version = kernel->layout_version};
    memcpy(out->magic, magic, sizeof magic);
    memcpy(out->linear, &linear, sizeof linear);
    size_t name = strlen(kernel->layout_name), key = strlen(content);
    if (name >= sizeof out->layout_name)
        return kry_error_set(
            KRY_E_UNSUPPORTED, "kernel %s/%s: its layout's name has %zu bytes, a file holds %zu",
            layer->kernel->plugin->table->name, kernel->name, name, sizeof out->layout_name - 1);
    memcpy(out->layout_name, kernel->layout_name, name);
    memcpy(out->content, content, key);
    out->header_hash = hash_header(out);
    return KRY_OK;
}

static kry_status check_kind(const char *path, const struct file_header *found,
                             uint64_t file_bytes) {
    if (file_bytes < sizeof *found)
        return kry_error_set(KRY_E_FORMAT,
                             "%s is damaged: %" PRIu64 " bytes, expected at least %zu (KRY-C21)",
                             path, file_bytes, sizeof *found);
    static const struct file_header nothing;
    if (memcmp(found, &nothing, sizeof nothing) == 0)
        return kry_error_set(KRY_E_NOT_FOUND, "%s: nothing is saved there (KRY-C21)", path);
    if (memcmp(found->magic, magic, sizeof magic) != 0)
        return kry_error_set(KRY_E_FORMAT, "%s is no file of prepared weights (KRY-C21)", path);
    if (found->byte_order == __builtin_bswap32(byte_order))
        return kry_error_set(KRY_E_FOREIGN,
                             "%s is foreign: saved on a machine of the other byte order (KRY-C21)",
                             path);
    if (found->format != FORMAT)
        return kry_error_set(KRY_E_FOREIGN, "%s is foreign: format %u, expected %d (KRY-C21)", path,
                             found->format, FORMAT);
    if (found->header_hash != hash_header(found))
        return kry_error_set(KRY_E_FORMAT,
                             "%s is damaged: its header's hash is %016" PRIx64
                             ", expected %016" PRIx64 " (KRY-C21)",
                             path, hash_header(found), found->header_hash);
    return KRY_OK;
}

/* What a description in a file is, in words; whatever it holds. */
static void describe_found(const struct file_header *found, char *out, size_t size) {
    kry_linear linear;
    memcpy(&linear, found->linear, sizeof linear);
    linear.struct_size = sizeof linear;
    if (kry_linear_complete(&linear, &linear) == KRY_OK)
        core_linear_format(&linear, out, size);
    else
        snprintf(out, size, "that is unknown here");
}

/* Fields are compared as a whole, with the zeros behind a text, so that none need be one. */
static kry_status check_layout(const char *path, const struct file_header *found,
                               const struct file_header *needed, const kry_linear *linear) {
    if (memcmp(found->layout_name, needed->layout_name, sizeof found->layout_name) != 0 ||
        found->layout_version != needed->layout_version)
        return kry_error_set(
            KRY_E_FOREIGN,
            "%s is foreign: of layout %.127s version %u, expected %s version %u (KRY-C21)", path,
            found->layout_name, found->layout_version, needed->layout_name, needed->layout_version);
    if (memcmp(found->linear, needed->linear, sizeof found->linear) != 0) {
        char its[160], ours[160];
        describe_found(found, its, sizeof its);
        core_linear_format(linear, ours, sizeof ours);
        return kry_error_set(KRY_E_FOREIGN,
                             "%s is foreign: of description %s, expected %s%s (KRY-C21)", path, its,
                             ours, strcmp(its, ours) == 0 ? ", which differ in other fields" : "");
    }
    if (found->prepared_bytes != needed->prepared_bytes)
        return kry_error_set(
            KRY_E_FOREIGN,
            "%s is foreign: of %" PRIu64 " bytes in layout %s, expected %" PRIu64 " (KRY-C21)",
            path, found->prepared_bytes, needed->layout_name, needed->prepared_bytes);
    return KRY_OK;
}

kry_status core_file_check(const char *path, const struct file_header *found, uint64_t file_bytes,
                           const kry_layer *layer, const char *content) {
    struct file_header needed;
    kry_status status = check_kind(path, found, file_bytes);
    if (status == KRY_OK)
        status = core_file_describe(layer, content, 0, &needed);
    if (status == KRY_OK)
        status = check_layout(path, found, &needed, &layer->linear);
    if (status == KRY_OK && file_bytes - sizeof *found != found->prepared_bytes)
        status = kry_error_set(KRY_E_FORMAT,
                               "%s is damaged: %" PRIu64 " bytes, expected %" PRIu64 " (KRY-C21)",
                               path, file_bytes, sizeof *found + found->prepared_bytes);
    if (status == KRY_OK && memcmp(found->content, needed.content, sizeof needed.content) != 0)
        status =
            kry_error_set(KRY_E_STALE, "%s is stale: of weights '%.*s', expected '%s' (KRY-C21)",
                          path, KRY_CONTENT_MAX, found->content, content);
    return status;
}
