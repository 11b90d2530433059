/*
 * One model on disk, the tensors of its file, and a layer as numbers: what most tests of stored
 * formats need, each anew.
 */
#ifndef KERNELRY_TESTS_CHECKPOINT_FIXTURE_H
#define KERNELRY_TESTS_CHECKPOINT_FIXTURE_H

#include "problem.h"

extern struct model model;
extern struct safetensors file;
extern struct problem problem;

/** Setups: an empty model; with a problem of 64 x 16, groups of 32, 4 bits and zero points. */
int setup(void **state);
int setup_with_problem(void **state);
int teardown(void **state);

#endif
