/* kernelry explain, on mock plugins. */
#include "process.h"
#include "small_model.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SEED MOCK_PLUGINS "/seed"

static const char whole_groups[] = MOCK_PLUGINS "/whole_groups.so";
static const char padded[] = MOCK_PLUGINS "/padded.so";

static void explain_of_the_seeds_case_gives_six_reasons(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(SEED, ARGUMENTS("explain", "--in-features", "2112", "--out-features", "2816",
                                     "--group-size", "32", "--device", "cuda:sm_80", "--json"));
    assert_code(&run, 0);
    assert_true(flag_at(run.json, "ok"));
    assert_string_equal(text_at(run.json, "layers.0.kernel"), "TritonW4A16");
    assert_string_equal(text_at(run.json, "layers.0.outcome"), "slow");
    assert_int_equal(number_at(run.json, "layers.0.linear.in_features"), 2112);
    json_t *candidates = json_at(run.json, "layers.0.candidates");
    assert_int_equal(json_array_size(candidates), 7);
    for (size_t i = 0; i < 6; i++) {
        json_t *candidate = json_array_get(candidates, i);
        assert_string_equal(text_at(candidate, "verdict"), "refuses");
        assert_true(json_string_length(json_at(candidate, "refusal.reason")) > 0);
    }
    assert_string_equal(text_at(candidates, "0.refusal.code"), "capability");
    assert_int_equal(number_at(candidates, "0.refusal.found"), 80);
    assert_int_equal(number_at(candidates, "0.refusal.needed"), 90);
    assert_string_equal(text_at(candidates, "6.verdict"), "chosen");
    finished_free(&run);
}

static void explain_for_people_ranks_kernels_and_says_who_runs(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(SEED, ARGUMENTS("explain", "--shapes", SHAPES_FILE, "--name",
                                     "gemma4-26b.down_proj", "--device", "cuda:sm_80"));
    assert_code(&run, 0);
    assert_says(run.out, "On cuda:sm_80 (hypothetical)");
    assert_says(run.out, "gemma4-26b.down_proj  2112×2816 u4b8 g32 bf16");
    assert_says(run.out, "1  CutlassW4A8 ");
    assert_says(run.out, "7  TritonW4A16 ");
    assert_says(run.out, "TritonW4A16 runs it, the fallback: a slow path.");
    assert_silent_on(run.err, "slow path"); /* not told twice */
    finished_free(&run);
}

static void explain_without_a_kernel_exits_1(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(SEED, ARGUMENTS("explain", "--in-features", "2112", "--out-features", "2811",
                                     "--x-type", "f32", "--device", "cuda:sm_80"));
    assert_code(&run, 1);
    assert_says(run.out, "No kernel can run it.");
    finished_free(&run);
}

static void explain_on_a_platform_that_nobody_serves_says_so(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("explain", "--in-features", "64", "--out-features",
                                            "64", "--device", "abacus:beads_9"));
    assert_code(&run, 1);
    assert_says(run.err, "kernelry: no plugin serves platform \"abacus\"\n");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("explain", "--in-features", "64", "--out-features",
                                              "64", "--device", "abacus", "--json"));
    assert_code(&run, 1);
    assert_string_equal(text_at(run.json, "error"), "no plugin serves platform \"abacus\"");
    assert_false(flag_at(run.json, "ok"));
    finished_free(&run);
}

static void explain_with_one_kernel_asks_that_one(void **state) {
    (void)state;
    const char *const layer[] = {"explain",    "--in-features", "2112",     "--out-features",
                                 "2816",       "--group-size",  "32",       "--device",
                                 "cuda:sm_80", "--json",        "--kernel", "marlin/Marlin",
                                 NULL};
    struct finished run = run_kernelry(SEED, layer);
    assert_code(&run, 1);
    assert_int_equal(json_array_size(json_at(run.json, "layers.0.candidates")), 1);
    assert_string_equal(text_at(run.json, "layers.0.outcome"), "none");
    finished_free(&run);
    run = run_kernelry(SEED, ARGUMENTS("explain", "--in-features", "64", "--out-features", "64",
                                       "--device", "cuda:sm_80", "--kernel", "nobody"));
    assert_code(&run, 2);
    assert_says(run.err, "platform \"cuda\" has no kernel \"nobody\"");
    finished_free(&run);
}

static void explain_tells_rewrite_and_padding(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        SEED, ARGUMENTS("explain", "--in-features", "96", "--out-features", "64", "--group-size",
                        "64", "--k-offset", "96", "--full-in-features", "192", "--x-type", "f32",
                        "--plugin-path", whole_groups, "--json"));
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "layers.0.kernel"), "whole_groups");
    assert_string_equal(text_at(run.json, "layers.0.rewrite"), "split_groups");
    assert_int_equal(number_at(run.json, "layers.0.decided_group_size"), 32);
    assert_true(number_at(run.json, "layers.0.rewrite_bytes") > 0);
    assert_true(flag_at(run.json, "layers.0.linear.starts_inside_group"));
    finished_free(&run);
    run = run_kernelry(SEED,
                       ARGUMENTS("explain", "--in-features", "96", "--out-features", "64",
                                 "--group-size", "32", "--x-type", "f32", "--plugin-path", padded));
    assert_code(&run, 0);
    assert_says(run.out, "Padding: ");
    finished_free(&run);
}

static void explain_of_a_wrong_description_exits_2(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(SEED, ARGUMENTS("explain", "--in-features", "64", "--out-features", "64",
                                     "--k-offset", "64", "--device", "cuda:sm_80"));
    assert_code(&run, 2);
    assert_says(run.err, "k_offset");
    finished_free(&run);
}

/* ---- layers of a checkpoint ---------------------------------------------------------- */

static void explain_of_a_checkpoints_layer_takes_stored_and_fused_names(void **state) {
    (void)state;
    static const struct small_layer layers[] = {{"model.layers.0.mlp.gate_proj", 96, 128},
                                                {"model.layers.0.mlp.up_proj", 96, 128},
                                                {"model.layers.0.mlp.down_proj", 288, 96}};
    char *model = small_model_make(layers, 3, 64);
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("explain", model, "--layer",
                                            "model.layers.*.mlp.gate_up_proj", "--json"));
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "layers.0.name"), "model.layers.0.mlp.gate_up_proj");
    assert_int_equal(number_at(run.json, "layers.0.linear.out_features"), 256);
    finished_free(&run);

    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("explain", model, "--layer",
                                              "model.layers.0.mlp.down_proj", "--json"));
    assert_code(&run, 0);
    assert_int_equal(number_at(run.json, "layers.0.linear.in_features"), 288);
    finished_free(&run);

    /* Of three ranks, 96 columns each: they start 0, 32 and 0 columns into a group of 64. */
    run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("explain", model, "--layer",
                                            "model.layers.0.mlp.down_proj", "--tp", "3", "--json"));
    assert_code(&run, 0);
    assert_int_equal(json_array_size(json_at(run.json, "layers")), 2);
    assert_string_equal(text_at(run.json, "layers.1.name"),
                        "model.layers.0.mlp.down_proj, rank 1 of 3");
    assert_int_equal(number_at(run.json, "layers.1.linear.k_offset"), 96);
    finished_free(&run);

    run = run_kernelry(CPU_PLUGINS,
                       ARGUMENTS("explain", model, "--layer", "model.layers.0.mlp.down_prj"));
    assert_code(&run, 3);
    assert_says(run.err, "down_prj");
    finished_free(&run);

    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("explain", model, "--layer",
                                              "model.layers.0.mlp.down_proj", "--tp", "5"));
    assert_code(&run, 1);
    assert_says(run.err, "in_features 288 do not divide by 5 ranks");
    finished_free(&run);
    small_model_remove(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(explain_of_the_seeds_case_gives_six_reasons),
        cmocka_unit_test(explain_for_people_ranks_kernels_and_says_who_runs),
        cmocka_unit_test(explain_without_a_kernel_exits_1),
        cmocka_unit_test(explain_on_a_platform_that_nobody_serves_says_so),
        cmocka_unit_test(explain_with_one_kernel_asks_that_one),
        cmocka_unit_test(explain_tells_rewrite_and_padding),
        cmocka_unit_test(explain_of_a_wrong_description_exits_2),
        cmocka_unit_test(explain_of_a_checkpoints_layer_takes_stored_and_fused_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
