/*
 * Views of stored tensors: whether they fit a description and stay inside their bytes, and
 * one field of them at a time.
 */
#include "core.h"

#include <inttypes.h>
#include <string.h>

/* What a view must look like, for check_view. */
struct expected_view {
    const char *name;
    int64_t n, j;            /* rows and columns that will be read */
    uint32_t element_bits;   /* ... */
    uint32_t element_bits_2; /* ... or these; 0: only the first */
    bool packed_allowed;
};

static kry_status check_layout(const kry_view *view, const struct expected_view *expected) {
    const char *name = expected->name;
    if (view->data == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "%s: data is NULL", name);
    if (view->element_bits != expected->element_bits &&
        (expected->element_bits_2 == 0 || view->element_bits != expected->element_bits_2))
        return kry_error_set(KRY_E_ARGUMENT, "%s: element_bits is %u, expected %u", name,
                             view->element_bits, expected->element_bits);
    if ((view->word_bits != 8 && view->word_bits != 16 && view->word_bits != 32) ||
        view->word_bits < view->element_bits ||
        (!expected->packed_allowed && view->word_bits != view->element_bits))
        return kry_error_set(KRY_E_ARGUMENT, "%s: word_bits %u cannot hold elements of %u bits",
                             name, view->word_bits, view->element_bits);
    bool packed = view->word_bits != view->element_bits;
    if (packed && view->pack_axis != KRY_AXIS_K && view->pack_axis != KRY_AXIS_N)
        return kry_error_set(KRY_E_ARGUMENT, "%s: pack_axis %u is unknown", name, view->pack_axis);
    if (view->order > KRY_ORDER_AWQ ||
        (view->order == KRY_ORDER_AWQ && (view->word_bits != 32 || view->element_bits != 4)))
        return kry_error_set(KRY_E_ARGUMENT,
                             "%s: order %u is unknown or not for %u bits in words of %u", name,
                             view->order, view->element_bits, view->word_bits);
    if (view->reserved != 0)
        return kry_error_set(KRY_E_ARGUMENT, "%s: reserved is %u, expected 0", name,
                             view->reserved);
    if (view->n_stride < 0 || view->j_stride < 0 || view->n_begin < 0 || view->j_begin < 0)
        return kry_error_set(KRY_E_ARGUMENT, "%s: a stride or an origin is negative", name);
    return KRY_OK;
}

/* The word of the last element tells how far the view reaches; its strides are not negative. */
static kry_status check_reach(const kry_view *view, const struct expected_view *expected) {
    int64_t per_word = view->word_bits / view->element_bits;
    int64_t n, j, n_words, j_words, words, bytes;
    bool overflow = __builtin_add_overflow(view->n_begin, expected->n - 1, &n);
    overflow |= __builtin_add_overflow(view->j_begin, expected->j - 1, &j);
    if (per_word > 1 && view->pack_axis == KRY_AXIS_N)
        n /= per_word;
    else
        j /= per_word;
    overflow |= __builtin_mul_overflow(n, view->n_stride, &n_words);
    overflow |= __builtin_mul_overflow(j, view->j_stride, &j_words);
    overflow |= __builtin_add_overflow(n_words, j_words, &words);
    overflow |= __builtin_add_overflow(words, 1, &words);
    overflow |= __builtin_mul_overflow(words, (int64_t)view->word_bits / 8, &bytes);
    if (overflow || (uint64_t)bytes > view->bytes)
        return kry_error_set(
            KRY_E_ARGUMENT,
            "%s: [%" PRId64 ", %" PRId64 "] reaches byte %" PRId64 ", the tensor has %" PRIu64,
            expected->name, expected->n, expected->j, overflow ? -1 : bytes, view->bytes);
    return KRY_OK;
}

static kry_status check_view(const kry_view *view, const struct expected_view *expected) {
    if (view == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "weights: %s is missing", expected->name);
    kry_status status = check_layout(view, expected);
    return status == KRY_OK ? check_reach(view, expected) : status;
}

static kry_status check_zero_encoding(const kry_view *view) {
    bool packed = view->word_bits != view->element_bits;
    if (view->zero > KRY_ZERO_MINUS_ONE_WORD)
        return kry_error_set(KRY_E_ARGUMENT, "zero_points: encoding %u is unknown", view->zero);
    if (view->zero == KRY_ZERO_SIGNED && view->element_bits != 8)
        return kry_error_set(KRY_E_ARGUMENT, "zero_points: signed ones have 8 bits, found %u",
                             view->element_bits);
    if (view->zero == KRY_ZERO_MINUS_ONE_WORD && (!packed || view->word_bits != 32))
        return kry_error_set(KRY_E_ARGUMENT,
                             "zero_points: a borrow between fields needs words of 32 bits, found "
                             "%u for elements of %u",
                             view->word_bits, view->element_bits);
    return KRY_OK;
}

/* One byte each can hold values that a 4-bit weight's zero point cannot have. */
static kry_status check_zero_values(const kry_linear *linear, const kry_weights *weights) {
    const kry_view *view = weights->zero_points;
    int32_t bits = kry_weight_bits(linear->weight_type);
    if (weights->memory != KRY_MEMORY_HOST || (int32_t)view->element_bits == bits)
        return KRY_OK;
    for (int64_t n = 0; n < linear->out_features; n++)
        for (int64_t g = 0; g < kry_linear_groups(linear); g++) {
            uint32_t zero = core_view_zero(view, bits, n, g);
            if (zero >= 1u << bits)
                return kry_error_set(KRY_E_ARGUMENT,
                                     "zero_points[%" PRId64 ", %" PRId64
                                     "] is %u, expected below %u",
                                     n, g, zero, 1u << bits);
        }
    return KRY_OK;
}

static kry_status check_g_idx(const kry_linear *linear, const kry_weights *weights) {
    if (!linear->act_order)
        return weights->g_idx == NULL
                   ? KRY_OK
                   : kry_error_set(KRY_E_ARGUMENT, "weights: g_idx is given, but the "
                                                   "description has no act_order");
    if (weights->g_idx == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "weights: g_idx is missing");
    int64_t groups = kry_linear_groups(linear);
    for (int64_t k = 0; weights->memory == KRY_MEMORY_HOST && k < linear->in_features; k++)
        if (weights->g_idx[k] < 0 || weights->g_idx[k] >= groups)
            return kry_error_set(KRY_E_ARGUMENT, "g_idx[%" PRId64 "] is %d, expected 0 to %" PRId64,
                                 k, weights->g_idx[k], groups - 1);
    return KRY_OK;
}

kry_status core_weights_check(const kry_linear *linear, const kry_weights *weights) {
    uint32_t bits = (uint32_t)kry_weight_bits(linear->weight_type);
    uint32_t scale_bits = (uint32_t)kry_type_bytes(linear->scale_type) * 8;
    int64_t n = linear->out_features, groups = kry_linear_groups(linear);
    if (weights->reserved != 0)
        return kry_error_set(KRY_E_ARGUMENT, "weights: reserved is %u, expected 0",
                             weights->reserved);
    if (weights->memory != KRY_MEMORY_HOST && weights->memory != KRY_MEMORY_DEVICE)
        return kry_error_set(KRY_E_ARGUMENT,
                             "weights: memory is %u, expected %d (host) or %d "
                             "(device)",
                             weights->memory, KRY_MEMORY_HOST, KRY_MEMORY_DEVICE);
    kry_status status =
        check_view(weights->qweight,
                   &(struct expected_view){"qweight", n, linear->in_features, bits, 0, true});
    if (status == KRY_OK)
        status = check_view(weights->scales,
                            &(struct expected_view){"scales", n, groups, scale_bits, 0, false});
    if (status == KRY_OK && kry_weight_has_zero_points(linear->weight_type)) {
        status = check_view(weights->zero_points,
                            &(struct expected_view){"zero_points", n, groups, bits, 8, true});
        if (status == KRY_OK)
            status = check_zero_encoding(weights->zero_points);
        if (status == KRY_OK)
            status = check_zero_values(linear, weights);
    } else if (status == KRY_OK && weights->zero_points != NULL) {
        status = kry_error_set(KRY_E_ARGUMENT,
                               "weights: zero_points are given, but the weight type has none");
    }
    return status == KRY_OK ? check_g_idx(linear, weights) : status;
}

uint32_t core_view_word(const kry_view *view, int64_t word) {
    const unsigned char *at = (const unsigned char *)view->data + word * (view->word_bits / 8);
    uint32_t wide;
    uint16_t narrow;
    switch (view->word_bits) {
    case 8:
        return *at;
    case 16:
        memcpy(&narrow, at, sizeof narrow);
        return narrow;
    default:
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
}

/* Where the fields of an AWQ word hold elements 0 to 7. */
static const uint8_t awq_place[8] = {0, 4, 1, 5, 2, 6, 3, 7};

struct field {
    int64_t word;
    uint32_t shift;
};

static struct field locate(const kry_view *view, int64_t n, int64_t j) {
    uint32_t per_word = view->word_bits / view->element_bits;
    int64_t place = 0;
    n += view->n_begin;
    j += view->j_begin;
    if (per_word > 1 && view->pack_axis == KRY_AXIS_N) {
        place = n % per_word;
        n /= per_word;
    } else if (per_word > 1) {
        place = j % per_word;
        j /= per_word;
    }
    if (view->order == KRY_ORDER_AWQ && per_word > 1)
        place = awq_place[place];
    return (struct field){n * view->n_stride + j * view->j_stride,
                          (uint32_t)place * view->element_bits};
}

uint32_t core_view_element(const kry_view *view, int64_t n, int64_t j) {
    struct field field = locate(view, n, j);
    uint32_t mask = view->element_bits == 32 ? UINT32_MAX : (1u << view->element_bits) - 1;
    return core_view_word(view, field.word) >> field.shift & mask;
}

uint32_t core_view_zero(const kry_view *view, int32_t bits, int64_t n, int64_t g) {
    uint32_t mask = (1u << view->element_bits) - 1;
    struct field field = locate(view, n, g);
    uint32_t word = core_view_word(view, field.word);
    switch (view->zero) {
    case KRY_ZERO_SIGNED:
        /* f + 2^(b-1), in 8 bits; a value outside b bits stays outside and is refused. */
        return ((word >> field.shift) + (1u << (bits - 1))) & 0xff;
    case KRY_ZERO_MINUS_ONE:
        return ((word >> field.shift & mask) + 1) & ((1u << bits) - 1);
    case KRY_ZERO_MINUS_ONE_WORD:
        return (word + (view->element_bits == 4 ? 0x11111111u : 0x01010101u)) >> field.shift & mask;
    default:
        return word >> field.shift & mask;
    }
}
