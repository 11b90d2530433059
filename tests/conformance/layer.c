#include "layer.h"

#include "floats.h"
#include "hooks.h"
#include "mirror.h"
#include "random.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What runs into the guards of these breaks that duty. */
static const struct memory_label prepared_label = {"the prepared weights", "KRY-P17", "KRY-P10"},
                                 bound_label = {"the bound state", "KRY-P17", "KRY-P10"},
                                 prepare_scratch_label = {"prepare's scratch", "KRY-P17", NULL},
                                 scratch_label = {"apply's scratch", "KRY-P17", NULL},
                                 zeroed_label = {"the zeroed part", "KRY-P17", NULL},
                                 x_label = {"x", "KRY-P10", NULL}, y_label = {"y", "KRY-P10", NULL},
                                 bias_label = {"bias", "KRY-P10", NULL};

uint64_t weights_seed(const struct suite *suite, const struct item *item) {
    return suite->plan->seed + (uint64_t)item->number;
}

/* ---- weights ---------------------------------------------------------------------------- */

static const struct memory_label qweight_label = {"the weights' codes", "KRY-P17", NULL},
                                 scales_label = {"the scales", "KRY-P17", NULL},
                                 zero_points_label = {"the zero points", "KRY-P17", NULL},
                                 g_idx_label = {"g_idx", "KRY-P17", NULL};

static const void *give(struct memory *out, const struct memory_label *label, const void *from,
                        uint64_t bytes, size_t alignment, enum fit fit, bool *good) {
    if (from == NULL || !*good)
        return NULL;
    *good = memory_get(out, label, bytes, alignment, fit);
    if (!*good)
        return NULL;
    memcpy(out->data, from, bytes);
    memory_seal(out, true);
    return out->data;
}

bool given_weights_get(const struct synthetic *weights, enum fit fit, struct given_weights *out) {
    const kry_linear *linear = &weights->linear;
    bool good = true;
    *out = (struct given_weights){.rows = {.struct_size = sizeof(kry_canonical),
                                           .n_end = linear->out_features,
                                           .qweight_stride = weights->qweight_view.n_stride,
                                           .scale_stride = weights->scales_view.n_stride,
                                           .zero_stride = weights->zero_points_view.n_stride,
                                           .memory = KRY_MEMORY_HOST}};
    out->rows.qweight = give(&out->qweight, &qweight_label, weights->qweight,
                             weights->qweight_view.bytes, 4, fit, &good);
    out->rows.scales =
        give(&out->scales, &scales_label, weights->scales, weights->scales_view.bytes,
             kry_type_bytes(linear->scale_type), fit, &good);
    out->rows.zero_points = give(&out->zero_points, &zero_points_label, weights->zero_points,
                                 weights->zero_points_view.bytes, 1, fit, &good);
    out->rows.g_idx = give(&out->g_idx, &g_idx_label, weights->g_idx,
                           (uint64_t)linear->in_features * sizeof(int32_t), 4, fit, &good);
    return good;
}

void given_weights_release(struct given_weights *weights) {
    memory_release(&weights->qweight);
    memory_release(&weights->scales);
    memory_release(&weights->zero_points);
    memory_release(&weights->g_idx);
}

/* ---- preparing ------------------------------------------------------------------------- */

static bool get(struct layer *layer, struct memory *out, const struct memory_label *label,
                uint64_t bytes) {
    if (memory_get(out, label, bytes, KRY_ALIGNMENT, layer->fit))
        return true;
    block(layer->suite);
    return false;
}

bool layer_open(struct suite *suite, const struct item *item, enum fit fit, struct layer *out) {
    const kry_device *device = suite->plan->device;
    *out = (struct layer){.suite = suite,
                          .linear = &item->linear,
                          .fit = fit,
                          .sizes = {.struct_size = sizeof(kry_sizes)}};
    services_make(&out->services, 1, 0);
    step(suite, "sizes", 0);
    if (suite->functions->sizes(device, &item->linear, &out->sizes) != KRY_OK ||
        out->sizes.prepare_multiple < 1 ||
        synthetic_create(&item->linear, true, weights_seed(suite, item), &out->weights) != KRY_OK ||
        !given_weights_get(out->weights, fit, &out->given)) {
        block(suite);
        return false;
    }
    out->binding = (kry_binding){.struct_size = sizeof(kry_binding),
                                 .device = device,
                                 .linear = &item->linear,
                                 .device_state = suite->device_state,
                                 .host = &out->services.host};
    if (!get(out, &out->prepared, &prepared_label, out->sizes.prepared_bytes) ||
        !get(out, &out->bound, &bound_label, out->sizes.bound_bytes) ||
        !get(out, &out->scratch, &prepare_scratch_label, out->sizes.prepare_scratch_bytes))
        return false;
    memory_fill(&out->prepared, 0);
    return true;
}

void expect_intact(struct suite *suite, const struct memory *memory, const char *called) {
    int64_t place;
    if (memory->map == NULL || memory_intact(memory, &place))
        return;
    fail(suite, memory->label->duty, "%s wrote to the byte %" PRId64 " %s %s", called,
         place < 0 ? -place : place, place < 0 ? "before" : "behind", memory->label->name);
}

void expect_untouched(struct suite *suite, const char *called) {
    struct memory_touch touch = mirror_touched();
    const struct memory_label *label = touch.label;
    if (label == NULL)
        return;
    if (touch.inside)
        fail(suite, label->writing_duty != NULL ? label->writing_duty : label->duty,
             "%s wrote to %s", called, label->name);
    else
        fail(suite, label->duty, "%s wrote to the byte %" PRId64 " %s %s", called,
             touch.distance < 0 ? -touch.distance : touch.distance,
             touch.distance < 0 ? "before" : "behind", label->name);
}

/* Rows on the device for one call. */
struct lent_rows {
    struct lent_copy qweight, scales, zero_points, g_idx;
};

static void take_back_rows(struct lent_rows *lent) {
    mirror_take_back(&lent->qweight);
    mirror_take_back(&lent->scales);
    mirror_take_back(&lent->zero_points);
    mirror_take_back(&lent->g_idx);
}

/* Bytes from the first of some rows to the end of the last. */
static uint64_t extent(int64_t rows, int64_t stride, int64_t columns, size_t width) {
    return (uint64_t)((rows - 1) * stride + columns) * width;
}

static bool lend_rows(const kry_linear *linear, kry_canonical *rows, struct lent_rows *out) {
    int64_t count = rows->n_end - rows->n_begin, groups = kry_linear_groups(linear);
    int64_t per_word = 32 / kry_weight_bits(linear->weight_type);
    int64_t words = (linear->in_features + per_word - 1) / per_word;
    size_t width = kry_type_bytes(linear->scale_type);
    rows->memory = KRY_MEMORY_DEVICE;
    rows->qweight =
        mirror_lend(rows->qweight, extent(count, rows->qweight_stride, words, 4), &out->qweight);
    rows->scales =
        mirror_lend(rows->scales, extent(count, rows->scale_stride, groups, width), &out->scales);
    bool good = rows->qweight != NULL && rows->scales != NULL;
    if (good && rows->zero_points != NULL) {
        rows->zero_points = mirror_lend(
            rows->zero_points, extent(count, rows->zero_stride, groups, 1), &out->zero_points);
        good = rows->zero_points != NULL;
    }
    if (good && rows->g_idx != NULL) {
        rows->g_idx = mirror_lend(rows->g_idx, (uint64_t)linear->in_features * 4, &out->g_idx);
        good = rows->g_idx != NULL;
    }
    return good;
}

/* KRY_OK, or that a call has left its buffers; expect_untouched tells it. */
static kry_status after_call(kry_status status, bool fetched) {
    return status != KRY_OK ? status : fetched ? KRY_OK : KRY_E_DEVICE;
}

kry_status call_prepare(const struct layer *layer, kry_prepare_call *call, kry_canonical *rows) {
    const struct suite *suite = layer->suite;
    const kry_linear_kernel *functions = suite->functions;
    call->weights = rows;
    if (!suite->on_device)
        return functions->prepare_weights(call);
    struct lent_rows lent = {0};
    kry_status status = KRY_E_MEMORY;
    call->prepared = mirror_send(&layer->prepared);
    call->scratch = mirror_send(&layer->scratch);
    if (call->prepared != NULL && call->scratch != NULL && lend_rows(layer->linear, rows, &lent)) {
        status = functions->prepare_weights(call);
        if (status == KRY_OK)
            status = device_memory_wait(&suite->memory, NULL);
        status =
            after_call(status, mirror_fetch(&layer->prepared) && mirror_fetch(&layer->scratch));
    }
    take_back_rows(&lent);
    return status;
}

kry_status prepare_alone(struct layer *layer, const kry_canonical *weights) {
    kry_canonical rows = *weights;
    kry_prepare_call call = {.struct_size = sizeof call,
                             .device = layer->suite->plan->device,
                             .linear = layer->linear,
                             .device_state = layer->suite->device_state,
                             .prepared = layer->prepared.data,
                             .scratch = layer->scratch.data,
                             .host = &layer->services.host};
    return call_prepare(layer, &call, &rows);
}

bool layer_prepare(struct layer *layer, const kry_canonical *weights) {
    step(layer->suite, "prepare_weights", 0);
    kry_status status = prepare_alone(layer, weights);
    expect_untouched(layer->suite, "prepare_weights");
    if (status == KRY_OK)
        return true;
    block(layer->suite);
    return false;
}

kry_status bind_alone(struct layer *layer) {
    const struct suite *suite = layer->suite;
    layer->binding.prepared =
        suite->on_device ? mirror_send(&layer->prepared) : (void *)layer->prepared.data;
    layer->binding.bound = layer->sizes.bound_bytes > 0 ? layer->bound.data : NULL;
    if (layer->binding.prepared == NULL)
        return KRY_E_MEMORY;
    if (suite->functions->bind == NULL)
        return KRY_OK;
    return suite->functions->bind(&layer->binding);
}

bool layer_bind(struct layer *layer) {
    step(layer->suite, "bind", 0);
    if (bind_alone(layer) == KRY_OK)
        return true;
    block(layer->suite);
    return false;
}

bool layer_fill(struct layer *layer, const kry_canonical *weights) {
    return layer_prepare(layer, weights) && layer_bind(layer);
}

bool layer_ready(struct suite *suite, const struct item *item, struct layer *out) {
    return layer_open(suite, item, FIT_LOOSE, out) && layer_fill(out, &out->given.rows);
}

void layer_close(struct layer *layer) {
    synthetic_destroy(&layer->weights);
    given_weights_release(&layer->given);
    memory_release(&layer->prepared);
    memory_release(&layer->bound);
    memory_release(&layer->scratch);
}

/* ---- applying -------------------------------------------------------------------------- */

void operands_release(struct operands *operands) {
    memory_release(&operands->x);
    memory_release(&operands->y);
    memory_release(&operands->bias);
    memory_release(&operands->scratch);
    memory_release(&operands->zeroed);
}

/* Rows and the gaps between them; there is none behind the last. */
static size_t rows_bytes(int64_t m, int64_t stride, int64_t columns, uint32_t type) {
    return (size_t)((m - 1) * stride + columns) * kry_type_bytes(type);
}

/* Draw x row by row: synthetic_activations writes NaN behind each, the last one too. */
static void draw_x(const struct layer *layer, const struct operands *operands, bool nan_gaps,
                   uint64_t stream) {
    const kry_linear *linear = layer->linear;
    size_t width = kry_type_bytes(linear->x_type), columns = (size_t)linear->in_features;
    for (int64_t row = 0; row < operands->m; row++) {
        unsigned char *x = operands->x.data + (size_t)(row * operands->x_stride) * width;
        int64_t stride = row + 1 < operands->m ? operands->x_stride : linear->in_features;
        synthetic_activations(x, linear->x_type, 1, linear->in_features, stride,
                              layer->suite->plan->seed + (uint64_t)row, stream);
        if (!nan_gaps)
            memset(x + columns * width, 0, ((size_t)stride - columns) * width);
    }
}

void operands_reset(const struct layer *layer, const struct operands *operands) {
    size_t width = kry_type_bytes(layer->linear->y_type);
    size_t row_bytes = (size_t)layer->linear->out_features * width;
    size_t stride_bytes = (size_t)operands->y_stride * width;
    memory_fill(&operands->y, 0xff);
    for (int64_t row = 0; row + 1 < operands->m; row++)
        memset(operands->y.data + (size_t)row * stride_bytes + row_bytes, Y_GAP,
               stride_bytes - row_bytes);
    memory_fill(&operands->zeroed, 0);
}

static bool ask_workspace(const struct layer *layer, int64_t m, kry_workspace *out) {
    const struct suite *suite = layer->suite;
    *out = (kry_workspace){.struct_size = sizeof *out};
    if (suite->functions->workspace == NULL)
        return true;
    step(layer->suite, "workspace", m);
    return suite->functions->workspace(suite->plan->device, layer->linear, m, out) == KRY_OK;
}

bool operands_get(const struct layer *layer, int64_t m, const struct operand_style *style,
                  uint64_t stream, struct operands *out) {
    static const struct operand_style dense = {0};
    const kry_linear *linear = layer->linear;
    if (style == NULL)
        style = &dense;
    *out = (struct operands){.m = m,
                             .x_stride = linear->in_features + style->x_gap,
                             .y_stride = linear->out_features + style->y_gap};
    size_t alignment = style->alignment > 0 ? style->alignment : KRY_ALIGNMENT;
    size_t width = kry_type_bytes(linear->y_type);
    enum fit fit = style->fit, workspace_fit = style->workspace_fit;
    bool good =
        ask_workspace(layer, m, &out->workspace) &&
        memory_get(&out->x, &x_label,
                   rows_bytes(m, out->x_stride, linear->in_features, linear->x_type), alignment,
                   fit) &&
        memory_get(&out->y, &y_label,
                   rows_bytes(m, out->y_stride, linear->out_features, linear->y_type), alignment,
                   fit) &&
        memory_get(&out->bias, &bias_label, (size_t)linear->out_features * width, alignment, fit) &&
        memory_get(&out->scratch, &scratch_label, out->workspace.scratch_bytes, KRY_ALIGNMENT,
                   workspace_fit) &&
        memory_get(&out->zeroed, &zeroed_label, out->workspace.zeroed_bytes, KRY_ALIGNMENT,
                   workspace_fit);
    if (!good) {
        block(layer->suite);
        operands_release(out);
        return false;
    }
    draw_x(layer, out, style->nan_gaps, stream);
    memcpy(out->bias.data, layer->weights->bias, out->bias.bytes);
    operands_reset(layer, out);
    return true;
}

kry_apply_args apply_args(const struct operands *operands, const kry_host *host) {
    return (kry_apply_args){.struct_size = sizeof(kry_apply_args),
                            .m = operands->m,
                            .x = operands->x.data,
                            .y = operands->y.data,
                            .bias = operands->with_bias ? operands->bias.data : NULL,
                            .x_stride = operands->x_stride,
                            .y_stride = operands->y_stride,
                            .scratch = operands->scratch.data,
                            .zeroed = operands->zeroed.data,
                            .scratch_bytes = operands->workspace.scratch_bytes,
                            .zeroed_bytes = operands->workspace.zeroed_bytes,
                            .host = host};
}

bool operands_send(const struct operands *operands, kry_apply_args *args) {
    args->x = mirror_send(&operands->x);
    args->y = mirror_send(&operands->y);
    args->scratch = mirror_send(&operands->scratch);
    args->zeroed = mirror_send(&operands->zeroed);
    bool good = args->x != NULL && args->y != NULL && args->scratch != NULL && args->zeroed != NULL;
    if (good && args->bias != NULL) {
        args->bias = mirror_send(&operands->bias);
        good = args->bias != NULL;
    }
    return good;
}

bool operands_fetch(const struct layer *layer, const struct operands *operands,
                    const kry_apply_args *args) {
    return mirror_fetch(&operands->y) && mirror_fetch(&operands->scratch) &&
           mirror_fetch(&operands->zeroed) && mirror_compare(&operands->x) &&
           mirror_compare(&layer->prepared) &&
           (args->bias == NULL || mirror_compare(&operands->bias));
}

static kry_status call_watched(const struct suite *suite, const kry_binding *binding,
                               const kry_apply_args *args) {
    hooks_enter();
    kry_status status = suite->functions->apply(binding, args);
    hooks_leave();
    return status;
}

kry_status call_apply(const struct layer *layer, const struct operands *operands,
                      const kry_binding *binding, kry_apply_args *args) {
    const struct suite *suite = layer->suite;
    if (!suite->on_device)
        return call_watched(suite, binding, args);
    if (!operands_send(operands, args))
        return KRY_E_MEMORY;
    kry_status status = call_watched(suite, binding, args);
    if (status == KRY_OK)
        status = device_memory_wait(&suite->memory, NULL);
    return after_call(status, operands_fetch(layer, operands, args));
}

kry_status apply_alone(const struct layer *layer, const struct operands *operands,
                       const kry_host *host) {
    kry_apply_args args = apply_args(operands, host != NULL ? host : &layer->services.host);
    return call_apply(layer, operands, &layer->binding, &args);
}

bool apply(const struct layer *layer, struct operands *operands, const kry_host *host) {
    operands_reset(layer, operands);
    step(layer->suite, "apply", operands->m);
    kry_status status = apply_alone(layer, operands, host);
    expect_untouched(layer->suite, "apply");
    if (status == KRY_OK)
        return true;
    block(layer->suite);
    return false;
}

bool applied(const struct layer *layer, int64_t m, uint64_t stream, struct operands *out) {
    if (!operands_get(layer, m, NULL, stream, out))
        return false;
    if (apply(layer, out, NULL))
        return true;
    operands_release(out);
    return false;
}

/* ---- comparing ------------------------------------------------------------------------- */

double *y_values(const struct layer *layer, const struct operands *operands) {
    int64_t columns = layer->linear->out_features;
    double *values = malloc((size_t)(operands->m * columns) * sizeof *values);
    for (int64_t row = 0; row < operands->m && values != NULL; row++)
        for (int64_t n = 0; n < columns; n++)
            values[row * columns + n] =
                float_load(operands->y.data, row * operands->y_stride + n, layer->linear->y_type);
    if (values == NULL)
        block(layer->suite);
    return values;
}

uint32_t activation_of(const struct suite *suite, const kry_linear *linear) {
    if ((suite->plan->kernel->flags & KRY_KERNEL_INT8_ACTIVATIONS) != 0 &&
        (linear->allowed & KRY_ALLOW_INT8_ACTIVATIONS) != 0 &&
        linear->activation_quantization == KRY_ACTIVATION_NONE)
        return KRY_ACTIVATION_INT8_TOKEN;
    return linear->activation_quantization;
}

struct oracle_error compare(const struct layer *layer, const struct operands *operands,
                            const double *expected, double *part) {
    const kry_linear *linear = layer->linear;
    struct oracle_error error = oracle_compare(operands->y.data, linear->y_type, operands->y_stride,
                                               operands->m, linear->out_features, expected);
    *part = error.relative / oracle_bound(linear->y_type, activation_of(layer->suite, linear));
    return error;
}

void expect_same(const struct layer *layer, const struct operands *operands, const double *expected,
                 const char *what) {
    const kry_linear *linear = layer->linear;
    double part;
    struct oracle_error error = compare(layer, operands, expected, &part);
    /* Both runs may be off by what is allowed, and a few elements may cancel. */
    enum { FEW = 16 };
    if (!(part <= (operands->m * linear->out_features < FEW ? 16 : 2)))
        fail(layer->suite, NULL,
             "%s: y[%" PRId64 ", %" PRId64 "] is %g, was %g (relative difference of all %.2g)",
             what, error.row, error.column,
             float_load(operands->y.data, error.row * operands->y_stride + error.column,
                        linear->y_type),
             expected[error.row * linear->out_features + error.column], error.relative);
}

void expect_equal(const struct layer *layer, const struct operands *operands,
                  const double *expected, const char *what) {
    const kry_linear *linear = layer->linear;
    if ((layer->suite->plan->kernel->flags & KRY_KERNEL_DETERMINISTIC) == 0) {
        expect_same(layer, operands, expected, what);
        return;
    }
    for (int64_t row = 0; row < operands->m; row++)
        for (int64_t n = 0; n < linear->out_features; n++) {
            double found =
                float_load(operands->y.data, row * operands->y_stride + n, linear->y_type);
            double was = expected[row * linear->out_features + n];
            if (found != was && !(isnan(found) && isnan(was))) {
                fail(layer->suite, NULL,
                     "%s: y[%" PRId64 ", %" PRId64 "] is %.9g, was %.9g, in a kernel that is said "
                     "to be deterministic",
                     what, row, n, found, was);
                return;
            }
        }
}
