/*
 * Random numbers that are the same on every machine for the same seed.
 */
#include "random.h"

#define GOLDEN_STEP UINT64_C(0x9e3779b97f4a7c15)

/* The output function of splitmix64 (Steele, Lea, Flood 2014): a bijection that mixes well. */
static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

struct random random_seeded(uint64_t seed, uint64_t stream) {
    /* Mixed twice, so that seeds 1, 2, 3 and streams 1, 2, 3 do not start beside each other. */
    struct random random = {mix(mix(seed + GOLDEN_STEP) + stream * GOLDEN_STEP)};
    return random;
}

uint64_t random_stream_of(const char *name) {
    uint64_t stream = 0;
    for (; *name != '\0'; name++)
        stream = mix(stream + GOLDEN_STEP + (unsigned char)*name);
    return stream;
}

uint64_t random_next(struct random *random) {
    random->state += GOLDEN_STEP;
    return mix(random->state);
}

uint64_t random_below(struct random *random, uint64_t bound) {
    /* The high word of a product; its bias, bound / 2^64, is far below what a test could see. */
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)(((wide)random_next(random) * bound) >> 64);
}

double random_uniform(struct random *random) {
    return (double)(random_next(random) >> 11) * 0x1p-53;
}

float random_normal(struct random *random) {
    int32_t sum = 0; /* of twelve 16-bit draws */
    for (int word = 0; word < 3; word++) {
        uint64_t bits = random_next(random);
        for (int part = 0; part < 4; part++)
            sum += (int32_t)((bits >> (16 * part)) & 0xffff);
    }
    return (float)(sum - 6 * 0xffff) * 0x1p-16f;
}
