/*
 * A yes always runs: through a layer of the core, as an embedder would meet the kernel.
 */
#include "layer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A layer of the core and room for its largest apply. */
struct core_layer {
    struct suite *suite;
    kry_layer *layer;
    struct synthetic *weights;
    struct given_weights given; /* the same */
    const kry_linear *linear;
    struct twin memory; /* scratch, zeroed, x, y */
};

static bool good(struct suite *suite, kry_status status) {
    if (status == KRY_OK)
        return true;
    const char *message = kry_error_message();
    /* Reported by the checks of sizes and, since what is passed was told, of the workspace. */
    if (strstr(message, "KRY-P04") != NULL || status == KRY_E_WORKSPACE)
        block(suite);
    else
        fail(suite, NULL, "%s", message[0] != '\0' ? message : kry_status_string(status));
    return false;
}

/* Where the next buffer starts: with room between, which is another check's to watch. */
static uint64_t align(uint64_t bytes) { return (bytes / KRY_ALIGNMENT + 2) * KRY_ALIGNMENT; }

static bool apply_rows(struct core_layer *core, int64_t m) {
    struct suite *suite = core->suite;
    kry_workspace workspace = KRY_INIT(kry_workspace);
    step(suite, "workspace", m);
    if (!good(suite, kry_layer_workspace(core->layer, m, &workspace)))
        return false;
    uint64_t scratch = align(workspace.scratch_bytes), zeroed = align(workspace.zeroed_bytes);
    uint64_t x =
        align((uint64_t)(m * core->linear->in_features) * kry_type_bytes(core->linear->x_type));
    uint64_t y =
        align((uint64_t)(m * core->linear->out_features) * kry_type_bytes(core->linear->y_type));
    uint64_t bytes = scratch + zeroed + x + y;
    if (bytes > core->memory.bytes) {
        twin_release(&suite->memory, &core->memory);
        if (twin_get(&suite->memory, bytes, &core->memory) != KRY_OK) {
            block(suite);
            return false;
        }
    }
    kry_apply_args args = KRY_INIT(kry_apply_args);
    args.m = m;
    unsigned char *host = core->memory.host, *device = core->memory.device;
    args.scratch = device;
    args.scratch_bytes = workspace.scratch_bytes;
    args.zeroed = device + scratch;
    args.zeroed_bytes = workspace.zeroed_bytes;
    args.x = device + scratch + zeroed;
    args.y = device + scratch + zeroed + x;
    unsigned char *y_host = host + scratch + zeroed + x;
    memset(host + scratch, 0, zeroed);
    memset(y_host, 0x7e, y);
    synthetic_activations(host + scratch + zeroed, core->linear->x_type, m,
                          core->linear->in_features, core->linear->in_features, suite->plan->seed,
                          (uint64_t)m);
    step(suite, "apply", m);
    if (!good(suite, twin_send(&suite->memory, &core->memory)) ||
        !good(suite, kry_layer_apply(core->layer, &args)) ||
        !good(suite, device_memory_wait(&suite->memory, NULL)) ||
        !good(suite, twin_fetch(&suite->memory, &core->memory)))
        return false;
    if (m == 0 && *y_host != 0x7e)
        fail(suite, NULL, "apply of no rows wrote to y");
    return true;
}

/* Create and prepare. */
static bool make_layer(struct core_layer *core, const struct item *item) {
    struct suite *suite = core->suite;
    const struct conformance_plan *plan = suite->plan;
    char kernel[160];
    snprintf(kernel, sizeof kernel, "%s/%s", plan->kernel->plugin, plan->kernel->kernel);
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = plan->device;
    args.linear = &item->linear;
    args.kernel = kernel;
    step(suite, "sizes or open_device", 0);
    if (!good(suite, kry_layer_create(plan->registry, &args, &core->layer)))
        return false;
    if (synthetic_create(&item->linear, false, weights_seed(suite, item), &core->weights) !=
            KRY_OK ||
        !given_weights_get(core->weights, FIT_LOOSE, &core->given)) {
        block(suite);
        return false;
    }
    core->weights->qweight_view.data = core->given.rows.qweight;
    core->weights->scales_view.data = core->given.rows.scales;
    core->weights->zero_points_view.data = core->given.rows.zero_points;
    core->weights->weights.g_idx = core->given.rows.g_idx;
    kry_prepare_args prepare = KRY_INIT(kry_prepare_args);
    prepare.weights = &core->weights->weights;
    step(suite, "prepare_weights", 0);
    return good(suite, kry_layer_prepare(core->layer, &prepare));
}

void check_runs(struct suite *suite, const struct item *item) {
    static const int64_t first[] = {0, 1, 2, 3, 5};
    static const int64_t then[] = {4, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 40, 63, 64, 65};
    struct core_layer core = {.suite = suite, .linear = &item->linear};
    bool runs = make_layer(&core, item);
    for (size_t i = 0; i < sizeof first / sizeof first[0] && runs; i++)
        runs = apply_rows(&core, first[i]);
    /* Of larger m each case tries two, together all. */
    size_t count = sizeof then / sizeof then[0];
    for (size_t i = 0; i < 2 && runs; i++)
        runs = apply_rows(&core, then[((size_t)item->number * 2 + i) % count]);
    kry_layer_destroy(&core.layer);
    synthetic_destroy(&core.weights);
    given_weights_release(&core.given);
    twin_release(&suite->memory, &core.memory);
}
