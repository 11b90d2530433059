/*
 * wide.h: x of which every second row lies 8 bytes behind a multiple of 16, where the copy engine
 * cannot start. Late rows are copied from 8 bytes before their begin; the team that multiplies a
 * stage moves them to where they belong first.
 *
 * In place    16 lanes read a row of a stage, each the 16 bytes from the middle of its chunk on, of
 *             which the last have their second half in the tail; when all have, they write it.
 */
#ifndef KERNELRY_GPU_WIDE_X_H
#define KERNELRY_GPU_WIDE_X_H

#include "wide_shape.h"

/** A stage's mbarrier: its late rows lie where they belong. */
template <class S> GPU_DEVICE gpu_mbarrier *gpu_wide_moved(unsigned char *stage) {
    return reinterpret_cast<gpu_mbarrier *>(stage + S::MOVED_AT);
}

/** Move a worker's share of a stage's late rows, and tell the team. */
template <class S>
GPU_DEVICE void gpu_wide_move_x(const gpu_apply_params &p, unsigned char *stage) {
    constexpr uint32_t ROWS = S::N / 2;
    static_assert(ROWS <= S::TEAM / 16);
    uint32_t worker = gpu_thread() % S::TEAM, chunk = worker % 16, late = worker / 16;
    uint32_t row = (p.late == 1 ? 0 : ROWS) + late;
    auto place = [&](uint32_t of) {
        return of / 8 * (S::N * 128) + row * 128 + (of % 8 ^ row % 8) * 16;
    };
    if (late < ROWS) {
        uint32_t next = chunk < 15 ? place(chunk + 1) : S::TAIL_AT + late * 16;
        uint64_t low = *reinterpret_cast<const uint64_t *>(stage + place(chunk) + 8);
        uint64_t high = *reinterpret_cast<const uint64_t *>(stage + next);
        gpu_wave_barrier();
        *reinterpret_cast<gpu_u32x4 *>(stage + place(chunk)) = {
            static_cast<uint32_t>(low), static_cast<uint32_t>(low >> 32),
            static_cast<uint32_t>(high), static_cast<uint32_t>(high >> 32)};
        gpu_shared_publish(); /* before the next copy */
    }
    gpu_mbarrier_arrive(gpu_wide_moved<S>(stage));
}

#endif
