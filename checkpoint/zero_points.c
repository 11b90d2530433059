/*
 * Zero points as stored: their view, and what can be wrong with them.
 */
#include "internal.h"

kry_view ckpt_zero_points_view(const layer *layer, int64_t n_begin, int64_t j_begin) {
    const kry_tensor *tensor = layer->zeros;
    kry_view view = KRY_INIT(kry_view);
    view.data = tensor->data;
    view.bytes = tensor->bytes;
    view.n_begin = n_begin;
    view.j_begin = j_begin;
    view.zero = layer->scheme.zero;
    bool packed = tensor->dtype == KRY_DTYPE_I32;
    view.element_bits = packed ? (uint32_t)layer->scheme.bits : 8;
    view.word_bits = packed ? 32 : 8;
    view.pack_axis = KRY_AXIS_N;
    bool by_feature = layer->scheme.method == KRY_METHOD_COMPRESSED_TENSORS;
    view.n_stride = by_feature ? tensor->shape[1] : 1;
    view.j_stride = by_feature ? 1 : tensor->shape[1];
    if (layer->scheme.method == KRY_METHOD_AWQ)
        view.order = KRY_ORDER_AWQ;
    return view;
}

/* ---- fields of words ------------------------------------------------------------------- */

/* Every field of a word set to value. */
static uint32_t fill_fields(uint32_t value, uint32_t bits) {
    return bits == 4 ? value * 0x11111111u : value * 0x01010101u;
}

/* How many fields differ between two words, of those that the mask covers. */
static uint64_t count_fields(uint32_t difference, uint32_t bits) {
    uint64_t count = 0;
    for (uint32_t shift = 0; difference >> shift != 0; shift += bits) {
        count += ((difference >> shift) & ((1u << bits) - 1)) != 0;
        if (shift + bits >= 32)
            break;
    }
    return count;
}

/* One more in each field, wrapped within the field. */
static uint32_t add_one_by_field(uint32_t word, uint32_t bits) {
    uint32_t top = fill_fields(1u << (bits - 1), bits);
    return ((word & ~top) + fill_fields(1, bits)) ^ (word & top);
}

/* What a pass over packed zero points finds, in fields of the partition. */
typedef struct tally {
    uint64_t fields;
    uint64_t disagree;      /* the two rules of version 1 do */
    uint64_t not_bias;      /* are not the bias as this format stores it */
    uint64_t not_true_bias; /* are not the bias as gptq_v2 stores it */
} tally;

static void tally_word(uint32_t word, uint32_t mask, uint32_t bits, uint32_t zero, tally *tally) {
    uint32_t bias = 1u << (bits - 1);
    uint32_t stored = zero == KRY_ZERO_TRUE ? bias : bias - 1;
    uint32_t by_word = word + fill_fields(1, bits);
    tally->fields += count_fields(mask, bits);
    tally->disagree += count_fields((by_word ^ add_one_by_field(word, bits)) & mask, bits);
    tally->not_bias += count_fields((word ^ fill_fields(stored, bits)) & mask, bits);
    tally->not_true_bias += count_fields((word ^ fill_fields(bias, bits)) & mask, bits);
}

/* Fields of word `index` along N that belong to the features [begin, end). */
static uint32_t fields_within(int64_t index, int64_t begin, int64_t end, uint32_t bits) {
    uint32_t mask = 0;
    for (uint32_t shift = 0; shift < 32; shift += bits) {
        int64_t feature = index * (32 / bits) + shift / bits;
        if (feature >= begin && feature < end)
            mask |= ((1u << bits) - 1) << shift;
    }
    return mask;
}

static tally tally_packed(const kry_view *view, int64_t features, int64_t groups) {
    tally tally = {0};
    const uint8_t *data = view->data;
    int64_t per_word = 32 / view->element_bits, end = view->n_begin + features;
    for (int64_t index = view->n_begin / per_word; index <= (end - 1) / per_word; index++) {
        uint32_t mask = fields_within(index, view->n_begin, end, view->element_bits);
        for (int64_t j = view->j_begin; j < view->j_begin + groups; j++) {
            uint32_t word;
            memcpy(&word, data + (index * view->n_stride + j * view->j_stride) * 4, sizeof word);
            tally_word(word, mask, view->element_bits, view->zero, &tally);
        }
    }
    return tally;
}

/* ---- what is said of them -------------------------------------------------------------- */

static void warn_of_rules(const kry_checkpoint *checkpoint, const layer *layer,
                          const tally *tally) {
    bool by_word = layer->scheme.zero == KRY_ZERO_MINUS_ONE_WORD;
    if (tally->disagree == 0 || !ckpt_layer_warns(layer, WARNED_ZERO_RULES))
        return;
    ckpt_warn(checkpoint,
              "%s: tensor '%s': writers of GPTQ version 1 disagree on %llu of %llu zero points; "
              "read %s, because meta.quantizer %s GPTQModel",
              layer->zeros->file, layer->zeros->name, (unsigned long long)tally->disagree,
              (unsigned long long)tally->fields,
              by_word ? "word by word, with carries" : "field by field",
              by_word ? "names" : "does not name");
}

static void warn_of_symmetric(const kry_checkpoint *checkpoint, const layer *layer,
                              const tally *tally) {
    if (tally->not_bias == 0 || !ckpt_layer_warns(layer, WARNED_SYMMETRIC))
        return;
    ckpt_warn(checkpoint,
              "%s: tensor '%s': the layer is symmetric by the config, but %llu of %llu zero points "
              "are not its middle; they are not used%s",
              layer->zeros->file, layer->zeros->name, (unsigned long long)tally->not_bias,
              (unsigned long long)tally->fields,
              tally->not_true_bias == 0
                  ? " (they are what gptq_v2 stores: the file is marked as version 1 wrongly)"
                  : "");
}

/* Signed bytes: outside the range of the weight type the sum with its middle would wrap. */
static kry_status check_bytes(const kry_checkpoint *checkpoint, const layer *layer,
                              const kry_view *view, const kry_linear *linear) {
    const int8_t *data = view->data;
    int64_t groups = kry_linear_groups(linear), most = (INT64_C(1) << (layer->scheme.bits - 1)) - 1;
    tally tally = {.not_true_bias = 1};
    for (int64_t n = view->n_begin; n < view->n_begin + linear->out_features; n++)
        for (int64_t j = view->j_begin; j < view->j_begin + groups; j++) {
            int8_t value = data[n * view->n_stride + j * view->j_stride];
            if (!layer->scheme.symmetric && (value < -most - 1 || value > most))
                return kry_error_set(KRY_E_FORMAT,
                                     "%s: tensor '%s': zero point [%lld, %lld] is %d; expected "
                                     "%lld to %lld with %lld bits",
                                     layer->zeros->file, layer->zeros->name, (long long)n,
                                     (long long)j, value, (long long)(-most - 1), (long long)most,
                                     (long long)layer->scheme.bits);
            tally.fields++;
            tally.not_bias += value != 0;
        }
    if (layer->scheme.symmetric)
        warn_of_symmetric(checkpoint, layer, &tally);
    return KRY_OK;
}

kry_status ckpt_zero_points_check(const kry_checkpoint *checkpoint, const layer *layer,
                                  const kry_view *view, const kry_linear *linear) {
    if (view->word_bits == 8)
        return check_bytes(checkpoint, layer, view, linear);
    bool version_1 = view->zero == KRY_ZERO_MINUS_ONE || view->zero == KRY_ZERO_MINUS_ONE_WORD;
    if (!version_1 && !layer->scheme.symmetric)
        return KRY_OK; /* any field is a zero point */
    tally tally = tally_packed(view, linear->out_features, kry_linear_groups(linear));
    if (layer->scheme.symmetric)
        warn_of_symmetric(checkpoint, layer, &tally);
    else
        warn_of_rules(checkpoint, layer, &tally);
    return KRY_OK;
}
