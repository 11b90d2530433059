/*
 * Copies of one layer's prepared weights, applied in turn.
 */
#include "rotation.h"

#include "clock.h"
#include "trial.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CACHE_TIMES = 4,       /* copies fill the last cache so many times, */
    CACHE_BYTES = 32 << 20 /* taken as this large where the system does not tell */
};

size_t rotation_copies(uint64_t bytes) {
    long told = sysconf(_SC_LEVEL3_CACHE_SIZE);
    uint64_t cache = told > 0 ? (uint64_t)told : CACHE_BYTES;
    uint64_t copies = cache * CACHE_TIMES / (bytes + 1) + 1;
    return copies < 2 ? 2 : copies > ROTATION_MOST ? ROTATION_MOST : (size_t)copies;
}

static kry_status add_copy(const struct rotation_args *args, struct rotation *rotation) {
    kry_layer_args layer_args = KRY_INIT(kry_layer_args);
    layer_args.device = args->device;
    layer_args.linear = &args->synthetic->linear;
    layer_args.kernel = args->kernel;
    kry_layer **layer = &rotation->layers[rotation->count];
    kry_status status = kry_layer_create(args->registry, &layer_args, layer);
    if (status != KRY_OK)
        return status;
    rotation->count++;
    kry_prepare_args prepare = KRY_INIT(kry_prepare_args);
    prepare.weights = &args->synthetic->weights;
    prepare.host = args->host;
    return kry_layer_prepare(*layer, &prepare);
}

kry_status rotation_create(const struct rotation_args *args, struct rotation *out) {
    *out = (struct rotation){.kernel = KRY_INIT(kry_kernel_info)};
    int64_t begin = clock_now();
    kry_status status = add_copy(args, out);
    out->prepare_nanoseconds = clock_now() - begin;
    kry_sizes sizes = KRY_INIT(kry_sizes);
    if (status == KRY_OK)
        status = kry_layer_sizes(out->layers[0], &sizes);
    if (status == KRY_OK)
        status = kry_layer_kernel(out->layers[0], &out->kernel);
    out->prepared_bytes = sizes.prepared_bytes;
    size_t wanted = rotation_copies(sizes.prepared_bytes);
    while (status == KRY_OK && out->count < wanted)
        status = add_copy(args, out);
    if (status != KRY_OK)
        rotation_release(out);
    return status;
}

void rotation_release(struct rotation *rotation) {
    for (size_t i = 0; i < rotation->count; i++)
        kry_layer_destroy(&rotation->layers[i]);
    rotation->count = 0;
}

kry_status rotation_apply(struct rotation *rotation, const kry_apply_args *args,
                          int64_t *nanoseconds) {
    const kry_layer *layer = rotation->layers[rotation->next];
    rotation->next = (rotation->next + 1) % rotation->count;
    int64_t begin = clock_now();
    kry_status status = kry_layer_apply(layer, args);
    *nanoseconds = clock_now() - begin;
    return status;
}

kry_status rotation_operands(const struct rotation *rotation, const kry_linear *linear, int64_t m,
                             kry_apply_args *out) {
    *out = KRY_INIT(kry_apply_args);
    kry_workspace workspace = KRY_INIT(kry_workspace);
    kry_status status = kry_layer_workspace(rotation->layers[0], m, &workspace);
    if (status != KRY_OK)
        return status;
    uint64_t x_bytes, y_bytes;
    if (__builtin_mul_overflow((uint64_t)m, (uint64_t)linear->in_features * 4, &x_bytes) ||
        __builtin_mul_overflow((uint64_t)m, (uint64_t)linear->out_features * 4, &y_bytes))
        return kry_error_set(KRY_E_MEMORY, "m %" PRId64 " is beyond any memory", m);
    out->m = m;
    out->x = trial_allocate(x_bytes);
    out->y = trial_allocate(y_bytes);
    out->scratch = trial_allocate(workspace.scratch_bytes);
    out->scratch_bytes = workspace.scratch_bytes;
    out->zeroed = trial_allocate(workspace.zeroed_bytes);
    out->zeroed_bytes = workspace.zeroed_bytes;
    if (out->x == NULL || out->y == NULL || out->scratch == NULL || out->zeroed == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory for the operands of m %" PRId64, m);
    memset(out->zeroed, 0, workspace.zeroed_bytes);
    return KRY_OK;
}

void rotation_operands_release(kry_apply_args *operands) {
    free((void *)(uintptr_t)operands->x);
    free(operands->y);
    free(operands->scratch);
    free(operands->zeroed);
    *operands = (kry_apply_args){0};
}
