/*
 * Many threads at once: deciding while others open registries, making layers, applying one
 * layer. What a race would spoil is compared; ThreadSanitizer sees the rest.
 */
#include "fixture.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 8, ROUNDS = 50 };

/* cmocka's assertions belong to the main thread: the others count what went wrong. */
static atomic_int failures;

static void expect(bool truth) {
    if (!truth)
        atomic_fetch_add(&failures, 1);
}

static void run_threads(void *(*body)(void *), void *argument, int count) {
    pthread_t threads[THREADS];
    assert_in_range(count, 1, THREADS);
    atomic_store(&failures, 0);
    for (int i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, body, argument), 0);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&failures), 0);
}

typedef struct deciding {
    kry_registry *registry;
    kry_device device;
} deciding;

static void *decide_many(void *argument) {
    const deciding *with = argument;
    for (int64_t i = 0; i < ROUNDS; i++) {
        kry_linear linear =
            describe(2112 + 32 * (i % 10), 2816, 32, KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
        kry_decision *decision = NULL;
        kry_decision_info info = KRY_INIT(kry_decision_info);
        expect(kry_decide(with->registry, &with->device, &linear, &decision) == KRY_OK);
        expect(kry_decision_describe(decision, &info) == KRY_OK);
        expect(info.candidate_count == 7);
        expect(info.chosen == (linear.in_features % 128 == 0 ? 3 : 6));
        kry_decision_destroy(&decision);
    }
    return NULL;
}

static void *open_many(void *argument) {
    const char *const *paths = argument;
    for (int i = 0; i < ROUNDS / 5; i++) {
        kry_registry_options options = closed_options(paths, 1);
        kry_registry *registry = NULL;
        expect(kry_registry_open(&options, &registry) == KRY_OK);
        expect(kry_registry_kernel_count(registry, "cuda") == 7);
        kry_registry_close(&registry);
    }
    return NULL;
}

static void decisions_agree_while_registries_open(void **state) {
    (void)state;
    static log_lines log;
    log_init(&log);
    deciding with = {.registry = open_mocks(&log, "seed", NULL)};
    with.device = find_device(with.registry, "cuda:sm_80");
    const char *paths[1] = {mock_path("seed")};
    pthread_t opener;
    assert_int_equal(pthread_create(&opener, NULL, open_many, paths), 0);
    run_threads(decide_many, &with, THREADS);
    pthread_join(opener, NULL);
    assert_int_equal(atomic_load(&failures), 0);
    assert_int_equal(log.warnings, 8); /* of ten shapes two are multiples of 128 */
    kry_registry_close(&with.registry);
}

static void registries_open_at_once(void **state) {
    (void)state;
    const char *paths[1] = {mock_path("seed")};
    run_threads(open_many, paths, THREADS);
}

/* ---- layers -------------------------------------------------------------------------------- */

static void *apply_many(void *argument) {
    const applied_layer *shared = argument;
    applied_layer own = *shared; /* the layer is shared, operands are not */
    size_t n = (size_t)shared->plain.linear.out_features, m = (size_t)shared->args.m;
    own.y = malloc(m * n * sizeof(float));
    own.scratch = aligned_alloc(KRY_ALIGNMENT, 1024);
    own.zeroed = aligned_alloc(KRY_ALIGNMENT, 1024);
    memset(own.zeroed, 0, 1024);
    own.args.y = own.y;
    own.args.scratch = own.scratch;
    own.args.zeroed = own.zeroed;
    for (int i = 0; i < ROUNDS; i++) {
        expect(kry_layer_apply(shared->layer, &own.args) == KRY_OK);
        expect(memcmp(own.y, shared->y, m * n * sizeof(float)) == 0);
    }
    free(own.y);
    free(own.scratch);
    free(own.zeroed);
    return NULL;
}

static void layer_is_applied_from_many_threads(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "dense.so", NULL);
    kry_linear linear = describe(70, 13, 32, KRY_WEIGHT_U4, KRY_TYPE_F32);
    applied_layer layer;
    make_layer(registry, "cpu", &linear, 3, &layer);
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    assert_int_equal(kry_layer_apply(layer.layer, &layer.args), KRY_OK);
    assert_true(error_of(&layer) < 1e-6);
    run_threads(apply_many, &layer, THREADS);
    free_layer(&layer);
    kry_registry_close(&registry);
}

static void *make_many(void *argument) {
    deciding *with = argument;
    kry_linear linear = describe(64, 8, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F32);
    for (int i = 0; i < ROUNDS; i++) {
        kry_layer_args args = KRY_INIT(kry_layer_args);
        args.device = &with->device;
        args.linear = &linear;
        kry_layer *layer = NULL;
        expect(kry_layer_create(with->registry, &args, &layer) == KRY_OK);
        kry_layer_destroy(&layer);
    }
    return NULL;
}

static void layers_are_made_at_once_on_one_device(void **state) {
    (void)state;
    deciding with = {.registry = open_mocks(NULL, "dense.so", NULL)};
    with.device = find_device(with.registry, "cpu");
    run_threads(make_many, &with, THREADS);
    kry_registry_close(&with.registry);
}

static void *fail_many(void *argument) {
    (void)argument;
    char expected[32];
    snprintf(expected, sizeof expected, "of stack %p", (void *)expected);
    for (int i = 0; i < ROUNDS; i++) {
        kry_error_set(KRY_E_STATE, "%s", expected);
        expect(strcmp(kry_error_message(), expected) == 0);
    }
    return NULL;
}

static void error_message_belongs_to_its_thread(void **state) {
    (void)state;
    kry_error_set(KRY_E_STATE, "of the main thread");
    run_threads(fail_many, NULL, THREADS);
    assert_string_equal(kry_error_message(), "of the main thread");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decisions_agree_while_registries_open),
        cmocka_unit_test(registries_open_at_once),
        cmocka_unit_test(layer_is_applied_from_many_threads),
        cmocka_unit_test(layers_are_made_at_once_on_one_device),
        cmocka_unit_test(error_message_belongs_to_its_thread),
    };
    return cmocka_run_group_tests_name("loader threads", tests, NULL, NULL) ? 1 : 0;
}
