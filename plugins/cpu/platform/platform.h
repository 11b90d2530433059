/* What the sources of the platform plugin share. */
#ifndef KERNELRY_CPU_PLATFORM_PLATFORM_H
#define KERNELRY_CPU_PLATFORM_PLATFORM_H

#include <kernelry/plugin.h>

/* memory.c: memory of any power-of-two alignment from that of a pointer on; NULL when out of it.
   Zero bytes get an address of their own as well. */
void *memory_allocate(uint64_t bytes, size_t alignment);
void memory_release(void *memory, uint64_t bytes); /* as many as were asked for */

/* threads.c: see kry_host. */
void threads_parallel_for(int64_t count, void (*task)(void *argument, int64_t i), void *argument);
int32_t threads_parallelism(void);

#endif
