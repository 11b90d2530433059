/*
 * Isolation on demand: a plugin that crashes, hangs or ends its process in a trial is named and
 * left out, nothing of it runs here, and nothing of the trial stays behind.
 */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Long enough for a slow machine where nothing hangs, short where something does. */
enum { PATIENT = 60000, HASTY = 700, TRIED_AT_ONCE = 4 };

static kry_registry *open_probing(uint32_t milliseconds, log_lines *log, const char *const *paths,
                                  size_t count) {
    kry_registry_options options = closed_options(paths, count);
    options.flags |= KRY_REGISTRY_PROBE;
    options.probe_milliseconds = milliseconds;
    return open_options(options, log);
}

/* What became of one mock; the text lives until the next call. */
static const char *probe_mock(const char *mock, uint32_t milliseconds, log_lines *log,
                              kry_plugin_info *out) {
    static char reason[1024];
    const char *path = mock_path(mock);
    kry_registry *probing = open_probing(milliseconds, log, &path, 1);
    *out = KRY_INIT(kry_plugin_info);
    assert_int_equal(kry_registry_plugin(probing, 0, out), KRY_OK);
    snprintf(reason, sizeof reason, "%s", out->reason);
    kry_registry_close(&probing);
    return reason;
}

/* No child of this process, running or a zombie. */
static void assert_no_child(void) {
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void assert_left_out(const char *mock, uint32_t milliseconds, const char *how,
                            const char *where) {
    kry_plugin_info info;
    const char *reason = probe_mock(mock, milliseconds, NULL, &info);
    assert_int_equal(info.state, KRY_PLUGIN_REFUSED);
    assert_int_equal(info.status, KRY_E_PLUGIN);
    if (strstr(reason, how) == NULL || strstr(reason, where) == NULL)
        fail_msg("%s: '%s' does not tell '%s' and '%s'", mock, reason, how, where);
    assert_no_child();
}

static const char while_loaded[] = "while it was loaded: in a constructor";

static void constructor_that_aborts_is_named(void **state) {
    (void)state;
    assert_left_out("deadly/deadly_abort.so", PATIENT, "SIGABRT", while_loaded);
}

static void constructor_that_exits_is_named(void **state) {
    (void)state;
    assert_left_out("deadly/deadly_exit.so", PATIENT, "exit code 0", while_loaded);
}

static void constructor_that_never_ends_is_named(void **state) {
    (void)state;
    assert_left_out("deadly/deadly_loop.so", HASTY,
                    "hangs: its trial in another process did not end "
                    "within 700 ms",
                    while_loaded);
}

static void constructor_that_floods_its_output_is_named(void **state) {
    (void)state;
    assert_left_out("deadly/deadly_flood.so", HASTY, "did not end", while_loaded);
}

static void process_that_is_killed_is_named(void **state) {
    (void)state;
    assert_left_out("deadly/deadly_killed.so", PATIENT, "SIGKILL", while_loaded);
}

static void entry_that_crashes_is_named(void **state) {
    (void)state;
    assert_left_out("deadly/deadly_entry.so", PATIENT, "SIGSEGV (signal 11)", "in its entry");
}

static void kernel_that_crashes_when_asked_is_named(void **state) {
    (void)state;
    assert_left_out("deadly/deadly_can_implement.so", PATIENT, "SIGSEGV",
                    "in can_implement of kernel deadly_can_implement for cpu");
}

static void kernel_that_never_answers_is_named(void **state) {
    (void)state;
    assert_left_out("deadly/hanging_can_implement.so", HASTY, "hangs",
                    "in can_implement of kernel hanging_can_implement for cpu");
}

static void others_load_beside_those_that_crash(void **state) {
    (void)state;
    static log_lines log;
    log_init(&log);
    const char *paths[] = {mock_path("deadly/deadly_abort.so"), mock_path("dense.so"),
                           mock_path("deadly/deadly_loop.so"), mock_path("seed")};
    kry_registry *probing = open_probing(HASTY, &log, paths, 4);
    assert_string_equal(kernel_order(probing, "cpu"), "dense");
    assert_int_equal(kry_registry_kernel_count(probing, "cuda"), 7);
    assert_non_null(strstr(log.text, "deadly_abort.so refused: crashes"));
    kry_linear linear = small_layer();
    kry_decision *decision = decide(probing, "cpu", &linear);
    assert_string_equal(chosen(decision), "dense");
    kry_decision_destroy(&decision);
    kry_registry_close(&probing);
    assert_no_child();
}

static void trial_answers_as_loading_does(void **state) {
    (void)state;
    kry_plugin_info alone, tried;
    static char expected[1024];
    const char *mocks[] = {"missing_library.so", "missing_symbol.so", "entry_null.so", "twice.so"};
    for (size_t i = 0; i < sizeof mocks / sizeof mocks[0]; i++) {
        examine_file(mock_path(mocks[i]), &alone);
        snprintf(expected, sizeof expected, "%s", alone.reason);
        const char *reason = probe_mock(mocks[i], PATIENT, NULL, &tried);
        assert_int_equal(tried.status, alone.status);
        assert_string_equal(reason, expected);
    }
}

static void plugin_that_fails_its_trial_does_not_run_here(void **state) {
    (void)state;
    kry_plugin_info info;
    unsetenv("MOCK_RAN");
    const char *reason = probe_mock("deadly/trial_bad_table.so", PATIENT, NULL, &info);
    assert_int_equal(info.status, KRY_E_PLUGIN);
    assert_non_null(strstr(reason, "its table calls it"));
    assert_null(getenv("MOCK_RAN"));
}

static void plugin_that_comes_through_runs_here(void **state) {
    (void)state;
    kry_plugin_info info;
    unsetenv("MOCK_RAN");
    probe_mock("good.so", PATIENT, NULL, &info);
    assert_int_equal(info.state, KRY_PLUGIN_LOADED);
    assert_string_equal(getenv("MOCK_RAN"), "1");
}

static void file_that_is_refused_anyway_has_no_trial(void **state) {
    (void)state;
    kry_plugin_info info;
    const char *reason = probe_mock("wrong_abi.so", PATIENT, NULL, &info);
    assert_int_equal(info.status, KRY_E_ABI);
    assert_null(strstr(reason, "trial"));
}

/* Also that its processes are gone is asked of the system. */
static void processes_that_a_plugin_leaves_behind_are_ended(void **state) {
    (void)state;
    static log_lines log;
    log_init(&log);
    char list[FIXTURE_PATH];
    snprintf(list, sizeof list, "%s", path_in(scratch_folder(), "pids"));
    setenv("MOCK_PIDS", list, 1);
    kry_plugin_info info;
    const char *reason = probe_mock("deadly/trial_leaves.so", PATIENT, &log, &info);
    if (info.state != KRY_PLUGIN_LOADED)
        fail_msg("%s", reason);
    assert_non_null(strstr(log.text, "left 2 behind"));
    FILE *file = fopen(list, "r");
    assert_non_null(file);
    int pid, count = 0;
    for (; fscanf(file, "%d", &pid) == 1; count++)
        if (kill(pid, 0) == 0 || errno != ESRCH)
            fail_msg("process %d is still there", pid);
    fclose(file);
    assert_int_equal(count, 2);
    assert_no_child();
}

static void constructor_that_returns_twice_does_no_harm(void **state) {
    (void)state;
    kry_plugin_info info;
    const char *reason = probe_mock("deadly/trial_returns_twice.so", PATIENT, NULL, &info);
    if (info.state != KRY_PLUGIN_LOADED)
        fail_msg("%s", reason);
    assert_no_child();
}

/* What goes on in its place is not the process that was to be tried. */
static void constructor_that_becomes_a_daemon_is_named(void **state) {
    (void)state;
    assert_left_out("deadly/trial_daemonises.so", PATIENT, "exit code 0", "while");
}

static void descriptors_of_the_embedder_are_not_inherited(void **state) {
    (void)state;
    char number[16];
    /* Without O_CLOEXEC, as a careless embedder does; a number that nothing else gets by chance. */
    int open_here = fcntl(STDERR_FILENO, F_DUPFD, 100);
    assert_true(open_here >= 100);
    snprintf(number, sizeof number, "%d", open_here);
    setenv("MOCK_DESCRIPTOR", number, 1);
    kry_plugin_info info;
    const char *reason = probe_mock("deadly/trial_descriptor.so", PATIENT, NULL, &info);
    close(open_here);
    if (info.state != KRY_PLUGIN_LOADED)
        fail_msg("%s", reason);
}

static void embedder_that_ignores_its_children_is_served(void **state) {
    (void)state;
    kry_plugin_info good, bad;
    signal(SIGCHLD, SIG_IGN);
    probe_mock("good.so", PATIENT, NULL, &good);
    const char *reason = probe_mock("deadly/deadly_abort.so", PATIENT, NULL, &bad);
    signal(SIGCHLD, SIG_DFL);
    assert_int_equal(good.state, KRY_PLUGIN_LOADED);
    assert_int_equal(bad.state, KRY_PLUGIN_REFUSED);
    assert_non_null(strstr(reason, "SIGABRT"));
}

static void *probe_both(void *argument) {
    kry_registry_options options = closed_options(argument, 2);
    options.flags |= KRY_REGISTRY_PROBE;
    kry_registry *probing = NULL;
    bool good = kry_registry_open(&options, &probing) == KRY_OK &&
                kry_registry_kernel_count(probing, "cpu") == 1;
    kry_registry_close(&probing);
    return good ? argument : NULL;
}

static void threads_that_probe_at_once_agree(void **state) {
    (void)state;
    const char *paths[] = {mock_path("deadly/deadly_abort.so"), mock_path("dense.so")};
    pthread_t threads[TRIED_AT_ONCE];
    for (int i = 0; i < TRIED_AT_ONCE; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, probe_both, paths), 0);
    for (int i = 0; i < TRIED_AT_ONCE; i++) {
        void *good = NULL;
        pthread_join(threads[i], &good);
        assert_non_null(good);
    }
    assert_no_child();
}

static void older_options_are_taken_without_a_probe(void **state) {
    (void)state;
    const char *path = mock_path("dense.so");
    kry_registry_options options = closed_options(&path, 1);
    options.struct_size = offsetof(kry_registry_options, probe_milliseconds);
    options.probe_milliseconds = 1; /* not theirs: must not be read */
    options.reserved_2 = 1;
    kry_registry *opened = open_options(options, NULL);
    assert_int_equal(kry_registry_kernel_count(opened, "cpu"), 1);
    kry_registry_close(&opened);
}

/* ---- the helper -------------------------------------------------------------------------- */

/* Run load_one, probing, in a folder of its own with a helper beside it that is this text, or none
 * when NULL. Returns what it prints. */
static const char *probe_with_helper(const char *text) {
    static char out[4096];
    char folder[FIXTURE_PATH], program[FIXTURE_PATH], helper[FIXTURE_PATH], command[4096];
    snprintf(folder, sizeof folder, "%s", scratch_folder());
    snprintf(program, sizeof program, "%s", path_in(folder, "load_one"));
    copy_file(LOADER_LOAD_ONE, program);
    snprintf(helper, sizeof helper, "%s", path_in(folder, "kernelry"));
    assert_int_equal(mkdir(helper, 0755), 0);
    snprintf(helper, sizeof helper, "%s", path_in(folder, "kernelry/kernelry-probe"));
    if (text != NULL)
        write_file(helper, text, strlen(text));
    snprintf(command, sizeof command, "%s %d %s", program,
             KRY_REGISTRY_PROBE | KRY_REGISTRY_NO_ENVIRONMENT | KRY_REGISTRY_NO_DEFAULT_DIR,
             mock_path("good.so"));
    FILE *stream = popen(command, "r");
    assert_non_null(stream);
    size_t size = fread(out, 1, sizeof out - 1, stream);
    out[size] = '\0';
    assert_int_equal(pclose(stream), 0);
    return out;
}

static void assert_told(const char *text, const char *expected) {
    if (strstr(text, expected) == NULL)
        fail_msg("'%s' does not tell '%s'", text, expected);
}

static void helper_that_is_missing_is_an_error_of_opening(void **state) {
    (void)state;
    const char *told = probe_with_helper(NULL);
    assert_told(told, "open 3 plugins cannot be probed: ");
    assert_told(told, "kernelry/kernelry-probe: No such file");
}

static void helper_of_another_release_is_told(void **state) {
    (void)state;
    const char *told = probe_with_helper("#!/bin/sh\nexit 64\n");
    assert_told(told, "state 2, status 3 cannot be probed: kernelry-probe is of another release");
}

static void helper_that_dies_is_told(void **state) {
    (void)state;
    assert_told(probe_with_helper("#!/bin/sh\nkill -9 $$\n"),
                "cannot be probed: kernelry-probe was ended by SIGKILL");
    assert_told(probe_with_helper("#!/bin/sh\nexit 5\n"),
                "cannot be probed: kernelry-probe failed (exit code 5)");
    assert_told(probe_with_helper("no program\n"), "cannot be started: Exec format error");
}

static void helper_that_others_may_write_is_not_started(void **state) {
    (void)state;
    char folder[FIXTURE_PATH], program[FIXTURE_PATH], helper[FIXTURE_PATH];
    snprintf(folder, sizeof folder, "%s", scratch_folder());
    snprintf(program, sizeof program, "%s", path_in(folder, "load_one"));
    snprintf(helper, sizeof helper, "%s", path_in(folder, "kernelry"));
    copy_file(LOADER_LOAD_ONE, program);
    assert_int_equal(mkdir(helper, 0755), 0);
    snprintf(helper, sizeof helper, "%s", path_in(folder, "kernelry/kernelry-probe"));
    copy_file(LOADER_PROBE, helper);
    assert_int_equal(chmod(helper, 0757), 0);
    char command[4096], out[4096] = "";
    snprintf(command, sizeof command, "%s %d %s", program,
             KRY_REGISTRY_PROBE | KRY_REGISTRY_NO_ENVIRONMENT | KRY_REGISTRY_NO_DEFAULT_DIR,
             mock_path("good.so"));
    FILE *stream = popen(command, "r");
    assert_non_null(stream);
    out[fread(out, 1, sizeof out - 1, stream)] = '\0';
    assert_int_equal(pclose(stream), 0);
    assert_told(out, "open 6 plugins cannot be probed: ");
    assert_told(out, "may be written by anyone");
}

static void helper_by_itself_refuses(void **state) {
    (void)state;
    char command[FIXTURE_PATH + 32];
    snprintf(command, sizeof command, "%s x 0 1 2>/dev/null </dev/null", LOADER_PROBE);
    int ended = system(command);
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), 64);
}

int main(void) {
#ifdef LOADER_CROSSED
    puts("skipped: the system cannot start programs for this processor");
    return 77;
#endif
    char home[16];
    snprintf(home, sizeof home, "%d", (int)getpid());
    setenv("MOCK_HOME", home, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constructor_that_aborts_is_named),
        cmocka_unit_test(constructor_that_exits_is_named),
        cmocka_unit_test(constructor_that_never_ends_is_named),
        cmocka_unit_test(constructor_that_floods_its_output_is_named),
        cmocka_unit_test(process_that_is_killed_is_named),
        cmocka_unit_test(entry_that_crashes_is_named),
        cmocka_unit_test(kernel_that_crashes_when_asked_is_named),
        cmocka_unit_test(kernel_that_never_answers_is_named),
        cmocka_unit_test(others_load_beside_those_that_crash),
        cmocka_unit_test(trial_answers_as_loading_does),
        cmocka_unit_test(plugin_that_fails_its_trial_does_not_run_here),
        cmocka_unit_test(plugin_that_comes_through_runs_here),
        cmocka_unit_test(file_that_is_refused_anyway_has_no_trial),
        cmocka_unit_test(processes_that_a_plugin_leaves_behind_are_ended),
        cmocka_unit_test(constructor_that_returns_twice_does_no_harm),
        cmocka_unit_test(constructor_that_becomes_a_daemon_is_named),
        cmocka_unit_test(descriptors_of_the_embedder_are_not_inherited),
        cmocka_unit_test(embedder_that_ignores_its_children_is_served),
        cmocka_unit_test(threads_that_probe_at_once_agree),
        cmocka_unit_test(older_options_are_taken_without_a_probe),
        cmocka_unit_test(helper_that_is_missing_is_an_error_of_opening),
        cmocka_unit_test(helper_of_another_release_is_told),
        cmocka_unit_test(helper_that_dies_is_told),
        cmocka_unit_test(helper_that_others_may_write_is_not_started),
        cmocka_unit_test(helper_by_itself_refuses),
    };
    return cmocka_run_group_tests_name("loader probe", tests, NULL, NULL) ? 1 : 0;
}
