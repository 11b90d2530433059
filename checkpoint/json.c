/*
 * JSON that nobody vouches for: parsing, and values by key with messages that say what was
 * found and what was expected.
 */
#include "internal.h"

#include <stdlib.h>

/* Larger than any header or index there is; the safetensors format draws the same line. */
enum { JSON_BYTES_MAX = 100 * 1000 * 1000 };

kry_status ckpt_json_parse(const char *text, size_t size, const char *where, json_t **out) {
    json_error_t error;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        if (json_error_code(&error) == json_error_out_of_memory)
            return kry_error_set(KRY_E_MEMORY, "%s: out of memory", where);
        return kry_error_set(KRY_E_FORMAT,
                             "%s: is not JSON that can be read: %s (line %d, byte %d)", where,
                             error.text, error.line, error.position);
    }
    if (!json_is_object(root)) {
        kry_error_set(KRY_E_FORMAT, "%s: found %s, expected an object", where,
                      ckpt_json_type(root));
        json_decref(root);
        return KRY_E_FORMAT;
    }
    *out = root;
    return KRY_OK;
}

/* Python's json module writes NaN, Infinity and -Infinity, which are no JSON, for floats that
 * are none; real configs hold them ("time_step_limit": [0.0, Infinity]). No key that is read here
 * has such a value, so anything that is JSON and as short does in their place. */
static void blank_non_finite(char *text, size_t size) {
    static const char *const words[] = {"-Infinity", "Infinity", "NaN"};
    static const char blanks[][10] = {"null     ", "null    ", "0  "};
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"')
            in_string = !in_string;
        else if (in_string)
            i += text[i] == '\\'; /* what is escaped ends no string */
        else if (text[i] == '-' || text[i] == 'I' || text[i] == 'N')
            for (size_t word = 0; word < 3; word++) {
                size_t length = strlen(words[word]);
                if (length <= size - i && memcmp(text + i, words[word], length) == 0) {
                    memcpy(text + i, blanks[word], length);
                    break;
                }
            }
    }
}

kry_status ckpt_json_read(const char *path, json_t **out) {
    map file = {0};
    char *text = NULL;
    kry_status status = ckpt_map_open(path, &file);
    if (status != KRY_OK)
        return status;
    if (file.size > JSON_BYTES_MAX) {
        status = kry_error_set(KRY_E_FORMAT, "%s: found %zu bytes, expected at most %d", path,
                               file.size, JSON_BYTES_MAX);
        goto out;
    }
    text = malloc(file.size + 1);
    if (text == NULL) {
        status = kry_error_set(KRY_E_MEMORY, "%s: out of memory", path);
        goto out;
    }
    if (file.size > 0)
        memcpy(text, file.data, file.size);
    blank_non_finite(text, file.size);
    status = ckpt_json_parse(text, file.size, path, out);
out:
    free(text);
    ckpt_map_close(&file);
    return status;
}

const char *ckpt_json_type(const json_t *value) {
    static const char *const words[] = {
        [JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "an integer", [JSON_REAL] = "a real",    [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",        [JSON_NULL] = "null",
    };
    return value == NULL ? "nothing" : words[json_typeof(value)];
}

const json_t *ckpt_json_get(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static kry_status wrong_type(const json_t *value, const char *key, const char *where,
                             const char *expected) {
    return kry_error_set(KRY_E_FORMAT, "%s: '%s' is %s; expected %s", where, key,
                         ckpt_json_type(value), expected);
}

kry_status ckpt_json_integer(const json_t *object, const char *key, const char *where,
                             int64_t missing, int64_t *out) {
    const json_t *value = ckpt_json_get(object, key);
    if (value != NULL && !json_is_integer(value))
        return wrong_type(value, key, where, "an integer");
    *out = value == NULL ? missing : json_integer_value(value);
    return KRY_OK;
}

kry_status ckpt_json_boolean(const json_t *object, const char *key, const char *where, bool missing,
                             bool *out) {
    const json_t *value = ckpt_json_get(object, key);
    if (value != NULL && !json_is_boolean(value))
        return wrong_type(value, key, where, "true or false");
    *out = value == NULL ? missing : json_is_true(value);
    return KRY_OK;
}

kry_status ckpt_json_string(const json_t *object, const char *key, const char *where,
                            const char *missing, const char **out) {
    const json_t *value = ckpt_json_get(object, key);
    if (value != NULL && !json_is_string(value))
        return wrong_type(value, key, where, "a string");
    *out = value == NULL ? missing : json_string_value(value);
    return KRY_OK;
}
