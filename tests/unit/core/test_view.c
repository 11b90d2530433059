/*
 * Views and the canonical layout. Expected codes come from a plain array that the test packs
 * itself, once for every way of packing.
 */
#include "core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 37, COLUMNS = 61 }; /* of the stored tensor */

struct packing {
    uint32_t bits, word_bits, axis, order;
};

static const struct packing packings[] = {
    {4, 32, KRY_AXIS_K, KRY_ORDER_SEQUENTIAL}, {4, 32, KRY_AXIS_N, KRY_ORDER_SEQUENTIAL},
    {4, 32, KRY_AXIS_N, KRY_ORDER_AWQ},        {4, 32, KRY_AXIS_K, KRY_ORDER_AWQ},
    {4, 8, KRY_AXIS_K, KRY_ORDER_SEQUENTIAL},  {4, 16, KRY_AXIS_N, KRY_ORDER_SEQUENTIAL},
    {8, 32, KRY_AXIS_K, KRY_ORDER_SEQUENTIAL}, {8, 32, KRY_AXIS_N, KRY_ORDER_SEQUENTIAL},
    {8, 8, 0, KRY_ORDER_SEQUENTIAL},
};

static uint32_t code_at(int64_t n, int64_t k, uint32_t bits) {
    uint32_t hash = (uint32_t)(n * 2654435761 + k * 40503 + 12345);
    hash ^= hash >> 13;
    hash *= 2246822519u;
    return (hash >> 9) & ((1u << bits) - 1);
}

/* Pack the whole tensor [ROWS, COLUMNS] at `memory`, words in rows or in columns first. */
static void pack(const struct packing *p, bool transposed, unsigned char *memory, kry_view *view) {
    static const int awq[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    int64_t per = p->word_bits / p->bits;
    int64_t rows = p->axis == KRY_AXIS_N ? (ROWS + per - 1) / per : ROWS;
    int64_t columns = p->axis == KRY_AXIS_N || per == 1 ? COLUMNS : (COLUMNS + per - 1) / per;
    *view = KRY_INIT(kry_view);
    view->data = memory;
    view->bytes = (uint64_t)(rows * columns) * (p->word_bits / 8);
    view->n_stride = transposed ? 1 : columns;
    view->j_stride = transposed ? rows : 1;
    view->element_bits = p->bits;
    view->word_bits = p->word_bits;
    view->pack_axis = p->axis;
    view->order = p->order;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            uint32_t word = 0;
            for (int64_t f = 0; f < per; f++) {
                int64_t e = p->order == KRY_ORDER_AWQ ? awq[f] : f;
                int64_t n = p->axis == KRY_AXIS_N ? r * per + e : r;
                int64_t k = p->axis == KRY_AXIS_N || per == 1 ? c : c * per + e;
                word |= code_at(n, k, p->bits) << (uint32_t)f * p->bits;
            }
            memcpy(memory + (r * view->n_stride + c * view->j_stride) * (p->word_bits / 8), &word,
                   p->word_bits / 8);
        }
}

static void canonicalise_every_packing_and_offset(void **state) {
    (void)state;
    unsigned char *memory = malloc(ROWS * COLUMNS * 4 + 64);
    float scales[ROWS * 8];
    for (size_t p = 0; p < sizeof packings / sizeof packings[0]; p++)
        for (int64_t offset = 0; offset < 19; offset += 3)
            for (int variant = 0; variant < 8; variant++) {
                kry_view codes, scale = KRY_INIT(kry_view);
                /* variant: transposed, misaligned by a byte, passed through where possible */
                pack(&packings[p], variant & 1, memory + (variant & 2 ? 1 : 0), &codes);
                codes.n_begin = offset;
                codes.j_begin = offset;
                scale.data = scales;
                scale.bytes = sizeof scales;
                scale.n_stride = scale.j_stride = 1;
                scale.element_bits = scale.word_bits = 32;
                kry_linear linear = KRY_INIT(kry_linear);
                linear.in_features = linear.full_in_features = COLUMNS - offset;
                linear.out_features = linear.full_out_features = ROWS - offset;
                linear.group_size = -1;
                linear.weight_type = packings[p].bits == 4 ? KRY_WEIGHT_U4B8 : KRY_WEIGHT_U8B128;
                linear.x_type = linear.y_type = linear.scale_type = KRY_TYPE_F32;
                kry_weights weights = KRY_INIT(kry_weights);
                weights.qweight = &codes;
                weights.scales = &scale;
                weights.memory = KRY_MEMORY_HOST;
                assert_int_equal(core_weights_check(&linear, &weights), KRY_OK);
                void *buffer = malloc(core_canonical_bytes(&linear, ROWS));
                struct canonical_buffers buffers;
                kry_canonical rows;
                core_canonical_place(&linear, ROWS, buffer, &buffers);
                core_canonicalise(&linear, &linear, &weights, 1, ROWS - offset, &buffers, NULL,
                                  variant & 4, &rows);
                uint32_t bits = packings[p].bits, per = 32 / bits;
                for (int64_t n = 1; n < linear.out_features; n++)
                    for (int64_t k = 0; k < linear.in_features; k++) {
                        uint32_t word = rows.qweight[(n - 1) * rows.qweight_stride + k / per];
                        assert_int_equal(word >> (uint32_t)(k % per) * bits & ((1u << bits) - 1),
                                         code_at(n + offset, k + offset, bits));
                    }
                free(buffer);
            }
    free(memory);
}

static void canonical_tensor_is_passed_through(void **state) {
    (void)state;
    uint32_t codes[4][2] = {{1, 2}, {3, 4}, {5, 6}, {7, 8}};
    uint16_t scales[4][2] = {{1, 2}, {3, 4}, {5, 6}, {7, 8}};
    kry_view code = KRY_INIT(kry_view), scale = KRY_INIT(kry_view);
    code = (kry_view){sizeof code, codes, sizeof codes, 2, 1, 0, 0, 4, 32, KRY_AXIS_K, 0, 0, 0};
    scale = (kry_view){sizeof scale, scales, sizeof scales, 2, 1, 0, 0, 16, 16, 0, 0, 0, 0};
    kry_linear linear = KRY_INIT(kry_linear), split;
    linear.in_features = linear.full_in_features = 12;
    linear.out_features = linear.full_out_features = 4;
    linear.group_size = 8;
    linear.weight_type = KRY_WEIGHT_U4B8;
    linear.x_type = linear.y_type = linear.scale_type = KRY_TYPE_F16;
    kry_weights weights = {sizeof weights, &code, &scale, NULL, NULL, KRY_MEMORY_HOST, 0};
    uint32_t room[64];
    struct canonical_buffers buffers = {room, room + 32, NULL};
    kry_canonical rows;
    core_canonicalise(&linear, &linear, &weights, 2, 4, &buffers, NULL, true, &rows);
    assert_ptr_equal(rows.qweight, codes[2]);
    assert_ptr_equal(rows.scales, scales[2]);
    core_canonicalise(&linear, &linear, &weights, 2, 4, &buffers, NULL, false, &rows);
    assert_ptr_equal(rows.qweight, room);
    /* Split into groups of 4: columns 0-3 and 4-7 repeat the first scale, 8-11 have the next. */
    split = linear;
    split.group_size = 4;
    core_canonicalise(&linear, &split, &weights, 2, 4, &buffers, NULL, true, &rows);
    const uint16_t *repeated = rows.scales;
    const uint16_t expected[6] = {5, 5, 6, 7, 7, 8};
    assert_memory_equal(repeated, expected, sizeof expected);
}

static void zero_points_in_every_encoding(void **state) {
    (void)state;
    kry_view view = KRY_INIT(kry_view);
    /* Fields 0..7 of a word, GPTQModel's rule: true zeros 3,0,15,0,0,9,1,8 minus 1 in each
     * field of the whole word, borrowing. */
    const uint32_t truth[8] = {3, 0, 15, 0, 0, 9, 1, 8};
    uint32_t plain = 0, by_field = 0;
    for (uint32_t f = 0; f < 8; f++) {
        plain |= truth[f] << 4 * f;
        by_field |= ((truth[f] - 1) & 15) << 4 * f;
    }
    uint32_t by_word = plain - 0x11111111u;
    view = (kry_view){sizeof view, &plain, 4, 1, 1, 0, 0, 4, 32, KRY_AXIS_N, 0, 0, 0};
    for (int64_t n = 0; n < 8; n++) {
        view.data = &plain;
        view.zero = KRY_ZERO_TRUE;
        assert_int_equal(core_view_zero(&view, 4, n, 0), truth[n]);
        view.data = &by_field;
        view.zero = KRY_ZERO_MINUS_ONE;
        assert_int_equal(core_view_zero(&view, 4, n, 0), truth[n]);
        view.data = &by_word;
        view.zero = KRY_ZERO_MINUS_ONE_WORD;
        assert_int_equal(core_view_zero(&view, 4, n, 0), truth[n]);
    }
    const int8_t stored[3] = {-8, 0, 7};
    view = (kry_view){sizeof view, stored, 3, 1, 1, 0, 0, 8, 8, 0, 0, KRY_ZERO_SIGNED, 0};
    assert_int_equal(core_view_zero(&view, 4, 0, 0), 0);
    assert_int_equal(core_view_zero(&view, 4, 1, 0), 8);
    assert_int_equal(core_view_zero(&view, 4, 2, 0), 15);
    const int8_t wide[3] = {-128, 0, 127};
    view.data = wide;
    assert_int_equal(core_view_zero(&view, 8, 0, 0), 0);
    assert_int_equal(core_view_zero(&view, 8, 1, 0), 128);
    assert_int_equal(core_view_zero(&view, 8, 2, 0), 255);
}

struct broken {
    uint32_t codes[4][2];
    uint16_t scales[4][2];
    uint8_t zeros[4][2];
    kry_view code, scale, zero;
    int32_t g_idx[12];
    kry_linear linear;
    kry_weights weights;
};

static void make(struct broken *b) {
    memset(b, 0, sizeof *b);
    b->code = (kry_view){
        sizeof b->code, b->codes, sizeof b->codes, 2, 1, 0, 0, 4, 32, KRY_AXIS_K, 0, 0, 0};
    b->scale =
        (kry_view){sizeof b->scale, b->scales, sizeof b->scales, 2, 1, 0, 0, 16, 16, 0, 0, 0, 0};
    b->zero = (kry_view){sizeof b->zero, b->zeros, sizeof b->zeros, 2, 1, 0, 0, 8, 8, 0, 0, 0, 0};
    b->linear = KRY_INIT(kry_linear);
    b->linear.in_features = b->linear.full_in_features = 12;
    b->linear.out_features = b->linear.full_out_features = 4;
    b->linear.group_size = 8;
    b->linear.weight_type = KRY_WEIGHT_U4;
    b->linear.x_type = b->linear.y_type = b->linear.scale_type = KRY_TYPE_F16;
    b->weights =
        (kry_weights){sizeof b->weights, &b->code, &b->scale, &b->zero, NULL, KRY_MEMORY_HOST, 0};
}

#define ASSERT_BROKEN(change, words)                                                               \
    do {                                                                                           \
        struct broken b;                                                                           \
        make(&b);                                                                                  \
        assert_int_equal(core_weights_check(&b.linear, &b.weights), KRY_OK);                       \
        change;                                                                                    \
        assert_int_equal(core_weights_check(&b.linear, &b.weights), KRY_E_ARGUMENT);               \
        assert_non_null(strstr(kry_error_message(), words));                                       \
    } while (0)

static void view_that_does_not_fit_is_refused(void **state) {
    (void)state;
    ASSERT_BROKEN(b.weights.qweight = NULL, "qweight is missing");
    ASSERT_BROKEN(b.weights.scales = NULL, "scales is missing");
    ASSERT_BROKEN(b.weights.zero_points = NULL, "zero_points is missing");
    ASSERT_BROKEN(b.weights.memory = 0, "memory");
    ASSERT_BROKEN(b.code.data = NULL, "qweight: data");
    ASSERT_BROKEN(b.code.bytes = 31, "reaches byte 32, the tensor has 31");
    ASSERT_BROKEN(b.code.n_begin = 1, "reaches byte 40");
    ASSERT_BROKEN(b.code.j_begin = 5, "reaches byte 36");
    ASSERT_BROKEN(b.code.n_stride = INT64_MAX / 2, "reaches byte");
    ASSERT_BROKEN(b.code.n_begin = INT64_MAX, "reaches byte");
    ASSERT_BROKEN(b.code.n_stride = -1, "negative");
    ASSERT_BROKEN(b.code.j_begin = -1, "negative");
    ASSERT_BROKEN(b.code.element_bits = 8, "element_bits");
    ASSERT_BROKEN(b.code.element_bits = 0, "element_bits");
    ASSERT_BROKEN(b.code.word_bits = 64, "word_bits");
    ASSERT_BROKEN(b.code.pack_axis = 3, "pack_axis");
    ASSERT_BROKEN(b.code.order = 2, "order");
    ASSERT_BROKEN(b.code.reserved = 1, "reserved");
    ASSERT_BROKEN(b.weights.reserved = 1, "reserved");
    ASSERT_BROKEN(b.zero.order = KRY_ORDER_AWQ, "order");
    ASSERT_BROKEN(b.scale.element_bits = 32, "scales: element_bits");
    ASSERT_BROKEN(b.scale.word_bits = 32, "word_bits");
    ASSERT_BROKEN(b.scale.bytes = 15, "scales: [4, 2] reaches byte 16");
    ASSERT_BROKEN(b.zero.zero = 4, "encoding");
    ASSERT_BROKEN(b.zero.zero = KRY_ZERO_MINUS_ONE_WORD, "borrow");
    ASSERT_BROKEN(b.zeros[3][1] = 16, "zero_points[3, 1] is 16");
    ASSERT_BROKEN((b.zero.zero = KRY_ZERO_SIGNED, b.zeros[0][1] = 8), "zero_points[0, 1]");
    ASSERT_BROKEN(b.linear.weight_type = KRY_WEIGHT_U4B8, "has none");
    ASSERT_BROKEN(b.linear.act_order = 1, "g_idx is missing");
    ASSERT_BROKEN(b.weights.g_idx = b.g_idx, "no act_order");
    ASSERT_BROKEN((b.linear.act_order = 1, b.weights.g_idx = b.g_idx, b.g_idx[11] = 2),
                  "g_idx[11] is 2");
    ASSERT_BROKEN((b.linear.act_order = 1, b.weights.g_idx = b.g_idx, b.g_idx[0] = -1),
                  "g_idx[0] is -1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canonicalise_every_packing_and_offset),
        cmocka_unit_test(canonical_tensor_is_passed_through),
        cmocka_unit_test(zero_points_in_every_encoding),
        cmocka_unit_test(view_that_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
