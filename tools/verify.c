/*
 * kernelry verify: whether a plugin keeps its duties.
 */
#include "command.h"
#include "conformance.h"
#include "findings.h"
#include "shapes.h"
#include "words.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPTION_CHECK = OPTION_OWN,
    OPTION_CASE,
    OPTION_CASES,
    OPTION_QUICK,
    OPTION_SECONDS,
    OPTION_JUNIT
};

static const struct own_option own[] = {
    {"quick", NULL, "fewer and smaller cases: a second or two for each kernel", OPTION_QUICK},
    {"cases", "N", "at most so many cases of each check, evenly taken", OPTION_CASES},
    {"check", "NAME", "this check alone, as it is named in the report", OPTION_CHECK},
    {"case", "I", "with --check: this case alone, as a failure names it", OPTION_CASE},
    {"seconds", "T", "how long one case may take; default 60", OPTION_SECONDS},
    {"junit", "FILE", "write the report there, too, as JUnit XML", OPTION_JUNIT},
    {NULL, NULL, NULL, 0},
};

enum { SECONDS_DEFAULT = 60, SECONDS_MOST = 24 * 3600 };

/* ---- what is asked for ------------------------------------------------------------------ */

struct request {
    const struct common_options *common;
    const char *path;  /* of the plugin, as given */
    const char *check; /* or NULL */
    const char *junit; /* or NULL */
    int64_t only_case; /* -1: all */
    int64_t most_cases;
    int64_t seconds;
    bool quick;
};

/* What there is to check with. */
struct verification {
    struct request request;
    kry_registry *registry;
    kry_plugin_info plugin;
    kry_device device;
    struct conformance_shape *shapes;
    struct shapes file;
    struct junit junit;
    bool reported; /* there is something to write */
    struct findings findings;
};

static int read_request(struct arguments *arguments, struct request *out) {
    *out =
        (struct request){.common = &arguments->common, .only_case = -1, .seconds = SECONDS_DEFAULT};
    int option;
    while ((option = arguments_next(arguments)) != OPTION_END) {
        bool good = true;
        if (option == OPTION_STOP)
            return arguments->exit_code;
        if (option == OPTION_CHECK)
            out->check = arguments->value;
        else if (option == OPTION_JUNIT)
            out->junit = arguments->value;
        else if (option == OPTION_QUICK)
            out->quick = true;
        else if (option == OPTION_CASE)
            good = arguments_int(arguments, "case", 0, INT32_MAX, &out->only_case);
        else if (option == OPTION_CASES)
            good = arguments_int(arguments, "cases", 1, INT32_MAX, &out->most_cases);
        else
            good = arguments_int(arguments, "seconds", 1, SECONDS_MOST, &out->seconds);
        if (!good)
            return arguments->exit_code;
    }
    if (arguments->operand_count != 1)
        return complain_usage(arguments->command, "expected one plugin, found %zu operands",
                              arguments->operand_count);
    out->path = arguments->operands[0];
    if (out->only_case >= 0 && out->check == NULL)
        return complain_usage(arguments->command, "--case needs --check");
    bool known = out->check == NULL;
    const struct conformance_check *check;
    for (size_t i = 0; (check = conformance_check_at(i)) != NULL; i++)
        known = known || strcmp(check->name, out->check) == 0;
    if (!known)
        return complain_usage(arguments->command, "--check: there is no check '%s'", out->check);
    return EXIT_YES;
}

/* ---- the plugin and its device ------------------------------------------------------------ */

/* A registry of that file, and of what the options and the environment add; with the install's own
 * plugins or without. */
static int open_plugin(struct verification *v, uint32_t flags) {
    const struct common_options *common = v->request.common;
    const char **paths = calloc(common->plugin_path_count + 1, sizeof *paths);
    if (paths == NULL)
        return complain(EXIT_MACHINE, "out of memory");
    paths[0] = v->request.path;
    for (size_t i = 0; i < common->plugin_path_count; i++)
        paths[i + 1] = common->plugin_paths[i];
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.plugin_paths = paths;
    options.plugin_path_count = common->plugin_path_count + 1;
    options.host = &conformance_host;
    options.flags = flags | (common->relax_trust ? KRY_REGISTRY_RELAX_TRUST : 0);
    kry_registry_close(&v->registry);
    kry_status status = kry_registry_open(&options, &v->registry);
    free(paths);
    if (status != KRY_OK)
        return complain_status(status);
    v->plugin = KRY_INIT(kry_plugin_info); /* the first path's */
    status = kry_registry_plugin(v->registry, 0, &v->plugin);
    if (status != KRY_OK || !v->plugin.named_outright)
        return complain(EXIT_INPUT, "%s: expected a plugin's file", v->request.path);
    return EXIT_YES;
}

/* The core's refusal, which quotes the duty where it is about one. */
static int report_refusal(struct verification *v) {
    int code = v->plugin.status != KRY_OK ? exit_code_of(v->plugin.status) : EXIT_NO;
    junit_add_error(&v->junit, v->plugin.name, "loads", v->plugin.reason);
    junit_suite_end(&v->junit, v->plugin.name);
    v->reported = true;
    if (!v->request.common->json)
        return complain(code, "%s: %s", v->plugin.path, v->plugin.reason);
    json_t *root = json_object();
    json_put(root, "plugin", json_text(v->plugin.name));
    json_put(root, "path", json_text(v->plugin.path));
    json_put(root, "error", json_text(v->plugin.reason));
    json_put(root, "ok", json_false());
    int printed = json_print(root);
    return printed != EXIT_YES ? printed : code;
}

/* Whether the plugin has a kernel for a platform. */
static bool serves(const struct verification *v, const char *platform) {
    size_t count = kry_registry_kernel_count(v->registry, platform);
    kry_kernel_info kernel = KRY_INIT(kry_kernel_info);
    for (size_t i = 0; i < count; i++)
        if (kry_registry_kernel(v->registry, platform, i, &kernel) == KRY_OK &&
            strcmp(kernel.plugin, v->plugin.name) == 0)
            return true;
    return false;
}

/* Without --device, where the plugin has nothing for this CPU: a device of its own platform. */
static int find_own_device(struct verification *v) {
    const char *platform = NULL;
    for (uint32_t i = 0; i < v->plugin.platform_count; i++) {
        const char *name = v->plugin.platforms[i].name;
        if (!serves(v, name))
            continue;
        v->device = KRY_INIT(kry_device);
        if (kry_registry_find_device(v->registry, name, &v->device) == KRY_OK)
            return EXIT_YES;
        if (platform == NULL)
            platform = name;
    }
    if (platform == NULL)
        return complain(EXIT_INPUT, "%s brings no kernel: there is nothing to check",
                        v->plugin.name);
    return complain(EXIT_MACHINE,
                    "%s has no kernel for cpu, and there is no device of %s here; with --device "
                    "%s:ARCHITECTURE, what needs no device is checked",
                    v->plugin.name, platform, platform);
}

/* What is not for a CPU may need another plugin's platform: memory, and devices. */
static int choose_device(struct verification *v) {
    const struct common_options *common = v->request.common;
    bool given = strcmp(common->device, "cpu") != 0;
    if (given || !serves(v, "cpu")) {
        int code = open_plugin(v, 0);
        if (code != EXIT_YES)
            return code;
    }
    return given || serves(v, "cpu") ? find_device(v->registry, common, &v->device)
                                     : find_own_device(v);
}

static int read_shapes(struct verification *v) {
    const struct common_options *common = v->request.common;
    if (common->shapes == NULL)
        return EXIT_YES;
    kry_status status = shapes_read(common->shapes, common->shape_name, &v->file);
    if (status != KRY_OK)
        return complain_status(status);
    v->shapes = calloc(v->file.count + 1, sizeof *v->shapes);
    if (v->shapes == NULL)
        return complain(EXIT_MACHINE, "out of memory");
    for (size_t i = 0; i < v->file.count; i++)
        v->shapes[i] = (struct conformance_shape){v->file.items[i].name, v->file.items[i].linear};
    return EXIT_YES;
}

/* ---- running --------------------------------------------------------------------------------- */

static int verify_kernel(struct verification *v, const kry_kernel_info *kernel) {
    const struct request *request = &v->request;
    struct conformance_plan plan = {.registry = v->registry,
                                    .kernel = kernel,
                                    .device = &v->device,
                                    .shapes = v->shapes,
                                    .shape_count = v->file.count,
                                    .seed = request->common->seed,
                                    .only_case = request->only_case,
                                    .most_cases = request->most_cases,
                                    .seconds = (uint32_t)request->seconds,
                                    .quick = request->quick};
    findings_kernel(&v->findings, kernel);
    const struct conformance_check *check;
    for (size_t i = 0; (check = conformance_check_at(i)) != NULL; i++) {
        if (request->check != NULL && strcmp(request->check, check->name) != 0)
            continue;
        struct conformance_finding finding;
        kry_status status = conformance_run(&plan, check, &finding);
        if (status != KRY_OK) {
            json_decref(v->findings.checks);
            return complain_status(status);
        }
        findings_add(&v->findings, kernel, check, &finding);
    }
    findings_kernel_end(&v->findings, kernel);
    return EXIT_YES;
}

/* Whether the kernel is the plugin's and asked for. */
static bool is_asked_for(const struct verification *v, const kry_kernel_info *kernel) {
    const char *name = v->request.common->kernel;
    const char *slash = name != NULL ? strchr(name, '/') : NULL;
    return strcmp(kernel->plugin, v->plugin.name) == 0 &&
           (name == NULL || strcmp(kernel->kernel, slash != NULL ? slash + 1 : name) == 0);
}

static int verify_kernels(struct verification *v) {
    size_t count = kry_registry_kernel_count(v->registry, v->device.platform), found = 0;
    int code = EXIT_YES;
    for (size_t i = 0; i < count && code == EXIT_YES; i++) {
        kry_kernel_info kernel = KRY_INIT(kry_kernel_info);
        kry_status status = kry_registry_kernel(v->registry, v->device.platform, i, &kernel);
        if (status != KRY_OK)
            return complain_status(status);
        if (!is_asked_for(v, &kernel))
            continue;
        found++;
        code = verify_kernel(v, &kernel);
    }
    if (code == EXIT_YES && found == 0)
        return v->request.common->kernel != NULL
                   ? complain(EXIT_USAGE, "%s has no kernel '%s' for platform %s", v->plugin.name,
                              v->request.common->kernel, v->device.platform)
                   : complain(EXIT_INPUT,
                              "%s has no kernel for platform %s; name a device with --device",
                              v->plugin.name, v->device.platform);
    return code;
}

static int print_totals(struct verification *v) {
    struct findings *findings = &v->findings;
    v->reported = true;
    const struct tally *all = &findings->all;
    int code = all->failed > 0 ? EXIT_NO : findings->any ? EXIT_YES : EXIT_MACHINE;
    char text[LINEAR_TEXT_BYTES];
    if (findings->kernels != NULL) {
        json_t *root = json_object();
        json_put(root, "plugin", json_text(v->plugin.name));
        json_put(root, "path", json_text(v->plugin.path));
        json_put(root, "version", json_text(v->plugin.version));
        json_put(root, "device", device_json(&v->device));
        json_put(root, "seed", json_integer((json_int_t)v->request.common->seed));
        json_put(root, "kernels", findings->kernels);
        findings->kernels = NULL;
        json_put(root, "passed", json_integer((json_int_t)all->ok));
        json_put(root, "failed", json_integer((json_int_t)all->failed));
        json_put(root, "skipped", json_integer((json_int_t)all->skipped));
        json_put(root, "seconds", json_real(all->seconds));
        json_put(root, "ok", json_boolean(code == EXIT_YES));
        int printed = json_print(root);
        return printed != EXIT_YES ? printed : code;
    }
    printf("\n%zu ok, %zu failed, %zu skipped in %.1f s on %s; seed %" PRIu64 "\n", all->ok,
           all->failed, all->skipped, all->seconds, device_format(&v->device, text),
           v->request.common->seed);
    if (code == EXIT_MACHINE)
        complain(code, "nothing could be checked: no kernel takes any description here");
    return code;
}

/* What could not be checked leaves no report behind. */
static int end_report(struct verification *v, int code) {
    kry_status status = junit_end(&v->junit, v->reported ? KRY_OK : KRY_E_STATE);
    return status == KRY_OK || !v->reported ? code : complain_status(status);
}

static int run(struct arguments *arguments) {
    struct verification v = {.device = KRY_INIT(kry_device)};
    int code = read_request(arguments, &v.request);
    if (code != EXIT_YES || v.request.path == NULL)
        return code;
    kry_status status = junit_begin(&v.junit, v.request.junit);
    code =
        status == KRY_OK ? open_plugin(&v, KRY_REGISTRY_NO_DEFAULT_DIR) : complain_status(status);
    if (code == EXIT_YES && v.plugin.state != KRY_PLUGIN_LOADED) {
        code = report_refusal(&v);
        goto out;
    }
    if (code == EXIT_YES)
        code = choose_device(&v);
    if (code == EXIT_YES)
        code = read_shapes(&v);
    v.findings = (struct findings){.common = v.request.common,
                                   .path = v.request.path,
                                   .most_cases = v.request.most_cases,
                                   .quick = v.request.quick,
                                   .junit = &v.junit,
                                   .kernels = v.request.common->json ? json_array() : NULL};
    if (code == EXIT_YES)
        code = verify_kernels(&v);
    if (code == EXIT_YES)
        code = print_totals(&v);
out:
    code = end_report(&v, code);
    json_decref(v.findings.kernels);
    free(v.shapes);
    shapes_free(&v.file);
    kry_registry_close(&v.registry);
    return code;
}

const struct command command_verify = {
    .name = "verify",
    .summary = "whether a plugin keeps its duties: the conformance suite",
    .usage = "PLUGIN.so [--quick] [--kernel NAME] [--shapes FILE] [--seed N]\n"
             "PLUGIN.so --check NAME [--case I] [--kernel NAME] [--seed N]",
    .details =
        "Checks each kernel of a plugin against the duties of docs/contract.md: right numbers on\n"
        "its smallest shapes, beside multiples, on random ones and those of real models, with\n"
        "every type, group and partition that it takes; memory that ends where it was said to\n"
        "end; weights that can be reloaded and moved; the same bits again. What a kernel refuses\n"
        "is not held against it, but a refusal must be complete, and what it accepts must run.\n"
        "\n"
        "Each check runs in a process of its own: a kernel that crashes or hangs costs that check\n"
        "alone. A line tells the duty, the check, its cases and its time; a failure adds what was\n"
        "wrong, the first case, and the command that runs that case again. Numbers are drawn by\n"
        "--seed alone, so the same command does the same. Layers of models, built in or given by\n"
        "--shapes, are checked by smaller twins that are as awkward.\n"
        "\n"
        "On a device with memory of its own buffers lie between pages of NaN, and are compared\n"
        "after each call; a read beside them shows when something is made of the NaN. Where no\n"
        "device is here, name one: --device cuda:sm_90. Then kernels are asked (answers, sizes,\n"
        "workspace) and prepare weights in host memory; the checks that were left out are named.\n"
        "KERNELRY_CPU_MASK takes features of the CPU away, to check what a lesser one would run.\n"
        "What the core refuses to load is reported with its reason.\n"
        "\n"
        "With --junit the report is written to a file, too, as CI servers read it: a suite for\n"
        "each kernel, a case for each check, whose failures hold the duty and the command.\n"
        "\n"
        "JSON: {plugin, path, version, device, seed, kernels: [{kernel, checks: [{check, duty,\n"
        "outcome: ok|FAILED|skipped, cases, failed, refused, blocked, worst, seconds, message,\n"
        "where, command}]}], passed, failed, skipped, seconds, ok}.\n"
        "\n"
        "Here the exit status is 0 where no check failed; 1 where one did, or the core refuses\n"
        "the plugin; 3 where the file cannot be read or brings no kernel; 4 where nothing could\n"
        "be checked on this machine.",
    .examples = "kernelry verify ./mine.so\n"
                "kernelry verify ./mine.so --quick --json\n"
                "kernelry verify ./mine.so --junit report.xml\n"
                "kernelry verify ./mine.so --shapes shapes.json --seed 7\n"
                "kernelry verify ./mine.so --kernel fast --check one-hot --case 12\n"
                "kernelry verify ./mine.so --device cuda:0\n"
                "KERNELRY_CPU_MASK=avx2 kernelry verify ./mine.so",
    .own = own,
    .takes = TAKES_REGISTRY | TAKES_DEVICE | TAKES_KERNEL | TAKES_SHAPES | TAKES_SEED,
    .run = run,
};
