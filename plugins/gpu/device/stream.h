/*
 * The kernel for few rows of x: weights stream from memory through each wave's own ring of shared
 * memory, once.
 *
 * Block tile    16 FEATURES waves_n (n) x 8 BLOCKS / GROUPS (m) and its share of k. Waves side by
 *               side along n read the same x; the others share k, a tile of places at a time in
 *               turn (SPAN tiles where a group is that long), and their sums meet in shared memory.
 * Instruction   m16n8k16: W is operand A, so a lane's 16 bytes are operands as they come; x is
 *               operand B, read from global memory (all blocks read the same: it lies in L2).
 * Groups        scales are applied to the sums of a tile of places, not to the weights. A tile of
 *               GROUPS groups gives each its own columns of B, in which x is zero where another
 *               group's places are: column c stands for row c / GROUPS and group c % GROUPS.
 * Pipeline      STAGES asynchronous copies of a tile are on their way in each wave. A lane reads
 *               only what it copied itself, so waves never wait for each other.
 * Split         blocks of a split along K write partial sums; the last to come adds them in order.
 *
 * shared memory   shape                        type   bytes
 * ring            [waves][STAGES]                     STAGE_BYTES each: codes, scales, zeros
 * sums            [waves][SUMS][32]            f32    over the ring, when it has been read
 * flag            [1]                          u32    16, behind the sums
 *
 * Numerics   y = sum over tiles and groups of s * (sum q x - z sum x), all sums in f32: products
 *            with codes are exact, sum x comes from a matrix instruction with ones for weights.
 * Chosen     where m is small, see plan.c.
 */
#ifndef KERNELRY_GPU_STREAM_H
#define KERNELRY_GPU_STREAM_H

#include "dequant.h"
#include "operands.h"

template <int BITS_, bool BF16_, int FEATURES_, int BLOCKS_, int GROUPS_, int SPAN_, int STAGES_,
          bool ZEROS_>
struct gpu_stream_shape {
    static constexpr int BITS = BITS_, FEATURES = FEATURES_, BLOCKS = BLOCKS_, GROUPS = GROUPS_;
    static constexpr int SPAN = SPAN_, STAGES = STAGES_, LOADS = SPAN * BITS / 4;
    static constexpr bool BF16 = BF16_, ZEROS = ZEROS_;
    static constexpr int N = FEATURES * 16, M = BLOCKS * 8 / GROUPS;
    static constexpr int SLOTS = GROUPS == 1 ? 1 : 2; /* groups of a lane's two columns */
    static constexpr int KEPT = GROUPS == 1 ? 4 : 2;  /* sums of a lane, a feature tile and block */
    static constexpr int SUMS = FEATURES * BLOCKS * KEPT;
    static constexpr int CODE_BYTES = FEATURES * LOADS * 512;
    static constexpr int SCALE_BYTES = FEATURES * SLOTS * 128;
    static constexpr int STAGE_BYTES = CODE_BYTES + (ZEROS ? 2 : 1) * SCALE_BYTES;
};

/** What a lane reads of SPAN tiles of places. */
template <class S> struct gpu_stream_weights {
    gpu_u32x4 codes[S::FEATURES][S::LOADS];
    uint32_t scales[S::FEATURES][S::SLOTS];
    uint32_t zeros[S::FEATURES][S::SLOTS];
};

/** A lane's places in what its wave reads. */
template <class S> struct gpu_stream_source {
    const unsigned char *codes[S::FEATURES];  /* of the next k tile to copy */
    const unsigned char *scales[S::FEATURES]; /* of group 0 */
    const unsigned char *zeros[S::FEATURES];
    const uint16_t *x[S::BLOCKS]; /* of the next k tile to read */
    int32_t k;                    /* column of its first place there */
    uint32_t k_end;               /* whole chunks of 8 columns start below it */
    uint32_t slot;                /* first group of its two columns in a tile */
};

template <class S>
GPU_DEVICE gpu_stream_source<S> gpu_stream_source_of(const gpu_apply_params &p, int32_t n_tile,
                                                     int64_t row, int32_t k_tile) {
    gpu_stream_source<S> from;
    uint32_t lane = gpu_lane();
#pragma unroll
    for (int f = 0; f < S::FEATURES; f++) { /* tiles that do not exist repeat the last one */
        int64_t tile = n_tile + f < p.n_tiles ? n_tile + f : p.n_tiles - 1;
        from.codes[f] = p.codes + (tile * p.k_tiles + k_tile) * (128 * S::BITS) + lane * 16;
        from.scales[f] = p.scales + tile * p.groups * 32 + lane / 4 * 4;
        from.zeros[f] = p.zeros + tile * p.groups * 16 + lane / 8 * 4;
    }
    from.k = k_tile * GPU_TILE_K + static_cast<int32_t>(lane % 4) * 16 - p.front;
    from.k_end = p.k < 8 ? 0 : static_cast<uint32_t>(p.k) - 7;
    from.slot = S::GROUPS == 1 ? 0 : lane * 2 % S::GROUPS;
#pragma unroll
    for (int b = 0; b < S::BLOCKS; b++) { /* rows beyond m repeat the last one */
        int64_t mine = row + (b * 8 + lane / 4) / S::GROUPS;
        from.x[b] = static_cast<const uint16_t *>(p.x) +
                    (mine < p.m ? mine : p.m - 1) * p.x_stride + from.k;
        gpu_keep(from.x[b]);
    }
#pragma unroll
    for (int f = 0; f < S::FEATURES; f++) {
        gpu_keep(from.codes[f]);
        gpu_keep(from.scales[f]);
    }
    return from;
}

/** The group of slot `slot` of a tile. */
template <class S>
GPU_DEVICE uint32_t gpu_stream_group(const gpu_apply_params &p, uint32_t k_tile, uint32_t slot) {
    if (S::GROUPS == 4)
        return gpu_group(p, k_tile * GPU_TILE_BLOCKS + slot);
    uint32_t group = gpu_divide(k_tile * GPU_TILE_BLOCKS + p.first_offset, p.divider) + slot;
    uint32_t last = static_cast<uint32_t>(p.groups) - 1;
    return group < last ? group : last;
}

/** Whether a lane's places belong to the group that its column of B stands for. */
template <class S> GPU_DEVICE bool gpu_stream_counts(const gpu_apply_params &p, uint32_t k_tile) {
    uint32_t lane = gpu_lane(), slot = lane / 4 % S::GROUPS, block = k_tile * GPU_TILE_BLOCKS;
    if (S::GROUPS == 1)
        return true;
    if (S::GROUPS == 4)
        return slot == lane % 4;
    return gpu_divide(block + lane % 4 + p.first_offset, p.divider) -
               gpu_divide(block + p.first_offset, p.divider) ==
           slot;
}

/** Start copying k tile `k_tile`, to which from.codes points, to the stage at `to`. */
template <class S>
GPU_DEVICE void gpu_stream_copy(const gpu_apply_params &p, const gpu_stream_source<S> &from,
                                uint32_t k_tile, unsigned char *to, uint32_t lane) {
#pragma unroll
    for (int load = 0; load < S::FEATURES * S::LOADS; load++)
        gpu_copy_async16(to + load * 512 + lane * 16,
                         from.codes[load / S::LOADS] + load % S::LOADS * 512);
    uint32_t groups[S::SLOTS] = {};
#pragma unroll
    for (int i = 0; i < S::FEATURES * S::SLOTS; i++) {
        int slot = i % S::SLOTS, f = i / S::SLOTS;
        if (f == 0)
            groups[slot] = gpu_stream_group<S>(p, k_tile, from.slot + static_cast<uint32_t>(slot));
        gpu_copy_async4(to + S::CODE_BYTES + i * 128 + lane * 4,
                        from.scales[f] + static_cast<uint64_t>(groups[slot]) * 32);
    }
    if constexpr (S::ZEROS) {
#pragma unroll
        for (int i = 0; i < S::FEATURES * S::SLOTS; i++)
            gpu_copy_async4(to + S::CODE_BYTES + S::SCALE_BYTES + i * 128 + lane * 4,
                            from.zeros[i / S::SLOTS] +
                                static_cast<uint64_t>(groups[i % S::SLOTS]) * 16);
    }
}

template <class S>
GPU_DEVICE void gpu_stream_take(const unsigned char *stage, uint32_t lane,
                                gpu_stream_weights<S> &w) {
#pragma unroll
    for (int load = 0; load < S::FEATURES * S::LOADS; load++)
        w.codes[load / S::LOADS][load % S::LOADS] =
            *reinterpret_cast<const gpu_u32x4 *>(stage + load * 512 + lane * 16);
#pragma unroll
    for (int i = 0; i < S::FEATURES * S::SLOTS; i++) {
        w.scales[i / S::SLOTS][i % S::SLOTS] =
            *reinterpret_cast<const uint32_t *>(stage + S::CODE_BYTES + i * 128 + lane * 4);
    }
    if constexpr (S::ZEROS) {
#pragma unroll
        for (int i = 0; i < S::FEATURES * S::SLOTS; i++)
            w.zeros[i / S::SLOTS][i % S::SLOTS] =
                *reinterpret_cast<const uint32_t *>(stage + S::CODE_BYTES + S::SCALE_BYTES +
                                                    i * 128 + lane * 4) >>
                (lane / 4 % 2 * 16);
    }
}

/** Add the sums of a tile, each with its group's scale and zero point. */
template <class S>
GPU_DEVICE void gpu_stream_scale(const gpu_stream_weights<S> &w, int f, const float c[4],
                                 const float ones[4], float sums[4]) {
    float unit[2] = {gpu_code_unit<S::BITS, S::BF16>(0), gpu_code_unit<S::BITS, S::BF16>(1)};
#pragma unroll
    for (int i = 0; i < S::SLOTS; i++) {
        float scale[2] = {gpu_low_float<S::BF16>(w.scales[f][i]),
                          gpu_high_float<S::BF16>(w.scales[f][i])};
        float zero[2] = {1 << (S::BITS - 1), 1 << (S::BITS - 1)};
        if (S::ZEROS) {
            zero[0] = gpu_float_of_byte(w.zeros[f][i] & 0xff);
            zero[1] = gpu_float_of_byte(w.zeros[f][i] >> 8 & 0xff);
        }
#pragma unroll
        for (int row = 0; row < 2; row++) {
            float by = scale[row] * unit[row];
            float less = -scale[row] * (zero[row] + gpu_code_offset<S::BITS, S::BF16>());
            if (S::SLOTS == 2) {
                sums[row] += less * ones[i];
                sums[row] += by * c[row * 2 + i];
            } else {
                sums[row * 2] += less * ones[0];
                sums[row * 2 + 1] += less * ones[1];
                sums[row * 2] += by * c[row * 2];
                sums[row * 2 + 1] += by * c[row * 2 + 1];
            }
        }
    }
}

/** Operand B of a fragment. */
GPU_DEVICE void gpu_stream_right(const gpu_u32x4 x[2], int fragment, uint32_t right[2]) {
    const gpu_u32x4 &half = x[fragment / 2];
    right[0] = fragment % 2 == 0 ? half.x : half.z;
    right[1] = fragment % 2 == 0 ? half.y : half.w;
}

template <class S>
GPU_DEVICE void gpu_stream_multiply(const gpu_stream_weights<S> &w,
                                    const gpu_u32x4 x[S::SPAN][S::BLOCKS][2],
                                    float sums[S::FEATURES][S::BLOCKS][4]) {
    const uint32_t one = S::BF16 ? 0x3f803f80u : 0x3c003c00u, all_ones[4] = {one, one, one, one};
    float ones[S::BLOCKS][4] = {};
#pragma unroll
    for (int i = 0; i < S::SPAN * 4; i++)
#pragma unroll
        for (int b = 0; b < S::BLOCKS; b++) {
            uint32_t right[2];
            gpu_stream_right(x[i / 4][b], i % 4, right);
            gpu_mma<S::BF16>(ones[b], all_ones, right);
        }
#pragma unroll
    for (int f = 0; f < S::FEATURES; f++) {
        float c[S::BLOCKS][4] = {};
#pragma unroll
        for (int i = 0; i < S::SPAN * 4; i++) {
            uint32_t words[2], left[4];
            gpu_u32x4 v = w.codes[f][i * S::BITS / 16];
            if (S::BITS == 4) {
                words[0] = i % 4 == 0 ? v.x : i % 4 == 1 ? v.y : i % 4 == 2 ? v.z : v.w;
            } else {
                words[0] = i % 2 == 0 ? v.x : v.z;
                words[1] = i % 2 == 0 ? v.y : v.w;
            }
            gpu_raw_codes<S::BITS, S::BF16>(words, left);
#pragma unroll
            for (int b = 0; b < S::BLOCKS; b++) {
                uint32_t right[2];
                gpu_stream_right(x[i / 4][b], i % 4, right);
                gpu_mma<S::BF16>(c[b], left, right);
            }
        }
#pragma unroll
        for (int b = 0; b < S::BLOCKS; b++)
            gpu_stream_scale<S>(w, f, c[b], ones[b], sums[f][b]);
    }
}

/** Two elements of x, of which `left` exist. */
GPU_DEVICE uint32_t gpu_pair_of_x(const uint16_t *x, int32_t left, bool counts) {
    uint32_t low = counts && left > 0 ? x[0] : 0, high = counts && left > 1 ? x[1] : 0;
    return low | high << 16;
}

/** The last columns of x where they do not fill eight: nobody else counts them. `ahead` tiles
 *  after where `from` points; `stage` is free. */
template <class S>
GPU_DEVICE void gpu_stream_rest(const gpu_apply_params &p, gpu_stream_source<S> from, int32_t ahead,
                                uint32_t tile, unsigned char *stage,
                                float sums[S::FEATURES][S::BLOCKS][4]) {
#pragma unroll
    for (int f = 0; f < S::FEATURES; f++)
        from.codes[f] += static_cast<int64_t>(ahead) * (128 * S::BITS);
    gpu_stream_copy<S>(p, from, tile, stage, gpu_lane());
    gpu_copy_async_commit();
    gpu_u32x4 x[S::SPAN][S::BLOCKS][2];
    bool mine = gpu_stream_counts<S>(p, tile);
#pragma unroll
    for (int i = 0; i < S::SPAN * 2; i++) {
        int32_t at = (ahead + i / 2) * GPU_TILE_K + i % 2 * 8, left = p.k - from.k - at;
        bool counts = left > 0 && left < 8 && mine;
#pragma unroll
        for (int b = 0; b < S::BLOCKS; b++) {
            const uint16_t *row = from.x[b] + at;
            x[i / 2][b][i % 2] = {
                gpu_pair_of_x(row, left, counts), gpu_pair_of_x(row + 2, left - 2, counts),
                gpu_pair_of_x(row + 4, left - 4, counts), gpu_pair_of_x(row + 6, left - 6, counts)};
        }
    }
    gpu_copy_async_wait<0>();
    gpu_wave_barrier();
    gpu_stream_weights<S> w;
    gpu_stream_take<S>(stage, gpu_lane(), w);
    gpu_stream_multiply<S>(w, x, sums);
}

/** x of SPAN tiles from `tile` on, to which from.x points, in whole chunks of 8 columns; zeros
 *  beyond the row and from `end` on. */
template <class S>
GPU_DEVICE void gpu_stream_load_x(const gpu_apply_params &p, const gpu_stream_source<S> &from,
                                  int32_t tile, int32_t end, gpu_u32x4 x[S::SPAN][S::BLOCKS][2]) {
    int32_t first = tile * GPU_TILE_K - p.front;
    if (S::GROUPS == 1 && first >= 0 && first + S::SPAN * GPU_TILE_K <= p.k &&
        tile + S::SPAN <= end) {
#pragma unroll
        for (int i = 0; i < S::SPAN * 2; i++)
#pragma unroll
            for (int b = 0; b < S::BLOCKS; b++)
                x[i / 2][b][i % 2] = gpu_load_cached(from.x[b] + (i / 2 * GPU_TILE_K + i % 2 * 8));
        return;
    }
    bool counts = gpu_stream_counts<S>(p, static_cast<uint32_t>(tile));
#pragma unroll
    for (int i = 0; i < S::SPAN * 2; i++) {
        int at = i / 2 * GPU_TILE_K + i % 2 * 8;
        bool inside = counts && static_cast<uint32_t>(from.k + at) < from.k_end &&
                      (i < 2 || tile + i / 2 < end);
#pragma unroll
        for (int b = 0; b < S::BLOCKS; b++)
            x[i / 2][b][i % 2] = gpu_load_cached_if(from.x[b] + at, inside);
    }
}

/** Where a wave is in its range: tiles that it multiplies, that it copies, and stages of either. */
struct gpu_stream_progress {
    int32_t tile;
    int32_t next;
    int32_t end;
    int32_t step;
    uint32_t code_step; /* bytes */
    uint32_t x_step;
    uint32_t lane;
    uint32_t ring; /* in shared memory */
    uint32_t read;
    uint32_t write;
};

/** Multiply a step's tiles, whose x is here, and start the copy and the x of later ones. */
template <class S>
GPU_DEVICE void
gpu_stream_step(const gpu_apply_params &p, gpu_stream_source<S> &from, gpu_stream_progress &at,
                unsigned char *shared, const gpu_u32x4 x[S::SPAN][S::BLOCKS][2],
                gpu_u32x4 x_next[S::SPAN][S::BLOCKS][2], float sums[S::FEATURES][S::BLOCKS][4]) {
    gpu_copy_async_wait<S::STAGES - 2>();
    gpu_stream_weights<S> w;
    gpu_stream_take<S>(shared + at.ring + at.read, at.lane, w);
    if (at.next < at.end)
        gpu_stream_copy<S>(p, from, static_cast<uint32_t>(at.next), shared + at.ring + at.write,
                           at.lane);
    gpu_copy_async_commit();
#pragma unroll
    for (int f = 0; f < S::FEATURES; f++)
        from.codes[f] += at.code_step;
    at.write = at.read;
    at.read = at.read == (S::STAGES - 1) * S::STAGE_BYTES ? 0 : at.read + S::STAGE_BYTES;
    at.tile += at.step;
    at.next += at.step;
    from.k += at.step * GPU_TILE_K;
#pragma unroll
    for (int b = 0; b < S::BLOCKS; b++)
        from.x[b] += at.x_step;
    if (at.tile < at.end)
        gpu_stream_load_x<S>(p, from, at.tile, at.end, x_next);
    gpu_stream_multiply<S>(w, x, sums);
}

/** The sums of this wave over SPAN tiles at begin, begin + step, ... below end; its ring of stages
 *  starts at `ring` in shared memory. */
template <class S>
GPU_DEVICE void gpu_stream_sum(const gpu_apply_params &p, gpu_stream_source<S> from, int32_t begin,
                               int32_t end, int32_t step, unsigned char *shared, uint32_t ring,
                               float sums[S::FEATURES][S::BLOCKS][4]) {
    if (begin >= end)
        return;
    int32_t rest = (p.k / 8 * 8 + p.front) / GPU_TILE_K; /* the tile of columns beyond eights */
    if (p.k % 8 != 0 && rest >= begin && rest < end && (rest - begin) % step < S::SPAN) {
        int32_t ahead = (rest - begin) / step * step;
        gpu_stream_rest<S>(p, from, ahead, static_cast<uint32_t>(begin + ahead), shared + ring,
                           sums);
    }
    gpu_stream_progress at;
    at.tile = at.next = begin;
    at.end = end;
    at.step = step;
    at.code_step = static_cast<uint32_t>(step) * (128 * S::BITS);
    at.x_step = static_cast<uint32_t>(step) * GPU_TILE_K;
    at.lane = gpu_lane();
    at.ring = ring;
    at.read = 0;
    at.write = (S::STAGES - 1) * S::STAGE_BYTES;
    gpu_keep(at.lane);
    gpu_keep(at.ring);
    gpu_keep(at.code_step);
    gpu_keep(at.x_step);
#pragma unroll
    for (int stage = 0; stage < S::STAGES - 1; stage++, at.next += step) {
        if (at.next < end)
            gpu_stream_copy<S>(p, from, static_cast<uint32_t>(at.next),
                               shared + at.ring + stage * S::STAGE_BYTES, at.lane);
        gpu_copy_async_commit();
#pragma unroll
        for (int f = 0; f < S::FEATURES; f++)
            from.codes[f] += at.code_step;
    }
    gpu_u32x4 x[2][S::SPAN][S::BLOCKS][2];
    gpu_stream_load_x<S>(p, from, begin, end, x[0]);
    for (;;) {
        gpu_stream_step<S>(p, from, at, shared, x[0], x[1], sums);
        if (at.tile >= end)
            break;
        gpu_stream_step<S>(p, from, at, shared, x[1], x[0], sums);
        if (at.tile >= end)
            break;
    }
    gpu_copy_async_wait<0>();
}

/** The sum over the waves along k of output (row, column) of the block tile. */
template <class S>
GPU_DEVICE float gpu_stream_total(const float *sums, uint32_t waves_n, uint32_t row,
                                  uint32_t column) {
    uint32_t b_column = row * S::GROUPS; /* of B: the first that stands for the row */
    uint32_t kept = S::KEPT == 4 ? column % 2 * 2 + b_column % 2 : column % 2;
    uint32_t sum = (column % S::N / 16 * S::BLOCKS + b_column / 8) * S::KEPT + kept;
    uint32_t lane = column % 16 / 2 * 4 + b_column % 8 / 2;
    float total = 0;
    for (uint32_t wave = column / S::N; wave < gpu_threads() / GPU_WAVE; wave += waves_n) {
        const float *at = sums + (wave * S::SUMS + sum) * GPU_LANES + lane;
        total += S::GROUPS == 4 ? at[0] + at[1] : at[0];
    }
    return total;
}

/** Add the waves' sums up, and those of a split, and store y. */
template <class S>
GPU_DEVICE void gpu_stream_store(const gpu_apply_params &p, uint32_t output_tile, int32_t split,
                                 int64_t row, int32_t n, unsigned char *shared) {
    uint32_t waves_n = static_cast<uint32_t>(p.waves_n), columns = S::N * waves_n;
    uint32_t outputs = columns * S::M;
    const float *sums = reinterpret_cast<const float *>(shared);
    float *partials = p.partials + static_cast<int64_t>(output_tile) * p.splits * outputs;
    if (p.splits > 1) {
        for (uint32_t at = gpu_thread(); at < outputs; at += gpu_threads())
            partials[split * outputs + at] =
                gpu_stream_total<S>(sums, waves_n, at / columns, at % columns);
        uint32_t *flag = reinterpret_cast<uint32_t *>(shared + gpu_threads() * (S::SUMS * 4));
        if (!gpu_last_of_split(p, output_tile, flag))
            return;
    }
    for (uint32_t at = gpu_thread(); at < outputs; at += gpu_threads()) {
        float total = 0;
        if (p.splits > 1)
            for (int32_t s = 0; s < p.splits; s++)
                total += partials[s * outputs + at];
        else
            total = gpu_stream_total<S>(sums, waves_n, at / columns, at % columns);
        gpu_store_y(p, row + at / columns, n + static_cast<int32_t>(at % columns), total);
    }
}

template <class S> GPU_DEVICE void gpu_stream(const gpu_apply_params &p) {
    GPU_SHARED(shared);
    uint32_t output_tile = gpu_block() % static_cast<uint32_t>(p.m_blocks * p.n_blocks);
    int32_t split = static_cast<int32_t>(gpu_block()) / (p.m_blocks * p.n_blocks);
    int32_t wave = static_cast<int32_t>(gpu_wave());
    int32_t waves_k = static_cast<int32_t>(gpu_threads() / GPU_WAVE) / p.waves_n;
    int64_t row = static_cast<int64_t>(output_tile % p.m_blocks) * S::M;
    int32_t n_tile = static_cast<int32_t>(output_tile / p.m_blocks) * S::FEATURES * p.waves_n;
    int32_t used = gpu_used_tiles(p);
    int32_t begin = split * p.split_tiles;
    int32_t end = begin + p.split_tiles < used ? begin + p.split_tiles : used;
    begin += wave / p.waves_n * S::SPAN;

    float kept[S::FEATURES][S::BLOCKS][4] = {};
    gpu_stream_source<S> from =
        gpu_stream_source_of<S>(p, n_tile + wave % p.waves_n * S::FEATURES, row, begin);
    gpu_stream_sum<S>(p, from, begin, end, waves_k * S::SPAN, shared,
                      gpu_wave() * (S::STAGES * S::STAGE_BYTES), kept);
    gpu_barrier();
    float *sums = reinterpret_cast<float *>(shared) + wave * (S::SUMS * GPU_LANES);
#pragma unroll
    for (int i = 0; i < S::SUMS; i++)
        sums[i * GPU_LANES + gpu_lane()] =
            kept[i / (S::BLOCKS * S::KEPT)][i / S::KEPT % S::BLOCKS][i % S::KEPT];
    gpu_barrier();
    gpu_stream_store<S>(p, output_tile, split, row, n_tile * 16, shared);
}

#endif
