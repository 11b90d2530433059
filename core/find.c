/*
 * Where plugins may be: paths given in code, then KERNELRY_PLUGIN_PATH, then the install's own
 * directory (or KERNELRY_PLUGIN_DIR instead of it), found relative to this library so that an
 * install tree can be moved. Never the working directory: of the environment only absolute
 * paths count, and an empty entry is no entry.
 */
#include "core.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static kry_status add_file(struct found *found, const char *given, bool named_outright,
                           int error_number) {
    struct found_file *files = realloc(found->files, (found->count + 1) * sizeof found->files[0]);
    if (files == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while listing plugins");
    found->files = files;
    struct found_file *file = &files[found->count];
    *file = (struct found_file){.named_outright = named_outright, .status = KRY_OK};
    char *real = error_number == 0 ? realpath(given, NULL) : NULL;
    if (real == NULL) {
        if (error_number == 0)
            error_number = errno;
        file->status = KRY_E_IO;
        file->reason = core_format("cannot be opened: %s", strerror(error_number));
        real = strdup(given);
    }
    file->path = real;
    if (real == NULL || (file->status != KRY_OK && file->reason == NULL)) {
        free(real);
        free(file->reason);
        return kry_error_set(KRY_E_MEMORY, "out of memory while listing plugins");
    }
    found->count++;
    return KRY_OK;
}

static kry_status add_directory(struct found *found, const char *path) {
    char **directories = realloc(found->directories, (found->directory_count + 1) * sizeof(char *));
    if (directories == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while listing plugins");
    found->directories = directories;
    directories[found->directory_count] = strdup(path);
    if (directories[found->directory_count] == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while listing plugins");
    found->directory_count++;
    return KRY_OK;
}

/* Only regular files, or links to them, can be plugins: opening a FIFO would wait. */
static int is_shared_object(const struct dirent *entry) {
    size_t length = strlen(entry->d_name);
    return length > 3 && strcmp(entry->d_name + length - 3, ".so") == 0;
}

static kry_status search_directory(struct found *found, const char *path,
                                   const struct host_services *log) {
    kry_status status = add_directory(found, path);
    if (status != KRY_OK)
        return status;
    struct dirent **entries;
    /* By name, so that the order of finding does not depend on the file system. */
    int count = scandir(path, &entries, is_shared_object, alphasort);
    if (count < 0 && errno == ENOMEM)
        return kry_error_set(KRY_E_MEMORY, "out of memory while listing %s", path);
    if (count < 0) {
        core_log(log, KRY_LOG_WARNING, "plugin directory %s cannot be listed: %s", path,
                 strerror(errno));
        return KRY_OK;
    }
    for (int i = 0; i < count; i++) {
        char *full = status == KRY_OK ? core_format("%s/%s", path, entries[i]->d_name) : NULL;
        struct stat file;
        if (status == KRY_OK && full == NULL)
            status = kry_error_set(KRY_E_MEMORY, "out of memory while listing %s", path);
        else if (full != NULL && (stat(full, &file) != 0 || S_ISREG(file.st_mode)))
            status = add_file(found, full, false, 0);
        free(full);
        free(entries[i]);
    }
    free(entries);
    return status;
}

/* A path of code or environment: a directory to search or a file named outright. */
static kry_status search_path(struct found *found, const char *path,
                              const struct host_services *log) {
    struct stat entry;
    if (stat(path, &entry) != 0)
        return add_file(found, path, true, errno);
    if (S_ISDIR(entry.st_mode))
        return search_directory(found, path, log);
    return add_file(found, path, true, 0);
}

/* The list of KERNELRY_PLUGIN_PATH, separated by colons. */
static kry_status search_list(struct found *found, const char *list, const char *variable,
                              const struct host_services *log) {
    char *copy = strdup(list);
    if (copy == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while reading %s", variable);
    kry_status status = KRY_OK;
    char *rest = copy;
    for (char *path = strsep(&rest, ":"); path != NULL && status == KRY_OK;
         path = strsep(&rest, ":")) {
        if (path[0] == '/')
            status = search_path(found, path, log);
        else if (path[0] != '\0')
            core_log(log, KRY_LOG_WARNING, "%s: passed over '%s', which is not an absolute path",
                     variable, path);
    }
    free(copy);
    return status;
}

char *core_own_path(void) {
    /* Not dladdr: for a program with the static library inside it tells argv[0], which whoever
     * starts the program chooses. */
    FILE *maps = fopen("/proc/self/maps", "re");
    char *line = NULL, *path = NULL;
    size_t room = 0;
    uintptr_t self = (uintptr_t)&core_own_path;
    while (maps != NULL && path == NULL && getline(&line, &room, maps) > 0) {
        uintptr_t begin, end;
        int name = 0;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %*s %n", &begin, &end, &name) >=
                2 &&
            self >= begin && self < end && name > 0 && line[name] == '/') {
            line[strcspn(line, "\n")] = '\0';
            path = strdup(line + name);
        }
    }
    free(line);
    if (maps != NULL)
        fclose(maps);
    return path;
}

char *core_beside(const char *name) {
    char *own = core_own_path();
    char *slash = own != NULL ? strrchr(own, '/') : NULL;
    char *path = NULL;
    if (slash != NULL) {
        *slash = '\0';
        path = core_format("%s/kernelry/%s", own, name);
        struct stat entry;
        if (path != NULL && stat(path, &entry) != 0) {
            char *beside = core_format("%s/../lib/kernelry/%s", own, name);
            char *resolved = beside != NULL ? realpath(beside, NULL) : NULL;
            if (resolved != NULL) {
                free(path);
                path = resolved;
            }
            free(beside);
        }
    }
    free(own);
    return path;
}

static kry_status search_default(struct found *found, const struct host_services *log) {
    char *directory = core_beside("plugins");
    struct stat entry;
    kry_status status = KRY_OK;
    if (directory != NULL && stat(directory, &entry) == 0 && S_ISDIR(entry.st_mode))
        status = search_directory(found, directory, log);
    else if (directory != NULL)
        status = add_directory(found, directory);
    free(directory);
    return status;
}

kry_status core_find(const kry_registry_options *options, const struct host_services *log,
                     struct found *out) {
    bool environment = !(options->flags & KRY_REGISTRY_NO_ENVIRONMENT);
    const char *list = environment ? secure_getenv("KERNELRY_PLUGIN_PATH") : NULL;
    const char *directory = environment ? secure_getenv("KERNELRY_PLUGIN_DIR") : NULL;
    kry_status status = KRY_OK;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < options->plugin_path_count && status == KRY_OK; i++) {
        if (options->plugin_paths[i] == NULL || options->plugin_paths[i][0] == '\0')
            status = kry_error_set(KRY_E_ARGUMENT, "plugin_paths[%zu] is empty", i);
        else
            status = search_path(out, options->plugin_paths[i], log);
    }
    if (status == KRY_OK && list != NULL)
        status = search_list(out, list, "KERNELRY_PLUGIN_PATH", log);
    if (status == KRY_OK && !(options->flags & KRY_REGISTRY_NO_DEFAULT_DIR)) {
        if (directory != NULL)
            status = search_list(out, directory, "KERNELRY_PLUGIN_DIR", log);
        else
            status = search_default(out, log);
    }
    if (status != KRY_OK)
        core_found_free(out);
    return status;
}

void core_found_free(struct found *found) {
    for (size_t i = 0; i < found->count; i++) {
        free(found->files[i].path);
        free(found->files[i].reason);
    }
    for (size_t i = 0; i < found->directory_count; i++)
        free(found->directories[i]);
    free(found->files);
    free(found->directories);
    memset(found, 0, sizeof *found);
}
