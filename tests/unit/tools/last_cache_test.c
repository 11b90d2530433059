/* The last cache is the one of the highest level, whatever else the system says. */
#include "last_cache.h"
#include "remove_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static char folder[32];

static int begin(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/kernelry-cache-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static void at(char *out, size_t bytes, int index, const char *name) {
    snprintf(out, bytes, "%s/index%d/%s", folder, index, name);
}

static int end(void **state) {
    (void)state;
    return remove_tree(folder);
}

static void describe(int index, const char *level, const char *size) {
    char path[128];
    const char *const names[] = {"level", "size"}, *const texts[] = {level, size};
    at(path, sizeof path, index, "");
    mkdir(path, 0700);
    for (int i = 0; i < 2; i++) {
        at(path, sizeof path, index, names[i]);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(texts[i], file);
        fclose(file);
    }
}

static void last_cache_of_several_levels_is_the_highest(void **state) {
    (void)state;
    describe(0, "1\n", "32K\n");
    describe(1, "1\n", "48K\n");
    describe(2, "2\n", "1024K\n");
    describe(3, "3\n", "32768K\n");
    assert_int_equal(last_cache_bytes(folder), 32 << 20);
}

static void last_cache_without_level_three_is_the_second(void **state) {
    (void)state;
    describe(0, "2\n", "2M\n");
    describe(1, "1\n", "64K\n");
    assert_int_equal(last_cache_bytes(folder), 2 << 20);
}

static void last_cache_of_files_that_say_nothing_is_not_told(void **state) {
    (void)state;
    assert_int_equal(last_cache_bytes(folder), 0);
    describe(0, "3\n", "");
    describe(1, "", "32768K\n");
    describe(2, "three\n", "much\n");
    assert_int_equal(last_cache_bytes(folder), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(last_cache_of_several_levels_is_the_highest, begin, end),
        cmocka_unit_test_setup_teardown(last_cache_without_level_three_is_the_second, begin, end),
        cmocka_unit_test_setup_teardown(last_cache_of_files_that_say_nothing_is_not_told, begin,
                                        end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
