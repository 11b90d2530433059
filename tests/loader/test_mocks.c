/*
 * Plugins and folders as nobody should make them, one mock a fault: each refused with what is
 * wrong, or taken for what it is, and never to the harm of another.
 */
#include "fixture.h"

#include <elf.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <kernelry/plugin.h>

#include "mock.h"

/* ---- nothing of a refused file runs -------------------------------------------------------- */

/* A copy of aborting.so, whose constructor aborts, with some bytes replaced. */
static const char *damage(size_t at, const void *bytes, size_t size) {
    content file = read_file(mock_path("deadly/aborting.so"));
    assert_true(at + size <= file.size);
    memcpy(file.bytes + at, bytes, size);
    const char *path = path_in(scratch_folder(), "aborting.so");
    write_file(path, file.bytes, file.size);
    free(file.bytes);
    return path;
}

static size_t note_of_aborting(void) {
    content file = read_file(mock_path("deadly/aborting.so"));
    size_t at = find_note(&file);
    free(file.bytes);
    return at;
}

static void assert_refused(const char *path, kry_status expected, const char *told) {
    kry_plugin_info info;
    examine_file(path, &info);
    if (info.state != KRY_PLUGIN_REFUSED || info.status != expected ||
        strstr(info.reason, told) == NULL)
        fail_msg("state %u, status %d, expected %d: '%s' does not tell '%s'", info.state,
                 info.status, expected, info.reason, told);
}

static void constructor_of_a_refused_file_does_not_run(void **state) {
    (void)state;
    const size_t note = note_of_aborting(), head = note - offsetof(kry_elf_note, note);
    static const uint32_t next_major = KRY_ABI_MAJOR + 1, other_type = 77, flags = 1;
    static const uint16_t machine = EM_S390;
    static const unsigned char class32 = ELFCLASS32, big = ELFDATA2MSB, zero = 0;
    static const uint32_t every_cpu = UINT32_MAX;
    const struct {
        size_t at;
        const void *bytes;
        size_t size;
        kry_status expected;
        const char *told;
    } cases[] = {
        {head + 12, "Vulkanry", 8, KRY_E_FORMAT, "without the note"},
        {head + 8, &other_type, 4, KRY_E_FORMAT, "without the note"},
        {note + offsetof(kry_note, abi_major), &next_major, 4, KRY_E_ABI, "ABI 1."},
        {note + offsetof(kry_note, flags), &flags, 4, KRY_E_ABI, "flags 0x1"},
        {note + offsetof(kry_note, cpu_features_low), &every_cpu, 4, KRY_E_UNSUPPORTED, "KRY-C06"},
        {note + offsetof(kry_note, name), &zero, 1, KRY_E_FORMAT, "name"},
        {note + offsetof(kry_note, name), "caf\xe9", 5, KRY_E_FORMAT, "name"},
        {note + offsetof(kry_note, version), "\x1b[2J", 5, KRY_E_FORMAT, "version"},
        {note + offsetof(kry_note, version), "1.0\xff", 5, KRY_E_FORMAT, "version"},
        {note + offsetof(kry_note, entry), "kry plugin", 11, KRY_E_FORMAT, "entry"},
        {note + offsetof(kry_note, platforms), "c\xffu", 4, KRY_E_FORMAT, "platform"},
        {offsetof(Elf64_Ehdr, e_machine), &machine, 2, KRY_E_FORMAT, "machine"},
        {EI_CLASS, &class32, 1, KRY_E_FORMAT, "class"},
        {EI_DATA, &big, 1, KRY_E_FORMAT, "encoding"},
        {0, "MZ\x90", 4, KRY_E_FORMAT, "magic"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(damage(cases[i].at, cases[i].bytes, cases[i].size), cases[i].expected,
                       cases[i].told);
    const char *open_to_all = damage(0, "", 0);
    assert_int_equal(chmod(open_to_all, 0777), 0);
    assert_refused(open_to_all, KRY_E_TRUST, "KRY-C04");
}

static void constructor_of_a_file_that_is_left_out_does_not_run(void **state) {
    (void)state;
    const char *disable[] = {"aborting"}, *both = scratch_folder();
    const char *paths[] = {mock_path("deadly/aborting.so")};
    kry_registry_options options = closed_options(paths, 1);
    options.disable = disable;
    options.disable_count = 1;
    kry_registry *opened = open_options(options, NULL);
    assert_int_equal(kry_registry_kernel_count(opened, NULL), 0);
    kry_registry_close(&opened);

    /* Shadowed by another of its name: a copy of good.so that calls itself so would do, but the
     * first of two copies runs. So the first is disabled, which stays first. */
    copy_file(paths[0], path_in(both, "a.so"));
    copy_file(paths[0], path_in(both, "b.so"));
    options.plugin_paths = &both;
    opened = open_options(options, NULL);
    kry_plugin_info info;
    assert_true(find_plugin(opened, "b.so", &info));
    assert_int_equal(info.state, KRY_PLUGIN_SHADOWED);
    kry_registry_close(&opened);
}

/* ---- other minors, other sizes ------------------------------------------------------------- */

static void assert_computes(const char *name) {
    kry_registry *opened = open_mocks(NULL, name, NULL);
    kry_linear linear = small_layer();
    applied_layer layer;
    make_layer(opened, "cpu", &linear, 2, &layer);
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_true(error_of(&layer) < 1e-6);
    free_layer(&layer);
    kry_registry_close(&opened);
}

static void plugin_of_another_minor_works_and_its_late_fields_are_not_read(void **state) {
    (void)state;
    kry_plugin_info info;
    examine_file(mock_path("earlier_minor.so"), &info);
    assert_int_equal(info.state, KRY_PLUGIN_LOADED);
    assert_int_equal(info.abi_minor, 0);
    assert_computes("earlier_minor.so");
    examine_file(mock_path("later_minor.so"), &info); /* reading beyond our structs would fault */
    assert_int_equal(info.state, KRY_PLUGIN_LOADED);
    assert_int_equal(info.abi_minor, 99);
    assert_computes("later_minor.so");
    assert_computes("huge_structs.so");
}

static void assert_refused_table(const char *name, const char *told) {
    char file[64];
    snprintf(file, sizeof file, "%s.so", name);
    assert_refused(mock_path(file), KRY_E_PLUGIN, told);
    kry_registry *opened = open_mocks(NULL, file, "dense.so", NULL);
    assert_string_equal(kernel_order(opened, "cpu"), "dense");
    kry_registry_close(&opened);
}

static void table_of_wrong_sizes_is_refused(void **state) {
    (void)state;
    assert_refused_table("zero_plugin", "its table has 0 bytes");
    assert_refused_table("almost_plugin", "its table has 55 bytes, expected at least 56");
    assert_refused_table("almost_kernel", "a kernel that is NULL or too small");
    assert_refused_table("almost_functions", "or its table is too small");
    assert_refused_table("countless_kernels", "counts 18446744073709551615 kernels");
    assert_refused_table("small_operations", "too small");
    assert_refused_table("null_operations", "NULL");
}

static void table_with_wrong_names_is_refused(void **state) {
    (void)state;
    static const char *const names[][2] = {
        {"empty_kernel_name", "without a valid name"},
        {"long_kernel_name", "without a valid name"},
        {"no_utf8_kernel_name", "without a valid name"},
        {"empty_layout", "kernel empty_layout lacks"},
        {"long_layout", "kernel long_layout lacks"},
        {"no_utf8_layout", "kernel no_utf8_layout lacks"},
        {"long_operation", "kernel long_operation lacks"},
        {"empty_platform", "which the note does not name"},
        {"long_platform", "which the note does not name"},
        {"long_table_name", "its note 'long_table_name'"},
        {"no_summary", "kernel no_summary lacks"},
        {"nameless_operations", "operations of a platform"},
        {"empty_operations", "operations of a platform"},
        {"long_operations", "operations of a platform"},
        {"foreign_operations", "operations of a platform"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_refused_table(names[i][0], names[i][1]);
    kry_plugin_info info;
    examine_file(mock_path("long_platform.so"), &info);
    assert_in_range(strlen(info.reason), 1, 300); /* 4 KiB of a name would be no sentence */
}

static void platform_whose_operations_are_all_null_harms_nobody(void **state) {
    (void)state;
    assert_computes("bare_operations.so");
    assert_computes("long_summary.so");
}

/* ---- odd answers ------------------------------------------------------------------------------
 */

/* A layer on the CPU cannot be made, for this reason; the error's message tells more. */
static void expect_no_layer(kry_registry *opened, const kry_linear *linear, kry_status expected) {
    kry_device device = find_device(opened, "cpu");
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = linear;
    kry_layer *layer = NULL;
    assert_int_equal(kry_layer_create(opened, &args, &layer), expected);
}

static void answer_that_is_odd_is_a_yes_or_a_no(void **state) {
    (void)state;
    kry_registry *opened = open_mocks(NULL, "babbling.so", "preaching.so", "wavering.so", NULL);
    kry_linear linear = small_layer();
    kry_decision *decision = decide(opened, "cpu", &linear);
    char text[64];
    kry_candidate candidate = candidate_of(decision, "babbling");
    assert_int_equal(candidate.verdict, KRY_VERDICT_REFUSES);
    assert_int_equal(candidate.refusal->struct_size, sizeof(kry_refusal));
    assert_in_range(kry_refusal_format(candidate.refusal, text, sizeof text), 1, 200);
    candidate = candidate_of(decision, "preaching");
    assert_int_equal(candidate.verdict, KRY_VERDICT_REFUSES);
    assert_true(kry_refusal_format(candidate.refusal, text, sizeof text) >= sizeof text);
    assert_int_equal(strlen(text), sizeof text - 1);
    candidate = candidate_of(decision, "wavering");
    assert_int_equal(candidate.verdict, KRY_VERDICT_CHOSEN);
    assert_int_equal(candidate.padding_bytes, INT64_MAX);
    assert_null(candidate.refusal);
    kry_decision_destroy(&decision);
    kry_registry_close(&opened);

    opened = open_mocks(NULL, "babbling.so", "preaching.so", NULL);
    expect_no_layer(opened, &linear, KRY_E_NO_KERNEL);
    assert_non_null(strstr(kry_error_message(), "babbling/babbling: unknown"));
    assert_non_null(strstr(kry_error_message(), "preaching/preaching: aaaa"));
    kry_registry_close(&opened);
}

/* ---- text that is no line of a log ---- */

static void assert_clean(const char *text) {
    static const char clean[] = "caf\xc3\xa9 ?[31mred? ??2J ? kernelry: error: forged";
    if (strstr(text, clean) == NULL)
        fail_msg("'%s' lacks '%s'", text, clean);
}

static void controls_in_a_refusal_reach_no_log(void **state) {
    (void)state;
    kry_registry *opened = open_mocks(NULL, "forging.so", NULL);
    kry_linear linear = small_layer();
    kry_decision *decision = decide(opened, "cpu", &linear);
    char text[512];
    kry_candidate candidate = candidate_of(decision, "forging");
    size_t length = kry_refusal_format(candidate.refusal, text, sizeof text);
    assert_int_equal(length, strlen(text));
    assert_clean(text);
    for (size_t size = 1; size <= length; size++) { /* cut inside a character too */
        memset(text, '\xff', sizeof text);
        assert_int_equal(kry_refusal_format(candidate.refusal, text, size), length);
        assert_int_equal(strlen(text), size - 1);
        assert_null(strpbrk(text, "\x1b\a\n\xff"));
    }
    kry_decision_destroy(&decision);
    expect_no_layer(opened, &linear, KRY_E_NO_KERNEL);
    assert_clean(kry_error_message());
    kry_registry_close(&opened);
}

static void controls_in_an_error_or_a_log_line_of_a_plugin_are_cleaned(void **state) {
    (void)state;
    log_lines log;
    log_init(&log);
    kry_registry *opened = open_mocks(&log, "opening_forging.so", NULL);
    kry_linear linear = small_layer();
    expect_no_layer(opened, &linear, KRY_E_DEPENDENCY);
    assert_clean(kry_error_message());
    assert_clean(log.text);
    kry_registry_close(&opened);
}

/* ---- a kernel that takes its time ---------------------------------------------------------------
 */

static mock_gate gate;

/* A thread that decides about a shape, or makes a layer, in a registry. */
typedef struct errand {
    kry_registry *registry;
    kry_device device;
    kry_linear linear;
    kry_status status;
    pthread_t thread;
} errand;

static void *decide_once(void *argument) {
    errand *own = argument;
    kry_decision *decision = NULL;
    own->status = kry_decide(own->registry, &own->device, &own->linear, &decision);
    kry_decision_destroy(&decision);
    return NULL;
}

static void *make_once(void *argument) {
    errand *own = argument;
    kry_layer *layer = NULL;
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &own->device;
    args.linear = &own->linear;
    own->status = kry_layer_create(own->registry, &args, &layer);
    kry_layer_destroy(&layer);
    return NULL;
}

static void dispatch(errand *own, kry_registry *in, void *(*body)(void *), int64_t in_features) {
    own->registry = in;
    own->device = find_device(in, "cpu");
    own->linear = describe(in_features, 8, -1, KRY_WEIGHT_U4B8, KRY_TYPE_F32);
    assert_int_equal(pthread_create(&own->thread, NULL, body, own), 0);
}

static void await(errand *own) {
    assert_int_equal(pthread_join(own->thread, NULL), 0);
    assert_int_equal(own->status, KRY_OK);
}

/* No call returns from the gate until it is opened: whoever waits for one would wait forever, and
 * the alarm ends the test. */
static void shut_gate(void) {
    char address[32];
    atomic_store(&gate.waiting, 0);
    atomic_store(&gate.open, 0);
    snprintf(address, sizeof address, "%p", (void *)&gate);
    setenv("MOCK_GATE", address, 1);
    alarm(120);
}

static void await_at_gate(int calls) {
    while (atomic_load(&gate.waiting) < calls)
        usleep(1000);
}

static int leave_gate_open(void **state) {
    (void)state;
    atomic_store(&gate.open, 1);
    unsetenv("MOCK_GATE");
    alarm(0);
    return 0;
}

static void kernel_that_answers_late_makes_nobody_else_wait(void **state) {
    (void)state;
    kry_registry *shared = open_mocks(NULL, "waiting.so", "dense.so", NULL);
    errand slow, others[4];
    shut_gate();
    dispatch(&slow, shared, decide_once, MOCK_WAITS_FOR);
    await_at_gate(1);
    for (int i = 0; i < 4; i++)
        dispatch(&others[i], shared, i % 2 == 0 ? decide_once : make_once, 64 + i);
    for (int i = 0; i < 4; i++)
        await(&others[i]);
    kry_registry *another = open_mocks(NULL, "waiting.so", "whole_groups.so", NULL);
    dispatch(&others[0], another, make_once, 64);
    await(&others[0]);
    kry_registry_close(&another);
    assert_int_equal(atomic_load(&gate.waiting), 1);
    atomic_store(&gate.open, 1);
    await(&slow);
    kry_registry_close(&shared);
}

static void kernel_that_opens_its_device_late_makes_nobody_else_wait(void **state) {
    (void)state;
    kry_registry *shared = open_mocks(NULL, "opening_slowly.so", "dense.so", NULL);
    errand slow[2], other;
    shut_gate();
    dispatch(&slow[0], shared, make_once, 64);
    await_at_gate(1);
    dispatch(&slow[1], shared, make_once, 64); /* of the same kernel: waits for the first to open */
    kry_layer *layer = NULL;
    kry_device device = find_device(shared, "cpu");
    kry_linear linear = small_layer();
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    args.kernel = "dense";
    assert_int_equal(kry_layer_create(shared, &args, &layer), KRY_OK);
    kry_layer_destroy(&layer);
    dispatch(&other, shared, decide_once, 64);
    await(&other);
    atomic_store(&gate.open, 1);
    await(&slow[0]);
    await(&slow[1]);
    assert_int_equal(atomic_load(&gate.waiting), 1); /* opened once for both */
    kry_registry_close(&shared);
}

/* ---- a plugin's initialisers
 * ---------------------------------------------------------------------- */

static kry_registry *before; /* opened before the plugin that calls */
static bool called;

/* Opening needs no plugin here: the system's loader lets one thread at a time load. */
static void *use_everything(void *argument) {
    errand *own = argument;
    kry_registry_options options = closed_options(NULL, 0);
    kry_registry *empty = NULL;
    decide_once(own);
    if (own->status == KRY_OK)
        make_once(own);
    if (own->status == KRY_OK)
        own->status = kry_registry_open(&options, &empty);
    kry_registry_close(&empty);
    return NULL;
}

/* Runs inside dlopen. */
static void call_from_constructor(void) {
    errand other;
    dispatch(&other, before, use_everything, 64);
    await(&other);
    /* And the same thread opens a registry while it opens one. */
    kry_registry *nested = open_mocks(NULL, "whole_groups.so", NULL);
    kry_registry_close(&nested);
    called = true;
}

static void no_lock_is_held_while_initialisers_run(void **state) {
    (void)state;
    void (*function)(void) = call_from_constructor;
    void *address;
    char text[32];
    memcpy(&address, &function, sizeof address);
    snprintf(text, sizeof text, "%p", address);
    setenv("MOCK_CALL", text, 1);
    before = open_mocks(NULL, "dense.so", NULL);
    alarm(120);
    kry_registry *opened = open_mocks(NULL, "calling.so", NULL);
    alarm(0);
    unsetenv("MOCK_CALL");
    assert_true(called);
    assert_string_equal(kernel_order(opened, "cpu"), "good");
    kry_registry_close(&opened);
    kry_registry_close(&before);
}

/* ---- between two opens
 * ------------------------------------------------------------------------------ */

static void file_replaced_after_it_was_loaded_is_refused_until_the_process_ends(void **state) {
    (void)state;
    const char *place = scratch_folder();
    const char *file = path_in(place, "dense.so"), *next = path_in(place, "next");
    copy_file(mock_path("dense.so"), file);
    kry_registry *first = open_options(closed_options(&file, 1), NULL);
    copy_file(mock_path("dense.so"), next); /* the same bytes: only identity tells */
    assert_int_equal(rename(next, file), 0);
    assert_refused(file, KRY_E_TRUST, "this process loaded another file from this path before");
    kry_linear linear = small_layer();
    kry_decision *decision = decide(first, "cpu", &linear);
    assert_string_equal(chosen(decision), "dense");
    kry_decision_destroy(&decision);
    kry_registry_close(&first);
}

static void file_removed_after_it_was_loaded_is_gone_from_the_next_registry(void **state) {
    (void)state;
    const char *place = scratch_folder();
    copy_file(mock_path("dense.so"), path_in(place, "dense.so"));
    copy_file(mock_path("padded.so"), path_in(place, "padded.so"));
    kry_registry *first = open_options(closed_options(&place, 1), NULL);
    assert_int_equal(unlink(path_in(place, "padded.so")), 0);
    kry_registry *second = open_options(closed_options(&place, 1), NULL);
    assert_string_equal(kernel_order(first, "cpu"), "padded dense");
    assert_string_equal(kernel_order(second, "cpu"), "dense");
    kry_registry_close(&second);
    kry_linear linear = small_layer();
    applied_layer layer;
    make_layer(first, "cpu", &linear, 2, &layer); /* its code is still there */
    assert_int_equal(prepare_layer(&layer), KRY_OK);
    assert_int_equal(apply_layer(&layer), KRY_OK);
    assert_true(error_of(&layer) < 1e-6);
    free_layer(&layer);
    kry_registry_close(&first);
}

static void file_that_appears_after_an_open_is_found_by_the_next(void **state) {
    (void)state;
    const char *place = scratch_folder();
    kry_registry *first = open_options(closed_options(&place, 1), NULL);
    copy_file(mock_path("dense.so"), path_in(place, "dense.so"));
    kry_registry *second = open_options(closed_options(&place, 1), NULL);
    assert_int_equal(kry_registry_kernel_count(first, NULL), 0);
    assert_string_equal(kernel_order(second, "cpu"), "dense");
    kry_registry_close(&second);
    kry_registry_close(&first);
}

/* ---- folders
 * -------------------------------------------------------------------------------------------- */

/* Of the processor, so that what else runs on the machine does not count. */
static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* `count` empty files, or links to a file, beside one plugin that works. */
static double time_crowded(int count, const char *link_to) {
    const char *crowd = scratch_folder();
    char name[32];
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "file%05d.so", i);
        if (link_to != NULL)
            assert_int_equal(link(link_to, path_in(crowd, name)), 0);
        else
            assert_int_equal(mknod(path_in(crowd, name), S_IFREG | 0644, 0), 0);
    }
    copy_file(mock_path("dense.so"), path_in(crowd, "zzz.so"));
    double begin = seconds();
    kry_registry *opened = open_options(closed_options(&crowd, 1), NULL);
    double taken = seconds() - begin;
    assert_string_equal(kernel_order(opened, "cpu"), "dense");
    assert_int_equal(kry_registry_plugin_count(opened), link_to != NULL ? 2 : count + 1);
    kry_registry_close(&opened);
    return taken;
}

/* What is measured is printed; the limit is for what goes wrong by a hundred times, also on a slow
 * machine under a sanitizer or valgrind. */
static void folder_of_ten_thousand_files_opens_quickly(void **state) {
    (void)state;
    enum { CROWD = 10000 };
    char one[FIXTURE_PATH];
    snprintf(one, sizeof one, "%s", path_in(scratch_folder(), "one.so"));
    copy_file(mock_path("plain.so"), one);
    double different = time_crowded(CROWD, NULL);
    double same = time_crowded(CROWD / 10, one);
    printf("%d files that are no plugins: %.0f ms; %d names of one file: %.0f ms\n", CROWD,
           different * 1e3, CROWD / 10, same * 1e3);
    assert_true(different < 30 && same < 30);
}

static void loops_of_links_end(void **state) {
    (void)state;
    const char *maze = scratch_folder();
    assert_int_equal(symlink("b.so", path_in(maze, "a.so")), 0);
    assert_int_equal(symlink("a.so", path_in(maze, "b.so")), 0);
    assert_int_equal(symlink(".", path_in(maze, "here.so")), 0); /* a folder inside itself */
    assert_int_equal(symlink("/dev/zero", path_in(maze, "zero.so")), 0);
    copy_file(mock_path("dense.so"), path_in(maze, "dense.so"));
    const char *paths[] = {maze, path_in(maze, "here.so/here.so/here.so"), path_in(maze, "a.so")};
    kry_registry *opened = open_options(closed_options(paths, 3), NULL);
    assert_string_equal(kernel_order(opened, "cpu"), "dense");
    kry_plugin_info info;
    assert_true(find_plugin(opened, "a.so", &info));
    assert_int_equal(info.status, KRY_E_IO);
    assert_non_null(strstr(info.reason, "symbolic links"));
    kry_registry_close(&opened);
}

static void socket_is_refused_by_name_and_passed_over_in_a_folder(void **state) {
    (void)state;
    const char *place = scratch_folder();
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket.so"};
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int end = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(here >= 0 && end >= 0);
    /* By a relative name: addresses of sockets are short. */
    assert_int_equal(chdir(place), 0);
    int bound = bind(end, (const struct sockaddr *)&address, sizeof address);
    assert_int_equal(fchdir(here), 0);
    close(here);
    assert_int_equal(bound, 0);
    assert_refused(path_in(place, "socket.so"), KRY_E_FORMAT, "regular file");
    kry_registry *opened = open_options(closed_options(&place, 1), NULL);
    assert_int_equal(kry_registry_plugin_count(opened), 0);
    kry_registry_close(&opened);
    close(end);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constructor_of_a_refused_file_does_not_run),
        cmocka_unit_test(constructor_of_a_file_that_is_left_out_does_not_run),
        cmocka_unit_test(plugin_of_another_minor_works_and_its_late_fields_are_not_read),
        cmocka_unit_test(table_of_wrong_sizes_is_refused),
        cmocka_unit_test(table_with_wrong_names_is_refused),
        cmocka_unit_test(platform_whose_operations_are_all_null_harms_nobody),
        cmocka_unit_test(answer_that_is_odd_is_a_yes_or_a_no),
        cmocka_unit_test(controls_in_a_refusal_reach_no_log),
        cmocka_unit_test(controls_in_an_error_or_a_log_line_of_a_plugin_are_cleaned),
        cmocka_unit_test_teardown(kernel_that_answers_late_makes_nobody_else_wait, leave_gate_open),
        cmocka_unit_test_teardown(kernel_that_opens_its_device_late_makes_nobody_else_wait,
                                  leave_gate_open),
        cmocka_unit_test(no_lock_is_held_while_initialisers_run),
        cmocka_unit_test(file_replaced_after_it_was_loaded_is_refused_until_the_process_ends),
        cmocka_unit_test(file_removed_after_it_was_loaded_is_gone_from_the_next_registry),
        cmocka_unit_test(file_that_appears_after_an_open_is_found_by_the_next),
        cmocka_unit_test(folder_of_ten_thousand_files_opens_quickly),
        cmocka_unit_test(loops_of_links_end),
        cmocka_unit_test(socket_is_refused_by_name_and_passed_over_in_a_folder),
    };
    return cmocka_run_group_tests_name("loader mocks", tests, NULL, NULL) ? 1 : 0;
}
