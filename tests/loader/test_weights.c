/*
 * Views: however a stack holds its tensors, a kernel sees the one canonical layout. The kernel
 * "probe" takes every description and keeps codes, zero points, scales and groups as it was
 * given them, in a buffer of the test's.
 */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mock.h>

typedef struct prepared_probe {
    kry_layer *layer;
    unsigned char *memory;
    mock_layout layout;
    uint64_t bytes;
} prepared_probe;

static int open_probe(void **state) {
    (void)state;
    registry = open_mocks(NULL, "probe.so", NULL);
    return 0;
}

static void make_probe(const kry_linear *linear, prepared_probe *out) {
    kry_device device = find_device(registry, "cpu");
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = linear;
    if (kry_layer_create(registry, &args, &out->layer) != KRY_OK)
        fail_msg("%s", kry_error_message());
    out->layout = mock_layout_of(kry_layer_linear(out->layer, 1));
    kry_sizes sizes = KRY_INIT(kry_sizes);
    assert_int_equal(kry_layer_sizes(out->layer, &sizes), KRY_OK);
    assert_true(sizes.prepared_bytes >= out->layout.bytes);
    out->bytes = sizes.prepared_bytes;
    out->memory =
        aligned_alloc(KRY_ALIGNMENT, (out->bytes + KRY_ALIGNMENT) / KRY_ALIGNMENT * KRY_ALIGNMENT);
    assert_non_null(out->memory);
    memset(out->memory, 0, out->bytes);
}

static void free_probe(prepared_probe *probe) {
    kry_layer_destroy(&probe->layer);
    free(probe->memory);
}

static kry_status prepare(const prepared_probe *probe, const kry_weights *weights) {
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    args.weights = weights;
    args.prepared = probe->memory;
    args.prepared_bytes = probe->bytes;
    args.prepared_memory = KRY_MEMORY_HOST;
    return kry_layer_prepare(probe->layer, &args);
}

static void assert_same(const prepared_probe *probe, const plain_weights *plain) {
    const kry_linear *l = &plain->linear;
    const mock_layout *layout = &probe->layout;
    const unsigned char *p = probe->memory;
    assert_int_equal(layout->groups, plain->groups);
    for (int64_t n = 0; n < l->out_features; n++) {
        if (p[layout->count_at + (uint64_t)n] != 1)
            fail_msg("row %ld was prepared %d times", (long)n, p[layout->count_at + (uint64_t)n]);
        for (int64_t k = 0; k < l->in_features; k++)
            if (p[n * l->in_features + k] != plain->codes[n * l->in_features + k])
                fail_msg("code (%ld, %ld): found %d, expected %d", (long)n, (long)k,
                         p[n * l->in_features + k], plain->codes[n * l->in_features + k]);
        for (int64_t g = 0; g < plain->groups; g++) {
            int64_t at = n * plain->groups + g;
            if (p[layout->zero_at + (uint64_t)at] != plain->zeros[at])
                fail_msg("zero point (%ld, %ld): found %d, expected %d", (long)n, (long)g,
                         p[layout->zero_at + (uint64_t)at], plain->zeros[at]);
            float scale;
            memcpy(&scale, p + layout->scale_at + 4 * at, sizeof scale);
            if (scale != plain->scales[at])
                fail_msg("scale (%ld, %ld): found %g, expected %g", (long)n, (long)g, (double)scale,
                         (double)plain->scales[at]);
        }
    }
    assert_memory_equal(p + layout->group_at, plain->g_idx, 4 * (size_t)l->in_features);
}

static void assert_round_trip(const kry_linear *linear, const storage *how) {
    prepared_probe probe;
    make_probe(linear, &probe);
    plain_weights plain = draw_weights(linear);
    stored_weights stored;
    store_weights(&plain, how, &stored);
    if (prepare(&probe, &stored.weights) != KRY_OK)
        fail_msg("%s", kry_error_message());
    assert_same(&probe, &plain);
    free_stored(&stored);
    free_weights(&plain);
    free_probe(&probe);
}

/* Shapes with rests everywhere: in words, in groups, in prepare_multiple. */
static const int64_t shapes[][3] = {{1, 1, -1},    {7, 3, 4},    {64, 24, 32}, {70, 13, 32},
                                    {129, 50, 64}, {33, 100, 1}, {200, 9, -1}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static void every_packing_and_order_of_weights_is_read(void **state) {
    (void)state;
    static const storage ways[] = {
        {.weight_axis = 0},
        {.weight_axis = 0, .transposed = true},
        {.weight_axis = KRY_AXIS_K},
        {.weight_axis = KRY_AXIS_K, .transposed = true},
        {.weight_axis = KRY_AXIS_K, .word_bits = 8},
        {.weight_axis = KRY_AXIS_K, .word_bits = 16, .transposed = true},
        {.weight_axis = KRY_AXIS_N},
        {.weight_axis = KRY_AXIS_N, .transposed = true},
        {.weight_axis = KRY_AXIS_N, .word_bits = 8, .transposed = true},
        {.weight_axis = KRY_AXIS_N, .word_bits = 16},
    };
    for (uint32_t type = KRY_WEIGHT_U4B8; type <= KRY_WEIGHT_U8; type++)
        for (size_t s = 0; s < SHAPES; s++)
            for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
                kry_linear linear =
                    describe(shapes[s][0], shapes[s][1], shapes[s][2], type, KRY_TYPE_F16);
                bool packed = ways[w].weight_axis != 0;
                if (packed ? kry_weight_bits(type) == 8 && ways[w].word_bits == 8
                           : kry_weight_bits(type) == 4)
                    continue; /* no such thing: a code a byte is 8 bits wide */
                assert_round_trip(&linear, &ways[w]);
            }
}

static void awq_order_is_read_along_both_axes(void **state) {
    (void)state;
    for (uint32_t axis = KRY_AXIS_K; axis <= KRY_AXIS_N; axis++)
        for (size_t s = 0; s < SHAPES; s++) {
            storage how = {.weight_axis = axis,
                           .weight_order = KRY_ORDER_AWQ,
                           .zero_axis = axis,
                           .zero_order = KRY_ORDER_AWQ,
                           .transposed = axis == KRY_AXIS_N};
            kry_linear linear =
                describe(shapes[s][0], shapes[s][1], shapes[s][2], KRY_WEIGHT_U4, KRY_TYPE_F16);
            assert_round_trip(&linear, &how);
        }
}

static void every_encoding_of_zero_points_is_read(void **state) {
    (void)state;
    static const storage ways[] = {
        {.zero_axis = 0, .zero_encoding = KRY_ZERO_TRUE},
        {.zero_axis = 0, .zero_encoding = KRY_ZERO_SIGNED},
        {.zero_axis = KRY_AXIS_K, .zero_encoding = KRY_ZERO_TRUE},
        {.zero_axis = KRY_AXIS_N, .zero_encoding = KRY_ZERO_TRUE},
        {.zero_axis = KRY_AXIS_K, .zero_encoding = KRY_ZERO_MINUS_ONE},
        {.zero_axis = KRY_AXIS_N, .zero_encoding = KRY_ZERO_MINUS_ONE, .transposed = true},
        {.zero_axis = KRY_AXIS_K, .zero_encoding = KRY_ZERO_MINUS_ONE_WORD},
        {.zero_axis = KRY_AXIS_N, .zero_encoding = KRY_ZERO_MINUS_ONE_WORD, .transposed = true},
    };
    for (uint32_t type = KRY_WEIGHT_U4; type <= KRY_WEIGHT_U8; type += 2)
        for (size_t s = 0; s < SHAPES; s++)
            for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
                storage how = ways[w];
                how.weight_axis = KRY_AXIS_K;
                kry_linear linear =
                    describe(shapes[s][0], shapes[s][1], shapes[s][2], type, KRY_TYPE_BF16);
                assert_round_trip(&linear, &how);
            }
}

static void every_scale_type_is_passed_on_in_its_bits(void **state) {
    (void)state;
    for (uint32_t type = KRY_TYPE_F16; type <= KRY_TYPE_F32; type++) {
        kry_linear linear = describe(70, 13, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F16);
        linear.scale_type = type;
        assert_round_trip(&linear, &(storage){.weight_axis = KRY_AXIS_K});
        assert_round_trip(&linear, &(storage){.weight_axis = KRY_AXIS_K, .transposed = true});
    }
}

static void view_may_begin_at_any_offset_of_a_larger_tensor(void **state) {
    (void)state;
    for (int64_t begin = 1; begin < 18; begin += 3)
        for (uint32_t axis = 0; axis <= KRY_AXIS_N; axis++)
            for (uint32_t type = KRY_WEIGHT_U4; type <= KRY_WEIGHT_U8; type += 2) {
                storage how = {.weight_axis = axis,
                               .zero_axis = axis,
                               .n_begin = begin,
                               .k_begin = begin + 1,
                               .g_begin = begin + 2,
                               .transposed = begin % 2 == 0};
                if (axis == 0 && kry_weight_bits(type) == 4)
                    continue;
                if (axis != 0)
                    how.zero_encoding =
                        begin % 2 == 0 ? KRY_ZERO_MINUS_ONE_WORD : KRY_ZERO_MINUS_ONE;
                kry_linear linear = describe(70, 13, 32, type, KRY_TYPE_F16);
                assert_round_trip(&linear, &how);
            }
}

static void view_may_lie_at_any_address(void **state) {
    (void)state;
    for (int64_t misaligned = 1; misaligned < 8; misaligned++)
        for (uint32_t axis = KRY_AXIS_K; axis <= KRY_AXIS_N; axis++) {
            storage how = {.weight_axis = axis, .zero_axis = axis, .misaligned = misaligned};
            kry_linear linear = describe(64, 24, 32, KRY_WEIGHT_U4, KRY_TYPE_F16);
            assert_round_trip(&linear, &how);
        }
}

static void partition_and_act_order_keep_their_groups(void **state) {
    (void)state;
    const storage how = {.weight_axis = KRY_AXIS_K, .zero_axis = KRY_AXIS_N};
    kry_linear linear = describe(100, 12, 64, KRY_WEIGHT_U4, KRY_TYPE_F16);
    linear.full_in_features = 500;
    linear.k_offset = 100;
    assert_round_trip(&linear, &how);
    linear.act_order = 1;
    assert_round_trip(&linear, &how);
}

static void large_weights_come_in_several_ranges(void **state) {
    (void)state;
    /* Groups of one column: 9.9 MB of canonical rows, of which the core holds 8 MiB. */
    kry_linear linear = describe(1000, 1800, 1, KRY_WEIGHT_U4, KRY_TYPE_F32);
    const storage how = {.weight_axis = KRY_AXIS_N, .zero_axis = KRY_AXIS_N, .transposed = true};
    assert_round_trip(&linear, &how);
}

/* ---- views that do not fit ------------------------------------------------------------------ */

typedef struct case_of_view {
    const char *name;
    void (*damage)(stored_weights *stored);
} case_of_view;

#define DAMAGE(name, statement)                                                                    \
    static void damage_##name(stored_weights *s) { statement; }
DAMAGE(bytes_short, s->qweight.bytes -= 1)
DAMAGE(scale_bytes_short, s->scales.bytes -= 1)
DAMAGE(zero_bytes_short, s->zero_points.bytes -= 1)
DAMAGE(no_bytes, s->qweight.bytes = 0)
DAMAGE(no_data, s->qweight.data = NULL)
DAMAGE(no_scale_data, s->scales.data = NULL)
DAMAGE(no_zero_data, s->zero_points.data = NULL)
DAMAGE(negative_n_begin, s->qweight.n_begin = -1)
DAMAGE(negative_j_begin, s->scales.j_begin = -1)
DAMAGE(n_begin_one_too_far, s->qweight.n_begin = 1)
DAMAGE(j_begin_one_too_far, s->scales.j_begin = 1)
DAMAGE(n_begin_overflows, s->qweight.n_begin = INT64_MAX)
DAMAGE(j_begin_overflows, s->qweight.j_begin = INT64_MAX - 3)
DAMAGE(stride_overflows, s->qweight.n_stride = INT64_MAX)
DAMAGE(stride_overflows_in_bytes, s->qweight.j_stride = INT64_MAX / 3)
DAMAGE(negative_stride, s->qweight.n_stride = -s->qweight.n_stride)
DAMAGE(most_negative_stride, s->scales.j_stride = INT64_MIN)
DAMAGE(element_bits_none, s->qweight.element_bits = 0)
DAMAGE(element_bits_odd, s->qweight.element_bits = 5)
DAMAGE(element_bits_of_another_type, s->qweight.element_bits = 8)
DAMAGE(word_bits_none, s->qweight.word_bits = 0)
DAMAGE(word_bits_large, s->qweight.word_bits = 64)
DAMAGE(word_bits_below_element, s->scales.word_bits = 8)
DAMAGE(scale_bits_wrong, s->scales.element_bits = s->scales.word_bits = 32)
DAMAGE(axis_unknown, s->qweight.pack_axis = 3)
DAMAGE(order_unknown, s->qweight.order = 2)
DAMAGE(zero_encoding_unknown, s->zero_points.zero = 4)
DAMAGE(zero_bits_wide, s->zero_points.element_bits = s->zero_points.word_bits = 16)
DAMAGE(reserved_set, s->qweight.reserved = 1)
DAMAGE(no_weights, s->weights.qweight = NULL)
DAMAGE(no_scales, s->weights.scales = NULL)
DAMAGE(no_zeros, s->weights.zero_points = NULL)
DAMAGE(memory_unknown, s->weights.memory = 0)
DAMAGE(g_idx_without_act_order, s->weights.g_idx = (const int32_t *)s->memory[0])
#undef DAMAGE
#define CASE(name)                                                                                 \
    { #name, damage_##name }

static const case_of_view cases[] = {
    CASE(bytes_short),
    CASE(scale_bytes_short),
    CASE(zero_bytes_short),
    CASE(no_bytes),
    CASE(no_data),
    CASE(no_scale_data),
    CASE(no_zero_data),
    CASE(negative_n_begin),
    CASE(negative_j_begin),
    CASE(n_begin_one_too_far),
    CASE(j_begin_one_too_far),
    CASE(n_begin_overflows),
    CASE(j_begin_overflows),
    CASE(stride_overflows),
    CASE(stride_overflows_in_bytes),
    CASE(negative_stride),
    CASE(most_negative_stride),
    CASE(element_bits_none),
    CASE(element_bits_odd),
    CASE(element_bits_of_another_type),
    CASE(word_bits_none),
    CASE(word_bits_large),
    CASE(word_bits_below_element),
    CASE(scale_bits_wrong),
    CASE(axis_unknown),
    CASE(order_unknown),
    CASE(zero_encoding_unknown),
    CASE(zero_bits_wide),
    CASE(reserved_set),
    CASE(no_weights),
    CASE(no_scales),
    CASE(no_zeros),
    CASE(memory_unknown),
    CASE(g_idx_without_act_order),
};

static void view_that_does_not_fit_is_refused_and_nothing_written(void **state) {
    (void)state;
    kry_linear linear = describe(64, 24, 32, KRY_WEIGHT_U4, KRY_TYPE_F16);
    const storage how = {.weight_axis = KRY_AXIS_K, .zero_axis = KRY_AXIS_N};
    prepared_probe probe;
    make_probe(&linear, &probe);
    plain_weights plain = draw_weights(&linear);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        stored_weights stored;
        store_weights(&plain, &how, &stored);
        cases[i].damage(&stored);
        kry_status status = prepare(&probe, &stored.weights);
        if (status != KRY_E_ARGUMENT)
            fail_msg("%s: status %d (%s)", cases[i].name, status, kry_error_message());
        for (uint64_t at = 0; at < probe.bytes; at++)
            if (probe.memory[at] != 0)
                fail_msg("%s: byte %lu was written", cases[i].name, (unsigned long)at);
        free_stored(&stored);
    }
    free_weights(&plain);
    free_probe(&probe);
}

static void zero_points_where_none_belong_are_refused(void **state) {
    (void)state;
    kry_linear with = describe(64, 24, 32, KRY_WEIGHT_U4, KRY_TYPE_F16);
    kry_linear without = describe(64, 24, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F16);
    prepared_probe probe;
    make_probe(&without, &probe);
    plain_weights plain = draw_weights(&with);
    stored_weights stored;
    store_weights(&plain, &(storage){.weight_axis = KRY_AXIS_K}, &stored);
    assert_int_equal(prepare(&probe, &stored.weights), KRY_E_ARGUMENT);
    free_stored(&stored);
    free_weights(&plain);
    free_probe(&probe);
}

static void group_out_of_range_is_refused(void **state) {
    (void)state;
    kry_linear linear = describe(64, 24, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F16);
    linear.act_order = 1;
    prepared_probe probe;
    make_probe(&linear, &probe);
    plain_weights plain = draw_weights(&linear);
    stored_weights stored;
    store_weights(&plain, &(storage){.weight_axis = KRY_AXIS_K}, &stored);
    static const int32_t wrong[] = {2, -1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        plain.g_idx[63] = wrong[i];
        assert_int_equal(prepare(&probe, &stored.weights), KRY_E_ARGUMENT);
        assert_non_null(strstr(kry_error_message(), "63"));
    }
    stored.weights.g_idx = NULL;
    assert_int_equal(prepare(&probe, &stored.weights), KRY_E_ARGUMENT);
    assert_int_equal(probe.memory[probe.layout.count_at], 0);
    free_stored(&stored);
    free_weights(&plain);
    free_probe(&probe);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_packing_and_order_of_weights_is_read),
        cmocka_unit_test(awq_order_is_read_along_both_axes),
        cmocka_unit_test(every_encoding_of_zero_points_is_read),
        cmocka_unit_test(every_scale_type_is_passed_on_in_its_bits),
        cmocka_unit_test(view_may_begin_at_any_offset_of_a_larger_tensor),
        cmocka_unit_test(view_may_lie_at_any_address),
        cmocka_unit_test(partition_and_act_order_keep_their_groups),
        cmocka_unit_test(large_weights_come_in_several_ranges),
        cmocka_unit_test(view_that_does_not_fit_is_refused_and_nothing_written),
        cmocka_unit_test(zero_points_where_none_belong_are_refused),
        cmocka_unit_test(group_out_of_range_is_refused),
    };
    return cmocka_run_group_tests_name("loader weights", tests, open_probe, close_registry) ? 1 : 0;
}
