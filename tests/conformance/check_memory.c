/*
 * Checks of what is touched: operands, the sizes told, the zeroed part, the allocator.
 */
#include "hooks.h"
#include "layer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- x, y and bias ------------------------------------------------------------------------- */

static void expect_gaps_untouched(const struct layer *layer, const struct operands *operands) {
    size_t width = kry_type_bytes(layer->linear->y_type);
    size_t begin = (size_t)layer->linear->out_features * width;
    size_t stride = (size_t)operands->y_stride * width;
    for (int64_t row = 0; row + 1 < operands->m; row++)
        for (size_t i = begin; i < stride; i++)
            if (operands->y.data[(size_t)row * stride + i] != Y_GAP) {
                fail(layer->suite, NULL, "apply wrote to the byte %zu behind row %" PRId64 " of y",
                     i - begin, row);
                return;
            }
}

/* y of a run at the same addresses, as far as their alignment goes, but without NaN in the
 * gaps: whatever the kernel makes of addresses and strides, it must make the same of them when
 * the gaps hold NaN. NULL: blocked. */
static double *apply_without_nan(const struct layer *layer, const struct operand_style *style,
                                 int64_t m) {
    struct operand_style finite = *style;
    struct operands operands;
    double *y = NULL;
    finite.nan_gaps = false;
    if (!operands_get(layer, m, &finite, 1, &operands))
        return NULL;
    operands.with_bias = true;
    if (apply(layer, &operands, NULL))
        y = y_values(layer, &operands);
    operands_release(&operands);
    return y;
}

/* Apply in tight memory, all that is not apply's to write being sealed. */
static void apply_sealed(const struct layer *layer, const struct operand_style *style, int64_t m) {
    struct operands operands;
    double *expected = apply_without_nan(layer, style, m);
    if (expected == NULL || !operands_get(layer, m, style, 1, &operands)) {
        free(expected);
        return;
    }
    operands.with_bias = true;
    memory_seal(&operands.x, true);
    memory_seal(&operands.bias, true);
    memory_seal(&layer->prepared, true);
    memory_seal(&layer->bound, true);
    if (apply(layer, &operands, NULL)) {
        expect_intact(layer->suite, &operands.y, "apply");
        expect_gaps_untouched(layer, &operands);
        expect_same(layer, &operands, expected, "with NaN instead of 0 between the rows of x");
    }
    memory_seal(&layer->prepared, false);
    memory_seal(&layer->bound, false);
    operands_release(&operands);
    free(expected);
}

/* apply writes nothing but y and workspace, and reads no column of x beyond in_features. */
void check_operands(struct suite *suite, const struct item *item) {
    /* With an alignment of 2 no byte lies between the ends of buffers and the guard page. */
    static const struct operand_style styles[] = {
        {.x_gap = 3, .y_gap = 5, .fit = FIT_END, .alignment = 2, .nan_gaps = true},
        {.x_gap = 16, .y_gap = 16, .fit = FIT_BEGIN, .nan_gaps = true},
        {.fit = FIT_END, .alignment = 2, .nan_gaps = true},
    };
    int64_t m = 1 + item->number % 17;
    struct layer layer;
    if (layer_ready(suite, item, &layer))
        for (size_t i = 0; i < sizeof styles / sizeof styles[0]; i++)
            apply_sealed(&layer, &styles[i], m);
    layer_close(&layer);
}

/* x, y and bias may lie at any address that their elements may lie at, rows at any stride. */
void check_alignment(struct suite *suite, const struct item *item) {
    static const struct operand_style styles[] = {
        {.x_gap = 1, .y_gap = 1}, {.x_gap = 0, .y_gap = 3}, {.x_gap = 7, .y_gap = 0}};
    const kry_linear *linear = &item->linear;
    int64_t m = 2 + item->number % 9;
    struct layer layer;
    struct operands operands;
    double *expected = NULL;
    if (layer_ready(suite, item, &layer) && operands_get(&layer, m, NULL, 1, &operands)) {
        operands.with_bias = true;
        if (apply(&layer, &operands, NULL))
            expected = y_values(&layer, &operands);
        operands_release(&operands);
    }
    for (size_t i = 0; i < sizeof styles / sizeof styles[0] && expected != NULL; i++) {
        struct operand_style style = styles[i];
        size_t x = kry_type_bytes(linear->x_type), y = kry_type_bytes(linear->y_type);
        style.alignment = x > y ? x : y; /* of the wider: loose memory is aligned to no more */
        if (!operands_get(&layer, m, &style, 1, &operands))
            break;
        operands.with_bias = true;
        if (apply(&layer, &operands, NULL))
            expect_same(&layer, &operands, expected, "at an odd address and stride");
        operands_release(&operands);
    }
    free(expected);
    layer_close(&layer);
}

/* ---- the sizes told ------------------------------------------------------------------------- */

static void stay_inside(struct suite *suite, const struct item *item, enum fit fit, int64_t m) {
    struct layer layer;
    struct operands operands;
    struct operand_style style = {.workspace_fit = fit};
    if (!layer_open(suite, item, fit, &layer) || !layer_prepare(&layer, &layer.given.rows))
        goto out;
    expect_intact(suite, &layer.prepared, "prepare_weights");
    expect_intact(suite, &layer.scratch, "prepare_weights");
    if (!layer_bind(&layer))
        goto out;
    expect_intact(suite, &layer.bound, "bind");
    if (operands_get(&layer, m, &style, 1, &operands)) {
        memory_seal(&layer.prepared, true);
        if (apply(&layer, &operands, NULL)) {
            expect_intact(suite, &operands.scratch, "apply");
            expect_intact(suite, &operands.zeroed, "apply");
        }
        operands_release(&operands);
    }
out:
    layer_close(&layer);
}

/* prepare_weights, bind and apply stay inside what they are given and what they asked for. */
void check_bounds(struct suite *suite, const struct item *item) {
    int64_t m = 1 + item->number % 33;
    stay_inside(suite, item, FIT_END, m);
    stay_inside(suite, item, FIT_BEGIN, m);
}

/* ---- the zeroed part --------------------------------------------------------------------------
 */

void check_zeroed(struct suite *suite, const struct item *item) {
    const int64_t rows[] = {1 + item->number % 8, 9 + item->number % 40, 1};
    struct layer layer;
    struct operands operands;
    bool asked = false;
    bool ready = layer_ready(suite, item, &layer);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && ready; i++) {
        if (!operands_get(&layer, rows[i], NULL, i, &operands))
            break;
        asked |= operands.workspace.zeroed_bytes > 0;
        if (apply(&layer, &operands, NULL))
            for (size_t at = 0; at < operands.zeroed.bytes; at++)
                if (operands.zeroed.data[at] != 0) {
                    fail(suite, NULL, "apply left the byte %zu of the zeroed part not cleared", at);
                    break;
                }
        operands_release(&operands);
    }
    if (ready && !asked && !suite->case_blocked)
        pass_over(suite);
    layer_close(&layer);
}

/* ---- what apply must not call ---------------------------------------------------------------- */

static void watch_applies(struct suite *suite, const struct item *item, enum hooks_kind kind) {
    static bool hooked;
    if (!hooked)
        hooked = hooks_install(*(void *const *)&suite->functions->apply);
    struct layer layer;
    struct operands operands;
    const int64_t rows[] = {1, 2 + item->number % 30};
    bool ready = layer_ready(suite, item, &layer);
    for (size_t i = 0; i < 2 && ready; i++) {
        if (!operands_get(&layer, rows[i], NULL, 1, &operands))
            break;
        atomic_store(&layer.services.allocations, 0);
        hooks_begin(kind);
        bool good = apply(&layer, &operands, NULL);
        const char *called = hooks_end();
        if (good && called != NULL)
            fail(suite, NULL, "apply called %s", called);
        else if (good && kind == HOOKS_ALLOCATION && atomic_load(&layer.services.allocations) > 0)
            fail(suite, NULL, "apply asked the host for memory");
        operands_release(&operands);
    }
    layer_close(&layer);
}

void check_allocations(struct suite *suite, const struct item *item) {
    watch_applies(suite, item, HOOKS_ALLOCATION);
}

/* A CPU has no stream to capture; that apply sleeps or joins a thread is what can be seen. */
void check_waits(struct suite *suite, const struct item *item) {
    watch_applies(suite, item, HOOKS_WAIT);
}
