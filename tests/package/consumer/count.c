/* Prints how many kernels the registry holds. */
#include <kernelry/kernelry.h>

#include <stdio.h>

int main(void) {
    kry_registry_options options = KRY_INIT(kry_registry_options);
    kry_registry *registry;
    if (kry_registry_open(&options, &registry) != KRY_OK) {
        fprintf(stderr, "%s\n", kry_error_message());
        return 1;
    }
    printf("%zu\n", kry_registry_kernel_count(registry, NULL));
    kry_registry_close(&registry);
    return 0;
}
