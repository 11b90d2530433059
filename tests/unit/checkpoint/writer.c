#include "writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a folder ------------------------------------------------------------------------- */

void model_create(struct model *model) {
    *model = (struct model){.folder = "/tmp/kernelry-checkpoint-XXXXXX"};
    assert_non_null(mkdtemp(model->folder));
}

void model_remove(struct model *model) {
    kry_checkpoint_close(&model->checkpoint);
    DIR *directory = opendir(model->folder);
    const struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL)
        remove(model_path(model, entry->d_name)); /* "." and ".." stay, as they are not empty */
    if (directory != NULL)
        closedir(directory);
    rmdir(model->folder);
}

const char *model_path(const struct model *model, const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", model->folder, name);
    return path;
}

void model_write(const struct model *model, const char *name, const void *bytes, size_t size) {
    FILE *file = fopen(model_path(model, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

void model_text(const struct model *model, const char *name, const char *format, ...) {
    char *text;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    assert_true(length >= 0);
    model_write(model, name, text, (size_t)length);
    free(text);
}

static void log_line(void *context, int32_t level, const char *message) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct model *model = context;
    assert_int_equal(level, KRY_LOG_WARNING);
    pthread_mutex_lock(&lock);
    size_t length = strlen(model->log);
    model->log_count++;
    snprintf(model->log + length, sizeof model->log - length, "%s\n", message);
    pthread_mutex_unlock(&lock);
}

kry_status model_open(struct model *model, const char *name) {
    kry_checkpoint_options options = KRY_INIT(kry_checkpoint_options);
    options.log = log_line;
    options.context = model;
    kry_checkpoint_close(&model->checkpoint);
    model->log[0] = '\0';
    model->log_count = 0;
    return kry_checkpoint_open(name == NULL ? model->folder : model_path(model, name), &options,
                               &model->checkpoint);
}

void model_open_well(struct model *model) {
    if (model_open(model, NULL) != KRY_OK)
        fail_msg("cannot open: %s", kry_error_message());
}

void model_open_badly_list(struct model *model, kry_status status, const char *const *parts,
                           const char *file, int line) {
    kry_status found = model_open(model, NULL);
    if (found != status) {
        print_error("status %d, expected %d: %s\n", found, status, kry_error_message());
        _fail(file, line);
    }
    assert_null(model->checkpoint);
    for (; *parts != NULL; parts++)
        if (strstr(kry_error_message(), *parts) == NULL) {
            print_error("'%s' is not in: %s\n", *parts, kry_error_message());
            _fail(file, line);
        }
}

void assert_message(const char *part) {
    if (strstr(kry_error_message(), part) == NULL)
        fail_msg("'%s' is not in: %s", part, kry_error_message());
}

void assert_logged(const struct model *model, const char *part) {
    if (strstr(model->log, part) == NULL)
        fail_msg("'%s' is not in the log: %s", part, model->log);
}

/* ---- a safetensors file --------------------------------------------------------------- */

static size_t dtype_bytes(const char *dtype) {
    static const struct {
        const char *dtype;
        size_t bytes;
    } known[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F16", 2},
                 {"BF16", 2}, {"I16", 2}, {"I32", 4}, {"U32", 4},     {"F32", 4},
                 {"I64", 8},  {"F64", 8}, {"U64", 8}, {"U16", 2},     {"F8_E5M2", 1}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].dtype, dtype) == 0)
            return known[i].bytes;
    fail_msg("no dtype %s", dtype);
    return 0;
}

void tensors_add(struct safetensors *file, const char *name, const char *dtype, const char *shape,
                 const void *data) {
    file->entries = realloc(file->entries, (file->count + 1) * sizeof file->entries[0]);
    assert_non_null(file->entries);
    struct entry *entry = &file->entries[file->count++];
    memset(entry, 0, sizeof *entry);
    snprintf(entry->name, sizeof entry->name, "%s", name);
    snprintf(entry->dtype, sizeof entry->dtype, "%s", dtype);
    entry->bytes = dtype_bytes(dtype);
    for (const char *at = shape; *at != '\0'; at += *at == 'x') {
        char *end;
        entry->shape[entry->rank] = strtoll(at, &end, 10);
        entry->bytes *= (size_t)entry->shape[entry->rank++];
        at = end;
    }
    if (data != NULL) {
        entry->data = malloc(entry->bytes + 1);
        assert_non_null(entry->data);
        memcpy(entry->data, data, entry->bytes);
    }
}

void tensors_add_of(struct safetensors *file, const char *module, const char *suffix,
                    const char *dtype, int64_t rows, int64_t columns, const void *data) {
    char name[256], shape[64];
    snprintf(name, sizeof name, "%s.%s", module, suffix);
    if (columns == 0)
        snprintf(shape, sizeof shape, "%lld", (long long)rows);
    else
        snprintf(shape, sizeof shape, "%lldx%lld", (long long)rows, (long long)columns);
    tensors_add(file, name, dtype, shape, data);
}

struct entry *tensors_find(struct safetensors *file, const char *name) {
    for (size_t i = 0; i < file->count; i++)
        if (strcmp(file->entries[i].name, name) == 0)
            return &file->entries[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

void tensors_drop(struct safetensors *file, const char *name) {
    struct entry *entry = tensors_find(file, name);
    free(entry->data);
    *entry = file->entries[--file->count];
}

static char *make_header(const struct safetensors *file, size_t *length) {
    char *text = NULL;
    FILE *stream = open_memstream(&text, length);
    assert_non_null(stream);
    size_t offset = 0;
    fprintf(stream, "{\"__metadata__\": {\"format\": \"pt\"}");
    for (size_t i = 0; i < file->count; i++) {
        const struct entry *entry = &file->entries[i];
        fprintf(stream, ", \"%s\": {\"dtype\": \"%s\", \"shape\": [", entry->name, entry->dtype);
        for (uint32_t j = 0; j < entry->rank; j++)
            fprintf(stream, j == 0 ? "%lld" : ", %lld", (long long)entry->shape[j]);
        fprintf(stream, "], \"data_offsets\": [%zu, %zu]}", offset, offset + entry->bytes);
        offset += entry->bytes;
    }
    fprintf(stream, "}");
    fflush(stream);
    while (*length % 8 != file->misalign) {
        fputc(' ', stream);
        fflush(stream);
    }
    fclose(stream);
    return text;
}

void tensors_write(const struct safetensors *file, const struct model *model, const char *name) {
    size_t length;
    char *header = make_header(file, &length);
    FILE *stream = fopen(model_path(model, name), "wb");
    assert_non_null(stream);
    uint64_t prefix = length;
    fwrite(&prefix, sizeof prefix, 1, stream);
    fwrite(header, 1, length, stream);
    off_t end = (off_t)(sizeof prefix + length);
    for (size_t i = 0; i < file->count; i++) {
        const struct entry *entry = &file->entries[i];
        if (entry->data != NULL && entry->bytes > 0) {
            fseeko(stream, end, SEEK_SET);
            assert_int_equal(fwrite(entry->data, 1, entry->bytes, stream), entry->bytes);
        }
        end += (off_t)entry->bytes;
    }
    fflush(stream);
    assert_int_equal(ftruncate(fileno(stream), end), 0);
    assert_int_equal(fclose(stream), 0);
    free(header);
}

void tensors_free(struct safetensors *file) {
    for (size_t i = 0; i < file->count; i++)
        free(file->entries[i].data);
    free(file->entries);
    *file = (struct safetensors){0};
}

void raw_write(const struct model *model, const char *name, const char *header, size_t data_bytes) {
    uint64_t length = strlen(header);
    FILE *stream = fopen(model_path(model, name), "wb");
    assert_non_null(stream);
    fwrite(&length, sizeof length, 1, stream);
    fwrite(header, 1, length, stream);
    for (size_t i = 0; i < data_bytes; i++)
        fputc((int)(i & 0xff), stream);
    assert_int_equal(fclose(stream), 0);
}
