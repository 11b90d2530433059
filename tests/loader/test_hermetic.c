/*
 * What needs a libc that plays along: a process with raised privileges, files that change between
 * being checked and being loaded, devices that must not even be opened.
 */
#include "fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "shim.h"

/* ---- what the library prints ------------------------------------------------------------- */

static int kept[2] = {-1, -1};
static FILE *printed;

/* From here to release_output standard output and error go to a file. */
static void catch_output(void) {
    fflush(NULL);
    printed = tmpfile();
    assert_non_null(printed);
    for (int i = 0; i < 2; i++) {
        kept[i] = dup(i + 1);
        assert_true(kept[i] >= 0 && dup2(fileno(printed), i + 1) >= 0);
    }
}

/* How many bytes were printed. */
static long release_output(void) {
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        dup2(kept[i], i + 1);
        close(kept[i]);
    }
    long bytes = lseek(fileno(printed), 0, SEEK_END);
    fclose(printed);
    return bytes;
}

/* ---- the environment ----------------------------------------------------------------------- */

static const char *const variables[] = {"PLUGIN_PATH", "PLUGIN_DIR", "DISABLE", "PREFER",
                                        "PRIORITY",    "CPU_MASK",   "LOG",     "THREADS"};
enum { VARIABLES = sizeof variables / sizeof variables[0] };

static void set_environment(void) {
    char values[VARIABLES][FIXTURE_PATH] = {"",        "",     "aardvark", "dense",
                                            "zebra=1", "none", "debug",    "a few"};
    snprintf(values[0], FIXTURE_PATH, "%s", mock_path("pair.so"));
    snprintf(values[1], FIXTURE_PATH, "%s", mock_path("seed"));
    for (int i = 0; i < VARIABLES; i++) {
        char name[64];
        snprintf(name, sizeof name, "KERNELRY_%s", variables[i]);
        setenv(name, values[i], 1);
    }
}

static int clear_environment(void **state) {
    (void)state;
    for (int i = 0; i < VARIABLES; i++) {
        char name[64];
        snprintf(name, sizeof name, "KERNELRY_%s", variables[i]);
        unsetenv(name);
    }
    shim_raise_privileges(false);
    return 0;
}

/* A registry of two plugins, and of a file that is not there, that reads the environment; the CPU
 * as it sees it, and how much it printed. */
static kry_registry *open_printing(log_lines *log, kry_device *cpu, long *bytes) {
    char first[FIXTURE_PATH], second[FIXTURE_PATH];
    snprintf(first, sizeof first, "%s", mock_path("dense.so"));
    snprintf(second, sizeof second, "%s", mock_path("whole_groups.so"));
    const char *paths[] = {first, second, "/absent.so"};
    kry_registry_options options = closed_options(paths, 3);
    options.flags = 0;
    log_init(log);
    catch_output();
    kry_registry *opened = open_options(options, log);
    *bytes = release_output();
    *cpu = find_device(opened, "cpu");
    return opened;
}

static void environment_is_not_read_with_raised_privileges(void **state) {
    (void)state;
    static log_lines log;
    kry_device plain, cpu;
    long bytes;
    kry_registry *opened = open_printing(&log, &plain, &bytes);
    kry_registry_close(&opened);

    set_environment();
    shim_raise_privileges(true);
    opened = open_printing(&log, &cpu, &bytes);
    assert_string_equal(kernel_order(opened, "cpu"), "whole_groups dense");
    assert_int_equal(kry_registry_kernel_count(opened, "cuda"), 0);
    assert_int_equal(kry_registry_plugin_count(opened), 3);
    assert_int_equal(cpu.cpu_features, plain.cpu_features);
    assert_int_equal(bytes, 0);
    assert_int_equal(log.warnings, 0);
    kry_registry_close(&opened);

    /* Each of them counts where privileges are not raised. */
    shim_raise_privileges(false);
    opened = open_printing(&log, &cpu, &bytes);
    assert_string_equal(kernel_order(opened, "cpu"), "dense whole_groups zebra");
    assert_int_equal(kry_registry_kernel_count(opened, "cuda"), 7);
    assert_int_equal(cpu.cpu_features, 0);
    assert_true(bytes > 0);
    assert_non_null(strstr(log.text, "KERNELRY_THREADS"));
    kry_kernel_info info = KRY_INIT(kry_kernel_info);
    assert_int_equal(kry_registry_kernel(opened, "cpu", 2, &info), KRY_OK);
    assert_int_equal(info.priority, 1);
    kry_registry_close(&opened);
}

static void library_prints_nothing_unasked(void **state) {
    (void)state;
    const char *bad = scratch_folder();
    copy_file(mock_path("wrong_abi.so"), path_in(bad, "a.so"));
    copy_file(mock_path("missing_symbol.so"), path_in(bad, "b.so"));
    write_file(path_in(bad, "c.so"), "text", 4);
    const char *paths[] = {bad, "/absent.so", mock_path("dense.so")};
    kry_registry_options options = closed_options(paths, 3);
    options.flags = KRY_REGISTRY_NO_DEFAULT_DIR;
    kry_linear linear = describe(64, 8, 32, KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
    kry_device device = KRY_INIT(kry_device);
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    kry_layer *layer = NULL;
    catch_output();
    kry_registry *opened = open_options(options, NULL);
    kry_status found = kry_registry_find_device(opened, "cpu", &device);
    kry_status made = kry_layer_create(opened, &args, &layer);
    kry_registry_close(&opened);
    long bytes = release_output();
    assert_int_equal(found, KRY_OK);
    assert_int_equal(made, KRY_E_NO_KERNEL);
    assert_int_equal(bytes, 0);
}

/* ---- between check and load ---------------------------------------------------------------- */

/* A folder with a plugin, and another folder beside it with the same bytes in another file. */
static char inner[FIXTURE_PATH], other[FIXTURE_PATH], aside[FIXTURE_PATH];
static char file[FIXTURE_PATH], other_file[FIXTURE_PATH], aside_file[FIXTURE_PATH];
static bool in_folder; /* the last of two swaps is undone by renaming folders, not files */

static void make_pair(void) {
    const char *outer = scratch_folder();
    snprintf(inner, sizeof inner, "%s", path_in(outer, "inner"));
    snprintf(other, sizeof other, "%s", path_in(outer, "other"));
    snprintf(aside, sizeof aside, "%s", path_in(outer, "aside"));
    assert_int_equal(mkdir(inner, 0755), 0);
    assert_int_equal(mkdir(other, 0755), 0);
    snprintf(file, sizeof file, "%s", path_in(inner, "entered.so"));
    snprintf(other_file, sizeof other_file, "%s", path_in(other, "entered.so"));
    snprintf(aside_file, sizeof aside_file, "%s", path_in(outer, "aside.so"));
    copy_file(mock_path("entered.so"), file);
    copy_file(mock_path("entered.so"), other_file);
    unsetenv("MOCK_ENTERED");
    in_folder = false;
}

static void swap(const char *path) {
    (void)path;
    rename(in_folder ? inner : file, in_folder ? aside : aside_file);
    rename(in_folder ? other : other_file, in_folder ? inner : file);
}

static void swap_back(const char *path) {
    (void)path;
    rename(in_folder ? inner : file, in_folder ? other : other_file);
    rename(in_folder ? aside : aside_file, in_folder ? inner : file);
}

/* One byte that the loader does not read, in place, with the times of before. */
static void rewrite(const char *path) {
    struct stat entry;
    assert_int_equal(stat(path, &entry), 0);
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    assert_true(descriptor >= 0);
    usleep(20000); /* times of files are as fine as the system's clock tick */
    char last;
    assert_int_equal(pread(descriptor, &last, 1, entry.st_size - 1), 1);
    last ^= 1;
    assert_int_equal(pwrite(descriptor, &last, 1, entry.st_size - 1), 1);
    const struct timespec times[2] = {entry.st_atim, entry.st_mtim};
    assert_int_equal(futimens(descriptor, times), 0);
    close(descriptor);
}

static void remove_it(const char *path) { unlink(path); }

static int forget_hooks(void **state) {
    (void)state;
    shim_before_dlopen = shim_after_dlopen = NULL;
    return 0;
}

static void assert_not_used(kry_status expected, const char *told) {
    kry_plugin_info info;
    examine_file(file, &info);
    if (info.state != KRY_PLUGIN_REFUSED || info.status != expected ||
        strstr(info.reason, told) == NULL)
        fail_msg("state %u, status %d, expected %d: '%s' does not tell '%s'", info.state,
                 info.status, expected, info.reason, told);
    assert_null(getenv("MOCK_ENTERED"));
}

static void file_that_stays_is_used(void **state) {
    (void)state;
    kry_plugin_info info;
    make_pair();
    examine_file(file, &info);
    if (info.state != KRY_PLUGIN_LOADED)
        fail_msg("%s", info.reason);
    assert_string_equal(getenv("MOCK_ENTERED"), "1");
}

static void file_replaced_between_check_and_load_is_not_used(void **state) {
    (void)state;
    make_pair();
    shim_before_dlopen = swap;
    assert_not_used(KRY_E_TRUST, "KRY-C05");
    make_pair();
    in_folder = true;
    shim_before_dlopen = swap;
    assert_not_used(KRY_E_TRUST, "KRY-C05");
}

static void file_replaced_and_put_back_is_not_used(void **state) {
    (void)state;
    shim_before_dlopen = swap;
    shim_after_dlopen = swap_back;
    make_pair();
    assert_not_used(KRY_E_TRUST, "KRY-C05");
    make_pair();
    in_folder = true; /* the file's own times tell nothing of it */
    assert_not_used(KRY_E_TRUST, "KRY-C05");
}

static void file_rewritten_in_place_is_not_used(void **state) {
    (void)state;
    make_pair();
    shim_before_dlopen = rewrite;
    assert_not_used(KRY_E_TRUST, "KRY-C05");
    make_pair();
    shim_before_dlopen = NULL;
    shim_after_dlopen = rewrite;
    assert_not_used(KRY_E_TRUST, "KRY-C05");
}

static void file_removed_between_check_and_load_is_not_used(void **state) {
    (void)state;
    make_pair();
    shim_before_dlopen = remove_it;
    assert_not_used(KRY_E_DEPENDENCY, "entered.so");
    make_pair();
    shim_before_dlopen = NULL;
    shim_after_dlopen = remove_it;
    assert_not_used(KRY_E_TRUST, "KRY-C05");
}

/* ---- devices -----------------------------------------------------------------------------------
 */

static void device_or_fifo_is_not_even_opened(void **state) {
    (void)state;
    const char *fifo = path_in(scratch_folder(), "fifo.so");
    assert_int_equal(mkfifo(fifo, 0700), 0);
    const char *paths[] = {"/dev/zero", "/dev/null", fifo, mock_path("dense.so")};
    shim_fail_call(0, 0); /* none, but opens are noted */
    kry_registry *opened = open_options(closed_options(paths, 4), NULL);
    shim_stop();
    assert_string_equal(kernel_order(opened, "cpu"), "dense");
    for (size_t i = 0; i < 3; i++) {
        kry_plugin_info info = KRY_INIT(kry_plugin_info);
        assert_int_equal(kry_registry_plugin(opened, i, &info), KRY_OK);
        assert_int_equal(info.state, KRY_PLUGIN_REFUSED);
        assert_int_equal(info.status, KRY_E_FORMAT);
        assert_string_equal(info.reason, "is not a regular file");
        assert_int_equal(shim_opens_of(paths[i]), 0);
    }
    kry_plugin_info info = KRY_INIT(kry_plugin_info);
    assert_int_equal(kry_registry_plugin(opened, 3, &info), KRY_OK);
    assert_int_equal(shim_opens_of(info.path), 1);
    kry_registry_close(&opened);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(environment_is_not_read_with_raised_privileges,
                                  clear_environment),
        cmocka_unit_test(library_prints_nothing_unasked),
        cmocka_unit_test(file_that_stays_is_used),
        cmocka_unit_test_teardown(file_replaced_between_check_and_load_is_not_used, forget_hooks),
        cmocka_unit_test_teardown(file_replaced_and_put_back_is_not_used, forget_hooks),
        cmocka_unit_test_teardown(file_rewritten_in_place_is_not_used, forget_hooks),
        cmocka_unit_test_teardown(file_removed_between_check_and_load_is_not_used, forget_hooks),
        cmocka_unit_test(device_or_fifo_is_not_even_opened),
    };
    return cmocka_run_group_tests_name("loader hermetic", tests, NULL, NULL) ? 1 : 0;
}
