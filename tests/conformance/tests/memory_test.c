/*
 * Memory with watched borders: where it ends, what is seen of it.
 */
#include "memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct memory_label label = {"a buffer", "KRY-P17", NULL};

/* The signal that touching a byte ends a process with, or 0. */
static int touch(volatile unsigned char *place, bool write) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* whatever a test's harness or a sanitizer makes of it */
        unsigned char byte = *place;
        if (write)
            *place = byte;
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void buffer_at_its_end_faults_with_the_next_byte(void **state) {
    (void)state;
    struct memory memory;
    assert_true(memory_get(&memory, &label, 1001, 1, FIT_END));
    assert_int_equal(touch(memory.data + 1000, true), 0);
    assert_int_equal(touch(memory.data + 1001, false), SIGSEGV);
    memory_release(&memory);
}

static void buffer_at_its_beginning_faults_with_the_byte_before(void **state) {
    (void)state;
    struct memory memory;
    assert_true(memory_get(&memory, &label, 1001, 256, FIT_BEGIN));
    assert_int_equal(touch(memory.data, true), 0);
    assert_int_equal(touch(memory.data - 1, false), SIGSEGV);
    memory_release(&memory);
}

static void buffer_of_nothing_is_a_border_alone(void **state) {
    (void)state;
    struct memory memory;
    assert_true(memory_get(&memory, &label, 0, 256, FIT_END));
    assert_non_null(memory.data);
    assert_int_equal(touch(memory.data, false), SIGSEGV);
    memory_release(&memory);
}

static void loose_buffer_is_aligned_to_no_more_than_asked(void **state) {
    (void)state;
    for (size_t alignment = 1; alignment <= 256; alignment *= 2) {
        struct memory memory;
        assert_true(memory_get(&memory, &label, 100, alignment, FIT_LOOSE));
        assert_int_equal((uintptr_t)memory.data % alignment, 0);
        assert_int_not_equal((uintptr_t)memory.data % (2 * alignment), 0);
        assert_int_equal(touch(memory.data + 100 + 2000, true), 0);
        assert_int_equal(touch(memory.data - 2000, true), 0);
        memory_release(&memory);
    }
}

static void sealed_buffer_can_be_read_and_revoked_one_cannot(void **state) {
    (void)state;
    struct memory memory;
    assert_true(memory_get(&memory, &label, 100, 1, FIT_LOOSE));
    memory_seal(&memory, true);
    assert_int_equal(touch(memory.data, false), 0);
    assert_int_equal(touch(memory.data, true), SIGSEGV);
    memory_seal(&memory, false);
    assert_int_equal(touch(memory.data, true), 0);
    memory_revoke(&memory);
    assert_int_equal(touch(memory.data, false), SIGSEGV);
    memory_release(&memory);
}

static void write_beside_a_buffer_is_seen_where_no_page_ends(void **state) {
    (void)state;
    static const struct {
        int64_t at, told;
    } writes[] = {{300, 0}, {320, 20}, {-1, -1}, {-40, -40}};
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        struct memory memory;
        int64_t place = 0;
        assert_true(memory_get(&memory, &label, 300, 256, FIT_END));
        assert_true(memory_intact(&memory, &place));
        memory.data[writes[i].at] = 1;
        assert_false(memory_intact(&memory, &place));
        assert_int_equal(place, writes[i].told);
        memory_release(&memory);
    }
}

static void address_tells_the_buffer_and_the_distance(void **state) {
    (void)state;
    static const struct memory_label other_label = {"another", "KRY-P17", NULL};
    struct memory memory, other;
    assert_true(memory_get(&memory, &label, 500, 4, FIT_END));
    assert_true(memory_get(&other, &other_label, 500, 4, FIT_BEGIN));
    struct memory_touch touched = memory_find((uintptr_t)memory.data + 503);
    assert_ptr_equal(touched.label, &label);
    assert_false(touched.inside);
    assert_int_equal(touched.distance, 3);
    touched = memory_find((uintptr_t)other.data - 8);
    assert_ptr_equal(touched.label, &other_label);
    assert_int_equal(touched.distance, -8);
    assert_true(memory_find((uintptr_t)other.data).inside);
    memory_relabel(&other, &label);
    assert_ptr_equal(memory_find((uintptr_t)other.data).label, &label);
    uintptr_t gone = (uintptr_t)memory.data;
    memory_release(&memory);
    assert_null(memory_find(gone).label);
    memory_release(&other);
}

static void buffer_that_is_too_large_is_refused(void **state) {
    (void)state;
    struct memory memory;
    assert_false(memory_get(&memory, &label, SIZE_MAX - 100, 256, FIT_END));
    assert_false(memory_get(&memory, &label, (size_t)INT64_MAX / 2, 256, FIT_LOOSE));
    memory_release(&memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffer_at_its_end_faults_with_the_next_byte),
        cmocka_unit_test(buffer_at_its_beginning_faults_with_the_byte_before),
        cmocka_unit_test(buffer_of_nothing_is_a_border_alone),
        cmocka_unit_test(loose_buffer_is_aligned_to_no_more_than_asked),
        cmocka_unit_test(sealed_buffer_can_be_read_and_revoked_one_cannot),
        cmocka_unit_test(write_beside_a_buffer_is_seen_where_no_page_ends),
        cmocka_unit_test(address_tells_the_buffer_and_the_distance),
        cmocka_unit_test(buffer_that_is_too_large_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
