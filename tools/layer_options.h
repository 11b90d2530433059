/*
 * Options that describe a layer.
 */
#ifndef KERNELRY_LAYER_OPTIONS_H
#define KERNELRY_LAYER_OPTIONS_H

#include "command.h"

enum {
    LAYER_OPTION_FIRST = OPTION_OWN + 200,
    LAYER_OPTION_IN_FEATURES = LAYER_OPTION_FIRST,
    LAYER_OPTION_OUT_FEATURES,
    LAYER_OPTION_GROUP_SIZE,
    LAYER_OPTION_WEIGHT_TYPE,
    LAYER_OPTION_X_TYPE,
    LAYER_OPTION_Y_TYPE,
    LAYER_OPTION_SCALE_TYPE,
    LAYER_OPTION_FULL_IN_FEATURES,
    LAYER_OPTION_K_OFFSET,
    LAYER_OPTION_ACT_ORDER,
    LAYER_OPTION_ACTIVATION,
    LAYER_OPTION_ALLOW
};

/* What every layer has, to stand in a subcommand's table. */
#define LAYER_OPTIONS                                                                              \
    {"in-features", "K", "of a layer given by options", LAYER_OPTION_IN_FEATURES},                 \
        {"out-features", "N", "its out_features", LAYER_OPTION_OUT_FEATURES},                      \
        {"group-size", "G", "columns of a group, -1: one group a channel; default 128",            \
         LAYER_OPTION_GROUP_SIZE},                                                                 \
        {"weight-type", "TYPE", "u4b8 (default), u4, u8b128, u8", LAYER_OPTION_WEIGHT_TYPE}, {     \
        "x-type", "TYPE", "f16, bf16 (default), f32", LAYER_OPTION_X_TYPE                          \
    }

/* What some have besides. */
#define LAYER_OPTIONS_MORE                                                                         \
    {"y-type", "TYPE", "default: as x", LAYER_OPTION_Y_TYPE},                                      \
        {"scale-type", "TYPE", "default: as x", LAYER_OPTION_SCALE_TYPE},                          \
        {"full-in-features", "K", "of the full layer; default: K", LAYER_OPTION_FULL_IN_FEATURES}, \
        {"k-offset", "K", "where a row-parallel partition starts; default 0",                      \
         LAYER_OPTION_K_OFFSET},                                                                   \
        {"act-order", NULL, "columns name their groups (GPTQ desc_act)", LAYER_OPTION_ACT_ORDER},  \
        {"activation-quantization", "HOW", "int8_token, fp8_e4m3_token: what the model wants",     \
         LAYER_OPTION_ACTIVATION},                                                                 \
    {                                                                                              \
        "allow", "WHAT", "int8: x may be quantized inside though the model does not ask",          \
            LAYER_OPTION_ALLOW                                                                     \
    }

/** A layer of which no option was given: u4b8 in groups of 128, x of bf16. */
kry_linear layer_options_begin(void);

/** Whether it is one of these options. */
static inline bool is_layer_option(int option) {
    return option >= LAYER_OPTION_FIRST && option <= LAYER_OPTION_ALLOW;
}

/** Whether it describes a layer, as all do but --allow: that goes with layers from elsewhere, too.
 */
static inline bool option_describes_layer(int option) {
    return is_layer_option(option) && option != LAYER_OPTION_ALLOW;
}

/** Store such an option. Returns false after a complaint. */
bool layer_option_read(struct arguments *arguments, int option, kry_linear *linear);

#endif
