/* kernelry new-plugin: what it writes, what it refuses, and that nothing is written by halves. That
 * the projects build and pass is shown by the package tests. */
#include "process.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct finished new_plugin(const char *name, const char *option) {
    return option == NULL
               ? run_kernelry(CPU_PLUGINS, ARGUMENTS("new-plugin", scratch_at(name)))
               : run_kernelry(CPU_PLUGINS, ARGUMENTS("new-plugin", scratch_at(name), option));
}

static void assert_file_says(const char *name, const char *text, const char *but_not) {
    char *content = scratch_read(name, NULL);
    assert_says(content, text);
    assert_silent_on(content, but_not);
    free(content);
}

static void project_in_c_bears_the_name(void **state) {
    (void)state;
    struct finished run = new_plugin("fast_1", NULL);
    assert_code(&run, 0);
    assert_says(run.out, "cmake -B build");
    finished_free(&run);
    assert_int_equal(scratch_count("fast_1"), 3);
    assert_file_says("fast_1/fast_1.c", "KRY_PLUGIN(fast_1, ", "my_plugin");
    assert_file_says("fast_1/CMakeLists.txt", "kernelry_add_plugin(fast_1 fast_1.c)", "my_plugin");
    assert_file_says("fast_1/Makefile", "fast_1.so: fast_1.c", "my_plugin");
}

static void project_in_cuda_has_nothing_of_hip(void **state) {
    (void)state;
    struct finished run = new_plugin("near", "--cuda");
    assert_code(&run, 0);
    finished_free(&run);
    assert_int_equal(scratch_count("near"), 4);
    assert_file_says("near/near.c", "KRY_PLATFORM(\"cuda\", ", "@");
    assert_file_says("near/near.c", "device->arch_number < ARCHITECTURE", "built for");
    assert_file_says("near/CMakeLists.txt", "LANGUAGES C CXX CUDA", "hip");
    assert_file_says("near/device.cu", "cudaGetLastError", "hip");
}

static void project_in_hip_has_nothing_of_cuda(void **state) {
    (void)state;
    struct finished run = new_plugin("near", "--hip");
    assert_code(&run, 0);
    finished_free(&run);
    assert_int_equal(scratch_count("near"), 4);
    static const char *const files[] = {"near/near.c", "near/device.hip", "near/device.h",
                                        "near/CMakeLists.txt"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        assert_file_says(files[i], "", "cuda");
        assert_file_says(files[i], "", "CUDA");
    }
    assert_file_says("near/near.c", "KRY_PLATFORM(\"rocm\", ", "@");
    assert_file_says("near/device.hip", "#include <hip/hip_runtime.h>", "@");
}

static void json_names_the_files(void **state) {
    (void)state;
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("new-plugin", scratch_at("a"), "--hip", "--json"));
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "plugin"), "a");
    assert_string_equal(text_at(run.json, "language"), "hip");
    assert_int_equal(json_array_size(json_at(run.json, "files")), 4);
    assert_says(run.out, "\"device.hip\"");
    finished_free(&run);
}

static void name_that_is_none_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *name, *why;
    } wrong[] = {{"1st", "expected letters, digits and '_', not a digit first"},
                 {"a-b", "expected letters"},
                 {"a b", "expected letters"},
                 {"a.so", "expected letters"},
                 {"\xc3\xa4", "expected letters"},
                 {"here/", "'' is no name"},
                 {"test", "a target of CMake's own"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct finished run = new_plugin(wrong[i].name, NULL);
        assert_code(&run, 2);
        assert_says(run.err, wrong[i].why);
        finished_free(&run);
    }
    char longest[65] = {0}, path[128];
    memset(longest, 'a', sizeof longest - 1);
    snprintf(path, sizeof path, "%s", longest);
    struct finished run = new_plugin(path, NULL);
    assert_code(&run, 2);
    assert_says(run.err, "it has 64 characters, expected at most 63");
    finished_free(&run);
    assert_int_equal(scratch_count(""), 0);
}

static void usage_that_is_wrong_is_refused(void **state) {
    (void)state;
    static const char *const wrong[][5] = {{"new-plugin"},
                                           {"new-plugin", "a", "b"},
                                           {"new-plugin", "a", "--cuda", "--hip"},
                                           {"new-plugin", "a", "--rust"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct finished run = run_kernelry(CPU_PLUGINS, wrong[i]);
        assert_code(&run, 2);
        finished_free(&run);
    }
}

static void folder_that_is_there_stays_as_it_is(void **state) {
    (void)state;
    assert_int_equal(mkdir(scratch_at("mine"), 0700), 0);
    scratch_write("mine/notes", "kept", 4);
    scratch_write("file", "kept", 4);
    struct finished run = new_plugin("mine", NULL);
    assert_code(&run, 2);
    assert_says(run.err, "is there already");
    finished_free(&run);
    run = new_plugin("file", NULL);
    assert_code(&run, 2);
    finished_free(&run);
    assert_int_equal(scratch_count("mine"), 1);
    assert_int_equal(scratch_count(""), 2);
}

/* A file that may not grow beyond some bytes stands for a full disk: each file of the project in
 * turn is the first that does not fit. */
static void full_disk_leaves_nothing_behind(void **state) {
    (void)state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    rlim_t kept = limit.rlim_cur;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    static const rlim_t room[] = {400, 700, 2000};
    for (size_t i = 0; i < sizeof room / sizeof room[0]; i++) {
        limit.rlim_cur = room[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        struct finished run = new_plugin("full", NULL);
        limit.rlim_cur = kept;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        assert_code(&run, 3);
        assert_says(run.err, "File too large");
        finished_free(&run);
        assert_int_equal(scratch_count(""), 0);
    }
    signal(SIGXFSZ, handler);
}

static void place_that_is_not_there_is_an_error(void **state) {
    (void)state;
    struct finished run = new_plugin("nowhere/a", NULL);
    assert_code(&run, 3);
    assert_says(run.err, "No such file or directory");
    finished_free(&run);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_begin, scratch_end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(project_in_c_bears_the_name),         TEST(project_in_cuda_has_nothing_of_hip),
        TEST(project_in_hip_has_nothing_of_cuda),  TEST(json_names_the_files),
        TEST(name_that_is_none_is_refused),        TEST(usage_that_is_wrong_is_refused),
        TEST(folder_that_is_there_stays_as_it_is), TEST(full_disk_leaves_nothing_behind),
        TEST(place_that_is_not_there_is_an_error),
    };
    return cmocka_run_group_tests_name("new-plugin", tests, NULL, NULL) ? 1 : 0;
}
