/*
 * Puts rows of x into the order of places, with zeros where a place has no column, so that the
 * product kernels read it in aligned chunks. `parts` blocks share a row. Where columns are gathered
 * the row lies in shared memory, if there is room: 2 bytes from here and there cost a cache a line
 * each.
 */
#ifndef KERNELRY_GPU_ARRANGE_H
#define KERNELRY_GPU_ARRANGE_H

#include "../params.h"
#include "target.h"

/** Columns k to k + 7 of a row, which all exist, in loads of p.unit bytes. */
GPU_DEVICE gpu_u32x4 gpu_arrange_load(const gpu_arrange_params &p, const uint16_t *from) {
    uint32_t v[4];
    if (p.unit == 16)
        return *reinterpret_cast<const gpu_u32x4 *>(from);
    for (int32_t i = 0; i < 2; i++) {
        if (p.unit == 8) {
            uint64_t both = reinterpret_cast<const uint64_t *>(from)[i];
            v[2 * i] = static_cast<uint32_t>(both);
            v[2 * i + 1] = static_cast<uint32_t>(both >> 32);
        } else if (p.unit == 4) {
            v[2 * i] = reinterpret_cast<const uint32_t *>(from)[2 * i];
            v[2 * i + 1] = reinterpret_cast<const uint32_t *>(from)[2 * i + 1];
        } else {
            for (int32_t j = 2 * i; j < 2 * i + 2; j++)
                v[j] = from[2 * j] | static_cast<uint32_t>(from[2 * j + 1]) << 16;
        }
    }
    return {v[0], v[1], v[2], v[3]};
}

/** Eight places from a row of k columns: those that follow p.front places. */
GPU_DEVICE gpu_u32x4 gpu_arrange_chunk(const gpu_arrange_params &p, const uint16_t *row,
                                       int32_t place) {
    int32_t first = place - p.front;
    if (first >= 0 && first + 8 <= p.k)
        return gpu_arrange_load(p, row + first);
    uint32_t v[4] = {0, 0, 0, 0};
    for (int32_t i = 0; i < 8; i++)
        if (first + i >= 0 && first + i < p.k)
            v[i / 2] |= static_cast<uint32_t>(row[first + i]) << (i % 2 * 16);
    return {v[0], v[1], v[2], v[3]};
}

/** Two places from the columns of a row that a pair of `source` names. */
GPU_DEVICE uint32_t gpu_arrange_pair(uint64_t columns, const uint16_t *row) {
    int32_t low = static_cast<int32_t>(columns), high = static_cast<int32_t>(columns >> 32);
    uint32_t pair = low >= 0 ? row[low] : 0u;
    return high >= 0 ? pair | static_cast<uint32_t>(row[high]) << 16 : pair;
}

/** A row of x to shared memory: whole chunks, then what is left. */
GPU_DEVICE void gpu_arrange_fetch(const gpu_arrange_params &p, const uint16_t *from,
                                  uint16_t *shared) {
    int32_t threads = static_cast<int32_t>(gpu_threads());
    int32_t thread = static_cast<int32_t>(gpu_thread()), whole = p.k / 8;
    for (int32_t i = thread; i < whole; i += threads)
        *reinterpret_cast<gpu_u32x4 *>(shared + i * 8) = gpu_arrange_load(p, from + i * 8);
    for (int32_t i = whole * 8 + thread; i < p.k; i += threads)
        shared[i] = from[i];
}

GPU_DEVICE void gpu_arrange_rows(const gpu_arrange_params &p) {
    GPU_SHARED(shared);
#if GPU_HAS_WGMMA
    gpu_next_grid_start();
    gpu_previous_grid_wait();
#endif
    uint32_t each = p.source != nullptr ? 2 : 8; /* places that a thread makes at a time */
    uint32_t parts = static_cast<uint32_t>(p.parts), part = gpu_block() % parts;
    uint32_t all = static_cast<uint32_t>(p.places) / each, mine = (all + parts - 1) / parts;
    uint32_t begin = part * mine, end = begin + mine < all ? begin + mine : all;
    for (int64_t row = gpu_block() / parts; row < p.m; row += gpu_blocks() / parts) {
        const uint16_t *from = p.x + row * p.x_stride;
        uint16_t *to = p.to + row * p.places;
        if (p.in_shared != 0) {
            gpu_barrier(); /* the row before has been read */
            gpu_arrange_fetch(p, from, reinterpret_cast<uint16_t *>(shared));
            gpu_barrier();
            from = reinterpret_cast<uint16_t *>(shared);
        }
#pragma unroll 4
        for (uint32_t i = begin + gpu_thread(); i < end; i += gpu_threads()) {
            if (p.source != nullptr)
                reinterpret_cast<uint32_t *>(to)[i] =
                    gpu_arrange_pair(reinterpret_cast<const uint64_t *>(p.source)[i], from);
            else
                reinterpret_cast<gpu_u32x4 *>(to)[i] =
                    gpu_arrange_chunk(p, from, static_cast<int32_t>(i) * 8);
        }
    }
}

#endif
