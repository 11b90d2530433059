/* What the sources of the GPU kernel share. */
#ifndef KERNELRY_GPU_KERNEL_H
#define KERNELRY_GPU_KERNEL_H

#include "code.h"

/** Rows that one run may have: tiles of the least size, 16 features by 8 rows, are counted in 32
 *  bits. */
static inline int64_t gpu_run_rows(const struct gpu_layout *layout) {
    int64_t most = INT32_MAX / (layout->n_panels * GPU_PANEL_TILES) * 8;
    return most < INT64_C(1) << 30 ? most : INT64_C(1) << 30;
}

/** Lay out a description that can_implement accepted; otherwise KRY_E_ARGUMENT, worded. */
kry_status gpu_lay_out(const kry_linear *linear, struct gpu_layout *out);

/** prepare.c: see kry_linear_kernel. */
kry_status gpu_prepare(const kry_prepare_call *call);

/** kernel.c: the functions of both platforms' kernels. */
extern const kry_linear_kernel gpu_linear_kernel;

/** platform.c */
extern const kry_platform gpu_platform_cuda;
extern const kry_platform gpu_platform_rocm;

#endif
