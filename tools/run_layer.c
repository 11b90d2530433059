/*
 * kernelry run MODEL --layer NAME --input X.npy --output Y.npy: one layer, given activations.
 */
#include "run.h"

#include "clock.h"
#include "npy.h"
#include "operands.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

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

/** Apply once and wait; *nanoseconds is what that took. */
static kry_status apply_operands(const struct device_memory *memory, const kry_layer *layer,
                                 int64_t m, const struct operands *operands, int64_t *nanoseconds) {
    int64_t begin = clock_now();
    kry_status status = row_operands_apply(layer, m, operands);
    if (status == KRY_OK)
        status = device_memory_wait(memory, NULL);
    *nanoseconds = clock_now() - begin;
    return status;
}

static kry_status apply(const struct device_memory *memory, const kry_layer *layer,
                        const struct npy *x, int64_t m, const void *bias, struct npy *y,
                        int64_t *nanoseconds) {
    kry_workspace workspace = KRY_INIT(kry_workspace);
    kry_status status = kry_layer_workspace(layer, m, &workspace);
    if (status != KRY_OK)
        return status;
    const kry_linear *linear = kry_layer_linear(layer, 0);
    uint64_t bias_bytes =
        bias != NULL ? (uint64_t)linear->out_features * kry_type_bytes(linear->y_type) : 0;
    struct operands operands = {0};
    const struct operand_bytes sizes = {x->bytes, y->bytes, bias_bytes, workspace.scratch_bytes,
                                        workspace.zeroed_bytes};
    status = row_operands_get(memory, &sizes, &operands);
    if (status == KRY_OK) {
        memcpy(operands.x.host, x->data, x->bytes);
        if (bias != NULL)
            memcpy(operands.bias.host, bias, bias_bytes);
        status = twin_send(memory, &operands.x);
    }
    if (status == KRY_OK)
        status = twin_send(memory, &operands.bias);
    if (status == KRY_OK)
        status = device_memory_clear(memory, operands.zeroed.device, operands.zeroed.bytes);
    if (status == KRY_OK)
        status = apply_operands(memory, layer, m, &operands, nanoseconds);
    if (status == KRY_OK)
        status = twin_fetch(memory, &operands.y);
    if (status == KRY_OK)
        memcpy(y->data, operands.y.host, y->bytes);
    row_operands_release(memory, &operands);
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
    struct device_memory memory;
    kry_status status = device_memory_open(setting->registry, setting->device, &memory);
    if (status == KRY_OK)
        status = convert_bias(weights, linear.y_type, &bias);
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
    measured->prepare_nanoseconds = clock_now() - begin;
    if (status == KRY_OK)
        status = apply(&memory, layer, x, m, bias, y, &measured->apply_nanoseconds);
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
