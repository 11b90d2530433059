/*
 * A layer of a race as cuBLAS multiplies it.
 */
#include "race_dense.h"

#include "floats.h"

#include <stdlib.h>
#include <string.h>

struct race_dense {
    struct race_device *device;
    int64_t in_features, out_features;
    uint32_t type;
    unsigned char *weights; /* copies one after the other */
    uint64_t copy_bytes;
    size_t copies;
    size_t next;
    struct twin x, y;
    struct cublas_product product;
};

/** Rows of weights that become dense, shared among a crew. */
struct conversion {
    const struct synthetic *synthetic;
    uint32_t type;
    int32_t threads;
    void *to;
};

static void convert_rows(void *argument, int64_t thread) {
    const struct conversion *conversion = argument;
    const struct synthetic *synthetic = conversion->synthetic;
    const kry_linear *linear = &synthetic->linear;
    int64_t rows = linear->out_features, columns = linear->in_features;
    int64_t groups = kry_linear_groups(linear), bits = kry_weight_bits(linear->weight_type);
    int64_t end = rows * (thread + 1) / conversion->threads;
    for (int64_t n = rows * thread / conversion->threads; n < end; n++)
        for (int64_t k = 0; k < columns; k++) {
            int64_t g = n * groups + (synthetic->g_idx != NULL ? synthetic->g_idx[k]
                                                               : kry_linear_group_of(linear, k));
            int zero = synthetic->zero_points != NULL ? synthetic->zero_points[g] : 1 << (bits - 1);
            double weight =
                (double)synthetic->plain_scales[g] * (synthetic->codes[n * columns + k] - zero);
            float_store(conversion->to, n * columns + k, conversion->type, weight);
        }
}

static kry_status make_copies(struct race_dense *dense, struct crew *crew,
                              const struct synthetic *synthetic) {
    const struct device_memory *memory = race_device_memory(dense->device);
    struct conversion conversion = {.synthetic = synthetic,
                                    .type = dense->type,
                                    .threads = crew_used(crew),
                                    .to = malloc(dense->copy_bytes)};
    if (conversion.to == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory for dense weights");
    crew_each(crew, convert_rows, &conversion);
    kry_status status =
        device_memory_send(memory, dense->weights, conversion.to, dense->copy_bytes);
    for (size_t i = 1; i < dense->copies && status == KRY_OK; i++)
        status = device_memory_copy(memory, dense->weights + i * dense->copy_bytes, dense->weights,
                                    dense->copy_bytes);
    free(conversion.to);
    return status;
}

kry_status race_dense_create(struct race_device *device, struct crew *crew,
                             const struct synthetic *synthetic, const char *compute,
                             struct race_dense **out) {
    const char *trouble;
    if (race_device_cublas(device, &trouble) == NULL)
        return kry_error_set(KRY_E_DEPENDENCY, "%s", trouble);
    struct race_dense *dense = calloc(1, sizeof *dense);
    if (dense == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    const kry_linear *linear = &synthetic->linear;
    *dense = (struct race_dense){.device = device,
                                 .in_features = linear->in_features,
                                 .out_features = linear->out_features,
                                 .type = strcmp(compute, "f16") == 0 ? KRY_TYPE_F16 : KRY_TYPE_BF16,
                                 .copy_bytes = (uint64_t)linear->in_features *
                                               (uint64_t)linear->out_features * 2};
    /* Rows stay aligned to 16 bytes as far as K allows: copies begin at whole lines. */
    dense->copy_bytes = (dense->copy_bytes + KRY_ALIGNMENT - 1) / KRY_ALIGNMENT * KRY_ALIGNMENT;
    dense->copies = race_device_copies(device, dense->copy_bytes);
    dense->weights =
        device_memory_get(race_device_memory(device), dense->copies * dense->copy_bytes);
    kry_status status = dense->weights != NULL
                            ? make_copies(dense, crew, synthetic)
                            : kry_error_set(KRY_E_MEMORY, "no memory for dense weights");
    if (status == KRY_OK)
        *out = dense;
    else
        race_dense_destroy(&dense);
    return status;
}

static void release_operands(struct race_dense *dense) {
    twin_release(race_device_memory(dense->device), &dense->x);
    twin_release(race_device_memory(dense->device), &dense->y);
}

void race_dense_destroy(struct race_dense **dense) {
    struct race_dense *gone = *dense;
    if (gone == NULL)
        return;
    release_operands(gone);
    device_memory_release(race_device_memory(gone->device), gone->weights,
                          gone->copies * gone->copy_bytes);
    free(gone);
    *dense = NULL;
}

static kry_status enqueue_product(void *context, void *stream) {
    (void)stream; /* cuBLAS knows it */
    struct race_dense *dense = context;
    struct cublas_product product = dense->product;
    product.weights = dense->weights + dense->next * dense->copy_bytes;
    dense->next = (dense->next + 1) % dense->copies;
    const char *trouble;
    return cublas_enqueue(race_device_cublas(dense->device, &trouble), &product);
}

/** y as floats, once a product has been waited for. */
static kry_status fetch_y(const struct race_dense *dense, float **out) {
    kry_status status = twin_fetch(race_device_memory(dense->device), &dense->y);
    int64_t count = dense->product.m * dense->out_features;
    float *y = status == KRY_OK ? malloc((size_t)count * sizeof *y) : NULL;
    if (status == KRY_OK && y == NULL)
        status = kry_error_set(KRY_E_MEMORY, "out of memory");
    for (int64_t i = 0; i < count && y != NULL; i++)
        y[i] = (float)float_load(dense->y.host, i, dense->type);
    *out = y;
    return status;
}

kry_status race_dense_ready(struct race_dense *dense, const float *x, int64_t m, float **y,
                            struct stream_loop **out) {
    const struct device_memory *memory = race_device_memory(dense->device);
    release_operands(dense);
    *y = NULL;
    kry_status status = twin_get(memory, (uint64_t)(m * dense->in_features) * 2, &dense->x);
    if (status == KRY_OK)
        status = twin_get(memory, (uint64_t)(m * dense->out_features) * 2, &dense->y);
    for (int64_t i = 0; i < m * dense->in_features && status == KRY_OK; i++)
        float_store(dense->x.host, i, dense->type, (double)x[i]);
    if (status == KRY_OK)
        status = twin_send(memory, &dense->x);
    dense->product = (struct cublas_product){.m = m,
                                             .in_features = dense->in_features,
                                             .out_features = dense->out_features,
                                             .type = dense->type,
                                             .x = dense->x.device,
                                             .y = dense->y.device};
    const struct stream_work turn = {
        .enqueue = enqueue_product, .context = dense, .copies = dense->copies};
    if (status == KRY_OK)
        status = stream_loop_create(race_device_clock(dense->device), &turn, out);
    if (status == KRY_OK)
        status = fetch_y(dense, y);
    if (status != KRY_OK && *out != NULL)
        stream_loop_destroy(out);
    return status;
}
