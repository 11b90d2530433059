/*
 * load_one FLAGS [PATH...]: open a registry (KRY_REGISTRY_* as a number) and tell what became of
 * each file. Tests copy this program, which has the library inside, to places of other owners and
 * run it with other rights.
 */
#include <kernelry/kernelry.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

int main(int count, char **arguments) {
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.flags = count > 1 ? (uint32_t)atoi(arguments[1]) : 0;
    options.plugin_paths = count > 2 ? (const char *const *)(arguments + 2) : NULL;
    options.plugin_path_count = count > 2 ? (size_t)count - 2 : 0;
    kry_registry *registry = NULL;
    kry_status status = kry_registry_open(&options, &registry);
    printf("secure %lu, open %d %s\n", getauxval(AT_SECURE), status,
           status != KRY_OK ? kry_error_message() : "");
    kry_plugin_info info = KRY_INIT(kry_plugin_info);
    for (size_t i = 0; kry_registry_plugin(registry, i, &info) == KRY_OK; i++)
        printf("%s: state %u, status %d %s\n", info.path, info.state, info.status, info.reason);
    kry_registry_close(&registry);
    fflush(stdout);
    _exit(EXIT_SUCCESS); /* a leak checker may not look into a process with raised privileges */
}
