/*
 * A race on one layer: its kernels in several numeric classes, with all threads and with one, the
 * nearest aligned layer beside it, and peers, for several m.
 */
#ifndef KERNELRY_TOOLS_RACE_LAYER_H
#define KERNELRY_TOOLS_RACE_LAYER_H

#include "race.h"
#include "race_device.h"

/** Numeric classes of ours: x of that type, as floats; or int8 activations allowed. */
enum { COMPUTE_F32 = 1, COMPUTE_F16 = 2, COMPUTE_BF16 = 4, COMPUTE_INT8 = 8, COMPUTE_ALL = 15 };

/** "f16" to one bit; false for an unknown word. */
bool parse_compute(const char *word, unsigned *out);

/** The limit of a class's arithmetic: bf16's is that of f32 where nothing multiplies bf16. limits
 *  NULL: a device's. */
enum limit_kind compute_limit(const char *compute, const struct limits *limits);

/** A peer as a race sees it. */
struct race_peer {
    const char *library;
    char compute[16];
    struct peer *peer;     /* a process; NULL: could not be started, or it needs none */
    struct cublas *cublas; /* in this process; NULL: not here, or another library */
    char trouble[RACE_TROUBLE_BYTES];
};
bool race_peer_is_here(const struct race_peer *peer);
const char *race_peer_version(const struct race_peer *peer);

/** What is alike for all layers of a race. Borrowed. */
struct race_setting {
    kry_registry *registry;
    const kry_device *device;
    const char *kernel; /* NULL: the decisions' */
    struct race_pace pace;
    struct race_device *on_device; /* NULL: a CPU */
    uint64_t fill;                 /* bytes that copies fill on a device; 0: as usual */
    struct race_peer *peers;
    size_t peer_count;
    struct peer_data *data; /* NULL without peers that are processes */
    uint64_t seed;
    int32_t threads;
    bool scaling; /* with one thread too, where m is at least SCALING_M */
};
enum { SCALING_M = 16 };

enum { RACE_M_MOST = 16 };

/** A layer to race on. */
struct race_layer {
    char name[RACE_NAME_BYTES];
    kry_linear linear; /* complete */
    unsigned computes; /* COMPUTE_* */
    int64_t m[RACE_M_MOST];
    size_t m_count;
    bool beside_aligned;
};

/** What was measured of a layer on m rows; entries that do not fit are left out. */
struct race_row {
    char name[RACE_NAME_BYTES];
    kry_linear linear;
    kry_linear aligned; /* struct_size 0: none, or the layer is aligned itself */
    int64_t m;
    struct race_entry *entries;
    size_t count;
};

struct race_rows {
    struct race_row *rows;
    size_t count;
};
void race_rows_free(struct race_rows *rows);

/** The entry that measures a limit, or NULL. */
const struct race_entry *race_row_limit(const struct race_row *row, enum limit_kind kind);

/**
 * Measure a layer, and append a row for each m.
 *
 * Errors     KRY_E_MEMORY. Kernels and peers that cannot take the layer are no error: their
 *            entries have trouble.
 */
kry_status race_layer_run(const struct race_setting *setting, const struct race_layer *layer,
                          struct race_rows *rows);

/** What an apply of m rows moves at least: weights as they are stored, x and y once. Bytes. */
double race_least_bytes(const kry_linear *linear, int64_t m);

/**
 * The nearest aligned layer: K a multiple of 128 and of the group, N of 128, groups of 32, 64,
 * 128 or a whole channel, no partition and no act-order; types stay. Returns false when that is
 * the layer itself.
 */
bool race_aligned(const kry_linear *linear, kry_linear *out);

#endif
