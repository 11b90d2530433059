/*
 * Canonical weights become the prepared layout: on the host by tasks of 16 output features, on a
 * device by its entries. Both write the same bytes.
 */
#include "kernel.h"
#include "message.h"

#include <inttypes.h>
#include <string.h>

/* Where the tables of places are: in the prepared bytes for the range that brings them, else in
 * scratch, in the same order. */
static unsigned char *tables_of(const kry_prepare_call *call) {
    return call->weights->n_begin == 0 ? call->prepared : call->scratch;
}

/* Bytes between the parts of the prepared weights and behind the last. They mean nothing; zeros
 * there make files of prepared weights alike. The range that brings feature 0 clears them. */
struct gap {
    uint64_t begin, end;
};
enum { GAPS = 6 };

static void find_gaps(const struct gpu_layout *l, size_t scale_bytes, struct gap out[GAPS]) {
    uint64_t blocks = (uint64_t)l->k_tiles * GPU_TILE_BLOCKS;
    uint64_t scales = (uint64_t)l->n_panels * (uint64_t)l->groups * GPU_PANEL_N;
    uint64_t tiles = (uint64_t)l->n_panels * GPU_PANEL_TILES * (uint64_t)l->k_tiles;
    uint64_t ends[GAPS] = {l->header_at + (l->gathered ? sizeof(uint32_t) : 0),
                           l->source_at + (l->gathered ? blocks * GPU_BLOCK_K * 4 : 0),
                           l->block_group_at + (l->act_order ? blocks * 4 : 0),
                           l->scales_at + scales * scale_bytes,
                           l->zeros_at + (l->has_zeros ? scales : 0),
                           l->codes_at + tiles * (uint64_t)l->tile_bytes};
    uint64_t next[GAPS] = {l->source_at, l->block_group_at, l->scales_at,
                           l->zeros_at,  l->codes_at,       l->bytes};
    for (int i = 0; i < GAPS; i++)
        out[i] = (struct gap){ends[i], next[i]};
}

/* ---- on the host ------------------------------------------------------------------------------
 */

/* A preparation under way. */
struct preparation {
    const kry_prepare_call *call;
    struct gpu_layout layout;
    const int32_t *source; /* column of a place, -1: none; NULL: place - front */
    struct {
        uint16_t byte;
        uint16_t shift;
    } places[GPU_TILE_N][GPU_TILE_K]; /* of a tile's codes */
};

/* Sort columns by group, stable, each group in blocks of its own. cursor: room for a place for
 * each group. Returns the blocks in use. */
static int64_t sort_columns(const struct gpu_layout *layout, const int32_t *g_idx, int32_t *source,
                            uint32_t *block_group, uint32_t *cursor) {
    int64_t blocks = 0;
    memset(cursor, 0, (size_t)layout->groups * sizeof cursor[0]);
    for (int64_t k = 0; k < layout->in_features; k++)
        cursor[g_idx[k]]++;
    for (int64_t g = 0; g < layout->groups; g++) {
        int64_t own = gpu_ceil_div(cursor[g], GPU_BLOCK_K);
        cursor[g] = (uint32_t)(blocks * GPU_BLOCK_K);
        for (int64_t end = blocks + own; blocks < end; blocks++)
            block_group[blocks] = (uint32_t)g;
    }
    for (int64_t k = 0; k < layout->in_features; k++)
        source[cursor[g_idx[k]]++] = (int32_t)k;
    return blocks;
}

/* Write the tables of a gathered layout, which the tiles are read by. */
static void write_tables(struct preparation *p) {
    const kry_prepare_call *call = p->call;
    const struct gpu_layout *layout = &p->layout;
    unsigned char *tables = tables_of(call);
    uint32_t *header = (uint32_t *)(tables + layout->header_at);
    int32_t *source = (int32_t *)(tables + layout->source_at);
    int64_t places = layout->k_tiles * GPU_TILE_K, used = layout->k_tiles;
    for (int64_t place = 0; place < places; place++)
        source[place] = layout->act_order ? -1 : (int32_t)gpu_column_of_place(layout, place);
    if (layout->act_order) {
        uint32_t *block_group = (uint32_t *)(tables + layout->block_group_at);
        uint32_t *cursor = (uint32_t *)((unsigned char *)call->scratch + layout->scales_at);
        memset(block_group, 0, (size_t)(layout->k_tiles * GPU_TILE_BLOCKS) * sizeof *block_group);
        int64_t blocks = sort_columns(layout, call->weights->g_idx, source, block_group, cursor);
        used = gpu_ceil_div(blocks, GPU_TILE_BLOCKS);
    }
    header[0] = (uint32_t)used;
    p->source = source;
}

/* The codes of a feature at the places of a k tile; 0 where there is no column. */
static void read_codes(const struct preparation *p, const uint32_t *row, int64_t k_tile,
                       uint8_t out[GPU_TILE_K]) {
    const struct gpu_layout *layout = &p->layout;
    bool four = layout->bits == 4;
    for (int64_t i = 0; i < GPU_TILE_K; i++) {
        int64_t place = k_tile * GPU_TILE_K + i;
        int64_t k = p->source != NULL ? p->source[place] : place - layout->front;
        if (k < 0 || k >= layout->in_features)
            out[i] = 0;
        else if (four)
            out[i] = (uint8_t)(row[k / 8] >> (uint32_t)(k % 8 * 4) & 15);
        else
            out[i] = (uint8_t)(row[k / 4] >> (uint32_t)(k % 4 * 8));
    }
}

static void write_codes(const struct preparation *p, int64_t n_tile, int64_t rows,
                        const uint32_t *row, int64_t stride) {
    const struct gpu_layout *layout = &p->layout;
    uint8_t codes[GPU_TILE_K];
    for (int64_t k_tile = 0; k_tile < layout->k_tiles; k_tile++) {
        uint8_t *tile = (uint8_t *)p->call->prepared + layout->codes_at +
                        gpu_tile_at(layout->k_tiles, layout->tile_bytes, n_tile, k_tile);
        memset(tile, 0, (size_t)layout->tile_bytes);
        for (int64_t n = 0; n < rows; n++) {
            read_codes(p, row + n * stride, k_tile, codes);
            for (int64_t i = 0; i < GPU_TILE_K; i++)
                tile[p->places[n][i].byte] |= (uint8_t)(codes[i] << p->places[n][i].shift);
        }
    }
}

/* Scales and zero points of a tile's features, zeros where there is no feature. */
static void write_groups(const struct preparation *p, int64_t n_tile, int64_t rows, int64_t first) {
    const struct gpu_layout *layout = &p->layout;
    const kry_canonical *from = p->call->weights;
    size_t bytes = kry_type_bytes(p->call->linear->scale_type);
    uint8_t *to = p->call->prepared;
    for (int64_t n = 0; n < GPU_TILE_N; n++)
        for (int64_t g = 0; g < layout->groups; g++) {
            uint64_t place = gpu_scale_place(layout, n_tile * GPU_TILE_N + n, g);
            uint8_t *scale = to + layout->scales_at + place * bytes;
            if (n < rows)
                memcpy(scale,
                       (const uint8_t *)from->scales +
                           (uint64_t)((first + n) * from->scale_stride + g) * bytes,
                       bytes);
            else
                memset(scale, 0, bytes);
            if (layout->has_zeros)
                to[layout->zeros_at + place] =
                    n < rows ? from->zero_points[(first + n) * from->zero_stride + g] : 0;
        }
}

static void prepare_tile(void *argument, int64_t i) {
    const struct preparation *p = argument;
    const kry_canonical *from = p->call->weights;
    int64_t first = i * GPU_TILE_N, left = from->n_end - from->n_begin - first;
    int64_t rows = left < 0 ? 0 : left < GPU_TILE_N ? left : GPU_TILE_N;
    int64_t n_tile = (from->n_begin + first) / GPU_TILE_N;
    write_codes(p, n_tile, rows, from->qweight + first * from->qweight_stride,
                from->qweight_stride);
    write_groups(p, n_tile, rows, first);
}

static void clear_gaps(const kry_prepare_call *call, const struct gpu_layout *layout) {
    struct gap gaps[GAPS];
    find_gaps(layout, kry_type_bytes(call->linear->scale_type), gaps);
    for (int i = 0; i < GAPS; i++)
        memset((char *)call->prepared + gaps[i].begin, 0, gaps[i].end - gaps[i].begin);
}

static void prepare_on_host(struct preparation *p) {
    const kry_canonical *from = p->call->weights;
    if (from->n_begin == 0)
        clear_gaps(p->call, &p->layout);
    if (p->layout.gathered)
        write_tables(p);
    for (int64_t n = 0; n < GPU_TILE_N; n++)
        for (int64_t k = 0; k < GPU_TILE_K; k++) {
            struct gpu_code_place place = gpu_place_of_code(&p->layout, n, k);
            p->places[n][k].byte = (uint16_t)place.byte;
            p->places[n][k].shift = (uint16_t)place.shift;
        }
    kry_parallel_for(p->call->host,
                     gpu_ceil_div(from->n_end - from->n_begin, GPU_PANEL_N) * GPU_PANEL_TILES,
                     prepare_tile, p);
}

/* ---- on a device --------------------------------------------------------------------------------
 */

static kry_status launch_tables(const struct gpu_code *code, const kry_prepare_call *call,
                                const struct gpu_layout *layout) {
    unsigned char *tables = tables_of(call);
    uint32_t *header = (uint32_t *)(tables + layout->header_at);
    int32_t *source = (int32_t *)(tables + layout->source_at);
    if (layout->act_order) {
        struct gpu_sort_params parameters = {
            .layout = *layout,
            .g_idx = call->weights->g_idx,
            .header = header,
            .source = source,
            .block_group = (uint32_t *)(tables + layout->block_group_at),
            .cursor = (uint32_t *)((unsigned char *)call->scratch + layout->scales_at)};
        struct gpu_launch launch = gpu_launch_sort(layout);
        return gpu_code_launch(code, &launch, &parameters, call->stream);
    }
    if (!layout->gathered || call->weights->n_begin != 0)
        return KRY_OK; /* the range that begins at 0 brings them */
    struct gpu_fill_source_params parameters = {
        .layout = *layout, .header = header, .source = source};
    struct gpu_launch launch = gpu_launch_fill_source(layout);
    return gpu_code_launch(code, &launch, &parameters, call->stream);
}

static kry_status launch_repack(const struct gpu_code *code, const kry_prepare_call *call,
                                const struct gpu_layout *layout) {
    const kry_canonical *from = call->weights;
    struct gpu_repack_params parameters = {
        .layout = *layout,
        .qweight = from->qweight,
        .scales = from->scales,
        .zero_points = from->zero_points,
        .source = layout->act_order ? (int32_t *)(tables_of(call) + layout->source_at) : NULL,
        .prepared = call->prepared,
        .qweight_stride = from->qweight_stride,
        .scale_stride = from->scale_stride,
        .zero_stride = from->zero_stride,
        .n_begin = from->n_begin,
        .n_end = from->n_end,
        .scale_bytes = (uint32_t)kry_type_bytes(call->linear->scale_type)};
    struct gpu_launch codes = gpu_launch_repack_codes(layout, from->n_end - from->n_begin);
    struct gpu_launch scales = gpu_launch_repack_scales(layout, from->n_end - from->n_begin);
    kry_status status = gpu_code_launch(code, &codes, &parameters, call->stream);
    return status == KRY_OK ? gpu_code_launch(code, &scales, &parameters, call->stream) : status;
}

/* Applies copy weights before what precedes them on the stream has ended, if that lets them: a
 * clear does not, an entry might. So it comes last, and if only behind the codes, for each range.
 */
static kry_status clear_gaps_on_device(const struct gpu_driver *driver,
                                       const kry_prepare_call *call,
                                       const struct gpu_layout *layout) {
    struct gap gaps[GAPS];
    kry_status status = KRY_OK;
    find_gaps(layout, kry_type_bytes(call->linear->scale_type), gaps);
    for (int i = call->weights->n_begin == 0 ? 0 : GAPS - 1; i < GAPS && status == KRY_OK; i++)
        if (gaps[i].begin < gaps[i].end)
            status = driver->clear((char *)call->prepared + gaps[i].begin,
                                   gaps[i].end - gaps[i].begin, call->stream);
    return status;
}

static kry_status prepare_on_device(const kry_prepare_call *call, const struct gpu_layout *layout) {
    const struct gpu_driver *driver = gpu_driver_of(call->device);
    const struct gpu_code *code = call->device_state;
    struct gpu_scope scope;
    if (code == NULL)
        return gpu_fail(KRY_E_STATE, "device %s:%d is not opened, weights cannot be prepared there",
                        call->device->platform, call->device->ordinal);
    kry_status status = driver->enter(call->device, &scope);
    if (status != KRY_OK)
        return status;
    status = launch_tables(code, call, layout);
    if (status == KRY_OK)
        status = launch_repack(code, call, layout);
    if (status == KRY_OK)
        status = clear_gaps_on_device(driver, call, layout);
    driver->leave(&scope);
    return status;
}

kry_status gpu_prepare(const kry_prepare_call *call) {
    const kry_canonical *from = call->weights;
    struct preparation p = {.call = call};
    int64_t n = call->linear->out_features;
    kry_status status = gpu_lay_out(call->linear, &p.layout);
    if (status != KRY_OK)
        return status;
    if (from->n_begin < 0 || from->n_begin % GPU_PANEL_N != 0 || from->n_begin > from->n_end ||
        from->n_end > n || (from->n_end % GPU_PANEL_N != 0 && from->n_end != n))
        return gpu_fail(KRY_E_ARGUMENT,
                        "weights of output features %" PRId64 " to %" PRId64
                        ", expected multiples of %d, or the end, in 0 to %" PRId64,
                        from->n_begin, from->n_end, GPU_PANEL_N, n);
    if (from->n_begin == from->n_end)
        return KRY_OK;
    if (from->memory == KRY_MEMORY_DEVICE)
        return prepare_on_device(call, &p.layout);
    prepare_on_host(&p);
    return KRY_OK;
}
