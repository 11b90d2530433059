/*
 * Puts rows of x into the order of places, with zeros where a place has no column, so that the
 * product kernels read it in aligned chunks. A thread makes 8 places of a row.
 */
#ifndef KERNELRY_GPU_ARRANGE_H
#define KERNELRY_GPU_ARRANGE_H

#include "../params.h"
#include "target.h"

GPU_DEVICE void gpu_arrange_rows(const gpu_arrange_params &p) {
#if GPU_HAS_WGMMA
    gpu_next_grid_start();
    gpu_previous_grid_wait();
#endif
    int64_t chunks = p.places / 8;
    int64_t step = static_cast<int64_t>(gpu_blocks()) * gpu_threads();
    for (int64_t at = static_cast<int64_t>(gpu_block()) * gpu_threads() + gpu_thread();
         at < p.m * chunks; at += step) {
        int64_t row = at / chunks;
        int32_t place = static_cast<int32_t>(at % chunks) * 8;
        const uint16_t *from = p.x + row * p.x_stride;
        uint32_t words[4];
        for (int32_t i = 0; i < 4; i++) {
            uint32_t pair = 0;
            for (int32_t j = 0; j < 2; j++) {
                int32_t here = place + i * 2 + j;
                int32_t k = p.source != nullptr ? p.source[here] : here - p.front;
                if (k >= 0 && k < p.k)
                    pair |= static_cast<uint32_t>(from[k]) << (16 * j);
            }
            words[i] = pair;
        }
        *reinterpret_cast<gpu_u32x4 *>(p.to + row * p.places + place) = {words[0], words[1],
                                                                         words[2], words[3]};
    }
}

#endif
