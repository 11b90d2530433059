/*
 * Data races in shared memory where blocks have mbarriers or clusters: there, threads are ordered
 * one by one, and what races.h says of blocks and waves does not do. Vector clocks, a number for
 * each thread of the cluster. Two accesses to a byte, one of them a write, must be apart by
 *
 *   a barrier of the block, a part of the block or a wave that both threads come to;
 *   an arrival at the cluster's barrier after the first one, and the second thread's wait there;
 *   an arrival at an mbarrier after the first one, and a wait of the second thread for that phase;
 *   any chain of these.
 *
 * A gpu_wgmma_wait orders what lanes of a wave read before what any of them does after it: their
 * operands are there, and the wave goes on as one. What threads wrote themselves must have been
 * published besides, before a bulk copy writes over it or a gpu_wgmma reads it. A bulk copy writes
 * from its issue, which must be ordered like a write of the issuing thread, until its phase is
 * over: who has waited for that comes after it; so does a store to a peer. A gpu_wgmma reads b from
 * its issue, as its threads, until the wait that covers its batch. Global memory stays with
 * races.c.
 */
#ifndef TESTS_SUPPORT_SIMT_CLOCKS_H
#define TESTS_SUPPORT_SIMT_CLOCKS_H

#include "hopper.h"

/* From now on the block's shared memory is watched here, where the module's source is instrumented;
 * accesses so far are forgotten. */
void simt_clocks_begin(struct block *block);
void simt_clocks_release_block(struct block *block);
void simt_clocks_release_cluster(struct block *cluster);
void simt_clocks_release(void);

/* Those who came to a barrier, and are in its state, have met. */
void simt_clocks_barrier(struct block *block);
void simt_clocks_wave_barrier(struct wave *wave);
void simt_clocks_part_barrier(struct block *block);

/* The calling thread arrives at its cluster's barrier, or has waited there; a phase is over. */
void simt_clocks_cluster_arrive(struct block *cluster);
void simt_clocks_cluster_wait(const struct block *cluster);
void simt_clocks_cluster_phase(struct block *cluster);

/* An mbarrier is made; the calling thread arrives, or has waited; a phase is over. */
void simt_clocks_mbarrier(struct mbarrier *mbarrier);
void simt_clocks_arrive(struct mbarrier *mbarrier);
void simt_clocks_wait(const struct mbarrier *mbarrier);
void simt_clocks_phase(struct mbarrier *mbarrier);

/* A bulk copy to shared memory of the calling thread's block is issued. */
void simt_clocks_fly(const struct mbarrier *mbarrier, uint32_t at, uint32_t bytes);

/* The calling thread comes to a gpu_wgmma; batches before this one are over for the warpgroup.
 * `writers`, zero for the first thread, keeps what it found. */
enum { SIMT_WRITERS = 16 };
struct simt_writers {
    uint32_t count; /* more than SIMT_WRITERS: not all are noted */
    uint32_t stamps[SIMT_WRITERS];
    uint32_t at[SIMT_WRITERS];
};
void simt_clocks_operand(struct simt_writers *writers, uint32_t batch, const unsigned char *b,
                         uint32_t n, uint32_t step);
void simt_clocks_batches(struct thread *threads, uint32_t before);

/* What the calling thread wrote so far is there for bulk copies and gpu_wgmma (the async proxy),
 * once they are ordered after this. */
void simt_clocks_publish(void);

/* Whether a barrier of a part or of the cluster orders what a thread did in this epoch of races.h
 * before the calling thread. */
bool simt_clocks_order(uint32_t block, uint32_t thread, uint32_t epoch);

/* The calling thread touches bytes of a block's shared memory. */
void simt_clocks_read(struct block *block, uint32_t at, size_t bytes);
void simt_clocks_write(struct block *block, uint32_t at, size_t bytes);

#endif
