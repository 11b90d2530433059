/*
 * Layers as serving stacks run them.
 */
#include "fuse.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Siblings that stacks fuse, in the order of their rows. */
static const struct family {
    const char *fused;
    const char *parts[PARTS_MOST]; /* NULL where there are two */
} families[] = {
    {"qkv_proj", {"q_proj", "k_proj", "v_proj"}},
    {"qkv_proj", {"query", "key", "value"}},
    {"wqkv", {"wq", "wk", "wv"}},
    {"gate_up_proj", {"gate_proj", "up_proj"}},
    {"w13", {"w1", "w3"}},
    {"fused_qkv_a_proj", {"q_a_proj", "kv_a_proj_with_mqa"}},
    {"in_proj_qkvz", {"in_proj_qkv", "in_proj_z"}},
    {"in_proj_ba", {"in_proj_b", "in_proj_a"}},
};

static const char *const row_names[] = {"o_proj", "out_proj", "down_proj", "wo",
                                        "w2",     "fc2",      "c_proj",    "dense_4h_to_h"};

/* Projections to a narrow space that every rank needs whole, and routers. */
static const char *const replicated_names[] = {
    "q_a_proj", "kv_a_proj_with_mqa", "fused_qkv_a_proj", "gate", "router", "shared_expert_gate"};

static bool is_among(const char *const *names, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(names[i], name))
            return true;
    return false;
}

/* Bytes of the name before its last component, the dot included; 0 where there is no dot. */
static size_t parent_bytes(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot ? (size_t)(dot - name) + 1 : 0;
}

/* `dense` closes a block (BERT's output.dense, Falcon's) unless it opens one. */
static bool is_closing_dense(const char *name, size_t parent) {
    static const char opening[] = "intermediate.";
    size_t length = sizeof opening - 1;
    return !strcmp(name + parent, "dense") &&
           !(parent >= length && !memcmp(name + parent - length, opening, length));
}

static enum parallel parallel_of(const char *name) {
    size_t parent = parent_bytes(name);
    if (is_among(row_names, COUNT(row_names), name + parent) || is_closing_dense(name, parent))
        return PARALLEL_ROW;
    if (is_among(replicated_names, COUNT(replicated_names), name + parent))
        return PARALLEL_REPLICATED;
    return PARALLEL_COLUMN;
}

const char *parallel_word(enum parallel parallel) {
    static const char *const words[] = {"column", "row", "replicated"};
    return words[parallel];
}

char *name_pattern(const char *name) {
    char *pattern = malloc(strlen(name) + 1), *end = pattern;
    while (pattern && *name) {
        size_t length = strcspn(name, "."), digits = strspn(name, "0123456789");
        if (length && digits == length) {
            *end++ = '*';
        } else {
            memcpy(end, name, length);
            end += length;
        }
        name += length;
        if (*name)
            *end++ = *name++;
    }
    if (pattern)
        *end = '\0';
    return pattern;
}

/* ---- lists --------------------------------------------------------------------------- */

/* Append a unit; its name is copied. The capacity is the next power of two. */
static kry_status append(struct units *units, const struct unit *unit) {
    if (!(units->count & (units->count - 1))) {
        size_t capacity = units->count ? 2 * units->count : 1;
        struct unit *grown = realloc(units->items, capacity * sizeof *grown);
        if (!grown)
            return kry_error_set(KRY_E_MEMORY, "out of memory");
        units->items = grown;
    }
    char *name = strdup(unit->name);
    if (!name)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    units->items[units->count] = *unit;
    units->items[units->count++].name = name;
    return KRY_OK;
}

kry_status units_add(struct units *units, const char *name, kry_status layer_status,
                     const char *reason, const kry_linear *linear) {
    struct unit unit = {.name = (char *)name, /* append copies it */
                        .reason = reason,
                        .status = layer_status,
                        .parallel = parallel_of(name),
                        .part_count = 1};
    if (!layer_status) {
        unit.linear = *linear;
        unit.parts[0] = linear->out_features;
    }
    return append(units, &unit);
}

void units_free(struct units *units) {
    for (size_t i = 0; i < units->count; i++)
        free(units->items[i].name);
    free(units->items);
    *units = (struct units){0};
}

/* ---- fusing -------------------------------------------------------------------------- */

/* A stored layer in the order that brings siblings together. */
struct sibling {
    const struct unit *unit;
    size_t parent; /* bytes of its name */
    size_t index;  /* among the stored ones */
};

static int compare_parents(const struct sibling *a, const struct sibling *b) {
    size_t least = a->parent < b->parent ? a->parent : b->parent;
    int order = memcmp(a->unit->name, b->unit->name, least);
    return order ? order : (a->parent > b->parent) - (a->parent < b->parent);
}

static int compare_siblings(const void *left, const void *right) {
    const struct sibling *a = left, *b = right;
    int order = compare_parents(a, b);
    return order ? order : (a->index > b->index) - (a->index < b->index);
}

static bool agree(const kry_linear *a, const kry_linear *b) {
    kry_linear other = *b;
    other.out_features = a->out_features;
    other.full_out_features = a->full_out_features;
    return !memcmp(a, &other, sizeof other);
}

static size_t part_count(const struct family *family) {
    return family->parts[PARTS_MOST - 1] ? PARTS_MOST : PARTS_MOST - 1;
}

/* Find the parts of a family among siblings, as stored indices. */
static bool find_parts(const struct family *family, const struct sibling *siblings, size_t count,
                       size_t parts[PARTS_MOST]) {
    const struct unit *first = NULL;
    int64_t out_features = 0;
    for (size_t p = 0; p < part_count(family); p++) {
        size_t i = 0;
        while (i < count &&
               strcmp(siblings[i].unit->name + siblings[i].parent, family->parts[p]) != 0)
            i++;
        if (i == count || siblings[i].unit->status)
            return false;
        if (!first)
            first = siblings[i].unit;
        out_features += siblings[i].unit->linear.out_features;
        if (!agree(&first->linear, &siblings[i].unit->linear) || out_features > KRY_FEATURES_MAX)
            return false;
        parts[p] = siblings[i].index;
    }
    return true;
}

/* What becomes of a stored layer. */
struct fate {
    const struct family *family; /* set on the first part in stored order */
    size_t parts[PARTS_MOST];
    bool absorbed; /* a part of one that comes earlier */
};

static void fuse_siblings(const struct sibling *siblings, size_t count, struct fate *fates) {
    for (size_t f = 0; f < COUNT(families); f++) {
        size_t parts[PARTS_MOST];
        if (!find_parts(&families[f], siblings, count, parts))
            continue;
        size_t first = parts[0];
        for (size_t p = 0; p < part_count(&families[f]); p++) {
            fates[parts[p]].absorbed = true;
            if (parts[p] < first)
                first = parts[p];
        }
        fates[first].absorbed = false;
        fates[first].family = &families[f];
        memcpy(fates[first].parts, parts, sizeof parts);
    }
}

static kry_status append_fused(struct units *units, const struct units *stored,
                               const struct fate *fate) {
    struct unit fused = stored->items[fate->parts[0]];
    char *name = NULL;
    if (asprintf(&name, "%.*s%s", (int)parent_bytes(fused.name), fused.name, fate->family->fused) <
        0)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    fused.name = name;
    fused.parallel = parallel_of(name);
    fused.part_count = part_count(fate->family);
    fused.linear.out_features = 0;
    for (size_t p = 0; p < fused.part_count; p++) {
        fused.parts[p] = stored->items[fate->parts[p]].linear.out_features;
        fused.linear.out_features += fused.parts[p];
    }
    fused.linear.full_out_features = fused.linear.out_features;
    kry_status status = append(units, &fused);
    free(name);
    return status;
}

kry_status units_fuse(const struct units *stored, struct units *out) {
    struct units units = {0};
    struct sibling *siblings = calloc(stored->count + 1, sizeof *siblings);
    struct fate *fates = calloc(stored->count + 1, sizeof *fates);
    kry_status status = KRY_OK;
    if (!siblings || !fates) {
        status = kry_error_set(KRY_E_MEMORY, "out of memory");
        goto out;
    }
    for (size_t i = 0; i < stored->count; i++)
        siblings[i] = (struct sibling){&stored->items[i], parent_bytes(stored->items[i].name), i};
    qsort(siblings, stored->count, sizeof *siblings, compare_siblings);
    for (size_t begin = 0, end; begin < stored->count; begin = end) {
        for (end = begin + 1; end < stored->count; end++)
            if (compare_parents(&siblings[begin], &siblings[end]))
                break;
        fuse_siblings(siblings + begin, end - begin, fates);
    }
    for (size_t i = 0; i < stored->count && !status; i++)
        if (fates[i].family)
            status = append_fused(&units, stored, &fates[i]);
        else if (!fates[i].absorbed)
            status = append(&units, &stored->items[i]);
out:
    free(siblings);
    free(fates);
    if (status)
        units_free(&units);
    else
        *out = units;
    return status;
}

/* ---- partitions ---------------------------------------------------------------------- */

kry_status unit_partition(const struct unit *unit, int64_t ranks, int64_t rank, kry_linear *out) {
    kry_linear linear = unit->linear;
    if (ranks == 1) { /* it may be a partition already */
        *out = linear;
        return KRY_OK;
    }
    if (unit->parallel == PARALLEL_ROW) {
        if (linear.in_features % ranks)
            return kry_error_set(KRY_E_UNSUPPORTED,
                                 "in_features %" PRId64 " do not divide by %" PRId64 " ranks",
                                 linear.in_features, ranks);
        linear.in_features /= ranks;
        linear.k_offset = rank * linear.in_features;
    } else if (unit->parallel == PARALLEL_COLUMN) {
        for (size_t p = 0; p < unit->part_count; p++)
            if (unit->parts[p] % ranks)
                return kry_error_set(KRY_E_UNSUPPORTED,
                                     "out_features %" PRId64 " do not divide by %" PRId64 " ranks",
                                     unit->parts[p], ranks);
        linear.out_features /= ranks;
    }
    *out = linear;
    return KRY_OK;
}

static int64_t place_in_group(const kry_linear *linear) {
    return linear->group_size > 0 && !linear->act_order ? linear->k_offset % linear->group_size : 0;
}

bool same_but_place(const kry_linear *a, const kry_linear *b) {
    kry_linear other = *b;
    other.k_offset = a->k_offset;
    return !memcmp(a, &other, sizeof other) && place_in_group(a) == place_in_group(b);
}
