/* The drivers' tables, against drivers of our own. What a driver says first counts for the whole
 * process, so each test has one. */
#include "driver.h"
#include "in_child.h"
#include "message.h"

#include "fake_cuda.h"
#include "fake_hip.h"
#include "simt/tensor_map.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const kry_device h200 = {
    .struct_size = sizeof(kry_device), .platform = "cuda", .arch = "sm_90", .arch_number = 90};
static const kry_device mi300 = {.struct_size = sizeof(kry_device),
                                 .platform = "rocm",
                                 .arch = "gfx942",
                                 .ordinal = 1,
                                 .arch_number = 0x942};
static const struct gpu_driver *const cuda = &gpu_driver_cuda, *const hip = &gpu_driver_hip;

/* ---- CUDA ------------------------------------------------------------------------------------ */

static void old_driver(void) {
    fake_cuda.version = 11040;
    EXPECT(cuda->available() == KRY_E_DEPENDENCY);
    EXPECT_WORDS(gpu_error_message(), "driver too old: has CUDA 11.4, needs 1");
    struct gpu_scope scope;
    EXPECT(cuda->enter(&h200, &scope) == KRY_E_DEPENDENCY);
    EXPECT_WORDS(gpu_error_message(), "driver too old");
    EXPECT(fake_cuda.inits == 0);
}

static void looking_only(void) {
    EXPECT(cuda->available() == KRY_OK);
    EXPECT(fake_cuda.inits == 0);
}

static void no_context(void) {
    struct gpu_scope scope;
    void *context;
    EXPECT(cuda->enter(&h200, &scope) == KRY_OK && scope.changed);
    EXPECT(fake_cuda.inits == 1 && fake_cuda.retained[0] == 1);
    cuda->leave(&scope);
    EXPECT(cuCtxGetCurrent(&context) == 0 && context == NULL);
    EXPECT(cuda->enter(&h200, &scope) == KRY_OK && scope.changed);
    cuda->leave(&scope);
    EXPECT(fake_cuda.inits == 1 && fake_cuda.retained[0] == 1 && fake_cuda.pushes == 2 &&
           fake_cuda.pops == 2);
}

static void own_context(void) {
    struct gpu_scope scope;
    void *context, *now;
    cuInit(0);
    cuDevicePrimaryCtxRetain(&context, 0);
    cuCtxPushCurrent_v2(context);
    EXPECT(cuda->enter(&h200, &scope) == KRY_OK && !scope.changed);
    EXPECT(fake_cuda.retained[0] == 1 && fake_cuda.pushes == 1);
    cuda->leave(&scope);
    EXPECT(cuCtxGetCurrent(&now) == 0 && now == context);
}

static void context_of_another_device(void) {
    struct gpu_scope scope;
    void *context, *now;
    kry_device second = h200;
    second.ordinal = 1;
    fake_cuda.devices = 2;
    cuInit(0);
    cuDevicePrimaryCtxRetain(&context, 0);
    cuCtxPushCurrent_v2(context);
    EXPECT(cuda->enter(&second, &scope) == KRY_OK && scope.changed && fake_cuda.retained[1] == 1);
    cuda->leave(&scope);
    EXPECT(cuCtxGetCurrent(&now) == 0 && now == context);
}

static void failures(void) {
    struct gpu_scope scope;
    void *memory, *module, *function;
    EXPECT(cuda->enter(&h200, &scope) == KRY_OK);
    fake_cuda.failing = "cuMemAlloc_v2";
    fake_cuda.error = 2;
    EXPECT(cuda->allocate(100, &memory) == KRY_E_MEMORY);
    EXPECT_WORDS(gpu_error_message(), "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (2, a sentence");
    fake_cuda.failing = "cuLibraryLoadData";
    fake_cuda.error = 209;
    EXPECT(cuda->load(&h200, "code", &module) == KRY_E_DEVICE);
    EXPECT_WORDS(gpu_error_message(), "cuLibraryLoadData");
    fake_cuda.failing = NULL;
    EXPECT(cuda->load(&h200, "code", &module) == KRY_OK);
    fake_cuda.lacking = "gpu_missing";
    EXPECT(cuda->find(module, "gpu_missing", 0, &function) == KRY_E_DEVICE);
    EXPECT_WORDS(gpu_error_message(), "gpu_missing");
    kry_device absent = h200;
    absent.ordinal = 1;
    EXPECT(cuda->enter(&absent, &scope) == KRY_E_DEVICE);
    absent.ordinal = -1;
    EXPECT(cuda->enter(&absent, &scope) == KRY_E_DEVICE);
    EXPECT_WORDS(gpu_error_message(), "cuda:sm_90 is not here");
}

static void another_order(void) {
    struct gpu_scope scope;
    void *module;
    fake_cuda.capability[0] = 86;
    EXPECT(cuda->enter(&h200, &scope) == KRY_OK);
    EXPECT(cuda->load(&h200, "code", &module) == KRY_E_DEVICE);
    EXPECT_WORDS(gpu_error_message(), "cuda:0 is sm_86, expected sm_90");
    EXPECT_WORDS(gpu_error_message(), "CUDA_DEVICE_ORDER=PCI_BUS_ID");
    EXPECT(fake_cuda.loads == 0);
}

static void failing_init(void) {
    struct gpu_scope scope;
    fake_cuda.failing = "cuInit";
    fake_cuda.error = 100;
    EXPECT(cuda->enter(&h200, &scope) == KRY_E_DEVICE);
    EXPECT_WORDS(gpu_error_message(), "cuInit: CUDA_ERROR_OF_A_TEST (100");
    EXPECT(cuda->enter(&h200, &scope) == KRY_E_DEVICE);
    EXPECT(fake_cuda.inits == 1);
}

static void memory_and_launches(void) {
    struct gpu_scope scope;
    void *memory, *other, *module, *function;
    char text[] = "sixteen bytes ok", back[sizeof text] = "";
    EXPECT(cuda->enter(&h200, &scope) == KRY_OK);
    EXPECT(cuda->allocate(sizeof text, &memory) == KRY_OK);
    EXPECT(cuda->allocate(0, &other) == KRY_OK && cuda->release(other) == KRY_OK);
    EXPECT(cuda->allocate(sizeof text, &other) == KRY_OK);
    EXPECT((uintptr_t)memory % KRY_ALIGNMENT == 0);
    EXPECT(cuda->copy(memory, KRY_MEMORY_DEVICE, text, KRY_MEMORY_HOST, sizeof text, NULL) ==
           KRY_OK);
    EXPECT(fake_cuda.synchronized == 1);
    EXPECT(cuda->copy(other, KRY_MEMORY_DEVICE, memory, KRY_MEMORY_DEVICE, sizeof text, NULL) ==
           KRY_OK);
    EXPECT(fake_cuda.synchronized == 1);
    EXPECT(cuda->clear(memory, 1, NULL) == KRY_OK && *(char *)memory == 0);
    EXPECT(cuda->copy(back, KRY_MEMORY_HOST, other, KRY_MEMORY_DEVICE, sizeof text, NULL) ==
           KRY_OK);
    EXPECT(strcmp(text, back) == 0 && fake_cuda.synchronized == 2);
    EXPECT(cuda->load(&h200, "code", &module) == KRY_OK);
    EXPECT(cuda->find(module, "gpu_sort", 100 << 10, &function) == KRY_OK);
    EXPECT(fake_cuda.shared_allowed == 100 << 10);
    char parameters[FAKE_PARAMETERS_MAX] = "what the entry gets";
    struct gpu_launch how = {.grid = 7, .block = 64, .shared_bytes = 99 << 10};
    EXPECT(cuda->launch(function, &how, parameters, text) == KRY_OK);
    const struct fake_launch *launch = &fake_cuda.launches[0];
    EXPECT(fake_cuda.launch_count == 1 && launch->grid == 7 && launch->block == 64 &&
           launch->shared_bytes == 99 << 10 && launch->stream == text && launch->cluster == 0 &&
           !launch->early);
    EXPECT(strcmp(launch->entry, "gpu_sort") == 0);
    EXPECT(strcmp((const char *)launch->parameters, parameters) == 0);
    how = (struct gpu_launch){.grid = 8, .block = 64, .cluster = 4, .early = 1};
    EXPECT(cuda->launch(function, &how, parameters, NULL) == KRY_OK);
    launch = &fake_cuda.launches[1];
    EXPECT(launch->grid == 8 && launch->cluster == 4 && launch->early);
    uint32_t clusters;
    EXPECT(cuda->clusters(function, &how, &clusters) == KRY_OK);
    EXPECT(clusters == (uint32_t)fake_cuda.active_clusters / 4);
    how.grid = 0;
    EXPECT(cuda->launch(function, &how, parameters, NULL) == KRY_E_DEVICE);
    EXPECT_WORDS(gpu_error_message(), "cuLaunchKernel");
    EXPECT(cuda->release(memory) == KRY_OK && cuda->release(other) == KRY_OK);
    EXPECT(fake_cuda.live_blocks == 0);
}

/* A map says where rows lie; the copy engine wants them at multiples of 16 bytes. */
static void rows_are_mapped(void) {
    static _Alignas(64) struct gpu_tensor_map map;
    static _Alignas(16) uint16_t x[3 * 104];
    struct simt_tensor tensor;
    struct gpu_scope scope;
    EXPECT(cuda->enter(&h200, &scope) == KRY_OK);
    struct gpu_rows rows = {x, 100, 3, 104, 64, 32};
    EXPECT(cuda->map_rows(&map, &rows) == KRY_OK);
    EXPECT(simt_tensor_map_read(&map, &tensor));
    EXPECT(tensor.address == (const unsigned char *)x && tensor.columns == 100 &&
           tensor.rows == 3 && tensor.row_bytes == 208 && tensor.box_columns == 64 &&
           tensor.box_rows == 32 && tensor.element_bytes == 2 && tensor.swizzle_bytes == 128);
    rows = (struct gpu_rows){x, 99, 1, 99, 8, 8}; /* one row needs no stride */
    EXPECT(cuda->map_rows(&map, &rows) == KRY_OK && simt_tensor_map_read(&map, &tensor));
    EXPECT(tensor.box_columns == 8 && tensor.swizzle_bytes == 0);
    rows = (struct gpu_rows){x + 1, 64, 1, 64, 64, 8};
    EXPECT(cuda->map_rows(&map, &rows) == KRY_E_DEVICE);
    EXPECT_WORDS(gpu_error_message(), "cuTensorMapEncodeTiled");
    rows = (struct gpu_rows){x, 64, 2, 100, 64, 8};
    EXPECT(cuda->map_rows(&map, &rows) == KRY_E_DEVICE);
}

/* ---- HIP ------------------------------------------------------------------------------------- */

static void device_is_set_back(void) {
    struct gpu_scope scope;
    EXPECT(hip->available() == KRY_OK && fake_hip.inits == 0);
    EXPECT(hip->enter(&mi300, &scope) == KRY_OK && scope.changed && scope.before == 0);
    EXPECT(fake_hip.inits == 1 && fake_hip.set_count == 1 && fake_hip.set[0] == 1);
    struct gpu_scope inner;
    EXPECT(hip->enter(&mi300, &inner) == KRY_OK && !inner.changed);
    hip->leave(&inner);
    EXPECT(fake_hip.set_count == 1);
    hip->leave(&scope);
    EXPECT(fake_hip.set_count == 2 && fake_hip.set[1] == 0 && fake_hip.inits == 1);
}

static void hip_failures(void) {
    struct gpu_scope scope;
    void *module, *memory;
    EXPECT(hip->enter(&mi300, &scope) == KRY_OK);
    fake_hip.failing = "hipModuleLoadData";
    fake_hip.error = 209;
    EXPECT(hip->load(&mi300, "code", &module) == KRY_E_DEVICE);
    EXPECT_WORDS(gpu_error_message(), "hipModuleLoadData: a sentence of the runtime (209)");
    fake_hip.failing = "hipMalloc";
    fake_hip.error = 2;
    EXPECT(hip->allocate(100, &memory) == KRY_E_MEMORY);
    kry_device third = mi300;
    third.ordinal = 2;
    EXPECT(hip->enter(&third, &scope) == KRY_E_DEVICE);
    EXPECT_WORDS(gpu_error_message(), "hipSetDevice");
}

static void hip_without_gpu(void) {
    struct gpu_scope scope;
    fake_hip.init_error = 100;
    EXPECT(hip->enter(&mi300, &scope) == KRY_E_DEVICE);
    EXPECT_WORDS(gpu_error_message(), "hipInit: no ROCm-capable device is detected (100)");
}

static void hip_memory_and_launches(void) {
    struct gpu_scope scope;
    void *memory, *module, *function;
    char text[] = "text", back[sizeof text] = "";
    EXPECT(hip->enter(&mi300, &scope) == KRY_OK);
    EXPECT(hip->allocate(sizeof text, &memory) == KRY_OK);
    EXPECT(hip->copy(memory, KRY_MEMORY_DEVICE, text, KRY_MEMORY_HOST, sizeof text, NULL) ==
           KRY_OK);
    EXPECT(hip->copy(back, KRY_MEMORY_HOST, memory, KRY_MEMORY_DEVICE, sizeof text, NULL) ==
           KRY_OK);
    EXPECT(strcmp(text, back) == 0 && fake_hip.synchronized == 2);
    EXPECT(hip->clear(memory, 2, NULL) == KRY_OK && *(char *)memory == 0);
    EXPECT(hip->load(&mi300, "code", &module) == KRY_OK);
    EXPECT(hip->find(module, "gpu_sort", 60 << 10, &function) == KRY_OK);
    const struct gpu_launch how = {.grid = 3, .block = 256, .shared_bytes = 60 << 10};
    EXPECT(hip->launch(function, &how, text, NULL) == KRY_OK);
    EXPECT(strcmp(fake_hip.launched, "gpu_sort") == 0 && fake_hip.grid == 3 &&
           fake_hip.block == 256 && fake_hip.shared_bytes == 60 << 10);
    EXPECT(hip->synchronize(NULL) == KRY_OK && fake_hip.synchronized == 3);
    EXPECT(hip->release(memory) == KRY_OK);
}

#define IN_CHILD(name, function)                                                                   \
    static void name(void **state) {                                                               \
        (void)state;                                                                               \
        assert_true(in_child(function));                                                           \
    }

IN_CHILD(cuda_driver_too_old_tells_has_and_needs_and_is_not_initialised, old_driver)
IN_CHILD(cuda_available_does_not_initialise, looking_only)
IN_CHILD(cuda_enter_without_context_takes_the_primary_one_and_keeps_it, no_context)
IN_CHILD(cuda_enter_in_a_context_of_the_device_changes_nothing, own_context)
IN_CHILD(cuda_enter_in_a_context_of_another_device_comes_back_to_it, context_of_another_device)
IN_CHILD(cuda_failure_is_told_with_function_and_the_drivers_words, failures)
IN_CHILD(cuda_device_of_another_architecture_than_listed_is_refused, another_order)
IN_CHILD(cuda_failed_initialisation_is_remembered, failing_init)
IN_CHILD(cuda_memory_and_launches_reach_the_driver, memory_and_launches)
IN_CHILD(cuda_rows_are_mapped_where_the_copy_engine_takes_them, rows_are_mapped)
IN_CHILD(hip_device_is_set_and_set_back, device_is_set_back)
IN_CHILD(hip_failure_is_told_with_function_and_words, hip_failures)
IN_CHILD(hip_without_gpu_is_an_error_of_the_device, hip_without_gpu)
IN_CHILD(hip_memory_and_launches_reach_the_runtime, hip_memory_and_launches)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuda_driver_too_old_tells_has_and_needs_and_is_not_initialised),
        cmocka_unit_test(cuda_available_does_not_initialise),
        cmocka_unit_test(cuda_enter_without_context_takes_the_primary_one_and_keeps_it),
        cmocka_unit_test(cuda_enter_in_a_context_of_the_device_changes_nothing),
        cmocka_unit_test(cuda_enter_in_a_context_of_another_device_comes_back_to_it),
        cmocka_unit_test(cuda_failure_is_told_with_function_and_the_drivers_words),
        cmocka_unit_test(cuda_device_of_another_architecture_than_listed_is_refused),
        cmocka_unit_test(cuda_failed_initialisation_is_remembered),
        cmocka_unit_test(cuda_memory_and_launches_reach_the_driver),
        cmocka_unit_test(cuda_rows_are_mapped_where_the_copy_engine_takes_them),
        cmocka_unit_test(hip_device_is_set_and_set_back),
        cmocka_unit_test(hip_failure_is_told_with_function_and_words),
        cmocka_unit_test(hip_without_gpu_is_an_error_of_the_device),
        cmocka_unit_test(hip_memory_and_launches_reach_the_runtime),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
