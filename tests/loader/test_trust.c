/*
 * Trust: a file that somebody else could have written is not loaded, nothing of it runs.
 */
#include "fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { STRANGER = 12345 };

/* A plugin (its constructor sets MOCK_RAN) in a folder in a folder, all trusted as yet. */
typedef struct place {
    const char *outer;
    char inner[FIXTURE_PATH], file[FIXTURE_PATH];
} place;

static place make_place(void) {
    place made = {.outer = scratch_folder()};
    snprintf(made.inner, sizeof made.inner, "%s", path_in(made.outer, "inner"));
    assert_int_equal(mkdir(made.inner, 0755), 0);
    snprintf(made.file, sizeof made.file, "%s", path_in(made.inner, "good.so"));
    copy_file(mock_path("good.so"), made.file);
    unsetenv("MOCK_RAN");
    return made;
}

static void assert_trusted(const place *where) {
    kry_plugin_info info;
    examine_file(where->file, &info);
    if (info.state != KRY_PLUGIN_LOADED)
        fail_msg("%s", info.reason);
}

static void assert_not_trusted(const place *where, const char *culprit) {
    kry_plugin_info info;
    unsetenv("MOCK_RAN");
    examine_file(where->file, &info);
    assert_int_equal(info.state, KRY_PLUGIN_REFUSED);
    assert_int_equal(info.status, KRY_E_TRUST);
    if (strstr(info.reason, culprit) == NULL)
        fail_msg("'%s' does not name %s", info.reason, culprit);
    assert_null(getenv("MOCK_RAN"));
}

static void file_of_ones_own_is_trusted(void **state) {
    (void)state;
    place where = make_place();
    assert_trusted(&where);
}

static void file_that_anyone_may_write_is_not_trusted(void **state) {
    (void)state;
    place where = make_place();
    assert_int_equal(chmod(where.file, 0757), 0);
    assert_not_trusted(&where, where.file);
}

static void folder_that_anyone_may_write_is_not_trusted(void **state) {
    (void)state;
    place where = make_place();
    assert_int_equal(chmod(where.inner, 0777), 0);
    assert_not_trusted(&where, where.inner);
    assert_int_equal(chmod(where.inner, 0755), 0);
    assert_int_equal(chmod(where.outer, 0777), 0);
    assert_not_trusted(&where, where.outer);
    assert_int_equal(chmod(where.outer, 0755), 0);
    assert_trusted(&where);
}

static void sticky_folder_above_is_trusted(void **state) {
    (void)state;
    place where = make_place();
    assert_int_equal(chmod(where.outer, 01777), 0);
    assert_trusted(&where);
}

static void link_to_a_file_that_is_not_trusted_is_not_trusted(void **state) {
    (void)state;
    place where = make_place(), elsewhere = make_place();
    assert_int_equal(chmod(where.inner, 0777), 0);
    assert_int_equal(unlink(elsewhere.file), 0);
    assert_int_equal(symlink(where.file, elsewhere.file), 0);
    assert_not_trusted(&elsewhere, where.inner);
}

static void file_of_a_stranger_is_not_trusted(void **state) {
    (void)state;
    if (geteuid() != 0)
        skip();
    place where = make_place();
    assert_int_equal(chown(where.file, STRANGER, 0), 0);
    assert_not_trusted(&where, "12345");
    assert_int_equal(chown(where.file, 0, 0), 0);
    assert_int_equal(chown(where.inner, STRANGER, 0), 0);
    assert_not_trusted(&where, where.inner);
    assert_int_equal(chown(where.inner, 0, 0), 0);
    assert_trusted(&where);
}

static void file_that_a_foreign_group_may_write_is_not_trusted(void **state) {
    (void)state;
    if (geteuid() != 0)
        skip();
    place where = make_place();
    assert_int_equal(chown(where.file, 0, STRANGER), 0);
    assert_trusted(&where); /* as long as the group may only read */
    assert_int_equal(chmod(where.file, 0775), 0);
    assert_not_trusted(&where, where.file);
    assert_int_equal(chown(where.file, 0, 0), 0);
    assert_int_equal(chmod(where.file, 0775), 0); /* root's own group is root */
    assert_trusted(&where);
}

/* The entries of an access-control list as the system stores it: version 2, then tag, rights and
 * id of each. */
static bool give_list(const char *path, uint16_t stranger, uint16_t mask) {
    const struct {
        uint32_t version;
        struct {
            uint16_t tag, rights;
            uint32_t id;
        } entries[5];
    } list = {2,
              {{0x01, 6, UINT32_MAX},      /* the owner */
               {0x02, stranger, STRANGER}, /* a user by number */
               {0x04, 4, UINT32_MAX},      /* the group */
               {0x10, mask, UINT32_MAX},
               {0x20, 4, UINT32_MAX}}}; /* anyone else */
    return setxattr(path, "system.posix_acl_access", &list, sizeof list, 0) == 0;
}

static void file_whose_list_lets_a_stranger_write_is_not_trusted(void **state) {
    (void)state;
    place where = make_place();
    if (!give_list(where.file, 6, 6)) {
        print_message("skipped: no access-control lists on this file system\n");
        skip();
    }
    if (geteuid() == 0) /* the group is the owner's own: only the list tells */
        assert_int_equal(chown(where.file, 0, 0), 0);
    assert_not_trusted(&where, where.file);
    assert_true(give_list(where.file, 6, 4)); /* the mask takes it away again */
    assert_trusted(&where);
    assert_true(give_list(where.file, 4, 4));
    assert_trusted(&where);
}

static void relative_path_is_checked_as_what_it_stands_for(void **state) {
    (void)state;
    place where = make_place();
    int before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(chdir(where.inner), 0);
    kry_plugin_info info;
    examine_file("good.so", &info);
    int state_found = (int)info.state;
    const char *path_found = info.path;
    assert_int_equal(state_found, KRY_PLUGIN_LOADED);
    assert_string_equal(path_found, where.file); /* whole, so that no chdir changes what it means */
    assert_int_equal(chmod(where.outer, 0777), 0);
    examine_file("./good.so", &info);
    assert_int_equal(info.status, KRY_E_TRUST);
    assert_non_null(strstr(info.reason, where.outer));
    assert_int_equal(fchdir(before), 0);
    close(before);
}

static void relaxed_trust_loads_and_warns(void **state) {
    (void)state;
    place where = make_place();
    assert_int_equal(chmod(where.inner, 0777), 0);
    static log_lines log;
    log_init(&log);
    const char *paths[1] = {where.file};
    kry_registry_options options = closed_options(paths, 1);
    options.flags |= KRY_REGISTRY_RELAX_TRUST;
    kry_registry *registry = open_options(options, &log);
    kry_plugin_info info;
    assert_true(find_plugin(registry, "good", &info));
    assert_int_equal(info.state, KRY_PLUGIN_LOADED);
    assert_int_equal(log.warnings, 1);
    assert_non_null(strstr(log.text, where.inner));
    assert_string_equal(getenv("MOCK_RAN"), "1");
    kry_registry_close(&registry);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_of_ones_own_is_trusted),
        cmocka_unit_test(file_that_anyone_may_write_is_not_trusted),
        cmocka_unit_test(folder_that_anyone_may_write_is_not_trusted),
        cmocka_unit_test(sticky_folder_above_is_trusted),
        cmocka_unit_test(link_to_a_file_that_is_not_trusted_is_not_trusted),
        cmocka_unit_test(file_of_a_stranger_is_not_trusted),
        cmocka_unit_test(file_that_a_foreign_group_may_write_is_not_trusted),
        cmocka_unit_test(file_whose_list_lets_a_stranger_write_is_not_trusted),
        cmocka_unit_test(relative_path_is_checked_as_what_it_stands_for),
        cmocka_unit_test(relaxed_trust_loads_and_warns),
    };
    return cmocka_run_group_tests_name("loader trust", tests, NULL, NULL) ? 1 : 0;
}
