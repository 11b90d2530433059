/*
 * The list of descriptions, family by family.
 *
 * A family that is not about types settles for types that the kernel takes, so that a kernel
 * of bf16 alone is tried on as many shapes as one of everything, and for multiples of its
 * smallest shape. What is still refused then stays in the list: a refusal is checked, too.
 */
#include "cases.h"

#include "random.h"
#include "synthetic.h"

#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Streams of the seed, apart from those of synthetic.c. */
enum { STREAM_RANDOM_SHAPES = 100 };

/* The list as it is being made. */
struct making {
    const struct conformance_plan *plan;
    const kry_linear_kernel *functions;
    struct items *items;
    int64_t k_unit, n_unit; /* the first smallest shape that was found */
};

bool accepts(const kry_linear_kernel *functions, const kry_device *device, const kry_linear *linear,
             kry_refusal *refusal) {
    kry_refusal unread;
    if (refusal == NULL)
        refusal = &unread;
    *refusal = (kry_refusal){.struct_size = sizeof *refusal};
    return functions->can_implement(device, linear, refusal) >= 0;
}

/* Whether the kernel that the list is made for takes a description. */
static bool takes(const struct making *making, const kry_linear *linear) {
    return accepts(making->functions, making->plan->device, linear, NULL);
}

static void append(struct items *items, const kry_linear *linear, const char *family) {
    if (items->count == items->capacity) {
        int64_t capacity = items->capacity > 0 ? 2 * items->capacity : 1024;
        struct item *grown = realloc(items->items, (size_t)capacity * sizeof *grown);
        if (grown == NULL) {
            items->failed = true;
            return;
        }
        items->items = grown;
        items->capacity = capacity;
    }
    items->items[items->count] = (struct item){*linear, family, items->count};
    items->count++;
}

/* What the kernel may want of activations: as they are, or quantized in one of three ways. */
enum { MODES = 4 };

static void set_mode(kry_linear *linear, int mode) {
    static const uint32_t wanted[MODES] = {KRY_ACTIVATION_NONE, KRY_ACTIVATION_NONE,
                                           KRY_ACTIVATION_INT8_TOKEN,
                                           KRY_ACTIVATION_FP8_E4M3_TOKEN};
    linear->activation_quantization = wanted[mode];
    linear->allowed = mode == 1 ? KRY_ALLOW_INT8_ACTIVATIONS : 0;
}

static void set_type(kry_linear *linear, uint32_t type) {
    linear->x_type = linear->y_type = linear->scale_type = type;
}

/* Fill in the defaults; every description that is made here is valid. */
static kry_linear complete(const kry_linear *linear) {
    kry_linear out = {.struct_size = sizeof out};
    if (kry_linear_complete(linear, &out) != KRY_OK)
        abort();
    return out;
}

static int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

/* As it is, or with its sizes, or its offset as well, rounded up to what the kernel takes. */
static bool fit(const struct making *making, kry_linear *linear) {
    if (takes(making, linear))
        return true;
    kry_linear other = *linear;
    int64_t after = linear->full_in_features - linear->in_features - linear->k_offset;
    for (int offset = 0; offset < 2; offset++) {
        other.in_features = round_up(linear->in_features, making->k_unit);
        other.out_features = other.full_out_features =
            round_up(linear->out_features, making->n_unit);
        if (offset)
            other.k_offset = round_up(linear->k_offset, making->k_unit);
        other.full_in_features = other.k_offset + other.in_features + after;
        if (takes(making, &other)) {
            *linear = other;
            return true;
        }
    }
    return false;
}

/* Take the kernel's types and multiples where it refuses those of the description. */
static kry_linear settle(const struct making *making, const kry_linear *given) {
    kry_linear linear = complete(given);
    if (fit(making, &linear))
        return linear;
    for (int mode = 0; mode < MODES; mode++)
        for (uint32_t i = 0; i < 3; i++) {
            kry_linear other = linear;
            set_type(&other, (given->x_type + i - 1) % 3 + 1);
            set_mode(&other, mode);
            if (fit(making, &other))
                return other;
        }
    return linear;
}

static void add(struct making *making, const kry_linear *linear, const char *family) {
    kry_linear settled = settle(making, linear);
    append(making->items, &settled, family);
}

static kry_linear describe(int64_t k, int64_t n, int64_t group_size, uint32_t weight_type,
                           uint32_t type) {
    return (kry_linear){.struct_size = sizeof(kry_linear),
                        .in_features = k,
                        .out_features = n,
                        .group_size = group_size,
                        .weight_type = weight_type,
                        .scale_type = type,
                        .x_type = type,
                        .y_type = type};
}

/* ---- the smallest ------------------------------------------------------------------------ */

/* A size that is a multiple of all that kernels ask for. */
enum { LARGE = 32256 };

/* Tell the least K and N that the kernel takes, all else as it is. */
static bool find_smallest(const struct making *making, kry_linear *linear) {
    if (!takes(making, linear))
        return false;
    kry_linear smaller = *linear;
    for (int64_t k = 1; k <= LARGE; k++) {
        smaller.in_features = smaller.full_in_features = k;
        if (takes(making, &smaller))
            break;
    }
    for (int64_t n = 1; n <= LARGE; n++) {
        smaller.out_features = smaller.full_out_features = n;
        if (takes(making, &smaller))
            break;
    }
    *linear = smaller;
    return takes(making, linear);
}

static void add_smallest(struct making *making) {
    static const int64_t groups[] = {32, -1, 128, 16};
    static const struct {
        int64_t times_k, plus_k, times_n, plus_n;
    } beside[] = {{1, 0, 1, 0}, {1, 1, 1, 0}, {1, 0, 1, 1},  {1, -1, 1, 0}, {1, 0, 1, -1},
                  {2, 0, 2, 0}, {2, 1, 1, 0}, {1, 0, 2, -1}, {3, 0, 1, 0},  {1, 0, 3, 0}};
    for (uint32_t weight = KRY_WEIGHT_U4B8; weight <= KRY_WEIGHT_U8; weight++)
        for (uint32_t g = 0; g < COUNT(groups); g++) {
            kry_linear linear = describe(LARGE, LARGE, groups[g], weight, (weight + g) % 3 + 1);
            linear = settle(making, &linear);
            if (!find_smallest(making, &linear))
                continue;
            if (making->k_unit == 1 && making->n_unit == 1) {
                making->k_unit = linear.in_features;
                making->n_unit = linear.out_features;
            }
            for (size_t i = 0; i < COUNT(beside); i++) {
                int64_t k = linear.in_features * beside[i].times_k + beside[i].plus_k;
                int64_t n = linear.out_features * beside[i].times_n + beside[i].plus_n;
                kry_linear other = linear;
                other.in_features = other.full_in_features = k;
                other.out_features = other.full_out_features = n;
                if (k > 0 && n > 0)
                    append(making->items, &other, "smallest");
            }
        }
}

/* ---- types --------------------------------------------------------------------------------- */

/* One description for each mix of types, on a shape that the kernel takes, awkward ones first. */
static void add_types(struct making *making) {
    enum { AWKWARD = 6 }; /* the others are aligned */
    static const struct {
        int64_t k, n, group_size;
    } shapes[] = {{72, 20, 32}, {130, 8, 128}, {136, 33, -1},  {48, 24, 24},
                  {35, 19, 7},  {64, 16, 16},  {128, 64, 128}, {256, 128, 32}};
    uint64_t mix = 0;
    for (uint32_t weight = KRY_WEIGHT_U4B8; weight <= KRY_WEIGHT_U8; weight++)
        for (uint32_t scale = KRY_TYPE_F16; scale <= KRY_TYPE_F32; scale++)
            for (uint32_t x = KRY_TYPE_F16; x <= KRY_TYPE_F32; x++)
                for (uint32_t y = KRY_TYPE_F16; y <= KRY_TYPE_F32; y++)
                    for (int mode = 0; mode < MODES; mode++) {
                        kry_linear linear = {0};
                        for (size_t i = 0; i < COUNT(shapes); i++) {
                            size_t at = i < AWKWARD ? (mix + i) % AWKWARD : i;
                            linear = describe(shapes[at].k, shapes[at].n, shapes[at].group_size,
                                              weight, x);
                            linear.scale_type = scale;
                            linear.y_type = y;
                            set_mode(&linear, mode);
                            linear = complete(&linear);
                            if (fit(making, &linear))
                                break;
                        }
                        append(making->items, &linear, "types");
                        mix++;
                    }
}

/* ---- edges, groups, partitions ------------------------------------------------------------- */

/* One below, at and one above the multiples that kernels are built on. */
static void add_edges(struct making *making) {
    static const int64_t groups[] = {32, -1, 16, 128, 24};
    enum { UNITS = 5, EDGES = 3 * UNITS };
    int64_t edges[EDGES];
    for (int i = 0; i < EDGES; i++)
        edges[i] = (INT64_C(8) << (i / 3)) + i % 3 - 1;
    uint32_t mix = 0;
    for (int i = 0; i < EDGES; i++)
        for (int j = 0; j < EDGES; j++) {
            if (making->plan->quick && (7 * i + j) % 5 != 0)
                continue;
            kry_linear linear = describe(edges[i], edges[j], groups[mix % COUNT(groups)],
                                         (mix / 5) % 4 + 1, mix % 3 + 1);
            add(making, &linear, "edges");
            mix++;
        }
}

static void add_groups(struct making *making) {
    static const int64_t groups[] = {16, 24, 32, 64, 128, -1, 1, 7, 33, 100, 256};
    uint32_t mix = 0;
    for (size_t i = 0; i < COUNT(groups); i++)
        for (uint32_t weight = KRY_WEIGHT_U4B8; weight <= KRY_WEIGHT_U8; weight++) {
            int64_t size = groups[i] > 0 ? groups[i] : 520; /* more than one segment's columns */
            const int64_t columns[] = {2 * size, 2 * size + (size + 1) / 2, (size + 1) / 2,
                                       4 * size - 1};
            for (size_t k = 0; k < COUNT(columns); k++, mix++) {
                kry_linear linear =
                    describe(columns[k], 16 + mix % 17, groups[i], weight, mix % 3 + 1);
                if (!making->plan->quick || (k + i + weight) % 2 == 0)
                    add(making, &linear, columns[k] % size != 0 ? "short group" : "groups");
            }
        }
}

/* Row-parallel partitions that begin inside a group, with and without act-order. */
static void add_partitions(struct making *making) {
    static const int64_t groups[] = {16, 24, 32, 64, 128, 7, -1};
    uint32_t mix = 0;
    for (size_t i = 0; i < COUNT(groups); i++) {
        int64_t size = groups[i] > 0 ? groups[i] : 50;
        const int64_t offsets[] = {1, size / 2, size - 1, size + size / 2, 2 * size};
        for (size_t o = 0; o < COUNT(offsets); o++)
            for (uint32_t act_order = 0; act_order < 2; act_order++, mix++) {
                int64_t full = 4 * size + 5;
                const int64_t columns[] = {size, full - offsets[o], size / 2 + 1};
                kry_linear linear = describe(columns[mix / 2 % 3], 8 + mix % 25, groups[i],
                                             mix % 4 + 1, mix % 3 + 1);
                linear.full_in_features = full;
                linear.k_offset = offsets[o];
                linear.act_order = act_order;
                add(making, &linear, act_order ? "act-order partition" : "partition");
            }
        kry_linear linear = describe(3 * size + 1, 33, groups[i], (uint32_t)i % 4 + 1, 1);
        linear.act_order = 1;
        add(making, &linear, "act-order");
    }
}

/* ---- shapes -------------------------------------------------------------------------------- */

/* Layers of models that fast kernels refuse, and aligned ones beside them. Memory and time
 * of a check allow their twins alone: as awkward, but smaller. */
static const struct {
    const char *name;
    int64_t k, n, full_k, k_offset, group_size;
    uint32_t weight_type, x_type, act_order, activation;
} built_in[] = {
    {"q_proj 4096x4096", 4096, 4096, 0, 0, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0, 0},
    {"down_proj 14336x4096", 14336, 4096, 0, 0, 128, KRY_WEIGHT_U4, KRY_TYPE_F16, 0, 0},
    {"act-order 11008x4096", 11008, 4096, 0, 0, 128, KRY_WEIGHT_U4B8, KRY_TYPE_F16, 1, 0},
    {"down_proj 2112x2816", 2112, 2816, 0, 0, 32, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0, 0},
    {"expert 352 of 704", 352, 2816, 704, 352, 64, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0, 0},
    {"fused_qkv 7168x2112", 7168, 2112, 0, 0, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0, 0},
    {"shard 14784 of 29568", 14784, 8192, 29568, 14784, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0, 0},
    {"8-bit 7392 of 29568", 7392, 8192, 29568, 0, -1, KRY_WEIGHT_U8B128, KRY_TYPE_BF16, 0, 0},
    {"down_proj 10944x2048", 10944, 2048, 0, 0, 128, KRY_WEIGHT_U4, KRY_TYPE_F16, 0, 0},
    {"fc2 4304x1152", 4304, 1152, 0, 0, 32, KRY_WEIGHT_U4, KRY_TYPE_BF16, 0, 0},
    {"in_proj 5120x96", 5120, 96, 0, 0, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0, 0},
    {"gate_proj 4096x2736", 4096, 2736, 0, 0, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0, 0},
    {"mlp 2880x2880", 2880, 2880, 0, 0, 32, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0, 0},
    {"expert 192 of 768", 192, 2048, 768, 576, 128, KRY_WEIGHT_U4, KRY_TYPE_F16, 0, 0},
    {"vision 1280x3420", 1280, 3420, 0, 0, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0, 0},
    {"vision 3420x1280", 3420, 1280, 0, 0, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0, 0},
    {"asymmetric 2112x2816", 2112, 2816, 0, 0, 64, KRY_WEIGHT_U8, KRY_TYPE_F16, 0, 0},
    {"small groups", 1024, 1536, 0, 0, 16, KRY_WEIGHT_U4, KRY_TYPE_BF16, 0, 0},
    {"large groups", 4096, 1024, 0, 0, 256, KRY_WEIGHT_U4B8, KRY_TYPE_F16, 0, 0},
    {"4-bit channel", 4096, 1024, 0, 0, -1, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0, 0},
    {"f32 2112x704", 2112, 704, 0, 0, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F32, 0, 0},
    {"act-order 5504 of 11008", 5504, 4096, 11008, 5504, 128, KRY_WEIGHT_U4B8, KRY_TYPE_F16, 1, 0},
    {"fp8 2048x7168", 2048, 7168, 0, 0, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0,
     KRY_ACTIVATION_FP8_E4M3_TOKEN},
    {"int8 4096x11008", 4096, 11008, 0, 0, 128, KRY_WEIGHT_U4B8, KRY_TYPE_BF16, 0,
     KRY_ACTIVATION_INT8_TOKEN},
};

/* The largest twin with no more weights than that. */
static kry_linear scale_to(const kry_linear *linear, int64_t weights) {
    kry_linear twin = *linear;
    for (int64_t divisor = 2; twin.in_features > weights / twin.out_features && divisor < 4096;
         divisor += 1 + divisor / 8)
        twin = synthetic_scale_down(linear, divisor);
    return twin;
}

/* Add a twin with no more weights than that; where the kernel takes the layer, but not the twin,
 * the layer itself, unless that would take minutes. */
static void add_shape(struct making *making, const kry_linear *linear, int64_t weights,
                      const char *family) {
    enum { WEIGHTS_WHOLE = 1 << 24 };
    kry_linear twin = scale_to(linear, weights);
    twin = settle(making, &twin);
    if (!takes(making, &twin) && takes(making, linear) &&
        linear->in_features <= WEIGHTS_WHOLE / linear->out_features)
        twin = *linear;
    append(making->items, &twin, family);
}

static void add_shapes(struct making *making) {
    enum { WEIGHTS_QUICK = 1 << 16, WEIGHTS = 1 << 21 };
    const struct conformance_plan *plan = making->plan;
    int64_t most = plan->quick ? WEIGHTS_QUICK : WEIGHTS;
    for (size_t i = 0; i < plan->shape_count; i++) {
        add_shape(making, &plan->shapes[i].linear, most, plan->shapes[i].name);
    }
    for (size_t i = 0; plan->shapes == NULL && i < COUNT(built_in); i++) {
        kry_linear linear = describe(built_in[i].k, built_in[i].n, built_in[i].group_size,
                                     built_in[i].weight_type, built_in[i].x_type);
        linear.full_in_features = built_in[i].full_k;
        linear.k_offset = built_in[i].k_offset;
        linear.act_order = built_in[i].act_order;
        linear.activation_quantization = built_in[i].activation;
        linear = complete(&linear);
        add_shape(making, &linear, most, built_in[i].name);
    }
}

/* ---- random -------------------------------------------------------------------------------- */

/* A size up to `most`, often a multiple of something. */
static int64_t draw_size(struct random *random, int64_t most) {
    static const int64_t units[] = {1, 1, 2, 8, 16, 32, 64, 128};
    int64_t unit = units[random_below(random, COUNT(units))];
    int64_t size = (1 + (int64_t)random_below(random, (uint64_t)(most / unit))) * unit;
    if (random_below(random, 4) == 0) /* beside a multiple */
        size += (int64_t)random_below(random, 3) - 1;
    return size > 0 ? size : 1;
}

static int64_t draw_group(struct random *random, int64_t k) {
    static const int64_t usual[] = {-1, 16, 32, 64, 128, 24, 8};
    if (random_below(random, 3) > 0)
        return usual[random_below(random, COUNT(usual))];
    return 1 + (int64_t)random_below(random, (uint64_t)k + 8);
}

static kry_linear draw(struct random *random) {
    int64_t k = draw_size(random, random_below(random, 4) > 0 ? 256 : 2048);
    int64_t n = draw_size(random, random_below(random, 4) > 0 ? 128 : 512);
    kry_linear linear = describe(k, n, draw_group(random, k), (uint32_t)random_below(random, 4) + 1,
                                 (uint32_t)random_below(random, 3) + 1);
    if (random_below(random, 2) > 0)
        linear.scale_type = (uint32_t)random_below(random, 3) + 1;
    if (random_below(random, 2) > 0)
        linear.y_type = (uint32_t)random_below(random, 3) + 1;
    set_mode(&linear, (int)random_below(random, MODES));
    linear.act_order = random_below(random, 5) == 0;
    if (random_below(random, 3) == 0) {
        linear.k_offset = (int64_t)random_below(random, 300);
        linear.full_in_features = linear.k_offset + k + (int64_t)random_below(random, 100);
    }
    return complete(&linear);
}

static void add_random(struct making *making) {
    enum { RANDOM_QUICK = 60, RANDOM = 600, DRAWS = 20 };
    struct random random = random_seeded(making->plan->seed, STREAM_RANDOM_SHAPES);
    int count = making->plan->quick ? RANDOM_QUICK : RANDOM;
    for (int i = 0; i < count; i++) {
        kry_linear linear = draw(&random);
        for (int again = 1; again < DRAWS && !takes(making, &linear); again++)
            linear = draw(&random);
        fit(making, &linear);
        append(making->items, &linear, "random");
    }
}

void items_make(const struct conformance_plan *plan, const kry_linear_kernel *functions,
                struct items *out) {
    struct making making = {plan, functions, out, .k_unit = 1, .n_unit = 1};
    *out = (struct items){0};
    add_smallest(&making);
    add_types(&making);
    add_edges(&making);
    add_groups(&making);
    add_partitions(&making);
    add_shapes(&making);
    add_random(&making);
}

void items_free(struct items *items) {
    free(items->items);
    *items = (struct items){0};
}
