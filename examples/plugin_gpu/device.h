/*
 * What host and device share: the layout of prepared weights, and how kernels are started.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include <kernelry/plugin.h>

#ifdef __CUDACC__
#define BOTH __host__ __device__
#else
#define BOTH
#endif

/* A layer, as far as the layout and the product know it. */
struct shape {
    int64_t k, n;
    int64_t words;      /* of a row: eight weights each */
    int64_t groups;     /* of a row */
    int64_t group_size; /* at least 1 */
    int64_t before;     /* columns of the first group that lie before this partition */
};

/*
 * Layout "my_plugin.columns" 1: words [ceil(K / 8)][N], then scales, bf16 [G][N]. Threads beside
 * each other compute features beside each other, and read words that lie beside each other.
 */
static inline BOTH int64_t word_place(const struct shape *shape, int64_t n, int64_t word) {
    return word * shape->n + n;
}

static inline BOTH int64_t scale_place(const struct shape *shape, int64_t n, int64_t group) {
    return group * shape->n + n;
}

static inline BOTH int64_t group_of(const struct shape *shape, int64_t k) {
    return (k + shape->before) / shape->group_size;
}

static inline BOTH uint16_t *scales_of(const struct shape *shape, const void *prepared) {
    return (uint16_t *)((uint32_t *)prepared + shape->words * shape->n);
}

/* Prepare all of output feature n: on the host and on the device alike. */
static inline BOTH void prepare_feature(const struct shape *shape, const kry_canonical *from,
                                        int64_t n, void *prepared) {
    const int64_t row = n - from->n_begin;
    const uint32_t *words = from->qweight + row * from->qweight_stride;
    const uint16_t *scales = (const uint16_t *)from->scales + row * from->scale_stride;
    for (int64_t word = 0; word < shape->words; word++)
        ((uint32_t *)prepared)[word_place(shape, n, word)] = words[word];
    for (int64_t group = 0; group < shape->groups; group++)
        scales_of(shape, prepared)[scale_place(shape, n, group)] = scales[group];
}

#ifdef __cplusplus
extern "C" {
#endif

/* Each is done on the device of that ordinal, enqueued on the stream, and returns without waiting.
 * KRY_E_DEVICE where that fails; device_error tells why, to the thread that called. */
kry_status device_open(int32_t ordinal);
kry_status device_prepare(int32_t ordinal, const struct shape *shape, const kry_canonical *from,
                          void *prepared, void *stream);
kry_status device_apply(int32_t ordinal, const struct shape *shape, const void *prepared,
                        const kry_apply_args *args);
const char *device_error(void);

#ifdef __cplusplus
}
#endif
#endif
