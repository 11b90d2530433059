/*
 * The time of an apply whose weights come from memory, not from a cache.
 */
#include "bench.h"

#include "rotation.h"

#include <stdlib.h>
#include <string.h>

enum { APPLIES_MAX = 4096, APPLIES_LEAST = 5 };

static int compare_times(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

int64_t median_of(int64_t *times, size_t count) {
    qsort(times, count, sizeof *times, compare_times);
    return count > 0 ? times[count / 2] : 0;
}

/** Times of one m, as they come. */
struct measured {
    int64_t times[APPLIES_MAX]; /* of an apply; the median tells, in a queue of a few ms, of one */
    size_t count;
    size_t applies;
};

/** Apply the copies in turn, each by itself, until the budget is spent. */
static kry_status measure_each(const struct bench_setting *setting, struct rotation *rotation,
                               const kry_apply_args *args, struct measured *out) {
    /* Once without a clock: the first apply touches its memory for the first time. */
    kry_status status = kry_layer_apply(rotation->layers[0], args);
    int64_t spent = 0;
    rotation->next = 1 % rotation->count;
    while (status == KRY_OK && out->count < APPLIES_MAX &&
           (out->count < APPLIES_LEAST || spent < setting->budget)) {
        status = rotation_apply(rotation, args, &out->times[out->count]);
        spent += out->times[out->count++];
    }
    out->applies = out->count;
    return status;
}

/** Likewise on a device's stream, many for each wait. */
static kry_status measure_stream(const struct bench_setting *setting, struct rotation *rotation,
                                 const kry_apply_args *args, struct measured *out) {
    struct stream_clock *clock = NULL;
    struct stream_loop *loop = NULL;
    struct rotation_turns turns = {.rotation = rotation, .args = args};
    struct stream_work work = rotation_work(&turns);
    kry_status status = stream_clock_create(&rotation->memory, &clock);
    if (status == KRY_OK)
        status = stream_loop_create(clock, &work, &loop);
    double spent = 0;
    while (status == KRY_OK && out->count < APPLIES_MAX &&
           (out->count < APPLIES_LEAST || spent < (double)setting->budget)) {
        double turn;
        size_t count;
        status = stream_loop_step(loop, &turn, &count);
        if (status != KRY_OK)
            break;
        out->times[out->count++] = (int64_t)(turn + 0.5);
        out->applies += count;
        spent += turn * (double)count;
    }
    stream_loop_destroy(&loop);
    stream_clock_destroy(&clock);
    return status;
}

static kry_status measure_m(const struct bench_setting *setting, const struct synthetic *synthetic,
                            struct rotation *rotation, int64_t m, struct bench_times *out) {
    const kry_linear *linear = &synthetic->linear;
    const struct device_memory *memory = &rotation->memory;
    struct rotation_operands operands;
    struct measured *measured = calloc(1, sizeof *measured);
    kry_status status = rotation_operands(rotation, linear, m, synthetic->bias != NULL, &operands);
    if (status == KRY_OK && measured == NULL)
        status = kry_error_set(KRY_E_MEMORY, "out of memory");
    if (status == KRY_OK) {
        synthetic_activations(operands.x.host, linear->x_type, m, linear->in_features,
                              linear->in_features, setting->seed, (uint64_t)m);
        if (synthetic->bias != NULL)
            memcpy(operands.bias.host, synthetic->bias, operands.bias.bytes);
        status = twin_send(memory, &operands.x);
    }
    if (status == KRY_OK)
        status = twin_send(memory, &operands.bias);
    if (status == KRY_OK)
        status = device_memory_is_shared(memory)
                     ? measure_each(setting, rotation, &operands.args, measured)
                     : measure_stream(setting, rotation, &operands.args, measured);
    if (status == KRY_OK)
        *out = (struct bench_times){.m = m,
                                    .median = median_of(measured->times, measured->count),
                                    .least = measured->times[0],
                                    .count = measured->applies};
    rotation_operands_release(rotation, &operands);
    free(measured);
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
