/*
 * CUDA's driver as far as measuring needs it.
 */
#include "cuda.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* From cuda.h of the CUDA toolkit; all of it stable since it appeared. */
enum { CUDA_SUCCESS = 0, STREAM_NON_BLOCKING = 1, CAPTURE_THREAD_LOCAL = 1 };

struct functions {
    int (*init)(unsigned flags);
    int (*error_name)(int error, const char **name);
    int (*device_get)(int *device, int ordinal);
    int (*primary_retain)(void **context, int device);
    int (*primary_release)(int device);
    int (*context_set)(void *context);
    int (*stream_create)(void **stream, unsigned flags);
    int (*stream_destroy)(void *stream);
    int (*stream_wait)(void *stream);
    int (*capture_begin)(void *stream, int mode);
    int (*capture_end)(void *stream, void **graph);
    int (*graph_instantiate)(void **executable, void *graph, unsigned long long flags);
    int (*graph_launch)(void *executable, void *stream);
    int (*executable_destroy)(void *executable);
    int (*graph_destroy)(void *graph);
    int (*module_load)(void **module, const void *code);
    int (*module_unload)(void *module);
    int (*module_function)(void **function, void *module, const char *name);
    int (*launch)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                  unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                  void *stream, void **parameters, void **extra);
};

struct cuda {
    struct functions call;
    int device;
    void *stream;
    void *module;
    void *reader; /* of the module; NULL until it is first used */
};

#define SYMBOL(name, field)                                                                        \
    { name, offsetof(struct functions, field) }
static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
    SYMBOL("cuInit", init),
    SYMBOL("cuGetErrorName", error_name),
    SYMBOL("cuDeviceGet", device_get),
    SYMBOL("cuDevicePrimaryCtxRetain", primary_retain),
    SYMBOL("cuDevicePrimaryCtxRelease_v2", primary_release),
    SYMBOL("cuCtxSetCurrent", context_set),
    SYMBOL("cuStreamCreate", stream_create),
    SYMBOL("cuStreamDestroy_v2", stream_destroy),
    SYMBOL("cuStreamSynchronize", stream_wait),
    SYMBOL("cuStreamBeginCapture_v2", capture_begin),
    SYMBOL("cuStreamEndCapture", capture_end),
    SYMBOL("cuGraphInstantiateWithFlags", graph_instantiate),
    SYMBOL("cuGraphLaunch", graph_launch),
    SYMBOL("cuGraphExecDestroy", executable_destroy),
    SYMBOL("cuGraphDestroy", graph_destroy),
    SYMBOL("cuModuleLoadData", module_load),
    SYMBOL("cuModuleUnload", module_unload),
    SYMBOL("cuModuleGetFunction", module_function),
    SYMBOL("cuLaunchKernel", launch),
};

/* ---- the kernel that reads ------------------------------------------------------------- */

/* The driver compiles it: PTX of an old version runs on every device since. Each thread reads 16
 * bytes four times in a row, a grid apart, marked as used once; the sum is what keeps a compiler
 * from leaving the reads out. */
enum { READER_THREADS = 512, READER_VECTOR = 16 };
#define LOAD(A, B, C, D)                                                                           \
    "ld.global.cs.v4.u32 {%a" A ", %a" B ", %a" C ", %a" D "}, [%at];\n"                           \
    "add.u64 %at, %at, %step;\n"
#define SUM(A) "xor.b32 %sum, %sum, %a" A ";\n"
#define SUM_OF_4(A, B, C, D) SUM(A) SUM(B) SUM(C) SUM(D)
static const char reader[] =
    ".version 6.3\n"
    ".target sm_75\n"
    ".address_size 64\n"
    ".visible .entry kernelry_read(.param .u64 from, .param .u64 bytes, .param .u64 to)\n"
    ".maxntid 512, 1, 1\n"
    "{\n"
    ".reg .pred %done;\n"
    ".reg .b32 %block, %threads, %thread, %blocks, %sum, %a<16>;\n"
    ".reg .b64 %at, %end, %step, %three, %last;\n"
    "ld.param.u64 %at, [from];\n"
    "ld.param.u64 %end, [bytes];\n"
    "add.u64 %end, %end, %at;\n"
    "mov.u32 %block, %ctaid.x;\n"
    "mov.u32 %threads, %ntid.x;\n"
    "mov.u32 %thread, %tid.x;\n"
    "mov.u32 %blocks, %nctaid.x;\n"
    "mad.lo.u32 %thread, %block, %threads, %thread;\n"
    "mul.lo.u32 %threads, %threads, %blocks;\n"
    "mul.wide.u32 %step, %threads, 16;\n"
    "mad.wide.u32 %at, %thread, 16, %at;\n"
    "mul.lo.u64 %three, %step, 3;\n"
    "mov.u32 %sum, 0;\n"
    "MANY:\n"
    "add.u64 %last, %at, %three;\n"
    "setp.ge.u64 %done, %last, %end;\n"
    "@%done bra FEW;\n" LOAD("0", "1", "2", "3") LOAD("4", "5", "6", "7") LOAD("8", "9", "10", "11")
        LOAD("12", "13", "14", "15") SUM_OF_4("0", "1", "2", "3") SUM_OF_4("4", "5", "6", "7")
            SUM_OF_4("8", "9", "10", "11") SUM_OF_4(
                "12", "13", "14", "15") "bra MANY;\n"
                                        "FEW:\n"
                                        "setp.ge.u64 %done, %at, %end;\n"
                                        "@%done bra KEEP;\n" LOAD("0", "1", "2", "3")
                                            SUM_OF_4("0", "1", "2",
                                                     "3") "bra FEW;\n"
                                                          "KEEP:\n"
                                                          "setp.ne.u32 %done, %sum, 0x9e3779b9;\n"
                                                          "@%done bra END;\n"
                                                          "ld.param.u64 %at, [to];\n"
                                                          "st.global.u32 [%at], %sum;\n"
                                                          "END:\n"
                                                          "ret;\n"
                                                          "}\n";

/* ---- errors -------------------------------------------------------------------------- */

static kry_status check(const struct cuda *cuda, int error, const char *function) {
    const char *name = NULL;
    if (error == CUDA_SUCCESS)
        return KRY_OK;
    if (cuda->call.error_name(error, &name) != CUDA_SUCCESS || name == NULL)
        name = "?";
    return kry_error_set(KRY_E_DEVICE, "%s: %s (%d)", function, name, error);
}

/* ---- opening ------------------------------------------------------------------------- */

static kry_status find_functions(struct functions *out) {
    /* The same library that the plugin has opened; it is left open, as the plugin leaves it. */
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return kry_error_set(KRY_E_DEPENDENCY, "no driver: %s", dlerror());
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (symbol == NULL)
            return kry_error_set(KRY_E_DEPENDENCY, "libcuda.so.1 has no %s", symbols[i].name);
        memcpy((char *)out + symbols[i].offset, &symbol, sizeof symbol);
    }
    return KRY_OK;
}

kry_status cuda_open(const kry_device *device, struct cuda **out) {
    struct cuda *cuda = calloc(1, sizeof *cuda);
    if (cuda == NULL)
        return kry_error_set(KRY_E_MEMORY, "out of memory");
    void *context = NULL;
    kry_status status = find_functions(&cuda->call);
    if (status == KRY_OK)
        status = check(cuda, cuda->call.init(0), "cuInit");
    if (status == KRY_OK)
        status = check(cuda, cuda->call.device_get(&cuda->device, device->ordinal), "cuDeviceGet");
    if (status == KRY_OK)
        status = check(cuda, cuda->call.primary_retain(&context, cuda->device),
                       "cuDevicePrimaryCtxRetain");
    if (status == KRY_OK)
        status = check(cuda, cuda->call.context_set(context), "cuCtxSetCurrent");
    if (status == KRY_OK)
        status = check(cuda, cuda->call.stream_create(&cuda->stream, STREAM_NON_BLOCKING),
                       "cuStreamCreate");
    if (status == KRY_OK)
        *out = cuda;
    else
        free(cuda); /* a context that was retained stays, as the plugin's does */
    return status;
}

void cuda_close(struct cuda **cuda) {
    struct cuda *gone = *cuda;
    if (gone == NULL)
        return;
    if (gone->module != NULL)
        gone->call.module_unload(gone->module);
    gone->call.stream_destroy(gone->stream);
    gone->call.context_set(NULL);
    gone->call.primary_release(gone->device);
    free(gone);
    *cuda = NULL;
}

void *cuda_stream(const struct cuda *cuda) { return cuda->stream; }

kry_status cuda_wait(const struct cuda *cuda) {
    return check(cuda, cuda->call.stream_wait(cuda->stream), "cuStreamSynchronize");
}

/* ---- graphs -------------------------------------------------------------------------- */

kry_status cuda_capture_begin(struct cuda *cuda) {
    return check(cuda, cuda->call.capture_begin(cuda->stream, CAPTURE_THREAD_LOCAL),
                 "cuStreamBeginCapture");
}

kry_status cuda_capture_end(struct cuda *cuda, void **graph) {
    void *captured = NULL, *executable = NULL;
    kry_status status =
        check(cuda, cuda->call.capture_end(cuda->stream, &captured), "cuStreamEndCapture");
    if (status == KRY_OK)
        status = check(cuda, cuda->call.graph_instantiate(&executable, captured, 0),
                       "cuGraphInstantiate");
    if (captured != NULL)
        cuda->call.graph_destroy(captured);
    if (status == KRY_OK)
        *graph = executable;
    return status;
}

kry_status cuda_replay(const struct cuda *cuda, void *graph) {
    return check(cuda, cuda->call.graph_launch(graph, cuda->stream), "cuGraphLaunch");
}

void cuda_graph_release(const struct cuda *cuda, void *graph) {
    cuda->call.executable_destroy(graph);
}

/* ---- reading ------------------------------------------------------------------------- */

kry_status cuda_read(struct cuda *cuda, uint32_t blocks, const void *memory, uint64_t bytes,
                     void *sink) {
    kry_status status = KRY_OK;
    if (cuda->module == NULL)
        status = check(cuda, cuda->call.module_load(&cuda->module, reader), "cuModuleLoadData");
    if (status == KRY_OK && cuda->reader == NULL)
        status =
            check(cuda, cuda->call.module_function(&cuda->reader, cuda->module, "kernelry_read"),
                  "cuModuleGetFunction");
    if (status != KRY_OK)
        return status;
    bytes -= bytes % READER_VECTOR;
    void *parameters[] = {&memory, &bytes, &sink};
    return check(cuda,
                 cuda->call.launch(cuda->reader, blocks, 1, 1, READER_THREADS, 1, 1, 0,
                                   cuda->stream, parameters, NULL),
                 "cuLaunchKernel");
}
