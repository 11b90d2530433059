/*
 * target.h's words on a CPU, for tests; see simt.h. The macros say which GPU is played:
 *
 *   KRY_SIMT_WAVE  lanes of a wave, 32 (as NVIDIA and RDNA) or 64 (as CDNA)
 *   KRY_SIMT_AMD   1: CDNA, 3: RDNA3, 4: RDNA4, with their matrix instruction; 0: NVIDIA, with
 *                  that of m16n8k16
 *   KRY_SIMT_ARCH  90: all words, see target_cpu_hopper.h; 80; 75: copies are not asynchronous,
 *                  m16n8k16 is two of m16n8k8, and there is none for bf16
 */
#ifndef TESTS_SUPPORT_SIMT_TARGET_CPU_H
#define TESTS_SUPPORT_SIMT_TARGET_CPU_H

#include <string.h>

#include "numbers.h"
#include "words.h"

#ifndef KRY_SIMT_WAVE
#define KRY_SIMT_WAVE 32
#endif
#ifndef KRY_SIMT_AMD
#define KRY_SIMT_AMD 0
#endif
#ifndef KRY_SIMT_ARCH
#define KRY_SIMT_ARCH 80
#endif

#define GPU_DEVICE [[maybe_unused]] static inline
#define GPU_KERNEL(threads, blocks) extern "C" void
#define GPU_SHARED(name) unsigned char *name = simt_shared()
#define GPU_WAVE static_cast<uint32_t>(KRY_SIMT_WAVE)
#define GPU_HAS_MMA (KRY_SIMT_AMD == 0)
#define GPU_HAS_MMA_BF16 (GPU_HAS_MMA && KRY_SIMT_ARCH >= 80)
#define GPU_HAS_MATRIX16 (KRY_SIMT_AMD != 0)

/* The parameters that a word ends with tell where it stands; device source leaves them out. */
#define SIMT_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SIMT_PLACE                                                                                 \
    simt_place { __func__, file, line }

GPU_DEVICE uint32_t gpu_thread() { return simt_thread(); }
GPU_DEVICE uint32_t gpu_threads() { return simt_threads(); }
GPU_DEVICE uint32_t gpu_block() { return simt_block(); }
GPU_DEVICE uint32_t gpu_blocks() { return simt_blocks(); }
GPU_DEVICE void gpu_barrier(SIMT_WHERE) { simt_barrier(SIMT_PLACE); }
GPU_DEVICE void gpu_wave_barrier(SIMT_WHERE) { simt_wave_barrier(SIMT_PLACE, GPU_WAVE); }
GPU_DEVICE uint32_t gpu_shuffle(uint32_t value, uint32_t lane, SIMT_WHERE) {
    return simt_shuffle(SIMT_PLACE, GPU_WAVE, value, lane);
}
GPU_DEVICE void gpu_fence(SIMT_WHERE) { simt_fence(SIMT_PLACE); }
GPU_DEVICE uint32_t gpu_atomic_add(uint32_t *counter, uint32_t value, SIMT_WHERE) {
    return simt_atomic_add(SIMT_PLACE, counter, value);
}

GPU_DEVICE gpu_u32x4 gpu_load_stream(const void *from, SIMT_WHERE) {
    simt_need_global(SIMT_PLACE, from, 16);
    gpu_u32x4 value;
    memcpy(&value, from, sizeof value);
    return value;
}
GPU_DEVICE gpu_u32x4 gpu_load_cached(const void *from, SIMT_WHERE) {
    simt_need_global(SIMT_PLACE, from, 16);
    gpu_u32x4 value;
    memcpy(&value, from, sizeof value);
    return value;
}
GPU_DEVICE gpu_u32x4 gpu_load_cached_if(const void *from, bool condition, SIMT_WHERE) {
    return condition ? gpu_load_cached(from, file, line) : gpu_u32x4{0, 0, 0, 0};
}

GPU_DEVICE void simt_copy_of(simt_place place, void *shared, const void *global, uint32_t bytes,
                             bool condition) {
    simt_copy(place, shared, global, bytes, condition);
    if (KRY_SIMT_ARCH < 80) {
        simt_copy_now();
    }
}
GPU_DEVICE void gpu_copy_async16(void *shared, const void *global, SIMT_WHERE) {
    simt_copy_of(SIMT_PLACE, shared, global, 16, true);
}
GPU_DEVICE void gpu_copy_async16_if(void *shared, const void *global, bool condition, SIMT_WHERE) {
    simt_copy_of(SIMT_PLACE, shared, global, 16, condition);
}
GPU_DEVICE void gpu_copy_async4(void *shared, const void *global, SIMT_WHERE) {
    simt_copy_of(SIMT_PLACE, shared, global, 4, true);
}
GPU_DEVICE void gpu_copy_async_commit() { simt_copy_commit(); }
template <int N> GPU_DEVICE void gpu_copy_async_wait() {
    static_assert(N >= 0);
    simt_copy_wait(static_cast<uint32_t>(N));
}

#if GPU_HAS_MMA
GPU_DEVICE void gpu_load_matrix_x4(uint32_t out[4], const void *row, SIMT_WHERE) {
    simt_load_matrix(SIMT_PLACE, 4, false, row, out);
}
GPU_DEVICE void simt_mma(simt_place place, bool is_bf16, float c[4], const uint32_t a[4],
                         const uint32_t b[2]) {
    if (KRY_SIMT_ARCH >= 80) {
        simt_matrix_step(place, SIMT_MMA_M16N8K16, is_bf16, a, b, c);
    } else {
        simt_matrix_step(place, SIMT_MMA_M16N8K8, is_bf16, a, b, c);
        simt_matrix_step(place, SIMT_MMA_M16N8K8, is_bf16, a + 2, b + 1, c);
    }
}
GPU_DEVICE void gpu_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2], SIMT_WHERE) {
    simt_mma(SIMT_PLACE, false, c, a, b);
}
#endif
#if GPU_HAS_MMA_BF16
GPU_DEVICE void gpu_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2], SIMT_WHERE) {
    simt_mma(SIMT_PLACE, true, c, a, b);
}
#endif

#if GPU_HAS_MATRIX16
#if KRY_SIMT_AMD == 1
#define GPU_MATRIX_PAIRS 1
#define GPU_MATRIX_SUMS 4
#define SIMT_INSTRUCTION SIMT_MFMA_16X16X16
#elif KRY_SIMT_AMD == 3
#define GPU_MATRIX_PAIRS 4
#define GPU_MATRIX_SUMS 8
#define SIMT_INSTRUCTION SIMT_WMMA_RDNA3
#else
#define GPU_MATRIX_PAIRS 2
#define GPU_MATRIX_SUMS 8
#define SIMT_INSTRUCTION SIMT_WMMA_RDNA4
#endif
GPU_DEVICE uint32_t gpu_matrix_pair() {
    return KRY_SIMT_AMD == 3 ? 0 : gpu_thread() % GPU_WAVE / 16 * GPU_MATRIX_PAIRS;
}
GPU_DEVICE uint32_t gpu_matrix_row(uint32_t i) {
    const uint32_t part = gpu_thread() % GPU_WAVE / 16;
    return KRY_SIMT_AMD == 3 ? i * 2 + part : part * GPU_MATRIX_SUMS + i;
}
GPU_DEVICE void gpu_matrix_f16(float *c, const uint32_t *a, const uint32_t *b, SIMT_WHERE) {
    simt_matrix_step(SIMT_PLACE, SIMT_INSTRUCTION, false, a, b, c);
}
GPU_DEVICE void gpu_matrix_bf16(float *c, const uint32_t *a, const uint32_t *b, SIMT_WHERE) {
    simt_matrix_step(SIMT_PLACE, SIMT_INSTRUCTION, true, a, b, c);
}
#endif

GPU_DEVICE uint16_t gpu_f16_round(float value) { return simt_f16(static_cast<double>(value)); }
GPU_DEVICE uint16_t gpu_bf16_round(float value) { return simt_bf16(static_cast<double>(value)); }
GPU_DEVICE float gpu_f16_widen(uint16_t bits) { return simt_f16_value(bits); }
GPU_DEVICE float gpu_bf16_widen(uint16_t bits) { return simt_bf16_value(bits); }
GPU_DEVICE uint32_t gpu_f16x2_pack(float low, float high) {
    return gpu_f16_round(low) | static_cast<uint32_t>(gpu_f16_round(high)) << 16;
}
GPU_DEVICE uint32_t gpu_bf16x2_pack(float low, float high) {
    return gpu_bf16_round(low) | static_cast<uint32_t>(gpu_bf16_round(high)) << 16;
}

/* a * b + c in both halves. */
GPU_DEVICE uint32_t simt_f16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result = 0;
    for (int shift = 0; shift < 32; shift += 16) {
        double x = static_cast<double>(simt_f16_value(static_cast<uint16_t>(a >> shift)));
        double y = static_cast<double>(simt_f16_value(static_cast<uint16_t>(b >> shift)));
        double z = static_cast<double>(simt_f16_value(static_cast<uint16_t>(c >> shift)));
        result |= static_cast<uint32_t>(simt_f16(simt_fma(x, y, z))) << shift;
    }
    return result;
}
GPU_DEVICE uint32_t simt_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result = 0;
    for (int shift = 0; shift < 32; shift += 16) {
        double x = static_cast<double>(simt_bf16_value(static_cast<uint16_t>(a >> shift)));
        double y = static_cast<double>(simt_bf16_value(static_cast<uint16_t>(b >> shift)));
        double z = static_cast<double>(simt_bf16_value(static_cast<uint16_t>(c >> shift)));
        result |= static_cast<uint32_t>(simt_bf16(simt_fma(x, y, z))) << shift;
    }
    return result;
}
/* Adding -0 changes no product, its sign included. */
GPU_DEVICE uint32_t gpu_f16x2_fma(uint32_t a, uint32_t b, uint32_t c) {
    return simt_f16x2(a, b, c);
}
GPU_DEVICE uint32_t gpu_f16x2_mul(uint32_t a, uint32_t b) { return simt_f16x2(a, b, 0x80008000U); }
GPU_DEVICE uint32_t gpu_f16x2_sub(uint32_t a, uint32_t b) {
    return simt_f16x2(a, 0x3C003C00U, b ^ 0x80008000U);
}
GPU_DEVICE uint32_t gpu_bf16x2_fma(uint32_t a, uint32_t b, uint32_t c) {
    return simt_bf16x2(a, b, c);
}
GPU_DEVICE uint32_t gpu_bf16x2_mul(uint32_t a, uint32_t b) {
    return simt_bf16x2(a, b, 0x80008000U);
}
GPU_DEVICE uint32_t gpu_bf16x2_sub(uint32_t a, uint32_t b) {
    return simt_bf16x2(a, 0x3F803F80U, b ^ 0x80008000U);
}

GPU_DEVICE uint32_t gpu_permute(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = a | static_cast<uint64_t>(b) << 32;
    uint32_t result = 0;
    for (uint32_t i = 0; i < 4; i++) {
        result |= static_cast<uint32_t>(bytes >> (selector >> 4 * i & 7) * 8 & 0xFF) << 8 * i;
    }
    return result;
}
template <class T> GPU_DEVICE void gpu_keep(T &) {}
GPU_DEVICE void gpu_keep_order(float &) {}
GPU_DEVICE uint32_t gpu_and_or(uint32_t a, uint32_t b, uint32_t c) { return (a & b) | c; }
GPU_DEVICE uint32_t gpu_load_early(const uint32_t *word, SIMT_WHERE) {
    return simt_load_early(SIMT_PLACE, word);
}
GPU_DEVICE uint32_t gpu_multiply_high(uint32_t a, uint32_t b) {
    return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
}

#if KRY_SIMT_ARCH >= 90 && GPU_HAS_MMA
#define GPU_HAS_WGMMA 1
#include "target_cpu_hopper.h"
#else
#define GPU_HAS_WGMMA 0
#endif

#endif
