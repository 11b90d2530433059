/*
 * target.h's words for AMD, from compiler builtins alone: no ROCm header is needed. GPU_HAS_MMA is
 * 0: the product comes from plain.h.
 */
#ifndef KERNELRY_GPU_TARGET_AMD_H
#define KERNELRY_GPU_TARGET_AMD_H

#define GPU_DEVICE static __attribute__((device, always_inline)) inline
#define GPU_KERNEL(threads, blocks)                                                                \
    extern "C" __attribute__((global, amdgpu_flat_work_group_size(1, threads))) void
#define GPU_SHARED(name)                                                                           \
    extern __attribute__((shared)) gpu_u32x4 gpu_shared_memory[];                                  \
    unsigned char *name = reinterpret_cast<unsigned char *>(gpu_shared_memory)
#define GPU_WAVE (static_cast<uint32_t>(__builtin_amdgcn_wavefrontsize()))
#define GPU_HAS_MMA 0

GPU_DEVICE uint32_t gpu_thread() { return __builtin_amdgcn_workitem_id_x(); }
GPU_DEVICE uint32_t gpu_threads() { return __builtin_amdgcn_workgroup_size_x(); }
GPU_DEVICE uint32_t gpu_block() { return __builtin_amdgcn_workgroup_id_x(); }
GPU_DEVICE uint32_t gpu_blocks() { return __builtin_amdgcn_grid_size_x() / gpu_threads(); }
GPU_DEVICE void gpu_barrier() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
GPU_DEVICE void gpu_fence() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "agent"); }
GPU_DEVICE uint32_t gpu_atomic_add(uint32_t *counter, uint32_t value) {
    return __hip_atomic_fetch_add(counter, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

GPU_DEVICE float gpu_f16_widen(uint16_t bits) {
    _Float16 value;
    __builtin_memcpy(&value, &bits, 2);
    return static_cast<float>(value);
}
GPU_DEVICE uint16_t gpu_f16_round(float value) {
    _Float16 half = static_cast<_Float16>(value);
    uint16_t bits;
    __builtin_memcpy(&bits, &half, 2);
    return bits;
}
GPU_DEVICE float gpu_bf16_widen(uint16_t bits) {
    uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    __builtin_memcpy(&value, &wide, 4);
    return value;
}
GPU_DEVICE uint16_t gpu_bf16_round(float value) { /* to nearest even; NaN stays NaN */
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return static_cast<uint16_t>(bits >> 16 | 0x40u);
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
GPU_DEVICE uint32_t gpu_permute(uint32_t a, uint32_t b, uint32_t selector) {
    uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    uint32_t result = 0;
    for (uint32_t i = 0; i < 4; i++)
        result |= static_cast<uint32_t>(both >> ((selector >> (4 * i) & 7) * 8) & 0xff) << (8 * i);
    return result;
}
GPU_DEVICE uint32_t gpu_multiply_high(uint32_t a, uint32_t b) {
    return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
}

#endif
