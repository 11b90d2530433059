/* Plans of random calls: possible, within what workspace tells, and quickly made. */
#include "kernel.h"
#include "weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static const int64_t many_m[] = {1,  2,  3,   7,   8,   9,   15,  16,  17,  31,   32,   33,    63,
                                 64, 65, 127, 128, 129, 256, 511, 512, 513, 1000, 4096, 100000};
enum { MANY = sizeof many_m / sizeof many_m[0], DESCRIPTIONS = 60 };

static kry_device device_of(const char *platform, const char *arch, uint32_t number) {
    kry_device device = {.struct_size = sizeof device, .ordinal = -1, .arch_number = number};
    snprintf(device.platform, sizeof device.platform, "%s", platform);
    snprintf(device.arch, sizeof device.arch, "%s", arch);
    const kry_platform *operations =
        strcmp(platform, "cuda") == 0 ? &gpu_platform_cuda : &gpu_platform_rocm;
    assert_int_equal(operations->describe_device(&device), KRY_OK);
    return device;
}

/* One device of a kind each, and one of which nothing is known. */
static size_t devices_get(kry_device out[6]) {
    out[0] = device_of("cuda", "sm_75", 75);
    out[1] = device_of("cuda", "sm_80", 80);
    out[2] = device_of("cuda", "sm_90", 90);
    out[3] = device_of("cuda", "sm_120", 120);
    out[4] = device_of("rocm", "gfx942", 0x942);
    out[5] = (kry_device){
        .struct_size = sizeof out[5], .platform = "cuda", .ordinal = -1, .arch_number = 80};
    return 6;
}

static kry_linear draw(uint64_t *seed) {
    static const int64_t groups[] = {-1, 16, 24, 32, 100, 128, 1024};
    kry_linear l = weights_linear(
        1 + (int64_t)(weights_random(seed) % 20000), 1 + (int64_t)(weights_random(seed) % 30000),
        groups[weights_random(seed) % 7], KRY_WEIGHT_U4B8 + (uint32_t)(weights_random(seed) % 4));
    uint64_t choice = weights_random(seed);
    l.x_type = l.scale_type = choice & 1 ? KRY_TYPE_F16 : KRY_TYPE_BF16;
    l.y_type = 1 + (uint32_t)(choice % 3);
    l.act_order = (choice & 6) == 6;
    if (choice & 8) {
        l.k_offset = 40;
        l.full_in_features += 100;
    }
    return l;
}

static bool is_an_entry(const struct gpu_facts *facts, const char *name) {
    size_t count;
    const char *const *names = gpu_entry_names(facts->family, &count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void check_plan(const struct gpu_facts *facts, const struct gpu_plan *plan, int64_t m) {
    if (!is_an_entry(facts, plan->main.entry))
        fail_msg("'%s' is no entry", plan->main.entry);
    if (plan->arranged) {
        assert_true(is_an_entry(facts, plan->arrange.entry));
        assert_true(plan->arrange.grid > 0 && plan->arrange.block > 0);
    }
    assert_true(plan->main.grid > 0 && plan->main.grid <= INT32_MAX);
    assert_true(plan->main.block > 0 && plan->main.block <= 1024);
    assert_true(plan->main.block % 32 == 0);
    assert_true(facts->shared_bytes == 0 ? plan->main.shared_bytes <= 48 * 1024
                                         : plan->main.shared_bytes <= facts->shared_bytes);
    assert_true(plan->rows >= 1 && plan->rows <= (m < INT32_MAX ? m : INT32_MAX));
    assert_true(plan->why[0] != '\0' && memchr(plan->why, '\0', sizeof plan->why) != NULL);
}

static void plan_of_any_call_fits_the_device_and_the_workspace(void **state) {
    kry_device devices[6];
    uint64_t seed = 11;
    (void)state;
    size_t count = devices_get(devices);
    for (int i = 0; i < DESCRIPTIONS; i++) {
        kry_linear linear = draw(&seed);
        struct gpu_layout layout = gpu_layout_of(&linear);
        struct gpu_facts facts = gpu_facts_of(&devices[(size_t)i % count]);
        kry_workspace most = {0};
        for (size_t j = 0; j < MANY; j++) {
            static const uint32_t units[] = {16, 4, 2};
            kry_workspace workspace = {.struct_size = sizeof workspace};
            gpu_plan_workspace(&facts, &linear, &layout, many_m[j], &workspace);
            assert_true(workspace.scratch_bytes >= most.scratch_bytes);
            assert_true(workspace.zeroed_bytes >= most.zeroed_bytes);
            assert_true(workspace.scratch_bytes + workspace.zeroed_bytes <= UINT64_C(64) << 20);
            most = workspace;
            struct gpu_plan plan;
            struct gpu_call call = {.m = many_m[j], .x_unit = units[i % 3]};
            gpu_plan_of(&facts, &linear, &layout, &call, &plan);
            check_plan(&facts, &plan, many_m[j]);
            assert_true(plan.scratch_bytes <= most.scratch_bytes);
            assert_true(plan.zeroed_bytes <= most.zeroed_bytes);
        }
    }
}

static void plan_of_extreme_sizes_is_possible(void **state) {
    kry_device devices[6];
    (void)state;
    size_t count = devices_get(devices);
    const kry_linear extremes[] = {weights_linear(1, 1, -1, KRY_WEIGHT_U4B8),
                                   weights_linear(1 << 19, 1 << 25, 32, KRY_WEIGHT_U8),
                                   weights_linear(1 << 19, 1, 24, KRY_WEIGHT_U4),
                                   weights_linear(1, 1 << 25, -1, KRY_WEIGHT_U4B8)};
    for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; i++)
        for (size_t d = 0; d < count; d++)
            for (int64_t m = 1; m <= INT64_C(1) << 30; m <<= 10) {
                kry_refusal refusal;
                struct gpu_layout layout = gpu_layout_of(&extremes[i]);
                struct gpu_facts facts = gpu_facts_of(&devices[d]);
                int64_t most = gpu_run_rows(&layout);
                struct gpu_call call = {.m = m < most ? m : most, .x_unit = 2};
                struct gpu_plan plan;
                kry_workspace workspace = {.struct_size = sizeof workspace};
                assert_true(gpu_linear_kernel.can_implement(&devices[d], &extremes[i], &refusal) >=
                            0);
                gpu_plan_of(&facts, &extremes[i], &layout, &call, &plan);
                gpu_plan_workspace(&facts, &extremes[i], &layout, m, &workspace);
                check_plan(&facts, &plan, m);
                assert_true(plan.scratch_bytes <= workspace.scratch_bytes);
                assert_true(workspace.scratch_bytes + workspace.zeroed_bytes <= UINT64_C(64) << 20);
            }
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Both are on the way of every apply. The bound is loose: this may be a build without optimisation
 * under a tool that watches memory. */
static void plan_and_workspace_are_made_quickly(void **state) {
    kry_device device = device_of("cuda", "sm_90", 90);
    kry_linear linear = weights_linear(4096, 4096, 128, KRY_WEIGHT_U4B8);
    struct gpu_layout layout = gpu_layout_of(&linear);
    struct gpu_facts facts = gpu_facts_of(&device);
    struct gpu_call call = {.m = 600, .x_unit = 16};
    struct gpu_plan plan;
    kry_workspace workspace = {.struct_size = sizeof workspace};
    (void)state;
    double begin = seconds();
    for (int i = 0; i < 100; i++)
        gpu_plan_of(&facts, &linear, &layout, &call, &plan);
    double between = seconds();
    for (int i = 0; i < 100; i++)
        gpu_plan_workspace(&facts, &linear, &layout, 600, &workspace);
    double end = seconds();
    printf("a plan %.2f us, a workspace %.2f us\n", (between - begin) * 1e4, (end - between) * 1e4);
    assert_true(between - begin < 0.1);
    assert_true(end - between < 0.1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_of_any_call_fits_the_device_and_the_workspace),
        cmocka_unit_test(plan_of_extreme_sizes_is_possible),
        cmocka_unit_test(plan_and_workspace_are_made_quickly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
