/*
 * A line for each check: the outcome, the duty, how many cases in what time. A failure adds its
 * first case in words and the command that runs that case again.
 */
#include "findings.h"

#include "table.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the command that repeats ------------------------------------------------------------- */

/* An argument as a shell takes it. */
static void print_argument(FILE *out, const char *text) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,=+@%";
    if (text[0] != '\0' && text[strspn(text, plain)] == '\0') {
        fputs(text, out);
        return;
    }
    putc('\'', out);
    for (; *text != '\0'; text++)
        if (*text == '\'')
            fputs("'\\''", out);
        else
            putc(*text, out);
    putc('\'', out);
}

static void print_option(FILE *out, const char *option, const char *value) {
    if (value == NULL)
        return;
    fputs(option, out);
    print_argument(out, value);
}

static void print_command(const struct findings *findings, const kry_kernel_info *kernel,
                          const struct conformance_check *check,
                          const struct conformance_finding *finding, FILE *out) {
    const struct common_options *common = findings->common;
    const char *mask = getenv("KERNELRY_CPU_MASK");
    print_option(out, "KERNELRY_CPU_MASK=", mask);
    print_option(out, mask != NULL ? " kernelry verify " : "kernelry verify ", findings->path);
    fprintf(out, " --kernel %s --check %s", kernel->kernel, check->name);
    if (finding->case_number >= 0)
        fprintf(out, " --case %" PRId64, finding->case_number);
    else if (findings->most_cases > 0)
        fprintf(out, " --cases %" PRId64, findings->most_cases);
    fprintf(out, " --seed %" PRIu64, common->seed);
    print_option(out, " --device ", strcmp(common->device, "cpu") != 0 ? common->device : NULL);
    print_option(out, " --shapes ", common->shapes);
    print_option(out, " --name ", common->shape_name);
    if (findings->quick)
        fputs(" --quick", out);
    if (common->relax_trust)
        fputs(" --relax-trust", out);
    for (size_t i = 0; i < common->plugin_path_count; i++)
        print_option(out, " --plugin-path ", common->plugin_paths[i]);
}

/* NULL: no memory. */
static char *format_command(const struct findings *findings, const kry_kernel_info *kernel,
                            const struct conformance_check *check,
                            const struct conformance_finding *finding) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return NULL;
    print_command(findings, kernel, check, finding, out);
    return fclose(out) == 0 ? text : NULL;
}

/* ---- for people ------------------------------------------------------------------------------ */

static const char *const outcome_words[] = {"ok", "FAILED", "skipped"};

static void print_outcome(enum conformance_outcome outcome) {
    static const enum style styles[] = {STYLE_GOOD, STYLE_BAD, STYLE_DIM};
    fputs("  ", stdout);
    print_styled(stdout, styles[outcome], "%-7s", outcome_words[outcome]);
}

static void print_below(enum style style, const char *lead, const char *text) {
    printf("           %s", lead);
    print_styled(stdout, style, "%s", text);
    putchar('\n');
}

static void flush_skipped(struct findings *findings) {
    if (findings->skipping_count == 0)
        return;
    print_outcome(CONFORMANCE_SKIPPED);
    printf("  %s: ", findings->skipped_names);
    print_styled(stdout, STYLE_DIM, "%s", findings->skipping.message);
    putchar('\n');
    findings->skipping_count = 0;
}

static void note_skipped(struct findings *findings, const struct conformance_check *check,
                         const struct conformance_finding *finding) {
    if (findings->skipping_count > 0 && strcmp(findings->skipping.message, finding->message) != 0)
        flush_skipped(findings);
    size_t length = findings->skipping_count > 0 ? strlen(findings->skipped_names) : 0;
    snprintf(findings->skipped_names + length, sizeof findings->skipped_names - length, "%s%s",
             length > 0 ? ", " : "", check->name);
    findings->skipping = *finding;
    findings->skipping_count++;
}

static void print_finding(struct findings *findings, const kry_kernel_info *kernel,
                          const struct conformance_check *check,
                          const struct conformance_finding *finding) {
    bool failed = finding->outcome == CONFORMANCE_FAILED;
    char cases[64];
    if (finding->outcome == CONFORMANCE_SKIPPED) {
        note_skipped(findings, check, finding);
        return;
    }
    flush_skipped(findings);
    if (failed)
        snprintf(cases, sizeof cases, "%" PRId64 " of %" PRId64, finding->failed, finding->cases);
    else
        snprintf(cases, sizeof cases, "%" PRId64, finding->cases);
    print_outcome(finding->outcome);
    printf("  %s  %-12s  %10s cases  %5.1f s  %s", failed ? finding->duty : check->duty,
           check->name, cases, finding->seconds, check->title);
    if (finding->worst > 0)
        printf("; error at most %.2g %s what is allowed", finding->worst,
               finding->worst > 1 ? "times" : "of");
    if (finding->blocked > 0)
        printf("; %" PRId64 " more not tried, as other checks tell why", finding->blocked);
    putchar('\n');
    if (!failed)
        return;
    char *command = format_command(findings, kernel, check, finding);
    print_below(STYLE_BAD, "", finding->message);
    if (finding->where[0] != '\0')
        print_below(STYLE_PLAIN, "first at  ", finding->where);
    print_below(STYLE_BOLD, "again by  ", command != NULL ? command : "");
    free(command);
}

static void print_kernel_end(struct findings *findings) {
    flush_skipped(findings);
    const struct tally *tally = &findings->kernel;
    print_styled(stdout, tally->failed > 0 ? STYLE_BAD : STYLE_DIM,
                 "  %zu ok, %zu failed, %zu skipped in %.1f s", tally->ok, tally->failed,
                 tally->skipped, tally->seconds);
    putchar('\n');
}

/* ---- as JSON --------------------------------------------------------------------------------- */

static json_t *finding_json(const struct findings *findings, const kry_kernel_info *kernel,
                            const struct conformance_check *check,
                            const struct conformance_finding *finding) {
    json_t *object = json_object();
    bool failed = finding->outcome == CONFORMANCE_FAILED;
    json_put(object, "check", json_text(check->name));
    json_put(object, "duty", json_text(failed ? finding->duty : check->duty));
    json_put(object, "outcome", json_text(outcome_words[finding->outcome]));
    json_put(object, "cases", json_integer(finding->cases));
    json_put(object, "failed", json_integer(finding->failed));
    json_put(object, "refused", json_integer(finding->refused));
    json_put(object, "blocked", json_integer(finding->blocked));
    json_put(object, "worst", isfinite(finding->worst) ? json_real(finding->worst) : json_null());
    json_put(object, "seconds", json_real(finding->seconds));
    if (finding->message[0] != '\0')
        json_put(object, "message", json_text(finding->message));
    if (failed) {
        char *command = format_command(findings, kernel, check, finding);
        json_put(object, "where", json_text(finding->where));
        json_put(object, "command", json_text(command));
        free(command);
    }
    return object;
}

/* ---- both ------------------------------------------------------------------------------------ */

void findings_kernel(struct findings *findings, const kry_kernel_info *kernel) {
    findings->kernel = (struct tally){0};
    if (findings->kernels != NULL) {
        findings->checks = json_array();
        return;
    }
    putchar('\n');
    print_styled(stdout, STYLE_BOLD, "%s/%s", kernel->plugin, kernel->kernel);
    print_styled(stdout, STYLE_DIM, "  %s", kernel->summary);
    putchar('\n');
}

static void count(struct tally *tally, const struct conformance_finding *finding) {
    tally->ok += finding->outcome == CONFORMANCE_OK;
    tally->failed += finding->outcome == CONFORMANCE_FAILED;
    tally->skipped += finding->outcome == CONFORMANCE_SKIPPED;
    tally->seconds += finding->seconds;
}

enum { SUITE_NAME_BYTES = 256 };

static const char *suite_name(const kry_kernel_info *kernel, char out[SUITE_NAME_BYTES]) {
    snprintf(out, SUITE_NAME_BYTES, "%s/%s", kernel->plugin, kernel->kernel);
    return out;
}

void findings_add(struct findings *findings, const kry_kernel_info *kernel,
                  const struct conformance_check *check,
                  const struct conformance_finding *finding) {
    count(&findings->kernel, finding);
    count(&findings->all, finding);
    findings->any = findings->any || finding->cases > 0;
    if (findings->kernels != NULL)
        json_add(findings->checks, finding_json(findings, kernel, check, finding));
    else
        print_finding(findings, kernel, check, finding);
    fflush(stdout);
    char suite[SUITE_NAME_BYTES], *command = NULL;
    if (finding->outcome == CONFORMANCE_FAILED)
        command = format_command(findings, kernel, check, finding);
    junit_add(findings->junit, suite_name(kernel, suite), check, finding, command);
    free(command);
}

void findings_kernel_end(struct findings *findings, const kry_kernel_info *kernel) {
    char suite[SUITE_NAME_BYTES];
    junit_suite_end(findings->junit, suite_name(kernel, suite));
    if (findings->kernels == NULL) {
        print_kernel_end(findings);
        return;
    }
    json_t *object = json_object();
    json_put(object, "kernel", json_text(kernel->kernel));
    json_put(object, "checks", findings->checks);
    json_add(findings->kernels, object);
    findings->checks = NULL;
}
