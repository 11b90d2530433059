/*
 * Weights for the loader's tests: drawn at random as plain arrays, stored as any stack would
 * store them, multiplied in double. Packing is written from the words of types.h, apart from
 * the code that reads it.
 */
#include "fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <kernelry/plugin.h>

#include <mock.h>

enum { SEED = 20240611 };

/* xorshift32, Marsaglia 2003. */
uint32_t draw(void) {
    static uint32_t state = SEED;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

float draw_float(void) { return (float)((int32_t)(draw() >> 8) - (1 << 23)) / (float)(1 << 23); }

plain_weights draw_weights(const kry_linear *linear) {
    plain_weights plain = {.linear = KRY_INIT(kry_linear)};
    if (kry_linear_complete(linear, &plain.linear) != KRY_OK)
        fail_msg("%s", kry_error_message());
    const kry_linear *l = &plain.linear;
    plain.groups = kry_linear_groups(l);
    size_t n = (size_t)l->out_features, k = (size_t)l->in_features, g = (size_t)plain.groups;
    plain.codes = malloc(n * k);
    plain.zeros = malloc(n * g);
    plain.scales = malloc(n * g * sizeof(float));
    plain.g_idx = malloc(k * sizeof(int32_t));
    assert_non_null(plain.codes);
    assert_non_null(plain.zeros);
    assert_non_null(plain.scales);
    assert_non_null(plain.g_idx);
    uint32_t levels = 1U << kry_weight_bits(l->weight_type);
    for (size_t i = 0; i < n * k; i++)
        plain.codes[i] = (uint8_t)(draw() >> 8 & (levels - 1));
    for (size_t i = 0; i < n * g; i++) {
        int drawn = kry_weight_has_zero_points(l->weight_type);
        plain.zeros[i] = (uint8_t)(drawn ? draw() >> 8 & (levels - 1) : levels / 2);
        plain.scales[i] = (float)(1 + (draw() >> 8) % 128) / 256; /* 7 bits: exact everywhere */
    }
    for (size_t i = 0; i < k; i++)
        plain.g_idx[i] = l->act_order ? (int32_t)((draw() >> 8) % (uint32_t)g)
                                      : (int32_t)kry_linear_group_of(l, (int64_t)i);
    return plain;
}

void free_weights(plain_weights *weights) {
    free(weights->codes);
    free(weights->zeros);
    free(weights->scales);
    free(weights->g_idx);
}

/* A tensor that is being packed: rows x columns elements of `bits` in words of `word_bits`. */
typedef struct packing {
    int64_t n_count, j_count;   /* of the whole tensor */
    int64_t n_stride, j_stride; /* in words */
    uint32_t bits, word_bits, axis, order;
    size_t bytes;
    unsigned char *data;
} packing;

static packing make_packing(int64_t n_count, int64_t j_count, uint32_t bits, uint32_t word_bits,
                            uint32_t axis, bool transposed) {
    packing p = {.n_count = n_count, .j_count = j_count, .bits = bits, .word_bits = word_bits};
    int64_t fields = word_bits / bits;
    p.axis = axis;
    int64_t n_words = axis == KRY_AXIS_N ? (n_count + fields - 1) / fields : n_count;
    int64_t j_words = axis == KRY_AXIS_K ? (j_count + fields - 1) / fields : j_count;
    p.n_stride = transposed ? 1 : j_words;
    p.j_stride = transposed ? n_words : 1;
    p.bytes = (size_t)(n_words * j_words) * (word_bits / 8);
    return p;
}

static unsigned char *word_at(const packing *p, int64_t n, int64_t j, uint32_t *field) {
    int64_t fields = p->word_bits / p->bits;
    int64_t *along = p->axis == KRY_AXIS_N ? &n : &j;
    *field = 0;
    if (fields > 1) {
        *field = (uint32_t)(*along % fields);
        *along /= fields;
    }
    return p->data + (size_t)(n * p->n_stride + j * p->j_stride) * (p->word_bits / 8);
}

static void put(const packing *p, int64_t n, int64_t j, uint32_t value) {
    uint32_t field;
    unsigned char *place = word_at(p, n, j, &field);
    if (p->order == KRY_ORDER_AWQ) /* from the lowest bits: elements 0 2 4 6 1 3 5 7 */
        field = field % 2 == 0 ? field / 2 : 4 + field / 2;
    uint32_t mask = p->bits == 32 ? UINT32_MAX : (1U << p->bits) - 1;
    uint32_t word = 0;
    memcpy(&word, place, p->word_bits / 8);
    word = (word & ~(mask << field * p->bits)) | (value & mask) << field * p->bits;
    memcpy(place, &word, p->word_bits / 8);
}

/* Memory that ends where the tensor ends, so that a sanitizer sees a read beyond it. */
static void allocate(packing *p, int64_t misaligned, unsigned char **memory) {
    *memory = malloc(p->bytes + (size_t)misaligned);
    assert_non_null(*memory);
    p->data = *memory + misaligned;
    for (size_t i = 0; i < p->bytes; i++)
        p->data[i] = (unsigned char)(draw() >> 16);
}

static kry_view view_of(const packing *p, int64_t n_begin, int64_t j_begin) {
    kry_view view = KRY_INIT(kry_view);
    view.data = p->data;
    view.bytes = p->bytes;
    view.n_stride = p->n_stride;
    view.j_stride = p->j_stride;
    view.n_begin = n_begin;
    view.j_begin = j_begin;
    view.element_bits = p->bits;
    view.word_bits = p->word_bits;
    view.pack_axis = p->axis;
    view.order = p->order;
    return view;
}

static uint32_t encode_scale(float scale, uint32_t type) {
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    if (type == KRY_TYPE_F32)
        return bits;
    if (type == KRY_TYPE_BF16)
        return bits >> 16;
    int exponent;
    float fraction = frexpf(scale, &exponent); /* a normal number, exact in 11 bits */
    return (uint32_t)(exponent + 14) << 10 | (uint32_t)((2 * fraction - 1) * 1024);
}

/* GPTQModel subtracts 1 from every field of the whole word at once, borrows included. */
static void subtract_from_words(const packing *p) {
    uint32_t ones = p->bits == 4 ? 0x11111111U : 0x01010101U;
    for (size_t at = 0; at < p->bytes; at += p->word_bits / 8) {
        uint32_t word = 0;
        memcpy(&word, p->data + at, p->word_bits / 8);
        word -= ones;
        memcpy(p->data + at, &word, p->word_bits / 8);
    }
}

static void store_codes(const plain_weights *plain, const storage *how, stored_weights *out) {
    const kry_linear *l = &plain->linear;
    uint32_t bits = (uint32_t)kry_weight_bits(l->weight_type);
    uint32_t word_bits = how->word_bits != 0 ? how->word_bits : 32;
    bool packed = how->weight_axis != 0;
    packing p =
        make_packing(l->out_features + how->n_begin, l->in_features + how->k_begin,
                     packed ? bits : 8, packed ? word_bits : 8, how->weight_axis, how->transposed);
    p.order = how->weight_order;
    allocate(&p, how->misaligned, &out->memory[0]);
    for (int64_t n = 0; n < l->out_features; n++)
        for (int64_t k = 0; k < l->in_features; k++)
            put(&p, n + how->n_begin, k + how->k_begin, plain->codes[n * l->in_features + k]);
    out->qweight = view_of(&p, how->n_begin, how->k_begin);
}

static void store_zeros(const plain_weights *plain, const storage *how, stored_weights *out) {
    const kry_linear *l = &plain->linear;
    uint32_t bits = (uint32_t)kry_weight_bits(l->weight_type);
    bool packed = how->zero_axis != 0;
    packing p = make_packing(l->out_features + how->n_begin, plain->groups + how->g_begin,
                             packed ? bits : 8, packed ? 32 : 8, how->zero_axis, how->transposed);
    p.order = how->zero_order;
    allocate(&p, how->misaligned, &out->memory[2]);
    for (int64_t n = 0; n < l->out_features; n++)
        for (int64_t g = 0; g < plain->groups; g++) {
            uint32_t zero = plain->zeros[n * plain->groups + g];
            if (how->zero_encoding == KRY_ZERO_SIGNED)
                zero -= 1U << (bits - 1);
            if (how->zero_encoding == KRY_ZERO_MINUS_ONE)
                zero -= 1;
            put(&p, n + how->n_begin, g + how->g_begin, zero);
        }
    if (how->zero_encoding == KRY_ZERO_MINUS_ONE_WORD)
        subtract_from_words(&p);
    out->zero_points = view_of(&p, how->n_begin, how->g_begin);
    out->zero_points.zero = how->zero_encoding;
}

void store_weights(const plain_weights *plain, const storage *how, stored_weights *out) {
    const kry_linear *l = &plain->linear;
    memset(out, 0, sizeof *out);
    store_codes(plain, how, out);
    uint32_t bits = 8 * (uint32_t)kry_type_bytes(l->scale_type);
    packing p = make_packing(l->out_features + how->n_begin, plain->groups + how->g_begin, bits,
                             bits, 0, how->transposed);
    allocate(&p, how->misaligned, &out->memory[1]);
    for (int64_t n = 0; n < l->out_features; n++)
        for (int64_t g = 0; g < plain->groups; g++)
            put(&p, n + how->n_begin, g + how->g_begin,
                encode_scale(plain->scales[n * plain->groups + g], l->scale_type));
    out->scales = view_of(&p, how->n_begin, how->g_begin);
    bool zeros = kry_weight_has_zero_points(l->weight_type);
    if (zeros)
        store_zeros(plain, how, out);
    out->weights = KRY_INIT(kry_weights);
    out->weights.qweight = &out->qweight;
    out->weights.scales = &out->scales;
    out->weights.zero_points = zeros ? &out->zero_points : NULL;
    out->weights.g_idx = l->act_order ? plain->g_idx : NULL;
    out->weights.memory = KRY_MEMORY_HOST;
}

void free_stored(stored_weights *stored) {
    for (int i = 0; i < 3; i++)
        free(stored->memory[i]);
}

void product(const plain_weights *weights, const float *x, double *y) {
    const kry_linear *l = &weights->linear;
    for (int64_t n = 0; n < l->out_features; n++) {
        double sum = 0;
        for (int64_t k = 0; k < l->in_features; k++) {
            int64_t place = n * weights->groups + weights->g_idx[k];
            int difference = weights->codes[n * l->in_features + k] - weights->zeros[place];
            sum += (double)x[k] * difference * weights->scales[place];
        }
        y[n] = sum;
    }
}

/* ---- layers ------------------------------------------------------------------------------ */

void *make_room(uint64_t bytes) {
    uint64_t whole = (bytes + KRY_ALIGNMENT) / KRY_ALIGNMENT * KRY_ALIGNMENT;
    void *room = aligned_alloc(KRY_ALIGNMENT, whole);
    assert_non_null(room);
    return memset(room, 0xcd, whole);
}

static void *allocate_aligned(size_t bytes) { return memset(make_room(bytes), 0, bytes); }

void make_layer(kry_registry *registry, const char *device, const kry_linear *linear, int64_t m,
                applied_layer *out) {
    memset(out, 0, sizeof *out);
    kry_device found = find_device(registry, device);
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &found;
    args.linear = linear;
    if (kry_layer_create(registry, &args, &out->layer) != KRY_OK)
        fail_msg("kry_layer_create: %s", kry_error_message());
    out->plain = draw_weights(linear);
    store_weights(&out->plain, &(storage){.weight_axis = KRY_AXIS_K, .zero_axis = KRY_AXIS_N},
                  &out->stored);
    size_t x_count = (size_t)(m * linear->in_features), n = (size_t)linear->out_features;
    out->x = allocate_aligned(x_count * sizeof(float));
    out->y = allocate_aligned((size_t)m * n * sizeof(float));
    out->bias = allocate_aligned(n * sizeof(float));
    for (size_t i = 0; i < x_count; i++)
        out->x[i] = draw_float();
    for (size_t i = 0; i < n; i++)
        out->bias[i] = draw_float();
    kry_workspace workspace = KRY_INIT(kry_workspace);
    if (kry_layer_workspace(out->layer, m, &workspace) != KRY_OK)
        fail_msg("kry_layer_workspace: %s", kry_error_message());
    out->scratch = allocate_aligned(workspace.scratch_bytes);
    out->zeroed = allocate_aligned(workspace.zeroed_bytes);
    out->args = KRY_INIT(kry_apply_args);
    out->args.m = m;
    out->args.x = out->x;
    out->args.y = out->y;
    out->args.bias = out->bias;
    out->args.scratch = out->scratch;
    out->args.zeroed = out->zeroed;
    out->args.scratch_bytes = workspace.scratch_bytes;
    out->args.zeroed_bytes = workspace.zeroed_bytes;
    poison(out);
}

void free_layer(applied_layer *layer) {
    kry_layer_destroy(&layer->layer);
    free_stored(&layer->stored);
    free_weights(&layer->plain);
    free(layer->x);
    free(layer->y);
    free(layer->bias);
    free(layer->scratch);
    free(layer->zeroed);
}

kry_status prepare_layer(applied_layer *layer) {
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    args.weights = &layer->stored.weights;
    return kry_layer_prepare(layer->layer, &args);
}

kry_status apply_layer(applied_layer *layer) { return kry_layer_apply(layer->layer, &layer->args); }

static size_t y_bytes(const applied_layer *layer) {
    return (size_t)(layer->args.m * layer->plain.linear.out_features) * sizeof(float);
}

void poison(applied_layer *layer) { memset(layer->y, 0xff, y_bytes(layer)); }

bool untouched(const applied_layer *layer) {
    const unsigned char *bytes = (const unsigned char *)layer->y;
    for (size_t i = 0; i < y_bytes(layer); i++)
        if (bytes[i] != 0xff)
            return false;
    return true;
}

void assert_apply_refused(applied_layer *layer, kry_status expected) {
    kry_status status = apply_layer(layer);
    if (status != expected)
        fail_msg("status %d, expected %d (%s)", status, expected, kry_error_message());
    assert_true(strlen(kry_error_message()) > 0);
    assert_true(untouched(layer));
}

double error_of(const applied_layer *layer) {
    const kry_linear *l = &layer->plain.linear;
    double *expected = malloc((size_t)l->out_features * sizeof(double));
    double worst = 0;
    assert_non_null(expected);
    for (int64_t row = 0; row < layer->args.m; row++) {
        double difference = 0, norm = 0;
        product(&layer->plain, layer->x + row * l->in_features, expected);
        for (int64_t n = 0; n < l->out_features; n++) {
            double wanted = expected[n] + (layer->args.bias != NULL ? (double)layer->bias[n] : 0);
            difference += pow((double)layer->y[row * l->out_features + n] - wanted, 2);
            norm += wanted * wanted;
        }
        worst = fmax(worst, isnan(difference) ? (double)INFINITY : sqrt(difference / norm));
    }
    free(expected);
    return worst;
}

/* ---- one registry ------------------------------------------------------------------------- */

kry_registry *registry;

int open_dense(void **state) {
    (void)state;
    registry = open_mocks(NULL, "dense.so", NULL);
    return 0;
}

int open_toy(void **state) {
    (void)state;
    registry = open_mocks(NULL, "toy_platform.so", "toy_kernel.so", NULL);
    return 0;
}

int close_registry(void **state) {
    (void)state;
    kry_registry_close(&registry);
    return 0;
}

kry_linear small_layer(void) { return describe(70, 13, 32, KRY_WEIGHT_U4, KRY_TYPE_F32); }

void make_small(int64_t m, applied_layer *out) {
    kry_linear linear = small_layer();
    make_layer(registry, "cpu", &linear, m, out);
}

void make_prepared(int64_t m, applied_layer *out) {
    make_small(m, out);
    if (prepare_layer(out) != KRY_OK)
        fail_msg("%s", kry_error_message());
}

kry_linear toy_shard(void) {
    kry_linear linear = describe(352, 24, 64, KRY_WEIGHT_U4, KRY_TYPE_F32);
    linear.full_in_features = 704;
    linear.k_offset = 352;
    linear.scale_type = KRY_TYPE_F16;
    return linear;
}

void make_on_toy(const kry_linear *linear, applied_layer *out) {
    make_layer(registry, "toy", linear, 2, out);
    out->args.x = mock_tag(out->x);
    out->args.y = mock_tag(out->y);
    out->args.bias = mock_tag(out->bias);
    out->args.scratch = mock_tag(out->scratch);
    out->args.zeroed = mock_tag(out->zeroed);
}
