/* A tensor map as the tests' driver writes it and the SIMT layer reads it. C alone: the fake driver
 * has it without the layer. */
#ifndef TESTS_SUPPORT_SIMT_TENSOR_MAP_H
#define TESTS_SUPPORT_SIMT_TENSOR_MAP_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of two dimensions, the inner one first. */
struct simt_tensor {
    const unsigned char *address;
    uint64_t columns;
    uint64_t rows;
    uint64_t row_bytes; /* from row to row */
    uint32_t box_columns;
    uint32_t box_rows;
    uint32_t element_bytes;
    uint32_t swizzle_bytes; /* 0: none */
};

/*
 * What cuTensorMapEncodeTiled does, with its signature (enums as int) and the checks of its
 * documentation: 0 (CUDA_SUCCESS) or 1 (CUDA_ERROR_INVALID_VALUE). Refused beyond that: ranks other
 * than 2, interleaved layouts, element strides other than 1 and NaNs outside the tensor, which no
 * kernel here has.
 */
int simt_tensor_map_encode(void *map, int data_type, uint32_t rank, void *address,
                           const uint64_t *dimensions, const uint64_t *strides, const uint32_t *box,
                           const uint32_t *element_strides, int interleave, int swizzle,
                           int l2_promotion, int fill);

/* False where the map was not made by simt_tensor_map_encode. */
bool simt_tensor_map_read(const void *map, struct simt_tensor *out);

#ifdef __cplusplus
}
#endif

#endif
