/*
 * A file that appears whole or not at all.
 */
#include "atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/** The mode that open() would have given: mkostemp makes files that only their owner reads. */
static mode_t ordinary_mode(void) {
    mode_t mask = umask(0);
    umask(mask);
    return 0666 & ~mask;
}

kry_status atomic_file_open(struct atomic_file *file, const char *path) {
    struct stat info;
    bool exists = stat(path, &info) == 0;
    /* Beside the file itself, not beside a link to it. */
    if (!exists || realpath(path, file->path) == NULL)
        if ((size_t)snprintf(file->path, sizeof file->path, "%s", path) >= sizeof file->path)
            return kry_error_set(KRY_E_IO, "%s: %s", path, strerror(ENAMETOOLONG));
    if (exists && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
        file->temporary[0] = '\0';
        file->descriptor = open(file->path, O_WRONLY | O_CLOEXEC);
    } else if (exists && S_ISDIR(info.st_mode)) {
        return kry_error_set(KRY_E_IO, "%s: %s", path, strerror(EISDIR));
    } else {
        int length = snprintf(file->temporary, sizeof file->temporary, "%s.XXXXXX", file->path);
        if ((size_t)length >= sizeof file->temporary)
            return kry_error_set(KRY_E_IO, "%s: %s", path, strerror(ENAMETOOLONG));
        file->descriptor = mkostemp(file->temporary, O_CLOEXEC);
    }
    if (file->descriptor < 0)
        return kry_error_set(KRY_E_IO, "%s: cannot be written: %s", path, strerror(errno));
    return KRY_OK;
}

kry_status write_fully(int descriptor, const char *path, const void *data, uint64_t bytes) {
    const char *at = data;
    while (bytes > 0) {
        ssize_t count = write(descriptor, at, bytes);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return kry_error_set(KRY_E_IO, "%s: cannot be written: %s", path, strerror(errno));
        at += count;
        bytes -= (uint64_t)count;
    }
    return KRY_OK;
}

kry_status atomic_file_write(struct atomic_file *file, const void *data, uint64_t bytes) {
    return write_fully(file->descriptor, file->path, data, bytes);
}

kry_status atomic_file_close(struct atomic_file *file, kry_status status) {
    bool direct = file->temporary[0] == '\0';
    /* Some file systems tell of a full disk only here. */
    if (status == KRY_OK && !direct &&
        (fchmod(file->descriptor, ordinary_mode()) != 0 || fsync(file->descriptor) != 0))
        status = kry_error_set(KRY_E_IO, "%s: cannot be written: %s", file->path, strerror(errno));
    if (close(file->descriptor) != 0 && status == KRY_OK)
        status = kry_error_set(KRY_E_IO, "%s: cannot be written: %s", file->path, strerror(errno));
    if (direct)
        return status;
    if (status == KRY_OK && rename(file->temporary, file->path) != 0)
        status = kry_error_set(KRY_E_IO, "%s: cannot be written: %s", file->path, strerror(errno));
    if (status != KRY_OK)
        unlink(file->temporary);
    return status;
}
