/*
 * Isolation on demand: before a plugin is loaded here, a process of its own loads it, calls its
 * entry and asks its kernels, within a time limit.
 *
 * That process is a program, started by posix_spawn, and no fork of this one: between fork and exec
 * a process with threads may only call what is async-signal-safe, and dlopen is not; a lock that
 * another thread held would stay locked in the child. posix_spawn does not copy the page tables of
 * a large process either, nor run the handlers of pthread_atfork.
 *
 * It protects from accidents. It is no sandbox: the plugin has all rights of this process.
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEFAULT_MILLISECONDS = 10000 };

/* ---- the helper ------------------------------------------------------------------------ */

kry_status core_probe_find(const struct load_context *context, char **out) {
    char *path;
    struct stat file;
    kry_status status = core_beside("kernelry-probe", &path);
    *out = NULL;
    if (status != KRY_OK)
        return status;
    if (path == NULL)
        return kry_error_set(KRY_E_IO, "plugins cannot be probed: the system does not tell where "
                                       "the library is, beside which kernelry-probe lies");
    if (stat(path, &file) != 0 || access(path, X_OK) != 0)
        status = kry_error_set(KRY_E_IO, "plugins cannot be probed: %s: %s", path, strerror(errno));
    /* It is code that runs with this process's rights, as a plugin is. */
    if (status == KRY_OK)
        status = core_trust(path, &file, context->library_owner,
                            context->relax_trust ? context->log : NULL, "started");
    if (status == KRY_E_TRUST)
        status = kry_error_set(KRY_E_TRUST, "plugins cannot be probed: %s %s", path,
                               kry_error_message());
    if (status == KRY_OK)
        *out = path;
    else
        free(path);
    return status;
}

static kry_status make_report(int *file, struct probe_report **out) {
    *file = memfd_create("kernelry-probe", MFD_CLOEXEC);
    if (*file < 0 || ftruncate(*file, sizeof **out) != 0)
        return kry_error_set(KRY_E_IO, "cannot be probed: no memory to share: %s", strerror(errno));
    void *page = mmap(NULL, sizeof **out, PROT_READ | PROT_WRITE, MAP_SHARED, *file, 0);
    if (page == MAP_FAILED)
        return kry_error_set(KRY_E_IO, "cannot be probed: no memory to share: %s", strerror(errno));
    *out = page;
    snprintf((*out)->release, sizeof(*out)->release, "%s", kry_version());
    return KRY_OK;
}

/* Nothing of this process but the report's descriptor reaches the helper: no other file, which it
 * closes, no signal mask, no handler. Its output goes nowhere, however much it is. */
static int start(const char *helper, char *const *arguments, int report, pid_t *out) {
    static char *const nothing[] = {NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int error = posix_spawn_file_actions_init(&files);
    if (error != 0)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (error == 0) {
        error = posix_spawn_file_actions_adddup2(&files, report, PROBE_REPORT_FD);
        for (int standard = 0; standard <= 2 && error == 0; standard++)
            error = posix_spawn_file_actions_addopen(&files, standard, "/dev/null", O_RDWR, 0);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setsigdefault(&attributes, &all);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        /* With raised privileges nothing of the environment may steer what runs with them. */
        if (error == 0)
            error = posix_spawn(out, helper, &files, &attributes, arguments,
                                getauxval(AT_SECURE) ? nothing : environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&files);
    return error;
}

/* ---- what it reports ------------------------------------------------------------------- */

static const char *signal_name(int number) {
    static const struct {
        int number;
        const char *name;
    } names[] = {{SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},
                 {SIGILL, "SIGILL"},   {SIGFPE, "SIGFPE"},   {SIGTRAP, "SIGTRAP"},
                 {SIGKILL, "SIGKILL"}, {SIGTERM, "SIGTERM"}, {SIGSYS, "SIGSYS"},
                 {SIGPIPE, "SIGPIPE"}, {SIGALRM, "SIGALRM"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].number == number)
            return names[i].name;
    return "a signal";
}

/* A text that a broken plugin may have written over: it ends, and is printable. */
static void clean(char *text, size_t size) {
    text[size - 1] = '\0';
    for (char *c = text; *c != '\0'; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
}

/* The helper itself failed, or was not let do its work. */
static kry_status tell_no_trial(int ended) {
    if (WIFEXITED(ended) && WEXITSTATUS(ended) == PROBE_EXIT_FOREIGN)
        return kry_error_set(KRY_E_IO,
                             "cannot be probed: kernelry-probe is of another release "
                             "than the library, %s",
                             kry_version());
    if (WIFSIGNALED(ended))
        return kry_error_set(KRY_E_IO, "cannot be probed: kernelry-probe was ended by %s",
                             signal_name(WTERMSIG(ended)));
    return kry_error_set(KRY_E_IO, "cannot be probed: kernelry-probe failed (exit code %d)",
                         WEXITSTATUS(ended));
}

static kry_status conclude(struct probe_report *report, int helper_ended, uint32_t milliseconds) {
    clean(report->step, sizeof report->step);
    clean(report->reason, sizeof report->reason);
    const char *step = report->step[0] != '\0' ? report->step : "at its start";
    if (report->concluded != 1)
        return tell_no_trial(helper_ended);
    if (report->timed_out)
        return kry_error_set(KRY_E_PLUGIN,
                             "hangs: its trial in another process did not end within %" PRIu32
                             " ms, %s (KRY-C23)",
                             milliseconds, step);
    if (WIFSIGNALED(report->ended))
        return kry_error_set(KRY_E_PLUGIN,
                             "crashes: its trial in another process ended with %s (signal %d), "
                             "%s (KRY-C23)",
                             signal_name(WTERMSIG(report->ended)), WTERMSIG(report->ended), step);
    if (report->finished != 1)
        return kry_error_set(KRY_E_PLUGIN,
                             "ends its process: its trial in another one stopped with exit code "
                             "%d, %s (KRY-C23)",
                             WEXITSTATUS(report->ended), step);
    if (report->status == KRY_OK)
        return KRY_OK;
    /* Out of memory there is no reason to give up here. */
    bool known = report->status >= KRY_E_ARGUMENT && report->status <= KRY_E_STALE &&
                 report->status != KRY_E_MEMORY;
    return kry_error_set(known ? report->status : KRY_E_PLUGIN, "%s", report->reason);
}

kry_status core_probe(const struct load_context *context, const struct plugin *plugin) {
    uint32_t milliseconds =
        context->probe_milliseconds != 0 ? context->probe_milliseconds : DEFAULT_MILLISECONDS;
    char features[24], limit[16];
    snprintf(features, sizeof features, "%" PRIx64, context->cpu_features);
    snprintf(limit, sizeof limit, "%" PRIu32, milliseconds);
    char name[] = "kernelry-probe";
    char *arguments[] = {name, plugin->path, features, limit, NULL};
    struct probe_report *report = NULL;
    int file = -1, ended = 0;
    kry_status status = make_report(&file, &report);
    pid_t helper = 0;
    if (status == KRY_OK) {
        int error = start(context->probe_helper, arguments, file, &helper);
        if (error != 0)
            status = kry_error_set(KRY_E_IO, "cannot be probed: %s cannot be started: %s",
                                   context->probe_helper, strerror(error));
    }
    if (status == KRY_OK) {
        /* The helper keeps the limit. An embedder that ignores SIGCHLD, or waits for every child,
         * takes its exit code from us (ECHILD), not its report. */
        while (waitpid(helper, &ended, 0) < 0 && errno == EINTR)
            ;
        status = conclude(report, ended, milliseconds);
        if (report->concluded == 1 && report->left > 0)
            core_log(context->log, KRY_LOG_WARNING,
                     "plugin %s started processes when it was loaded and left %" PRIu32
                     " behind; they were ended",
                     plugin->path, report->left);
    }
    if (report != NULL)
        munmap(report, sizeof *report);
    if (file >= 0)
        close(file);
    return status;
}
