/*
 * Whose files are trusted in an install of somebody else's and in a process with more rights than
 * its user has: real ones, made as root by changing owners, set-user-id and set-group-id bits and
 * file capabilities. As another user these tests are skipped, aloud.
 */
#include "fixture.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* CALLER starts programs and has no name; OTHER is somebody else again. */
enum { CALLER = 12345, OTHER = 23456 };

/* A program with the library inside, and a plugin, each in a folder of its own below one that
 * everybody may enter. */
typedef struct tree {
    char root[64];
    char program[128], folder[128], plugin[160];
} tree;

static tree made;

static int make_tree(void **state) {
    (void)state;
    if (geteuid() != 0)
        return 0;
    snprintf(made.root, sizeof made.root, "/tmp/kernelry-trust.XXXXXX");
    assert_non_null(mkdtemp(made.root));
    snprintf(made.program, sizeof made.program, "%s/load_one", made.root);
    snprintf(made.folder, sizeof made.folder, "%s/plugins", made.root);
    snprintf(made.plugin, sizeof made.plugin, "%s/good.so", made.folder);
    assert_int_equal(chmod(made.root, 0755), 0);
    assert_int_equal(mkdir(made.folder, 0755), 0);
    copy_file(LOADER_LOAD_ONE, made.program);
    copy_file(mock_path("good.so"), made.plugin);
    return 0;
}

static int remove_tree(void **state) {
    (void)state;
    if (geteuid() != 0)
        return 0;
    unlink(made.plugin);
    unlink(made.program);
    rmdir(made.folder);
    rmdir(made.root);
    return 0;
}

static void need_root(void) {
    if (geteuid() != 0) {
        print_message("skipped: needs root, to give files to others\n");
        skip();
    }
}

static _Noreturn void become(uid_t user, const char *path, const char *variable) {
    char flags[16], assignment[256];
    uint32_t wanted =
        KRY_REGISTRY_NO_DEFAULT_DIR | (variable == NULL ? KRY_REGISTRY_NO_ENVIRONMENT : 0);
    snprintf(flags, sizeof flags, "%u", wanted);
    snprintf(assignment, sizeof assignment, "%s=%s", variable != NULL ? variable : "UNUSED", path);
    char *arguments[] = {made.program, flags, variable == NULL ? made.plugin : NULL, NULL};
    char *environment[] = {assignment, NULL};
    if (setgroups(0, NULL) == 0 && setresgid(user, user, user) == 0 &&
        setresuid(user, user, user) == 0)
        execve(made.program, arguments, environment);
    _exit(127);
}

/* Run load_one as a user, with the plugin as its argument, or as a variable's value when one is
 * named. Returns what it prints. */
static const char *run_as(uid_t user, const char *variable) {
    static char out[4096];
    int ends[2], ended;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        become(user, made.plugin, variable);
    }
    close(ends[1]);
    size_t size = 0;
    for (ssize_t got; (got = read(ends[0], out + size, sizeof out - 1 - size)) > 0;)
        size += (size_t)got;
    out[size] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &ended, 0), child);
    if (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0)
        fail_msg("%s ended with %#x: %s", made.program, ended, out);
    return out;
}

static void assert_loads(const char *told) {
    if (strstr(told, "good.so: state 1, status 0") == NULL)
        fail_msg("expected a loaded plugin, found '%s'", told);
}

static void assert_refused(const char *told, const char *why) {
    if (strstr(told, "state 2, status 6") == NULL || strstr(told, why) == NULL)
        fail_msg("expected a plugin that is not trusted, '%s', found '%s'", why, told);
}

/* The program's privileges need a file system that grants them. */
static void need_privileges(void) {
    if (strstr(run_as(CALLER, "KERNELRY_PLUGIN_PATH"), "secure 1") == NULL) {
        print_message("skipped: this file system grants no privileges (nosuid)\n");
        skip();
    }
}

static void give(const char *path, uid_t user, gid_t group, mode_t mode) {
    assert_int_equal(chown(path, user, group), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void give_tree(uid_t user, gid_t group, mode_t mode) {
    give(made.root, user, group, mode);
    give(made.folder, user, group, mode);
    give(made.program, user, group, mode);
    give(made.plugin, user, group, mode & 0666);
}

static int put_back(void **state) {
    (void)state;
    if (geteuid() != 0)
        return 0;
    give_tree(0, 0, 0755);
    removexattr(made.program, "security.capability");
    return 0;
}

/* ---- installs of somebody else ------------------------------------------------------------- */

static void install_of_a_third_user_trusts_that_user(void **state) {
    (void)state;
    need_root();
    give_tree(OTHER, OTHER, 0755);
    assert_loads(run_as(0, NULL));      /* root runs a library of theirs already */
    assert_loads(run_as(CALLER, NULL)); /* and so does anyone else who starts it */
    give(made.plugin, CALLER, CALLER, 0644);
    assert_refused(run_as(0, NULL), "belongs to user 12345");
    give(made.program, 0, 0, 0755);
    give(made.plugin, OTHER, OTHER, 0644);
    assert_refused(run_as(0, NULL), "belongs to user 23456"); /* no owner of the library any more */
}

/* A user whose group has the user's name and nobody else in it, as most systems make them. */
static const struct passwd *user_with_own_group(void) {
    const struct passwd *user;
    setpwent();
    while ((user = getpwent()) != NULL) {
        const struct group *group = getgrgid(user->pw_gid);
        if (user->pw_uid != 0 && group != NULL && strcmp(group->gr_name, user->pw_name) == 0 &&
            group->gr_mem[0] == NULL)
            break;
    }
    endpwent();
    return user;
}

/* What umask 002 makes: pip, conda and git then leave trees that the group may write. */
static void tree_of_an_own_group_is_trusted_and_of_another_not(void **state) {
    (void)state;
    need_root();
    const struct passwd *user = user_with_own_group();
    if (user == NULL) {
        print_message("skipped: no user here has a group of the same name\n");
        skip();
    }
    uid_t owner = user->pw_uid;
    gid_t group = user->pw_gid;
    give_tree(owner, group, 0775);
    assert_loads(run_as(owner, NULL));
    assert_loads(run_as(0, NULL));
    assert_loads(run_as(CALLER, NULL));
    give(made.folder, owner, OTHER, 0775); /* a project's group, as a set-group-id folder makes */
    assert_refused(run_as(owner, NULL), "may be written by group 23456");
    give(made.folder, owner, OTHER, 0755);
    give(made.plugin, owner, OTHER, 0664);
    assert_refused(run_as(owner, NULL), "may be written by group 23456");
    give_tree(OTHER, OTHER,
              0775); /* the same numbers are no names: nobody tells whose group it is */
    assert_refused(run_as(OTHER, NULL), "may be written by group 23456");
}

/* ---- raised privileges ----------------------------------------------------------------------- */

static void set_user_id_ignores_the_environment(void **state) {
    (void)state;
    need_root();
    assert_loads(run_as(CALLER, "KERNELRY_PLUGIN_PATH"));
    give(made.program, 0, 0, 04755);
    need_privileges();
    const char *variables[] = {"KERNELRY_PLUGIN_PATH", "KERNELRY_PLUGIN_DIR"};
    for (int i = 0; i < 2; i++) {
        const char *told = run_as(CALLER, variables[i]);
        assert_non_null(strstr(told, "secure 1, open 0"));
        assert_null(strstr(told, "good.so"));
    }
    assert_loads(run_as(CALLER, NULL)); /* what the program itself names is taken */
}

static void set_user_id_does_not_trust_its_caller(void **state) {
    (void)state;
    need_root();
    give(made.program, 0, 0, 04755);
    need_privileges();
    give(made.plugin, CALLER, CALLER, 0644);
    assert_refused(run_as(CALLER, NULL), "belongs to user 12345");
    give(made.program, OTHER, OTHER, 04755); /* of a user who is not root */
    assert_refused(run_as(CALLER, NULL), "belongs to user 12345");
    give(made.plugin, OTHER, OTHER, 0644);
    assert_loads(run_as(CALLER, NULL));
}

/* Such a process has its caller's user id, and rights that the caller has not. */
static void set_group_id_does_not_trust_its_caller(void **state) {
    (void)state;
    need_root();
    give(made.plugin, CALLER, CALLER, 0644);
    assert_loads(run_as(CALLER, NULL)); /* one's own file, with one's own rights */
    give(made.program, 0, 0, 02755);
    need_privileges();
    assert_refused(run_as(CALLER, NULL), "who started this process and has fewer rights than it");
    give(made.plugin, 0, 0, 0644);
    assert_loads(run_as(CALLER, NULL));
}

static void capabilities_do_not_trust_their_caller(void **state) {
    (void)state;
    need_root();
    /* As capabilities(7) stores them, revision 2: effective, cap_net_bind_service permitted. */
    const uint32_t capability[5] = {0x02000001, 1U << 10, 0, 0, 0};
    give(made.plugin, CALLER, CALLER, 0644);
    assert_loads(run_as(CALLER, NULL));
    if (setxattr(made.program, "security.capability", capability, sizeof capability, 0) != 0) {
        print_message("skipped: no file capabilities here: %s\n", strerror(errno));
        skip();
    }
    need_privileges();
    assert_refused(run_as(CALLER, NULL), "who started this process and has fewer rights than it");
    assert_null(strstr(run_as(CALLER, "KERNELRY_PLUGIN_PATH"), "good.so"));
}

int main(void) {
#ifdef LOADER_CROSSED
    puts("skipped: the system cannot start programs for this processor");
    return 77;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(install_of_a_third_user_trusts_that_user, put_back),
        cmocka_unit_test_teardown(tree_of_an_own_group_is_trusted_and_of_another_not, put_back),
        cmocka_unit_test_teardown(set_user_id_ignores_the_environment, put_back),
        cmocka_unit_test_teardown(set_user_id_does_not_trust_its_caller, put_back),
        cmocka_unit_test_teardown(set_group_id_does_not_trust_its_caller, put_back),
        cmocka_unit_test_teardown(capabilities_do_not_trust_their_caller, put_back),
    };
    return cmocka_run_group_tests_name("loader privileges", tests, make_tree, remove_tree) ? 1 : 0;
}
