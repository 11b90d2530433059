/*
 * Codes to 16-bit floats: operand A of the matrix instruction, four registers from one fragment.
 *
 * Numerics   q is put into the low bits of a float's significand (1024 + q in f16, 128 + q in bf16,
 *            2^23 + q in f32), z with the same constant is subtracted, which is exact, and
 *            q - z, an integer of at most 9 bits, is multiplied by the scale: one rounding.
 */
#ifndef KERNELRY_GPU_DEQUANT_H
#define KERNELRY_GPU_DEQUANT_H

#include "target.h"

GPU_DEVICE float gpu_float_of_bits(uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

GPU_DEVICE uint32_t gpu_bits_of_float(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    return bits;
}

/** A byte as a float, without a conversion instruction. */
GPU_DEVICE float gpu_float_of_byte(uint32_t byte) {
    return gpu_float_of_bits(0x4b000000u | byte) - 8388608.0f;
}

/** Scale and zero point of a lane's two rows for one block of places, each twice in a word. */
struct gpu_block_scale {
    uint32_t scale[2];
    uint32_t zero[2]; /* with the constant; f16 of 4 bits, row 1: -(64 + z); bf16 of 8 bits: f32 */
};

/** scales: that of row 2 r in the low half, of 2 r + 1 in the high; zeros: theirs in bytes 0, 1. */
template <int BITS, bool BF16>
GPU_DEVICE gpu_block_scale gpu_scale_of(uint32_t scales, uint32_t zeros) {
    gpu_block_scale s;
    s.scale[0] = gpu_permute(scales, scales, 0x1010);
    s.scale[1] = gpu_permute(scales, scales, 0x3232);
    if (BF16 && BITS == 8) {
        s.zero[0] = 0x4b000000u | (zeros & 0xff);
        s.zero[1] = 0x4b000000u | (zeros >> 8 & 0xff);
    } else {
        uint32_t constant = BF16 ? 0x43434343u : 0x64646464u;
        s.zero[0] = gpu_permute(zeros, constant, 0x4040);
        s.zero[1] = gpu_permute(zeros, constant, 0x4141);
        if (!BF16 && BITS == 4)
            s.zero[1] = gpu_f16x2_sub(0x63806380u, s.zero[1]); /* 960 - (1024 + z) */
    }
    return s;
}

/** The words of fragment j of a lane's codes of a tile: one of 4 bits, two of 8. */
template <int BITS>
GPU_DEVICE void gpu_fragment_words(const gpu_u32x4 codes[BITS / 4], int j, uint32_t words[2]) {
    const gpu_u32x4 &v = codes[j * BITS / 16];
    if (BITS == 4) {
        words[0] = j == 0 ? v.x : j == 1 ? v.y : j == 2 ? v.z : v.w;
    } else {
        words[0] = j % 2 == 0 ? v.x : v.z;
        words[1] = j % 2 == 0 ? v.y : v.w;
    }
}

/** Two bytes of `word`, named by `selector` (a byte of a float each), less a zero point. */
GPU_DEVICE uint32_t gpu_bf16x2_of_bytes(uint32_t word, uint32_t first, uint32_t second,
                                        uint32_t zero) {
    float low = gpu_float_of_bits(gpu_permute(word, 0x4b000000u, 0x7540 | first));
    float high = gpu_float_of_bits(gpu_permute(word, 0x4b000000u, 0x7540 | second));
    return gpu_bf16x2_pack(low - gpu_float_of_bits(zero), high - gpu_float_of_bits(zero));
}

/** q - z, exactly. words: one of 4 bits, two of 8. */
template <int BITS, bool BF16>
GPU_DEVICE void gpu_differences(const uint32_t *words, const gpu_block_scale &s, uint32_t a[4]) {
    for (int i = 0; i < 4; i++) {
        uint32_t difference;
        int row = i % 2;
        if (BITS == 4 && BF16) {
            uint32_t code = gpu_and_or(words[0] >> (4 * i), 0x000f000fu, 0x43004300u);
            difference = gpu_bf16x2_sub(code, s.zero[row]);
        } else if (BITS == 4) {
            uint32_t pair = i < 2 ? words[0] : words[0] >> 8;
            if (row == 0) {
                uint32_t code = gpu_and_or(pair, 0x000f000fu, 0x64006400u);
                difference = gpu_f16x2_sub(code, s.zero[0]);
            } else { /* 1024 + 16 q saves a shift; 1/16 comes with the subtraction */
                uint32_t code = gpu_and_or(pair, 0x00f000f0u, 0x64006400u);
                difference = gpu_f16x2_fma(code, 0x2c002c00u, s.zero[1]);
            }
        } else if (BF16) {
            uint32_t first = i % 2 * 2;
            difference = gpu_bf16x2_of_bytes(words[i / 2], first, first + 1, s.zero[row]);
        } else {
            uint32_t code = gpu_permute(words[i / 2], 0x64646464u, row == 0 ? 0x4140 : 0x4342);
            difference = gpu_f16x2_sub(code, s.zero[row]);
        }
        a[i] = difference;
    }
}

/** (q - z) * s, rounded once. */
template <int BITS, bool BF16>
GPU_DEVICE void gpu_dequantize(const uint32_t *words, const gpu_block_scale &s, uint32_t a[4]) {
    gpu_differences<BITS, BF16>(words, s, a);
    for (int i = 0; i < 4; i++)
        a[i] = BF16 ? gpu_bf16x2_mul(a[i], s.scale[i % 2]) : gpu_f16x2_mul(a[i], s.scale[i % 2]);
}

/**
 * Codes as they are, times a constant that gpu_code_unit undoes, plus one that counts as zero
 * point.
 *
 * Numerics   f16: the bits of q in a 16-bit float are the subnormal number q * 2^-24, which matrix
 *            instructions take at full precision: no arithmetic at all. bf16 has too few bits below
 *            f32's smallest number, so that 128 + q (4 bits) or q itself (8 bits) is made.
 */
template <int BITS, bool BF16> GPU_DEVICE void gpu_raw_codes(const uint32_t *words, uint32_t a[4]) {
    for (int i = 0; i < 4; i++) {
        if (BITS == 4 && BF16) {
            a[i] = gpu_and_or(words[0] >> (4 * i), 0x000f000fu, 0x43004300u);
        } else if (BITS == 4) {
            uint32_t pair = i < 2 ? words[0] : words[0] >> 8;
            a[i] = i % 2 == 0 ? pair & 0x000f000fu : pair & 0x00f000f0u;
        } else if (BF16) {
            uint32_t first = static_cast<uint32_t>(i) % 2 * 2;
            a[i] = gpu_bf16x2_of_bytes(words[i / 2], first, first + 1, 0x4b000000u);
        } else {
            a[i] = gpu_permute(words[i / 2], 0, i % 2 == 0 ? 0x4140 : 0x4342);
        }
    }
}

/** What a sum of raw codes is multiplied by, for row 2 r or 2 r + 1. */
template <int BITS, bool BF16> GPU_DEVICE float gpu_code_unit(int row) {
    return BF16 ? 1.0f : BITS == 4 && row == 1 ? 1048576.0f : 16777216.0f;
}

/** What counts as zero point beside the true one. */
template <int BITS, bool BF16> GPU_DEVICE float gpu_code_offset() {
    return BF16 && BITS == 4 ? 128.0f : 0.0f;
}

template <bool BF16> GPU_DEVICE float gpu_low_float(uint32_t pair) {
    return BF16 ? gpu_float_of_bits(pair << 16) : gpu_f16_widen(static_cast<uint16_t>(pair));
}

template <bool BF16> GPU_DEVICE float gpu_high_float(uint32_t pair) {
    return BF16 ? gpu_float_of_bits(pair & 0xffff0000u)
                : gpu_f16_widen(static_cast<uint16_t>(pair >> 16));
}

template <bool BF16> GPU_DEVICE void gpu_mma(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    static_assert(!BF16 || GPU_HAS_MMA_BF16, "no matrix instruction for bf16");
#if GPU_HAS_MMA_BF16
    if (BF16) {
        gpu_mma_bf16(c, a, b);
        return;
    }
#endif
    gpu_mma_f16(c, a, b);
}

#endif
