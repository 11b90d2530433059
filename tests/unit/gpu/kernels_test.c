/*
 * The device source of the GPU plugin, run on the SIMT layer over small shapes with every launch
 * that plan.c may choose, against a product in double that shares nothing with it.
 *
 * usage: test_gpu_kernels MODULE WAVE ARCH
 *
 * ARCH is the number of an architecture: 80 for sm_80, 0x942 for gfx942.
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
#include "tensor_map.h"

static uint32_t arch;
static uint32_t family;

/* ---- a prepared layer ---------------------------------------------------------------------- */

struct layer {
    struct problem problem;
    struct gpu_layout layout;
    unsigned char *prepared;
};

static void *make_bytes(uint64_t bytes, int fill) {
    void *memory = NULL;
    if (posix_memalign(&memory, KRY_ALIGNMENT, bytes != 0 ? bytes : 1) != 0) {
        fail_msg("no memory for %llu bytes", (unsigned long long)bytes);
    }
    memset(memory, fill, bytes);
    return memory;
}

/* Prepare rows [n_begin, n_end) on the device, as plan.h says; scratch of that range alone. */
static void prepare_range(const struct layer *layer, int64_t n_begin, int64_t n_end) {
    const struct problem *p = &layer->problem;
    const struct gpu_layout *layout = &layer->layout;
    unsigned char *scratch = make_bytes(gpu_prepare_scratch_bytes(layout), 0xCD);
    unsigned char *tables = n_begin == 0 ? layer->prepared : scratch;
    uint32_t *header = (uint32_t *)(void *)(tables + layout->header_at);
    int32_t *source = (int32_t *)(void *)(tables + layout->source_at);
    if (layout->act_order) {
        const struct gpu_sort_params params = {
            .layout = *layout,
            .g_idx = p->g_idx,
            .header = header,
            .source = source,
            .block_group = (uint32_t *)(void *)(tables + layout->block_group_at),
            .cursor = (uint32_t *)(void *)(scratch + layout->scales_at),
        };
        const struct gpu_launch launch = gpu_launch_sort(layout);
        device_sort(&launch, &params);
    } else if (layout->gathered && n_begin == 0) {
        const struct gpu_fill_source_params params = {*layout, header, source};
        const struct gpu_launch launch = gpu_launch_fill_source(layout);
        device_fill_source(&launch, &params);
    }
    const struct gpu_repack_params params = {
        .layout = *layout,
        .qweight = p->qweight + n_begin * p->words,
        .scales = p->scales + n_begin * p->groups,
        .zero_points = p->zero_points != NULL ? p->zero_points + n_begin * p->groups : NULL,
        .source = layout->act_order ? source : NULL,
        .prepared = layer->prepared,
        .qweight_stride = p->words,
        .scale_stride = p->groups,
        .zero_stride = p->groups,
        .n_begin = n_begin,
        .n_end = n_end,
        .scale_bytes = 2,
    };
    const struct gpu_launch codes = gpu_launch_repack_codes(layout, n_end - n_begin);
    const struct gpu_launch scales = gpu_launch_repack_scales(layout, n_end - n_begin);
    device_repack(&codes, &params);
    device_repack(&scales, &params);
    free(scratch);
}

static void layer_make(struct layer *layer, const kry_linear *linear) {
    problem_make(&layer->problem, linear);
    layer->layout = gpu_layout_of(linear);
    layer->prepared = make_bytes(layer->layout.bytes, 0xEE);
    prepare_range(layer, 0, linear->out_features);
}

static void layer_discard(struct layer *layer) {
    problem_discard(&layer->problem);
    free(layer->prepared);
}

/* ---- an apply ------------------------------------------------------------------------------ */

static void describe(char *text, size_t size, const kry_linear *l, const struct gpu_plan *plan,
                     const struct call *call) {
    snprintf(text, size,
             "%s splits %d, %lld x %lld offset %lld group %lld weights %u x %u y %u act-order %u, "
             "m %lld, strides %lld %lld",
             plan->main.entry, plan->splits, (long long)l->in_features, (long long)l->out_features,
             (long long)l->k_offset, (long long)l->group_size, l->weight_type, l->x_type, l->y_type,
             l->act_order, (long long)call->m, (long long)call->x_stride,
             (long long)call->y_stride);
}

/* The maps of x that gpu_wide_* reads, as the driver makes them. */
static void run_wide(const struct gpu_plan *plan, const struct gpu_apply_params *apply) {
    enum { UINT16 = 1, SWIZZLE_128B = 3, L2_256B = 3, WIDE_BOX = 64 };
    struct gpu_late_params params = {.wide.apply = *apply};
    struct gpu_tensor_map *made[GPU_MAPS] = {&params.wide.x, &params.more[0], &params.more[1]};
    struct gpu_rows maps[GPU_MAPS];
    const uint32_t ones[] = {1, 1};
    const int32_t count = gpu_plan_maps(plan, apply, maps);
    for (int32_t i = 0; i < count; i++) {
        const struct gpu_rows *rows = &maps[i];
        const uint64_t dimensions[] = {(uint64_t)rows->columns, (uint64_t)rows->rows};
        const int64_t stride = rows->rows == 1 ? (rows->columns + 7) / 8 * 8 : rows->stride;
        const uint64_t strides[] = {(uint64_t)stride * 2};
        const uint32_t box[] = {(uint32_t)rows->box_columns, (uint32_t)rows->box_rows};
        const int swizzle = rows->box_columns == WIDE_BOX ? SWIZZLE_128B : 0;
        void *x = (void *)(uintptr_t)rows->x;
        assert_int_equal(simt_tensor_map_encode(made[i], UINT16, 2, x, dimensions, strides, box,
                                                ones, 0, swizzle, L2_256B, 0),
                         0);
    }
    if (plan->x_late) {
        device_late(&plan->main, &params);
    } else {
        device_wide(&plan->main, &params.wide);
    }
}

/* Run a plan over all rows of a call; a plan that takes fewer at a time is not meant here. */
static void run_plan(const struct layer *layer, const struct gpu_plan *plan,
                     const struct call *call) {
    const kry_linear *linear = &layer->problem.linear;
    unsigned char *scratch = make_bytes(plan->scratch_bytes, 0xFF);
    unsigned char *zeroed = make_bytes(plan->zeroed_bytes, 0);
    const struct gpu_run run = {
        .x = call->x,
        .y = call->y,
        .bias = call->bias,
        .m = call->m,
        .x_stride = call->x_stride,
        .y_stride = call->y_stride,
        .prepared = layer->prepared,
        .scratch = scratch,
        .zeroed = zeroed,
    };
    char what[256];
    describe(what, sizeof what, linear, plan, call);
    assert_true(plan->rows >= call->m);
    if (plan->arranged) {
        const struct gpu_arrange_params params = gpu_plan_arrange(plan, &layer->layout, &run);
        device_arrange(&plan->arrange, &params);
    }
    const struct gpu_apply_params params = gpu_plan_params(plan, linear, &layer->layout, &run);
    if (plan->box_rows != 0) {
        run_wide(plan, &params);
    } else {
        device_apply(&plan->main, &params);
    }
    call_check(call, &layer->problem, what);
    for (uint64_t i = 0; i < plan->zeroed_bytes; i++) {
        if (zeroed[i] != 0) {
            fail_msg("%s: byte %llu of the zeroed workspace is not zero afterwards", what,
                     (unsigned long long)i);
        }
    }
    free(scratch);
    free(zeroed);
}

static struct gpu_facts facts_of(uint32_t multiprocessors) {
    const struct gpu_facts facts = {
        .family = family,
        .arch = arch,
        .multiprocessors = multiprocessors,
        .shared_bytes = 227 * 1024,
    };
    return facts;
}

static const uint32_t weight_types[] = {KRY_WEIGHT_U4B8, KRY_WEIGHT_U4, KRY_WEIGHT_U8B128,
                                        KRY_WEIGHT_U8};
static const uint32_t x_types[] = {KRY_TYPE_F16, KRY_TYPE_BF16};

/* ---- tests --------------------------------------------------------------------------------- */

static void every_entry_is_in_the_module(void **state) {
    (void)state;
    size_t count;
    const char *const *names = gpu_entry_names(family, &count);
    for (size_t i = 0; i < count; i++) {
        if (!device_has(names[i])) {
            fail_msg("no entry %s", names[i]);
        }
    }
}

/* Run the candidate, where it is not more of the same. Kernels that are slow to play are run for a
 * group size of each kind. */
static bool is_wanted(const struct gpu_plan *plan, int64_t group_size, const char *last) {
    const bool is_same = strcmp(last, plan->main.entry) == 0;
    if (strncmp(plan->main.entry, "gpu_stream", 10) != 0) {
        return (group_size == 64 || group_size == 16) && !(is_same && plan->splits > 3);
    }
    return plan->splits == 1;
}

/* Each block tile and split that the planner looks at, whatever it would choose. x begins
 * `x_shift` elements behind a multiple of 16 bytes. */
static void run_candidates(const kry_linear *linear, int64_t m, int64_t x_shift) {
    struct layer layer;
    struct call call;
    struct gpu_plan plan;
    double cost;
    const struct gpu_facts facts = facts_of(4);
    const struct gpu_call planned = {.m = m, .x_unit = x_shift == 0 ? 16 : 2};
    const int64_t k = linear->in_features;
    char last[sizeof plan.main.entry] = "";
    layer_make(&layer, linear);
    for (int32_t i = 0; i < gpu_plan_candidates(&facts, linear); i++) {
        if (!gpu_plan_candidate(&facts, linear, &layer.layout, &planned, i, &plan, &cost)) {
            continue;
        }
        if (is_wanted(&plan, linear->group_size, last)) {
            call_make(&call, &layer.problem, m, (k + 7) / 8 * 8, linear->out_features, x_shift,
                      i % 2);
            run_plan(&layer, &plan, &call);
            call_discard(&call);
        }
        snprintf(last, sizeof last, "%s", plan.main.entry);
    }
    layer_discard(&layer);
}

static void every_candidate_is_right(void **state) {
    static const int64_t group_sizes[] = {128, 64, 32, 16};
    (void)state;
    for (size_t i = 0; i < 32; i++) {
        kry_linear linear = {
            .out_features = 40,
            .group_size = group_sizes[i / 8],
            .weight_type = weight_types[i % 4],
            .x_type = x_types[i / 4 % 2],
            .y_type = x_types[i / 4 % 2],
        };
        if (family == GPU_FAMILY_WGMMA) {
            linear.y_type = KRY_TYPE_F32; /* so that it is streams', see wide_tiles_are_right */
        }
        linear.in_features = linear.group_size == 64 ? 600 : 330;
        problem_complete(&linear);
        run_candidates(&linear, i % 3 == 0 ? 9 : 5, i % 5 == 0);
    }
}

/* Long rows, where blocks of the streaming kernels share an output tile. */
static void splits_of_long_rows_are_right(void **state) {
    (void)state;
    if (family != GPU_FAMILY_MMA && family != GPU_FAMILY_MMA_F16) {
        skip(); /* they have no streaming kernels */
    }
    for (size_t x = 0; x < 2; x++) {
        kry_linear linear = {
            .in_features = 4200,
            .out_features = 24,
            .group_size = 128,
            .weight_type = x == 0 ? KRY_WEIGHT_U4 : KRY_WEIGHT_U8,
            .x_type = x_types[x],
            .y_type = KRY_TYPE_F32,
        };
        if (family == GPU_FAMILY_MMA_F16 && linear.x_type == KRY_TYPE_BF16) {
            continue;
        }
        struct layer layer;
        problem_complete(&linear);
        layer_make(&layer, &linear);
        const struct gpu_facts facts = facts_of(16);
        const struct gpu_call planned = {.m = 3, .x_unit = 16};
        struct gpu_plan plan;
        double cost;
        int split_streams = 0;
        for (int32_t i = 0; i < gpu_plan_candidates(&facts, &linear); i++) {
            if (!gpu_plan_candidate(&facts, &linear, &layer.layout, &planned, i, &plan, &cost) ||
                strncmp(plan.main.entry, "gpu_stream", 10) != 0 || plan.splits == 1) {
                continue;
            }
            struct call call;
            call_make(&call, &layer.problem, 3, 4200, 24, 0, 0);
            run_plan(&layer, &plan, &call);
            call_discard(&call);
            split_streams++;
        }
        assert_true(split_streams > 0);
        layer_discard(&layer);
    }
}

/* ---- gpu_wide_* ---------------------------------------------------------------------------- */

enum { WIDE_KINDS = 8 };

/* Every kind of groups, the shortest and some longer rows, and shards that begin inside a group;
 * few places and features where there are many rows. `turn` goes through types and shapes. */
static kry_linear wide_linear(size_t kind, size_t turn, int64_t m) {
    static const int64_t group_sizes[WIDE_KINDS] = {-1, 128, 64, 32, 16, 48, 100, 32};
    static const int64_t in_features[] = {64, 330, 90, 200, 520, 1100};
    static const int64_t out_features[] = {130, 1, 40, 63, 300};
    kry_linear linear = {
        .in_features = in_features[(kind + turn) % (m > 33 ? 4 : 6)],
        .out_features = out_features[(kind + 2 * turn) % (m > 17 ? 4 : 5)],
        .group_size = group_sizes[kind],
        .weight_type = weight_types[(kind + turn) % 4],
        .x_type = x_types[(kind + turn + turn / 3) % 2],
        .y_type = KRY_TYPE_BF16,
        .act_order = kind == WIDE_KINDS - 1,
    };
    if (linear.x_type == KRY_TYPE_F16 && (kind + turn) % 3 != 0) {
        linear.y_type = KRY_TYPE_F16;
    }
    if (linear.group_size > 0 && (kind + turn) % 5 < 3) {
        linear.k_offset = (1 + problem_random(300)) * (turn % 2 == 0 ? 1 : 4);
    }
    problem_complete(&linear);
    return linear;
}

struct wide_run {
    const struct layer *layer;
    int64_t m;
    int64_t x_stride;
    int64_t y_stride;
    int64_t shift;
    int has_bias;
    bool only_late; /* the tiles that take x as it is, where every second row is late */
};

static void run_wide_plan(const struct wide_run *r, const struct gpu_plan *plan) {
    struct call call;
    assert_int_equal(strncmp(plan->main.entry, plan->x_late ? "gpu_late" : "gpu_wide", 8), 0);
    call_make(&call, &r->layer->problem, r->m, r->x_stride, r->y_stride, r->shift, r->has_bias);
    run_plan(r->layer, plan, &call);
    call_discard(&call);
}

/* Each block tile that the planner looks at, with a cluster of up to `cluster` blocks. */
static void run_wide_tiles(const struct wide_run *r, uint32_t at_once, int32_t cluster) {
    struct gpu_facts facts = facts_of(132);
    const kry_linear *linear = &r->layer->problem.linear;
    const struct gpu_call planned =
        gpu_call_of((void *)(uintptr_t)(r->shift * 2), r->x_stride, r->m);
    struct gpu_plan chosen = {0};
    struct gpu_plan plan;
    double cost;
    for (int32_t i = 0; i < 2 * GPU_CLUSTER_MAX; i++) {
        facts.clusters[i / GPU_CLUSTER_MAX][i % GPU_CLUSTER_MAX] = (uint16_t)at_once;
    }
    for (int32_t i = 0; i < gpu_plan_candidates(&facts, linear); i++) {
        if (!gpu_plan_candidate(&facts, linear, &r->layer->layout, &planned, i, &plan, &cost)) {
            continue;
        }
        if (r->only_late && !plan.x_late) {
            continue;
        }
        const bool is_other = chosen.tile_m != plan.tile_m || chosen.tile_n != plan.tile_n;
        if (chosen.tile_m != 0 && is_other) {
            run_wide_plan(r, &chosen);
        }
        if (is_other || plan.splits <= cluster) {
            chosen = plan;
        }
    }
    assert_int_not_equal(chosen.tile_m, 0);
    run_wide_plan(r, &chosen);
}

/* Rows around the edges of tiles; one to three clusters at a time, so that most of them go on to a
 * second output tile. */
static void wide_tiles_are_right(void **state) {
    static const int64_t rows[] = {1, 8, 9, 16, 17, 33, 65, 129, 257};
    static const int64_t beyond[] = {3, 5, 2, 1};
    enum { ROWS = sizeof rows / sizeof rows[0] };
    (void)state;
    if (family != GPU_FAMILY_WGMMA) {
        skip();
    }
    for (size_t j = 0; j < ROWS; j++) {
        for (size_t kind = 0; kind < WIDE_KINDS; kind++) {
            const kry_linear linear = wide_linear(kind, j, rows[j]);
            const size_t turn = kind * ROWS + j;
            const int64_t k = linear.in_features;
            struct layer layer;
            layer_make(&layer, &linear);
            const struct wide_run run = {
                .layer = &layer,
                .m = rows[j],
                .x_stride = turn % 4 == 0 ? k + beyond[turn / 4 % 4]
                                          : (k + 7) / 8 * 8 + (int64_t)(turn % 3) * 8,
                .y_stride = linear.out_features + (int64_t)(turn % 3),
                .shift = turn % 7 == 0 ? 1 << (rows[j] == 1 ? 0 : turn / 7 % 3) : 0,
                .has_bias = turn % 2 == 0,
            };
            run_wide_tiles(&run, 1 + (uint32_t)(turn % 3), 1 + (int32_t)(turn % GPU_CLUSTER_MAX));
            layer_discard(&layer);
        }
    }
}

/* x at multiples of 8 bytes, every second row of 16, that is not put in order: even or odd rows are
 * late, through one output tile and several, and K ends anywhere in a stage. */
static void late_rows_are_moved(void **state) {
    static const int64_t rows[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 64};
    static const int64_t in_features[] = {1100, 68, 252, 140, 3644};
    enum {
        ROWS = sizeof rows / sizeof rows[0],
        COLUMNS = sizeof in_features / sizeof *in_features
    };
    (void)state;
    if (family != GPU_FAMILY_WGMMA) {
        skip();
    }
    for (size_t i = 0; i < ROWS * COLUMNS; i++) {
        const int64_t m = rows[i / COLUMNS];
        if (m > 17 && in_features[i % COLUMNS] > 1000 && i % 2 == 0) {
            continue; /* slow to play */
        }
        kry_linear linear = {
            .in_features = in_features[i % COLUMNS],
            .out_features = i % 2 == 0 ? 130 : 60,
            .group_size = i % 3 == 0 ? 64 : 128,
            .weight_type = weight_types[i % 4],
            .x_type = x_types[i / 4 % 2],
            .y_type = x_types[i / 4 % 2],
        };
        struct layer layer;
        problem_complete(&linear);
        layer_make(&layer, &linear);
        const struct wide_run run = {
            .layer = &layer,
            .m = m,
            .x_stride = linear.in_features,
            .y_stride = linear.out_features,
            .shift = m == 1 || i % 3 == 0 ? 4 : 0,
            .only_late = true,
        };
        run_wide_tiles(&run, 1 + (uint32_t)(i % 3), 1 + (int32_t)(i % GPU_CLUSTER_MAX));
        layer_discard(&layer);
    }
}

/* ---- whatever ------------------------------------------------------------------------------ */

static kry_linear random_linear(void) {
    static const int64_t group_sizes[] = {16, 24, 32, 48, 64, 100, 128, -1};
    kry_linear linear = {
        .in_features = 1 + problem_random(300),
        .out_features = 1 + problem_random(60),
        .group_size = group_sizes[problem_random(8)],
        .weight_type = weight_types[problem_random(4)],
        .x_type = x_types[problem_random(2)],
        .y_type = KRY_TYPE_F16 + problem_random(3),
        .act_order = problem_random(4) == 0,
    };
    if (linear.group_size > 0 && problem_random(2) != 0) {
        linear.k_offset = problem_random(200);
    }
    problem_complete(&linear);
    return linear;
}

static void random_shapes_are_right(void **state) {
    (void)state;
    for (int i = 0; i < 120; i++) {
        const kry_linear linear = random_linear();
        const int64_t m = problem_random(3) == 0 ? 1 + problem_random(70) : 1 + problem_random(9);
        const int64_t x_stride = linear.in_features + problem_random(12);
        struct layer layer;
        struct call call;
        struct gpu_plan plan;
        layer_make(&layer, &linear);
        call_make(&call, &layer.problem, m, problem_random(2) ? x_stride : (x_stride + 7) / 8 * 8,
                  linear.out_features + problem_random(3),
                  problem_random(2) ? problem_random(8) : 0, problem_random(2) != 0);
        const struct gpu_facts facts = facts_of(1 + problem_random(40));
        const struct gpu_call planned = gpu_call_of(call.x, call.x_stride, m);
        gpu_plan_of(&facts, &linear, &layer.layout, &planned, &plan);
        run_plan(&layer, &plan, &call);
        call_discard(&call);
        layer_discard(&layer);
    }
}

/* A code where layout.h says that column k of feature n lies. */
static uint32_t prepared_code(const struct layer *layer, int64_t n, int64_t place) {
    const struct gpu_code_place at = gpu_place_of_code(&layer->layout, n, place);
    const uint32_t byte = layer->prepared[layer->layout.codes_at + at.byte];
    return byte >> at.shift & (layer->layout.bits == 4 ? 15U : 255U);
}

static uint32_t canonical_code(const struct problem *p, int64_t n, int64_t k) {
    const uint32_t bits = (uint32_t)kry_weight_bits(p->linear.weight_type);
    const int64_t per_word = 32 / bits;
    return p->qweight[n * p->words + k / per_word] >> bits * (uint32_t)(k % per_word) &
           ((1U << bits) - 1);
}

static void codes_lie_where_the_layout_says(void **state) {
    (void)state;
    for (int i = 0; i < 60; i++) {
        kry_linear linear = random_linear();
        linear.out_features += 64 * problem_random(2);
        linear.in_features += 256 * problem_random(2);
        problem_complete(&linear);
        struct layer layer;
        layer_make(&layer, &linear);
        const struct gpu_layout *l = &layer.layout;
        const int32_t *source =
            l->gathered ? (const int32_t *)(const void *)(layer.prepared + l->source_at) : NULL;
        for (int64_t n = 0; n < l->n_panels * GPU_PANEL_N; n++) {
            for (int64_t place = 0; place < l->k_tiles * GPU_TILE_K; place++) {
                const int64_t k = source != NULL ? source[place] : gpu_column_of_place(l, place);
                const uint32_t code =
                    n < linear.out_features && k >= 0 ? canonical_code(&layer.problem, n, k) : 0;
                assert_int_equal(prepared_code(&layer, n, place), code);
            }
        }
        layer_discard(&layer);
    }
}

static void ranges_prepare_what_the_whole_does(void **state) {
    (void)state;
    for (int i = 0; i < 40; i++) {
        kry_linear linear = random_linear();
        linear.out_features += 50;
        problem_complete(&linear);
        struct layer layer;
        layer_make(&layer, &linear);
        unsigned char *whole = layer.prepared;
        layer.prepared = make_bytes(layer.layout.bytes, 0xEE);
        for (int64_t n = 0; n < linear.out_features; n += GPU_PANEL_N) {
            const int64_t end = n + GPU_PANEL_N;
            prepare_range(&layer, n, end < linear.out_features ? end : linear.out_features);
        }
        assert_memory_equal(layer.prepared, whole, layer.layout.bytes);
        free(whole);
        layer_discard(&layer);
    }
}

/* Those that canonicalise are the platform's, see stored_test.c. */
static void every_entry_of_the_kernel_was_run(void **state) {
    (void)state;
    size_t count;
    size_t missed = 0;
    const char *const *names = gpu_entry_names(family, &count);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(names[i], "gpu_canonicalise", 16) != 0 && !device_has_run(names[i])) {
            print_error("never run: %s\n", names[i]);
            missed++;
        }
    }
    assert_int_equal(missed, 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_entry_is_in_the_module),
        cmocka_unit_test(every_candidate_is_right),
        cmocka_unit_test(splits_of_long_rows_are_right),
        cmocka_unit_test(wide_tiles_are_right),
        cmocka_unit_test(late_rows_are_moved),
        cmocka_unit_test(random_shapes_are_right),
        cmocka_unit_test(codes_lie_where_the_layout_says),
        cmocka_unit_test(ranges_prepare_what_the_whole_does),
        cmocka_unit_test(every_entry_of_the_kernel_was_run),
    };
    if (argc != 4) {
        fprintf(stderr, "usage: %s MODULE WAVE ARCH\n", argv[0]);
        return 2;
    }
    device_load(argv[1], (uint32_t)atoi(argv[2]));
    kry_device device = {.struct_size = sizeof device,
                         .arch_number = (uint32_t)strtoul(argv[3], NULL, 0)};
    strcpy(device.platform, device.arch_number < 0x900 ? "cuda" : "rocm");
    arch = device.arch_number;
    family = gpu_facts_of(&device).family;
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
