/*
 * Mapped weights and memory: processes share it, a reload takes no second copy, and a device's
 * weights go through files.
 */
#include "fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mock.h>

/* Memory that a sanitizer, valgrind or an emulator takes is none of the library's. */
#ifdef LOADER_EMULATED
#define WATCHED 1
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WATCHED 1
#endif
#endif
#ifndef WATCHED
#define WATCHED 0
#endif

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != KRY_OK)                                                                      \
            fail_msg("%s: %s", #call, kry_error_message());                                        \
    } while (0)

static kry_status save_layer(kry_layer *layer, const char *path) {
    kry_save_args args = KRY_INIT(kry_save_args);
    args.path = path;
    args.content = "k";
    return kry_layer_save(layer, &args);
}

static kry_status map_layer(kry_layer *layer, const char *path) {
    kry_map_args args = KRY_INIT(kry_map_args);
    args.path = path;
    args.content = "k";
    return kry_layer_map(layer, &args);
}

/* ---- processes ------------------------------------------------------------------------------ */

/* Kilobytes that /proc tells under a name, of all mappings of a file (NULL: of the process). */
static long kilobytes(const char *file, const char *name) {
    FILE *stream = fopen(file != NULL ? "/proc/self/smaps" : "/proc/self/status", "r");
    assert_non_null(stream);
    char line[2 * FIXTURE_PATH];
    bool inside = file == NULL;
    long sum = -1, value;
    size_t length = strlen(name);
    while (fgets(line, sizeof line, stream) != NULL) {
        if (file != NULL && strchr(line, '-') != NULL && strchr(line, ':') != NULL &&
            strstr(line, " kB") == NULL && strncmp(line, "VmFlags", 7) != 0)
            inside = strstr(line, file) != NULL; /* the head of a mapping */
        else if (inside && strncmp(line, name, length) == 0 &&
                 sscanf(line + length, ": %ld", &value) == 1)
            sum = (sum < 0 ? 0 : sum) + value;
    }
    fclose(stream);
    return sum;
}

/* Large enough to be seen beside all else: 4 MB. */
static kry_linear large(void) { return describe(2048, 2048, -1, KRY_WEIGHT_U4B8, KRY_TYPE_F32); }

/* A layer of it whose y are its rows' sums. */
static void make_large(kry_registry *registry, applied_layer *out) {
    kry_linear linear = large();
    make_layer(registry, "cpu", &linear, 1, out);
    for (int64_t k = 0; k < linear.in_features; k++)
        out->x[k] = 1;
    out->args.bias = NULL;
}

static bool shares_and_applies(kry_registry *registry, const char *path, double expected) {
    applied_layer layer;
    make_large(registry, &layer);
    bool good = map_layer(layer.layer, path) == KRY_OK && apply_layer(&layer) == KRY_OK &&
                (double)layer.y[7] == expected;
    /* Each page is here, none is the process's own. */
    if (!WATCHED)
        good = good && kilobytes(path, "Rss") >= 4096 && kilobytes(path, "Private_Dirty") == 0 &&
               kilobytes(path, "Shared_Dirty") == 0 && kilobytes(path, "Anonymous") == 0;
    free_layer(&layer);
    return good;
}

static void two_processes_share_the_pages_of_a_file(void **state) {
    (void)state;
    kry_registry *registry = open_mocks(NULL, "dense.so", NULL);
    applied_layer layer;
    make_large(registry, &layer);
    assert_ok(prepare_layer(&layer));
    assert_ok(apply_layer(&layer));
    double expected = layer.y[7];
    const char *path = path_in(scratch_folder(), "shared.kry");
    assert_ok(save_layer(layer.layer, path));
    assert_ok(map_layer(layer.layer, path)); /* and stays so while the children look */
    pid_t children[2];
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0)
            _exit(shares_and_applies(registry, path, expected) ? 0 : 1);
    }
    for (int i = 0; i < 2; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    free_layer(&layer);
    kry_registry_close(&registry);
}

/* Both save to one path again and again, and each always maps a whole file of the two. */
static void processes_that_save_at_once_leave_a_whole_file(void **state) {
    (void)state;
    const char *folder = scratch_folder();
    char path[FIXTURE_PATH];
    snprintf(path, sizeof path, "%s", path_in(folder, "raced.kry"));
    kry_registry *registry = open_mocks(NULL, "dense.so", NULL);
    kry_linear linear = describe(70, 13, 32, KRY_WEIGHT_U4, KRY_TYPE_F32);
    applied_layer layer;
    make_layer(registry, "cpu", &linear, 2, &layer);
    assert_ok(prepare_layer(&layer));
    assert_ok(save_layer(layer.layer, path));
    pid_t child = fork();
    assert_true(child >= 0);
    bool good = true;
    for (int i = 0; i < 60; i++)
        good = good && save_layer(layer.layer, path) == KRY_OK &&
               map_layer(layer.layer, path) == KRY_OK;
    if (child == 0)
        _exit(good ? 0 : 1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_true(good);
    assert_ok(apply_layer(&layer));
    assert_true(error_of(&layer) < 1e-6);
    free_layer(&layer);
    kry_registry_close(&registry);
}

/* ---- memory at its peak ------------------------------------------------------------------------
 */

/* Let the kernel count the peak from now on; false where it does not. */
static bool forget_peak(void) {
    int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    bool good = file >= 0 && write(file, "5", 1) == 1;
    if (file >= 0)
        close(file);
    return good && kilobytes(NULL, "VmHWM") >= 0;
}

/* 32 MB prepared in the layout of one byte a weight, loaded again in place from other weights: the
 * peak grows by one range's canonical rows, never by another copy. */
static void reload_takes_no_second_copy(void **state) {
    (void)state;
    if (WATCHED || !forget_peak())
        skip();
    kry_registry *registry = open_mocks(NULL, "dense.so", NULL);
    kry_linear linear = describe(4096, 8192, -1, KRY_WEIGHT_U4B8, KRY_TYPE_F32);
    applied_layer layer;
    make_layer(registry, "cpu", &linear, 1, &layer);
    assert_ok(prepare_layer(&layer));
    kry_sizes sizes = KRY_INIT(kry_sizes);
    assert_ok(kry_layer_sizes(layer.layer, &sizes));
    assert_true(sizes.prepared_bytes > 32 << 20);
    assert_true(forget_peak());
    long before = kilobytes(NULL, "VmRSS");
    assert_ok(prepare_layer(&layer));
    long grown = kilobytes(NULL, "VmHWM") - before;
    if (grown < 0 || (uint64_t)grown * 1024 > sizes.prepare_scratch_bytes + (2 << 20))
        fail_msg("the peak grew by %ld kB; scratch is %llu bytes", grown,
                 (unsigned long long)sizes.prepare_scratch_bytes);
    assert_ok(apply_layer(&layer));
    assert_true(error_of(&layer) < 1e-6);
    free_layer(&layer);
    kry_registry_close(&registry);
}

/* ---- devices ----------------------------------------------------------------------------------
 */

static void assert_applies(applied_layer *layer) {
    poison(layer);
    assert_ok(apply_layer(layer));
    assert_true(error_of(layer) < 1e-6);
}

static void weights_of_a_device_go_through_a_file(void **state) {
    (void)state;
    kry_linear linear = toy_shard();
    applied_layer layer;
    make_on_toy(&linear, &layer);
    assert_ok(prepare_layer(&layer));
    const char *path = path_in(scratch_folder(), "toy.kry");
    mock_stream stream = {0};
    kry_save_args save = KRY_INIT(kry_save_args);
    save.path = path;
    save.content = "k";
    save.stream = &stream;
    assert_ok(kry_layer_save(layer.layer, &save));
    assert_true(stream.copies > 0 && stream.waits > 0);
    kry_layer *fresh = NULL;
    kry_device device = find_device(registry, "toy");
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    assert_ok(kry_layer_create(registry, &args, &fresh));
    kry_layer_destroy(&layer.layer);
    layer.layer = fresh;
    assert_ok(map_layer(layer.layer, path));
    assert_applies(&layer);
    assert_ok(map_layer(layer.layer, path)); /* the same place again */
    assert_applies(&layer);
    free_layer(&layer);
}

/* Prepared where there is no toy, as a build machine does, and copied to one at its address. */
static void weights_prepared_for_a_hypothetical_device_are_mapped_to_one(void **state) {
    (void)state;
    applied_layer layer, offline;
    kry_linear linear = toy_shard();
    make_layer(registry, "toy:toy_1", &linear, 2, &offline);
    assert_ok(prepare_layer(&offline));
    const char *path = path_in(scratch_folder(), "offline.kry");
    assert_ok(save_layer(offline.layer, path));
    assert_ok(map_layer(offline.layer, path));
    assert_int_equal(apply_layer(&offline), KRY_E_DEVICE);

    make_on_toy(&linear, &layer);
    plain_weights own = layer.plain;
    layer.plain = offline.plain;
    kry_sizes sizes = KRY_INIT(kry_sizes);
    assert_ok(kry_layer_sizes(layer.layer, &sizes));
    unsigned char *memory = make_room(sizes.prepared_bytes);
    kry_map_args map = KRY_INIT(kry_map_args);
    map.path = path;
    map.content = "k";
    map.prepared = mock_tag(memory);
    map.prepared_bytes = sizes.prepared_bytes;
    map.prepared_memory = KRY_MEMORY_DEVICE;
    for (int i = 0; i < 2; i++) {
        memset(memory, 0xee, sizes.prepared_bytes);
        assert_ok(kry_layer_map(layer.layer, &map));
        assert_applies(&layer);
    }
    layer.plain = own;
    free_layer(&layer);
    free_layer(&offline);
    free(memory);
}

static void device_memory_without_a_platform_plugin_is_unsupported(void **state) {
    (void)state;
    kry_registry *alone = open_mocks(NULL, "toy_kernel.so", NULL);
    kry_linear linear = toy_shard();
    applied_layer layer;
    make_on_toy(&linear, &layer);
    assert_ok(prepare_layer(&layer));
    const char *path = path_in(scratch_folder(), "toy.kry");
    assert_ok(save_layer(layer.layer, path));
    kry_device device = find_device(registry, "toy");
    kry_layer_args args = KRY_INIT(kry_layer_args);
    args.device = &device;
    args.linear = &linear;
    kry_layer *lonely = NULL;
    assert_ok(kry_layer_create(alone, &args, &lonely));
    assert_int_equal(map_layer(lonely, path), KRY_E_UNSUPPORTED);
    assert_int_equal(save_layer(lonely, path), KRY_E_STATE);
    kry_layer_destroy(&lonely);
    free_layer(&layer);
    kry_registry_close(&alone);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_processes_share_the_pages_of_a_file),
        cmocka_unit_test(processes_that_save_at_once_leave_a_whole_file),
        cmocka_unit_test(reload_takes_no_second_copy),
        cmocka_unit_test_setup_teardown(weights_of_a_device_go_through_a_file, open_toy,
                                        close_registry),
        cmocka_unit_test_setup_teardown(
            weights_prepared_for_a_hypothetical_device_are_mapped_to_one, open_toy, close_registry),
        cmocka_unit_test_setup_teardown(device_memory_without_a_platform_plugin_is_unsupported,
                                        open_toy, close_registry),
    };
    return cmocka_run_group_tests_name("loader map", tests, NULL, NULL) ? 1 : 0;
}
