/*
 * The reference kernel against a plain sum over decoded weights: every y is the exact sum
 * rounded once, for all types, groups and edges.
 */
#include "plugin_under_test.h"
#include "problem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const kry_linear_kernel *kernel;
static struct problem problem; /* the running test's: teardown releases it after a failure */

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

/* Make, run and check one problem. */
static void try_problem(const struct problem_options *options) {
    problem_create(&problem, kernel, options);
    problem_run(&problem, kernel);
    problem_check(&problem);
    problem_destroy(&problem);
}

static const int64_t edges[] = {1, 7, 8, 9, 31, 33};
enum { EDGES = sizeof(edges) / sizeof(edges[0]) };
static const int64_t some_m[] = {1, 2, 3, 7};

static void apply_every_mix_of_types_and_groups_rounds_the_sum_once(void **state) {
    (void)state;
    static const int64_t group_sizes[] = {-1, 16, 32, 128, 24, 300};
    enum { GROUP_SIZES = sizeof(group_sizes) / sizeof(group_sizes[0]) };
    uint64_t draw = 1;
    /* A mixed-radix count through 4 weight types, 3 x, y and scale types, the groups, act-order
       and bias; what remains is drawn. */
    for (uint32_t i = 0; i < 4 * 27 * GROUP_SIZES * 4; i++) {
        uint32_t rest = i;
        struct problem_options options = {.seed = i, .m = some_m[random_below(&draw, 4)]};
        options.linear =
            linear_of(edges[random_below(&draw, EDGES)], edges[random_below(&draw, EDGES)]);
        kry_linear *linear = &options.linear;
        mix(linear, group_sizes, GROUP_SIZES, &rest);
        options.bias = rest % 2 != 0;
        cut_out(linear, random_below(&draw, 2) * random_below(&draw, 50), random_below(&draw, 40));
        draw_operands(&options, &draw);
        try_problem(&options);
    }
}

static void apply_every_mix_of_edge_sizes_rounds_the_sum_once(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 4 * EDGES * EDGES * 4; i++) {
        struct problem_options options = {.seed = i, .m = some_m[i % 4], .bias = true};
        options.linear = linear_of(edges[i / 4 % EDGES], edges[i / 4 / EDGES % EDGES]);
        options.linear.weight_type = 1 + i / 4 / EDGES / EDGES;
        options.linear.group_size = 8;
        cut_out(&options.linear, 5, 0);
        try_problem(&options);
    }
}

/* Columns are taken 512 at a time and rows of x 16 at a time: cross both, and groups with them. */
static void apply_across_pieces_and_passes_rounds_the_sum_once(void **state) {
    (void)state;
    static const int64_t lengths[] = {511, 512, 513, 1024, 1031};
    static const int64_t rows[] = {15, 16, 17, 33};
    for (uint32_t i = 0; i < 20; i++) {
        struct problem_options options = {.seed = i, .m = rows[i / 5], .x_gap = 1, .y_gap = 3};
        options.linear = linear_of(lengths[i % 5], 3);
        options.linear.weight_type = 1 + i % 4;
        options.linear.group_size = 100;
        options.linear.act_order = i % 3 == 0;
        cut_out(&options.linear, 30, 77);
        try_problem(&options);
    }
}

/* More output features than tasks: some tasks take two, the last perhaps one. */
static void apply_with_many_output_features_rounds_the_sum_once(void **state) {
    (void)state;
    struct problem_options options = {.seed = 3, .m = 2, .linear = linear_of(9, 2051)};
    options.linear.weight_type = KRY_WEIGHT_U4;
    options.linear.group_size = 4;
    try_problem(&options);
}

static void apply_random_descriptions_rounds_the_sum_once(void **state) {
    (void)state;
    uint64_t draw = 20240607;
    for (uint32_t i = 0; i < 300; i++) {
        struct problem_options options = {.seed = random_next(&draw),
                                          .m = 1 + random_below(&draw, 20)};
        options.linear = linear_of(1 + random_below(&draw, 160), 1 + random_below(&draw, 40));
        kry_linear *linear = &options.linear;
        linear->weight_type = 1 + (uint32_t)random_below(&draw, 4);
        linear->x_type = 1 + (uint32_t)random_below(&draw, 3);
        linear->y_type = 1 + (uint32_t)random_below(&draw, 3);
        linear->scale_type = 1 + (uint32_t)random_below(&draw, 3);
        linear->group_size = random_below(&draw, 8) == 0 ? -1 : 1 + random_below(&draw, 200);
        linear->act_order = random_below(&draw, 4) == 0;
        linear->allowed = random_below(&draw, 2) == 0 ? KRY_ALLOW_INT8_ACTIVATIONS : 0;
        cut_out(linear, random_below(&draw, 300), random_below(&draw, 300));
        options.x_gap = random_below(&draw, 9);
        options.y_gap = random_below(&draw, 9);
        options.bias = random_below(&draw, 2) != 0;
        options.misaligned = random_below(&draw, 2) != 0;
        try_problem(&options);
    }
}

/* A norm would hide one lost column; a single 1 in x does not. */
static void apply_one_hot_x_gives_the_dequantized_column(void **state) {
    (void)state;
    for (uint32_t type = KRY_WEIGHT_U4B8; type <= KRY_WEIGHT_U8; type++) {
        struct problem_options options = {.seed = type, .m = 70, .linear = linear_of(70, 5)};
        options.linear.weight_type = type;
        options.linear.group_size = 16;
        options.linear.scale_type = KRY_TYPE_BF16; /* so that each weight is exact in f32 */
        cut_out(&options.linear, 9, 0);
        problem_create(&problem, kernel, &options);
        for (int64_t row = 0; row < 70; row++)
            for (int64_t k = 0; k < 70; k++)
                problem_set_x(&problem, row, k, row == k);
        problem_run(&problem, kernel);
        for (int64_t k = 0; k < 70; k++)
            for (int64_t n = 0; n < 5; n++)
                assert_true(element_at(KRY_TYPE_F32, problem.y.data, k * 5 + n) ==
                            problem.w[n * 70 + k]);
        problem_destroy(&problem);
    }
}

/* A 1 x 1 layer of weight 1, which hands x through, rounded. */
static void create_identity(uint32_t y_type, int64_t m) {
    struct problem_options options = {.m = m, .linear = linear_of(1, 1)};
    options.linear.y_type = y_type;
    problem_create(&problem, kernel, &options);
    problem_set_weight(&problem, 0, 0, 9);
    problem_set_scale(&problem, 0, 0, 1);
}

static void assert_bits(uint32_t y_type, int64_t row, uint32_t expected) {
    uint32_t found = element_bits(y_type, problem.y.data, row);
    if (found != expected)
        fail_msg("%.17g became bits %#x, expected %#x", problem.x_values[row], found, expected);
}

/* For each number of a 16-bit type: it, the middle to its upper neighbour, and the f32 just
   below and above that middle. */
static void store_rounds_to_nearest_even(uint32_t y_type, uint32_t infinity) {
    enum { EACH = 4 };
    create_identity(y_type, (int64_t)infinity * EACH);
    for (uint32_t bits = 0; bits < infinity; bits++) {
        double value = element_value(y_type, bits);
        double middle = value + element_spacing(y_type, value) / 2;
        problem_set_x(&problem, bits * EACH, 0, value);
        problem_set_x(&problem, bits * EACH + 1, 0, nextafterf((float)middle, 0));
        problem_set_x(&problem, bits * EACH + 2, 0, middle);
        problem_set_x(&problem, bits * EACH + 3, 0, nextafterf((float)middle, INFINITY));
    }
    problem_run(&problem, kernel);
    for (uint32_t bits = 0; bits < infinity; bits++) {
        assert_bits(y_type, bits * EACH, bits);
        assert_bits(y_type, bits * EACH + 1, bits);
        assert_bits(y_type, bits * EACH + 2, bits + bits % 2);
        assert_bits(y_type, bits * EACH + 3, bits + 1);
    }
}

static void store_f16_rounds_every_interval_to_nearest_even(void **state) {
    (void)state;
    store_rounds_to_nearest_even(KRY_TYPE_F16, 0x7c00);
}

static void store_bf16_rounds_every_interval_to_nearest_even(void **state) {
    (void)state;
    store_rounds_to_nearest_even(KRY_TYPE_BF16, 0x7f80);
}

/* Loading: every bit pattern of a 16-bit type, brought to f32. */
static void load_every_16_bit_number_is_exact(void **state) {
    (void)state;
    for (uint32_t type = KRY_TYPE_F16; type <= KRY_TYPE_BF16; type++) {
        struct problem_options options = {.m = 0x10000, .linear = linear_of(1, 1)};
        options.linear.x_type = type;
        problem_create(&problem, kernel, &options);
        problem_set_weight(&problem, 0, 0, 9);
        problem_set_scale(&problem, 0, 0, 1);
        for (uint32_t bits = 0; bits < 0x10000; bits++)
            element_set(type, problem.x.data, bits, bits);
        problem_run(&problem, kernel);
        for (uint32_t bits = 0; bits < 0x10000; bits++) {
            double expected = element_value(type, bits);
            double found = element_at(KRY_TYPE_F32, problem.y.data, bits);
            if (isnan(expected) ? !isnan(found) : found != expected)
                fail_msg("type %u bits %#x: found %g, expected %g", type, bits, found, expected);
        }
        problem_destroy(&problem);
    }
}

static void store_beyond_the_range_is_infinite_and_nan_stays(void **state) {
    (void)state;
    create_identity(KRY_TYPE_F16, 5);
    const double x[] = {65519, 65520, -0x1p100, INFINITY, NAN};
    for (int64_t row = 0; row < 5; row++)
        problem_set_x(&problem, row, 0, x[row]);
    problem_run(&problem, kernel);
    const uint32_t expected[] = {0x7bff, 0x7c00, 0xfc00, 0x7c00};
    for (int64_t row = 0; row < 4; row++)
        assert_bits(KRY_TYPE_F16, row, expected[row]);
    assert_true(isnan(element_at(KRY_TYPE_F16, problem.y.data, 4)));
}

/* 1 + 2^-11 lies between two f16; 2^-40 more decides, and an f32 on the way would lose it. */
static void store_f16_rounds_once_not_through_f32(void **state) {
    (void)state;
    struct problem_options options = {.m = 2, .linear = linear_of(2, 1)};
    options.linear.y_type = KRY_TYPE_F16;
    problem_create(&problem, kernel, &options);
    problem_set_scale(&problem, 0, 0, 1);
    for (int64_t k = 0; k < 2; k++) {
        problem_set_weight(&problem, 0, k, 9);
        problem_set_x(&problem, k, 0, 1 + 0x1p-11);
    }
    problem_set_x(&problem, 0, 1, 0x1p-40);
    problem_set_x(&problem, 1, 1, 0);
    problem_run(&problem, kernel);
    assert_bits(KRY_TYPE_F16, 0, 0x3c01);
    assert_bits(KRY_TYPE_F16, 1, 0x3c00);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(apply_every_mix_of_types_and_groups_rounds_the_sum_once,
                                  teardown_problem),
        cmocka_unit_test_teardown(apply_every_mix_of_edge_sizes_rounds_the_sum_once,
                                  teardown_problem),
        cmocka_unit_test_teardown(apply_across_pieces_and_passes_rounds_the_sum_once,
                                  teardown_problem),
        cmocka_unit_test_teardown(apply_with_many_output_features_rounds_the_sum_once,
                                  teardown_problem),
        cmocka_unit_test_teardown(apply_random_descriptions_rounds_the_sum_once, teardown_problem),
        cmocka_unit_test_teardown(apply_one_hot_x_gives_the_dequantized_column, teardown_problem),
        cmocka_unit_test_teardown(store_f16_rounds_every_interval_to_nearest_even,
                                  teardown_problem),
        cmocka_unit_test_teardown(store_bf16_rounds_every_interval_to_nearest_even,
                                  teardown_problem),
        cmocka_unit_test_teardown(load_every_16_bit_number_is_exact, teardown_problem),
        cmocka_unit_test_teardown(store_beyond_the_range_is_infinite_and_nan_stays,
                                  teardown_problem),
        cmocka_unit_test_teardown(store_f16_rounds_once_not_through_f32, teardown_problem),
    };
    return cmocka_run_group_tests(tests, setup_kernel, NULL) ? 1 : 0;
}
