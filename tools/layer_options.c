/*
 * Options that describe a layer.
 */
#include "layer_options.h"

#include "words.h"

kry_linear layer_options_begin(void) {
    kry_linear linear = KRY_INIT(kry_linear);
    linear.group_size = 128;
    linear.weight_type = KRY_WEIGHT_U4B8;
    linear.x_type = KRY_TYPE_BF16;
    return linear;
}

static bool take_word(struct arguments *arguments, const char *name,
                      bool (*parse)(const char *, uint32_t *), const char *words, uint32_t *out) {
    if (parse(arguments->value, out))
        return true;
    arguments->exit_code = complain_usage(arguments->command, "--%s: '%s' is none of %s", name,
                                          arguments->value, words);
    return false;
}

bool layer_option_read(struct arguments *arguments, int option, kry_linear *linear) {
    switch (option) {
    case LAYER_OPTION_IN_FEATURES:
        return arguments_int(arguments, "in-features", 1, KRY_FEATURES_MAX, &linear->in_features);
    case LAYER_OPTION_OUT_FEATURES:
        return arguments_int(arguments, "out-features", 1, KRY_FEATURES_MAX, &linear->out_features);
    case LAYER_OPTION_GROUP_SIZE:
        return arguments_int(arguments, "group-size", -1, KRY_FEATURES_MAX, &linear->group_size);
    case LAYER_OPTION_FULL_IN_FEATURES:
        return arguments_int(arguments, "full-in-features", 1, KRY_FEATURES_MAX,
                             &linear->full_in_features);
    case LAYER_OPTION_K_OFFSET:
        return arguments_int(arguments, "k-offset", 0, KRY_FEATURES_MAX, &linear->k_offset);
    case LAYER_OPTION_WEIGHT_TYPE:
        return take_word(arguments, "weight-type", parse_weight_type, weight_type_words,
                         &linear->weight_type);
    case LAYER_OPTION_X_TYPE:
        return take_word(arguments, "x-type", parse_type, type_words, &linear->x_type);
    case LAYER_OPTION_Y_TYPE:
        return take_word(arguments, "y-type", parse_type, type_words, &linear->y_type);
    case LAYER_OPTION_SCALE_TYPE:
        return take_word(arguments, "scale-type", parse_type, type_words, &linear->scale_type);
    case LAYER_OPTION_ACTIVATION:
        return take_word(arguments, "activation-quantization", parse_activation, activation_words,
                         &linear->activation_quantization);
    case LAYER_OPTION_ALLOW:
        return take_word(arguments, "allow", parse_allowed, "int8", &linear->allowed);
    default: /* LAYER_OPTION_ACT_ORDER */
        linear->act_order = 1;
        return true;
    }
}
