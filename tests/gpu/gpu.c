#include "gpu.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <math.h>

enum { GAP_BYTE = 0x5a, NO_GPU = 77 };

void gpu_expect_ok(kry_status status, const char *what) {
    if (status == KRY_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, kry_error_message());
    _exit(1);
}

void gpu_begin(struct gpu *out, const char *device) {
    const char *plugin = getenv("GPU_PLUGIN");
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.plugin_paths = &plugin;
    options.plugin_path_count = 1;
    options.flags = KRY_REGISTRY_RELAX_TRUST;
    *out = (struct gpu){.device = KRY_INIT(kry_device)};
    EXPECT(plugin != NULL);
    gpu_expect_ok(kry_registry_open(&options, &out->registry), "opening the registry");
    if (kry_registry_find_device(out->registry, device, &out->device) != KRY_OK)
        _exit(NO_GPU);
    out->driver = gpu_driver_of(&out->device);
    EXPECT(out->driver->enter(&out->device, &out->scope) == KRY_OK);
}

void *gpu_driver_function(const char *name) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    return library != NULL ? dlsym(library, name) : NULL;
}

/* ---- memory ---------------------------------------------------------------------------------- */

void *gpu_copy_of(const struct gpu *gpu, const void *from, uint64_t bytes) {
    void *to = NULL;
    EXPECT(gpu->driver->allocate(bytes, &to) == KRY_OK);
    EXPECT(bytes == 0 ||
           gpu->driver->copy(to, KRY_MEMORY_DEVICE, from, KRY_MEMORY_HOST, bytes, NULL) == KRY_OK);
    return to;
}

void *gpu_filled(const struct gpu *gpu, int fill, uint64_t bytes) {
    void *host = malloc(bytes + 1);
    EXPECT(host != NULL);
    memset(host, fill, bytes);
    void *to = gpu_copy_of(gpu, host, bytes);
    free(host);
    return to;
}

void *gpu_fetch(const struct gpu *gpu, const void *from, uint64_t bytes, void *stream) {
    void *to = malloc(bytes + 1);
    EXPECT(to != NULL);
    EXPECT(gpu->driver->synchronize(stream) == KRY_OK);
    EXPECT(bytes == 0 || gpu->driver->copy(to, KRY_MEMORY_HOST, from, KRY_MEMORY_DEVICE, bytes,
                                           stream) == KRY_OK);
    return to;
}

kry_layer *gpu_layer(const struct gpu *gpu, const kry_linear *linear) {
    kry_layer_args args = {.struct_size = sizeof args,
                           .device = &gpu->device,
                           .linear = linear,
                           .kernel = "gpu/portable"};
    kry_layer *layer = NULL;
    gpu_expect_ok(kry_layer_create(gpu->registry, &args, &layer), "making a layer");
    return layer;
}

/* ---- stored weights ----------------------------------------------------------------------------
 */

/* One packed tensor [rows, columns] of elements, as a view; words are dense. */
struct packed {
    int64_t rows, columns;
    uint32_t bits, axis, order;
    bool transposed; /* words of a row are rows of the tensor */
};

static uint32_t *pack(const struct packed *p, const uint8_t *elements, kry_view *view) {
    static const uint8_t awq[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    int64_t per_word = 32 / p->bits;
    int64_t n_words = p->axis == KRY_AXIS_N ? (p->rows + per_word - 1) / per_word : p->rows;
    int64_t j_words = p->axis == KRY_AXIS_K ? (p->columns + per_word - 1) / per_word : p->columns;
    *view = (kry_view){.struct_size = sizeof *view,
                       .bytes = (uint64_t)(n_words * j_words * 4),
                       .n_stride = p->transposed ? 1 : j_words,
                       .j_stride = p->transposed ? n_words : 1,
                       .element_bits = p->bits,
                       .word_bits = 32,
                       .pack_axis = p->axis,
                       .order = p->order};
    uint32_t *words = calloc((size_t)(n_words * j_words), 4);
    EXPECT(words != NULL);
    for (int64_t n = 0; n < p->rows; n++)
        for (int64_t j = 0; j < p->columns; j++) {
            int64_t field = (p->axis == KRY_AXIS_N ? n : j) % per_word;
            int64_t n_word = p->axis == KRY_AXIS_N ? n / per_word : n;
            int64_t j_word = p->axis == KRY_AXIS_K ? j / per_word : j;
            if (p->order == KRY_ORDER_AWQ)
                field = awq[field];
            words[n_word * view->n_stride + j_word * view->j_stride] |=
                (uint32_t)elements[n * p->columns + j] << (uint32_t)field * p->bits;
        }
    return words;
}

/* Zero points as bytes [N, G]; GPTQ stores one less. */
static uint8_t *dense_zeros(const struct weights *w, enum gpu_packing packing) {
    int64_t groups = kry_linear_groups(&w->linear), n_end = w->linear.out_features;
    uint32_t mask = (1u << kry_weight_bits(w->linear.weight_type)) - 1;
    uint8_t *out = malloc((size_t)(n_end * groups));
    EXPECT(out != NULL);
    for (int64_t n = 0; n < n_end; n++)
        for (int64_t g = 0; g < groups; g++) {
            uint32_t zero = w->rows.zero_points[n * w->rows.zero_stride + g];
            out[n * groups + g] = (uint8_t)(packing == PACKED_GPTQ ? (zero - 1) & mask : zero);
        }
    return out;
}

static void store_zeros(const struct weights *w, enum gpu_packing packing, void **tensor,
                        kry_view *view) {
    int64_t groups = kry_linear_groups(&w->linear), n_end = w->linear.out_features;
    uint8_t *zeros = dense_zeros(w, packing);
    if (packing == PACKED_CANONICAL) {
        *tensor = zeros;
        *view = (kry_view){.struct_size = sizeof *view,
                           .bytes = (uint64_t)(n_end * groups),
                           .n_stride = groups,
                           .j_stride = 1,
                           .element_bits = 8,
                           .word_bits = 8};
        return;
    }
    struct packed p = {n_end,
                       groups,
                       (uint32_t)kry_weight_bits(w->linear.weight_type),
                       KRY_AXIS_N,
                       packing == PACKED_AWQ ? KRY_ORDER_AWQ : KRY_ORDER_SEQUENTIAL,
                       packing != PACKED_COMPRESSED};
    *tensor = pack(&p, zeros, view);
    view->zero = packing == PACKED_GPTQ ? KRY_ZERO_MINUS_ONE : KRY_ZERO_TRUE;
    free(zeros);
}

static void store_scales(const struct weights *w, bool transposed, void **tensor, kry_view *view) {
    int64_t groups = kry_linear_groups(&w->linear), n_end = w->linear.out_features;
    const uint16_t *from = w->rows.scales;
    uint16_t *to = malloc((size_t)(n_end * groups) * 2);
    EXPECT(to != NULL);
    *view = (kry_view){.struct_size = sizeof *view,
                       .bytes = (uint64_t)(n_end * groups) * 2,
                       .n_stride = transposed ? 1 : groups,
                       .j_stride = transposed ? n_end : 1,
                       .element_bits = 16,
                       .word_bits = 16};
    for (int64_t n = 0; n < n_end; n++)
        for (int64_t g = 0; g < groups; g++)
            to[n * view->n_stride + g * view->j_stride] = from[n * w->rows.scale_stride + g];
    *tensor = to;
}

/* Leave a tensor on the host, or move it to the device. */
static const void *placed(const struct gpu *gpu, void *tensor, uint64_t bytes, uint32_t memory) {
    if (memory == KRY_MEMORY_HOST || tensor == NULL)
        return tensor;
    void *copy = gpu_copy_of(gpu, tensor, bytes);
    free(tensor);
    return copy;
}

void gpu_store(const struct gpu *gpu, const struct weights *w, enum gpu_packing packing,
               uint32_t memory, struct gpu_stored *out) {
    const kry_linear *linear = &w->linear;
    bool awq = packing == PACKED_AWQ, transposed = awq || packing == PACKED_GPTQ;
    struct packed p = {linear->out_features,
                       linear->in_features,
                       (uint32_t)kry_weight_bits(linear->weight_type),
                       awq ? KRY_AXIS_N : KRY_AXIS_K,
                       awq ? KRY_ORDER_AWQ : KRY_ORDER_SEQUENTIAL,
                       transposed};
    void *scales, *zeros = NULL, *g_idx = NULL;
    *out = (struct gpu_stored){.weights = {.struct_size = sizeof out->weights, .memory = memory}};
    void *codes = pack(&p, w->codes, &out->qweight);
    store_scales(w, transposed, &scales, &out->scales);
    if (w->rows.zero_points != NULL)
        store_zeros(w, packing, &zeros, &out->zero_points);
    if (w->rows.g_idx != NULL) {
        g_idx = malloc((size_t)linear->in_features * 4);
        EXPECT(g_idx != NULL);
        memcpy(g_idx, w->rows.g_idx, (size_t)linear->in_features * 4);
    }
    out->qweight.data = placed(gpu, codes, out->qweight.bytes, memory);
    out->scales.data = placed(gpu, scales, out->scales.bytes, memory);
    out->zero_points.data = placed(gpu, zeros, out->zero_points.bytes, memory);
    out->weights.qweight = &out->qweight;
    out->weights.scales = &out->scales;
    out->weights.zero_points = zeros != NULL ? &out->zero_points : NULL;
    out->weights.g_idx = placed(gpu, g_idx, (uint64_t)linear->in_features * 4, memory);
}

void gpu_prepare_layer(kry_layer *layer, const struct gpu_stored *stored, void *stream) {
    kry_prepare_args args = {
        .struct_size = sizeof args, .weights = &stored->weights, .stream = stream};
    gpu_expect_ok(kry_layer_prepare(layer, &args), "prepare");
}

/* ---- operands
 * ------------------------------------------------------------------------------------ */

static double value_of(uint32_t type, const void *array, int64_t i) {
    if (type == KRY_TYPE_F32)
        return (double)((const float *)array)[i];
    uint32_t bits = ((const uint16_t *)array)[i];
    int exponent = type == KRY_TYPE_F16 ? (int)(bits >> 10 & 31) : (int)(bits >> 7 & 255);
    int mantissa_bits = type == KRY_TYPE_F16 ? 10 : 7, bias = type == KRY_TYPE_F16 ? 15 : 127;
    int most = type == KRY_TYPE_F16 ? 31 : 255;
    double mantissa = (double)(bits & ((1u << mantissa_bits) - 1)) / (1 << mantissa_bits);
    double magnitude = exponent == most ? (mantissa != 0 ? (double)NAN : (double)INFINITY)
                       : exponent == 0  ? ldexp(mantissa, 1 - bias)
                                        : ldexp(1 + mantissa, exponent - bias);
    return bits >> 15 ? -magnitude : magnitude;
}

/* A multiple of 1/64 up to 1, which every type holds. */
static double draw(uint32_t type, void *array, int64_t i, uint64_t *seed) {
    double value = ((double)(weights_random(seed) % 129) - 64) / 64;
    int exponent;
    double fraction = frexp(fabs(value), &exponent) * 2 - 1; /* of [1, 2) */
    uint32_t sign = value < 0;
    if (type == KRY_TYPE_F32)
        ((float *)array)[i] = (float)value;
    else if (value == 0)
        ((uint16_t *)array)[i] = 0;
    else if (type == KRY_TYPE_F16)
        ((uint16_t *)array)[i] = (uint16_t)(sign << 15 | (uint32_t)(exponent - 1 + 15) << 10 |
                                            (uint32_t)(fraction * 1024));
    else
        ((uint16_t *)array)[i] = (uint16_t)(sign << 15 | (uint32_t)(exponent - 1 + 127) << 7 |
                                            (uint32_t)(fraction * 128));
    return value;
}

/* An array on the host whose other elements are NaN, then on the device. */
static const void *drawn(const struct gpu *gpu, uint32_t type, int64_t shift, int64_t rows,
                         int64_t columns, int64_t stride, uint64_t *seed, double **values) {
    uint64_t bytes = (uint64_t)(shift + rows * stride) * kry_type_bytes(type);
    char *host = malloc(bytes);
    *values = malloc((size_t)(rows * columns) * sizeof **values);
    EXPECT(host != NULL && *values != NULL);
    memset(host, 0xff, bytes);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < columns; i++)
            (*values)[row * columns + i] = draw(type, host, shift + row * stride + i, seed);
    const char *device = gpu_copy_of(gpu, host, bytes);
    free(host);
    return device + (uint64_t)shift * kry_type_bytes(type);
}

void gpu_operands_make(const struct gpu *gpu, const kry_layer *layer, int64_t m,
                       const struct gpu_style *style, uint64_t seed, struct gpu_operands *out) {
    const kry_linear *linear = kry_layer_linear(layer, 0);
    kry_workspace workspace = KRY_INIT(kry_workspace);
    gpu_expect_ok(kry_layer_workspace(layer, m, &workspace), "workspace");
    *out = (struct gpu_operands){.args = {.struct_size = sizeof out->args,
                                          .m = m,
                                          .x_stride = linear->in_features + style->x_gap,
                                          .y_stride = linear->out_features + style->y_gap,
                                          .scratch_bytes = workspace.scratch_bytes,
                                          .zeroed_bytes = workspace.zeroed_bytes}};
    kry_apply_args *args = &out->args;
    int64_t y_width = (int64_t)kry_type_bytes(linear->y_type);
    args->x = drawn(gpu, linear->x_type, style->shift, m, linear->in_features, args->x_stride,
                    &seed, &out->x);
    if (style->bias)
        args->bias = drawn(gpu, linear->y_type, style->shift, 1, linear->out_features,
                           linear->out_features, &seed, &out->bias);
    out->y_bytes = (uint64_t)(m * args->y_stride * y_width);
    args->y = (char *)gpu_filled(gpu, GAP_BYTE, out->y_bytes + 64) + style->shift * y_width;
    args->scratch = gpu_filled(gpu, 0xff, workspace.scratch_bytes);
    args->zeroed = gpu_filled(gpu, 0, workspace.zeroed_bytes);
}

void gpu_apply(const kry_layer *layer, const struct gpu_operands *operands) {
    gpu_expect_ok(kry_layer_apply(layer, &operands->args), "apply");
}

/* ---- checking
 * ------------------------------------------------------------------------------------ */

static void dequantize(const struct weights *w, int64_t n, double *out) {
    const kry_linear *linear = &w->linear;
    for (int64_t k = 0; k < linear->in_features; k++) {
        int64_t g = w->rows.g_idx != NULL ? w->rows.g_idx[k] : kry_linear_group_of(linear, k);
        int zero = w->rows.zero_points != NULL ? w->rows.zero_points[n * w->rows.zero_stride + g]
                                               : 1 << (kry_weight_bits(linear->weight_type) - 1);
        out[k] = (w->codes[n * linear->in_features + k] - zero) *
                 value_of(linear->scale_type, w->rows.scales, n * w->rows.scale_stride + g);
    }
}

static void check_gaps(const struct gpu_operands *operands, const unsigned char *y, int64_t columns,
                       int64_t width) {
    const kry_apply_args *args = &operands->args;
    for (int64_t row = 0; row + 1 < args->m; row++)
        for (int64_t i = columns * width; i < args->y_stride * width; i++)
            EXPECT(y[row * args->y_stride * width + i] == GAP_BYTE);
}

void gpu_check(const struct gpu *gpu, const struct weights *w,
               const struct gpu_operands *operands) {
    const kry_linear *linear = &w->linear;
    const kry_apply_args *args = &operands->args;
    static const double allowed[] = {0, 1e-3, 4e-3, 1e-5};
    int64_t k_end = linear->in_features, n_end = linear->out_features;
    void *y = gpu_fetch(gpu, args->y, operands->y_bytes, args->stream);
    unsigned char *zeroed = gpu_fetch(gpu, args->zeroed, args->zeroed_bytes, args->stream);
    double *row = malloc((size_t)k_end * sizeof *row), error = 0, norm = 0;
    EXPECT(row != NULL);
    for (int64_t n = 0; n < n_end; n++) {
        dequantize(w, n, row);
        for (int64_t i = 0; i < args->m; i++) {
            double sum = operands->bias != NULL ? operands->bias[n] : 0;
            for (int64_t k = 0; k < k_end; k++)
                sum += operands->x[i * k_end + k] * row[k];
            double found = value_of(linear->y_type, y, i * args->y_stride + n);
            error += (found - sum) * (found - sum);
            norm += sum * sum;
        }
    }
    double part = sqrt(error / (norm > 0 ? norm : 1)) / allowed[linear->y_type];
    if (!(part < 1)) {
        fprintf(stderr,
                "%" PRId64 "x%" PRId64 " g%" PRId64 " type %u, x %u, y %u, act-order %u, m %" PRId64
                ": the error is %g of what is allowed\n",
                k_end, n_end, linear->group_size, linear->weight_type, linear->x_type,
                linear->y_type, linear->act_order, args->m, part);
        _exit(1);
    }
    check_gaps(operands, y, n_end, (int64_t)kry_type_bytes(linear->y_type));
    for (uint64_t i = 0; i < args->zeroed_bytes; i++)
        EXPECT(zeroed[i] == 0);
    free(row);
    free(y);
    free(zeroed);
}
