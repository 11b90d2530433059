/*
 * The kernelry command as a process, for tests.
 */
#ifndef KERNELRY_TESTS_PROCESS_H
#define KERNELRY_TESTS_PROCESS_H

#include <jansson.h>

/** What a run left behind; freed by finished_free. */
struct finished {
    int code;     /* exit code; 128 + the signal's number when one ended it */
    char *out;    /* standard output */
    char *err;    /* standard error */
    json_t *json; /* standard output as one JSON value, or NULL */
};

/**
 * Run the command with arguments (NULL ends them) and with the plugins of one folder and no
 * others. Fails the test when it cannot be started.
 */
struct finished run_kernelry(const char *plugins, const char *const *arguments);
/** As run_kernelry, with standard output going to a descriptor; -1: closed. */
struct finished run_kernelry_onto(int out, const char *const *arguments);
void finished_free(struct finished *run);

/** Arguments as run_kernelry wants them. */
#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

/** Fail the test unless the exit code is as expected; prints what the run said. */
void assert_code(const struct finished *run, int code);
/** Fail the test unless text occurs in what was printed. */
void assert_says(const char *printed, const char *text);
void assert_silent_on(const char *printed, const char *text);

/** Members of a JSON object by a path such as "layers.0.kernel"; fail when absent. */
json_t *json_at(json_t *root, const char *path);
const char *text_at(json_t *root, const char *path);
long long number_at(json_t *root, const char *path);
int flag_at(json_t *root, const char *path);

#endif
