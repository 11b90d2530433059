/*
 * The oracle on drawn weights against the naive triple loop, and its measure of errors.
 */
#include "floats.h"
#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* More columns than two tiles, rows that fill neither a tile nor a group of four. */
enum { N = 37, K = 2085, GROUP = 96, OFFSET = 50, GROUPS = (OFFSET + K - 1) / GROUP + 1, M = 3 };

static uint8_t codes[N * K];
static float scales[N * GROUPS];
static uint8_t zero_points[N * GROUPS];
static int32_t g_idx[K];
static float bias[N];
static float x[M * K];
static double y[M * N];
static struct oracle *oracle;

static uint32_t next_random(void) {
    static uint64_t seed = 20240817;
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33);
}

static int draw(void **state) {
    (void)state;
    for (int i = 0; i < N * K; i++)
        codes[i] = (uint8_t)(next_random() & 0xFF);
    for (int i = 0; i < N * GROUPS; i++) {
        scales[i] = (float)(next_random() % 1000 + 1) * 1e-4F;
        zero_points[i] = (uint8_t)(next_random() & 0xFF);
    }
    for (int k = 0; k < K; k++)
        g_idx[k] = (int32_t)(next_random() % GROUPS);
    for (int n = 0; n < N; n++)
        bias[n] = (float)(next_random() % 100) - 50;
    for (int i = 0; i < M * K; i++)
        x[i] = (float)((int32_t)(next_random() % 2001) - 1000) / 256;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    oracle_close(&oracle);
    return 0;
}

static struct oracle_drawn drawn_weights(void) {
    return (struct oracle_drawn){.out_features = N,
                                 .in_features = K,
                                 .groups = GROUPS,
                                 .group_size = GROUP,
                                 .k_offset = OFFSET,
                                 .bits = 8,
                                 .activation = KRY_ACTIVATION_NONE,
                                 .codes = codes,
                                 .scales = scales,
                                 .zero_points = zero_points,
                                 .bias = bias};
}

static double naive_weight(const struct oracle_drawn *drawn, int n, int k) {
    int g = drawn->g_idx ? drawn->g_idx[k] : (OFFSET + k) / GROUP - OFFSET / GROUP;
    int zero = drawn->zero_points ? zero_points[n * GROUPS + g] : 1 << (drawn->bits - 1);
    return ((double)codes[n * K + k] - zero) * (double)scales[n * GROUPS + g];
}

/** The oracle's y, and W's rows, are what three plain loops give. */
static void check(const struct oracle_drawn *drawn) {
    static double row[K];
    assert_int_equal(oracle_open_drawn(drawn, &oracle), KRY_OK);
    struct oracle_product product = {.m = M, .x = x, .x_type = KRY_TYPE_F32, .y = y, .threads = 2};
    assert_int_equal(oracle_multiply(oracle, &product), KRY_OK);
    for (int n = 0; n < N; n++) {
        assert_int_equal(oracle_rows(oracle, n, n + 1, row), KRY_OK);
        for (int k = 0; k < K; k++)
            assert_true(row[k] == naive_weight(drawn, n, k));
        for (int i = 0; i < M; i++) {
            double sum = drawn->bias ? (double)bias[n] : 0, magnitude = fabs(sum);
            for (int k = 0; k < K; k++) {
                sum += (double)x[i * K + k] * row[k];
                magnitude += fabs((double)x[i * K + k] * row[k]);
            }
            assert_true(fabs(y[i * N + n] - sum) <= 1e-13 * magnitude);
        }
    }
    oracle_close(&oracle);
}

static void drawn_weights_with_zero_points_equal_the_naive_product(void **state) {
    (void)state;
    struct oracle_drawn drawn = drawn_weights();
    check(&drawn);
}

static void drawn_weights_without_zero_points_equal_the_naive_product(void **state) {
    (void)state;
    struct oracle_drawn drawn = drawn_weights();
    drawn.zero_points = NULL;
    drawn.bias = NULL;
    check(&drawn);
    drawn.bits = 4;
    check(&drawn);
}

static void drawn_weights_with_act_order_equal_the_naive_product(void **state) {
    (void)state;
    struct oracle_drawn drawn = drawn_weights();
    drawn.g_idx = g_idx;
    check(&drawn);
}

/** The group ends a tile's padding later on: what is left there must not turn into NaN. */
static void infinite_scale_gives_infinity_in_its_row_alone(void **state) {
    (void)state;
    enum { INFINITE_GROUP = 11 };
    static float ones[K];
    struct oracle_drawn drawn = drawn_weights();
    float kept = scales[INFINITE_GROUP];
    drawn.zero_points = NULL;
    for (int k = 0; k < K; k++) {
        ones[k] = 1;
        if ((OFFSET + k) / GROUP == INFINITE_GROUP)
            codes[k] = 255;
    }
    scales[INFINITE_GROUP] = INFINITY;
    assert_int_equal(oracle_open_drawn(&drawn, &oracle), KRY_OK);
    struct oracle_product product = {.m = 1, .x = ones, .x_type = KRY_TYPE_F32, .y = y};
    assert_int_equal(oracle_multiply(oracle, &product), KRY_OK);
    scales[INFINITE_GROUP] = kept;
    for (int n = 0; n < N; n++)
        assert_true(n == 0 ? isinf(y[n]) : isfinite(y[n]));
}

static void more_threads_than_rows_give_the_same_bits(void **state) {
    (void)state;
    static double alone[M * N];
    struct oracle_drawn drawn = drawn_weights();
    assert_int_equal(oracle_open_drawn(&drawn, &oracle), KRY_OK);
    struct oracle_product product = {.m = M, .x = x, .x_type = KRY_TYPE_F32, .y = alone};
    assert_int_equal(oracle_multiply(oracle, &product), KRY_OK);
    product.y = y;
    product.threads = 1000;
    assert_int_equal(oracle_multiply(oracle, &product), KRY_OK);
    assert_memory_equal(alone, y, sizeof y);
}

static void no_rows_of_x_touch_nothing(void **state) {
    (void)state;
    struct oracle_drawn drawn = drawn_weights();
    assert_int_equal(oracle_open_drawn(&drawn, &oracle), KRY_OK);
    struct oracle_product product = {.m = 0, .x_type = KRY_TYPE_F32};
    assert_int_equal(oracle_multiply(oracle, &product), KRY_OK);
}

/** A layer of one row and two columns of weight 1, so y tells the quantized x. */
static void quantized_pair(uint32_t activation, float first, float second, double *sum) {
    static const uint8_t ones[2] = {9, 9};
    static const float one = 1;
    float pair[2] = {first, second};
    struct oracle_drawn drawn = {.out_features = 1,
                                 .in_features = 2,
                                 .groups = 1,
                                 .group_size = -1,
                                 .bits = 4,
                                 .activation = activation,
                                 .codes = ones,
                                 .scales = &one};
    assert_int_equal(oracle_open_drawn(&drawn, &oracle), KRY_OK);
    struct oracle_product product = {.m = 1, .x = pair, .x_type = KRY_TYPE_F32, .y = sum};
    assert_int_equal(oracle_multiply(oracle, &product), KRY_OK);
    oracle_close(&oracle);
}

static void int8_activations_round_to_the_tokens_steps(void **state) {
    (void)state;
    double sum;
    quantized_pair(KRY_ACTIVATION_INT8_TOKEN, 127, 2.5F, &sum); /* a tie: to even */
    assert_true(sum == 129);
    quantized_pair(KRY_ACTIVATION_INT8_TOKEN, -254, 3.1F, &sum);
    assert_true(sum == -250);
    quantized_pair(KRY_ACTIVATION_INT8_TOKEN, 0, 0, &sum);
    assert_true(sum == 0);
    quantized_pair(KRY_ACTIVATION_NONE, 127, 2.5F, &sum);
    assert_true(sum == 129.5);
}

static void fp8_activations_round_to_three_bits(void **state) {
    (void)state;
    double sum;
    quantized_pair(KRY_ACTIVATION_FP8_E4M3_TOKEN, 448, 17, &sum); /* between 16 and 18 */
    assert_true(sum == 464);
    quantized_pair(KRY_ACTIVATION_FP8_E4M3_TOKEN, -896, 38.1F, &sum); /* 2 * (20 - 448) */
    assert_true(sum == -856);
}

static void drawn_column_outside_the_groups_is_refused(void **state) {
    (void)state;
    struct oracle_drawn drawn = drawn_weights();
    drawn.groups = GROUPS - 1;
    assert_int_equal(oracle_open_drawn(&drawn, &oracle), KRY_E_ARGUMENT);
    drawn = drawn_weights();
    drawn.group_size = 0;
    assert_int_equal(oracle_open_drawn(&drawn, &oracle), KRY_E_ARGUMENT);
    assert_null(oracle);
}

static void partition_outside_the_layer_is_refused(void **state) {
    (void)state;
    struct oracle_drawn drawn = drawn_weights();
    double row;
    assert_int_equal(oracle_open_drawn(&drawn, &oracle), KRY_OK);
    const struct oracle_product bad[] = {
        {.m = 1, .n_end = N + 1},
        {.m = 1, .k_end = K + 1},
        {.m = 1, .n_begin = N},
        {.m = 1, .k_begin = -1},
        {.m = -1},
        {.m = 1, .x_stride = K - 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(oracle_multiply(oracle, &bad[i]), KRY_E_ARGUMENT);
    assert_int_equal(oracle_rows(oracle, N, N + 1, &row), KRY_E_ARGUMENT);
}

/* ---- the measure --------------------------------------------------------------------- */

static double measure_f16(double got, double expected) {
    uint16_t bits = f16_encode(got);
    return oracle_compare(&bits, KRY_TYPE_F16, 0, 1, 1, &expected).relative;
}

static void error_is_the_ratio_of_the_norms(void **state) {
    (void)state;
    float got[2 * 3] = {3, 0, NAN, 4, 1, NAN};
    double expected[2 * 2] = {3, 0, 4, 0};
    struct oracle_error error = oracle_compare(got, KRY_TYPE_F32, 3, 2, 2, expected);
    assert_true(error.relative == 0.2);
    assert_true(error.largest == 1);
    assert_int_equal(error.row, 1);
    assert_int_equal(error.column, 1);
}

static void error_of_equal_values_is_zero(void **state) {
    (void)state;
    assert_true(measure_f16(1.5, 1.5) == 0);
    assert_true(measure_f16(0, 0) == 0);
    struct oracle_error error = oracle_compare(NULL, KRY_TYPE_F16, 0, 0, 7, NULL);
    assert_true(error.relative == 0 && error.row == -1);
}

static void error_against_zero_is_infinite(void **state) {
    (void)state;
    assert_true(isinf(measure_f16(0x1p-20, 0)));
    assert_true(measure_f16(0, 0x1p-26) == 0); /* f16 cannot hold it */
}

static void nan_passes_only_for_nan(void **state) {
    (void)state;
    const double nan_value = (double)NAN;
    assert_true(measure_f16(nan_value, nan_value) == 0);
    assert_true(isinf(measure_f16(nan_value, 1)));
    assert_true(isinf(measure_f16(1, nan_value)));
}

static void infinity_passes_only_where_the_type_ends(void **state) {
    (void)state;
    const double infinity = (double)INFINITY;
    assert_true(measure_f16(infinity, 70000) == 0);
    assert_true(measure_f16(infinity, 65500) == 0);
    assert_true(measure_f16(-infinity, -infinity) == 0);
    assert_true(isinf(measure_f16(infinity, 60000)));
    assert_true(isinf(measure_f16(-infinity, 70000)));
    assert_true(isinf(measure_f16(1, infinity)));
    assert_true(measure_f16(65504, 65510) < 1e-3);
}

static void bounds_are_those_of_the_design(void **state) {
    (void)state;
    assert_true(oracle_bound(KRY_TYPE_F32, KRY_ACTIVATION_NONE) == 1e-5);
    assert_true(oracle_bound(KRY_TYPE_F16, KRY_ACTIVATION_NONE) == 1e-3);
    assert_true(oracle_bound(KRY_TYPE_BF16, KRY_ACTIVATION_NONE) == 4e-3);
    assert_true(oracle_bound(KRY_TYPE_F32, KRY_ACTIVATION_INT8_TOKEN) == 3e-3);
    assert_true(oracle_bound(KRY_TYPE_BF16, KRY_ACTIVATION_FP8_E4M3_TOKEN) == 4e-3);
}

#define TEST(function) cmocka_unit_test_teardown(function, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(drawn_weights_with_zero_points_equal_the_naive_product),
        TEST(drawn_weights_without_zero_points_equal_the_naive_product),
        TEST(drawn_weights_with_act_order_equal_the_naive_product),
        TEST(infinite_scale_gives_infinity_in_its_row_alone),
        TEST(more_threads_than_rows_give_the_same_bits),
        TEST(no_rows_of_x_touch_nothing),
        TEST(int8_activations_round_to_the_tokens_steps),
        TEST(fp8_activations_round_to_three_bits),
        TEST(drawn_column_outside_the_groups_is_refused),
        TEST(partition_outside_the_layer_is_refused),
        TEST(error_is_the_ratio_of_the_norms),
        TEST(error_of_equal_values_is_zero),
        TEST(error_against_zero_is_infinite),
        TEST(nan_passes_only_for_nan),
        TEST(infinity_passes_only_where_the_type_ends),
        TEST(bounds_are_those_of_the_design),
    };
    return cmocka_run_group_tests(tests, draw, NULL) ? 1 : 0;
}
