/* What prepare writes on the host, element by element against layout.h's functions. */
#include "kernel.h"
#include "message.h"
#include "weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { POISON = 0xa5, GAP = 3 };

static const kry_device device = {
    .struct_size = sizeof(kry_device), .platform = "cuda", .arch = "sm_90", .arch_number = 90};
static const kry_host host = {.struct_size = sizeof(kry_host)};

/* Prepared weights with what is needed to read them. */
struct prepared {
    struct weights weights;
    struct gpu_layout layout;
    kry_sizes sizes;
    unsigned char *bytes, *scratch;
};

static kry_status prepare(const struct prepared *p, int64_t n_begin, int64_t n_end) {
    kry_canonical rows = weights_range(&p->weights, n_begin, n_end);
    kry_prepare_call call = {.struct_size = sizeof call,
                             .device = &device,
                             .linear = &p->weights.linear,
                             .weights = &rows,
                             .prepared = p->bytes,
                             .scratch = p->scratch,
                             .host = &host};
    memset(p->scratch, POISON, p->sizes.prepare_scratch_bytes);
    return gpu_linear_kernel.prepare_weights(&call);
}

static void make(struct prepared *p, const kry_linear *linear, uint64_t seed) {
    *p = (struct prepared){.sizes = {.struct_size = sizeof p->sizes}};
    weights_make(&p->weights, linear, GAP, seed);
    assert_int_equal(gpu_linear_kernel.sizes(&device, linear, &p->sizes), KRY_OK);
    p->layout = gpu_layout_of(linear);
    assert_true(p->sizes.prepared_bytes == p->layout.bytes);
    p->bytes = malloc(p->sizes.prepared_bytes);
    p->scratch = malloc(p->sizes.prepare_scratch_bytes + 1);
    assert_non_null(p->bytes);
    assert_non_null(p->scratch);
    memset(p->bytes, POISON, p->sizes.prepared_bytes);
}

static void clear(struct prepared *p) {
    weights_free(&p->weights);
    free(p->bytes);
    free(p->scratch);
}

static uint32_t code_at(const struct prepared *p, int64_t n, int64_t place) {
    struct gpu_code_place at = gpu_place_of_code(&p->layout, n, place);
    uint32_t mask = p->layout.bits == 4 ? 15 : 255;
    return (uint32_t)p->bytes[p->layout.codes_at + at.byte] >> at.shift & mask;
}

static const int32_t *source_of(const struct prepared *p) {
    return (const int32_t *)(const void *)(p->bytes + p->layout.source_at);
}

/* The column at a place, by the table where there is one. */
static int64_t column_at(const struct prepared *p, int64_t place) {
    return p->layout.gathered ? source_of(p)[place] : gpu_column_of_place(&p->layout, place);
}

static void check_codes(const struct prepared *p) {
    const kry_linear *linear = &p->weights.linear;
    for (int64_t n = 0; n < p->layout.n_panels * GPU_PANEL_N; n++) {
        int64_t columns = 0;
        for (int64_t place = 0; place < p->layout.k_tiles * GPU_TILE_K; place++) {
            int64_t k = column_at(p, place);
            bool exists = k >= 0 && n < linear->out_features;
            uint32_t expected = exists ? p->weights.codes[n * linear->in_features + k] : 0;
            columns += k >= 0;
            if (code_at(p, n, place) != expected)
                fail_msg("code of feature %d, place %d (column %d) is %u, expected %u", (int)n,
                         (int)place, (int)k, code_at(p, n, place), expected);
        }
        assert_int_equal(columns, linear->in_features);
    }
}

static void check_groups(const struct prepared *p) {
    const kry_linear *linear = &p->weights.linear;
    const kry_canonical *rows = &p->weights.rows;
    const uint16_t *scales = (const uint16_t *)(const void *)(p->bytes + p->layout.scales_at);
    for (int64_t n = 0; n < p->layout.n_panels * GPU_PANEL_N; n++)
        for (int64_t g = 0; g < p->layout.groups; g++) {
            uint64_t place = gpu_scale_place(&p->layout, n, g);
            bool exists = n < linear->out_features;
            assert_int_equal(scales[place],
                             exists ? ((const uint16_t *)rows->scales)[n * rows->scale_stride + g]
                                    : 0);
            if (p->layout.has_zeros)
                assert_int_equal(p->bytes[p->layout.zeros_at + place],
                                 exists ? rows->zero_points[n * rows->zero_stride + g] : 0);
        }
}

/* Every column once; each place in a block of its column's group. */
static void check_places(const struct prepared *p) {
    const kry_linear *linear = &p->weights.linear;
    const uint32_t *header = (const uint32_t *)(const void *)(p->bytes + p->layout.header_at);
    const uint32_t *blocks = (const uint32_t *)(const void *)(p->bytes + p->layout.block_group_at);
    char *seen = calloc((size_t)linear->in_features, 1);
    assert_non_null(seen);
    int64_t before = -1, last_place = 0;
    for (int64_t place = 0; place < p->layout.k_tiles * GPU_TILE_K; place++) {
        int64_t k = column_at(p, place), block = place / GPU_BLOCK_K;
        if (k < 0)
            continue;
        assert_true(k < linear->in_features && !seen[k]);
        seen[k] = 1;
        last_place = place;
        if (!linear->act_order) {
            assert_true(k > before);
            assert_int_equal(gpu_group_of_block(&p->layout, block), kry_linear_group_of(linear, k));
            assert_int_equal(gpu_place_of_column(&p->layout, k), place);
        } else {
            assert_int_equal(blocks[block], p->weights.rows.g_idx[k]);
            bool same = before >= 0 && p->weights.rows.g_idx[before] == p->weights.rows.g_idx[k];
            assert_true(!same || before < k); /* stable */
            assert_true(before < 0 || p->weights.rows.g_idx[before] <= p->weights.rows.g_idx[k]);
        }
        before = k;
    }
    if (p->layout.act_order)
        assert_int_equal(header[0], last_place / GPU_TILE_K + 1);
    else if (p->layout.gathered)
        assert_int_equal(header[0], p->layout.k_tiles);
    free(seen);
}

static void check(const kry_linear *linear, uint64_t seed) {
    struct prepared p;
    make(&p, linear, seed);
    assert_int_equal(prepare(&p, 0, linear->out_features), KRY_OK);
    check_places(&p);
    check_codes(&p);
    check_groups(&p);
    clear(&p);
}

static kry_linear shard(int64_t in_features, int64_t offset, int64_t full, int64_t group_size,
                        uint32_t weight_type) {
    kry_linear linear = weights_linear(in_features, 24, group_size, weight_type);
    linear.k_offset = offset;
    linear.full_in_features = full;
    return linear;
}

static void prepare_every_weight_type_and_size_lands_where_the_layout_says(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 7, 16, 63, 64, 65, 100, 128, 200};
    for (uint32_t type = KRY_WEIGHT_U4B8; type <= KRY_WEIGHT_U8; type++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            kry_linear linear = weights_linear(sizes[i], sizes[8 - i], 32, type);
            check(&linear, type * 100 + i);
            linear.group_size = -1;
            check(&linear, type * 100 + i);
        }
}

static void prepare_odd_groups_are_filled_up_to_blocks(void **state) {
    (void)state;
    static const int64_t groups[] = {1, 3, 15, 17, 24, 40};
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        kry_linear linear = weights_linear(130, 20, groups[i], KRY_WEIGHT_U4);
        check(&linear, i);
    }
}

static void prepare_partition_that_starts_inside_a_group_is_padded_in_front(void **state) {
    (void)state;
    static const int64_t offsets[] = {1, 8, 16, 31, 32, 33, 95};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        kry_linear linear = shard(161, offsets[i], 512, 64, KRY_WEIGHT_U4B8);
        check(&linear, i);
        linear = shard(161, offsets[i], 512, 24, KRY_WEIGHT_U8);
        check(&linear, i);
    }
    kry_linear within = shard(20, 70, 512, 64, KRY_WEIGHT_U4B8); /* one group, and part of it */
    check(&within, 9);
}

static void prepare_act_order_sorts_columns_by_group(void **state) {
    (void)state;
    static const int64_t groups[] = {16, 32, 100, 1000};
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        kry_linear linear =
            shard(201, 300, 999, groups[i], i % 2 ? KRY_WEIGHT_U4 : KRY_WEIGHT_U8B128);
        linear.act_order = 1;
        check(&linear, i);
    }
}

static void prepare_in_ranges_of_any_order_writes_what_one_range_writes(void **state) {
    (void)state;
    for (uint32_t kind = 0; kind < 3; kind++) {
        kry_linear linear = weights_linear(150, 213, kind == 1 ? 24 : 32, KRY_WEIGHT_U4);
        struct prepared whole, parts;
        linear.act_order = kind == 2;
        make(&whole, &linear, 5);
        make(&parts, &linear, 5);
        assert_int_equal(prepare(&whole, 0, 213), KRY_OK);
        assert_int_equal(prepare(&parts, 192, 213), KRY_OK);
        assert_int_equal(parts.bytes[0], POISON); /* the first range brings what belongs to all */
        assert_int_equal(prepare(&parts, 0, 64), KRY_OK);
        assert_int_equal(prepare(&parts, 64, 192), KRY_OK);
        assert_memory_equal(whole.bytes, parts.bytes, whole.sizes.prepared_bytes);
        /* Nothing depends on what the memory held. */
        memset(parts.bytes, ~POISON, parts.sizes.prepared_bytes);
        assert_int_equal(prepare(&parts, 0, 213), KRY_OK);
        assert_memory_equal(whole.bytes, parts.bytes, whole.sizes.prepared_bytes);
        clear(&whole);
        clear(&parts);
    }
}

static void prepare_range_that_cannot_be_is_refused(void **state) {
    (void)state;
    kry_linear linear = weights_linear(64, 100, 32, KRY_WEIGHT_U4B8);
    struct prepared p;
    make(&p, &linear, 1);
    assert_int_equal(prepare(&p, 16, 100), KRY_E_ARGUMENT);
    assert_int_equal(prepare(&p, 0, 80), KRY_E_ARGUMENT);
    assert_non_null(strstr(gpu_error_message(), "0 to 80, expected multiples of 64"));
    assert_int_equal(p.bytes[0], POISON);
    assert_int_equal(prepare(&p, 64, 64), KRY_OK);
    assert_int_equal(p.bytes[p.layout.codes_at], POISON); /* no feature, nothing written */
    clear(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prepare_every_weight_type_and_size_lands_where_the_layout_says),
        cmocka_unit_test(prepare_odd_groups_are_filled_up_to_blocks),
        cmocka_unit_test(prepare_partition_that_starts_inside_a_group_is_padded_in_front),
        cmocka_unit_test(prepare_act_order_sorts_columns_by_group),
        cmocka_unit_test(prepare_in_ranges_of_any_order_writes_what_one_range_writes),
        cmocka_unit_test(prepare_range_that_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
