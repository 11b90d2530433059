/*
 * Races are found from the rules: the kernels of the other tests, instrumented. Each wrong one is
 * reported at every seed, though by chance it may compute the right numbers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simt.h"
#include "simt_meeting_kernels.h"
#include "simt_memory_kernels.h"

enum { WORDS = 8192 };

static uint32_t *in; /* 16-byte aligned */
static uint32_t out[WORDS];
static uint32_t counters[16];

static int make(void **state) {
    (void)state;
    if (posix_memalign((void **)&in, 16, WORDS * 4) != 0) {
        return -1;
    }
    memset(in, 1, WORDS * 4);
    return 0;
}

static int discard(void **state) {
    (void)state;
    free(in);
    return 0;
}

static const char *run(const char *name, void (*entry)(const void *), uint32_t grid, uint32_t block,
                       uint64_t seed) {
    const struct memory_params memory = {in, out, counters};
    const struct simt_launch launch = {
        .name = name,
        .entry = entry,
        .argument = &memory, /* struct meeting_params is its beginning */
        .grid = grid,
        .block = block,
        .shared_bytes = 4096,
        .seed = seed,
    };
    return simt_launch(&launch);
}

static void has_no_race(const char *name, void (*entry)(const void *), uint32_t grid,
                        uint32_t block) {
    for (uint64_t seed = 0; seed < 2 * SIMT_SEEDS; seed++) {
        const char *fault = run(name, entry, grid, block, seed);
        if (fault != NULL) {
            fail_msg("%s", fault);
        }
    }
}
#define HAS_NO_RACE(entry, grid, block) has_no_race(#entry, entry, grid, block)

static void races(const char *name, void (*entry)(const void *), uint32_t grid, uint32_t block,
                  const char *words) {
    for (uint64_t seed = 0; seed < 2 * SIMT_SEEDS; seed++) {
        const char *fault = run(name, entry, grid, block, seed);
        if (fault == NULL) {
            fail_msg("nothing was found in %s at seed %llu", name, (unsigned long long)seed);
        } else if (strstr(fault, "a race: ") == NULL || strstr(fault, words) == NULL) {
            fail_msg("expected a race and '%s' in: %s", words, fault);
        }
    }
}
#define RACES(entry, grid, block, words) races(#entry, entry, grid, block, words)

static void right_kernels_have_no_race(void **state) {
    (void)state;
    HAS_NO_RACE(reverse_block, 3, 256);
    HAS_NO_RACE(rotate_in_rounds, 3, 256);
    HAS_NO_RACE(reverse_wave, 3, 256);
    HAS_NO_RACE(shuffle_sum, 3, 256);
    HAS_NO_RACE(pipeline, 1, 64);
    HAS_NO_RACE(copy_some, 1, 64);
    HAS_NO_RACE(sum_of_blocks, 7, 64);
    HAS_NO_RACE(load_matrices, 1, 32);
}

static void missing_barriers_are_races(void **state) {
    (void)state;
    RACES(reverse_block_without_barrier, 3, 256, "of shared memory, which thread ");
    RACES(rotate_in_rounds_without_second_barrier, 3, 256, "of shared memory, which thread ");
    RACES(reverse_wave_without_barrier, 3, 256, "of shared memory, which thread ");
}

static void copies_used_too_early_are_races(void **state) {
    (void)state;
    RACES(pipeline_without_wait, 1, 64, "copies to");
    RACES(pipeline_that_waits_for_too_few, 1, 64, "copies to");
    RACES(pipeline_without_barrier, 1, 64, "of shared memory, which thread ");
    RACES(pipeline_that_overwrites_too_early, 1, 64, "of shared memory, which thread ");
}

static void sums_of_blocks_without_fence_or_barrier_are_races(void **state) {
    (void)state;
    RACES(sum_of_blocks_without_first_fence, 7, 64, "global memory");
    RACES(sum_of_blocks_without_last_fence, 7, 64, "global memory");
    RACES(sum_of_blocks_without_barrier, 7, 64, "race");
    RACES(all_blocks_write_one_word, 7, 64, "global memory");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(right_kernels_have_no_race),
        cmocka_unit_test(missing_barriers_are_races),
        cmocka_unit_test(copies_used_too_early_are_races),
        cmocka_unit_test(sums_of_blocks_without_fence_or_barrier_are_races),
    };
    return cmocka_run_group_tests(tests, make, discard) != 0;
}
