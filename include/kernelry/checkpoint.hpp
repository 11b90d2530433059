/*
 * checkpoint.h in C++17, in the way of kernelry.hpp.
 */
#ifndef KERNELRY_CHECKPOINT_HPP
#define KERNELRY_CHECKPOINT_HPP

#include <kernelry/checkpoint.h>
#include <kernelry/kernelry.hpp>

namespace kry {

class checkpoint;

/** A partition's description and weights, views into the checkpoint, which must outlive it. */
class checkpoint_weights {
  public:
    checkpoint_weights(const checkpoint &checkpoint, std::size_t index,
                       const kry_slice *slice = nullptr);

    const kry_linear &linear() const noexcept { return *handle_->linear; }
    const kry_weights &weights() const noexcept { return *handle_->weights; }
    /** NULL: the layer has none. */
    const void *bias() const noexcept { return handle_->bias; }
    std::uint32_t bias_dtype() const noexcept { return handle_->bias_dtype; }

    /** NULL after a move; then none of the above may be called. */
    const kry_checkpoint_weights *get() const noexcept { return handle_.get(); }

  private:
    detail::owned<kry_checkpoint_weights, kry_checkpoint_weights_destroy> handle_;
};

/** An open checkpoint. A slice of NULL is the whole layer. */
class checkpoint {
  public:
    explicit checkpoint(const char *path) : checkpoint(path, nullptr) {}
    checkpoint(const char *path, const kry_checkpoint_options &options)
        : checkpoint(path, &options) {}

    std::size_t tensor_count() const noexcept { return kry_checkpoint_tensor_count(get()); }
    kry_tensor tensor(std::size_t index) const {
        return detail::filled<kry_tensor>(
            [&](auto *out) { return kry_checkpoint_tensor(get(), index, out); });
    }
    kry_tensor find_tensor(const char *name) const {
        return detail::filled<kry_tensor>(
            [&](auto *out) { return kry_checkpoint_find_tensor(get(), name, out); });
    }

    std::size_t layer_count() const noexcept { return kry_checkpoint_layer_count(get()); }
    kry_checkpoint_layer layer(std::size_t index) const {
        return detail::filled<kry_checkpoint_layer>(
            [&](auto *out) { return kry_checkpoint_layer_at(get(), index, out); });
    }
    /** The index of a layer. */
    std::size_t find_layer(const char *name) const {
        std::size_t index = 0;
        check(kry_checkpoint_find_layer(get(), name, &index));
        return index;
    }
    kry_linear describe(std::size_t index, const kry_slice *slice = nullptr) const {
        return detail::filled<kry_linear>(
            [&](auto *out) { return kry_checkpoint_slice(get(), index, slice, out); });
    }
    checkpoint_weights weights(std::size_t index, const kry_slice *slice = nullptr) const {
        return checkpoint_weights(*this, index, slice);
    }

    /** The content key for layer::save and layer::try_map; *linear (NULL: not wanted), made with
     *  KRY_INIT, gets the description. Allocates the key. */
    std::string content(std::size_t index, std::uint32_t how = KRY_CONTENT_FILES,
                        kry_linear *linear = nullptr, const kry_slice *slice = nullptr) const {
        char key[KRY_CONTENT_MAX + 1];
        check(kry_checkpoint_content(get(), index, slice, how, linear, key, sizeof key));
        return key;
    }

    kry_checkpoint *get() const noexcept { return handle_.get(); }

  private:
    checkpoint(const char *path, const kry_checkpoint_options *options) {
        kry_checkpoint *opened = nullptr;
        check(kry_checkpoint_open(path, options, &opened));
        handle_.reset(opened);
    }

    detail::owned<kry_checkpoint, kry_checkpoint_close> handle_;
};

inline checkpoint_weights::checkpoint_weights(const checkpoint &checkpoint, std::size_t index,
                                              const kry_slice *slice) {
    kry_checkpoint_weights *made = nullptr;
    check(kry_checkpoint_weights_create(checkpoint.get(), index, slice, &made));
    handle_.reset(made);
}

} // namespace kry

#endif
