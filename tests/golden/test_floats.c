/*
 * The conversions against their definitions: every 16-bit pattern both ways, every double
 * halfway between two neighbours, and a table of e4m3 written out from its fields.
 */
#include "floats.h"

#include <kernelry/types.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/** A value from its fields, by the formula that defines a binary format. */
static double by_definition(uint32_t bits, int exponent_bits, int fraction_bits) {
    int bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = (int)(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
    double fraction = (double)(bits & ((1U << fraction_bits) - 1)) / (1 << fraction_bits);
    double sign = bits >> (exponent_bits + fraction_bits) & 1 ? -1 : 1;
    return exponent == 0 ? sign * ldexp(fraction, 1 - bias)
                         : sign * ldexp(1 + fraction, exponent - bias);
}

static void f16_every_pattern_decodes_by_definition_and_encodes_back(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits <= 0xFFFF; bits++) {
        float value = f16_decode((uint16_t)bits);
        if ((bits & 0x7C00) != 0x7C00)
            assert_true((double)value == by_definition(bits, 5, 10));
        else if (bits & 0x3FF)
            assert_true(isnan(value));
        else
            assert_true(isinf(value) && (value < 0) == (bits >> 15));
        if (!isnan(value))
            assert_int_equal(f16_encode((double)value), bits);
    }
}

static void bf16_every_pattern_decodes_by_definition_and_encodes_back(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits <= 0xFFFF; bits++) {
        float value = bf16_decode((uint16_t)bits);
        if ((bits & 0x7F80) != 0x7F80)
            assert_true((double)value == by_definition(bits, 8, 7));
        else if (bits & 0x7F)
            assert_true(isnan(value));
        else
            assert_true(isinf(value) && (value < 0) == (bits >> 15));
        if (!isnan(value))
            assert_int_equal(bf16_encode((double)value), bits);
    }
}

static void nan_of_either_sign_stays_nan(void **state) {
    (void)state;
    double nans[] = {(double)NAN, -(double)NAN};
    for (int i = 0; i < 2; i++) {
        assert_true(isnan(f16_decode(f16_encode(nans[i]))));
        assert_true(isnan(bf16_decode(bf16_encode(nans[i]))));
        assert_true(isnan(e4m3_decode(e4m3_encode(nans[i]))));
    }
}

/** Between neighbours a < b (bits, bits + 1): just below, at, and just above the middle. */
static void check_between(double low, double high, uint32_t bits,
                          uint32_t (*encode)(double value)) {
    double middle = low + (high - low) / 2;
    assert_int_equal(encode(nextafter(middle, low)), bits);
    assert_int_equal(encode(middle), bits + (bits & 1));
    assert_int_equal(encode(nextafter(middle, high)), bits + 1);
    assert_int_equal(encode(nextafter(low, high)), bits);
    assert_int_equal(encode(nextafter(high, low)), bits + 1);
}

static uint32_t encode_f16(double value) { return f16_encode(value); }
static uint32_t encode_bf16(double value) { return bf16_encode(value); }
static uint32_t encode_e4m3(double value) { return e4m3_encode(value); }

static void between_neighbours_rounds_to_nearest_with_ties_to_even(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 0x7BFF; bits++)
        check_between(by_definition(bits, 5, 10), by_definition(bits + 1, 5, 10), bits, encode_f16);
    for (uint32_t bits = 0; bits < 0x7F7F; bits++)
        check_between(by_definition(bits, 8, 7), by_definition(bits + 1, 8, 7), bits, encode_bf16);
    for (uint32_t bits = 0; bits < 0x7E; bits++)
        check_between(by_definition(bits, 4, 3), by_definition(bits + 1, 4, 3), bits, encode_e4m3);
}

static void beyond_the_largest_f16_becomes_infinite_from_the_middle_on(void **state) {
    (void)state;
    assert_int_equal(f16_encode(65504), 0x7BFF);
    assert_int_equal(f16_encode(nextafter(65520, 0)), 0x7BFF);
    assert_int_equal(f16_encode(65520), 0x7C00);
    assert_int_equal(f16_encode(-1e300), 0xFC00);
    assert_int_equal(f16_encode((double)INFINITY), 0x7C00);
    assert_int_equal(bf16_encode(1e300), 0x7F80);
    assert_int_equal(bf16_encode(-(double)INFINITY), 0xFF80);
    assert_true(float_largest(KRY_TYPE_F16) == 65504);
    assert_true(float_largest(KRY_TYPE_BF16) == by_definition(0x7F7F, 8, 7));
}

static void below_half_of_the_least_value_becomes_zero_of_the_same_sign(void **state) {
    (void)state;
    assert_int_equal(f16_encode(0x1p-25), 0);
    assert_int_equal(f16_encode(nextafter(0x1p-25, 1)), 1);
    assert_int_equal(f16_encode(-0x1p-26), 0x8000);
    assert_int_equal(f16_encode(-0.0), 0x8000);
    assert_int_equal(f16_encode(0x1p-1074), 0);
    assert_int_equal(bf16_encode(0x1p-134), 0);
    assert_int_equal(bf16_encode(nextafter(0x1p-134, 1)), 1);
    assert_int_equal(e4m3_encode(0x1p-10), 0);
    assert_int_equal(e4m3_encode(-0.0), 0x80);
}

static void e4m3_every_pattern_follows_the_published_table(void **state) {
    (void)state;
    /* Rows: exponents 0 (subnormal) and 1, 7, 8, 15 of eight fractions each. */
    static const struct {
        uint8_t first;
        double values[8];
    } rows[] = {
        {0x00, {0, 0x1p-9, 0x1p-8, 0x3p-9, 0x1p-7, 0x5p-9, 0x3p-8, 0x7p-9}},
        {0x08, {0x8p-9, 0x9p-9, 0xAp-9, 0xBp-9, 0xCp-9, 0xDp-9, 0xEp-9, 0xFp-9}},
        {0x38, {1, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875}},
        {0x40, {2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 3.75}},
        {0x78, {256, 288, 320, 352, 384, 416, 448, (double)NAN}},
    };
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
        for (uint8_t i = 0; i < 8; i++) {
            double value = (double)e4m3_decode((uint8_t)(rows[r].first + i));
            assert_true(value == rows[r].values[i] || (isnan(value) && isnan(rows[r].values[i])));
        }
    for (uint32_t bits = 0; bits < 0x100; bits++) {
        if ((bits & 0x7F) == 0x7F) {
            assert_true(isnan(e4m3_decode((uint8_t)bits)));
            continue;
        }
        assert_true((double)e4m3_decode((uint8_t)bits) == by_definition(bits, 4, 3));
        assert_int_equal(e4m3_encode((double)e4m3_decode((uint8_t)bits)), bits);
    }
}

static void e4m3_beyond_448_saturates(void **state) {
    (void)state;
    assert_int_equal(e4m3_encode(448.0001), 0x7E);
    assert_int_equal(e4m3_encode(464), 0x7E);
    assert_int_equal(e4m3_encode(1e30), 0x7E);
    assert_int_equal(e4m3_encode(-1e300), 0xFE);
    assert_int_equal(e4m3_encode((double)INFINITY), 0x7E);
}

static void arrays_at_odd_addresses_hold_each_type(void **state) {
    (void)state;
    char bytes[1 + 4 * 4];
    for (uint32_t type = KRY_TYPE_F16; type <= KRY_TYPE_F32; type++) {
        memset(bytes, 0x5A, sizeof bytes);
        float_store(bytes + 1, 0, type, 1.5);
        float_store(bytes + 1, 1, type, -0.375);
        assert_true(float_load(bytes + 1, 0, type) == 1.5);
        assert_true(float_load(bytes + 1, 1, type) == -0.375);
        assert_int_equal(bytes[1 + 2 * kry_type_bytes(type)], 0x5A);
    }
}

static void spacing_is_the_distance_to_the_next_value(void **state) {
    (void)state;
    assert_true(float_spacing(1, KRY_TYPE_F16) == 0x1p-10);
    assert_true(float_spacing(-1.999, KRY_TYPE_BF16) == 0x1p-7);
    assert_true(float_spacing(2, KRY_TYPE_F32) == 0x1p-22);
    assert_true(float_spacing(0, KRY_TYPE_F16) == 0x1p-24);
    assert_true(float_spacing(1e-30, KRY_TYPE_F16) == 0x1p-24);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_every_pattern_decodes_by_definition_and_encodes_back),
        cmocka_unit_test(bf16_every_pattern_decodes_by_definition_and_encodes_back),
        cmocka_unit_test(nan_of_either_sign_stays_nan),
        cmocka_unit_test(between_neighbours_rounds_to_nearest_with_ties_to_even),
        cmocka_unit_test(beyond_the_largest_f16_becomes_infinite_from_the_middle_on),
        cmocka_unit_test(below_half_of_the_least_value_becomes_zero_of_the_same_sign),
        cmocka_unit_test(e4m3_every_pattern_follows_the_published_table),
        cmocka_unit_test(e4m3_beyond_448_saturates),
        cmocka_unit_test(arrays_at_odd_addresses_hold_each_type),
        cmocka_unit_test(spacing_is_the_distance_to_the_next_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
