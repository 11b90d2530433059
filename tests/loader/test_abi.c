/*
 * The ABI at run time: what the library says of itself, and the example plugin, which runs here
 * also as compiled against the headers of the first minor.
 */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void library_tells_the_abi_of_its_headers(void **state) {
    (void)state;
    assert_int_equal(kry_abi_version(), KRY_ABI_MAJOR << 16 | KRY_ABI_MINOR);
    assert_int_equal(kry_abi_version(), KRY_ABI_VERSION);
}

static void mask_of_no_feature_takes_all_away(void **state) {
    (void)state;
    const char *path = mock_path("native_cpu.so");
    kry_registry_options options = closed_options(&path, 1);
    options.cpu_mask = KRY_CPU_NONE;
    kry_registry *masked = open_options(options, NULL);
    kry_plugin_info info;
    assert_true(find_plugin(masked, "native_cpu", &info));
    assert_int_equal(info.status, KRY_E_UNSUPPORTED);
    assert_int_equal(find_device(masked, "cpu").cpu_features, 0);
    kry_registry_close(&masked);
}

static uint16_t bf16_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static float float_of(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

/* An array of floats as bf16; the floats lose what bf16 has no room for. */
static uint16_t *make_bf16(float *values, size_t count) {
    uint16_t *out = malloc(count * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < count; i++) {
        out[i] = bf16_of(values[i]);
        values[i] = float_of(out[i]);
    }
    return out;
}

static void example_plugin_decides_prepares_and_applies(void **state) {
    (void)state;
    enum { M = 3 };
    char example[FIXTURE_PATH];
    snprintf(example, sizeof example, "%s", mock_path("example"));
    const char *paths[] = {example, mock_path("dense.so")}, *prefer = "my_plugin";
    kry_registry_options options = closed_options(paths, 2);
    options.prefer = &prefer; /* its own priority is below most others' */
    options.prefer_count = 1;
    kry_registry *opened = open_options(options, NULL);
    kry_plugin_info info;
    assert_true(find_plugin(opened, "my_plugin", &info));
    assert_int_equal(info.abi_minor, mocks_minor());
    kry_linear linear = describe(2112, 2816, 32, KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
    kry_decision *decision = decide(opened, "cpu", &linear);
    assert_string_equal(chosen(decision), "my_plugin");
    kry_decision_destroy(&decision);
    linear.weight_type = KRY_WEIGHT_U8;
    decision = decide(opened, "cpu", &linear);
    const kry_refusal *refusal = candidate_of(decision, "my_plugin").refusal;
    assert_non_null(refusal);
    assert_int_equal(refusal->code, KRY_REFUSAL_WEIGHT_TYPE);
    kry_decision_destroy(&decision);

    linear.weight_type = KRY_WEIGHT_U4B8;
    applied_layer layer;
    make_layer(opened, "cpu", &linear, M, &layer);
    size_t y_count = (size_t)M * 2816;
    uint16_t *x = make_bf16(layer.x, (size_t)M * 2112), *bias = make_bf16(layer.bias, 2816);
    uint16_t *y = calloc(y_count, sizeof *y);
    assert_non_null(y);
    layer.args.x = x;
    layer.args.bias = bias;
    layer.args.y = y;
    if (prepare_layer(&layer) != KRY_OK || apply_layer(&layer) != KRY_OK)
        fail_msg("%s", kry_error_message());
    for (size_t i = 0; i < y_count; i++)
        layer.y[i] = float_of(y[i]);
    assert_true(error_of(&layer) < 4e-3);
    free(x);
    free(bias);
    free(y);
    free_layer(&layer);
    kry_registry_close(&opened);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(library_tells_the_abi_of_its_headers),
        cmocka_unit_test(mask_of_no_feature_takes_all_away),
        cmocka_unit_test(example_plugin_decides_prepares_and_applies),
    };
    return cmocka_run_group_tests_name("loader abi", tests, NULL, NULL) ? 1 : 0;
}
