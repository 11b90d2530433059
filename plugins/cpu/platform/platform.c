/*
 * The platform plugin of the CPU: memory, and threads for embedders that bring none. It has no
 * kernels. The core itself lists the CPU as a device.
 */
#include "platform.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[80];

static const char *error_message(void) { return message; }

static kry_status allocate(const kry_device *device, uint64_t bytes, void **out) {
    (void)device;
    void *memory = memory_allocate(bytes, KRY_ALIGNMENT);
    if (memory == NULL) {
        snprintf(message, sizeof(message), "out of memory for %" PRIu64 " bytes", bytes);
        return KRY_E_MEMORY;
    }
    *out = memory;
    return KRY_OK;
}

static void release(const kry_device *device, void *memory, uint64_t bytes) {
    (void)device;
    memory_release(memory, bytes);
}

/* Everything is host memory, and a CPU has no streams: what is asked for is done on return. */
static kry_status copy(const kry_device *device, void *to, uint32_t to_memory, const void *from,
                       uint32_t from_memory, uint64_t bytes, void *stream) {
    (void)device;
    (void)to_memory;
    (void)from_memory;
    (void)stream;
    if (bytes != 0)
        memmove(to, from, bytes);
    return KRY_OK;
}

static kry_status clear(const kry_device *device, void *memory, uint64_t bytes, void *stream) {
    (void)device;
    (void)stream;
    if (bytes != 0)
        memset(memory, 0, bytes);
    return KRY_OK;
}

static kry_status synchronize(const kry_device *device, void *stream) {
    (void)device;
    (void)stream;
    return KRY_OK;
}

static void *host_allocate(void *context, size_t bytes, size_t alignment) {
    (void)context;
    return memory_allocate(bytes, alignment);
}

static void host_release(void *context, void *memory, size_t bytes) {
    (void)context;
    memory_release(memory, bytes);
}

static void host_parallel_for(void *context, int64_t count, void (*task)(void *argument, int64_t i),
                              void *argument) {
    (void)context;
    threads_parallel_for(count, task, argument);
}

static int32_t host_parallelism(void *context) {
    (void)context;
    return threads_parallelism();
}

static const kry_host host = {
    .struct_size = sizeof(kry_host),
    .allocate = host_allocate,
    .release = host_release,
    .parallel_for = host_parallel_for,
    .parallelism = host_parallelism,
};

static const kry_platform platform = {
    .struct_size = sizeof(kry_platform),
    .name = "cpu",
    .allocate = allocate,
    .release = release,
    .copy = copy,
    .clear = clear,
    .synchronize = synchronize,
    .host = &host,
};

static const kry_platform *const platforms[] = {&platform};

static const kry_plugin plugin = {
    .struct_size = sizeof(kry_plugin),
    .name = "cpu_platform",
    .platforms = platforms,
    .platform_count = 1,
    .error_message = error_message,
};

KRY_PLUGIN(cpu_platform, KERNELRY_VERSION, &plugin, 0, KRY_PLATFORM("cpu", 100));
