/*
 * Kernels that say yes and then fail: the status comes through, the message names kernel and
 * function and repeats the plugin's own sentence.
 */
#include "fixture.h"

#include <stdio.h>
#include <string.h>

static kry_linear small(void) { return describe(70, 40, 32, KRY_WEIGHT_U4, KRY_TYPE_F32); }

static kry_registry *open_only(const char *name) {
    char file[64];
    snprintf(file, sizeof file, "%s.so", name);
    return open_mocks(NULL, file, NULL);
}

static void assert_told(const char *kernel, const char *function, const char *sentence) {
    const char *message = kry_error_message();
    if (strstr(message, kernel) == NULL || strstr(message, function) == NULL ||
        strstr(message, sentence) == NULL)
        fail_msg("'%s' lacks one of: %s, %s, %s", message, kernel, function, sentence);
}

static void assert_create_fails(const char *mock, kry_status expected, const char *function,
                                const char *sentence) {
    kry_registry *registry = open_only(mock);
    kry_device device = find_device(registry, "cpu");
    kry_linear linear = small();
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    kry_layer *layer = NULL;
    kry_status status = kry_layer_create(registry, &args, &layer);
    if (status != expected)
        fail_msg("%s: status %d, expected %d (%s)", mock, status, expected, kry_error_message());
    assert_null(layer);
    assert_told(mock, function, sentence);
    kry_registry_close(&registry);
}

static void kernel_that_fails_in_sizes_makes_no_layer(void **state) {
    (void)state;
    assert_create_fails("fail_sizes", KRY_E_UNSUPPORTED, "sizes", "sizes failed on purpose");
}

static void kernel_with_absurd_sizes_makes_no_layer(void **state) {
    (void)state;
    assert_create_fails("absurd_sizes", KRY_E_PLUGIN, "sizes", "18446744073709551615");
    assert_create_fails("no_multiple", KRY_E_PLUGIN, "sizes", "-3");
}

static void kernel_that_fails_to_open_its_device_makes_no_layer(void **state) {
    (void)state;
    assert_create_fails("fail_open", KRY_E_DEPENDENCY, "open", "open failed on purpose");
}

static void kernel_that_fails_in_workspace_is_told_of_and_not_applied(void **state) {
    (void)state;
    kry_registry *registry = open_only("fail_workspace");
    kry_device device = find_device(registry, "cpu");
    kry_linear linear = small();
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    kry_layer *layer = NULL;
    assert_int_equal(kry_layer_create(registry, &args, &layer), KRY_OK);
    kry_workspace workspace = KRY_INIT(kry_workspace);
    assert_int_equal(kry_layer_workspace(layer, 4, &workspace), KRY_E_UNSUPPORTED);
    assert_told("fail_workspace", "workspace", "workspace failed on purpose");
    kry_layer_destroy(&layer);
    kry_registry_close(&registry);
}

static void assert_prepare_fails(const char *mock, kry_linear linear, const char *function,
                                 const char *sentence) {
    kry_registry *registry = open_only(mock);
    applied_layer layer;
    make_layer(registry, "cpu", &linear, 2, &layer);
    assert_int_equal(prepare_layer(&layer), KRY_E_DEVICE);
    assert_told(mock, function, sentence);
    assert_int_equal(kry_layer_apply(layer.layer, &layer.args), KRY_E_STATE);
    assert_true(untouched(&layer));
    free_layer(&layer);
    kry_registry_close(&registry);
}

static void kernel_that_fails_to_prepare_leaves_the_layer_without_weights(void **state) {
    (void)state;
    assert_prepare_fails("fail_prepare", small(), "prepare", "prepare failed on purpose");
    /* Large enough for two ranges, of which the first is written. */
    kry_linear large = describe(1000, 1800, 1, KRY_WEIGHT_U4, KRY_TYPE_F32);
    assert_prepare_fails("fail_prepare", large, "prepare", "prepare failed on purpose");
}

static void kernel_that_fails_to_bind_leaves_the_layer_without_weights(void **state) {
    (void)state;
    assert_prepare_fails("fail_bind", small(), "bind", "bind failed on purpose");
}

static void kernel_that_fails_to_apply_is_told_of(void **state) {
    (void)state;
    kry_registry *registry = open_only("fail_apply");
    kry_linear linear = small();
    applied_layer layer;
    make_layer(registry, "cpu", &linear, 2, &layer);
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    assert_int_equal(kry_layer_apply(layer.layer, &layer.args), KRY_E_DEVICE);
    assert_told("fail_apply", "apply", "apply failed on purpose");
    free_layer(&layer);
    kry_registry_close(&registry);
}

static void plugin_without_error_messages_is_told_of_by_its_status(void **state) {
    (void)state;
    kry_registry *registry = open_only("wordless");
    kry_linear linear = small();
    applied_layer layer;
    make_layer(registry, "cpu", &linear, 2, &layer);
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    assert_int_equal(kry_layer_apply(layer.layer, &layer.args), KRY_E_DEVICE);
    assert_told("wordless", "apply", kry_status_string(KRY_E_DEVICE));
    free_layer(&layer);
    kry_registry_close(&registry);
}

static void status_that_is_none_of_ours_stays_an_error(void **state) {
    (void)state;
    kry_registry *registry = open_only("odd_apply");
    kry_linear linear = small();
    applied_layer layer;
    make_layer(registry, "cpu", &linear, 2, &layer);
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    assert_int_not_equal(kry_layer_apply(layer.layer, &layer.args), KRY_OK);
    assert_told("odd_apply", "apply", "");
    free_layer(&layer);
    kry_registry_close(&registry);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernel_that_fails_in_sizes_makes_no_layer),
        cmocka_unit_test(kernel_with_absurd_sizes_makes_no_layer),
        cmocka_unit_test(kernel_that_fails_to_open_its_device_makes_no_layer),
        cmocka_unit_test(kernel_that_fails_in_workspace_is_told_of_and_not_applied),
        cmocka_unit_test(kernel_that_fails_to_prepare_leaves_the_layer_without_weights),
        cmocka_unit_test(kernel_that_fails_to_bind_leaves_the_layer_without_weights),
        cmocka_unit_test(kernel_that_fails_to_apply_is_told_of),
        cmocka_unit_test(plugin_without_error_messages_is_told_of_by_its_status),
        cmocka_unit_test(status_that_is_none_of_ours_stays_an_error),
    };
    return cmocka_run_group_tests_name("loader failing", tests, NULL, NULL) ? 1 : 0;
}
