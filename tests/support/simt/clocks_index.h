/*
 * What clocks.c and cells.c share. Who touches memory is a thread, an mbarrier (as the copies that
 * count at it) or a warpgroup (as its gpu_wgmma); each has an index in the cluster, and a tick: how
 * often a thread has let others know what it did, an mbarrier's phase, a warpgroup's batch. What a
 * thread has seen is, for each index, the tick below which all is over for it; and in the same way
 * for each wave the epoch of races.h; how often it has waited for its gpu_wgmma: what its lanes
 * read before is over; and the epoch of races.h in which it has arrived at the cluster's barrier.
 */
#ifndef TESTS_SUPPORT_SIMT_CLOCKS_INDEX_H
#define TESTS_SUPPORT_SIMT_CLOCKS_INDEX_H

#include "clocks.h"
#include "races.h"

enum { AGENTS = SIMT_MBARRIERS + SIMT_GROUPS, WAVE_EPOCHS = SIMT_WAVE_EPOCHS };

/* Of a block. */
struct clocks {
    struct shared_cell *cells;
    uint32_t *seen; /* of all threads, one after the other */
    uint32_t agent_stamps[AGENTS];
};

/* Indices of a block, and of its cluster. */
static inline uint32_t simt_stride(void) {
    return simt_run.launch.block + AGENTS + 3 * simt_run.waves;
}
static inline uint32_t simt_length(void) { return simt_stride() * simt_run.launch.cluster; }

static inline uint32_t simt_index_of(const struct thread *thread) {
    return thread->block->rank * simt_stride() + thread->index;
}
static inline uint32_t simt_agent_of(const struct block *block, uint32_t agent) {
    return block->rank * simt_stride() + simt_run.launch.block + agent;
}
static inline uint32_t simt_wave_of(const struct block *block, uint32_t wave) {
    return simt_agent_of(block, AGENTS + wave);
}
static inline uint32_t simt_waits_of(const struct block *block, uint32_t wave) {
    return simt_wave_of(block, simt_run.waves + wave);
}
static inline uint32_t simt_arrivals_of(const struct block *block, uint32_t wave) {
    return simt_waits_of(block, simt_run.waves + wave);
}

static inline uint32_t simt_epoch_of(const struct thread *thread) {
    return thread->block->epoch * WAVE_EPOCHS + thread->wave->epoch;
}

/* ---- cells.c ------------------------------------------------------------------------------- */

/* Cells of so many bytes; NULL without memory. */
struct shared_cell *simt_cells_make(uint32_t bytes);
void simt_cells_release(struct block *block);
/* What the launch's cells refer to. */
void simt_cells_end(void);

/* ---- readers.c ----------------------------------------------------------------------------- */

/* Who has read a byte since it was written: 0, nobody; a stamp; or SIMT_READERS and a set's number.
 * Sets count the cells that hold them. */
#define SIMT_READERS (UINT32_C(1) << 31)

/* Readers of `cells` cells, all of those that are looked at, with one more: `index` of who reads.
 */
uint32_t simt_readers_add(uint32_t readers, uint32_t cells, uint32_t stamp);
/* So many cells hold them no more. */
void simt_readers_drop(uint32_t readers, uint32_t cells);
/* A reader that the calling thread does not come after; 0: it comes after all. */
uint32_t simt_readers_unordered(uint32_t readers);
void simt_readers_end(void);

/* Of a stamp: who; and whether the calling thread comes after it, as an access or as a read. */
uint32_t simt_stamp_index(uint32_t id);
bool simt_is_after(uint32_t id);
bool simt_is_after_reader(uint32_t id);

#endif
