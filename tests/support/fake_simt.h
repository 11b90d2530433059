/*
 * The GPU behind the fake drivers: launches run the device source of a module on the SIMT layer,
 * one at a time. The environment names the module, FAKE_GPU_MODULE, and the lanes of a wave,
 * FAKE_GPU_WAVE (32).
 */
#ifndef KERNELRY_TEST_FAKE_SIMT_H
#define KERNELRY_TEST_FAKE_SIMT_H

#include <stdbool.h>
#include <stdint.h>

/** Load the module; false: nothing is to be run. `self` is an address in the caller's library,
 *  whose functions are the words that the module calls. */
bool fake_simt_begin(const void *self);

/** Run a launch of an entry with the struct that it takes; NULL, or what went wrong. */
const char *fake_simt_run(const char *entry, uint32_t grid, uint32_t block, uint32_t shared_bytes,
                          const void *parameters);

/** The same in clusters (0 or 1: none), and `early`, while the grid before may still run. */
const char *fake_simt_run_cluster(const char *entry, uint32_t grid, uint32_t block,
                                  uint32_t shared_bytes, uint32_t cluster, bool early,
                                  const void *parameters);

#endif
