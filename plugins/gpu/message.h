/* Why the last call on this thread failed, for kry_plugin.error_message. */
#ifndef KERNELRY_GPU_MESSAGE_H
#define KERNELRY_GPU_MESSAGE_H

#include <kernelry/plugin.h>

/** Word the message; returns the status. */
kry_status gpu_fail(kry_status status, const char *format, ...) KRY_PRINTF(2, 3);

const char *gpu_error_message(void);

#endif
