/*
 * Content keys: what names the values of a partition, so that weights prepared from them are found
 * again while they are the same, and not when they are not.
 */
#include "internal.h"

#include <stdio.h>

/* Rises whenever this library reads the same bytes as other weights than before. */
enum { READING = 1 };

static uint64_t hash_text(const char *text, uint64_t seed) {
    return kry_hash64(text, strlen(text) + 1, seed);
}

static const shard *shard_of(const kry_checkpoint *checkpoint, const kry_tensor *tensor) {
    for (size_t i = 0; i < checkpoint->shard_count; i++)
        if (checkpoint->shards[i].path == tensor->file)
            return &checkpoint->shards[i];
    return NULL; /* never: a tensor is of one of the files */
}

static uint64_t hash_place(const kry_checkpoint *checkpoint, const kry_tensor *tensor,
                           uint64_t seed) {
    const shard *file = shard_of(checkpoint, tensor);
    uint64_t place[2] = {file->map.identity,
                         (uint64_t)((const uint8_t *)tensor->data - file->map.data)};
    return kry_hash64(place, sizeof place, seed);
}

/* Name, type and shape, then the bytes or where they are. */
static uint64_t hash_tensor(const kry_checkpoint *checkpoint, const kry_tensor *tensor,
                            uint32_t how, uint64_t seed) {
    if (tensor == NULL)
        return hash_text("", seed);
    uint64_t hash = hash_text(tensor->name, seed);
    hash = hash_text(kry_dtype_string(tensor->dtype), hash);
    hash = kry_hash64(tensor->shape, sizeof tensor->shape, hash);
    return how == KRY_CONTENT_BYTES ? kry_hash64(tensor->data, tensor->bytes, hash)
                                    : hash_place(checkpoint, tensor, hash);
}

/* All that the values of a layer depend on besides its description. */
static uint64_t hash_layer(const kry_checkpoint *checkpoint, const layer *layer, uint32_t how) {
    const uint32_t rules[4] = {READING, layer->scheme.method, layer->scheme.zero,
                               layer->scheme.symmetric};
    uint64_t hash = kry_hash64(rules, sizeof rules, 0);
    hash = hash_tensor(checkpoint, layer->weight, how, hash);
    hash = hash_tensor(checkpoint, layer->scales, how, hash);
    hash = hash_tensor(checkpoint, layer->zeros, how, hash);
    return hash_tensor(checkpoint, layer->g_idx, how, hash);
}

kry_status kry_checkpoint_content(const kry_checkpoint *checkpoint, size_t index,
                                  const kry_slice *slice, uint32_t how, kry_linear *linear,
                                  char *content, size_t size) {
    const layer *layer;
    kry_slice resolved;
    if (content == NULL || size < KRY_CONTENT_MAX + 1)
        return kry_error_set(KRY_E_ARGUMENT,
                             "kry_checkpoint_content: room for %zu bytes, expected %d",
                             content != NULL ? size : 0, KRY_CONTENT_MAX + 1);
    if (how != KRY_CONTENT_FILES && how != KRY_CONTENT_BYTES)
        return kry_error_set(KRY_E_ARGUMENT, "kry_checkpoint_content: how is %u, expected %d or %d",
                             how, KRY_CONTENT_FILES, KRY_CONTENT_BYTES);
    kry_status status = ckpt_layer_get(checkpoint, index, &layer);
    if (status == KRY_OK)
        status = ckpt_slice_resolve(layer, slice, &resolved);
    bool trivial = true;
    if (status == KRY_OK && layer->g_idx != NULL)
        status = ckpt_g_idx_read(layer, &trivial);
    if (status != KRY_OK)
        return status;
    if (linear != NULL) {
        kry_linear described = ckpt_slice_describe(layer, &resolved);
        described.act_order = !trivial;
        status = ckpt_copy_out(linear, &described, sizeof described, "kry_linear");
    }
    if (status == KRY_OK)
        snprintf(content, size, "%s %016llx n %lld to %lld, k %lld to %lld",
                 how == KRY_CONTENT_BYTES ? "bytes" : "files",
                 (unsigned long long)hash_layer(checkpoint, layer, how),
                 (long long)resolved.n_begin, (long long)resolved.n_end,
                 (long long)resolved.k_begin, (long long)resolved.k_end);
    return status;
}
