/*
 * Which entry, tile and split an apply takes.
 *
 * Every shape of block tile, with every split along K that may pay, is a candidate; the cheapest
 * by a model in clocks wins (cost_of). The model knows no layer by name: what a block tile costs
 * was measured once, alone and on a full multiprocessor.
 */
#include "plan.h"
#include "plan_wide.h"
#include "wide_tile.h"

#include <stdio.h>
#include <string.h>

/** A block tile that gpu.cu has entries for. */
struct block_shape {
    int32_t kernel; /* STREAM, TILE, AMD_TILE, PLAIN */
    int32_t n;      /* output features; stream.h: of waves_n waves */
    int32_t m;      /* rows */
    int32_t threads;
    int32_t groups;   /* stream.h, tile.h: groups that a tile of places may hold */
    int32_t features; /* stream.h: FEATURES, BLOCKS and SPAN */
    int32_t blocks;
    int32_t span;
    int32_t stages; /* stream.h, tile.h: STAGES */
    int32_t waves_n;
    int32_t resident; /* blocks of a multiprocessor that registers allow */
    int32_t busy;     /* clocks of a unit on a full multiprocessor, 4 bits */
    int32_t alone;    /* clocks of a unit for those who wait for nobody but themselves */
};
enum { PLAIN, STREAM, TILE, AMD_TILE };

#define STREAM_WAVES(features_, blocks_, groups_, span_, stages_, resident_, waves_, busy_,        \
                     alone_)                                                                       \
    {                                                                                              \
        .kernel = STREAM, .n = 16 * (features_) * (waves_), .m = 8 * (blocks_), .threads = 256,    \
        .groups = (groups_), .features = (features_), .blocks = (blocks_), .span = (span_),        \
        .stages = (stages_), .waves_n = (waves_), .resident = (resident_), .busy = (busy_),        \
        .alone = (alone_)                                                                          \
    }
#define STREAM(features, blocks, groups, span, stages, resident, busy, alone)                      \
    STREAM_WAVES(features, blocks, groups, span, stages, resident, 1, busy, alone),                \
        STREAM_WAVES(features, blocks, groups, span, stages, resident, 2, busy, alone),            \
        STREAM_WAVES(features, blocks, groups, span, stages, resident, 4, busy, alone)
#define TILE(n_, m_, threads_, groups_, resident_, busy_, alone_)                                  \
    {                                                                                              \
        .kernel = TILE, .n = (n_), .m = (m_), .threads = (threads_), .groups = (groups_),          \
        .stages = 4, .resident = (resident_), .busy = (busy_), .alone = (alone_)                   \
    }

#define AMD(n_, m_, threads_, resident_, busy_, alone_)                                            \
    {                                                                                              \
        .kernel = AMD_TILE, .n = (n_), .m = (m_), .threads = (threads_), .resident = (resident_),  \
        .busy = (busy_), .alone = (alone_)                                                         \
    }

/* The clocks were measured on an H200, see bench/gpu/NOTES.md. A unit is a k tile of 16 features
 * (stream.h) or of the block (tile.h). */
static const struct block_shape shapes[] = {
    STREAM(1, 1, 1, 2, 4, 2, 33, 340),
    STREAM(2, 1, 1, 2, 3, 2, 32, 290),
    STREAM(4, 1, 1, 1, 3, 2, 32, 270),
    STREAM(2, 2, 1, 1, 4, 2, 45, 400),
    STREAM(4, 2, 1, 1, 3, 1, 40, 320),
    STREAM(1, 1, 2, 2, 4, 2, 38, 400),
    STREAM(2, 1, 2, 2, 3, 2, 35, 340),
    STREAM(4, 1, 2, 1, 3, 2, 35, 320),
    STREAM(2, 2, 2, 1, 4, 2, 50, 450),
    STREAM(2, 1, 4, 1, 4, 2, 44, 420),
    STREAM(2, 2, 4, 1, 4, 2, 60, 540),
    TILE(128, 32, 128, 1, 3, 473, 700),
    TILE(128, 64, 128, 1, 2, 760, 980),
    TILE(128, 128, 128, 1, 2, 1380, 1900),
    TILE(256, 128, 256, 1, 1, 2800, 2800),
    TILE(128, 32, 128, 4, 3, 520, 770),
    TILE(128, 128, 128, 4, 2, 1480, 2000),
    AMD(64, 16, 256, 4, 400, 900), /* not measured; in waves of 64 and of 32 */
    AMD(128, 64, 256, 2, 1900, 3000),
    AMD(64, 16, 128, 4, 400, 900),
    AMD(64, 64, 128, 2, 1000, 1600),
    {.kernel = PLAIN, .n = 16, .m = 8, .threads = 256, .resident = 4, .busy = 3000, .alone = 3000},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static const int32_t split_choices[] = {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32};
enum { SPLITS = sizeof split_choices / sizeof *split_choices };

enum {
    ARRANGE_BLOCKS = 264,   /* that gather x, or a row each */
    SPLIT_ROWS_MAX = 512,   /* more rows are never split along K */
    SPLIT_BLOCKS_MAX = 2048 /* nor are more blocks, so that the zeroed part is small */
};

/** Partial sums take at most this. */
#define PARTIALS_MAX (UINT64_C(24) << 20)

/** A candidate before it is a plan. */
struct candidate {
    const struct block_shape *shape;
    int32_t threads;
    int32_t splits;
    int32_t split_tiles;
    int32_t m_blocks;
    int32_t n_blocks;
    uint64_t partials; /* bytes */
    double cost;
};

static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
static double larger(double a, double b) { return a > b ? a : b; }

/** Tiles of places that a block takes at a time. */
static int32_t tiles_at_once(const struct block_shape *s, int32_t threads) {
    return s->kernel == STREAM ? threads / 32 / s->waves_n * s->span : 1;
}

static uint32_t family_of(const kry_device *device) {
    uint32_t arch = device->arch_number;
    if (strcmp(device->platform, "cuda") == 0)
        return arch == 90 ? GPU_FAMILY_WGMMA : arch < 80 ? GPU_FAMILY_MMA_F16 : GPU_FAMILY_MMA;
    if (arch == 0x90a || arch == 0x942 || arch == 0x950)
        return GPU_FAMILY_MFMA;
    return arch >> 8 == 0x11 || arch >> 8 == 0x12 ? GPU_FAMILY_WMMA : GPU_FAMILY_PLAIN;
}

struct gpu_facts gpu_facts_of(const kry_device *device) {
    struct gpu_facts facts = {
        .family = family_of(device),
        .arch = device->arch_number,
        .multiprocessors = device->multiprocessors,
        .shared_bytes = device->shared_memory_bytes,
    };
    return facts;
}

/** The largest of 16, 8, 4 and 2 that divides a number of bytes, or 2. */
static uint32_t unit_of(uint64_t bytes) {
    return bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : bytes % 4 == 0 ? 4 : 2;
}

uint32_t gpu_x_unit(const void *x, int64_t x_stride, int64_t m) {
    uint64_t bits = (uint64_t)(uintptr_t)x | (m > 1 ? (uint64_t)x_stride * 2 : 0);
    return unit_of(bits);
}

struct gpu_call gpu_call_of(const void *x, int64_t x_stride, int64_t m) {
    struct gpu_call call = {.m = m, .x_unit = gpu_x_unit(x, x_stride, m)};
    call.x_late = call.x_unit == 8 && (m == 1 || x_stride % 8 == 4);
    return call;
}

/** Groups that a tile of places may hold, each of as many blocks: 1, 2 or (any number, or
 *  act-order) 4. */
static int32_t groups_of_tile(const struct gpu_layout *layout) {
    if (layout->act_order)
        return 4;
    int64_t both = layout->group_blocks | layout->first_blocks; /* a multiple of what both are */
    return layout->groups == 1 || both % 4 == 0 ? 1 : both % 2 == 0 ? 2 : 4;
}

static uint32_t shape_shared_bytes(const struct block_shape *s, int32_t threads, int32_t bits) {
    if (s->kernel == PLAIN)
        return (uint32_t)(threads * s->m * 4);
    int32_t sums = s->n * s->m * 4; /* y's tile, where it is not stored directly */
    if (s->kernel == AMD_TILE)
        return (uint32_t)(2 * s->m * GPU_AMD_PITCH > sums ? 2 * s->m * GPU_AMD_PITCH : sums);
    int32_t n_tiles = s->kernel == STREAM ? s->features : s->n / 16; /* of a ring or the block */
    int32_t stage = s->m * 128 + n_tiles * (128 * bits + s->groups * 48);
    if (s->kernel == STREAM) {
        stage *= threads / 32 * s->span;
        sums = threads * s->features * s->blocks * 16 + 16;
    }
    return (uint32_t)(s->stages * stage > sums ? s->stages * stage : sums);
}

/**
 * Threads of a block whose shared memory fits, or 0: the waves of stream.h bring a ring each, so
 * fewer waves need less.
 */
static int32_t threads_that_fit(const struct gpu_facts *facts, const struct block_shape *s,
                                int32_t bits) {
    uint32_t most = facts->shared_bytes != 0 ? facts->shared_bytes : 49152;
    int32_t threads = s->threads;
    while (shape_shared_bytes(s, threads, bits) > most) {
        if (s->kernel != STREAM || threads == 32 * s->waves_n)
            return 0;
        threads /= 2;
    }
    return threads;
}

/**
 * Whether weights must not be rounded to 16 bits after their scale: y would show it where its type
 * is finer than x's, or where so few products are summed that the roundings do not average out.
 */
static bool needs_exact_weights(const kry_linear *linear) {
    return linear->y_type == KRY_TYPE_F32 ||
           (linear->x_type == KRY_TYPE_BF16 && linear->y_type == KRY_TYPE_F16) ||
           linear->in_features < 64;
}

/** Bytes of partial sums that a call of m rows may use: never less for a larger m. */
static uint64_t partials_bound(const struct gpu_layout *layout, int64_t m) {
    int64_t rows = minimum(m, SPLIT_ROWS_MAX);
    rows = rows <= 64 ? 64 : gpu_ceil_div(rows, 128) * 128;
    int64_t bytes = gpu_ceil_div(layout->out_features, 256) * 256 * rows * 16;
    return (uint64_t)minimum(bytes, (int64_t)PARTIALS_MAX);
}

/** Rows of a run whose x is put in order first; its bytes are half of the workspace at most. */
static int64_t arranged_rows(const struct gpu_layout *layout, int64_t m) {
    int64_t most = (int64_t)(GPU_WORKSPACE_MAX / 2) / (layout->k_tiles * GPU_TILE_K * 2);
    return minimum(m, most >= 128 ? most / 128 * 128 : most > 1 ? most : 1);
}

static uint64_t arranged_bytes(const struct gpu_layout *layout, int64_t rows) {
    return ((uint64_t)rows * (uint64_t)layout->k_tiles * GPU_TILE_K * 2 + 255) / 256 * 256;
}

/**
 * The clocks of a candidate: a start, something for each block that a multiprocessor works off, and
 * their k tiles, of which as many are under way at once as registers allow.
 */
static double cost_of(const struct gpu_facts *facts, const struct candidate *c, int32_t bits) {
    const struct block_shape *s = c->shape;
    int64_t multiprocessors = facts->multiprocessors != 0 ? facts->multiprocessors : 108;
    int64_t blocks = (int64_t)c->m_blocks * c->n_blocks * c->splits;
    double blocks_each = (double)gpu_ceil_div(blocks, multiprocessors);
    double rounds = (double)gpu_ceil_div((int64_t)blocks_each, s->resident);
    bool stream = s->kernel == STREAM;
    double slower = bits == 4 ? 1 : stream ? 1.6 : 1.1;
    double units = c->split_tiles, mine = c->split_tiles;
    if (stream) {
        int32_t feature_tiles = s->n / 16;
        units *= feature_tiles;
        mine = (double)(gpu_ceil_div(c->split_tiles, tiles_at_once(s, c->threads)) * s->span *
                        s->features);
    }
    if (stream && c->m_blocks > 2)
        slower *= 1.5; /* blocks that read the same weights again drift apart */
    double work = larger(blocks_each * units * s->busy, rounds * mine * s->alone) * slower;
    double fixed = stream ? 3000 + blocks_each * 1750 : 3500 + blocks_each * 1500;
    if (c->splits > 1)
        fixed += (stream ? 5000 : 3000) + 0.06 * s->n * s->m * c->splits;
    return work + fixed;
}

/** Whether the device has the kernel for the description. tile.h knows only 1 and 4 groups. */
static bool kernel_takes(const struct gpu_facts *facts, const kry_linear *linear,
                         const struct gpu_layout *layout, const struct block_shape *s) {
    bool exact = needs_exact_weights(linear);
    int32_t lanes = facts->family == GPU_FAMILY_MFMA   ? 64
                    : facts->family == GPU_FAMILY_WMMA ? 32
                                                       : 0;
    bool amd = lanes != 0 && !exact;
    bool mma = facts->family == GPU_FAMILY_MMA || facts->family == GPU_FAMILY_WGMMA ||
               (facts->family == GPU_FAMILY_MMA_F16 && linear->x_type == KRY_TYPE_F16);
    int32_t groups = groups_of_tile(layout);
    switch (s->kernel) {
    case STREAM:
        return mma && s->groups == groups;
    case TILE:
        return mma && !exact && s->groups == (groups == 1 ? 1 : 4);
    case AMD_TILE:
        return amd && s->threads == GPU_AMD_WAVES * lanes;
    default:
        return !mma && !amd;
    }
}

/** Fill candidate `index` for a run of `rows` rows; false where it does not fit. */
static bool candidate_of(const struct gpu_facts *facts, const kry_linear *linear,
                         const struct gpu_layout *layout, int64_t rows, int32_t index,
                         struct candidate *c) {
    const struct block_shape *s = &shapes[index / SPLITS];
    int32_t splits = split_choices[index % SPLITS];
    c->shape = s;
    if (!kernel_takes(facts, linear, layout, s))
        return false;
    c->threads = threads_that_fit(facts, s, layout->bits);
    if (c->threads == 0)
        return false;
    c->m_blocks = (int32_t)gpu_ceil_div(rows, s->m);
    c->n_blocks = (int32_t)gpu_ceil_div(layout->out_features, s->n);
    c->split_tiles = (int32_t)gpu_ceil_div(layout->k_tiles, splits);
    c->splits = (int32_t)gpu_ceil_div(layout->k_tiles, c->split_tiles);
    int64_t blocks = (int64_t)c->m_blocks * c->n_blocks * splits;
    c->partials = splits > 1 ? (uint64_t)blocks * (uint64_t)(s->n * s->m) * 4 : 0;
    if (splits > 1) {
        int32_t least = s->kernel == STREAM ? tiles_at_once(s, c->threads) : 4;
        if (c->splits != splits || c->split_tiles < least || s->kernel == PLAIN ||
            rows > SPLIT_ROWS_MAX || blocks > SPLIT_BLOCKS_MAX ||
            c->partials > partials_bound(layout, rows))
            return false;
    }
    c->cost = cost_of(facts, c, layout->bits);
    return true;
}

/** The cost of a candidate, below 0 where it does not fit. */
static double cost_at(const struct gpu_facts *facts, const kry_linear *linear,
                      const struct gpu_layout *layout, int64_t rows, int32_t index) {
    struct candidate c;
    return candidate_of(facts, linear, layout, rows, index, &c) ? c.cost : -1;
}

/** Blocks of 256 threads, a thread each or several times. */
static struct gpu_launch launch_for(const char *entry, int64_t threads) {
    struct gpu_launch launch = {.block = 256};
    int64_t grid = gpu_ceil_div(threads, 256);
    launch.grid = (uint32_t)(grid < 1 ? 1 : minimum(grid, 65535));
    snprintf(launch.entry, sizeof launch.entry, "%s", entry);
    return launch;
}

/** Blocks of 256 threads, of so many units of work and bytes of shared memory. */
static struct gpu_launch launch_of_units(const char *entry, int64_t units, uint32_t shared_bytes) {
    struct gpu_launch launch = launch_for(entry, 0);
    launch.grid = (uint32_t)(units < 1 ? 1 : minimum(units, 65535));
    launch.shared_bytes = shared_bytes;
    return launch;
}

/** The names of what a plan launches, and why. */
static void plan_words(const kry_linear *linear, const struct gpu_layout *layout,
                       const struct candidate *c, struct gpu_plan *out) {
    const struct block_shape *s = c->shape;
    const char *codes = layout->bits == 4 ? "u4" : "u8";
    const char *type = linear->x_type == KRY_TYPE_F16 ? "f16" : "bf16";
    const char *how = "weights streamed to registers";
    size_t size = sizeof out->main.entry;
    if (s->kernel == PLAIN) {
        snprintf(out->main.entry, size, "gpu_plain_%s_%s", codes, type);
        how = "plain arithmetic";
    } else if (s->kernel == STREAM) {
        snprintf(out->main.entry, size, "gpu_stream_%s_%s_%dx%dg%d", codes, type, s->features,
                 s->blocks, s->groups);
    } else if (s->kernel == AMD_TILE) {
        snprintf(out->main.entry, size, "gpu_tile_%s_%s_%dx%d", codes, type, s->n, s->m);
        how = "weights to registers, x through shared memory";
    } else {
        snprintf(out->main.entry, size, "gpu_tile_%s_%s_%dx%dg%d", codes, type, s->n, s->m,
                 s->groups);
        how = "pipeline through shared memory";
    }
    snprintf(out->why, sizeof out->why, "%s: tiles of %d features x %d rows, K in %d, %u blocks%s",
             how, s->n, s->m, c->splits, out->main.grid, out->arranged ? ", x put in order" : "");
}

/** Shared memory of a row of x from which columns are gathered; 0: there is not enough, or none
 *  is needed. */
static uint32_t arrange_shared_bytes(const struct gpu_layout *layout) {
    int64_t bytes = (layout->in_features * 2 + 15) / 16 * 16;
    return layout->gathered && bytes <= 49152 ? (uint32_t)bytes : 0;
}

/** Put x in order first, at the begin of the workspace, where it must be. */
static void arrange_rows(const struct gpu_layout *layout, bool arranged, struct gpu_plan *out) {
    out->arranged = arranged;
    if (!arranged)
        return;
    int64_t parts = gpu_ceil_div(layout->k_tiles * GPU_TILE_K / 8, 256); /* a chunk a thread */
    /* Or GPU_ARRANGE_ROWS at a time, which the device sees by the grid. */
    int64_t rows = out->rows;
    if (layout->gathered)
        parts = minimum(parts, gpu_ceil_div(ARRANGE_BLOCKS, rows));
    else if (rows > ARRANGE_BLOCKS)
        rows = gpu_ceil_div(rows, GPU_ARRANGE_ROWS);
    out->scratch_bytes = arranged_bytes(layout, out->rows);
    out->arrange = launch_of_units("gpu_arrange", minimum(rows, 65535 / parts) * parts,
                                   arrange_shared_bytes(layout));
    out->arrange_parts = (int32_t)parts;
    out->arrange.early = out->main.early;
}

static void plan_of_candidate(const kry_linear *linear, const struct gpu_layout *layout,
                              const struct candidate *c, int64_t rows, bool arranged,
                              struct gpu_plan *out) {
    memset(out, 0, sizeof *out);
    out->rows = rows;
    out->tile_m = c->shape->m;
    out->tile_n = c->shape->n;
    out->m_blocks = c->m_blocks;
    out->n_blocks = c->n_blocks;
    out->splits = c->splits;
    out->waves_n = c->shape->waves_n;
    out->split_tiles = c->split_tiles;
    uint32_t tiles = (uint32_t)c->m_blocks * (uint32_t)c->n_blocks;
    out->main.grid = tiles * (uint32_t)c->splits;
    out->main.block = (uint32_t)c->threads;
    out->main.shared_bytes = shape_shared_bytes(c->shape, c->threads, layout->bits);
    arrange_rows(layout, arranged, out);
    out->partials_at = out->scratch_bytes;
    out->scratch_bytes = out->partials_at + c->partials;
    out->zeroed_bytes = c->splits > 1 ? (uint64_t)tiles * 4 : 0;
    plan_words(linear, layout, c, out);
}

static bool is_wide(const struct gpu_facts *facts, const kry_linear *linear) {
    return facts->family == GPU_FAMILY_WGMMA && !needs_exact_weights(linear);
}

/** Rows of a call's runs, and whether x is put in order first. */
static int64_t run_of(const struct gpu_layout *layout, const struct gpu_call *call,
                      bool *arranged) {
    *arranged = layout->gathered || layout->front % 8 != 0 || call->x_unit < 16;
    int64_t rows = minimum(call->m, INT64_C(1) << 16);
    return *arranged ? arranged_rows(layout, rows) : rows;
}

static enum gpu_x_lies lies_of(const struct gpu_layout *layout, const struct gpu_call *call,
                               bool arranged) {
    if (!arranged)
        return GPU_X_LIES_WELL;
    return call->x_late && !layout->gathered && layout->front == 0 ? GPU_X_LATE : GPU_X_LIES_BADLY;
}

int32_t gpu_plan_candidates(const struct gpu_facts *facts, const kry_linear *linear) {
    return is_wide(facts, linear) ? gpu_wide_candidates() : SHAPES * SPLITS;
}

bool gpu_plan_candidate(const struct gpu_facts *facts, const kry_linear *linear,
                        const struct gpu_layout *layout, const struct gpu_call *call, int32_t index,
                        struct gpu_plan *out, double *cost) {
    bool arranged;
    int64_t rows = run_of(layout, call, &arranged);
    if (is_wide(facts, linear)) {
        enum gpu_x_lies lies = lies_of(layout, call, arranged);
        if (!gpu_wide_plan(facts, linear, layout, rows, lies, index, out, cost))
            return false;
        arrange_rows(layout, arranged && !out->x_late, out);
    } else {
        struct candidate c;
        if (!candidate_of(facts, linear, layout, rows, index, &c))
            return false;
        plan_of_candidate(linear, layout, &c, rows, arranged, out);
        *cost = c.cost;
    }
    out->candidate = index;
    return true;
}

void gpu_plan_of(const struct gpu_facts *facts, const kry_linear *linear,
                 const struct gpu_layout *layout, const struct gpu_call *call,
                 struct gpu_plan *out) {
    bool arranged, wide = is_wide(facts, linear);
    int64_t rows = run_of(layout, call, &arranged);
    int32_t best = 0, count = gpu_plan_candidates(facts, linear);
    enum gpu_x_lies lies = lies_of(layout, call, arranged);
    double least = -1, cost;
    for (int32_t i = 0; i < count; i++) {
        cost = wide ? gpu_wide_cost(facts, layout, rows, lies, i)
                    : cost_at(facts, linear, layout, rows, i);
        if (cost >= 0 && (least < 0 || cost < least)) {
            least = cost;
            best = i;
        }
    }
    gpu_plan_candidate(facts, linear, layout, call, best, out, &cost);
}

void gpu_plan_workspace(const struct gpu_facts *facts, const kry_linear *linear,
                        const struct gpu_layout *layout, int64_t m, kry_workspace *out) {
    bool splits = facts->family != GPU_FAMILY_PLAIN && !is_wide(facts, linear);
    uint64_t partials = splits ? partials_bound(layout, m) : 0;
    out->scratch_bytes = arranged_bytes(layout, arranged_rows(layout, m)) + partials;
    out->zeroed_bytes = splits ? SPLIT_BLOCKS_MAX * 4 : 0;
}

/** value / by for values and divisors whose product is below 2^32, see gpu_divide. */
static struct gpu_divider divider_of(int64_t by) {
    struct gpu_divider one = {.magic = 0, .mask = UINT32_MAX};
    struct gpu_divider other = {.magic = (uint32_t)(UINT64_C(0xffffffff) / (uint64_t)by + 1)};
    return by == 1 ? one : other;
}

struct gpu_apply_params gpu_plan_params(const struct gpu_plan *plan, const kry_linear *linear,
                                        const struct gpu_layout *layout,
                                        const struct gpu_run *run) {
    const unsigned char *prepared = run->prepared;
    unsigned char *scratch = run->scratch;
    bool one_group = layout->groups == 1;
    const void *block_group = prepared + layout->block_group_at;
    const void *header = prepared + layout->header_at;
    void *partials = scratch + plan->partials_at;
    struct gpu_apply_params p = {
        .x = plan->arranged ? (const void *)(scratch + plan->arranged_at) : run->x,
        .y = run->y,
        .bias = run->bias,
        .codes = prepared + layout->codes_at,
        .scales = prepared + layout->scales_at,
        .zeros = layout->has_zeros ? prepared + layout->zeros_at : NULL,
        .block_group = layout->act_order ? block_group : NULL,
        .header = layout->act_order ? header : NULL,
        .partials = plan->splits > 1 && plan->box_rows == 0 ? partials : NULL,
        .semaphores = run->zeroed,
        .x_stride = plan->arranged ? layout->k_tiles * GPU_TILE_K : run->x_stride,
        .y_stride = run->y_stride,
        .m = (int32_t)run->m,
        .n = (int32_t)layout->out_features,
        .k = (int32_t)(plan->arranged ? layout->k_tiles * GPU_TILE_K : layout->in_features),
        .front = plan->arranged ? 0 : layout->front,
        .n_tiles = (int32_t)layout->n_panels * GPU_PANEL_TILES,
        .k_tiles = (int32_t)layout->k_tiles,
        .groups = (int32_t)layout->groups,
        .splits = plan->splits,
        .split_tiles = plan->split_tiles,
        .m_blocks = plan->m_blocks,
        .n_blocks = plan->n_blocks,
        .first_offset = (uint32_t)(layout->group_blocks - layout->first_blocks),
        .divider = one_group ? (struct gpu_divider){0} : divider_of(layout->group_blocks),
        .y_type = linear->y_type,
        .waves_n = plan->waves_n,
        .slots = plan->slots,
        .late = !plan->x_late                 ? 0
                : (uintptr_t)run->x % 16 == 0 ? 2
                                              : 1,
    };
    return p;
}

int32_t gpu_plan_maps(const struct gpu_plan *plan, const struct gpu_apply_params *params,
                      struct gpu_rows out[GPU_MAPS]) {
    const uint16_t *x = params->x;
    int64_t stride = params->x_stride, m = params->m;
    struct gpu_rows all = {x, params->k, m, stride, GPU_TILE_K, plan->box_rows};
    out[GPU_MAP_ROWS] = all;
    if (params->late == 0)
        return 1;
    for (int32_t half = 0; half < 2; half++) {
        int32_t before = params->late == half + 1 ? 4 : 0;
        struct gpu_rows rows = {x + half * stride - before,
                                params->k + before,
                                (m - half + 1) / 2,
                                stride * 2,
                                GPU_TILE_K,
                                plan->box_rows / 2};
        out[half] = half < m ? rows : out[0]; /* a half without rows reads what is there */
    }
    out[GPU_MAP_TAIL] = out[params->late - 1];
    out[GPU_MAP_TAIL].box_columns = 8;
    return GPU_MAPS;
}

struct gpu_arrange_params gpu_plan_arrange(const struct gpu_plan *plan,
                                           const struct gpu_layout *layout,
                                           const struct gpu_run *run) {
    const unsigned char *prepared = run->prepared;
    unsigned char *scratch = run->scratch;
    const void *source = prepared + layout->source_at;
    void *to = scratch + plan->arranged_at;
    struct gpu_arrange_params p = {
        .x = run->x,
        .to = to,
        .source = layout->gathered ? source : NULL,
        .x_stride = run->x_stride,
        .m = run->m,
        .k = (int32_t)layout->in_features,
        .front = layout->front,
        .places = (int32_t)(layout->k_tiles * GPU_TILE_K),
        .parts = plan->arrange_parts,
        .unit = (int32_t)unit_of(gpu_x_unit(run->x, run->x_stride, run->m) |
                                 (uint64_t)layout->front * 2),
        .in_shared = plan->arrange.shared_bytes > 0,
    };
    return p;
}

#define STREAMS(kind)                                                                              \
    "gpu_stream_" kind "_1x1g1", "gpu_stream_" kind "_2x1g1", "gpu_stream_" kind "_4x1g1",         \
        "gpu_stream_" kind "_2x2g1", "gpu_stream_" kind "_4x2g1", "gpu_stream_" kind "_1x1g2",     \
        "gpu_stream_" kind "_2x1g2", "gpu_stream_" kind "_4x1g2", "gpu_stream_" kind "_2x2g2",     \
        "gpu_stream_" kind "_2x1g4", "gpu_stream_" kind "_2x2g4"
#define TILES(kind)                                                                                \
    "gpu_tile_" kind "_128x32g1", "gpu_tile_" kind "_128x64g1", "gpu_tile_" kind "_128x128g1",     \
        "gpu_tile_" kind "_256x128g1", "gpu_tile_" kind "_128x32g4", "gpu_tile_" kind "_128x128g4"
#define WIDE(n, m, warpgroups, panels, turns, chunk, resident, kind)                               \
    "gpu_wide_" kind "_" #n "x" #m, "gpu_wide_" kind "_" #n "x" #m "g",
#define LATE(n, m, warpgroups, panels, turns, chunk, resident, kind) "gpu_late_" kind "_" #n "x" #m,
#define MATRIX(kind) STREAMS(kind), TILES(kind)
#define AMD_TILES(kind, large) "gpu_tile_" kind "_64x16", "gpu_tile_" kind "_" large
#define AMD_ENTRIES(large)                                                                         \
    PREPARATION, AMD_TILES("u4_f16", large), AMD_TILES("u8_f16", large),                           \
        AMD_TILES("u4_bf16", large), AMD_TILES("u8_bf16", large), PLAINS("f16"), PLAINS("bf16")
#define PLAINS(type) "gpu_plain_u4_" type, "gpu_plain_u8_" type
#define PREPARATION                                                                                \
    "gpu_arrange", "gpu_sort", "gpu_fill_source", "gpu_repack_codes", "gpu_repack_scales",         \
        "gpu_canonicalise_codes", "gpu_canonicalise_scales", "gpu_canonicalise_zeros"

const char *const *gpu_entry_names(uint32_t family, size_t *count) {
    static const char *const plain[] = {PREPARATION, PLAINS("f16"), PLAINS("bf16")};
    static const char *const mma_f16[] = {PREPARATION, MATRIX("u4_f16"), MATRIX("u8_f16"),
                                          PLAINS("bf16")};
    static const char *const mma[] = {PREPARATION, MATRIX("u4_f16"), MATRIX("u8_f16"),
                                      MATRIX("u4_bf16"), MATRIX("u8_bf16")};
    static const char *const wgmma[] = {
        GPU_WIDE_TILES(WIDE, "u4_f16") GPU_WIDE_TILES(WIDE, "u8_f16")
            GPU_WIDE_TILES(WIDE, "u4_bf16") GPU_WIDE_TILES(WIDE, "u8_bf16")
                GPU_LATE_TILES(LATE, "u4_f16") GPU_LATE_TILES(LATE, "u8_f16")
                    GPU_LATE_TILES(LATE, "u4_bf16") GPU_LATE_TILES(LATE, "u8_bf16") PREPARATION,
        STREAMS("u4_f16"), STREAMS("u8_f16"), STREAMS("u4_bf16"), STREAMS("u8_bf16")};
    static const char *const mfma[] = {AMD_ENTRIES("128x64")};
    static const char *const wmma[] = {AMD_ENTRIES("64x64")};
    static const struct {
        const char *const *names;
        size_t count;
    } families[] = {
        [GPU_FAMILY_PLAIN] = {plain, sizeof plain / sizeof *plain},
        [GPU_FAMILY_MMA] = {mma, sizeof mma / sizeof *mma},
        [GPU_FAMILY_WGMMA] = {wgmma, sizeof wgmma / sizeof *wgmma},
        [GPU_FAMILY_MMA_F16] = {mma_f16, sizeof mma_f16 / sizeof *mma_f16},
        [GPU_FAMILY_MFMA] = {mfma, sizeof mfma / sizeof *mfma},
        [GPU_FAMILY_WMMA] = {wmma, sizeof wmma / sizeof *wmma},
    };
    *count = families[family].count;
    return families[family].names;
}

/* ---- preparation --------------------------------------------------------------------------- */

struct gpu_launch gpu_launch_sort(const struct gpu_layout *layout) {
    (void)layout;
    struct gpu_launch launch = {.entry = "gpu_sort", .grid = 1, .block = 1024};
    return launch;
}

struct gpu_launch gpu_launch_fill_source(const struct gpu_layout *layout) {
    return launch_for("gpu_fill_source", layout->k_tiles * GPU_TILE_K);
}

/** Copies by transpose.h of rows x columns in tiles of tile_rows x tile_columns. */
static struct gpu_launch launch_transpose(const char *entry, int64_t rows, int64_t columns,
                                          int64_t tile_rows, int64_t tile_columns) {
    return launch_of_units(entry,
                           gpu_ceil_div(rows, tile_rows) * gpu_ceil_div(columns, tile_columns),
                           (uint32_t)(tile_rows * (tile_columns + 1) * 4));
}

struct gpu_launch gpu_launch_repack_codes(const struct gpu_layout *layout, int64_t rows) {
    int64_t tiles = GPU_REPACK_WORDS * (32 / layout->bits) / GPU_TILE_K; /* at a time */
    return launch_of_units("gpu_repack_codes",
                           gpu_ceil_div(rows, GPU_PANEL_N) * gpu_ceil_div(layout->k_tiles, tiles),
                           GPU_PANEL_N * GPU_REPACK_PITCH * 4);
}

struct gpu_launch gpu_launch_repack_scales(const struct gpu_layout *layout, int64_t rows) {
    return launch_transpose("gpu_repack_scales", rows, layout->groups, GPU_TRANSPOSE_ROWS,
                            GPU_TRANSPOSE_GROUPS);
}

struct gpu_launch gpu_launch_canonicalise_codes(int64_t rows, int64_t words) {
    return launch_transpose("gpu_canonicalise_codes", rows, words, GPU_TRANSPOSE_CODE_ROWS,
                            GPU_TRANSPOSE_CODE_WORDS);
}

struct gpu_launch gpu_launch_canonicalise_scales(int64_t rows, int64_t groups) {
    return launch_transpose("gpu_canonicalise_scales", rows, groups, GPU_TRANSPOSE_ROWS,
                            GPU_TRANSPOSE_GROUPS);
}

struct gpu_launch gpu_launch_canonicalise_zeros(int64_t rows, int64_t groups) {
    return launch_transpose("gpu_canonicalise_zeros", rows, groups, GPU_TRANSPOSE_ROWS,
                            GPU_TRANSPOSE_GROUPS);
}

uint64_t gpu_prepare_scratch_bytes(const struct gpu_layout *layout) {
    return layout->gathered ? layout->scales_at + (uint64_t)layout->groups * 4 : 0;
}
