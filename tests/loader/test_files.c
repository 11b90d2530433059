/*
 * Files that are no plugins, damaged plugins, and plugins for somebody else: each refused with
 * a sentence, nothing of it run, and never to anybody else's harm.
 */
#include "fixture.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <kernelry/plugin.h>

static const char *folder;
static content good; /* the bytes of a plugin whose constructor sets MOCK_RAN */
static size_t note_at;

static int read_good(void **state) {
    (void)state;
    folder = scratch_folder();
    good = read_file(mock_path("good.so"));
    note_at = find_note(&good);
    return 0;
}

static int forget_good(void **state) {
    (void)state;
    free(good.bytes);
    return 0;
}

/* The file as a plugin named outright; nothing of it may run. */
static void assert_refused_file(const char *path, kry_status expected, const char *what) {
    kry_plugin_info info;
    unsetenv("MOCK_RAN");
    examine_file(path, &info);
    if (info.state != KRY_PLUGIN_REFUSED || info.status != expected)
        fail_msg("%s: state %u, status %d, expected %d (%s)", what, info.state, info.status,
                 expected, info.reason);
    if (info.reason[0] == '\0')
        fail_msg("%s: no reason", what);
    assert_int_equal(info.named_outright, 1);
    if (getenv("MOCK_RAN") != NULL)
        fail_msg("%s: its constructor ran", what);
}

static const char *write_bytes(const void *bytes, size_t size) {
    static unsigned count;
    char name[32];
    snprintf(name, sizeof name, "file%u.so", count++);
    const char *path = path_in(folder, name);
    write_file(path, bytes, size);
    return path;
}

/* A copy of the good plugin with some bytes replaced. */
static const char *write_patched(size_t at, const void *bytes, size_t size) {
    content copy = {malloc(good.size), good.size};
    assert_non_null(copy.bytes);
    assert_true(at + size <= good.size);
    memcpy(copy.bytes, good.bytes, good.size);
    memcpy(copy.bytes + at, bytes, size);
    const char *path = write_bytes(copy.bytes, copy.size);
    free(copy.bytes);
    return path;
}

#define PATCH(type, at, ...)                                                                       \
    write_patched((at), (const type[]){__VA_ARGS__}, sizeof((const type[]){__VA_ARGS__}))
#define IN_NOTE(member) (note_at + offsetof(kry_note, member))

static void good_plugin_is_loaded_and_runs(void **state) {
    (void)state;
    kry_plugin_info info;
    unsetenv("MOCK_RAN");
    examine_file(write_bytes(good.bytes, good.size), &info);
    assert_int_equal(info.state, KRY_PLUGIN_LOADED);
    assert_string_equal(getenv("MOCK_RAN"), "1");
}

static void file_that_is_not_there_is_refused(void **state) {
    (void)state;
    assert_refused_file(path_in(folder, "absent.so"), KRY_E_IO, "an absent file");
}

static void file_that_is_no_shared_object_is_refused(void **state) {
    (void)state;
    assert_refused_file(write_bytes("", 0), KRY_E_FORMAT, "an empty file");
    assert_refused_file(write_bytes("\177", 1), KRY_E_FORMAT, "a file of one byte");
    assert_refused_file(write_bytes("#!/bin/sh\nexit 1\n", 17), KRY_E_FORMAT, "a script");
    char zeros[4096] = "";
    assert_refused_file(write_bytes(zeros, sizeof zeros), KRY_E_FORMAT, "zeros");
    char magic[4096] = ELFMAG;
    assert_refused_file(write_bytes(magic, sizeof magic), KRY_E_FORMAT, "a bare magic");
}

static void shared_object_without_a_note_is_refused_when_named_outright(void **state) {
    (void)state;
    assert_refused_file(mock_path("plain.so"), KRY_E_FORMAT, "a plain shared object");
}

static void shared_object_without_a_note_is_passed_over_in_a_folder(void **state) {
    (void)state;
    const char *mixed = scratch_folder();
    copy_file(mock_path("plain.so"), path_in(mixed, "plain.so"));
    copy_file(mock_path("dense.so"), path_in(mixed, "zz.so"));
    write_file(path_in(mixed, "README.txt"), "text", 4);
    kry_registry *registry = open_options(closed_options(&mixed, 1), NULL);
    assert_int_equal(kry_registry_plugin_count(registry), 2);
    kry_plugin_info info;
    assert_true(find_plugin(registry, "plain.so", &info));
    assert_int_equal(info.state, KRY_PLUGIN_NOT_A_PLUGIN);
    assert_int_equal(info.status, KRY_OK);
    assert_int_equal(info.named_outright, 0);
    assert_string_equal(kernel_order(registry, "cpu"), "dense");
    kry_registry_close(&registry);
}

static void file_for_another_machine_is_refused(void **state) {
    (void)state;
    assert_refused_file(PATCH(uint16_t, offsetof(Elf64_Ehdr, e_machine), EM_S390), KRY_E_FORMAT,
                        "another machine");
    assert_refused_file(PATCH(uint8_t, EI_CLASS, ELFCLASS32), KRY_E_FORMAT, "32 bits");
    assert_refused_file(PATCH(uint8_t, EI_DATA, ELFDATA2MSB), KRY_E_FORMAT, "big-endian");
    assert_refused_file(PATCH(uint16_t, offsetof(Elf64_Ehdr, e_type), ET_EXEC), KRY_E_FORMAT,
                        "a program");
    assert_refused_file(PATCH(uint16_t, offsetof(Elf64_Ehdr, e_type), ET_CORE), KRY_E_FORMAT,
                        "a core file");
}

static void file_with_a_damaged_header_is_refused(void **state) {
    (void)state;
    assert_refused_file(PATCH(uint64_t, offsetof(Elf64_Ehdr, e_phoff), good.size), KRY_E_FORMAT,
                        "program headers at the end");
    assert_refused_file(PATCH(uint64_t, offsetof(Elf64_Ehdr, e_phoff), UINT64_MAX - 8),
                        KRY_E_FORMAT, "program headers beyond all");
    assert_refused_file(PATCH(uint16_t, offsetof(Elf64_Ehdr, e_phnum), UINT16_MAX), KRY_E_FORMAT,
                        "65535 program headers");
    assert_refused_file(PATCH(uint16_t, offsetof(Elf64_Ehdr, e_phnum), 0), KRY_E_FORMAT,
                        "no program headers");
    assert_refused_file(PATCH(uint16_t, offsetof(Elf64_Ehdr, e_phentsize), 1), KRY_E_FORMAT,
                        "program headers of one byte");
}

/* Where the program header of a segment of that type is; `nth` of them from 0. */
static size_t find_segment(uint32_t type, int nth) {
    Elf64_Ehdr header;
    memcpy(&header, good.bytes, sizeof header);
    for (size_t i = 0; i < header.e_phnum; i++) {
        size_t at = header.e_phoff + i * sizeof(Elf64_Phdr);
        Elf64_Phdr segment;
        memcpy(&segment, good.bytes + at, sizeof segment);
        bool ours = type != PT_NOTE ||
                    (note_at >= segment.p_offset && note_at < segment.p_offset + segment.p_filesz);
        if (segment.p_type == type && ours && nth-- == 0)
            return at;
    }
    fail_msg("no such segment");
    return 0;
}

static void file_with_a_damaged_segment_is_refused(void **state) {
    (void)state;
    static const uint64_t wrong[] = {UINT64_MAX, UINT64_MAX / 2, INT64_MAX, UINT64_C(1) << 40};
    for (size_t i = 0; i < 4; i++) {
        size_t at = find_segment(PT_NOTE, 0);
        assert_refused_file(PATCH(uint64_t, at + offsetof(Elf64_Phdr, p_offset), wrong[i]),
                            KRY_E_FORMAT, "a note segment elsewhere");
        assert_refused_file(PATCH(uint64_t, at + offsetof(Elf64_Phdr, p_filesz), wrong[i]),
                            KRY_E_FORMAT, "a note segment too long");
        at = find_segment(PT_LOAD, 1);
        assert_refused_file(PATCH(uint64_t, at + offsetof(Elf64_Phdr, p_offset), wrong[i]),
                            KRY_E_FORMAT, "a loaded segment elsewhere");
        assert_refused_file(PATCH(uint64_t, at + offsetof(Elf64_Phdr, p_filesz), wrong[i]),
                            KRY_E_FORMAT, "a loaded segment too long");
    }
}

static void file_with_a_damaged_note_is_refused(void **state) {
    (void)state;
    char unended[96];
    memset(unended, 'a', sizeof unended);
    const size_t head = note_at - offsetof(kry_elf_note, note);
    assert_refused_file(PATCH(uint32_t, head + 4, UINT32_MAX), KRY_E_FORMAT, "a huge note");
    assert_refused_file(PATCH(uint32_t, head + 4, 8), KRY_E_FORMAT, "a note of 8 bytes");
    assert_refused_file(PATCH(uint32_t, head, UINT32_MAX), KRY_E_FORMAT, "a huge owner");
    assert_refused_file(PATCH(uint32_t, IN_NOTE(note_size), 64), KRY_E_FORMAT, "a small note");
    assert_refused_file(PATCH(uint32_t, IN_NOTE(note_size), UINT32_MAX), KRY_E_FORMAT,
                        "a note that says it is huge");
    assert_refused_file(write_patched(IN_NOTE(name), unended, 64), KRY_E_FORMAT, "an unended name");
    assert_refused_file(write_patched(IN_NOTE(name), "", 1), KRY_E_FORMAT, "no name");
    assert_refused_file(write_patched(IN_NOTE(name), "../x", 5), KRY_E_FORMAT, "a path as name");
    assert_refused_file(write_patched(IN_NOTE(name), "a\nb", 4), KRY_E_FORMAT, "a line break");
    assert_refused_file(write_patched(IN_NOTE(version), unended, 32), KRY_E_FORMAT,
                        "an unended version");
    assert_refused_file(write_patched(IN_NOTE(entry), unended, 96), KRY_E_FORMAT,
                        "an unended entry");
    assert_refused_file(write_patched(IN_NOTE(entry), "", 1), KRY_E_FORMAT, "no entry");
    assert_refused_file(write_patched(IN_NOTE(platforms), unended, 32), KRY_E_FORMAT,
                        "an unended platform");
    assert_refused_file(write_patched(IN_NOTE(platforms), "", 1), KRY_E_FORMAT, "no platform");
}

static void plugin_of_another_abi_is_refused_before_it_runs(void **state) {
    (void)state;
    assert_refused_file(mock_path("wrong_abi.so"), KRY_E_ABI, "ABI 77"); /* else it aborts */
    const char *path = PATCH(uint32_t, IN_NOTE(abi_major), KRY_ABI_MAJOR + 1);
    assert_refused_file(path, KRY_E_ABI, "the next ABI");
    kry_plugin_info info;
    examine_file(path, &info);
    assert_non_null(strstr(info.reason, "ABI 1."));
}

static void plugin_of_a_later_minor_is_taken(void **state) {
    (void)state;
    kry_plugin_info info;
    examine_file(PATCH(uint32_t, IN_NOTE(abi_minor), KRY_ABI_MINOR + 9), &info);
    assert_int_equal(info.state, KRY_PLUGIN_LOADED);
    assert_int_equal(info.abi_minor, KRY_ABI_MINOR + 9);
}

static void plugin_without_the_entry_it_names_is_refused(void **state) {
    (void)state;
    kry_plugin_info info;
    examine_file(write_patched(IN_NOTE(entry), "kry_plugin_none", 16), &info);
    assert_int_equal(info.state, KRY_PLUGIN_REFUSED);
    assert_int_equal(info.status, KRY_E_DEPENDENCY);
    assert_non_null(strstr(info.reason, "kry_plugin_none"));
}

static void plugin_called_otherwise_by_its_table_is_refused(void **state) {
    (void)state;
    kry_plugin_info info;
    examine_file(write_patched(IN_NOTE(name), "evil", 5), &info);
    assert_int_equal(info.state, KRY_PLUGIN_REFUSED);
    assert_int_equal(info.status, KRY_E_PLUGIN);
    assert_non_null(strstr(info.reason, "evil"));
    assert_non_null(strstr(info.reason, "good"));
}

static void plugin_with_missing_library_or_symbol_names_it(void **state) {
    (void)state;
    kry_plugin_info info;
    examine_file(mock_path("missing_library.so"), &info);
    assert_int_equal(info.state, KRY_PLUGIN_REFUSED);
    assert_int_equal(info.status, KRY_E_DEPENDENCY);
    assert_non_null(strstr(info.reason, "libmock_absent.so"));
    examine_file(mock_path("missing_symbol.so"), &info);
    assert_int_equal(info.state, KRY_PLUGIN_REFUSED);
    assert_int_equal(info.status, KRY_E_DEPENDENCY);
    assert_non_null(strstr(info.reason, "mock_symbol_of_nobody"));
}

static void plugin_for_other_processors_is_refused_before_it_runs(void **state) {
    (void)state;
    assert_refused_file(mock_path("foreign_cpu.so"), KRY_E_UNSUPPORTED, "another architecture");
    unsetenv("MOCK_RAN");
    setenv("KERNELRY_CPU_MASK", "none", 1);
    const char *paths[1] = {mock_path("native_cpu.so")};
    kry_registry_options options = closed_options(paths, 1);
    options.flags &= ~(uint32_t)KRY_REGISTRY_NO_ENVIRONMENT;
    kry_registry *registry = open_options(options, NULL);
    unsetenv("KERNELRY_CPU_MASK");
    kry_plugin_info info;
    assert_true(find_plugin(registry, "native_cpu", &info));
    assert_int_equal(info.state, KRY_PLUGIN_REFUSED);
    assert_int_equal(info.status, KRY_E_UNSUPPORTED);
    char names[64];
    kry_cpu_features_format(info.cpu_features, names, sizeof names);
    assert_non_null(strstr(info.reason, names));
    assert_null(getenv("MOCK_RAN"));
    kry_registry_close(&registry);

    /* And the mask in code: every feature but the plugin's. */
    options = closed_options(paths, 1);
    options.cpu_mask = ~info.cpu_features;
    registry = open_options(options, NULL);
    assert_true(find_plugin(registry, "native_cpu", &info));
    assert_int_equal(info.state, KRY_PLUGIN_REFUSED);
    assert_null(getenv("MOCK_RAN"));
    kry_registry_close(&registry);
}

static void plugin_that_is_disabled_does_not_run(void **state) {
    (void)state;
    unsetenv("MOCK_RAN");
    const char *paths[1] = {write_bytes(good.bytes, good.size)};
    const char *disable[] = {"good"};
    kry_registry_options options = closed_options(paths, 1);
    options.disable = disable;
    options.disable_count = 1;
    kry_registry *registry = open_options(options, NULL);
    kry_plugin_info info;
    assert_true(find_plugin(registry, "good", &info));
    assert_int_equal(info.state, KRY_PLUGIN_DISABLED);
    assert_int_equal(info.status, KRY_OK);
    assert_null(getenv("MOCK_RAN"));
    kry_registry_close(&registry);
}

static void plugin_compiled_with_control_flow_protection_is_loaded(void **state) {
    (void)state;
#ifdef __x86_64__
    kry_plugin_info info; /* has another note, .note.gnu.property, aligned to 8 */
    examine_file(mock_path("protected.so"), &info);
    if (info.state != KRY_PLUGIN_LOADED)
        fail_msg("%s", info.reason);
#else
    skip();
#endif
}

/* The end of the last segment: what the loader maps or reads ends there. */
static size_t end_of_segments(void) {
    Elf64_Ehdr header;
    memcpy(&header, good.bytes, sizeof header);
    size_t end = header.e_phoff + header.e_phnum * sizeof(Elf64_Phdr);
    for (size_t i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        memcpy(&segment, good.bytes + header.e_phoff + i * sizeof segment, sizeof segment);
        if (segment.p_type != PT_NULL && segment.p_offset + segment.p_filesz > end)
            end = segment.p_offset + segment.p_filesz;
    }
    return end;
}

static void assert_truncation_is_refused_or_whole(size_t size, size_t whole) {
    kry_plugin_info info;
    examine_file(write_bytes(good.bytes, size), &info);
    if (info.state == KRY_PLUGIN_LOADED && size >= whole)
        return;
    if (info.state != KRY_PLUGIN_REFUSED || info.status != KRY_E_FORMAT || info.reason[0] == '\0')
        fail_msg("cut at %zu of %zu: state %u, status %d (%s)", size, good.size, info.state,
                 info.status, info.reason);
}

static void plugin_truncated_anywhere_is_refused(void **state) {
    (void)state;
    size_t whole = end_of_segments();
    assert_in_range(whole, note_at + sizeof(kry_note) + 1, good.size);
    for (size_t size = 0; size < good.size; size += 64)
        assert_truncation_is_refused_or_whole(size, whole);
    for (size_t size = note_at - 16; size < note_at + sizeof(kry_note); size += 7)
        assert_truncation_is_refused_or_whole(size, whole);
    assert_truncation_is_refused_or_whole(note_at + sizeof(kry_note), whole);
    assert_truncation_is_refused_or_whole(whole - 1, whole);
    assert_truncation_is_refused_or_whole(whole, whole);
    assert_truncation_is_refused_or_whole(good.size - 1, whole);
}

static void note_of_any_content_does_no_harm(void **state) {
    (void)state;
    for (int i = 0; i < 300; i++) {
        content copy = {malloc(good.size), good.size};
        assert_non_null(copy.bytes);
        memcpy(copy.bytes, good.bytes, good.size);
        for (int changes = 1 + (int)(draw() >> 8 & 3); changes > 0; changes--) {
            size_t at = note_at - offsetof(kry_elf_note, note) +
                        (draw() >> 8) % (offsetof(kry_elf_note, note) + sizeof(kry_note));
            copy.bytes[at] = (unsigned char)(draw() >> 16);
        }
        kry_plugin_info info;
        examine_file(write_bytes(copy.bytes, copy.size), &info);
        assert_true(info.state == KRY_PLUGIN_LOADED || info.reason[0] != '\0');
        free(copy.bytes);
    }
}

static void thing_that_is_no_file_is_passed_over_without_waiting(void **state) {
    (void)state;
    const char *odd = scratch_folder();
    assert_int_equal(mkfifo(path_in(odd, "fifo.so"), 0700), 0);
    assert_int_equal(mkdir(path_in(odd, "folder.so"), 0700), 0);
    assert_int_equal(symlink("nowhere", path_in(odd, "dangling.so")), 0);
    assert_int_equal(symlink("loop.so", path_in(odd, "loop.so")), 0);
    copy_file(mock_path("dense.so"), path_in(odd, "x.so"));
    alarm(20);
    kry_registry *registry = open_options(closed_options(&odd, 1), NULL);
    assert_string_equal(kernel_order(registry, "cpu"), "dense");
    kry_registry_close(&registry);
    kry_plugin_info info;
    examine_file(path_in(odd, "fifo.so"), &info);
    assert_int_equal(info.state, KRY_PLUGIN_REFUSED);
    assert_non_null(strstr(info.reason, "regular file"));
    alarm(0);
}

static void plugin_by_several_paths_is_one_plugin(void **state) {
    (void)state;
    const char *links = scratch_folder();
    copy_file(mock_path("dense.so"), path_in(links, "a.so"));
    assert_int_equal(symlink("a.so", path_in(links, "b.so")), 0);
    assert_int_equal(link(path_in(links, "a.so"), path_in(links, "c.so")), 0);
    const char *paths[3] = {links, path_in(links, "c.so"), links};
    kry_registry *registry = open_options(closed_options(paths, 3), NULL);
    assert_string_equal(kernel_order(registry, "cpu"), "dense");
    assert_int_equal(kry_registry_plugin_count(registry), 1);
    kry_plugin_info info = KRY_INIT(kry_plugin_info);
    assert_int_equal(kry_registry_plugin(registry, 0, &info), KRY_OK);
    assert_int_equal(info.state, KRY_PLUGIN_LOADED);
    kry_registry_close(&registry);
}

static void second_plugin_of_a_name_is_shadowed_and_does_not_run(void **state) {
    (void)state;
    const char *two = scratch_folder();
    write_file(path_in(two, "a.so"), good.bytes, good.size);
    write_file(path_in(two, "b.so"), good.bytes, good.size);
    kry_registry *registry = open_options(closed_options(&two, 1), NULL);
    assert_string_equal(kernel_order(registry, "cpu"), "good");
    kry_plugin_info info;
    assert_true(find_plugin(registry, "a.so", &info));
    assert_int_equal(info.state, KRY_PLUGIN_LOADED);
    assert_true(find_plugin(registry, "b.so", &info));
    assert_int_equal(info.state, KRY_PLUGIN_SHADOWED);
    assert_int_equal(info.status, KRY_OK);
    assert_non_null(strstr(info.reason, "a.so"));
    kry_registry_close(&registry);
}

static void bad_plugins_stop_no_good_one(void **state) {
    (void)state;
    const char *all = scratch_folder();
    static const char *const bad[] = {"wrong_abi.so",       "foreign_cpu.so", "missing_symbol.so",
                                      "missing_library.so", "plain.so",       "entry_null.so"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        copy_file(mock_path(bad[i]), path_in(all, bad[i]));
    write_file(path_in(all, "cut.so"), good.bytes, good.size / 2);
    write_file(path_in(all, "empty.so"), "", 0);
    copy_file(mock_path("dense.so"), path_in(all, "dense.so"));
    copy_file(mock_path("whole_groups.so"), path_in(all, "zzz.so"));
    static log_lines log;
    log_init(&log);
    kry_registry *registry = open_options(closed_options(&all, 1), &log);
    assert_string_equal(kernel_order(registry, "cpu"), "whole_groups dense");
    assert_int_equal(kry_registry_plugin_count(registry), 10);
    /* plain.so is nobody's business, and that foreign_cpu.so is for another processor no news. */
    assert_int_equal(log.warnings, 6);
    assert_non_null(strstr(log.text, "cut.so"));
    kry_registry_close(&registry);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_plugin_is_loaded_and_runs),
        cmocka_unit_test(file_that_is_not_there_is_refused),
        cmocka_unit_test(file_that_is_no_shared_object_is_refused),
        cmocka_unit_test(shared_object_without_a_note_is_refused_when_named_outright),
        cmocka_unit_test(shared_object_without_a_note_is_passed_over_in_a_folder),
        cmocka_unit_test(file_for_another_machine_is_refused),
        cmocka_unit_test(file_with_a_damaged_header_is_refused),
        cmocka_unit_test(file_with_a_damaged_segment_is_refused),
        cmocka_unit_test(file_with_a_damaged_note_is_refused),
        cmocka_unit_test(plugin_of_another_abi_is_refused_before_it_runs),
        cmocka_unit_test(plugin_of_a_later_minor_is_taken),
        cmocka_unit_test(plugin_without_the_entry_it_names_is_refused),
        cmocka_unit_test(plugin_called_otherwise_by_its_table_is_refused),
        cmocka_unit_test(plugin_with_missing_library_or_symbol_names_it),
        cmocka_unit_test(plugin_for_other_processors_is_refused_before_it_runs),
        cmocka_unit_test(plugin_that_is_disabled_does_not_run),
        cmocka_unit_test(plugin_compiled_with_control_flow_protection_is_loaded),
        cmocka_unit_test(plugin_truncated_anywhere_is_refused),
        cmocka_unit_test(note_of_any_content_does_no_harm),
        cmocka_unit_test(thing_that_is_no_file_is_passed_over_without_waiting),
        cmocka_unit_test(plugin_by_several_paths_is_one_plugin),
        cmocka_unit_test(second_plugin_of_a_name_is_shadowed_and_does_not_run),
        cmocka_unit_test(bad_plugins_stop_no_good_one),
    };
    return cmocka_run_group_tests_name("loader files", tests, read_good, forget_good) ? 1 : 0;
}
