/*
 * Every kernel of a plugin with the tiled layout that this processor can run, against a plain sum
 * over decoded weights: all types, groups, edges and row counts.
 *
 * usage: test_cpu_tiled_kernels PLUGIN ENTRY NEEDED [EMULATED]
 *
 * NEEDED are the KRY_CPU_* bits without which the plugin cannot run here: skipped then.
 * EMULATED are bits to be taken for granted besides those of this processor.
 */
#include "cpu_here.h"
#include "plugin_under_test.h"
#include "problem.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SKIPPED = 77 };

static const kry_plugin *plugin;
static uint64_t features;
static const kry_linear_kernel *kernel; /* the one being tested */
static bool int8;                       /* it quantizes activations */
static uint32_t x_type;                 /* it takes this one */
static struct problem problem; /* the running test's: teardown releases it after a failure */

static int teardown_problem(void **state) {
    (void)state;
    problem_destroy(&problem);
    return 0;
}

static int64_t verdict(const kry_linear *linear, uint64_t cpu_features, kry_refusal *refusal) {
    kry_device device = KRY_INIT(kry_device);
    strcpy(device.platform, "cpu");
    device.cpu_features = cpu_features;
    *refusal = KRY_INIT(kry_refusal);
    return kernel->can_implement(&device, linear, refusal);
}

/* Make kernel number i the one being tested, and x_type a type of x that it takes; false where this
 * processor lacks what it needs. */
static bool choose(uint64_t i) {
    static const uint32_t x_types[] = {KRY_TYPE_BF16, KRY_TYPE_F16};
    kernel = plugin->kernels[i]->linear;
    int8 = plugin->kernels[i]->flags & KRY_KERNEL_INT8_ACTIVATIONS;
    kry_linear linear = linear_of(16, 16);
    linear.allowed = KRY_ALLOW_INT8_ACTIVATIONS;
    kry_refusal refusal;
    for (size_t j = 0; j < sizeof x_types / sizeof x_types[0]; j++) {
        x_type = linear.x_type = x_types[j];
        if (verdict(&linear, UINT64_MAX, &refusal) != KRY_REFUSED)
            break;
    }
    return verdict(&linear, features, &refusal) != KRY_REFUSED;
}

/* For each kernel that runs here. */
#define FOR_EACH_KERNEL                                                                            \
    for (uint64_t kernel_at = 0; kernel_at < plugin->kernel_count; kernel_at++)                    \
        if (choose(kernel_at))

/* Whether the kernel takes the description; some take bf16 or 4-bit weights alone. */
static bool takes(const kry_linear *linear) {
    kry_refusal refusal;
    if (verdict(linear, features, &refusal) != KRY_REFUSED)
        return true;
    assert_true(refusal.code == KRY_REFUSAL_X_TYPE || refusal.code == KRY_REFUSAL_WEIGHT_TYPE);
    return false;
}

/* Replace the decoded x by what is left of it after quantizing a token, as types.h says. */
static void quantize_expectation(void) {
    int64_t K = problem.is.linear.in_features;
    for (int64_t row = 0; row < problem.is.m; row++) {
        double *x = problem.x_values + row * K;
        float most = 0;
        for (int64_t k = 0; k < K; k++)
            most = fmaxf(most, (float)fabs(x[k]));
        float scale = most / 127 == 0 ? 1 : most / 127;
        for (int64_t k = 0; k < K; k++)
            x[k] = (double)scale * (double)rintf((float)x[k] / scale);
    }
}

/* Each y: its own rounding, and that of a sum of `terms` in f32. A sum in f32 may lose half a
 * step each time; a segment has 512 columns, each group one more sum. */
static void check(void) {
    const kry_linear *linear = &problem.is.linear;
    int64_t columns = linear->in_features < 512 ? linear->in_features : 512;
    double terms = (double)(columns + problem.groups + linear->in_features / 512 + 4);
    double error_squares = 0, squares = 0;
    if (int8)
        quantize_expectation();
    for (int64_t row = 0; row < problem.is.m; row++)
        for (int64_t n = 0; n < linear->out_features; n++) {
            double magnitude, expected = problem_expect(&problem, row, n, &magnitude);
            double found = element_at(linear->y_type, problem.y.data,
                                      row * (linear->out_features + problem.is.y_gap) + n);
            double bound =
                element_spacing(linear->y_type, expected) / 2 + terms * 0x1p-24 * magnitude;
            error_squares += (found - expected) * (found - expected);
            squares += expected * expected;
            if (!(fabs(found - expected) <= bound)) {
                problem_print(&problem);
                fail_msg("y[%" PRId64 "][%" PRId64 "]: found %.9g, expected %.9g within %g", row, n,
                         found, expected, bound);
            }
        }
    static const double norm_bounds[] = {0, 1e-3, 4e-3, 1e-5};
    if (problem.is.m * linear->out_features >= 64 &&
        !(sqrt(error_squares) <= norm_bounds[linear->y_type] * sqrt(squares))) {
        problem_print(&problem);
        fail_msg("norm of the error %g, of y %g", sqrt(error_squares), sqrt(squares));
    }
    problem_check_bounds(&problem);
}

static void try_problem(struct problem_options *options) {
    options->cpu_features = features;
    if (int8)
        options->linear.allowed = KRY_ALLOW_INT8_ACTIVATIONS;
    if (!takes(&options->linear))
        return;
    problem_create(&problem, kernel, options);
    problem_run(&problem, kernel);
    check();
    problem_destroy(&problem);
}

static const int64_t K_edges[] = {1, 7, 8, 9, 31, 33, 77};
static const int64_t N_edges[] = {1, 7, 8, 9, 15, 16, 17, 24, 33, 70};
static const int64_t group_sizes[] = {-1, 8, 16, 24, 32, 128, 300};
enum { K_EDGES = 7, N_EDGES = 10, GROUP_SIZES = 7 };

static void apply_every_mix_of_types_and_groups_gives_the_sum(void **state) {
    (void)state;
    FOR_EACH_KERNEL {
        uint64_t draw = 1;
        for (uint32_t i = 0; i < 4 * 27 * GROUP_SIZES * 2; i++) {
            uint32_t rest = i;
            struct problem_options options = {.seed = i, .m = 1 + i % 18};
            options.linear = linear_of(K_edges[random_below(&draw, K_EDGES)],
                                       N_edges[random_below(&draw, N_EDGES)]);
            kry_linear *linear = &options.linear;
            mix(linear, group_sizes, GROUP_SIZES, &rest);
            options.bias = random_below(&draw, 2) != 0;
            cut_out(linear, random_below(&draw, 2) * random_below(&draw, 50),
                    random_below(&draw, 40));
            draw_operands(&options, &draw);
            try_problem(&options);
        }
    }
}

/* Each row count from one to a chunk and one more, and two chunks and one, with as many tiles as
 * leave some for each micro-kernel. */
static void apply_every_row_count_gives_the_sum(void **state) {
    (void)state;
    FOR_EACH_KERNEL {
        for (uint32_t i = 0; i < 18 * 8; i++) {
            struct problem_options options = {.seed = i, .m = i % 18 < 17 ? 1 + i % 18 : 33};
            options.linear = linear_of(200, 16 * (1 + i / 36) + 1 + 7 * (i / 18 % 2));
            options.linear.weight_type = 1 + i / 18 % 4;
            options.linear.x_type = x_type;
            options.linear.group_size = i / 18 % 2 == 0 ? 32 : 48;
            options.bias = true;
            options.y_gap = 3;
            try_problem(&options);
        }
    }
}

/* Groups of several segments, passes of 256 rows, more tiles than a task takes. */
static void apply_across_segments_and_passes_gives_the_sum(void **state) {
    (void)state;
    static const int64_t rows[] = {1, 4, 17, 260};
    FOR_EACH_KERNEL {
        for (uint32_t i = 0; i < 16; i++) {
            struct problem_options options = {.seed = i, .m = rows[i / 4], .x_gap = 1};
            options.linear = linear_of(i / 4 == 3 ? 520 : 1416, 1 + 40 * (i % 3));
            options.linear.weight_type = 1 + i % 4;
            options.linear.x_type = x_type;
            options.linear.group_size = i % 2 == 0 ? -1 : 600;
            options.linear.act_order = i % 5 == 1;
            cut_out(&options.linear, 30, 77);
            try_problem(&options);
        }
    }
}

static void apply_random_descriptions_gives_the_sum(void **state) {
    (void)state;
    FOR_EACH_KERNEL {
        uint64_t draw = 20240607;
        for (uint32_t i = 0; i < 300; i++) {
            struct problem_options options = {.seed = random_next(&draw),
                                              .m = 1 + random_below(&draw, 40)};
            options.linear = linear_of(1 + random_below(&draw, 300), 1 + random_below(&draw, 90));
            kry_linear *linear = &options.linear;
            linear->weight_type = 1 + (uint32_t)random_below(&draw, 4);
            linear->x_type = 1 + (uint32_t)random_below(&draw, 3);
            linear->y_type = 1 + (uint32_t)random_below(&draw, 3);
            linear->scale_type = 1 + (uint32_t)random_below(&draw, 3);
            linear->group_size = random_below(&draw, 8) == 0 ? -1 : 1 + random_below(&draw, 200);
            linear->act_order = random_below(&draw, 4) == 0;
            cut_out(linear, random_below(&draw, 300), random_below(&draw, 300));
            options.x_gap = random_below(&draw, 9);
            options.y_gap = random_below(&draw, 9);
            options.bias = random_below(&draw, 2) != 0;
            options.misaligned = random_below(&draw, 2) != 0;
            try_problem(&options);
        }
    }
}

/* y[row][n] is the number rounded once: the nearer of two, the even one where both are as near. */
static void assert_rounded(int64_t row, int64_t n, double exact) {
    uint32_t type = problem.is.linear.y_type;
    int64_t at = row * (problem.is.linear.out_features + problem.is.y_gap) + n;
    double error = fabs(element_at(type, problem.y.data, at) - exact);
    double half = element_spacing(type, exact) / 2;
    if (!(error < half || (error == half && element_bits(type, problem.y.data, at) % 2 == 0))) {
        problem_print(&problem);
        fail_msg("column %" PRId64 ", n %" PRId64 ": found %.17g, expected %.17g rounded", row, n,
                 element_at(type, problem.y.data, at), exact);
    }
}

/* A norm would hide one lost column; a single number in x does not. 127 stays what it is as
 * int8, and with 11 bits of scale each product is exact in f32. */
static void apply_one_hot_x_gives_the_dequantized_column_rounded_once(void **state) {
    (void)state;
    enum { K = 77, N = 41 };
    FOR_EACH_KERNEL {
        for (uint32_t i = 0; i < 24; i++) {
            struct problem_options options = {.seed = i, .m = K, .linear = linear_of(K, N)};
            options.cpu_features = features;
            options.linear.weight_type = 1 + i % 4;
            options.linear.y_type = 1 + i / 4 % 3;
            options.linear.act_order = i / 12;
            options.linear.group_size = 16;
            options.linear.x_type = x_type;
            options.linear.scale_type = KRY_TYPE_BF16;
            options.linear.allowed = int8 ? KRY_ALLOW_INT8_ACTIVATIONS : 0;
            cut_out(&options.linear, 9, 0);
            if (!takes(&options.linear))
                continue;
            problem_create(&problem, kernel, &options);
            for (int64_t row = 0; row < K; row++)
                for (int64_t k = 0; k < K; k++)
                    problem_set_x(&problem, row, k, row == k ? 127 : 0);
            problem_run(&problem, kernel);
            for (int64_t k = 0; k < K; k++)
                for (int64_t n = 0; n < N; n++)
                    assert_rounded(k, n, 127 * problem.w[n * K + k]);
            problem_destroy(&problem);
        }
    }
}

/* Sums as large as they get, in which no intermediate may saturate or wrap. All are integers
 * below 2^24. */
static void apply_to_the_largest_codes_and_activations_is_exact(void **state) {
    (void)state;
    enum { K = 1030, N = 17, M = 5 };
    FOR_EACH_KERNEL {
        for (uint32_t i = 0; i < 8; i++) {
            struct problem_options options = {.m = M, .linear = linear_of(K, N)};
            options.cpu_features = features;
            options.linear.weight_type = i < 4 ? KRY_WEIGHT_U4B8 : KRY_WEIGHT_U8B128;
            options.linear.x_type = x_type;
            options.linear.allowed = int8 ? KRY_ALLOW_INT8_ACTIVATIONS : 0;
            if (!takes(&options.linear))
                continue;
            problem_create(&problem, kernel, &options);
            for (int64_t n = 0; n < N; n++) {
                for (int64_t k = 0; k < K; k++)
                    problem_set_weight(&problem, n, k, i % 2 != 0 ? 0 : i < 4 ? 15 : 255);
                problem_set_scale(&problem, n, 0, 1);
            }
            for (int64_t row = 0; row < M; row++)
                for (int64_t k = 0; k < K; k++)
                    problem_set_x(&problem, row, k, i % 4 < 2 ? 127 : -127);
            problem_run(&problem, kernel);
            for (int64_t row = 0; row < M; row++)
                for (int64_t n = 0; n < N; n++)
                    assert_rounded(row, n, K * problem.x_values[0] * problem.w[0]);
            problem_destroy(&problem);
        }
    }
}

/* Numbers about the least normal one, whose sums and differences are denormal, too. */
static void make_x_tiny(void) {
    const double least = x_type == KRY_TYPE_F16 ? 0x1p-14 : 0x1p-126;
    for (int64_t row = 0; row < problem.is.m; row++)
        for (int64_t k = 0; k < problem.is.linear.in_features; k++)
            problem_set_x(&problem, row, k, (double)((37 * k + 11 * row) % 64 - 32) * least / 16);
}

static void apply_to_one_row_or_many_gives_the_same_bits(void **state) {
    (void)state;
    enum { M = 33 };
    FOR_EACH_KERNEL {
        for (uint32_t i = 0; i < 8; i++) {
            struct problem_options options = {.seed = i, .m = M, .linear = linear_of(150, 91)};
            options.cpu_features = features;
            options.linear.weight_type = 1 + i % 4;
            options.linear.group_size = 32;
            options.linear.x_type = x_type;
            options.linear.allowed = int8 ? KRY_ALLOW_INT8_ACTIVATIONS : 0;
            if (!takes(&options.linear))
                continue;
            problem_create(&problem, kernel, &options);
            if (i >= 4)
                make_x_tiny();
            problem_run(&problem, kernel);
            unsigned char *whole = malloc(problem.y.bytes);
            assert_non_null(whole);
            memcpy(whole, problem.y.data, problem.y.bytes);
            for (int64_t rows = 1; rows < M; rows++) {
                guarded_fill(&problem.y, 0xff);
                for (int64_t row = 0; row < M; row += rows)
                    assert_int_equal(
                        problem_apply(&problem, kernel, NULL, row, rows < M - row ? rows : M - row),
                        KRY_OK);
                assert_memory_equal(problem.y.data, whole, problem.y.bytes);
            }
            free(whole);
            problem_destroy(&problem);
        }
    }
}

/* Rows that are all zero, hold a number that is none, or vanish when divided by 127. */
static void apply_on_a_row_without_numbers_shows_it_in_that_row_alone(void **state) {
    (void)state;
    enum { K = 45, N = 23, M = 9 };
    FOR_EACH_KERNEL {
        for (uint32_t type = KRY_WEIGHT_U4B8; type <= KRY_WEIGHT_U8; type++) {
            struct problem_options options = {.seed = type, .m = M, .linear = linear_of(K, N)};
            options.cpu_features = features;
            options.linear.weight_type = type;
            options.linear.x_type = x_type;
            options.linear.allowed = int8 ? KRY_ALLOW_INT8_ACTIVATIONS : 0;
            if (!takes(&options.linear))
                continue;
            problem_create(&problem, kernel, &options);
            double least = x_type == KRY_TYPE_F16 ? 0x1p-24 : 0x1p-133;
            for (int64_t k = 0; k < K; k++) {
                problem_set_x(&problem, 4, k, 0);
                problem_set_x(&problem, 6, k, k % 2 == 0 ? least : 0);
            }
            problem_set_x(&problem, 2, 7, NAN);
            problem_set_x(&problem, 3, 44, INFINITY);
            problem_run(&problem, kernel);
            for (int64_t row = 0; row < M; row++)
                for (int64_t n = 0; n < N; n++) {
                    double found = element_at(KRY_TYPE_F32, problem.y.data, row * N + n);
                    assert_true(isfinite(found) ? row != 2 && row != 3 : row == 2 || row == 3);
                    if (row == 4 || row == 6)
                        assert_true(fabs(found) <= least * K * 255 * 4);
                }
            problem_destroy(&problem);
        }
    }
}

/* 16-bit x and y: each bit pattern, brought through a 1 x 1 layer of weight 1. */
static void apply_loads_and_stores_every_16_bit_number(void **state) {
    (void)state;
    for (uint32_t type = KRY_TYPE_F16; type <= KRY_TYPE_BF16; type++)
        FOR_EACH_KERNEL {
            struct problem_options options = {.m = 0x10000, .linear = linear_of(1, 1)};
            options.cpu_features = features;
            options.linear.weight_type = KRY_WEIGHT_U4;
            options.linear.x_type = options.linear.y_type = type;
            if (int8 || !takes(&options.linear))
                continue;
            problem_create(&problem, kernel, &options);
            problem.zero_points.data[0] = 0;
            problem_set_weight(&problem, 0, 0, 1);
            problem_set_scale(&problem, 0, 0, 1);
            for (uint32_t bits = 0; bits < 0x10000; bits++)
                element_set(type, problem.x.data, bits, bits);
            problem_run(&problem, kernel);
            /* The dot products of bf16 take denormals for zero. */
            bool flushes = strstr(plugin->kernels[kernel_at]->name, "bf16") != NULL;
            for (uint32_t bits = 0; bits < 0x10000; bits++) {
                double expected = element_value(type, bits);
                double found = element_at(type, problem.y.data, bits);
                if (flushes && fabs(expected) < 0x1p-126)
                    expected = 0;
                /* An infinity may become no number: the zero point's share of it is none. */
                if (isfinite(expected) ? found != expected : isfinite(found))
                    fail_msg("type %u bits %#x: found %g, expected %g", type, bits, found,
                             expected);
            }
            problem_destroy(&problem);
        }
}

/* Without one of its features each kernel refuses, names the feature, and takes nothing. */
static void kernel_without_a_feature_that_it_needs_refuses(void **state) {
    (void)state;
    kry_linear linear = linear_of(16, 16);
    linear.allowed = KRY_ALLOW_INT8_ACTIVATIONS;
    for (uint64_t i = 0; i < plugin->kernel_count; i++) {
        kry_refusal refusal;
        choose(i);
        linear.x_type = x_type;
        assert_true(verdict(&linear, UINT64_MAX, &refusal) != KRY_REFUSED);
        uint64_t needed = 0;
        for (uint64_t bit = 1; bit != 0; bit <<= 1)
            if (verdict(&linear, ~bit, &refusal) == KRY_REFUSED) {
                assert_int_equal(refusal.code, KRY_REFUSAL_CPU_FEATURE);
                assert_int_equal((uint64_t)refusal.needed & ~(uint64_t)refusal.found, bit);
                needed |= bit;
            }
        assert_int_not_equal(needed, 0);
        assert_true(verdict(&linear, needed, &refusal) != KRY_REFUSED);
    }
}

static void kernel_refuses_activations_that_it_does_not_compute(void **state) {
    (void)state;
    for (uint64_t i = 0; i < plugin->kernel_count; i++) {
        kry_refusal refusal;
        choose(i);
        kry_linear linear = linear_of(16, 16);
        linear.x_type = x_type;
        assert_true((verdict(&linear, UINT64_MAX, &refusal) == KRY_REFUSED) == int8);
        linear.activation_quantization = KRY_ACTIVATION_INT8_TOKEN;
        assert_true((verdict(&linear, UINT64_MAX, &refusal) == KRY_REFUSED) == !int8);
        linear.activation_quantization = KRY_ACTIVATION_FP8_E4M3_TOKEN;
        linear.allowed = KRY_ALLOW_INT8_ACTIVATIONS;
        assert_true(verdict(&linear, UINT64_MAX, &refusal) == KRY_REFUSED);
        assert_int_equal(refusal.code, KRY_REFUSAL_ACTIVATION_QUANTIZATION);
    }
}

int main(int count, char **arguments) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(apply_every_mix_of_types_and_groups_gives_the_sum,
                                  teardown_problem),
        cmocka_unit_test_teardown(apply_every_row_count_gives_the_sum, teardown_problem),
        cmocka_unit_test_teardown(apply_across_segments_and_passes_gives_the_sum, teardown_problem),
        cmocka_unit_test_teardown(apply_random_descriptions_gives_the_sum, teardown_problem),
        cmocka_unit_test_teardown(apply_one_hot_x_gives_the_dequantized_column_rounded_once,
                                  teardown_problem),
        cmocka_unit_test_teardown(apply_to_the_largest_codes_and_activations_is_exact,
                                  teardown_problem),
        cmocka_unit_test_teardown(apply_to_one_row_or_many_gives_the_same_bits, teardown_problem),
        cmocka_unit_test_teardown(apply_on_a_row_without_numbers_shows_it_in_that_row_alone,
                                  teardown_problem),
        cmocka_unit_test_teardown(apply_loads_and_stores_every_16_bit_number, teardown_problem),
        cmocka_unit_test(kernel_without_a_feature_that_it_needs_refuses),
        cmocka_unit_test(kernel_refuses_activations_that_it_does_not_compute),
    };
    if (count < 4) {
        fprintf(stderr, "usage: %s PLUGIN ENTRY NEEDED [EMULATED]\n", arguments[0]);
        return 2;
    }
    uint64_t needed = strtoull(arguments[3], NULL, 0);
    features = cpu_features_here();
    if ((features & needed) != needed)
        return SKIPPED;
    features |= count > 4 ? strtoull(arguments[4], NULL, 0) : 0;
    plugin = plugin_under_test(arguments[1], arguments[2]);
    if (!open_kernels(plugin)) {
        fprintf(stderr, "a kernel cannot open this device\n");
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
