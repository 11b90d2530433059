/*
 * The reference kernel's duties besides its numbers: sizes, prepared weights in any order, a
 * documented layout, the same bits on any threads and for any m, clear refusals.
 */
#include "plugin_under_test.h"
#include "problem.h"

#include "plugins/cpu/reference/layout.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

static const kry_plugin *plugin;
static const kry_linear_kernel *kernel;
static struct problem problem;
static unsigned char *kept; /* a copy of something, the running test's */

static int setup_kernel(void **state) {
    (void)state;
    plugin = plugin_under_test(CPU_REFERENCE_PLUGIN, "kry_plugin_cpu_reference");
    kernel = plugin->kernels[0]->linear;
    return 0;
}

static int teardown_problem(void **state) {
    (void)state;
    problem_destroy(&problem);
    free(kept);
    kept = NULL;
    return 0;
}

static void keep(const struct guarded *memory) {
    free(kept);
    kept = malloc(memory->bytes);
    assert_non_null(kept);
    memcpy(kept, memory->data, memory->bytes);
}

/* One layer of each weight type, with and without act-order, odd in every size. */
static void create_sample(uint32_t i, int64_t m) {
    struct problem_options options = {.seed = i, .m = m, .linear = linear_of(37, 13)};
    options.linear.weight_type = 1 + i % 4;
    options.linear.act_order = i / 4 % 2;
    options.linear.scale_type = KRY_TYPE_F16;
    options.linear.y_type = KRY_TYPE_BF16;
    options.linear.group_size = 10;
    options.linear.k_offset = 4;
    options.linear.full_in_features = 50;
    problem_create(&problem, kernel, &options);
}
enum { SAMPLES = 8 };

static void plugin_table_offers_one_deterministic_batch_invariant_kernel(void **state) {
    (void)state;
    assert_string_equal(plugin->name, "cpu_reference");
    assert_int_equal(plugin->kernel_count, 1);
    assert_int_equal(plugin->platform_count, 0);
    const kry_kernel *table = plugin->kernels[0];
    assert_string_equal(table->name, "reference");
    assert_string_equal(table->platform, "cpu");
    assert_string_equal(table->operation, KRY_OPERATION_LINEAR);
    assert_string_equal(table->layout_name, "reference");
    assert_int_equal(table->layout_version, 1);
    assert_int_equal(table->flags, KRY_KERNEL_DETERMINISTIC | KRY_KERNEL_BATCH_INVARIANT);
}

static void prepare_in_shuffled_ranges_writes_the_same_bytes_as_at_once(void **state) {
    (void)state;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        create_sample(i, 0);
        assert_int_equal(problem_prepare(&problem, kernel, 0, 13), KRY_OK);
        keep(&problem.prepared);
        guarded_fill(&problem.prepared, 0); /* whatever is not written differs from 0xff */
        const int64_t ranges[][2] = {{12, 13}, {3, 7}, {0, 3}, {7, 7}, {7, 12}};
        for (size_t range = 0; range < 5; range++)
            assert_int_equal(problem_prepare(&problem, kernel, ranges[range][0], ranges[range][1]),
                             KRY_OK);
        assert_memory_equal(problem.prepared.data, kept, problem.prepared.bytes);
        assert_true(guarded_is_intact(&problem.prepared));
        problem_destroy(&problem);
    }
}

static void prepare_puts_every_code_where_the_layout_says(void **state) {
    (void)state;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        create_sample(i, 0);
        assert_int_equal(problem_prepare(&problem, kernel, 0, 13), KRY_OK);
        struct reference_layout layout;
        if (!reference_layout_of(&problem.is.linear, &layout)) {
            fail_msg("no layout");
            return;
        }
        assert_int_equal(layout.bytes, problem.prepared.bytes);
        for (int64_t n = 0; n < 13; n++)
            for (int64_t k = 0; k < 37; k++) {
                struct reference_place place = reference_place_of(&layout, n, k);
                uint32_t word;
                memcpy(&word, problem.prepared.data + place.at, sizeof(word));
                assert_int_equal(word >> place.shift & ((1u << layout.bits) - 1),
                                 problem.codes[n * 37 + k]);
            }
        problem_destroy(&problem);
    }
}

/* The last word of a row: 37 columns leave 3 fields of 4 bits, or of 8, that mean nothing. */
static void prepare_clears_the_bits_past_k(void **state) {
    (void)state;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        create_sample(i, 0);
        assert_int_equal(problem_prepare(&problem, kernel, 0, 13), KRY_OK);
        keep(&problem.prepared);
        int64_t bytes = (int64_t)kry_weight_bits(problem.is.linear.weight_type) * 40 / 8;
        for (int64_t n = 0; n < 13; n++)
            problem.qweight.data[n * problem.qweight_stride * 4 + bytes - 1] ^= 0x5a;
        assert_int_equal(problem_prepare(&problem, kernel, 0, 13), KRY_OK);
        assert_memory_equal(problem.prepared.data, kept, problem.prepared.bytes);
        problem_destroy(&problem);
    }
}

static void prepare_again_in_place_serves_the_new_weights(void **state) {
    (void)state;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        create_sample(i, 3);
        problem_run(&problem, kernel);
        problem_check(&problem);
        for (int64_t n = 0; n < 13; n++) {
            for (int64_t k = 0; k < 37; k++)
                problem_set_weight(&problem, n, k, (uint8_t)((n + 3 * k) % 16));
            problem_set_scale(&problem, n, 2, (double)(n + 1) / 64);
        }
        problem_run(&problem, kernel);
        problem_check(&problem);
        problem_destroy(&problem);
    }
}

/* Prepared weights hold no pointers: they may be moved. */
static void apply_after_moving_the_prepared_weights_is_right(void **state) {
    (void)state;
    create_sample(6, 3);
    assert_int_equal(problem_prepare(&problem, kernel, 0, 13), KRY_OK);
    struct guarded moved = guarded_allocate(problem.prepared.bytes, true);
    memcpy(moved.data, problem.prepared.data, moved.bytes);
    guarded_release(&problem.prepared);
    problem.prepared = moved;
    assert_int_equal(problem_apply(&problem, kernel, NULL, 0, 3), KRY_OK);
    problem_check(&problem);
}

/* ---- threads --------------------------------------------------------------------------- */

/* A host with threads of its own, which take tasks from the last to the first. */
enum { THREADS = 4 };
struct crew {
    atomic_llong left;
    void (*task)(void *argument, int64_t i);
    void *argument;
};

static void *work(void *argument) {
    struct crew *crew = argument;
    for (int64_t i; (i = atomic_fetch_sub(&crew->left, 1) - 1) >= 0;)
        crew->task(crew->argument, i);
    return NULL;
}

static void crew_parallel_for(void *context, int64_t count, void (*task)(void *argument, int64_t i),
                              void *argument) {
    (void)context;
    struct crew crew = {.left = count, .task = task, .argument = argument};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, &crew) != 0)
            abort();
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void apply_on_many_threads_or_row_by_row_gives_the_same_bits(void **state) {
    (void)state;
    const kry_host threads = {.struct_size = sizeof(kry_host), .parallel_for = crew_parallel_for};
    for (uint32_t i = 0; i < SAMPLES; i++) {
        struct problem_options options = {.seed = i, .m = 19, .linear = linear_of(600, 40)};
        options.linear.weight_type = 1 + i % 4;
        options.linear.activation_quantization = i % 3;
        options.linear.group_size = 64;
        options.bias = true;
        problem_create(&problem, kernel, &options);
        problem_run(&problem, kernel);
        keep(&problem.y);
        guarded_fill(&problem.y, 0xff);
        assert_int_equal(problem_apply(&problem, kernel, &threads, 0, 19), KRY_OK);
        assert_memory_equal(problem.y.data, kept, problem.y.bytes);
        guarded_fill(&problem.y, 0xff);
        for (int64_t row = 0; row < 19; row++)
            assert_int_equal(problem_apply(&problem, kernel, NULL, row, 1), KRY_OK);
        assert_memory_equal(problem.y.data, kept, problem.y.bytes);
        problem_destroy(&problem);
    }
}

/* ---- sizes and refusals ---------------------------------------------------------------- */

static void workspace_never_shrinks_as_m_grows(void **state) {
    (void)state;
    kry_device device = KRY_INIT(kry_device);
    kry_linear linear = linear_of(100, 7);
    uint64_t before = 0;
    for (int64_t m = 0; m < 100; m++) {
        kry_workspace workspace = KRY_INIT(kry_workspace);
        assert_int_equal(kernel->workspace(&device, &linear, m, &workspace), KRY_OK);
        assert_true(workspace.scratch_bytes >= before);
        assert_int_equal(workspace.zeroed_bytes, 0);
        before = workspace.scratch_bytes;
    }
    kry_workspace workspace = KRY_INIT(kry_workspace);
    linear.in_features = KRY_FEATURES_MAX;
    assert_int_equal(kernel->workspace(&device, &linear, INT64_MAX, &workspace), KRY_OK);
    assert_true(workspace.scratch_bytes >= before && workspace.scratch_bytes < UINT64_C(1) << 40);
}

/* The largest layer: its codes can be addressed, a scale for each of them cannot. */
static void a_layer_beyond_the_address_space_is_refused_with_its_size(void **state) {
    (void)state;
    kry_device device = KRY_INIT(kry_device);
    kry_refusal refusal = KRY_INIT(kry_refusal);
    kry_sizes sizes = KRY_INIT(kry_sizes);
    kry_linear linear = linear_of(KRY_FEATURES_MAX, KRY_FEATURES_MAX);
    linear.weight_type = KRY_WEIGHT_U8;
    assert_true(kernel->can_implement(&device, &linear, &refusal) == KRY_ACCEPTED);
    assert_int_equal(kernel->sizes(&device, &linear, &sizes), KRY_OK);
    assert_true(sizes.prepared_bytes > UINT64_C(1) << 62);

    linear.group_size = 1;
    assert_true(kernel->can_implement(&device, &linear, &refusal) == KRY_REFUSED);
    assert_int_equal(refusal.code, KRY_REFUSAL_SIZE);
    assert_non_null(refusal.sentence);
    assert_int_equal(kernel->sizes(&device, &linear, &sizes), KRY_E_ARGUMENT);
    assert_non_null(strstr(plugin->error_message(), "2147483648 x 2147483648"));
}

static void prepare_of_a_range_outside_the_layer_fails_and_writes_nothing(void **state) {
    (void)state;
    const int64_t ranges[][2] = {{-1, 2}, {5, 4}, {3, 14}};
    create_sample(5, 0);
    keep(&problem.prepared);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(problem_prepare(&problem, kernel, ranges[i][0], ranges[i][1]),
                         KRY_E_ARGUMENT);
        assert_non_null(strstr(plugin->error_message(), "0 to 13"));
    }
    assert_memory_equal(problem.prepared.data, kept, problem.prepared.bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plugin_table_offers_one_deterministic_batch_invariant_kernel),
        cmocka_unit_test_teardown(prepare_in_shuffled_ranges_writes_the_same_bytes_as_at_once,
                                  teardown_problem),
        cmocka_unit_test_teardown(prepare_puts_every_code_where_the_layout_says, teardown_problem),
        cmocka_unit_test_teardown(prepare_clears_the_bits_past_k, teardown_problem),
        cmocka_unit_test_teardown(prepare_again_in_place_serves_the_new_weights, teardown_problem),
        cmocka_unit_test_teardown(apply_after_moving_the_prepared_weights_is_right,
                                  teardown_problem),
        cmocka_unit_test_teardown(apply_on_many_threads_or_row_by_row_gives_the_same_bits,
                                  teardown_problem),
        cmocka_unit_test(workspace_never_shrinks_as_m_grows),
        cmocka_unit_test(a_layer_beyond_the_address_space_is_refused_with_its_size),
        cmocka_unit_test_teardown(prepare_of_a_range_outside_the_layer_fails_and_writes_nothing,
                                  teardown_problem),
    };
    return cmocka_run_group_tests(tests, setup_kernel, NULL) ? 1 : 0;
}
