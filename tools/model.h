/*
 * A checkpoint as the command reads it.
 */
#ifndef KERNELRY_MODEL_H
#define KERNELRY_MODEL_H

#include "fuse.h"

#include <kernelry/checkpoint.h>

/** Open a checkpoint, its warnings going to standard error. Returns an exit code; what is
 *  wrong has been complained of. */
int open_model(const char *path, kry_checkpoint **out);

/**
 * The layers as they are stored, allowing what the caller allows (KRY_ALLOW_*).
 *
 * Ownership  *out borrows from the checkpoint and is freed by units_free.
 */
kry_status model_units(const kry_checkpoint *checkpoint, uint32_t allowed, struct units *out);

#endif
