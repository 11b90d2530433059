/*
 * A trial of one layer. Operands are made and judged on the host; where the device does not share
 * its memory, they have twins there.
 */
#include "trial.h"

#include "clock.h"
#include "device_memory.h"
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
    const struct device_memory *memory;
    int64_t m;
    int64_t x_stride;
    int64_t y_stride;
    struct twin x, y, scratch, zeroed, bias;
    double *expected; /* [m, N] */
    kry_workspace workspace;
};

static void operands_release(struct operands *operands) {
    twin_release(operands->memory, &operands->x);
    twin_release(operands->memory, &operands->y);
    twin_release(operands->memory, &operands->scratch);
    twin_release(operands->memory, &operands->zeroed);
    twin_release(operands->memory, &operands->bias);
    free(operands->expected);
}

/** Get memory for the workspace, x, y and the bias (NULL: none) of m rows. */
static kry_status operands_get(struct operands *operands, const kry_linear *linear,
                               const void *bias, uint64_t x_count, uint64_t y_count) {
    const struct device_memory *memory = operands->memory;
    size_t width = kry_type_bytes(linear->y_type);
    uint64_t bias_bytes = bias != NULL ? (uint64_t)linear->out_features * width : 0;
    operands->expected = trial_allocate(y_count * sizeof *operands->expected);
    kry_status status =
        operands->expected != NULL ? KRY_OK : kry_error_set(KRY_E_MEMORY, "out of memory");
    if (status == KRY_OK)
        status = twin_get(memory, x_count * kry_type_bytes(linear->x_type), &operands->x);
    if (status == KRY_OK)
        status = twin_get(memory, y_count * width, &operands->y);
    if (status == KRY_OK)
        status = twin_get(memory, operands->workspace.scratch_bytes, &operands->scratch);
    if (status == KRY_OK)
        status = twin_get(memory, operands->workspace.zeroed_bytes, &operands->zeroed);
    if (status == KRY_OK && bias != NULL)
        status = twin_get(memory, bias_bytes, &operands->bias);
    if (status == KRY_OK && bias != NULL)
        memcpy(operands->bias.host, bias, bias_bytes);
    return status;
}

/** Allocate for m rows; y is poisoned, the zeroed part cleared, x left as it is. */
static kry_status operands_acquire(struct operands *operands, const struct device_memory *memory,
                                   const kry_layer *layer, const kry_linear *linear, int64_t m,
                                   const void *bias) {
    *operands = (struct operands){.memory = memory,
                                  .m = m,
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
    if (operands_get(operands, linear, bias, x_count, y_count) != KRY_OK)
        return kry_error_set(KRY_E_MEMORY, "no memory for the operands of m %" PRId64, m);
    memset(operands->y.host, POISON, operands->y.bytes);
    memset(operands->scratch.host, POISON, operands->scratch.bytes);
    memset(operands->zeroed.host, 0, operands->zeroed.bytes);
    return KRY_OK;
}

/** Let the device see what the host wrote. */
static kry_status operands_send(const struct operands *operands) {
    const struct twin *const twins[] = {&operands->x, &operands->y, &operands->scratch,
                                        &operands->zeroed, &operands->bias};
    kry_status status = KRY_OK;
    for (size_t i = 0; i < sizeof twins / sizeof twins[0] && status == KRY_OK; i++)
        status = twin_send(operands->memory, twins[i]);
    return status;
}

/** Apply, and wait until it is done. */
static kry_status apply(const kry_layer *layer, const struct operands *operands) {
    kry_apply_args args = KRY_INIT(kry_apply_args);
    args.m = operands->m;
    args.x = operands->x.device;
    args.y = operands->y.device;
    args.bias = operands->bias.device;
    args.x_stride = operands->x_stride;
    args.y_stride = operands->y_stride;
    args.scratch = operands->scratch.device;
    args.scratch_bytes = operands->workspace.scratch_bytes;
    args.zeroed = operands->zeroed.device;
    args.zeroed_bytes = operands->workspace.zeroed_bytes;
    kry_status status = kry_layer_apply(layer, &args);
    return status == KRY_OK ? device_memory_wait(operands->memory, NULL) : status;
}

/** Apply once, and let the host see what it wrote. */
static kry_status apply_and_fetch(const kry_layer *layer, const struct operands *operands) {
    kry_status status = operands_send(operands);
    if (status == KRY_OK)
        status = apply(layer, operands);
    if (status == KRY_OK)
        status = twin_fetch(operands->memory, &operands->y);
    return status == KRY_OK ? twin_fetch(operands->memory, &operands->zeroed) : status;
}

/** Check what no norm shows: writes between the rows of y, and a zeroed part that is not. */
static void check_edges(struct trial *trial, const struct operands *operands,
                        const kry_linear *linear) {
    size_t width = kry_type_bytes(linear->y_type);
    for (int64_t row = 0; row < operands->m; row++) {
        const unsigned char *gap =
            operands->y.host + (size_t)(row * operands->y_stride + linear->out_features) * width;
        for (size_t i = 0; i < GAP * width; i++)
            if (gap[i] != POISON)
                fail(trial, KRY_E_PLUGIN,
                     "kernel %s: m %" PRId64 ": wrote behind row %" PRId64 " of y",
                     trial->kernel.kernel, operands->m, row);
    }
    for (uint64_t i = 0; i < operands->workspace.zeroed_bytes; i++)
        if (operands->zeroed.host[i] != 0) {
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
static kry_status measure(const kry_layer *layer, const struct operands *operands,
                          int64_t *median) {
    int64_t times[REPEATS_MAX], spent = 0;
    size_t count = 0;
    while (count < REPEATS_MAX && (count == 0 || spent < TIMED_NS)) {
        int64_t begin = clock_now();
        kry_status status = apply(layer, operands);
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
        oracle_compare(operands->y.host, linear->y_type, operands->y_stride, operands->m,
                       linear->out_features, operands->expected);
    result->error = error.relative;
    result->good = error.relative <= trial->bound;
    if (!result->good)
        fail(trial, KRY_OK,
             "kernel %s: m %" PRId64 ": relative error %.3g is above the bound %.3g; the worst "
             "element is y[%" PRId64 ", %" PRId64 "] = %g, expected %g",
             trial->kernel.kernel, operands->m, error.relative, trial->bound, error.row,
             error.column,
             float_load(operands->y.host, error.row * operands->y_stride + error.column,
                        linear->y_type),
             operands->expected[error.row * linear->out_features + error.column]);
}

static kry_status try_m(const struct trial_setting *setting, const struct trial_subject *subject,
                        const struct device_memory *memory, const kry_layer *layer, int64_t m,
                        struct trial *trial) {
    const kry_linear *linear = subject->linear;
    struct trial_apply *result = &trial->applies[trial->apply_count];
    *result = (struct trial_apply){.m = m};
    struct operands operands;
    kry_status status = operands_acquire(&operands, memory, layer, linear, m, subject->bias);
    if (status == KRY_OK) {
        synthetic_activations(operands.x.host, linear->x_type, m, linear->in_features,
                              operands.x_stride, setting->seed,
                              random_stream_of(subject->name) + (uint64_t)m);
        struct oracle_product product = {.m = m,
                                         .x = operands.x.host,
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
    status = apply_and_fetch(layer, &operands);
    if (status == KRY_OK) {
        judge(trial, subject, &operands, result);
        check_edges(trial, &operands, linear);
        status = measure(layer, &operands, &result->nanoseconds);
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
                             const struct trial_subject *subject,
                             const struct device_memory *memory, const kry_layer *layer,
                             struct trial *trial) {
    const kry_linear *linear = subject->linear;
    int64_t columns[PROBES_MAX], count = choose_probes(linear, columns);
    struct operands operands;
    kry_status status = operands_acquire(&operands, memory, layer, linear, count, NULL);
    if (status == KRY_OK) {
        memset(operands.x.host, 0, operands.x.bytes);
        for (int64_t row = 0; row < count; row++)
            float_store(operands.x.host, row * operands.x_stride + columns[row], linear->x_type, 1);
        struct oracle_product product = {.m = count,
                                         .x = operands.x.host,
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
    status = apply_and_fetch(layer, &operands);
    if (status != KRY_OK) {
        fail(trial, status, "%s", kry_error_message()); /* names the kernel */
        goto out;
    }
    for (int64_t row = 0; row < count; row++)
        for (int64_t n = 0; n < linear->out_features; n++) {
            double found = float_load(operands.y.host, row * operands.y_stride + n, linear->y_type);
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

static kry_status lend_weights(void *context, const kry_weights **out) {
    *out = ((const struct trial_subject *)context)->weights;
    return KRY_OK;
}

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

    static const struct cache none = {0};
    const struct cache *cache = subject->content != NULL ? setting->cache : &none;
    int64_t begin = clock_now();
    status = cache_prepare(cache, *layer, subject->name, subject->content, lend_weights,
                           (void *)subject, &trial->cache);
    trial->prepare_nanoseconds = clock_now() - begin;
    if (status != KRY_OK)
        fail(trial, status, "%s", kry_error_message());
    return status;
}

void trial_run(const struct trial_setting *setting, const struct trial_subject *subject,
               struct trial *out) {
    *out = (struct trial){0};
    kry_layer *layer = NULL;
    struct device_memory memory;
    kry_status status = device_memory_open(setting->registry, setting->device, &memory);
    if (status != KRY_OK) {
        fail(out, status, "%s", kry_error_message());
        return;
    }
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
    for (size_t i = 0; i < setting->m_count && status == KRY_OK; i++)
        status = try_m(setting, subject, &memory, layer, setting->m[i], out);
    if (status == KRY_OK)
        try_probes(setting, subject, &memory, layer, out);
out:
    kry_layer_destroy(&layer);
}

void trial_free(struct trial *trial) {
    free(trial->complaint);
    free(trial->applies);
    *trial = (struct trial){0};
}
