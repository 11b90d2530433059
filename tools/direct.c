/*
 * A kernel called without the core.
 */
#include "direct.h"

#include "trial.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** The path of a loaded plugin. */
static kry_status plugin_path(const kry_registry *registry, const char *name, const char **out) {
    size_t count = kry_registry_plugin_count(registry);
    for (size_t i = 0; i < count; i++) {
        kry_plugin_info info = KRY_INIT(kry_plugin_info);
        kry_status status = kry_registry_plugin(registry, i, &info);
        if (status != KRY_OK)
            return status;
        if (info.state == KRY_PLUGIN_LOADED && strcmp(info.name, name) == 0) {
            *out = info.path;
            return KRY_OK;
        }
    }
    return kry_error_set(KRY_E_NOT_FOUND, "no plugin is called %s", name);
}

kry_status direct_plugin(const kry_registry *registry, const char *name, const kry_plugin **out) {
    const char *path = NULL;
    kry_status status = plugin_path(registry, name, &path);
    if (status != KRY_OK)
        return status;
    char symbol[128];
    snprintf(symbol, sizeof symbol, "kry_plugin_%s", name);
    void *file = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    kry_plugin_entry entry = NULL;
    if (file != NULL)
        *(void **)&entry = dlsym(file, symbol);
    if (entry == NULL)
        return kry_error_set(KRY_E_NOT_FOUND, "%s: %s", path, dlerror());
    *out = entry();
    return KRY_OK;
}

kry_status direct_find(const kry_registry *registry, const kry_kernel_info *info,
                       const kry_linear_kernel **out) {
    const kry_plugin *plugin = NULL;
    kry_status status = direct_plugin(registry, info->plugin, &plugin);
    if (status != KRY_OK)
        return status;
    for (uint64_t i = 0; i < plugin->kernel_count; i++) {
        const kry_kernel *kernel = plugin->kernels[i];
        if (strcmp(kernel->name, info->kernel) == 0 &&
            strcmp(kernel->platform, info->platform) == 0 && kernel->linear != NULL) {
            *out = kernel->linear;
            return KRY_OK;
        }
    }
    return kry_error_set(KRY_E_NOT_FOUND, "plugin %s: no kernel is called %s", info->plugin,
                         info->kernel);
}

/** The drawn weights are in the canonical layout already. */
static kry_canonical canonical_of(const struct synthetic *synthetic) {
    kry_canonical weights = KRY_INIT(kry_canonical);
    weights.n_end = synthetic->linear.out_features;
    weights.qweight = synthetic->qweight;
    weights.scales = synthetic->scales;
    weights.zero_points = synthetic->zero_points;
    weights.g_idx = synthetic->g_idx;
    weights.qweight_stride = synthetic->qweight_view.n_stride;
    weights.scale_stride = synthetic->scales_view.n_stride;
    weights.zero_stride = synthetic->zero_points_view.n_stride;
    weights.memory = KRY_MEMORY_HOST;
    return weights;
}

static kry_status prepare(struct direct *direct, const struct synthetic *synthetic,
                          const kry_sizes *sizes, void *prepared) {
    kry_canonical weights = canonical_of(synthetic);
    void *scratch = trial_allocate(sizes->prepare_scratch_bytes);
    if (scratch == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    kry_prepare_call call = KRY_INIT(kry_prepare_call);
    call.device = direct->binding.device;
    call.linear = direct->binding.linear;
    call.device_state = direct->binding.device_state;
    call.weights = &weights;
    call.prepared = prepared;
    call.scratch = scratch;
    call.host = &direct->host;
    kry_status status = direct->functions->prepare_weights(&call);
    free(scratch);
    return status;
}

kry_status direct_open(const kry_linear_kernel *functions, const kry_device *device,
                       const struct synthetic *synthetic, struct direct *out) {
    *out = (struct direct){
        .functions = functions, .binding = KRY_INIT(kry_binding), .host = KRY_INIT(kry_host)};
    kry_binding *binding = &out->binding;
    binding->device = device;
    binding->linear = &synthetic->linear;
    binding->host = &out->host;
    kry_sizes sizes = KRY_INIT(kry_sizes);
    kry_status status = functions->sizes(device, &synthetic->linear, &sizes);
    if (status != KRY_OK)
        return status;
    void *prepared = trial_allocate(sizes.prepared_bytes);
    binding->prepared = prepared;
    binding->bound = trial_allocate(sizes.bound_bytes);
    if (prepared == NULL || binding->bound == NULL)
        status = kry_error_set(KRY_E_MEMORY, "out of memory");
    if (status == KRY_OK && functions->open_device != NULL)
        status = functions->open_device(device, &out->host, &binding->device_state);
    if (status == KRY_OK)
        status = prepare(out, synthetic, &sizes, prepared);
    if (status == KRY_OK && functions->bind != NULL)
        status = functions->bind(binding);
    if (status != KRY_OK)
        direct_close(out);
    return status;
}

void direct_close(struct direct *direct) {
    kry_binding *binding = &direct->binding;
    if (binding->device_state != NULL && direct->functions->close_device != NULL)
        direct->functions->close_device(binding->device_state, &direct->host);
    free((void *)binding->prepared);
    free(binding->bound);
    binding->prepared = NULL;
    binding->bound = NULL;
    binding->device_state = NULL;
}
