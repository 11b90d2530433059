/*
 * Memory with a page behind and before it that may not be touched, and a list of all that is
 * live, from which a fault's address tells which buffer was overrun, and so which duty broken.
 */
#ifndef KERNELRY_CONFORMANCE_MEMORY_H
#define KERNELRY_CONFORMANCE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** How close a buffer's guard pages are. */
enum fit {
    FIT_LOOSE, /* pages of slack on both sides: small overruns harm nothing */
    FIT_END,   /* the buffer ends at the guard page, as far as its alignment allows */
    FIT_BEGIN  /* the buffer starts right behind the guard page */
};

/** What a buffer is called, and the duty that whoever leaves it breaks. */
struct memory_label {
    const char *name;
    const char *duty;         /* of touching what lies around it */
    const char *writing_duty; /* of writing to it while it is sealed; NULL: duty */
};

/** A buffer; the bytes around it hold a pattern, its own are 0xff (NaN, as floats). */
struct memory {
    unsigned char *data;
    size_t bytes;
    unsigned char *map; /* all of it, guard pages too */
    size_t map_bytes;
    const struct memory_label *label;
};

/**
 * Map a buffer of any size, 0 too; label is borrowed and has static storage. Data that is
 * aligned to `alignment` (a power of two, at most a page) is aligned to no more, as far as the
 * page's edge allows. Returns false when there is no memory.
 */
bool memory_get(struct memory *out, const struct memory_label *label, size_t bytes,
                size_t alignment, enum fit fit);
void memory_release(struct memory *memory);

void memory_fill(const struct memory *memory, unsigned char value);

/** Tell whether the bytes around the buffer, as far as they can be written, are as they were;
 *  else *place is the distance of the first from the buffer's end, or negative: from its start. */
bool memory_intact(const struct memory *memory, int64_t *place);

/** Forbid writing to the buffer, or allow it again. */
void memory_seal(const struct memory *memory, bool sealed);

/** Forbid touching the buffer at all, from now until it is released. */
void memory_revoke(const struct memory *memory);

/** Call it something else from now on. */
void memory_relabel(struct memory *memory, const struct memory_label *label);

/** What an address has to do with a live buffer. */
struct memory_touch {
    const struct memory_label *label; /* NULL: nothing */
    bool inside;                      /* of the buffer: it was sealed or revoked */
    int64_t distance;                 /* from its end; negative: from its start */
};

/** Safe in a signal handler. */
struct memory_touch memory_find(uintptr_t address);

#endif
