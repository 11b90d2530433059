/*
 * A progress bar on standard error.
 */
#include "progress.h"

#include "clock.h"

#include <stdio.h>
#include <unistd.h>

enum { WIDTH = 30, LABEL_WIDTH = 60, REDRAW_NS = 50 * 1000 * 1000 };

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
    fprintf(stderr, "\r\033[K[%s] %3.0f%% ", bar, 100 * part);
    /* A label may be a name out of a file: control characters must not reach a terminal. */
    for (int i = 0; i < LABEL_WIDTH && label[i] != '\0'; i++)
        putc((unsigned char)label[i] < 0x20 || label[i] == 0x7f ? '?' : label[i], stderr);
    fflush(stderr);
}

void progress_clear(struct progress *progress) {
    if (!progress->shown || progress->drawn == 0)
        return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    progress->drawn = 0;
}
