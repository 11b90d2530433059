#include "fake_cuda.h"

#include "plugins/gpu/params.h"
#include "simt/tensor_map.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    CAPTURING = 900,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
    STACK_MOST = 16,
    BLOCKS_MOST = 1024,
    KERNELS_MOST = 1024
};

struct fake_cuda fake_cuda;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char contexts[FAKE_DEVICES_MAX]; /* their addresses are the primary contexts */
static _Thread_local void *stack[STACK_MOST];
static _Thread_local int depth;
static struct {
    char *data;
    size_t bytes;
} blocks[BLOCKS_MOST];

static int number_of(const char *variable, int otherwise) {
    const char *text = getenv(variable);
    return text != NULL ? atoi(text) : otherwise;
}

__attribute__((constructor)) static void begin(void) {
    fake_cuda.version = number_of("FAKE_CUDA_VERSION", 13000);
    fake_cuda.devices = number_of("FAKE_CUDA_DEVICES", 1);
    fake_cuda.active_clusters = 132; /* of a GPU with so many multiprocessors */
    fake_cuda.failing = getenv("FAKE_CUDA_FAILS");
    fake_cuda.error = OUT_OF_MEMORY;
    for (int i = 0; i < FAKE_DEVICES_MAX; i++)
        fake_cuda.capability[i] = number_of("FAKE_CUDA_CAPABILITY", 90);
}

/* What a function is to return before it does anything. */
static int failure(const char *name) {
    if (fake_cuda.inits == 0)
        return NOT_INITIALIZED;
    return fake_cuda.failing != NULL && strcmp(fake_cuda.failing, name) == 0 ? fake_cuda.error
                                                                             : SUCCESS;
}
#define FAIL_IF_TOLD()                                                                             \
    do {                                                                                           \
        int told = failure(__func__);                                                              \
        if (told != SUCCESS)                                                                       \
            return told;                                                                           \
    } while (0)
#define FAIL_WITHOUT_CONTEXT()                                                                     \
    do {                                                                                           \
        FAIL_IF_TOLD();                                                                            \
        if (depth == 0)                                                                            \
            return INVALID_CONTEXT;                                                                \
    } while (0)

static int current_device(void) { return (int)((char *)stack[depth - 1] - contexts); }

/* ---- the driver, devices, contexts ---------------------------------------------------------- */

int cuDriverGetVersion(int *version);
int cuDriverGetVersion(int *version) {
    *version = fake_cuda.version;
    return SUCCESS;
}

int cuInit(unsigned flags) {
    (void)flags;
    fake_cuda.inits++;
    return failure(__func__);
}

int cuGetErrorName(int error, const char **name);
int cuGetErrorName(int error, const char **name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OF_A_TEST";
    return SUCCESS;
}

int cuGetErrorString(int error, const char **sentence);
int cuGetErrorString(int error, const char **sentence) {
    *sentence = "a sentence of the driver";
    return error == LAUNCH_FAILED ? INVALID_VALUE : SUCCESS;
}

int cuDeviceGet(int *device, int ordinal);
int cuDeviceGet(int *device, int ordinal) {
    FAIL_IF_TOLD();
    if (ordinal < 0 || ordinal >= fake_cuda.devices)
        return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device);
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    FAIL_IF_TOLD();
    *value =
        attribute == 75 ? fake_cuda.capability[device] / 10 : fake_cuda.capability[device] % 10;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    FAIL_IF_TOLD();
    fake_cuda.retained[device]++;
    *context = &contexts[device];
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device);
int cuDevicePrimaryCtxRelease_v2(int device) {
    FAIL_IF_TOLD();
    fake_cuda.retained[device]--;
    return SUCCESS;
}

/* Replaces what is on top of the thread's stack. */
int cuCtxSetCurrent(void *context);
int cuCtxSetCurrent(void *context) {
    FAIL_IF_TOLD();
    if (context == NULL) {
        depth -= depth > 0;
        return SUCCESS;
    }
    depth += depth == 0;
    stack[depth - 1] = context;
    return SUCCESS;
}

int cuCtxGetCurrent(void **context) {
    FAIL_IF_TOLD();
    *context = depth > 0 ? stack[depth - 1] : NULL;
    return SUCCESS;
}

int cuCtxGetDevice(int *device);
int cuCtxGetDevice(int *device) {
    FAIL_WITHOUT_CONTEXT();
    *device = current_device();
    return SUCCESS;
}

int cuCtxPushCurrent_v2(void *context) {
    FAIL_IF_TOLD();
    if (depth == STACK_MOST)
        return INVALID_VALUE;
    fake_cuda.pushes++;
    stack[depth++] = context;
    return SUCCESS;
}

int cuCtxPopCurrent_v2(void **context) {
    FAIL_WITHOUT_CONTEXT();
    fake_cuda.pops++;
    *context = stack[--depth];
    return SUCCESS;
}

/* ---- code -------------------------------------------------------------------------------------
 */

int cuLibraryLoadData(void **library, const void *code, void *jit, void *jit_values,
                      unsigned jit_count, void *options, void *values, unsigned count);
int cuLibraryLoadData(void **library, const void *code, void *jit, void *jit_values,
                      unsigned jit_count, void *options, void *values, unsigned count) {
    (void)jit;
    (void)jit_values;
    (void)options;
    (void)values;
    FAIL_WITHOUT_CONTEXT();
    if (code == NULL || jit_count != 0 || count != 0)
        return INVALID_VALUE;
    fake_cuda.loads++;
    *library = &fake_cuda;
    return SUCCESS;
}

int cuLibraryUnload(void *library);
int cuLibraryUnload(void *library) {
    FAIL_IF_TOLD();
    fake_cuda.unloads++;
    return library == &fake_cuda ? SUCCESS : INVALID_VALUE;
}

/* A kernel is a copy of its name, kept as a driver keeps it. */
static char *kernel_of(const char *name) {
    static char kernels[KERNELS_MOST][64];
    size_t i = 0;
    pthread_mutex_lock(&lock);
    while (i + 1 < KERNELS_MOST && kernels[i][0] != '\0' && strcmp(kernels[i], name) != 0)
        i++;
    snprintf(kernels[i], sizeof kernels[i], "%s", name);
    pthread_mutex_unlock(&lock);
    return kernels[i];
}

int cuLibraryGetKernel(void **kernel, void *library, const char *name);
int cuLibraryGetKernel(void **kernel, void *library, const char *name) {
    FAIL_WITHOUT_CONTEXT();
    if (library != &fake_cuda ||
        (fake_cuda.lacking != NULL && strcmp(fake_cuda.lacking, name) == 0))
        return NOT_FOUND;
    *kernel = kernel_of(name);
    return SUCCESS;
}

int cuKernelGetFunction(void **function, void *kernel);
int cuKernelGetFunction(void **function, void *kernel) {
    FAIL_WITHOUT_CONTEXT();
    *function = kernel;
    return SUCCESS;
}

int cuKernelSetAttribute(int attribute, int value, void *kernel, int device);
int cuKernelSetAttribute(int attribute, int value, void *kernel, int device) {
    FAIL_WITHOUT_CONTEXT();
    if (attribute != 8 || value < 0 || kernel == NULL || device != current_device())
        return INVALID_VALUE;
    if ((uint32_t)value > fake_cuda.shared_allowed)
        fake_cuda.shared_allowed = (uint32_t)value;
    return SUCCESS;
}

static size_t parameter_bytes(const char *entry) {
    static const struct {
        const char *begins;
        size_t bytes;
    } entries[] = {
        {"gpu_arrange", sizeof(struct gpu_arrange_params)},
        {"gpu_sort", sizeof(struct gpu_sort_params)},
        {"gpu_fill_source", sizeof(struct gpu_fill_source_params)},
        {"gpu_repack", sizeof(struct gpu_repack_params)},
        {"gpu_canonicalise_codes", sizeof(struct gpu_canonicalise_codes_params)},
        {"gpu_canonicalise", sizeof(struct gpu_canonicalise_groups_params)},
        {"gpu_wide", sizeof(struct gpu_wide_params)},
        {"gpu_late", sizeof(struct gpu_late_params)},
        {"gpu_", sizeof(struct gpu_apply_params)},
    };
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++)
        if (strncmp(entries[i].begins, entry, strlen(entries[i].begins)) == 0)
            return entries[i].bytes;
    return 0;
}

/* CUlaunchAttribute and CUlaunchConfig, of which one axis is used. */
struct attribute {
    int id;
    char padding[4];
    union {
        char bytes[64];
        unsigned cluster[3];
        int serialization;
    } value;
};
struct config {
    unsigned grid[3], block[3], shared;
    void *stream;
    struct attribute *attributes;
    unsigned attribute_count;
};
_Static_assert(sizeof(struct attribute) == 72 && sizeof(struct config) == 56, "the driver's sizes");
enum { CLUSTER_DIMENSION = 4, PROGRAMMATIC_STREAM_SERIALIZATION = 6, CLUSTER_MOST = 8 };

/* What a launch asks for besides its parameters; false where the driver would refuse it. */
static bool read_config(const struct config *config, struct fake_launch *out) {
    out->grid = config->grid[0];
    out->block = config->block[0];
    out->shared_bytes = config->shared;
    out->stream = config->stream;
    if (config->grid[0] == 0 || config->grid[0] > INT32_MAX || config->grid[1] != 1 ||
        config->grid[2] != 1 || config->block[0] == 0 || config->block[0] > 1024 ||
        config->block[1] != 1 || config->block[2] != 1 ||
        (config->shared > 48 * 1024 && config->shared > fake_cuda.shared_allowed))
        return false;
    for (unsigned i = 0; i < config->attribute_count; i++) {
        const struct attribute *attribute = &config->attributes[i];
        if (fake_cuda.capability[current_device()] < 90)
            return false;
        if (attribute->id == CLUSTER_DIMENSION) {
            const unsigned *cluster = attribute->value.cluster;
            out->cluster = cluster[0];
            if (cluster[0] == 0 || cluster[0] > CLUSTER_MOST || cluster[1] != 1 ||
                cluster[2] != 1 || config->grid[0] % cluster[0] != 0)
                return false;
        } else if (attribute->id == PROGRAMMATIC_STREAM_SERIALIZATION) {
            out->early = attribute->value.serialization != 0;
        } else {
            return false;
        }
    }
    return true;
}

static int launch_kernel(const struct config *config, void *function, void **parameters,
                         void **extra) {
    const char *entry = function;
    struct fake_launch launch = {.parameter_bytes = parameter_bytes(entry),
                                 .device = current_device()};
    if (!read_config(config, &launch) || extra != NULL)
        return INVALID_VALUE;
    if (fake_cuda.failing != NULL && strcmp(fake_cuda.failing, entry) == 0)
        return fake_cuda.error;
    snprintf(launch.entry, sizeof launch.entry, "%s", entry);
    memcpy(launch.parameters, parameters[0], launch.parameter_bytes);
    return fake_cuda_capture(&launch) ? SUCCESS : fake_cuda_run(&launch);
}

int fake_cuda_run(const struct fake_launch *launch) {
    bool runs = fake_cuda.execute != NULL && strcmp(launch->entry, FAKE_READS) != 0;
    pthread_mutex_lock(&lock);
    fake_cuda.launches[fake_cuda.launch_count++ % FAKE_LAUNCHES_MAX] = *launch;
    const char *wrong = runs ? fake_cuda.execute(launch) : NULL;
    pthread_mutex_unlock(&lock);
    if (wrong != NULL)
        fprintf(stderr, "%s: %s\n", launch->entry, wrong);
    return wrong == NULL ? SUCCESS : LAUNCH_FAILED;
}

int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                   void *stream, void **parameters, void **extra);
int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                   void *stream, void **parameters, void **extra) {
    FAIL_WITHOUT_CONTEXT();
    const struct config config = {
        {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, stream, NULL, 0};
    return launch_kernel(&config, function, parameters, extra);
}

int cuLaunchKernelEx(const struct config *config, void *function, void **parameters, void **extra);
int cuLaunchKernelEx(const struct config *config, void *function, void **parameters, void **extra) {
    FAIL_WITHOUT_CONTEXT();
    if (config == NULL || (config->attribute_count != 0 && config->attributes == NULL))
        return INVALID_VALUE;
    return launch_kernel(config, function, parameters, extra);
}

int cuOccupancyMaxActiveClusters(int *clusters, void *function, const struct config *config);
int cuOccupancyMaxActiveClusters(int *clusters, void *function, const struct config *config) {
    FAIL_WITHOUT_CONTEXT();
    struct fake_launch launch = {0};
    if (function == NULL || config == NULL || !read_config(config, &launch))
        return INVALID_VALUE;
    *clusters = fake_cuda.active_clusters / (launch.cluster > 1 ? (int)launch.cluster : 1);
    return SUCCESS;
}

/* A context is not asked for: maps are made on the host. */
int cuTensorMapEncodeTiled(void *map, int data_type, unsigned rank, void *address,
                           const uint64_t *dimensions, const uint64_t *strides, const unsigned *box,
                           const unsigned *element_strides, int interleave, int swizzle,
                           int l2_promotion, int fill);
int cuTensorMapEncodeTiled(void *map, int data_type, unsigned rank, void *address,
                           const uint64_t *dimensions, const uint64_t *strides, const unsigned *box,
                           const unsigned *element_strides, int interleave, int swizzle,
                           int l2_promotion, int fill) {
    FAIL_IF_TOLD();
    fake_cuda.map_count++;
    return simt_tensor_map_encode(map, data_type, rank, address, dimensions, strides, box,
                                  element_strides, interleave, swizzle, l2_promotion, fill);
}

/* ---- memory -------------------------------------------------------------------------------------
 */

/* The block that holds all of a range; NULL: device memory is touched where there is none. */
static bool is_inside(uint64_t memory, size_t bytes) {
    char *data = (char *)(uintptr_t)memory;
    bool found = false;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < BLOCKS_MOST && !found; i++)
        found = blocks[i].data != NULL && data >= blocks[i].data &&
                (size_t)(data - blocks[i].data) <= blocks[i].bytes &&
                bytes <= blocks[i].bytes - (size_t)(data - blocks[i].data);
    pthread_mutex_unlock(&lock);
    return found;
}

int cuMemAlloc_v2(uint64_t *memory, size_t bytes) {
    FAIL_WITHOUT_CONTEXT();
    if (bytes == 0)
        return INVALID_VALUE;
    char *data = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (data == NULL)
        return OUT_OF_MEMORY;
    memset(data, 0xff, bytes);
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (i < BLOCKS_MOST && blocks[i].data != NULL)
        i++;
    if (i < BLOCKS_MOST) {
        blocks[i].data = data;
        blocks[i].bytes = bytes;
        fake_cuda.live_blocks++;
    }
    pthread_mutex_unlock(&lock);
    *memory = (uint64_t)(uintptr_t)data;
    return i < BLOCKS_MOST ? SUCCESS : OUT_OF_MEMORY;
}

int cuMemFree_v2(uint64_t memory) {
    FAIL_WITHOUT_CONTEXT();
    char *data = (char *)(uintptr_t)memory;
    bool found = false;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < BLOCKS_MOST; i++)
        if (blocks[i].data == data && data != NULL) {
            blocks[i].data = NULL;
            fake_cuda.live_blocks--;
            found = true;
        }
    pthread_mutex_unlock(&lock);
    if (found)
        free(data);
    return found ? SUCCESS : INVALID_VALUE;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream);
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    FAIL_WITHOUT_CONTEXT();
    if (fake_cuda_is_capturing(stream)) /* the fake captures launches alone */
        return CAPTURING;
    if (!is_inside(to, bytes))
        return INVALID_VALUE;
    memcpy((void *)(uintptr_t)to, from, bytes);
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream);
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    FAIL_WITHOUT_CONTEXT();
    if (fake_cuda_is_capturing(stream)) /* the fake captures launches alone */
        return CAPTURING;
    if (!is_inside(from, bytes))
        return INVALID_VALUE;
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return SUCCESS;
}

int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream);
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    FAIL_WITHOUT_CONTEXT();
    if (fake_cuda_is_capturing(stream)) /* the fake captures launches alone */
        return CAPTURING;
    if (!is_inside(to, bytes) || !is_inside(from, bytes))
        return INVALID_VALUE;
    memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes);
    return SUCCESS;
}

int cuMemsetD8Async(uint64_t memory, unsigned char value, size_t bytes, void *stream);
int cuMemsetD8Async(uint64_t memory, unsigned char value, size_t bytes, void *stream) {
    FAIL_WITHOUT_CONTEXT();
    if (fake_cuda_is_capturing(stream)) /* the fake captures launches alone */
        return CAPTURING;
    if (!is_inside(memory, bytes))
        return INVALID_VALUE;
    memset((void *)(uintptr_t)memory, value, bytes);
    return SUCCESS;
}

int cuStreamSynchronize(void *stream);
int cuStreamSynchronize(void *stream) {
    FAIL_WITHOUT_CONTEXT();
    if (fake_cuda_is_capturing(stream)) /* the fake captures launches alone */
        return CAPTURING;
    fake_cuda.synchronized++;
    return SUCCESS;
}
