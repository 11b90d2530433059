/*
 * The gates of the rows that this plugin stands in for, replayed: whatever a row took, the plugin
 * takes. The rows are those of vLLM's lists of mixed-precision kernels, each as its
 * can_implement has it: TritonW4A16, Conch and Exllama.
 */
#include "kernel.h"
#include "shapes.h"
#include "weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *platform;
    uint32_t arch;
} devices[] = {{"cuda", 75},    {"cuda", 80},     {"cuda", 86},     {"cuda", 89},
               {"cuda", 90},    {"cuda", 100},    {"cuda", 120},    {"rocm", 0x90a},
               {"rocm", 0x942}, {"rocm", 0x1100}, {"rocm", 0x1151}, {"rocm", 0x1200},
               {"rocm", 0x1201}};
enum { DEVICES = sizeof devices / sizeof devices[0] };

/* ---- the rows ----------------------------------------------------------------------------------
 */

static bool is_among(int64_t value, const int64_t *values, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (values[i] == value)
            return true;
    return false;
}

/* 4 bits, with and without zero points; N % 8; groups of 32 to 256, or one a channel; the shard
 * holds whole groups. */
static bool triton_w4a16(const kry_linear *l) {
    static const int64_t groups[] = {-1, 32, 64, 128, 256};
    return (l->weight_type == KRY_WEIGHT_U4B8 || l->weight_type == KRY_WEIGHT_U4) &&
           (l->x_type == KRY_TYPE_F16 || l->x_type == KRY_TYPE_BF16) && !l->act_order &&
           l->out_features % 8 == 0 && is_among(l->group_size, groups, 5) &&
           (l->group_size < 0 || l->in_features % l->group_size == 0);
}

/* 4 and 8 bits, with and without zero points; groups of 128, or one a channel; no alignment. */
static bool conch(const kry_linear *l) {
    return (l->x_type == KRY_TYPE_F16 || l->x_type == KRY_TYPE_BF16) && !l->act_order &&
           (l->group_size == -1 || l->group_size == 128);
}

/* Biased types, f16 alone; N a multiple of a word's codes; act-order unless K is split. */
static bool exllama(const kry_linear *l) {
    int64_t per_word = 32 / kry_weight_bits(l->weight_type);
    return !kry_weight_has_zero_points(l->weight_type) && l->x_type == KRY_TYPE_F16 &&
           l->out_features % per_word == 0 &&
           (!l->act_order || l->in_features == l->full_in_features) &&
           (l->group_size < 0 || l->in_features % l->group_size == 0);
}

static const struct {
    const char *name;
    bool (*takes)(const kry_linear *linear);
} rows[] = {{"TritonW4A16", triton_w4a16}, {"Conch", conch}, {"Exllama", exllama}};
enum { ROWS = sizeof rows / sizeof rows[0] };

/* ---- replaying ---------------------------------------------------------------------------------
 */

static bool takes(size_t device_index, const kry_linear *linear, kry_refusal *refusal) {
    kry_device device = {.struct_size = sizeof device,
                         .ordinal = -1,
                         .flags = KRY_DEVICE_HYPOTHETICAL,
                         .arch_number = devices[device_index].arch};
    *refusal = (kry_refusal){.struct_size = sizeof *refusal};
    snprintf(device.platform, sizeof device.platform, "%s", devices[device_index].platform);
    return gpu_linear_kernel.can_implement(&device, linear, refusal) >= 0;
}

static void expect_taken(const kry_linear *linear, const char *who) {
    kry_refusal refusal;
    for (size_t i = 0; i < DEVICES; i++)
        if (!takes(i, linear, &refusal))
            fail_msg("%s on %s %u: refused, code %u, %s", who, devices[i].platform, devices[i].arch,
                     refusal.code,
                     refusal.sentence != NULL ? refusal.sentence : "without a sentence");
}

/* One random description of the kind that the rows tell apart. */
static kry_linear draw(uint64_t *seed) {
    static const int64_t groups[] = {-1, 16, 32, 64, 96, 128, 256, 1024};
    kry_linear l = weights_linear(
        1 + (int64_t)(weights_random(seed) % 16384), 1 + (int64_t)(weights_random(seed) % 16384),
        groups[weights_random(seed) % 8], KRY_WEIGHT_U4B8 + (uint32_t)(weights_random(seed) % 4));
    uint64_t choice = weights_random(seed);
    l.x_type = l.scale_type = l.y_type = choice & 1 ? KRY_TYPE_F16 : KRY_TYPE_BF16;
    l.act_order = (choice & 6) == 6;
    if (choice & 8) /* aligned more often than by chance */
        l.out_features = (l.out_features + 63) / 64 * 64;
    if ((choice & 16) && l.group_size > 0)
        l.in_features = (l.in_features + l.group_size - 1) / l.group_size * l.group_size;
    l.full_in_features = l.in_features;
    l.full_out_features = l.out_features;
    if ((choice & 96) == 96) { /* a later shard, perhaps inside a group */
        l.k_offset = (int64_t)(weights_random(seed) % 4096);
        l.full_in_features = l.k_offset + l.in_features + 32;
    }
    return l;
}

static void layer_that_a_row_takes_is_taken(void **state) {
    uint64_t seed = 5;
    int64_t taken[ROWS] = {0}, left_to_us = 0;
    (void)state;
    for (int i = 0; i < 20000; i++) {
        kry_linear linear = draw(&seed);
        bool any = false;
        for (size_t r = 0; r < ROWS; r++)
            if (rows[r].takes(&linear)) {
                expect_taken(&linear, rows[r].name);
                taken[r]++;
                any = true;
            }
        expect_taken(&linear, "what no row takes");
        left_to_us += !any;
    }
    for (size_t r = 0; r < ROWS; r++)
        assert_true(taken[r] > 500); /* the gate was really tried */
    assert_true(left_to_us > 500);
}

/* What serving stacks bring: every shape of the project's file that keeps activations as they are,
 * on GPUs in 16 bits. */
static void shape_of_the_projects_file_is_taken(void **state) {
    struct shapes shapes;
    size_t asked = 0;
    (void)state;
    assert_int_equal(shapes_read(SHAPES_FILE, NULL, &shapes), KRY_OK);
    for (size_t i = 0; i < shapes.count; i++) {
        const kry_linear *linear = &shapes.items[i].linear;
        if (linear->activation_quantization != KRY_ACTIVATION_NONE ||
            linear->x_type == KRY_TYPE_F32) /* meant for CPUs; refused aloud on GPUs */
            continue;
        expect_taken(linear, shapes.items[i].name);
        asked++;
    }
    assert_true(asked >= 28);
    shapes_free(&shapes);
}

static void shape_with_quantized_or_f32_activations_is_refused_with_the_reason(void **state) {
    struct shapes shapes;
    kry_refusal refusal;
    size_t refused = 0;
    (void)state;
    assert_int_equal(shapes_read(SHAPES_FILE, NULL, &shapes), KRY_OK);
    for (size_t i = 0; i < shapes.count; i++) {
        const kry_linear *linear = &shapes.items[i].linear;
        if (linear->activation_quantization != KRY_ACTIVATION_NONE) {
            assert_false(takes(0, linear, &refusal));
            assert_int_equal(refusal.code, KRY_REFUSAL_ACTIVATION_QUANTIZATION);
            refused++;
        } else if (linear->x_type == KRY_TYPE_F32) {
            assert_false(takes(0, linear, &refusal));
            assert_int_equal(refusal.code, KRY_REFUSAL_X_TYPE);
            refused++;
        }
    }
    assert_int_equal(refused, 3);
    shapes_free(&shapes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layer_that_a_row_takes_is_taken),
        cmocka_unit_test(shape_of_the_projects_file_is_taken),
        cmocka_unit_test(shape_with_quantized_or_f32_activations_is_refused_with_the_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
