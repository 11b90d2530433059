/*
 * Kernels that promise the same bits: those of cpu_avx2, cpu_avx512 and cpu_amx with one order of
 * sums.
 *
 * usage: test_cpu_tiled_alike AVX2_PLUGIN AVX512_PLUGIN AMX_PLUGIN [EMULATED], see
 * tiled_kernels_test.c
 */
#include "cpu_here.h"
#include "plugin_under_test.h"
#include "problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SKIPPED = 77 };

static const kry_plugin *avx2, *avx512, *amx; /* amx: NULL where it cannot run */
static uint64_t features;
static struct problem problem; /* the running test's: teardown releases it after a failure */

static int teardown_problem(void **state) {
    (void)state;
    problem_destroy(&problem);
    return 0;
}

static const kry_linear_kernel *kernel_of(const kry_plugin *plugin, const char *name) {
    for (uint64_t i = 0; i < plugin->kernel_count; i++)
        if (strcmp(plugin->kernels[i]->name, name) == 0)
            return plugin->kernels[i]->linear;
    fail_msg("no kernel %s", name);
    return NULL;
}

/* y of the other kernel on the same problem, whose prepared weights it takes as they are. */
static void assert_same_bits(const kry_linear_kernel *one, const kry_linear_kernel *other,
                             struct problem_options *options) {
    options->cpu_features = features;
    problem_create(&problem, one, options);
    problem_run(&problem, one);
    unsigned char *y = malloc(problem.y.bytes);
    assert_non_null(y);
    memcpy(y, problem.y.data, problem.y.bytes);
    kry_device device = KRY_INIT(kry_device);
    kry_workspace workspace = KRY_INIT(kry_workspace);
    assert_int_equal(other->workspace(&device, &options->linear, options->m, &workspace), KRY_OK);
    guarded_release(&problem.scratch);
    problem.scratch = guarded_allocate(workspace.scratch_bytes, true);
    guarded_fill(&problem.y, 0xff);
    assert_int_equal(problem_apply(&problem, other, NULL, 0, options->m), KRY_OK);
    if (memcmp(problem.y.data, y, problem.y.bytes) != 0) {
        problem_print(&problem);
        fail_msg("y differs");
    }
    free(y);
    problem_destroy(&problem);
}

static void all_mixes_give_the_same_bits(const kry_linear_kernel *one,
                                         const kry_linear_kernel *other) {
    static const int64_t group_sizes[] = {-1, 24, 32, 128, 700};
    for (uint32_t i = 0; i < 4 * 3 * 5 * 2; i++) {
        uint32_t rest = i;
        struct problem_options options = {.seed = i, .m = 1 + i % 18, .bias = i % 7 == 0};
        options.linear = linear_of(1 + i * 53 % 1111, 1 + i * 29 % 117);
        options.linear.weight_type = 1 + rest % 4, rest /= 4;
        options.linear.x_type = 1 + rest % 3, rest /= 3;
        options.linear.group_size = group_sizes[rest % 5], rest /= 5;
        options.linear.act_order = rest % 2;
        options.linear.k_offset = i % 3 * 11;
        options.linear.full_in_features += options.linear.k_offset;
        options.linear.scale_type = 1 + i % 2;
        options.linear.allowed = KRY_ALLOW_INT8_ACTIVATIONS;
        assert_same_bits(one, other, &options);
    }
}

static void avx2_and_avx512_in_f32_give_the_same_bits(void **state) {
    (void)state;
    if (!(features & KRY_CPU_AVX512))
        skip();
    all_mixes_give_the_same_bits(kernel_of(avx512, "avx512_f32"), kernel_of(avx2, "avx2_f32"));
}

static void avx2_and_avx512_in_int8_give_the_same_bits(void **state) {
    (void)state;
    if (!(features & KRY_CPU_AVX512_VNNI))
        skip();
    all_mixes_give_the_same_bits(kernel_of(avx512, "avx512_int8"), kernel_of(avx2, "avx2_int8"));
}

static void avx512_and_amx_in_int8_give_the_same_bits(void **state) {
    (void)state;
    if (amx == NULL)
        skip();
    all_mixes_give_the_same_bits(kernel_of(amx, "amx_int8"), kernel_of(avx512, "avx512_int8"));
}

static void int8_with_and_without_vnni_gives_the_same_bits(void **state) {
    (void)state;
    if (!(features & KRY_CPU_AVX_VNNI))
        skip();
    all_mixes_give_the_same_bits(kernel_of(avx2, "avx2_vnni"), kernel_of(avx2, "avx2_int8"));
}

int main(int count, char **arguments) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(avx2_and_avx512_in_f32_give_the_same_bits, teardown_problem),
        cmocka_unit_test_teardown(avx2_and_avx512_in_int8_give_the_same_bits, teardown_problem),
        cmocka_unit_test_teardown(avx512_and_amx_in_int8_give_the_same_bits, teardown_problem),
        cmocka_unit_test_teardown(int8_with_and_without_vnni_gives_the_same_bits, teardown_problem),
    };
    if (count < 4) {
        fprintf(stderr, "usage: %s AVX2_PLUGIN AVX512_PLUGIN AMX_PLUGIN [EMULATED]\n",
                arguments[0]);
        return 2;
    }
    features = cpu_features_here();
    if (!(features & KRY_CPU_AVX512))
        return SKIPPED;
    features |= count > 4 ? strtoull(arguments[4], NULL, 0) : 0;
    avx2 = plugin_under_test(arguments[1], "kry_plugin_cpu_avx2");
    avx512 = plugin_under_test(arguments[2], "kry_plugin_cpu_avx512");
    if (features & KRY_CPU_AMX_INT8) {
        amx = plugin_under_test(arguments[3], "kry_plugin_cpu_amx");
        if (!open_kernels(amx))
            return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
