/*
 * kernelry verify: whether a plugin keeps its duties.
 */
#include "command.h"
#include "conformance.h"
#include "shapes.h"
#include "table.h"
#include "words.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OPTION_CHECK = OPTION_OWN, OPTION_CASE, OPTION_CASES, OPTION_QUICK, OPTION_SECONDS };

static const struct own_option own[] = {
    {"quick", NULL, "fewer and smaller cases: a second or two for each kernel", OPTION_QUICK},
    {"check", "NAME", "this check alone, as it is named in the report", OPTION_CHECK},
    {"case", "I", "with --check: this case alone, as a failure names it", OPTION_CASE},
    {"cases", "N", "at most so many cases of each check", OPTION_CASES},
    {"seconds", "T", "how long one case may take; default 60", OPTION_SECONDS},
    {NULL, NULL, NULL, 0},
};

enum { SECONDS_DEFAULT = 60, SECONDS_MOST = 24 * 3600 };

/* ---- what is asked for ------------------------------------------------------------------ */

struct request {
    const struct common_options *common;
    const char *path;  /* of the plugin, as given */
    const char *check; /* or NULL */
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
    json_t *kernels; /* NULL: for people */
    /* Skipped checks in a row, for the same reason: told in one line. */
    struct conformance_finding skipping;
    const struct conformance_check *first_skipped;
    size_t skipping_count;
    size_t ok, failed, skipped;
    bool any; /* some check of some kernel was not skipped */
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

/* A registry of that file, and of what the options and the environment add. */
static int open_plugin(struct verification *v) {
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
    options.flags =
        KRY_REGISTRY_NO_DEFAULT_DIR | (common->relax_trust ? KRY_REGISTRY_RELAX_TRUST : 0);
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
static int report_refusal(const struct verification *v) {
    int code = v->plugin.status != KRY_OK ? exit_code_of(v->plugin.status) : EXIT_NO;
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

/* ---- the report ---------------------------------------------------------------------------- */

/* The command that runs the failing case again. */
static void print_command(const struct verification *v, const kry_kernel_info *kernel,
                          const struct conformance_check *check,
                          const struct conformance_finding *finding, FILE *out) {
    const struct common_options *common = v->request.common;
    const char *mask = getenv("KERNELRY_CPU_MASK");
    if (mask != NULL)
        fprintf(out, "KERNELRY_CPU_MASK=%s ", mask);
    fprintf(out, "kernelry verify %s --kernel %s --check %s", v->request.path, kernel->kernel,
            check->name);
    if (finding->case_number >= 0)
        fprintf(out, " --case %" PRId64, finding->case_number);
    fprintf(out, " --seed %" PRIu64, common->seed);
    if (strcmp(common->device, "cpu") != 0)
        fprintf(out, " --device %s", common->device);
    if (common->shapes != NULL)
        fprintf(out, " --shapes %s", common->shapes);
    if (common->shape_name != NULL)
        fprintf(out, " --name %s", common->shape_name);
    if (v->request.quick)
        fputs(" --quick", out);
    if (common->relax_trust)
        fputs(" --relax-trust", out);
    for (size_t i = 0; i < common->plugin_path_count; i++)
        fprintf(out, " --plugin-path %s", common->plugin_paths[i]);
}

static char *format_command(const struct verification *v, const kry_kernel_info *kernel,
                            const struct conformance_check *check,
                            const struct conformance_finding *finding) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return NULL;
    print_command(v, kernel, check, finding, out);
    return fclose(out) == 0 ? text : NULL;
}

static const char *const outcome_words[] = {"ok", "FAILED", "skipped"};

static void print_line(const char *text) {
    fputs("           ", stdout);
    print_styled(stdout, STYLE_PLAIN, "%s", text);
    putchar('\n');
}

static void print_outcome(enum conformance_outcome outcome) {
    static const enum style styles[] = {STYLE_GOOD, STYLE_BAD, STYLE_DIM};
    fputs("  ", stdout);
    print_styled(stdout, styles[outcome], "%-7s", outcome_words[outcome]);
}

/* Print the line of the checks that were skipped so far. */
static void flush_skipped(struct verification *v) {
    if (v->skipping_count == 0)
        return;
    print_outcome(CONFORMANCE_SKIPPED);
    if (v->skipping_count == 1)
        printf("  %s  %-11s  ", v->first_skipped->duty, v->first_skipped->name);
    else
        printf("  %zu checks from %s on: ", v->skipping_count, v->first_skipped->name);
    print_styled(stdout, STYLE_DIM, "%s", v->skipping.message);
    putchar('\n');
    v->skipping_count = 0;
}

static void note_skipped(struct verification *v, const struct conformance_check *check,
                         const struct conformance_finding *finding) {
    if (v->skipping_count > 0 && strcmp(v->skipping.message, finding->message) != 0)
        flush_skipped(v);
    if (v->skipping_count++ == 0) {
        v->skipping = *finding;
        v->first_skipped = check;
    }
}

static void print_finding(struct verification *v, const kry_kernel_info *kernel,
                          const struct conformance_check *check,
                          const struct conformance_finding *finding) {
    bool failed = finding->outcome == CONFORMANCE_FAILED;
    if (finding->outcome == CONFORMANCE_SKIPPED) {
        note_skipped(v, check, finding);
        return;
    }
    flush_skipped(v);
    print_outcome(finding->outcome);
    printf("  %s  %-11s  ", failed ? finding->duty : check->duty, check->name);
    printf("%s; ", check->title);
    if (failed)
        printf("%" PRId64 " of ", finding->failed);
    printf("%" PRId64 " cases", finding->cases);
    if (finding->worst > 0)
        printf(", error at most %.2g of what is allowed", finding->worst);
    putchar('\n');
    if (!failed)
        return;
    char *command = format_command(v, kernel, check, finding);
    print_line(finding->message);
    if (finding->where[0] != '\0')
        print_line(finding->where);
    print_line(command != NULL ? command : "");
    free(command);
}

static json_t *finding_json(const struct verification *v, const kry_kernel_info *kernel,
                            const struct conformance_check *check,
                            const struct conformance_finding *finding) {
    json_t *object = json_object();
    bool failed = finding->outcome == CONFORMANCE_FAILED;
    json_put(object, "check", json_text(check->name));
    json_put(object, "duty", json_text(failed ? finding->duty : check->duty));
    json_put(object, "outcome", json_text(outcome_words[finding->outcome]));
    json_put(object, "cases", json_integer(finding->cases));
    json_put(object, "failed", json_integer(finding->failed));
    json_put(object, "refused", json_integer(finding->refused));
    json_put(object, "blocked", json_integer(finding->blocked));
    json_put(object, "worst", isfinite(finding->worst) ? json_real(finding->worst) : json_null());
    if (finding->message[0] != '\0')
        json_put(object, "message", json_text(finding->message));
    if (failed) {
        char *command = format_command(v, kernel, check, finding);
        json_put(object, "where", json_text(finding->where));
        json_put(object, "command", json_text(command));
        free(command);
    }
    return object;
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
    json_t *findings = v->kernels != NULL ? json_array() : NULL;
    if (v->kernels == NULL) {
        putchar('\n');
        print_styled(stdout, STYLE_BOLD, "%s/%s", kernel->plugin, kernel->kernel);
        print_styled(stdout, STYLE_DIM, "  %s", kernel->summary);
        putchar('\n');
    }
    const struct conformance_check *check;
    for (size_t i = 0; (check = conformance_check_at(i)) != NULL; i++) {
        if (request->check != NULL && strcmp(request->check, check->name) != 0)
            continue;
        struct conformance_finding finding;
        kry_status status = conformance_run(&plan, check, &finding);
        if (status != KRY_OK) {
            json_decref(findings);
            return complain_status(status);
        }
        v->ok += finding.outcome == CONFORMANCE_OK;
        v->failed += finding.outcome == CONFORMANCE_FAILED;
        v->skipped += finding.outcome == CONFORMANCE_SKIPPED;
        v->any = v->any || finding.cases > 0;
        if (v->kernels != NULL)
            json_add(findings, finding_json(v, kernel, check, &finding));
        else
            print_finding(v, kernel, check, &finding);
        fflush(stdout);
    }
    flush_skipped(v);
    if (v->kernels != NULL) {
        json_t *object = json_object();
        json_put(object, "kernel", json_text(kernel->kernel));
        json_put(object, "checks", findings);
        json_add(v->kernels, object);
    }
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
    int code = v->failed > 0 ? EXIT_NO : v->any ? EXIT_YES : EXIT_MACHINE;
    char text[LINEAR_TEXT_BYTES];
    if (v->kernels != NULL) {
        json_t *root = json_object();
        json_put(root, "plugin", json_text(v->plugin.name));
        json_put(root, "path", json_text(v->plugin.path));
        json_put(root, "version", json_text(v->plugin.version));
        json_put(root, "device", device_json(&v->device));
        json_put(root, "seed", json_integer((json_int_t)v->request.common->seed));
        json_put(root, "kernels", v->kernels);
        v->kernels = NULL;
        json_put(root, "passed", json_integer((json_int_t)v->ok));
        json_put(root, "failed", json_integer((json_int_t)v->failed));
        json_put(root, "skipped", json_integer((json_int_t)v->skipped));
        json_put(root, "ok", json_boolean(code == EXIT_YES));
        int printed = json_print(root);
        return printed != EXIT_YES ? printed : code;
    }
    printf("\n%zu ok, %zu failed, %zu skipped on %s; seed %" PRIu64 "\n", v->ok, v->failed,
           v->skipped, device_format(&v->device, text), v->request.common->seed);
    if (code == EXIT_MACHINE)
        complain(code, "nothing could be checked: no kernel takes any description here");
    return code;
}

static int run(struct arguments *arguments) {
    struct verification v = {.device = KRY_INIT(kry_device)};
    int code = read_request(arguments, &v.request);
    if (code != EXIT_YES || v.request.path == NULL)
        return code;
    code = open_plugin(&v);
    if (code == EXIT_YES && v.plugin.state != KRY_PLUGIN_LOADED) {
        code = report_refusal(&v);
        goto out;
    }
    if (code == EXIT_YES)
        code = find_device(v.registry, v.request.common, &v.device);
    if (code == EXIT_YES)
        code = read_shapes(&v);
    if (code == EXIT_YES && v.request.common->json)
        v.kernels = json_array();
    if (code == EXIT_YES)
        code = verify_kernels(&v);
    if (code == EXIT_YES)
        code = print_totals(&v);
out:
    json_decref(v.kernels);
    free(v.shapes);
    shapes_free(&v.file);
    kry_registry_close(&v.registry);
    return code;
}

const struct command command_verify = {
    .name = "verify",
    .summary = "whether a plugin keeps its duties: the conformance suite",
    .usage = "PLUGIN.so [--kernel NAME] [--quick] [--seed N]",
    .details =
        "Checks each kernel of a plugin against the duties of docs/contract.md: right numbers on\n"
        "its smallest shapes, beside multiples, with every type, group and partition that it\n"
        "takes; memory that ends where it was said to end; weights that can be reloaded and\n"
        "moved; the same bits again. What a kernel refuses is not held against it, but a refusal\n"
        "must be complete, and what it accepts must run.\n"
        "\n"
        "Each check runs in a process of its own: a kernel that crashes costs that check alone.\n"
        "A failure names the duty, its first case and the command that repeats it.\n",
    .examples = "kernelry verify ./mine.so\n"
                "kernelry verify ./mine.so --quick --json\n"
                "kernelry verify ./mine.so --shapes shapes.json --seed 7\n"
                "kernelry verify ./mine.so --kernel fast --check one-hot --case 12\n"
                "KERNELRY_CPU_MASK=avx2 kernelry verify ./mine.so\n",
    .own = own,
    .takes = TAKES_REGISTRY | TAKES_DEVICE | TAKES_KERNEL | TAKES_SHAPES | TAKES_SEED,
    .run = run,
};
