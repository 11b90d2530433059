/*
 * Which layers a race goes over.
 */
#ifndef KERNELRY_TOOLS_RACE_PLAN_H
#define KERNELRY_TOOLS_RACE_PLAN_H

#include "race_layer.h"

/** Layers in the order in which they are measured. */
struct race_plan {
    struct race_layer *layers;
    size_t count;
};
void race_plan_free(struct race_plan *plan);

/** What all layers of a plan have in common. */
struct race_taste {
    unsigned computes; /* 0: what suits each layer */
    bool on_device;    /* a GPU: larger layers, more rows, and no int8 activations */
    const int64_t *m;  /* NULL: what suits each layer; at most RACE_M_MOST */
    size_t m_count;
};

/* Append to a plan. Errors: KRY_E_MEMORY, KRY_E_ARGUMENT (from kry_linear_complete). */

/** A CPU's: 4096×4096 and 2112×2816, at groups of 128 and of 32. A device's: those, of one group
 *  size each, 14336×4096 and 8192×28672. */
kry_status race_plan_yardstick(struct race_plan *plan, const struct race_taste *taste);
/** So many aligned layers, drawn. */
kry_status race_plan_random(struct race_plan *plan, const struct race_taste *taste, int64_t count,
                            uint64_t seed);
/** A given layer, with the nearest aligned one beside it if that is wanted. */
kry_status race_plan_add(struct race_plan *plan, const struct race_taste *taste, const char *name,
                         const kry_linear *linear, bool beside_aligned);

#endif
