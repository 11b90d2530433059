/* kernelry check, on mock plugins and models without contents. */
#include "process.h"
#include "small_model.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SEED MOCK_PLUGINS "/seed"

/* Two blocks of a small model whose down_proj is 2112 wide. */
static const struct small_layer gemma[] = {
    {"model.layers.0.mlp.down_proj", 2112, 2816},
    {"model.layers.0.mlp.gate_proj", 2816, 2112},
    {"model.layers.0.mlp.up_proj", 2816, 2112},
    {"model.layers.0.self_attn.k_proj", 2816, 512},
    {"model.layers.0.self_attn.o_proj", 2816, 2816},
    {"model.layers.0.self_attn.q_proj", 2816, 2816},
    {"model.layers.0.self_attn.v_proj", 2816, 512},
    {"model.layers.1.mlp.down_proj", 2112, 2816},
    {"model.layers.1.mlp.gate_proj", 2816, 2112},
    {"model.layers.1.mlp.up_proj", 2816, 2112},
    {"model.layers.1.self_attn.k_proj", 2816, 512},
    {"model.layers.1.self_attn.o_proj", 2816, 2816},
    {"model.layers.1.self_attn.q_proj", 2816, 2816},
    {"model.layers.1.self_attn.v_proj", 2816, 512},
};
enum { GEMMA_COUNT = sizeof gemma / sizeof gemma[0] };

static char *model;

static int make_model(void **state) {
    (void)state;
    model = small_model_make(gemma, GEMMA_COUNT, 64);
    return 0;
}

static int remove_model(void **state) {
    (void)state;
    small_model_remove(model);
    return 0;
}

/* The row of a section with a name among its names, and the n-th such. */
static json_t *row_named(json_t *root, const char *section, const char *name, size_t nth) {
    json_t *row, *found;
    size_t i, j;
    json_array_foreach(json_at(root, section), i, row)
        json_array_foreach(json_at(row, "names"), j,
                           found) if (!strcmp(json_string_value(found), name) && !nth--) return row;
    fail_msg("no row of '%s' names '%s'", section, name);
    return NULL;
}

static void check_groups_layers_as_stored_and_as_fused(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(SEED, ARGUMENTS("check", model, "--device", "cuda:sm_80", "--json"));
    assert_code(&run, 0);
    assert_int_equal(number_at(run.json, "summary.layers"), 14);
    assert_int_equal(json_array_size(json_at(run.json, "stored")), 4);
    json_t *square = row_named(run.json, "stored", "model.layers.*.self_attn.q_proj", 0);
    assert_int_equal(number_at(square, "layers"), 4); /* o_proj too */
    assert_int_equal(json_array_size(json_at(square, "names")), 2);
    json_t *qkv = row_named(run.json, "fused", "model.layers.*.self_attn.qkv_proj", 0);
    assert_int_equal(number_at(qkv, "layers"), 2);
    assert_int_equal(number_at(qkv, "linear.out_features"), 3840);
    json_t *gate_up = row_named(run.json, "fused", "model.layers.*.mlp.gate_up_proj", 0);
    assert_int_equal(number_at(gate_up, "linear.out_features"), 4224);
    assert_string_equal(text_at(gate_up, "split"), "column");
    json_t *down = row_named(run.json, "fused", "model.layers.*.mlp.down_proj", 0);
    assert_string_equal(text_at(down, "outcome"), "slow");
    assert_int_equal(json_array_size(json_at(down, "candidates")), 7);
    finished_free(&run);
}

static void check_for_people_marks_slow_paths_with_reasons(void **state) {
    (void)state;
    struct finished run = run_kernelry(SEED, ARGUMENTS("check", model, "--device", "cuda:sm_80"));
    assert_code(&run, 0);
    assert_says(run.out, ": 14 quantized layers on cuda:sm_80 (hypothetical)\n");
    assert_says(run.out, "As stored, names below model.layers.*\n");
    assert_says(run.out, "As serving stacks fuse them, names below model.layers.*\n");
    assert_says(run.out, "self_attn.{o_proj,q_proj}\n");
    assert_says(run.out, "slow: the fallback");
    assert_says(run.out, "2112×2816 u4b8 g64 bf16 takes a slow path\n");
    assert_silent_on(run.out, " \n");
    assert_silent_on(run.out, "\033");
    assert_string_equal(run.err, "");
    finished_free(&run);
}

static void check_strict_exits_1_on_a_slow_path(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        SEED, ARGUMENTS("check", model, "--device", "cuda:sm_80", "--strict", "--json"));
    assert_code(&run, 1);
    assert_false(flag_at(run.json, "ok"));
    finished_free(&run);
}

static void check_with_ranks_shows_each_distinct_partition(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("check", model, "--tp", "2", "--json"));
    assert_code(&run, 0);
    json_t *qkv = row_named(run.json, "fused", "model.layers.*.self_attn.qkv_proj", 0);
    assert_int_equal(number_at(qkv, "linear.out_features"), 1920);
    assert_int_equal(number_at(qkv, "linear.full_out_features"), 3840);
    assert_int_equal(json_array_size(json_at(qkv, "ranks")), 2);
    /* 2112 / 2 = 1056 = 16.5 groups of 64: rank 1 starts inside a group. */
    json_t *first = row_named(run.json, "fused", "model.layers.*.mlp.down_proj", 0);
    json_t *second = row_named(run.json, "fused", "model.layers.*.mlp.down_proj", 1);
    assert_int_equal(number_at(first, "linear.in_features"), 1056);
    assert_false(flag_at(first, "linear.starts_inside_group"));
    assert_int_equal(number_at(second, "linear.k_offset"), 1056);
    assert_true(flag_at(second, "linear.starts_inside_group"));
    assert_int_equal(number_at(second, "ranks.0"), 1);
    /* 2816 / 2 = 22 groups: one row for both ranks. */
    json_t *output = row_named(run.json, "fused", "model.layers.*.self_attn.o_proj", 0);
    assert_string_equal(text_at(output, "split"), "row");
    assert_int_equal(json_array_size(json_at(output, "ranks")), 2);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("check", model, "--tp", "2"));
    assert_code(&run, 0);
    assert_says(run.out, "row, rank 1");
    assert_says(run.out, "(inside a group)");
    finished_free(&run);
}

static void check_with_ranks_that_do_not_divide_exits_1(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("check", model, "--tp", "3"));
    assert_code(&run, 1);
    assert_says(run.out, "cannot be split");
    assert_says(run.out, "in_features 2816 do not divide by 3 ranks");
    assert_says(run.out, "out_features 2816 do not divide by 3 ranks");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("check", model, "--tp", "3", "--json"));
    assert_code(&run, 1);
    json_t *output = row_named(run.json, "stored", "model.layers.*.self_attn.o_proj", 0);
    assert_string_equal(text_at(output, "finding"), "cannot_be_split");
    assert_true(number_at(run.json, "summary.cannot_be_split") > 0);
    finished_free(&run);
}

static void check_on_a_platform_that_nobody_serves_says_so(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("check", model, "--device", "abacus:beads_9"));
    assert_code(&run, 1);
    assert_string_equal(run.err, "kernelry: no plugin serves platform \"abacus\"\n");
    assert_string_equal(run.out, "");
    finished_free(&run);
}

static void check_of_layers_without_a_kernel_exits_1(void **state) {
    (void)state;
    static const struct small_layer odd[] = {{"lm_head", 2811, 2811}};
    char *folder = small_model_make(odd, 1, 64);
    struct finished run = run_kernelry(SEED, ARGUMENTS("check", folder, "--device", "cuda:sm_80"));
    assert_code(&run, 1);
    assert_says(run.out, "no kernel");
    assert_says(run.out, "1 without a kernel.");
    finished_free(&run);
    small_model_remove(folder);
}

static void check_of_shapes_lists_each_by_its_name(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        SEED, ARGUMENTS("check", "--shapes", SHAPES_FILE, "--device", "cuda:sm_80", "--json"));
    assert_code(&run, 1); /* some are refused by every kernel of that list */
    assert_int_equal(number_at(run.json, "summary.layers"), 31);
    json_t *shard = row_named(run.json, "shapes", "gemma4-26b.expert_down.tp2.rank1", 0);
    assert_int_equal(number_at(shard, "linear.k_offset"), 352);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("check", "--shapes", SHAPES_FILE));
    assert_code(&run, 0); /* the reference takes them all */
    assert_says(run.out, "The fallback is the only kernel for \"cpu\"");
    finished_free(&run);
}

static void check_of_bad_input_exits_3(void **state) {
    (void)state;
    struct finished run = run_kernelry(SEED, ARGUMENTS("check", "/nowhere"));
    assert_code(&run, 3);
    assert_says(run.err, "/nowhere");
    assert_string_equal(run.out, "");
    finished_free(&run);
    run = run_kernelry(SEED, ARGUMENTS("check", "--shapes", "/dev/null"));
    assert_code(&run, 3);
    assert_says(run.err, "not JSON");
    finished_free(&run);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Printed, not asserted: how long the headers of a 70B-shaped checkpoint take. */
static void check_of_560_layers_decides_each_shape_once(void **state) {
    (void)state;
    static const struct small_layer block[] = {
        {"mlp.down_proj", 28672, 8192},   {"mlp.gate_proj", 8192, 28672},
        {"mlp.up_proj", 8192, 28672},     {"self_attn.k_proj", 8192, 1024},
        {"self_attn.o_proj", 8192, 8192}, {"self_attn.q_proj", 8192, 8192},
        {"self_attn.v_proj", 8192, 1024}};
    static char names[560][64];
    static struct small_layer layers[560];
    for (size_t i = 0; i < 560; i++) {
        snprintf(names[i], sizeof names[i], "model.layers.%zu.%s", i / 7, block[i % 7].name);
        layers[i] = block[i % 7];
        layers[i].name = names[i];
    }
    char *folder = small_model_make(layers, 560, 128);
    double start = seconds();
    struct finished run =
        run_kernelry(SEED, ARGUMENTS("check", folder, "--device", "cuda:sm_80", "--json"));
    print_message("check of 560 layers: %.1f ms\n", 1e3 * (seconds() - start));
    assert_code(&run, 0);
    assert_int_equal(json_array_size(json_at(run.json, "stored")), 4);
    assert_int_equal(json_array_size(json_at(run.json, "fused")), 4);
    finished_free(&run);
    small_model_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_groups_layers_as_stored_and_as_fused),
        cmocka_unit_test(check_for_people_marks_slow_paths_with_reasons),
        cmocka_unit_test(check_strict_exits_1_on_a_slow_path),
        cmocka_unit_test(check_with_ranks_shows_each_distinct_partition),
        cmocka_unit_test(check_with_ranks_that_do_not_divide_exits_1),
        cmocka_unit_test(check_on_a_platform_that_nobody_serves_says_so),
        cmocka_unit_test(check_of_layers_without_a_kernel_exits_1),
        cmocka_unit_test(check_of_shapes_lists_each_by_its_name),
        cmocka_unit_test(check_of_bad_input_exits_3),
        cmocka_unit_test(check_of_560_layers_decides_each_shape_once),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model) ? 1 : 0;
}
