/*
 * The table of tensors of all files, sorted by name.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

/* Spelled as in files. Those that kernelry/checkpoint.h has no name for are listed all the same
 * (dtype 0): nothing that is quantized in a way known here uses them. */
static const struct {
    const char *text;
    unsigned bits;
    uint32_t dtype;
} dtypes[] = {
    {"BOOL", 8, KRY_DTYPE_BOOL},
    {"U8", 8, KRY_DTYPE_U8},
    {"I8", 8, KRY_DTYPE_I8},
    {"F8_E4M3", 8, KRY_DTYPE_F8_E4M3},
    {"F8_E5M2", 8, KRY_DTYPE_F8_E5M2},
    {"I16", 16, KRY_DTYPE_I16},
    {"U16", 16, KRY_DTYPE_U16},
    {"F16", 16, KRY_DTYPE_F16},
    {"BF16", 16, KRY_DTYPE_BF16},
    {"I32", 32, KRY_DTYPE_I32},
    {"U32", 32, KRY_DTYPE_U32},
    {"F32", 32, KRY_DTYPE_F32},
    {"I64", 64, KRY_DTYPE_I64},
    {"U64", 64, KRY_DTYPE_U64},
    {"F64", 64, KRY_DTYPE_F64},
    {"F4", 4, 0},
    {"F6_E2M3", 6, 0},
    {"F6_E3M2", 6, 0},
    {"F8_E8M0", 8, 0},
    {"F8_E4M3FNUZ", 8, 0},
    {"F8_E5M2FNUZ", 8, 0},
    {"C64", 64, 0},
};
enum { DTYPE_COUNT = sizeof dtypes / sizeof dtypes[0] };

unsigned ckpt_dtype_parse(const char *text, uint32_t *dtype) {
    for (size_t i = 0; i < DTYPE_COUNT; i++)
        if (strcmp(dtypes[i].text, text) == 0) {
            *dtype = dtypes[i].dtype;
            return dtypes[i].bits;
        }
    return 0;
}

const char *kry_dtype_string(uint32_t dtype) {
    for (size_t i = 0; i < DTYPE_COUNT; i++)
        if (dtype != 0 && dtypes[i].dtype == dtype)
            return dtypes[i].text;
    return "unknown";
}

size_t kry_dtype_bytes(uint32_t dtype) {
    for (size_t i = 0; i < DTYPE_COUNT; i++)
        if (dtype != 0 && dtypes[i].dtype == dtype)
            return dtypes[i].bits / 8;
    return 0;
}

uint32_t ckpt_type_of_dtype(uint32_t dtype) {
    switch (dtype) {
    case KRY_DTYPE_F16:
        return KRY_TYPE_F16;
    case KRY_DTYPE_BF16:
        return KRY_TYPE_BF16;
    case KRY_DTYPE_F32:
        return KRY_TYPE_F32;
    default:
        return 0;
    }
}

const char *ckpt_tensor_format(const kry_tensor *tensor, char *out, size_t size) {
    int length = snprintf(out, size, "%s [", kry_dtype_string(tensor->dtype));
    for (uint32_t i = 0; i < tensor->rank && (size_t)length < size; i++)
        length += snprintf(out + length, size - (size_t)length, i == 0 ? "%lld" : ", %lld",
                           (long long)tensor->shape[i]);
    if ((size_t)length < size)
        snprintf(out + length, size - (size_t)length, "]");
    return out;
}

kry_status ckpt_tensor_add(kry_checkpoint *checkpoint, const kry_tensor *tensor) {
    if (checkpoint->tensor_count == checkpoint->tensor_capacity) {
        size_t capacity = checkpoint->tensor_capacity == 0 ? 64 : checkpoint->tensor_capacity * 2;
        kry_tensor *tensors = realloc(checkpoint->tensors, capacity * sizeof *tensors);
        if (tensors == NULL)
            return kry_error_set(KRY_E_MEMORY, "%s: out of memory", tensor->file);
        checkpoint->tensors = tensors;
        checkpoint->tensor_capacity = capacity;
    }
    checkpoint->tensors[checkpoint->tensor_count++] = *tensor;
    return KRY_OK;
}

static int compare_tensors(const void *left, const void *right) {
    const kry_tensor *a = left, *b = right;
    return strcmp(a->name, b->name);
}

kry_status ckpt_tensors_sort(kry_checkpoint *checkpoint) {
    if (checkpoint->tensor_count > 1)
        qsort(checkpoint->tensors, checkpoint->tensor_count, sizeof *checkpoint->tensors,
              compare_tensors);
    for (size_t i = 1; i < checkpoint->tensor_count; i++) {
        const kry_tensor *a = &checkpoint->tensors[i - 1], *b = &checkpoint->tensors[i];
        if (strcmp(a->name, b->name) == 0)
            return kry_error_set(KRY_E_FORMAT, "tensor '%s' is in both %s and %s, expected in one",
                                 a->name, a->file, b->file);
    }
    return KRY_OK;
}

const kry_tensor *ckpt_tensor_find(const kry_checkpoint *checkpoint, const char *prefix,
                                   const char *suffix) {
    size_t prefix_length = strlen(prefix);
    size_t low = 0, high = checkpoint->tensor_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const kry_tensor *tensor = &checkpoint->tensors[middle];
        int order = strncmp(prefix, tensor->name, prefix_length);
        if (order == 0)
            order = strcmp(suffix, tensor->name + prefix_length);
        if (order == 0)
            return tensor;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

size_t kry_checkpoint_tensor_count(const kry_checkpoint *checkpoint) {
    return checkpoint == NULL ? 0 : checkpoint->tensor_count;
}

kry_status kry_checkpoint_tensor(const kry_checkpoint *checkpoint, size_t index, kry_tensor *out) {
    if (checkpoint == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "checkpoint is NULL");
    if (index >= checkpoint->tensor_count)
        return kry_error_set(KRY_E_NOT_FOUND, "no tensor %zu: the checkpoint has %zu", index,
                             checkpoint->tensor_count);
    return ckpt_copy_out(out, &checkpoint->tensors[index], sizeof(kry_tensor), "kry_tensor");
}

kry_status kry_checkpoint_find_tensor(const kry_checkpoint *checkpoint, const char *name,
                                      kry_tensor *out) {
    if (checkpoint == NULL || name == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "checkpoint and name are needed, found NULL");
    const kry_tensor *tensor = ckpt_tensor_find(checkpoint, name, "");
    if (tensor == NULL)
        return kry_error_set(KRY_E_NOT_FOUND, "no tensor is named '%s'", name);
    return ckpt_copy_out(out, tensor, sizeof(kry_tensor), "kry_tensor");
}
