/*
 * Rows of x, converted to f32, become rows of tiles.
 */
#include "kernels.h"

#include "../tiled/octets.h"

typedef uint16_t u16x8 __attribute__((vector_size(16)));

/* Where a row's bytes of a step lie. */
struct rows {
    uint8_t *to;
    int64_t next; /* to the step behind it, or to the next part of this one */
};

static struct rows rows_of(void *packed, int32_t row, int32_t rows, int64_t step_bytes) {
    return (struct rows){(uint8_t *)packed + row * step_bytes, rows * step_bytes};
}

/* bf16 that the upper halves of floats are, columns in the order 0 2, 4 6, 1 3, 5 7. */
static void put_pairs(const u32x8 *octet, uint8_t *to) {
    u16x8 halves = __builtin_convertvector(*octet >> 16, u16x8);
    halves = __builtin_shufflevector(halves, halves, 0, 2, 4, 6, 1, 3, 5, 7);
    memcpy(to, &halves, sizeof halves);
}

INLINE float pack_bf16(const struct tiled_bound *bound, const float *x, const kry_linear *linear,
                       int32_t row, int32_t rows, void *packed, const int PARTS) {
    enum { BYTES = OCTET * 2 };
    const int32_t step = tiled_step(BF16_STEP, linear);
    struct rows at = rows_of(packed, row, rows, step * BYTES);
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *s = &bound->segments[i];
        for (int32_t begin = 0; begin < s->octet_count; begin += step, at.to += PARTS * at.next)
            for (int32_t o = 0; o < step; o++) {
                f32x8 octet = {0};
                u32x8 first, second = {0};
                if (begin + o < s->octet_count)
                    gather(bound, s, begin + o, x, &octet);
                if (PARTS == 2)
                    split_octet(&octet, &first, &second);
                else
                    first = (u32x8)octet;
                put_pairs(&first, at.to + o * BYTES);
                if (PARTS == 2)
                    put_pairs(&second, at.to + at.next + o * BYTES);
            }
    }
    return 1.0f;
}

float amx_pack_bf16(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                    int32_t row, int32_t rows, void *packed, float *sums) {
    (void)sums; /* zero points are taken from the codes */
    return pack_bf16(bound, x, linear, row, rows, packed, 1);
}

float amx_pack_bf16x2(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                      int32_t row, int32_t rows, void *packed, float *sums) {
    (void)sums;
    return pack_bf16(bound, x, linear, row, rows, packed, 2);
}

float amx_pack_int8(const struct tiled_bound *bound, float *x, const kry_linear *linear,
                    int32_t row, int32_t rows, void *packed, float *sums) {
    const int32_t step = tiled_step(INT8_STEP, linear);
    const float scale = tiled_quantize_row(x, linear->in_features);
    struct rows at = rows_of(packed, row, rows, step * OCTET);
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *s = &bound->segments[i];
        i32x8 sum = {0};
        for (int32_t begin = 0; begin < s->octet_count; begin += step, at.to += at.next)
            for (int32_t o = 0; o < step; o++) {
                f32x8 octet = {0};
                if (begin + o < s->octet_count)
                    gather(bound, s, begin + o, x, &octet);
                i32x8 q = __builtin_convertvector(octet, i32x8);
                sum += q;
                i8x8 bytes = __builtin_convertvector(q, i8x8);
                memcpy(at.to + o * OCTET, &bytes, sizeof bytes);
            }
        int32_t total = 0;
        for (int32_t k = 0; k < OCTET; k++)
            total += sum[k];
        sums[i * rows + row] = (float)total;
    }
    return scale;
}
