/*
 * Exact equivalents of a description. Groups split so that none straddles the partition's
 * edges: with g' = gcd(g, k_offset, K) every group of g' lies inside one of g, so the scales
 * are repeated and nothing is rounded.
 */
#include "core.h"

static int64_t gcd(int64_t a, int64_t b) {
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

bool core_rewrite_split_groups(const kry_linear *linear, kry_linear *out, uint64_t *bytes) {
    if (linear->act_order || linear->group_size < 0)
        return false;
    int64_t size = gcd(gcd(linear->group_size, linear->k_offset), linear->in_features);
    if (size == linear->group_size)
        return false;
    *out = *linear;
    out->group_size = size;
    uint64_t more = (uint64_t)(kry_linear_groups(out) - kry_linear_groups(linear));
    uint64_t each = kry_type_bytes(linear->scale_type) +
                    (kry_weight_has_zero_points(linear->weight_type) ? 1 : 0);
    if (__builtin_mul_overflow(more, (uint64_t)linear->out_features * each, bytes))
        *bytes = UINT64_MAX;
    return true;
}
