/*
 * The quantization config of a folder: config.json's quantization_config (also of a nested
 * text_config), or quantize_config.json as GPTQ's and AWQ's writers leave it.
 */
#include "internal.h"

#include <stdlib.h>
#include <unistd.h>

static const struct {
    const char *name;
    uint32_t method;
} methods[] = {
    {"compressed-tensors", KRY_METHOD_COMPRESSED_TENSORS},
    {"gptq", KRY_METHOD_GPTQ},
    {"awq", KRY_METHOD_AWQ},
};

/* A file that may be missing: *out stays NULL then. */
static kry_status read_optional(const char *folder, const char *name, json_t **out) {
    char *path = ckpt_path_join(folder, name);
    if (path == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    kry_status status = access(path, F_OK) == 0 ? ckpt_json_read(path, out) : KRY_OK;
    free(path);
    return status;
}

/* The first of the keys in the config or in its text_config. */
static const json_t *find_nested(const json_t *root, const char *const *keys, size_t count) {
    const json_t *places[] = {root, json_object_get(root, "text_config")};
    for (size_t place = 0; place < 2; place++)
        for (size_t key = 0; key < count; key++) {
            const json_t *value = ckpt_json_get(places[place], keys[key]);
            if (value != NULL)
                return value;
        }
    return NULL;
}

static uint32_t read_model_type(const kry_checkpoint *checkpoint, const json_t *root) {
    static const char *const keys[] = {"dtype", "torch_dtype"};
    const char *text = json_string_value(find_nested(root, keys, 2));
    if (text == NULL || strcmp(text, "auto") == 0)
        return 0;
    const char *name = strncmp(text, "torch.", 6) == 0 ? text + 6 : text;
    if (strcmp(name, "float16") == 0)
        return KRY_TYPE_F16;
    if (strcmp(name, "bfloat16") == 0)
        return KRY_TYPE_BF16;
    if (strcmp(name, "float32") == 0)
        return KRY_TYPE_F32;
    ckpt_warn(checkpoint,
              "config.json: dtype '%s' is none that layers run in; the type of their scales is "
              "taken for it",
              text);
    return 0;
}

/* Tell the method of a config that names none, as old quantize_config.json files do. */
static const char *guess_method(const json_t *config) {
    if (json_object_get(config, "config_groups") != NULL)
        return "compressed-tensors";
    if (json_object_get(config, "w_bit") != NULL || json_object_get(config, "zero_point") != NULL)
        return "awq";
    return json_object_get(config, "bits") != NULL ? "gptq" : NULL;
}

static kry_status read_method(const json_t *quantization, const char *where, const char **name,
                              uint32_t *method) {
    kry_status status =
        ckpt_json_string(quantization, "quant_method", where, guess_method(quantization), name);
    if (status != KRY_OK)
        return status;
    for (size_t i = 0; *name != NULL && i < sizeof methods / sizeof methods[0]; i++)
        if (strcmp(*name, methods[i].name) == 0) {
            *method = methods[i].method;
            return KRY_OK;
        }
    return kry_error_set(KRY_E_UNSUPPORTED,
                         "%s: quant_method is %s%s%s; known are compressed-tensors, gptq and awq",
                         where, *name == NULL ? "missing" : "'", *name == NULL ? "" : *name,
                         *name == NULL ? "" : "'");
}

/* What config.json leaves out (such as meta.quantizer) the writer's own file may tell. */
static kry_status complete(config *config, json_t *own, const char *folder, const char *name) {
    const char *other_name;
    uint32_t other_method;
    if (own == NULL)
        return KRY_OK;
    char *path = ckpt_path_join(folder, "quantize_config.json");
    if (path == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    kry_status status = read_method(own, path, &other_name, &other_method);
    if (status == KRY_OK && strcmp(name, other_name) != 0)
        status = kry_error_set(KRY_E_FORMAT, "%s: quant_method is '%s', but config.json says '%s'",
                               path, other_name, name);
    if (status == KRY_OK && json_object_update_missing(config->quantization, own) != 0)
        status = kry_error_set(KRY_E_MEMORY, "%s: out of memory", path);
    free(path);
    return status;
}

kry_status ckpt_config_read(const kry_checkpoint *checkpoint, const char *folder, config *out) {
    static const char *const keys[] = {"quantization_config", "compression_config"};
    json_t *model = NULL, *own = NULL;
    *out = (config){0};
    kry_status status = read_optional(folder, "config.json", &model);
    if (status == KRY_OK)
        status = read_optional(folder, "quantize_config.json", &own);
    if (status != KRY_OK)
        goto out;
    out->model_type = read_model_type(checkpoint, model);

    const json_t *inside = find_nested(model, keys, 2);
    const char *name;
    out->where = ckpt_path_join(folder, inside != NULL ? "config.json: quantization_config"
                                                       : "quantize_config.json");
    if (out->where == NULL) {
        status = kry_error_set(KRY_E_MEMORY, "out of memory");
        goto out;
    }
    if (inside != NULL && !json_is_object(inside)) {
        status = kry_error_set(KRY_E_FORMAT, "%s: found %s, expected an object", out->where,
                               ckpt_json_type(inside));
        goto out;
    }
    out->quantization = json_incref(inside != NULL ? (json_t *)inside : own);
    if (out->quantization != NULL)
        status = read_method(out->quantization, out->where, &name, &out->method);
    if (status == KRY_OK && inside != NULL && out->method != KRY_METHOD_COMPRESSED_TENSORS)
        status = complete(out, own, folder, name);
out:
    json_decref(own);
    json_decref(model);
    return status;
}

void ckpt_config_free(config *config) {
    json_decref(config->quantization);
    free(config->where);
    *config = (struct config){0};
}
