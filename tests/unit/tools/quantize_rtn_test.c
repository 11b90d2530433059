/* Round-to-nearest: known rows, and the half step that no weight may leave. */
#include "rtn.h"

#include "floats.h"
#include "random.h"

#include <kernelry/types.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

enum { COLUMNS_MAX = 300 };

/* Read a code back: field k of a row, lowest bits first. */
static int code_at(const uint32_t *packed, int64_t k, int bits) {
    int per_word = 32 / bits;
    return (int)(packed[k / per_word] >> (k % per_word * bits)) & ((1 << bits) - 1);
}

static void rtn_symmetric_row_gets_the_codes_worked_out_by_hand(void **state) {
    (void)state;
    /* max |w| is 7.5, so s is 1. Ties go to the even code. */
    static const float row[9] = {-7.5f, 7.5f, 0, 1, -1, 2.5f, 3.5f, 0.4f, -0.6f};
    static const int codes[9] = {0, 15, 8, 9, 7, 10, 12, 8, 7};
    struct rtn_scheme scheme = {4, -1, false, KRY_TYPE_F16};
    uint32_t packed[2] = {~0u, ~0u};
    uint16_t scale;
    struct rtn_error error = {0};
    rtn_quantize_row(&scheme, row, 9, packed, &scale, NULL, &error);
    assert_true(f16_decode(scale) == 1);
    for (int k = 0; k < 9; k++)
        assert_int_equal(code_at(packed, k, 4), codes[k]);
    assert_int_equal(packed[1] >> 4, 0); /* unused fields */
    /* -8 and 7 for the ends, 2 for 2.5, 4 for 3.5, 0 for 0.4 and -1 for -0.6 */
    assert_true(fabs(error.difference - (4 * 0.25 + 2 * 0.16)) < 1e-6);
    assert_true(fabs(error.weight - (2 * 56.25 + 2 + 6.25 + 12.25 + 0.16 + 0.36)) < 1e-5);
}

static void rtn_asymmetric_row_gets_the_codes_worked_out_by_hand(void **state) {
    (void)state;
    /* Two groups of 4: from -5 to 10, s 1, z 5; then from 0 to 30, s 2, z 0. */
    static const float row[7] = {-5, 10, 0, 3, 2, 30, 11};
    static const int codes[7] = {0, 15, 5, 8, 1, 15, 6};
    struct rtn_scheme scheme = {4, 4, true, KRY_TYPE_BF16};
    uint32_t packed[1];
    uint16_t scales[2];
    uint8_t zero_points[2];
    struct rtn_error error = {0};
    assert_int_equal(rtn_groups(&scheme, 7), 2);
    assert_int_equal(rtn_words(&scheme, 7), 1);
    rtn_quantize_row(&scheme, row, 7, packed, scales, zero_points, &error);
    assert_true(bf16_decode(scales[0]) == 1 && bf16_decode(scales[1]) == 2);
    assert_int_equal(zero_points[0], 5);
    assert_int_equal(zero_points[1], 0);
    for (int k = 0; k < 7; k++)
        assert_int_equal(code_at(packed, k, 4), codes[k]);
}

static void rtn_group_of_zeros_stays_zero_with_scale_1(void **state) {
    (void)state;
    static const float row[8] = {0};
    for (int asymmetric = 0; asymmetric < 2; asymmetric++) {
        struct rtn_scheme scheme = {8, 4, asymmetric, KRY_TYPE_F16};
        uint32_t packed[2];
        uint16_t scales[2];
        uint8_t zero_points[2] = {128, 128};
        struct rtn_error error = {0};
        rtn_quantize_row(&scheme, row, 8, packed, scales, zero_points, &error);
        assert_true(f16_decode(scales[1]) == 1);
        assert_int_equal(code_at(packed, 7, 8), zero_points[1]);
        assert_true(rtn_relative(&error) == 0);
    }
}

/* Weights of all sizes: normal ones, outliers, groups far from 0, and hardly any. */
static void draw(struct random *random, float *row, int64_t columns) {
    float offset = random_below(random, 3) == 0 ? 2 : 0;
    float size = ldexpf(1, (int)random_below(random, 20) - 12);
    for (int64_t k = 0; k < columns; k++) {
        row[k] = size * (random_normal(random) + offset);
        if (random_below(random, 40) == 0)
            row[k] *= 30;
    }
}

static void rtn_keeps_every_weight_within_half_a_step(void **state) {
    (void)state;
    struct random random = random_seeded(2112, 0);
    static const int64_t sizes[] = {-1, 1, 16, 32, 33, 128};
    for (int round = 0; round < 600; round++) {
        struct rtn_scheme scheme = {.bits = round % 2 ? 4 : 8,
                                    .group_size = sizes[round % 6],
                                    .asymmetric = round / 2 % 2,
                                    .scale_type = round / 4 % 2 ? KRY_TYPE_F16 : KRY_TYPE_BF16};
        int64_t columns = 1 + (int64_t)random_below(&random, COLUMNS_MAX);
        float row[COLUMNS_MAX];
        uint32_t packed[COLUMNS_MAX];
        uint16_t scales[COLUMNS_MAX];
        uint8_t zero_points[COLUMNS_MAX];
        struct rtn_error error = {0};
        draw(&random, row, columns);
        rtn_quantize_row(&scheme, row, columns, packed, scales, zero_points, &error);
        double difference = 0;
        for (int64_t k = 0; k < columns; k++) {
            int64_t g = scheme.group_size < 0 ? 0 : k / scheme.group_size;
            double scale = float_load(scales, g, scheme.scale_type);
            int zero = scheme.asymmetric ? zero_points[g] : 1 << (scheme.bits - 1);
            double weight = (code_at(packed, k, scheme.bits) - zero) * scale;
            assert_true(fabs(weight - (double)row[k]) <= scale / 2 * (1 + 1e-12));
            difference += (weight - (double)row[k]) * (weight - (double)row[k]);
        }
        assert_true(fabs(difference - error.difference) <= 1e-9 * difference);
    }
}

static void rtn_scale_below_the_types_least_becomes_the_least(void **state) {
    (void)state;
    /* 2^-24 is the least f16: a scale of 2^-24 / 7.5 must not become 0. */
    static const float row[2] = {0x1p-24f, 0};
    struct rtn_scheme scheme = {4, -1, false, KRY_TYPE_F16};
    uint32_t packed[1];
    uint16_t scale;
    struct rtn_error error = {0};
    rtn_quantize_row(&scheme, row, 2, packed, &scale, NULL, &error);
    assert_int_equal(scale, 1);
    assert_int_equal(code_at(packed, 0, 4), 9);
    assert_true(error.difference == 0);
}

static void rtn_find_not_finite_tells_the_first(void **state) {
    (void)state;
    float row[4] = {1, 2, INFINITY, NAN};
    assert_int_equal(rtn_find_not_finite(row, 4), 2);
    assert_int_equal(rtn_find_not_finite(row + 3, 1), 0);
    assert_int_equal(rtn_find_not_finite(row, 2), -1);
}

static void rtn_pack_zero_points_packs_along_the_rows(void **state) {
    (void)state;
    /* 10 rows of 2 groups, z = row + 5 * group */
    uint8_t zero_points[20];
    for (int n = 0; n < 10; n++)
        for (int g = 0; g < 2; g++)
            zero_points[n * 2 + g] = (uint8_t)(n % 8 + 5 * g);
    uint32_t words[4];
    rtn_pack_zero_points(zero_points, 10, 2, 4, words);
    assert_int_equal(words[0], 0x76543210);
    assert_int_equal(words[1], 0xcba98765);
    assert_int_equal(words[2], 0x00000010);
    assert_int_equal(words[3], 0x00000065);
    uint32_t wide[6];
    rtn_pack_zero_points(zero_points, 10, 2, 8, wide);
    assert_int_equal(wide[0], 0x03020100);
    assert_int_equal(wide[4], 0x00000100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rtn_symmetric_row_gets_the_codes_worked_out_by_hand),
        cmocka_unit_test(rtn_asymmetric_row_gets_the_codes_worked_out_by_hand),
        cmocka_unit_test(rtn_group_of_zeros_stays_zero_with_scale_1),
        cmocka_unit_test(rtn_keeps_every_weight_within_half_a_step),
        cmocka_unit_test(rtn_scale_below_the_types_least_becomes_the_least),
        cmocka_unit_test(rtn_find_not_finite_tells_the_first),
        cmocka_unit_test(rtn_pack_zero_points_packs_along_the_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
