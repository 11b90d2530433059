#include "code.h"

#include "message.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

const struct gpu_code_object *gpu_code_object_of(const char *platform, uint32_t arch_number) {
    const struct gpu_code_object *best = NULL;
    bool cuda = strcmp(platform, "cuda") == 0;
    for (const struct gpu_code_object *o = gpu_code_objects; o->platform != NULL; o++) {
        if (strcmp(o->platform, platform) != 0 || o->arch_number > arch_number)
            continue;
        /* CUDA: machine code runs on later minor versions, all of which share a major one. */
        bool runs = o->arch_number == arch_number || o->later ||
                    (cuda && o->arch_number / 10 == arch_number / 10);
        if (runs && (best == NULL || best->later > o->later ||
                     (best->later == o->later && best->arch_number < o->arch_number)))
            best = o;
    }
    return best;
}

uint32_t gpu_code_least_arch(const char *platform) {
    uint32_t least = 0;
    for (const struct gpu_code_object *o = gpu_code_objects; o->platform != NULL; o++)
        if (strcmp(o->platform, platform) == 0 && (least == 0 || o->arch_number < least))
            least = o->arch_number;
    return least;
}

/* ---- loaded code -------------------------------------------------------------------------- */

struct gpu_code {
    const struct gpu_driver *driver;
    int32_t ordinal;
    struct gpu_code *next;
    const char *const *names;
    size_t count;
    void *functions[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct gpu_code *loaded; /* never shortened; changed under the lock */

static kry_status load(const kry_device *device, struct gpu_code **out) {
    const struct gpu_driver *driver = gpu_driver_of(device);
    const struct gpu_code_object *object =
        gpu_code_object_of(device->platform, device->arch_number);
    if (object == NULL)
        return gpu_fail(KRY_E_DEPENDENCY, "this build has no code for %.31s", device->arch);
    size_t count;
    const char *const *names = gpu_entry_names(gpu_facts_of(device).family, &count);
    struct gpu_code *code = calloc(1, sizeof *code + count * sizeof code->functions[0]);
    if (code == NULL)
        return gpu_fail(KRY_E_MEMORY, "out of memory for %zu entries", count);
    *code = (struct gpu_code){
        .driver = driver, .ordinal = device->ordinal, .names = names, .count = count};
    void *module;
    kry_status status = driver->load(device, object->code, &module);
    bool is_loaded = status == KRY_OK;
    for (size_t i = 0; i < count && status == KRY_OK; i++)
        status = driver->find(module, names[i], device->shared_memory_bytes, &code->functions[i]);
    if (status != KRY_OK) {
        if (is_loaded)
            driver->unload(module);
        free(code);
        return status;
    }
    *out = code;
    return KRY_OK;
}

kry_status gpu_code_open(const kry_device *device, const struct gpu_code **out) {
    const struct gpu_driver *driver = gpu_driver_of(device);
    kry_status status = KRY_OK;
    pthread_mutex_lock(&lock);
    struct gpu_code *code = loaded;
    while (code != NULL && (code->driver != driver || code->ordinal != device->ordinal))
        code = code->next;
    if (code == NULL) {
        status = load(device, &code);
        if (status == KRY_OK) {
            code->next = loaded;
            loaded = code;
        }
    }
    pthread_mutex_unlock(&lock);
    if (status == KRY_OK)
        *out = code;
    return status;
}

static void *function_of(const struct gpu_code *code, const char *entry) {
    for (size_t i = 0; i < code->count; i++)
        if (strcmp(code->names[i], entry) == 0)
            return code->functions[i];
    return NULL;
}

bool gpu_code_has(const struct gpu_code *code, const char *entry) {
    return function_of(code, entry) != NULL;
}

kry_status gpu_code_launch(const struct gpu_code *code, const struct gpu_launch *launch,
                           void *parameters, void *stream) {
    void *function = function_of(code, launch->entry);
    if (function == NULL)
        return gpu_fail(KRY_E_PLUGIN, "the device code has no entry %s", launch->entry);
    return code->driver->launch(function, launch->grid, launch->block, launch->shared_bytes,
                                parameters, stream);
}
