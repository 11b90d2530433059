/*
 * compressed-tensors: its config (compressed_tensors.c) and its tensors (pack_quantized.c).
 */
#ifndef KERNELRY_CHECKPOINT_COMPRESSED_TENSORS_H
#define KERNELRY_CHECKPOINT_COMPRESSED_TENSORS_H

#include "internal.h"

/** Describe a layer of known scheme from its tensors. */
kry_status ckpt_pack_quantized_describe(const kry_checkpoint *checkpoint, layer *layer);

#endif
