/*
 * From a path to the safetensors files behind it.
 */
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";
static const char extension[] = ".safetensors";

char *ckpt_path_join(const char *folder, const char *name) {
    char *path = NULL;
    size_t length = strlen(folder);
    const char *slash = length > 0 && folder[length - 1] == '/' ? "" : "/";
    return asprintf(&path, "%s%s%s", folder, slash, name) < 0 ? NULL : path;
}

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static bool exists(const char *folder, const char *name) {
    struct stat info;
    char *path = ckpt_path_join(folder, name);
    bool found = path != NULL && stat(path, &info) == 0;
    free(path);
    return found;
}

static kry_status make_room(kry_checkpoint *checkpoint, size_t count) {
    checkpoint->shards = calloc(count, sizeof(shard));
    return checkpoint->shards != NULL ? KRY_OK : kry_error_set(KRY_E_MEMORY, "out of memory");
}

static kry_status open_single(kry_checkpoint *checkpoint, const char *folder, const char *name) {
    char *path = ckpt_path_join(folder, name);
    if (path == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    kry_status status = make_room(checkpoint, 1);
    if (status == KRY_OK)
        status = ckpt_shard_open(checkpoint, path, NULL);
    free(path);
    return status;
}

/* A shard lies beside its index: anything else could make us read any file there is. */
static kry_status check_shard_name(const char *index, const char *tensor, const json_t *shard) {
    const char *name = json_string_value(shard);
    if (name == NULL)
        return kry_error_set(KRY_E_FORMAT, "%s: weight_map: tensor '%s' is in %s; expected a file",
                             index, tensor, ckpt_json_type(shard));
    if (strchr(name, '/') != NULL || strstr(name, "..") != NULL || !ends_with(name, extension))
        return kry_error_set(KRY_E_FORMAT,
                             "%s: weight_map: tensor '%s' is in '%s'; expected the name of a "
                             ".safetensors file beside the index",
                             index, tensor, name);
    return KRY_OK;
}

static kry_status open_shard(kry_checkpoint *checkpoint, const char *folder, const char *index,
                             const char *name, const json_t *weight_map) {
    char *path = ckpt_path_join(folder, name);
    if (path == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    kry_status status = ckpt_shard_open(checkpoint, path, weight_map);
    if (status == KRY_E_NOT_FOUND)
        status = kry_error_set(KRY_E_FORMAT, "%s: names a shard that is missing: %s", index, path);
    free(path);
    return status;
}

static kry_status open_shards(kry_checkpoint *checkpoint, const char *folder, const char *index,
                              const json_t *weight_map) {
    json_t *seen = json_object();
    kry_status status = seen == NULL ? kry_error_set(KRY_E_MEMORY, "%s: out of memory", index)
                                     : make_room(checkpoint, json_object_size(weight_map) + 1);
    const char *tensor;
    json_t *shard;
    json_object_foreach((json_t *)weight_map, tensor, shard) {
        if (status != KRY_OK)
            break;
        status = check_shard_name(index, tensor, shard);
        if (status != KRY_OK || json_object_get(seen, json_string_value(shard)) != NULL)
            continue;
        if (json_object_set_new(seen, json_string_value(shard), json_true()) != 0)
            status = kry_error_set(KRY_E_MEMORY, "%s: out of memory", index);
        else
            status = open_shard(checkpoint, folder, index, json_string_value(shard), weight_map);
    }
    json_decref(seen);
    return status;
}

/* What the index names is there (tensors are sorted by now). */
static kry_status check_index(const kry_checkpoint *checkpoint, const char *index,
                              const json_t *weight_map) {
    const char *tensor;
    json_t *shard;
    json_object_foreach((json_t *)weight_map, tensor, shard) {
        if (ckpt_tensor_find(checkpoint, tensor, "") == NULL)
            return kry_error_set(KRY_E_FORMAT,
                                 "%s: weight_map: tensor '%s' is in '%s', but that file does not "
                                 "hold it",
                                 index, tensor, json_string_value(shard));
    }
    return KRY_OK;
}

static kry_status open_index(kry_checkpoint *checkpoint, const char *folder) {
    json_t *root = NULL;
    char *path = ckpt_path_join(folder, index_name);
    if (path == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    kry_status status = ckpt_json_read(path, &root);
    if (status != KRY_OK)
        goto out;
    const json_t *weight_map = json_object_get(root, "weight_map");
    if (!json_is_object(weight_map)) {
        status = kry_error_set(KRY_E_FORMAT, "%s: weight_map is %s; expected an object", path,
                               ckpt_json_type(weight_map));
        goto out;
    }
    status = open_shards(checkpoint, folder, path, weight_map);
    if (status == KRY_OK)
        status = ckpt_tensors_sort(checkpoint);
    if (status == KRY_OK)
        status = check_index(checkpoint, path, weight_map);
out:
    json_decref(root);
    free(path);
    return status;
}

/* The only *.safetensors of a folder; *name stays NULL when there is none. */
static kry_status find_only(const char *folder, char **name) {
    DIR *directory = opendir(folder);
    if (directory == NULL)
        return kry_error_set(KRY_E_IO, "%s: cannot be listed: %s", folder, strerror(errno));
    kry_status status = KRY_OK;
    const struct dirent *entry;
    while (status == KRY_OK && (entry = readdir(directory)) != NULL) {
        if (!ends_with(entry->d_name, extension))
            continue;
        if (*name != NULL)
            status = kry_error_set(KRY_E_FORMAT,
                                   "%s: found '%s' and '%s' without %s; open one of them by its "
                                   "own name",
                                   folder, *name, entry->d_name, index_name);
        else if ((*name = strdup(entry->d_name)) == NULL)
            status = kry_error_set(KRY_E_MEMORY, "%s: out of memory", folder);
    }
    closedir(directory);
    return status;
}

static kry_status open_folder(kry_checkpoint *checkpoint, const char *folder) {
    if (exists(folder, single_name))
        return open_single(checkpoint, folder, single_name);
    if (exists(folder, index_name))
        return open_index(checkpoint, folder);
    char *name = NULL;
    kry_status status = find_only(folder, &name);
    if (status == KRY_OK)
        status = name != NULL
                     ? open_single(checkpoint, folder, name)
                     : kry_error_set(KRY_E_FORMAT, "%s: found no %s, no %s and no other *%s",
                                     folder, single_name, index_name, extension);
    free(name);
    return status;
}

kry_status ckpt_files_open(kry_checkpoint *checkpoint, const char *path, char **folder) {
    struct stat info;
    if (stat(path, &info) != 0)
        return kry_error_set(KRY_E_IO, "%s: cannot be opened: %s", path, strerror(errno));
    bool is_folder = S_ISDIR(info.st_mode);
    if (!is_folder && !ends_with(path, extension))
        return kry_error_set(KRY_E_FORMAT, "%s: is neither a folder nor a %s file", path,
                             extension);
    const char *slash = strrchr(path, '/');
    if (is_folder)
        *folder = strdup(path);
    else if (slash == NULL)
        *folder = strdup(".");
    else
        *folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (*folder == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    kry_status status = is_folder
                            ? open_folder(checkpoint, path)
                            : open_single(checkpoint, *folder, slash == NULL ? path : slash + 1);
    if (status == KRY_OK)
        status = ckpt_tensors_sort(checkpoint);
    /* It was there a moment ago. */
    return status == KRY_E_NOT_FOUND ? KRY_E_IO : status;
}
