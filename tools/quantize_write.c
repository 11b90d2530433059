/*
 * Quantizes the layers of a plan, one at a time, and writes the files of the result.
 */
#include "quantize.h"

#include "atomic_file.h"
#include "floats.h"
#include "folder.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- one layer ----------------------------------------------------------------------- */

/** The KRY_TYPE_* of a dense weight. */
static uint32_t type_of(uint32_t dtype) {
    return dtype == KRY_DTYPE_F16    ? KRY_TYPE_F16
           : dtype == KRY_DTYPE_BF16 ? KRY_TYPE_BF16
                                     : KRY_TYPE_F32;
}

/** What a layer is quantized into. */
struct buffers {
    float *row;           /* [K] */
    uint32_t *packed;     /* [N][words] */
    unsigned char *scale; /* [N][G], of two bytes each */
    uint8_t *zero_point;  /* [N][G] */
    uint32_t *zero_words; /* [ceil(N / per word)][G] */
};

static void release(struct buffers *buffers) {
    free(buffers->row);
    free(buffers->packed);
    free(buffers->scale);
    free(buffers->zero_point);
    free(buffers->zero_words);
}

static bool acquire(struct buffers *buffers, const struct rtn_scheme *scheme, int64_t rows,
                    int64_t columns) {
    /* The tensor is mapped whole, and these are smaller: no product overflows. */
    size_t groups = (size_t)(rows * rtn_groups(scheme, columns));
    size_t zero_rows = (size_t)((rows * scheme->bits + 31) / 32);
    buffers->row = malloc((size_t)columns * sizeof *buffers->row);
    buffers->packed = malloc((size_t)(rows * rtn_words(scheme, columns)) * 4);
    buffers->scale = malloc(groups * 2);
    if (scheme->asymmetric) {
        buffers->zero_point = malloc(groups);
        buffers->zero_words = malloc(zero_rows * (size_t)rtn_groups(scheme, columns) * 4);
    }
    return buffers->row != NULL && buffers->packed != NULL && buffers->scale != NULL &&
           (!scheme->asymmetric || (buffers->zero_point != NULL && buffers->zero_words != NULL));
}

/** Quantize all rows into the buffers. */
static kry_status quantize_rows(const struct rtn_scheme *scheme, const kry_tensor *tensor,
                                struct buffers *buffers, struct rtn_error *error) {
    int64_t rows = tensor->shape[0], columns = tensor->shape[1];
    int64_t words = rtn_words(scheme, columns), groups = rtn_groups(scheme, columns);
    uint32_t type = type_of(tensor->dtype);
    for (int64_t n = 0; n < rows; n++) {
        for (int64_t k = 0; k < columns; k++)
            buffers->row[k] = (float)float_load(tensor->data, n * columns + k, type);
        int64_t bad = rtn_find_not_finite(buffers->row, columns);
        if (bad >= 0)
            return kry_error_set(
                KRY_E_FORMAT, "%s: %s[%" PRId64 ", %" PRId64 "] is %s; expected finite weights",
                tensor->file, tensor->name, n, bad, isnan(buffers->row[bad]) ? "NaN" : "infinite");
        rtn_quantize_row(scheme, buffers->row, columns, buffers->packed + n * words,
                         buffers->scale + n * groups * 2,
                         scheme->asymmetric ? buffers->zero_point + n * groups : NULL, error);
    }
    if (scheme->asymmetric)
        rtn_pack_zero_points(buffers->zero_point, rows, groups, scheme->bits, buffers->zero_words);
    return KRY_OK;
}

static kry_status write_layer(const struct quantize_plan *plan, struct quantize_item *item) {
    const kry_tensor *tensor = &item->tensor;
    struct rtn_scheme scheme = plan->scheme;
    scheme.scale_type = tensor->dtype == KRY_DTYPE_F16 ? KRY_TYPE_F16 : KRY_TYPE_BF16;
    struct buffers buffers = {0};
    struct rtn_error error = {0};
    kry_status status = KRY_OK;
    if (!acquire(&buffers, &scheme, tensor->shape[0], tensor->shape[1]))
        status = kry_error_set(KRY_E_MEMORY, "%s: out of memory", tensor->name);
    if (status == KRY_OK)
        status = quantize_rows(&scheme, tensor, &buffers, &error);
    if (status == KRY_OK)
        status = safetensors_writer_fill(item->writer, item->packed, buffers.packed);
    if (status == KRY_OK)
        status = safetensors_writer_fill(item->writer, item->scale, buffers.scale);
    if (status == KRY_OK && scheme.asymmetric)
        status = safetensors_writer_fill(item->writer, item->zero_point, buffers.zero_words);
    if (status == KRY_OK)
        status = safetensors_writer_fill(item->writer, item->shape, tensor->shape);
    item->error = error;
    release(&buffers);
    return status;
}

/* ---- the files ----------------------------------------------------------------------- */

/** Write a JSON document as a file. */
static kry_status write_json(const char *folder, const char *name, const json_t *document) {
    char path[PATH_MAX];
    kry_status status = join_path(path, folder, name);
    if (status != KRY_OK)
        return status;
    /* 15 digits give back what any config wrote, without noise such as 1e-5 + 1e-21. */
    char *text = json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    if (text == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", path);
    struct atomic_file file;
    status = atomic_file_open(&file, path);
    if (status == KRY_OK) {
        status = atomic_file_write(&file, text, strlen(text));
        if (status == KRY_OK)
            status = atomic_file_write(&file, "\n", 1);
        status = atomic_file_close(&file, status);
    }
    free(text);
    return status;
}

static kry_status write_index(const struct quantize_plan *plan, const char *folder) {
    json_t *index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size",
                              (json_int_t)plan->bytes_after, "weight_map", plan->weight_map);
    kry_status status = index != NULL ? write_json(folder, "model.safetensors.index.json", index)
                                      : kry_error_set(KRY_E_MEMORY, "out of memory");
    json_decref(index);
    return status;
}

static kry_status open_files(const struct quantize_plan *plan, const char *folder) {
    kry_status status = KRY_OK;
    for (size_t i = 0; i < plan->file_count && status == KRY_OK; i++) {
        char path[PATH_MAX];
        status = join_path(path, folder, plan->files[i].name);
        if (status == KRY_OK)
            status = safetensors_writer_open(plan->files[i].writer, path);
    }
    return status;
}

kry_status quantize_write(struct quantize_plan *plan, const char *folder,
                          bool (*advance)(void *context, uint64_t bytes, const char *name),
                          void *context) {
    kry_status status = open_files(plan, folder);
    for (size_t i = 0; i < plan->item_count && status == KRY_OK; i++) {
        struct quantize_item *item = &plan->items[i];
        status = item->module != NULL
                     ? write_layer(plan, item)
                     : safetensors_writer_fill(item->writer, item->copied, item->tensor.data);
        if (status == KRY_OK && !advance(context, item->tensor.bytes, item->tensor.name))
            status = kry_error_set(KRY_E_STATE, "interrupted");
    }
    for (size_t i = 0; i < plan->file_count && status == KRY_OK; i++)
        status = safetensors_writer_finish(plan->files[i].writer, false);
    if (status == KRY_OK && plan->file_count > 1)
        status = write_index(plan, folder);
    if (status == KRY_OK)
        status = write_json(folder, "config.json", plan->config);
    return status;
}
