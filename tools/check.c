/*
 * kernelry check: which kernel will run each layer of a model, before anything is loaded.
 */
#include "check_print.h"
#include "command.h"
#include "model.h"
#include "shapes.h"
#include "table.h"
#include "words.h"

#include <inttypes.h>

enum { OPTION_TP = OPTION_OWN, OPTION_STRICT, OPTION_ALLOW };

static const struct own_option own_options[] = {
    {"tp", "RANKS", "split layers as tensor-parallel stacks do", OPTION_TP},
    {"strict", NULL, "a slow path is a no, too", OPTION_STRICT},
    {"allow", "WHAT", "int8: x may be quantized inside though the model does not ask",
     OPTION_ALLOW},
    {0}};

enum { SECTIONS_MOST = 2 };

struct request {
    const struct arguments *arguments;
    int64_t ranks;
    uint32_t allowed;
    bool strict;
};

/* What has been found out. */
struct checked {
    struct section sections[SECTIONS_MOST];
    size_t section_count;
    size_t layers; /* as stored */
};

/* ---- surveys ------------------------------------------------------------------------- */

static kry_status add_section(struct checked *checked, const struct question *question,
                              const struct units *units, const char *key, const char *title) {
    struct section *section = &checked->sections[checked->section_count];
    kry_status status = survey_create(question, units, &section->survey);
    if (status)
        return status;
    section->key = key;
    section->title = title;
    checked->section_count++;
    return KRY_OK;
}

static int complain_survey(kry_status status) {
    /* Only --kernel names something that a survey could miss. */
    return status == KRY_E_NOT_FOUND ? complain(EXIT_USAGE, "%s", kry_error_message())
                                     : complain_status(status);
}

static kry_status check_units(const struct question *question, const struct units *stored,
                              struct checked *checked) {
    struct units fused = {0};
    kry_status status = units_fuse(stored, &fused);
    if (!status)
        status = add_section(checked, question, stored, "stored", "As stored");
    if (!status)
        status = add_section(checked, question, &fused, "fused", "As serving stacks fuse them");
    units_free(&fused);
    return status;
}

static kry_status survey_layers(const struct request *request, struct question *question,
                                const struct units *stored, struct checked *checked) {
    checked->layers = stored->count;
    if (!request->arguments->common.shapes)
        return check_units(question, stored, checked);
    question->whole_names = true;
    return add_section(checked, question, stored, "shapes", NULL);
}

/* ---- the report ---------------------------------------------------------------------- */

static void print_part(size_t count, enum style style, const char *what, bool *first) {
    if (!count)
        return;
    fputs(*first ? "" : ", ", stdout);
    print_styled(stdout, style, "%zu %s", count, what);
    *first = false;
}

static bool print_human(const struct request *request, const struct question *question,
                        const struct checked *checked) {
    char device[LINEAR_TEXT_BYTES];
    const char *source = request->arguments->operand_count ? request->arguments->operands[0]
                                                           : request->arguments->common.shapes;
    print_styled(stdout, STYLE_BOLD, "%s", source);
    print_styled(stdout, STYLE_PLAIN, ": %zu %s on %s", checked->layers,
                 request->arguments->operand_count ? "quantized layers" : "shapes",
                 device_format(question->device, device));
    if (question->ranks > 1)
        printf(", %" PRId64 " ranks", question->ranks);
    putchar('\n');
    if (!checked->layers)
        return true;
    if (!print_sections(question, checked->sections, checked->section_count))
        return false;
    struct tally tally = tally_sections(checked->sections, checked->section_count);
    bool first = true;
    fputs("\nDistinct shapes: ", stdout);
    print_part(tally.fast, STYLE_GOOD, "ok", &first);
    print_part(tally.slow, STYLE_WARNING, "slow", &first);
    print_part(tally.without_kernel, STYLE_BAD, "without a kernel", &first);
    print_part(tally.unsplit, STYLE_BAD, "that cannot be split", &first);
    print_part(tally.undescribed, STYLE_BAD, "not supported", &first);
    puts(".");
    return true;
}

static bool is_good(const struct request *request, const struct checked *checked) {
    struct tally tally = tally_sections(checked->sections, checked->section_count);
    return !tally.without_kernel && !tally.unsplit && !tally.undescribed &&
           !(request->strict && tally.slow);
}

static int print_json(const struct request *request, const struct question *question,
                      const struct checked *checked) {
    const struct arguments *arguments = request->arguments;
    struct tally tally = tally_sections(checked->sections, checked->section_count);
    json_t *root = json_object(), *summary = json_object();
    if (arguments->operand_count)
        json_put(root, "model", json_text(arguments->operands[0]));
    else
        json_put(root, "file", json_text(arguments->common.shapes));
    json_put(root, "device", device_json(question->device));
    json_put(root, "tp", json_integer(question->ranks));
    for (size_t s = 0; s < checked->section_count; s++)
        json_put(root, checked->sections[s].key,
                 survey_json(&checked->sections[s].survey, question->common->kernel));
    json_put(summary, "layers", json_integer((json_int_t)checked->layers));
    json_put(summary, "fast", json_integer((json_int_t)tally.fast));
    json_put(summary, "slow", json_integer((json_int_t)tally.slow));
    json_put(summary, "without_kernel", json_integer((json_int_t)tally.without_kernel));
    json_put(summary, "cannot_be_split", json_integer((json_int_t)tally.unsplit));
    json_put(summary, "not_supported", json_integer((json_int_t)tally.undescribed));
    json_put(root, "summary", summary);
    json_put(root, "ok", json_boolean(is_good(request, checked)));
    return json_print(root);
}

/* ---- the command --------------------------------------------------------------------- */

static int survey_and_report(const struct request *request, struct question *question,
                             const struct units *stored) {
    struct checked checked = {0};
    mute_log(true); /* slow paths are shown below */
    kry_status status = survey_layers(request, question, stored, &checked);
    mute_log(false);
    int code = status ? complain_survey(status) : EXIT_YES;
    if (!code && request->arguments->common.json)
        code = print_json(request, question, &checked);
    else if (!code && !print_human(request, question, &checked))
        code = EXIT_MACHINE;
    if (!code && !checked.layers)
        warn("%s has no quantized layers", request->arguments->operands[0]);
    if (!code && !is_good(request, &checked))
        code = EXIT_NO;
    for (size_t s = 0; s < checked.section_count; s++)
        survey_free(&checked.sections[s].survey);
    return code;
}

static kry_status read_shapes(const struct request *request, struct units *out) {
    const struct common_options *common = &request->arguments->common;
    struct shapes shapes;
    kry_status status = shapes_read(common->shapes, common->shape_name, &shapes);
    if (status)
        return status;
    for (size_t i = 0; i < shapes.count && !status; i++) {
        shapes.items[i].linear.allowed |= request->allowed;
        status = units_add(out, shapes.items[i].name, KRY_OK, "", &shapes.items[i].linear);
    }
    shapes_free(&shapes);
    return status;
}

/* *stored may borrow from *checkpoint, which is NULL with shapes. */
static int read_layers(const struct request *request, kry_checkpoint **checkpoint,
                       struct units *stored) {
    kry_status status;
    if (request->arguments->common.shapes) {
        status = read_shapes(request, stored);
    } else {
        int code = open_model(request->arguments->operands[0], checkpoint);
        if (code)
            return code;
        status = model_units(*checkpoint, request->allowed, stored);
    }
    return status ? complain_status(status) : EXIT_YES;
}

static int check(const struct request *request) {
    const struct common_options *common = &request->arguments->common;
    kry_registry *registry = NULL;
    kry_checkpoint *checkpoint = NULL;
    struct units stored = {0};
    kry_device device;
    /* The layers first: what is wrong with them does not depend on the device. */
    int code = read_layers(request, &checkpoint, &stored);
    if (!code)
        code = open_registry(common, &registry);
    if (!code)
        code = find_device(registry, common, &device);
    if (!code)
        code = require_platform(registry, &device, common->json);
    if (!code) {
        struct question question = {registry, &device, common, request->ranks, false};
        code = survey_and_report(request, &question, &stored);
    }
    units_free(&stored);
    kry_checkpoint_close(&checkpoint);
    kry_registry_close(&registry);
    return code;
}

static int check_request(const struct request *request) {
    const struct arguments *arguments = request->arguments;
    const struct command *command = arguments->command;
    const char *shapes = arguments->common.shapes;
    if (arguments->operand_count > 1)
        return complain_usage(command, "unexpected argument '%s'", arguments->operands[1]);
    if (!arguments->operand_count && !shapes)
        return complain_usage(command, "MODEL is missing");
    if (arguments->operand_count && shapes)
        return complain_usage(command, "choose one: MODEL or --shapes");
    if (shapes && request->ranks > 1)
        return complain_usage(command, "--tp goes with MODEL: shapes are partitions already");
    if (!shapes && arguments->common.shape_name)
        return complain_usage(command, "--name goes with --shapes");
    return EXIT_YES;
}

static int run(struct arguments *arguments) {
    struct request request = {.arguments = arguments, .ranks = 1};
    int option;
    while ((option = arguments_next(arguments)) != OPTION_END) {
        if (option == OPTION_STOP)
            return arguments->exit_code;
        if (option == OPTION_STRICT)
            request.strict = true;
        else if (option == OPTION_TP &&
                 !arguments_int(arguments, "tp", 1, RANKS_MOST, &request.ranks))
            return arguments->exit_code;
        else if (option == OPTION_ALLOW && !parse_allowed(arguments->value, &request.allowed))
            return complain_usage(arguments->command, "--allow: '%s' is none of int8",
                                  arguments->value);
    }
    int code = check_request(&request);
    return code ? code : check(&request);
}

const struct command command_check = {
    .name = "check",
    .summary = "say which kernel will run each layer of a model, before anything is loaded",
    .usage = "MODEL [--device DEVICE] [--tp RANKS] [--strict]\n"
             "--shapes FILE [--name NAME] [--device DEVICE] [--strict]",
    .details =
        "Reads a checkpoint's headers (a folder with safetensors and config.json, or one\n"
        ".safetensors file) and lists each distinct layer shape with its kernel: the layers as\n"
        "they are stored, and as serving stacks fuse them (q, k and v into qkv_proj; gate and up\n"
        "into gate_up_proj; only where their descriptions agree). A path is slow when the\n"
        "platform's fallback is the one that takes it; what every other kernel refused follows.\n"
        "\n"
        "With --tp, each rank's partition: o_proj, out_proj, down_proj, wo, w2, fc2, c_proj,\n"
        "dense and dense_4h_to_h are split along K (row), q_a_proj, kv_a_proj_with_mqa and\n"
        "routers are whole on every rank (replicated), all other names are split along N\n"
        "(column), each fused part for itself. Features that do not divide by the ranks cannot\n"
        "be split. Key and value heads that a stack would replicate are split like the others.\n"
        "\n"
        "The exit status is 0 when every layer has a kernel, 1 when one has none, cannot be\n"
        "split or is not supported, and with --strict also when one takes a slow path.\n"
        "\n"
        "JSON: {model or file, device, tp, stored: [...], fused: [...] (or shapes: [...]),\n"
        "summary: {layers, fast, slow, without_kernel, cannot_be_split, not_supported}, ok}; of\n"
        "each distinct description {names, layers, split, ranks, finding, linear, outcome (fast,\n"
        "slow, none), kernel, plugin, fallback, padding_bytes, rewrite, rewrite_bytes,\n"
        "decided_group_size, candidates} or {names, ..., finding, outcome, reason}.",
    .examples = "kernelry check ./model\n"
                "kernelry check ./model --device cuda:sm_80 --tp 2\n"
                "kernelry check ./model --strict --json\n"
                "kernelry check --shapes shapes.json --device cpu:avx2",
    .own = own_options,
    .takes = TAKES_REGISTRY | TAKES_DEVICE | TAKES_KERNEL | TAKES_SHAPES | TAKES_M,
    .run = run,
};
