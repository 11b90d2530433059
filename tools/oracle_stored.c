/*
 * Weights as checkpoints store them: the oracle's own decoding, element by element.
 *
 * method              codes                         scales  zero points        column's group
 * compressed-tensors  weight_packed [N, K words]    [N, G]  [N words, G], or   weight_g_idx
 *                                                           int8 [N, G], old
 * GPTQ                qweight [K words, N]          [G, N]  qzeros [G, N words]  g_idx
 * AWQ                 qweight [K, N words]          [G, N]  qzeros [G, N words]  k / group_size
 *
 * A word has 32 bits, its first element lowest; AWQ's elements 0 to 7 lie at nibbles
 * 0 4 1 5 2 6 3 7.
 */
#include "oracle.h"

#include "floats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t word_at(const kry_tensor *tensor, int64_t index) {
    uint32_t word;
    memcpy(&word, (const char *)tensor->data + index * 4, sizeof word);
    return word;
}

/* Elements of a word: 8 of 4 bits or 4 of 8. As a shift, because / would cost more than the rest.
 */
static uint32_t elements_shift(const struct oracle *oracle) {
    return oracle->scheme.bits == 4 ? 3 : 2;
}

static int64_t words_for(const struct oracle *oracle, int64_t elements) {
    return (elements + (1 << elements_shift(oracle)) - 1) >> elements_shift(oracle);
}

static uint32_t field_of(const struct oracle *oracle, uint32_t word, int64_t element) {
    uint32_t bits = oracle->scheme.bits;
    uint32_t place = (uint32_t)element & ((1U << elements_shift(oracle)) - 1);
    return word >> (place * bits) & ((1U << bits) - 1);
}

static uint32_t awq_field_of(uint32_t word, int64_t element) {
    static const uint8_t nibble_of_element[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return word >> (4 * nibble_of_element[element & 7]) & 0xF;
}

/* ---- codes --------------------------------------------------------------------------- */

static void compressed_codes(const struct oracle *oracle, int64_t n, int64_t rows, int64_t k,
                             int64_t columns, uint8_t *out, int64_t stride) {
    int64_t row_words = oracle->weight_tensor.shape[1];
    uint32_t shift = elements_shift(oracle);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            uint32_t word =
                word_at(&oracle->weight_tensor, (n + r) * row_words + ((k + c) >> shift));
            out[r * stride + c] = (uint8_t)field_of(oracle, word, k + c);
        }
}

/* Along n first, as it is stored: the other way each step would touch another cache line. */
static void gptq_codes(const struct oracle *oracle, int64_t n, int64_t rows, int64_t k,
                       int64_t columns, uint8_t *out, int64_t stride) {
    uint32_t shift = elements_shift(oracle);
    for (int64_t c = 0; c < columns; c++)
        for (int64_t r = 0; r < rows; r++) {
            uint32_t word =
                word_at(&oracle->weight_tensor, ((k + c) >> shift) * oracle->out_features + n + r);
            out[r * stride + c] = (uint8_t)field_of(oracle, word, k + c);
        }
}

static void awq_codes(const struct oracle *oracle, int64_t n, int64_t rows, int64_t k,
                      int64_t columns, uint8_t *out, int64_t stride) {
    int64_t row_words = oracle->weight_tensor.shape[1];
    for (int64_t c = 0; c < columns; c++)
        for (int64_t r = 0; r < rows; r++) {
            uint32_t word = word_at(&oracle->weight_tensor, (k + c) * row_words + ((n + r) >> 3));
            out[r * stride + c] = (uint8_t)awq_field_of(word, n + r);
        }
}

/* ---- scales, zero points, bias ------------------------------------------------------- */

static bool float_type_of(uint32_t dtype, uint32_t *type) {
    *type = dtype == KRY_DTYPE_F16    ? KRY_TYPE_F16
            : dtype == KRY_DTYPE_BF16 ? KRY_TYPE_BF16
                                      : KRY_TYPE_F32;
    return dtype == KRY_DTYPE_F16 || dtype == KRY_DTYPE_BF16 || dtype == KRY_DTYPE_F32;
}

static double tensor_float(const kry_tensor *tensor, int64_t index) {
    uint32_t type;
    float_type_of(tensor->dtype, &type);
    return float_load(tensor->data, index, type);
}

static double scale_by_row(const struct oracle *oracle, int64_t n, int64_t g) {
    return tensor_float(&oracle->scale_tensor, n * oracle->groups + g);
}

static double scale_by_group(const struct oracle *oracle, int64_t n, int64_t g) {
    return tensor_float(&oracle->scale_tensor, g * oracle->out_features + n);
}

static double stored_bias(const struct oracle *oracle, int64_t n) {
    return tensor_float(&oracle->bias_tensor, n);
}

static int32_t middle_zero(const struct oracle *oracle, int64_t n, int64_t g) {
    (void)n;
    (void)g;
    return 1 << (oracle->scheme.bits - 1);
}

static int32_t compressed_zero(const struct oracle *oracle, int64_t n, int64_t g) {
    if (oracle->zero_tensor.dtype == KRY_DTYPE_I8) {
        int8_t value;
        memcpy(&value, (const char *)oracle->zero_tensor.data + n * oracle->groups + g, 1);
        return value + (1 << (oracle->scheme.bits - 1));
    }
    uint32_t word =
        word_at(&oracle->zero_tensor, (n >> elements_shift(oracle)) * oracle->groups + g);
    return (int32_t)field_of(oracle, word, n);
}

static int32_t gptq_zero(const struct oracle *oracle, int64_t n, int64_t g) {
    uint32_t bits = oracle->scheme.bits;
    uint32_t word = word_at(&oracle->zero_tensor,
                            g * oracle->zero_tensor.shape[1] + (n >> elements_shift(oracle)));
    if (oracle->scheme.zero == ORACLE_ZERO_WORD)
        word += bits == 4 ? 0x11111111 : 0x01010101;
    uint32_t field = field_of(oracle, word, n);
    if (oracle->scheme.zero == ORACLE_ZERO_FIELD)
        field = (field + 1) & ((1U << bits) - 1);
    return (int32_t)field;
}

static int32_t awq_zero(const struct oracle *oracle, int64_t n, int64_t g) {
    uint32_t word = word_at(&oracle->zero_tensor, g * oracle->zero_tensor.shape[1] + (n >> 3));
    return (int32_t)awq_field_of(word, n);
}

/* ---- finding and checking the tensors ------------------------------------------------ */

/** Find "layer.suffix"; with *found not NULL, its absence is no error. */
static kry_status find(const kry_checkpoint *checkpoint, const char *layer, const char *suffix,
                       kry_tensor *out, bool *found) {
    char *name;
    *out = (kry_tensor){.struct_size = sizeof *out};
    if (asprintf(&name, "%s.%s", layer, suffix) < 0)
        return kry_error_set(KRY_E_MEMORY, "oracle: out of memory");
    kry_status status = kry_checkpoint_find_tensor(checkpoint, name, out);
    free(name);
    if (found) {
        *found = status == KRY_OK;
        return status == KRY_E_NOT_FOUND ? KRY_OK : status;
    }
    return status;
}

static kry_status expect(const kry_tensor *tensor, uint32_t dtype, int64_t rows, int64_t columns) {
    if (tensor->dtype != dtype || tensor->rank != 2 || tensor->shape[0] != rows ||
        tensor->shape[1] != columns)
        return kry_error_set(KRY_E_FORMAT, "oracle: %s is not %s of shape [%lld, %lld]",
                             tensor->name, kry_dtype_string(dtype), (long long)rows,
                             (long long)columns);
    return KRY_OK;
}

static int64_t integer_at(const kry_tensor *tensor, int64_t index) {
    if (tensor->dtype == KRY_DTYPE_I32)
        return (int32_t)word_at(tensor, index);
    int64_t value;
    memcpy(&value, (const char *)tensor->data + index * 8, sizeof value);
    return value;
}

static bool is_integers(const kry_tensor *tensor, int64_t count) {
    return (tensor->dtype == KRY_DTYPE_I32 || tensor->dtype == KRY_DTYPE_I64) &&
           tensor->rank == 1 && tensor->shape[0] == count;
}

/** Each column's group: from a tensor of group numbers, or by counting. */
static kry_status read_groups(struct oracle *oracle, const kry_tensor *g_idx) {
    int64_t size = oracle->scheme.group_size;
    oracle->groups = size < 0 ? 1 : (oracle->in_features + size - 1) / size;
    oracle->group_of = malloc((size_t)oracle->in_features * sizeof *oracle->group_of);
    if (!oracle->group_of)
        return kry_error_set(KRY_E_MEMORY, "oracle: out of memory");
    if (g_idx && !is_integers(g_idx, oracle->in_features))
        return kry_error_set(KRY_E_FORMAT, "oracle: %s is not [%lld] integers", g_idx->name,
                             (long long)oracle->in_features);
    for (int64_t k = 0; k < oracle->in_features; k++) {
        int64_t group = size < 0 ? 0 : k / size;
        if (g_idx && ((group = integer_at(g_idx, k)) < 0 || group >= oracle->groups))
            return kry_error_set(KRY_E_FORMAT, "oracle: %s: column %lld is in group %lld of %lld",
                                 g_idx->name, (long long)k, (long long)group,
                                 (long long)oracle->groups);
        oracle->group_of[k] = (int32_t)group;
    }
    return KRY_OK;
}

static kry_status read_bias(struct oracle *oracle, const kry_checkpoint *checkpoint,
                            const char *layer) {
    kry_status status = find(checkpoint, layer, "bias", &oracle->bias_tensor, &oracle->has_bias);
    uint32_t type;
    if (status == KRY_OK && oracle->has_bias &&
        (!float_type_of(oracle->bias_tensor.dtype, &type) || oracle->bias_tensor.rank != 1 ||
         oracle->bias_tensor.shape[0] != oracle->out_features))
        return kry_error_set(KRY_E_FORMAT, "oracle: %s is not [%lld] floats",
                             oracle->bias_tensor.name, (long long)oracle->out_features);
    oracle->bias = stored_bias;
    return status;
}

static kry_status open_compressed(struct oracle *oracle, const kry_checkpoint *checkpoint,
                                  const char *layer) {
    kry_tensor shape, g_idx;
    bool has_g_idx = false;
    kry_status status;
    if ((status = find(checkpoint, layer, "weight_packed", &oracle->weight_tensor, NULL)) ||
        (status = find(checkpoint, layer, "weight_scale", &oracle->scale_tensor, NULL)) ||
        (status = find(checkpoint, layer, "weight_shape", &shape, NULL)) ||
        (status = find(checkpoint, layer, "weight_g_idx", &g_idx, &has_g_idx)))
        return status;
    if (!is_integers(&shape, 2))
        return kry_error_set(KRY_E_FORMAT, "oracle: %s is not two integers", shape.name);
    oracle->out_features = integer_at(&shape, 0);
    oracle->in_features = integer_at(&shape, 1);
    if (oracle->out_features < 1 || oracle->in_features < 1 ||
        oracle->in_features > KRY_FEATURES_MAX || oracle->out_features > KRY_FEATURES_MAX)
        return kry_error_set(KRY_E_FORMAT, "oracle: %s is out of range", shape.name);
    if ((status = read_groups(oracle, has_g_idx ? &g_idx : NULL)) ||
        (status = expect(&oracle->weight_tensor, KRY_DTYPE_I32, oracle->out_features,
                         words_for(oracle, oracle->in_features))) ||
        (status = expect(&oracle->scale_tensor, oracle->scale_tensor.dtype, oracle->out_features,
                         oracle->groups)))
        return status;
    oracle->codes = compressed_codes;
    oracle->scale = scale_by_row;
    oracle->zero = middle_zero;
    if (oracle->scheme.zero == ORACLE_ZERO_MIDDLE)
        return KRY_OK;
    if ((status = find(checkpoint, layer, "weight_zero_point", &oracle->zero_tensor, NULL)))
        return status;
    oracle->zero = compressed_zero;
    if (oracle->zero_tensor.dtype == KRY_DTYPE_I8)
        return expect(&oracle->zero_tensor, KRY_DTYPE_I8, oracle->out_features, oracle->groups);
    return expect(&oracle->zero_tensor, KRY_DTYPE_I32, words_for(oracle, oracle->out_features),
                  oracle->groups);
}

/** GPTQ's and AWQ's tensors, which differ by what a word of qweight packs. */
static kry_status open_qweight(struct oracle *oracle, const kry_checkpoint *checkpoint,
                               const char *layer) {
    bool awq = oracle->scheme.method == KRY_METHOD_AWQ;
    kry_tensor g_idx;
    bool has_g_idx = false;
    kry_status status;
    if ((status = find(checkpoint, layer, "qweight", &oracle->weight_tensor, NULL)) ||
        (status = find(checkpoint, layer, "scales", &oracle->scale_tensor, NULL)))
        return status;
    if (!awq && (status = find(checkpoint, layer, "g_idx", &g_idx, &has_g_idx)))
        return status;
    const kry_tensor *weight = &oracle->weight_tensor;
    if (weight->rank != 2 || weight->dtype != KRY_DTYPE_I32 || oracle->scale_tensor.rank != 2 ||
        weight->shape[0] < 1 || weight->shape[0] > KRY_FEATURES_MAX)
        return kry_error_set(KRY_E_FORMAT, "oracle: %s or %s has a wrong type or shape",
                             weight->name, oracle->scale_tensor.name);
    oracle->out_features = oracle->scale_tensor.shape[1];
    oracle->in_features = awq ? weight->shape[0] : weight->shape[0] << elements_shift(oracle);
    if (has_g_idx && g_idx.rank == 1) /* K need not fill its last word */
        oracle->in_features = g_idx.shape[0];
    if (oracle->out_features < 1 || oracle->out_features > KRY_FEATURES_MAX ||
        oracle->in_features < 1 || oracle->in_features > KRY_FEATURES_MAX)
        return kry_error_set(KRY_E_FORMAT, "oracle: %s is empty", weight->name);
    if ((status = read_groups(oracle, has_g_idx ? &g_idx : NULL)) ||
        (status = awq ? expect(weight, KRY_DTYPE_I32, oracle->in_features,
                               words_for(oracle, oracle->out_features))
                      : expect(weight, KRY_DTYPE_I32, words_for(oracle, oracle->in_features),
                               oracle->out_features)) ||
        (status = expect(&oracle->scale_tensor, oracle->scale_tensor.dtype, oracle->groups,
                         oracle->out_features)))
        return status;
    oracle->codes = awq ? awq_codes : gptq_codes;
    oracle->scale = scale_by_group;
    oracle->zero = middle_zero;
    if (oracle->scheme.zero == ORACLE_ZERO_MIDDLE)
        return KRY_OK;
    if ((status = find(checkpoint, layer, "qzeros", &oracle->zero_tensor, NULL)))
        return status;
    oracle->zero = awq ? awq_zero : gptq_zero;
    return expect(&oracle->zero_tensor, KRY_DTYPE_I32, oracle->groups,
                  words_for(oracle, oracle->out_features));
}

kry_status oracle_open(const struct oracle_config *config, const kry_checkpoint *checkpoint,
                       const char *layer, struct oracle **out) {
    struct oracle *oracle = calloc(1, sizeof *oracle);
    if (!oracle)
        return kry_error_set(KRY_E_MEMORY, "oracle: out of memory");
    kry_status status = oracle_config_scheme(config, layer, &oracle->scheme);
    if (status == KRY_OK && oracle->scheme.method == KRY_METHOD_COMPRESSED_TENSORS)
        status = open_compressed(oracle, checkpoint, layer);
    else if (status == KRY_OK)
        status = open_qweight(oracle, checkpoint, layer);
    if (status == KRY_OK)
        status = read_bias(oracle, checkpoint, layer);
    uint32_t type;
    if (status == KRY_OK && !float_type_of(oracle->scale_tensor.dtype, &type))
        status = kry_error_set(KRY_E_FORMAT, "oracle: %s is not f16, bf16 or f32",
                               oracle->scale_tensor.name);
    if (status != KRY_OK) {
        oracle_close(&oracle);
        return status;
    }
    oracle->activation = oracle->scheme.activation;
    *out = oracle;
    return KRY_OK;
}
