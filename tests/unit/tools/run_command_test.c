/* kernelry run: right layers, wrong kernels, given activations, and what is refused. */
#include "floats.h"
#include "npy.h"
#include "oracle.h"
#include "process.h"
#include "random.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* With a bias: 96 × 48 */
#define LAYER "model.layers.1.self_attn.k_proj"

static int make_models(void **state) { return scratch_quantized(state, "--asym"); }

/* ---- models and shapes ---------------------------------------------------------------- */

static void run_of_a_model_finds_every_layer_right(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), "--kernel", "reference",
                                            "--m", "0,1,5", "--json"));
    assert_code(&run, 0);
    assert_string_equal(run.err, ""); /* no bar where there is no terminal */
    assert_true(flag_at(run.json, "ok"));
    assert_int_equal(json_array_size(json_at(run.json, "layers")), 14);
    json_t *layer = json_at(run.json, "layers.10");
    assert_string_equal(text_at(layer, "name"), LAYER);
    assert_string_equal(text_at(layer, "kernel"), "reference");
    assert_string_equal(text_at(layer, "linear.weight_type"), "u4");
    assert_true(flag_at(layer, "bias"));
    assert_true(number_at(layer, "prepared_bytes") >= 96 * 48 / 2);
    assert_int_equal(json_array_size(json_at(layer, "applies")), 3);
    assert_int_equal(number_at(layer, "applies.2.m"), 5);
    double error = json_real_value(json_at(layer, "applies.2.error"));
    assert_true(error > 1e-5 && error < 4e-3); /* rounded to bf16, and no further off */
    assert_true(json_real_value(json_at(layer, "applies.2.bound")) == 4e-3);
    assert_true(number_at(run.json, "peak_memory_bytes") > 1000000);
    finished_free(&run);
}

static void run_for_people_groups_layers_that_are_alike(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("model")));
    assert_code(&run, 0);
    assert_says(run.out, "model.layers.*.mlp.down_proj");
    assert_silent_on(run.out, "model.layers.0");
    assert_says(run.out, "14 of 14 right");
    finished_free(&run);
}

static void run_of_one_layer_runs_it_alone(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), "--layer", LAYER, "--m", "2"));
    assert_code(&run, 0);
    assert_says(run.out, LAYER);
    assert_says(run.out, "1 of 1 right");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), "--layer", "k_proj"));
    assert_code(&run, 3);
    assert_says(run.err, "k_proj");
    finished_free(&run);
}

static void run_with_a_seed_gives_the_same_errors_again(void **state) {
    (void)state;
    double errors[3];
    static const char *const seeds[] = {"4", "4", "5"};
    for (int i = 0; i < 3; i++) {
        struct finished run =
            run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), "--layer", LAYER, "--m",
                                                "3", "--seed", seeds[i], "--json"));
        assert_code(&run, 0);
        errors[i] = json_real_value(json_at(run.json, "layers.0.applies.0.error"));
        finished_free(&run);
    }
    assert_true(errors[0] == errors[1]);
    assert_true(errors[0] != errors[2]);
}

static void run_of_all_shapes_scaled_down_finds_them_right(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("run", "--shapes", SHAPES_FILE, "--scale-down", "16",
                                            "--m", "1,3", "--kernel", "reference", "--json"));
    assert_code(&run, 0);
    assert_int_equal(json_array_size(json_at(run.json, "layers")), 31);
    assert_string_equal(text_at(run.json, "layers.27.name"), "float-activations");
    double error = json_real_value(json_at(run.json, "layers.27.applies.1.error"));
    assert_true(error > 0 && error < 1e-6);
    finished_free(&run);
}

/* ---- kernels that are wrong ------------------------------------------------------------ */

static struct finished run_lying(const char *kernel) {
    return run_kernelry(CPU_PLUGINS,
                        ARGUMENTS("run", "--plugin-path", LYING_PLUGIN, "--kernel", kernel,
                                  "--shapes", SHAPES_FILE, "--name", "float-activations",
                                  "--scale-down", "8", "--m", "1,3", "--json"));
}

static void run_on_an_honest_kernel_succeeds(void **state) {
    (void)state;
    struct finished run = run_lying("honest");
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "layers.0.plugin"), "lying");
    finished_free(&run);
}

static void run_on_a_lying_kernel_tells_the_lie(void **state) {
    (void)state;
    static const char *const lies[][2] = {
        {"loses_first_column", "relative error"},
        {"loses_last_column", "relative error"},
        {"loses_last_row", "relative error"},
        {"reads_behind", "relative error inf"},
        {"turns_nan", "relative error inf"},
        {"writes_behind", "wrote behind row 0 of y"},
        {"leaves_dirt", "zeroed part"},
        {"bends_a_weight", "a single 1 at column 0"},
        {"fails", "apply failed"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct finished run = run_lying(lies[i][0]);
        assert_code(&run, 1);
        assert_false(flag_at(run.json, "ok"));
        assert_says(text_at(run.json, "layers.0.complaint"), lies[i][0]);
        assert_says(text_at(run.json, "layers.0.complaint"), lies[i][1]);
        finished_free(&run);
    }
}

static void run_goes_on_after_a_kernel_that_fails(void **state) {
    (void)state;
    static const char text[] =
        "{\"shapes\": ["
        "{\"name\": \"first\", \"in_features\": 64, \"out_features\": 8, \"group_size\": 32,"
        " \"weight_type\": \"u4b8\", \"activation_type\": \"f32\"},"
        "{\"name\": \"second\", \"in_features\": 64, \"out_features\": 8, \"group_size\": 32,"
        " \"weight_type\": \"u4b8\", \"activation_type\": \"f16\"}]}";
    scratch_write("two.json", text, sizeof text - 1);
    setenv("KERNELRY_PREFER", "fails", 1);
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("run", "--plugin-path", LYING_PLUGIN, "--shapes",
                                            scratch_at("two.json"), "--m", "1"));
    unsetenv("KERNELRY_PREFER");
    assert_code(&run, 1);
    assert_says(run.out, "kernel lying/fails: apply failed");
    assert_says(run.out, "1 of 2 right");
    finished_free(&run);
}

static void run_without_a_kernel_says_why(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(MOCK_PLUGINS "/nowhere", ARGUMENTS("run", scratch_at("model"), "--json"));
    assert_code(&run, 1);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), "--kernel", "nobody"));
    assert_code(&run, 2);
    assert_says(run.err, "nobody");
    finished_free(&run);
    run = run_kernelry(MOCK_PLUGINS "/nowhere",
                       ARGUMENTS("run", "--plugin-path", LYING_PLUGIN, scratch_at("model")));
    assert_code(&run, 1);
    assert_says(run.out, "takes f32 alone");
    assert_says(run.out, "0 of 14 right");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), "--device", "cpu:none"));
    assert_code(&run, 4);
    assert_says(run.err, "kernelry check");
    finished_free(&run);
}

/* ---- given activations ------------------------------------------------------------------ */

enum { ROWS = 6, K = 96, N = 48 };

/* x of shape [2, 3, K]. */
static void write_x(uint32_t type) {
    float values[ROWS * K];
    struct random random = random_seeded(1, 1);
    for (int i = 0; i < ROWS * K; i++)
        float_store(values, i, type, (double)random_normal(&random));
    struct npy x = {.type = type,
                    .rank = 3,
                    .shape = {2, 3, K},
                    .bytes = (uint64_t)ROWS * K * kry_type_bytes(type),
                    .data = values};
    assert_int_equal(npy_write(scratch_at("x.npy"), &x), KRY_OK);
}

static struct finished run_files(const char *input, const char *output) {
    return run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), "--layer", LAYER,
                                               "--input", input, "--output", output));
}

static void assert_product(const struct npy *x, const struct npy *y, double bound) {
    struct oracle_config *config = NULL;
    kry_checkpoint *checkpoint = NULL;
    struct oracle *oracle = NULL;
    double expected[ROWS * N];
    assert_int_equal(oracle_config_open(scratch_at("model"), &config), KRY_OK);
    assert_int_equal(kry_checkpoint_open(scratch_at("model"), NULL, &checkpoint), KRY_OK);
    assert_int_equal(oracle_open(config, checkpoint, LAYER, &oracle), KRY_OK);
    assert_true(oracle->has_bias);
    struct oracle_product product = {.m = ROWS, .x = x->data, .y = expected, .x_type = x->type};
    assert_int_equal(oracle_multiply(oracle, &product), KRY_OK);
    struct oracle_error error = oracle_compare(y->data, y->type, 0, ROWS, N, expected);
    assert_true(error.relative < bound);
    oracle_close(&oracle);
    kry_checkpoint_close(&checkpoint);
    oracle_config_close(&config);
}

static void run_with_input_writes_the_product(void **state) {
    (void)state;
    static const uint32_t types[] = {KRY_TYPE_F16, KRY_TYPE_F32};
    for (int i = 0; i < 2; i++) {
        write_x(types[i]);
        struct finished run = run_files(scratch_at("x.npy"), scratch_at("y.npy"));
        assert_code(&run, 0);
        assert_says(run.out, "y.npy: [2, 3, 48]");
        finished_free(&run);
        struct npy x, y;
        assert_int_equal(npy_read(scratch_at("x.npy"), &x), KRY_OK);
        assert_int_equal(npy_read(scratch_at("y.npy"), &y), KRY_OK);
        assert_int_equal(y.type, types[i]);
        assert_int_equal(y.rank, 3);
        assert_int_equal(y.shape[0] * 1000 + y.shape[1] * 100 + y.shape[2], 2348);
        assert_product(&x, &y, types[i] == KRY_TYPE_F16 ? 1e-3 : 1e-5);
        npy_free(&x);
        npy_free(&y);
    }
}

static void run_with_input_of_no_rows_writes_no_rows(void **state) {
    (void)state;
    struct npy x = {.type = KRY_TYPE_F16, .rank = 2, .shape = {0, K}, .data = NULL};
    assert_int_equal(npy_write(scratch_at("x.npy"), &x), KRY_OK);
    struct finished run = run_files(scratch_at("x.npy"), scratch_at("y.npy"));
    assert_code(&run, 0);
    finished_free(&run);
    struct npy y;
    assert_int_equal(npy_read(scratch_at("y.npy"), &y), KRY_OK);
    assert_int_equal(y.shape[0], 0);
    assert_int_equal(y.shape[1], N);
    npy_free(&y);
}

static void run_with_a_wrong_input_is_refused(void **state) {
    (void)state;
    unlink(scratch_at("y.npy"));
    float values[K + 1] = {0};
    struct npy x = {.type = KRY_TYPE_F32, .rank = 1, .shape = {K + 1}, .bytes = sizeof values};
    x.data = values;
    assert_int_equal(npy_write(scratch_at("wide.npy"), &x), KRY_OK);
    struct finished run = run_files(scratch_at("wide.npy"), scratch_at("y.npy"));
    assert_code(&run, 3);
    assert_says(run.err, "its last dimension is 97; " LAYER " has 96 input features");
    finished_free(&run);

    x = (struct npy){.type = KRY_TYPE_F32, .rank = 0, .bytes = 4, .data = values};
    assert_int_equal(npy_write(scratch_at("scalar.npy"), &x), KRY_OK);
    run = run_files(scratch_at("scalar.npy"), scratch_at("y.npy"));
    assert_code(&run, 3);
    assert_says(run.err, "a single number");
    finished_free(&run);

    scratch_write("no.npy", "nothing of the kind", 19);
    run = run_files(scratch_at("no.npy"), scratch_at("y.npy"));
    assert_code(&run, 3);
    assert_says(run.err, "not a .npy file");
    finished_free(&run);
    assert_int_equal(access(scratch_at("y.npy"), F_OK), -1);
}

static void run_onto_a_full_disk_says_so(void **state) {
    (void)state;
    write_x(KRY_TYPE_F16);
    struct finished run = run_files(scratch_at("x.npy"), "/dev/full");
    assert_code(&run, 4);
    assert_says(run.err, "/dev/full");
    finished_free(&run);
}

/* ---- what is refused --------------------------------------------------------------------- */

static void run_with_wrong_arguments_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *arguments[8];
        const char *words;
    } cases[] = {
        {{"run"}, "either a MODEL or --shapes"},
        {{"run", "a", "b"}, "one MODEL"},
        {{"run", "a", "--shapes", "b"}, "either a MODEL or --shapes"},
        {{"run", "a", "--scale-down", "2"}, "go with --shapes"},
        {{"run", "--shapes", "a", "--layer", "b"}, "--name"},
        {{"run", "a", "--layer", "b", "--input", "c"}, "--output"},
        {{"run", "a", "--input", "b", "--output", "c"}, "--layer"},
        {{"run", "--shapes", "a", "--scale-down", "0"}, "scale-down"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct finished run = run_kernelry(CPU_PLUGINS, cases[i].arguments);
        assert_code(&run, 2);
        assert_says(run.err, cases[i].words);
        finished_free(&run);
    }
}

static void run_of_what_is_no_quantized_model_is_refused(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("dense")));
    assert_code(&run, 3);
    assert_says(run.err, "no layer of it is quantized");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("nowhere")));
    assert_code(&run, 3);
    finished_free(&run);
}

static void run_of_scales_that_are_not_finite_warns_and_compares_all_the_same(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("quantize", scratch_at("dense"), scratch_at("odd")));
    assert_code(&run, 0);
    finished_free(&run);
    kry_checkpoint *checkpoint = NULL;
    kry_tensor tensor = KRY_INIT(kry_tensor);
    assert_int_equal(kry_checkpoint_open(scratch_at("odd"), NULL, &checkpoint), KRY_OK);
    assert_int_equal(kry_checkpoint_find_tensor(checkpoint, LAYER ".weight_scale", &tensor),
                     KRY_OK);
    size_t bytes, at = 0;
    char *file = scratch_read("odd/model.safetensors", &bytes);
    uint16_t scales[4];
    memcpy(scales, tensor.data, sizeof scales);
    while (at + sizeof scales < bytes && memcmp(file + at, scales, sizeof scales) != 0)
        at++;
    static const uint16_t odd[2] = {0x7fc0, 0x7f80}; /* bf16 NaN, infinity */
    memcpy(file + at, odd, sizeof odd);
    kry_checkpoint_close(&checkpoint);
    unlink(scratch_at("odd/model.safetensors"));
    scratch_write("odd/model.safetensors", file, bytes);
    free(file);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("odd"), "--layer", LAYER));
    assert_code(&run, 0);
    assert_says(run.err, "warning");
    assert_says(run.err, LAYER);
    finished_free(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_of_a_model_finds_every_layer_right),
        cmocka_unit_test(run_for_people_groups_layers_that_are_alike),
        cmocka_unit_test(run_of_one_layer_runs_it_alone),
        cmocka_unit_test(run_with_a_seed_gives_the_same_errors_again),
        cmocka_unit_test(run_of_all_shapes_scaled_down_finds_them_right),
        cmocka_unit_test(run_on_an_honest_kernel_succeeds),
        cmocka_unit_test(run_on_a_lying_kernel_tells_the_lie),
        cmocka_unit_test(run_goes_on_after_a_kernel_that_fails),
        cmocka_unit_test(run_without_a_kernel_says_why),
        cmocka_unit_test(run_with_input_writes_the_product),
        cmocka_unit_test(run_with_input_of_no_rows_writes_no_rows),
        cmocka_unit_test(run_with_a_wrong_input_is_refused),
        cmocka_unit_test(run_onto_a_full_disk_says_so),
        cmocka_unit_test(run_with_wrong_arguments_is_refused),
        cmocka_unit_test(run_of_what_is_no_quantized_model_is_refused),
        cmocka_unit_test(run_of_scales_that_are_not_finite_warns_and_compares_all_the_same),
    };
    return cmocka_run_group_tests(tests, make_models, scratch_end) ? 1 : 0;
}
