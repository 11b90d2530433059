/*
 * Canonical weights into the prepared layout (layout.h), and the tables of gathered layouts.
 */
#ifndef KERNELRY_GPU_REPACK_H
#define KERNELRY_GPU_REPACK_H

#include "transpose.h"

GPU_DEVICE int64_t gpu_source_column(const gpu_repack_params &p, int64_t place) {
    return p.source != nullptr ? p.source[place] : gpu_column_of_place(&p.layout, place);
}

/** The codes of a word of places, 32 / BITS, in a canonical row; 0 where there is no column. */
template <int BITS>
GPU_DEVICE uint32_t gpu_codes_of_places(const gpu_repack_params &p, const uint32_t *row,
                                        int64_t place, bool exists) {
    constexpr uint32_t COUNT = 32 / BITS;
    if (!exists)
        return 0;
    int64_t k = place - p.layout.front;
    if (!p.layout.gathered && k >= 0 && k + COUNT <= p.layout.in_features) {
        uint32_t column = static_cast<uint32_t>(k), skip = column % COUNT * BITS;
        const uint32_t *word = row + column / COUNT;
        return skip == 0 ? word[0] : word[0] >> skip | word[1] << (32 - skip);
    }
    uint32_t word = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        int64_t source = gpu_source_column(p, place + i);
        uint32_t column = static_cast<uint32_t>(source);
        if (source >= 0)
            word |= (row[column / COUNT] >> (column % COUNT * BITS) & ((1u << BITS) - 1))
                    << (i * BITS);
    }
    return word;
}

/** The word of fragment's registers from 4 codes of either row: codes c in bits 4 c. */
GPU_DEVICE uint32_t gpu_fragment_of_nibbles(uint32_t even, uint32_t odd) {
    /* nibble reg + 4 half: reg 0 even c0 c1, reg 1 odd c0 c1, reg 2 even c2 c3, reg 3 odd c2 c3 */
    uint32_t low =
        (even & 0x000fu) | (odd & 0x000fu) << 4 | (even & 0x0f00u) | (odd & 0x0f00u) << 4;
    uint32_t high =
        (even & 0x00f0u) >> 4 | (odd & 0x00f0u) | (even & 0xf000u) >> 4 | (odd & 0xf000u);
    return low | high << 16;
}

/** 16 bytes of a lane whose pairs are t and t + 4 of each block, from eight words of places in
 *  order of either row: four blocks of 4 bits, or two of 8. */
template <int BITS>
GPU_DEVICE gpu_u32x4 gpu_repack_lane(const uint32_t *even, const uint32_t *odd, uint32_t t) {
    uint32_t words[4];
    if (BITS == 4) { /* a block is two words, in which a pair is a byte */
        const gpu_u32x4 *e = reinterpret_cast<const gpu_u32x4 *>(even);
        const gpu_u32x4 *o = reinterpret_cast<const gpu_u32x4 *>(odd);
        gpu_u32x4 e0 = e[0], e1 = e[1], o0 = o[0], o1 = o[1];
        uint32_t pairs = t | (t + 4) << 4;
        words[0] =
            gpu_fragment_of_nibbles(gpu_permute(e0.x, e0.y, pairs), gpu_permute(o0.x, o0.y, pairs));
        words[1] =
            gpu_fragment_of_nibbles(gpu_permute(e0.z, e0.w, pairs), gpu_permute(o0.z, o0.w, pairs));
        words[2] =
            gpu_fragment_of_nibbles(gpu_permute(e1.x, e1.y, pairs), gpu_permute(o1.x, o1.y, pairs));
        words[3] =
            gpu_fragment_of_nibbles(gpu_permute(e1.z, e1.w, pairs), gpu_permute(o1.z, o1.w, pairs));
    } else { /* a block is four words, in which a pair is half a word */
        uint32_t halves = t % 2 == 0 ? 0x5410 : 0x7632;
        for (uint32_t i = 0; i < 4; i++)
            words[i] = gpu_permute(even[i * 2 + t / 2], odd[i * 2 + t / 2], halves);
    }
    return {words[0], words[1], words[2], words[3]};
}

/** Read 32 words of places of a panel's rows, of which `rows` exist, from a tile of places on. A
 *  thread's reads wait for each other only where the words are not those of the rows. */
template <int BITS>
GPU_DEVICE void gpu_repack_read(const gpu_repack_params &p, const uint32_t *from, int64_t rows,
                                int64_t k_tile, uint32_t *held) {
    constexpr uint32_t PER_WORD = 32 / BITS, WORDS = GPU_REPACK_WORDS;
    constexpr uint32_t STEP = GPU_PREPARE_THREADS / WORDS, EACH = GPU_PANEL_N / STEP;
    uint32_t first = gpu_thread() / WORDS, word = gpu_thread() % WORDS;
    int64_t k = k_tile * GPU_TILE_K - p.layout.front;
    held += first * GPU_REPACK_PITCH + word;
    if (!p.layout.gathered && k >= 0 && k % PER_WORD == 0 && rows >= GPU_PANEL_N &&
        k + WORDS * PER_WORD <= p.layout.in_features) {
        uint32_t values[EACH];
        from += first * p.qweight_stride + static_cast<uint32_t>(k) / PER_WORD + word;
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++)
            values[i] = from[i * STEP * p.qweight_stride];
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++)
            held[i * STEP * GPU_REPACK_PITCH] = values[i];
        return;
    }
    int64_t place = k_tile * GPU_TILE_K + word * PER_WORD;
#pragma unroll 1
    for (uint32_t i = 0; i < EACH; i++) {
        int64_t row = first + i * STEP;
        bool exists = row < rows && place < p.layout.k_tiles * GPU_TILE_K;
        held[i * STEP * GPU_REPACK_PITCH] =
            gpu_codes_of_places<BITS>(p, from + row * p.qweight_stride, place, exists);
    }
}

/**
 * Codes of a panel's 64 features, 32 words of places at a time: these are read along the rows, a
 * line of each, into shared memory, and written as they lie there, 8 KB without a gap. Each 16
 * bytes come from 8 words of two rows.
 */
template <int BITS>
GPU_DEVICE void gpu_repack_panels(const gpu_repack_params &p, unsigned char *shared) {
    constexpr uint32_t TILE_LOADS = BITS / 4, CHUNKS = 512;
    constexpr int64_t SPAN = GPU_REPACK_WORDS * (32 / BITS) / GPU_TILE_K; /* tiles of places */
    uint32_t *held = reinterpret_cast<uint32_t *>(shared);
    int64_t panels = gpu_ceil_div(p.n_end - p.n_begin, GPU_PANEL_N);
    int64_t steps = gpu_ceil_div(p.layout.k_tiles, SPAN);
    for (int64_t unit = gpu_block(); unit < panels * steps; unit += gpu_blocks()) {
        int64_t panel = unit / steps, k_tile = unit % steps * SPAN;
        gpu_repack_read<BITS>(p, p.qweight + panel * GPU_PANEL_N * p.qweight_stride,
                              p.n_end - p.n_begin - panel * GPU_PANEL_N, k_tile, held);
        gpu_barrier();
        unsigned char *to = p.prepared + p.layout.codes_at +
                            gpu_tile_at(p.layout.k_tiles, 128 * BITS,
                                        p.n_begin / GPU_TILE_N + panel * GPU_PANEL_TILES, k_tile);
#pragma unroll
        for (uint32_t i = gpu_thread(); i < CHUNKS; i += GPU_PREPARE_THREADS) {
            uint32_t load = i / GPU_LANES, lane = i % GPU_LANES; /* a load of 512 bytes */
            uint32_t n_tile = load / TILE_LOADS % GPU_PANEL_TILES;
            uint32_t tile = load / (TILE_LOADS * GPU_PANEL_TILES);
            const uint32_t *even = held + (n_tile * GPU_TILE_N + lane / 4 * 2) * GPU_REPACK_PITCH +
                                   (tile * TILE_LOADS + load % TILE_LOADS) * 8;
            if (k_tile + tile < p.layout.k_tiles)
                *reinterpret_cast<gpu_u32x4 *>(to + i * 16) =
                    gpu_repack_lane<BITS>(even, even + GPU_REPACK_PITCH, lane % 4);
        }
        gpu_barrier();
    }
}

GPU_DEVICE void gpu_repack_all_codes(const gpu_repack_params &p) {
    GPU_SHARED(shared);
    if (p.layout.bits == 4)
        gpu_repack_panels<4>(p, shared);
    else
        gpu_repack_panels<8>(p, shared);
}

/** The panels' [groups][64] of T from rows, 0 where there is no row. */
template <class T>
GPU_DEVICE void gpu_repack_groups(const gpu_repack_params &p, unsigned char *shared, const T *from,
                                  int64_t stride, T *to) {
    int64_t rows = p.n_end - p.n_begin;
    gpu_transpose<GPU_TRANSPOSE_ROWS, GPU_TRANSPOSE_GROUPS>(
        shared, gpu_ceil_div(rows, GPU_PANEL_N) * GPU_PANEL_N, p.layout.groups, false, true,
        [&](int64_t row, int64_t group) -> uint32_t {
            T value = from[(row < rows ? row : rows - 1) * stride + group];
            return row < rows ? value : T{0};
        },
        [&](int64_t row, int64_t group, uint32_t value) {
            to[gpu_scale_place(&p.layout, p.n_begin + row, group)] = static_cast<T>(value);
        });
}

GPU_DEVICE void gpu_repack_all_scales(const gpu_repack_params &p) {
    GPU_SHARED(shared);
    unsigned char *scales = p.prepared + p.layout.scales_at;
    if (p.scale_bytes == 2)
        gpu_repack_groups(p, shared, static_cast<const uint16_t *>(p.scales), p.scale_stride,
                          reinterpret_cast<uint16_t *>(scales));
    else
        gpu_repack_groups(p, shared, static_cast<const uint32_t *>(p.scales), p.scale_stride,
                          reinterpret_cast<uint32_t *>(scales));
    if (p.zero_points != nullptr)
        gpu_repack_groups(p, shared, p.zero_points, p.zero_stride, p.prepared + p.layout.zeros_at);
}

/**
 * The tables of act-order, by one block: columns sorted by group, in order within a group, each
 * group filled up to whole blocks of places.
 *
 * A wave walks a group at a time: it counts the group's columns, then, its first block known,
 * lists them. Reading g_idx once for each group costs G * K / 32 steps; preparation happens once.
 */
GPU_DEVICE void gpu_sort_columns(const gpu_sort_params &p) {
    int64_t groups = p.layout.groups, columns = p.layout.in_features;
    int64_t blocks = p.layout.k_tiles * GPU_TILE_BLOCKS;
    uint32_t thread = gpu_thread(), threads = gpu_threads();
    for (int64_t j = thread; j < blocks * GPU_BLOCK_K; j += threads)
        p.source[j] = -1;
    for (int64_t j = thread; j < blocks; j += threads)
        p.block_group[j] = 0;
    for (int64_t group = thread; group < groups; group += threads)
        p.cursor[group] = 0;
    gpu_barrier();
    for (int64_t k = thread; k < columns; k += threads)
        gpu_atomic_add(p.cursor + p.g_idx[k], 1);
    gpu_barrier();
    if (thread == 0) { /* counts to first places */
        uint32_t block = 0;
        for (int64_t group = 0; group < groups; group++) {
            uint32_t count = (p.cursor[group] + GPU_BLOCK_K - 1) / GPU_BLOCK_K;
            p.cursor[group] = block * GPU_BLOCK_K;
            for (uint32_t i = 0; i < count; i++)
                p.block_group[block + i] = static_cast<uint32_t>(group);
            block += count;
        }
        p.header[0] = (block + GPU_TILE_BLOCKS - 1) / GPU_TILE_BLOCKS;
    }
    gpu_barrier();
    for (int64_t group = thread; group < groups; group += threads) {
        uint32_t place = p.cursor[group];
        for (int64_t k = 0; k < columns; k++)
            if (p.g_idx[k] == group)
                p.source[place++] = static_cast<int32_t>(k);
    }
}

/** The tables of a gathered layout whose groups are in order. */
GPU_DEVICE void gpu_fill_source_table(const gpu_fill_source_params &p) {
    int64_t step = static_cast<int64_t>(gpu_blocks()) * gpu_threads();
    int64_t first = static_cast<int64_t>(gpu_block()) * gpu_threads() + gpu_thread();
    if (first == 0)
        p.header[0] = static_cast<uint32_t>(p.layout.k_tiles);
    for (int64_t place = first; place < p.layout.k_tiles * GPU_TILE_K; place += step)
        p.source[place] = static_cast<int32_t>(gpu_column_of_place(&p.layout, place));
}

#endif
