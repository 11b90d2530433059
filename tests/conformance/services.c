/*
 * Services of a host that kernels did not expect: tasks come in an odd order, on as many
 * threads as are wanted, however many the machine has.
 */
#include "layer.h"

#include "random.h"

#include <pthread.h>
#include <stdlib.h>

enum { THREADS_MOST = 16 };

static void *allocate(size_t bytes, size_t alignment) {
    void *memory;
    if (alignment < sizeof(void *))
        alignment = sizeof(void *);
    return posix_memalign(&memory, alignment, bytes > 0 ? bytes : 1) == 0 ? memory : NULL;
}

static void *allocate_counted(void *context, size_t bytes, size_t alignment) {
    struct services *services = context;
    void *memory = allocate(bytes, alignment);
    if (memory != NULL) {
        atomic_fetch_add(&services->allocated, 1);
        atomic_fetch_add(&services->allocations, 1);
    }
    return memory;
}

static void release_counted(void *context, void *memory, size_t bytes) {
    struct services *services = context;
    (void)bytes;
    if (memory != NULL)
        atomic_fetch_sub(&services->allocated, 1);
    free(memory);
}

static void *allocate_with_room(void *context, size_t bytes, size_t alignment) {
    enum { ROOM = 4096 };
    (void)context;
    return bytes <= SIZE_MAX - ROOM ? allocate(bytes + ROOM, alignment) : NULL;
}

static void release_with_room(void *context, void *memory, size_t bytes) {
    (void)context;
    (void)bytes;
    free(memory);
}

static void say_nothing(void *context, int32_t level, const char *message) {
    (void)context;
    (void)level;
    (void)message;
}

/* One parallel-for; its i-th task is number (first + i * stride) mod count. */
struct work {
    void (*task)(void *argument, int64_t i);
    void *argument;
    uint64_t count, first, stride;
    atomic_ullong taken;
};

static void *work_off(void *argument) {
    __extension__ typedef unsigned __int128 wide;
    struct work *work = argument;
    for (;;) {
        uint64_t i = atomic_fetch_add(&work->taken, 1);
        if (i >= work->count)
            return NULL;
        work->task(work->argument, (int64_t)((work->first + (wide)i * work->stride) % work->count));
    }
}

static uint64_t gcd(uint64_t a, uint64_t b) {
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static void parallel_for(void *context, int64_t count, void (*task)(void *argument, int64_t i),
                         void *argument) {
    struct services *services = context;
    if (count <= 0)
        return;
    struct work work = {.task = task, .argument = argument, .count = (uint64_t)count, .stride = 1};
    if (services->seed != 0) { /* any stride without a common divisor reaches all */
        struct random random = random_seeded(services->seed, (uint64_t)count);
        work.first = random_below(&random, work.count);
        do
            work.stride = 1 + random_below(&random, work.count);
        while (gcd(work.stride, work.count) != 1);
    }
    pthread_t threads[THREADS_MOST];
    int32_t started = 0;
    while (started + 1 < services->threads && started < THREADS_MOST && started + 1 < count &&
           pthread_create(&threads[started], NULL, work_off, &work) == 0)
        started++;
    work_off(&work);
    for (int32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

static int32_t parallelism(void *context) {
    const struct services *services = context;
    return services->threads;
}

void services_make(struct services *services, int32_t threads, uint64_t seed) {
    *services = (struct services){.threads = threads, .seed = seed};
    services->host = (kry_host){.struct_size = sizeof(kry_host),
                                .context = services,
                                .log = say_nothing,
                                .allocate = allocate_counted,
                                .release = release_counted,
                                .parallel_for = parallel_for,
                                .parallelism = parallelism};
}

const kry_host conformance_host = {.struct_size = sizeof(kry_host),
                                   .log = say_nothing,
                                   .allocate = allocate_with_room,
                                   .release = release_with_room};
