/*
 * Devices: this CPU and its features, and devices by name. Devices of other platforms are
 * listed and described by the platform's plugin; here no GPU runtime is known.
 */
#include "core.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

static const struct {
    const char *name;
    uint64_t bit;
    uint64_t needs; /* without these it cannot be used */
} features[] = {
    {"avx2", KRY_CPU_AVX2, 0},
    {"avx512", KRY_CPU_AVX512, KRY_CPU_AVX2},
    {"avx512_vnni", KRY_CPU_AVX512_VNNI, KRY_CPU_AVX512},
    {"avx512_bf16", KRY_CPU_AVX512_BF16, KRY_CPU_AVX512},
    {"avx512_fp16", KRY_CPU_AVX512_FP16, KRY_CPU_AVX512},
    {"avx512_vbmi", KRY_CPU_AVX512_VBMI, KRY_CPU_AVX512},
    {"avx_vnni", KRY_CPU_AVX_VNNI, KRY_CPU_AVX2},
    {"amx_int8", KRY_CPU_AMX_INT8, KRY_CPU_AVX512},
    {"amx_bf16", KRY_CPU_AMX_BF16, KRY_CPU_AVX512},
    {"neon", KRY_CPU_NEON, 0},
    {"neon_fp16", KRY_CPU_NEON_FP16, KRY_CPU_NEON},
    {"neon_dotprod", KRY_CPU_NEON_DOTPROD, KRY_CPU_NEON},
    {"neon_i8mm", KRY_CPU_NEON_I8MM, KRY_CPU_NEON},
    {"neon_bf16", KRY_CPU_NEON_BF16, KRY_CPU_NEON},
    {"sve", KRY_CPU_SVE, KRY_CPU_NEON},
};
enum { FEATURES = sizeof features / sizeof features[0] };

#if defined(__x86_64__)
static const char ARCH[] = "x86_64";

/* Which register states the system saves: XCR0 (Intel SDM, volume 1, chapter 13). */
static uint64_t saved_states(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Whether the system lets processes use AMX tiles at all, which each must ask for (the kernel's
 * Documentation/arch/x86/xstate.rst). That is left to the kernel that needs them: it makes every
 * signal frame larger. */
static bool tiles_known(void) {
    enum { ARCH_GET_XCOMP_SUPP = 0x1021, XFEATURE_XTILEDATA = 18 };
    uint64_t known = 0;
    return syscall(SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, &known) == 0 &&
           (known >> XFEATURE_XTILEDATA & 1) != 0;
}

static bool has(uint32_t word, int bit) { return (word >> bit & 1) != 0; }

/* Bits as in Intel's SDM, volume 2, CPUID leaves 1 and 7. */
uint64_t core_cpu_features(void) {
    enum { YMM = 0x6, ZMM = 0xe6, TILES = 0x60000 };
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, 27))
        return 0;
    uint64_t states = saved_states();
    bool fma = has(c, 12), f16c = has(c, 29), avx = has(c, 28);
    uint32_t a7, b7, c7, d7, a71 = 0;
    if (!__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7))
        return 0;
    if (a7 >= 1)
        __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    uint64_t out = 0;
    if ((states & YMM) == YMM && avx && fma && f16c && has(b7, 5))
        out |= KRY_CPU_AVX2;
    if (has(a71, 4))
        out |= KRY_CPU_AVX_VNNI;
    if ((states & ZMM) == ZMM && has(b7, 16) && has(b7, 17) && has(b7, 28) && has(b7, 30) &&
        has(b7, 31))
        out |= KRY_CPU_AVX512;
    if (has(c7, 1))
        out |= KRY_CPU_AVX512_VBMI;
    if (has(c7, 11))
        out |= KRY_CPU_AVX512_VNNI;
    if (has(d7, 23))
        out |= KRY_CPU_AVX512_FP16;
    if (has(a71, 5))
        out |= KRY_CPU_AVX512_BF16;
    if ((states & TILES) == TILES && has(d7, 24) && tiles_known()) {
        out |= has(d7, 25) ? KRY_CPU_AMX_INT8 : 0;
        out |= has(d7, 22) ? KRY_CPU_AMX_BF16 : 0;
    }
    return core_cpu_features_close(out);
}

static void cpu_name(char *out, size_t size) {
    uint32_t words[12] = {0};
    for (uint32_t i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002 + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2],
                         &words[4 * i + 3]))
            return;
    char brand[sizeof words + 1] = "";
    memcpy(brand, words, sizeof words);
    snprintf(out, size, "%s", brand + strspn(brand, " "));
}
#elif defined(__aarch64__)
static const char ARCH[] = "aarch64";

uint64_t core_cpu_features(void) {
    unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    uint64_t out = 0;
    out |= first & HWCAP_ASIMD ? KRY_CPU_NEON : 0;
    out |= first & HWCAP_ASIMDHP ? KRY_CPU_NEON_FP16 : 0;
    out |= first & HWCAP_ASIMDDP ? KRY_CPU_NEON_DOTPROD : 0;
    out |= first & HWCAP_SVE ? KRY_CPU_SVE : 0;
    out |= second & HWCAP2_I8MM ? KRY_CPU_NEON_I8MM : 0;
    out |= second & HWCAP2_BF16 ? KRY_CPU_NEON_BF16 : 0;
    return core_cpu_features_close(out);
}

static void cpu_name(char *out, size_t size) { snprintf(out, size, "%s", ""); }
#endif

uint64_t core_cpu_features_close(uint64_t mask) {
    /* The table lists a feature after what it needs, so one pass is enough. */
    for (size_t i = 0; i < FEATURES; i++)
        if ((mask & features[i].needs) != features[i].needs)
            mask &= ~features[i].bit;
    return mask;
}

kry_status core_cpu_features_parse(const char *text, uint64_t *out) {
    uint64_t mask = 0;
    const char *word = text;
    while (strcmp(text, "none") != 0) {
        size_t length = strcspn(word, ",");
        size_t i = 0;
        while (i < FEATURES &&
               (strlen(features[i].name) != length || strncmp(features[i].name, word, length) != 0))
            i++;
        if (i == FEATURES)
            return kry_error_set(KRY_E_ARGUMENT,
                                 "'%.*s' is no CPU feature, expected names such as avx2,avx512 "
                                 "or none",
                                 (int)length, word);
        mask |= features[i].bit;
        if (word[length] == '\0')
            break;
        word += length + 1;
    }
    *out = mask;
    return KRY_OK;
}

size_t kry_cpu_features_format(uint64_t mask, char *out, size_t size) {
    size_t length = 0;
    if (size > 0)
        out[0] = '\0';
    for (size_t i = 0; i < FEATURES; i++)
        if (mask & features[i].bit)
            length += (size_t)snprintf(length < size ? out + length : NULL,
                                       length < size ? size - length : 0, "%s%s",
                                       length > 0 ? "," : "", features[i].name);
    if (length == 0)
        length = (size_t)snprintf(out, size, "none");
    return length;
}

void core_cpu_describe(uint64_t mask, kry_device *out) {
    *out = (kry_device){.struct_size = sizeof *out, .platform = "cpu", .cpu_features = mask};
    snprintf(out->arch, sizeof out->arch, "%s", ARCH);
    cpu_name(out->name, sizeof out->name);
    cpu_set_t allowed;
    int threads = 1;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        threads = CPU_COUNT(&allowed);
    else if (sysconf(_SC_NPROCESSORS_ONLN) > 0)
        threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    out->multiprocessors = threads > 0 ? (uint32_t)threads : 1;
    out->warp_size = 1;
    long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE), pages = sysconf(_SC_PHYS_PAGES);
    out->l2_bytes = l2 > 0 ? (uint64_t)l2 : 0;
    out->memory_bytes = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

/* 90 for sm_90, sm_90a; 0x942 for gfx942, whose digits are hexadecimal. */
static uint32_t arch_number(const char *arch) {
    if (strncmp(arch, "sm_", 3) == 0)
        return (uint32_t)strtoul(arch + 3, NULL, 10);
    if (strncmp(arch, "gfx", 3) == 0)
        return (uint32_t)strtoul(arch + 3, NULL, 16);
    return 0;
}

static kry_status hypothetical(const kry_registry *registry, const char *name, const char *platform,
                               const char *arch, kry_device *out) {
    const kry_platform *operations = core_registry_platform(registry, platform);
    if (strcmp(platform, "cpu") == 0) {
        uint64_t mask;
        kry_status status = core_cpu_features_parse(arch, &mask);
        if (status != KRY_OK)
            return status;
        core_cpu_describe(core_cpu_features_close(mask), out);
        out->name[0] = '\0';
    } else {
        if (strlen(arch) >= sizeof out->arch)
            return kry_error_set(KRY_E_ARGUMENT,
                                 "device '%.64s': the architecture is longer "
                                 "than %zu characters",
                                 name, sizeof out->arch - 1);
        *out = (kry_device){.struct_size = sizeof *out};
        snprintf(out->platform, sizeof out->platform, "%s", platform);
        snprintf(out->arch, sizeof out->arch, "%s", arch);
        out->arch_number = arch_number(arch);
    }
    out->ordinal = -1;
    out->flags = KRY_DEVICE_HYPOTHETICAL;
    if (operations != NULL && operations->describe_device != NULL) {
        kry_status status = operations->describe_device(out);
        const char *sentence = core_platform_sentence(registry, operations);
        if (status != KRY_OK)
            return kry_error_set(status,
                                 "device '%.64s': the platform's plugin cannot describe "
                                 "it (%s%s%s)",
                                 name, kry_status_string(status), sentence[0] != '\0' ? ": " : "",
                                 sentence);
    }
    return KRY_OK;
}

/* Devices that a platform's plugin lists; the CPU is the core's own to list. */
static kry_status platform_device(const kry_registry *registry, const char *platform, size_t index,
                                  kry_device *out) {
    const kry_platform *operations = core_registry_platform(registry, platform);
    if (operations == NULL || operations->device == NULL)
        return KRY_E_NOT_FOUND;
    kry_device device = {.struct_size = sizeof device};
    kry_status status = operations->device(index, &device);
    if (status == KRY_OK) {
        device.name[sizeof device.name - 1] = '\0';
        core_clean(device.name);
        *out = device;
    }
    return status;
}

/* Calls visit for each platform's name, once, CPU left out; until it returns true. */
static bool each_platform(const kry_registry *registry,
                          bool (*visit)(void *argument, const char *platform), void *argument) {
    for (size_t i = 0; i < registry->plugin_count; i++) {
        const struct plugin *plugin = &registry->plugins[i];
        if (plugin->state != KRY_PLUGIN_LOADED)
            continue;
        for (uint64_t k = 0; k < plugin->table->platform_count; k++) {
            const kry_platform *offered = plugin->table->platforms[k];
            if (strcmp(offered->name, "cpu") != 0 &&
                core_registry_platform(registry, offered->name) == offered &&
                visit(argument, offered->name))
                return true;
        }
    }
    return false;
}

struct device_search {
    const kry_registry *registry;
    size_t index; /* still to be passed over */
    size_t count;
    kry_device *out;
};

static bool visit_devices(void *argument, const char *platform) {
    struct device_search *search = argument;
    kry_device device;
    for (size_t i = 0; platform_device(search->registry, platform, i, &device) == KRY_OK; i++) {
        search->count++;
        if (search->out != NULL && search->index-- == 0) {
            *search->out = device;
            return true;
        }
    }
    return false;
}

size_t kry_registry_device_count(const kry_registry *registry) {
    if (registry == NULL)
        return 0;
    struct device_search search = {.registry = registry, .count = 1};
    each_platform(registry, visit_devices, &search);
    return search.count;
}

kry_status kry_registry_device(const kry_registry *registry, size_t index, kry_device *out) {
    if (registry == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_registry_device: registry is NULL");
    kry_device device;
    core_cpu_describe(registry->cpu_features, &device);
    struct device_search search = {.registry = registry, .index = index - 1, .out = &device};
    if (index > 0 && !each_platform(registry, visit_devices, &search))
        return kry_error_set(KRY_E_NOT_FOUND, "no device %zu: there are %zu", index,
                             kry_registry_device_count(registry));
    return COPY_OUT(out, &device, kry_device);
}

static kry_status find_here(const kry_registry *registry, const char *name, const char *platform,
                            size_t ordinal, kry_device *out) {
    if (strcmp(platform, "cpu") == 0 && ordinal == 0) {
        core_cpu_describe(registry->cpu_features, out);
        return KRY_OK;
    }
    size_t kernels;
    core_registry_kernels(registry, platform, &kernels);
    if (kernels == 0 && core_registry_platform(registry, platform) == NULL)
        return kry_error_set(KRY_E_NOT_FOUND, "device '%.64s': no plugin serves platform '%s'",
                             name, platform);
    kry_status status = platform_device(registry, platform, ordinal, out);
    if (status == KRY_OK)
        return KRY_OK;
    const kry_platform *operations = core_registry_platform(registry, platform);
    bool asked = operations != NULL && operations->device != NULL;
    const char *sentence = asked ? core_platform_sentence(registry, operations) : "";
    bool told = sentence[0] != '\0';
    return kry_error_set(status,
                         "device '%.64s' is not here%s%s%s; name an architecture, as in "
                         "%s:%s, for one that is not",
                         name, told ? " (" : "", sentence, told ? ")" : "", platform,
                         strcmp(platform, "rocm") == 0 ? "gfx942" : "sm_80");
}

kry_status kry_registry_find_device(const kry_registry *registry, const char *name,
                                    kry_device *out) {
    if (registry == NULL || name == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_registry_find_device: found NULL");
    char platform[sizeof out->platform];
    size_t length = strcspn(name, ":");
    const char *rest = name[length] == ':' ? name + length + 1 : NULL;
    if (length == 0 || length >= sizeof platform || (rest != NULL && rest[0] == '\0'))
        return kry_error_set(KRY_E_ARGUMENT,
                             "device '%.64s': expected PLATFORM, PLATFORM:ORDINAL or "
                             "PLATFORM:ARCHITECTURE",
                             name);
    memcpy(platform, name, length);
    platform[length] = '\0';
    kry_device device;
    kry_status status;
    char *end = NULL;
    errno = 0;
    unsigned long ordinal = rest != NULL ? strtoul(rest, &end, 10) : 0;
    if (rest == NULL || (rest[0] >= '0' && rest[0] <= '9' && *end == '\0' && errno == 0))
        status = find_here(registry, name, platform, ordinal, &device);
    else
        status = hypothetical(registry, name, platform, rest, &device);
    return status == KRY_OK ? COPY_OUT(out, &device, kry_device) : status;
}
