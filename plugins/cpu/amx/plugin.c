/*
 * The AMX plugin: tiles of bf16 or int8, on the prepared layout of the other tuned kernels.
 *
 * Linux lets a process use tiles once it has asked, as every thread's signal frame grows by the 8
 * KiB of their state: open_device asks, and fails with the system's reason.
 */
#define TILED_OPEN_DEVICE open_device
#include "../tiled/plugin.h"
#include "kernels.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEEDED_BF16 (KRY_CPU_AVX512 | KRY_CPU_AMX_BF16)
#define NEEDED_INT8 (KRY_CPU_AVX512 | KRY_CPU_AVX512_VNNI | KRY_CPU_AMX_INT8)

static _Thread_local char message[192];

static const char *error_message(void) { return message; }

/* The kernel's Documentation/arch/x86/xstate.rst; glibc names neither number. */
static kry_status open_device(const kry_device *device, const kry_host *host, void **state) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    (void)device, (void)host;
    *state = NULL;
    message[0] = '\0';
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0)
        return KRY_OK;
    snprintf(message, sizeof message,
             "the system does not let this process use AMX tiles (arch_prctl: %s); disable cpu_amx "
             "to run other kernels",
             strerror(errno));
    return KRY_E_DEVICE;
}

static int64_t amx_bf16_can_implement(const kry_device *device, const kry_linear *linear,
                                      kry_refusal *refusal) {
    return tiled_typed_can_implement(device, linear, NEEDED_BF16, KRY_TYPE_BF16, refusal);
}

static int64_t amx_bf16x2_can_implement(const kry_device *device, const kry_linear *linear,
                                        kry_refusal *refusal) {
    return tiled_typed_can_implement(device, linear, NEEDED_BF16, KRY_TYPE_F16, refusal);
}

static int64_t amx_int8_can_implement(const kry_device *device, const kry_linear *linear,
                                      kry_refusal *refusal) {
    return tiled_int8_can_implement(device, linear, NEEDED_INT8, refusal);
}

TILED_KERNEL(amx_int8, KRY_KERNEL_INT8_ACTIVATIONS, "int8 activations a token, tiles, any shape");
TILED_KERNEL(amx_bf16, 0, "bf16 activations in tiles of bf16, any shape");
TILED_KERNEL(amx_bf16x2, 0, "f16 activations as exact pairs of bf16, in tiles, any shape");

static const kry_kernel *const kernels[] = {&amx_int8_kernel, &amx_bf16_kernel, &amx_bf16x2_kernel};

static const kry_plugin plugin = {.struct_size = sizeof(kry_plugin),
                                  .name = "cpu_amx",
                                  .kernels = kernels,
                                  .kernel_count = sizeof kernels / sizeof kernels[0],
                                  .error_message = error_message};

KRY_PLUGIN(cpu_amx, KERNELRY_VERSION, &plugin, KRY_CPU_AVX512 | KRY_CPU_AMX_INT8 | KRY_CPU_AMX_BF16,
           KRY_PLATFORM("cpu", 400));
