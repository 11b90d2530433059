/*
 * Layers: a kernel bound to prepared weights, and the way from an apply to it, which is short.
 */
#include "core.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

kry_status core_kernel_failed(const struct ranked_kernel *kernel, const char *function,
                              kry_status status) {
    const kry_plugin *table = kernel->plugin->table;
    const char *sentence = table->error_message != NULL ? table->error_message() : NULL;
    bool told = sentence != NULL && sentence[0] != '\0';
    return kry_error_set(status, "kernel %s/%s: %s failed (%s)%s%s", table->name,
                         kernel->kernel.name, function, kry_status_string(status), told ? ": " : "",
                         told ? sentence : "");
}

/* ---- creating -------------------------------------------------------------------------- */

static const struct ranked_kernel *find_kernel(const kry_registry *registry, const char *platform,
                                               const char *name) {
    size_t count;
    const struct ranked_kernel *kernels = core_registry_kernels(registry, platform, &count);
    const char *slash = strchr(name, '/');
    for (size_t i = 0; i < count; i++) {
        const char *plugin = kernels[i].plugin->table->name;
        if (strcmp(kernels[i].kernel.name, slash != NULL ? slash + 1 : name) == 0 &&
            (slash == NULL || (strlen(plugin) == (size_t)(slash - name) &&
                               strncmp(plugin, name, (size_t)(slash - name)) == 0)))
            return &kernels[i];
    }
    return NULL;
}

static kry_status no_kernel(const kry_decision *decision, const kry_device *device) {
    char shape[160], reasons[3584];
    core_linear_format(core_decision_info(decision)->asked, shape, sizeof shape);
    core_decision_format(decision, reasons, sizeof reasons);
    if (reasons[0] == '\0')
        return kry_error_set(KRY_E_NO_KERNEL, "no kernel for %s: no plugin serves platform '%s'",
                             shape, device->platform);
    return kry_error_set(KRY_E_NO_KERNEL, "no kernel for %s on %s: %s", shape, device->platform,
                         reasons);
}

/* The layer's device is copied; what is not here can only be prepared for. */
static kry_status choose(kry_registry *registry, const kry_layer_args *args, kry_layer *layer) {
    kry_decision *decision = NULL;
    const struct ranked_kernel *only = NULL;
    if (args->kernel != NULL) {
        only = find_kernel(registry, layer->device.platform, args->kernel);
        if (only == NULL)
            return kry_error_set(KRY_E_NOT_FOUND, "no kernel of platform '%s' is called '%s'",
                                 layer->device.platform, args->kernel);
    }
    kry_status status = only != NULL
                            ? core_decide(registry, &layer->device, args->linear, only, &decision)
                            : kry_decide(registry, &layer->device, args->linear, &decision);
    if (status != KRY_OK)
        return status;
    layer->kernel = core_decision_kernel(decision);
    layer->stored = *core_decision_info(decision)->asked;
    layer->linear = *core_decision_info(decision)->decided;
    if (layer->kernel == NULL)
        status = no_kernel(decision, &layer->device);
    kry_decision_destroy(&decision);
    return status;
}

static kry_status read_sizes(kry_layer *layer) {
    const struct ranked_kernel *kernel = layer->kernel;
    layer->sizes = (kry_sizes){.struct_size = sizeof layer->sizes};
    kry_status status = kernel->linear.sizes(&layer->device, &layer->linear, &layer->sizes);
    if (status != KRY_OK)
        return core_kernel_failed(kernel, "sizes", status);
    if (layer->sizes.prepare_multiple < 1 ||
        layer->sizes.prepare_multiple > KRY_PREPARE_MULTIPLE_MAX ||
        layer->sizes.prepared_bytes > INT64_MAX || layer->sizes.bound_bytes > INT32_MAX ||
        layer->sizes.prepare_scratch_bytes > INT64_MAX / 2)
        return kry_error_set(KRY_E_PLUGIN,
                             "kernel %s/%s: sizes tells what cannot be: %" PRIu64
                             " prepared, %" PRIu64 " scratch and %" PRIu64
                             " bound bytes, ranges in multiples of %" PRId64 " (KRY-P04)",
                             kernel->plugin->table->name, kernel->kernel.name,
                             layer->sizes.prepared_bytes, layer->sizes.prepare_scratch_bytes,
                             layer->sizes.bound_bytes, layer->sizes.prepare_multiple);
    return KRY_OK;
}

static bool same_device(const kry_device *a, const kry_device *b) {
    return a->ordinal == b->ordinal && strcmp(a->platform, b->platform) == 0 &&
           a->cpu_features == b->cpu_features;
}

/* The state of a kernel on a device that is opened or being opened, or NULL. */
static struct opened_device *find_opened(const kry_layer *layer) {
    struct opened_device *opened = layer->registry->opened;
    while (opened != NULL &&
           (opened->kernel != layer->kernel || !same_device(&opened->device, &layer->device)))
        opened = opened->next;
    return opened;
}

/* Make the entry, then let the kernel open the device without the lock: that may take seconds, in
 * which layers of other kernels and devices are made. */
static kry_status open_first(kry_layer *layer, struct opened_device **out) {
    kry_registry *registry = layer->registry;
    struct opened_device *opened = calloc(1, sizeof *opened);
    if (opened == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory for a device's state");
    *opened = (struct opened_device){.next = registry->opened,
                                     .kernel = layer->kernel,
                                     .device = layer->device,
                                     .opening = true};
    registry->opened = opened;
    pthread_mutex_unlock(&registry->opening);
    kry_status status = layer->kernel->linear.open_device(
        &opened->device, &registry->services.offered, &opened->state);
    if (status != KRY_OK)
        status = core_kernel_failed(layer->kernel, "open_device", status);
    pthread_mutex_lock(&registry->opening);
    opened->opening = false;
    if (status != KRY_OK) {
        struct opened_device **link = &registry->opened;
        while (*link != opened)
            link = &(*link)->next;
        *link = opened->next;
        free(opened);
    } else {
        *out = opened;
    }
    pthread_cond_broadcast(&registry->opened_one);
    return status;
}

/* A kernel's code is loaded on a device once, by the first layer there. */
static kry_status open_device(kry_layer *layer) {
    kry_registry *registry = layer->registry;
    if (layer->kernel->linear.open_device == NULL || layer->device.flags & KRY_DEVICE_HYPOTHETICAL)
        return KRY_OK;
    kry_status status = KRY_OK;
    pthread_mutex_lock(&registry->opening);
    struct opened_device *opened = find_opened(layer);
    while (opened != NULL && opened->opening) { /* it may fail, and be gone */
        pthread_cond_wait(&registry->opened_one, &registry->opening);
        opened = find_opened(layer);
    }
    if (opened == NULL)
        status = open_first(layer, &opened);
    if (status == KRY_OK)
        layer->binding.device_state = opened->state;
    pthread_mutex_unlock(&registry->opening);
    return status;
}

static kry_status check_here(const kry_registry *registry, const kry_device *device) {
    uint64_t missing = device->cpu_features & ~registry->cpu_features;
    if (device->flags & KRY_DEVICE_HYPOTHETICAL || strcmp(device->platform, "cpu") != 0 ||
        missing == 0)
        return KRY_OK;
    char names[256];
    kry_cpu_features_format(missing, names, sizeof names);
    return kry_error_set(KRY_E_DEVICE, "device: this CPU lacks %s, or a mask hides it", names);
}

static kry_status fill_binding(kry_layer *layer) {
    const kry_host *host = &layer->registry->services.offered;
    layer->binding = (kry_binding){.struct_size = sizeof layer->binding,
                                   .device = &layer->device,
                                   .linear = &layer->linear,
                                   .host = host};
    if (layer->sizes.bound_bytes > 0) {
        layer->binding.bound =
            host->allocate(host->context, layer->sizes.bound_bytes, KRY_ALIGNMENT);
        if (layer->binding.bound == NULL)
            return kry_error_set(KRY_E_MEMORY, "out of memory for %" PRIu64 " bound bytes",
                                 layer->sizes.bound_bytes);
    }
    return open_device(layer);
}

kry_status kry_layer_create(kry_registry *registry, const kry_layer_args *args, kry_layer **out) {
    kry_layer_args given;
    if (registry == NULL || out == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_layer_create: found NULL");
    kry_status status = COPY_IN(&given, args, kry_layer_args);
    if (status != KRY_OK)
        return status;
    kry_layer *layer = calloc(1, sizeof *layer);
    if (layer == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory for a layer");
    core_registry_retain(registry);
    layer->registry = registry;
    status = COPY_IN(&layer->device, given.device, kry_device);
    if (status == KRY_OK)
        status = check_here(registry, &layer->device);
    if (status == KRY_OK)
        status = choose(registry, &given, layer);
    if (status == KRY_OK)
        status = read_sizes(layer);
    if (status == KRY_OK) {
        layer->platform = core_registry_platform(registry, layer->device.platform);
        status = fill_binding(layer);
    }
    if (status != KRY_OK) {
        kry_layer_destroy(&layer);
        return status;
    }
    *out = layer;
    return KRY_OK;
}

void kry_layer_destroy(kry_layer **layer) {
    if (layer == NULL || *layer == NULL)
        return;
    kry_layer *gone = *layer;
    const kry_host *host = &gone->registry->services.offered;
    *layer = NULL;
    core_release_prepared(gone);
    if (gone->binding.bound != NULL)
        host->release(host->context, gone->binding.bound, gone->sizes.bound_bytes);
    kry_registry_close(&gone->registry);
    free(gone);
}

/* ---- telling --------------------------------------------------------------------------- */

kry_status kry_layer_kernel(const kry_layer *layer, kry_kernel_info *out) {
    if (layer == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_layer_kernel: layer is NULL");
    return core_kernel_describe(layer->kernel, out);
}

const kry_linear *kry_layer_linear(const kry_layer *layer, int as_decided) {
    if (layer == NULL)
        return NULL;
    return as_decided ? &layer->linear : &layer->stored;
}

kry_status kry_layer_sizes(const kry_layer *layer, kry_sizes *out) {
    if (layer == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_layer_sizes: layer is NULL");
    kry_sizes sizes = layer->sizes;
    sizes.prepare_scratch_bytes = core_prepare_scratch(layer);
    return COPY_OUT(out, &sizes, kry_sizes);
}

static kry_status kernel_workspace(const kry_layer *layer, int64_t m, kry_workspace *out) {
    *out = (kry_workspace){.struct_size = sizeof *out};
    if (layer->kernel->linear.workspace == NULL || m == 0)
        return KRY_OK;
    kry_status status = layer->kernel->linear.workspace(&layer->device, &layer->linear, m, out);
    return status == KRY_OK ? KRY_OK : core_kernel_failed(layer->kernel, "workspace", status);
}

kry_status kry_layer_workspace(const kry_layer *layer, int64_t m, kry_workspace *out) {
    if (layer == NULL || m < 0 || m > KRY_FEATURES_MAX)
        return kry_error_set(KRY_E_ARGUMENT,
                             "kry_layer_workspace: layer is NULL or m %" PRId64
                             " is not in 0 to %" PRId64,
                             m, KRY_FEATURES_MAX);
    kry_workspace workspace;
    kry_status status = kernel_workspace(layer, m, &workspace);
    return status == KRY_OK ? COPY_OUT(out, &workspace, kry_workspace) : status;
}

/* ---- applying -------------------------------------------------------------------------- */

static kry_status check_operands(const kry_layer *layer, const kry_apply_args *args) {
    if (args->x == NULL || args->y == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "apply: %s is NULL", args->x == NULL ? "x" : "y");
    if (args->x_stride < layer->linear.in_features && args->m > 1)
        return kry_error_set(KRY_E_ARGUMENT,
                             "apply: x_stride is %" PRId64
                             ", expected at least in_features %" PRId64,
                             args->x_stride, layer->linear.in_features);
    if (args->y_stride < layer->linear.out_features && args->m > 1)
        return kry_error_set(KRY_E_ARGUMENT,
                             "apply: y_stride is %" PRId64
                             ", expected at least out_features %" PRId64,
                             args->y_stride, layer->linear.out_features);
    int64_t reach;
    if (__builtin_mul_overflow(args->m, args->x_stride, &reach) ||
        __builtin_mul_overflow(args->m, args->y_stride, &reach) || reach > INT64_MAX / 8)
        return kry_error_set(KRY_E_ARGUMENT, "apply: m %" PRId64 " rows cannot be addressed",
                             args->m);
    return KRY_OK;
}

static kry_status check_workspace(const kry_layer *layer, const kry_apply_args *args) {
    kry_workspace needed;
    kry_status status = kernel_workspace(layer, args->m, &needed);
    if (status != KRY_OK)
        return status;
    if ((needed.scratch_bytes > 0 && args->scratch == NULL) ||
        args->scratch_bytes < needed.scratch_bytes)
        return kry_error_set(
            KRY_E_WORKSPACE, "apply: scratch has %" PRIu64 " bytes, m = %" PRId64 " needs %" PRIu64,
            args->scratch != NULL ? args->scratch_bytes : 0, args->m, needed.scratch_bytes);
    if ((needed.zeroed_bytes > 0 && args->zeroed == NULL) ||
        args->zeroed_bytes < needed.zeroed_bytes)
        return kry_error_set(
            KRY_E_WORKSPACE, "apply: zeroed has %" PRIu64 " bytes, m = %" PRId64 " needs %" PRIu64,
            args->zeroed != NULL ? args->zeroed_bytes : 0, args->m, needed.zeroed_bytes);
    if (((uintptr_t)args->scratch | (uintptr_t)args->zeroed) % KRY_ALIGNMENT != 0)
        return kry_error_set(KRY_E_WORKSPACE,
                             "apply: scratch %p and zeroed %p, expected multiples of %d",
                             args->scratch, args->zeroed, KRY_ALIGNMENT);
    return KRY_OK;
}

kry_status kry_layer_apply(const kry_layer *layer, const kry_apply_args *args) {
    kry_apply_args complete;
    if (layer == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "apply: layer is NULL");
    kry_status status = COPY_IN(&complete, args, kry_apply_args);
    if (status != KRY_OK)
        return status;
    if (!layer->ready)
        return kry_error_set(KRY_E_STATE, "apply: the layer has no prepared weights in memory "
                                          "that its device applies from");
    if (layer->device.flags & KRY_DEVICE_HYPOTHETICAL)
        return kry_error_set(KRY_E_DEVICE, "apply: device %s:%s is hypothetical",
                             layer->device.platform, layer->device.arch);
    if (complete.m < 0 || complete.m > KRY_FEATURES_MAX)
        return kry_error_set(KRY_E_ARGUMENT, "apply: m is %" PRId64 ", expected 0 to %" PRId64,
                             complete.m, KRY_FEATURES_MAX);
    if (complete.m == 0)
        return KRY_OK;
    if (complete.x_stride == 0)
        complete.x_stride = layer->linear.in_features;
    if (complete.y_stride == 0)
        complete.y_stride = layer->linear.out_features;
    if (complete.host == NULL)
        complete.host = layer->binding.host;
    status = check_operands(layer, &complete);
    if (status == KRY_OK && layer->kernel->linear.workspace != NULL)
        status = check_workspace(layer, &complete);
    if (status != KRY_OK)
        return status;
    status = layer->kernel->linear.apply(&layer->binding, &complete);
    return status == KRY_OK ? KRY_OK : core_kernel_failed(layer->kernel, "apply", status);
}
