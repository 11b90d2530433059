/*
 * kernelry bench core: what the core itself costs, beside floors that no core could beat and
 * the targets that this one has.
 */
#include "bench.h"

#include "applying.h"
#include "clock.h"
#include "direct.h"
#include "table.h"
#include "trial.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OPENS = 15, BATCHES = 31, CALLS = 2000, RUNS = 7 };

/** A figure of the report. Units: seconds. */
struct figure {
    const char *name;
    char subject[128]; /* what it was measured on */
    double measured;
    double floor;
    double target;
};

/* ---- opening a registry -------------------------------------------------------------- */

static size_t loaded_plugins(const kry_registry *registry) {
    size_t loaded = 0, count = kry_registry_plugin_count(registry);
    for (size_t i = 0; i < count; i++) {
        kry_plugin_info info = KRY_INIT(kry_plugin_info);
        if (kry_registry_plugin(registry, i, &info) == KRY_OK && info.state == KRY_PLUGIN_LOADED)
            loaded++;
    }
    return loaded;
}

/** What the loader alone takes to be asked for each loaded file again. */
static int64_t loader_time(const kry_registry *registry) {
    int64_t begin = clock_now();
    size_t count = kry_registry_plugin_count(registry);
    for (size_t i = 0; i < count; i++) {
        kry_plugin_info info = KRY_INIT(kry_plugin_info);
        if (kry_registry_plugin(registry, i, &info) == KRY_OK && info.state == KRY_PLUGIN_LOADED) {
            void *file = dlopen(info.path, RTLD_NOW | RTLD_LOCAL);
            if (file != NULL)
                dlclose(file); /* drops this reference; the registry's stays */
        }
    }
    return clock_now() - begin;
}

static int measure_open(const struct common_options *common, const kry_registry *registry,
                        struct figure *out) {
    int64_t times[OPENS], floors[OPENS];
    for (int i = 0; i < OPENS; i++) {
        kry_registry *other = NULL;
        int64_t begin = clock_now();
        int code = open_registry(common, &other);
        times[i] = clock_now() - begin;
        if (code != EXIT_YES)
            return code;
        kry_registry_close(&other);
        floors[i] = loader_time(registry);
    }
    out->name = "open a registry, warm";
    out->measured = (double)median_of(times, OPENS) * 1e-9;
    out->floor = (double)median_of(floors, OPENS) * 1e-9;
    out->target = 20e-3;
    snprintf(out->subject, sizeof out->subject, "%zu plugins (target: 50)",
             loaded_plugins(registry));
    return EXIT_YES;
}

/* ---- a decision ---------------------------------------------------------------------- */

/** A platform's kernels. */
struct candidate {
    const kry_linear_kernel *functions;
};

struct candidates {
    struct candidate *items;
    size_t count;
};

static kry_status find_candidates(const kry_registry *registry, const kry_device *device,
                                  struct candidates *out) {
    size_t count = kry_registry_kernel_count(registry, device->platform);
    *out = (struct candidates){.items = calloc(count + 1, sizeof *out->items)};
    if (out->items == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    kry_status status = KRY_OK;
    for (size_t i = 0; i < count && status == KRY_OK; i++) {
        kry_kernel_info info = KRY_INIT(kry_kernel_info);
        status = kry_registry_kernel(registry, device->platform, i, &info);
        if (status == KRY_OK)
            status = direct_find(registry, &info, &out->items[out->count++].functions);
    }
    return status;
}

static kry_status decide(const kry_registry *registry, const kry_device *device,
                         const kry_linear *linear, int64_t *nanoseconds) {
    kry_status status = KRY_OK;
    int64_t begin = clock_now();
    for (int i = 0; i < CALLS && status == KRY_OK; i++) {
        kry_decision *decision = NULL;
        status = kry_decide(registry, device, linear, &decision);
        kry_decision_destroy(&decision);
    }
    *nanoseconds = clock_now() - begin;
    return status;
}

/** Ask each kernel, and nothing more. */
static int64_t ask_all(const struct candidates *candidates, const kry_device *device,
                       const kry_linear *linear) {
    int64_t begin = clock_now();
    for (int i = 0; i < CALLS; i++)
        for (size_t j = 0; j < candidates->count; j++) {
            kry_refusal refusal = KRY_INIT(kry_refusal);
            candidates->items[j].functions->can_implement(device, linear, &refusal);
        }
    return clock_now() - begin;
}

static kry_status measure_decision(const kry_registry *registry, const kry_device *device,
                                   struct figure *out) {
    kry_linear asked = KRY_INIT(kry_linear), linear = KRY_INIT(kry_linear);
    asked.in_features = 2112;
    asked.out_features = 2816;
    asked.group_size = 32;
    asked.weight_type = KRY_WEIGHT_U4B8;
    asked.x_type = KRY_TYPE_BF16;
    struct candidates candidates;
    int64_t times[BATCHES], floors[BATCHES];
    kry_status status = find_candidates(registry, device, &candidates);
    if (status == KRY_OK)
        status = kry_linear_complete(&asked, &linear);
    for (int i = 0; i < BATCHES && status == KRY_OK; i++) {
        status = decide(registry, device, &linear, &times[i]);
        floors[i] = ask_all(&candidates, device, &linear);
    }
    if (status == KRY_OK) {
        out->name = "decide";
        out->measured = (double)median_of(times, BATCHES) * 1e-9 / CALLS;
        out->floor = (double)median_of(floors, BATCHES) * 1e-9 / CALLS;
        out->target = 5e-6;
        snprintf(out->subject, sizeof out->subject, "%zu kernels (target: 50), 2112×2816",
                 candidates.count);
    }
    free(candidates.items);
    return status;
}

/* ---- an apply ------------------------------------------------------------------------ */

/** Prepared both ways: through the core, and without it. */
struct both {
    struct synthetic *synthetic;
    kry_layer *layer;
    struct direct direct;
    kry_apply_args args;
};

static void both_release(struct both *both) {
    direct_close(&both->direct);
    kry_layer_destroy(&both->layer);
    synthetic_destroy(&both->synthetic);
    free((void *)both->args.x);
    free(both->args.y);
    free(both->args.scratch);
    free(both->args.zeroed);
}

/** A small layer, so that the kernel's own time hides little. */
static kry_status make_synthetic(struct synthetic **out) {
    kry_linear linear = KRY_INIT(kry_linear);
    linear.in_features = 64;
    linear.out_features = 8;
    linear.group_size = 32;
    linear.weight_type = KRY_WEIGHT_U4B8;
    linear.x_type = KRY_TYPE_F32;
    return synthetic_create(&linear, false, 0, out);
}

static kry_status make_args(struct both *both) {
    const kry_linear *linear = &both->synthetic->linear;
    kry_workspace workspace = KRY_INIT(kry_workspace);
    kry_status status = kry_layer_workspace(both->layer, 1, &workspace);
    if (status != KRY_OK)
        return status;
    void *x = trial_allocate((uint64_t)linear->in_features * sizeof(float));
    kry_apply_args *args = &both->args;
    *args = KRY_INIT(kry_apply_args);
    args->m = 1;
    args->x = x;
    args->y = trial_allocate((uint64_t)linear->out_features * sizeof(float));
    args->x_stride = linear->in_features;
    args->y_stride = linear->out_features;
    args->scratch = trial_allocate(workspace.scratch_bytes);
    args->zeroed = trial_allocate(workspace.zeroed_bytes);
    args->scratch_bytes = workspace.scratch_bytes;
    args->zeroed_bytes = workspace.zeroed_bytes;
    args->host = &both->direct.host;
    if (x == NULL || args->y == NULL || args->scratch == NULL || args->zeroed == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    memset(args->zeroed, 0, workspace.zeroed_bytes);
    synthetic_activations(x, linear->x_type, 1, linear->in_features, linear->in_features, 0, 0);
    return KRY_OK;
}

static kry_status make_both(kry_registry *registry, const kry_device *device, const char *kernel,
                            kry_kernel_info *info, struct both *both) {
    const kry_linear_kernel *functions = NULL;
    kry_status status = make_synthetic(&both->synthetic);
    if (status != KRY_OK)
        return status;
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = device;
    args.linear = &both->synthetic->linear;
    args.kernel = kernel;
    status = kry_layer_create(registry, &args, &both->layer);
    if (status == KRY_OK) {
        kry_prepare_args prepare = KRY_INIT(kry_prepare_args);
        prepare.weights = &both->synthetic->weights;
        status = kry_layer_prepare(both->layer, &prepare);
    }
    if (status == KRY_OK)
        status = kry_layer_kernel(both->layer, info);
    if (status == KRY_OK)
        status = direct_find(registry, info, &functions);
    if (status == KRY_OK)
        status = direct_open(functions, device, both->synthetic, &both->direct);
    if (status == KRY_OK)
        status = make_args(both);
    return status;
}

/** The kernel to measure with: the one asked for, one called noop, or the decision's. */
static const char *choose_kernel(const kry_registry *registry, const kry_device *device,
                                 const char *asked) {
    size_t count = kry_registry_kernel_count(registry, device->platform);
    for (size_t i = 0; asked == NULL && i < count; i++) {
        kry_kernel_info info = KRY_INIT(kry_kernel_info);
        if (kry_registry_kernel(registry, device->platform, i, &info) == KRY_OK &&
            strcmp(info.kernel, "noop") == 0)
            return "noop";
    }
    return asked;
}

static kry_status measure_apply(kry_registry *registry, const kry_device *device, const char *asked,
                                struct figure *out) {
    struct both both = {0};
    kry_kernel_info info = KRY_INIT(kry_kernel_info);
    int64_t times[BATCHES], floors[BATCHES];
    kry_status status =
        make_both(registry, device, choose_kernel(registry, device, asked), &info, &both);
    for (int i = 0; i < BATCHES && status == KRY_OK; i++) {
        int64_t begin = clock_now();
        for (int call = 0; call < CALLS && status == KRY_OK; call++)
            status = kry_layer_apply(both.layer, &both.args);
        int64_t middle = clock_now();
        for (int call = 0; call < CALLS && status == KRY_OK; call++)
            status = both.direct.functions->apply(&both.direct.binding, &both.args);
        floors[i] = clock_now() - middle;
        times[i] = middle - begin;
    }
    if (status == KRY_OK) {
        double floor = (double)median_of(floors, BATCHES) * 1e-9 / CALLS;
        out->name = "apply";
        out->measured = (double)median_of(times, BATCHES) * 1e-9 / CALLS;
        out->floor = floor;
        out->target = floor + 100e-9;
        snprintf(out->subject, sizeof out->subject, "kernel %s, 64×8, m 1", info.kernel);
    }
    both_release(&both);
    return status;
}

/* ---- check --------------------------------------------------------------------------- */

/** Run this program with arguments, its output thrown away. Returns ns, or -1. */
static int64_t time_self(char *const *arguments) {
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return -1;
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int64_t begin = clock_now();
    pid_t child;
    int status = -1;
    bool ran = posix_spawn(&child, "/proc/self/exe", &actions, NULL, arguments, environ) == 0 &&
               waitpid(child, &status, 0) == child && WIFEXITED(status) &&
               WEXITSTATUS(status) <= EXIT_NO;
    int64_t time = clock_now() - begin;
    posix_spawn_file_actions_destroy(&actions);
    return ran ? time : -1;
}

static int measure_check(const struct common_options *common, const char *model,
                         struct figure *out) {
    /* The same plugins as ours; a path is one argument more. */
    size_t count = 0;
    char **arguments = calloc(2 * common->plugin_path_count + 8, sizeof *arguments);
    if (arguments == NULL)
        return complain(EXIT_MACHINE, "out of memory");
    arguments[count++] = (char *)"kernelry";
    arguments[count++] = (char *)"check";
    arguments[count++] = (char *)model;
    arguments[count++] = (char *)"--device";
    arguments[count++] = (char *)common->device;
    if (common->relax_trust)
        arguments[count++] = (char *)"--relax-trust";
    for (size_t i = 0; i < common->plugin_path_count; i++) {
        arguments[count++] = (char *)"--plugin-path";
        arguments[count++] = (char *)common->plugin_paths[i];
    }
    char *const version[] = {(char *)"kernelry", (char *)"version", NULL};
    int64_t times[RUNS], floors[RUNS];
    bool ran = true;
    for (int i = 0; i < RUNS && ran; i++) {
        times[i] = time_self(arguments);
        floors[i] = time_self(version);
        ran = times[i] >= 0 && floors[i] >= 0;
    }
    free(arguments);
    if (!ran)
        return complain(EXIT_INPUT, "%s: 'kernelry check' fails on it", model);
    out->name = "kernelry check";
    out->measured = (double)median_of(times, RUNS) * 1e-9;
    out->floor = (double)median_of(floors, RUNS) * 1e-9;
    out->target = 150e-3;
    snprintf(out->subject, sizeof out->subject, "%.100s", model);
    return EXIT_YES;
}

/* ---- the report ---------------------------------------------------------------------- */

/** Seconds in a unit that suits them. */
static const char *seconds_format(double seconds, char out[32]) {
    if (seconds < 1e-6)
        snprintf(out, 32, "%.1f ns", seconds * 1e9);
    else if (seconds < 1e-3)
        snprintf(out, 32, "%.2f us", seconds * 1e6);
    else
        snprintf(out, 32, "%.2f ms", seconds * 1e3);
    return out;
}

static int report(const struct figure *figures, size_t count, bool json) {
    static const struct column columns[] = {
        {"WHAT", false}, {"ON", false}, {"TAKES", true}, {"FLOOR", true}, {"TARGET", true}};
    if (json) {
        json_t *list = json_array(), *object = json_object();
        for (size_t i = 0; i < count; i++) {
            json_t *figure = json_object();
            json_put(figure, "name", json_text(figures[i].name));
            json_put(figure, "subject", json_text(figures[i].subject));
            json_put(figure, "seconds", json_real(figures[i].measured));
            json_put(figure, "floor_seconds", json_real(figures[i].floor));
            json_put(figure, "target_seconds", json_real(figures[i].target));
            json_add(list, figure);
        }
        json_put(object, "figures", list);
        return json_print(object);
    }
    struct table table;
    table_begin(&table, columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < count; i++) {
        char text[32];
        const struct figure *figure = &figures[i];
        table_add(&table, STYLE_BOLD, "%s", figure->name);
        table_add(&table, STYLE_PLAIN, "%s", figure->subject);
        table_add(&table, figure->measured <= figure->target ? STYLE_GOOD : STYLE_WARNING, "%s",
                  seconds_format(figure->measured, text));
        table_add(&table, STYLE_DIM, "%s", seconds_format(figure->floor, text));
        table_add(&table, STYLE_PLAIN, "%s", seconds_format(figure->target, text));
    }
    return table_print(&table, stdout, 0) ? EXIT_YES : complain(EXIT_MACHINE, "out of memory");
}

int bench_core(const struct common_options *common, const char *model) {
    struct figure figures[4] = {0};
    size_t count = 0;
    kry_registry *registry = NULL;
    kry_device device;
    mute_log(true);
    int code = open_applying_registry(common, &registry, &device);
    if (code == EXIT_YES)
        code = measure_open(common, registry, &figures[count++]);
    if (code == EXIT_YES) {
        kry_status status = measure_decision(registry, &device, &figures[count++]);
        if (status == KRY_OK)
            status = measure_apply(registry, &device, common->kernel, &figures[count++]);
        code = status == KRY_OK ? EXIT_YES : complain_status(status);
    }
    if (code == EXIT_YES && model != NULL)
        code = measure_check(common, model, &figures[count++]);
    mute_log(false);
    if (code == EXIT_YES)
        code = report(figures, count, common->json);
    kry_registry_close(&registry);
    return code;
}
