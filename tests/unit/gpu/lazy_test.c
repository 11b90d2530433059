/*
 * A process that only looks: test_gpu_lazy PLUGIN.so here|absent. The drivers are where dlopen
 * finds them (here) or nowhere; opening a registry and deciding map none of them.
 */
#include "devices.h"
#include "driver.h"
#include "fake_cuda.h"
#include "message.h"

#include <kernelry/kernelry.h>

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *plugin;

static kry_registry *open_registry(void) {
    kry_registry_options options = KRY_INIT(kry_registry_options);
    kry_registry *registry = NULL;
    options.plugin_paths = &plugin;
    options.plugin_path_count = 1;
    options.flags = KRY_REGISTRY_NO_ENVIRONMENT | KRY_REGISTRY_RELAX_TRUST;
    assert_int_equal(kry_registry_open(&options, &registry), KRY_OK);
    assert_int_equal(kry_registry_kernel_count(registry, "cuda"), 1);
    assert_int_equal(kry_registry_kernel_count(registry, "rocm"), 1);
    return registry;
}

static void *mapped(const char *library) {
    return dlopen(library, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
}

static void expect_no_driver_mapped(void) {
    assert_null(mapped("libcuda.so.1"));
    assert_null(mapped("libnvidia-ml.so.1"));
    assert_null(mapped("libamdhip64.so.6"));
}

static void deciding_maps_no_driver(void **state) {
    static const char *const names[] = {"cuda:sm_80", "cuda:sm_120", "rocm:gfx942"};
    kry_registry *registry = open_registry();
    (void)state;
    expect_no_driver_mapped();
    for (size_t i = 0; i < 3; i++) {
        kry_device device = KRY_INIT(kry_device);
        kry_linear linear = KRY_INIT(kry_linear);
        kry_layer *layer;
        kry_workspace workspace = KRY_INIT(kry_workspace);
        linear.in_features = 2112;
        linear.out_features = 704;
        linear.group_size = 32;
        linear.weight_type = KRY_WEIGHT_U4B8;
        linear.x_type = KRY_TYPE_BF16;
        kry_layer_args args = {.struct_size = sizeof args, .device = &device, .linear = &linear};
        assert_int_equal(kry_registry_find_device(registry, names[i], &device), KRY_OK);
        assert_int_equal(kry_layer_create(registry, &args, &layer), KRY_OK);
        assert_int_equal(kry_layer_workspace(layer, 100, &workspace), KRY_OK);
        kry_layer_destroy(&layer);
    }
    kry_registry_close(&registry);
    expect_no_driver_mapped();
}

static void listing_asks_nvml_and_initialises_nothing(void **state) {
    kry_registry *registry = open_registry();
    kry_device device = KRY_INIT(kry_device);
    (void)state;
    assert_int_equal(kry_registry_device_count(registry), 2); /* the CPU, and what NVML tells */
    assert_int_equal(kry_registry_find_device(registry, "cuda", &device), KRY_OK);
    assert_string_equal(device.arch, "sm_90");
    assert_null(mapped("libnvidia-ml.so.1")); /* closed again */
    void *driver = mapped("libcuda.so.1");
    assert_non_null(driver); /* whether it is there and new enough */
    const struct fake_cuda *fake = dlsym(driver, "fake_cuda");
    assert_non_null(fake);
    assert_int_equal(fake->inits, 0);
    kry_registry_close(&registry);
}

static void listing_without_drivers_tells_so(void **state) {
    kry_registry *registry = open_registry();
    kry_device device = KRY_INIT(kry_device);
    (void)state;
    assert_int_equal(kry_registry_device_count(registry), 1);
    assert_int_equal(kry_registry_find_device(registry, "cuda", &device), KRY_E_NOT_FOUND);
    assert_non_null(strstr(kry_error_message(), "is not here (no driver: libnvidia-ml.so.1"));
    /* What no call of the core asks for yet, by the host side's own functions. */
    assert_int_equal(gpu_cuda_device(0, &device), KRY_E_NOT_FOUND);
    assert_non_null(strstr(gpu_error_message(), "no driver: libnvidia-ml.so.1"));
    assert_int_equal(gpu_driver_cuda.available(), KRY_E_DEPENDENCY);
    assert_non_null(strstr(gpu_error_message(), "no driver: libcuda.so.1"));
    assert_int_equal(gpu_driver_hip.available(), KRY_E_DEPENDENCY);
    assert_non_null(strstr(gpu_error_message(), "no HIP runtime: none of libamdhip64.so.7"));
    kry_registry_close(&registry);
}

int main(int argc, char **argv) {
    const struct CMUnitTest here[] = {
        cmocka_unit_test(deciding_maps_no_driver),
        cmocka_unit_test(listing_asks_nvml_and_initialises_nothing),
    };
    const struct CMUnitTest absent[] = {
        cmocka_unit_test(deciding_maps_no_driver),
        cmocka_unit_test(listing_without_drivers_tells_so),
    };
    if (argc < 3)
        return 2;
    plugin = argv[1];
    if (strcmp(argv[2], "here") == 0)
        return cmocka_run_group_tests(here, NULL, NULL) == 0 ? 0 : 1;
    if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) != NULL ||
        dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL) != NULL) {
        puts("this machine has a driver");
        return 77;
    }
    return cmocka_run_group_tests(absent, NULL, NULL) == 0 ? 0 : 1;
}
