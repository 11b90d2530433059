#include "kernels_problem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "numbers.h"

enum { POISON = 0xA5 };

uint32_t problem_random(uint32_t bound) {
    static uint64_t state = 20261122;
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)((state >> 32) * bound >> 32);
}

/* From a half to one, of either sign: no value is lost among the others. */
static double random_value(void) {
    const double size = 0.5 + problem_random(1U << 20) * 0x1p-21;
    return problem_random(2) != 0 ? size : -size;
}

double problem_value(uint32_t type, uint16_t bits) {
    return (double)(type == KRY_TYPE_F16 ? simt_f16_value(bits) : simt_bf16_value(bits));
}

uint16_t problem_bits(uint32_t type, double value) {
    return type == KRY_TYPE_F16 ? simt_f16(value) : simt_bf16(value);
}

static void *make_memory(uint64_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 16, bytes != 0 ? bytes : 1) != 0) {
        fail_msg("no memory for %llu bytes", (unsigned long long)bytes);
    }
    return memory;
}

void problem_complete(kry_linear *linear) {
    linear->struct_size = sizeof *linear;
    linear->full_in_features = linear->k_offset + linear->in_features;
    linear->full_out_features = linear->out_features;
    linear->scale_type = linear->x_type;
}

static void make_groups(struct problem *p) {
    const uint64_t count = (uint64_t)(p->linear.out_features * p->groups);
    const int bits = kry_weight_bits(p->linear.weight_type);
    p->scales = make_memory(count * 2);
    p->zero_points = kry_weight_has_zero_points(p->linear.weight_type) ? make_memory(count) : NULL;
    for (uint64_t i = 0; i < count; i++) {
        p->scales[i] = problem_bits(p->linear.scale_type, random_value() / (1 << bits));
        if (p->zero_points != NULL) {
            p->zero_points[i] = (uint8_t)problem_random(1U << bits);
        }
    }
    p->g_idx = NULL;
    if (p->linear.act_order != 0) {
        p->g_idx = make_memory((uint64_t)p->linear.in_features * 4);
        for (int64_t k = 0; k < p->linear.in_features; k++) {
            p->g_idx[k] = (int32_t)problem_random((uint32_t)p->groups);
        }
    }
}

static int64_t group_of(const struct problem *p, int64_t k) {
    const kry_linear *l = &p->linear;
    if (p->g_idx != NULL) {
        return p->g_idx[k];
    }
    return p->groups == 1 ? 0 : (k + l->k_offset) / l->group_size - l->k_offset / l->group_size;
}

static double zero_of(const struct problem *p, int64_t n, int64_t group) {
    if (p->zero_points != NULL) {
        return p->zero_points[n * p->groups + group];
    }
    return p->linear.weight_type == KRY_WEIGHT_U4B8 ? 8 : 128;
}

void problem_make(struct problem *p, const kry_linear *linear) {
    const uint32_t bits = (uint32_t)kry_weight_bits(linear->weight_type);
    const int64_t per_word = 32 / bits;
    const int64_t k_count = linear->in_features;
    p->linear = *linear;
    p->groups = kry_linear_groups(linear);
    p->words = (k_count + per_word - 1) / per_word;
    p->qweight = make_memory((uint64_t)(linear->out_features * p->words) * 4);
    p->weights = make_memory((uint64_t)(linear->out_features * k_count) * sizeof(double));
    make_groups(p);
    for (int64_t i = 0; i < linear->out_features * p->words; i++) {
        p->qweight[i] = problem_random(1U << 16) << 16 | problem_random(1U << 16);
    }
    for (int64_t n = 0; n < linear->out_features; n++) {
        for (int64_t k = 0; k < k_count; k++) {
            const uint32_t word = p->qweight[n * p->words + k / per_word];
            const uint32_t q = word >> bits * (uint32_t)(k % per_word) & ((1U << bits) - 1);
            const int64_t group = group_of(p, k);
            const double scale =
                problem_value(linear->scale_type, p->scales[n * p->groups + group]);
            p->weights[n * k_count + k] = (q - zero_of(p, n, group)) * scale;
        }
    }
}

void problem_discard(struct problem *p) {
    free(p->qweight);
    free(p->scales);
    free(p->zero_points);
    free(p->g_idx);
    free(p->weights);
}

void call_make(struct call *call, const struct problem *p, int64_t m, int64_t x_stride,
               int64_t y_stride, int64_t x_shift, int has_bias) {
    const int64_t k_count = p->linear.in_features;
    const int64_t n_count = p->linear.out_features;
    const uint64_t y_size = kry_type_bytes(p->linear.y_type);
    const uint64_t x_elements = (uint64_t)((m - 1) * x_stride + k_count);
    *call = (struct call){.m = m, .x_stride = x_stride, .y_stride = y_stride};
    call->x_memory = make_memory(((uint64_t)x_shift + x_elements) * 2);
    call->x = (uint16_t *)call->x_memory + x_shift;
    memset(call->x_memory, 0xFF, ((uint64_t)x_shift + x_elements) * 2);
    for (int64_t row = 0; row < m; row++) {
        for (int64_t k = 0; k < k_count; k++) {
            call->x[row * x_stride + k] = problem_bits(p->linear.x_type, random_value());
        }
    }
    call->y_bytes = ((uint64_t)x_shift + (uint64_t)((m - 1) * y_stride + n_count)) * y_size;
    call->y_memory = make_memory(call->y_bytes);
    call->y = call->y_memory + (uint64_t)x_shift * y_size;
    memset(call->y_memory, POISON, call->y_bytes);
    if (has_bias) {
        call->bias = make_memory((uint64_t)n_count * y_size);
        for (int64_t n = 0; n < n_count; n++) {
            if (p->linear.y_type == KRY_TYPE_F32) {
                ((float *)call->bias)[n] = (float)random_value();
            } else {
                ((uint16_t *)call->bias)[n] = problem_bits(p->linear.y_type, random_value());
            }
        }
    }
}

void call_discard(struct call *call) {
    free(call->x_memory);
    free(call->bias);
    free(call->y_memory);
}

/* Element i of an array of y's type. */
static double element(uint32_t type, const void *array, int64_t i) {
    if (type == KRY_TYPE_F32) {
        float value;
        memcpy(&value, (const char *)array + i * 4, 4);
        return (double)value;
    }
    uint16_t bits;
    memcpy(&bits, (const char *)array + i * 2, 2);
    return problem_value(type, bits);
}

/* Half a unit in the last place of 1 in a type: what one rounding may change. */
static double rounding_of(uint32_t type) {
    return type == KRY_TYPE_F32 ? 0x1p-24 : type == KRY_TYPE_F16 ? 0x1p-11 : 0x1p-8;
}

/* Each weight is rounded once to x's type, sums are kept in f32, y and the bias are rounded. */
static void check_element(const struct call *call, const struct problem *p, int64_t row, int64_t n,
                          const char *what) {
    const int64_t k_count = p->linear.in_features;
    double sum = call->bias != NULL ? element(p->linear.y_type, call->bias, n) : 0;
    double size = fabs(sum);
    for (int64_t k = 0; k < k_count; k++) {
        const double product = problem_value(p->linear.x_type, call->x[row * call->x_stride + k]) *
                               p->weights[n * k_count + k];
        sum += product;
        size += fabs(product);
    }
    const double bound = size * (rounding_of(p->linear.x_type) + (double)k_count * 0x1p-24) +
                         fabs(sum) * rounding_of(p->linear.y_type) + 0x1p-24;
    const double found = element(p->linear.y_type, call->y, row * call->y_stride + n);
    if (!(fabs(found - sum) <= bound)) {
        fail_msg("%s: y[%lld][%lld] is %g, expected %g within %g", what, (long long)row,
                 (long long)n, found, sum, bound);
    }
}

void call_check(const struct call *call, const struct problem *p, const char *what) {
    const uint64_t y_size = kry_type_bytes(p->linear.y_type);
    const uint64_t begin = (uint64_t)(call->y - call->y_memory);
    const uint64_t row_bytes = (uint64_t)call->y_stride * y_size;
    const uint64_t used_bytes = (uint64_t)p->linear.out_features * y_size;
    for (int64_t row = 0; row < call->m; row++) {
        for (int64_t n = 0; n < p->linear.out_features; n++) {
            check_element(call, p, row, n, what);
        }
    }
    for (uint64_t at = 0; at < call->y_bytes; at++) {
        const int is_used = at >= begin && (at - begin) % row_bytes < used_bytes;
        if (!is_used && call->y_memory[at] != POISON) {
            fail_msg("%s: byte %llu between the rows of y was written", what,
                     (unsigned long long)at);
        }
    }
}
