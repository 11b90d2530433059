/*
 * replay FOLDER...: give each file of the folders to the harness that this is linked with. So the
 * corpus is a test under every compiler and sanitizer, with no fuzzer installed.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096 };

static void die(const char *path, const char *what) {
    fprintf(stderr, "%s: %s: %s\n", path, what, strerror(errno));
    exit(1);
}

/* Of the size that it has, so that ASan sees a byte too many being read. */
static void replay(const char *path) {
    FILE *stream = fopen(path, "rb");
    if (stream == NULL || fseek(stream, 0, SEEK_END) != 0)
        die(path, "cannot be opened");
    long size = ftell(stream);
    if (size < 0)
        die(path, "has no size");
    rewind(stream);
    uint8_t *bytes = malloc(size > 0 ? (size_t)size : 1);
    if (bytes == NULL || fread(bytes, 1, (size_t)size, stream) != (size_t)size)
        die(path, "cannot be read");
    fclose(stream);
    LLVMFuzzerTestOneInput(bytes, (size_t)size);
    free(bytes);
}

static size_t replay_folder(const char *folder) {
    DIR *directory = opendir(folder);
    if (directory == NULL)
        die(folder, "cannot be listed");
    size_t count = 0;
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        char path[PATH_BYTES];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        /* Before it is read: what kills the process is then the last that was named. */
        fprintf(stderr, "%s\n", path);
        replay(path);
        count++;
    }
    closedir(directory);
    return count;
}

int main(int argc, char **argv) {
    size_t count = 0;
    for (int i = 1; i < argc; i++)
        count += replay_folder(argv[i]);
    printf("%zu inputs\n", count);
    return count > 0 ? 0 : 1; /* a corpus that is not there is no success */
}
