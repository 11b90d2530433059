/*
 * GPTQ: versions 1 and 2, the two rules of version 1's zero points, act-order, overrides.
 */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static void write_config(const char *more) {
    model_text(&model, "config.json",
               "{\"torch_dtype\": \"float16\", \"quantization_config\": {\"quant_method\": "
               "\"gptq\", \"bits\": %d, \"group_size\": %d, \"sym\": %s%s}}",
               problem.bits, (int)problem.group_size, problem.symmetric ? "true" : "false", more);
}

static void write_model(int flags, const char *more) {
    write_gptq(&problem, &file, "model.down", flags);
    tensors_write(&file, &model, "model.safetensors");
    write_config(more);
}

static const char version_2[] = ", \"checkpoint_format\": \"gptq_v2\"";
static const char by_gptqmodel[] =
    ", \"checkpoint_format\": \"gptq\", \"meta\": {\"quantizer\": [\"gptqmodel:2.1.0\"]}";

static kry_checkpoint_layer described(void) {
    size_t index;
    kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
    assert_int_equal(kry_checkpoint_find_layer(model.checkpoint, "model.down", &index), KRY_OK);
    assert_int_equal(kry_checkpoint_layer_at(model.checkpoint, index, &layer), KRY_OK);
    assert_int_equal(layer.method, KRY_METHOD_GPTQ);
    return layer;
}

/* ---- numbers --------------------------------------------------------------------------- */

static void partitions_of_every_scheme_show_the_numbers(void **state) {
    static const struct {
        int k, n, group_size, bits, symmetric, flags;
        const char *more;
    } cases[] = {
        {64, 24, 32, 4, 1, ZEROS_FIELD | WITH_BIAS | WITH_G_IDX, ""},
        {64, 24, -1, 8, 1, ZEROS_FIELD, ""},
        {64, 24, 32, 4, 0, 0, version_2},
        {64, 24, 16, 8, 0, WITH_G_IDX, version_2},
        {64, 24, 32, 4, 0, ZEROS_FIELD, ""},
        {64, 24, 32, 8, 0, ZEROS_FIELD, ""},
        {64, 24, 32, 4, 0, ZEROS_WORD, by_gptqmodel},
        {64, 24, 32, 8, 0, ZEROS_WORD, by_gptqmodel},
        {60, 21, 16, 4, 0, ZEROS_WORD | WITH_G_IDX | WITH_BIAS, by_gptqmodel},
        {60, 21, 16, 4, 0, ZEROS_FIELD | WITH_G_IDX, ""},
        {61, 13, 16, 8, 0, WITH_G_IDX, version_2},
        {40, 16, 32, 4, 0, ZEROS_WORD, by_gptqmodel}, /* the last group is short */
        {61, 13, -1, 4, 0, WITH_G_IDX, version_2},
        {64, 13, 32, 4, 1, ZEROS_FIELD | ZEROS_SHORT, ""}, /* of no use, so of no harm */
        {1, 1, 128, 4, 0, WITH_G_IDX, version_2},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        problem_make(&problem, cases[i].k, cases[i].n, cases[i].group_size, cases[i].bits,
                     cases[i].symmetric);
        file.misalign = i % 8;
        write_model(cases[i].flags, cases[i].more);
        model_open_well(&model);
        check_partitions(&model, "model.down", &problem);
        kry_checkpoint_layer layer = described();
        assert_int_equal(layer.linear->x_type, KRY_TYPE_F16);
        assert_int_equal(layer.linear->act_order, 0);
        assert_int_equal(layer.has_bias, (cases[i].flags & WITH_BIAS) != 0);
        tensors_free(&file);
        problem_free(&problem);
    }
}

/* ---- zero points ----------------------------------------------------------------------- */

static void zeros_without_a_borrow_are_the_same_by_both_rules(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        problem_make(&problem, 64, 24, 32, i == 0 ? 4 : 8, false);
        for (int64_t z = 0; z < 24 * problem.groups; z++)
            problem.z[z] |= 1;
        for (int j = 0; j < 2; j++) {
            write_model(ZEROS_FIELD, j == 0 ? "" : by_gptqmodel);
            model_open_well(&model);
            check_partitions(&model, "model.down", &problem);
            assert_int_equal(model.log_count, 0);
            tensors_free(&file);
        }
        problem_free(&problem);
    }
}

static void zeros_on_which_the_rules_disagree_are_warned_of_once(void **state) {
    (void)state;
    for (int bits = 4; bits <= 8; bits += 4)
        for (int i = 0; i < 2; i++) {
            problem_make(&problem, 64, 24, 32, bits, false);
            memset(problem.z, 3, (size_t)(24 * problem.groups));
            problem.z[5 * problem.groups] = 0;
            write_model(i == 0 ? ZEROS_FIELD : ZEROS_WORD, i == 0 ? "" : by_gptqmodel);
            model_open_well(&model);
            check_partitions(&model, "model.down", &problem);
            assert_int_equal(model.log_count, 1);
            /* wrapped to 15 the field carries into the next one; borrowed, likewise */
            assert_logged(&model, "model.down.qzeros");
            assert_logged(&model, "disagree on 1 of 48");
            assert_logged(&model, i == 0 ? "field by field" : "word by word");
            /* a partition that does not have it does not speak of it */
            model_open_well(&model);
            check_partition(&model, "model.down", &problem, 7, 24, 0, 64);
            check_partition(&model, "model.down", &problem, 0, 6, 0, 64);
            check_partition(&model, "model.down", &problem, 0, 24, 32, 64);
            assert_int_equal(model.log_count, 0);
            tensors_free(&file);
            problem_free(&problem);
        }
}

static void writer_is_found_in_any_form_of_meta(void **state) {
    static const struct {
        const char *meta;
        bool by_word;
    } cases[] = {
        {"{\"quantizer\": \"GPTQModel:1.4.0\"}", true},
        {"{\"quantizer\": [\"optimum:1.23\", \"gptqmodel:1.4.0\"]}", true},
        {"{\"quantizer\": [\"optimum:1.23\", \"auto_gptq:0.7.1\"]}", false},
        {"{\"quantizer\": [7, null]}", false},
        {"{}", false},
        {"7", false},
        {"null", false},
    };
    (void)state;
    problem_make(&problem, 64, 24, 32, 4, false);
    memset(problem.z, 0, (size_t)(24 * problem.groups));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char more[128];
        snprintf(more, sizeof more, ", \"meta\": %s", cases[i].meta);
        write_model(cases[i].by_word ? ZEROS_WORD : ZEROS_FIELD, more);
        model_open_well(&model);
        check_partitions(&model, "model.down", &problem);
        tensors_free(&file);
    }
    /* config.json may leave it to the writer's own file */
    write_model(ZEROS_WORD, "");
    model_text(&model, "quantize_config.json",
               "{\"bits\": 8, \"meta\": {\"quantizer\": \"gptqmodel:1\"}}");
    model_open_well(&model);
    check_partitions(&model, "model.down", &problem);
}

static void symmetric_zeros_that_are_not_the_middle_are_warned_of(void **state) {
    (void)state;
    problem_make(&problem, 64, 16, 32, 4, true);
    write_model(0, ""); /* holds 8 where version 1 has 7 */
    model_open_well(&model);
    check_partitions(&model, "model.down", &problem);
    assert_int_equal(model.log_count, 1);
    assert_logged(&model, "32 of 32");
    assert_logged(&model, "gptq_v2");
    tensors_free(&file);
    write_model(ZEROS_FIELD, "");
    ((uint32_t *)tensors_find(&file, "model.down.qzeros")->data)[0] = 0x77797777;
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    check_partition(&model, "model.down", &problem, 0, 4, 0, 64);
    assert_int_equal(model.log_count, 0);
    check_partitions(&model, "model.down", &problem);
    assert_int_equal(model.log_count, 1);
    assert_logged(&model, "1 of 32");
    assert_null(strstr(model.log, "gptq_v2"));
    tensors_free(&file);
    write_model(0, version_2);
    model_open_well(&model);
    check_partitions(&model, "model.down", &problem);
    assert_int_equal(model.log_count, 0);
    tensors_drop(&file, "model.down.qzeros");
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    check_partitions(&model, "model.down", &problem);
}

static void missing_word_on_symmetry_uses_the_stored_zeros(void **state) {
    (void)state;
    problem_make(&problem, 64, 16, 32, 4, false);
    write_model(0, version_2);
    model_text(&model, "config.json",
               "{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, "
               "\"group_size\": 32, \"checkpoint_format\": \"gptq_v2\"}}");
    model_open_well(&model);
    assert_int_equal(described().linear->weight_type, KRY_WEIGHT_U4);
    assert_int_equal(described().linear->x_type, KRY_TYPE_F16);
    check_partitions(&model, "model.down", &problem);
}

static void zeros_of_too_few_words_are_refused(void **state) {
    (void)state;
    problem_make(&problem, 64, 13, 32, 4, false);
    write_model(ZEROS_FIELD | ZEROS_SHORT, "");
    model_open_badly(&model, KRY_E_FORMAT, "model.down.qzeros", "1 words", "13", "2", "AutoGPTQ");
}

/* ---- act-order ------------------------------------------------------------------------- */

static void act_order_partitions_keep_every_group(void **state) {
    (void)state;
    for (size_t misalign = 0; misalign < 4; misalign++) {
        problem_make(&problem, 60, 16, 16, 4, misalign % 2 == 0);
        problem_shuffle(&problem);
        file.misalign = misalign;
        write_model(WITH_G_IDX | ZEROS_FIELD, ", \"desc_act\": true");
        model_open_well(&model);
        assert_int_equal(described().linear->act_order, 1);
        check_partitions(&model, "model.down", &problem);
        tensors_free(&file);
        problem_free(&problem);
    }
}

static void trivial_g_idx_is_no_act_order(void **state) {
    (void)state;
    problem_make(&problem, 60, 16, 16, 4, true);
    write_model(WITH_G_IDX | ZEROS_FIELD, ", \"desc_act\": true");
    model_open_well(&model);
    assert_int_equal(described().linear->act_order, 1);
    kry_checkpoint_weights *weights;
    assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, NULL, &weights), KRY_OK);
    assert_int_equal(weights->linear->act_order, 0);
    kry_checkpoint_weights_destroy(&weights);
    check_partitions(&model, "model.down", &problem);
}

static void g_idx_that_orders_without_desc_act_is_used_and_warned_of(void **state) {
    (void)state;
    problem_make(&problem, 60, 16, 16, 4, true);
    problem_shuffle(&problem);
    write_model(WITH_G_IDX | ZEROS_FIELD, ", \"desc_act\": false");
    model_open_well(&model);
    assert_int_equal(described().linear->act_order, 0);
    check_partitions(&model, "model.down", &problem);
    assert_int_equal(model.log_count, 1);
    assert_logged(&model, "model.down.g_idx");
}

static void g_idx_of_a_channel_can_only_be_zero(void **state) {
    (void)state;
    problem_make(&problem, 64, 16, -1, 4, true);
    write_model(WITH_G_IDX | ZEROS_FIELD, ", \"desc_act\": true");
    model_open_well(&model);
    assert_int_equal(described().linear->act_order, 0);
    check_partitions(&model, "model.down", &problem);
    ((int32_t *)tensors_find(&file, "model.down.g_idx")->data)[9] = 1;
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    kry_checkpoint_weights *weights = NULL;
    assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, NULL, &weights),
                     KRY_E_FORMAT);
    assert_message("column 9 is of group 1; expected 0 to 0");
}

static void desc_act_without_g_idx_is_refused(void **state) {
    (void)state;
    problem_make(&problem, 64, 16, 32, 4, true);
    write_model(ZEROS_FIELD, ", \"desc_act\": true");
    model_open_badly(&model, KRY_E_FORMAT, "model.down.g_idx");
}

/* ---- disagreement ---------------------------------------------------------------------- */

static void tensors_that_disagree_with_the_config_are_refused(void **state) {
    static const int64_t zeros[4096];
    static const struct {
        const char *name, *dtype, *shape, *part;
    } cases[] = {
        {"model.down.qweight", "F16", "8x16", "F16 [8, 16]"},
        {"model.down.qweight", "I32", "8x16x1", "I32 [8, 16, 1]"},
        {"model.down.qweight", "I32", "8x0", "I32 [8, 0]"},
        {"model.down.qweight", "I32", "9x16", "72x16"},
        {"model.down.scales", "F16", "3x16", "F16 [2, 16]"},
        {"model.down.scales", "F16", "16x2", "F16 [2, 16]"},
        {"model.down.scales", "I32", "2x16", "I32 [2, 16]"},
        {"model.down.qzeros", "I32", "3x2", "I32 [2, 2]"},
        {"model.down.qzeros", "I32", "2x3", "I32 [2, 2]"},
        {"model.down.qzeros", "F16", "2x2", "I32 [2, 2]"},
        {"model.down.g_idx", "I32", "65", "I32 [64]"},
        {"model.down.g_idx", "I32", "8x8", "I32 [64]"},
        {"model.down.g_idx", "I64", "64", "I32 [64]"},
        {"model.down.bias", "F32", "15", "F32 [16]"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        problem_make(&problem, 64, 16, 32, 4, false);
        write_model(WITH_BIAS | WITH_G_IDX, version_2);
        model_open_well(&model);
        tensors_drop(&file, cases[i].name);
        tensors_add(&file, cases[i].name, cases[i].dtype, cases[i].shape, zeros);
        tensors_write(&file, &model, "model.safetensors");
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors", "model.down", cases[i].part);
        tensors_free(&file);
        problem_free(&problem);
    }
}

static void missing_tensors_are_named(void **state) {
    static const char *const names[] = {"model.down.qweight", "model.down.scales",
                                        "model.down.qzeros"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        problem_make(&problem, 64, 16, 32, 4, false);
        write_model(0, version_2);
        tensors_drop(&file, names[i]);
        tensors_write(&file, &model, "model.safetensors");
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors", names[i]);
        tensors_free(&file);
        problem_free(&problem);
    }
}

static void absurd_sizes_are_refused(void **state) {
    (void)state;
    problem_make(&problem, 64, 16, -1, 4, true);
    write_config("");
    tensors_add(&file, "model.down.qweight", "I32", "536870912x1", NULL);
    tensors_add(&file, "model.down.scales", "F16", "1x1", NULL);
    tensors_write(&file, &model, "model.safetensors");
    model_open_badly(&model, KRY_E_FORMAT, "model.down", "4294967296", "2147483648");
}

static void bad_config_values_are_refused(void **state) {
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"\"group_size\": 32", "'bits' is missing"},
        {"\"bits\": 4", "'group_size' is missing"},
        {"\"bits\": 4, \"group_size\": null", "'group_size' is missing"},
        {"\"bits\": \"4\", \"group_size\": 32", "'bits' is a string"},
        {"\"bits\": 4, \"group_size\": 0", "group_size is 0"},
        {"\"bits\": 4, \"group_size\": -2", "group_size is -2"},
        {"\"bits\": 4, \"group_size\": 9223372036854775807", "group_size is 9223372036854775807"},
        {"\"bits\": 4, \"group_size\": 3.5", "'group_size' is a real"},
        {"\"bits\": 4, \"group_size\": 32, \"sym\": 1", "'sym' is an integer"},
        {"\"bits\": 4, \"group_size\": 32, \"desc_act\": []", "'desc_act' is an array"},
        {"\"bits\": 4, \"group_size\": 32, \"checkpoint_format\": {}", "'checkpoint_format'"},
        {"\"bits\": 4, \"group_size\": 32, \"format\": {}", "'format'"},
        {"\"bits\": 4, \"group_size\": 32, \"pack_dtype\": 32", "'pack_dtype'"},
        {"\"bits\": 4, \"group_size\": 32, \"dynamic\": []", "'dynamic' is an array"},
        {"\"bits\": 4, \"group_size\": 32, \"dynamic\": {\"a\": 7}", "found an integer"},
        {"\"bits\": 4, \"group_size\": 32, \"dynamic\": {\"a(\": {}}", "'a('"},
        {"\"bits\": 4, \"group_size\": 32, \"dynamic\": {\".*\": {\"bits\": []}}",
         "'bits' is an array"},
        {"\"bits\": 4, \"group_size\": 32, \"dynamic\": {\".*\": {\"group_size\": 0}}",
         "group_size is 0"},
        {"\"bits\": 4, \"group_size\": 32, \"dynamic\": {\"(.*)*o(.*)*y(.*)*\\\\d\\\\d\": {}}",
         "cannot be matched"},
    };
    (void)state;
    problem_make(&problem, 64, 16, 32, 4, true);
    write_gptq(&problem, &file, "model.layers.0.self_attn.long_enough_to_try_many_ways", 0);
    tensors_write(&file, &model, "model.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model_text(&model, "config.json",
                   "{\"quantization_config\": {\"quant_method\": \"gptq\", %s}}", cases[i].text);
        model_open_badly(&model, KRY_E_FORMAT, "config.json", cases[i].part);
    }
}

/* ---- what is outside ------------------------------------------------------------------- */

static void schemes_outside_are_listed_with_a_reason(void **state) {
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"\"bits\": 3, \"group_size\": 32", "3 bits"},
        {"\"bits\": 4, \"group_size\": 32, \"checkpoint_format\": \"marlin\"", "marlin"},
        {"\"bits\": 4, \"group_size\": 32, \"is_marlin_format\": true", "Marlin"},
        {"\"bits\": 4, \"group_size\": 32, \"pack_dtype\": \"int64\"", "int64"},
    };
    (void)state;
    problem_make(&problem, 64, 16, 32, 4, true);
    write_gptq(&problem, &file, "model.down", ZEROS_FIELD);
    tensors_write(&file, &model, "model.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model_text(&model, "config.json",
                   "{\"quantization_config\": {\"quant_method\": \"gptq\", %s}}", cases[i].text);
        model_open_well(&model);
        kry_checkpoint_layer layer = described();
        assert_int_equal(layer.status, KRY_E_UNSUPPORTED);
        assert_null(layer.linear);
        assert_non_null(strstr(layer.reason, cases[i].part));
        kry_checkpoint_weights *weights = NULL;
        assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, NULL, &weights),
                         KRY_E_UNSUPPORTED);
        assert_message(cases[i].part);
        kry_linear linear = KRY_INIT(kry_linear);
        assert_int_equal(kry_checkpoint_slice(model.checkpoint, 0, NULL, &linear),
                         KRY_E_UNSUPPORTED);
    }
}

static void dynamic_rules_override_in_the_order_of_the_file(void **state) {
    (void)state;
    struct problem wide, other, plain;
    problem_make(&wide, 64, 16, 16, 8, true);
    problem_make(&other, 64, 16, 64, 4, false);
    problem_make(&plain, 64, 16, 32, 4, true);
    write_gptq(&wide, &file, "model.layers.1.down", ZEROS_FIELD);
    write_gptq(&other, &file, "model.layers.2.down", ZEROS_FIELD);
    write_gptq(&plain, &file, "model.layers.3.down", ZEROS_FIELD);
    write_gptq(&plain, &file, "model.layers.4.down", ZEROS_FIELD);
    write_gptq(&plain, &file, "model.layers.4.up", ZEROS_FIELD);
    tensors_write(&file, &model, "model.safetensors");
    model_text(&model, "config.json",
               "{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, "
               "\"group_size\": 32, \"sym\": true, \"dynamic\": {"
               "\"-:.*\\\\.4\\\\.up\": {},"      /* left out */
               "\"ayers\\\\.3\": {\"bits\": 8}," /* not at the start */
               "\"+:model\\\\.layers\\\\.1\": {\"bits\": 8, \"group_size\": 16}," /* a beginning */
               "\"model\\\\.layers\\\\.[12]\\\\.down\": {\"sym\": false, \"group_size\": 64}}}}");
    model_open_well(&model);
    assert_int_equal(kry_checkpoint_layer_count(model.checkpoint), 4);
    assert_logged(&model, "model.layers.4.up");
    check_partitions(&model, "model.layers.1.down", &wide);
    check_partitions(&model, "model.layers.2.down", &other);
    check_partitions(&model, "model.layers.3.down", &plain);
    check_partitions(&model, "model.layers.4.down", &plain);
    problem_free(&wide);
    problem_free(&other);
    problem_free(&plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(partitions_of_every_scheme_show_the_numbers, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(zeros_without_a_borrow_are_the_same_by_both_rules, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(zeros_on_which_the_rules_disagree_are_warned_of_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(writer_is_found_in_any_form_of_meta, setup, teardown),
        cmocka_unit_test_setup_teardown(symmetric_zeros_that_are_not_the_middle_are_warned_of,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(missing_word_on_symmetry_uses_the_stored_zeros, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(zeros_of_too_few_words_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(act_order_partitions_keep_every_group, setup, teardown),
        cmocka_unit_test_setup_teardown(trivial_g_idx_is_no_act_order, setup, teardown),
        cmocka_unit_test_setup_teardown(g_idx_that_orders_without_desc_act_is_used_and_warned_of,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(g_idx_of_a_channel_can_only_be_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(desc_act_without_g_idx_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(tensors_that_disagree_with_the_config_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(missing_tensors_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(absurd_sizes_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_config_values_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(schemes_outside_are_listed_with_a_reason, setup, teardown),
        cmocka_unit_test_setup_teardown(dynamic_rules_override_in_the_order_of_the_file, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
