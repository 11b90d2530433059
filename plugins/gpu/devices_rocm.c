/*
 * AMD's GPUs through KFD's part of sysfs: a folder for each node of the machine, processors too.
 */
#include "devices.h"
#include "driver.h"
#include "message.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * 1024)

static const char nodes[] = "/sys/class/kfd/kfd/topology/nodes";

/* Compute units and caches from AMD's "accelerator and GPU hardware specifications" (ROCm's
 * documentation); LDS a work-group from the ISA manuals. */
static const struct gpu_chip chips[] = {
    {0x90a, 104, 64, 64 * KIB, 8 * MIB},   /* MI210, half an MI250 */
    {0x942, 304, 64, 64 * KIB, 32 * MIB},  /* MI300X */
    {0x950, 256, 64, 160 * KIB, 32 * MIB}, /* MI355X */
    {0x1100, 96, 32, 64 * KIB, 6 * MIB},   /* RX 7900 XTX */
    {0x1151, 40, 32, 64 * KIB, 2 * MIB},   /* Strix Halo */
    {0x1200, 32, 32, 64 * KIB, 4 * MIB},   /* RX 9060 XT */
    {0x1201, 64, 32, 64 * KIB, 8 * MIB},   /* RX 9070 XT */
};
enum { CHIPS = sizeof chips / sizeof chips[0] };

const struct gpu_chip *gpu_rocm_chip(uint32_t arch_number) {
    const struct gpu_chip *out = NULL;
    for (size_t i = 0; i < CHIPS && chips[i].arch_number <= arch_number; i++)
        if (chips[i].arch_number >> 8 == arch_number >> 8) /* the same major version */
            out = &chips[i];
    return out;
}

kry_status gpu_rocm_describe(kry_device *device) {
    if (strncmp(device->arch, "gfx", 3) != 0 || device->arch_number == 0)
        return gpu_fail(KRY_E_ARGUMENT, "'%.31s' is no architecture of ROCm, such as gfx942",
                        device->arch);
    const struct gpu_chip *chip = gpu_rocm_chip(device->arch_number);
    device->warp_size = device->arch_number >= 0x1000 ? 32 : 64;
    if (chip != NULL) {
        device->multiprocessors = chip->multiprocessors;
        device->shared_memory_bytes = chip->shared_memory_bytes;
        device->l2_bytes = chip->l2_bytes;
    }
    return KRY_OK;
}

/* ---- sysfs -------------------------------------------------------------------------------- */

/* What a node's file `properties` tells: a name and a number a line. */
struct properties {
    uint64_t gfx_version; /* 90402 is gfx942: step and minor are a hexadecimal digit each */
    uint64_t simds, simds_per_unit, wave_size, lds_kib, clock_mhz, unique_id;
};

static FILE *open_at(const char *folder, uint64_t node, const char *file) {
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%" PRIu64 "/%s", folder, node, file) >= sizeof path)
        return NULL;
    return fopen(path, "re");
}

/* Read a file of names and numbers; false when there is none. */
static bool read_numbers(FILE *file, void (*take)(void *to, const char *name, uint64_t value),
                         void *to) {
    char line[256], name[64];
    uint64_t value;
    if (file == NULL)
        return false;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "%63s %" SCNu64, name, &value) == 2)
            take(to, name, value);
    fclose(file);
    return true;
}

static void take_property(void *to, const char *name, uint64_t value) {
    struct properties *p = to;
    const struct {
        const char *name;
        uint64_t *to;
    } wanted[] = {{"gfx_target_version", &p->gfx_version},
                  {"simd_count", &p->simds},
                  {"simd_per_cu", &p->simds_per_unit},
                  {"wave_front_size", &p->wave_size},
                  {"lds_size_in_kb", &p->lds_kib},
                  {"max_engine_clk_fcompute", &p->clock_mhz},
                  {"unique_id", &p->unique_id}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (strcmp(wanted[i].name, name) == 0)
            *wanted[i].to = value;
}

static void take_memory(void *to, const char *name, uint64_t value) {
    uint64_t *bytes = to;
    if (strcmp(name, "size_in_bytes") == 0)
        *bytes += value;
}

/* Caches come one a folder, one for each set of units; the largest of level 2 is taken. */
struct cache {
    uint64_t level, kib;
};

static void take_cache(void *to, const char *name, uint64_t value) {
    struct cache *cache = to;
    if (strcmp(name, "level") == 0)
        cache->level = value;
    else if (strcmp(name, "size") == 0)
        cache->kib = value;
}

static uint64_t read_l2(const char *folder, uint64_t node) {
    uint64_t most = 0;
    for (unsigned i = 0;; i++) {
        char file[64];
        struct cache cache = {0};
        snprintf(file, sizeof file, "caches/%u/properties", i);
        if (!read_numbers(open_at(folder, node, file), take_cache, &cache))
            return most * KIB;
        if (cache.level == 2 && cache.kib > most)
            most = cache.kib;
    }
}

/* False: a processor, or a GPU that this process may not use. */
static bool read_node(const char *folder, uint64_t node, struct gpu_found *out) {
    struct properties p = {.simds_per_unit = 4};
    kry_device *device = &out->device;
    *out = (struct gpu_found){.device = {.struct_size = sizeof *device, .platform = "rocm"}};
    if (!read_numbers(open_at(folder, node, "properties"), take_property, &p) ||
        p.gfx_version < 10000 || p.simds_per_unit == 0)
        return false;
    unsigned major = (unsigned)(p.gfx_version / 10000),
             minor = (unsigned)(p.gfx_version / 100) % 100;
    unsigned step = (unsigned)p.gfx_version % 100;
    snprintf(device->arch, sizeof device->arch, "gfx%u%x%x", major, minor, step);
    device->arch_number = (uint32_t)strtoul(device->arch + 3, NULL, 16);
    gpu_rocm_describe(device);
    snprintf(device->name, sizeof device->name, "AMD %s", device->arch);
    device->multiprocessors = (uint32_t)(p.simds / p.simds_per_unit);
    if (p.wave_size != 0)
        device->warp_size = (uint32_t)p.wave_size;
    if (p.lds_kib != 0)
        device->shared_memory_bytes = (uint32_t)(p.lds_kib * KIB);
    device->l2_bytes = read_l2(folder, node);
    for (unsigned bank = 0;; bank++) {
        char file[64];
        snprintf(file, sizeof file, "mem_banks/%u/properties", bank);
        if (!read_numbers(open_at(folder, node, file), take_memory, &device->memory_bytes))
            break;
    }
    snprintf(out->id, sizeof out->id, "GPU-%016" PRIx64, p.unique_id);
    return true;
}

void gpu_rocm_list(const char *folder, struct gpu_list *out) {
    *out = (struct gpu_list){0};
    DIR *directory = opendir(folder);
    if (directory == NULL) {
        snprintf(out->reason, sizeof out->reason, "no driver: there is no %.200s", folder);
        return;
    }
    closedir(directory);
    /* Nodes are numbered without gaps, in the order in which HIP counts its devices. */
    for (uint64_t node = 0;; node++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%" PRIu64, folder, node);
        directory = opendir(path);
        if (directory == NULL || out->count == GPU_DEVICES_MAX)
            break;
        closedir(directory);
        out->count += read_node(folder, node, &out->found[out->count]);
    }
    if (directory != NULL)
        closedir(directory);
    if (out->count == 0)
        snprintf(out->reason, sizeof out->reason, "the driver has no GPU that may be used here");
}

/* ---- the platform's ------------------------------------------------------------------------- */

static struct gpu_list list; /* written once */

static void read_list(void) { gpu_rocm_list(nodes, &list); }

kry_status gpu_rocm_device(size_t index, kry_device *out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    size_t places[GPU_DEVICES_MAX];
    pthread_once(&once, read_list);
    if (list.count == 0)
        return gpu_fail(KRY_E_NOT_FOUND, "%s", list.reason);
    for (size_t i = 0; i < list.count; i++)
        places[i] = i;
    /* ROCr hides devices from HIP, HIP hides some of what is left; HIP knows CUDA's variable, too.
     * All read as they read them, raised privileges or not: their numbers must be ours. */
    const char *hip = getenv("HIP_VISIBLE_DEVICES");
    if (hip == NULL)
        hip = getenv("CUDA_VISIBLE_DEVICES");
    size_t count = gpu_choose(&list, getenv("ROCR_VISIBLE_DEVICES"), list.count, places);
    count = gpu_choose(&list, hip, count, places);
    if (index >= count)
        return gpu_fail(KRY_E_NOT_FOUND, "%zu of %zu GPUs visible", count, list.count);
    if (gpu_driver_hip.available() != KRY_OK)
        return KRY_E_NOT_FOUND; /* the message tells why */
    *out = list.found[places[index]].device;
    out->ordinal = (int32_t)index;
    return KRY_OK;
}
