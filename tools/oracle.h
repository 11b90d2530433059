/*
 * The oracle: y = x * W^T + bias in double, straight from a checkpoint's raw tensors or from
 * drawn weights. It shares no function with any plugin, with the core's handling of views or
 * with the checkpoint library's reading of configs; of the latter it uses only the lookup of
 * a tensor by name. What it says and what a kernel says agree only if both are right.
 *
 * Errors are told as the library tells them: a status, and kry_error_message().
 */
#ifndef KERNELRY_TOOLS_ORACLE_H
#define KERNELRY_TOOLS_ORACLE_H

#include <kernelry/checkpoint.h>

#include <stdbool.h>

/* ---- what the config says ------------------------------------------------------------ */

/** A model's quantization config, parsed. */
struct oracle_config;

/** Read config.json or quantize_config.json of a model folder, or beside a .safetensors file. */
kry_status oracle_config_open(const char *path, struct oracle_config **out);
void oracle_config_close(struct oracle_config **config);

/** Where the zero point of an output feature and group comes from; f is the stored field. */
enum {
    ORACLE_ZERO_MIDDLE = 1, /* 2^(bits-1), nothing stored or what is stored is not used */
    ORACLE_ZERO_STORED = 2, /* f */
    ORACLE_ZERO_FIELD = 3,  /* (f + 1) mod 2^bits (AutoGPTQ) */
    ORACLE_ZERO_WORD = 4    /* the field of the word after 1 was added to each of its fields
                               with carries between them (GPTQModel) */
};

/** How a layer is stored. */
struct oracle_scheme {
    uint32_t method;     /* KRY_METHOD_* */
    uint32_t bits;       /* 4 or 8 */
    uint32_t zero;       /* ORACLE_ZERO_* */
    uint32_t activation; /* KRY_ACTIVATION_* */
    int64_t group_size;  /* -1: one group a channel */
};

/** Errors: KRY_E_FORMAT, KRY_E_UNSUPPORTED, KRY_E_NOT_FOUND: nothing covers that layer. */
kry_status oracle_config_scheme(const struct oracle_config *config, const char *layer,
                                struct oracle_scheme *out);

/* ---- weights ------------------------------------------------------------------------- */

/**
 * Weights in plain arrays; W[n][k] = (codes[n][k] - z) * scales[n][g].
 *
 * Shapes     codes [N, K]; scales and zero_points [N, groups]; bias [N]; g_idx [K].
 * Ownership  borrowed until oracle_close.
 */
struct oracle_drawn {
    int64_t out_features;
    int64_t in_features;
    int64_t groups;
    int64_t group_size;  /* -1: one group; not read with g_idx */
    int64_t k_offset;    /* column k is in group (k + k_offset) / group_size, counted
                            from the group of column 0 */
    uint32_t bits;       /* tells z where there are no zero points */
    uint32_t activation; /* KRY_ACTIVATION_* */
    const uint8_t *codes;
    const float *scales;
    const uint8_t *zero_points; /* or NULL */
    const int32_t *g_idx;       /* or NULL */
    const float *bias;          /* or NULL */
};

/** A layer's weights, decoded as they are needed. */
struct oracle {
    int64_t out_features;
    int64_t in_features;
    int64_t groups;
    uint32_t activation; /* KRY_ACTIVATION_*: as the model wants; a caller whose kernel
                            quantizes inside may set it before a product */
    bool has_bias;

    /* The rest is for oracle*.c. */
    int32_t *group_of; /* [in_features] */
    /** Codes of rows n.. and columns k.., out[row * stride + column]. */
    void (*codes)(const struct oracle *oracle, int64_t n, int64_t rows, int64_t k, int64_t columns,
                  uint8_t *out, int64_t stride);
    double (*scale)(const struct oracle *oracle, int64_t n, int64_t g);
    int32_t (*zero)(const struct oracle *oracle, int64_t n, int64_t g);
    double (*bias)(const struct oracle *oracle, int64_t n);
    struct oracle_scheme scheme; /* of stored weights */
    kry_tensor weight_tensor;
    kry_tensor scale_tensor;
    kry_tensor zero_tensor;
    kry_tensor bias_tensor;
    struct oracle_drawn drawn;
};

/**
 * Make the oracle of a checkpoint's layer.
 *
 * Ownership  borrows the checkpoint until oracle_close, the config only during the call.
 * Errors     KRY_E_NOT_FOUND, KRY_E_FORMAT, KRY_E_UNSUPPORTED, KRY_E_MEMORY.
 */
kry_status oracle_open(const struct oracle_config *config, const kry_checkpoint *checkpoint,
                       const char *layer, struct oracle **out);
kry_status oracle_open_drawn(const struct oracle_drawn *drawn, struct oracle **out);
void oracle_close(struct oracle **oracle);

/** Dequantized rows [n_begin, n_end), out [rows, in_features]. */
kry_status oracle_rows(const struct oracle *oracle, int64_t n_begin, int64_t n_end, double *out);

/* ---- the product --------------------------------------------------------------------- */

/**
 * One product, of the whole layer or of a partition.
 *
 * Shapes     x [m, k_end - k_begin] of x_type, y [m, n_end - n_begin] dense.
 * Numerics   everything in double; where activations are quantized, x as types.h says
 *            (in f32), over the columns that were given.
 */
struct oracle_product {
    int64_t m;
    const void *x;
    double *y;
    int64_t x_stride; /* in elements; 0: dense */
    int64_t n_begin;
    int64_t n_end; /* 0: to the end */
    int64_t k_begin;
    int64_t k_end;     /* 0: to the end */
    uint32_t x_type;   /* KRY_TYPE_* */
    int32_t threads;   /* 0 and 1: the calling thread alone */
    bool without_bias; /* leave out a bias that there is */
};

/** Errors: KRY_E_ARGUMENT, KRY_E_MEMORY: y is unspecified. */
kry_status oracle_multiply(const struct oracle *oracle, const struct oracle_product *product);

/* ---- the measure --------------------------------------------------------------------- */

/** What a comparison found. Row and column of the largest difference are -1 when m*n is 0. */
struct oracle_error {
    double relative; /* |y - expected| / |expected|, Euclidean norms over all of y */
    double largest;  /* absolute difference */
    int64_t row;
    int64_t column;
};

/**
 * Compare y [m, n] of y_type (row stride in elements, 0: dense) with the oracle's.
 *
 * Numerics   NaN where NaN is expected, and infinity of the right sign where the expected value
 *            is beyond the type's largest (or below it by less than the bound), differ by 0;
 *            other differences with something not finite are infinite. Differences of at
 *            most half the type's least value are rounding and count 0. Where all of expected
 *            is 0, the error is 0 or infinite.
 */
struct oracle_error oracle_compare(const void *y, uint32_t y_type, int64_t y_stride, int64_t m,
                                   int64_t n, const double *expected);

/** The relative error that a right kernel stays below. */
double oracle_bound(uint32_t y_type, uint32_t activation);

#endif
