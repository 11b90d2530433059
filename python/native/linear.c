/*
 * kernelry::linear(Tensor x, Tensor prepared, Tensor? bias, int out_features) -> Tensor
 *
 * A boxed operator of PyTorch's stable ABI: arguments come as handles that belong to it, and an
 * error is a C++ exception that PyTorch throws through these frames, which are compiled to let it
 * pass; everything is given back before.
 */
#include "bound.h"
#include "kernelry_torch.h"
#include "torch_api.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { RANK_MAX = 16, MESSAGE_BYTES = 1024 };

/* PyTorch 2.10: the version whose conversions of arguments are meant. */
#define TORCH_VERSION ((UINT64_C(2) << 56) | (UINT64_C(10) << 48))

/* A call under way. Handles are NULL where there is none. */
struct apply {
    torch_tensor x, prepared, bias; /* the arguments */
    torch_tensor dense, y, scratch, zeroed;
    int64_t out_features;
    struct bound bound;
    int32_t device_type, device;
    int64_t sizes[RANK_MAX];
    int64_t rank;
    kry_apply_args args;
    char message[MESSAGE_BYTES]; /* "" without an error */
};

static int32_t dtypes[4]; /* PyTorch's numbers, by KRY_TYPE_* */
static const char *const type_names[] = {"?", "float16", "bfloat16", "float32"};
static atomic_bool forked; /* this process is a child of one that used PyTorch's threads */

/* ---- threads --------------------------------------------------------------------------- */

struct tasks {
    void (*task)(void *argument, int64_t i);
    void *argument;
};

static void run_tasks(int64_t begin, int64_t end, void *context) {
    const struct tasks *tasks = context;
    for (int64_t i = begin; i < end; i++)
        tasks->task(tasks->argument, i);
}

/* PyTorch's threads do the work, so that the process has one pool and torch.set_num_threads
 * counts. */
static void parallel_for(void *context, int64_t count, void (*task)(void *argument, int64_t i),
                         void *argument) {
    (void)context;
    struct tasks tasks = {task, argument};
    torch_api.torch_parallel_for(0, count, 1, run_tasks, &tasks);
}

static int32_t parallelism(void *context) {
    (void)context;
    uint32_t threads = 1;
    torch_api.torch_get_num_threads(&threads);
    return (int32_t)threads;
}

static const kry_host torch_host = {
    .struct_size = sizeof(kry_host), .parallel_for = parallel_for, .parallelism = parallelism};

/* A child has none of its parent's threads, and OpenMP would wait for them; the CPU platform's
 * pool, which the core takes instead, begins anew. */
static void note_fork(void) { atomic_store(&forked, true); }

/* ---- operands -------------------------------------------------------------------------- */

/* An error: the first one stays. */
static bool KRY_PRINTF(2, 3) fail(struct apply *a, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (a->message[0] == '\0')
        vsnprintf(a->message, sizeof a->message, format, arguments);
    va_end(arguments);
    return false;
}

static bool torch_did(struct apply *a, int32_t error, const char *what) {
    return error == 0 || fail(a, "kernelry: PyTorch could not %s", what);
}

static void release(torch_tensor tensor) {
    if (tensor != NULL)
        torch_api.aoti_torch_delete_tensor_object(tensor);
}

/* A copy of a layer's tensor stands for the layer: its head tells which. Reading it from a device
 * waits, which a capture does not allow; only copies come here. */
static bool read_head(struct apply *a, const void *tensor, struct bound_head *head) {
    int64_t *sizes, rank = 0, size = sizeof *head, stride = 1;
    int32_t cpu = torch_api.aoti_torch_device_type_cpu();
    torch_tensor front = NULL, copy = NULL;
    void *data = NULL;
    torch_api.aoti_torch_get_dim(a->prepared, &rank);
    torch_api.aoti_torch_get_sizes(a->prepared, &sizes);
    int32_t dtype = -1;
    torch_api.aoti_torch_get_dtype(a->prepared, &dtype);
    if (rank != 1 || sizes[0] < size || dtype != torch_api.aoti_torch_dtype_uint8())
        return false;
    if (a->device_type == cpu) {
        memcpy(head, tensor, sizeof *head);
        return true;
    }
    int64_t offset = 0;
    torch_api.aoti_torch_get_storage_offset(a->prepared, &offset);
    bool read = torch_api.aoti_torch__reinterpret_tensor(a->prepared, 1, &size, &stride, offset,
                                                         &front) == 0 &&
                torch_api.aoti_torch_empty_strided(1, &size, &stride, dtype, cpu, 0, &copy) == 0 &&
                torch_api.aoti_torch_copy_(copy, front, 0) == 0 &&
                torch_api.aoti_torch_get_data_ptr(copy, &data) == 0;
    if (read)
        memcpy(head, data, sizeof *head);
    release(front);
    release(copy);
    return read;
}

static bool find_layer(struct apply *a) {
    void *tensor;
    struct bound_head head;
    if (!torch_did(a, torch_api.aoti_torch_get_data_ptr(a->prepared, &tensor), "tell an address"))
        return false;
    if (!bound_find(tensor, &a->bound) &&
        !(tensor != NULL && read_head(a, tensor, &head) && bound_find_copy(&head, &a->bound)))
        return fail(a, "kernelry: `prepared` belongs to no layer of this process: make one with "
                       "kernelry.torch.QuantLinear (its layer is gone, or it was read from a "
                       "file, which holds no layer)");
    if (a->out_features != a->bound.out_features)
        return fail(a, "kernelry: out_features is %" PRId64 ", the layer has %" PRId64,
                    a->out_features, a->bound.out_features);
    return true;
}

static bool check_dtype(struct apply *a, torch_tensor tensor, const char *name) {
    int32_t dtype = -1;
    torch_api.aoti_torch_get_dtype(tensor, &dtype);
    const char *found = "of another dtype";
    for (uint32_t type = KRY_TYPE_F16; type <= KRY_TYPE_F32; type++)
        found = dtype == dtypes[type] ? type_names[type] : found;
    if (dtype == dtypes[a->bound.type])
        return true;
    return fail(a,
                "kernelry: %s is %s, the layer takes %s: convert it, or call the module under "
                "autocast",
                name, found, type_names[a->bound.type]);
}

static bool check_device(struct apply *a, torch_tensor tensor, const char *name) {
    int32_t type = -1, index = -1;
    torch_api.aoti_torch_get_device_type(tensor, &type);
    torch_api.aoti_torch_get_device_index(tensor, &index);
    return (type == a->device_type && index == a->device) ||
           fail(a, "kernelry: %s and the prepared weights lie on different devices", name);
}

/* Rows [..., in_features] with one stride; false where they have none. */
static bool find_rows(const struct apply *a, const int64_t *strides, int64_t *m, int64_t *stride) {
    int64_t last = a->rank - 1;
    *m = 1;
    *stride = 0;
    bool regular = strides[last] == 1 || a->sizes[last] == 1;
    for (int64_t i = last - 1; i >= 0; i--) {
        if (a->sizes[i] != 1 && *m > 1)
            regular &= strides[i] == *stride * *m;
        else if (a->sizes[i] != 1)
            *stride = strides[i];
        *m *= a->sizes[i];
    }
    return regular && (*m <= 1 || *stride >= a->sizes[last]);
}

static bool make(struct apply *a, int32_t dtype, torch_tensor *out) {
    int64_t strides[RANK_MAX], stride = 1;
    for (int64_t i = a->rank - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= a->sizes[i] > 0 ? a->sizes[i] : 1;
    }
    return torch_did(a,
                     torch_api.aoti_torch_empty_strided(a->rank, a->sizes, strides, dtype,
                                                        a->device_type, a->device, out),
                     "allocate a tensor");
}

static bool take_x(struct apply *a) {
    int64_t *sizes, *strides;
    if (!check_dtype(a, a->x, "x") || !check_device(a, a->x, "x"))
        return false;
    torch_api.aoti_torch_get_dim(a->x, &a->rank);
    if (a->rank < 1 || a->rank > RANK_MAX)
        return fail(a, "kernelry: x has %" PRId64 " dimensions, expected 1 to %d", a->rank,
                    RANK_MAX);
    torch_api.aoti_torch_get_sizes(a->x, &sizes);
    torch_api.aoti_torch_get_strides(a->x, &strides);
    memcpy(a->sizes, sizes, (size_t)a->rank * sizeof sizes[0]);
    if (a->sizes[a->rank - 1] != a->bound.in_features)
        return fail(a,
                    "kernelry: x has %" PRId64 " features in its last dimension, the layer "
                    "takes %" PRId64,
                    a->sizes[a->rank - 1], a->bound.in_features);
    torch_tensor from = a->x;
    if (!find_rows(a, strides, &a->args.m, &a->args.x_stride)) {
        if (!make(a, dtypes[a->bound.type], &a->dense) ||
            !torch_did(a, torch_api.aoti_torch_copy_(a->dense, a->x, 1), "copy x"))
            return false;
        from = a->dense;
        a->args.x_stride = 0;
    }
    if (a->args.m <= 1)
        a->args.x_stride = 0;
    void *x;
    bool told = torch_did(a, torch_api.aoti_torch_get_data_ptr(from, &x), "tell an address");
    a->args.x = x;
    return told;
}

static bool take_bias(struct apply *a) {
    int64_t rank = 0, *sizes, *strides;
    void *bias;
    if (a->bias == NULL)
        return true;
    if (!check_dtype(a, a->bias, "bias") || !check_device(a, a->bias, "bias"))
        return false;
    torch_api.aoti_torch_get_dim(a->bias, &rank);
    torch_api.aoti_torch_get_sizes(a->bias, &sizes);
    torch_api.aoti_torch_get_strides(a->bias, &strides);
    if (rank != 1 || sizes[0] != a->bound.out_features || (strides[0] != 1 && sizes[0] != 1))
        return fail(a, "kernelry: bias is not dense [%" PRId64 "]", a->bound.out_features);
    bool told = torch_did(a, torch_api.aoti_torch_get_data_ptr(a->bias, &bias), "tell an address");
    a->args.bias = bias;
    return told;
}

static bool make_y(struct apply *a) {
    void *y;
    a->sizes[a->rank - 1] = a->bound.out_features;
    bool made = make(a, dtypes[a->bound.type], &a->y) &&
                torch_did(a, torch_api.aoti_torch_get_data_ptr(a->y, &y), "tell an address");
    if (made)
        a->args.y = y;
    return made;
}

/* ---- workspace ------------------------------------------------------------------------- */

static bool allocate(struct apply *a, uint64_t bytes, torch_tensor *tensor, void **out) {
    int64_t size = (int64_t)bytes + KRY_ALIGNMENT, stride = 1;
    void *memory;
    if (!torch_did(a,
                   torch_api.aoti_torch_empty_strided(1, &size, &stride,
                                                      torch_api.aoti_torch_dtype_uint8(),
                                                      a->device_type, a->device, tensor),
                   "allocate the workspace") ||
        !torch_did(a, torch_api.aoti_torch_get_data_ptr(*tensor, &memory), "tell an address"))
        return false;
    uintptr_t address = (uintptr_t)memory + KRY_ALIGNMENT - 1;
    *out = (void *)(address - address % KRY_ALIGNMENT);
    return true;
}

static bool find_stream(struct apply *a) {
    if (a->device_type == torch_api.aoti_torch_device_type_cpu()) {
        a->args.host = atomic_load(&forked) ? NULL : &torch_host;
        return true;
    }
    return torch_did(a, torch_api.aoti_torch_get_current_cuda_stream(a->device, &a->args.stream),
                     "tell the current stream");
}

/* The zeroed part is the stream's: its applies follow each other, and each leaves it cleared. */
static bool make_workspace(struct apply *a) {
    kry_workspace needed = KRY_INIT(kry_workspace);
    if (kry_layer_workspace(a->bound.layer, a->args.m, &needed) != KRY_OK)
        return fail(a, "kernelry: %s", kry_error_message());
    a->args.scratch_bytes = needed.scratch_bytes;
    a->args.zeroed_bytes = needed.zeroed_bytes;
    if (needed.scratch_bytes > 0 &&
        !allocate(a, needed.scratch_bytes, &a->scratch, &a->args.scratch))
        return false;
    if (needed.zeroed_bytes == 0)
        return true;
    if (a->device_type == torch_api.aoti_torch_device_type_cpu()) {
        bool made = allocate(a, needed.zeroed_bytes, &a->zeroed, &a->args.zeroed);
        if (made)
            memset(a->args.zeroed, 0, needed.zeroed_bytes);
        return made;
    }
    a->args.zeroed =
        needed.zeroed_bytes <= BOUND_ZEROED_BYTES ? bound_zeroed(a->device, a->args.stream) : NULL;
    return a->args.zeroed != NULL ||
           fail(a,
                "kernelry: no zeroed block of %" PRIu64 " bytes is left on device %d: at most "
                "%d streams, %d bytes each",
                needed.zeroed_bytes, a->device, BOUND_STREAMS_MAX, BOUND_ZEROED_BYTES);
}

/* ---- the operator ---------------------------------------------------------------------- */

static bool apply(struct apply *a) {
    torch_api.aoti_torch_get_device_type(a->prepared, &a->device_type);
    torch_api.aoti_torch_get_device_index(a->prepared, &a->device);
    if (!find_layer(a) || !take_x(a) || !take_bias(a) || !make_y(a))
        return false;
    if (a->args.m == 0)
        return true;
    if (!find_stream(a) || !make_workspace(a))
        return false;
    return kry_layer_apply(a->bound.layer, &a->args) == KRY_OK ||
           fail(a, "kernelry: %s", kry_error_message());
}

/* An optional argument comes in a box of its own. */
static torch_tensor open_box(stable_value value) {
    stable_value *box = (stable_value *)(uintptr_t)value;
    if (box == NULL)
        return NULL;
    torch_tensor tensor = (torch_tensor)(uintptr_t)*box;
    if (torch_api.torch_delete_stable_ivalue != NULL)
        torch_api.torch_delete_stable_ivalue(box);
    else
        torch_api.operator_delete(box);
    return tensor;
}

static void linear(stable_value *stack, uint64_t inputs, uint64_t outputs) {
    (void)inputs;
    (void)outputs;
    struct apply a = {.x = (torch_tensor)(uintptr_t)stack[0],
                      .prepared = (torch_tensor)(uintptr_t)stack[1],
                      .bias = open_box(stack[2]),
                      .out_features = (int64_t)stack[3],
                      .args = KRY_INIT(kry_apply_args)};
    bool good = apply(&a);
    release(a.x);
    release(a.prepared);
    release(a.bias);
    release(a.dense);
    release(a.scratch);
    release(a.zeroed);
    if (good) {
        stack[0] = (stable_value)(uintptr_t)a.y;
        return;
    }
    release(a.y);
    torch_api.aoti_torch_check(false, "linear", "kernelry", 0, a.message);
}

static int32_t implement(const char *key) {
    torch_library library; /* for good: giving it back would take the operator away */
    int32_t error =
        torch_api.aoti_torch_library_init_impl("kernelry", key, "kernelry", 0, &library);
    if (error == 0)
        error = torch_api.torch_library_impl(library, "linear", linear, TORCH_VERSION);
    return error == 0
               ? KRY_OK
               : kry_error_set(KRY_E_DEPENDENCY,
                               "PyTorch takes no implementation of kernelry::linear for %s", key);
}

int32_t kry_torch_register(const char *libtorch) {
    const char *missing = torch_api_find(libtorch);
    if (missing != NULL)
        return kry_error_set(KRY_E_DEPENDENCY, "%s: %s is missing; PyTorch 2.10 or later is needed",
                             libtorch, missing);
    dtypes[KRY_TYPE_F16] = torch_api.aoti_torch_dtype_float16();
    dtypes[KRY_TYPE_BF16] = torch_api.aoti_torch_dtype_bfloat16();
    dtypes[KRY_TYPE_F32] = torch_api.aoti_torch_dtype_float32();
    if (pthread_atfork(NULL, NULL, note_fork) != 0)
        return kry_error_set(KRY_E_MEMORY, "out of memory to watch for forks");
    kry_status status = implement("CPU");
    if (status == KRY_OK && torch_api.aoti_torch_get_current_cuda_stream != NULL)
        status = implement("CUDA");
    return status;
}
