/* What the tests' CUDA driver takes of launches in clusters and of tensor maps, as a real one does:
 * the structs are written out here once more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "plugins/gpu/params.h"

#include "fake_cuda.h"

struct attribute {
    uint32_t id;
    uint32_t padding;
    uint32_t value[16];
};
struct config {
    uint32_t grid[3], block[3], shared;
    void *stream;
    struct attribute *attributes;
    uint32_t attribute_count;
};

int cuLibraryLoadData(void **library, const void *code, void *jit, void *jit_values,
                      unsigned jit_count, void *options, void *values, unsigned count);
int cuLibraryGetKernel(void **kernel, void *library, const char *name);
int cuLaunchKernelEx(const struct config *config, void *function, void **parameters, void **extra);
int cuOccupancyMaxActiveClusters(int *clusters, void *function, const struct config *config);
int cuTensorMapEncodeTiled(void *map, int data_type, unsigned rank, void *address,
                           const uint64_t *dimensions, const uint64_t *strides, const unsigned *box,
                           const unsigned *element_strides, int interleave, int swizzle,
                           int l2_promotion, int fill);

static void *kernel;

static int enter(void **state) {
    void *context;
    void *library;
    (void)state;
    return cuInit(0) != 0 || cuDevicePrimaryCtxRetain(&context, 0) != 0 ||
           cuCtxPushCurrent_v2(context) != 0 ||
           cuLibraryLoadData(&library, "code", NULL, NULL, 0, NULL, NULL, 0) != 0 ||
           cuLibraryGetKernel(&kernel, library, "gpu_wide_f16") != 0;
}

static int leave(void **state) {
    void *context;
    (void)state;
    return cuCtxPopCurrent_v2(&context);
}

static void launches_bring_their_attributes(void **state) {
    (void)state;
    struct gpu_wide_params params;
    memset(&params, 7, sizeof params);
    void *parameters[] = {&params};
    struct attribute attributes[] = {{4, 0, {4, 1, 1}}, {6, 0, {1}}};
    struct config config = {{8, 1, 1}, {288, 1, 1}, 1024, NULL, attributes, 2};
    assert_int_equal(cuLaunchKernelEx(&config, kernel, parameters, NULL), 0);
    const struct fake_launch *launch =
        &fake_cuda.launches[(fake_cuda.launch_count - 1) % FAKE_LAUNCHES_MAX];
    assert_string_equal(launch->entry, "gpu_wide_f16");
    assert_int_equal(launch->grid, 8);
    assert_int_equal(launch->block, 288);
    assert_int_equal(launch->cluster, 4);
    assert_true(launch->early);
    assert_int_equal(launch->parameter_bytes, sizeof params);
    assert_memory_equal(launch->parameters, &params, sizeof params);
    int clusters = 0;
    assert_int_equal(cuOccupancyMaxActiveClusters(&clusters, kernel, &config), 0);
    assert_int_equal(clusters, fake_cuda.active_clusters / 4);
    config.attribute_count = 0;
    assert_int_equal(cuLaunchKernelEx(&config, kernel, parameters, NULL), 0);
    launch = &fake_cuda.launches[(fake_cuda.launch_count - 1) % FAKE_LAUNCHES_MAX];
    assert_int_equal(launch->cluster, 0);
    assert_false(launch->early);
}

static void launches_that_cannot_be_are_refused(void **state) {
    (void)state;
    struct gpu_wide_params params = {0};
    void *parameters[] = {&params};
    struct attribute attribute = {4, 0, {3, 1, 1}};
    struct config config = {{8, 1, 1}, {288, 1, 1}, 1024, NULL, &attribute, 1};
    assert_int_equal(cuLaunchKernelEx(&config, kernel, parameters, NULL), 1); /* 8 % 3 */
    attribute.value[0] = 16;
    config.grid[0] = 16;
    assert_int_equal(cuLaunchKernelEx(&config, kernel, parameters, NULL), 1);
    attribute = (struct attribute){4, 0, {2, 2, 1}};
    assert_int_equal(cuLaunchKernelEx(&config, kernel, parameters, NULL), 1);
    attribute = (struct attribute){5, 0, {1}};
    assert_int_equal(cuLaunchKernelEx(&config, kernel, parameters, NULL), 1);
    attribute = (struct attribute){4, 0, {2, 1, 1}};
    assert_int_equal(cuLaunchKernelEx(&config, kernel, parameters, NULL), 0);
    fake_cuda.capability[0] = 80;
    assert_int_equal(cuLaunchKernelEx(&config, kernel, parameters, NULL), 1);
    fake_cuda.capability[0] = 90;
}

static void tensor_maps_are_made(void **state) {
    (void)state;
    static _Alignas(16) uint16_t x[128];
    struct gpu_tensor_map map = {{0}};
    const uint64_t dimensions[] = {64, 2};
    const uint64_t strides[] = {128};
    const unsigned box[] = {64, 8};
    const unsigned ones[] = {1, 1};
    const size_t before = fake_cuda.map_count;
    assert_int_equal(
        cuTensorMapEncodeTiled(&map, 6, 2, x, dimensions, strides, box, ones, 0, 3, 2, 0), 0);
    assert_true(map.words[0] != 0);
    assert_int_equal(
        cuTensorMapEncodeTiled(&map, 6, 2, x + 1, dimensions, strides, box, ones, 0, 3, 2, 0), 1);
    assert_int_equal(fake_cuda.map_count, before + 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(launches_bring_their_attributes),
        cmocka_unit_test(launches_that_cannot_be_are_refused),
        cmocka_unit_test(tensor_maps_are_made),
    };
    return cmocka_run_group_tests(tests, enter, leave) != 0;
}
