/*
 * kernelry quantize: a dense checkpoint, quantized by round-to-nearest min-max.
 */
#include "quantize.h"

#include "command.h"
#include "folder.h"
#include "fuse.h"
#include "progress.h"
#include "table.h"
#include "words.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    OPTION_BITS = OPTION_OWN,
    OPTION_GROUP_SIZE,
    OPTION_ASYM,
    OPTION_FORMAT,
    OPTION_IGNORE,
};

static const struct own_option own[] = {
    {"bits", "4|8", "bits of a weight (4)", OPTION_BITS},
    {"group-size", "G", "input features that share a scale; -1: a row (32)", OPTION_GROUP_SIZE},
    {"asym", NULL, "with zero points", OPTION_ASYM},
    {"format", "NAME", "compressed-tensors, the only one so far", OPTION_FORMAT},
    {"ignore", "PATTERN", "leave a module dense; may be repeated", OPTION_IGNORE},
    {NULL, NULL, NULL, 0},
};

/* ---- signals ------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void remember_signal(int number) { interrupted = number; }

/** Let Ctrl-C and kill end the work in order, so that nothing half-written is left. */
static void watch_signals(void) {
    struct sigaction action = {.sa_handler = remember_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* ---- the report ---------------------------------------------------------------------- */

/** Layers that differ only in the numbers in their names. */
struct row {
    char *pattern;
    const kry_tensor *tensor;
    size_t count;
    struct rtn_error error;
};

static struct rtn_error total_error(const struct quantize_plan *plan) {
    struct rtn_error total = {0};
    for (size_t i = 0; i < plan->item_count; i++) {
        total.difference += plan->items[i].error.difference;
        total.weight += plan->items[i].error.weight;
    }
    return total;
}

/** Sum up the layers by pattern and shape. Returns false when memory ran out. */
static bool collect_rows(const struct quantize_plan *plan, struct row *rows, size_t *count) {
    for (size_t i = 0; i < plan->item_count; i++) {
        const struct quantize_item *item = &plan->items[i];
        if (item->module == NULL)
            continue;
        char *pattern = name_pattern(item->module);
        if (pattern == NULL)
            return false;
        size_t at = 0;
        while (at < *count && (strcmp(rows[at].pattern, pattern) != 0 ||
                               rows[at].tensor->shape[0] != item->tensor.shape[0] ||
                               rows[at].tensor->shape[1] != item->tensor.shape[1]))
            at++;
        if (at == *count)
            rows[(*count)++] = (struct row){.pattern = pattern, .tensor = &item->tensor};
        else
            free(pattern);
        rows[at].count++;
        rows[at].error.difference += item->error.difference;
        rows[at].error.weight += item->error.weight;
    }
    return true;
}

static int report_table(const struct quantize_plan *plan, const struct quantize_job *job) {
    static const struct column columns[] = {
        {"LAYER", false}, {"K×N", true}, {"LAYERS", true}, {"ERROR", true}};
    struct row *rows = calloc(plan->layer_count, sizeof *rows);
    size_t count = 0;
    bool good = rows != NULL && collect_rows(plan, rows, &count);
    struct table table;
    table_begin(&table, columns, 4);
    for (size_t i = 0; i < count; i++) {
        table_add(&table, STYLE_PLAIN, "%s", rows[i].pattern);
        table_add(&table, STYLE_PLAIN, "%" PRId64 "×%" PRId64, rows[i].tensor->shape[1],
                  rows[i].tensor->shape[0]);
        table_add(&table, STYLE_PLAIN, "%zu", rows[i].count);
        table_add(&table, STYLE_PLAIN, "%.4f", rtn_relative(&rows[i].error));
        free(rows[i].pattern);
    }
    free(rows);
    good = table_print(&table, stdout, 0) && good;
    if (!good)
        return complain(EXIT_MACHINE, "out of memory while reporting");
    struct rtn_error total = total_error(plan);
    char before[SIZE_TEXT_BYTES], after[SIZE_TEXT_BYTES];
    printf("\n%s: %zu layers at %d bits, relative error %.4f, %s -> %s\n", job->out,
           plan->layer_count, plan->scheme.bits, rtn_relative(&total),
           size_format(plan->bytes_before, before), size_format(plan->bytes_after, after));
    return EXIT_YES;
}

static int report_json(const struct quantize_plan *plan, const struct quantize_job *job) {
    json_t *layers = json_array(), *dense = json_array();
    for (size_t i = 0; i < plan->item_count; i++) {
        const struct quantize_item *item = &plan->items[i];
        const kry_tensor *tensor = &item->tensor;
        if (item->module == NULL) {
            json_add(dense, json_text(tensor->name));
            continue;
        }
        json_t *layer = json_object();
        json_put(layer, "name", json_text(item->module));
        json_put(layer, "in_features", json_integer(tensor->shape[1]));
        json_put(layer, "out_features", json_integer(tensor->shape[0]));
        json_put(layer, "bytes_before", json_integer((json_int_t)tensor->bytes));
        json_put(layer, "bytes_after", json_integer((json_int_t)item->bytes_after));
        json_put(layer, "relative_error", json_real(rtn_relative(&item->error)));
        json_add(layers, layer);
    }
    struct rtn_error total = total_error(plan);
    json_t *report = json_object();
    json_put(report, "in", json_text(job->in));
    json_put(report, "out", json_text(job->out));
    json_put(report, "format", json_text("compressed-tensors"));
    json_put(report, "bits", json_integer(plan->scheme.bits));
    json_put(report, "group_size", json_integer(plan->scheme.group_size));
    json_put(report, "symmetric", json_boolean(!plan->scheme.asymmetric));
    json_put(report, "relative_error", json_real(rtn_relative(&total)));
    json_put(report, "bytes_before", json_integer((json_int_t)plan->bytes_before));
    json_put(report, "bytes_after", json_integer((json_int_t)plan->bytes_after));
    json_put(report, "layers", layers);
    json_put(report, "dense_tensors", dense);
    return json_print(report);
}

/** Say what others may not be able to read, or what the user may not expect. */
static void warn_of(const struct quantize_plan *plan) {
    if (plan->short_count > 0)
        warn("the last group is short in %zu of %zu layers (K is no multiple of %" PRId64
             "): Kernelry runs them, but vLLM and compressed-tensors' own loader want whole groups",
             plan->short_count, plan->layer_count, plan->scheme.group_size);
    if (plan->stacked > 0)
        warn("%zu weights of three dimensions, such as fused experts, stay dense", plan->stacked);
}

/* ---- the command --------------------------------------------------------------------- */

static bool advance(void *context, uint64_t bytes, const char *name) {
    progress_advance(context, bytes, name);
    return interrupted == 0;
}

/** Write the planned checkpoint into its folder. */
static kry_status write_folder(struct quantize_plan *plan, const struct quantize_job *job) {
    struct new_folder folder;
    kry_status status = new_folder_begin(&folder, job->out);
    if (status != KRY_OK)
        return status;
    struct progress progress;
    progress_begin(&progress, plan->bytes_before);
    status = quantize_write(plan, folder.temporary, advance, &progress);
    progress_clear(&progress);
    struct stat info;
    if (status == KRY_OK && stat(job->in, &info) == 0 && S_ISDIR(info.st_mode))
        status = copy_companions(job->in, folder.temporary);
    return new_folder_end(&folder, status);
}

static int quantize(const struct quantize_job *job, bool json) {
    struct quantize_plan *plan = NULL;
    kry_status status = quantize_plan_create(job, &plan);
    if (status != KRY_OK)
        return complain_status(status);
    warn_of(plan);
    watch_signals();
    status = write_folder(plan, job);
    int code;
    if (status == KRY_OK)
        code = json ? report_json(plan, job) : report_table(plan, job);
    else if (interrupted != 0)
        code = complain(EXIT_MACHINE, "interrupted; %s was not made", job->out);
    else
        /* The input is mapped: what fails to be read or written by now is the disk. */
        code = status == KRY_E_IO ? complain(EXIT_MACHINE, "%s", kry_error_message())
                                  : complain_status(status);
    quantize_plan_destroy(&plan);
    return code;
}

/** Store an option of our own. Returns false after a complaint. */
static bool read_option(struct arguments *arguments, int option, struct quantize_job *job) {
    int64_t value;
    switch (option) {
    case OPTION_BITS:
        if (!arguments_int(arguments, "bits", 4, 8, &value))
            return false;
        job->scheme.bits = (int32_t)value;
        return true;
    case OPTION_GROUP_SIZE:
        return arguments_int(arguments, "group-size", -1, KRY_FEATURES_MAX,
                             &job->scheme.group_size);
    case OPTION_ASYM:
        job->scheme.asymmetric = true;
        return true;
    case OPTION_FORMAT:
        job->format = arguments->value;
        return true;
    default:
        job->ignore[job->ignore_count++] = arguments->value;
        return true;
    }
}

/** Read the command line into *job. Returns false after a complaint or --help. */
static bool read_arguments(struct arguments *arguments, struct quantize_job *job) {
    int option;
    while ((option = arguments_next(arguments)) != OPTION_END)
        if (option == OPTION_STOP || !read_option(arguments, option, job))
            return false;
    arguments->exit_code = EXIT_USAGE;
    if (arguments->operand_count != 2)
        complain_usage(arguments->command, "expected two operands, IN and OUT");
    else if (job->scheme.bits != 4 && job->scheme.bits != 8)
        complain_usage(arguments->command, "--bits %" PRId32 ": expected 4 or 8", job->scheme.bits);
    else if (job->scheme.group_size == 0)
        complain_usage(arguments->command, "--group-size 0: expected -1 or at least 1");
    else if (strcmp(job->format, "compressed-tensors") != 0)
        complain_usage(arguments->command, "--format %s: expected compressed-tensors", job->format);
    else
        arguments->exit_code = EXIT_YES;
    return arguments->exit_code == EXIT_YES;
}

static int run(struct arguments *arguments) {
    struct quantize_job job = {.scheme = {.bits = 4, .group_size = 32},
                               .format = "compressed-tensors"};
    /* There are fewer patterns than arguments. */
    job.ignore = calloc((size_t)arguments->argc + 1, sizeof *job.ignore);
    if (job.ignore == NULL)
        return complain(EXIT_MACHINE, "out of memory");
    int code;
    if (read_arguments(arguments, &job)) {
        job.in = arguments->operands[0];
        job.out = arguments->operands[1];
        code = quantize(&job, arguments->common.json);
    } else {
        code = arguments->exit_code;
    }
    free(job.ignore);
    return code;
}

const struct command command_quantize = {
    .name = "quantize",
    .summary = "quantize a dense checkpoint by round-to-nearest",
    .usage = "IN OUT [--bits 4|8] [--group-size G] [--asym] [--ignore PATTERN]...",
    .details =
        "IN is a model folder, or a .safetensors file with config.json beside it; OUT is\n"
        "the folder to be made. It appears whole or not at all, holds a compressed-tensors\n"
        "pack-quantized checkpoint, and of IN's folder the tokenizer and whatever else is\n"
        "no weights.\n"
        "\n"
        "Quantized are tensors '*.weight' of two dimensions in F16, BF16 or F32. Embeddings,\n"
        "the output head (lm_head), norms and biases stay dense, and so do the modules that\n"
        "--ignore names, in compressed-tensors' words: a full name, or 're:' and a regular\n"
        "expression that must match at the name's start.\n"
        "\n"
        "Each group of a row is scaled to its largest weight (with --asym, to its least and\n"
        "largest). Scales are stored in the weights' type; for F32 in BF16, because stacks\n"
        "serve such models in BF16 or F16 and either holds them exactly. A last group may be\n"
        "short where K is no multiple of the group size; other readers may not take it.",
    .examples = "kernelry quantize Qwen2.5-0.5B Qwen2.5-0.5B-int4 --bits 4 --group-size 32\n"
                "kernelry quantize model model-int8 --bits 8 --group-size -1\n"
                "kernelry quantize moe moe-int4 --asym --ignore 're:.*\\.mlp\\.gate$'",
    .own = own,
    .takes = 0,
    .run = run,
};
