/*
 * Files of tests/data/elf through the loader: plugins as linkers, strip, patchelf and auditwheel
 * leave them are loaded; what was made for other machines, damaged, cut or never a shared object is
 * refused by the sentence that says why. make.sh beside the files makes them.
 */
#include "fixture.h"

#include <dirent.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <kernelry/plugin.h>

#ifdef __x86_64__
static const char ours[] = "x86_64", others[] = "aarch64";
enum { OUR_MACHINE = EM_X86_64 };
#else
static const char ours[] = "aarch64", others[] = "x86_64";
enum { OUR_MACHINE = EM_AARCH64 };
#endif

static const char *in_data(const char *folder, const char *name) {
    return path_in(path_in(LOADER_ELF, folder), name);
}

/* A copy that nobody else may write, which a checkout need not be. Files of make_elf.py are of
 * x86-64; where that is not this machine, they are made to be of it. */
static const char *copy_of(const char *from) {
    static const char *folder;
    static unsigned count;
    char name[32];
    if (folder == NULL)
        folder = scratch_folder();
    snprintf(name, sizeof name, "%u.so", count++);
    const char *path = path_in(folder, name);
    content file = read_file(from);
    Elf64_Ehdr header;
    if (strstr(from, "/none/") != NULL && file.size >= sizeof header) {
        memcpy(&header, file.bytes, sizeof header);
        if (memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_machine == EM_X86_64) {
            header.e_machine = OUR_MACHINE;
            memcpy(file.bytes, &header, sizeof header);
        }
    }
    write_file(path, file.bytes, file.size);
    free(file.bytes);
    return path;
}

static void assert_loaded(const char *path, const char *what) {
    kry_plugin_info info;
    examine_file(path, &info);
    if (info.state != KRY_PLUGIN_LOADED)
        fail_msg("%s: state %u (%s)", what, info.state, info.reason);
    assert_string_equal(info.name, "elf_sample");
    assert_string_equal(info.version, "1.0");
}

static void assert_refused(const char *path, kry_status status, const char *sentence,
                           const char *what) {
    kry_plugin_info info;
    examine_file(path, &info);
    if (info.state != KRY_PLUGIN_REFUSED || info.status != status ||
        strstr(info.reason, sentence) == NULL)
        fail_msg("%s: state %u, status %d (%s), expected status %d and '%s'", what, info.state,
                 info.status, info.reason, status, sentence);
}

/* ---- plugins that tools have rewritten ---------------------------------------------------- */

static const char *const rewritten[] = {
    "plugin.so",          "separate-code.so",   "lld.so",           "strip.so",
    "llvm-strip.so",      "sections-gone.so",   "objcopy-align.so", "patchelf-rpath.so",
    "patchelf-soname.so", "patchelf-needed.so",
};
enum { REWRITTEN = sizeof rewritten / sizeof rewritten[0] };

static void plugin_rewritten_by_a_tool_is_loaded(void **state) {
    (void)state;
    for (size_t i = 0; i < REWRITTEN; i++)
        assert_loaded(copy_of(in_data(ours, rewritten[i])), rewritten[i]);
}

static void plugin_of_the_other_machine_is_refused_whatever_wrote_it(void **state) {
    (void)state;
    for (size_t i = 0; i < REWRITTEN; i++)
        assert_refused(copy_of(in_data(others, rewritten[i])), KRY_E_FORMAT, "is for ELF machine",
                       rewritten[i]);
}

/* Its library lies beside it in the wheel, and is found from there. */
static void plugin_of_a_repaired_wheel_is_loaded_with_its_library(void **state) {
    (void)state;
#ifdef __x86_64__
    static const char *const files[] = {"elf_sample/plugin.so",
                                        "elf_sample.libs/libelf_dependency-59e56b4e.so"};
    const char *wheel = scratch_folder();
    assert_int_equal(mkdir(path_in(wheel, "elf_sample"), 0700), 0);
    assert_int_equal(mkdir(path_in(wheel, "elf_sample.libs"), 0700), 0);
    copy_file(in_data("auditwheel", files[0]), path_in(wheel, files[0]));
    assert_refused(path_in(wheel, files[0]), KRY_E_DEPENDENCY, "libelf_dependency", "no library");
    copy_file(in_data("auditwheel", files[1]), path_in(wheel, files[1]));
    assert_loaded(path_in(wheel, files[0]), "a repaired wheel");
#else
    skip();
#endif
}

/* ---- files that are no plugins here ------------------------------------------------------- */

static const struct {
    const char *name;
    const char *sentence;
    kry_status status;
} none[] = {
    {"i386.so", "is of ELF class 1, expected 2 (64-bit)", KRY_E_FORMAT},
    {"x32.so", "is of ELF class 1, expected 2 (64-bit)", KRY_E_FORMAT},
    {"arm.so", "is of ELF class 1, expected 2 (64-bit)", KRY_E_FORMAT},
    {"mips.so", "is of ELF class 1, expected 2 (64-bit)", KRY_E_FORMAT},
    {"s390x.so", "has ELF data encoding 2, this machine has 1", KRY_E_FORMAT},
    {"ppc64.so", "has ELF data encoding 2, this machine has 1", KRY_E_FORMAT},
    {"ppc64le.so", "is for ELF machine 21, this one is", KRY_E_FORMAT},
    {"riscv64.so", "is for ELF machine 243, this one is", KRY_E_FORMAT},
    {"loongarch64.so", "is for ELF machine 258, this one is", KRY_E_FORMAT},
    {"object.o", "has ELF type 1, expected 3 (shared object)", KRY_E_FORMAT},
    {"program", "has ELF type 2, expected 3 (shared object)", KRY_E_FORMAT},
    {"core", "has ELF type 4, expected 3 (shared object)", KRY_E_FORMAT},
    {"no-note.so", "without the note of a Kernelry plugin", KRY_E_FORMAT},
    {"build-id-alone.so", "without the note of a Kernelry plugin", KRY_E_FORMAT},
    {"owner-unended.so", "without the note of a Kernelry plugin", KRY_E_FORMAT},
    {"owner-longer.so", "without the note of a Kernelry plugin", KRY_E_FORMAT},
    {"other-type.so", "without the note of a Kernelry plugin", KRY_E_FORMAT},
    {"cut-head.so", "without the note of a Kernelry plugin", KRY_E_FORMAT},
    {"empty-note.so", "has a damaged note: 0 bytes are too few", KRY_E_FORMAT},
    {"cut-note.so", "has a damaged note: it ends beyond its segment", KRY_E_FORMAT},
    {"cut-owner.so", "has a damaged note: it ends beyond its segment", KRY_E_FORMAT},
    {"unended-name.so", "whose plugin name is empty, unended", KRY_E_FORMAT},
    {"unended-version.so", "whose version has no end", KRY_E_FORMAT},
    {"unended-entry.so", "whose entry symbol is no symbol", KRY_E_FORMAT},
    {"unended-platform.so", "whose platform 0 has no valid name", KRY_E_FORMAT},
    {"two-notes.so", "has two notes of ours, expected one", KRY_E_FORMAT},
    {"two-segments.so", "has two notes of ours, expected one", KRY_E_FORMAT},
    {"later-abi.so", "was built for ABI 1.", KRY_E_ABI},
    {"unknown-flags.so", "has note flags 0x1", KRY_E_ABI},
    {"sections-cut.so", "is truncated: section headers at 64", KRY_E_FORMAT},
    {"sections-beyond.so", "is truncated: section headers at 1099511627776", KRY_E_FORMAT},
    {"note-unmapped.so", "is damaged: note segment 1, ", KRY_E_FORMAT},
    {"note-elsewhere.so", "is damaged: note segment 1, ", KRY_E_FORMAT},
    {"loaded-note-unmapped.so", "is damaged: note segment 3, ", KRY_E_FORMAT},
    {"loaded-note-elsewhere.so", "is damaged: note segment 3, ", KRY_E_FORMAT},
    {"loaded-dynamic-unmapped.so", "is damaged: dynamic segment 2, ", KRY_E_FORMAT},
    {"loaded-tls-unmapped.so", "is damaged: TLS segment 3, ", KRY_E_FORMAT},
    {"pe32.dll", "is not a shared object: no ELF magic", KRY_E_FORMAT},
    {"pe64.dll", "is not a shared object: no ELF magic", KRY_E_FORMAT},
    {"macho.dylib", "is not a shared object: no ELF magic", KRY_E_FORMAT},
    {"wasm.so", "is not a shared object: no ELF magic", KRY_E_FORMAT},
    {"archive.so", "is not a shared object: no ELF magic", KRY_E_FORMAT},
    {"linker-script.so", "is not a shared object: no ELF magic", KRY_E_FORMAT},
    {"python.so", "is not a shared object: no ELF magic", KRY_E_FORMAT},
    {"page.so", "is not a shared object: no ELF magic", KRY_E_FORMAT},
    {"lfs-pointer.so", "is not a shared object: no ELF magic", KRY_E_FORMAT},
    {"gzip.so", "is not a shared object: no ELF magic", KRY_E_FORMAT},
    {"shell.so", "is not a shared object: 17 bytes are too few", KRY_E_FORMAT},
    {"empty.so", "is not a shared object: 0 bytes are too few", KRY_E_FORMAT},
    {"magic.so", "is not a shared object: 4 bytes are too few", KRY_E_FORMAT},
};
enum { NONE = sizeof none / sizeof none[0] };

static void file_that_is_no_plugin_here_is_refused_and_told_why(void **state) {
    (void)state;
    for (size_t i = 0; i < NONE; i++)
        assert_refused(copy_of(in_data("none", none[i].name)), none[i].status, none[i].sentence,
                       none[i].name);
}

static void plugin_whose_note_a_tool_removed_is_refused(void **state) {
    (void)state;
    assert_refused(copy_of(in_data(ours, "note-removed.so")), KRY_E_FORMAT,
                   "without the note of a Kernelry plugin", "note-removed.so");
}

/* No file of the set lies there untested. */
static void every_file_of_the_set_is_listed(void **state) {
    (void)state;
    DIR *directory = opendir(path_in(LOADER_ELF, "none"));
    assert_non_null(directory);
    size_t count = 0;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(directory);
    assert_int_equal(count, NONE);
}

/* In a folder they are in nobody's way. */
static void files_of_every_kind_stop_no_good_plugin(void **state) {
    (void)state;
    const char *all = scratch_folder();
    for (size_t i = 0; i < NONE; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.so", none[i].name);
        copy_file(copy_of(in_data("none", none[i].name)), path_in(all, name));
    }
    copy_file(in_data(ours, "strip.so"), path_in(all, "zzz.so"));
    kry_registry *registry = open_options(closed_options(&all, 1), NULL);
    kry_plugin_info info;
    assert_int_equal(kry_registry_plugin_count(registry), NONE + 1);
    assert_true(find_plugin(registry, "elf_sample", &info));
    assert_int_equal(info.state, KRY_PLUGIN_LOADED);
    kry_registry_close(&registry);
}

/* ---- truncation --------------------------------------------------------------------------- */

/* Cut at every byte: refused, or whole as far as anything of it is mapped or promised. */
static void assert_every_truncation_is_refused(const char *name) {
    content file = read_file(in_data(ours, name));
    const char *path = path_in(scratch_folder(), "cut.so");
    for (size_t size = 0; size < file.size; size++) {
        write_file(path, file.bytes, size);
        assert_refused(path, KRY_E_FORMAT,
                       size < sizeof(Elf64_Ehdr) ? "bytes are too few" : "is truncated", name);
    }
    write_file(path, file.bytes, file.size);
    assert_loaded(path, name);
    free(file.bytes);
}

static void plugin_cut_at_any_byte_is_refused(void **state) {
    (void)state;
    assert_every_truncation_is_refused("strip.so");
}

static void plugin_without_section_headers_cut_at_any_byte_is_refused(void **state) {
    (void)state;
    assert_every_truncation_is_refused("sections-gone.so");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plugin_rewritten_by_a_tool_is_loaded),
        cmocka_unit_test(plugin_of_the_other_machine_is_refused_whatever_wrote_it),
        cmocka_unit_test(plugin_of_a_repaired_wheel_is_loaded_with_its_library),
        cmocka_unit_test(file_that_is_no_plugin_here_is_refused_and_told_why),
        cmocka_unit_test(plugin_whose_note_a_tool_removed_is_refused),
        cmocka_unit_test(every_file_of_the_set_is_listed),
        cmocka_unit_test(files_of_every_kind_stop_no_good_plugin),
        cmocka_unit_test(plugin_cut_at_any_byte_is_refused),
        cmocka_unit_test(plugin_without_section_headers_cut_at_any_byte_is_refused),
    };
    return cmocka_run_group_tests_name("loader elf", tests, NULL, NULL) ? 1 : 0;
}
