/*
 * The wrappers. The linker turns the core's malloc into __wrap_malloc and our __real_malloc into
 * libc's (ld's manual, --wrap). What allocates inside libc, such as realpath, is an allocation
 * and a system call at once; its block is followed like any other.
 */
#include "shim.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A name that begins so is the linker's, not the compiler's. */
#define REAL(type, name, ...)                                                                      \
    type __real_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__)

/* ---- what is to fail ------------------------------------------------------------------- */

enum { FOLLOWED = 4096, OPENED = 64 };

static struct {
    bool watching;
    unsigned allocation, call; /* that fail, counted from 1 */
    int error_number;
    unsigned allocations, calls;
    const char *failed;
    const void *live[FOLLOWED];
    size_t live_count;
    bool raised, pieces, interrupted;
    bool dlopen_failed; /* so dlerror has something to tell */
    unsigned opens;
    char opened[OPENED][256];
} shim;

void (*shim_before_dlopen)(const char *path);
void (*shim_after_dlopen)(const char *path);

static void begin(unsigned allocation, unsigned call, int error_number) {
    shim.watching = true;
    shim.allocation = allocation;
    shim.call = call;
    shim.error_number = error_number;
    shim.allocations = shim.calls = 0;
    shim.failed = NULL;
    shim.opens = 0;
}

void shim_fail_allocation(unsigned k) { begin(k, 0, 0); }
void shim_fail_call(unsigned k, int error_number) { begin(0, k, error_number); }
void shim_stop(void) { shim.watching = false; }
const char *shim_failed(void) { return shim.failed; }
unsigned shim_allocations(void) { return shim.allocations; }
unsigned shim_calls(void) { return shim.calls; }
size_t shim_live(void) { return shim.live_count; }
void shim_read_in_pieces(bool pieces) { shim.pieces = pieces; }
void shim_raise_privileges(bool raised) { shim.raised = raised; }

static bool allocation_fails(const char *name) {
    if (!shim.watching || ++shim.allocations != shim.allocation)
        return false;
    shim.failed = name;
    errno = ENOMEM;
    return true;
}

static bool call_fails(const char *name) {
    if (!shim.watching || ++shim.calls != shim.call)
        return false;
    shim.failed = name;
    errno = shim.error_number;
    return true;
}

/* ---- what is left over ----------------------------------------------------------------- */

static void *follow(void *block) {
    if (!shim.watching || block == NULL)
        return block;
    if (shim.live_count == FOLLOWED) {
        fputs("shim: too many blocks to follow\n", stderr);
        abort();
    }
    shim.live[shim.live_count++] = block;
    return block;
}

/* Blocks of before the watch, and of functions that are not wrapped, are none of ours. */
static bool forget(const void *block) {
    for (size_t i = shim.live_count; i > 0; i--)
        if (shim.live[i - 1] == block) {
            shim.live[i - 1] = shim.live[--shim.live_count];
            return true;
        }
    return false;
}

int shim_descriptors(void) {
    int count = 0;
    for (int i = 0; i < 1024; i++)
        count += fcntl(i, F_GETFD) >= 0;
    return count;
}

unsigned shim_opens_of(const char *path) {
    unsigned count = 0;
    for (unsigned i = 0; i < shim.opens && i < OPENED; i++)
        count += strcmp(shim.opened[i], path) == 0;
    return count;
}

/* ---- memory ---------------------------------------------------------------------------- */

REAL(void *, malloc, size_t bytes) {
    return allocation_fails("malloc") ? NULL : follow(__real_malloc(bytes));
}
REAL(void *, calloc, size_t count, size_t bytes) {
    return allocation_fails("calloc") ? NULL : follow(__real_calloc(count, bytes));
}
REAL(void *, realloc, void *block, size_t bytes) {
    if (allocation_fails("realloc"))
        return NULL;
    bool ours = forget(block);
    void *moved = __real_realloc(block, bytes);
    return ours || block == NULL ? follow(moved) : moved;
}
REAL(int, posix_memalign, void **out, size_t alignment, size_t bytes) {
    if (allocation_fails("posix_memalign"))
        return ENOMEM;
    int error = __real_posix_memalign(out, alignment, bytes);
    if (error == 0)
        follow(*out);
    return error;
}
REAL(void, free, void *block) {
    forget(block);
    __real_free(block);
}
REAL(char *, strdup, const char *text) {
    return allocation_fails("strdup") ? NULL : follow(__real_strdup(text));
}
REAL(char *, strndup, const char *text, size_t length) {
    return allocation_fails("strndup") ? NULL : follow(__real_strndup(text, length));
}
REAL(int, vasprintf, char **out, const char *format, va_list arguments) {
    if (allocation_fails("vasprintf"))
        return -1;
    int length = __real_vasprintf(out, format, arguments);
    if (length >= 0)
        follow(*out);
    return length;
}
REAL(char *, realpath, const char *path, char *out) {
    if (allocation_fails("realpath") || call_fails("realpath"))
        return NULL;
    return follow(__real_realpath(path, out));
}

/* With optimisation getline is __getdelim. The first of a file counts for all: the list of what is
 * mapped has hundreds of lines. */
REAL(ssize_t, __getdelim, char **line, size_t *room, int end, FILE *stream) {
    if (*line == NULL && (allocation_fails("getline") || call_fails("getline")))
        return -1;
    char *before = *line;
    ssize_t length = __real___getdelim(line, room, end, stream);
    if (*line != before) {
        forget(before);
        follow(*line);
    }
    return length;
}
ssize_t __wrap_getline(char **line, size_t *room, FILE *stream);
ssize_t __wrap_getline(char **line, size_t *room, FILE *stream) {
    return __wrap___getdelim(line, room, '\n', stream);
}

/* ---- files ----------------------------------------------------------------------------- */

REAL(int, scandir, const char *path, struct dirent ***out, int (*filter)(const struct dirent *),
     int (*compare)(const struct dirent **, const struct dirent **)) {
    if (allocation_fails("scandir") || call_fails("scandir"))
        return -1;
    int count = __real_scandir(path, out, filter, compare);
    for (int i = 0; i < count; i++)
        follow((*out)[i]);
    if (count >= 0)
        follow(*out);
    return count;
}
REAL(int, stat, const char *path, struct stat *out) {
    return call_fails("stat") ? -1 : __real_stat(path, out);
}
REAL(int, fstat, int file, struct stat *out) {
    return call_fails("fstat") ? -1 : __real_fstat(file, out);
}
REAL(int, open, const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    if (shim.watching && shim.opens < OPENED)
        snprintf(shim.opened[shim.opens++], sizeof shim.opened[0], "%s", path);
    return call_fails("open") ? -1 : __real_open(path, flags, mode);
}
REAL(ssize_t, pread, int file, void *out, size_t bytes, off_t at) {
    if (call_fails("pread"))
        return -1;
    if (!shim.pieces || !shim.watching)
        return __real_pread(file, out, bytes, at);
    shim.interrupted = !shim.interrupted;
    errno = EINTR;
    return shim.interrupted ? -1 : __real_pread(file, out, bytes > 0 ? 1 : 0, at);
}
REAL(ssize_t, pwrite, int file, const void *from, size_t bytes, off_t at) {
    return call_fails("pwrite") ? -1 : __real_pwrite(file, from, bytes, at);
}
REAL(int, fsync, int file) { return call_fails("fsync") ? -1 : __real_fsync(file); }
REAL(int, rename, const char *from, const char *to) {
    return call_fails("rename") ? -1 : __real_rename(from, to);
}
/* As on Linux, the descriptor is gone even where close tells of an error. */
REAL(int, close, int file) {
    bool fails = call_fails("close");
    int error_number = errno, result = __real_close(file);
    if (fails)
        errno = error_number;
    return fails ? -1 : result;
}
REAL(FILE *, fopen, const char *path, const char *mode) {
    if (allocation_fails("fopen") || call_fails("fopen"))
        return NULL;
    return __real_fopen(path, mode);
}
REAL(void *, mmap, void *at, size_t bytes, int protection, int flags, int file, off_t offset) {
    if (call_fails("mmap"))
        return MAP_FAILED;
    void *base = __real_mmap(at, bytes, protection, flags, file, offset);
    return base != MAP_FAILED ? follow(base) : base;
}
REAL(int, munmap, void *base, size_t bytes) {
    forget(base);
    return __real_munmap(base, bytes);
}

/* ---- processes --------------------------------------------------------------------------- */

REAL(int, access, const char *path, int mode) {
    return call_fails("access") ? -1 : __real_access(path, mode);
}
REAL(int, memfd_create, const char *name, unsigned flags) {
    return call_fails("memfd_create") ? -1 : __real_memfd_create(name, flags);
}
REAL(int, ftruncate, int file, off_t bytes) {
    return call_fails("ftruncate") ? -1 : __real_ftruncate(file, bytes);
}
REAL(int, posix_spawn_file_actions_init, posix_spawn_file_actions_t *actions) {
    return call_fails("posix_spawn_file_actions_init")
               ? errno
               : __real_posix_spawn_file_actions_init(actions);
}
REAL(int, posix_spawn_file_actions_adddup2, posix_spawn_file_actions_t *actions, int from, int to) {
    return call_fails("posix_spawn_file_actions_adddup2")
               ? errno
               : __real_posix_spawn_file_actions_adddup2(actions, from, to);
}
REAL(int, posix_spawn_file_actions_addopen, posix_spawn_file_actions_t *actions, int file,
     const char *path, int flags, mode_t mode) {
    return call_fails("posix_spawn_file_actions_addopen")
               ? errno
               : __real_posix_spawn_file_actions_addopen(actions, file, path, flags, mode);
}
REAL(int, posix_spawnattr_init, posix_spawnattr_t *attributes) {
    return call_fails("posix_spawnattr_init") ? errno : __real_posix_spawnattr_init(attributes);
}
REAL(int, posix_spawn, pid_t *out, const char *path, const posix_spawn_file_actions_t *actions,
     const posix_spawnattr_t *attributes, char *const *arguments, char *const *environment) {
    return call_fails("posix_spawn")
               ? errno
               : __real_posix_spawn(out, path, actions, attributes, arguments, environment);
}
/* It can be interrupted, and else it fails only when somebody else waited for the child. */
REAL(pid_t, waitpid, pid_t child, int *ended, int options) {
    bool fails = call_fails("waitpid");
    if (fails && errno == EINTR)
        return -1;
    pid_t found = __real_waitpid(child, fails ? NULL : ended, options);
    if (!fails)
        return found;
    errno = ECHILD;
    return -1;
}

/* ---- users, environment ------------------------------------------------------------------ */

REAL(int, getpwuid_r, uid_t user, struct passwd *out, char *text, size_t size,
     struct passwd **found) {
    *found = NULL;
    return call_fails("getpwuid_r") ? errno : __real_getpwuid_r(user, out, text, size, found);
}
REAL(int, getgrgid_r, gid_t group, struct group *out, char *text, size_t size,
     struct group **found) {
    *found = NULL;
    return call_fails("getgrgid_r") ? errno : __real_getgrgid_r(group, out, text, size, found);
}
REAL(char *, secure_getenv, const char *name) {
    return shim.raised ? NULL : __real_secure_getenv(name);
}

/* ---- the system's loader ----------------------------------------------------------------- */

REAL(void *, dlopen, const char *path, int flags) {
    shim.dlopen_failed = call_fails("dlopen");
    if (shim.dlopen_failed)
        return NULL;
    if (shim_before_dlopen != NULL)
        shim_before_dlopen(path);
    void *library = __real_dlopen(path, flags);
    if (shim_after_dlopen != NULL)
        shim_after_dlopen(path);
    return library;
}
REAL(char *, dlerror, void) {
    static char simulated[] = "the shim's dlopen failed";
    char *real = __real_dlerror();
    return shim.dlopen_failed ? simulated : real;
}
REAL(void *, dlsym, void *library, const char *name) {
    return call_fails("dlsym") ? NULL : __real_dlsym(library, name);
}
