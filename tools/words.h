/*
 * The words of descriptions and devices, as people, shapes.json and --json write them.
 */
#ifndef KERNELRY_WORDS_H
#define KERNELRY_WORDS_H

#include <kernelry/kernelry.h>

#include <jansson.h>
#include <stdbool.h>

/** Names of KRY_WEIGHT_*, KRY_TYPE_*, KRY_ACTIVATION_*: "u4b8", "bf16", "int8_token", "none". */
const char *weight_type_word(uint32_t weight_type);
const char *type_word(uint32_t type);
const char *activation_word(uint32_t activation_quantization);

/** The other way round; false for an unknown word. */
bool parse_weight_type(const char *word, uint32_t *out);
bool parse_type(const char *word, uint32_t *out);
bool parse_activation(const char *word, uint32_t *out);

/** What a caller may allow, KRY_ALLOW_*: "int8". */
bool parse_allowed(const char *word, uint32_t *out);

/** All words of each, for messages: "u4b8, u4, u8b128, u8". */
extern const char weight_type_words[], type_words[], activation_words[];

/** Bytes enough for linear_format and sizes. */
enum { LINEAR_TEXT_BYTES = 256, SIZE_TEXT_BYTES = 32 };

/** Whether a partition starts inside a quantization group. */
bool linear_starts_inside_group(const kry_linear *linear);

/** "2112×2816 u4b8 g32 bf16", and what is out of the ordinary: scales and y of another type,
 *  act-order, activation quantization, where a partition starts. Returns out. */
char *linear_format(const kry_linear *linear, char out[LINEAR_TEXT_BYTES]);

/** A complete description as a JSON object with the header's field names. */
json_t *linear_json(const kry_linear *linear);

/** "cuda:sm_80", "cpu", "cuda:1 (NVIDIA H100)": a device in a line. */
char *device_format(const kry_device *device, char out[LINEAR_TEXT_BYTES]);
json_t *device_json(const kry_device *device);

/** "12 MiB", "1.4 GiB", "832 B". Returns out. */
char *size_format(uint64_t bytes, char out[SIZE_TEXT_BYTES]);

#endif
