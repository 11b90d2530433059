/*
 * The conformance suite: checks that a plugin keeps its duties (docs/contract.md), kernel by
 * kernel, through the kernel's own functions.
 *
 * A check runs in a process of its own, so that a kernel that crashes or hangs costs that
 * check alone, and its memory is surrounded by pages that fault, so that the buffer that was
 * left, and with it the duty, can be named; on a device with memory of its own, by NaN (mirror.h).
 * What a kernel must compute comes from the oracle
 * of tools/, which shares nothing with any plugin.
 */
#ifndef KERNELRY_CONFORMANCE_H
#define KERNELRY_CONFORMANCE_H

#include <kernelry/kernelry.h>

#include <stdbool.h>

/** A check and the duty that it is about. */
struct conformance_check {
    const char *name;  /* "one-hot" */
    const char *duty;  /* "KRY-P14" */
    const char *title; /* what is shown where it passes */
};

/** The checks, in the order in which they are best read. NULL past the last. */
const struct conformance_check *conformance_check_at(size_t index);

/** A description to check on, besides or instead of the built-in ones. */
struct conformance_shape {
    const char *name;
    kry_linear linear; /* complete */
};

/** What is checked, and how thoroughly. */
struct conformance_plan {
    kry_registry *registry; /* it and all that follows is borrowed */
    const kry_kernel_info *kernel;
    const kry_device *device;
    const struct conformance_shape *shapes; /* NULL: the built-in ones */
    size_t shape_count;
    uint64_t seed;
    int64_t only_case;  /* -1: all */
    int64_t most_cases; /* of a check; 0: as many as the check sets out to try */
    uint32_t seconds;   /* that one step may take */
    bool quick;
};

enum conformance_outcome { CONFORMANCE_OK, CONFORMANCE_FAILED, CONFORMANCE_SKIPPED };

/** What a check found. */
struct conformance_finding {
    enum conformance_outcome outcome;
    int64_t cases;       /* that were tried */
    int64_t failed;      /* of them */
    int64_t refused;     /* descriptions that the kernel does not take */
    int64_t blocked;     /* cases that could not be tried, because of what another check reports */
    double seconds;      /* that it took */
    double worst;        /* largest error, as a part of what is allowed; 0: nothing was measured */
    char duty[12];       /* that was broken first: mostly the check's own */
    char message[512];   /* how; or why the check was skipped */
    char where[320];     /* the first failing case in words, with its m; "" when not of a case */
    int64_t case_number; /* of that case, for only_case; -1: not of a case */
};

/**
 * Services for the registry of a plan. They allocate more than they are asked for, so that a
 * kernel that writes too far fails in the check that looks for it, and in no other.
 */
extern const kry_host conformance_host;

/** Run a check. Errors of the suite itself (memory, fork): KRY_E_MEMORY. */
kry_status conformance_run(const struct conformance_plan *plan,
                           const struct conformance_check *check, struct conformance_finding *out);

#endif
