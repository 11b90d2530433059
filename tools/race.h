/*
 * A race: our kernels, the machine's limits and other libraries, measured in turn on one layer.
 *
 * A round gives each entry a slice of time, in which it applies copies of the layer one after
 * the other; what counts is the median of a slice, and of those the median over rounds. Clocks
 * change and neighbours come and go, so figures of different moments cannot be compared: a ratio
 * is the median of the ratios within a round.
 */
#ifndef KERNELRY_TOOLS_RACE_H
#define KERNELRY_TOOLS_RACE_H

#include "machine_limits.h"
#include "peer.h"
#include "rotation.h"
#include "stream_clock.h"

#include <stdbool.h>

enum {
    RACE_NAME_BYTES = 80,
    RACE_TROUBLE_BYTES = 240,
    RACE_ENTRIES_MOST = 48,
    RACE_ROUNDS_MOST = 99
};

enum race_kind { RACE_LIMIT, RACE_KERNEL, RACE_PEER };

/**
 * Somebody who is measured.
 *
 * Units      `rounds` and `median`: ns of an apply; of a limit, what it reached (limit_unit).
 *            0 where there is none.
 */
struct race_entry {
    enum race_kind kind;
    char name[RACE_NAME_BYTES]; /* "read", "f16", "onnxruntime int8" */
    /** What kind of entry is measured against it, or NULL: the same on one thread ("threads"),
     *  the nearest aligned layer ("aligned"). */
    const char *beside;
    enum limit_kind limit; /* a limit: which one; others: the one of their arithmetic */
    int32_t threads;
    kry_kernel_info kernel; /* a kernel's */
    double weights;         /* of the layer */
    double bytes;           /* that an apply moves at least */
    double stored_bytes;    /* that it moves as the kernel stores weights; 0: not known */
    double operations;      /* of an apply */
    double *rounds;         /* [round_count]; 0 where it took no part */
    double median;
    size_t applies;
    char trouble[RACE_TROUBLE_BYTES]; /* why there is no figure, or "" */

    /* What runs; borrowed. */
    const struct limit *way;
    struct rotation *rotation;
    kry_apply_args *operands;
    struct peer *peer;
    struct stream_loop *loop; /* its own: on a device's stream, this is what runs */
    double work;  /* of a turn, of a limit on a stream. Units: as `bytes` or operations */
    double usual; /* ns of an apply, as last seen */
    double spent; /* ns of all its applies */
};

/** How to measure. Borrowed. */
struct race_pace {
    struct crew *crew;
    struct limits *limits;
    size_t rounds; /* at most RACE_ROUNDS_MOST */
    int64_t slice; /* Units: ns */
};

/** Measure entries in turn, on m rows. Those with trouble are passed over; what goes wrong
 *  becomes an entry's trouble. */
void race_run(const struct race_pace *pace, int64_t m, struct race_entry *entries, size_t count);

/** How many times as long `other` takes as `entry`; 0 where there is no common round. */
double race_times(const struct race_pace *pace, const struct race_entry *entry,
                  const struct race_entry *other);
/** Which part of a limit an entry reaches when an apply is so much work (bytes, operations). */
double race_part(const struct race_pace *pace, const struct race_entry *entry, double work,
                 const struct race_entry *limit);

/** The median of values, which are put in order; 0 of none. */
double race_median(double *values, size_t count);

/** Keep the sentence of the call that just failed as the entry's trouble. */
void race_trouble(char trouble[RACE_TROUBLE_BYTES]);

#endif
