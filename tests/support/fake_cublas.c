/*
 * cuBLAS for tests, on the fake CUDA driver: products of f16 and bf16, as kernelry bench asks for
 * them. FAKE_CUBLAS=wrong in the environment makes them wrong.
 */
#include "fake_cuda.h"

#include "tools/floats.h"

#include <kernelry/types.h>

#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, REAL_16F = 2, COMPUTE_32F = 68 };

static struct {
    void *stream;
    void *workspace;
} state;

int cublasCreate_v2(void **handle);
int cublasCreate_v2(void **handle) {
    void *context;
    if (cuCtxGetCurrent(&context) != 0 || context == NULL)
        return NOT_INITIALIZED;
    *handle = &state;
    return SUCCESS;
}

int cublasDestroy_v2(void *handle);
int cublasDestroy_v2(void *handle) { return handle == &state ? SUCCESS : INVALID_VALUE; }

int cublasGetVersion_v2(void *handle, int *version);
int cublasGetVersion_v2(void *handle, int *version) {
    *version = 130203;
    return handle == &state ? SUCCESS : INVALID_VALUE;
}

int cublasSetStream_v2(void *handle, void *stream);
int cublasSetStream_v2(void *handle, void *stream) {
    (void)handle;
    state.stream = stream;
    state.workspace = NULL;
    return SUCCESS;
}

int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes);
int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes) {
    (void)handle;
    state.workspace = bytes > 0 ? workspace : NULL;
    return SUCCESS;
}

struct product {
    int m, n, k, a_stride, b_stride, c_stride;
    uint32_t type;
    const void *a, *b;
    void *c;
};

/* c [m, n] = a [k, m]^T * b [k, n], columns after columns. Large ones are nobody's to wait for. */
static void multiply(const void *argument) {
    enum { LARGE = 4096 };
    const struct product *p = argument;
    const char *wrong = getenv("FAKE_CUBLAS");
    double factor = wrong != NULL && strcmp(wrong, "wrong") == 0 ? 2 : 1;
    for (int64_t j = 0; j < p->n && p->n < LARGE; j++)
        for (int64_t i = 0; i < p->m; i++) {
            double sum = 0;
            for (int64_t l = 0; l < p->k; l++)
                sum += float_load(p->a, i * p->a_stride + l, p->type) *
                       float_load(p->b, j * p->b_stride + l, p->type);
            float_store(p->c, j * p->c_stride + i, p->type, factor * sum);
        }
}

int cublasGemmEx(void *handle, int a_operation, int b_operation, int m, int n, int k,
                 const float *alpha, const void *a, int a_type, int a_stride, const void *b,
                 int b_type, int b_stride, const float *beta, void *c, int c_type, int c_stride,
                 int compute, int algorithm);
int cublasGemmEx(void *handle, int a_operation, int b_operation, int m, int n, int k,
                 const float *alpha, const void *a, int a_type, int a_stride, const void *b,
                 int b_type, int b_stride, const float *beta, void *c, int c_type, int c_stride,
                 int compute, int algorithm) {
    /* What would allocate while it is captured is refused, as CUDA does. */
    if (handle != &state || a_operation != 1 || b_operation != 0 || *alpha < 1 || *beta > 0 ||
        a_type != b_type || a_type != c_type || compute != COMPUTE_32F || algorithm != -1 ||
        state.workspace == NULL)
        return INVALID_VALUE;
    struct product product = {.m = m,
                              .n = n,
                              .k = k,
                              .a_stride = a_stride,
                              .b_stride = b_stride,
                              .c_stride = c_stride,
                              .type = a_type == REAL_16F ? KRY_TYPE_F16 : KRY_TYPE_BF16,
                              .a = a,
                              .b = b,
                              .c = c};
    fake_cuda_enqueue(state.stream, multiply, &product, sizeof product);
    return SUCCESS;
}
