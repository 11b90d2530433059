/* Random numbers: the same everywhere, independent, and distributed as they say. */
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

static void random_next_with_a_seed_gives_the_same_numbers_on_every_machine(void **state) {
    (void)state;
    /* splitmix64 started at 0, as its authors' program prints it. */
    struct random random = {0};
    assert_true(random_next(&random) == UINT64_C(0xe220a8397b1dcdaf));
    assert_true(random_next(&random) == UINT64_C(0x6e789e6aa1b965f4));
    assert_true(random_next(&random) == UINT64_C(0x06c45d188009454f));
}

static void random_seeded_with_another_seed_or_stream_gives_other_numbers(void **state) {
    (void)state;
    uint64_t seen[64];
    for (uint64_t i = 0; i < 64; i++) {
        struct random random = random_seeded(i / 8, i % 8);
        seen[i] = random_next(&random);
        for (uint64_t j = 0; j < i; j++)
            assert_true(seen[i] != seen[j]);
    }
    assert_true(random_stream_of("model.layers.0") != random_stream_of("model.layers.1"));
    assert_true(random_stream_of("ab") != random_stream_of("ba"));
}

static void random_below_stays_below_and_reaches_all(void **state) {
    (void)state;
    struct random random = random_seeded(1, 2);
    int counts[7] = {0};
    for (int i = 0; i < 7000; i++) {
        uint64_t value = random_below(&random, 7);
        assert_in_range(value, 0, 6);
        counts[value]++;
    }
    for (int i = 0; i < 7; i++)
        assert_in_range(counts[i], 850, 1150);
}

static void random_uniform_fills_the_unit_interval(void **state) {
    (void)state;
    struct random random = random_seeded(3, 4);
    double sum = 0;
    for (int i = 0; i < 10000; i++) {
        double value = random_uniform(&random);
        assert_true(value >= 0 && value < 1);
        sum += value;
    }
    assert_true(fabs(sum / 10000 - 0.5) < 0.01);
}

static void random_normal_has_mean_0_variance_1_and_tails(void **state) {
    (void)state;
    enum { COUNT = 200000 };
    struct random random = random_seeded(5, 6);
    double sum = 0, squares = 0, fourth = 0;
    int beyond_3 = 0;
    for (int i = 0; i < COUNT; i++) {
        double value = (double)random_normal(&random);
        assert_true(fabs(value) <= 6);
        sum += value;
        squares += value * value;
        fourth += value * value * value * value;
        beyond_3 += fabs(value) > 3;
    }
    assert_true(fabs(sum / COUNT) < 0.01);
    assert_true(fabs(squares / COUNT - 1) < 0.01);
    assert_true(fabs(fourth / COUNT - 2.9) < 0.1); /* 3 of a true normal */
    assert_in_range(beyond_3, COUNT / 1000, COUNT / 300);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_next_with_a_seed_gives_the_same_numbers_on_every_machine),
        cmocka_unit_test(random_seeded_with_another_seed_or_stream_gives_other_numbers),
        cmocka_unit_test(random_below_stays_below_and_reaches_all),
        cmocka_unit_test(random_uniform_fills_the_unit_interval),
        cmocka_unit_test(random_normal_has_mean_0_variance_1_and_tails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
