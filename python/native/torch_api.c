#include "torch_api.h"

#include <dlfcn.h>

struct torch_api torch_api;

const char *torch_api_find(const char *libtorch) {
    /* Its dependencies are searched too: libtorch_cpu.so and the one of the device. */
    void *library = dlopen(libtorch, RTLD_NOW | RTLD_NOLOAD);
    if (library == NULL)
        return "libtorch.so";
    struct torch_api found;
    /* POSIX promises that a function's address survives in an object pointer. */
#define FIND(result, name, arguments) *(void **)&found.name = dlsym(library, #name);
    TORCH_FUNCTIONS(FIND)
    TORCH_OPTIONAL_FUNCTIONS(FIND)
    *(void **)&found.operator_delete = dlsym(library, "_ZdlPv");
#define CHECK(result, name, arguments)                                                             \
    if (found.name == NULL)                                                                        \
        return #name;
    TORCH_FUNCTIONS(CHECK)
    if (found.torch_delete_stable_ivalue == NULL && found.operator_delete == NULL)
        return "torch_delete_stable_ivalue";
    torch_api = found;
    return NULL;
}
