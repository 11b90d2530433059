/*
 * The list of layers, slices of them, and how long it takes to open many.
 */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void open_with_config(void) {
    tensors_write(&file, &model, "model.safetensors");
    model_text(&model, "config.json",
               "{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, "
               "\"group_size\": 32, \"sym\": false, \"checkpoint_format\": \"gptq_v2\"}}");
    model_open_well(&model);
}

/* ---- names ----------------------------------------------------------------------------- */

static void layers_are_in_order_of_numbers(void **state) {
    static const char *const ordered[] = {
        "h.1",
        "h.01.b",
        "h.1.a",
        "h.1.b",
        "h.2.a",
        "h.9.a.1",
        "h.9.a.10",
        "h.9.b",
        "h.10.a",
        "h.10.a.b",
        "h.99.a",
        "h.100.a",
        "h.99999999999999999998.a",
        "h.99999999999999999999.a",
        "h.100000000000000000000.a",
        "h.x",
        "lm_head",
    };
    enum { COUNT = sizeof ordered / sizeof ordered[0] };
    (void)state;
    for (size_t i = 0; i < COUNT; i++)
        write_gptq(&problem, &file, ordered[i * 7 % COUNT], 0);
    open_with_config();
    assert_int_equal(kry_checkpoint_layer_count(model.checkpoint), COUNT);
    /* "h.01.b" is, as numbers go, "h.1.b": beside it, not before "h.1.a" */
    static const char *const expected[] = {
        "h.1",
        "h.1.a",
        "h.01.b",
        "h.1.b",
        "h.2.a",
        "h.9.a.1",
        "h.9.a.10",
        "h.9.b",
        "h.10.a",
        "h.10.a.b",
        "h.99.a",
        "h.100.a",
        "h.99999999999999999998.a",
        "h.99999999999999999999.a",
        "h.100000000000000000000.a",
        "h.x",
        "lm_head",
    };
    for (size_t i = 0; i < COUNT; i++) {
        size_t index = 99;
        kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
        assert_int_equal(kry_checkpoint_layer_at(model.checkpoint, i, &layer), KRY_OK);
        assert_string_equal(layer.name, expected[i]);
        assert_int_equal(kry_checkpoint_find_layer(model.checkpoint, expected[i], &index), KRY_OK);
        assert_int_equal(index, i);
    }
}

static void find_layer_that_is_not_there_names_near_misses(void **state) {
    (void)state;
    write_gptq(&problem, &file, "model.layers.0.mlp.down_proj", 0);
    write_gptq(&problem, &file, "model.layers.1.mlp.down_proj", 0);
    write_gptq(&problem, &file, "model.layers.2.mlp.down_proj", 0);
    write_gptq(&problem, &file, "model.layers.3.mlp.down_proj", 0);
    write_gptq(&problem, &file, "model.layers.0.mlp.up_proj", 0);
    open_with_config();
    size_t index = 99;
    assert_int_equal(
        kry_checkpoint_find_layer(model.checkpoint, "model.layers.1.mlp.dwon_proj", &index),
        KRY_E_NOT_FOUND);
    assert_int_equal(index, 99);
    assert_message("'model.layers.1.mlp.dwon_proj'");
    assert_message("such as 'model.layers.1.mlp.down_proj', '");
    assert_int_equal(kry_checkpoint_find_layer(model.checkpoint, "up_proj", &index),
                     KRY_E_NOT_FOUND);
    assert_message("such as 'model.layers.0.mlp.up_proj'");
    assert_null(strstr(kry_error_message(), "down_proj"));
    assert_int_equal(kry_checkpoint_find_layer(model.checkpoint, "down_proj", &index),
                     KRY_E_NOT_FOUND);
    assert_message("'model.layers.0.mlp.down_proj', 'model.layers.1.mlp.down_proj', "
                   "'model.layers.2.mlp.down_proj'");
    assert_int_equal(kry_checkpoint_find_layer(model.checkpoint, "", &index), KRY_E_NOT_FOUND);
    assert_null(strstr(kry_error_message(), "such as"));
    char name[1000];
    memset(name, 'm', sizeof name);
    name[999] = '\0';
    assert_int_equal(kry_checkpoint_find_layer(model.checkpoint, name, &index), KRY_E_NOT_FOUND);
    assert_int_equal(kry_checkpoint_find_layer(model.checkpoint, NULL, &index), KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_find_layer(NULL, "x", &index), KRY_E_ARGUMENT);
}

/* ---- slices ---------------------------------------------------------------------------- */

static void slices_outside_or_empty_are_refused(void **state) {
    static const int64_t bad[][4] = {
        {16, 0, 0, 0},
        {0, 17, 0, 0},
        {5, 5, 0, 0},
        {6, 5, 0, 0},
        {-1, 0, 0, 0},
        {0, 0, 64, 0},
        {0, 0, 0, 65},
        {0, 0, 9, 9},
        {0, 0, 9, 8},
        {0, 0, -1, 0},
        {0, -1, 0, 0},
        {0, 0, 0, -1},
        {INT64_MAX, INT64_MIN, 0, 0},
    };
    (void)state;
    write_gptq(&problem, &file, "model.down", 0);
    open_with_config();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        kry_slice slice = {sizeof slice, bad[i][0], bad[i][1], bad[i][2], bad[i][3]};
        kry_linear linear = KRY_INIT(kry_linear);
        kry_checkpoint_weights *weights = NULL;
        assert_int_equal(kry_checkpoint_slice(model.checkpoint, 0, &slice, &linear),
                         KRY_E_ARGUMENT);
        assert_message("model.down");
        assert_message(i < 5 || i == 10 || i == 12 ? "output features" : "input features");
        assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, &slice, &weights),
                         KRY_E_ARGUMENT);
        assert_null(weights);
    }
}

static void slice_describes_the_partition(void **state) {
    (void)state;
    write_gptq(&problem, &file, "model.down", 0);
    open_with_config();
    kry_linear linear = KRY_INIT(kry_linear);
    assert_int_equal(kry_checkpoint_slice(model.checkpoint, 0, NULL, &linear), KRY_OK);
    assert_int_equal(linear.in_features, 64);
    assert_int_equal(linear.out_features, 16);
    kry_slice slice = {sizeof slice, 3, 0, 31, 33};
    assert_int_equal(kry_checkpoint_slice(model.checkpoint, 0, &slice, &linear), KRY_OK);
    assert_int_equal(linear.in_features, 2);
    assert_int_equal(linear.out_features, 13);
    assert_int_equal(linear.full_in_features, 64);
    assert_int_equal(linear.full_out_features, 16);
    assert_int_equal(linear.k_offset, 31);
    assert_int_equal(kry_linear_groups(&linear), 2);
}

static void indexes_past_the_last_and_null_are_refused(void **state) {
    (void)state;
    write_gptq(&problem, &file, "model.down", 0);
    open_with_config();
    kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
    kry_linear linear = KRY_INIT(kry_linear);
    kry_checkpoint_weights *weights = NULL;
    assert_int_equal(kry_checkpoint_layer_at(model.checkpoint, 1, &layer), KRY_E_NOT_FOUND);
    assert_int_equal(kry_checkpoint_layer_at(NULL, 0, &layer), KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_slice(model.checkpoint, 1, NULL, &linear), KRY_E_NOT_FOUND);
    assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 1, NULL, &weights),
                     KRY_E_NOT_FOUND);
    assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, NULL, NULL),
                     KRY_E_ARGUMENT);
    kry_checkpoint_weights_destroy(NULL);
    kry_checkpoint_weights_destroy(&weights);
}

static void slice_of_a_newer_caller_is_refused_when_it_means_more(void **state) {
    (void)state;
    write_gptq(&problem, &file, "model.down", 0);
    open_with_config();
    struct {
        kry_slice slice;
        uint64_t more;
    } newer = {.slice.struct_size = sizeof newer};
    kry_linear linear = KRY_INIT(kry_linear);
    assert_int_equal(kry_checkpoint_slice(model.checkpoint, 0, &newer.slice, &linear), KRY_OK);
    newer.more = 1;
    assert_int_equal(kry_checkpoint_slice(model.checkpoint, 0, &newer.slice, &linear), KRY_E_ABI);
    kry_slice unset = {0};
    assert_int_equal(kry_checkpoint_slice(model.checkpoint, 0, &unset, &linear), KRY_E_ABI);
}

/* ---- threads --------------------------------------------------------------------------- */

static void *read_layers(void *argument) {
    (void)argument;
    for (int i = 0; i < 50; i++) {
        kry_checkpoint_weights *weights = NULL;
        if (kry_checkpoint_weights_create(model.checkpoint, (size_t)i % 2, NULL, &weights))
            return &model;
        kry_checkpoint_weights_destroy(&weights);
    }
    return NULL;
}

static void weights_may_be_made_by_many_threads(void **state) {
    (void)state;
    pthread_t threads[4];
    problem.s[3] = 0x7c00; /* infinity: every thread would warn of it */
    write_gptq(&problem, &file, "model.down", 0);
    write_gptq(&problem, &file, "model.up", 0);
    open_with_config();
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_layers, NULL), 0);
    for (size_t i = 0; i < 4; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
}

/* ---- many ------------------------------------------------------------------------------ */

/* The layers of a model of 70 billion weights in sparse files, 8 shards and an index. */
static void write_many(void) {
    static const struct {
        const char *name;
        int64_t in_features, out_features;
    } modules[] = {
        {"self_attn.q_proj", 8192, 8192}, {"self_attn.k_proj", 8192, 1024},
        {"self_attn.v_proj", 8192, 1024}, {"self_attn.o_proj", 8192, 8192},
        {"mlp.gate_proj", 8192, 28672},   {"mlp.up_proj", 8192, 28672},
        {"mlp.down_proj", 28672, 8192},
    };
    static const char *const suffixes[] = {"weight_packed", "weight_scale", "weight_shape"};
    FILE *index = fopen(model_path(&model, "model.safetensors.index.json"), "w");
    const char *separator = "{\"weight_map\": {";
    assert_non_null(index);
    for (int shard = 0; shard < 8; shard++) {
        char shard_name[64], module[128];
        snprintf(shard_name, sizeof shard_name, "model-%05d-of-00008.safetensors", shard + 1);
        for (int layer = shard * 10; layer < shard * 10 + 10; layer++) {
            for (size_t i = 0; i < 7; i++) {
                int64_t k = modules[i].in_features, n = modules[i].out_features;
                snprintf(module, sizeof module, "model.layers.%d.%s", layer, modules[i].name);
                tensors_add_of(&file, module, suffixes[0], "I32", n, k / 8, NULL);
                tensors_add_of(&file, module, suffixes[1], "BF16", n, k / 128, NULL);
                tensors_add_of(&file, module, suffixes[2], "I64", 2, 0, NULL);
                for (size_t j = 0; j < 3; j++, separator = ", ")
                    fprintf(index, "%s\"%s.%s\": \"%s\"", separator, module, suffixes[j],
                            shard_name);
            }
            snprintf(module, sizeof module, "model.layers.%d.input_layernorm", layer);
            tensors_add_of(&file, module, "weight", "BF16", 8192, 0, NULL);
            fprintf(index, ", \"%s.weight\": \"%s\"", module, shard_name);
        }
        tensors_write(&file, &model, shard_name);
        tensors_free(&file);
    }
    fprintf(index, "}}");
    assert_int_equal(fclose(index), 0);
}

static void opening_many_layers_takes_little_time(void **state) {
    (void)state;
    write_many();
    model_text(&model, "config.json",
               "{\"torch_dtype\": \"bfloat16\", \"quantization_config\": {\"quant_method\": "
               "\"compressed-tensors\", \"format\": \"pack-quantized\", \"ignore\": "
               "[\"lm_head\", \"re:.*vision_tower.*\", \"re:.*router$\"], \"config_groups\": "
               "{\"group_0\": {\"targets\": [\"re:.*self_attn\\\\.(q|k|v|o)_proj\", \"Linear\"], "
               "\"weights\": {\"num_bits\": 4, \"strategy\": \"group\", \"group_size\": 128}}}}}");
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    model_open_well(&model);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double milliseconds =
        (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) * 1e-6;
    print_message("opened 560 layers, %zu tensors in %.1f ms\n",
                  kry_checkpoint_tensor_count(model.checkpoint), milliseconds);
    assert_int_equal(kry_checkpoint_layer_count(model.checkpoint), 560);
    kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
    assert_int_equal(kry_checkpoint_layer_at(model.checkpoint, 559, &layer), KRY_OK);
    assert_string_equal(layer.name, "model.layers.79.self_attn.v_proj");
    assert_int_equal(layer.linear->in_features, 8192);
    assert_int_equal(layer.linear->out_features, 1024);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(layers_are_in_order_of_numbers, setup_with_problem,
                                        teardown),
        cmocka_unit_test_setup_teardown(find_layer_that_is_not_there_names_near_misses,
                                        setup_with_problem, teardown),
        cmocka_unit_test_setup_teardown(slices_outside_or_empty_are_refused, setup_with_problem,
                                        teardown),
        cmocka_unit_test_setup_teardown(slice_describes_the_partition, setup_with_problem,
                                        teardown),
        cmocka_unit_test_setup_teardown(indexes_past_the_last_and_null_are_refused,
                                        setup_with_problem, teardown),
        cmocka_unit_test_setup_teardown(slice_of_a_newer_caller_is_refused_when_it_means_more,
                                        setup_with_problem, teardown),
        cmocka_unit_test_setup_teardown(weights_may_be_made_by_many_threads, setup_with_problem,
                                        teardown),
        cmocka_unit_test_setup_teardown(opening_many_layers_takes_little_time, setup_with_problem,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
