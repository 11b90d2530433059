/* Ratios of a race: by rounds, and only of rounds that both took part in. */
#include "race.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct race_pace pace = {.rounds = 5, .slice = 1000000};

static struct race_entry entry_of(double *rounds) {
    return (struct race_entry){.rounds = rounds, .median = 1};
}

static void median_of_any_count_lies_in_the_middle(void **state) {
    (void)state;
    double values[] = {9, 1, 5, 7};
    assert_true(race_median(values, 0) == 0);
    assert_true(race_median(values, 1) == 9);
    assert_true(race_median(values, 3) == 5);
    assert_true(race_median(values, 4) == 6);
}

static void ratio_of_a_clock_that_halves_stays(void **state) {
    (void)state;
    double ours[] = {10, 20, 10, 20, 20}, theirs[] = {30, 60, 30, 60, 61};
    struct race_entry us = entry_of(ours), them = entry_of(theirs);
    assert_true(race_times(&pace, &us, &them) == 3);
}

static void rounds_without_one_of_both_do_not_count(void **state) {
    (void)state;
    double ours[] = {10, 0, 10, 10, 10}, theirs[] = {20, 99, 0, 40, 0};
    struct race_entry us = entry_of(ours), them = entry_of(theirs);
    assert_true(race_times(&pace, &us, &them) == 3);
    them.median = 0; /* it came to grief */
    assert_true(race_times(&pace, &us, &them) == 0);
}

static void part_of_a_limit_is_work_by_time_by_limit(void **state) {
    (void)state;
    double times[] = {100, 200, 100, 0, 100}, rates[] = {20, 10, 20, 20, 40};
    struct race_entry us = entry_of(times), limit = entry_of(rates);
    /* 1000 bytes in 100 ns are 10 GB/s */
    assert_true(race_part(&pace, &us, 1000, &limit) == 0.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(median_of_any_count_lies_in_the_middle),
        cmocka_unit_test(ratio_of_a_clock_that_halves_stays),
        cmocka_unit_test(rounds_without_one_of_both_do_not_count),
        cmocka_unit_test(part_of_a_limit_is_work_by_time_by_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
