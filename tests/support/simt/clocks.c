#include "clocks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "races.h"

/*
 * Who touches memory is a thread, an mbarrier (as the copies that count at it) or a warpgroup (as
 * its gpu_wgmma); each has an index in the cluster, and a tick: how often a thread has let others
 * know what it did, an mbarrier's phase, a warpgroup's batch. What a thread has seen is, for each
 * index, the tick below which all is over for it; and in the same way for each wave the epoch of
 * races.h, and how often it has waited for its gpu_wgmma: what its lanes read before is over.
 */
enum { AGENTS = SIMT_MBARRIERS + SIMT_GROUPS, WAVE_EPOCHS = SIMT_WAVE_EPOCHS };
#define SET (UINT32_C(1) << 30)

struct stamp {
    uint32_t index;
    uint32_t tick;
    uint32_t epoch; /* of a thread, as are its waits for gpu_wgmma */
    uint32_t waits;
};

/* Who touched a byte last; 0: nobody. */
struct shared_cell {
    uint32_t writer;  /* a stamp */
    uint32_t readers; /* since: a stamp, or SET and the first node of a list of them */
};

struct node {
    uint32_t stamp;
    uint32_t next; /* 0: none */
};

struct clocks {
    struct shared_cell *cells;
    uint32_t *seen; /* of all threads, one after the other */
    uint32_t agent_stamps[AGENTS];
};

/* Of the launch. */
static struct {
    struct stamp *stamps; /* from 1 */
    uint32_t stamp_count;
    uint32_t stamp_capacity;
    struct node *nodes; /* from 1 */
    uint32_t node_count;
    uint32_t node_capacity;
    uint32_t *joint; /* what those who meet have seen */
} clocks;

/* ---- indices ------------------------------------------------------------------------------- */

static uint32_t stride(void) { return simt_run.launch.block + AGENTS + 2 * simt_run.waves; }
static uint32_t length(void) { return stride() * simt_run.launch.cluster; }

static uint32_t first_of(const struct block *block) { return block->rank * stride(); }
static uint32_t index_of(const struct thread *thread) {
    return first_of(thread->block) + thread->index;
}
static uint32_t agent_of(const struct block *block, uint32_t agent) {
    return first_of(block) + simt_run.launch.block + agent;
}
static uint32_t wave_of(const struct block *block, uint32_t wave) {
    return agent_of(block, AGENTS + wave);
}

static uint32_t waits_of(const struct block *block, uint32_t wave) {
    return wave_of(block, simt_run.waves + wave);
}

static uint32_t epoch_of(const struct thread *thread) {
    return thread->block->epoch * WAVE_EPOCHS + thread->wave->epoch;
}

/* ---- stamps -------------------------------------------------------------------------------- */

static uint32_t new_stamp(struct stamp stamp) {
    if (clocks.stamp_count + 1 >= clocks.stamp_capacity) {
        const uint32_t capacity = clocks.stamp_capacity * 2 + 1024;
        struct stamp *more = realloc(clocks.stamps, capacity * sizeof *more);
        if (more == NULL || capacity >= SET) {
            simt_fail("no memory to watch accesses");
        }
        clocks.stamps = more;
        clocks.stamp_capacity = capacity;
    }
    clocks.stamps[++clocks.stamp_count] = stamp;
    return clocks.stamp_count;
}

/* The calling thread's, as long as nobody learns of it. */
static uint32_t my_stamp(void) {
    struct thread *self = simt_self;
    const struct stamp stamp = {index_of(self), self->tick, epoch_of(self), self->group_waits};
    if (self->stamp == 0 || clocks.stamps[self->stamp].tick != stamp.tick ||
        clocks.stamps[self->stamp].epoch != stamp.epoch ||
        clocks.stamps[self->stamp].waits != stamp.waits) {
        self->stamp = new_stamp(stamp);
    }
    return self->stamp;
}

static uint32_t agent_stamp(struct block *block, uint32_t agent, uint32_t tick) {
    uint32_t *latest = &block->clocks->agent_stamps[agent];
    if (*latest == 0 || clocks.stamps[*latest].tick != tick) {
        *latest = new_stamp((struct stamp){agent_of(block, agent), tick, 0, 0});
    }
    return *latest;
}

/* Whether the calling thread comes after an access; 0: there was none. */
static bool is_after(uint32_t id) {
    const struct thread *self = simt_self;
    if (id == 0) {
        return true;
    }
    const struct stamp stamp = clocks.stamps[id];
    if (stamp.index == index_of(self) || self->seen[stamp.index] > stamp.tick) {
        return true;
    }
    const uint32_t rank = stamp.index / stride();
    const uint32_t thread = stamp.index % stride();
    if (thread >= simt_run.launch.block) {
        return false;
    }
    const uint32_t wave = thread / simt_run.launch.wave;
    const struct block *block = &self->block->cluster[rank];
    if (self->seen[wave_of(block, wave)] > stamp.epoch) {
        return true;
    }
    return block == self->block &&
           (stamp.epoch / WAVE_EPOCHS < block->epoch ||
            (self->wave == &block->waves[wave] && stamp.epoch < epoch_of(self)));
}

/* ---- readers ------------------------------------------------------------------------------- */

static uint32_t new_node(uint32_t stamp, uint32_t next) {
    if (clocks.node_count + 1 >= clocks.node_capacity) {
        const uint32_t capacity = clocks.node_capacity * 2 + 1024;
        struct node *more = realloc(clocks.nodes, capacity * sizeof *more);
        if (more == NULL || capacity >= SET) {
            simt_fail("no memory to watch accesses");
        }
        clocks.nodes = more;
        clocks.node_capacity = capacity;
    }
    clocks.nodes[++clocks.node_count] = (struct node){stamp, next};
    return clocks.node_count;
}

/* An older reader need not be kept: who comes after the new one comes after it, too. */
static bool is_covered(uint32_t older, uint32_t stamp) {
    return clocks.stamps[older].index == clocks.stamps[stamp].index || is_after(older);
}

/* Readers with one more, as whom the calling thread reads. */
static uint32_t add_reader(uint32_t readers, uint32_t stamp) {
    if (readers == 0 || readers == stamp) {
        return stamp;
    }
    if ((readers & SET) == 0) {
        return is_covered(readers, stamp) ? stamp : SET | new_node(stamp, new_node(readers, 0));
    }
    for (uint32_t at = readers & ~SET; at != 0; at = clocks.nodes[at].next) {
        if (clocks.nodes[at].stamp == stamp) {
            return readers;
        }
    }
    uint32_t list = 0;
    for (uint32_t at = readers & ~SET; at != 0; at = clocks.nodes[at].next) {
        if (!is_covered(clocks.nodes[at].stamp, stamp)) {
            list = new_node(clocks.nodes[at].stamp, list);
        }
    }
    return list == 0 ? stamp : SET | new_node(stamp, list);
}

static bool is_after_reader(uint32_t id) {
    if (is_after(id)) {
        return true;
    }
    const struct stamp stamp = clocks.stamps[id];
    const uint32_t thread = stamp.index % stride();
    const struct block *block = &simt_self->block->cluster[stamp.index / stride()];
    return thread < simt_run.launch.block &&
           simt_self->seen[waits_of(block, thread / simt_run.launch.wave)] > stamp.waits;
}

/* A reader that the calling thread does not come after; 0: it comes after all. */
static uint32_t unordered_reader(uint32_t readers) {
    if ((readers & SET) == 0) {
        return is_after_reader(readers) ? 0 : readers;
    }
    for (uint32_t at = readers & ~SET; at != 0; at = clocks.nodes[at].next) {
        if (!is_after_reader(clocks.nodes[at].stamp)) {
            return clocks.nodes[at].stamp;
        }
    }
    return 0;
}

/* ---- accesses ------------------------------------------------------------------------------ */

static _Noreturn void fail_at(const char *verb, const struct block *block, uint32_t at,
                              const char *other_verb, uint32_t id) {
    static const char rest[] = "with nothing between that orders the two";
    const uint32_t rank = clocks.stamps[id].index / stride();
    const uint32_t other = clocks.stamps[id].index % stride();
    const uint32_t threads = simt_run.launch.block;
    char where[64] = "";
    if (simt_run.launch.cluster > 1) {
        snprintf(where, sizeof where, " of block %u", simt_self->block->cluster[rank].index);
    }
    if (other < threads) {
        simt_fail("a race: %s byte %u of shared memory, which thread %u%s %s, %s", verb, at, other,
                  where, other_verb, rest);
    } else if (other < threads + SIMT_MBARRIERS) {
        simt_fail("a race: %s byte %u of shared memory, to which a copy came that counts at the "
                  "mbarrier at byte %u%s, %s",
                  verb, at, block->cluster[rank].mbarriers[other - threads].offset, where, rest);
    }
    simt_fail("a race: %s byte %u of shared memory, which a gpu_wgmma of warpgroup %u reads, %s",
              verb, at, other - threads - SIMT_MBARRIERS, rest);
}

/* Bytes are read as `stamp`. What lies side by side was mostly touched alike: looked at once. */
static void read_as(struct block *block, uint32_t at, size_t bytes, uint32_t stamp) {
    struct shared_cell *cell = &block->clocks->cells[at];
    uint32_t writer = 0;
    uint32_t readers = UINT32_MAX;
    uint32_t more = 0;
    for (const struct shared_cell *end = cell + bytes; cell != end; cell++) {
        if (cell->writer != writer) {
            writer = cell->writer;
            if (!is_after(writer)) {
                fail_at("reads", block, (uint32_t)(cell - block->clocks->cells), "wrote", writer);
            }
        }
        if (cell->readers != readers) {
            readers = cell->readers;
            more = add_reader(readers, stamp);
        }
        cell->readers = more;
    }
}

static void write_as(struct block *block, uint32_t at, size_t bytes, uint32_t stamp) {
    struct shared_cell *cell = &block->clocks->cells[at];
    struct shared_cell last = {0, 0};
    for (const struct shared_cell *end = cell + bytes; cell != end; cell++) {
        if (cell->writer != last.writer && !is_after(cell->writer)) {
            fail_at("writes", block, (uint32_t)(cell - block->clocks->cells), "wrote",
                    cell->writer);
        }
        if (cell->readers != last.readers) {
            const uint32_t reader = unordered_reader(cell->readers);
            if (reader != 0) {
                fail_at("writes", block, (uint32_t)(cell - block->clocks->cells), "read", reader);
            }
        }
        last = *cell;
        *cell = (struct shared_cell){stamp, 0};
    }
}

void simt_clocks_read(struct block *block, uint32_t at, size_t bytes) {
    if (block->clocks != NULL) {
        read_as(block, at, bytes, my_stamp());
    } else {
        simt_races_read(block->shared + at, bytes);
    }
}

void simt_clocks_write(struct block *block, uint32_t at, size_t bytes) {
    write_as(block, at, bytes, my_stamp());
}

static void check_published(const struct block *block, uint32_t at, uint32_t id) {
    const uint32_t thread = id != 0 ? clocks.stamps[id].index - first_of(block) : UINT32_MAX;
    if (thread < simt_run.launch.block &&
        block->threads[thread].published_tick <= clocks.stamps[id].tick) {
        simt_fail("byte %u of shared memory was written by thread %u, which did not publish it "
                  "(gpu_mbarrier_publish) for bulk copies and gpu_wgmma",
                  at, thread);
    }
}

void simt_clocks_publish(void) { simt_self->published_tick = ++simt_self->tick; }

void simt_clocks_fly(const struct mbarrier *mbarrier, uint32_t at, uint32_t bytes) {
    struct block *block = mbarrier->block;
    if (block->clocks != NULL) {
        uint32_t writer = 0;
        for (uint32_t i = at; i < at + bytes; i++) {
            if (block->clocks->cells[i].writer != writer) {
                writer = block->clocks->cells[i].writer;
                check_published(block, i, writer);
            }
        }
        write_as(block, at, bytes,
                 agent_stamp(block, simt_mbarrier_index(mbarrier), mbarrier->phases));
    }
}

/* The first thread reads for all, and the others come after those who wrote what it found. */
void simt_clocks_operand(struct simt_writers *writers, uint32_t batch, const unsigned char *b,
                         uint32_t n, uint32_t step) {
    struct block *block = simt_self->block;
    if (block->clocks == NULL) {
        return;
    }
    const uint32_t group = simt_self->index / SIMT_GROUP;
    const uint32_t stamp = agent_stamp(block, SIMT_MBARRIERS + group, batch);
    const bool is_first = writers->count == 0;
    for (uint32_t i = 0; i < writers->count && i < SIMT_WRITERS; i++) {
        if (!is_after(writers->stamps[i])) {
            fail_at("reads", block, writers->at[i], "wrote", writers->stamps[i]);
        }
    }
    for (uint32_t row = 0; row < n && (is_first || writers->count > SIMT_WRITERS); row++) {
        enum { BYTES = 32 }; /* two chunks, which swizzling leaves side by side */
        const uint32_t at =
            (uint32_t)(b - block->shared) + row * 128 + ((step * 2) ^ row % 8) / 2 * BYTES;
        read_as(block, at, BYTES, stamp);
        for (uint32_t i = 0; is_first && i < BYTES; i++) {
            const uint32_t writer = block->clocks->cells[at + i].writer;
            const uint32_t last = writers->count - 1;
            if (writers->count == 0 || last >= SIMT_WRITERS || writers->stamps[last] != writer) {
                check_published(block, at + i, writer);
                if (writers->count < SIMT_WRITERS) {
                    writers->stamps[writers->count] = writer;
                    writers->at[writers->count] = at + i;
                }
                writers->count++;
            }
        }
    }
}

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
    raise(clock, thread->seen, length());
    raise_one(&clock[index_of(thread)], ++thread->tick);
    for (uint32_t w = 0; w < simt_run.waves; w++) {
        raise_one(&clock[wave_of(block, w)], block->epoch * WAVE_EPOCHS);
    }
    raise_one(&clock[wave_of(block, (uint32_t)(thread->wave - block->waves))], epoch_of(thread));
}

static void note_news(struct thread *thread) {
    thread->wave->has_news = true;
    thread->block->has_news = true;
}

/* Threads in this state see what each of them has seen, and `released`, did. */
static void gather(struct thread *threads, uint32_t count, enum thread_state state, bool released) {
    for (uint32_t i = 0; i < count; i++) {
        if (threads[i].state == state && released) {
            release(&threads[i], clocks.joint);
        } else if (threads[i].state == state) {
            raise(clocks.joint, threads[i].seen, length());
        }
    }
}

static void spread(struct thread *threads, uint32_t count, enum thread_state state) {
    for (uint32_t i = 0; i < count; i++) {
        if (threads[i].state == state) {
            memcpy(threads[i].seen, clocks.joint, length() * sizeof *clocks.joint);
        }
    }
}

static void begin_meeting(void) { memset(clocks.joint, 0, length() * sizeof *clocks.joint); }

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
    return self->seen != NULL && rank < simt_run.launch.cluster &&
           self->seen[wave_of(&self->block->cluster[rank], thread / simt_run.launch.wave)] > epoch;
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

void simt_clocks_cluster_barrier(struct block *cluster) {
    const uint32_t threads = simt_run.launch.block;
    if (cluster->clocks == NULL && simt_run.launch.cluster == 1) {
        return;
    }
    if (clocks.joint == NULL) {
        return;
    }
    begin_meeting();
    for (uint32_t rank = 0; rank < simt_run.launch.cluster; rank++) {
        if (cluster[rank].running) {
            gather(cluster[rank].threads, threads, THREAD_AT_CLUSTER, false);
            for (uint32_t w = 0; w < simt_run.waves; w++) {
                raise_one(&clocks.joint[wave_of(&cluster[rank], w)],
                          (cluster[rank].epoch + 1) * WAVE_EPOCHS);
            }
        }
    }
    for (uint32_t rank = 0; rank < simt_run.launch.cluster; rank++) {
        if (cluster[rank].running) {
            spread(cluster[rank].threads, threads, THREAD_AT_CLUSTER);
        }
    }
}

void simt_clocks_mbarrier(struct mbarrier *mbarrier) {
    simt_clocks_begin(mbarrier->block);
    if (mbarrier->block->clocks != NULL) {
        mbarrier->gathered = calloc(length(), sizeof *mbarrier->gathered);
        mbarrier->released = calloc(length(), sizeof *mbarrier->released);
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
        raise(mbarrier->released, mbarrier->gathered, length());
        memset(mbarrier->gathered, 0, length() * sizeof *mbarrier->gathered);
        mbarrier->released[agent_of(mbarrier->block, simt_mbarrier_index(mbarrier))] =
            mbarrier->phases;
    }
}

void simt_clocks_wait(const struct mbarrier *mbarrier) {
    if (mbarrier->released != NULL) {
        raise(simt_self->seen, mbarrier->released, length());
        note_news(simt_self);
    }
}

void simt_clocks_batches(struct thread *threads, uint32_t before) {
    const struct block *block = threads->block;
    const uint32_t group = threads->index / SIMT_GROUP;
    for (uint32_t i = 0; block->clocks != NULL && i < SIMT_GROUP; i++) {
        const uint32_t wave = threads[i].index / simt_run.launch.wave;
        raise_one(&threads[i].seen[agent_of(block, SIMT_MBARRIERS + group)], before);
        raise_one(&threads[i].seen[waits_of(block, wave)], ++threads[i].group_waits);
        note_news(&threads[i]);
    }
}

/* ---- beginnings and ends ------------------------------------------------------------------- */

void simt_clocks_begin(struct block *block) {
    if (!simt_races_are_on() || block->clocks != NULL) {
        return;
    }
    const uint32_t threads = simt_run.launch.block;
    if (clocks.joint == NULL) {
        clocks.joint = calloc(length(), sizeof *clocks.joint);
    }
    block->clocks = calloc(1, sizeof *block->clocks);
    if (block->clocks != NULL) {
        block->clocks->cells = calloc(simt_run.launch.shared_bytes, sizeof *block->clocks->cells);
        block->clocks->seen = calloc((size_t)threads * length(), sizeof *block->clocks->seen);
    }
    if (clocks.joint == NULL || block->clocks == NULL || block->clocks->cells == NULL ||
        block->clocks->seen == NULL) {
        simt_report(block, "no memory to watch accesses");
        return;
    }
    for (uint32_t i = 0; i < threads; i++) {
        block->threads[i].seen = block->clocks->seen + (size_t)i * length();
    }
}

void simt_clocks_release_block(struct block *block) {
    if (block->clocks != NULL) {
        free(block->clocks->cells);
        free(block->clocks->seen);
    }
    free(block->clocks);
    block->clocks = NULL;
}

void simt_clocks_release(void) {
    free(clocks.stamps);
    free(clocks.nodes);
    free(clocks.joint);
    memset(&clocks, 0, sizeof clocks);
}
