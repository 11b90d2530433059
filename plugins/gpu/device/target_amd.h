/*
 * target.h's words for AMD, from compiler builtins alone: no ROCm header is needed. Devices without
 * matrix instructions have the product of plain.h.
 */
#ifndef KERNELRY_GPU_TARGET_AMD_H
#define KERNELRY_GPU_TARGET_AMD_H

#define GPU_DEVICE static __attribute__((device, always_inline)) inline
#define GPU_KERNEL(threads, blocks)                                                                \
    extern "C" __attribute__((global, amdgpu_flat_work_group_size(1, threads))) void
#define GPU_SHARED(name)                                                                           \
    extern __attribute__((shared)) gpu_u32x4 gpu_shared_memory[];                                  \
    unsigned char *name = reinterpret_cast<unsigned char *>(gpu_shared_memory)
#if defined(__GFX9__)
#define GPU_WAVE 64u
#else
#define GPU_WAVE 32u
#endif
#define GPU_HAS_MMA 0

/* The matrix instruction: CDNA2 and 3, RDNA3, RDNA4. */
#if defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx950__)
#define GPU_AMD_CDNA 1
#define GPU_MATRIX_PAIRS 1
#define GPU_MATRIX_SUMS 4
#elif defined(__GFX11__)
#define GPU_AMD_RDNA3 1
#define GPU_MATRIX_PAIRS 4
#define GPU_MATRIX_SUMS 8
#elif defined(__GFX12__)
#define GPU_AMD_RDNA4 1
#define GPU_MATRIX_PAIRS 2
#define GPU_MATRIX_SUMS 8
#endif
#ifdef GPU_MATRIX_PAIRS
#define GPU_HAS_MATRIX16 1
#else
#define GPU_HAS_MATRIX16 0
#endif

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
GPU_DEVICE uint32_t gpu_bf16x2_pack(float low, float high) {
    return gpu_bf16_round(low) | static_cast<uint32_t>(gpu_bf16_round(high)) << 16;
}
/* The instruction takes a byte for each of selector's nibbles. */
GPU_DEVICE uint32_t gpu_permute(uint32_t a, uint32_t b, uint32_t selector) {
    uint32_t wide = (selector & 7) | (selector & 0x70) << 4 | (selector & 0x700) << 8 |
                    (selector & 0x7000) << 12;
    return __builtin_amdgcn_perm(b, a, wide);
}
template <class T> GPU_DEVICE void gpu_keep(T &) {}
#if defined(GPU_AMD_CDNA) /* registers are enough, and this would keep sums from the other file */
GPU_DEVICE void gpu_keep_order(float &) {}
#else
GPU_DEVICE void gpu_keep_order(float &sum) { asm volatile("" : "+v"(sum)::"memory"); }
#endif
GPU_DEVICE uint32_t gpu_multiply_high(uint32_t a, uint32_t b) {
    return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
}
GPU_DEVICE uint32_t gpu_load_early(const uint32_t *word) { return *word; }

typedef uint32_t gpu_amd_u32x4 __attribute__((ext_vector_type(4)));
GPU_DEVICE gpu_u32x4 gpu_load_cached(const void *from) {
    return *static_cast<const gpu_u32x4 *>(from);
}
GPU_DEVICE gpu_u32x4 gpu_load_stream(const void *from) {
    gpu_amd_u32x4 v = __builtin_nontemporal_load(static_cast<const gpu_amd_u32x4 *>(from));
    return {v.x, v.y, v.z, v.w};
}

typedef _Float16 gpu_amd_f16x2 __attribute__((ext_vector_type(2)));
GPU_DEVICE uint32_t gpu_f16x2_sub(uint32_t a, uint32_t b) {
    return __builtin_bit_cast(uint32_t, __builtin_bit_cast(gpu_amd_f16x2, a) -
                                            __builtin_bit_cast(gpu_amd_f16x2, b));
}
GPU_DEVICE uint32_t gpu_f16x2_mul(uint32_t a, uint32_t b) {
    return __builtin_bit_cast(uint32_t, __builtin_bit_cast(gpu_amd_f16x2, a) *
                                            __builtin_bit_cast(gpu_amd_f16x2, b));
}

#if GPU_HAS_MATRIX16
/* Operands and sums as the compiler's builtins want them. */
typedef _Float16 gpu_amd_f16 __attribute__((ext_vector_type(4 * GPU_MATRIX_PAIRS)));
typedef short gpu_amd_bf16 __attribute__((ext_vector_type(4 * GPU_MATRIX_PAIRS)));
typedef float gpu_amd_sums __attribute__((ext_vector_type(GPU_MATRIX_SUMS)));

GPU_DEVICE uint32_t gpu_matrix_pair() {
#if defined(GPU_AMD_RDNA3) /* a lane holds all of a row, as does the one 16 lanes further */
    return 0;
#else
    return gpu_thread() % GPU_WAVE / 16 * GPU_MATRIX_PAIRS;
#endif
}
GPU_DEVICE uint32_t gpu_matrix_row(uint32_t i) {
    uint32_t part = gpu_thread() % GPU_WAVE / 16;
#if defined(GPU_AMD_RDNA3)
    return i * 2 + part;
#else
    return part * GPU_MATRIX_SUMS + i;
#endif
}
GPU_DEVICE gpu_amd_sums gpu_amd_multiply_add(gpu_amd_f16 a, gpu_amd_f16 b, gpu_amd_sums c) {
#if defined(GPU_AMD_CDNA)
    return __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, c, 0, 0, 0);
#elif defined(GPU_AMD_RDNA3)
    return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, c);
#else
    return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, b, c);
#endif
}
GPU_DEVICE gpu_amd_sums gpu_amd_multiply_add(gpu_amd_bf16 a, gpu_amd_bf16 b, gpu_amd_sums c) {
#if defined(GPU_AMD_CDNA)
    return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, c, 0, 0, 0);
#elif defined(GPU_AMD_RDNA3)
    return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, c);
#else
    return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, c);
#endif
}
template <class T> GPU_DEVICE void gpu_amd_matrix(float *c, const uint32_t *a, const uint32_t *b) {
    T left, right;
    gpu_amd_sums sums;
    __builtin_memcpy(&left, a, sizeof left);
    __builtin_memcpy(&right, b, sizeof right);
    __builtin_memcpy(&sums, c, sizeof sums);
    sums = gpu_amd_multiply_add(left, right, sums);
    __builtin_memcpy(c, &sums, sizeof sums);
}
GPU_DEVICE void gpu_matrix_f16(float *c, const uint32_t *a, const uint32_t *b) {
    gpu_amd_matrix<gpu_amd_f16>(c, a, b);
}
GPU_DEVICE void gpu_matrix_bf16(float *c, const uint32_t *a, const uint32_t *b) {
    gpu_amd_matrix<gpu_amd_bf16>(c, a, b);
}
#endif

#endif
