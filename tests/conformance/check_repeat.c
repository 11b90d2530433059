/*
 * Checks that need several runs: equal bits, batches, what is borrowed and released.
 */
#include "hooks.h"
#include "layer.h"

#include "floats.h"
#include "random.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- bits ------------------------------------------------------------------------------------ */

/* The first element of row `row` of y that differs in a bit from that of another run, or -1. */
static int64_t first_difference(const struct layer *layer, const unsigned char *y,
                                const unsigned char *other) {
    size_t width = kry_type_bytes(layer->linear->y_type);
    for (int64_t n = 0; n < layer->linear->out_features; n++)
        if (memcmp(y + (size_t)n * width, other + (size_t)n * width, width) != 0)
            return n;
    return -1;
}

static size_t row_bytes(const struct layer *layer) {
    return (size_t)layer->linear->out_features * kry_type_bytes(layer->linear->y_type);
}

/*
 * Draw x of magnitudes over fourteen binades, and in each row a pair of large values of opposite
 * sign no further apart than a group. Where the weights beneath them are equal, as one time in
 * sixteen, they cancel and leave behind what each order of summation rounded away: a different
 * order shows even where y has 16 bits. x that is quantized would keep of all this the pair alone.
 */
static void spread_x(const struct layer *layer, const struct operands *operands) {
    enum { STREAM = 400, BINADES = 14, LARGE = 1 << 15 };
    const kry_linear *linear = layer->linear;
    struct random random = random_seeded(layer->suite->plan->seed, STREAM);
    int64_t columns = linear->in_features;
    int64_t reach =
        linear->group_size > 0 && linear->group_size < columns ? linear->group_size : columns;
    if (activation_of(layer->suite, linear) != KRY_ACTIVATION_NONE || reach < 3)
        return;
    for (int64_t row = 0; row < operands->m; row++) {
        int64_t at = row * operands->x_stride;
        for (int64_t k = 0; k < columns; k++)
            float_store(
                operands->x.data, at + k, linear->x_type,
                ldexp((double)random_normal(&random), -(int)random_below(&random, BINADES)));
        int64_t first = (int64_t)random_below(&random, (uint64_t)(columns - reach + 1));
        int64_t second = first + 1 + (int64_t)random_below(&random, (uint64_t)reach - 1);
        float_store(operands->x.data, at + first, linear->x_type, LARGE);
        float_store(operands->x.data, at + second, linear->x_type, -LARGE);
    }
}

/* Get m rows of spread x and apply them. False: blocked; operands are released already. */
static bool applied_spread(const struct layer *layer, int64_t m, struct operands *out) {
    if (!operands_get(layer, m, NULL, 1, out))
        return false;
    spread_x(layer, out);
    if (apply(layer, out, NULL))
        return true;
    operands_release(out);
    return false;
}

/* One more run must give the bits of the first. */
static void repeat(const struct layer *layer, struct operands *operands, const unsigned char *first,
                   const kry_host *host, const char *how) {
    if (layer->suite->case_failed || !apply(layer, operands, host))
        return;
    for (int64_t row = 0; row < operands->m; row++) {
        size_t at = (size_t)row * row_bytes(layer);
        int64_t n = first_difference(layer, operands->y.data + at, first + at);
        if (n >= 0) {
            fail(layer->suite, NULL, "y[%" PRId64 ", %" PRId64 "] differs %s", row, n, how);
            return;
        }
    }
}

void check_repeats(struct suite *suite, const struct item *item) {
    static const int32_t threads[] = {1, 2, 5};
    const int64_t rows[] = {1, 2 + item->number % 31};
    struct layer layer;
    bool ready = layer_ready(suite, item, &layer);
    for (size_t i = 0; i < 2 && ready; i++) {
        struct operands operands;
        if (!applied_spread(&layer, rows[i], &operands))
            break;
        unsigned char *first = malloc(operands.y.bytes);
        if (first != NULL) {
            memcpy(first, operands.y.data, operands.y.bytes);
            repeat(&layer, &operands, first, NULL, "when apply is repeated");
            memory_fill(&operands.scratch, 0x3c);
            repeat(&layer, &operands, first, NULL, "with other garbage in scratch");
            for (size_t t = 0; t < 3; t++) {
                struct services services;
                char how[64];
                services_make(&services, threads[t], 1 + t);
                snprintf(how, sizeof how, "on %d threads with tasks in another order", threads[t]);
                repeat(&layer, &operands, first, &services.host, how);
            }
        }
        free(first);
        operands_release(&operands);
    }
    layer_close(&layer);
}

/* ---- batches --------------------------------------------------------------------------------- */

enum { BATCH_MOST = 40 };

static bool is_tried(const struct suite *suite, int64_t m) {
    return !suite->plan->quick || m <= 9 || m % 8 <= 1 || m == BATCH_MOST;
}

/* A row alone gives the bits that it gives at its place in a batch of any size. */
void check_batches(struct suite *suite, const struct item *item) {
    struct layer layer;
    struct operands batch, one;
    unsigned char *alone = NULL;
    if (!layer_ready(suite, item, &layer) || !operands_get(&layer, BATCH_MOST, NULL, 1, &batch)) {
        layer_close(&layer);
        return;
    }
    spread_x(&layer, &batch);
    size_t bytes = row_bytes(&layer);
    size_t x_bytes = (size_t)item->linear.in_features * kry_type_bytes(item->linear.x_type);
    bool good = operands_get(&layer, 1, NULL, 1, &one);
    if (good)
        alone = malloc(BATCH_MOST * bytes);
    for (int64_t row = 0; row < BATCH_MOST && alone != NULL && good; row++) {
        memcpy(one.x.data, batch.x.data + (size_t)row * x_bytes, x_bytes);
        good = apply(&layer, &one, NULL);
        memcpy(alone + (size_t)row * bytes, one.y.data, bytes);
    }
    for (int64_t m = 2; m <= BATCH_MOST && alone != NULL && good; m++) {
        if (!is_tried(suite, m))
            continue;
        batch.m = m;
        good = apply(&layer, &batch, NULL);
        for (int64_t row = 0; row < m && good; row++) {
            int64_t n = first_difference(&layer, batch.y.data + (size_t)row * bytes,
                                         alone + (size_t)row * bytes);
            if (n >= 0)
                fail(suite, NULL,
                     "y[%" PRId64 ", %" PRId64 "] differs from what its row alone gives", row, n);
            good = n < 0;
        }
    }
    free(alone);
    operands_release(&one);
    operands_release(&batch);
    layer_close(&layer);
}

/* ---- what is borrowed ------------------------------------------------------------------------ */

static const struct memory_label lent_label = {
    "an argument of an earlier call, which was lent for that call alone", "KRY-P22", NULL};

/* Arguments of one call, in memory that nobody may touch afterwards. */
struct lent {
    kry_device device;
    kry_linear linear;
    kry_host host;
    kry_binding binding;
    kry_canonical rows;
    kry_prepare_call prepare;
    kry_apply_args apply;
    kry_sizes sizes;
    kry_refusal refusal;
    kry_workspace workspace;
};

static struct lent *lend(const struct layer *layer, struct memory *memory) {
    if (!memory_get(memory, &lent_label, sizeof(struct lent), 8, FIT_LOOSE)) {
        block(layer->suite);
        return NULL;
    }
    struct lent *lent = (struct lent *)(void *)memory->data;
    lent->device = *layer->suite->plan->device;
    lent->linear = *layer->linear;
    lent->host = layer->services.host;
    lent->binding = layer->binding;
    lent->binding.device = &lent->device;
    lent->binding.linear = &lent->linear;
    lent->binding.host = &lent->host;
    lent->rows = layer->given.rows;
    lent->refusal = (kry_refusal){.struct_size = sizeof(kry_refusal)};
    lent->sizes = (kry_sizes){.struct_size = sizeof(kry_sizes)};
    lent->workspace = (kry_workspace){.struct_size = sizeof(kry_workspace)};
    return lent;
}

enum { LENT_ASK, LENT_PREPARE, LENT_BIND, LENT_APPLY, LENT_APPLY_AGAIN, LENT_CALLS };

/* One call with arguments of its own; they stay where they are, out of reach. */
static kry_status call_with_lent(const struct layer *layer, struct operands *operands, int call,
                                 struct memory *memory) {
    const kry_linear_kernel *functions = layer->suite->functions;
    struct lent *lent = lend(layer, memory);
    kry_status status = KRY_OK;
    if (lent == NULL)
        return KRY_E_MEMORY;
    if (call == LENT_ASK) {
        step(layer->suite, "can_implement, sizes or workspace", 0);
        functions->can_implement(&lent->device, &lent->linear, &lent->refusal);
        status = functions->sizes(&lent->device, &lent->linear, &lent->sizes);
        if (status == KRY_OK && functions->workspace != NULL)
            status =
                functions->workspace(&lent->device, &lent->linear, operands->m, &lent->workspace);
    } else if (call == LENT_PREPARE) {
        lent->prepare = (kry_prepare_call){.struct_size = sizeof lent->prepare,
                                           .device = &lent->device,
                                           .linear = &lent->linear,
                                           .device_state = layer->suite->device_state,
                                           .prepared = layer->prepared.data,
                                           .scratch = layer->scratch.data,
                                           .host = &lent->host};
        step(layer->suite, "prepare_weights", 0);
        status = call_prepare(layer, &lent->prepare, &lent->rows);
    } else if (call == LENT_BIND && functions->bind != NULL) {
        step(layer->suite, "bind", 0);
        status = functions->bind(&lent->binding);
    } else if (call == LENT_APPLY || call == LENT_APPLY_AGAIN) {
        lent->apply = apply_args(operands, &lent->host);
        lent->apply.bias = NULL;
        operands_reset(layer, operands);
        step(layer->suite, "apply", operands->m);
        status = call_apply(layer, operands, &lent->binding, &lent->apply);
    }
    memory_revoke(memory);
    return status;
}

void check_borrowed(struct suite *suite, const struct item *item) {
    int64_t m = 1 + item->number % 11;
    struct layer layer;
    struct operands operands;
    struct memory lent[LENT_CALLS] = {0};
    double *expected = NULL;
    if (!layer_ready(suite, item, &layer) || !applied(&layer, m, 1, &operands)) {
        layer_close(&layer);
        return;
    }
    expected = y_values(&layer, &operands);
    /* Nothing that the first preparing left behind may help. */
    memory_fill(&layer.prepared, 0);
    memory_fill(&layer.bound, 0xff);
    for (int call = 0; call < LENT_CALLS && expected != NULL; call++)
        if (call_with_lent(&layer, &operands, call, &lent[call]) != KRY_OK)
            block(suite);
    if (expected != NULL && !suite->case_blocked)
        expect_same(&layer, &operands, expected, "with arguments lent for one call each");
    for (int call = 0; call < LENT_CALLS; call++)
        memory_release(&lent[call]);
    free(expected);
    operands_release(&operands);
    layer_close(&layer);
}

/* ---- what is released -------------------------------------------------------------------------
 */

/* A device's whole life: opened, a layer prepared and applied, closed. What the host allocated is
 * released by the end of the call, or by close_device. */
static void live_once(struct suite *suite, const struct item *item) {
    const kry_linear_kernel *functions = suite->functions;
    struct layer layer;
    struct operands operands;
    struct services services;
    void *before = suite->device_state;
    services_make(&services, 1, 0);
    bool opens = functions->open_device != NULL && functions->close_device != NULL;
    step(suite, "open_device", 0);
    if (opens && functions->open_device(suite->plan->device, &services.host,
                                        &suite->device_state) != KRY_OK) {
        suite->device_state = before;
        block(suite);
        return;
    }
    if (layer_ready(suite, item, &layer)) {
        if (atomic_load(&layer.services.allocated) != 0)
            fail(suite, NULL, "prepare_weights or bind kept memory of the host");
        if (applied(&layer, 1 + item->number % 11, 1, &operands)) {
            if (atomic_load(&layer.services.allocated) != 0)
                fail(suite, NULL, "apply kept memory of the host");
            operands_release(&operands);
        }
    }
    layer_close(&layer);
    if (opens) {
        step(suite, "close_device", 0);
        functions->close_device(suite->device_state, &services.host);
        if (atomic_load(&services.allocated) != 0)
            fail(suite, NULL, "close_device kept memory that open_device got from the host");
    }
    suite->device_state = before;
}

/* Twice: what is allocated once in a process, and kept, shows the first time alone. */
void check_released(struct suite *suite, const struct item *item) {
    static bool hooked;
    if (!hooked)
        hooked = hooks_install(*(void *const *)&suite->functions->apply);
    live_once(suite, item);
    if (suite->case_failed || suite->case_blocked)
        return;
    hooks_count_begin();
    live_once(suite, item);
    int64_t held = hooks_count_end();
    if (held > 0)
        fail(suite, NULL, "%" PRId64 " blocks of malloc were not freed when the device was closed",
             held);
}
