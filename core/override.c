/*
 * The operator's word: what to disable, to prefer, and at which priority, from code and from
 * KERNELRY_DISABLE, KERNELRY_PREFER and KERNELRY_PRIORITY, lists separated by commas.
 */
#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static kry_status add(struct override_list *list, const char *name, size_t length, int32_t value,
                      bool environment) {
    struct override *items = realloc(list->items, (list->count + 1) * sizeof items[0]);
    if (items == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while reading overrides");
    list->items = items;
    items[list->count] = (struct override){
        .name = strndup(name, length), .value = value, .environment = environment};
    if (items[list->count].name == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while reading overrides");
    list->count++;
    return KRY_OK;
}

/* "name=value" with a value that fits; anything else is KRY_E_ARGUMENT. */
static kry_status add_priority(struct override_list *list, const char *text, const char *where,
                               bool environment) {
    const char *equals = strrchr(text, '=');
    char *end = NULL;
    errno = 0;
    long value = equals != NULL ? strtol(equals + 1, &end, 10) : 0;
    if (equals == NULL || equals == text || end == equals + 1 || *end != '\0' || errno != 0 ||
        value < INT32_MIN || value > INT32_MAX)
        return kry_error_set(KRY_E_ARGUMENT, "%s: found '%s', expected name=integer", where, text);
    return add(list, text, (size_t)(equals - text), (int32_t)value, environment);
}

static kry_status add_code(struct override_list *list, const char *const *names, size_t count,
                           bool priorities, const char *where) {
    for (size_t i = 0; i < count; i++) {
        if (names[i] == NULL || names[i][0] == '\0')
            return kry_error_set(KRY_E_ARGUMENT, "%s[%zu] is empty", where, i);
        kry_status status = priorities ? add_priority(list, names[i], where, false)
                                       : add(list, names[i], strlen(names[i]), 0, false);
        if (status != KRY_OK)
            return status;
    }
    return KRY_OK;
}

/* A mistake in the environment is told and passed over: it must not stop a server. */
static kry_status add_environment(struct override_list *list, const char *variable, bool priorities,
                                  const struct host_services *log) {
    const char *text = secure_getenv(variable);
    if (text == NULL)
        return KRY_OK;
    char *copy = strdup(text);
    if (copy == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while reading %s", variable);
    kry_status status = KRY_OK;
    char *rest = copy;
    for (char *word = strsep(&rest, ", "); word != NULL && status == KRY_OK;
         word = strsep(&rest, ", ")) {
        if (word[0] == '\0')
            continue;
        status = priorities ? add_priority(list, word, variable, true)
                            : add(list, word, strlen(word), 0, true);
        if (status == KRY_E_ARGUMENT) {
            core_log(log, KRY_LOG_WARNING, "%s", kry_error_message());
            status = KRY_OK;
        }
    }
    free(copy);
    return status;
}

/* The environment's come first, since the first that matches wins. */
static kry_status read_list(struct override_list *list, const char *variable,
                            const char *const *names, size_t count, const char *where,
                            const kry_registry_options *options, const struct host_services *log) {
    bool priorities = strcmp(where, "priority") == 0;
    kry_status status = KRY_OK;
    if (!(options->flags & KRY_REGISTRY_NO_ENVIRONMENT))
        status = add_environment(list, variable, priorities, log);
    if (status == KRY_OK)
        status = add_code(list, names, count, priorities, where);
    return status;
}

kry_status core_overrides_read(const kry_registry_options *options, const struct host_services *log,
                               struct overrides *out) {
    memset(out, 0, sizeof *out);
    kry_status status = read_list(&out->disable, "KERNELRY_DISABLE", options->disable,
                                  options->disable_count, "disable", options, log);
    if (status == KRY_OK)
        status = read_list(&out->prefer, "KERNELRY_PREFER", options->prefer, options->prefer_count,
                           "prefer", options, log);
    if (status == KRY_OK)
        status = read_list(&out->priority, "KERNELRY_PRIORITY", options->priority,
                           options->priority_count, "priority", options, log);
    if (status != KRY_OK)
        core_overrides_free(out);
    return status;
}

static void free_list(struct override_list *list) {
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i].name);
    free(list->items);
    *list = (struct override_list){NULL, 0};
}

void core_overrides_free(struct overrides *overrides) {
    free_list(&overrides->disable);
    free_list(&overrides->prefer);
    free_list(&overrides->priority);
}

static bool matches(const char *name, const char *plugin, const char *kernel) {
    if (kernel == NULL)
        return strcmp(name, plugin) == 0;
    if (strcmp(name, kernel) == 0)
        return true;
    size_t length = strlen(plugin);
    return strncmp(name, plugin, length) == 0 && name[length] == '/' &&
           strcmp(name + length + 1, kernel) == 0;
}

struct override *core_override_find(struct override_list *list, const char *plugin,
                                    const char *kernel) {
    struct override *first = NULL;
    for (size_t i = 0; i < list->count; i++)
        if (matches(list->items[i].name, plugin, kernel)) {
            list->items[i].used = true;
            if (first == NULL)
                first = &list->items[i];
        }
    return first;
}

static void warn_unused(const struct override_list *list, const char *what,
                        const struct host_services *log) {
    for (size_t i = 0; i < list->count; i++)
        if (!list->items[i].used)
            core_log(log, KRY_LOG_WARNING, "%s: no plugin or kernel is called '%s' (KRY-C07)", what,
                     list->items[i].name);
}

void core_overrides_warn_unused(const struct overrides *overrides,
                                const struct host_services *log) {
    warn_unused(&overrides->disable, "disable", log);
    warn_unused(&overrides->prefer, "prefer", log);
    warn_unused(&overrides->priority, "priority", log);
}
