/*
 * The time of an apply whose weights come from memory, not from a cache.
 */
#include "bench.h"

#include "clock.h"
#include "synthetic.h"
#include "trial.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    COPIES_MAX = 64,
    CACHE_TIMES = 4,        /* copies fill the last cache so many times, */
    CACHE_BYTES = 32 << 20, /* taken as this large where the system does not tell */
    APPLIES_MAX = 4096,
    APPLIES_LEAST = 5
};

static int compare_times(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

int64_t median_of(int64_t *times, size_t count) {
    qsort(times, count, sizeof *times, compare_times);
    return count > 0 ? times[count / 2] : 0;
}

/** Copies enough to push each other out of the caches. */
static size_t copies_for(uint64_t prepared_bytes) {
    long told = sysconf(_SC_LEVEL3_CACHE_SIZE);
    uint64_t cache = told > 0 ? (uint64_t)told : CACHE_BYTES;
    uint64_t copies = cache * CACHE_TIMES / (prepared_bytes + 1) + 1;
    return copies < 2 ? 2 : copies > COPIES_MAX ? COPIES_MAX : (size_t)copies;
}

/** The copies of a layer. */
struct copies {
    kry_layer *layers[COPIES_MAX];
    size_t count;
};

static void copies_release(struct copies *copies) {
    for (size_t i = 0; i < copies->count; i++)
        kry_layer_destroy(&copies->layers[i]);
}

static kry_status add_copy(const struct bench_setting *setting, const struct synthetic *synthetic,
                           struct copies *copies) {
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = setting->device;
    args.linear = &synthetic->linear;
    args.kernel = setting->kernel;
    kry_layer **layer = &copies->layers[copies->count];
    kry_status status = kry_layer_create(setting->registry, &args, layer);
    if (status != KRY_OK)
        return status;
    copies->count++;
    kry_prepare_args prepare = KRY_INIT(kry_prepare_args);
    prepare.weights = &synthetic->weights;
    return kry_layer_prepare(*layer, &prepare);
}

static kry_status make_copies(const struct bench_setting *setting,
                              const struct synthetic *synthetic, struct copies *copies,
                              struct bench_result *result) {
    int64_t begin = clock_now();
    kry_status status = add_copy(setting, synthetic, copies);
    result->prepare_nanoseconds = clock_now() - begin;
    kry_sizes sizes = KRY_INIT(kry_sizes);
    if (status == KRY_OK)
        status = kry_layer_sizes(copies->layers[0], &sizes);
    if (status == KRY_OK)
        status = kry_layer_kernel(copies->layers[0], &result->kernel);
    size_t wanted = copies_for(sizes.prepared_bytes);
    while (status == KRY_OK && copies->count < wanted)
        status = add_copy(setting, synthetic, copies);
    result->prepared_bytes = sizes.prepared_bytes;
    result->copies = copies->count;
    return status;
}

/** Apply the copies in turn until the budget is spent. */
static kry_status measure(const struct bench_setting *setting, const struct copies *copies,
                          kry_apply_args *args, int64_t *times, struct bench_times *out) {
    /* Once without a clock: the first apply touches its memory for the first time. */
    kry_status status = kry_layer_apply(copies->layers[0], args);
    size_t count = 0;
    int64_t spent = 0;
    while (status == KRY_OK && count < APPLIES_MAX &&
           (count < APPLIES_LEAST || spent < setting->budget)) {
        const kry_layer *layer = copies->layers[(count + 1) % copies->count];
        int64_t begin = clock_now();
        status = kry_layer_apply(layer, args);
        times[count] = clock_now() - begin;
        spent += times[count++];
    }
    out->m = args->m;
    out->count = count;
    out->median = median_of(times, count);
    out->least = times[0];
    return status;
}

static kry_status measure_m(const struct bench_setting *setting, const struct synthetic *synthetic,
                            const struct copies *copies, int64_t m, struct bench_times *out) {
    const kry_linear *linear = &synthetic->linear;
    kry_workspace workspace = KRY_INIT(kry_workspace);
    kry_status status = kry_layer_workspace(copies->layers[0], m, &workspace);
    if (status != KRY_OK)
        return status;
    uint64_t x_bytes, y_bytes;
    if (__builtin_mul_overflow((uint64_t)m, (uint64_t)linear->in_features * 4, &x_bytes) ||
        __builtin_mul_overflow((uint64_t)m, (uint64_t)linear->out_features * 4, &y_bytes))
        return kry_error_set(KRY_E_MEMORY, "m %" PRId64 " is beyond any memory", m);
    void *x = trial_allocate(x_bytes), *y = trial_allocate(y_bytes);
    void *scratch = trial_allocate(workspace.scratch_bytes);
    void *zeroed = trial_allocate(workspace.zeroed_bytes);
    int64_t *times = malloc(APPLIES_MAX * sizeof *times);
    if (x == NULL || y == NULL || scratch == NULL || zeroed == NULL || times == NULL) {
        status = kry_error_set(KRY_E_MEMORY, "no memory for the operands of m %" PRId64, m);
    } else {
        synthetic_activations(x, linear->x_type, m, linear->in_features, linear->in_features,
                              setting->seed, (uint64_t)m);
        memset(zeroed, 0, workspace.zeroed_bytes);
        kry_apply_args args = KRY_INIT(kry_apply_args);
        args.m = m;
        args.x = x;
        args.y = y;
        args.bias = synthetic->bias;
        args.scratch = scratch;
        args.scratch_bytes = workspace.scratch_bytes;
        args.zeroed = zeroed;
        args.zeroed_bytes = workspace.zeroed_bytes;
        status = measure(setting, copies, &args, times, out);
    }
    free(times);
    free(zeroed);
    free(scratch);
    free(y);
    free(x);
    return status;
}

kry_status bench_measure(const struct bench_setting *setting, const kry_linear *linear, bool bias,
                         struct bench_result *out) {
    struct synthetic *synthetic = NULL;
    struct copies copies = {0};
    struct bench_result result = {.kernel = KRY_INIT(kry_kernel_info)};
    kry_status status = synthetic_create(linear, bias, setting->seed, &synthetic);
    if (status == KRY_OK)
        status = make_copies(setting, synthetic, &copies, &result);
    if (status == KRY_OK) {
        result.times = calloc(setting->m_count + 1, sizeof *result.times);
        if (result.times == NULL)
            status = kry_error_set(KRY_E_MEMORY, "out of memory");
    }
    for (size_t i = 0; i < setting->m_count && status == KRY_OK; i++)
        status = measure_m(setting, synthetic, &copies, setting->m[i], &result.times[i]);
    copies_release(&copies);
    synthetic_destroy(&synthetic);
    if (status == KRY_OK)
        *out = result;
    else
        free(result.times);
    return status;
}
