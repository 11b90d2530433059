/*
 * The check that threads do not meet in a kernel: all of its functions, called at once.
 */
#include "layer.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

enum { CALLERS = 4, ROUNDS = 12, PREPARES_EACH = 3 };

/* A thread that calls again and again. */
struct caller {
    const struct layer *shared; /* that all apply */
    struct layer own;           /* that this thread prepares now and then, with the same weights */
    struct operands operands;
    struct services services;
    double *expected; /* y, as it is alone */
    pthread_t thread;
    pthread_barrier_t *start;
    double worst;       /* difference from it, as a part of what is allowed */
    const char *failed; /* what did, or NULL */
};

static void call_once(struct caller *caller, const struct layer *layer) {
    const struct suite *suite = layer->suite;
    kry_sizes sizes = {.struct_size = sizeof sizes};
    double part;
    if (!accepts(suite->functions, suite->plan->device, layer->linear, NULL))
        caller->failed = "can_implement";
    else if (suite->functions->sizes(suite->plan->device, layer->linear, &sizes) != KRY_OK)
        caller->failed = "sizes";
    operands_reset(layer, &caller->operands);
    if (apply_alone(layer, &caller->operands, &caller->services.host) != KRY_OK)
        caller->failed = "apply";
    compare(layer, &caller->operands, caller->expected, &part);
    if (!(part <= caller->worst))
        caller->worst = part;
}

static void *call_again(void *argument) {
    struct caller *caller = argument;
    pthread_barrier_wait(caller->start);
    for (int round = 0; round < ROUNDS && caller->failed == NULL; round++) {
        bool prepares = round % PREPARES_EACH == 0;
        if (prepares && prepare_alone(&caller->own, &caller->own.given.rows) != KRY_OK)
            caller->failed = "prepare_weights";
        else if (prepares && bind_alone(&caller->own) != KRY_OK)
            caller->failed = "bind";
        else
            call_once(caller, prepares ? &caller->own : caller->shared);
    }
    return NULL;
}

/* Everything that a caller needs, and what it gives alone. */
static bool caller_make(const struct layer *shared, const struct item *item, int i,
                        pthread_barrier_t *start, struct caller *out) {
    *out = (struct caller){.shared = shared, .start = start};
    services_make(&out->services, 1 + i % 2, (uint64_t)i);
    if (!layer_open(shared->suite, item, FIT_LOOSE, &out->own) ||
        !applied(shared, 1 + 5 * i, (uint64_t)i + 1, &out->operands))
        return false;
    out->expected = y_values(shared, &out->operands);
    return out->expected != NULL;
}

static void caller_free(struct caller *caller) {
    free(caller->expected);
    operands_release(&caller->operands);
    layer_close(&caller->own);
}

static void judge(struct suite *suite, const struct caller *caller) {
    if (caller->failed != NULL)
        fail(suite, NULL, "%s failed while other threads called, too", caller->failed);
    else if (!(caller->worst <= 2))
        fail(suite, NULL,
             "y of %" PRId64 " rows differs from what it is alone by %.3g times what is allowed, "
             "while other threads called, too",
             caller->operands.m, caller->worst);
}

void check_threads(struct suite *suite, const struct item *item) {
    struct layer layer;
    struct caller callers[CALLERS] = {0};
    pthread_barrier_t start;
    int made = 0;
    bool good = layer_ready(suite, item, &layer);
    while (made < CALLERS && good) {
        good = caller_make(&layer, item, made, &start, &callers[made]);
        made++;
    }
    if (good && pthread_barrier_init(&start, NULL, CALLERS) == 0) {
        step(suite, "several threads at once", 0);
        for (int i = 0; i < CALLERS; i++)
            if (pthread_create(&callers[i].thread, NULL, call_again, &callers[i]) != 0)
                abort(); /* the others wait for ever */
        for (int i = 0; i < CALLERS; i++) {
            pthread_join(callers[i].thread, NULL);
            judge(suite, &callers[i]);
        }
        pthread_barrier_destroy(&start);
    }
    for (int i = 0; i < made; i++)
        caller_free(&callers[i]);
    layer_close(&layer);
}
