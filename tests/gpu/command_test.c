/*
 * The command on a GPU that the SIMT layer plays: what it finds, decides, runs and measures there.
 * CTest sets where the drivers are, and GPU_PLUGIN.
 */
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

#define PLUGIN "--plugin-path", getenv("GPU_PLUGIN")
#define SMALL "--in-features", "96", "--out-features", "64", "--group-size", "32"
/* One copy of each thing, or a few: a CPU that plays a GPU takes milliseconds for each apply. */
#define BRIEF "--milliseconds", "3", "--rounds", "1", "--read-mib", "1"

static int make_model(void **state) { return scratch_quantized(state, NULL); }

static void devices_lists_the_gpu(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("devices", PLUGIN, "--json"));
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "devices.1.platform"), "cuda");
    assert_string_equal(text_at(run.json, "devices.1.arch"), "sm_80");
    assert_int_equal(number_at(run.json, "devices.1.kernels"), 1);
    /* There is no AMD: machines with one are none that this test is written for. */
    assert_string_equal(text_at(run.json, "absent.0.platform"), "rocm");
    assert_says(text_at(run.json, "absent.0.reason"), "device 'rocm' is not here (");
    assert_int_equal(json_array_size(json_at(run.json, "absent")), 1);
    finished_free(&run);
}

static void explain_and_check_answer_for_devices_here_and_elsewhere(void **state) {
    (void)state;
    static const char *const devices[] = {"cuda", "cuda:0", "cuda:sm_80", "cuda:sm_90a",
                                          "rocm:gfx942"};
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        struct finished run = run_kernelry(
            CPU_PLUGINS, ARGUMENTS("explain", SMALL, PLUGIN, "--device", devices[i], "--json"));
        assert_code(&run, 0);
        assert_says(run.out, "portable");
        finished_free(&run);
        run = run_kernelry(CPU_PLUGINS, ARGUMENTS("check", scratch_at("model"), PLUGIN, "--device",
                                                  devices[i], "--tp", "2"));
        assert_code(&run, 0);
        assert_says(run.out, "portable");
        finished_free(&run);
    }
}

static void device_that_is_not_here_is_told_with_the_reason(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), PLUGIN, "--device", "cuda:1"));
    assert_code(&run, 4);
    assert_says(run.err, "cuda:1' is not here (1 of 1 GPUs visible");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS,
                       ARGUMENTS("run", scratch_at("model"), PLUGIN, "--device", "cuda:sm_80"));
    assert_code(&run, 4);
    assert_says(run.err, "on a device of this machine alone");
    finished_free(&run);
}

static void run_on_the_gpu_finds_layers_right(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), PLUGIN, "--device",
                                            "cuda:0", "--m", "0,1,5", "--json"));
    assert_code(&run, 0);
    assert_true(flag_at(run.json, "ok"));
    assert_string_equal(text_at(run.json, "layers.0.kernel"), "portable");
    assert_int_equal(number_at(run.json, "layers.0.applies.2.m"), 5);
    finished_free(&run);
}

/* Say of a model's tensors of bf16 that they are f16, as which their bits are other numbers. The
 * kernel wants scales of x's type, and files of rows are f16. */
static void make_f16(const char *from) {
    size_t bytes;
    char path[64];
    snprintf(path, sizeof path, "%s/model.safetensors", from);
    char *model = scratch_read(path, &bytes);
    uint64_t header;
    memcpy(&header, model, sizeof header);
    for (size_t i = 8; i < 8 + header; i++)
        if (memcmp(model + i, "\"BF16\"", 6) == 0)
            memcpy(model + i, "\"F16\" ", 6);
    scratch_write(path, model, bytes);
    free(model);
}

/* The rows of a layer, from one file to another: as the CPU gives them, but for rounding. */
static void run_of_a_layer_writes_what_the_cpu_writes(void **state) {
    (void)state;
    enum { K = 96, M = 3, HEADER = 128 };
    static const char layer[] = "model.layers.1.self_attn.k_proj";
    unsigned char x[HEADER + M * K * 2] = "\x93NUMPY\x01";
    x[8] = HEADER - 10;
    memset(x + 10, ' ', HEADER - 11);
    static const char shape[] = "{'descr': '<f2', 'fortran_order': False, 'shape': (3, 96), }";
    memcpy(x + 10, shape, sizeof shape - 1);
    x[HEADER - 1] = '\n';
    for (size_t i = 0; i < M * K; i++) { /* 1 to 2, and their negatives */
        x[HEADER + 2 * i] = (unsigned char)(i * 37);
        x[HEADER + 2 * i + 1] = i % 3 == 0 ? 0xbc : 0x3c;
    }
    scratch_write("x.npy", x, sizeof x);
    make_f16("model");
    char in[4096];
    snprintf(in, sizeof in, "%s", scratch_at("x.npy"));
    static const char *const devices[] = {"cpu", "cuda"};
    char *written[2];
    size_t bytes[2];
    for (size_t i = 0; i < 2; i++) {
        struct finished run =
            run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), PLUGIN, "--device",
                                                devices[i], "--layer", layer, "--input", in,
                                                "--output", scratch_at(devices[i])));
        assert_code(&run, 0);
        finished_free(&run);
        written[i] = scratch_read(devices[i], &bytes[i]);
    }
    assert_int_equal(bytes[0], bytes[1]);
    assert_true(bytes[0] > HEADER + 2 * M);
    /* Bits of f16 beside each other are numbers beside each other. */
    for (size_t i = HEADER; i + 1 < bytes[0]; i += 2) {
        int one = (unsigned char)written[0][i] | (unsigned char)written[0][i + 1] << 8;
        int other = (unsigned char)written[1][i] | (unsigned char)written[1][i + 1] << 8;
        assert_true((one & 0x7c00) != 0x7c00 && abs(one - other) <= 4); /* and finite */
    }
    free(written[0]);
    free(written[1]);
}

/* ---- measuring ------------------------------------------------------------------------- */

static double real_at(json_t *root, const char *path) {
    json_t *value = json_at(root, path);
    assert_true(json_is_real(value));
    return json_real_value(value);
}

static struct finished race(const char *peer) {
    return run_kernelry(CPU_PLUGINS,
                        ARGUMENTS("bench", SMALL, BRIEF, PLUGIN, "--device", "cuda", "--m", "2",
                                  "--compute", "f16", "--peer", peer, "--json"));
}

static void race_measures_ours_the_limits_and_cublas(void **state) {
    (void)state;
    struct finished run = race("cublas");
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "timed_by"), "graph");
    assert_string_equal(text_at(run.json, "peers.0.version"), "13.2.3");
    assert_string_equal(text_at(run.json, "limits.0.limit"), "read");
    assert_string_equal(text_at(run.json, "limits.1.limit"), "f16");
    assert_true(real_at(run.json, "limits.0.median") > 0);
    assert_true(real_at(run.json, "limits.1.median") > 0);
    assert_string_equal(text_at(run.json, "rows.0.entries.0.name"), "f16");
    assert_true(real_at(run.json, "rows.0.entries.0.median_seconds") > 0);
    assert_true(real_at(run.json, "rows.0.entries.0.part_of_read") > 0);
    assert_true(real_at(run.json, "rows.0.entries.0.part_of_peak") > 0);
    assert_string_equal(text_at(run.json, "rows.0.entries.1.name"), "cublas f16");
    assert_true(real_at(run.json, "rows.0.entries.1.median_seconds") > 0);
    assert_string_equal(text_at(run.json, "rows.0.entries.2.name"), "cublas bf16");
    assert_true(json_is_null(json_at(run.json, "rows.0.entries.2.trouble")));
    assert_true(real_at(run.json, "rows.0.entries.0.peers_take_times.cublas f16") > 0);
    finished_free(&run);
}

static void cublas_that_computes_something_else_is_left_out(void **state) {
    (void)state;
    setenv("FAKE_CUBLAS", "wrong", 1);
    struct finished run = race("cublas:f16");
    unsetenv("FAKE_CUBLAS");
    assert_code(&run, 0);
    assert_says(text_at(run.json, "rows.0.entries.1.trouble"), "its y is off by 1");
    finished_free(&run);
}

static void driver_without_graphs_is_told_and_ours_are_measured(void **state) {
    (void)state;
    setenv("FAKE_CUDA_FAILS", "cuStreamCreate", 1);
    struct finished run = race("cublas:f16");
    unsetenv("FAKE_CUDA_FAILS");
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "timed_by"), "queue");
    assert_says(text_at(run.json, "peers.0.trouble"), "cuStreamCreate");
    assert_true(json_is_null(json_at(run.json, "limits.0.median")));
    assert_true(real_at(run.json, "rows.0.entries.0.median_seconds") > 0);
    finished_free(&run);
}

static void cublas_on_a_cpu_is_absent(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("bench", SMALL, BRIEF, "--m", "1", "--compute", "f32",
                                            "--peer", "cublas:f16", "--json"));
    assert_code(&run, 0);
    assert_says(text_at(run.json, "peers.0.trouble"), "on a CUDA device alone");
    finished_free(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_lists_the_gpu),
        cmocka_unit_test(explain_and_check_answer_for_devices_here_and_elsewhere),
        cmocka_unit_test(device_that_is_not_here_is_told_with_the_reason),
        cmocka_unit_test(run_on_the_gpu_finds_layers_right),
        cmocka_unit_test(run_of_a_layer_writes_what_the_cpu_writes),
        cmocka_unit_test(race_measures_ours_the_limits_and_cublas),
        cmocka_unit_test(cublas_that_computes_something_else_is_left_out),
        cmocka_unit_test(driver_without_graphs_is_told_and_ours_are_measured),
        cmocka_unit_test(cublas_on_a_cpu_is_absent),
    };
    return cmocka_run_group_tests(tests, make_model, scratch_end) ? 1 : 0;
}
