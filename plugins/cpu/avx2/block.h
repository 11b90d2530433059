/*
 * What the micro-kernels of all classes do alike: reading scales, zero points and bias, adding a
 * segment to totals, converting rows of x, storing rows of y.
 *
 * A tile of sixteen output features is two registers of eight. Of sixteen registers at most
 * twelve are sums, so a micro-kernel computes one segment for 1 to 6 rows and, where rows are
 * few, several tiles: at least 8 sums where that can be, since a sum's next addition waits for
 * the one before. More rows run through a segment in steps, see batch.h.
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
    TILES_MAX = 4,           /* of a micro-kernel, or whose codes are unpacked at once */
    STEP_ROWS = 6,
    SUMS_MAX = 12,
    BATCH_CHUNKS = 4, /* which share unpacked codes */
    BATCH_ROWS = BATCH_CHUNKS * CHUNK_ROWS,
    OCTETS_AHEAD = 8,                          /* are fetched ahead; farther is slower on Zen 4 */
    GROUPS_AHEAD = 4,                          /* likewise of scales and zero points */
    UNPACKED_OCTET_BYTES = OCTET * TILE_N * 4, /* at most, of a tile */
    UNPACKED_OCTETS = SEGMENT_OCTETS,          /* of a tile, or of several */
    SHARED_OCTETS = 32                         /* of several */
};

/* Tiles of a segment, which a micro-kernel multiplies with some rows. */
struct step {
    const uint8_t *codes; /* of the first tile */
    int64_t octet_step;   /* from octet to octet */
    int32_t octets;
    int32_t tiles;       /* where the micro-kernel does not know them */
    const float *scales; /* [tiles][16] */
    const float *zeros;  /* likewise */
    int64_t total_step;  /* from tile to tile */
    int64_t unpacked_step;
    uint8_t *unpacked; /* [tiles][octets]: codes as they are multiplied, see the class */
};

/* The rows; a micro-kernel moves on to their next segment. Another step's, or a copy, follow. */
struct step_rows {
    const void *x;      /* [octets][fields][ROWS], see the class */
    const void *x_next; /* that of the next step, to be fetched ahead */
    const float *sums;  /* [ROWS]: of x over the segment */
    float *total;       /* [ROWS][16] of the first tile */
};

/* Where a micro-kernel takes codes from. */
enum codes_from { PACKED, UNPACKED };

typedef void step_function(const struct step *step, struct step_rows *rows);
typedef void unpack_function(const struct step *step);

/* The micro-kernels of a class: for each row count, for one tile and for as many as fit, from
 * packed codes; what unpacks codes of any number of tiles, and those that multiply them. */
struct step_functions {
    int32_t x_octet_bytes; /* packed x of a row and octet */
    int32_t rows_max;      /* of a step: 6, or 5 where a product needs registers, too */
    step_function *single[STEP_ROWS + 1];
    step_function *wide[STEP_ROWS + 1];
    int32_t unpacked_octet_bytes; /* of a tile */
    unpack_function *unpack;
    step_function *unpacked[STEP_ROWS + 1]; /* of 3 rows and more: fewer are one step */
    int32_t wide_tiles[STEP_ROWS + 1];
};

#define STEP_FUNCTION(NAME, ROWS, TILES)                                                           \
    static void NAME##_##ROWS##_##TILES(const struct step *step, struct step_rows *rows) {         \
        const struct step own = *step;                                                             \
        const struct step_rows at = *rows;                                                         \
        rows->x = NAME(&own, &at, ROWS, TILES, PACKED);                                            \
        rows->sums += (ROWS);                                                                      \
    }
#define STEP_FUNCTION_UNPACKED(NAME, ROWS)                                                         \
    static void NAME##_##ROWS##_unpacked(const struct step *step, struct step_rows *rows) {        \
        struct step own = *step;                                                                   \
        struct step_rows at = *rows;                                                               \
        at.x_next = rows[1].x;                                                                     \
        NO_UNROLL for (int32_t tile = own.tiles; tile > 0; tile--) {                               \
            rows->x = NAME(&own, &at, ROWS, 1, UNPACKED);                                          \
            own.unpacked += own.unpacked_step;                                                     \
            own.scales += TILE_N;                                                                  \
            own.zeros += TILE_N;                                                                   \
            at.total += own.total_step;                                                            \
        }                                                                                          \
        rows->sums += (ROWS);                                                                      \
    }
#define STEP_FUNCTIONS_TO_5(NAME)                                                                  \
    STEP_FUNCTION(NAME, 1, 4)                                                                      \
    STEP_FUNCTION(NAME, 1, 1)                                                                      \
    STEP_FUNCTION(NAME, 2, 2)                                                                      \
    STEP_FUNCTION(NAME, 2, 1)                                                                      \
    STEP_FUNCTION(NAME, 3, 2)                                                                      \
    STEP_FUNCTION(NAME, 3, 1)                                                                      \
    STEP_FUNCTION(NAME, 4, 1)                                                                      \
    STEP_FUNCTION(NAME, 5, 1)                                                                      \
    STEP_FUNCTION_UNPACKED(NAME, 3)                                                                \
    STEP_FUNCTION_UNPACKED(NAME, 4)                                                                \
    STEP_FUNCTION_UNPACKED(NAME, 5)
#define STEP_TABLE(NAME, X_OCTET_BYTES, UNPACKED_BYTES, ROWS_MAX, OF_6_ROWS, UNPACKED_6)           \
    static const struct step_functions NAME##_functions = {                                        \
        .x_octet_bytes = (X_OCTET_BYTES),                                                          \
        .rows_max = (ROWS_MAX),                                                                    \
        .single = {NULL, NAME##_1_1, NAME##_2_1, NAME##_3_1, NAME##_4_1, NAME##_5_1, OF_6_ROWS},   \
        .wide = {NULL, NAME##_1_4, NAME##_2_2, NAME##_3_2},                                        \
        .unpacked_octet_bytes = (UNPACKED_BYTES),                                                  \
        .unpack = NAME##_unpack,                                                                   \
        .unpacked = {NULL, NULL, NULL, NAME##_3_unpacked, NAME##_4_unpacked, NAME##_5_unpacked,    \
                     UNPACKED_6},                                                                  \
        .wide_tiles = {0, 4, 2, 2, 1, 1, 1}};

/* Define NAME_functions from the inline function NAME and NAME_unpack, for steps of up to 5 or 6
 * rows. */
#define STEP_FUNCTIONS_5(NAME, X_OCTET_BYTES, UNPACKED_BYTES)                                      \
    STEP_FUNCTIONS_TO_5(NAME)                                                                      \
    STEP_TABLE(NAME, X_OCTET_BYTES, UNPACKED_BYTES, 5, NULL, NULL)
#define STEP_FUNCTIONS_6(NAME, X_OCTET_BYTES, UNPACKED_BYTES)                                      \
    STEP_FUNCTIONS_TO_5(NAME)                                                                      \
    STEP_FUNCTION(NAME, 6, 1)                                                                      \
    STEP_FUNCTION_UNPACKED(NAME, 6)                                                                \
    STEP_TABLE(NAME, X_OCTET_BYTES, UNPACKED_BYTES, 6, NAME##_6_1, NAME##_6_unpacked)

/* Define u4, u8 and what unpacks for them from the inline functions segment and unpack_octet, which
 * take the bits of a code. */
#define STEPS_OF_BITS(BITS, OCTET_BYTES)                                                           \
    static void u##BITS##_unpack(const struct step *step) {                                        \
        unpack_tiles(step, BITS, OCTET_BYTES, unpack_octet);                                       \
    }                                                                                              \
    INLINE const void *u##BITS(const struct step *step, const struct step_rows *rows,              \
                               const int ROWS, const int TILES, const enum codes_from FROM) {      \
        return segment(step, rows, ROWS, TILES, BITS, FROM);                                       \
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

/* total += (sum - z * sum of x) * scale, for ROWS rows of a tile; all before the scale is exact
 * where x is one-hot or int8. */
INLINE void add_segment(const struct step *step, const struct step_rows *rows, int tile,
                        const __m256 *sum, const int ROWS) {
    UNROLL for (int h = 0; h < HALVES; h++) {
        const int n = tile * TILE_N + h * LANES;
        const __m256 zero = _mm256_load_ps(step->zeros + n);
        const __m256 scale = _mm256_load_ps(step->scales + n);
        float *total = rows->total + tile * step->total_step + h * LANES;
        UNROLL for (int r = 0; r < ROWS; r++, total += TILE_N) {
            __m256 centred =
                _mm256_fnmadd_ps(zero, _mm256_broadcast_ss(rows->sums + r), sum[r * HALVES + h]);
            _mm256_store_ps(total, _mm256_fmadd_ps(centred, scale, _mm256_load_ps(total)));
        }
    }
}

/* The same for sums of integers, which floats hold exactly. */
INLINE void add_integers(const struct step *step, const struct step_rows *rows, const __m256i *sum,
                         const int ROWS, const int TILES) {
    UNROLL for (int t = 0; t < TILES; t++) {
        __m256 floats[SUMS_MAX];
        UNROLL for (int i = 0; i < ROWS * HALVES; i++) floats[i] =
            _mm256_cvtepi32_ps(sum[t * ROWS * HALVES + i]);
        add_segment(step, rows, t, floats, ROWS);
    }
}

/* Unpack the codes of an octet of a tile. */
typedef void unpack_octet_function(const uint8_t *codes, uint8_t *unpacked, const int BITS);

INLINE void unpack_tiles(const struct step *to, const int BITS, const int OCTET_BYTES,
                         unpack_octet_function *unpack) {
    struct step step = *to;
    for (int32_t o = step.octets; o > 0; o--) {
        for (int32_t t = 0; t < step.tiles; t++) {
            const uint8_t *at = step.codes + t * octet_bytes(BITS);
            for (int word = 0; word < BITS / 4; word++)
                prefetch(&step, at + word * WORD_BYTES, 1, BITS);
            unpack(at, step.unpacked + t * step.unpacked_step, BITS);
        }
        step.codes += step.octet_step;
        step.unpacked += OCTET_BYTES;
    }
}

/* Scale where x is quantized, add bias, round once, store a row of a tile. */
INLINE void finish(const struct tiled_work *work, const struct tiled_chunk *chunk, int64_t tile,
                   int32_t row, const float *total) {
    const kry_linear *linear = work->linear;
    size_t bytes = kry_type_bytes(linear->y_type);
    for (int64_t h = 0; h < HALVES; h++) {
        int64_t n = tile * TILE_N + h * LANES, count = linear->out_features - n;
        if (count <= 0)
            return;
        count = count < LANES ? count : LANES;
        __m256 y = _mm256_load_ps(total + h * LANES);
        y = _mm256_mul_ps(y, _mm256_set1_ps(chunk->scales[row]));
        if (work->args->bias != NULL)
            y = _mm256_add_ps(y, load_8((const uint8_t *)work->args->bias + (size_t)n * bytes,
                                        linear->y_type, count));
        int64_t place = (chunk->row + row) * work->args->y_stride + n;
        store_8((uint8_t *)work->args->y + (size_t)place * bytes, linear->y_type, count, y);
    }
}

#endif
