/*
 * libkernelry-torch: the operator kernelry::linear for PyTorch. What kernelry/torch.py calls.
 */
#ifndef KERNELRY_PYTHON_TORCH_H
#define KERNELRY_PYTHON_TORCH_H

#include <kernelry/kernelry.h>

/**
 * Register the operator's implementation for "CPU" and, where the build has it, "CUDA" (which is
 * ROCm's key, too). Its schema and its fake are registered in Python.
 *
 * Errors     KRY_E_DEPENDENCY: this PyTorch lacks a function; the message names it.
 */
KRY_API int32_t kry_torch_register(const char *libtorch);

/**
 * Let the operator run `layer` where it is given the tensor that begins at this address: with
 * "kernelry" and the token, by which copies of the tensor find the layer, too. The prepared
 * weights follow at KRY_ALIGNMENT.
 *
 * Ownership  borrows all until kry_torch_unbind.
 */
KRY_API int32_t kry_torch_bind(const void *tensor, uint64_t token, const kry_layer *layer);
/** Does nothing where another layer was bound since. */
KRY_API void kry_torch_unbind(const void *tensor, const kry_layer *layer);

/** Memory of a device for the zeroed part of workspaces, cleared; it is kept for good. */
KRY_API size_t kry_torch_zeroed_bytes(void);
KRY_API int32_t kry_torch_has_zeroed(int32_t device);
KRY_API int32_t kry_torch_add_zeroed(int32_t device, void *memory);

#endif
