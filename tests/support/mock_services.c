/*
 * A platform "cpu" that brings services and nothing else, and counts how they are used.
 */
#include "mock.h"

#include <stdlib.h>

static mock_counts counts; /* the services' context; read by one test, on one thread */

static void *allocate(void *context, size_t bytes, size_t alignment) {
    void *memory = NULL;
    if (posix_memalign(&memory, alignment < sizeof(void *) ? sizeof(void *) : alignment, bytes))
        return NULL;
    ((mock_counts *)context)->blocks++;
    return memory;
}

static void release(void *context, void *memory, size_t bytes) {
    (void)bytes;
    ((mock_counts *)context)->blocks -= memory != NULL;
    free(memory);
}

/* Backwards, which is any order. */
static void parallel_for(void *context, int64_t count, void (*task)(void *argument, int64_t i),
                         void *argument) {
    for (int64_t i = count - 1; i >= 0; i--)
        task(argument, i);
    ((mock_counts *)context)->tasks += count;
}

static const kry_host host = {.struct_size = sizeof(kry_host),
                              .context = &counts,
                              .allocate = allocate,
                              .release = release,
                              .parallel_for = parallel_for};

const kry_platform mock_services_platform = {
    .struct_size = sizeof(kry_platform), .name = "cpu", .host = &host};
