/*
 * A survey: the distinct descriptions among many layers, each decided once.
 */
#ifndef KERNELRY_SURVEY_H
#define KERNELRY_SURVEY_H

#include "answer.h"
#include "fuse.h"

/** What became of a row. */
enum finding {
    FINDING_ANSWERED,   /* answer tells */
    FINDING_UNSPLIT,    /* its features do not divide by the ranks; reason tells */
    FINDING_UNDESCRIBED /* a scheme outside this library; reason tells */
};

/** Layers that a stack runs alike. */
struct row {
    enum finding finding;
    struct answer answer; /* with ANSWERED */
    char *reason;         /* otherwise; may be NULL */
    kry_linear linear;    /* of the first of the ranks; whole with UNSPLIT, zero with UNDESCRIBED */
    enum parallel parallel;
    size_t layers;
    const char **patterns; /* distinct, sorted; borrowed from the survey */
    size_t pattern_count;
    int64_t *ranks; /* that hold this description, ascending */
    size_t rank_count;
};

struct survey {
    struct row *rows; /* in the order of the first layer of each */
    size_t count;
    size_t layers; /* of all rows, each counted once */
    char **names;  /* patterns of the units */
    size_t name_count;
};

/** Whom a survey asks. */
struct question {
    kry_registry *registry;
    const kry_device *device;
    const struct common_options *common; /* --kernel and --m are read */
    int64_t ranks;                       /* at least 1 */
    bool whole_names;                    /* numbers in names mean something: no patterns */
};

/**
 * Survey units.
 *
 * Ownership  *out is freed by survey_free. Errors: KRY_E_MEMORY and those of answer_create.
 */
kry_status survey_create(const struct question *question, const struct units *units,
                         struct survey *out);
void survey_free(struct survey *survey);

/** How good a row is: that of its answer, OUTCOME_NONE where there is none. */
enum outcome row_outcome(const struct row *row);

#endif
