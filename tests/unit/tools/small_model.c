/*
 * Checkpoints with headers and no contents.
 */
#include "small_model.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Add a tensor of `bytes` behind those before it. */
static void add_tensor(json_t *header, const char *layer, const char *suffix, const char *dtype,
                       int64_t rows, int64_t columns, int64_t element, int64_t *end) {
    char name[256];
    snprintf(name, sizeof name, "%s.%s", layer, suffix);
    int64_t bytes = rows * (columns ? columns : 1) * element;
    json_t *shape = columns ? json_pack("[I, I]", (json_int_t)rows, (json_int_t)columns)
                            : json_pack("[I]", (json_int_t)rows);
    json_object_set_new(header, name,
                        json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape,
                                  "data_offsets", (json_int_t)*end, (json_int_t)*end + bytes));
    *end += bytes;
}

static void write_tensors(const char *path, const struct small_layer *layers, size_t count,
                          int64_t group_size) {
    json_t *header = json_object();
    int64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t n = layers[i].out_features, k = layers[i].in_features;
        add_tensor(header, layers[i].name, "weight_packed", "I32", n, (k + 7) / 8, 4, &end);
        add_tensor(header, layers[i].name, "weight_scale", "BF16", n,
                   (k + group_size - 1) / group_size, 2, &end);
        add_tensor(header, layers[i].name, "weight_shape", "I64", 2, 0, 8, &end);
    }
    char *text = json_dumps(header, JSON_COMPACT);
    assert_non_null(text);
    uint64_t length = strlen(text);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        putc((int)(length >> (8 * i) & 0xff), file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(truncate(path, (off_t)(8 + length) + (off_t)end), 0);
    free(text);
    json_decref(header);
}

char *small_model_make(const struct small_layer *layers, size_t count, int64_t group_size) {
    char *folder = strdup("/tmp/kernelry-model-XXXXXX");
    assert_non_null(folder);
    assert_non_null(mkdtemp(folder));
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *config = fopen(path, "w");
    assert_non_null(config);
    fprintf(config,
            "{\"torch_dtype\": \"bfloat16\", \"quantization_config\": {"
            "\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\","
            "\"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": {"
            "\"num_bits\": 4, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"group\","
            "\"group_size\": %lld}}}}}\n",
            (long long)group_size);
    assert_int_equal(fclose(config), 0);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    write_tensors(path, layers, count, group_size);
    return folder;
}

void small_model_remove(char *folder) {
    static const char *const files[] = {"config.json", "model.safetensors"};
    char path[512];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
    free(folder);
}
