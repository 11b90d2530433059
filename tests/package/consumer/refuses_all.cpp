// A plugin written in C++: it exports its entry alone, and refuses everything.
#include <kernelry/plugin.h>

#include <string>

namespace {

// Of the standard library's templates, to show that none of its symbols gets out.
const std::string reason = "refuses_all refuses all";

int64_t can_implement(const kry_device *, const kry_linear *, kry_refusal *refusal) {
    return kry_refuse(refusal, KRY_REFUSAL_OTHER, 0, 0, reason.c_str());
}

kry_status sizes(const kry_device *, const kry_linear *, kry_sizes *) { return KRY_E_UNSUPPORTED; }

kry_status prepare_weights(const kry_prepare_call *) { return KRY_E_UNSUPPORTED; }

kry_status apply(const kry_binding *, const kry_apply_args *) { return KRY_E_UNSUPPORTED; }

kry_linear_kernel make_linear() {
    kry_linear_kernel made = KRY_INIT(kry_linear_kernel);
    made.can_implement = can_implement;
    made.sizes = sizes;
    made.prepare_weights = prepare_weights;
    made.apply = apply;
    return made;
}

kry_kernel make_kernel() {
    static const kry_linear_kernel linear = make_linear();
    kry_kernel made = KRY_INIT(kry_kernel);
    made.name = "refuses_all";
    made.summary = "Refuses everything";
    made.platform = "cpu";
    made.operation = KRY_OPERATION_LINEAR;
    made.layout_name = "none";
    made.linear = &linear;
    return made;
}

const kry_plugin *table() {
    static const kry_kernel kernel = make_kernel();
    static const kry_kernel *const kernels[] = {&kernel};
    static const kry_plugin plugin = [] {
        kry_plugin made = KRY_INIT(kry_plugin);
        made.name = "refuses_all";
        made.kernels = kernels;
        made.kernel_count = 1;
        return made;
    }();
    return &plugin;
}

} // namespace

KRY_PLUGIN(refuses_all, "1.0.0", table(), 0, KRY_PLATFORM("cpu", 900));
