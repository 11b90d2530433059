/*
 * Weights become prepared weights: canonical ranges of a few megabytes at a time, so that no
 * second copy of the layer ever exists, handed to the kernel in the memory of its buffer.
 */
#include "core.h"

#include <inttypes.h>
#include <string.h>

enum { CANONICAL_BYTES = 8 << 20 /* of one range, where the kernel's multiple allows it */ };

/* A prepare under way. */
struct preparation {
    kry_layer *layer;
    const kry_host *host;
    kry_weights weights;
    kry_view qweight, scales, zero_points; /* our copies, what weights points to */
    void *stream;
    void *scratch; /* the kernel's, at the start of all */
    struct canonical_buffers device_rows, host_rows;
    int32_t *device_g_idx;
    int64_t rows; /* of one range */
};

static int64_t range_rows(const kry_layer *layer) {
    const kry_linear *linear = &layer->linear;
    int64_t multiple = layer->sizes.prepare_multiple;
    int64_t rows = (int64_t)(CANONICAL_BYTES / core_canonical_bytes(linear, 1)) / multiple;
    rows = (rows > 0 ? rows : 1) * multiple;
    return rows < linear->out_features ? rows : linear->out_features;
}

static uint64_t g_idx_bytes(const kry_linear *linear) {
    return linear->act_order ? core_align((uint64_t)linear->in_features * 4) : 0;
}

uint64_t core_prepare_scratch(const kry_layer *layer) {
    return core_align(layer->sizes.prepare_scratch_bytes) + g_idx_bytes(&layer->linear) +
           core_canonical_bytes(&layer->linear, range_rows(layer));
}

static kry_status check_platform(const kry_layer *layer, const kry_weights *weights,
                                 uint32_t memory) {
    const kry_platform *platform = layer->platform;
    if (weights->memory == KRY_MEMORY_HOST && memory == KRY_MEMORY_HOST)
        return KRY_OK;
    if (memory == KRY_MEMORY_HOST)
        return kry_error_set(KRY_E_UNSUPPORTED,
                             "weights in device memory cannot be prepared into host memory");
    if (platform == NULL || platform->allocate == NULL || platform->release == NULL ||
        (weights->memory == KRY_MEMORY_HOST && platform->copy == NULL) ||
        (weights->memory == KRY_MEMORY_DEVICE && platform->canonicalise == NULL))
        return kry_error_set(KRY_E_UNSUPPORTED,
                             "no plugin offers what preparing in device memory of platform %s "
                             "needs",
                             layer->device.platform);
    return KRY_OK;
}

/* ---- ranges ---------------------------------------------------------------------------- */

static kry_status copy_to_device(const struct preparation *p, void *to, const void *from,
                                 uint64_t bytes) {
    const kry_layer *layer = p->layer;
    kry_status status = layer->platform->copy(&layer->device, to, KRY_MEMORY_DEVICE, from,
                                              KRY_MEMORY_HOST, bytes, p->stream);
    return status == KRY_OK ? KRY_OK
                            : core_platform_failed(
                                  layer, status, "copying %" PRIu64 " bytes to the device", bytes);
}

/* Rows that lie dense in host memory, sent to the same places of the device's buffers. */
static kry_status send_rows(const struct preparation *p, kry_canonical *rows) {
    const kry_linear *linear = &p->layer->linear;
    uint64_t count = (uint64_t)(rows->n_end - rows->n_begin);
    uint64_t groups = (uint64_t)kry_linear_groups(linear);
    kry_status status = copy_to_device(p, p->device_rows.qweight, rows->qweight,
                                       count * (uint64_t)rows->qweight_stride * 4);
    if (status == KRY_OK)
        status = copy_to_device(p, p->device_rows.scales, rows->scales,
                                count * groups * kry_type_bytes(linear->scale_type));
    if (status == KRY_OK && rows->zero_points != NULL)
        status = copy_to_device(p, p->device_rows.zero_points, rows->zero_points, count * groups);
    if (status == KRY_OK && rows->g_idx != NULL && rows->n_begin == 0)
        status = copy_to_device(p, p->device_g_idx, rows->g_idx, (uint64_t)linear->in_features * 4);
    rows->qweight = p->device_rows.qweight;
    rows->scales = p->device_rows.scales;
    rows->zero_points = rows->zero_points != NULL ? p->device_rows.zero_points : NULL;
    rows->g_idx = rows->g_idx != NULL ? p->device_g_idx : NULL;
    return status;
}

static kry_status canonicalise_on_device(const struct preparation *p, kry_canonical *rows) {
    const kry_layer *layer = p->layer;
    int64_t groups = kry_linear_groups(&layer->linear);
    int64_t per_word = 32 / kry_weight_bits(layer->linear.weight_type);
    bool zeros = p->weights.zero_points != NULL;
    kry_canonicalise_call call = {.struct_size = sizeof call,
                                  .device = &layer->device,
                                  .stored = &layer->stored,
                                  .linear = &layer->linear,
                                  .weights = &p->weights,
                                  .n_begin = rows->n_begin,
                                  .n_end = rows->n_end,
                                  .qweight = p->device_rows.qweight,
                                  .scales = p->device_rows.scales,
                                  .zero_points = zeros ? p->device_rows.zero_points : NULL,
                                  .g_idx = layer->linear.act_order ? p->device_g_idx : NULL,
                                  .stream = p->stream};
    rows->qweight = call.qweight;
    rows->scales = call.scales;
    rows->zero_points = call.zero_points;
    rows->g_idx = call.g_idx;
    rows->qweight_stride = (layer->linear.in_features + per_word - 1) / per_word;
    rows->scale_stride = groups;
    rows->zero_stride = groups;
    kry_status status = layer->platform->canonicalise(&call);
    return status == KRY_OK ? KRY_OK : core_platform_failed(layer, status, "canonicalise");
}

static kry_status prepare_range(const struct preparation *p, int64_t n_begin, int64_t n_end) {
    const kry_layer *layer = p->layer;
    bool on_device = layer->memory == KRY_MEMORY_DEVICE;
    kry_canonical rows = {.struct_size = sizeof rows, .n_begin = n_begin, .n_end = n_end};
    kry_status status = KRY_OK;
    if (p->weights.memory == KRY_MEMORY_HOST) {
        core_canonicalise(&layer->stored, &layer->linear, &p->weights, n_begin, n_end,
                          &p->host_rows, p->host, !on_device, &rows);
        if (on_device)
            status = send_rows(p, &rows);
    } else {
        status = canonicalise_on_device(p, &rows);
    }
    if (status != KRY_OK)
        return status;
    rows.memory = layer->memory;
    kry_prepare_call call = {.struct_size = sizeof call,
                             .device = &layer->device,
                             .linear = &layer->linear,
                             .device_state = layer->binding.device_state,
                             .weights = &rows,
                             .prepared = layer->prepared,
                             .scratch = p->scratch,
                             .stream = p->stream,
                             .host = p->host};
    status = layer->kernel->linear.prepare_weights(&call);
    return status == KRY_OK ? KRY_OK : core_kernel_failed(layer->kernel, "prepare_weights", status);
}

static kry_status prepare_ranges(struct preparation *p, unsigned char *scratch,
                                 unsigned char *staging) {
    kry_layer *layer = p->layer;
    p->scratch = scratch;
    scratch += core_align(layer->sizes.prepare_scratch_bytes);
    p->device_g_idx = (int32_t *)(void *)scratch;
    scratch += g_idx_bytes(&layer->linear);
    core_canonical_place(&layer->linear, p->rows, scratch, &p->device_rows);
    core_canonical_place(&layer->linear, p->rows, staging != NULL ? staging : scratch,
                         &p->host_rows);
    kry_status status = KRY_OK;
    for (int64_t n = 0; n < layer->linear.out_features && status == KRY_OK; n += p->rows) {
        int64_t end = n + p->rows;
        status = prepare_range(p, n,
                               end < layer->linear.out_features ? end : layer->linear.out_features);
    }
    /* Scratch that is released, or reused by the caller, must have been passed. */
    if (layer->memory == KRY_MEMORY_DEVICE && layer->platform->synchronize != NULL) {
        kry_status waited = layer->platform->synchronize(&layer->device, p->stream);
        if (status == KRY_OK && waited != KRY_OK)
            status = core_platform_failed(layer, waited, "waiting for the stream");
    }
    return status;
}

/* What a prepare allocates; all of it before anything of the layer changes. */
struct allocations {
    void *scratch, *staging, *prepared;
    uint64_t scratch_bytes, staging_bytes;
};

static kry_status allocate_all(const struct preparation *p, const kry_prepare_args *args,
                               const struct target *target, struct allocations *out) {
    const kry_layer *layer = p->layer;
    const kry_host *offered = &layer->registry->services.offered;
    bool stages = target->memory == KRY_MEMORY_DEVICE && p->weights.memory == KRY_MEMORY_HOST;
    uint64_t failed = 0;
    /* First what stays, so that an allocator may use again what scratch leaves behind it. */
    if (target->prepared == NULL) {
        out->prepared = core_allocate(layer, offered, target->memory, layer->sizes.prepared_bytes);
        failed = out->prepared == NULL ? layer->sizes.prepared_bytes : failed;
    }
    if (args->scratch == NULL) {
        out->scratch = core_allocate(layer, p->host, target->memory, out->scratch_bytes);
        failed = out->scratch == NULL ? out->scratch_bytes : failed;
    }
    if (stages) {
        out->staging = core_allocate(layer, p->host, KRY_MEMORY_HOST, out->staging_bytes);
        failed = out->staging == NULL ? out->staging_bytes : failed;
    }
    bool missing = (args->scratch == NULL && out->scratch == NULL) ||
                   (stages && out->staging == NULL) ||
                   (target->prepared == NULL && out->prepared == NULL);
    if (missing)
        return kry_error_set(KRY_E_MEMORY, "out of memory for %" PRIu64 " bytes to prepare in",
                             failed);
    return KRY_OK;
}

struct clearing {
    unsigned char *memory;
    uint64_t bytes;
};

static void clear_block(void *argument, int64_t i) {
    const struct clearing *c = argument;
    uint64_t begin, bytes = core_hash_block(c->bytes, i, &begin);
    memset(c->memory + begin, 0, bytes);
}

/* What a kernel leaves unwritten between its rows must not be what the memory held before: prepared
 * weights are saved, and the same weights make the same file. */
static kry_status clear_fresh(const struct preparation *p, void *fresh) {
    const kry_layer *layer = p->layer;
    struct clearing clearing = {fresh, layer->sizes.prepared_bytes};
    kry_status status = KRY_OK;
    if (layer->memory == KRY_MEMORY_HOST)
        kry_parallel_for(p->host, (int64_t)core_hash_block_count(clearing.bytes), clear_block,
                         &clearing);
    else if (layer->platform->clear != NULL)
        status = layer->platform->clear(&layer->device, fresh, clearing.bytes, p->stream);
    return status == KRY_OK ? KRY_OK : core_platform_failed(layer, status, "clear");
}

static kry_status run(struct preparation *p, const kry_prepare_args *args,
                      const struct target *target) {
    kry_layer *layer = p->layer;
    struct allocations blocks = {.scratch_bytes = core_prepare_scratch(layer),
                                 .staging_bytes = core_canonical_bytes(&layer->linear, p->rows)};
    if (args->scratch != NULL && (args->scratch_bytes < blocks.scratch_bytes ||
                                  (uintptr_t)args->scratch % KRY_ALIGNMENT != 0))
        return kry_error_set(
            KRY_E_WORKSPACE,
            "scratch: %" PRIu64 " bytes at %p, expected %" PRIu64 " at a multiple of %d",
            args->scratch_bytes, args->scratch, blocks.scratch_bytes, KRY_ALIGNMENT);
    kry_status status = allocate_all(p, args, target, &blocks);
    if (status == KRY_OK) {
        struct target place = *target;
        if (place.prepared == NULL)
            place.prepared = blocks.prepared;
        core_adopt(layer, &place);
        if (blocks.prepared != NULL)
            status = clear_fresh(p, blocks.prepared);
        blocks.prepared = NULL;
    }
    if (status == KRY_OK)
        status = prepare_ranges(p, args->scratch != NULL ? args->scratch : blocks.scratch,
                                blocks.staging);
    core_release(layer, p->host, target->memory, blocks.scratch, blocks.scratch_bytes);
    core_release(layer, p->host, KRY_MEMORY_HOST, blocks.staging, blocks.staging_bytes);
    core_release(layer, &layer->registry->services.offered, target->memory, blocks.prepared,
                 layer->sizes.prepared_bytes);
    return status;
}

/* Our own copies of the caller's structs, whatever ABI the caller was built with. */
static kry_status copy_weights(struct preparation *p, const kry_weights *weights) {
    kry_status status = COPY_IN(&p->weights, weights, kry_weights);
    if (status == KRY_OK && p->weights.qweight != NULL)
        status = COPY_IN(&p->qweight, p->weights.qweight, kry_view);
    if (status == KRY_OK && p->weights.scales != NULL)
        status = COPY_IN(&p->scales, p->weights.scales, kry_view);
    if (status == KRY_OK && p->weights.zero_points != NULL)
        status = COPY_IN(&p->zero_points, p->weights.zero_points, kry_view);
    p->weights.qweight = p->weights.qweight != NULL ? &p->qweight : NULL;
    p->weights.scales = p->weights.scales != NULL ? &p->scales : NULL;
    p->weights.zero_points = p->weights.zero_points != NULL ? &p->zero_points : NULL;
    return status;
}

kry_status kry_layer_prepare(kry_layer *layer, const kry_prepare_args *args) {
    kry_prepare_args given;
    kry_host host;
    struct preparation p = {.layer = layer};
    if (layer == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_layer_prepare: layer is NULL");
    kry_status status = COPY_IN(&given, args, kry_prepare_args);
    if (status == KRY_OK && given.reserved != 0)
        status = kry_error_set(KRY_E_ARGUMENT, "kry_prepare_args: reserved is %u, expected 0",
                               given.reserved);
    if (status == KRY_OK && given.host != NULL)
        status = core_host_copy(&host, given.host);
    if (status == KRY_OK)
        status = copy_weights(&p, given.weights);
    if (status == KRY_OK)
        status = core_weights_check(&layer->stored, &p.weights);
    struct target target;
    if (status == KRY_OK)
        status = core_choose_target(layer, given.prepared, given.prepared_bytes,
                                    given.prepared_memory, &target);
    if (status == KRY_OK)
        status = check_platform(layer, &p.weights, target.memory);
    if (status != KRY_OK)
        return status;
    p.host = given.host != NULL ? &host : &layer->registry->services.offered;
    p.stream = given.stream;
    p.rows = range_rows(layer);
    status = run(&p, &given, &target);
    return status == KRY_OK ? core_bind(layer) : status;
}
