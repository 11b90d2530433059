/*
 * Partitions of a layer: any rows, any columns.
 */
#include "internal.h"

/* One axis: an end of 0 means all of it. */
static kry_status resolve_axis(const layer *layer, const char *axis, int64_t size, int64_t begin,
                               int64_t *end) {
    int64_t last = *end == 0 ? size : *end;
    if (begin < 0 || begin >= last || last > size)
        return kry_error_set(KRY_E_ARGUMENT,
                             "layer '%s': slice [%lld, %lld) of %s; expected a part of [0, %lld) "
                             "that is not empty",
                             layer->name, (long long)begin, (long long)last, axis, (long long)size);
    *end = last;
    return KRY_OK;
}

kry_status ckpt_slice_resolve(const layer *layer, const kry_slice *slice, kry_slice *out) {
    kry_slice whole = KRY_INIT(kry_slice);
    kry_status status = ckpt_copy_in(out, sizeof *out, slice == NULL ? &whole : slice, "kry_slice");
    if (status == KRY_OK)
        status = resolve_axis(layer, "output features", layer->linear.out_features, out->n_begin,
                              &out->n_end);
    if (status == KRY_OK)
        status = resolve_axis(layer, "input features", layer->linear.in_features, out->k_begin,
                              &out->k_end);
    return status;
}

kry_linear ckpt_slice_describe(const layer *layer, const kry_slice *slice) {
    kry_linear linear = layer->linear;
    linear.in_features = slice->k_end - slice->k_begin;
    linear.out_features = slice->n_end - slice->n_begin;
    linear.k_offset = slice->k_begin;
    return linear;
}

kry_status kry_checkpoint_slice(const kry_checkpoint *checkpoint, size_t index,
                                const kry_slice *slice, kry_linear *out) {
    const layer *layer;
    kry_slice resolved;
    kry_status status = ckpt_layer_get(checkpoint, index, &layer);
    if (status == KRY_OK)
        status = ckpt_slice_resolve(layer, slice, &resolved);
    if (status != KRY_OK)
        return status;
    kry_linear linear = ckpt_slice_describe(layer, &resolved);
    return ckpt_copy_out(out, &linear, sizeof linear, "kry_linear");
}
