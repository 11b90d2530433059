/*
 * The registry and device of subcommands that apply layers.
 */
#ifndef KERNELRY_TOOLS_APPLYING_H
#define KERNELRY_TOOLS_APPLYING_H

#include "command.h"

/**
 * Open the registry and find the device that the options name, one that is here. What is wrong has
 * been complained of. Returns an exit code; the caller closes *registry, which may be open after a
 * failure too.
 */
int open_applying_registry(const struct common_options *common, kry_registry **registry,
                           kry_device *device);

#endif
