#include "matrix.h"

#include <string.h>

#include "numbers.h"

/* A bit of a coordinate; COPY is a lane bit that no coordinate depends on. */
enum { AXIS_NONE, AXIS_ROW, AXIS_COLUMN, AXIS_K, AXIS_COPY };
struct bit {
    uint8_t axis;
    uint8_t place;
};
#define R(place)                                                                                   \
    { AXIS_ROW, place }
#define C(place)                                                                                   \
    { AXIS_COLUMN, place }
#define K(place)                                                                                   \
    { AXIS_K, place }
#define COPY                                                                                       \
    { AXIS_COPY, 0 }

/* What each bit of the lane and of the item's number says of the element, lowest bit first. */
struct map {
    struct bit lane[6];
    struct bit item[4];
};

struct table {
    const char *name;
    unsigned shape[4]; /* lanes, m, n, k */
    struct map a, b, c;
};

static const struct table tables[SIMT_INSTRUCTIONS] = {
    /* PTX ISA 8.7, section 9.7.14.5.8 "Matrix Fragments for mma.m16n8k16 with floating point
     * type", figures 79 (A), 81 (B) and 83 (C and D). */
    [SIMT_MMA_M16N8K16] = {"mma.m16n8k16",
                           {32, 16, 8, 16},
                           {{K(1), K(2), R(0), R(1), R(2)}, {K(0), R(3), K(3)}},
                           {{K(1), K(2), C(0), C(1), C(2)}, {K(0), K(3)}},
                           {{C(1), C(2), R(0), R(1), R(2)}, {C(0), R(3)}}},
    /* PTX ISA 8.7, section 9.7.14.5.7 "Matrix Fragments for mma.m16n8k8", .f16 and .bf16. */
    [SIMT_MMA_M16N8K8] = {"mma.m16n8k8",
                          {32, 16, 8, 8},
                          {{K(1), K(2), R(0), R(1), R(2)}, {K(0), R(3)}},
                          {{K(1), K(2), C(0), C(1), C(2)}, {K(0)}},
                          {{C(1), C(2), R(0), R(1), R(2)}, {C(0), R(3)}}},
    /* CDNA3 and CDNA4 ISA, sections 7.1.4.1 "Input layout" (K_L = 16 / (64 / 16) = 4: item k % 4
     * of lane i + 16 (k / 4)) and 7.1.4.2 "Output layout" (H = 4, B_I = 1, M_I = 4, G = 1: item
     * i % 4 of lane j + 16 (i / 4)); CDNA2's is the same. */
    [SIMT_MFMA_16X16X16] = {"v_mfma_f32_16x16x16",
                            {64, 16, 16, 16},
                            {{R(0), R(1), R(2), R(3), K(2), K(3)}, {K(0), K(1)}},
                            {{C(0), C(1), C(2), C(3), K(2), K(3)}, {K(0), K(1)}},
                            {{C(0), C(1), C(2), C(3), R(2), R(3)}, {R(0), R(1)}}},
    /* RDNA3 ISA (August 2023), section 7.9 "Wave Matrix Multiply Accumulate (WMMA)", wave32: A
     * and B lie in lanes 0-15 and once more in lanes 16-31; row i of D is register i / 2 of lanes
     * j + 16 (i % 2). */
    [SIMT_WMMA_RDNA3] = {"v_wmma_f32_16x16x16 (RDNA3)",
                         {32, 16, 16, 16},
                         {{R(0), R(1), R(2), R(3), COPY}, {K(0), K(1), K(2), K(3)}},
                         {{C(0), C(1), C(2), C(3), COPY}, {K(0), K(1), K(2), K(3)}},
                         {{C(0), C(1), C(2), C(3), R(0)}, {R(1), R(2), R(3)}}},
    /* RDNA4 ISA, section 7.12.2 "Matrix Element Storage in VGPRs", pages 101-105, the table's
     * rows for 16-bit A and B and 32-bit C and D in wave32: A lane {col[2], row[3:0]}, vgpr
     * {col[3], col[1]}, startPosn col[0]; D lane {row[3], col[3:0]}, vgpr row[2:0]. */
    [SIMT_WMMA_RDNA4] = {"v_wmma_f32_16x16x16 (RDNA4)",
                         {32, 16, 16, 16},
                         {{R(0), R(1), R(2), R(3), K(2)}, {K(0), K(1), K(3)}},
                         {{C(0), C(1), C(2), C(3), K(2)}, {K(0), K(1), K(3)}},
                         {{C(0), C(1), C(2), C(3), R(3)}, {R(0), R(1), R(2)}}},
};

static void add_bits(struct simt_element *element, const struct bit *bits, unsigned count,
                     unsigned number) {
    for (unsigned i = 0; i < count; i++) {
        const uint8_t value = (uint8_t)((number >> i & 1U) << bits[i].place);
        if (bits[i].axis == AXIS_ROW) {
            element->row |= value;
        } else if (bits[i].axis == AXIS_COLUMN) {
            element->column |= value;
        } else if (bits[i].axis == AXIS_K) {
            element->k |= value;
        }
    }
}

static struct simt_operand operand_of(const struct map *map, unsigned wave) {
    struct simt_operand operand = {.items = 1};
    for (unsigned i = 0; i < 4 && map->item[i].axis != AXIS_NONE; i++) {
        operand.items *= 2;
    }
    for (unsigned lane = 0; lane < wave; lane++) {
        for (unsigned item = 0; item < operand.items; item++) {
            add_bits(&operand.at[lane][item], map->lane, 6, lane);
            add_bits(&operand.at[lane][item], map->item, 4, item);
        }
    }
    return operand;
}

const struct simt_matrix *simt_matrix_of(enum simt_instruction instruction) {
    static struct simt_matrix made[SIMT_INSTRUCTIONS];
    struct simt_matrix *matrix = &made[instruction];
    if (matrix->name == NULL) {
        const struct table *table = &tables[instruction];
        *matrix = (struct simt_matrix){
            .name = table->name,
            .wave = table->shape[0],
            .m = table->shape[1],
            .n = table->shape[2],
            .k = table->shape[3],
            .a = operand_of(&table->a, table->shape[0]),
            .b = operand_of(&table->b, table->shape[0]),
            .c = operand_of(&table->c, table->shape[0]),
        };
    }
    return matrix;
}

/* A or B spread out, with what the lanes hold twice looked at. */
struct spread {
    double value[SIMT_MATRIX][SIMT_MATRIX]; /* of A [row][k], of B [k][column] */
    uint16_t bits[SIMT_MATRIX][SIMT_MATRIX];
    bool is_seen[SIMT_MATRIX][SIMT_MATRIX];
};

/* False where a lane, *lane, holds other bits than one before it. */
static bool gather(const struct simt_operand *operand, unsigned wave, bool is_a, bool is_bf16,
                   const uint32_t *const registers[], struct spread *out, unsigned *lane) {
    memset(out->is_seen, 0, sizeof out->is_seen);
    for (unsigned l = 0; l < wave; l++) {
        for (unsigned item = 0; item < operand->items; item++) {
            const struct simt_element at = operand->at[l][item];
            const unsigned i = is_a ? at.row : at.k;
            const unsigned j = is_a ? at.k : at.column;
            const uint16_t bits = (uint16_t)(registers[l][item / 2] >> 16 * (item % 2));
            if (out->is_seen[i][j] && out->bits[i][j] != bits) {
                *lane = l;
                return false;
            }
            out->is_seen[i][j] = true;
            out->bits[i][j] = bits;
            out->value[i][j] = (double)(is_bf16 ? simt_bf16_value(bits) : simt_f16_value(bits));
        }
    }
    return true;
}

bool simt_matrix_multiply(const struct simt_matrix *matrix, bool is_bf16, const uint32_t *const a[],
                          const uint32_t *const b[], float *const c[], unsigned *lane) {
    struct spread left;
    struct spread right;
    double sums[SIMT_MATRIX][SIMT_MATRIX] = {{0}};
    if (!gather(&matrix->a, matrix->wave, true, is_bf16, a, &left, lane) ||
        !gather(&matrix->b, matrix->wave, false, is_bf16, b, &right, lane)) {
        return false;
    }
    for (unsigned row = 0; row < matrix->m; row++) {
        for (unsigned k = 0; k < matrix->k; k++) {
            for (unsigned column = 0; column < matrix->n; column++) {
                sums[row][column] += left.value[row][k] * right.value[k][column];
            }
        }
    }
    for (unsigned l = 0; l < matrix->wave; l++) {
        for (unsigned item = 0; item < matrix->c.items; item++) {
            const struct simt_element at = matrix->c.at[l][item];
            c[l][item] = (float)(sums[at.row][at.column] + (double)c[l][item]);
        }
    }
    return true;
}
