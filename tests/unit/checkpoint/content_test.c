/*
 * Content keys: the same for the same weights, another for any other.
 */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LAYERS = 2 };

static void open_as(const char *format) {
    tensors_write(&file, &model, "model.safetensors");
    model_text(&model, "config.json",
               "{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, "
               "\"group_size\": 32, \"sym\": false, \"desc_act\": true, \"checkpoint_format\": "
               "\"%s\"}}",
               format);
    model_open_well(&model);
}

static void open_two(void) {
    write_gptq(&problem, &file, "model.down", WITH_G_IDX);
    write_gptq(&problem, &file, "model.up", WITH_G_IDX);
    open_as("gptq_v2");
}

typedef char key[KRY_CONTENT_MAX + 1];

static void read_key(uint32_t how, size_t index, const kry_slice *slice, key out) {
    if (kry_checkpoint_content(model.checkpoint, index, slice, how, NULL, out, sizeof(key)) !=
        KRY_OK)
        fail_msg("%s", kry_error_message());
    assert_true(strlen(out) > 16);
}

static void key_of_bytes_is_the_same_for_a_copy(void **state) {
    (void)state;
    key bytes[2], files[2];
    open_two();
    read_key(KRY_CONTENT_BYTES, 0, NULL, bytes[0]);
    read_key(KRY_CONTENT_FILES, 0, NULL, files[0]);
    model_open_well(&model); /* the same file again */
    read_key(KRY_CONTENT_BYTES, 0, NULL, bytes[1]);
    read_key(KRY_CONTENT_FILES, 0, NULL, files[1]);
    assert_string_equal(bytes[0], bytes[1]);
    assert_string_equal(files[0], files[1]);
    assert_string_not_equal(bytes[0], files[0]);
    assert_int_equal(unlink(model_path(&model, "model.safetensors")), 0);
    open_as("gptq_v2"); /* written anew */
    read_key(KRY_CONTENT_BYTES, 0, NULL, bytes[1]);
    read_key(KRY_CONTENT_FILES, 0, NULL, files[1]);
    assert_string_equal(bytes[0], bytes[1]);
    assert_string_not_equal(files[0], files[1]);
}

static void key_tells_layers_and_slices_apart(void **state) {
    (void)state;
    open_two();
    const kry_slice slices[] = {{sizeof(kry_slice), 0, 0, 0, 0},
                                {sizeof(kry_slice), 0, 8, 0, 0},
                                {sizeof(kry_slice), 8, 16, 0, 0},
                                {sizeof(kry_slice), 0, 0, 0, 32},
                                {sizeof(kry_slice), 0, 0, 32, 64}};
    enum { SLICES = sizeof slices / sizeof slices[0] };
    for (uint32_t how = 0; how < 2; how++) {
        key keys[SLICES * LAYERS], whole;
        for (size_t i = 0; i < SLICES * LAYERS; i++)
            read_key(how, i % LAYERS, &slices[i / LAYERS], keys[i]);
        for (size_t i = 0; i < SLICES * LAYERS; i++)
            for (size_t j = 0; j < i; j++)
                assert_string_not_equal(keys[i], keys[j]);
        read_key(how, 1, NULL, whole);
        assert_string_equal(whole, keys[1]);
    }
}

static void key_of_bytes_changes_with_a_byte_of_any_tensor(void **state) {
    (void)state;
    static const char *const suffixes[] = {"qweight", "scales", "qzeros", "g_idx"};
    key before, after, other;
    problem_shuffle(&problem);
    open_two();
    read_key(KRY_CONTENT_BYTES, 0, NULL, before);
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.down.%s", suffixes[i]);
        struct entry *entry = tensors_find(&file, name);
        ((unsigned char *)entry->data)[0] ^= 1;
        open_as("gptq_v2");
        ((unsigned char *)entry->data)[0] ^= 1;
        read_key(KRY_CONTENT_BYTES, 0, NULL, after);
        assert_string_not_equal(before, after);
        read_key(KRY_CONTENT_BYTES, 1, NULL, other);
        open_as("gptq_v2");
        read_key(KRY_CONTENT_BYTES, 1, NULL, after);
        assert_string_equal(other, after); /* the other layer's tensors are the same */
    }
    read_key(KRY_CONTENT_BYTES, 0, NULL, after);
    assert_string_equal(before, after);
}

/* Times are set back to what they were; the system's own time of the change stays. */
static void key_of_files_changes_when_a_file_is_written_in_place(void **state) {
    (void)state;
    key before, after;
    open_two();
    read_key(KRY_CONTENT_FILES, 0, NULL, before);
    struct stat info;
    const char *path = model_path(&model, "model.safetensors");
    assert_int_equal(stat(path, &info), 0);
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000}; /* coarser than the system's clock */
    nanosleep(&pause, NULL);
    int descriptor = open(path, O_WRONLY);
    assert_true(descriptor >= 0);
    assert_int_equal(pwrite(descriptor, "x", 1, info.st_size - 1), 1);
    const struct timespec times[2] = {info.st_atim, info.st_mtim};
    assert_int_equal(futimens(descriptor, times), 0);
    assert_int_equal(close(descriptor), 0);
    model_open_well(&model);
    read_key(KRY_CONTENT_FILES, 0, NULL, after);
    assert_string_not_equal(before, after);
}

static void key_changes_with_how_zero_points_are_read(void **state) {
    (void)state;
    for (uint32_t how = 0; how < 2; how++) {
        key before, after;
        tensors_free(&file);
        open_two();
        read_key(how, 0, NULL, before);
        model_text(&model, "config.json",
                   "{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, "
                   "\"group_size\": 32, \"sym\": false, \"checkpoint_format\": \"gptq\"}}");
        model_open_well(&model);
        read_key(how, 0, NULL, after);
        assert_string_not_equal(before, after);
    }
}

static void description_is_that_of_the_weights(void **state) {
    (void)state;
    const kry_slice slice = {sizeof(kry_slice), 0, 8, 32, 64};
    for (int shuffled = 0; shuffled < 2; shuffled++) {
        if (shuffled)
            problem_shuffle(&problem);
        tensors_free(&file);
        open_two();
        kry_checkpoint_weights *weights = NULL;
        assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, 0, &slice, &weights),
                         KRY_OK);
        kry_linear linear = KRY_INIT(kry_linear);
        key content;
        assert_int_equal(kry_checkpoint_content(model.checkpoint, 0, &slice, KRY_CONTENT_FILES,
                                                &linear, content, sizeof content),
                         KRY_OK);
        assert_int_equal(linear.act_order, shuffled); /* the config says so either way */
        assert_memory_equal(&linear, weights->linear, sizeof linear);
        kry_checkpoint_weights_destroy(&weights);
    }
}

static void wrong_arguments_are_refused(void **state) {
    (void)state;
    open_two();
    key content = "as before";
    kry_slice beyond = {sizeof(kry_slice), 0, 17, 0, 0};
    const kry_checkpoint *c = model.checkpoint;
    assert_int_equal(kry_checkpoint_content(c, 0, NULL, 2, NULL, content, sizeof content),
                     KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_content(c, 0, NULL, 0, NULL, content, sizeof content - 1),
                     KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_content(c, 0, NULL, 0, NULL, NULL, 999), KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_content(c, 9, NULL, 0, NULL, content, sizeof content),
                     KRY_E_NOT_FOUND);
    assert_int_equal(kry_checkpoint_content(NULL, 0, NULL, 0, NULL, content, sizeof content),
                     KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_content(c, 0, &beyond, 0, NULL, content, sizeof content),
                     KRY_E_ARGUMENT);
    assert_string_equal(content, "as before");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(key_of_bytes_is_the_same_for_a_copy, setup_with_problem,
                                        teardown),
        cmocka_unit_test_setup_teardown(key_tells_layers_and_slices_apart, setup_with_problem,
                                        teardown),
        cmocka_unit_test_setup_teardown(key_of_bytes_changes_with_a_byte_of_any_tensor,
                                        setup_with_problem, teardown),
        cmocka_unit_test_setup_teardown(key_of_files_changes_when_a_file_is_written_in_place,
                                        setup_with_problem, teardown),
        cmocka_unit_test_setup_teardown(key_changes_with_how_zero_points_are_read,
                                        setup_with_problem, teardown),
        cmocka_unit_test_setup_teardown(description_is_that_of_the_weights, setup_with_problem,
                                        teardown),
        cmocka_unit_test_setup_teardown(wrong_arguments_are_refused, setup_with_problem, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
