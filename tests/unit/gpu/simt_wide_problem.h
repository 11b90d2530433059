/* Operands for the products of simt_wide_kernels.h, whole numbers that floats add up exactly. */
#ifndef TESTS_UNIT_GPU_SIMT_WIDE_PROBLEM_H
#define TESTS_UNIT_GPU_SIMT_WIDE_PROBLEM_H

#include <stdbool.h>
#include <stdint.h>

#include "simt_wide_kernels.h"

enum { WIDE_K_ALL = WIDE_TILES * WIDE_TILE_K, WIDE_MOST_N = 256, WIDE_MOST_GROUPS = 2 };

struct wide_problem {
    uint32_t n;
    uint32_t groups; /* warpgroups */
    bool is_bf16;
    _Alignas(16) uint16_t b[WIDE_MOST_N][WIDE_K_ALL];
    double left[WIDE_MOST_GROUPS][64][WIDE_K_ALL];
    double c_before[WIDE_MOST_GROUPS][64][WIDE_MOST_N];
    _Alignas(16) uint32_t a[WIDE_MOST_GROUPS][WIDE_TILES][4][128][4];
    float c[WIDE_MOST_GROUPS * 128 * WIDE_MOST_N / 2];
    struct wide_params params;
};

/* As cmocka's setup and teardown; wide_fill comes after. */
int wide_make(void **state);
int wide_discard(void **state);

void wide_fill(struct wide_problem *p, uint32_t n, uint32_t groups, bool is_bf16);

/* One of the products, with a fault planted in it. */
const char *wide_run(struct wide_problem *p, const char *name, void (*entry)(const void *),
                     enum wide_fault planted, uint64_t seed);
#define WIDE_RUN(problem, entry, fault, seed) wide_run(problem, #entry, entry, fault, seed)

/* Against a plain matrix product. */
bool wide_is_right(const struct wide_problem *p);

/* What lies in row n and column k of b's box, which may begin outside. */
double wide_box_value(const struct wide_problem *p, uint32_t n, uint32_t k);

#endif
