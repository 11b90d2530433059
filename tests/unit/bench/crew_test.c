/* Threads of the command's own: every task once, whoever calls. */
#include "crew.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 4, TASKS = 1000, ROUNDS = 200 };

struct tally {
    atomic_int runs[TASKS];
    struct crew *crew;
};

static void count_run(void *argument, int64_t i) {
    struct tally *tally = argument;
    atomic_fetch_add(&tally->runs[i], 1);
}

static void assert_each_ran(const struct tally *tally, int64_t count, int times) {
    for (int64_t i = 0; i < TASKS; i++)
        assert_int_equal(tally->runs[i], i < count ? times : 0);
}

static void for_all(struct crew *crew, int64_t count, void (*task)(void *, int64_t),
                    void *argument) {
    const kry_host *host = crew_host(crew);
    host->parallel_for(host->context, count, task, argument);
}

static void parallel_for_runs_each_task_once(void **state) {
    static const int64_t counts[] = {0, 1, 2, 3, THREADS, TASKS};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        struct tally tally = {.crew = *state};
        for (int round = 0; round < ROUNDS; round++)
            for_all(*state, counts[c], count_run, &tally);
        assert_each_ran(&tally, counts[c], ROUNDS);
    }
}

static void sleeping_threads_wake_for_the_next_job(void **state) {
    struct tally tally = {.crew = *state};
    for (int round = 0; round < 20; round++) {
        usleep(2000); /* longer than they spin */
        for_all(*state, TASKS, count_run, &tally);
    }
    assert_each_ran(&tally, TASKS, 20);
}

static void each_gives_every_thread_its_own_task(void **state) {
    struct tally tally = {.crew = *state};
    for (int32_t used = 1; used <= THREADS; used++) {
        crew_use(*state, used);
        assert_int_equal(crew_host(*state)->parallelism(*state), used);
        memset(tally.runs, 0, sizeof tally.runs);
        crew_each(*state, count_run, &tally);
        assert_each_ran(&tally, used, 1);
    }
}

struct start {
    atomic_int started;
    atomic_bool first[2 * THREADS]; /* tasks that began while no thread had ended one */
};

/* No task ends before every thread has begun one. */
static void begin_together(void *argument, int64_t i) {
    struct start *start = argument;
    start->first[i] = atomic_fetch_add(&start->started, 1) < THREADS;
    while (atomic_load(&start->started) < THREADS)
        usleep(100);
}

static void every_thread_begins_with_a_share_of_its_own(void **state) {
    struct start start = {0};
    for_all(*state, 2 * THREADS, begin_together, &start);
    for (int i = 0; i < 2 * THREADS; i++)
        assert_int_equal(start.first[i], i % 2 == 0);
}

static void use_of_more_than_there_are_uses_all(void **state) {
    crew_use(*state, THREADS + 1);
    assert_int_equal(crew_used(*state), THREADS);
}

static void run_inner(void *argument, int64_t i) {
    (void)i;
    struct tally *tally = argument;
    for_all(tally->crew, 10, count_run, tally);
}

static void parallel_for_inside_a_task_is_run_by_that_task(void **state) {
    struct tally tally = {.crew = *state};
    for_all(*state, 8, run_inner, &tally);
    assert_each_ran(&tally, 10, 8);
}

static void *call_often(void *argument) {
    struct tally *tally = argument;
    for (int round = 0; round < ROUNDS; round++)
        for_all(tally->crew, TASKS, count_run, tally);
    return NULL;
}

static void parallel_for_of_two_callers_at_once_serves_both(void **state) {
    struct tally here = {.crew = *state}, there = {.crew = *state};
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, call_often, &there), 0);
    call_often(&here);
    pthread_join(other, NULL);
    assert_each_ran(&here, TASKS, ROUNDS);
    assert_each_ran(&there, TASKS, ROUNDS);
}

static int make(void **state) {
    struct crew *crew = NULL;
    int failed = crew_create(THREADS, &crew) != KRY_OK;
    *state = crew;
    return failed;
}

static int end(void **state) {
    struct crew *crew = *state;
    crew_destroy(&crew);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(parallel_for_runs_each_task_once, make, end),
        cmocka_unit_test_setup_teardown(sleeping_threads_wake_for_the_next_job, make, end),
        cmocka_unit_test_setup_teardown(each_gives_every_thread_its_own_task, make, end),
        cmocka_unit_test_setup_teardown(every_thread_begins_with_a_share_of_its_own, make, end),
        cmocka_unit_test_setup_teardown(use_of_more_than_there_are_uses_all, make, end),
        cmocka_unit_test_setup_teardown(parallel_for_inside_a_task_is_run_by_that_task, make, end),
        cmocka_unit_test_setup_teardown(parallel_for_of_two_callers_at_once_serves_both, make, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
