#include "problem.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

kry_linear linear_of(int64_t in_features, int64_t out_features) {
    kry_linear linear = KRY_INIT(kry_linear);
    linear.in_features = linear.full_in_features = in_features;
    linear.out_features = linear.full_out_features = out_features;
    linear.group_size = -1;
    linear.weight_type = KRY_WEIGHT_U4B8;
    linear.scale_type = linear.x_type = linear.y_type = KRY_TYPE_F32;
    return linear;
}

void cut_out(kry_linear *linear, int64_t k_offset, int64_t behind) {
    linear->k_offset = k_offset;
    linear->full_in_features = k_offset + linear->in_features + behind;
}

void mix(kry_linear *linear, const int64_t *group_sizes, uint32_t count, uint32_t *rest) {
    linear->weight_type = 1 + *rest % 4, *rest /= 4;
    linear->x_type = 1 + *rest % 3, *rest /= 3;
    linear->y_type = 1 + *rest % 3, *rest /= 3;
    linear->scale_type = 1 + *rest % 3, *rest /= 3;
    linear->group_size = group_sizes[*rest % count], *rest /= count;
    linear->act_order = *rest % 2, *rest /= 2;
}

uint64_t random_next(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

int64_t random_below(uint64_t *state, int64_t limit) {
    return (int64_t)(random_next(state) % (uint64_t)limit);
}

void draw_operands(struct problem_options *options, uint64_t *draw) {
    options->x_gap = random_below(draw, 3);
    options->y_gap = random_below(draw, 3);
    options->misaligned = random_below(draw, 2) != 0;
}

/* ---- element types --------------------------------------------------------------------- */

struct format {
    int bits, fraction_bits, least_exponent;
};

static struct format format_of(uint32_t type) {
    return type == KRY_TYPE_F16    ? (struct format){16, 10, -14}
           : type == KRY_TYPE_BF16 ? (struct format){16, 7, -126}
                                   : (struct format){32, 23, -126};
}

double element_value(uint32_t type, uint32_t bits) {
    struct format format = format_of(type);
    uint32_t magnitude = bits & ((UINT32_C(1) << (format.bits - 1)) - 1);
    double sign = magnitude == bits ? 1 : -1;
    int exponent = (int)(magnitude >> format.fraction_bits);
    uint32_t fraction = magnitude & ((UINT32_C(1) << format.fraction_bits) - 1);
    int largest = (1 << (format.bits - 1 - format.fraction_bits)) - 1;
    if (exponent == largest)
        return fraction != 0 ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(fraction, format.least_exponent - format.fraction_bits);
    return sign * ldexp(fraction + ldexp(1, format.fraction_bits),
                        exponent - 1 + format.least_exponent - format.fraction_bits);
}

uint32_t element_bits(uint32_t type, const void *array, int64_t i) {
    const unsigned char *at = (const unsigned char *)array + i * (type == KRY_TYPE_F32 ? 4 : 2);
    uint32_t bits = (uint32_t)at[0] | (uint32_t)at[1] << 8;
    if (type == KRY_TYPE_F32)
        bits |= (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    return bits;
}

double element_at(uint32_t type, const void *array, int64_t i) {
    return element_value(type, element_bits(type, array, i));
}

void element_set(uint32_t type, void *array, int64_t i, uint32_t bits) {
    size_t bytes = type == KRY_TYPE_F32 ? 4 : 2;
    memcpy((unsigned char *)array + (size_t)i * bytes, &bits, bytes);
}

double element_spacing(uint32_t type, double value) {
    struct format format = format_of(type);
    int exponent = value == 0 ? format.least_exponent : ilogb(value);
    if (exponent < format.least_exponent)
        exponent = format.least_exponent;
    return ldexp(1, exponent - format.fraction_bits);
}

uint32_t element_exactly(uint32_t type, double value) {
    struct format format = format_of(type);
    if (isnan(value))
        return (UINT32_C(1) << (format.bits - 1)) - 1;
    /* Bits grow with the magnitude: search. */
    uint32_t low = 0, high = UINT32_C(1) << (format.bits - 1);
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (element_value(type, middle) <= fabs(value))
            low = middle;
        else
            high = middle;
    }
    assert_true(element_value(type, low) == fabs(value));
    return signbit(value) ? low | UINT32_C(1) << (format.bits - 1) : low;
}

/* A random number of the type with an exponent in [least, least + 8), now and then 0. */
static uint32_t element_random(uint32_t type, uint64_t *state, int least) {
    struct format format = format_of(type);
    uint32_t fraction = (uint32_t)random_next(state) & ((UINT32_C(1) << format.fraction_bits) - 1);
    int exponent = least + (int)random_below(state, 8);
    uint32_t sign = (uint32_t)random_below(state, 2) << (format.bits - 1);
    if (random_below(state, 32) == 0)
        return sign;
    return sign | (uint32_t)(exponent - format.least_exponent + 1) << format.fraction_bits |
           fraction;
}

/* ---- the problem ----------------------------------------------------------------------- */

/* The group of each column: named by g_idx, or grown by one at each multiple of the size. */
static void make_groups(struct problem *problem, uint64_t *state) {
    const kry_linear *linear = &problem->is.linear;
    if (linear->act_order)
        problem->g_idx = guarded_allocate((size_t)linear->in_features * 4, false);
    int64_t group = 0;
    for (int64_t k = 0; k < linear->in_features; k++) {
        if (linear->act_order) {
            group = random_below(state, problem->groups);
            int32_t number = (int32_t)group;
            memcpy(problem->g_idx.data + 4 * k, &number, sizeof(number));
        } else if (linear->group_size > 0 && k > 0 &&
                   (k + linear->k_offset) % linear->group_size == 0) {
            group++;
        }
        problem->group_of[k] = group;
    }
}

static int bits_of(const struct problem *problem) {
    uint32_t type = problem->is.linear.weight_type;
    return type == KRY_WEIGHT_U4B8 || type == KRY_WEIGHT_U4 ? 4 : 8;
}

static bool has_zero_points(const struct problem *problem) {
    uint32_t type = problem->is.linear.weight_type;
    return type == KRY_WEIGHT_U4 || type == KRY_WEIGHT_U8;
}

static int zero_point_at(const struct problem *problem, int64_t n, int64_t group) {
    if (has_zero_points(problem))
        return problem->zero_points.data[n * problem->zero_stride + group];
    return bits_of(problem) == 4 ? 8 : 128;
}

static double scale_at(const struct problem *problem, int64_t n, int64_t group) {
    return element_at(problem->is.linear.scale_type, problem->scales.data,
                      n * problem->scale_stride + group);
}

static void decode_weight(struct problem *problem, int64_t n, int64_t k) {
    int64_t group = problem->group_of[k], i = n * problem->is.linear.in_features + k;
    double zero = zero_point_at(problem, n, group), scale = scale_at(problem, n, group);
    problem->w[i] = (problem->codes[i] - zero) * scale;
    problem->w_zero[i] = zero * scale;
}

static void store_code(struct problem *problem, int64_t n, int64_t k, uint8_t code) {
    /* Lowest bits first in little-endian words: byte after byte, the low half first. */
    unsigned char *row = problem->qweight.data + n * problem->qweight_stride * 4;
    if (bits_of(problem) == 8)
        row[k] = code;
    else if (k % 2 == 0)
        row[k / 2] = (unsigned char)((row[k / 2] & 0xf0) | code);
    else
        row[k / 2] = (unsigned char)((row[k / 2] & 0x0f) | code << 4);
    problem->codes[n * problem->is.linear.in_features + k] = code;
}

void problem_set_weight(struct problem *problem, int64_t n, int64_t k, uint8_t code) {
    store_code(problem, n, k, code);
    decode_weight(problem, n, k);
}

void problem_set_scale(struct problem *problem, int64_t n, int64_t group, double value) {
    const kry_linear *linear = &problem->is.linear;
    element_set(linear->scale_type, problem->scales.data, n * problem->scale_stride + group,
                element_exactly(linear->scale_type, value));
    for (int64_t k = 0; k < linear->in_features; k++)
        decode_weight(problem, n, k);
}

void problem_set_x(struct problem *problem, int64_t row, int64_t k, double value) {
    const kry_linear *linear = &problem->is.linear;
    int64_t stride = linear->in_features + problem->is.x_gap;
    element_set(linear->x_type, problem->x.data, row * stride + k,
                element_exactly(linear->x_type, value));
    problem->x_values[row * linear->in_features + k] = value;
}

static void make_weights(struct problem *problem, uint64_t *state) {
    const kry_linear *linear = &problem->is.linear;
    int64_t out_features = linear->out_features, in_features = linear->in_features;
    int64_t per_word = 32 / bits_of(problem);
    size_t scale_bytes = linear->scale_type == KRY_TYPE_F32 ? 4 : 2;
    /* Rows lie apart; what is between them, and behind K in a word, is poison. */
    problem->qweight_stride = (in_features + per_word - 1) / per_word + random_below(state, 3);
    problem->scale_stride = problem->groups + random_below(state, 3);
    problem->zero_stride = problem->groups + random_below(state, 3);
    problem->qweight =
        guarded_allocate((size_t)(out_features * problem->qweight_stride) * 4, false);
    problem->scales =
        guarded_allocate((size_t)(out_features * problem->scale_stride) * scale_bytes, false);
    if (has_zero_points(problem))
        problem->zero_points =
            guarded_allocate((size_t)(out_features * problem->zero_stride), false);
    for (int64_t n = 0; n < out_features; n++) {
        for (int64_t group = 0; group < problem->groups; group++) {
            element_set(linear->scale_type, problem->scales.data, n * problem->scale_stride + group,
                        element_random(linear->scale_type, state, -12));
            if (has_zero_points(problem))
                problem->zero_points.data[n * problem->zero_stride + group] =
                    (unsigned char)random_below(state, INT64_C(1) << bits_of(problem));
        }
        for (int64_t k = 0; k < in_features; k++)
            store_code(problem, n, k, (uint8_t)random_below(state, INT64_C(1) << bits_of(problem)));
        for (int64_t k = 0; k < in_features; k++)
            decode_weight(problem, n, k);
    }
}

/* Room for elements; misaligned, the first lies 2 bytes behind a multiple of 4. */
static struct guarded allocate_elements(int64_t count, uint32_t type, bool misaligned) {
    size_t element = type == KRY_TYPE_F32 ? 4 : 2;
    size_t bytes = (size_t)count * element;
    /* The end is page-aligned: two bytes more, unused, move the start. */
    struct guarded memory = guarded_allocate(bytes + (misaligned ? 2 : 0), false);
    memory.bytes = bytes;
    return memory;
}

static void make_activations(struct problem *problem, uint64_t *state) {
    const kry_linear *linear = &problem->is.linear;
    int64_t m = problem->is.m, x_stride = linear->in_features + problem->is.x_gap;
    int64_t y_stride = linear->out_features + problem->is.y_gap;
    /* The last row ends with its last element. */
    int64_t x_count = m > 0 ? (m - 1) * x_stride + linear->in_features : 0;
    int64_t y_count = m > 0 ? (m - 1) * y_stride + linear->out_features : 0;
    bool misaligned = problem->is.misaligned;
    problem->x = allocate_elements(x_count, linear->x_type, misaligned);
    problem->y = allocate_elements(y_count, linear->y_type, misaligned);
    for (int64_t row = 0; row < m; row++)
        for (int64_t k = 0; k < linear->in_features; k++) {
            uint32_t bits = element_random(linear->x_type, state, -4);
            element_set(linear->x_type, problem->x.data, row * x_stride + k, bits);
            problem->x_values[row * linear->in_features + k] = element_value(linear->x_type, bits);
        }
    if (!problem->is.bias)
        return;
    problem->bias = allocate_elements(linear->out_features, linear->y_type, misaligned);
    for (int64_t n = 0; n < linear->out_features; n++) {
        uint32_t bits = element_random(linear->y_type, state, -4);
        element_set(linear->y_type, problem->bias.data, n, bits);
        problem->bias_values[n] = element_value(linear->y_type, bits);
    }
}

static double *doubles(int64_t count) {
    double *values = calloc((size_t)count + 1, sizeof(double));
    assert_non_null(values);
    return values;
}

static kry_device device_of(const struct problem *problem) {
    kry_device device = KRY_INIT(kry_device);
    strcpy(device.platform, "cpu");
    device.cpu_features = problem->is.cpu_features;
    return device;
}

void problem_create(struct problem *problem, const kry_linear_kernel *kernel,
                    const struct problem_options *options) {
    *problem = (struct problem){.is = *options};
    const kry_linear *linear = &problem->is.linear;
    uint64_t state = options->seed;
    problem->groups = kry_linear_groups(linear);
    problem->codes = calloc((size_t)(linear->out_features * linear->in_features), 1);
    assert_non_null(problem->codes);
    problem->w = doubles(linear->out_features * linear->in_features);
    problem->w_zero = doubles(linear->out_features * linear->in_features);
    problem->x_values = doubles(options->m * linear->in_features);
    problem->bias_values = doubles(linear->out_features);
    problem->group_of = calloc((size_t)linear->in_features, sizeof(int64_t));
    assert_non_null(problem->group_of);
    make_groups(problem, &state);
    make_weights(problem, &state);
    make_activations(problem, &state);

    kry_device device = device_of(problem);
    kry_refusal refusal = KRY_INIT(kry_refusal);
    assert_true(kernel->can_implement(&device, linear, &refusal) >= KRY_ACCEPTED);
    kry_sizes sizes = KRY_INIT(kry_sizes);
    assert_int_equal(kernel->sizes(&device, linear, &sizes), KRY_OK);
    problem->prepared = guarded_allocate(sizes.prepared_bytes, true);
    problem->prepare_scratch = guarded_allocate(sizes.prepare_scratch_bytes, true);
    problem->bound = guarded_allocate(sizes.bound_bytes, true);
    problem->workspace = KRY_INIT(kry_workspace);
    assert_int_equal(kernel->workspace(&device, linear, options->m, &problem->workspace), KRY_OK);
    problem->scratch = guarded_allocate(problem->workspace.scratch_bytes, true);
}

void problem_destroy(struct problem *problem) {
    free(problem->group_of);
    free(problem->codes);
    free(problem->w);
    free(problem->w_zero);
    free(problem->x_values);
    free(problem->bias_values);
    struct guarded *all[] = {&problem->qweight, &problem->scales,   &problem->zero_points,
                             &problem->g_idx,   &problem->x,        &problem->y,
                             &problem->bias,    &problem->prepared, &problem->prepare_scratch,
                             &problem->bound,   &problem->scratch};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        guarded_release(all[i]);
    *problem = (struct problem){0};
}

/* ---- running it ------------------------------------------------------------------------ */

static const kry_host no_services = {.struct_size = sizeof(kry_host)};

kry_status problem_prepare(const struct problem *problem, const kry_linear_kernel *kernel,
                           int64_t n_begin, int64_t n_end) {
    kry_device device = device_of(problem);
    kry_canonical weights = KRY_INIT(kry_canonical);
    size_t scale_bytes = problem->is.linear.scale_type == KRY_TYPE_F32 ? 4 : 2;
    weights.n_begin = n_begin;
    weights.n_end = n_end;
    /* Rows start at multiples of 4 bytes from a page's end, so u32 are aligned. */
    weights.qweight =
        (const uint32_t *)(void *)(problem->qweight.data + n_begin * problem->qweight_stride * 4);
    weights.scales = problem->scales.data + (size_t)(n_begin * problem->scale_stride) * scale_bytes;
    if (problem->zero_points.data != NULL)
        weights.zero_points = problem->zero_points.data + n_begin * problem->zero_stride;
    weights.g_idx = (const int32_t *)(void *)problem->g_idx.data;
    weights.qweight_stride = problem->qweight_stride;
    weights.scale_stride = problem->scale_stride;
    weights.zero_stride = problem->zero_stride;
    weights.memory = KRY_MEMORY_HOST;
    kry_prepare_call call = KRY_INIT(kry_prepare_call);
    call.device = &device;
    call.linear = &problem->is.linear;
    call.weights = &weights;
    call.prepared = problem->prepared.data;
    call.scratch = problem->prepare_scratch.data;
    call.host = &no_services;
    return kernel->prepare_weights(&call);
}

kry_status problem_apply(const struct problem *problem, const kry_linear_kernel *kernel,
                         const kry_host *host, int64_t row, int64_t rows) {
    const kry_linear *linear = &problem->is.linear;
    kry_device device = device_of(problem);
    kry_binding binding = KRY_INIT(kry_binding);
    binding.device = &device;
    binding.linear = linear;
    binding.prepared = problem->prepared.data;
    binding.bound = problem->bound.data;
    binding.host = &no_services;
    if (kernel->bind != NULL)
        assert_int_equal(kernel->bind(&binding), KRY_OK);
    int64_t x_stride = linear->in_features + problem->is.x_gap;
    int64_t y_stride = linear->out_features + problem->is.y_gap;
    kry_apply_args args = KRY_INIT(kry_apply_args);
    args.m = rows;
    args.x = problem->x.data + row * x_stride * (int64_t)kry_type_bytes(linear->x_type);
    args.y = problem->y.data + row * y_stride * (int64_t)kry_type_bytes(linear->y_type);
    args.bias = problem->bias.data;
    args.x_stride = x_stride; /* the core fills in strides and host */
    args.y_stride = y_stride;
    args.scratch = problem->scratch.data;
    args.scratch_bytes = problem->scratch.bytes;
    args.host = host != NULL ? host : &no_services;
    return kernel->apply(&binding, &args);
}

void problem_run(const struct problem *problem, const kry_linear_kernel *kernel) {
    assert_int_equal(problem_prepare(problem, kernel, 0, problem->is.linear.out_features), KRY_OK);
    guarded_fill(&problem->y, 0xff);
    assert_int_equal(problem_apply(problem, kernel, NULL, 0, problem->is.m), KRY_OK);
}

void problem_print(const struct problem *problem) {
    const kry_linear *linear = &problem->is.linear;
    print_error("problem: seed %" PRIu64 " m %" PRId64 " K %" PRId64 " N %" PRId64
                " full K %" PRId64 " k_offset %" PRId64 " group %" PRId64
                " weight type %u types of scale, x, y %u %u %u activation %u act-order %u "
                "gaps %" PRId64 " %" PRId64 " bias %d misaligned %d\n",
                problem->is.seed, problem->is.m, linear->in_features, linear->out_features,
                linear->full_in_features, linear->k_offset, linear->group_size, linear->weight_type,
                linear->scale_type, linear->x_type, linear->y_type, linear->activation_quantization,
                linear->act_order, problem->is.x_gap, problem->is.y_gap, problem->is.bias,
                problem->is.misaligned);
}

double problem_expect(const struct problem *problem, int64_t row, int64_t n, double *magnitude) {
    const kry_linear *linear = &problem->is.linear;
    const double *x = problem->x_values + row * linear->in_features;
    const double *w = problem->w + n * linear->in_features;
    const double *w_zero = problem->w_zero + n * linear->in_features;
    double expected = problem->bias_values[n];
    *magnitude = fabs(expected);
    for (int64_t k = 0; k < linear->in_features; k++) {
        expected += x[k] * w[k];
        *magnitude += fabs(x[k]) * (fabs(w[k] + w_zero[k]) + fabs(w_zero[k]));
    }
    return expected;
}

/* y[row][n]: within half a step of the sum, but for what summing in double may lose. */
static void check_element(const struct problem *problem, int64_t row, int64_t n) {
    const kry_linear *linear = &problem->is.linear;
    double magnitude, expected = problem_expect(problem, row, n, &magnitude);
    double found = element_at(linear->y_type, problem->y.data,
                              row * (linear->out_features + problem->is.y_gap) + n);
    double bound = element_spacing(linear->y_type, expected) / 2 + magnitude * 1e-13;
    if (!(fabs(found - expected) <= bound)) {
        problem_print(problem);
        fail_msg("y[%" PRId64 "][%" PRId64 "]: found %.17g, expected %.17g within %g", row, n,
                 found, expected, bound);
    }
}

void problem_check_bounds(const struct problem *problem) {
    const kry_linear *linear = &problem->is.linear;
    size_t element = linear->y_type == KRY_TYPE_F32 ? 4 : 2;
    int64_t y_stride = linear->out_features + problem->is.y_gap;
    for (int64_t row = 0; row + 1 < problem->is.m; row++) {
        const unsigned char *gap =
            problem->y.data + (size_t)(row * y_stride + linear->out_features) * element;
        for (size_t i = 0; i < (size_t)problem->is.y_gap * element; i++)
            if (gap[i] != 0xff) {
                problem_print(problem);
                fail_msg("row %" PRId64 " of y: byte %zu past its end was written", row, i);
            }
    }
    assert_true(guarded_is_intact(&problem->prepared));
    assert_true(guarded_is_intact(&problem->prepare_scratch));
    assert_true(guarded_is_intact(&problem->bound));
    assert_true(guarded_is_intact(&problem->scratch));
    assert_true(guarded_is_intact(&problem->y));
}

void problem_check(const struct problem *problem) {
    for (int64_t row = 0; row < problem->is.m; row++)
        for (int64_t n = 0; n < problem->is.linear.out_features; n++)
            check_element(problem, row, n);
    problem_check_bounds(problem);
}
