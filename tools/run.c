/*
 * kernelry run: prepare and apply layers, and compare with an independent product.
 */
#include "run.h"

#include "applying.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    OPTION_LAYER = OPTION_OWN,
    OPTION_INPUT,
    OPTION_OUTPUT,
    OPTION_SCALE_DOWN,
    OPTION_CACHE,
};

static const struct own_option own[] = {
    {"layer", "NAME", "that layer of the model alone", OPTION_LAYER},
    {"input", "X.npy", "with --layer: activations [.., K], f16 or f32", OPTION_INPUT},
    {"output", "Y.npy", "with --input: where the result goes", OPTION_OUTPUT},
    {"scale-down", "D", "with --shapes: D times smaller, as awkward as before", OPTION_SCALE_DOWN},
    {"cache", "DIR", "map prepared weights from there, see kernelry prepare", OPTION_CACHE},
    {NULL, NULL, NULL, 0},
};

/** Sizes divide by at most this; then nothing but remainders is left of any shape. */
enum { SCALE_DOWN_MAX = 1 << 20 };

/* ---- results ------------------------------------------------------------------------- */

kry_status run_results_add(struct run_results *results, const char *name, const kry_linear *linear,
                           bool bias, struct trial *trial, int exit_code) {
    char *copy = strdup(name);
    struct run_result *items = results->items;
    if (results->count == results->capacity) {
        size_t capacity = results->capacity * 2 + 32;
        items = realloc(items, capacity * sizeof *items);
        if (items != NULL) {
            results->items = items;
            results->capacity = capacity;
        }
    }
    if (copy == NULL || items == NULL) {
        free(copy);
        trial_free(trial);
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    }
    items[results->count++] =
        (struct run_result){.name = copy,
                            .linear = linear != NULL ? *linear : (kry_linear){0},
                            .bias = bias,
                            .trial = *trial,
                            .exit_code = exit_code};
    return KRY_OK;
}

void run_results_free(struct run_results *results) {
    for (size_t i = 0; i < results->count; i++) {
        free(results->items[i].name);
        trial_free(&results->items[i].trial);
    }
    free(results->items);
    *results = (struct run_results){0};
}

kry_status run_trial(const struct trial_setting *setting, const struct trial_subject *subject,
                     struct run_results *results) {
    struct trial trial;
    mute_log(true);
    trial_run(setting, subject, &trial);
    mute_log(false);
    int code = trial.complaint == NULL        ? EXIT_YES
               : trial.status == KRY_E_MEMORY ? EXIT_MACHINE
                                              : EXIT_NO;
    return run_results_add(results, subject->name, subject->linear, subject->bias != NULL, &trial,
                           code);
}

/* ---- the command --------------------------------------------------------------------- */

/** What the command line asks for. */
struct request {
    const char *layer;
    const char *input;
    const char *output;
    int64_t divisor; /* 0: not given */
    struct cache cache;
};

/** Read the options. Returns false after a complaint or --help. */
static bool read_options(struct arguments *arguments, struct request *request) {
    int option;
    while ((option = arguments_next(arguments)) != OPTION_END) {
        switch (option) {
        case OPTION_STOP:
            return false;
        case OPTION_LAYER:
            request->layer = arguments->value;
            break;
        case OPTION_INPUT:
            request->input = arguments->value;
            break;
        case OPTION_OUTPUT:
            request->output = arguments->value;
            break;
        case OPTION_CACHE:
            request->cache.folder = arguments->value;
            break;
        default:
            if (!arguments_int(arguments, "scale-down", 1, SCALE_DOWN_MAX, &request->divisor))
                return false;
        }
    }
    return true;
}

/** What is wrong with the request, or NULL. */
static const char *find_mistake(const struct arguments *arguments, const struct request *request) {
    bool shapes = arguments->common.shapes != NULL;
    if (arguments->operand_count > 1)
        return "expected one MODEL";
    if (shapes == (arguments->operand_count == 1))
        return "expected either a MODEL or --shapes FILE";
    if (shapes && request->layer != NULL)
        return "--layer goes with a MODEL; with --shapes it is --name";
    if (!shapes && (request->divisor != 0 || arguments->common.shape_name != NULL))
        return "--scale-down and --name go with --shapes";
    if (request->cache.folder != NULL && (shapes || request->input != NULL))
        return "--cache goes with a MODEL, and not with --input";
    if ((request->input != NULL) != (request->output != NULL))
        return "--input and --output go together";
    if (request->input != NULL && request->layer == NULL)
        return "--input goes with --layer";
    if (request->input != NULL && arguments->common.m_count > 0)
        return "--m is told by --input";
    return NULL;
}

static int try_all(const struct arguments *arguments, const struct request *request,
                   const struct trial_setting *setting) {
    const struct common_options *common = &arguments->common;
    struct run_results results = {0};
    int code = common->shapes != NULL
                   ? run_shapes(setting, common, request->divisor, &results)
                   : run_checkpoint(setting, arguments->operands[0], request->layer, &results);
    if (code == EXIT_YES)
        code = run_report(setting, &results, common->json);
    run_results_free(&results);
    return code;
}

static int run(struct arguments *arguments) {
    const struct common_options *common = &arguments->common;
    struct request request = {0};
    if (!read_options(arguments, &request))
        return arguments->exit_code;
    const char *mistake = find_mistake(arguments, &request);
    if (mistake != NULL)
        return complain_usage(arguments->command, "%s", mistake);

    kry_registry *registry = NULL;
    kry_device device;
    int code = open_applying_registry(common, &registry, &device);
    if (code == EXIT_YES && request.cache.folder != NULL &&
        cache_make_folder(request.cache.folder) != KRY_OK)
        code = complain(EXIT_MACHINE, "%s", kry_error_message());
    if (code == EXIT_YES) {
        static const int64_t usual_m[] = {1, 7};
        bool given = common->m_count > 0;
        long processors = sysconf(_SC_NPROCESSORS_ONLN);
        struct trial_setting setting = {.registry = registry,
                                        .device = &device,
                                        .kernel = common->kernel,
                                        .m = given ? common->m : usual_m,
                                        .m_count = given ? common->m_count : 2,
                                        .seed = common->seed,
                                        .cache = &request.cache,
                                        .threads = processors > 0 ? (int32_t)processors : 1};
        code = request.input != NULL ? run_layer(&setting, arguments->operands[0], request.layer,
                                                 request.input, request.output, common->json)
                                     : try_all(arguments, &request, &setting);
    }
    kry_registry_close(&registry);
    return code;
}

const struct command command_run = {
    .name = "run",
    .summary = "apply the layers of a model and check the numbers",
    .usage = "MODEL [--layer NAME] [--m 1,7]\n"
             "MODEL --cache DIR\n"
             "MODEL --layer NAME --input X.npy --output Y.npy\n"
             "--shapes FILE [--name NAME] [--scale-down D] [--m 1,7,64]",
    .details = "Prepares each quantized layer, applies it to random activations (normal, with\n"
               "outlier columns; fixed by --seed) and compares with a product in double that\n"
               "shares no code with any kernel. The error is |y - expected| / |expected|; its\n"
               "bound is 1e-5 for f32, 1e-3 for f16, 4e-3 for bf16. Activations with a single 1\n"
               "must give back a column of the weights to one unit in the last place. Times are\n"
               "medians of up to 15 applies.\n"
               "\n"
               "With --input the layer is applied to the rows of X.npy (little-endian f16 or f32,\n"
               "C order, [.., K]); x and y are of that type, whatever the model's is. Y.npy\n"
               "appears whole or not at all.\n"
               "\n"
               "With --shapes the weights are drawn (--seed). --scale-down divides sizes and\n"
               "offsets in whole tiles and keeps their remainders, so that what is awkward about\n"
               "a shape stays.\n"
               "\n"
               "Exit code 1 when an error is above its bound, a layer has no kernel, or a kernel\n"
               "fails; the other layers are run all the same.",
    .examples = "kernelry run MiniLM-int4\n"
                "kernelry run model --layer model.layers.0.mlp.down_proj --m 1,64 --json\n"
                "kernelry run model --layer encoder.layer.0.output.dense --input x.npy "
                "--output y.npy\n"
                "kernelry run --shapes shapes.json --kernel reference --m 1",
    .own = own,
    .takes = TAKES_REGISTRY | TAKES_DEVICE | TAKES_KERNEL | TAKES_SHAPES | TAKES_M | TAKES_SEED,
    .run = run,
};
