/* A layer with random weights, and what its product must be, in double. */
#ifndef TESTS_UNIT_GPU_KERNELS_PROBLEM_H
#define TESTS_UNIT_GPU_KERNELS_PROBLEM_H

#include <kernelry/types.h>
#include <stdint.h>

/* A random number below `bound`, of a sequence that is the same in every run. */
uint32_t problem_random(uint32_t bound);

struct problem {
    kry_linear linear;
    int64_t groups;
    /* canonical, dense */
    uint32_t *qweight;
    uint16_t *scales;
    uint8_t *zero_points; /* NULL for types without */
    int32_t *g_idx;       /* NULL without act-order */
    int64_t words;        /* of a row of qweight */
    double *weights;      /* [n][k], dequantized */
};

/* Fill a description of linear's shape and types: full features, struct_size. */
void problem_complete(kry_linear *linear);

/* Random weights for a complete description. Fails the test without memory. */
void problem_make(struct problem *problem, const kry_linear *linear);
void problem_discard(struct problem *problem);

/* The value of 16 bits of a type, and the nearest bits. */
double problem_value(uint32_t type, uint16_t bits);
uint16_t problem_bits(uint32_t type, double value);

/* One call: x, bias and y, with room for nothing but what the strides skip. */
struct call {
    int64_t m;
    int64_t x_stride;
    int64_t y_stride;
    void *x_memory;
    uint16_t *x; /* NaN between the rows */
    void *bias;  /* of y's type, or NULL */
    unsigned char *y_memory;
    unsigned char *y; /* poisoned */
    uint64_t y_bytes; /* from y_memory */
};

/* x begins `x_shift` elements behind a multiple of 16 bytes, y as much. */
void call_make(struct call *call, const struct problem *problem, int64_t m, int64_t x_stride,
               int64_t y_stride, int64_t x_shift, int has_bias);
void call_discard(struct call *call);

/* Compare every element of y with the product in double, and what lies between rows with the
 * poison; fails the test with `what`. */
void call_check(const struct call *call, const struct problem *problem, const char *what);

#endif
