#include "code.h"

#include "message.h"
#include "plan_wide.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static bool runs_on(const struct gpu_code_object *object, uint32_t arch_number) {
    if (object->arch_number == arch_number)
        return true;
    bool cuda = strcmp(object->platform, "cuda") == 0;
    return object->arch_number < arch_number &&
           (object->reach == GPU_CODE_LATER || (object->reach == GPU_CODE_MINOR && cuda &&
                                                object->arch_number / 10 == arch_number / 10));
}

/* Code for this very architecture, then other machine code, then what is compiled there first. */
static int rank(const struct gpu_code_object *object) {
    return object->reach == GPU_CODE_EXACT ? 2 : object->reach == GPU_CODE_MINOR ? 1 : 0;
}

const struct gpu_code_object *gpu_code_object_of(const char *platform, uint32_t arch_number) {
    const struct gpu_code_object *best = NULL;
    for (const struct gpu_code_object *o = gpu_code_objects; o->platform != NULL; o++) {
        if (strcmp(o->platform, platform) != 0 || !runs_on(o, arch_number))
            continue;
        if (best == NULL || rank(o) > rank(best) ||
            (rank(o) == rank(best) && o->arch_number > best->arch_number))
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

struct gpu_facts gpu_code_device_facts(const kry_device *device) {
    struct gpu_facts facts = gpu_facts_of(device);
    const struct gpu_code_object *object =
        gpu_code_object_of(device->platform, device->arch_number);
    if (facts.family == GPU_FAMILY_WGMMA && (object == NULL || object->reach != GPU_CODE_EXACT))
        facts.family = GPU_FAMILY_MMA;
    return facts;
}

/* ---- loaded code -------------------------------------------------------------------------- */

struct gpu_code {
    const struct gpu_driver *driver;
    int32_t ordinal;
    struct gpu_code *next;
    uint16_t clusters[2][GPU_CLUSTER_MAX];
    size_t count;
    struct entry {
        const char *name;
        void *function;
    } entries[]; /* by name: each launch looks for one */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct gpu_code *loaded; /* never shortened; changed under the lock */

static int compare_entries(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static void *function_of(const struct gpu_code *code, const char *name) {
    struct entry wanted = {.name = name};
    const struct entry *found =
        bsearch(&wanted, code->entries, code->count, sizeof wanted, compare_entries);
    return found != NULL ? found->function : NULL;
}

static kry_status count_clusters(const kry_device *device, struct gpu_code *code) {
    kry_status status = KRY_OK;
    if (gpu_code_device_facts(device).family != GPU_FAMILY_WGMMA)
        return KRY_OK;
    for (uint32_t i = 0; i < 2 * GPU_CLUSTER_MAX && status == KRY_OK; i++) {
        uint32_t resident = i / GPU_CLUSTER_MAX + 1, found = 0;
        struct gpu_launch launch = gpu_wide_launch(resident);
        launch.cluster = i % GPU_CLUSTER_MAX + 1;
        launch.grid = launch.cluster;
        status = code->driver->clusters(function_of(code, launch.entry), &launch, &found);
        code->clusters[resident - 1][launch.cluster - 1] = (uint16_t)found;
    }
    return status;
}

void gpu_code_facts(const struct gpu_code *code, struct gpu_facts *facts) {
    memcpy(facts->clusters, code->clusters, sizeof facts->clusters);
}

static kry_status load(const kry_device *device, struct gpu_code **out) {
    const struct gpu_driver *driver = gpu_driver_of(device);
    const struct gpu_code_object *object =
        gpu_code_object_of(device->platform, device->arch_number);
    if (object == NULL)
        return gpu_fail(KRY_E_DEPENDENCY, "this build has no code for %.31s", device->arch);
    size_t count;
    const char *const *names = gpu_entry_names(gpu_code_device_facts(device).family, &count);
    struct gpu_code *code = calloc(1, sizeof *code + count * sizeof code->entries[0]);
    if (code == NULL)
        return gpu_fail(KRY_E_MEMORY, "out of memory for %zu entries", count);
    *code = (struct gpu_code){.driver = driver, .ordinal = device->ordinal, .count = count};
    void *module;
    kry_status status = driver->load(device, object->code, &module);
    bool is_loaded = status == KRY_OK;
    for (size_t i = 0; i < count; i++)
        code->entries[i].name = names[i];
    qsort(code->entries, count, sizeof code->entries[0], compare_entries);
    for (size_t i = 0; i < count && status == KRY_OK; i++)
        status = driver->find(module, code->entries[i].name, device->shared_memory_bytes,
                              &code->entries[i].function);
    if (status == KRY_OK)
        status = count_clusters(device, code);
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

bool gpu_code_has(const struct gpu_code *code, const char *entry) {
    return function_of(code, entry) != NULL;
}

kry_status gpu_code_launch(const struct gpu_code *code, const struct gpu_launch *launch,
                           void *parameters, void *stream) {
    void *function = function_of(code, launch->entry);
    if (function == NULL)
        return gpu_fail(KRY_E_PLUGIN, "the device code has no entry %s", launch->entry);
    return code->driver->launch(function, launch, parameters, stream);
}
