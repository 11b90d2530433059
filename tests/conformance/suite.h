/*
 * What the checks share: where they run, the kernel they ask, how they tell what they found.
 */
#ifndef KERNELRY_CONFORMANCE_SUITE_H
#define KERNELRY_CONFORMANCE_SUITE_H

#include "cases.h"
#include "conformance.h"
#include "device_memory.h"
#include "memory.h"

#include <kernelry/plugin.h>

#include <stdatomic.h>

/**
 * What a check's process shares with the one that waits for it. Written step by step, so that
 * it holds where things stood when the process ended, however it ended.
 */
struct shared {
    struct conformance_finding finding;
    atomic_bool finished;
    int64_t idle;        /* cases that had nothing for the check to look at */
    char refusal[256];   /* the first refusal in words */
    int64_t case_number; /* -1: none yet */
    char where[256];     /* the case in words */
    const char *step;    /* "apply": a literal, so it lies at the same address in both */
    int64_t m;           /* rows of the apply, 0 elsewhere */
    int signal;          /* that ended the process, or 0 */
    struct memory_touch touch;
};

/** A check as it runs, on one kernel. */
struct suite {
    const struct conformance_plan *plan;
    const struct check *check;
    const kry_linear_kernel *functions;
    void *device_state;
    struct device_memory memory;
    bool on_device; /* in memory of its own: buffers have mirrors there */
    struct shared *shared;
    bool case_failed;
    bool case_blocked;
    bool case_idle;
};

/** A check: what conformance.h tells of it, and how it runs. */
struct check {
    struct conformance_check shown;
    void (*run)(struct suite *suite, const struct item *item);
    uint32_t flag;         /* KRY_KERNEL_* that the kernel must claim; 0: any kernel */
    bool needs_no_device;  /* only asks */
    bool takes_refused;    /* tries descriptions that are refused, too */
    int64_t most_quick;    /* cases, evenly taken from all; 0: all */
    int64_t most;          /* likewise, unless quick */
    const char *unflagged; /* said where the flag is not claimed */
    const char *idle;      /* said where no case gave it anything to look at */
};

/** Note what is being done, so that a crash can be told with it. m: 0 where there is none. */
void step(struct suite *suite, const char *what, int64_t m);

/** Count the case as failed; the first failure's words are kept. duty NULL: the check's own. */
void fail(struct suite *suite, const char *duty, const char *format, ...) KRY_PRINTF(3, 4);

/** Say that the case cannot be tried for a reason that another check reports. */
void block(struct suite *suite);

/** Note an error that was measured, as a part of what is allowed. */
void measure(struct suite *suite, double part);

/** Take the case out of the count: it has nothing for the check to look at. */
void pass_over(struct suite *suite);

/* ---- the checks, a file a group ---------------------------------------------------------- */

void check_pure(struct suite *suite, const struct item *item);
void check_asking(struct suite *suite, const struct item *item);
void check_refusals(struct suite *suite, const struct item *item);
void check_sizes(struct suite *suite, const struct item *item);
void check_workspace(struct suite *suite, const struct item *item);
void check_runs(struct suite *suite, const struct item *item);
void check_numbers(struct suite *suite, const struct item *item);
void check_one_hot(struct suite *suite, const struct item *item);
void check_large_m(struct suite *suite, const struct item *item);
void check_bias(struct suite *suite, const struct item *item);
void check_nan(struct suite *suite, const struct item *item);
void check_operands(struct suite *suite, const struct item *item);
void check_alignment(struct suite *suite, const struct item *item);
void check_bounds(struct suite *suite, const struct item *item);
void check_zeroed(struct suite *suite, const struct item *item);
void check_allocations(struct suite *suite, const struct item *item);
void check_waits(struct suite *suite, const struct item *item);
void check_captured(struct suite *suite, const struct item *item);
void check_surroundings(struct suite *suite, const struct item *item);
void check_offline(struct suite *suite, const struct item *item);
void check_ranges(struct suite *suite, const struct item *item);
void check_reload(struct suite *suite, const struct item *item);
void check_moved(struct suite *suite, const struct item *item);
void check_repeats(struct suite *suite, const struct item *item);
void check_batches(struct suite *suite, const struct item *item);
void check_threads(struct suite *suite, const struct item *item);
void check_borrowed(struct suite *suite, const struct item *item);
void check_released(struct suite *suite, const struct item *item);

#endif
