/* Layers as serving stacks run them. */
#include "fuse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

struct lists {
    struct units stored, fused;
};

static int begin(void **state) {
    *state = calloc(1, sizeof(struct lists));
    return !*state;
}

static int end(void **state) {
    struct lists *lists = *state;
    units_free(&lists->stored);
    units_free(&lists->fused);
    free(lists);
    return 0;
}

static kry_linear describe(int64_t in_features, int64_t out_features, int64_t group_size) {
    kry_linear linear = KRY_INIT(kry_linear), complete = KRY_INIT(kry_linear);
    linear.in_features = in_features;
    linear.out_features = out_features;
    linear.group_size = group_size;
    linear.weight_type = KRY_WEIGHT_U4B8;
    linear.x_type = KRY_TYPE_BF16;
    assert_int_equal(kry_linear_complete(&linear, &complete), KRY_OK);
    return complete;
}

static void add(struct lists *lists, const char *name, int64_t in_features, int64_t out_features) {
    kry_linear linear = describe(in_features, out_features, 32);
    assert_int_equal(units_add(&lists->stored, name, KRY_OK, "", &linear), KRY_OK);
}

static void fuse(struct lists *lists) {
    assert_int_equal(units_fuse(&lists->stored, &lists->fused), KRY_OK);
}

static const struct unit *fused_named(const struct lists *lists, const char *name) {
    for (size_t i = 0; i < lists->fused.count; i++)
        if (!strcmp(lists->fused.items[i].name, name))
            return &lists->fused.items[i];
    return NULL;
}

static void fuse_of_q_k_v_sums_their_rows(void **state) {
    struct lists *lists = *state;
    add(lists, "model.layers.0.self_attn.k_proj", 512, 64);
    add(lists, "model.layers.0.self_attn.o_proj", 512, 512);
    add(lists, "model.layers.0.self_attn.q_proj", 512, 512);
    add(lists, "model.layers.0.self_attn.v_proj", 512, 64);
    fuse(lists);
    assert_int_equal(lists->fused.count, 2);
    const struct unit *qkv = fused_named(lists, "model.layers.0.self_attn.qkv_proj");
    assert_non_null(qkv);
    assert_int_equal(qkv->linear.out_features, 640);
    assert_int_equal(qkv->linear.full_out_features, 640);
    assert_int_equal(qkv->linear.in_features, 512);
    assert_int_equal(qkv->part_count, 3);
    assert_int_equal(qkv->parts[0], 512);
    assert_int_equal(qkv->parts[2], 64);
    assert_ptr_equal(qkv, &lists->fused.items[0]);
}

static void fuse_of_gate_and_up_ignores_what_lies_between(void **state) {
    struct lists *lists = *state;
    add(lists, "layers.0.mlp.down_proj", 128, 64);
    add(lists, "layers.0.mlp.gate_proj", 64, 128);
    add(lists, "layers.0.mlp.shared_expert.gate_proj", 64, 32);
    add(lists, "layers.0.mlp.shared_expert.up_proj", 64, 32);
    add(lists, "layers.0.mlp.up_proj", 64, 128);
    fuse(lists);
    assert_int_equal(lists->fused.count, 3);
    assert_int_equal(fused_named(lists, "layers.0.mlp.gate_up_proj")->linear.out_features, 256);
    assert_int_equal(
        fused_named(lists, "layers.0.mlp.shared_expert.gate_up_proj")->linear.out_features, 64);
}

static void fuse_of_experts_stays_within_each(void **state) {
    struct lists *lists = *state;
    add(lists, "moe.experts.0.w1", 64, 96);
    add(lists, "moe.experts.0.w2", 96, 64);
    add(lists, "moe.experts.0.w3", 64, 96);
    add(lists, "moe.experts.1.w1", 64, 96);
    add(lists, "moe.experts.10.w3", 64, 96);
    fuse(lists);
    assert_int_equal(lists->fused.count, 4);
    assert_non_null(fused_named(lists, "moe.experts.0.w13"));
    assert_non_null(fused_named(lists, "moe.experts.1.w1"));
    assert_non_null(fused_named(lists, "moe.experts.10.w3"));
}

static void fuse_of_different_descriptions_leaves_them_alone(void **state) {
    struct lists *lists = *state;
    kry_linear other = describe(64, 128, 64);
    add(lists, "mlp.gate_proj", 64, 128);
    assert_int_equal(units_add(&lists->stored, "mlp.up_proj", KRY_OK, "", &other), KRY_OK);
    fuse(lists);
    assert_int_equal(lists->fused.count, 2);
    assert_null(fused_named(lists, "mlp.gate_up_proj"));
}

static void fuse_with_an_unsupported_part_leaves_them_alone(void **state) {
    struct lists *lists = *state;
    kry_linear none = KRY_INIT(kry_linear);
    add(lists, "mlp.gate_proj", 64, 128);
    assert_int_equal(
        units_add(&lists->stored, "mlp.up_proj", KRY_E_UNSUPPORTED, "three bits", &none), KRY_OK);
    fuse(lists);
    assert_int_equal(lists->fused.count, 2);
    assert_string_equal(fused_named(lists, "mlp.up_proj")->reason, "three bits");
}

static void fuse_with_a_missing_part_leaves_them_alone(void **state) {
    struct lists *lists = *state;
    add(lists, "attn.q_proj", 64, 64);
    add(lists, "attn.k_proj", 64, 64);
    fuse(lists);
    assert_int_equal(lists->fused.count, 2);
}

static void fuse_beyond_the_largest_features_leaves_them_alone(void **state) {
    struct lists *lists = *state;
    add(lists, "mlp.gate_proj", 64, KRY_FEATURES_MAX);
    add(lists, "mlp.up_proj", 64, 64);
    fuse(lists);
    assert_int_equal(lists->fused.count, 2);
}

static void fuse_of_bare_names_and_of_nothing_works(void **state) {
    struct lists *lists = *state;
    fuse(lists);
    assert_int_equal(lists->fused.count, 0);
    units_free(&lists->fused);
    add(lists, "gate_proj", 64, 64);
    add(lists, "up_proj", 64, 64);
    fuse(lists);
    assert_non_null(fused_named(lists, "gate_up_proj"));
}

/* ---- partitions ---------------------------------------------------------------------- */

static void partition_of_a_column_layer_splits_each_part(void **state) {
    struct lists *lists = *state;
    add(lists, "attn.q_proj", 64, 128);
    add(lists, "attn.k_proj", 64, 32);
    add(lists, "attn.v_proj", 64, 32);
    fuse(lists);
    kry_linear linear;
    const struct unit *qkv = &lists->fused.items[0];
    assert_int_equal(unit_partition(qkv, 4, 3, &linear), KRY_OK);
    assert_int_equal(linear.out_features, 48);
    assert_int_equal(linear.full_out_features, 192);
    assert_int_equal(linear.in_features, 64);
    assert_int_equal(linear.k_offset, 0);
    /* 192 divides by 64, but 32 does not. */
    assert_int_equal(unit_partition(qkv, 64, 0, &linear), KRY_E_UNSUPPORTED);
    assert_non_null(strstr(kry_error_message(), "32 do not divide by 64"));
}

static void partition_of_a_row_layer_starts_at_its_columns(void **state) {
    struct lists *lists = *state;
    add(lists, "model.layers.3.mlp.down_proj", 96, 64);
    kry_linear linear;
    assert_int_equal(unit_partition(&lists->stored.items[0], 2, 1, &linear), KRY_OK);
    assert_int_equal(linear.in_features, 48);
    assert_int_equal(linear.full_in_features, 96);
    assert_int_equal(linear.k_offset, 48);
    assert_int_equal(linear.out_features, 64);
    assert_int_equal(unit_partition(&lists->stored.items[0], 5, 1, &linear), KRY_E_UNSUPPORTED);
    kry_linear complete = KRY_INIT(kry_linear);
    assert_int_equal(kry_linear_complete(&linear, &complete), KRY_OK);
    assert_memory_equal(&linear, &complete, sizeof linear);
}

static void partition_on_one_rank_is_the_layer_as_it_is(void **state) {
    struct lists *lists = *state;
    kry_linear shard = describe(48, 64, 32), linear;
    shard.full_in_features = 96;
    shard.k_offset = 48;
    assert_int_equal(units_add(&lists->stored, "x.down_proj", KRY_OK, "", &shard), KRY_OK);
    assert_int_equal(unit_partition(&lists->stored.items[0], 1, 0, &linear), KRY_OK);
    assert_memory_equal(&linear, &shard, sizeof linear);
}

static void parallel_of_names_follows_serving_stacks(void **state) {
    struct lists *lists = *state;
    static const struct {
        const char *name;
        enum parallel parallel;
    } cases[] = {
        {"model.layers.0.self_attn.o_proj", PARALLEL_ROW},
        {"model.layers.0.mlp.down_proj", PARALLEL_ROW},
        {"model.layers.0.mlp.experts.7.w2", PARALLEL_ROW},
        {"transformer.h.0.mlp.dense_4h_to_h", PARALLEL_ROW},
        {"transformer.h.0.mlp.dense_h_to_4h", PARALLEL_COLUMN},
        {"visual.blocks.0.mlp.fc2", PARALLEL_ROW},
        {"visual.blocks.0.mlp.fc1", PARALLEL_COLUMN},
        {"encoder.layer.0.attention.output.dense", PARALLEL_ROW},
        {"encoder.layer.0.intermediate.dense", PARALLEL_COLUMN},
        {"intermediate.dense", PARALLEL_COLUMN},
        {"dense", PARALLEL_ROW},
        {"model.layers.0.self_attn.q_a_proj", PARALLEL_REPLICATED},
        {"model.layers.0.mlp.gate", PARALLEL_REPLICATED},
        {"model.layers.0.self_attn.q_proj", PARALLEL_COLUMN},
        {"somebody.elses.name", PARALLEL_COLUMN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        add(lists, cases[i].name, 64, 64);
        if (lists->stored.items[i].parallel != cases[i].parallel)
            print_error("%s: %s\n", cases[i].name, parallel_word(lists->stored.items[i].parallel));
        assert_int_equal(lists->stored.items[i].parallel, cases[i].parallel);
    }
}

static void same_but_place_compares_the_place_within_the_group(void **state) {
    (void)state;
    kry_linear a = describe(48, 64, 32), b = a;
    a.full_in_features = b.full_in_features = 480;
    b.k_offset = 96;
    assert_true(same_but_place(&a, &b));
    b.k_offset = 48;
    assert_false(same_but_place(&a, &b));
    b.act_order = a.act_order = 1;
    assert_true(same_but_place(&a, &b));
    b.act_order = a.act_order = 0;
    b.group_size = a.group_size = -1;
    assert_true(same_but_place(&a, &b));
    b.out_features++;
    assert_false(same_but_place(&a, &b));
}

static void name_pattern_replaces_whole_numbers(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"model.layers.12.mlp.down_proj", "model.layers.*.mlp.down_proj"},
        {"h.0.experts.7.w1", "h.*.experts.*.w1"},
        {"to_out.0", "to_out.*"},
        {"fc2", "fc2"},
        {"", ""},
        {"a..1.", "a..*."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *pattern = name_pattern(cases[i][0]);
        assert_string_equal(pattern, cases[i][1]);
        free(pattern);
    }
}

#define WITH_LISTS(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_LISTS(fuse_of_q_k_v_sums_their_rows),
        WITH_LISTS(fuse_of_gate_and_up_ignores_what_lies_between),
        WITH_LISTS(fuse_of_experts_stays_within_each),
        WITH_LISTS(fuse_of_different_descriptions_leaves_them_alone),
        WITH_LISTS(fuse_with_an_unsupported_part_leaves_them_alone),
        WITH_LISTS(fuse_with_a_missing_part_leaves_them_alone),
        WITH_LISTS(fuse_beyond_the_largest_features_leaves_them_alone),
        WITH_LISTS(fuse_of_bare_names_and_of_nothing_works),
        WITH_LISTS(partition_of_a_column_layer_splits_each_part),
        WITH_LISTS(partition_of_a_row_layer_starts_at_its_columns),
        WITH_LISTS(partition_on_one_rank_is_the_layer_as_it_is),
        WITH_LISTS(parallel_of_names_follows_serving_stacks),
        cmocka_unit_test(same_but_place_compares_the_place_within_the_group),
        cmocka_unit_test(name_pattern_replaces_whole_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
