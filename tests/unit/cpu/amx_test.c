/*
 * What the AMX plugin does where the system does not let a process use tiles, and that it leaves
 * no tiles behind.
 */
#include "cpu_here.h"
#include "plugin_under_test.h"
#include "problem.h"

#include <kernelry/kernelry.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cmocka.h>

enum { SKIPPED = 77, ARCH_GET_XCOMP_SUPP = 0x1021, ARCH_REQ_XCOMP_PERM = 0x1023 };

/* Let this process ask for nothing more by arch_prctl's `code`. */
static int forbid(uint32_t code) {
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, code, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1 /* EPERM */),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog filter = {sizeof steps / sizeof steps[0], steps};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

/* The registry with this plugin alone, and what it says of the device. */
static kry_registry *open_registry(kry_device *device) {
    static const char *const path = CPU_AMX_PLUGIN;
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.plugin_paths = &path;
    options.plugin_path_count = 1;
    options.flags = KRY_REGISTRY_NO_DEFAULT_DIR | KRY_REGISTRY_NO_ENVIRONMENT;
    kry_registry *registry = NULL;
    *device = KRY_INIT(kry_device);
    if (kry_registry_open(&options, &registry) != KRY_OK ||
        kry_registry_find_device(registry, "cpu", device) != KRY_OK)
        kry_registry_close(&registry);
    return registry;
}

/* Where tiles are known but may not be had: a layer says why it cannot be made. */
static int layer_without_permission(void) {
    kry_device device;
    kry_layer *layer = NULL;
    kry_linear linear = KRY_INIT(kry_linear);
    linear.in_features = linear.full_in_features = 64;
    linear.out_features = linear.full_out_features = 64;
    linear.group_size = 32;
    linear.weight_type = KRY_WEIGHT_U4B8;
    linear.scale_type = linear.x_type = linear.y_type = KRY_TYPE_BF16;
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    if (forbid(ARCH_REQ_XCOMP_PERM))
        return SKIPPED;
    kry_registry *registry = open_registry(&device);
    if (registry == NULL)
        return 2;
    if (kry_layer_create(registry, &args, &layer) != KRY_E_DEVICE)
        return 3;
    return strstr(kry_error_message(), "does not let this process use AMX tiles") != NULL ? 0 : 4;
}

/* Where the system knows no tiles: the processor has none, as far as the core is concerned. */
static int features_without_tiles(void) {
    kry_device device;
    if (forbid(ARCH_GET_XCOMP_SUPP))
        return SKIPPED;
    if (open_registry(&device) == NULL)
        return 2;
    return device.cpu_features & (KRY_CPU_AMX_INT8 | KRY_CPU_AMX_BF16) ? 3 : 0;
}

/* A filter cannot be taken off again. */
static void assert_in_a_child(int run(void)) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(run());
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == SKIPPED)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void layer_without_permission_to_use_tiles_tells_so(void **state) {
    (void)state;
    assert_in_a_child(layer_without_permission);
}

static void system_that_knows_no_tiles_hides_them(void **state) {
    (void)state;
    assert_in_a_child(features_without_tiles);
}

/* sttilecfg; all zero where no tiles are configured. */
static void store_configuration(unsigned char *out) {
    __asm__ volatile(".byte 0xc4, 0xe2, 0x79, 0x49, 0x00" : : "a"(out) : "memory");
}

static void apply_leaves_no_tiles_configured(void **state) {
    (void)state;
    const kry_plugin *plugin = plugin_under_test(CPU_AMX_PLUGIN, "kry_plugin_cpu_amx");
    assert_true(open_kernels(plugin));
    for (uint64_t i = 0; i < plugin->kernel_count; i++) {
        struct problem problem;
        struct problem_options options = {.m = 9, .linear = linear_of(70, 50)};
        options.cpu_features = UINT64_MAX;
        options.linear.allowed = KRY_ALLOW_INT8_ACTIVATIONS;
        bool f16 = strcmp(plugin->kernels[i]->name, "amx_bf16x2") == 0;
        options.linear.x_type = f16 ? KRY_TYPE_F16 : KRY_TYPE_BF16;
        problem_create(&problem, plugin->kernels[i]->linear, &options);
        problem_run(&problem, plugin->kernels[i]->linear);
        unsigned char configuration[64], none[64] = {0};
        store_configuration(configuration);
        assert_memory_equal(configuration, none, sizeof none);
        problem_destroy(&problem);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layer_without_permission_to_use_tiles_tells_so),
        cmocka_unit_test(system_that_knows_no_tiles_hides_them),
        cmocka_unit_test(apply_leaves_no_tiles_configured),
    };
    if ((cpu_features_here() & KRY_CPU_AMX_BF16) == 0)
        return SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
