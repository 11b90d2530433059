/*
 * Files that are a part of the command, put there by cmake/EmbedFiles.cmake.
 */
#ifndef KERNELRY_TOOLS_EMBEDDED_H
#define KERNELRY_TOOLS_EMBEDDED_H

#include <stddef.h>

/** A file; a list of them ends with one whose name is NULL. */
struct embedded_file {
    const char *name;
    const char *text; /* a zero behind it */
    size_t size;      /* without the zero */
};

/** What `kernelry new-plugin` writes: examples/plugin and, for CUDA and HIP, examples/plugin_gpu.
 */
extern const struct embedded_file plugin_files[], plugin_gpu_files[];

#endif
