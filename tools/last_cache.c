/*
 * The last cache, from sysfs: sysconf multiplies it by processors that a virtual machine does not
 * have (glibc 2.36 on Zen 4: 320 MiB for 32).
 */
#include "last_cache.h"

#include <stdio.h>
#include <unistd.h>

enum { CACHES_MOST = 16 };

/** Read a file of one number with an optional K or M, as sysfs writes sizes; 0 if that is not it.
 */
static uint64_t number_in(const char *folder, int index, const char *name) {
    char path[256];
    int length = snprintf(path, sizeof path, "%s/index%d/%s", folder, index, name);
    FILE *file = length > 0 && (size_t)length < sizeof path ? fopen(path, "r") : NULL;
    unsigned long number = 0;
    char unit = '\n';
    if (file == NULL)
        return 0;
    if (fscanf(file, "%9lu%c", &number, &unit) < 1)
        number = 0;
    fclose(file);
    return (uint64_t)number << (unit == 'K' ? 10 : unit == 'M' ? 20 : 0);
}

uint64_t last_cache_bytes(const char *folder) {
    const char *at = folder != NULL ? folder : "/sys/devices/system/cpu/cpu0/cache";
    uint64_t last_level = 0, bytes = 0;
    for (int i = 0; i < CACHES_MOST; i++) {
        uint64_t level = number_in(at, i, "level"), size = number_in(at, i, "size");
        if (level > last_level && size > 0)
            last_level = level, bytes = size;
    }
    if (bytes > 0 || folder != NULL)
        return bytes;
    long told = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return told > 0 ? (uint64_t)told : 0;
}
