/*
 * The table of checks, for those who run them.
 */
#ifndef KERNELRY_CONFORMANCE_CHECKS_H
#define KERNELRY_CONFORMANCE_CHECKS_H

#include "suite.h"

/** The check behind what conformance.h shows of it. */
const struct check *check_of(const struct conformance_check *shown);

#endif
