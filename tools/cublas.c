/*
 * cuBLAS, found by dlopen.
 */
#include "cublas.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From cublas_api.h and library_types.h of the CUDA toolkit. */
enum {
    CUBLAS_SUCCESS = 0,
    OPERATION_NONE = 0,
    OPERATION_TRANSPOSE = 1,
    REAL_16F = 2,
    REAL_16BF = 14,
    COMPUTE_32F = 68,
    ALGORITHM_DEFAULT = -1,
    /* A captured product may not allocate. NVIDIA advises as much for Hopper. */
    WORKSPACE_BYTES = 32 << 20
};

struct functions {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*get_version)(void *handle, int *version);
    int (*set_stream)(void *handle, void *stream);
    int (*set_workspace)(void *handle, void *workspace, size_t bytes);
    int (*gemm)(void *handle, int a_operation, int b_operation, int m, int n, int k,
                const void *alpha, const void *a, int a_type, int a_stride, const void *b,
                int b_type, int b_stride, const void *beta, void *c, int c_type, int c_stride,
                int compute, int algorithm);
};

struct cublas {
    struct functions call;
    const struct device_memory *memory;
    void *handle;
    void *workspace;
    char version[32];
};

#define SYMBOL(name, field)                                                                        \
    { name, offsetof(struct functions, field) }
static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
    SYMBOL("cublasCreate_v2", create),
    SYMBOL("cublasDestroy_v2", destroy),
    SYMBOL("cublasGetVersion_v2", get_version),
    SYMBOL("cublasSetStream_v2", set_stream),
    SYMBOL("cublasSetWorkspace_v2", set_workspace),
    SYMBOL("cublasGemmEx", gemm),
};

static kry_status check(int error, const char *function) {
    return error == CUBLAS_SUCCESS
               ? KRY_OK
               : kry_error_set(KRY_E_DEVICE, "%s failed with status %d", function, error);
}

/* By the loader's own search first; toolkits are often beside it. */
static void *open_library(void) {
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12",
                                        "/usr/local/cuda/lib64/libcublas.so.13",
                                        "/usr/local/cuda/lib64/libcublas.so.12"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && library == NULL; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

static kry_status find_functions(struct functions *out) {
    void *library = open_library();
    if (library == NULL)
        return kry_error_set(KRY_E_DEPENDENCY, "no cuBLAS: neither libcublas.so.13 nor "
                                               "libcublas.so.12 could be opened");
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (symbol == NULL)
            return kry_error_set(KRY_E_DEPENDENCY, "libcublas has no %s", symbols[i].name);
        memcpy((char *)out + symbols[i].offset, &symbol, sizeof symbol);
    }
    return KRY_OK;
}

static kry_status configure(struct cublas *cublas, const struct cuda *cuda) {
    int version = 0;
    cublas->workspace = device_memory_get(cublas->memory, WORKSPACE_BYTES);
    if (cublas->workspace == NULL)
        return kry_error_set(KRY_E_MEMORY, "no memory for cuBLAS to work in");
    kry_status status =
        check(cublas->call.get_version(cublas->handle, &version), "cublasGetVersion");
    /* The stream first: to set it is to forget the workspace. */
    if (status == KRY_OK)
        status =
            check(cublas->call.set_stream(cublas->handle, cuda_stream(cuda)), "cublasSetStream");
    if (status == KRY_OK)
        status =
            check(cublas->call.set_workspace(cublas->handle, cublas->workspace, WORKSPACE_BYTES),
                  "cublasSetWorkspace");
    snprintf(cublas->version, sizeof cublas->version, "%d.%d.%d", version / 10000,
             version / 100 % 100, version % 100);
    return status;
}

kry_status cublas_open(const struct cuda *cuda, const struct device_memory *memory,
                       struct cublas **out) {
    struct cublas *cublas = calloc(1, sizeof *cublas);
    if (cublas == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    cublas->memory = memory;
    kry_status status = find_functions(&cublas->call);
    if (status == KRY_OK)
        status = check(cublas->call.create(&cublas->handle), "cublasCreate");
    if (status == KRY_OK)
        status = configure(cublas, cuda);
    if (status == KRY_OK)
        *out = cublas;
    else
        cublas_close(&cublas);
    return status;
}

void cublas_close(struct cublas **cublas) {
    struct cublas *gone = *cublas;
    if (gone == NULL)
        return;
    if (gone->handle != NULL)
        gone->call.destroy(gone->handle);
    device_memory_release(gone->memory, gone->workspace, WORKSPACE_BYTES);
    free(gone);
    *cublas = NULL;
}

const char *cublas_version(const struct cublas *cublas) { return cublas->version; }

kry_status cublas_enqueue(const struct cublas *cublas, const struct cublas_product *product) {
    static const float one = 1, zero = 0;
    int64_t k = product->in_features, n = product->out_features;
    if (product->m > INT32_MAX || k > INT32_MAX || n > INT32_MAX)
        return kry_error_set(KRY_E_ARGUMENT, "cuBLAS takes sizes below 2^31");
    int type = product->type == KRY_TYPE_F16 ? REAL_16F : REAL_16BF;
    /* Its matrices are columns after columns: to it, W is [K, N] and y [N, m]. */
    return check(cublas->call.gemm(cublas->handle, OPERATION_TRANSPOSE, OPERATION_NONE, (int)n,
                                   (int)product->m, (int)k, &one, product->weights, type, (int)k,
                                   product->x, type, (int)k, &zero, product->y, type, (int)n,
                                   COMPUTE_32F, ALGORITHM_DEFAULT),
                 "cublasGemmEx");
}
