/*
 * Refusals in words: the kernel's own sentence, or one made from the code and the values.
 */
#include "core.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const codes[] = {
    [KRY_REFUSAL_NONE] = "none",
    [KRY_REFUSAL_PLATFORM] = "platform",
    [KRY_REFUSAL_CAPABILITY] = "capability",
    [KRY_REFUSAL_CPU_FEATURE] = "cpu_feature",
    [KRY_REFUSAL_WEIGHT_TYPE] = "weight_type",
    [KRY_REFUSAL_X_TYPE] = "x_type",
    [KRY_REFUSAL_Y_TYPE] = "y_type",
    [KRY_REFUSAL_SCALE_TYPE] = "scale_type",
    [KRY_REFUSAL_GROUP_SIZE] = "group_size",
    [KRY_REFUSAL_K_ALIGNMENT] = "k_alignment",
    [KRY_REFUSAL_N_ALIGNMENT] = "n_alignment",
    [KRY_REFUSAL_ZERO_POINTS] = "zero_points",
    [KRY_REFUSAL_ACT_ORDER] = "act_order",
    [KRY_REFUSAL_PARTITION] = "partition",
    [KRY_REFUSAL_SHORT_GROUP] = "short_group",
    [KRY_REFUSAL_ACTIVATION_QUANTIZATION] = "activation_quantization",
    [KRY_REFUSAL_DEPENDENCY] = "dependency",
    [KRY_REFUSAL_FEATURE] = "feature",
    [KRY_REFUSAL_SIZE] = "size",
    [KRY_REFUSAL_OTHER] = "other",
};

const char *kry_refusal_code_string(uint32_t code) {
    return code < sizeof codes / sizeof codes[0] ? codes[code] : "unknown";
}

const char *core_refusal_help(uint32_t code) {
    switch (code) {
    case KRY_REFUSAL_K_ALIGNMENT:
    case KRY_REFUSAL_N_ALIGNMENT:
        return "a kernel that takes any shape, or padding the layer when it is quantized";
    case KRY_REFUSAL_GROUP_SIZE:
        return "quantizing with another group size";
    case KRY_REFUSAL_PARTITION:
    case KRY_REFUSAL_SHORT_GROUP:
        return "a tensor-parallel size or group size with which shards end between groups";
    case KRY_REFUSAL_ACT_ORDER:
        return "quantizing without act-order";
    case KRY_REFUSAL_DEPENDENCY:
        return "installing what is missing";
    case KRY_REFUSAL_X_TYPE:
    case KRY_REFUSAL_Y_TYPE:
        return "running the model in another dtype";
    default:
        return NULL;
    }
}

/* Names of a KRY_TYPE_* or KRY_WEIGHT_* set, "f16 or bf16". */
static void format_set(const char *const *names, int64_t count, int64_t set, char *out,
                       size_t size) {
    size_t length = 0;
    out[0] = '\0';
    for (int64_t i = 0; i < count; i++)
        if (names[i][0] != '\0' && set >> i & 1 && length < size)
            length += (size_t)snprintf(out + length, size - length, "%s%s",
                                       length > 0 ? " or " : "", names[i]);
}

static size_t format_type(const char *what, const char *const *names, int64_t count,
                          const kry_refusal *refusal, char *out, size_t size) {
    char needed[96];
    format_set(names, count, refusal->needed, needed, sizeof needed);
    const char *found = refusal->found >= 0 && refusal->found < count ? names[refusal->found] : "";
    return (size_t)snprintf(out, size, "%s is %s, expected %s", what,
                            found[0] != '\0' ? found : "unknown",
                            needed[0] != '\0' ? needed : "another");
}

static size_t format_values(const kry_refusal *refusal, char *out, size_t size) {
    static const char *const types[] = {"", "f16", "bf16", "f32"};
    static const char *const weights[] = {"", "u4b8", "u4", "u8b128", "u8"};
    static const char *const activations[] = {"none", "int8 a token", "fp8 e4m3 a token"};
    long long found = (long long)refusal->found, needed = (long long)refusal->needed;
    char missing[256];
    switch (refusal->code) {
    case KRY_REFUSAL_WEIGHT_TYPE:
        return format_type("weight type", weights, 5, refusal, out, size);
    case KRY_REFUSAL_X_TYPE:
        return format_type("x", types, 4, refusal, out, size);
    case KRY_REFUSAL_Y_TYPE:
        return format_type("y", types, 4, refusal, out, size);
    case KRY_REFUSAL_SCALE_TYPE:
        return format_type("scale type", types, 4, refusal, out, size);
    case KRY_REFUSAL_ACTIVATION_QUANTIZATION:
        return format_type("wanted activation quantization", activations, 3, refusal, out, size);
    case KRY_REFUSAL_K_ALIGNMENT:
        return (size_t)snprintf(out, size, "in_features %lld is not a multiple of %lld", found,
                                needed);
    case KRY_REFUSAL_N_ALIGNMENT:
        return (size_t)snprintf(out, size, "out_features %lld is not a multiple of %lld", found,
                                needed);
    case KRY_REFUSAL_CAPABILITY:
        return (size_t)snprintf(out, size, "architecture number %lld, expected %lld or more", found,
                                needed);
    case KRY_REFUSAL_CPU_FEATURE:
        kry_cpu_features_format((uint64_t)needed & ~(uint64_t)found, missing, sizeof missing);
        return (size_t)snprintf(out, size, "CPU features are missing: %s", missing);
    case KRY_REFUSAL_GROUP_SIZE:
        return (size_t)snprintf(out, size, "group size %lld is not one it takes", found);
    case KRY_REFUSAL_PARTITION:
        return (size_t)snprintf(out, size, "the partition starts %lld columns inside a group",
                                found);
    case KRY_REFUSAL_SHORT_GROUP:
        return (size_t)snprintf(out, size, "the last group has %lld columns of %lld", found,
                                needed);
    case KRY_REFUSAL_FEATURE:
        return (size_t)snprintf(out, size, "required features %#llx are unknown to it", found);
    default:
        return (size_t)snprintf(out, size, "%s: found %lld, needed %lld",
                                kry_refusal_code_string(refusal->code), found, needed);
    }
}

size_t kry_refusal_format(const kry_refusal *refusal, char *out, size_t size) {
    if (refusal == NULL || refusal->struct_size < sizeof *refusal) {
        if (size > 0)
            out[0] = '\0';
        return 0;
    }
    if (refusal->sentence != NULL && refusal->sentence[0] != '\0') {
        size_t length = (size_t)snprintf(out, size, "%s", refusal->sentence);
        if (size > 0)
            core_clean(out);
        return length;
    }
    return format_values(refusal, out, size);
}
