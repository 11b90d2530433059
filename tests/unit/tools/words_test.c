/* The words of descriptions. */
#include "words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static kry_linear completed(kry_linear linear) {
    kry_linear out = KRY_INIT(kry_linear);
    assert_int_equal(kry_linear_complete(&linear, &out), KRY_OK);
    return out;
}

static kry_linear ordinary(void) {
    kry_linear linear = KRY_INIT(kry_linear);
    linear.in_features = 2112;
    linear.out_features = 2816;
    linear.group_size = 32;
    linear.weight_type = KRY_WEIGHT_U4B8;
    linear.x_type = KRY_TYPE_BF16;
    return linear;
}

static void linear_format_of_an_ordinary_layer_is_short(void **state) {
    (void)state;
    char text[LINEAR_TEXT_BYTES];
    kry_linear linear = completed(ordinary());
    assert_string_equal(linear_format(&linear, text), "2112×2816 u4b8 g32 bf16");
    linear.group_size = -1;
    assert_string_equal(linear_format(&linear, text), "2112×2816 u4b8 channel bf16");
}

static void linear_format_of_a_partition_tells_where_it_starts(void **state) {
    (void)state;
    char text[LINEAR_TEXT_BYTES];
    kry_linear linear = ordinary();
    linear.full_in_features = 4224;
    linear.k_offset = 2112;
    linear = completed(linear);
    assert_string_equal(linear_format(&linear, text),
                        "2112×2816 u4b8 g32 bf16 from k 2112 of 4224");
    linear.group_size = 64;
    linear.k_offset = 32;
    assert_non_null(strstr(linear_format(&linear, text), "(inside a group)"));
}

static void linear_format_of_the_longest_description_fits(void **state) {
    (void)state;
    char text[LINEAR_TEXT_BYTES];
    kry_linear linear = {.struct_size = sizeof linear,
                         .in_features = INT64_MIN,
                         .out_features = INT64_MIN,
                         .full_in_features = INT64_MIN,
                         .k_offset = INT64_MAX,
                         .group_size = INT64_MAX - 1,
                         .weight_type = KRY_WEIGHT_U8B128,
                         .scale_type = KRY_TYPE_F16,
                         .x_type = KRY_TYPE_BF16,
                         .y_type = KRY_TYPE_F32,
                         .activation_quantization = KRY_ACTIVATION_FP8_E4M3_TOKEN,
                         .allowed = KRY_ALLOW_INT8_ACTIVATIONS,
                         .required_features = UINT64_MAX};
    linear_format(&linear, text);
    assert_non_null(strstr(text, "features:0xffffffffffffffff"));
    assert_true(strlen(text) < LINEAR_TEXT_BYTES - 1);
}

static void words_of_every_value_parse_back(void **state) {
    (void)state;
    uint32_t value;
    for (uint32_t type = KRY_WEIGHT_U4B8; type <= KRY_WEIGHT_U8; type++) {
        assert_true(parse_weight_type(weight_type_word(type), &value));
        assert_int_equal(value, type);
        assert_non_null(strstr(weight_type_words, weight_type_word(type)));
    }
    for (uint32_t type = KRY_TYPE_F16; type <= KRY_TYPE_F32; type++) {
        assert_true(parse_type(type_word(type), &value));
        assert_int_equal(value, type);
    }
    for (uint32_t how = KRY_ACTIVATION_NONE; how <= KRY_ACTIVATION_FP8_E4M3_TOKEN; how++) {
        assert_true(parse_activation(activation_word(how), &value));
        assert_int_equal(value, how);
    }
    assert_string_equal(weight_type_word(99), "?");
    assert_false(parse_weight_type("?", &value));
    assert_false(parse_type("f64", &value));
}

static void size_format_chooses_the_unit(void **state) {
    (void)state;
    char text[SIZE_TEXT_BYTES];
    assert_string_equal(size_format(0, text), "0 B");
    assert_string_equal(size_format(1023, text), "1023 B");
    assert_string_equal(size_format(1536, text), "1.5 KiB");
    assert_string_equal(size_format(UINT64_C(12) << 20, text), "12 MiB");
    assert_string_equal(size_format(UINT64_MAX, text), "16384 PiB");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_format_of_an_ordinary_layer_is_short),
        cmocka_unit_test(linear_format_of_a_partition_tells_where_it_starts),
        cmocka_unit_test(linear_format_of_the_longest_description_fits),
        cmocka_unit_test(words_of_every_value_parse_back),
        cmocka_unit_test(size_format_chooses_the_unit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
