/*
 * Checks that only ask: can_implement, sizes, workspace. They need no device.
 */
#include "hooks.h"
#include "suite.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- can_implement is pure --------------------------------------------------------------- */

static const struct memory_label device_label = {"the device, which is not its own to write",
                                                 "KRY-P01", NULL},
                                 linear_label = {"the description, which is not its own to write",
                                                 "KRY-P01", NULL};

/* An answer, whole. */
struct answer {
    int64_t value;
    kry_refusal refusal;
};

static struct answer ask(const struct suite *suite, const kry_device *device,
                         const kry_linear *linear) {
    struct answer answer = {.refusal = {.struct_size = sizeof(kry_refusal)}};
    answer.value = suite->functions->can_implement(device, linear, &answer.refusal);
    return answer;
}

static bool same_answer(const struct answer *a, const struct answer *b) {
    if (a->value != b->value)
        return false;
    return a->value != KRY_REFUSED ||
           (a->refusal.code == b->refusal.code && a->refusal.found == b->refusal.found &&
            a->refusal.needed == b->refusal.needed && a->refusal.sentence == b->refusal.sentence);
}

/* Ask about one device twice, another description in between. */
static void ask_twice(struct suite *suite, const kry_device *device, const kry_linear *linear,
                      const char *kind) {
    kry_linear other = *linear;
    other.in_features = other.full_in_features = linear->full_in_features + 1;
    other.k_offset = 0;
    struct answer first = ask(suite, device, linear);
    ask(suite, device, &other);
    struct answer second = ask(suite, device, linear);
    if (!same_answer(&first, &second))
        fail(suite, NULL,
             "can_implement answered %" PRId64 " and then %" PRId64
             " (refusals %s, %s) for the same arguments, %s",
             first.value, second.value, kry_refusal_code_string(first.refusal.code),
             kry_refusal_code_string(second.refusal.code), kind);
}

/* The device, its twin that is not here, and one that is not here and of which little is known. */
enum { DEVICE_HERE, DEVICE_TWIN, DEVICE_UNKNOWN, DEVICES };

static void make_devices(const struct suite *suite, kry_device devices[DEVICES]) {
    for (int i = 0; i < DEVICES; i++)
        devices[i] = *suite->plan->device;
    for (int i = DEVICE_TWIN; i < DEVICES; i++) {
        devices[i].flags |= KRY_DEVICE_HYPOTHETICAL;
        devices[i].ordinal = -1;
    }
    kry_device *unknown = &devices[DEVICE_UNKNOWN];
    unknown->cpu_features = 0;
    unknown->multiprocessors = unknown->shared_memory_bytes = 0;
    unknown->l2_bytes = unknown->memory_bytes = 0;
}

void check_pure(struct suite *suite, const struct item *item) {
    static bool hooked;
    if (!hooked)
        hooked = hooks_install(*(void *const *)&suite->functions->can_implement);
    struct memory device, linear;
    if (!memory_get(&device, &device_label, sizeof(kry_device), 8, FIT_END) ||
        !memory_get(&linear, &linear_label, sizeof(kry_linear), 8, FIT_END)) {
        block(suite);
        memory_release(&device);
        return;
    }
    memcpy(linear.data, &item->linear, linear.bytes);
    memory_seal(&linear, true);
    kry_device devices[DEVICES];
    make_devices(suite, devices);
    static const char *const kinds[DEVICES] = {"on the device", "on its hypothetical twin",
                                               "on a hypothetical device without properties"};
    step(suite, "can_implement", 0);
    for (int i = 0; i < DEVICES; i++) {
        memory_seal(&device, false);
        memcpy(device.data, &devices[i], device.bytes);
        memory_seal(&device, true);
        hooks_begin(HOOKS_ALLOCATION);
        hooks_enter();
        ask_twice(suite, (const kry_device *)(const void *)device.data,
                  (const kry_linear *)(const void *)linear.data, kinds[i]);
        hooks_leave();
        const char *called = hooks_end();
        if (called != NULL)
            fail(suite, NULL, "can_implement called %s", called);
    }
    memory_release(&device);
    memory_release(&linear);
}

/* ---- several threads ask ----------------------------------------------------------------- */

enum { ASKERS = 4, ASKS = 60, DESCRIPTIONS = 4, QUESTIONS = DEVICES * DESCRIPTIONS };

/* A question and what is answered to it where nobody else asks. */
struct question {
    kry_device device;
    kry_linear linear;
    struct answer answer;
};

struct asker {
    const struct suite *suite;
    const struct question *questions;
    size_t first; /* each begins with another question */
    pthread_barrier_t *start;
    pthread_t thread;
    bool differs;
};

static void *ask_again(void *argument) {
    struct asker *asker = argument;
    pthread_barrier_wait(asker->start);
    for (size_t i = 0; i < (size_t)ASKS * QUESTIONS && !asker->differs; i++) {
        const struct question *question = &asker->questions[(asker->first + i) % QUESTIONS];
        struct answer answer = ask(asker->suite, &question->device, &question->linear);
        asker->differs = !same_answer(&answer, &question->answer);
    }
    return NULL;
}

/* The description, and beside it one of another size, of another weight type, of another type of x.
 */
static void make_questions(const struct suite *suite, const kry_linear *linear,
                           struct question questions[QUESTIONS]) {
    kry_linear others[DESCRIPTIONS] = {*linear, *linear, *linear, *linear};
    kry_device devices[DEVICES];
    make_devices(suite, devices);
    others[1].in_features = others[1].full_in_features = linear->full_in_features + 1;
    others[1].k_offset = 0;
    others[2].weight_type = linear->weight_type % KRY_WEIGHT_U8 + 1;
    others[3].x_type = linear->x_type % KRY_TYPE_F32 + 1;
    for (int i = 0; i < QUESTIONS; i++) {
        questions[i].device = devices[i % DEVICES];
        questions[i].linear = others[i / DEVICES];
        questions[i].answer = ask(suite, &questions[i].device, &questions[i].linear);
    }
}

/* Answers do not depend on who else asks, for devices that are not here either. */
void check_asking(struct suite *suite, const struct item *item) {
    struct question questions[QUESTIONS];
    struct asker askers[ASKERS];
    pthread_barrier_t start;
    step(suite, "can_implement", 0);
    make_questions(suite, &item->linear, questions);
    if (pthread_barrier_init(&start, NULL, ASKERS) != 0) {
        block(suite);
        return;
    }
    step(suite, "can_implement, on several threads,", 0);
    for (size_t i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){suite, questions, i * QUESTIONS / ASKERS, &start, 0, false};
        if (pthread_create(&askers[i].thread, NULL, ask_again, &askers[i]) != 0)
            abort(); /* the others wait for ever */
    }
    for (size_t i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
        if (askers[i].differs)
            fail(suite, NULL, "can_implement answered otherwise while other threads asked, too");
    }
    pthread_barrier_destroy(&start);
}

/* ---- refusals are complete --------------------------------------------------------------- */

static bool is_bit_of(int64_t bits, int64_t number) {
    return number >= 0 && number < 63 && (bits >> number & 1) != 0;
}

/* Whether found is what it is of the description and needed is something else: NULL, or what
 * is wrong. Codes whose numbers the description does not tell are let pass. */
static const char *wrong_with(const kry_refusal *refusal, const kry_linear *linear,
                              const kry_device *device) {
    int64_t group = linear->group_size, found = refusal->found, needed = refusal->needed, is;
    bool bits = false, divides = false;
    switch (refusal->code) {
    case KRY_REFUSAL_CAPABILITY:
        return found != device->arch_number ? "found is not the architecture's number"
               : needed <= found            ? "needed is not above found"
                                            : NULL;
    case KRY_REFUSAL_CPU_FEATURE:
        return (needed & ~found) == 0 ? "needed names no feature that is not found" : NULL;
    case KRY_REFUSAL_WEIGHT_TYPE:
        is = linear->weight_type, bits = true;
        break;
    case KRY_REFUSAL_X_TYPE:
        is = linear->x_type, bits = true;
        break;
    case KRY_REFUSAL_Y_TYPE:
        is = linear->y_type, bits = true;
        break;
    case KRY_REFUSAL_SCALE_TYPE:
        is = linear->scale_type, bits = true;
        break;
    case KRY_REFUSAL_ACTIVATION_QUANTIZATION:
        is = linear->activation_quantization, bits = true;
        break;
    case KRY_REFUSAL_K_ALIGNMENT:
        is = linear->in_features, divides = true;
        break;
    case KRY_REFUSAL_N_ALIGNMENT:
        is = linear->out_features, divides = true;
        break;
    case KRY_REFUSAL_GROUP_SIZE:
        is = group;
        break;
    case KRY_REFUSAL_ZERO_POINTS:
        is = kry_weight_has_zero_points(linear->weight_type);
        break;
    case KRY_REFUSAL_ACT_ORDER:
        is = linear->act_order;
        break;
    case KRY_REFUSAL_PARTITION:
        is = group > 0 ? linear->k_offset % group : 0;
        break;
    case KRY_REFUSAL_SHORT_GROUP:
        if (group < 0 || linear->k_offset % group != 0)
            return NULL;
        is = linear->in_features % group;
        break;
    default:
        return NULL;
    }
    if (found != is)
        return "found is not what the description says";
    if (bits)
        return is_bit_of(needed, found) ? "needed allows what was found" : NULL;
    if (divides)
        return needed < 1 || found % needed == 0 ? "found is a multiple of needed" : NULL;
    return needed == found ? "needed is what was found" : NULL;
}

static void judge_refusal(struct suite *suite, const struct item *item, const kry_device *device,
                          const struct answer *answer) {
    const kry_refusal *refusal = &answer->refusal;
    const char *word = kry_refusal_code_string(refusal->code);
    bool worded = refusal->sentence != NULL && refusal->sentence[0] != '\0';
    const char *wrong = wrong_with(refusal, &item->linear, device);
    Dl_info image;
    if (answer->value != KRY_REFUSED)
        fail(suite, NULL, "can_implement answered %" PRId64 ", which is neither yes nor no",
             answer->value);
    else if (refusal->code == KRY_REFUSAL_NONE || refusal->code > KRY_REFUSAL_OTHER)
        fail(suite, NULL, "a refusal with the code %" PRIu32 ", which is none", refusal->code);
    else if (refusal->code == KRY_REFUSAL_OTHER && !worded)
        fail(suite, NULL, "a refusal with the code other and no sentence");
    else if (wrong != NULL)
        fail(suite, NULL, "a refusal by %s with found %" PRId64 ", needed %" PRId64 ": %s", word,
             refusal->found, refusal->needed, wrong);
    else if (worded && dladdr(refusal->sentence, &image) == 0)
        fail(suite, NULL, "a refusal by %s whose sentence has no static storage", word);
}

/* On the device and on its twin that is not here. */
void check_refusals(struct suite *suite, const struct item *item) {
    kry_device devices[DEVICES];
    bool refused = false;
    make_devices(suite, devices);
    step(suite, "can_implement", 0);
    for (int i = DEVICE_HERE; i <= DEVICE_TWIN; i++) {
        struct answer answer = ask(suite, &devices[i], &item->linear);
        if (answer.value < 0)
            judge_refusal(suite, item, &devices[i], &answer);
        refused = refused || answer.value < 0;
    }
    if (!refused)
        pass_over(suite);
}

/* ---- sizes and workspace ----------------------------------------------------------------- */

void check_sizes(struct suite *suite, const struct item *item) {
    const kry_device *device = suite->plan->device;
    kry_sizes sizes[2] = {{.struct_size = sizeof(kry_sizes)}, {.struct_size = sizeof(kry_sizes)}};
    step(suite, "sizes", 0);
    for (int i = 0; i < 2; i++)
        if (suite->functions->sizes(device, &item->linear, &sizes[i]) != KRY_OK) {
            block(suite); /* a yes that does not run */
            return;
        }
    const kry_sizes *told = &sizes[0];
    if (memcmp(&sizes[0], &sizes[1], sizeof sizes[0]) != 0)
        fail(suite, NULL,
             "sizes told %" PRIu64 " prepared bytes and then %" PRIu64
             ", or other fields that differ, for the same arguments",
             sizes[0].prepared_bytes, sizes[1].prepared_bytes);
    else if (told->prepare_multiple < 1 || told->prepare_multiple > KRY_PREPARE_MULTIPLE_MAX)
        fail(suite, NULL, "prepare_multiple is %" PRId64 ", expected 1 to %d",
             told->prepare_multiple, KRY_PREPARE_MULTIPLE_MAX);
    else if (told->prepared_bytes > INT64_MAX || told->prepare_scratch_bytes > INT64_MAX / 2 ||
             told->bound_bytes > INT32_MAX)
        fail(suite, NULL,
             "%" PRIu64 " prepared, %" PRIu64 " scratch, %" PRIu64
             " bound bytes, which nobody can allocate",
             told->prepared_bytes, told->prepare_scratch_bytes, told->bound_bytes);
}

void check_workspace(struct suite *suite, const struct item *item) {
    static const int64_t more[] = {
        48,  63,  64,  65,   100,  127,  128,  129,  255,   256,     257,
        511, 512, 513, 1000, 1024, 2047, 4096, 8191, 65536, 1 << 20, KRY_FEATURES_MAX};
    enum { EACH = 40, MORE = sizeof more / sizeof more[0] };
    const kry_device *device = suite->plan->device;
    if (suite->functions->workspace == NULL) {
        pass_over(suite);
        return;
    }
    kry_workspace before = {0};
    int64_t before_m = 0;
    for (int i = 0; i < EACH + MORE; i++) {
        int64_t m = i < EACH ? i + 1 : more[i - EACH];
        kry_workspace now[2] = {{.struct_size = sizeof now[0]}, {.struct_size = sizeof now[0]}};
        step(suite, "workspace", m);
        for (int again = 0; again < 2; again++)
            if (suite->functions->workspace(device, &item->linear, m, &now[again]) != KRY_OK) {
                block(suite);
                return;
            }
        if (now[0].scratch_bytes != now[1].scratch_bytes ||
            now[0].zeroed_bytes != now[1].zeroed_bytes)
            fail(suite, NULL, "workspace told two sizes for the same arguments");
        else if (now[0].scratch_bytes < before.scratch_bytes)
            fail(suite, NULL, "scratch shrinks from %" PRIu64 " bytes at m %" PRId64 " to %" PRIu64,
                 before.scratch_bytes, before_m, now[0].scratch_bytes);
        else if (now[0].zeroed_bytes < before.zeroed_bytes)
            fail(suite, NULL,
                 "the zeroed part shrinks from %" PRIu64 " bytes at m %" PRId64 " to %" PRIu64,
                 before.zeroed_bytes, before_m, now[0].zeroed_bytes);
        before = now[0];
        before_m = m;
    }
}
