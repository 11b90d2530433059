#include "cpu_registry.h"

#include <stddef.h>

kry_registry *registry;
kry_device cpu;

int open_registry(void **state) {
    (void)state;
    static const char *const paths[] = {CPU_PLUGINS};
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.plugin_paths = paths;
    options.plugin_path_count = 1;
    options.flags = KRY_REGISTRY_NO_DEFAULT_DIR | KRY_REGISTRY_NO_ENVIRONMENT;
    cpu = KRY_INIT(kry_device);
    return kry_registry_open(&options, &registry) != KRY_OK ||
           kry_registry_find_device(registry, "cpu", &cpu) != KRY_OK;
}

int close_registry(void **state) {
    (void)state;
    kry_registry_close(&registry);
    return 0;
}
