#include "guarded.h"

#include <kernelry/types.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { POISON = 0xff };

struct guarded guarded_allocate(size_t bytes, bool aligned) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inner = (bytes + page - 1) / page * page;
    struct guarded memory = {.bytes = bytes, .map_bytes = inner + 2 * page};
    memory.map = mmap(NULL, memory.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory.map == MAP_FAILED)
        abort();
    unsigned char *begin = (unsigned char *)memory.map + page;
    if (inner != 0 && mprotect(begin, inner, PROT_READ | PROT_WRITE) != 0)
        abort();
    memset(begin, POISON, inner);
    size_t lead = inner - bytes;
    if (aligned)
        lead = lead / KRY_ALIGNMENT * KRY_ALIGNMENT;
    memory.data = begin + lead;
    return memory;
}

bool guarded_is_intact(const struct guarded *memory) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const unsigned char *end = (unsigned char *)memory->map + memory->map_bytes - page;
    for (const unsigned char *at = memory->data + memory->bytes; at < end; at++)
        if (*at != POISON)
            return false;
    return true;
}

void guarded_fill(const struct guarded *memory, unsigned char value) {
    memset(memory->data, value, memory->bytes);
}

void guarded_release(struct guarded *memory) {
    if (memory->map != NULL)
        munmap(memory->map, memory->map_bytes);
    *memory = (struct guarded){0};
}
