/*
 * kernelry-probe: tries a plugin in a process of its own, for the library alone (probe.c).
 *
 * Two processes: one has the plugin, the other watches it, keeps the time limit and ends whatever
 * the plugin started, so that nothing stays behind and no zombie either. Both run the core's own
 * code (the static library), so what is checked here is what loading checks.
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GRACE_MILLISECONDS = 1000 /* for what was killed to be gone */ };

static struct probe_report *report;

/* ---- the plugin's process ---------------------------------------------------------------- */

static pid_t plugins_process;

static void tell(const char *format, ...) KRY_PRINTF(1, 2);
static void tell(const char *format, ...) {
    /* A constructor that forks returns twice: its child has nothing to report. */
    if (getpid() != plugins_process)
        _exit(EXIT_SUCCESS);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->step, sizeof report->step, format, arguments);
    va_end(arguments);
}

static void tell_step(const char *step) { tell("%s", step); }

/* A device of the platform: this CPU, the first that is here, or one of which nothing is known. */
static void choose_device(const struct plugin *plugin, const char *platform, uint64_t features,
                          kry_device *out) {
    *out = KRY_INIT(kry_device);
    if (strcmp(platform, "cpu") == 0) {
        core_cpu_describe(features, out);
        return;
    }
    const kry_platform *operations = core_order_platform(plugin, 1, platform);
    tell("asking platform %s for its devices", platform);
    if (operations != NULL && operations->device != NULL && operations->device(0, out) == KRY_OK)
        return;
    *out = KRY_INIT(kry_device);
    snprintf(out->platform, sizeof out->platform, "%s", platform);
    out->ordinal = -1;
    out->flags = KRY_DEVICE_HYPOTHETICAL;
}

/* A plain layer, which any kernel has an answer to. */
static kry_linear plain_linear(void) {
    kry_linear linear = KRY_INIT(kry_linear);
    linear.in_features = linear.out_features = 4096;
    linear.group_size = 128;
    linear.weight_type = KRY_WEIGHT_U4B8;
    linear.x_type = KRY_TYPE_F16;
    kry_linear_complete(&linear, &linear);
    return linear;
}

static void ask_kernels(struct plugin *plugin, uint64_t features) {
    struct overrides none = {0};
    struct host_services silent;
    struct ranked_kernels kernels = {0};
    core_host_init(&silent, NULL, false);
    if (core_order(plugin, 1, &none, &silent, &kernels) != KRY_OK)
        return;
    kry_linear linear = plain_linear();
    for (size_t i = 0; i < kernels.count; i++) {
        const kry_kernel *kernel = &kernels.items[i].kernel;
        kry_device device;
        struct answer answer;
        choose_device(plugin, kernel->platform, features, &device);
        tell("in can_implement of kernel %s for %s", kernel->name, kernel->platform);
        core_ask(&kernels.items[i], &device, &linear, &answer);
    }
    free(kernels.items);
}

/* A crash is to end this process by its signal, also where a sanitizer's runtime in this program
 * would make an exit code of it. */
static void let_crashes_be(void) {
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP};
    for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++)
        signal(crashes[i], SIG_DFL);
}

static _Noreturn void try_plugin(char *path, uint64_t features) {
    plugins_process = getpid();
    setpgid(0, 0); /* so that all it starts can be ended with it */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    let_crashes_be();
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    struct overrides no_overrides = {0};
    struct host_services silent;
    core_host_init(&silent, NULL, false);
    struct plugin plugin;
    size_t places[2] = {0};
    struct load_context context = {
        .log = &silent,
        .overrides = &no_overrides,
        .cpu_features = features,
        .relax_trust = true, /* whether it is trusted was decided by who started this */
        .step = tell_step,
        .plugins = &plugin,
        .by_inode = places,
        .slots = 2};
    struct found_file file = {.path = path, .named_outright = true};
    bool skip;
    tell("at its note");
    kry_status status = core_load(&context, &file, &plugin, &skip);
    if (status == KRY_OK && plugin.state == KRY_PLUGIN_LOADED)
        ask_kernels(&plugin, features);
    tell("at its end");
    report->status = status != KRY_OK ? status : plugin.status;
    if (status == KRY_OK && plugin.reason != NULL)
        snprintf(report->reason, sizeof report->reason, "%s", plugin.reason);
    report->finished = 1;
    _exit(EXIT_SUCCESS); /* no destructor of the plugin runs: none does in an embedder either */
}

/* ---- the process that watches ------------------------------------------------------------- */

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* Sleep until a child ends (SIGCHLD is blocked) or the deadline has passed. */
static void sleep_until(int64_t deadline) {
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    int64_t left = deadline - now();
    if (left > 0)
        sigtimedwait(&children, NULL,
                     &(struct timespec){left / 1000000000, (long)(left % 1000000000)});
}

/* Whether it ended in time; it is not reaped yet, so its process id is nobody else's. */
static bool ends_within(pid_t process, uint32_t milliseconds) {
    int64_t deadline = now() + milliseconds * INT64_C(1000000);
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)process, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
            return false;
        if (info.si_pid == process)
            return true;
        if (now() >= deadline)
            return false;
        sleep_until(deadline);
    }
}

/* Kill the children of this process: what the plugin's left behind has become ours. */
static void kill_children(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *list = fopen(path, "re");
    int child;
    while (list != NULL && fscanf(list, "%d", &child) == 1)
        kill((pid_t)child, SIGKILL);
    if (list != NULL)
        fclose(list);
}

/* End and reap all that is left, within the grace; returns how many had to be killed. */
static uint32_t end_the_rest(pid_t process, int *ended) {
    uint32_t left = 0;
    int64_t deadline = now() + GRACE_MILLISECONDS * INT64_C(1000000);
    /* Its group, where /proc lists no children. It is not reaped, so the group is still its own. */
    kill(-process, SIGKILL);
    for (;;) {
        int status;
        pid_t gone = waitpid(-1, &status, WNOHANG);
        if (gone == process)
            *ended = status;
        else if (gone > 0)
            left += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        else if ((gone < 0 && errno == ECHILD) || now() >= deadline)
            return left;
        kill_children();
        if (gone == 0)
            sleep_until(now() + 10 * INT64_C(1000000));
    }
}

static bool open_report(void) {
    struct stat file;
    if (fstat(PROBE_REPORT_FD, &file) != 0 || file.st_size != (off_t)sizeof *report)
        return false;
    void *page = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED, PROBE_REPORT_FD, 0);
    if (page == MAP_FAILED)
        return false;
    report = page;
    /* What else the embedder had open, a socket it listens on, is no plugin's business. The call
     * is Linux 5.9's; without it those that were not opened with O_CLOEXEC stay. */
    syscall(SYS_close_range, PROBE_REPORT_FD, ~0U, 0U);
    return strncmp(report->release, kry_version(), sizeof report->release) == 0;
}

int main(int count, char **arguments) {
    if (count != 4 || !open_report()) {
        fputs("kernelry-probe is started by the Kernelry library of its own release; see "
              "`kernelry plugins --probe`\n",
              stderr);
        return PROBE_EXIT_FOREIGN;
    }
    uint64_t features = strtoull(arguments[2], NULL, 16);
    uint32_t milliseconds = (uint32_t)strtoul(arguments[3], NULL, 10);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    pid_t process = fork(); /* this process has one thread */
    if (process == 0)
        try_plugin(arguments[1], features);
    if (process < 0)
        return EXIT_FAILURE;
    setpgid(process, process);
    bool in_time = ends_within(process, milliseconds);
    int ended = 0;
    uint32_t left = end_the_rest(process, &ended);
    report->timed_out = !in_time;
    report->ended = ended;
    report->left = left;
    report->concluded = 1;
    return EXIT_SUCCESS;
}
