#include "simt_wide_problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "matrix_wide.h"
#include "numbers.h"
#include "simt.h"
#include "tensor_map.h"

enum { K = WIDE_K_ALL };

int wide_make(void **state) {
    *state = aligned_alloc(64, (sizeof(struct wide_problem) + 63) / 64 * 64);
    return *state == NULL ? -1 : 0;
}

int wide_discard(void **state) {
    free(*state);
    return 0;
}

static uint16_t round_to(double value, bool is_bf16) {
    return is_bf16 ? simt_bf16(value) : simt_f16(value);
}

static double b_value(uint32_t n, uint32_t k) { return (double)((n * 7 + k * 3) % 31) - 15; }

static void encode(struct wide_problem *p) {
    const uint64_t dimensions[] = {K, p->n};
    const uint64_t strides[] = {sizeof p->b[0]};
    const uint32_t box[] = {64, p->n};
    const uint32_t ones[] = {1, 1};
    assert_int_equal(simt_tensor_map_encode(&p->params.b, 6, 2, p->b, dimensions, strides, box,
                                            ones, 0, 3, 2, 0),
                     0);
}

void wide_fill(struct wide_problem *p, uint32_t n, uint32_t groups, bool is_bf16) {
    memset(p, 0, sizeof *p);
    p->n = n;
    p->groups = groups;
    p->is_bf16 = is_bf16;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < K; k++) {
            p->b[i][k] = round_to(b_value(i, k), is_bf16);
        }
    }
    for (uint32_t g = 0; g < groups; g++) {
        for (uint32_t row = 0; row < 64; row++) {
            for (uint32_t k = 0; k < K; k++) {
                p->left[g][row][k] = (double)((row * 5 + k * 11 + g * 2) % 17) - 8;
            }
            for (uint32_t i = 0; i < n; i++) {
                p->c_before[g][row][i] = (double)row * 100 + i + g;
            }
        }
        for (uint32_t t = 0; t < 128; t++) {
            for (uint32_t k = 0; k < K; k += 16) {
                uint32_t *a = p->a[g][k / 64][k / 16 % 4][t];
                for (uint32_t item = 0; item < 8; item++) {
                    const struct simt_element at = simt_wide_a(t, item);
                    const uint16_t bits = round_to(p->left[g][at.row][k + at.k], is_bf16);
                    a[item / 2] |= (uint32_t)bits << item % 2 * 16;
                }
            }
        }
    }
    encode(p);
    p->params.a = &p->a[0][0][0][0][0];
    p->params.c = p->c;
}

const char *wide_run(struct wide_problem *p, const char *name, void (*entry)(const void *),
                     enum wide_fault planted, uint64_t seed) {
    for (uint32_t g = 0; g < p->groups; g++) {
        for (uint32_t t = 0; t < 128; t++) {
            for (uint32_t item = 0; item < p->n / 2; item++) {
                const struct simt_element at = simt_wide_c(t, item);
                p->c[(g * 128 + t) * p->n / 2 + item] = (float)p->c_before[g][at.row][at.column];
            }
        }
    }
    p->params.fault = planted;
    const struct simt_launch launch = {
        .name = name,
        .entry = entry,
        .argument = &p->params,
        .grid = 1,
        .block = p->groups * 128 + 32,
        .shared_bytes = 2 * p->n * 128 + 64,
        .seed = seed,
    };
    return simt_launch(&launch);
}

/* What lies in (row, column) of b's box, which may begin outside. */
double wide_box_value(const struct wide_problem *p, uint32_t n, uint32_t k) {
    const int64_t row = (int64_t)n + p->params.row;
    const int64_t column = (int64_t)k + p->params.column;
    return row < 0 || row >= p->n || column < 0 || column >= K
               ? 0
               : b_value((uint32_t)row, (uint32_t)column);
}

bool wide_is_right(const struct wide_problem *p) {
    for (uint32_t g = 0; g < p->groups; g++) {
        for (uint32_t t = 0; t < 128; t++) {
            for (uint32_t item = 0; item < p->n / 2; item++) {
                const struct simt_element at = simt_wide_c(t, item);
                double sum = p->c_before[g][at.row][at.column];
                for (uint32_t k = 0; k < K; k++) {
                    sum += p->left[g][at.row][k] * wide_box_value(p, at.column, k);
                }
                if ((double)p->c[(g * 128 + t) * p->n / 2 + item] != sum) {
                    return false;
                }
            }
        }
    }
    return true;
}
