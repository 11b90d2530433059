/*
 * Mock kernels that say yes and then fail, each in one of its functions.
 */
#include "mock.h"

static _Thread_local const char *last_sentence;

kry_status mock_fail(kry_status status, const char *sentence) {
    last_sentence = sentence;
    return status;
}

const char *mock_error_message(void) { return last_sentence; }

kry_status mock_fail_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    (void)device;
    (void)linear;
    (void)out;
    return mock_fail(KRY_E_UNSUPPORTED, "sizes failed on purpose");
}

kry_status mock_absurd_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    (void)device;
    (void)linear;
    out->prepared_bytes = UINT64_MAX;
    out->prepare_scratch_bytes = UINT64_MAX - 8;
    out->bound_bytes = UINT64_MAX - 16;
    out->prepare_multiple = INT64_MAX;
    return KRY_OK;
}

kry_status mock_no_multiple(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    kry_status status = mock_sizes(device, linear, out);
    out->prepare_multiple = -3;
    return status;
}

kry_status mock_larger_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    kry_status status = mock_sizes(device, linear, out);
    out->prepared_bytes += 8;
    return status;
}

kry_status mock_fail_workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                               kry_workspace *out) {
    (void)device;
    (void)linear;
    (void)m;
    (void)out;
    return mock_fail(KRY_E_UNSUPPORTED, "workspace failed on purpose");
}

kry_status mock_fail_prepare(const kry_prepare_call *call) {
    /* The second range fails, so that the first is already written. */
    if (call->weights->n_begin == 0 && call->weights->n_end < call->linear->out_features)
        return mock_prepare(call);
    return mock_fail(KRY_E_DEVICE, "prepare failed on purpose");
}

kry_status mock_fail_open(const kry_device *device, const kry_host *host, void **state) {
    (void)device;
    (void)host;
    (void)state;
    return mock_fail(KRY_E_DEPENDENCY, "open failed on purpose");
}

kry_status mock_fail_bind(const kry_binding *binding) {
    (void)binding;
    return mock_fail(KRY_E_DEVICE, "bind failed on purpose");
}

kry_status mock_fail_apply(const kry_binding *binding, const kry_apply_args *args) {
    (void)binding;
    (void)args;
    return mock_fail(KRY_E_DEVICE, "apply failed on purpose");
}

kry_status mock_odd_apply(const kry_binding *binding, const kry_apply_args *args) {
    (void)binding;
    (void)args;
    return mock_fail(999, NULL);
}
