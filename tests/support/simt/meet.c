/* Where threads meet: barriers of a block, and operations of a wave. */
#include <string.h>

#include "clocks.h"
#include "hopper.h"
#include "races.h"

bool simt_is_same_place(struct simt_place a, struct simt_place b) {
    return a.line == b.line && strcmp(a.word, b.word) == 0 && strcmp(a.file, b.file) == 0;
}

void simt_begin_word(struct simt_place place) {
    simt_self->place = place;
    if (!simt_run.copies_land_late && simt_self->copy_count != 0 && simt_random(4) == 0) {
        struct thread *self = simt_self;
        const uint32_t batch = self->copies[simt_random(self->copy_count)].batch;
        simt_land_copies(batch + simt_random(2), false);
    }
}

void simt_check_ended(const struct thread *thread) {
    if (thread->block->at_barrier != 0) {
        simt_fail("ends where other threads of the block wait for it at a barrier");
    }
    simt_cluster_check_ended(thread);
    simt_group_check_ended(thread);
    if (thread->block->live == 0) {
        simt_bulk_check_ended(thread->block);
    }
    if (thread->wave->waiting != 0) {
        simt_fail("ends where other lanes of the wave wait for it");
    }
}

void simt_barrier(struct simt_place place) {
    struct thread *self = simt_self;
    struct block *block = self->block;
    const uint32_t threads = simt_run.launch.block;
    simt_begin_word(place);
    self->polls = 0;
    if (block->live != threads) {
        simt_fail("comes to a barrier that %u threads of the block will not come to: they ended",
                  threads - block->live);
    }
    for (uint32_t i = 0; block->at_barrier != 0 && i < threads; i++) {
        const struct thread *other = &block->threads[i];
        if (other->state == THREAD_AT_BARRIER && !simt_is_same_place(other->place, place)) {
            simt_fail("comes to another barrier than thread %u", i);
        }
        if (other->state == THREAD_AT_BARRIER) {
            break; /* those who wait have all been compared with it */
        }
    }
    self->state = THREAD_AT_BARRIER;
    block->at_barrier++;
    if (block->at_barrier == threads) {
        block->at_barrier = 0;
        simt_races_barrier(block);
        simt_clocks_barrier(block);
        simt_have_met(block->threads, threads, THREAD_AT_BARRIER, SCOPE_BLOCK,
                      simt_know_previous_grid(block->threads, threads, THREAD_AT_BARRIER));
        simt_let_go(block->threads, threads, THREAD_AT_BARRIER);
    }
    simt_give_way();
}

/* The lane that comes last does `act` for all. */
static void meet_wave(struct simt_place place, uint32_t lanes, void *operands,
                      void (*act)(struct wave *wave)) {
    struct thread *self = simt_self;
    struct wave *wave = self->wave;
    simt_begin_word(place);
    self->polls = 0;
    if (lanes != simt_run.launch.wave || wave->lanes != lanes || wave->ended != 0) {
        simt_fail("needs %u lanes; the wave has %u of %u, and %u have ended", lanes, wave->lanes,
                  simt_run.launch.wave, wave->ended);
    }
    for (uint32_t i = 0; wave->waiting != 0 && i < lanes; i++) {
        if (wave->threads[i].state == THREAD_IN_WAVE) {
            if (!simt_is_same_place(wave->threads[i].place, place)) {
                simt_fail("comes to another wave operation than thread %u", wave->threads[i].index);
            }
            break;
        }
    }
    self->operands = operands;
    self->state = THREAD_IN_WAVE;
    wave->waiting++;
    if (wave->waiting == lanes) {
        act(wave);
        wave->waiting = 0;
        simt_let_go(wave->threads, lanes, THREAD_IN_WAVE);
    }
    simt_give_way();
}

static void meet_lanes(struct wave *wave) {
    simt_races_wave_barrier(wave);
    simt_clocks_wave_barrier(wave);
    simt_have_met(wave->threads, wave->lanes, THREAD_IN_WAVE, SCOPE_WAVE,
                  simt_know_previous_grid(wave->threads, wave->lanes, THREAD_IN_WAVE));
}

void simt_wave_barrier(struct simt_place place, uint32_t wave) {
    meet_wave(place, wave, NULL, meet_lanes);
}

struct shuffle {
    uint32_t value;
    uint32_t lane;
    uint32_t result;
};

static void shuffle(struct wave *wave) {
    for (uint32_t i = 0; i < wave->lanes; i++) {
        struct shuffle *mine = wave->threads[i].operands;
        const struct shuffle *other = wave->threads[mine->lane].operands;
        mine->result = other->value;
    }
}

uint32_t simt_shuffle(struct simt_place place, uint32_t wave, uint32_t value, uint32_t lane) {
    if (lane >= wave) {
        simt_self->place = place;
        simt_fail("asks for lane %u of %u", lane, wave);
    }
    struct shuffle operands = {.value = value, .lane = lane};
    meet_wave(place, wave, &operands, shuffle);
    return operands.result;
}

static void elect(struct wave *wave) {
    const uint32_t elected = simt_random(wave->lanes);
    for (uint32_t i = 0; i < wave->lanes; i++) {
        *(bool *)wave->threads[i].operands = i == elected;
    }
}

bool simt_elect(struct simt_place place, uint32_t wave) {
    bool is_elected = false;
    meet_wave(place, wave, &is_elected, elect);
    return is_elected;
}

struct matrix_step {
    const struct simt_matrix *matrix;
    bool is_bf16;
    const uint32_t *a;
    const uint32_t *b;
    float *c;
};

static void step(struct wave *wave) {
    const uint32_t *a[SIMT_LANES];
    const uint32_t *b[SIMT_LANES];
    float *c[SIMT_LANES];
    const struct matrix_step *first = wave->threads[0].operands;
    for (uint32_t i = 0; i < wave->lanes; i++) {
        const struct matrix_step *operands = wave->threads[i].operands;
        if (operands->matrix != first->matrix || operands->is_bf16 != first->is_bf16) {
            simt_fail("lanes 0 and %u ask for different matrix instructions", i);
        }
        a[i] = operands->a;
        b[i] = operands->b;
        c[i] = operands->c;
    }
    unsigned lane;
    if (!simt_matrix_multiply(first->matrix, first->is_bf16, a, b, c, &lane)) {
        simt_fail("lane %u does not hold what another lane holds of the same elements", lane);
    }
}

void simt_matrix_step(struct simt_place place, enum simt_instruction instruction, bool is_bf16,
                      const uint32_t *a, const uint32_t *b, float *c) {
    const struct simt_matrix *matrix = simt_matrix_of(instruction);
    struct matrix_step operands = {matrix, is_bf16, a, b, c};
    meet_wave(place, matrix->wave, &operands, step);
}

struct matrix_load {
    unsigned count;
    bool transposed;
    const unsigned char *row;
    uint32_t *registers;
};

static void load(struct wave *wave) {
    const struct matrix_load *first = wave->threads[0].operands;
    for (uint32_t i = 0; i < wave->lanes; i++) {
        const struct matrix_load *mine = wave->threads[i].operands;
        if (mine->count != first->count || mine->transposed != first->transposed) {
            simt_fail("lanes 0 and %u ask for different loads", i);
        }
        for (unsigned matrix = 0; matrix < mine->count; matrix++) {
            uint16_t pair[2];
            for (uint32_t j = 0; j < 2; j++) {
                const uint32_t r = mine->transposed ? i % 4 * 2 + j : i / 4;
                const uint32_t column = mine->transposed ? i / 4 : i % 4 * 2 + j;
                const struct matrix_load *owner = wave->threads[matrix * 8 + r].operands;
                memcpy(&pair[j], owner->row + (size_t)column * 2, 2);
            }
            mine->registers[matrix] = pair[0] | (uint32_t)pair[1] << 16;
        }
    }
}

/* PTX ISA 8.7, section 9.7.14.5.15 "Warp-level matrix load instruction: ldmatrix". */
void simt_load_matrix(struct simt_place place, unsigned count, bool transposed, const void *row,
                      uint32_t *registers) {
    if (simt_self->index % 32 < count * 8) {
        simt_need_aligned(place, row, 16);
    }
    struct matrix_load operands = {count, transposed, row, registers};
    meet_wave(place, 32, &operands, load);
}
