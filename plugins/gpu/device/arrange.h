/*
 * Puts rows of x into the order of places, with zeros where a place has no column, so that the
 * product kernels read it in aligned chunks. `parts` blocks share a row, or GPU_ARRANGE_ROWS rows
 * where columns keep their order: a thread's loads are then on their way together. Where columns
 * are gathered the row lies in shared memory, if there is room: 2 bytes from here and there cost a
 * cache a line each.
 */
#ifndef KERNELRY_GPU_ARRANGE_H
#define KERNELRY_GPU_ARRANGE_H

#include "../params.h"
#include "target.h"

/** Eight columns of a row, which all exist, in loads of UNIT bytes. */
template <int UNIT> GPU_DEVICE gpu_u32x4 gpu_arrange_load(const uint16_t *from) {
    uint32_t v[4];
    if constexpr (UNIT == 16)
        return *reinterpret_cast<const gpu_u32x4 *>(from);
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
        if constexpr (UNIT == 8)
            v[i] = static_cast<uint32_t>(reinterpret_cast<const uint64_t *>(from)[i / 2] >>
                                         i % 2 * 32);
        else if constexpr (UNIT == 4)
            v[i] = reinterpret_cast<const uint32_t *>(from)[i];
        else
            v[i] = from[2 * i] | static_cast<uint32_t>(from[2 * i + 1]) << 16;
    }
    return {v[0], v[1], v[2], v[3]};
}

/** Eight places of a row that begin at column `first`: not all of them exist. */
GPU_DEVICE gpu_u32x4 gpu_arrange_edge(const gpu_arrange_params &p, const uint16_t *row,
                                      int32_t first) {
    uint32_t v[4] = {0, 0, 0, 0};
    for (int32_t i = 0; i < 8; i++)
        if (first + i >= 0 && first + i < p.k)
            v[i / 2] |= static_cast<uint32_t>(row[first + i]) << (i % 2 * 16);
    return {v[0], v[1], v[2], v[3]};
}

/** A part of ROWS rows, or of those that there are, in the order of places. */
template <int UNIT, int ROWS>
GPU_DEVICE void gpu_arrange_chunks(const gpu_arrange_params &p, const uint16_t *from, uint16_t *to,
                                   int64_t rows, uint32_t begin, uint32_t end) {
    for (uint32_t i = begin + gpu_thread(); i < end; i += gpu_threads()) {
        int32_t first = static_cast<int32_t>(i) * 8 - p.front;
        bool inside = first >= 0 && first + 8 <= p.k;
        gpu_u32x4 v[ROWS];
        if (inside) {
#pragma unroll
            for (int32_t r = 0; r < ROWS; r++)
                v[r] = gpu_arrange_load<UNIT>(from + (r < rows ? r : 0) * p.x_stride + first);
        } else {
#pragma unroll
            for (int32_t r = 0; r < ROWS; r++)
                v[r] = gpu_arrange_edge(p, from + (r < rows ? r : 0) * p.x_stride, first);
        }
#pragma unroll
        for (int32_t r = 0; r < ROWS; r++)
            if (r < rows)
                reinterpret_cast<gpu_u32x4 *>(to + r * p.places)[i] = v[r];
    }
}

/** All rows, by blocks that take ROWS of them at a time. */
template <int ROWS> GPU_DEVICE void gpu_arrange_straight(const gpu_arrange_params &p) {
    uint32_t parts = static_cast<uint32_t>(p.parts), part = gpu_block() % parts;
    uint32_t all = static_cast<uint32_t>(p.places) / 8, mine = (all + parts - 1) / parts;
    uint32_t begin = part * mine, end = begin + mine < all ? begin + mine : all;
    int64_t step = gpu_blocks() / parts * ROWS;
    for (int64_t row = gpu_block() / parts * ROWS; row < p.m; row += step) {
        const uint16_t *from = p.x + row * p.x_stride;
        uint16_t *to = p.to + row * p.places;
        if (p.unit == 8)
            gpu_arrange_chunks<8, ROWS>(p, from, to, p.m - row, begin, end);
        else if (p.unit == 4)
            gpu_arrange_chunks<4, ROWS>(p, from, to, p.m - row, begin, end);
        else
            gpu_arrange_chunks<2, ROWS>(p, from, to, p.m - row, begin, end);
    }
}

/* ---- gathered columns ------------------------------------------------------------------------ */

/** Two places from the columns of a row that a pair of `source` names. */
GPU_DEVICE uint32_t gpu_arrange_pair(uint64_t columns, const uint16_t *row) {
    int32_t low = static_cast<int32_t>(columns), high = static_cast<int32_t>(columns >> 32);
    uint32_t pair = low >= 0 ? row[low] : 0u;
    return high >= 0 ? pair | static_cast<uint32_t>(row[high]) << 16 : pair;
}

/** A row of x to shared memory: whole chunks, then what is left. */
template <int UNIT>
GPU_DEVICE void gpu_arrange_fetch(const gpu_arrange_params &p, const uint16_t *from,
                                  uint16_t *shared) {
    int32_t threads = static_cast<int32_t>(gpu_threads());
    int32_t thread = static_cast<int32_t>(gpu_thread()), whole = p.k / 8;
    for (int32_t i = thread; i < whole; i += threads)
        *reinterpret_cast<gpu_u32x4 *>(shared + i * 8) = gpu_arrange_load<UNIT>(from + i * 8);
    for (int32_t i = whole * 8 + thread; i < p.k; i += threads)
        shared[i] = from[i];
}

GPU_DEVICE void gpu_arrange_gathered(const gpu_arrange_params &p, unsigned char *shared) {
    uint16_t *held = reinterpret_cast<uint16_t *>(shared);
    uint32_t parts = static_cast<uint32_t>(p.parts), part = gpu_block() % parts;
    uint32_t all = static_cast<uint32_t>(p.places) / 2, mine = (all + parts - 1) / parts;
    uint32_t begin = part * mine, end = begin + mine < all ? begin + mine : all;
    for (int64_t row = gpu_block() / parts; row < p.m; row += gpu_blocks() / parts) {
        const uint16_t *from = p.x + row * p.x_stride;
        if (p.in_shared != 0) {
            gpu_barrier(); /* the row before has been read */
            if (p.unit == 16)
                gpu_arrange_fetch<16>(p, from, held);
            else if (p.unit >= 4)
                gpu_arrange_fetch<4>(p, from, held);
            else
                gpu_arrange_fetch<2>(p, from, held);
            gpu_barrier();
            from = held;
        }
        uint32_t *to = reinterpret_cast<uint32_t *>(p.to + row * p.places);
#pragma unroll 4
        for (uint32_t i = begin + gpu_thread(); i < end; i += gpu_threads())
            to[i] = gpu_arrange_pair(reinterpret_cast<const uint64_t *>(p.source)[i], from);
    }
}

GPU_DEVICE void gpu_arrange_rows(const gpu_arrange_params &p) {
    GPU_SHARED(shared);
#if GPU_HAS_WGMMA
    gpu_next_grid_start();
    gpu_previous_grid_wait();
#endif
    if (p.source != nullptr)
        gpu_arrange_gathered(p, shared);
    else if (gpu_blocks() < static_cast<uint32_t>(p.m) * static_cast<uint32_t>(p.parts))
        gpu_arrange_straight<GPU_ARRANGE_ROWS>(p);
    else
        gpu_arrange_straight<1>(p);
}

#endif
