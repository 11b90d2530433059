/*
 * XXH64 against digests of the reference implementation (libxxhash 0.8, through its Python module),
 * and the hashes of a long range's blocks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

static const uint64_t seeds[3] = {0, 2654435761, UINT64_C(0xfedcba9876543210)};
static const struct {
    uint64_t bytes, digests[3];
} vectors[] = {
    {0, {0xef46db3751d8e999, 0xac75fda2929b17ef, 0x7cc8df76db892f66}},
    {1, {0xe934a84adb052768, 0x5014607643a9b4c3, 0x8e7bbf7aeeebdf90}},
    {3, {0x0a8b0eaaa44d36dc, 0x2ab4e9b1d7bc64ea, 0x251b17ead2e60725}},
    {4, {0xa52c40dc1e458cb4, 0xf75cea62abaa0a51, 0x4268ab9298903949}},
    {5, {0x3302ef8963e049e3, 0xa760071c5b1c6064, 0x73d7ec0f411267f3}},
    {7, {0xa327711b1bc04318, 0x160d99155fd100ec, 0xb89317a714810aae}},
    {8, {0x7966fb2834796e77, 0xb59575b8dbb3bae5, 0x3804d2dec9bdbf4e}},
    {12, {0xfb41c9031996f3e9, 0xc18890a3168afcff, 0x9a0f8f32d6e25584}},
    {14, {0xc57c63cb9b3d5392, 0x0daaa5aa12e70083, 0x743f5438b4213a2e}},
    {31, {0xbdb87f28fde1ec91, 0x961c903e7bce6638, 0x974f913078464ea2}},
    {32, {0x70e7f6563e61b260, 0x91b6f17e8d29f648, 0x89d04bdc674821f1}},
    {33, {0x9dd01335c51ac88f, 0x65eee39e45b26419, 0x520f1879d72de87a}},
    {40, {0x6138286fe98bbb9a, 0x2eed8ccacd290807, 0xfda59ec31f1ee833}},
    {63, {0x6a3ef85d3e6d755e, 0xa5b17f8ce1a60f94, 0x5f72bfef944b6e98}},
    {64, {0xfe8083554c30b401, 0x742073cf39de4176, 0xfb6ff492797fc47e}},
    {100, {0xd52ddaaf21127aa9, 0x5d793d5bc950ec58, 0xc29f62d6ac243fb6}},
    {4095, {0x0e48632fe31992f8, 0x087394f7ddef529f, 0xd8fe166520a778a2}},
};

static void hash_of_every_length_is_the_published_one(void **state) {
    (void)state;
    unsigned char bytes[4096 + 1];
    for (size_t shift = 0; shift < 2; shift++) { /* any alignment */
        for (size_t i = 0; i < 4096; i++)
            bytes[i + shift] = (unsigned char)(i * i * 7 + i);
        for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
            for (size_t j = 0; j < 3; j++)
                assert_true(kry_hash64(bytes + shift, vectors[i].bytes, seeds[j]) ==
                            vectors[i].digests[j]);
    }
    assert_true(kry_hash64("abc", 3, 0) == UINT64_C(0x44bc2cf5ad770999));
    assert_true(kry_hash64(NULL, 0, 0) == UINT64_C(0xef46db3751d8e999));
}

static void hashes_of_blocks_are_those_of_their_bytes(void **state) {
    (void)state;
    uint64_t bytes = 2 * CORE_HASH_BLOCK + 5;
    unsigned char *data = malloc(bytes);
    assert_non_null(data);
    for (uint64_t i = 0; i < bytes; i++)
        data[i] = (unsigned char)(i * 131 + (i >> 13));
    assert_int_equal(core_hash_block_count(bytes), 3);
    assert_int_equal(core_hash_block_count(2 * CORE_HASH_BLOCK), 2);
    assert_int_equal(core_hash_block_count(0), 0);
    uint64_t hashes[3];
    core_hash_blocks(data, bytes, 7, hashes, NULL);
    for (uint64_t i = 0; i < 3; i++)
        assert_true(hashes[i] ==
                    kry_hash64(data + i * CORE_HASH_BLOCK, i < 2 ? CORE_HASH_BLOCK : 5, 7 + i));
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_of_every_length_is_the_published_one),
        cmocka_unit_test(hashes_of_blocks_are_those_of_their_bytes),
    };
    return cmocka_run_group_tests_name("core hash", tests, NULL, NULL) ? 1 : 0;
}
