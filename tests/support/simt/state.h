/* What the parts of the SIMT layer share of a launch that runs. */
#ifndef TESTS_SUPPORT_SIMT_STATE_H
#define TESTS_SUPPORT_SIMT_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "fiber.h"
#include "matrix.h"
#include "simt.h"
#include "words.h"

enum thread_state { THREAD_READY, THREAD_AT_BARRIER, THREAD_IN_WAVE, THREAD_POLLING, THREAD_ENDED };

struct copy {
    unsigned char *to;
    const void *from; /* NULL: zeros */
    uint32_t bytes;
    uint32_t batch;
    bool has_landed;
};

struct thread {
    struct simt_fiber *fiber;
    struct block *block;
    struct wave *wave;
    uint32_t index; /* in the block */
    enum thread_state state;
    struct simt_place place; /* the latest word */
    void *operands;          /* of a wave operation, on the fiber's stack */
    struct copy *copies;     /* that have not been waited for */
    uint32_t copy_count;
    uint32_t copy_capacity;
    uint32_t batch;         /* that is open */
    const uint32_t *polled; /* the counter last read by adding zero, and what it held */
    uint32_t polled_value;
    uint32_t polls; /* without news, one after the other */
    /* see races.c */
    bool has_unfenced;      /* writes to global memory */
    uint32_t fenced_epoch;  /* the block's, at the latest fence */
    uint32_t acquires_met;  /* of the block: by this thread, or before a barrier */
    uint32_t acquires_seen; /* a fence later */
};

struct wave {
    struct thread *threads;
    uint32_t lanes;
    uint32_t ended;
    uint32_t waiting; /* in a wave operation */
    uint32_t ready_count;
    struct thread *ready[SIMT_LANES];
    uint64_t priority;
    uint32_t epoch; /* barriers of the wave since the block's */
};

struct block {
    bool running;
    uint32_t index;
    uint32_t live;
    uint32_t at_barrier;
    unsigned char *shared;
    struct thread *threads;
    struct wave *waves;
    /* see races.c */
    uint32_t epoch;       /* barriers so far */
    uint32_t clean_epoch; /* before it, nothing was written and not fenced */
    uint32_t acquires;    /* additions to counters so far */
    uint32_t *acquired;   /* [grid]: below these epochs, accesses of other blocks are over */
};

/* The launch under way. */
struct run {
    struct simt_launch launch;
    uint32_t waves; /* of a block */
    struct block *blocks;
    uint32_t slots;  /* blocks in flight at most */
    uint32_t *order; /* of the blocks */
    uint32_t started;
    uint32_t running; /* blocks */
    uint32_t ready;   /* threads */
    uint32_t polling; /* threads */
    uint64_t random;
    uint32_t change_period; /* turns between changes of a priority, about */
    bool copies_land_late;
    bool failed;
    char message[2048];
};

extern struct run simt_run;
extern struct thread *simt_self;

/* A number below `bound`, by the seed. */
uint32_t simt_random(uint32_t bound);

/* Let the thread go on when its turn comes. */
void simt_make_ready(struct thread *thread);

/* Give way. The thread's state says what it waits for. */
void simt_give_way(void);

/* End the launch with this message; does not return. */
_Noreturn void simt_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same from the scheduler, where no thread runs: returns. */
void simt_report(const struct block *block, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Every word begins with this: it notes the place and lets a copy land, by chance. */
void simt_begin_word(struct simt_place place);

/* Let all copies land that lie in batches before this one; is_wait: their thread knows it. */
void simt_land_copies(uint32_t before_batch, bool is_wait);

/* A thread has ended: nobody may still wait for it. */
void simt_check_ended(const struct thread *thread);

#endif
