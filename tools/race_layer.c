/*
 * A race on one layer.
 */
#include "race_layer.h"

#include "floats.h"
#include "race_dense.h"
#include "random.h"

#include <kernelry/plugin.h>

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** Which stream of a seed x is drawn from. */
enum { STREAM_X = 101 };
#define PEER_ERROR_MOST 5e-2 /* of y, relative: a peer that is further off does something else */

static const struct compute {
    const char *word;
    unsigned bit;
    uint32_t type; /* of x; 0: the description's */
} computes[] = {{"f32", COMPUTE_F32, KRY_TYPE_F32},
                {"f16", COMPUTE_F16, KRY_TYPE_F16},
                {"bf16", COMPUTE_BF16, KRY_TYPE_BF16},
                {"int8", COMPUTE_INT8, 0}};
enum { COMPUTE_COUNT = sizeof computes / sizeof computes[0] };

bool parse_compute(const char *word, unsigned *out) {
    for (size_t i = 0; i < COMPUTE_COUNT; i++)
        if (strcmp(word, computes[i].word) == 0) {
            *out = computes[i].bit;
            return true;
        }
    return false;
}

enum limit_kind compute_limit(const char *compute, const struct limits *limits) {
    if (strcmp(compute, "int8") == 0)
        return LIMIT_INT8;
    if (limits == NULL)
        return strcmp(compute, "f32") == 0 ? LIMIT_F32 : LIMIT_F16;
    return strcmp(compute, "bf16") == 0 && limits_chosen(limits, LIMIT_BF16) != NULL ? LIMIT_BF16
                                                                                     : LIMIT_F32;
}

/* ---- descriptions -------------------------------------------------------------------- */

/** The description as a class wants it. */
static kry_linear linear_for(const kry_linear *linear, const struct compute *compute) {
    kry_linear wanted = *linear;
    if (compute->type != 0)
        wanted.x_type = wanted.y_type = wanted.scale_type = compute->type;
    else
        wanted.allowed |= KRY_ALLOW_INT8_ACTIVATIONS;
    return wanted;
}

/* ---- contenders ---------------------------------------------------------------------- */

/** A layer prepared for a class. */
struct contender {
    const struct compute *compute;
    bool aligned; /* not the layer, but the nearest aligned one */
    kry_linear linear;
    struct rotation rotation;
    struct rotation_operands operands; /* of the m that is being measured */
    struct rotation_turns turns;       /* of both */
    char trouble[RACE_TROUBLE_BYTES];
};

enum { CONTENDERS_MOST = 2 * COMPUTE_COUNT };

/** What is made for a layer. */
struct field {
    const struct race_setting *setting;
    const struct race_layer *layer;
    kry_linear aligned;
    struct contender contenders[CONTENDERS_MOST];
    size_t contender_count;
    float *x; /* [m_most, in_features] */
    int64_t m_most;
    bool peers_ready;
    struct race_dense *dense[RACE_ENTRIES_MOST]; /* of peers that are cuBLAS */
    char peer_trouble[RACE_ENTRIES_MOST][RACE_TROUBLE_BYTES];
};

/** Prepare a contender. Only lack of memory for the weights themselves is an error. */
static kry_status prepare_contender(const struct race_setting *setting, struct contender *contender,
                                    struct synthetic **synthetic) {
    kry_status status = synthetic_create(&contender->linear, false, setting->seed, synthetic);
    if (status != KRY_OK)
        return status;
    const struct rotation_args args = {.registry = setting->registry,
                                       .device = setting->device,
                                       .synthetic = *synthetic,
                                       .kernel = setting->kernel,
                                       .host = crew_host(setting->pace.crew),
                                       .fill = setting->fill};
    crew_use(setting->pace.crew, setting->threads);
    if (rotation_create(&args, &contender->rotation) != KRY_OK) {
        race_trouble(contender->trouble);
    } else if (contender->compute->bit == COMPUTE_INT8 &&
               (contender->rotation.kernel.flags & KRY_KERNEL_INT8_ACTIVATIONS) == 0) {
        snprintf(contender->trouble, sizeof contender->trouble,
                 "no kernel with int8 activations takes it: %s came first",
                 contender->rotation.kernel.kernel);
    }
    return KRY_OK;
}

/** Give each peer the layer. */
static kry_status prepare_peers(struct field *field, const struct synthetic *synthetic) {
    const struct race_setting *setting = field->setting;
    kry_status status = setting->data != NULL
                            ? peer_data_fill(setting->data, synthetic, field->x, field->m_most)
                            : KRY_OK;
    size_t copies = rotation_copies(
        setting->device, (uint64_t)race_least_bytes(&synthetic->linear, 0), setting->fill);
    for (size_t i = 0; i < setting->peer_count && status == KRY_OK; i++) {
        struct race_peer *peer = &setting->peers[i];
        char *trouble = field->peer_trouble[i];
        if (peer->peer != NULL &&
            peer_prepare(peer->peer, setting->data, synthetic, copies) != KRY_OK)
            race_trouble(trouble);
        if (peer->cublas != NULL &&
            race_dense_create(setting->on_device, setting->pace.crew, synthetic, peer->compute,
                              &field->dense[i]) != KRY_OK)
            race_trouble(trouble);
    }
    field->peers_ready = status == KRY_OK;
    return status;
}

static kry_status add_contenders(struct field *field, const kry_linear *linear, bool aligned) {
    for (size_t i = 0; i < COMPUTE_COUNT; i++) {
        if ((field->layer->computes & computes[i].bit) == 0)
            continue;
        struct contender *contender = &field->contenders[field->contender_count++];
        contender->compute = &computes[i];
        contender->aligned = aligned;
        contender->linear = linear_for(linear, &computes[i]);
        struct synthetic *synthetic = NULL;
        kry_status status = prepare_contender(field->setting, contender, &synthetic);
        if (status == KRY_OK && field->setting->peer_count > 0 && !field->peers_ready)
            status = prepare_peers(field, synthetic);
        synthetic_destroy(&synthetic);
        if (status != KRY_OK)
            return status;
    }
    return KRY_OK;
}

static void release_field(struct field *field) {
    for (size_t i = 0; i < field->contender_count; i++)
        rotation_release(&field->contenders[i].rotation);
    for (size_t i = 0; field->peers_ready && i < field->setting->peer_count; i++)
        if (field->setting->peers[i].peer != NULL)
            (void)peer_release(field->setting->peers[i].peer); /* or it is gone, as told before */
    for (size_t i = 0; i < field->setting->peer_count; i++)
        race_dense_destroy(&field->dense[i]);
    free(field->x);
}

/** Draw x: normal, without the outliers that would cost peers with int8 their accuracy. */
static kry_status draw_x(struct field *field) {
    const struct race_layer *layer = field->layer;
    for (size_t i = 0; i < layer->m_count; i++)
        field->m_most = layer->m[i] > field->m_most ? layer->m[i] : field->m_most;
    uint64_t count, bytes;
    if (__builtin_mul_overflow((uint64_t)field->m_most, (uint64_t)layer->linear.in_features,
                               &count) ||
        __builtin_mul_overflow(count, sizeof *field->x, &bytes) ||
        (field->x = malloc(bytes)) == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory for %" PRId64 " rows of x", field->m_most);
    struct random random = random_seeded(field->setting->seed, STREAM_X);
    for (uint64_t i = 0; i < count; i++)
        field->x[i] = random_normal(&random);
    return KRY_OK;
}

/* ---- entries ------------------------------------------------------------------------- */

/** Convert x; a layer with more columns sees some of them twice. */
static void fill_x(const struct field *field, const struct contender *contender, int64_t m) {
    int64_t columns = field->layer->linear.in_features, wanted = contender->linear.in_features;
    void *x = contender->operands.x.host;
    for (int64_t row = 0; row < m; row++)
        for (int64_t k = 0; k < wanted; k++)
            float_store(x, row * wanted + k, contender->linear.x_type,
                        (double)field->x[row * columns + k % columns]);
}

/** Allocate for m rows and apply once, so that y is there and memory has been touched. */
static void ready_contender(const struct field *field, struct contender *contender, int64_t m) {
    if (contender->trouble[0] != '\0')
        return;
    struct rotation *rotation = &contender->rotation;
    int64_t nanoseconds;
    struct rotation_operands *operands = &contender->operands;
    kry_status status = rotation_operands(rotation, &contender->linear, m, false, operands);
    if (status == KRY_OK) {
        operands->args.host = crew_host(field->setting->pace.crew);
        fill_x(field, contender, m);
        crew_use(field->setting->pace.crew, field->setting->threads);
        status = twin_send(&rotation->memory, &operands->x);
    }
    if (status == KRY_OK)
        status = rotation_apply(rotation, &operands->args, &nanoseconds);
    if (status == KRY_OK)
        status = twin_fetch(&rotation->memory, &operands->y);
    contender->turns = (struct rotation_turns){.rotation = rotation, .args = &operands->args};
    if (status != KRY_OK)
        race_trouble(contender->trouble);
}

/** Fill in what all entries have. Returns NULL when there is no room. */
static struct race_entry *add_entry(const struct field *field, struct race_row *row,
                                    enum race_kind kind, const char *name) {
    if (row->count == RACE_ENTRIES_MOST)
        return NULL;
    struct race_entry *entry = &row->entries[row->count];
    double *rounds = calloc(field->setting->pace.rounds, sizeof *rounds);
    if (rounds == NULL)
        return NULL;
    *entry =
        (struct race_entry){.kind = kind, .threads = field->setting->threads, .rounds = rounds};
    snprintf(entry->name, sizeof entry->name, "%s", name);
    row->count++;
    return entry;
}

static void describe_work(struct race_entry *entry, const kry_linear *linear, int64_t m) {
    entry->weights = (double)linear->in_features * (double)linear->out_features;
    entry->bytes = race_least_bytes(linear, m);
    entry->operations = 2 * (double)m * entry->weights;
}

/** The limits of a device: to read the bytes that an apply moves, and to multiply dense matrices.
 */
static void add_device_limits(const struct field *field, struct race_row *row) {
    struct race_device *device = field->setting->on_device;
    double bytes = race_least_bytes(&field->layer->linear, row->m);
    struct race_entry *entry = add_entry(field, row, RACE_LIMIT, limit_word(LIMIT_READ));
    if (entry != NULL && race_device_read(device, (uint64_t)bytes, &entry->loop, &entry->work) != 0)
        race_trouble(entry->trouble);
    entry = add_entry(field, row, RACE_LIMIT, limit_word(LIMIT_F16));
    if (entry == NULL)
        return;
    entry->limit = LIMIT_F16;
    if (race_device_dense(device, &entry->loop, &entry->work) != KRY_OK)
        race_trouble(entry->trouble);
}

static void add_limits(const struct field *field, struct race_row *row) {
    if (field->setting->on_device != NULL) {
        add_device_limits(field, row);
        return;
    }
    for (int kind = 0; kind < LIMIT_KINDS; kind++) {
        const struct limit *way = limits_chosen(field->setting->pace.limits, (enum limit_kind)kind);
        struct race_entry *entry =
            way != NULL ? add_entry(field, row, RACE_LIMIT, limit_word((enum limit_kind)kind))
                        : NULL;
        if (entry == NULL)
            continue;
        entry->limit = (enum limit_kind)kind;
        entry->way = way;
    }
}

static void add_kernel(const struct field *field, struct race_row *row, struct contender *contender,
                       int32_t threads) {
    struct race_entry *entry = add_entry(field, row, RACE_KERNEL, contender->compute->word);
    if (entry == NULL)
        return;
    entry->beside = contender->aligned                   ? "aligned"
                    : threads != field->setting->threads ? "threads"
                                                         : NULL;
    entry->threads = threads;
    entry->kernel = contender->rotation.kernel;
    /* A model may want int8 activations of any class. */
    bool int8 = entry->kernel.flags & KRY_KERNEL_INT8_ACTIVATIONS;
    entry->limit =
        compute_limit(int8 ? "int8" : contender->compute->word, field->setting->pace.limits);
    entry->rotation = &contender->rotation;
    entry->operands = &contender->operands.args;
    describe_work(entry, &contender->linear, row->m);
    entry->stored_bytes = (double)contender->rotation.prepared_bytes + entry->bytes -
                          race_least_bytes(&contender->linear, 0);
    snprintf(entry->trouble, sizeof entry->trouble, "%s", contender->trouble);
    if (field->setting->on_device == NULL || entry->trouble[0] != '\0')
        return;
    struct stream_work work = rotation_work(&contender->turns);
    if (stream_loop_create(race_device_clock(field->setting->on_device), &work, &entry->loop) !=
        KRY_OK)
        race_trouble(entry->trouble);
}

/** How far a peer's y is from ours. */
static double error_of(const struct contender *ours, const float *y, int64_t m) {
    double distance = 0, length = 0;
    for (int64_t i = 0; i < m * ours->linear.out_features; i++) {
        double expected = float_load(ours->operands.y.host, i, ours->linear.y_type);
        distance += ((double)y[i] - expected) * ((double)y[i] - expected);
        length += expected * expected;
    }
    return sqrt(distance / length);
}

/** Whether a peer's y is ours; else the entry has trouble. */
static void compare(struct race_entry *entry, const struct contender *ours, const float *y,
                    int64_t m) {
    double error = ours != NULL ? error_of(ours, y, m) : 0;
    if (!(error <= PEER_ERROR_MOST))
        snprintf(entry->trouble, sizeof entry->trouble,
                 "%s: its y is off by %.2g of ours, at most %.2g is expected", entry->name, error,
                 PEER_ERROR_MOST);
}

/** Let a peer compute once, and compare. */
static void check_peer(const struct field *field, struct race_entry *entry,
                       const struct contender *ours, int64_t m) {
    int64_t nanoseconds;
    if (peer_check(entry->peer, m) != KRY_OK ||
        peer_run(entry->peer, m, 0, 1, &nanoseconds) != KRY_OK) {
        race_trouble(entry->trouble);
        return;
    }
    entry->usual = (double)nanoseconds;
    compare(entry, ours, peer_data_y(field->setting->data), m);
}

/** Likewise for cuBLAS. */
static void ready_dense(const struct field *field, struct race_entry *entry,
                        struct race_dense *dense, const struct contender *ours, int64_t m) {
    float *y = NULL;
    if (race_dense_ready(dense, field->x, m, &y, &entry->loop) != KRY_OK)
        race_trouble(entry->trouble);
    else
        compare(entry, ours, y, m);
    free(y);
}

/** Whose y is taken for the right one: the first contender's that has one. */
static const struct contender *find_judge(const struct field *field) {
    for (size_t i = 0; i < field->contender_count; i++)
        if (field->contenders[i].trouble[0] == '\0' && !field->contenders[i].aligned)
            return &field->contenders[i];
    return NULL;
}

static void add_peers(const struct field *field, struct race_row *row) {
    const struct contender *ours = find_judge(field);
    for (size_t i = 0; i < field->setting->peer_count; i++) {
        const struct race_peer *peer = &field->setting->peers[i];
        if (!race_peer_is_here(peer))
            continue;
        char name[RACE_NAME_BYTES];
        snprintf(name, sizeof name, "%.40s %s", peer->library, peer->compute);
        struct race_entry *entry = add_entry(field, row, RACE_PEER, name);
        if (entry == NULL)
            continue;
        entry->limit = compute_limit(peer->compute, field->setting->pace.limits);
        entry->peer = peer->peer;
        describe_work(entry, &field->layer->linear, row->m);
        snprintf(entry->trouble, sizeof entry->trouble, "%s", field->peer_trouble[i]);
        if (entry->trouble[0] != '\0')
            continue;
        if (field->dense[i] != NULL)
            ready_dense(field, entry, field->dense[i], ours, row->m);
        else if (ours != NULL)
            check_peer(field, entry, ours, row->m);
    }
}

/* ---- rows ---------------------------------------------------------------------------- */

static kry_status append_row(struct race_rows *rows, const struct field *field, int64_t m,
                             struct race_row **out) {
    struct race_row *grown = realloc(rows->rows, (rows->count + 1) * sizeof *grown);
    if (grown == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    rows->rows = grown;
    struct race_row *row = &grown[rows->count];
    *row = (struct race_row){.linear = field->layer->linear,
                             .aligned = field->aligned,
                             .m = m,
                             .entries = calloc(RACE_ENTRIES_MOST, sizeof *row->entries)};
    if (row->entries == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    snprintf(row->name, sizeof row->name, "%s", field->layer->name);
    rows->count++;
    *out = row;
    return KRY_OK;
}

/** Forget what will not be there any more. */
static void strip_row(struct race_row *row) {
    for (size_t i = 0; i < row->count; i++) {
        row->entries[i].way = NULL;
        row->entries[i].rotation = NULL;
        row->entries[i].operands = NULL;
        row->entries[i].peer = NULL;
        stream_loop_destroy(&row->entries[i].loop);
    }
}

static kry_status measure_m(struct field *field, int64_t m, struct race_rows *rows) {
    struct race_row *row = NULL;
    kry_status status = append_row(rows, field, m, &row);
    if (status != KRY_OK)
        return status;
    for (size_t i = 0; i < field->contender_count; i++)
        ready_contender(field, &field->contenders[i], m);
    add_limits(field, row);
    for (size_t i = 0; i < field->contender_count; i++)
        add_kernel(field, row, &field->contenders[i], field->setting->threads);
    if (field->setting->scaling && field->setting->threads > 1 && m >= SCALING_M)
        for (size_t i = 0; i < field->contender_count; i++)
            if (!field->contenders[i].aligned)
                add_kernel(field, row, &field->contenders[i], 1);
    add_peers(field, row);
    race_run(&field->setting->pace, m, row->entries, row->count);
    strip_row(row);
    for (size_t i = 0; i < field->contender_count; i++)
        rotation_operands_release(&field->contenders[i].rotation, &field->contenders[i].operands);
    return KRY_OK;
}

kry_status race_layer_run(const struct race_setting *setting, const struct race_layer *layer,
                          struct race_rows *rows) {
    struct field *field = calloc(1, sizeof *field);
    if (field == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    field->setting = setting;
    field->layer = layer;
    kry_linear aligned;
    bool beside = layer->beside_aligned && race_aligned(&layer->linear, &aligned);
    kry_status status = draw_x(field);
    if (status == KRY_OK)
        status = add_contenders(field, &layer->linear, false);
    if (status == KRY_OK && beside) {
        field->aligned = aligned;
        status = add_contenders(field, &aligned, true);
    }
    for (size_t i = 0; i < layer->m_count && status == KRY_OK; i++)
        status = measure_m(field, layer->m[i], rows);
    release_field(field);
    free(field);
    return status;
}
