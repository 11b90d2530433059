/*
 * Bulk and tensor copies and wgmma on the SIMT layer: the maps against the manual's formulas,
 * written out here once more; right kernels against a plain matrix product; and each wrong one is
 * found.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simt_faults.h"

#include "matrix_wide.h"
#include "numbers.h"
#include "simt.h"
#include "simt_wide_problem.h"
#include "tensor_map.h"

enum { K = WIDE_K_ALL };

/* ---- maps ---------------------------------------------------------------------------------- */

/* PTX, of thread `t` of a warpgroup: A as for mma.m16n8k16 in rows 16 (t / 32) on. */
static void a_and_c_lie_as_the_manual_says(void **state) {
    (void)state;
    for (unsigned t = 0; t < 128; t++) {
        const unsigned warp = t / 32;
        const unsigned group = t % 32 >> 2;
        const unsigned in_group = t % 32 % 4;
        for (unsigned i = 0; i < 8; i++) {
            const unsigned row = warp * 16 + (i < 2 || (i >= 4 && i < 6) ? group : group + 8);
            const unsigned k = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
            assert_int_equal(simt_wide_a(t, i).row, row);
            assert_int_equal(simt_wide_a(t, i).k, k);
        }
        for (unsigned i = 0; i < 128; i++) {
            const unsigned row = warp * 16 + group + (i % 4 < 2 ? 0 : 8);
            assert_int_equal(simt_wide_c(t, i).row, row);
            assert_int_equal(simt_wide_c(t, i).column, i / 4 * 8 + in_group * 2 + i % 2);
        }
    }
}

/* target.h: row r, chunk c of 16 bytes goes to r * 128 + (c ^ r % 8) * 16. */
static void b_lies_as_tensor_copies_put_it(void **state) {
    (void)state;
    uint8_t is_taken[256 * 128] = {0};
    for (unsigned n = 0; n < 256; n++) {
        for (unsigned k = 0; k < 64; k++) {
            const unsigned at = simt_wide_b(n, k);
            assert_int_equal(at, n * 128 + ((k / 8) ^ n % 8) * 16 + k % 8 * 2);
            assert_int_equal(is_taken[at], 0);
            is_taken[at] = 1;
        }
    }
}

/* ---- products ------------------------------------------------------------------------------ */

static void products_are_those_of_plain_matrices(void **state) {
    struct wide_problem *p = *state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        wide_fill(p, 8, 1, false);
        assert_no_fault(WIDE_RUN(p, product_8_f16, WIDE_RIGHT, seed));
        assert_true(wide_is_right(p));
        wide_fill(p, 64, 2, false);
        assert_no_fault(WIDE_RUN(p, product_64_f16, WIDE_RIGHT, seed));
        assert_true(wide_is_right(p));
        wide_fill(p, 64, 2, true);
        assert_no_fault(WIDE_RUN(p, product_64_bf16, WIDE_RIGHT, seed));
        assert_true(wide_is_right(p));
    }
    wide_fill(p, 64, 2, false);
    for (uint64_t seed = 0; seed < 2 * SIMT_SEEDS; seed++) {
        assert_no_fault(WIDE_RUN(p, pipelined_64_f16, WIDE_RIGHT, seed));
        assert_true(wide_is_right(p));
    }
    wide_fill(p, 256, 2, true);
    assert_no_fault(WIDE_RUN(p, product_256_bf16, WIDE_RIGHT, 1));
    assert_true(wide_is_right(p));
}

static void what_lies_outside_of_a_tensor_counts_as_zero(void **state) {
    struct wide_problem *p = *state;
    static const int32_t begins[][2] = {{-3, 0}, {0, -5}, {11, 9}, {-400, 0}, {0, 64}, {-8, -63}};
    wide_fill(p, 64, 1, false);
    for (uint32_t i = 0; i < sizeof begins / sizeof begins[0]; i++) {
        p->params.column = begins[i][0];
        p->params.row = begins[i][1];
        assert_no_fault(WIDE_RUN(p, product_64_f16, WIDE_RIGHT, i));
        assert_true(wide_is_right(p));
    }
}

/* ---- faults -------------------------------------------------------------------------------- */

static void wrong_products_are_reported(void **state) {
    struct wide_problem *p = *state;
    static const struct {
        enum wide_fault planted;
        const char *says;
    } faults[] = {
        {WIDE_WRONG_PARITY, NULL},
        {WIDE_NO_EXPECT, "byte"},
        {WIDE_FEW_BYTES, "byte"},
        {WIDE_MANY_BYTES, "lacks 0 of 1 arrivals and 16 bytes in phase 0"},
        {WIDE_NO_FENCE, "its batch began without a gpu_wgmma_fence"},
        {WIDE_NO_COMMIT, NULL},
        {WIDE_NO_WAIT, NULL},
        {WIDE_C_WRITTEN, "the accumulators of thread 9 were touched before this wait"},
        {WIDE_A_WRITTEN, "a of thread 9 was touched before this wait"},
        {WIDE_OTHER_C, NULL},
        {WIDE_OTHER_BOX, NULL},
        {WIDE_MISSING_LANES, NULL},
        {WIDE_FROM_SECOND_WAVE, "of its warpgroup"},
        {WIDE_BOX_MISPLACED, "is not a multiple of 512 bytes"},
        {WIDE_NOT_A_MAP, "the tensor map was not made by the driver"},
        {WIDE_EARLY_END, "deadlock"},
        {WIDE_GIVE_BY_HALF, "warpgroup"},
    };
    wide_fill(p, 64, 1, false);
    for (uint32_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
            const char *fault = WIDE_RUN(p, product_64_f16, faults[i].planted, seed);
            if (fault == NULL && wide_is_right(p)) {
                fail_msg("fault %d is not found at seed %u", (int)faults[i].planted,
                         (unsigned)seed);
            }
            if (faults[i].says != NULL) {
                assert_says(fault, faults[i].says);
            }
        }
    }
}

static void registers_that_are_not_there_are_reported(void **state) {
    struct wide_problem *p = *state;
    wide_fill(p, 64, 2, false);
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_says(WIDE_RUN(p, product_64_f16, WIDE_TAKE_ALL, seed), " registers of 65536");
    }
}

/* Wrong at the seeds that let things happen late. */
static void missing_order_gives_wrong_numbers(void **state) {
    struct wide_problem *p = *state;
    static const enum wide_fault faults[] = {WIDE_NO_FULL_WAIT, WIDE_NO_FREE_WAIT,
                                             WIDE_FREE_BEFORE_WAIT};
    wide_fill(p, 64, 1, false);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t found = 0;
        for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
            found += WIDE_RUN(p, product_64_f16, faults[i], seed) != NULL || !wide_is_right(p);
        }
        assert_in_range(found, SIMT_SEEDS / 2, SIMT_SEEDS);
    }
    uint32_t found = 0;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_no_fault(WIDE_RUN(p, product_64_f16, WIDE_C_READ, seed));
        assert_true(isnan(p->c[160 * 64 / 2]));
        assert_no_fault(WIDE_RUN(p, pipelined_64_f16, WIDE_READ_TOO_NEW, seed));
        assert_true(isnan(p->c[160 * 64 / 2]));
        found +=
            WIDE_RUN(p, pipelined_64_f16, WIDE_FREE_TOO_NEW, seed) != NULL || !wide_is_right(p);
        assert_says(WIDE_RUN(p, pipelined_64_f16, WIDE_OVERLAPPING_C, seed),
                    "its accumulators overlap those of another gpu_wgmma under way");
    }
    assert_in_range(found, SIMT_SEEDS / 2, SIMT_SEEDS);
}

/* ---- copies -------------------------------------------------------------------------------- */

static const char *copy(const struct bulk_params *params, uint64_t seed) {
    const struct simt_launch launch = {
        .name = "copy_in_bulk",
        .entry = copy_in_bulk,
        .argument = params,
        .grid = 1,
        .block = 64,
        .shared_bytes = 1024 + 16,
        .seed = seed,
    };
    return simt_launch(&launch);
}

static void bulk_copies_bring_what_they_are_told(void **state) {
    (void)state;
    static _Alignas(16) unsigned char from[2048];
    static unsigned char to[2048];
    for (uint32_t i = 0; i < sizeof from; i++) {
        from[i] = (unsigned char)(i * 7);
    }
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        const struct bulk_params right = {from, to, 64, 16, 1024, 16, false, false, false};
        memset(to, 0, sizeof to);
        assert_no_fault(copy(&right, seed));
        assert_memory_equal(to, from, 1024);
        struct bulk_params wrong = right;
        wrong.at = 24;
        assert_says(copy(&wrong, seed), "is not a multiple of 16 bytes");
        wrong = right;
        wrong.from += 8;
        assert_says(copy(&wrong, seed), "is not a multiple of 16 bytes");
        wrong = right;
        wrong.bytes = 24;
        assert_says(copy(&wrong, seed), "24 bytes are not a multiple of 16");
        wrong = right;
        wrong.at = 32;
        assert_says(copy(&wrong, seed), "of 1040 of shared memory");
        wrong = right;
        wrong.expected = 1024 + 32;
        assert_says(copy(&wrong, seed), "lacks 0 of 1 arrivals and 32 bytes in phase 0");
        wrong = right;
        wrong.expected = 1024 - 16;
        assert_non_null(copy(&wrong, seed));
        wrong.expected = 1 << 20;
        assert_says(copy(&wrong, seed), "expects more than ");
    }
}

static void boxes_are_swizzled(void **state) {
    struct wide_problem *p = *state;
    static const int32_t begins[][2] = {{0, 0}, {3, 0}, {-13, -9}, {K - 5, 60}};
    wide_fill(p, 64, 1, false);
    const struct simt_launch launch = {.name = "copy_box",
                                       .entry = copy_box,
                                       .argument = &p->params,
                                       .grid = 1,
                                       .block = 32,
                                       .shared_bytes = 8192 + 8};
    for (uint32_t i = 0; i < sizeof begins / sizeof begins[0]; i++) {
        p->params.column = begins[i][0];
        p->params.row = begins[i][1];
        assert_no_fault(simt_launch(&launch));
        for (uint32_t r = 0; r < 64; r++) {
            for (uint32_t k = 0; k < 64; k++) {
                uint16_t bits;
                memcpy(&bits, (const char *)p->c + r * 128 + (((k / 8) ^ r % 8) * 16 + k % 8 * 2),
                       2);
                assert_int_equal(bits, simt_f16(wide_box_value(p, r, k)));
            }
        }
    }
}

static void maps_that_the_driver_does_not_make_are_refused(void **state) {
    struct wide_problem *p = *state;
    wide_fill(p, 64, 1, false);
    const uint64_t dims[] = {K, 64};
    const uint64_t strides[] = {K * 2};
    const uint32_t box[] = {64, 64};
    const uint32_t ones[] = {1, 1};
    void *map = &p->params.b;
    int (*make_map)(void *, int, uint32_t, void *, const uint64_t *, const uint64_t *,
                    const uint32_t *, const uint32_t *, int, int, int, int) =
        simt_tensor_map_encode;
    assert_int_equal(make_map(map, 9, 2, p->b, dims, strides, box, ones, 0, 3, 3, 0), 0);
    assert_int_equal(make_map((char *)map + 8, 9, 2, p->b, dims, strides, box, ones, 0, 3, 3, 0),
                     1);
    assert_int_equal(make_map(map, 13, 2, p->b, dims, strides, box, ones, 0, 3, 3, 0), 1);
    assert_int_equal(make_map(map, 9, 3, p->b, dims, strides, box, ones, 0, 3, 3, 0), 1);
    assert_int_equal(make_map(map, 9, 2, &p->b[0][1], dims, strides, box, ones, 0, 3, 3, 0), 1);
    assert_int_equal(make_map(map, 9, 2, p->b, dims, strides, box, ones, 0, 2, 3, 0), 1);
    assert_int_equal(make_map(map, 9, 2, p->b, dims, strides, box, ones, 0, 4, 3, 0), 1);
    const uint64_t no_rows[] = {K, 0};
    assert_int_equal(make_map(map, 9, 2, p->b, no_rows, strides, box, ones, 0, 3, 3, 0), 1);
    const uint64_t odd_stride[] = {K * 2 + 8};
    assert_int_equal(make_map(map, 9, 2, p->b, dims, odd_stride, box, ones, 0, 3, 3, 0), 1);
    const uint32_t tall[] = {64, 257};
    assert_int_equal(make_map(map, 9, 2, p->b, dims, strides, tall, ones, 0, 3, 3, 0), 1);
    const uint32_t broad[] = {72, 64};
    assert_int_equal(make_map(map, 9, 2, p->b, dims, strides, broad, ones, 0, 3, 3, 0), 1);
    const uint32_t thin[] = {60, 64};
    assert_int_equal(make_map(map, 9, 2, p->b, dims, strides, thin, ones, 0, 3, 3, 0), 1);
    const uint32_t twos[] = {1, 2};
    assert_int_equal(make_map(map, 9, 2, p->b, dims, strides, box, twos, 0, 3, 3, 0), 1);
    assert_int_equal(make_map(map, 9, 2, p->b, dims, strides, box, ones, 1, 3, 3, 0), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, wide_make, wide_discard)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_and_c_lie_as_the_manual_says),
        cmocka_unit_test(b_lies_as_tensor_copies_put_it),
        TEST(products_are_those_of_plain_matrices),
        TEST(what_lies_outside_of_a_tensor_counts_as_zero),
        TEST(wrong_products_are_reported),
        TEST(registers_that_are_not_there_are_reported),
        TEST(missing_order_gives_wrong_numbers),
        cmocka_unit_test(bulk_copies_bring_what_they_are_told),
        TEST(boxes_are_swizzled),
        TEST(maps_that_the_driver_does_not_make_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
