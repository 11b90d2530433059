/*
 * The way of a chunk, or of several, through the segments of some tiles.
 *
 * Rows of more than one step run through a segment in steps of nearly equal size, up to four chunks
 * together. Codes are unpacked before, for them all: a step that unpacks as it multiplies takes 8
 * cycles a column on Zen 3 where 6 would do. The x of a step is fetched from L2 while the one
 * before it multiplies. Totals lie in memory and are touched once a segment.
 *
 * buffer     shape                    bytes
 * unpacked   [tiles][octets][16 * 8]  f32 16 K, or 32 K of one tile of more than 32 octets
 * total      [tiles][rows][16]        16 K
 */
#ifndef KERNELRY_AVX2_BATCH_H
#define KERNELRY_AVX2_BATCH_H

#include "block.h"

/* The rows of a chunk that are computed together; packed as if they were a chunk of their own,
 * behind those before. */
struct row_range {
    int32_t begin, count;
};

INLINE int32_t step_count(const struct step_functions *functions, int32_t rows) {
    return (rows + functions->rows_max - 1) / functions->rows_max;
}

INLINE struct row_range step_rows(const struct step_functions *functions, int32_t rows,
                                  int32_t step) {
    int32_t steps = step_count(functions, rows);
    int32_t begin = (rows * step + steps - 1) / steps;
    return (struct row_range){begin, (rows * (step + 1) + steps - 1) / steps - begin};
}

/* The steps of a chunk. */
struct steps {
    int32_t count;
    struct row_range rows[CHUNK_ROWS];
};

INLINE struct steps steps_of(const struct step_functions *functions, int32_t rows) {
    struct steps steps = {.count = step_count(functions, rows)};
    for (int32_t s = 0; s < steps.count; s++)
        steps.rows[s] = step_rows(functions, rows, s);
    return steps;
}

/* Chunks that are computed together, of steps that are alike. */
struct batch {
    const struct tiled_chunk *chunks;
    int32_t count;
    int32_t rows; /* of a chunk */
    struct steps steps;
    step_function *run[CHUNK_ROWS]; /* for each step */
    bool unpacked;                  /* whether they want codes unpacked before */
};

/* The rows of each step of a batch, before the first segment; returns how many steps. */
INLINE int32_t place_steps(const struct step_functions *functions, const struct batch *batch,
                           const struct tiled_bound *bound, float *total, struct step_rows *out) {
    int32_t count = 0;
    for (int32_t c = 0; c < batch->count; c++, total += batch->rows * TILE_N)
        for (int32_t s = 0; s < batch->steps.count; s++) {
            int64_t begin = batch->steps.rows[s].begin;
            out[count++] = (struct step_rows){
                (const uint8_t *)batch->chunks[c].x +
                    begin * bound->shape.octets * functions->x_octet_bytes,
                NULL, batch->chunks[c].sums + begin * bound->segment_count, total + begin * TILE_N};
        }
    return count;
}

/* All rows of the batch for `tiles` tiles from tile on. */
INLINE void run_tiles(const struct step_functions *functions, const struct batch *batch,
                      const struct tiled_work *work, int64_t tile, int32_t tiles) {
    const struct tiled_bound *bound = work->bound;
    _Alignas(64) uint8_t unpacked[UNPACKED_OCTETS * UNPACKED_OCTET_BYTES];
    _Alignas(64) float total[BATCH_ROWS * TILES_MAX * TILE_N];
    _Alignas(64) float scales[TILES_MAX * TILE_N], zeros[TILES_MAX * TILE_N];
    struct step_rows rows[BATCH_ROWS + 1];
    const struct tiled_run run = tiled_run_of(&bound->shape, tile);
    const struct groups groups = groups_of(work, &run);
    struct step step = {.codes = bound->prepared + run.codes,
                        .octet_step = run.octet_step,
                        .tiles = tiles,
                        .total_step = (int64_t)batch->count * batch->rows * TILE_N,
                        .scales = scales,
                        .zeros = zeros,
                        .unpacked = unpacked};
    const int32_t steps = place_steps(functions, batch, bound, total, rows);
    memset(total, 0, (size_t)(tiles * step.total_step) * sizeof total[0]);
    for (int32_t n = 0; n < tiles * TILE_N; n++)
        zeros[n] = work->linear->weight_type == KRY_WEIGHT_U4B8 ? 8.0f : 128.0f;
    for (int64_t i = 0; i < bound->segment_count; i++) {
        read_group(&groups, bound->segments[i].group, tiles, scales, zeros);
        step.octets = bound->segments[i].octet_count;
        step.unpacked_step = (int64_t)step.octets * functions->unpacked_octet_bytes;
        if (batch->unpacked)
            functions->unpack(&step);
        rows[steps].x = (const uint8_t *)rows[0].x + (int64_t)step.octets *
                                                         batch->steps.rows[0].count *
                                                         functions->x_octet_bytes;
        NO_UNROLL for (int32_t s = 0, of_chunk = 0; s < steps; s++) {
            batch->run[of_chunk](&step, &rows[s]);
            of_chunk = of_chunk + 1 < batch->steps.count ? of_chunk + 1 : 0;
        }
        step.codes += step.octets * run.octet_step;
    }
    for (int32_t c = 0; c < batch->count; c++)
        for (int32_t r = 0; r < batch->chunks[c].used; r++)
            for (int32_t t = 0; t < tiles; t++)
                finish(work, &batch->chunks[c], tile + t, r,
                       total + t * step.total_step + (c * batch->rows + r) * TILE_N);
}

/* As many tiles as leave what they unpack in L1: x comes from farther away once for them all. */
INLINE int32_t tiles_together(const struct tiled_bound *bound) {
    int32_t most = 1;
    for (int64_t i = 0; i < bound->segment_count; i++)
        most = bound->segments[i].octet_count > most ? bound->segments[i].octet_count : most;
    int32_t tiles = TILES_MAX;
    while (tiles > 1 && tiles * most > SHARED_OCTETS)
        tiles /= 2;
    return tiles;
}

/* Tiles [begin, end) of the work, for `count` chunks of equally many rows. */
static void run_block(const struct step_functions *functions, const struct tiled_work *work,
                      const struct tiled_chunk *chunks, int32_t count, int64_t begin, int64_t end) {
    struct batch batch = {.rows = chunks[0].rows, .steps = steps_of(functions, chunks[0].rows)};
    int32_t rows = batch.steps.rows[0].count;
    batch.unpacked = batch.steps.count > 1;
    for (int32_t s = 0; batch.unpacked && s < batch.steps.count; s++)
        batch.run[s] = functions->unpacked[batch.steps.rows[s].count];
    int32_t most = batch.unpacked ? tiles_together(work->bound) : functions->wide_tiles[rows];
    int32_t together = batch.unpacked ? BATCH_CHUNKS : 1;
    for (int32_t c = 0; c < count; c += together)
        for (int64_t tile = begin; tile < end;) {
            /* Of tiles within a bundle. */
            int32_t tiles = tile % most == 0 && tile + most <= end ? most : 1;
            batch.chunks = &chunks[c];
            batch.count = count - c < together ? count - c : together;
            if (!batch.unpacked)
                batch.run[0] = (tiles > 1 ? functions->wide : functions->single)[rows];
            run_tiles(functions, &batch, work, tile, tiles);
            tile += tiles;
        }
}

/* Pack a row into its step of a chunk. */
INLINE float pack_in_step(const struct step_functions *functions, tiled_pack_row *pack,
                          const struct tiled_bound *bound, float *x, const kry_linear *linear,
                          int32_t row, int32_t rows, void *packed, float *sums) {
    int32_t step = 0;
    struct row_range range = step_rows(functions, rows, step);
    while (range.begin + range.count <= row)
        range = step_rows(functions, rows, ++step);
    return pack(bound, x, linear, row - range.begin, range.count,
                (uint8_t *)packed + range.begin * bound->shape.octets * functions->x_octet_bytes,
                sums + range.begin * bound->segment_count);
}

#endif
