/*
 * The numeric classes of the AVX-512 plugin; each is compiled with the instruction set that it
 * needs and no more, and called only where the processor has it.
 */
#ifndef KERNELRY_AVX512_KERNELS_H
#define KERNELRY_AVX512_KERNELS_H

#include "../tiled/tiled.h"

extern const struct tiled_class avx512_f32;  /* AVX-512 F, BW, DQ, VL */
extern const struct tiled_class avx512_bf16; /* and BF16 */
extern const struct tiled_class avx512_bf16x2;
extern const struct tiled_class avx512_int8; /* and VNNI */

#endif
