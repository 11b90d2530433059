/*
 * wide.h: sums to y. The blocks of a cluster, and the teams of a block, have sums of the same
 * output tile. Each hands its sums to the others, a chunk at a time: block r gets the r-th part of
 * all of them, adds them up in the order of ranks and teams, and stores it. CHUNK counts 16 bytes a
 * worker.
 */
#ifndef KERNELRY_GPU_WIDE_JOIN_H
#define KERNELRY_GPU_WIDE_JOIN_H

#include "wide_shape.h"

/** Where a worker's sums of a panel go. Column i of its c is for two rows of x from 8 i on:
 *  (feature, row), (feature, next row), (feature + 1, row), (feature + 1, next row). Late rows lie
 * in a box apart from the others, so that there it is i, and the next row is two on. */
template <class S> struct gpu_wide_lines {
    static constexpr int COLUMN = S::LATE ? 1 : 8, STEP = S::LATE ? 2 : 1;
    unsigned char *y; /* of column 0 */
    int64_t row_bytes;
    int32_t row;
    int32_t features; /* that exist */
    float bias[2];
    bool pairs; /* both exist, and share a word */
};

/** place: the worker's in its team. */
template <class S>
GPU_DEVICE gpu_wide_lines<S> gpu_wide_lines_of(const gpu_apply_params &p, uint32_t place, int panel,
                                               int32_t first_feature, int32_t first) {
    gpu_wide_lines<S> lines;
    int32_t in_box = static_cast<int32_t>(place % 4) * 2;
    int32_t in_tile = static_cast<int32_t>(
        (place / 128 * S::PANELS + static_cast<uint32_t>(panel)) * GPU_PANEL_N +
        place / 32 % 4 * 16 + place % 32 / 4 * 2);
    int32_t feature = first_feature + in_tile, bytes = p.y_type == KRY_TYPE_F32 ? 4 : 2;
    lines.row = first + (S::LATE ? in_box % (S::N / 2) * 2 + in_box / (S::N / 2) : in_box);
    lines.row_bytes = p.y_stride * bytes;
    lines.y = static_cast<unsigned char *>(p.y) + lines.row * lines.row_bytes +
              static_cast<int64_t>(feature) * bytes;
    lines.features = p.n - feature;
    lines.pairs = bytes == 2 && lines.features > 1 && lines.row_bytes % 4 == 0 &&
                  reinterpret_cast<uintptr_t>(lines.y) % 4 == 0;
    lines.bias[0] = lines.bias[1] = 0;
    if (__builtin_expect(p.bias != nullptr, 0))
        for (int i = 0; i < 2; i++)
            if (i < lines.features)
                lines.bias[i] = gpu_widen(p.bias, feature + i, p.y_type);
    return lines;
}

/** Store a worker's sums of a column where `pairs`. */
template <class S>
GPU_DEVICE void gpu_wide_store_pairs(const gpu_apply_params &p, const gpu_wide_lines<S> &lines,
                                     int column, const float c[4]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = column * lines.COLUMN + i * lines.STEP;
        float low = c[i] + lines.bias[0], high = c[2 + i] + lines.bias[1];
        uint32_t pair =
            p.y_type == KRY_TYPE_F16 ? gpu_f16x2_pack(low, high) : gpu_bf16x2_pack(low, high);
        if (lines.row + row < p.m)
            *reinterpret_cast<uint32_t *>(lines.y + row * lines.row_bytes) = pair;
    }
}

/** And where not. */
template <class S>
GPU_DEVICE void gpu_wide_store_each(const gpu_apply_params &p, const gpu_wide_lines<S> &lines,
                                    int column, const float c[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = column * lines.COLUMN + i % 2 * lines.STEP;
        float value = c[i] + lines.bias[i / 2];
        unsigned char *at = lines.y + row * lines.row_bytes;
        if (lines.row + row >= p.m || i / 2 >= lines.features)
            continue;
        if (p.y_type == KRY_TYPE_F32)
            reinterpret_cast<float *>(at)[i / 2] = value;
        else
            reinterpret_cast<uint16_t *>(at)[i / 2] = gpu_round(value, p.y_type);
    }
}

/** Store all of a worker's sums. */
template <class S>
GPU_DEVICE void gpu_wide_store_all(const gpu_apply_params &p, int32_t feature, int32_t row,
                                   const float c[S::PANELS][S::N / 2]) {
    static_assert(S::TURNS == 1, "or sums are to be joined first");
#pragma unroll
    for (int panel = 0; panel < S::PANELS; panel++) {
        gpu_wide_lines<S> lines = gpu_wide_lines_of<S>(p, gpu_thread(), panel, feature, row);
        if (__builtin_expect(!lines.pairs, 0)) {
#pragma unroll
            for (int column = 0; column < S::N / 8; column++)
                gpu_wide_store_each<S>(p, lines, column, &c[panel][column * 4]);
            continue;
        }
#pragma unroll
        for (int column = 0; column < S::N / 8; column++)
            gpu_wide_store_pairs<S>(p, lines, column, &c[panel][column * 4]);
    }
}

/** The blocks that share an output tile. What is asked of them at its end is made ready before. */
struct gpu_wide_ranks {
    uint32_t count;
    uint32_t mine;
    uint32_t inverse; /* 2^32 / count, rounded up, where count > 1 */
};

GPU_DEVICE gpu_wide_ranks gpu_wide_ranks_of(const gpu_apply_params &p) {
    gpu_wide_ranks ranks = {static_cast<uint32_t>(p.splits), gpu_cluster_rank(), 0};
    ranks.inverse = 0xffffffffu / ranks.count + 1;
    gpu_keep(ranks.mine);
    gpu_keep(ranks.inverse);
    return ranks;
}

/** A worker's sums, 16 bytes each, are numbered i * TEAM + its place in its team; block r of a
 *  cluster adds up those from gpu_wide_part(r) to gpu_wide_part(r + 1). */
template <class S> GPU_DEVICE uint32_t gpu_wide_part(const gpu_wide_ranks &ranks, uint32_t rank) {
    uint32_t all = S::TEAM * S::CHUNK * rank;
    return ranks.count == 1 ? all : gpu_multiply_high(all + ranks.count - 1, ranks.inverse);
}

/** The most that a block adds up. */
template <class S> GPU_DEVICE uint32_t gpu_wide_part_most(const gpu_wide_ranks &ranks) {
    return gpu_wide_part<S>(ranks, 1);
}

/** Hand a chunk of this block's sums to those who add them up, itself among them, and tell them. */
template <class S>
GPU_DEVICE void gpu_wide_hand_out(unsigned char *shared, const gpu_wide_ranks &ranks, int chunk,
                                  const float c[S::PANELS][S::N / 2]) {
    constexpr uint32_t ALL = S::TEAM * S::CHUNK;
    gpu_mbarrier *ready = &gpu_wide_barriers_of<S>(shared)->ready;
    uint32_t place = gpu_thread() % S::TEAM, turn = gpu_thread() / S::TEAM;
    uint32_t part = ranks.mine * S::TURNS + turn;
    gpu_u32x4 *sums =
        reinterpret_cast<gpu_u32x4 *>(shared + S::SUMS_AT) + part * gpu_wide_part_most<S>(ranks);
#pragma unroll
    for (int i = 0; i < S::CHUNK; i++) {
        const float *from =
            &c[(chunk * S::CHUNK + i) / (S::N / 8)][(chunk * S::CHUNK + i) % (S::N / 8) * 4];
        uint32_t v = static_cast<uint32_t>(i) * S::TEAM + place, owner = v * ranks.count / ALL;
        gpu_u32x4 four = {gpu_bits_of_float(from[0]), gpu_bits_of_float(from[1]),
                          gpu_bits_of_float(from[2]), gpu_bits_of_float(from[3])};
        gpu_u32x4 *to = sums + (v - gpu_wide_part<S>(ranks, owner));
        if (owner == ranks.mine)
            *to = four;
        else
            gpu_store_peer(to, owner, four, ready);
    }
    if (gpu_thread() == 0)
        gpu_mbarrier_expect(
            ready, (gpu_wide_part<S>(ranks, ranks.mine + 1) - gpu_wide_part<S>(ranks, ranks.mine)) *
                       (ranks.count - 1) * (S::TURNS * 16));
    else
        gpu_mbarrier_arrive(ready);
}

/** Add up the sums of all teams of the cluster, each block a part of them, and store. joins: how
 *  often that has been done, a chunk at a time. */
template <class S>
GPU_DEVICE void gpu_wide_join(const gpu_apply_params &p, const gpu_wide_progress &at,
                              const gpu_wide_ranks &ranks, int32_t feature, int32_t row,
                              unsigned char *shared, uint32_t &joins,
                              const float c[S::PANELS][S::N / 2]) {
    constexpr int CHUNKS = S::PANELS * S::N / 8 / S::CHUNK;
    gpu_wide_barriers<S> *barriers = gpu_wide_barriers_of<S>(shared);
    uint32_t worker = gpu_thread(), most = gpu_wide_part_most<S>(ranks);
    uint32_t begin = gpu_wide_part<S>(ranks, ranks.mine);
    uint32_t end = gpu_wide_part<S>(ranks, ranks.mine + 1);
    const gpu_u32x4 *sums = reinterpret_cast<const gpu_u32x4 *>(shared + S::SUMS_AT);
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        uint32_t v = begin + worker, phase = joins % 2;
        int column = chunk * S::CHUNK + static_cast<int>(v / S::TEAM);
        if (ranks.count > 1 && joins > 0)
            gpu_mbarrier_wait_peers(&barriers->free, phase ^ 1);
        gpu_wide_hand_out<S>(shared, ranks, chunk, c);
        gpu_wide_lines<S> lines =
            gpu_wide_lines_of<S>(p, v % S::TEAM, column / (S::N / 8), feature, row);
        gpu_mbarrier_wait_peers(&barriers->ready, phase);
#pragma unroll 1
        for (; v < end; v += S::WORKERS, column += S::TURNS) {
            float total[4] = {0, 0, 0, 0};
#pragma unroll 4
            for (uint32_t from = 0; from < ranks.count * S::TURNS; from++) {
                gpu_u32x4 part = sums[from * most + (v - begin)];
                total[0] += gpu_float_of_bits(part.x);
                total[1] += gpu_float_of_bits(part.y);
                total[2] += gpu_float_of_bits(part.z);
                total[3] += gpu_float_of_bits(part.w);
            }
            if (S::PANELS > 1)
                lines = gpu_wide_lines_of<S>(p, v % S::TEAM, column / (S::N / 8), feature, row);
            if (__builtin_expect(!lines.pairs, 0))
                gpu_wide_store_each<S>(p, lines, column % (S::N / 8), total);
            else
                gpu_wide_store_pairs<S>(p, lines, column % (S::N / 8), total);
        }
        /* After the last chunk of all, those who would be told may have left. */
        if (chunk + 1 < CHUNKS || at.output_tile + at.step < at.output_tiles) {
            gpu_part_barrier(S::WORKERS);
            if (ranks.count > 1 && worker < ranks.count)
                gpu_mbarrier_arrive_at(&barriers->free, worker);
        }
        joins++;
    }
}

#endif
