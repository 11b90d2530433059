/*
 * What a race knows of layers, rows and peers without measuring anything.
 */
#include "race_layer.h"

#include <kernelry/plugin.h>

#include <stdlib.h>

bool race_peer_is_here(const struct race_peer *peer) {
    return peer->peer != NULL || peer->cublas != NULL;
}

const char *race_peer_version(const struct race_peer *peer) {
    return peer->cublas != NULL ? cublas_version(peer->cublas) : peer_version(peer->peer);
}

double race_least_bytes(const kry_linear *linear, int64_t m) {
    double k = (double)linear->in_features, n = (double)linear->out_features;
    double groups = (double)kry_linear_groups(linear);
    double bits = kry_weight_bits(linear->weight_type);
    double group_bytes = (double)kry_type_bytes(linear->scale_type) +
                         (kry_weight_has_zero_points(linear->weight_type) ? bits / 8 : 0);
    return n * k * bits / 8 + n * groups * group_bytes +
           (linear->act_order ? k * (double)sizeof(int32_t) : 0) +
           (double)m * (k * (double)kry_type_bytes(linear->x_type) +
                        n * (double)kry_type_bytes(linear->y_type));
}

static int64_t nearest_multiple(int64_t value, int64_t unit) {
    int64_t units = (value + unit / 2) / unit;
    return units > 0 ? units * unit : unit;
}

bool race_aligned(const kry_linear *linear, kry_linear *out) {
    enum { UNIT = 128 };
    int64_t group = linear->group_size;
    if (group > 0)
        group = group < 48 ? 32 : group < 96 ? 64 : 128;
    *out = *linear;
    out->group_size = group;
    out->in_features = out->full_in_features = nearest_multiple(linear->in_features, UNIT);
    out->out_features = out->full_out_features = nearest_multiple(linear->out_features, UNIT);
    out->k_offset = 0;
    out->act_order = 0;
    return group != linear->group_size || out->in_features != linear->in_features ||
           out->out_features != linear->out_features || linear->k_offset != 0 || linear->act_order;
}

void race_rows_free(struct race_rows *rows) {
    for (size_t i = 0; i < rows->count; i++) {
        for (size_t j = 0; j < rows->rows[i].count; j++)
            free(rows->rows[i].entries[j].rounds);
        free(rows->rows[i].entries);
    }
    free(rows->rows);
    *rows = (struct race_rows){0};
}

const struct race_entry *race_row_limit(const struct race_row *row, enum limit_kind kind) {
    for (size_t i = 0; i < row->count; i++)
        if (row->entries[i].kind == RACE_LIMIT && row->entries[i].limit == kind)
            return &row->entries[i];
    return NULL;
}
