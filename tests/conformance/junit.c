/*
 * Cases are collected apart from suites, whose first line counts them.
 */
#include "junit.h"

#include <stdlib.h>
#include <string.h>

kry_status junit_begin(struct junit *junit, const char *path) {
    *junit = (struct junit){0};
    if (path == NULL)
        return KRY_OK;
    /* Now, because checks take minutes. */
    kry_status status = atomic_file_open(&junit->file, path);
    if (status != KRY_OK)
        return status;
    junit->wanted = true;
    junit->suites = open_memstream(&junit->suites_text, &junit->suites_size);
    junit->cases = open_memstream(&junit->cases_text, &junit->cases_size);
    return junit->suites != NULL && junit->cases != NULL
               ? KRY_OK
               : kry_error_set(KRY_E_MEMORY, "out of memory");
}

/* Text inside an attribute or an element. A plugin's words may be of any bytes: what is not plain
 * ASCII becomes a question mark, as XML knows no way to write control characters. */
static void put(FILE *out, const char *text) {
    for (; *text != '\0'; text++)
        if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '>')
            fputs("&gt;", out);
        else if (*text == '"')
            fputs("&quot;", out);
        else
            putc(*text == '\n' || (*text >= ' ' && *text <= '~') ? *text : '?', out);
}

static void put_attribute(FILE *out, const char *name, const char *value) {
    fprintf(out, " %s=\"", name);
    put(out, value);
    putc('"', out);
}

void junit_add(struct junit *junit, const char *suite, const struct conformance_check *check,
               const struct conformance_finding *finding, const char *command) {
    if (!junit->wanted)
        return;
    FILE *out = junit->cases;
    fputs("    <testcase", out);
    put_attribute(out, "classname", suite);
    fprintf(out, " name=\"%s%s%s\"", check->duty, check->duty[0] != '\0' ? " " : "", check->name);
    fprintf(out, " time=\"%.3f\">\n", finding->seconds);
    junit->tests++;
    junit->seconds += finding->seconds;
    if (finding->outcome == CONFORMANCE_SKIPPED) {
        junit->skipped++;
        fputs("      <skipped", out);
        put_attribute(out, "message", finding->message);
        fputs("/>\n", out);
    } else if (finding->outcome == CONFORMANCE_FAILED) {
        junit->failures++;
        fputs("      <failure", out);
        put_attribute(out, "type", finding->duty);
        put_attribute(out, "message", finding->message);
        fputs(">first at: ", out);
        put(out, finding->where);
        fputs("\nagain by: ", out);
        put(out, command != NULL ? command : "");
        fputs("</failure>\n", out);
    }
    fputs("    </testcase>\n", out);
}

void junit_add_error(struct junit *junit, const char *suite, const char *name,
                     const char *message) {
    const struct conformance_check check = {.name = name, .duty = ""};
    struct conformance_finding finding = {.outcome = CONFORMANCE_FAILED};
    snprintf(finding.message, sizeof finding.message, "%s", message);
    junit_add(junit, suite, &check, &finding, NULL);
}

void junit_suite_end(struct junit *junit, const char *suite) {
    if (!junit->wanted)
        return;
    FILE *out = junit->suites;
    fputs("  <testsuite", out);
    put_attribute(out, "name", suite);
    fprintf(out, " tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\" time=\"%.3f\">\n",
            junit->tests, junit->failures, junit->skipped, junit->seconds);
    fflush(junit->cases);
    fwrite(junit->cases_text, 1, junit->cases_size, out);
    fputs("  </testsuite>\n", out);
    rewind(junit->cases);
    junit->tests = junit->failures = junit->skipped = 0;
    junit->seconds = 0;
}

/* Out of memory shows as an error of a stream. */
static bool close_streams(struct junit *junit) {
    bool good = true;
    FILE *streams[] = {junit->suites, junit->cases};
    for (size_t i = 0; i < 2; i++)
        if (streams[i] != NULL) {
            good = ferror(streams[i]) == 0 && good;
            good = fclose(streams[i]) == 0 && good;
        }
    return good;
}

static kry_status write_report(struct junit *junit) {
    static const char head[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n",
                      tail[] = "</testsuites>\n";
    kry_status status = atomic_file_write(&junit->file, head, sizeof head - 1);
    if (status == KRY_OK)
        status = atomic_file_write(&junit->file, junit->suites_text, junit->suites_size);
    if (status == KRY_OK)
        status = atomic_file_write(&junit->file, tail, sizeof tail - 1);
    return status;
}

kry_status junit_end(struct junit *junit, kry_status status) {
    if (!junit->wanted)
        return status;
    if (!close_streams(junit) && status == KRY_OK)
        status = kry_error_set(KRY_E_MEMORY, "%s: out of memory", junit->file.path);
    if (status == KRY_OK)
        status = write_report(junit);
    status = atomic_file_close(&junit->file, status);
    free(junit->suites_text);
    free(junit->cases_text);
    *junit = (struct junit){0};
    return status;
}
