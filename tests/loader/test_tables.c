/*
 * Plugins whose file is good and whose table is not: each refused with a sentence that says
 * what, in a registry where another plugin works on.
 */
#include "fixture.h"

#include <stdio.h>
#include <string.h>

static void assert_refused_table(const char *name, const char *told) {
    char file[64];
    snprintf(file, sizeof file, "%s.so", name);
    kry_registry *registry = open_mocks(NULL, file, "dense.so", NULL);
    kry_plugin_info info = KRY_INIT(kry_plugin_info);
    assert_int_equal(kry_registry_plugin(registry, 0, &info), KRY_OK);
    if (info.state != KRY_PLUGIN_REFUSED || info.status != KRY_E_PLUGIN)
        fail_msg("%s: state %u, status %d (%s)", name, info.state, info.status, info.reason);
    if (strstr(info.reason, told) == NULL)
        fail_msg("%s: '%s' does not tell '%s'", name, info.reason, told);
    assert_string_equal(kernel_order(registry, "cpu"), "dense");
    kry_registry_close(&registry);
}

static void table_that_is_wrong_is_refused_with_what_is_wrong(void **state) {
    (void)state;
    static const char *const wrong[][2] = {
        {"entry_null", "kry_plugin_entry_null"},
        {"wrong_name", "somebody_else"},
        {"no_name", "no_name"},
        {"small_plugin", "24"},
        {"small_kernel", "kernel"},
        {"small_functions", "small_functions"},
        {"no_kernels", "kernels"},
        {"null_kernel", "NULL"},
        {"no_kernel_name", "name"},
        {"odd_kernel_name", "name"},
        {"no_platform", "platform"},
        {"foreign_platform", "abacus"},
        {"no_functions", "no_functions"},
        {"no_can_implement", "can_implement"},
        {"no_sizes", "sizes"},
        {"no_prepare", "prepare_weights"},
        {"no_apply", "apply"},
        {"twice", "same"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_refused_table(wrong[i][0], wrong[i][1]);
}

static void kernel_of_an_operation_of_later_times_is_passed_over(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "other_operation.so", "dense.so", NULL);
    kry_plugin_info info;
    assert_true(find_plugin(registry, "other_operation", &info));
    assert_int_equal(info.state, KRY_PLUGIN_LOADED);
    assert_int_equal(info.kernel_count, 0);
    assert_string_equal(kernel_order(registry, "cpu"), "dense");
    kry_registry_close(&registry);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_that_is_wrong_is_refused_with_what_is_wrong),
        cmocka_unit_test(kernel_of_an_operation_of_later_times_is_passed_over),
    };
    return cmocka_run_group_tests_name("loader tables", tests, NULL, NULL) ? 1 : 0;
}
