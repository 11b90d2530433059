/* Shapes files: what is read, and what is refused with which words. */
#include "shapes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/kernelry-shapes-XXXXXX";

static int make_file(void **state) {
    (void)state;
    int descriptor = mkstemp(path);
    return descriptor < 0 || close(descriptor);
}

static int remove_file(void **state) {
    (void)state;
    return unlink(path);
}

static void write_file(const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

#define NAMED "\"name\": \"a\", "
#define SIZED "\"in_features\": 64, \"out_features\": 32, "
#define TYPED "\"weight_type\": \"u4\", \"activation_type\": \"f16\""

/* Read one entry, its fields given as JSON. */
static kry_status read_entry(const char *fields, struct shapes *out) {
    char text[2048];
    snprintf(text, sizeof text, "{\"shapes\": [{%s}]}", fields);
    write_file(text);
    return shapes_read(path, NULL, out);
}

static void shapes_read_of_the_projects_file_describes_all(void **state) {
    (void)state;
    struct shapes shapes;
    assert_int_equal(shapes_read(SHAPES_FILE, NULL, &shapes), KRY_OK);
    assert_int_equal(shapes.count, 31);
    const struct shape *shard = &shapes.items[9];
    assert_string_equal(shard->name, "gemma4-26b.expert_down.tp2.rank1");
    assert_int_equal(shard->linear.in_features, 352);
    assert_int_equal(shard->linear.out_features, 2816);
    assert_int_equal(shard->linear.full_in_features, 704);
    assert_int_equal(shard->linear.k_offset, 352);
    assert_int_equal(shard->linear.group_size, 64);
    assert_int_equal(shard->linear.weight_type, KRY_WEIGHT_U4B8);
    assert_int_equal(shard->linear.x_type, KRY_TYPE_BF16);
    assert_int_equal(shard->linear.y_type, KRY_TYPE_BF16);
    assert_int_equal(shard->linear.scale_type, KRY_TYPE_BF16);
    assert_true(shapes.items[10].bias);
    assert_false(shard->bias);
    assert_int_equal(shapes.items[4].linear.act_order, 1);
    assert_int_equal(shapes.items[29].linear.activation_quantization,
                     KRY_ACTIVATION_FP8_E4M3_TOKEN);
    shapes_free(&shapes);
}

static void shapes_read_with_a_name_keeps_that_one(void **state) {
    (void)state;
    struct shapes shapes;
    assert_int_equal(shapes_read(SHAPES_FILE, "small-groups", &shapes), KRY_OK);
    assert_int_equal(shapes.count, 1);
    assert_string_equal(shapes.items[0].name, "small-groups");
    shapes_free(&shapes);
    assert_int_equal(shapes_read(SHAPES_FILE, "nobody", &shapes), KRY_E_NOT_FOUND);
    assert_non_null(strstr(kry_error_message(), "nobody"));
}

static void shapes_read_of_least_fields_fills_in_defaults(void **state) {
    (void)state;
    struct shapes shapes;
    assert_int_equal(read_entry(NAMED SIZED TYPED, &shapes), KRY_OK);
    assert_string_equal(shapes.items[0].why, "");
    assert_int_equal(shapes.items[0].linear.group_size, -1);
    assert_int_equal(shapes.items[0].linear.full_in_features, 64);
    assert_int_equal(shapes.items[0].linear.y_type, KRY_TYPE_F16);
    shapes_free(&shapes);
}

static void shapes_read_of_a_wrong_field_names_file_entry_and_field(void **state) {
    (void)state;
    static const struct {
        const char *fields, *message;
    } cases[] = {
        {SIZED TYPED, "entry 0: name: found nothing, expected a name"},
        {"\"name\": 7, " SIZED TYPED, "name: found 7"},
        {"\"name\": \"\", " SIZED TYPED, "name: found \"\""},
        {NAMED "\"out_features\": 32, " TYPED, "entry 0 (\"a\"): in_features: found nothing"},
        {NAMED "\"in_features\": 0, \"out_features\": 32, " TYPED, "in_features: found 0"},
        {NAMED "\"in_features\": 64.5, \"out_features\": 32, " TYPED, "in_features: found 64.5"},
        {NAMED "\"in_features\": 64, \"out_features\": \"32\", " TYPED,
         "out_features: found \"32\""},
        {NAMED "\"in_features\": 9223372036854775807, \"out_features\": 2, " TYPED,
         "in_features: found 9223372036854775807, expected a whole number from 1 to 2147483648"},
        {NAMED SIZED "\"weight_type\": \"u3\", \"activation_type\": \"f16\"",
         "weight_type: found \"u3\", expected one of u4b8, u4, u8b128, u8"},
        {NAMED SIZED "\"weight_type\": \"u4\", \"activation_type\": 16",
         "activation_type: found 16"},
        {NAMED SIZED TYPED ", \"activation_quantization\": \"int4\"",
         "expected one of none, int8_token, fp8_e4m3_token"},
        {NAMED SIZED TYPED ", \"zero_points\": false",
         "zero_points: found false, expected true, as weight_type is u4"},
        {NAMED SIZED "\"weight_type\": \"u4b8\", \"activation_type\": \"f16\", "
                     "\"zero_points\": true",
         "zero_points: found true, expected false, as weight_type is u4b8"},
        {NAMED SIZED TYPED ", \"act_order\": 1", "act_order: found 1, expected true or false"},
        {NAMED SIZED TYPED ", \"bias\": \"yes\"", "bias: found \"yes\""},
        {NAMED SIZED TYPED ", \"why\": []", "why: found []"},
        {NAMED SIZED TYPED ", \"group_sise\": 32", "group_sise"},
        {NAMED SIZED TYPED ", \"group_size\": -2", "group_size: found -2"},
        {NAMED SIZED TYPED ", \"group_size\": 0", "entry 0 (\"a\"): "},
        {NAMED SIZED TYPED ", \"full_in_features\": 32", "entry 0 (\"a\"): "},
        {NAMED SIZED TYPED ", \"k_offset\": 1", "entry 0 (\"a\"): "},
        {NAMED SIZED TYPED "}, {" NAMED SIZED TYPED,
         "entry 1 (\"a\"): name: found the name of an earlier entry"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct shapes shapes = {0};
        kry_status status = read_entry(cases[i].fields, &shapes);
        if (status != KRY_E_FORMAT || !strstr(kry_error_message(), cases[i].message))
            print_error("case %zu: status %d, '%s' lacks '%s'\n", i, status, kry_error_message(),
                        cases[i].message);
        assert_int_equal(status, KRY_E_FORMAT);
        assert_non_null(strstr(kry_error_message(), cases[i].message));
        assert_non_null(strstr(kry_error_message(), path));
        assert_null(shapes.items);
    }
}

static void shapes_read_of_no_list_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"[]",
                                        "{}",
                                        "{\"shapes\": []}",
                                        "{\"shapes\": 7}",
                                        "{\"shapes\": [7]}",
                                        "{\"shapes\": [null]}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct shapes shapes;
        write_file(texts[i]);
        assert_int_equal(shapes_read(path, NULL, &shapes), KRY_E_FORMAT);
    }
}

static void shapes_read_of_what_is_not_json_tells_the_line(void **state) {
    (void)state;
    struct shapes shapes;
    write_file("{\n\"shapes\": [\n");
    assert_int_equal(shapes_read(path, NULL, &shapes), KRY_E_FORMAT);
    assert_non_null(strstr(kry_error_message(), "line 3"));
    write_file("");
    assert_int_equal(shapes_read(path, NULL, &shapes), KRY_E_FORMAT);
}

static void shapes_read_of_deep_json_is_refused(void **state) {
    (void)state;
    struct shapes shapes;
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 100000; i++)
        putc('[', file);
    fclose(file);
    assert_int_equal(shapes_read(path, NULL, &shapes), KRY_E_FORMAT);
}

static void shapes_read_of_a_missing_file_or_a_folder_is_an_io_error(void **state) {
    (void)state;
    struct shapes shapes;
    assert_int_equal(shapes_read("/nowhere/shapes.json", NULL, &shapes), KRY_E_IO);
    assert_non_null(strstr(kry_error_message(), "/nowhere/shapes.json"));
    assert_int_equal(shapes_read("/tmp", NULL, &shapes), KRY_E_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_read_of_the_projects_file_describes_all),
        cmocka_unit_test(shapes_read_with_a_name_keeps_that_one),
        cmocka_unit_test(shapes_read_of_least_fields_fills_in_defaults),
        cmocka_unit_test(shapes_read_of_a_wrong_field_names_file_entry_and_field),
        cmocka_unit_test(shapes_read_of_no_list_is_refused),
        cmocka_unit_test(shapes_read_of_what_is_not_json_tells_the_line),
        cmocka_unit_test(shapes_read_of_deep_json_is_refused),
        cmocka_unit_test(shapes_read_of_a_missing_file_or_a_folder_is_an_io_error),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file) ? 1 : 0;
}
