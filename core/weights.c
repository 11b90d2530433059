/*
 * Stored weights become canonical ranges of output features, in bounded buffers. A tensor that
 * already is canonical is passed through where it lies.
 */
#include "core.h"

#include <string.h>

enum { ROWS_PER_TASK = 16 /* a cache line of words where the tensor is packed along K, [K, N] */ };

static int64_t code_words(const kry_linear *linear) {
    int64_t per_word = 32 / kry_weight_bits(linear->weight_type);
    return (linear->in_features + per_word - 1) / per_word;
}

uint64_t core_canonical_bytes(const kry_linear *linear, int64_t rows) {
    uint64_t groups = (uint64_t)kry_linear_groups(linear), count = (uint64_t)rows;
    return core_align(count * (uint64_t)code_words(linear) * 4) +
           core_align(count * groups * kry_type_bytes(linear->scale_type)) +
           (kry_weight_has_zero_points(linear->weight_type) ? core_align(count * groups) : 0);
}

void core_canonical_place(const kry_linear *linear, int64_t rows, void *memory,
                          struct canonical_buffers *out) {
    uint64_t groups = (uint64_t)kry_linear_groups(linear), count = (uint64_t)rows;
    unsigned char *at = memory;
    out->qweight = memory;
    at += core_align(count * (uint64_t)code_words(linear) * 4);
    out->scales = at;
    at += core_align(count * groups * kry_type_bytes(linear->scale_type));
    out->zero_points = kry_weight_has_zero_points(linear->weight_type) ? at : NULL;
}

struct conversion {
    const kry_linear *stored, *linear;
    const kry_weights *weights;
    int64_t n_begin, n_end;
    const struct canonical_buffers *buffers;
    bool copy_codes, copy_scales;
};

/* Sequential words along K, perhaps starting inside one: shifted together two by two. */
static void copy_codes_along_k(const kry_view *view, uint32_t *to, int64_t words, int64_t n_begin,
                               int64_t n_end, int64_t columns) {
    int64_t per_word = view->word_bits / view->element_bits;
    int64_t first = view->j_begin / per_word;
    int64_t last = (view->j_begin + columns - 1) / per_word;
    uint32_t shift = (uint32_t)(view->j_begin % per_word) * view->element_bits;
    for (int64_t w = 0; w < words; w++)
        for (int64_t n = n_begin; n < n_end; n++) {
            int64_t row = (n + view->n_begin) * view->n_stride;
            uint32_t code = core_view_word(view, row + (first + w) * view->j_stride) >> shift;
            if (shift > 0 && first + w < last)
                code |= core_view_word(view, row + (first + w + 1) * view->j_stride)
                        << (32 - shift);
            to[(n - n_begin) * words + w] = code;
        }
}

static void copy_codes(const struct conversion *c, int64_t n_begin, int64_t n_end) {
    const kry_view *view = c->weights->qweight;
    int64_t words = code_words(c->linear), columns = c->linear->in_features;
    uint32_t *to = c->buffers->qweight + (n_begin - c->n_begin) * words;
    uint32_t bits = view->element_bits;
    int64_t per_word = 32 / bits;
    if (view->word_bits == 32 && view->pack_axis == KRY_AXIS_K &&
        view->order == KRY_ORDER_SEQUENTIAL) {
        copy_codes_along_k(view, to, words, n_begin, n_end, columns);
        return;
    }
    memset(to, 0, (size_t)((n_end - n_begin) * words) * sizeof to[0]);
    for (int64_t k = 0; k < columns; k++)
        for (int64_t n = n_begin; n < n_end; n++)
            to[(n - n_begin) * words + k / per_word] |= core_view_element(view, n, k)
                                                        << (uint32_t)(k % per_word) * bits;
}

/* The stored group that covers the first column of a group of `linear`: after a rewrite several
 * groups share one's scale. */
static int64_t stored_group(const struct conversion *c, int64_t group) {
    if (c->linear->group_size == c->stored->group_size)
        return group;
    return kry_linear_group_of(c->stored, group * c->linear->group_size);
}

static void copy_groups(const struct conversion *c, int64_t n_begin, int64_t n_end) {
    const kry_view *scales = c->weights->scales, *zeros = c->weights->zero_points;
    int64_t groups = kry_linear_groups(c->linear);
    int32_t bits = kry_weight_bits(c->linear->weight_type);
    for (int64_t n = n_begin; n < n_end; n++)
        for (int64_t g = 0; g < groups; g++) {
            int64_t from = stored_group(c, g), to = (n - c->n_begin) * groups + g;
            if (c->copy_scales && scales->element_bits == 32)
                ((uint32_t *)c->buffers->scales)[to] = core_view_element(scales, n, from);
            else if (c->copy_scales)
                ((uint16_t *)c->buffers->scales)[to] = (uint16_t)core_view_element(scales, n, from);
            if (zeros != NULL)
                c->buffers->zero_points[to] = (uint8_t)core_view_zero(zeros, bits, n, from);
        }
}

static void convert_rows(void *argument, int64_t i) {
    const struct conversion *c = argument;
    int64_t begin = c->n_begin + i * ROWS_PER_TASK;
    int64_t end = begin + ROWS_PER_TASK < c->n_end ? begin + ROWS_PER_TASK : c->n_end;
    if (c->copy_codes)
        copy_codes(c, begin, end);
    if (c->copy_scales || c->weights->zero_points != NULL)
        copy_groups(c, begin, end);
}

/* The place of element (n, 0) where rows are dense along j, begin at a word and are aligned;
 * else NULL. */
static const void *canonical_row(const kry_view *view, uint32_t word_bits, int64_t n) {
    int64_t per_word = view->word_bits / view->element_bits;
    if (view->word_bits != word_bits || view->j_stride != 1 || view->j_begin % per_word != 0 ||
        (per_word > 1 && (view->pack_axis != KRY_AXIS_K || view->order != KRY_ORDER_SEQUENTIAL)))
        return NULL;
    const unsigned char *row =
        (const unsigned char *)view->data +
        ((n + view->n_begin) * view->n_stride + view->j_begin / per_word) * (word_bits / 8);
    return (uintptr_t)row % (word_bits / 8) == 0 ? row : NULL;
}

void core_canonicalise(const kry_linear *stored, const kry_linear *linear,
                       const kry_weights *weights, int64_t n_begin, int64_t n_end,
                       const struct canonical_buffers *buffers, const kry_host *host,
                       bool pass_through, kry_canonical *out) {
    int64_t groups = kry_linear_groups(linear);
    const void *codes = NULL, *scales = NULL;
    if (pass_through)
        codes = canonical_row(weights->qweight, 32, n_begin);
    if (pass_through && linear->group_size == stored->group_size)
        scales = canonical_row(weights->scales, weights->scales->element_bits, n_begin);
    struct conversion c = {stored,
                           linear,
                           weights,
                           n_begin,
                           n_end,
                           buffers,
                           .copy_codes = codes == NULL,
                           .copy_scales = scales == NULL};
    kry_parallel_for(host, (n_end - n_begin + ROWS_PER_TASK - 1) / ROWS_PER_TASK, convert_rows, &c);
    *out = (kry_canonical){
        .struct_size = sizeof *out,
        .n_begin = n_begin,
        .n_end = n_end,
        .qweight = codes != NULL ? codes : buffers->qweight,
        .scales = scales != NULL ? scales : buffers->scales,
        .zero_points = weights->zero_points != NULL ? buffers->zero_points : NULL,
        .g_idx = weights->g_idx,
        .qweight_stride = codes != NULL ? weights->qweight->n_stride : code_words(linear),
        .scale_stride = scales != NULL ? weights->scales->n_stride : groups,
        .zero_stride = groups,
        .memory = KRY_MEMORY_HOST};
}
