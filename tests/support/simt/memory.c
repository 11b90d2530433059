/* Words that touch memory: asynchronous copies, counters, alignment. */
#include <stdlib.h>
#include <string.h>

#include "hopper.h"
#include "races.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEMORY_ASAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define MEMORY_ASAN
#endif
#ifdef MEMORY_ASAN
#include <sanitizer/asan_interface.h>
#endif

uint32_t simt_thread(void) { return simt_self->index; }

uint32_t simt_threads(void) { return simt_run.launch.block; }

uint32_t simt_block(void) { return simt_self->block->index; }

uint32_t simt_blocks(void) { return simt_run.launch.grid; }

unsigned char *simt_shared(void) { return simt_self->block->shared; }

void simt_need_aligned(struct simt_place place, const void *address, uint32_t bytes) {
    if ((uintptr_t)address % bytes != 0) {
        simt_self->place = place;
        simt_fail("the address %p is not a multiple of %u bytes", address, bytes);
    }
}

/* ---- asynchronous copies ------------------------------------------------------------------- */

void simt_land_copies(uint32_t before_batch, bool is_wait) {
    struct thread *self = simt_self;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->copy_count; i++) {
        struct copy copy = self->copies[i];
        if (copy.batch < before_batch && !copy.has_landed) {
            if (copy.from != NULL) {
                memcpy(copy.to, copy.from, copy.bytes);
            } else {
                memset(copy.to, 0, copy.bytes);
            }
            copy.has_landed = true;
        }
        if (copy.batch < before_batch && is_wait) {
            simt_races_copied(&copy);
        } else {
            self->copies[kept++] = copy;
        }
    }
    self->copy_count = kept;
}

void simt_need_memory(const void *from, uint32_t bytes) {
#ifdef MEMORY_ASAN
    void *first = (void *)(uintptr_t)from;
    if (__asan_region_is_poisoned(first, bytes) != NULL) {
        simt_fail("%u bytes from %p are not all memory of the test", bytes, first);
    }
#else
    (void)from;
    (void)bytes;
#endif
}

static void check_copy(const struct copy *copy) {
    const unsigned char *shared = simt_shared();
    const uint32_t shared_bytes = simt_run.launch.shared_bytes;
    const uintptr_t at = (uintptr_t)copy->to - (uintptr_t)shared;
    if (at > shared_bytes || shared_bytes - at < copy->bytes) {
        simt_fail("%u bytes to byte %lld of %u of shared memory", copy->bytes,
                  (long long)(copy->to - shared), shared_bytes);
    }
    if (copy->from != NULL) {
        simt_need_memory(copy->from, copy->bytes);
    }
}

void simt_copy(struct simt_place place, void *shared, const void *global, uint32_t bytes,
               bool condition) {
    struct thread *self = simt_self;
    simt_begin_word(place);
    simt_need_aligned(place, shared, bytes);
    if (condition) {
        simt_need_global(place, global, bytes);
    }
    const struct copy copy = {shared, condition ? global : NULL, bytes, self->batch, false};
    check_copy(&copy);
    simt_races_copy(&copy);
    if (self->copy_count == self->copy_capacity) {
        const uint32_t capacity = self->copy_capacity * 2 + 8;
        struct copy *more = realloc(self->copies, capacity * sizeof *more);
        if (more == NULL) {
            simt_fail("no memory to note a copy");
        }
        self->copies = more;
        self->copy_capacity = capacity;
    }
    self->copies[self->copy_count++] = copy;
    memset(shared, 0xFF, bytes);
}

void simt_copy_now(void) { simt_land_copies(simt_self->batch + 1, true); }

void simt_copy_commit(void) { simt_self->batch++; }

void simt_copy_wait(uint32_t pending) {
    if (simt_self->batch > pending) {
        simt_land_copies(simt_self->batch - pending, true);
    }
}

/* ---- counters ------------------------------------------------------------------------------ */

void simt_fence(struct simt_place place) {
    simt_begin_word(place);
    simt_races_fence();
    simt_make_ready(simt_self);
    simt_give_way();
}

uint32_t simt_atomic_add(struct simt_place place, uint32_t *counter, uint32_t value) {
    struct thread *self = simt_self;
    simt_begin_word(place);
    simt_need_global(place, counter, 4);
    simt_make_ready(self);
    simt_give_way(); /* others may come first */
    if (value == 0 && self->polled == counter && self->polled_value == *counter) {
        if (++self->polls >= 2) {
            self->state = THREAD_POLLING;
            simt_run.polling++;
            simt_give_way();
        }
    } else {
        self->polls = 0;
    }
    const uint32_t before = *counter;
    self->polled = value == 0 ? counter : NULL;
    self->polled_value = before;
    *counter = before + value;
    simt_races_add(counter);
    return before;
}
