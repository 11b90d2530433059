/* What the two sources of the reference plugin share. */
#ifndef KERNELRY_CPU_REFERENCE_REFERENCE_H
#define KERNELRY_CPU_REFERENCE_REFERENCE_H

#include <kernelry/plugin.h>

/* apply.c: see kry_linear_kernel. */
kry_status reference_workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                               kry_workspace *out);
kry_status reference_apply(const kry_binding *binding, const kry_apply_args *args);

#endif
