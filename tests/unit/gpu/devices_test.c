/* Which GPUs are listed, and what is known of hypothetical ones. */
#include "devices.h"
#include "in_child.h"
#include "message.h"

#include "fake_cuda.h"
#include "fake_nvml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

/* ---- choosing ----------------------------------------------------------------------------------
 */

/* Three GPUs, of which the last is the fastest and the first two are alike. */
static const struct gpu_list three = {.count = 3,
                                      .found = {{.id = "GPU-aa11", .speed = 5},
                                                {.id = "GPU-aa22", .speed = 5},
                                                {.id = "GPU-bb33", .speed = 9}}};

/* What is chosen, as digits. */
static const char *chosen(const char *visible, bool by_bus) {
    static char digits[8];
    size_t places[GPU_DEVICES_MAX];
    gpu_cuda_order(&three, by_bus, places);
    size_t count = gpu_choose(&three, visible, three.count, places);
    for (size_t i = 0; i < count; i++)
        digits[i] = (char)('0' + places[i]);
    digits[count] = '\0';
    return digits;
}

static void order_is_fastest_first_or_by_the_bus(void **state) {
    (void)state;
    assert_string_equal(chosen(NULL, false), "201");
    assert_string_equal(chosen(NULL, true), "012");
}

static void visible_numbers_choose_and_order(void **state) {
    (void)state;
    assert_string_equal(chosen("2,0", true), "20");
    assert_string_equal(chosen("0", false), "2");
    assert_string_equal(chosen(" 1 , 2", true), "12");
    assert_string_equal(chosen("1gpu,2", true), "12");
}

static void visible_ends_at_what_names_nothing(void **state) {
    (void)state;
    assert_string_equal(chosen("", true), "");
    assert_string_equal(chosen("-1,0", true), "");
    assert_string_equal(chosen("1,7,0", true), "1");
    assert_string_equal(chosen("1,none,0", true), "1");
    assert_string_equal(chosen("99999999999999999999", true), "");
}

static void visible_ids_may_be_shortened_while_unique(void **state) {
    (void)state;
    assert_string_equal(chosen("GPU-bb33,GPU-aa1", true), "20");
    assert_string_equal(chosen("GPU-aa", true), "");
    assert_string_equal(chosen("GPU-", true), "");
    assert_string_equal(chosen("GPU-bb334", true), "");
}

static void visible_id_without_digits_names_nothing(void **state) {
    static const struct gpu_list one = {.count = 1, .found = {{.id = "GPU-aa11"}}};
    size_t place = 0;
    (void)state;
    assert_int_equal(gpu_choose(&one, "GPU-", 1, &place), 0);
    assert_int_equal(gpu_choose(&one, ",0", 1, &place), 0);
    assert_int_equal(gpu_choose(&one, "GPU-a", 1, &place), 1);
}

static void visible_gpu_named_twice_leaves_none(void **state) {
    (void)state;
    assert_string_equal(chosen("1,1", true), "");
    assert_string_equal(chosen("2,GPU-bb33", true), "");
}

/* ---- NVML --------------------------------------------------------------------------------------
 */

static void one_h200(void) {
    kry_device device = KRY_INIT(kry_device);
    EXPECT(gpu_cuda_device(0, &device) == KRY_OK);
    EXPECT(strcmp(device.platform, "cuda") == 0 && strcmp(device.arch, "sm_90") == 0);
    EXPECT(strcmp(device.name, "NVIDIA H200") == 0);
    EXPECT(device.ordinal == 0 && device.flags == 0 && device.arch_number == 90);
    EXPECT(device.multiprocessors == 132 && device.warp_size == 32);
    EXPECT(device.shared_memory_bytes == 232448 && device.l2_bytes == 50 << 20);
    EXPECT(device.memory_bytes == 150754820096ULL);
    EXPECT(gpu_cuda_device(1, &device) == KRY_E_NOT_FOUND);
    EXPECT(fake_nvml.inits == 1 && fake_nvml.shutdowns == 1);
    EXPECT(fake_cuda.inits == 0);
}

static void environment_is_read_late(void) {
    kry_device device = KRY_INIT(kry_device);
    fake_nvml.count = 3;
    fake_nvml.gpus[1].cores = 128;
    fake_nvml.gpus[1].name = "another";
    EXPECT(gpu_cuda_device(2, &device) == KRY_OK && device.ordinal == 2);
    EXPECT(device.multiprocessors == 1 && device.l2_bytes == 0); /* the slowest comes last */
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1);
    EXPECT(gpu_cuda_device(1, &device) == KRY_OK && device.multiprocessors == 1);
    setenv("CUDA_VISIBLE_DEVICES", "1", 1);
    EXPECT(gpu_cuda_device(0, &device) == KRY_OK && device.multiprocessors == 1);
    EXPECT(device.ordinal == 0);
    EXPECT(gpu_cuda_device(1, &device) == KRY_E_NOT_FOUND);
    EXPECT_WORDS(gpu_error_message(), "1 of 3 GPUs visible, CUDA_VISIBLE_DEVICES is 1");
}

static void no_gpu_loaded(void) {
    kry_device device = KRY_INIT(kry_device);
    fake_nvml.init_error = 9;
    EXPECT(gpu_cuda_device(0, &device) == KRY_E_NOT_FOUND);
    EXPECT_WORDS(gpu_error_message(), "no driver: NVML says 'Driver Not Loaded' (9)");
}

static void no_gpu_counted(void) {
    kry_device device = KRY_INIT(kry_device);
    fake_nvml.count = 0;
    EXPECT(gpu_cuda_device(0, &device) == KRY_E_NOT_FOUND);
    EXPECT_WORDS(gpu_error_message(), "the driver has no GPU");
}

static void gpu_that_may_not_be_used(void) {
    kry_device device = KRY_INIT(kry_device);
    fake_nvml.count = 2;
    fake_nvml.gpus[0].error = 4;
    EXPECT(gpu_cuda_device(0, &device) == KRY_OK && gpu_cuda_device(1, &device) != KRY_OK);
}

static void driver_too_old(void) {
    kry_device device = KRY_INIT(kry_device);
    fake_cuda.version = 11080;
    EXPECT(gpu_cuda_device(0, &device) == KRY_E_NOT_FOUND);
    EXPECT_WORDS(gpu_error_message(), "driver too old: has CUDA 11.8, needs");
}

/* ---- hypothetical ------------------------------------------------------------------------------
 */

static kry_device describe(kry_status (*function)(kry_device *), const char *arch, uint32_t number,
                           kry_status expected) {
    kry_device device = {.struct_size = sizeof device, .ordinal = -1, .arch_number = number};
    snprintf(device.arch, sizeof device.arch, "%s", arch);
    assert_int_equal(function(&device), expected);
    return device;
}

static void hypothetical_cuda_device_has_what_its_architecture_tells(void **state) {
    (void)state;
    kry_device a100 = describe(gpu_cuda_describe, "sm_80", 80, KRY_OK);
    assert_int_equal(a100.multiprocessors, 108);
    assert_int_equal(a100.shared_memory_bytes, 166912);
    assert_int_equal(a100.warp_size, 32);
    assert_int_equal(describe(gpu_cuda_describe, "sm_90a", 90, KRY_OK).multiprocessors, 132);
    assert_int_equal(describe(gpu_cuda_describe, "sm_300", 300, KRY_OK).multiprocessors, 48);
    assert_int_equal(describe(gpu_cuda_describe, "sm_52", 52, KRY_OK).multiprocessors, 0);
    describe(gpu_cuda_describe, "gfx942", 0x942, KRY_E_ARGUMENT);
    assert_non_null(strstr(gpu_error_message(), "'gfx942' is no architecture of CUDA"));
    describe(gpu_cuda_describe, "sm_", 0, KRY_E_ARGUMENT);
}

static void hypothetical_rocm_device_has_what_its_architecture_tells(void **state) {
    (void)state;
    kry_device mi300 = describe(gpu_rocm_describe, "gfx942", 0x942, KRY_OK);
    assert_int_equal(mi300.multiprocessors, 304);
    assert_int_equal(mi300.warp_size, 64);
    assert_int_equal(mi300.shared_memory_bytes, 65536);
    kry_device strix = describe(gpu_rocm_describe, "gfx1151", 0x1151, KRY_OK);
    assert_int_equal(strix.multiprocessors, 40);
    assert_int_equal(strix.warp_size, 32);
    assert_int_equal(describe(gpu_rocm_describe, "gfx1030", 0x1030, KRY_OK).multiprocessors, 0);
    describe(gpu_rocm_describe, "sm_80", 80, KRY_E_ARGUMENT);
}

/* ---- KFD ---------------------------------------------------------------------------------------
 */

static char folder[] = "/tmp/kernelry-kfd-XXXXXX";

static void write_file(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (char *slash = path + sizeof folder; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) != NULL ? 0 : 1;
}

static int remove_folder(void **state) {
    char command[64];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command); /* NOLINT(bugprone-command-processor): a name of our own making */
}

static void kfd_nodes_with_a_gpu_are_listed(void **state) {
    (void)state;
    static struct gpu_list list;
    write_file("0/properties", "cpu_cores_count 64\nsimd_count 0\ngfx_target_version 0\n");
    write_file("1/properties",
               "simd_count 1216\nsimd_per_cu 4\ngfx_target_version 90402\nwave_front_size 64\n"
               "lds_size_in_kb 64\nunique_id 1311768467463790320\nname with words\n");
    write_file("1/mem_banks/0/properties", "heap_type 1\nsize_in_bytes 206141652992\n");
    write_file("1/caches/0/properties", "level 1\nsize 32\n");
    write_file("1/caches/1/properties", "level 2\nsize 4096\n");
    write_file("1/caches/2/properties", "level 3\nsize 262144\n");
    write_file("2/properties", "simd_count 192\nsimd_per_cu 2\ngfx_target_version 110000\n");
    write_file("3/properties", "simd_count 416\nsimd_per_cu 4\ngfx_target_version 90010\n");
    gpu_rocm_list(folder, &list);
    assert_int_equal(list.count, 3);
    const kry_device *mi300 = &list.found[0].device;
    assert_string_equal(mi300->arch, "gfx942");
    assert_string_equal(mi300->platform, "rocm");
    assert_int_equal(mi300->arch_number, 0x942);
    assert_int_equal(mi300->multiprocessors, 304);
    assert_int_equal(mi300->warp_size, 64);
    assert_int_equal(mi300->shared_memory_bytes, 65536);
    assert_true(mi300->memory_bytes == 206141652992);
    assert_int_equal(mi300->l2_bytes, 4 << 20);
    assert_string_equal(list.found[0].id, "GPU-123456789abcdef0");
    assert_string_equal(list.found[1].device.arch, "gfx1100");
    assert_int_equal(list.found[1].device.multiprocessors, 96);
    assert_int_equal(list.found[1].device.warp_size, 32);
    assert_string_equal(list.found[2].device.arch, "gfx90a");
}

static void kfd_that_is_not_there_is_no_driver(void **state) {
    (void)state;
    static struct gpu_list list;
    gpu_rocm_list("/nowhere/nodes", &list);
    assert_int_equal(list.count, 0);
    assert_string_equal(list.reason, "no driver: there is no /nowhere/nodes");
}

#define IN_CHILD(name, function)                                                                   \
    static void name(void **state) {                                                               \
        (void)state;                                                                               \
        assert_true(in_child(function));                                                           \
    }

IN_CHILD(nvml_gpu_is_listed_without_initialising_cuda, one_h200)
IN_CHILD(nvml_list_follows_cudas_variables, environment_is_read_late)
IN_CHILD(nvml_without_driver_tells_so, no_gpu_loaded)
IN_CHILD(nvml_without_gpu_tells_so, no_gpu_counted)
IN_CHILD(nvml_gpu_that_may_not_be_used_is_left_out, gpu_that_may_not_be_used)
IN_CHILD(nvml_gpu_whose_driver_is_too_old_is_not_listed, driver_too_old)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_fastest_first_or_by_the_bus),
        cmocka_unit_test(visible_numbers_choose_and_order),
        cmocka_unit_test(visible_ends_at_what_names_nothing),
        cmocka_unit_test(visible_ids_may_be_shortened_while_unique),
        cmocka_unit_test(visible_id_without_digits_names_nothing),
        cmocka_unit_test(visible_gpu_named_twice_leaves_none),
        cmocka_unit_test(nvml_gpu_is_listed_without_initialising_cuda),
        cmocka_unit_test(nvml_list_follows_cudas_variables),
        cmocka_unit_test(nvml_without_driver_tells_so),
        cmocka_unit_test(nvml_without_gpu_tells_so),
        cmocka_unit_test(nvml_gpu_that_may_not_be_used_is_left_out),
        cmocka_unit_test(nvml_gpu_whose_driver_is_too_old_is_not_listed),
        cmocka_unit_test(hypothetical_cuda_device_has_what_its_architecture_tells),
        cmocka_unit_test(hypothetical_rocm_device_has_what_its_architecture_tells),
        cmocka_unit_test_setup_teardown(kfd_nodes_with_a_gpu_are_listed, make_folder,
                                        remove_folder),
        cmocka_unit_test(kfd_that_is_not_there_is_no_driver),
    };
    unsetenv("CUDA_VISIBLE_DEVICES");
    unsetenv("CUDA_DEVICE_ORDER");
    return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
