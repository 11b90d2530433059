/*
 * What the micro-kernels of all classes do alike: reading scales, zero points and bias of four
 * output features, converting rows of x, storing rows of y.
 *
 * A register holds a quad, four of a tile's sixteen output features. A micro-kernel is one inline
 * function of ROWS and QUADS, both constants, so that every accumulator is a register: ROWS *
 * QUADS of them, of the 32 that there are. At least 8 where that can be, since a sum's next
 * addition waits for the one before; at most 24, so that codes and x have room beside them.
 * Whatever the class, packed x is a word of 32 bits for each row: a float, two bf16, four int8.
 */
#ifndef KERNELRY_NEON_BLOCK_H
#define KERNELRY_NEON_BLOCK_H

#include "kernels.h"

#include <arm_neon.h>
#include <stdbool.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

enum { QUAD = 4, TILE_QUADS = TILE_N / QUAD, ROWS_MAX = CHUNK_ROWS, SUMS_MAX = 24 };

/* The lane of an instruction must be a literal. */
#define BY_LANE(FUNCTION, SUM, W, X, LANE)                                                         \
    ((LANE) % 4 == 0   ? FUNCTION(SUM, W, X, 0)                                                    \
     : (LANE) % 4 == 1 ? FUNCTION(SUM, W, X, 1)                                                    \
     : (LANE) % 4 == 2 ? FUNCTION(SUM, W, X, 2)                                                    \
                       : FUNCTION(SUM, W, X, 3))

/* The same value, which the compiler takes for a new one: it can neither be loaded lane by lane
 * nor be made before a loop and held, which would cost the registers of some sums. */
INLINE uint32x4_t keep_register(uint32x4_t value) {
    __asm__ volatile("" : "+w"(value));
    return value;
}

/* The words of ROWS rows, row r in lane r % 4 of register r / 4. */
INLINE void load_rows(const void *x, uint32x4_t *to, const int ROWS) {
    const uint32_t *words = x;
    UNROLL for (int r = 0; r + 4 <= ROWS; r += 4) to[r / 4] = vld1q_u32(words + r);
    const uint32_t *rest = words + ROWS / 4 * 4;
    uint32x4_t *last = &to[ROWS / 4];
    if (ROWS % 4 == 1)
        *last = vld1q_dup_u32(rest);
    if (ROWS % 4 >= 2)
        *last = vcombine_u32(vld1_u32(rest), vdup_n_u32(0));
    if (ROWS % 4 == 3)
        *last = vld1q_lane_u32(rest + 2, *last, 2);
    UNROLL for (int i = 0; i < (ROWS + 3) / 4; i++) to[i] = keep_register(to[i]);
}

/* Two rows of words x and of words y, side by side: x0 y0 x1 y1. */
INLINE uint32x4_t load_pair(const uint32_t *x, const uint32_t *y) {
    const uint32x2_t none = vdup_n_u32(0);
    return vzip1q_u32(vcombine_u32(vld1_u32(x), none), vcombine_u32(vld1_u32(y), none));
}

/* Whether a matrix instruction, which multiplies 2 output features by 2 rows, computes the rows. */
INLINE bool in_pairs(const int ROWS) { return ROWS % 2 == 0 && ROWS > 2; }

/* f32 from four elements at any alignment. */
INLINE float32x4_t load_4(const void *from, uint32_t type) {
    if (type == KRY_TYPE_F32)
        return vreinterpretq_f32_u8(vld1q_u8(from));
    uint8x8_t narrow = vld1_u8(from);
    if (type == KRY_TYPE_F16)
        return vcvt_f32_f16(vreinterpret_f16_u8(narrow));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(narrow), 16));
}

/* Rounded to nearest even; a NaN of bf16 stays one. */
INLINE uint16x4_t bf16_of(float32x4_t value) {
    uint32x4_t bits = vreinterpretq_u32_f32(value);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t up = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(value, value), up, quiet), 16);
}

INLINE void store_4(void *to, uint32_t type, float32x4_t value) {
    if (type == KRY_TYPE_F32)
        vst1q_u8(to, vreinterpretq_u8_f32(value));
    else if (type == KRY_TYPE_F16)
        vst1_u8(to, vreinterpret_u8_f16(vcvt_f16_f32(value)));
    else
        vst1_u8(to, vreinterpret_u8_u16(bf16_of(value)));
}

/* The first `count` of four elements; the others are 0. */
INLINE float32x4_t load_some(const void *from, uint32_t type, int64_t count) {
    uint32_t elements[QUAD] = {0};
    memcpy(elements, from, (size_t)count * kry_type_bytes(type));
    return load_4(elements, type);
}

INLINE void store_some(void *to, uint32_t type, int64_t count, float32x4_t value) {
    uint32_t elements[QUAD];
    store_4(elements, type, value);
    memcpy(to, elements, (size_t)count * kry_type_bytes(type));
}

/* The scales of a quad's group. */
INLINE float32x4_t scales_of(const struct tiled_work *work, int64_t quad, int32_t group) {
    const struct tiled_shape *shape = &work->bound->shape;
    uint64_t place = tiled_group_place(shape, quad * QUAD, group);
    return load_4(work->bound->prepared + shape->scales_at + place * (uint64_t)shape->scale_bytes,
                  work->linear->scale_type);
}

/* The zero points, or the type's bias. */
INLINE float32x4_t zeros_of(const struct tiled_work *work, int64_t quad, int32_t group) {
    const struct tiled_shape *shape = &work->bound->shape;
    if (!kry_weight_has_zero_points(work->linear->weight_type))
        return vdupq_n_f32(work->linear->weight_type == KRY_WEIGHT_U4B8 ? 8.0f : 128.0f);
    uint64_t place = tiled_group_place(shape, quad * QUAD, group);
    uint32_t bytes;
    memcpy(&bytes, work->bound->prepared + shape->zeros_at + place, sizeof bytes);
    uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bytes)));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
}

/* Where a micro-kernel's codes begin and how far apart its octets lie. */
struct codes_run {
    const uint8_t *begin;
    int64_t octet_step;
};

INLINE struct codes_run codes_of(const struct tiled_work *work, int64_t quad) {
    const struct tiled_run run = tiled_run_of(&work->bound->shape, quad / TILE_QUADS);
    const uint8_t *tile = work->bound->prepared + run.codes;
    return (struct codes_run){tile + quad % TILE_QUADS * 16, run.octet_step};
}

/* Sixteen bytes of quad q of a micro-kernel, whose first is at `codes`. A block within a tile
 * starts at any quad, one of several tiles of a bundle at a tile's first. */
INLINE uint8x16_t codes_at(const uint8_t *codes, int q, const int BITS) {
    enum { AHEAD = 2048 }; /* bytes of codes that are fetched ahead; each is used once at small m */
    const uint8_t *at = codes + q / TILE_QUADS * 16 * BITS + q % TILE_QUADS * 16;
    if (q % TILE_QUADS == 0)
        __builtin_prefetch(at + AHEAD);
    return vld1q_u8(at);
}

/* Add bias, round once, store a row of a quad. Once for each element of y: not inlined. */
static void finish(const struct tiled_work *work, int64_t quad, int32_t row, float32x4_t total) {
    const kry_linear *linear = work->linear;
    int64_t n = quad * QUAD, left = linear->out_features - n;
    if (row >= work->chunk.used || left <= 0)
        return;
    size_t bytes = kry_type_bytes(linear->y_type);
    uint8_t *y = (uint8_t *)work->args->y +
                 (size_t)((work->chunk.row + row) * work->args->y_stride + n) * bytes;
    const uint8_t *bias = work->args->bias;
    if (bias != NULL) {
        bias += (size_t)n * bytes;
        total = vaddq_f32(total, left < QUAD ? load_some(bias, linear->y_type, left)
                                             : load_4(bias, linear->y_type));
    }
    if (left < QUAD)
        store_some(y, linear->y_type, left, total);
    else
        store_4(y, linear->y_type, total);
}

/* total += (sum - (z - off) * sum of x) * scale, for the quads and rows of a micro-kernel; all
 * before the scale is exact where x is one-hot or int8. Not inlined: its registers would be taken
 * from those of the sums. */
static __attribute__((noinline)) void add_segment(const struct tiled_work *work, int64_t quad,
                                                  int32_t quads, int32_t group, const float *sums,
                                                  float off, const float32x4_t *sum,
                                                  float32x4_t *total) {
    int32_t rows = work->chunk.rows;
    for (int64_t q = 0; q < quads; q++) {
        float32x4_t scale = scales_of(work, quad + q, group);
        float32x4_t zero = vsubq_f32(zeros_of(work, quad + q, group), vdupq_n_f32(off));
        for (int32_t r = 0; r < rows; r++, sum++, total++)
            *total = vfmaq_f32(*total, vfmsq_n_f32(*sum, zero, sums[r]), scale);
    }
}

/* A micro-kernel for a count of rows and of quads. */
struct block_variant {
    int32_t rows, quads;
    void (*compute)(const struct tiled_work *work, int64_t quad);
};

#define BLOCK_VARIANT(NAME, ROWS, QUADS)                                                           \
    static void NAME##_##ROWS##_##QUADS(const struct tiled_work *work, int64_t quad) {             \
        NAME(work, quad, ROWS, QUADS);                                                             \
    }
/* One row takes two tiles at once while there are two. */
#define BLOCK_VARIANTS(NAME)                                                                       \
    BLOCK_VARIANT(NAME, 1, 8)                                                                      \
    BLOCK_VARIANT(NAME, 1, 4)                                                                      \
    BLOCK_VARIANT(NAME, 2, 4)                                                                      \
    BLOCK_VARIANT(NAME, 3, 4)                                                                      \
    BLOCK_VARIANT(NAME, 4, 4)                                                                      \
    BLOCK_VARIANT(NAME, 5, 4)                                                                      \
    BLOCK_VARIANT(NAME, 6, 2)                                                                      \
    BLOCK_VARIANT(NAME, 7, 2)                                                                      \
    BLOCK_VARIANT(NAME, 8, 2)                                                                      \
    BLOCK_VARIANT(NAME, 10, 2)                                                                     \
    BLOCK_VARIANT(NAME, 12, 2)                                                                     \
    BLOCK_VARIANT(NAME, 14, 1)                                                                     \
    BLOCK_VARIANT(NAME, 16, 1)                                                                     \
    static const struct block_variant NAME##_variants[] = {                                        \
        {1, 8, NAME##_1_8},  {1, 4, NAME##_1_4},   {2, 4, NAME##_2_4},   {3, 4, NAME##_3_4},       \
        {4, 4, NAME##_4_4},  {5, 4, NAME##_5_4},   {6, 2, NAME##_6_2},   {7, 2, NAME##_7_2},       \
        {8, 2, NAME##_8_2},  {10, 2, NAME##_10_2}, {12, 2, NAME##_12_2}, {14, 1, NAME##_14_1},     \
        {16, 1, NAME##_16_1}};

INLINE void run_block(const struct block_variant *variant, const struct tiled_work *work,
                      int64_t tile_begin, int64_t tile_end) {
    int64_t end = tile_end * TILE_QUADS;
    while (variant->rows != work->chunk.rows)
        variant++;
    for (int64_t quad = tile_begin * TILE_QUADS; quad < end;) {
        const struct block_variant *fits = variant;
        while (quad % fits->quads != 0 || quad + fits->quads > end)
            fits++;
        fits->compute(work, quad);
        quad += fits->quads;
    }
}

static void read_row(const void *x, uint32_t type, int64_t count, float *out) {
    const uint8_t *from = x;
    size_t bytes = kry_type_bytes(type);
    int64_t k = 0;
    for (; k + QUAD <= count; k += QUAD)
        vst1q_f32(out + k, load_4(from + (size_t)k * bytes, type));
    if (k < count)
        store_some(out + k, KRY_TYPE_F32, count - k,
                   load_some(from + (size_t)k * bytes, type, count - k));
}

#endif
