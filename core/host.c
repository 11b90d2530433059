/*
 * Services for kernels: the embedder's where it brings them, then those of the CPU platform's
 * plugin, then malloc and the calling thread. One context reaches all three, so the functions
 * offered here only choose.
 */
#include "core.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MESSAGE_BYTES = 4096 /* of a line of the log; the rest is cut off */ };

static void offered_log(void *context, int32_t level, const char *text) {
    static const char *const words[] = {"", "error", "warning", "info", "debug"};
    const struct host_services *services = context;
    char message[MESSAGE_BYTES]; /* what a plugin says may hold anything */
    snprintf(message, sizeof message, "%s", text != NULL ? text : "");
    core_clean(message);
    if (services->embedder.log != NULL)
        services->embedder.log(services->embedder.context, level, message);
    if (level >= KRY_LOG_ERROR && level <= services->stderr_level)
        fprintf(stderr, "kernelry: %s: %s\n", words[level], message);
}

static void *offered_allocate(void *context, size_t bytes, size_t alignment) {
    const struct host_services *services = context;
    if (services->embedder.allocate != NULL)
        return services->embedder.allocate(services->embedder.context, bytes, alignment);
    if (services->platform != NULL && services->platform->allocate != NULL)
        return services->platform->allocate(services->platform->context, bytes, alignment);
    if (alignment < sizeof(void *))
        alignment = sizeof(void *);
    void *memory;
    return posix_memalign(&memory, alignment, bytes > 0 ? bytes : 1) == 0 ? memory : NULL;
}

static void offered_release(void *context, void *memory, size_t bytes) {
    const struct host_services *services = context;
    if (services->embedder.allocate != NULL)
        services->embedder.release(services->embedder.context, memory, bytes);
    else if (services->platform != NULL && services->platform->allocate != NULL)
        services->platform->release(services->platform->context, memory, bytes);
    else
        free(memory);
}

static void offered_parallel_for(void *context, int64_t count,
                                 void (*task)(void *argument, int64_t i), void *argument) {
    const struct host_services *services = context;
    const kry_host *host =
        services->embedder.parallel_for != NULL ? &services->embedder : services->platform;
    kry_parallel_for(host, count, task, argument);
}

static int32_t offered_parallelism(void *context) {
    const struct host_services *services = context;
    const kry_host *host =
        services->embedder.parallel_for != NULL ? &services->embedder : services->platform;
    if (host == NULL || host->parallelism == NULL)
        return 1;
    int32_t tasks = host->parallelism(host->context);
    return tasks > 0 ? tasks : 1;
}

/* 0 for a word that is none of ours: silence is the default. */
static int32_t parse_level(const char *word) {
    static const char *const words[] = {"error", "warning", "info", "debug"};
    for (int32_t i = 0; word != NULL && i < 4; i++)
        if (strcasecmp(word, words[i]) == 0)
            return i + 1;
    return 0;
}

void core_host_init(struct host_services *services, const kry_host *embedder,
                    bool read_environment) {
    memset(services, 0, sizeof *services);
    if (embedder != NULL)
        services->embedder = *embedder;
    if (read_environment)
        services->stderr_level = parse_level(secure_getenv("KERNELRY_LOG"));
    services->offered = (kry_host){.struct_size = sizeof(kry_host),
                                   .context = services,
                                   .log = offered_log,
                                   .allocate = offered_allocate,
                                   .release = offered_release,
                                   .parallel_for = offered_parallel_for,
                                   .parallelism = offered_parallelism};
}

void core_host_check_threads(const struct host_services *services) {
    enum { THREADS_MOST = 4096 };
    const char *text = secure_getenv("KERNELRY_THREADS");
    if (text == NULL)
        return;
    char *end;
    errno = 0;
    long threads = strtol(text, &end, 10);
    bool number = *text >= '0' && *text <= '9' && *end == '\0' && errno == 0;
    if (!number || threads < 1 || threads > THREADS_MOST)
        core_log(
            services, KRY_LOG_WARNING,
            "KERNELRY_THREADS is '%s', expected a number from 1 to %d: not followed, there are "
            "as many threads as CPUs",
            text, THREADS_MOST);
}

kry_status core_host_copy(kry_host *to, const kry_host *from) {
    kry_status status = COPY_IN(to, from, kry_host);
    if (status == KRY_OK && (to->allocate == NULL) != (to->release == NULL))
        status = kry_error_set(KRY_E_ARGUMENT,
                               "kry_host: allocate and release come together or not at all");
    return status;
}

void core_log(const struct host_services *services, int32_t level, const char *format, ...) {
    if (services->embedder.log == NULL && level > services->stderr_level)
        return;
    char message[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    services->offered.log(services->offered.context, level, message);
}
