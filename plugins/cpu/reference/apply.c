/*
 * y = x * dequant(W)^T + bias, by the definition.
 *
 * Order      x is taken in passes of up to X_ROWS rows. A pass turns its rows into doubles,
 *            quantized where the model asks for it; then each row n of W is dequantized once,
 *            PIECE columns at a time, and each piece is multiplied with every row of x.
 * Numerics   Elements and dequantized weights are exact in double; products and sums are
 *            doubles; bias is added in double; one rounding at the store. Column k of a piece
 *            is summed in lane k % LANES, lanes are added in pairs, pieces in the order of k:
 *            so an element of y depends on its row of x and its row of W alone, not on m nor
 *            on threads.
 *
 * scratch buffer  shape                 type
 * x_scales        [min(m, X_ROWS)]      double
 * x               [min(m, X_ROWS), K]   double
 */
#include "layout.h"
#include "numbers.h"
#include "reference.h"

enum {
    X_ROWS = 16,
    PIECE = 512, /* columns; a multiple of the codes in a word and of LANES */
    LANES = 8,
    TASKS_MAX = 1024 /* parts of N that may run at once */
};

/* One pass, as its tasks see it. */
struct pass {
    const kry_linear *linear;
    const kry_apply_args *args;
    const unsigned char *prepared;
    struct reference_layout layout;
    int64_t x_stride; /* elements */
    int64_t y_stride;
    int64_t row_begin; /* in x and y */
    int64_t rows;
    int64_t n_per_task;
    double *x_scales;
    double *x;
};

static int64_t at_most(int64_t value, int64_t limit) { return value < limit ? value : limit; }

kry_status reference_workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                               kry_workspace *out) {
    (void)device;
    out->scratch_bytes = (uint64_t)at_most(m, X_ROWS) * sizeof(double) *
                         (uint64_t)(linear->in_features + 1); /* the row and its scale */
    out->zeroed_bytes = 0;
    return KRY_OK;
}

/* Quantize a row of x in place as types.h defines it and return its scale. */
static double quantize_row(uint32_t quantization, double *x, int64_t count) {
    float largest = 0;
    for (int64_t k = 0; k < count; k++)
        largest = fmaxf(largest, fabsf((float)x[k]));
    float scale = largest / (quantization == KRY_ACTIVATION_INT8_TOKEN ? 127.0f : 448.0f);
    if (scale == 0)
        scale = 1;
    for (int64_t k = 0; k < count; k++) {
        float scaled = (float)x[k] / scale;
        if (quantization == KRY_ACTIVATION_INT8_TOKEN) {
            float rounded = rintf(scaled); /* within +-128; NaN stays, as the result must show it */
            x[k] = rounded > 127 ? 127 : rounded < -128 ? -128 : rounded;
        } else {
            x[k] = number_round_e4m3(scaled);
        }
    }
    return scale;
}

/* Task: row r of the pass becomes doubles. */
static void take_x_row(void *argument, int64_t r) {
    const struct pass *pass = argument;
    const kry_linear *linear = pass->linear;
    double *x = pass->x + r * linear->in_features;
    int64_t begin = (pass->row_begin + r) * pass->x_stride;
    for (int64_t k = 0; k < linear->in_features; k++)
        x[k] = number_load(linear->x_type, pass->args->x, begin + k);
    pass->x_scales[r] = 1;
    if (linear->activation_quantization != KRY_ACTIVATION_NONE)
        pass->x_scales[r] = quantize_row(linear->activation_quantization, x, linear->in_features);
}

/* The codes of whole words, one a byte. */
static inline void unpack_words(const unsigned char *from, int64_t words, uint32_t bits,
                                uint8_t *codes) {
    for (; words > 0; words--) {
        uint32_t word;
        memcpy(&word, from, sizeof(word));
        from += sizeof(word);
        for (uint32_t field = 0; field < 32 / bits; field++)
            *codes++ = (uint8_t)(word >> field * bits & ((1u << bits) - 1));
    }
}

/* Codes of a row from k_begin on, count of them and the rest of the last word, one a byte;
   k_begin is the first of a word. */
static void unpack_codes(const struct reference_layout *layout, const unsigned char *row,
                         int64_t k_begin, int64_t count, uint8_t *codes) {
    const unsigned char *from = row + (uint64_t)k_begin / layout->per_word * sizeof(uint32_t);
    int64_t words = (count + layout->per_word - 1) / layout->per_word;
    if (layout->bits == 4) /* told apart here, so that each loop's shifts are constants */
        unpack_words(from, words, 4, codes);
    else
        unpack_words(from, words, 8, codes);
}

/* The scale of a row's group; *zero_point gets its zero point or the type's bias. */
static double group_of_row(const struct pass *pass, const unsigned char *row, int64_t group,
                           int32_t *zero_point) {
    const struct reference_layout *layout = &pass->layout;
    if (kry_weight_has_zero_points(pass->linear->weight_type))
        *zero_point = row[layout->zero_points_at + (uint64_t)group];
    else
        *zero_point = 1 << (layout->bits - 1);
    return number_load(pass->linear->scale_type, row + layout->scales_at, group);
}

/* The first column after k that belongs to another group, where there is no act-order. */
static int64_t group_end(const kry_linear *linear, int64_t k) {
    if (linear->group_size < 0)
        return linear->in_features;
    int64_t full_k = k + linear->k_offset;
    return full_k - full_k % linear->group_size + linear->group_size - linear->k_offset;
}

/* w[k - k_begin] = dequant(W)[n][k] for count columns; k_begin is a multiple of PIECE. */
static void dequantize(const struct pass *pass, int64_t n, int64_t k_begin, int64_t count,
                       double *w) {
    const unsigned char *row = pass->prepared + reference_row_at(&pass->layout, n);
    uint8_t codes[PIECE];
    unpack_codes(&pass->layout, row, k_begin, count, codes);
    for (int64_t k = 0; k < count;) {
        int64_t group, end;
        if (pass->linear->act_order) {
            int32_t number;
            memcpy(&number, pass->prepared + (k_begin + k) * (int64_t)sizeof(number),
                   sizeof(number));
            group = number;
            end = k + 1;
        } else {
            group = kry_linear_group_of(pass->linear, k_begin + k);
            end = at_most(group_end(pass->linear, k_begin + k) - k_begin, count);
        }
        int32_t zero_point;
        double scale = group_of_row(pass, row, group, &zero_point);
        for (; k < end; k++)
            w[k] = (codes[k] - zero_point) * scale;
    }
}

static double dot(const double *a, const double *b, int64_t count) {
    double lanes[LANES] = {0};
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES)
        for (int64_t lane = 0; lane < LANES; lane++)
            lanes[lane] += a[k + lane] * b[k + lane];
    for (; k < count; k++)
        lanes[k % LANES] += a[k] * b[k];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/* Column n of y, in all rows of the pass. */
static void compute_output_feature(const struct pass *pass, int64_t n) {
    const kry_linear *linear = pass->linear;
    int64_t in_features = linear->in_features;
    double sums[X_ROWS] = {0};
    for (int64_t k = 0; k < in_features; k += PIECE) {
        double w[PIECE];
        int64_t count = at_most(PIECE, in_features - k);
        dequantize(pass, n, k, count, w);
        for (int64_t r = 0; r < pass->rows; r++)
            sums[r] += dot(w, pass->x + r * in_features + k, count);
    }
    double bias = pass->args->bias != NULL ? number_load(linear->y_type, pass->args->bias, n) : 0;
    for (int64_t r = 0; r < pass->rows; r++)
        number_store(linear->y_type, pass->args->y, (pass->row_begin + r) * pass->y_stride + n,
                     sums[r] * pass->x_scales[r] + bias);
}

/* Task: one part of the output features. */
static void compute_part(void *argument, int64_t part) {
    const struct pass *pass = argument;
    int64_t begin = part * pass->n_per_task;
    int64_t end = at_most(begin + pass->n_per_task, pass->linear->out_features);
    for (int64_t n = begin; n < end; n++)
        compute_output_feature(pass, n);
}

kry_status reference_apply(const kry_binding *binding, const kry_apply_args *args) {
    const kry_linear *linear = binding->linear;
    const kry_host *host = args->host != NULL ? args->host : binding->host;
    int64_t out_features = linear->out_features;
    struct pass pass = {
        .linear = linear,
        .args = args,
        .prepared = binding->prepared,
        .x_stride = args->x_stride != 0 ? args->x_stride : linear->in_features,
        .y_stride = args->y_stride != 0 ? args->y_stride : out_features,
        .n_per_task = (out_features + TASKS_MAX - 1) / TASKS_MAX,
        .x_scales = args->scratch,
        .x = (double *)args->scratch + at_most(args->m, X_ROWS),
    };
    (void)reference_layout_of(linear, &pass.layout); /* was prepared, so it can be laid out */
    int64_t parts = (out_features + pass.n_per_task - 1) / pass.n_per_task;
    for (int64_t row = 0; row < args->m; row += X_ROWS) {
        pass.row_begin = row;
        pass.rows = at_most(args->m - row, X_ROWS);
        kry_parallel_for(host, pass.rows, take_x_row, &pass);
        kry_parallel_for(host, parts, compute_part, &pass);
    }
    return KRY_OK;
}
