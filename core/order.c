/*
 * One rule for registering and for deciding: per platform, what the operator prefers, then
 * everybody who is not the platform's fallback, by priority descending, then by name; inside a
 * plugin the order of its kernel table.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

static const kry_note_platform *note_platform(const kry_note *note, const char *platform) {
    for (size_t i = 0; i < KRY_NOTE_PLATFORMS_MAX; i++)
        if (strcmp(note->platforms[i].name, platform) == 0)
            return &note->platforms[i];
    return NULL;
}

static int32_t preference(struct override_list *prefer, const char *plugin, const char *kernel) {
    const struct override *by_kernel = core_override_find(prefer, plugin, kernel);
    const struct override *by_plugin = core_override_find(prefer, plugin, NULL);
    ptrdiff_t place = INT32_MAX;
    if (by_kernel != NULL)
        place = by_kernel - prefer->items;
    if (by_plugin != NULL && by_plugin - prefer->items < place)
        place = by_plugin - prefer->items;
    return (int32_t)place;
}

static void rank(struct ranked_kernel *kernel, struct overrides *overrides) {
    const char *plugin = kernel->plugin->note.name;
    const kry_note_platform *declared =
        note_platform(&kernel->plugin->note, kernel->kernel.platform);
    const struct override *priority =
        core_override_find(&overrides->priority, plugin, kernel->kernel.name);
    const struct override *of_plugin = core_override_find(&overrides->priority, plugin, NULL);
    /* The more special one wins, unless the general one is the environment's alone. */
    if (priority == NULL || (of_plugin != NULL && of_plugin->environment && !priority->environment))
        priority = of_plugin;
    kernel->priority = priority != NULL ? priority->value : declared->priority;
    kernel->fallback = (declared->flags & KRY_NOTE_FALLBACK) != 0;
    kernel->preference = preference(&overrides->prefer, plugin, kernel->kernel.name);
}

/* -1: a before b, for the same platform. */
static int compare_rank(int32_t preference_a, int32_t preference_b, bool fallback_a,
                        bool fallback_b, int32_t priority_a, int32_t priority_b, const char *name_a,
                        const char *name_b) {
    if (preference_a != preference_b)
        return preference_a < preference_b ? -1 : 1;
    if (fallback_a != fallback_b)
        return fallback_a ? 1 : -1;
    if (priority_a != priority_b)
        return priority_a > priority_b ? -1 : 1;
    return strcmp(name_a, name_b);
}

static int compare(const void *left, const void *right) {
    const struct ranked_kernel *a = left, *b = right;
    int order = strcmp(a->kernel.platform, b->kernel.platform);
    if (order == 0)
        order = compare_rank(a->preference, b->preference, a->fallback, b->fallback, a->priority,
                             b->priority, a->plugin->note.name, b->plugin->note.name);
    if (order == 0)
        order = a->table_index < b->table_index ? -1 : 1;
    return order;
}

static void take(const struct plugin *plugin, uint32_t index, struct overrides *overrides,
                 const struct host_services *log, struct ranked_kernels *out) {
    const kry_kernel *kernel = plugin->table->kernels[index];
    if (core_override_find(&overrides->disable, plugin->note.name, kernel->name) != NULL)
        return;
    if (strcmp(kernel->operation, KRY_OPERATION_LINEAR) != 0) {
        core_log(log, KRY_LOG_INFO, "kernel %s/%s implements '%.64s', which this library lacks",
                 plugin->note.name, kernel->name, kernel->operation);
        return;
    }
    struct ranked_kernel *ranked = &out->items[out->count++];
    *ranked = (struct ranked_kernel){.plugin = plugin, .table_index = index};
    /* Copies, so that every later reader sees our size; what a plugin adds is not known here. */
    memcpy(&ranked->kernel, kernel, sizeof ranked->kernel);
    memcpy(&ranked->linear, kernel->linear, sizeof ranked->linear);
    rank(ranked, overrides);
}

kry_status core_order(struct plugin *plugins, size_t count, struct overrides *overrides,
                      const struct host_services *log, struct ranked_kernels *out) {
    size_t most = 1;
    for (size_t i = 0; i < count; i++)
        most += plugins[i].state == KRY_PLUGIN_LOADED ? plugins[i].table->kernel_count : 0;
    *out = (struct ranked_kernels){.items = calloc(most, sizeof out->items[0])};
    if (out->items == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while ordering %zu kernels", most);
    for (size_t i = 0; i < count; i++)
        for (uint32_t k = 0;
             plugins[i].state == KRY_PLUGIN_LOADED && k < (uint32_t)plugins[i].table->kernel_count;
             k++)
            take(&plugins[i], k, overrides, log, out);
    /* Overrides may name plugins that bring a platform only. */
    for (size_t i = 0; i < count; i++)
        if (plugins[i].state == KRY_PLUGIN_LOADED) {
            core_override_find(&overrides->priority, plugins[i].note.name, NULL);
            core_override_find(&overrides->prefer, plugins[i].note.name, NULL);
        }
    qsort(out->items, out->count, sizeof out->items[0], compare);
    return KRY_OK;
}

const kry_platform *core_order_platform(const struct plugin *plugins, size_t count,
                                        const char *platform) {
    const kry_platform *best = NULL;
    const struct plugin *best_plugin = NULL;
    const kry_note_platform *best_declared = NULL;
    for (size_t i = 0; i < count; i++) {
        if (plugins[i].state != KRY_PLUGIN_LOADED)
            continue;
        const kry_note_platform *declared = note_platform(&plugins[i].note, platform);
        for (uint64_t k = 0; declared != NULL && k < plugins[i].table->platform_count; k++) {
            const kry_platform *candidate = plugins[i].table->platforms[k];
            if (strcmp(candidate->name, platform) != 0)
                continue;
            if (best == NULL || compare_rank(0, 0, declared->flags & KRY_NOTE_FALLBACK,
                                             best_declared->flags & KRY_NOTE_FALLBACK,
                                             declared->priority, best_declared->priority,
                                             plugins[i].note.name, best_plugin->note.name) < 0) {
                best = candidate;
                best_plugin = &plugins[i];
                best_declared = declared;
            }
        }
    }
    return best;
}
