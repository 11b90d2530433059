/* kernelry bench against limits and peers: who is measured when, and what goes wrong. How large
 * the figures are is not asserted. */
#include "process.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A layer that the reference kernel takes in no time. */
#define SMALL "--in-features", "96", "--out-features", "64", "--group-size", "32"
#define BRIEF "--milliseconds", "6", "--rounds", "3", "--threads", "2", "--read-mib", "8"
#define FAKE "--python", FAKE_PEER, "--bench-dir", BENCH_FOLDER

static double real_at(json_t *root, const char *path) {
    json_t *value = json_at(root, path);
    if (!json_is_real(value))
        print_error("'%s' is no number\n", path);
    assert_true(json_is_real(value));
    return json_real_value(value);
}

static json_t *entry_named(json_t *row, const char *name) {
    json_t *entries = json_at(row, "entries"), *entry;
    size_t i;
    json_array_foreach(entries, i, entry) {
        if (strcmp(text_at(entry, "name"), name) == 0)
            return entry;
    }
    print_error("no entry %s\n", name);
    fail();
    return NULL;
}

static void limits_alone_are_measured_and_positive(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", "--limits", "--milliseconds",
                                                              "20", "--read-mib", "8", "--json"));
    assert_code(&run, 0);
    json_t *limits = json_at(run.json, "limits");
    assert_true(json_array_size(limits) >= 1);
    assert_string_equal(text_at(limits, "0.limit"), "read");
    for (size_t i = 0; i < json_array_size(limits); i++) {
        json_t *limit = json_array_get(limits, i);
        assert_true(real_at(limit, "median") > 0);
        assert_int_equal(json_array_size(json_at(limit, "rounds")), 9);
    }
    assert_int_equal(json_array_size(json_at(run.json, "rows")), 0);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", "--limits", BRIEF));
    assert_code(&run, 0);
    assert_says(run.out, "GB/s");
    assert_says(run.out, "not measured"); /* bf16, with no feature of the CPU */
    finished_free(&run);
}

static void layer_is_measured_in_each_class_that_a_kernel_takes(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", SMALL, BRIEF, "--m", "1,16", "--compute",
                                            "f32,f16,int8", "--json"));
    assert_code(&run, 0);
    assert_int_equal(json_array_size(json_at(run.json, "rows")), 2);
    json_t *row = json_at(run.json, "rows.1");
    assert_int_equal(number_at(row, "m"), 16);
    json_t *f16 = entry_named(row, "f16");
    double seconds = real_at(f16, "median_seconds");
    assert_true(seconds > 0);
    assert_true(real_at(f16, "operations") == 2.0 * 16 * 96 * 64);
    /* codes, scales, x and y */
    assert_true(real_at(f16, "bytes") == 96 * 64 / 2 + 64 * 3 * 2 + 16 * (96 + 64) * 2);
    assert_true(real_at(f16, "part_of_read") > 0);
    assert_true(json_is_null(json_at(f16, "part_of_peak"))); /* not measured without features */
    assert_true(real_at(entry_named(row, "f32"), "bytes") > real_at(f16, "bytes"));
    /* the reference kernel computes in floats, so nothing stands for int8 */
    json_t *int8 = entry_named(row, "int8");
    assert_true(json_is_null(json_at(int8, "median_seconds")));
    assert_says(text_at(int8, "trouble"), "int8 activations");
    finished_free(&run);
}

static void scaling_tells_the_times_of_one_thread(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", SMALL, BRIEF, "--m", "1,16", "--compute",
                                            "f32", "--scaling", "--json"));
    assert_code(&run, 0);
    assert_true(json_is_null(json_at(run.json, "rows.0.entries.0.times_of_one_thread")));
    assert_true(real_at(run.json, "rows.1.entries.0.times_of_one_thread") > 0);
    assert_int_equal(number_at(run.json, "rows.1.entries.1.threads"), 1);
    assert_string_equal(text_at(run.json, "rows.1.entries.1.beside"), "threads");
    finished_free(&run);
}

static void awkward_layer_is_compared_with_the_nearest_aligned_one(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", "--in-features", "1100", "--out-features",
                                            "1000", "--group-size", "40", BRIEF, "--m", "1",
                                            "--compute", "f32", "--awkward", "--json"));
    assert_code(&run, 0);
    json_t *row = json_at(run.json, "rows.0");
    assert_int_equal(number_at(row, "aligned.in_features"), 1152);
    assert_int_equal(number_at(row, "aligned.out_features"), 1024);
    assert_int_equal(number_at(row, "aligned.group_size"), 32);
    assert_true(real_at(row, "entries.0.times_of_aligned") > 0);
    finished_free(&run);
    /* below a million weights, overhead is all that would be compared */
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", SMALL, BRIEF, "--awkward", "--json"));
    assert_code(&run, 0);
    assert_int_equal(json_array_size(json_at(run.json, "rows")), 0);
    finished_free(&run);
}

/* ---- peers --------------------------------------------------------------------------- */

static struct finished run_with_peer(const char *peer, const char *fault) {
    setenv("FAKE_PEER", fault, 1);
    struct finished run = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("bench", SMALL, BRIEF, FAKE, "--m", "2", "--compute", "f16",
                               "--peer", peer, "--peer-timeout", "2", "--json"));
    unsetenv("FAKE_PEER");
    return run;
}

static void peer_that_answers_is_measured_and_compared(void **state) {
    (void)state;
    struct finished run = run_with_peer("torch", "none");
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "peers.0.version"), "1.2.3");
    json_t *row = json_at(run.json, "rows.0"), *peer = entry_named(row, "torch bf16");
    assert_true(json_is_null(json_at(peer, "trouble")));
    double seconds = real_at(peer, "median_seconds"), ours = 0, times = 0;
    assert_true(seconds > 199e-6 && seconds < 201e-6); /* as the fake peer tells them */
    ours = real_at(entry_named(row, "f16"), "median_seconds");
    times = real_at(entry_named(row, "f16"), "peers_take_times.torch bf16");
    assert_true(times > 0 && ours > 0);
    finished_free(&run);
}

static void peers_take_turns(void **state) {
    (void)state;
    setenv("FAKE_PEER_LOG", scratch_at("log"), 1);
    struct finished run = run_with_peer("onnxruntime", "none");
    unsetenv("FAKE_PEER_LOG");
    assert_code(&run, 0);
    finished_free(&run);
    char *log = scratch_read("log", NULL);
    /* one run each when they are checked, and one each in each of three rounds */
    char *rest = log;
    for (int round = 0; round < 4; round++) {
        const char *first = strsep(&rest, "\n"), *second = strsep(&rest, "\n");
        assert_non_null(second);
        assert_string_not_equal(first, second);
        assert_true(strcmp(first, "int8 m 2") == 0 || strcmp(first, "f32 m 2") == 0);
        assert_true(strcmp(second, "int8 m 2") == 0 || strcmp(second, "f32 m 2") == 0);
    }
    assert_string_equal(rest, "");
    free(log);
}

/* Each way of going wrong is peer_test's. */
static void peer_that_goes_wrong_is_told_of_and_the_race_goes_on(void **state) {
    (void)state;
    static const struct {
        const char *fault, *words;
    } cases[] = {{"ends", "ended with exit status 3"}, {"wrong", "its y is off by 1"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct finished run = run_with_peer("torch", cases[i].fault);
        assert_code(&run, 0);
        json_t *row = json_at(run.json, "rows.0"), *peer = entry_named(row, "torch bf16");
        assert_says(text_at(peer, "trouble"), cases[i].words);
        assert_true(json_is_null(json_at(peer, "median_seconds")));
        json_t *ours = entry_named(row, "f16");
        assert_true(real_at(ours, "median_seconds") > 0);
        assert_true(json_is_null(json_at(ours, "peers_take_times.torch bf16")));
        finished_free(&run);
    }
}

static void peer_that_cannot_start_is_left_out(void **state) {
    (void)state;
    struct finished run = run_with_peer("torch", "absent");
    assert_code(&run, 0);
    assert_says(run.err, "No module named 'torch'");
    assert_says(text_at(run.json, "peers.0.trouble"), "No module named 'torch'");
    assert_int_equal(json_array_size(json_at(run.json, "rows.0.entries")), 1);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", SMALL, BRIEF, "--m", "1", "--peer", "torch",
                                              "--python", "/nowhere/python", "--bench-dir", "/"));
    assert_code(&run, 0);
    assert_says(run.err, "could not be run");
    assert_says(run.out, "not here");
    finished_free(&run);
}

/* ---- files and arguments ------------------------------------------------------------- */

static void store_writes_json_and_text_and_keeps_what_is_there(void **state) {
    (void)state;
    for (size_t runs = 1; runs <= 2; runs++) {
        struct finished run = run_kernelry(
            CPU_PLUGINS, ARGUMENTS("bench", SMALL, BRIEF, FAKE, "--m", "1", "--compute", "f32",
                                   "--store", scratch_at("results"), "--json"));
        assert_code(&run, 0);
        assert_says(run.err, "wrote ");
        /* the fake peer is no Python that could draw */
        assert_says(run.err, "no plot was drawn");
        assert_int_equal(scratch_count("results"), 2 * runs);
        char path[4096];
        assert_int_equal(sscanf(strstr(run.err, "wrote "), "wrote %4095s", path), 1);
        json_t *stored = json_load_file(path, 0, NULL);
        assert_non_null(stored);
        assert_string_equal(text_at(stored, "date"), text_at(run.json, "date"));
        assert_true(real_at(stored, "rows.0.entries.0.median_seconds") > 0);
        json_decref(stored);
        finished_free(&run);
    }
}

static void wrong_arguments_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *arguments[10];
        const char *words;
    } cases[] = {
        {{"bench", "--peer", "tensorflow"}, "expected onnxruntime"},
        {{"bench", "--peer", "torch:int4"}, "a class is"},
        {{"bench", "--peer", "torch"}, "--bench-dir"}, /* a build tree has no scripts */
        {{"bench", "--compute", "f16,f64"}, "'f64'"},
        {{"bench", "--threads", "0"}, "--threads"},
        {{"bench", "--rounds", "100"}, "--rounds"},
        {{"bench", "--random-shapes", "0"}, "--random-shapes"},
        {{"bench", "core", "--limits"}, "'core'"},
        {{"bench", "a", "b", "--limits"}, "one MODEL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct finished run = run_kernelry(CPU_PLUGINS, cases[i].arguments);
        assert_code(&run, 2);
        assert_says(run.err, cases[i].words);
        finished_free(&run);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_alone_are_measured_and_positive),
        cmocka_unit_test(layer_is_measured_in_each_class_that_a_kernel_takes),
        cmocka_unit_test(scaling_tells_the_times_of_one_thread),
        cmocka_unit_test(awkward_layer_is_compared_with_the_nearest_aligned_one),
        cmocka_unit_test(peer_that_answers_is_measured_and_compared),
        cmocka_unit_test(peers_take_turns),
        cmocka_unit_test(peer_that_goes_wrong_is_told_of_and_the_race_goes_on),
        cmocka_unit_test(peer_that_cannot_start_is_left_out),
        cmocka_unit_test(store_writes_json_and_text_and_keeps_what_is_there),
        cmocka_unit_test(wrong_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end) ? 1 : 0;
}
