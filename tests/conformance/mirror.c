#include "mirror.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAN_BYTE = 0xff, MIRRORS_MOST = 128 };

static const struct device_memory *device;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local struct memory_touch touched;

/* A mirror, known by where its buffer is mapped. */
static struct mirror {
    const unsigned char *map;
    unsigned char *block; /* on the device */
    uint64_t block_bytes;
    unsigned char *guard; /* of it, on a page's edge: a page of NaN, the buffer, another page */
} mirrors[MIRRORS_MOST];

void mirrors_begin(const struct device_memory *memory) { device = memory; }

bool mirrors_are_made(void) { return device != NULL; }

struct memory_touch mirror_touched(void) {
    struct memory_touch out = touched;
    touched = (struct memory_touch){0};
    return out;
}

static size_t page_bytes(void) { return (size_t)sysconf(_SC_PAGESIZE); }

/* Where the buffer and what surrounds it, as far as it is mapped, begins and how long it is. */
static unsigned char *inner(const struct memory *buffer) { return buffer->map + page_bytes(); }
static size_t inner_bytes(const struct memory *buffer) {
    return buffer->map_bytes - 2 * page_bytes();
}

static unsigned char *up_to_page(unsigned char *address) {
    size_t page = page_bytes();
    return address + (page - (uintptr_t)address % page) % page;
}

/* Under the lock. */
static struct mirror *find(const unsigned char *map) {
    for (size_t i = 0; i < MIRRORS_MOST; i++)
        if (mirrors[i].map == map)
            return &mirrors[i];
    return NULL;
}

static struct mirror *make(const struct memory *buffer) {
    struct mirror *mirror = find(NULL);
    if (mirror == NULL)
        return NULL;
    uint64_t bytes = inner_bytes(buffer) + 3 * page_bytes();
    unsigned char *block = device_memory_get(device, bytes);
    if (block == NULL)
        return NULL;
    *mirror = (struct mirror){
        .map = buffer->map, .block = block, .block_bytes = bytes, .guard = up_to_page(block)};
    return mirror;
}

static bool get(const struct memory *buffer, struct mirror *out) {
    pthread_mutex_lock(&lock);
    struct mirror *mirror = find(buffer->map);
    if (mirror == NULL)
        mirror = make(buffer);
    if (mirror != NULL)
        *out = *mirror;
    pthread_mutex_unlock(&lock);
    return mirror != NULL;
}

void mirror_forget(const struct memory *buffer) {
    if (device == NULL || buffer->map == NULL)
        return;
    pthread_mutex_lock(&lock);
    struct mirror *mirror = find(buffer->map);
    if (mirror != NULL) {
        device_memory_release(device, mirror->block, mirror->block_bytes);
        *mirror = (struct mirror){0};
    }
    pthread_mutex_unlock(&lock);
}

/* ---- sending and fetching ---------------------------------------------------------------- */

void *mirror_send(const struct memory *buffer) {
    struct mirror mirror;
    size_t page = page_bytes(), bytes = inner_bytes(buffer);
    unsigned char *staging = malloc(bytes + 2 * page);
    bool good = staging != NULL && get(buffer, &mirror);
    if (good) {
        memset(staging, NAN_BYTE, page);
        memcpy(staging + page, inner(buffer), bytes);
        memset(staging + page + bytes, NAN_BYTE, page);
        good = device_memory_send(device, mirror.guard, staging, bytes + 2 * page) == KRY_OK;
    }
    free(staging);
    return good ? mirror.guard + page + (buffer->data - inner(buffer)) : NULL;
}

static void touch(const struct memory *buffer, bool inside, int64_t distance) {
    if (touched.label == NULL)
        touched =
            (struct memory_touch){.label = buffer->label, .inside = inside, .distance = distance};
}

/* All that lies on the device, from the guard on. NULL: no memory, or the device failed. */
static unsigned char *fetch(const struct memory *buffer) {
    struct mirror mirror;
    size_t page = page_bytes(), bytes = inner_bytes(buffer) + 2 * page;
    unsigned char *staging = malloc(bytes);
    if (staging != NULL && get(buffer, &mirror) &&
        device_memory_fetch(device, staging, mirror.guard, bytes) == KRY_OK)
        return staging;
    free(staging);
    return NULL;
}

/* The pages around the mirror, whose nearest byte that is no NaN any more is told. */
static void look_at_guards(const struct memory *buffer, const unsigned char *staging) {
    size_t page = page_bytes(), end = page + inner_bytes(buffer);
    int64_t begin_of_data = (int64_t)page + (buffer->data - inner(buffer));
    int64_t end_of_data = begin_of_data + (int64_t)buffer->bytes;
    for (size_t i = 0; i < page; i++)
        if (staging[end + i] != NAN_BYTE) {
            touch(buffer, false, (int64_t)(end + i) - end_of_data);
            break;
        }
    for (size_t i = page; i > 0; i--)
        if (staging[i - 1] != NAN_BYTE) {
            touch(buffer, false, (int64_t)(i - 1) - begin_of_data);
            break;
        }
}

bool mirror_fetch(const struct memory *buffer) {
    unsigned char *staging = fetch(buffer);
    if (staging == NULL)
        return false;
    look_at_guards(buffer, staging);
    memcpy(inner(buffer), staging + page_bytes(), inner_bytes(buffer));
    free(staging);
    return true;
}

bool mirror_compare(const struct memory *buffer) {
    unsigned char *staging = fetch(buffer);
    if (staging == NULL)
        return false;
    look_at_guards(buffer, staging);
    const unsigned char *found = staging + page_bytes(), *expected = inner(buffer);
    int64_t begin = buffer->data - expected, end = begin + (int64_t)buffer->bytes;
    for (int64_t i = 0; i < (int64_t)inner_bytes(buffer); i++)
        if (found[i] != expected[i]) {
            touch(buffer, i >= begin && i < end, i < begin ? i - begin : i - end);
            break;
        }
    free(staging);
    return true;
}

/* ---- for one call ------------------------------------------------------------------------ */

void *mirror_lend(const void *from, uint64_t bytes, struct lent_copy *out) {
    size_t page = page_bytes(), at = (uintptr_t)from % page;
    *out = (struct lent_copy){.bytes = bytes + 2 * page};
    out->block = device_memory_get(device, out->bytes);
    if (out->block == NULL)
        return NULL;
    unsigned char *to = up_to_page(out->block) + at;
    return device_memory_send(device, to, from, bytes) == KRY_OK ? to : NULL;
}

void mirror_take_back(struct lent_copy *copy) {
    device_memory_release(device, copy->block, copy->bytes);
}
