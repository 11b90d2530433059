/*
 * The embedded device code, and its entries on a device that is here.
 */
#ifndef KERNELRY_GPU_CODE_H
#define KERNELRY_GPU_CODE_H

#include "driver.h"
#include "plan.h"

/** Where code for an architecture runs besides there. */
enum gpu_code_reach {
    GPU_CODE_MINOR, /* machine code: on CUDA, on those of the same major version that are later */
    GPU_CODE_LATER, /* PTX: on every later one, being compiled there */
    GPU_CODE_EXACT  /* nowhere: it uses what no other is promised to have (sm_90a) */
};

/** A compiled device source, embedded in the plugin. */
struct gpu_code_object {
    const char *platform; /* NULL ends the list */
    uint32_t arch_number;
    enum gpu_code_reach reach;
    const void *code;
};

/** What the build embedded: code_objects.c, which CMake writes. */
extern const struct gpu_code_object gpu_code_objects[];

/** The object for an architecture, the closest one first; NULL: none. */
const struct gpu_code_object *gpu_code_object_of(const char *platform, uint32_t arch_number);

/** The least architecture of a platform that has an object; 0: nothing is embedded for it. */
uint32_t gpu_code_least_arch(const char *platform);

/** Device code loaded on a device, with all its entries. */
struct gpu_code;

/**
 * Load the code for a device that is entered, or find it loaded. It stays for the rest of the
 * process: platform operations, which have no device state, use the same.
 */
kry_status gpu_code_open(const kry_device *device, const struct gpu_code **out);

/** Whether an entry is there. */
bool gpu_code_has(const struct gpu_code *code, const char *entry);

/** gpu_facts_of, of the code that this build has for the device: without code for sm_90a alone, an
 *  sm_90 runs what sm_80 does. */
struct gpu_facts gpu_code_device_facts(const kry_device *device);

/** Add to a device's facts what its driver counts: the clusters that run at a time. */
void gpu_code_facts(const struct gpu_code *code, struct gpu_facts *facts);

/** Enqueue launch->entry with the struct that it takes. KRY_E_PLUGIN: there is no such entry. */
kry_status gpu_code_launch(const struct gpu_code *code, const struct gpu_launch *launch,
                           void *parameters, void *stream);

#endif
