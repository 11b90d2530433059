// The embedding example in C++, with a cache: map the layer's prepared weights, or prepare and save
// them; apply it to random activations and say which kernel ran.
//
//     embed_cpp MODEL LAYER CACHE-FILE
#include <kernelry/checkpoint.hpp>

#include <cstdio>
#include <cstdlib>

namespace {

constexpr std::int64_t rows = 4, shown = 4;

void run(const char *path, const char *name, const char *cache) {
    const kry::registry registry;
    const kry::checkpoint model(path);
    const std::size_t index = model.find_layer(name);

    // The checkpoint says how weights are stored; what x and y are is the caller's choice.
    kry_linear linear = KRY_INIT(kry_linear);
    const std::string content = model.content(index, KRY_CONTENT_FILES, &linear);
    linear.x_type = KRY_TYPE_F32;
    linear.y_type = KRY_TYPE_F32;
    kry::layer layer(registry, registry.find_device("cpu"), linear);

    const bool mapped = layer.try_map(cache, content.c_str()) == KRY_OK;
    if (!mapped) {
        std::printf("no cache: %s\n", kry_error_message());
        layer.prepare(model.weights(index).weights());
        layer.save(cache, content.c_str());
    }

    const kry::buffer x(static_cast<std::size_t>(rows * linear.in_features) * sizeof(float));
    const kry::buffer y(static_cast<std::size_t>(rows * linear.out_features) * sizeof(float));
    const kry::workspace workspace(layer, rows);
    for (std::int64_t i = 0; i < rows * linear.in_features; i++)
        x.as<float>()[i] = static_cast<float>(std::rand()) / static_cast<float>(RAND_MAX) - 0.5F;
    kry_apply_args args = KRY_INIT(kry_apply_args);
    args.m = rows;
    args.x = x.data();
    args.y = y.data();
    workspace.lend(args);
    layer.apply(args);

    const kry_kernel_info kernel = layer.kernel();
    std::printf("%s %lldx%lld runs on kernel %s of plugin %s, weights %s\ny =", name,
                static_cast<long long>(linear.in_features),
                static_cast<long long>(linear.out_features), kernel.kernel, kernel.plugin,
                mapped ? "mapped" : "prepared");
    for (std::int64_t n = 0; n < shown && n < linear.out_features; n++)
        std::printf(" %g", static_cast<double>(y.as<float>()[n]));
    std::printf(" ...\n");
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: %s MODEL LAYER CACHE-FILE\n", argv[0]);
        return 2;
    }
    try {
        run(argv[1], argv[2], argv[3]);
    } catch (const kry::error &error) {
        std::fprintf(stderr, "embed_cpp: %s: %s\n", kry_status_string(error.status()),
                     error.what());
        return 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "embed_cpp: %s\n", error.what());
        return 1;
    }
    return 0;
}
