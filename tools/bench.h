/*
 * The parts of `kernelry bench`.
 */
#ifndef KERNELRY_TOOLS_BENCH_H
#define KERNELRY_TOOLS_BENCH_H

#include "command.h"

/** What is alike in all measurements. Borrowed. */
struct bench_setting {
    kry_registry *registry;
    const kry_device *device;
    const char *kernel; /* NULL: the decision's */
    const int64_t *m;
    size_t m_count;
    uint64_t seed;
    int64_t budget; /* for each m. Units: ns */
};

/** Times of one apply. Units: ns. */
struct bench_times {
    int64_t m;
    int64_t median;
    int64_t least;
    size_t count; /* applies */
};

/** What was measured of one description. */
struct bench_result {
    kry_kernel_info kernel;
    uint64_t prepared_bytes;
    size_t copies; /* of the prepared weights, used in turn */
    int64_t prepare_nanoseconds;
    struct bench_times *times; /* [m_count], freed by the caller */
};

/**
 * Draw weights for a description, prepare as many copies of them as no cache holds, and apply
 * them in turn.
 *
 * Errors     as kry_layer_create, _prepare and _apply; KRY_E_MEMORY.
 */
kry_status bench_measure(const struct bench_setting *setting, const kry_linear *linear, bool bias,
                         struct bench_result *out);

/** `kernelry bench core`: what the core itself costs. Returns an exit code. */
int bench_core(const struct common_options *common, const char *model);

/** The median of `count` times, which are put in order; 0 of none. */
int64_t median_of(int64_t *times, size_t count);

#endif
