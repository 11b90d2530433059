/* kernelry quantize: what it writes, what it leaves alone, and what it refuses. */
#include "floats.h"
#include "process.h"
#include "safetensors_write.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOWN "model.layers.1.mlp.down_proj"

static int make_models(void **state) {
    if (scratch_begin(state))
        return 1;
    scratch_model("tiny", "tiny");
    scratch_model("tiny-sharded", "sharded");
    scratch_write("tiny/tokenizer.json", "{}", 2);
    return 0;
}

/* Run with extra arguments, up to six; the result is read where it should be there. */
static struct finished quantize(const char *in, const char *out, const char *const *more) {
    const char *arguments[16] = {"quantize", scratch_at(in), scratch_at(out)};
    for (size_t i = 0; more != NULL && more[i] != NULL; i++)
        arguments[3 + i] = more[i];
    return run_kernelry(CPU_PLUGINS, arguments);
}

static void quantize_well(const char *in, const char *out, const char *const *more) {
    struct finished run = quantize(in, out, more);
    assert_code(&run, 0);
    finished_free(&run);
}

/* Refused with that exit code and those words, and nothing is left. */
static void assert_refused(const char *in, const char *const *more, int code, const char *words) {
    size_t before = scratch_count("");
    struct finished run = quantize(in, "refused", more);
    assert_code(&run, code);
    assert_says(run.err, words);
    assert_string_equal(run.out, "");
    assert_int_equal(scratch_count(""), before);
    finished_free(&run);
}

/* ---- what it writes ------------------------------------------------------------------- */

static kry_tensor find(const kry_checkpoint *checkpoint, const char *name) {
    kry_tensor tensor = KRY_INIT(kry_tensor);
    if (kry_checkpoint_find_tensor(checkpoint, name, &tensor) != KRY_OK)
        fail_msg("%s", kry_error_message());
    return tensor;
}

static void assert_tensor(const kry_checkpoint *checkpoint, const char *name, uint32_t dtype,
                          int64_t rows, int64_t columns) {
    kry_tensor tensor = find(checkpoint, name);
    assert_int_equal(tensor.dtype, dtype);
    assert_int_equal(tensor.shape[0], rows);
    assert_int_equal(tensor.rank, columns > 0 ? 2 : 1);
    if (columns > 0)
        assert_int_equal(tensor.shape[1], columns);
}

static void quantize_writes_what_compressed_tensors_reads(void **state) {
    (void)state;
    quantize_well("tiny", "plain", NULL);
    kry_checkpoint *checkpoint = NULL;
    assert_int_equal(kry_checkpoint_open(scratch_at("plain"), NULL, &checkpoint), KRY_OK);
    assert_int_equal(kry_checkpoint_layer_count(checkpoint), 14);
    /* 160 × 96 in groups of 32, 8 codes a word */
    assert_tensor(checkpoint, DOWN ".weight_packed", KRY_DTYPE_I32, 96, 20);
    assert_tensor(checkpoint, DOWN ".weight_scale", KRY_DTYPE_BF16, 96, 5);
    assert_tensor(checkpoint, DOWN ".weight_shape", KRY_DTYPE_I64, 2, 0);
    int64_t shape[2];
    memcpy(shape, find(checkpoint, DOWN ".weight_shape").data, sizeof shape);
    assert_int_equal(shape[0], 96);
    assert_int_equal(shape[1], 160);
    kry_tensor tensor = KRY_INIT(kry_tensor);
    assert_int_equal(kry_checkpoint_find_tensor(checkpoint, DOWN ".weight_zero_point", &tensor),
                     KRY_E_NOT_FOUND);
    assert_int_equal(kry_checkpoint_find_tensor(checkpoint, DOWN ".weight", &tensor),
                     KRY_E_NOT_FOUND);
    assert_tensor(checkpoint, "model.embed_tokens.weight", KRY_DTYPE_BF16, 64, 96);
    assert_tensor(checkpoint, "model.layers.0.self_attn.q_proj.bias", KRY_DTYPE_BF16, 96, 0);
    kry_checkpoint_close(&checkpoint);
    assert_int_equal(scratch_count("plain"), 3); /* weights, config, tokenizer */
}

static void quantize_copies_dense_tensors_bit_by_bit(void **state) {
    (void)state;
    quantize_well("sharded", "copied", NULL);
    kry_checkpoint *dense = NULL, *made = NULL;
    assert_int_equal(kry_checkpoint_open(scratch_at("sharded"), NULL, &dense), KRY_OK);
    assert_int_equal(kry_checkpoint_open(scratch_at("copied"), NULL, &made), KRY_OK);
    size_t same = 0;
    for (size_t i = 0; i < kry_checkpoint_tensor_count(dense); i++) {
        kry_tensor before = KRY_INIT(kry_tensor), after = KRY_INIT(kry_tensor);
        assert_int_equal(kry_checkpoint_tensor(dense, i, &before), KRY_OK);
        if (kry_checkpoint_find_tensor(made, before.name, &after) != KRY_OK)
            continue;
        assert_int_equal(after.bytes, before.bytes);
        assert_memory_equal(after.data, before.data, before.bytes);
        /* and it stays in its shard */
        assert_string_equal(strrchr(after.file, '/'), strrchr(before.file, '/'));
        same++;
    }
    assert_int_equal(same, 1 + 1 + 2 * (2 + 3)); /* embedding, norm; norms and biases */
    kry_checkpoint_close(&dense);
    kry_checkpoint_close(&made);
}

static void quantize_writes_a_config_that_says_what_was_done(void **state) {
    (void)state;
    quantize_well(
        "tiny", "asym",
        ARGUMENTS("--bits", "8", "--asym", "--group-size", "-1", "--ignore", "re:.*\\.v_proj$"));
    char *text = scratch_read("asym/config.json", NULL);
    json_t *config = json_loads(text, 0, NULL);
    free(text);
    assert_string_equal(text_at(config, "model_type"), "qwen2"); /* what was there stays */
    assert_int_equal(number_at(config, "hidden_size"), 96);
    assert_true(json_real_value(json_at(config, "rms_norm_eps")) == 1e-6);
    json_t *quantization = json_at(config, "quantization_config");
    assert_string_equal(text_at(quantization, "quant_method"), "compressed-tensors");
    assert_string_equal(text_at(quantization, "format"), "pack-quantized");
    assert_string_equal(text_at(quantization, "ignore.0"), "lm_head");
    assert_string_equal(text_at(quantization, "ignore.1"), "re:.*\\.v_proj$");
    json_t *weights = json_at(quantization, "config_groups.group_0.weights");
    assert_string_equal(text_at(quantization, "config_groups.group_0.targets.0"), "Linear");
    assert_int_equal(number_at(weights, "num_bits"), 8);
    assert_false(flag_at(weights, "symmetric"));
    assert_string_equal(text_at(weights, "strategy"), "channel");
    assert_true(json_is_null(json_at(weights, "group_size")));
    json_decref(config);

    kry_checkpoint *checkpoint = NULL;
    assert_int_equal(kry_checkpoint_open(scratch_at("asym"), NULL, &checkpoint), KRY_OK);
    assert_int_equal(kry_checkpoint_layer_count(checkpoint), 12);
    /* 96 × 48, 4 codes a word: zero points of 48 rows in 12 words */
    assert_tensor(checkpoint, "model.layers.0.self_attn.k_proj.weight_zero_point", KRY_DTYPE_I32,
                  12, 1);
    assert_tensor(checkpoint, "model.layers.0.self_attn.v_proj.weight", KRY_DTYPE_BF16, 48, 96);
    kry_checkpoint_close(&checkpoint);
}

static void quantize_of_shards_writes_an_index(void **state) {
    (void)state;
    quantize_well("sharded", "shards", NULL);
    char *text = scratch_read("shards/model.safetensors.index.json", NULL);
    json_t *index = json_loads(text, 0, NULL);
    free(text);
    /* Names hold dots: looked up one by one. */
    json_t *map = json_at(index, "weight_map");
    assert_string_equal(json_string_value(json_object_get(map, DOWN ".weight_packed")),
                        "model-00002-of-00002.safetensors");
    assert_string_equal(json_string_value(json_object_get(map, "model.embed_tokens.weight")),
                        "model-00001-of-00002.safetensors");
    assert_null(json_object_get(map, DOWN ".weight"));
    assert_int_equal(json_object_size(map), 14 * 3 + 12);
    json_decref(index);
}

static void quantize_says_what_it_did(void **state) {
    (void)state;
    struct finished run = quantize("tiny", "told", ARGUMENTS("--json"));
    assert_code(&run, 0);
    assert_string_equal(run.err, "");
    assert_int_equal(json_array_size(json_at(run.json, "layers")), 14);
    assert_string_equal(text_at(run.json, "layers.7.name"), DOWN);
    assert_int_equal(number_at(run.json, "layers.7.in_features"), 160);
    double error = json_real_value(json_at(run.json, "layers.7.relative_error"));
    assert_true(error > 0.05 && error < 0.2);
    long long before = number_at(run.json, "bytes_before");
    long long after = number_at(run.json, "bytes_after");
    assert_true(after > before / 5 && after < before / 3);
    finished_free(&run);
    run = quantize("tiny", "told-8", ARGUMENTS("--json", "--bits", "8"));
    assert_true(json_real_value(json_at(run.json, "relative_error")) < error / 10);
    finished_free(&run);
    run = quantize("tiny", "told-people", NULL);
    assert_code(&run, 0);
    assert_says(run.out, "model.layers.*.mlp.down_proj");
    assert_says(run.out, "14 layers at 4 bits");
    finished_free(&run);
}

static void quantize_warns_where_the_last_group_is_short(void **state) {
    (void)state;
    struct finished run = quantize("tiny", "short", ARGUMENTS("--group-size", "64"));
    assert_code(&run, 0);
    assert_says(run.err, "short in 14 of 14 layers");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("short"), "--m", "1"));
    assert_code(&run, 0);
    finished_free(&run);
}

static void quantize_over_all_schemes_gives_models_that_run_right(void **state) {
    (void)state;
    static const char *const schemes[][6] = {
        {"--bits", "4", "--group-size", "16", "--asym"},
        {"--bits", "4", "--group-size", "-1"},
        {"--bits", "8", "--group-size", "32", "--asym"},
        {"--bits", "8", "--group-size", "160"},
    };
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        char name[16];
        snprintf(name, sizeof name, "scheme-%zu", i);
        quantize_well("tiny", name, schemes[i]);
        struct finished run =
            run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at(name), "--m", "1,3", "--json"));
        assert_code(&run, 0);
        assert_true(flag_at(run.json, "ok"));
        assert_int_equal(json_array_size(json_at(run.json, "layers")), 14);
        finished_free(&run);
    }
}

/* ---- dtypes, and weights that are none ------------------------------------------------ */

/* A model of one layer [4, 8] whose weight (n, k) is n + k / 8, but for one. */
static void make_layer(const char *folder, const char *name, uint32_t dtype, uint32_t type,
                       double odd) {
    unsigned char values[4 * 8 * 4];
    for (int i = 0; i < 32; i++) {
        int n = i / 8, k = i % 8;
        float_store(values, i, type, n + k * 0.125);
    }
    float_store(values, 19, type, odd);
    assert_int_equal(mkdir(scratch_at(folder), 0700), 0);
    char path[64];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    struct safetensors_writer *writer = NULL;
    size_t index;
    assert_int_equal(safetensors_writer_create(&writer), KRY_OK);
    assert_int_equal(safetensors_writer_declare(writer, name, dtype, (int64_t[]){4, 8}, 2, &index),
                     KRY_OK);
    assert_int_equal(safetensors_writer_open(writer, scratch_at(path)), KRY_OK);
    assert_int_equal(safetensors_writer_fill(writer, index, values), KRY_OK);
    assert_int_equal(safetensors_writer_finish(writer, false), KRY_OK);
    safetensors_writer_destroy(&writer);
    snprintf(path, sizeof path, "%s/config.json", folder);
    scratch_write(path, "{}", 2);
}

static void quantize_stores_scales_as_the_weights_are(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint32_t dtype, type, scale;
    } cases[] = {{"f16", KRY_DTYPE_F16, KRY_TYPE_F16, KRY_DTYPE_F16},
                 {"bf16", KRY_DTYPE_BF16, KRY_TYPE_BF16, KRY_DTYPE_BF16},
                 {"f32", KRY_DTYPE_F32, KRY_TYPE_F32, KRY_DTYPE_BF16}};
    for (size_t i = 0; i < 3; i++) {
        char out[16];
        snprintf(out, sizeof out, "%s-out", cases[i].name);
        make_layer(cases[i].name, "a.weight", cases[i].dtype, cases[i].type, 7.5);
        quantize_well(cases[i].name, out, ARGUMENTS("--group-size", "8"));
        kry_checkpoint *checkpoint = NULL;
        assert_int_equal(kry_checkpoint_open(scratch_at(out), NULL, &checkpoint), KRY_OK);
        kry_tensor scale = find(checkpoint, "a.weight_scale");
        assert_int_equal(scale.dtype, cases[i].scale);
        uint32_t type = cases[i].scale == KRY_DTYPE_F16 ? KRY_TYPE_F16 : KRY_TYPE_BF16;
        assert_true(float_load(scale.data, 2, type) == 1); /* row 2: 7.5 / 7.5 */
        uint32_t word;
        memcpy(&word, (const char *)find(checkpoint, "a.weight_packed").data + 8, 4);
        assert_int_equal(word, 0xbbbaFaaa); /* 2, 2.125, 2.25, 7.5, 2.5, 2.625, 2.75, 2.875 */
        kry_checkpoint_close(&checkpoint);
    }
}

static void quantize_of_weights_that_are_not_finite_names_the_tensor(void **state) {
    (void)state;
    make_layer("nan", "a.weight", KRY_DTYPE_F32, KRY_TYPE_F32, (double)NAN);
    make_layer("inf", "a.weight", KRY_DTYPE_BF16, KRY_TYPE_BF16, (double)-INFINITY);
    assert_refused("nan", ARGUMENTS("--group-size", "8"), 3, "a.weight[2, 3] is NaN");
    assert_refused("inf", ARGUMENTS("--group-size", "8"), 3, "a.weight[2, 3] is infinite");
}

/* ---- refusals ------------------------------------------------------------------------- */

static void quantize_of_what_it_cannot_take_is_refused(void **state) {
    (void)state;
    quantize_well("tiny", "once", NULL);
    assert_refused("once", NULL, 3, "quantized already");
    assert_refused("nothing-there", NULL, 3, "nothing-there");
    make_layer("embedding", "embed_tokens.weight", KRY_DTYPE_F32, KRY_TYPE_F32, 1);
    assert_refused("embedding", NULL, 3, "nothing to quantize");
    make_layer("transposed", "h.0.attn.c_attn.weight", KRY_DTYPE_F32, KRY_TYPE_F32, 1);
    scratch_write("transposed/config.json", "{\"model_type\": \"gpt2\"}", 22);
    assert_refused("transposed", NULL, 3, "transposed");
    make_layer("broken", "a.weight", KRY_DTYPE_F32, KRY_TYPE_F32, 1);
    scratch_write("broken/config.json", "{\"model_type\": ", 15);
    assert_refused("broken", NULL, 3, "config.json: line 1");
    scratch_write("broken/config.json", "[]", 2);
    assert_refused("broken", NULL, 3, "expected an object");
    scratch_write("broken/config.json", "{}", 2);
    scratch_write("broken/model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
    assert_refused("broken", NULL, 3, "model.safetensors");
}

static void quantize_with_wrong_options_is_refused(void **state) {
    (void)state;
    assert_refused("tiny", ARGUMENTS("--bits", "5"), 2, "--bits 5: expected 4 or 8");
    assert_refused("tiny", ARGUMENTS("--group-size", "0"), 2, "--group-size 0");
    assert_refused("tiny", ARGUMENTS("--group-size", "-2"), 2, "--group-size");
    assert_refused("tiny", ARGUMENTS("--group-size", "161"), 2, "the widest layer has 160");
    assert_refused("tiny", ARGUMENTS("--format", "gguf"), 2, "--format gguf");
    assert_refused("tiny", ARGUMENTS("--ignore", "re:("), 2, "re:(");
    assert_refused("tiny", ARGUMENTS("--ignore", "model.layers.9.q"), 2, "names no linear layer");
    assert_refused("tiny", ARGUMENTS("one-too-many"), 2, "IN and OUT");
}

static void quantize_onto_something_is_refused(void **state) {
    (void)state;
    size_t before = scratch_count("tiny");
    struct finished run = quantize("sharded", "tiny", NULL);
    assert_code(&run, 2);
    assert_says(run.err, "is there already");
    assert_int_equal(scratch_count("tiny"), before);
    finished_free(&run);
    assert_int_equal(mkdir(scratch_at("empty"), 0700), 0);
    quantize_well("tiny", "empty", NULL);
}

static void quantize_that_finds_no_room_leaves_nothing(void **state) {
    (void)state;
    /* No file may grow beyond 4 KiB: it stands for a full disk. */
    struct rlimit kept, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
    small = (struct rlimit){4096, kept.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    size_t before = scratch_count("");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    struct finished run = quantize("tiny", "no-room", NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    signal(SIGXFSZ, handler);
    assert_code(&run, 4);
    assert_says(run.err, "model.safetensors");
    assert_int_equal(scratch_count(""), before);
    finished_free(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantize_writes_what_compressed_tensors_reads),
        cmocka_unit_test(quantize_copies_dense_tensors_bit_by_bit),
        cmocka_unit_test(quantize_writes_a_config_that_says_what_was_done),
        cmocka_unit_test(quantize_of_shards_writes_an_index),
        cmocka_unit_test(quantize_says_what_it_did),
        cmocka_unit_test(quantize_warns_where_the_last_group_is_short),
        cmocka_unit_test(quantize_over_all_schemes_gives_models_that_run_right),
        cmocka_unit_test(quantize_stores_scales_as_the_weights_are),
        cmocka_unit_test(quantize_of_weights_that_are_not_finite_names_the_tensor),
        cmocka_unit_test(quantize_of_what_it_cannot_take_is_refused),
        cmocka_unit_test(quantize_with_wrong_options_is_refused),
        cmocka_unit_test(quantize_onto_something_is_refused),
        cmocka_unit_test(quantize_that_finds_no_room_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, make_models, scratch_end) ? 1 : 0;
}
