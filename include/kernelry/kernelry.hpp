/*
 * Kernelry for embedders in C++17: the handles of kernelry.h as classes that end them, its statuses
 * as exceptions. Header-only and thin: each function is one call of the C library and allocates
 * nothing, unless its comment says so; structs are those of C, made with KRY_INIT. What is said
 * there of ownership, errors and threads holds here. checkpoint.hpp is its counterpart for models.
 *
 * Classes are moved and not copied. One that was moved from holds nothing: its functions throw
 * KRY_E_ARGUMENT, those that cannot fail answer 0 or NULL.
 */
#ifndef KERNELRY_KERNELRY_HPP
#define KERNELRY_KERNELRY_HPP

#include <kernelry/kernelry.h>

#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

namespace kry {

/** A call that failed: its status, and in what() the sentence. Allocates a copy of the sentence. */
class error : public std::runtime_error {
  public:
    error(kry_status status, const char *message) : std::runtime_error(message), status_(status) {}
    kry_status status() const noexcept { return status_; }

  private:
    kry_status status_;
};

/** Throw what a call that just failed on this thread has said. */
inline void check(kry_status status) {
    if (status != KRY_OK)
        throw error(status, kry_error_message());
}

namespace detail {

template <class T, void (*End)(T **)> struct ender {
    void operator()(T *handle) const noexcept { End(&handle); }
};
template <class T, void (*End)(T **)> using owned = std::unique_ptr<T, ender<T, End>>;

/** A struct that a C function fills. */
template <class T, class Call> T filled(Call call) {
    T out = KRY_INIT(T);
    check(call(&out));
    return out;
}

} // namespace detail

/** The registry of kernels. Layers outlive it. */
class registry {
  public:
    /** Open with the defaults, or with options. */
    registry() : registry(nullptr) {}
    explicit registry(const kry_registry_options &options) : registry(&options) {}

    std::size_t plugin_count() const noexcept { return kry_registry_plugin_count(get()); }
    kry_plugin_info plugin(std::size_t index) const {
        return detail::filled<kry_plugin_info>(
            [&](auto *out) { return kry_registry_plugin(get(), index, out); });
    }
    const char *search_path(std::size_t index) const noexcept {
        return kry_registry_search_path(get(), index);
    }

    /** Kernels in the order they are asked; NULL: of all platforms. */
    std::size_t kernel_count(const char *platform = nullptr) const noexcept {
        return kry_registry_kernel_count(get(), platform);
    }
    kry_kernel_info kernel(const char *platform, std::size_t index) const {
        return detail::filled<kry_kernel_info>(
            [&](auto *out) { return kry_registry_kernel(get(), platform, index, out); });
    }

    std::size_t device_count() const noexcept { return kry_registry_device_count(get()); }
    kry_device device(std::size_t index) const {
        return detail::filled<kry_device>(
            [&](auto *out) { return kry_registry_device(get(), index, out); });
    }
    /** By its name: "cpu", "cuda:1", "cuda:sm_90". */
    kry_device find_device(const char *name) const {
        return detail::filled<kry_device>(
            [&](auto *out) { return kry_registry_find_device(get(), name, out); });
    }

    kry_registry *get() const noexcept { return handle_.get(); }

  private:
    explicit registry(const kry_registry_options *options) {
        kry_registry *opened = nullptr;
        check(kry_registry_open(options, &opened));
        handle_.reset(opened);
    }

    detail::owned<kry_registry, kry_registry_close> handle_;
};

/** A description with its defaults filled in; throws KRY_E_ARGUMENT naming a wrong field. */
inline kry_linear complete(const kry_linear &linear) {
    return detail::filled<kry_linear>([&](auto *out) { return kry_linear_complete(&linear, out); });
}

/** A refusal in words. Allocates them. */
inline std::string to_string(const kry_refusal &refusal) {
    std::string text(kry_refusal_format(&refusal, nullptr, 0), '\0');
    kry_refusal_format(&refusal, text.data(), text.size() + 1);
    return text;
}

/** Who runs a description, and why not the others. */
class decision {
  public:
    decision(const registry &registry, const kry_device &device, const kry_linear &linear) {
        kry_decision *decided = nullptr;
        check(kry_decide(registry.get(), &device, &linear, &decided));
        handle_.reset(decided);
    }

    kry_decision_info info() const {
        return detail::filled<kry_decision_info>(
            [&](auto *out) { return kry_decision_describe(get(), out); });
    }
    kry_candidate candidate(std::size_t index) const {
        return detail::filled<kry_candidate>(
            [&](auto *out) { return kry_decision_candidate(get(), index, out); });
    }

    kry_decision *get() const noexcept { return handle_.get(); }

  private:
    detail::owned<kry_decision, kry_decision_destroy> handle_;
};

/** A kernel bound to prepared weights. */
class layer {
  public:
    /** Decide, or take the kernel of that name; as yet without weights. */
    layer(const registry &registry, const kry_device &device, const kry_linear &linear,
          const char *kernel = nullptr) {
        kry_layer_args args = KRY_INIT(kry_layer_args);
        args.device = &device;
        args.linear = &linear;
        args.kernel = kernel;
        kry_layer *made = nullptr;
        check(kry_layer_create(registry.get(), &args, &made));
        handle_.reset(made);
    }

    kry_kernel_info kernel() const {
        return detail::filled<kry_kernel_info>(
            [&](auto *out) { return kry_layer_kernel(get(), out); });
    }
    /** As asked, or as the kernel takes it. NULL after a move. */
    const kry_linear *linear(bool as_decided = false) const noexcept {
        return kry_layer_linear(get(), as_decided ? 1 : 0);
    }
    kry_sizes sizes() const {
        return detail::filled<kry_sizes>([&](auto *out) { return kry_layer_sizes(get(), out); });
    }
    kry_workspace workspace(std::int64_t m) const {
        return detail::filled<kry_workspace>(
            [&](auto *out) { return kry_layer_workspace(get(), m, out); });
    }

    /** Prepare weights into the platform's memory, or as the arguments say; again: reload. */
    void prepare(const kry_weights &weights) {
        kry_prepare_args args = KRY_INIT(kry_prepare_args);
        args.weights = &weights;
        prepare(args);
    }
    void prepare(const kry_prepare_args &args) { check(kry_layer_prepare(get(), &args)); }

    void apply(const kry_apply_args &args) const { check(kry_layer_apply(get(), &args)); }

    void save(const char *path, const char *content) const {
        kry_save_args args = KRY_INIT(kry_save_args);
        args.path = path;
        args.content = content;
        save(args);
    }
    void save(const kry_save_args &args) const { check(kry_layer_save(get(), &args)); }

    /**
     * Map prepared weights, if they are there and good. Returns KRY_OK, or why to prepare and save
     * instead: KRY_E_NOT_FOUND, KRY_E_FORMAT, KRY_E_FOREIGN, KRY_E_STALE, with the sentence in
     * kry_error_message(). Throws what preparing would not mend.
     */
    [[nodiscard]] kry_status try_map(const char *path, const char *content,
                                     std::uint32_t flags = 0) {
        kry_map_args args = KRY_INIT(kry_map_args);
        args.path = path;
        args.content = content;
        args.flags = flags;
        return try_map(args);
    }
    [[nodiscard]] kry_status try_map(const kry_map_args &args) {
        kry_status status = kry_layer_map(get(), &args);
        if (status != KRY_E_NOT_FOUND && status != KRY_E_FORMAT && status != KRY_E_FOREIGN &&
            status != KRY_E_STALE)
            check(status);
        return status;
    }

    kry_layer *get() const noexcept { return handle_.get(); }

  private:
    detail::owned<kry_layer, kry_layer_destroy> handle_;
};

/** Host memory at a multiple of KRY_ALIGNMENT, zeros: for x, y and workspaces on a CPU. Allocates;
 *  throws std::bad_alloc. */
class buffer {
  public:
    explicit buffer(std::size_t bytes)
        : bytes_(bytes), data_(::operator new(bytes > 0 ? bytes : 1, alignment())) {
        std::memset(data_.get(), 0, bytes);
    }

    void *data() const noexcept { return data_.get(); }
    template <class T> T *as() const noexcept { return static_cast<T *>(data_.get()); }
    std::size_t bytes() const noexcept { return data_ ? bytes_ : 0; }

  private:
    static constexpr std::align_val_t alignment() { return std::align_val_t{KRY_ALIGNMENT}; }
    struct freeing {
        void operator()(void *data) const noexcept { ::operator delete(data, alignment()); }
    };

    std::size_t bytes_;
    std::unique_ptr<void, freeing> data_;
};

/** A workspace in host memory for applies of up to m rows. Of one apply at a time. Allocates. */
class workspace {
  public:
    workspace(const layer &layer, std::int64_t m) : workspace(layer.workspace(m)) {}

    /** Let an apply use it. */
    void lend(kry_apply_args &args) const noexcept {
        args.scratch = scratch_.data();
        args.scratch_bytes = scratch_.bytes();
        args.zeroed = zeroed_.data();
        args.zeroed_bytes = zeroed_.bytes();
    }

  private:
    explicit workspace(const kry_workspace &needed)
        : scratch_(needed.scratch_bytes), zeroed_(needed.zeroed_bytes) {}

    buffer scratch_, zeroed_;
};

} // namespace kry

#endif
