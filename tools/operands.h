/*
 * Memory of one apply: twins of x, y and bias, and a workspace.
 */
#ifndef KERNELRY_TOOLS_OPERANDS_H
#define KERNELRY_TOOLS_OPERANDS_H

#include "device_memory.h"

/** All zero: none; without a bias its twin stays so. */
struct operands {
    struct twin x, y, bias, scratch, zeroed;
};

/** Bytes of each. */
struct operand_bytes {
    uint64_t x, y, bias, scratch, zeroed;
};

/** Ownership: *out is ended by row_operands_release, also after an error. Errors: KRY_E_MEMORY. */
kry_status row_operands_get(const struct device_memory *memory, const struct operand_bytes *bytes,
                            struct operands *out);
void row_operands_release(const struct device_memory *memory, struct operands *operands);

/** Enqueue y of m rows. Errors: kry_layer_apply's. */
kry_status row_operands_apply(const kry_layer *layer, int64_t m, const struct operands *operands);

#endif
