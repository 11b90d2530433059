/*
 * Sets of those who have read a byte. Many lanes read the same scales: a set keeps a stamp for
 * each, 32 that follow each other side by side, so that a lane finds its own at once, and cells
 * that were read alike share one.
 */
#include <stdlib.h>
#include <string.h>

#include "clocks_index.h"

enum { CHUNK = 32 };

struct chunk {
    uint32_t number; /* of 32 indices */
    uint32_t stamps[CHUNK];
};

struct set {
    uint32_t cells;
    uint32_t count; /* chunks */
    uint32_t capacity;
    uint32_t next_free;
    struct chunk *chunks;
};

static struct {
    struct set *sets; /* from 1 */
    uint32_t count;
    uint32_t capacity;
    uint32_t first_free;
} readers_of;

/* A set of so many cells and with room for `chunks`. */
static uint32_t make_set(uint32_t cells, uint32_t chunks) {
    uint32_t number = readers_of.first_free;
    if (number != 0) {
        readers_of.first_free = readers_of.sets[number].next_free;
    } else {
        if (readers_of.count + 1 >= readers_of.capacity) {
            const uint32_t capacity = readers_of.capacity * 2 + 256;
            struct set *more = realloc(readers_of.sets, capacity * sizeof *more);
            if (more == NULL) {
                simt_fail("no memory to watch accesses");
            }
            memset(more + readers_of.capacity, 0, (capacity - readers_of.capacity) * sizeof *more);
            readers_of.sets = more;
            readers_of.capacity = capacity;
        }
        number = ++readers_of.count;
    }
    struct set *set = &readers_of.sets[number];
    if (set->capacity < chunks) {
        struct chunk *more = realloc(set->chunks, chunks * sizeof *more);
        if (more == NULL) {
            simt_fail("no memory to watch accesses");
        }
        set->chunks = more;
        set->capacity = chunks;
    }
    set->cells = cells;
    set->count = 0;
    return number;
}

static uint32_t *place_in(const struct set *set, uint32_t stamp) {
    const uint32_t index = simt_stamp_index(stamp);
    for (uint32_t i = 0; i < set->count; i++) {
        if (set->chunks[i].number == index / CHUNK) {
            return &set->chunks[i].stamps[index % CHUNK];
        }
    }
    return NULL;
}

/* With room for one chunk more, which the stamp may need. */
static void put(uint32_t number, uint32_t stamp) {
    struct set *set = &readers_of.sets[number];
    uint32_t *place = place_in(set, stamp);
    if (place == NULL) {
        if (set->count == set->capacity) {
            const uint32_t capacity = set->capacity * 2;
            struct chunk *more = realloc(set->chunks, capacity * sizeof *more);
            if (more == NULL) {
                simt_fail("no memory to watch accesses");
            }
            set->chunks = more;
            set->capacity = capacity;
        }
        set->chunks[set->count] = (struct chunk){.number = simt_stamp_index(stamp) / CHUNK};
        set->count++;
        place = place_in(set, stamp);
    }
    *place = stamp;
}

uint32_t simt_readers_add(uint32_t readers, uint32_t cells, uint32_t stamp) {
    if (readers == 0 || readers == stamp) {
        return stamp;
    }
    if ((readers & SIMT_READERS) == 0) {
        /* Who comes after the new reader comes after one whom the new one comes after. */
        if (simt_stamp_index(readers) == simt_stamp_index(stamp) || simt_is_after(readers)) {
            return stamp;
        }
        const uint32_t number = make_set(cells, 2);
        put(number, readers);
        put(number, stamp);
        return SIMT_READERS | number;
    }
    uint32_t number = readers & ~SIMT_READERS;
    const uint32_t *place = place_in(&readers_of.sets[number], stamp);
    if (place != NULL && *place == stamp) {
        return readers;
    }
    if (readers_of.sets[number].cells != cells) { /* others hold it, too */
        const uint32_t copy = make_set(cells, readers_of.sets[number].count + 1);
        struct set *from = &readers_of.sets[number];
        struct set *to = &readers_of.sets[copy];
        memcpy(to->chunks, from->chunks, from->count * sizeof *to->chunks);
        to->count = from->count;
        from->cells -= cells;
        number = copy;
    }
    put(number, stamp);
    return SIMT_READERS | number;
}

void simt_readers_drop(uint32_t readers, uint32_t cells) {
    if ((readers & SIMT_READERS) != 0) {
        const uint32_t number = readers & ~SIMT_READERS;
        struct set *set = &readers_of.sets[number];
        set->cells -= cells;
        if (set->cells == 0) {
            set->next_free = readers_of.first_free;
            readers_of.first_free = number;
        }
    }
}

uint32_t simt_readers_unordered(uint32_t readers) {
    if ((readers & SIMT_READERS) == 0) {
        return simt_is_after_reader(readers) ? 0 : readers;
    }
    const struct set *set = &readers_of.sets[readers & ~SIMT_READERS];
    for (uint32_t i = 0; i < set->count; i++) {
        for (uint32_t j = 0; j < CHUNK; j++) {
            if (!simt_is_after_reader(set->chunks[i].stamps[j])) {
                return set->chunks[i].stamps[j];
            }
        }
    }
    return 0;
}

void simt_readers_end(void) {
    for (uint32_t i = 1; i <= readers_of.count; i++) {
        free(readers_of.sets[i].chunks);
    }
    free(readers_of.sets);
    memset(&readers_of, 0, sizeof readers_of);
}
