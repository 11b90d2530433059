#include "matrix_wide.h"

#include <string.h>

#include "numbers.h"

/* PTX ISA 8.7, section 9.7.15.5.1.1.1 "Matrix Fragments for wgmma.mma_async.m64nNk16", figure 148:
 * each wave holds 16 rows as for mma.m16n8k16. */
struct simt_element simt_wide_a(unsigned thread, unsigned item) {
    const unsigned row = thread / 32 * 16 + thread % 32 / 4 + (item & 2) * 4;
    const unsigned k = thread % 4 * 2 + (item & 1) + (item & 4) * 2;
    return (struct simt_element){.row = (uint8_t)row, .k = (uint8_t)k};
}

/* The same section, figure 149: items 4 i to 4 i + 3 are in columns 8 i to 8 i + 7. */
struct simt_element simt_wide_c(unsigned thread, unsigned item) {
    const unsigned row = thread / 32 * 16 + thread % 32 / 4 + (item & 2) * 4;
    const unsigned column = item / 4 * 8 + thread % 4 * 2 + (item & 1);
    return (struct simt_element){.row = (uint8_t)row, .column = (uint8_t)column};
}

/* PTX ISA 8.7, section 5.5.7 "Swizzling modes", 128B: in rows of 128 bytes, chunk c of 16 bytes of
 * row r lies in the place of chunk c ^ r % 8. */
unsigned simt_wide_b(unsigned n, unsigned k) {
    return n * 128 + ((k / 8) ^ n % 8) * 16 + k % 8 * 2;
}

void simt_wide_put(unsigned thread, unsigned n, const float *c, float sums[][WIDE_COLUMNS]) {
    for (unsigned item = 0; item < n / 2; item++) {
        const struct simt_element at = simt_wide_c(thread, item);
        sums[at.row][at.column] = c[item];
    }
}

void simt_wide_take(unsigned thread, unsigned n, float *c, float sums[][WIDE_COLUMNS]) {
    for (unsigned item = 0; item < n / 2; item++) {
        const struct simt_element at = simt_wide_c(thread, item);
        c[item] = sums[at.row][at.column];
    }
}

/* All values of a format, by their bits. */
static const float *values_of(bool is_bf16) {
    static float values[2][1 << 16];
    static bool is_made[2];
    if (!is_made[is_bf16]) {
        for (uint32_t bits = 0; bits < 1 << 16; bits++) {
            values[is_bf16][bits] =
                is_bf16 ? simt_bf16_value((uint16_t)bits) : simt_f16_value((uint16_t)bits);
        }
        is_made[is_bf16] = true;
    }
    return values[is_bf16];
}

/* What a matrix product spends its time in: `restrict` and a constant count let it be vectorised.
 */
static void add_columns(float *restrict sums, const float *restrict b, float a, unsigned n) {
    for (unsigned column = 0; column < n; column++) {
        sums[column] += a * b[column];
    }
}

void simt_wide_multiply(unsigned n, bool is_bf16, uint32_t (*a)[4], const unsigned char *b,
                        unsigned step, float sums[][WIDE_COLUMNS]) {
    const float *values = values_of(is_bf16);
    float left[WIDE_ROWS][WIDE_K];
    static float right[WIDE_K][WIDE_COLUMNS];
    for (unsigned thread = 0; thread < WIDE_THREADS; thread++) {
        for (unsigned item = 0; item < 8; item++) {
            const struct simt_element at = simt_wide_a(thread, item);
            left[at.row][at.k] = values[a[thread][item / 2] >> 16 * (item % 2) & 0xFFFF];
        }
    }
    for (unsigned row = 0; row < n; row++) {
        for (unsigned k = 0; k < WIDE_K; k++) {
            uint16_t bits;
            memcpy(&bits, b + simt_wide_b(row, step * WIDE_K + k), sizeof bits);
            right[k][row] = values[bits];
        }
    }
    for (unsigned row = 0; row < WIDE_ROWS; row++) {
        for (unsigned k = 0; k < WIDE_K; k++) {
            add_columns(sums[row], right[k], left[row][k], n);
        }
    }
}
