/*
 * Round-to-nearest min-max quantization of a row of weights.
 */
#include "rtn.h"

#include "floats.h"

#include <kernelry/types.h>

#include <math.h>
#include <string.h>

double rtn_relative(const struct rtn_error *error) {
    return error->weight > 0 ? sqrt(error->difference / error->weight) : 0;
}

int64_t rtn_groups(const struct rtn_scheme *scheme, int64_t in_features) {
    if (scheme->group_size < 0)
        return 1;
    return (in_features + scheme->group_size - 1) / scheme->group_size;
}

int64_t rtn_words(const struct rtn_scheme *scheme, int64_t in_features) {
    int64_t per_word = 32 / scheme->bits;
    return (in_features + per_word - 1) / per_word;
}

int64_t rtn_find_not_finite(const float *row, int64_t in_features) {
    for (int64_t k = 0; k < in_features; k++)
        if (!isfinite(row[k]))
            return k;
    return -1;
}

/** The scale as it will be stored: rounded up, so that the range stays covered; never 0. */
static double storable_scale(double scale, uint32_t type) {
    if (scale == 0)
        return 1;
    unsigned char stored[4];
    float_store(stored, 0, type, scale);
    double rounded = float_load(stored, 0, type);
    return rounded < scale ? rounded + float_spacing(rounded, type) : rounded;
}

/** A group's scale and zero point. */
struct range {
    double scale;
    double zero;
};

static struct range measure(const struct rtn_scheme *scheme, const float *weights, int64_t count) {
    double least = 0, most = 0; /* 0 is always inside */
    for (int64_t i = 0; i < count; i++) {
        least = fmin(least, (double)weights[i]);
        most = fmax(most, (double)weights[i]);
    }
    double steps = (double)((1 << scheme->bits) - 1);
    if (!scheme->asymmetric) {
        double scale = storable_scale(fmax(-least, most) / (steps / 2), scheme->scale_type);
        return (struct range){scale, (double)(1 << (scheme->bits - 1))};
    }
    double scale = storable_scale((most - least) / steps, scheme->scale_type);
    return (struct range){scale, fmin(nearbyint(-least / scale), steps)};
}

void rtn_quantize_row(const struct rtn_scheme *scheme, const float *row, int64_t in_features,
                      uint32_t *packed, void *scales, uint8_t *zero_points,
                      struct rtn_error *error) {
    int64_t per_word = 32 / scheme->bits;
    int64_t group_size = scheme->group_size < 0 ? in_features : scheme->group_size;
    double top = (double)((1 << scheme->bits) - 1);
    memset(packed, 0, (size_t)rtn_words(scheme, in_features) * sizeof *packed);
    for (int64_t begin = 0, g = 0; begin < in_features; begin += group_size, g++) {
        int64_t left = in_features - begin;
        int64_t count = left < group_size ? left : group_size;
        struct range range = measure(scheme, row + begin, count);
        float_store(scales, g, scheme->scale_type, range.scale);
        if (scheme->asymmetric)
            zero_points[g] = (uint8_t)range.zero;
        for (int64_t k = begin; k < begin + count; k++) {
            double weight = (double)row[k];
            double code = nearbyint(weight / range.scale) + range.zero;
            code = fmin(fmax(code, 0), top);
            double difference = weight - (code - range.zero) * range.scale;
            error->difference += difference * difference;
            error->weight += weight * weight;
            packed[k / per_word] |= (uint32_t)code << (k % per_word * scheme->bits);
        }
    }
}

void rtn_pack_zero_points(const uint8_t *zero_points, int64_t out_features, int64_t groups,
                          int32_t bits, uint32_t *words) {
    int64_t per_word = 32 / bits;
    int64_t rows = (out_features + per_word - 1) / per_word;
    memset(words, 0, (size_t)(rows * groups) * sizeof *words);
    for (int64_t n = 0; n < out_features; n++)
        for (int64_t g = 0; g < groups; g++)
            words[n / per_word * groups + g] |= (uint32_t)zero_points[n * groups + g]
                                                << (n % per_word * bits);
}
