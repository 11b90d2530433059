/*
 * Which layers a race goes over.
 */
#include "race_plan.h"

#include "random.h"
#include "words.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_SHAPES = 102 }; /* of a seed */

void race_plan_free(struct race_plan *plan) {
    free(plan->layers);
    *plan = (struct race_plan){0};
}

/** Append a layer that is complete but for what the taste says; without any m of its own: the
 *  usual ones. */
static kry_status append(struct race_plan *plan, const struct race_taste *taste,
                         struct race_layer layer) {
    struct race_layer *grown = realloc(plan->layers, (plan->count + 1) * sizeof *grown);
    if (grown == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    plan->layers = grown;
    if (taste->computes != 0)
        layer.computes = taste->computes;
    else if (taste->on_device) /* kernels with int8 activations are a CPU's */
        layer.computes &= ~(unsigned)COMPUTE_INT8;
    if (layer.m_count == 0) {
        static const int64_t usual[] = {1, 16, 128, 1024};
        memcpy(layer.m, usual, sizeof usual);
        layer.m_count = taste->on_device ? 4 : 3; /* a thousand rows would take a CPU seconds */
    }
    if (taste->m != NULL) {
        layer.m_count = taste->m_count < RACE_M_MOST ? taste->m_count : RACE_M_MOST;
        memcpy(layer.m, taste->m, layer.m_count * sizeof *layer.m);
    }
    grown[plan->count++] = layer;
    return KRY_OK;
}

/** A layer of 4-bit weights. */
static kry_status plain_layer(int64_t k, int64_t n, int64_t group_size, struct race_layer *out) {
    kry_linear linear = KRY_INIT(kry_linear);
    linear.in_features = k;
    linear.out_features = n;
    linear.group_size = group_size;
    linear.weight_type = KRY_WEIGHT_U4B8;
    linear.x_type = KRY_TYPE_F16;
    *out = (struct race_layer){.linear = KRY_INIT(kry_linear),
                               .computes = COMPUTE_F16 | COMPUTE_BF16 | COMPUTE_INT8};
    snprintf(out->name, sizeof out->name, "%" PRId64 "×%" PRId64 " g%" PRId64, k, n, group_size);
    return kry_linear_complete(&linear, &out->linear);
}

/** A layer of a yardstick; 0 ends its m. */
struct mark {
    int64_t k, n, group_size, m[RACE_M_MOST];
};

static const struct mark of_cpu[] = {{4096, 4096, 128, {1, 4, 16, 128, 512}},
                                     {2112, 2816, 128, {1, 128}},
                                     {4096, 4096, 32, {1, 4, 16, 128, 512}},
                                     {2112, 2816, 32, {1, 128}}};
static const struct mark of_device[] = {{2112, 2816, 32, {1, 16, 128, 1024}},
                                        {4096, 4096, 128, {1, 16, 64, 128, 1024}},
                                        {14336, 4096, 128, {1, 16, 64, 1024}},
                                        {8192, 28672, 128, {1, 16, 64, 128, 4096}}};

kry_status race_plan_yardstick(struct race_plan *plan, const struct race_taste *taste) {
    const struct mark *marks = taste->on_device ? of_device : of_cpu;
    size_t count = taste->on_device ? sizeof of_device / sizeof of_device[0]
                                    : sizeof of_cpu / sizeof of_cpu[0];
    kry_status status = KRY_OK;
    for (size_t i = 0; i < count && status == KRY_OK; i++) {
        struct race_layer layer;
        status = plain_layer(marks[i].k, marks[i].n, marks[i].group_size, &layer);
        if (status != KRY_OK)
            break;
        memcpy(layer.m, marks[i].m, sizeof layer.m);
        for (layer.m_count = 0; layer.m_count < RACE_M_MOST && layer.m[layer.m_count] > 0;)
            layer.m_count++;
        status = append(plan, taste, layer);
    }
    return status;
}

kry_status race_plan_random(struct race_plan *plan, const struct race_taste *taste, int64_t count,
                            uint64_t seed) {
    /* Multiples of 128 from 1024 to 14336, but no more than 64 Mi weights: a race of minutes. */
    enum { UNIT = 128, LEAST = 8, MOST = 112 };
    static const int64_t groups[] = {32, 64, 128};
    struct random random = random_seeded(seed, STREAM_SHAPES);
    kry_status status = KRY_OK;
    for (int64_t i = 0; i < count && status == KRY_OK;) {
        int64_t k = (LEAST + (int64_t)random_below(&random, MOST - LEAST + 1)) * UNIT;
        int64_t n = (LEAST + (int64_t)random_below(&random, MOST - LEAST + 1)) * UNIT;
        int64_t group = groups[random_below(&random, 3)];
        struct race_layer layer;
        if (k * n > INT64_C(64) << 20)
            continue;
        status = plain_layer(k, n, group, &layer);
        if (status == KRY_OK)
            status = append(plan, taste, layer);
        i++;
    }
    return status;
}

kry_status race_plan_add(struct race_plan *plan, const struct race_taste *taste, const char *name,
                         const kry_linear *linear, bool beside_aligned) {
    struct race_layer layer = {.linear = *linear, .beside_aligned = beside_aligned};
    /* x as the description has it, and int8. */
    unsigned own = 0;
    parse_compute(type_word(linear->x_type), &own);
    layer.computes = own | COMPUTE_INT8;
    snprintf(layer.name, sizeof layer.name, "%s", name);
    return append(plan, taste, layer);
}
