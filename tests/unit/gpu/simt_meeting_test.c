/* Barriers and wave operations of the SIMT layer: right kernels pass in every order, and each
 * wrong one is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "simt_faults.h"

#include "simt.h"
#include "simt_meeting_kernels.h"

enum { GRID = 3, MOST_THREADS = 256, PLACES = GRID * MOST_THREADS };

static uint32_t in[PLACES];
static uint32_t out[PLACES];

static int fill(void **state) {
    (void)state;
    for (uint32_t i = 0; i < PLACES; i++) {
        in[i] = i * 2654435761U;
        out[i] = 0xDEADBEEF;
    }
    return 0;
}

static const char *run_waves(const char *name, void (*entry)(const void *), uint32_t threads,
                             uint64_t seed) {
    static uint32_t counter;
    counter = 0;
    const struct meeting_params params = {in, out, &counter};
    const struct simt_launch launch = {
        .name = name,
        .entry = entry,
        .argument = &params,
        .grid = GRID,
        .block = threads,
        .shared_bytes = MOST_THREADS * 4,
        .seed = seed,
    };
    return simt_launch(&launch);
}
#define RUN(entry, threads, seed) run_waves(#entry, entry, threads, seed)

/* At the first sign, and not only when nobody can go on. */
static void assert_says_at_once(const char *fault, const char *words) {
    assert_says(fault, words);
    if (strstr(fault, "deadlock") != NULL) {
        fail_msg("found late: %s", fault);
    }
}

static int is_reversed(uint32_t run) {
    for (uint32_t i = 0; i < PLACES; i++) {
        if (out[i] != in[i / run * run + run - 1 - i % run]) {
            return 0;
        }
    }
    return 1;
}

static void reversal_with_barrier_is_right_in_every_order(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 4 * SIMT_SEEDS; seed++) {
        memset(out, 0, sizeof out);
        assert_no_fault(RUN(reverse_block, MOST_THREADS, seed));
        assert_true(is_reversed(MOST_THREADS));
    }
}

static void missing_barrier_gives_wrong_numbers_in_every_order(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        memset(out, 0, sizeof out);
        assert_no_fault(RUN(reverse_block_without_barrier, MOST_THREADS, seed));
        assert_false(is_reversed(MOST_THREADS));
    }
}

static int is_rotated(void) {
    for (uint32_t i = 0; i < PLACES; i++) {
        const uint32_t first = i / MOST_THREADS * MOST_THREADS;
        if (out[i] != in[first + (i - first + MOST_THREADS - 8) % MOST_THREADS]) {
            return 0;
        }
    }
    return 1;
}

static void rounds_with_both_barriers_are_right_in_every_order(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_no_fault(RUN(rotate_in_rounds, MOST_THREADS, seed));
        assert_true(is_rotated());
    }
}

static void barrier_missing_before_reuse_gives_wrong_numbers_in_every_order(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_no_fault(RUN(rotate_in_rounds_without_second_barrier, MOST_THREADS, seed));
        assert_false(is_rotated());
    }
}

static void wave_barrier_orders_shared_memory(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_no_fault(RUN(reverse_wave, MOST_THREADS, seed));
        assert_true(is_reversed(32));
        memset(out, 0, sizeof out);
        assert_no_fault(RUN(reverse_wave_without_barrier, MOST_THREADS, seed));
        assert_false(is_reversed(32));
    }
}

static void barrier_that_only_some_come_to_is_reported(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        const char *fault = RUN(barrier_for_half, 128, seed);
        assert_says(fault, "kernel barrier_for_half, block ");
        assert_says_at_once(fault, "barrier");
        assert_says_at_once(fault, " ended");
        assert_says(RUN(barrier_in_each_branch, 64, seed), "another barrier than thread ");
        fault = RUN(return_before_barrier, 64, seed);
        assert_says_at_once(fault, "threads 7 ended");
        fault = RUN(return_after_barrier_of_others, 64, seed);
        assert_says(fault, "thread 7 at gpu_fence");
        assert_says(fault, "ends where other threads of the block wait for it at a barrier");
    }
}

static void shuffles_exchange_values(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_no_fault(RUN(shuffle_sum, MOST_THREADS, seed));
        for (uint32_t i = 0; i < PLACES; i++) {
            uint32_t sum = 0;
            for (uint32_t lane = 0; lane < 32; lane++) {
                sum += in[i / 32 * 32 + lane];
            }
            assert_int_equal(out[i], sum);
        }
    }
}

static void wave_operation_with_missing_lanes_is_reported(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_says(RUN(shuffle_for_half, 64, seed), "lanes");
        const char *fault = RUN(shuffle_in_each_branch, 64, seed);
        assert_says(fault, "another wave operation than thread ");
        assert_says_at_once(RUN(shuffle_after_return, 32, seed), "threads 3 ended");
        fault = RUN(return_after_shuffle_of_others, 32, seed);
        assert_says_at_once(fault, "ends where other lanes of the wave wait for it");
        assert_says(RUN(shuffle_beyond_wave, 32, seed), "thread 31 at gpu_shuffle");
        assert_says(RUN(shuffle_sum, 48, seed), "needs 32 lanes; the wave has 16 of 32");
        assert_says(RUN(matrix_for_half, 32, seed), "lanes");
        assert_says(RUN(matrix_of_two_types, 32, seed), "another wave operation than thread ");
    }
}

static void lanes_that_wait_for_block_and_wave_are_a_deadlock(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        const char *fault = RUN(shuffle_against_barrier, 32, seed);
        assert_says(fault, "kernel shuffle_against_barrier, block ");
        assert_says(fault, "deadlock");
        assert_says(fault, "threads 0-9 waiting for the block at gpu_barrier");
        assert_says(fault, "threads 10-31 waiting for the wave at gpu_shuffle");
    }
}

/* Waves of three blocks: which comes when tells the order. */
static void seeds_take_turns_at_the_orders(void **state) {
    (void)state;
    int alone = 0;   /* launches whose first 32 turns belong to one wave */
    int descend = 0; /* launches whose every block goes from the last thread to the first */
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        uint32_t wave_of_turn[PLACES];
        int is_alone = 1;
        int descends = 1;
        assert_no_fault(RUN(count_turns, MOST_THREADS, seed));
        for (uint32_t i = 0; i < PLACES; i++) {
            wave_of_turn[out[i]] = i / 32;
            descends &= i % MOST_THREADS == 0 || out[i] < out[i - 1];
        }
        for (uint32_t turn = 1; turn < 32; turn++) {
            is_alone &= wave_of_turn[turn] == wave_of_turn[0];
        }
        alone += is_alone && !descends;
        descend += descends;
    }
    assert_int_equal(descend, SIMT_SEEDS / 3);
    assert_in_range(alone, 1, SIMT_SEEDS / 3);
}

static void launch_after_a_failed_one_is_right(void **state) {
    (void)state;
    assert_says(RUN(shuffle_against_barrier, 256, 1), "deadlock");
    assert_no_fault(RUN(reverse_block, MOST_THREADS, 1));
    assert_true(is_reversed(MOST_THREADS));
}

static void shapes_that_cannot_be_launched_are_refused(void **state) {
    (void)state;
    assert_says(RUN(reverse_block, 0, 0), "cannot be launched");
    assert_says(RUN(reverse_block, 1025, 0), "cannot be launched");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reversal_with_barrier_is_right_in_every_order, fill),
        cmocka_unit_test_setup(missing_barrier_gives_wrong_numbers_in_every_order, fill),
        cmocka_unit_test_setup(rounds_with_both_barriers_are_right_in_every_order, fill),
        cmocka_unit_test_setup(barrier_missing_before_reuse_gives_wrong_numbers_in_every_order,
                               fill),
        cmocka_unit_test_setup(wave_barrier_orders_shared_memory, fill),
        cmocka_unit_test_setup(barrier_that_only_some_come_to_is_reported, fill),
        cmocka_unit_test_setup(shuffles_exchange_values, fill),
        cmocka_unit_test_setup(wave_operation_with_missing_lanes_is_reported, fill),
        cmocka_unit_test_setup(lanes_that_wait_for_block_and_wave_are_a_deadlock, fill),
        cmocka_unit_test_setup(seeds_take_turns_at_the_orders, fill),
        cmocka_unit_test_setup(launch_after_a_failed_one_is_right, fill),
        cmocka_unit_test_setup(shapes_that_cannot_be_launched_are_refused, fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
