/*
 * Layers: what every method needs to turn tensors into a description, and the public list.
 */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- modules -------------------------------------------------------------------------- */

/* Visit the module of one tensor, unless an earlier suffix has found it already. */
static kry_status visit_one(kry_checkpoint *checkpoint, const char *name,
                            const char *const *suffixes, size_t index, module_visitor visit,
                            const void *context) {
    char *module = strndup(name, strlen(name) - strlen(suffixes[index]));
    if (module == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    bool seen = false;
    for (size_t earlier = 0; earlier < index; earlier++)
        seen |= ckpt_tensor_find(checkpoint, module, suffixes[earlier]) != NULL;
    kry_status status = seen ? KRY_OK : visit(checkpoint, module, context);
    free(module);
    return status;
}

kry_status ckpt_modules_visit(kry_checkpoint *checkpoint, const char *const *suffixes,
                              size_t suffix_count, module_visitor visit, const void *context) {
    kry_status status = KRY_OK;
    for (size_t i = 0; status == KRY_OK && i < checkpoint->tensor_count; i++) {
        const char *name = checkpoint->tensors[i].name;
        const char *dot = strrchr(name, '.');
        for (size_t j = 0; dot != NULL && dot != name && j < suffix_count; j++)
            if (strcmp(dot, suffixes[j]) == 0) {
                status = visit_one(checkpoint, name, suffixes, j, visit, context);
                break;
            }
    }
    return status;
}

/* ---- schemes -------------------------------------------------------------------------- */

void ckpt_scheme_refuse(scheme *scheme, const char *format, ...) {
    if (scheme->reason[0] != '\0')
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(scheme->reason, sizeof scheme->reason, format, arguments);
    va_end(arguments);
}

kry_status ckpt_group_size_check(int64_t group_size, const char *where) {
    if (group_size == -1 || (group_size >= 1 && group_size <= KRY_FEATURES_MAX))
        return KRY_OK;
    return kry_error_set(KRY_E_FORMAT, "%s: group_size is %lld; expected -1 or 1 to %lld", where,
                         (long long)group_size, (long long)KRY_FEATURES_MAX);
}

/* ---- one layer ------------------------------------------------------------------------ */

kry_status ckpt_layer_add(kry_checkpoint *checkpoint, const char *module, const scheme *scheme,
                          layer **out) {
    if (checkpoint->layer_count == checkpoint->layer_capacity) {
        size_t capacity = checkpoint->layer_capacity == 0 ? 64 : checkpoint->layer_capacity * 2;
        layer *layers = realloc(checkpoint->layers, capacity * sizeof *layers);
        if (layers == NULL)
            return kry_error_set(KRY_E_MEMORY, "layer '%s': out of memory", module);
        checkpoint->layers = layers;
        checkpoint->layer_capacity = capacity;
    }
    layer *layer = &checkpoint->layers[checkpoint->layer_count];
    *layer = (struct layer){.name = strdup(module), .scheme = *scheme};
    if (layer->name == NULL)
        return kry_error_set(KRY_E_MEMORY, "layer '%s': out of memory", module);
    checkpoint->layer_count++;
    *out = layer;
    return KRY_OK;
}

kry_status ckpt_layer_need(const kry_checkpoint *checkpoint, const layer *layer, const char *suffix,
                           const char *why, const kry_tensor **out) {
    *out = ckpt_tensor_find(checkpoint, layer->name, suffix);
    if (*out != NULL)
        return KRY_OK;
    return kry_error_set(KRY_E_FORMAT,
                         "%s: layer '%s': found no tensor '%s%s', which %s needs "
                         "(%zu tensors in %zu files)",
                         checkpoint->shards[0].path, layer->name, layer->name, suffix, why,
                         checkpoint->tensor_count, checkpoint->shard_count);
}

kry_status ckpt_layer_find(const kry_checkpoint *checkpoint, layer *layer, const char *weight,
                           const char *scales) {
    kry_status status =
        ckpt_layer_need(checkpoint, layer, weight, "a quantized layer", &layer->weight);
    if (status == KRY_OK)
        status = ckpt_layer_need(checkpoint, layer, scales, "a quantized layer", &layer->scales);
    if (status != KRY_OK)
        return status;
    const kry_tensor *tensor = layer->weight;
    char found[200];
    if (tensor->dtype != KRY_DTYPE_I32 || tensor->rank != 2 || tensor->shape[0] == 0 ||
        tensor->shape[1] == 0)
        return kry_error_set(
            KRY_E_FORMAT,
            "%s: tensor '%s' is %s; expected packed weights, an I32 matrix without "
            "a side of 0",
            tensor->file, tensor->name, ckpt_tensor_format(tensor, found, sizeof found));
    if (ckpt_type_of_dtype(layer->scales->dtype) == 0)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: tensor '%s' is %s; expected scales, F16, BF16 or F32",
                             layer->scales->file, layer->scales->name,
                             ckpt_tensor_format(layer->scales, found, sizeof found));
    return KRY_OK;
}

kry_status ckpt_layer_describe(const kry_checkpoint *checkpoint, layer *layer, int64_t in_features,
                               int64_t out_features) {
    if (in_features < 1 || in_features > KRY_FEATURES_MAX || out_features < 1 ||
        out_features > KRY_FEATURES_MAX)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: layer '%s': in_features is %lld and out_features %lld by tensor "
                             "'%s'; expected 1 to %lld",
                             layer->weight->file, layer->name, (long long)in_features,
                             (long long)out_features, layer->weight->name,
                             (long long)KRY_FEATURES_MAX);
    const scheme *scheme = &layer->scheme;
    kry_linear *linear = &layer->linear;
    *linear = KRY_INIT(kry_linear);
    linear->in_features = linear->full_in_features = in_features;
    linear->out_features = linear->full_out_features = out_features;
    linear->group_size = scheme->group_size;
    if (scheme->bits == 4)
        linear->weight_type = scheme->symmetric ? KRY_WEIGHT_U4B8 : KRY_WEIGHT_U4;
    else
        linear->weight_type = scheme->symmetric ? KRY_WEIGHT_U8B128 : KRY_WEIGHT_U8;
    linear->scale_type = ckpt_type_of_dtype(layer->scales->dtype);
    linear->x_type = checkpoint->model_type != 0 ? checkpoint->model_type : linear->scale_type;
    linear->y_type = linear->x_type;
    linear->activation_quantization = scheme->activation;
    /* With one group a channel there is nothing to order. */
    linear->act_order = scheme->act_order && scheme->group_size > 0;
    return KRY_OK;
}

kry_status ckpt_layer_check(const layer *layer, const kry_tensor *tensor, uint32_t dtype,
                            int64_t rows, int64_t columns) {
    uint32_t rank = columns == 0 ? 1 : 2;
    if (tensor->dtype == dtype && tensor->rank == rank && tensor->shape[0] == rows &&
        (rank == 1 || tensor->shape[1] == columns))
        return KRY_OK;
    kry_tensor wanted = {.dtype = dtype, .rank = rank, .shape = {rows, columns}};
    char found[200], expected[100];
    return kry_error_set(
        KRY_E_FORMAT,
        "%s: tensor '%s' is %s; expected %s: the layer is %lldx%lld (KxN) by its "
        "weights, %lld bits and group_size %lld by the config",
        tensor->file, tensor->name, ckpt_tensor_format(tensor, found, sizeof found),
        ckpt_tensor_format(&wanted, expected, sizeof expected),
        (long long)layer->linear.in_features, (long long)layer->linear.out_features,
        (long long)layer->scheme.bits, (long long)layer->scheme.group_size);
}

kry_status ckpt_layer_extras(const kry_checkpoint *checkpoint, layer *layer, const char *g_idx) {
    kry_status status = KRY_OK;
    if (layer->linear.act_order)
        status = ckpt_layer_need(checkpoint, layer, g_idx, "act-order", &layer->g_idx);
    else if (g_idx != NULL)
        layer->g_idx = ckpt_tensor_find(checkpoint, layer->name, g_idx);
    if (status == KRY_OK && layer->g_idx != NULL)
        status = ckpt_layer_check(layer, layer->g_idx, KRY_DTYPE_I32, layer->linear.in_features, 0);
    layer->bias = ckpt_tensor_find(checkpoint, layer->name, ".bias");
    if (status != KRY_OK || layer->bias == NULL)
        return status;
    char found[200];
    if (ckpt_type_of_dtype(layer->bias->dtype) == 0)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: tensor '%s' is %s; expected a bias, F16, BF16 or F32",
                             layer->bias->file, layer->bias->name,
                             ckpt_tensor_format(layer->bias, found, sizeof found));
    return ckpt_layer_check(layer, layer->bias, layer->bias->dtype, layer->linear.out_features, 0);
}

bool ckpt_layer_warns(const layer *layer, uint32_t kind) {
    /* A layer is constant to its readers but for what has been said of it. */
    _Atomic uint32_t *warned = &((struct layer *)layer)->warned;
    return (atomic_fetch_or_explicit(warned, kind, memory_order_relaxed) & kind) == 0;
}

/* ---- the public list ------------------------------------------------------------------ */

size_t kry_checkpoint_layer_count(const kry_checkpoint *checkpoint) {
    return checkpoint == NULL ? 0 : checkpoint->layer_count;
}

static kry_status check_index(const kry_checkpoint *checkpoint, size_t index) {
    if (checkpoint == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "checkpoint is NULL");
    if (index >= checkpoint->layer_count)
        return kry_error_set(KRY_E_NOT_FOUND, "no layer %zu: the checkpoint has %zu", index,
                             checkpoint->layer_count);
    return KRY_OK;
}

kry_status kry_checkpoint_layer_at(const kry_checkpoint *checkpoint, size_t index,
                                   kry_checkpoint_layer *out) {
    kry_status status = check_index(checkpoint, index);
    if (status != KRY_OK)
        return status;
    const layer *layer = &checkpoint->layers[index];
    kry_checkpoint_layer described = KRY_INIT(kry_checkpoint_layer);
    described.name = layer->name;
    described.reason = layer->scheme.reason;
    bool known = layer->scheme.reason[0] == '\0';
    described.status = known ? KRY_OK : KRY_E_UNSUPPORTED;
    described.method = layer->scheme.method;
    described.has_bias = layer->bias != NULL;
    described.linear = known ? &layer->linear : NULL;
    return ckpt_copy_out(out, &described, sizeof described, "kry_checkpoint_layer");
}

kry_status ckpt_layer_get(const kry_checkpoint *checkpoint, size_t index, const layer **out) {
    kry_status status = check_index(checkpoint, index);
    if (status != KRY_OK)
        return status;
    const layer *layer = &checkpoint->layers[index];
    if (layer->scheme.reason[0] != '\0')
        return kry_error_set(KRY_E_UNSUPPORTED, "layer '%s': %s", layer->name,
                             layer->scheme.reason);
    *out = layer;
    return KRY_OK;
}

kry_status kry_checkpoint_find_layer(const kry_checkpoint *checkpoint, const char *name,
                                     size_t *index) {
    if (checkpoint == NULL || name == NULL || index == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "checkpoint, name and index are needed, found NULL");
    size_t low = 0, high = checkpoint->layer_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = ckpt_names_compare(name, checkpoint->layers[middle].name);
        if (order == 0) {
            *index = middle;
            return KRY_OK;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    char near[512];
    ckpt_names_near(checkpoint, name, near, sizeof near);
    return kry_error_set(KRY_E_NOT_FOUND,
                         "no quantized layer is named '%s'; the checkpoint has %zu%s%s", name,
                         checkpoint->layer_count, near[0] == '\0' ? "" : ", such as ", near);
}
