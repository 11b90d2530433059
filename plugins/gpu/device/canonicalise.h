/*
 * Stored weights, in whatever packing an embedder holds them (see kry_view), into the canonical
 * layout: compressed-tensors packs along K, GPTQ along K with words of a column side by side, AWQ
 * along N in its own order.
 */
#ifndef KERNELRY_GPU_CANONICALISE_H
#define KERNELRY_GPU_CANONICALISE_H

#include "transpose.h"

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
    uint32_t row = static_cast<uint32_t>(n + v.n_begin);    /* both are below 2^31, and dividing */
    uint32_t column = static_cast<uint32_t>(j + v.j_begin); /* by 64 bits is slow */
    uint32_t per_word = v.word_bits / v.element_bits, field = 0;
    if (per_word > 1 && v.pack_axis == KRY_AXIS_K) {
        field = column % per_word;
        column /= per_word;
    } else if (per_word > 1) {
        field = row % per_word;
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

/** The canonical word of columns k to k + 32 / bits - 1 of a row, as far as they exist. */
GPU_DEVICE uint32_t gpu_view_codes(const gpu_canonicalise_codes_params &p, int64_t n, int64_t k) {
    uint32_t count = 32 / p.bits, value = 0;
    for (uint32_t i = 0; i < count && k + i < p.columns; i++)
        value |= gpu_view_element(p.from, n, k + i) << (i * p.bits);
    return value;
}

/** Transpose 8 words of 8 nibbles: nibble i of out[f] is nibble f of in[i]. */
GPU_DEVICE void gpu_transpose_nibbles(const uint32_t in[8], uint32_t out[8]) {
    uint32_t halves[8], bytes[8];
    for (int i = 0; i < 4; i++) { /* nibbles 0 to 3, or 4 to 7, of words i and i + 4 */
        halves[i] = gpu_permute(in[i], in[i + 4], 0x5410);
        halves[i + 4] = gpu_permute(in[i], in[i + 4], 0x7632);
    }
    for (int i = 0; i < 8; i += i % 4 == 1 ? 3 : 1) { /* two nibbles of words i % 4 + 0, 2, 4, 6 */
        bytes[i] = gpu_permute(halves[i], halves[i + 2], 0x6240);
        bytes[i + 2] = gpu_permute(halves[i], halves[i + 2], 0x7351);
    }
    for (int i = 0; i < 8; i += 2) {
        out[i] = (bytes[i] & 0x0f0f0f0fu) | (bytes[i + 1] & 0x0f0f0f0fu) << 4;
        out[i + 1] = (bytes[i] >> 4 & 0x0f0f0f0fu) | (bytes[i + 1] & 0xf0f0f0f0u);
    }
}

/**
 * Codes of 4 bits packed along N: a thread reads the words of 8 columns of 8 rows and transposes
 * them. Block tile and shared memory as in transpose.h, but for rows of shared memory, of which
 * e * 16 + i holds row 8 i + e: what the lanes write at once lies in different banks.
 */
GPU_DEVICE void gpu_canonicalise_nibbles(const gpu_canonicalise_codes_params &p,
                                         unsigned char *shared) {
    constexpr uint32_t ROWS = GPU_TRANSPOSE_CODE_ROWS, WORDS = GPU_TRANSPOSE_CODE_WORDS,
                       PITCH = WORDS + 1;
    constexpr uint32_t ROW_WORDS = ROWS / 8;
    static_assert(ROW_WORDS * WORDS == GPU_PREPARE_THREADS, "a thread transposes 8 words");
    const uint32_t *from = reinterpret_cast<const uint32_t *>(p.from.data);
    uint32_t *held = reinterpret_cast<uint32_t *>(shared);
    uint32_t row_word = gpu_thread() % ROW_WORDS, column = gpu_thread() / ROW_WORDS;
    int64_t rows = p.n_end - p.n_begin;
    int64_t down = gpu_ceil_div(rows, ROWS), across = gpu_ceil_div(p.words, WORDS);
    for (int64_t tile = gpu_block(); tile < down * across; tile += gpu_blocks()) {
        int64_t row = tile % down * ROWS, word = tile / down * WORDS, k = (word + column) * 8;
        int64_t n = (p.n_begin + p.from.n_begin + row) / 8 + row_word;
        bool exists = row + row_word * 8 < rows;
        uint32_t in[8], out[8];
#pragma unroll
        for (int64_t j = 0; j < 8; j++) {
            int64_t at = n * p.from.n_stride + (k + j + p.from.j_begin) * p.from.j_stride;
            in[j] = exists && k + j < p.columns ? from[at] : 0;
        }
        gpu_transpose_nibbles(in, out);
#pragma unroll
        for (uint32_t f = 0; f < 8; f++) { /* the row of field f */
            uint32_t e = p.from.order == KRY_ORDER_AWQ ? f % 4 * 2 + f / 4 : f;
            held[(e * ROW_WORDS + row_word) * PITCH + column] = out[f];
        }
        gpu_barrier();
#pragma unroll
        for (uint32_t i = gpu_thread(); i < ROWS * WORDS; i += GPU_PREPARE_THREADS) {
            uint32_t r = i / WORDS, c = i % WORDS;
            if (row + r < rows && word + c < p.words)
                p.to[(row + r) * p.words + word + c] =
                    held[(r % 8 * ROW_WORDS + r / 8) * PITCH + c];
        }
        gpu_barrier();
    }
}

GPU_DEVICE void gpu_canonicalise_all_codes(const gpu_canonicalise_codes_params &p) {
    GPU_SHARED(shared);
    const gpu_view &from = p.from;
    uint32_t count = 32 / p.bits;
    bool words = from.word_bits == 32 && reinterpret_cast<uintptr_t>(from.data) % 4 == 0;
    bool down = from.j_stride > from.n_stride;
    auto write = [&](int64_t row, int64_t word, uint32_t value) {
        p.to[row * p.words + word] = value;
    };
    if (words && from.pack_axis == KRY_AXIS_N && p.bits == 4 &&
        (p.n_begin + from.n_begin) % 8 == 0) {
        gpu_canonicalise_nibbles(p, shared);
    } else if (words && from.pack_axis == KRY_AXIS_K && from.order == KRY_ORDER_SEQUENTIAL &&
               from.j_begin % count == 0) { /* they are canonical as they are */
        const uint32_t *first = reinterpret_cast<const uint32_t *>(from.data) +
                                (p.n_begin + from.n_begin) * from.n_stride +
                                from.j_begin / count * from.j_stride;
        gpu_transpose<GPU_TRANSPOSE_CODE_ROWS, GPU_TRANSPOSE_CODE_WORDS>(
            shared, p.n_end - p.n_begin, p.words, down, false,
            [&](int64_t row, int64_t word) {
                return first[row * from.n_stride + word * from.j_stride];
            },
            write);
    } else {
        gpu_transpose<GPU_TRANSPOSE_CODE_ROWS, GPU_TRANSPOSE_CODE_WORDS>(
            shared, p.n_end - p.n_begin, p.words, down, false,
            [&](int64_t row, int64_t word) {
                return gpu_view_codes(p, p.n_begin + row, word * count);
            },
            write);
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
    GPU_SHARED(shared);
    gpu_transpose<GPU_TRANSPOSE_ROWS, GPU_TRANSPOSE_GROUPS>(
        shared, p.n_end - p.n_begin, p.to_groups, p.from.j_stride > p.from.n_stride, false,
        [&](int64_t row, int64_t j) {
            return gpu_view_element(p.from, p.n_begin + row, gpu_stored_group(p, j));
        },
        [&](int64_t row, int64_t j, uint32_t value) {
            int64_t at = row * p.to_groups + j;
            if (p.from.element_bits == 16)
                static_cast<uint16_t *>(p.to)[at] = static_cast<uint16_t>(value);
            else
                static_cast<uint32_t *>(p.to)[at] = value;
        });
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
    GPU_SHARED(shared);
    gpu_transpose<GPU_TRANSPOSE_ROWS, GPU_TRANSPOSE_GROUPS>(
        shared, p.n_end - p.n_begin, p.to_groups, p.from.j_stride > p.from.n_stride, false,
        [&](int64_t row, int64_t j) {
            return gpu_true_zero(p.from, p.n_begin + row, gpu_stored_group(p, j), p.zero_bits);
        },
        [&](int64_t row, int64_t j, uint32_t value) {
            static_cast<uint8_t *>(p.to)[row * p.to_groups + j] = static_cast<uint8_t>(value);
        });
}

#endif
