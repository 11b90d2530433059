/*
 * The way through an apply: chunks of rows packed, then blocks of tiles computed, each phase
 * spread over the host's threads.
 *
 * scratch   shape                     type
 * x         [PASS_ROWS, octets]       as the class packs it
 * sums      [PASS_ROWS, segments]     f32, or i32: as the class packs it
 * scales    [PASS_ROWS]               f32
 * rows      [chunks, PACKERS, in_features] f32, a row being converted
 */
#include "tiled.h"

enum {
    TASKS_MAX = 256,
    UNIT_TILES = 8,
    CHUNKS_UNIT_TILES = 4, /* of several chunks: codes that each reads again leave L2 to x */
    PACKERS = 4            /* tasks that pack a chunk */
};

int32_t tiled_rows_up(int32_t rows) { return rows <= 8 ? rows : (rows + 1) / 2 * 2; }

int64_t tiled_can_implement(const kry_linear *linear, kry_refusal *refusal) {
    if (linear->in_features > INT32_MAX / 2 || kry_linear_groups(linear) > INT32_MAX / 16)
        return kry_refuse(refusal, KRY_REFUSAL_SIZE, linear->in_features, INT32_MAX / 2, NULL);
    struct tiled_shape shape = tiled_shape_of(linear);
    int64_t bits = kry_weight_bits(linear->weight_type);
    int64_t padded = shape.tiles * shape.octets * TILE_N * OCTET * bits / 8;
    int64_t codes = (linear->in_features * bits + 7) / 8 * linear->out_features;
    return padded > codes ? padded - codes : KRY_ACCEPTED;
}

/* The places of scratch for passes of up to `rows` rows. */
struct places {
    int64_t octets; /* of packed x */
    uint64_t sums_at, scales_at, rows_at, bytes;
};

static struct places place_scratch(const struct tiled_class *class, const kry_linear *linear,
                                   int64_t m) {
    uint64_t rows = m < PASS_ROWS ? (uint64_t)m : PASS_ROWS;
    uint64_t chunks = (rows + CHUNK_ROWS - 1) / CHUNK_ROWS;
    struct places at;
    rows = chunks * CHUNK_ROWS;
    at.octets = tiled_octets_in(linear, tiled_step(class->step_octets, linear) * OCTET);
    at.sums_at = tiled_align(rows * (uint64_t)at.octets * (uint64_t) class->x_octet_bytes);
    at.scales_at = at.sums_at + tiled_align(rows * (uint64_t)tiled_segments_max(linear) * 4);
    at.rows_at = at.scales_at + tiled_align(rows * 4);
    at.bytes = at.rows_at + chunks * PACKERS * tiled_align((uint64_t)linear->in_features * 4);
    return at;
}

uint64_t tiled_scratch(const struct tiled_class *class, const kry_linear *linear, int64_t m) {
    uint64_t bytes = place_scratch(class, linear, m).bytes, few = 0;
    if (class->few != NULL)
        few = place_scratch(class->few, linear, m < class->few_rows ? m : class->few_rows).bytes;
    return bytes > few ? bytes : few;
}

/* Up to PASS_ROWS rows of an apply. */
struct pass {
    const struct tiled_class *class;
    const struct tiled_bound *bound;
    const kry_linear *linear;
    const kry_apply_args *args;
    struct places at;
    int64_t row_begin;
    int64_t rows;
    int32_t chunks;
    int32_t chunk_rows; /* used rows of all chunks but the last */
    int64_t unit;       /* tiles that stay together */
    int64_t blocks;
};

static int64_t units_of(int64_t tiles, int64_t unit) { return (tiles + unit - 1) / unit; }

static struct tiled_chunk chunk_of(const struct pass *p, int32_t i) {
    uint8_t *scratch = p->args->scratch;
    int64_t first = (int64_t)i * p->chunk_rows;
    int32_t packed = tiled_rows_up(p->chunk_rows);
    int64_t before = (int64_t)i * packed;
    int64_t left = p->rows - first;
    return (struct tiled_chunk){.x = scratch + before * p->at.octets * p->class->x_octet_bytes,
                                .sums = (float *)(scratch + p->at.sums_at) +
                                        before * p->bound->segment_count,
                                .scales = (float *)(scratch + p->at.scales_at) + before,
                                .row = p->row_begin + first,
                                .rows = packed,
                                .used = left < p->chunk_rows ? (int32_t)left : p->chunk_rows};
}

/* Every PACKERS-th row of a chunk, so that few rows have several threads, too. */
static void pack_rows(void *argument, int64_t i) {
    const struct pass *p = argument;
    struct tiled_chunk chunk = chunk_of(p, (int32_t)(i / PACKERS));
    int64_t columns = p->linear->in_features;
    float *row = (float *)((uint8_t *)p->args->scratch + p->at.rows_at +
                           (uint64_t)i * tiled_align((uint64_t)columns * 4));
    size_t stride = (size_t)p->args->x_stride * kry_type_bytes(p->linear->x_type);
    for (int32_t r = (int32_t)(i % PACKERS); r < chunk.rows; r += PACKERS) {
        /* Rows that fill the chunk up repeat its last one; what they give is not stored. */
        int64_t from = chunk.row + (r < chunk.used ? r : chunk.used - 1);
        p->class->read_row((const uint8_t *)p->args->x + (size_t)from * stride, p->linear->x_type,
                           columns, row);
        float scale =
            p->class->pack_row(p->bound, row, p->linear, r, chunk.rows, (void *)(uintptr_t)chunk.x,
                               (float *)(uintptr_t)chunk.sums);
        ((float *)(uintptr_t)chunk.scales)[r] = scale;
    }
}

static void compute_block(void *argument, int64_t i) {
    const struct pass *p = argument;
    int64_t tiles = p->bound->shape.tiles, units = units_of(tiles, p->unit);
    int64_t begin = units * i / p->blocks * p->unit, end = units * (i + 1) / p->blocks * p->unit;
    end = end < tiles ? end : tiles;
    struct tiled_work work = {.bound = p->bound, .linear = p->linear, .args = p->args};
    struct tiled_chunk chunks[PASS_ROWS / CHUNK_ROWS];
    for (int32_t c = 0; c < p->chunks; c++) {
        work.chunk = chunks[c] = chunk_of(p, c);
        if (p->class->compute_all == NULL)
            p->class->compute(&work, begin, end);
    }
    if (p->class->compute_all != NULL)
        p->class->compute_all(&work, chunks, p->chunks, begin, end);
}

/* Tasks for the host's threads: of whole units, so that micro-kernels that take many tiles at once
 * find them, and many, so that no thread waits long for the last one. */
static void divide(struct pass *p, const kry_host *host) {
    int64_t threads = host->parallelism != NULL ? host->parallelism(host->context) : 1;
    int64_t tiles = p->bound->shape.tiles;
    p->unit = p->args->m > CHUNK_ROWS ? CHUNKS_UNIT_TILES : UNIT_TILES;
    while (p->unit > 1 && units_of(tiles, p->unit) < 2 * threads)
        p->unit /= 2;
    int64_t units = units_of(tiles, p->unit);
    p->blocks = threads == 1 ? 1 : units < TASKS_MAX ? units : TASKS_MAX;
}

kry_status tiled_apply(const struct tiled_class *class, const kry_binding *binding,
                       const kry_apply_args *args) {
    if (args->m <= class->few_rows && class->few_types >> binding->linear->weight_type & 1)
        class = class->few;
    struct pass p = {.class = class,
                     .bound = binding->bound,
                     .linear = binding->linear,
                     .args = args,
                     .at = place_scratch(class, binding->linear, args->m)};
    divide(&p, args->host);
    for (int64_t row = 0; row < args->m; row += PASS_ROWS) {
        p.row_begin = row;
        p.rows = args->m - row < PASS_ROWS ? args->m - row : PASS_ROWS;
        p.chunks = (int32_t)((p.rows + CHUNK_ROWS - 1) / CHUNK_ROWS);
        p.chunk_rows = (int32_t)((p.rows + p.chunks - 1) / p.chunks);
        kry_parallel_for(args->host, p.chunks * (args->m > 1 ? PACKERS : 1), pack_rows, &p);
        kry_parallel_for(args->host, p.blocks, compute_block, &p);
    }
    return KRY_OK;
}
