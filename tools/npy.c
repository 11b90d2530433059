/*
 * NumPy's .npy files. Format: 6 magic bytes, version (major, minor), the header's length (u16,
 * from version 2 on u32), a Python dict literal in ASCII that ends in a newline, the elements.
 */
#include "npy.h"

#include "atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "\x93NUMPY"

enum { MAGIC_BYTES = 6, PREAMBLE_BYTES = 10, HEADER_BYTES_MAX = 65536 };

/* ---- the header's dict --------------------------------------------------------------- */

/** A place in the header; `path` is for messages. */
struct cursor {
    const char *at;
    const char *end;
    const char *path;
};

static kry_status malformed(const struct cursor *cursor, const char *expected) {
    return kry_error_set(KRY_E_FORMAT, "%s: the .npy header is damaged: expected %s", cursor->path,
                         expected);
}

static void skip_blanks(struct cursor *cursor) {
    while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\n'))
        cursor->at++;
}

/** Pass over blanks, then take `c` if it is next. */
static bool take(struct cursor *cursor, char c) {
    skip_blanks(cursor);
    if (cursor->at == cursor->end || *cursor->at != c)
        return false;
    cursor->at++;
    return true;
}

/** Take a word in quotes. */
static kry_status take_string(struct cursor *cursor, char *out, size_t size) {
    char quote = take(cursor, '\'') ? '\'' : take(cursor, '"') ? '"' : '\0';
    if (quote == '\0')
        return malformed(cursor, "a quoted word");
    size_t length = 0;
    while (cursor->at < cursor->end && *cursor->at != quote && length + 1 < size)
        out[length++] = *cursor->at++;
    out[length] = '\0';
    return take(cursor, quote) ? KRY_OK : malformed(cursor, "the end of a quoted word");
}

static kry_status take_size(struct cursor *cursor, int64_t *out) {
    skip_blanks(cursor);
    int64_t value = 0;
    const char *begin = cursor->at;
    for (; cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9'; cursor->at++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *cursor->at - '0', &value))
            return malformed(cursor, "sizes below 2^63");
    *out = value;
    return cursor->at > begin ? KRY_OK : malformed(cursor, "a size in 'shape'");
}

static kry_status take_shape(struct cursor *cursor, struct npy *array) {
    if (!take(cursor, '('))
        return malformed(cursor, "a tuple as 'shape'");
    array->rank = 0;
    while (!take(cursor, ')')) {
        if (array->rank == NPY_RANK_MAX)
            return kry_error_set(KRY_E_UNSUPPORTED, "%s: more than %d dimensions", cursor->path,
                                 NPY_RANK_MAX);
        kry_status status = take_size(cursor, &array->shape[array->rank]);
        if (status != KRY_OK)
            return status;
        array->rank++;
        if (!take(cursor, ',')) {
            if (!take(cursor, ')'))
                return malformed(cursor, "',' or ')' in 'shape'");
            break;
        }
    }
    return KRY_OK;
}

static kry_status take_descr(struct cursor *cursor, struct npy *array) {
    char descr[16];
    kry_status status = take_string(cursor, descr, sizeof descr);
    if (status != KRY_OK)
        return kry_error_set(KRY_E_UNSUPPORTED,
                             "%s: its elements are no plain numbers; expected '<f2' or '<f4'",
                             cursor->path);
    if (strcmp(descr, "<f2") == 0 || strcmp(descr, "=f2") == 0)
        array->type = KRY_TYPE_F16;
    else if (strcmp(descr, "<f4") == 0 || strcmp(descr, "=f4") == 0)
        array->type = KRY_TYPE_F32;
    else
        return kry_error_set(KRY_E_UNSUPPORTED,
                             "%s: its elements are '%s'; expected '<f2' (float16) or '<f4' "
                             "(float32), little-endian",
                             cursor->path, descr);
    return KRY_OK;
}

static kry_status take_fortran_order(struct cursor *cursor) {
    skip_blanks(cursor);
    size_t left = (size_t)(cursor->end - cursor->at);
    if (left >= 5 && memcmp(cursor->at, "False", 5) == 0) {
        cursor->at += 5;
        return KRY_OK;
    }
    if (left >= 4 && memcmp(cursor->at, "True", 4) == 0)
        return kry_error_set(KRY_E_UNSUPPORTED,
                             "%s: it is in Fortran order; expected C order "
                             "(numpy.ascontiguousarray makes it so)",
                             cursor->path);
    return malformed(cursor, "True or False as 'fortran_order'");
}

static kry_status parse_dict(struct cursor *cursor, struct npy *array) {
    bool seen[3] = {false};
    if (!take(cursor, '{'))
        return malformed(cursor, "'{'");
    while (!take(cursor, '}')) {
        char key[16];
        kry_status status = take_string(cursor, key, sizeof key);
        if (status == KRY_OK && !take(cursor, ':'))
            status = malformed(cursor, "':'");
        if (status != KRY_OK)
            return status;
        if (strcmp(key, "descr") == 0) {
            seen[0] = true;
            status = take_descr(cursor, array);
        } else if (strcmp(key, "fortran_order") == 0) {
            seen[1] = true;
            status = take_fortran_order(cursor);
        } else if (strcmp(key, "shape") == 0) {
            seen[2] = true;
            status = take_shape(cursor, array);
        } else {
            status = malformed(cursor, "the keys 'descr', 'fortran_order' and 'shape' alone");
        }
        if (status != KRY_OK)
            return status;
        if (!take(cursor, ',')) {
            if (!take(cursor, '}'))
                return malformed(cursor, "',' or '}'");
            break;
        }
    }
    if (!seen[0] || !seen[1] || !seen[2])
        return malformed(cursor, "the keys 'descr', 'fortran_order' and 'shape'");
    return KRY_OK;
}

/* ---- reading ------------------------------------------------------------------------- */

static kry_status read_exactly(FILE *file, const char *path, void *out, size_t bytes,
                               const char *what) {
    size_t count = fread(out, 1, bytes, file);
    if (count == bytes)
        return KRY_OK;
    if (ferror(file))
        return kry_error_set(KRY_E_IO, "%s: %s", path, strerror(errno));
    return kry_error_set(KRY_E_FORMAT, "%s: the file ends inside %s (%zu of %zu bytes)", path, what,
                         count, bytes);
}

/** Read magic, version and dict; the file then stands at the first element. */
static kry_status read_header(FILE *file, const char *path, struct npy *array) {
    unsigned char preamble[PREAMBLE_BYTES + 2];
    kry_status status = read_exactly(file, path, preamble, PREAMBLE_BYTES, "the .npy preamble");
    if (status != KRY_OK)
        return status;
    if (memcmp(preamble, MAGIC, MAGIC_BYTES) != 0)
        return kry_error_set(KRY_E_FORMAT, "%s: not a .npy file (it does not start with its magic)",
                             path);
    unsigned major = preamble[6];
    if (major < 1 || major > 3)
        return kry_error_set(KRY_E_UNSUPPORTED, "%s: .npy version %u.%u; expected 1, 2 or 3", path,
                             major, preamble[7]);
    uint32_t header_bytes = preamble[8] | (uint32_t)preamble[9] << 8;
    if (major > 1) {
        status = read_exactly(file, path, preamble + PREAMBLE_BYTES, 2, "the .npy preamble");
        if (status != KRY_OK)
            return status;
        header_bytes |= (uint32_t)preamble[10] << 16 | (uint32_t)preamble[11] << 24;
    }
    if (header_bytes > HEADER_BYTES_MAX)
        return kry_error_set(KRY_E_FORMAT, "%s: a .npy header of %" PRIu32 " bytes; at most %d",
                             path, header_bytes, HEADER_BYTES_MAX);
    char *header = malloc((size_t)header_bytes + 1);
    if (header == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", path);
    status = read_exactly(file, path, header, header_bytes, "the .npy header");
    if (status == KRY_OK) {
        struct cursor cursor = {header, header + header_bytes, path};
        status = parse_dict(&cursor, array);
    }
    free(header);
    return status;
}

/** Compute the bytes of the elements. */
static kry_status measure(const char *path, struct npy *array) {
    uint64_t bytes = kry_type_bytes(array->type);
    for (uint32_t i = 0; i < array->rank; i++)
        if (__builtin_mul_overflow(bytes, (uint64_t)array->shape[i], &bytes))
            return kry_error_set(KRY_E_FORMAT, "%s: its shape counts more than 2^64 bytes", path);
    array->bytes = bytes;
    return KRY_OK;
}

static kry_status read_elements(FILE *file, const char *path, struct npy *array) {
    /* A file that can tell its size must hold the elements before memory is asked for them. */
    struct stat info;
    long begin = ftell(file);
    if (fstat(fileno(file), &info) == 0 && S_ISREG(info.st_mode) && begin >= 0 &&
        (uint64_t)(info.st_size - begin) != array->bytes)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: %" PRIu64 " bytes follow the header; its shape needs %" PRIu64,
                             path, (uint64_t)(info.st_size - begin), array->bytes);
    void *data = malloc(array->bytes > 0 ? array->bytes : 1);
    if (data == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: no memory for %" PRIu64 " bytes", path,
                             array->bytes);
    kry_status status = read_exactly(file, path, data, array->bytes, "its elements");
    if (status != KRY_OK) {
        free(data);
        return status;
    }
    array->data = data;
    return KRY_OK;
}

kry_status npy_read(const char *path, struct npy *out) {
    FILE *file = fopen(path, "rbe");
    if (file == NULL)
        return kry_error_set(KRY_E_IO, "%s: %s", path, strerror(errno));
    struct npy array = {0};
    kry_status status = read_header(file, path, &array);
    if (status == KRY_OK)
        status = measure(path, &array);
    if (status == KRY_OK)
        status = read_elements(file, path, &array);
    fclose(file);
    if (status == KRY_OK)
        *out = array;
    return status;
}

/* ---- writing ------------------------------------------------------------------------- */

/** Compose preamble and dict, padded so that the elements start at a multiple of 64. */
static size_t format_header(const struct npy *array, char *out, size_t size) {
    char shape[NPY_RANK_MAX * 24] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < array->rank; i++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%" PRId64 ",%s",
                                 array->shape[i], i + 1 < array->rank ? " " : "");
    size_t length = PREAMBLE_BYTES;
    length += (size_t)snprintf(out + length, size - length,
                               "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
                               array->type == KRY_TYPE_F16 ? "<f2" : "<f4", shape);
    while ((length + 1) % 64 != 0)
        out[length++] = ' ';
    out[length++] = '\n';
    memcpy(out, MAGIC "\x01", MAGIC_BYTES + 2); /* version 1.0: the literal's end is the 0 */
    out[8] = (char)((length - PREAMBLE_BYTES) & 0xff);
    out[9] = (char)((length - PREAMBLE_BYTES) >> 8);
    return length;
}

kry_status npy_write(const char *path, const struct npy *array) {
    char header[512];
    size_t header_bytes = format_header(array, header, sizeof header);
    struct atomic_file file;
    kry_status status = atomic_file_open(&file, path);
    if (status != KRY_OK)
        return status;
    status = atomic_file_write(&file, header, header_bytes);
    if (status == KRY_OK)
        status = atomic_file_write(&file, array->data, array->bytes);
    return atomic_file_close(&file, status);
}

void npy_free(struct npy *array) {
    free(array->data);
    array->data = NULL;
}
