/*
 * A survey: group equal descriptions, split them over the ranks, decide each once.
 */
#include "survey.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A unit while equal ones are brought together. */
struct entry {
    const struct unit *unit;
    const char *pattern;
    size_t index;
    bool split; /* more than one rank: how a unit is split makes a difference */
};

static int compare(int64_t a, int64_t b) { return (a > b) - (a < b); }

/* What makes units different for a survey. kry_linear has no padding, so memcmp is fair. */
static int compare_kinds(const struct entry *a, const struct entry *b) {
    int order = compare(a->unit->status, b->unit->status);
    if (!order)
        order = strcmp(a->unit->reason, b->unit->reason);
    if (!order)
        order = memcmp(&a->unit->linear, &b->unit->linear, sizeof a->unit->linear);
    if (!order && a->split)
        order = compare(a->unit->parallel, b->unit->parallel);
    if (!order && a->split)
        order = memcmp(a->unit->parts, b->unit->parts, sizeof a->unit->parts);
    return order;
}

static int compare_entries(const void *left, const void *right) {
    const struct entry *a = left, *b = right;
    int order = compare_kinds(a, b);
    if (!order)
        order = strcmp(a->pattern, b->pattern);
    return order ? order : (a->index > b->index) - (a->index < b->index);
}

/* ---- rows ---------------------------------------------------------------------------- */

static kry_status out_of_memory(void) {
    kry_error_set(KRY_E_MEMORY, "out of memory");
    return KRY_E_MEMORY; /* so that the analyzer sees that it is not KRY_OK */
}

static void free_row(struct row *row) {
    answer_free(&row->answer);
    free(row->reason);
    free(row->patterns);
    free(row->ranks);
}

void survey_free(struct survey *survey) {
    for (size_t i = 0; i < survey->count; i++)
        free_row(&survey->rows[i]);
    free(survey->rows);
    for (size_t i = 0; i < survey->name_count; i++)
        free(survey->names[i]);
    free(survey->names);
    *survey = (struct survey){0};
}

enum outcome row_outcome(const struct row *row) {
    return row->finding == FINDING_ANSWERED ? row->answer.outcome : OUTCOME_NONE;
}

static kry_status add_rank(struct row *row, int64_t rank) {
    int64_t *grown = realloc(row->ranks, (row->rank_count + 1) * sizeof *grown);
    if (!grown)
        return out_of_memory();
    row->ranks = grown;
    grown[row->rank_count++] = rank;
    return KRY_OK;
}

/* Append a row; the row is freed when that fails. */
static kry_status add_row(struct survey *survey, struct row *row) {
    struct row *grown = realloc(survey->rows, (survey->count + 1) * sizeof *grown);
    if (!grown) {
        free_row(row);
        return out_of_memory();
    }
    survey->rows = grown;
    grown[survey->count++] = *row;
    return KRY_OK;
}

/* The distinct patterns of entries, which are sorted by them. */
static kry_status set_patterns(struct row *row, const struct entry *entries, size_t count) {
    row->patterns = malloc(count * sizeof *row->patterns);
    if (!row->patterns)
        return out_of_memory();
    for (size_t i = 0; i < count; i++)
        if (!i || strcmp(entries[i].pattern, entries[i - 1].pattern) != 0)
            row->patterns[row->pattern_count++] = entries[i].pattern;
    row->layers = count;
    return KRY_OK;
}

static bool same_answer(const struct answer *a, const struct answer *b) {
    return a->outcome == b->outcome && a->info.rewrite == b->info.rewrite &&
           (a->outcome == OUTCOME_NONE || (!strcmp(a->winner.kernel, b->winner.kernel) &&
                                           !strcmp(a->winner.plugin, b->winner.plugin)));
}

/* A row for one rank, or its number added to a row since `first` that tells the same. */
static kry_status answer_rank(const struct question *question, struct survey *survey, size_t first,
                              const struct entry *entries, size_t count, int64_t rank) {
    const struct unit *unit = entries[0].unit;
    struct row row = {.linear = unit->linear, .parallel = unit->parallel};
    kry_status status;
    if (unit->status) {
        row.finding = FINDING_UNDESCRIBED;
        row.reason = strdup(unit->reason);
    } else if (unit_partition(unit, question->ranks, rank, &row.linear)) {
        row.finding = FINDING_UNSPLIT;
        row.reason = strdup(kry_error_message());
    } else {
        status = answer_create(question->registry, question->device, &row.linear, question->common,
                               &row.answer);
        if (status)
            return status;
        for (size_t i = first; i < survey->count; i++)
            if (same_but_place(&survey->rows[i].linear, &row.linear) &&
                same_answer(&survey->rows[i].answer, &row.answer)) {
                free_row(&row);
                return add_rank(&survey->rows[i], rank);
            }
    }
    status = set_patterns(&row, entries, count);
    if (!status)
        status = add_rank(&row, rank);
    if (status) {
        free_row(&row);
        return status;
    }
    return add_row(survey, &row);
}

/* Ranks differ only where a unit is split along K; elsewhere rank 0 stands for all. */
static kry_status answer_kind(const struct question *question, struct survey *survey,
                              const struct entry *entries, size_t count) {
    const struct unit *unit = entries[0].unit;
    bool alike = unit->status || unit->parallel != PARALLEL_ROW ||
                 unit->linear.in_features % question->ranks;
    size_t first = survey->count;
    kry_status status = KRY_OK;
    for (int64_t rank = 0; rank < (alike ? 1 : question->ranks) && !status; rank++)
        status = answer_rank(question, survey, first, entries, count, rank);
    if (status || !alike)
        return status;
    assert(survey->count == first + 1);
    for (int64_t rank = 1; rank < question->ranks && !status; rank++)
        status = add_rank(&survey->rows[first], rank);
    return status;
}

/* ---- the survey ---------------------------------------------------------------------- */

/* A kind of units: a run of sorted entries. */
struct kind {
    size_t begin, end;
    size_t first; /* the least index of its units: the place in the report */
};

static int compare_places(const void *left, const void *right) {
    const struct kind *a = left, *b = right;
    return (a->first > b->first) - (a->first < b->first);
}

static size_t find_kinds(const struct entry *entries, size_t count, struct kind *kinds) {
    size_t kind_count = 0;
    for (size_t begin = 0, end; begin < count; begin = end) {
        struct kind *kind = &kinds[kind_count++];
        *kind = (struct kind){.begin = begin, .first = entries[begin].index};
        for (end = begin; end < count && !compare_kinds(&entries[begin], &entries[end]); end++)
            if (entries[end].index < kind->first)
                kind->first = entries[end].index;
        kind->end = end;
    }
    qsort(kinds, kind_count, sizeof *kinds, compare_places);
    return kind_count;
}

static kry_status make_entries(const struct question *question, const struct units *units,
                               struct survey *survey, struct entry *entries) {
    for (size_t i = 0; i < units->count; i++) {
        const char *name = units->items[i].name;
        char *pattern = question->whole_names ? strdup(name) : name_pattern(name);
        if (!pattern)
            return out_of_memory();
        survey->names[survey->name_count++] = pattern;
        entries[i] = (struct entry){&units->items[i], pattern, i, question->ranks > 1};
    }
    qsort(entries, units->count, sizeof *entries, compare_entries);
    return KRY_OK;
}

kry_status survey_create(const struct question *question, const struct units *units,
                         struct survey *out) {
    struct survey survey = {.layers = units->count};
    struct entry *entries = calloc(units->count + 1, sizeof *entries);
    struct kind *kinds = calloc(units->count + 1, sizeof *kinds);
    survey.names = calloc(units->count + 1, sizeof *survey.names);
    kry_status status = KRY_OK;
    if (!entries || !kinds || !survey.names) {
        status = out_of_memory();
        goto out;
    }
    status = make_entries(question, units, &survey, entries);
    size_t kind_count = status ? 0 : find_kinds(entries, units->count, kinds);
    for (size_t i = 0; i < kind_count && !status; i++)
        status =
            answer_kind(question, &survey, entries + kinds[i].begin, kinds[i].end - kinds[i].begin);
out:
    free(entries);
    free(kinds);
    if (status)
        survey_free(&survey);
    else
        *out = survey;
    return status;
}
