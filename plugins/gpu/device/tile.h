/*
 * The kernel for many rows of x: tiles of x and W pass through shared memory in a pipeline.
 *
 * Block tile    16 WAVES_N FEATURES (n) x 8 WAVES_M ROWS (m) x 64 (places); a wave owns
 *               16 FEATURES x 8 ROWS of it.
 * Instruction   m16n8k16: W is operand A, made from codes in registers; x operand B, by ldmatrix.
 * Groups        GROUPS scales a feature and tile of places: 1, or 4, one a block.
 * Pipeline      STAGES stages of asynchronous copies; tile t of places lives in stage t % STAGES.
 *               Weights are dequantized half a tile ahead of the instructions that use them.
 * Split         as in stream.h, with the accumulators as they lie in the threads.
 *
 * stage buffer   shape                             type      stored as
 * x              [8 WAVES_M ROWS, 64]              16 bits   chunk c of 16 bytes of row r at
 *                                                            r * 128 + (c ^ (r % 8)) * 16
 * codes          [WAVES_N FEATURES]                          as prepared, 512 or 1024 bytes each
 * scales         [GROUPS, WAVES_N FEATURES, 16]    16 bits   as prepared
 * zeros          [GROUPS, WAVES_N FEATURES, 16]    u8        as prepared; where the type has them
 *
 * Numerics   weights are rounded to x's type; sums in f32 over all places of the block, then over
 *            splits in fixed order.
 * Assumes    GROUPS 1: a layout whose groups begin and end with tiles of places.
 * Chosen     where m is not small, see plan.c.
 */
#ifndef KERNELRY_GPU_TILE_H
#define KERNELRY_GPU_TILE_H

#include "dequant.h"
#include "operands.h"

template <int BITS_, int WAVES_N_, int WAVES_M_, int FEATURES_, int ROWS_, int GROUPS_, int STAGES_>
struct gpu_tile_shape {
    static constexpr int BITS = BITS_, WAVES_N = WAVES_N_, WAVES_M = WAVES_M_;
    static constexpr int FEATURES = FEATURES_, ROWS = ROWS_, GROUPS = GROUPS_, STAGES = STAGES_;
    /* Row blocks at a time: 4 independent instructions, and as many again of the other fragment,
     * cover their latency; more would spill. */
    static constexpr int BATCH = FEATURES >= 4 ? 1 : 4 / FEATURES;
    static constexpr int THREADS = WAVES_N * WAVES_M * 32;
    static constexpr int N_TILES = WAVES_N * FEATURES, M = WAVES_M * ROWS * 8;
    static constexpr int X_BYTES = M * 128, CODE_BYTES = N_TILES * 128 * BITS;
    static constexpr int SCALE_CHUNKS = N_TILES * 2; /* of a group */
    static constexpr int CODES_AT = X_BYTES, SCALES_AT = CODES_AT + CODE_BYTES;
    static constexpr int ZEROS_AT = SCALES_AT + GROUPS * SCALE_CHUNKS * 16;
    static constexpr int STAGE_BYTES = ZEROS_AT + GROUPS * N_TILES * 16;
    static_assert(GROUPS * SCALE_CHUNKS <= THREADS, "a thread copies one chunk of scales");
};

/** What a thread copies of each stage: the same chunks of every tile of places. */
template <class S> struct gpu_tile_source {
    static constexpr int CODES = S::N_TILES * 8 * S::BITS / S::THREADS;
    static_assert(S::THREADS / 32 % S::BITS == 0 || S::BITS % (S::THREADS / 32) == 0,
                  "all waves go on to a later panel together");
    gpu_x_source x;              /* of the next k tile */
    const unsigned char *codes;  /* its first load of the next k tile */
    int32_t panels;              /* that exist from there on */
    const unsigned char *scales; /* of group 0 */
    const unsigned char *zeros;  /* likewise */
    uint32_t thread;
};

template <class S>
GPU_DEVICE gpu_tile_source<S> gpu_tile_source_of(const gpu_apply_params &p,
                                                 const gpu_block_place &at) {
    gpu_tile_source<S> from;
    uint32_t lane = gpu_lane(), wave = gpu_wave();
    from.thread = gpu_thread();
    uint32_t chunk = from.thread % 8, first = from.thread / 8;
    gpu_keep(from.thread);
    from.x = gpu_x_source_of(p, at.row + first, at.row + S::M,
                             at.begin * GPU_TILE_K + static_cast<int32_t>(chunk) * 8,
                             first * 128 + (chunk ^ (first & 7)) * 16);
    /* A panel's tiles have BITS loads of 512 bytes each; panels that do not exist stay unread. */
    int32_t panel = at.n_tile / GPU_PANEL_TILES + static_cast<int32_t>(wave) / S::BITS;
    from.panels = p.n_tiles / GPU_PANEL_TILES - panel;
    from.codes = p.codes +
                 gpu_tile_at(p.k_tiles, 128 * S::BITS, panel * GPU_PANEL_TILES, at.begin) +
                 wave % S::BITS * 512 + lane * 16;
    gpu_keep(from.codes);
    gpu_keep(from.panels);
    uint32_t part = from.thread / S::GROUPS; /* chunk of scales, tile of zeros */
    int64_t last = p.n_tiles - 1, scales = at.n_tile + part / 2, zeros = at.n_tile + part;
    from.scales = p.scales + gpu_scales_at(p, scales < last ? scales : last, 0) * 2 + part % 2 * 16;
    from.zeros = p.zeros + gpu_scales_at(p, zeros < last ? zeros : last, 0);
    gpu_keep(from.scales);
    return from;
}

/** Copy the scales and, where the type has them, zero points of a tile's groups: `group` is that of
 *  run thread % GROUPS. */
template <class S>
GPU_DEVICE void gpu_tile_copy_scales(const gpu_apply_params &p, const gpu_tile_source<S> &from,
                                     uint64_t group, unsigned char *stage) {
    uint32_t run = from.thread % S::GROUPS, part = from.thread / S::GROUPS;
    if (part < S::SCALE_CHUNKS)
        gpu_copy_async16(stage + S::SCALES_AT + (run * S::SCALE_CHUNKS + part) * 16,
                         from.scales + group * (GPU_PANEL_N * 2));
    if (p.zeros != nullptr && part < S::N_TILES)
        gpu_copy_async16(stage + S::ZEROS_AT + (run * S::N_TILES + part) * 16,
                         from.zeros + group * GPU_PANEL_N);
}

/** Start copying the next tile of places and go on to the one after it. */
template <class S>
GPU_DEVICE void gpu_tile_copy(const gpu_apply_params &p, gpu_tile_source<S> &from, uint32_t group,
                              unsigned char *stage) {
    gpu_copy_x<S::M * 8 / S::THREADS, S::THREADS / 8, 0>(p, from.x, stage);
    int64_t panel_bytes = static_cast<int64_t>(p.k_tiles) * (GPU_PANEL_TILES * 128 * S::BITS);
#pragma unroll
    for (int i = 0; i < from.CODES; i++) {
        uint32_t at = S::CODES_AT + (i * S::THREADS + from.thread) * 16;
        int first = i * (S::THREADS / 32); /* load of wave 0 */
        if (first / S::BITS < from.panels)
            gpu_copy_async16(stage + at,
                             from.codes + first / S::BITS * panel_bytes + first % S::BITS * 512);
    }
    gpu_tile_copy_scales<S>(p, from, group, stage);
    from.x.k += GPU_TILE_K;
    from.x.x += GPU_TILE_K;
    from.codes += GPU_PANEL_TILES * 128 * S::BITS;
}

/** Operands A of half a tile of places (2 fragments), made ahead of their use. */
template <class S> struct gpu_tile_left { uint32_t a[2][S::FEATURES][4]; };

/** A lane's places in a stage. */
template <class S> struct gpu_tile_lane {
    uint32_t x[2];   /* of either half: its row for ldmatrix; rows follow every 1024 bytes */
    uint32_t codes;  /* of the first half */
    uint32_t scales; /* of the wave's first tile of features */
    uint32_t zeros;
};

template <class S> GPU_DEVICE gpu_tile_lane<S> gpu_tile_lane_of() {
    gpu_tile_lane<S> at;
    uint32_t lane = gpu_lane(), wave = gpu_wave();
    uint32_t n_first = wave % S::WAVES_N * S::FEATURES;
    uint32_t row = lane % 8, rows_at = wave / S::WAVES_N * S::ROWS * 1024 + row * 128;
    for (uint32_t half = 0; half < 2; half++)
        at.x[half] = rows_at + ((half * 4 + lane / 8) ^ row) * 16;
    at.codes = S::CODES_AT + n_first * (128 * S::BITS) + lane * 16;
    at.scales = S::SCALES_AT + n_first * 32 + lane / 4 * 4;
    at.zeros = S::ZEROS_AT + n_first * 16 + lane / 4 * 2;
    gpu_keep(at.x[0]);
    gpu_keep(at.x[1]);
    gpu_keep(at.codes);
    gpu_keep(at.scales);
    return at;
}

/** Dequantize fragment 2 half + j of feature tile f. */
template <class S, bool BF16>
GPU_DEVICE void gpu_tile_dequantize(const gpu_apply_params &p, const gpu_tile_lane<S> &at,
                                    const unsigned char *stage, int half, int f, int j,
                                    gpu_block_scale &scale, gpu_tile_left<S> &left) {
    int block = half * 2 + j;
    if (block % (GPU_TILE_BLOCKS / S::GROUPS) == 0) {
        uint32_t tile = static_cast<uint32_t>(S::GROUPS == 1 ? f : block * S::N_TILES + f);
        uint32_t zeros = S::BITS == 4 ? 0x0808 : 0x8080;
        if (p.zeros != nullptr)
            zeros = *reinterpret_cast<const uint16_t *>(stage + at.zeros + tile * 16);
        scale = gpu_scale_of<S::BITS, BF16>(
            *reinterpret_cast<const uint32_t *>(stage + at.scales + tile * 32), zeros);
    }
    uint32_t words[2];
    const unsigned char *codes = stage + at.codes + f * (128 * S::BITS);
    if (S::BITS == 4) {
        words[0] = *reinterpret_cast<const uint32_t *>(codes + half * 8 + j * 4);
    } else {
        const uint32_t *from = reinterpret_cast<const uint32_t *>(codes + half * 512 + j * 8);
        words[0] = from[0];
        words[1] = from[1];
    }
    gpu_dequantize<S::BITS, BF16>(words, scale, left.a[j][f]);
}

/**
 * Multiply half a tile of places while the next half's weights are dequantized: `next_stage` and
 * `next_half` tell where those lie.
 */
template <class S, bool BF16>
GPU_DEVICE void gpu_tile_half(const gpu_apply_params &p, const gpu_tile_lane<S> &at,
                              const unsigned char *stage, int half, const unsigned char *next_stage,
                              const gpu_tile_left<S> &left, gpu_tile_left<S> &next,
                              gpu_block_scale scale[S::FEATURES],
                              float c[S::FEATURES][S::ROWS][4]) {
    constexpr int FRAGMENTS = 2 * S::FEATURES, BATCHES = S::ROWS / S::BATCH;
    uint32_t x[2][S::BATCH][4]; /* of two fragments */
    const unsigned char *rows = stage + at.x[half];
#pragma unroll
    for (int r = 0; r < S::BATCH; r++)
        gpu_load_matrix_x4(x[0][r], rows + r * 1024);
#pragma unroll
    for (int batch = 0; batch < BATCHES; batch++) {
#pragma unroll
        for (int r = 0; r < S::BATCH && batch + 1 < BATCHES; r++)
            gpu_load_matrix_x4(x[(batch + 1) % 2][r], rows + ((batch + 1) * S::BATCH + r) * 1024);
#pragma unroll
        for (int i = batch * FRAGMENTS / BATCHES; i < (batch + 1) * FRAGMENTS / BATCHES; i++)
            gpu_tile_dequantize<S, BF16>(p, at, next_stage, 1 - half, i / 2, i % 2, scale[i / 2],
                                         next);
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int r = 0; r < S::BATCH; r++)
#pragma unroll
                for (int f = 0; f < S::FEATURES; f++)
                    gpu_mma<BF16>(c[f][batch * S::BATCH + r], left.a[j][f],
                                  x[batch % 2][r] + j * 2);
    }
}

/** The group of this thread's run of blocks in a tile of places that exists. */
template <class S>
GPU_DEVICE uint32_t gpu_tile_group(const gpu_apply_params &p, int32_t k_tile, int32_t end) {
    int32_t tile = k_tile < end ? k_tile : end - 1;
    return gpu_group(p, static_cast<uint32_t>(tile) * GPU_TILE_BLOCKS + gpu_lane() % S::GROUPS);
}

/**
 * All tiles of places of the block. The barrier of tile t says that tile t + 1 has landed too, so
 * that its first weights can be dequantized before the next barrier, and that nobody reads tile
 * t - 1 any more, whose stage is filled again.
 */
template <class S, bool BF16>
GPU_DEVICE void gpu_tile_pipeline(const gpu_apply_params &p, const gpu_block_place &at,
                                  unsigned char *shared, float c[S::FEATURES][S::ROWS][4]) {
    if (at.begin >= at.end)
        return;
    gpu_tile_source<S> from = gpu_tile_source_of<S>(p, at);
    gpu_tile_lane<S> lane = gpu_tile_lane_of<S>();
#pragma unroll
    for (int stage = 0; stage < S::STAGES - 1; stage++) {
        int32_t tile = at.begin + stage;
        if (tile < at.end)
            gpu_tile_copy<S>(p, from, gpu_tile_group<S>(p, tile, at.end),
                             shared + stage * S::STAGE_BYTES);
        gpu_copy_async_commit();
    }
    uint32_t group = gpu_tile_group<S>(p, at.begin + S::STAGES - 1, at.end);
    gpu_tile_left<S> first, second;
    gpu_block_scale scale[S::FEATURES];
    gpu_copy_async_wait<S::STAGES - 2>();
    gpu_barrier();
#pragma unroll
    for (int i = 0; i < 2 * S::FEATURES; i++)
        gpu_tile_dequantize<S, BF16>(p, lane, shared, 0, i / 2, i % 2, scale[i / 2], first);
    int32_t read = 0, write = (S::STAGES - 1) * S::STAGE_BYTES;
    for (int32_t tile = at.begin; tile < at.end; tile++) {
        int32_t after = read == (S::STAGES - 1) * S::STAGE_BYTES ? 0 : read + S::STAGE_BYTES;
        gpu_copy_async_wait<S::STAGES - 3>();
        gpu_barrier();
        if (tile + S::STAGES - 1 < at.end)
            gpu_tile_copy<S>(p, from, group, shared + write);
        gpu_copy_async_commit();
        group = gpu_tile_group<S>(p, tile + S::STAGES, at.end);
        gpu_tile_half<S, BF16>(p, lane, shared + read, 0, shared + read, first, second, scale, c);
        /* after the last tile this dequantizes what nobody uses */
        gpu_tile_half<S, BF16>(p, lane, shared + read, 1, shared + after, second, first, scale, c);
        write = read;
        read = after;
    }
    gpu_copy_async_wait<0>();
    gpu_barrier();
}

/** Store y's tile where all its columns exist, in pairs of 16-bit values. */
template <class S>
GPU_DEVICE void gpu_tile_store(const gpu_apply_params &p, int64_t row, int32_t column,
                               const float c[S::FEATURES][S::ROWS][4]) {
    uint16_t *y = static_cast<uint16_t *>(p.y) + row * p.y_stride + column;
    int32_t left = row < p.m ? static_cast<int32_t>(p.m - row) : 0;
#pragma unroll
    for (int f = 0; f < S::FEATURES; f++) {
        float bias[2] = {0, 0};
        if (p.bias != nullptr) {
            bias[0] = gpu_widen(p.bias, column + f * 16, p.y_type);
            bias[1] = gpu_widen(p.bias, column + f * 16 + 1, p.y_type);
        }
#pragma unroll
        for (int i = 0; i < S::ROWS * 2; i++) {
            int r = i / 2 * 8 + i % 2;
            float first = c[f][i / 2][i % 2] + bias[0], second = c[f][i / 2][2 + i % 2] + bias[1];
            uint32_t pair = p.y_type == KRY_TYPE_F16 ? gpu_f16x2_pack(first, second)
                                                     : gpu_bf16x2_pack(first, second);
            if (r < left)
                *reinterpret_cast<uint32_t *>(y + r * p.y_stride + f * 16) = pair;
        }
    }
}

/** Store y's tile one value at a time, by way of shared memory. */
template <class S>
GPU_DEVICE void gpu_tile_store_any(const gpu_apply_params &p, const gpu_block_place &at,
                                   unsigned char *shared, uint32_t row, uint32_t column,
                                   const float c[S::FEATURES][S::ROWS][4]) {
    constexpr uint32_t COLUMNS = S::N_TILES * 16;
    float *sums = reinterpret_cast<float *>(shared);
    gpu_barrier();
#pragma unroll
    for (int i = 0; i < S::FEATURES * S::ROWS * 4; i++)
        sums[(row + i / 4 % S::ROWS * 8 + i % 2) * COLUMNS + column + i / (S::ROWS * 4) * 16 +
             i % 4 / 2] = c[i / (S::ROWS * 4)][i / 4 % S::ROWS][i % 4];
    gpu_barrier();
    gpu_store_tile<COLUMNS>(p, sums, at.row, at.n_tile * 16, S::M);
}

template <class S, bool BF16> GPU_DEVICE void gpu_tile(const gpu_apply_params &p) {
    GPU_SHARED(shared);
    gpu_block_place at = gpu_block_place_of<S::M, S::N_TILES>(p);
    float c[S::FEATURES][S::ROWS][4] = {};
    gpu_tile_pipeline<S, BF16>(p, at, shared, c);
    if (p.splits > 1 && !gpu_join_split<S::FEATURES * S::ROWS * 4>(p, at.output_tile, at.split,
                                                                   shared, &c[0][0][0]))
        return;
    uint32_t lane = gpu_lane(), wave = gpu_wave();
    uint32_t row = wave / S::WAVES_N * S::ROWS * 8 + lane % 4 * 2;
    uint32_t column = wave % S::WAVES_N * S::FEATURES * 16 + lane / 4 * 2;
    bool pairs = p.y_type != KRY_TYPE_F32 && (at.n_tile + S::N_TILES) * 16 <= p.n &&
                 p.y_stride % 2 == 0 && reinterpret_cast<uintptr_t>(p.y) % 4 == 0;
    if (pairs)
        gpu_tile_store<S>(p, at.row + row, at.n_tile * 16 + static_cast<int32_t>(column), c);
    else
        gpu_tile_store_any<S>(p, at, shared, row, column, c);
}

#endif
