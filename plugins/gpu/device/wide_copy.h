/*
 * wide.h: the wave that copies. The whole wave walks through the stages, so that the compiler knows
 * that what it hands to the copy engine is the same for all lanes; one of them does it.
 *
 * Early   weights are copied before the grid before this one has ended, x after.
 */
#ifndef KERNELRY_GPU_WIDE_COPY_H
#define KERNELRY_GPU_WIDE_COPY_H

#include "wide_shape.h"

template <class S>
GPU_DEVICE const unsigned char *gpu_wide_codes(const gpu_apply_params &p, int32_t panel,
                                               int32_t tile) {
    return p.codes + (static_cast<int64_t>(panel) * p.k_tiles + tile) * S::PANEL_BYTES;
}

/** Groups of blocks of places where they follow no pattern: each lane holds one. */
struct gpu_wide_groups {
    static constexpr uint32_t STAGES = GPU_WAVE / 8; /* that the lanes' groups last */
    uint32_t now;
    uint32_t next; /* of the stages behind those, on the way from memory */
};

/** What the wave copies for an output tile, and how far it is. */
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
    uint32_t first; /* the output tile's first */
    gpu_wide_groups groups;
};

/** The group of the block of places that is a lane's share, from `block` on. */
GPU_DEVICE uint32_t gpu_wide_group_of_lane(const gpu_apply_params &p, uint32_t block) {
    uint32_t mine = block + gpu_lane(), all = static_cast<uint32_t>(p.k_tiles) * GPU_TILE_BLOCKS;
    return gpu_group(p, mine < all ? mine : all - 1);
}

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
    from.block = from.first = static_cast<uint32_t>(at.begin) * GPU_TILE_BLOCKS;
    from.groups = {0, 0};
    if (S::ANY && p.slots == 0)
        from.groups.next = gpu_wide_group_of_lane(p, from.block);
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

/** Tell a stage's mbarrier what it waits for: x, codes, and the scales of so many groups. */
template <class S>
GPU_DEVICE void gpu_wide_expect(const gpu_wide_source<S> &from, uint32_t groups,
                                gpu_mbarrier *full) {
    uint32_t scale_bytes = from.zeros != nullptr ? GPU_PANEL_N * 3 : GPU_PANEL_N * 2;
    uint32_t x_bytes = S::X_BYTES + (S::LATE ? gpu_wide_tail_bytes(S::N) : 0);
    gpu_mbarrier_expect(full, x_bytes + static_cast<uint32_t>(from.panels) *
                                            (S::TILES * S::PANEL_BYTES + groups * scale_bytes));
}

/** Copy the scales of a stage whose groups follow no pattern; its table says where they lie. */
template <class S>
GPU_DEVICE void gpu_wide_copy_any_scales(const gpu_wide_source<S> &from, uint32_t groups[S::BLOCKS],
                                         unsigned char *stage, unsigned char *table,
                                         gpu_mbarrier *full) {
#pragma unroll
    for (uint32_t i = 1; i < S::BLOCKS; i++)
        if (groups[i] < groups[i - 1])
            groups[i] = groups[i - 1]; /* behind the last block in use block_group holds zeros */
    uint32_t count = groups[S::BLOCKS - 1] - groups[0] + 1;
    bool near = count <= S::SLOTS; /* else each block brings its own */
#pragma unroll
    for (uint32_t i = 0; i < S::BLOCKS; i++)
        table[i] = static_cast<unsigned char>(near ? groups[i] - groups[0] : i);
    gpu_wide_expect<S>(from, near ? count : S::BLOCKS, full);
    if (near) {
        gpu_wide_copy_scales<S>(from, groups[0], count, 0, stage, full);
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < S::BLOCKS; i++)
        gpu_wide_copy_scales<S>(from, groups[i], 1, i, stage, full);
}

/** Copy the scales of a stage, and tell the mbarrier what it waits for. */
template <class S>
GPU_DEVICE void gpu_wide_copy_stage_scales(const gpu_apply_params &p, gpu_wide_source<S> &from,
                                           bool elected, unsigned char *stage, unsigned char *table,
                                           gpu_mbarrier *full) {
    if (S::ANY && p.slots == 0) {
        uint32_t number = (from.block - from.first) / S::BLOCKS % gpu_wide_groups::STAGES;
        uint32_t groups[S::BLOCKS];
        if (number == 0) {
            from.groups.now = from.groups.next;
            from.groups.next = gpu_wide_group_of_lane(p, from.block + GPU_WAVE);
        }
#pragma unroll
        for (uint32_t i = 0; i < S::BLOCKS; i++)
            groups[i] = gpu_shuffle(from.groups.now, number * S::BLOCKS + i);
        if (elected)
            gpu_wide_copy_any_scales<S>(from, groups, stage, table, full);
    } else if (elected) {
        uint32_t group = gpu_group(p, from.block), left = static_cast<uint32_t>(p.groups) - group;
        uint32_t count =
            static_cast<uint32_t>(p.slots) < left ? static_cast<uint32_t>(p.slots) : left;
        gpu_wide_expect<S>(from, count, full);
        gpu_wide_copy_scales<S>(from, group, count, 0, stage, full);
    }
}

/** Copy the weights of a stage, and go on to the next. Behind the last tile of places lie codes
 *  that x, zero there, makes harmless. */
template <class S>
GPU_DEVICE void gpu_wide_copy_weights(const gpu_apply_params &p, gpu_wide_source<S> &from,
                                      bool elected, uint32_t stage_index, unsigned char *shared) {
    unsigned char *stage = shared + stage_index * S::STAGE_BYTES;
    gpu_mbarrier *full = &gpu_wide_barriers_of<S>(shared)->full[stage_index];
    gpu_wide_copy_stage_scales<S>(p, from, elected, stage,
                                  shared + S::TABLES_AT + stage_index * S::BLOCKS, full);
#pragma unroll
    for (int i = 0; i < S::ALL_PANELS; i++)
        if (elected && i < from.panels)
            gpu_bulk_copy(stage + S::CODES_AT + i * (S::TILES * S::PANEL_BYTES),
                          from.codes + i * from.panel_codes, S::TILES * S::PANEL_BYTES, full);
    from.codes += S::TILES * S::PANEL_BYTES;
    from.block += S::BLOCKS;
}

/** Copy the x of a stage, likewise; late: where LATE, the maps of odd rows and of the tail. */
template <class S>
GPU_DEVICE void gpu_wide_copy_x(const gpu_wide_params &w, const gpu_tensor_map *late,
                                gpu_wide_source<S> &from, bool elected, uint32_t stage_index,
                                unsigned char *shared) {
    gpu_mbarrier *full = &gpu_wide_barriers_of<S>(shared)->full[stage_index];
    unsigned char *stage = shared + stage_index * S::STAGE_BYTES;
    if constexpr (S::LATE) {
#pragma unroll
        for (int i = 0; i < S::TILES * 2; i++)
            if (elected)
                gpu_tensor_copy(stage + i * (S::N * 64), i % 2 == 0 ? &w.x : &late[0],
                                from.column + i / 2 * GPU_TILE_K, from.row / 2, full);
        if (elected)
            gpu_tensor_copy(stage + S::TAIL_AT, &late[1], from.column + S::TILES * GPU_TILE_K,
                            from.row / 2, full);
    } else {
#pragma unroll
        for (int i = 0; i < S::TILES; i++)
            if (elected)
                gpu_tensor_copy(stage + i * (S::N * 128), &w.x, from.column + i * GPU_TILE_K,
                                from.row, full);
    }
    from.column += S::TILES * GPU_TILE_K;
}

/** Fill the first stages: weights, and when the grid before has ended x. */
template <class S>
GPU_DEVICE void gpu_wide_copy_first(const gpu_wide_params &w, const gpu_tensor_map *late,
                                    gpu_wide_source<S> &from, bool elected, gpu_wide_progress &at,
                                    unsigned char *shared) {
    int32_t stages = (at.end - at.begin) / S::TILES;
    stages = stages < S::STAGES ? stages : S::STAGES;
#pragma unroll 1
    for (int32_t i = 0; i < stages; i++)
        gpu_wide_copy_weights<S>(w.apply, from, elected, static_cast<uint32_t>(i), shared);
    gpu_tensor_prefetch(&w.x);
    for (int i = 0; S::LATE && i < 2; i++)
        gpu_tensor_prefetch(&late[i]);
    gpu_previous_grid_wait();
#pragma unroll 1
    for (int32_t i = 0; i < stages; i++) {
        gpu_wide_copy_x<S>(w, late, from, elected, static_cast<uint32_t>(i), shared);
        gpu_wide_step<S>(at.stage, at.phase, 1);
    }
    at.tile += stages * S::TILES;
}

template <class S>
GPU_DEVICE void gpu_wide_copy_all(const gpu_wide_params &w, const gpu_tensor_map *late,
                                  gpu_wide_progress at, unsigned char *shared) {
    bool elected = gpu_elect(), first = true;
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    for (; at.output_tile < at.output_tiles; at.output_tile += at.step) {
        gpu_wide_source<S> from = gpu_wide_source_of<S>(w.apply, at);
        at.tile = at.begin;
        if (first)
            gpu_wide_copy_first<S>(w, late, from, elected, at, shared);
        first = false;
        for (; at.tile < at.end; at.tile += S::TILES) {
            gpu_mbarrier_wait(&barriers->empty[at.stage], at.phase ^ 1);
            gpu_wave_barrier(); /* a lane that looked later might find the phase after this one */
            gpu_wide_copy_weights<S>(w.apply, from, elected, at.stage, shared);
            gpu_wide_copy_x<S>(w, late, from, elected, at.stage, shared);
            gpu_wide_step<S>(at.stage, at.phase, 1);
        }
    }
}

#endif
