/*
 * Whole files, mapped for reading.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Nobody sets the time of a file's last change (ctime) but the system; a device's number, which may
 * be another after the next start, is left out. */
static uint64_t identify(const struct stat *info) {
    const int64_t facts[6] = {info->st_size,         (int64_t)info->st_ino, info->st_mtim.tv_sec,
                              info->st_mtim.tv_nsec, info->st_ctim.tv_sec,  info->st_ctim.tv_nsec};
    return kry_hash64(facts, sizeof facts, 0);
}

static kry_status map_descriptor(int descriptor, const char *path, map *out) {
    struct stat info;
    if (fstat(descriptor, &info) != 0)
        return kry_error_set(KRY_E_IO, "%s: cannot be looked at: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return kry_error_set(KRY_E_IO, "%s: is not a regular file", path);
    map file = {.size = (size_t)info.st_size, .identity = identify(&info)};
    if (file.size > 0) { /* an empty mapping is an error to the system, an empty file is not */
        void *data = mmap(NULL, file.size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (data == MAP_FAILED)
            return kry_error_set(KRY_E_IO, "%s: cannot be mapped: %s", path, strerror(errno));
        file.data = data;
    }
    *out = file;
    return KRY_OK;
}

kry_status ckpt_map_open(const char *path, map *out) {
    /* O_NONBLOCK: opening a pipe must not wait for a writer. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return kry_error_set(errno == ENOENT ? KRY_E_NOT_FOUND : KRY_E_IO,
                             "%s: cannot be opened: %s", path, strerror(errno));
    kry_status status = map_descriptor(descriptor, path, out);
    close(descriptor);
    return status;
}

void ckpt_map_expect(const map *file, bool scattered) {
    if (file->data != NULL) /* advice: refused, it only costs time */
        (void)madvise((void *)file->data, file->size, scattered ? MADV_RANDOM : MADV_NORMAL);
}

void ckpt_map_close(map *file) {
    if (file->data != NULL)
        munmap((void *)file->data, file->size);
    *file = (map){0};
}
