/*
 * For each fault a mock that has it and no other: the suite names the duty that it breaks, and
 * finds nothing else.
 */
#include "process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static struct finished verify(const char *mock) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.so", CONFORMANCE_MOCKS, mock);
    return run_kernelry(CPU_PLUGINS,
                        ARGUMENTS("verify", path, "--quick", "--cases", "25", "--json"));
}

/* Checks of the one kernel. */
static json_t *checks_of(const struct finished *run) {
    if (json_object_get(run->json, "kernels") == NULL)
        print_error("exit code %d, no report; printed:\n%s%s", run->code, run->out, run->err);
    return json_at(run->json, "kernels.0.checks");
}

static void assert_breaks(const char *mock, const char *duty) {
    struct finished run = verify(mock);
    size_t index, named = 0, others = 0;
    json_t *check;
    json_array_foreach(checks_of(&run), index, check) {
        if (strcmp(text_at(check, "outcome"), "FAILED") != 0)
            continue;
        if (strcmp(text_at(check, "duty"), duty) == 0) {
            named++;
        } else {
            others++;
            print_error("%s breaks %s (%s: %s), expected %s alone\n", mock, text_at(check, "duty"),
                        text_at(check, "check"), text_at(check, "message"), duty);
        }
    }
    int code = run.code;
    finished_free(&run);
    assert_int_equal(others, 0);
    assert_true(named > 0);
    assert_int_equal(code, 1);
}

/* Of all platforms, CUDA's graphs alone are known. */
static const char *outcome_without_fault(json_t *check) {
    return strcmp(text_at(check, "check"), "captured") == 0 ? "skipped" : "ok";
}

static void kernel_without_a_fault_passes_every_check(void **state) {
    (void)state;
    struct finished run = verify("none");
    assert_code(&run, 0);
    size_t index;
    json_t *check;
    json_array_foreach(checks_of(&run), index, check) {
        assert_string_equal(text_at(check, "outcome"), outcome_without_fault(check));
    }
    finished_free(&run);
}

/* Each is a test: what is wrong, the mock, the duty. */
#define BREAKS(name, mock, duty)                                                                   \
    static void name(void **state) {                                                               \
        (void)state;                                                                               \
        assert_breaks(mock, duty);                                                                 \
    }

/* On a device with memory of its own. */
static void remote_kernel_without_a_fault_passes_every_check(void **state) {
    (void)state;
    struct finished run = verify("remote_none");
    assert_code(&run, 0);
    assert_string_equal(text_at(run.json, "device.platform"), "remote");
    size_t index;
    json_t *check;
    json_array_foreach(checks_of(&run), index, check) {
        if (strcmp(text_at(check, "outcome"), outcome_without_fault(check)) != 0)
            print_error("%s: %s\n", text_at(check, "check"), text_at(check, "message"));
        assert_string_equal(text_at(check, "outcome"), outcome_without_fault(check));
    }
    finished_free(&run);
}

BREAKS(remote_write_behind_prepared_weights_is_named, "remote_writes_behind_prepared", "KRY-P17")
BREAKS(remote_write_behind_prepare_scratch_is_named, "remote_writes_behind_prepare_scratch",
       "KRY-P17")
BREAKS(remote_scratch_that_is_not_enough_is_named, "remote_writes_behind_scratch", "KRY-P17")
BREAKS(remote_zeroed_part_that_is_not_enough_is_named, "remote_writes_behind_zeroed", "KRY-P17")
BREAKS(remote_write_beyond_out_features_is_named, "remote_writes_beyond_n", "KRY-P10")
BREAKS(remote_write_behind_y_is_named, "remote_writes_behind_y", "KRY-P10")
BREAKS(remote_write_to_x_is_named, "remote_spoils_x", "KRY-P10")
BREAKS(remote_write_to_prepared_weights_is_named, "remote_spoils_prepared", "KRY-P10")
BREAKS(remote_zeroed_part_that_is_left_dirty_is_named, "remote_leaves_zeroed_dirty", "KRY-P11")
BREAKS(remote_read_beyond_in_features_is_named, "remote_reads_beyond_k", "KRY-P10")
BREAKS(remote_pointer_in_prepared_weights_is_named, "remote_keeps_a_pointer_in_prepared", "KRY-P07")
BREAKS(remote_lost_last_column_is_named, "remote_loses_the_last_column", "KRY-P14")
BREAKS(remote_x_that_must_be_aligned_is_named, "remote_needs_aligned_x", "KRY-P16")

BREAKS(answer_that_changes_is_not_pure, "changes_its_mind", "KRY-P01")
BREAKS(asking_that_writes_to_its_arguments_is_not_pure, "writes_to_the_description", "KRY-P01")
BREAKS(asking_that_allocates_is_not_pure, "allocates_when_asked", "KRY-P01")
BREAKS(asking_that_needs_the_device_is_not_pure, "needs_a_known_device", "KRY-P01")
BREAKS(refusal_without_reason_is_not_complete, "gives_no_reason", "KRY-P02")
BREAKS(refusal_with_wrong_numbers_is_not_complete, "gives_wrong_numbers", "KRY-P02")
BREAKS(answer_that_is_none_is_not_complete, "answers_minus_two", "KRY-P02")
BREAKS(answer_that_other_threads_change_is_not_pure, "shares_a_buffer_when_asked", "KRY-P01")
BREAKS(sizes_that_differ_are_named, "tells_other_sizes", "KRY-P04")
BREAKS(sizes_that_cannot_be_are_named, "tells_no_multiple", "KRY-P04")
BREAKS(workspace_that_shrinks_is_named, "shrinks_its_workspace", "KRY-P05")
BREAKS(workspace_that_differs_is_named, "tells_other_workspace", "KRY-P05")
BREAKS(yes_that_fails_to_apply_is_named, "fails_for_many_rows", "KRY-P03")
BREAKS(yes_that_fails_to_prepare_is_named, "fails_to_prepare_odd_n", "KRY-P03")
BREAKS(yes_that_fails_to_open_is_named, "fails_to_open", "KRY-P03")
BREAKS(order_of_ranges_that_matters_is_named, "relies_on_the_order_of_ranges", "KRY-P06")
BREAKS(stride_of_rows_that_is_ignored_is_named, "relies_on_dense_rows", "KRY-P06")
BREAKS(byte_of_prepared_weights_that_is_left_out_is_named, "leaves_a_byte_unwritten", "KRY-P06")
BREAKS(preparing_that_needs_the_device_is_named, "needs_a_device_to_prepare", "KRY-P06")
BREAKS(pointer_in_prepared_weights_is_named, "keeps_a_pointer_in_prepared", "KRY-P07")
BREAKS(reload_that_keeps_old_weights_is_named, "keeps_old_weights", "KRY-P18")
BREAKS(write_behind_prepared_weights_is_named, "writes_behind_prepared", "KRY-P17")
BREAKS(write_behind_prepare_scratch_is_named, "writes_behind_prepare_scratch", "KRY-P17")
BREAKS(write_behind_bound_state_is_named, "writes_behind_bound", "KRY-P17")
BREAKS(scratch_that_is_not_enough_is_named, "writes_behind_scratch", "KRY-P17")
BREAKS(zeroed_part_that_is_not_enough_is_named, "writes_behind_zeroed", "KRY-P17")
BREAKS(read_behind_the_weights_is_named, "reads_behind_weights", "KRY-P17")
BREAKS(read_behind_the_scales_is_named, "reads_behind_scales", "KRY-P17")
BREAKS(read_behind_the_zero_points_is_named, "reads_behind_zero_points", "KRY-P17")
BREAKS(read_behind_the_order_is_named, "reads_behind_order", "KRY-P17")
BREAKS(apply_that_allocates_is_named, "allocates", "KRY-P08")
BREAKS(apply_that_asks_the_host_for_memory_is_named, "asks_the_host_for_memory", "KRY-P08")
BREAKS(apply_that_sleeps_is_named, "sleeps", "KRY-P09")
BREAKS(apply_that_leaves_denormals_flushed_is_named, "flushes_denormals", "KRY-P25")
BREAKS(apply_that_leaves_a_signal_blocked_is_named, "blocks_a_signal", "KRY-P25")
BREAKS(read_beyond_in_features_is_named, "reads_beyond_k", "KRY-P10")
BREAKS(write_beyond_out_features_is_named, "writes_beyond_n", "KRY-P10")
BREAKS(write_behind_y_is_named, "writes_behind_y", "KRY-P10")
BREAKS(write_to_x_is_named, "writes_to_x", "KRY-P10")
BREAKS(write_to_prepared_weights_is_named, "writes_to_prepared", "KRY-P10")
BREAKS(read_before_x_is_named, "reads_before_x", "KRY-P10")
BREAKS(read_behind_x_is_named, "reads_behind_x", "KRY-P10")
BREAKS(read_behind_bias_is_named, "reads_behind_bias", "KRY-P10")
BREAKS(zeroed_part_that_is_left_dirty_is_named, "leaves_zeroed_dirty", "KRY-P11")
BREAKS(x_that_must_be_aligned_is_named, "needs_aligned_x", "KRY-P16")
BREAKS(y_that_must_be_aligned_is_named, "needs_aligned_y", "KRY-P16")
BREAKS(stride_that_must_be_even_is_named, "needs_an_even_stride", "KRY-P16")
BREAKS(wrong_scale_of_the_last_group_is_named, "takes_a_wrong_last_scale", "KRY-P14")
BREAKS(lost_last_column_is_named, "loses_the_last_column", "KRY-P14")
BREAKS(lost_last_features_are_named, "loses_the_last_features", "KRY-P14")
BREAKS(offset_of_a_partition_that_is_ignored_is_named, "forgets_the_offset", "KRY-P14")
BREAKS(act_order_that_is_ignored_is_named, "forgets_the_order", "KRY-P14")
BREAKS(wrong_row_of_a_large_batch_is_named, "loses_a_late_row", "KRY-P14")
BREAKS(bias_that_is_ignored_is_named, "forgets_the_bias", "KRY-P15")
BREAKS(bias_that_is_added_twice_is_named, "adds_the_bias_twice", "KRY-P15")
BREAKS(nan_that_is_hidden_is_named, "hides_nan", "KRY-P24")
BREAKS(nan_that_spreads_to_other_rows_is_named, "spreads_nan", "KRY-P24")
BREAKS(bits_that_depend_on_threads_are_named, "depends_on_threads", "KRY-P19")
BREAKS(bits_that_depend_on_scratch_are_named, "depends_on_scratch", "KRY-P19")
BREAKS(row_that_depends_on_m_is_named, "depends_on_m", "KRY-P20")
BREAKS(buffer_that_calls_share_is_named, "shares_a_buffer", "KRY-P21")
BREAKS(buffer_that_prepares_share_is_named, "shares_a_buffer_in_prepare", "KRY-P21")
BREAKS(host_that_is_kept_is_named, "keeps_the_host", "KRY-P22")
BREAKS(description_that_is_kept_is_named, "keeps_the_description", "KRY-P22")
BREAKS(memory_of_the_host_that_is_kept_is_named, "keeps_memory", "KRY-P23")
BREAKS(memory_that_is_never_freed_is_named, "leaks", "KRY-P23")
BREAKS(device_state_that_is_kept_is_named, "keeps_the_device_state", "KRY-P23")

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernel_without_a_fault_passes_every_check),
        cmocka_unit_test(remote_kernel_without_a_fault_passes_every_check),
        cmocka_unit_test(remote_write_behind_prepared_weights_is_named),
        cmocka_unit_test(remote_write_behind_prepare_scratch_is_named),
        cmocka_unit_test(remote_scratch_that_is_not_enough_is_named),
        cmocka_unit_test(remote_zeroed_part_that_is_not_enough_is_named),
        cmocka_unit_test(remote_write_beyond_out_features_is_named),
        cmocka_unit_test(remote_write_behind_y_is_named),
        cmocka_unit_test(remote_write_to_x_is_named),
        cmocka_unit_test(remote_write_to_prepared_weights_is_named),
        cmocka_unit_test(remote_zeroed_part_that_is_left_dirty_is_named),
        cmocka_unit_test(remote_read_beyond_in_features_is_named),
        cmocka_unit_test(remote_pointer_in_prepared_weights_is_named),
        cmocka_unit_test(remote_lost_last_column_is_named),
        cmocka_unit_test(remote_x_that_must_be_aligned_is_named),
        cmocka_unit_test(answer_that_changes_is_not_pure),
        cmocka_unit_test(asking_that_writes_to_its_arguments_is_not_pure),
        cmocka_unit_test(asking_that_allocates_is_not_pure),
        cmocka_unit_test(asking_that_needs_the_device_is_not_pure),
        cmocka_unit_test(refusal_without_reason_is_not_complete),
        cmocka_unit_test(refusal_with_wrong_numbers_is_not_complete),
        cmocka_unit_test(answer_that_is_none_is_not_complete),
        cmocka_unit_test(answer_that_other_threads_change_is_not_pure),
        cmocka_unit_test(sizes_that_differ_are_named),
        cmocka_unit_test(sizes_that_cannot_be_are_named),
        cmocka_unit_test(workspace_that_shrinks_is_named),
        cmocka_unit_test(workspace_that_differs_is_named),
        cmocka_unit_test(yes_that_fails_to_apply_is_named),
        cmocka_unit_test(yes_that_fails_to_prepare_is_named),
        cmocka_unit_test(yes_that_fails_to_open_is_named),
        cmocka_unit_test(order_of_ranges_that_matters_is_named),
        cmocka_unit_test(stride_of_rows_that_is_ignored_is_named),
        cmocka_unit_test(byte_of_prepared_weights_that_is_left_out_is_named),
        cmocka_unit_test(preparing_that_needs_the_device_is_named),
        cmocka_unit_test(pointer_in_prepared_weights_is_named),
        cmocka_unit_test(reload_that_keeps_old_weights_is_named),
        cmocka_unit_test(write_behind_prepared_weights_is_named),
        cmocka_unit_test(write_behind_prepare_scratch_is_named),
        cmocka_unit_test(write_behind_bound_state_is_named),
        cmocka_unit_test(scratch_that_is_not_enough_is_named),
        cmocka_unit_test(zeroed_part_that_is_not_enough_is_named),
        cmocka_unit_test(read_behind_the_weights_is_named),
        cmocka_unit_test(read_behind_the_scales_is_named),
        cmocka_unit_test(read_behind_the_zero_points_is_named),
        cmocka_unit_test(read_behind_the_order_is_named),
        cmocka_unit_test(apply_that_allocates_is_named),
        cmocka_unit_test(apply_that_asks_the_host_for_memory_is_named),
        cmocka_unit_test(apply_that_sleeps_is_named),
        cmocka_unit_test(apply_that_leaves_denormals_flushed_is_named),
        cmocka_unit_test(apply_that_leaves_a_signal_blocked_is_named),
        cmocka_unit_test(read_beyond_in_features_is_named),
        cmocka_unit_test(write_beyond_out_features_is_named),
        cmocka_unit_test(write_behind_y_is_named),
        cmocka_unit_test(write_to_x_is_named),
        cmocka_unit_test(write_to_prepared_weights_is_named),
        cmocka_unit_test(read_before_x_is_named),
        cmocka_unit_test(read_behind_x_is_named),
        cmocka_unit_test(read_behind_bias_is_named),
        cmocka_unit_test(zeroed_part_that_is_left_dirty_is_named),
        cmocka_unit_test(x_that_must_be_aligned_is_named),
        cmocka_unit_test(y_that_must_be_aligned_is_named),
        cmocka_unit_test(stride_that_must_be_even_is_named),
        cmocka_unit_test(wrong_scale_of_the_last_group_is_named),
        cmocka_unit_test(lost_last_column_is_named),
        cmocka_unit_test(lost_last_features_are_named),
        cmocka_unit_test(offset_of_a_partition_that_is_ignored_is_named),
        cmocka_unit_test(act_order_that_is_ignored_is_named),
        cmocka_unit_test(wrong_row_of_a_large_batch_is_named),
        cmocka_unit_test(bias_that_is_ignored_is_named),
        cmocka_unit_test(bias_that_is_added_twice_is_named),
        cmocka_unit_test(nan_that_is_hidden_is_named),
        cmocka_unit_test(nan_that_spreads_to_other_rows_is_named),
        cmocka_unit_test(bits_that_depend_on_threads_are_named),
        cmocka_unit_test(bits_that_depend_on_scratch_are_named),
        cmocka_unit_test(row_that_depends_on_m_is_named),
        cmocka_unit_test(buffer_that_calls_share_is_named),
        cmocka_unit_test(buffer_that_prepares_share_is_named),
        cmocka_unit_test(host_that_is_kept_is_named),
        cmocka_unit_test(description_that_is_kept_is_named),
        cmocka_unit_test(memory_of_the_host_that_is_kept_is_named),
        cmocka_unit_test(memory_that_is_never_freed_is_named),
        cmocka_unit_test(device_state_that_is_kept_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
