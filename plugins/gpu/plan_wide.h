/* Plans of gpu_wide_*, a part of plan.c. */
#ifndef KERNELRY_GPU_PLAN_WIDE_H
#define KERNELRY_GPU_PLAN_WIDE_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Threads and shared memory of blocks of which so many (1 or 2) share a multiprocessor, and one
 *  of their entries: what clusters are counted by. */
struct gpu_launch gpu_wide_launch(uint32_t resident);

/** How many candidates there are. */
int32_t gpu_wide_candidates(void);

/** How x lies: as the copy engine wants it, or every second row of it, or else it is put in order
 *  first. */
enum gpu_x_lies { GPU_X_LIES_WELL, GPU_X_LATE, GPU_X_LIES_BADLY };

/** The cost in nanoseconds of candidate `index` for a run of `rows` rows; below 0 where it does not
 *  fit. */
double gpu_wide_cost(const struct gpu_facts *facts, const struct gpu_layout *layout, int64_t rows,
                     enum gpu_x_lies lies, int32_t index);

/** Its plan, but for putting x in order where x_late does not say that it takes it as it is, and
 *  cost; false where it does not fit. */
bool gpu_wide_plan(const struct gpu_facts *facts, const kry_linear *linear,
                   const struct gpu_layout *layout, int64_t rows, enum gpu_x_lies lies,
                   int32_t index, struct gpu_plan *out, double *cost);

#ifdef __cplusplus
}
#endif

#endif
