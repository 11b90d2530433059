/*
 * wide.h: sums to y. The blocks of a cluster, and the teams of a block, have sums of the same
 * output tile. Each hands its sums to the others, a chunk at a time: block r gets the r-th part of
 * all of them, adds them up in the order of ranks and teams, and stores it. CHUNK counts 16 bytes a
 * worker.
 */
#ifndef KERNELRY_GPU_WIDE_JOIN_H
#define KERNELRY_GPU_WIDE_JOIN_H

#include "wide_shape.h"

/** Store two features of two rows of y: (feature, row), (feature, row + step), (feature + 1, row),
 *  (feature + 1, row + step). */
GPU_DEVICE void gpu_wide_store(const gpu_apply_params &p, int64_t row, int32_t step,
                               int32_t feature, bool pairs, const float c[4]) {
    if (!pairs) {
        for (int i = 0; i < 4; i++)
            gpu_store_y(p, row + i % 2 * step, feature + i / 2, c[i]);
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
        if (row + i * step < p.m)
            *reinterpret_cast<uint32_t *>(y + i * step * p.y_stride) = pair;
    }
}

/** Feature and row in the output tile of columns 8 i on of a worker's c of `panel`. */
template <class S> GPU_DEVICE int32_t gpu_wide_feature(uint32_t worker, int panel) {
    return static_cast<int32_t>((worker / 128 * S::PANELS + static_cast<uint32_t>(panel)) *
                                    GPU_PANEL_N +
                                worker / 32 % 4 * 16 + worker % 32 / 4 * 2);
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

/** Hand a chunk of this block's sums to those who add them up: a block alone, to itself. */
template <class S>
GPU_DEVICE void gpu_wide_hand_out(unsigned char *shared, const gpu_wide_ranks &ranks, int chunk,
                                  const float c[S::PANELS][S::N / 2]) {
    constexpr uint32_t ALL = S::TEAM * S::CHUNK;
    uint32_t worker = gpu_thread() % S::TEAM, turn = gpu_thread() / S::TEAM;
    uint32_t part = ranks.mine * S::TURNS + turn;
    gpu_u32x4 *sums =
        reinterpret_cast<gpu_u32x4 *>(shared + S::SUMS_AT) + part * gpu_wide_part_most<S>(ranks);
#pragma unroll
    for (int i = 0; i < S::CHUNK; i++) {
        const float *from =
            &c[(chunk * S::CHUNK + i) / (S::N / 8)][(chunk * S::CHUNK + i) % (S::N / 8) * 4];
        uint32_t v = static_cast<uint32_t>(i) * S::TEAM + worker, owner = v * ranks.count / ALL;
        gpu_u32x4 four = {gpu_bits_of_float(from[0]), gpu_bits_of_float(from[1]),
                          gpu_bits_of_float(from[2]), gpu_bits_of_float(from[3])};
        if (ranks.count == 1)
            sums[v] = four;
        else
            gpu_store_peer(sums + (v - gpu_wide_part<S>(ranks, owner)), owner, four,
                           &gpu_wide_barriers_of<S>(shared)->ready);
    }
}

/** Add up the sums of all teams of the cluster, each block a part of them, and store. joins: how
 *  often that has been done, a chunk at a time. */
template <class S>
GPU_DEVICE void gpu_wide_join(const gpu_apply_params &p, const gpu_wide_progress &at,
                              const gpu_wide_ranks &ranks, int32_t feature, int32_t row, bool pairs,
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
        uint32_t phase = joins % 2;
        if (ranks.count > 1) {
            if (worker == 0)
                gpu_mbarrier_expect(&barriers->ready,
                                    (end - begin) * ranks.count * (S::TURNS * 16));
            if (joins > 0)
                gpu_mbarrier_wait_peers(&barriers->free, phase ^ 1);
        }
        gpu_wide_hand_out<S>(shared, ranks, chunk, c);
        if (ranks.count > 1)
            gpu_mbarrier_wait_peers(&barriers->ready, phase);
        else
            gpu_part_barrier(S::WORKERS);
        for (uint32_t v = begin + worker; v < end; v += S::WORKERS) {
            float total[4] = {0, 0, 0, 0};
#pragma unroll 4
            for (uint32_t from = 0; from < ranks.count * S::TURNS; from++) {
                gpu_u32x4 part = sums[from * most + (v - begin)];
                total[0] += gpu_float_of_bits(part.x);
                total[1] += gpu_float_of_bits(part.y);
                total[2] += gpu_float_of_bits(part.z);
                total[3] += gpu_float_of_bits(part.w);
            }
            int column = chunk * S::CHUNK + static_cast<int>(v / S::TEAM);
            int32_t in_box = column % (S::N / 8) * 8 + static_cast<int32_t>(v % 4) * 2;
            gpu_wide_store(p, gpu_wide_row_of_box<S>(row, in_box), gpu_wide_row_step<S>(),
                           feature + gpu_wide_feature<S>(v % S::TEAM, column / (S::N / 8)), pairs,
                           total);
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
