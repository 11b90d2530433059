#include "memory.h"

#include "mirror.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { POISON = 0xff, AROUND = 0xa5, LIVE_MAX = 128 };

/* What a signal handler reads: plain copies, so that no pointer can be stale. Only the thread
 * that runs a check gets and releases memory. */
static struct memory live[LIVE_MAX];

static size_t page_bytes(void) {
    static size_t page;
    if (page == 0)
        page = (size_t)sysconf(_SC_PAGESIZE);
    return page;
}

static void list(const struct memory *memory) {
    for (size_t i = 0; i < LIVE_MAX; i++)
        if (live[i].map == NULL) {
            live[i] = *memory;
            return;
        }
}

static void unlist(const struct memory *memory) {
    for (size_t i = 0; i < LIVE_MAX; i++)
        if (live[i].map == memory->map)
            live[i].map = NULL;
}

bool memory_get(struct memory *out, const struct memory_label *label, size_t bytes,
                size_t alignment, enum fit fit) {
    size_t page = page_bytes(), inner;
    *out = (struct memory){.bytes = bytes, .label = label};
    size_t slack = fit == FIT_LOOSE ? page : 0;
    if (__builtin_add_overflow(bytes, 8 * page, &inner) || inner > INT64_MAX)
        return false;
    inner = (bytes + alignment + page - 1) / page * page + 2 * slack;
    out->map_bytes = inner + 2 * page;
    void *map = mmap(NULL, out->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return false;
    out->map = map;
    unsigned char *begin = out->map + page;
    if (mprotect(begin, inner, PROT_READ | PROT_WRITE) != 0) {
        munmap(map, out->map_bytes);
        out->map = NULL;
        return false;
    }
    memset(begin, AROUND, inner);
    size_t lead = fit == FIT_END ? (inner - bytes) / alignment * alignment : slack;
    /* An address that is aligned to more than was asked for would hide what relies on it. */
    if (fit == FIT_LOOSE && alignment < page)
        lead += alignment;
    out->data = begin + lead;
    memset(out->data, POISON, bytes);
    list(out);
    return true;
}

void memory_release(struct memory *memory) {
    if (memory->map != NULL) {
        mirror_forget(memory);
        unlist(memory);
        munmap(memory->map, memory->map_bytes);
    }
    *memory = (struct memory){0};
}

void memory_fill(const struct memory *memory, unsigned char value) {
    memset(memory->data, value, memory->bytes);
}

bool memory_intact(const struct memory *memory, int64_t *place) {
    size_t page = page_bytes();
    const unsigned char *begin = memory->map + page;
    const unsigned char *end = memory->map + memory->map_bytes - page;
    const unsigned char *data_end = memory->data + memory->bytes;
    for (const unsigned char *at = data_end; at < end; at++)
        if (*at != AROUND) {
            *place = at - data_end;
            return false;
        }
    for (const unsigned char *at = memory->data; at > begin; at--)
        if (at[-1] != AROUND) {
            *place = at - 1 - memory->data;
            return false;
        }
    return true;
}

static void protect(const struct memory *memory, int protection) {
    size_t page = page_bytes();
    mprotect(memory->map + page, memory->map_bytes - 2 * page, protection);
}

void memory_seal(const struct memory *memory, bool sealed) {
    protect(memory, sealed ? PROT_READ : PROT_READ | PROT_WRITE);
}

void memory_revoke(const struct memory *memory) { protect(memory, PROT_NONE); }

void memory_relabel(struct memory *memory, const struct memory_label *label) {
    unlist(memory);
    memory->label = label;
    list(memory);
}

struct memory_touch memory_find(uintptr_t address) {
    for (size_t i = 0; i < LIVE_MAX; i++) {
        const struct memory *memory = &live[i];
        uintptr_t map = (uintptr_t)memory->map, data = (uintptr_t)memory->data;
        if (map == 0 || address < map || address >= map + memory->map_bytes)
            continue;
        struct memory_touch touch = {.label = memory->label};
        if (address < data)
            touch.distance = (int64_t)address - (int64_t)data;
        else if (address >= data + memory->bytes)
            touch.distance = (int64_t)(address - data - memory->bytes);
        else
            touch.inside = true;
        return touch;
    }
    return (struct memory_touch){0};
}
