/* kernelry prepare and run --cache: a folder of prepared weights filled, used, spoilt and mended.
 */
#include "process.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LAYERS = 14 };

static int make_model(void **state) { return scratch_quantized(state, NULL); }

/* Prepare with the cache; that so many layers had that outcome and all others were mapped. */
static void assert_prepares(const char *outcome, int count, const char *content) {
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("prepare", scratch_at("model"), "--cache",
                                            scratch_at("cache"), "--content", content, "--json"));
    assert_code(&run, 0);
    assert_int_equal(json_array_size(json_at(run.json, "layers")), LAYERS);
    assert_int_equal(number_at(run.json, outcome), count);
    if (strcmp(outcome, "mapped") != 0)
        assert_int_equal(number_at(run.json, "mapped"), LAYERS - count);
    /* What was there and no good is told of, once each. */
    int told = 0;
    for (const char *at = run.err; (at = strstr(at, " is prepared anew")) != NULL; at++)
        told++;
    assert_int_equal(told,
                     strcmp(outcome, "mapped") == 0 || strcmp(outcome, "missing") == 0 ? 0 : count);
    if (told > 0)
        assert_says(run.err, outcome);
    assert_true(number_at(run.json, "prepared_bytes") > 0);
    finished_free(&run);
}

/* The model's file in a cache, as a path in the scratch folder. */
static void find_file(const char *cache, char out[512]) {
    DIR *folder = opendir(scratch_at(cache));
    assert_non_null(folder);
    out[0] = '\0';
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (strncmp(entry->d_name, "model.", 6) == 0 && strstr(entry->d_name, ".kry") != NULL)
            snprintf(out, 512, "%s/%.400s", cache, entry->d_name);
    closedir(folder);
    assert_true(out[0] != '\0');
}

/* Where layer i begins in the file: each header says how much follows (docs/prepared.md). */
static char *layer_in(char *file, int i) {
    for (; i > 0; i--) {
        uint64_t bytes;
        memcpy(&bytes, file + 32, sizeof bytes);
        file += (4096 + bytes + 4095) / 4096 * 4096;
    }
    return file;
}

static void run_is_right_on_weights(const char *outcome) {
    struct finished run =
        run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), "--cache",
                                            scratch_at("cache"), "--m", "1,3", "--json"));
    assert_code(&run, 0);
    for (int i = 0; i < LAYERS; i++) {
        char path[32];
        snprintf(path, sizeof path, "layers.%d.cache", i);
        assert_string_equal(text_at(run.json, path), outcome);
    }
    finished_free(&run);
}

static void second_start_maps_what_the_first_has_saved(void **state) {
    (void)state;
    assert_prepares("missing", LAYERS, "files");
    assert_int_equal(scratch_count("cache"), 1);
    assert_prepares("mapped", LAYERS, "files");
    run_is_right_on_weights("mapped");
    struct finished run = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), "--cache", scratch_at("cache")));
    assert_code(&run, 0);
    assert_says(run.out, "14 mapped, 0 prepared and saved");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("prepare", scratch_at("model"), "--cache",
                                              scratch_at("cache"), "--unverified", "--copy"));
    assert_code(&run, 0);
    assert_says(run.out, "14 layers");
    assert_says(run.out, "14 mapped");
    assert_silent_on(run.err, "prepared anew");
    finished_free(&run);
}

static void cache_of_run_is_that_of_prepare(void **state) {
    (void)state;
    struct finished run = run_kernelry(
        CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), "--cache", scratch_at("run_cache")));
    assert_code(&run, 0);
    assert_says(run.out, "0 mapped, 14 prepared and saved");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("prepare", scratch_at("model"), "--cache",
                                              scratch_at("run_cache"), "--json"));
    assert_int_equal(number_at(run.json, "mapped"), LAYERS);
    finished_free(&run);
}

static void damaged_layers_are_noticed_and_mended(void **state) {
    (void)state;
    char name[512];
    find_file("cache", name);
    size_t bytes;
    char *file = scratch_read(name, &bytes);
    layer_in(file, LAYERS - 1)[4096 + 10] ^= 1;
    layer_in(file, 3)[5000] ^= 1;
    scratch_write(name, file, bytes);
    assert_prepares("damaged", 2, "files");
    assert_prepares("mapped", LAYERS, "files");
    size_t before_last = (size_t)(layer_in(file, LAYERS - 1) - file);
    scratch_write(name, file, before_last + 100); /* cut, and the third is damaged as before */
    assert_prepares("damaged", 2, "files");
    scratch_write(name, file, 0);
    assert_prepares("damaged", LAYERS, "files");
    run_is_right_on_weights("mapped");
    assert_int_equal(scratch_count("cache"), 1); /* nothing is left beside it */
    free(file);
}

static void layer_in_anothers_place_is_not_taken(void **state) {
    (void)state;
    char name[512];
    find_file("cache", name);
    size_t bytes;
    char *file = scratch_read(name, &bytes);
    memcpy(layer_in(file, 3), layer_in(file, 5), 4096); /* k_proj says that it is q_proj */
    scratch_write(name, file, bytes);
    assert_prepares("foreign", 1, "files");
    free(file);
    file = scratch_read(name, &bytes);
    char *first = layer_in(file, 1); /* of the same shape: only its weights differ */
    memcpy(layer_in(file, 1 + LAYERS / 2), first, (size_t)(layer_in(file, 2) - first));
    scratch_write(name, file, bytes);
    assert_prepares("stale", 1, "files");
    run_is_right_on_weights("mapped");
    free(file);
}

/* A run of one layer saves that one: the file has holes where the others will be. */
static void layers_that_were_not_saved_yet_are_missing(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("run", scratch_at("model"), "--cache",
                                                              scratch_at("partly"), "--layer",
                                                              "model.layers.1.mlp.down_proj"));
    assert_code(&run, 0);
    assert_says(run.out, "0 mapped, 1 prepared and saved");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("prepare", scratch_at("model"), "--cache",
                                              scratch_at("partly"), "--json"));
    assert_code(&run, 0);
    assert_int_equal(number_at(run.json, "mapped"), 1);
    assert_int_equal(number_at(run.json, "missing"), LAYERS - 1);
    finished_free(&run);
}

/* A kernel with another layout has a file of its own, beside the first. */
static void other_kernels_do_not_push_a_file_out(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("prepare", scratch_at("model"),
                                                              "--cache", scratch_at("cache"),
                                                              "--kernel", "reference", "--json"));
    assert_code(&run, 0);
    int mapped = (int)number_at(run.json, "mapped");
    assert_int_equal(mapped + (int)number_at(run.json, "missing"), LAYERS);
    finished_free(&run);
    assert_prepares("mapped", LAYERS, "files");
    assert_int_equal(scratch_count("cache"), mapped == LAYERS ? 1 : 2);
}

static void weights_that_were_written_again_make_the_cache_stale(void **state) {
    (void)state;
    size_t bytes;
    char *file = scratch_read("model/model.safetensors", &bytes);
    assert_prepares("stale", LAYERS, "bytes"); /* keys of another kind */
    scratch_write("model/model.safetensors", file, bytes);
    assert_prepares("mapped", LAYERS, "bytes"); /* the same weights */
    assert_prepares("stale", LAYERS, "files");
    scratch_write("model/model.safetensors", file, bytes);
    assert_prepares("stale", LAYERS, "files");
    run_is_right_on_weights("mapped");
    free(file);
}

static void what_cannot_be_is_refused(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("prepare"));
    assert_code(&run, 2);
    assert_says(run.err, "expected one MODEL");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("prepare", scratch_at("model"), "--copy"));
    assert_code(&run, 2);
    assert_says(run.err, "go with --cache");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("prepare", scratch_at("model"), "--cache", "c",
                                              "--content", "name"));
    assert_code(&run, 2);
    assert_says(run.err, "'name'; expected files or bytes");
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("run", "--shapes", SHAPES_FILE, "--cache", "c"));
    assert_code(&run, 2);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("prepare", scratch_at("absent")));
    assert_code(&run, 3);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS, ARGUMENTS("prepare", scratch_at("dense")));
    assert_code(&run, 3);
    assert_says(run.err, "no layer of it is quantized");
    finished_free(&run);
    scratch_write("file", "x", 1);
    const char *const commands[] = {"prepare", "run"};
    for (int i = 0; i < 2; i++) {
        run = run_kernelry(CPU_PLUGINS, ARGUMENTS(commands[i], scratch_at("model"), "--cache",
                                                  scratch_at("file")));
        assert_code(&run, 4);
        assert_says(run.err, "cannot be made");
        finished_free(&run);
    }
}

static void weights_for_a_device_that_is_not_here_are_prepared(void **state) {
    (void)state;
    struct finished run = run_kernelry(CPU_PLUGINS, ARGUMENTS("prepare", scratch_at("model"),
                                                              "--cache", scratch_at("elsewhere"),
                                                              "--device", "cpu:none", "--json"));
    assert_code(&run, 0);
    assert_int_equal(number_at(run.json, "missing"), LAYERS);
    finished_free(&run);
    run = run_kernelry(CPU_PLUGINS,
                       ARGUMENTS("prepare", scratch_at("model"), "--cache", scratch_at("elsewhere"),
                                 "--kernel", "reference", "--json"));
    assert_code(&run, 0);
    assert_int_equal(number_at(run.json, "mapped"), LAYERS);
    finished_free(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_start_maps_what_the_first_has_saved), /* fills "cache" */
        cmocka_unit_test(cache_of_run_is_that_of_prepare),
        cmocka_unit_test(damaged_layers_are_noticed_and_mended),
        cmocka_unit_test(layer_in_anothers_place_is_not_taken),
        cmocka_unit_test(layers_that_were_not_saved_yet_are_missing),
        cmocka_unit_test(weights_that_were_written_again_make_the_cache_stale),
        cmocka_unit_test(other_kernels_do_not_push_a_file_out),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(weights_for_a_device_that_is_not_here_are_prepared),
    };
    return cmocka_run_group_tests_name("tools prepare", tests, make_model, scratch_end) ? 1 : 0;
}
