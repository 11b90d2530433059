/*
 * What this machine can do at most: bytes read from memory in a second, and products of each
 * kind that its best instructions compute in registers alone.
 */
#ifndef KERNELRY_TOOLS_MACHINE_LIMITS_H
#define KERNELRY_TOOLS_MACHINE_LIMITS_H

#include "crew.h"

#include <stddef.h>

enum limit_kind {
    LIMIT_READ, /* from memory */
    LIMIT_F32,  /* multiply-add in f32 */
    LIMIT_BF16, /* dot products of bf16, sums in f32 */
    LIMIT_INT8, /* dot products of bytes, sums in 32 bits */
    LIMIT_F16,  /* a device's: products of f16 or bf16, sums in f32 */
    LIMIT_KINDS
};

/**
 * One way to come close to a limit.
 *
 * Units      work of one iteration: bytes, or operations (a multiplication and an addition are
 *            two).
 */
struct limit {
    enum limit_kind kind;
    const char *name;      /* "avx512 vdpbusd" */
    uint64_t cpu_features; /* that it needs; entered on no other processor */
    uint64_t work;         /* of one iteration */
    /** Compute for so many iterations; NULL for LIMIT_READ. */
    void (*compute)(uint64_t iterations);
    /** Read so many iterations from memory (aligned to 64 bytes); NULL for the others. */
    void (*read)(const void *memory, uint64_t iterations);
};

/** The ways of x86-64 processors; none is compiled in elsewhere. */
extern const struct limit limits_x86[];
extern const size_t limits_x86_count;

/** Of a processor's features those that this process may use: it asks the system for AMX tiles. */
uint64_t limits_permitted(uint64_t cpu_features);

/** All ways that are compiled in, one an index; NULL past the last. */
const struct limit *limits_way(size_t index);

/** The limits of a machine, being measured. */
struct limits;

/**
 * Choose among the ways that a processor with these features has: for each kind the one that
 * reaches most, told by a short trial of each. What is read from memory is so many bytes; 0: four
 * times the last cache, where the system tells its size.
 *
 * Ownership  borrows the crew until limits_destroy.
 * Errors     KRY_E_MEMORY: none left for what is read.
 */
kry_status limits_create(struct crew *crew, uint64_t cpu_features, uint64_t read_bytes,
                         struct limits **out);
void limits_destroy(struct limits **limits);

/** The way that was chosen, or NULL where the processor has none that is known here. */
const struct limit *limits_chosen(const struct limits *limits, enum limit_kind kind);

/** Measure a way on all threads in use for so many ns, in short steps. Returns what the median step
 *  reached, in work a ns: GB/s or G operations/s. */
double limits_measure(struct limits *limits, const struct limit *limit, int64_t nanoseconds);

/** "read", "f32", "bf16", "int8", "f16". */
const char *limit_word(enum limit_kind kind);
/** "GB/s" or "Gop/s". */
const char *limit_unit(enum limit_kind kind);

#endif
