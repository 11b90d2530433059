/*
 * Threads of the command's own, for measuring: a host whose parallel-for is known to rest when
 * nobody calls it, so that it takes no time from whoever is measured next, and whose number of
 * threads can change from one apply to the next.
 */
#ifndef KERNELRY_TOOLS_CREW_H
#define KERNELRY_TOOLS_CREW_H

#include <kernelry/kernelry.h>

/** Some threads, the caller's own among them. */
struct crew;

/** How many CPUs this process may use. */
int32_t usable_cpus(void);

/** Make a crew of 1 to CREW_MOST threads. Errors: KRY_E_MEMORY. */
enum { CREW_MOST = 1024 };
kry_status crew_create(int32_t threads, struct crew **out);
void crew_destroy(struct crew **crew);

/** Use the first so many of its threads from now on. No call of the crew may be running. */
void crew_use(struct crew *crew, int32_t threads);
int32_t crew_used(const struct crew *crew);

/** Services with the crew's threads, and nothing else. Lives as long as the crew. */
const kry_host *crew_host(const struct crew *crew);

/** Call task(argument, i) for as many i as threads are in use: one each, where all find a
 *  processor. */
void crew_each(struct crew *crew, void (*task)(void *argument, int64_t i), void *argument);

#endif
