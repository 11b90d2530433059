/* What the drivers' tables share. */
#include "driver.h"

#include <dlfcn.h>
#include <string.h>

const struct gpu_driver *gpu_driver_of(const kry_device *device) {
    return strcmp(device->platform, "cuda") == 0 ? &gpu_driver_cuda : &gpu_driver_hip;
}

const char *gpu_symbols_read(void *library, const struct gpu_symbol *symbols, size_t count,
                             void *table) {
    for (size_t i = 0; i < count; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (symbol == NULL)
            return symbols[i].name;
        /* ISO C has no conversion from object to function pointers; POSIX promises this one. */
        memcpy((char *)table + symbols[i].offset, &symbol, sizeof symbol);
    }
    return NULL;
}
