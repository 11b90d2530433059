/*
 * Decisions: who wins, and for everybody else the reason, its numbers and its sentence.
 */
#include "fixture.h"

#include <string.h>

#include <kernelry/plugin.h>

static kry_linear seed_case(void) {
    return describe(2112, 2816, 32, KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
}

static void assert_refusal(const kry_decision *decision, const char *kernel, uint32_t code,
                           int64_t found, int64_t needed) {
    kry_candidate candidate = candidate_of(decision, kernel);
    assert_int_equal(candidate.verdict, KRY_VERDICT_REFUSES);
    assert_non_null(candidate.refusal);
    assert_int_equal(candidate.refusal->code, code);
    assert_int_equal(candidate.refusal->found, found);
    assert_int_equal(candidate.refusal->needed, needed);
    assert_int_equal(candidate.padding_bytes, 0);
    char words[256];
    assert_in_range(kry_refusal_format(candidate.refusal, words, sizeof words), 8, 255);
}

static void seed_case_falls_to_the_fallback_with_six_reasons(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "seed", NULL);
    kry_linear linear = seed_case();
    kry_decision *decision = decide(registry, "cuda:sm_80", &linear);
    kry_decision_info info = KRY_INIT(kry_decision_info);
    assert_int_equal(kry_decision_describe(decision, &info), KRY_OK);
    assert_int_equal(info.candidate_count, 7);
    assert_int_equal(info.chosen, 6);
    assert_int_equal(info.rewrite, KRY_REWRITE_NONE);
    assert_int_equal(info.rewrite_bytes, 0);
    assert_string_equal(chosen(decision), "TritonW4A16");
    assert_refusal(decision, "CutlassW4A8", KRY_REFUSAL_CAPABILITY, 80, 90);
    assert_refusal(decision, "Machete", KRY_REFUSAL_CAPABILITY, 80, 90);
    assert_refusal(decision, "AllSpark", KRY_REFUSAL_WEIGHT_TYPE, KRY_WEIGHT_U4B8,
                   1 << KRY_WEIGHT_U8B128);
    assert_refusal(decision, "Marlin", KRY_REFUSAL_K_ALIGNMENT, 2112, 128);
    assert_refusal(decision, "Conch", KRY_REFUSAL_GROUP_SIZE, 32, 128);
    assert_refusal(decision, "Exllama", KRY_REFUSAL_X_TYPE, KRY_TYPE_BF16, 1 << KRY_TYPE_F16);
    kry_candidate winner = candidate_of(decision, "TritonW4A16");
    assert_null(winner.refusal);
    assert_null(winner.rewritten_refusal);
    assert_int_equal(winner.fallback, 1);
    kry_decision_destroy(&decision);
    assert_null(decision);
    kry_registry_close(&registry);
}

static void decision_fills_in_what_a_description_leaves_out(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "seed", NULL);
    kry_linear linear = seed_case();
    kry_decision *decision = decide(registry, "cuda:sm_80", &linear);
    kry_decision_info info = KRY_INIT(kry_decision_info);
    assert_int_equal(kry_decision_describe(decision, &info), KRY_OK);
    assert_int_equal(info.asked->full_in_features, 2112);
    assert_int_equal(info.asked->full_out_features, 2816);
    assert_int_equal(info.asked->scale_type, KRY_TYPE_BF16);
    assert_int_equal(info.asked->y_type, KRY_TYPE_BF16);
    assert_memory_equal(info.asked, info.decided, sizeof *info.asked);
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void decision_survives_its_registry(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "dense.so", NULL);
    kry_linear linear = describe(64, 8, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F32);
    kry_decision *decision = decide(registry, "cpu", &linear);
    assert_string_equal(chosen(decision), "dense");
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void kernels_after_the_winner_are_asked_too(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "seed", NULL);
    kry_linear linear = describe(4096, 4096, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
    kry_decision *decision = decide(registry, "cuda:sm_90", &linear);
    assert_string_equal(chosen(decision), "Machete");
    assert_int_equal(candidate_of(decision, "Marlin").verdict, KRY_VERDICT_ACCEPTS);
    assert_int_equal(candidate_of(decision, "Conch").verdict, KRY_VERDICT_ACCEPTS);
    assert_int_equal(candidate_of(decision, "TritonW4A16").verdict, KRY_VERDICT_ACCEPTS);
    assert_refusal(decision, "AllSpark", KRY_REFUSAL_CAPABILITY, 90, 80);
    assert_refusal(decision, "CutlassW4A8", KRY_REFUSAL_ACTIVATION_QUANTIZATION,
                   KRY_ACTIVATION_NONE, 1 << KRY_ACTIVATION_FP8_E4M3_TOKEN);
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void activations_that_the_model_wants_choose_another_kernel(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "seed", NULL);
    kry_linear linear = describe(4096, 4096, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
    linear.activation_quantization = KRY_ACTIVATION_FP8_E4M3_TOKEN;
    kry_decision *decision = decide(registry, "cuda:sm_90", &linear);
    assert_string_equal(chosen(decision), "CutlassW4A8");
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void missing_dependency_tells_its_own_sentence(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "seed", "conch_without_library.so", NULL);
    kry_linear linear = seed_case();
    kry_decision *decision = decide(registry, "cuda:sm_80", &linear);
    assert_refusal(decision, "ConchMissing", KRY_REFUSAL_DEPENDENCY, 0, 0);
    char words[256];
    kry_refusal_format(candidate_of(decision, "ConchMissing").refusal, words, sizeof words);
    assert_non_null(strstr(words, "the conch library is not installed"));
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void every_refusal_has_a_code_in_words_and_a_sentence(void **state) {
    (void)state;
    for (uint32_t code = KRY_REFUSAL_PLATFORM; code <= KRY_REFUSAL_OTHER; code++) {
        kry_refusal refusal = KRY_INIT(kry_refusal);
        refusal.code = code;
        refusal.found = 2;
        refusal.needed = 8;
        char words[256], brief[8];
        size_t length = kry_refusal_format(&refusal, words, sizeof words);
        if (length < 8 || length >= sizeof words || strlen(words) != length)
            fail_msg("code %u: '%s'", code, words);
        assert_int_equal(kry_refusal_format(&refusal, brief, sizeof brief), length);
        assert_int_equal(strlen(brief), 7);
        for (uint32_t other = KRY_REFUSAL_NONE; other < code; other++)
            assert_string_not_equal(kry_refusal_code_string(code), kry_refusal_code_string(other));
        refusal.sentence = "in the plugin's own words";
        kry_refusal_format(&refusal, words, sizeof words);
        assert_non_null(strstr(words, "in the plugin's own words"));
    }
    kry_refusal aligned = KRY_INIT(kry_refusal);
    aligned.code = KRY_REFUSAL_K_ALIGNMENT;
    aligned.found = 2112;
    aligned.needed = 128;
    char words[256];
    kry_refusal_format(&aligned, words, sizeof words);
    assert_string_equal(words, "in_features 2112 is not a multiple of 128");
    assert_string_equal(kry_refusal_code_string(KRY_REFUSAL_K_ALIGNMENT), "k_alignment");
    assert_non_null(kry_refusal_code_string(99));
}

/* ---- one warning a shape ------------------------------------------------------------------ */

static void decide_once(const kry_registry *registry, const char *device, int64_t in_features) {
    kry_linear linear = describe(in_features, 2816, 32, KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
    kry_decision *decision = decide(registry, device, &linear);
    kry_decision_destroy(&decision);
}

static void winning_fallback_warns_once_a_shape(void **state) {
    (void)state;
    static log_lines log;
    log_init(&log);
    kry_registry *registry = open_mocks(&log, "seed", NULL);
    assert_int_equal(log.warnings, 0);
    decide_once(registry, "cuda:sm_80", 2112);
    assert_int_equal(log.warnings, 1);
    static const char *const told[] = {"2112",   "2816",  "TritonW4A16", "CutlassW4A8", "Machete",
                                       "Marlin", "Conch", "Exllama",     "AllSpark",    "128"};
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++)
        if (strstr(log.text, told[i]) == NULL)
            fail_msg("the warning does not tell %s: %s", told[i], log.text);
    decide_once(registry, "cuda:sm_80", 2112);
    assert_int_equal(log.warnings, 1);
    decide_once(registry, "cuda:sm_80", 2144);
    assert_int_equal(log.warnings, 2);
    kry_registry_close(&registry);
}

static void winner_that_is_no_fallback_does_not_warn(void **state) {
    (void)state;
    static log_lines log;
    log_init(&log);
    kry_registry *registry = open_mocks(&log, "seed", NULL);
    decide_once(registry, "cuda:sm_80", 2048);
    decide_once(registry, "rocm:gfx942", 2112);
    assert_int_equal(log.warnings, 0);
    kry_registry_close(&registry);
}

static void another_registry_warns_again(void **state) {
    (void)state;
    static log_lines log;
    log_init(&log);
    for (int i = 1; i <= 2; i++) {
        kry_registry *registry = open_mocks(&log, "seed", NULL);
        decide_once(registry, "cuda:sm_80", 2112);
        assert_int_equal(log.warnings, i);
        kry_registry_close(&registry);
    }
}

/* ---- features, padding, nobody ------------------------------------------------------------- */

static void feature_that_a_kernel_does_not_declare_is_refused_on_its_behalf(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "dense.so", "private_feature.so", NULL);
    kry_linear linear = describe(64, 8, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F32);
    linear.required_features = UINT64_C(1) << 48;
    kry_decision *decision = decide(registry, "cpu", &linear);
    assert_refusal(decision, "dense", KRY_REFUSAL_FEATURE, INT64_C(1) << 48, 0);
    assert_string_equal(chosen(decision), "private_feature");
    kry_decision_destroy(&decision);
    linear.required_features |= UINT64_C(1) << 63;
    decision = decide(registry, "cpu", &linear);
    assert_refusal(decision, "private_feature", KRY_REFUSAL_FEATURE, INT64_MIN, 0);
    assert_string_equal(chosen(decision), "none");
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void padding_is_a_yes_that_tells_its_bytes(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "padded.so", NULL);
    kry_linear linear = describe(70, 6, 35, KRY_WEIGHT_U8B128, KRY_TYPE_F32);
    kry_decision *decision = decide(registry, "cpu", &linear);
    assert_string_equal(chosen(decision), "padded");
    assert_int_equal(candidate_of(decision, "padded").padding_bytes, 58 * 6);
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void kernel_that_refuses_without_a_reason_gets_one(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "mute.so", "dense.so", NULL);
    kry_linear linear = describe(64, 8, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F32);
    kry_decision *decision = decide(registry, "cpu", &linear);
    assert_string_equal(chosen(decision), "dense");
    kry_candidate mute = candidate_of(decision, "mute");
    assert_int_equal(mute.verdict, KRY_VERDICT_REFUSES);
    assert_non_null(mute.refusal);
    assert_int_equal(mute.refusal->code, KRY_REFUSAL_OTHER);
    char words[256];
    assert_true(kry_refusal_format(mute.refusal, words, sizeof words) > 0);
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

static void nobody_accepting_is_a_decision_and_an_error_of_layers(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "dense.so", "whole_groups.so", "mute.so", NULL);
    kry_linear linear = describe(64, 8, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F16);
    kry_decision *decision = decide(registry, "cpu", &linear);
    assert_string_equal(chosen(decision), "none");
    kry_decision_destroy(&decision);
    kry_device device = find_device(registry, "cpu");
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    kry_layer *layer = NULL;
    assert_int_equal(kry_layer_create(registry, &args, &layer), KRY_E_NO_KERNEL);
    assert_null(layer);
    assert_non_null(strstr(kry_error_message(), "dense"));
    assert_non_null(strstr(kry_error_message(), "whole_groups"));
    assert_non_null(strstr(kry_error_message(), "mute"));
    kry_registry_close(&registry);
}

static void platform_that_no_plugin_serves_has_no_candidates(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "dense.so", NULL);
    kry_linear linear = seed_case();
    kry_decision *decision = decide(registry, "cuda:sm_80", &linear);
    kry_decision_info info = KRY_INIT(kry_decision_info);
    assert_int_equal(kry_decision_describe(decision, &info), KRY_OK);
    assert_int_equal(info.candidate_count, 0);
    assert_int_equal(info.chosen, -1);
    kry_decision_destroy(&decision);
    kry_registry_close(&registry);
}

/* ---- arguments ----------------------------------------------------------------------------- */

static void assert_refused_description(kry_linear linear, const char *field) {
    kry_linear out = KRY_INIT(kry_linear);
    if (kry_linear_complete(&linear, &out) != KRY_E_ARGUMENT)
        fail_msg("a wrong %s passes", field);
    if (strstr(kry_error_message(), field) == NULL)
        fail_msg("'%s' does not name %s", kry_error_message(), field);
}

static void description_that_cannot_be_is_refused_by_field(void **state) {
    (void)state;
    const kry_linear good = seed_case();
    kry_linear bad;
#define WRONG(field, value)                                                                        \
    bad = good;                                                                                    \
    bad.field = (value);                                                                           \
    assert_refused_description(bad, #field)
    WRONG(in_features, 0);
    WRONG(in_features, -5);
    WRONG(in_features, KRY_FEATURES_MAX + 1);
    WRONG(out_features, 0);
    WRONG(out_features, INT64_MAX);
    WRONG(full_in_features, 2111);
    WRONG(full_in_features, INT64_MAX);
    WRONG(full_out_features, 2815);
    WRONG(k_offset, -32);
    WRONG(k_offset, 1); /* beyond the full layer */
    WRONG(k_offset, INT64_MAX);
    WRONG(group_size, 0);
    WRONG(group_size, -2);
    WRONG(weight_type, 0);
    WRONG(weight_type, 99);
    WRONG(scale_type, 99);
    WRONG(x_type, 0);
    WRONG(y_type, 99);
    WRONG(activation_quantization, 99);
    WRONG(allowed, 0x80000000);
    WRONG(act_order, 2);
    WRONG(reserved, 1);
#undef WRONG
}

static void decide_without_arguments_is_refused(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "dense.so", NULL);
    kry_device device = find_device(registry, "cpu");
    kry_linear linear = seed_case();
    kry_decision *decision = NULL;
    assert_int_equal(kry_decide(NULL, &device, &linear, &decision), KRY_E_ARGUMENT);
    assert_int_equal(kry_decide(registry, NULL, &linear, &decision), KRY_E_ARGUMENT);
    assert_int_equal(kry_decide(registry, &device, NULL, &decision), KRY_E_ARGUMENT);
    assert_int_equal(kry_decide(registry, &device, &linear, NULL), KRY_E_ARGUMENT);
    device.struct_size = 8;
    assert_int_equal(kry_decide(registry, &device, &linear, &decision), KRY_E_ABI);
    assert_null(decision);
    kry_decision_destroy(&decision);
    kry_decision_destroy(NULL);
    kry_registry_close(&registry);
}

static void text_without_an_end_in_a_device_is_refused(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "dense.so", NULL);
    kry_device device = find_device(registry, "cpu");
    memset(device.platform, 'c', sizeof device.platform);
    kry_linear linear = seed_case();
    kry_decision *decision = NULL;
    assert_int_equal(kry_decide(registry, &device, &linear, &decision), KRY_E_ARGUMENT);
    kry_registry_close(&registry);
}

static void device_by_name_is_found_or_refused(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "seed", "toy_platform.so", NULL);
    kry_device device = find_device(registry, "cuda:sm_80");
    assert_int_equal(device.arch_number, 80);
    assert_int_equal(device.ordinal, -1);
    assert_int_equal(device.flags, KRY_DEVICE_HYPOTHETICAL);
    assert_int_equal(find_device(registry, "rocm:gfx942").arch_number, 0x942);
    device = find_device(registry, "toy:1");
    assert_int_equal(device.ordinal, 1);
    assert_string_equal(device.platform, "toy");
    device = find_device(registry, "toy:toy_1");
    assert_int_equal(device.multiprocessors, 4);
    assert_int_equal(device.flags, KRY_DEVICE_HYPOTHETICAL);
    device = find_device(registry, "cpu:none");
    assert_int_equal(device.cpu_features, 0);
    assert_int_equal(kry_registry_device_count(registry), 3);
    static const char *const absent[] = {"toy:2", "toy:7777777777777777777777", "toy:toy_9", "cuda",
                                         "abacus"};
    static const char *const malformed[] = {
        "", ":", "cuda:", ":sm_80", "cpu:avx9", "a_platform_with_a_name_too_long_for_it:1"};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++)
        if (kry_registry_find_device(registry, absent[i], &device) == KRY_OK)
            fail_msg("device %s is found", absent[i]);
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
        if (kry_registry_find_device(registry, malformed[i], &device) != KRY_E_ARGUMENT)
            fail_msg("device '%s' is not refused", malformed[i]);
    kry_registry_close(&registry);
}

static void device_that_is_absent_is_told_with_the_plugins_reason(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "seed", "toy_platform.so", NULL);
    kry_device device = KRY_INIT(kry_device);
    static const struct {
        const char *name, *sentence;
    } absent[] = {
        {"toy:2", "device 'toy:2' is not here (there are two toys); name an architecture"},
        {"toy:toy_9", "cannot describe it (not found: the only architecture of toys is toy_1)"},
        /* Nobody's to explain. */
        {"cuda", "device 'cuda' is not here; name an architecture, as in cuda:sm_80"}};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        assert_int_equal(kry_registry_find_device(registry, absent[i].name, &device),
                         KRY_E_NOT_FOUND);
        if (strstr(kry_error_message(), absent[i].sentence) == NULL)
            fail_msg("%s: %s", absent[i].name, kry_error_message());
    }
    kry_registry_close(&registry);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_that_is_absent_is_told_with_the_plugins_reason),
        cmocka_unit_test(seed_case_falls_to_the_fallback_with_six_reasons),
        cmocka_unit_test(decision_fills_in_what_a_description_leaves_out),
        cmocka_unit_test(decision_survives_its_registry),
        cmocka_unit_test(kernels_after_the_winner_are_asked_too),
        cmocka_unit_test(activations_that_the_model_wants_choose_another_kernel),
        cmocka_unit_test(missing_dependency_tells_its_own_sentence),
        cmocka_unit_test(every_refusal_has_a_code_in_words_and_a_sentence),
        cmocka_unit_test(winning_fallback_warns_once_a_shape),
        cmocka_unit_test(winner_that_is_no_fallback_does_not_warn),
        cmocka_unit_test(another_registry_warns_again),
        cmocka_unit_test(feature_that_a_kernel_does_not_declare_is_refused_on_its_behalf),
        cmocka_unit_test(padding_is_a_yes_that_tells_its_bytes),
        cmocka_unit_test(kernel_that_refuses_without_a_reason_gets_one),
        cmocka_unit_test(nobody_accepting_is_a_decision_and_an_error_of_layers),
        cmocka_unit_test(platform_that_no_plugin_serves_has_no_candidates),
        cmocka_unit_test(description_that_cannot_be_is_refused_by_field),
        cmocka_unit_test(decide_without_arguments_is_refused),
        cmocka_unit_test(text_without_an_end_in_a_device_is_refused),
        cmocka_unit_test(device_by_name_is_found_or_refused),
    };
    return cmocka_run_group_tests_name("loader decide", tests, NULL, NULL) ? 1 : 0;
}
