/* What the processor under the tests has; asked directly, as no core is involved. */
#ifndef KERNELRY_TEST_CPU_HERE_H
#define KERNELRY_TEST_CPU_HERE_H

#include <kernelry/types.h>

#if defined(__aarch64__)
#include <sys/auxv.h>

static inline uint64_t cpu_features_here(void) {
    uint64_t features = KRY_CPU_NEON;
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
        features |= KRY_CPU_NEON_DOTPROD;
    if (getauxval(AT_HWCAP2) & HWCAP2_I8MM)
        features |= KRY_CPU_NEON_I8MM;
    if (getauxval(AT_HWCAP2) & HWCAP2_BF16)
        features |= KRY_CPU_NEON_BF16;
    return features;
}
#else
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* AMX, where the system would let a process use tiles. */
static inline uint64_t amx_here(void) {
    enum { ARCH_GET_XCOMP_SUPP = 0x1021, TILEDATA = 18 };
    uint64_t states = 0, features = 0;
    uint32_t a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) ||
        syscall(SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, &states) != 0 || !(states >> TILEDATA & 1))
        return 0;
    features |= d >> 22 & 1 ? KRY_CPU_AMX_BF16 : 0;
    features |= d >> 25 & 1 ? KRY_CPU_AMX_INT8 : 0;
    return features;
}

static inline uint64_t cpu_features_here(void) {
    uint64_t features = 0;
    uint32_t a = 0, b = 0, c = 0, d = 0;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
    __get_cpuid(1, &a, &b, &c, &d);
    if (c >> 29 & 1) /* F16C */
        features |= KRY_CPU_AVX2;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1)
        features |= KRY_CPU_AVX_VNNI;
    if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512cd"))
        return features;
    features |= KRY_CPU_AVX512;
    if (__builtin_cpu_supports("avx512vnni"))
        features |= KRY_CPU_AVX512_VNNI;
    if (__builtin_cpu_supports("avx512bf16"))
        features |= KRY_CPU_AVX512_BF16;
    return features | amx_here();
}
#endif

#endif
