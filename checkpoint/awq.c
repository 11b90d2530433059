/*
 * AWQ, version gemm: qweight I32 [K, N/8] and qzeros I32 [G, N/8] packed along N, eight 4-bit
 * fields a word in the order 0 2 4 6 1 3 5 7, zero points as they are; scales [G, N].
 */
#include "internal.h"

#include <strings.h>

typedef struct rules {
    const config *config;
    scheme scheme;
    const json_t *dense; /* modules_to_not_convert: parts of names; NULL: none */
} rules;

/* Two spellings of a value that must be there. */
static kry_status read_either(const config *config, const char *key, const char *other,
                              int64_t *out) {
    const char *used = ckpt_json_get(config->quantization, key) != NULL ? key : other;
    if (ckpt_json_get(config->quantization, used) == NULL)
        return kry_error_set(KRY_E_FORMAT, "%s: '%s' is missing (and '%s' too)", config->where, key,
                             other);
    return ckpt_json_integer(config->quantization, used, config->where, 0, out);
}

static kry_status read_dense(rules *rules) {
    const json_t *dense = ckpt_json_get(rules->config->quantization, "modules_to_not_convert");
    size_t index;
    json_t *item;
    bool good = dense == NULL || json_is_array(dense);
    json_array_foreach((json_t *)dense, index, item) { good &= json_is_string(item); }
    if (!good)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: 'modules_to_not_convert' is not an array of strings",
                             rules->config->where);
    rules->dense = dense;
    return KRY_OK;
}

static kry_status read_rules(const config *config, rules *rules) {
    const json_t *object = config->quantization;
    const char *where = config->where, *version, *backend;
    scheme *scheme = &rules->scheme;
    scheme->method = KRY_METHOD_AWQ;
    rules->config = config;
    kry_status status = read_either(config, "bits", "w_bit", &scheme->bits);
    if (status == KRY_OK)
        status = read_either(config, "group_size", "q_group_size", &scheme->group_size);
    if (status == KRY_OK)
        status = ckpt_group_size_check(scheme->group_size, where);
    if (status == KRY_OK)
        status = ckpt_json_string(object, "format", where, "gemm", &version);
    if (status == KRY_OK)
        status = ckpt_json_string(object, "version", where, version, &version);
    if (status == KRY_OK)
        status = ckpt_json_string(object, "backend", where, "autoawq", &backend);
    bool zero_point = true;
    if (status == KRY_OK)
        status = ckpt_json_boolean(object, "zero_point", where, true, &zero_point);
    if (status == KRY_OK)
        status = read_dense(rules);
    if (status != KRY_OK)
        return status;
    scheme->symmetric = !zero_point;
    if (strcasecmp(version, "gemm") != 0)
        ckpt_scheme_refuse(scheme, "AWQ version '%s' (known: gemm)", version);
    if (strcasecmp(backend, "llm-awq") == 0)
        ckpt_scheme_refuse(scheme, "AWQ of backend '%s' (known: autoawq)", backend);
    if (scheme->bits != 4)
        ckpt_scheme_refuse(scheme, "AWQ weights of %lld bits (known: 4)", (long long)scheme->bits);
    return KRY_OK;
}

static kry_status describe(const kry_checkpoint *checkpoint, layer *layer) {
    kry_status status = ckpt_layer_find(checkpoint, layer, ".qweight", ".scales");
    if (status != KRY_OK)
        return status;
    int64_t out_features;
    if (__builtin_mul_overflow(layer->weight->shape[1], INT64_C(8), &out_features))
        out_features = INT64_MAX;
    /* Every reader of AWQ subtracts qzeros whatever zero_point says, and so does this one. */
    layer->zeros = ckpt_tensor_find(checkpoint, layer->name, ".qzeros");
    if (layer->zeros != NULL)
        layer->scheme.symmetric = false;
    else if (!layer->scheme.symmetric)
        return ckpt_layer_need(checkpoint, layer, ".qzeros", "zero_point true", &layer->zeros);
    status = ckpt_layer_describe(checkpoint, layer, layer->weight->shape[0], out_features);
    if (status != KRY_OK)
        return status;
    int64_t groups = kry_linear_groups(&layer->linear);
    status = ckpt_layer_check(layer, layer->scales, layer->scales->dtype, groups, out_features);
    if (status == KRY_OK && layer->zeros != NULL)
        status = ckpt_layer_check(layer, layer->zeros, KRY_DTYPE_I32, groups, out_features / 8);
    if (status == KRY_OK)
        status = ckpt_layer_extras(checkpoint, layer, NULL);
    return status;
}

static kry_status visit(kry_checkpoint *checkpoint, const char *module, const void *context) {
    const rules *rules = context;
    for (size_t i = 0; i < json_array_size(rules->dense); i++) {
        const char *part = json_string_value(json_array_get(rules->dense, i));
        if (strstr(module, part) == NULL)
            continue;
        ckpt_warn(checkpoint,
                  "%s: modules_to_not_convert '%s' leaves '%s' unquantized, but it has packed "
                  "weights",
                  rules->config->where, part, module);
        return KRY_OK;
    }
    layer *layer;
    kry_status status = ckpt_layer_add(checkpoint, module, &rules->scheme, &layer);
    if (status != KRY_OK || rules->scheme.reason[0] != '\0')
        return status;
    return describe(checkpoint, layer);
}

kry_status ckpt_awq_layers(kry_checkpoint *checkpoint, const config *config) {
    static const char *const suffixes[] = {".qweight", ".qzeros"};
    rules rules = {0};
    kry_status status = read_rules(config, &rules);
    return status == KRY_OK ? ckpt_modules_visit(checkpoint, suffixes, 2, visit, &rules) : status;
}
