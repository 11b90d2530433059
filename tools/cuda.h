/*
 * CUDA's driver as far as measuring needs it: a stream, graphs, and a kernel that does nothing but
 * read. Found by dlopen, like all that a plugin finds.
 */
#ifndef KERNELRY_TOOLS_CUDA_H
#define KERNELRY_TOOLS_CUDA_H

#include <kernelry/kernelry.h>

/** A device's primary context, current on the thread that opened it, and a stream in it. */
struct cuda;

/**
 * Errors     KRY_E_DEPENDENCY: no driver, or one that lacks a function; KRY_E_DEVICE.
 * Threads    all that is done with it happens on the thread that opened it.
 */
kry_status cuda_open(const kry_device *device, struct cuda **out);
void cuda_close(struct cuda **cuda);

/** The stream to enqueue on. */
void *cuda_stream(const struct cuda *cuda);
kry_status cuda_wait(const struct cuda *cuda);

/** What is enqueued on the stream between these becomes a graph. After an error there is none, and
 *  the stream captures nothing any more. */
kry_status cuda_capture_begin(struct cuda *cuda);
kry_status cuda_capture_end(struct cuda *cuda, void **graph);
/** Enqueue a graph. */
kry_status cuda_replay(const struct cuda *cuda, void *graph);
void cuda_graph_release(const struct cuda *cuda, void *graph);

/** Enqueue a kernel of so many blocks that reads memory and keeps nothing. `bytes` are a multiple
 *  of 16, `sink` is 4 bytes of the device's memory that it never writes to. */
kry_status cuda_read(struct cuda *cuda, uint32_t blocks, const void *memory, uint64_t bytes,
                     void *sink);

#endif
