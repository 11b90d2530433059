/*
 * The time of an apply whose weights come from memory, not from a cache.
 */
#include "bench.h"

#include "rotation.h"

#include <stdlib.h>

enum { APPLIES_MAX = 4096, APPLIES_LEAST = 5 };

static int compare_times(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

int64_t median_of(int64_t *times, size_t count) {
    qsort(times, count, sizeof *times, compare_times);
    return count > 0 ? times[count / 2] : 0;
}

/** Apply the copies in turn until the budget is spent. */
static kry_status measure(const struct bench_setting *setting, struct rotation *rotation,
                          kry_apply_args *args, int64_t *times, struct bench_times *out) {
    /* Once without a clock: the first apply touches its memory for the first time. */
    kry_status status = kry_layer_apply(rotation->layers[0], args);
    size_t count = 0;
    int64_t spent = 0;
    rotation->next = 1 % rotation->count;
    while (status == KRY_OK && count < APPLIES_MAX &&
           (count < APPLIES_LEAST || spent < setting->budget)) {
        status = rotation_apply(rotation, args, &times[count]);
        spent += times[count++];
    }
    out->m = args->m;
    out->count = count;
    out->median = median_of(times, count);
    out->least = times[0];
    return status;
}

static kry_status measure_m(const struct bench_setting *setting, const struct synthetic *synthetic,
                            struct rotation *rotation, int64_t m, struct bench_times *out) {
    const kry_linear *linear = &synthetic->linear;
    kry_apply_args args;
    int64_t *times = malloc(APPLIES_MAX * sizeof *times);
    kry_status status = rotation_operands(rotation, linear, m, &args);
    if (status == KRY_OK && times == NULL)
        status = kry_error_set(KRY_E_MEMORY, "out of memory");
    if (status == KRY_OK) {
        synthetic_activations((void *)(uintptr_t)args.x, linear->x_type, m, linear->in_features,
                              linear->in_features, setting->seed, (uint64_t)m);
        args.bias = synthetic->bias;
        status = measure(setting, rotation, &args, times, out);
    }
    rotation_operands_release(&args);
    free(times);
    return status;
}

kry_status bench_measure(const struct bench_setting *setting, const kry_linear *linear, bool bias,
                         struct bench_result *out) {
    struct synthetic *synthetic = NULL;
    struct rotation rotation = {0};
    struct bench_result result = {0};
    kry_status status = synthetic_create(linear, bias, setting->seed, &synthetic);
    if (status == KRY_OK) {
        const struct rotation_args args = {.registry = setting->registry,
                                           .device = setting->device,
                                           .synthetic = synthetic,
                                           .kernel = setting->kernel};
        status = rotation_create(&args, &rotation);
    }
    if (status == KRY_OK) {
        result.kernel = rotation.kernel;
        result.prepared_bytes = rotation.prepared_bytes;
        result.copies = rotation.count;
        result.prepare_nanoseconds = rotation.prepare_nanoseconds;
        result.times = calloc(setting->m_count + 1, sizeof *result.times);
        if (result.times == NULL)
            status = kry_error_set(KRY_E_MEMORY, "out of memory");
    }
    for (size_t i = 0; i < setting->m_count && status == KRY_OK; i++)
        status = measure_m(setting, synthetic, &rotation, setting->m[i], &result.times[i]);
    rotation_release(&rotation);
    synthetic_destroy(&synthetic);
    if (status == KRY_OK)
        *out = result;
    else
        free(result.times);
    return status;
}
