/*
 * The descriptions that a kernel is checked on: a list that depends on the kernel, the seed
 * and the plan alone, so that a case's number finds it again.
 */
#ifndef KERNELRY_CONFORMANCE_CASES_H
#define KERNELRY_CONFORMANCE_CASES_H

#include "conformance.h"

#include <kernelry/plugin.h>

/** A case. */
struct item {
    kry_linear linear;  /* complete */
    const char *family; /* why it is there: "smallest", "edges", or a shape's name */
    int64_t number;
};

struct items {
    struct item *items;
    int64_t count;
    int64_t capacity;
    bool failed; /* out of memory */
};

/** Make the list. Asks can_implement to find the kernel's smallest shapes. */
void items_make(const struct conformance_plan *plan, const kry_linear_kernel *functions,
                struct items *out);
void items_free(struct items *items);

/** Ask; refusal NULL: nobody reads why not. */
bool accepts(const kry_linear_kernel *functions, const kry_device *device, const kry_linear *linear,
             kry_refusal *refusal);

#endif
