/*
 * Checks of what apply computes, against the oracle.
 */
#include "layer.h"

#include "floats.h"
#include "random.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- an oracle for a layer ---------------------------------------------------------------- */

static struct oracle *make_oracle(const struct layer *layer, uint32_t activation) {
    struct oracle_drawn drawn = synthetic_drawn(layer->weights);
    struct oracle *oracle = NULL;
    if (oracle_open_drawn(&drawn, &oracle) != KRY_OK) {
        block(layer->suite);
        return NULL;
    }
    oracle->activation = activation;
    return oracle;
}

/* y [m, N] as it must be, for some rows of x. NULL: blocked. */
static double *multiply(const struct layer *layer, const struct oracle *oracle, const void *x,
                        uint32_t x_type, int64_t m, int64_t x_stride, bool with_bias) {
    double *y = malloc((size_t)(m * layer->linear->out_features) * sizeof *y);
    struct oracle_product product = {
        .m = m, .x = x, .y = y, .x_stride = x_stride, .x_type = x_type, .without_bias = !with_bias};
    if (y != NULL && oracle_multiply(oracle, &product) == KRY_OK)
        return y;
    block(layer->suite);
    free(y);
    return NULL;
}

/* Compare with the oracle, over all rows and then row by row: a row that is wrong alone hides
 * among many. */
static void expect_close(const struct layer *layer, const struct operands *operands,
                         const double *expected) {
    const kry_linear *linear = layer->linear;
    enum { COLUMNS_MEANT = 16, ROW_FACTOR = 4 };
    double part;
    struct oracle_error error = compare(layer, operands, expected, &part);
    int64_t m = operands->m;
    struct operands row = *operands;
    row.m = 1;
    for (int64_t i = 0; i < m && part <= 1 && m > 1 && linear->out_features >= COLUMNS_MEANT; i++) {
        double row_part;
        row.y.data =
            operands->y.data + (size_t)(i * operands->y_stride) * kry_type_bytes(linear->y_type);
        struct oracle_error row_error =
            compare(layer, &row, expected + i * linear->out_features, &row_part);
        if (row_part > ROW_FACTOR) {
            part = row_part;
            error = row_error;
            error.row = i;
        }
    }
    measure(layer->suite, part);
    if (part > 1)
        fail(layer->suite, NULL,
             "the relative error is %.3g times what is allowed; y[%" PRId64 ", %" PRId64
             "] is %.7g, expected %.7g",
             part, error.row, error.column,
             float_load(operands->y.data, error.row * operands->y_stride + error.column,
                        linear->y_type),
             expected[error.row * linear->out_features + error.column]);
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* Set a row of x to 0. */
static void clear_row(const struct layer *layer, const struct operands *operands, int64_t row) {
    size_t width = kry_type_bytes(layer->linear->x_type);
    memset(operands->x.data + (size_t)(row * operands->x_stride) * width, 0,
           (size_t)layer->linear->in_features * width);
}

/* Apply m rows at a time until all have been: some of x, to some of y. */
static bool apply_parts(const struct layer *layer, const struct operands *all, int64_t m) {
    struct operands part;
    if (!operands_get(layer, m, NULL, 0, &part))
        return false;
    bool good = true;
    for (size_t i = 0; i < (size_t)(all->m / m) && good; i++) {
        memcpy(part.x.data, all->x.data + i * part.x.bytes, part.x.bytes);
        good = apply(layer, &part, NULL);
        memcpy(all->y.data + i * part.y.bytes, part.y.data, part.y.bytes);
    }
    operands_release(&part);
    return good;
}

/* Judge applies of m rows, as many as it takes until y is large enough for its norm to mean
 * something: the one element of a 1x1 layer may cancel to almost nothing. */
static void try_rows(const struct layer *layer, const struct oracle *oracle, int64_t m) {
    enum { ELEMENTS = 64 };
    int64_t at_once = m * layer->linear->out_features;
    int64_t rows = (ELEMENTS + at_once - 1) / at_once * m;
    struct operands operands;
    double *expected = NULL;
    if (!operands_get(layer, rows, NULL, (uint64_t)m, &operands))
        return;
    if (m > 2) /* x of zeros gives y of zeros */
        clear_row(layer, &operands, m / 2);
    if (apply_parts(layer, &operands, m))
        expected = multiply(layer, oracle, operands.x.data, layer->linear->x_type, rows, 0, false);
    if (expected != NULL)
        expect_close(layer, &operands, expected);
    free(expected);
    operands_release(&operands);
}

void check_numbers(struct suite *suite, const struct item *item) {
    static const int64_t large[] = {9, 10, 11, 12, 13, 15, 16, 17, 23, 24, 25, 31, 32, 33, 40};
    struct layer layer;
    struct oracle *oracle = NULL;
    if (layer_ready(suite, item, &layer))
        oracle = make_oracle(&layer, activation_of(suite, &item->linear));
    if (oracle != NULL) {
        try_rows(&layer, oracle, 1 + item->number % 8);
        try_rows(&layer, oracle, large[(size_t)item->number % (sizeof large / sizeof large[0])]);
    }
    oracle_close(&oracle);
    layer_close(&layer);
}

/* ---- one-hot -------------------------------------------------------------------------------- */

enum { PROBES_QUICK = 64, PROBES = 512, PROBES_AT_ONCE = 32 };

static bool is_edge(const kry_linear *linear, int64_t k) {
    int64_t last = linear->in_features - 1, group = linear->group_size;
    int64_t in_group = group > 0 ? (k + linear->k_offset) % group : 1;
    return k == 0 || k == last || in_group == 0 || in_group == group - 1 || k % 8 == 0 ||
           k % 8 == 7;
}

/* Columns at edges: of the layer, of groups, of tiles. Some of them, evenly and with the first
 * and the last, where there are more than `most`. */
static int64_t choose_columns(const kry_linear *linear, int64_t *columns, int64_t most) {
    int64_t edges = 0, count = 0;
    for (int64_t k = 0; k < linear->in_features; k++)
        edges += is_edge(linear, k);
    for (int64_t k = 0, place = 0; k < linear->in_features; k++) {
        if (!is_edge(linear, k))
            continue;
        if (edges <= most || place == 0 || place == edges - 1 ||
            place * (most - 2) / edges != (place + 1) * (most - 2) / edges)
            columns[count++] = k;
        place++;
    }
    return count;
}

/* Whether y is the weight, rounded. A 1 that was quantized comes back through a factor of f32,
 * so a product that is kept in f32 may be rounded twice more. */
static bool is_weight(double found, double weight, uint32_t y_type, uint32_t activation) {
    if (fabs(weight) > float_largest(y_type))
        return !isfinite(found);
    double steps = activation == KRY_ACTIVATION_NONE || y_type != KRY_TYPE_F32 ? 1 : 2;
    return fabs(found - weight) <= steps * float_spacing(weight, y_type);
}

/* Apply some one-hot rows; w [N, K] is what they must give back. */
static void probe(const struct layer *layer, const double *w, const int64_t *columns,
                  int64_t count) {
    const kry_linear *linear = layer->linear;
    struct operands operands;
    if (!operands_get(layer, count, NULL, 0, &operands))
        return;
    memory_fill(&operands.x, 0);
    for (int64_t row = 0; row < count; row++)
        float_store(operands.x.data, row * operands.x_stride + columns[row], linear->x_type, 1);
    uint32_t activation = activation_of(layer->suite, linear);
    bool good = apply(layer, &operands, NULL);
    for (int64_t row = 0; row < count && good; row++)
        for (int64_t n = 0; n < linear->out_features && good; n++) {
            double found = float_load(operands.y.data, row * operands.y_stride + n, linear->y_type);
            double weight = w[n * linear->in_features + columns[row]];
            good = is_weight(found, weight, linear->y_type, activation);
            if (!good)
                fail(layer->suite, NULL,
                     "x with a single 1 at column %" PRId64 " gives y[%" PRId64
                     "] = %.9g, expected the weight %.9g",
                     columns[row], n, found, weight);
        }
    operands_release(&operands);
}

void check_one_hot(struct suite *suite, const struct item *item) {
    const kry_linear *linear = &item->linear;
    struct layer layer;
    struct oracle *oracle = NULL;
    double *w = malloc((size_t)linear->in_features * (size_t)linear->out_features * sizeof *w);
    int64_t *columns = malloc((size_t)linear->in_features * sizeof *columns);
    if (w == NULL || columns == NULL)
        block(suite);
    else if (layer_ready(suite, item, &layer))
        oracle = make_oracle(&layer, KRY_ACTIVATION_NONE);
    if (oracle != NULL && oracle_rows(oracle, 0, linear->out_features, w) == KRY_OK) {
        int64_t most = suite->plan->quick ? PROBES_QUICK : PROBES;
        int64_t count = choose_columns(linear, columns, most);
        for (int64_t i = 0; i < count; i += PROBES_AT_ONCE)
            probe(&layer, w, columns + i, count - i < PROBES_AT_ONCE ? count - i : PROBES_AT_ONCE);
    }
    oracle_close(&oracle);
    if (w != NULL && columns != NULL)
        layer_close(&layer);
    free(w);
    free(columns);
}

/* ---- many rows --------------------------------------------------------------------------------
 */

/*
 * Freivalds: for signs r, r^T y must be (r^T x) W^T, which costs one row of the oracle. An
 * error of norm e anywhere in y shows with norm e on average. Not where activations are
 * quantized, since that is not linear in x.
 */
static void project(const struct layer *layer, const struct operands *operands,
                    const struct oracle *oracle, struct random random) {
    const kry_linear *linear = layer->linear;
    int64_t rows = linear->in_features, columns = linear->out_features;
    float *x = calloc((size_t)rows, sizeof *x);
    double *sums = calloc((size_t)(rows + columns), sizeof *sums), *y = sums + rows;
    double norm = 0;
    for (int64_t i = 0; i < operands->m && x != NULL && sums != NULL; i++) {
        double sign = random_below(&random, 2) > 0 ? 1 : -1;
        for (int64_t k = 0; k < rows; k++)
            sums[k] +=
                sign * float_load(operands->x.data, i * operands->x_stride + k, linear->x_type);
        for (int64_t n = 0; n < columns; n++) {
            double value = float_load(operands->y.data, i * operands->y_stride + n, linear->y_type);
            y[n] += sign * value;
            norm += value * value;
        }
    }
    for (int64_t k = 0; k < rows && x != NULL && sums != NULL; k++)
        x[k] = (float)sums[k];
    double *expected = NULL;
    if (x != NULL && sums != NULL)
        expected = multiply(layer, oracle, x, KRY_TYPE_F32, 1, 0, false);
    if (expected != NULL) {
        double difference = 0, bound = oracle_bound(linear->y_type, KRY_ACTIVATION_NONE);
        for (int64_t n = 0; n < columns; n++)
            difference += (y[n] - expected[n]) * (y[n] - expected[n]);
        double part = sqrt(difference / norm) / (2 * bound);
        measure(layer->suite, part);
        if (!(part <= 1))
            fail(layer->suite, NULL,
                 "a random projection of y is off by %.3g times what is allowed", part);
    }
    free(expected);
    free(sums);
    free(x);
}

/* The rows themselves, the last and a few others, compared together. */
static void sample_rows(const struct layer *layer, const struct operands *operands,
                        const struct oracle *oracle, struct random random) {
    enum { SAMPLES = 12, FACTOR = 4 /* so few are not as even as many */ };
    const kry_linear *linear = layer->linear;
    size_t x_row = (size_t)operands->x_stride * kry_type_bytes(linear->x_type);
    size_t y_row = (size_t)operands->y_stride * kry_type_bytes(linear->y_type);
    unsigned char *x = malloc(SAMPLES * x_row), *y = malloc(SAMPLES * y_row);
    double *expected = NULL;
    int64_t rows[SAMPLES];
    for (int i = 0; i < SAMPLES && x != NULL && y != NULL; i++) {
        rows[i] = i == 0 ? operands->m - 1 : (int64_t)random_below(&random, (uint64_t)operands->m);
        memcpy(x + (size_t)i * x_row, operands->x.data + (size_t)rows[i] * x_row, x_row);
        memcpy(y + (size_t)i * y_row, operands->y.data + (size_t)rows[i] * y_row, y_row);
    }
    if (x != NULL && y != NULL)
        expected = multiply(layer, oracle, x, linear->x_type, SAMPLES, 0, false);
    if (expected != NULL) {
        struct operands sample = {.m = SAMPLES, .y.data = y, .y_stride = operands->y_stride};
        double part;
        struct oracle_error error = compare(layer, &sample, expected, &part);
        measure(layer->suite, part / FACTOR);
        if (!(part <= FACTOR))
            fail(layer->suite, NULL,
                 "row %" PRId64 ", column %" PRId64 ": %.7g, expected %.7g; the relative error of "
                 "a few rows is %.3g times what is allowed",
                 rows[error.row], error.column,
                 float_load(y, error.row * operands->y_stride + error.column, linear->y_type),
                 expected[error.row * linear->out_features + error.column], part);
    }
    free(expected);
    free(x);
    free(y);
}

void check_large_m(struct suite *suite, const struct item *item) {
    enum { STREAM = 200 };
    struct random random = random_seeded(weights_seed(suite, item), STREAM);
    int64_t m = 257 + (int64_t)random_below(&random, suite->plan->quick ? 60 : 500);
    struct layer layer;
    struct operands operands;
    struct oracle *oracle = NULL;
    uint32_t activation = activation_of(suite, &item->linear);
    if (layer_ready(suite, item, &layer))
        oracle = make_oracle(&layer, activation);
    if (oracle != NULL && applied(&layer, m, 1, &operands)) {
        if (activation == KRY_ACTIVATION_NONE)
            project(&layer, &operands, oracle, random);
        sample_rows(&layer, &operands, oracle, random);
        operands_release(&operands);
    }
    oracle_close(&oracle);
    layer_close(&layer);
}

/* ---- bias and NaN ----------------------------------------------------------------------- */

/* Where y is 0 without a bias, it is the bias to the bit with one. */
static void expect_bias_alone(const struct layer *layer, const struct operands *operands,
                              const double *without, int64_t row) {
    const kry_linear *linear = layer->linear;
    for (int64_t n = 0; n < linear->out_features; n++) {
        double found = float_load(operands->y.data, row * operands->y_stride + n, linear->y_type);
        double bias = float_load(operands->bias.data, n, linear->y_type);
        if (without[row * linear->out_features + n] == 0 && found != bias)
            fail(layer->suite, NULL,
                 "x of zeros gives y[%" PRId64 ", %" PRId64 "] = %.9g, expected the bias %.9g", row,
                 n, found, bias);
    }
}

/* y with a bias is y without, plus the bias. */
void check_bias(struct suite *suite, const struct item *item) {
    enum { ROWS = 3 };
    const kry_linear *linear = &item->linear;
    struct layer layer;
    struct operands operands = {0};
    double *without = NULL, *with = NULL;
    if (!layer_ready(suite, item, &layer) || !operands_get(&layer, ROWS, NULL, 1, &operands))
        goto out;
    clear_row(&layer, &operands, ROWS - 1);
    if (!apply(&layer, &operands, NULL))
        goto out;
    without = y_values(&layer, &operands);
    with = y_values(&layer, &operands);
    operands.with_bias = true;
    if (without == NULL || with == NULL || !apply(&layer, &operands, NULL))
        goto out;
    for (int64_t i = 0; i < ROWS * linear->out_features; i++)
        with[i] += float_load(operands.bias.data, i % linear->out_features, linear->y_type);
    expect_same(&layer, &operands, with, "y with a bias is not y without, plus the bias");
    expect_bias_alone(&layer, &operands, without, ROWS - 1);
out:
    free(with);
    free(without);
    operands_release(&operands);
    layer_close(&layer);
}

/* A row with a NaN becomes NaN, all of it, and the others stay what they were. Not in the last
 * column: a kernel that loses it has wrong numbers, which another check reports. */
void check_nan(struct suite *suite, const struct item *item) {
    const kry_linear *linear = &item->linear;
    int64_t m = 2 + item->number % 19, spoilt = item->number % m;
    struct layer layer;
    struct operands operands;
    if (linear->in_features < 2) {
        pass_over(suite);
        return;
    }
    int64_t column = (item->number * 7919) % (linear->in_features - 1);
    if (!layer_ready(suite, item, &layer) || !applied(&layer, m, 1, &operands)) {
        layer_close(&layer);
        return;
    }
    double *before = y_values(&layer, &operands);
    float_store(operands.x.data, spoilt * operands.x_stride + column, linear->x_type, (double)NAN);
    if (before != NULL && apply(&layer, &operands, NULL)) {
        for (int64_t n = 0; n < linear->out_features; n++) {
            double found =
                float_load(operands.y.data, spoilt * operands.y_stride + n, linear->y_type);
            if (!isnan(found))
                fail(suite, NULL,
                     "x[%" PRId64 ", %" PRId64 "] is NaN, and y[%" PRId64 ", %" PRId64 "] is %g",
                     spoilt, column, spoilt, n, found);
            before[spoilt * linear->out_features + n] = (double)NAN;
        }
        expect_same(&layer, &operands, before, "beside a row that holds a NaN");
    }
    free(before);
    operands_release(&operands);
    layer_close(&layer);
}
