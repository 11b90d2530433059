/*
 * A report as JUnit XML, which CI servers read: a suite for each kernel, a case for each check.
 */
#ifndef KERNELRY_CONFORMANCE_JUNIT_H
#define KERNELRY_CONFORMANCE_JUNIT_H

#include "atomic_file.h"
#include "conformance.h"

#include <stdio.h>

/** A report in the making; all zero: none is wanted, and nothing below does anything. */
struct junit {
    bool wanted;
    struct atomic_file file;
    FILE *suites, *cases;
    char *suites_text, *cases_text;
    size_t suites_size, cases_size;
    size_t tests, failures, skipped; /* of the suite at hand */
    double seconds;
};

/** Begin a report; path NULL: none. Errors: KRY_E_IO names the file; KRY_E_MEMORY. Then, too, it is
 *  ended by junit_end. */
kry_status junit_begin(struct junit *junit, const char *path);

/** Add a check of the suite at hand. command: what repeats it, where it failed. */
void junit_add(struct junit *junit, const char *suite, const struct conformance_check *check,
               const struct conformance_finding *finding, const char *command);

/** Add a single failure that is of no check, such as a plugin that was refused. */
void junit_add_error(struct junit *junit, const char *suite, const char *name, const char *message);

/** End the suite at hand, "plugin/kernel". */
void junit_suite_end(struct junit *junit, const char *suite);

/** With KRY_OK write the file, whole or not at all; with an earlier error write none and return
 *  that. Ends the report either way. Errors: KRY_E_IO names the file; KRY_E_MEMORY. */
kry_status junit_end(struct junit *junit, kry_status status);

#endif
