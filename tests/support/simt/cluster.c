/*
 * Clusters and parts of a block. A cluster's barrier is for its live threads; whole waves come to
 * it and to that of a part. A block's shared memory is there for its peers until it has ended.
 */
#include <string.h>

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

void simt_load_peer(struct simt_place place, const void *shared, uint32_t rank, void *to) {
    enum { BYTES = 16 };
    simt_begin_word(place);
    simt_need_aligned(place, shared, BYTES);
    const uintptr_t at = (uintptr_t)shared - (uintptr_t)simt_shared();
    if (at > simt_run.launch.shared_bytes || simt_run.launch.shared_bytes - at < BYTES) {
        simt_fail("the address %p is not shared memory", shared);
    }
    simt_make_ready(simt_self);
    simt_give_way(); /* the peer may end first */
    struct block *peer = simt_peer(rank);
    simt_clocks_read(peer, (uint32_t)at, BYTES);
    memcpy(to, peer->shared + at, BYTES);
}

/* ---- the cluster's barrier ----------------------------------------------------------------- */

static void complete_cluster(struct block *cluster) {
    const uint32_t threads = simt_run.launch.block;
    const uint32_t size = simt_run.launch.cluster;
    bool knows = false;
    cluster->at_cluster = 0;
    simt_clocks_cluster_barrier(cluster);
    for (uint32_t rank = 0; rank < size; rank++) {
        if (cluster[rank].running) {
            simt_races_barrier(&cluster[rank]);
            knows |= simt_know_previous_grid(cluster[rank].threads, threads, THREAD_AT_CLUSTER);
        }
    }
    for (uint32_t rank = 0; rank < size; rank++) {
        if (cluster[rank].running) {
            simt_have_met(cluster[rank].threads, threads, THREAD_AT_CLUSTER, SCOPE_CLUSTER, knows);
            simt_let_go(cluster[rank].threads, threads, THREAD_AT_CLUSTER);
        }
    }
}

static uint32_t live_threads(const struct block *cluster) {
    uint32_t live = 0;
    for (uint32_t rank = 0; rank < simt_run.launch.cluster; rank++) {
        live += cluster[rank].running ? cluster[rank].live : 0;
    }
    return live;
}

static void need_whole_wave(void) {
    const struct wave *wave = simt_self->wave;
    if (wave->lanes != simt_run.launch.wave || wave->ended != 0) {
        simt_fail("comes without all lanes of its wave: it has %u of %u, and %u have ended",
                  wave->lanes, simt_run.launch.wave, wave->ended);
    }
}

void simt_cluster_barrier(struct simt_place place) {
    struct thread *self = simt_self;
    struct block *cluster = self->block->cluster;
    simt_begin_word(place);
    self->polls = 0;
    need_whole_wave();
    for (uint32_t i = 0; i < self->wave->lanes; i++) {
        const struct thread *other = &self->wave->threads[i];
        if (other->state == THREAD_AT_CLUSTER && !simt_is_same_place(other->place, place)) {
            simt_fail("comes to another barrier of the cluster than thread %u", other->index);
        }
    }
    self->state = THREAD_AT_CLUSTER;
    if (++cluster->at_cluster == live_threads(cluster)) {
        complete_cluster(cluster);
    }
    simt_give_way();
}

void simt_cluster_check_ended(const struct thread *thread) {
    struct block *cluster = thread->block->cluster;
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
    if (cluster->at_cluster != 0 && cluster->at_cluster == live_threads(cluster)) {
        complete_cluster(cluster);
    }
}

/* ---- a part of the block ------------------------------------------------------------------- */

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
