#include "fuzz.h"

#include "../../tools/remove_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void fuzz_fail(const char *file, int line, const char *condition) {
    fprintf(stderr, "%s:%d: does not hold: %s (last error: %s)\n", file, line, condition,
            kry_error_message());
    abort();
}

void fuzz_forget_error(void) { kry_error_set(KRY_OK, "%s", ""); }

void fuzz_check_refusal(kry_status status, const kry_status *allowed) {
    while (*allowed != KRY_OK && *allowed != status)
        allowed++;
    FUZZ_CHECK(*allowed == status);
    FUZZ_CHECK(kry_error_message()[0] != '\0');
}

void fuzz_file_write(fuzz_file *file, const void *bytes, size_t size) {
    if (file->descriptor < 0) {
        file->descriptor = memfd_create("fuzz", MFD_CLOEXEC);
        FUZZ_CHECK(file->descriptor >= 0);
        snprintf(file->path, sizeof file->path, "/proc/self/fd/%d", file->descriptor);
    }
    FUZZ_CHECK(ftruncate(file->descriptor, 0) == 0);
    FUZZ_CHECK(pwrite(file->descriptor, bytes, size, 0) == (ssize_t)size);
}

static char folder[64];

static void remove_folder(void) { remove_tree(folder); }

const char *fuzz_folder(void) {
    if (folder[0] != '\0')
        return folder;
    const char *root = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.32s/kernelry-fuzz.XXXXXX", root != NULL ? root : "/tmp");
    FUZZ_CHECK(mkdtemp(folder) != NULL);
    atexit(remove_folder);
    return folder;
}

void fuzz_touch(const void *bytes, size_t size) {
    static volatile unsigned char sink;
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < size; i++)
        sink = (unsigned char)(sink ^ byte[i]);
}
