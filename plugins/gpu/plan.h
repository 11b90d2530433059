/*
 * What an apply launches: a pure function of the device's facts, the description and the call.
 *
 * An apply is one plan or, for many rows that must be put in order first, one plan for each run
 * of plan.rows rows. For each: launch `gpu_arrange` if plan.arrange (its copy lies at the start
 * of scratch), then plan.entry with gpu_plan_params, both on the call's stream, one after the
 * other. Each launch is plan's grid and block in one dimension, with so many bytes of dynamic
 * shared memory (more than 48 KB must be allowed on the function once, when it is loaded).
 */
#ifndef KERNELRY_GPU_PLAN_H
#define KERNELRY_GPU_PLAN_H

#include <stdbool.h>

#include "layout.h"
#include "params.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Most of scratch and zeroed part together, bytes. */
#define GPU_WORKSPACE_MAX (UINT64_C(64) << 20)

/** Devices whose matrix instructions are the same. */
enum {
    GPU_FAMILY_PLAIN = 0,   /* no matrix instruction used: gpu_plain_* */
    GPU_FAMILY_MMA = 1,     /* NVIDIA's mma.sync: gpu_stream_* and gpu_tile_* */
    GPU_FAMILY_MMA_F16 = 2, /* the same for f16 (sm_75); bf16 as GPU_FAMILY_PLAIN */
    GPU_FAMILY_WGMMA = 3,   /* sm_90a: gpu_wide_*, and gpu_stream_* where weights must be exact */
    GPU_FAMILY_MFMA = 4,    /* CDNA: gpu_tile_* of tile_amd.h, in waves of 64 */
    GPU_FAMILY_WMMA = 5     /* RDNA3 and 4: the same in waves of 32 */
};

enum { GPU_CLUSTER_MAX = 8 };

/** What a plan depends on of a device. */
struct gpu_facts {
    uint32_t family;          /* GPU_FAMILY_* */
    uint32_t arch;            /* 75 to 120; AMD's 0x90a to 0x1201 */
    uint32_t multiprocessors; /* 0: unknown, taken as 108 */
    uint32_t shared_bytes;    /* most of a block; 0: unknown, taken as 48 KB */
    /* Clusters of 1 to 8 blocks that run at a time, of blocks that share a multiprocessor with so
     * many others; 0: unknown. Which multiprocessors can form a cluster differs from chip to chip.
     */
    uint16_t clusters[2][GPU_CLUSTER_MAX];
};

/** The facts of a device that is here or hypothetical. */
struct gpu_facts gpu_facts_of(const kry_device *device);

/** What a plan depends on of a call. */
struct gpu_call {
    int64_t m;
    uint32_t x_unit; /* 16, 8, 4 or 2: the address and the row stride of x are multiples of it */
    bool x_late;     /* x_unit is 8, but every second row lies at a multiple of 16 */
};

/** Bytes that x's address and row stride (in elements of 2 bytes) are multiples of: 16, 8, 4
 *  or 2. */
uint32_t gpu_x_unit(const void *x, int64_t x_stride, int64_t m);

/** A call of m rows that begin at x. */
struct gpu_call gpu_call_of(const void *x, int64_t x_stride, int64_t m);

/** One launch. */
struct gpu_launch {
    char entry[48];
    uint32_t grid;
    uint32_t block;
    uint32_t shared_bytes;
    uint32_t cluster; /* blocks that a cluster is made of; 0: no clusters */
    uint32_t early;   /* 1: may start while the grid before it runs, see gpu_previous_grid_wait */
};

struct gpu_plan {
    struct gpu_launch main;
    struct gpu_launch arrange; /* read where `arranged` */
    bool arranged;
    int32_t arrange_parts;
    int32_t candidate;
    int64_t rows;   /* rows of one run, at most; runs reuse the workspace in turn */
    int32_t tile_m; /* rows and output features of an output tile */
    int32_t tile_n;
    int32_t m_blocks; /* of a run */
    int32_t n_blocks;
    int32_t splits;       /* blocks that share an output tile along K */
    int32_t split_tiles;  /* k tiles of a split */
    int32_t waves_n;      /* see gpu_apply_params */
    int32_t slots;        /* likewise */
    int32_t box_rows;     /* gpu_wide_*: of a tile; 0: main takes a gpu_apply_params */
    bool x_late;          /* gpu_wide_*: as in the call */
    uint64_t arranged_at; /* places in scratch, bytes */
    uint64_t partials_at;
    uint64_t scratch_bytes;
    uint64_t zeroed_bytes;
    char why[160]; /* a sentence */
};

/** Plan a run of min(call->m, plan.rows) rows; call->m is at least 1. A last, shorter run is
 *  planned by itself with its own m. */
void gpu_plan_of(const struct gpu_facts *facts, const kry_linear *linear,
                 const struct gpu_layout *layout, const struct gpu_call *call,
                 struct gpu_plan *out);

/** How many candidates there are for calls of a description. */
int32_t gpu_plan_candidates(const struct gpu_facts *facts, const kry_linear *linear);

/** The plan of a call that is candidate `index`, with its cost, to be compared with others of the
 * call alone; false where that does not fit. gpu_plan_of takes the cheapest; benchmarks look at
 * all. */
bool gpu_plan_candidate(const struct gpu_facts *facts, const kry_linear *linear,
                        const struct gpu_layout *layout, const struct gpu_call *call, int32_t index,
                        struct gpu_plan *out, double *cost);

/** Scratch and zeroed bytes that every call of up to m rows, however x lies, fits into. Never
 *  less for a larger m, never above 64 MB together. */
void gpu_plan_workspace(const struct gpu_facts *facts, const kry_linear *linear,
                        const struct gpu_layout *layout, int64_t m, kry_workspace *out);

/** Addresses of one run. */
struct gpu_run {
    const void *x; /* of the run's first row */
    void *y;
    const void *bias;
    int64_t m; /* rows of the run, at most plan->rows */
    int64_t x_stride;
    int64_t y_stride;
    const void *prepared;
    void *scratch;
    void *zeroed;
};

/** The parameters of plan.main for a run. */
struct gpu_apply_params gpu_plan_params(const struct gpu_plan *plan, const kry_linear *linear,
                                        const struct gpu_layout *layout, const struct gpu_run *run);

/** Rows of x as a map describes them, see gpu_late_params. */
struct gpu_rows {
    const void *x;
    int64_t columns;
    int64_t rows;
    int64_t stride;
    int32_t box_columns;
    int32_t box_rows;
};

/** What the maps of plan.main's parameters are of; how many there are. */
int32_t gpu_plan_maps(const struct gpu_plan *plan, const struct gpu_apply_params *params,
                      struct gpu_rows out[GPU_MAPS]);

/** The parameters of plan.arrange for a run. */
struct gpu_arrange_params gpu_plan_arrange(const struct gpu_plan *plan,
                                           const struct gpu_layout *layout,
                                           const struct gpu_run *run);

/** The names of all entries that the plans of a family can have, `gpu_arrange` and those of
 *  preparation included; *count is set. */
const char *const *gpu_entry_names(uint32_t family, size_t *count);

/**
 * Launches that prepare rows [n_begin, n_end) on a device, in this order:
 * act-order: gpu_sort (one block); gathered otherwise: gpu_fill_source; then gpu_repack_codes and
 * gpu_repack_scales. The tables are written into the prepared bytes when n_begin is 0 and into
 * scratch otherwise (same order and alignment as in the prepared bytes), where repack reads them.
 */
struct gpu_launch gpu_launch_sort(const struct gpu_layout *layout);
struct gpu_launch gpu_launch_fill_source(const struct gpu_layout *layout);
struct gpu_launch gpu_launch_repack_codes(const struct gpu_layout *layout, int64_t rows);
struct gpu_launch gpu_launch_repack_scales(const struct gpu_layout *layout, int64_t rows);

/** Scratch of device or host preparation, for any range: header, source, block_group, cursor. */
uint64_t gpu_prepare_scratch_bytes(const struct gpu_layout *layout);

/** Launches that canonicalise; counts of what the params structs say. */
struct gpu_launch gpu_launch_canonicalise_codes(int64_t rows, int64_t words);
struct gpu_launch gpu_launch_canonicalise_scales(int64_t rows, int64_t groups);
struct gpu_launch gpu_launch_canonicalise_zeros(int64_t rows, int64_t groups);

#ifdef __cplusplus
}
#endif

#endif
