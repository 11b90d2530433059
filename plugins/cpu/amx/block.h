/*
 * What multiplies a tile of a panel with rows of x, and what unpacks codes: made of macros where
 * an instruction names its tiles, which no variable can.
 */
#ifndef KERNELRY_AMX_BLOCK_H
#define KERNELRY_AMX_BLOCK_H

#include "kernels.h"

#include "../avx512/block.h"

/* Tile loads and stores of gcc 12 do not tell which memory they touch. */
#define ORDER_MEMORY() __asm__ volatile("" ::: "memory")

/* Take and give zero for denormal floats, as tiles of bf16 do, so that vectors give the same bits;
 * returns the mode to set again. */
INLINE unsigned flush_denormals(void) {
    enum { DAZ = 0x40, FTZ = 0x8000 };
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | DAZ | FTZ);
    return mode;
}

/* One step: x of one part, or of two that meet the same weights. */
#define STEP(DOT, PARTS, SUM, X, W)                                                                \
    do {                                                                                           \
        _tile_loadd(W, w, TILE_BYTES);                                                             \
        _tile_loadd(X, x, step_bytes);                                                             \
        DOT(SUM, X, W);                                                                            \
        x += x_step;                                                                               \
        if ((PARTS) == 2) {                                                                        \
            _tile_loadd(X, x, step_bytes);                                                         \
            DOT(SUM, X, W);                                                                        \
            x += x_step;                                                                           \
        }                                                                                          \
        w += w_step;                                                                               \
    } while (0)

/* Multiply all steps of a piece where there is one left, and store the sums of the piece before,
 * which are complete by then. Loads alternate between two pairs of tiles, since a tile cannot be
 * loaded while it is being multiplied. */
#define PIECE(DOT, PARTS, SUM, BEFORE, X0, W0, X1, W1)                                             \
    do {                                                                                           \
        if (left > 0) {                                                                            \
            _tile_zero(SUM);                                                                       \
            for (int32_t s = panel->pieces[next.piece].steps; s > 0; s -= 2) {                     \
                STEP(DOT, PARTS, SUM, X0, W0);                                                     \
                if (s > 1)                                                                         \
                    STEP(DOT, PARTS, SUM, X1, W1);                                                 \
            }                                                                                      \
        }                                                                                          \
        _tile_stored(BEFORE, sums->of[BEFORE], TILE_BYTES);                                        \
    } while (0)

/* Which piece of which tile and chunk. */
struct place {
    int32_t chunk, tile, piece;
};

/* The piece behind; true where another tile or chunk begins. */
INLINE bool advance(struct place *at, const struct panel *panel) {
    if (++at->piece < panel->count)
        return false;
    at->piece = 0;
    if (++at->tile == panel->tiles)
        *at = (struct place){at->chunk + 1, 0, 0};
    return true;
}

/* Fetch codes while tiles are multiplied: the first chunk does it for all, a share with each piece,
 * line after line, so that the processor sees one stream. Many at once would wait for each other.
 */
INLINE const uint8_t *fetch_codes(const uint8_t *from, int64_t bytes) {
    for (const uint8_t *end = from + bytes; from < end; from += 64)
        _mm_prefetch((const char *)from, _MM_HINT_T0);
    return from;
}

/* Define NAME_1, NAME_4, NAME_8 and NAME_16, products of up to so many rows. ADD(product, place,
 * sums, total, ROWS) adds the sums of a piece to totals; that is done three pieces later, so that
 * nothing waits for a tile. */
#define MULTIPLY(NAME, DOT, PARTS, ADD, ROWS)                                                      \
    static void NAME##_##ROWS(const struct product *p, struct sums *sums) {                        \
        enum { BEHIND = SUMS - 1 };                                                                \
        const struct panel *panel = p->panel;                                                      \
        const int64_t step_bytes = (int64_t)panel->step * (TILE_BYTES / NAME##_STEP);              \
        const int64_t x_step = p->chunks[0].rows * step_bytes, w_step = TILE_ROWS * step_bytes;    \
        const uint8_t *x = (const uint8_t *)p->chunks[0].x + p->x_begin, *w = panel->weights[0];   \
        const uint8_t *ahead = p->ahead;                                                           \
        struct place next = {0, 0, 0}, done = {0, 0, 0};                                           \
        __m512 total[ROWS];                                                                        \
        int32_t left = p->count * panel->tiles * panel->count;                                     \
        for (uint32_t i = 0; left > -BEHIND; i++, left--) {                                        \
            if (left > 0 && next.chunk == 0)                                                       \
                ahead = fetch_codes(ahead, panel->pieces[next.piece].octet_count * p->code_bytes); \
            switch (i % SUMS) {                                                                    \
            case 0:                                                                                \
                PIECE(DOT, PARTS, 0, 3, 4, 6, 5, 7);                                               \
                break;                                                                             \
            case 1:                                                                                \
                PIECE(DOT, PARTS, 1, 0, 5, 7, 4, 6);                                               \
                break;                                                                             \
            case 2:                                                                                \
                PIECE(DOT, PARTS, 2, 1, 4, 6, 5, 7);                                               \
                break;                                                                             \
            default:                                                                               \
                PIECE(DOT, PARTS, 3, 2, 5, 7, 4, 6);                                               \
            }                                                                                      \
            if (left > 1 && advance(&next, panel)) {                                               \
                x = (const uint8_t *)p->chunks[next.chunk].x + p->x_begin;                         \
                w = panel->weights[next.tile];                                                     \
            }                                                                                      \
            if (i < BEHIND)                                                                        \
                continue;                                                                          \
            float *to = p->totals[done.chunk][done.tile];                                          \
            if (done.piece == 0)                                                                   \
                UNROLL for (int r = 0; r < (ROWS); r++) total[r] =                                 \
                    _mm512_load_ps(to + r * TILE_N);                                               \
            ADD(p, &done, sums->of[(i - BEHIND) % SUMS], total, ROWS);                             \
            if (advance(&done, panel))                                                             \
                UNROLL for (int r = 0; r < (ROWS); r++)                                            \
                    _mm512_store_ps(to + r * TILE_N, total[r]);                                    \
        }                                                                                          \
    }
#define MULTIPLY_ALL(NAME, DOT, PARTS, ADD)                                                        \
    MULTIPLY(NAME, DOT, PARTS, ADD, 1)                                                             \
    MULTIPLY(NAME, DOT, PARTS, ADD, 4)                                                             \
    MULTIPLY(NAME, DOT, PARTS, ADD, 8)                                                             \
    MULTIPLY(NAME, DOT, PARTS, ADD, 16)
#define MULTIPLY_VARIANTS(NAME)                                                                    \
    { NAME##_1, NAME##_4, NAME##_8, NAME##_16 }

/* Unpack an octet of a tile to its rows of weights; `zero` are zero points, see zero_bytes. */
typedef void unpack_octet(const uint8_t *codes, __m512i zero, uint8_t *to);

/* The zero points of a tile's group, or the type's bias, in each of the four bytes of a lane. */
INLINE __m512i zero_bytes(const struct runs *runs, int t, int32_t group) {
    const __m512i low = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    if (runs->zeros == NULL)
        return _mm512_set1_epi8((char)(int)runs->bias);
    const void *at = runs->zeros + group_to(runs, t, group);
    return _mm512_shuffle_epi8(_mm512_cvtepu8_epi32(_mm_loadu_si128(at)), low);
}

/* Unpack all pieces, a step's last rows zero where it has no octets. */
INLINE void unpack_panel(const struct tiled_work *work, const struct runs *runs,
                         struct panel *panel, unpack_octet *unpack, const int CODE_BYTES,
                         const int ROW_BYTES) {
    int64_t place = 0;
    for (int32_t i = 0; i < panel->count; i++) {
        const struct piece *piece = &panel->pieces[i];
        const int32_t group = work->bound->segments[piece->segment].group;
        __m512i zero[BUNDLE];
        fetch_groups(runs, group, BUNDLE);
        for (int32_t t = 0; t < panel->tiles; t++) {
            _mm512_store_ps(panel->scales[t][i], scales_of(runs, t, group));
            _mm512_store_ps(panel->zeros[t][i], zeros_of(runs, t, group));
            zero[t] = zero_bytes(runs, t, group);
        }
        const uint8_t *codes = runs->codes + piece->octet_begin * runs->octet_step;
        const int64_t octets = (int64_t)piece->steps * panel->step;
        for (int32_t o = 0; o < piece->octet_count; o++, codes += runs->octet_step)
            for (int32_t t = 0; t < panel->tiles; t++) {
                const uint8_t *at = codes + t * CODE_BYTES;
                unpack(at, zero[t], panel->weights[t] + (place + o) * ROW_BYTES);
            }
        for (int64_t o = piece->octet_count; o < octets; o++)
            for (int32_t t = 0; t < panel->tiles; t++)
                for (int b = 0; b < ROW_BYTES; b += 64)
                    _mm512_store_si512(panel->weights[t] + (place + o) * ROW_BYTES + b,
                                       _mm512_setzero_si512());
        place += octets;
    }
    ORDER_MEMORY();
}

#endif
