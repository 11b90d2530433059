/* The lines that peers speak, with a fake one that goes wrong in each way. */
#include "peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { M = 2, SECOND = 1000000000 };

struct fixture {
    struct synthetic *synthetic;
    struct peer_data *data;
    struct peer *peer;
    float x[M * 96];
};

static int make(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    kry_linear linear = KRY_INIT(kry_linear);
    linear.in_features = 96;
    linear.out_features = 64;
    linear.group_size = 32;
    linear.weight_type = KRY_WEIGHT_U4;
    linear.x_type = KRY_TYPE_F32;
    *state = fixture;
    if (fixture == NULL || synthetic_create(&linear, false, 3, &fixture->synthetic) != KRY_OK ||
        peer_data_create(&fixture->data) != KRY_OK)
        return 1;
    for (size_t i = 0; i < M * 96; i++)
        fixture->x[i] = (float)(i % 7) - 3;
    return peer_data_fill(fixture->data, fixture->synthetic, fixture->x, M) != KRY_OK;
}

static int end(void **state) {
    struct fixture *fixture = *state;
    peer_end(&fixture->peer);
    peer_data_destroy(&fixture->data);
    synthetic_destroy(&fixture->synthetic);
    free(fixture);
    unsetenv("FAKE_PEER");
    return waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD; /* nobody is left behind */
}

static kry_status start(struct fixture *fixture, const char *fault) {
    const struct peer_command command = {.python = FAKE_PEER,
                                         .folder = "/nowhere",
                                         .library = "torch",
                                         .compute = "bf16",
                                         .threads = 2,
                                         .timeout = SECOND};
    setenv("FAKE_PEER", fault, 1);
    return peer_start(&command, fixture->data, &fixture->peer);
}

static void assert_message(const char *words) {
    if (strstr(kry_error_message(), words) == NULL)
        print_error("'%s' is missing in: %s\n", words, kry_error_message());
    assert_non_null(strstr(kry_error_message(), words));
}

static void check_computes_y_in_the_shared_memory(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(start(fixture, "none"), KRY_OK);
    assert_string_equal(peer_version(fixture->peer), "1.2.3");
    assert_int_equal(peer_prepare(fixture->peer, fixture->data, fixture->synthetic, 2), KRY_OK);
    assert_int_equal(peer_check(fixture->peer, M), KRY_OK);
    const struct synthetic *w = fixture->synthetic;
    double expected = 0;
    for (size_t k = 0; k < 96; k++)
        expected += (double)fixture->x[96 + k] *
                    (w->codes[63 * 96 + k] - w->zero_points[63 * 3 + k / 32]) *
                    (double)w->plain_scales[63 * 3 + k / 32];
    double found = (double)peer_data_y(fixture->data)[64 + 63];
    assert_true(found - expected < 1e-3 && expected - found < 1e-3);
}

static void run_tells_as_many_times_as_applies(void **state) {
    struct fixture *fixture = *state;
    int64_t times[3] = {0};
    assert_int_equal(start(fixture, "none"), KRY_OK);
    assert_int_equal(peer_prepare(fixture->peer, fixture->data, fixture->synthetic, 2), KRY_OK);
    assert_int_equal(peer_run(fixture->peer, M, 1, 3, times), KRY_OK);
    assert_true(times[0] > 0 && times[1] > 0 && times[2] > 0);
    assert_int_equal(peer_release(fixture->peer), KRY_OK);
}

static void larger_layer_can_follow(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(start(fixture, "none"), KRY_OK);
    assert_int_equal(peer_prepare(fixture->peer, fixture->data, fixture->synthetic, 2), KRY_OK);
    assert_int_equal(peer_release(fixture->peer), KRY_OK);
    struct synthetic *larger = NULL;
    kry_linear linear = fixture->synthetic->linear;
    linear.out_features = linear.full_out_features = 4096;
    assert_int_equal(synthetic_create(&linear, false, 4, &larger), KRY_OK);
    assert_int_equal(peer_data_fill(fixture->data, larger, fixture->x, M), KRY_OK);
    assert_int_equal(peer_prepare(fixture->peer, fixture->data, larger, 2), KRY_OK);
    assert_int_equal(peer_check(fixture->peer, M), KRY_OK);
    synthetic_destroy(&larger);
}

static void layer_that_peers_do_not_know_is_not_asked_for(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(start(fixture, "none"), KRY_OK);
    fixture->synthetic->linear.k_offset = 8;
    assert_int_equal(peer_prepare(fixture->peer, fixture->data, fixture->synthetic, 2),
                     KRY_E_UNSUPPORTED);
    assert_message("starts inside a group");
}

static void peer_that_refuses_goes_on(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(start(fixture, "refuses"), KRY_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(peer_prepare(fixture->peer, fixture->data, fixture->synthetic, 2),
                         KRY_E_UNSUPPORTED);
        assert_message("torch bf16: N a multiple of 16");
    }
}

static void peer_that_goes_wrong_is_gone(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *fault, *words;
    } cases[] = {
        {"ends", "ended with exit status 3"},
        {"crashes", "killed by signal 6"},
        {"babbles", "is no answer"},
        {"shrugs", "is no answer"},
        {"rambles", "has no end"},
        {"hangs", "no answer in time"},
        {"boasts", "cannot be"},
        {"dreams", "cannot be"},
        {"repeats", "cannot be"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t times[3];
        assert_int_equal(start(fixture, cases[i].fault), KRY_OK);
        assert_int_equal(peer_prepare(fixture->peer, fixture->data, fixture->synthetic, 2), KRY_OK);
        assert_int_equal(peer_run(fixture->peer, M, 0, 3, times), KRY_E_IO);
        assert_message(cases[i].words);
        assert_int_equal(peer_check(fixture->peer, M), KRY_E_STATE);
        peer_end(&fixture->peer);
    }
}

static void peer_that_cannot_start_says_why(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(start(fixture, "absent"), KRY_E_UNSUPPORTED);
    assert_message("No module named 'torch'");
    assert_null(fixture->peer);
    const struct peer_command nowhere = {.python = "/nowhere/python",
                                         .folder = "/",
                                         .library = "torch",
                                         .compute = "bf16",
                                         .threads = 2,
                                         .timeout = SECOND};
    assert_int_equal(peer_start(&nowhere, fixture->data, &fixture->peer), KRY_E_IO);
    assert_message("could not be run");
}

int main(void) {
    signal(SIGPIPE, SIG_IGN); /* as the command does */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(check_computes_y_in_the_shared_memory, make, end),
        cmocka_unit_test_setup_teardown(run_tells_as_many_times_as_applies, make, end),
        cmocka_unit_test_setup_teardown(larger_layer_can_follow, make, end),
        cmocka_unit_test_setup_teardown(layer_that_peers_do_not_know_is_not_asked_for, make, end),
        cmocka_unit_test_setup_teardown(peer_that_refuses_goes_on, make, end),
        cmocka_unit_test_setup_teardown(peer_that_goes_wrong_is_gone, make, end),
        cmocka_unit_test_setup_teardown(peer_that_cannot_start_says_why, make, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
