/* Drawn weights and activations, and smaller twins of shapes. */
#include "synthetic.h"

#include "floats.h"
#include "shapes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static kry_linear describe(int64_t in, int64_t out, int64_t group_size, uint32_t weight_type) {
    kry_linear linear = KRY_INIT(kry_linear);
    linear.in_features = in;
    linear.out_features = out;
    linear.group_size = group_size;
    linear.weight_type = weight_type;
    linear.x_type = KRY_TYPE_F16;
    return linear;
}

static void assert_stored_as_drawn(const struct synthetic *synthetic) {
    const kry_linear *linear = &synthetic->linear;
    int bits = kry_weight_bits(linear->weight_type), per_word = 32 / bits;
    int64_t words = (linear->in_features + per_word - 1) / per_word;
    int64_t groups = kry_linear_groups(linear);
    assert_int_equal(synthetic->weights.qweight->n_stride, words);
    assert_int_equal(synthetic->weights.qweight->bytes, linear->out_features * words * 4);
    for (int64_t n = 0; n < linear->out_features; n++) {
        for (int64_t k = 0; k < linear->in_features; k++) {
            uint32_t word = synthetic->qweight[n * words + k / per_word];
            assert_int_equal(synthetic->codes[n * linear->in_features + k],
                             word >> (k % per_word * bits) & ((1u << bits) - 1));
        }
        for (int64_t g = 0; g < groups; g++) {
            double scale = float_load(synthetic->scales, n * groups + g, linear->scale_type);
            assert_true(scale > 0 && isfinite(scale));
            assert_true((double)synthetic->plain_scales[n * groups + g] == scale);
        }
    }
}

static void synthetic_create_stores_what_it_drew(void **state) {
    (void)state;
    static const uint32_t types[] = {KRY_WEIGHT_U4B8, KRY_WEIGHT_U4, KRY_WEIGHT_U8B128,
                                     KRY_WEIGHT_U8};
    for (int i = 0; i < 4; i++) {
        kry_linear linear = describe(83, 11, 32, types[i]);
        struct synthetic *synthetic = NULL;
        assert_int_equal(synthetic_create(&linear, i % 2, 7, &synthetic), KRY_OK);
        assert_stored_as_drawn(synthetic);
        bool zeros = kry_weight_has_zero_points(types[i]);
        assert_int_equal(synthetic->weights.zero_points != NULL, zeros);
        assert_int_equal(synthetic->bias != NULL, i % 2);
        struct oracle_drawn drawn = synthetic_drawn(synthetic);
        assert_int_equal(drawn.groups, 3);
        assert_ptr_equal(drawn.codes, synthetic->codes);
        synthetic_destroy(&synthetic);
        assert_null(synthetic);
    }
}

static void synthetic_create_with_a_seed_draws_the_same_again(void **state) {
    (void)state;
    kry_linear linear = describe(64, 8, 16, KRY_WEIGHT_U4);
    struct synthetic *first = NULL, *again = NULL, *other = NULL;
    assert_int_equal(synthetic_create(&linear, true, 1, &first), KRY_OK);
    assert_int_equal(synthetic_create(&linear, true, 1, &again), KRY_OK);
    assert_int_equal(synthetic_create(&linear, true, 2, &other), KRY_OK);
    assert_memory_equal(first->codes, again->codes, 64 * 8);
    assert_memory_equal(first->scales, again->scales, 8 * 4 * 2);
    assert_memory_equal(first->zero_points, again->zero_points, 8 * 4);
    assert_memory_equal(first->bias, again->bias, 8 * 2);
    assert_memory_not_equal(first->codes, other->codes, 64 * 8);
    assert_memory_not_equal(first->scales, other->scales, 8 * 4 * 2);
    synthetic_destroy(&first);
    synthetic_destroy(&again);
    synthetic_destroy(&other);
}

static void synthetic_create_never_draws_trivial_weights(void **state) {
    (void)state;
    kry_linear linear = describe(512, 64, 128, KRY_WEIGHT_U4);
    struct synthetic *synthetic = NULL;
    assert_int_equal(synthetic_create(&linear, false, 0, &synthetic), KRY_OK);
    int codes[16] = {0}, zeros[16] = {0};
    for (int i = 0; i < 512 * 64; i++)
        codes[synthetic->codes[i]]++;
    for (int i = 0; i < 64 * 4; i++)
        zeros[synthetic->zero_points[i]]++;
    for (int i = 0; i < 16; i++) {
        assert_in_range(codes[i], 1800, 2300);
        assert_in_range(zeros[i], 2, 40);
    }
    synthetic_destroy(&synthetic);
}

static void synthetic_create_with_act_order_shuffles_the_full_layers_groups(void **state) {
    (void)state;
    kry_linear linear = describe(96, 4, 32, KRY_WEIGHT_U4B8);
    linear.full_in_features = 192;
    linear.k_offset = 96;
    linear.act_order = 1;
    struct synthetic *synthetic = NULL;
    assert_int_equal(synthetic_create(&linear, false, 0, &synthetic), KRY_OK);
    int counts[6] = {0}, runs = 0;
    for (int k = 0; k < 96; k++) {
        assert_in_range(synthetic->g_idx[k], 0, 5);
        counts[synthetic->g_idx[k]]++;
        runs += k > 0 && synthetic->g_idx[k] == synthetic->g_idx[k - 1];
    }
    for (int g = 0; g < 6; g++)
        assert_in_range(counts[g], 1, 32);
    assert_in_range(runs, 0, 40);
    synthetic_destroy(&synthetic);
}

static void synthetic_create_of_partitions_shares_one_order(void **state) {
    (void)state;
    int counts[6] = {0};
    for (int rank = 0; rank < 2; rank++) {
        kry_linear linear = describe(96, 4, 32, KRY_WEIGHT_U4B8);
        linear.full_in_features = 192;
        linear.k_offset = 96 * rank;
        linear.act_order = 1;
        struct synthetic *synthetic = NULL;
        assert_int_equal(synthetic_create(&linear, false, 0, &synthetic), KRY_OK);
        for (int k = 0; k < 96; k++)
            counts[synthetic->g_idx[k]]++;
        synthetic_destroy(&synthetic);
    }
    for (int g = 0; g < 6; g++)
        assert_int_equal(counts[g], 32);
}

static void synthetic_create_of_no_description_is_refused(void **state) {
    (void)state;
    kry_linear linear = describe(0, 4, 32, KRY_WEIGHT_U4B8);
    struct synthetic *synthetic = NULL;
    assert_int_equal(synthetic_create(&linear, false, 0, &synthetic), KRY_E_ARGUMENT);
    assert_null(synthetic);
}

static void synthetic_activations_have_outliers_and_nan_behind_each_row(void **state) {
    (void)state;
    enum { M = 5, K = 500, STRIDE = 503 };
    static const uint32_t types[] = {KRY_TYPE_F16, KRY_TYPE_BF16, KRY_TYPE_F32};
    for (int t = 0; t < 3; t++) {
        float memory[M * STRIDE];
        synthetic_activations(memory, types[t], M, K, STRIDE, 1, 2);
        int large = 0;
        for (int row = 0; row < M; row++) {
            for (int k = 0; k < K; k++) {
                double value = float_load(memory, row * STRIDE + k, types[t]);
                assert_true(isfinite(value));
                large += fabs(value) > 7;
            }
            for (int k = K; k < STRIDE; k++)
                assert_true(isnan(float_load(memory, row * STRIDE + k, types[t])));
        }
        assert_in_range(large, 10, 60);
        assert_true(float_load(memory, 0, types[t]) != float_load(memory, STRIDE, types[t]));
    }
}

static void synthetic_scale_down_keeps_what_is_awkward(void **state) {
    (void)state;
    struct shapes shapes;
    assert_int_equal(shapes_read(SHAPES_FILE, NULL, &shapes), KRY_OK);
    for (size_t i = 0; i < shapes.count; i++)
        for (int64_t divisor = 1; divisor <= 64; divisor *= 4) {
            const kry_linear *linear = &shapes.items[i].linear;
            kry_linear twin = synthetic_scale_down(linear, divisor);
            kry_linear complete = KRY_INIT(kry_linear);
            assert_int_equal(kry_linear_complete(&twin, &complete), KRY_OK);
            int64_t group = linear->group_size > 0 ? linear->group_size : 1;
            assert_int_equal(twin.in_features % group, linear->in_features % group);
            assert_int_equal(twin.k_offset % group, linear->k_offset % group);
            assert_int_equal(twin.full_in_features % group, linear->full_in_features % group);
            assert_int_equal(twin.in_features % 128, linear->in_features % 128);
            assert_int_equal(twin.out_features % 128, linear->out_features % 128);
            assert_int_equal(twin.k_offset % 128, linear->k_offset % 128);
            assert_true(twin.in_features <= linear->in_features);
            assert_true(twin.in_features + twin.k_offset <= twin.full_in_features);
            assert_int_equal(twin.in_features < linear->full_in_features &&
                                 linear->in_features < linear->full_in_features,
                             twin.in_features < twin.full_in_features);
            if (divisor == 1)
                assert_memory_equal(&twin, linear, sizeof twin);
            else
                assert_true(twin.in_features * twin.out_features <
                                linear->in_features * linear->out_features ||
                            linear->in_features * linear->out_features < 400000);
        }
    shapes_free(&shapes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(synthetic_create_stores_what_it_drew),
        cmocka_unit_test(synthetic_create_with_a_seed_draws_the_same_again),
        cmocka_unit_test(synthetic_create_never_draws_trivial_weights),
        cmocka_unit_test(synthetic_create_with_act_order_shuffles_the_full_layers_groups),
        cmocka_unit_test(synthetic_create_of_partitions_shares_one_order),
        cmocka_unit_test(synthetic_create_of_no_description_is_refused),
        cmocka_unit_test(synthetic_activations_have_outliers_and_nan_behind_each_row),
        cmocka_unit_test(synthetic_scale_down_keeps_what_is_awkward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
