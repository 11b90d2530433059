/*
 * A kernel driven by hand: what the core does between a description and y, step by step, with
 * memory whose borders are watched.
 */
#ifndef KERNELRY_CONFORMANCE_LAYER_H
#define KERNELRY_CONFORMANCE_LAYER_H

#include "suite.h"

#include "oracle.h"
#include "synthetic.h"

/** Services that run tasks one after another, in shuffled order, or on threads of their own. */
struct services {
    kry_host host;
    int32_t threads;        /* that run the tasks; 1: the calling one */
    uint64_t seed;          /* of the order of the tasks */
    atomic_llong allocated; /* blocks that were not released yet */
    atomic_llong allocations;
};

/** Make services; they stay where they are, the host's context points at them. */
void services_make(struct services *services, int32_t threads, uint64_t seed);

/** Drawn weights where kernels get them from: in memory with watched borders, read-only. */
struct given_weights {
    struct memory qweight, scales, zero_points, g_idx;
    kry_canonical rows;
};

bool given_weights_get(const struct synthetic *weights, enum fit fit, struct given_weights *out);
void given_weights_release(struct given_weights *weights);

struct operands;

/** A layer: what a kernel prepared and bound. */
struct layer {
    struct suite *suite;
    const kry_linear *linear;
    struct synthetic *weights;
    struct given_weights given; /* the same */
    struct services services;   /* on the calling thread, in order */
    enum fit fit;               /* of the memory whose sizes the kernel tells */
    kry_sizes sizes;
    struct memory prepared;
    struct memory bound;
    struct memory scratch; /* of preparing */
    kry_binding binding;
};

/** Seeds of a case's weights. */
uint64_t weights_seed(const struct suite *suite, const struct item *item);

/**
 * Get sizes, memory and drawn weights of a case. When that fails, the case is blocked: the
 * checks of sizes report it. Always ended by layer_close.
 *
 * The prepared buffer is cleared: a kernel that relies on that fails in the check of ranges,
 * which fills it with garbage, and in no other.
 */
bool layer_open(struct suite *suite, const struct item *item, enum fit fit, struct layer *out);

/** Fail when something was written beside a buffer, where its guard pages do not reach. */
void expect_intact(struct suite *suite, const struct memory *memory, const char *called);

/** Prepare all of some weights in one range, and bind. False: blocked. */
bool layer_fill(struct layer *layer, const kry_canonical *weights);

/** The parts of it. */
bool layer_prepare(struct layer *layer, const kry_canonical *weights);
bool layer_bind(struct layer *layer);

/** The calls alone; for threads that may not touch the suite. On a device a call that left its
 *  buffers has failed. */
kry_status prepare_alone(struct layer *layer, const kry_canonical *weights);
kry_status bind_alone(struct layer *layer);

/*
 * The calls with arguments that the caller made, of the layer's own memory: on a device, pointers
 * in them are replaced by those to the mirrors, and the call is waited for.
 */
kry_status call_prepare(const struct layer *layer, kry_prepare_call *call, kry_canonical *rows);
kry_status call_apply(const struct layer *layer, const struct operands *operands,
                      const kry_binding *binding, kry_apply_args *args);

/** Fail when the call left its buffers on the device. */
void expect_untouched(struct suite *suite, const char *called);

void layer_close(struct layer *layer);

/** Open, prepare the layer's own weights, bind. */
bool layer_ready(struct suite *suite, const struct item *item, struct layer *out);

/** What every byte between rows of y holds before an apply. */
enum { Y_GAP = 0x5a };

/** What one apply needs. */
struct operands {
    int64_t m, x_stride, y_stride;
    struct memory x, y, bias, scratch, zeroed;
    kry_workspace workspace;
    bool with_bias;
};

/** How operands are laid out: gaps between rows in elements, what their ends touch. */
struct operand_style {
    int64_t x_gap, y_gap;
    enum fit fit;           /* of x, y and bias */
    enum fit workspace_fit; /* of scratch and zeroed */
    size_t alignment;       /* of x, y and bias; 0: KRY_ALIGNMENT */
    bool nan_gaps;          /* between rows of x, else zeros */
};

/** Get memory for m rows: x drawn with the stream number, y NaN (its gaps not), zeroed
 *  cleared. style NULL: dense, loose. False: blocked, released already. */
bool operands_get(const struct layer *layer, int64_t m, const struct operand_style *style,
                  uint64_t stream, struct operands *out);
void operands_release(struct operands *operands);

/** On a device with memory of its own: send what apply takes (the prepared weights were sent when
 *  they were bound), and fetch what it has left; false: there is no memory, or the device failed.
 */
bool operands_send(const struct operands *operands, kry_apply_args *args);
bool operands_fetch(const struct layer *layer, const struct operands *operands,
                    const kry_apply_args *args);

/** Apply; y and what zeroed held are set anew. host NULL: the layer's. False: blocked. */
bool apply(const struct layer *layer, struct operands *operands, const kry_host *host);

/** What apply is called with. */
kry_apply_args apply_args(const struct operands *operands, const kry_host *host);

/** The call alone; for threads that may not touch the suite. */
kry_status apply_alone(const struct layer *layer, const struct operands *operands,
                       const kry_host *host);

/** Set y to NaN, its gaps to something else; clear zeroed. */
void operands_reset(const struct layer *layer, const struct operands *operands);

/** Get m and apply it. False: blocked; operands are released already. */
bool applied(const struct layer *layer, int64_t m, uint64_t stream, struct operands *out);

/** y as doubles, [m, N] dense. NULL: no memory. */
double *y_values(const struct layer *layer, const struct operands *operands);

/** How activations are quantized by this kernel for this description. */
uint32_t activation_of(const struct suite *suite, const kry_linear *linear);

/** The relative error of y against expected [m, N], as a part of what is allowed. */
struct oracle_error compare(const struct layer *layer, const struct operands *operands,
                            const double *expected, double *part);

/**
 * Fail unless y is as another run's, but for rounding: for duties that are not about right
 * numbers, so that a kernel whose numbers are wrong fails for that alone.
 */
void expect_same(const struct layer *layer, const struct operands *operands, const double *expected,
                 const char *what);

/** The same to the bit where the kernel is said to be deterministic: for runs whose weights,
 *  operands and services are alike. A single wrong weight hides below the bound of a norm. */
void expect_equal(const struct layer *layer, const struct operands *operands,
                  const double *expected, const char *what);

#endif
