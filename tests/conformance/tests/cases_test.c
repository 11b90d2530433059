/*
 * The list of descriptions: valid, the same each time, and with what it promises to hold.
 */
#include "cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static int64_t take_all(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    (void)linear;
    (void)refusal;
    return KRY_ACCEPTED;
}

static int64_t take_multiples(const kry_device *device, const kry_linear *linear,
                              kry_refusal *refusal) {
    (void)device;
    if (linear->x_type != KRY_TYPE_BF16)
        return kry_refuse(refusal, KRY_REFUSAL_X_TYPE, linear->x_type, 1 << KRY_TYPE_BF16, NULL);
    if (linear->in_features % 128 != 0)
        return kry_refuse(refusal, KRY_REFUSAL_K_ALIGNMENT, linear->in_features, 128, NULL);
    if (linear->out_features % 24 != 0)
        return kry_refuse(refusal, KRY_REFUSAL_N_ALIGNMENT, linear->out_features, 24, NULL);
    return KRY_ACCEPTED;
}

static int64_t take_one(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    if (linear->in_features != 2112 || linear->out_features != 2816)
        return kry_refuse(refusal, KRY_REFUSAL_SIZE, linear->in_features, 2112, NULL);
    return KRY_ACCEPTED;
}

static const kry_linear_kernel one = {.struct_size = sizeof one, .can_implement = take_one};
static const kry_linear_kernel all = {.struct_size = sizeof all, .can_implement = take_all};
static const kry_linear_kernel multiples = {.struct_size = sizeof multiples,
                                            .can_implement = take_multiples};

static const kry_device device = {.struct_size = sizeof device, .platform = "cpu"};

static struct items make(const kry_linear_kernel *functions, uint64_t seed, bool quick) {
    struct conformance_plan plan = {.device = &device, .seed = seed, .quick = quick};
    struct items items;
    items_make(&plan, functions, &items);
    assert_false(items.failed);
    return items;
}

static void list_holds_valid_descriptions_alone(void **state) {
    (void)state;
    struct items items = make(&all, 0, false);
    assert_true(items.count > 1000);
    for (int64_t i = 0; i < items.count; i++) {
        kry_linear completed = KRY_INIT(kry_linear);
        assert_int_equal(kry_linear_complete(&items.items[i].linear, &completed), KRY_OK);
        assert_memory_equal(&completed, &items.items[i].linear, sizeof completed);
        assert_int_equal(items.items[i].number, i);
    }
    items_free(&items);
}

static int64_t count_accepted(const kry_linear_kernel *functions, const struct items *items) {
    int64_t count = 0;
    for (int64_t i = 0; i < items->count; i++)
        count += accepts(functions, &device, &items->items[i].linear, NULL);
    return count;
}

static void kernel_of_one_shape_is_tried_on_it(void **state) {
    (void)state;
    struct items items = make(&one, 0, true); /* its twins are smaller */
    assert_true(count_accepted(&one, &items) >= 1);
    items_free(&items);
}

static void list_depends_on_the_seed_and_nothing_else(void **state) {
    (void)state;
    struct items first = make(&all, 3, true), again = make(&all, 3, true),
                 other = make(&all, 4, true);
    assert_int_equal(first.count, again.count);
    assert_int_equal(first.count, other.count);
    int64_t different = 0;
    for (int64_t i = 0; i < first.count; i++) {
        assert_memory_equal(&first.items[i].linear, &again.items[i].linear, sizeof(kry_linear));
        different +=
            memcmp(&first.items[i].linear, &other.items[i].linear, sizeof(kry_linear)) != 0;
    }
    assert_true(different > 0);
    items_free(&first);
    items_free(&again);
    items_free(&other);
}

/* How many of the list's accepted descriptions have something. */
struct tally {
    int64_t types[5][4][4][4]; /* weight, scale, x, y */
    int64_t inside_group, short_last, act_order_part, smallest, one_by_one, accepted;
    int64_t int8_wanted, fp8_wanted, int8_allowed;
};

static struct tally count(const struct items *items, const kry_linear_kernel *functions) {
    struct tally t = {0};
    for (int64_t i = 0; i < items->count; i++) {
        const kry_linear *l = &items->items[i].linear;
        if (!accepts(functions, &device, l, NULL))
            continue;
        int64_t group = l->group_size > 0 ? l->group_size : l->in_features + l->k_offset;
        t.accepted++;
        t.types[l->weight_type][l->scale_type][l->x_type][l->y_type]++;
        t.inside_group += !l->act_order && l->group_size > 0 && l->k_offset % group != 0;
        t.short_last += !l->act_order && (l->k_offset + l->in_features) % group != 0;
        t.act_order_part += l->act_order && l->in_features < l->full_in_features;
        t.smallest += l->in_features == 128 && l->out_features == 24;
        t.one_by_one += l->in_features == 1 && l->out_features == 1;
        t.int8_wanted += l->activation_quantization == KRY_ACTIVATION_INT8_TOKEN;
        t.fp8_wanted += l->activation_quantization == KRY_ACTIVATION_FP8_E4M3_TOKEN;
        t.int8_allowed += l->allowed == KRY_ALLOW_INT8_ACTIVATIONS;
    }
    return t;
}

static void list_holds_every_mix_of_types_and_every_kind_of_group(void **state) {
    (void)state;
    struct items items = make(&all, 0, true);
    struct tally t = count(&items, &all);
    for (int weight = 1; weight <= 4; weight++)
        for (int scale = 1; scale <= 3; scale++)
            for (int x = 1; x <= 3; x++)
                for (int y = 1; y <= 3; y++)
                    assert_true(t.types[weight][scale][x][y] > 0);
    assert_true(t.inside_group > 10);
    assert_true(t.short_last > 30);
    assert_true(t.act_order_part > 10);
    assert_true(t.one_by_one > 0);
    assert_true(t.int8_wanted > 0 && t.fp8_wanted > 0 && t.int8_allowed > 0);
    items_free(&items);
}

static void list_holds_the_smallest_that_a_picky_kernel_takes(void **state) {
    (void)state;
    struct items items = make(&multiples, 0, true);
    struct tally t = count(&items, &multiples);
    assert_true(t.smallest > 0);
    assert_true(t.accepted > 100); /* though it takes one type and few multiples */
    assert_true(t.types[KRY_WEIGHT_U8][KRY_TYPE_F32][KRY_TYPE_BF16][KRY_TYPE_F16] > 0);
    items_free(&items);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(list_holds_valid_descriptions_alone),
        cmocka_unit_test(list_depends_on_the_seed_and_nothing_else),
        cmocka_unit_test(kernel_of_one_shape_is_tried_on_it),
        cmocka_unit_test(list_holds_every_mix_of_types_and_every_kind_of_group),
        cmocka_unit_test(list_holds_the_smallest_that_a_picky_kernel_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
