/*
 * What the numeric classes of the AMX plugin share.
 *
 * Tile         rows of x (m, at most 16) x 16 (n), columns step by step; a step is what one
 *              instruction multiplies: 64 bytes of each row of x, or fewer in small groups.
 * Instruction  tdpbf16ps or tdpbssd. A tile of weights is read from a panel, into which codes
 *              are unpacked once for all rows of a pass. Sums of a piece, a run of steps with one
 *              scale, are stored to L1, multiplied by it and added to totals in registers, while
 *              the pieces behind it are still being multiplied.
 *
 * buffer of a task  shape                                     type      bytes
 * weights           [BUNDLE, PIECE_STEPS, step / 4, 16]       4 bytes   32768
 * scales, zeros     [BUNDLE, PIECE_STEPS, 16]                 f32       4096
 * sums              [SUMS, 16, 16]                            f32, i32  4096
 * totals            [PASS_ROWS / 16, BUNDLE, 16, 16]          f32       65536
 *
 * They lie on the stack of the thread that runs the task, which is warm in its caches; how many
 * threads a host has cannot be known when it is told the size of a workspace.
 *
 * Packed x is [steps][parts][rows][step bytes]: what a tile holds lies in one piece.
 */
#ifndef KERNELRY_AMX_KERNELS_H
#define KERNELRY_AMX_KERNELS_H

#include "../tiled/tiled.h"

enum {
    TILE_BYTES = 64, /* of a row of a tile */
    TILE_ROWS = 16,
    BF16_STEP = TILE_BYTES / (2 * OCTET), /* octets of a step */
    INT8_STEP = TILE_BYTES / OCTET,
    PANEL_STEPS = 4, /* a panel's, unless its first piece has more: half of L1 is left */
    PIECE_STEPS = 8, /* a piece's at most */
    SUMS = 4         /* pieces on their way */
};

/** Steps with one scale. */
struct piece {
    int32_t segment;
    int32_t octet_begin;
    int32_t octet_count;
    int32_t steps;
};

/** Unpacked weights: a block of columns of up to BUNDLE tiles. */
struct panel {
    _Alignas(64) uint8_t weights[BUNDLE][PIECE_STEPS * TILE_ROWS * TILE_BYTES];
    _Alignas(64) float scales[BUNDLE][PIECE_STEPS][TILE_N];
    _Alignas(64) float zeros[BUNDLE][PIECE_STEPS][TILE_N]; /* where a class leaves them to sums */
    struct piece pieces[PIECE_STEPS];
    int32_t count;
    int32_t tiles;
    int32_t step; /* octets */
};

/** What multiplies a panel with chunks of rows. */
struct product {
    const struct panel *panel;
    const struct tiled_chunk *chunks; /* with equally many rows */
    int32_t count;
    int64_t x_begin;                             /* of the panel's first step in packed x */
    float (*totals)[BUNDLE][TILE_ROWS * TILE_N]; /* of each chunk */
    const uint8_t *ahead; /* codes that are unpacked next, to be fetched meanwhile */
    int32_t code_bytes;   /* of an octet of a tile */
};

/** The sums of a piece, written by tiles and read by vectors. */
struct sums {
    _Alignas(64) float of[SUMS][TILE_ROWS * TILE_N];
};

struct runs;

/** What differs between classes. */
struct amx_class {
    int32_t step;        /* octets */
    int32_t octet_bytes; /* of a row of x */
    int32_t parts;       /* of x */
    int32_t piece_steps; /* of a piece at most */
    bool scaled;         /* rows of x have scales */
    /** Unpack the codes of a panel's pieces, tiles of one bundle. */
    void (*unpack)(const struct tiled_work *work, const struct runs *runs, struct panel *panel);
    /** For up to 1, 4, 8 and 16 rows. */
    void (*multiply[4])(const struct product *product, struct sums *sums);
};

/** Compute tiles [begin, end) for all chunks. */
void amx_compute(const struct amx_class *class, const struct tiled_work *work,
                 const struct tiled_chunk *chunks, int32_t count, int64_t begin, int64_t end);

/** x as bf16, in the order in which codes become pairs. */
tiled_pack_row amx_pack_bf16;
/** As exact sums of two bf16, one step of each in turn. */
tiled_pack_row amx_pack_bf16x2;
/** As the two parts in f32, those of an octet in turn: [octets][2][8 fields]; one row alone. */
tiled_pack_row amx_pack_f32x2;
/** As int8 a token. */
tiled_pack_row amx_pack_int8;

extern const struct tiled_class amx_bf16;
extern const struct tiled_class amx_bf16x2;
extern const struct tiled_class amx_int8;
extern const struct tiled_class amx_row_of_bf16; /* for m = 1, see few.c */
extern const struct tiled_class amx_row_of_f16;

#endif
