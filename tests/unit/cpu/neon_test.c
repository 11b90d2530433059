/*
 * The NEON plugin through the core, on the processor that qemu plays: what the core reports of
 * it, which kernel each tier gets, and the numbers of every kernel that it can run. More of the
 * numbers, and slower, in tiled_kernels_test.c.
 *
 * EXPECTED_FEATURES in the environment are those that the processor has, as the core writes them.
 */
#include "problem.h"

#include <kernelry/kernelry.h>

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static kry_registry *registry;
static kry_device device;

static int setup_registry(void **state) {
    (void)state;
    static const char *const path = CPU_NEON_PLUGIN;
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.plugin_paths = &path;
    options.plugin_path_count = 1;
    options.flags = KRY_REGISTRY_NO_DEFAULT_DIR | KRY_REGISTRY_NO_ENVIRONMENT;
    assert_int_equal(kry_registry_open(&options, &registry), KRY_OK);
    device = KRY_INIT(kry_device);
    assert_int_equal(kry_registry_device(registry, 0, &device), KRY_OK);
    return 0;
}

static int teardown_registry(void **state) {
    (void)state;
    kry_registry_close(&registry);
    return 0;
}

/* ---- what the processor is ------------------------------------------------------------- */

static void device_reports_the_processors_features(void **state) {
    (void)state;
    char features[256];
    kry_cpu_features_format(device.cpu_features, features, sizeof features);
    assert_string_equal(device.arch, "aarch64");
    const char *expected = getenv("EXPECTED_FEATURES");
    if (expected == NULL)
        skip();
    assert_string_equal(features, expected);
}

static kry_linear plain(uint32_t weight_type, uint32_t x_type) {
    kry_linear linear = linear_of(64, 32);
    linear.weight_type = weight_type;
    linear.x_type = linear.y_type = x_type;
    return linear;
}

static const char *chosen_on(const char *device_name, const kry_linear *linear) {
    static char name[64];
    kry_device on = KRY_INIT(kry_device);
    kry_decision *decision = NULL;
    kry_decision_info info = KRY_INIT(kry_decision_info);
    kry_candidate candidate = KRY_INIT(kry_candidate);
    assert_int_equal(kry_registry_find_device(registry, device_name, &on), KRY_OK);
    assert_int_equal(kry_decide(registry, &on, linear, &decision), KRY_OK);
    assert_int_equal(kry_decision_describe(decision, &info), KRY_OK);
    strcpy(name, "none");
    if (info.chosen >= 0) {
        assert_int_equal(kry_decision_candidate(decision, (size_t)info.chosen, &candidate), KRY_OK);
        snprintf(name, sizeof name, "%s", candidate.kernel);
    }
    kry_decision_destroy(&decision);
    return name;
}

static void decision_asks_for_the_features_that_a_kernel_needs(void **state) {
    (void)state;
    kry_linear bf16 = plain(KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
    assert_string_equal(chosen_on("cpu:none", &bf16), "none");
    assert_string_equal(chosen_on("cpu:neon", &bf16), "neon_f32");
    assert_string_equal(chosen_on("cpu:neon,neon_bf16", &bf16), "neon_bf16");
    kry_linear bf16_bytes = plain(KRY_WEIGHT_U8, KRY_TYPE_BF16);
    assert_string_equal(chosen_on("cpu:neon,neon_bf16", &bf16_bytes), "neon_f32");
    kry_linear f16 = plain(KRY_WEIGHT_U4B8, KRY_TYPE_F16);
    assert_string_equal(chosen_on("cpu:neon,neon_bf16,neon_dotprod,neon_i8mm", &f16), "neon_f32");
}

static void decision_takes_int8_where_it_is_wanted_or_allowed(void **state) {
    (void)state;
    kry_linear wanted = plain(KRY_WEIGHT_U8B128, KRY_TYPE_F16);
    wanted.activation_quantization = KRY_ACTIVATION_INT8_TOKEN;
    assert_string_equal(chosen_on("cpu:neon", &wanted), "none");
    assert_string_equal(chosen_on("cpu:neon,neon_dotprod", &wanted), "neon_int8");
    assert_string_equal(chosen_on("cpu:neon,neon_dotprod,neon_i8mm", &wanted), "neon_i8mm");
    kry_linear allowed = plain(KRY_WEIGHT_U4, KRY_TYPE_BF16);
    allowed.allowed = KRY_ALLOW_INT8_ACTIVATIONS;
    assert_string_equal(chosen_on("cpu:neon", &allowed), "neon_f32");
    assert_string_equal(chosen_on("cpu:neon,neon_dotprod,neon_bf16", &allowed), "neon_int8");
    kry_linear fp8 = plain(KRY_WEIGHT_U4, KRY_TYPE_BF16);
    fp8.activation_quantization = KRY_ACTIVATION_FP8_E4M3_TOKEN;
    assert_string_equal(chosen_on("cpu:neon,neon_dotprod,neon_bf16", &fp8), "none");
}

/* ---- a layer and its numbers ----------------------------------------------------------- */

/* Weights and x of small numbers, which every type holds exactly. */
struct layer {
    kry_linear linear;
    kry_layer *layer;
    int64_t m, groups, x_stride, y_stride;
    double *x, *scales;     /* [m, K], [N, G] */
    uint8_t *codes, *zeros; /* [N, K], [N, G] */
    int32_t *group_of;      /* [K] */
    struct guarded x_stored, y_stored, bias, scratch, words, scales_stored;
};

static struct layer under_test; /* the running test's: teardown releases it after a failure */

static void *array_of(int64_t count, size_t bytes) {
    void *memory = calloc((size_t)count + 1, bytes);
    assert_non_null(memory);
    return memory;
}

/* A number that every type holds exactly: i / 2^(6 + e), i from -128 to 127, e from 0 to 11. */
struct small {
    int32_t i, e;
};

static double small_value(struct small small) { return ldexp(small.i, -6 - small.e); }

static void set_small(uint32_t type, void *array, int64_t at, struct small small) {
    static uint32_t bits[4][12][256];
    uint32_t *known = &bits[type][small.e][small.i + 128];
    if (*known == 0 && small.i != 0)
        *known = element_exactly(type, small_value(small));
    element_set(type, array, at, *known);
}

static void draw_weights(struct layer *l, uint64_t *draw) {
    const kry_linear *linear = &l->linear;
    int64_t bits = kry_weight_bits(linear->weight_type), K = linear->in_features;
    int64_t N = linear->out_features, row_words = (K * bits + 31) / 32;
    l->groups = kry_linear_groups(linear);
    l->codes = array_of(N * K, 1);
    l->zeros = array_of(N * l->groups, 1);
    l->scales = array_of(N * l->groups, sizeof(double));
    l->group_of = array_of(K, sizeof(int32_t));
    l->words = guarded_allocate((size_t)(N * row_words) * 4, false);
    l->scales_stored =
        guarded_allocate((size_t)(N * l->groups) * kry_type_bytes(linear->scale_type), false);
    guarded_fill(&l->words, 0);
    for (int64_t k = 0; k < K; k++)
        l->group_of[k] = linear->act_order ? (int32_t)random_below(draw, l->groups)
                                           : (int32_t)kry_linear_group_of(linear, k);
    for (int64_t i = 0; i < N * K; i++) {
        l->codes[i] = (uint8_t)random_below(draw, INT64_C(1) << bits);
        int64_t bit = i / K * row_words * 32 + i % K * bits;
        l->words.data[bit / 8] |= (uint8_t)(l->codes[i] << bit % 8);
    }
    for (int64_t i = 0; i < N * l->groups; i++) {
        struct small scale = {1 + (int32_t)random_below(draw, 127), 0};
        l->scales[i] = small_value(scale);
        set_small(linear->scale_type, l->scales_stored.data, i, scale);
        int64_t bias = INT64_C(1) << (bits - 1);
        bool drawn = kry_weight_has_zero_points(linear->weight_type);
        l->zeros[i] = (uint8_t)(drawn ? random_below(draw, 2 * bias) : bias);
    }
}

static void prepare(struct layer *l) {
    const kry_linear *linear = &l->linear;
    uint32_t bits = (uint32_t)kry_weight_bits(linear->weight_type);
    kry_view qweight = KRY_INIT(kry_view), scales = qweight, zeros = qweight;
    qweight.data = l->words.data;
    qweight.bytes = l->words.bytes;
    qweight.n_stride = (linear->in_features * bits + 31) / 32;
    qweight.j_stride = 1;
    qweight.element_bits = bits;
    qweight.word_bits = 32;
    qweight.pack_axis = KRY_AXIS_K;
    scales.data = l->scales_stored.data;
    scales.bytes = l->scales_stored.bytes;
    scales.n_stride = zeros.n_stride = l->groups;
    scales.j_stride = zeros.j_stride = 1;
    scales.element_bits = scales.word_bits = (uint32_t)kry_type_bytes(linear->scale_type) * 8;
    zeros.data = l->zeros;
    zeros.bytes = (uint64_t)(linear->out_features * l->groups);
    zeros.element_bits = zeros.word_bits = 8;
    kry_weights weights = KRY_INIT(kry_weights);
    weights.qweight = &qweight;
    weights.scales = &scales;
    weights.zero_points = kry_weight_has_zero_points(linear->weight_type) ? &zeros : NULL;
    weights.g_idx = linear->act_order ? l->group_of : NULL;
    weights.memory = KRY_MEMORY_HOST;
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    args.weights = &weights;
    if (kry_layer_prepare(l->layer, &args) != KRY_OK)
        fail_msg("%s", kry_error_message());
}

/* Make the layer on a kernel, with m rows of x that lie apart, NaN between them. */
static void layer_create(struct layer *l, const char *kernel, const kry_linear *linear, int64_t m,
                         uint64_t seed) {
    uint64_t draw = seed;
    kry_layer_args args = KRY_INIT(kry_layer_args);
    *l = (struct layer){.linear = KRY_INIT(kry_linear), .m = m};
    assert_int_equal(kry_linear_complete(linear, &l->linear), KRY_OK);
    args.device = &device;
    args.linear = linear;
    args.kernel = kernel;
    if (kry_layer_create(registry, &args, &l->layer) != KRY_OK)
        fail_msg("%s", kry_error_message());
    draw_weights(l, &draw);
    prepare(l);

    int64_t K = linear->in_features, N = linear->out_features;
    size_t x_bytes = kry_type_bytes(linear->x_type), y_bytes = kry_type_bytes(linear->y_type);
    l->x_stride = K + 1 + random_below(&draw, 3);
    l->y_stride = N + 1 + random_below(&draw, 3);
    l->x = array_of(m * K, sizeof(double));
    l->x_stored = guarded_allocate((size_t)((m - 1) * l->x_stride + K) * x_bytes, false);
    l->y_stored = guarded_allocate((size_t)((m - 1) * l->y_stride + N) * y_bytes, false);
    l->bias = guarded_allocate((size_t)N * y_bytes, false);
    for (int64_t i = 0; i < m * K; i++) {
        struct small value = {(int32_t)random_below(&draw, 256) - 128,
                              (int32_t)random_below(&draw, 12)};
        l->x[i] = small_value(value);
        set_small(linear->x_type, l->x_stored.data, i / K * l->x_stride + i % K, value);
    }
    for (int64_t n = 0; n < N; n++)
        set_small(linear->y_type, l->bias.data, n, (struct small){(int32_t)(n % 100), 0});
    kry_workspace workspace = KRY_INIT(kry_workspace);
    assert_int_equal(kry_layer_workspace(l->layer, m, &workspace), KRY_OK);
    l->scratch = guarded_allocate(workspace.scratch_bytes, true);
}

static void layer_destroy(struct layer *l) {
    kry_layer_destroy(&l->layer);
    void *arrays[] = {l->x, l->scales, l->codes, l->zeros, l->group_of};
    struct guarded *stored[] = {&l->x_stored, &l->y_stored, &l->bias,
                                &l->scratch,  &l->words,    &l->scales_stored};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        free(arrays[i]);
    for (size_t i = 0; i < sizeof stored / sizeof stored[0]; i++)
        guarded_release(stored[i]);
    *l = (struct layer){0};
}

static int teardown_layer(void **state) {
    (void)state;
    layer_destroy(&under_test);
    return 0;
}

/* Apply to `rows` rows from row on. */
static void layer_apply(const struct layer *l, int64_t row, int64_t rows) {
    kry_apply_args args = KRY_INIT(kry_apply_args);
    args.m = rows;
    args.x = l->x_stored.data + (size_t)(row * l->x_stride) * kry_type_bytes(l->linear.x_type);
    args.y = l->y_stored.data + (size_t)(row * l->y_stride) * kry_type_bytes(l->linear.y_type);
    args.bias = l->bias.data;
    args.x_stride = l->x_stride;
    args.y_stride = l->y_stride;
    args.scratch = l->scratch.data;
    args.scratch_bytes = l->scratch.bytes;
    if (kry_layer_apply(l->layer, &args) != KRY_OK)
        fail_msg("%s", kry_error_message());
}

/* A row of x as the kernel takes it: as it is, or quantized a token by the words of types.h. */
static void row_as_taken(const struct layer *l, int64_t row, bool int8, double *out) {
    int64_t K = l->linear.in_features;
    float most = 0;
    for (int64_t k = 0; k < K; k++) {
        out[k] = l->x[row * K + k];
        most = fmaxf(most, (float)fabs(out[k]));
    }
    float scale = most > 0 ? most / 127 : 1;
    for (int64_t k = 0; int8 && k < K; k++)
        out[k] = (double)scale * (double)rintf((float)out[k] / scale);
}

/* Every y is the sum, up to its own rounding and to that of a sum of K in f32, in which products
 * of codes stand before zero points are taken off. */
static void layer_check(const struct layer *l, bool int8) {
    int64_t K = l->linear.in_features, N = l->linear.out_features;
    double *x = array_of(K, sizeof(double));
    for (int64_t row = 0; row < l->m; row++) {
        row_as_taken(l, row, int8, x);
        for (int64_t n = 0; n < N; n++) {
            double expected = (double)(n % 100) / 64, most = expected;
            for (int64_t k = 0; k < K; k++) {
                int64_t group = n * l->groups + l->group_of[k];
                double code = l->codes[n * K + k], zero = l->zeros[group];
                expected += x[k] * (code - zero) * l->scales[group];
                most += fabs(x[k]) * (code + zero) * l->scales[group];
            }
            double found = element_at(l->linear.y_type, l->y_stored.data, row * l->y_stride + n);
            double bound = element_spacing(l->linear.y_type, expected) / 2 + most * 0x1p-19;
            if (!(fabs(found - expected) <= bound))
                fail_msg("y[%" PRId64 "][%" PRId64 "] of %" PRId64 " x %" PRId64 " x %" PRId64
                         ", weight type %u, types %u %u, group %" PRId64
                         ": found %.9g, expected %.9g within %g",
                         row, n, l->m, K, N, l->linear.weight_type, l->linear.x_type,
                         l->linear.y_type, l->linear.group_size, found, expected, bound);
        }
        const uint8_t *end =
            l->y_stored.data + (size_t)(row * l->y_stride + N) * kry_type_bytes(l->linear.y_type);
        assert_true(row + 1 == l->m || (end[0] == 0xff && end[1] == 0xff));
    }
    free(x);
    assert_true(guarded_is_intact(&l->scratch));
}

/* The kernels, and what the processor must have for them. */
struct kernel_case {
    const char *kernel;
    uint64_t needs;
    bool int8;
};
static const struct kernel_case cases[] = {{"neon_f32", KRY_CPU_NEON, false},
                                           {"neon_bf16", KRY_CPU_NEON_BF16, false},
                                           {"neon_int8", KRY_CPU_NEON_DOTPROD, true},
                                           {"neon_i8mm", KRY_CPU_NEON_I8MM, true}};
enum { CASES = sizeof cases / sizeof cases[0] };

static bool runs_here(const struct kernel_case *c) {
    return (device.cpu_features & c->needs) == c->needs;
}

static bool takes(const struct kernel_case *c, uint32_t weight_type) {
    return c->needs != KRY_CPU_NEON_BF16 || weight_type == KRY_WEIGHT_U4B8 ||
           weight_type == KRY_WEIGHT_U4;
}

/* A description that the kernel takes. */
static kry_linear draw_linear(const struct kernel_case *c, uint64_t *draw) {
    static const int64_t group_sizes[] = {-1, 16, 32, 24, 128, 600};
    kry_linear linear = linear_of(1 + random_below(draw, 300), 1 + random_below(draw, 90));
    linear.weight_type = 1 + (uint32_t)random_below(draw, 4);
    linear.x_type = 1 + (uint32_t)random_below(draw, 3);
    if (c->needs == KRY_CPU_NEON_BF16) {
        linear.weight_type = 1 + linear.weight_type % 2;
        linear.x_type = KRY_TYPE_BF16;
    }
    linear.y_type = 1 + (uint32_t)random_below(draw, 3);
    linear.scale_type = 1 + (uint32_t)random_below(draw, 3);
    linear.group_size = group_sizes[random_below(draw, 6)];
    linear.act_order = random_below(draw, 4) == 0;
    linear.k_offset = random_below(draw, 2) * random_below(draw, 50);
    linear.full_in_features = linear.k_offset + linear.in_features + random_below(draw, 40);
    linear.allowed = c->int8 ? KRY_ALLOW_INT8_ACTIVATIONS : 0;
    return linear;
}

/* ---- the numbers ----------------------------------------------------------------------- */

static void apply_of_every_row_count_gives_the_sums(void **state) {
    (void)state;
    for (int c = 0; c < CASES; c++) {
        uint64_t draw = 1;
        for (int64_t i = 0; runs_here(&cases[c]) && i < 54; i++) {
            kry_linear linear = draw_linear(&cases[c], &draw);
            layer_create(&under_test, cases[c].kernel, &linear, 1 + i % 18, (uint64_t)i);
            layer_apply(&under_test, 0, under_test.m);
            layer_check(&under_test, cases[c].int8);
            layer_destroy(&under_test);
        }
    }
}

/* Products of many magnitudes, so that a sum depends on its order: rows in pairs, whose sums
 * matrix instructions make, against rows alone. */
static void apply_to_one_row_or_many_gives_the_same_bits(void **state) {
    (void)state;
    enum { M = 18 };
    for (int c = 0; c < CASES; c++) {
        uint64_t draw = 3;
        for (int64_t i = 0; runs_here(&cases[c]) && i < 12; i++) {
            kry_linear linear = draw_linear(&cases[c], &draw);
            linear.y_type = KRY_TYPE_F32;
            linear.weight_type =
                i % 2 && takes(&cases[c], KRY_WEIGHT_U8) ? KRY_WEIGHT_U8 : KRY_WEIGHT_U4;
            layer_create(&under_test, cases[c].kernel, &linear, M, (uint64_t)i);
            struct layer *l = &under_test;
            uint8_t *alone = array_of((int64_t)l->y_stored.bytes, 1);
            for (int64_t row = 0; row < M; row++)
                layer_apply(l, row, 1);
            memcpy(alone, l->y_stored.data, l->y_stored.bytes);
            for (int64_t rows = 2; rows <= M; rows++) {
                layer_apply(l, 0, rows);
                assert_memory_equal(l->y_stored.data, alone, l->y_stored.bytes);
            }
            free(alone);
            layer_destroy(l);
        }
    }
}

static void apply_by_int8_or_i8mm_gives_the_same_bits(void **state) {
    (void)state;
    const struct kernel_case *int8 = &cases[2], *i8mm = &cases[3];
    if (!runs_here(int8) || !runs_here(i8mm))
        skip();
    uint64_t draw = 5;
    for (int64_t i = 0; i < 36; i++) {
        kry_linear linear = draw_linear(i8mm, &draw);
        layer_create(&under_test, int8->kernel, &linear, 1 + i % 18, (uint64_t)i);
        layer_apply(&under_test, 0, under_test.m);
        size_t bytes = under_test.y_stored.bytes;
        uint8_t *first = array_of((int64_t)bytes, 1);
        memcpy(first, under_test.y_stored.data, bytes);
        layer_destroy(&under_test);
        layer_create(&under_test, i8mm->kernel, &linear, 1 + i % 18, (uint64_t)i);
        layer_apply(&under_test, 0, under_test.m);
        assert_memory_equal(under_test.y_stored.data, first, bytes);
        free(first);
        layer_destroy(&under_test);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_reports_the_processors_features),
        cmocka_unit_test(decision_asks_for_the_features_that_a_kernel_needs),
        cmocka_unit_test(decision_takes_int8_where_it_is_wanted_or_allowed),
        cmocka_unit_test_teardown(apply_of_every_row_count_gives_the_sums, teardown_layer),
        cmocka_unit_test_teardown(apply_to_one_row_or_many_gives_the_same_bits, teardown_layer),
        cmocka_unit_test_teardown(apply_by_int8_or_i8mm_gives_the_same_bits, teardown_layer),
    };
    return cmocka_run_group_tests(tests, setup_registry, teardown_registry) ? 1 : 0;
}
