/*
 * GPTQ: qweight I32 [ceil(K/p), N] packed along K, scales [G, N], qzeros I32 [G, ceil(N/p)]
 * packed along N, g_idx I32 [K]; p = 32 / bits.
 *
 * Zero points: format gptq_v2 stores them as they are. Version 1, which a config without
 * checkpoint_format means, stores them less one, and its writers differ where one is 0:
 * GPTQModel subtracts one from every field of a word at once, so a zero borrows from the next
 * field; the others wrap each field on its own. Symmetric layers have no use for them.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* A rule of `dynamic`: the modules that it matches are not quantized, or otherwise. */
typedef struct override {
    pattern *pattern;
    bool excludes;
    const json_t *values;
    char *where;
} override;

typedef struct rules {
    const config *config;
    scheme base;
    override *overrides;
    size_t override_count;
} rules;

/* Values that a module's rule may replace; what is missing stays. */
static kry_status read_values(const json_t *object, const char *where, scheme *scheme) {
    kry_status status = ckpt_json_integer(object, "bits", where, scheme->bits, &scheme->bits);
    if (status == KRY_OK)
        status =
            ckpt_json_integer(object, "group_size", where, scheme->group_size, &scheme->group_size);
    if (status == KRY_OK)
        status = ckpt_json_boolean(object, "sym", where, scheme->symmetric, &scheme->symmetric);
    if (status == KRY_OK)
        status =
            ckpt_json_boolean(object, "desc_act", where, scheme->act_order, &scheme->act_order);
    if (status == KRY_OK)
        status = ckpt_group_size_check(scheme->group_size, where);
    return status;
}

/* Whether meta.quantizer (a text, or a list of them) names GPTQModel. */
static bool written_by_gptqmodel(const json_t *config) {
    const json_t *quantizer = json_object_get(json_object_get(config, "meta"), "quantizer");
    const char *text = json_string_value(quantizer);
    bool found = text != NULL && strcasestr(text, "gptqmodel") != NULL;
    for (size_t i = 0; i < json_array_size(quantizer); i++) {
        text = json_string_value(json_array_get(quantizer, i));
        found |= text != NULL && strcasestr(text, "gptqmodel") != NULL;
    }
    return found;
}

static kry_status read_base(const config *config, scheme *scheme) {
    const json_t *object = config->quantization;
    const char *where = config->where;
    *scheme = (struct scheme){.method = KRY_METHOD_GPTQ};
    for (size_t i = 0; i < 2; i++) {
        const char *key = i == 0 ? "bits" : "group_size";
        if (ckpt_json_get(object, key) == NULL)
            return kry_error_set(KRY_E_FORMAT, "%s: '%s' is missing", where, key);
    }
    /* Without a word on symmetry the stored zero points are used: right in any case. */
    kry_status status = read_values(object, where, scheme);
    const char *format, *pack;
    if (status == KRY_OK)
        status = ckpt_json_string(object, "format", where, "gptq", &format);
    if (status == KRY_OK)
        status = ckpt_json_string(object, "checkpoint_format", where, format, &format);
    if (status == KRY_OK)
        status = ckpt_json_string(object, "pack_dtype", where, "int32", &pack);
    if (status != KRY_OK)
        return status;
    if (strcasecmp(format, "gptq_v2") == 0)
        scheme->zero = KRY_ZERO_TRUE;
    else if (strcasecmp(format, "gptq") == 0)
        scheme->zero = written_by_gptqmodel(object) ? KRY_ZERO_MINUS_ONE_WORD : KRY_ZERO_MINUS_ONE;
    else
        ckpt_scheme_refuse(scheme, "GPTQ checkpoint_format '%s' (known: gptq, gptq_v2)", format);
    if (json_is_true(json_object_get(object, "is_marlin_format")))
        ckpt_scheme_refuse(scheme, "GPTQ weights in Marlin's own format");
    if (strcmp(pack, "int32") != 0)
        ckpt_scheme_refuse(scheme, "GPTQ weights packed in %s (known: int32)", pack);
    return KRY_OK;
}

static kry_status add_override(rules *rules, const char *key, const json_t *values) {
    override *override = &rules->overrides[rules->override_count];
    override->excludes = strncmp(key, "-:", 2) == 0;
    override->values = values;
    if (asprintf(&override->where, "%s: dynamic '%s'", rules->config->where, key) < 0) {
        override->where = NULL;
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    }
    rules->override_count++;
    if (!override->excludes && !json_is_object(values))
        return kry_error_set(KRY_E_FORMAT, "%s: found %s, expected an object", override->where,
                             ckpt_json_type(values));
    bool marked = override->excludes || strncmp(key, "+:", 2) == 0;
    return ckpt_pattern_create(marked ? key + 2 : key, override->where, &override->pattern);
}

static kry_status read_overrides(rules *rules) {
    const json_t *dynamic = ckpt_json_get(rules->config->quantization, "dynamic");
    if (dynamic == NULL)
        return KRY_OK;
    if (!json_is_object(dynamic))
        return kry_error_set(KRY_E_FORMAT, "%s: 'dynamic' is %s; expected an object",
                             rules->config->where, ckpt_json_type(dynamic));
    rules->overrides = calloc(json_object_size(dynamic) + 1, sizeof(override));
    if (rules->overrides == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    kry_status status = KRY_OK;
    const char *key;
    json_t *values;
    json_object_foreach((json_t *)dynamic, key, values) {
        status = add_override(rules, key, values);
        if (status != KRY_OK)
            break;
    }
    return status;
}

/* The scheme of a module: the first rule that matches decides. */
static kry_status resolve(const rules *rules, const char *module, scheme *scheme, bool *excluded) {
    *scheme = rules->base;
    *excluded = false;
    for (size_t i = 0; i < rules->override_count; i++) {
        const override *override = &rules->overrides[i];
        bool matches;
        kry_status status = ckpt_pattern_match(override->pattern, module, &matches);
        if (status != KRY_OK)
            return status;
        if (!matches)
            continue;
        *excluded = override->excludes;
        if (!override->excludes)
            status = read_values(override->values, override->where, scheme);
        if (status != KRY_OK)
            return status;
        break;
    }
    if (scheme->bits != 4 && scheme->bits != 8)
        ckpt_scheme_refuse(scheme, "GPTQ weights of %lld bits (known: 4, 8)",
                           (long long)scheme->bits);
    return KRY_OK;
}

/* qzeros of a symmetric layer are looked at when they have their shape, else left alone. */
static kry_status find_zeros(const kry_checkpoint *checkpoint, layer *layer) {
    int64_t per_word = 32 / layer->scheme.bits, groups = kry_linear_groups(&layer->linear);
    int64_t features = layer->linear.out_features, words = divide_up(features, per_word);
    const kry_tensor *tensor = ckpt_tensor_find(checkpoint, layer->name, ".qzeros");
    bool fits = tensor != NULL && tensor->dtype == KRY_DTYPE_I32 && tensor->rank == 2 &&
                tensor->shape[0] == groups && tensor->shape[1] == words;
    if (fits || layer->scheme.symmetric) {
        layer->zeros = fits ? tensor : NULL;
        return KRY_OK;
    }
    kry_status status =
        ckpt_layer_need(checkpoint, layer, ".qzeros", "an asymmetric layer", &tensor);
    if (status != KRY_OK)
        return status;
    if (tensor->dtype == KRY_DTYPE_I32 && tensor->rank == 2 && tensor->shape[0] == groups &&
        tensor->shape[1] < words)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: tensor '%s' has %lld words a row, %lld output features need "
                             "%lld: AutoGPTQ drops the last ones when N %% 32 is not 0, and with "
                             "them the zero points of the last features are lost",
                             tensor->file, tensor->name, (long long)tensor->shape[1],
                             (long long)features, (long long)words);
    return ckpt_layer_check(layer, tensor, KRY_DTYPE_I32, groups, words);
}

static kry_status describe(const kry_checkpoint *checkpoint, layer *layer) {
    kry_status status = ckpt_layer_find(checkpoint, layer, ".qweight", ".scales");
    if (status != KRY_OK)
        return status;
    /* The last word may be only partly used; only g_idx tells then where K ends. */
    int64_t per_word = 32 / layer->scheme.bits, words = layer->weight->shape[0], in_features;
    if (__builtin_mul_overflow(words, per_word, &in_features))
        in_features = INT64_MAX;
    const kry_tensor *g_idx = ckpt_tensor_find(checkpoint, layer->name, ".g_idx");
    if (g_idx != NULL && g_idx->rank == 1 && divide_up(g_idx->shape[0], per_word) == words)
        in_features = g_idx->shape[0];
    status = ckpt_layer_describe(checkpoint, layer, in_features, layer->weight->shape[1]);
    if (status == KRY_OK)
        status = ckpt_layer_check(layer, layer->scales, layer->scales->dtype,
                                  kry_linear_groups(&layer->linear), layer->linear.out_features);
    if (status == KRY_OK)
        status = find_zeros(checkpoint, layer);
    if (status == KRY_OK)
        status = ckpt_layer_extras(checkpoint, layer, ".g_idx");
    return status;
}

static kry_status visit(kry_checkpoint *checkpoint, const char *module, const void *context) {
    const rules *rules = context;
    scheme scheme;
    bool excluded;
    kry_status status = resolve(rules, module, &scheme, &excluded);
    if (status != KRY_OK)
        return status;
    if (excluded) {
        ckpt_warn(checkpoint, "%s: dynamic leaves '%s' unquantized, but it has packed weights",
                  rules->config->where, module);
        return KRY_OK;
    }
    layer *layer;
    status = ckpt_layer_add(checkpoint, module, &scheme, &layer);
    if (status != KRY_OK || scheme.reason[0] != '\0')
        return status;
    return describe(checkpoint, layer);
}

kry_status ckpt_gptq_layers(kry_checkpoint *checkpoint, const config *config) {
    static const char *const suffixes[] = {".qweight", ".qzeros"};
    rules rules = {.config = config};
    kry_status status = read_base(config, &rules.base);
    if (status == KRY_OK)
        status = read_overrides(&rules);
    if (status == KRY_OK)
        status = ckpt_modules_visit(checkpoint, suffixes, 2, visit, &rules);
    for (size_t i = 0; i < rules.override_count; i++) {
        ckpt_pattern_destroy(rules.overrides[i].pattern);
        free(rules.overrides[i].where);
    }
    free(rules.overrides);
    return status;
}
