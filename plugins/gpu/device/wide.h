/*
 * The kernel for Hopper: weights stream through shared memory once, by the copy engine, and are
 * dequantized in registers, operand A of warpgroup matrix instructions; x is operand B.
 *
 * Block tile    64 PANELS WARPGROUPS / TURNS (n) x N (m) x 128 (places); a warpgroup owns PANELS
 *               panels, which TURNS warpgroups share, a stage each in turn.
 * Instruction   wgmma m64nNk16; mma m16n8k16 where N <= 16. See wide_sum.h, wide_few.h.
 * Pipeline      STAGES stages, filled by one wave that does nothing else (bulk copies of codes,
 *               scales and zero points, tensor copies of x) and runs ahead into the next output
 *               tile; `full` and `empty` mbarriers a stage. See wide_copy.h.
 * Cluster       the blocks of a cluster share an output tile along K. See wide_join.h.
 * Persistent    a cluster takes every clusters-th output tile.
 *
 * stage buffer   shape                 type      stored as                                 bytes
 * x              [2][N, 64]            16 bits   as gpu_tensor_copy makes it              256 N
 * codes          [panels][2]           u4, u8    as prepared             4096 or 8192 a panel
 * scales         [panels][SLOTS][64]   16 bits   of groups that follow each other
 * zeros          [panels][SLOTS][64]   u8        the same
 * tail           [N / 2, 8]            16 bits   where LATE: of late rows of x, see wide_x.h
 * moved          where LATE: an mbarrier
 *
 * Behind the stages: sums (clusters, teams), the mbarriers, and for each stage a table [8]: which
 * of the scales each block of places has.
 *
 * Groups         `slots` groups a stage: 1 or 2, where a tile of places has one; 4 or 8; or 0,
 *                where they follow no pattern and a table is written for each stage.
 * Numerics       sums in f32 over the places of a team, then over ranks and teams in order. Scales
 *                are applied to sums where N <= 16, else to weights, which are rounded once.
 * Early          started while the grid before it runs: brings weights, then waits.
 * Assumes        x and its rows at multiples of 16 bytes, or where LATE each second row and the
 *                others 8 bytes behind, see wide_x.h (else x is put in order first).
 * Chosen         on sm_90a, see plan_wide.c.
 */
#ifndef KERNELRY_GPU_WIDE_H
#define KERNELRY_GPU_WIDE_H

#include "wide_copy.h"
#include "wide_few.h"
#include "wide_join.h"

/** Sum up and store a block's output tiles. sum(turn, c): a team's places of one. */
template <class S, class Sum>
GPU_DEVICE void gpu_wide_multiply_tiles(const gpu_apply_params &p, gpu_wide_progress at,
                                        unsigned char *shared, const Sum &sum) {
    [[maybe_unused]] gpu_wide_ranks ranks = gpu_wide_ranks_of(p);
    /* The others' mbarriers have long been there when x is. */
    if (p.splits > 1)
        gpu_cluster_wait();
    gpu_previous_grid_wait(); /* before y is written */
    [[maybe_unused]] uint32_t joins = 0;
    for (; at.output_tile < at.output_tiles; at.output_tile += at.step) {
        int32_t feature = gpu_wide_panel<S>(p, at) * GPU_PANEL_N, row = gpu_wide_row<S>(p, at);
        float c[S::PANELS][S::N / 2];
        gpu_keep(feature); /* divisions are better done now than when the sums are there */
        gpu_keep(row);
        gpu_wide_zero<S>(c);
        sum(gpu_wide_turn_of<S>(at), c);
        if constexpr (S::CHUNK != 0) {
            if (S::TURNS > 1 || p.splits > 1) {
                gpu_wide_join<S>(p, at, ranks, feature, row, shared, joins, c);
                continue;
            }
        }
        if constexpr (S::TURNS == 1)
            gpu_wide_store_all<S>(p, feature, row, c);
    }
}

template <class S, int SCALES, class Use>
GPU_DEVICE void gpu_wide_choose_zeros(const gpu_apply_params &p, const Use &use) {
    if (p.zeros != nullptr)
        use(gpu_wide_factors<S, SCALES, true>());
    else
        use(gpu_wide_factors<S, SCALES, false>());
}

/** Call use(factors) with those that a call has. */
template <class S, class Use>
GPU_DEVICE void gpu_wide_choose(const gpu_apply_params &p, const Use &use) {
    if constexpr (!S::ANY)
        gpu_wide_choose_zeros<S, 1>(p, use);
    else if (p.slots == 4)
        gpu_wide_choose_zeros<S, 2>(p, use);
    else if constexpr (S::FEW)
        gpu_wide_choose_zeros<S, 4>(p, use);
    else /* seldom: not worth code of its own, see MAYBE */
        use(gpu_wide_factors<S, 4, true>());
}

template <class S>
GPU_DEVICE void gpu_wide_multiply_all(const gpu_apply_params &p, const gpu_wide_progress &at,
                                      unsigned char *shared) {
    typedef const gpu_wide_turn<S> &turn;
    typedef float(&sums)[S::PANELS][S::N / 2];
    shared = gpu_shared_kept(shared);
    gpu_wide_lane<S> mine = gpu_wide_lane_of<S>();
    if constexpr (S::FEW) {
        gpu_wide_multiply_tiles<S>(p, at, shared, [&](turn own, sums c) {
            gpu_wide_choose<S>(p, [&](auto factors) {
                gpu_wide_sum_few<decltype(factors)>(p, mine, own, shared, c);
            });
        });
    } else {
        /* Ways that join again before the sums are stored make the compiler hold these twice, run
         * out of registers, and wait for each wgmma. */
        gpu_wide_choose<S>(p, [&](auto factors) {
            gpu_wide_multiply_tiles<S>(p, at, shared, [&](turn own, sums c) {
                gpu_wide_sum_many<decltype(factors)>(p, mine, own, shared, c);
            });
        });
    }
}

/** Zeros for scales that no copy brings, where the last stage's groups end early: x is zero there,
 *  and no product may be NaN. */
template <class S>
GPU_DEVICE void gpu_wide_clear(const gpu_apply_params &p, unsigned char *shared) {
    uint32_t slots = static_cast<uint32_t>(p.slots);
    uint32_t stages = static_cast<uint32_t>(p.k_tiles - 1) / S::TILES;
    if (slots < 2)
        return;
    if (gpu_group(p, stages * S::BLOCKS) + slots <= static_cast<uint32_t>(p.groups))
        return;
    constexpr uint32_t CHUNKS = (S::TAIL_AT - S::SCALES_AT) / 16;
    for (uint32_t i = gpu_thread(); i < S::STAGES * CHUNKS; i += gpu_threads())
        *reinterpret_cast<gpu_u32x4 *>(shared + i / CHUNKS * S::STAGE_BYTES + S::SCALES_AT +
                                       i % CHUNKS * 16) = {0, 0, 0, 0};
    gpu_shared_publish();
}

template <class S>
GPU_DEVICE void gpu_wide(const gpu_wide_params &w, const gpu_tensor_map *late = nullptr) {
    GPU_SHARED(shared);
    const gpu_apply_params &p = w.apply;
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    if (gpu_thread() == 0) {
        for (int i = 0; i < S::STAGES; i++) {
            gpu_mbarrier_init(&barriers->full[i], 1);
            gpu_mbarrier_init(&barriers->empty[i], S::TEAM);
            if constexpr (S::LATE)
                gpu_mbarrier_init(gpu_wide_moved<S>(shared + i * S::STAGE_BYTES), S::TEAM);
        }
        gpu_mbarrier_init(&barriers->ready, S::WORKERS);
        gpu_mbarrier_init(&barriers->free, static_cast<uint32_t>(p.splits));
        gpu_mbarrier_publish();
    }
    gpu_wide_clear<S>(p, shared);
    gpu_next_grid_start();
    gpu_barrier();
    if (p.splits > 1)
        gpu_cluster_arrive();
    uint32_t wave = gpu_uniform_wave();
    gpu_wide_progress at = gpu_wide_begin<S::TILES>(p);
    if (wave < S::WORKERS / GPU_WAVE) {
        if constexpr (S::REGISTERS != 0)
            gpu_registers_take<S::REGISTERS>();
        gpu_wide_multiply_all<S>(p, at, shared);
    } else {
        if constexpr (S::REGISTERS != 0)
            gpu_registers_give<S::COPY_REGISTERS>();
        if (wave == S::WORKERS / GPU_WAVE)
            gpu_wide_copy_all<S>(w, late, at, shared);
        if (p.splits > 1)
            gpu_cluster_wait();
    }
}

#endif
