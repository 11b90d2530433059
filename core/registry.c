/*
 * The registry: a file becomes a plugin, all plugins become one order. What it holds never
 * changes after opening, so deciding takes no lock.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

static kry_status load_all(kry_registry *registry, const struct found *found,
                           struct overrides *overrides, const kry_registry_options *options) {
    registry->plugins = calloc(found->count + 1, sizeof registry->plugins[0]);
    if (registry->plugins == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory for %zu plugins", found->count);
    struct load_context context = {.log = &registry->services,
                                   .overrides = overrides,
                                   .cpu_features = registry->cpu_features,
                                   .relax_trust = options->flags & KRY_REGISTRY_RELAX_TRUST,
                                   .probe_milliseconds = options->probe_milliseconds,
                                   .plugins = registry->plugins};
    for (context.slots = 2; context.slots <= 2 * found->count;)
        context.slots *= 2;
    context.by_inode = calloc(context.slots, sizeof context.by_inode[0]);
    if (context.by_inode == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory for %zu plugins", found->count);
    char *helper = NULL;
    kry_status status = core_library_owner(&context.library_owner);
    if (status == KRY_OK && (options->flags & KRY_REGISTRY_PROBE))
        status = core_probe_find(&context, &helper);
    context.probe_helper = helper;
    for (size_t i = 0; i < found->count && status == KRY_OK; i++) {
        bool skip;
        status = core_load(&context, &found->files[i], &registry->plugins[registry->plugin_count],
                           &skip);
        registry->plugin_count += status == KRY_OK && !skip;
        context.count = registry->plugin_count;
    }
    free(context.by_inode);
    free(helper);
    return status;
}

static kry_status mask_cpu(kry_registry *registry, const kry_registry_options *options) {
    uint64_t mask = options->cpu_mask != 0 ? options->cpu_mask : UINT64_MAX;
    const char *text =
        options->flags & KRY_REGISTRY_NO_ENVIRONMENT ? NULL : secure_getenv("KERNELRY_CPU_MASK");
    if (text != NULL && core_cpu_features_parse(text, &mask) != KRY_OK)
        return kry_error_set(KRY_E_ARGUMENT, "KERNELRY_CPU_MASK: %s", kry_error_message());
    registry->cpu_features = core_cpu_features_close(core_cpu_features() & mask);
    return KRY_OK;
}

static kry_status fill(kry_registry *registry, const kry_registry_options *options) {
    struct found found = {0};
    struct overrides overrides = {0};
    kry_status status = mask_cpu(registry, options);
    if (status == KRY_OK)
        status = core_overrides_read(options, &registry->services, &overrides);
    if (status == KRY_OK)
        status = core_find(options, &registry->services, &found);
    if (status == KRY_OK)
        status = load_all(registry, &found, &overrides, options);
    if (status == KRY_OK)
        status = core_order(registry->plugins, registry->plugin_count, &overrides,
                            &registry->services, &registry->kernels);
    if (status == KRY_OK) {
        const kry_platform *cpu =
            core_order_platform(registry->plugins, registry->plugin_count, "cpu");
        registry->services.platform = cpu != NULL ? cpu->host : NULL;
        if (!(options->flags & KRY_REGISTRY_NO_ENVIRONMENT))
            core_host_check_threads(&registry->services);
        core_overrides_warn_unused(&overrides, &registry->services);
        registry->directories = found.directories;
        registry->directory_count = found.directory_count;
        found.directories = NULL;
        found.directory_count = 0;
    }
    core_overrides_free(&overrides);
    core_found_free(&found);
    return status;
}

static kry_status check_options(const kry_registry_options *options) {
    if ((options->plugin_path_count > 0 && options->plugin_paths == NULL) ||
        (options->disable_count > 0 && options->disable == NULL) ||
        (options->prefer_count > 0 && options->prefer == NULL) ||
        (options->priority_count > 0 && options->priority == NULL))
        return kry_error_set(KRY_E_ARGUMENT, "kry_registry_options: a list is NULL, its count "
                                             "is not 0");
    if (options->reserved != 0 || options->reserved_2 != 0)
        return kry_error_set(KRY_E_ARGUMENT, "kry_registry_options: reserved is %u, expected 0",
                             options->reserved | options->reserved_2);
    if (options->flags & ~(uint32_t)(KRY_REGISTRY_NO_DEFAULT_DIR | KRY_REGISTRY_NO_ENVIRONMENT |
                                     KRY_REGISTRY_RELAX_TRUST | KRY_REGISTRY_PROBE))
        return kry_error_set(KRY_E_ARGUMENT, "kry_registry_options: flags %#x are unknown",
                             options->flags);
    return KRY_OK;
}

static void destroy(kry_registry *registry) {
    for (struct opened_device *opened = registry->opened; opened != NULL;) {
        struct opened_device *next = opened->next;
        if (opened->kernel->linear.close_device != NULL)
            opened->kernel->linear.close_device(opened->state, &registry->services.offered);
        free(opened);
        opened = next;
    }
    for (size_t i = 0; i < registry->plugin_count; i++)
        core_plugin_free(&registry->plugins[i]);
    for (size_t i = 0; i < registry->directory_count; i++)
        free(registry->directories[i]);
    free(registry->plugins);
    free(registry->directories);
    free(registry->kernels.items);
    pthread_cond_destroy(&registry->opened_one);
    pthread_mutex_destroy(&registry->opening);
    free(registry);
}

kry_status kry_registry_open(const kry_registry_options *options, kry_registry **out) {
    if (out == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_registry_open: out is NULL");
    kry_registry_options given = KRY_INIT(kry_registry_options);
    kry_host host = {0};
    kry_status status = KRY_OK;
    if (options != NULL)
        status = COPY_IN_SINCE(&given, options, kry_registry_options, probe_milliseconds);
    if (status == KRY_OK)
        status = check_options(&given);
    if (status == KRY_OK && given.host != NULL)
        status = core_host_copy(&host, given.host);
    if (status != KRY_OK)
        return status;
    kry_registry *registry = calloc(1, sizeof *registry);
    if (registry == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory for a registry");
    atomic_init(&registry->references, 1);
    pthread_mutex_init(&registry->opening, NULL);
    pthread_cond_init(&registry->opened_one, NULL);
    core_host_init(&registry->services, given.host != NULL ? &host : NULL,
                   !(given.flags & KRY_REGISTRY_NO_ENVIRONMENT));
    status = fill(registry, &given);
    if (status != KRY_OK) {
        destroy(registry);
        return status;
    }
    *out = registry;
    return KRY_OK;
}

void core_registry_retain(kry_registry *registry) {
    atomic_fetch_add_explicit(&registry->references, 1, memory_order_relaxed);
}

void kry_registry_close(kry_registry **registry) {
    if (registry == NULL || *registry == NULL)
        return;
    kry_registry *dropped = *registry;
    *registry = NULL;
    if (atomic_fetch_sub_explicit(&dropped->references, 1, memory_order_acq_rel) == 1)
        destroy(dropped);
}

const struct ranked_kernel *core_registry_kernels(const kry_registry *registry,
                                                  const char *platform, size_t *count) {
    const struct ranked_kernel *items = registry->kernels.items;
    size_t begin = 0;
    while (begin < registry->kernels.count && strcmp(items[begin].kernel.platform, platform) != 0)
        begin++;
    size_t end = begin;
    while (end < registry->kernels.count && strcmp(items[end].kernel.platform, platform) == 0)
        end++;
    *count = end - begin;
    return items + begin;
}

const kry_platform *core_registry_platform(const kry_registry *registry, const char *platform) {
    return core_order_platform(registry->plugins, registry->plugin_count, platform);
}

const char *core_platform_sentence(const kry_registry *registry, const kry_platform *operations) {
    for (size_t i = 0; i < registry->plugin_count && operations != NULL; i++) {
        const struct plugin *plugin = &registry->plugins[i];
        if (plugin->state != KRY_PLUGIN_LOADED || plugin->table->error_message == NULL)
            continue;
        for (uint64_t k = 0; k < plugin->table->platform_count; k++)
            if (plugin->table->platforms[k] == operations) {
                const char *sentence = plugin->table->error_message();
                return sentence != NULL ? sentence : "";
            }
    }
    return "";
}

size_t kry_registry_plugin_count(const kry_registry *registry) {
    return registry != NULL ? registry->plugin_count : 0;
}

kry_status kry_registry_plugin(const kry_registry *registry, size_t index, kry_plugin_info *out) {
    if (registry == NULL || index >= registry->plugin_count)
        return kry_error_set(KRY_E_NOT_FOUND, "no plugin %zu: there are %zu", index,
                             kry_registry_plugin_count(registry));
    const struct plugin *plugin = &registry->plugins[index];
    kry_plugin_info info = {.struct_size = sizeof info,
                            .path = plugin->path,
                            .name = plugin->has_note ? plugin->note.name : "",
                            .version = plugin->has_note ? plugin->note.version : "",
                            .reason = plugin->reason != NULL ? plugin->reason : "",
                            .state = plugin->state,
                            .status = plugin->status,
                            .named_outright = plugin->named_outright};
    if (plugin->has_note) {
        info.abi_major = plugin->note.abi_major;
        info.abi_minor = plugin->note.abi_minor;
        info.cpu_features = note_cpu_features(&plugin->note);
    }
    for (uint32_t i = 0; plugin->has_note && i < KRY_NOTE_PLATFORMS_MAX; i++) {
        const kry_note_platform *declared = &plugin->note.platforms[i];
        if (declared->name[0] == '\0')
            break;
        kry_plugin_platform *told = &info.platforms[info.platform_count++];
        memcpy(told->name, declared->name, sizeof told->name);
        told->priority = declared->priority;
        told->fallback = (declared->flags & KRY_NOTE_FALLBACK) != 0;
    }
    for (size_t i = 0; i < registry->kernels.count; i++)
        info.kernel_count += registry->kernels.items[i].plugin == plugin;
    return COPY_OUT(out, &info, kry_plugin_info);
}

const char *kry_registry_search_path(const kry_registry *registry, size_t index) {
    return registry != NULL && index < registry->directory_count ? registry->directories[index]
                                                                 : NULL;
}

size_t kry_registry_kernel_count(const kry_registry *registry, const char *platform) {
    if (registry == NULL)
        return 0;
    size_t count = registry->kernels.count;
    if (platform != NULL)
        core_registry_kernels(registry, platform, &count);
    return count;
}

kry_status kry_registry_kernel(const kry_registry *registry, const char *platform, size_t index,
                               kry_kernel_info *out) {
    size_t count = kry_registry_kernel_count(registry, platform);
    if (index >= count)
        return kry_error_set(KRY_E_NOT_FOUND, "no kernel %zu: there are %zu", index, count);
    const struct ranked_kernel *ranked = registry->kernels.items;
    if (platform != NULL)
        ranked = core_registry_kernels(registry, platform, &count);
    return core_kernel_describe(&ranked[index], out);
}

kry_status core_kernel_describe(const struct ranked_kernel *ranked, kry_kernel_info *out) {
    kry_kernel_info info = {.struct_size = sizeof info,
                            .kernel = ranked->kernel.name,
                            .plugin = ranked->plugin->table->name,
                            .platform = ranked->kernel.platform,
                            .summary = ranked->kernel.summary,
                            .layout_name = ranked->kernel.layout_name,
                            .layout_version = ranked->kernel.layout_version,
                            .flags = ranked->kernel.flags,
                            .priority = ranked->priority,
                            .fallback = ranked->fallback};
    return COPY_OUT(out, &info, kry_kernel_info);
}
