/*
 * The order of kernels: the one rule, and what an operator may say against it.
 */
#include "fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char cuda_order[] = "CutlassW4A8 Machete AllSpark Marlin Conch Exllama TritonW4A16";

static const char *const seed_files[] = {"a_one.so",  "b_two.so", "c_three.so", "d_four.so",
                                         "e_five.so", "f_six.so", "g_seven.so"};

/* The seed's plugins in a folder of their own, so that files may go. */
static const char *seed_copies(void) {
    const char *folder = scratch_folder();
    for (size_t i = 0; i < sizeof seed_files / sizeof seed_files[0]; i++)
        copy_file(path_in(mock_path("seed"), seed_files[i]), path_in(folder, seed_files[i]));
    return folder;
}

static kry_registry *open_seed(kry_registry_options options, log_lines *log) {
    const char *paths[1] = {mock_path("seed")};
    options.struct_size = sizeof options;
    options.plugin_paths = paths;
    options.plugin_path_count = 1;
    options.flags |= KRY_REGISTRY_NO_DEFAULT_DIR;
    return open_options(options, log);
}

static void assert_cuda_order(kry_registry_options options, log_lines *log, const char *order) {
    kry_registry *registry = open_seed(options, log);
    assert_string_equal(kernel_order(registry, "cuda"), order);
    kry_registry_close(&registry);
}

static void order_on_cuda_puts_fallback_last_whatever_its_priority(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "seed", NULL);
    assert_string_equal(kernel_order(registry, "cuda"), cuda_order);
    kry_kernel_info last = KRY_INIT(kry_kernel_info);
    assert_int_equal(kry_registry_kernel(registry, "cuda", 6, &last), KRY_OK);
    assert_int_equal(last.priority, 900);
    assert_int_equal(last.fallback, 1);
    assert_int_equal(kry_registry_kernel(registry, "cuda", 7, &last), KRY_E_NOT_FOUND);
    kry_registry_close(&registry);
}

static void order_on_rocm_takes_the_same_plugin_as_ordinary(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "seed", NULL);
    assert_string_equal(kernel_order(registry, "rocm"), "TritonW4A16 Conch Exllama");
    assert_int_equal(kry_registry_kernel_count(registry, NULL), 10);
    assert_int_equal(kry_registry_kernel_count(registry, "abacus"), 0);
    kry_registry_close(&registry);
}

static void order_inside_a_plugin_is_its_tables(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "dense.so", "pair.so", NULL);
    assert_string_equal(kernel_order(registry, "cpu"), "zebra aardvark dense");
    kry_registry_close(&registry);
}

static void order_of_paths_does_not_matter(void **state) {
    (void)state;
    kry_registry *one = open_mocks(NULL, "dense.so", "padded.so", "whole_groups.so", NULL);
    kry_registry *other = open_mocks(NULL, "whole_groups.so", "dense.so", "padded.so", NULL);
    assert_string_equal(kernel_order(one, "cpu"), "whole_groups padded dense");
    assert_string_equal(kernel_order(other, "cpu"), "whole_groups padded dense");
    kry_registry_close(&one);
    kry_registry_close(&other);
}

static void third_party_with_a_higher_priority_outranks_all(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "seed", "rival.so", NULL);
    kry_linear linear = describe(4096, 4096, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
    kry_decision *decision = decide(registry, "cuda:sm_90", &linear);
    assert_string_equal(chosen(decision), "Rival");
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void deleting_the_winners_file_promotes_the_next(void **state) {
    (void)state;
    static const char *const winners[] = {"Machete", "Marlin", "Conch", "TritonW4A16", "none"};
    static const char *const files[] = {"d_four.so", "c_three.so", "e_five.so", "b_two.so"};
    const char *folder = seed_copies();
    kry_linear linear = describe(4096, 4096, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
    for (size_t i = 0; i < 5; i++) {
        const char *paths[1] = {folder};
        kry_registry *registry = open_options(closed_options(paths, 1), NULL);
        kry_decision *decision = decide(registry, "cuda:sm_90", &linear);
        assert_string_equal(chosen(decision), winners[i]);
        kry_decision_destroy(&decision);
        kry_registry_close(&registry);
        if (i < 4)
            assert_int_equal(unlink(path_in(folder, files[i])), 0);
    }
}

/* ---- overrides --------------------------------------------------------------------------- */

static void override_in_code_disables_a_kernel(void **state) {
    (void)state;
    const char *names[] = {"Machete"};
    kry_registry_options options = {.disable = names, .disable_count = 1};
    options.flags = KRY_REGISTRY_NO_ENVIRONMENT;
    assert_cuda_order(options, NULL, "CutlassW4A8 AllSpark Marlin Conch Exllama TritonW4A16");
}

static void override_in_code_disables_a_plugin_on_all_platforms(void **state) {
    (void)state;
    const char *names[] = {"conch"};
    kry_registry_options options = {.disable = names, .disable_count = 1};
    options.flags = KRY_REGISTRY_NO_ENVIRONMENT;
    kry_registry *registry = open_seed(options, NULL);
    assert_string_equal(kernel_order(registry, "rocm"), "TritonW4A16 Exllama");
    kry_plugin_info info;
    assert_true(find_plugin(registry, "conch", &info));
    assert_int_equal(info.state, KRY_PLUGIN_DISABLED);
    kry_registry_close(&registry);
}

static void override_in_code_prefers_in_the_given_order_even_a_fallback(void **state) {
    (void)state;
    const char *names[] = {"exllama/Exllama", "triton_w4a16", "Marlin"};
    kry_registry_options options = {.prefer = names, .prefer_count = 3};
    options.flags = KRY_REGISTRY_NO_ENVIRONMENT;
    assert_cuda_order(options, NULL,
                      "Exllama TritonW4A16 Marlin CutlassW4A8 Machete AllSpark Conch");
}

static void override_in_code_changes_a_priority(void **state) {
    (void)state;
    const char *names[] = {"Conch=550", "allspark/AllSpark=-5", "triton_w4a16=100000"};
    kry_registry_options options = {.priority = names, .priority_count = 3};
    options.flags = KRY_REGISTRY_NO_ENVIRONMENT;
    assert_cuda_order(options, NULL,
                      "CutlassW4A8 Machete Conch Marlin Exllama AllSpark "
                      "TritonW4A16");
}

static void override_in_environment_acts_as_in_code(void **state) {
    (void)state;
    kry_registry_options none = {0};
    setenv("KERNELRY_DISABLE", "Machete,allspark", 1);
    assert_cuda_order(none, NULL, "CutlassW4A8 Marlin Conch Exllama TritonW4A16");
    unsetenv("KERNELRY_DISABLE");
    setenv("KERNELRY_PREFER", "Exllama,marlin", 1);
    assert_cuda_order(none, NULL, "Exllama Marlin CutlassW4A8 Machete AllSpark Conch TritonW4A16");
    unsetenv("KERNELRY_PREFER");
    setenv("KERNELRY_PRIORITY", "Conch=700,exllama=650", 1);
    assert_cuda_order(none, NULL, "Conch Exllama CutlassW4A8 Machete AllSpark Marlin TritonW4A16");
    unsetenv("KERNELRY_PRIORITY");
}

static void override_in_environment_wins_over_code(void **state) {
    (void)state;
    const char *names[] = {"Marlin=1000"};
    kry_registry_options options = {.priority = names, .priority_count = 1};
    setenv("KERNELRY_PRIORITY", "Marlin=1", 1);
    assert_cuda_order(options, NULL,
                      "CutlassW4A8 Machete AllSpark Conch Exllama Marlin TritonW4A16");
    setenv("KERNELRY_PRIORITY", "marlin=1", 1); /* by the plugin's name, against the kernel's */
    assert_cuda_order(options, NULL,
                      "CutlassW4A8 Machete AllSpark Conch Exllama Marlin TritonW4A16");
    unsetenv("KERNELRY_PRIORITY");
}

static void override_in_environment_is_not_read_when_told_not_to(void **state) {
    (void)state;
    setenv("KERNELRY_DISABLE", "Machete", 1);
    kry_registry_options options = {.flags = KRY_REGISTRY_NO_ENVIRONMENT};
    assert_cuda_order(options, NULL, cuda_order);
    unsetenv("KERNELRY_DISABLE");
}

static void override_that_names_nothing_warns(void **state) {
    (void)state;
    static log_lines log;
    log_init(&log);
    const char *disable[] = {"Marlim"}, *prefer[] = {"conch/Machete"}, *priority[] = {"ex=4"};
    kry_registry_options options = {.disable = disable,
                                    .disable_count = 1,
                                    .prefer = prefer,
                                    .prefer_count = 1,
                                    .priority = priority,
                                    .priority_count = 1};
    options.flags = KRY_REGISTRY_NO_ENVIRONMENT;
    assert_cuda_order(options, &log, cuda_order);
    assert_int_equal(log.warnings, 3);
    assert_non_null(strstr(log.text, "Marlim"));
    assert_non_null(strstr(log.text, "conch/Machete"));
    assert_non_null(strstr(log.text, "'ex'"));
}

static void
override_without_a_number_is_refused_in_code_and_warned_of_in_environment(void **state) {
    (void)state;
    static const char *const wrong[] = {"Marlin", "Marlin=", "=5", "Marlin=5x",
                                        "Marlin=99999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        kry_registry_options options = closed_options(NULL, 0);
        options.priority = &wrong[i];
        options.priority_count = 1;
        kry_registry *registry = NULL;
        assert_int_equal(kry_registry_open(&options, &registry), KRY_E_ARGUMENT);
        assert_null(registry);
        assert_non_null(strstr(kry_error_message(), wrong[i]));

        static log_lines log;
        log_init(&log);
        setenv("KERNELRY_PRIORITY", wrong[i], 1);
        assert_cuda_order((kry_registry_options){0}, &log, cuda_order);
        unsetenv("KERNELRY_PRIORITY");
        assert_int_equal(log.warnings, 1);
    }
}

/* ---- where plugins are found -------------------------------------------------------------- */

static void environment_names_folders_after_those_of_code(void **state) {
    (void)state;
    const char *first = scratch_folder(), *second = scratch_folder();
    char list[2 * FIXTURE_PATH];
    copy_file(mock_path("dense.so"), path_in(first, "x.so"));
    copy_file(mock_path("dense.so"), path_in(second, "x.so"));
    copy_file(mock_path("padded.so"), path_in(second, "y.so"));
    snprintf(list, sizeof list, "relative:%s::", second);
    setenv("KERNELRY_PLUGIN_PATH", list, 1);
    setenv("KERNELRY_PLUGIN_DIR", mock_path("seed"), 1);
    static log_lines log;
    log_init(&log);
    const char *paths[1] = {first};
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.plugin_paths = paths;
    options.plugin_path_count = 1;
    kry_registry *registry = open_options(options, &log);
    unsetenv("KERNELRY_PLUGIN_PATH");
    unsetenv("KERNELRY_PLUGIN_DIR");
    assert_string_equal(kry_registry_search_path(registry, 0), first);
    assert_string_equal(kry_registry_search_path(registry, 1), second);
    assert_string_equal(kry_registry_search_path(registry, 2), mock_path("seed"));
    assert_null(kry_registry_search_path(registry, 3));
    assert_string_equal(kernel_order(registry, "cpu"), "padded dense");
    assert_string_equal(kernel_order(registry, "cuda"), cuda_order);
    kry_plugin_info info = KRY_INIT(kry_plugin_info);
    assert_int_equal(kry_registry_plugin(registry, 1, &info), KRY_OK);
    assert_string_equal(info.name, "dense");
    assert_int_equal(info.state, KRY_PLUGIN_SHADOWED);
    assert_int_equal(info.status, KRY_OK);
    assert_non_null(strstr(info.reason, first));
    assert_non_null(strstr(log.text, "relative"));
    kry_registry_close(&registry);
}

static void folder_of_the_install_is_absolute_and_the_working_one_is_never_searched(void **state) {
    (void)state;
    const char *folder = seed_copies();
    char before[FIXTURE_PATH];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(folder), 0);
    setenv("KERNELRY_PLUGIN_PATH", ":.:./x.so:", 1);
    kry_registry *registry = open_options(KRY_INIT(kry_registry_options), NULL);
    unsetenv("KERNELRY_PLUGIN_PATH");
    assert_int_equal(chdir(before), 0);
    const char *own = kry_registry_search_path(registry, 0);
    assert_non_null(own);
    assert_int_equal(own[0], '/');
    assert_non_null(strstr(own, "/kernelry/plugins"));
    assert_null(kry_registry_search_path(registry, 1));
    assert_int_equal(kry_registry_kernel_count(registry, "cuda"), 0);
    kry_registry_close(&registry);
}

/* In a child that was called by a bare name: its default folder is not the working one's. */
static int check_default_folder(void) {
    char working[FIXTURE_PATH];
    kry_registry *registry = NULL;
    if (getcwd(working, sizeof working) == NULL || kry_registry_open(NULL, &registry) != KRY_OK)
        return 2;
    const char *own = kry_registry_search_path(registry, 0);
    bool sound = own != NULL && own[0] == '/' && strncmp(own, working, strlen(working)) != 0;
    kry_registry_close(&registry);
    return sound ? 0 : 1;
}

static void default_folder_does_not_depend_on_how_the_program_is_called(void **state) {
    (void)state;
    const char *folder = scratch_folder();
    write_file(path_in(folder, "decoy"), "", 0);
    assert_int_equal(mkdir(path_in(folder, "kernelry"), 0755), 0);
    assert_int_equal(mkdir(path_in(folder, "kernelry/plugins"), 0755), 0);
    char self[FIXTURE_PATH] = "";
    assert_in_range(readlink("/proc/self/exe", self, sizeof self - 1), 1, sizeof self - 1);
    pid_t child = fork();
    if (child == 0) {
        if (chdir(folder) == 0)
            execl(self, "decoy", "check-default-folder", (char *)NULL);
        _exit(errno == ENOEXEC ? 77 : 3); /* an emulated program cannot start itself again */
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void path_that_is_empty_is_refused(void **state) {
    (void)state;
    const char *paths[2] = {"", NULL};
    for (size_t i = 0; i < 2; i++) {
        kry_registry_options options = closed_options(paths + i, 1);
        kry_registry *registry = NULL;
        assert_int_equal(kry_registry_open(&options, &registry), KRY_E_ARGUMENT);
        options.plugin_paths = NULL;
        assert_int_equal(kry_registry_open(&options, &registry), KRY_E_ARGUMENT);
        options.plugin_path_count = 0;
        options.flags = 0x80000000;
        assert_int_equal(kry_registry_open(&options, &registry), KRY_E_ARGUMENT);
        assert_null(registry);
    }
}

static void plugin_info_tells_what_the_note_says(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "seed", NULL);
    kry_plugin_info info;
    assert_true(find_plugin(registry, "triton_w4a16", &info));
    assert_int_equal(info.state, KRY_PLUGIN_LOADED);
    assert_int_equal(info.status, KRY_OK);
    assert_string_equal(info.reason, "");
    assert_string_equal(info.version, "1.2.3");
    assert_int_equal(info.abi_major, KRY_ABI_MAJOR);
    assert_int_equal(info.abi_minor, mocks_minor());
    assert_int_equal(info.named_outright, 0);
    assert_int_equal(info.kernel_count, 2);
    assert_int_equal(info.platform_count, 2);
    assert_string_equal(info.platforms[0].name, "cuda");
    assert_int_equal(info.platforms[0].priority, 900);
    assert_int_equal(info.platforms[0].fallback, 1);
    assert_string_equal(info.platforms[1].name, "rocm");
    assert_int_equal(info.platforms[1].fallback, 0);
    kry_registry_close(&registry);
}

static void fifty_plugins_are_ordered_with_noop_last(void **state) {
    (void)state;
    const char *paths[1] = {LOADER_FIFTY};
    kry_registry *registry = open_options(closed_options(paths, 1), NULL);
    assert_int_equal(kry_registry_kernel_count(registry, "cpu"), 50);
    int32_t before = INT32_MAX;
    for (size_t i = 0; i < 50; i++) {
        kry_kernel_info info = KRY_INIT(kry_kernel_info);
        assert_int_equal(kry_registry_kernel(registry, "cpu", i, &info), KRY_OK);
        assert_true(info.priority <= before || info.fallback == 1);
        assert_int_equal(strcmp(info.kernel, "noop") == 0, i == 49);
        before = info.priority;
    }
    kry_linear linear = describe(2113, 2817, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
    kry_decision *decision = decide(registry, "cpu", &linear);
    assert_string_equal(chosen(decision), "noop");
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void number_of_threads_that_is_none_warns(void **state) {
    (void)state;
    static const char *const bad[] = {"two", "0", "-1", "", "3 ", "4097", "99999999999999999999"};
    const char *paths[1] = {scratch_folder()};
    kry_registry_options options = closed_options(paths, 1);
    options.flags &= ~(uint32_t)KRY_REGISTRY_NO_ENVIRONMENT;
    static log_lines log;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        log_init(&log);
        setenv("KERNELRY_THREADS", bad[i], 1);
        kry_registry *registry = open_options(options, &log);
        unsetenv("KERNELRY_THREADS");
        assert_int_equal(log.warnings, 1);
        char quoted[32];
        snprintf(quoted, sizeof quoted, "'%s'", bad[i]);
        assert_non_null(strstr(log.text, quoted));
        kry_registry_close(&registry);
    }
    log_init(&log);
    setenv("KERNELRY_THREADS", "4096", 1);
    kry_registry *registry = open_options(options, &log);
    unsetenv("KERNELRY_THREADS");
    assert_int_equal(log.warnings, 0);
    kry_registry_close(&registry);
}

static void registry_without_plugins_is_no_error(void **state) {
    (void)state;
    const char *paths[1] = {scratch_folder()};
    kry_registry *registry = open_options(closed_options(paths, 1), NULL);
    assert_int_equal(kry_registry_plugin_count(registry), 0);
    assert_int_equal(kry_registry_kernel_count(registry, NULL), 0);
    kry_registry_close(&registry);
    assert_null(registry);
    kry_registry_close(&registry);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "check-default-folder") == 0)
        return check_default_folder();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_on_cuda_puts_fallback_last_whatever_its_priority),
        cmocka_unit_test(order_on_rocm_takes_the_same_plugin_as_ordinary),
        cmocka_unit_test(order_inside_a_plugin_is_its_tables),
        cmocka_unit_test(order_of_paths_does_not_matter),
        cmocka_unit_test(third_party_with_a_higher_priority_outranks_all),
        cmocka_unit_test(deleting_the_winners_file_promotes_the_next),
        cmocka_unit_test(override_in_code_disables_a_kernel),
        cmocka_unit_test(override_in_code_disables_a_plugin_on_all_platforms),
        cmocka_unit_test(override_in_code_prefers_in_the_given_order_even_a_fallback),
        cmocka_unit_test(override_in_code_changes_a_priority),
        cmocka_unit_test(override_in_environment_acts_as_in_code),
        cmocka_unit_test(override_in_environment_wins_over_code),
        cmocka_unit_test(override_in_environment_is_not_read_when_told_not_to),
        cmocka_unit_test(override_that_names_nothing_warns),
        cmocka_unit_test(override_without_a_number_is_refused_in_code_and_warned_of_in_environment),
        cmocka_unit_test(environment_names_folders_after_those_of_code),
        cmocka_unit_test(folder_of_the_install_is_absolute_and_the_working_one_is_never_searched),
        cmocka_unit_test(default_folder_does_not_depend_on_how_the_program_is_called),
        cmocka_unit_test(path_that_is_empty_is_refused),
        cmocka_unit_test(plugin_info_tells_what_the_note_says),
        cmocka_unit_test(fifty_plugins_are_ordered_with_noop_last),
        cmocka_unit_test(number_of_threads_that_is_none_warns),
        cmocka_unit_test(registry_without_plugins_is_no_error),
    };
    return cmocka_run_group_tests_name("loader order", tests, NULL, NULL) ? 1 : 0;
}
