/*
 * Memory between pages that may not be touched. It ends at the second of them, so that one byte
 * too far is a fault; where it must start at a multiple of KRY_ALIGNMENT, the bytes left before
 * that page are watched instead. Every byte is 0xff at first: a NaN in each floating-point type.
 */
#ifndef KERNELRY_TEST_GUARDED_H
#define KERNELRY_TEST_GUARDED_H

#include <stdbool.h>
#include <stddef.h>

struct guarded {
    unsigned char *data;
    size_t bytes;
    void *map;
    size_t map_bytes;
};

struct guarded guarded_allocate(size_t bytes, bool aligned);
/* Whether bytes past the end, short of the guard page, are as they were. */
bool guarded_is_intact(const struct guarded *memory);
void guarded_fill(const struct guarded *memory, unsigned char value);
void guarded_release(struct guarded *memory);

#endif
