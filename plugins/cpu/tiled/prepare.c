/*
 * Canonical weights become tiles: a task a tile, each word rearranged by a few shifts.
 *
 * With act-order a tile's codes are first spread to [K][16] bytes in scratch, so that any column is
 * one vector of its sixteen features; tasks are as many as have such a place.
 *
 * scratch   shape              type   with act-order only
 * cursors   [G]                i32
 * columns   [tasks][K up][16]  u8     K up: to a multiple of 32; 4 MB, or one task's
 */
#include "tiled.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef uint8_t u8x16 __attribute__((vector_size(16)));

enum { ORDER_TASKS = 32, ORDER_BYTES = 4 << 20, SPREAD = 32 /* columns at once */ };

/* Where act-order's scratch has what. */
struct order_scratch {
    int64_t tasks;
    uint64_t columns_at, task_bytes, bytes;
};

static struct order_scratch order_scratch_of(const kry_linear *linear,
                                             const struct tiled_shape *shape) {
    struct order_scratch s = {.columns_at = tiled_align((uint64_t)shape->groups * 4)};
    s.task_bytes = ((uint64_t)linear->in_features + SPREAD - 1) / SPREAD * SPREAD * TILE_N;
    s.tasks = (int64_t)(ORDER_BYTES / s.task_bytes);
    s.tasks = s.tasks < ORDER_TASKS ? s.tasks : ORDER_TASKS;
    s.tasks = s.tasks < shape->tiles ? s.tasks : shape->tiles;
    s.tasks = s.tasks > 1 ? s.tasks : 1;
    s.bytes = s.columns_at + (uint64_t)s.tasks * s.task_bytes;
    return s;
}

struct preparation {
    const kry_prepare_call *call;
    struct tiled_shape shape;
    const int32_t *order; /* NULL without act-order, as what follows is zero */
    int64_t octets;       /* that hold columns */
    struct order_scratch scratch;
};

kry_status tiled_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    (void)device;
    struct tiled_shape shape = tiled_shape_of(linear);
    out->prepared_bytes = shape.bytes;
    out->prepare_scratch_bytes = linear->act_order ? order_scratch_of(linear, &shape).bytes : 0;
    out->bound_bytes = sizeof(struct tiled_bound) +
                       (uint64_t)tiled_segments_max(linear) * sizeof(struct tiled_segment);
    out->prepare_multiple = TILE_N;
    return KRY_OK;
}

/* Sort columns by group: counts of each, and the column at each place, -1 in what fills octets
 * up. */
static void write_order(const kry_prepare_call *call, const struct tiled_shape *shape) {
    int32_t *counts = (int32_t *)((uint8_t *)call->prepared + shape->counts_at);
    int32_t *order = (int32_t *)((uint8_t *)call->prepared + shape->order_at);
    int32_t *cursor = call->scratch;
    const int32_t *g_idx = call->weights->g_idx;
    memset(counts, 0, (size_t)shape->groups * sizeof counts[0]);
    for (int64_t k = 0; k < call->linear->in_features; k++)
        counts[g_idx[k]]++;
    int32_t place = 0;
    for (int64_t g = 0; g < shape->groups; g++) {
        cursor[g] = place;
        place += (counts[g] + OCTET - 1) / OCTET * OCTET;
    }
    memset(order, 0xff, (size_t)shape->octets * OCTET * sizeof order[0]);
    for (int64_t k = 0; k < call->linear->in_features; k++)
        order[cursor[g_idx[k]]++] = (int32_t)k;
}

/* Eight 4-bit codes in sequence to the layout's word: byte b holds k(b) and k(b + 4). */
static uint32_t spread(uint32_t word) {
    uint32_t low = word & 0xffff, high = word >> 16;
    low = (low | low << 8) & 0x00ff00ff;
    high = (high | high << 8) & 0x00ff00ff;
    low = (low | low << 4) & 0x0f0f0f0f;
    high = (high | high << 4) & 0x0f0f0f0f;
    return low | high << 4;
}

/* 32 bits of sequential codes that start at column k of a row with `words` words. */
static uint32_t codes_from(const uint32_t *row, int64_t words, int64_t k, int32_t bits) {
    int64_t bit = k * bits, word = bit / 32;
    uint32_t shift = (uint32_t)(bit % 32);
    uint64_t pair = word < words ? row[word] : 0;
    if (shift > 0 && word + 1 < words)
        pair |= (uint64_t)row[word + 1] << 32;
    return (uint32_t)(pair >> shift);
}

/* One output feature's words of an octet; columns beyond `count` are zeroed. */
static void write_octet(uint8_t *to, const uint32_t *row, int64_t words, int64_t k, int64_t count,
                        int32_t bits) {
    if (bits == 4) {
        uint32_t mask = count < OCTET ? (1u << (uint32_t)count * 4) - 1 : UINT32_MAX;
        uint32_t word = spread(codes_from(row, words, k, 4) & mask);
        memcpy(to, &word, sizeof word);
        return;
    }
    for (int64_t half = 0; half < 2; half++) {
        int64_t left = count - half * 4;
        uint32_t mask = left <= 0 ? 0 : left < 4 ? (1u << (uint32_t)left * 8) - 1 : UINT32_MAX;
        uint32_t word = left > 0 ? codes_from(row, words, k + half * 4, 8) & mask : 0;
        memcpy(to + half * 64, &word, sizeof word);
    }
}

INLINE u8x16 interleave_low(u8x16 a, u8x16 b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

INLINE u8x16 interleave_high(u8x16 a, u8x16 b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                   31);
}

/* Sixteen rows of sixteen bytes, turned: each round halves the distance of neighbours. */
INLINE void turn(u8x16 rows[TILE_N], uint8_t *to) {
    for (int32_t round = 0; round < 4; round++) {
        u8x16 mixed[TILE_N];
        for (int32_t i = 0; i < TILE_N / 2; i++) {
            mixed[2 * i] = interleave_low(rows[i], rows[i + TILE_N / 2]);
            mixed[2 * i + 1] = interleave_high(rows[i], rows[i + TILE_N / 2]);
        }
        memcpy(rows, mixed, sizeof mixed);
    }
    memcpy(to, rows, TILE_N * sizeof rows[0]);
}

/* Spread a tile's codes to [K][16] bytes; where a feature lacks, as the first one's. */
static void spread_columns(const uint32_t *const rows[TILE_N], int32_t features, int64_t words,
                           int32_t bits, uint8_t *to) {
    int64_t bytes = words * 4;
    for (int64_t at = 0; at < bytes; at += 16, to += 128 / bits * TILE_N) {
        size_t count = bytes - at < 16 ? (size_t)(bytes - at) : 16;
        u8x16 first[TILE_N], second[TILE_N];
        for (int32_t n = 0; n < TILE_N; n++) {
            u8x16 codes = {0};
            const uint8_t *from = (const uint8_t *)rows[n < features ? n : 0] + at;
            if (count == 16)
                memcpy(&codes, from, 16);
            else
                memcpy(&codes, from, count);
            first[n] = bits == 8 ? codes : interleave_low(codes & 15, codes >> 4);
            second[n] = interleave_high(codes & 15, codes >> 4);
        }
        turn(first, to);
        if (bits == 4)
            turn(second, to + TILE_N * TILE_N);
    }
}

/* Words of sixteen features whose bytes are those of four vectors. */
INLINE void write_words(const u8x16 bytes[4], uint8_t *to) {
    u8x16 even[2] = {interleave_low(bytes[0], bytes[2]), interleave_high(bytes[0], bytes[2])};
    u8x16 odd[2] = {interleave_low(bytes[1], bytes[3]), interleave_high(bytes[1], bytes[3])};
    for (int32_t i = 0; i < 2; i++) {
        u8x16 words[2] = {interleave_low(even[i], odd[i]), interleave_high(even[i], odd[i])};
        memcpy(to + i * 32, words, sizeof words);
    }
}

/* A tile's words of octets whose columns stand in `order`, -1 for none. */
static void write_octets_by_order(const uint8_t *columns, const int32_t *order, int64_t octets,
                                  int32_t bits, int64_t octet_step, uint8_t *to) {
    static const uint8_t none[TILE_N];
    for (int64_t o = 0; o < octets; o++, order += OCTET, to += octet_step) {
        u8x16 codes[OCTET];
        for (int32_t i = 0; i < OCTET; i++)
            memcpy(&codes[i], order[i] >= 0 ? columns + (int64_t)order[i] * TILE_N : none, TILE_N);
        for (int32_t i = 0; bits == 4 && i < OCTET / 2; i++)
            codes[i] |= codes[i + OCTET / 2] << 4;
        write_words(codes, to);
        if (bits == 8)
            write_words(codes + OCTET / 2, to + 64);
    }
}

/* The codes of a tile's features for `octets` whole octets from column k on: words rearranged in
 * blocks that a compiler vectorizes along each row, then turned. */
static void write_whole_octets(const uint32_t *const rows[TILE_N], int64_t k, int64_t octets,
                               int32_t bits, int64_t octet_step, uint8_t *to) {
    enum { BLOCK = 16, WORD_BYTES = TILE_N * 4 };
    int64_t words = octets * (bits / 4), first = k * bits / 32;
    uint32_t shift = (uint32_t)(k * bits % 32);
    uint32_t block[TILE_N][BLOCK], turned[BLOCK][TILE_N];
    for (int64_t at = 0; at < words; at += BLOCK) {
        int64_t count = words - at < BLOCK ? words - at : BLOCK;
        for (int32_t n = 0; n < TILE_N; n++) {
            const uint32_t *from = rows[n] + first + at;
            for (int64_t i = 0; i < count; i++)
                block[n][i] = shift == 0
                                  ? from[i]
                                  : (uint32_t)((from[i] | (uint64_t)from[i + 1] << 32) >> shift);
            for (int64_t i = 0; bits == 4 && i < BLOCK; i++)
                block[n][i] = spread(block[n][i]);
        }
        for (int32_t i = 0; i < BLOCK; i++)
            for (int32_t n = 0; n < TILE_N; n++)
                turned[i][n] = block[n][i];
        for (int64_t i = 0; i < count; i++) {
            int64_t octet = bits == 4 ? at + i : (at + i) / 2;
            int64_t half = bits == 4 ? 0 : (at + i) % 2 * WORD_BYTES;
            memcpy(to + octet * octet_step + half, turned[i], sizeof turned[i]);
        }
    }
}

/* The next segment together with those after it as long as all their octets are full: columns lie
 * in sequence then, in the row and in the tile. */
static int next_stretch(struct tiled_walk *walk, struct tiled_segment *out) {
    if (!tiled_walk_next(walk, out))
        return 0;
    struct tiled_walk ahead = *walk;
    struct tiled_segment next;
    while (out->column_count == out->octet_count * OCTET && tiled_walk_next(&ahead, &next)) {
        out->octet_count += next.octet_count;
        out->column_count += next.column_count;
        *walk = ahead;
    }
    return 1;
}

/* All codes of a tile of which the first `features` exist. */
static void write_codes(const struct preparation *p, int64_t tile,
                        const uint32_t *const rows[TILE_N], int32_t features) {
    const kry_linear *linear = p->call->linear;
    int32_t bits = kry_weight_bits(linear->weight_type);
    int64_t per_word = 32 / bits, words = (linear->in_features + per_word - 1) / per_word;
    struct tiled_run run = tiled_run_of(&p->shape, tile);
    struct tiled_walk walk;
    struct tiled_segment s;
    tiled_walk_begin(&walk, linear, NULL);
    while (next_stretch(&walk, &s)) {
        uint8_t *to = (uint8_t *)p->call->prepared + run.codes + s.octet_begin * run.octet_step;
        int64_t whole = features == TILE_N ? s.column_count / OCTET : 0;
        if (whole > 0)
            write_whole_octets(rows, s.column_begin, whole, bits, run.octet_step, to);
        for (int64_t o = whole; o < s.octet_count; o++)
            for (int32_t n = 0; n < features; n++) {
                write_octet(to + o * run.octet_step + n * 4, rows[n], words,
                            s.column_begin + o * OCTET, s.column_count - o * OCTET, bits);
            }
    }
}

/* The same with act-order, with a place for the tile's columns. */
static void write_codes_by_order(const struct preparation *p, int64_t tile,
                                 const uint32_t *const rows[TILE_N], int32_t features,
                                 uint8_t *columns) {
    const kry_linear *linear = p->call->linear;
    int32_t bits = kry_weight_bits(linear->weight_type);
    int64_t per_word = 32 / bits, words = (linear->in_features + per_word - 1) / per_word;
    struct tiled_run run = tiled_run_of(&p->shape, tile);
    spread_columns(rows, features, words, bits, columns);
    write_octets_by_order(columns, p->order, p->octets, bits, run.octet_step,
                          (uint8_t *)p->call->prepared + run.codes);
}

/* Scales and zero points of a tile's features. */
static void write_groups(const struct preparation *p, int64_t tile, int32_t features) {
    const kry_canonical *from = p->call->weights;
    uint8_t *to = p->call->prepared;
    int64_t row = tile * TILE_N - from->n_begin;
    struct tiled_run run = tiled_run_of(&p->shape, tile);
    for (int64_t g = 0; g < p->shape.groups; g++) {
        uint64_t place = run.groups + (uint64_t)(g * run.group_step);
        int64_t source = row * from->scale_stride + g;
        if (p->shape.scale_bytes == 4)
            for (int32_t n = 0; n < features; n++, source += from->scale_stride)
                ((uint32_t *)(to + p->shape.scales_at))[place + (uint64_t)n] =
                    ((const uint32_t *)from->scales)[source];
        else
            for (int32_t n = 0; n < features; n++, source += from->scale_stride)
                ((uint16_t *)(to + p->shape.scales_at))[place + (uint64_t)n] =
                    ((const uint16_t *)from->scales)[source];
        for (int32_t n = 0; from->zero_points != NULL && n < features; n++)
            to[p->shape.zeros_at + place + (uint64_t)n] =
                from->zero_points[(row + n) * from->zero_stride + g];
    }
}

/* What lies beyond out_features: codes, scales and zero points of 0. */
static void clear_feature(const struct preparation *p, int64_t n) {
    uint8_t *to = (uint8_t *)p->call->prepared;
    size_t bytes = (size_t)p->shape.scale_bytes;
    for (int64_t g = 0; g < p->shape.groups; g++) {
        uint64_t place = tiled_group_place(&p->shape, n, g);
        memset(to + p->shape.scales_at + place * bytes, 0, bytes);
        if (p->call->weights->zero_points != NULL)
            to[p->shape.zeros_at + place] = 0;
    }
    for (int64_t o = 0; o < p->shape.octets; o++) {
        uint8_t *word = to + tiled_code_place(&p->shape, n, o, 0).byte;
        memset(word, 0, 4);
        if (p->shape.octet_bytes == 128)
            memset(word + 64, 0, 4);
    }
}

static void prepare_tile(const struct preparation *p, int64_t i, uint8_t *columns) {
    const kry_canonical *from = p->call->weights;
    int64_t begin = from->n_begin + i * TILE_N;
    int64_t left = p->call->linear->out_features - begin;
    int32_t features = left < TILE_N ? (int32_t)left : TILE_N;
    const uint32_t *rows[TILE_N];
    for (int32_t n = 0; n < features; n++)
        rows[n] = from->qweight + (begin + n - from->n_begin) * from->qweight_stride;
    write_groups(p, begin / TILE_N, features);
    if (p->order != NULL)
        write_codes_by_order(p, begin / TILE_N, rows, features, columns);
    else
        write_codes(p, begin / TILE_N, rows, features);
    for (int32_t n = features; n < TILE_N; n++)
        clear_feature(p, begin + n);
}

static int64_t tiles_of(const struct preparation *p) {
    const kry_canonical *from = p->call->weights;
    return (from->n_end - from->n_begin + TILE_N - 1) / TILE_N;
}

static void prepare_in_sequence(void *argument, int64_t i) { prepare_tile(argument, i, NULL); }

/* Tiles i, i + tasks and so on, in one place for columns. */
static void prepare_by_order(void *argument, int64_t i) {
    const struct preparation *p = argument;
    uint8_t *columns =
        (uint8_t *)p->call->scratch + p->scratch.columns_at + (uint64_t)i * p->scratch.task_bytes;
    for (int64_t tile = i; tile < tiles_of(p); tile += p->scratch.tasks)
        prepare_tile(p, tile, columns);
}

kry_status tiled_prepare(const kry_prepare_call *call) {
    struct preparation p = {.call = call, .shape = tiled_shape_of(call->linear)};
    if (call->linear->act_order) {
        /* Every range writes the same, so that ranges may come in any order. */
        write_order(call, &p.shape);
        p.order = (const int32_t *)((const uint8_t *)call->prepared + p.shape.order_at);
        p.scratch = order_scratch_of(call->linear, &p.shape);
        const int32_t *counts =
            (const int32_t *)((const uint8_t *)call->prepared + p.shape.counts_at);
        for (int64_t g = 0; g < p.shape.groups; g++)
            p.octets += (counts[g] + OCTET - 1) / OCTET;
        int64_t tiles = tiles_of(&p);
        kry_parallel_for(call->host, tiles < p.scratch.tasks ? tiles : p.scratch.tasks,
                         prepare_by_order, &p);
    } else {
        kry_parallel_for(call->host, tiles_of(&p), prepare_in_sequence, &p);
    }
    return KRY_OK;
}

kry_status tiled_bind(const kry_binding *binding) {
    struct tiled_bound *bound = binding->bound;
    struct tiled_walk walk;
    *bound = (struct tiled_bound){.shape = tiled_shape_of(binding->linear),
                                  .prepared = binding->prepared};
    const int32_t *counts = NULL;
    if (binding->linear->act_order) {
        counts = (const int32_t *)(bound->prepared + bound->shape.counts_at);
        bound->order = (const int32_t *)(bound->prepared + bound->shape.order_at);
    }
    tiled_walk_begin(&walk, binding->linear, counts);
    while (tiled_walk_next(&walk, &bound->segments[bound->segment_count]))
        bound->segment_count++;
    return KRY_OK;
}
