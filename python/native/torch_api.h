/*
 * What PyTorch exports in C, found in the process at run time: nothing of PyTorch is needed to
 * build this, and one build serves every release from 2.10 on. Names and signatures are those of
 * torch/csrc/inductor/aoti_torch/c/shim.h and torch/csrc/stable/c/shim.h, which promise to keep
 * them; functions return 0, or leave a sentence that is not asked for here.
 */
#ifndef KERNELRY_PYTHON_TORCH_API_H
#define KERNELRY_PYTHON_TORCH_API_H

#include <kernelry/types.h>

#include <stdbool.h>

/** A value on the stack of a boxed operator: an integer, or a handle that its reader owns. */
typedef uint64_t stable_value;
typedef void *torch_tensor;
typedef void *torch_library;

/* F(result, name, (arguments)): functions that must be there. */
#define TORCH_FUNCTIONS(F)                                                                         \
    F(int32_t, aoti_torch_library_init_impl,                                                       \
      (const char *space, const char *key, const char *file, uint32_t line, torch_library *out))   \
    F(int32_t, torch_library_impl,                                                                 \
      (torch_library library, const char *name, void (*f)(stable_value *, uint64_t, uint64_t),     \
       uint64_t version))                                                                          \
    F(void, aoti_torch_check,                                                                      \
      (bool condition, const char *function, const char *file, uint32_t line, const char *text))   \
    F(int32_t, aoti_torch_delete_tensor_object, (torch_tensor tensor))                             \
    F(int32_t, aoti_torch_get_data_ptr, (torch_tensor tensor, void **out))                         \
    F(int32_t, aoti_torch_get_dim, (torch_tensor tensor, int64_t * out))                           \
    F(int32_t, aoti_torch_get_sizes, (torch_tensor tensor, int64_t * *out))                        \
    F(int32_t, aoti_torch_get_strides, (torch_tensor tensor, int64_t * *out))                      \
    F(int32_t, aoti_torch_get_dtype, (torch_tensor tensor, int32_t * out))                         \
    F(int32_t, aoti_torch_get_device_type, (torch_tensor tensor, int32_t * out))                   \
    F(int32_t, aoti_torch_get_device_index, (torch_tensor tensor, int32_t * out))                  \
    F(int32_t, aoti_torch_empty_strided,                                                           \
      (int64_t rank, const int64_t *sizes, const int64_t *strides, int32_t dtype, int32_t device,  \
       int32_t index, torch_tensor *out))                                                          \
    F(int32_t, aoti_torch_get_storage_offset, (torch_tensor tensor, int64_t * out))                \
    F(int32_t, aoti_torch__reinterpret_tensor,                                                     \
      (torch_tensor tensor, int64_t rank, const int64_t *sizes, const int64_t *strides,            \
       int64_t offset, torch_tensor *out))                                                         \
    F(int32_t, aoti_torch_copy_, (torch_tensor to, torch_tensor from, int32_t non_blocking))       \
    F(int32_t, aoti_torch_dtype_float16, (void))                                                   \
    F(int32_t, aoti_torch_dtype_bfloat16, (void))                                                  \
    F(int32_t, aoti_torch_dtype_float32, (void))                                                   \
    F(int32_t, aoti_torch_dtype_uint8, (void))                                                     \
    F(int32_t, aoti_torch_device_type_cpu, (void))                                                 \
    F(int32_t, torch_parallel_for,                                                                 \
      (int64_t begin, int64_t end, int64_t grain, void (*f)(int64_t, int64_t, void *),             \
       void *context))                                                                             \
    F(int32_t, torch_get_num_threads, (uint32_t * out))

/* Functions that a build or a release may lack. */
#define TORCH_OPTIONAL_FUNCTIONS(F)                                                                \
    F(int32_t, aoti_torch_get_current_cuda_stream, (int32_t index, void **out))                    \
    F(int32_t, torch_delete_stable_ivalue, (stable_value * value))

struct torch_api {
#define MEMBER(result, name, arguments) result(*name) arguments;
    TORCH_FUNCTIONS(MEMBER)
    TORCH_OPTIONAL_FUNCTIONS(MEMBER)
#undef MEMBER
    void (*operator_delete)(void *memory); /* C++'s, for releases before 2.13 */
};

/** All zero until torch_api_find succeeded, and the same ever after. */
extern struct torch_api torch_api;

/** Find the functions through libtorch.so, which is loaded already. Returns NULL, or what is
 *  missing. */
const char *torch_api_find(const char *libtorch);

#endif
