/* A registry of the CPU's plugins, for groups of tests whose layers share it. */
#ifndef KERNELRY_TESTS_CHECKPOINT_CPU_REGISTRY_H
#define KERNELRY_TESTS_CHECKPOINT_CPU_REGISTRY_H

#include <kernelry/kernelry.h>

extern kry_registry *registry;
extern kry_device cpu;

/** Setup and teardown of a group. */
int open_registry(void **state);
int close_registry(void **state);

#endif
