/*
 * What a layer promises its caller: states, workspaces, strides, sizes of structs, lifetimes.
 */
#include "fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void apply_computes_with_and_without_bias(void **state) {
    (void)state;
    applied_layer layer;
    make_prepared(5, &layer);
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_true(error_of(&layer) < 1e-6);
    layer.args.bias = NULL;
    poison(&layer);
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_true(error_of(&layer) < 1e-6);
    free_layer(&layer);
}

static void apply_before_prepare_is_out_of_order(void **state) {
    (void)state;
    applied_layer layer;
    make_small(2, &layer);
    assert_apply_refused(&layer, KRY_E_STATE);
    free_layer(&layer);
}

static void apply_with_too_small_a_workspace_is_refused(void **state) {
    (void)state;
    applied_layer layer;
    make_prepared(3, &layer);
    const kry_apply_args good = layer.args;
    layer.args.scratch_bytes -= 1;
    assert_apply_refused(&layer, KRY_E_WORKSPACE);
    layer.args = good;
    layer.args.zeroed_bytes -= 1;
    assert_apply_refused(&layer, KRY_E_WORKSPACE);
    layer.args = good;
    layer.args.scratch = NULL;
    assert_apply_refused(&layer, KRY_E_WORKSPACE);
    layer.args = good;
    layer.args.zeroed = NULL;
    assert_apply_refused(&layer, KRY_E_WORKSPACE);
    layer.args = good;
    layer.args.scratch = (char *)good.scratch + 8;
    assert_apply_refused(&layer, KRY_E_WORKSPACE);
    layer.args = good;
    assert_int_equal(apply_layer(&layer), KRY_OK);
    free_layer(&layer);
}

static void workspace_never_shrinks_as_m_grows(void **state) {
    (void)state;
    applied_layer layer;
    make_small(1, &layer);
    kry_workspace before = KRY_INIT(kry_workspace);
    for (int64_t m = 0; m < 100; m++) {
        kry_workspace now = KRY_INIT(kry_workspace);
        assert_int_equal(kry_layer_workspace(layer.layer, m, &now), KRY_OK);
        assert_true(now.scratch_bytes >= before.scratch_bytes);
        assert_true(now.zeroed_bytes >= before.zeroed_bytes);
        before = now;
    }
    assert_int_equal(kry_layer_workspace(layer.layer, -1, &before), KRY_E_ARGUMENT);
    assert_int_equal(kry_layer_workspace(layer.layer, 1, NULL), KRY_E_ARGUMENT);
    assert_int_equal(kry_layer_workspace(NULL, 1, &before), KRY_E_ARGUMENT);
    free_layer(&layer);
}

static void apply_of_no_rows_does_nothing(void **state) {
    (void)state;
    applied_layer layer;
    make_prepared(2, &layer);
    kry_apply_args args = KRY_INIT(kry_apply_args);
    assert_int_equal(kry_layer_apply(layer.layer, &args), KRY_OK);
    free_layer(&layer);
}

static void apply_of_wrong_counts_pointers_and_strides_is_refused(void **state) {
    (void)state;
    applied_layer layer;
    make_prepared(3, &layer);
    const kry_apply_args good = layer.args;
    const struct {
        int64_t m, x_stride, y_stride;
    } wrong[] = {{-1, 0, 0},  {INT64_MIN, 0, 0}, {INT64_MAX, 0, 0},
                 {3, 69, 0},  {3, -70, 0},       {3, 0, 12},
                 {3, 0, -13}, {3, INT64_MAX, 0}, {3, 0, INT64_MAX / 2}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        kry_apply_args args = good;
        args.m = wrong[i].m;
        args.x_stride = wrong[i].x_stride;
        args.y_stride = wrong[i].y_stride;
        if (kry_layer_apply(layer.layer, &args) != KRY_E_ARGUMENT)
            fail_msg("case %zu is not refused", i);
        assert_true(untouched(&layer));
    }
    layer.args.x = NULL;
    assert_apply_refused(&layer, KRY_E_ARGUMENT);
    layer.args = good;
    layer.args.y = NULL;
    assert_apply_refused(&layer, KRY_E_ARGUMENT);
    assert_int_equal(kry_layer_apply(layer.layer, NULL), KRY_E_ARGUMENT);
    assert_int_equal(kry_layer_apply(NULL, &good), KRY_E_ARGUMENT);
    free_layer(&layer);
}

static void apply_keeps_to_strides(void **state) {
    (void)state;
    enum { M = 3, X_STRIDE = 77, Y_STRIDE = 20 };
    applied_layer layer;
    make_prepared(M, &layer);
    float x[M * X_STRIDE], y[M * Y_STRIDE];
    for (int i = 0; i < M * X_STRIDE; i++)
        x[i] = NAN; /* what lies between K and the stride is not read */
    for (int row = 0; row < M; row++)
        memcpy(x + row * X_STRIDE, layer.x + row * 70, 70 * sizeof(float));
    memset(y, 0xff, sizeof y);
    layer.args.x = x;
    layer.args.y = y;
    layer.args.x_stride = X_STRIDE;
    layer.args.y_stride = Y_STRIDE;
    assert_int_equal(apply_layer(&layer), KRY_OK);
    for (int row = 0; row < M; row++) {
        memcpy(layer.y + row * 13, y + row * Y_STRIDE, 13 * sizeof(float));
        for (int n = 13; n < Y_STRIDE; n++)
            assert_true(isnan(y[row * Y_STRIDE + n]));
    }
    assert_true(error_of(&layer) < 1e-6);
    free_layer(&layer);
}

static void single_row_may_have_any_stride(void **state) {
    (void)state;
    applied_layer layer;
    make_prepared(1, &layer);
    layer.args.x_stride = 1;
    layer.args.y_stride = 5;
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_true(error_of(&layer) < 1e-6);
    free_layer(&layer);
}

static void struct_of_a_wrong_size_is_refused(void **state) {
    (void)state;
    applied_layer layer;
    make_prepared(2, &layer);
    struct {
        kry_apply_args args;
        uint64_t future[2];
    } large = {.args = layer.args};
    large.args.struct_size = 8;
    assert_int_equal(kry_layer_apply(layer.layer, &large.args), KRY_E_ABI);
    large.args.struct_size = 0;
    assert_int_equal(kry_layer_apply(layer.layer, &large.args), KRY_E_ABI);
    large.args.struct_size = sizeof large;
    large.future[1] = 1;
    assert_int_equal(kry_layer_apply(layer.layer, &large.args), KRY_E_ABI);
    assert_true(untouched(&layer));
    large.future[1] = 0;
    assert_int_equal(kry_layer_apply(layer.layer, &large.args), KRY_OK);
    assert_true(error_of(&layer) < 1e-6);
    free_layer(&layer);
}

static void older_reader_gets_what_it_knows_and_newer_zeros(void **state) {
    (void)state;
    applied_layer layer;
    make_small(1, &layer);
    struct {
        kry_sizes sizes;
        uint64_t future;
    } large = {.future = 7};
    large.sizes.struct_size = sizeof large;
    assert_int_equal(kry_layer_sizes(layer.layer, &large.sizes), KRY_OK);
    assert_int_equal(large.sizes.struct_size, sizeof large);
    assert_true(large.sizes.prepared_bytes > 0);
    assert_int_equal(large.future, 0);
    large.sizes.struct_size = 16;
    large.sizes.prepare_scratch_bytes = 99;
    assert_int_equal(kry_layer_sizes(layer.layer, &large.sizes), KRY_OK);
    assert_int_equal(large.sizes.prepare_scratch_bytes, 99);
    large.sizes.struct_size = 0;
    assert_int_equal(kry_layer_sizes(layer.layer, &large.sizes), KRY_E_ABI);
    free_layer(&layer);
}

static void layer_outlives_its_registry(void **state) {
    (void)state;
    kry_registry *brief = open_mocks(NULL, "dense.so", NULL);
    kry_linear linear = small_layer();
    applied_layer layer;
    make_layer(brief, "cpu", &linear, 2, &layer);
    kry_registry_close(&brief);
    assert_null(brief);
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_true(error_of(&layer) < 1e-6);
    kry_kernel_info info = KRY_INIT(kry_kernel_info);
    assert_int_equal(kry_layer_kernel(layer.layer, &info), KRY_OK);
    assert_string_equal(info.kernel, "dense");
    free_layer(&layer);
}

static void create_without_arguments_is_refused(void **state) {
    (void)state;
    kry_device device = find_device(registry, "cpu");
    kry_linear linear = small_layer();
    kry_layer_args args = KRY_INIT(kry_layer_args);
    kry_layer *layer = NULL;
    args.device = &device;
    assert_int_equal(kry_layer_create(registry, &args, &layer), KRY_E_ARGUMENT);
    args.linear = &linear;
    args.device = NULL;
    assert_int_equal(kry_layer_create(registry, &args, &layer), KRY_E_ARGUMENT);
    args.device = &device;
    assert_int_equal(kry_layer_create(NULL, &args, &layer), KRY_E_ARGUMENT);
    assert_int_equal(kry_layer_create(registry, NULL, &layer), KRY_E_ARGUMENT);
    assert_int_equal(kry_layer_create(registry, &args, NULL), KRY_E_ARGUMENT);
    args.struct_size = 9;
    assert_int_equal(kry_layer_create(registry, &args, &layer), KRY_E_ABI);
    assert_null(layer);
    kry_layer_destroy(&layer);
    kry_layer_destroy(NULL);
    assert_null(kry_layer_linear(NULL, 0));
}

static void kernel_named_by_the_caller_is_taken_or_an_error(void **state) {
    (void)state;
    kry_registry *several = open_mocks(NULL, "dense.so", "whole_groups.so", "pair.so", NULL);
    kry_device device = find_device(several, "cpu");
    kry_linear linear = small_layer();
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    static const char *const names[] = {"dense", "dense/dense", "pair/aardvark"};
    for (size_t i = 0; i < 3; i++) {
        kry_layer *layer = NULL;
        args.kernel = names[i];
        assert_int_equal(kry_layer_create(several, &args, &layer), KRY_OK);
        kry_kernel_info info = KRY_INIT(kry_kernel_info);
        assert_int_equal(kry_layer_kernel(layer, &info), KRY_OK);
        assert_non_null(strstr(names[i], info.kernel));
        kry_layer_destroy(&layer);
    }
    static const char *const absent[] = {"nobody", "pair/dense", "dense/", "/dense", ""};
    for (size_t i = 0; i < 5; i++) {
        kry_layer *layer = NULL;
        args.kernel = absent[i];
        assert_int_equal(kry_layer_create(several, &args, &layer), KRY_E_NOT_FOUND);
        assert_null(layer);
    }
    linear.x_type = KRY_TYPE_F16;
    args.kernel = "dense";
    kry_layer *layer = NULL;
    assert_int_equal(kry_layer_create(several, &args, &layer), KRY_E_NO_KERNEL);
    assert_non_null(strstr(kry_error_message(), "dense"));
    kry_registry_close(&several);
}

static void hypothetical_device_is_prepared_for_and_not_applied_on(void **state) {
    (void)state;
    kry_linear linear = small_layer();
    applied_layer layer;
    make_layer(registry, "cpu:none", &linear, 2, &layer);
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    assert_apply_refused(&layer, KRY_E_DEVICE);
    free_layer(&layer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apply_computes_with_and_without_bias),
        cmocka_unit_test(apply_before_prepare_is_out_of_order),
        cmocka_unit_test(apply_with_too_small_a_workspace_is_refused),
        cmocka_unit_test(workspace_never_shrinks_as_m_grows),
        cmocka_unit_test(apply_of_no_rows_does_nothing),
        cmocka_unit_test(apply_of_wrong_counts_pointers_and_strides_is_refused),
        cmocka_unit_test(apply_keeps_to_strides),
        cmocka_unit_test(single_row_may_have_any_stride),
        cmocka_unit_test(struct_of_a_wrong_size_is_refused),
        cmocka_unit_test(older_reader_gets_what_it_knows_and_newer_zeros),
        cmocka_unit_test(layer_outlives_its_registry),
        cmocka_unit_test(create_without_arguments_is_refused),
        cmocka_unit_test(kernel_named_by_the_caller_is_taken_or_an_error),
        cmocka_unit_test(hypothetical_device_is_prepared_for_and_not_applied_on),
    };
    return cmocka_run_group_tests_name("loader layer", tests, open_dense, close_registry) ? 1 : 0;
}
