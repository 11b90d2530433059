/*
 * Gates named after the kernels that vLLM chooses among for mixed precision, with the
 * restrictions that matter to a choice: architecture, types, groups, alignment.
 */
#include "mock.h"

#define BIT(value) (INT64_C(1) << (value))

static int64_t need_type(uint32_t code, uint32_t found, int64_t needed, kry_refusal *refusal) {
    if (needed & BIT(found))
        return KRY_ACCEPTED;
    return kry_refuse(refusal, code, found, needed, NULL);
}

static int64_t need_multiple(uint32_t code, int64_t found, int64_t multiple, kry_refusal *refusal) {
    if (found % multiple == 0)
        return KRY_ACCEPTED;
    return kry_refuse(refusal, code, found, multiple, NULL);
}

static int64_t need_arch(const kry_device *device, uint32_t least, uint32_t most,
                         kry_refusal *refusal) {
    if (device->arch_number >= least && device->arch_number <= most)
        return KRY_ACCEPTED;
    return kry_refuse(refusal, KRY_REFUSAL_CAPABILITY, device->arch_number, least, NULL);
}

/** One of the sizes (0 ends them), and whole groups in the partition. */
static int64_t need_group(const kry_linear *linear, const int64_t *sizes, kry_refusal *refusal) {
    const int64_t *size = sizes;
    while (*size != 0 && *size != linear->group_size)
        size++;
    if (*size == 0)
        return kry_refuse(refusal, KRY_REFUSAL_GROUP_SIZE, linear->group_size, sizes[0], NULL);
    if (*size < 0)
        return KRY_ACCEPTED;
    if (linear->k_offset % *size != 0)
        return kry_refuse(refusal, KRY_REFUSAL_PARTITION, linear->k_offset % *size, 0, NULL);
    if (linear->in_features % *size != 0)
        return kry_refuse(refusal, KRY_REFUSAL_SHORT_GROUP, linear->in_features % *size, *size,
                          NULL);
    return KRY_ACCEPTED;
}

static int64_t need_no_act_order(const kry_linear *linear, kry_refusal *refusal) {
    if (!linear->act_order)
        return KRY_ACCEPTED;
    return kry_refuse(refusal, KRY_REFUSAL_ACT_ORDER, 1, 0, NULL);
}

int64_t mock_can_cutlass_w4a8(const kry_device *device, const kry_linear *linear,
                              kry_refusal *refusal) {
    static const int64_t groups[] = {128, 0};
    int64_t answer = need_arch(device, 90, 90, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_type(KRY_REFUSAL_ACTIVATION_QUANTIZATION, linear->activation_quantization,
                           BIT(KRY_ACTIVATION_FP8_E4M3_TOKEN), refusal);
    if (answer == KRY_ACCEPTED)
        answer =
            need_type(KRY_REFUSAL_WEIGHT_TYPE, linear->weight_type, BIT(KRY_WEIGHT_U4B8), refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_no_act_order(linear, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_group(linear, groups, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_multiple(KRY_REFUSAL_K_ALIGNMENT, linear->in_features, 128, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_multiple(KRY_REFUSAL_N_ALIGNMENT, linear->out_features, 128, refusal);
    return answer;
}

int64_t mock_can_machete(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    static const int64_t groups[] = {128, 64, -1, 0};
    int64_t answer = need_arch(device, 90, 90, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_type(KRY_REFUSAL_ACTIVATION_QUANTIZATION, linear->activation_quantization,
                           BIT(KRY_ACTIVATION_NONE), refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_group(linear, groups, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_multiple(KRY_REFUSAL_K_ALIGNMENT, linear->in_features, 64, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_multiple(KRY_REFUSAL_N_ALIGNMENT, linear->out_features, 128, refusal);
    return answer;
}

int64_t mock_can_allspark(const kry_device *device, const kry_linear *linear,
                          kry_refusal *refusal) {
    static const int64_t groups[] = {-1, 0};
    int64_t answer = need_arch(device, 80, 89, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_type(KRY_REFUSAL_WEIGHT_TYPE, linear->weight_type, BIT(KRY_WEIGHT_U8B128),
                           refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_no_act_order(linear, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_group(linear, groups, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_multiple(KRY_REFUSAL_K_ALIGNMENT, linear->in_features, 16, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_multiple(KRY_REFUSAL_N_ALIGNMENT, linear->out_features, 16, refusal);
    return answer;
}

int64_t mock_can_marlin(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    static const int64_t groups[] = {128, 64, 32, -1, 0};
    int64_t answer = need_arch(device, 80, UINT32_MAX, refusal);
    if (answer == KRY_ACCEPTED)
        answer =
            need_type(KRY_REFUSAL_WEIGHT_TYPE, linear->weight_type,
                      BIT(KRY_WEIGHT_U4B8) | BIT(KRY_WEIGHT_U4) | BIT(KRY_WEIGHT_U8B128), refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_multiple(KRY_REFUSAL_K_ALIGNMENT, linear->in_features, 128, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_multiple(KRY_REFUSAL_N_ALIGNMENT, linear->out_features, 64, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_group(linear, groups, refusal);
    return answer;
}

int64_t mock_can_conch(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    static const int64_t groups[] = {128, -1, 0};
    (void)device;
    int64_t answer = need_no_act_order(linear, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_group(linear, groups, refusal);
    return answer;
}

int64_t mock_can_conch_without_library(const kry_device *device, const kry_linear *linear,
                                       kry_refusal *refusal) {
    (void)device;
    (void)linear;
    return kry_refuse(refusal, KRY_REFUSAL_DEPENDENCY, 0, 0, "the conch library is not installed");
}

int64_t mock_can_exllama(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    int64_t fields = 32 / kry_weight_bits(linear->weight_type);
    int64_t answer = need_type(KRY_REFUSAL_X_TYPE, linear->x_type, BIT(KRY_TYPE_F16), refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_type(KRY_REFUSAL_WEIGHT_TYPE, linear->weight_type,
                           BIT(KRY_WEIGHT_U4B8) | BIT(KRY_WEIGHT_U8B128), refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_multiple(KRY_REFUSAL_N_ALIGNMENT, linear->out_features, fields, refusal);
    /* Act-order reads every group, so a partition of one does not fit its scales. */
    if (answer == KRY_ACCEPTED && linear->act_order &&
        linear->in_features != linear->full_in_features)
        answer = kry_refuse(refusal, KRY_REFUSAL_ACT_ORDER, 1, 0, NULL);
    return answer;
}

int64_t mock_can_triton_w4a16(const kry_device *device, const kry_linear *linear,
                              kry_refusal *refusal) {
    (void)device;
    int64_t answer = need_type(KRY_REFUSAL_WEIGHT_TYPE, linear->weight_type,
                               BIT(KRY_WEIGHT_U4B8) | BIT(KRY_WEIGHT_U4), refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_no_act_order(linear, refusal);
    if (answer == KRY_ACCEPTED)
        answer = need_multiple(KRY_REFUSAL_N_ALIGNMENT, linear->out_features, 8, refusal);
    int64_t group = linear->group_size < 0 ? linear->in_features : linear->group_size;
    if (answer == KRY_ACCEPTED && group != linear->in_features && (group < 32 || group > 256))
        answer = kry_refuse(refusal, KRY_REFUSAL_GROUP_SIZE, group, 32, NULL);
    if (answer == KRY_ACCEPTED && linear->k_offset % group != 0 && linear->group_size > 0)
        answer = kry_refuse(refusal, KRY_REFUSAL_PARTITION, linear->k_offset % group, 0, NULL);
    return answer;
}
