/*
 * The platforms "cuda" and "rocm": memory, copies, and stored weights on a device put in order.
 */
#include "code.h"
#include "devices.h"
#include "kernel.h"
#include "message.h"

#include <string.h>

static kry_status allocate(const kry_device *device, uint64_t bytes, void **out) {
    const struct gpu_driver *driver = gpu_driver_of(device);
    struct gpu_scope scope;
    kry_status status = driver->enter(device, &scope);
    if (status != KRY_OK)
        return status;
    status = driver->allocate(bytes, out);
    driver->leave(&scope);
    return status;
}

static void release(const kry_device *device, void *memory, uint64_t bytes) {
    const struct gpu_driver *driver = gpu_driver_of(device);
    struct gpu_scope scope;
    (void)bytes;
    if (driver->enter(device, &scope) != KRY_OK)
        return;
    driver->release(memory); /* what it could tell are errors of work before it */
    driver->leave(&scope);
}

static kry_status copy(const kry_device *device, void *to, uint32_t to_memory, const void *from,
                       uint32_t from_memory, uint64_t bytes, void *stream) {
    const struct gpu_driver *driver = gpu_driver_of(device);
    struct gpu_scope scope;
    if (bytes == 0)
        return KRY_OK;
    if (to_memory == KRY_MEMORY_HOST && from_memory == KRY_MEMORY_HOST) {
        memmove(to, from, bytes);
        return KRY_OK;
    }
    kry_status status = driver->enter(device, &scope);
    if (status != KRY_OK)
        return status;
    status = driver->copy(to, to_memory, from, from_memory, bytes, stream);
    driver->leave(&scope);
    return status;
}

static kry_status clear(const kry_device *device, void *memory, uint64_t bytes, void *stream) {
    const struct gpu_driver *driver = gpu_driver_of(device);
    struct gpu_scope scope;
    if (bytes == 0)
        return KRY_OK;
    kry_status status = driver->enter(device, &scope);
    if (status != KRY_OK)
        return status;
    status = driver->clear(memory, bytes, stream);
    driver->leave(&scope);
    return status;
}

static kry_status synchronize(const kry_device *device, void *stream) {
    const struct gpu_driver *driver = gpu_driver_of(device);
    struct gpu_scope scope;
    kry_status status = driver->enter(device, &scope);
    if (status != KRY_OK)
        return status;
    status = driver->synchronize(stream);
    driver->leave(&scope);
    return status;
}

/* ---- stored weights put in order ----------------------------------------------------------------
 */

static struct gpu_view view_of(const kry_view *view) {
    return (struct gpu_view){.data = view->data,
                             .n_stride = view->n_stride,
                             .j_stride = view->j_stride,
                             .n_begin = view->n_begin,
                             .j_begin = view->j_begin,
                             .element_bits = view->element_bits,
                             .word_bits = view->word_bits,
                             .pack_axis = view->pack_axis,
                             .order = view->order,
                             .zero = view->zero};
}

static kry_status put_codes(const struct gpu_code *code, const kry_canonicalise_call *call) {
    uint32_t bits = (uint32_t)kry_weight_bits(call->linear->weight_type);
    int64_t columns = call->linear->in_features, per_word = 32 / bits;
    struct gpu_canonicalise_codes_params parameters = {.from = view_of(call->weights->qweight),
                                                       .to = call->qweight,
                                                       .n_begin = call->n_begin,
                                                       .n_end = call->n_end,
                                                       .columns = columns,
                                                       .words = (columns + per_word - 1) / per_word,
                                                       .bits = bits};
    struct gpu_launch launch =
        gpu_launch_canonicalise_codes(call->n_end - call->n_begin, parameters.words);
    return gpu_code_launch(code, &launch, &parameters, call->stream);
}

/* One group a channel has a size that no column reaches. */
static int64_t size_of_group(const kry_linear *linear) {
    return linear->group_size < 0 ? INT64_C(1) << 40 : linear->group_size;
}

/* Of a tensor [N, G]: scales, or zero points, which have a weight type's bits. */
static kry_status put_groups(const struct gpu_code *code, const kry_canonicalise_call *call,
                             const kry_view *view, void *to, uint32_t zero_bits) {
    int64_t rows = call->n_end - call->n_begin, groups = kry_linear_groups(call->linear);
    struct gpu_canonicalise_groups_params parameters = {.from = view_of(view),
                                                        .to = to,
                                                        .n_begin = call->n_begin,
                                                        .n_end = call->n_end,
                                                        .to_groups = groups,
                                                        .to_size = size_of_group(call->linear),
                                                        .from_size = size_of_group(call->stored),
                                                        .k_offset = call->linear->k_offset,
                                                        .zero_bits = zero_bits,
                                                        .identity = call->linear->act_order ||
                                                                    call->linear->group_size ==
                                                                        call->stored->group_size};
    struct gpu_launch launch = zero_bits != 0 ? gpu_launch_canonicalise_zeros(rows, groups)
                                              : gpu_launch_canonicalise_scales(rows, groups);
    return gpu_code_launch(code, &launch, &parameters, call->stream);
}

static kry_status put_all(const struct gpu_code *code, const struct gpu_driver *driver,
                          const kry_canonicalise_call *call) {
    kry_status status = put_codes(code, call);
    if (status == KRY_OK)
        status = put_groups(code, call, call->weights->scales, call->scales, 0);
    if (status == KRY_OK && call->weights->zero_points != NULL)
        status = put_groups(code, call, call->weights->zero_points, call->zero_points,
                            (uint32_t)kry_weight_bits(call->linear->weight_type));
    if (status == KRY_OK && call->weights->g_idx != NULL)
        status =
            driver->copy(call->g_idx, KRY_MEMORY_DEVICE, call->weights->g_idx, KRY_MEMORY_DEVICE,
                         (uint64_t)call->linear->in_features * 4, call->stream);
    return status;
}

static kry_status canonicalise(const kry_canonicalise_call *call) {
    const struct gpu_driver *driver = gpu_driver_of(call->device);
    const struct gpu_code *code;
    struct gpu_scope scope;
    kry_status status = driver->enter(call->device, &scope);
    if (status != KRY_OK)
        return status;
    status = gpu_code_open(call->device, &code);
    if (status == KRY_OK)
        status = put_all(code, driver, call);
    driver->leave(&scope);
    return status;
}

const kry_platform gpu_platform_cuda = {.struct_size = sizeof(kry_platform),
                                        .name = "cuda",
                                        .device = gpu_cuda_device,
                                        .describe_device = gpu_cuda_describe,
                                        .allocate = allocate,
                                        .release = release,
                                        .copy = copy,
                                        .clear = clear,
                                        .synchronize = synchronize,
                                        .canonicalise = canonicalise};

const kry_platform gpu_platform_rocm = {.struct_size = sizeof(kry_platform),
                                        .name = "rocm",
                                        .device = gpu_rocm_device,
                                        .describe_device = gpu_rocm_describe,
                                        .allocate = allocate,
                                        .release = release,
                                        .copy = copy,
                                        .clear = clear,
                                        .synchronize = synchronize,
                                        .canonicalise = canonicalise};
