/*
 * A model's folder, as kry_checkpoint_open finds it: the quantization config, and what it makes of
 * the tensors beside it.
 *
 * An input is four texts with a zero byte between them, of which any may be missing: config.json;
 * quantize_config.json; a line for each tensor, "name dtype size size..."; the bytes that fill the
 * tensors, over and over. The safetensors file is made of the last two, so that a fuzzer need not
 * count offsets.
 */
#include "core.h"
#include "fuzz.h"
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PARTS = 4, LINE_BYTES = 256, DATA_BYTES_MAX = 65536 };

static const kry_status refusals[] = {KRY_E_FORMAT, KRY_E_UNSUPPORTED, KRY_OK};
static const kry_status weights_refusals[] = {KRY_E_FORMAT, KRY_OK};

typedef struct part {
    const uint8_t *bytes;
    size_t size;
} part;

/* ---- the folder --------------------------------------------------------------------------- */

enum { CONFIG, QUANTIZE_CONFIG, SAFETENSORS, FILES };
static const char *const names[FILES] = {"config.json", "quantize_config.json",
                                         "model.safetensors"};
static fuzz_file files[FILES] = {{.descriptor = -1}, {.descriptor = -1}, {.descriptor = -1}};

typedef struct path {
    char text[128];
} path;

static path path_of(int i) {
    path path;
    snprintf(path.text, sizeof path.text, "%s/%s", fuzz_folder(), names[i]);
    return path;
}

/* The file is a link to one in memory alone; of no bytes, it is not there. */
static void put_file(int i, const void *bytes, size_t size) {
    fuzz_file_write(&files[i], bytes, size);
    if (size == 0)
        FUZZ_CHECK(unlink(path_of(i).text) == 0 || errno == ENOENT);
    else
        FUZZ_CHECK(symlink(files[i].path, path_of(i).text) == 0 || errno == EEXIST);
}

/* ---- the tensors -------------------------------------------------------------------------- */

/* Add what a line describes at byte `at` of the data; its bytes, or 0 where there is none. */
static size_t add_tensor(json_t *header, char *line, size_t at) {
    char *rest, *name = strtok_r(line, " ", &rest), *dtype = strtok_r(NULL, " ", &rest);
    uint32_t known;
    uint64_t bits = dtype != NULL ? ckpt_dtype_parse(dtype, &known) : 0;
    json_t *shape = json_array();
    for (char *text; bits != 0 && (text = strtok_r(NULL, " ", &rest)) != NULL;) {
        long long size = strtoll(text, NULL, 10);
        if (size < 0 || size > 8 * DATA_BYTES_MAX || (bits *= (uint64_t)size) > 8 * DATA_BYTES_MAX)
            bits = 0; /* and so it stays, though a tensor without elements is lost */
        json_array_append_new(shape, json_integer(size));
    }
    size_t bytes = (size_t)bits / 8;
    if (bits == 0 || bits % 8 != 0 || bytes > DATA_BYTES_MAX - at ||
        json_object_get(header, name) != NULL ||
        json_object_set_new(header, name,
                            json_pack("{s:s, s:O, s:[I, I]}", "dtype", dtype, "shape", shape,
                                      "data_offsets", (json_int_t)at, (json_int_t)(at + bytes))) !=
            0)
        bytes = 0;
    json_decref(shape);
    return bytes;
}

static void put_tensors(part lines, part fill) {
    json_t *header = json_object();
    size_t data_bytes = 0;
    for (size_t at = 0; at < lines.size;) {
        const uint8_t *begin = lines.bytes + at, *end = memchr(begin, '\n', lines.size - at);
        size_t length = end != NULL ? (size_t)(end - begin) : lines.size - at;
        char line[LINE_BYTES];
        snprintf(line, sizeof line, "%.*s", (int)length, (const char *)begin);
        data_bytes += add_tensor(header, line, data_bytes);
        at += length + 1;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    FUZZ_CHECK(text != NULL);
    uint64_t header_bytes = strlen(text);
    size_t data_at = sizeof header_bytes + (size_t)header_bytes;
    uint8_t *file = calloc(1, data_at + data_bytes);
    FUZZ_CHECK(file != NULL);
    memcpy(file, &header_bytes, sizeof header_bytes);
    memcpy(file + sizeof header_bytes, text, (size_t)header_bytes);
    for (size_t i = 0; i < data_bytes && fill.size > 0; i++)
        file[data_at + i] = fill.bytes[i % fill.size];
    put_file(SAFETENSORS, file, data_at + data_bytes);
    free(file);
    free(text);
    json_decref(header);
}

/* ---- what is made of it ------------------------------------------------------------------- */

/* Weights that the checkpoint hands over are taken by the core, which reads every element. */
static void use_weights(const kry_checkpoint_weights *weights) {
    const kry_linear *linear = weights->linear;
    kry_linear complete = KRY_INIT(kry_linear);
    FUZZ_CHECK(kry_linear_complete(linear, &complete) == KRY_OK);
    FUZZ_CHECK(core_weights_check(&complete, weights->weights) == KRY_OK);
    uint64_t bytes = core_canonical_bytes(&complete, complete.out_features);
    FUZZ_CHECK(bytes < 64 * DATA_BYTES_MAX);
    void *memory = aligned_alloc(KRY_ALIGNMENT, core_align(bytes));
    FUZZ_CHECK(memory != NULL);
    struct canonical_buffers buffers;
    core_canonical_place(&complete, complete.out_features, memory, &buffers);
    kry_canonical canonical;
    core_canonicalise(&complete, &complete, weights->weights, 0, complete.out_features, &buffers,
                      NULL, false, &canonical);
    free(memory);
    if (weights->bias != NULL)
        fuzz_touch(weights->bias,
                   (size_t)linear->out_features * kry_dtype_bytes(weights->bias_dtype));
}

static void check_slice(const kry_checkpoint *checkpoint, size_t index, const kry_slice *slice) {
    kry_checkpoint_weights *weights = NULL;
    fuzz_forget_error();
    kry_status status = kry_checkpoint_weights_create(checkpoint, index, slice, &weights);
    if (status != KRY_OK) {
        fuzz_check_refusal(status, weights_refusals);
        return;
    }
    use_weights(weights);
    char content[KRY_CONTENT_MAX + 1];
    kry_linear linear = KRY_INIT(kry_linear);
    FUZZ_CHECK(kry_checkpoint_content(checkpoint, index, slice, KRY_CONTENT_BYTES, &linear, content,
                                      sizeof content) == KRY_OK);
    FUZZ_CHECK(memcmp(&linear, weights->linear, sizeof linear) == 0);
    FUZZ_CHECK(core_file_check_content(content) == KRY_OK);
    kry_checkpoint_weights_destroy(&weights);
}

static void check_layer(const kry_checkpoint *checkpoint, size_t index) {
    kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
    size_t found = SIZE_MAX;
    FUZZ_CHECK(kry_checkpoint_layer_at(checkpoint, index, &layer) == KRY_OK);
    FUZZ_CHECK(kry_checkpoint_find_layer(checkpoint, layer.name, &found) == KRY_OK);
    FUZZ_CHECK(found == index);
    if (layer.status != KRY_OK) {
        FUZZ_CHECK(layer.status == KRY_E_UNSUPPORTED && layer.reason[0] != '\0');
        return;
    }
    kry_linear complete = KRY_INIT(kry_linear);
    FUZZ_CHECK(kry_linear_complete(layer.linear, &complete) == KRY_OK);
    check_slice(checkpoint, index, NULL);
    kry_slice slice = KRY_INIT(kry_slice);
    slice.n_begin = layer.linear->out_features / 3;
    slice.k_begin = layer.linear->in_features / 3;
    slice.k_end = slice.k_begin + (layer.linear->in_features + 1) / 2;
    check_slice(checkpoint, index, &slice);
}

static void count_warning(void *context, int32_t level, const char *message) {
    size_t *count = context;
    FUZZ_CHECK(level == KRY_LOG_WARNING && message[0] != '\0');
    ++*count;
}

static void open_folder(void) {
    size_t warnings = 0;
    kry_checkpoint_options options = KRY_INIT(kry_checkpoint_options);
    options.log = count_warning;
    options.context = &warnings;
    kry_checkpoint *checkpoint = NULL;
    fuzz_forget_error();
    kry_status status = kry_checkpoint_open(fuzz_folder(), &options, &checkpoint);
    FUZZ_CHECK((status == KRY_OK) == (checkpoint != NULL));
    if (status != KRY_OK) {
        fuzz_check_refusal(status, refusals);
        return;
    }
    for (size_t i = 0; i < kry_checkpoint_layer_count(checkpoint); i++)
        check_layer(checkpoint, i);
    kry_checkpoint_close(&checkpoint);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    part parts[PARTS] = {0};
    for (int i = 0; i < PARTS; i++) {
        const uint8_t *end = i + 1 < PARTS && size > 0 ? memchr(data, 0, size) : NULL;
        parts[i] = (part){data, end != NULL ? (size_t)(end - data) : size};
        size_t taken = parts[i].size + (end != NULL);
        data += taken;
        size -= taken;
    }
    json_object_seed(1); /* tables of one order in each run */
    put_file(CONFIG, parts[0].bytes, parts[0].size);
    put_file(QUANTIZE_CONFIG, parts[1].bytes, parts[1].size);
    put_tensors(parts[2], parts[3]);
    open_folder();
    return 0;
}
