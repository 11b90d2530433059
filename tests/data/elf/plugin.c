/* A plugin without kernels and without libc, so that files of it are small. */
#include <kernelry/plugin.h>

#ifdef NEEDS_DEPENDENCY
int elf_dependency(void);
int elf_sample_used(void);
__attribute__((used)) int elf_sample_used(void) { return elf_dependency(); }
#endif

static const kry_plugin table = {.struct_size = sizeof(kry_plugin), .name = "elf_sample"};
KRY_PLUGIN(elf_sample, "1.0", &table, 0, KRY_PLATFORM("cpu", 1));
