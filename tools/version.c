/*
 * kernelry version: the release, the ABI, and where the library and its plugins are.
 */
#include "command.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* The file that holds the core's code: the library, or the command linked with it. To be
 * freed; NULL when it cannot be told. */
static char *library_path(void) {
    Dl_info where;
    const char *(*function)(void) = kry_version;
    void *address; /* ISO C has no cast from a function to an object; POSIX has both alike */
    memcpy(&address, &function, sizeof address);
    return dladdr(address, &where) && where.dli_fname ? realpath(where.dli_fname, NULL) : NULL;
}

/* The install's own folder is the last place that is looked in. */
static const char *plugin_folder(const kry_registry *registry) {
    const char *last = NULL, *place;
    for (size_t i = 0; (place = kry_registry_search_path(registry, i)); i++)
        last = place;
    return last;
}

static int print_version(const struct arguments *arguments, const kry_registry *registry) {
    char *library = library_path();
    uint32_t major = kry_abi_version() >> 16, minor = kry_abi_version() & 0xffff;
    const char *folder = plugin_folder(registry);
    int code = EXIT_YES;
    if (arguments->common.json) {
        json_t *root = json_object();
        json_put(root, "version", json_text(kry_version()));
        json_put(root, "abi", json_sprintf("%u.%u", major, minor));
        json_put(root, "abi_major", json_integer(major));
        json_put(root, "abi_minor", json_integer(minor));
        json_put(root, "library", json_text(library));
        json_put(root, "plugin_folder", json_text(folder));
        code = json_print(root);
    } else {
        printf("kernelry %s\n", kry_version());
        printf("ABI      %u.%u\n", major, minor);
        printf("library  %s\n", library ? library : "unknown");
        printf("plugins  %s\n", folder ? folder : "none");
    }
    free(library);
    return code;
}

static int run(struct arguments *arguments) {
    if (arguments_next(arguments) == OPTION_STOP)
        return arguments->exit_code;
    if (arguments->operand_count)
        return complain_usage(arguments->command, "unexpected argument '%s'",
                              arguments->operands[0]);
    kry_registry *registry;
    int code = open_registry(&arguments->common, &registry);
    if (code)
        return code;
    code = print_version(arguments, registry);
    kry_registry_close(&registry);
    return code;
}

const struct command command_version = {
    .name = "version",
    .summary = "print the release, the ABI, and where the library and its plugins are",
    .usage = "[--json]",
    .details = "Prints the release, the version of the plugin ABI (apart from the release), the\n"
               "library's file, and the folder that holds the install's own plugins.\n"
               "\n"
               "JSON: {version, abi, abi_major, abi_minor, library, plugin_folder}.",
    .examples = "kernelry version\n"
                "kernelry version --json",
    .run = run,
};
