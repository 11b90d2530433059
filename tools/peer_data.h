/*
 * The memory that is shared with peers, as peer.c tells them of it.
 */
#ifndef KERNELRY_TOOLS_PEER_DATA_H
#define KERNELRY_TOOLS_PEER_DATA_H

#include "peer.h"

struct peer_data {
    int descriptor;
    uint8_t *memory; /* NULL before it is filled */
    uint64_t bytes;
    /* Where each tensor begins. */
    uint64_t codes;       /* u8 [N][K] */
    uint64_t scales;      /* f32 [N][G] */
    uint64_t zero_points; /* u8 [N][G]; unused without them */
    uint64_t x;           /* f32 [m][K] */
    uint64_t y;           /* f32 [m][N] */
};

#endif
