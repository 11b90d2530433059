/*
 * What `kernelry run` tells of its results.
 */
#include "run.h"

#include "fuse.h"
#include "table.h"
#include "words.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/** The most memory that the process has held. Units: bytes. */
static uint64_t peak_memory(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

/** The worst exit code of all; a run without a single result has already been complained of. */
static int worst_code(const struct run_results *results) {
    int worst = EXIT_YES;
    for (size_t i = 0; i < results->count; i++)
        if (results->items[i].exit_code > worst)
            worst = results->items[i].exit_code;
    return worst;
}

/* ---- the table ----------------------------------------------------------------------- */

/** Results that differ only in the numbers in their names, and went alike. */
struct group {
    const struct run_result *first;
    char *pattern;
    size_t count;
    struct trial_apply *worst;   /* for each m: the largest error, the sum of times */
    int64_t prepare_nanoseconds; /* of all */
};

/** Whether a result belongs to a group. Those that failed stand alone, to be named. */
static bool belongs(const struct group *group, const struct run_result *result,
                    const char *pattern) {
    const struct run_result *first = group->first;
    return result->exit_code == EXIT_YES && first->exit_code == EXIT_YES &&
           strcmp(group->pattern, pattern) == 0 && result->bias == first->bias &&
           memcmp(&result->linear, &first->linear, sizeof first->linear) == 0 &&
           strcmp(result->trial.kernel.kernel, first->trial.kernel.kernel) == 0 &&
           strcmp(result->trial.kernel.plugin, first->trial.kernel.plugin) == 0;
}

/** Add a result to its group. Returns false when memory ran out. */
static bool collect(struct group *groups, size_t *count, const struct run_result *result) {
    const struct trial *trial = &result->trial;
    char *pattern =
        result->exit_code == EXIT_YES ? name_pattern(result->name) : strdup(result->name);
    if (pattern == NULL)
        return false;
    size_t at = 0;
    while (at < *count && !belongs(&groups[at], result, pattern))
        at++;
    struct group *group = &groups[at];
    if (at < *count) {
        free(pattern);
    } else {
        *group = (struct group){.first = result, .pattern = pattern};
        group->worst = calloc(trial->apply_count + 1, sizeof *group->worst);
        ++*count;
        if (group->worst == NULL)
            return false;
    }
    group->count++;
    group->prepare_nanoseconds += trial->prepare_nanoseconds;
    for (size_t i = 0; i < trial->apply_count; i++) {
        group->worst[i].m = trial->applies[i].m;
        group->worst[i].error = fmax(group->worst[i].error, trial->applies[i].error);
        group->worst[i].nanoseconds += trial->applies[i].nanoseconds;
    }
    return true;
}

/** "12.3 ms", three digits that count. */
static const char *time_format(double nanoseconds, char out[SIZE_TEXT_BYTES]) {
    static const char *const units[] = {"ns", "us", "ms", "s"};
    int unit = 0;
    while (nanoseconds >= 1000 && unit < 3) {
        nanoseconds /= 1000;
        unit++;
    }
    snprintf(out, SIZE_TEXT_BYTES, "%.*f %s",
             nanoseconds < 10    ? 2
             : nanoseconds < 100 ? 1
                                 : 0,
             nanoseconds, units[unit]);
    return out;
}

/** The cells that stand once for a group. */
static void add_group(struct table *table, const struct group *group) {
    const struct run_result *first = group->first;
    const struct trial *trial = &first->trial;
    char text[LINEAR_TEXT_BYTES], size[SIZE_TEXT_BYTES], time[SIZE_TEXT_BYTES];
    table_add(table, STYLE_BOLD, "%s", group->count > 1 ? group->pattern : first->name);
    table_add(table, STYLE_PLAIN, "%zu", group->count);
    table_add(table, STYLE_PLAIN, "%s%s",
              first->linear.struct_size > 0 ? linear_format(&first->linear, text) : "-",
              first->bias ? " bias" : "");
    if (trial->has_kernel) {
        table_add(table, trial->kernel.fallback ? STYLE_WARNING : STYLE_GOOD, "%s%s",
                  trial->kernel.kernel, trial->kernel.fallback ? " (fallback)" : "");
        table_add(table, STYLE_PLAIN, "%s", size_format(trial->prepared_bytes, size));
        table_add(table, STYLE_PLAIN, "%s",
                  time_format((double)group->prepare_nanoseconds / (double)group->count, time));
    } else {
        table_add(table, STYLE_BAD, "none");
        table_add(table, STYLE_PLAIN, "-");
        table_add(table, STYLE_PLAIN, "-");
    }
}

static void add_apply(struct table *table, const struct group *group, size_t index) {
    const struct trial_apply *apply = &group->worst[index];
    char time[SIZE_TEXT_BYTES];
    bool good = apply->error <= group->first->trial.bound;
    table_add(table, STYLE_PLAIN, "%" PRId64, apply->m);
    table_add(table, STYLE_PLAIN, "%s",
              time_format((double)apply->nanoseconds / (double)group->count, time));
    table_add(table, good ? STYLE_GOOD : STYLE_BAD, "%.1e", apply->error);
    table_add(table, STYLE_DIM, "%.0e", group->first->trial.bound);
}

static void add_rows(struct table *table, const struct group *group) {
    size_t applies = group->first->trial.apply_count;
    add_group(table, group);
    for (int column = 0; applies == 0 && column < 4; column++)
        table_add(table, STYLE_PLAIN, "-");
    for (size_t i = 0; i < applies; i++) {
        for (int column = 0; i > 0 && column < 6; column++)
            table_add(table, STYLE_PLAIN, "%s", "");
        add_apply(table, group, i);
    }
    const char *complaint = group->first->trial.complaint;
    if (group->first->exit_code != EXIT_YES)
        table_note(table, STYLE_BAD, "%s", complaint != NULL ? complaint : "out of memory");
}

static bool print_table(const struct run_results *results) {
    static const struct column columns[] = {
        {"LAYER", false},  {"LAYERS", true}, {"K×N", false},  {"KERNEL", false}, {"PREPARED", true},
        {"PREPARE", true}, {"M", true},      {"APPLY", true}, {"ERROR", true},   {"BOUND", true}};
    struct group *groups = calloc(results->count + 1, sizeof *groups);
    size_t count = 0;
    bool good = groups != NULL;
    for (size_t i = 0; i < results->count && good; i++)
        good = collect(groups, &count, &results->items[i]);
    struct table table;
    table_begin(&table, columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < count; i++) {
        if (good)
            add_rows(&table, &groups[i]);
        free(groups[i].pattern);
        free(groups[i].worst);
    }
    free(groups);
    return table_print(&table, stdout, 0) && good;
}

static int report_table(const struct trial_setting *setting, const struct run_results *results) {
    char text[LINEAR_TEXT_BYTES], size[SIZE_TEXT_BYTES];
    printf("On %s, seed %" PRIu64 "\n\n", device_format(setting->device, text), setting->seed);
    if (!print_table(results))
        return complain(EXIT_MACHINE, "out of memory while reporting");
    size_t good = 0, slow = 0, mapped = 0, saved = 0;
    for (size_t i = 0; i < results->count; i++) {
        good += results->items[i].exit_code == EXIT_YES;
        slow += results->items[i].trial.has_kernel && results->items[i].trial.kernel.fallback;
        mapped += results->items[i].trial.cache == CACHE_MAPPED;
        saved += results->items[i].trial.cache > CACHE_MAPPED;
    }
    putchar('\n');
    print_styled(stdout, good == results->count ? STYLE_GOOD : STYLE_BAD, "%zu of %zu right", good,
                 results->count);
    if (slow > 0)
        printf(", %zu on a fallback", slow);
    if (mapped + saved > 0)
        printf(", %zu mapped, %zu prepared and saved", mapped, saved);
    printf("; peak memory %s\n", size_format(peak_memory(), size));
    return EXIT_YES;
}

/* ---- JSON ---------------------------------------------------------------------------- */

/** A number, or null for an infinite one, which JSON cannot say. */
static json_t *json_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *result_json(const struct run_result *result) {
    const struct trial *trial = &result->trial;
    json_t *object = json_object(), *applies = json_array();
    json_put(object, "name", json_text(result->name));
    json_put(object, "ok", json_boolean(result->exit_code == EXIT_YES));
    if (result->exit_code != EXIT_YES)
        json_put(object, "complaint", json_text(trial->complaint));
    if (result->linear.struct_size > 0)
        json_put(object, "linear", linear_json(&result->linear));
    json_put(object, "bias", json_boolean(result->bias));
    if (trial->has_kernel) {
        json_put(object, "kernel", json_text(trial->kernel.kernel));
        json_put(object, "plugin", json_text(trial->kernel.plugin));
        json_put(object, "fallback", json_boolean(trial->kernel.fallback));
        json_put(object, "decided_group_size", json_integer(trial->group_size));
        json_put(object, "prepared_bytes", json_integer((json_int_t)trial->prepared_bytes));
        json_put(object, "cache", json_text(cache_word(trial->cache)));
        json_put(object, "prepare_seconds", json_real((double)trial->prepare_nanoseconds * 1e-9));
    }
    for (size_t i = 0; i < trial->apply_count; i++) {
        json_t *apply = json_object();
        json_put(apply, "m", json_integer(trial->applies[i].m));
        json_put(apply, "ok", json_boolean(trial->applies[i].good));
        json_put(apply, "error", json_number(trial->applies[i].error));
        json_put(apply, "bound", json_real(trial->bound));
        json_put(apply, "seconds", json_real((double)trial->applies[i].nanoseconds * 1e-9));
        json_add(applies, apply);
    }
    json_put(object, "applies", applies);
    return object;
}

static int report_json(const struct trial_setting *setting, const struct run_results *results) {
    json_t *report = json_object(), *layers = json_array();
    for (size_t i = 0; i < results->count; i++)
        json_add(layers, result_json(&results->items[i]));
    json_put(report, "device", device_json(setting->device));
    json_put(report, "seed", json_integer((json_int_t)setting->seed));
    json_put(report, "ok", json_boolean(worst_code(results) == EXIT_YES));
    json_put(report, "layers", layers);
    json_put(report, "peak_memory_bytes", json_integer((json_int_t)peak_memory()));
    return json_print(report);
}

int run_report(const struct trial_setting *setting, const struct run_results *results, bool json) {
    int code = json ? report_json(setting, results) : report_table(setting, results);
    int worst = worst_code(results);
    return code > worst ? code : worst;
}
