/*
 * A trial: a plugin is loaded and asked in a process of its own before it may run in this one.
 * probe.c starts the helper, kernelry-probe, and words what it reports; probe_main.c is the
 * helper. They share one page of memory, which also tells how far a process came that is gone.
 */
#ifndef KERNELRY_PROBE_H
#define KERNELRY_PROBE_H

#include "core.h"

/** The descriptor on which the helper finds the report. */
#define PROBE_REPORT_FD 3
/** What the helper exits with when it was not started by a library of its own release. */
#define PROBE_EXIT_FOREIGN 64

/**
 * Written by the plugin's process up to `reason`, by the one that watches it from `concluded` on.
 * The plugin can scribble over all of it: its reader bounds every text and takes no number as it
 * is.
 */
struct probe_report {
    char release[32]; /* of the library, which the helper compares with its own */
    char step[192];   /* what the plugin is doing, such as "in its entry kry_plugin_x" */
    uint32_t finished;
    kry_status status; /* what the core found wrong with it, when finished */
    char reason[1024];

    uint32_t concluded;
    uint32_t timed_out;
    int32_t ended; /* the plugin's process, as waitpid tells */
    uint32_t left; /* processes that the plugin started and left behind; they were killed */
};

#endif
