/*
 * A progress bar on standard error, while that is a terminal.
 */
#ifndef KERNELRY_TOOLS_PROGRESS_H
#define KERNELRY_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/** A bar in progress. */
struct progress {
    uint64_t total; /* units of work, such as bytes */
    uint64_t done;
    int64_t drawn; /* when it was drawn last, in ns */
    bool shown;    /* whether there is a terminal to draw on */
};

void progress_begin(struct progress *progress, uint64_t total);

/** So many more units are done; `label` says of what. Redraws at most every 50 ms. */
void progress_advance(struct progress *progress, uint64_t units, const char *label);

/** Clear the line, also before something else is printed. */
void progress_clear(struct progress *progress);

#endif
