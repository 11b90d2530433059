/*
 * The layout of the tuned kernels: places, segments, and what preparing writes, against a plain
 * reading of plugins/cpu/tiled/layout.h.
 */
#include "problem.h"

#include <plugins/cpu/tiled/tiled.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct problem problem; /* the running test's: teardown releases it after a failure */

static int teardown_problem(void **state) {
    (void)state;
    problem_destroy(&problem);
    return 0;
}

static int64_t can_implement(const kry_device *device, const kry_linear *linear,
                             kry_refusal *refusal) {
    (void)device;
    return tiled_can_implement(linear, refusal);
}

static kry_status workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                            kry_workspace *out) {
    (void)device, (void)linear, (void)m, (void)out;
    return KRY_OK;
}

/* A kernel that only prepares. */
static const kry_linear_kernel kernel = {.struct_size = sizeof(kry_linear_kernel),
                                         .can_implement = can_implement,
                                         .sizes = tiled_sizes,
                                         .workspace = workspace,
                                         .prepare_weights = tiled_prepare,
                                         .bind = tiled_bind};

/* Descriptions: weight types x group sizes x where the partition starts x act-order x lengths. */
static const int64_t group_sizes[] = {-1, 8, 16, 24, 32, 100, 128, 600, 1200};
static const int64_t offsets[] = {0, 5, 16, 130};
static const int64_t lengths[] = {1, 7, 8, 9, 33, 130, 513, 1100};
enum { GROUP_SIZES = 9, OFFSETS = 4, LENGTHS = 8, MIXES = 4 * GROUP_SIZES * OFFSETS * 2 * LENGTHS };

static kry_linear description(uint32_t i) {
    kry_linear linear = linear_of(lengths[i % LENGTHS], 1 + i % 37);
    i /= LENGTHS;
    linear.act_order = i % 2, i /= 2;
    linear.k_offset = offsets[i % OFFSETS], i /= OFFSETS;
    linear.group_size = group_sizes[i % GROUP_SIZES], i /= GROUP_SIZES;
    linear.weight_type = 1 + i;
    linear.scale_type = 1 + (uint32_t)linear.out_features % 3;
    linear.full_in_features = linear.k_offset + linear.in_features + 70;
    return linear;
}

static void create(uint32_t i) {
    struct problem_options options = {.seed = i, .linear = description(i)};
    problem_create(&problem, &kernel, &options);
}

static void places_of_codes_are_each_their_own_and_fill_the_buffer(void **state) {
    (void)state;
    for (uint32_t i = 0; i < MIXES; i += 2 * LENGTHS - 1) {
        kry_linear linear = description(i);
        struct tiled_shape shape = tiled_shape_of(&linear);
        uint32_t bits = shape.octet_bytes == 64 ? 4 : 8;
        uint64_t fields = (shape.bytes - shape.codes_at) * 8 / bits;
        uint8_t *taken = calloc(fields, 1);
        assert_non_null(taken);
        assert_int_equal(fields, shape.tiles * TILE_N * shape.octets * OCTET);
        for (int64_t n = 0; n < shape.tiles * TILE_N; n++)
            for (int64_t octet = 0; octet < shape.octets; octet++)
                for (int32_t column = 0; column < OCTET; column++) {
                    struct tiled_place at = tiled_code_place(&shape, n, octet, column);
                    uint64_t field = (at.byte - shape.codes_at) * 8 / bits + at.shift / bits;
                    assert_true(at.byte >= shape.codes_at && field < fields);
                    assert_int_equal(taken[field]++, 0);
                }
        free(taken);
    }
}

static void parts_of_the_buffer_lie_apart_at_multiples_of_64(void **state) {
    (void)state;
    for (uint32_t i = 0; i < MIXES; i++) {
        kry_linear linear = description(i);
        struct tiled_shape s = tiled_shape_of(&linear);
        uint64_t features = (uint64_t)(s.tiles * TILE_N), groups = (uint64_t)s.groups;
        assert_int_equal((s.counts_at | s.order_at | s.scales_at | s.zeros_at | s.codes_at) % 64,
                         0);
        if (linear.act_order) {
            assert_true(s.order_at >= s.counts_at + groups * 4);
            assert_true(s.scales_at >= s.order_at + (uint64_t)s.octets * OCTET * 4);
        }
        assert_true(s.zeros_at >= s.scales_at + features * groups * (uint64_t)s.scale_bytes);
        if (kry_weight_has_zero_points(linear.weight_type))
            assert_true(s.codes_at >= s.zeros_at + features * groups);
        assert_true(s.codes_at >= s.zeros_at);
    }
}

/* The segments that bind fills, and the column of x at each of their places, -1 for none. */
struct columns {
    const struct tiled_bound *bound;
    int32_t *at; /* [octets * 8] */
};

static struct columns columns_of(const struct problem *of) {
    kry_binding binding = KRY_INIT(kry_binding);
    binding.linear = &of->is.linear;
    binding.prepared = of->prepared.data;
    binding.bound = of->bound.data;
    assert_int_equal(tiled_bind(&binding), KRY_OK);
    const struct tiled_bound *bound = binding.bound;
    assert_true(sizeof(*bound) + (size_t)bound->segment_count * sizeof(bound->segments[0]) <=
                of->bound.bytes);
    int64_t places = bound->shape.octets * OCTET;
    int32_t *at = malloc((size_t)places * sizeof(at[0]));
    assert_non_null(at);
    memset(at, 0xff, (size_t)places * sizeof(at[0]));
    for (int64_t i = 0; i < bound->segment_count; i++) {
        const struct tiled_segment *s = &bound->segments[i];
        for (int32_t c = 0; c < s->column_count; c++) {
            int32_t place = s->octet_begin * OCTET + c;
            at[place] = bound->order != NULL ? bound->order[place] : s->column_begin + c;
        }
    }
    return (struct columns){bound, at};
}

static void segments_hold_each_column_once_in_its_group(void **state) {
    (void)state;
    for (uint32_t i = 0; i < MIXES; i++) {
        create(i);
        int64_t K = problem.is.linear.in_features, octet = 0;
        assert_int_equal(problem_prepare(&problem, &kernel, 0, problem.is.linear.out_features),
                         KRY_OK);
        struct columns columns = columns_of(&problem);
        uint8_t *seen = calloc((size_t)K, 1);
        assert_non_null(seen);
        for (int64_t j = 0; j < columns.bound->segment_count; j++) {
            const struct tiled_segment *s = &columns.bound->segments[j];
            assert_int_equal(s->octet_begin, octet);
            assert_in_range(s->octet_count, 1, SEGMENT_OCTETS);
            assert_int_equal(s->octet_count, (s->column_count + OCTET - 1) / OCTET);
            octet += s->octet_count;
            for (int32_t c = 0; c < s->column_count; c++) {
                int32_t k = columns.at[s->octet_begin * OCTET + c];
                assert_in_range(k, 0, K - 1);
                assert_int_equal(seen[k]++, 0);
                assert_int_equal(problem.group_of[k], s->group);
            }
        }
        assert_true(octet <= columns.bound->shape.octets);
        assert_true(columns.bound->segment_count <= tiled_segments_max(&problem.is.linear));
        assert_null(memchr(seen, 0, (size_t)K));
        free(seen);
        free(columns.at);
        problem_destroy(&problem);
    }
}

static int code_at(const struct tiled_shape *shape, const uint8_t *prepared, int64_t n,
                   int64_t place) {
    struct tiled_place at = tiled_code_place(shape, n, place / OCTET, (int32_t)(place % OCTET));
    return prepared[at.byte] >> at.shift & (shape->octet_bytes == 64 ? 15 : 255);
}

/* The prepared codes of feature n, those of no column and of no feature being 0. */
static void check_codes(const struct columns *columns, int64_t n) {
    const struct tiled_segment *last = &columns->bound->segments[columns->bound->segment_count - 1];
    int64_t places = (last->octet_begin + last->octet_count) * OCTET;
    for (int64_t place = 0; place < places; place++) {
        int64_t k = columns->at[place];
        int expected = n < problem.is.linear.out_features && k >= 0
                           ? problem.codes[n * problem.is.linear.in_features + k]
                           : 0;
        assert_int_equal(code_at(&columns->bound->shape, problem.prepared.data, n, place),
                         expected);
    }
}

static void check_groups(const struct tiled_shape *shape, int64_t n) {
    const kry_linear *linear = &problem.is.linear;
    bool exists = n < linear->out_features;
    for (int64_t g = 0; g < problem.groups; g++) {
        int64_t place = (int64_t)tiled_group_place(shape, n, g);
        uint32_t scale =
            element_bits(linear->scale_type, problem.prepared.data + shape->scales_at, place);
        assert_int_equal(scale, exists ? element_bits(linear->scale_type, problem.scales.data,
                                                      n * problem.scale_stride + g)
                                       : 0);
        if (problem.zero_points.data != NULL)
            assert_int_equal(problem.prepared.data[shape->zeros_at + (uint64_t)place],
                             exists ? problem.zero_points.data[n * problem.zero_stride + g] : 0);
    }
}

static void prepare_puts_codes_scales_and_zero_points_in_their_places(void **state) {
    (void)state;
    for (uint32_t i = 0; i < MIXES; i++) {
        create(i);
        assert_int_equal(problem_prepare(&problem, &kernel, 0, problem.is.linear.out_features),
                         KRY_OK);
        struct columns columns = columns_of(&problem);
        const struct tiled_shape *shape = &columns.bound->shape;
        for (int64_t n = 0; n < shape->tiles * TILE_N; n++) {
            check_codes(&columns, n);
            check_groups(shape, n);
        }
        problem_check_bounds(&problem);
        free(columns.at);
        problem_destroy(&problem);
    }
}

static void prepare_in_ranges_writes_what_prepare_at_once_does(void **state) {
    (void)state;
    for (uint32_t i = 0; i < MIXES; i += 3) {
        create(i);
        int64_t N = problem.is.linear.out_features;
        assert_int_equal(problem_prepare(&problem, &kernel, 0, N), KRY_OK);
        uint8_t *whole = malloc(problem.prepared.bytes);
        assert_non_null(whole);
        memcpy(whole, problem.prepared.data, problem.prepared.bytes);
        guarded_fill(&problem.prepared, 0xff);
        for (int64_t n = (N - 1) / TILE_N * TILE_N; n >= 0; n -= TILE_N)
            assert_int_equal(problem_prepare(&problem, &kernel, n, n + TILE_N < N ? n + TILE_N : N),
                             KRY_OK);
        assert_memory_equal(problem.prepared.data, whole, problem.prepared.bytes);
        free(whole);
        problem_destroy(&problem);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_of_codes_are_each_their_own_and_fill_the_buffer),
        cmocka_unit_test(parts_of_the_buffer_lie_apart_at_multiples_of_64),
        cmocka_unit_test_teardown(segments_hold_each_column_once_in_its_group, teardown_problem),
        cmocka_unit_test_teardown(prepare_puts_codes_scales_and_zero_points_in_their_places,
                                  teardown_problem),
        cmocka_unit_test_teardown(prepare_in_ranges_writes_what_prepare_at_once_does,
                                  teardown_problem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
