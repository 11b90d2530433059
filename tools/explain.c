/*
 * kernelry explain: the kernels that were asked for a layer, in order, with their answers.
 */
#include "layer_options.h"
#include "model.h"
#include "report.h"
#include "shapes.h"
#include "words.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { OPTION_LAYER = OPTION_OWN, OPTION_TP, OPTION_RANK };

static const struct own_option own_options[] = {
    LAYER_OPTIONS,
    LAYER_OPTIONS_MORE,
    {"layer", "NAME", "of MODEL: a stored or fused layer, numbers may be *", OPTION_LAYER},
    {"tp", "RANKS", "split it as tensor-parallel stacks do", OPTION_TP},
    {"rank", "RANK", "that partition alone; default: all that differ", OPTION_RANK},
    {0}};

/* What is asked. */
struct request {
    kry_linear linear; /* from options */
    bool described;    /* an option describes a layer */
    const char *layer;
    int64_t ranks;
    int64_t rank; /* -1: all */
};

/* ---- where layers come from ---------------------------------------------------------- */

static int explain_options(struct report *report, const struct request *request) {
    kry_linear linear = KRY_INIT(kry_linear);
    kry_status status = kry_linear_complete(&request->linear, &linear);
    return status ? complain_status(status) : report_layer(report, "layer", "", &linear);
}

static int explain_shapes(struct report *report, const struct request *request) {
    struct shapes shapes;
    kry_status status = shapes_read(report->common->shapes, report->common->shape_name, &shapes);
    if (status)
        return complain_status(status);
    int code = EXIT_YES;
    for (size_t i = 0; i < shapes.count && !code; i++) {
        struct shape *shape = &shapes.items[i];
        shape->linear.allowed |= request->linear.allowed;
        code = report_layer(report, shape->name, shape->why, &shape->linear);
    }
    shapes_free(&shapes);
    return code;
}

/* Whether an earlier rank's partition, from `begin` on, differs in nothing but its place. */
static bool is_repeated(const struct unit *unit, int64_t ranks, int64_t begin, int64_t rank,
                        const kry_linear *linear) {
    kry_linear earlier;
    for (int64_t r = begin; r < rank; r++)
        if (!unit_partition(unit, ranks, r, &earlier) && same_but_place(&earlier, linear))
            return true;
    return false;
}

static int explain_ranks(struct report *report, const struct request *request,
                         const struct unit *unit) {
    int code = EXIT_YES;
    int64_t begin = request->rank < 0 ? 0 : request->rank;
    int64_t end = request->rank < 0 ? request->ranks : request->rank + 1;
    for (int64_t rank = begin; rank < end && !code; rank++) {
        kry_linear linear;
        if (unit_partition(unit, request->ranks, rank, &linear))
            return complain(EXIT_NO, "%s: %s", unit->name, kry_error_message());
        if (is_repeated(unit, request->ranks, begin, rank, &linear))
            continue;
        char name[512];
        if (request->ranks > 1)
            snprintf(name, sizeof name, "%.400s, rank %" PRId64 " of %" PRId64, unit->name, rank,
                     request->ranks);
        else
            snprintf(name, sizeof name, "%.400s", unit->name);
        code = report_layer(report, name, "", &linear);
    }
    return code;
}

static const struct unit *find_unit(const struct units *units, const char *name) {
    const struct unit *found = NULL;
    for (size_t i = 0; i < units->count && !found; i++) {
        char *pattern =
            strcmp(units->items[i].name, name) ? name_pattern(units->items[i].name) : NULL;
        if (!strcmp(units->items[i].name, name) || (pattern && !strcmp(pattern, name)))
            found = &units->items[i];
        free(pattern);
    }
    return found;
}

static int explain_layer(struct report *report, const struct request *request,
                         const kry_checkpoint *checkpoint) {
    struct units stored = {0}, fused = {0};
    size_t index;
    int code = EXIT_YES;
    kry_status status = model_units(checkpoint, request->linear.allowed, &stored);
    if (!status)
        status = units_fuse(&stored, &fused);
    const struct unit *unit = NULL;
    if (!status) {
        unit = find_unit(&stored, request->layer);
        if (!unit)
            unit = find_unit(&fused, request->layer);
        if (!unit) /* it words the error, with near misses */
            status = kry_checkpoint_find_layer(checkpoint, request->layer, &index);
    }
    if (status)
        code = complain_status(status);
    else if (unit && unit->status)
        code = complain(EXIT_NO, "%s: %s", unit->name, unit->reason);
    else if (unit)
        code = explain_ranks(report, request, unit);
    units_free(&stored);
    units_free(&fused);
    return code;
}

static int explain_model(struct report *report, const struct request *request, const char *path) {
    kry_checkpoint *checkpoint;
    int code = open_model(path, &checkpoint);
    if (code)
        return code;
    code = explain_layer(report, request, checkpoint);
    kry_checkpoint_close(&checkpoint);
    return code;
}

/* ---- the command --------------------------------------------------------------------- */

/* Store an option of the subcommand. Returns false after a complaint. */
static bool take(struct arguments *arguments, int option, struct request *request) {
    request->described = request->described || option_describes_layer(option);
    if (is_layer_option(option))
        return layer_option_read(arguments, option, &request->linear);
    if (option == OPTION_TP)
        return arguments_int(arguments, "tp", 1, RANKS_MOST, &request->ranks);
    if (option == OPTION_RANK)
        return arguments_int(arguments, "rank", 0, RANKS_MOST - 1, &request->rank);
    request->layer = arguments->value;
    return true;
}

/* A layer comes from exactly one place, and options of the others are not ignored. */
static int check_request(const struct arguments *arguments, const struct request *request) {
    const struct command *command = arguments->command;
    bool model = arguments->operand_count, shapes = arguments->common.shapes;
    if (arguments->operand_count > 1)
        return complain_usage(command, "unexpected argument '%s'", arguments->operands[1]);
    if (model + shapes + request->described > 1)
        return complain_usage(command, "a layer comes from MODEL, from --shapes or from options "
                                       "such as --in-features: choose one");
    if (model + shapes + request->described == 0)
        return complain_usage(command, "no layer is given");
    if (model && !request->layer)
        return complain_usage(command, "--layer NAME is missing; 'kernelry check %s' lists them",
                              arguments->operands[0]);
    if (!model && (request->layer || request->ranks > 1 || request->rank >= 0))
        return complain_usage(command, "--layer, --tp and --rank go with MODEL");
    if (request->rank >= request->ranks)
        return complain_usage(command, "--rank %" PRId64 " is not below --tp %" PRId64,
                              request->rank, request->ranks);
    if (!shapes && arguments->common.shape_name)
        return complain_usage(command, "--name goes with --shapes");
    if (request->described && !request->linear.in_features)
        return complain_usage(command, "--in-features is missing");
    if (request->described && !request->linear.out_features)
        return complain_usage(command, "--out-features is missing");
    return EXIT_YES;
}

static int answer(struct arguments *arguments, const struct request *request,
                  struct report *report) {
    if (arguments->common.shapes)
        return explain_shapes(report, request);
    if (arguments->operand_count)
        return explain_model(report, request, arguments->operands[0]);
    return explain_options(report, request);
}

static int report_all(struct arguments *arguments, const struct request *request,
                      kry_registry *registry) {
    kry_device device;
    int code = find_device(registry, &arguments->common, &device);
    if (!code)
        code = require_platform(registry, &device, arguments->common.json);
    if (code)
        return code;
    mute_log(true); /* a fallback that wins is shown below */
    struct report report = {
        .common = &arguments->common, .registry = registry, .device = &device, .all_run = true};
    if (arguments->common.json)
        report.layers = json_array();
    code = answer(arguments, request, &report);
    if (!code && arguments->common.json) {
        json_t *root = json_object();
        json_put(root, "device", device_json(&device));
        json_put(root, "layers", report.layers);
        json_put(root, "ok", json_boolean(report.all_run));
        code = json_print(root);
    } else {
        json_decref(report.layers);
    }
    return code || report.all_run ? code : EXIT_NO;
}

static int run(struct arguments *arguments) {
    struct request request = {.linear = layer_options_begin(), .ranks = 1, .rank = -1};
    int option;
    while ((option = arguments_next(arguments)) != OPTION_END)
        if (option == OPTION_STOP || !take(arguments, option, &request))
            return arguments->exit_code;
    int code = check_request(arguments, &request);
    if (code)
        return code;
    kry_registry *registry;
    code = open_registry(&arguments->common, &registry);
    if (code)
        return code;
    code = report_all(arguments, &request, registry);
    kry_registry_close(&registry);
    return code;
}

const struct command command_explain = {
    .name = "explain",
    .summary = "show which kernel runs a layer, and why each other one does not",
    .usage = "MODEL --layer NAME [--tp RANKS [--rank RANK]]\n"
             "--shapes FILE [--name NAME]\n"
             "--in-features K --out-features N [--group-size G] [--weight-type TYPE]...",
    .details =
        "Asks every kernel of the device's platform, in order, and shows each answer: what was\n"
        "found, what is needed, and why. The layer comes from a checkpoint, from a file of\n"
        "shapes, or from options. Of a checkpoint a layer is named as it is stored or as stacks\n"
        "fuse it (qkv_proj, gate_up_proj), as 'kernelry check' lists it: * for a number takes\n"
        "the first such layer. With --tp, the partitions that differ are shown one by one.\n"
        "\n"
        "A yes covers every m; with --m, the memory that a stack has to bring is told: prepared\n"
        "weights, and the workspace of applies of so many rows.\n"
        "\n"
        "The exit status is 1 when a layer has no kernel.\n"
        "\n"
        "JSON: {device, layers: [{name, linear, outcome (fast, slow, none), kernel, plugin,\n"
        "fallback, padding_bytes, rewrite, rewrite_bytes, decided_group_size, needs: "
        "{prepared_bytes,\n"
        "workspaces: [{m, scratch_bytes, zeroed_bytes}]} (with --m), candidates:\n"
        "[{kernel, plugin, priority, fallback, verdict (chosen, accepts, refuses),\n"
        "padding_bytes, refusal: {code, found, needed, reason}, rewritten_refusal}]}], ok}.",
    .examples = "kernelry explain --in-features 2112 --out-features 2816 --group-size 32\n"
                "kernelry explain ./model --layer model.layers.0.mlp.down_proj --tp 2\n"
                "kernelry explain ./model --layer 'model.layers.*.self_attn.qkv_proj'\n"
                "kernelry explain --shapes shapes.json --name gemma4-26b.down_proj --json",
    .own = own_options,
    .takes = TAKES_REGISTRY | TAKES_DEVICE | TAKES_KERNEL | TAKES_SHAPES | TAKES_M,
    .run = run,
};
