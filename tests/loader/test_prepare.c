/*
 * Preparing: into whose memory, with whose scratch and services, again in place, and what is
 * left after a prepare that failed.
 */
#include "fixture.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include <mock.h>

static void reload_in_place_changes_the_numbers(void **state) {
    (void)state;
    applied_layer layer;
    make_prepared(2, &layer);
    assert_int_equal(apply_layer(&layer), KRY_OK);
    free_stored(&layer.stored);
    free_weights(&layer.plain);
    kry_linear linear = small_layer();
    layer.plain = draw_weights(&linear);
    store_weights(&layer.plain, &(storage){.weight_axis = KRY_AXIS_N, .transposed = true},
                  &layer.stored);
    assert_true(error_of(&layer) > 1e-2);
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_true(error_of(&layer) < 1e-6);
    free_layer(&layer);
}

/* A prepare into the caller's buffer, with the caller's scratch, fails in one way or none. */
static kry_status prepare_into(applied_layer *layer, void *prepared, uint64_t prepared_bytes,
                               void *scratch, uint64_t scratch_bytes) {
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    args.weights = &layer->stored.weights;
    args.prepared = prepared;
    args.prepared_bytes = prepared_bytes;
    args.prepared_memory = prepared != NULL ? KRY_MEMORY_HOST : 0;
    args.scratch = scratch;
    args.scratch_bytes = scratch_bytes;
    return kry_layer_prepare(layer->layer, &args);
}

static void callers_buffer_and_scratch_are_used_and_checked(void **state) {
    (void)state;
    applied_layer layer;
    make_small(2, &layer);
    kry_sizes sizes = KRY_INIT(kry_sizes);
    assert_int_equal(kry_layer_sizes(layer.layer, &sizes), KRY_OK);
    uint64_t p = sizes.prepared_bytes, s = sizes.prepare_scratch_bytes;
    unsigned char *prepared = aligned_alloc(KRY_ALIGNMENT, (p + 511) / 256 * 256);
    unsigned char *scratch = aligned_alloc(KRY_ALIGNMENT, (s + 511) / 256 * 256);
    assert_non_null(prepared);
    assert_non_null(scratch);
    memset(prepared, 0, p);
    assert_int_equal(prepare_into(&layer, prepared, p - 1, scratch, s), KRY_E_ARGUMENT);
    assert_int_equal(prepare_into(&layer, prepared + 8, p, scratch, s), KRY_E_ARGUMENT);
    kry_status status = prepare_into(&layer, prepared, p, scratch, s - 1);
    assert_true(status == KRY_E_ARGUMENT || status == KRY_E_WORKSPACE);
    status = prepare_into(&layer, prepared, p, scratch + 8, s);
    assert_true(status == KRY_E_ARGUMENT || status == KRY_E_WORKSPACE);
    for (uint64_t i = 0; i < p; i++)
        assert_int_equal(prepared[i], 0);
    assert_apply_refused(&layer, KRY_E_STATE);
    assert_int_equal(prepare_into(&layer, prepared, p, scratch, s), KRY_OK);
    memset(scratch, 0xee, s);
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_true(error_of(&layer) < 1e-6);

    /* The buffer may be moved: a prepare elsewhere binds again. */
    unsigned char *elsewhere = aligned_alloc(KRY_ALIGNMENT, (p + 511) / 256 * 256);
    assert_non_null(elsewhere);
    assert_int_equal(prepare_into(&layer, elsewhere, p, NULL, 0), KRY_OK);
    memset(prepared, 0xee, p);
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_true(error_of(&layer) < 1e-6);
    free_layer(&layer);
    free(prepared);
    free(elsewhere);
    free(scratch);
}

/* After a prepare that failed: the old weights still work, or the layer says it has none. */
static void assert_old_weights_or_none(applied_layer *layer) {
    poison(layer);
    kry_status status = apply_layer(layer);
    if (status == KRY_OK)
        assert_true(error_of(layer) < 1e-6);
    else
        assert_int_equal(status, KRY_E_STATE);
}

static void refused_move_to_the_callers_buffer_leaves_no_stale_weights(void **state) {
    (void)state;
    for (int unsupported = 0; unsupported < 2; unsupported++) {
        applied_layer layer;
        make_prepared(2, &layer); /* memory of the layer's own */
        kry_sizes sizes = KRY_INIT(kry_sizes);
        assert_int_equal(kry_layer_sizes(layer.layer, &sizes), KRY_OK);
        uint64_t p = sizes.prepared_bytes;
        unsigned char *prepared = aligned_alloc(KRY_ALIGNMENT, (p + 511) / 256 * 256);
        assert_non_null(prepared);
        if (unsupported) {
            layer.stored.weights.memory = KRY_MEMORY_DEVICE;
            assert_int_equal(prepare_into(&layer, prepared, p, NULL, 0), KRY_E_UNSUPPORTED);
        } else {
            kry_status status = prepare_into(&layer, prepared, p, prepared, 1);
            assert_true(status == KRY_E_ARGUMENT || status == KRY_E_WORKSPACE);
        }
        free(prepared);
        assert_old_weights_or_none(&layer);
        free_layer(&layer);
    }
}

static void prepare_without_arguments_is_refused(void **state) {
    (void)state;
    applied_layer layer;
    make_small(2, &layer);
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    assert_int_equal(kry_layer_prepare(layer.layer, &args), KRY_E_ARGUMENT);
    assert_int_equal(kry_layer_prepare(layer.layer, NULL), KRY_E_ARGUMENT);
    args.weights = &layer.stored.weights;
    assert_int_equal(kry_layer_prepare(NULL, &args), KRY_E_ARGUMENT);
    args.struct_size = 16;
    assert_int_equal(kry_layer_prepare(layer.layer, &args), KRY_E_ABI);
    layer.stored.qweight.struct_size = 8;
    assert_int_equal(prepare_layer(&layer), KRY_E_ABI);
    assert_apply_refused(&layer, KRY_E_STATE);
    free_layer(&layer);
}

/* ---- services of the host -------------------------------------------------------------------- */

typedef struct counting_host {
    int64_t blocks, allocations, tasks;
    bool fails;
} counting_host;

static void *count_allocate(void *context, size_t bytes, size_t alignment) {
    counting_host *count = context;
    void *memory = NULL;
    if (count->fails || posix_memalign(&memory, alignment < 8 ? 8 : alignment, bytes) != 0)
        return NULL;
    count->blocks++;
    count->allocations++;
    return memory;
}

static void count_release(void *context, void *memory, size_t bytes) {
    (void)bytes;
    ((counting_host *)context)->blocks -= memory != NULL;
    free(memory);
}

static void count_parallel_for(void *context, int64_t count,
                               void (*task)(void *argument, int64_t i), void *argument) {
    for (int64_t i = count - 1; i >= 0; i--)
        task(argument, i);
    ((counting_host *)context)->tasks += count;
}

static kry_host host_of(counting_host *count) {
    kry_host host = KRY_INIT(kry_host);
    host.context = count;
    host.allocate = count_allocate;
    host.release = count_release;
    host.parallel_for = count_parallel_for;
    return host;
}

static void services_of_the_host_are_used_and_get_everything_back(void **state) {
    (void)state;
    counting_host count = {0};
    kry_host host = host_of(&count);
    const char *paths[1] = {mock_path("dense.so")};
    kry_registry_options options = closed_options(paths, 1);
    options.host = &host;
    kry_registry *own = open_options(options, NULL);
    kry_linear linear = small_layer();
    applied_layer layer;
    make_layer(own, "cpu", &linear, 2, &layer);
    kry_registry_close(&own);
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    count.tasks = 0;
    int64_t before = count.allocations;
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_int_equal(count.allocations, before); /* apply allocates nothing */
    assert_int_equal(count.tasks, 13);
    assert_true(count.blocks > 0);
    assert_true(error_of(&layer) < 1e-6);

    counting_host other = {0};
    kry_host others = host_of(&other);
    layer.args.host = &others; /* for one call */
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_int_equal(other.tasks, 13);
    assert_int_equal(count.tasks, 13);
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    args.weights = &layer.stored.weights;
    args.host = &others;
    assert_int_equal(kry_layer_prepare(layer.layer, &args), KRY_OK);
    assert_true(other.allocations > 0);
    assert_int_equal(other.blocks, 0); /* never kept */
    free_layer(&layer);
    assert_int_equal(count.blocks, 0);
}

/* The counters of the plugin "services", which is loaded already or stays so. */
static const mock_counts *find_counts(void) {
    void *library = dlopen(mock_path("services.so"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    void *symbol = dlsym(library, "kry_plugin_services");
    assert_non_null(symbol);
    kry_plugin_entry entry;
    memcpy(&entry, &symbol, sizeof entry);
    return entry()->platforms[0]->host->context;
}

static void services_of_the_platform_serve_embedders_that_bring_none(void **state) {
    (void)state;
    const mock_counts *counts = find_counts();
    kry_registry *served = open_mocks(NULL, "services.so", "dense.so", NULL);
    kry_linear linear = small_layer();
    applied_layer layer;
    make_layer(served, "cpu", &linear, 2, &layer);
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    assert_true(counts->blocks > 0);
    int64_t before = counts->tasks;
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_int_equal(counts->tasks, before + 13);
    assert_true(error_of(&layer) < 1e-6);
    free_layer(&layer);
    kry_registry_close(&served);
    assert_int_equal(counts->blocks, 0);
}

static void host_out_of_memory_is_an_error_and_nothing_more(void **state) {
    (void)state;
    counting_host count = {0};
    kry_host host = host_of(&count);
    const char *paths[1] = {mock_path("dense.so")};
    kry_registry_options options = closed_options(paths, 1);
    options.host = &host;
    kry_registry *own = open_options(options, NULL);
    kry_linear linear = small_layer();
    applied_layer layer;
    make_layer(own, "cpu", &linear, 2, &layer);
    count.fails = true;
    assert_int_equal(prepare_layer(&layer), KRY_E_MEMORY);
    assert_apply_refused(&layer, KRY_E_STATE);
    count.fails = false;
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    count.fails = true; /* a reload needs scratch */
    assert_int_equal(prepare_layer(&layer), KRY_E_MEMORY);
    assert_int_equal(apply_layer(&layer), KRY_OK); /* nothing was written */
    assert_true(error_of(&layer) < 1e-6);
    kry_layer *another = NULL;
    kry_device device = find_device(own, "cpu");
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    assert_int_equal(kry_layer_create(own, &args, &another), KRY_E_MEMORY);
    assert_null(another);
    count.fails = false;
    free_layer(&layer);
    kry_registry_close(&own);
    assert_int_equal(count.blocks, 0);
}

static void allocator_without_a_release_is_refused(void **state) {
    (void)state;
    counting_host count = {0};
    kry_host host = host_of(&count);
    host.release = NULL;
    kry_registry_options options = closed_options(NULL, 0);
    options.host = &host;
    kry_registry *own = NULL;
    assert_int_equal(kry_registry_open(&options, &own), KRY_E_ARGUMENT);
    applied_layer layer;
    make_small(2, &layer);
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    args.weights = &layer.stored.weights;
    args.host = &host;
    assert_int_equal(kry_layer_prepare(layer.layer, &args), KRY_E_ARGUMENT);
    free_layer(&layer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reload_in_place_changes_the_numbers),
        cmocka_unit_test(callers_buffer_and_scratch_are_used_and_checked),
        cmocka_unit_test(refused_move_to_the_callers_buffer_leaves_no_stale_weights),
        cmocka_unit_test(prepare_without_arguments_is_refused),
        cmocka_unit_test(services_of_the_host_are_used_and_get_everything_back),
        cmocka_unit_test(services_of_the_platform_serve_embedders_that_bring_none),
        cmocka_unit_test(host_out_of_memory_is_an_error_and_nothing_more),
        cmocka_unit_test(allocator_without_a_release_is_refused),
    };
    return cmocka_run_group_tests_name("loader prepare", tests, open_dense, close_registry) ? 1 : 0;
}
