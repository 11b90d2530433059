/*
 * Checks of prepared weights: ranges in any order, reloading, moving.
 */
#include "layer.h"

#include "random.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_RANGES = 300 };

/* ---- ranges ------------------------------------------------------------------------------- */

/* Rows at other strides than they need. */
struct strided {
    kry_canonical rows;
    uint32_t *qweight;
    unsigned char *scales;
    uint8_t *zero_points;
};

static void strided_release(struct strided *strided) {
    free(strided->qweight);
    free(strided->scales);
    free(strided->zero_points);
}

static bool strided_get(const struct layer *layer, struct strided *out) {
    enum { MORE = 3 };
    const struct synthetic *weights = layer->weights;
    const kry_linear *linear = layer->linear;
    int64_t rows = linear->out_features, groups = kry_linear_groups(linear);
    size_t width = kry_type_bytes(linear->scale_type);
    *out = (struct strided){.rows = layer->given.rows};
    kry_canonical *to = &out->rows;
    int64_t words = to->qweight_stride;
    to->qweight_stride = words + MORE;
    to->scale_stride = groups + MORE;
    to->zero_stride = groups + MORE;
    out->qweight = malloc((size_t)(rows * to->qweight_stride) * 4);
    out->scales = malloc((size_t)(rows * to->scale_stride) * width);
    out->zero_points = malloc((size_t)(rows * to->zero_stride));
    if (out->qweight == NULL || out->scales == NULL || out->zero_points == NULL)
        return false;
    memset(out->qweight, 0xff, (size_t)(rows * to->qweight_stride) * 4);
    memset(out->scales, 0xff, (size_t)(rows * to->scale_stride) * width);
    memset(out->zero_points, 0xff, (size_t)(rows * to->zero_stride));
    for (int64_t n = 0; n < rows; n++) {
        memcpy(out->qweight + n * to->qweight_stride, weights->qweight + n * words,
               (size_t)words * 4);
        memcpy(out->scales + (size_t)(n * to->scale_stride) * width,
               (const unsigned char *)weights->scales + (size_t)(n * groups) * width,
               (size_t)groups * width);
        if (weights->zero_points != NULL)
            memcpy(out->zero_points + n * to->zero_stride, weights->zero_points + n * groups,
                   (size_t)groups);
    }
    to->qweight = out->qweight;
    to->scales = out->scales;
    to->zero_points = weights->zero_points != NULL ? out->zero_points : NULL;
    return true;
}

/* A part of the rows, as the core would give it. */
static kry_canonical range_of(const kry_canonical *all, const kry_linear *linear, int64_t begin,
                              int64_t end) {
    kry_canonical range = *all;
    size_t scale = kry_type_bytes(linear->scale_type);
    range.n_begin = begin;
    range.n_end = end;
    range.qweight += begin * all->qweight_stride;
    range.scales = (const unsigned char *)all->scales + (size_t)(begin * all->scale_stride) * scale;
    if (range.zero_points != NULL)
        range.zero_points += begin * all->zero_stride;
    return range;
}

/* Cut N at random multiples and prepare the pieces in a shuffled order, some of them twice. */
static bool prepare_pieces(struct layer *layer, const kry_canonical *all, struct random random) {
    enum { PIECES = 9 };
    int64_t multiple = layer->sizes.prepare_multiple, rows = layer->linear->out_features;
    int64_t units = (rows + multiple - 1) / multiple;
    int64_t cuts[PIECES + 1] = {0};
    int count = units < PIECES ? (int)units : PIECES;
    for (int i = 1; i < count; i++) {
        int64_t from = i * units / count, to = (i + 1) * units / count;
        cuts[i] = (from + (int64_t)random_below(&random, (uint64_t)(to - from))) * multiple;
    }
    cuts[count] = rows;
    int order[PIECES];
    for (int i = 0; i < count; i++)
        order[i] = i;
    for (int i = count - 1; i > 0; i--) {
        int other = (int)random_below(&random, (uint64_t)i + 1), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    if (count > 1 && order[0] == 0) { /* in order is no test */
        order[0] = order[count - 1];
        order[count - 1] = 0;
    }
    for (int i = 0; i < count; i++) {
        kry_canonical range = range_of(all, layer->linear, cuts[order[i]], cuts[order[i] + 1]);
        if (!layer_prepare(layer, &range))
            return false;
    }
    return true;
}

/* Fill what is told to hold anything with a value, then prepare and apply. */
static void try_pieces(struct layer *layer, const kry_canonical *all, struct random random,
                       unsigned char garbage, const double *expected, int64_t m, const char *what) {
    struct operands operands;
    memory_fill(&layer->prepared, garbage);
    memory_fill(&layer->bound, garbage);
    memory_fill(&layer->scratch, (unsigned char)~garbage);
    if (!prepare_pieces(layer, all, random) || !layer_bind(layer) ||
        !operands_get(layer, m, NULL, 1, &operands))
        return;
    if (apply(layer, &operands, NULL))
        expect_equal(layer, &operands, expected, what);
    operands_release(&operands);
}

void check_ranges(struct suite *suite, const struct item *item) {
    int64_t m = 1 + item->number % 11;
    struct random random = random_seeded(weights_seed(suite, item), STREAM_RANGES);
    struct layer layer;
    struct operands operands;
    struct strided strided = {0};
    double *expected = NULL;
    if (!layer_ready(suite, item, &layer) || !applied(&layer, m, 1, &operands))
        goto out;
    expected = y_values(&layer, &operands);
    operands_release(&operands);
    if (expected == NULL)
        goto out;
    if (!strided_get(&layer, &strided)) {
        block(suite);
        goto out;
    }
    try_pieces(&layer, &layer.given.rows, random, 0xff, expected, m, "prepared in shuffled ranges");
    random_next(&random);
    try_pieces(&layer, &strided.rows, random, 0x3c, expected, m,
               "prepared in shuffled ranges of rows with gaps");
out:
    strided_release(&strided);
    free(expected);
    layer_close(&layer);
}

/* ---- without the device ---------------------------------------------------------------------- */

/* Whether weights that were not prepared without the state of the device are with it: then it is
 * what the kernel lacked. Where there is no device, it is said to be. */
static bool needs_device_state(struct layer *layer) {
    struct suite *suite = layer->suite;
    const kry_linear_kernel *functions = suite->functions;
    const kry_device *device = suite->plan->device;
    const kry_host *host = &layer->services.host;
    if (strcmp(device->platform, "cpu") != 0 || (device->flags & KRY_DEVICE_HYPOTHETICAL) != 0)
        return true;
    if (functions->open_device == NULL ||
        functions->open_device(device, host, &suite->device_state) != KRY_OK)
        return false;
    bool prepared = prepare_alone(layer, &layer->given.rows) == KRY_OK;
    if (functions->close_device != NULL)
        functions->close_device(suite->device_state, host);
    suite->device_state = NULL;
    return prepared;
}

/* From host memory to host memory, with no state of a device: in pieces as at once, inside the
 * sizes told. All that can be seen of prepare_weights where the device is not. */
void check_offline(struct suite *suite, const struct item *item) {
    struct random random = random_seeded(weights_seed(suite, item), STREAM_RANGES);
    struct layer layer;
    unsigned char *at_once = NULL;
    if (!layer_open(suite, item, FIT_END, &layer))
        goto out;
    step(suite, "prepare_weights", 0);
    if (prepare_alone(&layer, &layer.given.rows) != KRY_OK) {
        if (needs_device_state(&layer))
            fail(suite, NULL, "prepare_weights failed without the state of a device");
        block(suite);
        goto out;
    }
    expect_intact(suite, &layer.prepared, "prepare_weights");
    expect_intact(suite, &layer.scratch, "prepare_weights");
    at_once = malloc(layer.prepared.bytes + 1);
    if (at_once == NULL) {
        block(suite);
        goto out;
    }
    memcpy(at_once, layer.prepared.data, layer.prepared.bytes);
    memory_fill(&layer.prepared, 0);
    if (prepare_pieces(&layer, &layer.given.rows, random) &&
        memcmp(at_once, layer.prepared.data, layer.prepared.bytes) != 0)
        fail(suite, NULL, "prepared in shuffled ranges, the bytes differ from those at once");
out:
    free(at_once);
    layer_close(&layer);
}

/* ---- reloading ------------------------------------------------------------------------------ */

/* Other weights into the same buffer give what they give in a fresh one. */
void check_reload(struct suite *suite, const struct item *item) {
    int64_t m = 1 + item->number % 11;
    struct layer layer, fresh;
    struct synthetic *other = NULL;
    struct given_weights given = {0};
    struct operands operands;
    double *expected = NULL;
    layer_open(suite, item, FIT_LOOSE, &fresh);
    layer_open(suite, item, FIT_LOOSE, &layer);
    if (suite->case_blocked)
        goto out;
    if (synthetic_create(&item->linear, true, ~weights_seed(suite, item), &other) != KRY_OK ||
        !given_weights_get(other, FIT_LOOSE, &given)) {
        block(suite);
        goto out;
    }
    if (layer_fill(&fresh, &given.rows) && applied(&fresh, m, 1, &operands)) {
        expected = y_values(&fresh, &operands);
        operands_release(&operands);
    }
    if (expected != NULL && layer_fill(&layer, &layer.given.rows) &&
        applied(&layer, m, 1, &operands)) {
        if (layer_fill(&layer, &given.rows) && apply(&layer, &operands, NULL))
            expect_equal(&layer, &operands, expected, "after other weights were loaded");
        operands_release(&operands);
    }
out:
    layer_close(&layer);
    layer_close(&fresh);
    given_weights_release(&given);
    synthetic_destroy(&other);
    free(expected);
}

/* ---- moving ---------------------------------------------------------------------------------- */

static const struct memory_label old_label = {"the place where the prepared weights were before",
                                              "KRY-P07", NULL},
                                 new_label = {"the prepared weights", "KRY-P17", NULL};

/* Bytes that were prepared at two addresses alike must be alike. */
static void expect_same_bytes(struct layer *layer) {
    struct memory here = layer->prepared, there;
    if (!memory_get(&there, &new_label, here.bytes, KRY_ALIGNMENT, FIT_LOOSE))
        return;
    memory_fill(&there, 0); /* as the other was: not every byte need be written */
    layer->prepared = there;
    if (layer_prepare(layer, &layer->given.rows) && memcmp(here.data, there.data, here.bytes) != 0)
        fail(layer->suite, NULL,
             "prepared weights depend on the address that they are prepared at");
    layer->prepared = here;
    memory_release(&there);
}

/* Prepared bytes at another address, bound again, while the old place is not to be touched. */
void check_moved(struct suite *suite, const struct item *item) {
    int64_t m = 1 + item->number % 11;
    struct layer layer;
    struct operands operands;
    struct memory moved = {0};
    double *expected = NULL;
    if (!layer_ready(suite, item, &layer) || !applied(&layer, m, 1, &operands))
        goto out;
    expected = y_values(&layer, &operands);
    operands_release(&operands);
    expect_same_bytes(&layer);
    if (expected == NULL ||
        !memory_get(&moved, &new_label, layer.prepared.bytes, KRY_ALIGNMENT, FIT_LOOSE))
        goto out;
    memcpy(moved.data, layer.prepared.data, moved.bytes);
    memory_relabel(&layer.prepared, &old_label);
    memory_revoke(&layer.prepared);
    struct memory old = layer.prepared;
    layer.prepared = moved;
    memory_fill(&layer.bound, 0xff);
    if (layer_bind(&layer) && applied(&layer, m, 1, &operands)) {
        expect_equal(&layer, &operands, expected, "after the prepared weights were moved");
        operands_release(&operands);
    }
    memory_release(&old);
out:
    free(expected);
    layer_close(&layer);
}
