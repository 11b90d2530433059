/*
 * Shapes files: every field is looked at, and what is unknown is an error, so that a typo
 * never turns into a default.
 */
#include "shapes.h"

#include "words.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An entry being read: for messages. */
struct entry {
    const char *path;
    size_t index;
    const char *name; /* NULL while it is not known */
    json_t *object;
};

static kry_status complain_entry(const struct entry *entry, const char *field, const char *found,
                                 const char *expected) {
    char where[256];
    if (entry->name)
        snprintf(where, sizeof where, "entry %zu (\"%.200s\")", entry->index, entry->name);
    else
        snprintf(where, sizeof where, "entry %zu", entry->index);
    return kry_error_set(KRY_E_FORMAT, "%s: %s: %s: found %s, expected %s", entry->path, where,
                         field, found, expected);
}

/* Complain of a value, which is shown as JSON when it is short. */
static kry_status complain_value(const struct entry *entry, const char *field, json_t *value,
                                 const char *expected) {
    if (!value)
        return complain_entry(entry, field, "nothing", expected);
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    bool short_enough = text && strlen(text) <= 60;
    kry_status status =
        complain_entry(entry, field, short_enough ? text : "something else", expected);
    free(text);
    return status;
}

/* Integers in [least, KRY_FEATURES_MAX]; a field that is absent keeps *out unless required. */
static kry_status read_integer(const struct entry *entry, const char *field, bool required,
                               int64_t least, int64_t *out) {
    json_t *value = json_object_get(entry->object, field);
    if (!value && !required)
        return KRY_OK;
    if (!json_is_integer(value) || json_integer_value(value) < least ||
        json_integer_value(value) > KRY_FEATURES_MAX) {
        char expected[96];
        snprintf(expected, sizeof expected, "a whole number from %" PRId64 " to %" PRId64, least,
                 KRY_FEATURES_MAX);
        return complain_value(entry, field, value, expected);
    }
    *out = json_integer_value(value);
    return KRY_OK;
}

static kry_status read_flag(const struct entry *entry, const char *field, bool *out) {
    json_t *value = json_object_get(entry->object, field);
    if (value && !json_is_boolean(value))
        return complain_value(entry, field, value, "true or false");
    if (value)
        *out = json_is_true(value);
    return KRY_OK;
}

static kry_status read_word(const struct entry *entry, const char *field, bool required,
                            bool (*parse)(const char *, uint32_t *), const char *words,
                            uint32_t *out) {
    json_t *value = json_object_get(entry->object, field);
    if (!value && !required)
        return KRY_OK;
    if (!json_is_string(value) || !parse(json_string_value(value), out)) {
        char expected[96];
        snprintf(expected, sizeof expected, "one of %s", words);
        return complain_value(entry, field, value, expected);
    }
    return KRY_OK;
}

static kry_status check_fields(const struct entry *entry) {
    static const char *const known[] = {"name",
                                        "in_features",
                                        "out_features",
                                        "full_in_features",
                                        "full_out_features",
                                        "k_offset",
                                        "group_size",
                                        "weight_type",
                                        "activation_type",
                                        "scale_type",
                                        "y_type",
                                        "zero_points",
                                        "act_order",
                                        "bias",
                                        "why",
                                        "source",
                                        "activation_quantization"};
    const char *field;
    json_t *value;
    json_object_foreach(entry->object, field, value) {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            found = found || !strcmp(field, known[i]);
        if (!found)
            return complain_entry(entry, field, "a field of that name", "a known field");
    }
    static const char *const texts[] = {"why", "source"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        value = json_object_get(entry->object, texts[i]);
        if (value && !json_is_string(value))
            return complain_value(entry, texts[i], value, "text");
    }
    return KRY_OK;
}

static kry_status read_sizes(const struct entry *entry, kry_linear *linear) {
    kry_status status = read_integer(entry, "in_features", true, 1, &linear->in_features);
    if (!status)
        status = read_integer(entry, "out_features", true, 1, &linear->out_features);
    if (!status)
        status = read_integer(entry, "full_in_features", false, 1, &linear->full_in_features);
    if (!status)
        status = read_integer(entry, "full_out_features", false, 1, &linear->full_out_features);
    if (!status)
        status = read_integer(entry, "k_offset", false, 0, &linear->k_offset);
    if (!status)
        status = read_integer(entry, "group_size", false, -1, &linear->group_size);
    return status;
}

static kry_status read_types(const struct entry *entry, kry_linear *linear) {
    kry_status status = read_word(entry, "weight_type", true, parse_weight_type, weight_type_words,
                                  &linear->weight_type);
    if (!status)
        status = read_word(entry, "activation_type", true, parse_type, type_words, &linear->x_type);
    if (!status)
        status = read_word(entry, "scale_type", false, parse_type, type_words, &linear->scale_type);
    if (!status)
        status = read_word(entry, "y_type", false, parse_type, type_words, &linear->y_type);
    if (!status)
        status = read_word(entry, "activation_quantization", false, parse_activation,
                           activation_words, &linear->activation_quantization);
    return status;
}

static kry_status read_flags(const struct entry *entry, kry_linear *linear, bool *bias) {
    bool act_order = false, zero_points = kry_weight_has_zero_points(linear->weight_type);
    kry_status status = read_flag(entry, "act_order", &act_order);
    if (!status)
        status = read_flag(entry, "bias", bias);
    if (!status)
        status = read_flag(entry, "zero_points", &zero_points);
    if (status)
        return status;
    if (zero_points != kry_weight_has_zero_points(linear->weight_type)) {
        char expected[64];
        snprintf(expected, sizeof expected, "%s, as weight_type is %s",
                 zero_points ? "false" : "true", weight_type_word(linear->weight_type));
        return complain_entry(entry, "zero_points", zero_points ? "true" : "false", expected);
    }
    linear->act_order = act_order;
    return KRY_OK;
}

static kry_status read_description(const struct entry *entry, struct shape *out) {
    kry_linear linear = KRY_INIT(kry_linear);
    linear.group_size = -1;
    kry_status status = check_fields(entry);
    if (!status)
        status = read_sizes(entry, &linear);
    if (!status)
        status = read_types(entry, &linear);
    if (!status)
        status = read_flags(entry, &linear, &out->bias);
    if (status)
        return status;
    out->linear = KRY_INIT(kry_linear);
    if (kry_linear_complete(&linear, &out->linear)) {
        /* The message is an argument of the next one. */
        char reason[512];
        snprintf(reason, sizeof reason, "%s", kry_error_message());
        return kry_error_set(KRY_E_FORMAT, "%s: entry %zu (\"%.200s\"): %s", entry->path,
                             entry->index, entry->name, reason);
    }
    return KRY_OK;
}

static kry_status read_entry(struct entry *entry, struct shape *out) {
    if (!json_is_object(entry->object))
        return complain_value(entry, "entry", entry->object, "an object");
    json_t *name = json_object_get(entry->object, "name");
    if (!json_is_string(name) || !json_string_length(name))
        return complain_value(entry, "name", name, "a name");
    entry->name = json_string_value(name);
    kry_status status = read_description(entry, out);
    if (status)
        return status;
    const char *why = json_string_value(json_object_get(entry->object, "why"));
    out->name = strdup(entry->name);
    out->why = strdup(why ? why : "");
    if (!out->name || !out->why)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", entry->path);
    return KRY_OK;
}

static kry_status load_json(const char *path, json_t **out) {
    FILE *file = fopen(path, "re");
    if (!file)
        return kry_error_set(KRY_E_IO, "%s: %s", path, strerror(errno));
    json_error_t error;
    errno = 0;
    json_t *root = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    int read_error = ferror(file) ? errno : 0;
    fclose(file);
    if (root) {
        *out = root;
        return KRY_OK;
    }
    if (read_error)
        return kry_error_set(KRY_E_IO, "%s: %s", path, strerror(read_error));
    if (json_error_code(&error) == json_error_out_of_memory)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", path);
    return kry_error_set(KRY_E_FORMAT, "%s: line %d, column %d: not JSON: %s", path, error.line,
                         error.column, error.text);
}

/* Add the entry's name to the names so far. */
static kry_status claim_name(const struct entry *entry, json_t *names) {
    if (json_object_get(names, entry->name))
        return complain_entry(entry, "name", "the name of an earlier entry", "a name of its own");
    if (json_object_set_new(names, entry->name, json_true()))
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", entry->path);
    return KRY_OK;
}

/* All entries are checked, also with `only`: an error does not depend on what is asked for. */
static kry_status read_entries(const char *path, json_t *list, struct shapes *out) {
    size_t count = json_array_size(list);
    json_t *names = json_object();
    out->items = calloc(count, sizeof *out->items);
    if (!names || !out->items) {
        json_decref(names);
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", path);
    }
    kry_status status = KRY_OK;
    for (size_t i = 0; i < count && !status; i++) {
        struct entry entry = {.path = path, .index = i, .object = json_array_get(list, i)};
        status = read_entry(&entry, &out->items[i]);
        out->count++; /* also a part of one: shapes_free takes it */
        if (!status)
            status = claim_name(&entry, names);
    }
    json_decref(names);
    return status;
}

static kry_status keep_only(const char *path, const char *only, struct shapes *shapes) {
    for (size_t i = 0; i < shapes->count; i++)
        if (!strcmp(shapes->items[i].name, only)) {
            struct shape kept = shapes->items[i];
            shapes->items[i] = shapes->items[0];
            shapes->items[0] = kept;
            for (size_t j = 1; j < shapes->count; j++) {
                free(shapes->items[j].name);
                free(shapes->items[j].why);
            }
            shapes->count = 1;
            return KRY_OK;
        }
    return kry_error_set(KRY_E_NOT_FOUND, "%s: no shape is called \"%s\"", path, only);
}

kry_status shapes_read(const char *path, const char *only, struct shapes *out) {
    json_t *root = NULL;
    struct shapes shapes = {0};
    kry_status status = load_json(path, &root);
    if (status)
        return status;
    json_t *list = json_object_get(root, "shapes");
    if (!json_array_size(list)) {
        status = kry_error_set(KRY_E_FORMAT,
                               "%s: found no \"shapes\", expected a list of at least "
                               "one entry",
                               path);
        goto out;
    }
    status = read_entries(path, list, &shapes);
    if (!status && only)
        status = keep_only(path, only, &shapes);
out:
    json_decref(root);
    if (status)
        shapes_free(&shapes);
    else
        *out = shapes;
    return status;
}

void shapes_free(struct shapes *shapes) {
    for (size_t i = 0; i < shapes->count; i++) {
        free(shapes->items[i].name);
        free(shapes->items[i].why);
    }
    free(shapes->items);
    *shapes = (struct shapes){0};
}
