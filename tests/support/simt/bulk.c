/*
 * Bulk and tensor copies to shared memory, and stores to that of peers, whose bytes count at an
 * mbarrier. Copies read their source when they land: when nobody can go on and somebody waits for
 * them, or by chance earlier.
 */
#include <stdlib.h>
#include <string.h>

#include "clocks.h"
#include "hopper.h"
#include "races.h"
#include "tensor_map.h"

enum {
    BULK_ALIGN = 16,
    CHUNK = 16,
    BOX_ALIGN = 512,        /* of one that is swizzled */
    NARROW_BOX_ALIGN = 128, /* of one whose rows are a chunk */
    ROW_BYTES = 128,
    ROW_CHUNKS = 8
};

struct bulk {
    struct mbarrier *mbarrier;
    unsigned char *to;
    const unsigned char *from; /* NULL: a tensor's box, or stored */
    bool is_stored;
    unsigned char value[CHUNK];
    uint32_t bytes;
    struct simt_tensor tensor;
    int32_t column;
    int32_t row;
};

static struct {
    struct bulk *copies; /* simt_run.bulk_count of them */
    uint32_t capacity;
} bulk;

/* ---- landing ------------------------------------------------------------------------------- */

/* A box's row, from a column of a row of the tensor on, zeros outside. */
static void land_row(unsigned char *to, const struct simt_tensor *tensor, int64_t column,
                     int64_t row) {
    enum { ELEMENTS = CHUNK / 2 };
    const uint32_t swizzle =
        tensor->swizzle_bytes != 0 ? (uintptr_t)to / ROW_BYTES % ROW_CHUNKS : 0;
    const bool is_inside = row >= 0 && (uint64_t)row < tensor->rows;
    for (uint32_t chunk = 0; chunk < tensor->box_columns / ELEMENTS; chunk++) {
        uint16_t values[ELEMENTS] = {0};
        const int64_t first = column + chunk * ELEMENTS;
        const unsigned char *from = tensor->address + row * (int64_t)tensor->row_bytes + first * 2;
        if (is_inside && first >= 0 && first + ELEMENTS <= (int64_t)tensor->columns) {
            memcpy(values, from, sizeof values);
        } else if (is_inside) {
            for (int64_t i = 0; i < ELEMENTS; i++) {
                if (first + i >= 0 && first + i < (int64_t)tensor->columns) {
                    memcpy(&values[i], from + i * 2, 2);
                }
            }
        }
        memcpy(to + (size_t)(chunk ^ swizzle) * CHUNK, values, CHUNK);
    }
}

static void land(uint32_t index) {
    const struct bulk copy = bulk.copies[index];
    bulk.copies[index] = bulk.copies[--simt_run.bulk_count];
    if (copy.is_stored) {
        memcpy(copy.to, copy.value, copy.bytes);
    } else if (copy.from != NULL) {
        memcpy(copy.to, copy.from, copy.bytes);
    } else {
        for (uint32_t r = 0; r < copy.tensor.box_rows; r++) {
            land_row(copy.to + (size_t)r * copy.tensor.box_columns * 2, &copy.tensor, copy.column,
                     (int64_t)copy.row + r);
        }
    }
    const char *wrong = simt_mbarrier_lands(copy.mbarrier, copy.bytes);
    if (wrong != NULL) {
        simt_report(copy.mbarrier->block, "the mbarrier at byte %u of shared memory: %s",
                    copy.mbarrier->offset, wrong);
    }
}

bool simt_bulk_land(bool waited) {
    uint32_t candidates = 0;
    for (uint32_t i = 0; i < simt_run.bulk_count; i++) {
        candidates += !waited || bulk.copies[i].mbarrier->waiters != NULL;
    }
    if (candidates == 0) {
        return false;
    }
    uint32_t left = simt_random(candidates);
    for (uint32_t i = 0;; i++) {
        if (!waited || bulk.copies[i].mbarrier->waiters != NULL) {
            if (left-- == 0) {
                land(i);
                return true;
            }
        }
    }
}

void simt_bulk_check_ended(const struct block *block) {
    for (uint32_t i = 0; i < simt_run.bulk_count; i++) {
        if (bulk.copies[i].mbarrier->block == block) {
            simt_fail("ends, the last of its block, while %u bytes are still under way to byte %u "
                      "of shared memory",
                      bulk.copies[i].bytes, (uint32_t)(bulk.copies[i].to - block->shared));
        }
    }
}

void simt_bulk_release(void) {
    free(bulk.copies);
    bulk.copies = NULL;
    bulk.capacity = 0;
}

/* ---- issuing ------------------------------------------------------------------------------- */

static void issue(const struct bulk *copy) {
    const unsigned char *shared = copy->mbarrier->block->shared;
    const uint32_t shared_bytes = simt_run.launch.shared_bytes;
    const uintptr_t at = (uintptr_t)copy->to - (uintptr_t)shared;
    if (at > shared_bytes || shared_bytes - at < copy->bytes) {
        simt_fail("%u bytes to byte %lld of %u of shared memory", copy->bytes,
                  (long long)(copy->to - shared), shared_bytes);
    }
    if (simt_run.bulk_count == bulk.capacity) {
        const uint32_t capacity = bulk.capacity * 2 + 16;
        struct bulk *more = realloc(bulk.copies, capacity * sizeof *more);
        if (more == NULL) {
            simt_fail("no memory to note a copy");
        }
        bulk.copies = more;
        bulk.capacity = capacity;
    }
    simt_clocks_fly(copy->mbarrier, (uint32_t)at, copy->bytes);
    simt_mbarrier_flies(copy->mbarrier);
    bulk.copies[simt_run.bulk_count++] = *copy;
    memset(copy->to, 0xFF, copy->bytes);
}

static void check_source(struct simt_place place, const void *global, uint32_t bytes) {
    if (bytes % BULK_ALIGN != 0) {
        simt_fail("%u bytes are not a multiple of %d", bytes, BULK_ALIGN);
    }
    simt_need_aligned(place, global, BULK_ALIGN);
}

void simt_bulk_copy(struct simt_place place, void *shared, const void *global, uint32_t bytes,
                    void *mbarrier) {
    simt_begin_word(place);
    check_source(place, global, bytes);
    simt_need_aligned(place, shared, BULK_ALIGN);
    if (bytes == 0) {
        return;
    }
    const struct bulk copy = {
        .mbarrier = simt_mbarrier_at(mbarrier), .to = shared, .from = global, .bytes = bytes};
    simt_need_memory(global, bytes);
    simt_races_read(global, bytes);
    issue(&copy);
}

/* What the box takes of a row of the tensor; nothing outside. */
static void check_row(const struct bulk *copy, uint32_t box_row) {
    const struct simt_tensor *tensor = &copy->tensor;
    const int64_t row = (int64_t)copy->row + box_row;
    const int64_t end = (int64_t)copy->column + tensor->box_columns;
    const uint64_t last = end <= 0                          ? 0
                          : (uint64_t)end < tensor->columns ? (uint64_t)end
                                                            : tensor->columns;
    const uint64_t first = copy->column < 0 ? 0 : (uint64_t)copy->column;
    if (row >= 0 && (uint64_t)row < tensor->rows && first < last) {
        const unsigned char *from = tensor->address + (uint64_t)row * tensor->row_bytes + first * 2;
        simt_need_memory(from, (uint32_t)(last - first) * 2);
        simt_races_read(from, (uint32_t)(last - first) * 2);
    }
}

void simt_tensor_copy(struct simt_place place, void *shared, const void *map, int32_t column,
                      int32_t row, void *mbarrier) {
    struct bulk copy = {.to = shared, .column = column, .row = row};
    simt_begin_word(place);
    simt_check_previous_grid();
    simt_need_aligned(place, map, 64);
    if (!simt_tensor_map_read(map, &copy.tensor)) {
        simt_fail("the tensor map was not made by the driver");
    }
    const uint32_t row_bytes = copy.tensor.box_columns * 2;
    if (copy.tensor.element_bytes != 2 ||
        row_bytes != (copy.tensor.swizzle_bytes != 0 ? 128 : CHUNK) ||
        copy.tensor.swizzle_bytes % ROW_BYTES != 0) {
        simt_fail("the tensor map's box has rows of %u elements of %u bytes, swizzled over %u "
                  "bytes; expected 64 of 2, over 128, or 8 of 2, over 0",
                  copy.tensor.box_columns, copy.tensor.element_bytes, copy.tensor.swizzle_bytes);
    }
    simt_need_aligned(place, shared, copy.tensor.swizzle_bytes != 0 ? BOX_ALIGN : NARROW_BOX_ALIGN);
    copy.mbarrier = simt_mbarrier_at(mbarrier);
    copy.bytes = copy.tensor.box_rows * row_bytes;
    for (uint32_t r = 0; r < copy.tensor.box_rows; r++) {
        check_row(&copy, r);
    }
    issue(&copy);
}

/* Its bytes may come before the mbarrier's phase expects them. */
void simt_store_peer(struct simt_place place, const void *shared, uint32_t rank, const void *value,
                     const void *mbarrier) {
    simt_begin_word(place);
    simt_need_aligned(place, shared, CHUNK);
    const uintptr_t at = (uintptr_t)shared - (uintptr_t)simt_shared();
    if (at > simt_run.launch.shared_bytes || simt_run.launch.shared_bytes - at < CHUNK) {
        simt_fail("the address %p is not shared memory", shared);
    }
    if (simt_random(2) == 0) { /* the peer may end first */
        simt_make_ready(simt_self);
        simt_give_way();
    }
    struct block *peer = simt_peer(rank);
    struct bulk copy = {.mbarrier = simt_mbarrier_of_peer(peer, mbarrier),
                        .to = peer->shared + at,
                        .bytes = CHUNK,
                        .is_stored = true};
    memcpy(copy.value, value, CHUNK);
    copy.mbarrier->has_peers |= peer != simt_self->block;
    issue(&copy);
}

/* ---- the grid before ----------------------------------------------------------------------- */

void simt_check_previous_grid(void) {
    if (simt_run.launch.early && !simt_self->knows_previous_grid) {
        simt_fail("touches global memory before gpu_previous_grid_wait: the grid before may still "
                  "write there");
    }
}

void simt_previous_grid_wait(struct simt_place place) {
    simt_begin_word(place);
    simt_self->knows_previous_grid = true;
}

void simt_next_grid_start(struct simt_place place) { simt_begin_word(place); }

uint32_t simt_load_early(struct simt_place place, const uint32_t *word) {
    simt_begin_word(place);
    simt_need_aligned(place, word, sizeof *word);
    simt_need_memory(word, sizeof *word);
    simt_races_read(word, sizeof *word);
    return *word;
}

void simt_need_global(struct simt_place place, const void *address, uint32_t bytes) {
    simt_need_aligned(place, address, bytes);
    simt_self->place = place;
    simt_check_previous_grid();
}
