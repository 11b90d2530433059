/*
 * 16-bit floats on a processor that may have none: values as bits, rounded to nearest even once.
 * Inline, for C17 and C++17 alike, because device source converts in its inner loops.
 */
#ifndef TESTS_SUPPORT_SIMT_NUMBERS_H
#define TESTS_SUPPORT_SIMT_NUMBERS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t simt_double_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline double simt_bits_double(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float simt_bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The bits of a 16-bit float with so many bits of fraction: 10 in f16, 7 in bf16. */
static inline uint16_t simt_round(double value, unsigned fraction_bits) {
    const int bias = fraction_bits == 10 ? 15 : 127;
    const uint64_t bits = simt_double_bits(value);
    const uint16_t sign = (uint16_t)(bits >> 48 & 0x8000);
    const uint16_t infinity = (uint16_t)((2U * (unsigned)bias + 1U) << fraction_bits);
    const int exponent = (int)(bits >> 52 & 0x7FF) - 1023;
    if (exponent == 1024) {
        const int is_nan = (bits & 0xFFFFFFFFFFFFFULL) != 0;
        return (uint16_t)(sign | infinity | (is_nan ? 1U << (fraction_bits - 1) : 0));
    }
    /* Below half of the smallest subnormal; a double's own subnormals are among them. */
    if (exponent < -bias - (int)fraction_bits) {
        return sign;
    }
    const uint64_t fraction = (bits & 0xFFFFFFFFFFFFFULL) | 1ULL << 52;
    const int below_normal = exponent < 1 - bias ? 1 - bias - exponent : 0;
    const unsigned shift = 52 - fraction_bits + (unsigned)below_normal;
    const uint64_t rest = fraction & ((1ULL << shift) - 1);
    const uint64_t half = 1ULL << (shift - 1);
    uint64_t rounded = fraction >> shift;
    rounded += rest > half || (rest == half && (rounded & 1) != 0);
    if (below_normal == 0) { /* the leading one of `rounded` adds the last unit of exponent */
        rounded += (uint64_t)(exponent + bias - 1) << fraction_bits;
    }
    return (uint16_t)(sign | (rounded < infinity ? rounded : infinity));
}

static inline uint16_t simt_f16(double value) { return simt_round(value, 10); }

static inline uint16_t simt_bf16(double value) { return simt_round(value, 7); }

static inline float simt_f16_value(uint16_t bits) {
    const uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    const uint32_t exponent = bits >> 10 & 0x1F;
    const uint32_t fraction = bits & 0x3FF;
    if (exponent == 0) {
        const float size = (float)fraction * 0x1p-24F;
        return sign != 0 ? -size : size;
    }
    if (exponent == 31) {
        return simt_bits_float(sign | 0x7F800000U | fraction << 13);
    }
    return simt_bits_float(sign | (exponent + 112) << 23 | fraction << 13);
}

static inline float simt_bf16_value(uint16_t bits) { return simt_bits_float((uint32_t)bits << 16); }

/*
 * a * b + c with no rounding that a later one to 16 bits could notice: what the sum in double
 * drops is kept in its last bit (rounding to odd). a, b and c must be 16-bit floats.
 */
static inline double simt_fma(double a, double b, double c) {
    const double product = a * b; /* exact: 22 bits at most */
    const double sum = product + c;
    const double part = sum - product;
    const double lost = (product - (sum - part)) + (c - part);
    if (!isfinite(sum) || lost == 0) {
        return sum;
    }
    const uint64_t bits = simt_double_bits(sum);
    if ((bits & 1) != 0) {
        return sum;
    }
    return simt_bits_double((lost > 0) == (sum > 0) ? bits + 1 : bits - 1);
}

#endif
