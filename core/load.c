/*
 * A file becomes a plugin: looked at, its note accepted, trusted, loaded, its table checked.
 * Whatever is wrong is recorded with a sentence and stops nobody else.
 */
#include "core.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static kry_status refuse(struct plugin *plugin, uint32_t state, kry_status status,
                         const char *reason) {
    plugin->state = state;
    plugin->status = status;
    free(plugin->reason);
    plugin->reason = strdup(reason);
    if (plugin->reason == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while recording %s", plugin->path);
    return KRY_OK;
}

static kry_status refuse_by_error(struct plugin *plugin, kry_status status) {
    if (status == KRY_E_MEMORY)
        return status;
    return refuse(plugin, KRY_PLUGIN_REFUSED, status, kry_error_message());
}

/* One plugin by two paths is one plugin. Named outright once is named outright. */
static bool seen_before(struct load_context *context, const struct plugin *plugin) {
    size_t slot = (size_t)((uint64_t)plugin->inode * UINT64_C(0x9e3779b97f4a7c15) >> 32);
    for (; context->by_inode[slot &= context->slots - 1] != 0; slot++) {
        struct plugin *other = &context->plugins[context->by_inode[slot] - 1];
        if (other->inode == plugin->inode && other->device == plugin->device) {
            other->named_outright |= plugin->named_outright;
            return true;
        }
    }
    context->by_inode[slot] = context->count + 1; /* where the plugin itself will be */
    return false;
}

static const struct plugin *find_name(const struct load_context *context, const char *name) {
    for (size_t i = 0; i < context->count; i++) {
        const struct plugin *other = &context->plugins[i];
        if (other->has_note && strcmp(other->note.name, name) == 0 &&
            (other->state == KRY_PLUGIN_LOADED || other->state == KRY_PLUGIN_DISABLED))
            return other;
    }
    return NULL;
}

static bool names_platform(const kry_note *note, const char *platform) {
    bool named = false;
    for (size_t i = 0; i < KRY_NOTE_PLATFORMS_MAX && platform[0] != '\0'; i++)
        named |= strncmp(note->platforms[i].name, platform, sizeof note->platforms[i].name) == 0;
    return named;
}

static kry_status check_kernel(const kry_note *note, const kry_kernel *kernel) {
    if (kernel == NULL || kernel->struct_size < sizeof *kernel)
        return kry_error_set(KRY_E_PLUGIN, "has a kernel that is NULL or too small (KRY-P13)");
    if (kernel->name == NULL || !core_name_is_valid(kernel->name, 64))
        return kry_error_set(KRY_E_PLUGIN, "has a kernel without a valid name (KRY-P13)");
    if (kernel->platform == NULL || kernel->summary == NULL || kernel->operation == NULL ||
        !core_name_is_valid(kernel->operation, 64) || kernel->layout_name == NULL ||
        !core_name_is_valid(kernel->layout_name, 128))
        return kry_error_set(KRY_E_PLUGIN,
                             "kernel %s lacks platform, summary, or a valid name of its operation "
                             "or layout (KRY-P13)",
                             kernel->name);
    if (!names_platform(note, kernel->platform))
        return kry_error_set(KRY_E_PLUGIN,
                             "kernel %s serves platform '%.64s', which the note does not name "
                             "(KRY-P13)",
                             kernel->name, kernel->platform);
    if (strcmp(kernel->operation, KRY_OPERATION_LINEAR) != 0)
        return KRY_OK; /* an operation of a later library: passed over when ordering */
    const kry_linear_kernel *linear = kernel->linear;
    if (linear == NULL || linear->struct_size < sizeof *linear || linear->can_implement == NULL ||
        linear->sizes == NULL || linear->prepare_weights == NULL || linear->apply == NULL)
        return kry_error_set(KRY_E_PLUGIN,
                             "kernel %s lacks one of can_implement, sizes, prepare_weights and "
                             "apply, or its table is too small (KRY-P13)",
                             kernel->name);
    return KRY_OK;
}

static kry_status check_table(const kry_note *note, const kry_plugin *table) {
    if (table == NULL)
        return kry_error_set(KRY_E_PLUGIN, "its entry %s returned no table (KRY-P13)", note->entry);
    if (table->struct_size < sizeof *table)
        return kry_error_set(KRY_E_PLUGIN,
                             "its table has %zu bytes, expected at least %zu "
                             "(KRY-P13)",
                             table->struct_size, sizeof *table);
    if (table->name == NULL || strcmp(table->name, note->name) != 0)
        return kry_error_set(KRY_E_PLUGIN, "its table calls it '%.64s', its note '%s' (KRY-P13)",
                             table->name != NULL ? table->name : "", note->name);
    if ((table->kernel_count > 0 && table->kernels == NULL) ||
        (table->platform_count > 0 && table->platforms == NULL) || table->kernel_count > 4096 ||
        table->platform_count > KRY_NOTE_PLATFORMS_MAX)
        return kry_error_set(KRY_E_PLUGIN,
                             "its table counts %llu kernels and %llu platforms, "
                             "which cannot be (KRY-P13)",
                             (unsigned long long)table->kernel_count,
                             (unsigned long long)table->platform_count);
    for (uint64_t i = 0; i < table->kernel_count; i++) {
        kry_status status = check_kernel(note, table->kernels[i]);
        if (status != KRY_OK)
            return status;
        for (uint64_t j = 0; j < i; j++)
            if (strcmp(table->kernels[i]->name, table->kernels[j]->name) == 0 &&
                strcmp(table->kernels[i]->platform, table->kernels[j]->platform) == 0)
                return kry_error_set(KRY_E_PLUGIN, "has two kernels called %s (KRY-P13)",
                                     table->kernels[i]->name);
    }
    for (uint64_t i = 0; i < table->platform_count; i++)
        if (table->platforms[i] == NULL ||
            table->platforms[i]->struct_size < sizeof(kry_platform) ||
            table->platforms[i]->name == NULL || !names_platform(note, table->platforms[i]->name))
            return kry_error_set(KRY_E_PLUGIN, "has operations of a platform that are NULL, too "
                                               "small, or of one that the note does not name "
                                               "(KRY-P13)");
    return KRY_OK;
}

/* Also by the time of change, which renaming away and back sets, and nobody but the system can. */
static bool is_same_file(const char *path, const struct stat *checked) {
    struct stat now;
    return stat(path, &now) == 0 && now.st_dev == checked->st_dev &&
           now.st_ino == checked->st_ino && now.st_size == checked->st_size &&
           memcmp(&now.st_mtim, &checked->st_mtim, sizeof now.st_mtim) == 0 &&
           memcmp(&now.st_ctim, &checked->st_ctim, sizeof now.st_ctim) == 0;
}

/* The files of libraries that were compared before, since asking the system for what is mapped
 * takes longer than all else of opening again. An entry stays true: libraries are never closed,
 * and what is mapped keeps its inode. When there is no more room, the system is asked. */
enum { COMPARED = 256 };
static struct compared {
    const void *library;
    dev_t device;
    ino_t inode;
} compared[COMPARED];
static size_t compared_count;
static pthread_mutex_t compared_lock = PTHREAD_MUTEX_INITIALIZER;

static bool was_compared(const struct compared *with) {
    bool found = false;
    pthread_mutex_lock(&compared_lock);
    for (size_t i = 0; i < compared_count && !found; i++)
        found = compared[i].library == with->library && compared[i].device == with->device &&
                compared[i].inode == with->inode;
    pthread_mutex_unlock(&compared_lock);
    return found;
}

static void remember_compared(const struct compared *entry) {
    pthread_mutex_lock(&compared_lock);
    if (compared_count < COMPARED)
        compared[compared_count++] = *entry;
    pthread_mutex_unlock(&compared_lock);
}

/* The loader takes a path for the file that it has loaded from there before, whatever lies there
 * now. A path that leads nowhere tells nothing: some file systems map from files of their own. */
static kry_status check_image(const kry_note *note, const struct stat *checked, const void *library,
                              const void *entry) {
    static const char gone[] = " (deleted)";
    const struct compared pair = {library, checked->st_dev, checked->st_ino};
    char *mapped;
    if (was_compared(&pair))
        return KRY_OK;
    kry_status status = core_mapped_path(entry, &mapped);
    if (mapped == NULL)
        return status;
    size_t length = strlen(mapped), tail = sizeof gone - 1;
    struct stat now;
    bool exists = stat(mapped, &now) == 0;
    if (exists ? now.st_dev != checked->st_dev || now.st_ino != checked->st_ino
               : length > tail && strcmp(mapped + length - tail, gone) == 0)
        status = kry_error_set(KRY_E_TRUST,
                               "is not where its entry %s lies, which is %s: this process loaded "
                               "another file from this path before, and keeps it until it ends, "
                               "or a library brings that symbol (KRY-C05)",
                               note->entry, mapped);
    else if (exists)
        remember_compared(&pair);
    free(mapped);
    return status;
}

/* The file that ran must be the file that was checked: by identity and by note. */
static kry_status check_identity(const struct plugin *plugin, const struct stat *checked,
                                 const void *library, const void *entry) {
    kry_status status = check_image(&plugin->note, checked, library, entry);
    if (status != KRY_OK)
        return status;
    if (!is_same_file(plugin->path, checked))
        return kry_error_set(KRY_E_TRUST, "was replaced while it was being loaded (KRY-C05)");
    if (!core_note_is_loaded(entry, &plugin->note))
        return kry_error_set(KRY_E_TRUST, "the note in memory differs from the file's (KRY-C05)");
    return KRY_OK;
}

static void tell_step(const struct load_context *context, const char *what) {
    if (context->step != NULL)
        context->step(what);
}

static kry_status open_library(const struct load_context *context, struct plugin *plugin,
                               const struct stat *checked) {
    tell_step(context, "while it was loaded: in a constructor of it or of a library it needs");
    /* By its real path, so that $ORIGIN, debuggers and dladdr work. Never closed: kernels,
     * literals and thread-locals of it may be in use until the process ends. */
    void *library = dlopen(plugin->path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *why = dlerror();
        return kry_error_set(KRY_E_DEPENDENCY, "cannot be loaded: %s",
                             why != NULL ? why : "the system's loader does not say why");
    }
    void *symbol = dlsym(library, plugin->note.entry);
    if (symbol == NULL)
        return kry_error_set(KRY_E_DEPENDENCY, "lacks the symbol %s that its note names",
                             plugin->note.entry);
    kry_status status = check_identity(plugin, checked, library, symbol);
    if (status != KRY_OK)
        return status;
    /* ISO C has no conversion from object to function pointers; POSIX promises this one. */
    kry_plugin_entry entry;
    memcpy(&entry, &symbol, sizeof entry);
    tell_step(context, "in its entry");
    const kry_plugin *table = entry();
    tell_step(context, "while its table was checked");
    status = check_table(&plugin->note, table);
    if (status != KRY_OK)
        return status;
    plugin->table = table;
    plugin->state = KRY_PLUGIN_LOADED;
    return KRY_OK;
}

static kry_status check_cpu(const struct plugin *plugin, uint64_t features) {
    uint64_t missing = note_cpu_features(&plugin->note) & ~features;
    if (missing == 0)
        return KRY_OK;
    char names[256];
    kry_cpu_features_format(missing, names, sizeof names);
    return kry_error_set(KRY_E_UNSUPPORTED, "needs CPU features that are not here: %s (KRY-C06)",
                         names);
}

/* With its note accepted: whether and how it may run. */
static kry_status admit(struct load_context *context, struct plugin *plugin,
                        const struct stat *file) {
    const char *name = plugin->note.name;
    const struct plugin *first = find_name(context, name);
    if (first != NULL) {
        char reason[512];
        snprintf(reason, sizeof reason, "%s was found first, at %.400s", name, first->path);
        return refuse(plugin, KRY_PLUGIN_SHADOWED, KRY_OK, reason);
    }
    if (core_override_find(&context->overrides->disable, name, NULL) != NULL)
        return refuse(plugin, KRY_PLUGIN_DISABLED, KRY_OK, "disabled by an override");
    kry_status status = core_trust(plugin->path, file, context->library_owner,
                                   context->relax_trust ? context->log : NULL, "loaded");
    if (status == KRY_OK)
        status = check_cpu(plugin, context->cpu_features);
    if (status == KRY_OK && context->probe_helper != NULL)
        status = core_probe(context, plugin);
    if (status == KRY_OK)
        status = open_library(context, plugin, file);
    return status == KRY_OK ? KRY_OK : refuse_by_error(plugin, status);
}

static kry_status examine(struct load_context *context, struct plugin *plugin, int file,
                          bool *skip) {
    struct stat entry;
    if (fstat(file, &entry) != 0)
        return refuse(plugin, KRY_PLUGIN_REFUSED, KRY_E_IO, strerror(errno));
    if (!S_ISREG(entry.st_mode))
        return refuse(plugin, KRY_PLUGIN_REFUSED, KRY_E_FORMAT, "is not a regular file");
    plugin->device = entry.st_dev;
    plugin->inode = entry.st_ino;
    if (seen_before(context, plugin)) {
        *skip = true;
        return KRY_OK;
    }
    bool present = false;
    kry_status status = core_note_read(file, (uint64_t)entry.st_size, &plugin->note, &present);
    if (status != KRY_OK)
        return refuse_by_error(plugin, status);
    if (!present && plugin->named_outright)
        return refuse(plugin, KRY_PLUGIN_REFUSED, KRY_E_FORMAT,
                      "is a shared object without the note of a Kernelry plugin");
    if (!present)
        return refuse(plugin, KRY_PLUGIN_NOT_A_PLUGIN, KRY_OK,
                      "is a shared object without the note of a Kernelry plugin");
    plugin->has_note = true;
    return admit(context, plugin, &entry);
}

/* An install brings plugins for processors of every kind; that one is not this is no news. */
static int32_t refusal_level(const struct plugin *plugin) {
    if (plugin->named_outright)
        return KRY_LOG_ERROR;
    return plugin->status == KRY_E_UNSUPPORTED ? KRY_LOG_INFO : KRY_LOG_WARNING;
}

kry_status core_load(struct load_context *context, const struct found_file *file,
                     struct plugin *out, bool *skip) {
    memset(out, 0, sizeof *out);
    *skip = false;
    out->state = KRY_PLUGIN_REFUSED;
    out->named_outright = file->named_outright;
    out->path = strdup(file->path);
    if (out->path == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while loading %s", file->path);
    kry_status status;
    /* O_NONBLOCK: a FIFO must not make a server wait. */
    int descriptor = file->status == KRY_OK
                         ? open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
                         : -1;
    if (file->status != KRY_OK) {
        status = refuse(out, KRY_PLUGIN_REFUSED, file->status, file->reason);
    } else if (descriptor < 0) {
        status = refuse(out, KRY_PLUGIN_REFUSED, KRY_E_IO, strerror(errno));
    } else {
        status = examine(context, out, descriptor, skip);
        close(descriptor);
    }
    if (status == KRY_OK && out->state == KRY_PLUGIN_REFUSED && !*skip)
        core_log(context->log, refusal_level(out), "plugin %s refused: %s", out->path, out->reason);
    if (status != KRY_OK || *skip)
        core_plugin_free(out);
    return status;
}

void core_plugin_free(struct plugin *plugin) {
    free(plugin->path);
    free(plugin->reason);
    memset(plugin, 0, sizeof *plugin);
}
