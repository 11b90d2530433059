/* Load a plugin as the core would, less its checks. */
#ifndef KERNELRY_TEST_PLUGIN_UNDER_TEST_H
#define KERNELRY_TEST_PLUGIN_UNDER_TEST_H

#include <kernelry/plugin.h>

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline const kry_plugin *plugin_under_test(const char *path, const char *entry) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = handle != NULL ? dlsym(handle, entry) : NULL;
    if (symbol == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        abort();
    }
    kry_plugin_entry function;
    memcpy(&function, &symbol, sizeof(function)); /* ISO C has no cast from object to function */
    return function();
}

/* Let the kernels load what they need, as the core does for a layer; false where one cannot. */
static inline bool open_kernels(const kry_plugin *plugin) {
    static const kry_host none = {.struct_size = sizeof none};
    kry_device device = KRY_INIT(kry_device);
    strcpy(device.platform, "cpu");
    for (uint64_t i = 0; i < plugin->kernel_count; i++) {
        void *state = NULL; /* no kernel that is tested so has one */
        const kry_linear_kernel *kernel = plugin->kernels[i]->linear;
        if (kernel->open_device != NULL && kernel->open_device(&device, &none, &state) != KRY_OK)
            return false;
    }
    return true;
}

#endif
