#include "matrix_wide.h"

#include <string.h>

#include "numbers.h"

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

/* Eight columns of a row: what a product spends its time in, in the processor's registers. */
typedef float columns __attribute__((vector_size(32)));

static void add_row(float *sums, const float *a, float (*b)[WIDE_COLUMNS], unsigned n) {
    for (unsigned column = 0; column < n; column += sizeof(columns) / sizeof(float)) {
        columns sum;
        memcpy(&sum, &sums[column], sizeof sum);
        for (unsigned k = 0; k < WIDE_K; k++) {
            columns right;
            memcpy(&right, &b[k][column], sizeof right);
            sum += a[k] * right;
        }
        memcpy(&sums[column], &sum, sizeof sum);
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
        add_row(sums[row], left[row], right, n);
    }
}
