/*
 * Which tile and cluster an apply takes on Hopper, see device/wide.h. As in plan.c the cheapest by
 * a model in nanoseconds wins, and no layer is known by name.
 */
#include "plan_wide.h"
#include "wide_tile.h"

#include <stdio.h>
#include <string.h>

/** A block tile, see wide_tile.h. */
struct wide_tile {
    int32_t n;
    int32_t m;
    int32_t warpgroups; /* that multiply */
    int32_t turns;
    int32_t chunk;
    int32_t resident; /* blocks of a multiprocessor */
};
#define TILE(n_, m_, warpgroups_, panels, turns_, chunk_, resident_, none)                         \
    {.n = (n_),                                                                                    \
     .m = (m_),                                                                                    \
     .warpgroups = (warpgroups_),                                                                  \
     .turns = (turns_),                                                                            \
     .chunk = (chunk_),                                                                            \
     .resident = (resident_)},
static const struct wide_tile tiles[] = {GPU_WIDE_TILES(TILE, )};
enum { TILES = sizeof tiles / sizeof *tiles };

static bool is_late_tile(const struct wide_tile *t) {
#define SAME(n_, m_, warpgroups_, panels, turns_, chunk_, resident_, ...)                          \
    (t->n == (n_) && t->m == (m_) && t->warpgroups == (warpgroups_) && t->turns == (turns_) &&     \
     t->chunk == (chunk_) && t->resident == (resident_)) ||
    return GPU_LATE_TILES(SAME, ) false;
}

static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

/** Groups of the places of a stage where each stage has as many; else 0. */
static int32_t slots_of(const struct gpu_layout *layout) {
    int64_t blocks = GPU_WIDE_BLOCKS;
    if (layout->act_order)
        return 0;
    if (layout->groups == 1)
        return 1;
    if (layout->first_blocks % minimum(layout->group_blocks, blocks) != 0)
        return 0;
    return layout->group_blocks % blocks == 0   ? 1
           : blocks % layout->group_blocks == 0 ? (int32_t)(blocks / layout->group_blocks)
                                                : 0;
}

/** Whether the groups of a tile of places are many, or follow no pattern: entries with a g. */
static bool has_any_groups(const struct gpu_layout *layout) {
    int32_t slots = slots_of(layout);
    return slots != 1 && slots != 2;
}

static uint32_t shared_bytes_of(const struct wide_tile *t, int32_t bits, bool any) {
    int32_t stage = gpu_wide_stage_bytes(t->n, t->m, bits, any);
    int32_t sums = gpu_wide_sum_bytes(t->warpgroups, t->turns, t->chunk);
    int32_t stages = gpu_wide_stages(stage, sums, t->turns, t->resident);
    return (uint32_t)gpu_wide_shared_bytes(stage, sums, stages);
}

/** Clusters of so many blocks that run at the same time: their blocks share one of the parts of 16
 *  multiprocessors or more that a device is made of. */
static int64_t clusters_at_once(const struct gpu_facts *facts, int32_t cluster, int32_t resident) {
    int64_t multiprocessors = facts->multiprocessors != 0 ? facts->multiprocessors : 132;
    if (facts->clusters[resident - 1][cluster - 1] != 0)
        return facts->clusters[resident - 1][cluster - 1];
    if (cluster <= 2)
        return multiprocessors * resident / cluster;
    return multiprocessors * 9 / 160 * (16 * resident / cluster);
}

struct wide_candidate {
    const struct wide_tile *tile;
    int32_t cluster;
    int32_t m_blocks;
    int32_t n_blocks;
    int64_t clusters;
    bool x_late;
    double cost;
};

/** Nanoseconds of each tile on an H200, fitted to what candidates of many calls took, see
 *  bench/gpu/NOTES.md. Where blocks share a multiprocessor a stage takes so many times as long. */
struct wide_cost {
    int32_t begin;     /* of an output tile: its begin and end */
    int32_t stage;     /* of 4 bits */
    double crowded;    /* a stage, where blocks share a multiprocessor, over one alone */
    int32_t any_stage; /* the same of the entry for any groups */
    double any_crowded;
    double bits8; /* a stage of 8 bits over one of 4 */
};
static const struct wide_cost costs[] = {
    {0, 232, 1.38, 241, 1.41, 1.16},    {89, 456, 1.04, 386, 1.54, 1.3},
    {380, 811, 1.1, 908, 1.0, 1.32},    {180, 250, 1.38, 301, 1.24, 1.18},
    {231, 445, 1.15, 577, 1.0, 1.4},    {117, 356, 1.1, 321, 1.19, 1.35},
    {2428, 565, 1.26, 399, 1.3, 1.1},   {87, 477, 1.0, 294, 1.66, 1.1},
    {89, 401, 1.0, 422, 1.0, 1.2},      {2799, 736, 1.17, 553, 1.6, 1.5},
    {1812, 646, 1.0, 630, 1.0, 1.06},   {752, 839, 1.0, 967, 1.0, 1.08},
    {12870, 1026, 1.0, 958, 1.0, 1.08}, {4685, 1013, 1.0, 984, 1.0, 1.4},
};
_Static_assert(sizeof costs / sizeof *costs == TILES, "one for each tile");

enum { LAUNCH_NS = 200 };

/** What sharing an output tile among so many blocks costs. */
static double join_ns(int32_t cluster, int32_t m) {
    static const int32_t few_rows[GPU_CLUSTER_MAX] = {0, 199, 499, 494, 654, 447, 1202, 429};
    return few_rows[cluster - 1] * (1 + 2.11 * m / 64);
}

/** What the grids that follow lose where this one leaves them less than two thirds of the places
 * for blocks, so that they start later. */
static double crowd_ns(const struct wide_candidate *c, int64_t multiprocessors) {
    double taken =
        (double)(c->clusters * c->cluster) / (double)(multiprocessors * c->tile->resident);
    return taken > 0.334 ? 3348 * (taken - 0.334) : 0;
}

/** What a stage takes the wave that copies where groups follow no pattern: scales come block by
 * block of places. */
static double table_ns(const struct wide_tile *t) { return 230 * (1 + t->n / GPU_PANEL_N); }

/** Nanoseconds by which a stage takes longer whose late rows are moved. */
static double late_ns(const struct wide_tile *t) { return 60 + 6 * t->m; }

/** Beginnings and ends, and the longer of what its stages take and of reading the weights. */
static double cost_of(const struct gpu_facts *facts, const struct gpu_layout *layout,
                      const struct wide_candidate *c) {
    const struct wide_tile *t = c->tile;
    const struct wide_cost *cost = &costs[t - tiles];
    double rounds = (double)gpu_ceil_div((int64_t)c->m_blocks * c->n_blocks, c->clusters);
    double stages =
        (double)gpu_ceil_div(gpu_ceil_div(layout->k_tiles, GPU_WIDE_TILES_K), c->cluster);
    int64_t multiprocessors = facts->multiprocessors != 0 ? facts->multiprocessors : 132;
    bool crowded = t->resident > 1 && c->clusters * c->cluster > multiprocessors;
    bool any = has_any_groups(layout);
    double stage = (any ? cost->any_stage : cost->stage) * (layout->bits == 4 ? 1 : cost->bits8);
    if (crowded)
        stage *= any ? cost->any_crowded : cost->crowded;
    if (slots_of(layout) == 0 && stage < table_ns(t))
        stage = table_ns(t);
    if (c->x_late)
        stage += late_ns(t);
    double work = rounds * stages * stage;
    double read = 1173 + (double)(layout->bytes - layout->scales_at) / 3750;
    return LAUNCH_NS + crowd_ns(c, multiprocessors) +
           rounds * (cost->begin + join_ns(c->cluster, t->m)) + (work > read ? work : read);
}

/** What x costs that is put in order first: a launch, and a copy of it. */
static double arrange_ns(const struct gpu_layout *layout, int64_t rows) {
    return 1600 + (double)(rows * layout->k_tiles) * GPU_TILE_K * 2 / 2800;
}

static bool candidate_of(const struct gpu_facts *facts, const struct gpu_layout *layout,
                         int64_t rows, enum gpu_x_lies lies, int32_t index,
                         struct wide_candidate *c) {
    const struct wide_tile *t = &tiles[index / GPU_CLUSTER_MAX];
    c->tile = t;
    c->cluster = index % GPU_CLUSTER_MAX + 1;
    if ((t->m > 8 && t->m >= 2 * rows) || (t->m < 64 && t->m * 4 < rows) ||
        shared_bytes_of(t, layout->bits, has_any_groups(layout)) > facts->shared_bytes)
        return false;
    c->m_blocks = (int32_t)gpu_ceil_div(rows, t->m);
    c->n_blocks = (int32_t)gpu_ceil_div(layout->n_panels, t->n / GPU_PANEL_N);
    int64_t output_tiles = (int64_t)c->m_blocks * c->n_blocks;
    c->clusters = minimum(output_tiles, clusters_at_once(facts, c->cluster, t->resident));
    if (c->cluster > 1 &&
        (t->chunk == 0 || gpu_ceil_div(layout->k_tiles, GPU_WIDE_TILES_K) < c->cluster ||
         c->clusters < 1))
        return false;
    c->x_late = false;
    c->cost = cost_of(facts, layout, c) + (lies == GPU_X_LIES_WELL ? 0 : arrange_ns(layout, rows));
    if (lies == GPU_X_LATE && !has_any_groups(layout) && is_late_tile(t)) {
        struct wide_candidate late = *c;
        late.x_late = true;
        late.cost = cost_of(facts, layout, &late);
        if (late.cost <= c->cost)
            *c = late;
    }
    return true;
}

/** The entry of a tile. */
static void name_entry(const struct wide_tile *t, const char *codes, const char *x_type, bool any,
                       bool late, struct gpu_launch *out) {
    snprintf(out->entry, sizeof out->entry, "gpu_%s_%s_%s_%dx%d%s", late ? "late" : "wide", codes,
             x_type, t->n, t->m, any ? "g" : "");
}

static void plan_of_candidate(const kry_linear *linear, const struct gpu_layout *layout,
                              const struct wide_candidate *c, int64_t rows, struct gpu_plan *out) {
    const struct wide_tile *t = c->tile;
    bool any = has_any_groups(layout);
    memset(out, 0, sizeof *out);
    out->rows = rows;
    out->tile_m = t->m;
    out->tile_n = t->n;
    out->m_blocks = c->m_blocks;
    out->n_blocks = c->n_blocks;
    out->splits = c->cluster;
    out->slots = slots_of(layout);
    out->box_rows = t->m;
    out->x_late = c->x_late;
    out->main.grid = (uint32_t)(c->clusters * c->cluster);
    out->main.block = (uint32_t)gpu_wide_threads(t->warpgroups, t->resident);
    out->main.shared_bytes = shared_bytes_of(t, layout->bits, any);
    out->main.cluster = (uint32_t)c->cluster;
    out->main.early = 1;
    name_entry(t, layout->bits == 4 ? "u4" : "u8", linear->x_type == KRY_TYPE_F16 ? "f16" : "bf16",
               any, c->x_late, &out->main);
    snprintf(out->why, sizeof out->why,
             "weights by the copy engine: tiles of %d features x %d rows, K in %d, %u blocks", t->n,
             t->m, c->cluster, out->main.grid);
}

struct gpu_launch gpu_wide_launch(uint32_t resident) {
    const struct wide_tile *t = tiles;
    while (t->resident != (int32_t)resident)
        t++;
    struct gpu_launch launch = {.block = (uint32_t)gpu_wide_threads(t->warpgroups, t->resident),
                                .shared_bytes = shared_bytes_of(t, 4, true)};
    name_entry(t, "u4", "f16", true, false, &launch);
    return launch;
}

int32_t gpu_wide_candidates(void) { return TILES * GPU_CLUSTER_MAX; }

double gpu_wide_cost(const struct gpu_facts *facts, const struct gpu_layout *layout, int64_t rows,
                     enum gpu_x_lies lies, int32_t index) {
    struct wide_candidate c;
    return candidate_of(facts, layout, rows, lies, index, &c) ? c.cost : -1;
}

bool gpu_wide_plan(const struct gpu_facts *facts, const kry_linear *linear,
                   const struct gpu_layout *layout, int64_t rows, enum gpu_x_lies lies,
                   int32_t index, struct gpu_plan *out, double *cost) {
    struct wide_candidate c;
    if (!candidate_of(facts, layout, rows, lies, index, &c))
        return false;
    plan_of_candidate(linear, layout, &c, rows, out);
    *cost = c.cost;
    return true;
}
