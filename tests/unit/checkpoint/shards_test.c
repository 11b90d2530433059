/*
 * Tensor parallel, seen from C: the parts of a layer, each a slice of one checkpoint on a layer of
 * its own, give together what the whole layer gives and what a product in double says. Row-parallel
 * parts are summed in f32, as an all-reduce does, the bias added by the first; column-parallel ones
 * follow each other. On every CPU kernel that takes the parts.
 */
#include "cpu_registry.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { M = 3, PARTS_MAX = 4 };

static float *x, *bias;    /* [M, K], [N] */
static double *expected;   /* [M, N], with the bias */
static size_t kernels_run; /* in one case */

static int free_all(void **state) {
    free(x);
    free(bias);
    free(expected);
    x = bias = NULL;
    expected = NULL;
    return teardown(state);
}

static void *must(size_t bytes) {
    void *memory = aligned_alloc(KRY_ALIGNMENT, (bytes / KRY_ALIGNMENT + 1) * KRY_ALIGNMENT);
    assert_non_null(memory);
    memset(memory, 0, bytes);
    return memory;
}

static float draw(void) {
    static uint32_t state = 352;
    state = state * 1664525 + 1013904223;
    return (float)(state >> 8) / (float)(1 << 23) - 1;
}

/* A normal f16. */
static double value_of(uint16_t half) {
    return ldexp(1024 + (half & 1023), (half >> 10 & 31) - 25) * (half >> 15 ? -1 : 1);
}

static void make_operands(void) {
    int64_t k_count = problem.in_features, n_count = problem.out_features;
    x = must((size_t)(M * k_count) * sizeof *x);
    bias = must((size_t)n_count * sizeof *bias);
    expected = must((size_t)(M * n_count) * sizeof *expected);
    for (int64_t i = 0; i < M * k_count; i++)
        x[i] = draw();
    for (int64_t n = 0; n < n_count; n++)
        bias[n] = draw();
    for (int64_t row = 0; row < M; row++)
        for (int64_t n = 0; n < n_count; n++) {
            double sum = bias[n];
            for (int64_t k = 0; k < k_count; k++) {
                int64_t place = n * problem.groups + problem.g_idx[k];
                sum += (double)x[row * k_count + k] * value_of(problem.s[place]) *
                       (problem.q[n * k_count + k] - problem.z[place]);
            }
            expected[row * n_count + n] = sum;
        }
}

/* ---- parts ----------------------------------------------------------------------------- */

/* One rank's: y[M, n_end - n_begin] of the slice; false where the kernel does not take it. */
static bool run_part(const char *kernel, const kry_slice *slice, const float *with_bias, float *y) {
    kry_checkpoint_weights *weights = NULL;
    kry_layer *layer = NULL;
    assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, slice, &weights), KRY_OK);
    kry_linear linear = *weights->linear;
    linear.x_type = linear.y_type = KRY_TYPE_F32;
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &cpu;
    args.linear = &linear;
    args.kernel = kernel;
    kry_status status = kry_layer_create(registry, &args, &layer);
    if (status == KRY_E_NO_KERNEL) {
        kry_checkpoint_weights_destroy(&weights);
        return false;
    }
    assert_int_equal(status, KRY_OK);
    kry_prepare_args prepare = KRY_INIT(kry_prepare_args);
    prepare.weights = weights->weights;
    kry_workspace workspace = KRY_INIT(kry_workspace);
    assert_int_equal(kry_layer_prepare(layer, &prepare), KRY_OK);
    assert_int_equal(kry_layer_workspace(layer, M, &workspace), KRY_OK);
    kry_apply_args apply = KRY_INIT(kry_apply_args);
    apply.m = M;
    apply.x = x + slice->k_begin;
    apply.x_stride = problem.in_features;
    apply.y = y;
    apply.bias = with_bias;
    apply.scratch = must(workspace.scratch_bytes);
    apply.scratch_bytes = workspace.scratch_bytes;
    apply.zeroed = must(workspace.zeroed_bytes);
    apply.zeroed_bytes = workspace.zeroed_bytes;
    if (kry_layer_apply(layer, &apply) != KRY_OK)
        fail_msg("%s: %s", kernel, kry_error_message());
    free(apply.scratch);
    free(apply.zeroed);
    kry_layer_destroy(&layer);
    kry_checkpoint_weights_destroy(&weights);
    return true;
}

/* The norm of the difference, divided by that of the product; of the worst row. */
static double error_of(const float *y) {
    int64_t n_count = problem.out_features;
    double worst = 0;
    for (int64_t row = 0; row < M; row++) {
        double difference = 0, norm = 0;
        for (int64_t n = 0; n < n_count; n++) {
            double wanted = expected[row * n_count + n];
            difference += pow((double)y[row * n_count + n] - wanted, 2);
            norm += wanted * wanted;
        }
        worst = fmax(worst, isnan(difference) ? (double)INFINITY : sqrt(difference / norm));
    }
    return worst;
}

/* Parts [ends[i - 1], ends[i]) of K, summed; false where the kernel does not take one. */
static bool sum_rows(const char *kernel, const int64_t *ends, size_t parts, float *y) {
    size_t count = (size_t)(M * problem.out_features);
    float *part = must(count * sizeof *part);
    bool taken = true;
    memset(y, 0, count * sizeof *y);
    for (size_t i = 0; i < parts && taken; i++) {
        kry_slice slice = KRY_INIT(kry_slice);
        slice.k_begin = i > 0 ? ends[i - 1] : 0;
        slice.k_end = ends[i];
        taken = run_part(kernel, &slice, i == 0 ? bias : NULL, part);
        for (size_t j = 0; j < count; j++)
            y[j] += part[j];
    }
    free(part);
    return taken;
}

/* Two parts of N, behind each other. */
static bool join_columns(const char *kernel, int64_t middle, float *y) {
    int64_t n_count = problem.out_features;
    float *part = must((size_t)(M * n_count) * sizeof *part);
    bool taken = true;
    for (int i = 0; i < 2 && taken; i++) {
        kry_slice slice = KRY_INIT(kry_slice);
        slice.n_begin = i == 0 ? 0 : middle;
        slice.n_end = i == 0 ? middle : n_count;
        int64_t columns = slice.n_end - slice.n_begin;
        taken = run_part(kernel, &slice, bias + slice.n_begin, part);
        for (int64_t row = 0; row < M; row++)
            memcpy(y + row * n_count + slice.n_begin, part + row * columns,
                   (size_t)columns * sizeof *y);
    }
    free(part);
    return taken;
}

static void check_kernel(const char *kernel, const int64_t (*splits)[PARTS_MAX], size_t count) {
    static const kry_slice whole = {sizeof(kry_slice), 0, 0, 0, 0};
    size_t bytes = (size_t)(M * problem.out_features) * sizeof(float);
    float *y = must(bytes);
    if (run_part(kernel, &whole, bias, y)) {
        kernels_run++;
        double error = error_of(y);
        if (!(error < 1e-5))
            fail_msg("%s, the whole layer: error %g", kernel, error);
        for (size_t i = 0; i < count; i++) {
            size_t parts = 0;
            while (parts < PARTS_MAX && splits[i][parts] > 0)
                parts++;
            memset(y, 0xff, bytes);
            error = sum_rows(kernel, splits[i], parts, y) ? error_of(y) : 0;
            if (!(error < 1e-5))
                fail_msg("%s, %zu parts of K, the first to %lld: error %g", kernel, parts,
                         (long long)splits[i][0], error);
        }
        memset(y, 0xff, bytes);
        error = join_columns(kernel, problem.out_features / 2, y) ? error_of(y) : 0;
        if (!(error < 1e-5))
            fail_msg("%s, two parts of N: error %g", kernel, error);
    }
    free(y);
}

/* The layer that was written, in each of the splits, on every kernel. */
static void check_all(const int64_t (*splits)[PARTS_MAX], size_t count) {
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    assert_int_equal(kry_checkpoint_layer_count(model.checkpoint), 1);
    make_operands();
    kernels_run = 0;
    size_t kernels = kry_registry_kernel_count(registry, "cpu");
    if (kernels == 0)
        skip();
    for (size_t i = 0; i < kernels; i++) {
        kry_kernel_info info = KRY_INIT(kry_kernel_info);
        char name[128];
        assert_int_equal(kry_registry_kernel(registry, "cpu", i, &info), KRY_OK);
        snprintf(name, sizeof name, "%s/%s", info.plugin, info.kernel);
        check_kernel(name, splits, count);
    }
    print_message("%zu of %zu kernels\n", kernels_run, kernels);
    assert_true(kernels_run > 0);
}

static void compressed_tensors_config(const char *more) {
    model_text(&model, "config.json",
               "{\"torch_dtype\": \"float16\", \"quantization_config\": {\"quant_method\": "
               "\"compressed-tensors\", \"format\": \"pack-quantized\", \"config_groups\": "
               "{\"group_0\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": %d, "
               "\"type\": \"int\", \"symmetric\": %s, \"strategy\": \"group\", \"group_size\": "
               "%d%s}}}}}",
               problem.bits, problem.symmetric ? "true" : "false", (int)problem.group_size, more);
}

/* ---- cases ----------------------------------------------------------------------------- */

/* Halves and quarters of 29568 at groups of 128: 14784 is 115.5 of them, 7392 is 57.75. */
static void parts_of_29568_at_128_sum_to_the_whole(void **state) {
    (void)state;
    static const int64_t splits[][PARTS_MAX] = {{14784, 29568}, {7392, 14784, 22176, 29568}};
    problem_make(&problem, 29568, 20, 128, 4, true);
    write_compressed_tensors(&problem, &file, "model.down", 0);
    compressed_tensors_config("");
    check_all(splits, 2);
}

/* Halves and quarters of 704 at groups of 64: 352 is 5.5 of them; and parts that fit nothing. */
static void parts_of_704_at_64_sum_to_the_whole(void **state) {
    (void)state;
    static const int64_t splits[][PARTS_MAX] = {
        {352, 704}, {176, 352, 528, 704}, {37, 352, 704}, {8, 704}, {703, 704}};
    for (int bits = 4; bits <= 8; bits += 4)
        for (int symmetric = 0; symmetric < 2; symmetric++) {
            problem_make(&problem, 704, 72, 64, bits, symmetric != 0);
            write_compressed_tensors(&problem, &file, "model.down", 0);
            compressed_tensors_config("");
            check_all(splits, 5);
            free_all(NULL);
            setup(NULL);
        }
}

static void parts_of_an_act_order_layer_sum_to_the_whole(void **state) {
    (void)state;
    static const int64_t splits[][PARTS_MAX] = {{352, 704}, {176, 352, 528, 704}, {37, 352, 704}};
    problem_make(&problem, 704, 72, 64, 4, false);
    problem_shuffle(&problem);
    write_gptq(&problem, &file, "model.down", WITH_G_IDX);
    model_text(&model, "config.json",
               "{\"torch_dtype\": \"float16\", \"quantization_config\": {\"quant_method\": "
               "\"gptq\", \"bits\": 4, \"group_size\": 64, \"sym\": false, \"desc_act\": true, "
               "\"checkpoint_format\": \"gptq_v2\"}}");
    check_all(splits, 3);
    free_all(NULL);
    setup(NULL);
    problem_make(&problem, 704, 72, 64, 8, true);
    problem_shuffle(&problem);
    write_compressed_tensors(&problem, &file, "model.down", WITH_G_IDX);
    compressed_tensors_config(", \"actorder\": \"group\"");
    check_all(splits, 3);
}

static void parts_of_an_awq_layer_sum_to_the_whole(void **state) {
    (void)state;
    static const int64_t splits[][PARTS_MAX] = {{352, 704}, {176, 352, 528, 704}};
    problem_make(&problem, 704, 72, 64, 4, false);
    write_awq(&problem, &file, "model.down", 0);
    model_text(&model, "config.json",
               "{\"torch_dtype\": \"float16\", \"quantization_config\": {\"quant_method\": "
               "\"awq\", \"bits\": 4, \"group_size\": 64, \"version\": \"gemm\"}}");
    check_all(splits, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(parts_of_29568_at_128_sum_to_the_whole, setup, free_all),
        cmocka_unit_test_setup_teardown(parts_of_704_at_64_sum_to_the_whole, setup, free_all),
        cmocka_unit_test_setup_teardown(parts_of_an_act_order_layer_sum_to_the_whole, setup,
                                        free_all),
        cmocka_unit_test_setup_teardown(parts_of_an_awq_layer_sum_to_the_whole, setup, free_all),
    };
    return cmocka_run_group_tests_name("checkpoint shards", tests, open_registry, close_registry)
               ? 1
               : 0;
}
