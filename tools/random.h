/*
 * Random numbers that are the same on every machine for the same seed.
 *
 * Integer arithmetic and exactly rounded floating point alone, no libm: a seed printed by a
 * failing test reproduces it anywhere.
 */
#ifndef KERNELRY_TOOLS_RANDOM_H
#define KERNELRY_TOOLS_RANDOM_H

#include <stdint.h>

/** A generator (splitmix64); copy it to draw the same numbers again. */
struct random {
    uint64_t state;
};

/** Streams of one seed are independent: a layer draws the same whatever came before it. */
struct random random_seeded(uint64_t seed, uint64_t stream);

/** A stream number for a name. */
uint64_t random_stream_of(const char *name);

uint64_t random_next(struct random *random);

/** Uniform in [0, bound); bound > 0. */
uint64_t random_below(struct random *random, uint64_t bound);

/** Uniform in [0, 1), a multiple of 2^-53. */
double random_uniform(struct random *random);

/** Mean 0, variance 1: the sum of twelve uniform draws, so never beyond +-6. */
float random_normal(struct random *random);

#endif
