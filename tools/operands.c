/*
 * Memory of one apply: twins of x, y and bias, and a workspace.
 */
#include "operands.h"

kry_status row_operands_get(const struct device_memory *memory, const struct operand_bytes *bytes,
                            struct operands *out) {
    kry_status status = twin_get(memory, bytes->x, &out->x);
    if (status == KRY_OK)
        status = twin_get(memory, bytes->y, &out->y);
    if (status == KRY_OK && bytes->bias > 0)
        status = twin_get(memory, bytes->bias, &out->bias);
    if (status == KRY_OK)
        status = twin_get(memory, bytes->scratch, &out->scratch);
    return status == KRY_OK ? twin_get(memory, bytes->zeroed, &out->zeroed) : status;
}

void row_operands_release(const struct device_memory *memory, struct operands *operands) {
    twin_release(memory, &operands->x);
    twin_release(memory, &operands->y);
    twin_release(memory, &operands->bias);
    twin_release(memory, &operands->scratch);
    twin_release(memory, &operands->zeroed);
}

kry_status row_operands_apply(const kry_layer *layer, int64_t m, const struct operands *operands) {
    kry_apply_args args = KRY_INIT(kry_apply_args);
    args.m = m;
    args.x = operands->x.device;
    args.y = operands->y.device;
    args.bias = operands->bias.device;
    args.scratch = operands->scratch.device;
    args.scratch_bytes = operands->scratch.bytes;
    args.zeroed = operands->zeroed.device;
    args.zeroed_bytes = operands->zeroed.bytes;
    return kry_layer_apply(layer, &args);
}
