/*
 * The kernelry command as a process.
 */
#include "process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS_MOST = 30 };

/* A file that is gone once it is closed: unlike a pipe it holds any amount. */
static int scratch_file(void) {
    char path[] = "/tmp/kernelry-test-XXXXXX";
    int descriptor = mkostemp(path, O_CLOEXEC);
    assert_true(descriptor >= 0);
    unlink(path);
    return descriptor;
}

static char *read_back(int descriptor) {
    off_t size = lseek(descriptor, 0, SEEK_END);
    char *text = malloc((size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(pread(descriptor, text, (size_t)size, 0), size);
    text[size] = '\0';
    close(descriptor);
    return text;
}

/* Returns the exit code. */
static int spawn(const char *const *arguments, int out, int err) {
    char *argv[ARGUMENTS_MOST + 2] = {(char *)"kernelry"};
    for (size_t i = 0; arguments[i]; i++) {
        assert_true(i < ARGUMENTS_MOST);
        argv[i + 1] = (char *)arguments[i];
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (out < 0)
        posix_spawn_file_actions_addclose(&actions, STDOUT_FILENO);
    else
        posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
    pid_t child;
    int failed = posix_spawn(&child, KERNELRY_COMMAND, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    assert_int_equal(failed, 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

struct finished run_kernelry(const char *plugins, const char *const *arguments) {
    int out = scratch_file(), err = scratch_file();
    setenv("KERNELRY_PLUGIN_DIR", plugins, 1);
    struct finished run = {.code = spawn(arguments, out, err)};
    run.out = read_back(out);
    run.err = read_back(err);
    run.json = json_loads(run.out, 0, NULL);
    return run;
}

struct finished run_kernelry_onto(int out, const char *const *arguments) {
    int err = scratch_file();
    setenv("KERNELRY_PLUGIN_DIR", CPU_PLUGINS, 1);
    struct finished run = {.code = spawn(arguments, out, err), .out = strdup("")};
    run.err = read_back(err);
    return run;
}

void finished_free(struct finished *run) {
    free(run->out);
    free(run->err);
    json_decref(run->json);
    *run = (struct finished){0};
}

void assert_code(const struct finished *run, int code) {
    if (run->code != code)
        print_error("exit code %d, expected %d; printed:\n%s%s", run->code, code, run->out,
                    run->err);
    assert_int_equal(run->code, code);
}

void assert_says(const char *printed, const char *text) {
    if (!strstr(printed, text))
        print_error("'%s' is missing in:\n%s", text, printed);
    assert_non_null(strstr(printed, text));
}

void assert_silent_on(const char *printed, const char *text) {
    if (strstr(printed, text))
        print_error("'%s' is not expected in:\n%s", text, printed);
    assert_null(strstr(printed, text));
}

json_t *json_at(json_t *root, const char *path) {
    char step[128];
    for (const char *at = path; root && *at;) {
        size_t length = strcspn(at, ".");
        assert_true(length < sizeof step);
        memcpy(step, at, length);
        step[length] = '\0';
        root = json_is_array(root) ? json_array_get(root, (size_t)atoi(step))
                                   : json_object_get(root, step);
        at += length + (at[length] == '.');
    }
    if (!root)
        print_error("no '%s' in the JSON\n", path);
    assert_non_null(root);
    return root;
}

const char *text_at(json_t *root, const char *path) {
    json_t *value = json_at(root, path);
    assert_true(json_is_string(value));
    return json_string_value(value);
}

long long number_at(json_t *root, const char *path) {
    json_t *value = json_at(root, path);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

int flag_at(json_t *root, const char *path) {
    json_t *value = json_at(root, path);
    assert_true(json_is_boolean(value));
    return json_is_true(value);
}
