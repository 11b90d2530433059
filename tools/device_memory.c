/*
 * Memory of the device that layers are applied on.
 */
#include "device_memory.h"

#include "direct.h"
#include "trial.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/** The platform's operations that a plugin offers, or NULL. */
static const kry_platform *platform_of(const kry_plugin *plugin, const char *name) {
    for (uint64_t i = 0; i < plugin->platform_count; i++)
        if (strcmp(plugin->platforms[i]->name, name) == 0)
            return plugin->platforms[i];
    return NULL;
}

/** Look at a plugin; its table and operations go to *out where it offers some. */
static kry_status look_at(const kry_registry *registry, const char *name,
                          struct device_memory *out) {
    const kry_plugin *plugin = NULL;
    kry_status status = direct_plugin(registry, name, &plugin);
    const kry_platform *platform =
        status == KRY_OK ? platform_of(plugin, out->device->platform) : NULL;
    if (platform != NULL) {
        out->plugin = plugin;
        out->platform = platform;
    }
    return status;
}

/** Those with kernels, in the order in which they are asked, then any other. */
static kry_status find_platform(const kry_registry *registry, struct device_memory *out) {
    const char *name = out->device->platform;
    kry_status status = KRY_OK;
    size_t kernels = kry_registry_kernel_count(registry, name);
    for (size_t i = 0; i < kernels && status == KRY_OK && out->platform == NULL; i++) {
        kry_kernel_info kernel = KRY_INIT(kry_kernel_info);
        status = kry_registry_kernel(registry, name, i, &kernel);
        if (status == KRY_OK)
            status = look_at(registry, kernel.plugin, out);
    }
    size_t plugins = kry_registry_plugin_count(registry);
    for (size_t i = 0; i < plugins && status == KRY_OK && out->platform == NULL; i++) {
        kry_plugin_info plugin = KRY_INIT(kry_plugin_info);
        status = kry_registry_plugin(registry, i, &plugin);
        if (status == KRY_OK && plugin.state == KRY_PLUGIN_LOADED)
            status = look_at(registry, plugin.name, out);
    }
    return status;
}

kry_status device_memory_open(const kry_registry *registry, const kry_device *device,
                              struct device_memory *out) {
    struct device_memory found = {.device = device};
    bool shared = strcmp(device->platform, "cpu") == 0;
    kry_status status = shared ? KRY_OK : find_platform(registry, &found);
    if (status != KRY_OK)
        return status;
    const kry_platform *platform = found.platform;
    if (!shared &&
        (platform == NULL || platform->allocate == NULL || platform->release == NULL ||
         platform->copy == NULL || platform->clear == NULL || platform->synchronize == NULL))
        return kry_error_set(KRY_E_UNSUPPORTED, "no plugin offers memory of platform '%s'",
                             device->platform);
    *out = found;
    return KRY_OK;
}

bool device_memory_is_shared(const struct device_memory *memory) {
    return memory->platform == NULL;
}

/** KRY_OK, or the error of an operation, worded. */
static kry_status check(const struct device_memory *memory, kry_status status, const char *what) {
    if (status == KRY_OK)
        return KRY_OK;
    const char *sentence =
        memory->plugin->error_message != NULL ? memory->plugin->error_message() : NULL;
    return kry_error_set(status, "platform %s: %s failed (%s)%s%s", memory->device->platform, what,
                         kry_status_string(status), sentence != NULL ? ": " : "",
                         sentence != NULL ? sentence : "");
}

void *device_memory_get(const struct device_memory *memory, uint64_t bytes) {
    void *block = NULL;
    if (device_memory_is_shared(memory))
        return trial_allocate(bytes);
    return memory->platform->allocate(memory->device, bytes > 0 ? bytes : 1, &block) == KRY_OK
               ? block
               : NULL;
}

void device_memory_release(const struct device_memory *memory, void *block, uint64_t bytes) {
    if (block == NULL)
        return;
    if (device_memory_is_shared(memory))
        free(block);
    else
        memory->platform->release(memory->device, block, bytes > 0 ? bytes : 1);
}

static kry_status copy(const struct device_memory *memory, void *to, uint32_t to_memory,
                       const void *from, uint32_t from_memory, uint64_t bytes) {
    if (bytes == 0)
        return KRY_OK;
    if (device_memory_is_shared(memory)) {
        memmove(to, from, bytes);
        return KRY_OK;
    }
    kry_status status =
        memory->platform->copy(memory->device, to, to_memory, from, from_memory, bytes, NULL);
    if (status == KRY_OK)
        status = memory->platform->synchronize(memory->device, NULL);
    return check(memory, status, "a copy");
}

kry_status device_memory_send(const struct device_memory *memory, void *to, const void *from,
                              uint64_t bytes) {
    return copy(memory, to, KRY_MEMORY_DEVICE, from, KRY_MEMORY_HOST, bytes);
}

kry_status device_memory_fetch(const struct device_memory *memory, void *to, const void *from,
                               uint64_t bytes) {
    return copy(memory, to, KRY_MEMORY_HOST, from, KRY_MEMORY_DEVICE, bytes);
}

kry_status device_memory_copy(const struct device_memory *memory, void *to, const void *from,
                              uint64_t bytes) {
    return copy(memory, to, KRY_MEMORY_DEVICE, from, KRY_MEMORY_DEVICE, bytes);
}

kry_status device_memory_clear(const struct device_memory *memory, void *block, uint64_t bytes) {
    if (bytes == 0)
        return KRY_OK;
    if (device_memory_is_shared(memory)) {
        memset(block, 0, bytes);
        return KRY_OK;
    }
    kry_status status = memory->platform->clear(memory->device, block, bytes, NULL);
    if (status == KRY_OK)
        status = memory->platform->synchronize(memory->device, NULL);
    return check(memory, status, "clearing");
}

kry_status device_memory_wait(const struct device_memory *memory, void *stream) {
    return device_memory_is_shared(memory)
               ? KRY_OK
               : check(memory, memory->platform->synchronize(memory->device, stream),
                       "waiting for the device");
}

/* ---- twins --------------------------------------------------------------------------- */

kry_status twin_get(const struct device_memory *memory, uint64_t bytes, struct twin *out) {
    *out = (struct twin){.bytes = bytes, .host = trial_allocate(bytes)};
    if (out->host != NULL)
        out->device =
            device_memory_is_shared(memory) ? out->host : device_memory_get(memory, bytes);
    return out->device != NULL
               ? KRY_OK
               : kry_error_set(KRY_E_MEMORY, "no memory for %" PRIu64 " bytes", bytes);
}

void twin_release(const struct device_memory *memory, struct twin *twin) {
    if (twin->device != twin->host)
        device_memory_release(memory, twin->device, twin->bytes);
    free(twin->host);
    *twin = (struct twin){0};
}

kry_status twin_send(const struct device_memory *memory, const struct twin *twin) {
    return twin->device == twin->host
               ? KRY_OK
               : device_memory_send(memory, twin->device, twin->host, twin->bytes);
}

kry_status twin_fetch(const struct device_memory *memory, const struct twin *twin) {
    return twin->device == twin->host
               ? KRY_OK
               : device_memory_fetch(memory, twin->host, twin->device, twin->bytes);
}
