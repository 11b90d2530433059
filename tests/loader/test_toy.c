/*
 * A platform with device memory of its own. Its pointers cannot be followed by the host, so
 * code of the core that does so faults; and its operations refuse pointers of a wrong kind.
 */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>

#include <mock.h>

/* The stored weights as they would lie on the device already. */
static void move_to_device(stored_weights *stored) {
    stored->qweight.data = mock_tag(stored->qweight.data);
    stored->scales.data = mock_tag(stored->scales.data);
    if (stored->weights.zero_points != NULL)
        stored->zero_points.data = mock_tag(stored->zero_points.data);
    if (stored->weights.g_idx != NULL)
        stored->weights.g_idx = mock_tag(stored->weights.g_idx);
    stored->weights.memory = KRY_MEMORY_DEVICE;
}

/* The arguments of a preparation of the layer's weights, and its sizes. */
static kry_prepare_args arguments_of(const applied_layer *layer, kry_sizes *sizes) {
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    *sizes = KRY_INIT(kry_sizes);
    assert_int_equal(kry_layer_sizes(layer->layer, sizes), KRY_OK);
    args.weights = &layer->stored.weights;
    return args;
}

static void assert_applies(applied_layer *layer, mock_stream *stream) {
    poison(layer);
    layer->args.stream = stream;
    if (kry_layer_apply(layer->layer, &layer->args) != KRY_OK)
        fail_msg("%s", kry_error_message());
    assert_true(error_of(layer) < 1e-6);
}

static void assert_prepares(applied_layer *layer, mock_stream *stream) {
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    args.weights = &layer->stored.weights;
    args.stream = stream;
    if (kry_layer_prepare(layer->layer, &args) != KRY_OK)
        fail_msg("%s", kry_error_message());
}

static void host_weights_are_prepared_on_the_device(void **state) {
    (void)state;
    kry_linear linear = toy_shard();
    applied_layer layer;
    make_on_toy(&linear, &layer);
    mock_stream stream = {0};
    assert_prepares(&layer, &stream);
    assert_true(stream.copies > 0);
    assert_int_equal(stream.canonical_rows, 0);
    assert_applies(&layer, &stream);
    assert_int_equal(stream.applies, 1);
    free_layer(&layer);
}

static void device_weights_are_prepared_where_they_lie(void **state) {
    (void)state;
    for (uint32_t act_order = 0; act_order < 2; act_order++) {
        kry_linear linear = toy_shard();
        linear.act_order = act_order;
        applied_layer layer;
        make_on_toy(&linear, &layer);
        move_to_device(&layer.stored);
        mock_stream stream = {0};
        assert_prepares(&layer, &stream);
        assert_int_equal(stream.canonical_rows, 24);
        assert_int_equal(stream.copies, 0);
        assert_applies(&layer, &stream);
        free_layer(&layer);
    }
}

static void device_weights_pass_through_a_rewrite(void **state) {
    (void)state;
    kry_linear linear = toy_shard();
    const char *paths[2] = {mock_path("toy_platform.so"), mock_path("toy_kernel.so")};
    const char *disable[] = {"toy_dense"};
    kry_registry_options options = closed_options(paths, 2);
    options.disable = disable;
    options.disable_count = 1;
    kry_registry *kept = registry;
    registry = open_options(options, NULL);
    for (int on_device = 0; on_device < 2; on_device++) {
        applied_layer layer;
        make_on_toy(&linear, &layer);
        assert_int_equal(kry_layer_linear(layer.layer, 1)->group_size, 32);
        assert_int_equal(kry_layer_linear(layer.layer, 0)->group_size, 64);
        if (on_device)
            move_to_device(&layer.stored);
        mock_stream stream = {0};
        assert_prepares(&layer, &stream);
        assert_applies(&layer, &stream);
        free_layer(&layer);
    }
    kry_registry_close(&registry);
    registry = kept;
}

static void reload_on_the_device_stays_at_its_address(void **state) {
    (void)state;
    kry_linear linear = toy_shard();
    applied_layer layer;
    make_on_toy(&linear, &layer);
    kry_sizes sizes;
    kry_prepare_args args = arguments_of(&layer, &sizes);
    unsigned char *memory = make_room(sizes.prepared_bytes);
    args.prepared = mock_tag(memory);
    args.prepared_bytes = sizes.prepared_bytes;
    args.prepared_memory = KRY_MEMORY_DEVICE;
    assert_int_equal(kry_layer_prepare(layer.layer, &args), KRY_OK);
    assert_applies(&layer, NULL);
    mock_layout layout = mock_layout_of(&layer.plain.linear);
    unsigned char before = memory[layout.count_at];
    for (size_t i = 0; i < 24 * 352; i++)
        layer.plain.codes[i] = 15 - layer.plain.codes[i];
    free_stored(&layer.stored);
    store_weights(&layer.plain, &(storage){.weight_axis = KRY_AXIS_N, .zero_axis = KRY_AXIS_K},
                  &layer.stored);
    move_to_device(&layer.stored);
    assert_prepares(&layer, NULL); /* names no buffer: the same place again */
    assert_int_equal(memory[layout.count_at], before + 1);
    assert_applies(&layer, NULL);
    free_layer(&layer);
    free(memory);
}

static void scratch_of_the_caller_lies_on_the_device(void **state) {
    (void)state;
    kry_linear linear = toy_shard();
    applied_layer layer;
    make_on_toy(&linear, &layer);
    kry_sizes sizes;
    kry_prepare_args args = arguments_of(&layer, &sizes);
    void *scratch = make_room(sizes.prepare_scratch_bytes);
    args.scratch = mock_tag(scratch);
    args.scratch_bytes = sizes.prepare_scratch_bytes;
    for (int on_device = 0; on_device < 2; on_device++) {
        if (on_device)
            move_to_device(&layer.stored);
        if (kry_layer_prepare(layer.layer, &args) != KRY_OK)
            fail_msg("%s", kry_error_message());
        memset(scratch, 0xee, sizes.prepare_scratch_bytes);
        assert_applies(&layer, NULL);
    }
    free_layer(&layer);
    free(scratch);
}

/* The toy refuses to copy into scratch that does not lie on it. */
static void platform_that_fails_is_told_with_its_reason(void **state) {
    (void)state;
    kry_linear linear = toy_shard();
    applied_layer layer;
    make_on_toy(&linear, &layer);
    kry_sizes sizes;
    kry_prepare_args args = arguments_of(&layer, &sizes);
    args.scratch = make_room(sizes.prepare_scratch_bytes);
    args.scratch_bytes = sizes.prepare_scratch_bytes;
    assert_int_equal(kry_layer_prepare(layer.layer, &args), KRY_E_ARGUMENT);
    if (strstr(kry_error_message(), ": copy: a pointer is not of the memory it is said to be") ==
        NULL)
        fail_msg("%s", kry_error_message());
    free_layer(&layer);
    free(args.scratch);
}

static void scratch_of_the_layer_is_released_after_the_stream_has_passed(void **state) {
    (void)state;
    kry_linear linear = toy_shard();
    applied_layer layer;
    make_on_toy(&linear, &layer);
    mock_stream stream = {0};
    assert_prepares(&layer, &stream);
    assert_true(stream.waits > 0);
    free_layer(&layer);
}

static void weights_for_a_hypothetical_toy_are_prepared_in_host_memory(void **state) {
    (void)state;
    kry_linear linear = toy_shard();
    applied_layer layer;
    make_layer(registry, "toy:toy_1", &linear, 2, &layer);
    mock_stream stream = {0};
    assert_prepares(&layer, &stream);
    assert_int_equal(stream.copies, 0);
    assert_int_equal(kry_layer_apply(layer.layer, &layer.args), KRY_E_DEVICE);
    assert_true(untouched(&layer));
    free_layer(&layer);
}

static void weights_prepared_in_host_memory_are_not_applied_on_a_device(void **state) {
    (void)state;
    kry_linear linear = toy_shard();
    applied_layer layer;
    make_on_toy(&linear, &layer);
    kry_sizes sizes;
    kry_prepare_args args = arguments_of(&layer, &sizes);
    args.prepared = make_room(sizes.prepared_bytes);
    args.prepared_bytes = sizes.prepared_bytes;
    args.prepared_memory = KRY_MEMORY_HOST;
    if (kry_layer_prepare(layer.layer, &args) == KRY_OK) {
        mock_stream stream = {0};
        layer.args.stream = &stream;
        kry_status status = kry_layer_apply(layer.layer, &layer.args);
        if (status != KRY_E_STATE && status != KRY_E_ARGUMENT)
            fail_msg("status %d", status);
        if (strstr(kry_error_message(), "kernel toy_kernel/") != NULL)
            fail_msg("the kernel was called: %s", kry_error_message());
    }
    assert_true(untouched(&layer));
    free_layer(&layer);
    free(args.prepared);
}

static void device_memory_without_a_platform_plugin_is_unsupported(void **state) {
    (void)state;
    kry_registry *alone = open_mocks(NULL, "toy_kernel.so", NULL);
    kry_linear linear = toy_shard();
    kry_device device = find_device(registry, "toy"); /* known from elsewhere */
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    kry_layer *layer = NULL;
    assert_int_equal(kry_layer_create(alone, &args, &layer), KRY_OK);
    plain_weights plain = draw_weights(&linear);
    stored_weights stored;
    store_weights(&plain, &(storage){.weight_axis = KRY_AXIS_K}, &stored);
    kry_prepare_args prepare = KRY_INIT(kry_prepare_args);
    prepare.weights = &stored.weights;
    kry_status status = kry_layer_prepare(layer, &prepare);
    assert_true(status == KRY_E_UNSUPPORTED || status == KRY_E_MEMORY);
    move_to_device(&stored);
    status = kry_layer_prepare(layer, &prepare);
    assert_true(status == KRY_E_UNSUPPORTED || status == KRY_E_MEMORY);
    kry_layer_destroy(&layer);
    free_stored(&stored);
    free_weights(&plain);
    kry_registry_close(&alone);
}

static void device_weights_on_a_cpu_are_refused(void **state) {
    (void)state;
    kry_registry *cpu = open_mocks(NULL, "dense.so", NULL);
    kry_linear linear = toy_shard();
    applied_layer layer;
    make_layer(cpu, "cpu", &linear, 2, &layer);
    move_to_device(&layer.stored);
    kry_status status = prepare_layer(&layer);
    assert_true(status == KRY_E_UNSUPPORTED || status == KRY_E_ARGUMENT);
    free_layer(&layer);
    kry_registry_close(&cpu);
}

static void device_out_of_memory_is_an_error(void **state) {
    (void)state;
    kry_linear linear = describe(1 << 20, 2048, -1, KRY_WEIGHT_U4B8, KRY_TYPE_F32);
    kry_device device = find_device(registry, "toy");
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    kry_layer *layer = NULL;
    assert_int_equal(kry_layer_create(registry, &args, &layer), KRY_OK);
    /* Device views are not read before memory is there, so these may point to nothing. */
    kry_view codes = KRY_INIT(kry_view), scales = KRY_INIT(kry_view);
    codes.data = scales.data = mock_tag(NULL);
    codes.bytes = scales.bytes = UINT64_C(1) << 40;
    codes.n_stride = 1 << 17;
    codes.j_stride = scales.n_stride = scales.j_stride = 1;
    codes.element_bits = 4;
    codes.word_bits = scales.element_bits = scales.word_bits = 32;
    codes.pack_axis = KRY_AXIS_K;
    kry_weights weights = KRY_INIT(kry_weights);
    weights.qweight = &codes;
    weights.scales = &scales;
    weights.memory = KRY_MEMORY_DEVICE;
    kry_prepare_args prepare = KRY_INIT(kry_prepare_args);
    prepare.weights = &weights;
    assert_int_equal(kry_layer_prepare(layer, &prepare), KRY_E_MEMORY);
    kry_layer_destroy(&layer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_weights_are_prepared_on_the_device),
        cmocka_unit_test(device_weights_are_prepared_where_they_lie),
        cmocka_unit_test(device_weights_pass_through_a_rewrite),
        cmocka_unit_test(reload_on_the_device_stays_at_its_address),
        cmocka_unit_test(scratch_of_the_caller_lies_on_the_device),
        cmocka_unit_test(platform_that_fails_is_told_with_its_reason),
        cmocka_unit_test(scratch_of_the_layer_is_released_after_the_stream_has_passed),
        cmocka_unit_test(weights_for_a_hypothetical_toy_are_prepared_in_host_memory),
        cmocka_unit_test(weights_prepared_in_host_memory_are_not_applied_on_a_device),
        cmocka_unit_test(device_memory_without_a_platform_plugin_is_unsupported),
        cmocka_unit_test(device_weights_on_a_cpu_are_refused),
        cmocka_unit_test(device_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests_name("loader toy", tests, open_toy, close_registry) ? 1 : 0;
}
