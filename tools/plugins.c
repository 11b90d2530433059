/*
 * kernelry plugins: what was found where, and what became of it.
 */
#include "command.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>

enum { OPTION_ALL = OPTION_OWN, OPTION_PROBE, OPTION_MILLISECONDS, PLATFORMS_TEXT = 512 };

static const struct own_option own_options[] = {
    {"all", NULL, "also shadowed plugins and shared objects that are none", OPTION_ALL},
    {"probe", NULL, "load and ask each in a process of its own first", OPTION_PROBE},
    {"milliseconds", "N", "how long a probe may take; default 10000", OPTION_MILLISECONDS},
    {0}};

static const char *state_word(uint32_t state) {
    static const char *const words[] = {
        [KRY_PLUGIN_LOADED] = "loaded",          [KRY_PLUGIN_REFUSED] = "refused",
        [KRY_PLUGIN_SHADOWED] = "shadowed",      [KRY_PLUGIN_DISABLED] = "disabled",
        [KRY_PLUGIN_NOT_A_PLUGIN] = "no plugin",
    };
    return state < sizeof words / sizeof words[0] && words[state] ? words[state] : "?";
}

static enum style state_style(uint32_t state) {
    return state == KRY_PLUGIN_LOADED    ? STYLE_GOOD
           : state == KRY_PLUGIN_REFUSED ? STYLE_BAD
                                         : STYLE_DIM;
}

static bool is_hidden(const kry_plugin_info *plugin, bool all) {
    return !all && !plugin->named_outright &&
           (plugin->state == KRY_PLUGIN_SHADOWED || plugin->state == KRY_PLUGIN_NOT_A_PLUGIN);
}

/* "cuda 300, rocm 100 (fallback)" */
static void format_platforms(const kry_plugin_info *plugin, char out[PLATFORMS_TEXT]) {
    size_t length = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < plugin->platform_count && i < 8 && length < PLATFORMS_TEXT; i++)
        length +=
            (size_t)snprintf(out + length, PLATFORMS_TEXT - length, "%s%s %d%s", i ? ", " : "",
                             plugin->platforms[i].name, plugin->platforms[i].priority,
                             plugin->platforms[i].fallback ? " (fallback)" : "");
}

/* ---- human --------------------------------------------------------------------------- */

static void print_search_path(const kry_registry *registry) {
    const char *place = kry_registry_search_path(registry, 0);
    print_styled(stdout, STYLE_BOLD, "Looked in");
    if (!place)
        fputs(" no folder", stdout);
    putchar('\n');
    for (size_t i = 0; place; place = kry_registry_search_path(registry, ++i)) {
        fputs("  ", stdout);
        print_styled(stdout, STYLE_PLAIN, "%s", place);
        putchar('\n');
    }
}

static void add_row(struct table *table, const kry_plugin_info *plugin) {
    bool note_was_read = plugin->name[0];
    char platforms[PLATFORMS_TEXT];
    format_platforms(plugin, platforms);
    table_add(table, STYLE_BOLD, "%s", note_was_read ? plugin->name : "-");
    table_add(table, STYLE_PLAIN, "%s", note_was_read ? plugin->version : "-");
    if (note_was_read)
        table_add(table, STYLE_PLAIN, "%u.%u", plugin->abi_major, plugin->abi_minor);
    else
        table_add(table, STYLE_PLAIN, "-");
    table_add(table, STYLE_PLAIN, "%s", platforms[0] ? platforms : "-");
    if (plugin->state == KRY_PLUGIN_LOADED)
        table_add(table, STYLE_PLAIN, "%u", plugin->kernel_count);
    else
        table_add(table, STYLE_PLAIN, "-");
    table_add(table, state_style(plugin->state), "%s", state_word(plugin->state));
    table_add(table, STYLE_DIM, "%s", plugin->path);
    if (plugin->reason[0])
        table_note(table, plugin->state == KRY_PLUGIN_REFUSED ? STYLE_WARNING : STYLE_DIM, "%s",
                   plugin->reason);
}

/* The kernels in the order they are asked, a platform a line. */
static void print_order(const kry_registry *registry) {
    char platform[32] = "";
    kry_kernel_info kernel = KRY_INIT(kry_kernel_info);
    size_t count = kry_registry_kernel_count(registry, NULL);
    if (count) {
        putchar('\n');
        print_styled(stdout, STYLE_BOLD, "Kernels, in the order they are asked");
    }
    for (size_t i = 0; i < count && !kry_registry_kernel(registry, NULL, i, &kernel); i++) {
        if (!strcmp(platform, kernel.platform)) {
            fputs(", ", stdout);
        } else {
            snprintf(platform, sizeof platform, "%s", kernel.platform);
            fputs("\n  ", stdout);
            print_styled(stdout, STYLE_DIM, "%s", platform);
            fputs("  ", stdout);
        }
        print_styled(stdout, STYLE_PLAIN, "%s", kernel.kernel);
        if (kernel.fallback)
            print_styled(stdout, STYLE_DIM, " (fallback)");
    }
    if (count)
        putchar('\n');
}

static int print_human(const kry_registry *registry, bool all) {
    static const struct column columns[] = {
        {"NAME", false},   {"VERSION", false}, {"ABI", false}, {"PLATFORMS", false},
        {"KERNELS", true}, {"STATE", false},   {"PATH", false}};
    struct table table;
    size_t shown = 0, hidden = 0;
    kry_plugin_info plugin = KRY_INIT(kry_plugin_info);
    table_begin(&table, columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; !kry_registry_plugin(registry, i, &plugin); i++) {
        if (is_hidden(&plugin, all)) {
            hidden++;
            continue;
        }
        add_row(&table, &plugin);
        shown++;
    }
    print_search_path(registry);
    putchar('\n');
    if (!shown)
        puts("No plugin was found.");
    if (!table_print(&table, stdout, 0))
        return EXIT_MACHINE;
    if (hidden)
        printf("%zu more with --all.\n", hidden);
    print_order(registry);
    return EXIT_YES;
}

/* ---- JSON ---------------------------------------------------------------------------- */

static json_t *plugin_json(const kry_plugin_info *plugin) {
    json_t *object = json_object(), *platforms = json_array();
    for (uint32_t i = 0; i < plugin->platform_count && i < 8; i++) {
        json_t *platform = json_object();
        json_put(platform, "name", json_text(plugin->platforms[i].name));
        json_put(platform, "priority", json_integer(plugin->platforms[i].priority));
        json_put(platform, "fallback", json_boolean(plugin->platforms[i].fallback));
        json_add(platforms, platform);
    }
    char features[512];
    kry_cpu_features_format(plugin->cpu_features, features, sizeof features);
    bool note_was_read = plugin->name[0];
    json_put(object, "path", json_text(plugin->path));
    json_put(object, "name", json_text(note_was_read ? plugin->name : NULL));
    json_put(object, "version", json_text(note_was_read ? plugin->version : NULL));
    json_put(object, "abi",
             note_was_read ? json_sprintf("%u.%u", plugin->abi_major, plugin->abi_minor)
                           : json_null());
    json_put(object, "platforms", platforms);
    json_put(object, "cpu_features", json_text(features));
    json_put(object, "kernels", json_integer(plugin->kernel_count));
    json_put(object, "state", json_text(state_word(plugin->state)));
    json_put(object, "reason", json_text(plugin->reason));
    json_put(object, "named_outright", json_boolean(plugin->named_outright));
    return object;
}

static json_t *kernel_json(const kry_kernel_info *kernel) {
    json_t *object = json_object();
    json_put(object, "platform", json_text(kernel->platform));
    json_put(object, "kernel", json_text(kernel->kernel));
    json_put(object, "plugin", json_text(kernel->plugin));
    json_put(object, "summary", json_text(kernel->summary));
    json_put(object, "priority", json_integer(kernel->priority));
    json_put(object, "fallback", json_boolean(kernel->fallback));
    json_put(object, "deterministic", json_boolean(kernel->flags & KRY_KERNEL_DETERMINISTIC));
    json_put(object, "batch_invariant", json_boolean(kernel->flags & KRY_KERNEL_BATCH_INVARIANT));
    json_put(object, "int8_activations", json_boolean(kernel->flags & KRY_KERNEL_INT8_ACTIVATIONS));
    json_put(object, "layout", json_text(kernel->layout_name));
    json_put(object, "layout_version", json_integer(kernel->layout_version));
    return object;
}

static int print_json(const kry_registry *registry, bool all) {
    json_t *root = json_object(), *places = json_array(), *plugins = json_array(),
           *kernels = json_array();
    const char *place;
    for (size_t i = 0; (place = kry_registry_search_path(registry, i)); i++)
        json_add(places, json_text(place));
    kry_plugin_info plugin = KRY_INIT(kry_plugin_info);
    for (size_t i = 0; !kry_registry_plugin(registry, i, &plugin); i++)
        if (!is_hidden(&plugin, all))
            json_add(plugins, plugin_json(&plugin));
    kry_kernel_info kernel = KRY_INIT(kry_kernel_info);
    for (size_t i = 0; !kry_registry_kernel(registry, NULL, i, &kernel); i++)
        json_add(kernels, kernel_json(&kernel));
    json_put(root, "search_path", places);
    json_put(root, "plugins", plugins);
    json_put(root, "kernels", kernels);
    return json_print(root);
}

/* ---- the command --------------------------------------------------------------------- */

static bool an_outright_one_is_refused(const kry_registry *registry) {
    kry_plugin_info plugin = KRY_INIT(kry_plugin_info);
    for (size_t i = 0; !kry_registry_plugin(registry, i, &plugin); i++)
        if (plugin.named_outright && plugin.state == KRY_PLUGIN_REFUSED)
            return true;
    return false;
}

/* Returns OPTION_END, or OPTION_STOP when the subcommand ends here. */
static int read_options(struct arguments *arguments, bool *all) {
    struct common_options *common = &arguments->common;
    int64_t milliseconds = 0;
    int option;
    while ((option = arguments_next(arguments)) != OPTION_END) {
        if (option == OPTION_STOP)
            return OPTION_STOP;
        if (option == OPTION_ALL)
            *all = true;
        else if (option == OPTION_PROBE)
            common->probe = true;
        else if (!arguments_int(arguments, "milliseconds", 1, 3600000, &milliseconds))
            return OPTION_STOP;
    }
    common->probe_milliseconds = (uint32_t)milliseconds;
    if (arguments->operand_count)
        arguments->exit_code =
            complain_usage(arguments->command, "unexpected argument '%s'", arguments->operands[0]);
    else if (milliseconds && !common->probe)
        arguments->exit_code =
            complain_usage(arguments->command, "--milliseconds goes with --probe");
    else
        return OPTION_END;
    return OPTION_STOP;
}

static int run(struct arguments *arguments) {
    bool all = false;
    if (read_options(arguments, &all) == OPTION_STOP)
        return arguments->exit_code;
    kry_registry *registry;
    int code = open_registry(&arguments->common, &registry);
    if (code)
        return code;
    code = arguments->common.json ? print_json(registry, all) : print_human(registry, all);
    if (!code && an_outright_one_is_refused(registry))
        code = EXIT_NO;
    kry_registry_close(&registry);
    return code;
}

const struct command command_plugins = {
    .name = "plugins",
    .summary = "list the plugins: where they were found, what they serve, why one is refused",
    .usage = "[--all] [--probe [--milliseconds N]] [--plugin-path PATH]...",
    .details =
        "Lists every plugin with its ABI, the platforms it serves (with the priority there),\n"
        "how many kernels it brings, and its state; a refused one with the reason. Looked in are\n"
        "the places given here, then those in KERNELRY_PLUGIN_PATH, then the install's own\n"
        "folder (or KERNELRY_PLUGIN_DIR instead of it).\n"
        "\n"
        "With --probe each plugin is first loaded, its entry called and its kernels asked, in a\n"
        "process of its own with a time limit. One that crashes or hangs there is refused, with\n"
        "the signal and the step it was at, and does not run in this process.\n"
        "\n"
        "The exit status is 0 unless a file that was named outright is refused or is not there.\n"
        "\n"
        "JSON: {search_path, plugins: [{path, name, version, abi, platforms: [{name, priority,\n"
        "fallback}], cpu_features, kernels, state (loaded, refused, shadowed, disabled, no\n"
        "plugin), reason, named_outright}], kernels: [{platform, kernel, plugin, summary,\n"
        "priority, fallback, deterministic, batch_invariant, int8_activations, layout,\n"
        "layout_version}]}, kernels in the order they are asked.",
    .examples = "kernelry plugins\n"
                "kernelry plugins --plugin-path ./libmine.so\n"
                "kernelry plugins --plugin-path ./libmine.so --probe --milliseconds 2000\n"
                "KERNELRY_PREFER=mine kernelry plugins --json",
    .own = own_options,
    .takes = TAKES_REGISTRY,
    .run = run,
};
