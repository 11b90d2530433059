/* Which layers a race goes over. */
#include "race_plan.h"
#include "shapes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static const struct race_taste none;

static void yardstick_is_the_table_at_both_groups(void **state) {
    (void)state;
    struct race_plan plan = {0};
    assert_int_equal(race_plan_yardstick(&plan, &none), KRY_OK);
    assert_int_equal(plan.count, 4);
    assert_int_equal(plan.layers[0].m_count, 5);
    assert_int_equal(plan.layers[0].m[4], 512);
    assert_int_equal(plan.layers[1].linear.in_features, 2112);
    assert_int_equal(plan.layers[1].m_count, 2);
    assert_int_equal(plan.layers[0].linear.group_size, 128);
    assert_int_equal(plan.layers[3].linear.group_size, 32);
    race_plan_free(&plan);
}

static void yardstick_of_a_device_has_larger_layers_and_no_int8(void **state) {
    (void)state;
    static const struct race_taste taste = {.on_device = true};
    struct race_plan plan = {0};
    assert_int_equal(race_plan_yardstick(&plan, &taste), KRY_OK);
    assert_int_equal(plan.count, 4);
    assert_int_equal(plan.layers[3].linear.out_features, 28672);
    assert_int_equal(plan.layers[3].m_count, 5);
    assert_int_equal(plan.layers[3].m[4], 4096);
    assert_int_equal(plan.layers[0].computes, COMPUTE_F16 | COMPUTE_BF16);
    assert_int_equal(race_plan_random(&plan, &taste, 1, 0), KRY_OK);
    assert_int_equal(plan.layers[4].m_count, 4);
    assert_int_equal(plan.layers[4].m[3], 1024);
    race_plan_free(&plan);
}

static void taste_replaces_classes_and_m(void **state) {
    (void)state;
    static const int64_t m[] = {7};
    const struct race_taste taste = {.computes = COMPUTE_F32, .m = m, .m_count = 1};
    struct race_plan plan = {0};
    assert_int_equal(race_plan_yardstick(&plan, &taste), KRY_OK);
    assert_int_equal(plan.layers[2].m_count, 1);
    assert_int_equal(plan.layers[2].m[0], 7);
    assert_int_equal(plan.layers[2].computes, COMPUTE_F32);
    race_plan_free(&plan);
}

static void random_layers_are_aligned_and_the_same_for_a_seed(void **state) {
    (void)state;
    struct race_plan plan = {0}, again = {0}, other = {0};
    assert_int_equal(race_plan_random(&plan, &none, 50, 1), KRY_OK);
    assert_int_equal(race_plan_random(&again, &none, 50, 1), KRY_OK);
    assert_int_equal(race_plan_random(&other, &none, 50, 2), KRY_OK);
    bool differs = false;
    for (size_t i = 0; i < 50; i++) {
        kry_linear aligned;
        assert_false(race_aligned(&plan.layers[i].linear, &aligned));
        assert_string_equal(plan.layers[i].name, again.layers[i].name);
        differs = differs || strcmp(plan.layers[i].name, other.layers[i].name) != 0;
    }
    assert_true(differs);
    race_plan_free(&plan);
    race_plan_free(&again);
    race_plan_free(&other);
}

static void nearest_aligned_layer_is_one_that_can_be(void **state) {
    (void)state;
    struct shapes shapes = {0};
    assert_int_equal(shapes_read(SHAPES_FILE, NULL, &shapes), KRY_OK);
    size_t awkward = 0;
    for (size_t i = 0; i < shapes.count; i++) {
        const kry_linear *linear = &shapes.items[i].linear;
        kry_linear aligned, complete = KRY_INIT(kry_linear), same;
        awkward += race_aligned(linear, &aligned);
        assert_int_equal(kry_linear_complete(&aligned, &complete), KRY_OK);
        assert_false(race_aligned(&complete, &same));
        assert_int_equal(complete.in_features % 128, 0);
        assert_int_equal(complete.out_features % 128, 0);
        int64_t off = complete.in_features - linear->in_features;
        assert_true((off >= -64 && off <= 64) || linear->in_features < 64);
        assert_int_equal(complete.weight_type, linear->weight_type);
    }
    assert_true(awkward > 5 && awkward < shapes.count);
    shapes_free(&shapes);
}

static void least_bytes_are_those_of_the_description(void **state) {
    (void)state;
    kry_linear asked = KRY_INIT(kry_linear), linear = KRY_INIT(kry_linear);
    asked.in_features = 100;
    asked.out_features = 10;
    asked.group_size = 32;
    asked.weight_type = KRY_WEIGHT_U4;
    asked.x_type = KRY_TYPE_F16;
    assert_int_equal(kry_linear_complete(&asked, &linear), KRY_OK);
    /* codes; four groups of scale and half a byte of zero point; x and y */
    assert_true(race_least_bytes(&linear, 3) == 500 + 10 * 4 * 2.5 + 3 * (100 + 10) * 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yardstick_is_the_table_at_both_groups),
        cmocka_unit_test(yardstick_of_a_device_has_larger_layers_and_no_int8),
        cmocka_unit_test(taste_replaces_classes_and_m),
        cmocka_unit_test(random_layers_are_aligned_and_the_same_for_a_seed),
        cmocka_unit_test(nearest_aligned_layer_is_one_that_can_be),
        cmocka_unit_test(least_bytes_are_those_of_the_description),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
