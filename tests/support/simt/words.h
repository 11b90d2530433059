/* What target_cpu.h makes the words of device source from. Called on a GPU thread's fiber. */
#ifndef TESTS_SUPPORT_SIMT_WORDS_H
#define TESTS_SUPPORT_SIMT_WORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "matrix.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Which word of the device source, and where it stands. Two meetings are one when the places are
 * equal. */
struct simt_place {
    const char *word;
    const char *file;
    int line;
};

uint32_t simt_thread(void);
uint32_t simt_threads(void);
uint32_t simt_block(void);
uint32_t simt_blocks(void);
unsigned char *simt_shared(void);

/* All threads of the block meet. */
void simt_barrier(struct simt_place place);

/* The lanes of the wave meet; `wave` is the size that the source was compiled for. */
void simt_wave_barrier(struct simt_place place, uint32_t wave);
uint32_t simt_shuffle(struct simt_place place, uint32_t wave, uint32_t value, uint32_t lane);
void simt_matrix_step(struct simt_place place, enum simt_instruction instruction, bool is_bf16,
                      const uint32_t *a, const uint32_t *b, float *c);

/* True for one lane, whichever. */
bool simt_elect(struct simt_place place, uint32_t wave);

/* ldmatrix: `count` (1, 2, 4) matrices of 8 x 8 16-bit values; lane 8 i + r gives the address of
 * row r of matrix i, and gets of each matrix row lane / 4, values 2 (lane % 4) and the next; of
 * the transposed matrix if so asked. */
void simt_load_matrix(struct simt_place place, unsigned count, bool transposed, const void *row,
                      uint32_t *registers);

/* 4 or 16 bytes to shared memory; zeros, and `global` is not looked at, where not `condition`. */
void simt_copy(struct simt_place place, void *shared, const void *global, uint32_t bytes,
               bool condition);
void simt_copy_now(void); /* lands those under way, as a plain copy would */
void simt_copy_commit(void);
void simt_copy_wait(uint32_t pending);

void simt_fence(struct simt_place place);

/* Adding zero again and again is taken as waiting for another thread. */
uint32_t simt_atomic_add(struct simt_place place, uint32_t *counter, uint32_t value);

/* Ends the launch unless the address is a multiple of `bytes`; and where it is of global memory
 * that the thread must not touch yet. */
void simt_need_aligned(struct simt_place place, const void *address, uint32_t bytes);
void simt_need_global(struct simt_place place, const void *address, uint32_t bytes);

/* ---- of sm_90a; see target.h --------------------------------------------------------------- */

uint32_t simt_load_early(struct simt_place place, const uint32_t *word);
void simt_previous_grid_wait(struct simt_place place);
void simt_next_grid_start(struct simt_place place);

uint32_t simt_cluster_rank(void);
void simt_cluster_arrive(struct simt_place place);
void simt_cluster_wait(struct simt_place place);
void simt_part_barrier(struct simt_place place, uint32_t threads);

void simt_mbarrier_init(struct simt_place place, void *mbarrier, uint32_t arrivals);
void simt_mbarrier_publish(struct simt_place place);
void simt_mbarrier_arrive(struct simt_place place, void *mbarrier);
void simt_mbarrier_arrive_at(struct simt_place place, void *mbarrier, uint32_t rank);
void simt_mbarrier_expect(struct simt_place place, void *mbarrier, uint32_t bytes);
void simt_mbarrier_wait(struct simt_place place, void *mbarrier, uint32_t phase);
void simt_mbarrier_wait_peers(struct simt_place place, void *mbarrier, uint32_t phase);
void simt_shared_publish(struct simt_place place);

void simt_bulk_copy(struct simt_place place, void *shared, const void *global, uint32_t bytes,
                    void *mbarrier);
void simt_tensor_copy(struct simt_place place, void *shared, const void *map, int32_t column,
                      int32_t row, void *mbarrier);
/* 16 bytes to the same place in block `rank` of the cluster, which count at its mbarrier. */
void simt_store_peer(struct simt_place place, const void *shared, uint32_t rank, const void *value,
                     const void *mbarrier);

void simt_wgmma(struct simt_place place, uint32_t n, bool is_bf16, float *c, const uint32_t *a,
                const unsigned char *b, uint32_t step);
void simt_wgmma_fence(struct simt_place place);
void simt_wgmma_commit(struct simt_place place);
void simt_wgmma_wait(struct simt_place place, uint32_t pending);

/* A warpgroup's registers a thread; no effect. */
void simt_registers(struct simt_place place, uint32_t count);

#ifdef __cplusplus
}
#endif

#endif
