/*
 * A quantized layer as numbers, written in each stored format from the format's description,
 * and compared with the views of a partition. Shares no function with the library.
 */
#ifndef KERNELRY_TESTS_CHECKPOINT_PROBLEM_H
#define KERNELRY_TESTS_CHECKPOINT_PROBLEM_H

#include "writer.h"

/** q, z and s of one layer. */
struct problem {
    int64_t in_features, out_features, group_size; /* -1: a channel */
    int bits;
    bool symmetric;
    int64_t groups;
    uint8_t *q;     /* [N][K] */
    uint8_t *z;     /* [N][G]; 2^(bits-1) throughout when symmetric */
    uint16_t *s;    /* [N][G] f16 */
    int32_t *g_idx; /* [K]; trivial unless shuffled */
    uint16_t *bias; /* [N] f16 */
};

void problem_make(struct problem *problem, int64_t in_features, int64_t out_features,
                  int64_t group_size, int bits, bool symmetric);
/** Give every column a random group. */
void problem_shuffle(struct problem *problem);
void problem_free(struct problem *problem);

enum {
    WITH_G_IDX = 1,
    WITH_BIAS = 2,
    WITHOUT_SHAPE = 4,  /* compressed-tensors: no weight_shape */
    ZEROS_UNPACKED = 8, /* compressed-tensors: I8 [N, G] */
    ZEROS_FIELD = 16,   /* GPTQ version 1, each field wrapped on its own */
    ZEROS_WORD = 32,    /* GPTQ version 1, a word at once */
    ZEROS_SHORT = 64,   /* GPTQ: N // p words */
};

void write_compressed_tensors(const struct problem *problem, struct safetensors *file,
                              const char *module, int flags);
void write_gptq(const struct problem *problem, struct safetensors *file, const char *module,
                int flags);
void write_awq(const struct problem *problem, struct safetensors *file, const char *module,
               int flags);

/** Element (n, j) of a view, by its definition in kernelry/types.h. */
uint32_t view_element(const kry_view *view, int64_t n, int64_t j);
/** True zero point (n, j) of `bits` bits. */
uint32_t view_zero(const kry_view *view, int bits, int64_t n, int64_t j);

/** Make the weights of a partition of a layer and compare every element; fails the test. */
void check_partition(const struct model *model, const char *name, const struct problem *problem,
                     int64_t n_begin, int64_t n_end, int64_t k_begin, int64_t k_end);
/** Likewise for the whole layer, halves, and a few dozen odd parts. */
void check_partitions(const struct model *model, const char *name, const struct problem *problem);

#endif
