/*
 * Data races between GPU threads, found from the rules and not by luck: device source that the
 * compiler instruments for ThreadSanitizer (-fsanitize=thread, linked without its library) calls
 * in here for each access to memory. Two accesses to the same bytes, one of them a write, must be
 * apart by
 *
 *   a barrier of their block;
 *   a barrier of their wave, for lanes of one;
 *   a barrier of their part of the block, or of their cluster;
 *   between blocks: a fence after the first one, then an addition to a counter (by that thread,
 *   or by another one of the block after a barrier), which a thread of the second block then sees
 *   by an addition of its own, and then (a barrier and) a fence of the second thread.
 *
 * Where blocks have mbarriers or clusters, clocks.h says what orders accesses to shared memory.
 * Shuffles and matrix instructions order no memory. The bytes of an asynchronous copy are written
 * by their thread from the copy's issue to its wait, and nobody may touch them meanwhile.
 */
#ifndef TESTS_SUPPORT_SIMT_RACES_H
#define TESTS_SUPPORT_SIMT_RACES_H

#include "state.h"

/* Wave barriers between two of the block, at most. */
enum { SIMT_WAVE_EPOCHS = 4096 };

/* Whether the module's source is instrumented. */
bool simt_races_are_on(void);

/* A launch and a block begin; false without memory. */
bool simt_races_launch(void);
bool simt_races_block(struct block *block);
void simt_races_release(void);
void simt_races_release_block(struct block *block);

/* All of the block, or of the wave, are at a barrier. */
void simt_races_barrier(struct block *block);
void simt_races_wave_barrier(struct wave *wave);
void simt_races_part_barrier(struct block *block);

void simt_races_fence(void);
void simt_races_add(const uint32_t *counter);

/* The calling thread reads. */
void simt_races_read(const void *memory, size_t bytes);

/* A copy is issued, and is over for its thread. */
void simt_races_copy(const struct copy *copy);
void simt_races_copied(const struct copy *copy);

#endif
