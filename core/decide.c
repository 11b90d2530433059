/*
 * A description becomes a decision: kernels asked in order, refusals kept, a rewrite tried
 * when nobody takes the description as it stands.
 */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct asked {
    const struct ranked_kernel *kernel;
    struct answer answer;    /* to the description as it stands */
    struct answer rewritten; /* only where was_rewritten */
};

struct kry_decision {
    kry_decision_info info;
    kry_linear asked_linear, decided_linear; /* what info points to */
    char device[64];                         /* for messages */
    bool was_rewritten;
    struct asked asked[];
};

void core_ask(const struct ranked_kernel *kernel, const kry_device *device,
              const kry_linear *linear, struct answer *out) {
    out->refusal = (kry_refusal){.struct_size = sizeof out->refusal};
    uint64_t unknown = linear->required_features & ~kernel->kernel.features;
    if (unknown != 0) {
        out->accepted = kry_refuse(&out->refusal, KRY_REFUSAL_FEATURE, (int64_t)unknown, 0, NULL);
        return;
    }
    out->accepted = kernel->linear.can_implement(device, linear, &out->refusal);
    out->refusal.struct_size = sizeof out->refusal;
    if (out->accepted >= 0)
        return;
    out->accepted = KRY_REFUSED;
    if (out->refusal.code == KRY_REFUSAL_NONE)
        kry_refuse(&out->refusal, KRY_REFUSAL_OTHER, 0, 0,
                   "refused without a reason, which its contract asks for (KRY-P02)");
}

static uint64_t mix(uint64_t hash, uint64_t value) {
    hash ^= value;
    hash *= UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

static uint64_t hash_shape(const kry_device *device, const kry_linear *l) {
    uint64_t hash = UINT64_C(0x6b65726e656c7279);
    for (const char *c = device->platform; *c != '\0'; c++)
        hash = mix(hash, (uint64_t)*c);
    for (const char *c = device->arch; *c != '\0'; c++)
        hash = mix(hash, (uint64_t)*c);
    const uint64_t fields[] = {(uint64_t)l->in_features,
                               (uint64_t)l->out_features,
                               (uint64_t)l->full_in_features,
                               (uint64_t)l->k_offset,
                               (uint64_t)l->group_size,
                               l->weight_type,
                               l->scale_type,
                               l->x_type,
                               l->y_type,
                               l->activation_quantization,
                               l->allowed,
                               l->act_order,
                               l->required_features};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        hash = mix(hash, fields[i]);
    return hash != 0 ? hash : 1;
}

/* True the first time; without a lock, in a table that only fills. When it is full, shapes are
 * no longer told apart and nothing more is warned of. */
static bool first_time(kry_registry *registry, uint64_t hash) {
    for (size_t i = 0; i < WARNED_SLOTS; i++) {
        _Atomic uint64_t *slot = &registry->warned[(hash + i) % WARNED_SLOTS];
        uint64_t found = 0;
        if (atomic_compare_exchange_strong(slot, &found, hash))
            return true;
        if (found == hash)
            return false;
    }
    return false;
}

static size_t append(char *out, size_t size, size_t length, const char *text) {
    return length + (size_t)snprintf(length < size ? out + length : NULL,
                                     length < size ? size - length : 0, "%s", text);
}

static size_t append_reason(const struct asked *asked, bool rewritten, char *out, size_t size,
                            size_t length) {
    char reason[512], line[768];
    kry_refusal_format(&asked->answer.refusal, reason, sizeof reason);
    snprintf(line, sizeof line, "%s/%s: %s", asked->kernel->plugin->note.name,
             asked->kernel->kernel.name, reason);
    length = append(out, size, length, line);
    if (rewritten) {
        kry_refusal_format(&asked->rewritten.refusal, reason, sizeof reason);
        snprintf(line, sizeof line, " (with groups split: %s)", reason);
        length = append(out, size, length, line);
    }
    return length;
}

size_t core_decision_format(const kry_decision *decision, char *out, size_t size) {
    size_t length = append(out, size, 0, "");
    for (uint64_t i = 0; i < decision->info.candidate_count; i++) {
        const struct asked *asked = &decision->asked[i];
        if (asked->answer.accepted >= 0 ||
            (decision->was_rewritten && asked->rewritten.accepted >= 0))
            continue;
        if (length > 0)
            length = append(out, size, length, "; ");
        length = append_reason(asked, decision->was_rewritten, out, size, length);
    }
    return length;
}

/* What would help, each advice once, for those refusals that an operator can do something
 * about. */
static void format_help(const kry_decision *decision, char *out, size_t size) {
    size_t length = append(out, size, 0, "");
    for (uint64_t i = 0; i < decision->info.candidate_count; i++) {
        const struct answer *answer = &decision->asked[i].answer;
        const char *help = answer->accepted < 0 ? core_refusal_help(answer->refusal.code) : NULL;
        if (help == NULL || strstr(out, help) != NULL)
            continue;
        length = append(out, size, length, length > 0 ? ", " : "; what would help: ");
        length = append(out, size, length, help);
    }
}

static void warn_of_fallback(kry_registry *registry, const kry_device *device,
                             const kry_decision *decision) {
    const struct ranked_kernel *chosen = core_decision_kernel(decision);
    if (chosen == NULL || !chosen->fallback ||
        !first_time(registry, hash_shape(device, decision->info.asked)))
        return;
    char shape[160], reasons[3072], help[512];
    core_linear_format(decision->info.asked, shape, sizeof shape);
    core_decision_format(decision, reasons, sizeof reasons);
    format_help(decision, help, sizeof help);
    core_log(&registry->services, KRY_LOG_WARNING,
             "%s on %s runs on the fallback %s/%s, a slow path: %s%s", shape, decision->device,
             chosen->plugin->note.name, chosen->kernel.name,
             reasons[0] != '\0' ? reasons : "no other kernel serves this platform", help);
}

static void ask_all(kry_decision *decision, const kry_device *device) {
    kry_decision_info *info = &decision->info;
    for (uint64_t i = 0; i < info->candidate_count; i++) {
        struct asked *asked = &decision->asked[i];
        core_ask(asked->kernel, device, info->asked, &asked->answer);
        if (info->chosen < 0 && asked->answer.accepted >= 0)
            info->chosen = (int64_t)i;
    }
    kry_linear rewritten;
    uint64_t bytes;
    if (info->chosen >= 0 || info->candidate_count == 0 ||
        !core_rewrite_split_groups(info->asked, &rewritten, &bytes))
        return;
    decision->was_rewritten = true;
    for (uint64_t i = 0; i < info->candidate_count; i++) {
        struct asked *asked = &decision->asked[i];
        core_ask(asked->kernel, device, &rewritten, &asked->rewritten);
        if (info->chosen < 0 && asked->rewritten.accepted >= 0)
            info->chosen = (int64_t)i;
    }
    if (info->chosen >= 0) {
        info->rewrite = KRY_REWRITE_SPLIT_GROUPS;
        info->rewrite_bytes = bytes;
        decision->decided_linear = rewritten;
    }
}

kry_status core_decide(const kry_registry *registry, const kry_device *given,
                       const kry_linear *linear, const struct ranked_kernel *only,
                       kry_decision **out) {
    kry_device device;
    kry_linear complete = KRY_INIT(kry_linear);
    kry_status status = COPY_IN(&device, given, kry_device);
    if (status == KRY_OK)
        status = kry_linear_complete(linear, &complete);
    if (status != KRY_OK)
        return status;
    if (memchr(device.platform, '\0', sizeof device.platform) == NULL ||
        memchr(device.arch, '\0', sizeof device.arch) == NULL || device.platform[0] == '\0')
        return kry_error_set(KRY_E_ARGUMENT, "device: platform or architecture is empty or has "
                                             "no end");
    size_t count;
    const struct ranked_kernel *kernels = core_registry_kernels(registry, device.platform, &count);
    if (only != NULL) {
        kernels = only;
        count = 1;
    }
    kry_decision *decision = malloc(sizeof *decision + count * sizeof decision->asked[0]);
    if (decision == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory for a decision among %zu kernels", count);
    decision->info = (kry_decision_info){.struct_size = sizeof decision->info,
                                         .chosen = -1,
                                         .candidate_count = count,
                                         .asked = &decision->asked_linear,
                                         .decided = &decision->decided_linear};
    decision->asked_linear = complete;
    decision->decided_linear = complete;
    decision->was_rewritten = false;
    snprintf(decision->device, sizeof decision->device, "%.31s%s%.31s", device.platform,
             device.arch[0] != '\0' ? ":" : "", device.arch);
    for (size_t i = 0; i < count; i++)
        decision->asked[i].kernel = &kernels[i];
    ask_all(decision, &device);
    *out = decision;
    return KRY_OK;
}

kry_status kry_decide(const kry_registry *registry, const kry_device *device,
                      const kry_linear *linear, kry_decision **out) {
    if (registry == NULL || out == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_decide: found NULL");
    kry_status status = core_decide(registry, device, linear, NULL, out);
    /* The set of shapes that were warned of is the one part of a registry that changes. */
    if (status == KRY_OK)
        warn_of_fallback((kry_registry *)(uintptr_t)registry, device, *out);
    return status;
}

void kry_decision_destroy(kry_decision **decision) {
    if (decision == NULL)
        return;
    free(*decision);
    *decision = NULL;
}

kry_status kry_decision_describe(const kry_decision *decision, kry_decision_info *out) {
    if (decision == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_decision_describe: decision is NULL");
    return COPY_OUT(out, &decision->info, kry_decision_info);
}

kry_status kry_decision_candidate(const kry_decision *decision, size_t index, kry_candidate *out) {
    if (decision == NULL || index >= decision->info.candidate_count)
        return kry_error_set(KRY_E_NOT_FOUND, "no candidate %zu: there are %llu", index,
                             decision != NULL ? (unsigned long long)decision->info.candidate_count
                                              : 0);
    const struct asked *asked = &decision->asked[index];
    const struct answer *last =
        decision->info.rewrite != KRY_REWRITE_NONE ? &asked->rewritten : &asked->answer;
    bool rewritten_refused = decision->was_rewritten && asked->rewritten.accepted < 0;
    kry_candidate candidate = {
        .struct_size = sizeof candidate,
        .kernel = asked->kernel->kernel.name,
        .plugin = asked->kernel->plugin->table->name,
        .refusal = asked->answer.accepted < 0 ? &asked->answer.refusal : NULL,
        .rewritten_refusal = rewritten_refused ? &asked->rewritten.refusal : NULL,
        .padding_bytes = last->accepted > 0 ? last->accepted : 0,
        .priority = asked->kernel->priority,
        .fallback = asked->kernel->fallback,
        .flags = asked->kernel->kernel.flags};
    if ((int64_t)index == decision->info.chosen)
        candidate.verdict = KRY_VERDICT_CHOSEN;
    else
        candidate.verdict = last->accepted >= 0 ? KRY_VERDICT_ACCEPTS : KRY_VERDICT_REFUSES;
    return COPY_OUT(out, &candidate, kry_candidate);
}

const struct ranked_kernel *core_decision_kernel(const kry_decision *decision) {
    return decision->info.chosen >= 0 ? decision->asked[decision->info.chosen].kernel : NULL;
}

const kry_decision_info *core_decision_info(const kry_decision *decision) {
    return &decision->info;
}
