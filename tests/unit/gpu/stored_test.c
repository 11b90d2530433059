/*
 * Stored weights in any packing into the canonical layout, by the device's entries on the SIMT
 * layer.
 *
 * usage: test_gpu_stored MODULE WAVE
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels_device.h"
#include "kernels_problem.h"

static void *make_memory(uint64_t bytes, int fill) {
    void *memory = NULL;
    if (posix_memalign(&memory, 16, bytes != 0 ? bytes : 1) != 0) {
        fail_msg("no memory for %llu bytes", (unsigned long long)bytes);
    }
    memset(memory, fill, bytes);
    return memory;
}

/* A stored tensor [rows, columns] of which a layer sees a part, in a random packing. */
struct stored {
    struct gpu_view view;
    unsigned char *memory;
    int64_t rows;
    int64_t columns;
    uint32_t *elements; /* [rows, columns] */
};

static void stored_make(struct stored *s, int64_t rows, int64_t columns, uint32_t element_bits,
                        bool packed) {
    static const uint32_t word_bits[] = {32, 32, 16, 8};
    struct gpu_view *v = &s->view;
    *s = (struct stored){.view = {.element_bits = element_bits, .word_bits = element_bits}};
    if (packed) {
        v->word_bits = word_bits[problem_random(4)];
        v->pack_axis = problem_random(2) != 0 ? KRY_AXIS_K : KRY_AXIS_N;
        v->order = element_bits == 4 && v->word_bits == 32 && problem_random(2) != 0
                       ? KRY_ORDER_AWQ
                       : KRY_ORDER_SEQUENTIAL;
    }
    const int64_t per_word = v->word_bits / element_bits;
    v->n_begin = problem_random(3) * (problem_random(2) != 0 ? 8 : 3);
    v->j_begin = problem_random(3) * (problem_random(2) != 0 ? 8 : 5);
    s->rows = (v->n_begin + rows + per_word - 1) / per_word * per_word;
    s->columns = (v->j_begin + columns + per_word - 1) / per_word * per_word;
    const bool by_n = per_word > 1 && v->pack_axis == KRY_AXIS_N;
    const int64_t down = by_n ? s->rows / per_word : s->rows; /* words along either axis */
    const int64_t across = by_n ? s->columns : s->columns / per_word;
    const bool is_column_major = problem_random(2) != 0;
    v->n_stride = is_column_major ? 1 : across + problem_random(3);
    v->j_stride = is_column_major ? down + problem_random(3) : 1;
    const int64_t words = (down - 1) * v->n_stride + (across - 1) * v->j_stride + 1;
    const uint32_t bytes = v->word_bits / 8;
    const uint32_t shift = problem_random(3) == 0 ? 1 : 0; /* any alignment is allowed */
    s->memory = make_memory((uint64_t)words * bytes + shift, 0);
    s->elements = make_memory((uint64_t)(s->rows * s->columns) * 4, 0);
    v->data = s->memory + shift;
    for (int64_t n = 0; n < s->rows; n++) {
        for (int64_t j = 0; j < s->columns; j++) {
            const uint64_t bits = problem_random(1U << 16) << 16 | problem_random(1U << 16);
            const uint32_t element = (uint32_t)(bits & ((UINT64_C(1) << element_bits) - 1));
            static const uint32_t awq[] = {0, 4, 1, 5, 2, 6, 3, 7};
            uint32_t field = (uint32_t)((by_n ? n : j) % per_word);
            field = v->order == KRY_ORDER_AWQ ? awq[field] : field;
            const int64_t word =
                (by_n ? n / per_word : n) * v->n_stride + (by_n ? j : j / per_word) * v->j_stride;
            const uint64_t placed = (uint64_t)element << (field * element_bits);
            for (uint32_t b = 0; b < bytes; b++) {
                s->memory[shift + word * bytes + b] |= (unsigned char)(placed >> (8 * b));
            }
            s->elements[n * s->columns + j] = element;
        }
    }
}

static void stored_discard(struct stored *s) {
    free(s->memory);
    free(s->elements);
}

static uint32_t stored_element(const struct stored *s, int64_t n, int64_t j) {
    return s->elements[(n + s->view.n_begin) * s->columns + j + s->view.j_begin];
}

static void stored_codes_become_canonical(void **state) {
    (void)state;
    for (int i = 0; i < 150; i++) {
        const int64_t rows = 1 + problem_random(300);
        const int64_t columns = 1 + problem_random(300);
        const uint32_t bits = i % 3 == 0 ? 8 : 4;
        const int64_t per_word = 32 / bits;
        struct stored stored;
        stored_make(&stored, rows, columns, bits, true);
        const int64_t n_begin = problem_random(2) != 0 ? rows / 16 * 8 : rows / 3;
        const int64_t words = (columns + per_word - 1) / per_word;
        const int64_t count = (rows - n_begin) * words;
        uint32_t *to = make_memory((uint64_t)count * 4, 0xEE);
        const struct gpu_canonicalise_codes_params params = {
            .from = stored.view,
            .to = to,
            .n_begin = n_begin,
            .n_end = rows,
            .columns = columns,
            .words = words,
            .bits = bits,
        };
        const struct gpu_launch launch = gpu_launch_canonicalise_codes(rows - n_begin, words);
        device_codes(&launch, &params);
        for (int64_t n = n_begin; n < rows; n++) {
            for (int64_t k = 0; k < columns; k++) {
                const uint32_t word = to[(n - n_begin) * words + k / per_word];
                const uint32_t code = word >> bits * (uint32_t)(k % per_word) & ((1U << bits) - 1);
                assert_int_equal(code, stored_element(&stored, n, k));
            }
        }
        free(to);
        stored_discard(&stored);
    }
}

/* Scales, and zero points that are stored as they are; groups finer than stored ones as well. */
static void stored_groups_become_canonical(void **state) {
    (void)state;
    for (int i = 0; i < 60; i++) {
        const int64_t rows = 1 + problem_random(200);
        const int64_t groups = 1 + problem_random(100);
        const uint32_t bits[] = {16, 32, 4, 8};
        const uint32_t element_bits = bits[i % 4];
        const bool is_zeros = i % 4 >= 2;
        const int64_t times = 1 + problem_random(3); /* as many new groups of a stored one */
        struct stored stored;
        stored_make(&stored, rows, groups, element_bits, is_zeros);
        const uint64_t size = is_zeros ? 1 : element_bits / 8;
        unsigned char *to = make_memory((uint64_t)(rows * groups) * size, 0xEE);
        const struct gpu_canonicalise_groups_params params = {
            .from = stored.view,
            .to = to,
            .n_end = rows,
            .to_groups = groups,
            .to_size = 16,
            .from_size = 16 * times,
            .zero_bits = is_zeros ? element_bits : 0,
            .identity = times == 1,
        };
        const struct gpu_launch launch = is_zeros ? gpu_launch_canonicalise_zeros(rows, groups)
                                                  : gpu_launch_canonicalise_scales(rows, groups);
        device_groups(&launch, &params);
        for (int64_t at = 0; at < rows * groups; at++) {
            uint32_t value = 0;
            memcpy(&value, to + (uint64_t)at * size, size);
            assert_int_equal(value, stored_element(&stored, at / groups, at % groups / times));
        }
        free(to);
        stored_discard(&stored);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stored_codes_become_canonical),
        cmocka_unit_test(stored_groups_become_canonical),
    };
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODULE WAVE\n", argv[0]);
        return 2;
    }
    device_load(argv[1], (uint32_t)atoi(argv[2]));
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
