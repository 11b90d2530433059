/*
 * XXH64, written after its specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md, version
 * 0.1.1). It guards against damage and tells contents apart; it is no defence against malice.
 */
#include "core.h"

#include <string.h>

static const uint64_t prime_1 = UINT64_C(0x9E3779B185EBCA87);
static const uint64_t prime_2 = UINT64_C(0xC2B2AE3D27D4EB4F);
static const uint64_t prime_3 = UINT64_C(0x165667B19E3779F9);
static const uint64_t prime_4 = UINT64_C(0x85EBCA77C2B2AE63);
static const uint64_t prime_5 = UINT64_C(0x27D4EB2F165667C5);

static inline uint64_t rotate(uint64_t value, int bits) {
    return value << bits | value >> (64 - bits);
}

/* The specification's numbers are little-endian wherever they are read. */
static inline uint64_t read_64(const unsigned char *bytes) {
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

static inline uint64_t read_32(const unsigned char *bytes) {
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    return value;
}

static inline uint64_t mix(uint64_t sum, uint64_t lane) {
    return rotate(sum + lane * prime_2, 31) * prime_1;
}

static inline uint64_t merge(uint64_t sum, uint64_t lane_sum) {
    return (sum ^ mix(0, lane_sum)) * prime_1 + prime_4;
}

/* Whole stripes of 32 bytes, in four sums that do not wait for each other. */
static uint64_t sum_stripes(const unsigned char *bytes, uint64_t stripes, uint64_t seed) {
    uint64_t a = seed + prime_1 + prime_2, b = seed + prime_2, c = seed, d = seed - prime_1;
    for (uint64_t i = 0; i < stripes; i++, bytes += 32) {
        a = mix(a, read_64(bytes));
        b = mix(b, read_64(bytes + 8));
        c = mix(c, read_64(bytes + 16));
        d = mix(d, read_64(bytes + 24));
    }
    uint64_t sum = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
    return merge(merge(merge(merge(sum, a), b), c), d);
}

uint64_t kry_hash64(const void *data, uint64_t bytes, uint64_t seed) {
    const unsigned char *at = data;
    uint64_t left = bytes % 32;
    uint64_t sum = bytes >= 32 ? sum_stripes(at, bytes / 32, seed) : seed + prime_5;
    if (bytes > 0)
        at += bytes - left;
    sum += bytes;
    for (; left >= 8; left -= 8, at += 8)
        sum = rotate(sum ^ mix(0, read_64(at)), 27) * prime_1 + prime_4;
    for (; left >= 4; left -= 4, at += 4)
        sum = rotate(sum ^ read_32(at) * prime_1, 23) * prime_2 + prime_3;
    for (; left > 0; left--, at++)
        sum = rotate(sum ^ *at * prime_5, 11) * prime_1;
    sum = (sum ^ sum >> 33) * prime_2;
    sum = (sum ^ sum >> 29) * prime_3;
    return sum ^ sum >> 32;
}

/* ---- many blocks ----------------------------------------------------------------------- */

struct blocks {
    const unsigned char *data;
    uint64_t bytes;
    uint64_t first;
    uint64_t *hashes;
};

static void hash_block(void *argument, int64_t i) {
    const struct blocks *blocks = argument;
    uint64_t begin, bytes = core_hash_block(blocks->bytes, i, &begin);
    blocks->hashes[i] = kry_hash64(blocks->data + begin, bytes, blocks->first + (uint64_t)i);
}

void core_hash_blocks(const void *data, uint64_t bytes, uint64_t first, uint64_t *hashes,
                      const kry_host *host) {
    struct blocks blocks = {data, bytes, first, hashes};
    kry_parallel_for(host, (int64_t)core_hash_block_count(bytes), hash_block, &blocks);
}
