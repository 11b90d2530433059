/*
 * compressed-tensors: the numbers of its tensors, seen through the views of any partition, and
 * tensors that disagree with the config.
 */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static void write_config(const struct problem *p, const char *more) {
    char group[64] = "\"strategy\": \"channel\"";
    if (p->group_size > 0)
        snprintf(group, sizeof group, "\"strategy\": \"group\", \"group_size\": %d",
                 (int)p->group_size);
    model_text(&model, "config.json",
               "{\"torch_dtype\": \"bfloat16\", \"quantization_config\": {\"quant_method\": "
               "\"compressed-tensors\", \"format\": \"pack-quantized\", \"ignore\": [\"lm_head\"], "
               "\"kv_cache_scheme\": null, \"config_groups\": {\"group_0\": {\"targets\": "
               "[\"Linear\"], \"input_activations\": null, \"output_activations\": null, "
               "\"weights\": {\"num_bits\": %d, \"type\": \"int\", \"symmetric\": %s, %s%s}}}}}",
               p->bits, p->symmetric ? "true" : "false", group, more);
}

static void write_model(int flags, const char *more) {
    write_compressed_tensors(&problem, &file, "model.up", flags);
    tensors_write(&file, &model, "model.safetensors");
    write_config(&problem, more);
}

static kry_linear described(void) {
    size_t index;
    kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
    assert_int_equal(kry_checkpoint_find_layer(model.checkpoint, "model.up", &index), KRY_OK);
    assert_int_equal(kry_checkpoint_layer_at(model.checkpoint, index, &layer), KRY_OK);
    assert_string_equal(layer.reason, "");
    assert_int_equal(layer.status, KRY_OK);
    assert_int_equal(layer.method, KRY_METHOD_COMPRESSED_TENSORS);
    return *layer.linear;
}

/* ---- numbers --------------------------------------------------------------------------- */

static void partitions_of_every_scheme_show_the_numbers(void **state) {
    static const struct {
        int k, n, group_size, bits, symmetric, flags;
    } cases[] = {
        {64, 24, 32, 4, 1, WITH_BIAS},
        {64, 24, -1, 4, 1, 0},
        {64, 24, 16, 8, 1, 0},
        {64, 24, -1, 8, 1, WITH_BIAS},
        {64, 24, 32, 4, 0, 0},
        {60, 21, 32, 4, 0, WITH_BIAS},
        {60, 21, 32, 4, 0, ZEROS_UNPACKED},
        {61, 13, 16, 8, 0, 0},
        {61, 13, 16, 8, 0, ZEROS_UNPACKED},
        {61, 13, -1, 4, 0, 0},
        {1, 1, 32, 4, 0, WITH_BIAS},
        {33, 5, 128, 8, 1, 0},
        {12, 3, 4, 4, 1, WITHOUT_SHAPE},
        {64, 9, 32, 8, 1, WITHOUT_SHAPE},
        {64, 9, -1, 4, 1, WITHOUT_SHAPE},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        problem_make(&problem, cases[i].k, cases[i].n, cases[i].group_size, cases[i].bits,
                     cases[i].symmetric);
        file.misalign = i % 8;
        write_model(cases[i].flags, "");
        model_open_well(&model);
        check_partitions(&model, "model.up", &problem);
        kry_linear linear = described();
        assert_int_equal(linear.x_type, KRY_TYPE_BF16);
        assert_int_equal(linear.y_type, KRY_TYPE_BF16);
        assert_int_equal(linear.act_order, 0);
        assert_int_equal(model.log_count, 0);
        tensors_free(&file);
        problem_free(&problem);
    }
}

static void act_order_partitions_keep_every_group(void **state) {
    (void)state;
    for (size_t misalign = 0; misalign < 4; misalign++) { /* g_idx where int32 may not lie */
        problem_make(&problem, 60, 10, 16, 4, misalign % 2 == 0);
        problem_shuffle(&problem);
        file.misalign = misalign;
        write_model(WITH_G_IDX | WITH_BIAS, ", \"actorder\": \"group\"");
        model_open_well(&model);
        assert_int_equal(described().act_order, 1);
        check_partitions(&model, "model.up", &problem);
        assert_int_equal(model.log_count, 0);
        tensors_free(&file);
        problem_free(&problem);
    }
}

static void act_order_words_mean_what_the_format_says(void **state) {
    static const struct {
        const char *word;
        int act_order;
    } cases[] = {{"\"group\"", 1},  {"\"dynamic\"", 1}, {"true", 1},  {"\"GROUP\"", 1},
                 {"\"weight\"", 0}, {"\"static\"", 0},  {"false", 0}, {"null", 0}};
    (void)state;
    problem_make(&problem, 64, 8, 32, 4, true);
    problem_shuffle(&problem);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char more[64];
        snprintf(more, sizeof more, ", \"actorder\": %s", cases[i].word);
        write_model(WITH_G_IDX, more);
        model_open_well(&model);
        assert_int_equal(described().act_order, cases[i].act_order);
        tensors_free(&file);
    }
    write_model(0, ", \"actorder\": \"sideways\"");
    model_open_well(&model);
    kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
    assert_int_equal(kry_checkpoint_layer_at(model.checkpoint, 0, &layer), KRY_OK);
    assert_int_equal(layer.status, KRY_E_UNSUPPORTED);
    assert_non_null(strstr(layer.reason, "sideways"));
    write_config(&problem, ", \"actorder\": 7");
    model_open_badly(&model, KRY_E_FORMAT, "actorder", "an integer");
}

static void trivial_g_idx_is_no_act_order(void **state) {
    (void)state;
    problem_make(&problem, 60, 8, 16, 4, true);
    write_model(WITH_G_IDX, ", \"actorder\": \"group\"");
    model_open_well(&model);
    kry_checkpoint_weights *weights;
    assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, NULL, &weights), KRY_OK);
    assert_int_equal(weights->linear->act_order, 0);
    assert_null(weights->weights->g_idx);
    kry_checkpoint_weights_destroy(&weights);
    check_partitions(&model, "model.up", &problem);
    /* -1 throughout: never set by its writer */
    struct entry *entry = tensors_find(&file, "model.up.weight_g_idx");
    memset(entry->data, 0xff, entry->bytes);
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    check_partitions(&model, "model.up", &problem);
}

static void g_idx_out_of_range_is_refused(void **state) {
    static const int32_t bad[] = {4, -2, INT32_MAX, INT32_MIN, -1};
    (void)state;
    problem_make(&problem, 60, 8, 16, 4, true);
    for (size_t i = 0; i < 2 * sizeof bad / sizeof bad[0]; i++) {
        write_model(WITH_G_IDX, ", \"actorder\": \"group\"");
        struct entry *entry = tensors_find(&file, "model.up.weight_g_idx");
        ((int32_t *)entry->data)[i % 2 == 0 ? 59 : 0] = bad[i / 2];
        tensors_write(&file, &model, "model.safetensors");
        model_open_well(&model);
        kry_checkpoint_weights *weights = NULL;
        assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, NULL, &weights),
                         KRY_E_FORMAT);
        assert_null(weights);
        assert_message("weight_g_idx");
        assert_message("0 to 3");
        tensors_free(&file);
    }
}

static void scales_of_a_channel_may_be_a_vector(void **state) {
    (void)state;
    problem_make(&problem, 24, 10, -1, 4, true);
    write_model(0, "");
    tensors_drop(&file, "model.up.weight_scale");
    tensors_add(&file, "model.up.weight_scale", "F16", "10", problem.s);
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    check_partitions(&model, "model.up", &problem);
}

static void hole_in_weight_shape_leaves_it_to_the_words(void **state) {
    (void)state;
    problem_make(&problem, 64, 10, 32, 4, true);
    write_model(0, "");
    struct entry *entry = tensors_find(&file, "model.up.weight_shape");
    memset(entry->data, 0, entry->bytes);
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    check_partitions(&model, "model.up", &problem);
    /* narrow numbers are numbers too */
    int32_t narrow[2] = {10, 64};
    tensors_drop(&file, "model.up.weight_shape");
    tensors_add(&file, "model.up.weight_shape", "I32", "2", narrow);
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    check_partitions(&model, "model.up", &problem);
}

static void scales_that_are_not_finite_are_warned_of_once(void **state) {
    static const uint16_t bad_half[] = {0x7c00, 0xfc00, 0x7e01};
    (void)state;
    problem_make(&problem, 64, 8, 32, 4, true);
    write_model(0, "");
    for (size_t i = 0; i < 3; i++)
        ((uint16_t *)tensors_find(&file, "model.up.weight_scale")->data)[3 + i] = bad_half[i];
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    kry_checkpoint_weights *weights;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, NULL, &weights),
                         KRY_OK);
        kry_checkpoint_weights_destroy(&weights);
    }
    assert_logged(&model, "3 of 16 scales");
    assert_int_equal(model.log_count, 1);
}

static void scales_of_other_types_are_known(void **state) {
    (void)state;
    uint32_t single[16];
    uint16_t brain[16];
    for (int i = 0; i < 16; i++) {
        single[i] = i == 5 ? 0x7f800000 : 0x3f800000;
        brain[i] = i == 5 ? 0xff80 : 0x7c00; /* finite here, an infinity in F16 */
    }
    problem_make(&problem, 64, 8, 32, 4, true);
    for (int i = 0; i < 2; i++) {
        write_model(0, "");
        tensors_drop(&file, "model.up.weight_scale");
        tensors_add(&file, "model.up.weight_scale", i == 0 ? "F32" : "BF16", "8x2",
                    i == 0 ? (const void *)single : brain);
        tensors_write(&file, &model, "model.safetensors");
        model_open_well(&model);
        kry_checkpoint_weights *weights;
        assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, NULL, &weights),
                         KRY_OK);
        assert_int_equal(weights->linear->scale_type, i == 0 ? KRY_TYPE_F32 : KRY_TYPE_BF16);
        assert_int_equal(view_element(weights->weights->scales, 1, 1),
                         i == 0 ? 0x3f800000 : 0x7c00);
        kry_checkpoint_weights_destroy(&weights);
        assert_logged(&model, "1 of 16 scales");
        tensors_free(&file);
    }
}

/* ---- zero points ----------------------------------------------------------------------- */

static void unpacked_zero_points_outside_the_type_are_refused(void **state) {
    (void)state;
    problem_make(&problem, 64, 8, 32, 4, false);
    write_model(ZEROS_UNPACKED, "");
    ((int8_t *)tensors_find(&file, "model.up.weight_zero_point")->data)[7] = 8;
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    kry_checkpoint_weights *weights = NULL;
    assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, NULL, &weights),
                     KRY_E_FORMAT);
    assert_message("[3, 1] is 8");
    assert_message("-8 to 7");
    ((int8_t *)tensors_find(&file, "model.up.weight_zero_point")->data)[7] = -9;
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, NULL, &weights),
                     KRY_E_FORMAT);
    /* a partition without it is fine */
    check_partition(&model, "model.up", &problem, 4, 8, 0, 64);
}

static void zero_points_of_a_symmetric_layer_are_not_used(void **state) {
    (void)state;
    int8_t bytes[16] = {0};
    int32_t words[2] = {(int32_t)0x88888888, (int32_t)0x88888888};
    problem_make(&problem, 64, 8, 32, 4, true);
    for (int i = 0; i < 4; i++) {
        write_model(0, "");
        bytes[6] = i % 2 == 0 ? 0 : 1;
        words[1] = (int32_t)(i % 2 == 0 ? 0x88888888 : 0x88818881);
        if (i < 2)
            tensors_add(&file, "model.up.weight_zero_point", "I8", "8x2", bytes);
        else
            tensors_add(&file, "model.up.weight_zero_point", "I32", "1x2", words);
        tensors_write(&file, &model, "model.safetensors");
        model_open_well(&model);
        check_partition(&model, "model.up", &problem, 0, 8, 0, 64);
        assert_int_equal(model.log_count, i % 2);
        if (i % 2 == 1)
            assert_logged(&model, i < 2 ? "1 of 16" : "2 of 16");
        tensors_free(&file);
    }
    /* nor looked at where they do not have their shape */
    write_model(0, "");
    tensors_add(&file, "model.up.weight_zero_point", "I8", "3", bytes);
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    check_partition(&model, "model.up", &problem, 0, 8, 0, 64);
}

/* ---- disagreement ---------------------------------------------------------------------- */

static void replace(const char *name, const char *dtype, const char *shape) {
    static const int64_t zeros[4096];
    tensors_drop(&file, name);
    tensors_add(&file, name, dtype, shape, zeros);
}

static void tensors_that_disagree_with_the_config_are_refused(void **state) {
    static const struct {
        const char *name, *dtype, *shape, *part;
    } cases[] = {
        {"model.up.weight_packed", "F16", "10x8", "F16 [10, 8]"},
        {"model.up.weight_packed", "I32", "80", "I32 [80]"},
        {"model.up.weight_packed", "I32", "0x8", "I32 [0, 8]"},
        {"model.up.weight_packed", "I32", "10x7", "[10, 64]"},
        {"model.up.weight_packed", "I32", "9x8", "[10, 64]"},
        {"model.up.weight_scale", "I8", "10x2", "I8 [10, 2]"},
        {"model.up.weight_scale", "F16", "10x3", "F16 [10, 2]"},
        {"model.up.weight_scale", "F16", "2x10", "F16 [10, 2]"},
        {"model.up.weight_scale", "F16", "20", "F16 [10, 2]"},
        {"model.up.weight_zero_point", "I32", "1x2", "I32 [2, 2]"},
        {"model.up.weight_zero_point", "I8", "2x2", "I8 [10, 2]"},
        {"model.up.weight_zero_point", "F16", "10x2", "I8 [10, 2]"},
        {"model.up.weight_shape", "I64", "3", "I64 [2]"},
        {"model.up.weight_shape", "F32", "2", "I64 [2]"},
        {"model.up.weight_g_idx", "I32", "63", "I32 [64]"},
        {"model.up.weight_g_idx", "I64", "64", "I32 [64]"},
        {"model.up.bias", "F16", "11", "F16 [10]"},
        {"model.up.bias", "I32", "10", "a bias"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        problem_make(&problem, 64, 10, 32, 4, false);
        write_model(WITH_BIAS | WITH_G_IDX, "");
        model_open_well(&model);
        replace(cases[i].name, cases[i].dtype, cases[i].shape);
        tensors_write(&file, &model, "model.safetensors");
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors", "model.up", cases[i].part);
        tensors_free(&file);
        problem_free(&problem);
    }
}

static void missing_tensors_are_named(void **state) {
    static const char *const names[] = {"model.up.weight_packed", "model.up.weight_scale",
                                        "model.up.weight_zero_point", "model.up.weight_g_idx"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        problem_make(&problem, 64, 10, 32, 4, false);
        write_model(WITH_G_IDX, ", \"actorder\": \"group\"");
        model_open_well(&model);
        tensors_drop(&file, names[i]);
        tensors_write(&file, &model, "model.safetensors");
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors", names[i]);
        tensors_free(&file);
        problem_free(&problem);
    }
}

static void absurd_sizes_are_refused(void **state) {
    (void)state;
    problem_make(&problem, 64, 10, -1, 4, true);
    for (int i = 0; i < 3; i++) {
        write_model(0, "");
        int64_t shape[2] = {10, i == 0 ? INT64_MAX : i == 1 ? -64 : 72};
        memcpy(tensors_find(&file, "model.up.weight_shape")->data, shape, sizeof shape);
        tensors_write(&file, &model, "model.safetensors");
        model_open_badly(&model, KRY_E_FORMAT, "weight_shape");
        tensors_free(&file);
    }
    /* minus three columns fill one word, as rounding goes */
    int64_t negative[2] = {10, -3};
    tensors_add(&file, "model.up.weight_packed", "I32", "10x1", NULL);
    tensors_add(&file, "model.up.weight_scale", "F16", "10x1", NULL);
    tensors_add(&file, "model.up.weight_shape", "I64", "2", negative);
    tensors_write(&file, &model, "model.safetensors");
    model_open_badly(&model, KRY_E_FORMAT, "weight_shape", "[10, -3]");
    tensors_free(&file);
    /* 2^29 words hold 2^32 weights, more than a description may have; the file is one hole */
    tensors_add(&file, "model.up.weight_packed", "I32", "1x536870912", NULL);
    tensors_add(&file, "model.up.weight_scale", "F16", "1x1", NULL);
    tensors_write(&file, &model, "model.safetensors");
    model_open_badly(&model, KRY_E_FORMAT, "model.up", "4294967296", "2147483648");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(partitions_of_every_scheme_show_the_numbers, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(act_order_partitions_keep_every_group, setup, teardown),
        cmocka_unit_test_setup_teardown(act_order_words_mean_what_the_format_says, setup, teardown),
        cmocka_unit_test_setup_teardown(trivial_g_idx_is_no_act_order, setup, teardown),
        cmocka_unit_test_setup_teardown(g_idx_out_of_range_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(scales_of_a_channel_may_be_a_vector, setup, teardown),
        cmocka_unit_test_setup_teardown(hole_in_weight_shape_leaves_it_to_the_words, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(scales_that_are_not_finite_are_warned_of_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(scales_of_other_types_are_known, setup, teardown),
        cmocka_unit_test_setup_teardown(unpacked_zero_points_outside_the_type_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(zero_points_of_a_symmetric_layer_are_not_used, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(tensors_that_disagree_with_the_config_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(missing_tensors_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(absurd_sizes_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
