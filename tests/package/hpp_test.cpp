// kernelry.hpp and checkpoint.hpp against the installed library: what a class holds, what it
// throws, and that the same weights prepared, mapped and explained in C++ are those of C.
//
//     hpp_test MODEL LAYER FOLDER
#include <kernelry/checkpoint.hpp>

#include <cstdio>
#include <cstdlib>
#include <type_traits>
#include <utility>
#include <vector>

std::size_t kernels_of_another_file(const kry::registry &registry); // hpp_other.cpp

namespace {

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #condition,       \
                         kry_error_message());                                                     \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)

/** The status that a call throws; KRY_OK: none. The sentence must have that part. */
template <class Call> kry_status thrown(const char *part, Call call) {
    try {
        call();
    } catch (const kry::error &error) {
        if (std::strstr(error.what(), part) == nullptr) {
            std::fprintf(stderr, "'%s' lacks '%s'\n", error.what(), part);
            std::exit(1);
        }
        return error.status();
    }
    return KRY_OK;
}

template <class T> constexpr bool only_moves() {
    return !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> &&
           std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T>;
}
static_assert(only_moves<kry::registry>() && only_moves<kry::decision>() &&
              only_moves<kry::layer>() && only_moves<kry::buffer>() &&
              only_moves<kry::workspace>() && only_moves<kry::checkpoint>() &&
              only_moves<kry::checkpoint_weights>());
static_assert(sizeof(kry::layer) == sizeof(void *) && sizeof(kry::registry) == sizeof(void *));

kry_linear describe() {
    kry_linear linear = KRY_INIT(kry_linear);
    linear.in_features = 2112;
    linear.out_features = 64;
    linear.group_size = 64;
    linear.weight_type = KRY_WEIGHT_U4B8;
    linear.x_type = KRY_TYPE_F32;
    return linear;
}

void registry_tells_what_it_holds() {
    const kry::registry registry;
    std::size_t loaded = 0;
    for (std::size_t i = 0; i < registry.plugin_count(); i++)
        loaded += registry.plugin(i).state == KRY_PLUGIN_LOADED;
    REQUIRE(loaded > 0);
    REQUIRE(registry.search_path(0) != nullptr && registry.search_path(99) == nullptr);
    REQUIRE(registry.kernel_count() >= registry.kernel_count("cpu"));
    REQUIRE(std::strcmp(registry.kernel("cpu", 0).platform, "cpu") == 0);
    REQUIRE(kernels_of_another_file(registry) == registry.kernel_count());
    REQUIRE(registry.device_count() >= 1);
    REQUIRE(std::strcmp(registry.device(0).platform, "cpu") == 0);
    REQUIRE(registry.find_device("cpu").cpu_features == registry.device(0).cpu_features);
    REQUIRE(thrown("abacus", [&] { registry.find_device("abacus"); }) == KRY_E_NOT_FOUND);
    REQUIRE(thrown("", [&] { registry.plugin(9999); }) == KRY_E_NOT_FOUND);

    const char *disable[] = {"reference"};
    kry_registry_options options = KRY_INIT(kry_registry_options);
    options.disable = disable;
    options.disable_count = 1;
    REQUIRE(kry::registry(options).kernel_count("cpu") + 1 == registry.kernel_count("cpu"));
    options.reserved = 1;
    REQUIRE(thrown("reserved", [&] { kry::registry wrong(options); }) == KRY_E_ARGUMENT);
}

void decision_explains_refusals_in_words() {
    const kry::registry registry;
    kry_linear linear = kry::complete(describe());
    REQUIRE(linear.y_type == KRY_TYPE_F32);
    linear.required_features = UINT64_C(1) << 50; // that nobody knows
    const kry_device cpu = registry.find_device("cpu");
    const kry::decision decision(registry, cpu, linear);
    const kry_decision_info info = decision.info();
    REQUIRE(info.chosen == -1 && info.candidate_count == registry.kernel_count("cpu"));
    const kry_candidate first = decision.candidate(0);
    REQUIRE(first.verdict == KRY_VERDICT_REFUSES);
    REQUIRE(first.refusal->code == KRY_REFUSAL_FEATURE);
    const std::string words = kry::to_string(*first.refusal);
    REQUIRE(words.size() > 10 && words.find('\0') == std::string::npos);
    REQUIRE(thrown(first.kernel, [&] { kry::layer(registry, cpu, linear); }) == KRY_E_NO_KERNEL);
    linear.in_features = 0;
    REQUIRE(thrown("in_features", [&] { kry::complete(linear); }) == KRY_E_ARGUMENT);
    REQUIRE(kry::decision(registry, cpu, describe()).info().chosen >= 0);
}

std::vector<float> apply(const kry::layer &layer, std::int64_t m) {
    const kry_linear &linear = *layer.linear();
    const kry::buffer x(static_cast<std::size_t>(m * linear.in_features) * sizeof(float));
    std::vector<float> y(static_cast<std::size_t>(m * linear.out_features));
    for (std::int64_t i = 0; i < m * linear.in_features; i++)
        x.as<float>()[i] = static_cast<float>(i % 17) - 8;
    const kry::workspace workspace(layer, m);
    kry_apply_args args = KRY_INIT(kry_apply_args);
    args.m = m;
    args.x = x.data();
    args.y = y.data();
    workspace.lend(args);
    layer.apply(args);
    return y;
}

void prepared_and_mapped_weights_give_the_same_numbers(const char *path, const char *name,
                                                       const std::string &folder) {
    kry_device cpu;
    kry::checkpoint model(path);
    const std::size_t index = model.find_layer(name);
    kry_linear linear = KRY_INIT(kry_linear);
    const std::string content = model.content(index, KRY_CONTENT_BYTES, &linear);
    REQUIRE(content != model.content(index));
    REQUIRE(linear.in_features == model.describe(index).in_features);
    linear.x_type = linear.y_type = KRY_TYPE_F32;
    const auto make = [&] { // layers outlive the registry
        const kry::registry registry;
        cpu = registry.find_device("cpu");
        return kry::layer(registry, cpu, linear);
    };
    kry::layer layer = make();
    REQUIRE(thrown("no prepared weights", [&] { apply(layer, 1); }) == KRY_E_STATE);
    REQUIRE(thrown("no prepared weights", [&] { layer.save((folder + "/a").c_str(), "k"); }) ==
            KRY_E_STATE);
    {
        const kry::checkpoint_weights weights = model.weights(index);
        REQUIRE(weights.linear().in_features == linear.in_features);
        layer.prepare(weights.weights());
    }
    const std::vector<float> expected = apply(layer, 3);
    double norm = 0;
    for (const float value : expected)
        norm += static_cast<double>(value) * static_cast<double>(value);
    REQUIRE(norm > 0);

    const std::string file = folder + "/layer.kry";
    kry::layer other = make();
    REQUIRE(other.try_map(file.c_str(), content.c_str()) == KRY_E_NOT_FOUND);
    layer.save(file.c_str(), content.c_str());
    REQUIRE(other.try_map(file.c_str(), "other weights") == KRY_E_STALE);
    REQUIRE(thrown("content", [&] { (void)other.try_map(file.c_str(), ""); }) == KRY_E_ARGUMENT);
    REQUIRE(other.try_map(file.c_str(), content.c_str()) == KRY_OK);
    REQUIRE(apply(other, 3) == expected);
    REQUIRE(other.try_map(file.c_str(), content.c_str(), KRY_MAP_COPY) == KRY_OK);
    REQUIRE(apply(other, 3) == expected);
    REQUIRE(std::strcmp(layer.kernel().kernel, other.kernel().kernel) == 0);
    REQUIRE(layer.sizes().prepared_bytes > 0);

    kry::layer moved = std::move(layer);
    REQUIRE(layer.get() == nullptr && layer.linear() == nullptr);
    REQUIRE(thrown("NULL", [&] { layer.sizes(); }) == KRY_E_ARGUMENT);
    REQUIRE(apply(moved, 3) == expected);
    moved = std::move(other); // ends what it held
    REQUIRE(apply(moved, 3) == expected);
}

void checkpoint_tells_tensors_and_layers(const char *path, const char *name) {
    const kry::checkpoint model(path);
    REQUIRE(model.tensor_count() > model.layer_count());
    const std::size_t index = model.find_layer(name);
    REQUIRE(std::strcmp(model.layer(index).name, name) == 0);
    REQUIRE(model.find_tensor(model.tensor(1).name).data == model.tensor(1).data);
    kry_slice half = KRY_INIT(kry_slice);
    half.n_end = model.describe(index).out_features / 2;
    REQUIRE(model.describe(index, &half).out_features == half.n_end);
    REQUIRE(model.weights(index, &half).linear().out_features == half.n_end);
    REQUIRE(model.content(index, KRY_CONTENT_FILES, nullptr, &half) != model.content(index));
    REQUIRE(thrown("no.such.layer", [&] { model.find_layer("no.such.layer"); }) == KRY_E_NOT_FOUND);
    REQUIRE(thrown("/no/such/model", [] { kry::checkpoint("/no/such/model"); }) != KRY_OK);
    int lines = 0;
    kry_checkpoint_options options = KRY_INIT(kry_checkpoint_options);
    options.context = &lines;
    options.log = [](void *context, std::int32_t, const char *) { ++*static_cast<int *>(context); };
    REQUIRE(kry::checkpoint(path, options).layer_count() == model.layer_count());
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    registry_tells_what_it_holds();
    decision_explains_refusals_in_words();
    prepared_and_mapped_weights_give_the_same_numbers(argv[1], argv[2], argv[3]);
    checkpoint_tells_tensors_and_layers(argv[1], argv[2]);
    std::puts("all so");
    return 0;
}
