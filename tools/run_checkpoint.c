/*
 * kernelry run MODEL: every quantized layer of a checkpoint.
 */
#include "run.h"

#include "floats.h"
#include "progress.h"

#include <stdlib.h>

kry_status convert_bias(const kry_checkpoint_weights *weights, uint32_t y_type, void **out) {
    *out = NULL;
    if (weights->bias == NULL)
        return KRY_OK;
    uint32_t type = weights->bias_dtype == KRY_DTYPE_F16    ? KRY_TYPE_F16
                    : weights->bias_dtype == KRY_DTYPE_BF16 ? KRY_TYPE_BF16
                    : weights->bias_dtype == KRY_DTYPE_F32  ? KRY_TYPE_F32
                                                            : 0;
    if (type == 0)
        return kry_error_set(KRY_E_UNSUPPORTED, "bias is %s; expected F16, BF16 or F32",
                             kry_dtype_string(weights->bias_dtype));
    int64_t count = weights->linear->out_features;
    void *bias = malloc((size_t)count * kry_type_bytes(y_type));
    if (bias == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory for a bias");
    for (int64_t n = 0; n < count; n++)
        float_store(bias, n, y_type, float_load(weights->bias, n, type));
    *out = bias;
    return KRY_OK;
}

/** A run over a checkpoint. */
struct work {
    const struct trial_setting *setting;
    kry_checkpoint *checkpoint;
    struct oracle_config *config;
    struct progress progress;
    struct run_results *results;
};

/** Warnings of the checkpoint, without the bar between them. */
static void log_past_progress(void *context, int32_t level, const char *message) {
    struct work *work = context;
    progress_clear(&work->progress);
    log_to_stderr(NULL, level, message);
}

/** Append a layer that could not be tried: the sentence is kry_error_message(). */
static kry_status add_untried(struct work *work, const kry_checkpoint_layer *layer,
                              kry_status status, const char *why) {
    struct trial trial = {.status = status};
    if (asprintf(&trial.complaint, "%s", why) < 0)
        trial.complaint = NULL;
    /* Not supported is an answer; damaged or out of memory is worse. */
    int code = status == KRY_E_UNSUPPORTED ? EXIT_NO : exit_code_of(status);
    return run_results_add(work->results, layer->name, layer->linear, layer->has_bias != 0, &trial,
                           code);
}

/** Make weights, bias and oracle of a layer and try it. */
static kry_status try_layer(struct work *work, size_t index, const kry_checkpoint_layer *layer) {
    kry_checkpoint_weights *weights = NULL;
    struct oracle *oracle = NULL;
    void *bias = NULL;
    char content[KRY_CONTENT_MAX + 1];
    kry_status status = kry_checkpoint_weights_create(work->checkpoint, index, NULL, &weights);
    if (status == KRY_OK)
        status = kry_checkpoint_content(work->checkpoint, index, NULL, KRY_CONTENT_FILES, NULL,
                                        content, sizeof content);
    if (status == KRY_OK)
        status = convert_bias(weights, weights->linear->y_type, &bias);
    if (status == KRY_OK)
        status = oracle_open(work->config, work->checkpoint, layer->name, &oracle);
    if (status != KRY_OK) {
        status = add_untried(work, layer, status, kry_error_message());
        goto out;
    }
    struct trial_subject subject = {.name = layer->name,
                                    .linear = weights->linear,
                                    .weights = weights->weights,
                                    .bias = bias,
                                    .content = content,
                                    .oracle = oracle};
    status = run_trial(work->setting, &subject, work->results);
out:
    oracle_close(&oracle);
    free(bias);
    kry_checkpoint_weights_destroy(&weights);
    return status;
}

static uint64_t weight_count(const kry_checkpoint_layer *layer) {
    return layer->linear != NULL
               ? (uint64_t)layer->linear->in_features * (uint64_t)layer->linear->out_features
               : 0;
}

/** Try the layers [begin, end). */
static kry_status try_layers(struct work *work, size_t begin, size_t end) {
    uint64_t total = 0;
    kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
    kry_status status = KRY_OK;
    for (size_t i = begin; i < end && status == KRY_OK; i++) {
        status = kry_checkpoint_layer_at(work->checkpoint, i, &layer);
        total += weight_count(&layer);
    }
    progress_begin(&work->progress, total);
    for (size_t i = begin; i < end && status == KRY_OK; i++) {
        status = kry_checkpoint_layer_at(work->checkpoint, i, &layer);
        if (status != KRY_OK)
            break;
        progress_advance(&work->progress, 0, layer.name);
        status = layer.status == KRY_OK ? try_layer(work, i, &layer)
                                        : add_untried(work, &layer, layer.status, layer.reason);
        progress_advance(&work->progress, weight_count(&layer), layer.name);
    }
    progress_clear(&work->progress);
    return status;
}

int run_checkpoint(const struct trial_setting *setting, const char *model, const char *layer,
                   struct run_results *results) {
    struct work work = {.setting = setting, .results = results};
    kry_checkpoint_options options = KRY_INIT(kry_checkpoint_options);
    options.log = log_past_progress;
    options.context = &work;
    kry_status status = kry_checkpoint_open(model, &options, &work.checkpoint);
    size_t begin = 0, end = 0;
    if (status == KRY_OK) {
        end = kry_checkpoint_layer_count(work.checkpoint);
        if (end == 0)
            status = kry_error_set(KRY_E_UNSUPPORTED, "%s: no layer of it is quantized", model);
    }
    if (status == KRY_OK && layer != NULL) {
        status = kry_checkpoint_find_layer(work.checkpoint, layer, &begin);
        end = begin + 1;
    }
    if (status == KRY_OK)
        status = oracle_config_open(model, &work.config);
    if (status == KRY_OK)
        status = cache_open(setting->cache, setting->registry, setting->device, setting->kernel,
                            work.checkpoint, model);
    if (status == KRY_OK)
        status = try_layers(&work, begin, end);
    int code = status == KRY_OK ? EXIT_YES : complain_status(status);
    if (cache_close(setting->cache, status) != KRY_OK && code == EXIT_YES)
        code = complain(EXIT_MACHINE, "%s", kry_error_message());
    oracle_config_close(&work.config);
    kry_checkpoint_close(&work.checkpoint);
    return code;
}
