/*
 * Canonical weights into the prepared layout (layout.h), and the tables of gathered layouts.
 */
#ifndef KERNELRY_GPU_REPACK_H
#define KERNELRY_GPU_REPACK_H

#include "../params.h"
#include "target.h"

/** The code of a column, or 0 where there is none. */
GPU_DEVICE uint32_t gpu_canonical_code(const gpu_repack_params &p, const uint32_t *row, int64_t k) {
    if (k < 0)
        return 0;
    uint32_t per_word = 32u / static_cast<uint32_t>(p.layout.bits);
    uint32_t word = row[k / per_word];
    uint32_t shift = static_cast<uint32_t>(k % per_word) * static_cast<uint32_t>(p.layout.bits);
    return word >> shift & (p.layout.bits == 4 ? 15u : 255u);
}

GPU_DEVICE int64_t gpu_source_column(const gpu_repack_params &p, int64_t place) {
    return p.source != nullptr ? p.source[place] : gpu_column_of_place(&p.layout, place);
}

/** Canonical codes of eight places in a row (4 bits each), or of four (8 bits each). */
GPU_DEVICE uint32_t gpu_codes_of_places(const gpu_repack_params &p, const uint32_t *row,
                                        int64_t place, bool exists) {
    uint32_t bits = static_cast<uint32_t>(p.layout.bits), count = 32 / bits;
    if (!exists)
        return 0;
    int64_t k = place - p.layout.front;
    if (!p.layout.gathered && k >= 0 && k + count <= p.layout.in_features) {
        uint32_t skip = static_cast<uint32_t>(k % count) * bits;
        const uint32_t *word = row + k / count;
        return skip == 0 ? word[0] : word[0] >> skip | word[1] << (32 - skip);
    }
    uint32_t word = 0;
    for (uint32_t i = 0; i < count; i++)
        word |= gpu_canonical_code(p, row, gpu_source_column(p, place + i)) << (i * bits);
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

/** Codes of the blocks' pairs t and t + 4 of a row: nibbles (4 bits) or bytes (8 bits) in order. */
GPU_DEVICE uint32_t gpu_block_pairs(const gpu_repack_params &p, const uint32_t *row, int64_t place,
                                    uint32_t t, bool exists) {
    uint32_t shift = t * 2 * static_cast<uint32_t>(p.layout.bits);
    if (p.layout.bits == 4) { /* eight codes a word */
        uint32_t first = gpu_codes_of_places(p, row, place, exists) >> shift & 0xff;
        return first | (gpu_codes_of_places(p, row, place + 8, exists) >> shift & 0xff) << 8;
    }
    place += t / 2 * 4; /* four codes a word */
    shift %= 32;
    uint32_t first = gpu_codes_of_places(p, row, place, exists) >> shift & 0xffff;
    return first | (gpu_codes_of_places(p, row, place + 8, exists) >> shift) << 16;
}

/** A thread makes the 16 bytes (4 bits) or 32 bytes (8 bits) of a lane of one tile. */
GPU_DEVICE void gpu_repack_lane(const gpu_repack_params &p, int64_t n_tile, int64_t k_tile,
                                uint32_t lane) {
    int64_t n = n_tile * GPU_TILE_N + lane / 4 * 2;
    const uint32_t *row = p.qweight + (n - p.n_begin) * p.qweight_stride;
    uint32_t words[8]; /* of a fragment one word (4 bits) or two */
    for (uint32_t j = 0; j < GPU_TILE_BLOCKS; j++) {
        int64_t place = k_tile * GPU_TILE_K + j * GPU_BLOCK_K;
        uint32_t even = gpu_block_pairs(p, row, place, lane % 4, n < p.n_end);
        uint32_t odd = gpu_block_pairs(p, row + p.qweight_stride, place, lane % 4, n + 1 < p.n_end);
        if (p.layout.bits == 4) {
            words[j] = gpu_fragment_of_nibbles(even, odd);
        } else {
            words[j * 2] = gpu_permute(even, odd, 0x5410);
            words[j * 2 + 1] = gpu_permute(even, odd, 0x7632);
        }
    }
    unsigned char *to = p.prepared + p.layout.codes_at +
                        gpu_tile_at(p.layout.k_tiles, p.layout.tile_bytes, n_tile, k_tile) +
                        lane * 16;
    *reinterpret_cast<gpu_u32x4 *>(to) = {words[0], words[1], words[2], words[3]};
    if (p.layout.bits == 8)
        *reinterpret_cast<gpu_u32x4 *>(to + 512) = {words[4], words[5], words[6], words[7]};
}

GPU_DEVICE void gpu_repack_all_codes(const gpu_repack_params &p) {
    int64_t first = p.n_begin / GPU_TILE_N;
    int64_t tiles = gpu_ceil_div(p.n_end, GPU_PANEL_N) * GPU_PANEL_TILES - first;
    int64_t step = static_cast<int64_t>(gpu_blocks()) * gpu_threads();
    for (int64_t at = static_cast<int64_t>(gpu_block()) * gpu_threads() + gpu_thread();
         at < tiles * p.layout.k_tiles * GPU_LANES; at += step) {
        int64_t tile = at / GPU_LANES; /* in the order of the prepared weights */
        int64_t panel = tile / GPU_PANEL_TILES / p.layout.k_tiles;
        gpu_repack_lane(p, first + panel * GPU_PANEL_TILES + tile % GPU_PANEL_TILES,
                        tile / GPU_PANEL_TILES % p.layout.k_tiles,
                        static_cast<uint32_t>(at % GPU_LANES));
    }
}

/** Scales and zero points; a thread makes one of each. */
GPU_DEVICE void gpu_repack_all_scales(const gpu_repack_params &p) {
    int64_t rows = gpu_ceil_div(p.n_end, GPU_PANEL_N) * GPU_PANEL_N - p.n_begin;
    int64_t step = static_cast<int64_t>(gpu_blocks()) * gpu_threads();
    for (int64_t at = static_cast<int64_t>(gpu_block()) * gpu_threads() + gpu_thread();
         at < rows * p.layout.groups; at += step) {
        int64_t panel_elements = p.layout.groups * GPU_PANEL_N;
        int64_t row = at / panel_elements * GPU_PANEL_N + at % GPU_PANEL_N;
        int64_t group = at % panel_elements / GPU_PANEL_N, n = p.n_begin + row;
        bool exists = n < p.n_end;
        uint64_t place = gpu_scale_place(&p.layout, n, group);
        unsigned char *scales = p.prepared + p.layout.scales_at;
        if (p.scale_bytes == 2)
            reinterpret_cast<uint16_t *>(scales)[place] =
                exists ? static_cast<const uint16_t *>(p.scales)[row * p.scale_stride + group] : 0;
        else
            reinterpret_cast<uint32_t *>(scales)[place] =
                exists ? static_cast<const uint32_t *>(p.scales)[row * p.scale_stride + group] : 0;
        if (p.zero_points != nullptr)
            p.prepared[p.layout.zeros_at + place] =
                exists ? p.zero_points[row * p.zero_stride + group] : uint8_t{0};
    }
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
