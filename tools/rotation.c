/*
 * Copies of one layer's prepared weights, applied in turn.
 */
#include "rotation.h"

#include "clock.h"
#include "last_cache.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    CACHE_TIMES = 4,        /* copies fill the last cache so many times, */
    CACHE_BYTES = 32 << 20, /* taken as this large where the system does not tell */
    DEVICE_BYTES = 300 << 20
};

/** What copies must fill so that none is left in a cache. Units: bytes. */
static uint64_t bytes_to_fill(const kry_device *device) {
    if (strcmp(device->platform, "cpu") != 0) {
        uint64_t bytes = device->l2_bytes * CACHE_TIMES;
        return bytes > DEVICE_BYTES ? bytes : DEVICE_BYTES;
    }
    uint64_t told = last_cache_bytes(NULL);
    return (told > 0 ? told : CACHE_BYTES) * CACHE_TIMES;
}

size_t rotation_copies(const kry_device *device, uint64_t bytes, uint64_t fill) {
    uint64_t copies = (fill > 0 ? fill : bytes_to_fill(device)) / (bytes + 1) + 1;
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
    kry_status status = device_memory_open(args->registry, args->device, &out->memory);
    int64_t begin = clock_now();
    if (status == KRY_OK)
        status = add_copy(args, out);
    out->prepare_nanoseconds = clock_now() - begin;
    kry_sizes sizes = KRY_INIT(kry_sizes);
    if (status == KRY_OK)
        status = kry_layer_sizes(out->layers[0], &sizes);
    if (status == KRY_OK)
        status = kry_layer_kernel(out->layers[0], &out->kernel);
    out->prepared_bytes = sizes.prepared_bytes;
    size_t wanted = rotation_copies(args->device, sizes.prepared_bytes, args->fill);
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
    if (status == KRY_OK)
        status = device_memory_wait(&rotation->memory, args->stream);
    *nanoseconds = clock_now() - begin;
    return status;
}

/* ---- on a stream --------------------------------------------------------------------- */

static kry_status enqueue(void *context, void *stream) {
    const struct rotation_turns *turns = context;
    struct rotation *rotation = turns->rotation;
    kry_apply_args args = *turns->args;
    args.stream = stream;
    const kry_layer *layer = rotation->layers[rotation->next];
    rotation->next = (rotation->next + 1) % rotation->count;
    return kry_layer_apply(layer, &args);
}

struct stream_work rotation_work(struct rotation_turns *turns) {
    return (struct stream_work){
        .enqueue = enqueue, .context = turns, .copies = turns->rotation->count};
}

/* ---- operands ------------------------------------------------------------------------ */

kry_status rotation_operands(const struct rotation *rotation, const kry_linear *linear, int64_t m,
                             bool bias, struct rotation_operands *out) {
    const struct device_memory *memory = &rotation->memory;
    *out = (struct rotation_operands){.args = KRY_INIT(kry_apply_args)};
    kry_workspace workspace = KRY_INIT(kry_workspace);
    kry_status status = kry_layer_workspace(rotation->layers[0], m, &workspace);
    if (status != KRY_OK)
        return status;
    uint64_t x_bytes, y_bytes, width = kry_type_bytes(linear->y_type);
    if (__builtin_mul_overflow((uint64_t)m, (uint64_t)linear->in_features * 4, &x_bytes) ||
        __builtin_mul_overflow((uint64_t)m, (uint64_t)linear->out_features * 4, &y_bytes))
        return kry_error_set(KRY_E_MEMORY, "m %" PRId64 " is beyond any memory", m);
    status = twin_get(memory, x_bytes / 4 * kry_type_bytes(linear->x_type), &out->x);
    if (status == KRY_OK)
        status = twin_get(memory, y_bytes / 4 * width, &out->y);
    if (status == KRY_OK && bias)
        status = twin_get(memory, (uint64_t)linear->out_features * width, &out->bias);
    if (status == KRY_OK)
        status = twin_get(memory, workspace.scratch_bytes, &out->scratch);
    if (status == KRY_OK)
        status = twin_get(memory, workspace.zeroed_bytes, &out->zeroed);
    if (status != KRY_OK)
        return kry_error_set(status, "no memory for the operands of m %" PRId64, m);
    out->args.m = m;
    out->args.x = out->x.device;
    out->args.y = out->y.device;
    out->args.bias = out->bias.device;
    out->args.scratch = out->scratch.device;
    out->args.scratch_bytes = workspace.scratch_bytes;
    out->args.zeroed = out->zeroed.device;
    out->args.zeroed_bytes = workspace.zeroed_bytes;
    return device_memory_clear(memory, out->zeroed.device, workspace.zeroed_bytes);
}

void rotation_operands_release(const struct rotation *rotation,
                               struct rotation_operands *operands) {
    const struct device_memory *memory = &rotation->memory;
    twin_release(memory, &operands->x);
    twin_release(memory, &operands->y);
    twin_release(memory, &operands->bias);
    twin_release(memory, &operands->scratch);
    twin_release(memory, &operands->zeroed);
    *operands = (struct rotation_operands){0};
}
