/*
 * The kernel for Hopper: weights stream through shared memory once, by the copy engine, and are
 * dequantized in registers, operand A of warpgroup matrix instructions; x is operand B.
 *
 * Block tile    64 PANELS WARPGROUPS (n) x N (m) x 128 (places); a warpgroup owns PANELS panels.
 * Instruction   wgmma m64nNk16.
 * Pipeline      STAGES stages, filled by one wave that does nothing else (bulk copies of codes,
 *               scales and zero points, tensor copies of x) and runs ahead into the next output
 *               tile; `full` and `empty` mbarriers a stage. While a tile's 64 places multiply, the
 *               next 64 are dequantized into the other half of `left`.
 * Cluster       the blocks of a cluster share an output tile along K. Each hands its sums to the
 *               others, a chunk at a time: block r gets the r-th part of all of them, adds them up
 *               in the order of ranks, and stores it. CHUNK counts 16 bytes a worker.
 * Persistent    a cluster takes every clusters-th output tile.
 *
 * stage buffer   shape             type      stored as                                     bytes
 * x              [2][N, 64]        16 bits   as gpu_tensor_copy makes it                  256 N
 * codes          [panels][2]       u4, u8    as prepared                 4096 or 8192 a panel
 * scales         [panels][8][64]   16 bits   of groups that follow each other    1024 a panel
 * zeros          [panels][8][64]   u8        the same                             512 a panel
 * Behind the stages: sums (clusters), the mbarriers, and for each stage a table [8]: which of the
 * scales each block of places has.
 *
 * Groups         `slots` groups a stage: 1 or 2, where a tile of places has one; 4 or 8; or 0,
 *                where they follow no pattern and the table is written anew for each stage.
 * Numerics       sums in f32 over the places of a block, then over ranks in order. Scales are
 *                applied to sums where EXACT, else to weights, which are rounded once to 16 bits.
 * Early          started while the grid before it runs: asks for weights towards L2, then waits.
 * Assumes        x and its rows at multiples of 16 bytes (else x is put in order first).
 * Chosen         on sm_90a, see plan_wide.c.
 */
#ifndef KERNELRY_GPU_WIDE_H
#define KERNELRY_GPU_WIDE_H

#include "dequant.h"
#include "operands.h"

template <int BITS_, bool BF16_, int N_, int WARPGROUPS_, int PANELS_, int STAGES_, int CHUNK_,
          bool ANY_>
struct gpu_wide_shape {
    static constexpr int BITS = BITS_, N = N_, WARPGROUPS = WARPGROUPS_, PANELS = PANELS_;
    static constexpr int STAGES = STAGES_, CHUNK = CHUNK_; /* CHUNK: 0, no clusters */
    static constexpr bool BF16 = BF16_, ANY = ANY_;        /* ANY: slots are neither 1 nor 2 */
    static constexpr bool EXACT = N <= 16 && !ANY;
    /* Registers of a worker and of a thread of the copying warpgroup, where these give theirs; 0:
     * as launched. Together no more than at the launch, or the block waits forever. */
    static constexpr int REGISTERS = N >= 128 ? 232 : N >= 32 ? 104 : 0;
    static constexpr int COPY_REGISTERS = N >= 128 ? 40 : 64;
    static constexpr int LAUNCH_REGISTERS = N >= 128 ? 168 : 96;
    static_assert(WARPGROUPS_ * REGISTERS + COPY_REGISTERS <=
                      (WARPGROUPS_ + 1) * LAUNCH_REGISTERS ||
                  REGISTERS == 0);
    static constexpr int TILES = 2; /* of places, a stage */
    static constexpr int ALL_PANELS = WARPGROUPS * PANELS;
    static constexpr int WORKERS = WARPGROUPS * 128; /* threads that multiply */
    static constexpr int PANEL_BYTES = 512 * BITS;   /* codes of 64 x 64 */
    static constexpr int X_BYTES = TILES * N * 128;
    static constexpr int CODES_AT = X_BYTES;
    static constexpr int SCALES_AT = CODES_AT + ALL_PANELS * TILES * PANEL_BYTES;
    static constexpr uint32_t SLOTS = TILES * GPU_TILE_BLOCKS;
    static constexpr int ZEROS_AT = SCALES_AT + ALL_PANELS * SLOTS * GPU_PANEL_N * 2;
    static constexpr int STAGE_BYTES = ZEROS_AT + ALL_PANELS * SLOTS * GPU_PANEL_N;
    static constexpr int SUMS_AT = STAGES * STAGE_BYTES;
    static constexpr int BARRIERS_AT = SUMS_AT + (CHUNK == 0 ? 0 : WORKERS * CHUNK + 8) * 16;
    static constexpr int TABLES_AT = BARRIERS_AT + (2 * STAGES + 2) * 8;
    static_assert(STAGE_BYTES % 1024 == 0 &&
                  (CHUNK == 0 || PANELS * N / 8 % (CHUNK + (CHUNK == 0)) == 0));
};

/** The block's mbarriers. */
template <class S> struct gpu_wide_barriers {
    gpu_mbarrier full[S::STAGES];  /* a stage has been copied */
    gpu_mbarrier empty[S::STAGES]; /* and used: an arrival a wave */
    gpu_mbarrier ready;            /* sums of every block of the cluster lie there */
    gpu_mbarrier free;             /* and have been read */
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
    at.stage = 0;
    at.phase = 0;
    return at;
}

template <class S> GPU_DEVICE void gpu_wide_next_stage(gpu_wide_progress &at) {
    at.stage++;
    if (at.stage == S::STAGES) {
        at.stage = 0;
        at.phase ^= 1;
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

/* ---- the thread that copies --------------------------------------------------------------- */

/** Panels of the output tile that exist. */
template <class S>
GPU_DEVICE int32_t gpu_wide_panels(const gpu_apply_params &p, const gpu_wide_progress &at) {
    int32_t left = p.n_tiles / GPU_PANEL_TILES - gpu_wide_panel<S>(p, at);
    return left < S::ALL_PANELS ? left : S::ALL_PANELS;
}

template <class S>
GPU_DEVICE const unsigned char *gpu_wide_codes(const gpu_apply_params &p, int32_t panel,
                                               int32_t tile) {
    return p.codes + (static_cast<int64_t>(panel) * p.k_tiles + tile) * S::PANEL_BYTES;
}

/** What the thread copies for an output tile, and how far it is. */
template <class S> struct gpu_wide_source {
    const unsigned char *codes;  /* of the next stage; panels follow each panel_codes bytes */
    const unsigned char *scales; /* of group 0; panels follow each panel_scales bytes */
    const unsigned char *zeros;
    int64_t panel_codes;
    int64_t panel_scales;
    int32_t panels;
    int32_t column; /* of x, of the next stage's first place */
    int32_t row;
    uint32_t block; /* the next stage's first */
};

template <class S>
GPU_DEVICE gpu_wide_source<S> gpu_wide_source_of(const gpu_apply_params &p,
                                                 const gpu_wide_progress &at) {
    gpu_wide_source<S> from;
    int32_t panel = gpu_wide_panel<S>(p, at);
    from.codes = gpu_wide_codes<S>(p, panel, at.begin);
    from.panel_codes = static_cast<int64_t>(p.k_tiles) * S::PANEL_BYTES;
    from.panel_scales = static_cast<int64_t>(p.groups) * (GPU_PANEL_N * 2);
    from.scales = p.scales + panel * from.panel_scales;
    from.zeros = p.zeros != nullptr ? p.zeros + panel * (from.panel_scales / 2) : nullptr;
    from.panels = gpu_wide_panels<S>(p, at);
    from.column = at.begin * GPU_TILE_K - p.front;
    from.row = gpu_wide_row<S>(p, at);
    from.block = static_cast<uint32_t>(at.begin) * GPU_TILE_BLOCKS;
    return from;
}

/** Copy the scales of `count` groups from `group` on to those of each panel from `slot` on. */
template <class S>
GPU_DEVICE void gpu_wide_copy_scales(const gpu_wide_source<S> &from, uint32_t group, uint32_t count,
                                     uint32_t slot, unsigned char *stage, gpu_mbarrier *full) {
#pragma unroll
    for (int i = 0; i < S::ALL_PANELS; i++) {
        if (i >= from.panels)
            break;
        int64_t at = i * from.panel_scales + static_cast<int64_t>(group) * (GPU_PANEL_N * 2);
        gpu_bulk_copy(stage + S::SCALES_AT + (i * S::SLOTS + slot) * (GPU_PANEL_N * 2),
                      from.scales + at, count * (GPU_PANEL_N * 2), full);
        if (from.zeros != nullptr)
            gpu_bulk_copy(stage + S::ZEROS_AT + (i * S::SLOTS + slot) * GPU_PANEL_N,
                          from.zeros + at / 2, count * GPU_PANEL_N, full);
    }
}

/** The groups of a stage where they follow no pattern: its table says where their scales lie. */
template <class S>
GPU_DEVICE void gpu_wide_copy_any_scales(const gpu_apply_params &p, const gpu_wide_source<S> &from,
                                         uint32_t bytes, unsigned char *stage, unsigned char *table,
                                         gpu_mbarrier *full) {
    uint32_t groups[S::SLOTS], blocks = static_cast<uint32_t>(p.k_tiles) * GPU_TILE_BLOCKS;
#pragma unroll
    for (uint32_t i = 0; i < S::SLOTS; i++) {
        groups[i] = gpu_group(p, from.block + i < blocks ? from.block + i : blocks - 1);
        if (i > 0 && groups[i] < groups[i - 1])
            groups[i] = groups[i - 1]; /* behind the last block in use block_group holds zeros */
    }
    uint32_t count = groups[S::SLOTS - 1] - groups[0] + 1;
    bool near = count <= S::SLOTS; /* else each block brings its own */
#pragma unroll
    for (uint32_t i = 0; i < S::SLOTS; i++)
        table[i] = static_cast<unsigned char>(near ? groups[i] - groups[0] : i);
    uint32_t scale_bytes = from.zeros != nullptr ? GPU_PANEL_N * 3 : GPU_PANEL_N * 2;
    gpu_mbarrier_expect(full, bytes + static_cast<uint32_t>(from.panels) * scale_bytes *
                                          (near ? count : S::SLOTS));
    if (near) {
        gpu_wide_copy_scales<S>(from, groups[0], count, 0, stage, full);
        return;
    }
#pragma unroll 1
    for (uint32_t i = 0; i < S::SLOTS; i++)
        gpu_wide_copy_scales<S>(from,
                                gpu_group(p, from.block + i < blocks ? from.block + i : blocks - 1),
                                1, i, stage, full);
}

/** Copy a stage. Behind the last tile of places lie codes that x, zero there, makes harmless. */
template <class S>
GPU_DEVICE void gpu_wide_copy(const gpu_wide_params &w, const gpu_wide_source<S> &from,
                              unsigned char *stage, unsigned char *table, gpu_mbarrier *full) {
    const gpu_apply_params &p = w.apply;
    uint32_t panels = static_cast<uint32_t>(from.panels);
    uint32_t bytes = S::X_BYTES + panels * (S::TILES * S::PANEL_BYTES);
    if (S::ANY && p.slots == 0) {
        gpu_wide_copy_any_scales<S>(p, from, bytes, stage, table, full);
    } else {
        uint32_t group = gpu_group(p, from.block), left = static_cast<uint32_t>(p.groups) - group;
        uint32_t count =
            static_cast<uint32_t>(p.slots) < left ? static_cast<uint32_t>(p.slots) : left;
        uint32_t scale_bytes = from.zeros != nullptr ? GPU_PANEL_N * 3 : GPU_PANEL_N * 2;
        gpu_mbarrier_expect(full, bytes + panels * count * scale_bytes);
        gpu_wide_copy_scales<S>(from, group, count, 0, stage, full);
    }
#pragma unroll
    for (int i = 0; i < S::ALL_PANELS; i++)
        if (i < from.panels)
            gpu_bulk_copy(stage + S::CODES_AT + i * (S::TILES * S::PANEL_BYTES),
                          from.codes + i * from.panel_codes, S::TILES * S::PANEL_BYTES, full);
#pragma unroll
    for (int i = 0; i < S::TILES; i++)
        gpu_tensor_copy(stage + i * (S::N * 128), &w.x, from.column + i * GPU_TILE_K, from.row,
                        full);
}

/** Go on to the next stage. */
template <class S> GPU_DEVICE void gpu_wide_step(gpu_wide_source<S> &from) {
    from.codes += S::TILES * S::PANEL_BYTES;
    from.column += S::TILES * GPU_TILE_K;
    from.block += S::SLOTS;
}

/** Ask for what the first stages will hold, before the grid before this one has ended. */
template <class S>
GPU_DEVICE void gpu_wide_prefetch(const gpu_apply_params &p, const gpu_wide_progress &at) {
    int32_t left = at.end - at.begin, panels = gpu_wide_panels<S>(p, at);
    int32_t tiles = left < S::STAGES * S::TILES ? left : S::STAGES * S::TILES;
#pragma unroll 1
    for (int32_t i = 0; i < panels && tiles > 0; i++)
        gpu_bulk_prefetch(gpu_wide_codes<S>(p, gpu_wide_panel<S>(p, at) + i, at.begin),
                          static_cast<uint32_t>(tiles) * S::PANEL_BYTES);
}

/* The whole wave walks through the stages, so that the compiler knows that what it hands to the
 * copy engine is the same for all lanes; one of them does it. */
template <class S>
GPU_DEVICE void gpu_wide_copy_all(const gpu_wide_params &w, gpu_wide_progress at,
                                  unsigned char *shared) {
    bool elected = gpu_elect();
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    for (; at.output_tile < at.output_tiles; at.output_tile += at.step) {
        gpu_wide_source<S> from = gpu_wide_source_of<S>(w.apply, at);
        for (int32_t tile = at.begin; tile < at.end; tile += S::TILES) {
            gpu_mbarrier_wait(&barriers->empty[at.stage], at.phase ^ 1);
            gpu_wave_barrier(); /* a lane that looked later might find the phase after this one */
            if (elected)
                gpu_wide_copy<S>(w, from, shared + at.stage * S::STAGE_BYTES,
                                 shared + S::TABLES_AT + at.stage * S::SLOTS,
                                 &barriers->full[at.stage]);
            gpu_wide_step<S>(from);
            gpu_wide_next_stage<S>(at);
        }
    }
}

/* ---- the warpgroups that multiply -------------------------------------------------------- */

/** A lane's places in a stage. */
template <class S> struct gpu_wide_lane {
    uint32_t codes;  /* of its warpgroup's first panel */
    uint32_t scales; /* of its two rows */
    uint32_t zeros;
};

template <class S> GPU_DEVICE gpu_wide_lane<S> gpu_wide_lane_of() {
    gpu_wide_lane<S> mine;
    uint32_t panel = gpu_thread() / 128 * S::PANELS, lane = gpu_lane(), tile = gpu_wave() % 4;
    uint32_t row = tile * 16 + lane / 4 * 2;
    mine.codes =
        S::CODES_AT + panel * (S::TILES * S::PANEL_BYTES) + tile * (128 * S::BITS) + lane * 16;
    mine.scales = S::SCALES_AT + panel * (S::SLOTS * GPU_PANEL_N * 2) + row * 2;
    mine.zeros = S::ZEROS_AT + panel * (S::SLOTS * GPU_PANEL_N) + row;
    gpu_keep(mine.codes);
    gpu_keep(mine.scales);
    gpu_keep(mine.zeros);
    return mine;
}

/** The scale in slot `slot` of one of a lane's panels, and its zero point. */
template <class S>
GPU_DEVICE gpu_block_scale gpu_wide_scale(const gpu_apply_params &p, const gpu_wide_lane<S> &mine,
                                          const unsigned char *stage, int panel, uint32_t slot) {
    uint32_t zeros = S::BITS == 4 ? 0x0808 : 0x8080;
    uint32_t at = static_cast<uint32_t>(panel) * S::SLOTS + slot;
    if (p.zeros != nullptr)
        zeros = *reinterpret_cast<const uint16_t *>(stage + mine.zeros + at * GPU_PANEL_N);
    return gpu_scale_of<S::BITS, S::BF16>(
        *reinterpret_cast<const uint32_t *>(stage + mine.scales + at * (GPU_PANEL_N * 2)), zeros);
}

/** Make a warpgroup's panels of tile `i` of a stage operand A: without their scale where EXACT. */
template <class S>
GPU_DEVICE void gpu_wide_dequantize(const gpu_apply_params &p, const gpu_wide_lane<S> &mine,
                                    const unsigned char *stage, const unsigned char *table, int i,
                                    gpu_block_scale scales[S::PANELS],
                                    uint32_t left[S::PANELS][GPU_TILE_BLOCKS][4]) {
#pragma unroll
    for (int panel = 0; panel < S::PANELS; panel++) {
        const unsigned char *codes = stage + mine.codes + (panel * S::TILES + i) * S::PANEL_BYTES;
        gpu_u32x4 v[S::BITS / 4];
#pragma unroll
        for (int load = 0; load < S::BITS / 4; load++)
            v[load] = *reinterpret_cast<const gpu_u32x4 *>(codes + load * 512);
        gpu_block_scale &scale = scales[panel];
        if (!S::ANY && (i == 0 || p.slots == 2))
            scale = gpu_wide_scale<S>(p, mine, stage, panel, static_cast<uint32_t>(i));
#pragma unroll
        for (int j = 0; j < GPU_TILE_BLOCKS; j++) {
            if (S::ANY)
                scale = gpu_wide_scale<S>(p, mine, stage, panel, table[i * GPU_TILE_BLOCKS + j]);
            uint32_t words[2];
            const gpu_u32x4 &from = v[j * S::BITS / 16];
            if (S::BITS == 4) {
                words[0] = j == 0 ? from.x : j == 1 ? from.y : j == 2 ? from.z : from.w;
            } else {
                words[0] = j % 2 == 0 ? from.x : from.z;
                words[1] = j % 2 == 0 ? from.y : from.w;
            }
            if (S::EXACT)
                gpu_differences<S::BITS, S::BF16>(words, scale, left[panel][j]);
            else
                gpu_dequantize<S::BITS, S::BF16>(words, scale, left[panel][j]);
        }
    }
}

template <class S>
GPU_DEVICE void gpu_wide_multiply(const unsigned char *x,
                                  const uint32_t left[S::PANELS][GPU_TILE_BLOCKS][4],
                                  float c[S::PANELS][S::N / 2]) {
    gpu_wgmma_fence();
#pragma unroll
    for (int j = 0; j < GPU_TILE_BLOCKS; j++)
#pragma unroll
        for (int panel = 0; panel < S::PANELS; panel++)
            gpu_wgmma<S::N, S::BF16>(c[panel], left[panel][j], x, static_cast<uint32_t>(j));
    gpu_wgmma_commit();
}

/** Clear sums. */
template <class S> GPU_DEVICE void gpu_wide_zero(float c[S::PANELS][S::N / 2]) {
#pragma unroll
    for (int i = 0; i < S::PANELS * S::N / 2; i++)
        c[i / (S::N / 2)][i % (S::N / 2)] = 0;
}

/** Until all batches are over; what follows reads their sums. */
template <class S> GPU_DEVICE void gpu_wide_finish(float c[S::PANELS][S::N / 2]) {
    gpu_wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < S::PANELS * S::N / 2; i++)
        gpu_keep(c[i / (S::N / 2)][i % (S::N / 2)]);
}

/** Add the sums of a tile's or a stage's products with q - z, times their scale. */
template <class S>
GPU_DEVICE void gpu_wide_add(const gpu_block_scale scales[S::PANELS],
                             const float part[S::PANELS][S::N / 2], float c[S::PANELS][S::N / 2]) {
#pragma unroll
    for (int i = 0; i < S::PANELS * S::N / 2; i++) {
        int panel = i / (S::N / 2), at = i % (S::N / 2);
        c[panel][at] += gpu_low_float<S::BF16>(scales[panel].scale[at / 2 % 2]) * part[panel][at];
    }
}

/** The sums of this block's places, scales applied to sums: few rows, few groups. */
template <class S>
GPU_DEVICE void gpu_wide_sum_exact(const gpu_apply_params &p, const gpu_wide_lane<S> &mine,
                                   gpu_wide_progress &at, unsigned char *shared,
                                   float c[S::PANELS][S::N / 2]) {
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    for (int32_t tile = at.begin; tile < at.end; tile += S::TILES) {
        const unsigned char *stage = shared + at.stage * S::STAGE_BYTES;
        gpu_mbarrier_wait(&barriers->full[at.stage], at.phase);
        uint32_t left[S::TILES][S::PANELS][GPU_TILE_BLOCKS][4];
        gpu_block_scale scales[S::PANELS];
        float part[S::PANELS][S::N / 2];
        gpu_wide_zero<S>(part);
#pragma unroll
        for (int i = 0; i < S::TILES; i++) {
            if (i > 0 && p.slots == 2) {
                gpu_wide_finish<S>(part);
                gpu_wide_add<S>(scales, part, c);
                gpu_wide_zero<S>(part);
            }
            gpu_wide_dequantize<S>(p, mine, stage, nullptr, i, scales, left[i]);
            gpu_wide_multiply<S>(stage + i * (S::N * 128), left[i], part);
        }
        gpu_wide_finish<S>(part);
        gpu_wave_barrier(); /* lane 0 speaks for all */
        if (gpu_lane() == 0)
            gpu_mbarrier_arrive(&barriers->empty[at.stage]);
        gpu_wide_add<S>(scales, part, c);
        gpu_wide_next_stage<S>(at);
    }
}

/** The sums of this block's places. */
template <class S>
GPU_DEVICE void gpu_wide_sum(const gpu_apply_params &p, const gpu_wide_lane<S> &mine,
                             gpu_wide_progress &at, unsigned char *shared,
                             float c[S::PANELS][S::N / 2]) {
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    uint32_t left[S::TILES][S::PANELS][GPU_TILE_BLOCKS][4];
    gpu_mbarrier *used = nullptr; /* of the stage whose batch is under way */
    for (int32_t tile = at.begin; tile < at.end; tile += S::TILES) {
        const unsigned char *stage = shared + at.stage * S::STAGE_BYTES;
        const unsigned char *table = shared + S::TABLES_AT + at.stage * S::SLOTS;
        gpu_block_scale scales[S::PANELS];
        gpu_mbarrier_wait(&barriers->full[at.stage], at.phase);
#pragma unroll
        for (int i = 0; i < S::TILES; i++) {
            gpu_wide_dequantize<S>(p, mine, stage, table, i, scales, left[i]);
            gpu_wide_multiply<S>(stage + i * (S::N * 128), left[i], c);
            gpu_wgmma_wait<1>();
            if (i == 0 && used != nullptr) {
                gpu_wave_barrier(); /* lane 0 speaks for all */
                if (gpu_lane() == 0)
                    gpu_mbarrier_arrive(used);
            }
        }
        used = &barriers->empty[at.stage];
        gpu_wide_next_stage<S>(at);
    }
    gpu_wide_finish<S>(c);
    gpu_wave_barrier();
    if (used != nullptr && gpu_lane() == 0)
        gpu_mbarrier_arrive(used);
}

/** Store two features of two rows of y: (feature, row), (feature, row + 1), (feature + 1, row),
 *  (feature + 1, row + 1). */
GPU_DEVICE void gpu_wide_store(const gpu_apply_params &p, int64_t row, int32_t feature, bool pairs,
                               const float c[4]) {
    if (!pairs) {
        for (int i = 0; i < 4; i++)
            gpu_store_y(p, row + i % 2, feature + i / 2, c[i]);
        return;
    }
    if (feature >= p.n)
        return;
    float bias[2] = {0, 0};
    if (p.bias != nullptr) {
        bias[0] = gpu_widen(p.bias, feature, p.y_type);
        bias[1] = gpu_widen(p.bias, feature + 1, p.y_type);
    }
    uint16_t *y = static_cast<uint16_t *>(p.y) + row * p.y_stride + feature;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float low = c[i] + bias[0], high = c[2 + i] + bias[1];
        uint32_t pair =
            p.y_type == KRY_TYPE_F16 ? gpu_f16x2_pack(low, high) : gpu_bf16x2_pack(low, high);
        if (row + i < p.m)
            *reinterpret_cast<uint32_t *>(y + i * p.y_stride) = pair;
    }
}

/** Feature and row in the output tile of columns 8 i on of a worker's c of `panel`. */
template <class S> GPU_DEVICE int32_t gpu_wide_feature(uint32_t worker, int panel) {
    return static_cast<int32_t>((worker / 128 * S::PANELS + static_cast<uint32_t>(panel)) *
                                    GPU_PANEL_N +
                                worker / 32 % 4 * 16 + worker % 32 / 4 * 2);
}

/** A worker's sums, 16 bytes each, are numbered i * WORKERS + worker; block r of a cluster adds up
 *  those from begin to end. */
template <class S> GPU_DEVICE uint32_t gpu_wide_part(uint32_t rank, uint32_t ranks) {
    constexpr uint32_t ALL = S::WORKERS * S::CHUNK;
    return (ALL * rank + ranks - 1) / ranks;
}

/** Hand a chunk of this block's sums to those who add them up. */
template <class S>
GPU_DEVICE void gpu_wide_hand_out(unsigned char *shared, uint32_t ranks, int chunk,
                                  const float c[S::PANELS][S::N / 2]) {
    constexpr uint32_t ALL = S::WORKERS * S::CHUNK;
    uint32_t rank = gpu_cluster_rank(), most = (ALL + ranks - 1) / ranks;
    gpu_u32x4 *sums = reinterpret_cast<gpu_u32x4 *>(shared + S::SUMS_AT) + rank * most;
#pragma unroll
    for (int i = 0; i < S::CHUNK; i++) {
        const float *from =
            &c[(chunk * S::CHUNK + i) / (S::N / 8)][(chunk * S::CHUNK + i) % (S::N / 8) * 4];
        uint32_t v = static_cast<uint32_t>(i) * S::WORKERS + gpu_thread(), owner = v * ranks / ALL;
        gpu_store_peer(sums + (v - gpu_wide_part<S>(owner, ranks)), owner,
                       {gpu_bits_of_float(from[0]), gpu_bits_of_float(from[1]),
                        gpu_bits_of_float(from[2]), gpu_bits_of_float(from[3])},
                       &gpu_wide_barriers_of<S>(shared)->ready);
    }
}

/** Add up the sums of all blocks of the cluster, each a part, and store them. */
template <class S>
GPU_DEVICE void gpu_wide_join(const gpu_apply_params &p, const gpu_wide_progress &at, bool pairs,
                              unsigned char *shared, uint32_t &phase,
                              const float c[S::PANELS][S::N / 2]) {
    constexpr int CHUNKS = S::PANELS * S::N / 8 / S::CHUNK;
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    uint32_t worker = gpu_thread(), ranks = static_cast<uint32_t>(p.splits);
    uint32_t rank = gpu_cluster_rank(), most = (S::WORKERS * S::CHUNK + ranks - 1) / ranks;
    uint32_t begin = gpu_wide_part<S>(rank, ranks), end = gpu_wide_part<S>(rank + 1, ranks);
    const gpu_u32x4 *sums = reinterpret_cast<const gpu_u32x4 *>(shared + S::SUMS_AT);
    int32_t feature = gpu_wide_panel<S>(p, at) * GPU_PANEL_N, row = gpu_wide_row<S>(p, at);
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        if (worker == 0)
            gpu_mbarrier_expect(&barriers->ready, (end - begin) * ranks * 16);
        gpu_mbarrier_wait_peers(&barriers->free, phase ^ 1);
        gpu_wide_hand_out<S>(shared, ranks, chunk, c);
        gpu_mbarrier_wait_peers(&barriers->ready, phase);
        for (uint32_t v = begin + worker; v < end; v += S::WORKERS) {
            float total[4] = {0, 0, 0, 0};
            for (uint32_t from = 0; from < ranks; from++) {
                gpu_u32x4 part = sums[from * most + (v - begin)];
                total[0] += gpu_float_of_bits(part.x);
                total[1] += gpu_float_of_bits(part.y);
                total[2] += gpu_float_of_bits(part.z);
                total[3] += gpu_float_of_bits(part.w);
            }
            int column = chunk * S::CHUNK + static_cast<int>(v / S::WORKERS);
            gpu_wide_store(p, row + column % (S::N / 8) * 8 + static_cast<int32_t>(v % 4) * 2,
                           feature + gpu_wide_feature<S>(v % S::WORKERS, column / (S::N / 8)),
                           pairs, total);
        }
        /* After the last chunk of all, those who would be told may have left. */
        if (chunk + 1 < CHUNKS || at.output_tile + at.step < at.output_tiles) {
            gpu_part_barrier(S::WORKERS);
            if (worker < ranks)
                gpu_mbarrier_arrive_at(&barriers->free, worker);
        }
        phase ^= 1;
    }
}

template <class S>
GPU_DEVICE void gpu_wide_multiply_all(const gpu_apply_params &p, gpu_wide_progress at,
                                      unsigned char *shared) {
    gpu_wide_lane<S> mine = gpu_wide_lane_of<S>();
    [[maybe_unused]] uint32_t join_phase = 0;
    bool waits = p.splits > 1; /* until the others' mbarriers are there */
    bool pairs = p.y_type != KRY_TYPE_F32 && p.n % 2 == 0 && p.y_stride % 2 == 0 &&
                 reinterpret_cast<uintptr_t>(p.y) % 4 == 0;
    for (; at.output_tile < at.output_tiles; at.output_tile += at.step) {
        float c[S::PANELS][S::N / 2];
        gpu_wide_zero<S>(c);
        if constexpr (S::EXACT)
            gpu_wide_sum_exact<S>(p, mine, at, shared, c);
        else
            gpu_wide_sum<S>(p, mine, at, shared, c);
        if constexpr (S::CHUNK != 0) {
            if (p.splits > 1) {
                if (waits)
                    gpu_cluster_wait();
                waits = false;
                gpu_wide_join<S>(p, at, pairs, shared, join_phase, c);
                continue;
            }
        }
        int32_t row = gpu_wide_row<S>(p, at) + static_cast<int32_t>(gpu_lane() % 4) * 2;
#pragma unroll
        for (int i = 0; i < S::PANELS * S::N / 8; i++)
            gpu_wide_store(p, row + i % (S::N / 8) * 8,
                           gpu_wide_panel<S>(p, at) * GPU_PANEL_N +
                               gpu_wide_feature<S>(gpu_thread(), i / (S::N / 8)),
                           pairs, &c[i / (S::N / 8)][i % (S::N / 8) * 4]);
    }
}

/** The tables of stages whose groups follow a pattern; and zeros for scales that no copy brings,
 *  where the last stage's groups end early: x is zero there, and no product may be NaN. */
template <class S>
GPU_DEVICE void gpu_wide_clear(const gpu_apply_params &p, unsigned char *shared) {
    uint32_t slots = static_cast<uint32_t>(p.slots);
    uint32_t stages = static_cast<uint32_t>(p.k_tiles - 1) / S::TILES;
    if (slots < 2)
        return;
    for (uint32_t i = gpu_thread(); i < S::STAGES * S::SLOTS; i += gpu_threads())
        shared[S::TABLES_AT + i] = static_cast<unsigned char>(i % S::SLOTS * slots / S::SLOTS);
    if (gpu_group(p, stages * S::SLOTS) + slots <= static_cast<uint32_t>(p.groups))
        return;
    constexpr uint32_t CHUNKS = (S::STAGE_BYTES - S::SCALES_AT) / 16;
    for (uint32_t i = gpu_thread(); i < S::STAGES * CHUNKS; i += gpu_threads())
        *reinterpret_cast<gpu_u32x4 *>(shared + i / CHUNKS * S::STAGE_BYTES + S::SCALES_AT +
                                       i % CHUNKS * 16) = {0, 0, 0, 0};
    gpu_shared_publish();
}

template <class S> GPU_DEVICE void gpu_wide(const gpu_wide_params &w) {
    GPU_SHARED(shared);
    const gpu_apply_params &p = w.apply;
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    if (gpu_thread() == 0) {
        for (int i = 0; i < S::STAGES; i++) {
            gpu_mbarrier_init(&barriers->full[i], 1);
            gpu_mbarrier_init(&barriers->empty[i], S::WARPGROUPS * 4);
        }
        gpu_mbarrier_init(&barriers->ready, 1);
        gpu_mbarrier_init(&barriers->free, static_cast<uint32_t>(p.splits));
        gpu_mbarrier_publish();
    }
    gpu_wide_clear<S>(p, shared);
    gpu_next_grid_start();
    gpu_barrier();
    if (p.splits > 1)
        gpu_cluster_arrive();
    uint32_t wave = gpu_uniform_wave();
    bool multiplies = wave < S::WORKERS / 32;
    bool copies = wave == S::WORKERS / 32;
    if (copies && gpu_lane() == 0 && p.header == nullptr)
        gpu_wide_prefetch<S>(p, gpu_wide_begin<S::TILES>(p));
    gpu_previous_grid_wait();
    gpu_wide_progress at = gpu_wide_begin<S::TILES>(p);
    if (multiplies) {
        if constexpr (S::REGISTERS != 0)
            gpu_registers_take<S::REGISTERS>();
        gpu_wide_multiply_all<S>(p, at, shared);
    } else {
        if constexpr (S::REGISTERS != 0)
            gpu_registers_give<S::COPY_REGISTERS>();
        if (copies)
            gpu_wide_copy_all<S>(w, at, shared);
        if (p.splits > 1)
            gpu_cluster_wait();
    }
}

#endif
