/*
 * Linear descriptions: defaults filled in, every field checked, told in words.
 */
#include "core.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static kry_status check_range(const char *field, int64_t found, int64_t least, int64_t most) {
    if (found >= least && found <= most)
        return KRY_OK;
    return kry_error_set(KRY_E_ARGUMENT,
                         "linear description: %s is %" PRId64 ", expected %" PRId64 " to %" PRId64,
                         field, found, least, most);
}

static kry_status check_shapes(const kry_linear *l) {
    kry_status status = check_range("in_features", l->in_features, 1, KRY_FEATURES_MAX);
    if (status == KRY_OK)
        status = check_range("out_features", l->out_features, 1, KRY_FEATURES_MAX);
    if (status == KRY_OK)
        status =
            check_range("full_in_features", l->full_in_features, l->in_features, KRY_FEATURES_MAX);
    if (status == KRY_OK)
        status = check_range("full_out_features", l->full_out_features, l->out_features,
                             KRY_FEATURES_MAX);
    if (status == KRY_OK)
        status = check_range("k_offset", l->k_offset, 0, l->full_in_features - l->in_features);
    if (status == KRY_OK && l->group_size != -1)
        status = check_range("group_size", l->group_size, 1, KRY_FEATURES_MAX);
    return status;
}

static kry_status check_types(const kry_linear *l) {
    const struct {
        const char *field;
        uint32_t found;
        int32_t least, most;
    } fields[] = {
        {"weight_type", l->weight_type, KRY_WEIGHT_U4B8, KRY_WEIGHT_U8},
        /* First: the others' defaults are copies of it. */
        {"x_type", l->x_type, KRY_TYPE_F16, KRY_TYPE_F32},
        {"scale_type", l->scale_type, KRY_TYPE_F16, KRY_TYPE_F32},
        {"y_type", l->y_type, KRY_TYPE_F16, KRY_TYPE_F32},
        {"activation_quantization", l->activation_quantization, KRY_ACTIVATION_NONE,
         KRY_ACTIVATION_FP8_E4M3_TOKEN},
        {"allowed", l->allowed, 0, KRY_ALLOW_INT8_ACTIVATIONS},
        {"act_order", l->act_order, 0, 1},
        {"reserved", l->reserved, 0, 0},
    };
    kry_status status = KRY_OK;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0] && status == KRY_OK; i++)
        status = check_range(fields[i].field, fields[i].found, fields[i].least, fields[i].most);
    return status;
}

kry_status kry_linear_complete(const kry_linear *linear, kry_linear *out) {
    kry_linear l;
    kry_status status = COPY_IN(&l, linear, kry_linear);
    if (status != KRY_OK)
        return status;
    if (l.full_in_features == 0)
        l.full_in_features = l.in_features;
    if (l.full_out_features == 0)
        l.full_out_features = l.out_features;
    if (l.scale_type == 0)
        l.scale_type = l.x_type;
    if (l.y_type == 0)
        l.y_type = l.x_type;
    status = check_shapes(&l);
    if (status == KRY_OK)
        status = check_types(&l);
    return status == KRY_OK ? COPY_OUT(out, &l, kry_linear) : status;
}

size_t core_linear_format(const kry_linear *linear, char *out, size_t size) {
    static const char *const weights[] = {"", "u4b8", "u4", "u8b128", "u8"};
    static const char *const types[] = {"", "f16", "bf16", "f32"};
    static const char *const quantized[] = {"", ", int8 a token", ", fp8 a token"};
    char group[32] = "channel", offset[48] = "";
    if (linear->group_size > 0)
        snprintf(group, sizeof group, "g%" PRId64, linear->group_size);
    if (linear->in_features != linear->full_in_features)
        snprintf(offset, sizeof offset, " at k %" PRId64 " of %" PRId64, linear->k_offset,
                 linear->full_in_features);
    return (size_t)snprintf(
        out, size, "%" PRId64 "x%" PRId64 "%s %s %s %s%s%s", linear->in_features,
        linear->out_features, offset, group, weights[linear->weight_type], types[linear->x_type],
        linear->act_order ? " act-order" : "", quantized[linear->activation_quantization]);
}
