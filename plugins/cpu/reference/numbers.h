/*
 * The element types as doubles, which hold each of their values exactly. Elements may lie at
 * any address.
 */
#ifndef KERNELRY_CPU_REFERENCE_NUMBERS_H
#define KERNELRY_CPU_REFERENCE_NUMBERS_H

#include <kernelry/types.h>
#include <math.h>
#include <string.h>

static inline double number_of_f32_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline double number_of_f16_bits(uint32_t half) {
    uint32_t sign = (half & 0x8000u) << 16;
    uint32_t magnitude = half & 0x7fffu;
    if (magnitude < 0x400u) { /* below the least normal: multiples of 2^-24 */
        double value = magnitude * 0x1p-24;
        return sign != 0 ? -value : value;
    }
    /* An f32 has 13 more bits of fraction and an exponent bias larger by 112; the largest
       exponent stays the largest, that of infinities and NaN. */
    uint32_t exponent_shift = magnitude >= 0x7c00u ? 224u : 112u;
    return number_of_f32_bits(sign | ((magnitude << 13) + (exponent_shift << 23)));
}

/* Element i of an array. */
static inline double number_load(uint32_t type, const void *array, int64_t i) {
    const unsigned char *at = (const unsigned char *)array + i * (int64_t)kry_type_bytes(type);
    if (type == KRY_TYPE_F32) {
        float value;
        memcpy(&value, at, sizeof(value));
        return value;
    }
    uint16_t bits;
    memcpy(&bits, at, sizeof(bits));
    return type == KRY_TYPE_F16 ? number_of_f16_bits(bits)
                                : number_of_f32_bits((uint32_t)bits << 16);
}

/* The exponent of a binary format's numbers near `magnitude`: that of its leading bit, but never
   below the format's least normal exponent. */
static inline int number_exponent(double magnitude, int least_exponent) {
    if (magnitude == 0)
        return least_exponent;
    int exponent;
    (void)frexp(magnitude, &exponent); /* magnitude = f * 2^exponent, f in [0.5, 1) */
    return exponent - 1 > least_exponent ? exponent - 1 : least_exponent;
}

/* Round once to a 16-bit format, nearest even: beyond its range is infinity. */
static inline uint16_t number_to_bits(double value, int fraction_bits, int least_exponent) {
    uint32_t sign = signbit(value) ? 0x8000u : 0;
    uint32_t infinity = 0x7fffu >> fraction_bits << fraction_bits;
    if (isnan(value))
        return (uint16_t)(sign | infinity | 1u << (fraction_bits - 1));
    double magnitude = fabs(value);
    if (isinf(magnitude))
        return (uint16_t)(sign | infinity);
    int exponent = number_exponent(magnitude, least_exponent);
    double fraction = rint(ldexp(magnitude, fraction_bits - exponent));
    /* A normal fraction carries its leading bit into the exponent field, and one that was
       rounded up to the next power of two carries one more: both are right. */
    int64_t bits = ((int64_t)(exponent - least_exponent) << fraction_bits) + (int64_t)fraction;
    return (uint16_t)(sign | (bits < infinity ? (uint32_t)bits : infinity));
}

/* Store as element i of an array, rounded once. */
static inline void number_store(uint32_t type, void *array, int64_t i, double value) {
    unsigned char *at = (unsigned char *)array + i * (int64_t)kry_type_bytes(type);
    if (type == KRY_TYPE_F32) {
        float rounded = (float)value;
        memcpy(at, &rounded, sizeof(rounded));
        return;
    }
    uint16_t bits =
        type == KRY_TYPE_F16 ? number_to_bits(value, 10, -14) : number_to_bits(value, 7, -126);
    memcpy(at, &bits, sizeof(bits));
}

/* Round to fp8 e4m3, nearest even, saturated to +-448; NaN stays NaN. */
static inline double number_round_e4m3(float value) {
    double magnitude = fabsf(value);
    if (magnitude >= 448)
        return copysign(448, value);
    double step = ldexp(1, number_exponent(magnitude, -6) - 3);
    return copysign(rint(magnitude / step) * step, value);
}

#endif
