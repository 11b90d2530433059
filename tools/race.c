/*
 * A race: slices of time, in turn.
 */
#include "race.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    APPLIES_MOST = 1024, /* of a slice */
    SLOW_PARTS = 4,      /* an apply of more than a slice's part like this is slow: it needs no
                            apply that does not count, */
    PATIENCE = 4,        /* and once it took so many times its share of time, */
    ROUNDS_LEAST = 3     /* and this many rounds, no more of them */
};
#define NS_TOO_LONG 5e9 /* of one apply: a single round has to do */

static int compare_doubles(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double race_median(double *values, size_t count) {
    qsort(values, count, sizeof *values, compare_doubles);
    if (count == 0)
        return 0;
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

void race_trouble(char trouble[RACE_TROUBLE_BYTES]) {
    snprintf(trouble, RACE_TROUBLE_BYTES, "%s", kry_error_message());
}

/* ---- slices -------------------------------------------------------------------------- */

static double median_of_times(const int64_t *times, size_t count) {
    double values[APPLIES_MOST];
    for (size_t i = 0; i < count; i++)
        values[i] = (double)times[i];
    return race_median(values, count);
}

static bool is_slow(const struct race_pace *pace, const struct race_entry *entry) {
    return entry->usual * SLOW_PARTS > (double)pace->slice;
}

/** Apply until the slice is over. Returns the number of applies. */
static size_t slice_of_kernel(const struct race_pace *pace, struct race_entry *entry,
                              int64_t *times) {
    size_t count = 0;
    int64_t spent = 0, uncounted;
    crew_use(pace->crew, entry->threads);
    kry_status status = KRY_OK;
    if (!is_slow(pace, entry))
        status = rotation_apply(entry->rotation, entry->operands, &uncounted);
    while (status == KRY_OK && count < APPLIES_MOST && (count == 0 || spent < pace->slice)) {
        status = rotation_apply(entry->rotation, entry->operands, &times[count]);
        spent += times[count++];
    }
    if (status != KRY_OK)
        race_trouble(entry->trouble);
    return count;
}

static size_t slice_of_peer(const struct race_pace *pace, struct race_entry *entry, int64_t m,
                            int64_t *times) {
    double fit = (double)pace->slice / (entry->usual > 1 ? entry->usual : 1);
    size_t count = entry->usual == 0 || fit < 1 ? 1
                   : fit > APPLIES_MOST         ? APPLIES_MOST
                                                : (size_t)fit;
    if (peer_run(entry->peer, m, is_slow(pace, entry) ? 0 : 2, count, times) != KRY_OK)
        race_trouble(entry->trouble);
    return count;
}

/** On a device's stream: steps of some milliseconds each. Returns the entry's figure. */
static double slice_of_loop(const struct race_pace *pace, struct race_entry *entry) {
    double turns_of[APPLIES_MOST], spent = 0;
    size_t count = 0;
    while (count < APPLIES_MOST && (count == 0 || spent < (double)pace->slice)) {
        size_t turns;
        if (stream_loop_step(entry->loop, &turns_of[count], &turns) != KRY_OK) {
            race_trouble(entry->trouble);
            return 0;
        }
        spent += turns_of[count++] * (double)turns;
        entry->applies += turns;
    }
    entry->spent += spent;
    entry->usual = race_median(turns_of, count);
    return entry->kind == RACE_LIMIT ? entry->work / entry->usual : entry->usual;
}

/** Let an entry have its slice. Returns its figure. */
static double take_slice(const struct race_pace *pace, struct race_entry *entry, int64_t m) {
    if (entry->loop != NULL)
        return slice_of_loop(pace, entry);
    if (entry->kind == RACE_LIMIT) {
        crew_use(pace->crew, entry->threads);
        return limits_measure(pace->limits, entry->way, pace->slice / 2);
    }
    int64_t times[APPLIES_MOST];
    size_t count = entry->kind == RACE_KERNEL ? slice_of_kernel(pace, entry, times)
                                              : slice_of_peer(pace, entry, m, times);
    if (entry->trouble[0] != '\0')
        return 0;
    for (size_t i = 0; i < count; i++)
        entry->spent += (double)times[i];
    entry->applies += count;
    entry->usual = median_of_times(times, count);
    return entry->usual;
}

/** Whether an entry has taken so long that rounds enough are done. */
static bool is_done(const struct race_pace *pace, const struct race_entry *entry, size_t round) {
    if (round == 0)
        return false;
    double share = (double)pace->slice * (double)pace->rounds;
    return entry->usual > NS_TOO_LONG || (round >= ROUNDS_LEAST && entry->spent > PATIENCE * share);
}

void race_run(const struct race_pace *pace, int64_t m, struct race_entry *entries, size_t count) {
    for (size_t round = 0; round < pace->rounds; round++)
        for (size_t turn = 0; turn < count; turn++) {
            /* Each round begins with another one, so that nobody always follows the same. */
            struct race_entry *entry = &entries[(turn + round) % count];
            if (entry->trouble[0] == '\0' && !is_done(pace, entry, round))
                entry->rounds[round] = take_slice(pace, entry, m);
        }
    for (size_t i = 0; i < count; i++) {
        struct race_entry *entry = &entries[i];
        double values[RACE_ROUNDS_MOST];
        size_t taken = 0;
        for (size_t round = 0; round < pace->rounds; round++)
            if (entry->rounds[round] > 0)
                values[taken++] = entry->rounds[round];
        entry->median = entry->trouble[0] == '\0' ? race_median(values, taken) : 0;
    }
}

/* ---- ratios -------------------------------------------------------------------------- */

double race_times(const struct race_pace *pace, const struct race_entry *entry,
                  const struct race_entry *other) {
    double ratios[RACE_ROUNDS_MOST];
    size_t count = 0;
    if (entry->median == 0 || other->median == 0)
        return 0;
    for (size_t round = 0; round < pace->rounds; round++)
        if (entry->rounds[round] > 0 && other->rounds[round] > 0)
            ratios[count++] = other->rounds[round] / entry->rounds[round];
    return race_median(ratios, count);
}

double race_part(const struct race_pace *pace, const struct race_entry *entry, double work,
                 const struct race_entry *limit) {
    double parts[RACE_ROUNDS_MOST];
    size_t count = 0;
    if (entry->median == 0)
        return 0;
    for (size_t round = 0; round < pace->rounds; round++)
        if (entry->rounds[round] > 0 && limit->rounds[round] > 0)
            parts[count++] = work / entry->rounds[round] / limit->rounds[round];
    return race_median(parts, count);
}
