/*
 * Clusters and parts of a block. A cluster's barrier is for its live threads, each of which arrives
 * and waits in turn; whole waves come to it and to that of a part. A block's shared memory is there
 * for its peers until it has ended.
 */
#include "clocks.h"
#include "hopper.h"
#include "races.h"

uint32_t simt_cluster_rank(void) { return simt_self->block->rank; }

struct block *simt_peer(uint32_t rank) {
    struct block *cluster = simt_self->block->cluster;
    if (rank >= simt_run.launch.cluster) {
        simt_fail("asks for block %u of a cluster of %u", rank, simt_run.launch.cluster);
    }
    if (!cluster[rank].running || cluster[rank].live == 0) {
        simt_fail("touches the shared memory of block %u of its cluster, which has ended", rank);
    }
    return &cluster[rank];
}

/* ---- the cluster's barrier ----------------------------------------------------------------- */

static uint32_t live_threads(const struct block *cluster) {
    uint32_t live = 0;
    for (uint32_t rank = 0; rank < simt_run.launch.cluster; rank++) {
        live += cluster[rank].running ? cluster[rank].live : 0;
    }
    return live;
}

/* Begin the next phase when all have arrived; whether they have. */
static bool end_phase(struct block *cluster) {
    if (cluster->at_cluster == 0 || cluster->at_cluster != live_threads(cluster)) {
        return false;
    }
    cluster->at_cluster = 0;
    cluster->cluster_phases++;
    cluster->cluster_brings_grid |= cluster->cluster_gathers_grid;
    simt_clocks_cluster_phase(cluster);
    for (uint32_t rank = 0; rank < simt_run.launch.cluster; rank++) {
        if (cluster[rank].running) {
            simt_let_go(cluster[rank].threads, simt_run.launch.block, THREAD_AT_CLUSTER);
        }
    }
    return true;
}

/* All lanes of a wave come together, at the same place: none has ended without, nor come elsewhere
 * as often as this thread. */
static void check_lanes(bool waits) {
    const struct thread *self = simt_self;
    if (self->wave->lanes != simt_run.launch.wave) {
        simt_fail("comes without all lanes of its wave: it has %u of %u", self->wave->lanes,
                  simt_run.launch.wave);
    }
    for (uint32_t i = 0; i < self->wave->lanes; i++) {
        const struct thread *other = &self->wave->threads[i];
        const bool is_as_far = other->cluster_arrivals == self->cluster_arrivals;
        const bool has_come = !waits || other->state == THREAD_AT_CLUSTER ||
                              other->cluster_waits == self->cluster_arrivals;
        if (other->state == THREAD_ENDED && other->cluster_arrivals < self->cluster_arrivals) {
            simt_fail("comes to a barrier of the cluster without thread %u of its wave, which has "
                      "ended",
                      other->index);
        }
        if (is_as_far && has_come &&
            !simt_is_same_place(waits ? other->waited : other->arrived,
                                waits ? self->waited : self->arrived)) {
            simt_fail("comes to another barrier of the cluster than thread %u", other->index);
        }
    }
}

void simt_cluster_arrive(struct simt_place place) {
    struct thread *self = simt_self;
    struct block *cluster = self->block->cluster;
    simt_begin_word(place);
    self->polls = 0;
    if (self->cluster_arrivals != self->cluster_waits) {
        simt_fail("arrives at the cluster's barrier once more before it has waited there");
    }
    self->cluster_arrivals++;
    self->arrived = place;
    check_lanes(false);
    simt_clocks_cluster_arrive(cluster);
    cluster->cluster_gathers_grid |= self->knows_previous_grid;
    cluster->at_cluster++;
    if (end_phase(cluster) || simt_random(2) == 0) { /* others may go on before this thread does */
        simt_make_ready(self);
        simt_give_way();
    }
}

void simt_cluster_wait(struct simt_place place) {
    struct thread *self = simt_self;
    struct block *cluster = self->block->cluster;
    simt_begin_word(place);
    self->polls = 0;
    if (self->cluster_arrivals == self->cluster_waits) {
        simt_fail("waits at the cluster's barrier, where it has not arrived");
    }
    self->waited = place;
    check_lanes(true);
    if (cluster->cluster_phases < self->cluster_arrivals) {
        self->state = THREAD_AT_CLUSTER;
        simt_give_way();
    } else if (simt_random(8) == 0) {
        simt_make_ready(self);
        simt_give_way();
    }
    self->cluster_waits++;
    simt_clocks_cluster_wait(cluster);
    self->knows_previous_grid |= cluster->cluster_brings_grid;
}

void simt_cluster_check_ended(const struct thread *thread) {
    if (thread->cluster_arrivals != thread->cluster_waits) {
        simt_fail("ends where it has arrived at the cluster's barrier and not waited there");
    }
    for (uint32_t i = 0; i < thread->wave->lanes; i++) {
        const enum thread_state state = thread->wave->threads[i].state;
        if (state == THREAD_AT_CLUSTER || state == THREAD_AT_PART) {
            simt_fail("ends where other lanes of the wave wait for it at a barrier");
        }
    }
    if (thread->block->at_part != 0 &&
        (thread->block->part_waves >> thread->index / simt_run.launch.wave & 1) != 0) {
        simt_fail("ends where other threads of its part of the block wait for it at a barrier");
    }
    end_phase(thread->block->cluster);
}

/* ---- a part of the block ------------------------------------------------------------------- */

static void need_whole_wave(void) {
    const struct wave *wave = simt_self->wave;
    if (wave->lanes != simt_run.launch.wave || wave->ended != 0) {
        simt_fail("comes without all lanes of its wave: it has %u of %u, and %u have ended",
                  wave->lanes, simt_run.launch.wave, wave->ended);
    }
}

void simt_part_barrier(struct simt_place place, uint32_t threads) {
    struct thread *self = simt_self;
    struct block *block = self->block;
    const uint32_t all = simt_run.launch.block;
    const uint32_t wave = self->index / simt_run.launch.wave;
    simt_begin_word(place);
    self->polls = 0;
    need_whole_wave();
    if (threads == 0 || threads % simt_run.launch.wave != 0 || threads > all) {
        simt_fail("a part of %u threads is not one of whole waves of the block", threads);
    }
    if (block->at_part != 0 && threads != block->part_threads) {
        simt_fail("comes to a barrier of %u threads where others wait at one of %u", threads,
                  block->part_threads);
    }
    if (block->part_waves != 0 && (block->part_waves >> wave & 1) == 0) {
        simt_fail("is not of the part of the block that met before");
    }
    self->state = THREAD_AT_PART;
    block->part_threads = threads;
    if (++block->at_part == threads) {
        block->at_part = 0;
        block->part_waves = 0;
        for (uint32_t i = 0; i < all; i++) {
            const uint32_t is_here = block->threads[i].state == THREAD_AT_PART;
            block->part_waves |= is_here << i / simt_run.launch.wave;
        }
        simt_races_part_barrier(block);
        if ((uint32_t)__builtin_popcount(block->part_waves) * simt_run.launch.wave != threads) {
            simt_fail("lanes of other waves came instead of all of some");
        }
        simt_clocks_part_barrier(block);
        simt_have_met(block->threads, all, THREAD_AT_PART, SCOPE_BLOCK,
                      simt_know_previous_grid(block->threads, all, THREAD_AT_PART));
        simt_let_go(block->threads, all, THREAD_AT_PART);
    }
    simt_give_way();
}
