/*
 * kernelry bench: how long applies take.
 */
#include "bench.h"

#include "applying.h"
#include "bench_race.h"
#include "layer_options.h"
#include "model.h"
#include "progress.h"
#include "shapes.h"
#include "table.h"
#include "words.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OPTION_MILLISECONDS = OPTION_OWN };

static const struct own_option own[] = {
    LAYER_OPTIONS,
    {"milliseconds", "T", "how long to measure each m; default 500", OPTION_MILLISECONDS},
    RACE_OPTIONS,
    {NULL, NULL, NULL, 0},
};

enum { MILLISECONDS_MOST = 3600 * 1000 };

/* ---- what to measure ----------------------------------------------------------------- */

/** What the command line asks for. */
struct request {
    kry_linear linear; /* from options */
    bool described;    /* an option describes a layer */
    int64_t milliseconds;
    struct race_request race;
};

/** A description to measure, and under which name. */
struct item {
    char *name;
    kry_linear linear;
    bool bias;
    size_t layers; /* that have it */
};

struct items {
    struct item *items;
    size_t count;
};

static void items_free(struct items *items) {
    for (size_t i = 0; i < items->count; i++)
        free(items->items[i].name);
    free(items->items);
}

/** Append a description, or count it when it is there already. */
static kry_status items_add(struct items *items, const char *name, const kry_linear *linear,
                            bool bias, bool distinct) {
    for (size_t i = 0; distinct && i < items->count; i++)
        if (memcmp(&items->items[i].linear, linear, sizeof *linear) == 0) {
            items->items[i].layers++;
            return KRY_OK;
        }
    struct item *grown = realloc(items->items, (items->count + 1) * sizeof *grown);
    char *copy = strdup(name);
    if (grown != NULL)
        items->items = grown;
    if (grown == NULL || copy == NULL) {
        free(copy);
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    }
    grown[items->count++] =
        (struct item){.name = copy, .linear = *linear, .bias = bias, .layers = 1};
    return KRY_OK;
}

static kry_status items_of_shapes(const struct common_options *common, struct items *items) {
    struct shapes shapes = {0};
    kry_status status = shapes_read(common->shapes, common->shape_name, &shapes);
    for (size_t i = 0; i < shapes.count && status == KRY_OK; i++)
        status = items_add(items, shapes.items[i].name, &shapes.items[i].linear,
                           shapes.items[i].bias, false);
    shapes_free(&shapes);
    return status;
}

/** The distinct descriptions of a checkpoint's layers, as they are stored. */
static int items_of_model(const char *path, struct items *items) {
    kry_checkpoint *checkpoint = NULL;
    int code = open_model(path, &checkpoint);
    if (code != EXIT_YES)
        return code;
    kry_status status = KRY_OK;
    size_t count = kry_checkpoint_layer_count(checkpoint);
    for (size_t i = 0; i < count && status == KRY_OK; i++) {
        kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
        status = kry_checkpoint_layer_at(checkpoint, i, &layer);
        if (status == KRY_OK && layer.status == KRY_OK) {
            char *pattern = name_pattern(layer.name);
            status = items_add(items, pattern != NULL ? pattern : layer.name, layer.linear,
                               layer.has_bias != 0, true);
            free(pattern);
        }
    }
    if (status == KRY_OK && items->count == 0)
        status = kry_error_set(KRY_E_UNSUPPORTED, "%s: no layer of it is quantized", path);
    kry_checkpoint_close(&checkpoint);
    return status == KRY_OK ? EXIT_YES : complain_status(status);
}

static int collect(const struct arguments *arguments, const struct request *request,
                   struct items *items) {
    kry_status status;
    if (arguments->operand_count == 1)
        return items_of_model(arguments->operands[0], items);
    if (arguments->common.shapes != NULL) {
        status = items_of_shapes(&arguments->common, items);
    } else {
        kry_linear linear = KRY_INIT(kry_linear);
        status = kry_linear_complete(&request->linear, &linear);
        if (status == KRY_OK)
            status = items_add(items, "layer", &linear, false, false);
    }
    return status == KRY_OK ? EXIT_YES : complain_status(status);
}

/* ---- the report ---------------------------------------------------------------------- */

/** What one apply moves from and to memory at least: weights, x and y. Units: bytes. */
static double bytes_moved(const struct item *item, const struct bench_result *result, int64_t m) {
    const kry_linear *linear = &item->linear;
    return (double)result->prepared_bytes +
           (double)m * ((double)linear->in_features * (double)kry_type_bytes(linear->x_type) +
                        (double)linear->out_features * (double)kry_type_bytes(linear->y_type));
}

static double operations(const struct item *item, int64_t m) {
    return 2.0 * (double)m * (double)item->linear.in_features * (double)item->linear.out_features;
}

static void add_rows(struct table *table, const struct item *item,
                     const struct bench_result *result, size_t m_count) {
    char text[LINEAR_TEXT_BYTES], size[SIZE_TEXT_BYTES];
    for (size_t i = 0; i < m_count; i++) {
        const struct bench_times *times = &result->times[i];
        bool first = i == 0;
        table_add(table, STYLE_BOLD, "%s", first ? item->name : "");
        table_add(table, STYLE_PLAIN, "%s", first ? linear_format(&item->linear, text) : "");
        table_add(table, result->kernel.fallback ? STYLE_WARNING : STYLE_GOOD, "%s%s",
                  first ? result->kernel.kernel : "",
                  first && result->kernel.fallback ? " (fallback)" : "");
        table_add(table, STYLE_PLAIN, "%s", first ? size_format(result->prepared_bytes, size) : "");
        table_add(table, STYLE_PLAIN, "%" PRId64, times->m);
        table_add(table, STYLE_PLAIN, "%.1f", (double)times->median * 1e-3);
        table_add(table, STYLE_DIM, "%.1f", (double)times->least * 1e-3);
        /* Bytes and operations per ns are GB/s and GFLOP/s. */
        double median = fmax((double)times->median, 1);
        table_add(table, STYLE_PLAIN, "%.2f", bytes_moved(item, result, times->m) / median);
        table_add(table, STYLE_PLAIN, "%.2f", operations(item, times->m) / median);
    }
}

static json_t *result_json(const struct item *item, const struct bench_result *result,
                           size_t m_count) {
    json_t *object = json_object(), *applies = json_array();
    json_put(object, "name", json_text(item->name));
    json_put(object, "layers", json_integer((json_int_t)item->layers));
    json_put(object, "linear", linear_json(&item->linear));
    json_put(object, "bias", json_boolean(item->bias));
    json_put(object, "kernel", json_text(result->kernel.kernel));
    json_put(object, "plugin", json_text(result->kernel.plugin));
    json_put(object, "fallback", json_boolean(result->kernel.fallback));
    json_put(object, "prepared_bytes", json_integer((json_int_t)result->prepared_bytes));
    json_put(object, "copies", json_integer((json_int_t)result->copies));
    json_put(object, "prepare_seconds", json_real((double)result->prepare_nanoseconds * 1e-9));
    for (size_t i = 0; i < m_count; i++) {
        const struct bench_times *times = &result->times[i];
        json_t *apply = json_object();
        double median = (double)times->median;
        json_put(apply, "m", json_integer(times->m));
        json_put(apply, "applies", json_integer((json_int_t)times->count));
        json_put(apply, "median_seconds", json_real(median * 1e-9));
        json_put(apply, "least_seconds", json_real((double)times->least * 1e-9));
        json_put(apply, "gigabytes_per_second",
                 json_real(bytes_moved(item, result, times->m) / fmax(median, 1)));
        json_put(apply, "gigaflops", json_real(operations(item, times->m) / fmax(median, 1)));
        json_add(applies, apply);
    }
    json_put(object, "applies", applies);
    return object;
}

/** Measure all and report. A layer that fails is complained of; the others go on. */
static int measure_all(const struct bench_setting *setting, const struct items *items, bool json) {
    static const struct column columns[] = {{"LAYER", false},   {"K×N", false}, {"KERNEL", false},
                                            {"PREPARED", true}, {"M", true},    {"MEDIAN us", true},
                                            {"LEAST", true},    {"GB/s", true}, {"GFLOP/s", true}};
    struct table table;
    table_begin(&table, columns, sizeof columns / sizeof columns[0]);
    json_t *layers = json_array();
    struct progress progress;
    progress_begin(&progress, items->count);
    int code = EXIT_YES;
    mute_log(true);
    for (size_t i = 0; i < items->count; i++) {
        struct bench_result result = {0};
        const struct item *item = &items->items[i];
        progress_advance(&progress, 0, item->name);
        kry_status status = bench_measure(setting, &item->linear, item->bias, &result);
        progress_advance(&progress, 1, item->name);
        if (status == KRY_OK && json)
            json_add(layers, result_json(item, &result, setting->m_count));
        else if (status == KRY_OK)
            add_rows(&table, item, &result, setting->m_count);
        free(result.times);
        if (status != KRY_OK) {
            progress_clear(&progress);
            int worse = status == KRY_E_MEMORY ? EXIT_MACHINE : EXIT_NO;
            code = code > worse ? code : worse;
            complain(worse, "%s: %s", item->name, kry_error_message());
        }
    }
    mute_log(false);
    progress_clear(&progress);
    if (json) {
        json_t *report = json_object();
        json_put(report, "device", device_json(setting->device));
        json_put(report, "layers", layers);
        int printed = json_print(report);
        return code > printed ? code : printed;
    }
    json_decref(layers);
    return table_print(&table, stdout, 0) ? code : complain(EXIT_MACHINE, "out of memory");
}

/* ---- the command --------------------------------------------------------------------- */

/** Store an option of our own. Returns false after a complaint. */
static bool read_option(struct arguments *arguments, int option, struct request *request) {
    request->described = request->described || option_describes_layer(option);
    if (is_layer_option(option))
        return layer_option_read(arguments, option, &request->linear);
    if (option == OPTION_MILLISECONDS)
        return arguments_int(arguments, "milliseconds", 1, MILLISECONDS_MOST,
                             &request->milliseconds);
    return race_request_read(arguments, option, &request->race);
}

/** What is wrong with the request, or NULL. A race may do without a layer of its own. */
static const char *find_mistake(const struct arguments *arguments, const struct request *request) {
    bool shapes = arguments->common.shapes != NULL;
    int layers = (arguments->operand_count == 1) + shapes + request->described;
    if (arguments->operand_count > 1)
        return "expected one MODEL";
    if (layers > 1 || (layers == 0 && !request->race.wanted))
        return "expected one of MODEL, --shapes FILE, and --in-features K --out-features N";
    if (request->race.wanted && arguments->common.m_count > RACE_M_MOST)
        return "--m: at most 16 of them against limits and peers";
    if (request->described &&
        (request->linear.in_features == 0 || request->linear.out_features == 0))
        return "--in-features and --out-features go together";
    if (!shapes && arguments->common.shape_name != NULL)
        return "--name goes with --shapes";
    return NULL;
}

/** Against limits and peers: the layers that are given, and those that the options name. */
static int race_layers(const struct arguments *arguments, const struct request *request) {
    enum { AWKWARD_WEIGHTS = 1000 * 1000 };
    static const struct race_taste no_taste;
    const struct common_options *common = &arguments->common;
    struct items items = {0};
    struct race_plan given = {0};
    bool any = arguments->operand_count == 1 || common->shapes != NULL || request->described;
    int code = any ? collect(arguments, request, &items) : EXIT_YES;
    kry_status status = KRY_OK;
    for (size_t i = 0; i < items.count && status == KRY_OK; i++) {
        const kry_linear *linear = &items.items[i].linear;
        if (!request->race.awkward || linear->in_features >= AWKWARD_WEIGHTS / linear->out_features)
            status = race_plan_add(&given, &no_taste, items.items[i].name, linear, false);
    }
    if (status != KRY_OK)
        code = complain_status(status);
    if (code == EXIT_YES)
        code = bench_race(common, &request->race, &given, request->milliseconds * 1000 * 1000);
    race_plan_free(&given);
    items_free(&items);
    return code;
}

static int bench_layers(const struct arguments *arguments, const struct request *request) {
    const struct common_options *common = &arguments->common;
    const char *mistake = find_mistake(arguments, request);
    if (mistake != NULL)
        return complain_usage(arguments->command, "%s", mistake);
    if (request->race.wanted)
        return race_layers(arguments, request);
    static const int64_t usual_m[] = {1, 16};
    bool given = common->m_count > 0;
    kry_device device;
    struct bench_setting setting = {.device = &device,
                                    .kernel = common->kernel,
                                    .m = given ? common->m : usual_m,
                                    .m_count = given ? common->m_count : 2,
                                    .seed = common->seed,
                                    .budget = request->milliseconds * 1000 * 1000};
    struct items items = {0};
    int code = open_applying_registry(common, &setting.registry, &device);
    if (code == EXIT_YES)
        code = collect(arguments, request, &items);
    if (code == EXIT_YES)
        code = measure_all(&setting, &items, common->json);
    items_free(&items);
    kry_registry_close(&setting.registry);
    return code;
}

static int run(struct arguments *arguments) {
    struct request request = {
        .linear = layer_options_begin(), .milliseconds = 500, .race = race_request_begin()};
    int option;
    while ((option = arguments_next(arguments)) != OPTION_END)
        if (option == OPTION_STOP || !read_option(arguments, option, &request))
            return arguments->exit_code;
    size_t operands = arguments->operand_count;
    if (operands == 0 || strcmp(arguments->operands[0], "core") != 0)
        return bench_layers(arguments, &request);
    if (operands > 2 || request.described || request.race.wanted ||
        arguments->common.shapes != NULL)
        return complain_usage(arguments->command, "'core' is followed by one MODEL at most");
    return bench_core(&arguments->common, operands == 2 ? arguments->operands[1] : NULL);
}

const struct command command_bench = {
    .name = "bench",
    .summary = "measure how long applies take, or the core itself",
    .usage = "MODEL [--m 1,16]\n"
             "--shapes FILE [--name NAME] [--m 1,16]\n"
             "--in-features K --out-features N [--group-size G] [--weight-type TYPE]\n"
             "[layers as above] [--limits] [--peer P,...] [--yardstick] [--random-shapes N]\n"
             "core [MODEL]",
    .details =
        "Weights are drawn (--seed) and prepared so many times that the copies fill the\n"
        "last cache four times; applies use them in turn. GB/s counts prepared weights, x\n"
        "and y once each; GFLOP/s counts two operations a weight and row. Of a MODEL each\n"
        "distinct description is measured once; one called 'core' is written ./core.\n"
        "\n"
        "With --limits, --peer and the options after them, everybody is measured in turn:\n"
        "each of --rounds rounds gives a slice of --milliseconds to the machine's limits\n"
        "(reading memory, multiplying in registers), to our kernels in each numeric class\n"
        "and to each peer, a library driven by Python in a process of its own whose y is\n"
        "compared with ours. Figures are medians of slices; ratios are medians of the ratios\n"
        "within a round, since clocks and neighbours change from one moment to the next.\n"
        "--peer without layers means --yardstick. With --awkward each given layer is\n"
        "compared with the nearest aligned one. Exit status 1: no kernel ran on some layer.\n"
        "\n"
        "'core' measures what the core itself costs: opening a registry of the plugins\n"
        "that are found, a decision among their kernels, an apply above the kernel's own\n"
        "call (with a kernel named 'noop' where there is one), and 'kernelry check MODEL'.\n"
        "Nothing is asserted: targets are printed beside the figures.",
    .examples = "kernelry bench --in-features 2112 --out-features 2816 --group-size 32\n"
                "kernelry bench --shapes shapes.json --m 1,16,256 --json\n"
                "kernelry bench --limits\n"
                "kernelry bench --yardstick --peer onnxruntime,openvino:int8 --store results\n"
                "kernelry bench --shapes shapes.json --awkward --scaling\n"
                "kernelry bench core --plugin-path mocks50",
    .own = own,
    .takes = TAKES_REGISTRY | TAKES_DEVICE | TAKES_KERNEL | TAKES_SHAPES | TAKES_M | TAKES_SEED,
    .run = run,
};
