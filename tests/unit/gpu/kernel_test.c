/* What the kernel asks of a CUDA driver: a fake one, which writes down launches. */
#include "in_child.h"
#include "kernel.h"
#include "message.h"
#include "weights.h"

#include "fake_cuda.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const kry_device device = {.struct_size = sizeof(kry_device),
                                  .platform = "cuda",
                                  .arch = "sm_90",
                                  .arch_number = 90,
                                  .multiprocessors = 132,
                                  .warp_size = 32,
                                  .shared_memory_bytes = 232448};
static char stream; /* its address is one */
static const kry_host host = {.struct_size = sizeof(kry_host)};
static const kry_linear_kernel *const kernel = &gpu_linear_kernel;

/* A layer on the device, whose weights were never prepared: nothing is run. */
struct applied {
    kry_linear linear;
    kry_binding binding;
    kry_apply_args args;
    kry_workspace workspace;
};

static void *on_device(uint64_t bytes) {
    void *memory;
    EXPECT(gpu_platform_cuda.allocate(&device, bytes, &memory) == KRY_OK);
    return memory;
}

static void make(struct applied *a, const kry_linear *linear, int64_t m) {
    kry_sizes sizes = KRY_INIT(kry_sizes);
    *a = (struct applied){.linear = *linear, .workspace = {.struct_size = sizeof a->workspace}};
    a->binding = (kry_binding){
        .struct_size = sizeof a->binding, .device = &device, .linear = &a->linear, .host = &host};
    EXPECT(kernel->sizes(&device, linear, &sizes) == KRY_OK);
    EXPECT(kernel->workspace(&device, linear, m, &a->workspace) == KRY_OK);
    EXPECT(kernel->open_device(&device, &host, &a->binding.device_state) == KRY_OK);
    a->binding.prepared = on_device(sizes.prepared_bytes);
    static _Alignas(KRY_ALIGNMENT) unsigned char bound[4096];
    EXPECT(sizes.bound_bytes <= sizeof bound);
    a->binding.bound = bound;
    EXPECT(kernel->bind(&a->binding) == KRY_OK);
    a->args = (kry_apply_args){.struct_size = sizeof a->args,
                               .m = m,
                               .x_stride = linear->in_features,
                               .y_stride = linear->out_features + 5,
                               .scratch_bytes = a->workspace.scratch_bytes,
                               .zeroed_bytes = a->workspace.zeroed_bytes,
                               .stream = &stream,
                               .host = &host};
    a->args.x = on_device((uint64_t)(m * linear->in_features * 2));
    a->args.y = on_device((uint64_t)(m * a->args.y_stride * 2));
    a->args.scratch = on_device(a->workspace.scratch_bytes);
    a->args.zeroed = on_device(a->workspace.zeroed_bytes);
}

static const struct gpu_apply_params *main_parameters(size_t i) {
    const void *parameters = fake_cuda.launches[i].parameters;
    if (strncmp(fake_cuda.launches[i].entry, "gpu_wide_", 9) == 0 ||
        strncmp(fake_cuda.launches[i].entry, "gpu_late_", 9) == 0)
        return &((const struct gpu_wide_params *)parameters)->apply;
    return parameters;
}

static bool is_product(const struct fake_launch *launch) {
    return strncmp(launch->entry, "gpu_stream_", 11) == 0 ||
           strncmp(launch->entry, "gpu_tile_", 9) == 0 ||
           strncmp(launch->entry, "gpu_wide_", 9) == 0 ||
           strncmp(launch->entry, "gpu_late_", 9) == 0;
}

/* ---- applying ----------------------------------------------------------------------------------
 */

static void one_launch(void) {
    kry_linear linear = weights_linear(2112, 2816, 32, KRY_WEIGHT_U4);
    struct gpu_layout layout = gpu_layout_of(&linear);
    struct applied a;
    make(&a, &linear, 3);
    a.args.bias = on_device(2816 * 2);
    EXPECT(kernel->apply(&a.binding, &a.args) == KRY_OK);
    EXPECT(fake_cuda.launch_count == 1 && is_product(&fake_cuda.launches[0]));
    EXPECT(fake_cuda.launches[0].stream == &stream);
    EXPECT_WORDS(fake_cuda.launches[0].entry, "_f16_");
    const struct gpu_apply_params *p = main_parameters(0);
    const unsigned char *prepared = a.binding.prepared;
    EXPECT(p->x == a.args.x && p->y == a.args.y && p->bias == a.args.bias);
    EXPECT(p->codes == prepared + layout.codes_at && p->scales == prepared + layout.scales_at);
    EXPECT(p->zeros == prepared + layout.zeros_at && p->block_group == NULL);
    EXPECT(p->m == 3 && p->n == 2816 && p->k == 2112 && p->front == 0 && p->groups == 66);
    EXPECT(p->x_stride == 2112 && p->y_stride == 2821 && p->y_type == KRY_TYPE_F16);
    EXPECT(fake_cuda.pushes == fake_cuda.pops);
}

static void x_of_any_alignment(void) {
    kry_linear linear = weights_linear(2112, 2816, 32, KRY_WEIGHT_U8B128);
    struct applied a;
    linear.x_type = linear.scale_type = KRY_TYPE_BF16;
    linear.y_type = KRY_TYPE_F32;
    make(&a, &linear, 1);
    a.args.x = (const char *)a.args.x + 2;
    EXPECT(kernel->apply(&a.binding, &a.args) == KRY_OK);
    EXPECT(fake_cuda.launch_count == 2); /* rows are put where they are aligned */
    EXPECT(strcmp(fake_cuda.launches[0].entry, "gpu_arrange") == 0);
    EXPECT_WORDS(fake_cuda.launches[1].entry, "_bf16_");
    EXPECT((uintptr_t)main_parameters(1)->x % 16 == 0);
    EXPECT(main_parameters(1)->y_type == KRY_TYPE_F32 && main_parameters(1)->zeros == NULL);
}

/* Every second row at a multiple of 16 bytes, the others 8 behind: no launch puts them in order. */
static void x_of_eight_bytes(void) {
    kry_linear linear = weights_linear(3420, 1280, 128, KRY_WEIGHT_U4B8);
    struct applied a;
    make(&a, &linear, 16);
    EXPECT(kernel->apply(&a.binding, &a.args) == KRY_OK);
    EXPECT(fake_cuda.launch_count == 1 && is_product(&fake_cuda.launches[0]));
    const struct gpu_apply_params *p = main_parameters(0);
    EXPECT(p->x == a.args.x && p->x_stride == 3420 && p->k == 3420 && p->late == 2);
}

/* Many rows in act-order: several runs, each of which puts its rows in order first. */
static void runs_of_act_order(void) {
    const int64_t m = 3000;
    kry_linear linear = weights_linear(8192, 64, 128, KRY_WEIGHT_U4B8);
    linear.act_order = 1;
    struct applied a;
    make(&a, &linear, m);
    EXPECT(kernel->apply(&a.binding, &a.args) == KRY_OK);
    EXPECT(fake_cuda.launch_count >= 4 && fake_cuda.launch_count % 2 == 0);
    int64_t row = 0;
    for (size_t i = 0; i < fake_cuda.launch_count; i += 2) {
        const struct gpu_arrange_params *arrange =
            (const struct gpu_arrange_params *)(const void *)fake_cuda.launches[i].parameters;
        const struct gpu_apply_params *p = main_parameters(i + 1);
        EXPECT(strcmp(fake_cuda.launches[i].entry, "gpu_arrange") == 0);
        EXPECT(is_product(&fake_cuda.launches[i + 1]));
        EXPECT(arrange->x == (const uint16_t *)a.args.x + row * 8192 && arrange->m == p->m);
        EXPECT(p->x == arrange->to && p->x_stride == arrange->places);
        EXPECT(p->y == (uint16_t *)a.args.y + row * a.args.y_stride);
        EXPECT((const char *)arrange->to >= (const char *)a.args.scratch);
        EXPECT((const char *)(arrange->to + arrange->m * arrange->places) <=
               (const char *)a.args.scratch + a.workspace.scratch_bytes);
        row += p->m;
    }
    EXPECT(row == m);
}

static void nothing_is_launched(void) {
    kry_linear linear = weights_linear(4096, 256, 128, KRY_WEIGHT_U4B8);
    linear.act_order = 1;
    struct applied a;
    make(&a, &linear, 40);
    EXPECT(a.args.scratch_bytes > 0);
    a.args.scratch_bytes--;
    kry_apply_args args = a.args;
    args.scratch_bytes = 0;
    EXPECT(kernel->apply(&a.binding, &args) == KRY_E_WORKSPACE);
    EXPECT_WORDS(gpu_error_message(), "workspace: 0 scratch");
    args = a.args;
    args.scratch = NULL;
    EXPECT(kernel->apply(&a.binding, &args) == KRY_E_WORKSPACE);
    kry_binding closed = a.binding;
    closed.device_state = NULL;
    EXPECT(kernel->apply(&closed, &a.args) == KRY_E_STATE);
    EXPECT_WORDS(gpu_error_message(), "cuda:0 is not opened");
    EXPECT(fake_cuda.launch_count == 0);
}

static void launch_that_fails(void) {
    kry_linear linear = weights_linear(128, 64, 32, KRY_WEIGHT_U4B8);
    struct applied a;
    make(&a, &linear, 1);
    fake_cuda.failing = "cuLaunchKernelEx";
    fake_cuda.error = 700;
    EXPECT(kernel->apply(&a.binding, &a.args) == KRY_E_DEVICE);
    EXPECT_WORDS(gpu_error_message(), "cuLaunchKernelEx: ");
    EXPECT(fake_cuda.pushes == fake_cuda.pops);
}

/* ---- opening
 * ------------------------------------------------------------------------------------- */

static void opened_twice(void) {
    void *first, *second;
    EXPECT(kernel->open_device(&device, &host, &first) == KRY_OK);
    EXPECT(kernel->open_device(&device, &host, &second) == KRY_OK);
    EXPECT(first == second && fake_cuda.loads == 1);
    EXPECT(fake_cuda.shared_allowed == device.shared_memory_bytes);
    fake_cuda.devices = 2;
    kry_device other = device;
    other.ordinal = 1;
    EXPECT(kernel->open_device(&other, &host, &second) == KRY_OK);
    EXPECT(first != second && fake_cuda.loads == 2 && fake_cuda.retained[1] == 1);
}

static void code_that_lacks_an_entry(void) {
    void *state = NULL;
    fake_cuda.lacking = "gpu_repack_codes";
    EXPECT(kernel->open_device(&device, &host, &state) == KRY_E_DEVICE && state == NULL);
    EXPECT_WORDS(gpu_error_message(), "gpu_repack_codes");
    EXPECT(fake_cuda.unloads == 1 && fake_cuda.pushes == fake_cuda.pops);
    fake_cuda.lacking = NULL;
    EXPECT(kernel->open_device(&device, &host, &state) == KRY_OK);
}

/* ---- preparing on the device
 * ---------------------------------------------------------------------- */

static char *device_prepared; /* large enough for all below */

static void prepare_on(const kry_linear *linear, int64_t n_begin, int64_t n_end,
                       kry_status expected, void *state) {
    kry_canonical rows = {.struct_size = sizeof rows,
                          .n_begin = n_begin,
                          .n_end = n_end,
                          .qweight = (const uint32_t *)(uintptr_t)0x1000,
                          .scales = (const void *)(uintptr_t)0x2000,
                          .g_idx = linear->act_order ? (const int32_t *)(uintptr_t)0x3000 : NULL,
                          .qweight_stride = 17,
                          .scale_stride = 18,
                          .memory = KRY_MEMORY_DEVICE};
    kry_prepare_call call = {.struct_size = sizeof call,
                             .device = &device,
                             .linear = linear,
                             .device_state = state,
                             .weights = &rows,
                             .prepared = device_prepared,
                             .scratch = (void *)(uintptr_t)0x20000,
                             .host = &host};
    fake_cuda.launch_count = 0;
    EXPECT(kernel->prepare_weights(&call) == expected);
}

static bool launched(size_t i, const char *entry) {
    return i < fake_cuda.launch_count && strcmp(fake_cuda.launches[i].entry, entry) == 0;
}

static void device_preparation(void) {
    kry_linear linear = weights_linear(100, 256, 32, KRY_WEIGHT_U4B8);
    void *state;
    device_prepared = on_device(1 << 20);
    prepare_on(&linear, 0, 256, KRY_E_STATE, NULL);
    EXPECT(kernel->open_device(&device, &host, &state) == KRY_OK);
    prepare_on(&linear, 64, 192, KRY_OK, state);
    EXPECT(fake_cuda.launch_count == 2 && launched(0, "gpu_repack_codes") &&
           launched(1, "gpu_repack_scales"));
    const struct gpu_repack_params *p =
        (const struct gpu_repack_params *)(const void *)fake_cuda.launches[0].parameters;
    EXPECT(p->n_begin == 64 && p->n_end == 192 && p->prepared == (unsigned char *)device_prepared);
    EXPECT(p->qweight_stride == 17 && p->scale_stride == 18 && p->scale_bytes == 2);
    EXPECT((uintptr_t)p->qweight == 0x1000 && (uintptr_t)p->scales == 0x2000 && p->source == NULL);
    linear.group_size = 24; /* gathered: the first range brings the table */
    prepare_on(&linear, 0, 256, KRY_OK, state);
    EXPECT(fake_cuda.launch_count == 3 && launched(0, "gpu_fill_source"));
    prepare_on(&linear, 64, 256, KRY_OK, state);
    EXPECT(fake_cuda.launch_count == 2);
}

static void device_preparation_of_act_order(void) {
    kry_linear linear = weights_linear(100, 256, 32, KRY_WEIGHT_U4B8);
    void *state;
    linear.act_order = 1;
    struct gpu_layout layout = gpu_layout_of(&linear);
    device_prepared = on_device(1 << 20);
    EXPECT(kernel->open_device(&device, &host, &state) == KRY_OK);
    for (int64_t begin = 0; begin <= 128; begin += 128) {
        uintptr_t tables = begin == 0 ? (uintptr_t)device_prepared : 0x20000;
        prepare_on(&linear, begin, 256, KRY_OK, state);
        EXPECT(fake_cuda.launch_count == 3 && launched(0, "gpu_sort"));
        const struct gpu_sort_params *sort =
            (const struct gpu_sort_params *)(const void *)fake_cuda.launches[0].parameters;
        const struct gpu_repack_params *repack =
            (const struct gpu_repack_params *)(const void *)fake_cuda.launches[1].parameters;
        EXPECT((uintptr_t)sort->header == tables + layout.header_at);
        EXPECT((uintptr_t)sort->source == tables + layout.source_at);
        EXPECT((uintptr_t)sort->block_group == tables + layout.block_group_at);
        EXPECT((uintptr_t)sort->cursor >= 0x20000 + layout.scales_at);
        EXPECT((uintptr_t)sort->cursor + (uintptr_t)layout.groups * 4 <=
               0x20000 + gpu_prepare_scratch_bytes(&layout));
        EXPECT(repack->source == sort->source && (uintptr_t)sort->g_idx == 0x3000);
    }
}

/* ---- answering
 * ------------------------------------------------------------------------------------ */

static int64_t ask(const char *platform, uint32_t arch, const kry_linear *linear,
                   kry_refusal *refusal) {
    kry_device asked = {.struct_size = sizeof asked, .ordinal = -1, .arch_number = arch};
    snprintf(asked.platform, sizeof asked.platform, "%s", platform);
    *refusal = (kry_refusal){.struct_size = sizeof *refusal};
    return kernel->can_implement(&asked, linear, refusal);
}

static void answer_names_what_it_cannot_take(void **state) {
    (void)state;
    kry_linear linear = weights_linear(128, 128, 32, KRY_WEIGHT_U4B8), other = linear;
    kry_refusal refusal;
    assert_int_equal(ask("cuda", 90, &linear, &refusal), KRY_ACCEPTED);
    assert_int_equal(ask("cuda", 70, &linear, &refusal), KRY_REFUSED);
    assert_int_equal(refusal.code, KRY_REFUSAL_CAPABILITY);
    assert_int_equal(refusal.found, 70);
    assert_int_equal(refusal.needed, 75);
    assert_int_equal(ask("rocm", 0x1030, &linear, &refusal), KRY_REFUSED);
    assert_int_equal(refusal.code, KRY_REFUSAL_CAPABILITY);
    other.x_type = other.scale_type = KRY_TYPE_F32;
    assert_int_equal(ask("cuda", 90, &other, &refusal), KRY_REFUSED);
    assert_int_equal(refusal.code, KRY_REFUSAL_X_TYPE);
    assert_int_equal(refusal.needed, 1 << KRY_TYPE_F16 | 1 << KRY_TYPE_BF16);
    other = linear;
    other.scale_type = KRY_TYPE_F32;
    assert_int_equal(ask("cuda", 90, &other, &refusal), KRY_REFUSED);
    assert_int_equal(refusal.code, KRY_REFUSAL_SCALE_TYPE);
    other = linear;
    other.activation_quantization = KRY_ACTIVATION_INT8_TOKEN;
    assert_int_equal(ask("cuda", 90, &other, &refusal), KRY_REFUSED);
    assert_int_equal(refusal.code, KRY_REFUSAL_ACTIVATION_QUANTIZATION);
}

static void answer_to_huge_descriptions_is_no_and_overflows_nothing(void **state) {
    (void)state;
    static const int64_t sizes[] = {KRY_FEATURES_MAX, KRY_FEATURES_MAX - 1, 1 << 26};
    static const int64_t groups[] = {-1, 1, 15, 16, KRY_FEATURES_MAX};
    kry_refusal refusal;
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < 5; j++)
            for (uint32_t act_order = 0; act_order < 2; act_order++) {
                kry_linear wide = weights_linear(16, sizes[i], groups[j], KRY_WEIGHT_U8);
                kry_linear deep = weights_linear(sizes[i], 16, groups[j], KRY_WEIGHT_U8);
                kry_sizes out = KRY_INIT(kry_sizes);
                wide.act_order = deep.act_order = act_order;
                assert_int_equal(ask("cuda", 90, &wide, &refusal), KRY_REFUSED);
                assert_int_equal(refusal.code, KRY_REFUSAL_SIZE);
                assert_int_equal(ask("cuda", 90, &deep, &refusal), KRY_REFUSED);
                assert_int_equal(refusal.code, KRY_REFUSAL_SIZE);
                assert_int_equal(kernel->sizes(&device, &deep, &out), KRY_E_ARGUMENT);
            }
}

static void code_of_the_closest_architecture_is_taken(void **state) {
    (void)state;
    static const struct {
        const char *platform;
        uint32_t arch;
        const char *code; /* as every_code.c calls it */
    } cases[] = {{"cuda", 75, "sm_75"},    {"cuda", 80, "sm_80"},       {"cuda", 86, "sm_80"},
                 {"cuda", 89, "sm_89"},    {"cuda", 90, "sm_90a"},      {"cuda", 103, "sm_100"},
                 {"cuda", 91, "sm_90"}, /* there is none, and sm_90a would not run on it */
                 {"cuda", 110, "PTX"},     {"cuda", 121, "sm_120"},     {"cuda", 130, "PTX"},
                 {"cuda", 120, "sm_120a"}, {"cuda", 72, NULL},          {"rocm", 0x942, "gfx942"},
                 {"rocm", 0x950, NULL},    {"rocm", 0x1100, "gfx1100"}, {"rocm", 0x1101, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct gpu_code_object *o = gpu_code_object_of(cases[i].platform, cases[i].arch);
        if (cases[i].code == NULL)
            assert_null(o);
        else
            assert_string_equal(o->code, cases[i].code);
    }
    assert_int_equal(gpu_code_least_arch("cuda"), 75);
    assert_int_equal(gpu_code_least_arch("rocm"), 0x90a);
    assert_int_equal(gpu_code_least_arch("metal"), 0);
}

/* Only what is hypothetical was asked for above: no driver was touched by this process. */
static void answering_touches_no_driver(void **state) {
    (void)state;
    kry_linear linear = weights_linear(128, 128, 32, KRY_WEIGHT_U4B8);
    kry_sizes sizes = KRY_INIT(kry_sizes);
    kry_workspace workspace = KRY_INIT(kry_workspace);
    assert_int_equal(kernel->sizes(&device, &linear, &sizes), KRY_OK);
    assert_int_equal(kernel->workspace(&device, &linear, 100, &workspace), KRY_OK);
    assert_int_equal(fake_cuda.inits, 0);
}

#define IN_CHILD(name, function)                                                                   \
    static void name(void **state) {                                                               \
        (void)state;                                                                               \
        assert_true(in_child(function));                                                           \
    }

IN_CHILD(apply_launches_one_product_on_the_stream, one_launch)
IN_CHILD(apply_of_x_that_is_not_aligned_arranges_it_first, x_of_any_alignment)
IN_CHILD(apply_of_x_whose_rows_turn_is_one_launch, x_of_eight_bytes)
IN_CHILD(apply_of_many_act_order_rows_runs_over_all_of_them_once, runs_of_act_order)
IN_CHILD(apply_that_cannot_succeed_launches_nothing, nothing_is_launched)
IN_CHILD(apply_whose_launch_fails_tells_the_drivers_words, launch_that_fails)
IN_CHILD(open_device_loads_the_code_once_a_device, opened_twice)
IN_CHILD(open_device_without_an_entry_fails_and_can_be_tried_again, code_that_lacks_an_entry)
IN_CHILD(prepare_on_the_device_launches_repack, device_preparation)
IN_CHILD(prepare_of_act_order_on_the_device_sorts_first, device_preparation_of_act_order)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apply_launches_one_product_on_the_stream),
        cmocka_unit_test(apply_of_x_that_is_not_aligned_arranges_it_first),
        cmocka_unit_test(apply_of_x_whose_rows_turn_is_one_launch),
        cmocka_unit_test(apply_of_many_act_order_rows_runs_over_all_of_them_once),
        cmocka_unit_test(apply_that_cannot_succeed_launches_nothing),
        cmocka_unit_test(apply_whose_launch_fails_tells_the_drivers_words),
        cmocka_unit_test(open_device_loads_the_code_once_a_device),
        cmocka_unit_test(open_device_without_an_entry_fails_and_can_be_tried_again),
        cmocka_unit_test(prepare_on_the_device_launches_repack),
        cmocka_unit_test(prepare_of_act_order_on_the_device_sorts_first),
        cmocka_unit_test(answer_names_what_it_cannot_take),
        cmocka_unit_test(answer_to_huge_descriptions_is_no_and_overflows_nothing),
        cmocka_unit_test(code_of_the_closest_architecture_is_taken),
        cmocka_unit_test(answering_touches_no_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
