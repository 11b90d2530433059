/*
 * A check's process: started, watched by its own signal handlers, waited for.
 */
#include "suite.h"

#include "checks.h"
#include "clock.h"
#include "direct.h"
#include "mirror.h"
#include "words.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what checks tell ----------------------------------------------------------------- */

void step(struct suite *suite, const char *what, int64_t m) {
    suite->shared->step = what;
    suite->shared->m = m;
}

/* The case and the m at hand, in words. */
static void tell_where(const struct shared *shared, char *out, size_t size) {
    if (shared->m > 0)
        snprintf(out, size, "%s, m %" PRId64, shared->where, shared->m);
    else
        snprintf(out, size, "%s", shared->where);
}

static void note_failure(struct shared *shared, const char *duty, const char *format,
                         va_list arguments) {
    struct conformance_finding *finding = &shared->finding;
    finding->outcome = CONFORMANCE_FAILED;
    if (finding->failed++ > 0)
        return;
    snprintf(finding->duty, sizeof finding->duty, "%s", duty);
    vsnprintf(finding->message, sizeof finding->message, format, arguments);
    tell_where(shared, finding->where, sizeof finding->where);
    finding->case_number = shared->case_number;
}

void fail(struct suite *suite, const char *duty, const char *format, ...) {
    if (suite->case_failed)
        return;
    suite->case_failed = true;
    va_list arguments;
    va_start(arguments, format);
    note_failure(suite->shared, duty != NULL ? duty : suite->check->shown.duty, format, arguments);
    va_end(arguments);
}

void block(struct suite *suite) { suite->case_blocked = true; }

void pass_over(struct suite *suite) { suite->case_idle = true; }

void measure(struct suite *suite, double part) {
    if (part > suite->shared->finding.worst)
        suite->shared->finding.worst = part;
}

/* ---- signals --------------------------------------------------------------------------- */

static struct shared *watched;

/* Write down what is known and end; the process that waits finds the words. */
static void on_signal(int number, siginfo_t *info, void *context) {
    (void)context;
    watched->signal = number;
    if (number == SIGSEGV || number == SIGBUS)
        watched->touch = memory_find((uintptr_t)info->si_addr);
    _exit(EXIT_FAILURE);
}

/* Not SIGALRM, whose default is to end the process, as no handler could be relied on to do. */
static void watch_signals(struct shared *shared) {
    static unsigned char stack[64 * 1024]; /* a kernel may have run out of its own */
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
    watched = shared;
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigaction(numbers[i], &action, NULL);
}

/* ---- the cases ------------------------------------------------------------------------- */

/* Whether the case takes part, when `wanted` of `count` do, evenly. */
static bool is_chosen(int64_t place, int64_t count, int64_t wanted) {
    return wanted == 0 || wanted >= count || place * wanted / count != (place + 1) * wanted / count;
}

static void run_case(struct suite *suite, const struct item *item) {
    struct shared *shared = suite->shared;
    char text[LINEAR_TEXT_BYTES];
    suite->case_failed = suite->case_blocked = suite->case_idle = false;
    shared->case_number = item->number;
    snprintf(shared->where, sizeof shared->where, "%s (%s)", linear_format(&item->linear, text),
             item->family);
    step(suite, "starting", 0);
    alarm(suite->plan->seconds);
    suite->check->run(suite, item);
    if (suite->case_idle && !suite->case_failed)
        shared->idle++;
    else if (suite->case_blocked && !suite->case_failed)
        shared->finding.blocked++;
    else
        shared->finding.cases++;
}

static int64_t most_cases(const struct suite *suite) {
    int64_t most = suite->plan->quick ? suite->check->most_quick : suite->check->most;
    int64_t asked = suite->plan->most_cases;
    return asked > 0 && (most == 0 || asked < most) ? asked : most;
}

/* Drop the descriptions that are refused, unless the check is about them, too. */
static void keep_accepted(const struct suite *suite, struct items *items) {
    struct shared *shared = suite->shared;
    int64_t kept = 0;
    for (int64_t i = 0; i < items->count; i++) {
        kry_refusal refusal;
        if (suite->check->takes_refused ||
            accepts(suite->functions, suite->plan->device, &items->items[i].linear, &refusal))
            items->items[kept++] = items->items[i];
        else if (shared->finding.refused++ == 0)
            kry_refusal_format(&refusal, shared->refusal, sizeof shared->refusal);
    }
    items->count = kept;
}

static void run_cases(struct suite *suite) {
    struct items items;
    step(suite, "can_implement", 0);
    alarm(suite->plan->seconds);
    items_make(suite->plan, suite->functions, &items);
    keep_accepted(suite, &items);
    int64_t most = most_cases(suite), only = suite->plan->only_case;
    for (int64_t i = 0; i < items.count && !items.failed; i++)
        if (only >= 0 ? items.items[i].number == only : is_chosen(i, items.count, most))
            run_case(suite, &items.items[i]);
    if (items.failed)
        fail(suite, NULL, "the suite ran out of memory");
    items_free(&items);
    suite->shared->case_number = -1;
    suite->shared->where[0] = '\0';
}

static bool open_device(struct suite *suite) {
    static const kry_host host = {.struct_size = sizeof host};
    if (suite->check->needs_no_device || suite->functions->open_device == NULL)
        return true;
    step(suite, "open_device", 0);
    alarm(suite->plan->seconds);
    kry_status status =
        suite->functions->open_device(suite->plan->device, &host, &suite->device_state);
    if (status != KRY_OK)
        fail(suite, "KRY-P03", "open_device failed (%s)", kry_status_string(status));
    return status == KRY_OK;
}

static void close_device(struct suite *suite) {
    static const kry_host host = {.struct_size = sizeof host};
    if (suite->check->needs_no_device || suite->functions->close_device == NULL)
        return;
    step(suite, "close_device", 0);
    suite->functions->close_device(suite->device_state, &host);
}

static _Noreturn void run_in_child(struct suite *suite) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    watch_signals(suite->shared);
    suite->shared->case_number = -1;
    if (suite->on_device)
        mirrors_begin(&suite->memory);
    if (open_device(suite)) {
        run_cases(suite);
        close_device(suite);
    }
    atomic_store(&suite->shared->finished, true);
    _exit(EXIT_SUCCESS);
}

/* ---- the end of the process -------------------------------------------------------------- */

static void note_end(struct shared *shared, const char *duty, const char *format, ...)
    KRY_PRINTF(3, 4);
static void note_end(struct shared *shared, const char *duty, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    /* What ended the process is worse than what failed before it. */
    shared->finding.failed = 0;
    note_failure(shared, duty, format, arguments);
    va_end(arguments);
}

/* A fault at a buffer that the suite made. */
static void tell_touch(struct shared *shared, const struct memory_touch *touch) {
    const struct memory_label *label = touch->label;
    const char *called = shared->step != NULL ? shared->step : "a function";
    if (touch->inside)
        note_end(shared, label->writing_duty != NULL ? label->writing_duty : label->duty,
                 "%s touched %s", called, label->name);
    else if (touch->distance < 0)
        note_end(shared, label->duty, "%s touched the byte %" PRId64 " before %s", called,
                 -touch->distance, label->name);
    else
        note_end(shared, label->duty, "%s touched the byte %" PRId64 " behind %s", called,
                 touch->distance, label->name);
}

/* How a process ended that did not finish its check; or that did, and was objected to all the
 * same: sanitizers and valgrind tell of what they saw by the exit code. */
static void tell_end(const struct suite *suite, int status, bool finished) {
    struct shared *shared = suite->shared;
    const char *duty = suite->check->shown.duty;
    const char *called = shared->step != NULL ? shared->step : "the suite";
    int number = shared->signal != 0 ? shared->signal : WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (shared->touch.label != NULL)
        tell_touch(shared, &shared->touch);
    else if (number == SIGALRM)
        note_end(shared, duty, "%s did not end within %u s", called, suite->plan->seconds);
    else if (number != 0)
        note_end(shared, duty, "%s ended the process with a signal: %s", called, strsignal(number));
    else if (finished)
        note_end(shared, duty,
                 "what watches memory or threads objected (exit code %d); its report is above",
                 WEXITSTATUS(status));
    else
        note_end(shared, duty, "%s ended the process (exit code %d)", called, WEXITSTATUS(status));
    if (!finished)
        shared->finding.cases++;
}

static void conclude(const struct suite *suite) {
    const struct shared *shared = suite->shared;
    struct conformance_finding *finding = &suite->shared->finding;
    if (finding->failed > 0)
        finding->outcome = CONFORMANCE_FAILED;
    else if (finding->cases == 0)
        finding->outcome = CONFORMANCE_SKIPPED;
    if (finding->outcome != CONFORMANCE_SKIPPED)
        return;
    if (finding->blocked > 0)
        snprintf(finding->message, sizeof finding->message,
                 "no case came so far, for reasons that other checks tell");
    else if (shared->idle > 0)
        snprintf(finding->message, sizeof finding->message, "%s", suite->check->idle);
    else
        snprintf(finding->message, sizeof finding->message,
                 "it takes none of the descriptions tried (%s)", shared->refusal);
}

/* ---- running ------------------------------------------------------------------------------ */

static bool skip(struct conformance_finding *finding, const char *why) {
    finding->outcome = CONFORMANCE_SKIPPED;
    snprintf(finding->message, sizeof finding->message, "%s", why);
    return true;
}

/* Checks that do not apply to this kernel, or not here. */
static bool does_not_apply(const struct conformance_plan *plan, const struct check *check,
                           struct conformance_finding *finding) {
    if (check->flag != 0 && (plan->kernel->flags & check->flag) == 0)
        return skip(finding, check->unflagged);
    if (!check->needs_no_device && (plan->device->flags & KRY_DEVICE_HYPOTHETICAL) != 0)
        return skip(finding, "needs the device, which is hypothetical");
    return false;
}

kry_status conformance_run(const struct conformance_plan *plan,
                           const struct conformance_check *shown, struct conformance_finding *out) {
    const struct check *check = check_of(shown);
    struct suite suite = {.plan = plan, .check = check};
    *out = (struct conformance_finding){.case_number = -1};
    if (does_not_apply(plan, check, out))
        return KRY_OK;
    kry_status status = direct_find(plan->registry, plan->kernel, &suite.functions);
    if (status != KRY_OK)
        return status;
    if (!check->needs_no_device &&
        device_memory_open(plan->registry, plan->device, &suite.memory) != KRY_OK) {
        skip(out, kry_error_message());
        return KRY_OK;
    }
    suite.on_device = !check->needs_no_device && !device_memory_is_shared(&suite.memory);
    void *page =
        mmap(NULL, sizeof *suite.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return kry_error_set(KRY_E_MEMORY, "no memory for a check: %s", strerror(errno));
    suite.shared = page;
    int64_t began = clock_now();
    fflush(NULL); /* what is buffered belongs to this process alone */
    pid_t child = fork();
    if (child == 0)
        run_in_child(&suite);
    int ended = 0;
    while (child > 0 && waitpid(child, &ended, 0) < 0 && errno == EINTR)
        ;
    if (child < 0) {
        status = kry_error_set(KRY_E_MEMORY, "no process for a check: %s", strerror(errno));
    } else {
        bool finished = atomic_load(&suite.shared->finished);
        if (!finished || (ended != 0 && suite.shared->finding.failed == 0))
            tell_end(&suite, ended, finished);
        conclude(&suite);
        *out = suite.shared->finding;
        out->seconds = (double)(clock_now() - began) / 1e9;
    }
    munmap(page, sizeof *suite.shared);
    return status;
}
