/*
 * Matrix instructions of the SIMT layer against the manuals' formulas, written out here once more
 * and apart from the tables, and against a plain matrix product of values that all differ.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "matrix.h"
#include "numbers.h"
#include "simt.h"
#include "words.h"

enum operand { A, B, D };

struct at {
    unsigned row;    /* of B: k */
    unsigned column; /* of A: k */
};

/* PTX: groupID = lane / 4, threadID_in_group = lane % 4. */
static struct at nvidia(enum operand operand, unsigned lane, unsigned i, int k16) {
    const unsigned group = lane >> 2;
    const unsigned pair = lane % 4 * 2 + (i & 1);
    const int is_upper = operand == A && k16 ? i < 2 || (4 <= i && i < 6) : i < 2;
    const struct at a = {is_upper ? group : group + 8, pair + (k16 && i >= 4 ? 8 : 0)};
    const struct at b = {pair + (i < 2 ? 0 : 8), group};
    const struct at c = {is_upper ? group : group + 8, pair};
    return operand == A ? a : operand == B ? b : c;
}

static struct at m16n8k16(enum operand operand, unsigned lane, unsigned i) {
    return nvidia(operand, lane, i, 1);
}

static struct at m16n8k8(enum operand operand, unsigned lane, unsigned i) {
    return nvidia(operand, lane, i, 0);
}

/* CDNA: A[i,k] in item k % 4 of lane i + 16 (k / 4); D[i,j] in item i % 4 of lane
 * j + 16 (i / 4). */
static struct at cdna(enum operand operand, unsigned lane, unsigned item) {
    const struct at a = {lane % 16, lane / 16 * 4 + item};
    const struct at flipped = {a.column, a.row};
    return operand == A ? a : flipped;
}

/* RDNA3: element i of a lane is k = i of row (A) or column (B) lane % 16; D: row
 * 2 i + lane / 16. */
static struct at rdna3(enum operand operand, unsigned lane, unsigned i) {
    const struct at a = {lane % 16, i};
    const struct at b = {i, lane % 16};
    const struct at d = {2 * i + lane / 16, lane % 16};
    return operand == A ? a : operand == B ? b : d;
}

/* RDNA4: D[row][column] in VGPR row % 8 of lane row / 8 * 16 + column; of A and B, VGPR v of the
 * lower lanes holds k = 0 1, 2 3, 8 9, 10 11 and of the upper ones those four further on. */
static struct at rdna4(enum operand operand, unsigned lane, unsigned i) {
    static const unsigned ks[8] = {0, 1, 2, 3, 8, 9, 10, 11};
    const unsigned k = ks[i] + lane / 16 * 4;
    const struct at a = {lane % 16, k};
    const struct at b = {k, lane % 16};
    const struct at d = {lane / 16 * 8 + i, lane % 16};
    return operand == A ? a : operand == B ? b : d;
}

static struct at (*const manuals[SIMT_INSTRUCTIONS])(enum operand, unsigned, unsigned) = {
    [SIMT_MMA_M16N8K16] = m16n8k16, [SIMT_MMA_M16N8K8] = m16n8k8, [SIMT_MFMA_16X16X16] = cdna,
    [SIMT_WMMA_RDNA3] = rdna3,      [SIMT_WMMA_RDNA4] = rdna4,
};

static void maps_are_the_manuals(void **state) {
    (void)state;
    for (int i = 0; i < SIMT_INSTRUCTIONS; i++) {
        const struct simt_matrix *matrix = simt_matrix_of((enum simt_instruction)i);
        for (unsigned lane = 0; lane < matrix->wave; lane++) {
            for (unsigned item = 0; item < matrix->a.items; item++) {
                const struct at at = manuals[i](A, lane, item);
                assert_int_equal(matrix->a.at[lane][item].row, at.row);
                assert_int_equal(matrix->a.at[lane][item].k, at.column);
            }
            for (unsigned item = 0; item < matrix->b.items; item++) {
                const struct at at = manuals[i](B, lane, item);
                assert_int_equal(matrix->b.at[lane][item].k, at.row);
                assert_int_equal(matrix->b.at[lane][item].column, at.column);
            }
            for (unsigned item = 0; item < matrix->c.items; item++) {
                const struct at at = manuals[i](D, lane, item);
                assert_int_equal(matrix->c.at[lane][item].row, at.row);
                assert_int_equal(matrix->c.at[lane][item].column, at.column);
            }
        }
    }
}

/* So many items a lane, from the shape alone. */
static void every_element_lies_in_a_lane(void **state) {
    (void)state;
    for (int i = 0; i < SIMT_INSTRUCTIONS; i++) {
        const struct simt_matrix *matrix = simt_matrix_of((enum simt_instruction)i);
        const unsigned copies = i == SIMT_WMMA_RDNA3 ? 2 : 1;
        assert_int_equal(matrix->a.items * matrix->wave, matrix->m * matrix->k * copies);
        assert_int_equal(matrix->b.items * matrix->wave, matrix->n * matrix->k * copies);
        assert_int_equal(matrix->c.items * matrix->wave, matrix->m * matrix->n);
    }
}

/* Whole numbers of 8 bits, which both formats hold exactly: all differ but for their signs. */
static double a_value(unsigned row, unsigned k) {
    return (double)(row * 16 + k + 1) * ((row + k) % 3 == 0 ? -1 : 1);
}

static double b_value(unsigned k, unsigned column) {
    return (double)(255 - (k * 16 + column)) * ((k + column * 2) % 5 == 0 ? -1 : 1);
}

static double c_value(unsigned row, unsigned column) { return (double)row * 64 + column + 0.5; }

struct registers {
    uint32_t a[SIMT_LANES][SIMT_ITEMS / 2];
    uint32_t b[SIMT_LANES][SIMT_ITEMS / 2];
    float c[SIMT_LANES][SIMT_ITEMS];
};

static void put(uint32_t *registers, unsigned item, double value, bool is_bf16) {
    const uint32_t bits = is_bf16 ? simt_bf16(value) : simt_f16(value);
    registers[item / 2] |= bits << item % 2 * 16;
}

static void load(struct registers *r, int instruction, bool is_bf16) {
    const struct simt_matrix *matrix = simt_matrix_of((enum simt_instruction)instruction);
    memset(r, 0, sizeof *r);
    for (unsigned lane = 0; lane < matrix->wave; lane++) {
        for (unsigned item = 0; item < matrix->a.items; item++) {
            const struct at at = manuals[instruction](A, lane, item);
            put(r->a[lane], item, a_value(at.row, at.column), is_bf16);
        }
        for (unsigned item = 0; item < matrix->b.items; item++) {
            const struct at at = manuals[instruction](B, lane, item);
            put(r->b[lane], item, b_value(at.row, at.column), is_bf16);
        }
        for (unsigned item = 0; item < matrix->c.items; item++) {
            const struct at at = manuals[instruction](D, lane, item);
            r->c[lane][item] = (float)c_value(at.row, at.column);
        }
    }
}

/* On fibers, as kernels do it. */
struct step_params {
    struct registers *registers;
    enum simt_instruction instruction;
    bool is_bf16;
};

static void step(const void *argument) {
    const struct step_params *p = argument;
    const uint32_t lane = simt_thread();
    simt_matrix_step((struct simt_place){"step", __FILE__, __LINE__}, p->instruction, p->is_bf16,
                     p->registers->a[lane], p->registers->b[lane], p->registers->c[lane]);
}

static const char *launch_step(struct registers *registers, int instruction, bool is_bf16) {
    const struct step_params params = {registers, (enum simt_instruction)instruction, is_bf16};
    const uint32_t wave = simt_matrix_of(params.instruction)->wave;
    const struct simt_launch launch = {
        .name = "step", .entry = step, .argument = &params, .grid = 1, .block = wave, .wave = wave};
    return simt_launch(&launch);
}

static void products_are_those_of_plain_matrices(void **state) {
    (void)state;
    for (int i = 0; i < SIMT_INSTRUCTIONS; i++) {
        const struct simt_matrix *matrix = simt_matrix_of((enum simt_instruction)i);
        for (int is_bf16 = 0; is_bf16 < 2; is_bf16++) {
            static struct registers r;
            load(&r, i, is_bf16 != 0);
            const char *fault = launch_step(&r, i, is_bf16 != 0);
            if (fault != NULL) {
                fail_msg("%s", fault);
            }
            for (unsigned lane = 0; lane < matrix->wave; lane++) {
                for (unsigned item = 0; item < matrix->c.items; item++) {
                    const struct at at = manuals[i](D, lane, item);
                    double sum = c_value(at.row, at.column);
                    for (unsigned k = 0; k < matrix->k; k++) {
                        sum += a_value(at.row, k) * b_value(k, at.column);
                    }
                    if ((double)r.c[lane][item] != sum) {
                        fail_msg("%s: lane %u item %u is %g, expected %g", matrix->name, lane, item,
                                 (double)r.c[lane][item], sum);
                    }
                }
            }
        }
    }
}

static void copies_that_differ_are_reported(void **state) {
    (void)state;
    static struct registers r;
    load(&r, SIMT_WMMA_RDNA3, false);
    r.b[17][3] ^= 1;
    const char *fault = launch_step(&r, SIMT_WMMA_RDNA3, false);
    assert_non_null(fault);
    assert_non_null(strstr(fault, "lane 17 does not hold what another lane holds"));
}

static void wave_of_another_size_is_reported(void **state) {
    (void)state;
    static struct registers r;
    const struct step_params params = {&r, SIMT_MFMA_16X16X16, false};
    const struct simt_launch launch = {
        .name = "step", .entry = step, .argument = &params, .grid = 1, .block = 64, .wave = 32};
    const char *fault = simt_launch(&launch);
    assert_non_null(fault);
    assert_non_null(strstr(fault, "needs 64 lanes"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_are_the_manuals),
        cmocka_unit_test(every_element_lies_in_a_lane),
        cmocka_unit_test(products_are_those_of_plain_matrices),
        cmocka_unit_test(copies_that_differ_are_reported),
        cmocka_unit_test(wave_of_another_size_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
