/* Files that quantize writes: safetensors, folders, and the patterns that choose. */
#include "../../../tools/remove_tree.h"
#include "folder.h"
#include "module_patterns.h"
#include "safetensors_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[PATH_MAX];

static int make_root(void **state) {
    (void)state;
    snprintf(root, sizeof root, "/tmp/kernelry-files-XXXXXX");
    return mkdtemp(root) == NULL;
}

static int remove_root(void **state) {
    (void)state;
    return remove_tree(root);
}

/* The path of a name below the root; good until the fourth call after. */
static const char *at(const char *name) {
    static char paths[4][PATH_MAX + 64];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s", root, name);
    return paths[next];
}

static void make_file(const char *name, const char *text) {
    FILE *file = fopen(at(name), "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static int exists(const char *name) { return access(at(name), F_OK) == 0; }

/* ---- safetensors --------------------------------------------------------------------- */

static size_t declare(struct safetensors_writer *writer, const char *name, uint32_t dtype,
                      int64_t rows, int64_t columns) {
    size_t index = 999;
    assert_int_equal(
        safetensors_writer_declare(writer, name, dtype, (int64_t[]){rows, columns}, 2, &index),
        KRY_OK);
    return index;
}

static void safetensors_writer_makes_a_file_that_reads_back(void **state) {
    (void)state;
    static const uint8_t bytes[3] = {1, 2, 3};
    static const double wide[2] = {1.5, -2};
    static const uint16_t halves[4] = {7, 8, 9, 10};
    struct safetensors_writer *writer = NULL;
    assert_int_equal(safetensors_writer_create(&writer), KRY_OK);
    size_t odd = declare(writer, "odd \"name\"", KRY_DTYPE_U8, 1, 3);
    size_t pair = declare(writer, "wide", KRY_DTYPE_F64, 2, 1);
    size_t half = declare(writer, "half", KRY_DTYPE_BF16, 2, 2);
    size_t none = declare(writer, "none", KRY_DTYPE_F32, 0, 5);
    assert_int_equal(safetensors_writer_bytes(writer, pair), 16);
    assert_int_equal(safetensors_writer_total(writer), 3 + 16 + 8);
    assert_int_equal(safetensors_writer_open(writer, at("model.safetensors")), KRY_OK);
    assert_int_equal(safetensors_writer_fill(writer, half, halves), KRY_OK);
    assert_int_equal(safetensors_writer_fill(writer, odd, bytes), KRY_OK);
    assert_int_equal(safetensors_writer_fill(writer, pair, wide), KRY_OK);
    assert_int_equal(safetensors_writer_fill(writer, none, ""), KRY_OK);
    assert_int_equal(safetensors_writer_finish(writer, false), KRY_OK);
    safetensors_writer_destroy(&writer);

    kry_checkpoint *checkpoint = NULL;
    assert_int_equal(kry_checkpoint_open(root, NULL, &checkpoint), KRY_OK);
    assert_int_equal(kry_checkpoint_tensor_count(checkpoint), 4);
    kry_tensor tensor = KRY_INIT(kry_tensor);
    assert_int_equal(kry_checkpoint_find_tensor(checkpoint, "wide", &tensor), KRY_OK);
    assert_int_equal((uintptr_t)tensor.data % 8, 0); /* widest first: aligned */
    assert_memory_equal(tensor.data, wide, sizeof wide);
    assert_int_equal(kry_checkpoint_find_tensor(checkpoint, "half", &tensor), KRY_OK);
    assert_memory_equal(tensor.data, halves, sizeof halves);
    assert_int_equal(tensor.dtype, KRY_DTYPE_BF16);
    assert_int_equal(tensor.shape[1], 2);
    assert_int_equal(kry_checkpoint_find_tensor(checkpoint, "odd \"name\"", &tensor), KRY_OK);
    assert_memory_equal(tensor.data, bytes, sizeof bytes);
    kry_checkpoint_close(&checkpoint);
}

static void safetensors_writer_refuses_what_makes_no_file(void **state) {
    (void)state;
    struct safetensors_writer *writer = NULL;
    size_t index;
    assert_int_equal(safetensors_writer_create(&writer), KRY_OK);
    int64_t huge[3] = {INT64_C(1) << 31, INT64_C(1) << 31, 64}, negative[1] = {-1};
    assert_int_equal(safetensors_writer_declare(writer, "a", KRY_DTYPE_F32, huge, 3, &index),
                     KRY_E_ARGUMENT);
    assert_int_equal(safetensors_writer_declare(writer, "a", KRY_DTYPE_F32, negative, 1, &index),
                     KRY_E_ARGUMENT);
    assert_int_equal(safetensors_writer_declare(writer, "a", KRY_DTYPE_F32, huge, 9, &index),
                     KRY_E_ARGUMENT);
    declare(writer, "a", KRY_DTYPE_F32, 1, 1);
    declare(writer, "a", KRY_DTYPE_F16, 1, 1);
    assert_int_equal(safetensors_writer_open(writer, at("x.safetensors")), KRY_E_ARGUMENT);
    assert_non_null(strstr(kry_error_message(), "two tensors are called a"));
    safetensors_writer_destroy(&writer);
}

static void safetensors_writer_tells_of_a_tensor_that_was_not_filled(void **state) {
    (void)state;
    struct safetensors_writer *writer = NULL;
    assert_int_equal(safetensors_writer_create(&writer), KRY_OK);
    declare(writer, "forgotten", KRY_DTYPE_F32, 1, 1);
    assert_int_equal(safetensors_writer_open(writer, at("x.safetensors")), KRY_OK);
    assert_int_equal(safetensors_writer_finish(writer, false), KRY_E_STATE);
    assert_non_null(strstr(kry_error_message(), "forgotten"));
    assert_int_equal(safetensors_writer_finish(writer, true), KRY_OK); /* a hole: sparse */
    safetensors_writer_destroy(&writer);
    assert_int_equal(safetensors_writer_create(&writer), KRY_OK);
    assert_int_equal(safetensors_writer_open(writer, at("x.safetensors")), KRY_E_IO); /* is there */
    safetensors_writer_destroy(&writer);
}

/* ---- folders ------------------------------------------------------------------------- */

static void new_folder_appears_at_the_end_only(void **state) {
    (void)state;
    struct new_folder folder;
    assert_int_equal(new_folder_begin(&folder, at("out/")), KRY_OK);
    assert_false(exists("out"));
    assert_int_equal(access(folder.temporary, W_OK), 0);
    assert_int_equal(new_folder_end(&folder, KRY_OK), KRY_OK);
    assert_true(exists("out"));
    assert_int_equal(access(folder.temporary, F_OK), -1);
}

static void new_folder_that_failed_leaves_nothing(void **state) {
    (void)state;
    struct new_folder folder;
    assert_int_equal(mkdir(at("out"), 0700), 0); /* an empty one is no obstacle */
    assert_int_equal(new_folder_begin(&folder, at("out")), KRY_OK);
    char inside[PATH_MAX + 8];
    snprintf(inside, sizeof inside, "%s/sub", folder.temporary);
    assert_int_equal(mkdir(inside, 0700), 0);
    assert_int_equal(new_folder_end(&folder, KRY_E_FORMAT), KRY_E_FORMAT);
    assert_int_equal(access(folder.temporary, F_OK), -1);
    assert_true(exists("out"));
    assert_int_equal(new_folder_begin(&folder, at("out")), KRY_OK);
    assert_int_equal(new_folder_end(&folder, KRY_OK), KRY_OK);
}

static void new_folder_over_something_is_refused(void **state) {
    (void)state;
    struct new_folder folder;
    make_file("file", "");
    assert_int_equal(new_folder_begin(&folder, at("file")), KRY_E_ARGUMENT);
    assert_int_equal(mkdir(at("full"), 0700), 0);
    make_file("full/file", "");
    assert_int_equal(new_folder_begin(&folder, at("full")), KRY_E_ARGUMENT);
    assert_non_null(strstr(kry_error_message(), "is there already"));
    assert_int_equal(new_folder_begin(&folder, at("no/where")), KRY_E_IO);
    assert_true(exists("full/file"));
}

static void copy_companions_takes_what_is_no_weights(void **state) {
    (void)state;
    assert_int_equal(mkdir(at("in"), 0700), 0);
    assert_int_equal(mkdir(at("in/1_Pooling"), 0700), 0);
    assert_int_equal(mkdir(at("in/out"), 0700), 0); /* OUT may lie in IN */
    make_file("in/tokenizer.json", "words");
    make_file("in/1_Pooling/config.json", "{}");
    static const char *const others[] = {
        "config.json",       "quantize_config.json",         ".hidden",
        "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
        "model.onnx"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "in/%s", others[i]);
        make_file(name, "x");
    }
    assert_int_equal(symlink("tokenizer.json", at("in/link.json")), 0);
    assert_int_equal(symlink(".", at("in/loop")), 0);
    assert_int_equal(copy_companions(at("in"), at("in/out")), KRY_OK);
    assert_true(exists("in/out/tokenizer.json"));
    assert_true(exists("in/out/link.json"));
    assert_true(exists("in/out/1_Pooling/config.json"));
    assert_false(exists("in/out/out"));
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "in/out/%s", others[i]);
        assert_false(exists(name));
    }
    char text[8] = "";
    FILE *file = fopen(at("in/out/link.json"), "r");
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    assert_string_equal(text, "words");
}

static void copy_companions_of_a_broken_link_is_an_error(void **state) {
    (void)state;
    assert_int_equal(mkdir(at("in"), 0700), 0);
    assert_int_equal(mkdir(at("out"), 0700), 0);
    assert_int_equal(symlink("nowhere", at("in/tokenizer.json")), 0);
    assert_int_equal(copy_companions(at("in"), at("out")), KRY_E_IO);
    assert_non_null(strstr(kry_error_message(), "tokenizer.json"));
}

/* ---- patterns ------------------------------------------------------------------------ */

static void module_patterns_match_as_compressed_tensors_does(void **state) {
    (void)state;
    static const char *const texts[] = {"lm_head", "re:.*\\.gate$", "re:model\\.vision"};
    struct module_patterns *patterns = NULL;
    assert_int_equal(module_patterns_create(texts, 3, &patterns), KRY_OK);
    assert_true(module_patterns_match(patterns, "lm_head"));
    assert_false(module_patterns_match(patterns, "model.lm_head")); /* names match whole */
    assert_true(module_patterns_match(patterns, "model.layers.0.mlp.gate"));
    assert_false(module_patterns_match(patterns, "model.layers.0.mlp.gate_proj"));
    size_t index = 0;
    assert_string_equal(module_patterns_unused(patterns, &index), "re:model\\.vision");
    assert_null(module_patterns_unused(patterns, &index));
    assert_true(module_patterns_match(patterns, "model.vision.fc1"));    /* the end is free, */
    assert_false(module_patterns_match(patterns, "x.model.vision.fc1")); /* the start is not */
    index = 0;
    assert_null(module_patterns_unused(patterns, &index));
    module_patterns_destroy(&patterns);
}

static void module_patterns_of_no_expression_are_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"re:good", "re:(bad"};
    struct module_patterns *patterns = NULL;
    assert_int_equal(module_patterns_create(texts, 2, &patterns), KRY_E_ARGUMENT);
    assert_non_null(strstr(kry_error_message(), "re:(bad"));
    assert_null(patterns);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_root, remove_root)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(safetensors_writer_makes_a_file_that_reads_back),
        TEST(safetensors_writer_refuses_what_makes_no_file),
        TEST(safetensors_writer_tells_of_a_tensor_that_was_not_filled),
        TEST(new_folder_appears_at_the_end_only),
        TEST(new_folder_that_failed_leaves_nothing),
        TEST(new_folder_over_something_is_refused),
        TEST(copy_companions_takes_what_is_no_weights),
        TEST(copy_companions_of_a_broken_link_is_an_error),
        cmocka_unit_test(module_patterns_match_as_compressed_tensors_does),
        cmocka_unit_test(module_patterns_of_no_expression_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
