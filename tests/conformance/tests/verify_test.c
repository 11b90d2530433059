/*
 * kernelry verify as people and scripts meet it: what it prints, what it returns, and that no
 * plugin takes it down.
 */
#include "process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOCK(name) CONFORMANCE_MOCKS "/" name ".so"

static void plugin_that_is_not_there_is_bad_input(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("verify", "/nowhere/plugin.so"));
    assert_code(&run, 3);
    assert_says(run.err, "/nowhere/plugin.so");
    finished_free(&run);
}

static void plugin_that_the_core_refuses_is_told_with_its_duty(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("verify", MOCK_PLUGINS "/no_functions.so", "--json"));
    assert_code(&run, 1);
    assert_says(text_at(run.json, "error"), "KRY-P13");
    assert_false(flag_at(run.json, "ok"));
    finished_free(&run);
}

static void folder_instead_of_a_plugin_is_bad_input(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("verify", CONFORMANCE_MOCKS));
    assert_code(&run, 3);
    finished_free(&run);
}

static void wrong_usage_is_told(void **state) {
    (void)state;
    static const char *const wrong[][8] = {{"verify"},
                                           {"verify", MOCK("none"), "twice"},
                                           {"verify", MOCK("none"), "--check", "no-such"},
                                           {"verify", MOCK("none"), "--case", "3"},
                                           {"verify", MOCK("none"), "--cases", "0"},
                                           {"verify", MOCK("none"), "--kernel", "no-such"},
                                           {"verify", MOCK("none"), "--seconds", "x"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct finished run = run_kernelry(CPU_PLUGINS, wrong[i]);
        assert_code(&run, 2);
        finished_free(&run);
    }
}

static void passing_check_is_reported_in_a_line(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("verify", MOCK("none"), "--check", "numbers", "--cases", "20"));
    assert_code(&run, 0);
    assert_says(run.out, "ok       KRY-P14  numbers");
    assert_says(run.out, "20 cases");
    assert_says(run.out, " s  y is x * dequant(W)^T; error at most ");
    assert_says(run.out, "1 ok, 0 failed, 0 skipped");
    finished_free(&run);
}

/* The argument behind an option in a command line. */
static void copy_argument(const char *command, const char *option, char *out, size_t size) {
    const char *at = strstr(command, option);
    assert_non_null(at);
    at += strlen(option) + 1;
    snprintf(out, size, "%.*s", (int)strcspn(at, " "), at);
}

static void failure_names_the_command_that_repeats_it(void **state) {
    (void)state;
    char number[32], seed[32];
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("verify", MOCK("loses_the_last_column"), "--check",
                                            "numbers", "--quick", "--seed", "5", "--json"));
    assert_code(&run, 1);
    const char *command = text_at(run.json, "kernels.0.checks.0.command");
    assert_says(command, "--quick");
    assert_says(command, "--kernel mock --check numbers");
    copy_argument(command, "--case", number, sizeof number);
    copy_argument(command, "--seed", seed, sizeof seed);
    assert_string_equal(seed, "5");
    struct finished again = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("verify", MOCK("loses_the_last_column"), "--check", "numbers",
                               "--quick", "--seed", seed, "--case", number, "--json"));
    assert_code(&again, 1);
    assert_int_equal(number_at(again.json, "kernels.0.checks.0.cases"), 1);
    assert_string_equal(text_at(again.json, "kernels.0.checks.0.where"),
                        text_at(run.json, "kernels.0.checks.0.where"));
    assert_string_equal(text_at(again.json, "kernels.0.checks.0.message"),
                        text_at(run.json, "kernels.0.checks.0.message"));
    finished_free(&run);
    finished_free(&again);
}

static void command_that_repeats_is_quoted_for_a_shell(void **state) {
    (void)state;
    char folder[] = "/tmp/kernelry verify-XXXXXX", link[64], quoted[96];
    assert_non_null(mkdtemp(folder));
    snprintf(link, sizeof link, "%s/it's.so", folder);
    snprintf(quoted, sizeof quoted, "verify '%s/it'\\''s.so' --kernel mock", folder);
    assert_int_equal(symlink(MOCK("loses_the_last_column"), link), 0);
    struct finished run = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("verify", link, "--check", "numbers", "--cases", "20", "--json"));
    unlink(link);
    rmdir(folder);
    assert_code(&run, 1);
    assert_says(text_at(run.json, "kernels.0.checks.0.command"), quoted);
    finished_free(&run);
}

static void kernel_that_crashes_is_told_with_signal_and_step(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("verify", MOCK("crashes"), "--quick", "--cases", "60"));
    assert_code(&run, 1);
    assert_says(run.out, "apply ended the process with a signal: Segmentation fault");
    assert_says(run.out, "m 5");
    assert_says(run.out, "ok       KRY-P04"); /* what comes after a crash is checked all the same */
    finished_free(&run);
}

static void kernel_that_exits_is_told_with_its_code(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("verify", MOCK("exits"), "--check", "runs"));
    assert_code(&run, 1);
    assert_says(run.out, "apply ended the process (exit code 0)");
    finished_free(&run);
}

static void kernel_that_hangs_is_ended(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("verify", MOCK("hangs"), "--check", "runs", "--seconds", "1"));
    assert_code(&run, 1);
    assert_says(run.out, "apply did not end within 1 s");
    finished_free(&run);
}

static void overrun_names_the_buffer(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("verify", MOCK("reads_behind_weights"), "--check", "bounds"));
    assert_code(&run, 1);
    assert_says(run.out, "FAILED   KRY-P17");
    assert_says(run.out, "prepare_weights touched the byte 0 behind the weights' codes");
    finished_free(&run);
}

static void hypothetical_device_is_asked_about_and_nothing_more(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("verify", MOCK("none"), "--quick", "--cases", "20",
                                            "--device", "cpu:none"));
    assert_code(&run, 0);
    assert_says(run.out, "ok       KRY-P01  pure");
    assert_says(run.out, "ok       KRY-P06  offline");
    assert_says(run.out, "skipped  runs, numbers, one-hot,");
    assert_says(run.out, "surroundings: needs the device, which is hypothetical");
    finished_free(&run);
}

static void platform_without_a_device_is_told_how_to_go_on(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("verify", MOCK_PLUGINS "/seed/c_three.so"));
    assert_code(&run, 4);
    assert_says(run.err, "there is no device of cuda here; with --device cuda:ARCHITECTURE");
    finished_free(&run);
}

static void platform_without_a_device_is_asked_about_and_nothing_more(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("verify", MOCK_PLUGINS "/seed/c_three.so", "--quick",
                                            "--cases", "20", "--device", "cuda:sm_90"));
    assert_code(&run, 0);
    assert_says(run.out, "ok       KRY-P01  pure");
    assert_says(run.out, "ok       KRY-P06  offline");
    assert_says(run.out, "skipped  runs, numbers, one-hot,");
    assert_says(run.out, "on cuda:sm_90 (hypothetical)");
    finished_free(&run);
}

static void platform_of_the_plugin_alone_is_found_without_being_named(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("verify", MOCK_PLUGINS "/toy_kernel.so", "--plugin-path",
                               MOCK_PLUGINS "/toy_platform.so", "--quick", "--cases", "20"));
    assert_code(&run, 0);
    assert_says(run.out, "toy_kernel/toy_dense");
    assert_says(run.out, "ok       KRY-P14  one-hot");
    assert_silent_on(run.out, "skipped  runs");
    finished_free(&run);
}

static void plugin_without_kernels_is_bad_input(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("verify", MOCK_PLUGINS "/toy_platform.so"));
    assert_code(&run, 3);
    assert_says(run.err, "brings no kernel");
    finished_free(&run);
}

static void shapes_of_a_file_take_the_place_of_those_built_in(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("verify", MOCK("loses_the_last_column"), "--quick",
                                            "--shapes", SHAPES_FILE, "--name", "float-activations",
                                            "--check", "large-m", "--json"));
    assert_code(&run, 1);
    assert_says(text_at(run.json, "kernels.0.checks.0.command"), "--name float-activations");
    finished_free(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plugin_that_is_not_there_is_bad_input),
        cmocka_unit_test(plugin_that_the_core_refuses_is_told_with_its_duty),
        cmocka_unit_test(folder_instead_of_a_plugin_is_bad_input),
        cmocka_unit_test(wrong_usage_is_told),
        cmocka_unit_test(passing_check_is_reported_in_a_line),
        cmocka_unit_test(failure_names_the_command_that_repeats_it),
        cmocka_unit_test(command_that_repeats_is_quoted_for_a_shell),
        cmocka_unit_test(kernel_that_crashes_is_told_with_signal_and_step),
        cmocka_unit_test(kernel_that_exits_is_told_with_its_code),
        cmocka_unit_test(kernel_that_hangs_is_ended),
        cmocka_unit_test(overrun_names_the_buffer),
        cmocka_unit_test(hypothetical_device_is_asked_about_and_nothing_more),
        cmocka_unit_test(platform_without_a_device_is_told_how_to_go_on),
        cmocka_unit_test(platform_without_a_device_is_asked_about_and_nothing_more),
        cmocka_unit_test(platform_of_the_plugin_alone_is_found_without_being_named),
        cmocka_unit_test(plugin_without_kernels_is_bad_input),
        cmocka_unit_test(shapes_of_a_file_take_the_place_of_those_built_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
