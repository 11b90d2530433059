/*
 * Buffers of the suite on a device whose memory the host cannot follow: each has a mirror there,
 * as far from the next whole page as on the host, between pages of NaN. What a call could have
 * written is fetched after it; what it may only read is compared. That a kernel reads what it may
 * not is not seen there, unless it makes something of the NaN.
 */
#ifndef KERNELRY_CONFORMANCE_MIRROR_H
#define KERNELRY_CONFORMANCE_MIRROR_H

#include "memory.h"

#include "device_memory.h"

/** Make mirrors on this device from now on, in this process. Borrowed for ever. */
void mirrors_begin(const struct device_memory *memory);
bool mirrors_are_made(void);

/** Let the mirror hold what the buffer holds, made at the first call. Returns where the data is on
 *  the device, the same until the buffer is released; NULL: there is no memory. */
void *mirror_send(const struct memory *buffer);
/** Let the buffer hold what the mirror holds, what lies around it too. False: the device failed. */
bool mirror_fetch(const struct memory *buffer);
/** Look whether the mirror still holds what the buffer holds. False: the device failed. */
bool mirror_compare(const struct memory *buffer);
/** The buffer is released; its mirror, too. */
void mirror_forget(const struct memory *buffer);

/** What fetching and comparing have found since the last call on this thread. */
struct memory_touch mirror_touched(void);

/** A copy of plain memory on the device, for one call. All zero: none. */
struct lent_copy {
    void *block;
    uint64_t bytes;
};

/** Make one, which starts as far from a page's edge as the memory. NULL: no memory. */
void *mirror_lend(const void *from, uint64_t bytes, struct lent_copy *out);
void mirror_take_back(struct lent_copy *copy);

#endif
