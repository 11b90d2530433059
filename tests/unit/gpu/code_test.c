/* Which code a device gets from a build that has none for it alone. */
#include "code.h"
#include "in_child.h"

#include "fake_cuda.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

const struct gpu_code_object gpu_code_objects[] = {{"cuda", 80, GPU_CODE_LATER, "PTX"},
                                                   {"cuda", 100, GPU_CODE_MINOR, "sm_100"},
                                                   {NULL, 0, GPU_CODE_MINOR, NULL}};

static const kry_device h100 = {.struct_size = sizeof(kry_device),
                                .platform = "cuda",
                                .arch = "sm_90",
                                .arch_number = 90,
                                .multiprocessors = 132,
                                .warp_size = 32,
                                .shared_memory_bytes = 232448};

/* The driver of ours gives whatever entry it is asked for: what is asked for counts. */
static void code_of_an_older_architecture(void) {
    const struct gpu_driver *driver = gpu_driver_of(&h100);
    const struct gpu_code *code;
    struct gpu_scope scope;
    EXPECT(gpu_facts_of(&h100).family == GPU_FAMILY_WGMMA);
    EXPECT(gpu_code_device_facts(&h100).family == GPU_FAMILY_MMA);
    EXPECT(driver->enter(&h100, &scope) == KRY_OK);
    EXPECT(gpu_code_open(&h100, &code) == KRY_OK);
    EXPECT(gpu_code_has(code, "gpu_tile_u4_f16_128x32g1"));
    EXPECT(!gpu_code_has(code, "gpu_wide_u4_f16_8"));
    driver->leave(&scope);
}

static void sm_90_without_code_of_its_own_is_asked_for_entries_of_sm_80(void **state) {
    (void)state;
    assert_true(in_child(code_of_an_older_architecture));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sm_90_without_code_of_its_own_is_asked_for_entries_of_sm_80),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
