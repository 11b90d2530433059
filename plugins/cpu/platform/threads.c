/*
 * Threads of the CPU: one pool of pthreadpool's, made when it is first needed.
 *
 * A pool runs one parallel-for at a time. Whoever finds it busy, from another thread or from
 * inside a task, runs its tasks itself: nobody waits for anybody, so nothing can lock up, and
 * the processors are busy already. After a fork the child has none of the threads and makes a
 * pool of its own.
 */
#include "platform.h"

#include <errno.h>
#include <pthread.h>
#include <pthreadpool.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

/* ThreadSanitizer does not see the synchronisation inside pthreadpool, which is not compiled
   with it: tell it that what came before a parallel-for is seen by its tasks, and what the tasks
   did is seen after it. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SEEN_BY_TSAN
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(SEEN_BY_TSAN)
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define ORDER_AFTER(address) __tsan_acquire(address)
#define ORDER_BEFORE(address) __tsan_release(address)
#else
#define ORDER_AFTER(address) (void)(address)
#define ORDER_BEFORE(address) (void)(address)
#endif

enum { THREADS_MAX = 4096 };

/* Whoever turns `busy` from false to true owns the pool until it clears it again. */
static atomic_bool busy;
static pthreadpool_t pool;   /* NULL: not made yet, or the last attempt failed */
static uint32_t pool_flags;  /* owned alike */
static bool fork_is_watched; /* owned alike */

static atomic_int thread_count; /* 0: not told yet */

/* The CPUs that this thread, and so threads made by it, may run on. */
static int usable_cpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than a cpu_set_t holds */
    return online > 0 && online <= THREADS_MAX ? (int)online : 1;
}

/* KERNELRY_THREADS, or 0 where it does not hold a number of threads. */
static int threads_asked_for(void) {
    const char *text = secure_getenv("KERNELRY_THREADS");
    if (text == NULL || *text < '0' || *text > '9')
        return 0;
    char *end;
    errno = 0;
    long threads = strtol(text, &end, 10);
    return errno == 0 && *end == '\0' && threads <= THREADS_MAX ? (int)threads : 0;
}

int32_t threads_parallelism(void) {
    int threads = atomic_load(&thread_count);
    if (threads == 0) {
        threads = threads_asked_for();
        if (threads == 0)
            threads = usable_cpus();
        /* Another thread may have been faster, on other CPUs: its number stays. */
        int unknown = 0;
        if (!atomic_compare_exchange_strong(&thread_count, &unknown, threads))
            threads = unknown;
    }
    return threads;
}

/* In the child only the thread that forked goes on. The pool cannot be ended without its threads:
   its block of some hundred bytes is left behind. */
static void forget_pool(void) {
    pool = NULL;
    atomic_store(&busy, false);
}

/* Make the pool if there is none; the caller owns it. */
static void make_pool(int32_t threads) {
    if (pool != NULL)
        return;
    if (!fork_is_watched && pthread_atfork(NULL, NULL, forget_pool) != 0)
        return;
    fork_is_watched = true;
    /* The threads inherit the mask: signals are the business of the program's own threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pool = pthreadpool_create((size_t)threads);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    /* Waiting threads spin, which wakes them fastest. Where there are more of them than
       processors, they would spin in the way of those that work: let them sleep. */
    pool_flags = threads > usable_cpus() ? PTHREADPOOL_FLAG_YIELD_WORKERS : 0;
}

/* End the threads with the process, unless they are at work. */
__attribute__((destructor)) static void end_pool(void) {
    if (atomic_exchange(&busy, true))
        return;
    if (pool != NULL)
        pthreadpool_destroy(pool);
    pool = NULL; /* and stays busy: whoever comes later runs its tasks itself */
}

struct call {
    void (*task)(void *argument, int64_t i);
    void *argument;
};

static void run_task(void *context, size_t i) {
    const struct call *call = context;
    ORDER_AFTER(context);
    call->task(call->argument, (int64_t)i);
    ORDER_BEFORE(context);
}

void threads_parallel_for(int64_t count, void (*task)(void *argument, int64_t i), void *argument) {
    int32_t threads = threads_parallelism();
    if (count > 1 && threads > 1 && !atomic_exchange(&busy, true)) {
        make_pool(threads);
        bool runs = pool != NULL;
        if (runs) {
            struct call call = {task, argument};
            ORDER_BEFORE(&call);
            pthreadpool_parallelize_1d(pool, run_task, &call, (size_t)count, pool_flags);
            ORDER_AFTER(&call);
        }
        atomic_store(&busy, false);
        if (runs)
            return;
    }
    for (int64_t i = 0; i < count; i++)
        task(argument, i);
}
