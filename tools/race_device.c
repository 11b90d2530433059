/*
 * A device's limits in a race.
 */
#include "race_device.h"

#include "clock.h"
#include "floats.h"
#include "random.h"
#include "rotation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DENSE = 8192, /* rows and columns of the matrices that reach the limit of arithmetic */
    PATTERN_BYTES = 8 << 20,
    STREAM_PATTERN = 103, /* of a seed */
    TRIAL_NS = 10 * 1000 * 1000,
    VECTOR = 16, /* bytes: cuda_read reads whole ones */
    SINK_BYTES = 64
};

/** What is read in turn. */
struct reading {
    struct race_device *device;
    uint64_t bytes; /* of a turn */
    uint64_t at;
    uint32_t blocks;
};

struct race_device {
    struct device_memory memory;
    struct stream_clock *clock;
    struct cublas *cublas;
    char cublas_trouble[240];
    uint64_t fill;
    unsigned char *block; /* what is read and multiplied: fill bytes, then the sink */
    uint64_t block_bytes;
    void *matrices; /* two that are multiplied, and their product */
    struct reading reading;
};

kry_status race_device_create(const kry_registry *registry, const kry_device *device, uint64_t fill,
                              struct race_device **out) {
    struct race_device *made = calloc(1, sizeof *made);
    if (made == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    made->fill = fill;
    kry_status status = device_memory_open(registry, device, &made->memory);
    if (status == KRY_OK)
        status = stream_clock_create(&made->memory, &made->clock);
    if (status != KRY_OK) {
        race_device_destroy(&made);
        return status;
    }
    const struct cuda *cuda = stream_clock_cuda(made->clock);
    if (cuda == NULL)
        snprintf(made->cublas_trouble, sizeof made->cublas_trouble, "%s",
                 stream_clock_trouble(made->clock));
    else if (cublas_open(cuda, &made->memory, &made->cublas) != KRY_OK)
        snprintf(made->cublas_trouble, sizeof made->cublas_trouble, "%s", kry_error_message());
    *out = made;
    return KRY_OK;
}

static uint64_t matrix_bytes(void) { return (uint64_t)DENSE * DENSE * sizeof(uint16_t); }

void race_device_destroy(struct race_device **device) {
    struct race_device *gone = *device;
    if (gone == NULL)
        return;
    device_memory_release(&gone->memory, gone->block, gone->block_bytes);
    device_memory_release(&gone->memory, gone->matrices, 3 * matrix_bytes());
    cublas_close(&gone->cublas);
    stream_clock_destroy(&gone->clock);
    free(gone);
    *device = NULL;
}

const struct device_memory *race_device_memory(const struct race_device *device) {
    return &device->memory;
}

struct stream_clock *race_device_clock(const struct race_device *device) {
    return device->clock;
}

size_t race_device_copies(const struct race_device *device, uint64_t bytes) {
    return rotation_copies(device->memory.device, bytes, device->fill);
}

struct cublas *race_device_cublas(const struct race_device *device, const char **trouble) {
    *trouble = device->cublas_trouble;
    return device->cublas;
}

/** Fill memory with normal numbers of f16, some of them again and again: what multipliers and
 *  wires do with zeros says nothing. */
static kry_status fill_memory(const struct race_device *device, unsigned char *to, uint64_t bytes) {
    struct random random = random_seeded(0, STREAM_PATTERN);
    unsigned char *pattern = malloc(PATTERN_BYTES);
    if (pattern == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    for (int64_t i = 0; i < PATTERN_BYTES / 2; i++)
        float_store(pattern, i, KRY_TYPE_F16, (double)random_normal(&random));
    kry_status status = KRY_OK;
    for (uint64_t at = 0; at < bytes && status == KRY_OK; at += PATTERN_BYTES)
        status = device_memory_send(&device->memory, to + at, pattern,
                                    bytes - at < PATTERN_BYTES ? bytes - at : PATTERN_BYTES);
    free(pattern);
    return status;
}

/* ---- reading ------------------------------------------------------------------------- */

/** Have memory to read in turns of so many bytes. */
static kry_status get_block(struct race_device *device, uint64_t bytes) {
    uint64_t wanted = bytes * race_device_copies(device, bytes);
    if (bytes == 0) /* of one byte a copy there would be too many */
        wanted = race_device_copies(device, UINT64_C(1) << 20) * (UINT64_C(1) << 20);
    wanted = (wanted + VECTOR) / VECTOR * VECTOR + SINK_BYTES;
    if (wanted <= device->block_bytes)
        return KRY_OK;
    device_memory_release(&device->memory, device->block, device->block_bytes);
    device->block_bytes = 0;
    device->block = device_memory_get(&device->memory, wanted);
    if (device->block == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory to read from");
    device->block_bytes = wanted;
    return fill_memory(device, device->block, wanted);
}

static kry_status enqueue_read(void *context, void *stream) {
    (void)stream; /* the driver's own */
    struct reading *reading = context;
    struct race_device *device = reading->device;
    uint64_t end = device->block_bytes - SINK_BYTES;
    if (reading->at + reading->bytes > end)
        reading->at = 0;
    const unsigned char *from = device->block + reading->at;
    reading->at += reading->bytes;
    return cuda_read(stream_clock_cuda(device->clock), reading->blocks, from, reading->bytes,
                     device->block + end);
}

/** The least time of a turn within a moment, or a negative number after an error. */
static double try_loop(struct stream_loop *loop) {
    double best = -1;
    for (int64_t begin = clock_now(); clock_now() - begin < TRIAL_NS;) {
        double turn;
        size_t turns;
        if (stream_loop_step(loop, &turn, &turns) != KRY_OK)
            return -1;
        best = best < 0 || turn < best ? turn : best;
    }
    return best;
}

kry_status race_device_read(struct race_device *device, uint64_t bytes, struct stream_loop **out,
                            double *work) {
    if (stream_clock_cuda(device->clock) == NULL)
        return kry_error_set(KRY_E_DEPENDENCY, "%s", stream_clock_trouble(device->clock));
    kry_status status = get_block(device, bytes);
    if (status != KRY_OK)
        return status;
    uint64_t all = device->block_bytes - SINK_BYTES;
    uint64_t turn_bytes = bytes > 0 ? (bytes + VECTOR - 1) / VECTOR * VECTOR : all;
    double best = 0;
    *out = NULL;
    /* How many blocks read fastest depends on the device and on the bytes: the best of three. */
    for (uint32_t each = 1; each <= 4 && status == KRY_OK; each *= 2) {
        struct reading reading = {.device = device,
                                  .bytes = turn_bytes,
                                  .blocks = each * device->memory.device->multiprocessors};
        struct stream_loop *loop = NULL;
        device->reading = reading;
        const struct stream_work turn = {
            .enqueue = enqueue_read, .context = &device->reading, .copies = all / turn_bytes};
        status = stream_loop_create(device->clock, &turn, &loop);
        double took = status == KRY_OK ? try_loop(loop) : -1;
        if (took > 0 && (*out == NULL || took < best)) {
            stream_loop_destroy(out);
            *out = loop;
            best = took;
        } else {
            stream_loop_destroy(&loop);
        }
    }
    *work = (double)turn_bytes;
    if (status == KRY_OK && *out == NULL)
        status = kry_error_set(KRY_E_DEVICE, "reading could not be measured");
    if (status != KRY_OK)
        stream_loop_destroy(out);
    return status;
}

/* ---- multiplying --------------------------------------------------------------------- */

static kry_status enqueue_dense(void *context, void *stream) {
    (void)stream; /* cuBLAS knows it */
    const struct race_device *device = context;
    unsigned char *matrices = device->matrices;
    const struct cublas_product product = {.m = DENSE,
                                           .in_features = DENSE,
                                           .out_features = DENSE,
                                           .type = KRY_TYPE_F16,
                                           .weights = matrices,
                                           .x = matrices + matrix_bytes(),
                                           .y = matrices + 2 * matrix_bytes()};
    return cublas_enqueue(device->cublas, &product);
}

kry_status race_device_dense(struct race_device *device, struct stream_loop **out, double *work) {
    if (device->cublas == NULL)
        return kry_error_set(KRY_E_DEPENDENCY, "%s", device->cublas_trouble);
    kry_status status = KRY_OK;
    if (device->matrices == NULL) {
        device->matrices = device_memory_get(&device->memory, 3 * matrix_bytes());
        status = device->matrices != NULL
                     ? fill_memory(device, device->matrices, 2 * matrix_bytes())
                     : kry_error_set(KRY_E_MEMORY, "no memory for matrices");
    }
    const struct stream_work turn = {.enqueue = enqueue_dense, .context = device, .copies = 1};
    if (status == KRY_OK)
        status = stream_loop_create(device->clock, &turn, out);
    *work = 2.0 * DENSE * DENSE * DENSE;
    return status;
}
