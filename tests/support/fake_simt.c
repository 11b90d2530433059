#include "fake_simt.h"
#include "simt.h"

#include "plugins/gpu/params.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct {
    void *module;
    uint32_t wave;
    uint64_t seed;
} gpu;

/* Entries take their struct by value, as a driver passes it. */
#define CALL(type)                                                                                 \
    static void call_##type(const void *argument) {                                                \
        const struct call *call = argument;                                                        \
        void (*entry)(struct type);                                                                \
        memcpy(&entry, &call->symbol, sizeof entry);                                               \
        struct type passed;                                                                        \
        memcpy(&passed, call->parameters, sizeof passed);                                          \
        entry(passed);                                                                             \
    }

struct call {
    void *symbol;
    const void *parameters;
};
CALL(gpu_apply_params)
CALL(gpu_arrange_params)
CALL(gpu_sort_params)
CALL(gpu_fill_source_params)
CALL(gpu_repack_params)
CALL(gpu_canonicalise_codes_params)
CALL(gpu_canonicalise_groups_params)
CALL(gpu_wide_params)
CALL(gpu_late_params)

static void (*caller_of(const char *entry))(const void *argument) {
    static const struct {
        const char *begins;
        void (*caller)(const void *argument);
    } entries[] = {
        {"gpu_arrange", call_gpu_arrange_params},
        {"gpu_sort", call_gpu_sort_params},
        {"gpu_fill_source", call_gpu_fill_source_params},
        {"gpu_repack", call_gpu_repack_params},
        {"gpu_canonicalise_codes", call_gpu_canonicalise_codes_params},
        {"gpu_canonicalise", call_gpu_canonicalise_groups_params},
        {"gpu_wide", call_gpu_wide_params},
        {"gpu_late", call_gpu_late_params},
    };
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++)
        if (strncmp(entries[i].begins, entry, strlen(entries[i].begins)) == 0)
            return entries[i].caller;
    return call_gpu_apply_params;
}

const char *fake_simt_run(const char *entry, uint32_t grid, uint32_t block, uint32_t shared_bytes,
                          const void *parameters) {
    return fake_simt_run_cluster(entry, grid, block, shared_bytes, 0, false, parameters);
}

const char *fake_simt_run_cluster(const char *entry, uint32_t grid, uint32_t block,
                                  uint32_t shared_bytes, uint32_t cluster, bool early,
                                  const void *parameters) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct call call = {dlsym(gpu.module, entry), parameters};
    if (call.symbol == NULL)
        return "the module has no such entry";
    pthread_mutex_lock(&lock);
    struct simt_launch simt = {.name = entry,
                               .entry = caller_of(entry),
                               .argument = &call,
                               .grid = grid,
                               .block = block,
                               .wave = gpu.wave,
                               .shared_bytes = shared_bytes,
                               .cluster = cluster,
                               .early = early,
                               .seed = gpu.seed++};
    const char *wrong = simt_launch(&simt);
    pthread_mutex_unlock(&lock);
    return wrong;
}

bool fake_simt_begin(const void *self) {
    const char *module = getenv("FAKE_GPU_MODULE"), *wave = getenv("FAKE_GPU_WAVE");
    Dl_info library;
    /* It was loaded for nobody but the plugin; the module must find its functions, too. */
    if (module == NULL || dladdr(self, &library) == 0 ||
        dlopen(library.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL) == NULL)
        return false;
    gpu.module = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    gpu.wave = wave != NULL ? (uint32_t)atoi(wave) : 32;
    return gpu.module != NULL;
}
