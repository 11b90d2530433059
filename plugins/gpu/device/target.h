/*
 * The words of the device source, the same for NVIDIA, AMD and the tests' CPU.
 *
 * A device source includes this file alone; 16-bit floats travel as bits, so that no vendor type
 * is needed. Each target defines:
 *
 *   GPU_DEVICE                       before a function that runs on the device
 *   GPU_KERNEL(threads, blocks)      before `void entry(struct params)`: extern "C", at most so
 *                                    many threads a block, at least so many blocks resident
 *   GPU_SHARED(name)                 declares `unsigned char *name`: the block's dynamic shared
 *                                    memory, 16-byte aligned
 *   GPU_WAVE                         threads that run together: 32 or 64
 *   GPU_HAS_MMA                      1 where gpu_mma_* exist: 32 lanes, operands as for m16n8k16
 *   GPU_HAS_MMA_BF16                 1 where gpu_mma_bf16 does
 *
 *   GPU_HAS_MATRIX16                 1 where gpu_matrix_* exist, see below
 *
 *   uint32_t gpu_thread()            in the block
 *   uint32_t gpu_threads()           threads of the block
 *   uint32_t gpu_block()             in the grid (one axis)
 *   uint32_t gpu_blocks()            blocks of the grid
 *   void gpu_barrier()               all threads of the block; orders shared and global memory
 *   void gpu_wave_barrier()          all lanes of the wave; orders shared memory among them
 *   uint32_t gpu_shuffle(uint32_t value, uint32_t lane)      all lanes take part
 *   void gpu_fence()                 orders this thread's global accesses for the whole device
 *   uint32_t gpu_atomic_add(uint32_t *counter, uint32_t value)   the value before; relaxed
 *
 *   struct gpu_u32x4                 x, y, z, w; 16-byte aligned
 *   gpu_u32x4 gpu_load_stream(const void *)  16 aligned bytes that are read once
 *   gpu_u32x4 gpu_load_cached(const void *)  16 aligned bytes that other blocks read too
 *   gpu_u32x4 gpu_load_cached_if(const void *, bool)  the same, or zeros without touching memory
 *   void gpu_copy_async16(void *shared, const void *global)      16 aligned bytes to shared memory
 *   void gpu_copy_async16_if(void *shared, const void *global, bool condition)
 *                                    the same, or zeros without touching `global`
 *   void gpu_copy_async4(void *shared, const void *global)       4 aligned bytes likewise
 *   void gpu_copy_async_commit()     closes a batch of this thread's copies
 *   void gpu_copy_async_wait<N>()    until at most N of this thread's latest batches are under
 *                                    way; others see the bytes after a barrier
 *
 *   void gpu_load_matrix_x4(uint32_t out[4], const void *shared_row)
 *                                    ldmatrix: lane 8 i + r points to row r of matrix i, 16 aligned
 *                                    bytes of shared memory, and gets the pair lane % 4 of row
 *                                    lane / 4 of each: for rows of 8 columns, operand B
 *   void gpu_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2])    c += a * b
 *   void gpu_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
 *                                    operand maps as PTX gives them for mma.m16n8k16.row.col
 *
 *   void gpu_matrix_f16(float c[GPU_MATRIX_SUMS], const uint32_t a[2 * GPU_MATRIX_PAIRS],
 *                       const uint32_t b[2 * GPU_MATRIX_PAIRS]), gpu_matrix_bf16    c += a * b
 *                                    16 x 16 x 16. Lane l holds of row l % 16 of a, and of column
 *                                    l % 16 of b, first the pairs t to t + GPU_MATRIX_PAIRS - 1 of
 *                                    the first 8 places, then those of the other 8; the places may
 *                                    be in another order than the manual's, the same for a and b
 *   uint32_t gpu_matrix_pair()       this t
 *   uint32_t gpu_matrix_row(uint32_t i)    the row of sum i; its column is l % 16
 *
 *   gpu_f16x2_sub(a, b), _mul(a, b), _fma(a, b, c)    pairs as uint32_t, rounded once each
 *   gpu_bf16x2_sub, _mul                              likewise
 *   uint32_t gpu_f16x2_pack(float low, float high), gpu_bf16x2_pack   rounded to nearest even
 *   uint16_t gpu_f16_round(float), gpu_bf16_round(float); float gpu_f16_widen(uint16_t),
 *   gpu_bf16_widen(uint16_t)
 *   uint32_t gpu_permute(uint32_t a, uint32_t b, uint32_t selector)
 *                                    byte i is byte (selector >> 4 i & 7) of b:a (a holds 0 to 3)
 *   void gpu_keep(T &variable)       no effect: keeps the compiler from computing a pointer or a
 *                                    32-bit integer anew at each use instead of holding it;
 *                                    and from reading a float before this point
 *   void gpu_keep_order(float &sum)  no effect: what makes the sum stays before, loads that follow
 *                                    stay behind, where registers are short; AMD only
 *   uint32_t gpu_and_or(uint32_t a, uint32_t b, uint32_t c)     a & b | c
 *   uint32_t gpu_multiply_high(uint32_t, uint32_t)    the upper 32 bits of the product
 *   uint32_t gpu_load_early(const uint32_t *)    of prepared weights, before gpu_previous_grid_wait
 *
 *   GPU_HAS_WGMMA                    1 where the words of wide.h exist (sm_90a):
 *
 *   GPU_PARAMETER                    before the struct of an entry that holds a gpu_tensor_map
 *   void gpu_previous_grid_wait()    until all that the grids before this one on the stream wrote
 *                                    is seen; an entry launched with gpu_launch.early calls it
 *                                    before it reads or writes what others write or read
 *   void gpu_next_grid_start()       lets the next grid on the stream start, up to its wait
 *   uint32_t gpu_cluster_rank()      of this block in its cluster of gpu_launch.cluster blocks
 *   void gpu_cluster_arrive(), void gpu_cluster_wait()
 *                                    each once a thread, of all threads of the cluster: what they
 *                                    did before they arrived comes before what follows the wait
 *   unsigned char *gpu_shared_kept(unsigned char *shared)
 *                                    the same address, which the compiler keeps; all lanes of the
 *                                    wave call it
 *   uint32_t gpu_uniform_wave()      this thread's wave in its block, which the compiler then knows
 *                                    to be the same for all lanes
 *   bool gpu_elect()                 true for one lane of the wave, whose lanes all call it
 *   void gpu_part_barrier(uint32_t threads)
 *                                    like gpu_barrier, for those that call it: a multiple of
 *                                    whole waves, always the same ones
 *   void gpu_registers_give<N>(), gpu_registers_take<N>()
 *                                    a warpgroup's registers a thread
 *
 *   gpu_mbarrier                     counts arrivals and bytes; phases alternate between 0 and 1
 *   void gpu_mbarrier_init(gpu_mbarrier *, uint32_t arrivals)
 *                                    by one thread; others see it after gpu_mbarrier_publish()
 *                                    and a barrier
 *   void gpu_mbarrier_arrive(gpu_mbarrier *)
 *   void gpu_mbarrier_arrive_at(gpu_mbarrier *, uint32_t rank)
 *                                    at the same place in another block of the cluster; orders
 *                                    shared memory for those who wait there
 *   void gpu_mbarrier_expect(gpu_mbarrier *, uint32_t bytes)
 *                                    arrives, and lets the phase wait for so many bytes of bulk
 *                                    copies, too
 *   void gpu_mbarrier_wait(gpu_mbarrier *, uint32_t phase)
 *                                    until that phase is over; the phase before the first (1)
 *                                    always is
 *   void gpu_mbarrier_wait_peers(gpu_mbarrier *, uint32_t phase)
 *                                    the same where other blocks of the cluster arrive or store
 *   void gpu_shared_publish()        this thread's writes to shared memory, after a barrier, come
 *                                    before bulk copies to the same places
 *   void gpu_bulk_copy(void *shared, const void *global, uint32_t bytes, gpu_mbarrier *)
 *                                    multiples of 16; the bytes count at the mbarrier. Of
 *                                    prepared weights, before gpu_previous_grid_wait, too: no grid
 *                                    that writes them lets the next one start before its end
 *   void gpu_tensor_copy(void *shared, const gpu_tensor_map *, int32_t column, int32_t row,
 *                        gpu_mbarrier *)
 *                                    a box of 64 columns of 16 bits and the map's rows, from
 *                                    (column, row), which may lie outside: zeros there. Chunk c
 *                                    of 16 bytes of row r goes to r * 128 + (c ^ r % 8) * 16;
 *                                    shared is a multiple of 1024, or of 512, where r counts from
 *                                    the multiple of 1024 before; box rows * 128 bytes count. Of
 *                                    a map in boxes of 8 columns: row r goes to r * 16
 *   void gpu_tensor_prefetch(const gpu_tensor_map *)
 *                                    the map will be used soon
 *   void gpu_store_peer(void *shared, uint32_t rank, gpu_u32x4 value, gpu_mbarrier *)
 *                                    16 bytes to the same place in another block of the cluster,
 *                                    asynchronously; they count at its mbarrier
 *
 *   void gpu_wgmma_fence()           before the first gpu_wgmma of a batch: orders registers
 *   void gpu_wgmma<N, BF16>(float c[N / 2], const uint32_t a[4], const unsigned char *b,
 *                           uint32_t step)
 *                                    c += a * b by a warpgroup, asynchronously: wave w holds rows
 *                                    16 w on of a (64 x 16) as for m16n8k16, and of c (64 x N)
 *                                    with columns 8 i on in c[4 i] to c[4 i + 3]; b is a box of N
 *                                    rows as gpu_tensor_copy makes it, of which columns 16 step
 *                                    on count
 *   void gpu_wgmma_commit()          closes a batch
 *   void gpu_wgmma_wait<N>()         until at most N of the warpgroup's latest batches are under
 *                                    way; before, c, a and b must not be touched
 */
#ifndef KERNELRY_GPU_TARGET_H
#define KERNELRY_GPU_TARGET_H

#include <stddef.h>
#include <stdint.h>

struct alignas(16) gpu_u32x4 {
    uint32_t x, y, z, w;
};

#if defined(__CUDACC__)
#include "target_cuda.h"
#include "target_hopper.h"
#elif defined(__HIP__)
#include "target_amd.h"
#else
#include "target_cpu.h"
#endif

GPU_DEVICE uint32_t gpu_lane() { return gpu_thread() % GPU_WAVE; }
GPU_DEVICE uint32_t gpu_wave() { return gpu_thread() / GPU_WAVE; }

#endif
