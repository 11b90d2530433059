/*
 * What becomes of each tensor of a dense checkpoint, and the config.json of the result.
 */
#include "quantize.h"

#include "folder.h"
#include "module_patterns.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static kry_status out_of_memory(void) { return kry_error_set(KRY_E_MEMORY, "out of memory"); }

/* ---- which tensors ------------------------------------------------------------------- */

static const char *last_component(const char *module) {
    const char *dot = strrchr(module, '.');
    return dot != NULL ? dot + 1 : module;
}

/** Whether a module of this name multiplies by its weights last of all. */
static bool is_output_head(const char *module) {
    const char *name = last_component(module);
    return strcmp(name, "lm_head") == 0 || strcmp(name, "embed_out") == 0;
}

/** Whether a module of this name looks its weights up instead of multiplying by them. */
static bool is_embedding(const char *module) {
    static const char *const names[] = {"wte", "wpe", "shared", "relative_attention_bias"};
    const char *name = last_component(module);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return strstr(name, "embed") != NULL;
}

static bool ends_with(const char *text, const char *ending) {
    size_t length = strlen(text), tail = strlen(ending);
    return length >= tail && strcmp(text + length - tail, ending) == 0;
}

static bool is_weight(const kry_tensor *tensor, uint32_t rank) {
    return ends_with(tensor->name, ".weight") && tensor->rank == rank &&
           (tensor->dtype == KRY_DTYPE_F16 || tensor->dtype == KRY_DTYPE_BF16 ||
            tensor->dtype == KRY_DTYPE_F32);
}

/** Decide about one tensor. */
static kry_status choose(struct quantize_plan *plan, struct module_patterns *ignored,
                         struct quantize_item *item) {
    const kry_tensor *tensor = &item->tensor;
    plan->stacked += is_weight(tensor, 3);
    if (!is_weight(tensor, 2) || tensor->shape[0] == 0 || tensor->shape[1] == 0)
        return KRY_OK;
    char *module = strndup(tensor->name, strlen(tensor->name) - strlen(".weight"));
    if (module == NULL)
        return out_of_memory();
    if (module_patterns_match(ignored, module) || is_embedding(module) || is_output_head(module)) {
        free(module);
        return KRY_OK;
    }
    if (tensor->shape[0] > KRY_FEATURES_MAX || tensor->shape[1] > KRY_FEATURES_MAX) {
        kry_status status =
            kry_error_set(KRY_E_UNSUPPORTED, "%s: %s is [%" PRId64 ", %" PRId64 "]; at most 2^31",
                          tensor->file, tensor->name, tensor->shape[0], tensor->shape[1]);
        free(module);
        return status;
    }
    item->module = module;
    plan->layer_count++;
    int64_t group_size = plan->scheme.group_size;
    plan->short_count += group_size > 0 && tensor->shape[1] % group_size != 0;
    return KRY_OK;
}

static kry_status choose_all(struct quantize_plan *plan, const struct quantize_job *job) {
    struct module_patterns *ignored = NULL;
    kry_status status = module_patterns_create(job->ignore, job->ignore_count, &ignored);
    if (status != KRY_OK)
        return status;
    size_t count = kry_checkpoint_tensor_count(plan->checkpoint);
    plan->items = calloc(count + 1, sizeof *plan->items);
    if (plan->items == NULL) {
        module_patterns_destroy(&ignored);
        return out_of_memory();
    }
    int64_t widest = 0;
    for (size_t i = 0; i < count && status == KRY_OK; i++) {
        struct quantize_item *item = &plan->items[plan->item_count++];
        item->tensor = KRY_INIT(kry_tensor);
        status = kry_checkpoint_tensor(plan->checkpoint, i, &item->tensor);
        if (status == KRY_OK)
            status = choose(plan, ignored, item);
        if (item->module != NULL && item->tensor.shape[1] > widest)
            widest = item->tensor.shape[1];
        plan->bytes_before += item->tensor.bytes;
    }
    size_t at = 0;
    const char *unused = status == KRY_OK ? module_patterns_unused(ignored, &at) : NULL;
    if (unused != NULL)
        status = kry_error_set(KRY_E_ARGUMENT, "--ignore %s: names no linear layer of %s", unused,
                               job->in);
    module_patterns_destroy(&ignored);
    if (status == KRY_OK && plan->layer_count == 0)
        status = kry_error_set(KRY_E_UNSUPPORTED,
                               "%s: there is nothing to quantize: no F16, BF16 or F32 tensor "
                               "'*.weight' of two dimensions that is neither an embedding nor "
                               "ignored",
                               job->in);
    if (status == KRY_OK && job->scheme.group_size > widest)
        status = kry_error_set(KRY_E_ARGUMENT,
                               "--group-size %" PRId64 ": the widest layer has %" PRId64
                               " input features; -1 is one group a row",
                               job->scheme.group_size, widest);
    return status;
}

/* ---- where they go ------------------------------------------------------------------- */

static kry_status declare(struct quantize_plan *plan, struct quantize_item *item,
                          const struct quantize_file *file, const char *name, const char *suffix,
                          uint32_t dtype, const int64_t *shape, uint32_t rank, size_t *index) {
    char *full = NULL;
    if (asprintf(&full, "%s%s", name, suffix) < 0)
        return out_of_memory();
    kry_status status = safetensors_writer_declare(file->writer, full, dtype, shape, rank, index);
    if (status == KRY_OK) {
        item->bytes_after += safetensors_writer_bytes(file->writer, *index);
        if (json_object_set_new(plan->weight_map, full, json_string(file->name)) != 0)
            status = out_of_memory();
    }
    free(full);
    return status;
}

/** Declare the parts of a quantized tensor. */
static kry_status declare_layer(struct quantize_plan *plan, struct quantize_item *item,
                                const struct quantize_file *file) {
    const struct rtn_scheme *scheme = &plan->scheme;
    int64_t rows = item->tensor.shape[0], columns = item->tensor.shape[1];
    int64_t groups = rtn_groups(scheme, columns), per_word = 32 / scheme->bits;
    /* A model in F32 is served in F16 or BF16, as the stack prefers; scales in BF16 are exact in
     * either. */
    uint32_t scale_dtype = item->tensor.dtype == KRY_DTYPE_F16 ? KRY_DTYPE_F16 : KRY_DTYPE_BF16;
    kry_status status = declare(plan, item, file, item->module, ".weight_packed", KRY_DTYPE_I32,
                                (int64_t[]){rows, rtn_words(scheme, columns)}, 2, &item->packed);
    if (status == KRY_OK)
        status = declare(plan, item, file, item->module, ".weight_scale", scale_dtype,
                         (int64_t[]){rows, groups}, 2, &item->scale);
    if (status == KRY_OK && scheme->asymmetric)
        status =
            declare(plan, item, file, item->module, ".weight_zero_point", KRY_DTYPE_I32,
                    (int64_t[]){(rows + per_word - 1) / per_word, groups}, 2, &item->zero_point);
    if (status == KRY_OK)
        status = declare(plan, item, file, item->module, ".weight_shape", KRY_DTYPE_I64,
                         (int64_t[]){2}, 1, &item->shape);
    return status;
}

/** Find or begin the file that takes the tensors of `in`. */
static kry_status file_for(struct quantize_plan *plan, const char *in, struct quantize_file **out) {
    for (size_t i = 0; i < plan->file_count; i++)
        if (strcmp(plan->files[i].in, in) == 0) {
            *out = &plan->files[i];
            return KRY_OK;
        }
    struct quantize_file *grown =
        realloc(plan->files, (plan->file_count + 1) * sizeof *plan->files);
    if (grown == NULL)
        return out_of_memory();
    plan->files = grown;
    struct quantize_file *file = &grown[plan->file_count];
    const char *slash = strrchr(in, '/');
    *file = (struct quantize_file){.in = in, .name = slash != NULL ? slash + 1 : in};
    kry_status status = safetensors_writer_create(&file->writer);
    if (status != KRY_OK)
        return status;
    plan->file_count++;
    *out = file;
    return KRY_OK;
}

static kry_status place_all(struct quantize_plan *plan) {
    plan->weight_map = json_object();
    if (plan->weight_map == NULL)
        return out_of_memory();
    /* All files first: their names depend on how many there are. */
    for (size_t i = 0; i < plan->item_count; i++) {
        struct quantize_file *file;
        kry_status status = file_for(plan, plan->items[i].tensor.file, &file);
        if (status != KRY_OK)
            return status;
    }
    if (plan->file_count == 1)
        plan->files[0].name = "model.safetensors"; /* loaders look for it without an index */
    for (size_t i = 0; i < plan->item_count; i++) {
        struct quantize_item *item = &plan->items[i];
        struct quantize_file *file;
        kry_status status = file_for(plan, item->tensor.file, &file);
        if (status == KRY_OK)
            status = item->module != NULL
                         ? declare_layer(plan, item, file)
                         : declare(plan, item, file, item->tensor.name, "", item->tensor.dtype,
                                   item->tensor.shape, item->tensor.rank, &item->copied);
        if (status != KRY_OK)
            return status;
        item->writer = file->writer;
        plan->bytes_after += item->bytes_after;
    }
    return KRY_OK;
}

/* ---- config.json --------------------------------------------------------------------- */

/** Tell where config.json is: in the folder, or beside the file. */
static kry_status config_path(const char *in, char out[PATH_MAX]) {
    struct stat info;
    if (stat(in, &info) != 0)
        return kry_error_set(KRY_E_IO, "%s: %s", in, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return join_path(out, in, "config.json");
    const char *slash = strrchr(in, '/');
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%.*s", slash != NULL ? (int)(slash - in) : 1,
             slash != NULL ? in : ".");
    return join_path(out, folder, "config.json");
}

/** Read config.json, {} where there is none, and refuse models that are not for us. */
static kry_status read_config(const char *in, json_t **out) {
    char path[PATH_MAX];
    kry_status status = config_path(in, path);
    if (status != KRY_OK)
        return status;
    struct stat info;
    json_error_t error;
    json_t *config = NULL;
    if (stat(path, &info) != 0 && errno == ENOENT)
        config = json_object();
    else
        config = json_load_file(path, 0, &error);
    if (!json_is_object(config)) {
        json_decref(config);
        return kry_error_set(KRY_E_FORMAT, "%s: line %d: %s", path, config == NULL ? error.line : 1,
                             config == NULL ? error.text : "expected an object");
    }
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (json_object_get(config, "quantization_config") != NULL ||
        json_object_get(config, "compression_config") != NULL)
        status = kry_error_set(KRY_E_UNSUPPORTED, "%s: the model is quantized already", path);
    else if (type != NULL && (strcmp(type, "gpt2") == 0 || strcmp(type, "openai-gpt") == 0))
        status = kry_error_set(KRY_E_UNSUPPORTED,
                               "%s: a model of type %s stores its weights transposed; "
                               "compressed-tensors cannot say so",
                               path, type);
    if (status == KRY_OK)
        *out = config;
    else
        json_decref(config);
    return status;
}

/** Modules that a reader must expect dense although they are linear layers. */
static json_t *compose_ignore(const struct quantize_plan *plan, const struct quantize_job *job) {
    json_t *ignore = json_array();
    /* A head that shares the embedding's weights has no tensor and must be named all the same. */
    bool named = json_array_append_new(ignore, json_string("lm_head")) == 0;
    for (size_t i = 0; i < plan->item_count; i++) {
        const kry_tensor *tensor = &plan->items[i].tensor;
        if (plan->items[i].module != NULL || !is_weight(tensor, 2))
            continue;
        int length = (int)(strlen(tensor->name) - strlen(".weight"));
        json_t *name = json_sprintf("%.*s", length, tensor->name);
        const char *module = json_string_value(name);
        if (module != NULL && is_output_head(module) && strcmp(module, "lm_head") != 0)
            named = json_array_append(ignore, name) == 0 && named;
        json_decref(name);
    }
    for (size_t i = 0; i < job->ignore_count; i++)
        if (strcmp(job->ignore[i], "lm_head") != 0)
            named = json_array_append_new(ignore, json_string(job->ignore[i])) == 0 && named;
    if (named)
        return ignore;
    json_decref(ignore);
    return NULL;
}

static kry_status compose_config(struct quantize_plan *plan, const struct quantize_job *job) {
    const struct rtn_scheme *scheme = &job->scheme;
    json_t *group_size = scheme->group_size > 0 ? json_integer(scheme->group_size) : json_null();
    json_t *weights =
        json_pack("{s:i, s:s, s:b, s:s, s:o, s:n, s:b, s:n, s:s}", "num_bits", scheme->bits, "type",
                  "int", "symmetric", !scheme->asymmetric, "strategy",
                  scheme->group_size > 0 ? "group" : "channel", "group_size", group_size,
                  "block_structure", "dynamic", 0, "actorder", "observer", "minmax");
    json_t *group = json_pack("{s:[s], s:o, s:n, s:n}", "targets", "Linear", "weights", weights,
                              "input_activations", "output_activations");
    json_t *quantization = json_pack(
        "{s:s, s:s, s:s, s:{s:o}, s:o, s:n, s:n}", "quant_method", "compressed-tensors", "format",
        "pack-quantized", "quantization_status", "compressed", "config_groups", "group_0", group,
        "ignore", compose_ignore(plan, job), "kv_cache_scheme", "global_compression_ratio");
    return json_object_set_new(plan->config, "quantization_config", quantization) == 0
               ? KRY_OK
               : out_of_memory();
}

/* ---- the plan ------------------------------------------------------------------------ */

kry_status quantize_plan_create(const struct quantize_job *job, struct quantize_plan **out) {
    json_t *config = NULL;
    kry_status status = read_config(job->in, &config);
    if (status != KRY_OK)
        return status;
    struct quantize_plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL) {
        json_decref(config);
        return out_of_memory();
    }
    plan->scheme = job->scheme;
    plan->config = config;
    status = kry_checkpoint_open(job->in, NULL, &plan->checkpoint);
    if (status == KRY_OK && kry_checkpoint_layer_count(plan->checkpoint) > 0)
        status = kry_error_set(KRY_E_UNSUPPORTED, "%s: the model is quantized already", job->in);
    if (status == KRY_OK)
        status = choose_all(plan, job);
    if (status == KRY_OK)
        status = place_all(plan);
    if (status == KRY_OK)
        status = compose_config(plan, job);
    if (status == KRY_OK)
        *out = plan;
    else
        quantize_plan_destroy(&plan);
    return status;
}

void quantize_plan_destroy(struct quantize_plan **plan) {
    struct quantize_plan *gone = *plan;
    if (gone == NULL)
        return;
    for (size_t i = 0; i < gone->item_count; i++)
        free(gone->items[i].module);
    for (size_t i = 0; i < gone->file_count; i++)
        safetensors_writer_destroy(&gone->files[i].writer);
    free(gone->items);
    free(gone->files);
    json_decref(gone->config);
    json_decref(gone->weight_map);
    kry_checkpoint_close(&gone->checkpoint);
    free(gone);
    *plan = NULL;
}
