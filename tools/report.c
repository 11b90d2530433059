/*
 * The report of `kernelry explain`.
 */
#include "report.h"

#include "answer.h"
#include "table.h"
#include "words.h"

#include <string.h>

/* Columns without those that tell why a kernel refuses. */
enum { PLAIN_COLUMNS = 5 };

/* Somebody refuses: then the table says why. */
static bool has_refusals(const struct answer *answer, const char *only) {
    for (size_t i = 0; i < answer->info.candidate_count; i++) {
        kry_candidate candidate = KRY_INIT(kry_candidate);
        if (!kry_decision_candidate(answer->decision, i, &candidate) &&
            candidate_matches(&candidate, only) && candidate.verdict == KRY_VERDICT_REFUSES)
            return true;
    }
    return false;
}

static void add_candidate(struct table *table, size_t rank, const kry_candidate *candidate,
                          bool won) {
    static const char *const verdicts[] = {"?", "accepts", "accepts", "refuses"};
    char found[REASON_BYTES] = "", needed[REASON_BYTES] = "", reason[REASON_BYTES];
    bool refuses = candidate->verdict == KRY_VERDICT_REFUSES;
    if (refuses && candidate->refusal) {
        found_format(candidate->refusal, found);
        needed_format(candidate->refusal, needed);
    }
    enum style style = won ? STYLE_GOOD : refuses ? STYLE_WARNING : STYLE_PLAIN;
    table_add(table, STYLE_DIM, "%zu", rank + 1);
    table_add(table, won ? STYLE_BOLD : STYLE_PLAIN, "%s", candidate->kernel);
    table_add(table, STYLE_PLAIN, "%s", candidate->plugin);
    table_add(table, STYLE_PLAIN, "%d%s", candidate->priority,
              candidate->fallback ? " (fallback)" : "");
    table_add(table, style, "%s", won ? "runs it" : verdicts[candidate->verdict & 3]);
    if (table->column_count == PLAIN_COLUMNS)
        return;
    table_add(table, STYLE_PLAIN, "%s", found);
    table_add(table, STYLE_PLAIN, "%s", needed);
    table_add(table, STYLE_PLAIN, "%s", reason_format(candidate, reason));
}

static void print_verdict(const struct answer *answer) {
    if (answer->outcome == OUTCOME_NONE) {
        fputs("  ", stdout);
        print_styled(stdout, STYLE_BAD, "No kernel can run it.");
        putchar('\n');
        return;
    }
    char rewrite[REASON_BYTES], bytes[SIZE_TEXT_BYTES];
    bool slow = answer->outcome == OUTCOME_SLOW;
    fputs("  ", stdout);
    print_styled(stdout, slow ? STYLE_WARNING : STYLE_GOOD, "%s runs it%s.", answer->winner.kernel,
                 slow ? ", the fallback: a slow path" : "");
    if (*rewrite_format(answer, rewrite))
        print_styled(stdout, STYLE_PLAIN, " Rewritten: %s.", rewrite);
    if (answer->winner.padding_bytes)
        print_styled(stdout, STYLE_PLAIN, " Padding: %s.",
                     size_format((uint64_t)answer->winner.padding_bytes, bytes));
    char needs[REASON_BYTES];
    if (*needs_format(answer, needs))
        print_styled(stdout, STYLE_PLAIN, " Memory: %s.", needs);
    putchar('\n');
}

static bool print_candidates(const struct answer *answer, const char *only) {
    static const struct column columns[] = {
        {"#", true},        {"KERNEL", false}, {"PLUGIN", false}, {"PRIORITY", false},
        {"VERDICT", false}, {"FOUND", false},  {"NEEDED", false}, {"WHY", false}};
    struct table table;
    table_begin(&table, columns,
                has_refusals(answer, only) ? sizeof columns / sizeof columns[0] : PLAIN_COLUMNS);
    for (size_t i = 0; i < answer->info.candidate_count; i++) {
        kry_candidate candidate = KRY_INIT(kry_candidate);
        if (kry_decision_candidate(answer->decision, i, &candidate) ||
            !candidate_matches(&candidate, only))
            continue;
        bool won = answer->outcome != OUTCOME_NONE &&
                   !strcmp(candidate.kernel, answer->winner.kernel) &&
                   !strcmp(candidate.plugin, answer->winner.plugin);
        add_candidate(&table, i, &candidate, won);
    }
    return table_print(&table, stdout, 2);
}

static bool print_answer(const struct report *report, const struct answer *answer, const char *name,
                         const char *why) {
    char text[LINEAR_TEXT_BYTES];
    if (report->count == 0)
        printf("On %s\n", device_format(report->device, text));
    putchar('\n');
    print_styled(stdout, STYLE_BOLD, "%s", name);
    print_styled(stdout, STYLE_PLAIN, "  %s", linear_format(answer->info.asked, text));
    if (*why)
        print_styled(stdout, STYLE_DIM, "  (%s)", why);
    putchar('\n');
    bool printed = print_candidates(answer, report->common->kernel);
    print_verdict(answer);
    return printed;
}

int report_layer(struct report *report, const char *name, const char *why,
                 const kry_linear *linear) {
    struct answer answer;
    kry_status status =
        answer_create(report->registry, report->device, linear, report->common, &answer);
    if (status)
        return status == KRY_E_NOT_FOUND ? complain(EXIT_USAGE, "%s", kry_error_message())
                                         : complain_status(status);
    bool good = true;
    if (report->layers) {
        json_t *object = json_object();
        json_put(object, "name", json_text(name));
        json_put(object, "linear", linear_json(answer.info.asked));
        answer_json(&answer, object);
        json_put(object, "candidates", candidates_json(&answer, report->common->kernel));
        json_add(report->layers, object);
    } else {
        good = print_answer(report, &answer, name, why);
    }
    report->all_run = report->all_run && answer.outcome != OUTCOME_NONE;
    report->count++;
    answer_free(&answer);
    return good ? EXIT_YES : EXIT_MACHINE;
}
