/*
 * The time of work on a device's stream. To wait for one apply costs more than the apply, so many
 * are enqueued and waited for together: where the platform has graphs (CUDA) they are captured
 * once and replayed, which leaves out what it takes to enqueue them; elsewhere they are enqueued
 * again each time.
 */
#ifndef KERNELRY_TOOLS_STREAM_CLOCK_H
#define KERNELRY_TOOLS_STREAM_CLOCK_H

#include "cuda.h"
#include "device_memory.h"

/** Work that is done again and again, on one copy of its data after the other. */
struct stream_work {
    kry_status (*enqueue)(void *context, void *stream); /* the next copy's turn */
    void *context;
    size_t copies; /* after so many turns it begins anew */
};

struct stream_clock;

/** Ownership: borrows the memory until stream_clock_destroy. Errors: KRY_E_MEMORY. */
kry_status stream_clock_create(const struct device_memory *memory, struct stream_clock **out);
void stream_clock_destroy(struct stream_clock **clock);

/** The driver behind it; NULL where work is enqueued each time, and then why. */
struct cuda *stream_clock_cuda(const struct stream_clock *clock);
const char *stream_clock_trouble(const struct stream_clock *clock);

/** Work, ready to be timed. */
struct stream_loop;

/**
 * Run each copy once and take down the work, in so many turns that they last about a millisecond.
 *
 * Ownership  borrows the clock and the work's context until stream_loop_destroy.
 * Errors     those of enqueue and of waiting; KRY_E_MEMORY.
 */
kry_status stream_loop_create(struct stream_clock *clock, const struct stream_work *work,
                              struct stream_loop **out);
void stream_loop_destroy(struct stream_loop **loop);

/** Run for a few milliseconds. Sets how long a turn took, in ns, and how many there were. */
kry_status stream_loop_step(struct stream_loop *loop, double *turn, size_t *turns);

#endif
