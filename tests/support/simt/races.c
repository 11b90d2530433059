#include "races.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "clocks.h"

/* Who touched a byte last, as numbers that grow from launch to launch; 0: nobody. */
struct cell {
    uint32_t writer;
    uint32_t write_epoch;
    uint32_t reader;
    uint32_t read_epoch;
    uint8_t readers; /* enum readers */
    uint8_t in_flight;
};
enum readers { ONE_THREAD, ONE_WAVE, ONE_BLOCK, MANY_BLOCKS };

enum {
    PAGE_BYTES = 4096,
    TABLE_SLOTS = 1 << 16,
    BLOCK_THREADS = 1024, /* numbers of a block */
    WAVE_EPOCHS = SIMT_WAVE_EPOCHS
};

struct page {
    uintptr_t number; /* of the memory */
    struct page *next;
    struct cell cells[PAGE_BYTES];
};

/* What a counter that blocks add to carries from one to another: epochs of each block. */
struct carrier {
    const uint32_t *counter;
    uint32_t *epochs;
    struct carrier *next;
};

static struct {
    bool is_on;    /* the module's source is instrumented */
    uint32_t base; /* numbers of this launch are above */
    uint32_t next_base;
    struct page *pages[TABLE_SLOTS];
    struct page *latest;
    struct carrier *carriers;
} races;

static uint32_t number_of(const struct thread *thread) {
    return races.base + thread->block->index * BLOCK_THREADS + thread->index + 1;
}

static uint32_t block_of(uint32_t number) { return (number - races.base - 1) / BLOCK_THREADS; }
static uint32_t thread_of(uint32_t number) { return (number - races.base - 1) % BLOCK_THREADS; }

static uint32_t epoch_of(const struct thread *thread) {
    return thread->block->epoch * WAVE_EPOCHS + thread->wave->epoch;
}

/* The page of cells for an address, made when it is first asked for; NULL without memory. */
static struct page *page_of(uintptr_t address) {
    const uintptr_t number = address / PAGE_BYTES;
    if (races.latest != NULL && races.latest->number == number) {
        return races.latest;
    }
    struct page **slot = &races.pages[number % TABLE_SLOTS];
    struct page *page = *slot;
    while (page != NULL && page->number != number) {
        page = page->next;
    }
    if (page == NULL) {
        page = calloc(1, sizeof *page);
        if (page == NULL) {
            return NULL;
        }
        page->number = number;
        page->next = *slot;
        *slot = page;
    }
    races.latest = page;
    return page;
}

static bool is_in_flight(const struct cell *cell) {
    return cell->in_flight && cell->writer > races.base;
}

/* Whether this thread comes after an access. */
static inline bool is_ordered(uint32_t number, uint32_t epoch, enum readers readers) {
    const struct thread *self = simt_self;
    if (number <= races.base || (readers == ONE_THREAD && number == number_of(self))) {
        return true;
    }
    const uint32_t block = block_of(number);
    if (readers == ONE_THREAD && simt_clocks_order(block, thread_of(number), epoch)) {
        return true;
    }
    if (readers == MANY_BLOCKS || block != self->block->index) {
        return readers != MANY_BLOCKS && self->acquires_seen != 0 &&
               self->block->acquired[block] > epoch / WAVE_EPOCHS;
    }
    const bool same_wave = readers <= ONE_WAVE && thread_of(number) / simt_run.launch.wave ==
                                                      self->index / simt_run.launch.wave;
    return epoch / WAVE_EPOCHS < self->block->epoch ||
           (same_wave && epoch % WAVE_EPOCHS < self->wave->epoch);
}

static _Noreturn void fail_at(const char *verb, uintptr_t address, const char *other_verb,
                              uint32_t number) {
    const uintptr_t at = address - (uintptr_t)simt_shared();
    if (at < simt_run.launch.shared_bytes) {
        simt_fail("a race: %s byte %zu of shared memory, which thread %u %s, with nothing between "
                  "that orders the two",
                  verb, (size_t)at, thread_of(number), other_verb);
    }
    simt_fail("a race: %s global memory at %p, which thread %u of block %u %s, with nothing "
              "between that orders the two",
              verb, (void *)address, thread_of(number), block_of(number), other_verb);
}

static inline void read_cell(struct cell *cell, uintptr_t address) {
    const uint32_t self = number_of(simt_self);
    if (!is_ordered(cell->writer, cell->write_epoch, ONE_THREAD)) {
        fail_at("reads", address, "wrote", cell->writer);
    }
    if (is_in_flight(cell)) {
        fail_at("reads", address, "still copies to", cell->writer);
    }
    if (is_ordered(cell->reader, cell->read_epoch, (enum readers)cell->readers)) {
        cell->readers = ONE_THREAD;
    } else if (block_of(cell->reader) != simt_self->block->index) {
        cell->readers = MANY_BLOCKS;
    } else if (cell->readers < MANY_BLOCKS) {
        const uint32_t wave = simt_run.launch.wave;
        const bool same = thread_of(cell->reader) / wave == simt_self->index / wave;
        cell->readers = same && cell->readers <= ONE_WAVE ? ONE_WAVE : ONE_BLOCK;
    }
    cell->reader = self;
    cell->read_epoch = epoch_of(simt_self);
}

static inline void write_cell(struct cell *cell, uintptr_t address) {
    if (!is_ordered(cell->writer, cell->write_epoch, ONE_THREAD)) {
        fail_at("writes", address, "wrote", cell->writer);
    }
    if (is_in_flight(cell)) {
        fail_at("writes", address, "still copies to", cell->writer);
    }
    if (!is_ordered(cell->reader, cell->read_epoch, (enum readers)cell->readers)) {
        fail_at("writes", address, "read", cell->reader);
    }
    cell->writer = number_of(simt_self);
    cell->write_epoch = epoch_of(simt_self);
    cell->in_flight = 0;
    cell->reader = 0;
    cell->readers = ONE_THREAD;
}

/* Hand each byte's cell to a function. Inlined for each, since it runs for every access. */
static inline __attribute__((always_inline)) void touch(const void *memory, size_t bytes,
                                                        void (*cell)(struct cell *, uintptr_t)) {
    uintptr_t at = (uintptr_t)memory;
    const uintptr_t end = at + bytes;
    while (at < end) {
        struct page *page = page_of(at);
        if (page == NULL) {
            simt_fail("no memory to watch accesses");
        }
        const uintptr_t page_end = (page->number + 1) * PAGE_BYTES;
        for (; at < end && at < page_end; at++) {
            cell(&page->cells[at % PAGE_BYTES], at);
        }
    }
}

/* ---- what the launch tells ----------------------------------------------------------------- */

bool simt_races_are_on(void) { return races.is_on; }

bool simt_races_launch(void) {
    const uint64_t numbers = (uint64_t)simt_run.launch.grid * BLOCK_THREADS;
    if (races.next_base + numbers > UINT32_MAX) {
        return false;
    }
    races.base = races.next_base;
    races.next_base += (uint32_t)numbers;
    return true;
}

bool simt_races_block(struct block *block) {
    block->epoch = 0;
    block->clean_epoch = 0;
    block->acquires = 0;
    block->acquired = calloc(simt_run.launch.grid, sizeof *block->acquired);
    /* Where shared memory lies now, another block's may have been. */
    const uintptr_t shared = (uintptr_t)block->shared;
    for (uintptr_t at = shared; races.is_on && at < shared + simt_run.launch.shared_bytes; at++) {
        struct page *page = page_of(at);
        if (page == NULL) {
            return false;
        }
        page->cells[at % PAGE_BYTES] = (struct cell){0};
    }
    return block->acquired != NULL;
}

void simt_races_release_block(struct block *block) {
    free(block->acquired);
    block->acquired = NULL;
}

void simt_races_release(void) {
    while (races.carriers != NULL) {
        struct carrier *carrier = races.carriers;
        races.carriers = carrier->next;
        free(carrier->epochs);
        free(carrier);
    }
}

void simt_races_barrier(struct block *block) {
    bool all_fenced = true;
    for (uint32_t i = 0; i < simt_run.launch.block; i++) {
        block->threads[i].acquires_met = block->acquires;
        all_fenced = all_fenced && !block->threads[i].has_unfenced;
    }
    block->epoch++;
    if (all_fenced) {
        block->clean_epoch = block->epoch;
    }
    for (uint32_t w = 0; w < simt_run.waves; w++) {
        block->waves[w].epoch = 0;
    }
}

void simt_races_wave_barrier(struct wave *wave) { wave->epoch++; }

void simt_races_part_barrier(struct block *block) {
    for (uint32_t w = 0; w < simt_run.waves; w++) {
        block->waves[w].epoch += block->part_waves >> w & 1;
    }
}

void simt_races_fence(void) {
    struct thread *self = simt_self;
    self->has_unfenced = false;
    self->fenced_epoch = self->block->epoch;
    self->acquires_seen = self->acquires_met;
}

static struct carrier *carrier_of(const uint32_t *counter) {
    struct carrier *carrier = races.carriers;
    while (carrier != NULL && carrier->counter != counter) {
        carrier = carrier->next;
    }
    if (carrier == NULL) {
        carrier = calloc(1, sizeof *carrier);
        if (carrier != NULL) {
            carrier->epochs = calloc(simt_run.launch.grid, sizeof *carrier->epochs);
        }
        if (carrier == NULL || carrier->epochs == NULL) {
            free(carrier);
            simt_fail("no memory to watch a counter");
        }
        carrier->counter = counter;
        carrier->next = races.carriers;
        races.carriers = carrier;
    }
    return carrier;
}

void simt_races_add(const uint32_t *counter) {
    struct thread *self = simt_self;
    struct block *block = self->block;
    if (!races.is_on || simt_run.launch.grid == 1) {
        return;
    }
    struct carrier *carrier = carrier_of(counter);
    for (uint32_t i = 0; i < simt_run.launch.grid; i++) {
        if (carrier->epochs[i] > block->acquired[i]) {
            block->acquired[i] = carrier->epochs[i];
        } else {
            carrier->epochs[i] = block->acquired[i];
        }
    }
    self->acquires_met = ++block->acquires;
    const uint32_t released =
        self->fenced_epoch > block->clean_epoch ? self->fenced_epoch : block->clean_epoch;
    if (released > carrier->epochs[block->index]) {
        carrier->epochs[block->index] = released;
    }
}

/* In the block's shared memory; shared_bytes or more: elsewhere. */
static uintptr_t offset_in(const void *memory) {
    return (uintptr_t)memory - (uintptr_t)simt_shared();
}

static uint32_t offset_of(const void *shared) { return (uint32_t)offset_in(shared); }

static void fly(struct cell *cell, uintptr_t address) {
    write_cell(cell, address);
    cell->in_flight = 1;
}

static void land(struct cell *cell, uintptr_t address) {
    cell->in_flight = 0;
    write_cell(cell, address);
}

void simt_races_copy(const struct copy *copy) {
    if (races.is_on) {
        touch(copy->from, copy->from != NULL ? copy->bytes : 0, read_cell);
        if (simt_self->block->clocks != NULL) {
            simt_clocks_write(simt_self->block, offset_of(copy->to), copy->bytes);
        } else {
            touch(copy->to, copy->bytes, fly);
        }
    }
}

void simt_races_copied(const struct copy *copy) {
    if (races.is_on && simt_self->block->clocks != NULL) {
        simt_clocks_write(simt_self->block, offset_of(copy->to), copy->bytes);
    } else if (races.is_on) {
        touch(copy->to, copy->bytes, land);
    }
}

void simt_races_read(const void *memory, size_t bytes) {
    if (races.is_on) {
        touch(memory, bytes, read_cell);
    }
}

/* ---- what the compiler calls --------------------------------------------------------------- */

static bool is_watched(const void *memory) {
    return simt_self != NULL && !simt_fiber_owns(simt_self->fiber, memory);
}

static bool is_shared(const void *memory, size_t bytes) {
    const uintptr_t at = offset_in(memory);
    return at < simt_run.launch.shared_bytes && simt_run.launch.shared_bytes - at >= bytes;
}

/* What the module itself holds is nobody else's. */
static void check_early(const void *memory) {
    Dl_info object;
    if (simt_run.launch.early && !simt_self->knows_previous_grid && dladdr(memory, &object) == 0) {
        simt_check_previous_grid();
    }
}

static void reads(const void *memory, size_t bytes) {
    if (!is_watched(memory)) {
        return;
    }
    if (simt_self->block->clocks != NULL && is_shared(memory, bytes)) {
        simt_clocks_read(simt_self->block, offset_of(memory), bytes);
        return;
    }
    touch(memory, bytes, read_cell);
    if (!is_shared(memory, bytes)) {
        check_early(memory);
    }
}

static void writes(const void *memory, size_t bytes) {
    if (!is_watched(memory)) {
        if (simt_self != NULL && simt_self->block->groups != NULL) {
            simt_group_wrote(memory, bytes);
        }
        return;
    }
    if (simt_self->block->clocks != NULL && is_shared(memory, bytes)) {
        simt_clocks_write(simt_self->block, offset_of(memory), bytes);
        return;
    }
    touch(memory, bytes, write_cell);
    if (!is_shared(memory, bytes)) {
        simt_self->has_unfenced = true;
        check_early(memory);
    }
}

/* NOLINTBEGIN(bugprone-reserved-identifier): the compiler's names */
#define ACCESS(name, action, bytes)                                                                \
    void __tsan_##name(void *memory);                                                              \
    void __tsan_##name(void *memory) { action(memory, bytes); }
ACCESS(read1, reads, 1)
ACCESS(read2, reads, 2)
ACCESS(read4, reads, 4)
ACCESS(read8, reads, 8)
ACCESS(read16, reads, 16)
ACCESS(unaligned_read2, reads, 2)
ACCESS(unaligned_read4, reads, 4)
ACCESS(unaligned_read8, reads, 8)
ACCESS(unaligned_read16, reads, 16)
ACCESS(write1, writes, 1)
ACCESS(write2, writes, 2)
ACCESS(write4, writes, 4)
ACCESS(write8, writes, 8)
ACCESS(write16, writes, 16)
ACCESS(unaligned_write2, writes, 2)
ACCESS(unaligned_write4, writes, 4)
ACCESS(unaligned_write8, writes, 8)
ACCESS(unaligned_write16, writes, 16)

void __tsan_read_range(void *memory, size_t bytes);
void __tsan_read_range(void *memory, size_t bytes) { reads(memory, bytes); }
void __tsan_write_range(void *memory, size_t bytes);
void __tsan_write_range(void *memory, size_t bytes) { writes(memory, bytes); }
void __tsan_func_entry(void *caller);
void __tsan_func_entry(void *caller) { (void)caller; }
void __tsan_func_exit(void);
void __tsan_func_exit(void) {}

/* A constructor of each instrumented module. */
void __tsan_init(void);
void __tsan_init(void) { races.is_on = true; }
/* NOLINTEND(bugprone-reserved-identifier) */
