/* .npy files: what is read, what is refused with which words, and what a failed write leaves. */
#include "npy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/kernelry-npy-XXXXXX";
static char path[64];

static int make_folder(void **state) {
    (void)state;
    if (mkdtemp(folder) == NULL)
        return 1;
    snprintf(path, sizeof path, "%s/a.npy", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder); /* fails when a test left something behind */
}

static int remove_file(void **state) {
    (void)state;
    unlink(path);
    return 0;
}

static void write_bytes(const void *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* A file of that version whose header is `dict` and whose elements are 0, 1, 2, ... */
static size_t compose(unsigned char *out, int version, const char *dict, size_t data_bytes) {
    size_t header = strlen(dict), at = 8;
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (unsigned char)version;
    out[7] = 0;
    for (int i = 0; i < (version == 1 ? 2 : 4); i++)
        out[at++] = (unsigned char)(header >> (8 * i));
    memcpy(out + at, dict, header);
    at += header;
    for (size_t i = 0; i < data_bytes; i++)
        out[at++] = (unsigned char)i;
    return at;
}

static kry_status read_composed(int version, const char *dict, size_t data_bytes, struct npy *out) {
    unsigned char bytes[1024];
    write_bytes(bytes, compose(bytes, version, dict, data_bytes));
    return npy_read(path, out);
}

static void assert_refused(const char *dict, size_t data_bytes, kry_status status,
                           const char *words) {
    struct npy array;
    assert_int_equal(read_composed(1, dict, data_bytes, &array), status);
    assert_non_null(strstr(kry_error_message(), words));
    assert_non_null(strstr(kry_error_message(), path));
}

static void npy_write_then_read_gives_the_same_array(void **state) {
    (void)state;
    float values[6] = {1, -2, 0.5f, 1e-30f, 0, 7};
    struct npy array = {.type = KRY_TYPE_F32, .rank = 2, .shape = {2, 3}, .bytes = 24};
    array.data = values;
    assert_int_equal(npy_write(path, &array), KRY_OK);
    struct npy back;
    assert_int_equal(npy_read(path, &back), KRY_OK);
    assert_int_equal(back.type, KRY_TYPE_F32);
    assert_int_equal(back.rank, 2);
    assert_int_equal(back.shape[0], 2);
    assert_int_equal(back.shape[1], 3);
    assert_memory_equal(back.data, values, sizeof values);
    npy_free(&back);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, 128 + 24); /* elements start at a multiple of 64 */
    assert_int_equal(info.st_mode & 0400, 0400);
}

static void npy_write_of_rank_1_writes_a_tuple(void **state) {
    (void)state;
    uint16_t values[3] = {1, 2, 3};
    struct npy array = {.type = KRY_TYPE_F16, .rank = 1, .shape = {3}, .bytes = 6};
    array.data = values;
    assert_int_equal(npy_write(path, &array), KRY_OK);
    char text[128] = "";
    FILE *file = fopen(path, "rb");
    assert_int_equal(fread(text, 1, 128, file), 128);
    fclose(file);
    static const char expected[] = "\x93NUMPY\x01\x00\x76\x00"
                                   "{'descr': '<f2', 'fortran_order': False, 'shape': (3,), }";
    assert_memory_equal(text, expected, sizeof expected - 1);
    assert_int_equal(text[127], '\n');
}

static void npy_read_takes_every_version_and_order_of_keys(void **state) {
    (void)state;
    static const char *const dicts[] = {
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n",
        "{\"shape\":(2,3),\"fortran_order\":False,\"descr\":\"<f4\"}",
        "  { 'fortran_order' : False , 'shape' : ( 2 , 3 , ) , 'descr' : '<f4' }   \n",
    };
    for (int version = 1; version <= 3; version++)
        for (size_t i = 0; i < sizeof dicts / sizeof dicts[0]; i++) {
            struct npy array;
            assert_int_equal(read_composed(version, dicts[i], 24, &array), KRY_OK);
            assert_int_equal(array.rank, 2);
            assert_int_equal(array.shape[0] * 10 + array.shape[1], 23);
            assert_int_equal(((unsigned char *)array.data)[23], 23);
            npy_free(&array);
        }
}

static void npy_read_of_no_elements_succeeds(void **state) {
    (void)state;
    struct npy array;
    assert_int_equal(
        read_composed(1, "{'descr': '<f2', 'fortran_order': False, 'shape': (0, 8), }", 0, &array),
        KRY_OK);
    assert_int_equal(array.bytes, 0);
    npy_free(&array);
}

static void npy_read_of_a_wrong_array_says_what_is_wrong(void **state) {
    (void)state;
    assert_refused("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", 8,
                   KRY_E_UNSUPPORTED, "'<f8'");
    assert_refused("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", 4,
                   KRY_E_UNSUPPORTED, "little-endian");
    assert_refused("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }", 4,
                   KRY_E_UNSUPPORTED, "Fortran");
    assert_refused("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4,
                   KRY_E_UNSUPPORTED, "plain numbers");
    assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", 4,
                   KRY_E_UNSUPPORTED, "dimensions");
    assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 7, KRY_E_FORMAT,
                   "7 bytes follow the header; its shape needs 8");
    assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 9, KRY_E_FORMAT,
                   "9 bytes follow");
}

static void npy_read_of_absurd_sizes_is_refused(void **state) {
    (void)state;
    assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
                   4, KRY_E_FORMAT, "2^64");
    assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
                   4, KRY_E_FORMAT, "2^63");
    assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }", 4,
                   KRY_E_FORMAT, "4 bytes follow");
    assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", 4, KRY_E_FORMAT,
                   "a size");
}

static void npy_read_of_a_damaged_header_is_refused(void **state) {
    (void)state;
    static const char *const dicts[] = {
        "",
        "{",
        "{'descr'",
        "{'descr: '<f4'}",
        "{'descr': '<f4' 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': None, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 1, }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1 1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (,), }",
        "{'descr': '<f4', 'fortran_order': False, }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
        "{'a key of far more than sixteen letters': 1}",
    };
    for (size_t i = 0; i < sizeof dicts / sizeof dicts[0]; i++)
        assert_refused(dicts[i], 4, KRY_E_FORMAT, "damaged");
}

static void npy_read_of_a_file_cut_anywhere_is_refused(void **state) {
    (void)state;
    unsigned char bytes[256];
    size_t length =
        compose(bytes, 2, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24);
    for (size_t cut = 0; cut < length; cut++) {
        struct npy array;
        write_bytes(bytes, cut);
        assert_int_equal(npy_read(path, &array), KRY_E_FORMAT);
    }
}

static void npy_read_of_something_else_is_refused(void **state) {
    (void)state;
    struct npy array;
    static const char zip[] = "PK\x03\x04 a zip file, such as .npz";
    write_bytes(zip, sizeof zip - 1);
    assert_int_equal(npy_read(path, &array), KRY_E_FORMAT);
    assert_non_null(strstr(kry_error_message(), "not a .npy file"));
    unlink(path);
    assert_int_equal(npy_read(path, &array), KRY_E_IO);
    assert_int_equal(npy_read(folder, &array), KRY_E_IO);
    unsigned char bytes[64];
    write_bytes(bytes, compose(bytes, 4, "{}", 0));
    assert_int_equal(npy_read(path, &array), KRY_E_UNSUPPORTED);
    assert_non_null(strstr(kry_error_message(), "version 4"));
}

static int count_entries(void) {
    DIR *opened = opendir(folder);
    assert_non_null(opened);
    int count = 0;
    while (readdir(opened) != NULL)
        count++;
    closedir(opened);
    return count - 2; /* . and .. */
}

static void npy_write_that_fails_leaves_what_was_there(void **state) {
    (void)state;
    float values[4096] = {0};
    struct npy array = {.type = KRY_TYPE_F32, .rank = 1, .shape = {4096}, .bytes = sizeof values};
    array.data = values;
    write_bytes("before", 6);
    /* A file that may not grow beyond 4 KiB stands for a full disk. */
    struct rlimit kept, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
    small = (struct rlimit){4096, kept.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    kry_status status = npy_write(path, &array);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, KRY_E_IO);
    assert_non_null(strstr(kry_error_message(), path));
    assert_int_equal(count_entries(), 1);
    char text[8] = "";
    FILE *file = fopen(path, "rb");
    assert_int_equal(fread(text, 1, sizeof text, file), 6);
    fclose(file);
    assert_string_equal(text, "before");
}

static void npy_write_to_a_full_device_is_noticed(void **state) {
    (void)state;
    float value = 1;
    struct npy array = {.type = KRY_TYPE_F32, .rank = 1, .shape = {1}, .bytes = 4};
    array.data = &value;
    assert_int_equal(npy_write("/dev/full", &array), KRY_E_IO);
    struct stat info;
    assert_int_equal(stat("/dev/full", &info), 0);
    assert_true(S_ISCHR(info.st_mode)); /* not replaced by a file */
    assert_int_equal(npy_write(folder, &array), KRY_E_IO);
    assert_int_equal(npy_write("/nonexistent/a.npy", &array), KRY_E_IO);
}

static void npy_write_through_a_link_keeps_the_link(void **state) {
    (void)state;
    float value = 1;
    struct npy array = {.type = KRY_TYPE_F32, .rank = 1, .shape = {1}, .bytes = 4};
    array.data = &value;
    char link_path[80];
    snprintf(link_path, sizeof link_path, "%s/link", folder);
    write_bytes("before", 6);
    assert_int_equal(symlink(path, link_path), 0);
    kry_status status = npy_write(link_path, &array);
    struct stat info;
    int told = lstat(link_path, &info);
    unlink(link_path);
    assert_int_equal(status, KRY_OK);
    assert_int_equal(told, 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(npy_read(path, &array), KRY_OK);
    npy_free(&array);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(npy_write_then_read_gives_the_same_array, remove_file),
        cmocka_unit_test_teardown(npy_write_of_rank_1_writes_a_tuple, remove_file),
        cmocka_unit_test_teardown(npy_read_takes_every_version_and_order_of_keys, remove_file),
        cmocka_unit_test_teardown(npy_read_of_no_elements_succeeds, remove_file),
        cmocka_unit_test_teardown(npy_read_of_a_wrong_array_says_what_is_wrong, remove_file),
        cmocka_unit_test_teardown(npy_read_of_absurd_sizes_is_refused, remove_file),
        cmocka_unit_test_teardown(npy_read_of_a_damaged_header_is_refused, remove_file),
        cmocka_unit_test_teardown(npy_read_of_a_file_cut_anywhere_is_refused, remove_file),
        cmocka_unit_test_teardown(npy_read_of_something_else_is_refused, remove_file),
        cmocka_unit_test_teardown(npy_write_that_fails_leaves_what_was_there, remove_file),
        cmocka_unit_test_teardown(npy_write_to_a_full_device_is_noticed, remove_file),
        cmocka_unit_test_teardown(npy_write_through_a_link_keeps_the_link, remove_file),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder) ? 1 : 0;
}
