/*
 * AWQ of version gemm.
 */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static void write_model(int flags, const char *config) {
    write_awq(&problem, &file, "model.q_proj", flags);
    tensors_write(&file, &model, "model.safetensors");
    model_text(&model, "config.json",
               "{\"dtype\": \"float32\", \"quantization_config\": {\"quant_method\": \"awq\", "
               "%s}}",
               config);
}

static kry_checkpoint_layer described(void) {
    kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
    assert_int_equal(kry_checkpoint_layer_at(model.checkpoint, 0, &layer), KRY_OK);
    assert_string_equal(layer.name, "model.q_proj");
    assert_int_equal(layer.method, KRY_METHOD_AWQ);
    return layer;
}

static const char usual[] = "\"bits\": 4, \"group_size\": 32, \"version\": \"GEMM\"";

static void partitions_show_the_numbers(void **state) {
    static const struct {
        int k, n, group_size, flags;
        const char *config;
    } cases[] = {
        {64, 24, 32, WITH_BIAS, "\"bits\": 4, \"group_size\": 32, \"version\": \"gemm\""},
        {61, 8, 16, 0, "\"w_bit\": 4, \"q_group_size\": 16, \"zero_point\": true"},
        {33, 40, -1, 0, "\"bits\": 4, \"group_size\": -1, \"format\": \"gemm\""},
        {1, 8, 128, WITH_BIAS, "\"bits\": 4, \"group_size\": 128, \"zero_point\": false"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        problem_make(&problem, cases[i].k, cases[i].n, cases[i].group_size, 4, false);
        file.misalign = (2 * i + 1) % 8;
        write_model(cases[i].flags, cases[i].config);
        model_open_well(&model);
        check_partitions(&model, "model.q_proj", &problem);
        const kry_linear *linear = described().linear;
        assert_int_equal(linear->x_type, KRY_TYPE_F32);
        assert_int_equal(linear->weight_type, KRY_WEIGHT_U4);
        assert_int_equal(linear->act_order, 0);
        assert_int_equal(model.log_count, 0);
        tensors_free(&file);
        problem_free(&problem);
    }
}

static void zero_point_false_without_qzeros_is_symmetric(void **state) {
    (void)state;
    problem_make(&problem, 64, 16, 32, 4, true);
    write_model(0, "\"bits\": 4, \"group_size\": 32, \"zero_point\": false");
    tensors_drop(&file, "model.q_proj.qzeros");
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    assert_int_equal(described().linear->weight_type, KRY_WEIGHT_U4B8);
    check_partitions(&model, "model.q_proj", &problem);
}

static void modules_not_converted_are_matched_by_a_part_of_their_name(void **state) {
    (void)state;
    problem_make(&problem, 64, 16, 32, 4, false);
    write_awq(&problem, &file, "model.vision_tower.q_proj", 0);
    write_model(0, "\"bits\": 4, \"group_size\": 32, \"modules_to_not_convert\": "
                   "[\"k_proj\", \"vision\"]");
    model_open_well(&model);
    assert_int_equal(kry_checkpoint_layer_count(model.checkpoint), 1);
    assert_logged(&model, "model.vision_tower.q_proj");
    check_partitions(&model, "model.q_proj", &problem);
}

static void tensors_that_disagree_with_the_config_are_refused(void **state) {
    static const int64_t zeros[4096];
    static const struct {
        const char *name, *dtype, *shape, *part;
    } cases[] = {
        {"model.q_proj.qweight", "I16", "64x2", "I16 [64, 2]"},
        {"model.q_proj.qweight", "I32", "65x2", "65x16"},
        {"model.q_proj.scales", "F16", "2x15", "F16 [2, 16]"},
        {"model.q_proj.qzeros", "I32", "2x1", "I32 [2, 2]"},
        {"model.q_proj.qzeros", "I32", "1x2", "I32 [2, 2]"},
        {"model.q_proj.bias", "F16", "17", "F16 [16]"},
    };
    static const char *const names[] = {"model.q_proj.qweight", "model.q_proj.scales",
                                        "model.q_proj.qzeros"};
    (void)state;
    problem_make(&problem, 64, 16, 32, 4, false);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_model(WITH_BIAS, usual);
        tensors_drop(&file, cases[i].name);
        tensors_add(&file, cases[i].name, cases[i].dtype, cases[i].shape, zeros);
        tensors_write(&file, &model, "model.safetensors");
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors", "model.q_proj", cases[i].part);
        tensors_free(&file);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        write_model(WITH_BIAS, usual);
        tensors_drop(&file, names[i]);
        tensors_write(&file, &model, "model.safetensors");
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors", names[i]);
        tensors_free(&file);
    }
    tensors_add(&file, "model.q_proj.qweight", "I32", "1x536870912", NULL);
    tensors_add(&file, "model.q_proj.qzeros", "I32", "1x1", NULL);
    tensors_add(&file, "model.q_proj.scales", "F16", "1x1", NULL);
    tensors_write(&file, &model, "model.safetensors");
    model_open_badly(&model, KRY_E_FORMAT, "model.q_proj", "4294967296", "2147483648");
}

static void bad_config_values_are_refused(void **state) {
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"\"group_size\": 32", "'bits' is missing"},
        {"\"w_bit\": 4", "'group_size' is missing"},
        {"\"w_bit\": true, \"group_size\": 32", "'w_bit' is true"},
        {"\"bits\": 4, \"group_size\": \"32\"", "'group_size' is a string"},
        {"\"bits\": 4, \"group_size\": 0", "group_size is 0"},
        {"\"bits\": 4, \"group_size\": 32, \"version\": 1", "'version'"},
        {"\"bits\": 4, \"group_size\": 32, \"format\": 1", "'format'"},
        {"\"bits\": 4, \"group_size\": 32, \"backend\": 1", "'backend'"},
        {"\"bits\": 4, \"group_size\": 32, \"zero_point\": 1", "'zero_point'"},
        {"\"bits\": 4, \"group_size\": 32, \"modules_to_not_convert\": \"x\"",
         "'modules_to_not_convert'"},
        {"\"bits\": 4, \"group_size\": 32, \"modules_to_not_convert\": [1]",
         "'modules_to_not_convert'"},
    };
    (void)state;
    problem_make(&problem, 64, 16, 32, 4, false);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_model(0, cases[i].text);
        model_open_badly(&model, KRY_E_FORMAT, "config.json", cases[i].part);
        tensors_free(&file);
    }
}

static void schemes_outside_are_listed_with_a_reason(void **state) {
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"\"bits\": 8, \"group_size\": 32", "8 bits"},
        {"\"bits\": 4, \"group_size\": 32, \"version\": \"gemv\"", "gemv"},
        {"\"bits\": 4, \"group_size\": 32, \"backend\": \"llm-awq\"", "llm-awq"},
    };
    (void)state;
    problem_make(&problem, 64, 16, 32, 4, false);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_model(0, cases[i].text);
        model_open_well(&model);
        assert_int_equal(described().status, KRY_E_UNSUPPORTED);
        assert_non_null(strstr(described().reason, cases[i].part));
        tensors_free(&file);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(partitions_show_the_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(zero_point_false_without_qzeros_is_symmetric, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(modules_not_converted_are_matched_by_a_part_of_their_name,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(tensors_that_disagree_with_the_config_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(bad_config_values_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(schemes_outside_are_listed_with_a_reason, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
