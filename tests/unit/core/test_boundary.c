/*
 * What crosses the boundary: struct sizes, error sentences, CPU features and device names.
 */
#include "core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct newer_args { /* as a later release would have it */
    kry_layer_args known;
    uint64_t added;
};

static void copy_in_older_struct_fills_with_zeros(void **state) {
    (void)state;
    struct {
        size_t struct_size;
        uint64_t first;
    } older = {sizeof older, 7};
    struct {
        size_t struct_size;
        uint64_t first, second;
    } ours = {0, 1, 2};
    assert_int_equal(core_copy_in(&ours, sizeof ours, &older, sizeof older, "test"), KRY_OK);
    assert_int_equal(ours.struct_size, sizeof ours);
    assert_int_equal(ours.first, 7);
    assert_int_equal(ours.second, 0);
}

static void copy_in_newer_struct_with_zero_tail_is_taken(void **state) {
    (void)state;
    struct newer_args newer = {.known = KRY_INIT(kry_layer_args)};
    kry_layer_args ours;
    newer.known.struct_size = sizeof newer;
    newer.known.kernel = "k";
    assert_int_equal(COPY_IN(&ours, &newer, kry_layer_args), KRY_OK);
    assert_string_equal(ours.kernel, "k");
    assert_int_equal(ours.struct_size, sizeof ours);
}

static void copy_in_newer_struct_with_meaning_is_refused(void **state) {
    (void)state;
    struct newer_args newer = {.known = KRY_INIT(kry_layer_args), .added = 1};
    kry_layer_args ours;
    newer.known.struct_size = sizeof newer;
    assert_int_equal(COPY_IN(&ours, &newer, kry_layer_args), KRY_E_ABI);
    assert_non_null(strstr(kry_error_message(), "kry_layer_args"));
}

static void copy_in_too_small_or_null_is_refused(void **state) {
    (void)state;
    kry_layer_args small = KRY_INIT(kry_layer_args), ours;
    small.struct_size = sizeof small - 1;
    assert_int_equal(COPY_IN(&ours, &small, kry_layer_args), KRY_E_ABI);
    assert_int_equal(COPY_IN(&ours, NULL, kry_layer_args), KRY_E_ARGUMENT);
}

static void copy_out_keeps_the_callers_size_and_room(void **state) {
    (void)state;
    kry_sizes ours = {sizeof ours, 1, 2, 3, 4};
    struct {
        kry_sizes sizes;
        uint64_t canary;
    } older = {.canary = 99};
    older.sizes.struct_size = offsetof(kry_sizes, bound_bytes);
    older.sizes.bound_bytes = 77;
    assert_int_equal(COPY_OUT(&older.sizes, &ours, kry_sizes), KRY_OK);
    assert_int_equal(older.sizes.struct_size, offsetof(kry_sizes, bound_bytes));
    assert_int_equal(older.sizes.prepare_scratch_bytes, 2);
    assert_int_equal(older.sizes.bound_bytes, 77);
    struct {
        kry_sizes sizes;
        uint64_t added;
    } newer = {.added = 5};
    newer.sizes.struct_size = sizeof newer;
    assert_int_equal(COPY_OUT(&newer, &ours, kry_sizes), KRY_OK);
    assert_int_equal(newer.sizes.prepare_multiple, 4);
    assert_int_equal(newer.added, 0);
}

static void copy_out_without_a_size_is_refused(void **state) {
    (void)state;
    kry_sizes ours = {sizeof ours, 1, 2, 3, 4}, unset = {0};
    assert_int_equal(COPY_OUT(&unset, &ours, kry_sizes), KRY_E_ABI);
    assert_int_equal(COPY_OUT(NULL, &ours, kry_sizes), KRY_E_ARGUMENT);
}

static void error_set_may_quote_the_last_error(void **state) {
    (void)state;
    kry_error_set(KRY_E_IO, "first %d", 1);
    assert_int_equal(kry_error_set(KRY_E_FORMAT, "second: %s", kry_error_message()), KRY_E_FORMAT);
    assert_string_equal(kry_error_message(), "second: first 1");
}

static void error_set_too_long_is_cut(void **state) {
    (void)state;
    kry_error_set(KRY_E_IO, "%0*d", 100000, 1);
    assert_in_range(strlen(kry_error_message()), 1000, 5000);
}

static void status_string_names_every_status(void **state) {
    (void)state;
    for (kry_status status = KRY_OK; status <= KRY_E_STALE; status++)
        assert_string_not_equal(kry_status_string(status), "unknown status");
    assert_string_equal(kry_status_string(-1), "unknown status");
    assert_string_equal(kry_status_string(KRY_E_STALE + 1), "unknown status");
}

static void cpu_features_round_trip_through_names(void **state) {
    (void)state;
    char names[256];
    for (int bit = 0; bit < 64; bit++) {
        uint64_t parsed, one = UINT64_C(1) << bit;
        if (bit > 8 && (bit < 32 || bit > 37))
            continue; /* not assigned */
        kry_cpu_features_format(one, names, sizeof names);
        assert_int_equal(core_cpu_features_parse(names, &parsed), KRY_OK);
        assert_int_equal(parsed, one);
    }
    uint64_t both;
    assert_int_equal(core_cpu_features_parse("avx2,avx512", &both), KRY_OK);
    assert_int_equal(both, KRY_CPU_AVX2 | KRY_CPU_AVX512);
    size_t length = kry_cpu_features_format(both, names, 5);
    assert_int_equal(length, strlen("avx2,avx512"));
    assert_string_equal(names, "avx2");
    kry_cpu_features_format(0, names, sizeof names);
    assert_string_equal(names, "none");
}

static void cpu_features_unknown_word_is_named(void **state) {
    (void)state;
    uint64_t parsed;
    assert_int_equal(core_cpu_features_parse("avx2,mmx", &parsed), KRY_E_ARGUMENT);
    assert_non_null(strstr(kry_error_message(), "'mmx'"));
    assert_int_equal(core_cpu_features_parse("", &parsed), KRY_E_ARGUMENT);
    assert_int_equal(core_cpu_features_parse("avx2,", &parsed), KRY_E_ARGUMENT);
}

static void cpu_features_without_their_base_are_dropped(void **state) {
    (void)state;
    assert_int_equal(core_cpu_features_close(KRY_CPU_AVX512_VNNI | KRY_CPU_AVX2), KRY_CPU_AVX2);
    assert_int_equal(core_cpu_features_close(KRY_CPU_AVX512 | KRY_CPU_AVX512_BF16), 0);
    uint64_t here = core_cpu_features();
    assert_int_equal(core_cpu_features_close(here), here);
}

static int open_registry(void **state) {
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.flags = KRY_REGISTRY_NO_DEFAULT_DIR | KRY_REGISTRY_NO_ENVIRONMENT;
    return kry_registry_open(&options, (kry_registry **)state) == KRY_OK ? 0 : -1;
}

static int close_registry(void **state) {
    kry_registry_close((kry_registry **)state);
    return 0;
}

static void find_device_by_every_spelling(void **state) {
    const kry_registry *registry = *state;
    kry_device device = KRY_INIT(kry_device);
    assert_int_equal(kry_registry_find_device(registry, "cpu", &device), KRY_OK);
    assert_int_equal(device.flags, 0);
    assert_true(device.multiprocessors >= 1);
    assert_int_equal(kry_registry_find_device(registry, "cpu:0", &device), KRY_OK);
    assert_int_equal(kry_registry_find_device(registry, "cpu:none", &device), KRY_OK);
    assert_int_equal(device.flags, KRY_DEVICE_HYPOTHETICAL);
    assert_int_equal(device.cpu_features, 0);
    assert_int_equal(kry_registry_find_device(registry, "cuda:sm_120a", &device), KRY_OK);
    assert_string_equal(device.platform, "cuda");
    assert_int_equal(device.arch_number, 120);
    assert_int_equal(device.ordinal, -1);
    assert_int_equal(kry_registry_find_device(registry, "rocm:gfx942", &device), KRY_OK);
    assert_int_equal(device.arch_number, 0x942);
}

static void find_device_wrong_name_is_told(void **state) {
    const kry_registry *registry = *state;
    kry_device device = KRY_INIT(kry_device);
    char long_name[200];
    memset(long_name, 'x', sizeof long_name);
    long_name[sizeof long_name - 1] = '\0';
    assert_int_equal(kry_registry_find_device(registry, "", &device), KRY_E_ARGUMENT);
    assert_int_equal(kry_registry_find_device(registry, ":sm_80", &device), KRY_E_ARGUMENT);
    assert_int_equal(kry_registry_find_device(registry, "cuda:", &device), KRY_E_ARGUMENT);
    assert_int_equal(kry_registry_find_device(registry, long_name, &device), KRY_E_ARGUMENT);
    memcpy(long_name, "cuda:", 5);
    assert_int_equal(kry_registry_find_device(registry, long_name, &device), KRY_E_ARGUMENT);
    assert_int_equal(kry_registry_find_device(registry, "cpu:1", &device), KRY_E_NOT_FOUND);
    assert_int_equal(kry_registry_find_device(registry, "cpu:mmx", &device), KRY_E_ARGUMENT);
    assert_int_equal(kry_registry_find_device(registry, "cuda:0", &device), KRY_E_NOT_FOUND);
    assert_non_null(strstr(kry_error_message(), "no plugin serves platform 'cuda'"));
    assert_int_equal(kry_registry_find_device(NULL, "cpu", &device), KRY_E_ARGUMENT);
}

static void devices_of_an_empty_registry_are_this_cpu(void **state) {
    const kry_registry *registry = *state;
    kry_device device = KRY_INIT(kry_device);
    assert_int_equal(kry_registry_device_count(registry), 1);
    assert_int_equal(kry_registry_device(registry, 0, &device), KRY_OK);
    assert_string_equal(device.platform, "cpu");
    assert_int_equal(kry_registry_device(registry, 1, &device), KRY_E_NOT_FOUND);
}

static void host_without_embedder_or_platform_still_serves(void **state) {
    (void)state;
    struct host_services services;
    core_host_init(&services, NULL, false);
    const kry_host *host = &services.offered;
    void *memory = host->allocate(host->context, 100, KRY_ALIGNMENT);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % KRY_ALIGNMENT, 0);
    host->release(host->context, memory, 100);
    assert_null(host->allocate(host->context, SIZE_MAX / 2, KRY_ALIGNMENT));
    assert_int_equal(host->parallelism(host->context), 1);
}

static void name_is_valid_only_with_harmless_characters(void **state) {
    (void)state;
    char full[4] = {'a', 'b', 'c', 'd'}; /* no end */
    assert_true(core_name_is_valid("Triton-W4A16_v1.2", 64));
    assert_false(core_name_is_valid("", 64));
    assert_false(core_name_is_valid("a b", 64));
    assert_false(core_name_is_valid("../x", 64));
    assert_false(core_name_is_valid("\xc3\xa9", 64));
    assert_false(core_name_is_valid(full, sizeof full));
}

static void text_is_cleaned_of_controls_and_keeps_its_utf8(void **state) {
    (void)state;
    static const char *const texts[][2] = {
        {"", ""},
        {"plain ~", "plain ~"},
        {"a\nb\tc\rd", "a b c?d"},
        {"\x01\x1f\x7f", "???"},
        {"\xc2\x80\xc2\x9f\xc2\xa0", "????\xc2\xa0"}, /* C1, no-break space */
        {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\xc3", "?"}, /* ends too early */
        {"\xe2\x82", "??"},
        {"\xf0\x9f\x98", "???"},
        {"\xe2\x1b[0m", "??[0m"},                                  /* a control within */
        {"\xc0\x8a \xe0\x80\x8a \xf0\x80\x80\x8a", "?? ??? ????"}, /* too long forms */
        {"\xed\xa0\x80 \xf4\x90\x80\x80 \xff\x80", "??? ???? ??"},
        {"\xed\x9f\xbf \xf4\x8f\xbf\xbf", "\xed\x9f\xbf \xf4\x8f\xbf\xbf"}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char text[64];
        strcpy(text, texts[i][0]);
        core_clean(text);
        assert_string_equal(text, texts[i][1]);
    }
    kry_error_set(KRY_E_IO, "%s", "tensor '\x1b[2J'");
    assert_string_equal(kry_error_message(), "tensor '?[2J'");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copy_in_older_struct_fills_with_zeros),
        cmocka_unit_test(copy_in_newer_struct_with_zero_tail_is_taken),
        cmocka_unit_test(copy_in_newer_struct_with_meaning_is_refused),
        cmocka_unit_test(copy_in_too_small_or_null_is_refused),
        cmocka_unit_test(copy_out_keeps_the_callers_size_and_room),
        cmocka_unit_test(copy_out_without_a_size_is_refused),
        cmocka_unit_test(error_set_may_quote_the_last_error),
        cmocka_unit_test(error_set_too_long_is_cut),
        cmocka_unit_test(status_string_names_every_status),
        cmocka_unit_test(cpu_features_round_trip_through_names),
        cmocka_unit_test(cpu_features_unknown_word_is_named),
        cmocka_unit_test(cpu_features_without_their_base_are_dropped),
        cmocka_unit_test_setup_teardown(find_device_by_every_spelling, open_registry,
                                        close_registry),
        cmocka_unit_test_setup_teardown(find_device_wrong_name_is_told, open_registry,
                                        close_registry),
        cmocka_unit_test_setup_teardown(devices_of_an_empty_registry_are_this_cpu, open_registry,
                                        close_registry),
        cmocka_unit_test(host_without_embedder_or_platform_still_serves),
        cmocka_unit_test(text_is_cleaned_of_controls_and_keeps_its_utf8),
        cmocka_unit_test(name_is_valid_only_with_harmless_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
