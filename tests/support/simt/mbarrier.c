/*
 * mbarriers. The 64 bits in shared memory say which of the block's it is; what it counts is kept
 * apart, so that a kernel that writes over one is told so. PTX ISA 8.7, section 9.7.13.15
 * "Parallel Synchronization and Communication Instructions: mbarrier": a phase is over when it
 * lacks neither arrivals nor bytes; a wait names a phase by its parity.
 */
#include <stdlib.h>
#include <string.h>

#include "clocks.h"
#include "hopper.h"

#define MAGIC UINT64_C(0x6D626172)
enum { MOST = (1 << 20) - 1 }; /* arrivals, and bytes of a phase */

static uint64_t word_of(const struct mbarrier *mbarrier) {
    return MAGIC << 32 | (uint64_t)mbarrier->offset << 8 | simt_mbarrier_index(mbarrier);
}

uint32_t simt_mbarrier_index(const struct mbarrier *mbarrier) {
    return (uint32_t)(mbarrier - mbarrier->block->mbarriers);
}

static uint32_t offset_of(const void *address) {
    const uintptr_t at = (uintptr_t)address - (uintptr_t)simt_shared();
    const uint32_t shared_bytes = simt_run.launch.shared_bytes;
    if (at > shared_bytes || shared_bytes - at < sizeof(uint64_t)) {
        simt_fail("the mbarrier at %p is not in shared memory", address);
    }
    if (at % sizeof(uint64_t) != 0) {
        simt_fail("the mbarrier at byte %u of shared memory is not at a multiple of 8",
                  (uint32_t)at);
    }
    return (uint32_t)at;
}

/* Fails where the calling thread need not see yet that the mbarrier was initialised. */
static void check_visible(const struct mbarrier *mbarrier) {
    const struct thread *self = simt_self;
    const struct thread *other = mbarrier->initialiser;
    const enum scope scope = self->wave != other->wave ? SCOPE_BLOCK : SCOPE_WAVE;
    if (self == other) {
        return;
    }
    if (!mbarrier->is_published) {
        simt_fail("uses the mbarrier at byte %u of shared memory, which thread %u initialised and "
                  "did not publish",
                  mbarrier->offset, other->index);
    }
    if (self->cluster_waits > mbarrier->cluster_arrivals) {
        return; /* its own wait was for an arrival behind the publication */
    }
    if (self->block != other->block || other->met[scope] == mbarrier->met[scope]) {
        simt_fail("uses the mbarrier at byte %u of shared memory, which thread %u published, with "
                  "no barrier since",
                  mbarrier->offset, other->index);
    }
}

static struct mbarrier *find(struct block *block, uint32_t offset) {
    uint64_t word;
    memcpy(&word, block->shared + offset, sizeof word);
    const uint32_t index = word & 0xFF;
    if (index < block->mbarrier_count && word_of(&block->mbarriers[index]) == word &&
        block->mbarriers[index].offset == offset) {
        check_visible(&block->mbarriers[index]);
        return &block->mbarriers[index];
    }
    for (uint32_t i = 0; i < block->mbarrier_count; i++) {
        if (block->mbarriers[i].offset == offset) {
            simt_fail("the mbarrier at byte %u of shared memory was written over", offset);
        }
    }
    simt_fail("byte %u of shared memory is no mbarrier: nobody initialised it", offset);
}

struct mbarrier *simt_mbarrier_at(const void *address) {
    return find(simt_self->block, offset_of(address));
}

struct mbarrier *simt_mbarrier_of_peer(struct block *peer, const void *address) {
    return find(peer, offset_of(address));
}

/* ---- phases -------------------------------------------------------------------------------- */

/* Begin the next phase when this one is over. What is wrong with it, or NULL. */
static const char *end_phase(struct mbarrier *mbarrier) {
    if (mbarrier->pending != 0 || mbarrier->bytes > 0) {
        return NULL;
    }
    if (mbarrier->bytes < 0) {
        return "more bytes came than its phase expected";
    }
    if (mbarrier->flying != 0) {
        return "its phase is over, and a copy that counts at it is still under way: too few bytes "
               "were expected";
    }
    mbarrier->phases++;
    mbarrier->pending = mbarrier->count;
    simt_clocks_phase(mbarrier);
    while (mbarrier->waiters != NULL) {
        struct thread *waiter = mbarrier->waiters;
        mbarrier->waiters = waiter->next_waiter;
        simt_make_ready(waiter);
    }
    return NULL;
}

static void arrive(struct mbarrier *mbarrier, uint32_t bytes) {
    if (mbarrier->pending == 0) {
        simt_fail("arrives at the mbarrier at byte %u of shared memory once more than its %u "
                  "times, in phase %u, which lacks %lld bytes",
                  mbarrier->offset, mbarrier->count, mbarrier->phases, (long long)mbarrier->bytes);
    }
    if (mbarrier->bytes + bytes > MOST) {
        simt_fail("expects more than %d bytes at the mbarrier at byte %u of shared memory", MOST,
                  mbarrier->offset);
    }
    simt_clocks_arrive(mbarrier);
    mbarrier->has_peers |= mbarrier->block != simt_self->block;
    mbarrier->brings_previous_grid |= simt_self->knows_previous_grid;
    mbarrier->bytes += bytes;
    mbarrier->pending--;
    const char *wrong = end_phase(mbarrier);
    if (wrong != NULL) {
        simt_fail("the mbarrier at byte %u of shared memory: %s", mbarrier->offset, wrong);
    }
    if (simt_random(2) == 0) { /* others may go on before this thread does */
        simt_make_ready(simt_self);
        simt_give_way();
    }
}

void simt_mbarrier_flies(struct mbarrier *mbarrier) { mbarrier->flying++; }

const char *simt_mbarrier_lands(struct mbarrier *mbarrier, uint32_t bytes) {
    mbarrier->flying--;
    mbarrier->bytes -= bytes;
    return end_phase(mbarrier);
}

/* ---- words --------------------------------------------------------------------------------- */

void simt_mbarrier_init(struct simt_place place, void *address, uint32_t arrivals) {
    struct block *block = simt_self->block;
    simt_begin_word(place);
    const uint32_t offset = offset_of(address);
    if (arrivals == 0 || arrivals > MOST) {
        simt_fail("an mbarrier cannot count %u arrivals", arrivals);
    }
    for (uint32_t i = 0; i < block->mbarrier_count; i++) {
        if (block->mbarriers[i].offset == offset) {
            simt_fail("initialises the mbarrier at byte %u of shared memory, which is in use",
                      offset);
        }
    }
    if (block->mbarriers == NULL) {
        block->mbarriers = calloc(SIMT_MBARRIERS, sizeof *block->mbarriers);
    }
    if (block->mbarriers == NULL || block->mbarrier_count == SIMT_MBARRIERS) {
        simt_fail("no room for more than %u mbarriers", block->mbarrier_count);
    }
    struct mbarrier *mbarrier = &block->mbarriers[block->mbarrier_count++];
    *mbarrier = (struct mbarrier){.block = block,
                                  .offset = offset,
                                  .count = arrivals,
                                  .pending = arrivals,
                                  .initialiser = simt_self};
    simt_clocks_mbarrier(mbarrier);
    const uint64_t word = word_of(mbarrier);
    memcpy(address, &word, sizeof word);
}

void simt_mbarrier_publish(struct simt_place place) {
    struct block *block = simt_self->block;
    simt_begin_word(place);
    simt_clocks_publish();
    for (uint32_t i = 0; i < block->mbarrier_count; i++) {
        struct mbarrier *mbarrier = &block->mbarriers[i];
        if (mbarrier->initialiser == simt_self && !mbarrier->is_published) {
            mbarrier->is_published = true;
            memcpy(mbarrier->met, simt_self->met, sizeof mbarrier->met);
            mbarrier->cluster_arrivals = simt_self->cluster_arrivals;
        }
    }
}

void simt_mbarrier_arrive(struct simt_place place, void *address) {
    simt_begin_word(place);
    arrive(simt_mbarrier_at(address), 0);
}

void simt_mbarrier_expect(struct simt_place place, void *address, uint32_t bytes) {
    simt_begin_word(place);
    arrive(simt_mbarrier_at(address), bytes);
}

void simt_mbarrier_arrive_at(struct simt_place place, void *address, uint32_t rank) {
    simt_begin_word(place);
    const uint32_t offset = offset_of(address);
    simt_make_ready(simt_self);
    simt_give_way(); /* the peer may end first */
    arrive(find(simt_peer(rank), offset), 0);
}

static struct mbarrier *wait_for(struct simt_place place, void *address, uint32_t phase) {
    struct thread *self = simt_self;
    simt_begin_word(place);
    self->polls = 0;
    struct mbarrier *mbarrier = simt_mbarrier_at(address);
    if (phase > 1) {
        simt_fail("waits for phase %u; phases alternate between 0 and 1", phase);
    }
    if (mbarrier->phases % 2 != phase && simt_random(8) == 0) {
        simt_make_ready(self);
        simt_give_way();
    }
    while (mbarrier->phases % 2 == phase) {
        self->state = THREAD_AT_MBARRIER;
        self->next_waiter = mbarrier->waiters;
        mbarrier->waiters = self;
        simt_give_way();
    }
    simt_clocks_wait(mbarrier);
    self->knows_previous_grid |= mbarrier->brings_previous_grid && mbarrier->phases != 0;
    return mbarrier;
}

void simt_mbarrier_wait(struct simt_place place, void *address, uint32_t phase) {
    const struct mbarrier *mbarrier = wait_for(place, address, phase);
    if (mbarrier->has_peers) {
        simt_fail("waits at the mbarrier at byte %u of shared memory as if its own block alone "
                  "arrived there: other blocks do, too",
                  mbarrier->offset);
    }
}

void simt_mbarrier_wait_peers(struct simt_place place, void *address, uint32_t phase) {
    wait_for(place, address, phase);
}

void simt_shared_publish(struct simt_place place) {
    simt_begin_word(place);
    simt_clocks_publish();
}

/* ---- their ends ---------------------------------------------------------------------------- */

void simt_mbarriers_report(void) {
    for (uint32_t slot = 0; slot < simt_run.slots; slot++) {
        const struct block *block = &simt_run.blocks[slot];
        for (uint32_t i = 0; block->running && i < block->mbarrier_count; i++) {
            const struct mbarrier *mbarrier = &block->mbarriers[i];
            if (mbarrier->waiters != NULL) {
                simt_report_more(
                    "; the mbarrier at byte %u of block %u lacks %u of %u arrivals and "
                    "%lld bytes in phase %u",
                    mbarrier->offset, block->index, mbarrier->pending, mbarrier->count,
                    (long long)mbarrier->bytes, mbarrier->phases);
            }
        }
    }
}

void simt_mbarriers_release(struct block *block) {
    for (uint32_t i = 0; i < block->mbarrier_count; i++) {
        free(block->mbarriers[i].gathered);
        free(block->mbarriers[i].released);
    }
    free(block->mbarriers);
    block->mbarriers = NULL;
    block->mbarrier_count = 0;
}
