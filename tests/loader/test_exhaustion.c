/*
 * The k-th allocation fails, for every k until nothing fails any more; then the k-th system call
 * does, for every k and several errors. Each time there is a clean outcome: the right status with a
 * sentence, or what could not be used is told; nothing is left over, and what was there before
 * works on.
 */
#include "fixture.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim.h"

enum { ENDLESS = 5000 };

static unsigned allocation_points, call_points;

/* ---- a registry with all that can be found ------------------------------------------------- */

static const char *folder, *saved_path;
static char environment_path[2 * FIXTURE_PATH];

/* Plugins that load, that are shadowed, disabled, refused and none at all. */
static int make_world(void **state) {
    (void)state;
    folder = scratch_folder();
    static const char *const copies[][2] = {
        {"dense.so", "a.so"},       {"dense.so", "shadowed.so"},     {"good.so", "disabled.so"},
        {"plain.so", "plain.so"},   {"missing_library.so", "d.so"},  {"wrong_abi.so", "e.so"},
        {"foreign_cpu.so", "f.so"}, {"toy_platform.so", "toy_p.so"}, {"toy_kernel.so", "toy_k.so"},
        {"no_apply.so", "table.so"}};
    for (size_t i = 0; i < sizeof copies / sizeof copies[0]; i++)
        copy_file(mock_path(copies[i][0]), path_in(folder, copies[i][1]));
    copy_file(mock_path("whole_groups.so"), path_in(folder, "group.so"));
    assert_int_equal(chmod(path_in(folder, "group.so"), 0775), 0); /* so groups are looked up */
    assert_int_equal(link(path_in(folder, "a.so"), path_in(folder, "b.so")), 0);
    assert_int_equal(symlink("nowhere", path_in(folder, "dangling.so")), 0);
    write_file(path_in(folder, "script.so"), "#!/bin/sh\n", 10);
    const char *first = mock_path("pair.so"), *second = mock_path("rival.so");
    snprintf(environment_path, sizeof environment_path, "%s:%s", first, second);
    setenv("KERNELRY_PLUGIN_PATH", environment_path, 1);
    setenv("KERNELRY_DISABLE", "aardvark,good", 1);
    setenv("KERNELRY_PRIORITY", "rival=3", 1);
    return 0;
}

static kry_status open_world(kry_registry **out, log_lines *log) {
    const char *paths[] = {folder, "/absent/plugin.so", "/dev/null"};
    const char *prefer[] = {"whole_groups"}, *priority[] = {"dense=700"}, *disable[] = {"nobody"};
    kry_host host = KRY_INIT(kry_host);
    host.context = log;
    host.log = log_line;
    kry_registry_options options = closed_options(paths, 3);
    options.flags = 0;
    options.prefer = prefer;
    options.prefer_count = 1;
    options.priority = priority;
    options.priority_count = 1;
    options.disable = disable;
    options.disable_count = 1;
    options.host = &host;
    return kry_registry_open(&options, out);
}

/* What became of each file, in words that two registries can be compared by. */
static void tell(const kry_registry *opened, char *out, size_t size) {
    size_t length = 0;
    for (size_t i = 0; i < kry_registry_plugin_count(opened); i++) {
        kry_plugin_info info = KRY_INIT(kry_plugin_info);
        assert_int_equal(kry_registry_plugin(opened, i, &info), KRY_OK);
        assert_true(info.state == KRY_PLUGIN_LOADED || info.reason[0] != '\0');
        length += (size_t)snprintf(out + length, size - length, "%s %u %d\n", info.path, info.state,
                                   info.status);
        assert_in_range(length, 1, size - 1);
    }
    for (size_t i = 0; kry_registry_search_path(opened, i) != NULL; i++)
        length += (size_t)snprintf(out + length, size - length, "%s\n",
                                   kry_registry_search_path(opened, i));
    snprintf(out + length, size - length, "%s, %s, %s\n", kernel_order(opened, "cpu"),
             kernel_order(opened, "toy"), kernel_order(opened, "cuda"));
}

static char usual[16384];
static log_lines usual_log;

static void know_the_usual(void) {
    log_init(&usual_log);
    kry_registry *opened = NULL;
    assert_int_equal(open_world(&opened, &usual_log), KRY_OK);
    tell(opened, usual, sizeof usual);
    kry_registry_close(&opened);
    if (strstr(usual, "whole_groups dense zebra, toy_whole_groups toy_dense, Rival") == NULL)
        fail_msg("%s", usual);
}

/* Whether an error or a warning was logged that is not usual. */
static bool complained(const log_lines *log) {
    char line[FIXTURE_PATH];
    for (const char *at = log->text; *at != '\0'; at += strcspn(at, "\n") + 1) {
        snprintf(line, sizeof line, "%.*s", (int)strcspn(at, "\n"), at);
        if ((at[0] == '1' || at[0] == '2') && strstr(usual_log.text, line) == NULL)
            return true;
    }
    return false;
}

/* ---- one step, with every allocation or call failing in turn ------------------------------- */

typedef kry_status (*step)(void *argument);

static void assert_out_of_memory(kry_status status, unsigned k) {
    if (status != KRY_E_MEMORY)
        fail_msg("allocation %u (%s): status %d (%s)", k, shim_failed(), status,
                 kry_error_message());
    if (strstr(kry_error_message(), "memory") == NULL)
        fail_msg("allocation %u (%s): '%s'", k, shim_failed(), kry_error_message());
}

/* `after` looks at what is left when the step failed; NULL: nothing to look at. */
static void starve(const char *name, step run, void (*after)(void *), void *argument) {
    unsigned k = 1;
    for (; k < ENDLESS; k++) {
        size_t live = shim_live();
        int descriptors = shim_descriptors();
        kry_error_set(KRY_OK, "%s", "");
        shim_fail_allocation(k);
        kry_status status = run(argument);
        shim_stop();
        if (shim_failed() == NULL) {
            if (status != KRY_OK)
                fail_msg("%s: %s", name, kry_error_message());
            break;
        }
        assert_out_of_memory(status, k);
        if (shim_live() != live)
            fail_msg("%s: %zu blocks are left after allocation %u (%s) failed", name,
                     shim_live() - live, k, shim_failed());
        assert_int_equal(shim_descriptors(), descriptors);
        if (after != NULL)
            after(argument);
    }
    assert_in_range(k, 1, ENDLESS - 1);
    printf("%s: %u allocations failed in turn\n", name, k - 1);
    allocation_points += k - 1;
}

static kry_status open_step(void *argument) {
    static log_lines log;
    log_init(&log);
    kry_registry **out = argument;
    *out = NULL;
    kry_status status = open_world(out, &log);
    assert_true((status == KRY_OK) == (*out != NULL));
    return status;
}

static void opening_without_memory_is_a_clean_error(void **state) {
    (void)state;
    know_the_usual();
    kry_registry *opened;
    size_t live = shim_live();
    starve("open", open_step, NULL, &opened);
    static char found[sizeof usual];
    tell(opened, found, sizeof found);
    assert_string_equal(found, usual);
    kry_registry_close(&opened);
    assert_int_equal(shim_live(), live);
}

/* Every system call of an opening fails in turn with the error. */
static void fail_calls_of_open(int error_number) {
    unsigned k = 1;
    size_t live = shim_live();
    int descriptors = shim_descriptors();
    for (; k < ENDLESS; k++) {
        static log_lines log;
        log_init(&log);
        kry_registry *opened = NULL;
        shim_fail_call(k, error_number);
        kry_status status = open_world(&opened, &log);
        shim_stop();
        if (status == KRY_OK) {
            static char found[sizeof usual];
            tell(opened, found, sizeof found);
            if (strcmp(found, usual) != 0 && !complained(&log))
                fail_msg("call %u (%s, %s) went wrong in silence:\n%s", k, shim_failed(),
                         strerror(error_number), found);
        } else {
            if (status != KRY_E_MEMORY || error_number != ENOMEM)
                fail_msg("call %u (%s, %s): status %d (%s)", k, shim_failed(),
                         strerror(error_number), status, kry_error_message());
            assert_true(strlen(kry_error_message()) > 0);
            assert_null(opened);
        }
        kry_registry_close(&opened);
        if (shim_live() != live || shim_descriptors() != descriptors)
            fail_msg("call %u (%s, %s) left %zu blocks, %d descriptors", k, shim_failed(),
                     strerror(error_number), shim_live() - live, shim_descriptors() - descriptors);
        if (shim_failed() == NULL)
            break;
    }
    assert_in_range(k, 1, ENDLESS - 1);
    printf("open: %u system calls failed in turn, with '%s'\n", k - 1, strerror(error_number));
    call_points += k - 1;
}

static void opening_with_failing_system_calls_tells_what_it_lacks(void **state) {
    (void)state;
    know_the_usual();
    static const int errors[] = {EIO, ENOMEM, EMFILE, EINTR};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        fail_calls_of_open(errors[i]);
}

/* A plugin that the process has not loaded yet is looked at more closely; so each time another
 * copy. */
enum { FRESH = 80 };
static char fresh[FRESH][FIXTURE_PATH];
static unsigned fresh_used;

static void make_fresh(void) {
    const char *many = scratch_folder();
    char name[32];
    for (fresh_used = 0; fresh_used < FRESH; fresh_used++) {
        snprintf(name, sizeof name, "fresh%u.so", fresh_used);
        snprintf(fresh[fresh_used], FIXTURE_PATH, "%s", path_in(many, name));
        copy_file(mock_path("dense.so"), fresh[fresh_used]);
    }
    fresh_used = 0;
}

static kry_status open_fresh_step(void *argument) {
    assert_in_range(fresh_used, 0, FRESH - 1);
    const char *path = fresh[fresh_used++];
    kry_registry_options options = closed_options(&path, 1);
    return kry_registry_open(&options, argument);
}

static void first_load_of_a_plugin_fails_as_cleanly(void **state) {
    (void)state;
    size_t live = shim_live();
    int descriptors = shim_descriptors();
    kry_registry *opened = NULL;
    make_fresh();
    starve("open a new plugin", open_fresh_step, NULL, &opened);
    kry_registry_close(&opened);
    make_fresh();
    unsigned k = 1;
    for (; k < FRESH; k++) {
        kry_plugin_info info = KRY_INIT(kry_plugin_info);
        shim_fail_call(k, EIO);
        kry_status status = open_fresh_step(&opened);
        shim_stop();
        assert_int_equal(status, KRY_OK);
        assert_int_equal(kry_registry_plugin(opened, 0, &info), KRY_OK);
        if (info.state != KRY_PLUGIN_LOADED &&
            (info.state != KRY_PLUGIN_REFUSED || info.reason[0] == '\0'))
            fail_msg("call %u (%s): state %u (%s)", k, shim_failed(), info.state, info.reason);
        kry_registry_close(&opened);
        assert_int_equal(shim_live(), live);
        assert_int_equal(shim_descriptors(), descriptors);
        if (shim_failed() == NULL)
            break;
    }
    assert_in_range(k, 20, FRESH - 1);
    printf("open a new plugin: %u system calls failed in turn\n", k - 1);
    call_points += k - 1;
}

/* ---- trials in another process --------------------------------------------------------------- */

/* One that is fine, and one that ends the process where it is loaded: this one's, if ever a trial
 * were passed over. */
static const char *tried[] = {NULL, NULL};

static kry_status open_trying_step(void *argument) {
    kry_registry_options options = closed_options(tried, 2);
    options.flags |= KRY_REGISTRY_PROBE;
    options.probe_milliseconds = 60000;
    kry_registry **out = argument;
    *out = NULL;
    kry_status status = kry_registry_open(&options, out);
    assert_true((status == KRY_OK) == (*out != NULL));
    return status;
}

static void no_child_is_left(void *argument) {
    (void)argument;
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

/* What became of the fine one. */
static uint32_t look_at_tried(const kry_registry *opened) {
    kry_plugin_info fine = KRY_INIT(kry_plugin_info), deadly = KRY_INIT(kry_plugin_info);
    assert_int_equal(kry_registry_plugin(opened, 0, &fine), KRY_OK);
    assert_int_equal(kry_registry_plugin(opened, 1, &deadly), KRY_OK);
    assert_int_equal(deadly.state, KRY_PLUGIN_REFUSED);
    assert_true(deadly.reason[0] != '\0');
    assert_true(fine.state == KRY_PLUGIN_LOADED ||
                (fine.state == KRY_PLUGIN_REFUSED && fine.reason[0] != '\0'));
    return fine.state;
}

/* Every system call of an opening with trials fails in turn with the error. */
static void fail_calls_of_trials(int error_number) {
    unsigned k = 1;
    kry_registry *opened;
    size_t live = shim_live();
    int descriptors = shim_descriptors();
    for (; k < ENDLESS; k++) {
        kry_error_set(KRY_OK, "%s", "");
        shim_fail_call(k, error_number);
        kry_status status = open_trying_step(&opened);
        shim_stop();
        if (status != KRY_OK && kry_error_message()[0] == '\0')
            fail_msg("call %u (%s): status %d and no word", k, shim_failed(), status);
        if (status == KRY_OK && look_at_tried(opened) != KRY_PLUGIN_LOADED && !shim_failed())
            fail_msg("%s is not loaded", tried[0]);
        kry_registry_close(&opened);
        if (shim_live() != live || shim_descriptors() != descriptors)
            fail_msg("call %u (%s) left %zu blocks, %d descriptors", k, shim_failed(),
                     shim_live() - live, shim_descriptors() - descriptors);
        no_child_is_left(NULL);
        if (shim_failed() == NULL)
            break;
    }
    assert_in_range(k, 30, ENDLESS - 1);
    printf("open with trials: %u system calls failed in turn, with '%s'\n", k - 1,
           strerror(error_number));
    call_points += k - 1;
}

static void trial_that_cannot_be_made_lets_nothing_through(void **state) {
    (void)state;
#ifdef LOADER_CROSSED /* the system cannot start programs for this processor */
    skip();
#endif
    char fine[FIXTURE_PATH], deadly[FIXTURE_PATH];
    snprintf(fine, sizeof fine, "%s", mock_path("dense.so"));
    snprintf(deadly, sizeof deadly, "%s", mock_path("deadly/deadly_abort.so"));
    tried[0] = fine;
    tried[1] = deadly;
    kry_registry *opened;
    size_t live = shim_live();
    starve("open with trials", open_trying_step, no_child_is_left, &opened);
    assert_int_equal(look_at_tried(opened), KRY_PLUGIN_LOADED);
    kry_registry_close(&opened);
    assert_int_equal(shim_live(), live);
    fail_calls_of_trials(EIO);
    fail_calls_of_trials(EINTR);
}

static void reads_in_pieces_make_no_difference(void **state) {
    (void)state;
    static log_lines log;
    static char found[sizeof usual];
    know_the_usual();
    log_init(&log);
    kry_registry *opened = NULL;
    shim_read_in_pieces(true);
    shim_fail_call(0, 0);
    assert_int_equal(open_world(&opened, &log), KRY_OK);
    shim_stop();
    shim_read_in_pieces(false);
    assert_in_range(shim_calls(), 10000, 1000000); /* a byte each */
    tell(opened, found, sizeof found);
    assert_string_equal(found, usual);
    kry_registry_close(&opened);
}

/* ---- decisions and layers ---------------------------------------------------------------------
 */

static kry_registry *world;
static kry_device device;
static kry_linear linear;

static void open_for_layers(const char *name) {
    static log_lines log;
    log_init(&log);
    assert_int_equal(open_world(&world, &log), KRY_OK);
    device = find_device(world, name);
    linear = strcmp(name, "toy") == 0 ? toy_shard() : small_layer();
}

static kry_status decide_step(void *argument) {
    (void)argument;
    kry_decision *decision = NULL;
    kry_status status = kry_decide(world, &device, &linear, &decision);
    kry_decision_destroy(&decision);
    return status;
}

static kry_status create_step(void *argument) {
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    return kry_layer_create(world, &args, argument);
}

static void no_layer(void *argument) { assert_null(*(kry_layer **)argument); }

static kry_status prepare_step(void *argument) { return prepare_layer(argument); }

static void has_no_weights(void *argument) { assert_apply_refused(argument, KRY_E_STATE); }

static void applies_as_before(void *argument) {
    applied_layer *layer = argument;
    poison(layer);
    assert_int_equal(apply_layer(layer), KRY_OK);
    assert_true(error_of(layer) < 1e-6);
}

static kry_status save_to(applied_layer *layer, const char *content) {
    kry_save_args args = KRY_INIT(kry_save_args);
    args.path = saved_path;
    args.content = content;
    return kry_layer_save(layer->layer, &args);
}

static kry_status map_from(applied_layer *layer, const char *content) {
    kry_map_args args = KRY_INIT(kry_map_args);
    args.path = saved_path;
    args.content = content;
    return kry_layer_map(layer->layer, &args);
}

static kry_status save_step(void *argument) { return save_to(argument, "second"); }
static kry_status map_step(void *argument) { return map_from(argument, "second"); }

/* The file is the one of before, and alone. */
static void file_is_as_before(void *argument) {
    DIR *listed = opendir(path_in(folder, "saved"));
    assert_non_null(listed);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(listed)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(listed);
    assert_int_equal(count, 1);
    assert_int_equal(map_from(argument, "first"), KRY_OK);
    applies_as_before(argument);
}

static void begin_saving(applied_layer *layer) {
    static char path[FIXTURE_PATH];
    mkdir(path_in(folder, "saved"), 0700);
    snprintf(path, sizeof path, "%s", path_in(folder, "saved/layer.kry"));
    saved_path = path;
    assert_int_equal(save_to(layer, "first"), KRY_OK);
}

/* The life of a layer; on a toy its operands are the toy's. */
static void starve_layers(const char *name) {
    char step_name[64];
    size_t live = shim_live();
    open_for_layers(name);
#define STARVE(what, run, after, argument)                                                         \
    snprintf(step_name, sizeof step_name, what " on %s", name);                                    \
    starve(step_name, run, after, argument)
    STARVE("decide", decide_step, NULL, NULL);
    kry_layer *made = NULL;
    STARVE("create", create_step, no_layer, &made);
    kry_layer_destroy(&made);
    applied_layer layer;
    registry = world;
    if (strcmp(name, "toy") == 0)
        make_on_toy(&linear, &layer);
    else
        make_layer(world, name, &linear, 2, &layer);
    STARVE("prepare", prepare_step, has_no_weights, &layer);
    applies_as_before(&layer);
    STARVE("reload", prepare_step, applies_as_before, &layer);
    begin_saving(&layer);
    STARVE("save", save_step, file_is_as_before, &layer);
    STARVE("map", map_step, applies_as_before, &layer);
    applies_as_before(&layer);
#undef STARVE
    poison(&layer);
    shim_fail_allocation(1);
    kry_status status = apply_layer(&layer);
    shim_stop();
    assert_int_equal(status, KRY_OK);
    assert_true(error_of(&layer) < 1e-6);
    assert_int_equal(shim_allocations() + shim_calls(), 0); /* it does not even try */
    free_layer(&layer);
    kry_registry_close(&world);
    assert_int_equal(shim_live(), live);
}

static void layer_without_memory_fails_and_stays_as_it_was(void **state) {
    (void)state;
    starve_layers("cpu");
    starve_layers("toy");
}

/* Every system call of a step fails in turn. Where one of them does not matter the step succeeds,
 * unless it is a save: there each does. */
static void fail_calls_of(const char *name, step run, void (*after)(void *), applied_layer *layer,
                          bool each_matters) {
    unsigned k = 1;
    for (; k < ENDLESS; k++) {
        size_t live = shim_live();
        int descriptors = shim_descriptors();
        kry_error_set(KRY_OK, "%s", "");
        shim_fail_call(k, EIO);
        kry_status status = run(layer);
        shim_stop();
        if (shim_failed() == NULL)
            break;
        if (status == KRY_OK && each_matters)
            fail_msg("%s: call %u (%s) failed in silence", name, k, shim_failed());
        if (status != KRY_OK && (kry_error_message()[0] == '\0' || shim_live() != live))
            fail_msg("%s: call %u (%s): '%s', %zu blocks are left", name, k, shim_failed(),
                     kry_error_message(), shim_live() - live);
        assert_int_equal(shim_descriptors(), descriptors);
        after(layer);
    }
    assert_in_range(k, 2, ENDLESS - 1);
    printf("%s: %u system calls failed in turn\n", name, k - 1);
    call_points += k - 1;
}

static void files_of_prepared_weights_survive_failing_system_calls(void **state) {
    (void)state;
    size_t live = shim_live();
    open_for_layers("cpu");
    applied_layer layer;
    make_layer(world, "cpu", &linear, 2, &layer);
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    begin_saving(&layer);
    fail_calls_of("save", save_step, file_is_as_before, &layer, true);
    fail_calls_of("map", map_step, applies_as_before, &layer, false);
    applies_as_before(&layer);
    free_layer(&layer);
    kry_registry_close(&world);
    assert_int_equal(shim_live(), live);
}

static int forget_world(void **state) {
    (void)state;
    printf("in all: %u allocations and %u system calls failed in turn\n", allocation_points,
           call_points);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_without_memory_is_a_clean_error),
        cmocka_unit_test(opening_with_failing_system_calls_tells_what_it_lacks),
        cmocka_unit_test(first_load_of_a_plugin_fails_as_cleanly),
        cmocka_unit_test(trial_that_cannot_be_made_lets_nothing_through),
        cmocka_unit_test(reads_in_pieces_make_no_difference),
        cmocka_unit_test(layer_without_memory_fails_and_stays_as_it_was),
        cmocka_unit_test(files_of_prepared_weights_survive_failing_system_calls),
    };
    return cmocka_run_group_tests_name("loader exhaustion", tests, make_world, forget_world) ? 1
                                                                                             : 0;
}
