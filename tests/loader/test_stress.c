/*
 * Sixteen threads that open registries, decide, make layers, apply, reload, save, map and close,
 * all at once and for as long as KERNELRY_STRESS_SECONDS says (2 where it says nothing). What a
 * race would spoil is compared; ThreadSanitizer sees the rest.
 */
#include "fixture.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 16, ROWS = 3, SETS = 2 };
enum { OPEN, DECIDE, LIVE, APPLY, RELOAD, RENEW, SAVE, ACTIONS };
static const char *const words[ACTIONS] = {"opened",   "decided", "lived", "applied",
                                           "reloaded", "renewed", "saved"};

/* What a layer of the description gives for the same x, with either set of weights. */
static kry_linear linear;
static plain_weights plain[SETS];
static stored_weights stored[SETS];
static float *x, *expected[SETS];
static size_t y_bytes;

/* A registry that is replaced by a fresh one now and then, and a layer that is reloaded in place:
 * those who use them hold the lock for reading. */
static pthread_rwlock_t current_lock = PTHREAD_RWLOCK_INITIALIZER;
static kry_registry *current;
static pthread_rwlock_t shared_lock = PTHREAD_RWLOCK_INITIALIZER;
static kry_layer *shared;
static int shared_set;

static char paths[3][FIXTURE_PATH], folder[FIXTURE_PATH];
static atomic_long done[ACTIONS];
static atomic_bool stop;

/* cmocka's assertions belong to the main thread: the others count what went wrong. */
static atomic_int failures;
static atomic_int first_failure; /* its line */

static void expect_at(bool truth, int line) {
    int none = 0;
    if (truth)
        return;
    atomic_fetch_add(&failures, 1);
    atomic_compare_exchange_strong(&first_failure, &none, line);
}
#define expect(truth) expect_at((truth), __LINE__)

typedef struct worker {
    pthread_t thread;
    uint32_t random; /* of its own sequence */
    float *y;
    void *scratch, *zeroed;
} worker;

static uint32_t next_random(worker *own) {
    own->random = own->random * UINT32_C(1664525) + UINT32_C(1013904223);
    return own->random >> 8;
}

static kry_status open_all(kry_registry **out) {
    const char *list[3] = {paths[0], paths[1], paths[2]};
    kry_registry_options options = closed_options(list, 3);
    return kry_registry_open(&options, out);
}

static kry_status prepare(kry_layer *layer, int set) {
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    args.weights = &stored[set].weights;
    return kry_layer_prepare(layer, &args);
}

static void apply(worker *own, const kry_layer *layer, int set) {
    kry_apply_args args = KRY_INIT(kry_apply_args);
    args.m = ROWS;
    args.x = x;
    args.y = own->y;
    args.scratch = own->scratch;
    args.zeroed = own->zeroed;
    args.scratch_bytes = args.zeroed_bytes = 64;
    memset(own->y, 0xff, y_bytes);
    expect(kry_layer_apply(layer, &args) == KRY_OK);
    expect(memcmp(own->y, expected[set], y_bytes) == 0);
}

static kry_layer *create(kry_registry *in) {
    kry_device device = KRY_INIT(kry_device);
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    kry_layer *layer = NULL;
    expect(kry_registry_find_device(in, "cpu", &device) == KRY_OK);
    expect(kry_layer_create(in, &args, &layer) == KRY_OK);
    return layer;
}

/* ---- what the threads do ------------------------------------------------------------------- */

static void open_and_close(void) {
    kry_registry *own = NULL;
    expect(open_all(&own) == KRY_OK);
    expect(kry_registry_kernel_count(own, "cuda") == 7);
    expect(kry_registry_kernel_count(own, "cpu") == 1);
    kry_registry_close(&own);
}

static void decide_once(worker *own) {
    kry_device device = KRY_INIT(kry_device);
    kry_decision_info info = KRY_INIT(kry_decision_info);
    kry_decision *decision = NULL;
    kry_linear asked = describe(2112 + 32 * (int64_t)(next_random(own) % 10), 2816, 32,
                                KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
    pthread_rwlock_rdlock(&current_lock);
    expect(kry_registry_find_device(current, "cuda:sm_80", &device) == KRY_OK);
    expect(kry_decide(current, &device, &asked, &decision) == KRY_OK);
    pthread_rwlock_unlock(&current_lock);
    expect(decision != NULL && kry_decision_describe(decision, &info) == KRY_OK);
    expect(info.chosen == (asked.in_features % 128 == 0 ? 3 : 6));
    kry_decision_destroy(&decision);
}

/* A layer's whole life, which may outlast its registry's. */
static void live(worker *own) {
    pthread_rwlock_rdlock(&current_lock);
    kry_layer *layer = create(current);
    pthread_rwlock_unlock(&current_lock);
    for (int i = 0; i < 3; i++) {
        int set = (int)(next_random(own) % SETS);
        expect(prepare(layer, set) == KRY_OK);
        apply(own, layer, set);
    }
    kry_layer_destroy(&layer);
}

static void apply_shared(worker *own) {
    pthread_rwlock_rdlock(&shared_lock);
    apply(own, shared, shared_set);
    pthread_rwlock_unlock(&shared_lock);
}

static void reload_shared(worker *own) {
    pthread_rwlock_wrlock(&shared_lock);
    shared_set = (int)(next_random(own) % SETS);
    expect(prepare(shared, shared_set) == KRY_OK);
    pthread_rwlock_unlock(&shared_lock);
}

static void renew(void) {
    kry_registry *fresh = NULL;
    expect(open_all(&fresh) == KRY_OK);
    pthread_rwlock_wrlock(&current_lock);
    kry_registry *old = current;
    current = fresh;
    pthread_rwlock_unlock(&current_lock);
    kry_registry_close(&old);
}

/* All save to one path: whoever maps finds one of the files whole. */
static void save_and_map(worker *own) {
    char path[FIXTURE_PATH + 16];
    snprintf(path, sizeof path, "%s/layer.kry", folder);
    kry_save_args save = KRY_INIT(kry_save_args);
    kry_map_args map = KRY_INIT(kry_map_args);
    save.path = map.path = path;
    save.content = map.content = "set 0";
    pthread_rwlock_rdlock(&current_lock);
    kry_layer *layer = create(current);
    pthread_rwlock_unlock(&current_lock);
    expect(prepare(layer, 0) == KRY_OK);
    expect(kry_layer_save(layer, &save) == KRY_OK);
    expect(prepare(layer, 1) == KRY_OK);
    expect(kry_layer_map(layer, &map) == KRY_OK);
    apply(own, layer, 0);
    kry_layer_destroy(&layer);
}

static void *work(void *argument) {
    /* Of sixteen draws: what is quick more often than what loads or writes files. */
    static const int actions[16] = {OPEN,  DECIDE, DECIDE, DECIDE, LIVE,   LIVE,  LIVE,   APPLY,
                                    APPLY, APPLY,  APPLY,  APPLY,  RELOAD, RENEW, DECIDE, SAVE};
    worker *own = argument;
    while (!atomic_load(&stop)) {
        int action = actions[next_random(own) % 16];
        switch (action) {
        case OPEN:
            open_and_close();
            break;
        case DECIDE:
            decide_once(own);
            break;
        case LIVE:
            live(own);
            break;
        case APPLY:
            apply_shared(own);
            break;
        case RELOAD:
            reload_shared(own);
            break;
        case RENEW:
            renew();
            break;
        default:
            save_and_map(own);
        }
        atomic_fetch_add(&done[action], 1);
    }
    return NULL;
}

/* ---- the test ------------------------------------------------------------------------------- */

static void draw_everything(void) {
    linear = small_layer();
    size_t n = (size_t)linear.out_features, k = (size_t)linear.in_features;
    y_bytes = ROWS * n * sizeof(float);
    x = make_room(ROWS * k * sizeof(float));
    for (size_t i = 0; i < ROWS * k; i++)
        x[i] = draw_float();
    applied_layer layer;
    kry_registry *opened = open_mocks(NULL, "dense.so", NULL);
    make_layer(opened, "cpu", &linear, ROWS, &layer);
    for (int set = 0; set < SETS; set++) {
        plain[set] = draw_weights(&linear);
        store_weights(&plain[set], &(storage){.weight_axis = KRY_AXIS_K, .zero_axis = KRY_AXIS_N},
                      &stored[set]);
        assert_int_equal(prepare(layer.layer, set), KRY_OK);
        layer.args.x = x;
        layer.args.bias = NULL;
        assert_int_equal(apply_layer(&layer), KRY_OK);
        expected[set] = memcpy(make_room(y_bytes), layer.y, y_bytes);
    }
    assert_memory_not_equal(expected[0], expected[1], y_bytes);
    free_layer(&layer);
    kry_registry_close(&opened);
}

static void release_everything(void) {
    for (int set = 0; set < SETS; set++) {
        free_weights(&plain[set]);
        free_stored(&stored[set]);
        free(expected[set]);
    }
    free(x);
}

static double stress_seconds(void) {
    const char *text = getenv("KERNELRY_STRESS_SECONDS");
    double seconds = text != NULL ? strtod(text, NULL) : 2;
    return seconds > 0 ? seconds : 2;
}

static void everything_at_once_from_many_threads_is_right(void **state) {
    (void)state;
    static worker workers[THREADS];
    snprintf(paths[0], sizeof paths[0], "%s", mock_path("seed"));
    snprintf(paths[1], sizeof paths[1], "%s", mock_path("dense.so"));
    snprintf(paths[2], sizeof paths[2], "%s", mock_path("missing_symbol.so"));
    snprintf(folder, sizeof folder, "%s", scratch_folder());
    draw_everything();
    assert_int_equal(open_all(&current), KRY_OK);
    shared = create(current);
    assert_int_equal(prepare(shared, 0), KRY_OK);
    double seconds = stress_seconds();
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.random = (uint32_t)i,
                              .y = make_room(y_bytes),
                              .scratch = make_room(64),
                              .zeroed = memset(make_room(64), 0, 64)};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    usleep((useconds_t)(seconds * 1e6));
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        free(workers[i].y);
        free(workers[i].scratch);
        free(workers[i].zeroed);
    }
    kry_layer_destroy(&shared);
    kry_registry_close(&current);
    release_everything();
    printf("%d threads, %.0f s:", THREADS, seconds);
    for (int i = 0; i < ACTIONS; i++)
        printf(" %s %ld", words[i], atomic_load(&done[i]));
    printf("\n");
    if (atomic_load(&failures) > 0)
        fail_msg("%d failures, the first at line %d", atomic_load(&failures),
                 atomic_load(&first_failure));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_at_once_from_many_threads_is_right),
    };
    return cmocka_run_group_tests_name("loader stress", tests, NULL, NULL) ? 1 : 0;
}
