/*
 * Prepared weights in files: saved whole or not at all, mapped under their key alone; damaged,
 * foreign and stale ones are told apart.
 */
#include "fixture.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HEADER = 4096 /* where docs/prepared.md says that the weights begin */ };

static kry_status save_layer(const applied_layer *layer, const char *path, const char *content) {
    kry_save_args args = KRY_INIT(kry_save_args);
    args.path = path;
    args.content = content;
    return kry_layer_save(layer->layer, &args);
}

static kry_status map_layer(applied_layer *layer, const char *path, const char *content,
                            uint32_t flags) {
    kry_map_args args = KRY_INIT(kry_map_args);
    args.path = path;
    args.content = content;
    args.flags = flags;
    return kry_layer_map(layer->layer, &args);
}

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != KRY_OK)                                                                      \
            fail_msg("%s: %s", #call, kry_error_message());                                        \
    } while (0)

static void assert_applies(applied_layer *layer) {
    poison(layer);
    assert_ok(apply_layer(layer));
    assert_true(error_of(layer) < 1e-6);
}

static void assert_told(const char *word) {
    if (strstr(kry_error_message(), word) == NULL || strstr(kry_error_message(), "KRY-C21") == NULL)
        fail_msg("'%s' lacks '%s' or KRY-C21", kry_error_message(), word);
}

static int names_in(const char *folder) {
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

/* A layer, and a file with its weights in a folder of its own, as "model-1". */
struct saved {
    applied_layer layer;
    const char *folder;
    char path[FIXTURE_PATH];
};

static void make_saved(struct saved *out) {
    out->folder = scratch_folder();
    snprintf(out->path, sizeof out->path, "%s", path_in(out->folder, "layer.kry"));
    make_prepared(2, &out->layer);
    assert_ok(save_layer(&out->layer, out->path, "model-1"));
}

/* Another layer of the same description, whose expected numbers are the saved one's. */
static void make_twin(const struct saved *saved, applied_layer *twin) {
    make_small(2, twin);
    free_weights(&twin->plain);
    free_stored(&twin->stored);
    memset(&twin->stored, 0, sizeof twin->stored);
    twin->plain = saved->layer.plain; /* borrowed */
}

static void free_twin(applied_layer *twin) {
    memset(&twin->plain, 0, sizeof twin->plain);
    free_layer(twin);
}

/* ---- the way there and back ---------------------------------------------------------------- */

static void mapped_weights_give_the_saved_numbers(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    assert_int_equal(names_in(saved.folder), 1);
    kry_sizes sizes = KRY_INIT(kry_sizes);
    assert_ok(kry_layer_sizes(saved.layer.layer, &sizes));
    struct stat entry;
    assert_int_equal(stat(saved.path, &entry), 0);
    assert_int_equal(entry.st_size, HEADER + sizes.prepared_bytes);
    assert_int_equal(entry.st_mode & 0022, 0);
    const uint32_t ways[] = {0, KRY_MAP_COPY, KRY_MAP_UNVERIFIED,
                             KRY_MAP_COPY | KRY_MAP_UNVERIFIED};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        applied_layer twin;
        make_twin(&saved, &twin);
        assert_apply_refused(&twin, KRY_E_STATE);
        assert_ok(map_layer(&twin, saved.path, "model-1", ways[i]));
        assert_applies(&twin);
        assert_ok(map_layer(&twin, saved.path, "model-1", ways[(i + 1) % 4])); /* again */
        assert_applies(&twin);
        free_twin(&twin);
    }
    free_layer(&saved.layer);
}

static void mapped_layer_is_saved_again_under_another_key(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    applied_layer twin;
    make_twin(&saved, &twin);
    assert_ok(map_layer(&twin, saved.path, "model-1", 0));
    assert_ok(save_layer(&twin, saved.path, "model-1 renamed")); /* over what it is mapped from */
    assert_applies(&twin);
    assert_int_equal(map_layer(&twin, saved.path, "model-1", 0), KRY_E_STALE);
    assert_ok(map_layer(&twin, saved.path, "model-1 renamed", 0));
    assert_applies(&twin);
    assert_int_equal(names_in(saved.folder), 1);
    free_twin(&twin);
    free_layer(&saved.layer);
}

static void mapping_stays_as_it_was_when_its_file_is_replaced(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    applied_layer twin, other;
    make_twin(&saved, &twin);
    assert_ok(map_layer(&twin, saved.path, "model-1", 0));
    make_prepared(2, &other); /* other weights */
    assert_ok(save_layer(&other, saved.path, "model-2"));
    assert_applies(&twin);
    assert_int_equal(unlink(saved.path), 0);
    assert_applies(&twin);
    free_layer(&other);
    free_twin(&twin);
    free_layer(&saved.layer);
}

static void prepare_after_a_map_leaves_the_file_alone(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    content before = read_file(saved.path);
    applied_layer other;
    make_small(2, &other);
    assert_ok(map_layer(&other, saved.path, "model-1", 0));
    assert_ok(prepare_layer(&other)); /* into fresh memory: a mapping is read-only */
    assert_applies(&other);
    content after = read_file(saved.path);
    assert_int_equal(before.size, after.size);
    assert_memory_equal(before.bytes, after.bytes, before.size);
    free(before.bytes);
    free(after.bytes);
    free_layer(&other);
    free_layer(&saved.layer);
}

static void callers_buffer_is_filled_and_keeps_its_address(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    applied_layer twin;
    make_twin(&saved, &twin);
    kry_sizes sizes = KRY_INIT(kry_sizes);
    assert_ok(kry_layer_sizes(twin.layer, &sizes));
    unsigned char *buffer = make_room(sizes.prepared_bytes);
    kry_map_args args = KRY_INIT(kry_map_args);
    args.path = saved.path;
    args.content = "model-1";
    args.prepared = buffer;
    args.prepared_bytes = sizes.prepared_bytes - 1;
    args.prepared_memory = KRY_MEMORY_HOST;
    assert_int_equal(kry_layer_map(twin.layer, &args), KRY_E_ARGUMENT);
    args.prepared_bytes++;
    for (int i = 0; i < 2; i++) { /* as after a sleep: the buffer was lost, the address stays */
        memset(buffer, 0xee, sizes.prepared_bytes);
        assert_ok(kry_layer_map(twin.layer, &args));
        content file = read_file(saved.path);
        assert_memory_equal(buffer, file.bytes + HEADER, sizes.prepared_bytes);
        free(file.bytes);
        assert_applies(&twin);
    }
    free_twin(&twin);
    free(buffer);
    free_layer(&saved.layer);
}

/* ---- a file of several layers -------------------------------------------------------------- */

enum { SHARING = 3 };

/* Layers in one file, each with a content of its own. */
struct shared {
    applied_layer layers[SHARING];
    char path[FIXTURE_PATH];
    uint64_t bytes; /* of each, header too */
    uint64_t stride;
};

static const char *const shared_keys[SHARING] = {"a", "b", "c"};

static kry_status save_into(const struct shared *shared, int i) {
    kry_save_args args = KRY_INIT(kry_save_args);
    args.path = shared->path;
    args.content = shared_keys[i];
    args.offset = (uint64_t)i * shared->stride;
    args.flags = KRY_SAVE_INTO;
    return kry_layer_save(shared->layers[i].layer, &args);
}

static kry_status map_from(struct shared *shared, int i, int place, uint32_t flags) {
    kry_map_args args = KRY_INIT(kry_map_args);
    args.path = shared->path;
    args.content = shared_keys[i];
    args.offset = (uint64_t)place * shared->stride;
    args.bytes = shared->bytes;
    args.flags = flags;
    return kry_layer_map(shared->layers[i].layer, &args);
}

static void make_shared(struct shared *out) {
    snprintf(out->path, sizeof out->path, "%s", path_in(scratch_folder(), "model.kry"));
    kry_sizes sizes = KRY_INIT(kry_sizes);
    for (int i = 0; i < SHARING; i++)
        make_prepared(2, &out->layers[i]);
    assert_ok(kry_layer_sizes(out->layers[0].layer, &sizes));
    out->bytes = KRY_SAVED_HEADER + sizes.prepared_bytes;
    out->stride = (out->bytes + KRY_SAVED_HEADER - 1) / KRY_SAVED_HEADER * KRY_SAVED_HEADER;
    write_file(out->path, "", 0);
    for (int i = SHARING - 1; i >= 0; i--)
        assert_ok(save_into(out, i));
}

static void free_shared(struct shared *shared) {
    for (int i = 0; i < SHARING; i++)
        free_layer(&shared->layers[i]);
}

static void layers_that_share_a_file_are_each_mapped_from_their_place(void **state) {
    (void)state;
    struct shared shared;
    make_shared(&shared);
    struct stat entry;
    assert_int_equal(stat(shared.path, &entry), 0);
    assert_int_equal(entry.st_size, (SHARING - 1) * shared.stride + shared.bytes);
    const uint32_t ways[] = {0, KRY_MAP_UNVERIFIED, KRY_MAP_COPY};
    for (int way = 0; way < 3; way++)
        for (int i = 0; i < SHARING; i++) {
            assert_ok(map_from(&shared, i, i, ways[way]));
            assert_applies(&shared.layers[i]);
            assert_int_equal(map_from(&shared, i, (i + 1) % SHARING, ways[way]), KRY_E_STALE);
            assert_applies(&shared.layers[i]);
        }
    /* As a file of one's own it is too long, unless it is the last. */
    kry_map_args args = KRY_INIT(kry_map_args);
    args.path = shared.path;
    args.content = "a";
    assert_int_equal(kry_layer_map(shared.layers[0].layer, &args), KRY_E_FORMAT);
    args.content = "c";
    args.offset = 2 * shared.stride;
    assert_ok(kry_layer_map(shared.layers[2].layer, &args));
    assert_applies(&shared.layers[2]);
    free_shared(&shared);
}

static void damage_of_a_layer_leaves_the_others_of_its_file(void **state) {
    (void)state;
    struct shared shared;
    make_shared(&shared);
    content file = read_file(shared.path);
    for (int spoilt = 0; spoilt < SHARING; spoilt++) {
        unsigned char *at = file.bytes + (size_t)spoilt * shared.stride + HEADER + 5;
        *at ^= 1;
        write_file(shared.path, file.bytes, file.size);
        *at ^= 1;
        for (int i = 0; i < SHARING; i++)
            assert_int_equal(map_from(&shared, i, i, 0), i == spoilt ? KRY_E_FORMAT : KRY_OK);
        assert_int_equal(map_from(&shared, spoilt, spoilt, 0), KRY_E_FORMAT);
        assert_told("damaged");
        char place[32];
        snprintf(place, sizeof place, " at %llu ", (unsigned long long)spoilt * shared.stride);
        assert_non_null(strstr(kry_error_message(), place));
        assert_ok(prepare_layer(&shared.layers[spoilt]));
        assert_ok(save_into(&shared, spoilt)); /* nobody maps this one any more */
        assert_ok(map_from(&shared, spoilt, spoilt, 0));
        assert_applies(&shared.layers[spoilt]);
    }
    free(file.bytes);
    free_shared(&shared);
}

static void file_of_several_that_was_cut_has_lost_its_last(void **state) {
    (void)state;
    struct shared shared;
    make_shared(&shared);
    content file = read_file(shared.path);
    const size_t lengths[] = {file.size - 1, 2 * shared.stride + HEADER - 1, 2 * shared.stride,
                              shared.stride + shared.bytes};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        write_file(shared.path, file.bytes, lengths[i]);
        assert_int_equal(map_from(&shared, 2, 2, 0), KRY_E_FORMAT);
        assert_told("damaged");
        assert_ok(map_from(&shared, 1, 1, 0));
    }
    memset(file.bytes + shared.stride, 0, shared.stride); /* a hole, where nothing was saved yet */
    write_file(shared.path, file.bytes, file.size);
    assert_int_equal(map_from(&shared, 1, 1, 0), KRY_E_NOT_FOUND);
    assert_told("nothing is saved there");
    assert_ok(map_from(&shared, 2, 2, 0));
    free(file.bytes);
    free_shared(&shared);
}

/* An embedder whose structs end before the offset means a file of one layer. */
static void args_without_an_offset_are_taken(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    kry_save_args save = KRY_INIT(kry_save_args);
    kry_map_args map = KRY_INIT(kry_map_args);
    save.struct_size = offsetof(kry_save_args, offset);
    map.struct_size = offsetof(kry_map_args, offset);
    save.path = map.path = saved.path;
    save.content = map.content = "model-2";
    save.flags = 0xffff; /* none of theirs */
    map.offset = 7;
    assert_ok(kry_layer_save(saved.layer.layer, &save));
    assert_ok(kry_layer_map(saved.layer.layer, &map));
    assert_applies(&saved.layer);
    free_layer(&saved.layer);
}

static void places_that_cannot_be_are_refused(void **state) {
    (void)state;
    struct shared shared;
    make_shared(&shared);
    kry_save_args save = KRY_INIT(kry_save_args);
    kry_map_args map = KRY_INIT(kry_map_args);
    save.path = map.path = shared.path;
    save.content = map.content = "a";
    const kry_layer *layer = shared.layers[0].layer;
    save.offset = KRY_SAVED_HEADER; /* without KRY_SAVE_INTO */
    assert_int_equal(kry_layer_save(layer, &save), KRY_E_ARGUMENT);
    const uint64_t offsets[] = {1, KRY_SAVED_HEADER + 256, UINT64_MAX, UINT64_MAX - 4095};
    save.flags = KRY_SAVE_INTO;
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        save.offset = map.offset = offsets[i];
        assert_int_equal(kry_layer_save(layer, &save), KRY_E_ARGUMENT);
        assert_int_equal(kry_layer_map(shared.layers[0].layer, &map), KRY_E_ARGUMENT);
    }
    map.offset = (uint64_t)INT64_MAX / 4 / KRY_SAVED_HEADER * KRY_SAVED_HEADER; /* far behind it */
    assert_int_equal(kry_layer_map(shared.layers[0].layer, &map), KRY_E_FORMAT);
    save.offset = 0;
    save.flags = KRY_SAVE_INTO | 2;
    assert_int_equal(kry_layer_save(layer, &save), KRY_E_ARGUMENT);
    save.flags = KRY_SAVE_INTO;
    save.path = path_in(scratch_folder(), "absent.kry");
    assert_int_equal(kry_layer_save(layer, &save), KRY_E_IO);
    free_shared(&shared);
}

/* ---- damage ------------------------------------------------------------------------------- */

/* That a file of these bytes is refused, and that the layer keeps what it had. */
static kry_status map_damaged(applied_layer *layer, const char *path, const void *bytes,
                              size_t size) {
    write_file(path, bytes, size);
    return map_layer(layer, path, "model-1", 0);
}

static void file_cut_at_every_length_is_damaged(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    content file = read_file(saved.path);
    const char *path = path_in(saved.folder, "cut.kry");
    for (size_t size = 0; size < file.size; size++) {
        kry_status status = map_damaged(&saved.layer, path, file.bytes, size);
        if (status != KRY_E_FORMAT)
            fail_msg("%zu bytes: status %d (%s)", size, status, kry_error_message());
        assert_told("damaged");
    }
    unsigned char *longer = malloc(file.size + 1);
    assert_non_null(longer);
    memcpy(longer, file.bytes, file.size);
    longer[file.size] = 0;
    assert_int_equal(map_damaged(&saved.layer, path, longer, file.size + 1), KRY_E_FORMAT);
    assert_told("damaged");
    assert_ok(map_damaged(&saved.layer, path, longer, file.size));
    free(longer);
    free(file.bytes);
    free_layer(&saved.layer);
}

static void every_byte_that_is_changed_is_noticed(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    content file = read_file(saved.path);
    const char *path = path_in(saved.folder, "changed.kry");
    for (size_t at = 0; at < file.size; at++) {
        file.bytes[at] ^= (unsigned char)(1 << at % 8);
        kry_status status = map_damaged(&saved.layer, path, file.bytes, file.size);
        file.bytes[at] ^= (unsigned char)(1 << at % 8);
        /* A changed format number may as well be of a later library. */
        if (status != KRY_E_FORMAT && (status != KRY_E_FOREIGN || at >= 16))
            fail_msg("byte %zu: status %d (%s)", at, status, kry_error_message());
        assert_told(at < 8                    ? "no file of prepared weights"
                    : status == KRY_E_FOREIGN ? "foreign"
                                              : "damaged");
    }
    assert_applies(&saved.layer); /* the layer is as it was */
    free(file.bytes);
    free_layer(&saved.layer);
}

static void damage_of_weights_passes_only_unverified(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    content file = read_file(saved.path);
    file.bytes[HEADER + 3] ^= 1;
    write_file(saved.path, file.bytes, file.size);
    assert_int_equal(map_layer(&saved.layer, saved.path, "model-1", 0), KRY_E_FORMAT);
    assert_ok(map_layer(&saved.layer, saved.path, "model-1", KRY_MAP_UNVERIFIED));
    free(file.bytes);
    free_layer(&saved.layer);
}

/* ---- foreign and stale -------------------------------------------------------------------- */

static void file_of_other_weights_is_stale(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    assert_int_equal(map_layer(&saved.layer, saved.path, "model-2", 0), KRY_E_STALE);
    assert_told("of weights 'model-1', expected 'model-2'");
    assert_int_equal(map_layer(&saved.layer, saved.path, "model-", 0), KRY_E_STALE);
    assert_int_equal(map_layer(&saved.layer, saved.path, "model-11", 0), KRY_E_STALE);
    assert_applies(&saved.layer);
    free_layer(&saved.layer);
}

static void assert_foreign(struct saved *saved, kry_registry *to, const kry_linear *linear,
                           const char *told) {
    applied_layer layer;
    make_layer(to, "cpu", linear, 2, &layer);
    assert_int_equal(map_layer(&layer, saved->path, "model-1", 0), KRY_E_FOREIGN);
    assert_told(told);
    assert_apply_refused(&layer, KRY_E_STATE);
    free_layer(&layer);
}

static void file_of_another_description_is_foreign(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    kry_linear linear = small_layer();
    linear.out_features = 14;
    assert_foreign(&saved, registry, &linear, "of description 70x13 g32 u4 f32, expected 70x14");
    linear = small_layer();
    linear.group_size = 16;
    assert_foreign(&saved, registry, &linear, "expected 70x13 g16");
    linear = small_layer();
    linear.full_in_features = 140;
    linear.k_offset = 32;
    assert_foreign(&saved, registry, &linear, "expected 70x13 at k 32 of 140");
    linear = small_layer();
    linear.full_out_features = 26;
    assert_foreign(&saved, registry, &linear, "which differ in other fields");
    free_layer(&saved.layer);
}

static void file_of_another_layout_is_foreign(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    kry_linear linear = small_layer();
    kry_registry *later = open_mocks(NULL, "layout_later.so", NULL);
    assert_foreign(&saved, later, &linear,
                   "of layout mock-dense version 1, expected mock-dense "
                   "version 2");
    kry_registry_close(&later);
    kry_registry *other = open_mocks(NULL, "layout_other.so", NULL);
    assert_foreign(&saved, other, &linear, "expected mock-dense-2 version 1");
    kry_registry_close(&other);
    kry_registry *larger = open_mocks(NULL, "layout_larger.so", NULL);
    assert_foreign(&saved, larger, &linear, "bytes in layout mock-dense");
    kry_registry_close(&larger);
    free_layer(&saved.layer);
}

/* As another machine would have written it: every number of the header turned around. */
static void file_of_the_other_byte_order_is_foreign(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    content file = read_file(saved.path);
    for (int i = 0; i < 2; i++) {
        unsigned char kept = file.bytes[8 + i];
        file.bytes[8 + i] = file.bytes[11 - i];
        file.bytes[11 - i] = kept;
    }
    assert_int_equal(map_damaged(&saved.layer, saved.path, file.bytes, file.size), KRY_E_FOREIGN);
    assert_told("byte order");
    free(file.bytes);
    free_layer(&saved.layer);
}

/* A header that is whole and holds nonsense, as a writer gone wrong would leave it. */
static void header_of_nonsense_with_a_right_hash_does_no_harm(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    content file = read_file(saved.path);
    for (size_t at = 40; at < 48 + 128 + 256 + 256; at += 4) {
        unsigned char kept[8];
        memcpy(kept, file.bytes + at, sizeof kept);
        memset(file.bytes + at, 0xfe, sizeof kept);
        memset(file.bytes + 16, 0, 8);
        uint64_t hash = kry_hash64(file.bytes, HEADER, 0);
        memcpy(file.bytes + 16, &hash, 8);
        kry_status status = map_damaged(&saved.layer, saved.path, file.bytes, file.size);
        if (status != KRY_E_FOREIGN && status != KRY_E_STALE && status != KRY_E_FORMAT)
            fail_msg("byte %zu: status %d (%s)", at, status, kry_error_message());
        memcpy(file.bytes + at, kept, sizeof kept);
    }
    assert_applies(&saved.layer);
    free(file.bytes);
    free_layer(&saved.layer);
}

/* ---- who wrote it, and what it is ----------------------------------------------------------- */

static void file_that_others_may_write_is_not_trusted(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    assert_int_equal(chmod(saved.path, 0666), 0);
    assert_int_equal(map_layer(&saved.layer, saved.path, "model-1", 0), KRY_E_TRUST);
    assert_non_null(strstr(kry_error_message(), "may be written by anyone (mode 666)"));
    assert_ok(map_layer(&saved.layer, saved.path, "model-1", KRY_MAP_RELAX_TRUST));
    assert_int_equal(chmod(saved.path, 0644), 0);
    assert_int_equal(chmod(saved.folder, 0777), 0);
    assert_int_equal(map_layer(&saved.layer, saved.path, "model-1", 0), KRY_E_TRUST);
    assert_int_equal(chmod(saved.folder, 0700), 0);
    assert_ok(map_layer(&saved.layer, saved.path, "model-1", 0));
    free_layer(&saved.layer);
}

static void path_that_is_no_file_is_refused(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    char path[FIXTURE_PATH];
    snprintf(path, sizeof path, "%s", path_in(saved.folder, "absent.kry"));
    assert_int_equal(map_layer(&saved.layer, path, "model-1", 0), KRY_E_NOT_FOUND);
    assert_non_null(strstr(kry_error_message(), path));
    assert_int_equal(map_layer(&saved.layer, saved.folder, "model-1", 0), KRY_E_FORMAT);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(map_layer(&saved.layer, path, "model-1", 0), KRY_E_FORMAT);
    assert_told("no regular file");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink(saved.path, path), 0); /* what it points to is what is checked */
    assert_ok(map_layer(&saved.layer, path, "model-1", 0));
    free_layer(&saved.layer);
}

static void wrong_arguments_are_refused(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    char content[KRY_CONTENT_MAX + 2];
    memset(content, 'k', sizeof content);
    content[KRY_CONTENT_MAX + 1] = '\0';
    const char *const keys[] = {NULL, "", content, "two\nlines", "caf\xc3\xa9"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        assert_int_equal(save_layer(&saved.layer, saved.path, keys[i]), KRY_E_ARGUMENT);
        assert_int_equal(map_layer(&saved.layer, saved.path, keys[i], 0), KRY_E_ARGUMENT);
    }
    content[KRY_CONTENT_MAX] = '\0';
    assert_ok(save_layer(&saved.layer, saved.path, content));
    assert_ok(map_layer(&saved.layer, saved.path, content, 0));
    assert_int_equal(save_layer(&saved.layer, NULL, "k"), KRY_E_ARGUMENT);
    assert_int_equal(save_layer(&saved.layer, "", "k"), KRY_E_ARGUMENT);
    assert_int_equal(map_layer(&saved.layer, NULL, "k", 0), KRY_E_ARGUMENT);
    assert_int_equal(map_layer(&saved.layer, saved.path, "k", 8), KRY_E_ARGUMENT);
    assert_int_equal(kry_layer_map(saved.layer.layer, NULL), KRY_E_ARGUMENT);
    assert_int_equal(kry_layer_save(saved.layer.layer, NULL), KRY_E_ARGUMENT);
    kry_map_args map = KRY_INIT(kry_map_args);
    kry_save_args save = KRY_INIT(kry_save_args);
    save.path = map.path = saved.path;
    save.content = map.content = content;
    assert_int_equal(kry_layer_map(NULL, &map), KRY_E_ARGUMENT);
    assert_int_equal(kry_layer_save(NULL, &save), KRY_E_ARGUMENT);
    map.struct_size = save.struct_size = 16;
    assert_int_equal(kry_layer_map(saved.layer.layer, &map), KRY_E_ABI);
    assert_int_equal(kry_layer_save(saved.layer.layer, &save), KRY_E_ABI);
    assert_int_equal(names_in(saved.folder), 1);
    free_layer(&saved.layer);
}

/* ---- what fails ----------------------------------------------------------------------------- */

static void layer_without_weights_is_not_saved(void **state) {
    (void)state;
    const char *folder = scratch_folder();
    applied_layer layer;
    make_small(2, &layer);
    assert_int_equal(save_layer(&layer, path_in(folder, "a.kry"), "k"), KRY_E_STATE);
    assert_int_equal(names_in(folder), 0);
    free_layer(&layer);
}

static void layer_that_lost_its_weights_is_not_saved(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    kry_registry *failing = open_mocks(NULL, "fail_prepare.so", NULL);
    kry_linear linear = small_layer();
    applied_layer layer;
    make_layer(failing, "cpu", &linear, 2, &layer);
    assert_ok(map_layer(&layer, saved.path, "model-1", 0));
    assert_ok(save_layer(&layer, saved.path, "model-1"));
    assert_int_equal(prepare_layer(&layer), KRY_E_DEVICE);
    assert_apply_refused(&layer, KRY_E_STATE);
    assert_int_equal(save_layer(&layer, saved.path, "model-1"), KRY_E_STATE);
    assert_ok(map_layer(&layer, saved.path, "model-1", 0));
    assert_ok(apply_layer(&layer));
    free_layer(&layer);
    kry_registry_close(&failing);
    free_layer(&saved.layer);
}

/* A limit of the process's, past which writes fail as on a full disk. Returns the one before. */
static rlim_t limit_files(rlim_t bytes) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    return before;
}

static void full_disk_leaves_nothing_behind(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    content before = read_file(saved.path);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    const size_t room[] = {0, 1, HEADER, HEADER + 1, before.size - 1};
    for (size_t i = 0; i < sizeof room / sizeof room[0]; i++) {
        rlim_t kept = limit_files(room[i]);
        kry_status over = save_layer(&saved.layer, saved.path, "model-2");
        kry_status fresh = save_layer(&saved.layer, path_in(saved.folder, "new.kry"), "model-2");
        limit_files(kept);
        assert_int_equal(over, KRY_E_IO);
        assert_int_equal(fresh, KRY_E_IO);
        assert_non_null(strstr(kry_error_message(), strerror(EFBIG)));
        assert_int_equal(names_in(saved.folder), 1);
    }
    signal(SIGXFSZ, handler);
    content after = read_file(saved.path);
    assert_memory_equal(before.bytes, after.bytes, before.size);
    free(before.bytes);
    free(after.bytes);
    free_layer(&saved.layer);
}

static void full_disk_costs_a_file_of_several_one_layer_at_most(void **state) {
    (void)state;
    struct shared shared;
    make_shared(&shared);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    const uint64_t room[] = {0, HEADER, HEADER + 1, shared.bytes - 1};
    for (size_t i = 0; i < sizeof room / sizeof room[0]; i++) {
        assert_int_equal(truncate(shared.path, (off_t)(2 * shared.stride)), 0);
        rlim_t kept = limit_files(2 * shared.stride + room[i]);
        kry_status saved = save_into(&shared, 2);
        limit_files(kept);
        assert_int_equal(saved, KRY_E_IO);
        assert_non_null(strstr(kry_error_message(), strerror(EFBIG)));
        kry_status status = map_from(&shared, 2, 2, 0);
        assert_true(status == KRY_E_NOT_FOUND || status == KRY_E_FORMAT);
        assert_ok(map_from(&shared, 0, 0, 0));
        assert_ok(map_from(&shared, 1, 1, 0));
    }
    signal(SIGXFSZ, handler);
    assert_ok(save_into(&shared, 2));
    assert_ok(map_from(&shared, 2, 2, 0));
    for (int i = 0; i < SHARING; i++)
        assert_applies(&shared.layers[i]);
    free_shared(&shared);
}

static void place_that_cannot_be_written_is_an_error(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    const char *folder = path_in(saved.folder, "folder");
    assert_int_equal(save_layer(&saved.layer, path_in(folder, "a.kry"), "k"), KRY_E_IO);
    assert_non_null(strstr(kry_error_message(), strerror(ENOENT)));
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(save_layer(&saved.layer, folder, "k"), KRY_E_IO); /* a folder is in the way */
    assert_non_null(strstr(kry_error_message(), strerror(EISDIR)));
    assert_int_equal(names_in(saved.folder), 2);
    free_layer(&saved.layer);
}

static void kernel_that_fails_to_bind_leaves_the_layer_without_weights(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    kry_registry *failing = open_mocks(NULL, "fail_bind.so", NULL);
    kry_linear linear = small_layer();
    for (uint32_t flags = 0; flags <= KRY_MAP_COPY; flags += KRY_MAP_COPY) {
        applied_layer layer;
        make_layer(failing, "cpu", &linear, 2, &layer);
        assert_int_equal(map_layer(&layer, saved.path, "model-1", flags), KRY_E_DEVICE);
        assert_non_null(strstr(kry_error_message(), "bind failed on purpose"));
        assert_apply_refused(&layer, KRY_E_STATE);
        assert_int_equal(save_layer(&layer, saved.path, "model-1"), KRY_E_STATE);
        free_layer(&layer);
    }
    kry_registry_close(&failing);
    free_layer(&saved.layer);
}

static bool host_fails;

static void *fail_allocate(void *context, size_t bytes, size_t alignment) {
    (void)context;
    void *memory = NULL;
    if (host_fails || posix_memalign(&memory, alignment < 8 ? 8 : alignment, bytes) != 0)
        return NULL;
    return memory;
}

static void fail_release(void *context, void *memory, size_t bytes) {
    (void)context;
    (void)bytes;
    free(memory);
}

static void host_out_of_memory_leaves_the_layer_as_it_was(void **state) {
    (void)state;
    struct saved saved;
    make_saved(&saved);
    kry_host host = KRY_INIT(kry_host);
    host.allocate = fail_allocate;
    host.release = fail_release;
    const char *paths[1] = {mock_path("dense.so")};
    kry_registry_options options = closed_options(paths, 1);
    options.host = &host;
    kry_registry *own = open_options(options, NULL);
    kry_registry *kept = registry;
    registry = own;
    applied_layer twin;
    make_twin(&saved, &twin);
    registry = kept;
    host_fails = true;
    assert_int_equal(map_layer(&twin, saved.path, "model-1", KRY_MAP_COPY), KRY_E_MEMORY);
    assert_apply_refused(&twin, KRY_E_STATE);
    assert_ok(map_layer(&twin, saved.path, "model-1", 0)); /* needs no memory */
    assert_int_equal(map_layer(&twin, saved.path, "model-1", KRY_MAP_COPY), KRY_E_MEMORY);
    assert_applies(&twin);
    host_fails = false;
    assert_ok(map_layer(&twin, saved.path, "model-1", KRY_MAP_COPY));
    assert_applies(&twin);
    free_twin(&twin);
    kry_registry_close(&own);
    free_layer(&saved.layer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mapped_weights_give_the_saved_numbers),
        cmocka_unit_test(mapped_layer_is_saved_again_under_another_key),
        cmocka_unit_test(mapping_stays_as_it_was_when_its_file_is_replaced),
        cmocka_unit_test(prepare_after_a_map_leaves_the_file_alone),
        cmocka_unit_test(callers_buffer_is_filled_and_keeps_its_address),
        cmocka_unit_test(layers_that_share_a_file_are_each_mapped_from_their_place),
        cmocka_unit_test(damage_of_a_layer_leaves_the_others_of_its_file),
        cmocka_unit_test(file_of_several_that_was_cut_has_lost_its_last),
        cmocka_unit_test(args_without_an_offset_are_taken),
        cmocka_unit_test(places_that_cannot_be_are_refused),
        cmocka_unit_test(file_cut_at_every_length_is_damaged),
        cmocka_unit_test(every_byte_that_is_changed_is_noticed),
        cmocka_unit_test(damage_of_weights_passes_only_unverified),
        cmocka_unit_test(file_of_other_weights_is_stale),
        cmocka_unit_test(file_of_another_description_is_foreign),
        cmocka_unit_test(file_of_another_layout_is_foreign),
        cmocka_unit_test(file_of_the_other_byte_order_is_foreign),
        cmocka_unit_test(header_of_nonsense_with_a_right_hash_does_no_harm),
        cmocka_unit_test(file_that_others_may_write_is_not_trusted),
        cmocka_unit_test(path_that_is_no_file_is_refused),
        cmocka_unit_test(wrong_arguments_are_refused),
        cmocka_unit_test(layer_without_weights_is_not_saved),
        cmocka_unit_test(layer_that_lost_its_weights_is_not_saved),
        cmocka_unit_test(full_disk_leaves_nothing_behind),
        cmocka_unit_test(full_disk_costs_a_file_of_several_one_layer_at_most),
        cmocka_unit_test(place_that_cannot_be_written_is_an_error),
        cmocka_unit_test(kernel_that_fails_to_bind_leaves_the_layer_without_weights),
        cmocka_unit_test(host_out_of_memory_leaves_the_layer_as_it_was),
    };
    return cmocka_run_group_tests_name("loader save", tests, open_dense, close_registry) ? 1 : 0;
}
