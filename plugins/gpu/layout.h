/*
 * The prepared layout of the GPU kernels, "fragment16" version 2.
 *
 * Output features come in panels of 64, which are four tiles of 16; places in tiles of 64 made of 4
 * blocks of 16. A place is where a column lies in the prepared weights: a block never holds columns
 * of two groups.
 *
 *   aligned    one group, or group_size a multiple of 16: place = k + front, where front < 128
 *              fills up the first block, and two tiles as far as groups end with them.
 *   gathered   other group sizes (each group filled up to whole blocks) and act-order (columns
 *              sorted by group, stable, then likewise): `source` tells the column of a place,
 *              and apply reads x through a copy that is put in this order.
 *
 * buffer       shape                          type        stored as
 * header       [16]                           u32         [0]: tiles of places in use; gathered
 * source       [k_tiles * 64]                 i32         column at each place, -1: none; gathered
 * block_group  [k_tiles * 4]                  u32         group of each block; act-order only
 * scales       [n_panels, G, 64]              scale_type
 * zeros        [n_panels, G, 64]              u8          types with zero points only
 * codes        [n_panels, k_tiles, 4, L, 32]  16 bytes    L = 1 (4 bits) or 2 (8 bits), one a lane
 *
 * Each starts at a multiple of 256 bytes, and 4096 bytes of any contents follow the codes, so that
 * a kernel that takes several tiles at a time may read past the last. Rows beyond out_features and
 * places without a column hold code 0; rows beyond out_features have scale 0 and zero point 0.
 *
 * Fragment j of a tile of 16 x 64 is its block j, as operand A of a 16 x 16 matrix instruction:
 * lane l = 4 r + t owns of each fragment the registers {2 r; 2 t, 2 t + 1}, {2 r + 1; the same},
 * {2 r; 2 t + 8, 2 t + 9}, {2 r + 1; the same}. Rows r and r + 8 of the instruction are
 * neighbours in y; places are in order, so that x needs no other order than its own.
 *
 * 4 bits   word j of the lane's 16 bytes is fragment j; register i's pair lies in the nibbles
 *          i and i + 4, which one mask turns into two halves.
 * 8 bits   load h holds the fragments 2 h and 2 h + 1 in two words each: bytes are the registers'
 *          pairs in order.
 */
#ifndef KERNELRY_GPU_LAYOUT_H
#define KERNELRY_GPU_LAYOUT_H

#include <kernelry/types.h>

#define GPU_LAYOUT_NAME "fragment16"
enum {
    GPU_LAYOUT_VERSION = 2,
    GPU_TILE_N = 16,
    GPU_PANEL_N = 64,
    GPU_PANEL_TILES = GPU_PANEL_N / GPU_TILE_N,
    GPU_TILE_K = 64,
    GPU_BLOCK_K = 16, /* places that share a scale */
    GPU_TILE_BLOCKS = GPU_TILE_K / GPU_BLOCK_K,
    GPU_LANES = 32,
    GPU_SLACK = 4096 /* bytes behind the codes */
};

#if defined(__CUDACC__) || defined(__HIP__)
#define GPU_LAYOUT_FN static __attribute__((host, device)) inline
#else
#define GPU_LAYOUT_FN static inline
#endif

/** Shapes and places of a description's buffers, in bytes from the start of the prepared
 *  weights. */
struct gpu_layout {
    int64_t in_features;
    int64_t out_features;
    int64_t groups;
    int64_t n_panels;
    int64_t k_tiles;      /* with act-order the most that there can be, see header[0] */
    int64_t group_size;   /* columns of a group that is whole; in_features if there is one */
    int64_t first_size;   /* columns of the first group */
    int64_t group_blocks; /* blocks of a group that is whole */
    int64_t first_blocks; /* blocks of the first group */
    int32_t front;        /* aligned: places before the first column */
    int32_t gathered;     /* 0 or 1 */
    int32_t act_order;    /* 0 or 1 */
    int32_t bits;         /* 4 or 8 */
    int32_t tile_bytes;   /* codes of 16 x 64: 512 or 1024 */
    int32_t has_zeros;    /* 0 or 1 */
    uint64_t header_at;
    uint64_t source_at;
    uint64_t block_group_at;
    uint64_t scales_at;
    uint64_t zeros_at;
    uint64_t codes_at;
    uint64_t bytes;
};

GPU_LAYOUT_FN int64_t gpu_ceil_div(int64_t value, int64_t by) { return (value + by - 1) / by; }

/** The place of column k without act-order. */
GPU_LAYOUT_FN int64_t gpu_place_of_column(const struct gpu_layout *layout, int64_t k) {
    if (!layout->gathered)
        return k + layout->front;
    if (k < layout->first_size)
        return k;
    int64_t group = (k - layout->first_size) / layout->group_size; /* groups after the first */
    int64_t within = (k - layout->first_size) % layout->group_size;
    return (layout->first_blocks + group * layout->group_blocks) * GPU_BLOCK_K + within;
}

/** The column at a place without act-order, or -1. */
GPU_LAYOUT_FN int64_t gpu_column_of_place(const struct gpu_layout *layout, int64_t place) {
    int64_t k = place - layout->front;
    if (layout->gathered) {
        int64_t after = place - layout->first_blocks * GPU_BLOCK_K;
        if (after < 0) {
            k = place < layout->first_size ? place : -1;
        } else {
            int64_t within = after % (layout->group_blocks * GPU_BLOCK_K);
            int64_t group = after / (layout->group_blocks * GPU_BLOCK_K);
            k = within < layout->group_size
                    ? layout->first_size + group * layout->group_size + within
                    : -1;
        }
    }
    return k < layout->in_features ? (k < 0 ? -1 : k) : -1;
}

/** The group of a block without act-order; the last one for blocks beyond the last column. */
GPU_LAYOUT_FN int64_t gpu_group_of_block(const struct gpu_layout *layout, int64_t block) {
    int64_t group = (block + layout->group_blocks - layout->first_blocks) / layout->group_blocks;
    return group < layout->groups ? group : layout->groups - 1;
}

/** Where in `codes` tile n_tile of features, k_tile of places begins, bytes. */
GPU_LAYOUT_FN uint64_t gpu_tile_at(int64_t k_tiles, int32_t tile_bytes, int64_t n_tile,
                                   int64_t k_tile) {
    int64_t tile =
        (n_tile / GPU_PANEL_TILES * k_tiles + k_tile) * GPU_PANEL_TILES + n_tile % GPU_PANEL_TILES;
    return (uint64_t)tile * (uint64_t)tile_bytes;
}

/** Where a code lies in `codes`: the byte, and the shift of the code's lowest bit in it. */
struct gpu_code_place {
    uint64_t byte;
    uint32_t shift;
};

GPU_LAYOUT_FN struct gpu_code_place gpu_place_of_code(const struct gpu_layout *layout, int64_t n,
                                                      int64_t place) {
    uint32_t row = (uint32_t)(n % GPU_TILE_N);
    uint32_t in_block = (uint32_t)(place % GPU_BLOCK_K);
    uint32_t lane = row / 2 * 4 + in_block % 8 / 2;
    uint32_t fragment = (uint32_t)(place % GPU_TILE_K) / GPU_BLOCK_K;
    uint32_t in_register = in_block % 2;         /* low or high half */
    uint32_t reg = row % 2 + (in_block / 8) * 2; /* of operand A, 0 to 3 */
    uint64_t tile_at =
        gpu_tile_at(layout->k_tiles, layout->tile_bytes, n / GPU_TILE_N, place / GPU_TILE_K);
    struct gpu_code_place result;
    if (layout->bits == 4) {
        uint32_t nibble = reg + in_register * 4;
        result.byte = tile_at + lane * 16 + fragment * 4 + nibble / 2;
        result.shift = nibble % 2 * 4;
    } else {
        uint32_t load = fragment / 2;
        result.byte = tile_at + load * 512 + lane * 16 + fragment % 2 * 8 + reg * 2 + in_register;
        result.shift = 0;
    }
    return result;
}

/** The index of a scale or zero point in `scales` or `zeros`, in elements. */
GPU_LAYOUT_FN uint64_t gpu_scale_place(const struct gpu_layout *layout, int64_t n, int64_t group) {
    return (uint64_t)((n / GPU_PANEL_N * layout->groups + group) * GPU_PANEL_N + n % GPU_PANEL_N);
}

/** Fill a layout from a complete and valid description. */
static inline struct gpu_layout gpu_layout_of(const kry_linear *linear) {
    struct gpu_layout l;
    __builtin_memset(&l, 0, sizeof l);
    l.in_features = linear->in_features;
    l.out_features = linear->out_features;
    l.groups = kry_linear_groups(linear);
    l.n_panels = gpu_ceil_div(linear->out_features, GPU_PANEL_N);
    l.bits = kry_weight_bits(linear->weight_type);
    l.tile_bytes = GPU_TILE_N * GPU_TILE_K * l.bits / 8;
    l.has_zeros = kry_weight_has_zero_points(linear->weight_type);
    l.act_order = linear->act_order != 0;
    int64_t blocks;
    if (l.groups == 1) {
        l.group_size = l.first_size = l.in_features;
        l.group_blocks = l.first_blocks = gpu_ceil_div(l.in_features, GPU_BLOCK_K);
        l.gathered = l.act_order;
        blocks = l.first_blocks;
    } else {
        l.group_size = linear->group_size;
        int64_t passed = l.act_order ? 0 : linear->k_offset % l.group_size;
        l.first_size = l.group_size - passed;
        l.gathered = l.act_order || l.group_size % GPU_BLOCK_K != 0;
        if (!l.gathered)
            l.front = (int32_t)(passed % (GPU_TILE_K * 2));
        l.group_blocks = gpu_ceil_div(l.group_size, GPU_BLOCK_K);
        l.first_blocks = gpu_ceil_div(l.first_size + l.front, GPU_BLOCK_K);
        blocks = gpu_place_of_column(&l, l.in_features - 1) / GPU_BLOCK_K + 1;
        if (l.act_order) { /* each group that has columns may leave 15 places of a block empty */
            int64_t used = l.groups < l.in_features ? l.groups : l.in_features;
            blocks = (l.in_features + 15 * used) / GPU_BLOCK_K;
        }
    }
    l.k_tiles = gpu_ceil_div(blocks, GPU_TILE_BLOCKS);

    uint64_t scale_count = (uint64_t)l.n_panels * (uint64_t)l.groups * GPU_PANEL_N;
    uint64_t k_tiles = (uint64_t)l.k_tiles;
    uint64_t sizes[6] = {
        (uint64_t)l.gathered * 64,
        (uint64_t)l.gathered * k_tiles * GPU_TILE_K * 4,
        (uint64_t)l.act_order * k_tiles * GPU_TILE_BLOCKS * 4,
        scale_count * kry_type_bytes(linear->scale_type),
        (uint64_t)l.has_zeros * scale_count,
        (uint64_t)l.n_panels * GPU_PANEL_TILES * k_tiles * (uint64_t)l.tile_bytes + GPU_SLACK,
    };
    uint64_t *starts[6] = {&l.header_at, &l.source_at, &l.block_group_at,
                           &l.scales_at, &l.zeros_at,  &l.codes_at};
    for (int i = 0; i < 6; i++) {
        *starts[i] = l.bytes;
        l.bytes += (sizes[i] + KRY_ALIGNMENT - 1) / KRY_ALIGNMENT * KRY_ALIGNMENT;
    }
    return l;
}

#endif
