/*
 * A partition's weights: views into the mapped files, and the little that has to be copied.
 */
#include "internal.h"

#include <stdlib.h>

/* What a kry_checkpoint_weights points to. */
typedef struct holder {
    kry_checkpoint_weights shown; /* first: the caller's pointer is the holder's */
    kry_linear linear;
    kry_weights weights;
    kry_view qweight, scales, zero_points;
    int32_t *g_idx; /* copies, where the file's are not aligned; else NULL */
    void *bias;
} holder;

/* ---- views ---------------------------------------------------------------------------- */

static kry_view view_qweight(const layer *layer, const kry_slice *slice) {
    kry_view view = KRY_INIT(kry_view);
    view.data = layer->weight->data;
    view.bytes = layer->weight->bytes;
    view.n_begin = slice->n_begin;
    view.j_begin = slice->k_begin;
    view.element_bits = (uint32_t)layer->scheme.bits;
    view.word_bits = 32;
    bool rows_are_features = layer->scheme.method == KRY_METHOD_COMPRESSED_TENSORS;
    view.n_stride = rows_are_features ? layer->weight->shape[1] : 1;
    view.j_stride = rows_are_features ? 1 : layer->weight->shape[1];
    bool awq = layer->scheme.method == KRY_METHOD_AWQ;
    view.pack_axis = awq ? KRY_AXIS_N : KRY_AXIS_K;
    view.order = awq ? KRY_ORDER_AWQ : KRY_ORDER_SEQUENTIAL;
    return view;
}

static kry_view view_scales(const layer *layer, int64_t n_begin, int64_t j_begin) {
    const kry_tensor *tensor = layer->scales;
    kry_view view = KRY_INIT(kry_view);
    view.data = tensor->data;
    view.bytes = tensor->bytes;
    view.n_begin = n_begin;
    view.j_begin = j_begin;
    view.element_bits = view.word_bits = (uint32_t)kry_dtype_bytes(tensor->dtype) * 8;
    int64_t columns = tensor->rank == 1 ? 1 : tensor->shape[1];
    bool rows_are_features = layer->scheme.method == KRY_METHOD_COMPRESSED_TENSORS;
    view.n_stride = rows_are_features ? columns : 1;
    view.j_stride = rows_are_features ? 1 : columns;
    return view;
}

/* ---- checks --------------------------------------------------------------------------- */

static bool is_finite(const uint8_t *element, uint32_t type) {
    uint16_t half;
    uint32_t single;
    if (type == KRY_TYPE_F32) {
        memcpy(&single, element, sizeof single);
        return (single & 0x7f800000) != 0x7f800000;
    }
    memcpy(&half, element, sizeof half);
    unsigned exponent = type == KRY_TYPE_F16 ? 0x7c00 : 0x7f80;
    return (half & exponent) != exponent;
}

static void check_scales(const kry_checkpoint *checkpoint, const layer *layer, const kry_view *view,
                         const kry_linear *linear) {
    const uint8_t *data = view->data;
    int64_t groups = kry_linear_groups(linear), bytes = view->word_bits / 8;
    /* Along the memory: the axis of stride 1 runs inside. */
    bool n_inside = view->n_stride == 1 && view->j_stride != 1;
    int64_t outer_count = n_inside ? groups : linear->out_features;
    int64_t inner_count = n_inside ? linear->out_features : groups;
    uint64_t bad = 0, all = (uint64_t)groups * (uint64_t)linear->out_features;
    for (int64_t outer = 0; outer < outer_count; outer++)
        for (int64_t inner = 0; inner < inner_count; inner++) {
            int64_t n = view->n_begin + (n_inside ? inner : outer);
            int64_t j = view->j_begin + (n_inside ? outer : inner);
            bad += !is_finite(data + (n * view->n_stride + j * view->j_stride) * bytes,
                              linear->scale_type);
        }
    if (bad > 0 && ckpt_layer_warns(layer, WARNED_SCALES))
        ckpt_warn(checkpoint, "%s: tensor '%s': %llu of %llu scales are NaN or infinite",
                  layer->scales->file, layer->scales->name, (unsigned long long)bad,
                  (unsigned long long)all);
}

/* ---- act-order ------------------------------------------------------------------------- */

static int32_t load_i32(const kry_tensor *tensor, int64_t index) {
    int32_t value;
    memcpy(&value, (const uint8_t *)tensor->data + index * 4, sizeof value);
    return value;
}

/* Writers of compressed-tensors leave -1 throughout where they have not set g_idx. */
kry_status ckpt_g_idx_read(const layer *layer, bool *trivial) {
    const kry_tensor *tensor = layer->g_idx;
    const kry_linear *linear = &layer->linear;
    int64_t group_size = linear->group_size > 0 ? linear->group_size : linear->in_features;
    int64_t groups = divide_up(linear->in_features, group_size);
    bool may_be_unset = layer->scheme.method == KRY_METHOD_COMPRESSED_TENSORS, unset = true;
    *trivial = true;
    for (int64_t k = 0; k < linear->in_features; k++) {
        int32_t group = load_i32(tensor, k);
        unset = unset && may_be_unset && group == -1;
        if (unset)
            continue;
        if (group < 0 || group >= groups || (k > 0 && may_be_unset && load_i32(tensor, 0) == -1))
            return kry_error_set(
                KRY_E_FORMAT, "%s: tensor '%s': column %lld is of group %d; expected 0 to %lld",
                tensor->file, tensor->name, (long long)k, group, (long long)(groups - 1));
        *trivial = *trivial && group == k / group_size;
    }
    return KRY_OK;
}

static kry_status hold_g_idx(const kry_checkpoint *checkpoint, const layer *layer,
                             const kry_slice *slice, holder *holder) {
    bool trivial = true;
    kry_status status = layer->g_idx == NULL ? KRY_OK : ckpt_g_idx_read(layer, &trivial);
    if (status != KRY_OK)
        return status;
    if (!trivial && !layer->linear.act_order && ckpt_layer_warns(layer, WARNED_ACT_ORDER))
        ckpt_warn(checkpoint,
                  "%s: tensor '%s' orders the columns, although the config says there is no "
                  "act-order; it is used",
                  layer->g_idx->file, layer->g_idx->name);
    holder->linear.act_order = !trivial;
    if (trivial)
        return KRY_OK;
    const uint8_t *data = (const uint8_t *)layer->g_idx->data + slice->k_begin * 4;
    if ((uintptr_t)data % _Alignof(int32_t) == 0) {
        holder->weights.g_idx = (const int32_t *)(const void *)data;
        return KRY_OK;
    }
    size_t bytes = (size_t)holder->linear.in_features * sizeof(int32_t);
    holder->g_idx = malloc(bytes);
    if (holder->g_idx == NULL)
        return kry_error_set(KRY_E_MEMORY, "layer '%s': out of memory", layer->name);
    memcpy(holder->g_idx, data, bytes);
    holder->weights.g_idx = holder->g_idx;
    return KRY_OK;
}

/* ---- all together ---------------------------------------------------------------------- */

static kry_status hold_bias(const layer *layer, const kry_slice *slice, holder *holder) {
    if (layer->bias == NULL)
        return KRY_OK;
    size_t element = kry_dtype_bytes(layer->bias->dtype);
    const uint8_t *data = (const uint8_t *)layer->bias->data + (size_t)slice->n_begin * element;
    holder->shown.bias = data;
    holder->shown.bias_dtype = layer->bias->dtype;
    if ((uintptr_t)data % element == 0)
        return KRY_OK;
    size_t bytes = (size_t)holder->linear.out_features * element;
    holder->bias = malloc(bytes);
    if (holder->bias == NULL)
        return kry_error_set(KRY_E_MEMORY, "layer '%s': out of memory", layer->name);
    memcpy(holder->bias, data, bytes);
    holder->shown.bias = holder->bias;
    return KRY_OK;
}

static kry_status hold_views(const kry_checkpoint *checkpoint, const layer *layer,
                             const kry_slice *slice, holder *holder) {
    const kry_linear *linear = &holder->linear;
    /* With act-order every group stays; else those that the columns touch. */
    bool from_start = linear->act_order || linear->group_size < 0;
    int64_t first_group = from_start ? 0 : slice->k_begin / linear->group_size;
    holder->qweight = view_qweight(layer, slice);
    holder->scales = view_scales(layer, slice->n_begin, first_group);
    holder->weights.qweight = &holder->qweight;
    holder->weights.scales = &holder->scales;
    check_scales(checkpoint, layer, &holder->scales, linear);
    if (layer->zeros == NULL)
        return KRY_OK;
    holder->zero_points = ckpt_zero_points_view(layer, slice->n_begin, first_group);
    if (!layer->scheme.symmetric)
        holder->weights.zero_points = &holder->zero_points;
    return ckpt_zero_points_check(checkpoint, layer, &holder->zero_points, linear);
}

kry_status kry_checkpoint_weights_create(const kry_checkpoint *checkpoint, size_t index,
                                         const kry_slice *slice, kry_checkpoint_weights **out) {
    if (out == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "out is NULL");
    const layer *layer;
    kry_slice resolved;
    kry_status status = ckpt_layer_get(checkpoint, index, &layer);
    if (status == KRY_OK)
        status = ckpt_slice_resolve(layer, slice, &resolved);
    if (status != KRY_OK)
        return status;
    holder *holder = calloc(1, sizeof *holder);
    if (holder == NULL)
        return kry_error_set(KRY_E_MEMORY, "layer '%s': out of memory", layer->name);
    holder->shown = KRY_INIT(kry_checkpoint_weights);
    holder->weights = KRY_INIT(kry_weights);
    holder->weights.memory = KRY_MEMORY_HOST;
    holder->linear = ckpt_slice_describe(layer, &resolved);
    holder->shown.linear = &holder->linear;
    holder->shown.weights = &holder->weights;
    status = hold_g_idx(checkpoint, layer, &resolved, holder);
    if (status == KRY_OK)
        status = hold_views(checkpoint, layer, &resolved, holder);
    if (status == KRY_OK)
        status = hold_bias(layer, &resolved, holder);
    kry_checkpoint_weights *weights = &holder->shown;
    if (status == KRY_OK)
        *out = weights;
    else
        kry_checkpoint_weights_destroy(&weights);
    return status;
}

void kry_checkpoint_weights_destroy(kry_checkpoint_weights **weights) {
    if (weights == NULL || *weights == NULL)
        return;
    holder *holder = (struct holder *)*weights;
    free(holder->g_idx);
    free(holder->bias);
    free(holder);
    *weights = NULL;
}
