/*
 * The time of work on a device's stream.
 */
#include "stream_clock.h"

#include "clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GRAPH_NS = 1000 * 1000,    /* how long a graph takes, at least, */
    TURNS_MOST = 4096,         /* as long as it has no more turns than this */
    STEP_NS = 4 * 1000 * 1000, /* how long a step takes: that it begins and ends costs 10 us */
    TRIALS = 2
};

struct stream_clock {
    const struct device_memory *memory;
    struct cuda *cuda; /* or NULL */
    char trouble[240];
};

struct stream_loop {
    struct stream_clock *clock;
    struct stream_work work;
    void *graph;    /* or NULL */
    size_t turns;   /* of a graph, or enqueued for one wait */
    size_t replays; /* of it in a step */
};

kry_status stream_clock_create(const struct device_memory *memory, struct stream_clock **out) {
    struct stream_clock *clock = calloc(1, sizeof *clock);
    if (clock == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    clock->memory = memory;
    if (strcmp(memory->device->platform, "cuda") != 0)
        snprintf(clock->trouble, sizeof clock->trouble, "no graphs of platform %s are known here",
                 memory->device->platform);
    else if (cuda_open(memory->device, &clock->cuda) != KRY_OK)
        snprintf(clock->trouble, sizeof clock->trouble, "%s", kry_error_message());
    *out = clock;
    return KRY_OK;
}

void stream_clock_destroy(struct stream_clock **clock) {
    struct stream_clock *gone = *clock;
    if (gone == NULL)
        return;
    cuda_close(&gone->cuda);
    free(gone);
    *clock = NULL;
}

struct cuda *stream_clock_cuda(const struct stream_clock *clock) {
    return clock->cuda;
}
const char *stream_clock_trouble(const struct stream_clock *clock) { return clock->trouble; }

static kry_status wait(const struct stream_clock *clock) {
    return clock->cuda != NULL ? cuda_wait(clock->cuda) : device_memory_wait(clock->memory, NULL);
}

static kry_status enqueue(const struct stream_loop *loop, size_t turns) {
    const struct stream_clock *clock = loop->clock;
    void *stream = clock->cuda != NULL ? cuda_stream(clock->cuda) : NULL;
    kry_status status = KRY_OK;
    for (size_t i = 0; i < turns && status == KRY_OK; i++)
        status = loop->work.enqueue(loop->work.context, stream);
    return status;
}

/* ---- taking down --------------------------------------------------------------------- */

/** What a turn takes at most, enqueued one by one: the better of two rounds of all copies. Also
 *  the first run, which loads code and touches memory. Units: ns. */
static kry_status estimate(const struct stream_loop *loop, double *out) {
    kry_status status = enqueue(loop, loop->work.copies);
    if (status == KRY_OK)
        status = wait(loop->clock);
    *out = INFINITY;
    for (int trial = 0; trial < TRIALS && status == KRY_OK; trial++) {
        int64_t begin = clock_now();
        status = enqueue(loop, loop->work.copies);
        if (status == KRY_OK)
            status = wait(loop->clock);
        double turn = (double)(clock_now() - begin) / (double)loop->work.copies;
        *out = fmin(*out, fmax(turn, 1));
    }
    return status;
}

/** Whole rounds of all copies that fill so much time. */
static size_t turns_for(const struct stream_work *work, double turn, double nanoseconds) {
    double rounds = ceil(nanoseconds / turn / (double)work->copies);
    double most = fmax(floor(TURNS_MOST / (double)work->copies), 1);
    return (size_t)fmax(fmin(rounds, most), 1) * work->copies;
}

static kry_status capture(struct stream_loop *loop) {
    struct cuda *cuda = loop->clock->cuda;
    kry_status status = cuda_capture_begin(cuda);
    if (status != KRY_OK)
        return status;
    char message[512];
    status = enqueue(loop, loop->turns);
    snprintf(message, sizeof message, "%s", kry_error_message());
    kry_status ended = cuda_capture_end(cuda, &loop->graph);
    return status != KRY_OK ? kry_error_set(status, "%s", message) : ended;
}

/** Find how many replays fill a step; the first uploads the graph. */
static kry_status pace_replays(struct stream_loop *loop) {
    kry_status status = KRY_OK;
    double took = 0;
    loop->replays = 1;
    for (int trial = 0; trial < 1 + TRIALS && status == KRY_OK; trial++) {
        int64_t begin = clock_now();
        status = cuda_replay(loop->clock->cuda, loop->graph);
        if (status == KRY_OK)
            status = wait(loop->clock);
        took = fmax((double)(clock_now() - begin), 1);
    }
    loop->replays = (size_t)fmax(ceil(STEP_NS / took), 1);
    return status;
}

kry_status stream_loop_create(struct stream_clock *clock, const struct stream_work *work,
                              struct stream_loop **out) {
    struct stream_loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    *loop = (struct stream_loop){.clock = clock, .work = *work, .replays = 1};
    double turn;
    kry_status status = estimate(loop, &turn);
    bool graph = clock->cuda != NULL;
    if (status == KRY_OK)
        loop->turns = turns_for(work, turn, graph ? GRAPH_NS : STEP_NS);
    if (status == KRY_OK && graph)
        status = capture(loop);
    if (status == KRY_OK && graph)
        status = pace_replays(loop);
    if (status == KRY_OK)
        *out = loop;
    else
        stream_loop_destroy(&loop);
    return status;
}

void stream_loop_destroy(struct stream_loop **loop) {
    struct stream_loop *gone = *loop;
    if (gone == NULL)
        return;
    if (gone->graph != NULL)
        cuda_graph_release(gone->clock->cuda, gone->graph);
    free(gone);
    *loop = NULL;
}

/* ---- timing -------------------------------------------------------------------------- */

kry_status stream_loop_step(struct stream_loop *loop, double *turn, size_t *turns) {
    kry_status status = KRY_OK;
    int64_t begin = clock_now();
    for (size_t i = 0; i < loop->replays && status == KRY_OK; i++)
        status = loop->graph != NULL ? cuda_replay(loop->clock->cuda, loop->graph)
                                     : enqueue(loop, loop->turns);
    if (status == KRY_OK)
        status = wait(loop->clock);
    *turns = loop->turns * loop->replays;
    *turn = (double)(clock_now() - begin) / (double)*turns;
    return status;
}
