/*
 * Round-to-nearest min-max quantization of a row of weights.
 */
#ifndef KERNELRY_TOOLS_RTN_H
#define KERNELRY_TOOLS_RTN_H

#include <stdbool.h>
#include <stdint.h>

/** How weights are quantized. */
struct rtn_scheme {
    int32_t bits;        /* 4 or 8 */
    int64_t group_size;  /* columns that share a scale; -1: all of a row */
    bool asymmetric;     /* with zero points */
    uint32_t scale_type; /* KRY_TYPE_* of the stored scales */
};

/** Squared norms, to be summed over rows. */
struct rtn_error {
    double difference; /* ||W - What||^2 */
    double weight;     /* ||W||^2 */
};

/** ||W - What|| / ||W||; 0 for weights that are all 0. */
double rtn_relative(const struct rtn_error *error);

/** Groups of a row, and 32-bit words of its packed codes. */
int64_t rtn_groups(const struct rtn_scheme *scheme, int64_t in_features);
int64_t rtn_words(const struct rtn_scheme *scheme, int64_t in_features);

/** The first column that is NaN or infinite, or -1. */
int64_t rtn_find_not_finite(const float *row, int64_t in_features);

/**
 * Quantize a row of finite weights.
 *
 * Numerics   symmetric: s = max|w| / ((2^b - 1) / 2), q = clamp(rint(w / s) + 2^(b-1)).
 *            Asymmetric: the range is stretched to hold 0, s = (max - min) / (2^b - 1),
 *            z = rint(-min / s), q = clamp(rint(w / s) + z). s is first rounded up to a value
 *            of scale_type, so that every weight is within half a step of the scale that a
 *            reader sees. 1 for a group of zeros.
 * Shapes     packed [rtn_words], lowest bits first, unused fields 0; scales [groups] of
 *            scale_type; zero_points [groups], not touched when symmetric.
 */
void rtn_quantize_row(const struct rtn_scheme *scheme, const float *row, int64_t in_features,
                      uint32_t *packed, void *scales, uint8_t *zero_points,
                      struct rtn_error *error);

/**
 * Pack zero points [out_features][groups] along the first axis, as compressed-tensors stores
 * them: words [ceil(out_features / per word)][groups], lowest bits first, unused fields 0.
 */
void rtn_pack_zero_points(const uint8_t *zero_points, int64_t out_features, int64_t groups,
                          int32_t bits, uint32_t *words);

#endif
