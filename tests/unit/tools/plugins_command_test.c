/* kernelry plugins, on mock plugins. */
#include "process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define SEED MOCK_PLUGINS "/seed"

/* The plugin of that name in the list, or NULL. */
static json_t *plugin_named(json_t *root, const char *name) {
    json_t *plugin;
    size_t i;
    json_array_foreach(json_at(root, "plugins"), i, plugin) {
        const char *found = json_string_value(json_object_get(plugin, "name"));
        if (found && !strcmp(found, name))
            return plugin;
    }
    return NULL;
}

static void plugins_of_a_folder_are_listed_with_what_they_serve(void **state) {
    (void)state;
    struct finished run = run_kernelry(SEED, ARGUMENTS("plugins", "--json"));
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "search_path.0"), SEED);
    assert_int_equal(json_array_size(json_at(run.json, "plugins")), 7);
    json_t *fallback = plugin_named(run.json, "triton_w4a16");
    assert_non_null(fallback);
    assert_string_equal(text_at(fallback, "state"), "loaded");
    assert_string_equal(text_at(fallback, "abi"), "0.3");
    assert_string_equal(text_at(fallback, "platforms.0.name"), "cuda");
    assert_int_equal(number_at(fallback, "platforms.0.priority"), 900);
    assert_true(flag_at(fallback, "platforms.0.fallback"));
    assert_false(flag_at(fallback, "platforms.1.fallback"));
    assert_int_equal(number_at(fallback, "kernels"), 2);
    finished_free(&run);
}

static void plugins_show_kernels_in_the_order_they_are_asked(void **state) {
    (void)state;
    struct finished run = run_kernelry(SEED, ARGUMENTS("plugins"));
    assert_code(&run, 0);
    assert_says(run.out, "cuda  CutlassW4A8, Machete, AllSpark, Marlin, Conch, Exllama, "
                         "TritonW4A16 (fallback)\n");
    assert_says(run.out, "rocm  TritonW4A16, Conch, Exllama\n");
    finished_free(&run);
}

static void plugins_follow_an_override(void **state) {
    (void)state;
    setenv("KERNELRY_PREFER", "Conch", 1);
    setenv("KERNELRY_DISABLE", "marlin,nobody", 1);
    struct finished run = run_kernelry(SEED, ARGUMENTS("plugins", "--json"));
    unsetenv("KERNELRY_PREFER");
    unsetenv("KERNELRY_DISABLE");
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "kernels.0.kernel"), "Conch");
    assert_string_equal(text_at(plugin_named(run.json, "marlin"), "state"), "disabled");
    assert_says(run.err, "kernelry: warning: ");
    assert_says(run.err, "nobody");
    finished_free(&run);
}

static void plugins_probed_name_the_one_that_crashes_and_load_the_others(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        SEED, ARGUMENTS("plugins", "--probe", "--milliseconds", "60000", "--plugin-path",
                        MOCK_PLUGINS "/deadly/deadly_entry.so", "--json"));
    assert_code(&run, 1);
    json_t *crashing = plugin_named(run.json, "deadly_entry");
    assert_string_equal(text_at(crashing, "state"), "refused");
    assert_says(text_at(crashing, "reason"), "SIGSEGV (signal 11), in its entry");
    assert_string_equal(text_at(plugin_named(run.json, "marlin"), "state"), "loaded");
    finished_free(&run);
}

static void plugins_with_a_limit_and_no_probe_is_a_usage_error(void **state) {
    (void)state;
    struct finished run = run_kernelry(SEED, ARGUMENTS("plugins", "--milliseconds", "5"));
    assert_code(&run, 2);
    assert_says(run.err, "--milliseconds goes with --probe");
    finished_free(&run);
}

static void plugins_with_a_file_that_is_not_there_exits_1(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(SEED, ARGUMENTS("plugins", "--plugin-path", "/nowhere/libmine.so"));
    assert_code(&run, 1);
    assert_says(run.out, "refused  /nowhere/libmine.so\n");
    assert_says(run.out, "No such file or directory");
    finished_free(&run);
}

static void plugins_with_a_refused_file_named_outright_exits_1_with_the_reason(void **state) {
    (void)state;
    struct finished run = run_kernelry(SEED, ARGUMENTS("plugins", "--json", "--plugin-path",
                                                       MOCK_PLUGINS "/wrong_abi.so",
                                                       "--plugin-path", MOCK_PLUGINS "/plain.so"));
    assert_code(&run, 1);
    assert_string_equal(text_at(run.json, "plugins.0.state"), "refused");
    assert_says(text_at(run.json, "plugins.0.reason"), "77");
    assert_true(flag_at(run.json, "plugins.0.named_outright"));
    assert_string_equal(text_at(run.json, "plugins.1.state"), "refused");
    /* The others are there all the same. */
    assert_non_null(plugin_named(run.json, "marlin"));
    finished_free(&run);
}

static void plugins_with_all_show_what_is_no_plugin(void **state) {
    (void)state;
    struct finished some =
        run_kernelry(SEED, ARGUMENTS("plugins", "--json", "--plugin-path", MOCK_PLUGINS));
    struct finished all =
        run_kernelry(SEED, ARGUMENTS("plugins", "--json", "--all", "--plugin-path", MOCK_PLUGINS));
    assert_code(&some, 0); /* those that are refused were not named outright */
    assert_code(&all, 0);
    assert_silent_on(some.out, "/plain.so");
    assert_says(all.out, "/plain.so");
    assert_true(json_array_size(json_at(all.json, "plugins")) >
                json_array_size(json_at(some.json, "plugins")));
    finished_free(&some);
    finished_free(&all);
    some = run_kernelry(SEED, ARGUMENTS("plugins", "--plugin-path", MOCK_PLUGINS));
    assert_says(some.out, "more with --all");
    finished_free(&some);
}

static void plugins_in_no_folder_finds_none(void **state) {
    (void)state;
    struct finished run = run_kernelry("/proc/self/task", ARGUMENTS("plugins"));
    assert_code(&run, 0);
    assert_says(run.out, "No plugin was found.");
    finished_free(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plugins_of_a_folder_are_listed_with_what_they_serve),
        cmocka_unit_test(plugins_show_kernels_in_the_order_they_are_asked),
        cmocka_unit_test(plugins_follow_an_override),
        cmocka_unit_test(plugins_probed_name_the_one_that_crashes_and_load_the_others),
        cmocka_unit_test(plugins_with_a_limit_and_no_probe_is_a_usage_error),
        cmocka_unit_test(plugins_with_a_file_that_is_not_there_exits_1),
        cmocka_unit_test(plugins_with_a_refused_file_named_outright_exits_1_with_the_reason),
        cmocka_unit_test(plugins_with_all_show_what_is_no_plugin),
        cmocka_unit_test(plugins_in_no_folder_finds_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
