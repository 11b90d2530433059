/*
 * Threads of the command's own, for measuring.
 *
 * Each thread has a share of a job's tasks that lie beside each other, as those of the CPU
 * platform's pool and of PyTorch have, so that it reads memory in one run; when it has none left
 * it takes tasks of others' shares.
 *
 * The next task of a share is a ticket, the job's number and the task's, taken by raising it. The
 * caller returns when all tasks are done, whether or not every thread came: a thread that the
 * system gave no processor holds nobody up. It finds a ticket of another number later, or one
 * that is beyond the share's last task, and knows that what it saw of the old job is over.
 *
 * A worker waits for the next job by looking at its share's ticket, for SPIN_NS at most, and
 * sleeps then. Applies that follow each other find it awake; what comes after the last of them
 * finds it asleep.
 */
#include "crew.h"

#include "clock.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    SPIN_NS = 200 * 1000,
    LOOKS = 64,       /* before a thread offers its processor to others */
    NUMBER_SHIFT = 32 /* of a ticket: the job's number above, the task's below */
};

/** What all threads work on. Read by threads that may come late, hence atomic. */
struct job {
    _Atomic(void (*)(void *argument, int64_t i)) task;
    _Atomic(void *) argument;
    atomic_llong count; /* of tasks, below 2^NUMBER_SHIFT */
    atomic_int shares;
};

/** On a cache line of its own, and on none that is fetched with another's. */
struct share {
    _Alignas(128) atomic_ullong ticket;
};

struct worker {
    struct crew *crew;
    pthread_t thread;
    int32_t index; /* from 1; the caller is 0 */
};

struct crew {
    kry_host host;
    struct worker *workers;
    int32_t threads; /* with the caller */
    atomic_int used;

    struct job job;
    struct share *shares; /* one a thread */
    atomic_llong done;    /* tasks of the job */
    atomic_bool busy;     /* a job is running */
    atomic_bool dismissed;

    pthread_mutex_t mutex; /* for sleeping alone */
    pthread_cond_t wake;
    atomic_int asleep;
};

int32_t usable_cpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than a cpu_set_t holds */
    return online > CREW_MOST ? CREW_MOST : online > 0 ? (int32_t)online : 1;
}

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/** The first task of a share. */
static int64_t share_begin(int64_t count, int32_t shares, int32_t index) {
    return count * index / shares;
}

/** Take tasks of a share of the job of this number until there is none. */
static void work_on_share(struct crew *crew, uint64_t number, int32_t index) {
    atomic_ullong *next = &crew->shares[index].ticket;
    unsigned long long ticket = atomic_load_explicit(next, memory_order_acquire);
    for (;;) {
        /* Only if the ticket is still the same when it is raised was this read from its job: it
           is spoilt before another job is written. */
        int64_t i = (int64_t)(ticket & ((UINT64_C(1) << NUMBER_SHIFT) - 1));
        void (*task)(void *, int64_t) = atomic_load_explicit(&crew->job.task, memory_order_acquire);
        void *argument = atomic_load_explicit(&crew->job.argument, memory_order_acquire);
        int64_t count = atomic_load_explicit(&crew->job.count, memory_order_acquire);
        int32_t shares = atomic_load_explicit(&crew->job.shares, memory_order_acquire);
        if (ticket >> NUMBER_SHIFT != number || index >= shares ||
            i >= share_begin(count, shares, index + 1))
            return;
        if (!atomic_compare_exchange_weak_explicit(next, &ticket, ticket + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        task(argument, i);
        atomic_fetch_add_explicit(&crew->done, 1, memory_order_release);
        ticket = atomic_load_explicit(next, memory_order_acquire);
    }
}

/** Take tasks of the job of this number: of a thread's own share, then of others'. */
static void work_on(struct crew *crew, uint64_t number, int32_t index) {
    int32_t used = atomic_load_explicit(&crew->used, memory_order_relaxed);
    for (int32_t i = 0; i < used; i++)
        work_on_share(crew, number, (index + i) % used);
}

/** The number of the newest job that a thread has a share of. */
static uint64_t newest_number(struct crew *crew, int32_t index) {
    return atomic_load(&crew->shares[index].ticket) >> NUMBER_SHIFT;
}

/** Wait for a share of a job after number `seen`, and return its number. */
static uint64_t await_job(struct crew *crew, uint64_t seen, int32_t index) {
    int64_t until = clock_now() + SPIN_NS;
    uint64_t number;
    do {
        for (int look = 0; look < LOOKS; look++) {
            if ((number = newest_number(crew, index)) != seen)
                return number;
            relax();
        }
        sched_yield(); /* to the caller, should it want this very processor */
    } while (clock_now() < until);
    /* Sequentially consistent on both sides: either the caller sees that we sleep, or we see
       the number that it has raised. */
    pthread_mutex_lock(&crew->mutex);
    atomic_fetch_add(&crew->asleep, 1);
    while ((number = newest_number(crew, index)) == seen)
        pthread_cond_wait(&crew->wake, &crew->mutex);
    atomic_fetch_sub(&crew->asleep, 1);
    pthread_mutex_unlock(&crew->mutex);
    return number;
}

static void *worker_main(void *argument) {
    struct worker *worker = argument;
    struct crew *crew = worker->crew;
    uint64_t seen = 0;
    for (;;) {
        seen = await_job(crew, seen, worker->index);
        if (atomic_load(&crew->dismissed))
            return NULL;
        work_on(crew, seen, worker->index);
    }
}

/** Begin the next job, and wake who sleeps. Returns its number. */
static uint64_t announce(struct crew *crew, int64_t count, void (*task)(void *argument, int64_t i),
                         void *argument) {
    uint64_t number = newest_number(crew, 0);
    int32_t shares = crew->used;
    for (int32_t i = 0; i < crew->threads; i++) /* beyond any task, of a job that was seen */
        atomic_fetch_or(&crew->shares[i].ticket, UINT32_MAX);
    atomic_store_explicit(&crew->job.task, task, memory_order_release);
    atomic_store_explicit(&crew->job.argument, argument, memory_order_release);
    atomic_store_explicit(&crew->job.count, count, memory_order_release);
    atomic_store_explicit(&crew->job.shares, shares, memory_order_release);
    atomic_store_explicit(&crew->done, 0, memory_order_relaxed);
    number = (number + 1) & UINT32_MAX;
    for (int32_t i = 0; i < shares; i++)
        atomic_store(&crew->shares[i].ticket,
                     number << NUMBER_SHIFT | (uint64_t)share_begin(count, shares, i));
    if (atomic_load(&crew->asleep) > 0) {
        pthread_mutex_lock(&crew->mutex);
        pthread_cond_broadcast(&crew->wake);
        pthread_mutex_unlock(&crew->mutex);
    }
    return number;
}

static void await_tasks(struct crew *crew, int64_t count) {
    for (;;) {
        for (int look = 0; look < LOOKS; look++) {
            if (atomic_load_explicit(&crew->done, memory_order_acquire) == count)
                return;
            relax();
        }
        sched_yield();
    }
}

static void parallel_for(void *context, int64_t count, void (*task)(void *argument, int64_t i),
                         void *argument) {
    struct crew *crew = context;
    if (count > 1 && count <= INT32_MAX && crew->used > 1 && !atomic_exchange(&crew->busy, true)) {
        work_on(crew, announce(crew, count, task, argument), 0);
        await_tasks(crew, count);
        atomic_store(&crew->busy, false);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        task(argument, i);
}

static int32_t parallelism(void *context) { return ((const struct crew *)context)->used; }

void crew_each(struct crew *crew, void (*task)(void *argument, int64_t i), void *argument) {
    parallel_for(crew, crew->used, task, argument);
}

void crew_use(struct crew *crew, int32_t threads) {
    crew->used = threads < crew->threads ? threads : crew->threads;
}

int32_t crew_used(const struct crew *crew) { return crew->used; }

const kry_host *crew_host(const struct crew *crew) { return &crew->host; }

kry_status crew_create(int32_t threads, struct crew **out) {
    struct crew *crew = calloc(1, sizeof *crew);
    struct worker *workers = calloc((size_t)threads, sizeof *workers);
    struct share *shares = aligned_alloc(_Alignof(struct share), (size_t)threads * sizeof *shares);
    if (crew == NULL || workers == NULL || shares == NULL) {
        free(shares);
        free(workers);
        free(crew);
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    }
    crew->host = KRY_INIT(kry_host);
    crew->host.context = crew;
    crew->host.parallel_for = parallel_for;
    crew->host.parallelism = parallelism;
    crew->workers = workers;
    crew->shares = shares;
    for (int32_t i = 0; i < threads; i++)
        atomic_init(&shares[i].ticket, 0);
    crew->threads = 1;
    crew->used = 1;
    pthread_mutex_init(&crew->mutex, NULL);
    pthread_cond_init(&crew->wake, NULL);
    for (; crew->threads < threads; crew->threads++) {
        struct worker *worker = &workers[crew->threads];
        worker->crew = crew;
        worker->index = crew->threads;
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
            crew_destroy(&crew);
            return kry_error_set(KRY_E_MEMORY, "no more than %d threads can be made",
                                 worker->index);
        }
    }
    crew->used = threads;
    *out = crew;
    return KRY_OK;
}

void crew_destroy(struct crew **crew) {
    struct crew *gone = *crew;
    if (gone == NULL)
        return;
    atomic_store(&gone->dismissed, true);
    gone->used = gone->threads;
    announce(gone, 0, NULL, NULL);
    for (int32_t i = 1; i < gone->threads; i++)
        pthread_join(gone->workers[i].thread, NULL);
    pthread_cond_destroy(&gone->wake);
    pthread_mutex_destroy(&gone->mutex);
    free(gone->shares);
    free(gone->workers);
    free(gone);
    *crew = NULL;
}
