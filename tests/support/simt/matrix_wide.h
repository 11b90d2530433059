/* wgmma.mma_async.m64nNk16 in software, for one warpgroup: which thread holds which element, and
 * the product. See matrix.h for those of one wave. */
#ifndef TESTS_SUPPORT_SIMT_MATRIX_WIDE_H
#define TESTS_SUPPORT_SIMT_MATRIX_WIDE_H

#include "matrix.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { WIDE_THREADS = 128, WIDE_ROWS = 64, WIDE_K = 16, WIDE_COLUMNS = 256 /* at most */ };

/* Item 0 to 7 of A in a thread of the warpgroup, two a register, the lower half first; item 0 to
 * N / 2 - 1 of C and D. */
struct simt_element simt_wide_a(unsigned thread, unsigned item);
struct simt_element simt_wide_c(unsigned thread, unsigned item);

/* Where element k 0 to 63 of row n lies in a box of B, bytes: 128-byte swizzle. */
unsigned simt_wide_b(unsigned n, unsigned k);

/* A thread's c into the matrix, and back. */
void simt_wide_put(unsigned thread, unsigned n, const float *c, float sums[][WIDE_COLUMNS]);
void simt_wide_take(unsigned thread, unsigned n, float *c, float sums[][WIDE_COLUMNS]);

/* sums += A * B in floats, k by k: a[thread] is four registers of pairs, b a box of n rows, of
 * which columns 16 step on count. n is a multiple of 8, at most 256. */
void simt_wide_multiply(unsigned n, bool is_bf16, uint32_t (*a)[4], const unsigned char *b,
                        unsigned step, float sums[][WIDE_COLUMNS]);

#ifdef __cplusplus
}
#endif

#endif
