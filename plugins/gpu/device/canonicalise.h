/*
 * Stored weights, in whatever packing an embedder holds them (see kry_view), into the canonical
 * layout: compressed-tensors packs along K, GPTQ along K with words of a column side by side, AWQ
 * along N in its own order.
 */
#ifndef KERNELRY_GPU_CANONICALISE_H
#define KERNELRY_GPU_CANONICALISE_H

#include "../params.h"
#include "target.h"

/** A word of a view, byte by byte where its address is odd. */
GPU_DEVICE uint32_t gpu_view_word(const gpu_view &v, int64_t index) {
    uint32_t bytes = v.word_bits / 8;
    const unsigned char *from = v.data + index * bytes;
    if (bytes == 4 && reinterpret_cast<uintptr_t>(from) % 4 == 0)
        return *reinterpret_cast<const uint32_t *>(from);
    uint32_t word = 0;
    for (uint32_t i = 0; i < bytes; i++)
        word |= static_cast<uint32_t>(from[i]) << (8 * i);
    return word;
}

/** The word that holds element (n, j), and the shift of its field. */
GPU_DEVICE uint32_t gpu_view_field(const gpu_view &v, int64_t n, int64_t j, uint32_t *shift) {
    int64_t row = n + v.n_begin, column = j + v.j_begin;
    uint32_t per_word = v.word_bits / v.element_bits, field = 0;
    if (per_word > 1 && v.pack_axis == KRY_AXIS_K) {
        field = static_cast<uint32_t>(column % per_word);
        column /= per_word;
    } else if (per_word > 1) {
        field = static_cast<uint32_t>(row % per_word);
        row /= per_word;
    }
    if (v.order == KRY_ORDER_AWQ) /* 0 2 4 6 1 3 5 7 from the lowest bits: element e lies at */
        field = field % 2 * 4 + field / 2;
    *shift = field * v.element_bits;
    return gpu_view_word(v, row * v.n_stride + column * v.j_stride);
}

GPU_DEVICE uint32_t gpu_view_element(const gpu_view &v, int64_t n, int64_t j) {
    uint32_t shift;
    uint32_t word = gpu_view_field(v, n, j, &shift);
    return v.element_bits == 32 ? word : word >> shift & ((1u << v.element_bits) - 1);
}

/** Lanes go along the axis whose words lie side by side, so that a wave reads whole lines. */
GPU_DEVICE void gpu_canonicalise_all_codes(const gpu_canonicalise_codes_params &p) {
    int64_t rows = p.n_end - p.n_begin;
    uint32_t count = 32 / p.bits;
    bool along_n = p.from.j_stride > p.from.n_stride;
    int64_t step = static_cast<int64_t>(gpu_blocks()) * gpu_threads();
    for (int64_t at = static_cast<int64_t>(gpu_block()) * gpu_threads() + gpu_thread();
         at < rows * p.words; at += step) {
        int64_t row = along_n ? at % rows : at / p.words;
        int64_t word = along_n ? at / rows : at % p.words;
        int64_t k = word * count, n = p.n_begin + row;
        uint32_t value = 0;
        bool same = p.from.pack_axis == KRY_AXIS_K && p.from.word_bits == 32 &&
                    p.from.order == KRY_ORDER_SEQUENTIAL && p.from.j_begin % count == 0;
        if (same) {
            uint32_t shift;
            value = gpu_view_field(p.from, n, k, &shift);
        } else {
            for (uint32_t i = 0; i < count && k + i < p.columns; i++)
                value |= gpu_view_element(p.from, n, k + i) << (i * p.bits);
        }
        p.to[row * p.words + word] = value;
    }
}

/** The stored group of the first column of group j, see kry_linear. */
GPU_DEVICE int64_t gpu_stored_group(const gpu_canonicalise_groups_params &p, int64_t j) {
    if (p.identity)
        return j;
    int64_t first = (p.k_offset / p.to_size + j) * p.to_size; /* of the full layer */
    first = first < p.k_offset ? p.k_offset : first;
    return first / p.from_size - p.k_offset / p.from_size;
}

GPU_DEVICE void gpu_canonicalise_all_scales(const gpu_canonicalise_groups_params &p) {
    int64_t count = (p.n_end - p.n_begin) * p.to_groups;
    int64_t step = static_cast<int64_t>(gpu_blocks()) * gpu_threads();
    for (int64_t at = static_cast<int64_t>(gpu_block()) * gpu_threads() + gpu_thread(); at < count;
         at += step) {
        int64_t n = p.n_begin + at / p.to_groups;
        uint32_t value = gpu_view_element(p.from, n, gpu_stored_group(p, at % p.to_groups));
        if (p.from.element_bits == 16)
            static_cast<uint16_t *>(p.to)[at] = static_cast<uint16_t>(value);
        else
            static_cast<uint32_t *>(p.to)[at] = value;
    }
}

GPU_DEVICE uint32_t gpu_true_zero(const gpu_view &v, int64_t n, int64_t group, uint32_t bits) {
    uint32_t most = (1u << bits) - 1, shift;
    uint32_t word = gpu_view_field(v, n, group, &shift);
    if (v.zero == KRY_ZERO_MINUS_ONE_WORD) { /* carries go on, so the whole word counts */
        uint32_t ones = v.element_bits == 4 ? 0x11111111u : v.element_bits == 8 ? 0x01010101u : 1u;
        word += v.word_bits == 32 ? ones : ones & ((1u << v.word_bits) - 1);
    }
    uint32_t field = v.element_bits == 32 ? word : word >> shift & ((1u << v.element_bits) - 1);
    if (v.zero == KRY_ZERO_SIGNED)
        return (field + (1u << (bits - 1))) & most;
    return v.zero == KRY_ZERO_MINUS_ONE ? (field + 1) & most : field & most;
}

GPU_DEVICE void gpu_canonicalise_all_zeros(const gpu_canonicalise_groups_params &p) {
    int64_t count = (p.n_end - p.n_begin) * p.to_groups;
    int64_t step = static_cast<int64_t>(gpu_blocks()) * gpu_threads();
    for (int64_t at = static_cast<int64_t>(gpu_block()) * gpu_threads() + gpu_thread(); at < count;
         at += step) {
        int64_t n = p.n_begin + at / p.to_groups, group = gpu_stored_group(p, at % p.to_groups);
        static_cast<uint8_t *>(p.to)[at] =
            static_cast<uint8_t>(gpu_true_zero(p.from, n, group, p.zero_bits));
    }
}

#endif
