/*
 * Memory of the CPU. Weights are read faster through huge pages (a seventh, measured on Zen 4
 * with layers of 3 MB), so large blocks share regions that ask for them: alone, a block would
 * have its last part on small pages, or waste the rest of a huge one.
 *
 * A region begins with its header, at a multiple of REGION_BYTES, and is given back when the last
 * of its blocks is. Blocks follow each other; what a released one leaves is used again only where
 * that was the last: scratch, which comes and goes behind what stays.
 */
#include "platform.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_PAGE (UINT64_C(2) << 20)
#define REGION_BYTES (UINT64_C(64) << 20)

struct region {
    uint64_t bytes;  /* of the mapping */
    uint64_t used;   /* from its beginning */
    uint64_t blocks; /* that are not released */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct region *current; /* where the next block goes if it fits; NULL: nowhere */

static uint64_t round_up(uint64_t value, uint64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

/* A mapping of `bytes`, a multiple of a page, that begins at a multiple of REGION_BYTES. */
static void *map_region(uint64_t bytes) {
    uint64_t reserved = bytes + REGION_BYTES;
    uint8_t *begin = mmap(NULL, reserved, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (begin == MAP_FAILED)
        return NULL;
    uint64_t before = round_up((uintptr_t)begin, REGION_BYTES) - (uintptr_t)begin;
    if (before > 0)
        munmap(begin, before);
    if (reserved - before > bytes)
        munmap(begin + before + bytes, reserved - before - bytes);
#ifdef MADV_HUGEPAGE
    /* A kernel that was built without them refuses, which costs nothing but speed. */
    (void)madvise(begin + before, bytes, MADV_HUGEPAGE);
#endif
    return begin + before;
}

static uint64_t left_in(const struct region *region) {
    return region != NULL ? region->bytes - region->used : 0;
}

/* Where a block of the region would begin. */
static uint64_t next_place(const struct region *region, uint64_t alignment) {
    return round_up(region->used, alignment);
}

static struct region *add_region(uint64_t bytes, uint64_t alignment) {
    uint64_t needed = round_up(sizeof(struct region), alignment) + bytes;
    needed = needed > REGION_BYTES ? round_up(needed, HUGE_PAGE) : REGION_BYTES;
    struct region *region = map_region(needed);
    if (region != NULL)
        *region = (struct region){.bytes = needed, .used = sizeof *region};
    return region;
}

static void *take_block(uint64_t bytes, uint64_t alignment) {
    struct region *region = current;
    if (region == NULL || next_place(region, alignment) + bytes > region->bytes) {
        region = add_region(bytes, alignment);
        if (region == NULL)
            return NULL;
    }
    uint64_t place = next_place(region, alignment);
    region->used = place + bytes;
    region->blocks++;
    if (left_in(region) > left_in(current))
        current = region;
    return (uint8_t *)region + place;
}

void *memory_allocate(uint64_t bytes, size_t alignment) {
    if (bytes == 0)
        bytes = 1;
    if (alignment < sizeof(void *))
        alignment = sizeof(void *);
    /* Nothing is that large, and sums would overflow. */
    if (bytes > PTRDIFF_MAX - 2 * REGION_BYTES || alignment > REGION_BYTES / 2)
        return NULL;
    void *memory;
    if (bytes < HUGE_PAGE)
        return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
    pthread_mutex_lock(&mutex);
    memory = take_block(bytes, alignment < KRY_ALIGNMENT ? KRY_ALIGNMENT : alignment);
    pthread_mutex_unlock(&mutex);
    return memory;
}

void memory_release(void *memory, uint64_t bytes) {
    if (bytes < HUGE_PAGE || memory == NULL) {
        free(memory);
        return;
    }
    struct region *region = (struct region *)((uintptr_t)memory / REGION_BYTES * REGION_BYTES);
    pthread_mutex_lock(&mutex);
    uint64_t place = (uint64_t)((uint8_t *)memory - (uint8_t *)region);
    if (place + bytes == region->used)
        region->used = place;
    if (--region->blocks == 0) {
        if (region == current)
            current = NULL;
        munmap(region, region->bytes);
    }
    pthread_mutex_unlock(&mutex);
}
