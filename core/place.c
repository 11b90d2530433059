/*
 * Where prepared weights lie: memory of the host, of the device or of the caller, or the mapping
 * of a file; chosen, adopted by the layer, bound by its kernel and given back.
 */
#include "core.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

kry_status core_platform_failed(const kry_layer *layer, kry_status status, const char *format,
                                ...) {
    char what[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    const char *sentence = core_platform_sentence(layer->registry, layer->platform);
    return kry_error_set(status, "platform %s: %s failed (%s)%s%s", layer->device.platform, what,
                         kry_status_string(status), sentence[0] != '\0' ? ": " : "", sentence);
}

void *core_allocate(const kry_layer *layer, const kry_host *host, uint32_t memory, uint64_t bytes) {
    void *out = NULL;
    if (memory == KRY_MEMORY_HOST)
        return host->allocate != NULL
                   ? host->allocate(host->context, bytes, KRY_ALIGNMENT)
                   : layer->registry->services.offered.allocate(
                         layer->registry->services.offered.context, bytes, KRY_ALIGNMENT);
    if (layer->platform == NULL || layer->platform->allocate == NULL ||
        layer->platform->allocate(&layer->device, bytes, &out) != KRY_OK)
        return NULL;
    return out;
}

void core_release(const kry_layer *layer, const kry_host *host, uint32_t memory, void *block,
                  uint64_t bytes) {
    const kry_host *offered = &layer->registry->services.offered;
    if (block == NULL)
        return;
    if (memory == KRY_MEMORY_DEVICE)
        layer->platform->release(&layer->device, block, bytes);
    else if (host->allocate != NULL)
        host->release(host->context, block, bytes);
    else
        offered->release(offered->context, block, bytes);
}

void core_release_prepared(kry_layer *layer) {
    if (layer->mapping != NULL)
        munmap(layer->mapping, layer->mapping_bytes);
    else if (layer->owns_prepared)
        core_release(layer, &layer->registry->services.offered, layer->memory, layer->prepared,
                     layer->sizes.prepared_bytes);
    layer->mapping = NULL;
    layer->owns_prepared = false;
    layer->prepared = NULL;
}

uint32_t core_device_memory(const kry_device *device) {
    return strcmp(device->platform, "cpu") == 0 || (device->flags & KRY_DEVICE_HYPOTHETICAL)
               ? KRY_MEMORY_HOST
               : KRY_MEMORY_DEVICE;
}

kry_status core_choose_target(const kry_layer *layer, void *prepared, uint64_t bytes,
                              uint32_t memory, struct target *out) {
    uint64_t needed = layer->sizes.prepared_bytes;
    uint32_t device = core_device_memory(&layer->device);
    *out = (struct target){layer->prepared, layer->memory, layer->owns_prepared};
    if (prepared != NULL) {
        if (memory != device && memory != KRY_MEMORY_HOST)
            return kry_error_set(KRY_E_ARGUMENT, "prepared_memory is %u, expected %u", memory,
                                 device);
        if (bytes < needed || (uintptr_t)prepared % KRY_ALIGNMENT != 0)
            return kry_error_set(KRY_E_ARGUMENT,
                                 "prepared: %" PRIu64 " bytes at %p, expected %" PRIu64
                                 " at a multiple of %d",
                                 bytes, prepared, needed, KRY_ALIGNMENT);
        bool same = prepared == layer->prepared;
        *out = (struct target){prepared, memory, same && layer->owns_prepared};
    } else if (layer->prepared == NULL || layer->mapping != NULL) { /* a mapping is read-only */
        *out = (struct target){NULL, device, true};
    }
    return KRY_OK;
}

void core_adopt(kry_layer *layer, const struct target *target) {
    if (target->prepared != layer->prepared)
        core_release_prepared(layer);
    layer->prepared = target->prepared;
    layer->memory = target->memory;
    layer->owns_prepared = target->owned;
    layer->filled = false;
    layer->ready = false;
}

kry_status core_bind(kry_layer *layer) {
    bool applies_from = layer->memory == core_device_memory(&layer->device);
    layer->binding.prepared = layer->prepared;
    if (applies_from && !(layer->device.flags & KRY_DEVICE_HYPOTHETICAL) &&
        layer->kernel->linear.bind != NULL) {
        kry_status status = layer->kernel->linear.bind(&layer->binding);
        if (status != KRY_OK)
            return core_kernel_failed(layer->kernel, "bind", status);
    }
    layer->filled = true;
    layer->ready = applies_from;
    return KRY_OK;
}
