/*
 * The report of `kernelry explain`: a layer after another, for people or as JSON.
 */
#ifndef KERNELRY_REPORT_H
#define KERNELRY_REPORT_H

#include "command.h"

/** What is being answered: printed as it goes, or collected. */
struct report {
    const struct common_options *common;
    kry_registry *registry;
    const kry_device *device;
    json_t *layers; /* an array; NULL: print for people */
    size_t count;
    bool all_run;
};

/**
 * Decide for a description and report it. Returns EXIT_YES also where no kernel runs it
 * (all_run tells); another code: it has been complained of.
 */
int report_layer(struct report *report, const char *name, const char *why,
                 const kry_linear *linear);

#endif
