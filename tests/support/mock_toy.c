/*
 * The platform "toy": a device whose memory is the host's behind tagged pointers. Its
 * functions refuse pointers of the wrong kind, so whatever the core passes is proven to lie
 * where it says.
 */
#include "mock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICES = 2 };

static void describe(kry_device *device) {
    snprintf(device->platform, sizeof device->platform, "toy");
    snprintf(device->name, sizeof device->name, "Toy model 1");
    device->arch_number = 1;
    device->multiprocessors = 4;
    device->shared_memory_bytes = 65536;
}

static kry_status find_device(size_t index, kry_device *out) {
    if (index >= DEVICES)
        return mock_fail(KRY_E_NOT_FOUND, "there are two toys");
    describe(out);
    snprintf(out->arch, sizeof out->arch, "toy_1");
    out->ordinal = (int32_t)index;
    return KRY_OK;
}

static kry_status describe_device(kry_device *device) {
    if (strcmp(device->arch, "toy_1") != 0)
        return mock_fail(KRY_E_NOT_FOUND, "the only architecture of toys is toy_1");
    describe(device);
    return KRY_OK;
}

static kry_status allocate(const kry_device *device, uint64_t bytes, void **out) {
    (void)device;
    if (bytes > UINT64_C(1) << 30)
        return mock_fail(KRY_E_MEMORY, "the toy has but 1 GiB");
    uint64_t rounded = (bytes + KRY_ALIGNMENT) / KRY_ALIGNMENT * KRY_ALIGNMENT;
    void *memory = aligned_alloc(KRY_ALIGNMENT, rounded);
    if (memory == NULL)
        return KRY_E_MEMORY;
    memset(memory, 0xcd, rounded); /* whoever reads what nobody wrote shall notice */
    *out = mock_tag(memory);
    return KRY_OK;
}

static void release(const kry_device *device, void *memory, uint64_t bytes) {
    (void)device;
    (void)bytes;
    free(mock_untag(memory));
}

static kry_status copy(const kry_device *device, void *to, uint32_t to_memory, const void *from,
                       uint32_t from_memory, uint64_t bytes, void *stream) {
    (void)device;
    if (mock_is_device(to) != (to_memory == KRY_MEMORY_DEVICE) ||
        mock_is_device(from) != (from_memory == KRY_MEMORY_DEVICE))
        return mock_fail(KRY_E_ARGUMENT, "copy: a pointer is not of the memory it is said to be");
    memcpy(mock_untag(to), mock_untag(from), bytes);
    if (stream != NULL)
        ((mock_stream *)stream)->copies++;
    return KRY_OK;
}

static kry_status clear(const kry_device *device, void *memory, uint64_t bytes, void *stream) {
    (void)device;
    if (!mock_is_device(memory))
        return mock_fail(KRY_E_ARGUMENT, "clear: not a device pointer");
    memset(mock_untag(memory), 0, bytes);
    if (stream != NULL)
        ((mock_stream *)stream)->clears++;
    return KRY_OK;
}

static kry_status synchronize(const kry_device *device, void *stream) {
    (void)device;
    if (stream != NULL)
        ((mock_stream *)stream)->waits++;
    return KRY_OK;
}

/** Word `index` of a view in host memory, as far as bytes reach. */
static uint32_t read_word(const kry_view *view, int64_t index) {
    uint32_t word = 0;
    size_t bytes = view->word_bits / 8;
    if (index < 0 || (uint64_t)(index + 1) * bytes > view->bytes)
        abort();
    memcpy(&word, (const char *)view->data + (size_t)index * bytes, bytes);
    return word;
}

uint32_t mock_view_read(const kry_view *view, uint32_t weight_type, int64_t n, int64_t j) {
    static const uint32_t awq_place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    n += view->n_begin;
    j += view->j_begin;
    uint32_t bits = view->element_bits;
    int64_t fields = view->word_bits / bits;
    uint32_t mask = bits == 32 ? UINT32_MAX : (1U << bits) - 1;
    int64_t along = 0;
    if (fields > 1 && view->pack_axis == KRY_AXIS_K) {
        along = j % fields;
        j /= fields;
    } else if (fields > 1) {
        along = n % fields;
        n /= fields;
    }
    uint32_t word = read_word(view, n * view->n_stride + j * view->j_stride);
    uint32_t place = (uint32_t)along;
    if (view->order == KRY_ORDER_AWQ)
        place = awq_place[along];
    uint32_t shift = place * bits;
    if (view->zero == KRY_ZERO_MINUS_ONE_WORD)
        word += bits == 4 ? 0x11111111U : bits == 8 ? 0x01010101U : 1;
    uint32_t field = word >> shift & mask;
    if (view->zero == KRY_ZERO_MINUS_ONE)
        field = (field + 1) & mask;
    if (view->zero == KRY_ZERO_SIGNED)
        field = (field + (1U << (kry_weight_bits(weight_type) - 1))) & 0xff;
    return field;
}

/** The stored group behind group g of the kernel's description. */
static int64_t stored_group(const kry_canonicalise_call *call, int64_t g) {
    const kry_linear *linear = call->linear;
    if (linear->group_size < 0 || linear->act_order ||
        linear->group_size == call->stored->group_size)
        return g;
    int64_t first = (linear->k_offset / linear->group_size + g) * linear->group_size;
    int64_t column = first > linear->k_offset ? first - linear->k_offset : 0;
    return kry_linear_group_of(call->stored, column);
}

static kry_view on_host(const kry_view *view) {
    kry_view here = *view;
    if (!mock_is_device(view->data))
        abort();
    here.data = mock_untag(view->data);
    return here;
}

static void canonical_row(const kry_canonicalise_call *call, int64_t n) {
    const kry_linear *linear = call->linear;
    uint32_t bits = (uint32_t)kry_weight_bits(linear->weight_type);
    int64_t fields = 32 / bits;
    int64_t words = (linear->in_features + fields - 1) / fields;
    int64_t groups = kry_linear_groups(linear);
    int64_t row = n - call->n_begin;
    kry_view codes = on_host(call->weights->qweight);
    uint32_t *qweight = (uint32_t *)mock_untag(call->qweight) + row * words;
    memset(qweight, 0, 4 * (size_t)words);
    for (int64_t k = 0; k < linear->in_features; k++)
        qweight[k / fields] |= mock_view_read(&codes, linear->weight_type, n, k)
                               << (uint32_t)(k % fields) * bits;
    kry_view scales = on_host(call->weights->scales);
    size_t scale_bytes = kry_type_bytes(linear->scale_type);
    for (int64_t g = 0; g < groups; g++) {
        uint32_t scale = mock_view_read(&scales, linear->weight_type, n, stored_group(call, g));
        memcpy((char *)mock_untag(call->scales) + (size_t)(row * groups + g) * scale_bytes, &scale,
               scale_bytes);
        if (call->weights->zero_points == NULL)
            continue;
        kry_view zeros = on_host(call->weights->zero_points);
        uint32_t zero = mock_view_read(&zeros, linear->weight_type, n, stored_group(call, g));
        ((uint8_t *)mock_untag(call->zero_points))[row * groups + g] = (uint8_t)zero;
    }
}

static kry_status canonicalise(const kry_canonicalise_call *call) {
    if (call->weights->memory != KRY_MEMORY_DEVICE || !mock_is_device(call->qweight) ||
        !mock_is_device(call->scales) ||
        mock_is_device(call->zero_points) != (call->weights->zero_points != NULL))
        return mock_fail(KRY_E_ARGUMENT, "canonicalise: not everything lies on the device");
    for (int64_t n = call->n_begin; n < call->n_end; n++)
        canonical_row(call, n);
    if (call->g_idx != NULL)
        memcpy(mock_untag(call->g_idx), mock_untag(call->weights->g_idx),
               4 * (size_t)call->linear->in_features);
    if (call->stream != NULL)
        ((mock_stream *)call->stream)->canonical_rows += call->n_end - call->n_begin;
    return KRY_OK;
}

const kry_platform mock_toy_platform = {sizeof(kry_platform),
                                        "toy",
                                        find_device,
                                        describe_device,
                                        allocate,
                                        release,
                                        copy,
                                        clear,
                                        synchronize,
                                        canonicalise,
                                        NULL};
