/*
 * The group-splitting rewrite, proven numerically: kernels that refuse groups reaching over an
 * edge compute shards that begin and end inside groups.
 */
#include "fixture.h"

#include <kernelry/plugin.h>

enum { M = 3, N = 40 };

static kry_linear shard(int64_t k_offset, int64_t in_features, int64_t full, int64_t group,
                        uint32_t weight_type) {
    kry_linear linear = describe(in_features, N, group, weight_type, KRY_TYPE_F32);
    linear.full_in_features = full;
    linear.k_offset = k_offset;
    linear.scale_type = KRY_TYPE_F16;
    return linear;
}

static const kry_decision_info *decision_of(const kry_registry *registry, const kry_linear *linear,
                                            kry_decision **decision) {
    static kry_decision_info info;
    *decision = decide(registry, "cpu", linear);
    info = KRY_INIT(kry_decision_info);
    assert_int_equal(kry_decision_describe(*decision, &info), KRY_OK);
    return &info;
}

/* Prepare from weights stored that way, apply; the worst relative error of a row. */
static double error_when_stored(kry_registry *registry, const kry_linear *linear,
                                const storage *how) {
    applied_layer layer;
    make_layer(registry, "cpu", linear, M, &layer);
    free_stored(&layer.stored);
    store_weights(&layer.plain, how, &layer.stored);
    if (prepare_layer(&layer) != KRY_OK || kry_layer_apply(layer.layer, &layer.args) != KRY_OK)
        fail_msg("%s", kry_error_message());
    double error = error_of(&layer);
    free_layer(&layer);
    return error;
}

static const storage plainly = {.weight_axis = KRY_AXIS_K, .zero_axis = KRY_AXIS_N};

static void assert_split(const kry_linear *linear, int64_t group, uint64_t groups) {
    kry_registry *registry = open_mocks(NULL, "whole_groups.so", NULL);
    kry_decision *decision;
    const kry_decision_info *info = decision_of(registry, linear, &decision);
    assert_string_equal(chosen(decision), "whole_groups");
    assert_int_equal(info->rewrite, KRY_REWRITE_SPLIT_GROUPS);
    assert_int_equal(info->asked->group_size, linear->group_size);
    assert_int_equal(info->decided->group_size, group);
    assert_int_equal(info->decided->in_features, linear->in_features);
    assert_int_equal(info->decided->k_offset, linear->k_offset);
    assert_int_equal(kry_linear_groups(info->decided), groups);
    uint64_t each = 2 + (kry_weight_has_zero_points(linear->weight_type) ? 1U : 0U);
    assert_int_equal(info->rewrite_bytes,
                     each * N * (groups - (uint64_t)kry_linear_groups(info->asked)));
    kry_candidate winner = candidate_of(decision, "whole_groups");
    assert_non_null(winner.refusal);
    assert_null(winner.rewritten_refusal);
    kry_decision_destroy(&decision);
    assert_true(error_when_stored(registry, linear, &plainly) < 1e-5);
    kry_registry_close(&registry);
}

static void second_half_of_704_at_group_64_is_split_to_32(void **state) {
    (void)state;
    kry_linear linear = shard(352, 352, 704, 64, KRY_WEIGHT_U4B8);
    assert_split(&linear, 32, 11);
}

static void first_half_of_704_ends_inside_a_group_and_is_split(void **state) {
    (void)state;
    kry_linear linear = shard(0, 352, 704, 64, KRY_WEIGHT_U4B8);
    assert_split(&linear, 32, 11);
}

static void shard_of_whole_length_that_begins_inside_a_group_is_split(void **state) {
    (void)state;
    kry_linear linear = shard(32, 128, 704, 64, KRY_WEIGHT_U4);
    assert_split(&linear, 32, 4);
}

static void middle_third_is_split_to_8(void **state) {
    (void)state;
    /* 2112 in three ways of 704 at group 128 would be 64; 264 and 232 leave a gcd of 8. */
    kry_linear linear = shard(264, 232, 744, 64, KRY_WEIGHT_U4);
    assert_split(&linear, 8, 29);
    linear = shard(496, 248, 744, 64, KRY_WEIGHT_U8);
    assert_split(&linear, 8, 31);
}

static void eight_bits_and_zero_points_are_split_alike(void **state) {
    (void)state;
    kry_linear linear = shard(352, 352, 704, 64, KRY_WEIGHT_U8);
    assert_split(&linear, 32, 11);
    linear = shard(352, 352, 704, 64, KRY_WEIGHT_U8B128);
    assert_split(&linear, 32, 11);
}

static void offsets_that_share_nothing_are_split_to_single_columns(void **state) {
    (void)state;
    kry_linear linear = shard(33, 35, 128, 32, KRY_WEIGHT_U4);
    assert_split(&linear, 1, 35);
}

static void description_that_is_taken_as_it_stands_is_not_rewritten(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "whole_groups.so", NULL);
    kry_linear linear = shard(64, 128, 704, 64, KRY_WEIGHT_U4);
    kry_decision *decision;
    assert_int_equal(decision_of(registry, &linear, &decision)->rewrite, KRY_REWRITE_NONE);
    kry_decision_destroy(&decision);
    assert_true(error_when_stored(registry, &linear, &plainly) < 1e-5);
    kry_registry_close(&registry);
}

static void kernel_that_takes_straddles_wins_before_any_rewrite(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "whole_groups.so", "dense.so", NULL);
    kry_linear linear = shard(352, 352, 704, 64, KRY_WEIGHT_U4);
    kry_decision *decision;
    const kry_decision_info *info = decision_of(registry, &linear, &decision);
    assert_string_equal(chosen(decision), "dense");
    assert_int_equal(info->rewrite, KRY_REWRITE_NONE);
    assert_int_equal(info->decided->group_size, 64);
    kry_candidate refused = candidate_of(decision, "whole_groups");
    assert_int_equal(refused.refusal->code, KRY_REFUSAL_PARTITION);
    assert_int_equal(refused.refusal->found, 352 % 64);
    kry_decision_destroy(&decision);
    assert_true(error_when_stored(registry, &linear, &plainly) < 1e-5);
    kry_registry_close(&registry);
}

static void description_without_whole_groups_anywhere_is_refused_twice(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "whole_groups.so", NULL);
    kry_linear linear = shard(352, 352, 704, 64, KRY_WEIGHT_U4);
    linear.x_type = KRY_TYPE_F16;
    kry_decision *decision;
    assert_int_equal(decision_of(registry, &linear, &decision)->chosen, -1);
    kry_candidate refused = candidate_of(decision, "whole_groups");
    assert_int_equal(refused.refusal->code, KRY_REFUSAL_PARTITION);
    assert_non_null(refused.rewritten_refusal);
    assert_int_equal(refused.rewritten_refusal->code, KRY_REFUSAL_X_TYPE);
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void act_order_and_channels_have_no_rewrite(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "mute.so", "dense.so", NULL);
    kry_linear linear = shard(352, 352, 704, 64, KRY_WEIGHT_U4);
    linear.act_order = 1;
    linear.x_type = KRY_TYPE_F16; /* nobody takes it */
    kry_decision *decision;
    assert_int_equal(decision_of(registry, &linear, &decision)->rewrite, KRY_REWRITE_NONE);
    assert_null(candidate_of(decision, "dense").rewritten_refusal);
    kry_decision_destroy(&decision);
    linear.act_order = 0;
    linear.group_size = -1;
    assert_int_equal(decision_of(registry, &linear, &decision)->rewrite, KRY_REWRITE_NONE);
    assert_null(candidate_of(decision, "dense").rewritten_refusal);
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void act_order_shard_keeps_every_group(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "whole_groups.so", NULL);
    kry_linear linear = shard(352, 352, 704, 64, KRY_WEIGHT_U4);
    linear.act_order = 1;
    assert_true(error_when_stored(registry, &linear, &plainly) < 1e-5);
    kry_registry_close(&registry);
}

static void rewrite_reads_every_way_of_storing(void **state) {
    (void)state;
    static const storage ways[] = {
        {.weight_axis = KRY_AXIS_K, .zero_axis = KRY_AXIS_K, .transposed = true},
        {.weight_axis = KRY_AXIS_N,
         .weight_order = KRY_ORDER_AWQ,
         .zero_axis = KRY_AXIS_N,
         .zero_order = KRY_ORDER_AWQ,
         .transposed = true},
        {.weight_axis = KRY_AXIS_K, .zero_encoding = KRY_ZERO_SIGNED},
        {.weight_axis = KRY_AXIS_K,
         .zero_axis = KRY_AXIS_N,
         .zero_encoding = KRY_ZERO_MINUS_ONE_WORD,
         .n_begin = 3,
         .k_begin = 5,
         .g_begin = 1},
    };
    kry_registry *registry = open_mocks(NULL, "whole_groups.so", NULL);
    kry_linear linear = shard(352, 352, 704, 64, KRY_WEIGHT_U4);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        if (!(error_when_stored(registry, &linear, &ways[i]) < 1e-5))
            fail_msg("way %zu is read wrongly", i);
    kry_registry_close(&registry);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_half_of_704_at_group_64_is_split_to_32),
        cmocka_unit_test(first_half_of_704_ends_inside_a_group_and_is_split),
        cmocka_unit_test(shard_of_whole_length_that_begins_inside_a_group_is_split),
        cmocka_unit_test(middle_third_is_split_to_8),
        cmocka_unit_test(eight_bits_and_zero_points_are_split_alike),
        cmocka_unit_test(offsets_that_share_nothing_are_split_to_single_columns),
        cmocka_unit_test(description_that_is_taken_as_it_stands_is_not_rewritten),
        cmocka_unit_test(kernel_that_takes_straddles_wins_before_any_rewrite),
        cmocka_unit_test(description_without_whole_groups_anywhere_is_refused_twice),
        cmocka_unit_test(act_order_and_channels_have_no_rewrite),
        cmocka_unit_test(act_order_shard_keeps_every_group),
        cmocka_unit_test(rewrite_reads_every_way_of_storing),
    };
    return cmocka_run_group_tests_name("loader rewrite", tests, NULL, NULL) ? 1 : 0;
}
