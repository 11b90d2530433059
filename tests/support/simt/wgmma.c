/*
 * Warpgroups: threads 128 i to 128 i + 127 of a block, which come to the same operations in the
 * same order. An operation is complete when the last of them comes to it; only a wait lets them
 * wait.
 *
 * A gpu_wgmma takes over its accumulators and leaves NaNs in their place until a wait covers all
 * that use them; it is carried out in that wait, or by chance when it is complete. What must not be
 * touched meanwhile is looked at then: a must hold what it held, and c still the NaNs. Where the
 * module's source is instrumented, neither may have been written since the latest gpu_wgmma_fence.
 *
 * PTX ISA 8.7, sections 9.7.15.5.2 "wgmma.mma_async" and 9.7.15.7 "Asynchronous wgmma Proxy
 * Operations".
 */
#include <stdlib.h>
#include <string.h>

#include "clocks.h"
#include "hopper.h"
#include "matrix_wide.h"

enum word { WORD_FENCE, WORD_WGMMA, WORD_COMMIT, WORD_WAIT, WORD_REGISTERS };

enum { MOST_STEPS = 256, MOST_SUMS = 8, MOST_WRITES = 32, NOT_A_NUMBER = 0xFF, BOX_ALIGN = 1024 };

/* Accumulators that are in use: of each thread the array, and what they hold. */
struct sums {
    float *c[WIDE_THREADS]; /* NULL: the thread has not come to it */
    uint32_t n;
    uint32_t products; /* that use it and have not been waited for; 0: free */
    float value[WIDE_ROWS][WIDE_COLUMNS];
};

struct product {
    struct sums *sums;
    const unsigned char *b;
    uint32_t n;
    uint32_t step;
    bool is_bf16;
    struct simt_writers writers; /* of b */
    const uint32_t *a[WIDE_THREADS];
    uint32_t a_held[WIDE_THREADS][4];
};

/* An operation: it is the same for all threads. */
struct step {
    struct simt_place place;
    enum word word;
    uint32_t number; /* batches that a wait leaves, or registers */
    uint32_t batch;  /* that was open */
    uint32_t come;   /* threads */
    bool is_done;
    bool is_over; /* waited for */
    struct product *product;
};

/* The latest writes of a thread to its stack since its gpu_wgmma_fence, around and around. */
struct writes {
    uint32_t count;
    struct {
        uintptr_t at;
        size_t bytes;
    } latest[MOST_WRITES];
};

struct group {
    struct step *steps[MOST_STEPS]; /* step i lies at i % MOST_STEPS */
    uint32_t first;                 /* that is not over */
    uint32_t end;
    uint32_t batch; /* that is open */
    bool is_fenced; /* the open batch */
    struct sums *sums[MOST_SUMS];
    struct writes *writes; /* of each thread; NULL: not known */
};

static struct step *step_at(const struct group *group, uint32_t index) {
    return group->steps[index % MOST_STEPS];
}

static uint32_t threads_of(uint32_t index) {
    const uint32_t rest = simt_run.launch.block - index * SIMT_GROUP;
    return rest < SIMT_GROUP ? rest : SIMT_GROUP;
}

static uint32_t index_of(const struct thread *thread) { return thread->index / SIMT_GROUP; }

static struct thread *threads_in(const struct thread *one) {
    return &one->block->threads[index_of(one) * SIMT_GROUP];
}

static struct group *group_of(const struct thread *thread) {
    struct block *block = thread->block;
    if (block->groups == NULL) {
        block->groups = calloc(SIMT_GROUPS, sizeof *block->groups);
        if (block->groups == NULL) {
            simt_fail("no memory for a warpgroup");
        }
    }
    return &block->groups[index_of(thread)];
}

/* ---- steps --------------------------------------------------------------------------------- */

static void free_step(struct step *step) {
    free(step->product);
    free(step);
}

/* Forget the steps that are behind everybody. */
static void drop_steps(struct group *group, uint32_t threads) {
    while (group->first != group->end) {
        struct step *step = step_at(group, group->first);
        if (step->come != threads || (step->word == WORD_WGMMA && !step->is_over)) {
            return;
        }
        free_step(step);
        group->first++;
    }
}

/* The calling thread comes to its next step, which is this one: a new one, or one that others have
 * come to. */
static struct step *come_to(struct simt_place place, enum word word, uint32_t number) {
    struct thread *self = simt_self;
    struct group *group = group_of(self);
    simt_begin_word(place);
    self->polls = 0;
    if (word != WORD_REGISTERS && threads_of(index_of(self)) != SIMT_GROUP) {
        simt_fail("needs a warpgroup of %d threads, from a multiple of them on; this one has %u",
                  SIMT_GROUP, threads_of(index_of(self)));
    }
    const uint32_t index = self->group_steps++;
    if (index == group->end) { /* first, after those that have ended */
        const struct thread *threads = threads_in(self);
        for (uint32_t i = 0; i < threads_of(index_of(self)); i++) {
            if (threads[i].state == THREAD_ENDED) {
                simt_fail("comes to what thread %u of its warpgroup will not come to: it ended",
                          threads[i].index);
            }
        }
        if (group->end - group->first == MOST_STEPS) {
            simt_fail("comes %d operations of its warpgroup before others", MOST_STEPS);
        }
        struct step *step = calloc(1, sizeof *step);
        if (step == NULL) {
            simt_fail("no memory for an operation of a warpgroup");
        }
        *step =
            (struct step){.place = place, .word = word, .number = number, .batch = group->batch};
        group->steps[group->end++ % MOST_STEPS] = step;
    }
    struct step *step = step_at(group, index);
    if (!simt_is_same_place(step->place, place) || step->word != word || step->number != number) {
        simt_fail("comes to another operation than others of its warpgroup, which came to %s in "
                  "line %d",
                  step->place.word, step->place.line);
    }
    step->come++;
    return step;
}

void simt_group_check_ended(const struct thread *thread) {
    const struct group *group =
        thread->block->groups != NULL ? &thread->block->groups[index_of(thread)] : NULL;
    if (group == NULL) {
        return;
    }
    if (thread->group_steps != group->end) {
        simt_fail("ends where others of its warpgroup came to %s in line %d",
                  step_at(group, thread->group_steps)->place.word,
                  step_at(group, thread->group_steps)->place.line);
    }
    for (uint32_t i = group->first; i != group->end; i++) {
        if (step_at(group, i)->word == WORD_WGMMA && !step_at(group, i)->is_over) {
            simt_fail("ends with the gpu_wgmma in line %d not waited for",
                      step_at(group, i)->place.line);
        }
    }
}

void simt_groups_release(struct block *block) {
    for (uint32_t g = 0; block->groups != NULL && g < SIMT_GROUPS; g++) {
        struct group *group = &block->groups[g];
        while (group->first != group->end) {
            free_step(step_at(group, group->first++));
        }
        for (uint32_t i = 0; i < MOST_SUMS; i++) {
            free(group->sums[i]);
        }
        free(group->writes);
    }
    free(block->groups);
    block->groups = NULL;
}

/* ---- writes -------------------------------------------------------------------------------- */

static struct writes *writes_of(const struct thread *thread) {
    struct group *group = group_of(thread);
    if (group->writes == NULL) {
        group->writes = calloc(SIMT_GROUP, sizeof *group->writes);
        if (group->writes == NULL) {
            simt_fail("no memory to watch registers");
        }
    }
    return &group->writes[thread->index % SIMT_GROUP];
}

void simt_group_wrote(const void *memory, size_t bytes) {
    struct writes *writes = writes_of(simt_self);
    const uint32_t at = writes->count++ % MOST_WRITES;
    writes->latest[at].at = (uintptr_t)memory;
    writes->latest[at].bytes = bytes;
}

static void check_fenced(const char *name, const void *memory, size_t bytes) {
    const struct group *group = group_of(simt_self);
    const struct writes *writes =
        group->writes != NULL ? &group->writes[simt_self->index % SIMT_GROUP] : NULL;
    for (uint32_t i = 0; writes != NULL && i < writes->count && i < MOST_WRITES; i++) {
        const uintptr_t at = writes->latest[i].at;
        if (at < (uintptr_t)memory + bytes && (uintptr_t)memory < at + writes->latest[i].bytes) {
            simt_fail("%s was written with no gpu_wgmma_fence since", name);
        }
    }
}

/* ---- accumulators -------------------------------------------------------------------------- */

static bool is_poison(const float *c, uint32_t n) {
    for (uint32_t i = 0; i < n / 2; i++) {
        uint32_t bits;
        memcpy(&bits, &c[i], sizeof bits);
        if (bits != UINT32_MAX) {
            return false;
        }
    }
    return true;
}

/* The accumulators in use whose array of this thread is c; NULL: none. Fails on a part of one. */
static struct sums *sums_with(const struct group *group, uint32_t thread, const float *c,
                              uint32_t n) {
    for (uint32_t i = 0; i < MOST_SUMS; i++) {
        struct sums *sums = group->sums[i];
        if (sums == NULL || sums->products == 0 || sums->c[thread] == NULL) {
            continue;
        }
        if (sums->c[thread] == c && sums->n == n) {
            return sums;
        }
        const uintptr_t distance = (uintptr_t)c - (uintptr_t)sums->c[thread];
        if (distance < sums->n / 2 * sizeof *c || -distance < n / 2 * sizeof *c) {
            simt_fail("its accumulators overlap those of another gpu_wgmma under way");
        }
    }
    return NULL;
}

static struct sums *free_sums(struct group *group, uint32_t n) {
    for (uint32_t i = 0; i < MOST_SUMS; i++) {
        if (group->sums[i] == NULL) {
            group->sums[i] = malloc(sizeof *group->sums[i]);
            if (group->sums[i] == NULL) {
                simt_fail("no memory for accumulators");
            }
            group->sums[i]->products = 0;
        }
        if (group->sums[i]->products == 0) {
            memset(group->sums[i]->c, 0, sizeof group->sums[i]->c);
            group->sums[i]->n = n;
            return group->sums[i];
        }
    }
    simt_fail("more than %d arrays of accumulators are under way", MOST_SUMS);
}

/* The thread's part in a product: what it hands over. */
static void hand_over(struct group *group, struct product *product, uint32_t thread, float *c,
                      const uint32_t *a) {
    struct sums *sums = sums_with(group, thread, c, product->n);
    if (product->sums == NULL) { /* the first thread to come to it */
        product->sums = sums != NULL ? sums : free_sums(group, product->n);
        product->sums->products++;
    }
    if (product->sums->c[thread] == NULL && sums == NULL) {
        product->sums->c[thread] = c;
        simt_wide_put(thread, product->n, c, product->sums->value);
        memset(c, NOT_A_NUMBER, product->n / 2 * sizeof *c);
    } else if (product->sums != sums) {
        simt_fail("other threads use the accumulators of another gpu_wgmma here");
    }
    product->a[thread] = a;
    memcpy(product->a_held[thread], a, sizeof product->a_held[thread]);
}

/* ---- carrying out -------------------------------------------------------------------------- */

/* Those that are complete, up to the one at `end`. */
static void carry_out(struct group *group, uint32_t end) {
    for (uint32_t i = group->first; i != end; i++) {
        struct step *step = step_at(group, i);
        if (step->word == WORD_WGMMA && !step->is_done) {
            struct product *product = step->product;
            simt_wide_multiply(product->n, product->is_bf16, product->a_held, product->b,
                               product->step, product->sums->value);
            step->is_done = true;
        }
    }
}

static void give_back(struct sums *sums, const struct thread *threads) {
    for (uint32_t t = 0; t < WIDE_THREADS; t++) {
        if (!is_poison(sums->c[t], sums->n)) {
            simt_fail("the accumulators of thread %u were touched before this wait",
                      threads[t].index);
        }
        simt_wide_take(t, sums->n, sums->c[t], sums->value);
    }
}

/* All have come to a wait: batches before this one are over. */
static void end_batches(struct group *group, uint32_t before) {
    struct thread *threads = threads_in(simt_self);
    for (uint32_t i = group->first; i != group->end; i++) {
        struct step *step = step_at(group, i);
        if (step->word != WORD_WGMMA || step->is_over || step->batch >= before) {
            continue;
        }
        carry_out(group, i + 1);
        for (uint32_t t = 0; t < WIDE_THREADS; t++) {
            if (memcmp(step->product->a[t], step->product->a_held[t], 16) != 0) {
                simt_fail("a of thread %u was touched before this wait, after the gpu_wgmma in "
                          "line %d",
                          threads[t].index, step->place.line);
            }
        }
        step->is_over = true;
        if (--step->product->sums->products == 0) {
            give_back(step->product->sums, threads);
        }
    }
    simt_clocks_batches(threads, before);
}

/* ---- words --------------------------------------------------------------------------------- */

static void check_operand(struct simt_place place, const unsigned char *b, uint32_t n,
                          uint32_t step) {
    const uintptr_t at = (uintptr_t)b - (uintptr_t)simt_shared();
    const uint32_t shared_bytes = simt_run.launch.shared_bytes;
    simt_need_aligned(place, b, BOX_ALIGN);
    if (at > shared_bytes || shared_bytes - at < n * 128) {
        simt_fail("a box of %u rows at byte %lld of %u of shared memory", n,
                  (long long)(b - simt_shared()), shared_bytes);
    }
    if (step >= 64 / WIDE_K) {
        simt_fail("step %u is not in the box", step);
    }
}

void simt_wgmma(struct simt_place place, uint32_t n, bool is_bf16, float *c, const uint32_t *a,
                const unsigned char *b, uint32_t step) {
    struct step *here = come_to(place, WORD_WGMMA, 0);
    struct group *group = group_of(simt_self);
    check_operand(place, b, n, step);
    if (here->product == NULL) {
        if (!group->is_fenced) {
            simt_fail("its batch began without a gpu_wgmma_fence");
        }
        here->product = calloc(1, sizeof *here->product);
        if (here->product == NULL) {
            simt_fail("no memory for a gpu_wgmma");
        }
        here->product->b = b;
        here->product->n = n;
        here->product->step = step;
        here->product->is_bf16 = is_bf16;
    }
    check_fenced("a", a, 4 * sizeof *a);
    check_fenced("c", c, n / 2 * sizeof *c);
    const struct product *product = here->product;
    if (product->b != b || product->n != n || product->step != step ||
        product->is_bf16 != is_bf16) {
        simt_fail("its box or its type differ from other threads' of its warpgroup");
    }
    hand_over(group, here->product, simt_self->index % SIMT_GROUP, c, a);
    simt_clocks_operand(&here->product->writers, here->batch, b, n, step);
    if (here->come == SIMT_GROUP && !simt_run.copies_land_late && simt_random(2) == 0) {
        carry_out(group, simt_self->group_steps);
    }
}

void simt_wgmma_fence(struct simt_place place) {
    const struct step *here = come_to(place, WORD_FENCE, 0);
    struct group *group = group_of(simt_self);
    if (here->come == 1) {
        group->is_fenced = true;
    }
    if (group->writes != NULL) {
        group->writes[simt_self->index % SIMT_GROUP].count = 0;
    }
    drop_steps(group_of(simt_self), SIMT_GROUP);
}

void simt_wgmma_commit(struct simt_place place) {
    const struct step *here = come_to(place, WORD_COMMIT, 0);
    if (here->come == 1) {
        group_of(simt_self)->batch++;
        group_of(simt_self)->is_fenced = false;
    }
    drop_steps(group_of(simt_self), SIMT_GROUP);
}

void simt_wgmma_wait(struct simt_place place, uint32_t pending) {
    const struct step *here = come_to(place, WORD_WAIT, pending);
    struct group *group = group_of(simt_self);
    simt_self->state = THREAD_IN_GROUP;
    if (here->come == SIMT_GROUP) {
        end_batches(group, here->batch > pending ? here->batch - pending : 0);
        simt_let_go(threads_in(simt_self), SIMT_GROUP, THREAD_IN_GROUP);
        drop_steps(group, SIMT_GROUP);
    }
    simt_give_way();
}

/* Where the counts that are known add up to more than there are, some wait for ever. */
static void check_registers(const struct block *block) {
    enum { MULTIPROCESSOR = 65536 };
    uint32_t sum = 0;
    for (uint32_t i = 0; i < simt_run.launch.block; i++) {
        sum += block->threads[i].registers;
    }
    if (sum > MULTIPROCESSOR) {
        simt_fail("the block's threads take %u registers of %d", sum, MULTIPROCESSOR);
    }
}

void simt_registers(struct simt_place place, uint32_t count) {
    const struct step *here = come_to(place, WORD_REGISTERS, count);
    simt_self->registers = count;
    if (here->come == threads_of(index_of(simt_self))) {
        check_registers(simt_self->block);
    }
    drop_steps(group_of(simt_self), threads_of(index_of(simt_self)));
}
