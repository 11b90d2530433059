/*
 * The registry and device of subcommands that apply layers.
 */
#include "applying.h"

#include <string.h>

/** Complain when --kernel names none of the platform's. */
static int require_kernel(const kry_registry *registry, const kry_device *device,
                          const char *name) {
    size_t count = kry_registry_kernel_count(registry, device->platform);
    for (size_t i = 0; i < count; i++) {
        kry_kernel_info info = KRY_INIT(kry_kernel_info);
        if (kry_registry_kernel(registry, device->platform, i, &info) != KRY_OK)
            break;
        size_t plugin = strlen(info.plugin);
        if (strcmp(name, info.kernel) == 0 ||
            (strncmp(name, info.plugin, plugin) == 0 && name[plugin] == '/' &&
             strcmp(name + plugin + 1, info.kernel) == 0))
            return EXIT_YES;
    }
    return complain(EXIT_USAGE, "platform \"%s\" has no kernel \"%s\"", device->platform, name);
}

int open_applying_registry(const struct common_options *common, kry_registry **registry,
                           kry_device *device) {
    int code = open_registry(common, registry);
    if (code == EXIT_YES)
        code = find_device(*registry, common, device);
    if (code == EXIT_YES)
        code = require_platform(*registry, device, common->json);
    if (code == EXIT_YES && common->kernel != NULL)
        code = require_kernel(*registry, device, common->kernel);
    if (code != EXIT_YES)
        return code;
    if ((device->flags & KRY_DEVICE_HYPOTHETICAL) == 0)
        return EXIT_YES;
    return complain(EXIT_MACHINE,
                    "--device %s: layers can be applied on a device of this machine alone; "
                    "'kernelry check' answers for others",
                    common->device);
}
