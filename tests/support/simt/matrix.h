/* Matrix instructions in software: which lane holds which element, and the product. */
#ifndef TESTS_SUPPORT_SIMT_MATRIX_H
#define TESTS_SUPPORT_SIMT_MATRIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum simt_instruction {
    SIMT_MMA_M16N8K16,  /* NVIDIA, sm_80 and later */
    SIMT_MMA_M16N8K8,   /* NVIDIA, sm_75 and later */
    SIMT_MFMA_16X16X16, /* CDNA */
    SIMT_WMMA_RDNA3,    /* 16x16x16 */
    SIMT_WMMA_RDNA4,    /* 16x16x16 */
    SIMT_INSTRUCTIONS
};

/* The most of each that any instruction has. */
enum { SIMT_LANES = 64, SIMT_ITEMS = 16, SIMT_MATRIX = 16 };

/* Coordinates of an element: of A (row, k), of B (k, column), of C and D (row, column). */
struct simt_element {
    uint8_t row;
    uint8_t column;
    uint8_t k;
};

/* One operand: a lane holds items 0, 1, ... of 16 bits (A, B; two a register, the lower half
 * first) or of 32 bits (C, D). */
struct simt_operand {
    unsigned items;
    struct simt_element at[SIMT_LANES][SIMT_ITEMS];
};

struct simt_matrix {
    const char *name;
    unsigned wave;
    unsigned m;
    unsigned n;
    unsigned k;
    struct simt_operand a;
    struct simt_operand b;
    struct simt_operand c;
};

/* The instruction with its maps; never NULL. */
const struct simt_matrix *simt_matrix_of(enum simt_instruction instruction);

/*
 * C += A * B for a whole wave: a[lane], b[lane] registers of pairs, c[lane] floats. Products and
 * sums in double, one rounding to float at the end, so the order of the sum does not matter.
 * False where an operand that lanes hold twice differs between them; *lane is then one of them.
 */
bool simt_matrix_multiply(const struct simt_matrix *matrix, bool is_bf16, const uint32_t *const a[],
                          const uint32_t *const b[], float *const c[], unsigned *lane);

#ifdef __cplusplus
}
#endif

#endif
