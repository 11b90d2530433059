/*
 * kernelry devices: what is here to run on.
 */
#include "command.h"
#include "table.h"
#include "words.h"

#include <string.h>

static const char *known(const char *text) { return text[0] ? text : "-"; }

static void add_bytes(struct table *table, uint64_t bytes) {
    char text[SIZE_TEXT_BYTES];
    table_add(table, STYLE_PLAIN, "%s", bytes ? size_format(bytes, text) : "-");
}

static void add_row(struct table *table, const kry_registry *registry, const kry_device *device) {
    char features[512];
    kry_cpu_features_format(device->cpu_features, features, sizeof features);
    if (device->ordinal > 0)
        table_add(table, STYLE_BOLD, "%s:%d", device->platform, device->ordinal);
    else
        table_add(table, STYLE_BOLD, "%s", device->platform);
    table_add(table, STYLE_PLAIN, "%s", known(device->arch));
    table_add(table, STYLE_PLAIN, "%s", known(device->name));
    table_add(table, STYLE_PLAIN, "%u", device->multiprocessors);
    add_bytes(table, device->l2_bytes);
    add_bytes(table, device->memory_bytes);
    size_t kernels = kry_registry_kernel_count(registry, device->platform);
    table_add(table, kernels ? STYLE_GOOD : STYLE_WARNING, "%zu", kernels);
    if (device->cpu_features)
        table_note(table, STYLE_DIM, "%s", features);
}

/* ---- platforms without a device ------------------------------------------------------ */

static bool has_device(const kry_registry *registry, const char *platform) {
    kry_device device = KRY_INIT(kry_device);
    for (size_t i = 0; kry_registry_device(registry, i, &device) == KRY_OK; i++)
        if (strcmp(device.platform, platform) == 0)
            return true;
    return false;
}

/** Kernels come platform by platform: the next platform, from *kernel on, that no device is here
 *  for, and in kry_error_message() why. NULL: there is no further one. */
static const char *next_absent(const kry_registry *registry, size_t *kernel) {
    kry_kernel_info info = KRY_INIT(kry_kernel_info), before = KRY_INIT(kry_kernel_info);
    kry_device device = KRY_INIT(kry_device);
    for (; kry_registry_kernel(registry, NULL, *kernel, &info) == KRY_OK; ++*kernel) {
        bool first = *kernel == 0 ||
                     kry_registry_kernel(registry, NULL, *kernel - 1, &before) != KRY_OK ||
                     strcmp(before.platform, info.platform) != 0;
        if (first && !has_device(registry, info.platform) &&
            kry_registry_find_device(registry, info.platform, &device) != KRY_OK) {
            ++*kernel;
            return info.platform;
        }
    }
    return NULL;
}

static int print_human(const kry_registry *registry) {
    static const struct column columns[] = {{"DEVICE", false}, {"ARCH", false}, {"NAME", false},
                                            {"UNITS", true},   {"L2", true},    {"MEMORY", true},
                                            {"KERNELS", true}};
    struct table table;
    table_begin(&table, columns, sizeof columns / sizeof columns[0]);
    kry_device device = KRY_INIT(kry_device);
    for (size_t i = 0; !kry_registry_device(registry, i, &device); i++)
        add_row(&table, registry, &device);
    if (!table_print(&table, stdout, 0))
        return EXIT_MACHINE;
    puts("\nUNITS are multiprocessors; on a CPU the hardware threads that this process may use.");
    size_t kernel = 0;
    while (next_absent(registry, &kernel) != NULL)
        puts(kry_error_message());
    return EXIT_YES;
}

static int print_json(const kry_registry *registry) {
    json_t *root = json_object(), *devices = json_array();
    kry_device device = KRY_INIT(kry_device);
    for (size_t i = 0; !kry_registry_device(registry, i, &device); i++) {
        json_t *object = device_json(&device);
        json_put(object, "kernels",
                 json_integer((json_int_t)kry_registry_kernel_count(registry, device.platform)));
        json_add(devices, object);
    }
    json_put(root, "devices", devices);
    json_t *absent = json_array();
    const char *platform;
    size_t kernel = 0;
    while ((platform = next_absent(registry, &kernel)) != NULL) {
        json_t *object = json_object();
        json_put(object, "platform", json_text(platform));
        json_put(object, "reason", json_text(kry_error_message()));
        json_add(absent, object);
    }
    json_put(root, "absent", absent);
    return json_print(root);
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
    code = arguments->common.json ? print_json(registry) : print_human(registry);
    kry_registry_close(&registry);
    return code;
}

const struct command command_devices = {
    .name = "devices",
    .summary = "list the devices that are here, with what a kernel may ask of them",
    .usage = "[--plugin-path PATH]...",
    .details = "Lists this CPU and what each platform's plugin finds, with the number of kernels\n"
               "that serve it, and tells of a platform that has kernels why no device of it is\n"
               "here. No GPU runtime is initialised. Devices that are not here can be\n"
               "named all the same where nothing is run: cuda:sm_80, rocm:gfx942, cpu:avx2.\n"
               "\n"
               "JSON: {devices: [{platform, ordinal, arch, name, hypothetical, multiprocessors,\n"
               "warp_size, shared_memory_bytes, l2_bytes, memory_bytes, cpu_features, kernels}],\n"
               "absent: [{platform, reason}]}.",
    .examples = "kernelry devices\n"
                "kernelry devices --json",
    .takes = TAKES_REGISTRY,
    .run = run,
};
