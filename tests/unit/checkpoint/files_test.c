/*
 * Files: what safetensors files, indexes and folders may look like, and every way in which
 * they can be damaged.
 */
#include "fixture.h"

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

/* ---- what is well ---------------------------------------------------------------------- */

static void open_file_of_all_dtypes_lists_tensors_in_order(void **state) {
    static const char *const dtypes[] = {"BOOL", "U8",  "I8",  "F8_E4M3", "F8_E5M2",
                                         "I16",  "U16", "F16", "BF16",    "I32",
                                         "U32",  "F32", "I64", "U64",     "F64"};
    (void)state;
    char data[6 * 8];
    memset(data, 7, sizeof data);
    for (size_t i = sizeof dtypes / sizeof dtypes[0]; i-- > 0;) {
        char name[32];
        snprintf(name, sizeof name, "t.%c", (char)('a' + i));
        tensors_add(&file, name, dtypes[i], "2x3", data);
    }
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    assert_int_equal(kry_checkpoint_tensor_count(model.checkpoint), 15);
    assert_int_equal(kry_checkpoint_layer_count(model.checkpoint), 0);
    for (size_t i = 0; i < 15; i++) {
        kry_tensor tensor = KRY_INIT(kry_tensor);
        assert_int_equal(kry_checkpoint_tensor(model.checkpoint, i, &tensor), KRY_OK);
        assert_int_equal(tensor.struct_size, sizeof tensor);
        assert_int_equal(tensor.name[2], 'a' + (int)i);
        assert_string_equal(kry_dtype_string(tensor.dtype), dtypes[i]);
        assert_string_equal(tensor.file, model_path(&model, "model.safetensors"));
        assert_int_equal(tensor.bytes, 6 * kry_dtype_bytes(tensor.dtype));
        assert_int_equal(tensor.rank, 2);
        assert_int_equal(tensor.shape[0], 2);
        assert_int_equal(tensor.shape[1], 3);
        assert_memory_equal(tensor.data, data, tensor.bytes);
    }
    kry_tensor tensor = KRY_INIT(kry_tensor);
    assert_int_equal(kry_checkpoint_tensor(model.checkpoint, 15, &tensor), KRY_E_NOT_FOUND);
    assert_int_equal(kry_checkpoint_find_tensor(model.checkpoint, "t.h", &tensor), KRY_OK);
    assert_int_equal(tensor.dtype, KRY_DTYPE_F16);
    assert_int_equal(kry_checkpoint_find_tensor(model.checkpoint, "t.", &tensor), KRY_E_NOT_FOUND);
    assert_message("'t.'");
    assert_string_equal(kry_dtype_string(0), "unknown");
    assert_int_equal(kry_dtype_bytes(99), 0);
}

static void open_scalars_empty_tensors_and_padding_succeeds(void **state) {
    (void)state;
    raw_write(&model, "model.safetensors",
              "{\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
              "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807,9],"
              "\"data_offsets\":[4,4]}}      ",
              4);
    model_open_well(&model);
    kry_tensor tensor = KRY_INIT(kry_tensor);
    assert_int_equal(kry_checkpoint_find_tensor(model.checkpoint, "scalar", &tensor), KRY_OK);
    assert_int_equal(tensor.rank, 0);
    assert_int_equal(kry_checkpoint_find_tensor(model.checkpoint, "empty", &tensor), KRY_OK);
    assert_int_equal(tensor.bytes, 0);
}

static void open_newer_dtypes_lists_them_without_a_name(void **state) {
    (void)state;
    raw_write(&model, "model.safetensors",
              "{\"a\":{\"dtype\":\"F8_E8M0\",\"shape\":[3],\"data_offsets\":[0,3]},"
              "\"b\":{\"dtype\":\"F4\",\"shape\":[2,3],\"data_offsets\":[3,6]}}",
              6);
    model_open_well(&model);
    kry_tensor tensor = KRY_INIT(kry_tensor);
    assert_int_equal(kry_checkpoint_find_tensor(model.checkpoint, "b", &tensor), KRY_OK);
    assert_int_equal(tensor.dtype, 0);
    assert_int_equal(tensor.bytes, 3);
}

static void open_file_beside_configs_reads_them(void **state) {
    (void)state;
    tensors_add(&file, "w", "F32", "2", NULL);
    tensors_write(&file, &model, "other.safetensors");
    assert_int_equal(model_open(&model, "other.safetensors"), KRY_OK);
    model_text(&model, "config.json", "{\"quantization_config\": {\"quant_method\": \"fp9\"}}");
    assert_int_equal(model_open(&model, "other.safetensors"), KRY_E_UNSUPPORTED);
    /* and by a path without a folder */
    char before[512];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(model.folder), 0);
    kry_checkpoint *checkpoint = NULL;
    kry_status status = kry_checkpoint_open("other.safetensors", NULL, &checkpoint);
    assert_int_equal(chdir(before), 0);
    assert_int_equal(status, KRY_E_UNSUPPORTED);
    assert_null(checkpoint);
}

static void open_folder_with_one_file_of_any_name_opens_it(void **state) {
    (void)state;
    tensors_add(&file, "w", "F32", "2", NULL);
    tensors_write(&file, &model, "weights.safetensors");
    model_open_well(&model);
    tensors_write(&file, &model, "more.safetensors");
    model_open_badly(&model, KRY_E_FORMAT, "more.safetensors", "weights.safetensors");
    /* the name that everybody uses wins */
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
}

/* ---- what is not there ----------------------------------------------------------------- */

static void open_what_is_missing_or_no_model_fails(void **state) {
    (void)state;
    assert_int_equal(model_open(&model, "absent"), KRY_E_IO);
    assert_message("absent");
    assert_int_equal(model_open(&model, NULL), KRY_E_FORMAT);
    assert_message(model.folder);
    model_text(&model, "notes.txt", "hello");
    assert_int_equal(model_open(&model, "notes.txt"), KRY_E_FORMAT);
    assert_int_equal(mkfifo(model_path(&model, "pipe.safetensors"), 0600), 0);
    assert_int_equal(model_open(&model, "pipe.safetensors"), KRY_E_IO);
    assert_message("not a regular file");
    assert_int_equal(symlink("nowhere", model_path(&model, "model.safetensors")), 0);
    assert_int_equal(model_open(&model, "model.safetensors"), KRY_E_IO);
}

static void open_with_null_arguments_fails(void **state) {
    (void)state;
    kry_checkpoint *checkpoint = NULL;
    assert_int_equal(kry_checkpoint_open(NULL, NULL, &checkpoint), KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_open("x", NULL, NULL), KRY_E_ARGUMENT);
    kry_checkpoint_options options = {0};
    assert_int_equal(kry_checkpoint_open("x", &options, &checkpoint), KRY_E_ABI);
    kry_checkpoint_close(NULL);
    kry_checkpoint_close(&checkpoint);
    assert_int_equal(kry_checkpoint_tensor_count(NULL), 0);
    assert_int_equal(kry_checkpoint_layer_count(NULL), 0);
    kry_tensor tensor = KRY_INIT(kry_tensor);
    assert_int_equal(kry_checkpoint_tensor(NULL, 0, &tensor), KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_find_tensor(NULL, "x", &tensor), KRY_E_ARGUMENT);
}

static void tensor_out_struct_of_another_size_is_respected(void **state) {
    (void)state;
    tensors_add(&file, "w", "F32", "2", NULL);
    tensors_write(&file, &model, "model.safetensors");
    model_open_well(&model);
    struct {
        kry_tensor tensor;
        char more[8];
    } newer = {.tensor.struct_size = sizeof newer, .more = "xxxxxxx"};
    assert_int_equal(kry_checkpoint_tensor(model.checkpoint, 0, &newer.tensor), KRY_OK);
    assert_int_equal(newer.more[0], 0);
    kry_tensor older;
    memset(&older, 0x5a, sizeof older);
    older.struct_size = offsetof(kry_tensor, file);
    assert_int_equal(kry_checkpoint_tensor(model.checkpoint, 0, &older), KRY_OK);
    assert_string_equal(older.name, "w");
    assert_int_equal(older.rank, 0x5a5a5a5a);
    older.struct_size = 0;
    assert_int_equal(kry_checkpoint_tensor(model.checkpoint, 0, &older), KRY_E_ABI);
    assert_int_equal(kry_checkpoint_tensor(model.checkpoint, 0, NULL), KRY_E_ARGUMENT);
}

/* ---- damaged files --------------------------------------------------------------------- */

static void open_file_cut_off_anywhere_fails(void **state) {
    (void)state;
    uint8_t data[20] = {0};
    tensors_add(&file, "a", "I32", "3", data);
    tensors_add(&file, "b", "I8", "2", data);
    tensors_write(&file, &model, "model.safetensors");
    FILE *stream = fopen(model_path(&model, "model.safetensors"), "rb");
    uint8_t bytes[4096];
    size_t size = fread(bytes, 1, sizeof bytes, stream);
    fclose(stream);
    model_open_well(&model);
    for (size_t cut = 0; cut < size; cut++) {
        model_write(&model, "model.safetensors", bytes, cut);
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors");
    }
    bytes[size] = 0;
    model_write(&model, "model.safetensors", bytes, size + 1);
    model_open_badly(&model, KRY_E_FORMAT, "model.safetensors", "14", "15");
}

static void open_file_with_a_spoiled_byte_never_crashes(void **state) {
    (void)state;
    uint8_t data[20] = {0};
    tensors_add(&file, "a", "I32", "3", data);
    tensors_add(&file, "b", "I8", "2", data);
    tensors_write(&file, &model, "model.safetensors");
    FILE *stream = fopen(model_path(&model, "model.safetensors"), "rb");
    uint8_t bytes[4096];
    size_t size = fread(bytes, 1, sizeof bytes, stream);
    fclose(stream);
    for (size_t i = 0; i < size; i++)
        for (int flip = 1; flip < 256; flip *= 4) {
            bytes[i] ^= (uint8_t)flip;
            model_write(&model, "model.safetensors", bytes, size);
            kry_status status = model_open(&model, NULL);
            assert_true(status == KRY_OK || status == KRY_E_FORMAT);
            bytes[i] ^= (uint8_t)flip;
        }
}

static void open_header_of_absurd_length_fails(void **state) {
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7,   (uint64_t)INT64_MAX + 1, 100,
                                       9,          UINT64_C(1) << 32};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t bytes[16] = "12345678{}      ";
        memcpy(bytes, &lengths[i], 8);
        model_write(&model, "model.safetensors", bytes, sizeof bytes);
        char number[32];
        snprintf(number, sizeof number, "%llu", (unsigned long long)lengths[i]);
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors", number);
    }
}

static void open_header_that_is_no_object_fails(void **state) {
    static const char *const headers[] = {
        "", "hello", "[]", "7", "null", "{\"a\":}", "{", "{} x", "\xff\xfe", "{\"a\\u0000b\": 1}"};
    (void)state;
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        raw_write(&model, "model.safetensors", headers[i], 0);
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors");
    }
}

static void open_bad_entry_fails(void **state) {
    static const struct {
        const char *header, *part;
    } cases[] = {
        {"{\"t\":7}", "not an object"},
        {"{\"t\":{\"shape\":[1],\"data_offsets\":[0,4]}}", "dtype"},
        {"{\"t\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]}}", "F99"},
        {"{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", "shape"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":7,\"data_offsets\":[0,4]}}", "shape"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", "shape"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", "shape"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", "9"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,4]}}",
         "overflows"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}",
         "JSON"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", "data_offsets"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "data_offsets"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,\"4\"]}}", "data_offsets"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", "[4, 0]"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", "[-4, 0]"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}", "[1, 5]"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9223372036854775807]}}",
         "9223372036854775807"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", "8 bytes"},
        {"{\"t\":{\"dtype\":\"F4\",\"shape\":[7],\"data_offsets\":[0,4]}}", "4 bytes"},
        {"{\"t\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
         "\"t\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}",
         "duplicate"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        raw_write(&model, "model.safetensors", cases[i].header, 4);
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors", cases[i].part);
    }
}

static void open_overlapping_or_scattered_tensors_fails(void **state) {
    static const struct {
        int begin, end;
        const char *part;
    } cases[] = {{0, 4, "overlaps"}, {2, 6, "overlaps"}, {5, 9, "[4, 5)"}, {4, 8, "9"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[512];
        snprintf(header, sizeof header,
                 "{\"second\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]},"
                 "\"first\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                 cases[i].begin, cases[i].end);
        raw_write(&model, "model.safetensors", header, 9);
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors", cases[i].part);
    }
}

/* {"a":[[[...]]]} */
static char *nested(size_t depth) {
    char *text = calloc(2 * depth + 8, 1);
    assert_non_null(text);
    snprintf(text, 6, "{\"a\":");
    memset(text + 5, '[', depth);
    memset(text + 5 + depth, ']', depth);
    text[5 + 2 * depth] = '}';
    return text;
}

static void open_json_nested_too_deep_fails(void **state) {
    (void)state;
    char *text = nested(10000);
    raw_write(&model, "model.safetensors", text, 0);
    model_open_badly(&model, KRY_E_FORMAT, "model.safetensors", "depth");
    tensors_write(&file, &model, "model.safetensors");
    model_text(&model, "config.json", "%s", text);
    model_open_badly(&model, KRY_E_FORMAT, "config.json", "depth");
    free(text);
}

/* ---- shards ---------------------------------------------------------------------------- */

static void write_shards(void) {
    uint8_t data[16] = {1, 2, 3};
    tensors_add(&file, "b", "U8", "3", data);
    tensors_write(&file, &model, "model-00001-of-00002.safetensors");
    tensors_free(&file);
    tensors_add(&file, "a", "U8", "2", data);
    tensors_add(&file, "c", "U8", "1", data);
    tensors_write(&file, &model, "model-00002-of-00002.safetensors");
    model_text(&model, "model.safetensors.index.json",
               "{\"metadata\": {\"total_size\": 6}, \"weight_map\": {"
               "\"a\": \"model-00002-of-00002.safetensors\","
               "\"b\": \"model-00001-of-00002.safetensors\","
               "\"c\": \"model-00002-of-00002.safetensors\"}}");
}

static void open_index_reads_all_shards(void **state) {
    (void)state;
    write_shards();
    model_open_well(&model);
    assert_int_equal(kry_checkpoint_tensor_count(model.checkpoint), 3);
    kry_tensor tensor = KRY_INIT(kry_tensor);
    assert_int_equal(kry_checkpoint_tensor(model.checkpoint, 1, &tensor), KRY_OK);
    assert_string_equal(tensor.name, "b");
    assert_non_null(strstr(tensor.file, "00001-of-00002"));
    assert_int_equal(((const uint8_t *)tensor.data)[2], 3);
    assert_int_equal(model.log_count, 0);
}

static void open_index_with_missing_shard_fails(void **state) {
    (void)state;
    write_shards();
    remove(model_path(&model, "model-00001-of-00002.safetensors"));
    model_open_badly(&model, KRY_E_FORMAT, "index.json", "model-00001-of-00002.safetensors",
                     "missing");
}

static void open_index_naming_absent_tensor_fails(void **state) {
    (void)state;
    write_shards();
    model_text(&model, "model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"model-00002-of-00002.safetensors\","
               "\"d\": \"model-00002-of-00002.safetensors\"}}");
    model_open_badly(&model, KRY_E_FORMAT, "'d'", "model-00002-of-00002.safetensors");
    /* it is there, but in another shard than the index says */
    model_text(&model, "model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"model-00001-of-00002.safetensors\","
               "\"c\": \"model-00002-of-00002.safetensors\"}}");
    model_open_badly(&model, KRY_E_FORMAT, "'a'", "model-00001-of-00002.safetensors");
}

static void open_tensor_in_two_shards_takes_the_index_at_its_word(void **state) {
    (void)state;
    write_shards();
    uint8_t data[16] = {9, 9, 9};
    tensors_add(&file, "b", "U8", "3", data);
    tensors_write(&file, &model, "model-00002-of-00002.safetensors");
    model_open_well(&model);
    kry_tensor tensor = KRY_INIT(kry_tensor);
    assert_int_equal(kry_checkpoint_find_tensor(model.checkpoint, "b", &tensor), KRY_OK);
    assert_int_equal(((const uint8_t *)tensor.data)[0], 1);
    assert_logged(&model, "'b'");
    /* without a word there is no telling */
    model_text(&model, "model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"model-00002-of-00002.safetensors\","
               "\"x\": \"model-00001-of-00002.safetensors\"}}");
    model_open_badly(&model, KRY_E_FORMAT, "'b'", "00001-of", "00002-of");
}

static void open_bad_index_fails(void **state) {
    static const char *const cases[][2] = {
        {"[]", "an array"},
        {"{\"weight_map\"", "JSON"},
        {"{}", "weight_map"},
        {"{\"weight_map\": []}", "weight_map"},
        {"{\"weight_map\": {\"a\": 7}}", "an integer"},
        {"{\"weight_map\": {\"a\": \"\"}}", "''"},
        {"{\"weight_map\": {\"a\": \"/etc/x.safetensors\"}}", "beside the index"},
        {"{\"weight_map\": {\"a\": \"../x.safetensors\"}}", "beside the index"},
        {"{\"weight_map\": {\"a\": \"..safetensors\"}}", "beside the index"},
        {"{\"weight_map\": {\"a\": \"config.json\"}}", "config.json"},
    };
    (void)state;
    write_shards();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model_text(&model, "model.safetensors.index.json", "%s", cases[i][0]);
        model_open_badly(&model, KRY_E_FORMAT, "model.safetensors.index.json", cases[i][1]);
    }
    model_write(&model, "model.safetensors.index.json", "", 0);
    model_open_badly(&model, KRY_E_FORMAT, "model.safetensors.index.json");
    /* an index of nothing is a checkpoint of nothing */
    model_text(&model, "model.safetensors.index.json", "{\"weight_map\": {}}");
    model_open_well(&model);
}

static void open_json_of_absurd_size_fails(void **state) {
    (void)state;
    tensors_write(&file, &model, "model.safetensors");
    model_text(&model, "config.json", "{}");
    assert_int_equal(truncate(model_path(&model, "config.json"), 1000000000), 0);
    model_open_badly(&model, KRY_E_FORMAT, "config.json", "1000000000");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(open_file_of_all_dtypes_lists_tensors_in_order, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(open_scalars_empty_tensors_and_padding_succeeds, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(open_newer_dtypes_lists_them_without_a_name, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(open_file_beside_configs_reads_them, setup, teardown),
        cmocka_unit_test_setup_teardown(open_folder_with_one_file_of_any_name_opens_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(open_what_is_missing_or_no_model_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(open_with_null_arguments_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(tensor_out_struct_of_another_size_is_respected, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(open_file_cut_off_anywhere_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(open_file_with_a_spoiled_byte_never_crashes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(open_header_of_absurd_length_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(open_header_that_is_no_object_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(open_bad_entry_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(open_overlapping_or_scattered_tensors_fails, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(open_json_nested_too_deep_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(open_index_reads_all_shards, setup, teardown),
        cmocka_unit_test_setup_teardown(open_index_with_missing_shard_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(open_index_naming_absent_tensor_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(open_tensor_in_two_shards_takes_the_index_at_its_word,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(open_bad_index_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(open_json_of_absurd_size_fails, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
