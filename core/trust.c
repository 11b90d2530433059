/*
 * Whether somebody else could have written a file that is about to run in this process.
 *
 * The file and every directory above it must belong to root, to the process's user or to the
 * owner of this library, and be writable by no one else. A group that is the owner's own (the
 * private group that most systems make with each user) is the owner. A sticky directory such as
 * /tmp is fine above: nobody but an entry's owner can replace an entry of it, and the entry has
 * an owner that was checked.
 *
 * An access-control list of POSIX lets others write only where the group's bits, which then are
 * the list's mask, have a w; so a list matters only there, and there it is not interpreted.
 * docs/trust.md tells users.
 */
#include "core.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/xattr.h>
#include <unistd.h>

kry_status core_library_owner(uid_t *out) {
    char *own;
    struct stat file;
    kry_status status = core_own_path(&own);
    *out = own != NULL && stat(own, &file) == 0 ? file.st_uid : 0;
    free(own);
    return status;
}

static bool group_is_owners_own(uid_t owner, gid_t group) {
    char user_text[4096], group_text[4096];
    struct passwd user, *found_user = NULL;
    struct group entry, *found_group = NULL;
    if (getpwuid_r(owner, &user, user_text, sizeof user_text, &found_user) != 0 ||
        found_user == NULL || user.pw_gid != group)
        return false;
    if (getgrgid_r(group, &entry, group_text, sizeof group_text, &found_group) != 0 ||
        found_group == NULL || strcmp(entry.gr_name, user.pw_name) != 0)
        return false;
    for (char **member = entry.gr_mem; *member != NULL; member++)
        if (strcmp(*member, user.pw_name) != 0)
            return false;
    return true;
}

/* Whether the process's user counts. With a set-group-id program, or file capabilities, or once a
 * set-user-id program has gone back to its caller, the process has rights that its user has not:
 * then who started it must not choose the code that runs with them. */
static bool user_is_trusted(void) { return !getauxval(AT_SECURE) || geteuid() != getuid(); }

static kry_status check_owner(const char *path, uid_t owner, uid_t library) {
    if (owner == 0 || owner == library || (owner == geteuid() && user_is_trusted()))
        return KRY_OK;
    if (owner == geteuid())
        return kry_error_set(KRY_E_TRUST,
                             "is not trusted: %s belongs to user %u, who started this process and "
                             "has fewer rights than it, expected root or the owner of the "
                             "Kernelry library (KRY-C04)",
                             path, (unsigned)owner);
    return kry_error_set(KRY_E_TRUST,
                         "is not trusted: %s belongs to user %u, expected root, user %u or the "
                         "owner of the Kernelry library (KRY-C04)",
                         path, (unsigned)owner, (unsigned)geteuid());
}

static bool has_list(const char *path) {
    return getxattr(path, "system.posix_acl_access", NULL, 0) > 0;
}

static kry_status check_entry(const char *path, const struct stat *entry, uid_t library) {
    kry_status status = check_owner(path, entry->st_uid, library);
    if (status != KRY_OK)
        return status;
    if (S_ISDIR(entry->st_mode) && (entry->st_mode & S_ISVTX))
        return KRY_OK;
    if (entry->st_mode & S_IWOTH)
        return kry_error_set(KRY_E_TRUST,
                             "is not trusted: %s may be written by anyone (mode %03o) (KRY-C04)",
                             path, (unsigned)entry->st_mode & 0777);
    if ((entry->st_mode & S_IWGRP) && !group_is_owners_own(entry->st_uid, entry->st_gid))
        return kry_error_set(KRY_E_TRUST,
                             "is not trusted: %s may be written by group %u (mode %03o) (KRY-C04)",
                             path, (unsigned)entry->st_gid, (unsigned)entry->st_mode & 0777);
    if ((entry->st_mode & S_IWGRP) && has_list(path))
        return kry_error_set(KRY_E_TRUST,
                             "is not trusted: %s may be written by whom its access-control list "
                             "names (mode %03o) (KRY-C04)",
                             path, (unsigned)entry->st_mode & 0777);
    return KRY_OK;
}

static kry_status check_path(const char *real_path, const struct stat *file, uid_t library) {
    kry_status status = check_entry(real_path, file, library);
    char *directory = strdup(real_path);
    if (directory == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory while checking trust");
    while (status == KRY_OK && directory[1] != '\0') {
        char *slash = strrchr(directory, '/');
        slash[slash == directory ? 1 : 0] = '\0';
        struct stat entry;
        if (stat(directory, &entry) != 0)
            status = kry_error_set(KRY_E_TRUST, "is not trusted: %s cannot be examined: %s",
                                   directory, strerror(errno));
        else
            status = check_entry(directory, &entry, library);
    }
    free(directory);
    return status;
}

kry_status core_trust(const char *real_path, const struct stat *file, uid_t library_owner,
                      const struct host_services *relaxed, const char *done) {
    kry_status status = check_path(real_path, file, library_owner);
    if (status != KRY_E_TRUST || relaxed == NULL)
        return status;
    core_log(relaxed, KRY_LOG_WARNING, "%s %s; %s all the same, as asked", real_path,
             kry_error_message(), done);
    return KRY_OK;
}
