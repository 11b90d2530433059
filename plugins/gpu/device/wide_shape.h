/*
 * Block tiles of the kernel for Hopper, wide.h: their shared memory, and the way of a block through
 * output tiles and stages.
 */
#ifndef KERNELRY_GPU_WIDE_SHAPE_H
#define KERNELRY_GPU_WIDE_SHAPE_H

#include "../wide_tile.h"
#include "dequant.h"
#include "operands.h"

template <int BITS_, bool BF16_, int N_, int WARPGROUPS_, int PANELS_, int TURNS_, int CHUNK_,
          int RESIDENT_, bool ANY_>
struct gpu_wide_shape {
    static constexpr int BITS = BITS_, N = N_, WARPGROUPS = WARPGROUPS_, PANELS = PANELS_;
    static constexpr int TURNS = TURNS_, CHUNK = CHUNK_; /* CHUNK: 0, no join */
    static constexpr bool BF16 = BF16_, ANY = ANY_;      /* ANY: slots are neither 1 nor 2 */
    static constexpr bool FEW = N <= 16;                 /* waves multiply by themselves */
    /* Registers of a worker and of a thread of the copying warpgroup, where it is one and gives
     * theirs; 0: as launched. Together no more than at the launch, or the block waits forever: with
     * one warpgroup that multiplies it is launched with REGISTERS, and takes none. */
    static constexpr int REGISTERS = RESIDENT_ == 1 ? 232 : 0;
    static constexpr int COPY_REGISTERS = 40;
    static constexpr int LAUNCH_REGISTERS = 168;
    static_assert(REGISTERS == 0 ||
                  WARPGROUPS_ * REGISTERS + COPY_REGISTERS <= (WARPGROUPS_ + 1) * LAUNCH_REGISTERS);
    /* Of many rows: registers do for the weights of both tiles of a stage at once. */
    static constexpr bool AHEAD = PANELS == 1 && (WARPGROUPS == 1 || REGISTERS != 0);
    static constexpr int TILES = GPU_WIDE_TILES_K;
    static constexpr int ALL_PANELS = WARPGROUPS / TURNS * PANELS;
    static constexpr int WORKERS = WARPGROUPS * 128; /* threads that multiply */
    static constexpr int TEAM = WORKERS / TURNS;     /* those that share a stage */
    static constexpr int THREADS = gpu_wide_threads(WARPGROUPS, RESIDENT_);
    static constexpr int PANEL_BYTES = 512 * BITS; /* codes of 64 x 64 */
    static constexpr int X_BYTES = TILES * N * 128;
    static constexpr uint32_t BLOCKS = GPU_WIDE_BLOCKS;
    static constexpr uint32_t SLOTS = gpu_wide_slots(ANY); /* for scales, a stage and panel */
    static constexpr int CODES_AT = X_BYTES;
    static constexpr int SCALES_AT = CODES_AT + ALL_PANELS * TILES * PANEL_BYTES;
    static constexpr int ZEROS_AT = SCALES_AT + ALL_PANELS * SLOTS * GPU_PANEL_N * 2;
    static constexpr int TAIL_AT = ZEROS_AT + ALL_PANELS * SLOTS * GPU_PANEL_N; /* see LATE */
    static constexpr bool LATE = false;
    static constexpr int STAGE_BYTES = gpu_wide_stage_bytes(ALL_PANELS * 64, N, BITS, ANY);
    static constexpr int SUM_BYTES = gpu_wide_sum_bytes(WARPGROUPS, TURNS, CHUNK);
    static constexpr int STAGES = gpu_wide_stages(STAGE_BYTES, SUM_BYTES, TURNS, RESIDENT_);
    static constexpr int SUMS_AT = STAGES * STAGE_BYTES;
    static constexpr int BARRIERS_AT = SUMS_AT + SUM_BYTES;
    static constexpr int TABLES_AT = BARRIERS_AT + (2 * STAGES + 2) * 8;
    static_assert(TABLES_AT + STAGES * static_cast<int>(BLOCKS) ==
                  gpu_wide_shared_bytes(STAGE_BYTES, SUM_BYTES, STAGES));
    static_assert(TAIL_AT % 128 == 0 && TAIL_AT <= STAGE_BYTES);
    static_assert(TURNS == 1 || CHUNK != 0);
    static_assert(FEW || STAGES >= 2 * TURNS, "a team frees a stage when its next one has come");
    static_assert(CHUNK == 0 || PANELS * N / 8 % (CHUNK + (CHUNK == 0)) == 0);
};

/** The same where every second row of x is late, see wide_x.h. */
template <class S> struct gpu_wide_late : S {
    static constexpr bool LATE = true;
    static constexpr int TAIL_BYTES = gpu_wide_tail_bytes(S::N);
    static constexpr int MOVED_AT = S::TAIL_AT + TAIL_BYTES; /* an mbarrier */
    static_assert(S::FEW && MOVED_AT % 8 == 0 && MOVED_AT + 8 <= S::STAGE_BYTES);
};

/** The block's mbarriers. */
template <class S> struct gpu_wide_barriers {
    gpu_mbarrier full[S::STAGES];  /* a stage has been copied */
    gpu_mbarrier empty[S::STAGES]; /* and used: an arrival a thread */
    gpu_mbarrier ready; /* sums of every block of the cluster lie there: an arrival a worker,
                         and the bytes of the others */
    gpu_mbarrier free;  /* and have been read */
};

template <class S> GPU_DEVICE gpu_wide_barriers<S> *gpu_wide_barriers_of(unsigned char *shared) {
    return reinterpret_cast<gpu_wide_barriers<S> *>(shared + S::BARRIERS_AT);
}

/** Where a block is in its output tiles and stages. */
struct gpu_wide_progress {
    int32_t output_tile;
    int32_t output_tiles;
    int32_t step;  /* clusters */
    int32_t begin; /* this block's tiles of places: whole stages */
    int32_t end;
    int32_t tile; /* the next to be copied */
    uint32_t stage;
    uint32_t phase;
};

template <int TILES> GPU_DEVICE gpu_wide_progress gpu_wide_begin(const gpu_apply_params &p) {
    gpu_wide_progress at;
    int32_t blocks = p.splits, rank = static_cast<int32_t>(gpu_block()) % blocks;
    int32_t used = gpu_used_tiles(p);
    at.output_tile = static_cast<int32_t>(gpu_block()) / blocks;
    at.output_tiles = p.m_blocks * p.n_blocks;
    at.step = static_cast<int32_t>(gpu_blocks()) / blocks;
    int64_t stages = (used + TILES - 1) / TILES;
    at.begin = static_cast<int32_t>(stages * rank / blocks) * TILES;
    at.end = static_cast<int32_t>(stages * (rank + 1) / blocks) * TILES;
    at.tile = at.begin;
    at.stage = 0;
    at.phase = 0;
    return at;
}

/** Go on by so many stages, no more than there are. */
template <class S>
GPU_DEVICE void gpu_wide_step(uint32_t &stage, uint32_t &phase, uint32_t stages) {
    stage += stages;
    if (stage >= S::STAGES) {
        stage -= S::STAGES;
        phase ^= 1;
    }
}

/** The first panel and row of the output tile. Tiles go down the rows of x first, so that blocks at
 *  work together share weights. */
template <class S>
GPU_DEVICE int32_t gpu_wide_panel(const gpu_apply_params &p, const gpu_wide_progress &at) {
    return at.output_tile / p.m_blocks * S::ALL_PANELS;
}
template <class S>
GPU_DEVICE int32_t gpu_wide_row(const gpu_apply_params &p, const gpu_wide_progress &at) {
    return at.output_tile % p.m_blocks * S::N;
}

/** Panels of the output tile that exist. */
template <class S>
GPU_DEVICE int32_t gpu_wide_panels(const gpu_apply_params &p, const gpu_wide_progress &at) {
    int32_t left = p.n_tiles / GPU_PANEL_TILES - gpu_wide_panel<S>(p, at);
    return left < S::ALL_PANELS ? left : S::ALL_PANELS;
}

#endif
