#include "fake_hip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, INVALID_DEVICE = 101 };

struct fake_hip fake_hip = {.device_count = 2};
static _Thread_local int current;

#define FAIL_IF_TOLD()                                                                             \
    do {                                                                                           \
        if (fake_hip.failing != NULL && strcmp(fake_hip.failing, __func__) == 0)                   \
            return fake_hip.error;                                                                 \
    } while (0)

int hipInit(unsigned flags);
int hipInit(unsigned flags) {
    fake_hip.inits++;
    return flags == 0 ? fake_hip.init_error : INVALID_VALUE;
}

const char *hipGetErrorString(int error);
const char *hipGetErrorString(int error) {
    return error == 100 ? "no ROCm-capable device is detected" : "a sentence of the runtime";
}

int hipGetDevice(int *device);
int hipGetDevice(int *device) {
    FAIL_IF_TOLD();
    *device = current;
    return SUCCESS;
}

int hipSetDevice(int device);
int hipSetDevice(int device) {
    FAIL_IF_TOLD();
    if (device < 0 || device >= fake_hip.device_count)
        return INVALID_DEVICE;
    fake_hip.set[fake_hip.set_count++ % 16] = device;
    current = device;
    return SUCCESS;
}

int hipModuleLoadData(void **module, const void *code);
int hipModuleLoadData(void **module, const void *code) {
    FAIL_IF_TOLD();
    fake_hip.loads++;
    *module = &fake_hip;
    return code != NULL ? SUCCESS : INVALID_VALUE;
}

int hipModuleUnload(void *module);
int hipModuleUnload(void *module) { return module == &fake_hip ? SUCCESS : INVALID_VALUE; }

/* A function is a copy of its name, kept as a runtime keeps it. */
static char *function_of(const char *name) {
    enum { FUNCTIONS_MOST = 1024 };
    static char functions[FUNCTIONS_MOST][64];
    size_t i = 0;
    while (i + 1 < FUNCTIONS_MOST && functions[i][0] != '\0' && strcmp(functions[i], name) != 0)
        i++;
    snprintf(functions[i], sizeof functions[i], "%s", name);
    return functions[i];
}

int hipModuleGetFunction(void **function, void *module, const char *name);
int hipModuleGetFunction(void **function, void *module, const char *name) {
    FAIL_IF_TOLD();
    *function = function_of(name);
    return module == &fake_hip ? SUCCESS : INVALID_VALUE;
}

int hipModuleLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                          unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                          void *stream, void **parameters, void **extra);
int hipModuleLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                          unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                          void *stream, void **parameters, void **extra) {
    (void)stream;
    FAIL_IF_TOLD();
    fake_hip.launches++;
    snprintf(fake_hip.launched, sizeof fake_hip.launched, "%s", (const char *)function);
    fake_hip.grid = grid_x;
    fake_hip.block = block_x;
    fake_hip.shared_bytes = shared;
    const char *wrong = NULL;
    if (fake_hip.execute != NULL)
        wrong = fake_hip.execute(function, grid_x, block_x, shared, parameters[0]);
    if (wrong != NULL)
        fprintf(stderr, "%s\n", wrong);
    return wrong == NULL && grid_y == 1 && grid_z == 1 && block_y == 1 && block_z == 1 &&
                   parameters[0] != NULL && extra == NULL
               ? SUCCESS
               : INVALID_VALUE;
}

int hipMalloc(void **memory, size_t bytes);
int hipMalloc(void **memory, size_t bytes) {
    FAIL_IF_TOLD();
    *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *memory != NULL ? SUCCESS : 2;
}

int hipFree(void *memory);
int hipFree(void *memory) {
    free(memory);
    return SUCCESS;
}

int hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream);
int hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
    (void)stream;
    FAIL_IF_TOLD();
    memmove(to, from, bytes);
    return kind >= 1 && kind <= 3 ? SUCCESS : INVALID_VALUE;
}

int hipMemsetAsync(void *memory, int value, size_t bytes, void *stream);
int hipMemsetAsync(void *memory, int value, size_t bytes, void *stream) {
    (void)stream;
    FAIL_IF_TOLD();
    memset(memory, value, bytes);
    return SUCCESS;
}

int hipStreamSynchronize(void *stream);
int hipStreamSynchronize(void *stream) {
    (void)stream;
    FAIL_IF_TOLD();
    fake_hip.synchronized++;
    return SUCCESS;
}
