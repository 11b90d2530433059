/* The GPU plugin's device entries on the SIMT layer. */
#ifndef TESTS_UNIT_GPU_KERNELS_DEVICE_H
#define TESTS_UNIT_GPU_KERNELS_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "plugins/gpu/params.h"
#include "plugins/gpu/plan.h"

/* Load the device source that was compiled into this module; fails the test where it cannot. */
void device_load(const char *module, uint32_t wave);

bool device_has(const char *entry);

/* Whether the entry has been run. */
bool device_has_run(const char *entry);

/* Run an entry; fails the test with the SIMT layer's words. Seeds follow each other. */
void device_apply(const struct gpu_launch *launch, const struct gpu_apply_params *params);
void device_wide(const struct gpu_launch *launch, const struct gpu_wide_params *params);
void device_late(const struct gpu_launch *launch, const struct gpu_late_params *params);
void device_arrange(const struct gpu_launch *launch, const struct gpu_arrange_params *params);
void device_sort(const struct gpu_launch *launch, const struct gpu_sort_params *params);
void device_fill_source(const struct gpu_launch *launch,
                        const struct gpu_fill_source_params *params);
void device_repack(const struct gpu_launch *launch, const struct gpu_repack_params *params);
void device_codes(const struct gpu_launch *launch,
                  const struct gpu_canonicalise_codes_params *params);
void device_groups(const struct gpu_launch *launch,
                   const struct gpu_canonicalise_groups_params *params);

#endif
