/*
 * The oracle against the golden checkpoints: W exactly, y to the last digits of a double.
 */
#include "floats.h"
#include "golden.h"
#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/** Opened by the setup of each test, closed by its teardown, whatever the test does. */
struct fixture {
    struct golden golden;
    struct oracle_config *config;
    struct oracle *oracle;
    double *buffer;
};

static struct fixture fixture;

static int set_up(void **state) {
    fixture = (struct fixture){0};
    *state = &fixture;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    oracle_close(&fixture.oracle);
    oracle_config_close(&fixture.config);
    golden_close(&fixture.golden);
    free(fixture.buffer);
    return 0;
}

static void open_case(const char *name) {
    golden_open(name, &fixture.golden);
    if (oracle_config_open(fixture.golden.path, &fixture.config) != KRY_OK)
        fail_msg("%s", kry_error_message());
}

static void close_case(void) {
    oracle_config_close(&fixture.config);
    golden_close(&fixture.golden);
}

static void open_layer(const struct golden_layer *layer) {
    if (oracle_open(fixture.config, fixture.golden.model, layer->name, &fixture.oracle) != KRY_OK)
        fail_msg("%s", kry_error_message());
    assert_int_equal(fixture.oracle->out_features, layer->n);
    assert_int_equal(fixture.oracle->in_features, layer->k);
    fixture.buffer = malloc((size_t)(layer->n * (layer->k + layer->m)) * sizeof(double));
    assert_non_null(fixture.buffer);
}

static void close_layer(void) {
    oracle_close(&fixture.oracle);
    free(fixture.buffer);
    fixture.buffer = NULL;
}

/** Call check for every layer of every case. */
static void for_each_layer(void (*check)(const struct golden_layer *layer)) {
    for (size_t i = 0; i < golden_case_count; i++) {
        struct golden_layer layer;
        open_case(golden_cases[i]);
        size_t count = 0;
        for (; golden_layer_at(&fixture.golden, count, &layer); count++) {
            open_layer(&layer);
            check(&layer);
            close_layer();
        }
        assert_true(count > 0);
        close_case();
    }
}

static void check_rows(const struct golden_layer *layer) {
    assert_int_equal(oracle_rows(fixture.oracle, 0, layer->n, fixture.buffer), KRY_OK);
    for (int64_t i = 0; i < layer->n * layer->k; i++)
        if (fixture.buffer[i] != (double)layer->weight[i])
            fail_msg("%s %s: W[%lld][%lld] is %.9g, expected %.9g", fixture.golden.name,
                     layer->name, (long long)(i / layer->k), (long long)(i % layer->k),
                     fixture.buffer[i], (double)layer->weight[i]);
}

static void rows_of_every_golden_layer_equal_the_expected_weights(void **state) {
    (void)state;
    for_each_layer(check_rows);
}

static void check_product(const struct golden_layer *layer) {
    for (int32_t threads = 1; threads <= 3; threads += 2) {
        struct oracle_product product = {.m = layer->m,
                                         .x = layer->x,
                                         .x_type = layer->x_type,
                                         .y = fixture.buffer,
                                         .threads = threads};
        assert_int_equal(oracle_multiply(fixture.oracle, &product), KRY_OK);
        for (int64_t i = 0; i < layer->m * layer->n; i++)
            if (!(fabs(fixture.buffer[i] - layer->y[i]) <= 1e-12 * (1 + fabs(layer->y[i]))))
                fail_msg("%s %s: y[%lld][%lld] is %.17g, expected %.17g", fixture.golden.name,
                         layer->name, (long long)(i / layer->n), (long long)(i % layer->n),
                         fixture.buffer[i], layer->y[i]);
    }
}

static void product_of_every_golden_layer_equals_the_expected_y(void **state) {
    (void)state;
    for_each_layer(check_product);
}

/** Rows 1 to n-1 and columns 3 to k-2, from x with a row stride that leaves NaN between. */
static void check_partition(const struct golden_layer *layer) {
    enum { STRIDE = 128 };
    float x[2 * STRIDE];
    int64_t n_begin = 1, n_end = layer->n - 1, k_begin = 3, k_end = layer->k - 2;
    assert_true(k_end - k_begin < STRIDE);
    for (int i = 0; i < 2 * STRIDE; i++)
        x[i] = i % STRIDE < k_end - k_begin ? (float)(i * 37 % 23 - 11) : NAN;
    struct oracle_product product = {.m = 2,
                                     .x = x,
                                     .x_type = KRY_TYPE_F32,
                                     .x_stride = STRIDE,
                                     .y = fixture.buffer,
                                     .n_begin = n_begin,
                                     .n_end = n_end,
                                     .k_begin = k_begin,
                                     .k_end = k_end,
                                     .without_bias = true};
    fixture.oracle->activation = KRY_ACTIVATION_NONE;
    assert_int_equal(oracle_multiply(fixture.oracle, &product), KRY_OK);
    for (int64_t i = 0; i < 2; i++)
        for (int64_t n = n_begin; n < n_end; n++) {
            double sum = 0, magnitude = 0;
            for (int64_t k = k_begin; k < k_end; k++) {
                double term =
                    (double)x[i * STRIDE + k - k_begin] * (double)layer->weight[n * layer->k + k];
                sum += term;
                magnitude += fabs(term);
            }
            double y = fixture.buffer[i * (n_end - n_begin) + n - n_begin];
            assert_true(fabs(y - sum) <= 1e-13 * magnitude);
        }
}

static void product_of_a_partition_equals_that_part_of_the_weights(void **state) {
    (void)state;
    for_each_layer(check_partition);
}

static void schemes_of_the_mixed_case_follow_names_before_classes(void **state) {
    (void)state;
    struct oracle_scheme scheme;
    open_case("ct-mixed");
    assert_int_equal(oracle_config_scheme(fixture.config, "model.layers.1.mlp.down_proj", &scheme),
                     KRY_OK);
    assert_int_equal(scheme.group_size, 12);
    assert_int_equal(
        oracle_config_scheme(fixture.config, "vision.model.layers.1.mlp.up_proj", &scheme), KRY_OK);
    assert_int_equal(scheme.group_size, 24);
    assert_int_equal(oracle_config_scheme(fixture.config, "model.layers.0.mlp.gate_proj", &scheme),
                     KRY_OK);
    assert_int_equal(scheme.bits, 8);
}

static void layers_that_are_not_quantized_are_not_found(void **state) {
    (void)state;
    struct oracle *oracle = NULL;
    open_case("gptq-v1-word");
    assert_int_equal(
        oracle_open(fixture.config, fixture.golden.model, "model.layers.0.mlp.skip_proj", &oracle),
        KRY_E_NOT_FOUND);
    close_case();
    open_case("ct-mixed");
    assert_int_equal(oracle_open(fixture.config, fixture.golden.model, "lm_head", &oracle),
                     KRY_E_NOT_FOUND);
    assert_null(oracle);
}

static void config_that_is_not_there_is_not_found(void **state) {
    (void)state;
    struct oracle_config *config = NULL;
    assert_int_equal(oracle_config_open(GOLDEN_DIR, &config), KRY_E_NOT_FOUND);
    assert_int_equal(oracle_config_open(GOLDEN_DIR "/none/model.safetensors", &config),
                     KRY_E_NOT_FOUND);
    assert_null(config);
}

static void config_beside_a_named_file_is_read(void **state) {
    (void)state;
    struct oracle_scheme scheme;
    assert_int_equal(oracle_config_open(GOLDEN_DIR "/gptq-sym/model.safetensors", &fixture.config),
                     KRY_OK);
    assert_int_equal(oracle_config_scheme(fixture.config, "any", &scheme), KRY_OK);
    assert_int_equal(scheme.bits, 8);
    assert_int_equal(scheme.group_size, 16);
    assert_int_equal(scheme.zero, ORACLE_ZERO_MIDDLE);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(rows_of_every_golden_layer_equal_the_expected_weights),
        TEST(product_of_every_golden_layer_equals_the_expected_y),
        TEST(product_of_a_partition_equals_that_part_of_the_weights),
        TEST(schemes_of_the_mixed_case_follow_names_before_classes),
        TEST(layers_that_are_not_quantized_are_not_found),
        TEST(config_that_is_not_there_is_not_found),
        TEST(config_beside_a_named_file_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
