/*
 * Mock kernels that compute: prepared weights are plain codes, zero points and scales, apply
 * is the product as it is written, summed in double. They serve "cpu" and, through tagged
 * pointers, "toy"; there they insist that every operand lies on the device.
 */
#include "mock.h"

#include <math.h>
#include <string.h>

enum { PREPARE_SCRATCH = 512, ZEROED = 64, BOUND = 16 };

/** Keeps every product of sizes far from overflow. */
static const int64_t elements_max = INT64_C(1) << 40;

int64_t mock_can_all(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    (void)linear;
    (void)refusal;
    return KRY_ACCEPTED;
}

int64_t mock_can_mute(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    (void)linear;
    (void)refusal;
    return -7;
}

int64_t mock_can_dense(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    const int64_t f32 = INT64_C(1) << KRY_TYPE_F32;
    if (linear->x_type != KRY_TYPE_F32)
        return kry_refuse(refusal, KRY_REFUSAL_X_TYPE, linear->x_type, f32, NULL);
    if (linear->y_type != KRY_TYPE_F32)
        return kry_refuse(refusal, KRY_REFUSAL_Y_TYPE, linear->y_type, f32, NULL);
    if (linear->activation_quantization != KRY_ACTIVATION_NONE)
        return kry_refuse(refusal, KRY_REFUSAL_ACTIVATION_QUANTIZATION,
                          linear->activation_quantization, 1 << KRY_ACTIVATION_NONE, NULL);
    if (linear->in_features > elements_max / linear->out_features)
        return kry_refuse(refusal, KRY_REFUSAL_SIZE, linear->in_features,
                          elements_max / linear->out_features, NULL);
    return KRY_ACCEPTED;
}

int64_t mock_can_whole_groups(const kry_device *device, const kry_linear *linear,
                              kry_refusal *refusal) {
    int64_t group = linear->group_size;
    if (group > 0 && !linear->act_order) {
        if (linear->k_offset % group != 0)
            return kry_refuse(refusal, KRY_REFUSAL_PARTITION, linear->k_offset % group, 0, NULL);
        if (linear->in_features % group != 0)
            return kry_refuse(refusal, KRY_REFUSAL_SHORT_GROUP, linear->in_features % group, group,
                              NULL);
    }
    return mock_can_dense(device, linear, refusal);
}

int64_t mock_can_padded(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    int64_t answer = mock_can_dense(device, linear, refusal);
    if (answer != KRY_ACCEPTED)
        return answer;
    int64_t columns = (linear->in_features + 63) / 64 * 64 - linear->in_features;
    return columns * linear->out_features * kry_weight_bits(linear->weight_type) / 8;
}

kry_status mock_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    (void)device;
    out->prepared_bytes = mock_layout_of(linear).bytes;
    out->prepare_scratch_bytes = PREPARE_SCRATCH;
    out->bound_bytes = BOUND;
    out->prepare_multiple = MOCK_PREPARE_MULTIPLE;
    return KRY_OK;
}

kry_status mock_workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                          kry_workspace *out) {
    (void)device;
    (void)linear;
    out->scratch_bytes = 8 * (uint64_t)m;
    out->zeroed_bytes = ZEROED;
    return KRY_OK;
}

float mock_load(const void *array, uint32_t type, int64_t index) {
    if (type == KRY_TYPE_F32) {
        float value;
        memcpy(&value, (const char *)array + 4 * index, sizeof value);
        return value;
    }
    uint16_t half;
    memcpy(&half, (const char *)array + 2 * index, sizeof half);
    if (type == KRY_TYPE_BF16) {
        uint32_t bits = (uint32_t)half << 16;
        float value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    int exponent = half >> 10 & 31;
    float fraction = (float)(half & 1023) / 1024;
    float sign = half >> 15 ? -1.0F : 1.0F;
    if (exponent == 31)
        return fraction != 0 ? NAN : sign * INFINITY;
    return sign * (exponent == 0 ? ldexpf(fraction, -14) : ldexpf(1 + fraction, exponent - 15));
}

/** What the core owes a kernel that prepares: memory kinds that agree, ranges that fit. */
static const char *wrong_with(const kry_prepare_call *call) {
    const kry_canonical *w = call->weights;
    int device = w->memory == KRY_MEMORY_DEVICE;
    if (mock_is_device(call->prepared) != device || mock_is_device(w->qweight) != device ||
        mock_is_device(w->scales) != device || mock_is_device(call->scratch) != device)
        return "weights, prepared and scratch are not in one kind of memory";
    if ((uintptr_t)call->prepared % KRY_ALIGNMENT != 0 ||
        (uintptr_t)call->scratch % KRY_ALIGNMENT != 0)
        return "prepared or scratch is not aligned";
    if (w->n_begin < 0 || w->n_begin >= w->n_end || w->n_end > call->linear->out_features)
        return "the range is not one of the layer's";
    if (w->n_begin % MOCK_PREPARE_MULTIPLE != 0 ||
        (w->n_end % MOCK_PREPARE_MULTIPLE != 0 && w->n_end != call->linear->out_features))
        return "the range does not keep to prepare_multiple";
    if ((w->zero_points != NULL) != kry_weight_has_zero_points(call->linear->weight_type))
        return "zero points where none belong, or none where they do";
    if ((w->g_idx != NULL) != (call->linear->act_order != 0))
        return "g_idx without act_order, or act_order without g_idx";
    return NULL;
}

static void prepare_row(const kry_prepare_call *call, const mock_layout *layout, int64_t n) {
    const kry_canonical *w = call->weights;
    const kry_linear *linear = call->linear;
    int64_t row = n - w->n_begin;
    uint32_t bits = (uint32_t)kry_weight_bits(linear->weight_type);
    uint32_t fields = 32 / bits;
    uint8_t *prepared = mock_untag(call->prepared);
    const uint32_t *words = (const uint32_t *)mock_untag(w->qweight) + row * w->qweight_stride;
    for (int64_t k = 0; k < linear->in_features; k++)
        prepared[n * linear->in_features + k] =
            (uint8_t)(words[k / fields] >> (uint32_t)(k % fields) * bits & ((1U << bits) - 1));
    for (int64_t g = 0; g < layout->groups; g++) {
        int64_t place = n * layout->groups + g;
        const uint8_t *zeros = mock_untag(w->zero_points);
        int zero = zeros != NULL ? zeros[row * w->zero_stride + g] : 1 << (bits - 1);
        prepared[layout->zero_at + (uint64_t)place] = (uint8_t)zero;
        float scale =
            mock_load(mock_untag(w->scales), linear->scale_type, row * w->scale_stride + g);
        memcpy(prepared + layout->scale_at + 4 * place, &scale, sizeof scale);
    }
    prepared[layout->count_at + (uint64_t)n]++;
}

kry_status mock_prepare(const kry_prepare_call *call) {
    const char *wrong = wrong_with(call);
    if (wrong != NULL)
        return mock_fail(KRY_E_ARGUMENT, wrong);
    mock_layout layout = mock_layout_of(call->linear);
    memset(mock_untag(call->scratch), 0xee, PREPARE_SCRATCH);
    for (int64_t n = call->weights->n_begin; n < call->weights->n_end; n++)
        prepare_row(call, &layout, n);
    if (call->weights->n_begin == 0) { /* one range writes what is not a row's */
        uint8_t *groups = (uint8_t *)mock_untag(call->prepared) + layout.group_at;
        const int32_t *g_idx = mock_untag(call->weights->g_idx);
        for (int64_t k = 0; k < call->linear->in_features; k++) {
            int32_t group =
                g_idx != NULL ? g_idx[k] : (int32_t)kry_linear_group_of(call->linear, k);
            memcpy(groups + 4 * k, &group, sizeof group);
        }
    }
    if (call->stream != NULL)
        ((mock_stream *)call->stream)->prepares++;
    return KRY_OK;
}

kry_status mock_open_device(const kry_device *device, const kry_host *host, void **state) {
    (void)device;
    void *memory = host->allocate != NULL ? host->allocate(host->context, 64, 64) : NULL;
    *state = memory;
    return memory != NULL || host->allocate == NULL ? KRY_OK : KRY_E_MEMORY;
}

void mock_close_device(void *state, const kry_host *host) {
    if (state != NULL)
        host->release(host->context, state, 64);
}

kry_status mock_bind(const kry_binding *binding) {
    const void *noted[2] = {binding->prepared, binding->device_state};
    memcpy(binding->bound, noted, sizeof noted);
    return KRY_OK;
}

/** What the core owes a kernel that applies. */
static const char *wrong_with_apply(const kry_binding *binding, const kry_apply_args *args) {
    int device = strcmp(binding->device->platform, "toy") == 0;
    const void *noted[2];
    memcpy(noted, binding->bound, sizeof noted);
    if (noted[0] != binding->prepared || noted[1] != binding->device_state)
        return "bind saw another address than apply";
    if (mock_is_device(binding->prepared) != device || mock_is_device(args->scratch) != device ||
        mock_is_device(args->zeroed) != device)
        return "an operand lies in the wrong memory";
    if (args->m <= 0 || (args->m > 1 && (args->x_stride < binding->linear->in_features ||
                                         args->y_stride < binding->linear->out_features)))
        return "m or a stride was not filled in";
    const uint8_t *zeroed = mock_untag(args->zeroed);
    for (int i = 0; i < ZEROED; i++)
        if (zeroed[i] != 0)
            return "the zeroed part is not clear";
    return NULL;
}

typedef struct product {
    const kry_binding *binding;
    const kry_apply_args *args;
} product;

/** One output feature, all rows. */
static void multiply(void *argument, int64_t n) {
    const product *p = argument;
    const kry_linear *linear = p->binding->linear;
    mock_layout layout = mock_layout_of(linear);
    const uint8_t *w = mock_untag(p->binding->prepared);
    const float *x = mock_untag(p->args->x);
    const float *bias = mock_untag(p->args->bias);
    float *y = mock_untag(p->args->y);
    for (int64_t row = 0; row < p->args->m; row++) {
        double sum = bias != NULL ? bias[n] : 0;
        for (int64_t k = 0; k < linear->in_features; k++) {
            int32_t group;
            memcpy(&group, w + layout.group_at + 4 * k, sizeof group);
            int64_t place = n * layout.groups + group;
            int zero = w[layout.zero_at + (uint64_t)place];
            double scale = mock_load(w + layout.scale_at, KRY_TYPE_F32, place);
            sum += scale * (w[n * linear->in_features + k] - zero) * x[row * p->args->x_stride + k];
        }
        y[row * p->args->y_stride + n] = (float)sum;
    }
}

kry_status mock_apply(const kry_binding *binding, const kry_apply_args *args) {
    const char *wrong = wrong_with_apply(binding, args);
    if (wrong != NULL)
        return mock_fail(KRY_E_ARGUMENT, wrong);
    memset(mock_untag(args->scratch), 0xee, 8 * (size_t)args->m);
    memset(mock_untag(args->zeroed), 0xee, ZEROED);
    product p = {binding, args};
    kry_parallel_for(args->host != NULL ? args->host : binding->host, binding->linear->out_features,
                     multiply, &p);
    memset(mock_untag(args->zeroed), 0, ZEROED);
    if (args->stream != NULL)
        ((mock_stream *)args->stream)->applies++;
    return KRY_OK;
}

kry_status mock_noop_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    (void)device;
    (void)linear;
    out->prepared_bytes = KRY_ALIGNMENT;
    out->prepare_scratch_bytes = 0;
    out->bound_bytes = 0;
    out->prepare_multiple = 1;
    return KRY_OK;
}

kry_status mock_noop_prepare(const kry_prepare_call *call) {
    (void)call;
    return KRY_OK;
}

kry_status mock_noop_apply(const kry_binding *binding, const kry_apply_args *args) {
    (void)binding;
    (void)args;
    return KRY_OK;
}
