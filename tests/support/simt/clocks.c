/* What each thread has seen of the others; see clocks.h. */
#include <stdlib.h>
#include <string.h>

#include "clocks_index.h"

static uint32_t *joint; /* what those who meet have seen */

/* ---- what is seen -------------------------------------------------------------------------- */

static void raise(uint32_t *restrict to, const uint32_t *restrict from, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        to[i] = to[i] > from[i] ? to[i] : from[i];
    }
}

static void raise_one(uint32_t *to, uint32_t value) { *to = *to > value ? *to : value; }

/* What a thread did and has seen so far goes to a clock. */
static void release(struct thread *thread, uint32_t *clock) {
    const struct block *block = thread->block;
    raise(clock, thread->seen, simt_length());
    raise_one(&clock[simt_index_of(thread)], ++thread->tick);
    for (uint32_t w = 0; w < simt_run.waves; w++) {
        raise_one(&clock[simt_wave_of(block, w)], block->epoch * WAVE_EPOCHS);
    }
    raise_one(&clock[simt_wave_of(block, (uint32_t)(thread->wave - block->waves))],
              simt_epoch_of(thread));
}

static void note_news(struct thread *thread) {
    thread->wave->has_news = true;
    thread->block->has_news = true;
}

/* Threads in this state see what each of them has seen, and `released`, did. */
static void gather(struct thread *threads, uint32_t count, enum thread_state state, bool released) {
    for (uint32_t i = 0; i < count; i++) {
        if (threads[i].state == state && released) {
            release(&threads[i], joint);
        } else if (threads[i].state == state) {
            raise(joint, threads[i].seen, simt_length());
        }
    }
}

static void spread(struct thread *threads, uint32_t count, enum thread_state state) {
    for (uint32_t i = 0; i < count; i++) {
        if (threads[i].state == state) {
            memcpy(threads[i].seen, joint, simt_length() * sizeof *joint);
        }
    }
}

static void begin_meeting(void) { memset(joint, 0, simt_length() * sizeof *joint); }

/* What threads of the block did is in the block's epoch, and in the wave's. */
void simt_clocks_barrier(struct block *block) {
    if (block->clocks != NULL && block->has_news) {
        begin_meeting();
        gather(block->threads, simt_run.launch.block, THREAD_AT_BARRIER, false);
        spread(block->threads, simt_run.launch.block, THREAD_AT_BARRIER);
        block->has_news = false;
        for (uint32_t w = 0; w < simt_run.waves; w++) {
            block->waves[w].has_news = false;
        }
    }
}

void simt_clocks_wave_barrier(struct wave *wave) {
    if (wave->threads[0].block->clocks != NULL && wave->has_news) {
        begin_meeting();
        gather(wave->threads, wave->lanes, THREAD_IN_WAVE, false);
        spread(wave->threads, wave->lanes, THREAD_IN_WAVE);
        wave->has_news = false;
    }
}

bool simt_clocks_order(uint32_t block, uint32_t thread, uint32_t epoch) {
    const struct thread *self = simt_self;
    const uint32_t rank = block - self->block->cluster->index;
    const uint32_t wave = thread / simt_run.launch.wave;
    return self->seen != NULL && rank < simt_run.launch.cluster &&
           (self->seen[simt_wave_of(&self->block->cluster[rank], wave)] > epoch ||
            self->seen[simt_arrivals_of(&self->block->cluster[rank], wave)] > epoch);
}

void simt_clocks_part_barrier(struct block *block) {
    simt_clocks_begin(block);
    if (block->clocks != NULL) {
        begin_meeting();
        gather(block->threads, simt_run.launch.block, THREAD_AT_PART, true);
        spread(block->threads, simt_run.launch.block, THREAD_AT_PART);
        block->has_news = true;
    }
}

/* What those who have arrived at a cluster's barrier did, in this phase and in those before. */
struct cluster_clock {
    uint32_t *gathered;
    uint32_t *released;
};

/* Accesses to global memory have no tick, so all of the wave's epoch is taken as before the
 * arrival: what its lanes do behind it is not told apart until the next barrier. */
void simt_clocks_cluster_arrive(struct block *cluster) {
    struct thread *self = simt_self;
    const uint32_t wave = (uint32_t)(self->wave - self->block->waves);
    simt_clocks_begin(self->block);
    if (cluster->cluster_clock != NULL) {
        release(self, cluster->cluster_clock->gathered);
        raise_one(&cluster->cluster_clock->gathered[simt_arrivals_of(self->block, wave)],
                  simt_epoch_of(self) + 1);
    }
}

void simt_clocks_cluster_phase(struct block *cluster) {
    const struct cluster_clock *clock = cluster->cluster_clock;
    if (clock != NULL) {
        memcpy(clock->released, clock->gathered, simt_length() * sizeof *clock->released);
    }
}

void simt_clocks_cluster_wait(const struct block *cluster) {
    if (cluster->cluster_clock != NULL) {
        raise(simt_self->seen, cluster->cluster_clock->released, simt_length());
        note_news(simt_self);
    }
}

void simt_clocks_mbarrier(struct mbarrier *mbarrier) {
    simt_clocks_begin(mbarrier->block);
    if (mbarrier->block->clocks != NULL) {
        mbarrier->gathered = calloc(simt_length(), sizeof *mbarrier->gathered);
        mbarrier->released = calloc(simt_length(), sizeof *mbarrier->released);
        if (mbarrier->gathered == NULL || mbarrier->released == NULL) {
            simt_fail("no memory to watch an mbarrier");
        }
    }
}

void simt_clocks_arrive(struct mbarrier *mbarrier) {
    if (mbarrier->gathered != NULL) {
        release(simt_self, mbarrier->gathered);
    }
}

void simt_clocks_phase(struct mbarrier *mbarrier) {
    if (mbarrier->gathered != NULL) {
        raise(mbarrier->released, mbarrier->gathered, simt_length());
        memset(mbarrier->gathered, 0, simt_length() * sizeof *mbarrier->gathered);
        mbarrier->released[simt_agent_of(mbarrier->block, simt_mbarrier_index(mbarrier))] =
            mbarrier->phases;
    }
}

void simt_clocks_wait(const struct mbarrier *mbarrier) {
    if (mbarrier->released != NULL) {
        raise(simt_self->seen, mbarrier->released, simt_length());
        note_news(simt_self);
    }
}

void simt_clocks_batches(struct thread *threads, uint32_t before) {
    const struct block *block = threads->block;
    const uint32_t group = threads->index / SIMT_GROUP;
    for (uint32_t i = 0; block->clocks != NULL && i < SIMT_GROUP; i++) {
        const uint32_t wave = threads[i].index / simt_run.launch.wave;
        raise_one(&threads[i].seen[simt_agent_of(block, SIMT_MBARRIERS + group)], before);
        raise_one(&threads[i].seen[simt_waits_of(block, wave)], ++threads[i].group_waits);
        note_news(&threads[i]);
    }
}

/* ---- beginnings and ends ------------------------------------------------------------------- */

/* Its threads may wait for a phase that is over when the first block has ended. */
void simt_clocks_release_cluster(struct block *cluster) {
    if (cluster->cluster_clock != NULL) {
        free(cluster->cluster_clock->gathered);
        free(cluster->cluster_clock->released);
    }
    free(cluster->cluster_clock);
    cluster->cluster_clock = NULL;
}

static bool make_cluster_clock(struct block *cluster) {
    cluster->cluster_clock = calloc(1, sizeof *cluster->cluster_clock);
    if (cluster->cluster_clock == NULL) {
        return false;
    }
    cluster->cluster_clock->gathered = calloc(simt_length(), sizeof(uint32_t));
    cluster->cluster_clock->released = calloc(simt_length(), sizeof(uint32_t));
    return cluster->cluster_clock->gathered != NULL && cluster->cluster_clock->released != NULL;
}

void simt_clocks_begin(struct block *block) {
    if (!simt_races_are_on() || block->clocks != NULL) {
        return;
    }
    const uint32_t threads = simt_run.launch.block;
    if (joint == NULL) {
        joint = calloc(simt_length(), sizeof *joint);
    }
    block->clocks = calloc(1, sizeof *block->clocks);
    if (block->clocks != NULL) {
        block->clocks->cells = simt_cells_make(simt_run.launch.shared_bytes);
        block->clocks->seen = calloc((size_t)threads * simt_length(), sizeof *block->clocks->seen);
    }
    if (joint == NULL || block->clocks == NULL || block->clocks->cells == NULL ||
        block->clocks->seen == NULL) {
        simt_report(block, "no memory to watch accesses");
        return;
    }
    if (block->rank == 0 && !make_cluster_clock(block)) {
        simt_report(block, "no memory to watch a cluster");
        return;
    }
    for (uint32_t i = 0; i < threads; i++) {
        block->threads[i].seen = block->clocks->seen + (size_t)i * simt_length();
    }
}

void simt_clocks_release_block(struct block *block) {
    if (block->clocks != NULL) {
        simt_cells_release(block);
        free(block->clocks->seen);
    }
    free(block->clocks);
    block->clocks = NULL;
}

void simt_clocks_release(void) {
    simt_cells_end();
    free(joint);
    joint = NULL;
}
