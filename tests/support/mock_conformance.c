/*
 * A kernel that keeps every duty, and with MOCK_FAULT defined as one of the faults below, all
 * but one. It takes f32 alone; sums are doubles, in the order of k. With MOCK_REMOTE it is one of
 * the platform "remote", whose memory is no other than that which it has given out itself.
 *
 * prepared       shape   type
 * marks          [N]     u8, 1 once the row was written
 * codes          [N, K]  u8
 * zero points    [N, G]  u8, from a multiple of 8 bytes on
 * scales         [N, G]  f32
 * groups         [K]     i32
 * spare          [8]     0; with one fault a pointer
 */
#include <kernelry/plugin.h>

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum fault {
    NONE,
    /* can_implement */
    CHANGES_ITS_MIND,
    WRITES_TO_THE_DESCRIPTION,
    ALLOCATES_WHEN_ASKED,
    NEEDS_A_KNOWN_DEVICE,
    GIVES_NO_REASON,
    GIVES_WRONG_NUMBERS,
    ANSWERS_MINUS_TWO,
    SHARES_A_BUFFER_WHEN_ASKED,
    /* sizes, workspace */
    TELLS_OTHER_SIZES,
    TELLS_NO_MULTIPLE,
    SHRINKS_ITS_WORKSPACE,
    TELLS_OTHER_WORKSPACE,
    /* a yes that does not run */
    FAILS_FOR_MANY_ROWS,
    FAILS_TO_PREPARE_ODD_N,
    FAILS_TO_OPEN,
    /* prepare_weights */
    RELIES_ON_THE_ORDER_OF_RANGES,
    RELIES_ON_DENSE_ROWS,
    LEAVES_A_BYTE_UNWRITTEN,
    NEEDS_A_DEVICE_TO_PREPARE,
    KEEPS_A_POINTER_IN_PREPARED,
    KEEPS_OLD_WEIGHTS,
    /* sizes that are not enough */
    WRITES_BEHIND_PREPARED,
    WRITES_BEHIND_PREPARE_SCRATCH,
    WRITES_BEHIND_BOUND,
    WRITES_BEHIND_SCRATCH,
    WRITES_BEHIND_ZEROED,
    READS_BEHIND_WEIGHTS,
    READS_BEHIND_SCALES,
    READS_BEHIND_ZERO_POINTS,
    READS_BEHIND_ORDER,
    /* operands */
    ALLOCATES,
    ASKS_THE_HOST_FOR_MEMORY,
    SLEEPS,
    FLUSHES_DENORMALS,
    BLOCKS_A_SIGNAL,
    READS_BEYOND_K,
    WRITES_BEYOND_N,
    WRITES_BEHIND_Y,
    WRITES_TO_X,
    WRITES_TO_PREPARED,
    SPOILS_X, /* what a device cannot forbid shows when it changes something */
    SPOILS_PREPARED,
    READS_BEFORE_X,
    READS_BEHIND_X,
    READS_BEHIND_BIAS,
    LEAVES_ZEROED_DIRTY,
    NEEDS_ALIGNED_X,
    NEEDS_ALIGNED_Y,
    NEEDS_AN_EVEN_STRIDE,
    /* numbers */
    TAKES_A_WRONG_LAST_SCALE,
    LOSES_THE_LAST_COLUMN,
    LOSES_THE_LAST_FEATURES,
    FORGETS_THE_OFFSET,
    FORGETS_THE_ORDER,
    LOSES_A_LATE_ROW,
    FORGETS_THE_BIAS,
    ADDS_THE_BIAS_TWICE,
    HIDES_NAN,
    SPREADS_NAN,
    /* several runs */
    DEPENDS_ON_THREADS,
    DEPENDS_ON_SCRATCH,
    DEPENDS_ON_M,
    SHARES_A_BUFFER,
    SHARES_A_BUFFER_IN_PREPARE,
    KEEPS_THE_HOST,
    KEEPS_THE_DESCRIPTION,
    KEEPS_MEMORY,
    LEAKS,
    KEEPS_THE_DEVICE_STATE,
    /* the end of the process */
    CRASHES,
    HANGS,
    EXITS
};

#ifndef MOCK_FAULT
#define MOCK_FAULT NONE
#endif
/* A constant, so that what is not asked for is not compiled in. */
#define HAS(fault) (MOCK_FAULT == (fault))

enum { SCRATCH_PER_ROW = 8, ZEROED = 40, BOUND = 24, PREPARE_SCRATCH = 100 };

/* ---- asking --------------------------------------------------------------------------- */

static int64_t refuse(kry_refusal *refusal, uint32_t code, int64_t found, int64_t needed) {
    if (HAS(GIVES_NO_REASON))
        return KRY_REFUSED;
    if (HAS(ANSWERS_MINUS_TWO))
        return -2;
    return kry_refuse(refusal, code, HAS(GIVES_WRONG_NUMBERS) ? found + 1 : found, needed, NULL);
}

static int64_t can_implement(const kry_device *device, const kry_linear *linear,
                             kry_refusal *refusal) {
    static unsigned asked;
    const int64_t f32 = 1 << KRY_TYPE_F32;
    if (HAS(WRITES_TO_THE_DESCRIPTION))
        *(volatile uint32_t *)(uintptr_t)&linear->reserved = 0;
    if (HAS(ALLOCATES_WHEN_ASKED)) {
        void *volatile memory = malloc(64);
        free(memory);
    }
    if (HAS(NEEDS_A_KNOWN_DEVICE) && device->multiprocessors == 0)
        abort();
    static kry_linear shared;
    if (HAS(SHARES_A_BUFFER_WHEN_ASKED)) {
        shared = *linear;
        sched_yield();
        linear = &shared;
    }
    if (linear->x_type != KRY_TYPE_F32)
        return refuse(refusal, KRY_REFUSAL_X_TYPE, linear->x_type, f32);
    if (linear->y_type != KRY_TYPE_F32)
        return refuse(refusal, KRY_REFUSAL_Y_TYPE, linear->y_type, f32);
    if (linear->scale_type != KRY_TYPE_F32)
        return refuse(refusal, KRY_REFUSAL_SCALE_TYPE, linear->scale_type, f32);
    if (linear->activation_quantization != KRY_ACTIVATION_NONE)
        return refuse(refusal, KRY_REFUSAL_ACTIVATION_QUANTIZATION, linear->activation_quantization,
                      1 << KRY_ACTIVATION_NONE);
    return HAS(CHANGES_ITS_MIND) ? asked++ % 3 == 2 : KRY_ACCEPTED; /* padding, now and then */
}

struct layout {
    uint64_t codes_at, zeros_at, scales_at, groups_at, spare_at, bytes;
    int64_t groups;
};

static struct layout layout_of(const kry_linear *linear) {
    uint64_t n = (uint64_t)linear->out_features, k = (uint64_t)linear->in_features;
    struct layout l = {.codes_at = n, .groups = kry_linear_groups(linear)};
    l.zeros_at = (l.codes_at + n * k + 7) / 8 * 8;
    l.scales_at = (l.zeros_at + n * (uint64_t)l.groups + 7) / 8 * 8;
    l.groups_at = l.scales_at + n * (uint64_t)l.groups * sizeof(float);
    l.spare_at = (l.groups_at + k * sizeof(int32_t) + 7) / 8 * 8;
    l.bytes = l.spare_at + 8;
    return l;
}

static kry_status sizes(const kry_device *device, const kry_linear *linear, kry_sizes *out) {
    static unsigned asked;
    (void)device;
    out->prepared_bytes = layout_of(linear).bytes;
    out->prepare_scratch_bytes = PREPARE_SCRATCH;
    out->bound_bytes = BOUND;
    out->prepare_multiple = HAS(TELLS_NO_MULTIPLE) ? 0 : 4;
    if (HAS(TELLS_OTHER_SIZES))
        out->prepared_bytes += asked++ % 2 * 64;
    return KRY_OK;
}

static kry_status workspace(const kry_device *device, const kry_linear *linear, int64_t m,
                            kry_workspace *out) {
    static unsigned asked;
    (void)device;
    (void)linear;
    out->scratch_bytes = (uint64_t)m * SCRATCH_PER_ROW;
    out->zeroed_bytes = ZEROED;
    if (HAS(SHRINKS_ITS_WORKSPACE) && m < 100)
        out->scratch_bytes = 4096;
    if (HAS(TELLS_OTHER_WORKSPACE))
        out->scratch_bytes += asked++ % 2 * 64;
    return KRY_OK;
}

/* ---- preparing ------------------------------------------------------------------------- */

static char own_state; /* of a device that was opened by a host without memory */

static kry_status open_device(const kry_device *device, const kry_host *host, void **state) {
    (void)device;
    if (HAS(FAILS_TO_OPEN))
        return KRY_E_DEVICE;
    *state = host->allocate != NULL ? host->allocate(host->context, 64, 64) : &own_state;
    return *state != NULL ? KRY_OK : KRY_E_MEMORY;
}

static void close_device(void *state, const kry_host *host) {
    if (state != &own_state && !HAS(KEEPS_THE_DEVICE_STATE))
        host->release(host->context, state, 64);
}

static int64_t group_of(const kry_linear *linear, const kry_canonical *rows, int64_t k) {
    if (rows->g_idx != NULL)
        return HAS(FORGETS_THE_ORDER) ? rows->g_idx[0] : rows->g_idx[k];
    if (HAS(FORGETS_THE_OFFSET) && linear->group_size > 0)
        return k / linear->group_size;
    return kry_linear_group_of(linear, k);
}

/* With some faults: touch what follows the last row of something. */
static void read_behind(const kry_canonical *rows, int64_t row, const uint32_t *codes_end,
                        int64_t groups) {
    if (HAS(READS_BEHIND_WEIGHTS))
        (void)*(const volatile uint32_t *)codes_end;
    if (HAS(READS_BEHIND_SCALES))
        (void)((const volatile float *)rows->scales)[row * rows->scale_stride + groups];
    if (HAS(READS_BEHIND_ZERO_POINTS) && rows->zero_points != NULL)
        (void)*(const volatile uint8_t *)&rows->zero_points[row * rows->zero_stride + groups];
}

/* Row n, which is row `from` of the range. */
static void write_row(unsigned char *prepared, const kry_linear *linear, const kry_canonical *rows,
                      int64_t n, int64_t from) {
    struct layout l = layout_of(linear);
    uint32_t bits = (uint32_t)kry_weight_bits(linear->weight_type), per_word = 32 / bits;
    int64_t words = (linear->in_features + per_word - 1) / per_word;
    const uint32_t *codes =
        rows->qweight + from * (HAS(RELIES_ON_DENSE_ROWS) ? words : rows->qweight_stride);
    if (HAS(KEEPS_OLD_WEIGHTS) && prepared[n] == 1)
        return;
    prepared[n] = 1;
    static uint8_t shared[1 << 16];
    bool shares = HAS(SHARES_A_BUFFER_IN_PREPARE) && linear->in_features <= (int64_t)sizeof shared;
    uint8_t *to = prepared + l.codes_at + n * linear->in_features;
    uint8_t *row = shares ? shared : to;
    for (int64_t k = 0; k < linear->in_features; k++)
        row[k] =
            (uint8_t)(codes[k / per_word] >> (uint32_t)(k % per_word) * bits & ((1u << bits) - 1));
    if (shares) {
        sched_yield();
        memcpy(to, shared, (size_t)linear->in_features);
    }
    for (int64_t g = 0; g < l.groups; g++) {
        uint64_t place = (uint64_t)(n * l.groups + g);
        int64_t from_group = HAS(TAKES_A_WRONG_LAST_SCALE) && g > 0 && g == l.groups - 1 ? 0 : g;
        memcpy(prepared + l.scales_at + place * sizeof(float),
               (const float *)rows->scales + from * rows->scale_stride + from_group, sizeof(float));
        prepared[l.zeros_at + place] = rows->zero_points != NULL
                                           ? rows->zero_points[from * rows->zero_stride + g]
                                           : (uint8_t)(1 << (bits - 1));
    }
    if (n + 1 == linear->out_features)
        read_behind(rows, from, codes + words, l.groups);
}

static kry_status prepare_weights(const kry_prepare_call *call) {
    static _Thread_local int64_t next_row;
    const kry_linear *linear = call->linear;
    const kry_canonical *rows = call->weights;
    unsigned char *prepared = call->prepared, *scratch = call->scratch;
    struct layout l = layout_of(linear);
    if (HAS(FAILS_TO_PREPARE_ODD_N) && linear->out_features % 2 != 0)
        return KRY_E_DEVICE;
    if (HAS(NEEDS_A_DEVICE_TO_PREPARE) && call->device_state == NULL)
        return KRY_E_DEVICE;
    if (HAS(LEAKS)) {
        void *volatile memory = malloc(8);
        (void)memory;
    }
    if (HAS(KEEPS_MEMORY) && call->host->allocate != NULL)
        call->host->allocate(call->host->context, 8, 8);
    memset(scratch, 0x11, PREPARE_SCRATCH + (HAS(WRITES_BEHIND_PREPARE_SCRATCH) ? 1 : 0));
    if (rows->n_begin == 0)
        next_row = 0;
    for (int64_t n = rows->n_begin; n < rows->n_end; n++) {
        int64_t to = HAS(RELIES_ON_THE_ORDER_OF_RANGES) ? next_row++ % linear->out_features : n;
        write_row(prepared, linear, rows, to, n - rows->n_begin);
    }
    for (int64_t k = 0; k < linear->in_features; k++) { /* alike in every range */
        int32_t group = (int32_t)group_of(linear, rows, k);
        memcpy(prepared + l.groups_at + (uint64_t)k * sizeof group, &group, sizeof group);
    }
    if (HAS(READS_BEHIND_ORDER) && rows->g_idx != NULL)
        (void)*(const volatile int32_t *)&rows->g_idx[linear->in_features];
    if (!HAS(LEAVES_A_BYTE_UNWRITTEN))
        memset(prepared + l.spare_at, 0, sizeof call->prepared);
    if (HAS(KEEPS_A_POINTER_IN_PREPARED))
        memcpy(prepared + l.spare_at, &call->prepared, sizeof call->prepared);
    if (HAS(WRITES_BEHIND_PREPARED))
        prepared[l.bytes] = 0;
    return KRY_OK;
}

/* What bind fills. */
struct bound {
    const unsigned char *prepared;
    const kry_linear *linear;
    const kry_host *host;
};

static kry_status bind(const kry_binding *binding) {
    struct bound *bound = binding->bound;
    *bound = (struct bound){binding->prepared, binding->linear, binding->host};
    if (HAS(WRITES_BEHIND_BOUND))
        ((unsigned char *)binding->bound)[BOUND] = 0;
    return KRY_OK;
}

/* ---- applying -------------------------------------------------------------------------- */

/* One apply, as its tasks see it. */
struct product {
    const kry_linear *linear;
    const unsigned char *prepared;
    const kry_apply_args *args;
    struct layout l;
    float *y;
    int64_t y_stride;
};

static float value_of(const struct product *p, int64_t row, int64_t k) {
    float value = ((const float *)p->args->x)[row * p->args->x_stride + k];
    return HAS(HIDES_NAN) && isnan(value) ? 0 : value;
}

static double element(const struct product *p, int64_t row, int64_t n) {
    int64_t columns = p->linear->in_features - (HAS(LOSES_THE_LAST_COLUMN) ? 1 : 0);
    bool backwards = (HAS(DEPENDS_ON_M) && p->args->m > 4) ||
                     (HAS(DEPENDS_ON_THREADS) && p->args->host->parallelism != NULL &&
                      p->args->host->parallelism(p->args->host->context) > 1);
    double sum = 0;
    for (int64_t i = 0; i < columns; i++) {
        int64_t k = backwards ? columns - 1 - i : i;
        int32_t group;
        float scale;
        memcpy(&group, p->prepared + p->l.groups_at + (uint64_t)k * sizeof group, sizeof group);
        uint64_t place = (uint64_t)(n * p->l.groups + group);
        memcpy(&scale, p->prepared + p->l.scales_at + place * sizeof scale, sizeof scale);
        int code = p->prepared[p->l.codes_at + (uint64_t)(n * p->linear->in_features + k)];
        double weight = (double)(code - p->prepared[p->l.zeros_at + place]) * (double)scale;
        sum += weight * (double)value_of(p, row, k);
        if (HAS(DEPENDS_ON_M) || HAS(DEPENDS_ON_THREADS)) /* in f32, where order shows */
            sum = (double)(float)sum;
    }
    if (HAS(READS_BEYOND_K) && p->args->x_stride > p->linear->in_features && row + 1 < p->args->m)
        sum += 0 * (double)value_of(p, row, p->linear->in_features);
    if ((HAS(LOSES_A_LATE_ROW) && row == 250) ||
        (HAS(NEEDS_ALIGNED_X) && (uintptr_t)p->args->x % 16 != 0) ||
        (HAS(NEEDS_ALIGNED_Y) && (uintptr_t)p->args->y % 16 != 0) ||
        (HAS(NEEDS_AN_EVEN_STRIDE) && p->args->x_stride != p->linear->in_features &&
         p->args->x_stride % 2 != 0))
        sum *= 0.5;
    if (HAS(DEPENDS_ON_SCRATCH)) /* less than the error that is allowed */
        sum *= 1 + 0x1p-33 * ((const unsigned char *)p->args->scratch)[SCRATCH_PER_ROW - 1];
    if (HAS(LEAVES_A_BYTE_UNWRITTEN))
        sum += p->prepared[p->l.spare_at];
    return sum;
}

/* Task: one output feature of all rows. */
static void multiply(void *argument, int64_t n) {
    const struct product *p = argument;
    const float *bias = HAS(FORGETS_THE_BIAS) ? NULL : p->args->bias;
    if (HAS(LOSES_THE_LAST_FEATURES) && n >= 8 && n >= p->linear->out_features / 8 * 8)
        return;
    for (int64_t row = 0; row < p->args->m; row++) {
        double sum = element(p, row, n);
        if (bias != NULL)
            sum += (HAS(ADDS_THE_BIAS_TWICE) ? 2 : 1) * (double)bias[n];
        p->y[row * p->y_stride + n] = (float)sum;
    }
}

/* As fast kernels like it, for the rest of the thread's life. */
static void flush_denormals(void) {
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);
#elif defined(__aarch64__)
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("msr fpcr, %0" : : "r"(control | 1 << 24));
#endif
}

/* What an apply does beside its numbers, with one fault each. */
static void misbehave(const struct product *p) {
    const kry_apply_args *args = p->args;
    int64_t end = args->m * args->y_stride - args->y_stride + p->linear->out_features;
    if (HAS(ALLOCATES)) {
        void *volatile memory = malloc(64);
        free(memory);
    }
    if (HAS(ASKS_THE_HOST_FOR_MEMORY) && args->host->allocate != NULL)
        args->host->release(args->host->context, args->host->allocate(args->host->context, 64, 64),
                            64);
    if (HAS(WRITES_TO_X))
        *(volatile float *)(uintptr_t)args->x = *(const volatile float *)args->x;
    if (HAS(SLEEPS)) {
        const struct timespec nanosecond = {.tv_nsec = 1};
        nanosleep(&nanosecond, NULL);
    }
    if (HAS(FLUSHES_DENORMALS))
        flush_denormals();
    if (HAS(BLOCKS_A_SIGNAL)) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
    }
    if (HAS(WRITES_TO_PREPARED))
        *(volatile unsigned char *)(uintptr_t)p->prepared =
            *(const volatile unsigned char *)p->prepared;
    if (HAS(SPOILS_X))
        *(volatile float *)(uintptr_t)args->x += 1;
    if (HAS(SPOILS_PREPARED))
        ((volatile unsigned char *)(uintptr_t)p->prepared)[p->l.spare_at] ^= 1;
    if (HAS(READS_BEFORE_X))
        (void)((const volatile float *)args->x)[-1];
    if (HAS(READS_BEHIND_X))
        (void)((const volatile float *)
                   args->x)[(args->m - 1) * args->x_stride + p->linear->in_features];
    if (HAS(WRITES_BEYOND_N) && args->y_stride > p->linear->out_features && args->m > 1)
        p->y[p->linear->out_features] = 0;
    if (HAS(WRITES_BEHIND_Y))
        p->y[end] = 0;
    if (HAS(READS_BEHIND_BIAS) && args->bias != NULL)
        (void)((const volatile float *)args->bias)[p->linear->out_features];
    if (HAS(SPREADS_NAN))
        for (int64_t row = 0; row < args->m; row++)
            for (int64_t k = 0; k < p->linear->in_features; k++)
                if (isnan(value_of(p, row, k)))
                    p->y[0] = p->y[(args->m - 1) * args->y_stride] = NAN;
    if (HAS(CRASHES) && args->m == 5)
        raise(SIGSEGV);
    if (HAS(EXITS) && args->m == 5)
        exit(0);
    while (HAS(HANGS) && args->m == 5)
        sched_yield();
}

/* Compute into a buffer that all calls share, and copy from there. */
static void multiply_in_shared_buffer(struct product *p) {
    enum { MOST = 1 << 16 };
    static float shared[MOST];
    float *y = p->y;
    int64_t n = p->linear->out_features, y_stride = p->y_stride;
    if (p->args->m * n > MOST) {
        kry_parallel_for(p->args->host, n, multiply, p);
        return;
    }
    p->y = shared;
    p->y_stride = n;
    kry_parallel_for(p->args->host, n, multiply, p);
    sched_yield();
    for (int64_t row = 0; row < p->args->m; row++)
        memcpy(y + row * y_stride, shared + row * n, (size_t)n * sizeof *y);
}

static kry_status apply(const kry_binding *binding, const kry_apply_args *args) {
    const struct bound *bound = binding->bound;
    struct product p = {.linear = HAS(KEEPS_THE_DESCRIPTION) ? bound->linear : binding->linear,
                        .prepared = bound->prepared,
                        .args = args,
                        .y = args->y,
                        .y_stride = args->y_stride};
    p.l = layout_of(p.linear);
    if (HAS(FAILS_FOR_MANY_ROWS) && args->m > 30)
        return KRY_E_DEVICE;
    if (HAS(KEEPS_A_POINTER_IN_PREPARED))
        memcpy(&p.prepared, bound->prepared + p.l.spare_at, sizeof p.prepared);
    if (HAS(KEEPS_THE_HOST) && bound->host->parallelism != NULL)
        bound->host->parallelism(bound->host->context);
    if (!HAS(DEPENDS_ON_SCRATCH))
        memset(args->scratch, 0x22,
               (size_t)args->m * SCRATCH_PER_ROW + (HAS(WRITES_BEHIND_SCRATCH) ? 1 : 0));
    memset(args->zeroed, 0x33, ZEROED + (HAS(WRITES_BEHIND_ZEROED) ? 1 : 0));
    if (HAS(SHARES_A_BUFFER))
        multiply_in_shared_buffer(&p);
    else
        kry_parallel_for(args->host, p.linear->out_features, multiply, &p);
    misbehave(&p);
    memset(args->zeroed, 0, HAS(LEAVES_ZEROED_DIRTY) ? ZEROED - 1 : ZEROED);
    return KRY_OK;
}

/* ---- the platform "remote" --------------------------------------------------------------- */

#ifdef MOCK_REMOTE
enum { BLOCKS_MOST = 512 };
static struct {
    unsigned char *data;
    uint64_t bytes;
} blocks[BLOCKS_MOST];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool is_remote(const void *memory) {
    const unsigned char *data = memory;
    bool found = false;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < BLOCKS_MOST && !found; i++)
        found = blocks[i].data != NULL && data >= blocks[i].data &&
                data <= blocks[i].data + blocks[i].bytes;
    pthread_mutex_unlock(&lock);
    return found;
}

static kry_status find_remote(size_t index, kry_device *out) {
    if (index > 0)
        return KRY_E_NOT_FOUND;
    *out = (kry_device){.struct_size = sizeof *out,
                        .platform = "remote",
                        .arch = "remote_1",
                        .multiprocessors = 1,
                        .warp_size = 1};
    return KRY_OK;
}

static kry_status allocate(const kry_device *device, uint64_t bytes, void **out) {
    enum { ALIGNMENT = 256 };
    (void)device;
    unsigned char *data = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT);
    int i = 0;
    pthread_mutex_lock(&lock);
    while (data != NULL && i < BLOCKS_MOST && blocks[i].data != NULL)
        i++;
    if (data != NULL && i < BLOCKS_MOST) {
        blocks[i].data = data;
        blocks[i].bytes = bytes;
    }
    pthread_mutex_unlock(&lock);
    *out = data;
    return data != NULL && i < BLOCKS_MOST ? KRY_OK : KRY_E_MEMORY;
}

static void release(const kry_device *device, void *memory, uint64_t bytes) {
    (void)device;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < BLOCKS_MOST; i++)
        if (blocks[i].data == memory && blocks[i].bytes == bytes) {
            free(memory);
            blocks[i].data = NULL;
        }
    pthread_mutex_unlock(&lock);
}

static kry_status copy(const kry_device *device, void *to, uint32_t to_memory, const void *from,
                       uint32_t from_memory, uint64_t bytes, void *stream) {
    (void)device;
    (void)stream;
    if (is_remote(to) != (to_memory == KRY_MEMORY_DEVICE) ||
        is_remote(from) != (from_memory == KRY_MEMORY_DEVICE))
        return KRY_E_ARGUMENT;
    memmove(to, from, bytes);
    return KRY_OK;
}

static kry_status clear(const kry_device *device, void *memory, uint64_t bytes, void *stream) {
    (void)device;
    (void)stream;
    memset(memory, 0, bytes);
    return is_remote(memory) ? KRY_OK : KRY_E_ARGUMENT;
}

static kry_status synchronize(const kry_device *device, void *stream) {
    (void)device;
    (void)stream;
    return KRY_OK;
}

static const kry_platform platform = {.struct_size = sizeof(kry_platform),
                                      .name = "remote",
                                      .device = find_remote,
                                      .allocate = allocate,
                                      .release = release,
                                      .copy = copy,
                                      .clear = clear,
                                      .synchronize = synchronize};
static const kry_platform *const platforms[] = {&platform};

/* Whoever is given memory of the host says so. */
static kry_status prepare_remotely(const kry_prepare_call *call) {
    bool remote = call->device_state != NULL; /* else it is prepared without the device */
    return is_remote(call->prepared) == remote && is_remote(call->scratch) == remote &&
                   is_remote(call->weights->qweight) == remote &&
                   is_remote(call->weights->scales) == remote
               ? prepare_weights(call)
               : KRY_E_ARGUMENT;
}

static kry_status apply_remotely(const kry_binding *binding, const kry_apply_args *args) {
    return is_remote(binding->prepared) && is_remote(args->x) && is_remote(args->y) &&
                   is_remote(args->scratch) && is_remote(args->zeroed) &&
                   (args->bias == NULL || is_remote(args->bias))
               ? apply(binding, args)
               : KRY_E_ARGUMENT;
}
#define PLATFORM "remote"
#define PREPARE prepare_remotely
#define APPLY apply_remotely
#else
#define PLATFORM "cpu"
#define PREPARE prepare_weights
#define APPLY apply
#endif

/* ---- the plugin -------------------------------------------------------------------------- */

static const kry_linear_kernel functions = {.struct_size = sizeof(kry_linear_kernel),
                                            .can_implement = can_implement,
                                            .sizes = sizes,
                                            .workspace = workspace,
                                            .prepare_weights = PREPARE,
                                            .open_device = open_device,
                                            .close_device = close_device,
                                            .bind = bind,
                                            .apply = APPLY};

static const kry_kernel kernel = {.struct_size = sizeof(kry_kernel),
                                  .name = "mock",
                                  .summary = "keeps every duty, or all but one",
                                  .platform = PLATFORM,
                                  .operation = KRY_OPERATION_LINEAR,
                                  .layout_name = "mock-conformance",
                                  .layout_version = 1,
                                  .flags = KRY_KERNEL_DETERMINISTIC | KRY_KERNEL_BATCH_INVARIANT,
                                  .linear = &functions};

static const kry_kernel *const kernels[] = {&kernel};

static const kry_plugin plugin = {
    .struct_size = sizeof(kry_plugin),
    .name = "mock_conformance",
    .kernels = kernels,
    .kernel_count = 1,
#ifdef MOCK_REMOTE
    .platforms = platforms,
    .platform_count = 1,
#endif
};

KRY_PLUGIN(mock_conformance, "1.0.0", &plugin, 0, KRY_PLATFORM(PLATFORM, 500));
