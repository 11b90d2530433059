// Prints how many kernels the registry holds: count.c again, as C++ reads the headers.
#include <kernelry/kernelry.h>

#include <cstdio>

int main() {
    kry_registry_options options = KRY_INIT(kry_registry_options);
    kry_registry *registry;
    if (kry_registry_open(&options, &registry) != KRY_OK) {
        fprintf(stderr, "%s\n", kry_error_message());
        return 1;
    }
    printf("%zu\n", kry_registry_kernel_count(registry, nullptr));
    kry_registry_close(&registry);
    return 0;
}
