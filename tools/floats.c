#include "floats.h"

#include <kernelry/types.h>

#include <math.h>
#include <string.h>

/** A binary format: an unbiased exponent and a fraction, subnormal below the least exponent. */
struct format {
    int32_t fraction_bits;
    int32_t least_exponent; /* of a normal value */
    double largest;
};

static const struct format f16 = {10, -14, 65504.0};
static const struct format bf16 = {7, -126, 0x1.FEp127};
static const struct format f32 = {23, -126, 0x1.FFFFFEp127};
static const struct format e4m3 = {3, -6, 448.0};

enum { DOUBLE_FRACTION_BITS = 52, DOUBLE_BIAS = 1023 };

/**
 * The bits, without a sign, of the value of a format that is nearest to |value| (no NaN and
 * no infinity). Rounding up into the next exponent carries by itself; beyond the largest
 * value the result goes on as if exponents did.
 */
static uint64_t nearest_bits(const struct format *format, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    int32_t exponent = (int32_t)(bits >> DOUBLE_FRACTION_BITS & 0x7FF) - DOUBLE_BIAS;
    if (exponent == -DOUBLE_BIAS)
        return 0; /* zero, or a subnormal double: below half of any format's least value */
    const uint64_t leading_one = UINT64_C(1) << DOUBLE_FRACTION_BITS;
    uint64_t significand = (bits & (leading_one - 1)) | leading_one;
    int32_t dropped = DOUBLE_FRACTION_BITS - format->fraction_bits;
    if (exponent < format->least_exponent) {
        dropped += format->least_exponent - exponent;
        exponent = format->least_exponent;
    }
    if (dropped > DOUBLE_FRACTION_BITS + 1)
        return 0; /* below half of the least value */
    uint64_t kept = significand >> dropped;
    uint64_t rest = significand & ((UINT64_C(1) << dropped) - 1);
    uint64_t half = UINT64_C(1) << (dropped - 1);
    if (rest > half || (rest == half && (kept & 1)))
        kept++;
    /* A normal value's leading 1 counts one exponent; a subnormal one has neither. */
    return ((uint64_t)(exponent - format->least_exponent) << format->fraction_bits) + kept;
}

static uint16_t encode_16(const struct format *format, uint32_t infinity, double value) {
    uint32_t sign = signbit(value) ? 0x8000 : 0;
    if (isnan(value))
        return (uint16_t)(sign | infinity | 1U << (format->fraction_bits - 1));
    uint64_t bits = isinf(value) ? infinity : nearest_bits(format, value);
    return (uint16_t)(sign | (bits < infinity ? (uint32_t)bits : infinity));
}

uint16_t f16_encode(double value) { return encode_16(&f16, 0x7C00, value); }

uint16_t bf16_encode(double value) { return encode_16(&bf16, 0x7F80, value); }

uint8_t e4m3_encode(double value) {
    enum { LARGEST = 0x7E, NOT_A_NUMBER = 0x7F };
    uint32_t sign = signbit(value) ? 0x80 : 0;
    if (isnan(value))
        return (uint8_t)(sign | NOT_A_NUMBER);
    uint64_t bits = isinf(value) ? LARGEST : nearest_bits(&e4m3, value);
    return (uint8_t)(sign | (bits < LARGEST ? (uint32_t)bits : LARGEST));
}

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float f16_decode(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = bits >> 10 & 0x1F;
    uint32_t fraction = bits & 0x3FF;
    if (exponent == 0) {
        float magnitude = (float)fraction * 0x1p-24F;
        return sign ? -magnitude : magnitude;
    }
    uint32_t wide = exponent == 0x1F ? 0xFF : exponent + 127 - 15;
    return float_of_bits(sign | wide << 23 | fraction << 13);
}

float bf16_decode(uint16_t bits) { return float_of_bits((uint32_t)bits << 16); }

float e4m3_decode(uint8_t bits) {
    int32_t exponent = bits >> 3 & 0xF;
    int32_t fraction = bits & 7;
    float magnitude =
        exponent == 0 ? ldexpf((float)fraction, -9) : ldexpf((float)(8 + fraction), exponent - 10);
    if ((bits & 0x7F) == 0x7F)
        magnitude = NAN;
    return bits & 0x80 ? -magnitude : magnitude;
}

double float_load(const void *array, int64_t index, uint32_t type) {
    const char *element = (const char *)array + index * (int64_t)kry_type_bytes(type);
    if (type == KRY_TYPE_F32) {
        float value;
        memcpy(&value, element, sizeof value);
        return (double)value;
    }
    uint16_t bits;
    memcpy(&bits, element, sizeof bits);
    return (double)(type == KRY_TYPE_F16 ? f16_decode(bits) : bf16_decode(bits));
}

void float_store(void *array, int64_t index, uint32_t type, double value) {
    char *element = (char *)array + index * (int64_t)kry_type_bytes(type);
    if (type == KRY_TYPE_F32) {
        float narrow = (float)value;
        memcpy(element, &narrow, sizeof narrow);
        return;
    }
    uint16_t bits = type == KRY_TYPE_F16 ? f16_encode(value) : bf16_encode(value);
    memcpy(element, &bits, sizeof bits);
}

static const struct format *format_of(uint32_t type) {
    return type == KRY_TYPE_F32 ? &f32 : type == KRY_TYPE_F16 ? &f16 : &bf16;
}

double float_largest(uint32_t type) { return format_of(type)->largest; }

double float_spacing(double value, uint32_t type) {
    const struct format *format = format_of(type);
    int exponent = value == 0 ? format->least_exponent : ilogb(value);
    if (exponent < format->least_exponent)
        exponent = format->least_exponent;
    return ldexp(1, exponent - format->fraction_bits);
}
