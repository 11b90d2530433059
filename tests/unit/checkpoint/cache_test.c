/*
 * The file of a model's prepared weights: layers are found where they were saved, whatever was put
 * there in the meantime is noticed, and the file changes as a whole or not at all.
 */
#include "cpu_registry.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LAYERS = 2 };

static const char *const names[LAYERS] = {"model.down", "model.up"};
static kry_layer *layers[LAYERS];
static kry_checkpoint_cache *cache;
static char folder[96];

/* The one file in the cache's folder, NULL where there is none; fails the test for more. */
static const char *only_file(void) {
    static char path[512];
    DIR *entries = opendir(folder);
    assert_non_null(entries);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (entry->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            count++;
        }
    closedir(entries);
    assert_in_range(count, 0, 1);
    return count == 1 ? path : NULL;
}

static kry_layer *make_layer(size_t index, const char *kernel) {
    kry_linear linear = KRY_INIT(kry_linear);
    assert_int_equal(kry_checkpoint_slice(model.checkpoint, index, NULL, &linear), KRY_OK);
    kry_layer_args args = KRY_INIT(kry_layer_args);
    kry_layer *layer = NULL;
    args.device = &cpu;
    args.linear = &linear;
    args.kernel = kernel;
    if (kry_layer_create(registry, &args, &layer) != KRY_OK)
        fail_msg("%s", kry_error_message());
    return layer;
}

static void prepare_layer(size_t index) {
    kry_checkpoint_weights *weights = NULL;
    assert_int_equal(kry_checkpoint_weights_create(model.checkpoint, index, NULL, &weights),
                     KRY_OK);
    kry_prepare_args args = KRY_INIT(kry_prepare_args);
    args.weights = weights->weights;
    assert_int_equal(kry_layer_prepare(layers[index], &args), KRY_OK);
    kry_checkpoint_weights_destroy(&weights);
}

/* A start's layers without weights, and their cache. */
static void begin(const char *kernel) {
    assert_int_equal(kry_checkpoint_cache_open(folder, model.folder, &cache), KRY_OK);
    for (size_t i = 0; i < LAYERS; i++) {
        layers[i] = make_layer(i, kernel);
        assert_int_equal(kry_checkpoint_cache_add(cache, names[i], layers[i]), KRY_OK);
    }
}

static void end(void) {
    kry_checkpoint_cache_close(&cache);
    assert_null(cache);
    for (size_t i = 0; i < LAYERS; i++)
        kry_layer_destroy(&layers[i]);
}

static kry_status map(size_t index, const char *content) {
    kry_map_args args = KRY_INIT(kry_map_args);
    args.content = content;
    assert_int_equal(kry_checkpoint_cache_find(cache, names[index], &args), KRY_OK);
    return kry_layer_map(layers[index], &args);
}

static void save(size_t index, const char *content) {
    kry_save_args args = KRY_INIT(kry_save_args);
    args.content = content;
    prepare_layer(index);
    assert_int_equal(kry_checkpoint_cache_renew(cache, names[index], &args), KRY_OK);
    assert_int_equal(kry_layer_save(layers[index], &args), KRY_OK);
}

/* What a start does: each layer's status of its map, mended where that is no good. */
static void start(const char *content, kry_status first, kry_status second) {
    const kry_status expected[LAYERS] = {first, second};
    begin(NULL);
    for (size_t i = 0; i < LAYERS; i++) {
        kry_status status = map(i, content);
        if (status != expected[i])
            fail_msg("layer %zu: status %d, expected %d: %s", i, status, expected[i],
                     kry_error_message());
        if (status != KRY_OK)
            save(i, content);
    }
    assert_int_equal(kry_checkpoint_cache_commit(cache), KRY_OK);
    end();
    assert_non_null(only_file());
}

static int setup_cache(void **state) {
    setup_with_problem(state);
    write_gptq(&problem, &file, names[0], WITH_G_IDX);
    write_gptq(&problem, &file, names[1], WITH_G_IDX);
    tensors_write(&file, &model, "model.safetensors");
    model_text(&model, "config.json",
               "{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, "
               "\"group_size\": 32, \"sym\": false, \"checkpoint_format\": \"gptq_v2\"}}");
    model_open_well(&model);
    snprintf(folder, sizeof folder, "%s.cache", model.folder);
    return mkdir(folder, 0755);
}

static int teardown_cache(void **state) {
    end();
    for (const char *path; (path = only_file()) != NULL;)
        if (remove(path) != 0)
            return -1;
    return rmdir(folder) != 0 ? -1 : teardown(state);
}

static void spoil(const char *path, off_t at) {
    unsigned char byte;
    int descriptor = open(path, O_RDWR);
    assert_int_equal(pread(descriptor, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(descriptor, &byte, 1, at), 1);
    close(descriptor);
}

static ino_t inode_of(const char *path) {
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    return info.st_ino;
}

/* ---- what is found ------------------------------------------------------------------- */

static void layers_that_were_saved_are_mapped(void **state) {
    (void)state;
    start("weights 1", KRY_E_NOT_FOUND, KRY_E_NOT_FOUND);
    ino_t before = inode_of(only_file());
    start("weights 1", KRY_OK, KRY_OK);
    assert_int_equal(inode_of(only_file()), before); /* not replaced */
}

static void layers_that_are_no_good_are_told_apart_and_the_others_stay(void **state) {
    (void)state;
    start("weights 1", KRY_E_NOT_FOUND, KRY_E_NOT_FOUND);
    spoil(only_file(), KRY_SAVED_HEADER + 3);
    start("weights 1", KRY_E_FORMAT, KRY_OK);
    start("weights 1", KRY_OK, KRY_OK);
    start("weights 2", KRY_E_STALE, KRY_E_STALE);
    start("weights 2", KRY_OK, KRY_OK);
    assert_int_equal(truncate(only_file(), KRY_SAVED_HEADER + 5), 0);
    start("weights 2", KRY_E_FORMAT, KRY_E_FORMAT);
    start("weights 2", KRY_OK, KRY_OK);
}

static void layer_that_nobody_saved_is_missing(void **state) {
    (void)state;
    begin(NULL);
    save(1, "weights 1");
    assert_int_equal(kry_checkpoint_cache_commit(cache), KRY_OK);
    end();
    start("weights 1", KRY_E_NOT_FOUND, KRY_OK);
    start("weights 1", KRY_OK, KRY_OK);
}

/* Files of before this library made them are found: these are the name and the places. */
static void file_is_named_after_model_and_layers(void **state) {
    (void)state;
    begin("reference");
    kry_map_args first = KRY_INIT(kry_map_args), second = KRY_INIT(kry_map_args);
    assert_int_equal(kry_checkpoint_cache_find(cache, names[0], &first), KRY_OK);
    assert_int_equal(kry_checkpoint_cache_find(cache, names[1], &second), KRY_OK);
    kry_sizes sizes = KRY_INIT(kry_sizes);
    assert_int_equal(kry_layer_sizes(layers[0], &sizes), KRY_OK);
    assert_int_equal(first.offset, 0);
    assert_int_equal(first.bytes, KRY_SAVED_HEADER + sizes.prepared_bytes);
    assert_int_equal(second.offset,
                     (first.bytes + KRY_SAVED_HEADER - 1) / KRY_SAVED_HEADER * KRY_SAVED_HEADER);
    char expected[512];
    uint64_t hash = 0;
    for (size_t i = 0; i < LAYERS; i++) {
        kry_kernel_info kernel = KRY_INIT(kry_kernel_info);
        assert_int_equal(kry_layer_kernel(layers[i], &kernel), KRY_OK);
        hash = kry_hash64(names[i], strlen(names[i]), hash);
        hash = kry_hash64(&kernel.layout_version, 4, hash);
        hash = kry_hash64(kernel.layout_name, strlen(kernel.layout_name), hash);
        hash = kry_hash64(kry_layer_linear(layers[i], 1), sizeof(kry_linear), hash);
    }
    snprintf(expected, sizeof expected, "%s/%s.%016llx.kry", folder, strrchr(model.folder, '/') + 1,
             (unsigned long long)hash);
    assert_string_equal(first.path, expected);
}

static void name_of_a_model_is_cleaned(void **state) {
    (void)state;
    static const char model_name[] = "hub/My model:4bit\xc3\xa9\n";
    assert_int_equal(kry_checkpoint_cache_open(folder, model_name, &cache), KRY_OK);
    layers[0] = make_layer(0, NULL);
    assert_int_equal(kry_checkpoint_cache_add(cache, "a", layers[0]), KRY_OK);
    kry_map_args args = KRY_INIT(kry_map_args);
    assert_int_equal(kry_checkpoint_cache_find(cache, "a", &args), KRY_OK);
    assert_non_null(strstr(args.path, "/My_model_4bit___."));
}

/* ---- what is put there --------------------------------------------------------------- */

static void nothing_is_left_of_what_was_not_committed(void **state) {
    (void)state;
    start("weights 1", KRY_E_NOT_FOUND, KRY_E_NOT_FOUND);
    spoil(only_file(), KRY_SAVED_HEADER + 3);
    ino_t before = inode_of(only_file());
    begin(NULL);
    save(0, "weights 1");
    end();
    assert_int_equal(inode_of(only_file()), before);
    start("weights 1", KRY_E_FORMAT, KRY_OK);
}

static void commit_that_fails_leaves_what_was_there(void **state) {
    (void)state;
    begin(NULL);
    save(0, "weights 1");
    kry_map_args args = KRY_INIT(kry_map_args);
    assert_int_equal(kry_checkpoint_cache_find(cache, names[0], &args), KRY_OK);
    assert_int_equal(mkdir(args.path, 0755), 0); /* rename puts no file over a folder */
    assert_int_equal(kry_checkpoint_cache_commit(cache), KRY_E_IO);
    assert_message("cannot be written");
    assert_string_equal(only_file(), args.path);
    assert_int_equal(rmdir(args.path), 0);
    save(0, "weights 1"); /* and it goes on */
    assert_int_equal(kry_checkpoint_cache_commit(cache), KRY_OK);
    assert_int_equal(kry_checkpoint_cache_commit(cache), KRY_OK);
    assert_int_equal(map(0, "weights 1"), KRY_OK);
    assert_int_equal(map(1, "weights 1"), KRY_E_NOT_FOUND);
}

static void file_is_its_owners_to_write_whatever_the_mask(void **state) {
    (void)state;
    mode_t mask = umask(0);
    start("weights 1", KRY_E_NOT_FOUND, KRY_E_NOT_FOUND);
    umask(mask);
    struct stat info;
    assert_int_equal(stat(only_file(), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0644);
}

/* ---- arguments ----------------------------------------------------------------------- */

static void folder_that_is_not_there_is_an_error_of_the_first_renewal(void **state) {
    (void)state;
    assert_int_equal(kry_checkpoint_cache_open("/nonesuch/folder", "m", &cache), KRY_OK);
    layers[0] = make_layer(0, NULL);
    assert_int_equal(kry_checkpoint_cache_add(cache, names[0], layers[0]), KRY_OK);
    assert_int_equal(map(0, "weights 1"), KRY_E_NOT_FOUND);
    kry_save_args args = KRY_INIT(kry_save_args);
    assert_int_equal(kry_checkpoint_cache_renew(cache, names[0], &args), KRY_E_IO);
    assert_message("/nonesuch/folder/m.");
    assert_null(args.path);
    assert_int_equal(kry_checkpoint_cache_commit(cache), KRY_OK);
}

static void wrong_arguments_are_refused(void **state) {
    (void)state;
    begin(NULL);
    kry_map_args find = KRY_INIT(kry_map_args);
    kry_save_args renew = KRY_INIT(kry_save_args);
    kry_checkpoint_cache *none = NULL;
    assert_int_equal(kry_checkpoint_cache_open(NULL, "m", &none), KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_cache_open(folder, NULL, &none), KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_cache_open(folder, "m", NULL), KRY_E_ARGUMENT);
    char *longest = calloc(1, 5000);
    assert_non_null(longest);
    memset(longest, 'x', 4999);
    assert_int_equal(kry_checkpoint_cache_open(longest, "m", &none), KRY_E_ARGUMENT);
    longest[4080] = '\0'; /* the name makes it too long */
    assert_int_equal(kry_checkpoint_cache_open(longest, "m", &none), KRY_E_ARGUMENT);
    free(longest);
    assert_null(none);
    assert_int_equal(kry_checkpoint_cache_add(cache, names[0], layers[0]), KRY_E_ARGUMENT);
    assert_message("'model.down' was added already");
    assert_int_equal(kry_checkpoint_cache_add(cache, "x", NULL), KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_cache_find(cache, "x", &find), KRY_E_NOT_FOUND);
    assert_message("no layer 'x' was added");
    assert_int_equal(kry_checkpoint_cache_renew(cache, "x", &renew), KRY_E_NOT_FOUND);
    assert_int_equal(kry_checkpoint_cache_find(cache, names[0], NULL), KRY_E_ARGUMENT);
    assert_int_equal(kry_checkpoint_cache_renew(NULL, names[0], &renew), KRY_E_ARGUMENT);
    find.struct_size = offsetof(kry_map_args, offset); /* as ABI 0.2 had it */
    renew.struct_size = offsetof(kry_save_args, offset);
    assert_int_equal(kry_checkpoint_cache_find(cache, names[0], &find), KRY_E_ABI);
    assert_int_equal(kry_checkpoint_cache_renew(cache, names[0], &renew), KRY_E_ABI);
    assert_null(find.path);
    assert_null(only_file());
    renew.struct_size = sizeof renew;
    assert_int_equal(kry_checkpoint_cache_renew(cache, names[0], &renew), KRY_OK);
    assert_int_equal(kry_checkpoint_cache_add(cache, "x", layers[0]), KRY_E_STATE);
    assert_int_equal(kry_checkpoint_cache_commit(NULL), KRY_E_ARGUMENT);
    kry_checkpoint_cache_close(NULL);
    kry_checkpoint_cache_close(&none);
}

#define CACHE_TEST(name) cmocka_unit_test_setup_teardown(name, setup_cache, teardown_cache)

int main(void) {
    const struct CMUnitTest tests[] = {
        CACHE_TEST(layers_that_were_saved_are_mapped),
        CACHE_TEST(layers_that_are_no_good_are_told_apart_and_the_others_stay),
        CACHE_TEST(layer_that_nobody_saved_is_missing),
        CACHE_TEST(file_is_named_after_model_and_layers),
        CACHE_TEST(name_of_a_model_is_cleaned),
        CACHE_TEST(nothing_is_left_of_what_was_not_committed),
        CACHE_TEST(commit_that_fails_leaves_what_was_there),
        CACHE_TEST(file_is_its_owners_to_write_whatever_the_mask),
        CACHE_TEST(folder_that_is_not_there_is_an_error_of_the_first_renewal),
        CACHE_TEST(wrong_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, open_registry, close_registry) ? 1 : 0;
}
