/*
 * Layers on a GPU: test_gpu_layer PLUGIN.so [TEST]. The exit status is 77 where there is no GPU.
 */
#include "gpu.h"

#include <inttypes.h>

static bool is_large; /* a GPU is behind it, and not a CPU that plays one */

/* A prepared layer and its weights. */
struct ready {
    struct weights weights;
    kry_layer *layer;
    kry_sizes sizes;
};

static void make_ready(const struct gpu *gpu, const kry_linear *linear, uint64_t seed,
                       struct ready *out) {
    struct gpu_stored stored;
    *out = (struct ready){.sizes = KRY_INIT(kry_sizes)};
    weights_make(&out->weights, linear, 0, seed);
    out->layer = gpu_layer(gpu, linear);
    gpu_store(gpu, &out->weights, PACKED_CANONICAL, KRY_MEMORY_DEVICE, &stored);
    gpu_prepare_layer(out->layer, &stored, NULL);
    EXPECT(kry_layer_sizes(out->layer, &out->sizes) == KRY_OK);
}

static void forget(struct ready *ready) {
    kry_layer_destroy(&ready->layer);
    weights_free(&ready->weights);
}

static kry_linear typed(int64_t in_features, int64_t out_features, int64_t group_size,
                        uint32_t weight_type, uint32_t type) {
    kry_linear linear = weights_linear(in_features, out_features, group_size, weight_type);
    linear.x_type = linear.scale_type = linear.y_type = type;
    return linear;
}

/* Shapes that differ in how they are laid out and read. */
static size_t descriptions(kry_linear out[16]) {
    size_t count = 0;
    for (uint32_t type = KRY_WEIGHT_U4B8; type <= KRY_WEIGHT_U8; type++)
        out[count++] = typed(264, 104, 32, type, type % 2 ? KRY_TYPE_F16 : KRY_TYPE_BF16);
    out[count++] = typed(160, 72, -1, KRY_WEIGHT_U4B8, KRY_TYPE_BF16);
    out[count++] = typed(200, 40, 128, KRY_WEIGHT_U4, KRY_TYPE_F16);
    out[count++] = typed(120, 40, 24, KRY_WEIGHT_U4, KRY_TYPE_F16); /* filled up to blocks */
    out[count] = typed(136, 40, 64, KRY_WEIGHT_U8B128, KRY_TYPE_BF16);
    out[count].k_offset = 40; /* starts inside a group */
    out[count++].full_in_features = 400;
    out[count] = typed(264, 48, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F16);
    out[count++].act_order = 1;
    out[count] = typed(144, 48, 32, KRY_WEIGHT_U4, KRY_TYPE_BF16);
    out[count].k_offset = 48;
    out[count].full_in_features = 200;
    out[count++].act_order = 1;
    return count;
}

/* ---- preparing
 * ----------------------------------------------------------------------------------- */

/* Prepared for a device of the same architecture that is not here, in host memory. */
static void *prepared_offline(const struct gpu *gpu, const kry_linear *linear,
                              const struct gpu_stored *stored, uint64_t *bytes) {
    kry_device absent = gpu->device;
    kry_sizes sizes = KRY_INIT(kry_sizes);
    kry_layer *layer;
    absent.ordinal = -1;
    absent.flags = KRY_DEVICE_HYPOTHETICAL;
    kry_layer_args args = {.struct_size = sizeof args, .device = &absent, .linear = linear};
    EXPECT(kry_layer_create(gpu->registry, &args, &layer) == KRY_OK);
    EXPECT(kry_layer_sizes(layer, &sizes) == KRY_OK);
    *bytes = sizes.prepared_bytes;
    void *memory = aligned_alloc(KRY_ALIGNMENT, sizes.prepared_bytes);
    EXPECT(memory != NULL);
    kry_prepare_args prepare = {.struct_size = sizeof prepare,
                                .weights = &stored->weights,
                                .prepared = memory,
                                .prepared_bytes = sizes.prepared_bytes,
                                .prepared_memory = KRY_MEMORY_HOST};
    gpu_expect_ok(kry_layer_prepare(layer, &prepare), "prepare for a device that is not here");
    kry_layer_destroy(&layer);
    return memory;
}

static void prepare_on_device(const struct gpu *gpu, const kry_linear *linear,
                              const struct gpu_stored *stored, void *to, uint64_t bytes) {
    kry_layer *layer = gpu_layer(gpu, linear);
    kry_prepare_args args = {.struct_size = sizeof args,
                             .weights = &stored->weights,
                             .prepared = to,
                             .prepared_bytes = bytes,
                             .prepared_memory = KRY_MEMORY_DEVICE};
    gpu_expect_ok(kry_layer_prepare(layer, &args), "prepare");
    kry_layer_destroy(&layer);
}

static void expect_prepared_alike(const struct gpu *gpu, const kry_linear *linear,
                                  enum gpu_packing packing) {
    struct weights weights;
    struct gpu_stored here, there;
    uint64_t bytes;
    weights_make(&weights, linear, 0, 7 + packing);
    gpu_store(gpu, &weights, packing, KRY_MEMORY_HOST, &here);
    gpu_store(gpu, &weights, packing, KRY_MEMORY_DEVICE, &there);
    void *expected = prepared_offline(gpu, linear, &here, &bytes);
    const struct gpu_stored *both[] = {&there, &here};
    for (int i = 0; i < 2; i++) {
        void *to = gpu_filled(gpu, 0xa5, bytes);
        prepare_on_device(gpu, linear, both[i], to, bytes);
        unsigned char *found = gpu_fetch(gpu, to, bytes, NULL);
        for (uint64_t at = 0; at < bytes; at++)
            if (found[at] != ((unsigned char *)expected)[at]) {
                fprintf(stderr,
                        "%" PRId64 "x%" PRId64 " g%" PRId64 " type %u, packing %d, weights on the "
                        "%s: byte %" PRIu64 " is %u, expected %u\n",
                        linear->in_features, linear->out_features, linear->group_size,
                        linear->weight_type, (int)packing, i ? "host" : "device", at, found[at],
                        ((unsigned char *)expected)[at]);
                _exit(1);
            }
        free(found);
        EXPECT(gpu->driver->release(to) == KRY_OK);
    }
    free(expected);
    weights_free(&weights);
}

static void prepare_on_the_device_writes_what_the_host_writes(void) {
    struct gpu gpu;
    kry_linear all[16];
    gpu_begin(&gpu, "cuda");
    size_t count = descriptions(all);
    for (size_t i = 0; i < count; i++)
        for (int packing = 0; packing < PACKINGS; packing++)
            if (packing != PACKED_AWQ || kry_weight_bits(all[i].weight_type) == 4)
                expect_prepared_alike(&gpu, &all[i], (enum gpu_packing)packing);
    if (is_large) {
        kry_linear large = typed(4096, 14336, 128, KRY_WEIGHT_U4, KRY_TYPE_BF16); /* many ranges */
        expect_prepared_alike(&gpu, &large, PACKED_AWQ);
        large.act_order = 1;
        expect_prepared_alike(&gpu, &large, PACKED_GPTQ);
    }
}

/* ---- applying
 * ------------------------------------------------------------------------------------- */

static void apply_and_check(const struct gpu *gpu, const struct ready *ready, int64_t m,
                            const struct gpu_style *style) {
    struct gpu_operands operands;
    gpu_operands_make(gpu, ready->layer, m, style, (uint64_t)m, &operands);
    gpu_apply(ready->layer, &operands);
    gpu_check(gpu, &ready->weights, &operands);
    free(operands.x);
    free(operands.bias);
}

static void apply_of_every_kind_of_layer_is_right(void) {
    static const int64_t many[] = {1,  2,  3,  7,  8,   9,   15,  16,  17,  31,  32,
                                   33, 63, 64, 65, 127, 128, 129, 300, 513, 1000};
    static const struct gpu_style styles[] = {
        {0, 0, 0, false}, {8, 8, 0, true}, {1, 3, 1, true}, {0, 1, 0, false}};
    struct gpu gpu;
    kry_linear all[16];
    gpu_begin(&gpu, "cuda");
    size_t count = descriptions(all), place = 0;
    for (size_t i = 0; i < count; i++) {
        struct ready ready;
        all[i].y_type = i % 3 == 2 ? KRY_TYPE_F32 : all[i].y_type;
        make_ready(&gpu, &all[i], i, &ready);
        for (size_t j = is_large ? 0 : i % 7; j < (is_large ? sizeof many / sizeof many[0] : 18);
             j += is_large ? 1 : 7)
            apply_and_check(&gpu, &ready, many[j], &styles[place++ % 4]);
        forget(&ready);
    }
}

static void apply_of_large_layers_is_right(void) {
    static const struct gpu_style plain = {0, 0, 0, false}, odd = {3, 1, 1, true};
    struct gpu gpu;
    gpu_begin(&gpu, "cuda");
    if (!is_large)
        return;
    const kry_linear shapes[] = {typed(2112, 2816, 32, KRY_WEIGHT_U4B8, KRY_TYPE_BF16),
                                 typed(4096, 4096, 128, KRY_WEIGHT_U4, KRY_TYPE_F16),
                                 typed(14336, 1024, 128, KRY_WEIGHT_U8, KRY_TYPE_BF16),
                                 typed(3420, 1280, 128, KRY_WEIGHT_U4B8, KRY_TYPE_F16)};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct ready ready;
        make_ready(&gpu, &shapes[i], i, &ready);
        apply_and_check(&gpu, &ready, 1, &plain);
        apply_and_check(&gpu, &ready, 16, &odd);
        apply_and_check(&gpu, &ready, 77, &plain);
        forget(&ready);
    }
}

static void apply_again_gives_the_same_bits(void) {
    static const struct gpu_style plain = {0, 0, 0, true};
    struct gpu gpu;
    struct ready ready;
    gpu_begin(&gpu, "cuda");
    kry_linear linear = typed(is_large ? 8192 : 1024, 96, 32, KRY_WEIGHT_U4, KRY_TYPE_F16);
    make_ready(&gpu, &linear, 3, &ready);
    for (int64_t m = 1; m <= 20; m += 19) {
        struct gpu_operands operands;
        gpu_operands_make(&gpu, ready.layer, m, &plain, 4, &operands);
        gpu_apply(ready.layer, &operands);
        void *first = gpu_fetch(&gpu, operands.args.y, operands.y_bytes, NULL);
        for (int i = 0; i < (is_large ? 50 : 2); i++) {
            gpu_apply(ready.layer, &operands);
            void *again = gpu_fetch(&gpu, operands.args.y, operands.y_bytes, NULL);
            EXPECT(memcmp(first, again, operands.y_bytes) == 0);
            free(again);
        }
        free(first);
    }
    forget(&ready);
}

/* ---- streams, graphs, devices
 * ------------------------------------------------------------------------ */

/* Those functions of the driver that embedders call and the plugin does not. */
static int (*stream_create)(void **stream, unsigned flags);
static int (*capture_begin)(void *stream, int mode);
static int (*capture_end)(void *stream, void **graph);
static int (*instantiate)(void **executable, void *graph, unsigned long long flags);
static int (*graph_launch)(void *executable, void *stream);

static bool has_graphs(void) {
    const struct {
        const char *name;
        void *function;
    } wanted[] = {{"cuStreamCreate", &stream_create},
                  {"cuStreamBeginCapture_v2", &capture_begin},
                  {"cuStreamEndCapture", &capture_end},
                  {"cuGraphInstantiateWithFlags", &instantiate},
                  {"cuGraphLaunch", &graph_launch}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        void *symbol = gpu_driver_function(wanted[i].name);
        if (symbol == NULL)
            return false;
        memcpy(wanted[i].function, &symbol, sizeof symbol);
    }
    return true;
}

enum { NON_BLOCKING = 1, CAPTURE_THREAD_LOCAL = 1 };

/* A graph of one apply, on a stream of the operands' own. */
static void *capture_apply(const kry_layer *layer, struct gpu_operands *operands) {
    void *graph, *executable;
    EXPECT(stream_create(&operands->args.stream, NON_BLOCKING) == 0);
    EXPECT(capture_begin(operands->args.stream, CAPTURE_THREAD_LOCAL) == 0);
    gpu_apply(layer, operands);
    EXPECT(capture_end(operands->args.stream, &graph) == 0);
    EXPECT(instantiate(&executable, graph, 0) == 0);
    return executable;
}

static void captured_graph_uses_weights_that_were_reloaded_in_place(void) {
    static const struct gpu_style plain = {0, 0, 0, true};
    struct gpu gpu;
    struct ready ready;
    struct gpu_operands operands;
    gpu_begin(&gpu, "cuda");
    if (!has_graphs())
        return;
    kry_linear linear =
        typed(is_large ? 2112 : 264, is_large ? 704 : 48, 32, KRY_WEIGHT_U4, KRY_TYPE_BF16);
    for (uint32_t act_order = 0; act_order < 2; act_order++) {
        struct gpu_stored stored;
        linear.act_order = act_order;
        make_ready(&gpu, &linear, 5, &ready);
        gpu_operands_make(&gpu, ready.layer, 5, &plain, 6, &operands);
        void *executable = capture_apply(ready.layer, &operands);
        EXPECT(graph_launch(executable, operands.args.stream) == 0);
        gpu_check(&gpu, &ready.weights, &operands);
        weights_free(&ready.weights);
        weights_make(&ready.weights, &linear, 0, 99);
        gpu_store(&gpu, &ready.weights, PACKED_GPTQ, KRY_MEMORY_DEVICE, &stored);
        gpu_prepare_layer(ready.layer, &stored, operands.args.stream);
        for (int i = 0; i < 3; i++)
            EXPECT(graph_launch(executable, operands.args.stream) == 0);
        gpu_check(&gpu, &ready.weights, &operands);
        forget(&ready);
    }
}

/* ---- files ----------------------------------------------------------------------------- */

/* A file in a folder of its own, removed by drop_file. */
static void make_file(char path[64]) {
    snprintf(path, 64, "/tmp/kernelry-gpu-XXXXXX");
    EXPECT(mkdtemp(path) != NULL);
    strcat(path, "/layer.kry");
}

static void drop_file(char path[64]) {
    unlink(path);
    *strrchr(path, '/') = '\0';
    rmdir(path);
}

static void save_and_map(const kry_layer *from, kry_layer *to, void *stream, char path[64]) {
    kry_save_args save = {
        .struct_size = sizeof save, .path = path, .content = "weights", .stream = stream};
    kry_map_args map = {
        .struct_size = sizeof map, .path = path, .content = "weights", .stream = stream};
    if (from != NULL)
        gpu_expect_ok(kry_layer_save(from, &save), "save");
    if (to != NULL)
        gpu_expect_ok(kry_layer_map(to, &map), "map");
}

static void saved_weights_are_right_where_they_are_mapped(void) {
    static const struct gpu_style plain = {0, 0, 0, true};
    struct gpu gpu;
    kry_linear all[16];
    char path[64];
    gpu_begin(&gpu, "cuda");
    make_file(path);
    size_t count = descriptions(all);
    for (size_t i = 0; i < count; i++) {
        struct ready ready;
        make_ready(&gpu, &all[i], i, &ready);
        kry_layer *mapped = gpu_layer(&gpu, &all[i]);
        save_and_map(ready.layer, mapped, NULL, path);
        kry_layer_destroy(&ready.layer);
        ready.layer = mapped;
        apply_and_check(&gpu, &ready, is_large ? 33 : 3, &plain);
        forget(&ready);
    }
    drop_file(path);
}

/* As after a sleep: other weights lay at the layer's address, and the file's come back to it. */
static void captured_graph_uses_weights_that_were_mapped_in_place(void) {
    static const struct gpu_style plain = {0, 0, 0, true};
    struct gpu gpu;
    struct ready ready;
    struct gpu_operands operands;
    struct gpu_stored stored;
    struct weights others;
    char path[64];
    gpu_begin(&gpu, "cuda");
    if (!has_graphs())
        return;
    make_file(path);
    kry_linear linear =
        typed(is_large ? 2112 : 264, is_large ? 704 : 48, 32, KRY_WEIGHT_U4, KRY_TYPE_BF16);
    make_ready(&gpu, &linear, 5, &ready);
    gpu_operands_make(&gpu, ready.layer, 5, &plain, 6, &operands);
    void *executable = capture_apply(ready.layer, &operands);
    save_and_map(ready.layer, NULL, operands.args.stream, path);
    weights_make(&others, &linear, 0, 99);
    gpu_store(&gpu, &others, PACKED_GPTQ, KRY_MEMORY_DEVICE, &stored);
    gpu_prepare_layer(ready.layer, &stored, operands.args.stream);
    EXPECT(graph_launch(executable, operands.args.stream) == 0);
    gpu_check(&gpu, &others, &operands);
    save_and_map(NULL, ready.layer, operands.args.stream, path);
    EXPECT(graph_launch(executable, operands.args.stream) == 0);
    gpu_check(&gpu, &ready.weights, &operands);
    weights_free(&others);
    forget(&ready);
    drop_file(path);
}

/* ---- streams and devices --------------------------------------------------------------- */

static void two_streams_at_once_do_not_disturb_each_other(void) {
    static const struct gpu_style plain = {0, 0, 0, false};
    struct gpu gpu;
    struct ready ready;
    struct gpu_operands operands[2];
    gpu_begin(&gpu, "cuda");
    if (!has_graphs())
        return;
    int rounds = is_large ? 200 : 4; /* where a CPU plays the GPU, one stream waits for the other */
    kry_linear linear =
        typed(is_large ? 8192 : 264, is_large ? 1024 : 48, 128, KRY_WEIGHT_U4B8, KRY_TYPE_F16);
    make_ready(&gpu, &linear, 8, &ready);
    for (int i = 0; i < 2; i++) {
        gpu_operands_make(&gpu, ready.layer, 3 + 14 * i, &plain, 20 + (uint64_t)i, &operands[i]);
        EXPECT(stream_create(&operands[i].args.stream, NON_BLOCKING) == 0);
    }
    for (int i = 0; i < rounds; i++)
        gpu_apply(ready.layer, &operands[i % 2]);
    for (int i = 0; i < 2; i++)
        gpu_check(&gpu, &ready.weights, &operands[i]);
    forget(&ready);
}

static void two_devices_in_one_process_compute_each_its_own(void) {
    static const struct gpu_style plain = {0, 0, 0, true};
    static const char *const names[] = {"cuda:0", "cuda:1"};
    struct gpu gpu;
    struct ready ready[2];
    struct gpu_operands operands[2];
    kry_linear linear = typed(512, 96, 64, KRY_WEIGHT_U8, KRY_TYPE_BF16);
    for (int i = 0; i < 2; i++) {
        gpu_begin(&gpu, names[i]); /* 77 where there is one alone */
        make_ready(&gpu, &linear, 30 + (uint64_t)i, &ready[i]);
        gpu_operands_make(&gpu, ready[i].layer, 9, &plain, 40, &operands[i]);
        gpu.driver->leave(&gpu.scope);
    }
    /* Neither is current now. */
    for (int i = 0; i < 2; i++)
        gpu_apply(ready[i].layer, &operands[i]);
    for (int i = 0; i < 2; i++) {
        gpu_begin(&gpu, names[i]);
        gpu_check(&gpu, &ready[i].weights, &operands[i]);
        gpu.driver->leave(&gpu.scope);
    }
}

/* More elements of y than 32 bits count: the last rows are as they are in a batch of their own. */
static void rows_beyond_two_to_the_31_elements_are_right(void) {
    enum { K = 64, N = 32768, M = 70000, LAST = 40 };
    static const struct gpu_style plain = {0, 0, 0, false};
    struct gpu gpu;
    struct ready ready;
    struct gpu_operands many, few;
    gpu_begin(&gpu, "cuda");
    if (!is_large || gpu.device.memory_bytes < UINT64_C(16) << 30)
        return;
    kry_linear linear = typed(K, N, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F16);
    make_ready(&gpu, &linear, 50, &ready);
    gpu_operands_make(&gpu, ready.layer, M, &plain, 51, &many);
    gpu_apply(ready.layer, &many);
    gpu_operands_make(&gpu, ready.layer, LAST, &plain, 52, &few);
    memcpy(few.x, many.x + (M - LAST) * K, (size_t)(LAST * K) * sizeof few.x[0]);
    few.args.x = (const uint16_t *)many.args.x + (M - LAST) * K;
    few.args.y = (uint16_t *)many.args.y + (int64_t)(M - LAST) * N;
    gpu_check(&gpu, &ready.weights, &few); /* y of the large batch, x of its last rows */
}

static void apply_with_too_small_a_workspace_writes_nothing(void) {
    static const struct gpu_style plain = {0, 0, 0, false};
    struct gpu gpu;
    struct ready ready;
    struct gpu_operands operands;
    gpu_begin(&gpu, "cuda");
    kry_linear linear = typed(264, 48, 32, KRY_WEIGHT_U4B8, KRY_TYPE_F16);
    linear.act_order = 1;
    make_ready(&gpu, &linear, 9, &ready);
    gpu_operands_make(&gpu, ready.layer, 4, &plain, 10, &operands);
    EXPECT(operands.args.scratch_bytes > 0);
    kry_apply_args args = operands.args;
    args.scratch_bytes--;
    EXPECT(kry_layer_apply(ready.layer, &args) == KRY_E_WORKSPACE);
    unsigned char *y = gpu_fetch(&gpu, args.y, operands.y_bytes, NULL);
    for (uint64_t i = 0; i < operands.y_bytes; i++)
        EXPECT(y[i] == 0x5a);
    free(y);
    forget(&ready);
}

/* ---- all of them
 * ---------------------------------------------------------------------------------------- */

#define TEST(name)                                                                                 \
    { #name, name }
static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {TEST(prepare_on_the_device_writes_what_the_host_writes),
             TEST(apply_of_every_kind_of_layer_is_right),
             TEST(apply_of_large_layers_is_right),
             TEST(apply_again_gives_the_same_bits),
             TEST(captured_graph_uses_weights_that_were_reloaded_in_place),
             TEST(saved_weights_are_right_where_they_are_mapped),
             TEST(captured_graph_uses_weights_that_were_mapped_in_place),
             TEST(two_streams_at_once_do_not_disturb_each_other),
             TEST(two_devices_in_one_process_compute_each_its_own),
             TEST(rows_beyond_two_to_the_31_elements_are_right),
             TEST(apply_with_too_small_a_workspace_writes_nothing)};
enum { TESTS = sizeof tests / sizeof tests[0] };

/* The exit code of a test in a process of its own. */
static int run(void (*test)(void)) {
    int status = 1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        test();
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 1;
    if (WIFSIGNALED(status))
        fprintf(stderr, "ended by a signal: %s\n", strsignal(WTERMSIG(status)));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv) {
    int failed = 0, passed = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: %s PLUGIN.so [TEST]\n", argv[0]);
        return 2;
    }
    setenv("GPU_PLUGIN", argv[1], 1);
    is_large = getenv("GPU_IS_PLAYED") == NULL;
    for (int i = 0; i < TESTS; i++) {
        if (argc > 2 && strcmp(argv[2], tests[i].name) != 0)
            continue;
        int code = run(tests[i].run);
        printf("%s %s\n",
               code == 0    ? "ok     "
               : code == 77 ? "skipped"
                            : "FAILED ",
               tests[i].name);
        passed += code == 0;
        failed += code != 0 && code != 77;
    }
    if (passed == 0 && failed == 0)
        puts("no GPU that the plugin can use: nothing was tested");
    return failed > 0 ? 1 : passed > 0 ? 0 : 77;
}
