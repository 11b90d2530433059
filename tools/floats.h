/*
 * Conversions between the element types of x, y, scales and bias, and the 8-bit float of
 * quantized activations. The tools and the tests use them; no plugin does, so that a mistake
 * made on one side shows as a difference.
 *
 * Numerics   every encoding rounds once, from double, to the nearest value, ties to even.
 *            NaN stays NaN. Beyond the largest value f16 and bf16 become infinite; e4m3
 *            (the finite-only variant, which has no infinity) saturates to +-448.
 */
#ifndef KERNELRY_TOOLS_FLOATS_H
#define KERNELRY_TOOLS_FLOATS_H

#include <stdint.h>

uint16_t f16_encode(double value);
uint16_t bf16_encode(double value);
uint8_t e4m3_encode(double value);

float f16_decode(uint16_t bits);
float bf16_decode(uint16_t bits);
float e4m3_decode(uint8_t bits);

/** Element `index` of an array of KRY_TYPE_* at any alignment. */
double float_load(const void *array, int64_t index, uint32_t type);
void float_store(void *array, int64_t index, uint32_t type, double value);

/** The largest finite value of a KRY_TYPE_*. */
double float_largest(uint32_t type);

/** The distance between |value| (finite, within the type) and the next larger value of the type. */
double float_spacing(double value, uint32_t type);

#endif
