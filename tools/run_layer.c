/*
 * kernelry run MODEL --layer NAME --input X.npy --output Y.npy: one layer, given activations.
 */
#include "run.h"

#include "clock.h"
#include "npy.h"

#include <inttypes.h>
#include <stdlib.h>

/** Check that an array is activations of a layer; *m is how many rows. */
static kry_status count_rows(const struct npy *x, const char *path, const char *layer,
                             int64_t in_features, int64_t *m) {
    if (x->rank == 0)
        return kry_error_set(KRY_E_FORMAT, "%s: a single number; expected [.., %" PRId64 "]", path,
                             in_features);
    if (x->shape[x->rank - 1] != in_features)
        return kry_error_set(KRY_E_FORMAT,
                             "%s: its last dimension is %" PRId64 "; %s has %" PRId64
                             " input features",
                             path, x->shape[x->rank - 1], layer, in_features);
    /* The elements are in memory: their count does not overflow. */
    *m = 1;
    for (uint32_t i = 0; i + 1 < x->rank; i++)
        *m *= x->shape[i];
    return KRY_OK;
}

/** Allocate y: x's shape with other features. */
static kry_status make_y(const struct npy *x, int64_t m, int64_t out_features, struct npy *y) {
    *y = (struct npy){.type = x->type, .rank = x->rank};
    for (uint32_t i = 0; i + 1 < x->rank; i++)
        y->shape[i] = x->shape[i];
    y->shape[x->rank - 1] = out_features;
    uint64_t bytes;
    if (__builtin_mul_overflow((uint64_t)m, (uint64_t)out_features * kry_type_bytes(x->type),
                               &bytes) ||
        (y->data = trial_allocate(bytes)) == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory for %" PRId64 " rows of y", m);
    y->bytes = bytes;
    return KRY_OK;
}

/** What an apply took. */
struct measured {
    kry_kernel_info kernel;
    int64_t prepare_nanoseconds;
    int64_t apply_nanoseconds;
};

static kry_status apply(const kry_layer *layer, const struct npy *x, int64_t m, const void *bias,
                        struct npy *y) {
    kry_workspace workspace = KRY_INIT(kry_workspace);
    kry_status status = kry_layer_workspace(layer, m, &workspace);
    if (status != KRY_OK)
        return status;
    kry_apply_args args = KRY_INIT(kry_apply_args);
    args.m = m;
    args.x = x->data;
    args.y = y->data;
    args.bias = bias;
    args.scratch_bytes = workspace.scratch_bytes;
    args.zeroed_bytes = workspace.zeroed_bytes;
    args.scratch = trial_allocate(workspace.scratch_bytes);
    args.zeroed = trial_allocate(workspace.zeroed_bytes);
    if (args.scratch == NULL || args.zeroed == NULL) {
        status = kry_error_set(KRY_E_MEMORY, "no memory for the workspace");
    } else {
        for (uint64_t i = 0; i < workspace.zeroed_bytes; i++)
            ((unsigned char *)args.zeroed)[i] = 0;
        status = kry_layer_apply(layer, &args);
    }
    free(args.scratch);
    free(args.zeroed);
    return status;
}

/** Prepare the weights for x's type and apply them. */
static kry_status multiply(const struct trial_setting *setting,
                           const kry_checkpoint_weights *weights, const struct npy *x, int64_t m,
                           struct npy *y, struct measured *measured) {
    kry_linear linear = *weights->linear;
    linear.x_type = x->type;
    linear.y_type = x->type;
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = setting->device;
    args.linear = &linear;
    args.kernel = setting->kernel;
    kry_layer *layer = NULL;
    void *bias = NULL;
    kry_status status = convert_bias(weights, linear.y_type, &bias);
    if (status == KRY_OK)
        status = kry_layer_create(setting->registry, &args, &layer);
    if (status == KRY_OK)
        status = kry_layer_kernel(layer, &measured->kernel);
    int64_t begin = clock_now();
    if (status == KRY_OK) {
        kry_prepare_args prepare = KRY_INIT(kry_prepare_args);
        prepare.weights = weights->weights;
        status = kry_layer_prepare(layer, &prepare);
    }
    int64_t prepared = clock_now();
    if (status == KRY_OK)
        status = apply(layer, x, m, bias, y);
    measured->prepare_nanoseconds = prepared - begin;
    measured->apply_nanoseconds = clock_now() - prepared;
    kry_layer_destroy(&layer);
    free(bias);
    return status;
}

static int report(const char *layer, const char *output, const struct npy *y,
                  const struct measured *measured, bool json) {
    if (!json) {
        printf("%s: [", output);
        for (uint32_t i = 0; i < y->rank; i++)
            printf("%s%" PRId64, i > 0 ? ", " : "", y->shape[i]);
        printf("] %s, by %s (plugin %s) in %.3f ms\n", y->type == KRY_TYPE_F16 ? "f16" : "f32",
               measured->kernel.kernel, measured->kernel.plugin,
               (double)measured->apply_nanoseconds * 1e-6);
        return EXIT_YES;
    }
    json_t *shape = json_array(), *object = json_object();
    for (uint32_t i = 0; i < y->rank; i++)
        json_add(shape, json_integer(y->shape[i]));
    json_put(object, "layer", json_text(layer));
    json_put(object, "output", json_text(output));
    json_put(object, "shape", shape);
    json_put(object, "type", json_text(y->type == KRY_TYPE_F16 ? "f16" : "f32"));
    json_put(object, "kernel", json_text(measured->kernel.kernel));
    json_put(object, "plugin", json_text(measured->kernel.plugin));
    json_put(object, "prepare_seconds", json_real((double)measured->prepare_nanoseconds * 1e-9));
    json_put(object, "apply_seconds", json_real((double)measured->apply_nanoseconds * 1e-9));
    return json_print(object);
}

/** Open the checkpoint's layer of that name. */
static kry_status open_weights(const char *model, const char *layer, kry_checkpoint **checkpoint,
                               kry_checkpoint_weights **weights) {
    kry_checkpoint_options options = KRY_INIT(kry_checkpoint_options);
    options.log = log_to_stderr;
    size_t index;
    kry_status status = kry_checkpoint_open(model, &options, checkpoint);
    if (status == KRY_OK)
        status = kry_checkpoint_find_layer(*checkpoint, layer, &index);
    if (status == KRY_OK)
        status = kry_checkpoint_weights_create(*checkpoint, index, NULL, weights);
    return status;
}

int run_layer(const struct trial_setting *setting, const char *model, const char *layer,
              const char *input, const char *output, bool json) {
    kry_checkpoint *checkpoint = NULL;
    kry_checkpoint_weights *weights = NULL;
    struct npy x = {0}, y = {0};
    struct measured measured = {.kernel = KRY_INIT(kry_kernel_info)};
    int64_t m = 0;
    int code;
    kry_status status = open_weights(model, layer, &checkpoint, &weights);
    if (status == KRY_OK)
        status = npy_read(input, &x);
    if (status == KRY_OK)
        status = count_rows(&x, input, layer, weights->linear->in_features, &m);
    if (status == KRY_OK)
        status = make_y(&x, m, weights->linear->out_features, &y);
    if (status != KRY_OK) {
        code = complain_status(status);
        goto out;
    }
    status = multiply(setting, weights, &x, m, &y, &measured);
    if (status != KRY_OK) {
        code = complain(status == KRY_E_MEMORY ? EXIT_MACHINE : EXIT_NO, "%s: %s%s%s", layer,
                        measured.kernel.kernel != NULL ? measured.kernel.kernel : "",
                        measured.kernel.kernel != NULL ? ": " : "", kry_error_message());
        goto out;
    }
    status = npy_write(output, &y);
    code = status == KRY_OK ? report(layer, output, &y, &measured, json)
                            : complain(EXIT_MACHINE, "%s", kry_error_message());
out:
    npy_free(&x);
    npy_free(&y);
    kry_checkpoint_weights_destroy(&weights);
    kry_checkpoint_close(&checkpoint);
    return code;
}
