/*
 * What the micro-kernels of all classes do alike: reading scales, zero points and bias of the
 * sixteen output features of a tile, converting rows of x, storing rows of y.
 *
 * A micro-kernel is one inline function of ROWS and TILES, both constants, so that every
 * accumulator is a register: ROWS * TILES of them, at most 16. A bundle is taken whole where that
 * can be, since the processor fetches ahead best what is read as one stream, without gaps and
 * beside no other. BLOCK_VARIANTS makes a function of each.
 */
#ifndef KERNELRY_AVX512_BLOCK_H
#define KERNELRY_AVX512_BLOCK_H

#include "kernels.h"

#include <immintrin.h>
#include <stdbool.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* The compilers disagree on the type of a 16-bit shift's count. */
#if defined(__clang__)
typedef unsigned int shift_count;
#else
typedef int shift_count;
#endif

/* f32 from sixteen elements at any alignment. */
INLINE __m512 load_16(const void *from, uint32_t type, __mmask16 mask) {
    if (type == KRY_TYPE_F32)
        return _mm512_maskz_loadu_ps(mask, from);
    __m256i narrow = _mm256_maskz_loadu_epi16(mask, from);
    if (type == KRY_TYPE_F16)
        return _mm512_cvtph_ps(narrow);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}

/* Rounded to nearest even; a NaN of bf16 stays one. */
INLINE __m256i bf16_of(__m512 value) {
    __m512i bits = _mm512_castps_si512(value);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    up = _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16));
}

INLINE void store_16(void *to, uint32_t type, __mmask16 mask, __m512 value) {
    if (type == KRY_TYPE_F32)
        _mm512_mask_storeu_ps(to, mask, value);
    else if (type == KRY_TYPE_F16)
        _mm256_mask_storeu_epi16(to, mask, _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
    else
        _mm256_mask_storeu_epi16(to, mask, bf16_of(value));
}

/* Where the parts of a block's tiles lie. Two bundles are two streams; fewer tiles are one. */
struct runs {
    const uint8_t *codes, *scales, *zeros; /* zeros: NULL where the type's bias stands for them */
    int64_t octet_step, group_step;        /* bytes of codes and of zero points; places of scales */
    int64_t codes_bundle, groups_bundle;   /* from bundle to bundle */
    int32_t scale_bytes;
    uint32_t scale_type;
    float bias;
};

INLINE struct runs runs_of(const struct tiled_work *work, int64_t tile) {
    const struct tiled_shape *shape = &work->bound->shape;
    const struct tiled_run run = tiled_run_of(shape, tile);
    const uint8_t *prepared = work->bound->prepared;
    uint32_t type = work->linear->weight_type;
    return (struct runs){
        .codes = prepared + run.codes,
        .scales = prepared + shape->scales_at + run.groups * (uint64_t)shape->scale_bytes,
        .zeros = kry_weight_has_zero_points(type) ? prepared + shape->zeros_at + run.groups : NULL,
        .octet_step = run.octet_step,
        .group_step = run.group_step,
        .codes_bundle = BUNDLE * shape->tile_bytes,
        .groups_bundle = BUNDLE * TILE_N * shape->groups,
        .scale_bytes = shape->scale_bytes,
        .scale_type = work->linear->scale_type,
        .bias = type == KRY_WEIGHT_U4B8 ? 8.0f : 128.0f};
}

/* From a block's first tile to tile t, whose codes of an octet are so many bytes. */
INLINE int64_t codes_to(const struct runs *runs, int t, const int OCTET_BYTES) {
    return t / BUNDLE * runs->codes_bundle + t % BUNDLE * OCTET_BYTES;
}

INLINE int64_t group_to(const struct runs *runs, int t, int64_t group) {
    return t / BUNDLE * runs->groups_bundle + t % BUNDLE * TILE_N + group * runs->group_step;
}

/* The scales of a tile's group. */
INLINE __m512 scales_of(const struct runs *runs, int t, int32_t group) {
    return load_16(runs->scales + group_to(runs, t, group) * runs->scale_bytes, runs->scale_type,
                   0xffff);
}

/* The zero points, or the type's bias. */
INLINE __m512 zeros_of(const struct runs *runs, int t, int32_t group) {
    if (runs->zeros == NULL)
        return _mm512_set1_ps(runs->bias);
    const void *at = runs->zeros + group_to(runs, t, group);
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(at)));
}

/* How far to fetch codes ahead from octet `octet` on. Of two streams the first ends where the
 * second began: from there on what is to be read next lies one bundle farther. */
INLINE int64_t reach(const struct runs *runs, int64_t octet, int64_t octets, const int TILES) {
    enum { OCTETS_AHEAD = 16 };
    bool beyond = TILES > BUNDLE && octet + OCTETS_AHEAD >= octets;
    return OCTETS_AHEAD * runs->octet_step + (beyond ? runs->codes_bundle : 0);
}

/* Fetch codes. Two streams that L1 waits for are slower than two in L2 (Zen 4). */
INLINE void fetch_ahead(const uint8_t *at, const int TILES) {
    if (TILES > BUNDLE)
        _mm_prefetch((const char *)at, _MM_HINT_T1);
    else
        _mm_prefetch((const char *)at, _MM_HINT_T0);
}

/* Fetch the scales and zero points of a few groups later. */
INLINE void fetch_groups(const struct runs *runs, int32_t group, const int TILES) {
    enum { GROUPS_AHEAD = 4 };
    UNROLL for (int t = 0; t < TILES; t += 2) {
        int64_t far = group_to(runs, t, (int64_t)group + GROUPS_AHEAD);
        _mm_prefetch((const char *)runs->scales + far * runs->scale_bytes, _MM_HINT_T0);
        if (runs->zeros != NULL && t % BUNDLE == 0)
            _mm_prefetch((const char *)runs->zeros + far, _MM_HINT_T0);
    }
}

/* Add bias, round once, store a row of a tile. */
INLINE void finish(const struct tiled_work *work, int64_t tile, int32_t row, __m512 total) {
    const kry_linear *linear = work->linear;
    if (row >= work->chunk.used)
        return;
    int64_t left = linear->out_features - tile * TILE_N;
    __mmask16 mask = (__mmask16)(left >= TILE_N ? 0xffffu : (1u << (uint32_t)left) - 1);
    size_t bytes = kry_type_bytes(linear->y_type);
    if (work->args->bias != NULL)
        total = _mm512_add_ps(
            total, load_16((const uint8_t *)work->args->bias + (size_t)(tile * TILE_N) * bytes,
                           linear->y_type, mask));
    int64_t place = (work->chunk.row + row) * work->args->y_stride + tile * TILE_N;
    store_16((uint8_t *)work->args->y + (size_t)place * bytes, linear->y_type, mask, total);
}

/* total += (sum - z * sum of x) * scale, for the tiles and rows of a micro-kernel; all before
 * the scale is exact where x is one-hot or int8. */
#define ADD_SEGMENT(SUM)                                                                           \
    do {                                                                                           \
        UNROLL for (int t = 0; t < TILES; t++) {                                                   \
            __m512 scale = scales_of(&runs, t, segment->group);                                    \
            __m512 zero = zeros_of(&runs, t, segment->group);                                      \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                \
                __m512 centred = _mm512_fnmadd_ps(zero, _mm512_set1_ps(sums[r]), SUM);             \
                total[t * ROWS + r] = _mm512_fmadd_ps(centred, scale, total[t * ROWS + r]);        \
            }                                                                                      \
        }                                                                                          \
    } while (0)

/* total += sum * scale, where the codes' bias was taken away before. */
#define ADD_CENTRED(SUM)                                                                           \
    do {                                                                                           \
        UNROLL for (int t = 0; t < TILES; t++) {                                                   \
            __m512 scale = scales_of(&runs, t, segment->group);                                    \
            UNROLL for (int r = 0; r < ROWS; r++) total[t * ROWS + r] =                            \
                _mm512_fmadd_ps(SUM, scale, total[t * ROWS + r]);                                  \
        }                                                                                          \
    } while (0)

typedef void block_function(const struct tiled_work *work, int64_t tile);

struct block_variant {
    int32_t rows, tiles;
    block_function *run;
};

#define BLOCK_VARIANT(NAME, ROWS, TILES)                                                           \
    static void NAME##_##ROWS##_##TILES(const struct tiled_work *work, int64_t tile) {             \
        NAME(work, tile, ROWS, TILES);                                                             \
    }

#define BLOCK_ENTRY(NAME, ROWS, TILES) {ROWS, TILES, NAME##_##ROWS##_##TILES},
/* Of equally many rows the widest first. */
#define BLOCK_SIZES(V, NAME)                                                                       \
    V(NAME, 1, 4)                                                                                  \
    V(NAME, 1, 2)                                                                                  \
    V(NAME, 1, 1)                                                                                  \
    V(NAME, 2, 4)                                                                                  \
    V(NAME, 2, 2)                                                                                  \
    V(NAME, 2, 1)                                                                                  \
    V(NAME, 3, 4)                                                                                  \
    V(NAME, 3, 2)                                                                                  \
    V(NAME, 3, 1)                                                                                  \
    V(NAME, 4, 4)                                                                                  \
    V(NAME, 4, 2)                                                                                  \
    V(NAME, 4, 1)                                                                                  \
    V(NAME, 5, 2)                                                                                  \
    V(NAME, 5, 1)                                                                                  \
    V(NAME, 6, 2)                                                                                  \
    V(NAME, 6, 1)                                                                                  \
    V(NAME, 7, 2)                                                                                  \
    V(NAME, 7, 1)                                                                                  \
    V(NAME, 8, 1)                                                                                  \
    V(NAME, 10, 1)                                                                                 \
    V(NAME, 12, 1)                                                                                 \
    V(NAME, 14, 1)                                                                                 \
    V(NAME, 16, 1)
/* EXTRA: entries of one row and more tiles that a class has beside these, or nothing. */
#define BLOCK_VARIANTS_AND(NAME, EXTRA)                                                            \
    BLOCK_SIZES(BLOCK_VARIANT, NAME)                                                               \
    static const struct block_variant NAME##_variants[] = {EXTRA BLOCK_SIZES(BLOCK_ENTRY, NAME)};
#define BLOCK_VARIANTS(NAME) BLOCK_VARIANTS_AND(NAME, )

/* Of the variants for a chunk's rows the widest that lies within bundles and has its tiles left. */
INLINE void run_block(const struct block_variant *variants, const struct tiled_work *work,
                      int64_t tile_begin, int64_t tile_end) {
    while (variants->rows != work->chunk.rows)
        variants++;
    for (int64_t tile = tile_begin; tile < tile_end;) {
        const struct block_variant *variant = variants;
        while (tile % variant->tiles != 0 || tile + variant->tiles > tile_end)
            variant++;
        variant->run(work, tile);
        tile += variant->tiles;
    }
}

static inline void read_row(const void *x, uint32_t type, int64_t count, float *out) {
    size_t bytes = kry_type_bytes(type);
    for (int64_t k = 0; k < count; k += 16) {
        __mmask16 mask = (__mmask16)(count - k >= 16 ? 0xffffu : (1u << (uint32_t)(count - k)) - 1);
        _mm512_mask_storeu_ps(out + k, mask,
                              load_16((const uint8_t *)x + (size_t)k * bytes, type, mask));
    }
}

#endif
