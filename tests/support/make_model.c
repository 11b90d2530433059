/*
 * make_model KIND OUT: models for demonstrations and tests, made from a fixed seed.
 *
 *   gemma         dense, bf16: hidden 2816, intermediate 2112, two layers (140 MB)
 *   tiny          dense, bf16, with biases: hidden 96, intermediate 160, two layers
 *   tiny-sharded  the same in two files with an index
 *   llama1b       dense, bf16: hidden 2048, intermediate 8192, 16 layers (2 GB)
 *   llama70b      W4A16 metadata of 80 layers in sparse files: 37 GB long, about 1 MB on disk
 *
 * Exit status 0, or 1 after a message.
 */
#include "floats.h"
#include "folder.h"
#include "random.h"
#include "safetensors_write.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEED = 2112, NAME_BYTES = 128, SHARDS_MAX = 16 };

/** The shape of a decoder. */
struct decoder {
    const char *kind;
    const char *model_type;
    const char *architecture;
    int64_t layers;
    int64_t hidden;
    int64_t intermediate;
    int64_t heads;
    int64_t kv_heads;
    int64_t head_size;
    int64_t vocabulary;
    int shards;
    bool quantized; /* 4 bits in groups of 128, without any weights */
    bool bias;      /* of q, k and v */
};

static const struct decoder decoders[] = {
    {"gemma", "gemma3_text", "Gemma3ForCausalLM", 2, 2816, 2112, 8, 4, 256, 512, 1, false, false},
    {"tiny", "qwen2", "Qwen2ForCausalLM", 2, 96, 160, 4, 2, 24, 64, 1, false, true},
    {"tiny-sharded", "qwen2", "Qwen2ForCausalLM", 2, 96, 160, 4, 2, 24, 64, 2, false, true},
    {"llama1b", "llama", "LlamaForCausalLM", 16, 2048, 8192, 32, 8, 64, 512, 1, false, false},
    {"llama70b", "llama", "LlamaForCausalLM", 80, 8192, 28672, 64, 8, 128, 128256, 15, true, false},
};

/** A tensor to be written. */
struct tensor {
    char name[NAME_BYTES];
    int64_t shape[2];
    uint32_t rank;
    uint32_t dtype;
    int shard;
    size_t index;   /* in its writer */
    int64_t stored; /* of a weight_shape: the layer's rows and columns */
    int64_t stored_columns;
};

/** A model in the making. */
struct model {
    const struct decoder *decoder;
    const char *folder;
    struct tensor *tensors;
    size_t count;
    struct safetensors_writer *writers[SHARDS_MAX];
    char file_names[SHARDS_MAX][NAME_BYTES];
};

/* ---- what is in it ------------------------------------------------------------------- */

/** Append a tensor; there is room for all. Columns 0: a vector. */
static struct tensor *add(struct model *model, int shard, uint32_t dtype, int64_t rows,
                          int64_t columns, const char *prefix, const char *name) {
    struct tensor *tensor = &model->tensors[model->count++];
    *tensor = (struct tensor){
        .shape = {rows, columns}, .rank = columns > 0 ? 2 : 1, .dtype = dtype, .shard = shard};
    snprintf(tensor->name, sizeof tensor->name, "%s%s", prefix, name);
    return tensor;
}

/** Append a linear layer, dense or quantized. */
static void add_linear(struct model *model, int shard, int64_t in, int64_t out, bool bias,
                       const char *prefix, const char *name) {
    char module[NAME_BYTES / 2];
    snprintf(module, sizeof module, "%s%s", prefix, name);
    if (bias)
        add(model, shard, KRY_DTYPE_BF16, out, 0, module, ".bias");
    if (!model->decoder->quantized) {
        add(model, shard, KRY_DTYPE_BF16, out, in, module, ".weight");
        return;
    }
    add(model, shard, KRY_DTYPE_I32, out, in / 8, module, ".weight_packed");
    add(model, shard, KRY_DTYPE_BF16, out, in / 128, module, ".weight_scale");
    struct tensor *shape = add(model, shard, KRY_DTYPE_I64, 2, 0, module, ".weight_shape");
    shape->stored = out;
    shape->stored_columns = in;
}

static void add_layer(struct model *model, int64_t layer) {
    const struct decoder *decoder = model->decoder;
    int shard = (int)(layer * decoder->shards / decoder->layers);
    int64_t hidden = decoder->hidden, wide = decoder->intermediate;
    int64_t q = decoder->heads * decoder->head_size, kv = decoder->kv_heads * decoder->head_size;
    bool bias = decoder->bias;
    char prefix[NAME_BYTES / 4];
    snprintf(prefix, sizeof prefix, "model.layers.%d.", (int)layer);
    add_linear(model, shard, hidden, q, bias, prefix, "self_attn.q_proj");
    add_linear(model, shard, hidden, kv, bias, prefix, "self_attn.k_proj");
    add_linear(model, shard, hidden, kv, bias, prefix, "self_attn.v_proj");
    add_linear(model, shard, q, hidden, false, prefix, "self_attn.o_proj");
    add_linear(model, shard, hidden, wide, false, prefix, "mlp.gate_proj");
    add_linear(model, shard, hidden, wide, false, prefix, "mlp.up_proj");
    add_linear(model, shard, wide, hidden, false, prefix, "mlp.down_proj");
    add(model, shard, KRY_DTYPE_BF16, hidden, 0, prefix, "input_layernorm.weight");
    add(model, shard, KRY_DTYPE_BF16, hidden, 0, prefix, "post_attention_layernorm.weight");
}

static bool add_all(struct model *model) {
    const struct decoder *decoder = model->decoder;
    /* At most three tensors for each of seven linear layers, two norms; and three besides. */
    model->tensors = calloc((size_t)decoder->layers * 23 + 3, sizeof *model->tensors);
    if (model->tensors == NULL)
        return false;
    add(model, 0, KRY_DTYPE_BF16, decoder->vocabulary, decoder->hidden, "model.embed_tokens",
        ".weight");
    for (int64_t layer = 0; layer < decoder->layers; layer++)
        add_layer(model, layer);
    add(model, decoder->shards - 1, KRY_DTYPE_BF16, decoder->hidden, 0, "model.norm", ".weight");
    if (decoder->quantized)
        add(model, decoder->shards - 1, KRY_DTYPE_BF16, decoder->vocabulary, decoder->hidden,
            "lm_head", ".weight");
    return true;
}

/* ---- its bytes ----------------------------------------------------------------------- */

/** Draw weights: normal, one column in about 97 four times larger; norms are close to 1. */
static kry_status fill_drawn(const struct model *model, const struct tensor *tensor) {
    int64_t rows = tensor->rank == 2 ? tensor->shape[0] : 1;
    int64_t columns = tensor->rank == 2 ? tensor->shape[1] : tensor->shape[0];
    uint16_t *values = malloc((size_t)(rows * columns) * sizeof *values);
    if (values == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    struct random random = random_seeded(SEED, random_stream_of(tensor->name));
    double deviation = tensor->rank == 2 ? 1 / sqrt((double)columns) : 0.1;
    double mean = strstr(tensor->name, "norm") != NULL ? 1 : 0;
    uint64_t first = random_below(&random, 97);
    for (int64_t n = 0; n < rows; n++)
        for (int64_t k = 0; k < columns; k++) {
            double value = mean + deviation * (double)random_normal(&random);
            bool outlier = tensor->rank == 2 && ((uint64_t)k + first) % 97 == 0;
            values[n * columns + k] = bf16_encode(outlier ? 4 * value : value);
        }
    kry_status status =
        safetensors_writer_fill(model->writers[tensor->shard], tensor->index, values);
    free(values);
    return status;
}

static kry_status fill(const struct model *model, const struct tensor *tensor) {
    if (!model->decoder->quantized)
        return fill_drawn(model, tensor);
    if (tensor->dtype != KRY_DTYPE_I64)
        return KRY_OK; /* left as a hole */
    int64_t shape[2] = {tensor->stored, tensor->stored_columns};
    return safetensors_writer_fill(model->writers[tensor->shard], tensor->index, shape);
}

static kry_status write_shards(struct model *model) {
    const struct decoder *decoder = model->decoder;
    kry_status status = KRY_OK;
    for (int i = 0; i < decoder->shards && status == KRY_OK; i++) {
        if (decoder->shards == 1)
            snprintf(model->file_names[i], NAME_BYTES, "model.safetensors");
        else
            snprintf(model->file_names[i], NAME_BYTES, "model-%05d-of-%05d.safetensors", i + 1,
                     decoder->shards);
        status = safetensors_writer_create(&model->writers[i]);
    }
    for (size_t i = 0; i < model->count && status == KRY_OK; i++) {
        struct tensor *tensor = &model->tensors[i];
        status =
            safetensors_writer_declare(model->writers[tensor->shard], tensor->name, tensor->dtype,
                                       tensor->shape, tensor->rank, &tensor->index);
    }
    for (int i = 0; i < decoder->shards && status == KRY_OK; i++) {
        char path[PATH_MAX];
        status = join_path(path, model->folder, model->file_names[i]);
        if (status == KRY_OK)
            status = safetensors_writer_open(model->writers[i], path);
    }
    for (size_t i = 0; i < model->count && status == KRY_OK; i++)
        status = fill(model, &model->tensors[i]);
    for (int i = 0; i < decoder->shards && status == KRY_OK; i++)
        status = safetensors_writer_finish(model->writers[i], decoder->quantized);
    return status;
}

/* ---- its configs --------------------------------------------------------------------- */

static kry_status write_json(const struct model *model, const char *name, json_t *document) {
    char path[PATH_MAX];
    kry_status status = join_path(path, model->folder, name);
    if (status == KRY_OK && (document == NULL || json_dump_file(document, path, JSON_INDENT(2))))
        status = kry_error_set(KRY_E_IO, "%s: cannot be written", path);
    json_decref(document);
    return status;
}

static json_t *quantization_config(void) {
    return json_pack("{s:s, s:s, s:s, s:{s:{s:[s], s:{s:i, s:s, s:b, s:s, s:i}}}, s:[s]}",
                     "quant_method", "compressed-tensors", "format", "pack-quantized",
                     "quantization_status", "compressed", "config_groups", "group_0", "targets",
                     "Linear", "weights", "num_bits", 4, "type", "int", "symmetric", 1, "strategy",
                     "group", "group_size", 128, "ignore", "lm_head");
}

static kry_status write_config(const struct model *model) {
    const struct decoder *decoder = model->decoder;
    json_t *config =
        json_pack("{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:b}", "architectures",
                  decoder->architecture, "model_type", decoder->model_type, "torch_dtype",
                  "bfloat16", "hidden_size", (json_int_t)decoder->hidden, "intermediate_size",
                  (json_int_t)decoder->intermediate, "num_hidden_layers",
                  (json_int_t)decoder->layers, "num_attention_heads", (json_int_t)decoder->heads,
                  "num_key_value_heads", (json_int_t)decoder->kv_heads, "head_dim",
                  (json_int_t)decoder->head_size, "vocab_size", (json_int_t)decoder->vocabulary,
                  "rms_norm_eps", 1e-6, "tie_word_embeddings", !decoder->quantized);
    if (decoder->quantized)
        json_object_set_new(config, "quantization_config", quantization_config());
    return write_json(model, "config.json", config);
}

static kry_status write_index(const struct model *model) {
    json_t *map = json_object();
    uint64_t total = 0;
    for (size_t i = 0; i < model->count; i++)
        json_object_set_new(map, model->tensors[i].name,
                            json_string(model->file_names[model->tensors[i].shard]));
    for (int i = 0; i < model->decoder->shards; i++)
        total += safetensors_writer_total(model->writers[i]);
    return write_json(model, "model.safetensors.index.json",
                      json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total,
                                "weight_map", map));
}

static kry_status make(struct model *model) {
    if (!add_all(model))
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    kry_status status = write_shards(model);
    if (status == KRY_OK && model->decoder->shards > 1)
        status = write_index(model);
    if (status == KRY_OK)
        status = write_config(model);
    return status;
}

int main(int argc, char **argv) {
    const struct decoder *decoder = NULL;
    for (size_t i = 0; argc == 3 && i < sizeof decoders / sizeof decoders[0]; i++)
        if (strcmp(argv[1], decoders[i].kind) == 0)
            decoder = &decoders[i];
    if (decoder == NULL) {
        fprintf(stderr, "usage: make_model gemma|tiny|tiny-sharded|llama70b OUT\n");
        return 1;
    }
    struct new_folder folder;
    kry_status status = new_folder_begin(&folder, argv[2]);
    if (status == KRY_OK) {
        struct model model = {.decoder = decoder, .folder = folder.temporary};
        status = make(&model);
        for (int i = 0; i < decoder->shards; i++)
            safetensors_writer_destroy(&model.writers[i]);
        free(model.tensors);
        status = new_folder_end(&folder, status);
    }
    if (status != KRY_OK)
        fprintf(stderr, "make_model: %s\n", kry_error_message());
    return status == KRY_OK ? 0 : 1;
}
