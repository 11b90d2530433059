/* Accesses to shared memory, byte by byte; see clocks.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clocks_index.h"

struct stamp {
    uint32_t index;
    uint32_t tick;
    uint32_t epoch; /* of a thread, as are its waits for gpu_wgmma */
    uint32_t waits;
};

/* Who touched a byte last, as stamps; 0: nobody. */
struct shared_cell {
    uint32_t writer;
    uint32_t readers; /* since, see readers.c */
};

/* Of the launch. */
static struct {
    struct stamp *stamps; /* from 1 */
    uint32_t stamp_count;
    uint32_t stamp_capacity;
} clocks;

/* ---- stamps -------------------------------------------------------------------------------- */

static uint32_t new_stamp(struct stamp stamp) {
    if (clocks.stamp_count + 1 >= clocks.stamp_capacity) {
        const uint32_t capacity = clocks.stamp_capacity * 2 + 1024;
        struct stamp *more = realloc(clocks.stamps, capacity * sizeof *more);
        if (more == NULL || capacity >= SIMT_READERS) {
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
    const struct stamp stamp = {simt_index_of(self), self->tick, simt_epoch_of(self),
                                self->group_waits};
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
        *latest = new_stamp((struct stamp){simt_agent_of(block, agent), tick, 0, 0});
    }
    return *latest;
}

/* Whether the calling thread comes after an access; 0: there was none. */
bool simt_is_after(uint32_t id) {
    const struct thread *self = simt_self;
    if (id == 0) {
        return true;
    }
    const struct stamp stamp = clocks.stamps[id];
    if (stamp.index == simt_index_of(self) || self->seen[stamp.index] > stamp.tick) {
        return true;
    }
    const uint32_t rank = stamp.index / simt_stride();
    const uint32_t thread = stamp.index % simt_stride();
    if (thread >= simt_run.launch.block) {
        return false;
    }
    const uint32_t wave = thread / simt_run.launch.wave;
    const struct block *block = &self->block->cluster[rank];
    if (self->seen[simt_wave_of(block, wave)] > stamp.epoch) {
        return true;
    }
    return block == self->block &&
           (stamp.epoch / WAVE_EPOCHS < block->epoch ||
            (self->wave == &block->waves[wave] && stamp.epoch < simt_epoch_of(self)));
}

bool simt_is_after_reader(uint32_t id) {
    if (simt_is_after(id)) {
        return true;
    }
    const struct stamp stamp = clocks.stamps[id];
    const uint32_t thread = stamp.index % simt_stride();
    const struct block *block = &simt_self->block->cluster[stamp.index / simt_stride()];
    return thread < simt_run.launch.block &&
           simt_self->seen[simt_waits_of(block, thread / simt_run.launch.wave)] > stamp.waits;
}

uint32_t simt_stamp_index(uint32_t id) { return clocks.stamps[id].index; }

/* ---- accesses ------------------------------------------------------------------------------ */

static _Noreturn void fail_at(const char *verb, const struct block *block, uint32_t at,
                              const char *other_verb, uint32_t id) {
    static const char rest[] = "with nothing between that orders the two";
    const uint32_t rank = clocks.stamps[id].index / simt_stride();
    const uint32_t other = clocks.stamps[id].index % simt_stride();
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

/* How many cells from this one on, before `end`, hold the same. */
static uint32_t run_of(const struct shared_cell *cell, const struct shared_cell *end) {
    uint32_t count = 1;
    while (cell + count != end && cell[count].writer == cell->writer &&
           cell[count].readers == cell->readers) {
        count++;
    }
    return count;
}

/* Bytes are read as `stamp`. What lies side by side was mostly touched alike: looked at once. */
static void read_as(struct block *block, uint32_t at, size_t bytes, uint32_t stamp) {
    struct shared_cell *cell = &block->clocks->cells[at];
    const struct shared_cell *end = cell + bytes;
    while (cell != end) {
        const uint32_t count = run_of(cell, end);
        if (!simt_is_after(cell->writer)) {
            fail_at("reads", block, (uint32_t)(cell - block->clocks->cells), "wrote", cell->writer);
        }
        const uint32_t readers = simt_readers_add(cell->readers, count, stamp);
        for (uint32_t i = 0; i < count; i++) {
            cell[i].readers = readers;
        }
        cell += count;
    }
}

static void write_as(struct block *block, uint32_t at, size_t bytes, uint32_t stamp) {
    struct shared_cell *cell = &block->clocks->cells[at];
    const struct shared_cell *end = cell + bytes;
    while (cell != end) {
        const uint32_t count = run_of(cell, end);
        if (!simt_is_after(cell->writer)) {
            fail_at("writes", block, (uint32_t)(cell - block->clocks->cells), "wrote",
                    cell->writer);
        }
        const uint32_t reader = simt_readers_unordered(cell->readers);
        if (reader != 0) {
            fail_at("writes", block, (uint32_t)(cell - block->clocks->cells), "read", reader);
        }
        simt_readers_drop(cell->readers, count);
        for (uint32_t i = 0; i < count; i++) {
            cell[i] = (struct shared_cell){stamp, 0};
        }
        cell += count;
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
    const uint32_t thread =
        id != 0 ? clocks.stamps[id].index - block->rank * simt_stride() : UINT32_MAX;
    if (thread < simt_run.launch.block &&
        block->threads[thread].published_tick <= clocks.stamps[id].tick) {
        simt_fail("byte %u of shared memory was written by thread %u, which did not publish it "
                  "(gpu_shared_publish) for bulk copies and gpu_wgmma",
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
        if (!simt_is_after(writers->stamps[i])) {
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

/* ---- beginnings and ends ------------------------------------------------------------------- */

struct shared_cell *simt_cells_make(uint32_t bytes) {
    return calloc(bytes, sizeof(struct shared_cell));
}

void simt_cells_release(struct block *block) {
    struct shared_cell *cells = block->clocks->cells;
    for (uint32_t i = 0; cells != NULL && i < simt_run.launch.shared_bytes; i++) {
        simt_readers_drop(cells[i].readers, 1);
    }
    free(cells);
}

void simt_cells_end(void) {
    simt_readers_end();
    free(clocks.stamps);
    memset(&clocks, 0, sizeof clocks);
}
