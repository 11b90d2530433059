/*
 * A kernel called without the core, to tell what the core costs above it.
 */
#ifndef KERNELRY_TOOLS_DIRECT_H
#define KERNELRY_TOOLS_DIRECT_H

#include "synthetic.h"

#include <kernelry/plugin.h>

/**
 * Find the table of a loaded plugin, by opening its file once more (the loader gives the one that
 * is loaded) and asking its entry.
 *
 * Errors     KRY_E_NOT_FOUND.
 */
kry_status direct_plugin(const kry_registry *registry, const char *name, const kry_plugin **out);

/**
 * Find the functions of a registered kernel.
 *
 * Errors     KRY_E_NOT_FOUND.
 */
kry_status direct_find(const kry_registry *registry, const kry_kernel_info *info,
                       const kry_linear_kernel **out);

/** A kernel bound to prepared weights, as the core would have bound it. */
struct direct {
    const kry_linear_kernel *functions;
    kry_binding binding;
    kry_host host; /* brings nothing */
};

/**
 * Prepare and bind drawn weights, in one range.
 *
 * Ownership  borrows device and description until direct_close.
 * Errors     the kernel's; KRY_E_MEMORY.
 */
kry_status direct_open(const kry_linear_kernel *functions, const kry_device *device,
                       const struct synthetic *synthetic, struct direct *out);
void direct_close(struct direct *direct);

#endif
