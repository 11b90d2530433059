/*
 * Which tile and cluster an apply takes on Hopper, see device/wide.h. As in plan.c the cheapest by
 * a model in clocks wins, and no layer is known by name.
 */
#include "plan_wide.h"

#include <stdio.h>
#include <string.h>

/** A block tile that gpu.cu has entries for. The clocks were measured on an H100, see
 *  bench/gpu/NOTES.md. */
struct wide_shape {
    int32_t rows;
    int32_t panels;
    int32_t workers;   /* threads that multiply */
    int32_t threads;   /* and those that copy */
    int32_t resident;  /* blocks of a multiprocessor */
    int32_t stages[2]; /* of 4 bits, and of 8 */
    int32_t chunk;
    int32_t tile; /* clocks of an output tile's begin and end, */
    int32_t join; /* of each block of a cluster that shares it, */
    int32_t unit; /* and of a stage, 4 bits */
    double unit8; /* a stage of 8 bits over one of 4 */
};

static const struct wide_shape shapes[] = {
    {8, 2, 256, 288, 2, {8, 5}, 1, 2500, 250, 760, 1.9},
    {16, 2, 256, 288, 2, {6, 4}, 2, 2500, 250, 810, 1.9},
    {32, 4, 512, 640, 1, {6, 4}, 4, 4600, 0, 1400, 1.4},
    {64, 4, 512, 640, 1, {4, 3}, 8, 6600, 0, 1830, 1.4},
    {128, 4, 256, 384, 1, {3, 2}, 4, 11800, 2700, 2390, 1.3},
    {256, 2, 256, 384, 1, {3, 2}, 0, 8900, 0, 2260, 1.3},
};
enum { SHAPES = sizeof shapes / sizeof *shapes, STAGE_TILES = 2 };

static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

static uint32_t shared_bytes_of(const struct wide_shape *s, int32_t bits) {
    int32_t stages = s->stages[bits / 8];
    int32_t stage = STAGE_TILES * (s->rows * 128 + s->panels * (512 * bits + 768));
    int32_t sums = s->chunk == 0 ? 0 : (s->workers * s->chunk + 8) * 16;
    int32_t barriers = (2 * stages + 2) * 8, tables = stages * STAGE_TILES * GPU_TILE_BLOCKS;
    return (uint32_t)(stages * stage + sums + barriers + tables);
}

/** Groups of the places of a stage where each stage has as many; else 0. */
static int32_t slots_of(const struct gpu_layout *layout) {
    int64_t blocks = STAGE_TILES * GPU_TILE_BLOCKS;
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
    const struct wide_shape *shape;
    int32_t cluster;
    int32_t m_blocks;
    int32_t n_blocks;
    int64_t clusters;
    double cost;
};

/** By how much blocks slow each other down of which there are so many a multiprocessor. */
static double crowding(double blocks) {
    static const double measured[][2] = {{0.5, 1}, {0.75, 1.3}, {1.45, 1.38}, {1.7, 1.7}, {2, 1.9}};
    enum { LAST = sizeof measured / sizeof *measured - 1 };
    if (blocks <= measured[0][0])
        return measured[0][1];
    int i = 1;
    while (i < LAST && measured[i][0] < blocks)
        i++;
    double slope = (measured[i][1] - measured[i - 1][1]) / (measured[i][0] - measured[i - 1][0]);
    return measured[i - 1][1] + slope * (blocks - measured[i - 1][0]);
}

static double cost_of(const struct gpu_facts *facts, const struct gpu_layout *layout,
                      const struct wide_candidate *c) {
    const struct wide_shape *s = c->shape;
    double rounds = (double)gpu_ceil_div((int64_t)c->m_blocks * c->n_blocks, c->clusters);
    double stages = (double)gpu_ceil_div(gpu_ceil_div(layout->k_tiles, STAGE_TILES), c->cluster);
    double multiprocessors = facts->multiprocessors != 0 ? facts->multiprocessors : 132;
    double unit = s->unit * (layout->bits == 4 ? 1 : s->unit8);
    if (s->resident > 1)
        unit *= crowding((double)c->clusters * c->cluster / multiprocessors);
    return rounds * (s->tile + (c->cluster > 1 ? c->cluster * s->join : 0) + stages * unit);
}

static bool candidate_of(const struct gpu_facts *facts, const struct gpu_layout *layout,
                         int64_t rows, int32_t index, struct wide_candidate *c) {
    const struct wide_shape *s = &shapes[index / GPU_CLUSTER_MAX];
    c->shape = s;
    c->cluster = index % GPU_CLUSTER_MAX + 1;
    bool small = s->rows < 64 && s->rows * 4 < rows;
    if ((s->rows > 8 && s->rows >= 2 * rows) || small ||
        shared_bytes_of(s, layout->bits) > facts->shared_bytes)
        return false;
    c->m_blocks = (int32_t)gpu_ceil_div(rows, s->rows);
    c->n_blocks = (int32_t)gpu_ceil_div(layout->n_panels, s->panels);
    int64_t tiles = (int64_t)c->m_blocks * c->n_blocks;
    c->clusters = minimum(tiles, clusters_at_once(facts, c->cluster, s->resident));
    if (c->cluster > 1 &&
        (s->chunk == 0 || gpu_ceil_div(layout->k_tiles, STAGE_TILES) < c->cluster ||
         c->clusters < 1))
        return false;
    c->cost = cost_of(facts, layout, c);
    return true;
}

static void plan_of_candidate(const kry_linear *linear, const struct gpu_layout *layout,
                              const struct wide_candidate *c, int64_t rows, struct gpu_plan *out) {
    const struct wide_shape *s = c->shape;
    memset(out, 0, sizeof *out);
    out->rows = rows;
    out->tile_m = s->rows;
    out->tile_n = s->panels * GPU_PANEL_N;
    out->m_blocks = c->m_blocks;
    out->n_blocks = c->n_blocks;
    out->splits = c->cluster;
    out->slots = slots_of(layout);
    out->box_rows = s->rows;
    out->main.grid = (uint32_t)(c->clusters * c->cluster);
    out->main.block = (uint32_t)s->threads;
    out->main.shared_bytes = shared_bytes_of(s, layout->bits);
    out->main.cluster = (uint32_t)c->cluster;
    out->main.early = 1;
    snprintf(out->main.entry, sizeof out->main.entry, "gpu_wide_u%d_%s_%d%s", layout->bits,
             linear->x_type == KRY_TYPE_F16 ? "f16" : "bf16", s->rows,
             out->slots == 1 || out->slots == 2 ? "" : "g");
    snprintf(out->why, sizeof out->why,
             "weights by the copy engine: tiles of %d features x %d rows, K in %d, %u blocks",
             out->tile_n, s->rows, c->cluster, out->main.grid);
}

struct gpu_launch gpu_wide_launch(uint32_t resident) {
    const struct wide_shape *s = shapes;
    while (s->resident != (int32_t)resident)
        s++;
    struct gpu_launch launch = {.block = (uint32_t)s->threads,
                                .shared_bytes = shared_bytes_of(s, 4)};
    snprintf(launch.entry, sizeof launch.entry, "gpu_wide_u4_f16_%d", s->rows);
    return launch;
}

bool gpu_wide_candidate(const struct gpu_facts *facts, const kry_linear *linear,
                        const struct gpu_layout *layout, int64_t rows, int32_t index,
                        struct gpu_plan *out, double *cost) {
    struct wide_candidate c;
    for (int32_t i = 0, found = 0; i < SHAPES * GPU_CLUSTER_MAX; i++) {
        if (!candidate_of(facts, layout, rows, i, &c) || found++ != index)
            continue;
        plan_of_candidate(linear, layout, &c, rows, out);
        *cost = c.cost;
        return true;
    }
    return false;
}

void gpu_wide_plan(const struct gpu_facts *facts, const kry_linear *linear,
                   const struct gpu_layout *layout, int64_t rows, struct gpu_plan *out) {
    struct wide_candidate best = {.cost = -1}, c;
    for (int32_t i = 0; i < SHAPES * GPU_CLUSTER_MAX; i++)
        if (candidate_of(facts, layout, rows, i, &c) && (best.cost < 0 || c.cost < best.cost))
            best = c;
    plan_of_candidate(linear, layout, &best, rows, out);
}
