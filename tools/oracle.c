/*
 * The product in double, drawn weights, and the measure of an error.
 *
 * A thread takes a range of rows of W, dequantizes a tile of TILE_ROWS x TILE_COLUMNS and
 * multiplies it with all rows of x before it goes on, so a tile is decoded once whatever m is.
 */
#include "oracle.h"

#include "floats.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { TILE_ROWS = 16, TILE_COLUMNS = 1024, LANES = 4, THREADS_MAX = 64 };

/** Four sums side by side: what a compiler makes of vectors needs no leave to reorder sums. */
typedef double lanes __attribute__((vector_size(LANES * sizeof(double))));

/* ---- drawn weights ------------------------------------------------------------------- */

static void drawn_codes(const struct oracle *oracle, int64_t n, int64_t rows, int64_t k,
                        int64_t columns, uint8_t *out, int64_t stride) {
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + r * stride, oracle->drawn.codes + (n + r) * oracle->in_features + k,
               (size_t)columns);
}

static double drawn_scale(const struct oracle *oracle, int64_t n, int64_t g) {
    return (double)oracle->drawn.scales[n * oracle->groups + g];
}

static int32_t drawn_zero(const struct oracle *oracle, int64_t n, int64_t g) {
    if (!oracle->drawn.zero_points)
        return 1 << (oracle->drawn.bits - 1);
    return oracle->drawn.zero_points[n * oracle->groups + g];
}

static double drawn_bias(const struct oracle *oracle, int64_t n) {
    return (double)oracle->drawn.bias[n];
}

kry_status oracle_open_drawn(const struct oracle_drawn *drawn, struct oracle **out) {
    if (drawn->out_features < 1 || drawn->in_features < 1 || drawn->groups < 1 ||
        drawn->group_size == 0 || drawn->k_offset < 0 || (drawn->bits != 4 && drawn->bits != 8))
        return kry_error_set(KRY_E_ARGUMENT, "drawn weights: sizes or bits are out of range");
    struct oracle *oracle = calloc(1, sizeof *oracle);
    if (!oracle)
        return kry_error_set(KRY_E_MEMORY, "drawn weights: out of memory");
    oracle->group_of = malloc((size_t)drawn->in_features * sizeof *oracle->group_of);
    if (!oracle->group_of) {
        free(oracle);
        return kry_error_set(KRY_E_MEMORY, "drawn weights: out of memory");
    }
    for (int64_t k = 0; k < drawn->in_features; k++) {
        int64_t group = 0;
        if (drawn->g_idx)
            group = drawn->g_idx[k];
        else if (drawn->group_size > 0)
            group = (drawn->k_offset + k) / drawn->group_size - drawn->k_offset / drawn->group_size;
        if (group < 0 || group >= drawn->groups) {
            free(oracle->group_of);
            free(oracle);
            return kry_error_set(KRY_E_ARGUMENT,
                                 "drawn weights: column %lld is in group %lld of %lld",
                                 (long long)k, (long long)group, (long long)drawn->groups);
        }
        oracle->group_of[k] = (int32_t)group;
    }
    oracle->out_features = drawn->out_features;
    oracle->in_features = drawn->in_features;
    oracle->groups = drawn->groups;
    oracle->activation = drawn->activation;
    oracle->has_bias = drawn->bias != NULL;
    oracle->codes = drawn_codes;
    oracle->scale = drawn_scale;
    oracle->zero = drawn_zero;
    oracle->bias = drawn_bias;
    oracle->drawn = *drawn;
    *out = oracle;
    return KRY_OK;
}

void oracle_close(struct oracle **oracle) {
    if (!*oracle)
        return;
    free((*oracle)->group_of);
    free(*oracle);
    *oracle = NULL;
}

/* ---- dequantizing -------------------------------------------------------------------- */

/** Scales and zero points of up to TILE_ROWS rows. */
struct row_parameters {
    double *scales; /* [TILE_ROWS, groups] */
    double *zeros;
};

static void read_parameters(const struct oracle *oracle, int64_t n, int64_t rows,
                            const struct row_parameters *out) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < oracle->groups; g++) {
            out->scales[r * oracle->groups + g] = oracle->scale(oracle, n + r, g);
            out->zeros[r * oracle->groups + g] = oracle->zero(oracle, n + r, g);
        }
}

/** Columns k.. of row r, whose codes were read, run by run of one group. */
static void dequantize(const struct oracle *oracle, const struct row_parameters *parameters,
                       int64_t r, int64_t k, int64_t columns, const uint8_t *codes, double *out) {
    const int32_t *group_of = oracle->group_of + k;
    for (int64_t begin = 0, end; begin < columns; begin = end) {
        double scale = parameters->scales[r * oracle->groups + group_of[begin]];
        double zero = parameters->zeros[r * oracle->groups + group_of[begin]];
        for (end = begin; end < columns && group_of[end] == group_of[begin]; end++)
            out[end] = (codes[end] - zero) * scale;
    }
}

kry_status oracle_rows(const struct oracle *oracle, int64_t n_begin, int64_t n_end, double *out) {
    if (n_begin < 0 || n_begin > n_end || n_end > oracle->out_features)
        return kry_error_set(KRY_E_ARGUMENT, "oracle: rows %lld to %lld of %lld",
                             (long long)n_begin, (long long)n_end, (long long)oracle->out_features);
    size_t groups = (size_t)oracle->groups;
    uint8_t *codes = malloc((size_t)oracle->in_features);
    struct row_parameters parameters = {malloc(groups * sizeof(double)),
                                        malloc(groups * sizeof(double))};
    kry_status status = KRY_OK;
    if (!codes || !parameters.scales || !parameters.zeros)
        status = kry_error_set(KRY_E_MEMORY, "oracle: out of memory");
    for (int64_t n = n_begin; n < n_end && status == KRY_OK; n++) {
        read_parameters(oracle, n, 1, &parameters);
        oracle->codes(oracle, n, 1, 0, oracle->in_features, codes, oracle->in_features);
        dequantize(oracle, &parameters, 0, 0, oracle->in_features, codes,
                   out + (n - n_begin) * oracle->in_features);
    }
    free(codes);
    free(parameters.scales);
    free(parameters.zeros);
    return status;
}

/* ---- x ------------------------------------------------------------------------------- */

/** A token's values become whole (or e4m3) numbers; the factor that undoes it is returned. */
static double quantize_token(double *x, int64_t columns, uint32_t activation) {
    if (activation == KRY_ACTIVATION_NONE)
        return 1;
    bool int8 = activation == KRY_ACTIVATION_INT8_TOKEN;
    float largest = 0;
    for (int64_t k = 0; k < columns; k++)
        largest = fmaxf(largest, fabsf((float)x[k]));
    float scale = largest / (int8 ? 127.0F : 448.0F);
    if (scale == 0)
        scale = 1;
    for (int64_t k = 0; k < columns; k++) {
        float ratio = (float)x[k] / scale;
        if (isnan(ratio))
            x[k] = (double)NAN;
        else if (int8)
            x[k] = fmin(fmax((double)rintf(ratio), -128), 127);
        else
            x[k] = (double)e4m3_decode(e4m3_encode((double)ratio));
    }
    return (double)scale;
}

/* ---- the product --------------------------------------------------------------------- */

/** A product as all its threads see it. */
struct job {
    const struct oracle *oracle;
    const double *x; /* [m, x_stride], zeros between columns and x_stride, a multiple of LANES */
    const double *factor; /* [m] */
    double *y;
    int64_t m;
    int64_t x_stride;
    int64_t n_begin;
    int64_t n_end;
    int64_t k_begin;
    int64_t columns;
    bool with_bias;
};

/** A thread's share of the rows, and its buffers. */
struct worker {
    const struct job *job;
    int64_t n_begin;
    int64_t n_end;
    double *tile; /* [TILE_ROWS, TILE_COLUMNS] */
    uint8_t *codes;
    struct row_parameters parameters;
    pthread_t thread;
    kry_status status;
    bool started;
};

/** sums[r] += tile row r . x, of four rows; columns is a multiple of LANES. */
static void multiply_rows(const double *tile, const double *x, int64_t columns, double sums[4]) {
    lanes a = {0}, b = {0}, c = {0}, d = {0};
    for (int64_t k = 0; k < columns; k += LANES) {
        lanes value, w0, w1, w2, w3;
        memcpy(&value, x + k, sizeof value);
        memcpy(&w0, tile + k, sizeof w0);
        memcpy(&w1, tile + TILE_COLUMNS + k, sizeof w1);
        memcpy(&w2, tile + 2 * TILE_COLUMNS + k, sizeof w2);
        memcpy(&w3, tile + 3 * TILE_COLUMNS + k, sizeof w3);
        a += w0 * value;
        b += w1 * value;
        c += w2 * value;
        d += w3 * value;
    }
    for (int i = 0; i < LANES; i++) {
        sums[0] += a[i];
        sums[1] += b[i];
        sums[2] += c[i];
        sums[3] += d[i];
    }
}

/** Rows n.. of W with all of x: y[:, n..] += x[:, k..] * tile^T. */
static void multiply_tile(const struct job *job, const double *tile, int64_t n, int64_t rows,
                          int64_t k, int64_t columns) {
    int64_t y_stride = job->n_end - job->n_begin;
    for (int64_t r = 0; r < rows; r += 4)
        for (int64_t i = 0; i < job->m; i++) {
            double sums[4] = {0};
            multiply_rows(tile + r * TILE_COLUMNS, job->x + i * job->x_stride + k, columns, sums);
            for (int64_t j = 0; j < 4 && r + j < rows; j++)
                job->y[i * y_stride + n + r + j - job->n_begin] += sums[j];
        }
}

/** All columns of up to TILE_ROWS rows, then the factors and the bias. */
static void multiply_block(const struct worker *worker, int64_t n, int64_t rows) {
    const struct job *job = worker->job;
    const struct oracle *oracle = job->oracle;
    int64_t y_stride = job->n_end - job->n_begin;
    read_parameters(oracle, n, rows, &worker->parameters);
    for (int64_t k = 0; k < job->columns; k += TILE_COLUMNS) {
        int64_t columns = job->columns - k < TILE_COLUMNS ? job->columns - k : TILE_COLUMNS;
        int64_t padded = (columns + LANES - 1) / LANES * LANES;
        oracle->codes(oracle, n, rows, job->k_begin + k, columns, worker->codes, TILE_COLUMNS);
        for (int64_t r = 0; r < rows; r++) {
            double *row = worker->tile + r * TILE_COLUMNS;
            dequantize(oracle, &worker->parameters, r, job->k_begin + k, columns,
                       worker->codes + r * TILE_COLUMNS, row);
            for (int64_t pad = columns; pad < padded; pad++)
                row[pad] = 0;
        }
        multiply_tile(job, worker->tile, n, rows, k, padded);
    }
    for (int64_t i = 0; i < job->m; i++)
        for (int64_t r = 0; r < rows; r++) {
            double *y = &job->y[i * y_stride + n + r - job->n_begin];
            *y = *y * job->factor[i] + (job->with_bias ? oracle->bias(oracle, n + r) : 0);
        }
}

static void *work(void *argument) {
    struct worker *worker = argument;
    size_t parameters = (size_t)TILE_ROWS * (size_t)worker->job->oracle->groups * sizeof(double);
    worker->tile = calloc(TILE_ROWS * TILE_COLUMNS, sizeof *worker->tile);
    worker->codes = malloc(TILE_ROWS * TILE_COLUMNS);
    worker->parameters.scales = malloc(parameters);
    worker->parameters.zeros = malloc(parameters);
    worker->status = KRY_OK;
    if (!worker->tile || !worker->codes || !worker->parameters.scales || !worker->parameters.zeros)
        worker->status = KRY_E_MEMORY;
    for (int64_t n = worker->n_begin; n < worker->n_end && worker->status == KRY_OK; n += TILE_ROWS)
        multiply_block(worker, n, worker->n_end - n < TILE_ROWS ? worker->n_end - n : TILE_ROWS);
    free(worker->tile);
    free(worker->codes);
    free(worker->parameters.scales);
    free(worker->parameters.zeros);
    return NULL;
}

/** Split the rows among threads; a thread that cannot be started is worked off here. */
static kry_status run_job(const struct job *job, int32_t threads) {
    struct worker workers[THREADS_MAX];
    int64_t blocks = (job->n_end - job->n_begin + TILE_ROWS - 1) / TILE_ROWS;
    int64_t count = threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : threads;
    if (count > blocks)
        count = blocks;
    for (int64_t i = 0; i < count; i++) {
        int64_t end = job->n_begin + blocks * (i + 1) / count * TILE_ROWS;
        workers[i] = (struct worker){.job = job,
                                     .n_begin = job->n_begin + blocks * i / count * TILE_ROWS,
                                     .n_end = end < job->n_end ? end : job->n_end};
        if (i > 0)
            workers[i].started = pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0;
    }
    kry_status status = KRY_OK;
    for (int64_t i = 0; i < count; i++) {
        if (workers[i].started)
            pthread_join(workers[i].thread, NULL);
        else
            work(&workers[i]);
        if (workers[i].status != KRY_OK)
            status = kry_error_set(workers[i].status, "oracle: out of memory");
    }
    return status;
}

kry_status oracle_multiply(const struct oracle *oracle, const struct oracle_product *product) {
    int64_t n_end = product->n_end ? product->n_end : oracle->out_features;
    int64_t k_end = product->k_end ? product->k_end : oracle->in_features;
    int64_t columns = k_end - product->k_begin;
    if (product->m < 0 || product->n_begin < 0 || product->n_begin >= n_end ||
        n_end > oracle->out_features || product->k_begin < 0 || product->k_begin >= k_end ||
        k_end > oracle->in_features || (product->x_stride && product->x_stride < columns))
        return kry_error_set(KRY_E_ARGUMENT,
                             "oracle: a partition outside the layer, or bad strides");
    if (product->m == 0)
        return KRY_OK;
    int64_t given_stride = product->x_stride ? product->x_stride : columns;
    int64_t x_stride = (columns + LANES - 1) / LANES * LANES;
    size_t count;
    if (__builtin_mul_overflow((size_t)product->m, (size_t)x_stride, &count))
        return kry_error_set(KRY_E_MEMORY, "oracle: x is too large");
    double *x = calloc(count, sizeof *x);
    double *factor = malloc((size_t)product->m * sizeof *factor);
    kry_status status;
    if (!x || !factor) {
        status = kry_error_set(KRY_E_MEMORY, "oracle: out of memory");
        goto out;
    }
    for (int64_t i = 0; i < product->m; i++) {
        for (int64_t k = 0; k < columns; k++)
            x[i * x_stride + k] = float_load(product->x, i * given_stride + k, product->x_type);
        factor[i] = quantize_token(x + i * x_stride, columns, oracle->activation);
    }
    memset(product->y, 0, (size_t)product->m * (size_t)(n_end - product->n_begin) * sizeof(double));
    struct job job = {.oracle = oracle,
                      .x = x,
                      .factor = factor,
                      .y = product->y,
                      .m = product->m,
                      .x_stride = x_stride,
                      .n_begin = product->n_begin,
                      .n_end = n_end,
                      .k_begin = product->k_begin,
                      .columns = columns,
                      .with_bias = oracle->has_bias && !product->without_bias};
    status = run_job(&job, product->threads);
out:
    free(x);
    free(factor);
    return status;
}

/* ---- the measure --------------------------------------------------------------------- */

double oracle_bound(uint32_t y_type, uint32_t activation) {
    double bound = y_type == KRY_TYPE_F32 ? 1e-5 : y_type == KRY_TYPE_F16 ? 1e-3 : 4e-3;
    return activation == KRY_ACTIVATION_NONE ? bound : fmax(bound, 3e-3);
}

/** |y - expected| as oracle_compare counts it. */
static double difference(double y, double expected, uint32_t y_type) {
    if (isnan(expected))
        return isnan(y) ? 0 : (double)INFINITY;
    if (isnan(y))
        return (double)INFINITY;
    double largest = float_largest(y_type);
    if (isinf(y)) {
        bool near = fabs(expected) >= largest * (1 - oracle_bound(y_type, KRY_ACTIVATION_NONE));
        return near && signbit(y) == signbit(expected) ? 0 : (double)INFINITY;
    }
    double distance = fabs(y - expected); /* infinite where expected is */
    return distance <= float_spacing(0, y_type) / 2 ? 0 : distance;
}

struct oracle_error oracle_compare(const void *y, uint32_t y_type, int64_t y_stride, int64_t m,
                                   int64_t n, const double *expected) {
    struct oracle_error error = {.largest = -1, .row = -1, .column = -1};
    double differences = 0, norm = 0;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double want = expected[i * n + j];
            double got = float_load(y, i * (y_stride ? y_stride : n) + j, y_type);
            double distance = difference(got, want, y_type);
            if (distance > error.largest)
                error = (struct oracle_error){.largest = distance, .row = i, .column = j};
            differences += distance * distance;
            if (!isnan(want)) {
                double magnitude = fmin(fabs(want), float_largest(y_type));
                norm += magnitude * magnitude;
            }
        }
    if (error.largest < 0)
        error.largest = 0;
    if (differences > 0)
        error.relative = norm > 0 ? sqrt(differences / norm) : (double)INFINITY;
    return error;
}
