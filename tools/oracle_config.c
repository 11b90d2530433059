/*
 * What a quantization config says of one layer: the oracle's own reading of it.
 */
#include "oracle.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

struct oracle_config {
    json_t *root;         /* of the file */
    const json_t *config; /* the quantization config in it */
    uint32_t method;      /* KRY_METHOD_* */
};

/* ---- opening ------------------------------------------------------------------------- */

/** The config among a file's members: config.json nests it, quantize_config.json is it. */
static const json_t *find_config(const json_t *root) {
    const json_t *nested = json_object_get(root, "quantization_config");
    if (!json_is_object(nested))
        nested = json_object_get(root, "compression_config");
    if (json_is_object(nested))
        return nested;
    return json_object_get(root, "bits") || json_object_get(root, "w_bit") ? root : NULL;
}

/** Load folder/name; KRY_E_NOT_FOUND when there is no such file or no config in it. */
static kry_status load(const char *folder, int folder_length, const char *name,
                       struct oracle_config *out) {
    char *path;
    if (asprintf(&path, "%.*s%s", folder_length, folder, name) < 0)
        return kry_error_set(KRY_E_MEMORY, "oracle: out of memory");
    json_error_t error;
    kry_status status = KRY_OK;
    struct stat info;
    out->root = NULL;
    if (stat(path, &info) != 0) {
        status = kry_error_set(KRY_E_NOT_FOUND, "oracle: no file %s", path);
        goto out;
    }
    out->root = json_load_file(path, 0, &error);
    if (!out->root) {
        status =
            kry_error_set(KRY_E_FORMAT, "oracle: %s: line %d: %s", path, error.line, error.text);
        goto out;
    }
    out->config = find_config(out->root);
    if (!out->config) {
        status = kry_error_set(KRY_E_NOT_FOUND, "oracle: %s holds no quantization config", path);
        json_decref(out->root);
        out->root = NULL;
    }
out:
    free(path);
    return status;
}

static kry_status read_method(struct oracle_config *config) {
    const char *method = json_string_value(json_object_get(config->config, "quant_method"));
    if (!method) /* writers of quantize_config.json leave it out, GPTQ's first of all */
        method = json_object_get(config->config, "config_groups") ? "compressed-tensors" : "gptq";
    if (strcmp(method, "compressed-tensors") == 0)
        config->method = KRY_METHOD_COMPRESSED_TENSORS;
    else if (strcmp(method, "gptq") == 0)
        config->method = KRY_METHOD_GPTQ;
    else if (strcmp(method, "awq") == 0)
        config->method = KRY_METHOD_AWQ;
    else
        return kry_error_set(KRY_E_UNSUPPORTED, "oracle: quant_method \"%s\"", method);
    return KRY_OK;
}

kry_status oracle_config_open(const char *path, struct oracle_config **out) {
    struct oracle_config *config = calloc(1, sizeof *config);
    if (!config)
        return kry_error_set(KRY_E_MEMORY, "oracle: out of memory");
    struct stat info;
    bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    const char *slash = strrchr(path, '/');
    int length = folder ? (int)strlen(path) : slash ? (int)(slash - path) : 0;
    const char *separator = length || slash ? "/" : "";
    char name[64];
    snprintf(name, sizeof name, "%sconfig.json", separator);
    kry_status status = load(path, length, name, config);
    if (status == KRY_E_NOT_FOUND) {
        snprintf(name, sizeof name, "%squantize_config.json", separator);
        status = load(path, length, name, config);
    }
    if (status == KRY_OK)
        status = read_method(config);
    if (status != KRY_OK) {
        oracle_config_close(&config);
        return status;
    }
    *out = config;
    return KRY_OK;
}

void oracle_config_close(struct oracle_config **config) {
    if (!*config)
        return;
    json_decref((*config)->root);
    free(*config);
    *config = NULL;
}

/* ---- small readings ------------------------------------------------------------------ */

static int64_t integer_or(const json_t *object, const char *key, int64_t missing) {
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? json_integer_value(value) : missing;
}

static bool truth_or(const json_t *object, const char *key, bool missing) {
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : missing;
}

static const char *string_or(const json_t *object, const char *key, const char *missing) {
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : missing;
}

/** Python's re.match: anchored at the start only. A pattern that does not compile matches none. */
static bool matches(const char *pattern, const char *name) {
    int error;
    size_t offset;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED,
                                     &error, &offset, NULL);
    pcre2_match_data *data = code ? pcre2_match_data_create(1, NULL) : NULL;
    bool found =
        data && pcre2_match(code, (PCRE2_SPTR)name, PCRE2_ZERO_TERMINATED, 0, 0, data, NULL) >= 0;
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    return found;
}

/* ---- compressed-tensors -------------------------------------------------------------- */

static bool target_names(const char *target, const char *layer) {
    return strncmp(target, "re:", 3) == 0 ? matches(target + 3, layer) : strcmp(target, layer) == 0;
}

/** The group whose targets name the layer, or else the first that takes every Linear. */
static const json_t *find_group(const json_t *config, const char *layer) {
    const json_t *of_class = NULL, *group, *target;
    const char *key;
    size_t i;
    json_object_foreach((json_t *)config, key, group) {
        json_array_foreach(json_object_get(group, "targets"), i, target) {
            const char *text = json_string_value(target);
            if (text && target_names(text, layer))
                return group;
            if (text && !of_class && strcmp(text, "Linear") == 0)
                of_class = group;
        }
    }
    return of_class;
}

/** What input_activations asks for, where it is one of the kinds that types.h knows. */
static kry_status read_activation(const json_t *arguments, const char *layer, uint32_t *out) {
    *out = KRY_ACTIVATION_NONE;
    if (!json_is_object(arguments))
        return KRY_OK;
    bool float_type = strcmp(string_or(arguments, "type", "int"), "float") == 0;
    if (integer_or(arguments, "num_bits", 8) != 8 || !truth_or(arguments, "dynamic", false) ||
        !truth_or(arguments, "symmetric", true) ||
        strcmp(string_or(arguments, "strategy", "token"), "token") != 0)
        return kry_error_set(KRY_E_UNSUPPORTED,
                             "oracle: %s: activations are not 8 bits a token, dynamic, symmetric",
                             layer);
    *out = float_type ? KRY_ACTIVATION_FP8_E4M3_TOKEN : KRY_ACTIVATION_INT8_TOKEN;
    return KRY_OK;
}

static kry_status read_compressed_tensors(const json_t *config, const char *layer,
                                          struct oracle_scheme *out) {
    const json_t *group = find_group(json_object_get(config, "config_groups"), layer);
    if (!group)
        return kry_error_set(KRY_E_NOT_FOUND, "oracle: no config group targets %s", layer);
    const json_t *weights = json_object_get(group, "weights");
    const char *strategy = string_or(weights, "strategy", NULL);
    out->bits = (uint32_t)integer_or(weights, "num_bits", 8);
    out->group_size = integer_or(weights, "group_size", -1);
    if (strategy && strcmp(strategy, "channel") == 0)
        out->group_size = -1;
    if (strcmp(string_or(weights, "type", "int"), "int") != 0 ||
        (strategy && strcmp(strategy, "channel") != 0 && strcmp(strategy, "group") != 0))
        return kry_error_set(KRY_E_UNSUPPORTED,
                             "oracle: %s: weights are not integers a group or channel", layer);
    out->zero = truth_or(weights, "symmetric", true) ? ORACLE_ZERO_MIDDLE : ORACLE_ZERO_STORED;
    return read_activation(json_object_get(group, "input_activations"), layer, &out->activation);
}

/* ---- GPTQ and AWQ -------------------------------------------------------------------- */

/** The member of "dynamic" that overrides the layer, NULL for none; skipped: "-:" took it out. */
static const json_t *find_override(const json_t *dynamic, const char *layer, bool *skipped) {
    const json_t *override;
    const char *key;
    *skipped = false;
    json_object_foreach((json_t *)dynamic, key, override) {
        bool negative = strncmp(key, "-:", 2) == 0;
        bool prefixed = negative || strncmp(key, "+:", 2) == 0;
        if (!matches(prefixed ? key + 2 : key, layer))
            continue;
        *skipped = negative;
        return override;
    }
    return NULL;
}

/** meta.quantizer is "gptqmodel:1.4.2", or a list of such. */
static bool written_by_gptqmodel(const json_t *config) {
    const json_t *quantizer = json_object_get(json_object_get(config, "meta"), "quantizer");
    const char *text =
        json_string_value(json_is_array(quantizer) ? json_array_get(quantizer, 0) : quantizer);
    return text && strncasecmp(text, "gptqmodel", strlen("gptqmodel")) == 0;
}

static kry_status read_gptq(const json_t *config, const char *layer, struct oracle_scheme *out) {
    bool skipped;
    const json_t *override = find_override(json_object_get(config, "dynamic"), layer, &skipped);
    if (skipped)
        return kry_error_set(KRY_E_NOT_FOUND, "oracle: \"dynamic\" leaves %s out", layer);
    out->bits = (uint32_t)integer_or(override, "bits", integer_or(config, "bits", 4));
    out->group_size = integer_or(override, "group_size", integer_or(config, "group_size", 128));
    if (truth_or(override, "sym", truth_or(config, "sym", true)))
        out->zero = ORACLE_ZERO_MIDDLE;
    else if (strcmp(string_or(config, "checkpoint_format", "gptq"), "gptq_v2") == 0)
        out->zero = ORACLE_ZERO_STORED;
    else
        out->zero = written_by_gptqmodel(config) ? ORACLE_ZERO_WORD : ORACLE_ZERO_FIELD;
    return KRY_OK;
}

static void read_awq(const json_t *config, struct oracle_scheme *out) {
    out->bits = (uint32_t)integer_or(config, "bits", integer_or(config, "w_bit", 4));
    out->group_size = integer_or(config, "group_size", integer_or(config, "q_group_size", 128));
    out->zero = ORACLE_ZERO_STORED;
}

kry_status oracle_config_scheme(const struct oracle_config *config, const char *layer,
                                struct oracle_scheme *out) {
    struct oracle_scheme scheme = {.method = config->method, .activation = KRY_ACTIVATION_NONE};
    kry_status status = KRY_OK;
    if (config->method == KRY_METHOD_COMPRESSED_TENSORS)
        status = read_compressed_tensors(config->config, layer, &scheme);
    else if (config->method == KRY_METHOD_GPTQ)
        status = read_gptq(config->config, layer, &scheme);
    else
        read_awq(config->config, &scheme);
    if (status != KRY_OK)
        return status;
    bool bits_known = scheme.bits == 4 || (scheme.bits == 8 && scheme.method != KRY_METHOD_AWQ);
    if (!bits_known || scheme.group_size == 0 || scheme.group_size < -1)
        return kry_error_set(KRY_E_UNSUPPORTED, "oracle: %s: %u bits in groups of %lld", layer,
                             scheme.bits, (long long)scheme.group_size);
    *out = scheme;
    return KRY_OK;
}
