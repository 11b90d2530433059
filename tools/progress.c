/*
 * A progress bar on standard error.
 */
#include "progress.h"

#include "clock.h"

#include <stdio.h>
#include <unistd.h>

enum { WIDTH = 30, REDRAW_NS = 50 * 1000 * 1000 };

void progress_begin(struct progress *progress, uint64_t total) {
    *progress = (struct progress){.total = total, .shown = isatty(STDERR_FILENO) == 1};
}

void progress_advance(struct progress *progress, uint64_t units, const char *label) {
    progress->done += units;
    int64_t now = clock_now();
    if (!progress->shown || now - progress->drawn < REDRAW_NS)
        return;
    progress->drawn = now;
    double part = progress->total > 0 ? (double)progress->done / (double)progress->total : 1;
    int filled = part < 1 ? (int)(part * WIDTH) : WIDTH;
    char bar[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[WIDTH] = '\0';
    fprintf(stderr, "\r\033[K[%s] %3.0f%% %.60s", bar, 100 * part, label);
    fflush(stderr);
}

void progress_clear(struct progress *progress) {
    if (!progress->shown || progress->drawn == 0)
        return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    progress->drawn = 0;
}
