/*
 * What `kernelry check` shows.
 */
#ifndef KERNELRY_CHECK_PRINT_H
#define KERNELRY_CHECK_PRINT_H

#include "survey.h"

#include <jansson.h>

/** A part of the report: one way to look at the layers. */
struct section {
    const char *key;   /* in JSON */
    const char *title; /* for people; NULL: none */
    struct survey survey;
};

/** Distinct descriptions over all sections, by how good their answers are. */
struct tally {
    size_t fast, slow, without_kernel, unsplit, undescribed;
};

struct tally tally_sections(const struct section *sections, size_t count);

/** Print the sections for people, then why paths are slow or missing. Returns false when
 *  memory ran out. */
bool print_sections(const struct question *question, const struct section *sections, size_t count);

/** The rows of a survey as a JSON array. */
json_t *survey_json(const struct survey *survey, const char *only);

#endif
