/* "Did you mean". */
#include "nearest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static const char *nearest_of(const char *typed) {
    static const char *const words[] = {"check", "explain", "devices", "plugins", "m"};
    struct nearest nearest = nearest_begin(typed, strlen(typed));
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        nearest_offer(&nearest, words[i]);
    return nearest.best;
}

static void nearest_with_a_typo_finds_the_word(void **state) {
    (void)state;
    assert_string_equal(nearest_of("chek"), "check");
    assert_string_equal(nearest_of("device"), "devices");
    assert_string_equal(nearest_of("plugin"), "plugins");
}

static void nearest_with_a_beginning_finds_the_word(void **state) {
    (void)state;
    assert_string_equal(nearest_of("ex"), "explain");
}

static void nearest_with_something_else_finds_nothing(void **state) {
    (void)state;
    assert_null(nearest_of("quux"));
    assert_null(nearest_of(""));
}

static void nearest_with_an_overlong_word_finds_nothing(void **state) {
    (void)state;
    char typed[5000];
    memset(typed, 'c', sizeof typed - 1);
    typed[sizeof typed - 1] = '\0';
    assert_null(nearest_of(typed));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest_with_a_typo_finds_the_word),
        cmocka_unit_test(nearest_with_a_beginning_finds_the_word),
        cmocka_unit_test(nearest_with_something_else_finds_nothing),
        cmocka_unit_test(nearest_with_an_overlong_word_finds_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
