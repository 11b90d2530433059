#include "bound.h"

#include "kernelry_torch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Open addressing over a power of two, at most half full; NULL is free, GONE was taken. */
static struct bound *slots;
static size_t slot_count, used_count; /* used: taken or gone */
static const char gone;
#define GONE ((const void *)&gone)

/* Blocks for the zeroed part of workspaces: all of a device are made at once, so that none is
 * allocated while a graph is captured, and each is given to the first stream that asks. */
static struct stream_block {
    int32_t device;
    bool taken;
    const void *stream;
    void *block;
} * blocks;
static size_t block_count;

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

static size_t place_of(const void *tensor, size_t count) {
    /* Fibonacci hashing: addresses are multiples of KRY_ALIGNMENT. */
    uint64_t hash = (uint64_t)(uintptr_t)tensor * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(hash >> 32) & (count - 1);
}

static struct bound *find(const void *tensor) {
    if (slot_count == 0)
        return NULL;
    size_t at = place_of(tensor, slot_count);
    for (; slots[at].tensor != NULL; at = (at + 1) & (slot_count - 1))
        if (slots[at].tensor == tensor)
            return &slots[at];
    return NULL;
}

static void put(struct bound *to, size_t count, const struct bound *item) {
    size_t at = place_of(item->tensor, count);
    while (to[at].tensor != NULL)
        at = (at + 1) & (count - 1);
    to[at] = *item;
}

/* Room for one more, without what is gone. */
static bool make_room(void) {
    if (2 * (used_count + 1) <= slot_count)
        return true;
    size_t alive = 0;
    for (size_t i = 0; i < slot_count; i++)
        alive += slots[i].tensor != NULL && slots[i].tensor != GONE;
    size_t count = 64;
    while (count < 4 * (alive + 1))
        count *= 2;
    struct bound *larger = calloc(count, sizeof larger[0]);
    if (larger == NULL)
        return false;
    for (size_t i = 0; i < slot_count; i++)
        if (slots[i].tensor != NULL && slots[i].tensor != GONE)
            put(larger, count, &slots[i]);
    free(slots);
    slots = larger;
    slot_count = count;
    used_count = alive;
    return true;
}

int32_t kry_torch_bind(const void *tensor, uint64_t token, const kry_layer *layer) {
    const kry_linear *linear = kry_layer_linear(layer, 0);
    if (tensor == NULL || linear == NULL)
        return kry_error_set(KRY_E_ARGUMENT, "kry_torch_bind: found NULL");
    if (linear->x_type != linear->y_type)
        return kry_error_set(KRY_E_UNSUPPORTED,
                             "the PyTorch operator takes layers whose x and y have one type");
    struct bound item = {tensor,        token, layer, linear->in_features, linear->out_features,
                         linear->x_type};
    kry_status status = KRY_OK;
    pthread_rwlock_wrlock(&lock);
    struct bound *found = find(tensor);
    if (found != NULL) {
        *found = item;
    } else if (make_room()) {
        put(slots, slot_count, &item);
        used_count++;
    } else {
        status = kry_error_set(KRY_E_MEMORY, "out of memory for the table of layers");
    }
    pthread_rwlock_unlock(&lock);
    return status;
}

void kry_torch_unbind(const void *tensor, const kry_layer *layer) {
    pthread_rwlock_wrlock(&lock);
    struct bound *found = find(tensor);
    if (found != NULL && found->layer == layer)
        found->tensor = GONE;
    pthread_rwlock_unlock(&lock);
}

bool bound_find(const void *tensor, struct bound *out) {
    pthread_rwlock_rdlock(&lock);
    const struct bound *found = tensor != NULL ? find(tensor) : NULL;
    if (found != NULL)
        *out = *found;
    pthread_rwlock_unlock(&lock);
    return found != NULL;
}

bool bound_find_copy(const struct bound_head *head, struct bound *out) {
    bool found = false;
    if (memcmp(head->magic, BOUND_MAGIC, sizeof head->magic) != 0)
        return false;
    pthread_rwlock_rdlock(&lock);
    for (size_t i = 0; i < slot_count && !found; i++) {
        found = slots[i].tensor != NULL && slots[i].tensor != GONE && slots[i].token == head->token;
        if (found)
            *out = slots[i];
    }
    pthread_rwlock_unlock(&lock);
    return found;
}

int32_t kry_torch_has_zeroed(int32_t device) {
    int32_t found = 0;
    pthread_rwlock_rdlock(&lock);
    for (size_t i = 0; i < block_count; i++)
        found |= blocks[i].device == device;
    pthread_rwlock_unlock(&lock);
    return found;
}

size_t kry_torch_zeroed_bytes(void) { return (size_t)BOUND_ZEROED_BYTES * BOUND_STREAMS_MAX; }

int32_t kry_torch_add_zeroed(int32_t device, void *memory) {
    kry_status status = KRY_OK;
    pthread_rwlock_wrlock(&lock);
    struct stream_block *larger =
        realloc(blocks, (block_count + BOUND_STREAMS_MAX) * sizeof blocks[0]);
    if (larger == NULL)
        status = kry_error_set(KRY_E_MEMORY, "out of memory for the zeroed blocks of a device");
    else
        blocks = larger;
    for (size_t i = 0; larger != NULL && i < BOUND_STREAMS_MAX; i++)
        blocks[block_count++] = (struct stream_block){
            .device = device, .block = (char *)memory + i * BOUND_ZEROED_BYTES};
    pthread_rwlock_unlock(&lock);
    return status;
}

void *bound_zeroed(int32_t device, const void *stream) {
    void *found = NULL;
    pthread_rwlock_rdlock(&lock);
    for (size_t i = 0; i < block_count && found == NULL; i++)
        if (blocks[i].device == device && blocks[i].taken && blocks[i].stream == stream)
            found = blocks[i].block;
    pthread_rwlock_unlock(&lock);
    if (found != NULL)
        return found;
    pthread_rwlock_wrlock(&lock);
    for (size_t i = 0; i < block_count && found == NULL; i++) {
        struct stream_block *block = &blocks[i];
        if (block->device == device && (!block->taken || block->stream == stream)) {
            block->taken = true;
            block->stream = stream;
            found = block->block;
        }
    }
    pthread_rwlock_unlock(&lock);
    return found;
}
