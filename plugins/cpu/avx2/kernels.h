/*
 * The numeric classes of the AVX2 plugin; each is compiled with the instruction set that it needs
 * and no more, and called only where the processor has it.
 */
#ifndef KERNELRY_AVX2_KERNELS_H
#define KERNELRY_AVX2_KERNELS_H

#include "../tiled/tiled.h"

extern const struct tiled_class avx2_f32;  /* AVX2, FMA, F16C */
extern const struct tiled_class avx2_int8; /* the same */
extern const struct tiled_class avx2_vnni; /* and AVX-VNNI; y is avx2_int8's to the bit */

#endif
