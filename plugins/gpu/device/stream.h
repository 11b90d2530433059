/*
 * The kernel for few rows of x: weights stream from memory through each wave's own ring of shared
 * memory, once.
 *
 * Block tile    16 FEATURES waves_n (n) x 8 BLOCKS (m) and its share of k. Waves side by side along
 *               n read the same x; the others share k, SPAN tiles of places at a time in turn, and
 *               their sums meet in shared memory. The FEATURES tiles of a wave lie in one panel.
 * Instruction   m16n8k16: W is operand A, so a lane's 16 bytes are operands as they come; x is
 *               operand B, by ldmatrix.
 * Groups        scales are applied to sums, not to weights: GROUPS times a tile of places, after
 *               runs of 4 / GROUPS blocks, each of one group.
 * Pipeline      STAGES asynchronous copies of SPAN tiles are on their way in each wave. Lanes read
 * what others copied, so a step has one barrier of the wave: before it the copies landed, behind it
 * nobody reads the stage of the step before, which is filled again. Split         blocks of a split
 * along K write partial sums; the last to come adds them in order.
 *
 * stage of a ring   shape                  type     stored as
 * codes             [SPAN, FEATURES]                as prepared, 512 or 1024 bytes each
 * x                 [SPAN, 8 BLOCKS, 64]   16 bits  chunk c of 16 bytes of row r at
 *                                                   r * 128 + (c ^ (r % 8)) * 16
 * scales            [RUNS, FEATURES, 16]   16 bits  as prepared; RUNS = SPAN GROUPS
 * zeros             [RUNS, FEATURES, 16]   u8       as prepared; where the type has them
 *
 * shared memory     shape                  type     bytes
 * rings             [waves][STAGES]                 STAGE_BYTES each
 * sums              [waves][SUMS][32]      f32      over the rings, when they have been read
 * flag              [1]                    u32      16, behind the sums
 *
 * Numerics   y = sum over runs of s * (sum q x - z sum x), all sums in f32: products with codes are
 *            exact, sum x comes from a matrix instruction with ones for weights.
 * Assumes    a layout whose groups begin and end where runs do (plan.c chooses GROUPS).
 * Chosen     where m is small, see plan.c.
 */
#ifndef KERNELRY_GPU_STREAM_H
#define KERNELRY_GPU_STREAM_H

#include "dequant.h"
#include "operands.h"

template <int BITS_, bool BF16_, int FEATURES_, int BLOCKS_, int GROUPS_, int SPAN_, int STAGES_>
struct gpu_stream_shape {
    static constexpr int BITS = BITS_, FEATURES = FEATURES_, BLOCKS = BLOCKS_, GROUPS = GROUPS_;
    static constexpr int SPAN = SPAN_, STAGES = STAGES_, LOADS = BITS / 4;
    static constexpr int RUN = GPU_TILE_BLOCKS / GROUPS, RUNS = SPAN * GROUPS;
    static constexpr bool BF16 = BF16_;
    static constexpr int N = FEATURES * 16, M = BLOCKS * 8;
    static constexpr int SUMS = FEATURES * BLOCKS * 4;
    static constexpr int TILE_BYTES =
        GPU_PANEL_TILES * 128 * BITS; /* from tile to tile of places */
    static constexpr int X_AT = SPAN * FEATURES * LOADS * 512;
    static constexpr int SCALES_AT = X_AT + SPAN * M * 128;
    static constexpr int ZEROS_AT = SCALES_AT + RUNS * FEATURES * 32;
    static constexpr int STAGE_BYTES = ZEROS_AT + RUNS * FEATURES * 16;
    static_assert(GPU_PANEL_TILES % FEATURES == 0, "a wave's tiles lie in one panel");
    static_assert(RUNS * FEATURES * 2 <= GPU_LANES, "each lane copies one chunk of scales");
    static_assert((SPAN - 1) * TILE_BYTES <= GPU_SLACK, "a span may begin in the last tile");
};

/** What a lane copies of each tile of places. */
template <class S> struct gpu_stream_source {
    const unsigned char *codes;  /* of the next k tile */
    const unsigned char *scales; /* of group 0 */
    const unsigned char *zeros;  /* likewise */
    gpu_x_source x;              /* rows lane / 8 + 4 i, of the next k tile */
};

template <class S>
GPU_DEVICE gpu_stream_source<S> gpu_stream_source_of(const gpu_apply_params &p, int32_t n_tile,
                                                     int64_t row, int32_t k_tile) {
    gpu_stream_source<S> from;
    uint32_t lane = gpu_lane();
    if (n_tile >= p.n_tiles) /* nothing to do: the last tiles once more, not stored */
        n_tile = p.n_tiles - S::FEATURES;
    from.codes = p.codes + gpu_tile_at(p.k_tiles, 128 * S::BITS, n_tile, k_tile) + lane * 16;
    uint64_t scales_at = gpu_scales_at(p, n_tile, 0);
    from.scales = p.scales + scales_at * 2 + lane / S::RUNS * 16;
    from.zeros = p.zeros + scales_at + lane / S::RUNS * 16;
    from.x = gpu_x_source_of(p, row + lane / 8, row + S::M,
                             k_tile * GPU_TILE_K + static_cast<int32_t>(lane % 8) * 8,
                             S::X_AT + lane / 8 * 128 + (lane % 8 ^ lane / 8) * 16);
    gpu_keep(from.codes);
    gpu_keep(from.scales);
    gpu_keep(from.zeros);
    return from;
}

/** The group of run `run` of a tile. */
template <class S>
GPU_DEVICE uint32_t gpu_stream_group(const gpu_apply_params &p, uint32_t k_tile, uint32_t run) {
    uint32_t block = k_tile * GPU_TILE_BLOCKS + run * S::RUN;
    if (S::GROUPS == GPU_TILE_BLOCKS)
        return gpu_group(p, block);
    uint32_t group = gpu_divide(block + p.first_offset, p.divider);
    uint32_t last = static_cast<uint32_t>(p.groups) - 1;
    return group < last ? group : last;
}

/** Start copying SPAN tiles from k tile `k_tile` on, which `from` points to, to the stage at `to`;
 *  x is zero for those from `end` on. */
template <class S>
GPU_DEVICE void gpu_stream_copy(const gpu_apply_params &p, const gpu_stream_source<S> &from,
                                int32_t k_tile, int32_t end, unsigned char *to, uint32_t lane) {
#pragma unroll
    for (int load = 0; load < S::SPAN * S::FEATURES * S::LOADS; load++)
        gpu_copy_async16(to + load * 512 + lane * 16,
                         from.codes + load / (S::FEATURES * S::LOADS) * S::TILE_BYTES +
                             load % (S::FEATURES * S::LOADS) * 512);
    uint32_t run = lane % S::RUNS, chunk = lane / S::RUNS;
    int32_t tile = k_tile + static_cast<int32_t>(run / S::GROUPS);
    uint64_t group =
        gpu_stream_group<S>(p, static_cast<uint32_t>(tile < end ? tile : end - 1), run % S::GROUPS);
    if (chunk < S::FEATURES * 2)
        gpu_copy_async16(to + S::SCALES_AT + (run * S::FEATURES * 2 + chunk) * 16,
                         from.scales + group * (GPU_PANEL_N * 2));
    if (p.zeros != nullptr && chunk < S::FEATURES)
        gpu_copy_async16(to + S::ZEROS_AT + (run * S::FEATURES + chunk) * 16,
                         from.zeros + group * GPU_PANEL_N);
#pragma unroll
    for (int32_t i = 0; i < S::SPAN; i++) {
        gpu_x_source x = from.x;
        x.x += i * GPU_TILE_K;
        x.k += i * GPU_TILE_K;
        x.rows = i == 0 || k_tile + i < end ? x.rows : 0;
        gpu_copy_x<S::BLOCKS * 2, 4, 64>(p, x, to + i * S::M * 128);
    }
}

/** What a lane reads of a tile at once: its codes, and x as operands B, two fragments in four
 *  registers. */
template <class S> struct gpu_stream_operands {
    gpu_u32x4 codes[S::FEATURES][S::LOADS];
    uint32_t x[S::BLOCKS][2][4];
};

/** Read tile `tile` of a stage. */
template <class S>
GPU_DEVICE void gpu_stream_take(const unsigned char *stage, int tile, uint32_t lane, uint32_t x_at,
                                gpu_stream_operands<S> &o) {
    const unsigned char *codes = stage + tile * S::FEATURES * S::LOADS * 512 + lane * 16;
    const unsigned char *x = stage + S::X_AT + tile * S::M * 128;
#pragma unroll
    for (int load = 0; load < S::FEATURES * S::LOADS; load++)
        o.codes[load / S::LOADS][load % S::LOADS] =
            *reinterpret_cast<const gpu_u32x4 *>(codes + load * 512);
#pragma unroll
    for (int i = 0; i < S::BLOCKS * 2; i++)
        gpu_load_matrix_x4(o.x[i / 2][i % 2], x + i / 2 * 1024 + (x_at ^ (i % 2 * 64u)));
}

/** Add the sums of a run with its scales, and where there are zero points take theirs away; the
 *  run's scales and zero points lie at `scales` and `zeros`. Sums stay in units of raw codes. */
template <class S>
GPU_DEVICE void
gpu_stream_scale(const gpu_apply_params &p, const unsigned char *scales, const unsigned char *zeros,
                 const float c[S::FEATURES][S::BLOCKS][4], const float ones[S::BLOCKS][4],
                 float sums[S::FEATURES][S::BLOCKS][4]) {
    float scale[S::FEATURES][2];
#pragma unroll
    for (int f = 0; f < S::FEATURES; f++) {
        uint32_t pair = *reinterpret_cast<const uint32_t *>(scales + f * 32);
        scale[f][0] = gpu_low_float<S::BF16>(pair);
        scale[f][1] = gpu_high_float<S::BF16>(pair);
#pragma unroll
        for (int i = 0; i < S::BLOCKS * 4; i++)
            sums[f][i / 4][i % 4] += scale[f][i % 4 / 2] * c[f][i / 4][i % 4];
    }
    if (p.zeros == nullptr)
        return;
#pragma unroll
    for (int f = 0; f < S::FEATURES; f++) {
        uint32_t zero = *reinterpret_cast<const uint16_t *>(zeros + f * 16);
        float less[2] = {gpu_float_of_byte(zero & 0xff) * scale[f][0],
                         gpu_float_of_byte(zero >> 8) * scale[f][1]};
#pragma unroll
        for (int i = 0; i < S::BLOCKS * 4; i++)
            sums[f][i / 4][i % 4] -=
                less[i % 4 / 2] * (ones[i / 4][i % 4] / gpu_code_unit<S::BITS, S::BF16>(i % 4 / 2));
    }
}

/** The products of tile `tile` of a stage, which holds its scales. */
template <class S>
GPU_DEVICE void gpu_stream_multiply(const gpu_apply_params &p, const gpu_stream_operands<S> &o,
                                    const unsigned char *stage, int tile, uint32_t lane,
                                    float sums[S::FEATURES][S::BLOCKS][4]) {
    const uint32_t one = S::BF16 ? 0x3f803f80u : 0x3c003c00u, all_ones[4] = {one, one, one, one};
    const float bias = p.zeros != nullptr ? 0 : 1 << (S::BITS - 1);
    const float zero = -bias - gpu_code_offset<S::BITS, S::BF16>(); /* of all features */
#pragma unroll
    for (int run = 0; run < S::GROUPS; run++) {
        float ones[S::BLOCKS][4] = {}, c[S::FEATURES][S::BLOCKS][4];
#pragma unroll
        for (int i = 0; i < S::RUN * S::BLOCKS; i++) {
            int j = run * S::RUN + i / S::BLOCKS;
            gpu_mma<S::BF16>(ones[i % S::BLOCKS], all_ones, o.x[i % S::BLOCKS][j / 2] + j % 2 * 2);
        }
#pragma unroll
        for (int i = 0; i < S::FEATURES * S::BLOCKS * 4; i++)
            c[i / (S::BLOCKS * 4)][i / 4 % S::BLOCKS][i % 4] =
                ones[i / 4 % S::BLOCKS][i % 4] *
                (zero / gpu_code_unit<S::BITS, S::BF16>(i % 4 / 2));
#pragma unroll
        for (int i = 0; i < S::RUN * S::FEATURES; i++) {
            int j = run * S::RUN + i / S::FEATURES, f = i % S::FEATURES;
            uint32_t words[2], left[4];
            gpu_fragment_words<S::BITS>(o.codes[f], j, words);
            gpu_raw_codes<S::BITS, S::BF16>(words, left);
#pragma unroll
            for (int b = 0; b < S::BLOCKS; b++)
                gpu_mma<S::BF16>(c[f][b], left, o.x[b][j / 2] + j % 2 * 2);
        }
        int scales = (tile * S::GROUPS + run) * S::FEATURES;
        gpu_stream_scale<S>(p, stage + S::SCALES_AT + scales * 32 + lane / 4 * 4,
                            stage + S::ZEROS_AT + scales * 16 + lane / 4 * 2, c, ones, sums);
    }
}

/** Where a wave is in its range: tiles that it multiplies, that it copies, and stages of either. */
struct gpu_stream_progress {
    int32_t next; /* tile to copy */
    int32_t end;
    int32_t step;
    uint32_t code_step; /* bytes */
    uint32_t x_step;    /* elements */
    uint32_t lane;
    uint32_t x_at; /* the lane's row for ldmatrix, in a stage's x */
    uint32_t ring; /* in shared memory */
    uint32_t read;
    uint32_t write;
};

/** Start copying the next tiles, if there are any. */
template <class S>
GPU_DEVICE void gpu_stream_go_on(const gpu_apply_params &p, gpu_stream_source<S> &from,
                                 gpu_stream_progress &at, unsigned char *stage) {
    if (at.next < at.end)
        gpu_stream_copy<S>(p, from, at.next, at.end, stage, at.lane);
    gpu_copy_async_commit();
    at.next += at.step;
    from.codes += at.code_step;
    from.x.x += at.x_step;
    from.x.k += at.step * GPU_TILE_K;
}

/** The sums of this wave over SPAN tiles at begin, begin + step, ... below end; its ring of stages
 *  starts at `ring` in shared memory. */
template <class S>
GPU_DEVICE void gpu_stream_sum(const gpu_apply_params &p, gpu_stream_source<S> from, int32_t begin,
                               int32_t end, int32_t step, unsigned char *shared, uint32_t ring,
                               float sums[S::FEATURES][S::BLOCKS][4]) {
    gpu_stream_progress at;
    at.next = begin;
    at.end = end;
    at.step = step;
    at.code_step = static_cast<uint32_t>(step) * S::TILE_BYTES;
    at.x_step = static_cast<uint32_t>(step) * GPU_TILE_K;
    at.lane = gpu_lane();
    at.x_at = at.lane % 8 * 128 + (at.lane / 8 ^ at.lane % 8) * 16;
    at.ring = ring;
    at.read = 0;
    at.write = (S::STAGES - 1) * S::STAGE_BYTES;
    gpu_keep(at.lane);
    gpu_keep(at.x_at);
    gpu_keep(at.ring);
    gpu_keep(at.code_step);
    gpu_keep(at.x_step);
#pragma unroll
    for (int stage = 0; stage < S::STAGES - 1; stage++)
        gpu_stream_go_on<S>(p, from, at, shared + at.ring + stage * S::STAGE_BYTES);
#pragma unroll 1
    for (int32_t tile = begin; tile < end; tile += step) {
        gpu_copy_async_wait<S::STAGES - 2>();
        gpu_wave_barrier();
        const unsigned char *stage = shared + at.ring + at.read;
        gpu_stream_operands<S> operands;
        gpu_stream_take<S>(stage, 0, at.lane, at.x_at, operands);
        gpu_stream_go_on<S>(p, from, at, shared + at.ring + at.write);
        at.write = at.read;
        at.read = at.read == (S::STAGES - 1) * S::STAGE_BYTES ? 0 : at.read + S::STAGE_BYTES;
        gpu_stream_multiply<S>(p, operands, stage, 0, at.lane, sums);
#pragma unroll
        for (int i = 1; i < S::SPAN; i++) { /* beyond the end x is zero */
            gpu_stream_take<S>(stage, i, at.lane, at.x_at, operands);
            gpu_stream_multiply<S>(p, operands, stage, i, at.lane, sums);
        }
    }
    gpu_copy_async_wait<0>();
}

/** The sum over the waves along k of output (row, column) of the block tile. */
template <class S>
GPU_DEVICE float gpu_stream_total(const float *sums, uint32_t waves_n, uint32_t row,
                                  uint32_t column) {
    uint32_t sum = (column % S::N / 16 * S::BLOCKS + row / 8) * 4 + column % 2 * 2 + row % 2;
    uint32_t lane = column % 16 / 2 * 4 + row % 8 / 2;
    float total = 0;
    for (uint32_t wave = column / S::N; wave < gpu_threads() / GPU_WAVE; wave += waves_n)
        total += sums[(wave * S::SUMS + sum) * GPU_LANES + lane];
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
        sums[i * GPU_LANES + gpu_lane()] = kept[i / (S::BLOCKS * 4)][i / 4 % S::BLOCKS][i % 4] *
                                           gpu_code_unit<S::BITS, S::BF16>(i % 4 / 2);
    gpu_barrier();
    gpu_stream_store<S>(p, output_tile, split, row, n_tile * 16, shared);
}

#endif
