/* kernelry: help, wrong usage, and output that cannot be written. */
#include "process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const commands[] = {"check",   "explain",  "run",    "prepare",
                                       "bench",   "quantize", "verify", "new-plugin",
                                       "plugins", "devices",  "version"};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void help_lists_every_command(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("--help"));
    assert_code(&run, 0);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        char line[64];
        snprintf(line, sizeof line, "\n  %s ", commands[i]);
        assert_says(run.out, line);
    }
    assert_string_equal(run.err, "");
    finished_free(&run);
}

static void help_of_each_command_has_usage_options_examples(void **state) {
    (void)state;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        struct finished help = run_kernelry(CPU_PLUGINS, ARGUMENTS("help", commands[i]));
        struct finished option = run_kernelry(CPU_PLUGINS, ARGUMENTS(commands[i], "--help"));
        char usage[64];
        snprintf(usage, sizeof usage, "Usage: kernelry %s", commands[i]);
        assert_code(&help, 0);
        assert_says(help.out, usage);
        assert_says(help.out, "\nExamples\n  ");
        assert_says(help.out, "  --json ");
        assert_string_equal(help.out, option.out);
        for (const char *line = help.out; *line; line += strcspn(line, "\n") + 1)
            if (strcspn(line, "\n") > 100)
                fail_msg("a line of more than 100 columns: %.120s", line);
        finished_free(&help);
        finished_free(&option);
    }
}

/* Standard output stays empty, standard error explains. */
static void assert_refused(const char *const *arguments, int code, const char *message) {
    struct finished run = run_kernelry(CPU_PLUGINS, arguments);
    assert_code(&run, code);
    assert_string_equal(run.out, "");
    assert_says(run.err, message);
    finished_free(&run);
}

static void usage_that_is_wrong_exits_2_with_a_hint(void **state) {
    (void)state;
    assert_refused(ARGUMENTS(NULL), 2, "Usage: kernelry COMMAND");
    assert_refused(ARGUMENTS("chek"), 2, "kernelry: unknown command 'chek'; did you mean 'check'?");
    assert_refused(ARGUMENTS("help", "frobnicate"), 2, "unknown command 'frobnicate'\n");
    assert_refused(ARGUMENTS("check", "--devise", "cpu"), 2, "did you mean '--device'?");
    assert_refused(ARGUMENTS("check", "-x"), 2, "unknown option '-x'");
    assert_refused(ARGUMENTS("check", "--tp"), 2, "--tp needs a value");
    assert_refused(ARGUMENTS("check", "--json=1"), 2, "--json takes no value");
    assert_refused(ARGUMENTS("check", "--tp", "zwei", "model"), 2, "--tp: 'zwei'");
    assert_refused(ARGUMENTS("check", "--tp", "0", "model"), 2, "from 1 to 1024");
    assert_refused(ARGUMENTS("check", "--tp", "99999999999999999999", "m"), 2, "--tp:");
    assert_refused(ARGUMENTS("check"), 2, "MODEL is missing");
    assert_refused(ARGUMENTS("check", "a", "b"), 2, "unexpected argument 'b'");
    assert_refused(ARGUMENTS("check", "a", "--shapes", "b"), 2, "choose one");
    assert_refused(ARGUMENTS("check", "--shapes", "b", "--tp", "2"), 2, "--tp goes with MODEL");
    assert_refused(ARGUMENTS("check", "a", "--allow", "int4"), 2, "--allow: 'int4'");
    assert_refused(ARGUMENTS("explain"), 2, "no layer is given");
    assert_refused(ARGUMENTS("explain", "model"), 2, "--layer NAME is missing");
    assert_refused(ARGUMENTS("explain", "--in-features", "64"), 2, "--out-features is missing");
    assert_refused(ARGUMENTS("explain", "--weight-type", "u3"), 2, "u4b8, u4, u8b128, u8");
    assert_refused(ARGUMENTS("explain", "m", "--layer", "l", "--tp", "2", "--rank", "2"), 2,
                   "--rank 2 is not below --tp 2");
    assert_refused(ARGUMENTS("explain", "m", "--in-features", "64"), 2, "choose one");
    assert_refused(ARGUMENTS("plugins", "extra"), 2, "unexpected argument 'extra'");
    assert_refused(ARGUMENTS("version", "extra"), 2, "unexpected argument 'extra'");
    assert_refused(ARGUMENTS("devices", "extra"), 2, "unexpected argument 'extra'");
}

static void version_as_json_tells_release_abi_and_places(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("version", "--json"));
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "abi"), "0.3");
    assert_true(strlen(text_at(run.json, "version")) >= 5);
    assert_says(text_at(run.json, "library"), "/libkernelry.so");
    assert_string_equal(text_at(run.json, "plugin_folder"), CPU_PLUGINS);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("--version"));
    assert_code(&run, 0);
    assert_says(run.out, "kernelry ");
    finished_free(&run);
}

static void devices_lists_this_cpu_first(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("devices", "--json"));
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "devices.0.platform"), "cpu");
    assert_false(flag_at(run.json, "devices.0.hypothetical"));
    assert_true(number_at(run.json, "devices.0.multiprocessors") >= 1);
    assert_true(number_at(run.json, "devices.0.kernels") >= 1);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("devices"));
    assert_code(&run, 0);
    assert_says(run.out, "\ncpu ");
    finished_free(&run);
}

/* ---- output that cannot be written --------------------------------------------------- */

static void output_to_a_full_disk_exits_4(void **state) {
    (void)state;
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    if (full < 0)
        skip();
    struct finished run = run_kernelry_onto(full, ARGUMENTS("version", "--json"));
    close(full);
    assert_code(&run, 4);
    assert_says(run.err, "No space left on device");
    finished_free(&run);
}

static void output_to_a_closed_pipe_exits_4_silently(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    struct finished run = run_kernelry_onto(ends[1], ARGUMENTS("check", "--help"));
    close(ends[1]);
    assert_code(&run, 4);
    assert_string_equal(run.err, "");
    finished_free(&run);
}

static void output_that_is_closed_exits_4(void **state) {
    (void)state;
    struct finished run = run_kernelry_onto(-1, ARGUMENTS("version"));
    assert_code(&run, 4);
    assert_says(run.err, "standard output could not be written");
    finished_free(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_lists_every_command),
        cmocka_unit_test(help_of_each_command_has_usage_options_examples),
        cmocka_unit_test(usage_that_is_wrong_exits_2_with_a_hint),
        cmocka_unit_test(version_as_json_tells_release_abi_and_places),
        cmocka_unit_test(devices_lists_this_cpu_first),
        cmocka_unit_test(output_to_a_full_disk_exits_4),
        cmocka_unit_test(output_to_a_closed_pipe_exits_4_silently),
        cmocka_unit_test(output_that_is_closed_exits_4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
