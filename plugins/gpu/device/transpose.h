/*
 * Matrices copied from one order to another by way of shared memory, so that both sides are read
 * and written in whole lines whichever axis is dense.
 *
 * Block tile      ROWS x COLUMNS elements of up to 32 bits; a block takes one after the other.
 * shared memory   [ROWS][COLUMNS + 1] u32: the odd pitch keeps lanes that walk down a column in
 *                 different banks.
 */
#ifndef KERNELRY_GPU_TRANSPOSE_H
#define KERNELRY_GPU_TRANSPOSE_H

#include "../params.h"
#include "target.h"

/** Where an element of a block tile lies. */
struct gpu_transpose_place {
    uint32_t row;
    uint32_t column;
};

/** Element `index` of a tile in the order in which lanes go along rows, or along columns. */
template <uint32_t ROWS, uint32_t COLUMNS>
GPU_DEVICE gpu_transpose_place gpu_transpose_at(uint32_t index, bool along_rows) {
    return along_rows ? gpu_transpose_place{index % ROWS, index / ROWS}
                      : gpu_transpose_place{index / COLUMNS, index % COLUMNS};
}

/**
 * Write write(row, column, read(row, column)) for all of `rows` x `columns`. Lanes that are
 * neighbours read neighbours in a column where `read_down`, else in a row; likewise they write.
 * A thread's reads do not wait for each other as long as `read` does not branch: what lies beyond
 * the last row or column is read from that.
 */
template <uint32_t ROWS, uint32_t COLUMNS, class Read, class Write>
GPU_DEVICE void gpu_transpose(unsigned char *shared, int64_t rows, int64_t columns, bool read_down,
                              bool write_down, Read read, Write write) {
    constexpr uint32_t EACH = ROWS * COLUMNS / GPU_PREPARE_THREADS;
    uint32_t *held = reinterpret_cast<uint32_t *>(shared);
    int64_t down = gpu_ceil_div(rows, ROWS), across = gpu_ceil_div(columns, COLUMNS);
    for (int64_t tile = gpu_block(); tile < down * across; tile += gpu_blocks()) {
        int64_t row = (read_down ? tile % down : tile / across) * ROWS;
        int64_t column = (read_down ? tile / down : tile % across) * COLUMNS;
        uint32_t values[EACH];
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++) {
            gpu_transpose_place at =
                gpu_transpose_at<ROWS, COLUMNS>(i * GPU_PREPARE_THREADS + gpu_thread(), read_down);
            int64_t r = row + at.row, c = column + at.column;
            values[i] = read(r < rows ? r : rows - 1, c < columns ? c : columns - 1);
        }
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++) {
            gpu_transpose_place at =
                gpu_transpose_at<ROWS, COLUMNS>(i * GPU_PREPARE_THREADS + gpu_thread(), read_down);
            held[at.row * (COLUMNS + 1) + at.column] = values[i];
        }
        gpu_barrier();
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++) {
            gpu_transpose_place at =
                gpu_transpose_at<ROWS, COLUMNS>(i * GPU_PREPARE_THREADS + gpu_thread(), write_down);
            if (row + at.row < rows && column + at.column < columns)
                write(row + at.row, column + at.column, held[at.row * (COLUMNS + 1) + at.column]);
        }
        gpu_barrier();
    }
}

#endif
