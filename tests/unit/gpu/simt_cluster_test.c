/* Clusters, mbarriers, parts of a block and early grids on the SIMT layer: right kernels pass in
 * every order, and each wrong one is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "simt_faults.h"

#include "simt.h"
#include "simt_cluster_kernels.h"

enum { BLOCKS = 8, MOST_THREADS = 256, PLACES = BLOCKS * MOST_THREADS };

static _Alignas(16) uint32_t in[PLACES];
static _Alignas(16) uint32_t out[PLACES];

static int fill(void **state) {
    (void)state;
    for (uint32_t i = 0; i < PLACES; i++) {
        in[i] = i * 2654435761U;
        out[i] = 0xDEADBEEF;
    }
    return 0;
}

struct shape {
    uint32_t blocks;
    uint32_t threads;
    uint32_t cluster;
};

static const char *run(const char *name, void (*entry)(const void *), struct shape shape,
                       enum cluster_fault fault, uint64_t seed) {
    const struct cluster_params params = {in, out, shape.cluster, fault};
    const struct simt_launch launch = {
        .name = name,
        .entry = entry,
        .argument = &params,
        .grid = shape.blocks,
        .block = shape.threads,
        .cluster = shape.cluster,
        .early = entry == copy_early,
        .shared_bytes = 64 + MOST_THREADS * 4,
        .seed = seed,
    };
    memset(out, 0, sizeof out);
    return simt_launch(&launch);
}
#define RUN(entry, shape, fault, seed) run(#entry, entry, shape, fault, seed)

/* ---- clusters ------------------------------------------------------------------------------ */

/* out = times * (in of the block before) + more. */
static int is_rotated(struct shape shape, uint32_t times, uint32_t more) {
    for (uint32_t i = 0; i < shape.blocks * shape.threads; i++) {
        const uint32_t block = i / shape.threads;
        const uint32_t first = block / shape.cluster * shape.cluster;
        const uint32_t from = first + (block - first + shape.cluster - 1) % shape.cluster;
        if (out[i] != in[from * shape.threads + i % shape.threads] * times + more) {
            return 0;
        }
    }
    return 1;
}

static int is_reversed(struct shape shape) {
    for (uint32_t i = 0; i < shape.blocks * shape.threads; i++) {
        const uint32_t t = i % shape.threads;
        if (out[i] != in[i - t + shape.threads - 1 - t]) {
            return 0;
        }
    }
    return 1;
}

static const struct shape clusters[] = {{8, 64, 1}, {8, 64, 2}, {8, 96, 4}, {8, 32, 8}, {6, 64, 3}};
enum { SHAPES = sizeof clusters / sizeof clusters[0] };

static void blocks_get_what_their_peers_store(void **state) {
    (void)state;
    for (uint32_t i = 0; i < SHAPES; i++) {
        for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
            assert_no_fault(RUN(rotate_cluster, clusters[i], CLUSTER_RIGHT, seed));
            assert_true(is_rotated(clusters[i], 1, 0));
            assert_no_fault(RUN(rotate_in_rounds, clusters[i], CLUSTER_RIGHT, seed));
            assert_true(is_rotated(clusters[i], 3, 3));
        }
    }
}

static void barrier_of_a_cluster_orders_memory(void **state) {
    (void)state;
    for (uint32_t i = 0; i < SHAPES; i++) {
        for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
            assert_no_fault(RUN(rotate_through_global, clusters[i], CLUSTER_RIGHT, seed));
            assert_true(is_rotated(clusters[i], 1, 0));
            assert_no_fault(RUN(reverse_by_cluster, clusters[i], CLUSTER_RIGHT, seed));
            assert_true(is_reversed(clusters[i]));
        }
    }
}

static void missing_order_in_a_cluster_gives_wrong_numbers(void **state) {
    (void)state;
    const struct shape shape = {8, 64, 4};
    uint32_t wrong[4] = {0};
    for (uint64_t seed = 0; seed < 2 * SIMT_SEEDS; seed++) {
        wrong[0] += RUN(rotate_cluster, shape, NO_WAIT, seed) != NULL || !is_rotated(shape, 1, 0);
        wrong[1] += RUN(rotate_in_rounds, shape, NO_WAIT_FOR_ROOM, seed) != NULL ||
                    !is_rotated(shape, 3, 3);
        assert_no_fault(RUN(reverse_by_cluster, shape, WRITE_BEHIND_ARRIVAL, seed));
        wrong[2] += !is_reversed(shape);
        assert_no_fault(RUN(reverse_by_cluster, shape, READ_BEFORE_WAIT, seed));
        wrong[3] += !is_reversed(shape);
    }
    for (uint32_t i = 0; i < 4; i++) {
        assert_in_range(wrong[i], 2 * SIMT_SEEDS - 2, 2 * SIMT_SEEDS);
    }
}

static void barrier_of_a_cluster_needs_whole_waves(void **state) {
    (void)state;
    const struct shape shape = {8, 64, 4};
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        const char *fault = RUN(rotate_cluster, shape, BARRIER_FOR_HALF, seed);
        assert_non_null(fault);
        fault = RUN(rotate_cluster, shape, BARRIER_IN_EACH_BRANCH, seed);
        assert_says(fault, "another barrier of the cluster than thread ");
    }
}

static void threads_arrive_and_wait_in_turn(void **state) {
    (void)state;
    const struct shape shape = {8, 64, 4};
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_says(RUN(rotate_cluster, shape, ARRIVE_TWICE, seed),
                    "arrives at the cluster's barrier once more before it has waited");
        assert_says(RUN(rotate_cluster, shape, WAIT_ALONE, seed),
                    "waits at the cluster's barrier, where it has not arrived");
        /* Others have initialised what it stores to, or not yet. */
        assert_non_null(RUN(rotate_cluster, shape, ARRIVE_ALONE, seed));
        assert_non_null(RUN(rotate_cluster, shape, NO_FIRST_BARRIER, seed));
        assert_says(RUN(elect_one, shape, ARRIVE_ALONE, seed),
                    "ends where it has arrived at the cluster's barrier and not waited there");
    }
}

static void wrong_stores_are_reported(void **state) {
    (void)state;
    const struct shape pairs = {8, 64, 2};
    const struct shape whole = {2, 256, 2};
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        const char *fault = RUN(rotate_cluster, pairs, FEW_BYTES, seed);
        if (fault != NULL && strstr(fault, "too few bytes were expected") == NULL) {
            assert_says(fault, "more bytes came than its phase expected");
        }
        assert_non_null(fault);
        fault = RUN(rotate_cluster, pairs, MANY_BYTES, seed);
        assert_says(fault, "deadlock");
        assert_says(fault, "lacks 0 of 1 arrivals and 16 bytes in phase 0");
        assert_says(RUN(rotate_cluster, whole, STORE_BEYOND, seed), "is not shared memory");
        assert_says(RUN(rotate_cluster, pairs, STORE_MISALIGNED, seed), "not a multiple of 16");
    }
}

static void peers_that_are_not_there_are_reported(void **state) {
    (void)state;
    const struct shape pairs = {8, 64, 2};
    const struct shape single = {8, 64, 1};
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_says(RUN(rotate_cluster, pairs, RANK_BEYOND, seed), "block 2 of a cluster of 2");
        assert_says(RUN(rotate_cluster, single, RANK_BEYOND, seed), "block 1 of a cluster of 1");
        assert_says(RUN(rotate_in_rounds, pairs, RANK_BEYOND, seed), "block 2 of a cluster of 2");
    }
}

/* A block may end before its peer comes to it, and does so at most seeds. */
static void assert_leaves_early(const char *name, void (*entry)(const void *)) {
    const struct shape shape = {8, 64, 2};
    uint32_t found = 0;
    for (uint64_t seed = 0; seed < 2 * SIMT_SEEDS; seed++) {
        const char *fault = run(name, entry, shape, CLUSTER_RIGHT, seed);
        if (fault != NULL && strstr(fault, "while 16 bytes are still under way") == NULL) {
            assert_says(fault, "which has ended");
            found++;
        }
    }
    assert_in_range(found, SIMT_SEEDS, 2 * SIMT_SEEDS);
}

static void block_that_leaves_early_is_found(void **state) {
    (void)state;
    assert_leaves_early("store_to_ended_peer", store_to_ended_peer);
    assert_leaves_early("arrive_at_ended_peer", arrive_at_ended_peer);
}

static void grids_that_are_not_whole_clusters_are_refused(void **state) {
    (void)state;
    const struct shape seven = {7, 64, 2};
    const struct shape large = {9, 64, 9};
    assert_says(RUN(rotate_cluster, seven, 0, 0), "in clusters of 2 cannot be launched");
    assert_says(RUN(rotate_cluster, large, 0, 0), "in clusters of 9 cannot be launched");
}

/* ---- mbarriers ----------------------------------------------------------------------------- */

static const struct shape two_waves = {3, 64, 1};

static int is_handed_on(void) {
    for (uint32_t i = 0; i < two_waves.blocks * 64; i++) {
        uint32_t sum = 0;
        for (uint32_t round = 0; i % 64 >= 32 && round < 7; round++) {
            sum = sum * 3 + in[i / 64 * 64 + 31 - i % 32] + round;
        }
        if (out[i] != sum) {
            return 0;
        }
    }
    return 1;
}

static void mbarriers_hand_rows_on(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 4 * SIMT_SEEDS; seed++) {
        assert_no_fault(RUN(hand_on, two_waves, CLUSTER_RIGHT, seed));
        assert_true(is_handed_on());
    }
}

/* A wait less is wrong numbers, or more arrivals than a phase has. */
static void missing_waits_are_found(void **state) {
    (void)state;
    static const enum cluster_fault faults[] = {NO_WAIT, NO_WAIT_FOR_ROOM, WRONG_PARITY};
    for (uint32_t i = 0; i < 3; i++) {
        for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
            if (RUN(hand_on, two_waves, faults[i], seed) == NULL && is_handed_on()) {
                fail_msg("fault %u is not found at seed %u", i, (unsigned)seed);
            }
        }
    }
}

static void wrong_uses_of_mbarriers_are_reported(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        const char *fault = RUN(hand_on, two_waves, ONE_ARRIVAL_LESS, seed);
        assert_says(fault, "deadlock");
        assert_says(fault, "lacks 1 of 32 arrivals and 0 bytes in phase 0");
        assert_says(fault, "waiting for an mbarrier at gpu_mbarrier_wait");
        fault = RUN(hand_on, two_waves, NO_PUBLISH, seed);
        assert_says(fault, "which thread 0 initialised and did not publish");
        fault = RUN(hand_on, two_waves, NO_BARRIER, seed);
        if (strstr(fault, "nobody initialised it") == NULL) {
            assert_says(fault, "which thread 0 published, with no barrier since");
        }
        assert_says(RUN(hand_on, two_waves, NO_INIT, seed), "is no mbarrier: nobody initialised");
        assert_says(RUN(hand_on, two_waves, INIT_TWICE, seed), "byte 8 of shared memory, which is");
        assert_says(RUN(hand_on, two_waves, NO_COUNT, seed), "cannot count 0 arrivals");
        assert_says(RUN(hand_on, two_waves, MISALIGNED, seed), "is not at a multiple of 8");
        assert_says(RUN(hand_on, two_waves, WRITTEN_OVER, seed), "byte 8 of shared memory was");
        const struct shape pairs = {8, 64, 2};
        fault = RUN(rotate_in_rounds, pairs, NO_BARRIER, seed);
        if (strstr(fault, "nobody initialised it") == NULL &&
            strstr(fault, "did not publish") == NULL) {
            assert_says(fault, "which thread 0 published, with no barrier since");
        }
    }
}

/* One arrival more than the phase has begins the next one too early. */
static void arrival_more_is_found(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        if (RUN(hand_on, two_waves, ONE_ARRIVAL_MORE, seed) == NULL && is_handed_on()) {
            fail_msg("one arrival more is not found at seed %u", (unsigned)seed);
        }
    }
}

static void wait_for_peers_says_so(void **state) {
    (void)state;
    const struct shape pairs = {8, 64, 2};
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_says(RUN(rotate_cluster, pairs, WAIT_FOR_OWN, seed),
                    "as if its own block alone arrived there");
    }
}

static void one_lane_of_a_wave_is_elected(void **state) {
    (void)state;
    const struct shape shape = {2, 96, 1};
    uint32_t first = 0;
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_no_fault(RUN(elect_one, shape, CLUSTER_RIGHT, seed));
        for (uint32_t wave = 0; wave < 6; wave++) {
            uint32_t sum = 0;
            for (uint32_t lane = 0; lane < 32; lane++) {
                sum += out[wave * 32 + lane];
            }
            assert_int_equal(sum, wave % 3 + 1);
            first += out[wave * 32] != 0;
        }
    }
    assert_in_range(first, 0, SIMT_SEEDS);
}

/* ---- parts of a block ---------------------------------------------------------------------- */

static int is_part_reversed(uint32_t threads) {
    for (uint32_t i = 0; i < threads / 2; i++) {
        if (out[i] != in[threads / 2 - 1 - i]) {
            return 0;
        }
    }
    return 1;
}

static void part_of_a_block_meets_without_the_rest(void **state) {
    (void)state;
    const struct shape shape = {1, 256, 1};
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_no_fault(RUN(reverse_part, shape, CLUSTER_RIGHT, seed));
        assert_true(is_part_reversed(256));
        assert_no_fault(RUN(reverse_part, shape, NO_BARRIER, seed));
        assert_false(is_part_reversed(256));
    }
}

static void parts_that_are_not_all_there_are_reported(void **state) {
    (void)state;
    const struct shape shape = {1, 256, 1};
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        const char *fault = RUN(reverse_part, shape, PART_MISSES_WAVE, seed);
        assert_says(fault, "deadlock");
        assert_says(fault, "waiting for a part of the block at gpu_part_barrier");
        fault = RUN(reverse_part, shape, PART_OF_OTHERS, seed);
        assert_non_null(fault);
        assert_non_null(RUN(reverse_part, shape, PART_OF_LANES, seed));
    }
}

/* ---- early grids --------------------------------------------------------------------------- */

static void early_grid_waits_for_the_one_before(void **state) {
    (void)state;
    const struct shape shape = {3, 64, 1};
    for (uint64_t seed = 0; seed < SIMT_SEEDS; seed++) {
        assert_no_fault(RUN(copy_early, shape, CLUSTER_RIGHT, seed));
        assert_memory_equal(out, in, 3 * 64 * 4);
        assert_says(RUN(copy_early, shape, TOO_EARLY, seed), "before gpu_previous_grid_wait");
        assert_says(RUN(copy_early, shape, TOLD_BY_NOBODY, seed), "before gpu_previous_grid_wait");
    }
}

#define TEST(name) cmocka_unit_test_setup(name, fill)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(blocks_get_what_their_peers_store),
        TEST(barrier_of_a_cluster_orders_memory),
        TEST(missing_order_in_a_cluster_gives_wrong_numbers),
        TEST(barrier_of_a_cluster_needs_whole_waves),
        TEST(threads_arrive_and_wait_in_turn),
        TEST(wrong_stores_are_reported),
        TEST(peers_that_are_not_there_are_reported),
        TEST(block_that_leaves_early_is_found),
        TEST(grids_that_are_not_whole_clusters_are_refused),
        TEST(mbarriers_hand_rows_on),
        TEST(missing_waits_are_found),
        TEST(wrong_uses_of_mbarriers_are_reported),
        TEST(arrival_more_is_found),
        TEST(wait_for_peers_says_so),
        TEST(one_lane_of_a_wave_is_elected),
        TEST(part_of_a_block_meets_without_the_rest),
        TEST(parts_that_are_not_all_there_are_reported),
        TEST(early_grid_waits_for_the_one_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
