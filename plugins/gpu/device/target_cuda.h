/*
 * target.h's words for NVIDIA, sm_75 and later. What sm_75 lacks (asynchronous copies, m16n8k16,
 * bf16 arithmetic) is put together from what it has: right, and slower. It has no bf16 matrix
 * instruction.
 */
#ifndef KERNELRY_GPU_TARGET_CUDA_H
#define KERNELRY_GPU_TARGET_CUDA_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define GPU_DEVICE static __device__ __forceinline__
#define GPU_KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define GPU_SHARED(name)                                                                           \
    extern __shared__ gpu_u32x4 gpu_shared_memory[];                                               \
    unsigned char *name = reinterpret_cast<unsigned char *>(gpu_shared_memory)
#define GPU_WAVE 32u
#define GPU_HAS_MMA 1
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define GPU_HAS_MMA_BF16 0
#else
#define GPU_HAS_MMA_BF16 1
#endif

GPU_DEVICE uint32_t gpu_thread() { return threadIdx.x; }
GPU_DEVICE uint32_t gpu_threads() { return blockDim.x; }
GPU_DEVICE uint32_t gpu_block() { return blockIdx.x; }
GPU_DEVICE uint32_t gpu_blocks() { return gridDim.x; }
GPU_DEVICE void gpu_barrier() { __syncthreads(); }
GPU_DEVICE void gpu_wave_barrier() { __syncwarp(); }
GPU_DEVICE uint32_t gpu_shuffle(uint32_t value, uint32_t lane) {
    return __shfl_sync(0xffffffffu, value, static_cast<int>(lane));
}
GPU_DEVICE void gpu_fence() { __threadfence(); }
GPU_DEVICE uint32_t gpu_atomic_add(uint32_t *counter, uint32_t value) {
    return atomicAdd(counter, value);
}

GPU_DEVICE gpu_u32x4 gpu_load_stream(const void *from) {
    gpu_u32x4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}
GPU_DEVICE gpu_u32x4 gpu_load_cached(const void *from) {
    gpu_u32x4 v;
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}
GPU_DEVICE gpu_u32x4 gpu_load_cached_if(const void *from, bool condition) {
    gpu_u32x4 v;
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %5, 0;\n"
                 "mov.u32 %0, 0; mov.u32 %1, 0; mov.u32 %2, 0; mov.u32 %3, 0;\n"
                 "@p ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4]; }"
                 : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
                 : "l"(from), "r"(static_cast<uint32_t>(condition)));
    return v;
}

GPU_DEVICE uint32_t gpu_shared_address(const void *shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
#if __CUDA_ARCH__ >= 800
GPU_DEVICE void gpu_copy_async16(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(gpu_shared_address(shared)),
                 "l"(global)
                 : "memory");
}
GPU_DEVICE void gpu_copy_async16_if(void *shared, const void *global, bool condition) {
    asm volatile("{ .reg .pred p; setp.eq.u32 p, %2, 0;\n"
                 "cp.async.cg.shared.global [%0], [%1], 16, p; }" ::"r"(gpu_shared_address(shared)),
                 "l"(global), "r"(static_cast<uint32_t>(condition))
                 : "memory");
}
GPU_DEVICE void gpu_copy_async4(void *shared, const void *global) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(gpu_shared_address(shared)),
                 "l"(global)
                 : "memory");
}
GPU_DEVICE void gpu_copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> GPU_DEVICE void gpu_copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#else
GPU_DEVICE void gpu_copy_async16(void *shared, const void *global) {
    *static_cast<gpu_u32x4 *>(shared) = *static_cast<const gpu_u32x4 *>(global);
}
GPU_DEVICE void gpu_copy_async16_if(void *shared, const void *global, bool condition) {
    gpu_u32x4 value = {0, 0, 0, 0};
    if (condition)
        value = *static_cast<const gpu_u32x4 *>(global);
    *static_cast<gpu_u32x4 *>(shared) = value;
}
GPU_DEVICE void gpu_copy_async4(void *shared, const void *global) {
    *static_cast<uint32_t *>(shared) = *static_cast<const uint32_t *>(global);
}
GPU_DEVICE void gpu_copy_async_commit() {}
template <int N> GPU_DEVICE void gpu_copy_async_wait() {}
#endif

GPU_DEVICE void gpu_load_matrix_x4(uint32_t out[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}

#if __CUDA_ARCH__ >= 800
GPU_DEVICE void gpu_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
GPU_DEVICE void gpu_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
GPU_DEVICE void gpu_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    for (int half = 0; half < 2; half++)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5}, {%6}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[half * 2]), "r"(a[half * 2 + 1]), "r"(b[half]));
}
#endif

GPU_DEVICE __half2 gpu_as_f16x2(uint32_t bits) { return *reinterpret_cast<__half2 *>(&bits); }
GPU_DEVICE uint32_t gpu_bits(__half2 value) { return *reinterpret_cast<uint32_t *>(&value); }
GPU_DEVICE uint32_t gpu_f16x2_sub(uint32_t a, uint32_t b) {
    return gpu_bits(__hsub2(gpu_as_f16x2(a), gpu_as_f16x2(b)));
}
GPU_DEVICE uint32_t gpu_f16x2_mul(uint32_t a, uint32_t b) {
    return gpu_bits(__hmul2(gpu_as_f16x2(a), gpu_as_f16x2(b)));
}
GPU_DEVICE uint32_t gpu_f16x2_fma(uint32_t a, uint32_t b, uint32_t c) {
    return gpu_bits(__hfma2(gpu_as_f16x2(a), gpu_as_f16x2(b), gpu_as_f16x2(c)));
}
GPU_DEVICE uint32_t gpu_bits(__nv_bfloat162 value) { return *reinterpret_cast<uint32_t *>(&value); }
#if __CUDA_ARCH__ >= 800
GPU_DEVICE __nv_bfloat162 gpu_as_bf16x2(uint32_t bits) {
    return *reinterpret_cast<__nv_bfloat162 *>(&bits);
}
GPU_DEVICE uint32_t gpu_bf16x2_sub(uint32_t a, uint32_t b) {
    return gpu_bits(__hsub2(gpu_as_bf16x2(a), gpu_as_bf16x2(b)));
}
GPU_DEVICE uint32_t gpu_bf16x2_mul(uint32_t a, uint32_t b) {
    return gpu_bits(__hmul2(gpu_as_bf16x2(a), gpu_as_bf16x2(b)));
}
#else
GPU_DEVICE float gpu_low_half(uint32_t pair) { return __uint_as_float(pair << 16); }
GPU_DEVICE float gpu_high_half(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
GPU_DEVICE uint32_t gpu_bf16x2_sub(uint32_t a, uint32_t b) {
    return gpu_bits(__floats2bfloat162_rn(gpu_low_half(a) - gpu_low_half(b),
                                          gpu_high_half(a) - gpu_high_half(b)));
}
GPU_DEVICE uint32_t gpu_bf16x2_mul(uint32_t a, uint32_t b) {
    return gpu_bits(__floats2bfloat162_rn(gpu_low_half(a) * gpu_low_half(b),
                                          gpu_high_half(a) * gpu_high_half(b)));
}
#endif
GPU_DEVICE uint32_t gpu_f16x2_pack(float low, float high) {
    return gpu_bits(__floats2half2_rn(low, high));
}
GPU_DEVICE uint32_t gpu_bf16x2_pack(float low, float high) {
    return gpu_bits(__floats2bfloat162_rn(low, high));
}
GPU_DEVICE uint16_t gpu_f16_round(float value) { return __half_as_ushort(__float2half_rn(value)); }
GPU_DEVICE uint16_t gpu_bf16_round(float value) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
GPU_DEVICE float gpu_f16_widen(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
GPU_DEVICE float gpu_bf16_widen(uint16_t bits) {
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}
GPU_DEVICE uint32_t gpu_permute(uint32_t a, uint32_t b, uint32_t selector) {
    return __byte_perm(a, b, selector);
}
template <class T> GPU_DEVICE void gpu_keep(T *&pointer) { asm volatile("" : "+l"(pointer)); }
GPU_DEVICE void gpu_keep(uint32_t &value) { asm volatile("" : "+r"(value)); }
GPU_DEVICE void gpu_keep(int32_t &value) { asm volatile("" : "+r"(value)); }
GPU_DEVICE void gpu_keep(float &value) { asm volatile("" : "+f"(value)); }
GPU_DEVICE uint32_t gpu_and_or(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
}
GPU_DEVICE uint32_t gpu_multiply_high(uint32_t a, uint32_t b) { return __umulhi(a, b); }
GPU_DEVICE uint32_t gpu_load_early(const uint32_t *word) { return *word; }

#endif
