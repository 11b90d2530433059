/*
 * kernelry prepare: the layers of a model made ready as a serving stack does at its start, with a
 * folder of prepared weights or without.
 */
#include "applying.h"
#include "cache.h"
#include "clock.h"
#include "model.h"
#include "operands.h"
#include "progress.h"
#include "words.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { OPTION_CACHE = OPTION_OWN, OPTION_CONTENT, OPTION_UNVERIFIED, OPTION_COPY };

static const struct own_option own[] = {
    {"cache", "DIR", "map prepared weights from there, save there what is missing", OPTION_CACHE},
    {"content", "files|bytes", "with --cache: what tells stale weights (files)", OPTION_CONTENT},
    {"unverified", NULL, "with --cache: do not read weights to compare their hash",
     OPTION_UNVERIFIED},
    {"copy", NULL, "with --cache: into memory of its own instead of a mapping", OPTION_COPY},
    {NULL, NULL, NULL, 0},
};

/** A layer that was made ready. */
struct ready {
    kry_layer *layer;
    kry_checkpoint_layer stored;
    kry_kernel_info kernel;
    enum cache_outcome outcome;
    uint64_t prepared_bytes;
};

/** The command at work. */
struct work {
    const struct common_options *common;
    struct cache cache;
    kry_registry *registry;
    kry_device device;
    kry_checkpoint *checkpoint;
    struct ready *layers;
    size_t count;
    uint64_t prepared_bytes;
    size_t outcomes[CACHE_OUTCOMES];
    int64_t ready_ns;    /* from the checkpoint's opening until every layer is prepared */
    int64_t apply_ns[2]; /* of one row through every layer, the first time and again */
};

/* ---- memory -------------------------------------------------------------------------- */

/** A line of /proc/self/status, in bytes; 0 where there is none. */
static uint64_t memory_of(const char *name) {
    FILE *file = fopen("/proc/self/status", "re");
    uint64_t kilobytes = 0;
    char line[256];
    size_t length = strlen(name);
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            kilobytes = strtoull(line + length + 1, NULL, 10);
    if (file != NULL)
        fclose(file);
    return kilobytes * 1024;
}

/* ---- layers -------------------------------------------------------------------------- */

struct making {
    const kry_checkpoint *checkpoint;
    size_t index;
    kry_checkpoint_weights *weights;
};

static kry_status make_weights(void *context, const kry_weights **out) {
    struct making *making = context;
    kry_status status =
        kry_checkpoint_weights_create(making->checkpoint, making->index, NULL, &making->weights);
    if (status == KRY_OK)
        *out = making->weights->weights;
    return status;
}

static kry_status prepare_layer(struct work *work, size_t index, struct ready *out) {
    char content[KRY_CONTENT_MAX + 1];
    kry_linear linear = KRY_INIT(kry_linear);
    kry_status status = kry_checkpoint_content(work->checkpoint, index, NULL, work->cache.content,
                                               &linear, content, sizeof content);
    if (status != KRY_OK)
        return status;
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &work->device;
    args.linear = &linear;
    args.kernel = work->common->kernel;
    struct making making = {.checkpoint = work->checkpoint, .index = index};
    kry_sizes sizes = KRY_INIT(kry_sizes);
    status = kry_layer_create(work->registry, &args, &out->layer);
    if (status == KRY_OK)
        status = kry_layer_kernel(out->layer, &out->kernel);
    if (status == KRY_OK)
        status = kry_layer_sizes(out->layer, &sizes);
    if (status == KRY_OK)
        status = cache_prepare(&work->cache, out->layer, out->stored.name, content, make_weights,
                               &making, &out->outcome);
    kry_checkpoint_weights_destroy(&making.weights);
    out->prepared_bytes = sizes.prepared_bytes;
    return status;
}

static uint64_t weight_count(const kry_checkpoint_layer *layer) {
    return layer->linear != NULL
               ? (uint64_t)layer->linear->in_features * (uint64_t)layer->linear->out_features
               : 0;
}

/** Make every layer ready, and keep it. */
static kry_status prepare_layers(struct work *work, struct progress *progress) {
    kry_status status = KRY_OK;
    for (size_t i = 0; i < work->count && status == KRY_OK; i++) {
        struct ready *ready = &work->layers[i];
        progress_advance(progress, 0, ready->stored.name);
        status = ready->stored.status == KRY_OK
                     ? prepare_layer(work, i, ready)
                     : kry_error_set(ready->stored.status, "%s", ready->stored.reason);
        if (status != KRY_OK)
            return kry_error_set(status, "layer '%s': %s", ready->stored.name, kry_error_message());
        progress_advance(progress, weight_count(&ready->stored), ready->stored.name);
        work->prepared_bytes += ready->prepared_bytes;
        work->outcomes[ready->outcome]++;
    }
    return status;
}

/* ---- one row ------------------------------------------------------------------------- */

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

/** What a row of any layer needs. */
static kry_status size_row(const struct work *work, struct operand_bytes *out) {
    for (size_t i = 0; i < work->count; i++) {
        kry_workspace workspace = KRY_INIT(kry_workspace);
        kry_status status = kry_layer_workspace(work->layers[i].layer, 1, &workspace);
        if (status != KRY_OK)
            return status;
        const kry_linear *linear = kry_layer_linear(work->layers[i].layer, 0);
        out->x = larger(out->x, (uint64_t)linear->in_features * kry_type_bytes(linear->x_type));
        out->y = larger(out->y, (uint64_t)linear->out_features * kry_type_bytes(linear->y_type));
        out->scratch = larger(out->scratch, workspace.scratch_bytes);
        out->zeroed = larger(out->zeroed, workspace.zeroed_bytes);
    }
    return KRY_OK;
}

static kry_status apply_layers(const struct work *work, const struct device_memory *memory,
                               const struct operands *row, int64_t *nanoseconds) {
    int64_t begin = clock_now();
    kry_status status = KRY_OK;
    for (size_t i = 0; i < work->count && status == KRY_OK; i++)
        status = row_operands_apply(work->layers[i].layer, 1, row);
    if (status == KRY_OK)
        status = device_memory_wait(memory, NULL);
    *nanoseconds = clock_now() - begin;
    return status;
}

/** Zeros through every layer, twice: what was left to be read at the first use shows. */
static kry_status apply_row(struct work *work) {
    struct device_memory memory;
    struct operands row = {0};
    struct operand_bytes bytes = {0};
    kry_status status = device_memory_open(work->registry, &work->device, &memory);
    if (status != KRY_OK)
        return status;
    status = size_row(work, &bytes);
    if (status == KRY_OK)
        status = row_operands_get(&memory, &bytes, &row);
    if (status == KRY_OK)
        status = device_memory_clear(&memory, row.x.device, bytes.x);
    if (status == KRY_OK)
        status = device_memory_clear(&memory, row.zeroed.device, bytes.zeroed);
    for (int i = 0; i < 2 && status == KRY_OK; i++)
        status = apply_layers(work, &memory, &row, &work->apply_ns[i]);
    row_operands_release(&memory, &row);
    return status;
}

/* ---- the report ---------------------------------------------------------------------- */

static int report_json(const struct work *work) {
    json_t *report = json_object(), *layers = json_array();
    for (size_t i = 0; i < work->count; i++) {
        const struct ready *ready = &work->layers[i];
        json_t *layer = json_object();
        json_put(layer, "name", json_text(ready->stored.name));
        json_put(layer, "linear", linear_json(kry_layer_linear(ready->layer, 0)));
        json_put(layer, "kernel", json_text(ready->kernel.kernel));
        json_put(layer, "plugin", json_text(ready->kernel.plugin));
        json_put(layer, "prepared_bytes", json_integer((json_int_t)ready->prepared_bytes));
        json_put(layer, "cache", json_text(cache_word(ready->outcome)));
        json_add(layers, layer);
    }
    json_put(report, "device", device_json(&work->device));
    json_put(report, "cache", json_text(work->cache.folder));
    json_put(report, "layers", layers);
    for (size_t i = CACHE_MAPPED; i < CACHE_OUTCOMES; i++)
        json_put(report, cache_word((enum cache_outcome)i),
                 json_integer((json_int_t)work->outcomes[i]));
    json_put(report, "prepared_bytes", json_integer((json_int_t)work->prepared_bytes));
    json_put(report, "ready_seconds", json_real((double)work->ready_ns * 1e-9));
    json_put(report, "first_row_seconds", json_real((double)work->apply_ns[0] * 1e-9));
    json_put(report, "next_row_seconds", json_real((double)work->apply_ns[1] * 1e-9));
    json_put(report, "peak_memory_bytes", json_integer((json_int_t)memory_of("VmHWM")));
    json_put(report, "own_memory_bytes", json_integer((json_int_t)memory_of("RssAnon")));
    return json_print(report);
}

static int report_text(const struct work *work) {
    char text[LINEAR_TEXT_BYTES], size[SIZE_TEXT_BYTES];
    printf("On %s\n\n%zu layers, %s of prepared weights, ready in %.3f s",
           device_format(&work->device, text), work->count, size_format(work->prepared_bytes, size),
           (double)work->ready_ns * 1e-9);
    const char *separator = ": ";
    for (size_t i = CACHE_MAPPED; i < CACHE_OUTCOMES; i++)
        if (work->outcomes[i] > 0) {
            printf("%s%zu %s", separator, work->outcomes[i], cache_word((enum cache_outcome)i));
            separator = ", ";
        }
    size_t saved = work->count - work->outcomes[CACHE_MAPPED] - work->outcomes[CACHE_UNUSED];
    if (saved > 0)
        printf(" (saved in %s)", work->cache.folder);
    printf("\none row through all of them: %.3f s the first time, %.3f s the next\n",
           (double)work->apply_ns[0] * 1e-9, (double)work->apply_ns[1] * 1e-9);
    printf("peak memory %s", size_format(memory_of("VmHWM"), size));
    printf(", of which the process's own now: %s\n", size_format(memory_of("RssAnon"), size));
    return EXIT_YES;
}

/* ---- the command --------------------------------------------------------------------- */

static kry_status list_layers(struct work *work, const char *model, uint64_t *total) {
    work->count = kry_checkpoint_layer_count(work->checkpoint);
    if (work->count == 0)
        return kry_error_set(KRY_E_UNSUPPORTED, "%s: no layer of it is quantized", model);
    work->layers = calloc(work->count, sizeof *work->layers);
    if (work->layers == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory for %zu layers", work->count);
    kry_status status = KRY_OK;
    for (size_t i = 0; i < work->count && status == KRY_OK; i++) {
        work->layers[i].stored = KRY_INIT(kry_checkpoint_layer);
        work->layers[i].kernel = KRY_INIT(kry_kernel_info);
        status = kry_checkpoint_layer_at(work->checkpoint, i, &work->layers[i].stored);
        *total += weight_count(&work->layers[i].stored);
    }
    return status;
}

static int prepare_model(struct work *work, const char *model) {
    int64_t begin = clock_now();
    int code = open_model(model, &work->checkpoint);
    if (code != EXIT_YES)
        return code;
    uint64_t total = 0;
    struct progress progress;
    kry_status status = list_layers(work, model, &total);
    if (status == KRY_OK && work->cache.folder != NULL)
        status = cache_make_folder(work->cache.folder);
    progress_begin(&progress, total);
    if (status == KRY_OK)
        status = cache_open(&work->cache, work->registry, &work->device, work->common->kernel,
                            work->checkpoint, model);
    if (status == KRY_OK)
        status = prepare_layers(work, &progress);
    status = cache_close(&work->cache, status);
    progress_clear(&progress);
    work->ready_ns = clock_now() - begin;
    if (status == KRY_OK && !(work->device.flags & KRY_DEVICE_HYPOTHETICAL))
        status = apply_row(work);
    if (status == KRY_OK)
        return work->common->json ? report_json(work) : report_text(work);
    /* The input was opened: what is not written now is the disk. */
    return status == KRY_E_IO ? complain(EXIT_MACHINE, "%s", kry_error_message())
                              : complain_status(status);
}

/** Read the options. Returns false after a complaint or --help. */
static bool read_options(struct arguments *arguments, struct cache *cache) {
    int option;
    while ((option = arguments_next(arguments)) != OPTION_END) {
        if (option == OPTION_STOP)
            return false;
        if (option == OPTION_CACHE)
            cache->folder = arguments->value;
        else if (option == OPTION_UNVERIFIED)
            cache->flags |= KRY_MAP_UNVERIFIED;
        else if (option == OPTION_COPY)
            cache->flags |= KRY_MAP_COPY;
        else if (strcmp(arguments->value, "bytes") == 0)
            cache->content = KRY_CONTENT_BYTES;
        else if (strcmp(arguments->value, "files") != 0) {
            arguments->exit_code = complain_usage(
                arguments->command, "--content: '%s'; expected files or bytes", arguments->value);
            return false;
        }
    }
    bool more = cache->content != KRY_CONTENT_FILES || cache->flags != 0;
    arguments->exit_code =
        arguments->operand_count != 1 ? complain_usage(arguments->command, "expected one MODEL")
        : more && cache->folder == NULL
            ? complain_usage(arguments->command, "--content, --unverified and --copy go with "
                                                 "--cache")
            : EXIT_YES;
    return arguments->exit_code == EXIT_YES;
}

static int run(struct arguments *arguments) {
    struct work work = {.common = &arguments->common, .device = KRY_INIT(kry_device)};
    if (!read_options(arguments, &work.cache))
        return arguments->exit_code;
    int code = open_registry(work.common, &work.registry);
    if (code == EXIT_YES)
        code = find_device(work.registry, work.common, &work.device);
    if (code == EXIT_YES)
        code = require_platform(work.registry, &work.device, work.common->json);
    if (code == EXIT_YES)
        code = prepare_model(&work, arguments->operands[0]);
    for (size_t i = 0; i < work.count && work.layers != NULL; i++)
        kry_layer_destroy(&work.layers[i].layer);
    free(work.layers);
    kry_checkpoint_close(&work.checkpoint);
    kry_registry_close(&work.registry);
    return code;
}

const struct command command_prepare = {
    .name = "prepare",
    .summary = "make all layers of a model ready, as a start does; fill a cache",
    .usage = "MODEL [--cache DIR] [--content files|bytes] [--unverified] [--copy]",
    .details =
        "Makes every quantized layer of the model and prepares its weights, keeps them all,\n"
        "applies each once, and tells how long that took and how much memory. With --cache the\n"
        "weights are mapped from a file in DIR, one a model and set of kernels, where they are\n"
        "of the same layout, description and content and whole; other layers are prepared and\n"
        "saved there, and what was wrong with them is said. DIR is made if need be; its files\n"
        "may be removed at any time, and processes that map them share their memory. So the\n"
        "first start with a cache fills it, and those after it are fast.\n"
        "\n"
        "--content files, the default, takes weights for changed when their files were written,\n"
        "replaced or copied; bytes reads and hashes the weights themselves. For a device that is\n"
        "not here (--device cuda:sm_90) weights are prepared in host memory, to be mapped there.",
    .examples = "kernelry prepare Qwen2.5-0.5B-int4 --cache ~/.cache/kernelry\n"
                "kernelry prepare model --cache /srv/prepared --device cuda:sm_90",
    .own = own,
    .takes = TAKES_REGISTRY | TAKES_DEVICE | TAKES_KERNEL,
    .run = run,
};
