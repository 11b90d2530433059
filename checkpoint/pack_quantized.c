/*
 * The tensors of pack-quantized: weight_packed I32 [N, ceil(K/p)] packed along K, p = 32 / bits;
 * weight_shape [2] = N, K; weight_scale [N, G] ([N] with one group a channel);
 * weight_zero_point I32 [ceil(N/p), G] packed along N, already unsigned, or in older files
 * I8 [N, G], signed; weight_g_idx I32 [K].
 */
#include "compressed_tensors.h"

/* The two numbers of weight_shape; zeros where a file has a hole there. */
static kry_status read_shape(const kry_tensor *tensor, int64_t shape[2]) {
    char found[200];
    bool wide = tensor->dtype == KRY_DTYPE_I64;
    if ((!wide && tensor->dtype != KRY_DTYPE_I32) || tensor->rank != 1 || tensor->shape[0] != 2)
        return kry_error_set(KRY_E_FORMAT, "%s: tensor '%s' is %s; expected I64 [2]", tensor->file,
                             tensor->name, ckpt_tensor_format(tensor, found, sizeof found));
    int32_t narrow[2];
    if (wide)
        memcpy(shape, tensor->data, 2 * sizeof shape[0]);
    else {
        memcpy(narrow, tensor->data, sizeof narrow);
        shape[0] = narrow[0];
        shape[1] = narrow[1];
    }
    return KRY_OK;
}

/* K is told by weight_shape, or by the words of a row; the last of these may be only partly used,
 * which short groups can tell. */
static kry_status find_in_features(const kry_checkpoint *checkpoint, const layer *layer,
                                   int64_t *out) {
    int64_t out_features = layer->weight->shape[0], words = layer->weight->shape[1];
    int64_t per_word = 32 / layer->scheme.bits, least, most, by_groups, shape[2] = {0, 0};
    if (__builtin_mul_overflow(words, per_word, &most))
        most = INT64_MAX;
    least = most - per_word + 1;
    *out = most;
    const kry_tensor *tensor = ckpt_tensor_find(checkpoint, layer->name, ".weight_shape");
    kry_status status = tensor == NULL ? KRY_OK : read_shape(tensor, shape);
    if (status != KRY_OK)
        return status;
    if (shape[0] != 0 || shape[1] != 0) {
        *out = shape[1];
        if (shape[0] == out_features && shape[1] > 0 && divide_up(shape[1], per_word) == words)
            return KRY_OK;
        return kry_error_set(
            KRY_E_FORMAT,
            "%s: tensor '%s' holds [%lld, %lld], but '%s' is I32 [%lld, %lld], %lld "
            "weights a word; expected [%lld, %lld to %lld]",
            tensor->file, tensor->name, (long long)shape[0], (long long)shape[1],
            layer->weight->name, (long long)out_features, (long long)words, (long long)per_word,
            (long long)out_features, (long long)least, (long long)most);
    }
    if (layer->scheme.group_size > 0 && layer->scales->rank == 2 &&
        !__builtin_mul_overflow(layer->scales->shape[1], layer->scheme.group_size, &by_groups) &&
        by_groups < most && by_groups >= least)
        *out = by_groups;
    return KRY_OK;
}

/* Those of a symmetric layer are looked at when they have their shape, else left alone. */
static kry_status find_zeros(const kry_checkpoint *checkpoint, layer *layer) {
    const kry_linear *linear = &layer->linear;
    int64_t groups = kry_linear_groups(linear), per_word = 32 / layer->scheme.bits;
    const kry_tensor *tensor = ckpt_tensor_find(checkpoint, layer->name, ".weight_zero_point");
    bool packed = tensor != NULL && tensor->dtype == KRY_DTYPE_I32;
    int64_t rows = packed ? divide_up(linear->out_features, per_word) : linear->out_features;
    layer->scheme.zero = packed ? KRY_ZERO_TRUE : KRY_ZERO_SIGNED;
    if (layer->scheme.symmetric) {
        bool fits = tensor != NULL && (packed || tensor->dtype == KRY_DTYPE_I8) &&
                    tensor->rank == 2 && tensor->shape[0] == rows && tensor->shape[1] == groups;
        layer->zeros = fits ? tensor : NULL;
        return KRY_OK;
    }
    kry_status status = ckpt_layer_need(checkpoint, layer, ".weight_zero_point",
                                        "an asymmetric layer", &layer->zeros);
    if (status == KRY_OK)
        status = ckpt_layer_check(layer, layer->zeros, packed ? KRY_DTYPE_I32 : KRY_DTYPE_I8, rows,
                                  groups);
    return status;
}

static kry_status check_scales(const layer *layer) {
    const kry_tensor *scales = layer->scales;
    int64_t groups = kry_linear_groups(&layer->linear);
    bool vector = groups == 1 && scales->rank == 1;
    return ckpt_layer_check(layer, scales, scales->dtype, layer->linear.out_features,
                            vector ? 0 : groups);
}

kry_status ckpt_pack_quantized_describe(const kry_checkpoint *checkpoint, layer *layer) {
    int64_t in_features;
    kry_status status = ckpt_layer_find(checkpoint, layer, ".weight_packed", ".weight_scale");
    if (status == KRY_OK)
        status = find_in_features(checkpoint, layer, &in_features);
    if (status == KRY_OK)
        status = ckpt_layer_describe(checkpoint, layer, in_features, layer->weight->shape[0]);
    if (status == KRY_OK)
        status = check_scales(layer);
    if (status == KRY_OK)
        status = find_zeros(checkpoint, layer);
    if (status == KRY_OK)
        status = ckpt_layer_extras(checkpoint, layer, ".weight_g_idx");
    return status;
}
