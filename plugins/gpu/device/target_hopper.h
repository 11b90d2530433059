/*
 * target.h's words for what sm_90a alone has: clusters, mbarriers, bulk and tensor copies, wgmma.
 */
#ifndef KERNELRY_GPU_TARGET_HOPPER_H
#define KERNELRY_GPU_TARGET_HOPPER_H

#include "../params.h"
#include "target_cuda.h"

#if !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define GPU_HAS_WGMMA 0
#else
#define GPU_HAS_WGMMA 1
#define GPU_PARAMETER const __grid_constant__

GPU_DEVICE void gpu_previous_grid_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
GPU_DEVICE void gpu_next_grid_start() { asm volatile("griddepcontrol.launch_dependents;"); }
GPU_DEVICE uint32_t gpu_cluster_rank() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
GPU_DEVICE void gpu_cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
GPU_DEVICE void gpu_cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/* Where the block's shared memory begins lies in a special register, which the compiler reads again
 * wherever it is wanted (tens of clocks), unless a lane's number hides that it is the same. */
GPU_DEVICE unsigned char *gpu_shared_kept(unsigned char *shared) {
    uint32_t address = gpu_shuffle(gpu_shared_address(shared) + threadIdx.x % 32, 0);
    return static_cast<unsigned char *>(__cvta_shared_to_generic(address));
}
GPU_DEVICE uint32_t gpu_uniform_wave() { return gpu_shuffle(threadIdx.x / 32, 0); }
GPU_DEVICE bool gpu_elect() {
    uint32_t elected;
    asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p; }"
                 : "=r"(elected));
    return elected != 0;
}
GPU_DEVICE void gpu_part_barrier(uint32_t threads) {
    asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
}
template <int N> GPU_DEVICE void gpu_registers_give() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> GPU_DEVICE void gpu_registers_take() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- mbarriers and copies ---------------------------------------------------------------- */

typedef uint64_t gpu_mbarrier;

GPU_DEVICE uint32_t gpu_peer_address(const void *shared, uint32_t rank) {
    uint32_t address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(address)
        : "r"(gpu_shared_address(const_cast<void *>(shared))), "r"(rank));
    return address;
}
GPU_DEVICE void gpu_mbarrier_init(gpu_mbarrier *barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(gpu_shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}
GPU_DEVICE void gpu_mbarrier_publish() {
    asm volatile("fence.mbarrier_init.release.cluster;\n"
                 "fence.proxy.async.shared::cta;" ::
                     : "memory");
}
GPU_DEVICE void gpu_shared_publish() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
GPU_DEVICE void gpu_mbarrier_arrive(gpu_mbarrier *barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(gpu_shared_address(barrier))
                 : "memory");
}
GPU_DEVICE void gpu_mbarrier_arrive_at(gpu_mbarrier *barrier, uint32_t rank) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(
                     gpu_peer_address(barrier, rank))
                 : "memory");
}
GPU_DEVICE void gpu_mbarrier_expect(gpu_mbarrier *barrier, uint32_t bytes) {
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(gpu_shared_address(barrier)),
        "r"(bytes)
        : "memory");
}
/* Acquiring for the cluster empties L1, so that only those who wait for sums do it. */
#define GPU_MBARRIER_WAIT(scope)                                                                   \
    asm volatile("{ .reg .pred p;\n"                                                               \
                 "again: mbarrier.try_wait.parity.acquire." scope                                  \
                 ".shared::cta.b64 p, [%0], %1;\n"                                                 \
                 "@!p bra again; }" ::"r"(gpu_shared_address(barrier)),                            \
                 "r"(phase)                                                                        \
                 : "memory")
GPU_DEVICE void gpu_mbarrier_wait(gpu_mbarrier *barrier, uint32_t phase) {
    GPU_MBARRIER_WAIT("cta");
}
GPU_DEVICE void gpu_mbarrier_wait_peers(gpu_mbarrier *barrier, uint32_t phase) {
    GPU_MBARRIER_WAIT("cluster");
}
GPU_DEVICE void gpu_bulk_copy(void *shared, const void *global, uint32_t bytes,
                              gpu_mbarrier *barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(gpu_shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(gpu_shared_address(barrier))
                 : "memory");
}
GPU_DEVICE void gpu_tensor_prefetch(const gpu_tensor_map *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
GPU_DEVICE void gpu_tensor_copy(void *shared, const gpu_tensor_map *map, int32_t column,
                                int32_t row, gpu_mbarrier *barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(gpu_shared_address(shared)),
                 "l"(map), "r"(column), "r"(row), "r"(gpu_shared_address(barrier))
                 : "memory");
}
GPU_DEVICE void gpu_store_peer(void *shared, uint32_t rank, gpu_u32x4 v, gpu_mbarrier *barrier) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 "
                 "[%0], {%1, %2, %3, %4}, [%5];" ::"r"(gpu_peer_address(shared, rank)),
                 "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(gpu_peer_address(barrier, rank))
                 : "memory");
}

/* ---- wgmma ---------------------------------------------------------------------------------- */

GPU_DEVICE void gpu_wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
GPU_DEVICE void gpu_wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> GPU_DEVICE void gpu_wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* The descriptor of operand B: rows of 128 bytes, swizzled alike, eight of them 1024 bytes. */
GPU_DEVICE uint64_t gpu_wgmma_operand(const unsigned char *b, uint32_t step) {
    uint32_t low = gpu_shared_address(const_cast<unsigned char *>(b)) / 16 + 0x10000 + step * 2;
    return uint64_t{0x40000040} << 32 | low;
}

/* Names of registers 10 d to 10 d + 9 in a template, and of d0 to d + 3 as operands. */
#define GPU_TEN(d)                                                                                 \
    "%" #d "0, %" #d "1, %" #d "2, %" #d "3, %" #d "4, %" #d "5, %" #d "6, %" #d "7, %" #d         \
    "8, %" #d "9, "
#define GPU_FIRST_TEN "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, "
#define GPU_C4(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define GPU_C16(i) GPU_C4(i), GPU_C4(i + 4), GPU_C4(i + 8), GPU_C4(i + 12)
#define GPU_C64(i) GPU_C16(i), GPU_C16(i + 16), GPU_C16(i + 32), GPU_C16(i + 48)

/* One instruction: its N and type, its registers of c in the template, those of a and the
 * descriptor, and c as operands. */
#define GPU_WGMMA(n, type, names, a0, a1, a2, a3, b0, ...)                                         \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" names "}, "  \
                 "{%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b0 ", 1, 1, 1, 0;"                 \
                 : __VA_ARGS__                                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(operand))
#define GPU_WGMMAS(type)                                                                           \
    if constexpr (N == 8)                                                                          \
        GPU_WGMMA(8, type, "%0, %1, %2, %3", 4, 5, 6, 7, 8, GPU_C4(0));                            \
    else if constexpr (N == 16)                                                                    \
        GPU_WGMMA(16, type, "%0, %1, %2, %3, %4, %5, %6, %7", 8, 9, 10, 11, 12, GPU_C4(0),         \
                  GPU_C4(4));                                                                      \
    else if constexpr (N == 32)                                                                    \
        GPU_WGMMA(32, type, GPU_FIRST_TEN "%10, %11, %12, %13, %14, %15", 16, 17, 18, 19, 20,      \
                  GPU_C16(0));                                                                     \
    else if constexpr (N == 64)                                                                    \
        GPU_WGMMA(64, type, GPU_FIRST_TEN GPU_TEN(1) GPU_TEN(2) "%30, %31", 32, 33, 34, 35, 36,    \
                  GPU_C16(0), GPU_C16(16));                                                        \
    else if constexpr (N == 128)                                                                   \
        GPU_WGMMA(128, type,                                                                       \
                  GPU_FIRST_TEN GPU_TEN(1) GPU_TEN(2) GPU_TEN(3) GPU_TEN(4)                        \
                      GPU_TEN(5) "%60, %61, %62, %63",                                             \
                  64, 65, 66, 67, 68, GPU_C64(0));                                                 \
    else if constexpr (N == 192)                                                                   \
        GPU_WGMMA(192, type,                                                                       \
                  GPU_FIRST_TEN GPU_TEN(1) GPU_TEN(2) GPU_TEN(3) GPU_TEN(4) GPU_TEN(5) GPU_TEN(6)  \
                      GPU_TEN(7) GPU_TEN(8) "%90, %91, %92, %93, %94, %95",                        \
                  96, 97, 98, 99, 100, GPU_C64(0), GPU_C16(64), GPU_C16(80));                      \
    else                                                                                           \
        GPU_WGMMA(256, type,                                                                       \
                  GPU_FIRST_TEN GPU_TEN(1) GPU_TEN(2) GPU_TEN(3) GPU_TEN(4) GPU_TEN(5) GPU_TEN(6)  \
                      GPU_TEN(7) GPU_TEN(8) GPU_TEN(9) GPU_TEN(10)                                 \
                          GPU_TEN(11) "%120, %121, %122, %123, %124, %125, %126, %127",            \
                  128, 129, 130, 131, 132, GPU_C64(0), GPU_C64(64))

template <int N, bool BF16>
GPU_DEVICE void gpu_wgmma(float (&c)[N / 2], const uint32_t a[4], const unsigned char *b,
                          uint32_t step) {
    static_assert(N == 8 || N == 16 || N == 32 || N == 64 || N == 128 || N == 192 || N == 256);
    uint64_t operand = gpu_wgmma_operand(b, step);
    if constexpr (BF16) {
        GPU_WGMMAS("bf16");
    } else {
        GPU_WGMMAS("f16");
    }
}
#endif

#endif
