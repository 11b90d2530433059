/*
 * The device entries; plan.c knows their names.
 *
 *   gpu_stream_<u4 or u8>_<x type>_<FEATURES>x<BLOCKS>g<GROUPS>   stream.h
 *   gpu_tile_<u4 or u8>_<x type>_<n>x<m>g<GROUPS>                 tile.h
 *   gpu_wide_<u4 or u8>_<x type>_<n>x<m>, and with g where ANY    wide.h
 *   gpu_late_<u4 or u8>_<x type>_<n>x<m>                          the same with wide_x.h
 *   gpu_tile_<u4 or u8>_<x type>_<n>x<m>                          tile_amd.h
 *   gpu_plain_<u4 or u8>_<x type>                                 plain.h
 */
#include "arrange.h"
#include "canonicalise.h"
#include "plain.h"
#include "repack.h"
#include "target.h"

#if GPU_HAS_MMA
#include "stream.h"
#include "tile.h"

#define STREAM(codes, bits, type, bf16, features, blocks, groups, span, stages, resident)          \
    GPU_KERNEL(256, resident)                                                                      \
    gpu_stream_##codes##_##type##_##features##x##blocks##g##groups(gpu_apply_params p) {           \
        gpu_stream<gpu_stream_shape<bits, bf16, features, blocks, groups, span, stages>>(p);       \
    }

#define TILE(codes, bits, type, bf16, n, m, waves_n, waves_m, features, rows, groups, blocks)      \
    GPU_KERNEL(32 * waves_n * waves_m, blocks)                                                     \
    gpu_tile_##codes##_##type##_##n##x##m##g##groups(gpu_apply_params p) {                         \
        gpu_tile<gpu_tile_shape<bits, waves_n, waves_m, features, rows, groups, 4>, bf16>(p);      \
    }

#define STREAMS(codes, bits, type, bf16)                                                           \
    STREAM(codes, bits, type, bf16, 1, 1, 1, 2, 4, 2)                                              \
    STREAM(codes, bits, type, bf16, 2, 1, 1, 2, 3, 2)                                              \
    STREAM(codes, bits, type, bf16, 4, 1, 1, 1, 3, 2)                                              \
    STREAM(codes, bits, type, bf16, 2, 2, 1, 1, 4, 2)                                              \
    STREAM(codes, bits, type, bf16, 4, 2, 1, 1, 3, 1)                                              \
    STREAM(codes, bits, type, bf16, 1, 1, 2, 2, 4, 2)                                              \
    STREAM(codes, bits, type, bf16, 2, 1, 2, 2, 3, 2)                                              \
    STREAM(codes, bits, type, bf16, 4, 1, 2, 1, 3, 2)                                              \
    STREAM(codes, bits, type, bf16, 2, 2, 2, 1, 4, 2)                                              \
    STREAM(codes, bits, type, bf16, 2, 1, 4, 1, 4, 2)                                              \
    STREAM(codes, bits, type, bf16, 2, 2, 4, 1, 4, 2)

#define TILES(codes, bits, type, bf16)                                                             \
    TILE(codes, bits, type, bf16, 128, 32, 4, 1, 2, 4, 1, 3)                                       \
    TILE(codes, bits, type, bf16, 128, 64, 4, 1, 2, 8, 1, 2)                                       \
    TILE(codes, bits, type, bf16, 128, 128, 4, 1, 2, 16, 1, 2)                                     \
    TILE(codes, bits, type, bf16, 256, 128, 8, 1, 2, 16, 1, 1)                                     \
    TILE(codes, bits, type, bf16, 128, 32, 4, 1, 2, 4, 4, 3)                                       \
    TILE(codes, bits, type, bf16, 128, 128, 4, 1, 2, 16, 4, 2)

STREAMS(u4, 4, f16, false)
STREAMS(u8, 8, f16, false)
#if GPU_HAS_MMA_BF16
STREAMS(u4, 4, bf16, true)
STREAMS(u8, 8, bf16, true)
#endif
#if !GPU_HAS_WGMMA
TILES(u4, 4, f16, false)
TILES(u8, 8, f16, false)
#if GPU_HAS_MMA_BF16
TILES(u4, 4, bf16, true)
TILES(u8, 8, bf16, true)
#endif
#endif
#endif

#if GPU_HAS_WGMMA
#include "wide.h"

#define WIDE(n, m, warpgroups, panels, turns, chunk, resident, codes, bits, type, bf16, suffix,    \
             any)                                                                                  \
    GPU_KERNEL(                                                                                    \
        (gpu_wide_shape<bits, bf16, m, warpgroups, panels, turns, chunk, resident, any>::THREADS), \
        resident)                                                                                  \
    gpu_wide_##codes##_##type##_##n##x##m##suffix(GPU_PARAMETER gpu_wide_params p) {               \
        gpu_wide<gpu_wide_shape<bits, bf16, m, warpgroups, panels, turns, chunk, resident, any>>(  \
            p);                                                                                    \
    }
#define LATE(n, m, warpgroups, panels, turns, chunk, resident, codes, bits, type, bf16)            \
    GPU_KERNEL((gpu_wide_shape<bits, bf16, m, warpgroups, panels, turns, chunk, resident,          \
                               false>::THREADS),                                                   \
               resident)                                                                           \
    gpu_late_##codes##_##type##_##n##x##m(GPU_PARAMETER gpu_late_params p) {                       \
        gpu_wide<gpu_wide_late<                                                                    \
            gpu_wide_shape<bits, bf16, m, warpgroups, panels, turns, chunk, resident, false>>>(    \
            p.wide, p.more);                                                                       \
    }
#define WIDES(codes, bits, type, bf16)                                                             \
    GPU_WIDE_TILES(WIDE, codes, bits, type, bf16, , false)                                         \
    GPU_WIDE_TILES(WIDE, codes, bits, type, bf16, g, true)                                         \
    GPU_LATE_TILES(LATE, codes, bits, type, bf16)

WIDES(u4, 4, f16, false)
WIDES(u4, 4, bf16, true)
WIDES(u8, 8, f16, false)
WIDES(u8, 8, bf16, true)
#endif

#if GPU_HAS_MATRIX16
#include "tile_amd.h"

#define AMD_TILE(codes, bits, type, bf16, n, m)                                                    \
    GPU_KERNEL(GPU_AMD_WAVES *GPU_WAVE, 1)                                                         \
    gpu_tile_##codes##_##type##_##n##x##m(gpu_apply_params p) {                                    \
        gpu_amd_tile<gpu_amd_shape<bits, bf16, n / (16 * GPU_AMD_WAVES), m / 16>>(p);              \
    }
/* In waves of 32 lanes there are fewer registers for a tile. */
#if GPU_MATRIX_SUMS == 4
#define AMD_TILES(codes, bits, type, bf16)                                                         \
    AMD_TILE(codes, bits, type, bf16, 64, 16)                                                      \
    AMD_TILE(codes, bits, type, bf16, 128, 64)
#else
#define AMD_TILES(codes, bits, type, bf16)                                                         \
    AMD_TILE(codes, bits, type, bf16, 64, 16)                                                      \
    AMD_TILE(codes, bits, type, bf16, 64, 64)
#endif

AMD_TILES(u4, 4, f16, false)
AMD_TILES(u4, 4, bf16, true)
AMD_TILES(u8, 8, f16, false)
AMD_TILES(u8, 8, bf16, true)
#endif

#define PLAIN(codes, bits, type, bf16)                                                             \
    GPU_KERNEL(256, 1) gpu_plain_##codes##_##type(gpu_apply_params p) { gpu_plain<bits, bf16>(p); }

PLAIN(u4, 4, f16, false)
PLAIN(u4, 4, bf16, true)
PLAIN(u8, 8, f16, false)
PLAIN(u8, 8, bf16, true)

GPU_KERNEL(256, 1) gpu_arrange(gpu_arrange_params p) { gpu_arrange_rows(p); }
GPU_KERNEL(1024, 1) gpu_sort(gpu_sort_params p) { gpu_sort_columns(p); }
GPU_KERNEL(256, 1) gpu_fill_source(gpu_fill_source_params p) { gpu_fill_source_table(p); }
GPU_KERNEL(GPU_PREPARE_THREADS, 4) gpu_repack_codes(gpu_repack_params p) {
    gpu_repack_all_codes(p);
}
GPU_KERNEL(GPU_PREPARE_THREADS, 4) gpu_repack_scales(gpu_repack_params p) {
    gpu_repack_all_scales(p);
}
GPU_KERNEL(GPU_PREPARE_THREADS, 4) gpu_canonicalise_codes(gpu_canonicalise_codes_params p) {
    gpu_canonicalise_all_codes(p);
}
GPU_KERNEL(GPU_PREPARE_THREADS, 4) gpu_canonicalise_scales(gpu_canonicalise_groups_params p) {
    gpu_canonicalise_all_scales(p);
}
GPU_KERNEL(GPU_PREPARE_THREADS, 4) gpu_canonicalise_zeros(gpu_canonicalise_groups_params p) {
    gpu_canonicalise_all_zeros(p);
}
