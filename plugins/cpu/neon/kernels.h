/*
 * The numeric classes of the NEON plugin; each is compiled with the instruction set that it needs
 * and no more, and called only where the processor has it.
 */
#ifndef KERNELRY_NEON_KERNELS_H
#define KERNELRY_NEON_KERNELS_H

#include "../tiled/tiled.h"

extern const struct tiled_class neon_f32;  /* what every ARMv8-A has */
extern const struct tiled_class neon_bf16; /* BF16 */
extern const struct tiled_class neon_int8; /* DotProd */
extern const struct tiled_class neon_i8mm; /* I8MM */

#endif
