/*
 * Runs GPU device source on a CPU: one fiber a GPU thread, real meetings at barriers and wave
 * operations. What a GPU leaves to chance is decided by a seed, in favour of showing mistakes:
 *
 *   order        which thread runs next is random, or follows random priorities of waves that
 *                change now and then or hardly ever (so that one runs far ahead of the others, or
 *                starves), or is the last first.
 *   blocks       start in random order, a few at a time.
 *   shared       is full of NaNs (all bits set), or of zeros, when a block starts, and ends where
 *                the launch says that it ends: ASan sees what lies beyond.
 *   asynchronous copies
 *                poison their destination when they are issued and land only when they must,
 *                or by chance a little earlier. Bulk copies land when nobody can go on.
 *   wgmma        poisons its accumulators, and takes its operands when it is waited for, or by
 *                chance a little earlier.
 *
 * A launch is ended with a message when threads of a block, or lanes of a wave, do not all come to
 * the same barrier or wave operation, when nobody can go on, and when an address is not aligned
 * as an operation needs it; see cluster.c, mbarrier.c, bulk.c and wgmma.c for what each word of
 * sm_90a must not do. Every vocabulary word of the device source is a point where another
 * thread may go on; between two of them a thread is alone. One launch at a time; blocks of
 * another launch are over when it begins.
 */
#ifndef TESTS_SUPPORT_SIMT_SIMT_H
#define TESTS_SUPPORT_SIMT_SIMT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* As `resident`: all blocks of the grid at once. */
#define SIMT_ALL_BLOCKS UINT32_MAX

/* Seeds that follow each other take turns at the orders, at the times when copies land and at
 * what shared memory holds first; so many meet all of it. */
enum { SIMT_SEEDS = 12 };

/* The most blocks of a cluster that every GPU with clusters has room for. */
enum { SIMT_CLUSTER = 8 };

struct simt_launch {
    const char *name;                    /* of the kernel, for messages */
    void (*entry)(const void *argument); /* run by every thread */
    const void *argument;
    uint32_t grid;  /* blocks */
    uint32_t block; /* threads of each */
    uint32_t wave;  /* 32 or 64; 0: 32 */
    uint32_t shared_bytes;
    uint32_t cluster;  /* blocks that run at the same time and share memory; 0 or 1: none */
    bool early;        /* the grid before may still run: see gpu_previous_grid_wait */
    uint32_t resident; /* blocks in flight at a time; 0: up to three, by seed */
    uint64_t seed;
};

/* Run a grid to its end. Returns NULL, or what went wrong: a sentence that names kernel, block
 * and threads, valid until the next launch. */
const char *simt_launch(const struct simt_launch *launch);

#ifdef __cplusplus
}
#endif

#endif
