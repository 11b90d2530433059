/*
 * The kernel of both platforms: what it takes, how large its layers are, and its launches. What
 * is launched plan.c decides; what the weights become prepare.c.
 */
#include "kernel.h"
#include "message.h"

#include <inttypes.h>
#include <string.h>

/* The device counts in 32 bits: blocks of a grid, and products of K's blocks with a group's. */
#define FEATURES_MOST (INT64_C(1) << 25)
#define PLACES_MOST (INT64_C(1) << 20)

#define BIT(value) (INT64_C(1) << (value))

/* ---- what it takes -------------------------------------------------------------------------- */

static int64_t check_device(const kry_device *device, kry_refusal *refusal) {
    bool cuda = strcmp(device->platform, "cuda") == 0;
    uint32_t least = gpu_code_least_arch(device->platform);
    if (least == 0)
        return kry_refuse(refusal, KRY_REFUSAL_DEPENDENCY, 0, 0,
                          cuda
                              ? "this build has no code for CUDA: it was made without nvcc"
                              : "this build has no code for ROCm: it was made without a clang that "
                                "compiles HIP");
    if (gpu_code_object_of(device->platform, device->arch_number) == NULL)
        return kry_refuse(refusal, KRY_REFUSAL_CAPABILITY, device->arch_number, least,
                          device->arch_number >= least
                              ? "this build has no code for the device's architecture"
                              : NULL);
    return KRY_ACCEPTED;
}

static int64_t check_types(const kry_linear *linear, kry_refusal *refusal) {
    const int64_t halves = BIT(KRY_TYPE_F16) | BIT(KRY_TYPE_BF16);
    if ((BIT(linear->x_type) & halves) == 0)
        return kry_refuse(refusal, KRY_REFUSAL_X_TYPE, linear->x_type, halves, NULL);
    if (linear->scale_type != linear->x_type)
        return kry_refuse(refusal, KRY_REFUSAL_SCALE_TYPE, linear->scale_type, BIT(linear->x_type),
                          NULL);
    if (linear->activation_quantization != KRY_ACTIVATION_NONE)
        return kry_refuse(
            refusal, KRY_REFUSAL_ACTIVATION_QUANTIZATION, linear->activation_quantization,
            BIT(KRY_ACTIVATION_NONE),
            "the model wants quantized activations, this kernel keeps them as they are");
    return KRY_ACCEPTED;
}

/* What gpu_layout_of multiplies cannot overflow below these. */
static int64_t check_sizes(const kry_linear *linear, kry_refusal *refusal) {
    int64_t places;
    if (linear->out_features > FEATURES_MOST)
        return kry_refuse(refusal, KRY_REFUSAL_SIZE, linear->out_features, FEATURES_MOST,
                          "more output features than the kernel counts");
    /* Groups are filled up to whole blocks, the first and the last one may be short. */
    if (__builtin_mul_overflow(kry_linear_groups(linear), GPU_BLOCK_K, &places) ||
        __builtin_add_overflow(places, linear->in_features, &places) || places > PLACES_MOST)
        return kry_refuse(refusal, KRY_REFUSAL_SIZE, linear->in_features, PLACES_MOST,
                          "more columns, or groups to be filled up, than the kernel counts");
    return KRY_ACCEPTED;
}

static int64_t can_implement(const kry_device *device, const kry_linear *linear,
                             kry_refusal *refusal) {
    int64_t answer = check_device(device, refusal);
    if (answer == KRY_ACCEPTED)
        answer = check_types(linear, refusal);
    if (answer == KRY_ACCEPTED)
        answer = check_sizes(linear, refusal);
    if (answer != KRY_ACCEPTED)
        return answer;
    struct gpu_layout layout = gpu_layout_of(linear);
    /* What is stored beyond the weights' own columns and rows. */
    int64_t stored = layout.n_panels * GPU_PANEL_TILES * layout.k_tiles * layout.tile_bytes;
    return stored - (linear->in_features * linear->out_features * layout.bits + 7) / 8;
}

kry_status gpu_lay_out(const kry_linear *linear, struct gpu_layout *out) {
    kry_refusal refusal;
    if (check_sizes(linear, &refusal) != KRY_ACCEPTED)
        return gpu_fail(KRY_E_ARGUMENT, "%" PRId64 " x %" PRId64 " in groups of %" PRId64 ": %s",
                        linear->in_features, linear->out_features, linear->group_size,
                        refusal.sentence);
    *out = gpu_layout_of(linear);
    return KRY_OK;
}

/* ---- sizes ------------------------------------------------------------------------------------
 */

/* To choose a plan takes longer than to launch it, and decoding repeats calls of a few rows: what
 * plan_of chose for these is kept, by output tiles of 8 rows and how x lies. */
enum { KEPT_ROWS = 64, KEPT = KEPT_ROWS / 8, KEPT_LIES = 3 };
static const struct gpu_call kept_calls[KEPT_LIES] = {
    {.x_unit = 16}, {.x_unit = 8, .x_late = true}, {.x_unit = 2}};

/* What bind fills. */
struct bound {
    struct gpu_facts facts;
    struct gpu_layout layout;
    int32_t kept[KEPT_LIES][KEPT]; /* candidates */
};

static kry_status sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    struct gpu_layout layout;
    (void)device; /* the layout is the same for all */
    kry_status status = gpu_lay_out(linear, &layout);
    if (status != KRY_OK)
        return status;
    out->prepared_bytes = layout.bytes;
    out->prepare_scratch_bytes = gpu_prepare_scratch_bytes(&layout);
    out->bound_bytes = sizeof(struct bound);
    out->prepare_multiple = GPU_PANEL_N;
    return KRY_OK;
}

static kry_status workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                            kry_workspace *out) {
    struct gpu_layout layout;
    struct gpu_facts facts = gpu_code_device_facts(device);
    kry_status status = gpu_lay_out(linear, &layout);
    if (status != KRY_OK)
        return status;
    int64_t most = gpu_run_rows(&layout);
    gpu_plan_workspace(&facts, linear, &layout, m < most ? m : most, out);
    return KRY_OK;
}

/* ---- the device ---------------------------------------------------------------------------------
 */

static kry_status open_device(const kry_device *device, const kry_host *host, void **state) {
    const struct gpu_driver *driver = gpu_driver_of(device);
    const struct gpu_code *code;
    struct gpu_scope scope;
    (void)host; /* the code stays loaded, see code.h */
    kry_status status = driver->enter(device, &scope);
    if (status != KRY_OK)
        return status;
    status = gpu_code_open(device, &code);
    driver->leave(&scope);
    if (status == KRY_OK)
        *state = (void *)(uintptr_t)code;
    return status;
}

static kry_status bind(const kry_binding *binding) {
    struct bound *bound = binding->bound;
    bound->facts = gpu_code_device_facts(binding->device);
    if (binding->device_state != NULL)
        gpu_code_facts(binding->device_state, &bound->facts);
    kry_status status = gpu_lay_out(binding->linear, &bound->layout);
    for (int32_t i = 0; i < KEPT_LIES * KEPT && status == KRY_OK; i++) {
        struct gpu_plan plan;
        struct gpu_call call = kept_calls[i / KEPT];
        call.m = i % KEPT * 8 + 8;
        gpu_plan_of(&bound->facts, binding->linear, &bound->layout, &call, &plan);
        bound->kept[i / KEPT][i % KEPT] = plan.candidate;
    }
    return status;
}

/* ---- applying -----------------------------------------------------------------------------------
 */

/* An apply under way. */
struct application {
    const kry_binding *binding;
    const kry_apply_args *args;
    const struct gpu_code *code;
    const struct bound *bound;
    struct gpu_call call; /* all rows */
};

/* Plan the run that begins at a row. */
static void plan_run(const struct application *a, int64_t row, struct gpu_plan *out) {
    int64_t left = a->args->m - row, most = gpu_run_rows(&a->bound->layout);
    struct gpu_call call = a->call;
    const struct bound *bound = a->bound;
    double cost;
    call.m = left < most ? left : most;
    int32_t lies = call.x_unit == 16 ? 0 : call.x_late ? 1 : 2;
    if (call.m > KEPT_ROWS ||
        !gpu_plan_candidate(&bound->facts, a->binding->linear, &bound->layout, &call,
                            bound->kept[lies][(call.m - 1) / 8], out, &cost))
        gpu_plan_of(&bound->facts, a->binding->linear, &bound->layout, &call, out);
    if (out->rows > call.m)
        out->rows = call.m;
}

static kry_status check_plan(const struct application *a, const struct gpu_plan *plan) {
    const kry_apply_args *args = a->args;
    uint64_t scratch = args->scratch != NULL ? args->scratch_bytes : 0;
    uint64_t zeroed = args->zeroed != NULL ? args->zeroed_bytes : 0;
    if (scratch < plan->scratch_bytes || zeroed < plan->zeroed_bytes)
        return gpu_fail(KRY_E_WORKSPACE,
                        "workspace: %" PRIu64 " scratch and %" PRIu64 " zeroed bytes, %s needs "
                        "%" PRIu64 " and %" PRIu64,
                        scratch, zeroed, plan->main.entry, plan->scratch_bytes, plan->zeroed_bytes);
    if (!gpu_code_has(a->code, plan->main.entry) ||
        (plan->arranged && !gpu_code_has(a->code, plan->arrange.entry)))
        return gpu_fail(KRY_E_PLUGIN, "the device code lacks %s or %s", plan->main.entry,
                        plan->arrange.entry);
    return KRY_OK;
}

static const void *x_at(const struct application *a, int64_t row) {
    size_t bytes = kry_type_bytes(a->binding->linear->x_type);
    return (const char *)a->args->x + row * a->args->x_stride * (int64_t)bytes;
}

static void *y_at(const struct application *a, int64_t row) {
    size_t bytes = kry_type_bytes(a->binding->linear->y_type);
    return (char *)a->args->y + row * a->args->y_stride * (int64_t)bytes;
}

static kry_status launch_run(const struct application *a, int64_t row,
                             const struct gpu_plan *plan) {
    const kry_linear *linear = a->binding->linear;
    const struct gpu_layout *layout = &a->bound->layout;
    struct gpu_run run = {.x = x_at(a, row),
                          .y = y_at(a, row),
                          .bias = a->args->bias,
                          .m = plan->rows,
                          .x_stride = a->args->x_stride,
                          .y_stride = a->args->y_stride,
                          .prepared = a->binding->prepared,
                          .scratch = a->args->scratch,
                          .zeroed = a->args->zeroed};
    kry_status status = KRY_OK;
    if (plan->arranged) {
        struct gpu_arrange_params parameters = gpu_plan_arrange(plan, layout, &run);
        status = gpu_code_launch(a->code, &plan->arrange, &parameters, a->args->stream);
    }
    if (status != KRY_OK)
        return status;
    /* An entry takes as much of it as its own parameters are. */
    struct gpu_late_params parameters = {.wide.apply = gpu_plan_params(plan, linear, layout, &run)};
    struct gpu_tensor_map *maps[GPU_MAPS] = {&parameters.wide.x, &parameters.more[0],
                                             &parameters.more[1]};
    struct gpu_apply_params *p = &parameters.wide.apply;
    if (plan->box_rows == 0)
        return gpu_code_launch(a->code, &plan->main, p, a->args->stream);
    struct gpu_rows rows[GPU_MAPS];
    int32_t count = gpu_plan_maps(plan, p, rows);
    for (int32_t i = 0; i < count && status == KRY_OK; i++)
        status = gpu_driver_of(a->binding->device)->map_rows(maps[i], &rows[i]);
    return status == KRY_OK ? gpu_code_launch(a->code, &plan->main, &parameters, a->args->stream)
                            : status;
}

/* `plan` is the first run's. */
static kry_status launch_all(const struct application *a, struct gpu_plan *plan) {
    kry_status status = launch_run(a, 0, plan);
    for (int64_t row = plan->rows; row < a->args->m && status == KRY_OK; row += plan->rows) {
        plan_run(a, row, plan);
        status = launch_run(a, row, plan);
    }
    return status;
}

/* What would fail is told before anything is launched: all runs but the last are like the first,
 * whose plan is given out. */
static kry_status check_all(const struct application *a, struct gpu_plan *first) {
    plan_run(a, 0, first);
    kry_status status = check_plan(a, first);
    int64_t last = (a->args->m - 1) / first->rows * first->rows;
    if (status == KRY_OK && last > 0) {
        struct gpu_plan plan;
        plan_run(a, last, &plan);
        status = check_plan(a, &plan);
    }
    return status;
}

static kry_status apply(const kry_binding *binding, const kry_apply_args *args) {
    const struct gpu_driver *driver = gpu_driver_of(binding->device);
    struct application a = {.binding = binding,
                            .args = args,
                            .code = binding->device_state,
                            .bound = binding->bound,
                            .call = gpu_call_of(args->x, args->x_stride, args->m)};
    struct gpu_scope scope;
    struct gpu_plan plan;
    if (a.code == NULL)
        return gpu_fail(KRY_E_STATE, "device %s:%d is not opened", binding->device->platform,
                        binding->device->ordinal);
    kry_status status = check_all(&a, &plan);
    if (status == KRY_OK)
        status = driver->enter(binding->device, &scope);
    if (status != KRY_OK)
        return status;
    status = launch_all(&a, &plan);
    driver->leave(&scope);
    return status;
}

const kry_linear_kernel gpu_linear_kernel = {.struct_size = sizeof(kry_linear_kernel),
                                             .can_implement = can_implement,
                                             .sizes = sizes,
                                             .workspace = workspace,
                                             .prepare_weights = gpu_prepare,
                                             .open_device = open_device,
                                             .bind = bind,
                                             .apply = apply};
