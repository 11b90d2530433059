/*
 * The words of descriptions and devices.
 */
#include "words.h"

#include "command.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const weight_words[] = {NULL, "u4b8", "u4", "u8b128", "u8"};
static const char *const element_words[] = {NULL, "f16", "bf16", "f32"};
static const char *const activations[] = {"none", "int8_token", "fp8_e4m3_token"};

const char weight_type_words[] = "u4b8, u4, u8b128, u8";
const char type_words[] = "f16, bf16, f32";
const char activation_words[] = "none, int8_token, fp8_e4m3_token";

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const char *word_of(const char *const *words, size_t count, uint32_t value) {
    return value < count && words[value] ? words[value] : "?";
}

static bool value_of(const char *const *words, size_t count, const char *word, uint32_t *out) {
    for (size_t i = 0; i < count; i++)
        if (words[i] && !strcmp(words[i], word)) {
            *out = (uint32_t)i;
            return true;
        }
    return false;
}

const char *weight_type_word(uint32_t weight_type) {
    return word_of(weight_words, COUNT(weight_words), weight_type);
}

const char *type_word(uint32_t type) { return word_of(element_words, COUNT(element_words), type); }

const char *activation_word(uint32_t activation_quantization) {
    return word_of(activations, COUNT(activations), activation_quantization);
}

bool parse_weight_type(const char *word, uint32_t *out) {
    return value_of(weight_words, COUNT(weight_words), word, out);
}

bool parse_type(const char *word, uint32_t *out) {
    return value_of(element_words, COUNT(element_words), word, out);
}

bool parse_activation(const char *word, uint32_t *out) {
    return value_of(activations, COUNT(activations), word, out);
}

bool parse_allowed(const char *word, uint32_t *out) {
    if (strcmp(word, "int8") != 0)
        return false;
    *out = KRY_ALLOW_INT8_ACTIVATIONS;
    return true;
}

/* ---- descriptions -------------------------------------------------------------------- */

/* The longest text, all numbers at their largest, is below LINEAR_TEXT_BYTES. */
static void append(char out[LINEAR_TEXT_BYTES], const char *format, ...) KRY_PRINTF(2, 3);
static void append(char out[LINEAR_TEXT_BYTES], const char *format, ...) {
    size_t length = strlen(out);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out + length, LINEAR_TEXT_BYTES - length, format, arguments);
    va_end(arguments);
}

bool linear_starts_inside_group(const kry_linear *linear) {
    return linear->group_size > 0 && !linear->act_order && linear->k_offset % linear->group_size;
}

char *linear_format(const kry_linear *linear, char out[LINEAR_TEXT_BYTES]) {
    out[0] = '\0';
    append(out, "%" PRId64 "×%" PRId64 " %s ", linear->in_features, linear->out_features,
           weight_type_word(linear->weight_type));
    if (linear->group_size < 0)
        append(out, "channel");
    else
        append(out, "g%" PRId64, linear->group_size);
    append(out, " %s", type_word(linear->x_type));
    if (linear->y_type != linear->x_type)
        append(out, " y:%s", type_word(linear->y_type));
    if (linear->scale_type != linear->x_type)
        append(out, " scales:%s", type_word(linear->scale_type));
    if (linear->act_order)
        append(out, " act-order");
    if (linear->activation_quantization)
        append(out, " x:%s", activation_word(linear->activation_quantization));
    if (linear->allowed & KRY_ALLOW_INT8_ACTIVATIONS)
        append(out, " allow:int8");
    if (linear->k_offset)
        append(out, " from k %" PRId64 " of %" PRId64, linear->k_offset, linear->full_in_features);
    if (linear_starts_inside_group(linear))
        append(out, " (inside a group)");
    if (linear->required_features)
        append(out, " features:0x%" PRIx64, linear->required_features);
    return out;
}

json_t *linear_json(const kry_linear *linear) {
    json_t *object = json_object();
    json_put(object, "in_features", json_integer(linear->in_features));
    json_put(object, "out_features", json_integer(linear->out_features));
    json_put(object, "full_in_features", json_integer(linear->full_in_features));
    json_put(object, "full_out_features", json_integer(linear->full_out_features));
    json_put(object, "k_offset", json_integer(linear->k_offset));
    json_put(object, "group_size", json_integer(linear->group_size));
    json_put(object, "weight_type", json_text(weight_type_word(linear->weight_type)));
    json_put(object, "scale_type", json_text(type_word(linear->scale_type)));
    json_put(object, "x_type", json_text(type_word(linear->x_type)));
    json_put(object, "y_type", json_text(type_word(linear->y_type)));
    json_put(object, "activation_quantization",
             json_text(activation_word(linear->activation_quantization)));
    json_put(object, "allow_int8_activations",
             json_boolean(linear->allowed & KRY_ALLOW_INT8_ACTIVATIONS));
    json_put(object, "act_order", json_boolean(linear->act_order));
    json_put(object, "starts_inside_group", json_boolean(linear_starts_inside_group(linear)));
    return object;
}

/* ---- devices and sizes --------------------------------------------------------------- */

char *device_format(const kry_device *device, char out[LINEAR_TEXT_BYTES]) {
    out[0] = '\0';
    bool hypothetical = device->flags & KRY_DEVICE_HYPOTHETICAL;
    append(out, "%s", device->platform);
    if (hypothetical && device->arch[0])
        append(out, ":%s", device->arch);
    else if (!hypothetical && device->ordinal > 0)
        append(out, ":%" PRId32, device->ordinal);
    if (hypothetical)
        append(out, " (hypothetical)");
    else if (device->name[0])
        append(out, " (%s)", device->name);
    return out;
}

json_t *device_json(const kry_device *device) {
    char features[512];
    kry_cpu_features_format(device->cpu_features, features, sizeof features);
    json_t *object = json_object();
    json_put(object, "platform", json_text(device->platform));
    json_put(object, "ordinal", json_integer(device->ordinal));
    json_put(object, "arch", json_text(device->arch));
    json_put(object, "name", json_text(device->name));
    json_put(object, "hypothetical", json_boolean(device->flags & KRY_DEVICE_HYPOTHETICAL));
    json_put(object, "multiprocessors", json_integer(device->multiprocessors));
    json_put(object, "warp_size", json_integer(device->warp_size));
    json_put(object, "shared_memory_bytes", json_integer(device->shared_memory_bytes));
    json_put(object, "l2_bytes", json_integer((json_int_t)device->l2_bytes));
    json_put(object, "memory_bytes", json_integer((json_int_t)device->memory_bytes));
    json_put(object, "cpu_features", json_text(features));
    return object;
}

char *size_format(uint64_t bytes, char out[SIZE_TEXT_BYTES]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < COUNT(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(out, SIZE_TEXT_BYTES, unit && value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}
