#include "kernels_device.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "simt.h"

enum { MOST_ENTRIES = 512 };

static struct {
    void *module;
    uint32_t wave;
    uint64_t seed;
    void *run[MOST_ENTRIES]; /* symbols */
    size_t run_count;
} device;

void device_load(const char *module, uint32_t wave) {
    device.module = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    device.wave = wave;
    if (device.module == NULL) {
        fail_msg("%s", dlerror());
    }
}

bool device_has(const char *entry) { return dlsym(device.module, entry) != NULL; }

static bool is_noted(const void *symbol) {
    for (size_t i = 0; i < device.run_count; i++) {
        if (device.run[i] == symbol) {
            return true;
        }
    }
    return false;
}

bool device_has_run(const char *entry) { return is_noted(dlsym(device.module, entry)); }

static void *find_entry(const char *name) {
    void *symbol = dlsym(device.module, name);
    if (symbol == NULL) {
        fail_msg("no entry %s", name);
    }
    if (!is_noted(symbol)) {
        assert_true(device.run_count < MOST_ENTRIES);
        device.run[device.run_count++] = symbol;
    }
    return symbol;
}

static void launch_entry(const struct gpu_launch *launch, void (*entry)(const void *argument),
                         const void *argument) {
    const struct simt_launch simt = {
        .name = launch->entry,
        .entry = entry,
        .argument = argument,
        .grid = launch->grid,
        .block = launch->block,
        .wave = device.wave,
        .shared_bytes = launch->shared_bytes,
        .cluster = launch->cluster,
        .early = launch->early != 0,
        .seed = device.seed++,
    };
    const char *fault = simt_launch(&simt);
    if (fault != NULL) {
        fail_msg("%s", fault);
    }
}

/* Entries take their struct by value, as a driver passes it. */
#define DEFINE(name, type)                                                                         \
    struct name##_call {                                                                           \
        void (*entry)(type params);                                                                \
        const type *params;                                                                        \
    };                                                                                             \
    static void run_##name(const void *argument) {                                                 \
        const struct name##_call *call = argument;                                                 \
        call->entry(*call->params);                                                                \
    }                                                                                              \
    void device_##name(const struct gpu_launch *launch, const type *params) {                      \
        struct name##_call call = {.params = params};                                              \
        *(void **)&call.entry = find_entry(launch->entry);                                         \
        launch_entry(launch, run_##name, &call);                                                   \
    }

DEFINE(apply, struct gpu_apply_params)
DEFINE(wide, struct gpu_wide_params)
DEFINE(late, struct gpu_late_params)
DEFINE(arrange, struct gpu_arrange_params)
DEFINE(sort, struct gpu_sort_params)
DEFINE(fill_source, struct gpu_fill_source_params)
DEFINE(repack, struct gpu_repack_params)
DEFINE(codes, struct gpu_canonicalise_codes_params)
DEFINE(groups, struct gpu_canonicalise_groups_params)
