/*
 * compressed-tensors, format pack-quantized: the rules of its config. Each group of
 * config_groups has targets (names of modules, "re:" expressions, or a class of modules), a
 * scheme for weights and one for input activations, and perhaps a format of its own.
 *
 * Which group: `ignore` wins over all; then the first target, in the order of the file, that is
 * the module's name or matches it; then the first that is its class. A checkpoint does not tell
 * classes: whatever has packed weights is taken for a Linear.
 */
#include "compressed_tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static const char pack_quantized[] = "pack-quantized";

/* A name of targets or ignore. */
typedef struct target {
    const char *text; /* of the config */
    pattern *pattern; /* NULL: text is a name */
} target;

typedef struct targets {
    target *items;
    size_t count;
} targets;

typedef struct group {
    targets targets;
    scheme scheme;
    char *where;
} group;

typedef struct rules {
    const config *config;
    targets ignore;
    group *groups;
    size_t group_count;
} rules;

/* ---- targets -------------------------------------------------------------------------- */

static kry_status read_targets(const json_t *object, const char *key, const char *where,
                               targets *out) {
    const json_t *array = ckpt_json_get(object, key);
    if (array == NULL)
        return KRY_OK;
    if (!json_is_array(array))
        return kry_error_set(KRY_E_FORMAT, "%s: '%s' is %s; expected an array", where, key,
                             ckpt_json_type(array));
    out->items = calloc(json_array_size(array) + 1, sizeof(target));
    if (out->items == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", where);
    for (size_t i = 0; i < json_array_size(array); i++) {
        target *target = &out->items[out->count++];
        target->text = json_string_value(json_array_get(array, i));
        if (target->text == NULL)
            return kry_error_set(KRY_E_FORMAT, "%s: '%s' holds %s; expected strings", where, key,
                                 ckpt_json_type(json_array_get(array, i)));
        if (strncmp(target->text, "re:", 3) == 0) {
            kry_status status = ckpt_pattern_create(target->text + 3, where, &target->pattern);
            if (status != KRY_OK)
                return status;
        }
    }
    return KRY_OK;
}

static void free_targets(targets *targets) {
    for (size_t i = 0; i < targets->count; i++)
        ckpt_pattern_destroy(targets->items[i].pattern);
    free(targets->items);
}

static kry_status names_module(const targets *targets, const char *module, bool *out) {
    *out = false;
    for (size_t i = 0; i < targets->count && !*out; i++) {
        const target *target = &targets->items[i];
        if (target->pattern == NULL) {
            *out = strcmp(target->text, module) == 0;
            continue;
        }
        kry_status status = ckpt_pattern_match(target->pattern, module, out);
        if (status != KRY_OK)
            return status;
    }
    return KRY_OK;
}

static bool names_linear(const targets *targets) {
    for (size_t i = 0; i < targets->count; i++)
        if (strcmp(targets->items[i].text, "Linear") == 0)
            return true;
    return false;
}

/* ---- schemes -------------------------------------------------------------------------- */

/* What a weights or input_activations object says. */
typedef struct arguments {
    int64_t bits, group_size; /* group_size 0: not told */
    const char *type, *strategy;
    bool symmetric, dynamic;
} arguments;

static kry_status read_arguments(const json_t *object, const char *where, arguments *out) {
    kry_status status = ckpt_json_integer(object, "num_bits", where, 8, &out->bits);
    if (status == KRY_OK)
        status = ckpt_json_integer(object, "group_size", where, 0, &out->group_size);
    if (status == KRY_OK)
        status = ckpt_json_string(object, "type", where, "int", &out->type);
    if (status == KRY_OK)
        status = ckpt_json_string(object, "strategy", where, NULL, &out->strategy);
    if (status == KRY_OK)
        status = ckpt_json_boolean(object, "symmetric", where, true, &out->symmetric);
    if (status != KRY_OK)
        return status;
    /* true, false, or "local" (a scale for each group of x, under one that is static) */
    const json_t *dynamic = ckpt_json_get(object, "dynamic");
    out->dynamic = json_is_true(dynamic) || json_is_string(dynamic);
    if (out->strategy == NULL) /* as the format's library infers it */
        out->strategy = out->group_size == 0    ? "tensor"
                        : out->group_size == -1 ? "channel"
                                                : "group";
    return KRY_OK;
}

static kry_status read_act_order(const json_t *weights, const char *where, scheme *scheme) {
    const json_t *value = ckpt_json_get(weights, "actorder");
    const char *text = json_string_value(value);
    if (value != NULL && text == NULL && !json_is_boolean(value))
        return kry_error_set(KRY_E_FORMAT, "%s: 'actorder' is %s; expected a string", where,
                             ckpt_json_type(value));
    if (text == NULL) {
        scheme->act_order = json_is_true(value);
        return KRY_OK;
    }
    /* "weight" only orders the calibration: what it leaves behind is as without it. */
    scheme->act_order = strcasecmp(text, "group") == 0 || strcasecmp(text, "dynamic") == 0;
    if (!scheme->act_order && strcasecmp(text, "weight") != 0 && strcasecmp(text, "static") != 0)
        ckpt_scheme_refuse(scheme, "actorder '%s' (known: group, weight)", text);
    return KRY_OK;
}

static kry_status read_weights(const json_t *group, const char *where, scheme *scheme) {
    const json_t *weights = ckpt_json_get(group, "weights");
    if (weights != NULL && !json_is_object(weights))
        return kry_error_set(KRY_E_FORMAT, "%s: 'weights' is %s; expected an object", where,
                             ckpt_json_type(weights));
    if (weights == NULL) {
        ckpt_scheme_refuse(scheme, "a group that does not quantize weights");
        return KRY_OK;
    }
    arguments arguments;
    kry_status status = read_arguments(weights, where, &arguments);
    if (status == KRY_OK)
        status = read_act_order(weights, where, scheme);
    if (status != KRY_OK)
        return status;
    scheme->bits = arguments.bits;
    scheme->symmetric = arguments.symmetric;
    scheme->group_size = -1;
    if (strcasecmp(arguments.type, "int") != 0 || (arguments.bits != 4 && arguments.bits != 8))
        ckpt_scheme_refuse(scheme, "weights of type %s with %lld bits (known: int with 4 or 8)",
                           arguments.type, (long long)arguments.bits);
    if (arguments.dynamic)
        ckpt_scheme_refuse(scheme, "weights that are quantized anew at each run");
    if (strcasecmp(arguments.strategy, "group") == 0) {
        if (arguments.group_size < 1 || arguments.group_size > KRY_FEATURES_MAX)
            return kry_error_set(KRY_E_FORMAT,
                                 "%s: group_size of weights is %lld; expected 1 to %lld with "
                                 "strategy group",
                                 where, (long long)arguments.group_size,
                                 (long long)KRY_FEATURES_MAX);
        scheme->group_size = arguments.group_size;
    } else if (strcasecmp(arguments.strategy, "channel") != 0) {
        ckpt_scheme_refuse(scheme, "strategy %s of weights (known: channel, group)",
                           arguments.strategy);
    } else if (arguments.group_size != 0 && arguments.group_size != -1) {
        return kry_error_set(KRY_E_FORMAT,
                             "%s: group_size of weights is %lld; expected none with strategy "
                             "channel",
                             where, (long long)arguments.group_size);
    }
    return KRY_OK;
}

static kry_status read_activations(const json_t *group, const char *where, scheme *scheme) {
    const json_t *inputs = ckpt_json_get(group, "input_activations");
    if (ckpt_json_get(group, "output_activations") != NULL)
        ckpt_scheme_refuse(scheme, "quantized output activations");
    if (inputs == NULL)
        return KRY_OK;
    if (!json_is_object(inputs))
        return kry_error_set(KRY_E_FORMAT, "%s: 'input_activations' is %s; expected an object",
                             where, ckpt_json_type(inputs));
    arguments arguments;
    kry_status status = read_arguments(inputs, where, &arguments);
    if (status != KRY_OK)
        return status;
    bool by_token = arguments.bits == 8 && arguments.dynamic && arguments.symmetric &&
                    strcasecmp(arguments.strategy, "token") == 0;
    if (by_token && strcasecmp(arguments.type, "int") == 0)
        scheme->activation = KRY_ACTIVATION_INT8_TOKEN;
    else if (by_token && strcasecmp(arguments.type, "float") == 0)
        scheme->activation = KRY_ACTIVATION_FP8_E4M3_TOKEN;
    else
        ckpt_scheme_refuse(scheme,
                           "input activations %s, %s, %s, %lld bits, strategy %s (known: 8 bits, "
                           "symmetric, dynamic, token)",
                           arguments.type, arguments.symmetric ? "symmetric" : "asymmetric",
                           arguments.dynamic ? "dynamic" : "static", (long long)arguments.bits,
                           arguments.strategy);
    return KRY_OK;
}

/* ---- the config ----------------------------------------------------------------------- */

static kry_status read_format(const rules *rules, const json_t *object, group *group) {
    const char *format;
    kry_status status = ckpt_json_string(rules->config->quantization, "format",
                                         rules->config->where, pack_quantized, &format);
    if (status == KRY_OK)
        status = ckpt_json_string(object, "format", group->where, format, &format);
    if (status == KRY_OK && strcasecmp(format, pack_quantized) != 0)
        ckpt_scheme_refuse(&group->scheme, "format %s (known: %s)", format, pack_quantized);
    return status;
}

/* What would have to be done besides the product. */
static void refuse_extras(const json_t *config, scheme *scheme) {
    const json_t *sparsity = ckpt_json_get(config, "sparsity_config");
    const char *format = json_string_value(json_object_get(sparsity, "format"));
    if (format != NULL && strcasecmp(format, "dense") != 0)
        ckpt_scheme_refuse(scheme, "sparsity of format %s", format);
    const json_t *transform = ckpt_json_get(config, "transform_config");
    if (json_object_size(json_object_get(transform, "config_groups")) > 0)
        ckpt_scheme_refuse(scheme, "weights that are to be used with transforms of x or y");
}

static kry_status read_group(rules *rules, const char *name, const json_t *object) {
    group *group = &rules->groups[rules->group_count];
    group->scheme = (scheme){.method = KRY_METHOD_COMPRESSED_TENSORS};
    if (asprintf(&group->where, "%s: config_groups.%s", rules->config->where, name) < 0) {
        group->where = NULL;
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    }
    rules->group_count++;
    if (!json_is_object(object))
        return kry_error_set(KRY_E_FORMAT, "%s: found %s, expected an object", group->where,
                             ckpt_json_type(object));
    kry_status status = read_targets(object, "targets", group->where, &group->targets);
    if (status == KRY_OK)
        status = read_format(rules, object, group);
    refuse_extras(rules->config->quantization, &group->scheme);
    if (status == KRY_OK && group->scheme.reason[0] == '\0')
        status = read_weights(object, group->where, &group->scheme);
    if (status == KRY_OK && group->scheme.reason[0] == '\0')
        status = read_activations(object, group->where, &group->scheme);
    return status;
}

static kry_status read_rules(const config *config, rules *rules) {
    rules->config = config;
    kry_status status = read_targets(config->quantization, "ignore", config->where, &rules->ignore);
    if (status != KRY_OK)
        return status;
    const json_t *groups = ckpt_json_get(config->quantization, "config_groups");
    if (!json_is_object(groups))
        return kry_error_set(KRY_E_FORMAT, "%s: 'config_groups' is %s; expected an object",
                             config->where, ckpt_json_type(groups));
    rules->groups = calloc(json_object_size(groups) + 1, sizeof(group));
    if (rules->groups == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", config->where);
    const char *name;
    json_t *object;
    json_object_foreach((json_t *)groups, name, object) {
        status = read_group(rules, name, object);
        if (status != KRY_OK)
            break;
    }
    return status;
}

/* ---- layers --------------------------------------------------------------------------- */

/* The first group that names the module, else the first for its class; NULL when there is none. */
static kry_status resolve(const rules *rules, const char *module, const group **out) {
    *out = NULL;
    for (size_t i = 0; i < rules->group_count; i++) {
        bool named;
        kry_status status = names_module(&rules->groups[i].targets, module, &named);
        if (status != KRY_OK)
            return status;
        if (named) {
            *out = &rules->groups[i];
            return KRY_OK;
        }
    }
    for (size_t i = 0; i < rules->group_count && *out == NULL; i++)
        if (names_linear(&rules->groups[i].targets))
            *out = &rules->groups[i];
    return KRY_OK;
}

static kry_status visit(kry_checkpoint *checkpoint, const char *module, const void *context) {
    const rules *rules = context;
    bool ignored;
    kry_status status = names_module(&rules->ignore, module, &ignored);
    if (status != KRY_OK)
        return status;
    if (ignored) {
        ckpt_warn(checkpoint, "%s: ignore leaves '%s' unquantized, but it has quantized weights",
                  rules->config->where, module);
        return KRY_OK;
    }
    const group *group;
    status = resolve(rules, module, &group);
    if (status != KRY_OK)
        return status;
    scheme scheme = {.method = KRY_METHOD_COMPRESSED_TENSORS};
    if (group != NULL)
        scheme = group->scheme;
    else
        ckpt_scheme_refuse(&scheme, "no target of config_groups names it (of classes only Linear "
                                    "can be told from a checkpoint)");
    const kry_tensor *weight = ckpt_tensor_find(checkpoint, module, ".weight_packed");
    if (weight != NULL && weight->rank == 3)
        ckpt_scheme_refuse(&scheme, "weights of several experts in one tensor");
    layer *layer;
    status = ckpt_layer_add(checkpoint, module, &scheme, &layer);
    if (status != KRY_OK || scheme.reason[0] != '\0')
        return status;
    return ckpt_pack_quantized_describe(checkpoint, layer);
}

kry_status ckpt_compressed_tensors_layers(kry_checkpoint *checkpoint, const config *config) {
    static const char *const suffixes[] = {".weight_packed", ".weight_scale", ".scale_packed"};
    rules rules = {0};
    kry_status status = read_rules(config, &rules);
    if (status == KRY_OK)
        status = ckpt_modules_visit(checkpoint, suffixes, 3, visit, &rules);
    for (size_t i = 0; i < rules.group_count; i++) {
        free_targets(&rules.groups[i].targets);
        free(rules.groups[i].where);
    }
    free(rules.groups);
    free_targets(&rules.ignore);
    return status;
}
