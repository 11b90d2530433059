// A second file of the program, so that what the headers define twice would show.
#include <kernelry/checkpoint.hpp>

std::size_t kernels_of_another_file(const kry::registry &registry);
std::size_t kernels_of_another_file(const kry::registry &registry) {
    return registry.kernel_count();
}
