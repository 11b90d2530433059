/*
 * What is told of findings: lines for people, or JSON.
 */
#ifndef KERNELRY_CONFORMANCE_FINDINGS_H
#define KERNELRY_CONFORMANCE_FINDINGS_H

#include "command.h"
#include "conformance.h"
#include "junit.h"

#include <jansson.h>

/** A report of a plugin, kernel by kernel. */
struct findings {
    const struct common_options *common; /* borrowed; for the command that repeats a case */
    const char *path;                    /* of the plugin, as given */
    int64_t most_cases;                  /* of a check; 0: all */
    bool quick;
    struct junit *junit; /* borrowed */
    json_t *kernels;     /* NULL: for people; else a list, the caller's to take */
    json_t *checks;      /* of the kernel at hand */
    /* Checks that were skipped in a row, for the same reason: told at once. */
    struct conformance_finding skipping;
    char skipped_names[256];
    size_t skipping_count;
    struct tally {
        size_t ok, failed, skipped;
        double seconds;
    } kernel, all;
    bool any; /* some check of some kernel was not skipped */
};

/** Begin with a kernel. */
void findings_kernel(struct findings *findings, const kry_kernel_info *kernel);

/** Tell what a check of it found. */
void findings_add(struct findings *findings, const kry_kernel_info *kernel,
                  const struct conformance_check *check, const struct conformance_finding *finding);

/** End with it. */
void findings_kernel_end(struct findings *findings, const kry_kernel_info *kernel);

#endif
