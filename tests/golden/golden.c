#include "golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const char *const golden_cases[] = {
    "awq",           "ct-actorder",      "ct-actorder-asym",  "ct-channel-asym",
    "ct-mixed",      "ct-ragged",        "ct-unpacked-zeros", "ct-w4-channel",
    "ct-w4-group",   "ct-w4-group-asym", "ct-w4a8-fp8",       "ct-w4a8-int8",
    "ct-w8",         "gptq-short-group", "gptq-sym",          "gptq-sym-v2-zeros",
    "gptq-v1-field", "gptq-v1-word",     "gptq-v2-act-order",
};
const size_t golden_case_count = sizeof golden_cases / sizeof golden_cases[0];

static kry_checkpoint *open_checkpoint(const char *path) {
    kry_checkpoint *checkpoint = NULL;
    if (kry_checkpoint_open(path, NULL, &checkpoint) != KRY_OK)
        fail_msg("%s: %s", path, kry_error_message());
    return checkpoint;
}

void golden_open(const char *name, struct golden *out) {
    char *expected;
    *out = (struct golden){.name = name};
    assert_true(asprintf(&out->path, "%s/%s", GOLDEN_DIR, name) > 0);
    assert_true(asprintf(&expected, "%s/expected/%s.safetensors", GOLDEN_DIR, name) > 0);
    out->model = open_checkpoint(out->path);
    out->expected = open_checkpoint(expected);
    free(expected);
}

void golden_close(struct golden *golden) {
    kry_checkpoint_close(&golden->model);
    kry_checkpoint_close(&golden->expected);
    free(golden->path);
    golden->path = NULL;
}

/** Tensor "layer.suffix" among the expected ones. */
static kry_tensor expected_tensor(const struct golden *golden, const char *layer,
                                  const char *suffix) {
    char name[160];
    kry_tensor tensor = {.struct_size = sizeof tensor};
    snprintf(name, sizeof name, "%s.%s", layer, suffix);
    if (kry_checkpoint_find_tensor(golden->expected, name, &tensor) != KRY_OK)
        fail_msg("%s: %s", golden->name, kry_error_message());
    assert_int_equal(tensor.rank, 2);
    return tensor;
}

int golden_layer_at(const struct golden *golden, size_t index, struct golden_layer *out) {
    static const char suffix[] = ".weight";
    size_t seen = 0;
    for (size_t i = 0; i < kry_checkpoint_tensor_count(golden->expected); i++) {
        kry_tensor weight = {.struct_size = sizeof weight};
        assert_int_equal(kry_checkpoint_tensor(golden->expected, i, &weight), KRY_OK);
        size_t length = strlen(weight.name);
        if (length <= strlen(suffix) ||
            strcmp(weight.name + length - strlen(suffix), suffix) != 0 || seen++ != index)
            continue;
        snprintf(out->name, sizeof out->name, "%.*s", (int)(length - strlen(suffix)), weight.name);
        kry_tensor x = expected_tensor(golden, out->name, "x");
        kry_tensor y = expected_tensor(golden, out->name, "y");
        out->n = weight.shape[0];
        out->k = weight.shape[1];
        out->m = x.shape[0];
        assert_int_equal(weight.dtype, KRY_DTYPE_F32);
        assert_int_equal(y.dtype, KRY_DTYPE_F64);
        assert_true(x.dtype == KRY_DTYPE_F16 || x.dtype == KRY_DTYPE_BF16);
        assert_true(x.shape[1] == out->k && y.shape[0] == out->m && y.shape[1] == out->n);
        /* safetensors aligns each file's data to 8 bytes, and types come widest first. */
        assert_int_equal((uintptr_t)weight.data % sizeof(float), 0);
        assert_int_equal((uintptr_t)y.data % sizeof(double), 0);
        out->weight = weight.data;
        out->y = y.data;
        out->x = x.data;
        out->x_type = x.dtype == KRY_DTYPE_F16 ? KRY_TYPE_F16 : KRY_TYPE_BF16;
        return 1;
    }
    return 0;
}
