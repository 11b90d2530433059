/* 16-bit floats in software: every value, every middle between two. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "numbers.h"

struct format {
    unsigned fraction_bits;
    uint16_t infinity;
    float (*value)(uint16_t bits);
};

static const struct format formats[] = {{10, 0x7C00, simt_f16_value}, {7, 0x7F80, simt_bf16_value}};

/* The value from the meaning of its parts, in double. */
static double plain_value(const struct format *format, uint16_t bits) {
    const unsigned f = format->fraction_bits;
    const int bias = f == 10 ? 15 : 127;
    const int exponent = (bits & 0x7FFF) >> f;
    const double fraction = (double)(bits & ((1U << f) - 1)) / (double)(1U << f);
    const double size =
        exponent == 0 ? ldexp(fraction, 1 - bias) : ldexp(1 + fraction, exponent - bias);
    return (bits & 0x8000) != 0 ? -size : size;
}

static void finite_values_widen_and_round_back(void **state) {
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        for (uint32_t size = 0; size < formats[f].infinity; size++) {
            for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
                const uint16_t bits = (uint16_t)(size | sign);
                const double value = (double)formats[f].value(bits);
                assert_true(value == plain_value(&formats[f], bits));
                assert_int_equal(simt_round(value, formats[f].fraction_bits), bits);
            }
        }
    }
}

static void values_between_round_to_the_nearest_and_middles_to_even(void **state) {
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        const unsigned fraction_bits = formats[f].fraction_bits;
        for (uint16_t bits = 0; bits + 1 < formats[f].infinity; bits++) {
            const double low = plain_value(&formats[f], bits);
            const double high = plain_value(&formats[f], (uint16_t)(bits + 1));
            const double middle = (low + high) / 2;
            const uint16_t even = (uint16_t)((bits + 1) / 2 * 2);
            assert_int_equal(simt_round(middle, fraction_bits), even);
            assert_int_equal(simt_round(nextafter(middle, low), fraction_bits), bits);
            assert_int_equal(simt_round(nextafter(middle, high), fraction_bits), bits + 1);
            assert_int_equal(simt_round(-middle, fraction_bits), even | 0x8000);
        }
    }
}

static void values_out_of_range_become_infinite_or_zero(void **state) {
    (void)state;
    assert_int_equal(simt_f16(65519.99), 0x7BFF);
    assert_int_equal(simt_f16(65520), 0x7C00);
    assert_int_equal(simt_f16(-1e300), 0xFC00);
    assert_int_equal(simt_bf16(1e300), 0x7F80);
    assert_int_equal(simt_f16(INFINITY), 0x7C00);
    assert_int_equal(simt_bf16(-INFINITY), 0xFF80);
    assert_int_equal(simt_f16(1e-300), 0);
    assert_int_equal(simt_f16(-5e-324), 0x8000);
    assert_true(isnan(simt_f16_value(simt_f16(NAN))));
    assert_true(isnan(simt_bf16_value(simt_bf16(NAN))));
    assert_true(isinf(simt_f16_value(0x7C00)) && isinf(simt_bf16_value(0x7F80)));
}

/* (1 + 2^-4)^2 lies in the middle between two bf16; what is added is too small for a double. */
static void fma_rounds_once(void **state) {
    (void)state;
    const double a = 1.0625;
    const uint16_t lower = simt_bf16(1.125);
    assert_int_equal(simt_bf16(simt_fma(a, a, 0)), lower);
    assert_int_equal(simt_bf16(simt_fma(a, a, 0x1p-100)), lower + 1);
    assert_int_equal(simt_bf16(simt_fma(a, a, -0x1p-100)), lower);
    assert_int_equal(simt_bf16(simt_fma(-a, a, -0x1p-100)), 0x8000 | (lower + 1));
    assert_true(isinf(simt_fma(INFINITY, 1, 1)));
    assert_true(isnan(simt_fma(INFINITY, 1, -INFINITY)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finite_values_widen_and_round_back),
        cmocka_unit_test(values_between_round_to_the_nearest_and_middles_to_even),
        cmocka_unit_test(values_out_of_range_become_infinite_or_zero),
        cmocka_unit_test(fma_rounds_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
