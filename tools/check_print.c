/*
 * What `kernelry check` shows.
 */
#include "check_print.h"

#include "command.h"
#include "table.h"
#include "words.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Whether two rows tell the same, but for the layers that they stand for. */
static bool tell_the_same(const struct row *a, const struct row *b) {
    if (a->finding != b->finding)
        return false;
    if (a->finding == FINDING_UNDESCRIBED)
        return a->reason && b->reason && !strcmp(a->reason, b->reason);
    return same_but_place(&a->linear, &b->linear);
}

/* Whether an earlier row, of this or an earlier section, tells the same. */
static bool is_told(const struct section *sections, size_t s, size_t i) {
    const struct row *row = &sections[s].survey.rows[i];
    for (size_t t = 0; t <= s; t++)
        for (size_t j = 0; j < (t < s ? sections[t].survey.count : i); j++)
            if (tell_the_same(&sections[t].survey.rows[j], row))
                return true;
    return false;
}

struct tally tally_sections(const struct section *sections, size_t count) {
    struct tally tally = {0};
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < sections[s].survey.count; i++) {
            const struct row *row = &sections[s].survey.rows[i];
            enum outcome outcome = row_outcome(row);
            if (is_told(sections, s, i))
                continue;
            tally.undescribed += row->finding == FINDING_UNDESCRIBED;
            tally.unsplit += row->finding == FINDING_UNSPLIT;
            tally.without_kernel += row->finding == FINDING_ANSWERED && outcome == OUTCOME_NONE;
            tally.slow += outcome == OUTCOME_SLOW;
            tally.fast += outcome == OUTCOME_FAST;
        }
    return tally;
}

/* ---- names --------------------------------------------------------------------------- */

/* Bytes that all patterns of the rows begin with, ending behind a dot. */
static size_t common_prefix(const struct survey *survey) {
    const char *first = survey->name_count ? survey->names[0] : "";
    size_t common = strlen(first);
    for (size_t i = 0; i < survey->name_count; i++) {
        size_t same = 0;
        while (same < common && survey->names[i][same] == first[same])
            same++;
        common = same;
    }
    while (common && first[common - 1] != '.')
        common--;
    return common;
}

static size_t parent_bytes(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot ? (size_t)(dot - name) + 1 : 0;
}

static size_t count_siblings(const struct row *row, size_t i) {
    size_t parent = parent_bytes(row->patterns[i]), end = i + 1;
    while (end < row->pattern_count && parent_bytes(row->patterns[end]) == parent &&
           !memcmp(row->patterns[i], row->patterns[end], parent))
        end++;
    return end - i;
}

/* "self_attn.{k_proj,v_proj}, mlp.down_proj": the patterns without the first `skip` bytes. To
 * be freed; NULL when memory runs out. */
static char *join_patterns(const struct row *row, size_t skip) {
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    for (size_t i = 0, siblings; i < row->pattern_count; i += siblings) {
        size_t parent = parent_bytes(row->patterns[i]);
        siblings = count_siblings(row, i);
        fprintf(out, "%s%.*s%s", i ? ", " : "", (int)(parent - skip), row->patterns[i] + skip,
                siblings > 1 ? "{" : "");
        for (size_t j = i; j < i + siblings; j++)
            fprintf(out, "%s%s", j > i ? "," : "", row->patterns[j] + parent);
        if (siblings > 1)
            putc('}', out);
    }
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

/* "row 0,2-3 of 4": how a row is split. */
static void add_split(struct table *table, const struct row *row, int64_t ranks) {
    char text[256] = "";
    size_t length = 0;
    if (row->parallel != PARALLEL_ROW || (int64_t)row->rank_count == ranks) {
        table_add(table, STYLE_PLAIN, "%s", parallel_word(row->parallel));
        return;
    }
    for (size_t i = 0, end; i < row->rank_count && length < sizeof text - 48; i = end) {
        for (end = i + 1; end < row->rank_count && row->ranks[end] == row->ranks[end - 1] + 1;)
            end++;
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%" PRId64, i ? "," : "",
                                   row->ranks[i]);
        if (end > i + 1)
            length += (size_t)snprintf(text + length, sizeof text - length, "-%" PRId64,
                                       row->ranks[end - 1]);
    }
    table_add(table, STYLE_PLAIN, "row, rank%s %s", row->rank_count > 1 ? "s" : "", text);
}

/* ---- rows ---------------------------------------------------------------------------- */

static void add_shape(struct table *table, const struct row *row) {
    char text[LINEAR_TEXT_BYTES];
    kry_linear linear = row->linear;
    if (row->finding == FINDING_UNDESCRIBED) {
        table_add(table, STYLE_PLAIN, "-");
        return;
    }
    /* One row may stand for several ranks: where each starts is not told, but that they start
     * inside a group is. */
    if (row->rank_count > 1 && !linear_starts_inside_group(&linear))
        linear.k_offset = 0;
    table_add(table, STYLE_PLAIN, "%s", linear_format(&linear, text));
}

static void add_verdict(struct table *table, const struct row *row) {
    static const char *const words[] = {"", "no kernel", "cannot be split", "not supported"};
    char rewrite[REASON_BYTES], bytes[SIZE_TEXT_BYTES];
    if (row_outcome(row) == OUTCOME_NONE) {
        table_add(table, STYLE_BAD, "-");
        table_add(table, STYLE_BAD, "%s", words[1 + row->finding]);
        return;
    }
    const struct answer *answer = &row->answer;
    bool slow = answer->outcome == OUTCOME_SLOW;
    bool padded = answer->winner.padding_bytes > 0;
    table_add(table, STYLE_BOLD, "%s", answer->winner.kernel);
    rewrite_format(answer, rewrite);
    table_add(table, slow ? STYLE_WARNING : STYLE_GOOD, "%s%s%s%s%s",
              slow ? "slow: the fallback" : "ok", rewrite[0] ? ", " : "", rewrite,
              padded ? ", padding " : "",
              padded ? size_format((uint64_t)answer->winner.padding_bytes, bytes) : "");
}

static bool print_section(const struct question *question, const struct section *section) {
    static const struct column columns[] = {{"SHAPE (K×N)", false},
                                            {"LAYERS", true},
                                            {"KERNEL", false},
                                            {"VERDICT", false},
                                            {"NAMES", false}};
    static const struct column split_columns[] = {{"SHAPE (K×N)", false}, {"SPLIT", false},
                                                  {"LAYERS", true},       {"KERNEL", false},
                                                  {"VERDICT", false},     {"NAMES", false}};
    bool split = question->ranks > 1;
    size_t skip = common_prefix(&section->survey);
    struct table table;
    table_begin(&table, split ? split_columns : columns, split ? 6 : 5);
    for (size_t i = 0; i < section->survey.count; i++) {
        const struct row *row = &section->survey.rows[i];
        char *names = join_patterns(row, skip);
        add_shape(&table, row);
        if (split)
            add_split(&table, row, question->ranks);
        table_add(&table, STYLE_PLAIN, "%zu", row->layers);
        add_verdict(&table, row);
        table_add(&table, STYLE_DIM, "%s", names ? names : "out of memory");
        free(names);
        char needs[REASON_BYTES];
        if (row->finding == FINDING_ANSWERED && *needs_format(&row->answer, needs))
            table_note(&table, STYLE_DIM, "%s", needs);
        if (row->finding != FINDING_ANSWERED)
            table_note(&table, STYLE_WARNING, "%s", row->reason ? row->reason : "out of memory");
    }
    putchar('\n');
    if (section->title)
        print_styled(stdout, STYLE_BOLD, "%s", section->title);
    if (skip)
        print_styled(stdout, STYLE_DIM, "%snames below %.*s", section->title ? ", " : "",
                     (int)skip - 1, section->survey.names[0]);
    if (section->title || skip)
        putchar('\n');
    return table_print(&table, stdout, 2);
}

/* ---- reasons ------------------------------------------------------------------------- */

/* Who refuses a row and why, as a table. To be freed; NULL when memory runs out, "" when nobody
 * refuses. */
static char *refusals_of(const struct row *row, const char *only) {
    static const struct column columns[] = {{"KERNEL", false}, {"REFUSES BECAUSE", false}};
    struct table table;
    bool any = false;
    table_begin(&table, columns, 2);
    for (size_t i = 0; i < row->answer.info.candidate_count; i++) {
        kry_candidate candidate = KRY_INIT(kry_candidate);
        char reason[REASON_BYTES];
        if (kry_decision_candidate(row->answer.decision, i, &candidate) ||
            !candidate_matches(&candidate, only) || candidate.verdict != KRY_VERDICT_REFUSES)
            continue;
        any = true;
        table_add(&table, STYLE_PLAIN, "%s", candidate.kernel);
        table_add(&table, STYLE_PLAIN, "%s", reason_format(&candidate, reason));
    }
    if (!any)
        return strdup("");
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    bool printed = out && table_print(&table, out, 4);
    if ((out && fclose(out)) || !printed) {
        free(text);
        return NULL;
    }
    return text;
}

/* A row that is slow or has no kernel, with the reasons. */
struct complaint {
    const struct row *row;
    char *refusals; /* NULL: printed already */
};

/* Each description once. Returns how many there are; memory that runs out shortens the list. */
static size_t collect_complaints(const struct question *question, const struct section *sections,
                                 size_t count, struct complaint *out) {
    size_t complaints = 0;
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < sections[s].survey.count; i++) {
            const struct row *row = &sections[s].survey.rows[i];
            if (row->finding != FINDING_ANSWERED || row->answer.outcome == OUTCOME_FAST ||
                is_told(sections, s, i))
                continue;
            out[complaints].row = row;
            out[complaints].refusals = refusals_of(row, question->common->kernel);
            complaints += out[complaints].refusals != NULL;
        }
    return complaints;
}

static void print_heading(const struct row *row) {
    char text[LINEAR_TEXT_BYTES];
    bool none = row->answer.outcome == OUTCOME_NONE;
    print_styled(stdout, none ? STYLE_BAD : STYLE_WARNING, "%s", linear_format(&row->linear, text));
    puts(none ? " has no kernel" : " takes a slow path");
}

/* A description that is refused for just the same reasons as one before shares its table. */
static void print_complaints(struct complaint *complaints, size_t count, const char *platform) {
    bool unopposed = false;
    for (size_t i = 0; i < count; i++) {
        char *refusals = complaints[i].refusals;
        if (!refusals || !refusals[0]) {
            unopposed = unopposed || refusals;
            free(refusals);
            continue;
        }
        putchar('\n');
        print_heading(complaints[i].row);
        for (size_t j = i + 1; j < count; j++)
            if (complaints[j].refusals && !strcmp(refusals, complaints[j].refusals)) {
                print_heading(complaints[j].row);
                free(complaints[j].refusals);
                complaints[j].refusals = NULL;
            }
        fputs(refusals, stdout);
        free(refusals);
    }
    if (unopposed)
        printf("\nThe fallback is the only kernel for \"%s\": no plugin brings a faster one.\n",
               platform);
}

static bool print_reasons(const struct question *question, const struct section *sections,
                          size_t count) {
    size_t rows = 0;
    for (size_t s = 0; s < count; s++)
        rows += sections[s].survey.count;
    struct complaint *complaints = calloc(rows + 1, sizeof *complaints);
    if (!complaints) {
        complain(EXIT_MACHINE, "out of memory");
        return false;
    }
    print_complaints(complaints, collect_complaints(question, sections, count, complaints),
                     question->device->platform);
    free(complaints);
    return true;
}

bool print_sections(const struct question *question, const struct section *sections, size_t count) {
    bool good = true;
    for (size_t s = 0; s < count && good; s++)
        /* A section that has as many layers as the one before has fused none. */
        if (s && sections[s].survey.layers == sections[s - 1].survey.layers)
            puts("\nServing stacks fuse none of these.");
        else
            good = print_section(question, &sections[s]);
    return good && print_reasons(question, sections, count);
}

/* ---- JSON ---------------------------------------------------------------------------- */

static json_t *row_json(const struct row *row, const char *only) {
    static const char *const findings[] = {"answered", "cannot_be_split", "not_supported"};
    json_t *object = json_object(), *names = json_array(), *ranks = json_array();
    for (size_t i = 0; i < row->pattern_count; i++)
        json_add(names, json_text(row->patterns[i]));
    for (size_t i = 0; i < row->rank_count; i++)
        json_add(ranks, json_integer(row->ranks[i]));
    json_put(object, "names", names);
    json_put(object, "layers", json_integer((json_int_t)row->layers));
    json_put(object, "split", json_text(parallel_word(row->parallel)));
    json_put(object, "ranks", ranks);
    json_put(object, "finding", json_text(findings[row->finding]));
    json_put(object, "linear",
             row->finding == FINDING_UNDESCRIBED ? json_null() : linear_json(&row->linear));
    if (row->finding == FINDING_ANSWERED) {
        answer_json(&row->answer, object);
        json_put(object, "candidates", candidates_json(&row->answer, only));
    } else {
        json_put(object, "outcome", json_text(outcome_word(OUTCOME_NONE)));
        json_put(object, "reason", json_text(row->reason));
    }
    return object;
}

json_t *survey_json(const struct survey *survey, const char *only) {
    json_t *rows = json_array();
    for (size_t i = 0; i < survey->count; i++)
        json_add(rows, row_json(&survey->rows[i], only));
    return rows;
}
