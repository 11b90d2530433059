/* wgmma.mma_async.m64nNk16 in software, for one warpgroup: which thread holds which element, and
 * the product. See matrix.h for those of one wave. */
#ifndef TESTS_SUPPORT_SIMT_MATRIX_WIDE_H
#define TESTS_SUPPORT_SIMT_MATRIX_WIDE_H

#include "matrix.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { WIDE_THREADS = 128, WIDE_ROWS = 64, WIDE_K = 16, WIDE_COLUMNS = 256 /* at most */ };

/* Item 0 to 7 of A in a thread of the warpgroup, two a register, the lower half first.
 * PTX ISA 8.7, section 9.7.15.5.1.1.1 "Matrix Fragments for wgmma.mma_async.m64nNk16", matrix A:
 * each wave holds 16 rows as for mma.m16n8k16. */
static inline struct simt_element simt_wide_a(unsigned thread, unsigned item) {
    const unsigned row = thread / 32 * 16 + thread % 32 / 4 + (item & 2) * 4;
    const unsigned k = thread % 4 * 2 + (item & 1) + (item & 4) * 2;
    struct simt_element at = {(uint8_t)row, 0, (uint8_t)k};
    return at;
}

/* Item 0 to N / 2 - 1 of C and D. The same section, accumulator D: items 4 i to 4 i + 3 are in
 * columns 8 i to 8 i + 7. */
static inline struct simt_element simt_wide_c(unsigned thread, unsigned item) {
    const unsigned row = thread / 32 * 16 + thread % 32 / 4 + (item & 2) * 4;
    const unsigned column = item / 4 * 8 + thread % 4 * 2 + (item & 1);
    struct simt_element at = {(uint8_t)row, (uint8_t)column, 0};
    return at;
}

/* Where element k 0 to 63 of row n lies in a box of B, bytes. PTX ISA 8.7, section 5.5.7 "Swizzling
 * Modes", 128 bytes: in rows of 128 bytes, chunk c of 16 bytes of row r lies in the place of chunk
 * c ^ r % 8. */
static inline unsigned simt_wide_b(unsigned n, unsigned k) {
    return n * 128 + ((k / 8) ^ n % 8) * 16 + k % 8 * 2;
}

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
