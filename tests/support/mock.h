/*
 * What mock plugins are made of: mock_plugin.c is the one source, built once for each plugin
 * and fault; the parts below are linked into all of them. Tests read the same layout and
 * streams.
 */
#ifndef KERNELRY_TESTS_MOCK_H
#define KERNELRY_TESTS_MOCK_H

#include <kernelry/plugin.h>

#include <stdatomic.h>
#include <string.h>

/* ---- mock_gates.c: who takes what, after vLLM's mixed-precision kernels --------------- */

int64_t mock_can_cutlass_w4a8(const kry_device *device, const kry_linear *linear,
                              kry_refusal *refusal);
int64_t mock_can_machete(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
int64_t mock_can_allspark(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
int64_t mock_can_marlin(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
int64_t mock_can_conch(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
/** Conch where its optional library is not installed. */
int64_t mock_can_conch_without_library(const kry_device *device, const kry_linear *linear,
                                       kry_refusal *refusal);
int64_t mock_can_exllama(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
int64_t mock_can_triton_w4a16(const kry_device *device, const kry_linear *linear,
                              kry_refusal *refusal);

/* ---- mock_dense.c: kernels that compute, with the simplest of layouts ------------------ */

/** Takes all that mock_apply computes: f32 in and out, any groups, any scales. */
int64_t mock_can_dense(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
/** Likewise, but no group may reach over an edge of the partition. */
int64_t mock_can_whole_groups(const kry_device *device, const kry_linear *linear,
                              kry_refusal *refusal);
/** As mock_can_dense; pads K to a multiple of 64. */
int64_t mock_can_padded(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
/** Takes everything. */
int64_t mock_can_all(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
/** Says no, and neither why nor with the number it should. */
int64_t mock_can_mute(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);

/** Ranges of output features given to mock_prepare start at multiples of it. */
#define MOCK_PREPARE_MULTIPLE 6

/**
 * Offsets, in bytes, of the layout "mock-dense": codes u8 [N][K], zero points u8 [N][G] (the
 * type's bias where it has none), scales f32 [N][G], groups i32 [K], then u8 [N] counting how
 * often each row was written (mod 256).
 */
typedef struct mock_layout {
    int64_t groups;
    uint64_t zero_at;
    uint64_t scale_at;
    uint64_t group_at;
    uint64_t count_at;
    uint64_t bytes;
} mock_layout;

static inline mock_layout mock_layout_of(const kry_linear *linear) {
    uint64_t n = (uint64_t)linear->out_features;
    uint64_t k = (uint64_t)linear->in_features;
    mock_layout layout = {.groups = kry_linear_groups(linear)};
    uint64_t groups = (uint64_t)layout.groups;
    layout.zero_at = n * k;
    layout.scale_at = (layout.zero_at + n * groups + 3) / 4 * 4;
    layout.group_at = layout.scale_at + 4 * n * groups;
    layout.count_at = layout.group_at + 4 * k;
    layout.bytes = layout.count_at + n;
    return layout;
}

kry_status mock_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out);
/** Scratch 8 * m bytes, zeroed 64: apply writes all of both, and fails when zeroed is not. */
kry_status mock_workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                          kry_workspace *out);
kry_status mock_prepare(const kry_prepare_call *call);
/** State: device_state is allocated by the host, so that a lost one shows as a leak. */
kry_status mock_open_device(const kry_device *device, const kry_host *host, void **state);
void mock_close_device(void *state, const kry_host *host);
/** Notes the prepared address in bound; apply compares, as a tensor map would have it. */
kry_status mock_bind(const kry_binding *binding);
kry_status mock_apply(const kry_binding *binding, const kry_apply_args *args);

/** A kernel that does nothing, to time what the core adds. */
kry_status mock_noop_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out);
kry_status mock_noop_prepare(const kry_prepare_call *call);
kry_status mock_noop_apply(const kry_binding *binding, const kry_apply_args *args);

/** Floating-point number `index` of an array of that KRY_TYPE_*. */
float mock_load(const void *array, uint32_t type, int64_t index);

/* ---- mock_faults.c: kernels that say yes and then fail ---------------------------------- */

/** Fail with a sentence that mock_error_message then tells. */
kry_status mock_fail(kry_status status, const char *sentence);
const char *mock_error_message(void);

kry_status mock_fail_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out);
kry_status mock_absurd_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out);
kry_status mock_no_multiple(const kry_device *device, const kry_linear *linear, kry_sizes *out);
/** Tells more bytes than the layout has. */
kry_status mock_larger_sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out);
kry_status mock_fail_workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                               kry_workspace *out);
kry_status mock_fail_prepare(const kry_prepare_call *call);
kry_status mock_fail_open(const kry_device *device, const kry_host *host, void **state);
kry_status mock_fail_bind(const kry_binding *binding);
kry_status mock_fail_apply(const kry_binding *binding, const kry_apply_args *args);
/** Fails with a number that is no status, and says nothing. */
kry_status mock_odd_apply(const kry_binding *binding, const kry_apply_args *args);

/* ---- mock_odd.c: tables, names and answers as no author should make them ------------------ */

extern const char mock_long_text[]; /* nearly 4 KiB of a letter */
extern const char mock_no_utf8[];

/** A copy of a struct that ends where memory that cannot be read begins, and says that it is of
 *  `told` bytes. */
void *mock_at_edge(const void *from, size_t bytes, size_t told);
/** The plugin with one kernel of its own, all of later sizes and none readable beyond ours. */
const kry_plugin *mock_later(const kry_plugin *plugin);
/** The plugin with the operations of one platform more; NULL is one as well. */
const kry_plugin *mock_bring(const kry_plugin *plugin, const kry_platform *platform);

/** Waits, for in_features MOCK_WAITS_FOR, until a gate is open; else takes everything. */
int64_t mock_can_wait(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
/** Waits likewise, in any case. */
kry_status mock_open_waiting(const kry_device *device, const kry_host *host, void **state);
/** No, with numbers and a code that mean nothing. */
int64_t mock_can_babble(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
/** No, with a sentence of 4 KiB. */
int64_t mock_can_preach(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
/** Text that would turn a terminal red and forge a line of a log; with UTF-8 that is well-formed.
 */
extern const char mock_unclean[];
/** No, with that sentence. */
int64_t mock_can_forge(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
/** Logs that text, and fails with it. */
kry_status mock_open_forging(const kry_device *device, const kry_host *host, void **state);
/** Yes, and fills in a refusal; with all the padding there can be. */
int64_t mock_can_waver(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);

/** The environment's MOCK_GATE is the address of one, "%p". */
typedef struct mock_gate {
    atomic_int waiting; /* calls that came to it */
    atomic_int open;
} mock_gate;
#define MOCK_WAITS_FOR 4242

/** Call the function whose address the environment's MOCK_CALL is, as "%p"; for constructors. */
void mock_call_back(void);

/* ---- mock_trial.c: plugins that must not run where they would be served from -------------- */

/** Whether this is not the process that MOCK_HOME names by its id, the test's own: a trial. */
int mock_away(void);
/** Start two processes that never end, one of them in a session of its own; their ids are appended
 *  to the file that MOCK_PIDS names. */
void mock_leave_processes(void);
/** Fork, and return twice. */
void mock_return_twice(void);
/** Fork, let the child return and end this process a second later, as a daemon does. */
void mock_daemonise(void);
/** Abort when the descriptor that MOCK_DESCRIPTOR names is open. */
void mock_abort_with_descriptor(void);
/** Turn without an end. */
void mock_loop(void);
/** Write to standard output and standard error, without an end. */
void mock_flood(void);
/** Kernels that end with a segmentation fault, and that never answer. */
int64_t mock_can_crash(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);
int64_t mock_can_hang(const kry_device *device, const kry_linear *linear, kry_refusal *refusal);

/* ---- mock_services.c: a platform that brings services ----------------------------------- */

extern const kry_platform mock_services_platform;

/** The context of its services: blocks not released yet, tasks run. */
typedef struct mock_counts {
    int64_t blocks;
    int64_t tasks;
} mock_counts;

/* ---- mock_toy.c: a platform with device memory of its own ------------------------------- */

extern const kry_platform mock_toy_platform;

/** The toy's stream: what was put on it, counted. The tests make them. */
typedef struct mock_stream {
    int64_t copies;
    int64_t clears;
    int64_t canonical_rows;
    int64_t prepares;
    int64_t applies;
    int64_t waits;
} mock_stream;

/**
 * Device pointers are host pointers with this bit set: no address space maps them, so host
 * code that follows one faults at once.
 */
#define MOCK_DEVICE_BIT (UINT64_C(1) << 54)

static inline int mock_is_device(const void *pointer) {
    return ((uintptr_t)pointer & MOCK_DEVICE_BIT) != 0;
}
static inline void *mock_pointer(uintptr_t bits) {
    void *pointer;
    memcpy(&pointer, &bits, sizeof pointer);
    return pointer;
}
/** The host's view of any pointer. */
static inline void *mock_untag(const void *pointer) {
    return mock_pointer((uintptr_t)pointer & ~(uintptr_t)MOCK_DEVICE_BIT);
}
/** The device's view of host memory. */
static inline void *mock_tag(const void *pointer) {
    return mock_pointer((uintptr_t)pointer | (uintptr_t)MOCK_DEVICE_BIT);
}

/** Element (n, j) of a view in host memory, read as types.h words it; a zero point's true value. */
uint32_t mock_view_read(const kry_view *view, uint32_t weight_type, int64_t n, int64_t j);

#endif
