/* A launch: blocks that start, threads that take turns, and the end of both. */
#include "simt.h"

#include <stdlib.h>
#include <string.h>

#include "clocks.h"
#include "hopper.h"
#include "races.h"
#include "state.h"

struct run simt_run;
struct thread *simt_self;

/* Stacks are kept from launch to launch: making one takes longer than most kernels here run. */
static struct simt_fiber *fibers;
static size_t fiber_count;

enum { ORDER_RANDOM, ORDER_PRIORITIES, ORDER_LAST_FIRST, ORDERS };

/* What a seed stands for besides its random numbers: SIMT_SEEDS in a row meet all of it. */
static uint64_t order_of(uint64_t seed) { return seed % ORDERS; }
static bool copies_land_late(uint64_t seed) { return seed / ORDERS % 2 == 0; }
static int poison_of(uint64_t seed) { return seed / ORDERS / 2 % 2 == 0 ? 0xFF : 0; }

uint32_t simt_random(uint32_t bound) {
    uint64_t mixed = simt_run.random += 0x9E3779B97F4A7C15ULL; /* splitmix64 */
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9ULL;
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBULL;
    return (uint32_t)(((mixed ^ mixed >> 31) >> 32) * bound >> 32);
}

void simt_make_ready(struct thread *thread) {
    struct wave *wave = thread->wave;
    thread->state = THREAD_READY;
    wave->ready[wave->ready_count++] = thread;
    simt_run.ready++;
}

bool simt_know_previous_grid(const struct thread *threads, uint32_t count,
                             enum thread_state state) {
    bool knows = false;
    for (uint32_t i = 0; i < count; i++) {
        knows |= threads[i].state == state && threads[i].knows_previous_grid;
    }
    return knows;
}

void simt_have_met(struct thread *threads, uint32_t count, enum thread_state state,
                   enum scope scope, bool knows_previous_grid) {
    for (uint32_t i = 0; i < count; i++) {
        if (threads[i].state == state) {
            threads[i].knows_previous_grid = knows_previous_grid;
            for (uint32_t s = 0; s <= scope; s++) {
                threads[i].met[s]++;
            }
        }
    }
}

void simt_let_go(struct thread *threads, uint32_t count, enum thread_state state) {
    for (uint32_t i = 0; i < count; i++) {
        if (threads[i].state == state) {
            simt_make_ready(&threads[i]);
        }
    }
}

void simt_give_way(void) { simt_fiber_leave(false); }

/* ---- threads ------------------------------------------------------------------------------- */

static void end_block(struct block *block) {
    simt_mbarriers_release(block);
    simt_groups_release(block);
    simt_clocks_release_block(block);
    for (uint32_t i = 0; i < simt_run.launch.block; i++) {
        free(block->threads[i].copies);
        block->threads[i].copies = NULL;
        block->threads[i].copy_capacity = 0;
    }
    simt_races_release_block(block);
    free(block->shared);
    block->shared = NULL;
    block->running = false;
    simt_run.running--;
}

static void run_thread(void *argument) {
    struct thread *thread = argument;
    simt_run.launch.entry(simt_run.launch.argument);
    thread->state = THREAD_ENDED;
    thread->block->live--;
    thread->wave->ended++;
    simt_check_ended(thread);
    simt_fiber_leave(true);
}

/* Shared memory begins at a multiple of 1024 bytes, as where nothing else lies in it on a GPU. */
static bool start_block(struct block *block, uint32_t index) {
    const struct simt_launch *launch = &simt_run.launch;
    if (posix_memalign((void **)&block->shared, 1024, launch->shared_bytes) != 0) {
        block->shared = NULL;
        return false;
    }
    memset(block->shared, poison_of(launch->seed), launch->shared_bytes);
    block->index = index;
    block->live = launch->block;
    block->at_barrier = 0;
    block->at_cluster = 0;
    block->cluster_phases = 0;
    simt_clocks_release_cluster(block);
    block->cluster_gathers_grid = false;
    block->cluster_brings_grid = false;
    block->at_part = 0;
    block->part_waves = 0;
    block->running = true;
    simt_run.running++;
    if (!simt_races_block(block)) {
        return false;
    }
    for (uint32_t w = 0; w < simt_run.waves; w++) {
        struct wave *wave = &block->waves[w];
        const uint32_t first = w * launch->wave;
        *wave = (struct wave){.threads = &block->threads[first], .priority = simt_random(1U << 30)};
        wave->lanes = launch->block - first < launch->wave ? launch->block - first : launch->wave;
        for (uint32_t lane = 0; lane < wave->lanes; lane++) {
            struct thread *thread = &wave->threads[lane];
            *thread = (struct thread){
                .fiber = thread->fiber, .block = block, .wave = wave, .index = first + lane};
            if (!simt_fiber_prepare(thread->fiber, run_thread, thread)) {
                return false;
            }
            simt_make_ready(thread);
        }
    }
    if (launch->cluster > 1) {
        simt_clocks_begin(block);
    }
    return !simt_run.failed;
}

static bool is_any_running(const struct block *cluster) {
    for (uint32_t rank = 0; rank < simt_run.launch.cluster; rank++) {
        if (cluster[rank].running) {
            return true;
        }
    }
    return false;
}

/* Fill the places in flight, a cluster at a time. */
static bool start_blocks(void) {
    const uint32_t size = simt_run.launch.cluster;
    for (uint32_t slot = 0; slot < simt_run.slots; slot += size) {
        struct block *cluster = &simt_run.blocks[slot];
        if (simt_run.started == simt_run.launch.grid || is_any_running(cluster)) {
            continue;
        }
        const uint32_t first = simt_run.order[simt_run.started / size] * size;
        for (uint32_t rank = 0; rank < size; rank++) {
            cluster[rank].cluster = cluster;
            cluster[rank].rank = rank;
            simt_run.started++;
            if (!start_block(&cluster[rank], first + rank)) {
                return false;
            }
        }
    }
    return true;
}

/* ---- turns --------------------------------------------------------------------------------- */

static struct thread *take(struct wave *wave, uint32_t at) {
    struct thread *thread = wave->ready[at];
    wave->ready[at] = wave->ready[--wave->ready_count];
    simt_run.ready--;
    return thread;
}

static struct thread *take_random(void) {
    uint32_t left = simt_random(simt_run.ready);
    for (uint32_t slot = 0;; slot++) {
        struct block *block = &simt_run.blocks[slot];
        for (uint32_t w = 0; block->running && w < simt_run.waves; w++) {
            if (left < block->waves[w].ready_count) {
                return take(&block->waves[w], left);
            }
            left -= block->waves[w].ready_count;
        }
    }
}

/* The wave that is ready and goes first: by priority, or the last one. */
static struct wave *leading_wave(bool by_priority) {
    struct wave *leading = NULL;
    for (uint32_t slot = 0; slot < simt_run.slots; slot++) {
        struct block *block = &simt_run.blocks[slot];
        for (uint32_t w = 0; block->running && w < simt_run.waves; w++) {
            struct wave *wave = &block->waves[w];
            if (wave->ready_count != 0 &&
                (leading == NULL || !by_priority || wave->priority > leading->priority)) {
                leading = wave;
            }
        }
    }
    return leading;
}

static struct thread *take_by_priority(void) {
    struct wave *wave = leading_wave(true);
    if (simt_random(simt_run.change_period) == 0) {
        wave->priority = simt_random(1U << 30);
    }
    return take(wave, simt_random(wave->ready_count));
}

static struct thread *take_last(void) {
    struct wave *wave = leading_wave(false);
    uint32_t last = 0;
    for (uint32_t i = 1; i < wave->ready_count; i++) {
        if (wave->ready[i]->index > wave->ready[last]->index) {
            last = i;
        }
    }
    return take(wave, last);
}

/* Threads that poll a counter go on when it has changed; `all`: in any case, a few times. */
static void wake_polling(bool all) {
    enum { TRIES = 8 };
    for (uint32_t slot = 0; slot < simt_run.slots; slot++) {
        struct block *block = &simt_run.blocks[slot];
        for (uint32_t i = 0; block->running && i < simt_run.launch.block; i++) {
            struct thread *thread = &block->threads[i];
            if (thread->state == THREAD_POLLING &&
                (*thread->polled != thread->polled_value || (all && thread->polls < TRIES))) {
                simt_run.polling--;
                simt_make_ready(thread);
            }
        }
    }
}

/* The block that a report on a launch at a standstill is about: one that polls, or the first. */
static const struct block *stuck_block(void) {
    const struct block *stuck = NULL;
    for (uint32_t slot = simt_run.slots; slot-- > 0;) {
        const struct block *block = &simt_run.blocks[slot];
        for (uint32_t i = 0; block->running && i < simt_run.launch.block; i++) {
            if (stuck == NULL || block->threads[i].state == THREAD_POLLING) {
                stuck = block;
            }
        }
    }
    return stuck;
}

static void report_standstill(void) {
    const uint32_t waiting = simt_run.launch.grid - simt_run.started;
    if (simt_run.polling != 0) {
        simt_report(stuck_block(),
                    "waits for another thread to change a counter, and nobody can go on; "
                    "%u blocks are in flight and %u of the grid have not begun",
                    simt_run.running, waiting);
    } else {
        simt_report(stuck_block(), "deadlock: every thread waits for another one");
        simt_mbarriers_report();
    }
}

/* Let what goes on besides the threads go on; false, and a report, where nobody can. */
static bool is_anyone_ready(void) {
    if (simt_run.polling != 0 && (simt_run.ready == 0 || simt_random(8) == 0)) {
        wake_polling(false);
    }
    if (simt_run.bulk_count != 0 && !simt_run.copies_land_late && simt_random(16) == 0) {
        simt_bulk_land(false);
    }
    while (simt_run.ready == 0 && !simt_run.failed && simt_bulk_land(true)) {
    }
    if (simt_run.ready == 0) {
        wake_polling(true);
    }
    if (simt_run.ready == 0 && !simt_run.failed) {
        report_standstill();
    }
    return !simt_run.failed;
}

static void take_turns(void) {
    while (simt_run.running != 0 && !simt_run.failed) {
        if (!is_anyone_ready()) {
            return;
        }
        const uint64_t order = order_of(simt_run.launch.seed);
        simt_self = order == ORDER_RANDOM       ? take_random()
                    : order == ORDER_PRIORITIES ? take_by_priority()
                                                : take_last();
        simt_fiber_resume(simt_self->fiber);
        if (simt_run.failed) {
            return; /* with its report */
        }
        struct block *block = simt_self->block;
        if (block->live == 0) {
            end_block(block);
            if (!start_blocks()) {
                simt_report(NULL, "no memory for another block");
            }
        }
    }
}

/* ---- the launch ---------------------------------------------------------------------------- */

static void release(void) {
    for (uint32_t slot = 0; simt_run.blocks != NULL && slot < simt_run.slots; slot++) {
        struct block *block = &simt_run.blocks[slot];
        if (block->running) {
            end_block(block);
        }
        simt_clocks_release_cluster(block);
        free(block->threads);
        free(block->waves);
    }
    simt_races_release();
    simt_clocks_release();
    simt_bulk_release();
    free(simt_run.blocks);
    free(simt_run.order);
    simt_self = NULL;
}

static bool make_fibers(size_t count) {
    if (count > fiber_count) {
        struct simt_fiber *more = realloc(fibers, count * sizeof *more);
        if (more == NULL) {
            return false;
        }
        memset(more + fiber_count, 0, (count - fiber_count) * sizeof *more);
        fibers = more;
        fiber_count = count;
    }
    return true;
}

static bool make_blocks(void) {
    const struct simt_launch *launch = &simt_run.launch;
    simt_run.blocks = calloc(simt_run.slots, sizeof *simt_run.blocks);
    simt_run.order = calloc(launch->grid, sizeof *simt_run.order);
    if (simt_run.blocks == NULL || simt_run.order == NULL ||
        !make_fibers((size_t)simt_run.slots * launch->block)) {
        return false;
    }
    for (uint32_t i = 0; i < launch->grid / launch->cluster; i++) { /* shuffled from inside */
        const uint32_t at = simt_random(i + 1);
        simt_run.order[i] = simt_run.order[at];
        simt_run.order[at] = i;
    }
    for (uint32_t slot = 0; slot < simt_run.slots; slot++) {
        struct block *block = &simt_run.blocks[slot];
        block->threads = calloc(launch->block, sizeof *block->threads);
        block->waves = calloc(simt_run.waves, sizeof *block->waves);
        if (block->threads == NULL || block->waves == NULL) {
            return false;
        }
        for (uint32_t i = 0; i < launch->block; i++) {
            block->threads[i].fiber = &fibers[(size_t)slot * launch->block + i];
        }
    }
    return true;
}

const char *simt_launch(const struct simt_launch *launch) {
    memset(&simt_run, 0, sizeof simt_run);
    simt_run.launch = *launch;
    simt_run.random = launch->seed;
    if (launch->wave == 0) {
        simt_run.launch.wave = 32;
    }
    simt_run.copies_land_late = copies_land_late(launch->seed);
    simt_run.change_period = 64U << 4 * simt_random(4);
    if (launch->cluster == 0) {
        simt_run.launch.cluster = 1;
    }
    const uint32_t cluster = simt_run.launch.cluster;
    if (launch->block == 0 || launch->block > 1024 || simt_run.launch.wave > SIMT_LANES) {
        simt_report(NULL, "a block of %u threads in waves of %u cannot be launched", launch->block,
                    simt_run.launch.wave);
        return simt_run.message;
    }
    if (cluster > SIMT_CLUSTER || launch->grid % cluster != 0) {
        simt_report(NULL, "a grid of %u blocks in clusters of %u cannot be launched", launch->grid,
                    cluster);
        return simt_run.message;
    }
    simt_run.waves = (launch->block + simt_run.launch.wave - 1) / simt_run.launch.wave;
    simt_run.slots = launch->resident == 0 ? 1 + simt_random(3) : launch->resident;
    if (simt_run.slots > launch->grid) {
        simt_run.slots = launch->grid;
    }
    simt_run.slots = (simt_run.slots + cluster - 1) / cluster * cluster;
    if (!simt_races_launch() || !make_blocks() || !start_blocks()) {
        simt_report(NULL, "no memory for a block");
    }
    take_turns();
    release();
    return simt_run.failed ? simt_run.message : NULL;
}
