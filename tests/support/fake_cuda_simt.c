/* The fake CUDA driver with a GPU behind it. */
#include "fake_cuda.h"
#include "fake_simt.h"

static const char *execute(const struct fake_launch *launch) {
    return fake_simt_run_cluster(launch->entry, launch->grid, launch->block, launch->shared_bytes,
                                 launch->cluster, launch->early, launch->parameters);
}

__attribute__((constructor)) static void begin(void) {
    if (fake_simt_begin(&fake_cuda))
        fake_cuda.execute = execute;
}
