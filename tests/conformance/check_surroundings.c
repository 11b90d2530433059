/*
 * The check that calls leave the thread as they found it: how it rounds, whether it flushes
 * denormals, which signals it blocks. A kernel that changes one changes its host's arithmetic, or
 * takes its signals away.
 */
#include "layer.h"

#include <fenv.h>
#include <float.h>
#include <pthread.h>
#include <signal.h>

enum { SIGNALS = 64 };

struct surroundings {
    int rounding;
    bool denormals; /* are kept */
    sigset_t blocked;
};

static struct surroundings look(void) {
    struct surroundings seen = {.rounding = fegetround()};
    volatile float least = FLT_MIN;
    volatile float half = least / 2;
    seen.denormals = half != 0;
    pthread_sigmask(SIG_BLOCK, NULL, &seen.blocked);
    return seen;
}

static bool block_alike(const sigset_t *a, const sigset_t *b) {
    for (int number = 1; number <= SIGNALS; number++)
        if (sigismember(a, number) != sigismember(b, number))
            return false;
    return true;
}

static void expect_as(struct suite *suite, const struct surroundings *before, const char *called) {
    struct surroundings after = look();
    if (after.rounding != before->rounding)
        fail(suite, NULL, "%s left the thread rounding in another direction", called);
    else if (after.denormals != before->denormals)
        fail(suite, NULL, "%s left the thread %s denormals", called,
             after.denormals ? "no longer flushing" : "flushing");
    else if (!block_alike(&before->blocked, &after.blocked))
        fail(suite, NULL, "%s left other signals blocked", called);
}

/* The least that is asked, prepared and applied, from a thread that rounds like that. */
static void call_all(struct suite *suite, const struct item *item, int rounding) {
    struct layer layer;
    struct operands operands;
    struct services services;
    services_make(&services, 1, 0); /* tasks run here, where they are watched */
    fesetround(rounding);
    const struct surroundings before = look();
    accepts(suite->functions, suite->plan->device, &item->linear, NULL);
    expect_as(suite, &before, "can_implement");
    if (layer_open(suite, item, FIT_LOOSE, &layer)) {
        expect_as(suite, &before, "sizes");
        bool good = layer_prepare(&layer, &layer.given.rows);
        expect_as(suite, &before, "prepare_weights");
        good = good && layer_bind(&layer);
        expect_as(suite, &before, "bind");
        if (good && operands_get(&layer, 1 + item->number % 9, NULL, 1, &operands)) {
            apply(&layer, &operands, &services.host);
            expect_as(suite, &before, "apply");
            operands_release(&operands);
        }
    }
    layer_close(&layer);
    fesetround(FE_TONEAREST);
}

void check_surroundings(struct suite *suite, const struct item *item) {
    call_all(suite, item, FE_TONEAREST);
    if (!suite->case_failed && !suite->case_blocked)
        call_all(suite, item, FE_DOWNWARD); /* which nobody puts back by chance */
}
