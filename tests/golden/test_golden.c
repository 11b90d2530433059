/*
 * The whole pipe on the golden checkpoints: plugins from their directory, views from the
 * checkpoint, a layer prepared and applied, against what other people's libraries computed.
 */
#include "floats.h"
#include "golden.h"
#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static kry_registry *registry;
static kry_device device;

/** What a test holds; the teardown ends it, whatever the test does. */
static struct {
    struct golden golden;
    kry_checkpoint_weights *weights;
    kry_layer *layer;
    void *x;
    void *y;
    void *bias;
    void *scratch;
    void *zeroed;
} held;

static void require(kry_status status) {
    if (status != KRY_OK)
        fail_msg("%s: %s", held.golden.name ? held.golden.name : "", kry_error_message());
}

static int open_registry(void **state) {
    (void)state;
    static const char *const paths[] = {PLUGIN_DIR};
    kry_registry_options options = {.struct_size = sizeof options,
                                    .plugin_paths = paths,
                                    .plugin_path_count = 1,
                                    .flags =
                                        KRY_REGISTRY_NO_DEFAULT_DIR | KRY_REGISTRY_NO_ENVIRONMENT};
    device = (kry_device){.struct_size = sizeof device};
    require(kry_registry_open(&options, &registry));
    require(kry_registry_find_device(registry, "cpu", &device));
    return 0;
}

static int close_registry(void **state) {
    (void)state;
    kry_registry_close(&registry);
    return 0;
}

static void drop_layer(void) {
    kry_layer_destroy(&held.layer);
    kry_checkpoint_weights_destroy(&held.weights);
    free(held.x);
    free(held.y);
    free(held.bias);
    free(held.scratch);
    free(held.zeroed);
    held.x = held.y = held.bias = held.scratch = held.zeroed = NULL;
}

static int tear_down(void **state) {
    (void)state;
    drop_layer();
    golden_close(&held.golden);
    held.golden.name = NULL;
    return 0;
}

/* ---- a layer of the pipe ------------------------------------------------------------- */

/** Make and prepare the partition of a layer, on the kernel that is asked for. */
static void make_layer(const char *name, const kry_slice *slice, uint32_t type) {
    size_t index;
    require(kry_checkpoint_find_layer(held.golden.model, name, &index));
    require(kry_checkpoint_weights_create(held.golden.model, index, slice, &held.weights));
    kry_linear linear = *held.weights->linear;
    if (type)
        linear.x_type = linear.y_type = type;
    kry_layer_args args = {.struct_size = sizeof args,
                           .device = &device,
                           .linear = &linear,
                           .kernel = "cpu_reference/reference"};
    require(kry_layer_create(registry, &args, &held.layer));
    kry_prepare_args prepare = {.struct_size = sizeof prepare, .weights = held.weights->weights};
    require(kry_layer_prepare(held.layer, &prepare));
}

/** The stored bias in y's type, NULL where there is none. */
static const void *bias_as(uint32_t y_type, int64_t n) {
    uint32_t stored = held.weights->bias_dtype == KRY_DTYPE_F16    ? KRY_TYPE_F16
                      : held.weights->bias_dtype == KRY_DTYPE_BF16 ? KRY_TYPE_BF16
                                                                   : KRY_TYPE_F32;
    if (!held.weights->bias)
        return NULL;
    held.bias = malloc((size_t)n * kry_type_bytes(y_type));
    assert_non_null(held.bias);
    for (int64_t i = 0; i < n; i++)
        float_store(held.bias, i, y_type, float_load(held.weights->bias, i, stored));
    return held.bias;
}

/** Columns of NaN behind each row of x and poison behind each row of y. */
enum { X_PADDING = 3, Y_PADDING = 2 };

/** Poison y [m, n + Y_PADDING] with NaN. */
static void poison(int64_t m, int64_t n, uint32_t y_type) {
    held.y = malloc((size_t)(m * (n + Y_PADDING)) * kry_type_bytes(y_type));
    assert_non_null(held.y);
    for (int64_t i = 0; i < m * (n + Y_PADDING); i++)
        float_store(held.y, i, y_type, (double)NAN);
}

/** Apply on held.x [m, k + X_PADDING] into held.y [m, n + Y_PADDING]. */
static void apply(int64_t m, bool with_bias) {
    const kry_linear *linear = kry_layer_linear(held.layer, 0);
    kry_workspace workspace = {.struct_size = sizeof workspace};
    require(kry_layer_workspace(held.layer, m, &workspace));
    held.scratch =
        aligned_alloc(KRY_ALIGNMENT, (workspace.scratch_bytes / KRY_ALIGNMENT + 1) * KRY_ALIGNMENT);
    held.zeroed =
        aligned_alloc(KRY_ALIGNMENT, (workspace.zeroed_bytes / KRY_ALIGNMENT + 1) * KRY_ALIGNMENT);
    assert_true(held.scratch && held.zeroed);
    memset(held.zeroed, 0, workspace.zeroed_bytes);
    poison(m, linear->out_features, linear->y_type);
    kry_apply_args args = {.struct_size = sizeof args,
                           .m = m,
                           .x = held.x,
                           .y = held.y,
                           .bias = with_bias ? bias_as(linear->y_type, linear->out_features) : NULL,
                           .x_stride = linear->in_features + X_PADDING,
                           .y_stride = linear->out_features + Y_PADDING,
                           .scratch = held.scratch,
                           .zeroed = held.zeroed,
                           .scratch_bytes = workspace.scratch_bytes,
                           .zeroed_bytes = workspace.zeroed_bytes};
    require(kry_layer_apply(held.layer, &args));
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < Y_PADDING; j++)
            assert_true(isnan(
                float_load(held.y, i * args.y_stride + linear->out_features + j, linear->y_type)));
}

/** held.x from values (m rows of k), of x_type, with NaN behind each row. */
static void give_x(const void *values, uint32_t values_type, int64_t m, int64_t k,
                   uint32_t x_type) {
    held.x = malloc((size_t)(m * (k + X_PADDING) + 1) * kry_type_bytes(x_type));
    assert_non_null(held.x);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < k + X_PADDING; j++)
            float_store(held.x, i * (k + X_PADDING) + j, x_type,
                        j < k ? float_load(values, i * k + j, values_type) : (double)NAN);
}

/** Call check for every layer of every case. */
static void for_each_layer(void (*check)(const struct golden_layer *layer)) {
    for (size_t i = 0; i < golden_case_count; i++) {
        struct golden_layer layer;
        golden_open(golden_cases[i], &held.golden);
        for (size_t j = 0; golden_layer_at(&held.golden, j, &layer); j++)
            check(&layer);
        golden_close(&held.golden);
    }
}

/* ---- the layers that are there ------------------------------------------------------- */

static void checkpoints_list_the_expected_layers_and_no_other(void **state) {
    (void)state;
    for (size_t i = 0; i < golden_case_count; i++) {
        struct golden_layer layer;
        size_t count = 0, index;
        golden_open(golden_cases[i], &held.golden);
        for (; golden_layer_at(&held.golden, count, &layer); count++) {
            kry_checkpoint_layer found = {.struct_size = sizeof found};
            require(kry_checkpoint_find_layer(held.golden.model, layer.name, &index));
            require(kry_checkpoint_layer_at(held.golden.model, index, &found));
            assert_int_equal(found.status, KRY_OK);
            assert_int_equal(found.linear->in_features, layer.k);
            assert_int_equal(found.linear->out_features, layer.n);
            assert_int_equal(found.linear->x_type, layer.x_type);
        }
        if (kry_checkpoint_layer_count(held.golden.model) != count)
            fail_msg("%s: %zu layers, expected %zu", golden_cases[i],
                     kry_checkpoint_layer_count(held.golden.model), count);
        golden_close(&held.golden);
    }
}

/* ---- products ------------------------------------------------------------------------ */

static void check_y(const struct golden_layer *layer, uint32_t type) {
    make_layer(layer->name, NULL, type);
    const kry_linear *linear = kry_layer_linear(held.layer, 0);
    give_x(layer->x, layer->x_type, layer->m, layer->k, linear->x_type);
    apply(layer->m, true);
    struct oracle_error error =
        oracle_compare(held.y, linear->y_type, layer->n + Y_PADDING, layer->m, layer->n, layer->y);
    double bound = oracle_bound(linear->y_type, linear->activation_quantization);
    if (!(error.relative < bound))
        fail_msg("%s %s: relative error %g, bound %g, largest at [%lld][%lld]", held.golden.name,
                 layer->name, error.relative, bound, (long long)error.row, (long long)error.column);
    drop_layer();
}

static void check_y_in_the_models_type(const struct golden_layer *layer) { check_y(layer, 0); }

static void check_y_in_f32(const struct golden_layer *layer) { check_y(layer, KRY_TYPE_F32); }

static void y_in_the_models_type_is_within_its_bound(void **state) {
    (void)state;
    for_each_layer(check_y_in_the_models_type);
}

static void y_in_f32_is_within_its_bound(void **state) {
    (void)state;
    for_each_layer(check_y_in_f32);
}

/* ---- one-hot probes ------------------------------------------------------------------ */

/** x = each column of the partition in turn: y is W's column, rounded, within one step. */
static void probe(const struct golden_layer *layer, const kry_slice *slice) {
    make_layer(layer->name, slice, 0);
    const kry_linear *linear = kry_layer_linear(held.layer, 0);
    int64_t k_count = slice->k_end - slice->k_begin, n_count = slice->n_end - slice->n_begin;
    assert_int_equal(linear->in_features, k_count);
    assert_int_equal(linear->out_features, n_count);
    float *ones = calloc((size_t)(k_count * k_count), sizeof *ones);
    assert_non_null(ones);
    for (int64_t k = 0; k < k_count; k++)
        ones[k * k_count + k] = 1;
    give_x(ones, KRY_TYPE_F32, k_count, k_count, linear->x_type);
    free(ones);
    apply(k_count, false);
    for (int64_t k = 0; k < k_count; k++)
        for (int64_t n = 0; n < n_count; n++) {
            double want =
                (double)layer->weight[(slice->n_begin + n) * layer->k + slice->k_begin + k];
            double got = float_load(held.y, k * (n_count + Y_PADDING) + n, linear->y_type);
            if (!(fabs(got - want) <= float_spacing(want, linear->y_type)))
                fail_msg("%s %s rows %lld.. columns %lld..: W[%lld][%lld] is %g, expected %g",
                         held.golden.name, layer->name, (long long)slice->n_begin,
                         (long long)slice->k_begin, (long long)n, (long long)k, got, want);
        }
    drop_layer();
}

static void probe_whole(const struct golden_layer *layer) {
    kry_slice slice = {.struct_size = sizeof slice, .n_end = layer->n, .k_end = layer->k};
    probe(layer, &slice);
}

static void one_hot_x_returns_each_column_of_the_weights(void **state) {
    (void)state;
    for_each_layer(probe_whole);
}

/** Partitions at odd offsets: inside a word, inside a group, on a group's edge, of one element. */
static void probe_partitions(const struct golden_layer *layer) {
    int64_t n = layer->n, k = layer->k;
    const kry_slice slices[] = {
        {.n_begin = 0, .n_end = n, .k_begin = 1, .k_end = k},
        {.n_begin = 0, .n_end = n, .k_begin = 0, .k_end = k - 1},
        {.n_begin = 1, .n_end = n, .k_begin = 0, .k_end = k},
        {.n_begin = 0, .n_end = n - 1, .k_begin = 0, .k_end = k},
        {.n_begin = 3, .n_end = n - 2, .k_begin = 5, .k_end = k - 3},
        {.n_begin = 0, .n_end = n / 2, .k_begin = k / 2, .k_end = k},
        {.n_begin = n / 2, .n_end = n, .k_begin = 0, .k_end = k / 2},
        {.n_begin = 2, .n_end = 5, .k_begin = 16, .k_end = 19},
        {.n_begin = n - 1, .n_end = n, .k_begin = k - 1, .k_end = k},
        {.n_begin = 0, .n_end = 1, .k_begin = 0, .k_end = 1},
    };
    for (size_t i = 0; i < sizeof slices / sizeof slices[0]; i++) {
        kry_slice slice = slices[i];
        slice.struct_size = sizeof slice;
        probe(layer, &slice);
    }
}

static void partitions_at_odd_offsets_return_that_part_of_the_weights(void **state) {
    (void)state;
    for_each_layer(probe_partitions);
}

/** The sum of two partitions along K, bias on one of them, is the whole layer's y. */
static void check_row_parallel(const struct golden_layer *layer) {
    int64_t edges[] = {0, layer->k / 2 + 3, layer->k};
    float sum[8 * 64] = {0}, part[8 * 128];
    assert_true(layer->m <= 8 && layer->n <= 64 && layer->k <= 128);
    for (int rank = 0; rank < 2; rank++) {
        kry_slice slice = {
            .struct_size = sizeof slice, .k_begin = edges[rank], .k_end = edges[rank + 1]};
        int64_t columns = slice.k_end - slice.k_begin;
        for (int64_t i = 0; i < layer->m * columns; i++)
            part[i] = (float)float_load(
                layer->x, i / columns * layer->k + slice.k_begin + i % columns, layer->x_type);
        make_layer(layer->name, &slice, KRY_TYPE_F32);
        give_x(part, KRY_TYPE_F32, layer->m, columns, KRY_TYPE_F32);
        apply(layer->m, rank == 1);
        for (int64_t i = 0; i < layer->m * layer->n; i++)
            sum[i] += ((float *)held.y)[i / layer->n * (layer->n + Y_PADDING) + i % layer->n];
        drop_layer();
    }
    struct oracle_error error = oracle_compare(sum, KRY_TYPE_F32, 0, layer->m, layer->n, layer->y);
    if (!(error.relative < 1e-5))
        fail_msg("%s %s: relative error %g of two ranks", held.golden.name, layer->name,
                 error.relative);
}

static void two_row_parallel_ranks_sum_to_y(void **state) {
    (void)state;
    for (size_t i = 0; i < golden_case_count; i++) {
        struct golden_layer layer;
        if (strstr(golden_cases[i], "w4a8")) /* each rank quantizes its own columns of x */
            continue;
        golden_open(golden_cases[i], &held.golden);
        for (size_t j = 0; golden_layer_at(&held.golden, j, &layer); j++)
            check_row_parallel(&layer);
        golden_close(&held.golden);
    }
}

/** Rows 3 to n-1, bias and all, are that part of y. */
static void check_column_parallel(const struct golden_layer *layer) {
    const kry_slice slice = {.struct_size = sizeof slice, .n_begin = 3, .n_end = layer->n - 1};
    int64_t n = slice.n_end - slice.n_begin;
    double expected[8 * 64];
    assert_true(layer->m <= 8 && layer->n <= 64);
    for (int64_t i = 0; i < layer->m * n; i++)
        expected[i] = layer->y[i / n * layer->n + slice.n_begin + i % n];
    make_layer(layer->name, &slice, 0);
    const kry_linear *linear = kry_layer_linear(held.layer, 0);
    give_x(layer->x, layer->x_type, layer->m, layer->k, linear->x_type);
    apply(layer->m, true);
    struct oracle_error error =
        oracle_compare(held.y, linear->y_type, n + Y_PADDING, layer->m, n, expected);
    if (!(error.relative < oracle_bound(linear->y_type, linear->activation_quantization)))
        fail_msg("%s %s: relative error %g of rows 3..", held.golden.name, layer->name,
                 error.relative);
    drop_layer();
}

static void column_parallel_rank_returns_its_part_of_y(void **state) {
    (void)state;
    for_each_layer(check_column_parallel);
}

#define TEST(function) cmocka_unit_test_teardown(function, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(checkpoints_list_the_expected_layers_and_no_other),
        TEST(y_in_the_models_type_is_within_its_bound),
        TEST(y_in_f32_is_within_its_bound),
        TEST(one_hot_x_returns_each_column_of_the_weights),
        TEST(partitions_at_odd_offsets_return_that_part_of_the_weights),
        TEST(two_row_parallel_ranks_sum_to_y),
        TEST(column_parallel_rank_returns_its_part_of_y),
    };
    return cmocka_run_group_tests(tests, open_registry, close_registry) ? 1 : 0;
}
