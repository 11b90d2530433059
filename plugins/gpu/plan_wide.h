/* Plans of gpu_wide_*, a part of plan.c. */
#ifndef KERNELRY_GPU_PLAN_WIDE_H
#define KERNELRY_GPU_PLAN_WIDE_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Plan a run of `rows` rows that lie as the copy engine wants them. */
void gpu_wide_plan(const struct gpu_facts *facts, const kry_linear *linear,
                   const struct gpu_layout *layout, int64_t rows, struct gpu_plan *out);

/** Threads and shared memory of blocks of which so many (1 or 2) share a multiprocessor, and one
 *  of their entries: what clusters are counted by. */
struct gpu_launch gpu_wide_launch(uint32_t resident);

/** Candidate `index` of them, with its cost in clocks; false past the last. */
bool gpu_wide_candidate(const struct gpu_facts *facts, const kry_linear *linear,
                        const struct gpu_layout *layout, int64_t rows, int32_t index,
                        struct gpu_plan *out, double *cost);

#ifdef __cplusplus
}
#endif

#endif
