/*
 * The one source of all mock plugins. A build chooses by definitions:
 *
 *   MOCK_NAME           the plugin's name, an identifier
 *   MOCK_PLATFORMS      what its note says: KRY_PLATFORM(...) and KRY_PLATFORM_FALLBACK(...)
 *   MOCK_KERNELS        KERNEL(name, platform, can_implement, functions, features), ...;
 *                       none when not defined
 *   MOCK_PLATFORM       also brings the operations of this platform, a kry_platform
 * and, to be wrong in one way each,
 *   MOCK_CPU_FEATURES   KRY_CPU_* that the note asks for
 *   MOCK_ABI_MAJOR, MOCK_ABI_MINOR  what the note says of the ABI
 *   MOCK_CONSTRUCTOR    a statement that runs as soon as the file is loaded
 *   MOCK_BREAK          a statement that damages the table before it is returned
 *   MOCK_TABLE          what the entry returns instead of the table
 *   MOCK_MISSING        a function that no library brings
 */
#include "mock.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef MOCK_ABI_MAJOR
#undef KRY_ABI_MAJOR
#define KRY_ABI_MAJOR MOCK_ABI_MAJOR
#endif
#ifdef MOCK_ABI_MINOR
#undef KRY_ABI_MINOR
#define KRY_ABI_MINOR MOCK_ABI_MINOR
#endif
#ifndef MOCK_CPU_FEATURES
#define MOCK_CPU_FEATURES 0
#endif
#ifndef MOCK_TABLE
#define MOCK_TABLE table()
#endif

#define TEXT_OF(word) #word
#define TEXT(word) TEXT_OF(word)

/* The functions of a kernel but can_implement, in the order of kry_linear_kernel. */
#define DENSE                                                                                      \
    mock_sizes, mock_workspace, mock_prepare, mock_open_device, mock_close_device, mock_bind,      \
        mock_apply
#define NOOP mock_noop_sizes, NULL, mock_noop_prepare, NULL, NULL, NULL, mock_noop_apply

/* The compound literals have static storage and are not const: MOCK_BREAK changes them. */
#define KERNEL(name, platform, can_implement, functions, features)                                 \
    KERNEL_OF(name, platform, can_implement, features, functions)
#define KERNEL_OF(name, platform, can_implement, features, ...)                                    \
    &(kry_kernel) {                                                                                \
        sizeof(kry_kernel), name, "a mock", platform, KRY_OPERATION_LINEAR, "mock-dense", 1,       \
            KRY_KERNEL_DETERMINISTIC | KRY_KERNEL_BATCH_INVARIANT, features,                       \
            &(kry_linear_kernel) {                                                                 \
            sizeof(kry_linear_kernel), can_implement, __VA_ARGS__                                  \
        }                                                                                          \
    }

#ifdef MOCK_KERNELS
#ifdef MOCK_K_MULTIPLE
/** One of the fifty: a gate with multiples, groups and types of its own. */
static int64_t can_tiled(const kry_device *device, const kry_linear *linear, kry_refusal *refusal) {
    (void)device;
    int64_t group = linear->group_size;
    if (!(MOCK_WEIGHT_TYPES >> linear->weight_type & 1))
        return kry_refuse(refusal, KRY_REFUSAL_WEIGHT_TYPE, linear->weight_type, MOCK_WEIGHT_TYPES,
                          NULL);
    if (linear->x_type == KRY_TYPE_F32)
        return kry_refuse(refusal, KRY_REFUSAL_X_TYPE, linear->x_type,
                          1 << KRY_TYPE_F16 | 1 << KRY_TYPE_BF16, NULL);
    if (linear->act_order)
        return kry_refuse(refusal, KRY_REFUSAL_ACT_ORDER, 1, 0, NULL);
    if (group != -1 && group != 128 && group != MOCK_GROUP)
        return kry_refuse(refusal, KRY_REFUSAL_GROUP_SIZE, group, MOCK_GROUP, NULL);
    if (linear->in_features % MOCK_K_MULTIPLE != 0)
        return kry_refuse(refusal, KRY_REFUSAL_K_ALIGNMENT, linear->in_features, MOCK_K_MULTIPLE,
                          NULL);
    if (linear->out_features % MOCK_N_MULTIPLE != 0)
        return kry_refuse(refusal, KRY_REFUSAL_N_ALIGNMENT, linear->out_features, MOCK_N_MULTIPLE,
                          NULL);
    if (group > 0 && linear->k_offset % group != 0)
        return kry_refuse(refusal, KRY_REFUSAL_PARTITION, linear->k_offset % group, 0, NULL);
    return KRY_ACCEPTED;
}
#endif
static const kry_kernel *const kernels[] = {MOCK_KERNELS};
#define KERNELS kernels, sizeof kernels / sizeof kernels[0]
#else
#define KERNELS NULL, 0
#endif

#ifdef MOCK_PLATFORM
static const kry_platform *const platforms[] = {&MOCK_PLATFORM};
#define PLATFORMS platforms, 1
#else
#define PLATFORMS NULL, 0
#endif

/* Not const, because MOCK_BREAK may change it. */
static kry_plugin plugin = {sizeof(kry_plugin), TEXT(MOCK_NAME), KERNELS, PLATFORMS,
                            mock_error_message};

static const kry_plugin *table(void) {
#ifdef MOCK_BREAK
    kry_kernel *kernel = (kry_kernel *)kernels[0];
    kry_linear_kernel *functions = (kry_linear_kernel *)kernel->linear;
    (void)functions;
    MOCK_BREAK;
#endif
#ifdef MOCK_MISSING
    int MOCK_MISSING(void);
    MOCK_MISSING();
#endif
    return &plugin;
}

#ifdef MOCK_CONSTRUCTOR
__attribute__((constructor)) static void run_when_loaded(void) { MOCK_CONSTRUCTOR; }
#endif

/* Expands MOCK_NAME before KRY_PLUGIN makes a string of it. */
#define PLUGIN(name, ...) KRY_PLUGIN(name, __VA_ARGS__)
PLUGIN(MOCK_NAME, "1.2.3", MOCK_TABLE, MOCK_CPU_FEATURES, MOCK_PLATFORMS);
