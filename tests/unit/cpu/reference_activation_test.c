/*
 * Activations that the model wants quantized: the reference quantizes a row as types.h defines
 * it. The expectation searches the table of quantized values for the nearest.
 */
#include "plugin_under_test.h"
#include "problem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const kry_linear_kernel *kernel;
static struct problem problem;

/* The values a quantized activation may have, ascending; ties go to even indices. */
static double table[256];
static int table_length;

static int setup_kernel(void **state) {
    (void)state;
    kernel =
        plugin_under_test(CPU_REFERENCE_PLUGIN, "kry_plugin_cpu_reference")->kernels[0]->linear;
    return 0;
}

static int teardown_problem(void **state) {
    (void)state;
    problem_destroy(&problem);
    return 0;
}

/* e4m3: sign, 4 bits of exponent with bias 7, 3 of fraction; no infinities, one NaN a sign. */
static double e4m3_value(int magnitude) {
    int exponent = magnitude >> 3, fraction = magnitude & 7;
    return exponent == 0 ? ldexp(fraction, -9) : ldexp(8 + fraction, exponent - 10);
}

static double fill_table(uint32_t quantization) {
    table_length = 0;
    if (quantization == KRY_ACTIVATION_INT8_TOKEN) {
        for (int q = -128; q <= 127; q++)
            table[table_length++] = q;
        return 127;
    }
    for (int magnitude = 0x7e; magnitude > 0; magnitude--)
        table[table_length++] = -e4m3_value(magnitude);
    for (int magnitude = 0; magnitude <= 0x7e; magnitude++)
        table[table_length++] = e4m3_value(magnitude);
    return 448;
}

static double nearest(double value) {
    int best = 0;
    for (int i = 1; i < table_length; i++) {
        double gain = fabs(table[best] - value) - fabs(table[i] - value);
        if (gain > 0 || (gain == 0 && i % 2 == 0))
            best = i;
    }
    return table[best];
}

/* Replace the decoded x by what is left of it after quantizing. */
static void quantize_expectation(double largest_quantized) {
    int64_t in_features = problem.is.linear.in_features;
    for (int64_t row = 0; row < problem.is.m; row++) {
        double *x = problem.x_values + row * in_features;
        float largest = 0;
        for (int64_t k = 0; k < in_features; k++)
            largest = fabs(x[k]) > largest ? (float)fabs(x[k]) : largest;
        float scale = largest / (float)largest_quantized;
        if (scale == 0)
            scale = 1;
        for (int64_t k = 0; k < in_features; k++) {
            float scaled = (float)x[k] / scale;
            x[k] = nearest(scaled) * scale;
        }
    }
}

static void quantized_rows_match_the_definition(uint32_t quantization) {
    double largest = fill_table(quantization);
    for (uint32_t i = 0; i < 36; i++) {
        struct problem_options options = {.seed = i, .m = 18, .x_gap = i % 2, .bias = i % 3 == 0};
        options.linear = linear_of(70 + i, 6);
        options.linear.activation_quantization = quantization;
        options.linear.weight_type = 1 + i % 4;
        options.linear.x_type = 1 + i / 4 % 3;
        options.linear.y_type = 1 + i / 12 % 3;
        options.linear.group_size = 32;
        options.linear.act_order = i % 5 == 0;
        problem_create(&problem, kernel, &options);
        for (int64_t k = 0; k < options.linear.in_features; k++) {
            problem_set_x(&problem, 1, k, 0);
            problem_set_x(&problem, 2, k, k % 2 == 0 ? -0.75 : 0.5); /* the largest is negative */
        }
        problem_run(&problem, kernel);
        quantize_expectation(largest);
        problem_check(&problem);
        problem_destroy(&problem);
    }
}

static void apply_with_int8_activations_matches_the_definition(void **state) {
    (void)state;
    quantized_rows_match_the_definition(KRY_ACTIVATION_INT8_TOKEN);
}

static void apply_with_fp8_activations_matches_the_definition(void **state) {
    (void)state;
    quantized_rows_match_the_definition(KRY_ACTIVATION_FP8_E4M3_TOKEN);
}

/* A row whose largest element makes the scale 1, with every middle between two quantized values
   and the f32 beside it; one column of W at a time is 1, so y shows each quantized element. */
static void middles_go_to_even(uint32_t quantization) {
    double largest = fill_table(quantization);
    int64_t in_features = 3 * (table_length - 1) + 1;
    struct problem_options options = {.m = 1, .linear = linear_of(in_features, in_features)};
    options.linear.activation_quantization = quantization;
    problem_create(&problem, kernel, &options);
    for (int64_t n = 0; n < in_features; n++) {
        for (int64_t k = 0; k < in_features; k++)
            problem_set_weight(&problem, n, k, n == k ? 9 : 8);
        problem_set_scale(&problem, n, 0, 1);
    }
    problem_set_x(&problem, 0, 0, largest);
    for (int i = 0; i + 1 < table_length; i++) {
        float middle = (float)((table[i] + table[i + 1]) / 2);
        if (fabsf(middle) > (float)largest) /* int8: -127.5 would change the scale */
            middle = 0;
        problem_set_x(&problem, 0, 3 * i + 1, nextafterf(middle, -1000));
        problem_set_x(&problem, 0, 3 * i + 2, middle);
        problem_set_x(&problem, 0, 3 * i + 3, nextafterf(middle, 1000));
    }
    problem_run(&problem, kernel);
    for (int64_t k = 0; k < in_features; k++) {
        double found = element_at(KRY_TYPE_F32, problem.y.data, k);
        double expected = nearest(problem.x_values[k]);
        if (found != expected)
            fail_msg("%.9g became %.9g, expected %.9g", problem.x_values[k], found, expected);
    }
}

static void int8_middles_go_to_even(void **state) {
    (void)state;
    middles_go_to_even(KRY_ACTIVATION_INT8_TOKEN);
}

static void fp8_middles_go_to_even(void **state) {
    (void)state;
    middles_go_to_even(KRY_ACTIVATION_FP8_E4M3_TOKEN);
}

/* The least f32: max|x| / 127 rounds to 0 there. */
static void apply_on_a_vanishing_row_gives_nothing_but_the_bias(void **state) {
    (void)state;
    struct problem_options options = {.m = 2, .bias = true, .linear = linear_of(8, 3)};
    for (uint32_t quantization = 1; quantization <= 2; quantization++) {
        options.linear.activation_quantization = quantization;
        problem_create(&problem, kernel, &options);
        for (int64_t k = 0; k < 8; k++) {
            problem_set_x(&problem, 0, k, 0);
            problem_set_x(&problem, 1, k, 0x1p-149);
        }
        problem_run(&problem, kernel);
        problem_check(&problem);
        problem_destroy(&problem);
    }
}

static void apply_on_a_row_with_nan_spoils_that_row_alone(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 6; i++) {
        struct problem_options options = {.m = 3, .linear = linear_of(40, 3)};
        uint32_t quantization = i / 2;
        options.linear.activation_quantization = quantization;
        problem_create(&problem, kernel, &options);
        for (int64_t n = 0; n < 3; n++)
            for (int64_t k = 0; k < 40; k++)
                problem_set_weight(&problem, n, k, (uint8_t)(9 + k % 2));
        problem_set_x(&problem, 1, 7, NAN);
        if (i % 2 == 1)
            problem_set_x(&problem, 1, 7, INFINITY);
        problem_run(&problem, kernel);
        for (int64_t row = 0; row < 3; row++)
            for (int64_t n = 0; n < 3; n++) {
                double found = element_at(KRY_TYPE_F32, problem.y.data, row * 3 + n);
                assert_true(isfinite(found) ? row != 1 : row == 1);
            }
        problem_destroy(&problem);
    }
}

static void apply_with_int8_merely_allowed_does_not_quantize(void **state) {
    (void)state;
    struct problem_options options = {.seed = 5, .m = 3, .linear = linear_of(50, 4)};
    options.linear.allowed = KRY_ALLOW_INT8_ACTIVATIONS;
    problem_create(&problem, kernel, &options);
    problem_run(&problem, kernel);
    problem_check(&problem);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(apply_with_int8_activations_matches_the_definition,
                                  teardown_problem),
        cmocka_unit_test_teardown(apply_with_fp8_activations_matches_the_definition,
                                  teardown_problem),
        cmocka_unit_test_teardown(int8_middles_go_to_even, teardown_problem),
        cmocka_unit_test_teardown(fp8_middles_go_to_even, teardown_problem),
        cmocka_unit_test_teardown(apply_on_a_vanishing_row_gives_nothing_but_the_bias,
                                  teardown_problem),
        cmocka_unit_test_teardown(apply_on_a_row_with_nan_spoils_that_row_alone, teardown_problem),
        cmocka_unit_test_teardown(apply_with_int8_merely_allowed_does_not_quantize,
                                  teardown_problem),
    };
    return cmocka_run_group_tests(tests, setup_kernel, NULL) ? 1 : 0;
}
