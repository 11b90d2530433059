/*
 * Weights and activations drawn for a linear description: random, never trivial, the same for
 * the same seed.
 */
#ifndef KERNELRY_TOOLS_SYNTHETIC_H
#define KERNELRY_TOOLS_SYNTHETIC_H

#include "oracle.h"

#include <kernelry/kernelry.h>

#include <stdbool.h>

/** Drawn weights of a layer: plain, for the oracle, and stored, in the canonical layout. */
struct synthetic {
    kry_linear linear;    /* complete */
    uint8_t *codes;       /* [N][K] */
    float *plain_scales;  /* [N][G] */
    uint8_t *zero_points; /* [N][G], or NULL; plain and stored */
    int32_t *g_idx;       /* [K], or NULL: a shuffled part of the full layer's groups */
    float *plain_bias;    /* [N], or NULL */

    uint32_t *qweight; /* [N][ceil(K / per word)]; fields past K are random */
    void *scales;      /* [N][G] of scale_type */
    void *bias;        /* [N] of y_type, or NULL */
    kry_view qweight_view;
    kry_view scales_view;
    kry_view zero_points_view;
    kry_weights weights; /* points at the views above */
};

/**
 * Draw weights for a description. Codes are uniform; scales vary threefold within a row and
 * are such that y is about as large as x; every 29th row or so is eight times larger.
 *
 * Ownership  *out is ended by synthetic_destroy.
 * Errors     KRY_E_ARGUMENT from kry_linear_complete; KRY_E_MEMORY tells how much was needed.
 */
kry_status synthetic_create(const kry_linear *linear, bool bias, uint64_t seed,
                            struct synthetic **out);
void synthetic_destroy(struct synthetic **synthetic);

/** Bytes of the stored weights, bias included. */
uint64_t synthetic_bytes(const struct synthetic *synthetic);

/** The plain weights as the oracle takes them; borrowed from *synthetic. */
struct oracle_drawn synthetic_drawn(const struct synthetic *synthetic);

/**
 * Draw x [m, in_features], rows `stride` elements apart, of a KRY_TYPE_*: normal; one column
 * in about 64 is twenty times larger, as in real models. What lies between in_features and
 * the stride becomes NaN, which a kernel that reads too far lets show.
 */
void synthetic_activations(void *x, uint32_t type, int64_t m, int64_t in_features, int64_t stride,
                           uint64_t seed, uint64_t stream);

/**
 * Make a smaller twin of a (complete) description: sizes and offsets are divided by `divisor`
 * in whole units and keep their remainders. The unit along K is a common multiple of the group
 * size and 128 (the group size alone where that would be above 4096), along N it is 128, so
 * all that is awkward about a shape modulo its group, 8, 32, 64 and 128 stays awkward.
 * A dimension of at least one unit keeps at least one.
 */
kry_linear synthetic_scale_down(const kry_linear *linear, int64_t divisor);

#endif
