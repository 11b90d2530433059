/*
 * A folder for a test's files.
 */
#include "scratch.h"

#include "../../../tools/remove_tree.h"
#include "process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[] = "/tmp/kernelry-scratch-XXXXXX";

int scratch_begin(void **state) {
    (void)state;
    memset(root + sizeof root - 7, 'X', 6); /* anew for each test that asks for one */
    return mkdtemp(root) == NULL;
}

int scratch_end(void **state) {
    (void)state;
    return remove_tree(root);
}

const char *scratch_at(const char *name) {
    static char paths[8][PATH_MAX];
    static size_t next;
    next = (next + 1) % 8;
    snprintf(paths[next], sizeof paths[next], "%s/%s", root, name);
    return paths[next];
}

void scratch_model(const char *kind, const char *name) {
    char *argv[] = {(char *)"make_model", (char *)kind, (char *)scratch_at(name), NULL};
    pid_t child;
    int status;
    assert_int_equal(posix_spawn(&child, MAKE_MODEL, NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int scratch_quantized(void **state, const char *option) {
    if (scratch_begin(state))
        return 1;
    scratch_model("tiny", "dense");
    struct finished run = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("quantize", scratch_at("dense"), scratch_at("model"), option));
    int failed = run.code;
    finished_free(&run);
    return failed;
}

void scratch_write(const char *name, const void *data, size_t bytes) {
    FILE *file = fopen(scratch_at(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

char *scratch_read(const char *name, size_t *bytes) {
    FILE *file = fopen(scratch_at(name), "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    assert_true(size >= 0);
    rewind(file);
    char *data = malloc((size_t)size + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)size, file), size);
    data[size] = '\0';
    fclose(file);
    if (bytes != NULL)
        *bytes = (size_t)size;
    return data;
}

size_t scratch_count(const char *name) {
    DIR *folder = opendir(scratch_at(name));
    assert_non_null(folder);
    size_t count = 0;
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count - 2; /* . and .. */
}
