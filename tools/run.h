/*
 * The parts of `kernelry run`.
 */
#ifndef KERNELRY_TOOLS_RUN_H
#define KERNELRY_TOOLS_RUN_H

#include "command.h"
#include "trial.h"

#include <kernelry/checkpoint.h>

/** What became of one layer. */
struct run_result {
    char *name;
    kry_linear linear; /* complete; all zero where the layer cannot be described */
    bool bias;
    struct trial trial;
    int exit_code;
};

struct run_results {
    struct run_result *items;
    size_t count;
    size_t capacity;
};

/** Append a result; takes the trial, whatever happens. Errors: KRY_E_MEMORY. */
kry_status run_results_add(struct run_results *results, const char *name, const kry_linear *linear,
                           bool bias, struct trial *trial, int exit_code);
void run_results_free(struct run_results *results);

/** Try a layer and append the result; the registry's warnings of slow paths are not shown, the
 *  report tells. */
kry_status run_trial(const struct trial_setting *setting, const struct trial_subject *subject,
                     struct run_results *results);

/** Try the quantized layers of a checkpoint, or the one called `layer`. Returns an exit code
 *  other than EXIT_YES only when it had to stop; results tell of the layers. */
int run_checkpoint(const struct trial_setting *setting, const char *model, const char *layer,
                   struct run_results *results);

/** Try the shapes of a file on drawn weights, each `divisor` times smaller. Returns as
 *  run_checkpoint. */
int run_shapes(const struct trial_setting *setting, const struct common_options *common,
               int64_t divisor, struct run_results *results);

/** Apply one layer to the activations in a file, and write what comes out. Returns an exit
 *  code. */
int run_layer(const struct trial_setting *setting, const char *model, const char *layer,
              const char *input, const char *output, bool json);

/** Tell of the results: a table, or JSON. Returns an exit code that says how they were. */
int run_report(const struct trial_setting *setting, const struct run_results *results, bool json);

/**
 * Convert a checkpoint's bias to the element type that a layer takes.
 *
 * Ownership  *out is freed by the caller; NULL where there is no bias.
 * Errors     KRY_E_UNSUPPORTED: no F16, BF16 or F32; KRY_E_MEMORY.
 */
kry_status convert_bias(const kry_checkpoint_weights *weights, uint32_t y_type, void **out);

#endif
