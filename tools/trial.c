/*
 * A trial of one layer. Memory is the host's: a trial needs a device that shares it, a CPU.
 */
#include "trial.h"

#include "clock.h"
#include "floats.h"
#include "random.h"
#include "synthetic.h"

#include <kernelry/plugin.h>

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GAP = 7,          /* elements between rows of x and of y; odd, so that rows are unaligned */
    POISON = 0xff,    /* every element type reads it as NaN */
    PROBES_MAX = 8,   /* rows of the one-hot check */
    REPEATS_MAX = 15, /* applies that are timed, */
    TIMED_NS = 60 * 1000 * 1000 /* and after how long no further one is */
};

void *trial_allocate(uint64_t bytes) {
    uint64_t whole = (bytes / KRY_ALIGNMENT + 1) * KRY_ALIGNMENT;
    return bytes > UINT64_MAX - KRY_ALIGNMENT ? NULL : aligned_alloc(KRY_ALIGNMENT, whole);
}

/** Remember the first thing that went wrong. */
static void KRY_PRINTF(3, 4) fail(struct trial *trial, kry_status status, const char *format, ...) {
    if (trial->complaint != NULL)
        return;
    trial->status = status;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&trial->complaint, format, arguments) < 0)
        trial->complaint = strdup("out of memory");
    va_end(arguments);
}

/* ---- operands ------------------------------------------------------------------------ */

/** The operands of applies with one m. */
struct operands {
    int64_t m;
    int64_t x_stride;
    int64_t y_stride;
    uint64_t y_bytes;
    void *x;
    unsigned char *y;
    void *scratch;
    unsigned char *zeroed;
    double *expected; /* [m, N] */
    kry_workspace workspace;
};

static void operands_release(struct operands *operands) {
    free(operands->x);
    free(operands->y);
    free(operands->scratch);
    free(operands->zeroed);
    free(operands->expected);
}

/** Allocate for m rows; y is poisoned, the zeroed part cleared, x left as it is. */
static kry_status operands_acquire(struct operands *operands, const kry_layer *layer,
                                   const kry_linear *linear, int64_t m) {
    *operands = (struct operands){.m = m,
                                  .x_stride = linear->in_features + GAP,
                                  .y_stride = linear->out_features + GAP,
                                  .workspace = KRY_INIT(kry_workspace)};
    kry_status status = kry_layer_workspace(layer, m, &operands->workspace);
    if (status != KRY_OK)
        return status;
    uint64_t x_count, y_count;
    if (__builtin_mul_overflow((uint64_t)m, (uint64_t)operands->x_stride, &x_count) ||
        __builtin_mul_overflow((uint64_t)m, (uint64_t)operands->y_stride, &y_count) ||
        x_count > INT64_MAX / 8 || y_count > INT64_MAX / 8)
        return kry_error_set(KRY_E_MEMORY, "m %" PRId64 " is beyond any memory", m);
    operands->y_bytes = y_count * kry_type_bytes(linear->y_type);
    operands->x = trial_allocate(x_count * kry_type_bytes(linear->x_type));
    operands->y = trial_allocate(operands->y_bytes);
    operands->scratch = trial_allocate(operands->workspace.scratch_bytes);
    operands->zeroed = trial_allocate(operands->workspace.zeroed_bytes);
    operands->expected = trial_allocate(y_count * sizeof *operands->expected);
    if (operands->x == NULL || operands->y == NULL || operands->scratch == NULL ||
        operands->zeroed == NULL || operands->expected == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory for the operands of m %" PRId64, m);
    memset(operands->y, POISON, operands->y_bytes);
    memset(operands->scratch, POISON, operands->workspace.scratch_bytes);
    memset(operands->zeroed, 0, operands->workspace.zeroed_bytes);
    return KRY_OK;
}

static kry_status apply(const kry_layer *layer, const struct operands *operands, const void *bias) {
    kry_apply_args args = KRY_INIT(kry_apply_args);
    args.m = operands->m;
    args.x = operands->x;
    args.y = operands->y;
    args.bias = bias;
    args.x_stride = operands->x_stride;
    args.y_stride = operands->y_stride;
    args.scratch = operands->scratch;
    args.scratch_bytes = operands->workspace.scratch_bytes;
    args.zeroed = operands->zeroed;
    args.zeroed_bytes = operands->workspace.zeroed_bytes;
    return kry_layer_apply(layer, &args);
}

/** Check what no norm shows: writes between the rows of y, and a zeroed part that is not. */
static void check_edges(struct trial *trial, const struct operands *operands,
                        const kry_linear *linear) {
    size_t width = kry_type_bytes(linear->y_type);
    for (int64_t row = 0; row < operands->m; row++) {
        const unsigned char *gap =
            operands->y + (size_t)(row * operands->y_stride + linear->out_features) * width;
        for (size_t i = 0; i < GAP * width; i++)
            if (gap[i] != POISON)
                fail(trial, KRY_E_PLUGIN,
                     "kernel %s: m %" PRId64 ": wrote behind row %" PRId64 " of y",
                     trial->kernel.kernel, operands->m, row);
    }
    for (uint64_t i = 0; i < operands->workspace.zeroed_bytes; i++)
        if (operands->zeroed[i] != 0) {
            fail(trial, KRY_E_PLUGIN,
                 "kernel %s: m %" PRId64 ": left the zeroed part of the workspace not cleared",
                 trial->kernel.kernel, operands->m);
            return;
        }
}

/* ---- random activations -------------------------------------------------------------- */

static int compare_times(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/** Apply again until enough was measured; the median. */
static kry_status measure(const kry_layer *layer, const struct operands *operands, const void *bias,
                          int64_t *median) {
    int64_t times[REPEATS_MAX], spent = 0;
    size_t count = 0;
    while (count < REPEATS_MAX && (count == 0 || spent < TIMED_NS)) {
        int64_t begin = clock_now();
        kry_status status = apply(layer, operands, bias);
        if (status != KRY_OK)
            return status;
        times[count] = clock_now() - begin;
        spent += times[count++];
    }
    qsort(times, count, sizeof times[0], compare_times);
    *median = times[count / 2];
    return KRY_OK;
}

/** Compare y with the oracle's. */
static void judge(struct trial *trial, const struct trial_subject *subject,
                  const struct operands *operands, struct trial_apply *result) {
    const kry_linear *linear = subject->linear;
    struct oracle_error error =
        oracle_compare(operands->y, linear->y_type, operands->y_stride, operands->m,
                       linear->out_features, operands->expected);
    result->error = error.relative;
    result->good = error.relative <= trial->bound;
    if (!result->good)
        fail(trial, KRY_OK,
             "kernel %s: m %" PRId64 ": relative error %.3g is above the bound %.3g; the worst "
             "element is y[%" PRId64 ", %" PRId64 "] = %g, expected %g",
             trial->kernel.kernel, operands->m, error.relative, trial->bound, error.row,
             error.column,
             float_load(operands->y, error.row * operands->y_stride + error.column, linear->y_type),
             operands->expected[error.row * linear->out_features + error.column]);
}

static kry_status try_m(const struct trial_setting *setting, const struct trial_subject *subject,
                        const kry_layer *layer, int64_t m, struct trial *trial) {
    const kry_linear *linear = subject->linear;
    struct trial_apply *result = &trial->applies[trial->apply_count];
    *result = (struct trial_apply){.m = m};
    struct operands operands;
    kry_status status = operands_acquire(&operands, layer, linear, m);
    if (status == KRY_OK) {
        synthetic_activations(operands.x, linear->x_type, m, linear->in_features, operands.x_stride,
                              setting->seed, random_stream_of(subject->name) + (uint64_t)m);
        struct oracle_product product = {.m = m,
                                         .x = operands.x,
                                         .y = operands.expected,
                                         .x_stride = operands.x_stride,
                                         .x_type = linear->x_type,
                                         .threads = setting->threads};
        status = oracle_multiply(subject->oracle, &product);
    }
    if (status != KRY_OK) {
        fail(trial, status, "m %" PRId64 ": %s", m, kry_error_message());
        goto out;
    }
    status = apply(layer, &operands, subject->bias);
    if (status == KRY_OK) {
        judge(trial, subject, &operands, result);
        check_edges(trial, &operands, linear);
        status = measure(layer, &operands, subject->bias, &result->nanoseconds);
    }
    if (status != KRY_OK)
        fail(trial, status, "%s", kry_error_message()); /* names the kernel */
    else
        trial->apply_count++;
out:
    operands_release(&operands);
    return status;
}

/* ---- one-hot activations ------------------------------------------------------------- */

/** Columns at both ends and beside edges of groups and tiles, each once. Returns how many. */
static int64_t choose_probes(const kry_linear *linear, int64_t columns[PROBES_MAX]) {
    int64_t last = linear->in_features - 1;
    int64_t group = linear->group_size > 0 ? linear->group_size : linear->in_features;
    int64_t first_edge = group - linear->k_offset % group;
    int64_t last_edge = last - (last + linear->k_offset) % group;
    int64_t wanted[PROBES_MAX] = {0,         last,          first_edge,       first_edge - 1,
                                  last_edge, last_edge - 1, last / 128 * 128, last / 2};
    int64_t count = 0;
    for (int i = 0; i < PROBES_MAX; i++) {
        bool fresh = wanted[i] >= 0 && wanted[i] <= last;
        for (int64_t j = 0; j < count && fresh; j++)
            fresh = columns[j] != wanted[i];
        if (fresh)
            columns[count++] = wanted[i];
    }
    return count;
}

/** Whether an element of a one-hot row's result is the weight, rounded. */
static bool is_rounded(double found, double expected, const kry_linear *linear) {
    if (isnan(expected) || fabs(expected) > float_largest(linear->y_type))
        return !isfinite(found);
    /* A quantized 1 is scaled back in f32, and may come out beside 1. */
    double steps = linear->activation_quantization == KRY_ACTIVATION_NONE ? 1 : 2;
    return fabs(found - expected) <= steps * float_spacing(expected, linear->y_type);
}

/** Apply rows that are 0 but for a 1, and compare each element with the weight it must be. */
static kry_status try_probes(const struct trial_setting *setting,
                             const struct trial_subject *subject, const kry_layer *layer,
                             struct trial *trial) {
    const kry_linear *linear = subject->linear;
    int64_t columns[PROBES_MAX], count = choose_probes(linear, columns);
    struct operands operands;
    kry_status status = operands_acquire(&operands, layer, linear, count);
    if (status == KRY_OK) {
        memset(operands.x, 0, (size_t)(count * operands.x_stride) * kry_type_bytes(linear->x_type));
        for (int64_t row = 0; row < count; row++)
            float_store(operands.x, row * operands.x_stride + columns[row], linear->x_type, 1);
        struct oracle_product product = {.m = count,
                                         .x = operands.x,
                                         .y = operands.expected,
                                         .x_stride = operands.x_stride,
                                         .x_type = linear->x_type,
                                         .threads = setting->threads,
                                         .without_bias = true};
        status = oracle_multiply(subject->oracle, &product);
    }
    if (status != KRY_OK) {
        fail(trial, status, "one-hot activations: %s", kry_error_message());
        goto out;
    }
    status = apply(layer, &operands, NULL);
    if (status != KRY_OK) {
        fail(trial, status, "%s", kry_error_message()); /* names the kernel */
        goto out;
    }
    for (int64_t row = 0; row < count; row++)
        for (int64_t n = 0; n < linear->out_features; n++) {
            double found = float_load(operands.y, row * operands.y_stride + n, linear->y_type);
            double expected = operands.expected[row * linear->out_features + n];
            if (!is_rounded(found, expected, linear))
                fail(trial, KRY_OK,
                     "kernel %s: x with a single 1 at column %" PRId64 " gives y[%" PRId64
                     "] = %.9g; that weight is %.9g",
                     trial->kernel.kernel, columns[row], n, found, expected);
        }
out:
    operands_release(&operands);
    return status;
}

/* ---- the trial ----------------------------------------------------------------------- */

/** Make the layer and prepare its weights. */
static kry_status make_layer(const struct trial_setting *setting,
                             const struct trial_subject *subject, kry_layer **layer,
                             struct trial *trial) {
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = setting->device;
    args.linear = subject->linear;
    args.kernel = setting->kernel;
    kry_status status = kry_layer_create(setting->registry, &args, layer);
    if (status != KRY_OK) {
        fail(trial, status, "%s", kry_error_message());
        return status;
    }
    trial->kernel = KRY_INIT(kry_kernel_info);
    kry_sizes sizes = KRY_INIT(kry_sizes);
    status = kry_layer_kernel(*layer, &trial->kernel);
    trial->has_kernel = status == KRY_OK;
    if (status == KRY_OK)
        status = kry_layer_sizes(*layer, &sizes);
    if (status != KRY_OK) {
        fail(trial, status, "%s", kry_error_message());
        return status;
    }
    trial->group_size = kry_layer_linear(*layer, 1)->group_size;
    trial->prepared_bytes = sizes.prepared_bytes;

    kry_prepare_args prepare = KRY_INIT(kry_prepare_args);
    prepare.weights = subject->weights;
    int64_t begin = clock_now();
    status = kry_layer_prepare(*layer, &prepare);
    trial->prepare_nanoseconds = clock_now() - begin;
    if (status != KRY_OK)
        fail(trial, status, "%s", kry_error_message());
    return status;
}

void trial_run(const struct trial_setting *setting, const struct trial_subject *subject,
               struct trial *out) {
    *out = (struct trial){0};
    kry_layer *layer = NULL;
    if (make_layer(setting, subject, &layer, out) != KRY_OK)
        goto out;
    const kry_linear *linear = subject->linear;
    uint32_t activation = linear->activation_quantization;
    if ((out->kernel.flags & KRY_KERNEL_INT8_ACTIVATIONS) != 0 &&
        (linear->allowed & KRY_ALLOW_INT8_ACTIVATIONS) != 0 && activation == KRY_ACTIVATION_NONE)
        activation = KRY_ACTIVATION_INT8_TOKEN;
    subject->oracle->activation = activation;
    out->bound = oracle_bound(linear->y_type, activation);
    out->applies = calloc(setting->m_count + 1, sizeof *out->applies);
    if (out->applies == NULL) {
        fail(out, KRY_E_MEMORY, "out of memory");
        goto out;
    }
    kry_status status = KRY_OK;
    for (size_t i = 0; i < setting->m_count && status == KRY_OK; i++)
        status = try_m(setting, subject, layer, setting->m[i], out);
    if (status == KRY_OK)
        try_probes(setting, subject, layer, out);
out:
    kry_layer_destroy(&layer);
}

void trial_free(struct trial *trial) {
    free(trial->complaint);
    free(trial->applies);
    *trial = (struct trial){0};
}
