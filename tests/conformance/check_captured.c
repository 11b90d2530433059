/*
 * The check that apply can be captured in a graph: CUDA refuses, while a stream captures, what
 * waits or allocates, whoever calls it, a runtime inside the plugin too.
 */
#include "layer.h"

#include "cuda.h"

#include <stdlib.h>
#include <string.h>

/* Capture an apply, and replay it. KRY_OK, or the error of what could not be done: told. */
static kry_status replay(struct layer *layer, struct operands *operands, struct cuda *cuda) {
    struct suite *suite = layer->suite;
    kry_apply_args args = apply_args(operands, &layer->services.host);
    void *graph = NULL;
    operands_reset(layer, operands);
    if (!operands_send(operands, &args))
        return KRY_E_MEMORY;
    args.stream = cuda_stream(cuda);
    kry_status status = cuda_capture_begin(cuda);
    if (status != KRY_OK)
        return status;
    step(suite, "apply, on a stream that captures,", operands->m);
    kry_status applied = suite->functions->apply(&layer->binding, &args);
    status = cuda_capture_end(cuda, &graph);
    if (applied != KRY_OK || status != KRY_OK) {
        fail(suite, NULL, "apply cannot be captured in a graph (%s)",
             applied != KRY_OK ? kry_status_string(applied) : kry_error_message());
        if (status == KRY_OK)
            cuda_graph_release(cuda, graph);
        return KRY_E_DEVICE;
    }
    step(suite, "a captured apply", operands->m);
    /* Whatever reached y while the stream captured was not captured. */
    status = operands_send(operands, &args) ? cuda_replay(cuda, graph) : KRY_E_MEMORY;
    if (status == KRY_OK)
        status = cuda_wait(cuda);
    if (status == KRY_OK && !operands_fetch(layer, operands, &args))
        status = KRY_E_DEVICE;
    cuda_graph_release(cuda, graph);
    return status;
}

static void compare_captured(struct layer *layer, const struct item *item, struct cuda *cuda) {
    struct operands operands;
    if (!applied(layer, 1 + item->number % 33, 1, &operands))
        return;
    double *expected = y_values(layer, &operands);
    if (expected != NULL) {
        if (replay(layer, &operands, cuda) == KRY_OK)
            expect_equal(layer, &operands, expected, "replayed from a graph");
        else if (!layer->suite->case_failed)
            block(layer->suite);
    }
    free(expected);
    operands_release(&operands);
}

void check_captured(struct suite *suite, const struct item *item) {
    static struct cuda *cuda; /* of this process, which ends soon */
    struct layer layer;
    if (strcmp(suite->plan->device->platform, "cuda") != 0) {
        pass_over(suite);
        return;
    }
    if (cuda == NULL && cuda_open(suite->plan->device, &cuda) != KRY_OK) {
        block(suite);
        return;
    }
    if (layer_ready(suite, item, &layer))
        compare_captured(&layer, item, cuda);
    layer_close(&layer);
}
