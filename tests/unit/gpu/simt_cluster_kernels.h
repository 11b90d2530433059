/* Kernels whose threads order each other by sm_90a's words as they should, and with faults planted
 * in them; for simt_cluster_test.c. Each is run with a struct cluster_params. */
#ifndef TESTS_UNIT_GPU_SIMT_CLUSTER_KERNELS_H
#define TESTS_UNIT_GPU_SIMT_CLUSTER_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum cluster_fault {
    CLUSTER_RIGHT,
    NO_FIRST_BARRIER,
    BARRIER_FOR_HALF,
    BARRIER_IN_EACH_BRANCH,
    ARRIVE_TWICE,
    WAIT_ALONE,
    ARRIVE_ALONE,
    WRITE_BEHIND_ARRIVAL,
    READ_BEFORE_WAIT,
    FEW_BYTES,
    MANY_BYTES,
    STORE_BEYOND,
    STORE_MISALIGNED,
    RANK_BEYOND,
    NO_WAIT,
    NO_WAIT_FOR_ROOM,
    WAIT_FOR_OWN,
    WRONG_PARITY,
    ONE_ARRIVAL_LESS,
    ONE_ARRIVAL_MORE,
    NO_PUBLISH,
    NO_BARRIER,
    NO_INIT,
    INIT_TWICE,
    NO_COUNT,
    MISALIGNED,
    WRITTEN_OVER,
    PART_MISSES_WAVE,
    PART_OF_OTHERS,
    PART_OF_LANES,
    TOO_EARLY,
    TOLD_BY_NOBODY
};

struct cluster_params {
    const uint32_t *in; /* [grid][block] */
    uint32_t *out;      /* [grid][block] */
    uint32_t cluster;
    uint32_t fault; /* enum cluster_fault */
};

/* out of a block = in of the one before of its cluster, which stores it there. */
void rotate_cluster(const void *argument);
/* The same by global memory and barriers alone. */
void rotate_through_global(const void *argument);
/* out = in reversed in the block, by the cluster's barrier. */
void reverse_by_cluster(const void *argument);
/* out of a block = the sum of what the one before stores in three rounds; mbarriers tell that all
 * is there, and to the one before that all was read. */
void rotate_in_rounds(const void *argument);
/* The first wave hands `in` on to the second one, a row of shared memory at a time. */
void hand_on(const void *argument);
/* The same, where one lane arrives for its wave and one waits for it. */
void hand_on_by_one_lane(const void *argument);
/* out = in reversed within the first half of the block. */
void reverse_part(const void *argument);
/* out = in of the next thread within the first half, through global memory. */
void rotate_part_through_global(const void *argument);
/* out = the wave's number, from 1, for one of its lanes; 0 for the others. */
void elect_one(const void *argument);
/* Block 0 of two ends, and the other one stores to it, or arrives there. */
void store_to_ended_peer(const void *argument);
void arrive_at_ended_peer(const void *argument);
/* out = in by an asynchronous copy, after the grid before. */
void copy_early(const void *argument);
/* The same without words. */
void read_early(const void *argument);

#ifdef __cplusplus
}
#endif

#endif
