/* Kernels that copy in bulk and multiply by warpgroups as they should, and with faults planted in
 * them; for simt_wide_test.c. Each is run with a struct wide_params. */
#ifndef TESTS_UNIT_GPU_SIMT_WIDE_KERNELS_H
#define TESTS_UNIT_GPU_SIMT_WIDE_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "plugins/gpu/params.h"

#ifdef __cplusplus
extern "C" {
#endif

enum wide_fault {
    WIDE_RIGHT,
    WIDE_NO_FULL_WAIT,
    WIDE_NO_FREE_WAIT,
    WIDE_WRONG_PARITY,
    WIDE_NO_EXPECT,
    WIDE_FEW_BYTES,
    WIDE_MANY_BYTES,
    WIDE_NO_FENCE,
    WIDE_A_AFTER_FENCE,
    WIDE_C_AFTER_FENCE,
    WIDE_NO_COMMIT,
    WIDE_NO_WAIT,
    WIDE_FREE_BEFORE_WAIT,
    WIDE_C_READ,
    WIDE_C_WRITTEN,
    WIDE_A_WRITTEN,
    WIDE_OTHER_C,
    WIDE_OTHER_BOX,
    WIDE_MISSING_LANES,
    WIDE_FROM_SECOND_WAVE,
    WIDE_BOX_MISPLACED,
    WIDE_NOT_A_MAP,
    WIDE_EARLY_END,
    WIDE_GIVE_BY_HALF,
    WIDE_TAKE_ALL,
    WIDE_B_WRITTEN,
    WIDE_LANE_FREES, /* is right: one of a wave, after a wait, what the others have read, too */
    WIDE_LANE_FREES_EARLY,
    WIDE_B_PUBLISHED,  /* is right */
    WIDE_FREE_TOO_NEW, /* the batch that is still under way */
    WIDE_READ_TOO_NEW,
    WIDE_OVERLAPPING_C
};

enum { WIDE_TILES = 5, WIDE_TILE_K = 64 }; /* of k */

struct wide_params {
    struct gpu_tensor_map b; /* N rows of WIDE_TILES * 64 columns */
    const uint32_t *a;       /* [groups][tile][step][thread of the warpgroup][4] */
    float *c;                /* [groups][thread of the warpgroup][N / 2] */
    int32_t column;          /* of the box, and what lies outside of b is zero */
    int32_t row;
    uint32_t fault; /* enum wide_fault */
};

/* c += a * b for as many warpgroups as there are in the block, and a wave that copies b. */
void product_8_f16(const void *argument);
void product_64_f16(const void *argument);
void product_64_bf16(const void *argument);
void product_256_bf16(const void *argument);
/* The same by two gpu_wgmma of 32 columns, with a batch under way while the next one is made. */
void pipelined_64_f16(const void *argument);

struct bulk_params {
    const unsigned char *from;
    unsigned char *to;
    uint32_t bytes;    /* of a copy; thread t makes one from `from` + t * bytes */
    uint32_t at;       /* in shared memory */
    uint32_t expected; /* of them all */
    uint32_t copies;
    bool without_wait;
    bool over_writes;  /* goes where threads wrote before, */
    bool is_published; /* and told so */
};

/* to = from, by copies of one wave. */
void copy_in_bulk(const void *argument);
/* to[0..8192) = the box of 64 rows at (column, row). */
void copy_box(const void *argument);

#ifdef __cplusplus
}
#endif

#endif
