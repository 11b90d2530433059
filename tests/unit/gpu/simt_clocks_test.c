/*
 * Races among mbarriers, clusters and bulk copies are found from the rules: the kernels of the
 * other tests, instrumented. Each wrong one is reported at every seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simt_faults.h"

#include "simt.h"
#include "simt_cluster_kernels.h"
#include "simt_wide_problem.h"

enum { BLOCKS = 8, MOST_THREADS = 256, SEEDS = 2 * SIMT_SEEDS };

struct shape {
    uint32_t threads;
    uint32_t cluster;
};

static const char *run(const char *name, void (*entry)(const void *), struct shape shape,
                       enum cluster_fault fault, uint64_t seed) {
    static _Alignas(16) uint32_t in[BLOCKS * MOST_THREADS];
    static _Alignas(16) uint32_t out[BLOCKS * MOST_THREADS];
    const struct cluster_params params = {in, out, shape.cluster, fault};
    const struct simt_launch launch = {
        .name = name,
        .entry = entry,
        .argument = &params,
        .grid = BLOCKS,
        .block = shape.threads,
        .cluster = shape.cluster,
        .shared_bytes = 64 + MOST_THREADS * 4,
        .seed = seed,
    };
    return simt_launch(&launch);
}

static void has_no_race(const char *name, void (*entry)(const void *), struct shape shape) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        assert_no_fault(run(name, entry, shape, CLUSTER_RIGHT, seed));
    }
}
#define HAS_NO_RACE(entry, shape) has_no_race(#entry, entry, shape)

static void races(const char *name, void (*entry)(const void *), struct shape shape,
                  enum cluster_fault fault) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        assert_says(run(name, entry, shape, fault, seed), "a race: ");
    }
}
#define RACES(entry, shape, fault) races(#entry, entry, shape, fault)

static const struct shape alone = {64, 1};
static const struct shape pairs = {64, 2};
static const struct shape fours = {96, 4};
static const struct shape large = {256, 1};

static void right_kernels_have_no_race(void **state) {
    (void)state;
    static const struct shape *const shapes[] = {&alone, &pairs, &fours};
    for (uint32_t i = 0; i < 3; i++) {
        HAS_NO_RACE(rotate_cluster, *shapes[i]);
        HAS_NO_RACE(rotate_in_rounds, *shapes[i]);
        HAS_NO_RACE(rotate_through_global, *shapes[i]);
        HAS_NO_RACE(reverse_by_cluster, *shapes[i]);
    }
    HAS_NO_RACE(hand_on, alone);
    HAS_NO_RACE(hand_on_by_one_lane, alone);
    HAS_NO_RACE(reverse_part, large);
    HAS_NO_RACE(rotate_part_through_global, large);
}

static void order_that_is_missing_is_a_race(void **state) {
    (void)state;
    RACES(rotate_cluster, pairs, NO_WAIT);
    RACES(rotate_cluster, fours, NO_WAIT);
    RACES(rotate_in_rounds, pairs, NO_WAIT_FOR_ROOM);
    RACES(rotate_in_rounds, fours, NO_WAIT_FOR_ROOM);
    RACES(rotate_through_global, pairs, NO_FIRST_BARRIER);
    RACES(reverse_by_cluster, pairs, WRITE_BEHIND_ARRIVAL);
    RACES(reverse_by_cluster, fours, READ_BEFORE_WAIT);
    RACES(hand_on_by_one_lane, alone, NO_BARRIER);
    RACES(reverse_part, large, NO_BARRIER);
    RACES(rotate_part_through_global, large, NO_BARRIER);
    /* One wave may be done before the other one begins: then that one waits in vain. */
    for (uint64_t seed = 0; seed < 2 * SEEDS; seed++) {
        const char *fault =
            run("hand_on", hand_on, alone, seed % 2 == 0 ? NO_WAIT : NO_WAIT_FOR_ROOM, seed / 2);
        if (fault == NULL || strstr(fault, "deadlock") == NULL) {
            assert_says(fault, "a race: ");
        }
    }
}

/* ---- bulk copies and wgmma ----------------------------------------------------------------- */

static void right_products_have_no_race(void **state) {
    struct wide_problem *p = *state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        wide_fill(p, 64, 2, false);
        assert_no_fault(WIDE_RUN(p, product_64_f16, WIDE_RIGHT, seed));
        assert_true(wide_is_right(p));
        assert_no_fault(WIDE_RUN(p, pipelined_64_f16, WIDE_RIGHT, seed));
        assert_true(wide_is_right(p));
        assert_no_fault(WIDE_RUN(p, product_64_f16, WIDE_LANE_FREES, seed));
        assert_true(wide_is_right(p));
    }
}

static void boxes_used_too_early_are_races(void **state) {
    struct wide_problem *p = *state;
    wide_fill(p, 64, 2, false);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        const char *fault = WIDE_RUN(p, product_64_f16, WIDE_NO_FULL_WAIT, seed);
        assert_says(fault, "a race: ");
        fault = WIDE_RUN(p, product_64_f16, WIDE_NO_FREE_WAIT, seed);
        if (strstr(fault, "arrives at the mbarrier") == NULL) { /* before the last copy came */
            assert_says(fault, "a race: writes byte ");
        }
        fault = WIDE_RUN(p, product_64_f16, WIDE_FREE_BEFORE_WAIT, seed);
        assert_says(fault, "a race: writes byte ");
        assert_says(fault, "which a gpu_wgmma of warpgroup ");
        fault = WIDE_RUN(p, product_64_f16, WIDE_LANE_FREES_EARLY, seed);
        assert_says(fault, "a race: writes byte ");
        fault = WIDE_RUN(p, pipelined_64_f16, WIDE_FREE_TOO_NEW, seed);
        assert_says(fault, "which a gpu_wgmma of warpgroup ");
    }
}

static void bytes_of_bulk_copies_are_written_until_they_are_waited_for(void **state) {
    (void)state;
    static _Alignas(16) unsigned char from[1024];
    static unsigned char to[1024];
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bulk_params params = {from, to, 64, 16, 1024, 16, false, false, false};
        const struct simt_launch launch = {.name = "copy_in_bulk",
                                           .entry = copy_in_bulk,
                                           .argument = &params,
                                           .grid = 1,
                                           .block = 64,
                                           .shared_bytes = 1024 + 16,
                                           .seed = seed};
        assert_no_fault(simt_launch(&launch));
        params.over_writes = true;
        assert_says(simt_launch(&launch), "which did not publish it");
        params.is_published = true;
        assert_no_fault(simt_launch(&launch));
        params.without_wait = true;
        const char *fault = simt_launch(&launch);
        assert_says(fault, "a race: reads byte ");
        assert_says(fault, "to which a copy came that counts at the mbarrier at byte 0");
    }
}

static void boxes_that_threads_write_are_published(void **state) {
    struct wide_problem *p = *state;
    wide_fill(p, 64, 2, false);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        assert_no_fault(WIDE_RUN(p, product_64_f16, WIDE_B_PUBLISHED, seed));
        assert_true(wide_is_right(p));
        assert_says(WIDE_RUN(p, product_64_f16, WIDE_B_WRITTEN, seed),
                    "was written by thread 9, which did not publish it");
    }
}

static void registers_written_after_the_fence_are_reported(void **state) {
    struct wide_problem *p = *state;
    wide_fill(p, 64, 1, false);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        assert_says(WIDE_RUN(p, product_64_f16, WIDE_A_AFTER_FENCE, seed),
                    "a was written with no gpu_wgmma_fence since");
        assert_says(WIDE_RUN(p, product_64_f16, WIDE_C_AFTER_FENCE, seed),
                    "c was written with no gpu_wgmma_fence since");
    }
}

/* Plain accesses count, too, where they are seen. */
static void plain_accesses_before_the_grid_before_is_over_are_reported(void **state) {
    (void)state;
    uint32_t *in = calloc(64, sizeof *in);
    uint32_t *out = calloc(64, sizeof *out);
    static struct cluster_params params; /* not among what others may write: the module's own */
    params = (struct cluster_params){in, out, 1, CLUSTER_RIGHT};
    const struct simt_launch launch = {.name = "read_early",
                                       .entry = read_early,
                                       .argument = &params,
                                       .grid = 1,
                                       .block = 64,
                                       .early = true,
                                       .shared_bytes = 64};
    const char *right = simt_launch(&launch);
    assert_no_fault(right);
    params.fault = TOO_EARLY;
    const char *fault = simt_launch(&launch);
    free(in);
    free(out);
    assert_says(fault, "before gpu_previous_grid_wait");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, wide_make, wide_discard)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(right_kernels_have_no_race),
        cmocka_unit_test(order_that_is_missing_is_a_race),
        TEST(right_products_have_no_race),
        TEST(boxes_used_too_early_are_races),
        TEST(boxes_that_threads_write_are_published),
        TEST(registers_written_after_the_fence_are_reported),
        cmocka_unit_test(bytes_of_bulk_copies_are_written_until_they_are_waited_for),
        cmocka_unit_test(plain_accesses_before_the_grid_before_is_over_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
