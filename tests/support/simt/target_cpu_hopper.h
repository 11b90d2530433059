/* target_cpu.h's words for what sm_90a alone has; see target.h, and hopper.h for what is behind. */
#ifndef TESTS_SUPPORT_SIMT_TARGET_CPU_HOPPER_H
#define TESTS_SUPPORT_SIMT_TARGET_CPU_HOPPER_H

#include "target_cpu.h"

#define GPU_PARAMETER const

struct gpu_tensor_map; /* params.h */

GPU_DEVICE void gpu_previous_grid_wait(SIMT_WHERE) { simt_previous_grid_wait(SIMT_PLACE); }
GPU_DEVICE void gpu_next_grid_start(SIMT_WHERE) { simt_next_grid_start(SIMT_PLACE); }
GPU_DEVICE uint32_t gpu_cluster_rank() { return simt_cluster_rank(); }
GPU_DEVICE void gpu_cluster_arrive(SIMT_WHERE) { simt_cluster_arrive(SIMT_PLACE); }
GPU_DEVICE void gpu_cluster_wait(SIMT_WHERE) { simt_cluster_wait(SIMT_PLACE); }
GPU_DEVICE unsigned char *gpu_shared_kept(unsigned char *shared, SIMT_WHERE) {
    simt_shuffle(SIMT_PLACE, GPU_WAVE, 0, 0);
    return shared;
}
GPU_DEVICE uint32_t gpu_uniform_wave(SIMT_WHERE) {
    return simt_shuffle(SIMT_PLACE, GPU_WAVE, gpu_thread() / GPU_WAVE, 0);
}
GPU_DEVICE bool gpu_elect(SIMT_WHERE) { return simt_elect(SIMT_PLACE, GPU_WAVE); }
GPU_DEVICE void gpu_part_barrier(uint32_t threads, SIMT_WHERE) {
    simt_part_barrier(SIMT_PLACE, threads);
}
template <int N> GPU_DEVICE void gpu_registers_give(SIMT_WHERE) {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0);
    simt_registers(SIMT_PLACE, static_cast<uint32_t>(N));
}
template <int N> GPU_DEVICE void gpu_registers_take(SIMT_WHERE) {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0);
    simt_registers(SIMT_PLACE, static_cast<uint32_t>(N));
}

/* ---- mbarriers and copies ---------------------------------------------------------------- */

typedef uint64_t gpu_mbarrier;

GPU_DEVICE void gpu_mbarrier_init(gpu_mbarrier *barrier, uint32_t arrivals, SIMT_WHERE) {
    simt_mbarrier_init(SIMT_PLACE, barrier, arrivals);
}
GPU_DEVICE void gpu_mbarrier_publish(SIMT_WHERE) { simt_mbarrier_publish(SIMT_PLACE); }
GPU_DEVICE void gpu_mbarrier_arrive(gpu_mbarrier *barrier, SIMT_WHERE) {
    simt_mbarrier_arrive(SIMT_PLACE, barrier);
}
GPU_DEVICE void gpu_mbarrier_arrive_at(gpu_mbarrier *barrier, uint32_t rank, SIMT_WHERE) {
    simt_mbarrier_arrive_at(SIMT_PLACE, barrier, rank);
}
GPU_DEVICE void gpu_mbarrier_expect(gpu_mbarrier *barrier, uint32_t bytes, SIMT_WHERE) {
    simt_mbarrier_expect(SIMT_PLACE, barrier, bytes);
}
GPU_DEVICE void gpu_mbarrier_wait(gpu_mbarrier *barrier, uint32_t phase, SIMT_WHERE) {
    simt_mbarrier_wait(SIMT_PLACE, barrier, phase);
}
GPU_DEVICE void gpu_mbarrier_wait_peers(gpu_mbarrier *barrier, uint32_t phase, SIMT_WHERE) {
    simt_mbarrier_wait_peers(SIMT_PLACE, barrier, phase);
}
GPU_DEVICE void gpu_shared_publish(SIMT_WHERE) { simt_shared_publish(SIMT_PLACE); }
GPU_DEVICE void gpu_bulk_copy(void *shared, const void *global, uint32_t bytes,
                              gpu_mbarrier *barrier, SIMT_WHERE) {
    simt_bulk_copy(SIMT_PLACE, shared, global, bytes, barrier);
}
GPU_DEVICE void gpu_tensor_prefetch(const gpu_tensor_map *) {}
GPU_DEVICE void gpu_tensor_copy(void *shared, const gpu_tensor_map *map, int32_t column,
                                int32_t row, gpu_mbarrier *barrier, SIMT_WHERE) {
    simt_tensor_copy(SIMT_PLACE, shared, map, column, row, barrier);
}
GPU_DEVICE void gpu_store_peer(void *shared, uint32_t rank, gpu_u32x4 value, gpu_mbarrier *barrier,
                               SIMT_WHERE) {
    simt_store_peer(SIMT_PLACE, shared, rank, &value, barrier);
}

/* ---- wgmma ---------------------------------------------------------------------------------- */

GPU_DEVICE void gpu_wgmma_fence(SIMT_WHERE) { simt_wgmma_fence(SIMT_PLACE); }
GPU_DEVICE void gpu_wgmma_commit(SIMT_WHERE) { simt_wgmma_commit(SIMT_PLACE); }
template <int N> GPU_DEVICE void gpu_wgmma_wait(SIMT_WHERE) {
    static_assert(N >= 0 && N <= 7);
    simt_wgmma_wait(SIMT_PLACE, static_cast<uint32_t>(N));
}
template <int N, bool BF16>
GPU_DEVICE void gpu_wgmma(float (&c)[N / 2], const uint32_t a[4], const unsigned char *b,
                          uint32_t step, SIMT_WHERE) {
    static_assert(N == 8 || N == 16 || N == 32 || N == 64 || N == 128 || N == 192 || N == 256);
    simt_wgmma(SIMT_PLACE, static_cast<uint32_t>(N), BF16, c, a, b, step);
}

#endif
