/*
 * A checkpoint as the command reads it.
 */
#include "model.h"

#include "command.h"

int open_model(const char *path, kry_checkpoint **out) {
    kry_checkpoint_options options = KRY_INIT(kry_checkpoint_options);
    options.log = log_to_stderr;
    kry_status status = kry_checkpoint_open(path, &options, out);
    return status ? complain_status(status) : EXIT_YES;
}

kry_status model_units(const kry_checkpoint *checkpoint, uint32_t allowed, struct units *out) {
    struct units units = {0};
    kry_status status = KRY_OK;
    size_t count = kry_checkpoint_layer_count(checkpoint);
    for (size_t i = 0; i < count && !status; i++) {
        kry_checkpoint_layer layer = KRY_INIT(kry_checkpoint_layer);
        status = kry_checkpoint_layer_at(checkpoint, i, &layer);
        if (status)
            break;
        kry_linear linear = KRY_INIT(kry_linear);
        if (!layer.status)
            linear = *layer.linear;
        linear.allowed |= allowed;
        status = units_add(&units, layer.name, layer.status, layer.reason, &linear);
    }
    if (status)
        units_free(&units);
    else
        *out = units;
    return status;
}
