/* Kernels that use memory as they should, and kernels that do not; for simt_memory_test.c. Each is
 * run with a struct memory_params. */
#ifndef TESTS_UNIT_GPU_SIMT_MEMORY_KERNELS_H
#define TESTS_UNIT_GPU_SIMT_MEMORY_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MEMORY_TILES = 6 }; /* that a pipeline copies, each of 4 words a thread */

struct memory_params {
    const uint32_t *in;
    uint32_t *out;
    uint32_t *counter;
};

/* out[t] = sum of tile words of thread t's right neighbour. */
void pipeline(const void *argument);
void pipeline_without_wait(const void *argument);
void pipeline_that_waits_for_too_few(const void *argument);
void pipeline_without_barrier(const void *argument);
void pipeline_that_overwrites_too_early(const void *argument);

void copy_some(const void *argument); /* thread t copies 16 bytes if t is odd, and 4 bytes */
void copy_beyond_shared(const void *argument);
void copy_misaligned(const void *argument);
void copy_from_beyond(const void *argument);
void load_misaligned(const void *argument);
void read_before_write(const void *argument);
void write_beyond_shared(const void *argument);

/* The last block to come adds what all have written; the counter is zero again afterwards. */
void sum_of_blocks(const void *argument);
void sum_of_blocks_without_first_fence(const void *argument);
void sum_of_blocks_without_last_fence(const void *argument);
void sum_of_blocks_without_barrier(const void *argument);
void all_blocks_write_one_word(const void *argument);
/* Each block waits for the next one, the last one for none. */
void wait_for_next_block(const void *argument);
void wait_for_nobody(const void *argument);

/* Lane l gets 4 registers of ldmatrix .x4, then of .x4.trans, of .x2 and .x1, into out[l][11]. */
void load_matrices(const void *argument);

#ifdef __cplusplus
}
#endif

#endif
