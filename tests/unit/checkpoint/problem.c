#include "problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t random_state = 20240607; /* printed by the assertions below */

static uint32_t random_below(uint32_t bound) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % bound;
}

static void *must(size_t count, size_t size) {
    void *memory = calloc(count + 1, size);
    assert_non_null(memory);
    return memory;
}

void problem_make(struct problem *p, int64_t in_features, int64_t out_features, int64_t group_size,
                  int bits, bool symmetric) {
    *p = (struct problem){in_features, out_features, group_size, bits, symmetric, 1,
                          NULL,        NULL,         NULL,       NULL, NULL};
    int64_t size = group_size == -1 ? in_features : group_size;
    p->groups = (in_features + size - 1) / size;
    p->q = must((size_t)(in_features * out_features), 1);
    p->z = must((size_t)(out_features * p->groups), 1);
    p->s = must((size_t)(out_features * p->groups), 2);
    p->g_idx = must((size_t)in_features, 4);
    p->bias = must((size_t)out_features, 2);
    for (int64_t i = 0; i < in_features * out_features; i++)
        p->q[i] = (uint8_t)random_below(1u << bits);
    for (int64_t i = 0; i < out_features * p->groups; i++) {
        p->z[i] = (uint8_t)(symmetric ? 1u << (bits - 1) : random_below(1u << bits));
        p->s[i] = (uint16_t)(0x2000 + random_below(0x2000));
    }
    for (int64_t k = 0; k < in_features; k++)
        p->g_idx[k] = (int32_t)(k / size);
    for (int64_t n = 0; n < out_features; n++)
        p->bias[n] = (uint16_t)random_below(0x7c00);
}

void problem_shuffle(struct problem *p) {
    for (int64_t k = 0; k < p->in_features; k++)
        p->g_idx[k] = (int32_t)random_below((uint32_t)p->groups);
    p->g_idx[0] = (int32_t)p->groups - 1; /* for certain not trivial */
}

void problem_free(struct problem *p) {
    free(p->q);
    free(p->z);
    free(p->s);
    free(p->g_idx);
    free(p->bias);
    *p = (struct problem){0};
}

/* ---- the formats ----------------------------------------------------------------------- */

static void add_common(const struct problem *p, struct safetensors *file, const char *module,
                       const char *g_idx, int flags) {
    if (flags & WITH_G_IDX)
        tensors_add_of(file, module, g_idx, "I32", p->in_features, 0, p->g_idx);
    if (flags & WITH_BIAS)
        tensors_add_of(file, module, "bias", "F16", p->out_features, 0, p->bias);
}

void write_compressed_tensors(const struct problem *p, struct safetensors *file, const char *module,
                              int flags) {
    int64_t n_count = p->out_features, k_count = p->in_features, per = 32 / p->bits;
    int64_t words = (k_count + per - 1) / per, zero_rows = (n_count + per - 1) / per;
    uint32_t *packed = must((size_t)(n_count * words), 4);
    uint32_t *zeros = must((size_t)(zero_rows * p->groups), 4);
    int8_t *bytes = must((size_t)(n_count * p->groups), 1);
    for (int64_t n = 0; n < n_count; n++)
        for (int64_t k = 0; k < k_count; k++)
            packed[n * words + k / per] |= (uint32_t)p->q[n * k_count + k] << k % per * p->bits;
    for (int64_t n = 0; n < n_count; n++)
        for (int64_t g = 0; g < p->groups; g++) {
            uint32_t z = p->z[n * p->groups + g];
            zeros[n / per * p->groups + g] |= z << n % per * p->bits;
            bytes[n * p->groups + g] = (int8_t)((int)z - (1 << (p->bits - 1)));
        }
    int64_t shape[2] = {n_count, k_count};
    tensors_add_of(file, module, "weight_packed", "I32", n_count, words, packed);
    tensors_add_of(file, module, "weight_scale", "F16", n_count, p->groups, p->s);
    if (!(flags & WITHOUT_SHAPE))
        tensors_add_of(file, module, "weight_shape", "I64", 2, 0, shape);
    if (!p->symmetric && (flags & ZEROS_UNPACKED))
        tensors_add_of(file, module, "weight_zero_point", "I8", n_count, p->groups, bytes);
    else if (!p->symmetric)
        tensors_add_of(file, module, "weight_zero_point", "I32", zero_rows, p->groups, zeros);
    add_common(p, file, module, "weight_g_idx", flags);
    free(packed);
    free(zeros);
    free(bytes);
}

/* [G][N] of [N][G]. */
static uint16_t *transposed_scales(const struct problem *p) {
    uint16_t *scales = must((size_t)(p->groups * p->out_features), 2);
    for (int64_t n = 0; n < p->out_features; n++)
        for (int64_t g = 0; g < p->groups; g++)
            scales[g * p->out_features + n] = p->s[n * p->groups + g];
    return scales;
}

void write_gptq(const struct problem *p, struct safetensors *file, const char *module, int flags) {
    int64_t n_count = p->out_features, k_count = p->in_features, per = 32 / p->bits;
    int64_t rows = (k_count + per - 1) / per;
    int64_t columns = flags & ZEROS_SHORT ? n_count / per : (n_count + per - 1) / per;
    uint32_t mask = (1u << p->bits) - 1, ones = 0;
    uint32_t *packed = must((size_t)(rows * n_count), 4);
    uint32_t *zeros = must((size_t)(p->groups * columns), 4);
    uint16_t *scales = transposed_scales(p);
    for (int64_t field = 0; field < per; field++)
        ones |= 1u << field * p->bits;
    for (int64_t n = 0; n < n_count; n++)
        for (int64_t k = 0; k < k_count; k++)
            packed[k / per * n_count + n] |= (uint32_t)p->q[n * k_count + k] << k % per * p->bits;
    for (int64_t n = 0; n < columns * per && n < n_count; n++)
        for (int64_t g = 0; g < p->groups; g++) {
            uint32_t z = p->z[n * p->groups + g];
            if (flags & ZEROS_FIELD)
                z = (z - 1) & mask;
            zeros[g * columns + n / per] |= z << n % per * p->bits;
        }
    for (int64_t i = 0; (flags & ZEROS_WORD) && i < p->groups * columns; i++)
        zeros[i] -= ones;
    tensors_add_of(file, module, "qweight", "I32", rows, n_count, packed);
    tensors_add_of(file, module, "qzeros", "I32", p->groups, columns, zeros);
    tensors_add_of(file, module, "scales", "F16", p->groups, n_count, scales);
    add_common(p, file, module, "g_idx", flags);
    free(packed);
    free(zeros);
    free(scales);
}

void write_awq(const struct problem *p, struct safetensors *file, const char *module, int flags) {
    static const int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    int64_t n_count = p->out_features, k_count = p->in_features, words = n_count / 8;
    uint32_t *packed = must((size_t)(k_count * words), 4);
    uint32_t *zeros = must((size_t)(p->groups * words), 4);
    uint16_t *scales = transposed_scales(p);
    for (int64_t word = 0; word < words; word++)
        for (int field = 0; field < 8; field++) {
            int64_t n = word * 8 + order[field];
            for (int64_t k = 0; k < k_count; k++)
                packed[k * words + word] |= (uint32_t)p->q[n * k_count + k] << 4 * field;
            for (int64_t g = 0; g < p->groups; g++)
                zeros[g * words + word] |= (uint32_t)p->z[n * p->groups + g] << 4 * field;
        }
    tensors_add_of(file, module, "qweight", "I32", k_count, words, packed);
    tensors_add_of(file, module, "qzeros", "I32", p->groups, words, zeros);
    tensors_add_of(file, module, "scales", "F16", p->groups, n_count, scales);
    add_common(p, file, module, "", flags & WITH_BIAS);
    free(packed);
    free(zeros);
    free(scales);
}

/* ---- views ----------------------------------------------------------------------------- */

static uint32_t read_word(const kry_view *view, int64_t index) {
    uint32_t word = 0;
    uint64_t bytes = view->word_bits / 8, offset = (uint64_t)index * bytes;
    assert_true(index >= 0 && offset + bytes <= view->bytes);
    memcpy(&word, (const uint8_t *)view->data + offset, bytes);
    return word;
}

static uint32_t locate(const kry_view *view, int64_t n, int64_t j, int64_t *word) {
    static const uint32_t awq_field_of[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    int64_t p = view->word_bits / view->element_bits;
    n += view->n_begin;
    j += view->j_begin;
    int64_t along = view->pack_axis == KRY_AXIS_K ? j : n;
    int64_t n_word = p > 1 && view->pack_axis == KRY_AXIS_N ? n / p : n;
    int64_t j_word = p > 1 && view->pack_axis == KRY_AXIS_K ? j / p : j;
    uint32_t field = p > 1 ? (uint32_t)(along % p) : 0;
    *word = n_word * view->n_stride + j_word * view->j_stride;
    return view->order == KRY_ORDER_AWQ ? awq_field_of[field] : field;
}

static uint32_t cut(uint32_t word, uint32_t field, uint32_t bits) {
    return bits == 32 ? word : word >> field * bits & ((1u << bits) - 1);
}

uint32_t view_element(const kry_view *view, int64_t n, int64_t j) {
    int64_t word;
    uint32_t field = locate(view, n, j, &word);
    return cut(read_word(view, word), field, view->element_bits);
}

uint32_t view_zero(const kry_view *view, int bits, int64_t n, int64_t j) {
    int64_t index;
    uint32_t field = locate(view, n, j, &index), word = read_word(view, index), ones = 0;
    for (int at = 0; at < 32; at += bits)
        ones |= 1u << at;
    switch (view->zero) {
    case KRY_ZERO_TRUE:
        return cut(word, field, view->element_bits);
    case KRY_ZERO_SIGNED:
        return (uint32_t)((int8_t)word + (1 << (bits - 1)));
    case KRY_ZERO_MINUS_ONE:
        return (cut(word, field, view->element_bits) + 1) % (1u << bits);
    default:
        return cut(word + ones, field, view->element_bits);
    }
}

static void check_description(const struct problem *p, const kry_linear *linear, int64_t n_begin,
                              int64_t n_end, int64_t k_begin, int64_t k_end) {
    kry_linear complete = KRY_INIT(kry_linear);
    assert_int_equal(kry_linear_complete(linear, &complete), KRY_OK);
    assert_memory_equal(&complete, linear, sizeof complete);
    assert_int_equal(linear->in_features, k_end - k_begin);
    assert_int_equal(linear->out_features, n_end - n_begin);
    assert_int_equal(linear->full_in_features, p->in_features);
    assert_int_equal(linear->full_out_features, p->out_features);
    assert_int_equal(linear->k_offset, k_begin);
    assert_int_equal(linear->group_size, p->group_size);
    assert_int_equal(kry_weight_bits(linear->weight_type), p->bits);
    assert_int_equal(linear->scale_type, KRY_TYPE_F16);
}

void check_partition(const struct model *model, const char *name, const struct problem *p,
                     int64_t n_begin, int64_t n_end, int64_t k_begin, int64_t k_end) {
    size_t index;
    kry_slice slice = KRY_INIT(kry_slice);
    slice.n_begin = n_begin;
    slice.n_end = n_end;
    slice.k_begin = k_begin;
    slice.k_end = k_end;
    kry_checkpoint_weights *made = NULL;
    assert_int_equal(kry_checkpoint_find_layer(model->checkpoint, name, &index), KRY_OK);
    if (kry_checkpoint_weights_create(model->checkpoint, index, &slice, &made) != KRY_OK)
        fail_msg("no weights: %s", kry_error_message());
    const kry_linear *linear = made->linear;
    const kry_weights *weights = made->weights;
    check_description(p, linear, n_begin, n_end, k_begin, k_end);
    assert_int_equal(weights->memory, KRY_MEMORY_HOST);
    assert_int_equal(linear->act_order, weights->g_idx != NULL);
    assert_int_equal((uintptr_t)weights->g_idx % _Alignof(int32_t), 0);
    int64_t groups = kry_linear_groups(linear), full = p->groups;
    bool has_zeros = kry_weight_has_zero_points(linear->weight_type);
    assert_int_equal(has_zeros, weights->zero_points != NULL);
    for (int64_t n = 0; n < n_end - n_begin; n++)
        for (int64_t k = 0; k < k_end - k_begin; k++) {
            int64_t group =
                weights->g_idx != NULL ? weights->g_idx[k] : kry_linear_group_of(linear, k);
            int64_t row = n_begin + n, column = k_begin + k;
            int64_t stored = row * full + p->g_idx[column];
            assert_in_range(group, 0, groups - 1);
            assert_int_equal(view_element(weights->qweight, n, k),
                             p->q[row * p->in_features + column]);
            assert_int_equal(view_element(weights->scales, n, group), p->s[stored]);
            if (weights->zero_points != NULL)
                assert_int_equal(view_zero(weights->zero_points, p->bits, n, group), p->z[stored]);
        }
    char bias_name[256];
    kry_tensor bias = KRY_INIT(kry_tensor);
    snprintf(bias_name, sizeof bias_name, "%s.bias", name);
    bool has_bias = kry_checkpoint_find_tensor(model->checkpoint, bias_name, &bias) == KRY_OK;
    assert_int_equal(has_bias, made->bias != NULL);
    if (has_bias) {
        assert_int_equal((uintptr_t)made->bias % 2, 0);
        assert_int_equal(made->bias_dtype, KRY_DTYPE_F16);
        assert_memory_equal(made->bias, p->bias + n_begin, (size_t)(n_end - n_begin) * 2);
    }
    kry_checkpoint_weights_destroy(&made);
    assert_null(made);
}

void check_partitions(const struct model *model, const char *name, const struct problem *p) {
    int64_t n = p->out_features, k = p->in_features;
    check_partition(model, name, p, 0, n, 0, k);
    if (n > 1) {
        check_partition(model, name, p, 0, n / 2, 0, k);
        check_partition(model, name, p, n / 2, n, 0, k);
    }
    if (k > 1) {
        check_partition(model, name, p, 0, n, 0, k / 2);
        check_partition(model, name, p, 0, n, k / 2, k);
    }
    for (int i = 0; i < 24; i++) {
        int64_t n_begin = random_below((uint32_t)n), k_begin = random_below((uint32_t)k);
        int64_t n_end = n_begin + 1 + random_below((uint32_t)(n - n_begin));
        int64_t k_end = k_begin + 1 + random_below((uint32_t)(k - k_begin));
        check_partition(model, name, p, n_begin, n_end, k_begin, k_end);
    }
}
