/* Memory of the SIMT layer: asynchronous copies, shared memory's ends, counters between blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "simt_faults.h"

#include "simt.h"
#include "simt_memory_kernels.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define HAS_ASAN 1
#endif
#ifndef HAS_ASAN
#define HAS_ASAN 0
#endif

enum { WORDS = 8192, SHARED_BYTES = 16 * 256 };

struct memory {
    uint32_t *in; /* 16-byte aligned */
    uint32_t out[WORDS];
    uint32_t counters[16];
};

static int make(void **state) {
    struct memory *memory = calloc(1, sizeof *memory);
    if (memory == NULL || posix_memalign((void **)&memory->in, 16, WORDS * 4) != 0) {
        free(memory);
        return -1;
    }
    for (uint32_t i = 0; i < WORDS; i++) {
        memory->in[i] = (i + 1) * 2654435761U;
        memory->out[i] = 0xDEADBEEF;
    }
    *state = memory;
    return 0;
}

static int discard(void **state) {
    struct memory *memory = *state;
    free(memory->in);
    free(memory);
    return 0;
}

struct shape {
    uint32_t grid;
    uint32_t block;
    uint32_t resident;
};

static const char *run(const char *name, void (*entry)(const void *), struct memory *memory,
                       struct shape shape, uint64_t seed) {
    const struct memory_params params = {memory->in, memory->out, memory->counters};
    const struct simt_launch launch = {
        .name = name,
        .entry = entry,
        .argument = &params,
        .grid = shape.grid,
        .block = shape.block,
        .shared_bytes = SHARED_BYTES,
        .resident = shape.resident,
        .seed = seed,
    };
    return simt_launch(&launch);
}
#define RUN(entry, memory, shape, seed) run(#entry, entry, memory, shape, seed)

/* ---- asynchronous copies ------------------------------------------------------------------- */

enum { PIPELINE_THREADS = 64 }; /* 3 stages of 1 kB */
static const struct shape one_block = {1, PIPELINE_THREADS, 0};

static int pipeline_is_right(const struct memory *memory) {
    for (uint32_t t = 0; t < PIPELINE_THREADS; t++) {
        uint32_t sum = 0;
        for (uint32_t tile = 0; tile < MEMORY_TILES; tile++) {
            const uint32_t *words =
                memory->in + (tile * PIPELINE_THREADS + (t + 1) % PIPELINE_THREADS) * 4;
            sum += words[0] + words[1] * 3 + words[2] * 5 + words[3] * 7;
        }
        if (memory->out[t] != sum) {
            return 0;
        }
    }
    return 1;
}

static void pipeline_is_right_whenever_copies_land(void **state) {
    struct memory *memory = *state;
    for (uint64_t seed = 0; seed < 4 * SIMT_SEEDS; seed++) {
        memset(memory->out, 0, sizeof memory->out);
        assert_no_fault(RUN(pipeline, memory, one_block, seed));
        assert_true(pipeline_is_right(memory));
    }
}

static void assert_wrong_numbers_at_every_seed(struct memory *memory, const char *name,
                                               void (*entry)(const void *)) {
    for (uint64_t seed = 0; seed < 4 * SIMT_SEEDS; seed++) {
        assert_no_fault(run(name, entry, memory, one_block, seed));
        if (pipeline_is_right(memory)) {
            fail_msg("%s is right at seed %llu", name, (unsigned long long)seed);
        }
    }
}

static void copy_read_before_its_wait_gives_wrong_numbers(void **state) {
    assert_wrong_numbers_at_every_seed(*state, "pipeline_without_wait", pipeline_without_wait);
}

static void copy_of_a_batch_not_waited_for_gives_wrong_numbers(void **state) {
    assert_wrong_numbers_at_every_seed(*state, "pipeline_that_waits_for_too_few",
                                       pipeline_that_waits_for_too_few);
}

static void copy_of_another_thread_without_barrier_gives_wrong_numbers(void **state) {
    assert_wrong_numbers_at_every_seed(*state, "pipeline_without_barrier",
                                       pipeline_without_barrier);
}

static void copy_onto_what_others_read_gives_wrong_numbers(void **state) {
    assert_wrong_numbers_at_every_seed(*state, "pipeline_that_overwrites_too_early",
                                       pipeline_that_overwrites_too_early);
}

static void copies_bring_what_they_are_told_or_zeros(void **state) {
    struct memory *memory = *state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_no_fault(RUN(copy_some, memory, one_block, seed));
        for (uint32_t t = 0; t < PIPELINE_THREADS; t++) {
            uint32_t expected[5] = {0};
            if (t % 2 != 0) {
                memcpy(expected, memory->in + t * 8, 16);
            }
            expected[4] = memory->in[t * 8 + 5];
            assert_memory_equal(memory->out + t * 5, expected, sizeof expected);
        }
    }
}

/* ---- addresses ----------------------------------------------------------------------------- */

static void addresses_that_an_operation_cannot_take_are_reported(void **state) {
    struct memory *memory = *state;
    const char *fault = RUN(copy_beyond_shared, memory, one_block, 0);
    assert_says(fault, "thread 9 at gpu_copy_async16 (simt_memory_kernels.cc:");
    assert_says(fault, "16 bytes to byte 4096 of 4096 of shared memory");
    fault = RUN(copy_misaligned, memory, one_block, 0);
    assert_says(fault, "thread 9 at gpu_copy_async16");
    assert_says(fault, "is not a multiple of 16 bytes");
    fault = RUN(load_misaligned, memory, one_block, 0);
    assert_says(fault, "thread 9 at gpu_load_cached");
}

static void shared_memory_is_not_a_number_or_zero_before_it_is_written(void **state) {
    struct memory *memory = *state;
    const struct shape shape = {3, PIPELINE_THREADS, 0};
    uint32_t seen = 0;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_no_fault(RUN(read_before_write, memory, shape, seed));
        assert_true(memory->out[0] == 0xFFFFFFFF || memory->out[0] == 0);
        seen |= memory->out[0] == 0 ? 1 : 2;
        for (uint32_t t = 1; t < PIPELINE_THREADS; t++) {
            assert_int_equal(memory->out[t], memory->out[0]);
        }
    }
    assert_int_equal(seen, 3);
}

/* What a child process says on stderr that runs the kernel; it must not end well. */
static void fails_saying(struct memory *memory, const char *name, void (*entry)(const void *),
                         char *said, size_t size) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        const struct shape shape = {1, 512, 0};
        run(name, entry, memory, shape, 0);
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t got;
    while ((got = read(ends[0], said + length, size - 1 - length)) > 0) {
        length += (size_t)got;
    }
    close(ends[0]);
    said[length] = '\0';
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
}

static void access_beyond_shared_memory_stops_under_asan(void **state) {
    if (!HAS_ASAN) {
        skip();
    }
    static char said[1 << 20];
    fails_saying(*state, "write_beyond_shared", write_beyond_shared, said, sizeof said);
    assert_says(said, "heap-buffer-overflow");
    assert_says(said, "simt: kernel write_beyond_shared, block 0, thread ");
}

static void copy_from_memory_that_is_not_there_is_reported_under_asan(void **state) {
    if (!HAS_ASAN) {
        skip();
    }
    struct memory *memory = *state;
    uint32_t *whole = memory->in;
    assert_int_equal(posix_memalign((void **)&memory->in, 16, 4), 0);
    const char *fault = RUN(copy_from_beyond, memory, one_block, 0);
    free(memory->in);
    memory->in = whole;
    assert_says(fault, "thread 9 at gpu_copy_async4");
    assert_says(fault, "are not all memory of the test");
}

/* ---- counters ------------------------------------------------------------------------------ */

static void last_block_sees_what_all_have_written(void **state) {
    struct memory *memory = *state;
    const struct shape shape = {7, 64, 0};
    uint32_t sum = 0;
    for (uint32_t i = 0; i < shape.grid * shape.block; i++) {
        sum += memory->in[i];
    }
    for (uint64_t seed = 0; seed < 4 * SIMT_SEEDS; seed++) {
        memory->out[0] = 0;
        assert_no_fault(RUN(sum_of_blocks, memory, shape, seed));
        assert_int_equal(memory->out[0], sum);
        assert_int_equal(memory->counters[0], 0);
    }
}

static void blocks_that_wait_for_each_other_are_served_when_all_are_in_flight(void **state) {
    struct memory *memory = *state;
    const struct shape shape = {9, 32, SIMT_ALL_BLOCKS};
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        memset(memory->counters, 0, sizeof memory->counters);
        assert_no_fault(RUN(wait_for_next_block, memory, shape, seed));
        for (uint32_t i = 0; i < shape.grid * shape.block; i++) {
            assert_int_equal(memory->out[i], i / shape.block);
        }
    }
}

static void blocks_that_wait_for_one_not_begun_are_reported(void **state) {
    struct memory *memory = *state;
    const struct shape shape = {9, 32, 1};
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        memset(memory->counters, 0, sizeof memory->counters);
        const char *fault = RUN(wait_for_next_block, memory, shape, seed);
        assert_says(fault, "waits for another thread to change a counter");
        assert_says(fault, "1 blocks are in flight and ");
        assert_says(fault, "threads 0 polling a counter at gpu_atomic_add");
        assert_says(fault, "threads 1-31 waiting for the block at gpu_barrier");
    }
}

static void thread_that_waits_for_nobody_is_reported(void **state) {
    struct memory *memory = *state;
    const struct shape shape = {4, 64, 0};
    const char *fault = RUN(wait_for_nobody, memory, shape, 0);
    assert_says(fault, "threads 3 polling a counter");
}

/* ---- ldmatrix ------------------------------------------------------------------------------ */

static uint32_t pair(const uint32_t *words, uint32_t matrix, uint32_t first, uint32_t second) {
    uint16_t halves[2];
    memcpy(&halves[0], (const char *)(words + matrix * 32) + (size_t)first * 2, 2);
    memcpy(&halves[1], (const char *)(words + matrix * 32) + (size_t)second * 2, 2);
    return halves[0] | (uint32_t)halves[1] << 16;
}

static void matrices_are_loaded_as_ptx_says(void **state) {
    struct memory *memory = *state;
    const struct shape shape = {1, 32, 0};
    assert_no_fault(RUN(load_matrices, memory, shape, 0));
    for (uint32_t lane = 0; lane < 32; lane++) {
        const uint32_t *out = memory->out + lane * 11;
        const uint32_t row = lane / 4;
        const uint32_t column = lane % 4 * 2;
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t plain = pair(memory->in, i, row * 8 + column, row * 8 + column + 1);
            assert_int_equal(out[i], plain);
            assert_int_equal(out[4 + i],
                             pair(memory->in, i, column * 8 + row, (column + 1) * 8 + row));
            if (i < 2) {
                assert_int_equal(out[8 + i], plain);
            }
            if (i < 1) {
                assert_int_equal(out[10], plain);
            }
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, discard)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(pipeline_is_right_whenever_copies_land),
        TEST(copy_read_before_its_wait_gives_wrong_numbers),
        TEST(copy_of_a_batch_not_waited_for_gives_wrong_numbers),
        TEST(copy_of_another_thread_without_barrier_gives_wrong_numbers),
        TEST(copy_onto_what_others_read_gives_wrong_numbers),
        TEST(copies_bring_what_they_are_told_or_zeros),
        TEST(addresses_that_an_operation_cannot_take_are_reported),
        TEST(shared_memory_is_not_a_number_or_zero_before_it_is_written),
        TEST(access_beyond_shared_memory_stops_under_asan),
        TEST(copy_from_memory_that_is_not_there_is_reported_under_asan),
        TEST(last_block_sees_what_all_have_written),
        TEST(blocks_that_wait_for_each_other_are_served_when_all_are_in_flight),
        TEST(blocks_that_wait_for_one_not_begun_are_reported),
        TEST(thread_that_waits_for_nobody_is_reported),
        TEST(matrices_are_loaded_as_ptx_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
