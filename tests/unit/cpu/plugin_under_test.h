/* Load a plugin as the core would, less its checks. */
#ifndef KERNELRY_TEST_PLUGIN_UNDER_TEST_H
#define KERNELRY_TEST_PLUGIN_UNDER_TEST_H

#include <kernelry/plugin.h>

#include <dlfcn.h>
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

#endif
