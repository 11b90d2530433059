/* What the parts of the SIMT layer share of a launch that runs. */
#ifndef TESTS_SUPPORT_SIMT_STATE_H
#define TESTS_SUPPORT_SIMT_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "fiber.h"
#include "matrix.h"
#include "simt.h"
#include "words.h"

enum thread_state {
    THREAD_READY,
    THREAD_AT_BARRIER,
    THREAD_AT_PART,
    THREAD_AT_CLUSTER,
    THREAD_AT_MBARRIER,
    THREAD_IN_WAVE,
    THREAD_IN_GROUP,
    THREAD_POLLING,
    THREAD_ENDED
};

/* Whom a barrier is for. */
enum scope { SCOPE_WAVE, SCOPE_BLOCK, SCOPES };

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
    uint32_t polls;            /* without news, one after the other */
    bool knows_previous_grid;  /* to be over: has waited, or met one who has */
    uint32_t met[SCOPES];      /* barriers come to, of at least this scope */
    uint32_t cluster_arrivals; /* at the cluster's barrier, in phases that follow each other */
    uint32_t cluster_waits;
    struct simt_place arrived; /* where, the latest time */
    struct simt_place waited;
    struct thread *next_waiter; /* for the same mbarrier */
    uint32_t group_steps;       /* operations of its warpgroup, see wgmma.c */
    uint32_t registers;         /* that it was last given or left; 0: as launched */
    /* see races.c */
    bool has_unfenced;      /* writes to global memory */
    uint32_t fenced_epoch;  /* the block's, at the latest fence */
    uint32_t acquires_met;  /* of the block: by this thread, or before a barrier */
    uint32_t acquires_seen; /* a fence later */
    /* see clocks.c */
    uint32_t *seen;
    uint32_t tick;
    uint32_t group_waits;    /* for gpu_wgmma */
    uint32_t published_tick; /* below it, what it wrote is there for bulk copies and gpu_wgmma */
    uint32_t stamp;          /* 0: to be made anew */
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
    bool has_news;  /* lanes may have seen different things, see clocks.c */
};

struct block {
    bool running;
    uint32_t index;
    struct block *cluster; /* its blocks lie side by side, beginning here */
    uint32_t rank;         /* in the cluster */
    uint32_t live;
    uint32_t at_barrier;
    /* The cluster's barrier, where rank is 0. */
    uint32_t at_cluster;                 /* threads of the cluster that have arrived */
    uint32_t cluster_phases;             /* that are over */
    bool cluster_gathers_grid;           /* one who arrived knows that the grid before is over */
    bool cluster_brings_grid;            /* the same of the phases that are over */
    struct cluster_clock *cluster_clock; /* see clocks.c; NULL where nobody watches */
    /* Of the block. */
    uint32_t at_part;
    uint32_t part_threads;
    uint32_t part_waves; /* those that meet there, as bits; 0: not known yet */
    struct mbarrier *mbarriers;
    uint32_t mbarrier_count;
    struct group *groups; /* see wgmma.c */
    unsigned char *shared;
    struct thread *threads;
    struct wave *waves;
    /* see races.c */
    uint32_t epoch;        /* barriers so far */
    uint32_t clean_epoch;  /* before it, nothing was written and not fenced */
    uint32_t acquires;     /* additions to counters so far */
    uint32_t *acquired;    /* [grid]: below these epochs, accesses of other blocks are over */
    struct clocks *clocks; /* see clocks.c; NULL: races.c watches shared memory */
    bool has_news;         /* waves may have seen different things */
};

/* The launch under way. */
struct run {
    struct simt_launch launch;
    uint32_t waves; /* of a block */
    struct block *blocks;
    uint32_t slots;  /* blocks in flight at most */
    uint32_t *order; /* of the clusters, or of the blocks where there are none */
    uint32_t started;
    uint32_t running; /* blocks */
    uint32_t ready;   /* threads */
    uint32_t polling; /* threads */
    uint64_t random;
    uint32_t change_period; /* turns between changes of a priority, about */
    bool copies_land_late;
    uint32_t bulk_count; /* bulk copies under way */
    bool failed;
    char message[2048];
};

extern struct run simt_run;
extern struct thread *simt_self;

/* A number below `bound`, by the seed. */
uint32_t simt_random(uint32_t bound);

/* Let the thread go on when its turn comes. */
void simt_make_ready(struct thread *thread);

/* Threads that are in this state have met: whether one knows the previous grid to be over, and then
 * what follows for all. They are not ready yet. */
bool simt_know_previous_grid(const struct thread *threads, uint32_t count, enum thread_state state);
void simt_have_met(struct thread *threads, uint32_t count, enum thread_state state,
                   enum scope scope, bool knows_previous_grid);

/* Those in this state go on. */
void simt_let_go(struct thread *threads, uint32_t count, enum thread_state state);

/* Give way. The thread's state says what it waits for. */
void simt_give_way(void);

/* End the launch with this message; does not return. */
_Noreturn void simt_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same from the scheduler, where no thread runs: returns. */
void simt_report(const struct block *block, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Add to the report. */
void simt_report_more(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Every word begins with this: it notes the place and lets a copy land, by chance. */
void simt_begin_word(struct simt_place place);

/* Let all copies land that lie in batches before this one; is_wait: their thread knows it. */
void simt_land_copies(uint32_t before_batch, bool is_wait);

/* Whether two threads came to the same word. */
bool simt_is_same_place(struct simt_place a, struct simt_place b);

/* A thread has ended: nobody may still wait for it. */
void simt_check_ended(const struct thread *thread);

#endif
