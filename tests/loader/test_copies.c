/*
 * Several copies of the core in one process, as when a Python package and the program around it
 * bring one each: every copy has its own plugin directory, registries and messages, and they share
 * no more than the plugins that the system's loader has loaded already.
 */
#include "fixture.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif

/* The functions of one copy, by the names of the header. */
#define FUNCTIONS(DO)                                                                              \
    DO(kry_registry_open)                                                                          \
    DO(kry_registry_close)                                                                         \
    DO(kry_registry_search_path)                                                                   \
    DO(kry_registry_kernel_count)                                                                  \
    DO(kry_registry_kernel)                                                                        \
    DO(kry_registry_find_device)                                                                   \
    DO(kry_layer_create)                                                                           \
    DO(kry_layer_destroy)                                                                          \
    DO(kry_layer_prepare)                                                                          \
    DO(kry_layer_apply)                                                                            \
    DO(kry_error_message)

typedef struct copy {
    char folder[FIXTURE_PATH];
    kry_registry *registry;
    kry_layer *layer;
#define MEMBER(name) __typeof__(&name) name;
    FUNCTIONS(MEMBER)
} copy;

/* dlsym's object pointer is a function's; POSIX promises that. */
static void find(void *library, const char *name, void *function) {
    void *symbol = dlsym(library, name);
    if (symbol == NULL)
        fail_msg("%s", dlerror());
    memcpy(function, &symbol, sizeof symbol);
}

/* An install of its own: the library, and beside it a folder with that mock alone. */
static void install(copy *out, const char *mock) {
    char folder[FIXTURE_PATH];
    snprintf(out->folder, sizeof out->folder, "%s", scratch_folder());
    snprintf(folder, sizeof folder, "%s", path_in(out->folder, "kernelry"));
    assert_int_equal(mkdir(folder, 0755), 0);
    snprintf(folder, sizeof folder, "%s", path_in(out->folder, "kernelry/plugins"));
    assert_int_equal(mkdir(folder, 0755), 0);
    copy_file(mock_path(mock), path_in(folder, mock));
    copy_file(LOADER_LIBRARY, path_in(out->folder, "libkernelry.so"));
}

static void bind(copy *out, void *library) {
    if (library == NULL)
        fail_msg("%s", dlerror());
#define FIND(name) find(library, #name, &out->name);
    FUNCTIONS(FIND)
}

/* Two files of the library, beside different mocks. */
static void bind_two(copy *a, copy *b) {
    install(a, "dense.so");
    install(b, "whole_groups.so");
    bind(a, dlopen(path_in(a->folder, "libkernelry.so"), RTLD_NOW | RTLD_LOCAL));
    bind(b, dlopen(path_in(b->folder, "libkernelry.so"), RTLD_NOW | RTLD_LOCAL));
}

static void open_copy(copy *one) {
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.flags = KRY_REGISTRY_NO_ENVIRONMENT;
    if (one->kry_registry_open(&options, &one->registry) != KRY_OK)
        fail_msg("%s", one->kry_error_message());
    assert_string_equal(one->kry_registry_search_path(one->registry, 0),
                        path_in(one->folder, "kernelry/plugins"));
}

static void assert_has_only(const copy *one, const char *kernel) {
    kry_kernel_info info = KRY_INIT(kry_kernel_info);
    assert_int_equal(one->kry_registry_kernel_count(one->registry, "cpu"), 1);
    assert_int_equal(one->kry_registry_kernel(one->registry, "cpu", 0, &info), KRY_OK);
    assert_string_equal(info.kernel, kernel);
}

static void make_in(copy *one, const kry_linear *linear, const stored_weights *stored) {
    kry_device device = KRY_INIT(kry_device);
    assert_int_equal(one->kry_registry_find_device(one->registry, "cpu", &device), KRY_OK);
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = linear;
    kry_prepare_args prepare = KRY_INIT(kry_prepare_args);
    prepare.weights = &stored->weights;
    if (one->kry_layer_create(one->registry, &args, &one->layer) != KRY_OK ||
        one->kry_layer_prepare(one->layer, &prepare) != KRY_OK)
        fail_msg("%s", one->kry_error_message());
}

/* One row through the copy's layer against the product. */
static void assert_right(copy *one, const plain_weights *plain) {
    enum { K = 64, N = 8 };
    float x[K], y[N], bias[N] = {0};
    double expected[N];
    void *scratch = make_room(64), *zeroed = memset(make_room(64), 0, 64);
    for (int k = 0; k < K; k++)
        x[k] = draw_float();
    kry_apply_args args = KRY_INIT(kry_apply_args);
    args.m = 1;
    args.x = x;
    args.y = y;
    args.bias = bias;
    args.scratch = scratch;
    args.zeroed = zeroed;
    args.scratch_bytes = args.zeroed_bytes = 64;
    if (one->kry_layer_apply(one->layer, &args) != KRY_OK)
        fail_msg("%s", one->kry_error_message());
    product(plain, x, expected);
    for (int n = 0; n < N; n++)
        assert_true(fabs((double)y[n] - expected[n]) < 1e-4);
    free(scratch);
    free(zeroed);
}

static void assert_copies_work(copy *a, copy *b) {
    open_copy(a);
    open_copy(b);
    assert_has_only(a, "dense");
    assert_has_only(b, "whole_groups");
    kry_linear linear = describe(64, 8, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F32);
    plain_weights plain = draw_weights(&linear);
    stored_weights stored;
    store_weights(&plain, &(storage){.weight_axis = KRY_AXIS_K}, &stored);
    make_in(a, &linear, &stored);
    make_in(b, &linear, &stored);
    assert_right(a, &plain);
    assert_right(b, &plain);

    /* What fails in one is not said by the other. */
    kry_device device = KRY_INIT(kry_device);
    assert_int_equal(a->kry_registry_find_device(a->registry, "abacus", &device), KRY_E_NOT_FOUND);
    assert_non_null(strstr(a->kry_error_message(), "abacus"));
    assert_string_equal(b->kry_error_message(), "");

    /* The end of one leaves the other as it is. */
    a->kry_layer_destroy(&a->layer);
    a->kry_registry_close(&a->registry);
    assert_right(b, &plain);
    b->kry_layer_destroy(&b->layer);
    b->kry_registry_close(&b->registry);
    free_stored(&stored);
    free_weights(&plain);
}

static void two_files_of_the_core_do_not_disturb_each_other(void **state) {
    (void)state;
    static copy a, b;
    bind_two(&a, &b);
    assert_true(a.kry_registry_open != b.kry_registry_open);
    assert_copies_work(&a, &b);
}

static void cores_in_two_namespaces_do_not_disturb_each_other(void **state) {
    (void)state;
#ifdef SANITIZED
    skip(); /* a sanitizer's runtime works in one namespace only */
#else
    static copy a, b;
    install(&a, "dense.so");
    install(&b, "whole_groups.so");
    bind(&a, dlopen(path_in(a.folder, "libkernelry.so"), RTLD_NOW | RTLD_LOCAL));
    bind(&b, dlmopen(LM_ID_NEWLM, path_in(b.folder, "libkernelry.so"), RTLD_NOW | RTLD_LOCAL));
    assert_copies_work(&a, &b);
#endif
}

static void copies_share_a_plugin_by_one_path(void **state) {
    (void)state;
    static copy a, b;
    bind_two(&a, &b);
    const char *paths[] = {path_in(a.folder, "kernelry/plugins/dense.so")};
    kry_registry_options options = closed_options(paths, 1);
    assert_int_equal(a.kry_registry_open(&options, &a.registry), KRY_OK);
    assert_int_equal(b.kry_registry_open(&options, &b.registry), KRY_OK);
    assert_has_only(&a, "dense");
    assert_has_only(&b, "dense");
    a.kry_registry_close(&a.registry);
    assert_has_only(&b, "dense");
    b.kry_registry_close(&b.registry);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_files_of_the_core_do_not_disturb_each_other),
        cmocka_unit_test(cores_in_two_namespaces_do_not_disturb_each_other),
        cmocka_unit_test(copies_share_a_plugin_by_one_path),
    };
    return cmocka_run_group_tests_name("loader copies", tests, NULL, NULL) ? 1 : 0;
}
