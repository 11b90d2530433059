/*
 * Configs: where they lie, what they name, which module gets which scheme.
 */
#include "problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct model model;
static struct safetensors file;
static struct problem four, eight; /* of 4 bits in groups of 32, of 8 bits a channel */

static int setup(void **state) {
    (void)state;
    model_create(&model);
    problem_make(&four, 64, 8, 32, 4, true);
    problem_make(&eight, 64, 8, -1, 8, true);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(&model);
    tensors_free(&file);
    problem_free(&four);
    problem_free(&eight);
    return 0;
}

static const char weights_4[] = "{\"num_bits\": 4, \"type\": \"int\", \"symmetric\": true, "
                                "\"strategy\": \"group\", \"group_size\": 32}";
static const char weights_8[] = "{\"num_bits\": 8, \"type\": \"int\", \"symmetric\": true, "
                                "\"strategy\": \"channel\"}";

static void add(const struct problem *problem, const char *module) {
    write_compressed_tensors(problem, &file, module, 0);
    tensors_write(&file, &model, "model.safetensors");
}

/* A config of compressed-tensors from the inside of quantization_config. */
static void write_config(const char *format, ...) KRY_PRINTF(1, 2);
static void write_config(const char *format, ...) {
    char *inside;
    va_list arguments;
    va_start(arguments, format);
    assert_true(vasprintf(&inside, format, arguments) >= 0);
    va_end(arguments);
    model_text(&model, "config.json",
               "{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", %s}}", inside);
    free(inside);
}

static kry_checkpoint_layer layer_named(const char *name) {
    size_t index;
    kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
    if (kry_checkpoint_find_layer(model.checkpoint, name, &index) != KRY_OK)
        fail_msg("%s", kry_error_message());
    assert_int_equal(kry_checkpoint_layer_at(model.checkpoint, index, &layer), KRY_OK);
    return layer;
}

/* ---- where configs lie ------------------------------------------------------------------ */

static void no_config_is_a_checkpoint_without_layers(void **state) {
    (void)state;
    add(&four, "model.up");
    model_open_well(&model);
    assert_int_equal(kry_checkpoint_layer_count(model.checkpoint), 0);
    assert_int_equal(kry_checkpoint_tensor_count(model.checkpoint), 3);
    model_text(&model, "config.json", "{\"quantization_config\": null}");
    model_open_well(&model);
    assert_int_equal(kry_checkpoint_layer_count(model.checkpoint), 0);
}

static void config_of_a_nested_text_model_is_found(void **state) {
    (void)state;
    add(&four, "model.up");
    model_text(&model, "config.json",
               "{\"text_config\": {\"dtype\": \"bfloat16\", \"quantization_config\": "
               "{\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"g\": "
               "{\"targets\": [\"Linear\"], \"weights\": %s}}}}}",
               weights_4);
    model_open_well(&model);
    check_partitions(&model, "model.up", &four);
    assert_int_equal(layer_named("model.up").linear->x_type, KRY_TYPE_BF16);
}

static void older_key_of_compressed_tensors_is_known(void **state) {
    (void)state;
    add(&four, "model.up");
    model_text(&model, "config.json",
               "{\"compression_config\": {\"config_groups\": {\"g\": "
               "{\"targets\": [\"Linear\"], \"weights\": %s}}}}",
               weights_4);
    model_open_well(&model);
    check_partitions(&model, "model.up", &four);
}

static void model_type_is_read_in_every_spelling(void **state) {
    static const struct {
        const char *text;
        uint32_t type;
        int warnings;
    } cases[] = {
        {"\"dtype\": \"bfloat16\",", KRY_TYPE_BF16, 0},
        {"\"torch_dtype\": \"torch.float32\",", KRY_TYPE_F32, 0},
        {"\"dtype\": \"float32\", \"torch_dtype\": \"bfloat16\",", KRY_TYPE_F32, 0},
        {"\"dtype\": null, \"text_config\": {\"torch_dtype\": \"bfloat16\"},", KRY_TYPE_BF16, 0},
        {"\"dtype\": \"auto\",", KRY_TYPE_F16, 0},
        {"\"dtype\": 7,", KRY_TYPE_F16, 0},
        {"", KRY_TYPE_F16, 0},
        {"\"dtype\": \"float64\",", KRY_TYPE_F16, 1},
    };
    (void)state;
    add(&four, "model.up");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model_text(&model, "config.json",
                   "{%s \"quantization_config\": {\"quant_method\": \"compressed-tensors\", "
                   "\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": %s}}}}",
                   cases[i].text, weights_4);
        model_open_well(&model);
        assert_int_equal(layer_named("model.up").linear->x_type, cases[i].type);
        assert_int_equal(layer_named("model.up").linear->y_type, cases[i].type);
        assert_int_equal(model.log_count, cases[i].warnings);
    }
}

static void numbers_that_are_no_json_are_read_as_python_writes_them(void **state) {
    (void)state;
    add(&four, "NaN.up");
    model_text(&model, "config.json",
               "{\"time_step_limit\": [0.0, Infinity, -Infinity, NaN], "
               "\"text\": \"Infinity \\\" NaN\", \"quantization_config\": {\"quant_method\": "
               "\"compressed-tensors\", \"ignore\": [\"NaN\"], \"config_groups\": {\"Infinity\": "
               "{\"targets\": [\"NaN.up\"], \"weights\": %s}}}}",
               weights_4);
    model_open_well(&model);
    check_partitions(&model, "NaN.up", &four);
    model_text(&model, "config.json", "{\"a\": -Infinite}");
    model_open_badly(&model, KRY_E_FORMAT, "config.json");
    model_text(&model, "config.json", "{\"a\": Na");
    model_open_badly(&model, KRY_E_FORMAT, "config.json");
}

static void quantize_config_alone_tells_its_method(void **state) {
    (void)state;
    write_gptq(&four, &file, "model.up", ZEROS_FIELD);
    tensors_write(&file, &model, "model.safetensors");
    model_text(&model, "config.json", "{\"torch_dtype\": \"float16\"}");
    model_text(&model, "quantize_config.json", "{\"bits\": 4, \"group_size\": 32, \"sym\": true}");
    model_open_well(&model);
    assert_int_equal(layer_named("model.up").method, KRY_METHOD_GPTQ);
    check_partitions(&model, "model.up", &four);
    tensors_free(&file);
    write_awq(&four, &file, "model.up", 0);
    tensors_write(&file, &model, "model.safetensors");
    model_text(&model, "quantize_config.json",
               "{\"zero_point\": true, \"bits\": 4, \"group_size\": 32}");
    model_open_well(&model);
    assert_int_equal(layer_named("model.up").method, KRY_METHOD_AWQ);
}

static void methods_that_are_not_known_are_refused_by_name(void **state) {
    (void)state;
    add(&four, "model.up");
    model_text(&model, "config.json", "{\"quantization_config\": {\"quant_method\": \"exl9\"}}");
    model_open_badly(&model, KRY_E_UNSUPPORTED, "config.json", "'exl9'", "compressed-tensors",
                     "gptq", "awq");
    model_text(&model, "config.json", "{\"quantization_config\": {}}");
    model_open_badly(&model, KRY_E_UNSUPPORTED, "missing", "compressed-tensors");
    model_text(&model, "config.json", "{\"quantization_config\": {\"quant_method\": 4}}");
    model_open_badly(&model, KRY_E_FORMAT, "'quant_method' is an integer");
    model_text(&model, "config.json", "{\"quantization_config\": [1]}");
    model_open_badly(&model, KRY_E_FORMAT, "config.json", "an array");
    model_text(&model, "config.json", "{\"quantization_config\": {\"quant_method\": \"gptq\"}}");
    model_text(&model, "quantize_config.json", "{\"quant_method\": \"awq\"}");
    model_open_badly(&model, KRY_E_FORMAT, "quantize_config.json", "'awq'", "'gptq'");
    model_text(&model, "quantize_config.json", "{\"quant_method\": ");
    model_open_badly(&model, KRY_E_FORMAT, "quantize_config.json", "JSON");
}

static void quantize_config_beside_compressed_tensors_is_not_read(void **state) {
    (void)state;
    add(&four, "model.up");
    write_config("\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": %s}}",
                 weights_4);
    model_text(&model, "quantize_config.json", "{\"quant_method\": \"gptq\"}");
    model_open_well(&model);
    check_partitions(&model, "model.up", &four);
}

static void config_of_another_shape_is_refused(void **state) {
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"\"ignore\": 7", "'ignore' is an integer"},
        {"\"ignore\": [7]", "'ignore' holds an integer"},
        {"\"ignore\": [\"re:(\"]", "'('"},
        {"\"ignore\": []", "'config_groups' is nothing"},
        {"\"config_groups\": []", "'config_groups' is an array"},
        {"\"config_groups\": {\"g\": [\"Linear\"]}", "config_groups.g: found an array"},
        {"\"config_groups\": {\"g\": {\"targets\": \"Linear\"}}", "'targets' is a string"},
        {"\"config_groups\": {\"g\": {\"targets\": [\"re:[\"]}}", "'['"},
        {"\"format\": 7, \"config_groups\": {\"g\": {}}", "'format'"},
        {"\"config_groups\": {\"g\": {\"format\": 7}}", "config_groups.g: 'format'"},
        {"\"config_groups\": {\"g\": {\"weights\": 7}}", "'weights' is an integer"},
        {"\"config_groups\": {\"g\": {\"weights\": {\"num_bits\": \"4\"}}}", "'num_bits'"},
        {"\"config_groups\": {\"g\": {\"weights\": {\"group_size\": \"4\"}}}", "'group_size'"},
        {"\"config_groups\": {\"g\": {\"weights\": {\"type\": 4}}}", "'type'"},
        {"\"config_groups\": {\"g\": {\"weights\": {\"strategy\": 4}}}", "'strategy'"},
        {"\"config_groups\": {\"g\": {\"weights\": {\"symmetric\": 4}}}", "'symmetric'"},
        {"\"config_groups\": {\"g\": {\"weights\": {\"num_bits\": 4, \"strategy\": \"group\"}}}",
         "group_size of weights is 0"},
        {"\"config_groups\": {\"g\": {\"weights\": {\"num_bits\": 4, \"strategy\": \"group\", "
         "\"group_size\": -1}}}",
         "group_size of weights is -1"},
        {"\"config_groups\": {\"g\": {\"weights\": {\"num_bits\": 4, \"strategy\": \"channel\", "
         "\"group_size\": 32}}}",
         "group_size of weights is 32"},
        {"\"config_groups\": {\"g\": {\"weights\": {\"num_bits\": 4, \"group_size\": -1}, "
         "\"input_activations\": 8}}",
         "'input_activations' is an integer"},
        {"\"config_groups\": {\"g\": {\"weights\": {\"num_bits\": 4, \"group_size\": -1}, "
         "\"input_activations\": {\"num_bits\": {}}}}",
         "'num_bits' is an object"},
    };
    (void)state;
    add(&four, "model.up");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_config("%s", cases[i].text);
        model_open_badly(&model, KRY_E_FORMAT, "config.json", cases[i].part);
    }
}

/* ---- which module gets which scheme ------------------------------------------------------ */

static void ignore_wins_over_targets(void **state) {
    (void)state;
    add(&four, "model.layers.0.up");
    add(&four, "model.layers.1.up");
    add(&four, "lm_head");
    write_config("\"ignore\": [\"lm_head\", \"up\", \"re:.*layers\\\\.1\"], \"config_groups\": "
                 "{\"g\": {\"targets\": [\"lm_head\", \"Linear\"], \"weights\": %s}}",
                 weights_4);
    model_open_well(&model);
    assert_int_equal(kry_checkpoint_layer_count(model.checkpoint), 1);
    check_partitions(&model, "model.layers.0.up", &four);
    assert_int_equal(model.log_count, 2);
    assert_logged(&model, "'lm_head'");
    assert_logged(&model, "'model.layers.1.up'");
}

static void first_group_that_names_the_module_wins_over_its_class(void **state) {
    (void)state;
    add(&eight, "model.layers.0.down_proj");
    add(&four, "model.layers.1.down_proj");
    add(&eight, "model.layers.10.down_proj");
    add(&four, "model.layers.1.up_proj");
    write_config("\"format\": \"mixed-precision\", \"config_groups\": {"
                 "\"all\": {\"targets\": [\"Linear\"], \"format\": \"pack-quantized\", "
                 "\"weights\": %s},"
                 "\"exact\": {\"targets\": [\"model.layers.1.down_proj\"], "
                 "\"format\": \"pack-quantized\", \"weights\": %s},"
                 "\"down\": {\"targets\": [\"re:.*down\"], \"format\": \"pack-quantized\", "
                 "\"weights\": %s},"
                 "\"late\": {\"targets\": [\"re:.*down_proj\"], \"format\": \"float-quantized\"}}",
                 weights_4, weights_4, weights_8);
    model_open_well(&model);
    check_partitions(&model, "model.layers.0.down_proj", &eight);
    check_partitions(&model, "model.layers.1.down_proj", &four);
    check_partitions(&model, "model.layers.10.down_proj", &eight);
    check_partitions(&model, "model.layers.1.up_proj", &four);
}

static void expression_is_anchored_at_the_start_alone(void **state) {
    (void)state;
    add(&four, "model.up");
    add(&eight, "my.model.up");
    write_config("\"config_groups\": {\"a\": {\"targets\": [\"re:mod|nothing\"], \"weights\": %s}, "
                 "\"b\": {\"targets\": [\"re:model\\\\.up$\", \"re:my\"], \"weights\": %s}}",
                 weights_4, weights_8);
    model_open_well(&model);
    check_partitions(&model, "model.up", &four);
    check_partitions(&model, "my.model.up", &eight);
}

static void expression_that_takes_forever_is_refused(void **state) {
    (void)state;
    add(&four, "model.layers.0.self_attn.with_a_name_of_many_letters");
    write_config("\"ignore\": [\"re:(.*)*o(.*)*y(.*)*[0-9][0-9]\"], \"config_groups\": {}");
    model_open_badly(&model, KRY_E_FORMAT, "config.json", "cannot be matched");
    write_config("\"config_groups\": {\"g\": {\"targets\": "
                 "[\"re:(.*)*o(.*)*y(.*)*[0-9][0-9]\"]}}");
    model_open_badly(&model, KRY_E_FORMAT, "config_groups.g", "cannot be matched");
}

static void module_that_nothing_names_is_listed_with_a_reason(void **state) {
    (void)state;
    add(&four, "model.up");
    write_config("\"config_groups\": {\"g\": {\"targets\": [\"model.down\", \"Experts\"], "
                 "\"weights\": %s}, \"h\": {\"weights\": %s}}",
                 weights_4, weights_4);
    model_open_well(&model);
    assert_int_equal(layer_named("model.up").status, KRY_E_UNSUPPORTED);
    assert_non_null(strstr(layer_named("model.up").reason, "no target"));
}

/* ---- activations ------------------------------------------------------------------------- */

static void input_activations_become_what_the_model_wants(void **state) {
    static const struct {
        const char *text;
        uint32_t activation;
    } cases[] = {
        {"null", KRY_ACTIVATION_NONE},
        {"{\"num_bits\": 8, \"type\": \"int\", \"strategy\": \"token\", \"dynamic\": true, "
         "\"symmetric\": true}",
         KRY_ACTIVATION_INT8_TOKEN},
        {"{\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"TOKEN\", \"dynamic\": true}",
         KRY_ACTIVATION_FP8_E4M3_TOKEN},
    };
    (void)state;
    add(&four, "model.up");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_config("\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": %s, "
                     "\"input_activations\": %s}}",
                     weights_4, cases[i].text);
        model_open_well(&model);
        assert_int_equal(layer_named("model.up").linear->activation_quantization,
                         cases[i].activation);
        check_partitions(&model, "model.up", &four);
    }
}

static void schemes_outside_are_listed_with_a_reason(void **state) {
    static const struct {
        const char *weights, *more, *part;
    } cases[] = {
        {weights_4,
         ", \"input_activations\": {\"num_bits\": 4, \"dynamic\": true, "
         "\"strategy\": \"token\"}",
         "4 bits"},
        {weights_4, ", \"input_activations\": {\"dynamic\": false, \"strategy\": \"tensor\"}",
         "static"},
        {weights_4, ", \"input_activations\": {\"dynamic\": true}", "strategy tensor"},
        {weights_4,
         ", \"input_activations\": {\"dynamic\": \"local\", \"strategy\": "
         "\"tensor_group\", \"group_size\": 16}",
         "tensor_group"},
        {weights_4,
         ", \"input_activations\": {\"dynamic\": true, \"strategy\": \"token\", "
         "\"symmetric\": false}",
         "asymmetric"},
        {weights_4,
         ", \"input_activations\": {\"dynamic\": true, \"strategy\": \"token\", "
         "\"type\": \"complex\"}",
         "complex"},
        {weights_4, ", \"output_activations\": {}", "output activations"},
        {weights_4, ", \"format\": \"nvfp4-pack-quantized\"", "nvfp4-pack-quantized"},
        {weights_4, ", \"format\": \"marlin-24\"", "marlin-24"},
        {"null", "", "does not quantize weights"},
        {"{\"num_bits\": 3, \"group_size\": 32}", "", "3 bits"},
        {"{\"num_bits\": 8, \"type\": \"float\", \"group_size\": 32}", "", "float"},
        {"{\"num_bits\": 4, \"dynamic\": true, \"group_size\": 32}", "", "anew"},
        {"{\"num_bits\": 4}", "", "strategy tensor"},
        {"{\"num_bits\": 4, \"strategy\": \"block\"}", "", "strategy block"},
    };
    (void)state;
    add(&four, "model.up");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_config("\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": %s%s}}",
                     cases[i].weights, cases[i].more);
        model_open_well(&model);
        kry_checkpoint_layer layer = layer_named("model.up");
        assert_int_equal(layer.status, KRY_E_UNSUPPORTED);
        assert_null(layer.linear);
        if (strstr(layer.reason, cases[i].part) == NULL)
            fail_msg("'%s' is not in: %s", cases[i].part, layer.reason);
    }
}

static void whole_models_outside_are_listed_with_a_reason(void **state) {
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"\"format\": \"float-quantized\"", "float-quantized"},
        {"\"sparsity_config\": {\"format\": \"sparse-24-bitmask\"}", "sparse-24-bitmask"},
        {"\"transform_config\": {\"config_groups\": {\"u\": {}}}", "transforms"},
    };
    (void)state;
    add(&four, "model.up");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_config("%s, \"config_groups\": {\"g\": {\"targets\": [\"Linear\"], "
                     "\"weights\": %s}}",
                     cases[i].text, weights_4);
        model_open_well(&model);
        assert_int_equal(layer_named("model.up").status, KRY_E_UNSUPPORTED);
        assert_non_null(strstr(layer_named("model.up").reason, cases[i].part));
    }
    write_config("\"sparsity_config\": {\"format\": \"dense\"}, \"transform_config\": "
                 "{\"config_groups\": {}}, \"quantization_status\": \"compressed\", "
                 "\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": %s}}",
                 weights_4);
    model_open_well(&model);
    check_partitions(&model, "model.up", &four);
}

static void layers_of_other_formats_are_found_by_their_tensors(void **state) {
    (void)state;
    tensors_add(&file, "model.fp8.weight", "F8_E4M3", "8x64", NULL);
    tensors_add(&file, "model.fp8.weight_scale", "F32", "8x1", NULL);
    tensors_add(&file, "model.sparse.weight_packed", "I32", "4x4", NULL);
    tensors_add(&file, "model.sparse.scale_packed", "F16", "4x4", NULL);
    tensors_add(&file, "model.sparser.scale_packed", "F16", "4x4", NULL);
    tensors_add(&file, "model.norm.weight", "F16", "64", NULL);
    tensors_add(&file, "weight_packed", "F16", "64", NULL);
    tensors_add(&file, ".weight_packed", "F16", "64", NULL);
    add(&four, "model.up");
    write_config("\"format\": \"mixed-precision\", \"config_groups\": {\"g\": {\"targets\": "
                 "[\"re:.*up\"], \"format\": \"pack-quantized\", \"weights\": %s}, \"h\": "
                 "{\"targets\": [\"Linear\"], \"format\": \"float-quantized\"}}",
                 weights_4);
    model_open_well(&model);
    assert_int_equal(kry_checkpoint_layer_count(model.checkpoint), 4);
    assert_non_null(strstr(layer_named("model.fp8").reason, "float-quantized"));
    assert_non_null(strstr(layer_named("model.sparse").reason, "float-quantized"));
    assert_non_null(strstr(layer_named("model.sparser").reason, "float-quantized"));
    check_partitions(&model, "model.up", &four);
}

static void experts_in_one_tensor_are_listed_with_a_reason(void **state) {
    (void)state;
    tensors_add(&file, "model.experts.weight_packed", "I32", "2x8x8", NULL);
    tensors_add(&file, "model.experts.weight_scale", "F16", "2x8x2", NULL);
    tensors_write(&file, &model, "model.safetensors");
    write_config("\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": %s}}",
                 weights_4);
    model_open_well(&model);
    assert_non_null(strstr(layer_named("model.experts").reason, "experts"));
}

static void expression_that_takes_all_memory_is_refused(void **state) {
    (void)state;
    enum { GROUPS = 8000 }; /* of which every step of a match keeps two places */
    static char groups[2 * GROUPS + 1];
    for (int i = 0; i < GROUPS; i++)
        memcpy(groups + 2 * i, "()", 2);
    add(&four, "model.layers.0.self_attn.with_a_name_of_many_letters");
    write_config("\"ignore\": [\"re:%s(?:[a-z]|[0-9._])*[!?]\"], \"config_groups\": {}", groups);
    model_open_badly(&model, KRY_E_FORMAT, "config.json", "heap limit exceeded");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_config_is_a_checkpoint_without_layers, setup, teardown),
        cmocka_unit_test_setup_teardown(config_of_a_nested_text_model_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(older_key_of_compressed_tensors_is_known, setup, teardown),
        cmocka_unit_test_setup_teardown(model_type_is_read_in_every_spelling, setup, teardown),
        cmocka_unit_test_setup_teardown(numbers_that_are_no_json_are_read_as_python_writes_them,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(quantize_config_alone_tells_its_method, setup, teardown),
        cmocka_unit_test_setup_teardown(methods_that_are_not_known_are_refused_by_name, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(quantize_config_beside_compressed_tensors_is_not_read,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(config_of_another_shape_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(ignore_wins_over_targets, setup, teardown),
        cmocka_unit_test_setup_teardown(first_group_that_names_the_module_wins_over_its_class,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(expression_is_anchored_at_the_start_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(expression_that_takes_forever_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(expression_that_takes_all_memory_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(module_that_nothing_names_is_listed_with_a_reason, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(input_activations_become_what_the_model_wants, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(schemes_outside_are_listed_with_a_reason, setup, teardown),
        cmocka_unit_test_setup_teardown(whole_models_outside_are_listed_with_a_reason, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(layers_of_other_formats_are_found_by_their_tensors, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(experts_in_one_tensor_are_listed_with_a_reason, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
