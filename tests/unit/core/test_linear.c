/*
 * Descriptions: completing and checking them, splitting their groups, refusals in words.
 */
#include "core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static kry_linear valid(void) {
    kry_linear linear = KRY_INIT(kry_linear);
    linear.in_features = 352;
    linear.out_features = 2816;
    linear.full_in_features = 704;
    linear.k_offset = 352;
    linear.group_size = 64;
    linear.weight_type = KRY_WEIGHT_U4;
    linear.x_type = KRY_TYPE_BF16;
    return linear;
}

static void complete_fills_in_defaults(void **state) {
    (void)state;
    kry_linear linear = valid(), out = KRY_INIT(kry_linear);
    linear.full_in_features = linear.k_offset = 0;
    assert_int_equal(kry_linear_complete(&linear, &out), KRY_OK);
    assert_int_equal(out.full_in_features, 352);
    assert_int_equal(out.full_out_features, 2816);
    assert_int_equal(out.scale_type, KRY_TYPE_BF16);
    assert_int_equal(out.y_type, KRY_TYPE_BF16);
}

/* Each line breaks one field; the message must name it. */
static void complete_wrong_field_is_named(void **state) {
    (void)state;
    const struct {
        const char *field;
        size_t offset;
        int64_t value; /* of a 64-bit field, else of a 32-bit one */
        bool wide;
    } faults[] = {
        {"in_features", offsetof(kry_linear, in_features), 0, true},
        {"in_features", offsetof(kry_linear, in_features), INT64_MIN, true},
        {"in_features", offsetof(kry_linear, in_features), KRY_FEATURES_MAX + 1, true},
        {"out_features", offsetof(kry_linear, out_features), -1, true},
        {"full_in_features", offsetof(kry_linear, full_in_features), 351, true},
        {"full_in_features", offsetof(kry_linear, full_in_features), INT64_MAX, true},
        {"full_out_features", offsetof(kry_linear, full_out_features), 2815, true},
        {"k_offset", offsetof(kry_linear, k_offset), -1, true},
        {"k_offset", offsetof(kry_linear, k_offset), 353, true},
        {"group_size", offsetof(kry_linear, group_size), 0, true},
        {"group_size", offsetof(kry_linear, group_size), -2, true},
        {"weight_type", offsetof(kry_linear, weight_type), 0, false},
        {"weight_type", offsetof(kry_linear, weight_type), 5, false},
        {"scale_type", offsetof(kry_linear, scale_type), 4, false},
        {"x_type", offsetof(kry_linear, x_type), 9, false},
        {"y_type", offsetof(kry_linear, y_type), 4, false},
        {"activation_quantization", offsetof(kry_linear, activation_quantization), 3, false},
        {"allowed", offsetof(kry_linear, allowed), 2, false},
        {"act_order", offsetof(kry_linear, act_order), 2, false},
        {"reserved", offsetof(kry_linear, reserved), 1, false},
    };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        kry_linear linear = valid(), out = KRY_INIT(kry_linear);
        uint32_t narrow = (uint32_t)faults[i].value;
        if (faults[i].wide)
            memcpy((char *)&linear + faults[i].offset, &faults[i].value, 8);
        else
            memcpy((char *)&linear + faults[i].offset, &narrow, 4);
        assert_int_equal(kry_linear_complete(&linear, &out), KRY_E_ARGUMENT);
        assert_non_null(strstr(kry_error_message(), faults[i].field));
        assert_int_equal(out.in_features, 0);
    }
}

static void groups_are_counted_as_touched(void **state) {
    (void)state;
    kry_linear linear = valid();
    linear.full_out_features = linear.out_features;
    assert_int_equal(kry_linear_groups(&linear), 6); /* 352..703 of groups of 64: 5..10 */
    assert_int_equal(kry_linear_group_of(&linear, 0), 0);
    assert_int_equal(kry_linear_group_of(&linear, 31), 0);
    assert_int_equal(kry_linear_group_of(&linear, 32), 1);
    assert_int_equal(kry_linear_group_of(&linear, 351), 5);
    linear.act_order = 1;
    assert_int_equal(kry_linear_groups(&linear), 11);
    linear.group_size = -1;
    assert_int_equal(kry_linear_groups(&linear), 1);
}

static void split_groups_never_straddle(void **state) {
    (void)state;
    uint32_t seed = 12345;
    for (int i = 0; i < 2000; i++) {
        kry_linear linear = valid(), split;
        uint64_t bytes;
        seed = seed * 1664525 + 1013904223;
        linear.group_size = 1 + (seed >> 8) % 200;
        linear.in_features = 1 + (seed >> 16) % 1000;
        linear.k_offset = (seed >> 4) % 500;
        linear.full_in_features = linear.k_offset + linear.in_features + 3;
        linear.scale_type = KRY_TYPE_F16;
        bool straddles =
            linear.k_offset % linear.group_size != 0 || linear.in_features % linear.group_size != 0;
        assert_int_equal(core_rewrite_split_groups(&linear, &split, &bytes), straddles);
        if (!straddles)
            continue;
        assert_int_equal(split.k_offset % split.group_size, 0);
        assert_int_equal(split.in_features % split.group_size, 0);
        assert_int_equal(linear.group_size % split.group_size, 0);
        /* Every column keeps its scale: the split group lies inside the one it had. */
        for (int64_t k = 0; k < linear.in_features; k++) {
            int64_t first = kry_linear_group_of(&split, k) * split.group_size;
            assert_int_equal(kry_linear_group_of(&linear, first), kry_linear_group_of(&linear, k));
        }
        int64_t more = kry_linear_groups(&split) - kry_linear_groups(&linear);
        assert_int_equal(bytes, more * linear.out_features * 3); /* f16 scale, zero point */
    }
}

static void split_groups_has_nothing_to_split(void **state) {
    (void)state;
    kry_linear linear = valid(), split;
    uint64_t bytes;
    linear.act_order = 1;
    assert_false(core_rewrite_split_groups(&linear, &split, &bytes));
    linear.act_order = 0;
    linear.group_size = -1;
    assert_false(core_rewrite_split_groups(&linear, &split, &bytes));
}

static void refusal_is_worded_from_code_and_values(void **state) {
    (void)state;
    const struct {
        uint32_t code;
        int64_t found, needed;
        const char *text;
    } lines[] = {
        {KRY_REFUSAL_K_ALIGNMENT, 2112, 128, "in_features 2112 is not a multiple of 128"},
        {KRY_REFUSAL_N_ALIGNMENT, 3420, 8, "out_features 3420 is not a multiple of 8"},
        {KRY_REFUSAL_CAPABILITY, 75, 80, "architecture number 75, expected 80 or more"},
        {KRY_REFUSAL_WEIGHT_TYPE, KRY_WEIGHT_U8, 1 << KRY_WEIGHT_U4B8 | 1 << KRY_WEIGHT_U4,
         "weight type is u8, expected u4b8 or u4"},
        {KRY_REFUSAL_X_TYPE, KRY_TYPE_F32, 1 << KRY_TYPE_F16, "x is f32, expected f16"},
        {KRY_REFUSAL_Y_TYPE, KRY_TYPE_F32, 1 << KRY_TYPE_F16, "y is f32, expected f16"},
        {KRY_REFUSAL_SCALE_TYPE, 77, 0, "scale type is unknown, expected another"},
        {KRY_REFUSAL_GROUP_SIZE, 256, 128, "group size 256 is not one it takes"},
        {KRY_REFUSAL_PARTITION, 32, 0, "the partition starts 32 columns inside a group"},
        {KRY_REFUSAL_SHORT_GROUP, 64, 128, "the last group has 64 columns of 128"},
        {KRY_REFUSAL_CPU_FEATURE, 0, KRY_CPU_AVX2, "CPU features are missing: avx2"},
        {KRY_REFUSAL_FEATURE, 0x10, 0, "required features 0x10 are unknown to it"},
        {KRY_REFUSAL_ACTIVATION_QUANTIZATION, KRY_ACTIVATION_NONE,
         1 << KRY_ACTIVATION_FP8_E4M3_TOKEN,
         "wanted activation quantization is none, expected fp8 e4m3 a token"},
        {KRY_REFUSAL_ACT_ORDER, 1, 0, "act_order: found 1, needed 0"},
    };
    char text[256];
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        kry_refusal refusal = KRY_INIT(kry_refusal);
        kry_refuse(&refusal, lines[i].code, lines[i].found, lines[i].needed, NULL);
        assert_int_equal(kry_refusal_format(&refusal, text, sizeof text), strlen(lines[i].text));
        assert_string_equal(text, lines[i].text);
    }
    kry_refusal told = KRY_INIT(kry_refusal);
    kry_refuse(&told, KRY_REFUSAL_OTHER, 0, 0, "because");
    kry_refusal_format(&told, text, sizeof text);
    assert_string_equal(text, "because");
    assert_int_equal(kry_refusal_format(NULL, text, sizeof text), 0);
    assert_string_equal(text, "");
}

static void refusal_codes_all_have_names(void **state) {
    (void)state;
    for (uint32_t code = 0; code <= KRY_REFUSAL_OTHER; code++)
        for (uint32_t other = 0; other < code; other++)
            assert_string_not_equal(kry_refusal_code_string(code), kry_refusal_code_string(other));
    assert_string_equal(kry_refusal_code_string(KRY_REFUSAL_OTHER + 1), "unknown");
}

static void format_tells_shape_types_and_partition(void **state) {
    (void)state;
    char text[160];
    kry_linear linear = valid(), out = KRY_INIT(kry_linear);
    linear.act_order = 1;
    linear.activation_quantization = KRY_ACTIVATION_INT8_TOKEN;
    assert_int_equal(kry_linear_complete(&linear, &out), KRY_OK);
    core_linear_format(&out, text, sizeof text);
    assert_string_equal(text, "352x2816 at k 352 of 704 g64 u4 bf16 act-order, int8 a token");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(complete_fills_in_defaults),
        cmocka_unit_test(complete_wrong_field_is_named),
        cmocka_unit_test(groups_are_counted_as_touched),
        cmocka_unit_test(split_groups_never_straddle),
        cmocka_unit_test(split_groups_has_nothing_to_split),
        cmocka_unit_test(refusal_is_worded_from_code_and_values),
        cmocka_unit_test(refusal_codes_all_have_names),
        cmocka_unit_test(format_tells_shape_types_and_partition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
