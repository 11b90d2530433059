/*
 * Model folders: made beside their place and moved there when they are whole.
 */
#include "folder.h"

#include "atomic_file.h"
#include "remove_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 8, COPY_BYTES = 1 << 20 };

static kry_status io_error(const char *path, const char *doing) {
    return kry_error_set(KRY_E_IO, "%s: cannot be %s: %s", path, doing, strerror(errno));
}

kry_status join_path(char out[PATH_MAX], const char *folder, const char *name) {
    if ((size_t)snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX)
        return KRY_OK;
    errno = ENAMETOOLONG;
    return io_error(name, "placed");
}

/* ---- a folder in the making ---------------------------------------------------------- */

/** Whether `path` is a folder without entries; anything that cannot be read is none. */
static bool is_empty_folder(const char *path) {
    DIR *folder = opendir(path);
    if (folder == NULL)
        return false;
    bool empty = true;
    for (struct dirent *entry; empty && (entry = readdir(folder)) != NULL;)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(folder);
    return empty;
}

kry_status new_folder_begin(struct new_folder *folder, const char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    /* A link to an empty folder is followed: rename would not. */
    struct stat info;
    if (lstat(path, &info) == 0) {
        if (!is_empty_folder(path))
            return kry_error_set(KRY_E_ARGUMENT, "%s: is there already, and is no empty folder",
                                 path);
        if (realpath(path, folder->path) == NULL)
            return io_error(path, "replaced");
    } else if ((size_t)snprintf(folder->path, sizeof folder->path, "%.*s", (int)length, path) >=
               sizeof folder->path) {
        errno = ENAMETOOLONG;
        return io_error(path, "made");
    }
    if ((size_t)snprintf(folder->temporary, sizeof folder->temporary, "%s.partial-XXXXXX",
                         folder->path) >= sizeof folder->temporary) {
        errno = ENAMETOOLONG;
        return io_error(path, "made");
    }
    return mkdtemp(folder->temporary) != NULL ? KRY_OK : io_error(path, "made");
}

kry_status new_folder_end(struct new_folder *folder, kry_status status) {
    mode_t mask = umask(0);
    umask(mask);
    if (status == KRY_OK && (chmod(folder->temporary, 0777 & ~mask) != 0 ||
                             rename(folder->temporary, folder->path) != 0))
        status = io_error(folder->path, "put into place");
    if (status != KRY_OK)
        remove_tree(folder->temporary);
    return status;
}

/* ---- companions ---------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *ending) {
    size_t length = strlen(name), tail = strlen(ending);
    return length >= tail && strcmp(name + length - tail, ending) == 0;
}

/** A copy in progress. */
struct copy {
    dev_t device; /* of the folder that is being filled, which may lie in the other */
    ino_t inode;
};

/** Whether a file would contradict the quantized weights, or is none of the model's. */
static bool stays_behind(const char *name, int depth) {
    static const char *const endings[] = {".safetensors", ".safetensors.index.json",
                                          ".onnx",        ".gguf",
                                          ".h5",          ".msgpack",
                                          ".ot",          ".pt",
                                          ".pth"};
    static const char *const configs[] = {"config.json", "quantize_config.json",
                                          "quant_config.json"};
    if (name[0] == '.' || strncmp(name, "pytorch_model", strlen("pytorch_model")) == 0)
        return true;
    for (size_t i = 0; depth == 0 && i < sizeof configs / sizeof configs[0]; i++)
        if (strcmp(name, configs[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        if (ends_with(name, endings[i]))
            return true;
    return false;
}

static kry_status copy_stream(int from, const char *from_path, int to, const char *to_path) {
    char *buffer = malloc(COPY_BYTES);
    if (buffer == NULL)
        return kry_error_set(KRY_E_MEMORY, "%s: out of memory", from_path);
    kry_status status = KRY_OK;
    while (status == KRY_OK) {
        ssize_t count = read(from, buffer, COPY_BYTES);
        if (count < 0 && errno == EINTR)
            continue;
        if (count == 0)
            break;
        status = count < 0 ? io_error(from_path, "read")
                           : write_fully(to, to_path, buffer, (uint64_t)count);
    }
    free(buffer);
    return status;
}

static kry_status copy_file(const char *from_path, const char *to_path) {
    int from = open(from_path, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return io_error(from_path, "read");
    int to = open(to_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (to < 0) {
        kry_status status = io_error(to_path, "made");
        close(from);
        return status;
    }
    kry_status status = copy_stream(from, from_path, to, to_path);
    if (close(to) != 0 && status == KRY_OK)
        status = io_error(to_path, "written");
    close(from);
    return status;
}

static kry_status copy_folder(const struct copy *copy, const char *from, const char *to, int depth);

static kry_status copy_entry(const struct copy *copy, const char *from, const char *to,
                             const char *name, int depth) {
    char from_path[PATH_MAX], to_path[PATH_MAX];
    kry_status status = join_path(from_path, from, name);
    if (status == KRY_OK)
        status = join_path(to_path, to, name);
    if (status != KRY_OK)
        return status;
    struct stat info;
    if (stat(from_path, &info) != 0)
        return io_error(from_path, "read");
    if (S_ISREG(info.st_mode))
        return copy_file(from_path, to_path);
    /* Past that depth there is a link to a folder above, or no model. */
    if (!S_ISDIR(info.st_mode) || depth == DEPTH_MAX ||
        (info.st_dev == copy->device && info.st_ino == copy->inode))
        return KRY_OK;
    return copy_folder(copy, from_path, to_path, depth + 1);
}

static kry_status copy_folder(const struct copy *copy, const char *from, const char *to,
                              int depth) {
    DIR *folder = opendir(from);
    if (folder == NULL)
        return io_error(from, "read");
    kry_status status = KRY_OK;
    if (depth > 0 && mkdir(to, 0777) != 0)
        status = io_error(to, "made");
    struct dirent *entry;
    while (status == KRY_OK && (errno = 0, entry = readdir(folder)) != NULL)
        if (!stays_behind(entry->d_name, depth))
            status = copy_entry(copy, from, to, entry->d_name, depth);
    if (status == KRY_OK && errno != 0)
        status = io_error(from, "read");
    closedir(folder);
    return status;
}

kry_status copy_companions(const char *from, const char *to) {
    struct stat info;
    if (stat(to, &info) != 0)
        return io_error(to, "read");
    struct copy copy = {info.st_dev, info.st_ino};
    return copy_folder(&copy, from, to, 0);
}
