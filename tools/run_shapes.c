/*
 * kernelry run --shapes FILE: drawn weights of the shapes in a file.
 */
#include "run.h"

#include "progress.h"
#include "shapes.h"
#include "synthetic.h"

/** Draw the weights of a shape, try them and let them go. */
static kry_status try_shape(const struct trial_setting *setting, const struct shape *shape,
                            const kry_linear *linear, struct run_results *results) {
    struct synthetic *synthetic = NULL;
    struct oracle *oracle = NULL;
    kry_status status = synthetic_create(linear, shape->bias, setting->seed, &synthetic);
    if (status == KRY_OK) {
        struct oracle_drawn drawn = synthetic_drawn(synthetic);
        status = oracle_open_drawn(&drawn, &oracle);
    }
    if (status == KRY_OK) {
        struct trial_subject subject = {.name = shape->name,
                                        .linear = &synthetic->linear,
                                        .weights = &synthetic->weights,
                                        .bias = synthetic->bias,
                                        .oracle = oracle};
        status = run_trial(setting, &subject, results);
    }
    oracle_close(&oracle);
    synthetic_destroy(&synthetic);
    return status;
}

int run_shapes(const struct trial_setting *setting, const struct common_options *common,
               int64_t divisor, struct run_results *results) {
    struct shapes shapes = {0};
    kry_status status = shapes_read(common->shapes, common->shape_name, &shapes);
    if (status != KRY_OK)
        return complain_status(status);
    uint64_t total = 0;
    for (size_t i = 0; i < shapes.count; i++) {
        kry_linear *linear = &shapes.items[i].linear;
        if (divisor > 1)
            *linear = synthetic_scale_down(linear, divisor);
        total += (uint64_t)linear->in_features * (uint64_t)linear->out_features;
    }
    struct progress progress;
    progress_begin(&progress, total);
    for (size_t i = 0; i < shapes.count && status == KRY_OK; i++) {
        const struct shape *shape = &shapes.items[i];
        progress_advance(&progress, 0, shape->name);
        status = try_shape(setting, shape, &shape->linear, results);
        progress_advance(&progress,
                         (uint64_t)shape->linear.in_features * (uint64_t)shape->linear.out_features,
                         shape->name);
    }
    progress_clear(&progress);
    shapes_free(&shapes);
    return status == KRY_OK ? EXIT_YES : complain_status(status);
}
