/*
 * A decision as the command shows it: which kernel runs a description, and why not the others.
 */
#ifndef KERNELRY_ANSWER_H
#define KERNELRY_ANSWER_H

#include "command.h"

/** How good an answer is. */
enum outcome {
    OUTCOME_FAST, /* a kernel that is not its platform's fallback */
    OUTCOME_SLOW, /* the fallback */
    OUTCOME_NONE  /* no kernel */
};

struct answer {
    kry_decision *decision;
    kry_decision_info info;
    enum outcome outcome;
    kry_candidate winner; /* with FAST and SLOW */
    json_t *needs;        /* with --m: bytes of prepared weights and of workspaces; else NULL */
};

/**
 * Ask for a description. With --kernel, that kernel is the only candidate.
 *
 * Ownership  *out is freed by answer_free. Errors: those of kry_decide; KRY_E_NOT_FOUND: the
 *            platform has no kernel of that name.
 */
kry_status answer_create(kry_registry *registry, const kry_device *device, const kry_linear *linear,
                         const struct common_options *common, struct answer *out);
void answer_free(struct answer *answer);

/** Whether a candidate is asked at all: its name is `only`, or `only` is NULL. */
bool candidate_matches(const kry_candidate *candidate, const char *only);

/** "fast", "slow", "none". */
const char *outcome_word(enum outcome outcome);

/** Bytes enough for the texts below. */
enum { REASON_BYTES = 1024 };

/** Why a candidate refuses, and where it differs why it refuses the rewrite; "" when it accepts.
 *  Returns out. */
char *reason_format(const kry_candidate *candidate, char out[REASON_BYTES]);

/** What was found and what is needed, as words where the code knows them. Returns out. */
char *found_format(const kry_refusal *refusal, char out[REASON_BYTES]);
char *needed_format(const kry_refusal *refusal, char out[REASON_BYTES]);

/** "split groups of 64 to 32 (+1.2 MiB)", or "" without a rewrite. Returns out. */
char *rewrite_format(const struct answer *answer, char out[REASON_BYTES]);

/** "8.2 MiB prepared, workspace 33 KiB (m 1), 1.2 MiB (m 64)", or "" without --m. Returns out. */
char *needs_format(const struct answer *answer, char out[REASON_BYTES]);

/** Add kernel, plugin, outcome, rewrite, padding of an answer to an object. */
void answer_json(const struct answer *answer, json_t *object);

/** The candidates with verdicts and refusals, in order, as a JSON array. */
json_t *candidates_json(const struct answer *answer, const char *only);

#endif
