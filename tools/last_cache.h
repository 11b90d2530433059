/*
 * How large the cache is that lies before memory.
 */
#ifndef KERNELRY_TOOLS_LAST_CACHE_H
#define KERNELRY_TOOLS_LAST_CACHE_H

#include <stdint.h>

/**
 * The last cache that the first CPU has a part in. Units: bytes; 0: the system does not tell.
 *
 * folder  with an index0, index1, … a cache, as Linux describes them; NULL: that of the first CPU,
 *         and what sysconf says where there is none.
 */
uint64_t last_cache_bytes(const char *folder);

#endif
