/*
 * A checkpoint, from the path to the list of layers.
 */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void ckpt_warn(const kry_checkpoint *checkpoint, const char *format, ...) {
    if (checkpoint->log == NULL)
        return;
    char message[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    checkpoint->log(checkpoint->log_context, KRY_LOG_WARNING, message);
}

static int compare_layers(const void *left, const void *right) {
    const layer *a = left, *b = right;
    return ckpt_names_compare(a->name, b->name);
}

static void expect_scattered(const kry_checkpoint *checkpoint, bool scattered) {
    for (size_t i = 0; i < checkpoint->shard_count; i++)
        ckpt_map_expect(&checkpoint->shards[i].map, scattered);
}

static kry_status make_layers(kry_checkpoint *checkpoint, const config *config) {
    kry_status status = KRY_OK;
    expect_scattered(checkpoint, true); /* weight_shape of each layer */
    switch (config->method) {
    case KRY_METHOD_COMPRESSED_TENSORS:
        status = ckpt_compressed_tensors_layers(checkpoint, config);
        break;
    case KRY_METHOD_GPTQ:
        status = ckpt_gptq_layers(checkpoint, config);
        break;
    case KRY_METHOD_AWQ:
        status = ckpt_awq_layers(checkpoint, config);
        break;
    default: /* nothing is quantized */
        break;
    }
    expect_scattered(checkpoint, false);
    if (status == KRY_OK && checkpoint->layer_count > 1)
        qsort(checkpoint->layers, checkpoint->layer_count, sizeof *checkpoint->layers,
              compare_layers);
    return status;
}

/* Files, then the config beside them, then the layers that it makes of their tensors. */
static kry_status read_all(kry_checkpoint *checkpoint, const char *path) {
    char *folder = NULL;
    config config = {0};
    kry_status status = ckpt_files_open(checkpoint, path, &folder);
    if (status == KRY_OK)
        status = ckpt_config_read(checkpoint, folder, &config);
    if (status == KRY_OK) {
        checkpoint->model_type = config.model_type;
        status = make_layers(checkpoint, &config);
    }
    ckpt_config_free(&config);
    free(folder);
    return status;
}

kry_status kry_checkpoint_open(const char *path, const kry_checkpoint_options *options,
                               kry_checkpoint **out) {
    if (path == NULL || out == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "path and out are needed, found NULL");
    kry_checkpoint_options chosen = KRY_INIT(kry_checkpoint_options);
    if (options != NULL) {
        kry_status status = ckpt_copy_in(&chosen, sizeof chosen, options, "kry_checkpoint_options");
        if (status != KRY_OK)
            return status;
    }
    kry_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    if (checkpoint == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", path);
    checkpoint->log = chosen.log;
    checkpoint->log_context = chosen.context;
    kry_status status = read_all(checkpoint, path);
    if (status == KRY_OK)
        *out = checkpoint;
    else
        kry_checkpoint_close(&checkpoint);
    return status;
}

void kry_checkpoint_close(kry_checkpoint **checkpoint) {
    if (checkpoint == NULL || *checkpoint == NULL)
        return;
    kry_checkpoint *closing = *checkpoint;
    for (size_t i = 0; i < closing->layer_count; i++)
        free(closing->layers[i].name);
    free(closing->layers);
    free(closing->tensors);
    for (size_t i = 0; i < closing->shard_count; i++) {
        json_decref(closing->shards[i].header);
        ckpt_map_close(&closing->shards[i].map);
        free(closing->shards[i].path);
    }
    free(closing->shards);
    free(closing);
    *checkpoint = NULL;
}
