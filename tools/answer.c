/*
 * A decision as the command shows it.
 */
#include "answer.h"

#include "words.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *outcome_word(enum outcome outcome) {
    static const char *const words[] = {"fast", "slow", "none"};
    return words[outcome];
}

bool candidate_matches(const kry_candidate *candidate, const char *only) {
    if (!only || !strcmp(candidate->kernel, only))
        return true;
    size_t plugin = strlen(candidate->plugin);
    return !strncmp(only, candidate->plugin, plugin) && only[plugin] == '/' &&
           !strcmp(only + plugin + 1, candidate->kernel);
}

/* Find the first candidate that matches and accepts. */
static kry_status find_winner(const kry_device *device, const char *only, struct answer *answer) {
    bool known = false;
    answer->outcome = OUTCOME_NONE;
    for (size_t i = 0; i < answer->info.candidate_count; i++) {
        kry_candidate candidate = KRY_INIT(kry_candidate);
        kry_status status = kry_decision_candidate(answer->decision, i, &candidate);
        if (status)
            return status;
        if (!candidate_matches(&candidate, only))
            continue;
        known = true;
        if (candidate.verdict == KRY_VERDICT_REFUSES)
            continue;
        answer->outcome = candidate.fallback ? OUTCOME_SLOW : OUTCOME_FAST;
        answer->winner = candidate;
        return KRY_OK;
    }
    if (only && !known)
        return kry_error_set(KRY_E_NOT_FOUND, "platform \"%s\" has no kernel \"%s\"",
                             device->platform, only);
    return KRY_OK;
}

/* What a stack has to allocate, for each m of --m. The device counts as hypothetical, so that no
 * GPU runtime is initialised. */
static kry_status find_needs(kry_registry *registry, const kry_device *device,
                             const struct common_options *common, struct answer *answer) {
    kry_device hypothetical = *device;
    hypothetical.flags |= KRY_DEVICE_HYPOTHETICAL;
    char kernel[256];
    snprintf(kernel, sizeof kernel, "%s/%s", answer->winner.plugin, answer->winner.kernel);
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &hypothetical;
    args.linear = answer->info.asked;
    args.kernel = kernel;
    kry_layer *layer = NULL;
    kry_sizes sizes = KRY_INIT(kry_sizes);
    kry_status status = kry_layer_create(registry, &args, &layer);
    if (!status)
        status = kry_layer_sizes(layer, &sizes);
    json_t *workspaces = json_array();
    for (size_t i = 0; !status && i < common->m_count; i++) {
        kry_workspace workspace = KRY_INIT(kry_workspace);
        status = kry_layer_workspace(layer, common->m[i], &workspace);
        json_t *object = json_object();
        json_put(object, "m", json_integer(common->m[i]));
        json_put(object, "scratch_bytes", json_integer((json_int_t)workspace.scratch_bytes));
        json_put(object, "zeroed_bytes", json_integer((json_int_t)workspace.zeroed_bytes));
        json_add(workspaces, object);
    }
    answer->needs = json_object();
    json_put(answer->needs, "prepared_bytes", json_integer((json_int_t)sizes.prepared_bytes));
    json_put(answer->needs, "workspaces", workspaces);
    kry_layer_destroy(&layer);
    return status;
}

kry_status answer_create(kry_registry *registry, const kry_device *device, const kry_linear *linear,
                         const struct common_options *common, struct answer *out) {
    struct answer answer = {.info = KRY_INIT(kry_decision_info)};
    kry_status status = kry_decide(registry, device, linear, &answer.decision);
    if (!status)
        status = kry_decision_describe(answer.decision, &answer.info);
    if (!status)
        status = find_winner(device, common->kernel, &answer);
    if (!status && common->m_count > 0 && answer.outcome != OUTCOME_NONE)
        status = find_needs(registry, device, common, &answer);
    if (status)
        answer_free(&answer);
    else
        *out = answer;
    return status;
}

void answer_free(struct answer *answer) {
    kry_decision_destroy(&answer->decision);
    json_decref(answer->needs);
}

/* ---- words --------------------------------------------------------------------------- */

char *reason_format(const kry_candidate *candidate, char out[REASON_BYTES]) {
    out[0] = '\0';
    if (candidate->verdict != KRY_VERDICT_REFUSES)
        return out;
    if (candidate->refusal)
        kry_refusal_format(candidate->refusal, out, REASON_BYTES);
    if (candidate->rewritten_refusal) {
        char again[REASON_BYTES];
        size_t length = strlen(out);
        kry_refusal_format(candidate->rewritten_refusal, again, sizeof again);
        if (strcmp(out, again) != 0)
            snprintf(out + length, REASON_BYTES - length, "; with groups split: %s", again);
    }
    return out;
}

/* The word for one value of a code's kind, or NULL where it is a plain number. */
static const char *value_word(uint32_t code, uint32_t value) {
    switch (code) {
    case KRY_REFUSAL_WEIGHT_TYPE:
        return weight_type_word(value);
    case KRY_REFUSAL_X_TYPE:
    case KRY_REFUSAL_Y_TYPE:
    case KRY_REFUSAL_SCALE_TYPE:
        return type_word(value);
    case KRY_REFUSAL_ACTIVATION_QUANTIZATION:
        return activation_word(value);
    case KRY_REFUSAL_ZERO_POINTS:
    case KRY_REFUSAL_ACT_ORDER:
        return value ? "yes" : "no";
    default:
        return NULL;
    }
}

static bool needs_bits(uint32_t code) {
    return code == KRY_REFUSAL_WEIGHT_TYPE || code == KRY_REFUSAL_X_TYPE ||
           code == KRY_REFUSAL_Y_TYPE || code == KRY_REFUSAL_SCALE_TYPE ||
           code == KRY_REFUSAL_ACTIVATION_QUANTIZATION;
}

/* Codes whose sentence says it all: the numbers mean nothing, or bits. */
static bool has_no_values(uint32_t code) {
    return code == KRY_REFUSAL_NONE || code == KRY_REFUSAL_PLATFORM ||
           code == KRY_REFUSAL_DEPENDENCY || code == KRY_REFUSAL_OTHER;
}

char *found_format(const kry_refusal *refusal, char out[REASON_BYTES]) {
    uint32_t code = refusal->code;
    const char *word = value_word(code, (uint32_t)refusal->found);
    if (has_no_values(code))
        out[0] = '\0';
    else if (word)
        snprintf(out, REASON_BYTES, "%s", word);
    else if (code == KRY_REFUSAL_CPU_FEATURE)
        kry_cpu_features_format((uint64_t)refusal->found, out, REASON_BYTES);
    else if (code == KRY_REFUSAL_FEATURE)
        snprintf(out, REASON_BYTES, "0x%" PRIx64, (uint64_t)refusal->found);
    else
        snprintf(out, REASON_BYTES, "%" PRId64, refusal->found);
    return out;
}

char *needed_format(const kry_refusal *refusal, char out[REASON_BYTES]) {
    uint32_t code = refusal->code;
    const char *word = value_word(code, (uint32_t)refusal->needed);
    out[0] = '\0';
    if (has_no_values(code) || (code == KRY_REFUSAL_GROUP_SIZE && !refusal->needed))
        return out;
    if (needs_bits(code)) {
        size_t length = 0;
        for (uint32_t value = 0; value < 8; value++)
            if (refusal->needed >> value & 1)
                length += (size_t)snprintf(out + length, REASON_BYTES - length, "%s%s",
                                           length ? "|" : "", value_word(code, value));
    } else if (word) {
        snprintf(out, REASON_BYTES, "%s", word);
    } else if (code == KRY_REFUSAL_CPU_FEATURE) {
        kry_cpu_features_format((uint64_t)refusal->needed, out, REASON_BYTES);
    } else {
        bool multiple = code == KRY_REFUSAL_K_ALIGNMENT || code == KRY_REFUSAL_N_ALIGNMENT;
        snprintf(out, REASON_BYTES, "%s%" PRId64, multiple ? "a multiple of " : "",
                 refusal->needed);
    }
    return out;
}

char *rewrite_format(const struct answer *answer, char out[REASON_BYTES]) {
    out[0] = '\0';
    if (answer->outcome == OUTCOME_NONE || answer->info.rewrite == KRY_REWRITE_NONE)
        return out;
    char bytes[SIZE_TEXT_BYTES];
    snprintf(out, REASON_BYTES, "groups of %" PRId64 " split to %" PRId64 ", +%s",
             answer->info.asked->group_size, answer->info.decided->group_size,
             size_format(answer->info.rewrite_bytes, bytes));
    return out;
}

/* ---- JSON ---------------------------------------------------------------------------- */

static const char *rewrite_word(uint32_t rewrite) {
    return rewrite == KRY_REWRITE_SPLIT_GROUPS ? "split_groups" : "none";
}

char *needs_format(const struct answer *answer, char out[REASON_BYTES]) {
    out[0] = '\0';
    if (!answer->needs)
        return out;
    char bytes[SIZE_TEXT_BYTES];
    json_int_t prepared = json_integer_value(json_object_get(answer->needs, "prepared_bytes"));
    size_t length = (size_t)snprintf(out, REASON_BYTES, "%s prepared, workspace",
                                     size_format((uint64_t)prepared, bytes));
    size_t i;
    json_t *workspace;
    json_array_foreach(json_object_get(answer->needs, "workspaces"), i, workspace) {
        json_int_t m, scratch, zeroed;
        json_unpack(workspace, "{s:I, s:I, s:I}", "m", &m, "scratch_bytes", &scratch,
                    "zeroed_bytes", &zeroed);
        if (length < REASON_BYTES)
            length += (size_t)snprintf(
                out + length, REASON_BYTES - length, "%s %s (m %lld)", i ? "," : "",
                size_format((uint64_t)(scratch + zeroed), bytes), (long long)m);
    }
    return out;
}

void answer_json(const struct answer *answer, json_t *object) {
    bool won = answer->outcome != OUTCOME_NONE;
    if (answer->needs)
        json_put(object, "needs", json_incref(answer->needs));
    json_put(object, "outcome", json_text(outcome_word(answer->outcome)));
    json_put(object, "kernel", json_text(won ? answer->winner.kernel : NULL));
    json_put(object, "plugin", json_text(won ? answer->winner.plugin : NULL));
    json_put(object, "fallback", json_boolean(answer->outcome == OUTCOME_SLOW));
    json_put(object, "padding_bytes", json_integer(won ? answer->winner.padding_bytes : 0));
    json_put(object, "rewrite",
             json_text(rewrite_word(won ? answer->info.rewrite : KRY_REWRITE_NONE)));
    json_put(object, "rewrite_bytes",
             json_integer(won ? (json_int_t)answer->info.rewrite_bytes : 0));
    json_put(object, "decided_group_size",
             json_integer(won ? answer->info.decided->group_size : answer->info.asked->group_size));
}

static json_t *refusal_json(const kry_refusal *refusal) {
    if (!refusal)
        return json_null();
    char text[REASON_BYTES];
    kry_refusal_format(refusal, text, sizeof text);
    json_t *object = json_object();
    json_put(object, "code", json_text(kry_refusal_code_string(refusal->code)));
    json_put(object, "found", json_integer(refusal->found));
    json_put(object, "needed", json_integer(refusal->needed));
    json_put(object, "reason", json_text(text));
    return object;
}

json_t *candidates_json(const struct answer *answer, const char *only) {
    static const char *const verdicts[] = {"?", "chosen", "accepts", "refuses"};
    json_t *array = json_array();
    for (size_t i = 0; i < answer->info.candidate_count; i++) {
        kry_candidate candidate = KRY_INIT(kry_candidate);
        if (kry_decision_candidate(answer->decision, i, &candidate) ||
            !candidate_matches(&candidate, only))
            continue;
        json_t *object = json_object();
        json_put(object, "kernel", json_text(candidate.kernel));
        json_put(object, "plugin", json_text(candidate.plugin));
        json_put(object, "priority", json_integer(candidate.priority));
        json_put(object, "fallback", json_boolean(candidate.fallback));
        json_put(object, "verdict", json_text(verdicts[candidate.verdict & 3]));
        json_put(object, "padding_bytes", json_integer(candidate.padding_bytes));
        json_put(object, "refusal", refusal_json(candidate.refusal));
        json_put(object, "rewritten_refusal", refusal_json(candidate.rewritten_refusal));
        json_add(array, object);
    }
    return array;
}
