/*
 * A linear layer made from a seed: what a kernel is given, and the numbers behind it, decoded
 * here by code that shares nothing with a plugin.
 */
#ifndef KERNELRY_TEST_PROBLEM_H
#define KERNELRY_TEST_PROBLEM_H

#include "guarded.h"

#include <kernelry/plugin.h>

/* What is asked of a problem. Zero means: dense rows, everything aligned, no bias. */
struct problem_options {
    kry_linear linear;     /* complete */
    uint64_t cpu_features; /* of the device */
    int64_t m;
    int64_t x_gap; /* elements between a row's end and the next row */
    int64_t y_gap;
    bool bias;
    bool misaligned; /* x, y and bias start at odd multiples of 2 bytes */
    uint64_t seed;
};

struct problem {
    struct problem_options is;
    int64_t groups;
    /* As the kernel sees it; dense where prepare's strides do not say otherwise. */
    struct guarded qweight, scales, zero_points, g_idx, x, y, bias;
    struct guarded prepared, prepare_scratch, bound, scratch;
    int64_t qweight_stride, scale_stride, zero_stride;
    /* The same, decoded. */
    int64_t *group_of; /* [K] */
    uint8_t *codes;    /* [N, K] */
    double *w;         /* [N, K] */
    double *w_zero;    /* [N, K]: the zero point's share, times the scale */
    double *x_values;  /* [m, K] */
    double *bias_values;
    kry_workspace workspace;
};

/* A description of K x N with everything else at its plainest: u4b8, f32, one group. */
kry_linear linear_of(int64_t in_features, int64_t out_features);
/* Put a partition of K columns at k_offset of a longer layer. */
void cut_out(kry_linear *linear, int64_t k_offset, int64_t behind);
/* Take the types, the group size and act-order off a mixed-radix count. */
void mix(kry_linear *linear, const int64_t *group_sizes, uint32_t count, uint32_t *rest);

uint64_t random_next(uint64_t *state);
int64_t random_below(uint64_t *state, int64_t limit);

/* Elements as numbers; bits of f32 fill the u32. */
double element_value(uint32_t type, uint32_t bits);
uint32_t element_bits(uint32_t type, const void *array, int64_t i);
double element_at(uint32_t type, const void *array, int64_t i);
/* Bits of the element type for a number that it holds exactly. */
uint32_t element_exactly(uint32_t type, double value);
void element_set(uint32_t type, void *array, int64_t i, uint32_t bits);
/* The distance between neighbours of the type around a number in its range. */
double element_spacing(uint32_t type, double value);

/* Draw gaps between rows and whether operands are misaligned. */
void draw_operands(struct problem_options *options, uint64_t *draw);

void problem_create(struct problem *problem, const kry_linear_kernel *kernel,
                    const struct problem_options *options);
void problem_destroy(struct problem *problem);

/* Change a number, on both sides. */
void problem_set_x(struct problem *problem, int64_t row, int64_t k, double value);
void problem_set_weight(struct problem *problem, int64_t n, int64_t k, uint8_t code);
void problem_set_scale(struct problem *problem, int64_t n, int64_t group, double value);

kry_status problem_prepare(const struct problem *problem, const kry_linear_kernel *kernel,
                           int64_t n_begin, int64_t n_end);
/* Apply to `rows` rows from row on, on the host's threads. */
kry_status problem_apply(const struct problem *problem, const kry_linear_kernel *kernel,
                         const kry_host *host, int64_t row, int64_t rows);

/* Prepare, poison y, apply. */
void problem_run(const struct problem *problem, const kry_linear_kernel *kernel);
/* Assert that y is x_values * w^T + bias_values, rounded once, that what lies between its rows
   is untouched, and that nothing was written past a buffer. */
void problem_check(const struct problem *problem);
/* The exact y[row][n], and the sum of the magnitudes of what a kernel adds up for it: products of
 * codes and of zero points, and bias. */
double problem_expect(const struct problem *problem, int64_t row, int64_t n, double *magnitude);
/* Assert that nothing was written between rows of y or past a buffer. */
void problem_check_bounds(const struct problem *problem);
/* Say which problem it is, after a failure. */
void problem_print(const struct problem *problem);

#endif
