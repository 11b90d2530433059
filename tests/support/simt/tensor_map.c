#include "tensor_map.h"

#include <stddef.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, WORDS = 16, BOX_MOST = 256 };
#define MAGIC UINT64_C(0x74656E736F726D61)

/* CUtensorMapDataType's sizes, in its order. */
static const uint8_t element_bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
/* CUtensorMapSwizzle's spans. */
static const uint8_t swizzle_bytes[] = {0, 32, 64, 128};

static bool is_known(int data_type, int swizzle, int l2_promotion) {
    return data_type >= 0 && (size_t)data_type < sizeof element_bytes && swizzle >= 0 &&
           (size_t)swizzle < sizeof swizzle_bytes && l2_promotion >= 0 && l2_promotion <= 3;
}

/* CUDA driver API, section "Tensor Map Object Management", cuTensorMapEncodeTiled: the address is
 * a multiple of 16 (the map's own of 64), dimensions are 1 to 2^32, strides multiples of 16 below
 * 2^40 that hold a row, boxes 1 to 256 elements, their inner bytes a multiple of 16 and no more
 * than the swizzle spans. */
int simt_tensor_map_encode(void *map, int data_type, uint32_t rank, void *address,
                           const uint64_t *dimensions, const uint64_t *strides, const uint32_t *box,
                           const uint32_t *element_strides, int interleave, int swizzle,
                           int l2_promotion, int fill) {
    if (map == NULL || (uintptr_t)map % 64 != 0 || rank != 2 || dimensions == NULL ||
        strides == NULL || box == NULL || element_strides == NULL || interleave != 0 || fill != 0 ||
        !is_known(data_type, swizzle, l2_promotion)) {
        return INVALID_VALUE;
    }
    for (uint32_t i = 0; i < rank; i++) {
        if (dimensions[i] == 0 || dimensions[i] > UINT64_C(1) << 32 || box[i] == 0 ||
            box[i] > BOX_MOST || element_strides[i] != 1) {
            return INVALID_VALUE;
        }
    }
    const uint32_t bytes = element_bytes[data_type];
    const uint32_t span = swizzle_bytes[swizzle];
    if (address == NULL || (uintptr_t)address % 16 != 0 || strides[0] % 16 != 0 ||
        strides[0] >= UINT64_C(1) << 40 || strides[0] < dimensions[0] * bytes ||
        box[0] * bytes % 16 != 0 || (span != 0 && box[0] * bytes > span)) {
        return INVALID_VALUE;
    }
    const uint64_t words[WORDS] = {MAGIC,
                                   (uint64_t)(uintptr_t)address,
                                   dimensions[0],
                                   dimensions[1],
                                   strides[0],
                                   box[0] | (uint64_t)box[1] << 32,
                                   bytes | (uint64_t)span << 32};
    memcpy(map, words, sizeof words);
    return SUCCESS;
}

bool simt_tensor_map_read(const void *map, struct simt_tensor *out) {
    uint64_t words[WORDS];
    memcpy(words, map, sizeof words);
    *out = (struct simt_tensor){
        .address = (const unsigned char *)(uintptr_t)words[1],
        .columns = words[2],
        .rows = words[3],
        .row_bytes = words[4],
        .box_columns = (uint32_t)words[5],
        .box_rows = (uint32_t)(words[5] >> 32),
        .element_bytes = (uint32_t)words[6],
        .swizzle_bytes = (uint32_t)(words[6] >> 32),
    };
    return words[0] == MAGIC;
}
