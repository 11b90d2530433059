/* The CPU's platform: its memory, and threads under every way of calling them. */
#include "plugin_under_test.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const kry_plugin *plugin;
static const kry_platform *platform;
static const kry_host *host;
static kry_device device;

/* An absurd request is to fail, as without a sanitizer, and not to end the program. */
KRY_API const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
KRY_API const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "allocator_may_return_null=1:die_after_fork=0"; }

static int setup_plugin(void **state) {
    (void)state;
    /* More threads than this machine may have, so that there is a pool in any case. */
    setenv("KERNELRY_THREADS", "5", 1);
    plugin = plugin_under_test(CPU_PLATFORM_PLUGIN, "kry_plugin_cpu_platform");
    platform = plugin->platforms[0];
    host = platform->host;
    device = KRY_INIT(kry_device);
    return 0;
}

/* ---- memory ---------------------------------------------------------------------------- */

static void plugin_table_offers_the_platform_cpu_and_no_kernel(void **state) {
    (void)state;
    assert_string_equal(plugin->name, "cpu_platform");
    assert_int_equal(plugin->kernel_count, 0);
    assert_int_equal(plugin->platform_count, 1);
    assert_string_equal(platform->name, "cpu");
}

static void allocate_of_any_size_is_aligned_and_writable(void **state) {
    (void)state;
    const uint64_t sizes[] = {0, 1, 255, 256, 4097, (2u << 20) - 1, 2u << 20, (5u << 20) + 3};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        void *memory = NULL;
        assert_int_equal(platform->allocate(&device, sizes[i], &memory), KRY_OK);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % KRY_ALIGNMENT, 0);
        memset(memory, 7, sizes[i]);
        platform->release(&device, memory, sizes[i]);
    }
}

static void allocate_of_an_absurd_size_fails_and_says_how_much(void **state) {
    (void)state;
    const uint64_t sizes[] = {UINT64_MAX, UINT64_C(1) << 63, INT64_MAX, UINT64_C(1) << 60};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        void *memory = &device;
        assert_int_equal(platform->allocate(&device, sizes[i], &memory), KRY_E_MEMORY);
        assert_ptr_equal(memory, &device); /* untouched */
        assert_null(host->allocate(host->context, sizes[i], 64));
    }
    assert_non_null(strstr(plugin->error_message(), "1152921504606846976 bytes"));
}

/* Large blocks share regions: each is its own all the same, whatever the order of releases. */
static void large_blocks_never_overlap_and_outlive_their_neighbours(void **state) {
    (void)state;
    enum { BLOCKS = 24, ROUNDS = 200 };
    static const uint64_t sizes[] = {2u << 20, (3u << 20) + 5, 30u << 20, 100u << 20};
    struct {
        uint8_t *memory;
        uint64_t bytes;
    } blocks[BLOCKS] = {0};
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t at = i * 7 % BLOCKS;
        if (blocks[at].memory != NULL) {
            /* First, last, and a few between: all of them still as they were left. */
            for (uint64_t j = 0; j < blocks[at].bytes; j += (blocks[at].bytes - 1) / 4)
                assert_int_equal(blocks[at].memory[j], at);
            host->release(host->context, blocks[at].memory, blocks[at].bytes);
        }
        blocks[at].bytes = sizes[i % 4];
        blocks[at].memory = host->allocate(host->context, blocks[at].bytes, 64u << i % 8);
        assert_non_null(blocks[at].memory);
        assert_int_equal((uintptr_t)blocks[at].memory % (64u << i % 8), 0);
        for (uint64_t j = 0; j < blocks[at].bytes; j += (blocks[at].bytes - 1) / 4)
            blocks[at].memory[j] = (uint8_t)at;
    }
    for (uint32_t at = 0; at < BLOCKS; at++)
        host->release(host->context, blocks[at].memory, blocks[at].bytes);
}

/* As of layers that are prepared one after another: their scratch takes no memory of its own. */
static void room_of_the_last_large_block_is_used_again(void **state) {
    (void)state;
    enum { LAYERS = 6, KEPT = 3 << 20, SCRATCH = 8 << 20 };
    void *kept[LAYERS], *scratch, *first = NULL;
    for (int i = 0; i < LAYERS; i++) {
        assert_int_equal(platform->allocate(&device, KEPT, &kept[i]), KRY_OK);
        memset(kept[i], i, KEPT);
        assert_int_equal(platform->allocate(&device, SCRATCH, &scratch), KRY_OK);
        memset(scratch, 0xee, SCRATCH);
        platform->release(&device, scratch, SCRATCH);
        first = i == 0 ? scratch : first;
    }
    assert_ptr_equal(kept[1], first);
    for (int i = 0; i < LAYERS; i++) {
        for (int j = 0; j < KEPT; j += 4096)
            assert_int_equal(((uint8_t *)kept[i])[j], i);
        platform->release(&device, kept[i], KEPT);
    }
}

static void host_allocate_honours_the_alignment(void **state) {
    (void)state;
    for (size_t alignment = 1; alignment <= 8192; alignment *= 2) {
        void *memory = host->allocate(host->context, 100, alignment);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % alignment, 0);
        host->release(host->context, memory, 100);
    }
}

static void copy_and_clear_do_what_they_say(void **state) {
    (void)state;
    char from[] = "weights", to[8] = "";
    assert_int_equal(platform->copy(&device, to, KRY_MEMORY_DEVICE, from, KRY_MEMORY_HOST, 8, NULL),
                     KRY_OK);
    assert_string_equal(to, "weights");
    assert_int_equal(platform->clear(&device, to, 7, NULL), KRY_OK);
    assert_memory_equal(to, "\0\0\0\0\0\0\0", 8);
    assert_int_equal(platform->copy(&device, NULL, 1, NULL, 1, 0, NULL), KRY_OK);
    assert_int_equal(platform->clear(&device, NULL, 0, NULL), KRY_OK);
    assert_int_equal(platform->synchronize(&device, NULL), KRY_OK);
}

/* ---- threads --------------------------------------------------------------------------- */

enum { COUNT = 3000 };

struct tally {
    atomic_int seen[COUNT];
    int plain[COUNT]; /* not atomic: each element belongs to one task, then to the caller */
    struct tally *inner;
};

static void count_one(void *argument, int64_t i) {
    struct tally *tally = argument;
    atomic_fetch_add(&tally->seen[i], 1);
    tally->plain[i]++;
}

static bool each_once(const struct tally *tally, int64_t count) {
    for (int64_t i = 0; i < COUNT; i++)
        if (tally->seen[i] != (i < count) || tally->plain[i] != (i < count))
            return false;
    return true;
}

static void parallel_for_calls_every_index_once(void **state) {
    (void)state;
    const int64_t counts[] = {0, 1, 2, 3, 7, 64, COUNT};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        struct tally tally = {0};
        host->parallel_for(host->context, counts[i], count_one, &tally);
        assert_true(each_once(&tally, counts[i]));
    }
}

static void parallelism_is_what_the_environment_asks_for(void **state) {
    (void)state;
    assert_int_equal(host->parallelism(host->context), 5);
}

static void await_another_thread(void *argument, int64_t i) {
    (void)i;
    pthread_barrier_wait(argument);
}

/* Each task waits for all others: on fewer threads than tasks this never ends, so the alarm
   ends the process. */
static void meet_on_five_threads(void) {
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, 5);
    alarm(60);
    host->parallel_for(host->context, 5, await_another_thread, &barrier);
    alarm(0);
    pthread_barrier_destroy(&barrier);
}

static void parallel_for_runs_tasks_at_the_same_time(void **state) {
    (void)state;
    meet_on_five_threads();
}

static void count_inside(void *argument, int64_t i) {
    struct tally *tally = argument;
    host->parallel_for(host->context, 100, count_one, &tally->inner[i]);
    count_one(tally, i);
}

static void parallel_for_inside_a_task_calls_every_index_once(void **state) {
    (void)state;
    struct tally *inner = calloc(20, sizeof(*inner));
    assert_non_null(inner);
    struct tally tally = {.inner = inner};
    host->parallel_for(host->context, 20, count_inside, &tally);
    bool right = each_once(&tally, 20);
    for (int i = 0; i < 20; i++)
        right = right && each_once(&inner[i], 100);
    free(inner);
    assert_true(right);
}

static void *call_many_times(void *argument) {
    for (int round = 0; round < 20; round++) {
        struct tally tally = {0};
        host->parallel_for(host->context, COUNT, count_one, &tally);
        if (!each_once(&tally, COUNT))
            *(bool *)argument = false;
    }
    return NULL;
}

static void parallel_for_from_eight_threads_at_once_calls_every_index_once(void **state) {
    (void)state;
    pthread_t threads[8];
    bool right[8];
    for (int i = 0; i < 8; i++) {
        right[i] = true;
        assert_int_equal(pthread_create(&threads[i], NULL, call_many_times, &right[i]), 0);
    }
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 8; i++)
        assert_true(right[i]);
}

/* In a child, and in a child of it: status 0 when each has threads of its own. */
static int use_in_child(int generations) {
    pid_t child = fork();
    if (child == 0) {
        meet_on_five_threads();
        bool right = true;
        call_many_times(&right);
        if (right && generations > 1)
            right = use_in_child(generations - 1) == 0;
        /* What the parent's threads had is out of reach here. Another program takes the place of
           this one, so that valgrind does not count it. */
        if (right)
            execl("/bin/true", "true", (char *)NULL);
        _exit(1);
    }
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

static void parallel_for_in_a_forked_child_has_threads_again(void **state) {
    (void)state;
    struct tally tally = {0};
    host->parallel_for(host->context, COUNT, count_one, &tally); /* now there is a pool */
    assert_int_equal(use_in_child(2), 0);
}

static void fork_in_task(void *argument, int64_t i) {
    if (i == 0)
        *(int *)argument = use_in_child(1);
}

/* The child of a busy parent must not wait for a parallel-for that it does not have. */
static void parallel_for_in_a_child_forked_from_a_task_has_threads_again(void **state) {
    (void)state;
    int status = -1;
    host->parallel_for(host->context, 10, fork_in_task, &status);
    assert_int_equal(status, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plugin_table_offers_the_platform_cpu_and_no_kernel),
        cmocka_unit_test(allocate_of_any_size_is_aligned_and_writable),
        cmocka_unit_test(allocate_of_an_absurd_size_fails_and_says_how_much),
        cmocka_unit_test(large_blocks_never_overlap_and_outlive_their_neighbours),
        cmocka_unit_test(room_of_the_last_large_block_is_used_again),
        cmocka_unit_test(host_allocate_honours_the_alignment),
        cmocka_unit_test(copy_and_clear_do_what_they_say),
        cmocka_unit_test(parallel_for_calls_every_index_once),
        cmocka_unit_test(parallelism_is_what_the_environment_asks_for),
        cmocka_unit_test(parallel_for_runs_tasks_at_the_same_time),
        cmocka_unit_test(parallel_for_inside_a_task_calls_every_index_once),
        cmocka_unit_test(parallel_for_from_eight_threads_at_once_calls_every_index_once),
        cmocka_unit_test(parallel_for_in_a_forked_child_has_threads_again),
        cmocka_unit_test(parallel_for_in_a_child_forked_from_a_task_has_threads_again),
    };
    return cmocka_run_group_tests(tests, setup_plugin, NULL) ? 1 : 0;
}
