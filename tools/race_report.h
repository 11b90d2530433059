/*
 * What a race found, as text and as JSON.
 */
#ifndef KERNELRY_TOOLS_RACE_REPORT_H
#define KERNELRY_TOOLS_RACE_REPORT_H

#include "race_layer.h"

#include <jansson.h>
#include <stdio.h>

/** A race and where it was run. Borrowed, but for the texts. */
struct race_report {
    const struct race_setting *setting;
    const struct race_row *limits; /* every way to a limit that the processor has */
    const struct race_rows *rows;
    char date[32];    /* "2025-11-22T20:47:00Z" */
    char commit[128]; /* git describe; "" outside a repository */
    char cpu[256];    /* the processor in a line */
    double load;      /* processes that ran in the minute before: figures want 0 */
};

/** Fill in date, commit and processor; `folder` may be inside a repository, or NULL. */
void race_report_place(struct race_report *report, const char *folder);

/** Print tables. Returns false when memory ran out. */
bool race_report_print(const struct race_report *report, FILE *out);
json_t *race_report_json(const struct race_report *report);

/** Which part of a limit an entry reaches with so much work an apply; 0: not measured. */
double race_report_part(const struct race_report *report, const struct race_row *row,
                        const struct race_entry *entry, enum limit_kind kind, double work);
/** "threads": how many times as long one thread takes; "aligned": the time per weight, in times
 *  of the nearest aligned layer's. 0: not measured. */
double race_report_beside(const struct race_report *report, const struct race_row *row,
                          const struct race_entry *entry, const char *beside);

/**
 * Write FOLDER/<date>-<processor>.json, .md and, by Python with `plot` (a script), .png; names
 * get a number where there is such a file. Says on standard error what was written, and what
 * could not be. Returns an exit code.
 */
int race_report_store(const struct race_report *report, const char *folder, const char *python,
                      const char *plot);

#endif
