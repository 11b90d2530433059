/*
 * What the micro-kernels of all classes do alike: the way through segments and rows, reading
 * scales, zero points and bias, converting rows of x, storing rows of y.
 *
 * A tile of sixteen output features is two registers of eight. Of sixteen registers at most
 * twelve are sums, so a micro-kernel computes one segment for 1 to 6 rows and, where rows are
 * few, several tiles: at least 8 sums where that can be, since a sum's next addition waits for
 * the one before. A chunk of more rows runs through a segment in steps of nearly equal size. The
 * first of them keeps what it unpacks, which the others read from L1: unpacking takes a sixth of
 * a multiplication's units on Zen 3. Totals lie in memory and are touched once a segment.
 */
#ifndef KERNELRY_AVX2_BLOCK_H
#define KERNELRY_AVX2_BLOCK_H

#include "kernels.h"

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define NO_UNROLL _Pragma("GCC unroll 1")
#endif

enum {
    LANES = 8,
    HALVES = TILE_N / LANES, /* registers of a tile */
    WORD_BYTES = TILE_N * 4, /* of a word for each output feature of a tile */
    TILES_MAX = 4,
    TILES_TOGETHER = 2, /* whose codes are kept at once */
    STEP_ROWS = 6,
    SUMS_MAX = 12,
    KEPT_OCTET_BYTES = OCTET * TILE_N * 4, /* at most, of a tile */
    OCTETS_AHEAD = 8,                      /* are fetched ahead; farther is slower on Zen 4 */
    GROUPS_AHEAD = 4,                      /* likewise of scales and zero points */
    KEPT_OCTETS = SEGMENT_OCTETS           /* of a tile, or of several that share them */
};

/* Work of a micro-kernel: a segment of ROWS rows and TILES tiles. */
struct step {
    const uint8_t *codes; /* of the first tile */
    int64_t octet_step;   /* from octet to octet */
    int32_t octets;
    const void *x;       /* [octets][fields][ROWS], see the class */
    const float *sums;   /* [ROWS]: of x over the segment */
    const float *scales; /* [TILES][16] */
    const float *zeros;  /* likewise */
    float *total;        /* [ROWS][TILES_MAX][16] */
    uint8_t *kept;       /* the segment's codes as they are multiplied, see the class */
};

/* Where a micro-kernel takes codes from. */
enum codes_from { UNPACKED, UNPACKED_AND_KEPT, KEPT };

typedef void step_function(const struct step *step);

/* The micro-kernels of a class: for each row count, for one tile and for as many as fit; and
 * those that keep what they unpack, or take what was kept, for one tile. */
struct step_functions {
    int32_t x_octet_bytes; /* packed x of a row and octet */
    int32_t rows_max;      /* of a step: 6, or 5 where a product needs registers, too */
    step_function *single[STEP_ROWS + 1];
    step_function *wide[STEP_ROWS + 1];
    step_function *keep[STEP_ROWS + 1]; /* of 3 rows and more: fewer are one step */
    step_function *kept[STEP_ROWS + 1];
    int32_t wide_tiles[STEP_ROWS + 1];
};

#define STEP_FUNCTION(NAME, ROWS, TILES)                                                           \
    static void NAME##_##ROWS##_##TILES(const struct step *step) {                                 \
        NAME(step, ROWS, TILES, UNPACKED);                                                         \
    }
#define STEP_FUNCTIONS_KEEP(NAME, ROWS)                                                            \
    static void NAME##_##ROWS##_keep(const struct step *step) {                                    \
        NAME(step, ROWS, 1, UNPACKED_AND_KEPT);                                                    \
    }                                                                                              \
    static void NAME##_##ROWS##_kept(const struct step *step) { NAME(step, ROWS, 1, KEPT); }
#define STEP_FUNCTIONS_TO_5(NAME)                                                                  \
    STEP_FUNCTION(NAME, 1, 4)                                                                      \
    STEP_FUNCTION(NAME, 1, 1)                                                                      \
    STEP_FUNCTION(NAME, 2, 2)                                                                      \
    STEP_FUNCTION(NAME, 2, 1)                                                                      \
    STEP_FUNCTION(NAME, 3, 2)                                                                      \
    STEP_FUNCTION(NAME, 3, 1)                                                                      \
    STEP_FUNCTION(NAME, 4, 1)                                                                      \
    STEP_FUNCTION(NAME, 5, 1)                                                                      \
    STEP_FUNCTIONS_KEEP(NAME, 3)                                                                   \
    STEP_FUNCTIONS_KEEP(NAME, 4)                                                                   \
    STEP_FUNCTIONS_KEEP(NAME, 5)
#define STEP_TABLE(NAME, X_OCTET_BYTES, ROWS_MAX, OF_6_ROWS, KEEP_6, KEPT_6)                       \
    static const struct step_functions NAME##_functions = {                                        \
        .x_octet_bytes = X_OCTET_BYTES,                                                            \
        .rows_max = ROWS_MAX,                                                                      \
        .single = {NULL, NAME##_1_1, NAME##_2_1, NAME##_3_1, NAME##_4_1, NAME##_5_1, OF_6_ROWS},   \
        .wide = {NULL, NAME##_1_4, NAME##_2_2, NAME##_3_2},                                        \
        .keep = {NULL, NULL, NULL, NAME##_3_keep, NAME##_4_keep, NAME##_5_keep, KEEP_6},           \
        .kept = {NULL, NULL, NULL, NAME##_3_kept, NAME##_4_kept, NAME##_5_kept, KEPT_6},           \
        .wide_tiles = {0, 4, 2, 2, 1, 1, 1}};

/* Define NAME_functions from the inline function NAME, for steps of up to 5 or 6 rows. */
#define STEP_FUNCTIONS_5(NAME, X_OCTET_BYTES)                                                      \
    STEP_FUNCTIONS_TO_5(NAME)                                                                      \
    STEP_TABLE(NAME, X_OCTET_BYTES, 5, NULL, NULL, NULL)
#define STEP_FUNCTIONS_6(NAME, X_OCTET_BYTES)                                                      \
    STEP_FUNCTIONS_TO_5(NAME)                                                                      \
    STEP_FUNCTION(NAME, 6, 1)                                                                      \
    STEP_FUNCTIONS_KEEP(NAME, 6)                                                                   \
    STEP_TABLE(NAME, X_OCTET_BYTES, 6, NAME##_6_1, NAME##_6_keep, NAME##_6_kept)

/* Define u4 and u8 from the inline function segment, which takes the bits of a code. */
#define STEPS_OF_SEGMENT                                                                           \
    INLINE void u4(const struct step *step, const int ROWS, const int TILES,                       \
                   const enum codes_from FROM) {                                                   \
        segment(step, ROWS, TILES, 4, FROM);                                                       \
    }                                                                                              \
    INLINE void u8(const struct step *step, const int ROWS, const int TILES,                       \
                   const enum codes_from FROM) {                                                   \
        segment(step, ROWS, TILES, 8, FROM);                                                       \
    }

/* The rows of a chunk that are computed together; packed as if they were a chunk of their own,
 * behind those before. */
struct row_range {
    int32_t begin, count;
};

INLINE int32_t step_count(const struct step_functions *functions, int32_t rows) {
    return (rows + functions->rows_max - 1) / functions->rows_max;
}

INLINE struct row_range step_rows(const struct step_functions *functions, int32_t rows,
                                  int32_t step) {
    int32_t steps = step_count(functions, rows);
    int32_t begin = (rows * step + steps - 1) / steps;
    return (struct row_range){begin, (rows * (step + 1) + steps - 1) / steps - begin};
}

/* Bytes from tile to tile of a bundle. */
INLINE int octet_bytes(const int BITS) { return BITS / 4 * WORD_BYTES; }

/* Fetch what lies as `codes` does a few octets later, for each tile. */
INLINE void prefetch(const struct step *step, const uint8_t *codes, const int TILES,
                     const int BITS) {
    const char *ahead = (const char *)codes + OCTETS_AHEAD * step->octet_step;
    UNROLL for (int t = 0; t < TILES; t++) _mm_prefetch(ahead + t * octet_bytes(BITS), _MM_HINT_T0);
}

/* f32 from `count` (1 to 8) elements at any alignment, 0 in the other lanes. */
INLINE __m256 load_8(const void *from, uint32_t type, int64_t count) {
    __m256i bytes;
    if (count < LANES) {
        bytes = _mm256_setzero_si256();
        memcpy(&bytes, from, (size_t)count * kry_type_bytes(type));
    } else if (type == KRY_TYPE_F32) {
        bytes = _mm256_loadu_si256(from);
    } else {
        bytes = _mm256_castsi128_si256(_mm_loadu_si128(from));
    }
    __m128i narrow = _mm256_castsi256_si128(bytes);
    if (type == KRY_TYPE_F32)
        return _mm256_castsi256_ps(bytes);
    if (type == KRY_TYPE_F16)
        return _mm256_cvtph_ps(narrow);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
}

/* Rounded to nearest even; a NaN of bf16 stays one. */
INLINE __m128i bf16_of(__m256 value) {
    __m256i bits = _mm256_castps_si256(value);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    up = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(up), _mm256_extracti128_si256(up, 1));
}

INLINE void store_8(void *to, uint32_t type, int64_t count, __m256 value) {
    __m256i bits = _mm256_castps_si256(value);
    if (type == KRY_TYPE_F16)
        bits = _mm256_castsi128_si256(_mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
    else if (type == KRY_TYPE_BF16)
        bits = _mm256_castsi128_si256(bf16_of(value));
    if (count < LANES)
        memcpy(to, &bits, (size_t)count * kry_type_bytes(type));
    else if (type == KRY_TYPE_F32)
        _mm256_storeu_si256(to, bits);
    else
        _mm_storeu_si128(to, _mm256_castsi256_si128(bits));
}

static void read_row(const void *x, uint32_t type, int64_t count, float *out) {
    size_t bytes = kry_type_bytes(type);
    for (int64_t k = 0; k < count; k += LANES) {
        int64_t left = count - k < LANES ? count - k : LANES;
        store_8(out + k, KRY_TYPE_F32, left,
                load_8((const uint8_t *)x + (size_t)k * bytes, type, left));
    }
}

/* Scales and zero points of tiles beside each other. */
struct groups {
    const uint8_t *scales; /* of the first tile's first group */
    const uint8_t *zeros;  /* NULL: the type's bias for all */
    int64_t step;          /* places from group to group */
    int32_t scale_bytes;
    uint32_t scale_type;
};

INLINE struct groups groups_of(const struct tiled_work *work, const struct tiled_run *run) {
    const struct tiled_shape *shape = &work->bound->shape;
    const uint8_t *prepared = work->bound->prepared;
    bool zeros = kry_weight_has_zero_points(work->linear->weight_type);
    return (struct groups){prepared + shape->scales_at + run->groups * (uint64_t)shape->scale_bytes,
                           zeros ? prepared + shape->zeros_at + run->groups : NULL, run->group_step,
                           shape->scale_bytes, work->linear->scale_type};
}

/* The scales of a group as floats, and its zero points where there are any; others are fetched
 * ahead: from memory they come too late. */
INLINE void read_group(const struct groups *from, int32_t group, int32_t tiles, float *scales,
                       float *zeros) {
    int64_t place = group * from->step, ahead = place + GROUPS_AHEAD * from->step;
    _mm_prefetch((const char *)from->scales + ahead * from->scale_bytes, _MM_HINT_T0);
    if (tiles * TILE_N * from->scale_bytes > 64)
        _mm_prefetch((const char *)from->scales + ahead * from->scale_bytes + 64, _MM_HINT_T0);
    for (int32_t n = 0; n < tiles * TILE_N; n += LANES)
        _mm256_store_ps(scales + n, load_8(from->scales + (place + n) * from->scale_bytes,
                                           from->scale_type, LANES));
    if (from->zeros == NULL)
        return;
    _mm_prefetch((const char *)from->zeros + ahead, _MM_HINT_T0);
    for (int32_t n = 0; n < tiles * TILE_N; n += LANES) {
        __m128i bytes = _mm_loadl_epi64((const void *)(from->zeros + place + n));
        _mm256_store_ps(zeros + n, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)));
    }
}

/* total += (sum - z * sum of x) * scale, for half h of tile t, row r; all before the scale is
 * exact where x is one-hot or int8. */
INLINE void add_segment(const struct step *step, int t, int r, int h, __m256 sum) {
    int n = t * TILE_N + h * LANES;
    __m256 zero = _mm256_load_ps(step->zeros + n);
    __m256 scale = _mm256_load_ps(step->scales + n);
    float *total = step->total + r * TILES_MAX * TILE_N + n;
    __m256 centred = _mm256_fnmadd_ps(zero, _mm256_set1_ps(step->sums[r]), sum);
    _mm256_store_ps(total, _mm256_fmadd_ps(centred, scale, _mm256_load_ps(total)));
}

/* Scale where x is quantized, add bias, round once, store a row of a tile. */
INLINE void finish(const struct tiled_work *work, int64_t tile, int32_t row, const float *total) {
    const kry_linear *linear = work->linear;
    size_t bytes = kry_type_bytes(linear->y_type);
    for (int64_t h = 0; h < HALVES; h++) {
        int64_t n = tile * TILE_N + h * LANES, count = linear->out_features - n;
        if (count <= 0)
            return;
        count = count < LANES ? count : LANES;
        __m256 y = _mm256_load_ps(total + h * LANES);
        y = _mm256_mul_ps(y, _mm256_set1_ps(work->chunk.scales[row]));
        if (work->args->bias != NULL)
            y = _mm256_add_ps(y, load_8((const uint8_t *)work->args->bias + (size_t)n * bytes,
                                        linear->y_type, count));
        int64_t place = (work->chunk.row + row) * work->args->y_stride + n;
        store_8((uint8_t *)work->args->y + (size_t)place * bytes, linear->y_type, count, y);
    }
}

/* The steps of a chunk. */
struct steps {
    int32_t count;
    struct row_range rows[CHUNK_ROWS];
};

INLINE struct steps steps_of(const struct step_functions *functions, int32_t rows) {
    struct steps steps = {.count = step_count(functions, rows)};
    for (int32_t s = 0; s < steps.count; s++)
        steps.rows[s] = step_rows(functions, rows, s);
    return steps;
}

/* Point a step to its rows' x and sums in segment i; returns where their totals begin. */
INLINE int32_t place_step(const struct step_functions *functions, const struct tiled_work *work,
                          struct row_range rows, int64_t i, struct step *step) {
    const struct tiled_bound *bound = work->bound;
    int64_t octets =
        rows.begin * bound->shape.octets + rows.count * (int64_t)bound->segments[i].octet_begin;
    step->x = (const uint8_t *)work->chunk.x + octets * functions->x_octet_bytes;
    step->sums = work->chunk.sums + rows.begin * bound->segment_count + rows.count * i;
    return rows.begin * TILES_MAX * TILE_N;
}

/* A segment of a chunk of more than one step: as many tiles together as leave what they keep in L1,
 * so that x comes from farther away once for them all. */
INLINE void run_steps(const struct step_functions *functions, const struct steps *steps,
                      const struct tiled_work *work, struct step *step, int64_t i, int32_t tiles) {
    const struct step first = *step;
    int64_t codes = work->bound->shape.octet_bytes;
    int32_t kept = first.octets * KEPT_OCTET_BYTES;
    int32_t together = tiles * first.octets <= KEPT_OCTETS ? tiles : 1;
    for (int32_t begin = 0; begin < tiles; begin += together)
        for (int32_t s = 0; s < steps->count; s++) {
            int32_t total = place_step(functions, work, steps->rows[s], i, step);
            step_function *run = (s == 0 ? functions->keep : functions->kept)[steps->rows[s].count];
            for (int32_t t = begin; t < begin + together; t++) {
                step->codes = first.codes + t * codes;
                step->scales = first.scales + t * TILE_N;
                step->zeros = first.zeros + t * TILE_N;
                step->total = first.total + total + t * TILE_N;
                step->kept = first.kept + (t - begin) * kept;
                run(step);
            }
        }
    *step = first;
}

/* All rows of the chunk for `tiles` tiles from tile on; `at_once`: the micro-kernel of as many rows
 * and tiles, or NULL where the rows take more than one step. */
INLINE void run_tiles(const struct step_functions *functions, const struct steps *steps,
                      step_function *at_once, const struct tiled_work *work, int64_t tile,
                      int32_t tiles) {
    const struct tiled_bound *bound = work->bound;
    int32_t rows = work->chunk.rows;
    _Alignas(64) uint8_t kept[KEPT_OCTETS * KEPT_OCTET_BYTES];
    _Alignas(32) float total[CHUNK_ROWS * TILES_MAX * TILE_N];
    _Alignas(32) float scales[TILES_MAX * TILE_N], zeros[TILES_MAX * TILE_N];
    const struct tiled_run run = tiled_run_of(&bound->shape, tile);
    const struct groups groups = groups_of(work, &run);
    struct step step = {.codes = bound->prepared + run.codes,
                        .octet_step = run.octet_step,
                        .scales = scales,
                        .zeros = zeros,
                        .total = total,
                        .kept = kept};
    memset(total, 0, (size_t)rows * TILES_MAX * TILE_N * sizeof total[0]);
    for (int32_t n = 0; n < tiles * TILE_N; n++)
        zeros[n] = work->linear->weight_type == KRY_WEIGHT_U4B8 ? 8.0f : 128.0f;
    for (int64_t i = 0; i < bound->segment_count; i++) {
        read_group(&groups, bound->segments[i].group, tiles, scales, zeros);
        step.octets = bound->segments[i].octet_count;
        if (at_once != NULL) {
            place_step(functions, work, steps->rows[0], i, &step);
            at_once(&step);
        } else {
            run_steps(functions, steps, work, &step, i, tiles);
        }
        step.codes += step.octets * run.octet_step;
    }
    for (int32_t r = 0; r < work->chunk.used; r++)
        for (int32_t t = 0; t < tiles; t++)
            finish(work, tile + t, r, total + (r * TILES_MAX + t) * TILE_N);
}

/* Tiles [begin, end) of the work. */
static void run_block(const struct step_functions *functions, const struct tiled_work *work,
                      int64_t begin, int64_t end) {
    const struct steps steps = steps_of(functions, work->chunk.rows);
    int32_t rows = steps.rows[0].count;
    int32_t most = steps.count == 1 ? functions->wide_tiles[rows] : TILES_TOGETHER;
    for (int64_t tile = begin; tile < end;) {
        /* Of tiles within a bundle. */
        int32_t tiles = tile % most == 0 && tile + most <= end ? most : 1;
        step_function *at_once = (tiles > 1 ? functions->wide : functions->single)[rows];
        run_tiles(functions, &steps, steps.count == 1 ? at_once : NULL, work, tile, tiles);
        tile += tiles;
    }
}

/* Pack a row into its step of a chunk. */
INLINE float pack_in_step(const struct step_functions *functions, tiled_pack_row *pack,
                          const struct tiled_bound *bound, float *x, const kry_linear *linear,
                          int32_t row, int32_t rows, void *packed, float *sums) {
    int32_t step = 0;
    struct row_range range = step_rows(functions, rows, step);
    while (range.begin + range.count <= row)
        range = step_rows(functions, rows, ++step);
    return pack(bound, x, linear, row - range.begin, range.count,
                (uint8_t *)packed + range.begin * bound->shape.octets * functions->x_octet_bytes,
                sums + range.begin * bound->segment_count);
}

#endif
