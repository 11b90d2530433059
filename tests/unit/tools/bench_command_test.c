/* kernelry bench: figures that make sense; how large they are is not asserted. */
#include "process.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static double real_at(json_t *root, const char *path) {
    json_t *value = json_at(root, path);
    assert_true(json_is_real(value));
    return json_real_value(value);
}

static void bench_of_options_measures_that_layer(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", "--in-features", "96", "--out-features", "64",
                                            "--group-size", "32", "--x-type", "f16",
                                            "--weight-type", "u4", "--m", "1,4", "--milliseconds",
                                            "5", "--kernel", "reference", "--json"));
    assert_code(&run, 0);
    json_t *layer = json_at(run.json, "layers.0");
    assert_string_equal(text_at(layer, "kernel"), "reference");
    assert_string_equal(text_at(layer, "linear.weight_type"), "u4");
    assert_true(number_at(layer, "copies") >= 2);
    assert_int_equal(number_at(layer, "applies.1.m"), 4);
    double median = real_at(layer, "applies.1.median_seconds");
    assert_true(median >= real_at(layer, "applies.1.least_seconds"));
    assert_true(number_at(layer, "applies.1.applies") >= 5);
    /* 2 * 4 * 96 * 64 operations */
    double rate = real_at(layer, "applies.1.gigaflops") * median * 1e9;
    assert_true(rate > 49151.9 && rate < 49152.1);
    finished_free(&run);
}

static void bench_of_a_model_measures_each_description_once(void **state) {
    (void)state;
    scratch_model("tiny", "dense");
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("quantize", scratch_at("dense"), scratch_at("model")));
    assert_code(&run, 0);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", scratch_at("model"), "--milliseconds", "1",
                                              "--m", "1", "--json"));
    assert_code(&run, 0);
    /* 160×96; 96×160 gate and up; 96×48 k and v; 96×96 o, q */
    assert_int_equal(json_array_size(json_at(run.json, "layers")), 4);
    assert_int_equal(number_at(run.json, "layers.1.layers"), 4);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS,
                       ARGUMENTS("bench", scratch_at("model"), "--milliseconds", "1", "--m", "1"));
    assert_code(&run, 0);
    assert_says(run.out, "model.layers.*.mlp.down_proj");
    assert_says(run.out, "GFLOP/s");
    finished_free(&run);
}

static void bench_of_a_shape_that_nobody_takes_goes_on(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        MOCK_PLUGINS "/nowhere", ARGUMENTS("bench", "--plugin-path", LYING_PLUGIN, "--shapes",
                                           SHAPES_FILE, "--name", "small-groups", "--m", "1"));
    assert_code(&run, 1);
    assert_says(run.err, "small-groups: ");
    assert_says(run.err, "takes f32 alone");
    finished_free(&run);
}

static void bench_core_prints_all_figures(void **state) {
    (void)state;
    scratch_model("llama70b", "llama");
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", "core", scratch_at("llama"), "--json"));
    assert_code(&run, 0);
    static const char *const names[] = {"open a registry, warm", "decide", "apply",
                                        "kernelry check"};
    assert_int_equal(json_array_size(json_at(run.json, "figures")), 4);
    for (size_t i = 0; i < 4; i++) {
        json_t *figure = json_array_get(json_at(run.json, "figures"), i);
        assert_string_equal(text_at(figure, "name"), names[i]);
        assert_true(real_at(figure, "seconds") > 0);
        assert_true(real_at(figure, "floor_seconds") > 0);
        assert_true(real_at(figure, "target_seconds") > 0);
    }
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", "core"));
    assert_code(&run, 0);
    assert_says(run.out, " kernels (target: 50)");
    finished_free(&run);
}

static void bench_core_on_fifty_plugins_uses_the_one_that_does_nothing(void **state) {
    (void)state;
    struct finished run = run_kernelry(FIFTY_PLUGINS, ARGUMENTS("bench", "core"));
    assert_code(&run, 0);
    assert_says(run.out, "50 plugins");
    assert_says(run.out, "50 kernels");
    assert_says(run.out, "kernel noop");
    finished_free(&run);
}

static void bench_with_wrong_arguments_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *arguments[8];
        const char *words;
    } cases[] = {
        {{"bench"}, "expected one of MODEL"},
        {{"bench", "a", "b"}, "one MODEL"},
        {{"bench", "--in-features", "8"}, "go together"},
        {{"bench", "--in-features", "8", "--shapes", "a"}, "expected one of MODEL"},
        {{"bench", "core", "a", "b"}, "'core'"},
        {{"bench", "--weight-type", "u5"}, "u5"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct finished run = run_kernelry(CPU_PLUGINS, cases[i].arguments);
        assert_code(&run, 2);
        assert_says(run.err, cases[i].words);
        finished_free(&run);
    }
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", "core", scratch_at("nowhere")));
    assert_code(&run, 3);
    finished_free(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bench_of_options_measures_that_layer),
        cmocka_unit_test(bench_of_a_model_measures_each_description_once),
        cmocka_unit_test(bench_of_a_shape_that_nobody_takes_goes_on),
        cmocka_unit_test(bench_core_prints_all_figures),
        cmocka_unit_test(bench_core_on_fifty_plugins_uses_the_one_that_does_nothing),
        cmocka_unit_test(bench_with_wrong_arguments_is_refused),
    };
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end) ? 1 : 0;
}
