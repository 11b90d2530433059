/*
 * The way through a task: for each bundle and block of columns a panel is unpacked, and every
 * chunk of rows multiplied with it.
 */
#include "block.h"

#include <string.h>

/* The memory of a task; see kernels.h. */
struct task {
    struct panel panel;
    struct sums sums;
    _Alignas(64) float totals[PASS_ROWS / CHUNK_ROWS][BUNDLE][TILE_ROWS * TILE_N];
};

/* Where the next panel begins. */
struct cursor {
    int64_t segment;
    int32_t octet; /* of the segment */
};

/* Fill a panel with whole pieces: a segment is one, or several where it has too many columns for a
 * panel. Returns its steps. */
static int32_t next_pieces(const struct tiled_bound *bound, int32_t piece_steps, struct cursor *at,
                           struct panel *panel) {
    int32_t steps = 0, most = piece_steps * panel->step;
    panel->count = 0;
    while (at->segment < bound->segment_count) {
        const struct tiled_segment *segment = &bound->segments[at->segment];
        int32_t left = segment->octet_count - at->octet;
        int32_t octets = left < most ? left : most;
        int32_t more = (octets + panel->step - 1) / panel->step;
        if (panel->count > 0 && steps + more > PANEL_STEPS)
            break;
        panel->pieces[panel->count++] =
            (struct piece){(int32_t)at->segment, segment->octet_begin + at->octet, octets, more};
        steps += more;
        at->octet += octets;
        if (at->octet == segment->octet_count)
            *at = (struct cursor){at->segment + 1, 0};
    }
    return steps;
}

/* Tiles 0 to 3 are sums, 4 and 5 of x, 6 and 7 of weights. */
static void configure(int32_t rows, int32_t step_bytes) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        tiles.rows[i] = (uint8_t)(i < 6 ? rows : step_bytes / 4);
        tiles.row_bytes[i] = (uint16_t)(i < 4 || i > 5 ? TILE_BYTES : step_bytes);
    }
    /* gcc 12 believes that no more than the first bytes are read. */
    __asm__ volatile("" : : "r"(&tiles) : "memory");
    _tile_loadconfig(&tiles);
}

/* Round the totals of a chunk and store them. */
static void store(const struct tiled_work *work, const struct tiled_chunk *chunk, int64_t tile,
                  int32_t tiles, float (*totals)[TILE_ROWS * TILE_N], bool scaled) {
    struct tiled_work of_chunk = *work;
    of_chunk.chunk = *chunk;
    for (int32_t t = 0; t < tiles; t++)
        for (int32_t r = 0; r < chunk->used; r++) {
            __m512 total = _mm512_load_ps(totals[t] + r * TILE_N);
            if (scaled)
                total = _mm512_mul_ps(total, _mm512_set1_ps(chunk->scales[r]));
            finish(&of_chunk, tile + t, r, total);
        }
}

/* Compute tiles of one bundle for all chunks. */
static void compute_tiles(const struct amx_class *class, const struct tiled_work *work,
                          const struct tiled_chunk *chunks, int32_t count, int64_t tile,
                          struct task *task) {
    struct panel *panel = &task->panel;
    const struct runs runs = runs_of(work, tile);
    const int32_t rows = chunks[0].rows, variant = rows > 8 ? 3 : rows > 4 ? 2 : rows > 1;
    const int64_t step_bytes = (int64_t)panel->step * class->octet_bytes;
    struct cursor at = {0, 0};
    int64_t done = 0;
    memset(task->totals, 0, (size_t)count * sizeof task->totals[0]);
    for (int32_t steps; (steps = next_pieces(work->bound, class->piece_steps, &at, panel)) > 0;
         done += steps) {
        const struct piece *last = &panel->pieces[panel->count - 1];
        class->unpack(work, &runs, panel);
        class->multiply[variant](
            &(struct product){.panel = panel,
                              .chunks = chunks,
                              .count = count,
                              .x_begin = done * class->parts * rows * step_bytes,
                              .totals = task->totals,
                              .ahead = runs.codes +
                                       (last->octet_begin + last->octet_count) * runs.octet_step,
                              .code_bytes = work->bound->shape.octet_bytes},
            &task->sums);
    }
    for (int32_t c = 0; c < count; c++)
        store(work, &chunks[c], tile, panel->tiles, task->totals[c], class->scaled);
}

void amx_compute(const struct amx_class *class, const struct tiled_work *work,
                 const struct tiled_chunk *chunks, int32_t count, int64_t begin, int64_t end) {
    struct task task;
    const int32_t step = tiled_step(class->step, work->linear);
    task.panel.step = step;
    configure(chunks[0].rows, step * class->octet_bytes);
    /* Variants for more rows than there are read what no tile has stored. */
    memset(&task.sums, 0, sizeof task.sums);
    for (int64_t tile = begin; tile < end; tile += task.panel.tiles) {
        int64_t left = BUNDLE - tile % BUNDLE;
        task.panel.tiles = (int32_t)(left < end - tile ? left : end - tile);
        compute_tiles(class, work, chunks, count, tile, &task);
    }
    _tile_release();
}
