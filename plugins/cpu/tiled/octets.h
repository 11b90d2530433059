/*
 * Octets of a converted row of x as vectors, for what packs them.
 */
#ifndef KERNELRY_TILED_OCTETS_H
#define KERNELRY_TILED_OCTETS_H

#include "tiled.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* Octets as vectors: one register of AVX2, two of NEON. */
typedef float f32x8 __attribute__((vector_size(32)));
typedef double f64x8 __attribute__((vector_size(64)));
typedef uint32_t u32x8 __attribute__((vector_size(32)));
typedef int32_t i32x8 __attribute__((vector_size(32)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef int8_t i8x8 __attribute__((vector_size(8)));
typedef int16_t i16x8 __attribute__((vector_size(16)));

/* The eight columns of octet o of a segment, zero where there is none. */
static inline void gather(const struct tiled_bound *bound, const struct tiled_segment *s, int32_t o,
                          const float *x, f32x8 *out) {
    int32_t left = s->column_count - o * OCTET;
    if (bound->order != NULL) {
        const int32_t *k = bound->order + (int64_t)(s->octet_begin + o) * OCTET;
        /* Put together in a register: read back from memory, eight elements wait for each other. */
        if ((k[0] | k[1] | k[2] | k[3] | k[4] | k[5] | k[6] | k[7]) >= 0)
            *out = (f32x8){x[k[0]], x[k[1]], x[k[2]], x[k[3]], x[k[4]], x[k[5]], x[k[6]], x[k[7]]};
        else
            for (int32_t i = 0; i < OCTET; i++)
                (*out)[i] = k[i] >= 0 ? x[k[i]] : 0.0f;
    } else if (left >= OCTET) {
        memcpy(out, x + s->column_begin + o * OCTET, sizeof *out);
    } else {
        for (int32_t i = 0; i < OCTET; i++)
            (*out)[i] = i < left ? x[s->column_begin + o * OCTET + i] : 0.0f;
    }
}

/* Split floats that came from f16 into two bf16 whose sum they are. A NaN or an infinity stays
 * what it is, in the first part; the second is zero then. */
static inline void split_octet(const f32x8 *octet, u32x8 *first, u32x8 *second) {
    u32x8 bits = (u32x8)*octet;
    u32x8 nearest = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    u32x8 finite = (u32x8)((bits & 0x7f800000) != 0x7f800000);
    *first = (nearest & finite) | (bits & ~finite);
    *second = (u32x8)(*octet - (f32x8)nearest) & finite;
}

#endif
